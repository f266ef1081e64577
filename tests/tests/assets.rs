//! Real videos through a real RTSP server: what is recorded is the original, packet by packet.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use stream_manager_tests::assets;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::media::{Packet, check, packets};
use stream_manager_tests::program::{finish, stream_manager};

/// MD5 of every video packet without parameter sets and delimiters, which travel differently by RTP.
fn hashes(path: &Path) -> Vec<String> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-map", "0:v:0", "-c", "copy", "-bsf:v", "h264_mp4toannexb,filter_units=remove_types=6-9"])
        .args(["-f", "framemd5", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.rsplit(',').next().unwrap().trim().to_owned())
        .collect()
}

fn video(path: &Path) -> Vec<Packet> {
    packets(path).into_iter().filter(|p| p.kind == "video").collect()
}

#[test]
fn real_videos_are_recorded_as_they_are() {
    let Some(folder) = assets() else {
        println!("skipped: no real videos here; STREAM_MANAGER_TEST_ASSETS names a folder with them");
        return;
    };
    // With and without B frames.
    for name in ["car-detection.mp4", "bottle-detection.mp4", "one-by-one-person-detection.mp4"] {
        let original = folder.join(name);
        let camera = Camera::start(Feed::custom(format!(
            "( filesrc location={} ! qtdemux name=d d.video_0 ! queue ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )",
            original.display()
        )));
        let target = tempfile::tempdir().unwrap();
        let path = target.path().join("copy.mp4");
        let mut command = stream_manager();
        command.args(["record", &camera.url(), "--duration", "15s", "-o"]).arg(&path);
        let output = finish(command, Duration::from_secs(90));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let (sent, got) = (hashes(&original), hashes(&path));
        assert!(got.len() > 100, "{name}: {} packets", got.len());
        // A server may begin to play a little after its start.
        let skipped = sent
            .iter()
            .position(|h| *h == got[0])
            .unwrap_or_else(|| panic!("{name}: the first packet is not the original's"));
        assert_eq!(sent[skipped..skipped + got.len()], got, "{name}");
        check(&path);
        let (theirs, ours) = (video(&original), video(&path));
        for (theirs, ours) in theirs[skipped..].windows(2).zip(ours.windows(2)) {
            let (expected, found) = (theirs[1].pts - theirs[0].pts, ours[1].pts - ours[0].pts);
            assert!((expected - found).abs() < 0.000_1, "{name}: a step of {found} s for {expected} s");
            assert_eq!(theirs[0].keyframe, ours[0].keyframe, "{name}");
        }
    }
}

#[test]
fn files_are_sources_with_their_own_times() {
    let Some(folder) = assets() else {
        println!("skipped: no real videos here; STREAM_MANAGER_TEST_ASSETS names a folder with them");
        return;
    };
    let target = tempfile::tempdir().unwrap();
    let original = folder.join("car-detection.mp4");
    let path = target.path().join("file.mp4");
    let mut command = stream_manager();
    command
        .args([
            "record",
            &format!("file://{}", original.canonicalize().unwrap().display()),
            "--duration",
            "8s",
            "-o",
        ])
        .arg(&path);
    let output = finish(command, Duration::from_secs(60));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check(&path);
    let (sent, got) = (hashes(&original), hashes(&path));
    assert_eq!(sent[..got.len()], got);
    let (theirs, ours) = (video(&original), video(&path));
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert!((theirs.pts - theirs.dts - (ours.pts - ours.dts)).abs() < 0.000_1, "{theirs:?} {ours:?}");
    }
}
