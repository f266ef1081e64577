//! Streams on demand: the first reader of any protocol starts them, and some time after the last one they rest.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::http::get;
use stream_manager_tests::program::{Server, finish};
use stream_manager_tests::wait_until;
use stream_manager_tests::whep::Client;

const SOON: Duration = Duration::from_secs(30);

fn start(url: &str, more: &str) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[defaults.hls]\nidle_timeout = \"5s\"\n[rtsp]\nstart_timeout = \"2s\"\n\
         [[streams]]\nid = \"cam\"\nsource_url = \"{url}\"\non_demand = true\nclose_after = \"1s\"\nstart_timeout = \"3s\"\n{more}"
    );
    let server = Server::start_with(folder.path(), Some(&config), |command| {
        // Tells every connection.
        command.args(["--log", "debug"]);
    });
    rests(&server);
    (folder, server)
}

fn rests(server: &Server) {
    server.wait_for("cam", "rest", SOON, |s| s["state"] == "idle" && s["reason"] == "waiting for a reader");
}

fn connections(server: &Server) -> usize {
    server.log().matches("StreamState { state: Connecting").count()
}

fn by_rtsp(server: &Server) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-rtsp_transport", "tcp", "-i", &server.rtsp_url("cam")]).args([
        "-frames:v",
        "25",
        "-f",
        "null",
        "-",
    ]);
    command
}

#[test]
fn the_first_reader_starts_it_and_the_last_one_ends_it() {
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, server) = start(&camera.url(), "");
    assert_eq!((connections(&server), camera.counter()), (0, 0));
    // To rest is healthy.
    assert_eq!(get(&server.url("/health/ready")).status, 200);
    assert_eq!(server.stream("cam")["tracks"], json!([]));
    // Ten at once, one connection.
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let output = finish(by_rtsp(&server), Duration::from_secs(60));
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            });
        }
    });
    assert_eq!(connections(&server), 1);
    rests(&server);
    assert_eq!(server.stream("cam")["consumers"], json!([]));
    // By WebRTC, with a picture of now: nothing was kept of before.
    let mut client = Client::connect(&server.url("/webrtc/cam/whep"));
    client.until("pictures", SOON, |c| c.video.len() >= 25);
    assert_eq!(connections(&server), 2);
    client.leave();
    rests(&server);
    // By HLS.
    let playlist = get(&server.url("/hls/cam/index.m3u8"));
    assert_eq!((playlist.status, playlist.text().contains("#EXT-X-STREAM-INF")), (200, true));
    assert_eq!(connections(&server), 3);
    rests(&server);
    // A recording is a reader.
    assert_eq!(server.call("POST", "/api/streams/cam/recording/start", None).0, 200);
    server.wait_for("cam", "a recording", SOON, |s| s["recording"]["frames"].as_u64() > Some(75));
    assert_eq!(server.call("POST", "/api/streams/cam/recording/stop", None).0, 200);
    rests(&server);
    assert_eq!(connections(&server), 4);
    server.stop();
}

/// Whoever asks for a camera that is not there is told so in time, and then nobody tries to reach it any more.
#[test]
fn a_dead_camera_is_not_tried_for_nobody() {
    let mut camera = Camera::start(Feed::h264());
    let url = camera.url();
    camera.kill();
    let (_folder, server) = start(&url, "retry_initial = \"100ms\"\nretry_max = \"200ms\"\n");
    let asked = Instant::now();
    assert!(!finish(by_rtsp(&server), Duration::from_secs(60)).status.success());
    assert!(asked.elapsed() > Duration::from_secs(2), "it was waited for");
    wait_until("attempts", SOON, || connections(&server) >= 2);
    rests(&server);
    let before = connections(&server);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(connections(&server), before);
    camera.revive();
    assert!(finish(by_rtsp(&server), Duration::from_secs(60)).status.success());
    server.stop();
}

#[test]
fn what_makes_no_sense_is_said() {
    let (_folder, server) = Server::alone("");
    for (change, pointer) in [
        (json!({"source_url": "publisher", "on_demand": true}), "/on_demand"),
        (json!({"source_url": "test://ball", "start_timeout": "0s"}), "/start_timeout"),
    ] {
        let mut body = json!({"id": "x"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, answer) = server.call("POST", "/api/streams", Some(&body));
        assert_eq!((status, &answer["pointer"]), (422, &Value::from(pointer)), "{answer}");
    }
    server.stop();
}
