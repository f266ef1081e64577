//! Mistakes and mishaps: each gets a clear error and a code of its own, and nothing else is harmed.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::program::{Server, finish, stream_manager};
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};

const LIMIT: Duration = Duration::from_secs(40);

/// Runs the program in `folder` and expects this exit code and these words on standard error.
fn fails(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let mut command = stream_manager();
    command.current_dir(folder).args(arguments);
    let output = finish(command, Duration::from_secs(60));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{arguments:?} does not say \"{word}\": {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn sources_that_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = format!("rtsp://me:geheim@127.0.0.1:{closed}/x");
    std::fs::write(folder.join("no.mp4"), "this is no video, whatever its name says".repeat(100)).unwrap();
    std::fs::write(folder.join("empty.mp4"), "").unwrap();
    let file = |name: &str| format!("file://{}", folder.join(name).display());
    let camera = Camera::start(Feed::h264());
    let cases: &[(&str, i32, &[&str])] = &[
        ("camera", 2, &["is no URL", "expected rtsp://"]),
        ("gopher://x/y", 2, &["unknown scheme \"gopher\"", "expected rtsp://"]),
        ("rtsp:///x", 2, &["no host"]),
        ("publisher", 3, &["no address to read from"]),
        ("test://plaid", 2, &["expected smpte or ball"]),
        ("gst:videotestsrc ! nosuchelement", 2, &["\"nosuchelement\" is missing"]),
        ("gst:videotestsrc ! fakesink", 2, &["without a sink"]),
        ("rtsp://no-such-host.invalid/x", 3, &["\"no-such-host.invalid\" does not resolve"]),
        (&refused, 3, &["cannot connect to 127.0.0.1", "refused"]),
        (&camera.url_of("/nothing"), 3, &["does not exist on the server (404)"]),
        (&file("missing.mp4"), 3, &["missing.mp4", "No such file"]),
        (&file("empty.mp4"), 3, &["is empty"]),
        (&file("no.mp4"), 3, &["no.mp4"]),
        // A folder is a play list; there is nothing in this one that can be played.
        (&format!("file://{}", folder.display()), 3, &["no.mp4"]),
        (&format!("http://127.0.0.1:{closed}/x.mp4"), 3, &["127.0.0.1"]),
    ];
    for (url, code, words) in cases {
        fails(folder, &["record", url, "-o", "out.mp4", "--duration", "1s"], *code, words);
        fails(folder, &["probe", url, "--duration", "100ms"], *code, words);
        assert!(!folder.join("out.mp4").exists(), "{url} left a file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_offer_nothing_usable() {
    let cases = [
        ("", "offers no video or audio"),
        (
            "m=video 0 RTP/AVP 96\r\na=rtpmap:96 FUTURE/90000\r\na=control:1\r\n",
            "codecs that are not supported: future",
        ),
    ];
    for (sdp, words) in cases {
        let server = ReplayServer::start(Arc::new(Loop::described(sdp)), Mischief::default()).await;
        let url = server.url("x");
        let task = tokio::task::spawn_blocking(move || {
            let folder = tempfile::tempdir().unwrap();
            fails(folder.path(), &["record", &url, "-o", "out.mp4"], 3, &[words]);
        });
        task.await.unwrap();
    }
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("there.mp4"), "mine").unwrap();
    std::fs::create_dir(folder.join("dir.mp4")).unwrap();
    let record = |output: &str, more: &[&str], code: i32, words: &[&str]| {
        let mut arguments = vec!["record", "test://smpte?audio=false", "-o", output, "--duration", "2s"];
        arguments.extend(more);
        fails(folder, &arguments, code, words);
    };
    record("there.mp4", &[], 4, &["there.mp4 exists already"]);
    assert_eq!(std::fs::read_to_string(folder.join("there.mp4")).unwrap(), "mine");
    record("dir.mp4", &["-y"], 4, &["dir.mp4 exists already"]);
    record("out.avi", &[], 2, &["expected a file name that ends in .mp4, .mkv or .ts"]);
    record("out.mp4", &["--format", "avi"], 2, &["expected fmp4, mp4, mkv or ts"]);
    record("-", &["--format", "mp4"], 2, &["cannot be streamed"]);
    record("out.mp4", &["--segment", "10ms"], 2, &["segment_duration"]);
    record("/proc/nothing/out.mp4", &[], 4, &["/proc/nothing"]);
    record("/proc/nothing/out.mkv", &[], 4, &["/proc/nothing"]);
    record("there.mp4/out.mp4", &[], 4, &["there.mp4"]);
    // A device that is always full.
    record("/dev/full", &["-y", "--format", "fmp4"], 4, &["/dev/full", "No space left"]);
    assert!(Path::new("/dev/full").exists());
    // Codecs that the container cannot hold.
    let mulaw = "gst:audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! mulawenc";
    fails(folder, &["record", mulaw, "-o", "law.ts", "--duration", "1s"], 4, &["pcmu", "use fmp4 or mkv"]);
    record("out.mp4", &["--segment", "soon"], 2, &["is no duration"]);
}

#[test]
fn configurations_that_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let stream = |more: &str| format!("[[streams]]\nid = \"a\"\nsource_url = \"test://smpte\"\n{more}");
    let cases: &[(&str, &[&str])] = &[
        ("[server\n", &["c.toml:1: "]),
        ("[server]\nlissen = 1\n", &["c.toml:2: server.lissen: unknown key; did you mean \"listen\"?"]),
        ("[server]\nmax_connects = \"many\"\n", &["c.toml:2: server.max_connects: invalid type"]),
        (
            &stream("recrding = 1\n"),
            &["c.toml:4: streams[0].recrding: unknown key; did you mean \"recording\"?"],
        ),
        (&(stream("") + &stream("")), &["c.toml:4: stream \"a\": id: is used by an earlier stream"]),
        (
            "\n[[streams]]\nid = \"../a\"\nsource_url = \"test://smpte\"\n",
            &["c.toml:2: stream \"../a\": id: "],
        ),
        (
            "[[streams]]\nid = \"a\"\nsource_url = \"smb://u:geheim@x/y\"\n",
            &["source_url: ", "unknown scheme \"smb\""],
        ),
        (
            &stream("[streams.recording]\npart_duration = \"1h\"\n"),
            &["part_duration is 3600s; expected between"],
        ),
        (
            "[[streams]]\nid = \"cam/*\"\nsource_url = \"test://smpte\"\n",
            &["c.toml:1: stream \"cam/*\": id: has a * in it"],
        ),
        ("[rtsp]\nqueue_size = \"1KiB\"\n", &["c.toml: rtsp.queue_size: it is 1KiB", "at least 64KiB"]),
        ("[rtsp]\ntls_key = \"k.pem\"\n", &["RTSPS needs all three"]),
        (
            "[[auth.users]]\nname = \"u\"\npassword = \"p\"\npublish = [\"a b\"]\n",
            &["auth.users[0].publish[0]: \"a b\" is no pattern"],
        ),
    ];
    for (text, words) in cases {
        std::fs::write(folder.join("c.toml"), text).unwrap();
        fails(folder, &["--config", "c.toml", "--port", "0"], 2, words);
        fails(folder, &["check", "--config", "c.toml"], 2, words);
    }
    fails(folder, &["--config", "none.toml"], 2, &["none.toml: No such file"]);
    fails(folder, &["--port", "99999"], 2, &["99999"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fails(folder, &["--port", &port], 1, &["cannot listen on", &port, "the port is in use"]);
    let rtsp = format!("127.0.0.1:{port}");
    let words = ["cannot listen for RTSP on", &port, "choose another port with rtsp.listen"];
    fails(folder, &["--port", "0", "--rtsp-listen", &rtsp], 1, &words);
    let tls = "[rtsp]\ntls_listen = \"127.0.0.1:0\"\ntls_certificate = \"c.toml\"\ntls_key = \"k.pem\"\n";
    std::fs::write(folder.join("c.toml"), tls).unwrap();
    let words = ["rtsp.tls_certificate", "c.toml: there is no certificate in it"];
    fails(folder, &["--config", "c.toml", "--port", "0"], 1, &words);
    fails(folder, &["check", "--config", "c.toml"], 2, &words);
    let mut command = stream_manager();
    command.env("STREAM_MANAGER_SERVER__LISSEN", "x");
    let output = finish(command, Duration::from_secs(20));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("STREAM_MANAGER_SERVER__LISSEN: server.lissen: unknown key")
    );
}

#[test]
fn check_is_content_with_what_is_right() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/../config.example.toml"),
        folder.path().join("config.toml"),
    )
    .unwrap();
    let mut command = stream_manager();
    command.current_dir(folder.path()).arg("check");
    let output = finish(command, Duration::from_secs(20));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("configuration: ok (config.toml, 1 streams)") && text.contains("GStreamer: ok"),
        "{text}"
    );
}

/// Sends bytes as they are; gives the status and the whole answer.
fn raw(server: &Server, bytes: &[u8]) -> (u16, String) {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    // The answer may come, and the connection end, before all is sent.
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    (text.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0), text)
}

fn post(path: &str, media: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Everything that can be wrong with a request: a clear answer, nothing changed, nobody disturbed.
#[test]
fn requests_that_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[[streams]]\nid = \"of-the-file\"\nsource_url = \"publisher\"\n";
    let server = Server::start(folder.path(), Some(config));
    let good = r#"{"id": "a", "source_url": "publisher"}"#;
    assert_eq!(raw(&server, &post("/api/streams", "application/json", good.as_bytes())).0, 201);
    let (_, before) = server.call("GET", "/api/config?format=json", None);

    // Bodies.
    let deep = "[".repeat(100_000);
    let long = format!(r#"{{"id": "{}", "source_url": "publisher"}}"#, "x".repeat(10 << 20));
    let wide = format!("{{{}}}", (0..50_000).map(|n| format!("\"k{n}\":0")).collect::<Vec<_>>().join(","));
    let cases: &[(&[u8], u16, &str)] = &[
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b"\xff\xfe{}", 400, "malformed_json"),
        (b"{\"id\": \"\xc3\x28\", \"source_url\": \"publisher\"}", 400, "malformed_json"),
        (br#"{"id": "b", "source_url": "publisher"} extra"#, 400, "malformed_json"),
        (br#"{"id": "b", "source_url": 1e999}"#, 400, "malformed_json"),
        (deep.as_bytes(), 400, "malformed_json"),
        (long.as_bytes(), 413, "body_too_large"),
        (wide.as_bytes(), 422, "unknown key"),
        (b"[]", 422, "invalid_body"),
        (b"null", 422, "invalid_body"),
        (br#"{"id": "b"}"#, 422, "\\\"source_url\\\" is missing"),
        (br#"{"id": ["b"], "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "b", "source_url": "publisher", "recording": []}"#, 422, "/recording"),
        (br#"{"id": "b", "source_url": "publisher", "enabled": "yes"}"#, 422, "/enabled"),
        (br#"{"id": "b", "source_url": "publisher", "recroding": {}}"#, 422, "did you mean"),
        (br#"{"id": "b", "id": "c", "source_url": "publisher"}"#, 422, "is there twice"),
        (
            br#"{"id": "b", "source_url": "publisher", "recording": {"enabled": true, "enabled": false}}"#,
            422,
            "is there twice",
        ),
        (br#"{"id": "../../etc/passwd", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "a/../b", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "a/./b", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "/a", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "a//b", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "b/recordings", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "b\u0000", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "\uff41", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "a\u202eb", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "a\u0301", "source_url": "publisher"}"#, 422, "/id"),
        (br#"{"id": "b", "source_url": "gst:filesrc location=/etc/passwd"}"#, 422, "/source_url"),
        (br#"{"id": "b", "source_url": "gopher://x"}"#, 422, "/source_url"),
        (br#"{"id": "b", "source_url": "rtsp://u:***@10.0.0.1/x"}"#, 422, "stands for a password"),
        (
            br#"{"id": "b", "source_url": "publisher", "recording": {"segment_duration": -1}}"#,
            422,
            "/recording/segment_duration",
        ),
        (br#"{"id": "of-the-file", "source_url": "publisher"}"#, 409, "stream_exists"),
    ];
    for (body, status, words) in cases {
        let shown: String = String::from_utf8_lossy(body).chars().take(100).collect();
        let (got, answer) = raw(&server, &post("/api/streams", "application/json", body));
        assert_eq!(got, *status, "{shown}: {answer}");
        assert!(answer.contains(words), "{shown}: {answer}");
        assert!(answer.contains("application/problem+json"), "{shown}: {answer}");
    }
    for media in ["text/plain", "application/xml", "multipart/form-data", "\u{e9}"] {
        let (got, answer) = raw(&server, &post("/api/streams", media, good.as_bytes()));
        assert_eq!(got, 415, "{media}: {answer}");
    }

    // Paths, methods and queries.
    for (request, status, words) in [
        ("GET /api/streams/..%2f..%2fetc HTTP/1.1", 404, "stream_not_found"),
        ("GET /api/streams/%00 HTTP/1.1", 404, "stream_not_found"),
        ("GET /api/streams/%ff%fe HTTP/1.1", 400, ""),
        ("GET /api/streams/%EF%BC%81/stats HTTP/1.1", 404, "stream_not_found"),
        ("GET /api/../api/streams HTTP/1.1", 404, "no_such_path"),
        ("BREW /api/streams HTTP/1.1", 405, "method_not_allowed"),
        ("PUT /api/streams HTTP/1.1", 405, "method_not_allowed"),
        ("DELETE /api/system HTTP/1.1", 405, "method_not_allowed"),
        ("POST /api/streams/a HTTP/1.1", 405, "GET, HEAD, PUT, PATCH, DELETE"),
        ("GET /api/streams/a/recording/start HTTP/1.1", 405, "POST"),
        ("DELETE /api/streams/of-the-file HTTP/1.1", 409, "defined_in_file"),
        ("GET /api/streams?limit=0 HTTP/1.1", 400, "expected 1 to 1000"),
        ("GET /api/streams?limit=many HTTP/1.1", 400, "invalid_query"),
        ("GET /api/streams?limit=1&limit=2 HTTP/1.1", 400, "duplicate"),
        ("GET /api/streams?sort=size HTTP/1.1", 400, "expected id, state"),
        ("GET /api/streams?state=dancing HTTP/1.1", 400, "\\\"dancing\\\" is not possible"),
        ("GET /api/streams/a/recordings?start=soon HTTP/1.1", 400, "is no time"),
        ("GET /api/streams/a/recordings?start=5&end=4 HTTP/1.1", 422, "before it starts"),
        ("DELETE /api/streams/a/recordings HTTP/1.1", 400, "start and end are needed"),
        ("GET /api/streams/a?colour=red HTTP/1.1", 400, "colour"),
        ("GET /api/config?format=yaml HTTP/1.1", 400, "json"),
        ("GET /api/logs?level=loud HTTP/1.1", 400, "level"),
        ("GET /api/streams/a\r\nIf-Match: nonsense HTTP/1.1", 400, ""),
        ("nonsense", 400, ""),
        ("GET /api/streams HTTP/9.9", 400, ""),
    ] {
        let bytes = format!("{request}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let (got, answer) = raw(&server, bytes.as_bytes());
        assert_eq!(got, status, "{request}: {answer}");
        assert!(answer.contains(words), "{request}: {answer}");
    }
    let long = format!("GET /api/streams/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(10 << 20));
    let (got, answer) = raw(&server, long.as_bytes());
    assert!(matches!(got, 414 | 431), "{got} {answer}");
    for (name, value, status) in [
        ("If-Match", "nonsense", 400),
        ("If-Match", "\"99999\"", 412),
        ("If-Match", "W/\"1\"", 412),
        ("Idempotency-Key", "a b", 0),
    ] {
        let (got, problem) =
            server.call_with("PATCH", "/api/streams/a", &[(name, value)], Some(&serde_json::json!({})));
        assert_eq!(got, if status == 0 { 200 } else { status }, "{name}: {value} {problem}");
    }
    let (got, _) = server.call_with("POST", "/api/streams", &[("idempotency-key", "a b")], None);
    assert_eq!(got, 400);

    // A page of another site, in the browser of somebody who may.
    let foreign = [("sec-fetch-site", "cross-site")];
    let (got, problem) = server.call_with("DELETE", "/api/streams/a", &foreign, None);
    assert_eq!((got, problem["code"].as_str()), (403, Some("cross_site")));
    assert_eq!(server.call_with("GET", "/api/streams/a", &foreign, None).0, 200);

    // Nothing of it has changed anything.
    let (_, page) = server.call("GET", "/api/streams", None);
    let ids: Vec<&serde_json::Value> = page["items"].as_array().unwrap().iter().map(|s| &s["id"]).collect();
    assert_eq!(ids, ["a", "of-the-file"]);
    assert_eq!(server.call("GET", "/api/config?format=json", None).1, before);
    let log = server.stop();
    assert!(!log.contains("panicked") && !log.contains("internal error"), "{log}");
}
