//! Who may do what: every call and every protocol with every role, the first user, tokens, cookies, signed addresses.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use stream_manager_tests::http::{get, request, send};
use stream_manager_tests::program::{Server, basic, finish, run, stream_manager};
use stream_manager_tests::wait_until;

const LIMIT: Duration = Duration::from_secs(30);
const STREAMS: &str = "[[streams]]\nid = \"yard/door\"\nsource_url = \"test://smpte?width=320&height=180&gop=25\"\n\
                       [[streams]]\nid = \"house\"\nsource_url = \"test://ball?width=320&height=180&gop=25\"\n\
                       [[streams]]\nid = \"yard/in\"\nsource_url = \"publisher\"\n";

/// Users of every role, one with streams of its own, and one who may nothing.
fn users() -> String {
    let mut text = String::new();
    for role in ["admin", "operator", "viewer", "publisher", "monitor"] {
        text += &format!("[[auth.users]]\nname = \"{role}\"\npassword = \"of {role}\"\nrole = \"{role}\"\n");
    }
    text + "[[auth.users]]\nname = \"yard\"\npassword = \"of yard\"\nrole = \"viewer\"\nstreams = [\"yard/*\"]\n\
            [[auth.users]]\nname = \"nobody\"\npassword = \"of nobody\"\nread = []\n\
            [[auth.users]]\nname = \"elsewhere\"\npassword = \"of elsewhere\"\n\
            permissions = [{ actions = [\"admin\"], addresses = [\"198.51.100.0/24\"] }]\n"
}

const WHO: [&str; 8] = ["admin", "operator", "viewer", "publisher", "monitor", "yard", "nobody", "elsewhere"];

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum About {
    Stream,
    Some,
    Server,
}

/// Who may do something.
fn may(who: &str, action: &str, about: About, stream: &str) -> bool {
    let actions: &[&str] = match who {
        "admin" => return true,
        "operator" => &["read", "playback", "publish", "record", "api.read", "api.write", "metrics"],
        "viewer" | "yard" => &["read", "playback", "api.read"],
        "publisher" => &["publish"],
        "monitor" => &["metrics", "api.read"],
        _ => &[],
    };
    let streams = match about {
        About::Stream => who != "yard" || stream.starts_with("yard/"),
        About::Some => true,
        About::Server => who != "yard",
    };
    actions.contains(&action) && streams
}

/// What each call takes, by its name in the description. One that is not here has no rule, and the test fails.
fn rule(operation: &str) -> Option<(&'static str, About)> {
    use About::{Server, Some as Any, Stream};
    Some(match operation {
        "getLive" | "getReady" | "getSetup" | "setUp" | "logIn" | "logOut" | "getMe" => return None,
        "listStreams" | "listSessions" | "getSession" | "getEvents" | "getConfigSchema" | "listModels"
        | "getModel" => ("api.read", Any),
        "createStream" | "changeStreams" | "endSession" => ("api.write", Any),
        "getStream" | "getStreamStats" | "listStreamSessions" | "getInference" | "signStream" => {
            ("api.read", Stream)
        }
        "putStream" | "patchStream" | "deleteStream" | "enableStream" | "disableStream" | "restartStream"
        | "endStreamSessions" | "deleteRecordings" | "patchInference" | "startInference"
        | "stopInference" => ("api.write", Stream),
        "startRecording"
        | "stopRecording"
        | "pauseRecording"
        | "resumeRecording"
        | "splitRecording"
        | "leaveRecordingToItsModes"
        | "triggerRecording"
        | "addMark"
        | "removeMark"
        | "protectRecordings"
        | "unprotectRecordings" => ("record", Stream),
        "listRecordings" | "getTimeline" | "listMarks" | "listStreamExports" | "beginExport"
        | "getPlayback" | "getThumbnails" => ("playback", Stream),
        "getSnapshot" | "getMjpeg" | "getLiveMp4" | "getDetections" => ("read", Stream),
        "listExports" | "getExport" | "deleteExport" | "getExportFile" | "searchMarks" | "searchObjects"
        | "getObject" | "getObjectPicture" | "getCounts" | "getHeat" => ("playback", Any),
        "forgetObject" => ("record", Any),
        "getStreamHealth" => ("api.read", Stream),
        "getStorage" | "getSystem" | "infer" => ("api.read", Server),
        "probe" | "discover" | "reloadModel" => ("api.write", Server),
        "getMetrics" => ("metrics", Server),
        "getConfig" | "patchConfig" | "reloadConfig" | "getConfigStatus" | "getLogs" | "listHooks"
        | "testHook" | "listUsers" | "createUser" | "getUser" | "patchUser" | "deleteUser" | "listTokens"
        | "createToken" | "deleteToken" | "getAudit" | "listBackups" | "beginBackup" | "getBackup"
        | "deleteBackup" | "getBackupFile" => ("admin", Server),
        other => panic!("{other} has no rule here"),
    })
}

fn status(server: &Server, method: &str, path: &str, who: Option<&str>) -> u16 {
    let authorization = who.map(|who| basic(who, &format!("of {who}")));
    let headers: Vec<(&str, &str)> = authorization.iter().map(|a| ("authorization", a.as_str())).collect();
    request(method, &server.url(path), &headers).status
}

/// Every call of the description with every role. Nothing is done: ids are those of nothing, and bodies are missing.
#[test]
fn every_call_takes_what_it_says() {
    let (_folder, server) = Server::alone(&(users() + STREAMS));
    let description: Value = serde_json::from_slice(&get(&server.url("/api/openapi.json")).body).unwrap();
    let mut checked = BTreeMap::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            let Some((action, about)) = rule(name) else { continue };
            let streams: &[&str] = if about == About::Stream { &["yard/none", "none"] } else { &[""] };
            for stream in streams {
                let path = path
                    .replace("{id}", &stream.replace('/', "%2F"))
                    .replace("{name}", "none")
                    .replace("{number}", "7");
                // What has no end is asked for wrongly.
                let path = if name == "getEvents" { format!("{path}?kind=nonsense") } else { path };
                let method = method.to_uppercase();
                assert_eq!(status(&server, &method, &path, None), 401, "{method} {path} by nobody");
                for who in WHO {
                    let got = status(&server, &method, &path, Some(who));
                    let allowed = !matches!(got, 401 | 403);
                    assert_eq!(allowed, may(who, action, about, stream), "{method} {path} by {who}: {got}");
                }
            }
            checked.insert(name.to_owned(), ());
        }
    }
    assert!(checked.len() > 70, "{}", checked.len());
    // What nobody has described is closed.
    for path in ["/page", "/api", "/api/new", "/metrics/", "/api/%75sers"] {
        assert_eq!(status(&server, "GET", path, None), 401, "{path}");
        assert_eq!(status(&server, "GET", path, Some("operator")), 403, "{path}");
        assert!(matches!(status(&server, "GET", path, Some("admin")), 404 | 405), "{path}");
    }
    server.stop();
}

/// The status of an RTSP request.
fn rtsp(server: &Server, method: &str, path: &str, who: Option<&str>) -> u16 {
    let mut socket = TcpStream::connect(&server.rtsp).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let authorization =
        who.map(|who| format!("Authorization: {}\r\n", basic(who, &format!("of {who}")))).unwrap_or_default();
    let body = if method == "ANNOUNCE" {
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:0\r\n"
    } else {
        ""
    };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    write!(
        socket,
        "{method} rtsp://{}/{path} RTSP/1.0\r\nCSeq: 1\r\n{authorization}{kind}Content-Length: {}\r\n\r\n{body}",
        server.rtsp,
        body.len()
    )
    .unwrap();
    let mut answer = [0u8; 64];
    let length = socket.read(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    text.split_whitespace().nth(1).unwrap_or_default().parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn every_protocol_takes_what_it_says() {
    let (_folder, server) = Server::alone(&(users() + STREAMS));
    let mut as_admin = server;
    as_admin.log_in("admin", "of admin");
    let server = as_admin;
    for stream in ["yard/door", "house"] {
        server.wait_for(stream, "frames", LIMIT, |s| s["frames"].as_u64() > Some(5));
    }
    for stream in ["yard/door", "house"] {
        for (path, action) in [
            (format!("/hls/{stream}/index.m3u8"), "read"),
            (format!("/hls/{stream}/v0-1.m4s"), "read"),
            (format!("/dash/{stream}/manifest.mpd"), "read"),
            (format!("/webrtc/{stream}"), "read"),
            (format!("/api/streams/{stream}/snapshot.jpg"), "read"),
            (format!("/api/streams/{stream}/snapshot.jpg?time=2026-01-01T00:00:00Z"), "playback"),
            (format!("/api/streams/{stream}/playback?start=0&end=1"), "playback"),
            (format!("/api/streams/{stream}/playback.m3u8?start=0&end=1"), "playback"),
            (format!("/api/streams/{stream}/thumbnails.jpg?start=0&end=1"), "playback"),
            (format!("/hls/{stream}/index.m3u8?start=0"), "playback"),
        ] {
            assert_eq!(status(&server, "GET", &path, None), 401, "{path}");
            for who in WHO {
                let got = status(&server, "GET", &path, Some(who));
                assert_eq!(
                    !matches!(got, 401 | 403),
                    may(who, action, About::Stream, stream),
                    "{path} by {who}: {got}"
                );
            }
        }
        for who in WHO {
            for (path, action) in
                [(stream.to_owned(), "read"), (format!("{stream}?start=0&end=1"), "playback")]
            {
                let got = rtsp(&server, "DESCRIBE", &path, Some(who));
                assert_eq!(
                    !matches!(got, 401 | 403),
                    may(who, action, About::Stream, stream),
                    "{path} by {who}: {got}"
                );
            }
        }
        assert_eq!(rtsp(&server, "DESCRIBE", stream, None), 401);
    }
    assert_eq!(rtsp(&server, "ANNOUNCE", "yard/in", None), 401);
    assert_eq!(status(&server, "POST", "/webrtc/yard/in/whip", None), 401);
    for who in WHO {
        let allowed = may(who, "publish", About::Stream, "yard/in");
        let got = rtsp(&server, "ANNOUNCE", "yard/in", Some(who));
        assert_eq!(!matches!(got, 401 | 403), allowed, "RTSP by {who}: {got}");
        let got = status(&server, "POST", "/webrtc/yard/in/whip", Some(who));
        assert_eq!(!matches!(got, 401 | 403), allowed, "WHIP by {who}: {got}");
        // What RTMP carries stands behind the name.
        let url = format!("rtmp://{}/yard/in?user={who}&pass=of%20{who}", rtmp_address(&server));
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x64:rate=5:duration=0.4"]);
        command.args(["-c:v", "libx264", "-f", "flv", &url]).stdin(Stdio::null());
        let output = finish(command, LIMIT);
        assert_eq!(
            output.status.success(),
            allowed,
            "RTMP by {who}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // Lists leave out what is not to be seen, and events do, too.
    let listed = |who: &str, path: &str| {
        let answer =
            request("GET", &server.url(path), &[("authorization", &basic(who, &format!("of {who}")))]);
        serde_json::from_slice::<Value>(&answer.body).unwrap()
    };
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&listed("admin", "/api/streams")), ["house", "yard/door", "yard/in"]);
    let page = listed("yard", "/api/streams");
    assert_eq!(
        (ids(&page), page["total"].as_u64()),
        (vec!["yard/door".to_owned(), "yard/in".to_owned()], Some(2))
    );
    for (who, expected) in [("viewer", true), ("yard", false)] {
        let answer = events(&server, who);
        assert!(answer.contains("\"yard/door\""), "{who}: {answer}");
        assert_eq!(answer.contains("\"house\""), expected, "{who}: {answer}");
    }
    server.stop();
}

/// What has happened since the start, as somebody sees it.
fn events(server: &Server, who: &str) -> String {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let authorization = basic(who, &format!("of {who}"));
    write!(
        socket,
        "GET /api/events?after=0 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n"
    )
    .unwrap();
    let (mut text, mut chunk) = (Vec::new(), [0u8; 4096]);
    while let Ok(length @ 1..) = socket.read(&mut chunk) {
        text.extend_from_slice(&chunk[..length]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn rtmp_address(server: &Server) -> String {
    let log = server.log();
    let line = log.lines().find(|line| line.contains(" at rtmp://")).unwrap_or_else(|| panic!("{log}"));
    line.split("rtmp://").nth(1).unwrap().split('/').next().unwrap().to_owned()
}

/// A proxy that nobody has configured: what it passes on does not come from this machine.
const FROM_ELSEWHERE: (&str, &str) = ("x-forwarded-for", "203.0.113.9");

fn setup_code(server: &Server) -> String {
    let log = server.log();
    let line = log.lines().find(|line| line.contains("with the code ")).unwrap_or_else(|| panic!("{log}"));
    line.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn the_first_user_is_made_with_the_code() {
    let (_folder, server) = Server::alone(STREAMS);
    let elsewhere = |method: &str, path: &str, body: &Value| {
        send(
            method,
            &server.url(path),
            &[FROM_ELSEWHERE, ("content-type", "application/json")],
            body.to_string(),
        )
    };
    let nothing = Value::Null;
    // This machine may do everything, the others may watch.
    assert_eq!(get(&server.url("/api/config")).status, 200);
    server.wait_for("house", "frames", LIMIT, |s| s["frames"].as_u64() > Some(5));
    assert_eq!(elsewhere("GET", "/hls/house/index.m3u8", &nothing).status, 200);
    for (method, path) in [
        ("GET", "/api/streams"),
        ("GET", "/api/config"),
        ("GET", "/metrics"),
        ("DELETE", "/api/streams/house"),
        ("GET", "/api/streams/house/playback?start=0&end=1"),
        ("POST", "/api/users"),
    ] {
        let answer = elsewhere(method, path, &nothing);
        assert_eq!((answer.status, answer.code().as_str()), (403, "not_set_up"), "{method} {path}");
        let renamed = request(method, &server.url(path), &[("host", "cameras.evil.example")]);
        assert_eq!(renamed.status, 403, "{method} {path}: a name that was made to lead here");
    }
    let first = |code: &str| json!({"code": code, "name": "ann", "password": "geheim"});
    let code = setup_code(&server);
    let wrong = elsewhere("POST", "/api/setup", &first("aaaa-bbbb-cccc"));
    assert_eq!((wrong.status, wrong.code().as_str()), (403, "wrong_code"));
    let made = elsewhere("POST", "/api/setup", &first(&code.to_uppercase()));
    assert_eq!(made.status, 201, "{}", made.text());
    let cookie = made.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict") && !cookie.contains("Secure"), "{cookie}");
    // It is good once; and now nobody may do anything just by being here.
    assert_eq!(elsewhere("POST", "/api/setup", &first(&code)).code(), "already_set_up");
    for path in ["/api/streams", "/hls/house/index.m3u8", "/api/streams/house/snapshot.jpg"] {
        assert_eq!(get(&server.url(path)).status, 401, "{path}");
    }
    let pair = cookie.split(';').next().unwrap();
    let me = request("GET", &server.url("/api/me"), &[("cookie", pair)]);
    assert_eq!(serde_json::from_slice::<Value>(&me.body).unwrap()["user"], "ann");
    let log = server.stop();
    assert!(!log.contains("geheim") && log.matches(&code).count() == 1, "{log}");
}

#[test]
fn a_browser_s_session_is_its_own() {
    let (_folder, mut server) = Server::alone(&(users() + STREAMS));
    let log_in = |name: &str, password: &str| {
        let body = json!({"name": name, "password": password}).to_string();
        send("POST", &server.url("/api/login"), &[("content-type", "application/json")], body)
    };
    assert_eq!(log_in("operator", "of admin").status, 401);
    let answer = log_in("operator", "of operator");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    let with = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let all: Vec<(&str, &str)> = [("cookie", cookie.as_str())].iter().chain(headers).copied().collect();
        request(method, &server.url(path), &all).status
    };
    assert_eq!(with("GET", "/api/streams", &[]), 200);
    assert_eq!(with("GET", "/api/config", &[]), 403);
    // Other sites' pages change nothing with it.
    let (own, host) = (format!("http://{}", server.address()), server.address().to_owned());
    for (headers, expected) in [
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("sec-fetch-site", "same-site")], 403),
        (vec![("origin", "http://evil.example"), ("host", host.as_str())], 403),
        (vec![("sec-fetch-site", "same-origin")], 404),
        (vec![("origin", own.as_str()), ("host", host.as_str())], 404),
    ] {
        assert_eq!(with("DELETE", "/api/streams/none", &headers), expected, "{headers:?}");
    }
    assert_eq!(with("POST", "/api/logout", &[]), 204);
    assert_eq!(with("GET", "/api/streams", &[]), 401);
    // Who has changed something, or tried to, is written down.
    server.log_in("admin", "of admin");
    let (_, audit) = server.call("GET", "/api/audit?user=operator", None);
    let entries: Vec<String> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            format!("{} {} {}", e["action"].as_str().unwrap(), e["target"].as_str().unwrap(), e["status"])
        })
        .collect();
    assert!(entries.contains(&"DELETE /api/streams/none 404".to_owned()), "{entries:?}");
    assert!(entries.contains(&"POST /api/login 200".to_owned()), "{entries:?}");
    server.stop();
}

/// Runs a command beside the server, with a password if it asks for one.
fn command(server: &Server, arguments: &[&str], password: &str) -> (i32, String) {
    let mut command = stream_manager();
    command.args(arguments).current_dir(&server.folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn users_and_tokens_by_command() {
    let (_folder, server) = Server::alone(STREAMS);
    assert_eq!(get(&server.url("/api/streams")).status, 200);
    let (code, text) = command(&server, &["user", "add", "ann", "--role", "admin"], "geheim");
    assert_eq!((code, text.trim()), (0, "ann: admin with *"));
    // The running server sees it within a second or two.
    wait_until("the first user counts", LIMIT, || get(&server.url("/api/streams")).status == 401);
    let as_user = |user: &str, password: &str, path: &str| {
        request("GET", &server.url(path), &[("authorization", &basic(user, password))]).status
    };
    assert_eq!(as_user("ann", "geheim", "/api/config"), 200);
    let (code, text) = command(
        &server,
        &["user", "add", "vic", "--role", "viewer", "--streams", "yard/*", "--from", "127.0.0.0/8,::1"],
        "see",
    );
    assert_eq!((code, text.trim()), (0, "vic: read,playback,api.read with yard/* from 127.0.0.0/8,::1"));
    let (code, text) = command(&server, &["user", "add", "vic", "--role", "viewer"], "x");
    assert_eq!((code, text.contains("there is a user \"vic\" already")), (2, true), "{text}");
    let (code, text) = command(&server, &["user", "remove", "ann"], "");
    assert_eq!((code, text.contains("last user who may do everything")), (1, true), "{text}");
    let (code, text) = command(&server, &["user", "add", "bob"], "x");
    assert_eq!((code, text.contains("what may be done?")), (2, true), "{text}");
    wait_until("vic", LIMIT, || as_user("vic", "see", "/api/streams/yard%2Fdoor") == 200);
    assert_eq!(as_user("vic", "see", "/api/streams/house"), 403);
    // A token of vic's, as bearer, as a password, in an address.
    let mut made = stream_manager();
    made.args(["token", "add", "player", "--user", "vic", "--expires", "1h"]).current_dir(&server.folder);
    let made = finish(made, LIMIT);
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let bearer = format!("Bearer {token}");
    let path = "/api/streams/yard%2Fdoor";
    wait_until("the token counts", LIMIT, || {
        request("GET", &server.url(path), &[("authorization", &bearer)]).status == 200
    });
    assert_eq!(as_user("whoever", &token, path), 200);
    assert_eq!(get(&server.url(&format!("{path}?token={token}"))).status, 200);
    assert_eq!(get(&server.url(&format!("/api/streams/house?token={token}"))).status, 403);
    let url = format!("rtsp://x:{token}@{}/yard/door", server.rtsp);
    let probe = |url: &str| {
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-show_entries", "stream=codec_name", url]).stdin(Stdio::null());
        finish(command, LIMIT).status.success()
    };
    assert!(probe(&url), "by RTSP, where names and passwords are all that players know");
    assert!(!probe(&url.replace("yard/door", "house")));
    // A disabled user's token is good for nothing; nor is one that was taken away.
    assert_eq!(command(&server, &["user", "disable", "vic"], "").0, 0);
    wait_until("vic is out", LIMIT, || {
        request("GET", &server.url(path), &[("authorization", &bearer)]).status == 401
    });
    assert_eq!(command(&server, &["user", "enable", "vic"], "").0, 0);
    let id = token.split('_').nth(1).unwrap();
    assert_eq!(command(&server, &["token", "remove", id], "").0, 0);
    wait_until("vic is in again", LIMIT, || as_user("vic", "see", path) == 200);
    assert_eq!(request("GET", &server.url(path), &[("authorization", &bearer)]).status, 401);
    let log = server.stop();
    for secret in ["geheim", token.split('_').nth(2).unwrap()] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn signed_addresses_are_good_for_a_while() {
    let (_folder, mut server) = Server::alone(&(users() + STREAMS));
    server.log_in("yard", "of yard");
    server.wait_for("yard/door", "frames", LIMIT, |s| s["frames"].as_u64() > Some(5));
    let sign = |body: Value| server.call("POST", "/api/streams/yard%2Fdoor/sign", Some(&body));
    let (status, signed) = sign(json!({"expires_in": "1m"}));
    assert_eq!(status, 201, "{signed}");
    let probe = |url: &str| {
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-show_entries", "stream=codec_name", url]).stdin(Stdio::null());
        let output = finish(command, LIMIT);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for protocol in ["rtsp", "hls", "dash", "mp4"] {
        let url = signed["urls"][protocol].as_str().unwrap_or_else(|| panic!("{protocol}: {signed}"));
        // By name, since the machine's own name is what the answer has.
        let (good, said) = probe(url);
        assert!(good, "{url}: {said}");
        let other = url.replace("yard/door", "house");
        assert!(!probe(&other).0, "{other}");
    }
    let query = signed["query"].as_str().unwrap();
    assert_eq!(
        get(&server.url(&format!("/api/streams/yard%2Fdoor?{query}"))).status,
        401,
        "it is for watching"
    );
    assert_eq!(
        get(&server.url(&format!("/api/streams/yard%2Fdoor/playback?start=0&end=1&{query}"))).status,
        401
    );
    assert_eq!(get(&server.url(&format!("/api/streams/yard%2Fdoor/snapshot.jpg?{query}"))).status, 200);
    // Nobody signs for more than they may, nor for ever.
    assert_eq!(sign(json!({"action": "publish"})).0, 403);
    assert_eq!(sign(json!({"action": "admin"})).0, 403);
    assert_eq!(sign(json!({"expires_in": "8d"})).0, 422);
    assert_eq!(sign(json!({"expires_in": "1s"})).0, 201);
    let (_, brief) = sign(json!({"expires_in": "1s"}));
    let url =
        server.url(&format!("/api/streams/yard%2Fdoor/snapshot.jpg?{}", brief["query"].as_str().unwrap()));
    wait_until("it expires", LIMIT, || get(&url).status == 401);
    let log = server.stop();
    assert!(!log.contains(query.trim_start_matches("sig=")), "{log}");
}

/// A guesser waits, also with the right password; others do not.
#[test]
fn passwords_cannot_be_guessed_at_any_speed() {
    let (_folder, server) = Server::alone(&(users() + STREAMS));
    let url = server.url("/api/streams");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..20 {
            let url = &url;
            scope.spawn(move || {
                let guess = basic("admin", &format!("guess {n}"));
                let got = request("GET", url, &[("authorization", &guess)]).status;
                assert!(matches!(got, 401 | 429), "{got}");
            });
        }
    });
    assert!(begun.elapsed() >= Duration::from_secs(1), "a wrong password is answered later");
    let right = basic("admin", "of admin");
    let limited = request("GET", &url, &[("authorization", &right)]);
    assert_eq!((limited.status, limited.code().as_str()), (429, "too_many_attempts"));
    assert!(limited.header("retry-after").parse::<u64>().unwrap() <= 60);
    assert!(matches!(rtsp(&server, "DESCRIBE", "house", Some("admin")), 429 | 503));
    server.stop();
}

#[test]
fn hashes_in_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let mut hash = stream_manager();
    hash.args(["user", "hash"]).current_dir(folder.path());
    hash.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = hash.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "geheim").unwrap();
    let hash = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let user = |password: &str| {
        format!("[[auth.users]]\nname = \"ann\"\npassword = \"{password}\"\nrole = \"admin\"\n")
    };
    let mut server = Server::start(folder.path(), Some(&(user(&hash) + STREAMS)));
    server.log_in("ann", "geheim");
    assert_eq!(server.call("GET", "/api/streams", None).0, 200);
    let (_, config) = server.call("GET", "/api/config", None);
    assert_eq!(config["auth"]["users"][0]["password"], "***");
    server.wait_for("house", "frames", LIMIT, |s| s["frames"].as_u64() > Some(5));
    // Who cannot prove a digest is not asked for one.
    let url = format!("rtsp://ann:geheim@{}/house", server.rtsp);
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", &url]).stdin(Stdio::null());
    assert!(finish(command, LIMIT).status.success());
    server.stop();
    for (password, said) in [
        ("$2b$12$abcdefghijklmnopqrstuv", "it is no Argon2id hash"),
        (
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21l$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "too weak",
        ),
    ] {
        std::fs::write(folder.path().join("c.toml"), user(password)).unwrap();
        let (code, text) = run(&["check", "--config", "c.toml"], folder.path());
        assert!(code == 2 && text.contains(said) && !text.contains(password), "{text}");
    }
}
