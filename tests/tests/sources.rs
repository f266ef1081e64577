//! Sources beside plain H.264 over RTSP: each one's frames arrive, in its own codec, in time.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, check, codecs, counters};
use stream_manager_tests::program::{finish, stream_manager};

fn record(url: &str, path: &Path, duration: &str) {
    let mut command = stream_manager();
    command.args(["record", url, "--duration", duration, "--log", "warn", "-o"]).arg(path);
    let output = finish(command, Duration::from_secs(60));
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rtsp_codecs() {
    let raw = "videotestsrc is-live=true ! video/x-raw,format=I420,width=384,height=240,framerate=25/1";
    let sound = "audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! audioconvert";
    let h264 = format!(
        "{raw} ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0 pt=96 config-interval=-1"
    );
    let cases = [
        // By retina.
        (
            "h265",
            format!(
                "( {raw} ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph265pay name=pay0 pt=96 config-interval=-1 )"
            ),
            vec!["hevc"],
        ),
        ("mjpeg", format!("( {raw} ! jpegenc ! rtpjpegpay name=pay0 )"), vec!["mjpeg"]),
        (
            "pcma",
            format!(
                "( {h264} audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay1 )"
            ),
            vec!["h264", "pcm_alaw"],
        ),
        // By rtspsrc, because retina cannot do them.
        (
            "vp8",
            format!("( {raw} ! vp8enc deadline=1 keyframe-max-dist=25 ! rtpvp8pay name=pay0 pt=96 )"),
            vec!["vp8"],
        ),
        ("opus", format!("( {h264} {sound} ! opusenc ! rtpopuspay name=pay1 pt=97 )"), vec!["h264", "opus"]),
        // B frames, whose decoding times are the library's own.
        (
            "bframes",
            format!(
                "( {raw} ! x264enc bframes=3 b-adapt=false speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
            ),
            vec!["h264"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let folder = &folder;
    for (name, launch, expected) in cases {
        let camera = Camera::start(Feed::custom(launch));
        let path = folder.path().join(format!("{name}.mp4"));
        record(&camera.url(), &path, "2s");
        assert_eq!(codecs(&path), expected, "{name}");
        let frames = check(&path).iter().filter(|p| p.kind == "video").count();
        assert!((45..=55).contains(&frames), "{name}: {frames} frames in 2 s");
        let decode = Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(&path)
            .args(["-f", "null", "-"])
            .output()
            .unwrap();
        assert!(
            decode.stderr.is_empty(),
            "{name}: {:?} {}",
            check(&path).iter().filter(|p| p.kind == "video").map(|p| p.pts).collect::<Vec<_>>(),
            String::from_utf8_lossy(&decode.stderr)
        );
    }
}

#[test]
fn rtsp_over_tls() {
    let camera = Camera::with_tls(Feed::with_audio(false));
    assert!(camera.url().starts_with("rtsps://"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tls.mp4");
    record(&camera.url(), &path, "3s");
    assert_eq!(codecs(&path), ["h264", "aac"]);
    check(&path);
    let numbers = counters(&path);
    assert_eq!(numbers.len(), 75);
    assert_contiguous(&numbers, "rtsps");
}

#[test]
fn launch_lines_raw_and_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raw.mp4");
    record(
        "gst:videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=20/1 ! identity  audiotestsrc is-live=true",
        &path,
        "2s",
    );
    assert_eq!(codecs(&path), ["h264", "aac"]);
    assert_eq!(check(&path).iter().filter(|p| p.kind == "video").count(), 40);
    // Pads that come only later, and sound alone.
    let (demuxed, sound) = (folder.path().join("demuxed.mp4"), folder.path().join("sound.mp4"));
    record(&format!("gst:filesrc location={} ! qtdemux", path.display()), &demuxed, "1h");
    assert_eq!(codecs(&demuxed), ["h264", "aac"]);
    let av1 = folder.path().join("av1.mp4");
    record(
        "gst:videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=10/1 ! av1enc cpu-used=8 usage-profile=realtime keyframe-max-dist=10",
        &av1,
        "2s",
    );
    assert_eq!(codecs(&av1), ["av1"]);
    assert_eq!(check(&av1).len(), 20);
    record("gst:audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! alawenc", &sound, "2s");
    assert_eq!(codecs(&sound), ["pcm_alaw"]);
    assert!(check(&sound).last().unwrap().pts > 1.7);
}

#[test]
fn a_file_and_the_same_file_looped_and_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let (original, copy) = (folder.path().join("original.mp4"), folder.path().join("copy.mkv"));
    record("test://ball?gop=10&audio=false", &original, "2s");
    let url = format!("file://{}", original.display());
    let started = std::time::Instant::now();
    record(&url, &copy, "1h");
    assert!(started.elapsed() > Duration::from_millis(1500), "a file is let out at its own pace");
    assert_eq!(counters(&copy), counters(&original));
    let looped = folder.path().join("looped.mp4");
    let started = std::time::Instant::now();
    record(&format!("{url}?loop=true"), &looped, "5s");
    assert!(started.elapsed() > Duration::from_millis(4500), "also when it is played again");
    let (once, numbers) = (counters(&original), counters(&looped));
    assert!(numbers.len() > 2 * once.len());
    for (n, number) in numbers.iter().enumerate() {
        assert_eq!(*number, once[n % once.len()], "frame {n} of the looped file");
    }
    check(&looped);
    // Over HTTP, from a server that knows GET and nothing else.
    let data = std::fs::read(&original).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            if socket.read(&mut request).is_ok_and(|n| n > 0) {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    data.len()
                );
                let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(&data));
            }
        }
    });
    let fetched = folder.path().join("http.mp4");
    record(&format!("http://{address}/video.mp4"), &fetched, "1h");
    assert_eq!(counters(&fetched), once);
}

#[test]
fn the_test_picture_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.mp4");
    record("test://smpte?width=320&height=200&fps=30&gop=15", &path, "3s");
    let numbers = counters(&path);
    assert_eq!(numbers.len(), 90);
    assert_contiguous(&numbers, "test picture");
    let keyframes = check(&path).iter().filter(|p| p.kind == "video" && p.keyframe).count();
    assert!((6..=8).contains(&keyframes), "{keyframes}");
}
