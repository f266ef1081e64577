//! What players and caches ask for by HTTP, and what they must not get.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};
use stream_manager_tests::http::{Answer, get, join, request};
use stream_manager_tests::mpd::{check, read};
use stream_manager_tests::playlist::{Playlist, check_update, parse};
use stream_manager_tests::program::{OPEN_API, Server};
use stream_manager_tests::wait_until;

const STREAM: &str = "[[streams]]\nid = \"cam\"\nsource_url = \"test://smpte?width=320&height=180&gop=25\"\n";

fn server(config: &str) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(config));
    let running = |stream: &Value| stream["state"] == "running";
    server.wait_for("cam", "running", Duration::from_secs(20), running);
    (folder, server)
}

/// The address of the first media playlist in a multivariant one.
fn media(master: &str) -> String {
    let answer = get(master);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    join(master, text.lines().find(|line| !line.starts_with('#')).unwrap())
}

fn playlist(url: &str) -> Playlist {
    let answer = get(url);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/vnd.apple.mpegurl");
    parse(&answer.text())
}

/// Reads a playlist as Low-Latency players do, part by part, and holds every state against the rules and the state before.
#[test]
fn a_low_latency_player_s_requests_are_answered_when_there_is_something() {
    let (_folder, server) = server(STREAM);
    let master = server.url("/hls/cam/index.m3u8");
    let text = get(&master).text();
    assert!(text.contains("CODECS=\"avc1.") && text.contains("mp4a.40.2\""), "{text}");
    assert!(
        text.contains(",RESOLUTION=320x180,FRAME-RATE=25.000,CLOSED-CAPTIONS=NONE,AUDIO=\"audio\""),
        "{text}"
    );
    let url = media(&master);
    let audio = url.replace("v0.m3u8", "a1.m3u8");
    for url in [&url, &audio] {
        let mut before = playlist(url);
        for _ in 0..25 {
            let (number, part) = match &before.open {
                Some(open) => (open.number, open.parts.len()),
                None => (before.segments.last().unwrap().number + 1, 0),
            };
            let hint = join(url, before.hint.as_ref().unwrap());
            let waiting = std::thread::spawn(move || get(&hint));
            let answer = get(&format!("{url}?_HLS_msn={number}&_HLS_part={part}"));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let max_age = answer.header("cache-control").to_owned();
            assert!(max_age.contains("max-age=12"), "{max_age}");
            let now = parse(&answer.text());
            check_update(&before, &now);
            let newer = now.open.as_ref().map(|o| (o.number, o.parts.len())) > Some((number, part))
                || now.segments.last().unwrap().number >= number;
            assert!(newer, "{number}.{part} was asked for: {}", answer.text());
            // The hinted part was waited for, also when the segment ended before it.
            let hinted = waiting.join().unwrap();
            let mut listed = now.segments.iter().chain(&now.open).flat_map(|s| &s.parts);
            assert!(
                listed.any(|p| Some(&p.1) == before.hint.as_ref()),
                "{:?}: {}",
                before.hint,
                answer.text()
            );
            assert_eq!(hinted.status, 200);
            before = now;
        }
        let delta = parse(&get(&format!("{url}?_HLS_skip=YES")).text());
        assert!(delta.skipped > 0 || before.segments.len() <= 6, "{}", before.segments.len());
    }
    // The other rendition's report says where it is.
    let reports = playlist(&url).reports;
    let audio = playlist(&audio);
    assert_eq!(reports[0].0, "a1.m3u8");
    assert!(
        audio.segments.last().unwrap().number + 1 >= reports[0].1
            && reports[0].1 + 1 >= audio.segments[0].number
    );
    server.stop();
}

#[test]
fn what_is_asked_for_wrongly_is_answered_rightly() {
    let (_folder, server) = server(STREAM);
    let url = media(&server.url("/hls/cam/index.m3u8"));
    let now = playlist(&url);
    let last = now.segments.last().unwrap().number;
    for (query, status) in [
        (format!("?_HLS_msn={}", last + 50), 400),
        (format!("?_HLS_msn={}&_HLS_part=0", last + 9), 400),
        ("?_HLS_part=1".to_owned(), 400),
        ("?_HLS_msn=x".to_owned(), 400),
        ("?_HLS_skip=perhaps".to_owned(), 400),
        ("?_HLS_msn=1".to_owned(), 200),
        ("?other=1".to_owned(), 200),
    ] {
        let answer = get(&format!("{url}{query}"));
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
    }
    for (path, status) in [
        ("/hls/cam/v0-1.m4s", 404),
        ("/hls/cam/v0-18446744073709551615.m4s", 404),
        ("/hls/cam/v0-99999999999999999999999.m4s", 404),
        ("/hls/cam/v0-i1.mp4", 404),
        ("/hls/cam/v9.m3u8", 404),
        ("/hls/cam/passwd", 404),
        ("/hls/cam/..%2f..%2f..%2fetc%2fpasswd", 404),
        ("/hls/..%2fcam/index.m3u8", 404),
        ("/hls/cam%00/index.m3u8", 404),
        ("/hls/nobody/index.m3u8", 404),
        ("/hls/index.m3u8", 404),
        ("/hls/cam/r1-i0.mp4", 404),
        ("/hls/cam/dvr.m3u8", 400),
        ("/hls/cam/index.m3u8?start=yesterday", 400),
        ("/hls/cam/index.m3u8?start=2020-01-01T00:00:00Z", 404),
        ("/dash/cam/v0.m3u8", 404),
        ("/dash/nobody/manifest.mpd", 404),
        ("/api/streams/nobody/live.mp4", 404),
    ] {
        let answer = get(&server.url(path));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(!answer.code().is_empty(), "{path}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
    let answer = request("POST", &url, &[]);
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD, OPTIONS"));
    assert!(server.log().lines().all(|line| !line.contains("panicked")));
    server.stop();
}

/// Tags, ranges, HEAD, compression, other pages' rights, HTTP/2.
#[test]
fn caches_and_browsers_get_what_they_need() {
    let (_folder, server) = server(STREAM);
    let url = media(&server.url("/hls/cam/index.m3u8"));
    let answer = get(&url);
    let listed = parse(&answer.text());
    let segment = join(&url, &listed.segments[0].uri);
    assert!(!segment.contains("/s/"), "segments belong to nobody: {segment}");
    let whole = get(&segment);
    assert_eq!((whole.status, whole.header("content-type")), (200, "video/mp4"));
    assert_eq!(whole.header("cache-control"), "public, max-age=3600, immutable");
    assert_eq!(whole.header("content-length"), whole.body.len().to_string());
    let known = request("GET", &segment, &[("if-none-match", whole.header("etag"))]);
    assert_eq!((known.status, known.body.len()), (304, 0));
    let head = request("HEAD", &segment, &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), whole.body.len().to_string());
    for (range, expected) in [("bytes=0-99", 0..100), ("bytes=500-", 500..whole.body.len())] {
        let part = request("GET", &segment, &[("range", range)]);
        assert_eq!(part.status, 206);
        assert_eq!(part.body, whole.body[expected.clone()]);
        let end = expected.end - 1;
        assert_eq!(
            part.header("content-range"),
            format!("bytes {}-{end}/{}", expected.start, whole.body.len())
        );
    }
    assert_eq!(request("GET", &segment, &[("range", "bytes=999999999-")]).status, 416);
    let packed = request("GET", &url, &[("accept-encoding", "gzip")]);
    assert_eq!((packed.header("content-encoding"), &packed.body[..2]), ("gzip", &[0x1f, 0x8b][..]));
    assert!(packed.header("vary").contains("accept-encoding"));
    let same = request("GET", &url, &[("if-none-match", "\"nothing\"")]);
    assert_eq!(same.status, 200);
    let origin = [("origin", "https://elsewhere.example"), ("access-control-request-method", "GET")];
    let preflight = request("OPTIONS", &segment, &origin);
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, "*"));
    assert!(preflight.header("access-control-allow-headers").contains("range"));
    let mpd = get(&server.url("/dash/cam/manifest.mpd"));
    assert_eq!(
        (mpd.header("content-type"), mpd.header("access-control-allow-origin")),
        ("application/dash+xml", "*")
    );
    let clock = get(&server.url("/dash/cam/time")).text();
    let clock: stream_manager_core::frame::WallTime = clock.parse().unwrap();
    let off = stream_manager_core::frame::WallTime::now().saturating_since(clock);
    assert!(off < Duration::from_secs(5), "the time is off by {off:?}");
    // Prior knowledge; many requests on one connection.
    let mut curl = Command::new("curl");
    curl.args([
        "-s",
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version}:%{http_code}:%{size_download} ",
    ]);
    let output = curl.args([&segment, &url, &server.url("/api/streams")]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("2:200:{}", whole.body.len());
    assert!(said.starts_with(&expected), "{said}");
    // Another origin's rights are a setting, and changing it needs no restart.
    let patch = serde_json::json!({"hls": {"allow_origin": "https://example.org"}});
    assert_eq!(server.call("PATCH", "/api/config", Some(&patch)).0, 200);
    assert_eq!(get(&segment).header("access-control-allow-origin"), "https://example.org");
    let patch = serde_json::json!({"hls": {"enabled": false}});
    assert_eq!(server.call("PATCH", "/api/config", Some(&patch)).0, 200);
    assert_eq!(
        (get(&segment).code().as_str(), server.stream("cam")["addresses"]["hls"].is_null()),
        ("hls_disabled", true)
    );
    server.stop();
}

/// An MPD as the schema has it, whose segments can be had: the ones that are listed, and no others.
#[test]
fn a_manifest_is_valid_and_its_segments_are_there() {
    let (_folder, server) = server(STREAM);
    let first = get(&server.url("/dash/cam/manifest.mpd"));
    let mpd = read(&first.text());
    check(&mpd);
    let location = mpd.find("Location").unwrap().text.clone();
    let url = join(&server.url("/dash/cam/manifest.mpd"), &location);
    let mut newest = 0;
    for _ in 0..4 {
        let mpd = read(&get(&url).text());
        check(&mpd);
        let base = join(&url, &mpd.find("BaseURL").unwrap().text);
        for set in &mpd.find("Period").unwrap().children {
            let template = set.find("SegmentTemplate").unwrap();
            assert_eq!(get(&format!("{base}{}", template.attributes["initialization"])).status, 200);
            let (mut number, mut end) = (template.number("startNumber"), None);
            for entry in &template.find("SegmentTimeline").unwrap().children {
                // Only the first needs a time; others may have one that differs by what rounding does.
                let stated = entry.attributes.get("t").map(|t| t.parse::<u64>().unwrap());
                let start = stated.or(end).expect("the first has no time");
                assert!(end.is_none_or(|end| end.abs_diff(start) <= 2), "a gap before {start}");
                let count = entry.attributes.get("r").map_or(1, |r| r.parse::<u64>().unwrap() + 1);
                for _ in 0..count {
                    let name = template.attributes["media"].replace("$Number$", &number.to_string());
                    assert_eq!(get(&format!("{base}{name}")).status, 200, "{name}");
                    number += 1;
                }
                end = Some(start + entry.number("d") * count);
            }
            // What is listed ends about now.
            let timescale = template.number("timescale");
            let now = stream_manager_core::frame::WallTime::now().as_unix_nanos() as f64 / 1e9;
            let off = end.unwrap() as f64 / timescale as f64 - now;
            assert!((-4.0..3.0).contains(&off), "the list ends {off} s from now");
            newest = newest.max(number);
        }
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(get(&server.url(&format!("/dash/cam/v0-{}.m4s", newest + 5))).status, 404);
    let plain = serde_json::json!({"defaults": {"hls": {"low_latency": false}}});
    assert_eq!(server.call("PATCH", "/api/config", Some(&plain)).0, 200);
    wait_until("a plain manifest", Duration::from_secs(20), || {
        let answer = get(&server.url("/dash/cam/manifest.mpd"));
        answer.status == 200 && !answer.text().contains("availabilityTimeOffset")
    });
    let answer = get(&server.url("/dash/cam/manifest.mpd")).text();
    check(&read(&answer));
    // So are its playlists: no parts.
    let url = media(&server.url("/hls/cam/index.m3u8"));
    wait_until("a plain playlist", Duration::from_secs(20), || get(&url).status == 200);
    assert!(playlist(&url).part_target.is_none());
    server.stop();
}

fn sessions(server: &Server) -> Vec<Value> {
    server.call("GET", "/api/sessions", None).1["items"].as_array().cloned().unwrap()
}

#[test]
fn viewers_are_counted_and_can_be_ended() {
    let (_folder, server) = server(STREAM);
    let addresses = server.stream("cam")["addresses"].clone();
    assert_eq!(addresses["hls"], server.url("/hls/cam/index.m3u8"));
    assert_eq!(addresses["dash"], server.url("/dash/cam/manifest.mpd"));
    assert_eq!(addresses["mp4"], server.url("/api/streams/cam/live.mp4"));
    let (first, second) = (media(&server.url("/hls/cam/index.m3u8")), {
        // The first takes its name up, so that the next one is somebody else.
        get(&media(&server.url("/hls/cam/index.m3u8")));
        media(&server.url("/hls/cam/index.m3u8"))
    });
    let listed = playlist(&second);
    get(&join(&second, &listed.segments[0].uri));
    wait_until("two sessions", Duration::from_secs(5), || sessions(&server).len() >= 2);
    let all = sessions(&server);
    assert!(all.iter().all(|s| s["protocol"] == "hls" && s["transport"] == "http"), "{all:?}");
    assert!(all.iter().any(|s| s["bytes"].as_u64().unwrap() > 1000), "{all:?}");
    assert!(server.stream("cam")["readers"]["hls"].as_u64().unwrap() >= 2);
    for session in &all {
        assert_eq!(server.call("DELETE", &format!("/api/sessions/{}", session["id"]), None).0, 204);
    }
    for url in [&first, &second] {
        let answer = get(url);
        assert_eq!((answer.status, answer.code().as_str()), (410, "session_ended"));
    }
    wait_until("no session", Duration::from_secs(10), || sessions(&server).is_empty());
    assert_eq!(get(&second).status, 410);
    // A live one ends when it is told to.
    let mut live = Command::new("curl");
    live.args(["-s", "-o", "/dev/null", &server.url("/api/streams/cam/live.mp4")]);
    let mut live = live.spawn().unwrap();
    wait_until("a reader", Duration::from_secs(10), || {
        sessions(&server).iter().any(|s| s["protocol"] == "fmp4")
    });
    let bytes = || sessions(&server).first().and_then(|s| s["bytes"].as_u64()).unwrap_or(0);
    wait_until("bytes", Duration::from_secs(10), || bytes() > 10_000);
    assert_eq!(server.call("DELETE", "/api/streams/cam/sessions", None).1["ended"], 1);
    assert!(stream_manager_tests::program::wait(&mut live, Duration::from_secs(10)).success());
    server.stop();
}

#[test]
fn only_those_may_watch_who_may() {
    let users = "[auth]\nmethods = [\"basic\"]\n[[auth.users]]\nname = \"ann\"\npassword = \"secret-1\"\n\
                 [[auth.users]]\nname = \"bob\"\npassword = \"secret-2\"\nread = [\"other\"]\n";
    let (_folder, server) = server(&format!("{users}{OPEN_API}{STREAM}"));
    // ann:secret-1, bob:secret-2, ann:wrong
    let (ann, bob, wrong) = ("Basic YW5uOnNlY3JldC0x", "Basic Ym9iOnNlY3JldC0y", "Basic YW5uOndyb25n");
    let with = |who: &str, path: &str| request("GET", &server.url(path), &[("authorization", who)]);
    for path in ["/hls/cam/index.m3u8", "/dash/cam/manifest.mpd", "/hls/cam/v0.m3u8", "/hls/cam/v0-1.m4s"] {
        let nobody = get(&server.url(path));
        assert_eq!(nobody.status, 401, "{path}");
        assert!(nobody.header("www-authenticate").starts_with("Basic "), "{path}");
        assert_eq!(with(bob, path).status, 403, "{path}");
    }
    assert_eq!(with(wrong, "/hls/cam/index.m3u8").status, 401);
    assert_eq!(get(&server.url("/api/streams/cam/live.mp4")).status, 401);
    let master = with(ann, "/hls/cam/index.m3u8");
    assert_eq!(master.status, 200, "{}", master.text());
    let text = master.text();
    let named = text.lines().find(|line| !line.starts_with('#')).unwrap();
    let url = join(&server.url("/hls/cam/index.m3u8"), named);
    // Whoever was let in has the session's name, which nobody can guess.
    let listed = parse(&get(&url).text());
    let segment = join(&url, &listed.segments[0].uri);
    assert_eq!(get(&segment).status, 401);
    let own = request("GET", &segment, &[("authorization", ann)]);
    assert_eq!((own.status, own.header("cache-control")), (200, "private, max-age=3600, immutable"));
    assert_eq!(sessions(&server)[0]["user"], "ann");
    let log = server.stop();
    assert!(!log.contains("secret-1") && !log.contains("secret-2"), "{log}");
}

/// Waits forever, as far as it may.
fn ask(server: &Server, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    socket
}

/// Thousands that wait, and some that never read, are nobody else's business.
#[test]
fn those_who_wait_and_those_who_do_not_read_hold_up_nobody() {
    let hls = "[hls]\nmax_waiting = 50\nsessions = false\n";
    let (_folder, server) = server(&format!("{hls}{STREAM}"));
    let url = server.url("/hls/cam/v0.m3u8");
    get(&server.url("/hls/cam/index.m3u8"));
    let listed = playlist(&url);
    let next = listed.segments.last().unwrap().number + 2;
    let path = format!("/hls/cam/v0.m3u8?_HLS_msn={next}");
    let mut waiting: Vec<TcpStream> = (0..400).map(|_| ask(&server, &path)).collect();
    let mut never: Vec<TcpStream> = (0..20).map(|_| ask(&server, "/api/streams/cam/live.mp4")).collect();
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(get(&url).status, 200);
        assert_eq!(get(&server.url("/health/live")).status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?} for forty requests", start.elapsed());
    let mut answers = std::collections::BTreeMap::new();
    for socket in &mut waiting {
        let mut head = [0u8; 12];
        socket.read_exact(&mut head).unwrap();
        *answers.entry(String::from_utf8_lossy(&head[9..]).into_owned()).or_insert(0) += 1;
    }
    let refused = answers.get("503").copied().unwrap_or(0);
    assert!(refused >= 300, "{answers:?}");
    assert!(answers.get("200").is_some_and(|n| *n >= 10), "{answers:?}");
    // They still have what was sent first.
    let mut head = [0u8; 12];
    never[0].read_exact(&mut head).unwrap();
    assert_eq!(&head[9..], b"200");
    let running = server.stream("cam");
    assert_eq!((&running["state"], running["packets_lost"].as_u64()), (&Value::from("running"), Some(0)));
    drop((waiting, never));
    server.stop();
}

/// A part of a segment that grows is sent as soon as it is there.
#[test]
fn a_segment_is_sent_while_it_is_made() {
    let (_folder, server) =
        server(&format!("{STREAM}[streams.hls]\nsegment_duration = \"4s\"\nwindow = \"12s\"\n"));
    let url = media(&server.url("/hls/cam/index.m3u8"));
    let segment = |listed: &Playlist| listed.open.as_ref().map(|open| open.number);
    wait_until("a segment that has just begun", Duration::from_secs(20), || {
        playlist(&url).open.is_some_and(|open| open.parts.len() < 4 && open.parts[0].2)
    });
    let number = segment(&playlist(&url)).unwrap();
    let mut socket = ask(&server, &format!("/dash/cam/v0-{number}.m4s"));
    let mut arrivals = Vec::new();
    let (mut buffer, mut text) = (vec![0u8; 1 << 20], Vec::new());
    while !text.ends_with(b"0\r\n\r\n") {
        let read = socket.read(&mut buffer).unwrap();
        assert!(read > 0, "the connection ended early");
        text.extend_from_slice(&buffer[..read]);
        arrivals.push(Instant::now());
    }
    let took = arrivals.last().unwrap().duration_since(arrivals[0]);
    assert!(text.starts_with(b"HTTP/1.1 200") && arrivals.len() >= 5, "{} pieces", arrivals.len());
    assert!(took > Duration::from_millis(500), "it came within {took:?}: all at once");
    // The same as when it is finished.
    let whole: Answer = get(&server.url(&format!("/dash/cam/v0-{number}.m4s")));
    let body: Vec<u8> = unchunk(&text);
    assert_eq!(body.len(), whole.body.len());
    assert!(body == whole.body);
    server.stop();
}

/// The body of a chunked answer (RFC 9112 section 7.1).
fn unchunk(answer: &[u8]) -> Vec<u8> {
    let mut at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut body = Vec::new();
    loop {
        let end = at + answer[at..].windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&answer[at..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&answer[end + 2..end + 2 + size]);
        at = end + 2 + size + 2;
    }
}
