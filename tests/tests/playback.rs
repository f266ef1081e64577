//! Recordings watched again as one file: over segments and gaps, in pieces, into live; checked against the files themselves by ffprobe.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::http::{Answer, request};
use stream_manager_tests::media::{Packet, assert_contiguous, check, counters, packets};
use stream_manager_tests::player::{self, Playing, Shown};
use stream_manager_tests::program::{Server, run};
use stream_manager_tests::recorded::{
    SEGMENTS, of_kind, range, record, seconds, segments, start, stopped, until_segments,
};
use stream_manager_tests::wait_until;

const SOON: Duration = Duration::from_secs(60);
fn address(server: &Server, query: &str) -> String {
    server.url(&format!("/api/streams/yard/cam/playback?{query}"))
}

fn fetch(server: &Server, folder: &Path, query: &str) -> (PathBuf, Answer) {
    let answer = request("GET", &address(server, query), &[]);
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let path = folder.join("played.mp4");
    std::fs::write(&path, &answer.body).unwrap();
    (path, answer)
}

/// A recorded frame.
struct Recorded {
    /// When, in seconds since 1970.
    time: f64,
    size: u64,
    keyframe: bool,
    file: usize,
}

/// All recorded frames of a kind, from the files.
fn recorded(rows: &[Value], kind: &str) -> Vec<Recorded> {
    let mut all = Vec::new();
    for (file, row) in rows.iter().enumerate() {
        let packets = packets(Path::new(row["path"].as_str().unwrap()));
        let first = of_kind(&packets, "video").next().unwrap().dts;
        let start = seconds(&row["start"]);
        all.extend(of_kind(&packets, kind).map(|p| Recorded {
            time: start + p.dts - first,
            size: p.size,
            keyframe: p.keyframe,
            file,
        }));
    }
    all
}

/// Whatever range is asked for: the frames from the keyframe before it up to its end, each once, in one time, with the sound in step.
#[test]
fn any_range_is_what_the_files_have() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    until_segments(&server, 5);
    let rows = stopped(&server);
    let (video, sound) = (recorded(&rows, "video"), recorded(&rows, "audio"));
    let (begin, end) = (video[0].time, video.last().unwrap().time + 0.04);
    let mut random = fastrand::Rng::with_seed(7);
    for turn in 0..100 {
        // Starts are told in whole milliseconds: which side of a frame an edge that is nearer lies on cannot be known here.
        // Nor in which file a time is that two of them share, or that lies between them.
        let between = |time: f64| {
            video.windows(2).any(|w| {
                let (ends, begins) = (w[0].time + 0.04, w[1].time);
                w[0].file != w[1].file && time > ends.min(begins) - 0.003 && time < ends.max(begins) + 0.003
            })
        };
        let away = |mut time: f64| {
            while between(time) || video.iter().any(|f| (f.time - time).abs() < 0.003) {
                time += 0.004;
            }
            time
        };
        let mut draw = || away(begin + random.f64() * (end - begin));
        let (a, b) = (draw(), draw());
        let (from, to) = if turn == 0 {
            (begin - 100.0, end + 100.0)
        } else {
            (a.min(b), away(a.max(b).max(a.min(b) + 0.02)))
        };
        let (path, answer) = fetch(&server, folder.path(), &range(from, to));
        let what = format!("{from:.3} to {to:.3} of {begin:.3} to {end:.3}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{what}");
        let played = packets(&path);
        let shown: Vec<&Packet> = of_kind(&played, "video").collect();
        let first = video.iter().rposition(|f| f.keyframe && f.time <= from).unwrap_or(0);
        let last = video.iter().rposition(|f| f.time < to).unwrap();
        let sizes: Vec<u64> = video[first..=last].iter().map(|f| f.size).collect();
        let found: Vec<u64> = shown.iter().map(|p| p.size).collect();
        assert_eq!(found, sizes, "{what}");
        assert!(shown[0].keyframe, "{what}");
        for (kind, step) in [("video", 0.04), ("audio", 1024.0 / 48000.0)] {
            let times: Vec<f64> = of_kind(&played, kind).map(|p| p.dts).collect();
            let even = times.windows(2).all(|w| (w[1] - w[0] - step).abs() < 0.012);
            assert!(even, "{what}: {kind} {:?}", times.windows(2).map(|w| w[1] - w[0]).collect::<Vec<_>>());
        }
        // The sound is as far from the picture as it was recorded.
        let Some(heard) = of_kind(&played, "audio").next() else { continue };
        let sizes: Vec<u64> = of_kind(&played, "audio").map(|p| p.size).collect();
        let at = sound.windows(sizes.len()).position(|w| w.iter().map(|f| f.size).eq(sizes.iter().copied()));
        let at = at.unwrap_or_else(|| panic!("{what}: the sound is another"));
        if sound[at].file == video[first].file {
            let (was, is) = (sound[at].time - video[first].time, heard.dts - shown[0].dts);
            assert!((was - is).abs() < 0.001, "{what}: {was} became {is}");
        }
    }
    // The whole, by its pictures.
    let (path, _) = fetch(&server, folder.path(), &range(begin, end));
    check(&path);
    let numbers = counters(&path);
    assert_contiguous(&numbers, "playback");
    assert_eq!(numbers.len(), video.len());
    assert!(!server.stop().contains("panicked"));
}

/// What browsers do: a look, then pieces from anywhere, and whether it is still the same.
#[test]
fn pieces_are_pieces_of_the_whole() {
    let (_folder, server) = start("test://ball", "");
    let rows = until_segments(&server, 3);
    let (begin, end) = (seconds(&rows[0]["start"]), seconds(&rows[2]["end"]) - 0.3);
    let url = address(&server, &range(begin + 0.5, end));
    let head = request("HEAD", &url, &[]);
    let whole = request("GET", &url, &[]);
    let (length, etag) = (whole.body.len(), whole.header("etag"));
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, &*length.to_string()));
    assert_eq!((head.header("etag"), head.header("accept-ranges")), (etag, "bytes"));
    assert!(length > 100_000 && etag.len() > 10, "{length} {etag}");
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..60 {
        let from = random.usize(..length);
        let to = random.usize(from..length);
        let piece = request("GET", &url, &[("range", &format!("bytes={from}-{to}"))]);
        assert_eq!(
            (piece.status, piece.header("content-range")),
            (206, &*format!("bytes {from}-{to}/{length}"))
        );
        assert!(piece.body == whole.body[from..=to], "{from} to {to} of {length}");
    }
    let last = request("GET", &url, &[("range", "bytes=-1000")]);
    assert!(last.status == 206 && last.body == whole.body[length - 1000..]);
    let open = request("GET", &url, &[("range", "bytes=500-"), ("if-range", etag)]);
    assert!(open.status == 206 && open.body == whole.body[500..]);
    for (headers, status) in [
        ([("if-none-match", etag), ("x", "y")], 304),
        ([("range", &*format!("bytes={length}-")), ("x", "y")], 416),
        ([("range", "bytes=5-1"), ("x", "y")], 200),
        ([("range", "parts=1-2"), ("x", "y")], 200),
        ([("range", "bytes=0-1,5-6"), ("x", "y")], 200),
        ([("range", "bytes=0-9"), ("if-range", "\"another\"")], 200),
    ] {
        let answer = request("GET", &url, &headers);
        assert_eq!(answer.status, status, "{headers:?}");
        assert!(status != 200 || answer.body == whole.body);
    }
    server.stop();
}

/// Chromium plays the address as it is and steps to anywhere in it; hls.js does so with the playlist.
#[test]
fn browsers_seek_in_it() {
    if let Some(why) = player::missing() {
        println!("skipped: {why}");
        return;
    }
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, server) = start(&camera.url(), "");
    until_segments(&server, 10);
    let rows = stopped(&server);
    let (begin, end) = (seconds(&rows[0]["start"]), seconds(&rows.last().unwrap()["end"]));
    let length = end - begin;
    let numbers: Vec<u32> =
        rows.iter().flat_map(|row| counters(Path::new(row["path"].as_str().unwrap()))).collect();
    for (kind, url) in [
        ("seek", address(&server, &range(begin, end))),
        ("seek-hls", server.url(&format!("/api/streams/yard/cam/playback.m3u8?{}", range(begin, end)))),
    ] {
        let playing = Playing::start(kind, &url, 60);
        let played = playing.wait_until("a picture of each place", SOON, |played| {
            [0.8, 0.2, 0.5]
                .iter()
                .all(|part| played.shown.iter().any(|s| (s.time - part * length).abs() < 1.0))
                && played.shown.len() > 60
        });
        drop(playing);
        assert!(played.errors().is_empty(), "{kind}: {:?}", played.errors());
        // At its time stands the picture of that time, wherever one has come from.
        let right = |shown: &Shown| {
            let at = numbers.partition_point(|n| *n < shown.counter);
            numbers.get(at) == Some(&shown.counter) && (at as f64 / 25.0 - shown.time).abs() < 0.15
        };
        let wrong: Vec<&Shown> = played.shown.iter().filter(|shown| !right(shown)).collect();
        assert!(
            wrong.len() * 20 <= played.shown.len() && played.shown.len() > 20,
            "{kind}: {wrong:?} of {}",
            played.shown.len()
        );
    }
    server.stop();
}

/// The same as a playlist: every picture once, an end, and a beginning at the time that was asked for.
#[test]
fn a_playlist_of_what_was_recorded() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    let rows = until_segments(&server, 5);
    let (begin, end) = (seconds(&rows[0]["start"]), seconds(&rows[3]["end"]) - 0.3);
    let url = server.url(&format!("/api/streams/yard/cam/playback.m3u8?{}", range(begin + 2.5, end)));
    let answer = request("GET", &url, &[]);
    let text = answer.text();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/vnd.apple.mpegurl"),
        "{text}"
    );
    assert!(text.contains("#EXT-X-PLAYLIST-TYPE:VOD") && text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
    assert!(text.contains("#EXT-X-PROGRAM-DATE-TIME:20") && text.contains("#EXT-X-DISCONTINUITY"), "{text}");
    let path = folder.path().join("playlist.mkv");
    let copied = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-i", &url, "-c", "copy"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let files: Vec<u32> =
        rows[..4].iter().flat_map(|row| counters(Path::new(row["path"].as_str().unwrap()))).collect();
    let numbers = counters(&path);
    assert_contiguous(&numbers, "the playlist");
    assert!(files.ends_with(&numbers) && numbers[0] <= files[62], "{numbers:?} of {files:?}");
    // One without an end goes on with the recording.
    let open =
        request("GET", &server.url(&format!("/api/streams/yard/cam/playback.m3u8?start={begin:.6}")), &[]);
    assert!(open.status == 200 && !open.text().contains("ENDLIST"), "{}", open.text());
    for (query, status) in
        [(range(end, begin), 422), ("end=5".into(), 400), ("start=2100-01-01T00:00:00Z".into(), 404)]
    {
        let answer =
            request("GET", &server.url(&format!("/api/streams/yard/cam/playback.m3u8?{query}")), &[]);
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    server.stop();
}

/// A pause: left out, or the end.
#[test]
fn gaps_close_up_or_end_it() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    until_segments(&server, 2);
    record(&server, "pause");
    let (last, paused) = (segments(&server).len(), camera.counter());
    wait_until("the camera goes on", SOON, || camera.counter() > paused + 60);
    record(&server, "resume");
    until_segments(&server, last + 2);
    let rows = segments(&server);
    let begin = seconds(&rows[0]["start"]);
    let end = seconds(&rows[last + 1]["end"]);
    let (path, answer) = fetch(&server, folder.path(), &range(begin, end));
    check(&path);
    assert_eq!(answer.header("link"), "");
    let numbers = counters(&path);
    let jumps: Vec<&[u32]> = numbers.windows(2).filter(|w| w[1] != w[0] + 1).collect();
    assert!(jumps.len() == 1 && jumps[0][1] > jumps[0][0] + 40, "{jumps:?}");
    for kind in ["video", "audio"] {
        let times: Vec<f64> = of_kind(&packets(&path), kind).map(|p| p.dts).collect();
        assert!(times.windows(2).all(|w| w[1] > w[0] && w[1] - w[0] < 0.15), "{kind}: {times:?}");
    }
    let (path, answer) = fetch(&server, folder.path(), &format!("{}&gaps=stop", range(begin, end)));
    let before = counters(&path);
    assert_contiguous(&before, "up to the gap");
    assert_eq!(before.last(), Some(&jumps[0][0]));
    // Where it says that it goes on, it does.
    let link = answer.header("link");
    let next = link
        .strip_prefix("<?")
        .and_then(|l| l.strip_suffix(">; rel=\"next\""))
        .unwrap_or_else(|| panic!("{link}"));
    let (path, _) = fetch(&server, folder.path(), next);
    let after = counters(&path);
    assert_contiguous(&after, "behind the gap");
    assert_eq!((after.first(), after.last()), (Some(&jumps[0][1]), numbers.last()));
    // The same is drawn as a timeline.
    let (_, line) = server.call("GET", "/api/streams/yard/cam/timeline", None);
    assert_eq!(
        (line["spans"].as_array().unwrap().len(), &line["gaps"][0]["reason"]),
        (2, &json!("paused")),
        "{line:#}"
    );
    let (_, line) = server.call("GET", "/api/streams/yard/cam/timeline?resolution=1h", None);
    assert_eq!(
        (line["spans"].as_array().unwrap().len(), line["gaps"].as_array().unwrap().len()),
        (1, 0),
        "{line:#}"
    );
    server.stop();
}

/// A server that was killed in the midst of a segment: what it had written is there, and time closes up over what it had not.
#[test]
fn over_a_kill() {
    let camera = Camera::start(Feed::with_audio(false));
    let config = format!("[[streams]]\nid = \"yard/cam\"\nsource_url = \"{}\"\n{SEGMENTS}", camera.url());
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(&config));
    let rows = until_segments(&server, 2);
    let begin = seconds(&rows[0]["start"]);
    let killed = camera.counter();
    wait_until("the midst of a segment", SOON, || camera.counter() > killed + 30);
    server.kill();
    // The camera stands still until somebody connects: what is missing is what had not been written.
    let killed = camera.counter();
    let server = Server::start(folder.path(), Some(&config));
    let before = segments(&server).len();
    until_segments(&server, before + 2);
    let rows = stopped(&server);
    let end = seconds(&rows.last().unwrap()["end"]);
    let files: Vec<u32> =
        rows.iter().flat_map(|row| counters(Path::new(row["path"].as_str().unwrap()))).collect();
    for format in ["fmp4", "mp4", "mkv"] {
        let (path, _) = fetch(&server, folder.path(), &format!("{}&format={format}", range(begin, end)));
        check(&path);
        let numbers = counters(&path);
        assert_eq!(numbers, files, "{format}");
        let jumps: Vec<&[u32]> = numbers.windows(2).filter(|w| w[1] != w[0] + 1).collect();
        assert_eq!(jumps.len(), 1, "{format}: {jumps:?}");
        // Less than a second before the kill is missing.
        assert!(jumps[0][0] + 30 > killed, "{format}: {jumps:?}, killed at {killed}");
        let times: Vec<f64> = of_kind(&packets(&path), "video").map(|p| p.pts).collect();
        assert!(times.windows(2).all(|w| w[1] > w[0] && w[1] - w[0] < 0.15), "{format}: {times:?}");
    }
    let (_, line) = server.call("GET", "/api/streams/yard/cam/timeline", None);
    assert_eq!(line["gaps"].as_array().unwrap().len(), 2, "the kill, and the end: {line:#}");
    assert!(!server.stop().contains("panicked"));
}

/// Without an end it goes on with what is being recorded, over segments and a pause, until that ends.
#[test]
fn the_past_goes_over_into_live() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    let rows = until_segments(&server, 2);
    let url = address(&server, &format!("start={:.6}", seconds(&rows[0]["start"])));
    let reading = std::thread::spawn(move || {
        let mut body = ureq::get(&url).call().unwrap().into_body();
        let mut data = Vec::new();
        body.as_reader().read_to_end(&mut data).unwrap();
        data
    });
    wait_until("it is a session", SOON, || server.sessions("playback").len() == 1);
    until_segments(&server, 5);
    record(&server, "pause");
    let paused = camera.counter();
    wait_until("the camera goes on", SOON, || camera.counter() > paused + 40);
    record(&server, "resume");
    let last = segments(&server).len();
    until_segments(&server, last + 2);
    record(&server, "stop");
    let data = reading.join().unwrap();
    let path = folder.path().join("followed.mp4");
    std::fs::write(&path, data).unwrap();
    check(&path);
    let files: Vec<u32> =
        segments(&server).iter().flat_map(|row| counters(Path::new(row["path"].as_str().unwrap()))).collect();
    assert_eq!(counters(&path), files);
    assert_eq!(server.sessions("playback").len(), 0);
    server.stop();
}

/// One head says how all is encoded: where that changes the file ends, and says where to go on.
#[test]
fn it_ends_where_the_picture_changes_its_size() {
    let camera = Camera::start(Feed::h264());
    let (folder, server) = start(&camera.url(), "");
    until_segments(&server, 2);
    camera.resize(320, 180);
    wait_until("another size", SOON, || segments(&server).last().unwrap()["tracks"][0]["height"] == 180);
    let changed = segments(&server).len();
    let rows = until_segments(&server, changed + 1);
    for row in &rows {
        let held = stream_manager_tests::media::describe(Path::new(row["path"].as_str().unwrap()));
        assert_eq!(held["streams"][0]["height"], row["tracks"][0]["height"], "{row:#}");
    }
    let (path, answer) = fetch(
        &server,
        folder.path(),
        &range(seconds(&rows[0]["start"]), seconds(&rows.last().unwrap()["end"])),
    );
    check(&path);
    let link = answer.header("link").to_owned();
    let next = link
        .strip_prefix("<?")
        .and_then(|l| l.strip_suffix(">; rel=\"next\""))
        .unwrap_or_else(|| panic!("{link}"));
    let size = |path: &Path| stream_manager_tests::media::describe(path)["streams"][0]["height"].clone();
    assert_eq!(size(&path), 240);
    let (path, _) = fetch(&server, folder.path(), next);
    assert_eq!(size(&path), 180, "{link} of {rows:#?}");
    server.stop();
}

/// The same in other containers: every picture, sound in step.
#[test]
fn other_containers() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    let rows = until_segments(&server, 4);
    let asked = range(seconds(&rows[0]["start"]) + 1.2, seconds(&rows[3]["end"]) - 0.7);
    let (path, _) = fetch(&server, folder.path(), &asked);
    let (numbers, original) = (counters(&path), packets(&path));
    assert_contiguous(&numbers, "fmp4");
    let ahead = |packets: &[Packet]| {
        let first = |kind| of_kind(packets, kind).next().unwrap().pts;
        first("audio") - first("video")
    };
    for (format, media_type) in [("ts", "video/mp2t"), ("mkv", "video/x-matroska")] {
        let (played, answer) = fetch(&server, folder.path(), &format!("{asked}&format={format}"));
        let path = folder.path().join(format!("played.{format}"));
        std::fs::rename(played, &path).unwrap();
        assert_eq!(answer.header("content-type"), media_type);
        assert_eq!(counters(&path), numbers, "{format}");
        let found = packets(&path);
        for kind in ["video", "audio"] {
            let (had, has) = (of_kind(&original, kind).count(), of_kind(&found, kind).count());
            assert_eq!(had, has, "{format}: {kind}");
        }
        assert!(
            (ahead(&found) - ahead(&original)).abs() < 0.005,
            "{format}: {} was {}",
            ahead(&found),
            ahead(&original)
        );
    }
    let answer = request("GET", &address(&server, "start=1&format=ts"), &[]);
    assert_eq!(answer.status, 422, "{}", answer.text());
    // Whoever leaves in the middle leaves nothing behind.
    for _ in 0..5 {
        let mut answer = ureq::get(&address(&server, &format!("{asked}&format=mkv"))).call().unwrap();
        let mut some = [0; 1000];
        answer.body_mut().as_reader().read_exact(&mut some).unwrap();
    }
    wait_until("they are gone", SOON, || server.sessions("playback").is_empty());
    assert!(!server.stop().contains("panicked"));
}

/// A span leaves as a file in one command, beside the server that records.
#[test]
fn a_span_leaves_as_a_file() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    let rows = until_segments(&server, 4);
    let (begin, end) = (seconds(&rows[0]["start"]) + 1.3, seconds(&rows[3]["end"]) - 0.5);
    let (from, to) = (format!("{begin:.3}"), format!("{end:.3}"));
    let data_dir = folder.path().join("data");
    let export = |id: &str, from: &str, to: &str, output: &str, more: &[&str]| {
        let place = ["--data-dir", data_dir.to_str().unwrap()];
        let what = ["export", id, "--start", from, "--end", to, "-o", output];
        run(&[&what[..], &place, more].concat(), folder.path())
    };
    let (code, said) = export("yard/cam", &from, &to, "clip.mp4", &["--json"]);
    assert_eq!(code, 0, "{said}");
    let path = folder.path().join("clip.mp4");
    check(&path);
    assert_contiguous(&counters(&path), "an export");
    let told: Value = serde_json::from_str(&said).unwrap();
    let sum = std::process::Command::new("sha256sum").arg(&path).output().unwrap();
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(told["sha256"].as_str().unwrap()), "{told}");
    assert_eq!(told["bytes"], std::fs::metadata(&path).unwrap().len());
    // The same as what the server gives.
    for (format, name) in [("mp4", "clip.mp4"), ("fmp4", "fragmented.mp4")] {
        if format == "fmp4" {
            let (code, said) = export("yard/cam", &from, &to, name, &["--format", format]);
            assert_eq!(code, 0, "{said}");
        }
        let query = format!("start={from}&end={to}&format={format}");
        let played = request("GET", &address(&server, &query), &[]);
        assert!(played.body == std::fs::read(folder.path().join(name)).unwrap(), "{format}");
    }
    for (id, from, output, words) in [
        ("yard/cam", &from, "clip.mp4", "exists already"),
        ("yard/cam", &from, "no/folder/clip.mp4", "No such file"),
        ("none", &from, "other.mp4", "nothing has been recorded"),
        ("yard/cam", &to, "other.mp4", "expected start before end"),
    ] {
        let (code, said) = export(id, from, &to, output, &[]);
        assert!(code != 0 && said.contains(words), "{output}: {code} {said}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().ends_with(".part") || name == "other.mp4"),
        "{left:?}"
    );
    server.stop();
}

/// Whoever reads a byte now and then, and whoever plays what is being deleted, disturbs nobody; what is begun is read to the end of its file.
#[test]
fn slow_readers_and_what_is_deleted_meanwhile() {
    let (folder, server) = start("test://ball", "");
    let rows = until_segments(&server, 5);
    let (begin, end) = (seconds(&rows[0]["start"]), seconds(&rows[4]["end"]));
    let url = address(&server, &range(begin, end));
    let whole = request("GET", &url, &[]).body;
    let host = server.url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    // Small buffers, so that the server has to wait for whoever reads.
    let open = || {
        let socket = TcpStream::connect(&host).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let path = url.split_once(&host).unwrap().1;
        write!(&socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        socket
    };
    let slow: Vec<TcpStream> = (0..3).map(|_| open()).collect();
    for turn in 0..20 {
        for mut socket in &slow {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
        }
        if turn % 5 == 0 {
            assert!(request("GET", &url, &[]).body == whole);
        }
    }
    let frames = server.stream("yard/cam")["frames"].as_u64();
    // All of it goes; the stream, its recording and what is played later do not notice.
    let deleted = format!("/api/streams/yard/cam/recordings?{}", range(begin - 10.0, end + 0.5));
    assert_eq!(server.call("DELETE", &deleted, None).0, 200);
    assert_eq!(request("GET", &url, &[]).status, 404);
    for mut socket in slow {
        let mut rest = Vec::new();
        // It ends, whole or broken off where the next file would have begun.
        let _ = socket.read_to_end(&mut rest);
        let body = rest.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
        assert!(rest.len() - body > 1000 && whole.starts_with(&rest[body..]), "{} bytes", rest.len());
    }
    wait_until("they are gone", SOON, || server.sessions("playback").is_empty());
    server.wait_for("yard/cam", "more frames", SOON, |s| s["frames"].as_u64() > frames.map(|n| n + 50));
    assert!(segments(&server).last().unwrap()["complete"] == false);
    drop(folder);
    assert!(!server.stop().contains("panicked"));
}

#[test]
fn what_cannot_be_played_is_said() {
    let (folder, server) = Server::alone(&format!(
        "[[streams]]\nid = \"yard/cam\"\nsource_url = \"test://ball\"\n{SEGMENTS}\
         [[streams]]\nid = \"other\"\nsource_url = \"test://ball\"\nrecording = {{ enabled = true, format = \"mkv\" }}\n"
    ));
    let rows = until_segments(&server, 2);
    let begin = seconds(&rows[0]["start"]);
    let whole = range(begin, begin + 3.0);
    for (path, status, code) in [
        ("yard/cam/playback".to_owned(), 400, "invalid_query"),
        ("yard/cam/playback?start=yesterday".to_owned(), 400, "invalid_query"),
        (format!("yard/cam/playback?{}", range(begin + 3.0, begin)), 422, "invalid_query"),
        (format!("yard/cam/playback?{whole}&duration=3s"), 422, "invalid_query"),
        (format!("yard/cam/playback?{whole}&format=avi"), 400, "invalid_query"),
        (format!("yard/cam/playback?{whole}&colour=red"), 400, "invalid_query"),
        ("yard/cam/playback?start=2100-01-01T00:00:00Z".to_owned(), 404, "no_recordings"),
        ("yard/cam/playback?start=2000-01-01T00:00:00Z&duration=1h".to_owned(), 404, "no_recordings"),
        (format!("none/playback?{whole}"), 404, "stream_not_found"),
        (format!("../../yard/playback?{whole}"), 404, "stream_not_found"),
        (format!("%2e%2e%2fother/playback?{whole}"), 404, "stream_not_found"),
        (format!("other/playback?start={:.3}", begin - 10.0), 409, "not_playable"),
    ] {
        wait_until("the other one is recorded", SOON, || {
            server.stream("other")["recording"]["file"].is_string()
        });
        let answer = request("GET", &server.url(&format!("/api/streams/{path}")), &[]);
        assert_eq!((answer.status, &*answer.code()), (status, code), "{path}: {}", answer.text());
    }
    assert_eq!(request("POST", &address(&server, &whole), &[]).status, 405);
    // A file that is gone, or no longer whole: it breaks off, and nothing else is disturbed.
    std::fs::write(rows[1]["path"].as_str().unwrap(), b"nothing").unwrap();
    let answer = request("GET", &address(&server, &range(begin, begin + 30.0)), &[]);
    assert_eq!((answer.status, &*answer.code()), (500, "recording_damaged"), "{}", answer.text());
    let (path, _) = fetch(&server, folder.path(), &range(begin, begin + 1.5));
    check(&path);
    assert!(!server.stop().contains("panicked"));
}
