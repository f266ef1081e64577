//! Recordings that leave as files: plain MP4, to the picture, as a time-lapse, with the time burnt in; in one command and as jobs of the
//! server. Checked by ffprobe, by ffmpeg's own cuts, and by the counters in the pictures.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::disk::Disk;
use stream_manager_tests::http::{Answer, get, request};
use stream_manager_tests::media::{
    Packet, assert_contiguous, check, codecs, counters, describe, ffprobe, files, packets,
};
use stream_manager_tests::program::{Server, finish, run, stream_manager};
use stream_manager_tests::recorded::{
    of_kind, path_of, range, record, seconds, start, stopped, until_segments,
};
use stream_manager_tests::wait_until;

const SOON: Duration = Duration::from_secs(60);

/// A recorded frame of the picture.
struct Recorded {
    /// When, in seconds since 1970.
    time: f64,
    /// Where it is shown in its file.
    pts: f64,
    counter: u32,
    keyframe: bool,
    file: usize,
}

/// All recorded pictures, in the order in which they are shown. Their times are those of decoding, moved so that keyframes have theirs.
fn recorded(rows: &[Value]) -> Vec<Recorded> {
    let mut all = Vec::new();
    for (file, row) in rows.iter().enumerate() {
        let mut shown: Vec<Packet> = of_kind(&packets(path_of(row)), "video").cloned().collect();
        let first = shown[0].clone();
        shown.sort_by(|a, b| a.pts.total_cmp(&b.pts));
        let numbers = counters(path_of(row));
        assert_eq!(numbers.len(), shown.len());
        all.extend(shown.iter().zip(numbers).map(|(p, counter)| Recorded {
            time: seconds(&row["start"]) + p.pts - first.pts,
            pts: p.pts,
            counter,
            keyframe: p.keyframe,
            file,
        }));
    }
    all
}

/// Runs `export` on a server's recordings.
fn export(folder: &Path, from: f64, to: f64, output: &str, more: &[&str]) -> (i32, String) {
    let (from, to, data) = (format!("{from:.6}"), format!("{to:.6}"), folder.join("data"));
    let what = ["export", "yard/cam", "--start", &from, "--end", &to, "-o", output, "--json"];
    run(&[&what[..], &["--data-dir", data.to_str().unwrap()], more].concat(), folder)
}

/// The same, and it has to go well.
fn exported(folder: &Path, from: f64, to: f64, output: &str, more: &[&str]) -> (PathBuf, Value) {
    let (code, said) = export(folder, from, to, output, more);
    assert_eq!(code, 0, "{said}");
    (folder.join(output), serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}")))
}

/// What ffmpeg makes of an input, packet by packet: the stream's number, when it is shown, and a hash of what is in it.
fn hashes(input: &[&str]) -> Vec<(u32, i64, String)> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error"]).args(input).args(["-map", "0", "-c", "copy", "-f", "framemd5", "-"]);
    let output = finish(command, SOON);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "ffmpeg {input:?}: {complaint}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            (fields[0].parse().unwrap(), fields[2].parse().unwrap(), fields[5].to_owned())
        })
        .collect()
}

/// Two hundred ranges, each the same as what ffmpeg cuts out of the files that it has joined: no packet more or less, of pictures and sound.
#[test]
fn any_range_is_what_ffmpeg_cuts_out_of_the_joined_files() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    until_segments(&server, 6);
    let rows = stopped(&server);
    let frames = recorded(&rows);
    let list: String = rows.iter().map(|row| format!("file '{}'\n", path_of(row).display())).collect();
    let list_path = folder.path().join("list.txt");
    std::fs::write(&list_path, list).unwrap();
    // ffmpeg puts one file behind the other by how long it says that it is.
    let mut begins = vec![0.0];
    for row in &rows {
        let length = ffprobe(path_of(row), &["-show_entries", "format=duration"]);
        let length: f64 = length["format"]["duration"].as_str().unwrap().parse().unwrap();
        begins.push(begins.last().unwrap() + length);
    }
    // It seeks in a whole file only, so it joins them first; packets stay as they are.
    let joined = folder.path().join("joined.mp4");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-f", "concat", "-safe", "0", "-auto_convert", "0", "-i"]).arg(&list_path);
    command.args(["-map", "0", "-c", "copy"]).arg(&joined);
    let output = finish(command, SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut random = fastrand::Rng::with_seed(12);
    let ranges: Vec<(usize, usize)> = (0..200)
        .map(|_| {
            let (a, b) = (random.usize(..frames.len()), random.usize(..frames.len()));
            (a.min(b), a.max(b))
        })
        .collect();
    // From the midst of a frame to the midst of another.
    let middle = 0.02;
    // On a slow machine those of one file may reach beyond the beginning of the next: there a time does not tell one place.
    let clear = |at: usize, time: f64| {
        frames[..=at].iter().all(|f| f.time < time) && frames[at + 1..].iter().all(|f| f.time > time)
    };
    let ranges: Vec<(usize, usize)> = ranges
        .into_iter()
        .filter(|(a, b)| clear(*a, frames[*a].time + middle) && clear(*b, frames[*b].time + middle + 0.001))
        .collect();
    assert!(ranges.len() > 120, "{} of 200", ranges.len());
    let one = |(a, b): (usize, usize)| {
        let (from, to) = (&frames[a], &frames[b]);
        let query = range(from.time + middle, to.time + middle + 0.001);
        let ours = hashes(&["-i", &server.url(&format!("/api/streams/yard/cam/playback?{query}"))]);
        let (start, end) = (begins[from.file] + from.pts + middle, begins[to.file] + to.pts + middle + 0.001);
        let cut = ["-ss", &format!("{start:.6}"), "-t", &format!("{:.6}", end - start), "-i"];
        let theirs = hashes(&[&cut[..], &[joined.to_str().unwrap()]].concat());
        let of = |all: &[(u32, i64, String)], stream: u32| -> Vec<String> {
            all.iter().filter(|(s, ..)| *s == stream).map(|(.., hash)| hash.clone()).collect()
        };
        let what = format!("{} to {} of {}", from.counter, to.counter, frames.len());
        assert_eq!(of(&ours, 0), of(&theirs, 0), "{what}: pictures");
        // Where the sound begins and ends is another rule (here a track ends by its own time, there by the pictures'); in between nothing
        // is missing, doubled or shifted.
        let (sound, all) = (of(&ours, 1), of(&theirs, 1));
        if let (Some(first), true) = (sound.first(), sound.len() > 8) {
            let at = all.iter().position(|hash| hash == first).unwrap_or_else(|| {
                let skipped = sound.iter().position(|hash| hash == &all[0]);
                assert!(skipped.is_some_and(|n| n < 6), "{what}: the sound is another");
                0
            });
            let ours = &sound[sound.iter().position(|hash| *hash == all[at]).unwrap()..];
            let same = ours.iter().zip(&all[at..]).take_while(|(a, b)| a == b).count();
            assert!(same + 6 >= ours.len() && same + 6 >= all.len() - at, "{what}: {same} of {}", all.len());
        }
    };
    std::thread::scope(|scope| {
        for half in ranges.chunks(ranges.len().div_ceil(2)) {
            scope.spawn(|| half.iter().for_each(|range| one(*range)));
        }
    });
    assert!(!server.stop().contains("panicked"));
}

/// Plain MP4: no fragments, everything in front, the same packets at the same times, in pieces.
#[test]
fn plain_mp4() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera.url(), "");
    let rows = until_segments(&server, 4);
    let asked = range(seconds(&rows[0]["start"]) + 1.3, seconds(&rows[3]["end"]) - 0.43);
    let url = |format: &str| server.url(&format!("/api/streams/yard/cam/playback?{asked}&format={format}"));
    let answer = get(&url("mp4"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let path = folder.path().join("plain.mp4");
    std::fs::write(&path, &answer.body).unwrap();
    let kinds: Vec<&[u8]> = boxes(&answer.body);
    assert_eq!(kinds, [b"ftyp", b"moov", b"mdat"]);
    check(&path);
    assert_contiguous(&counters(&path), "plain MP4");
    let fragmented = folder.path().join("fragmented.mp4");
    std::fs::write(&fragmented, get(&url("fmp4")).body).unwrap();
    let (plain, fragments) =
        (hashes(&["-i", path.to_str().unwrap()]), hashes(&["-i", fragmented.to_str().unwrap()]));
    assert_eq!(plain, fragments);
    // GStreamer reads all of it, too.
    let mut command = Command::new("gst-launch-1.0");
    command.args([
        "-q",
        "filesrc",
        &format!("location={}", path.display()),
        "!",
        "qtdemux",
        "!",
        "h264parse",
    ]);
    command.args(["!", "avdec_h264", "!", "fakesink"]).stdin(Stdio::null());
    let output = finish(command, SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (length, etag) = (answer.body.len(), answer.header("etag"));
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..30 {
        let from = random.usize(..length);
        let to = random.usize(from..length);
        let piece = request("GET", &url("mp4"), &[("range", &format!("bytes={from}-{to}"))]);
        assert!(piece.status == 206 && piece.body == answer.body[from..=to], "{from} to {to} of {length}");
    }
    assert_eq!(request("GET", &url("mp4"), &[("if-none-match", etag)]).status, 304);
    assert_ne!(get(&url("fmp4")).header("etag"), etag);
    let head = request("HEAD", &url("mp4"), &[]);
    assert_eq!((head.status, head.header("content-length")), (200, &*length.to_string()));
    let open = get(&server.url("/api/streams/yard/cam/playback?start=1&format=mp4"));
    assert_eq!(open.status, 422, "{}", open.text());
    server.stop();
}

/// The kinds of a file's boxes.
fn boxes(data: &[u8]) -> Vec<&[u8]> {
    let (mut at, mut kinds) = (0, Vec::new());
    while let Some(head) = data.get(at..at + 16) {
        kinds.push(&head[4..8]);
        let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        at += if size == 1 { u64::from_be_bytes(head[8..].try_into().unwrap()) as usize } else { size };
    }
    assert_eq!(at, data.len());
    kinds
}

/// From one picture to another: those and no others, in every container, with the sound in step, and nothing encoded anew but the edges.
#[test]
fn exactly_these_pictures() {
    let audio = Feed::with_audio(false).launch;
    let reordered = audio.replace("tune=zerolatency", "bframes=2 b-adapt=false rc-lookahead=4");
    for launch in [audio, reordered] {
        let camera = Camera::start(Feed::custom(launch));
        let (folder, server) = start(&camera.url(), "");
        until_segments(&server, 5);
        let rows = stopped(&server);
        let frames = recorded(&rows);
        let original: Vec<String> = rows
            .iter()
            .flat_map(|row| hashes(&["-i", path_of(row).to_str().unwrap()]))
            .filter(|(stream, ..)| *stream == 0)
            .map(|(.., hash)| hash)
            .collect();
        let last = frames.len() - 1;
        let key = frames.iter().skip(30).position(|f| f.keyframe).unwrap() + 30;
        // In the midst of GOPs; within one; from a keyframe on; up to one; a single picture.
        for (turn, (first, end)) in
            [(7, last - 4), (key + 3, key + 9), (key, last - 20), (9, key), (key + 5, key + 6)]
                .into_iter()
                .enumerate()
        {
            let (from, to) = (frames[first].time - 0.01, frames[end].time - 0.01);
            let format = ["mp4", "mkv", "fmp4", "ts", "mp4"][turn];
            let name = format!("exact-{turn}.{format}");
            let more = ["--exact", "--format", format];
            let (path, told) = exported(folder.path(), from, to, &name, &more);
            // By their times: on a slow machine those of one file may reach beyond the beginning of the next.
            let meant = frames.iter().filter(|f| (from..to).contains(&f.time));
            let wanted: Vec<u32> = meant.map(|f| f.counter).collect();
            assert_eq!(counters(&path), wanted, "{format}, turn {turn}");
            check(&path);
            let length = told["duration_secs"].as_f64().unwrap();
            assert!(
                (length - wanted.len() as f64 * 0.04).abs() < 0.03,
                "{length} for {} pictures",
                wanted.len()
            );
            let packets = packets(&path);
            let times = |kind| -> Vec<f64> { of_kind(&packets, kind).map(|p| p.pts).collect() };
            let (shown, heard) = (times("video"), times("audio"));
            if wanted.len() > 20 {
                assert!(
                    (heard[0] - shown.iter().copied().fold(f64::MAX, f64::min)).abs() < 0.05,
                    "{}",
                    heard[0]
                );
                let even = heard.windows(2).all(|w| (w[1] - w[0] - 1024.0 / 48000.0).abs() < 0.012);
                assert!(even, "{format}: {heard:?}");
            }
            // What lies between the edges is what was recorded.
            if turn == 0 {
                let made = hashes(&["-i", path.to_str().unwrap()]);
                let same =
                    made.iter().filter(|(stream, _, hash)| *stream == 0 && original.contains(hash)).count();
                assert!(same + 50 >= wanted.len() && same < wanted.len(), "{same} of {}", wanted.len());
            }
        }
        server.stop();
    }
}

/// Sixty times as fast; and with the time written into each picture.
#[test]
fn time_lapse_and_burnt_in_time() {
    let (folder, server) = start("test://ball?gop=10", "");
    until_segments(&server, 6);
    let rows = stopped(&server);
    let (from, to) = (seconds(&rows[0]["start"]), seconds(&rows.last().unwrap()["end"]));
    for (speed, step) in [("8", 8.0), ("2", 2.0), ("60", 60.0)] {
        let (path, told) = exported(folder.path(), from, to, "fast.mp4", &["--speed", speed, "--overwrite"]);
        assert_eq!(codecs(&path), ["h264"], "no sound");
        check(&path);
        let length = told["duration_secs"].as_f64().unwrap();
        assert!(
            (length - (to - from) / step).abs() < 0.1 + 1.0 / step,
            "{length} of {} at {speed}",
            to - from
        );
        let numbers = counters(&path);
        let grows = numbers.windows(2).all(|w| w[1] > w[0]);
        assert!(grows && numbers.len() as f64 <= length * 25.0 + 2.0, "{numbers:?}");
        // Evenly: each picture of its time.
        if speed == "2" {
            let even = numbers.windows(2).all(|w| (1..=3).contains(&(w[1] - w[0])));
            assert!(even && numbers.len() as f64 >= length * 25.0 - 3.0, "{numbers:?}");
        }
        let span = seconds(&told["end"]) - seconds(&told["start"]);
        assert!((span - (to - from)).abs() < 2.0, "{told}");
    }
    let bright = |path: &Path| -> usize {
        // Under the counter, where the text stands.
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-i"]).arg(path).args(["-vf", "crop=280:22:20:28", "-frames:v", "1"]);
        command.args(["-f", "rawvideo", "-pix_fmt", "gray", "-"]);
        finish(command, SOON).stdout.iter().filter(|p| **p > 160).count()
    };
    let (plain, _) = exported(folder.path(), from + 1.0, from + 3.0, "plain.mp4", &[]);
    let (burnt, _) =
        exported(folder.path(), from + 1.0, from + 3.0, "burnt.mp4", &["--burn-time", "Europe/Berlin"]);
    assert!(bright(&plain) < 20 && bright(&burnt) > 200, "{} and {}", bright(&plain), bright(&burnt));
    assert_eq!(counters(&burnt), counters(&plain));
    assert_eq!(codecs(&burnt), codecs(&plain));
    let (exact, _) =
        exported(folder.path(), from + 1.0, from + 2.0, "both.mkv", &["--burn-time", "UTC", "--exact"]);
    assert_eq!(counters(&exact).len(), 25);
    for (more, words) in [
        (&["--speed", "0"][..], "expected 0.1"),
        (&["--speed", "fast"], "invalid"),
        (&["--burn-time", "Moon/Sea"], "Europe/Berlin"),
        (&["--format", "avi"], "mp4"),
    ] {
        let (code, said) = export(folder.path(), from, to, "none.mp4", more);
        assert!(code == 2 && said.contains(words), "{more:?}: {code} {said}");
    }
    assert!(!folder.path().join("none.mp4").exists());
    server.stop();
}

fn begin(server: &Server, body: &Value) -> Answer {
    let url = server.url("/api/streams/yard/cam/exports");
    let headers = [("content-type", "application/json")];
    stream_manager_tests::http::send("POST", &url, &headers, &body.to_string())
}

fn until_ended(server: &Server, id: &str) -> Value {
    let mut last = Value::Null;
    wait_until("the export has ended", SOON, || {
        last = server.call("GET", &format!("/api/exports/{id}"), None).1;
        matches!(last["state"].as_str(), Some("done" | "failed"))
    });
    last
}

/// As a job of the server: begun, watched, fetched in pieces, kept over restarts and deletions of what it was made from.
#[test]
fn a_job_of_the_server() {
    let (folder, server) = start("test://ball", "");
    let rows = until_segments(&server, 4);
    let (from, to) = (seconds(&rows[0]["start"]) + 0.5, seconds(&rows[2]["end"]) - 0.3);
    let answer = begin(&server, &json!({"start": from, "end": to, "exact": true}));
    assert_eq!(answer.status, 202, "{}", answer.text());
    let made: Value = serde_json::from_slice(&answer.body).unwrap();
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), format!("/api/exports/{id}"));
    let done = until_ended(&server, &id);
    assert_eq!((&done["state"], &done["progress"]), (&json!("done"), &json!(1.0)), "{done:#}");
    let file = get(&server.url(&format!("/api/exports/{id}/file")));
    assert_eq!((file.status, file.header("content-type")), (200, "video/mp4"));
    assert!(file.header("content-disposition").contains("yard_cam_20"), "{file:?}");
    let path = folder.path().join("fetched.mp4");
    std::fs::write(&path, &file.body).unwrap();
    check(&path);
    let numbers = counters(&path);
    assert_contiguous(&numbers, "the export");
    // The index has the time of the wall clock, which pictures follow slowly: on a busy machine that makes one of them.
    let expected = ((to - from) / 0.04).round() as usize;
    assert!(numbers.len().abs_diff(expected) <= 1, "{} pictures, expected {expected}", numbers.len());
    let sum = Command::new("sha256sum").arg(&path).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert!(sum.starts_with(done["result"]["sha256"].as_str().unwrap()), "{done:#}");
    let piece =
        request("GET", &server.url(&format!("/api/exports/{id}/file")), &[("range", "bytes=100-199")]);
    assert!(piece.status == 206 && piece.body == file.body[100..200]);
    let (_, events) = server.call("GET", "/api/exports?limit=10", None);
    assert_eq!(events["items"].as_array().unwrap().len(), 1);
    // No retention comes there, and no restart.
    server.call(
        "DELETE",
        &format!("/api/streams/yard/cam/recordings?{}", range(from - 100.0, to + 100.0)),
        None,
    );
    server.stop();
    let server = Server::start(folder.path(), None);
    let (_, listed) = server.call("GET", "/api/streams/yard/cam/exports", None);
    assert_eq!(listed["items"][0]["id"], *id, "{listed:#}");
    assert!(get(&server.url(&format!("/api/exports/{id}/file"))).body == file.body);
    assert_eq!(server.call("DELETE", &format!("/api/exports/{id}"), None).0, 204);
    for path in [format!("/api/exports/{id}"), format!("/api/exports/{id}/file")] {
        let answer = get(&server.url(&path));
        assert_eq!((answer.status, &*answer.code()), (404, "export_not_found"));
    }
    assert_eq!(server.call("DELETE", &format!("/api/exports/{id}"), None).0, 404);
    assert_eq!(files(&folder.path().join("data/exports")), Vec::<PathBuf>::new());
    server.stop();
}

/// Given up, killed, wrong: said, and nothing half written is left.
#[test]
fn what_does_not_become_a_file() {
    let (folder, server) = start("test://ball", "");
    let rows = until_segments(&server, 3);
    let (from, to) = (seconds(&rows[0]["start"]), seconds(&rows[2]["end"]));
    for (body, status, code) in [
        (json!({"start": to, "end": from}), 422, "invalid_body"),
        (json!({"start": from}), 422, "invalid_body"),
        (json!({"start": from, "end": to, "duration": "3s"}), 422, "invalid_body"),
        (json!({"start": "then", "end": to}), 422, "invalid_body"),
        (json!({"start": from, "end": to, "speed": 0}), 422, "invalid_body"),
        (json!({"start": from, "end": to, "burn_time": "Moon/Sea"}), 422, "invalid_body"),
        (json!({"start": from, "end": to, "format": "avi"}), 422, "invalid_body"),
        (json!({"start": from, "end": to, "path": "/etc/passwd"}), 422, "invalid_body"),
        (json!({"start": "2100-01-01T00:00:00Z", "duration": "1h"}), 404, "no_recordings"),
        (json!([]), 422, "invalid_body"),
    ] {
        let answer = begin(&server, &body);
        assert_eq!((answer.status, &*answer.code()), (status, code), "{body}: {}", answer.text());
    }
    for path in ["/api/exports/none", "/api/exports/..%2f..%2fstate.db", "/api/exports/none/file"] {
        assert_eq!(get(&server.url(path)).status, 404, "{path}");
    }
    // Long ones, so that they are under way: as slow as it gets.
    let slow = json!({"start": from, "end": to, "speed": 0.1});
    let ids: Vec<String> = (0..4)
        .map(|_| {
            let answer = begin(&server, &slow);
            assert_eq!(answer.status, 202, "{}", answer.text());
            serde_json::from_slice::<Value>(&answer.body).unwrap()["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let file = get(&server.url(&format!("/api/exports/{}/file", ids[3])));
    assert_eq!((file.status, &*file.code()), (409, "export_running"), "{}", file.text());
    // One that waits and one that runs are given up.
    for id in [&ids[3], &ids[0]] {
        assert_eq!(server.call("DELETE", &format!("/api/exports/{id}"), None).0, 204);
        assert_eq!(get(&server.url(&format!("/api/exports/{id}"))).status, 404);
    }
    let left = files(&folder.path().join("data/exports"));
    assert!(left.iter().all(|path| !path.display().to_string().contains(&*ids[0])), "{left:?}");
    // The others are still there when it is killed, or are done by then.
    server.kill();
    let server = Server::start(folder.path(), None);
    for id in &ids[1..3] {
        let (_, after) = server.call("GET", &format!("/api/exports/{id}"), None);
        let ended = after["state"] == "done" || after["problem"] == "the server ended before it was done";
        assert!(ended, "{after:#}");
    }
    let left = files(&folder.path().join("data/exports"));
    assert!(left.iter().all(|path| path.extension().is_none_or(|e| e != "part")), "{left:?}");
    assert!(!server.stop().contains("panicked"));
}

/// A disk that takes no more: the export says so and leaves nothing; what it was made from is as it was.
#[test]
fn a_full_disk() {
    let (folder, server) = start("test://ball", "");
    let rows = until_segments(&server, 3);
    let (from, to) = (seconds(&rows[0]["start"]), seconds(&rows[2]["end"]));
    record(&server, "stop");
    let disk = Disk::new(folder.path(), "clips");
    let clips = disk.root().join("clips");
    std::fs::create_dir_all(&clips).unwrap();
    disk.trouble("eio");
    for more in [&[][..], &["--exact"], &["--format", "ts"]] {
        let mut command = stream_manager();
        disk.attach(&mut command);
        command.current_dir(folder.path()).args(["export", "yard/cam", "--data-dir", "data"]);
        command.args(["--start", &from.to_string(), "--end", &to.to_string(), "-o"]);
        command.arg(clips.join("clip.mp4")).args(more);
        let output = finish(command, SOON);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("clip.mp4") || said.contains("export"),
            "{more:?}: {said}"
        );
        assert_eq!(files(&clips), Vec::<PathBuf>::new(), "{more:?}");
    }
    let (path, _) = exported(folder.path(), from, to, "clip.mp4", &[]);
    check(&path);
    assert!(describe(&path)["streams"].as_array().unwrap().len() == 2);
    server.stop();
}
