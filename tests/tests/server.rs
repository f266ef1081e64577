//! The server, as a new user meets it: started, asked by HTTP, ended.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use std::time::Duration;
use stream_manager_tests::camera::{Auth, Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, check, counters, files};
use stream_manager_tests::program::{Server, finish, signal, stream_manager, wait};

const LIMIT: Duration = Duration::from_secs(30);

/// The three calls of the README's quick start, with curl as it stands there.
#[test]
fn the_quick_start_works_to_the_letter() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let curl = |arguments: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "--fail-with-body"]).args(arguments);
        let output = finish(command, LIMIT);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let body =
        json!({"id": "camera-1", "source_url": camera.url(), "recording": {"enabled": true}}).to_string();
    curl(&["-X", "POST", &server.url("/api/streams"), "-H", "Content-Type: application/json", "-d", &body]);
    server.wait_for("camera-1", "running", LIMIT, |s| s["state"] == "running");
    assert!(curl(&[&server.url("/api/streams/camera-1")]).contains("\"state\": \"running\""));
    assert!(
        curl(&["-X", "POST", &server.url("/api/streams/camera-1/recording/start")])
            .contains("\"state\": \"recording\"")
    );
    let stream = server
        .wait_for("camera-1", "a recorded part", LIMIT, |s| s["recording"]["frames"].as_u64() > Some(40));
    assert_eq!(
        (stream["tracks"][0]["codec"].as_str(), stream["tracks"][0]["width"].as_u64()),
        (Some("h264"), Some(384))
    );
    // The file being written plays already.
    let live = files(&folder.path().join("data/recordings/camera-1"));
    assert_eq!(live.len(), 1);
    assert_contiguous(&counters(&live[0]), "the file being written");
    server.stop();
    check(&live[0]);
    let name = live[0].file_name().unwrap().to_str().unwrap();
    let pattern = "0000-00-00T00-00-00.000Z.mp4";
    assert_eq!(name.replace(|c: char| c.is_ascii_digit(), "0"), pattern.replace("mp4", "mp0"), "{name}");
}

#[test]
fn configured_streams_record_segments_without_a_hole() {
    let camera = Camera::start(Feed::with_audio(false));
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[storage]\nrecordings_dir = \"video\"\n[defaults.recording]\nenabled = true\nsegment_duration = \"2s\"\n\
         [[streams]]\nid = \"yard/door\"\nsource_url = \"{}\"\n",
        camera.url()
    );
    let server = Server::start(folder.path(), Some(&config));
    server.wait_for("yard/door", "three segments", LIMIT, |s| s["recording"]["segments"].as_u64() >= Some(3));
    server.stop();
    let files = files(&folder.path().join("video/yard/door"));
    assert!(files.len() >= 4);
    let mut numbers = Vec::new();
    for file in &files {
        check(file);
        numbers.extend(counters(file));
    }
    assert_contiguous(&numbers, "over all segments");
}

#[test]
fn recordings_are_controlled_over_http() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let (status, _) =
        server.call("POST", "/api/streams", Some(&json!({"id": "c", "source_url": camera.url()})));
    assert_eq!(status, 201);
    server.wait_for("c", "running", LIMIT, |s| s["state"] == "running" && s["recording"]["state"] == "off");
    let act = |action: &str| server.call("POST", &format!("/api/streams/c/recording/{action}"), None);
    assert_eq!(act("pause").1["code"], "recording_state");
    assert_eq!(act("start").0, 200);
    server.wait_for("c", "frames", LIMIT, |s| s["recording"]["frames"].as_u64() > Some(30));
    assert_eq!(act("split").0, 200);
    server.wait_for("c", "the first segment", LIMIT, |s| s["recording"]["segments"] == 1);
    assert_eq!(act("pause").1["state"], "paused");
    let frames = server.stream("c")["frames"].as_u64().unwrap();
    server.wait_for("c", "frames in the pause", LIMIT, |s| s["frames"].as_u64() > Some(frames + 50));
    assert_eq!(act("resume").1["state"], "recording");
    let recorded = server.stream("c")["recording"]["frames"].as_u64().unwrap();
    server.wait_for("c", "frames after the pause", LIMIT, |s| {
        s["recording"]["frames"].as_u64() > Some(recorded + 25)
    });
    assert_eq!(act("stop").1["state"], "off");
    let pieces: Vec<Vec<u32>> =
        files(&folder.path().join("data/recordings/c")).iter().map(|f| counters(f)).collect();
    assert_eq!(pieces.len(), 3);
    assert_contiguous(&pieces[..2].concat(), "over the split");
    assert!(pieces[2][0] > pieces[1].last().unwrap() + 40, "frames from inside the pause");
    assert_eq!(server.call("DELETE", "/api/streams/c", None).0, 204);
    assert_eq!(server.call("GET", "/api/streams/c", None).0, 404);
    assert_eq!(
        files(&folder.path().join("data/recordings/c")).len(),
        3,
        "deleting a stream deletes no recording"
    );
    assert_eq!(server.call("GET", "/health/ready", None).0, 200);
}

#[test]
fn one_bad_camera_harms_no_other_and_passwords_never_show() {
    let auth = Auth { user: "admin".into(), password: "hunter2hunter2".into(), digest: true };
    let good = Camera::with_auth(Feed::h264(), auth);
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[telemetry]\nlog = \"trace\"\n[[streams]]\nid = \"good\"\nsource_url = \"{}\"\n[streams.recording]\nenabled = true\n\
         [[streams]]\nid = \"wrong\"\nsource_url = \"rtsp://admin:wr0ngwr0ng@127.0.0.1:{}/live\"\n\
         [[streams]]\nid = \"gone\"\nsource_url = \"rtsp://admin:geheimgeheim@127.0.0.1:1/x\"\n",
        good.url(),
        good.port()
    );
    let server = Server::start(folder.path(), Some(&config));
    server.wait_for("good", "running", LIMIT, |s| s["state"] == "running");
    let gone = server.wait_for("gone", "backoff", LIMIT, |s| {
        s["state"] == "backoff" && s["failed_attempts"].as_u64() > Some(1)
    });
    assert!(gone["reason"].as_str().unwrap().contains("cannot connect") && gone["next_attempt"].is_string());
    let wrong = server.wait_for("wrong", "backoff", LIMIT, |s| s["state"] == "backoff");
    assert!(wrong["last_error"].as_str().unwrap().contains("401"));
    server.wait_for("good", "frames", LIMIT, |s| s["recording"]["frames"].as_u64() > Some(60));
    let answers = server.call("GET", "/api/streams", None).1.to_string();
    let log = server.stop();
    for secret in ["hunter2hunter2", "wr0ngwr0ng", "geheimgeheim"] {
        assert!(!answers.contains(secret), "the API shows a password");
        assert!(!log.contains(secret), "the log shows a password");
    }
    assert!(answers.contains("admin:***@"));
}

#[test]
fn ports_come_from_the_environment_and_kill_leaves_playable_files() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    server.call(
        "POST",
        "/api/streams",
        Some(&json!({"id": "c", "source_url": camera.url(), "recording": {"enabled": true}})),
    );
    server.wait_for("c", "frames", LIMIT, |s| s["recording"]["frames"].as_u64() > Some(60));
    let frames = server.stream("c")["recording"]["frames"].as_u64().unwrap();
    signal(&server.child, "KILL");
    let file = &files(&folder.path().join("data/recordings/c"))[0];
    let numbers = counters(file);
    assert_contiguous(&numbers, "after kill -9");
    assert!(numbers.len() as u64 >= frames);
    // A free port, found by taking and leaving one.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = stream_manager();
    let mut child = command
        .current_dir(folder.path())
        .env("STREAM_MANAGER_PORT", port.to_string())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    stream_manager_tests::wait_until("listening", LIMIT, || {
        ureq::get(format!("http://127.0.0.1:{port}/health/live")).call().is_ok()
    });
    signal(&child, "TERM");
    assert!(wait(&mut child, LIMIT).success());
}
