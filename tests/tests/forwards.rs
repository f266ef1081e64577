//! Streams sent on to other servers by RTMP, SRT and MPEG-TS: each picture once, in its order, and again after the other side
//! was away.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, codecs, counters};
use stream_manager_tests::program::{OPEN_API, Server, run, signal, wait};
use stream_manager_tests::{free_port, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// ffmpeg looks at MPEG-TS for five seconds before it begins, otherwise.
const BRIEFLY: [&str; 4] = ["-analyzeduration", "1M", "-probesize", "200k"];

fn forwarding(camera: &Camera, urls: &[&str]) -> (tempfile::TempDir, Server) {
    let mut config = format!("[[streams]]\nid = \"cam\"\nsource_url = \"{}\"\n", camera.url());
    for url in urls {
        config += &format!("[[streams.forward]]\nurl = \"{url}\"\n");
    }
    Server::alone(&config)
}

fn forward(server: &Server, number: usize) -> Value {
    server.stream("cam")["forwards"][number].clone()
}

/// ffmpeg takes what comes at an address until there is enough of it.
fn taken(server: &Server, arguments: &[&str], url: &str, path: &Path, enough: impl Fn() -> bool) {
    let said = path.with_extension("log");
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(arguments)
        .args(["-i", url, "-c", "copy"])
        .arg(path)
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    wait_until("enough of it", Duration::from_secs(60), || {
        let enough = enough();
        let ended = ffmpeg.try_wait().unwrap();
        let said = || std::fs::read_to_string(&said).unwrap();
        let forwards = || server.stream("cam")["forwards"].to_string();
        assert!(ended.is_none(), "ffmpeg has ended, {ended:?}: {}; {}", said(), forwards());
        enough
    });
    signal(&ffmpeg, "INT");
    wait(&mut ffmpeg, Duration::from_secs(20));
}

fn is_whole(path: &Path, name: &str) {
    assert_eq!(codecs(path), ["h264", "aac"], "{name}");
    let numbers = counters(path);
    assert!(numbers.len() >= 75, "{name}: {}", numbers.len());
    assert_contiguous(&numbers, name);
}

#[test]
fn by_rtmp() {
    let camera = Camera::start(Feed::with_audio(false));
    let folder = tempfile::tempdir().unwrap();
    let url = format!("rtmp://127.0.0.1:{}/live/geheim", free_port());
    // Nobody is there yet.
    let (_folder, server) = forwarding(&camera, &[&url]);
    wait_until("it is told", SOON, || forward(&server, 0)["state"] == "backoff");
    let path = folder.path().join("rtmp.mp4");
    let enough =
        || forward(&server, 0)["state"] == "running" && forward(&server, 0)["bytes"].as_u64() > Some(100_000);
    taken(&server, &["-listen", "1"], &url, &path, enough);
    is_whole(&path, "rtmp");
    let shown = server.stream("cam")["forwards"].to_string();
    assert!(shown.contains("/live/***") && !shown.contains("geheim"), "{shown}");
    server.stop();
}

#[test]
fn by_srt_and_udp() {
    let camera = Camera::start(Feed::with_audio(false));
    let folder = tempfile::tempdir().unwrap();
    let secret = "passphrase=geheim-geheim&pbkeylen=16";
    let (srt, udp) = (free_port(), free_port());
    let (_folder, server) =
        forwarding(&camera, &[&format!("srt://127.0.0.1:{srt}?{secret}"), &format!("udp://127.0.0.1:{udp}")]);
    let path = folder.path().join("srt.mp4");
    taken(&server, &BRIEFLY, &format!("srt://127.0.0.1:{srt}?mode=listener&{secret}"), &path, || {
        let now = forward(&server, 0);
        now["state"] == "running" && now["bytes"].as_u64() > Some(100_000)
    });
    is_whole(&path, "srt");
    // A listener that has gone is told, and called again.
    wait_until("it is told", SOON, || forward(&server, 0)["last_error"].is_string());
    let path = folder.path().join("udp.mp4");
    let before = forward(&server, 1)["bytes"].as_u64();
    taken(&server, &BRIEFLY, &format!("udp://127.0.0.1:{udp}"), &path, || {
        forward(&server, 1)["bytes"].as_u64() > before.map(|bytes| bytes + 100_000)
    });
    is_whole(&path, "udp");
    let log = server.stop();
    assert!(!log.contains("geheim"), "{log}");
}

/// What a protocol does not carry is left out and said; if nothing is left, that is the reason.
#[test]
fn what_is_not_carried_is_said() {
    let camera = Camera::start(Feed::with_audio(true));
    let (_folder, server) = forwarding(&camera, &[&format!("udp://127.0.0.1:{}", free_port())]);
    wait_until("it goes", SOON, || forward(&server, 0)["state"] == "running");
    let left_out = forward(&server, 0)["left_out"].to_string();
    assert!(left_out.contains("pcmu: MPEG-TS does not carry it"), "{left_out}");
    for url in ["rtmp:///x", "srt://host", "rtmps://", "nothing", "gopher://h/x"] {
        let body = json!({"id": "x", "source_url": "test://ball", "forward": [{"url": url}]});
        let (status, answer) = server.call("POST", "/api/streams", Some(&body));
        assert!(status == 422 && answer["pointer"] == "/forward", "{url}: {answer}");
    }
    server.stop();
}

/// To ffmpeg, which comes and goes; frames as they are, with both tracks.
#[test]
fn by_rtsp_to_ffmpeg() {
    let camera = Camera::start(Feed::with_audio(false));
    let folder = tempfile::tempdir().unwrap();
    let url = format!("rtsp://127.0.0.1:{}/live", free_port());
    let (_folder, server) = forwarding(&camera, &[&url]);
    wait_until("it is told", SOON, || forward(&server, 0)["state"] == "backoff");
    for round in 0..2 {
        let path = folder.path().join(format!("{round}.mkv"));
        let before = forward(&server, 0)["bytes"].as_u64();
        let enough = || {
            let now = forward(&server, 0);
            now["state"] == "running" && now["bytes"].as_u64() > before.map(|bytes| bytes + 200_000)
        };
        taken(&server, &["-rtsp_flags", "listen"], &url, &path, enough);
        is_whole(&path, "rtsp");
        wait_until("its end is seen", SOON, || forward(&server, 0)["state"] != "running");
    }
    server.stop();
}

/// To a server that wants a password (Digest), also by TLS; and one that does not take it says so.
#[test]
fn by_rtsp_to_another_server() {
    let camera = Camera::start(Feed::with_audio(true));
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=us"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    let tls = free_port();
    let config = format!(
        "[rtsp]\ntls_listen = \"127.0.0.1:{tls}\"\ntls_certificate = \"{0}/cert.pem\"\ntls_key = \"{0}/key.pem\"\n\
         [[auth.users]]\nname = \"me\"\npassword = \"geheim\"\npublish = [\"**\"]\nread = [\"**\"]\n{OPEN_API}\
         [[streams]]\nid = \"in/*\"\nsource_url = \"publisher\"\n",
        folder.path().display()
    );
    let (_other_folder, other) = Server::alone(&config);
    let plain = |id: &str, password: &str| other.rtsp_url(id).replacen("//", &format!("//me:{password}@"), 1);
    let by_tls = format!("rtsps://me:geheim@127.0.0.1:{tls}/in/tls");
    let (_folder, server) =
        forwarding(&camera, &[&plain("in/a", "geheim"), &by_tls, &plain("in/b", "wrong")]);
    for id in ["in/a", "in/tls"] {
        wait_until(id, SOON, || {
            let (status, stream) = other.call("GET", &format!("/api/streams/{id}"), None);
            status == 200 && stream["frames"].as_u64() > Some(200) && stream["packets_lost"] == 0
        });
        let tracks = other.stream(id)["tracks"].to_string();
        assert!(tracks.contains("h264") && tracks.contains("pcmu"), "{tracks}");
    }
    wait_until("it is told", SOON, || {
        forward(&server, 2)["last_error"].as_str().is_some_and(|error| error.contains("401"))
    });
    // Who has ended it is told, and it comes again.
    let session = other.sessions("rtsp").into_iter().find(|s| s["kind"] == "publisher").unwrap();
    let id = session["id"].as_u64().unwrap();
    assert_eq!(other.call("DELETE", &format!("/api/sessions/{id}"), None).0, 204);
    wait_until("it is back", SOON, || {
        let all = other.call("GET", "/api/sessions", None).1;
        let publishers =
            all["items"].as_array().unwrap().iter().filter(|s| s["kind"] == "publisher" && s["id"] != id);
        publishers.count() == 2
    });
    let log = server.stop();
    assert!(!log.contains("geheim"), "{log}");
    other.stop();
}

/// What leads back to the stream itself is seen before it goes round.
#[test]
fn onto_itself_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let server = "[server]\nlisten = \"127.0.0.1:3999\"\n[[streams]]\nid = \"yard/cam\"\n";
    let back = "http://localhost:3999/hls/yard/cam/index.m3u8";
    for (stream, key) in [
        (format!("source_url = \"{back}\"\n"), "source_url"),
        (format!("source_url = \"test://ball\"\n[streams.fallback]\nurl = \"{back}\"\n"), "fallback/url"),
        (
            "source_url = \"test://ball\"\n[[streams.forward]]\nurl = \"whip://127.0.0.1:3999/webrtc/yard/cam/whip\"\n"
                .to_owned(),
            "forward",
        ),
    ] {
        std::fs::write(folder.path().join("c.toml"), format!("{server}{stream}")).unwrap();
        let (code, said) = run(&["check", "--config", "c.toml"], folder.path());
        assert!(code == 2 && said.contains(key) && said.contains("leads back to this stream itself"), "{said}");
    }
}
