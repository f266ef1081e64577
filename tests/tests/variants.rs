//! One camera in several qualities: recorder, viewers and analysis each take the one that they want.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use stream_manager_tests::camera::{Auth, Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, check, counters, describe, files};
use stream_manager_tests::program::{Server, run};
use stream_manager_tests::{assets, free_port};

const SOON: Duration = Duration::from_secs(30);

/// A camera of which somebody has to know the password, with pictures of this size.
fn camera(width: u32, height: u32) -> Camera {
    let feed = Feed::custom(format!(
        "( videotestsrc is-live=true pattern=black ! videoscale ! video/x-raw,format=I420,width={width},height={height},\
         framerate=25/1 ! identity name=stamp ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=300 \
         ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
    ));
    Camera::with_auth(feed, Auth { user: "viewer".into(), password: "geheim".into(), digest: true })
}

/// Without user and password.
fn open(camera: &Camera) -> String {
    camera.url().replace("viewer:geheim@", "")
}

fn width(path: &Path) -> u64 {
    describe(path)["streams"][0]["width"].as_u64().unwrap()
}

#[test]
fn recorder_and_viewers_choose() {
    let (main, sub) = (camera(768, 480), camera(384, 240));
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[[streams]]\nid = \"yard/cam\"\nsource_url = \"{}\"\nuser = \"viewer\"\npassword = \"geheim\"\nclose_after = \"2s\"\n\
         [streams.recording]\nvariant = \"sub\"\n\
         [[streams.variants]]\nname = \"sub\"\nsource_url = \"{}\"\n",
        open(&main),
        open(&sub)
    );
    let server = Server::start(folder.path(), Some(&config));
    let frames = |s: &Value| s["frames"].as_u64() > Some(25);
    let shown = server.wait_for("yard/cam", "frames", SOON, frames);
    // Shown as one stream; nobody reads the other one yet.
    assert_eq!(shown["renditions"], json!(["yard/cam/sub"]));
    assert_eq!(server.call("GET", "/api/streams", None).1["items"].as_array().unwrap().len(), 1);
    let state = || server.stream("yard/cam/sub")["state"].clone();
    assert_eq!((state(), sub.counter()), (json!("idle"), 0));
    // Viewers have both.
    for (id, wide) in [("yard/cam", 768), ("yard/cam/sub", 384)] {
        let (code, said) =
            run(&["record", &server.rtsp_url(id), "-o", "seen.mp4", "--duration", "2s", "-y"], folder.path());
        assert_eq!(code, 0, "{said}");
        let path = folder.path().join("seen.mp4");
        assert_eq!(width(&path), wide);
        assert_contiguous(&counters(&path), id);
    }
    server.wait_for("yard/cam/sub", "idle again", SOON, |s| s["state"] == "idle");
    let master = || {
        ureq::get(server.url("/hls/yard/cam/index.m3u8")).call().unwrap().body_mut().read_to_string().unwrap()
    };
    stream_manager_tests::wait_until("both qualities", SOON, || {
        let master = master();
        master.contains("RESOLUTION=768x480") && master.contains("RESOLUTION=384x240")
    });
    // The recorder has the smaller one, for as long as it records.
    assert_eq!(server.call("POST", "/api/streams/yard/cam/recording/start", None).0, 200);
    server.wait_for("yard/cam", "recorded", SOON, |s| s["recording"]["frames"].as_u64() > Some(75));
    assert_eq!(state(), "running");
    assert_eq!(server.call("POST", "/api/streams/yard/cam/recording/stop", None).0, 200);
    server.wait_for("yard/cam/sub", "idle again", SOON * 3, |s| s["state"] == "idle");
    // One that is gone is no reason for the other to be.
    drop(sub);
    let before = server.stream("yard/cam")["frames"].as_u64();
    server.wait_for("yard/cam", "more", SOON, |s| s["frames"].as_u64() > before.map(|n| n + 25));
    assert!(master().contains("RESOLUTION=768x480"));
    let all = server.stream("yard/cam").to_string() + &server.call("GET", "/api/config", None).1.to_string();
    let log = server.stop();
    assert!(!all.contains("geheim") && !log.contains("geheim"), "{log}");
    let recorded = files(&folder.path().join("data/recordings/yard/cam"));
    assert_eq!(recorded.len(), 1);
    check(&recorded[0]);
    assert_eq!(width(&recorded[0]), 384);
    assert_contiguous(&counters(&recorded[0]), "recorded");
}

#[test]
fn the_analysis_chooses_and_the_api_changes_it() {
    let main = camera(768, 480);
    let Some(folder) = assets() else {
        println!("SKIPPED: no real models here; STREAM_MANAGER_TEST_ASSETS names a folder with them");
        return;
    };
    let (here, model) =
        (tempfile::tempdir().unwrap(), folder.canonicalize().unwrap().join("yolox_nano.onnx"));
    let config = format!("[[inference.models]]\nname = \"yolox\"\npath = \"{}\"\n", model.display());
    let server = Server::start(here.path(), Some(&config));
    let body = json!({
        "id": "cam", "source_url": main.url(), "inference": {"enabled": true, "variant": "sub"},
        "variants": [{"name": "sub", "source_url": "test://smpte?width=320&height=240"}]
    });
    assert_eq!(server.call("POST", "/api/streams", Some(&body)).0, 201);
    server.wait_until("/api/streams/cam/inference", "the smaller one is seen", SOON * 2, |v| {
        v["last"]["width"] == 320
    });
    assert_eq!(server.stream("cam")["tracks"][0]["width"], 768);
    // What is shown can be sent back; what is no variant is said.
    let shown = server.stream("cam")["config"].clone();
    let patch = json!({"variants": shown["variants"], "inference": {"variant": "small"}});
    let (code, answer) = server.call("PATCH", "/api/streams/cam", Some(&patch));
    assert_eq!(code, 422, "{answer}");
    assert!(answer.to_string().contains("expected one of: sub"), "{answer}");
    let patch = json!({"variants": null, "inference": {"variant": null, "enabled": false}});
    assert_eq!(server.call("PATCH", "/api/streams/cam", Some(&patch)).0, 200);
    assert_eq!(server.call("GET", "/api/streams/cam/sub", None).0, 404);
    server.stop();
}

#[test]
fn what_makes_no_sense_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let stream = "[[streams]]\nid = \"cam\"\nsource_url = \"test://smpte\"\n";
    let variant =
        |name: &str, url: &str| format!("[[streams.variants]]\nname = \"{name}\"\nsource_url = \"{url}\"\n");
    let good = variant("sub", "test://ball");
    for (config, words) in [
        (format!("{stream}{good}{good}"), "the name \"sub\" is taken"),
        (format!("{stream}{}", variant("a/b", "test://ball")), "expected one part of an id"),
        (format!("{stream}{}", variant("sub", "publisher")), "has no other qualities"),
        (format!("{stream}{}", variant("sub", "rtsp://")), "no host"),
        (format!("{stream}{good}[[streams.transcode]]\nname = \"sub\"\n"), "the name \"sub\" is taken"),
        (
            format!("{stream}{good}[[streams]]\nid = \"cam/sub\"\nsource_url = \"test://ball\"\n"),
            "is the id of what is made of another stream by transcode, variants or inference.annotated; expected another one",
        ),
        (format!("{stream}[streams.recording]\nvariant = \"sub\"\n"), "expected one of: none"),
        (
            format!("{stream}[streams.inference]\nvariant = \"sub\"\nsource_url = \"test://ball\"\n{good}"),
            "beside inference.source_url",
        ),
    ] {
        std::fs::write(folder.path().join("config.toml"), &config).unwrap();
        let (code, said) = run(&["check"], folder.path());
        assert!(code != 0 && said.contains(words), "{config}: {said}");
    }
    // What reaches into this machine is not for the API.
    std::fs::remove_file(folder.path().join("config.toml")).unwrap();
    let rtsp = format!("127.0.0.1:{}", free_port());
    let server = Server::start_with(folder.path(), None, |command| {
        command.env("STREAM_MANAGER_RTSP__LISTEN", &rtsp);
    });
    let body = json!({"id": "cam", "source_url": "test://smpte",
        "variants": [{"name": "sub", "source_url": format!("rtsp://{rtsp}/cam/sub")}]});
    let (code, answer) = server.call("POST", "/api/streams", Some(&body));
    assert!(code == 422 && answer.to_string().contains("leads back to itself"), "{answer}");
    let body = json!({"id": "cam", "source_url": "test://smpte",
        "variants": [{"name": "sub", "source_url": "exec:true"}]});
    let (code, answer) = server.call("POST", "/api/streams", Some(&body));
    assert_eq!(code, 422, "{answer}");
    assert!(answer.to_string().contains("\"/variants\""), "{answer}");
    server.stop();
}
