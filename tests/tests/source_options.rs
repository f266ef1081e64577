//! What can be said of a source beside its address: how RTP travels, who we are, whom we trust, what is taken.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use stream_manager_tests::camera::{Auth, Camera, Feed};
use stream_manager_tests::program::{Program, Server, clip, nginx_rtmp};
use stream_manager_tests::{free_port, wait_until};

const SOON: Duration = Duration::from_secs(40);

fn create(server: &Server, id: &str, url: &str, more: &Value) -> (u16, Value) {
    let mut body = json!({"id": id, "source_url": url, "retry_initial": "100ms", "retry_max": "200ms"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.call("POST", "/api/streams", Some(&body))
}

fn runs(server: &Server, id: &str) -> Value {
    server.wait_for(id, "frames", SOON, |s| s["state"] == "running" && s["frames"].as_u64() > Some(25))
}

/// The error that a stream ends up with.
fn fails(server: &Server, id: &str) -> String {
    let stream = server.wait_for(id, "an error", SOON, |s| s["last_error"].is_string());
    stream["last_error"].as_str().unwrap().to_owned()
}

/// A certificate for 127.0.0.1 with its key, and the authority that vouches for it. All PEM.
fn certificates() -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
    openssl(&[&new[..], &["-subj", "/CN=us", "-keyout", "ca.key", "-out", "ca.pem"]].concat());
    let leaf = ["-subj", "/CN=camera", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "-", "-out", "-"];
    let extensions =
        ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    let leaf = openssl(&[&new[..], &leaf, &extensions].concat());
    (leaf, std::fs::read_to_string(folder.path().join("ca.pem")).unwrap())
}

#[test]
fn a_camera_shows_who_it_is() {
    let (leaf, authority) = certificates();
    let camera = Camera::with_certificate(Feed::with_audio(false), leaf);
    let (folder, server) = Server::alone("");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority).unwrap();
    let right = camera.fingerprint();
    for (id, tls) in
        [("any", json!({})), ("hash", json!({"fingerprint": right})), ("authority", json!({"ca": ca}))]
    {
        assert_eq!(create(&server, id, &camera.url(), &json!({"tls": tls})).0, 201, "{id}");
        assert_eq!(runs(&server, id)["tracks"].as_array().unwrap().len(), 2, "{id}");
    }
    let wrong = format!("00{}", &right[2..]);
    for (id, tls, words) in [
        ("wrong-hash", json!({"fingerprint": wrong}), right.replace(':', "").to_lowercase()),
        ("system", json!({"verify": true}), "UnknownIssuer".into()),
        ("no-file", json!({"ca": "/nowhere/ca.pem"}), "/nowhere/ca.pem".into()),
    ] {
        assert_eq!(create(&server, id, &camera.url(), &json!({"tls": tls})).0, 201, "{id}");
        let said = fails(&server, id);
        assert!(said.contains("TLS with 127.0.0.1") && said.contains(&words), "{id}: {said}");
    }
    // Whoever speaks no TLS.
    let plain = Camera::start(Feed::h264());
    let url = plain.url().replacen("rtsp:", "rtsps:", 1);
    assert_eq!(create(&server, "plain", &url, &json!({"connect_timeout": "2s"})).0, 201);
    let said = fails(&server, "plain");
    assert!(said.contains("TLS with") || said.contains("took longer"), "{said}");
    server.stop();
}

fn listens(port: u16) {
    wait_until("a server", SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// Puts TLS in front of a port; gives the port of that.
fn by_tls(certificate: &Path, target: u16) -> (Program, u16) {
    listens(target);
    let script = format!("{}/players/tls_proxy.py", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command.arg(script).arg(certificate).arg(target.to_string()).stdout(Stdio::piped());
    let mut proxy = Program::start(&mut command);
    let mut line = String::new();
    BufReader::new(proxy.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (proxy, line.trim().parse().unwrap())
}

/// By HTTPS and RTMPS. If nothing is said they are verified, unlike cameras.
#[test]
fn other_servers_show_who_they_are() {
    let (leaf, authority) = certificates();
    let (folder, server) = Server::alone("");
    let (ca, certificate) = (folder.path().join("ca.pem"), folder.path().join("leaf.pem"));
    std::fs::write(&ca, authority).unwrap();
    std::fs::write(&certificate, leaf).unwrap();
    clip(folder.path(), 8);
    let port = free_port();
    let _files = Program::start(
        Command::new("python3")
            .args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"])
            .arg(folder.path())
            .arg(port.to_string()),
    );
    let (_proxy, port) = by_tls(&certificate, port);
    let url = format!("https://127.0.0.1:{port}/media.mp4");
    let other = folder.path().join("other.pem");
    std::fs::write(&other, certificates().1).unwrap();
    // First: a TLS session is resumed without a look at the certificate.
    for (id, tls, words) in [
        ("system", json!({}), "certificate"),
        ("other", json!({"ca": other}), "certificate"),
        ("no-file", json!({"ca": "/nowhere/ca.pem"}), "/nowhere/ca.pem"),
        ("no-certificates", json!({"ca": "/etc/hostname"}), "no certificates in PEM"),
    ] {
        assert_eq!(create(&server, id, &url, &json!({"tls": tls})).0, 201, "{id}");
        let said = fails(&server, id);
        assert!(said.contains(words), "{id}: {said}");
    }
    for (id, tls) in [("any", json!({"verify": false})), ("authority", json!({"ca": ca}))] {
        assert_eq!(create(&server, id, &url, &json!({"tls": tls})).0, 201, "{id}");
        runs(&server, id);
    }
    for (url, tls) in [
        (url.as_str(), json!({"fingerprint": "ab".repeat(32)})),
        ("rtmps://127.0.0.1/live/key", json!({"ca": ca})),
        ("http://127.0.0.1/x", json!({"verify": false})),
    ] {
        let (status, answer) = create(&server, "x", url, &json!({"tls": tls}));
        assert_eq!((status, &answer["pointer"]), (422, &json!("/tls")), "{url}: {answer}");
    }
    let Some((_nginx, port)) = nginx_rtmp(folder.path()) else { return };
    let _sender = Program::start(
        Command::new("ffmpeg")
            .args(["-v", "error", "-re", "-stream_loop", "-1", "-i"])
            .arg(folder.path().join("media.mp4"))
            .args(["-c", "copy", "-f", "flv", &format!("rtmp://127.0.0.1:{port}/live/key")]),
    );
    let (_proxy, port) = by_tls(&certificate, port);
    let url = format!("rtmps://127.0.0.1:{port}/live/key");
    assert_eq!(create(&server, "verified", &url, &json!({})).0, 201);
    let said = fails(&server, "verified");
    assert!(said.to_lowercase().contains("certificate") || said.contains("TLS"), "{said}");
    assert_eq!(create(&server, "rtmps", &url, &json!({"tls": {"verify": false}})).0, 201);
    runs(&server, "rtmps");
    server.stop();
}

/// Servers that are pulled from by WHEP: by an authority of the system's, one that is named, or a certificate that is known.
#[test]
fn whep_servers_show_who_they_are() {
    let (leaf, authority) = certificates();
    let (folder, server) = Server::alone("");
    let (_other_folder, other) = Server::alone("[[streams]]\nid = \"cam\"\nsource_url = \"test://ball\"\n");
    let (ca, certificate) = (folder.path().join("ca.pem"), folder.path().join("leaf.pem"));
    std::fs::write(&ca, authority).unwrap();
    std::fs::write(&certificate, leaf).unwrap();
    let hash = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(&certificate)
        .output()
        .unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    let fingerprint = hash.trim().split_once('=').unwrap().1;
    let (_proxy, port) = by_tls(&certificate, other.address().rsplit(':').next().unwrap().parse().unwrap());
    let url = format!("wheps://127.0.0.1:{port}/webrtc/cam/whep");
    for (id, tls, words) in [
        ("system", json!({}), "certificate"),
        ("another", json!({"fingerprint": "ab".repeat(32)}), "fingerprint"),
        ("no-file", json!({"ca": "/nowhere/ca.pem"}), "/nowhere/ca.pem"),
    ] {
        assert_eq!(create(&server, id, &url, &json!({"tls": tls})).0, 201, "{id}");
        let said = fails(&server, id);
        assert!(said.contains(words), "{id}: {said}");
    }
    for (id, tls) in [
        ("any", json!({"verify": false})),
        ("authority", json!({"ca": ca})),
        ("known", json!({"fingerprint": fingerprint})),
    ] {
        assert_eq!(create(&server, id, &url, &json!({"tls": tls})).0, 201, "{id}");
        runs(&server, id);
    }
    let (status, answer) = create(&server, "x", "whep://127.0.0.1/x", &json!({"tls": {"verify": false}}));
    assert_eq!((status, &answer["pointer"]), (422, &json!("/tls")), "{answer}");
    server.stop();
}

#[test]
fn user_and_password_are_kept_apart_and_to_themselves() {
    const PASSWORD: &str = "ge&h:e/i@m%2F+ü";
    let auth = Auth { user: "me".into(), password: PASSWORD.into(), digest: true };
    let camera = Camera::with_auth(Feed::h264(), auth);
    let url = format!("rtsp://127.0.0.1:{}/live", camera.port());
    let (folder, server) = Server::alone("");
    let (status, answer) = create(&server, "cam", &url, &json!({"user": "me", "password": PASSWORD}));
    assert_eq!((status, &answer["config"]["password"]), (201, &json!("***")), "{answer}");
    runs(&server, "cam");
    // What is shown may come back.
    let mut config = server.stream("cam")["config"].clone();
    config["silence_timeout"] = json!("9s");
    assert_eq!(server.call("PUT", "/api/streams/cam", Some(&config)).0, 200);
    runs(&server, "cam");
    // But not for another camera.
    config["source_url"] = json!("rtsp://192.0.2.1/live");
    let (status, answer) = server.call("PUT", "/api/streams/cam", Some(&config));
    assert_eq!((status, &answer["pointer"]), (422, &json!("/password")), "{answer}");
    assert_eq!(create(&server, "wrong", &url, &json!({"user": "me", "password": "no"})).0, 201);
    assert!(fails(&server, "wrong").contains("401"));
    for (more, pointer, url) in [
        (json!({"user": "a"}), "/user", url.replacen("//", "//b:c@", 1)),
        (json!({"user": "a"}), "/user", "file:///x.mp4".to_owned()),
    ] {
        let (status, answer) = create(&server, "x", &url, &more);
        assert_eq!((status, &answer["pointer"]), (422, &json!(pointer)), "{answer}");
    }
    let export = server.call("GET", "/api/config", None).1.to_string();
    let log = server.stop();
    for text in [&export, &log] {
        assert!(!text.contains("ge&h") && !text.contains("ge%26h"), "{text}");
    }
    // After a restart it is known.
    let server = Server::start(folder.path(), None);
    runs(&server, "cam");
    server.stop();
}

#[test]
fn what_is_not_wanted_is_not_asked_for() {
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, server) = Server::alone("");
    for (kind, codec) in [("video", "h264"), ("audio", "aac")] {
        assert_eq!(create(&server, kind, &camera.url(), &json!({"tracks": [kind]})).0, 201);
        let tracks = runs(&server, kind)["tracks"].clone();
        assert_eq!((tracks.as_array().unwrap().len(), &tracks[0]["codec"]), (1, &json!(codec)), "{tracks}");
    }
    assert_eq!(create(&server, "data", &camera.url(), &json!({"tracks": ["data"]})).0, 201);
    assert!(fails(&server, "data").contains("none of the tracks that are asked for"));
    for (url, more, pointer) in [
        ("test://ball", json!({"tracks": ["video"]}), "/tracks"),
        ("rtsp://h/x", json!({"tracks": ["smell"]}), "/tracks/0"),
        ("test://ball", json!({"user_agent": "x"}), "/user_agent"),
        ("rtsp://h/x", json!({"tls": {"verify": true}}), "/tls"),
        ("rtsps://h/x", json!({"tls": {"fingerprint": "12"}}), "/tls"),
        ("rtsp://h/x", json!({"local_address": "127.0.0.1", "transport": "udp"}), "/local_address"),
        ("rtsp://h/x", json!({"local_address": "here"}), "/local_address"),
    ] {
        let (status, answer) = create(&server, "x", url, &more);
        assert_eq!((status, &answer["pointer"]), (422, &json!(pointer)), "{answer}");
    }
    server.stop();
}

/// A camera that has only UDP is found out, and one whose TCP brings nothing.
#[test]
fn the_transport_that_works_is_found() {
    let mut feed = Feed::with_audio(false);
    feed.only_udp = true;
    let mut camera = Camera::start(feed);
    let (_folder, server) = Server::alone("");
    assert_eq!(create(&server, "auto", &camera.url(), &json!({})).0, 201);
    assert_eq!(runs(&server, "auto")["tracks"].as_array().unwrap().len(), 2);
    assert_eq!(create(&server, "tcp", &camera.url(), &json!({"transport": "tcp"})).0, 201);
    assert!(fails(&server, "tcp").contains("461"));
    // The next time it begins with what has worked.
    let tried = |server: &Server| server.log().matches("trying the other").count();
    assert_eq!(tried(&server), 1, "{}", server.log());
    camera.kill();
    server.wait_for("auto", "backoff", SOON, |s| s["state"] == "backoff");
    camera.revive();
    let frames = server.stream("auto")["frames"].as_u64();
    server.wait_for("auto", "frames", SOON, |s| s["frames"].as_u64() > frames.map(|n| n + 50));
    assert_eq!(tried(&server), 1);
    server.stop();
}

#[test]
fn who_we_are_and_where_we_come_from() {
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = Server::alone("");
    assert_eq!(create(&server, "local", &camera.url(), &json!({"local_address": "127.0.0.7"})).0, 201);
    runs(&server, "local");
    // Local and remote address as the kernel writes them.
    let from = "0700007F:";
    let to = format!("0100007F:{:04X}", camera.port());
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|w| w.starts_with(from)) && words.next() == Some(&to)
    };
    assert!(connections.lines().any(ours), "{connections}");
    // An address that this machine does not have.
    assert_eq!(create(&server, "nowhere", &camera.url(), &json!({"local_address": "192.0.2.1"})).0, 201);
    assert!(fails(&server, "nowhere").contains("cannot connect to 127.0.0.1"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://{}/x", listener.local_addr().unwrap());
    assert_eq!(create(&server, "agent", &url, &json!({"user_agent": "viewer/7"})).0, 201);
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut buffer = [0; 1000];
    let length = socket.read(&mut buffer).unwrap();
    let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(request.contains("User-Agent: viewer/7\r\n"), "{request}");
    server.stop();
}
