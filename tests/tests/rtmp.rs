//! Streams published by RTMP: by other people's programs, recorded and read again; and clients that are up to no good.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use stream_manager_tests::media::{assert_contiguous, check, codecs, counters, files};
use stream_manager_tests::program::{OPEN_API, Server, clip, finish, run, wait};
use stream_manager_tests::wait_until;

const LIMIT: Duration = Duration::from_secs(40);

const CONFIG: &str = "[[streams]]\nid = \"cam/*\"\nsource_url = \"publisher\"\n[streams.recording]\nenabled = true\n\
    [[streams]]\nid = \"strict\"\nsource_url = \"publisher\"\noverride_publisher = false\n\
    [[streams]]\nid = \"lone\"\nsource_url = \"publisher\"\n\
    [[streams]]\nid = \"own\"\nsource_url = \"test://smpte\"\n";

/// As the status says it.
fn address(server: &Server, id: &str) -> String {
    let strict = server.stream("strict")["addresses"]["rtmp"].as_str().unwrap().to_owned();
    strict.replace("/strict", &format!("/{id}"))
}

fn publish(file: &Path, url: &str, more: &[&str]) -> Child {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-i"]).arg(file).args(["-c", "copy"]).args(more);
    command.args(["-f", "flv", url]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn ffmpeg_publishes_and_all_of_it_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(folder.path(), 6);
    let server = Server::start(folder.path(), Some(CONFIG));
    assert!(server.stream("own")["addresses"]["rtmp"].is_null());
    let mut publisher = publish(&file, &address(&server, "cam/one"), &[]);
    let stream = server.wait_for("cam/one", "running", LIMIT, |s| s["state"] == "running");
    let tracks: Vec<&str> =
        stream["tracks"].as_array().unwrap().iter().map(|t| t["codec"].as_str().unwrap()).collect();
    assert_eq!(tracks, ["h264", "aac"]);
    let sessions = server.wait_until("/api/streams/cam/one/sessions", "bytes", LIMIT, |s| {
        s["items"][0]["bytes"].as_u64() > Some(10_000)
    });
    let session = &sessions["items"][0];
    assert_eq!((&session["kind"], &session["protocol"]), (&"publisher".into(), &"rtmp".into()), "{sessions}");
    // Read while it is published.
    let read = ["record", &server.rtsp_url("cam/one"), "-o", "read.mp4", "--duration", "2s", "-y"];
    let (code, text) = run(&read, folder.path());
    assert_eq!(code, 0, "{text}");
    assert_contiguous(&counters(&folder.path().join("read.mp4")), "read");
    assert!(wait(&mut publisher, LIMIT).success());
    server.wait_for("cam/one", "idle again", LIMIT, |s| s["state"] == "idle");
    server.stop();
    let all = files(&folder.path().join("data/recordings/cam/one"));
    let mut numbers = Vec::new();
    for file in &all {
        check(file);
        assert_eq!(codecs(file), ["h264", "aac"]);
        numbers.extend(counters(file));
    }
    assert_contiguous(&numbers, "recorded");
    assert!(numbers.len() >= 149, "{} frames of 150", numbers.len());
}

#[test]
fn gstreamer_publishes_and_pictures_or_sound_alone_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(CONFIG));
    let video = "videotestsrc is-live=true num-buffers=150 ! video/x-raw,width=320,height=240,framerate=25/1,format=I420 \
                 ! x264enc key-int-max=25 bframes=2 ! h264parse ! mux.";
    let audio = "audiotestsrc is-live=true num-buffers=300 ! audioconvert ! avenc_aac ! aacparse ! mux.";
    for (id, line, tracks) in [
        ("cam/both", format!("{video} {audio}"), vec!["h264", "aac"]),
        ("cam/picture", video.to_owned(), vec!["h264"]),
        ("cam/sound", audio.to_owned(), vec!["aac"]),
    ] {
        let location = format!("location={}", address(&server, id));
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-q", "-e"]).args(line.split_whitespace());
        command.args(["flvmux", "name=mux", "streamable=true", "!", "rtmp2sink", &location]);
        let mut publisher = command.stdin(Stdio::null()).spawn().unwrap();
        let found = |s: &Value| s["tracks"].as_array().is_some_and(|all| all.len() == tracks.len());
        let stream = server.wait_for(id, "tracks", LIMIT, found);
        let named: Vec<&str> =
            stream["tracks"].as_array().unwrap().iter().map(|t| t["codec"].as_str().unwrap()).collect();
        assert_eq!(named, tracks);
        server.wait_for(id, "frames", LIMIT, |s| s["frames"].as_u64() > Some(60));
        assert!(wait(&mut publisher, LIMIT).success());
        server.wait_for(id, "idle again", LIMIT, |s| s["state"] == "idle");
    }
    server.stop();
    for id in ["cam/both", "cam/picture"] {
        for file in files(&folder.path().join("data/recordings").join(id)) {
            check(&file);
        }
    }
}

/// What somebody says who may not, and that nobody else notices.
#[test]
fn who_may_not_is_told_and_nobody_else_notices() {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(folder.path(), 30);
    let users =
        "[[auth.users]]\nname = \"obs\"\npassword = \"geheim\"\npublish = [\"cam/*\", \"strict\", \"own\"]\n";
    let server = Server::start(folder.path(), Some(&format!("{CONFIG}{users}{OPEN_API}")));
    let right = "?user=obs&pass=geheim";
    let mut one = publish(&file, &(address(&server, "cam/one") + right), &[]);
    let mut strict = publish(&file, &(address(&server, "strict") + right), &[]);
    for id in ["cam/one", "strict"] {
        server.wait_for(id, "running", LIMIT, |s| s["frames"].as_u64() > Some(25));
    }
    for (id, query, said) in [
        ("cam/two", "", "credentials are needed"),
        ("cam/two", "?user=obs&pass=falsch", "credentials are wrong"),
        ("lone", right, "has no permission for publish"),
        ("own", right, "has a source of its own"),
        ("strict", right, "override_publisher is false"),
        ("cam/../x", right, "is refused"),
    ] {
        let url = address(&server, id) + query;
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "warning", "-re", "-i"]).arg(&file).args(["-c", "copy", "-f", "flv", &url]);
        command.stdin(Stdio::null());
        let output = finish(command, LIMIT);
        assert!(!output.status.success(), "{id}{query}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if said != "is refused" {
            assert!(told.contains(said), "{id}{query}: {told}");
        }
        wait_until(said, LIMIT, || server.log().contains(said));
    }
    // Nobody plays by it.
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", &(address(&server, "own") + right)]).stdin(Stdio::null());
    assert!(!finish(command, LIMIT).status.success());
    // Rubbish, handshakes that never end, connections that end in the middle of one.
    let host = address(&server, "x");
    let host = host.trim_start_matches("rtmp://").split('/').next().unwrap();
    let mut open = Vec::new();
    for number in 0..100usize {
        let mut socket = TcpStream::connect(host).unwrap();
        let bytes = vec![if number % 2 == 0 { 3 } else { 0xff }; number * 61 % 4000];
        let _ = socket.write_all(&bytes);
        if number % 3 == 0 {
            drop(socket);
        } else {
            open.push(socket);
        }
    }
    for mut socket in open {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut rest = Vec::new();
        // It is ended from the other side, gracefully or not.
        assert!(
            !matches!(socket.read_to_end(&mut rest), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        );
    }
    // The others go on.
    for id in ["cam/one", "strict"] {
        let before = server.stream(id)["frames"].as_u64().unwrap();
        server.wait_for(id, "more", LIMIT, |s| s["frames"].as_u64() > Some(before + 25));
    }
    // Another takes over; somebody ends it.
    let mut second = publish(&file, &(address(&server, "cam/one") + right), &[]);
    assert!(wait_ended(&mut one), "the first one has been replaced");
    let sessions = server.wait_until("/api/streams/cam/one/sessions", "one session", LIMIT, |s| {
        s["items"].as_array().is_some_and(|all| all.len() == 1)
    });
    let id = sessions["items"][0]["id"].as_u64().unwrap();
    assert_eq!(server.call("DELETE", &format!("/api/sessions/{id}"), None).0, 204);
    assert!(wait_ended(&mut second), "it has been ended");
    assert!(strict.try_wait().unwrap().is_none());
    let log = server.stop();
    assert!(wait_ended(&mut strict), "the server has ended");
    assert!(!log.contains("geheim") && !log.contains("falsch"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// Whether it ends, with an error.
fn wait_ended(child: &mut Child) -> bool {
    !wait(child, LIMIT).success()
}

/// The port can be changed, and the feature switched off, while others run.
#[test]
fn it_is_switched_off_and_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(CONFIG));
    let host = address(&server, "x").trim_start_matches("rtmp://").split('/').next().unwrap().to_owned();
    assert!(TcpStream::connect(&host).is_ok());
    let off = serde_json::json!({"rtmp": {"enabled": false}});
    let (code, answer) = server.call("PATCH", "/api/config", Some(&off));
    assert_eq!(code, 200, "{answer}");
    assert!(TcpStream::connect(&host).is_err());
    assert!(server.stream("strict")["addresses"]["rtmp"].is_null());
    let on = serde_json::json!({"rtmp": {"enabled": true}});
    assert_eq!(server.call("PATCH", "/api/config", Some(&on)).0, 200);
    assert!(server.stream("strict")["addresses"]["rtmp"].is_string());
    server.stop();
}
