//! `stream-manager record` against a real RTSP server: every frame is in the file, in order, once.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use stream_manager_tests::camera::{Auth, Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, check, counters, describe, files};
use stream_manager_tests::program::{finish, signal, stream_manager, wait};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs `record` and expects it to end with this code; gives standard output and error.
fn record(folder: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let mut command = stream_manager();
    command.current_dir(folder).arg("record").args(arguments);
    let output = finish(command, LIMIT);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "record {arguments:?}\n{out}\n{err}");
    (out.into_owned(), err.into_owned())
}

#[test]
fn every_format_holds_every_frame() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for (name, extra) in [("a.mp4", None), ("a.mkv", None), ("a.ts", None), ("plain.mp4", Some("mp4"))] {
            let folder = folder.path();
            scope.spawn(move || {
                // A camera each: the simulator loses packets when several clients join while it starts.
                let camera = Camera::start(Feed::with_audio(false));
                let mut arguments =
                    vec![camera.url(), "-o".into(), name.into(), "--duration".into(), "4s".into()];
                if let Some(format) = extra {
                    arguments.extend(["--format".to_owned(), format.to_owned()]);
                }
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let (_, told) = record(folder, &arguments, 0);
                assert!(told.contains(" 0 lost "), "{name}: the simulator has lost packets: {told}");
                let path = folder.join(name);
                let packets = check(&path);
                let video = packets.iter().filter(|p| p.kind == "video").count();
                let sound: Vec<f64> = packets.iter().filter(|p| p.kind == "audio").map(|p| p.pts).collect();
                let sound = sound[sound.len() - 1] - sound[0];
                assert_eq!(video, 100, "{name}");
                assert!((3.7..4.1).contains(&sound), "{name} has {sound} s of sound");
                let numbers = counters(&path);
                assert_eq!(numbers.len(), 100, "{name}");
                assert_contiguous(&numbers, name);
                let info = describe(&path);
                let duration: f64 = info["format"]["duration"].as_str().unwrap().parse().unwrap();
                assert!((3.8..4.2).contains(&duration), "{name} says {duration} s");
            });
        }
    });
}

#[test]
fn segments_follow_each_other_without_a_hole() {
    let camera = Camera::start(Feed::with_audio(true));
    let folder = tempfile::tempdir().unwrap();
    for (name, pieces) in [("s.mp4", 3), ("s.mkv", 3)] {
        record(folder.path(), &[&camera.url(), "-o", name, "--duration", "6s", "--segment", "2s"], 0);
        let (stem, extension) = name.split_once('.').unwrap();
        let mut numbers = Vec::new();
        for piece in 1..=pieces {
            let file = if piece == 1 { name.to_owned() } else { format!("{stem}-{piece}.{extension}") };
            check(&folder.path().join(&file));
            numbers.extend(counters(&folder.path().join(&file)));
        }
        assert_eq!(numbers.len(), 150, "{name}");
        assert_contiguous(&numbers, name);
        assert_eq!(
            files(folder.path()).iter().filter(|f| f.extension().unwrap() == extension).count(),
            pieces
        );
    }
}

#[test]
fn udp_and_digest_and_json() {
    let auth = Auth { user: "admin".into(), password: "s3cret-pass".into(), digest: true };
    let camera = Camera::with_auth(Feed::h264(), auth);
    let folder = tempfile::tempdir().unwrap();
    let url = camera.url();
    let (out, err) = record(
        folder.path(),
        &[&url, "-o", "u.mp4", "--duration", "2s", "--transport", "udp", "--json", "--log", "debug"],
        0,
    );
    assert!(!out.contains("s3cret-pass") && !err.contains("s3cret-pass"), "the password shows: {out} {err}");
    let lines: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((last["event"].as_str(), last["progress"]["frames"].as_u64()), (Some("finished"), Some(50)));
    assert!(lines.iter().any(|l| l["event"] == "progress" && l["bitrate"].as_f64().unwrap() > 0.0));
    assert_contiguous(&counters(&folder.path().join("u.mp4")), "udp");
    let wrong = url.replace("s3cret-pass", "wr0ng-pass");
    let (_, err) = record(folder.path(), &[&wrong, "-o", "w.mp4"], 3);
    assert!(err.contains("refuses the credentials (401)") && !err.contains("wr0ng-pass"), "{err}");
    assert!(!folder.path().join("w.mp4").exists());
}

#[test]
fn basic_auth() {
    let auth = Auth { user: "admin".into(), password: "p@ss/w:rd".into(), digest: false };
    let camera = Camera::with_auth(Feed::h264(), auth);
    let folder = tempfile::tempdir().unwrap();
    let url = format!("rtsp://admin:p%40ss%2Fw%3Ard@127.0.0.1:{}/live", camera.port());
    record(folder.path(), &[&url, "-o", "b.mp4", "--duration", "1s", "--quiet"], 0);
    assert_eq!(counters(&folder.path().join("b.mp4")).len(), 25);
}

#[test]
fn ctrl_c_and_sigterm_finish_the_file() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    for (name, signal_name) in [("int.mp4", "INT"), ("term.mkv", "TERM"), ("plain.mp4", "TERM")] {
        let mut command = stream_manager();
        command.current_dir(folder.path()).args(["record", &camera.url(), "-o", name, "--json"]);
        if name == "plain.mp4" {
            command.args(["--format", "mp4"]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        for line in lines.map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap();
            // MKV and MP4 tell of bytes only when a file is finished.
            if line["event"] == "progress"
                && line["state"] == "running"
                && (line["frames"].as_u64() > Some(25) || name != "int.mp4")
            {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(1500));
        signal(&child, signal_name);
        assert!(wait(&mut child, LIMIT).success());
        check(&folder.path().join(name));
        let numbers = counters(&folder.path().join(name));
        assert!(numbers.len() > 25, "{name}: {numbers:?}");
        assert_contiguous(&numbers, name);
    }
}

#[test]
fn a_source_that_is_lost_leaves_a_finished_file_and_a_code_of_its_own() {
    let mut camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let mut command = stream_manager();
    command.current_dir(folder.path()).args([
        "record",
        &camera.url(),
        "-o",
        "lost.mp4",
        "--reconnect-for",
        "2s",
    ]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let path = folder.path().join("lost.mp4");
    stream_manager_tests::wait_until("a part", LIMIT, || path.exists());
    std::thread::sleep(Duration::from_millis(500));
    camera.kill();
    let status = wait(&mut child, LIMIT);
    let mut error = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut error).unwrap();
    assert_eq!(status.code(), Some(5), "{error}");
    assert!(error.contains("cannot connect") || error.contains("ended"), "{error}");
    check(&path);
    assert_contiguous(&counters(&path), "lost");
}

#[test]
fn a_source_that_comes_back_goes_on_in_the_same_file() {
    let mut camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let mut command = stream_manager();
    command.current_dir(folder.path()).args(["record", &camera.url(), "-o", "back.mp4", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let frames = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (shared, out) = (frames.clone(), child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(out)).map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap();
            shared.store(line["frames"].as_u64().unwrap_or(0), std::sync::atomic::Ordering::SeqCst);
        }
    });
    let count = || frames.load(std::sync::atomic::Ordering::SeqCst);
    stream_manager_tests::wait_until("frames", LIMIT, || count() > 40);
    camera.kill();
    camera.revive();
    let before = count();
    stream_manager_tests::wait_until("frames after the outage", LIMIT, || count() > before + 60);
    signal(&child, "INT");
    assert!(wait(&mut child, LIMIT).success());
    assert_eq!(files(folder.path()).len(), 1);
    check(&folder.path().join("back.mp4"));
    let numbers = counters(&folder.path().join("back.mp4"));
    assert_eq!(numbers.windows(2).filter(|p| p[0] + 1 != p[1]).count(), 1, "{numbers:?}");
}

#[test]
fn standard_output_takes_a_stream() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    for (format, name) in [("fmp4", "o.mp4"), ("mkv", "o.mkv"), ("ts", "o.ts")] {
        let path = folder.path().join(name);
        let mut command = stream_manager();
        command.args(["record", &camera.url(), "-o", "-", "--format", format, "--duration", "2s"]);
        let output = finish(command, LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(&path, &output.stdout).unwrap();
        check(&path);
        let numbers = counters(&path);
        assert_eq!(numbers.len(), 50, "{format}");
        assert_contiguous(&numbers, format);
    }
}

#[test]
fn probe_tells_what_there_is() {
    let camera = Camera::start(Feed::with_audio(false));
    let mut command = stream_manager();
    command.args(["probe", &camera.url(), "--json", "--duration", "3s"]);
    let output = finish(command, LIMIT);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (video, audio) = (&report["tracks"][0], &report["tracks"][1]);
    assert_eq!(
        (video["codec"].as_str(), video["width"].as_u64(), video["height"].as_u64()),
        (Some("h264"), Some(384), Some(240))
    );
    assert_eq!(
        (video["gop_frames"].as_u64(), audio["codec"].as_str(), audio["sample_rate"].as_u64()),
        (Some(25), Some("aac"), Some(48_000))
    );
    assert!((24.0..26.0).contains(&video["measured_frame_rate"].as_f64().unwrap()), "{video}");
    assert!(video["bitrate"].as_f64().unwrap() > 1000.0);
    // The simulator sends RTCP sender reports with this machine's clock.
    assert!(report["clock_offset_secs"].as_f64().is_some_and(|o| o.abs() < 5.0), "{report}");
    let mut command = stream_manager();
    command.args(["probe", &camera.url()]);
    let text = String::from_utf8(finish(command, LIMIT).stdout).unwrap();
    assert!(text.contains("384x240") && text.contains("keyframe every 25 frames"), "{text}");
}
