//! Sources of all kinds, from ffmpeg as a sender: each picture once, in its order.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::free_port;
use stream_manager_tests::media::{assert_contiguous, check, codecs, counters};
use stream_manager_tests::program::{Program, Server, finish, nginx_rtmp, run, stream_manager};

const SOON: Duration = Duration::from_secs(30);

/// Some seconds of a camera with sound, as ffmpeg reads them without a doubt about their times.
fn clip() -> &'static Path {
    static CLIP: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let made = CLIP.get_or_init(|| {
        let camera = Camera::start(Feed::with_audio(false));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.mp4");
        let (status, said) =
            run(&["record", &camera.url(), "-o", path.to_str().unwrap(), "--duration", "12s"], folder.path());
        assert_eq!(status, 0, "{said}");
        (folder, path)
    });
    &made.1
}

fn send(arguments: &[&str]) -> Program {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-i"]).arg(clip()).args(["-c", "copy"]).args(arguments);
    Program::start(&mut command)
}

fn record(url: &str, path: &Path) {
    let mut command = stream_manager();
    command.args(["record", url, "-o"]).arg(path).args(["--duration", "4s"]);
    let output = finish(command, Duration::from_secs(60));
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What was recorded: the camera's pictures from some keyframe on, and its sound.
fn is_whole(path: &Path, name: &str) {
    assert_eq!(codecs(path), ["h264", "aac"], "{name}");
    check(path);
    let numbers = counters(path);
    assert!(numbers.len() >= 75, "{name}: {}", numbers.len());
    assert_contiguous(&numbers, name);
}

#[test]
fn mpegts_by_udp() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _sender = send(&["-f", "mpegts", &format!("udp://127.0.0.1:{port}?pkt_size=1316")]);
    let path = folder.path().join("udp.mp4");
    record(&format!("udp://127.0.0.1:{port}"), &path);
    is_whole(&path, "udp");
    // A group, by the loopback alone.
    let port = free_port();
    let group = format!("udp://239.255.42.42:{port}?pkt_size=1316&localaddr=127.0.0.1&ttl=0");
    let _sender = send(&["-f", "mpegts", &group]);
    let path = folder.path().join("group.mp4");
    record(&format!("udp://@239.255.42.42:{port}?interface=lo"), &path);
    is_whole(&path, "multicast");
}

#[test]
fn srt_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let secret = "passphrase=geheim-geheim&pbkeylen=16";
    let _listener = send(&["-f", "mpegts", &format!("srt://127.0.0.1:{port}?mode=listener&{secret}")]);
    let path = folder.path().join("caller.mp4");
    record(&format!("srt://127.0.0.1:{port}?{secret}"), &path);
    is_whole(&path, "srt, calling");
    // Others come to us, as encoders do.
    let port = free_port();
    let (_folder, server) = Server::alone(&format!(
        "[[streams]]\nid = \"in\"\nsource_url = \"srt://127.0.0.1:{port}?mode=listener&{secret}\"\n\
         retry_max = \"1s\"\nconnect_timeout = \"60s\"\n"
    ));
    for _ in 0..2 {
        let before = server.stream("in")["frames"].as_u64().unwrap();
        let caller = send(&["-f", "mpegts", &format!("srt://127.0.0.1:{port}?{secret}")]);
        server.wait_for("in", "frames", SOON, |s| s["frames"].as_u64() > Some(before + 100));
        drop(caller);
        server.wait_for("in", "its end", SOON, |s| s["state"] != "running");
    }
    let shown = server.stream("in").to_string() + &server.log();
    assert!(!shown.contains("geheim"), "{shown}");
    server.stop();
}

#[test]
fn rtp_that_an_sdp_describes() {
    let folder = tempfile::tempdir().unwrap();
    let sdp = folder.path().join("camera.sdp");
    let _sender = send(&[
        "-an",
        "-f",
        "rtp",
        "-sdp_file",
        sdp.to_str().unwrap(),
        &format!("rtp://127.0.0.1:{}", free_port() & !1),
    ]);
    stream_manager_tests::wait_until("the SDP", SOON, || {
        std::fs::read_to_string(&sdp).is_ok_and(|text| text.contains("sprop-parameter-sets"))
    });
    let path = folder.path().join("rtp.mp4");
    record(&format!("sdp://{}", sdp.display()), &path);
    assert_eq!(codecs(&path), ["h264"]);
    let numbers = counters(&path);
    assert!(numbers.len() >= 75, "{}", numbers.len());
    assert_contiguous(&numbers, "rtp");
}

#[test]
fn programs_that_write_media() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in
        [("ts", "mpegts"), ("fmp4", "mp4 -movflags empty_moov+frag_keyframe+default_base_moof")]
    {
        let path = folder.path().join(format!("{name}.mp4"));
        let line = format!("exec:ffmpeg -v error -re -i {} -c copy -f {format} -", clip().display());
        record(&line, &path);
        is_whole(&path, name);
    }
    // None of them is left behind.
    let alive =
        Command::new("pgrep").args(["-f", &format!("^ffmpeg.*{}.* -$", clip().display())]).output().unwrap();
    assert!(alive.stdout.is_empty(), "{}", String::from_utf8_lossy(&alive.stdout));
    for (line, words) in [
        ("exec:echo no camera here >&2; exit 3", "exit status: 3): no camera here"),
        ("exec:echo this is no media at all", "the program has"),
        ("exec:nosuchprogram --x", "not found"),
        ("exec:", "expected a program"),
    ] {
        let (status, said) = run(&["record", line, "-o", "x.mp4", "--duration", "1s"], folder.path());
        assert!(status != 0 && said.contains(words), "{line}: {said}");
    }
    let (_folder, server) = Server::alone("");
    for url in ["exec:true", " exec:true"] {
        let (status, answer) =
            server.call("POST", "/api/streams", Some(&json!({"id": "x", "source_url": url})));
        assert!(status == 422 || status == 403, "{answer}");
        assert_eq!(server.call("GET", "/api/streams/x", None).0, 404);
    }
    server.stop();
}

/// The files of a folder are one stream without an end; one that is no media is left out.
#[test]
fn a_folder_is_a_play_list() {
    let camera = Camera::start(Feed::with_audio(false));
    let folder = tempfile::tempdir().unwrap();
    let clips = folder.path().join("clips");
    std::fs::create_dir(&clips).unwrap();
    let (status, said) = run(&["record", "file:///nowhere/x/", "-o", "x.mp4"], folder.path());
    assert!(status != 0 && said.contains("No such file"), "{said}");
    let url = format!("file://{}/", clips.display());
    let (status, said) = run(&["record", &url, "-o", "x.mp4"], folder.path());
    assert!(status != 0 && said.contains("no media in this folder"), "{said}");
    for name in ["a.mp4", "c.mp4"] {
        let path = clips.join(name);
        let (status, said) =
            run(&["record", &camera.url(), "-o", path.to_str().unwrap(), "--duration", "2s"], folder.path());
        assert_eq!(status, 0, "{said}");
    }
    std::fs::write(clips.join("b.mp4"), "no media at all").unwrap();
    let path = folder.path().join("all.mp4");
    let (status, said) = run(&["record", &url, "-o", path.to_str().unwrap()], folder.path());
    assert_eq!(status, 0, "{said}");
    let wanted: Vec<u32> = ["a.mp4", "c.mp4"].iter().flat_map(|name| counters(&clips.join(name))).collect();
    assert_eq!(counters(&path), wanted);
    check(&path);
    // The same by a list of files, in its own order.
    let list = folder.path().join("list.m3u");
    std::fs::write(&list, "#EXTM3U\nclips/c.mp4\nclips/a.mp4\n").unwrap();
    let (path, url) = (folder.path().join("listed.mp4"), format!("file://{}", list.display()));
    let (status, said) = run(&["record", &url, "-o", path.to_str().unwrap()], folder.path());
    assert_eq!(status, 0, "{said}");
    let wanted: Vec<u32> = ["c.mp4", "a.mp4"].iter().flat_map(|name| counters(&clips.join(name))).collect();
    assert_eq!(counters(&path), wanted);
    std::fs::write(&list, "list.m3u\n").unwrap();
    let (status, said) = run(&["record", &url, "-o", "x.mp4"], folder.path());
    assert!(status != 0 && said.contains("is a play list itself"), "{said}");
}

/// From somebody else's server.
#[test]
fn rtmp_from_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_nginx, port)) = nginx_rtmp(folder.path()) else { return };
    let url = format!("rtmp://127.0.0.1:{port}/live/key");
    let _sender = send(&["-f", "flv", &url]);
    let path = folder.path().join("rtmp.mp4");
    record(&url, &path);
    is_whole(&path, "rtmp");
}

/// From a server that takes one connection and no more.
#[test]
fn mjpeg_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://127.0.0.1:{}/cam.mjpg", free_port());
    let _sender = send(&["-an", "-c:v", "mjpeg", "-q:v", "3", "-f", "mpjpeg", "-listen", "1", &url]);
    let path = folder.path().join("mjpeg.mkv");
    is_listened_at(&url);
    record(&url, &path);
    assert_eq!(codecs(&path), ["mjpeg"]);
    let numbers = counters(&path);
    assert!(numbers.len() >= 75, "{}", numbers.len());
    assert_contiguous(&numbers, "mjpeg");
}

/// Waits until somebody listens at an address, without connecting.
fn is_listened_at(url: &str) {
    let port: u16 = url.split(':').nth(2).unwrap().split('/').next().unwrap().parse().unwrap();
    // State 0A is LISTEN.
    let listens = format!("0100007F:{port:04X} 00000000:0000 0A");
    let any = format!("00000000:{port:04X} 00000000:0000 0A");
    stream_manager_tests::wait_until("somebody listens", SOON, || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.contains(&listens) || table.contains(&any)
    });
}

/// HLS and MP4 over HTTP, from a server of ours.
#[test]
fn streams_over_http() {
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, other) =
        Server::alone(&format!("[[streams]]\nid = \"cam\"\nsource_url = \"{}\"\n", camera.url()));
    other.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > Some(30));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mp4.mp4");
    record(&other.url("/api/streams/cam/live.mp4"), &path);
    is_whole(&path, "MP4 over HTTP");
    other.stop();
}
