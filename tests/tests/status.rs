//! What people are told: of a stream, its last minutes, its readers, an address, the machine, the log.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use stream_manager_tests::camera::{Auth, Camera, Feed};
use stream_manager_tests::media::files;
use stream_manager_tests::program::{Server, wait};

const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn a_stream_says_what_people_need_to_know() {
    let camera = Camera::start(Feed::with_audio(false));
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let body = json!({"id": "yard/door", "source_url": camera.url(), "recording": {"enabled": true}});
    assert_eq!(server.call("POST", "/api/streams", Some(&body)).0, 201);
    let rate = |s: &Value| s["frame_rate"].as_f64().is_some_and(|rate| (24.0..26.0).contains(&rate));
    server.wait_for("yard/door", "its rate", LIMIT, rate);
    let mut reader = Command::new("ffmpeg");
    reader.args(["-v", "error", "-rtsp_transport", "tcp", "-i", &server.rtsp_url("yard/door")]);
    let mut reader =
        reader.args(["-f", "null", "-"]).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let stream = server.wait_for("yard/door", "a reader", LIMIT, |s| s["readers"]["rtsp"] == 1);
    assert!(stream["bitrate_bps"].as_f64() > Some(10_000.0));
    assert_eq!(stream["addresses"]["rtsp"], server.rtsp_url("yard/door"));
    assert!(stream["recording"]["file"].as_str().unwrap().ends_with(".mp4"), "{stream}");
    assert_eq!((&stream["state"], &stream["last_error"]), (&json!("running"), &Value::Null));
    let stats = server.wait_until("/api/streams/yard/door/stats", "two samples", LIMIT, |s| {
        s["history"].as_array().is_some_and(|h| h.len() >= 2)
    });
    assert!(stats["history"][1]["bitrate_bps"].as_f64() > Some(10_000.0), "{stats}");
    assert_eq!(stats["history"][1]["packets_lost"], 0);
    // Who watches is shown, and can be sent away.
    let (_, sessions) = server.call("GET", "/api/streams/yard/door/sessions", None);
    assert_eq!((&sessions["items"][0]["kind"], &sessions["next"]), (&json!("reader"), &Value::Null));
    let (status, ended) = server.call("DELETE", "/api/streams/yard/door/sessions", None);
    assert_eq!((status, &ended["ended"]), (200, &json!(1)));
    wait(&mut reader, LIMIT);
    server.wait_for("yard/door", "nobody watches", LIMIT, |s| s["readers"] == json!({}));
    // A restart is a new connection.
    let (status, _) = server.call("POST", "/api/streams/yard/door/restart", None);
    assert_eq!(status, 200);
    server.wait_for("yard/door", "it runs again", LIMIT, |s| {
        s["state"] == "running" && s["recording"]["file"].is_string()
    });
    assert!(files(&folder.path().join("data/recordings/yard/door")).len() >= 2);
    // With its recordings it is gone altogether.
    assert_eq!(server.call("DELETE", "/api/streams/yard/door?recordings=all", None).0, 204);
    assert!(
        !folder.path().join("data/recordings/yard/door").exists()
            || files(&folder.path().join("data/recordings/yard/door")).is_empty()
    );
    let (status, left) = server.call("GET", "/api/streams/yard/door/recordings", None);
    assert!(status == 404 || left["items"].as_array().unwrap().iter().all(|i| i["kind"] == "gap"), "{left}");
    server.stop();
}

#[test]
fn a_look_at_an_address() {
    let auth = Auth { user: "u".into(), password: "geheim".into(), digest: true };
    let camera = Camera::with_auth(Feed::with_audio(false), auth);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let url = camera.url();
    let plain = url.replace("u:geheim@", "");
    let (status, found) = server.call("POST", "/api/probe", Some(&json!({"url": url, "duration": "1s"})));
    assert_eq!(status, 200, "{found}");
    assert!(!found.to_string().contains("geheim"));
    let codecs: Vec<&Value> = found["tracks"].as_array().unwrap().iter().map(|t| &t["codec"]).collect();
    assert_eq!(codecs, ["h264", "aac"]);
    // The picture is one.
    let picture = found["picture"].as_str().unwrap().strip_prefix("data:image/jpeg;base64,").unwrap();
    let file = folder.path().join("picture.jpg");
    let mut decode = Command::new("base64")
        .arg("-d")
        .stdin(Stdio::piped())
        .stdout(std::fs::File::create(&file).unwrap())
        .spawn()
        .unwrap();
    decode.stdin.take().unwrap().write_all(picture.as_bytes()).unwrap();
    assert!(decode.wait().unwrap().success());
    let shown = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), "mjpeg,384,240");
    let none = json!({"url": url, "duration": "1s", "picture": false});
    assert_eq!(server.call("POST", "/api/probe", Some(&none)).1["picture"], Value::Null);
    for (body, status, words) in [
        (json!({"url": "rtsp://127.0.0.1:1/x"}), 502, "refused"),
        (json!({"url": plain}), 502, "401"),
        (json!({"url": "gst:videotestsrc"}), 422, "cannot be looked at"),
        (json!({"url": "file:///etc/passwd"}), 422, "cannot be looked at"),
        (json!({"url": "publisher"}), 422, "cannot be looked at"),
        (json!({"url": "test://smpte", "duration": "1h"}), 422, "expected 100ms to 1m"),
        (json!({"address": "x"}), 422, "unknown key"),
    ] {
        let (got, problem) = server.call("POST", "/api/probe", Some(&body));
        assert_eq!(got, status, "{body} {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{body} {problem}");
    }
    server.stop();
}

#[test]
fn the_machine_and_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let (status, system) = server.call("GET", "/api/system", None);
    assert_eq!(status, 200);
    assert!(system["features"].as_array().unwrap().contains(&json!("mqtt")), "{system}");
    assert!(system["gstreamer"]["plugins"]["coreelements"].is_string(), "{system}");
    assert_eq!(system["pid"], server.child.id());
    assert!(system["memory_bytes"].as_u64() > Some(1 << 20) && system["uptime_secs"].as_f64() > Some(0.0));

    // Who follows the log gets what is kept, and then what comes; filtered by stream and by how bad it is.
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    write!(socket, "GET /api/logs?follow=true&level=warn&stream=away HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(socket).lines();
    assert!(lines.next().unwrap().unwrap().contains("200"));
    let away = |id: &str| json!({"id": id, "source_url": "rtsp://u:geheim@127.0.0.1:1/x"});
    for id in ["other", "away"] {
        assert_eq!(server.call("POST", "/api/streams", Some(&away(id))).0, 201);
    }
    let line = lines.map(Result::unwrap).find(|l| l.starts_with("data: ")).unwrap();
    let line: Value = serde_json::from_str(line.trim_start_matches("data: ")).unwrap();
    assert_eq!((&line["level"], &line["stream"]), (&json!("warn"), &json!("away")), "{line}");
    let path = "/api/logs?level=warn&stream=other&limit=1";
    let page = server.wait_until(path, "a line", LIMIT, |p| !p["items"].as_array().unwrap().is_empty());
    assert_eq!(page["items"][0]["message"], "source failed", "{page}");
    let next = page["next"].as_str().unwrap();
    let last: u64 = next.parse().unwrap();
    let (_, rest) = server.call("GET", &format!("/api/logs?after={last}"), None);
    assert!(rest["items"].as_array().unwrap().iter().all(|l| l["id"].as_u64() > Some(last)), "{rest}");
    let (_, all) = server.call("GET", "/api/logs?limit=1000", None);
    assert!(!all.to_string().contains("geheim"));
    assert!(!server.stop().contains("geheim"));
}

/// A disk with less room than is to be kept is told of, and that it has enough again; by a limit that is set live.
#[test]
fn a_disk_without_room_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    // However full this machine's disk is.
    assert_eq!(server.call("PATCH", "/api/config", Some(&json!({"storage": {"min_free": "1B"}}))).0, 200);
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    write!(socket, "GET /api/events?kind=storage_low,storage_recovered HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(socket).lines();
    assert!(lines.next().unwrap().unwrap().contains("200"));
    // The connection is kept alive by comments: what never comes would be waited for without an end.
    let deadline = Instant::now() + LIMIT;
    let mut events = lines
        .take_while(|_| Instant::now() < deadline)
        .map(Result::unwrap)
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    for (min_free, kind) in [("900PB", "storage_low"), ("1B", "storage_recovered")] {
        let patch = json!({"storage": {"min_free": min_free}});
        assert_eq!(server.call("PATCH", "/api/config", Some(&patch)).0, 200);
        let event = events.next().unwrap();
        assert_eq!(event["kind"], kind);
        assert!(
            event["free_bytes"].as_u64() > Some(0) && event["path"].as_str().unwrap().contains("recordings"),
            "{event}"
        );
    }
    server.stop();
}
