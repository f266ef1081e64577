//! What stands in for a source that is silent: readers and the recorder go on, in one time, and the source comes back by itself.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::http::sse;
use stream_manager_tests::media::{check, counters, files, packets, reading_rtsp};
use stream_manager_tests::program::{Server, finish, run, signal, wait};
use stream_manager_tests::whep::Client;

const SOON: Duration = Duration::from_secs(40);

fn start(url: &str, more: &str) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[storage]\nmin_free = 0\n[defaults]\nretry_initial = \"200ms\"\nretry_max = \"500ms\"\nsilence_timeout = \"2s\"\n\
         [[streams]]\nid = \"cam\"\nsource_url = \"{url}\"\n{more}"
    );
    let server = Server::start(folder.path(), Some(&config));
    (folder, server)
}

fn stands_in(server: &Server, active: bool) -> Value {
    server.wait_for("cam", "fallback", SOON, |s| s["fallback"]["active"] == active)
}

/// Copies the stream into a file until it is told to end.
fn copy(server: &Server, file: &Path) -> Child {
    let mut command = Command::new("ffmpeg");
    command.args(reading_rtsp(&server.rtsp_url("cam"))).args(["-c", "copy"]);
    command.arg(file).stdin(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

fn text(name: &str) -> Value {
    json!(name)
}

/// One reader by RTSP and one by WebRTC, and the recorder, over a camera that goes and comes back.
#[test]
fn a_slate_stands_in_and_nobody_loses_the_session() {
    let mut camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(
        &camera.url(),
        "[streams.recording]\nenabled = true\n\
         [streams.fallback]\nslate = \"{id}: no signal since {since}\"\ntimeout = \"4s\"\nreturn_after = \"1s\"\n",
    );
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > Some(100));
    let before = server.stream("cam")["fallback"].clone();
    assert_eq!(
        (&before["source"], &before["active"], &before["switches"]),
        (&text("slate"), &json!(false), &json!(0))
    );
    let file = folder.path().join("read.mkv");
    let mut reading = copy(&server, &file);
    let mut watching = Client::connect(&server.url("/webrtc/cam/whep"));
    watching.until("pictures", SOON, |c| c.video.len() >= 50);
    camera.kill();
    let killed = Instant::now();
    let last = camera.counter();
    let status = stands_in(&server, true);
    // The source's own state is told as it is.
    assert_ne!(status["state"], "running", "{status:#}");
    println!("stands in after {:?}", killed.elapsed());
    let frames = status["frames"].as_u64();
    server.wait_for("cam", "frames that stand in", SOON, |s| s["frames"].as_u64() > frames.map(|n| n + 150));
    let seen = watching.video.len();
    watching.until("pictures that stand in", SOON, |c| c.video.len() >= seen + 20);
    camera.revive();
    let status = stands_in(&server, false);
    assert_eq!(status["fallback"]["switches"], 1);
    server.wait_for("cam", "running", SOON, |s| s["state"] == "running");
    let frames = status["frames"].as_u64();
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > frames.map(|n| n + 200));
    let seen = watching.video.len();
    watching.until("pictures again", SOON, |c| c.video.len() >= seen + 25);
    assert_eq!(server.sessions("webrtc").len(), 1);
    signal(&reading, "INT");
    assert_eq!(wait(&mut reading, SOON).code(), Some(255), "ffmpeg ends by the signal only");
    drop(watching);
    let (_, events) = sse(server.address(), "/api/events?after=0&kind=fallback_state", 2);
    assert_eq!(
        events.iter().map(|e| &e["active"]).collect::<Vec<_>>(),
        [&json!(true), &json!(false)],
        "{events:?}"
    );
    let (_, page) = server.call("GET", "/api/streams/cam/recordings?view=marks", None);
    let marks: Vec<&Value> =
        page["items"].as_array().unwrap().iter().map(|m| &m["data"]["fallback"]).collect();
    assert_eq!(marks, [&json!(true), &json!(false)], "{page:#}");
    let log = server.stop();
    assert!(!log.contains("panicked"), "{log}");
    let recorded = files(&folder.path().join("data/recordings/cam"));
    recorded.iter().for_each(|file| drop(check(file)));
    assert_eq!(recorded.len(), 3, "one for each part: {recorded:?}");
    let numbers: Vec<Vec<u32>> = recorded.iter().map(|file| counters(file)).collect();
    // Black has the number 0; the camera's own pictures are there one by one before and after.
    assert!(numbers[1].len() > 5 && numbers[1].iter().all(|n| *n == 0), "{:?}", numbers[1]);
    for numbers in [&numbers[0], &numbers[2]] {
        assert!(numbers.len() > 50 && numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
    }
    assert!(*numbers[0].last().unwrap() + 15 > last, "{:?} of {last}", numbers[0].last());
    // The reader: one time, without a hole that is longer than the timeout and a picture of the slate.
    let seen = counters(&file);
    let (first, rest) = seen.split_at(seen.iter().position(|n| *n == 0).unwrap());
    let (slate, again) = rest.split_at(rest.iter().position(|n| *n != 0).unwrap());
    assert!(
        first.windows(2).all(|w| w[1] == w[0] + 1) && again.windows(2).all(|w| w[1] == w[0] + 1),
        "{seen:?}"
    );
    assert!(slate.len() > 5 && slate.iter().all(|n| *n == 0) && again.len() > 40, "{seen:?}");
    for kind in ["video", "audio"] {
        // ffmpeg does not know the first one's time.
        let times: Vec<f64> =
            packets(&file).iter().filter(|p| p.kind == kind).map(|p| p.pts).skip(1).collect();
        let longest = times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
        assert!(times.windows(2).all(|w| w[1] > w[0]), "{kind} goes back");
        // The camera was away for longer than that; the slate takes a moment to be made on a busy machine.
        assert!(longest < 6.5, "{kind}: a hole of {longest} s");
    }
    let (code, said) = run(&["recordings", "verify"], folder.path());
    assert_eq!(code, 0, "{said}");
}

/// A camera that is never there, on demand: an image, which is not recorded, and nothing at all while nobody looks.
#[test]
fn an_image_stands_in_for_a_camera_that_was_never_there() {
    let mut camera = Camera::start(Feed::h264());
    camera.kill();
    let pictures = tempfile::tempdir().unwrap();
    let image = pictures.path().join("offline.png");
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-f", "lavfi", "-i", "color=white:size=200x100", "-frames:v", "1"])
        .arg(&image);
    assert!(finish(command, SOON).status.success());
    let more = format!(
        "on_demand = true\nclose_after = \"1s\"\n[streams.fallback]\nimage = \"{}\"\ntimeout = \"1s\"\nrecord = false\n",
        image.display()
    );
    let (folder, server) = start(&camera.url(), &more);
    server.wait_for("cam", "rest", SOON, |s| s["state"] == "idle");
    std::thread::sleep(Duration::from_millis(1500));
    let status = server.stream("cam");
    assert_eq!((&status["fallback"]["active"], &status["frames"]), (&json!(false), &json!(0)));
    let file = folder.path().join("read.mkv");
    let mut reading = copy(&server, &file);
    stands_in(&server, true);
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > Some(20));
    // It is not recorded.
    assert_eq!(server.call("POST", "/api/streams/cam/recording/start", None).0, 200);
    let frames = server.stream("cam")["frames"].as_u64();
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > frames.map(|n| n + 20));
    assert_eq!(server.stream("cam")["recording"]["frames"], 0);
    camera.revive();
    server.wait_for("cam", "a recording", SOON, |s| s["recording"]["frames"].as_u64() > Some(25));
    assert_eq!(server.call("POST", "/api/streams/cam/recording/stop", None).0, 200);
    signal(&reading, "INT");
    wait(&mut reading, SOON);
    server.wait_for("cam", "rest", SOON, |s| s["state"] == "idle" && s["fallback"]["active"] == false);
    server.stop();
    assert!(packets(&file).len() > 20);
    let recorded = files(&folder.path().join("data/recordings/cam"));
    let numbers: Vec<u32> = recorded.iter().flat_map(|file| counters(file)).collect();
    assert!(numbers.len() > 20 && numbers.iter().all(|n| *n > 0 && *n < 1 << 20), "{numbers:?}");
}

/// Another camera stands in, and a file; each is told by its address.
#[test]
fn another_source_stands_in() {
    let mut camera = Camera::start(Feed::h264());
    let other = Camera::start(Feed::h264());
    let (folder, server) = start(
        &camera.url(),
        &format!(
            "[streams.fallback]\nurl = \"{}\"\ntimeout = \"1s\"\nreturn_after = \"500ms\"\n",
            other.url()
        ),
    );
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > Some(50));
    // Nothing of it is fetched while the source is well.
    assert_eq!(other.counter(), 0);
    camera.stall(true);
    stands_in(&server, true);
    assert_eq!(server.stream("cam")["fallback"]["source"], other.url());
    camera.kill();
    let frames = server.stream("cam")["frames"].as_u64();
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > frames.map(|n| n + 50));
    camera.revive();
    camera.stall(false);
    stands_in(&server, false);
    // A file, as a loop.
    let file = folder.path().join("loop.mp4");
    let (code, said) =
        run(&["record", "test://ball", "--output", "loop.mp4", "--duration", "2s"], folder.path());
    assert_eq!(code, 0, "{said}");
    let change = json!({"fallback": {"url": null, "file": file, "timeout": "500ms"}});
    let (status, answer) = server.call("PATCH", "/api/streams/cam", Some(&change));
    assert_eq!(status, 409, "it is the file's: {answer}");
    let body = json!({"id": "two", "source_url": camera.url(), "fallback": change["fallback"]});
    assert_eq!(server.call("POST", "/api/streams", Some(&body)).0, 201);
    server.wait_for("two", "frames", SOON, |s| s["frames"].as_u64() > Some(50));
    camera.kill();
    server.wait_for("two", "fallback", SOON, |s| s["fallback"]["active"] == true);
    let frames = server.stream("two")["frames"].as_u64();
    // More than it is long.
    server.wait_for("two", "frames", SOON, |s| s["frames"].as_u64() > frames.map(|n| n + 250));
    server.stop();
}

/// A slate stands in for a publisher who has not come yet.
#[test]
fn a_slate_stands_in_for_a_publisher() {
    let (folder, server) =
        start("publisher", "[streams.fallback]\nslate = \"at once\"\ntimeout = \"500ms\"\n");
    let file = folder.path().join("read.mkv");
    let mut reader = copy(&server, &file);
    server.wait_for("cam", "frames", SOON, |s| {
        s["fallback"]["active"] == true && s["frames"].as_u64() > Some(50)
    });
    signal(&reader, "INT");
    wait(&mut reader, SOON);
    assert!(packets(&file).len() > 10);
    server.stop();
}

#[test]
fn what_makes_no_sense_is_said() {
    let (folder, server) = Server::alone("");
    let url = "rtsp://127.0.0.1:9/x";
    for (fallback, pointer, words) in [
        (json!({"url": url}), "/fallback/url", "own source"),
        (json!({"url": "publisher"}), "/fallback/url", "expected an address"),
        (json!({"url": "gopher://x"}), "/fallback/url", "scheme"),
        (json!({"url": "exec:touch /tmp/x"}), "/fallback/url", "only be configured in the file"),
        (json!({"slate": "a", "image": "b.png"}), "/fallback", "expected one of them"),
        (json!({"image": "/nowhere/b.png"}), "/fallback/image", "No such file"),
        (json!({"file": folder.path()}), "/fallback/file", "no file"),
        (json!({"slate": "a", "timeout": "1ms"}), "/fallback/timeout", "500ms"),
    ] {
        let body = json!({"id": "x", "source_url": url, "fallback": fallback});
        let (status, answer) = server.call("POST", "/api/streams", Some(&body));
        assert_eq!((status, &answer["pointer"]), (422, &Value::from(pointer)), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(words), "{answer}");
    }
    // Nor by way of what holds for all streams.
    let patch = json!({"defaults": {"fallback": {"url": "exec:touch /tmp/x"}}});
    let (status, answer) = server.call("PATCH", "/api/config", Some(&patch));
    assert_eq!(status, 422, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("only be configured in the file"), "{answer}");
    server.stop();
}
