//! Streams made of streams: in another size, rate and codec, once for all who watch, while somebody does.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::http::get;
use stream_manager_tests::media::{counters, describe, reading_rtsp};
use stream_manager_tests::program::{Server, finish};
use stream_manager_tests::whep::Client;

const SOON: Duration = Duration::from_secs(40);

fn start(camera: &Camera) -> (tempfile::TempDir, Server) {
    let config = format!(
        "[defaults]\nclose_after = \"1s\"\nretry_initial = \"200ms\"\n[[streams]]\nid = \"cam\"\nsource_url = \"{}\"\n\
         [[streams.transcode]]\nname = \"small\"\nheight = 120\nfps = 10\nbitrate_kbps = 200\n\
         [[streams.transcode]]\nname = \"vp8\"\ncodec = \"vp8\"\n",
        camera.url()
    );
    let (folder, server) = Server::alone(&config);
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > Some(50));
    (folder, server)
}

fn rests(server: &Server, id: &str) {
    server.wait_for(id, "rest", SOON, |s| s["state"] == "idle");
}

fn copied(server: &Server, id: &str, seconds: &str, file: &Path) -> Value {
    let mut command = Command::new("ffmpeg");
    command.args(reading_rtsp(&server.rtsp_url(id))).args(["-t", seconds]);
    command.args(["-c", "copy"]).arg(file);
    let output = finish(command, Duration::from_secs(60));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    describe(file)["streams"].clone()
}

#[test]
fn a_smaller_one_is_made_while_somebody_watches() {
    let camera = Camera::start(Feed::with_audio(false));
    let (folder, server) = start(&camera);
    assert_eq!(server.stream("cam")["renditions"], json!(["cam/small", "cam/vp8"]));
    let small = server.stream("cam/small");
    assert_eq!(
        (&small["state"], &small["origin"], &small["frames"]),
        (&json!("idle"), &json!("derived"), &json!(0))
    );
    // Who wants none costs nothing.
    assert_eq!(server.stream("cam")["consumers"], json!([]));
    let files: Vec<_> = (0..2).map(|n| folder.path().join(format!("{n}.mkv"))).collect();
    std::thread::scope(|scope| {
        for file in &files {
            scope.spawn(|| {
                let streams = copied(&server, "cam/small", "4", file);
                assert_eq!(
                    (&streams[0]["codec_name"], &streams[0]["width"], &streams[0]["height"]),
                    (&json!("h264"), &json!(192), &json!(120))
                );
                assert_eq!(streams[1]["codec_name"], "aac");
            });
        }
        server.wait_for("cam/small", "frames", SOON, |s| {
            s["state"] == "running" && s["frames"].as_u64() > Some(10)
        });
        // Made once.
        let consumers = server.stream("cam")["consumers"].as_array().unwrap().len();
        assert_eq!(consumers, 1, "{}", server.stream("cam")["consumers"]);
    });
    for file in &files {
        let numbers = counters(file);
        // Ten of twenty-five.
        assert!((30..=55).contains(&numbers.len()), "{numbers:?}");
        assert!(numbers.windows(2).all(|w| w[0] < w[1] && w[1] - w[0] <= 4), "{numbers:?}");
    }
    rests(&server, "cam/small");
    assert_eq!(server.stream("cam")["consumers"], json!([]));
    // By all other ways, too.
    let playlist = get(&server.url("/hls/cam/small/index.m3u8"));
    assert_eq!(
        (playlist.status, playlist.text().contains("RESOLUTION=192x120")),
        (200, true),
        "{}",
        playlist.text()
    );
    let mut client = Client::connect(&server.url("/webrtc/cam/small/whep"));
    client.until("pictures", SOON, |c| c.video.len() >= 20);
    client.leave();
    let streams = copied(&server, "cam/vp8", "2", &folder.path().join("vp8.mkv"));
    assert_eq!((&streams[0]["codec_name"], &streams[0]["width"]), (&json!("vp8"), &json!(384)));
    server.stop();
}

#[test]
fn it_goes_on_with_what_it_is_made_of() {
    let mut camera = Camera::start(Feed::h264());
    let (_folder, server) = start(&camera);
    let mut client = Client::connect(&server.url("/webrtc/cam/small/whep"));
    client.until("pictures", SOON, |c| c.video.len() >= 20);
    camera.kill();
    server.wait_for("cam", "lost", SOON, |s| s["state"] != "running");
    camera.revive();
    let seen = client.video.len();
    client.until("pictures again", SOON, |c| c.video.len() >= seen + 20);
    server.stop();
}

#[test]
fn ids_are_taken_once() {
    let camera = Camera::start(Feed::h264());
    let (_folder, server) = start(&camera);
    let create = |body: Value| {
        let (status, answer) = server.call("POST", "/api/streams", Some(&body));
        (status, answer["pointer"].as_str().unwrap_or_default().to_owned())
    };
    let test = |id: &str| json!({"id": id, "source_url": "test://ball"});
    assert_eq!(create(test("cam/small")).0, 409);
    assert_eq!(create(test("other/small")).0, 201);
    let with = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"id": "other", "source_url": "test://ball", "transcode": all})
    };
    assert_eq!(create(with(&["small"])), (422, "/transcode".into()));
    let sub = json!([{"name": "small", "source_url": "test://ball"}]);
    let with_sub = json!({"id": "other", "source_url": "test://ball", "variants": sub});
    assert_eq!(create(with_sub), (422, "/variants".into()));
    assert_eq!(create(with(&["a/b"])), (422, "/transcode".into()));
    assert_eq!(create(with(&["a", "a"])), (422, "/transcode".into()));
    assert_eq!(
        create(json!({"id": "x", "source_url": "test://ball", "transcode": [{"name": "a", "height": 1}]})).0,
        422
    );
    assert_eq!(create(with(&["a"])).0, 201);
    assert_eq!(server.call("DELETE", "/api/streams/other/a", None).0, 409);
    assert_eq!(server.call("PATCH", "/api/streams/other/a", Some(&json!({"enabled": false}))).0, 409);
    // It ends with what it is made of.
    assert_eq!(server.call("DELETE", "/api/streams/other", None).0, 204);
    assert_eq!(server.call("GET", "/api/streams/other/a", None).0, 404);
    let config = "[[streams]]\nid = \"a\"\nsource_url = \"test://ball\"\n[[streams.transcode]]\nname = \"b\"\n\
                  [[streams]]\nid = \"a/b\"\nsource_url = \"test://ball\"\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), config).unwrap();
    let (code, said) = stream_manager_tests::program::run(&["check", "--config", "c.toml"], folder.path());
    assert!(code == 2 && said.contains("what is made of another stream by transcode"), "{said}");
    server.stop();
}
