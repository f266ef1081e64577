//! Other servers by WebRTC: streams pulled from them by WHEP, and sent on to them by WHIP. The other server is one of ours; its
//! own clients are browsers and other stacks.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, counters, files};
use stream_manager_tests::program::{OPEN_API, Server, run};
use stream_manager_tests::turn::{self, Turn};
use stream_manager_tests::wait_until;

const SOON: Duration = Duration::from_secs(30);

const USERS: &str =
    "[auth]\nusers = [{ name = \"ann\", password = \"se:cret\", read = [\"*\"], publish = [\"*\"] }]\n";

/// Another server with a camera and a stream to publish, both by leave.
fn other(feed: Feed) -> (tempfile::TempDir, Server, Camera) {
    let camera = Camera::start(feed);
    let (folder, server) = Server::alone(&format!(
        "{USERS}{OPEN_API}[[streams]]\nid = \"cam\"\nsource_url = \"{}\"\n\
         [[streams]]\nid = \"in\"\nsource_url = \"publisher\"\nrecording = {{ enabled = true }}\n",
        camera.url()
    ));
    server.wait_for("cam", "frames", SOON, |stream| stream["frames"].as_u64() > Some(30));
    (folder, server, camera)
}

fn recorded(folder: &Path, id: &str) -> Vec<u32> {
    let files = files(&folder.join("data/recordings").join(id));
    files.iter().flat_map(|file| counters(file)).collect()
}

fn state(server: &Server, id: &str, wanted: &str) {
    server.wait_for(id, wanted, SOON * 2, |stream| stream["state"] == wanted);
}

/// Every picture arrives, sound with it; the clock is the other server's; it comes again when the stream has been away; and
/// nobody is left behind.
#[test]
fn a_stream_is_pulled_by_whep() {
    let (_other_folder, other, _camera) = other(Feed::with_audio(false));
    let (folder, server) = Server::alone(&format!(
        "[[streams]]\nid = \"pulled\"\nsource_url = \"whep://:ann%3Ase%3Acret@{}/webrtc/cam/whep\"\n\
         retry_max = \"2s\"\nrecording = {{ enabled = true }}\n",
        other.address()
    ));
    server.wait_for("pulled", "frames", SOON, |stream| stream["frames"].as_u64() > Some(250));
    let stream = server.stream("pulled");
    assert_eq!(
        (&stream["tracks"][0]["codec"], &stream["tracks"][1]["codec"]),
        (&json!("h264"), &json!("opus"))
    );
    assert_eq!(stream["packets_lost"], 0, "{stream}");
    assert!(!stream.to_string().contains("cret"), "{stream}");
    let sessions = other.sessions("webrtc");
    assert_eq!((sessions.len(), &sessions[0]["user"]), (1, &json!("ann")), "{sessions:?}");
    assert!(sessions[0]["user_agent"].as_str().unwrap().starts_with("stream-manager/"), "{sessions:?}");
    assert_eq!(other.call("POST", "/api/streams/cam/disable", None).0, 200);
    state(&server, "pulled", "backoff");
    assert_eq!(other.call("POST", "/api/streams/cam/enable", None).0, 200);
    let before = server.stream("pulled")["frames"].as_u64();
    state(&server, "pulled", "running");
    server.wait_for("pulled", "frames", SOON, |stream| stream["frames"].as_u64() > before.map(|n| n + 75));
    let log = server.stop();
    assert!(!log.contains("cret"), "{log}");
    wait_until("its session's end", Duration::from_secs(5), || other.sessions("webrtc").is_empty());
    let numbers = recorded(folder.path(), "pulled");
    let gap = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1).expect("it was away");
    assert!(gap > 40, "{numbers:?}");
    assert_contiguous(&numbers[..=gap], "before");
    assert_contiguous(&numbers[gap + 1..], "after");
    other.stop();
}

#[test]
fn what_is_wrong_with_another_server_is_said() {
    let (_other_folder, other, _camera) = other(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let probe = |credentials: &str, path: &str| {
        run(&["probe", &format!("whep://{credentials}{}{path}", other.address())], folder.path()).1
    };
    for (credentials, path, words) in [
        ("", "/webrtc/cam/whep", "refuses the credentials"),
        ("ann:wrong@", "/webrtc/cam/whep", "refuses the credentials"),
        ("ann:se%3Acret@", "/webrtc/none/whep", "does not exist on the server (404)"),
        ("ann:se%3Acret@", "/api/system", "status 40"),
    ] {
        let said = probe(credentials, path);
        assert!(said.contains(words) && !said.contains("cret"), "{path}: {said}");
    }
    let said = probe("ann:se%3Acret@", "/webrtc/cam/whep");
    assert!(said.contains("h264") && said.contains("384x240"), "{said}");
    let (_folder, server) = Server::alone("");
    for (url, words) in [("whep://", "no host"), ("whip://host/in/whip", "unknown scheme")] {
        let (status, answer) =
            server.call("POST", "/api/streams", Some(&json!({"id": "x", "source_url": url})));
        assert!(status == 422 && answer.to_string().contains(words), "{url}: {answer}");
    }
    for url in ["whep://host/x", "ftp://host/x", "nothing", "whip://"] {
        let body = json!({"id": "x", "source_url": "test://ball", "forward": [{"url": url}]});
        let (status, answer) = server.call("POST", "/api/streams", Some(&body));
        assert!(status == 422 && answer["pointer"] == "/forward", "{url}: {answer}");
    }
    let body = json!({"id": "x", "source_url": "test://ball", "forward": [["whip://host/x"]]});
    let (status, answer) = server.call("POST", "/api/streams", Some(&body));
    assert!(status == 422 && answer["pointer"] == "/forward/0", "{answer}");
    server.stop();
    other.stop();
}

/// What goes to another server is all there; it begins again when that has shown us out, and tells of it.
#[test]
fn a_stream_is_sent_on_by_whip() {
    let (other_folder, other, camera) = other(Feed::with_audio(false));
    let body = json!({
        "id": "cam",
        "source_url": camera.url(),
        "forward": [{"url": format!("whip://ann:se%3Acret@{}/webrtc/in/whip", other.address())}],
    });
    let (_folder, server) = Server::alone("");
    let (status, answer) = server.call("POST", "/api/streams", Some(&body));
    assert_eq!(status, 201, "{answer}");
    assert!(!answer.to_string().contains("cret"), "{answer}");
    let frames = || other.stream("in")["frames"].as_u64().unwrap_or(0);
    let forward = || server.stream("cam")["forwards"][0].clone();
    wait_until("frames", SOON, || frames() > 250);
    let now = forward();
    assert_eq!((&now["state"], &now["last_error"]), (&json!("running"), &Value::Null), "{now}");
    assert!(now["bytes"].as_u64() > Some(5000), "{now}");
    let tracks = other.stream("in")["tracks"].clone();
    assert_eq!((&tracks[0]["codec"], &tracks[1]["codec"]), (&json!("h264"), &json!("opus")));
    // A password that is not shown stands for the one that is known.
    let patch = json!({"forward": server.stream("cam")["config"]["forward"]});
    assert!(patch.to_string().contains("ann:***@"), "{patch}");
    let (status, answer) = server.call("PATCH", "/api/streams/cam", Some(&patch));
    assert_eq!(status, 200, "{answer}");
    let publisher = other.sessions("webrtc")[0]["id"].clone();
    assert_eq!(other.call("DELETE", &format!("/api/sessions/{publisher}"), None).0, 204);
    wait_until("it is told", SOON, || forward()["last_error"].is_string());
    let before = frames();
    wait_until("frames again", SOON, || frames() > before + 75);
    let log = server.stop();
    assert!(!log.contains("cret"), "{log}");
    wait_until("its session's end", Duration::from_secs(5), || other.sessions("webrtc").is_empty());
    other.stop();
    let numbers = recorded(other_folder.path(), "in");
    let gap = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1).unwrap_or(numbers.len() - 1);
    assert!(gap > 40, "{numbers:?}");
    assert_contiguous(&numbers[..=gap], "before");
    assert_contiguous(&numbers[gap + 1..], "after");
}

/// Where nothing but a TURN server can be reached, by each of the ways to it, both ways; and the addresses on it are given
/// back.
#[test]
fn other_servers_are_reached_by_turn() {
    let Some(turn) = Turn::start() else { return };
    let (_other_folder, other, _camera) = other(Feed::h264());
    for url in [
        format!("turn:127.0.0.1:{}?transport=udp", turn.port),
        format!("turn:127.0.0.1:{}?transport=tcp", turn.port),
        format!("turns:127.0.0.1:{}", turn.tls_port),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[webrtc]\nrelay_only = true\n{}\
             [[streams]]\nid = \"pulled\"\nsource_url = \"whep://ann:se%3Acret@{1}/webrtc/cam/whep\"\n\
             [[streams.forward]]\nurl = \"whip://ann:se%3Acret@{1}/webrtc/in/whip\"\n",
            turn.entry(&url),
            other.address()
        );
        let server = Server::start_with(folder.path(), Some(&config), |command| {
            command.env("SSL_CERT_FILE", turn.certificate());
        });
        server.wait_for("pulled", "frames by turn", SOON, |s| s["frames"].as_u64() > Some(100));
        other.wait_for("in", "frames by turn", SOON, |s| s["frames"].as_u64() > Some(100));
        assert_eq!(server.stream("pulled")["packets_lost"], 0);
        let log = server.stop();
        assert!(!log.contains(turn::SECRET), "{log}");
        wait_until("its session's end", SOON, || other.sessions("webrtc").is_empty());
    }
    let count = |what: &str| turn.log().matches(what).count();
    assert!(count("ALLOCATE processed, success") >= 6, "{}", turn.log());
    assert!(count("refreshed, realm=<tests>") >= 6 && count("lifetime=0") >= 6, "{}", turn.log());
    other.stop();
}

/// A TURN server that is told by the other server is used like one of our own, also if one of our own does not answer.
#[test]
fn servers_that_the_other_one_tells_of_are_used() {
    let Some(turn) = Turn::start() else { return };
    let camera = Camera::start(Feed::h264());
    let (_other_folder, other) = Server::alone(&format!(
        "[webrtc]\n{}[[streams]]\nid = \"cam\"\nsource_url = \"{}\"\n",
        turn.entry(&format!("turn:127.0.0.1:{}", turn.port)),
        camera.url()
    ));
    other.wait_for("cam", "frames", SOON, |stream| stream["frames"].as_u64() > Some(30));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (_folder, server) = Server::alone(&format!(
        "[webrtc]\nrelay_only = true\n{}\
         [[streams]]\nid = \"pulled\"\nsource_url = \"whep://{}/webrtc/cam/whep\"\n",
        turn.entry(&format!("turn:{}", silent.local_addr().unwrap())),
        other.address()
    ));
    server.wait_for("pulled", "frames by turn", SOON, |s| s["frames"].as_u64() > Some(50));
    assert!(server.log().contains("is of no use"), "{}", server.log());
    server.stop();
    other.stop();
}

/// A hundred attempts leave no descriptor and no thread behind.
#[test]
fn attempts_leave_nothing_behind() {
    let (_other_folder, other, _camera) = other(Feed::h264());
    let (_folder, server) = Server::alone(&format!(
        "[[streams]]\nid = \"pulled\"\nsource_url = \"whep://ann:se%3Acret@{0}/webrtc/cam/whep\"\n\
         [[streams.forward]]\nurl = \"whip://ann:se%3Acret@{0}/webrtc/in/whip\"\n",
        other.address()
    ));
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", server.pid())).unwrap().count();
    let goes = || {
        server.wait_for("pulled", "frames", SOON, |stream| {
            stream["state"] == "running" && stream["forwards"][0]["state"] == "running"
        });
    };
    goes();
    for _ in 0..5 {
        assert_eq!(server.call("POST", "/api/streams/pulled/restart", None).0, 200);
        goes();
    }
    let before = (count("fd"), count("task"));
    for _ in 0..45 {
        assert_eq!(server.call("POST", "/api/streams/pulled/restart", None).0, 200);
        goes();
    }
    // What is kept open for the next request may be some more or less.
    wait_until("nothing is left", SOON, || {
        let now = (count("fd"), count("task"));
        now.0 <= before.0 + 4 && now.1 <= before.1 + 4
    });
    assert!(other.sessions("webrtc").len() <= 3, "{:?}", other.sessions("webrtc"));
    server.stop();
    other.stop();
}
