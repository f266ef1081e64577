//! Browsers play: hls.js, Shaka Player, dash.js, Media Source Extensions over a WebSocket, and the browser by itself. The
//! pictures that they show are looked at.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::player::{Played, Playing, missing};
use stream_manager_tests::program::Server;
use stream_manager_tests::wait_until;

fn is_missing() -> bool {
    let missing = missing();
    if let Some(why) = &missing {
        println!("SKIPPED: {why}");
    }
    missing.is_some()
}

fn server(camera: &Camera, more: &str) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[[streams]]\nid = \"yard/cam\"\nsource_url = \"{}\"\n{more}", camera.url());
    let server = Server::start(folder.path(), Some(&config));
    let running = |stream: &serde_json::Value| stream["state"] == "running";
    server.wait_for("yard/cam", "running", Duration::from_secs(20), running);
    (folder, server)
}

fn address(server: &Server, player: &str) -> String {
    match player {
        "dashjs" | "shaka-dash" => server.url("/dash/yard/cam/manifest.mpd"),
        "websocket" => server.url("/api/streams/yard/cam/live.mp4").replacen("http", "ws", 1),
        "video" => server.url("/api/streams/yard/cam/live.mp4"),
        _ => server.url("/hls/yard/cam/index.m3u8"),
    }
}

fn start(server: &Server, player: &str, seconds: u64) -> Playing {
    Playing::start(player.split('-').next().unwrap(), &address(server, player), seconds)
}

/// One camera, one packager; each player in turn.
#[test]
fn every_player_shows_every_frame() {
    if is_missing() {
        return;
    }
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, server) = server(&camera, "");
    for (player, protocol) in [
        ("hlsjs", "hls"),
        ("shaka", "hls"),
        ("dashjs", "dash"),
        ("shaka-dash", "dash"),
        ("websocket", "ws-fmp4"),
        ("video", "fmp4"),
    ] {
        let playing = start(&server, player, 40);
        let counted = |stream: &serde_json::Value| stream["readers"][protocol].as_u64() >= Some(1);
        server.wait_for("yard/cam", player, Duration::from_secs(15), counted);
        wait_until(player, Duration::from_secs(35), || playing.so_far().shown.len() >= 100);
        let played = playing.so_far();
        assert_eq!(played.errors(), Vec::<String>::new(), "{player}");
        played.assert_whole(25.0, 100);
    }
    let log = server.stop();
    assert!(!log.contains("panicked"), "{log}");
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as f64
}

fn newest(playing: &Playing) -> u32 {
    playing.so_far().shown.last().map_or(0, |shown| shown.counter)
}

/// The camera dies and comes back, and then sends another size of picture; the player is not touched.
fn survives(player: &str) -> Played {
    let mut camera = Camera::start(Feed::h264());
    let (_folder, server) = server(&camera, "retry_initial = \"500ms\"\nsilence_timeout = \"2s\"\n");
    // Longer than all that is waited for below.
    let playing = start(&server, player, 180);
    wait_until("the first pictures", Duration::from_secs(40), || playing.so_far().shown.len() > 10);
    camera.kill();
    std::thread::sleep(Duration::from_secs(2));
    let before = camera.counter();
    camera.revive();
    wait_until("pictures after the reconnect", Duration::from_secs(25), || newest(&playing) > before + 25);
    camera.resize(192, 120);
    let resized = || playing.so_far().shown.iter().rev().take(3).all(|shown| shown.width == 192);
    wait_until("pictures of the other size", Duration::from_secs(20), resized);
    drop(server);
    playing.so_far()
}

#[test]
fn hls_js_goes_on_after_a_reconnect_and_another_size() {
    if !is_missing() {
        let played = survives("hlsjs");
        // Nothing is shown twice, and nothing before its turn.
        assert!(played.shown.windows(2).all(|pair| pair[0].counter < pair[1].counter));
    }
}

#[test]
fn dash_js_goes_on_after_a_reconnect_and_another_size() {
    if !is_missing() {
        let played = survives("dashjs");
        // It seeks over the gap, by which the browser shows the last picture again, or, when it is busy, one a few before.
        let back = played.shown.windows(2).find(|pair| pair[0].counter > pair[1].counter + 4);
        assert_eq!(back, None);
    }
}

#[test]
fn a_websocket_player_goes_on_after_a_reconnect_and_another_size() {
    if !is_missing() {
        survives("websocket");
    }
}

/// A player goes on while a slate stands in for the camera, and with the camera again.
#[test]
fn hls_js_goes_on_over_a_fallback() {
    if is_missing() {
        return;
    }
    let mut camera = Camera::start(Feed::with_audio(false));
    let more = "retry_initial = \"500ms\"\nsilence_timeout = \"2s\"\n\
                [streams.fallback]\nslate = \"no signal\"\ntimeout = \"1s\"\nreturn_after = \"1s\"\n";
    let (_folder, server) = server(&camera, more);
    let playing = start(&server, "hlsjs", 180);
    wait_until("the first pictures", Duration::from_secs(40), || playing.so_far().shown.len() > 10);
    camera.kill();
    let before = camera.counter();
    // Black reads as the number 0.
    let black = || playing.so_far().shown.iter().rev().take(10).all(|shown| shown.counter == 0);
    wait_until("the slate", Duration::from_secs(40), black);
    camera.revive();
    wait_until("the camera again", Duration::from_secs(40), || newest(&playing) > before + 25);
    // Where the one ends and the other begins there may be a hole of a moment.
    let errors = playing.so_far().errors();
    assert!(errors.iter().all(|error| error.contains("bufferSeekOverHole")), "{errors:?}");
    server.stop();
}

/// Cameras with B frames, with a picture a second, with ten seconds between keyframes.
#[test]
fn odd_cameras_play() {
    if is_missing() {
        return;
    }
    let feed = |fps: u32, encoder: &str| {
        Feed::custom(format!(
            "( videotestsrc is-live=true pattern=black ! videoscale ! \
             video/x-raw,format=I420,width=384,height=240,framerate={fps}/1 ! identity name=stamp ! \
             x264enc speed-preset=ultrafast bitrate=300 {encoder} ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
        ))
    };
    for (what, fps, encoder, least) in [
        ("B frames", 25, "bframes=2 b-adapt=false rc-lookahead=0 key-int-max=25", 40),
        ("a picture a second", 1, "tune=zerolatency key-int-max=2", 3),
        ("GOPs of ten seconds", 25, "tune=zerolatency key-int-max=250", 40),
    ] {
        let camera = Camera::start(feed(fps, encoder));
        let (_folder, server) = server(&camera, "");
        for player in ["hlsjs", "dashjs", "websocket"] {
            let playing = start(&server, player, 25);
            wait_until(what, Duration::from_secs(22), || playing.so_far().shown.len() > least);
            let played = playing.so_far();
            println!("{what}, {player}: {} pictures", played.shown.len());
            played.assert_whole(f64::from(fps), least);
        }
        server.stop();
    }
}

/// From ten seconds ago into the present.
#[test]
fn a_window_over_recordings_plays() {
    if is_missing() {
        return;
    }
    let camera = Camera::start(Feed::with_audio(true));
    let recording = "[streams.recording]\nenabled = true\nsegment_duration = \"5s\"\n";
    let (_folder, server) = server(&camera, recording);
    let began = now_ms() / 1000.0;
    std::thread::sleep(Duration::from_secs(12));
    let now = camera.counter();
    let url = format!("{}?start={}", server.url("/hls/yard/cam/index.m3u8"), began as u64);
    let playing = Playing::start("hlsjs", &url, 20);
    wait_until("pictures of the past", Duration::from_secs(15), || playing.so_far().shown.len() > 25);
    let played = playing.finish();
    assert_eq!(played.errors(), Vec::<String>::new());
    played.assert_whole(25.0, 100);
    let (first, last) = (played.shown[0].counter, played.shown.last().unwrap().counter);
    assert!(first + 100 < now, "it begins with frame {first}; {now} was live");
    assert!(last > first + 250, "it stops at {last}");
    server.stop();
}

/// Whenever a player is the first, somewhere within a long GOP: it shows a picture soon, and complains of nothing.
#[test]
fn the_first_player_begins_within_a_long_gop() {
    if is_missing() {
        return;
    }
    let camera = Camera::start(Feed::custom(
        "( videotestsrc is-live=true pattern=black ! videoscale ! video/x-raw,format=I420,width=384,height=240,\
         framerate=25/1 ! identity name=stamp ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=75 \
         bitrate=300 ! rtph264pay name=pay0 pt=96 config-interval=-1 audiotestsrc is-live=true ! \
         audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 )",
    ));
    // Each is packaged by itself, so each player is the first.
    let ids: Vec<String> = (0..6).map(|n| format!("cam-{n}")).collect();
    let more: String = ids
        .iter()
        .map(|id| format!("[[streams]]\nid = \"{id}\"\nsource_url = \"{}\"\n", camera.url()))
        .collect();
    let (_folder, server) = server(&camera, &more);
    for id in &ids {
        let running = |stream: &serde_json::Value| stream["frames"].as_u64() > Some(150);
        server.wait_for(id, "running", Duration::from_secs(30), running);
    }
    for (number, id) in ids.iter().enumerate() {
        let player = if number == 5 { "shaka" } else { "hlsjs" };
        let playing = Playing::start(player, &server.url(&format!("/hls/{id}/index.m3u8")), 120);
        let played = playing.wait_until(id, Duration::from_secs(60), |played| played.shown.len() > 50);
        assert_eq!(played.errors(), Vec::<String>::new(), "{id}");
        println!("{id}: first picture after {:.0} ms", played.shown[0].at - played.begin);
    }
    server.stop();
}
