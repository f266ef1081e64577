//! WHIP: who publishes by WebRTC is a source like any other: watched, recorded, taken over, shown out.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;
use str0m::RtcConfig;
use str0m::media::Direction;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::http::request;
use stream_manager_tests::media::{assert_contiguous, check, counters, files};
use stream_manager_tests::player::{Playing, firefox_missing, missing};
use stream_manager_tests::program::{OPEN_API, Server, finish, tool, webrtcbin};
use stream_manager_tests::relay::Relay;
use stream_manager_tests::wait_until;
use stream_manager_tests::whep::{Client, Received, post};
use stream_manager_tests::whip::Publisher;

const SOON: Duration = Duration::from_secs(30);

/// With a stream to publish, and a camera whose pictures can be.
fn with(more: &str) -> (tempfile::TempDir, Server, Camera) {
    by(Server::alone, more)
}

fn by(start: fn(&str) -> (tempfile::TempDir, Server), more: &str) -> (tempfile::TempDir, Server, Camera) {
    let camera = Camera::start(Feed::h264());
    let (folder, server) = start(&format!(
        "{more}\n[[streams]]\nid = \"cam\"\nsource_url = \"{}\"\n\
         [[streams]]\nid = \"yard/phone\"\nsource_url = \"publisher\"\nrecording = {{ enabled = true }}\n",
        camera.url()
    ));
    server.wait_for("cam", "frames", SOON, |stream| stream["frames"].as_u64() > Some(30));
    (folder, server, camera)
}

fn pictures(server: &Server, count: usize) -> Vec<Received> {
    let mut client = Client::connect(&server.url("/webrtc/cam/whep"));
    client.until("pictures to publish", SOON, |c| c.video.len() >= count);
    client.video
}

fn whip(server: &Server) -> String {
    server.url("/webrtc/yard/phone/whip")
}

fn publishers(server: &Server) -> Vec<Value> {
    server.sessions("webrtc").into_iter().filter(|session| session["kind"] == "publisher").collect()
}

/// Over a line that loses one datagram in twenty: every picture is in the recording, and seen by who watches.
#[test]
fn what_is_published_is_recorded_and_seen() {
    let (folder, server, _camera) = with("");
    let pictures = pictures(&server, 250);
    let mut line = None;
    let mut publisher = Publisher::connect_through(&whip(&server), |server| {
        let lossy = Relay::losing(server, 5);
        let address = lossy.address();
        line = Some(lossy);
        Some(address)
    });
    assert!(publisher.answer.contains("a=recvonly"), "{}", publisher.answer);
    assert_eq!(publishers(&server)[0]["state"], "connecting");
    publisher.until("a connection", SOON, |p| p.connected);
    publisher.send(&pictures[..100]);
    let listed = publishers(&server);
    assert_eq!((listed.len(), &listed[0]["state"]), (1, &json!("connected")), "{listed:?}");
    assert!(
        listed[0]["packets"].as_u64() > Some(50) && listed[0]["bitrate_bps"].as_u64() > Some(2000),
        "{listed:?}"
    );
    // Somebody watches meanwhile.
    let url = server.url("/webrtc/yard/phone/whep");
    let watching = std::thread::spawn(move || {
        let mut client = Client::connect(&url);
        client.until("pictures", SOON, |c| c.video.len() >= 60);
        client.counters()
    });
    publisher.send(&pictures[100..]);
    let seen = watching.join().unwrap();
    assert_contiguous(&seen, "seen");
    assert!(line.as_ref().unwrap().lost.load(Ordering::Relaxed) > 10);
    assert_eq!(request("DELETE", &publisher.session, &[]).status, 200);
    publisher.until("goodbye", SOON, |p| p.closed);
    // The goodbye comes by it too.
    drop(line);
    wait_until("the session's end", SOON, || publishers(&server).is_empty());
    server.wait_for("yard/phone", "waiting", SOON, |stream| stream["state"] == "idle");
    server.stop();
    let files = files(&folder.path().join("data/recordings/yard/phone"));
    let recorded: Vec<u32> = files.iter().flat_map(|file| counters(file)).collect();
    assert_contiguous(&recorded, "recorded");
    assert!(recorded.len() >= 240, "{}", recorded.len());
    files.iter().for_each(|file| drop(check(file)));
}

/// Lets another stack publish by a command, and looks at what has been recorded: H.264 and Opus, each picture once.
fn publishes(command: Command, folder: &Path, server: Server, name: &str) {
    let output = finish(command, Duration::from_secs(90));
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("No module named") || complaint.contains("has no WHIP muxer") {
        println!("SKIPPED: {name} is not installed; scripts/test does that");
        return;
    }
    assert!(output.status.success(), "{name}: {complaint}");
    let stream = server.stream("yard/phone");
    let codecs: Vec<&str> =
        stream["tracks"].as_array().unwrap().iter().map(|t| t["codec"].as_str().unwrap()).collect();
    assert_eq!(codecs, ["h264", "opus"], "{stream}");
    wait_until("the session's end", SOON, || publishers(&server).is_empty());
    server.stop();
    let files = files(&folder.join("data/recordings/yard/phone"));
    let recorded: Vec<u32> = files.iter().flat_map(|file| counters(file)).collect();
    assert!(recorded.len() > 100, "{recorded:?}");
    assert_contiguous(&recorded, name);
}

fn script(python: &Path, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("players").join(name)).args(arguments);
    command
}

/// Another stack than ours and the browsers'.
#[test]
fn aiortc_publishes() {
    let Some(python) = tool("python") else { return };
    let (folder, server, _camera) = with("");
    publishes(script(&python, "whip.py", &[&whip(&server), "8"]), folder.path(), server, "aiortc");
}

/// It wants to be the one that is connected to (`a=setup:passive`), and has an unusual key.
#[test]
fn ffmpeg_publishes() {
    let Some(python) = tool("python") else { return };
    let (folder, server, _camera) = with("");
    publishes(script(&python, "ffmpeg_whip.py", &[&whip(&server), "8"]), folder.path(), server, "ffmpeg");
}

/// Its certificates have RSA keys, and its sections go along with the first one (`a=bundle-only`).
#[test]
fn webrtcbin_publishes() {
    let (folder, server, _camera) = by(Server::reachable, "");
    let Some(command) = webrtcbin(&["whip", &whip(&server), "8"]) else { return };
    publishes(command, folder.path(), server, "webrtcbin");
}

/// One after the other, one instead of the other, and none who only says that it will come.
#[test]
fn publishers_take_turns() {
    let (_folder, server, _camera) = with("[webrtc]\nsession_timeout = \"5s\"\n");
    let pictures = pictures(&server, 50);
    let mut first = Publisher::connect(&whip(&server));
    first.until("a connection", SOON, |p| p.connected);
    first.send(&pictures);
    let frames = |server: &Server| server.stream("yard/phone")["frames"].as_u64().unwrap_or(0);
    wait_until("frames", SOON, || frames(&server) >= 40);
    // Somebody who does not connect takes nothing away.
    let offer = Publisher::offer(RtcConfig::new(), Direction::SendOnly);
    assert_eq!(post(&whip(&server), &offer, &[]).status, 201);
    first.until("the end of who never came", SOON, |_| publishers(&server).len() == 1);
    assert!(!first.closed);
    let mut second = Publisher::connect(&whip(&server));
    second.until("a connection", SOON, |p| p.connected);
    first.until("the first one's end", SOON, |p| p.closed);
    let before = frames(&server);
    second.send(&pictures);
    wait_until("frames of the second", SOON, || frames(&server) >= before + 40);
    // Browsers would send no keyframe by themselves.
    let mut still: Vec<Received> = pictures.iter().filter(|p| !p.is_idr()).cloned().collect();
    still.extend(still.clone());
    still.extend(still.clone());
    second.send(&still);
    assert!(second.asked > 0);
    let session = publishers(&server)[0]["id"].as_u64().unwrap();
    assert!(server.call("DELETE", &format!("/api/sessions/{session}"), None).0 < 300);
    second.until("goodbye", SOON, |p| p.closed);
    server.wait_for("yard/phone", "waiting", SOON, |stream| stream["state"] == "idle");
    server.stop();
}

#[test]
fn what_is_wrong_is_said() {
    let users = "[auth]\nusers = [{ name = \"ann\", password = \"secret\", read = [\"*\"], publish = [\"yard/*\"] }, \
         { name = \"bob\", password = \"secret\", read = [\"*\"] }]\n";
    let (_folder, server, _camera) = with(&format!("{users}{OPEN_API}"));
    let url = whip(&server);
    let ann = [("authorization", "Bearer ann:secret")];
    let offer = Publisher::offer(RtcConfig::new(), Direction::SendOnly);
    assert_eq!(post(&url, &offer, &[]).status, 401);
    assert_eq!(post(&url, &offer, &[("authorization", "Bearer bob:secret")]).status, 403);
    for (offer, path, status, code) in [
        ("rubbish", "/webrtc/yard/phone/whip", 400, "invalid_offer"),
        (
            Publisher::offer(RtcConfig::new(), Direction::RecvOnly).as_str(),
            "/webrtc/yard/phone/whip",
            400,
            "invalid_offer",
        ),
        (
            offer.replace("a=rtpmap:", "a=rtpmap:1").as_str(),
            "/webrtc/yard/phone/whip",
            406,
            "no_common_codec",
        ),
        (&offer, "/webrtc/yard/nobody/whip", 404, "stream_not_found"),
    ] {
        let answer = post(&server.url(path), offer, &ann);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path} {}", answer.text());
    }
    // Both ways is as good as one: nothing is sent back.
    let both = post(&url, &Publisher::offer(RtcConfig::new(), Direction::SendRecv), &ann);
    assert_eq!(both.status, 201, "{}", both.text());
    assert!(both.text().contains("a=recvonly") && !both.text().contains("a=sendrecv"), "{}", both.text());
    server.stop();
}

/// What is said to be H.264 and is none becomes no picture, and harms nobody: neither who watches something else, nor who
/// publishes the same stream afterwards.
#[test]
fn a_publisher_that_sends_something_else_is_nobody_s_concern() {
    let (_folder, server, _camera) = with("");
    let pictures = pictures(&server, 100);
    let mut random = fastrand::Rng::with_seed(3);
    let rubbish: Vec<Received> = (0..100)
        .map(|number| {
            // Types of NAL units that there are, are not, and are for packets alone.
            let head = [0, 0, 0, 1, [0x65, 0x7f, 0x9d, 0x18, 0x1c, 0x67][number % 6]];
            let data: Vec<u8> =
                head.into_iter().chain(std::iter::repeat_with(|| random.u8(..)).take(3000)).collect();
            Received { data: data.into(), ..pictures[0].clone() }
        })
        .collect();
    let mut watching = Client::connect(&server.url("/webrtc/cam/whep"));
    watching.until("pictures", SOON, |c| c.video.len() >= 25);
    let mut publisher = Publisher::connect(&whip(&server));
    publisher.until("a connection", SOON, |p| p.connected);
    publisher.send(&rubbish);
    let before = watching.video.len();
    watching.until("pictures all the same", SOON, |c| c.video.len() >= before + 25);
    let mut other = Publisher::connect(&whip(&server));
    other.until("a connection", SOON, |p| p.connected);
    let frames = server.stream("yard/phone")["frames"].as_u64().unwrap_or(0);
    other.send(&pictures);
    server.wait_for("yard/phone", "frames", SOON, |stream| stream["frames"].as_u64() > Some(frames + 80));
    server.stop();
}

/// A stream with a source of its own is nobody's to publish; with a pattern, streams come into being.
#[test]
fn streams_have_one_source() {
    let (_folder, server, _camera) = with("[[streams]]\nid = \"phones/*\"\nsource_url = \"publisher\"\n");
    let offer = Publisher::offer(RtcConfig::new(), Direction::SendOnly);
    let answer = post(&server.url("/webrtc/cam/whip"), &offer, &[]);
    assert_eq!((answer.status, answer.code().as_str()), (409, "has_source"), "{}", answer.text());
    let pictures = pictures(&server, 30);
    let mut publisher = Publisher::connect(&server.url("/webrtc/phones/a/whip"));
    publisher.until("a connection", SOON, |p| p.connected);
    publisher.send(&pictures);
    wait_until("frames", SOON, || server.stream("phones/a")["frames"].as_u64() > Some(20));
    server.stop();
}

/// Chromium publishes pictures with a counter and a tone; they are seen, heard and recorded.
#[test]
fn a_browser_publishes() {
    if let Some(reason) = missing() {
        println!("SKIPPED: {reason}");
        return;
    }
    let (folder, server, _camera) = with("");
    let publishing = Playing::start("whip", &whip(&server), 30);
    wait_until("frames", Duration::from_secs(60), || {
        server.stream("yard/phone")["frames"].as_u64() > Some(300)
    });
    let mut client = Client::connect(&server.url("/webrtc/yard/phone/whep"));
    client.until("pictures and sound", SOON, |c| c.video.len() >= 100 && c.sound.len() >= 100);
    let seen = client.counters();
    // A browser may leave out pictures if it has no time for them; it does not turn them round.
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "{seen:?}");
    let tracks = server.stream("yard/phone")["tracks"].to_string();
    assert!(tracks.contains("h264") && tracks.contains("opus"), "{tracks}");
    let played = publishing.finish();
    assert!(played.errors().is_empty(), "{played:?}");
    let statistics = &played.end["details"]["statistics"];
    assert!(statistics["framesSent"].as_u64() > Some(300), "{statistics}");
    wait_until("the session's end", SOON, || publishers(&server).is_empty());
    server.stop();
    let files = files(&folder.path().join("data/recordings/yard/phone"));
    assert!(files.iter().map(|file| check(file).len()).sum::<usize>() > 300);
    let recorded: Vec<u32> = files.iter().flat_map(|file| counters(file)).collect();
    assert!(recorded.windows(2).all(|pair| pair[0] <= pair[1]), "{recorded:?}");
    assert!(recorded.len() > 250, "{}", recorded.len());
}

/// How many of these counters follow on each other, if those are left out that do not.
fn in_order(counters: &[u32]) -> usize {
    let mut longest: Vec<usize> = Vec::new();
    for (index, counter) in counters.iter().enumerate() {
        let follows = (0..index).filter(|i| counters[*i] <= *counter && counter - counters[*i] < 25);
        let before = follows.map(|i| longest[i]).max().unwrap_or(0);
        longest.push(before + 1);
    }
    longest.into_iter().max().unwrap_or(0)
}

/// The number that a Gray code stands for.
fn from_gray(code: u32) -> u32 {
    (0..u32::BITS).fold(0, |number, shift| number ^ (code >> shift))
}

/// What one browser sends by a codec, the others show as it is.
fn shown_by_browsers(codec: &str) {
    if let Some(reason) = missing() {
        println!("SKIPPED: {reason}");
        return;
    }
    let (_folder, server, _camera) = by(Server::reachable, "");
    let publishing = Playing::start(&format!("whip-{codec}"), &whip(&server), 600);
    wait_until("frames", Duration::from_secs(60), || {
        server.stream("yard/phone")["frames"].as_u64() > Some(50)
    });
    assert_eq!(server.stream("yard/phone")["tracks"][0]["codec"], codec);
    for browser in ["chromium", "firefox"] {
        if let Some(reason) = firefox_missing().filter(|_| browser == "firefox") {
            println!("SKIPPED: {reason}");
            continue;
        }
        let playing = Playing::start_in(browser, "whep", &server.url("/webrtc/yard/phone/whep"), 600);
        wait_until(browser, Duration::from_secs(90), || playing.so_far().shown.len() >= 60);
        let played = playing.so_far();
        assert!(played.errors().is_empty(), "{browser}: {played:?}");
        let live: Vec<u32> = played.shown.iter().skip(15).map(|shown| from_gray(shown.counter)).collect();
        // At a low rate, a block is now and then not as black or white as it was.
        assert!(in_order(&live) * 10 >= live.len() * 8, "{browser}: {live:?}");
    }
    assert!(publishing.so_far().errors().is_empty());
    drop(publishing);
    server.stop();
}

#[test]
fn browsers_show_vp8() {
    shown_by_browsers("vp8");
}

#[test]
fn browsers_show_vp9() {
    shown_by_browsers("vp9");
}

#[test]
fn browsers_show_av1() {
    shown_by_browsers("av1");
}

/// The page, with the browser's own test picture as a camera.
#[test]
fn the_page_publishes() {
    if let Some(reason) = missing() {
        println!("SKIPPED: {reason}");
        return;
    }
    let (_folder, server, _camera) = with("");
    let publishing = Playing::start("publish", &server.url("/webrtc/yard/phone/publish"), 15);
    wait_until("frames", Duration::from_secs(60), || {
        server.stream("yard/phone")["frames"].as_u64() > Some(100)
    });
    assert_eq!(publishers(&server).len(), 1);
    let played = publishing.finish();
    assert_eq!(played.end["details"]["state"], "publishing", "{played:?}");
    server.wait_for("yard/phone", "waiting", SOON, |stream| stream["state"] == "idle");
    server.stop();
}
