//! Single pictures: live, recorded, of a source, and many small ones as one; read by ffmpeg.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::http::{Answer, request};
use stream_manager_tests::media::{counters, describe};
use stream_manager_tests::program::run;
use stream_manager_tests::recorded::{get, seconds, segments, start};
use stream_manager_tests::wait_until;

const SOON: Duration = Duration::from_secs(60);

/// Width and height of a JPEG, and the counter that is burnt into it.
fn read(folder: &Path, jpeg: &[u8]) -> ((i64, i64), u32) {
    let path = folder.join("picture.jpg");
    std::fs::write(&path, jpeg).unwrap();
    let stream = &describe(&path)["streams"][0];
    assert_eq!(stream["codec_name"], "mjpeg", "{stream}");
    ((stream["width"].as_i64().unwrap(), stream["height"].as_i64().unwrap()), counters(&path)[0])
}

#[test]
fn now_and_then() {
    let camera = Camera::start(Feed::h264());
    let (folder, server) = start(&camera.url(), "");
    wait_until("segments", SOON, || segments(&server).iter().filter(|s| s["complete"] == true).count() >= 3);
    let answer = get(&server, "snapshot.jpg");
    assert_eq!((answer.status, answer.header("content-type")), (200, "image/jpeg"), "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    let (size, live) = read(folder.path(), &answer.body);
    let now = camera.counter();
    assert!(size == (384, 240) && live <= now && live + 60 > now, "{live} of {now}");
    // Of one keyframe it is the same, whoever asks; smaller is smaller.
    let small = get(&server, "snapshot.jpg?width=192&quality=40");
    assert!(small.body.len() < answer.body.len());
    assert_eq!(read(folder.path(), &small.body).0, (192, 120));
    // Each recorded picture at its time, to the frame, also in the midst of a GOP.
    let rows = segments(&server);
    for row in &rows[..3] {
        let numbers = counters(Path::new(row["path"].as_str().unwrap()));
        let start = seconds(&row["start"]);
        for frame in [0, 7, 24, 25, 38] {
            // Between two frames it is the one before.
            let time = start + frame as f64 * 0.04 + 0.015;
            let answer = get(&server, &format!("snapshot.jpg?time={time:.6}"));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let (_, number) = read(folder.path(), &answer.body);
            assert!(
                number.abs_diff(numbers[frame]) <= 1,
                "{number} instead of {} at frame {frame}",
                numbers[frame]
            );
        }
    }
    for (query, status, code) in [
        ("snapshot.jpg?time=2100-01-01T00:00:00Z", 404, "no_recordings"),
        ("snapshot.jpg?time=then", 400, "invalid_query"),
        ("snapshot.jpg?width=3", 400, "invalid_query"),
        ("snapshot.jpg?width=99999", 400, "invalid_query"),
        ("snapshot.jpg?quality=0", 400, "invalid_query"),
        ("snapshot.jpg?size=large", 400, "invalid_query"),
        ("thumbnails.jpg", 400, "invalid_query"),
        ("thumbnails.jpg?start=2&end=1", 422, "invalid_query"),
        ("thumbnails.jpg?start=1&end=2", 404, "no_recordings"),
        ("thumbnails.jpg?start=1&end=2&count=0", 400, "invalid_query"),
        ("thumbnails.jpg?start=1&end=2&count=9999", 422, "invalid_body"),
    ] {
        let answer = get(&server, query);
        assert_eq!((answer.status, &*answer.code()), (status, code), "{query}: {}", answer.text());
    }
    assert_eq!(request("GET", &server.url("/api/streams/none/snapshot.jpg"), &[]).status, 404);
    assert!(!server.stop().contains("panicked"));
}

/// Many at once cost one decoding; the counter tells that all of them are the same picture.
#[test]
fn many_ask_at_once() {
    let (_folder, server) = start("test://ball?gop=100", "");
    server.wait_for("yard/cam", "frames", SOON, |s| s["frames"].as_u64() > Some(10));
    let url = server.url("/api/streams/yard/cam/snapshot.jpg");
    let threads: Vec<_> = (0..20)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || request("GET", &url, &[]))
        })
        .collect();
    let answers: Vec<Answer> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.status == 200));
    let mut pictures: Vec<&Vec<u8>> = answers.iter().map(|answer| &answer.body).collect();
    pictures.dedup();
    assert!(pictures.len() <= 2, "{} pictures", pictures.len());
    server.stop();
}

/// Twelve pictures of a span with a pause: each at its place, black where nothing was recorded.
#[test]
fn a_strip_of_small_pictures() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    wait_until("segments", SOON, || segments(&server).iter().filter(|s| s["complete"] == true).count() >= 3);
    server.call("POST", "/api/streams/yard/cam/recording/pause", None);
    let paused = camera.counter();
    wait_until("the camera goes on", SOON, || camera.counter() > paused + 80);
    server.call("POST", "/api/streams/yard/cam/recording/resume", None);
    let last = segments(&server).len();
    wait_until("segments", SOON, || {
        segments(&server).iter().filter(|s| s["complete"] == true).count() > last + 1
    });
    let rows = segments(&server);
    let (begin, end) = (seconds(&rows[0]["start"]), seconds(&rows[last]["end"]));
    let answer =
        get(&server, &format!("thumbnails.jpg?start={begin:.6}&end={end:.6}&count=12&columns=4&width=192"));
    assert_eq!((answer.status, answer.header("thumbnails-size")), (200, "192x120"), "{}", answer.text());
    let found = answer.header("thumbnails-found");
    assert!(
        found.len() == 12 && found.starts_with("11") && found.ends_with('1') && found.contains('0'),
        "{found}"
    );
    let path = folder.path().join("strip.jpg");
    std::fs::write(&path, &answer.body).unwrap();
    let whole = &describe(&path)["streams"][0];
    assert_eq!((whole["width"].as_i64(), whole["height"].as_i64()), (Some(4 * 192), Some(3 * 120)));
    let mut before = None;
    for (slot, found) in found.bytes().enumerate() {
        let cell = folder.path().join("cell.png");
        let crop = format!("crop=192:120:{}:{}", slot % 4 * 192, slot / 4 * 120);
        let cut = std::process::Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-i"])
            .arg(&path)
            .args(["-vf", &crop])
            .arg(&cell)
            .status()
            .unwrap();
        assert!(cut.success());
        let number = counters(&cell)[0];
        if found == b'0' {
            assert_eq!(number, 0, "nothing was recorded at {slot}");
            continue;
        }
        let time = begin + (end - begin) * (slot as f64 + 0.5) / 12.0;
        let row = rows.iter().rfind(|row| seconds(&row["start"]) <= time).unwrap();
        let numbers = counters(Path::new(row["path"].as_str().unwrap()));
        assert!(
            numbers.contains(&number) && before <= Some(number),
            "{number} at {slot} is none of {numbers:?}"
        );
        before = Some(number);
    }
    server.stop();
}

#[test]
fn a_picture_of_a_source_in_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let camera = Camera::start(Feed::h264());
    let take =
        |url: &str, more: &[&str]| run(&[&["snapshot", url, "-o", "x.jpg"], more].concat(), folder.path());
    let (code, said) = take(&camera.url(), &["--width", "192"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(read(folder.path(), &std::fs::read(folder.path().join("x.jpg")).unwrap()).0, (192, 120));
    let (code, said) = take(&camera.url(), &[]);
    assert!(code == 2 && said.contains("exists already"), "{code} {said}");
    let (code, said) = take("rtsp://127.0.0.1:9/none", &["--overwrite"]);
    assert!(code == 3 && said.contains("127.0.0.1:9"), "{code} {said}");
    let (code, said) = take("nothing", &["--overwrite"]);
    assert_eq!(code, 2, "{said}");
    let (code, said) = take(&camera.url(), &["--overwrite", "--quality", "0"]);
    assert_eq!(code, 2, "{said}");
    assert_eq!(take(&camera.url(), &["--overwrite"]).0, 0);
}

/// Pictures one after the other, in one answer without an end: of each keyframe one; of MJPEG every one, as it is.
#[test]
fn pictures_without_an_end() {
    let camera = Camera::start(Feed::h264());
    let jpegs = Feed::custom(
        "( videotestsrc is-live=true pattern=black ! video/x-raw,format=I420,width=384,height=240,framerate=25/1 \
         ! identity name=stamp ! jpegenc quality=90 ! rtpjpegpay name=pay0 )",
    );
    let jpeg_camera = Camera::start(jpegs);
    let more = format!("[[streams]]\nid = \"jpeg\"\nsource_url = \"{}\"\n", jpeg_camera.url());
    let (folder, server) = start(&camera.url(), &more);
    for (id, query, step) in [
        ("yard/cam", "", 25),
        ("yard/cam", "?fps=0.5&width=192", 50),
        ("jpeg", "?fps=60", 1),
        ("jpeg", "?fps=5", 5),
    ] {
        let mut pictures = Multipart::open(&server.url(&format!("/api/streams/{id}/mjpeg{query}")));
        let shown: Vec<u32> = (0..4)
            .map(|_| {
                let (size, counter) = read(folder.path(), &pictures.next());
                assert_eq!(size, if query.contains("width") { (192, 120) } else { (384, 240) });
                counter
            })
            .collect();
        // Of MJPEG the reader may miss some; it never gets one twice.
        let steps: Vec<u32> = shown.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(steps.iter().all(|s| s.abs_diff(step) <= 1 + step / 5), "{id}{query}: {shown:?}");
        if query.is_empty() {
            assert_eq!(server.sessions("mjpeg").len(), 1);
        }
    }
    wait_until("they are gone", SOON, || server.sessions("mjpeg").is_empty());
    for (what, status, code) in [
        ("mjpeg?fps=0", 400, "invalid_query"),
        ("mjpeg?fps=1000", 400, "invalid_query"),
        ("mjpeg?width=1", 400, "invalid_query"),
        ("mjpeg?time=1", 400, "invalid_query"),
    ] {
        let answer = get(&server, what);
        assert_eq!((answer.status, &*answer.code()), (status, code), "{what}");
    }
    assert_eq!(request("GET", &server.url("/api/streams/none/mjpeg"), &[]).status, 404);
    assert!(!server.stop().contains("panicked"));
}

/// The parts of a multipart answer.
struct Multipart {
    reader: std::io::BufReader<Box<dyn std::io::Read>>,
}

impl Multipart {
    fn open(url: &str) -> Self {
        let answer = ureq::get(url).call().unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(kind, "multipart/x-mixed-replace; boundary=picture");
        Self { reader: std::io::BufReader::new(Box::new(answer.into_body().into_reader())) }
    }

    fn next(&mut self) -> Vec<u8> {
        use std::io::{BufRead, Read};
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" && length > 0 {
                break;
            }
        }
        let mut data = vec![0; length];
        self.reader.read_exact(&mut data).unwrap();
        data
    }
}
