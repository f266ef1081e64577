//! Every example runs as it stands.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use stream_manager_tests::media::{check, files};
use stream_manager_tests::program::{binary, finish, wait};

fn run(name: &str, folder: &std::path::Path) -> String {
    let mut command = Command::new(binary(name));
    command.current_dir(folder);
    let output = finish(command, Duration::from_secs(60));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {text} {}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn examples_do_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert!(run("record_one", folder).contains("record_one.mp4: 5.0 s"));
    assert_eq!(check(&folder.join("record_one.mp4")).iter().filter(|p| p.kind == "video").count(), 125);

    let text = run("record_many", folder);
    for name in ["one", "two", "three"] {
        assert!(text.contains(&format!("{name}: ")), "{text}");
        files(&folder.join("record_many/recordings").join(name)).iter().for_each(|f| drop(check(f)));
    }

    assert!(run("custom_source", folder).contains("30 frames"));
    assert_eq!(check(&folder.join("custom_source.mp4")).len(), 30);

    let text = run("custom_sink", folder);
    let keyframes: u32 = text.split_whitespace().next().unwrap().parse().unwrap();
    assert!((3..=6).contains(&keyframes), "{text}");

    let text = run("gst_tap", folder);
    let pictures: u32 = text.split_whitespace().next().unwrap().parse().unwrap();
    assert!((60..=126).contains(&pictures), "{text}");

    assert!(run("pause_resume", folder).contains("2 segments"));
    assert_eq!(files(&folder.join("pause_resume/recordings/camera")).len(), 2);
}

#[test]
fn what_is_seen_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let text = run("own_backend", folder.path());
    assert_eq!(text.matches("Some(Region").count(), 5, "{text}");
    let Some(assets) = stream_manager_tests::assets() else {
        println!("SKIPPED: no real models here");
        return;
    };
    let with = |name: &str, arguments: &[&std::path::Path]| {
        let mut command = Command::new(binary(name));
        command.current_dir(folder.path()).args(arguments);
        let output = finish(command, Duration::from_secs(120));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &said)
    };
    let model = |name: &str| assets.join(name);
    let (well, text) = with("classify_folder", &[&assets, &model("mnist.onnx")]);
    if text.contains("ONNX Runtime") {
        println!("SKIPPED: {text}");
        return;
    }
    assert!(well && text.contains("digit-3.jpg: 3 ") && text.contains("digit-7.jpg: 7 "), "{text}");
    let car = model("car-detection.mp4");
    let (well, text) = with("detect_file", &[&car, &model("yolox_nano.onnx"), &model("coco_classes.txt")]);
    assert!(well && text.contains(" pictures, "), "{text}");
}

#[test]
fn a_fleet_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let first = run("fleet", folder.path());
    assert!(first.contains("0 streams are remembered") && first.contains("camera-2: Created"), "{first}");
    assert!(first.contains("camera-0: Changed") && first.matches("stream_created").count() == 3, "{first}");
    let second = run("fleet", folder.path());
    assert!(
        second.contains("3 streams are remembered") && second.contains("camera-1: Unchanged"),
        "{second}"
    );
    assert!(second.contains("camera-2: Deleted") && second.contains("stream_deleted"), "{second}");
}

#[test]
fn the_whole_server_lives_in_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(binary("whole_server"))
        .arg("5")
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let page = ureq::get(line.trim()).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(page.contains("Stream Manager API"), "{page}");
    let status = line.trim().replace("/api/docs", "/api/streams/demo");
    let stream: serde_json::Value = ureq::get(&status).call().unwrap().body_mut().read_json().unwrap();
    assert!(stream["addresses"]["rtsp"].as_str().unwrap().ends_with("/demo"), "{stream}");
    assert!(wait(&mut child, Duration::from_secs(40)).success());
}

#[test]
fn the_router_lives_in_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(binary("own_router"))
        .arg("5")
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let list: serde_json::Value = ureq::get(line.trim()).call().unwrap().body_mut().read_json().unwrap();
    assert_eq!(list["items"][0]["id"], "demo");
    assert!(wait(&mut child, Duration::from_secs(40)).success());
}

#[test]
fn a_program_serves_rtsp() {
    let mut child = Command::new(binary("rtsp_server")).arg("12").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut probe = Command::new("ffprobe");
    probe.args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", line.trim()]);
    let output = finish(probe, Duration::from_secs(30));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "h264\naac\n");
    assert!(wait(&mut child, Duration::from_secs(40)).success());
}
