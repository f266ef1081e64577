//! The page, as people use it: flows in a headless Chromium, its types, and what it weighs.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use stream_manager_core::frame::WallTime;
use stream_manager_core::storage::index::{Catalog, Change, Mark};
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::player::{missing, modules};
use stream_manager_tests::program::{Server, finish, signal, stream_manager, tool, wait};
use stream_manager_tests::{assets, free_port, wait_until};

const LIMIT: Duration = Duration::from_secs(40);
const BALL: &str = "[[streams]]\nid = \"ball\"\nsource_url = \"test://ball?width=320&height=180&gop=25\"\nrecording = { enabled = true }\n";

fn flows() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("page/flows.mjs")
}

/// A flow in a browser.
struct Flow {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Flow {
    /// None where there is no browser.
    fn start(name: &str, url: &str) -> Option<Self> {
        if let Some(reason) = missing() {
            println!("SKIPPED: {reason}");
            return None;
        }
        let mut command = Command::new("node");
        command.arg(flows()).args([name, url]).arg(modules().unwrap());
        // To be looked at: a folder for pictures.
        command.args(std::env::var_os("PAGE_PICTURES"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self { child, lines })
    }

    /// What it says next.
    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("the flow has more to say").unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        assert!(said["done"] != true, "it has ended before: {said}");
        said
    }

    /// It waits for this.
    fn waits_for(&mut self, what: &str) {
        assert_eq!(self.next(), json!({ "wait": what }));
    }

    fn go_on(&mut self) {
        self.tell("");
    }

    /// A line for it.
    fn tell(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Nothing was wrong.
    fn end(mut self) {
        let line = self.lines.next().expect("the flow ends").unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said, json!({"done": true, "errors": []}), "{}", said["errors"]);
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(&self.child, "TERM");
            let _ = self.child.wait();
        }
    }
}

#[test]
fn types_are_right() {
    let Some(modules) = modules().filter(|folder| folder.join("node_modules/typescript").is_dir()) else {
        println!("SKIPPED: typescript is not installed; scripts/test does that");
        return;
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../stream-manager-core/src/api/page/app.js");
    let output = Command::new(modules.join("node_modules/.bin/tsc"))
        .args([
            "--ignoreConfig",
            "--noEmit",
            "--allowJs",
            "--checkJs",
            "--strict",
            "--noUnusedLocals",
            "--target",
            "es2023",
        ])
        .args([
            "--module",
            "es2022",
            "--moduleResolution",
            "bundler",
            "--lib",
            "es2023,dom,dom.iterable",
            "--types",
            "",
        ])
        .arg(page)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_wall() {
    let port = free_port();
    let config = format!("{BALL}[[streams]]\nid = \"dead\"\nsource_url = \"rtsp://127.0.0.1:{port}/x\"\n");
    let (_folder, server) = Server::alone(&config);
    let Some(mut flow) = Flow::start("wall", &server.url("/")) else { return };
    for size in ["desktop", "phone", "4k"] {
        let said = flow.next();
        assert_eq!((&said["size"], &said["tiles"]), (&json!(size), &json!(["ball", "dead"])));
        assert!(said["bytes"].as_u64().unwrap() < 200_000, "{said}");
        println!("{said}");
        let said = flow.next();
        assert!(said["dead"].as_str().unwrap().contains("cannot connect"), "{said}");
        assert_eq!(said["light"], "recording");
    }
    assert_eq!(flow.next(), json!({"moved": ["dead", "ball"], "kept": ["dead", "ball"]}));
    assert_eq!(flow.next(), json!({"left": "dead", "right": "ball"}));
    assert_eq!(flow.next(), json!({"searched": ["dead"]}));
    assert_eq!(flow.next(), json!({"one": ["dead"], "pager": "1 of 2"}));
    assert_eq!(flow.next(), json!({"next": ["ball"]}));
    assert_eq!(flow.next(), json!({"before": ["dead"]}));
    flow.end();
    // Viewers have gone with their pages.
    wait_until("nobody watches", LIMIT, || server.sessions("webrtc").is_empty());
    server.stop();
}

#[test]
fn one_stream() {
    let (_folder, server) = Server::alone(BALL);
    let Some(mut flow) = Flow::start("stream", &server.url("/")) else { return };
    let recording = |wanted: &str| {
        server.wait_for("ball", wanted, LIMIT, |s| s["recording"]["state"] == wanted);
    };
    flow.waits_for("paused");
    recording("paused");
    flow.go_on();
    flow.waits_for("resumed");
    recording("recording");
    flow.go_on();
    let said = flow.next();
    assert!(said["facts"].as_str().unwrap().contains("320 × 180"), "{said}");
    assert!(
        said["addresses"]
            .as_array()
            .unwrap()
            .contains(&json!(server.rtsp_url("ball").replace("127.0.0.1", server_name(&server)))),
        "{said}"
    );
    let events = said["events"].as_array().unwrap();
    assert!(events.contains(&json!("recording state")), "{said}");
    flow.waits_for("ended");
    flow.go_on();
    flow.end();
    server.stop();
}

/// The name by which the page asked.
fn server_name(server: &Server) -> &str {
    server.address().rsplit_once(':').unwrap().0
}

#[test]
fn somebody_who_may_see_two_cameras() {
    let config = format!(
        "{}[[auth.users]]\nname = \"root\"\npassword = \"of root\"\nrole = \"admin\"\n\
         [[auth.users]]\nname = \"vic\"\npassword = \"of vic\"\nrole = \"viewer\"\nstreams = [\"yard/*\"]\n",
        ["yard/a", "yard/b", "house"]
            .map(|id| format!("[[streams]]\nid = \"{id}\"\nsource_url = \"test://ball?width=320&height=180&gop=25\"\nrecording = {{ enabled = true }}\n"))
            .concat()
    );
    let (folder, mut server) = Server::alone(&config);
    server.log_in("root", "of root");
    let Some(mut flow) = Flow::start("signin", &server.url("/")) else { return };
    let said = flow.next();
    assert_eq!(said["tiles"], json!(["yard/a", "yard/b"]));
    assert!(said["who"].as_str().unwrap().starts_with("vic"), "{said}");
    assert_eq!(said["pages"], json!(["Live", "Recordings", "Seen"]));
    assert_eq!(
        flow.next(),
        json!({"buttons": ["Sound on", "Full screen", "Picture"]}),
        "what one may not do is not shown"
    );
    assert_eq!(flow.next(), json!({"foreign": 0}));
    flow.waits_for("take the user away");
    let without = config.split("[[auth.users]]\nname = \"vic\"").next().unwrap();
    std::fs::write(folder.path().join("config.toml"), without).unwrap();
    assert_eq!(server.call("POST", "/api/config/reload", None).0, 200);
    flow.go_on();
    assert_eq!(flow.next(), json!({"all": ["house", "yard/a", "yard/b"]}));
    flow.end();
    server.stop();
}

#[test]
fn the_first_user() {
    let (_folder, server) = Server::alone(BALL);
    // As a browser names it.
    let url = server.url("/").replace("127.0.0.1", "localhost");
    let Some(mut flow) = Flow::start("setup", &url) else { return };
    let said = flow.next();
    assert!(said["who"].as_str().unwrap().starts_with("ann"), "{said}");
    flow.end();
    server.stop();
}

#[test]
fn it_comes_back_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), BALL).unwrap();
    let port = free_port();
    let start = || {
        let mut command = stream_manager();
        command.args(["--port", &port.to_string()]).current_dir(folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("it listens", LIMIT, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    };
    let mut child = start();
    let flow = Flow::start("restart", &format!("http://localhost:{port}/"));
    if let Some(mut flow) = flow {
        flow.waits_for("kill the server");
        child.kill().unwrap();
        child.wait().unwrap();
        flow.go_on();
        flow.waits_for("start it again");
        child = start();
        flow.go_on();
        flow.end();
    }
    signal(&child, "TERM");
    wait(&mut child, LIMIT);
}

#[test]
fn a_camera_dies_while_it_is_watched() {
    let mut camera = Camera::start(Feed::h264());
    let config = format!("[[streams]]\nid = \"eye\"\nsource_url = \"{}\"\n", camera.url());
    let (_folder, server) = Server::alone(&config);
    let Some(mut flow) = Flow::start("camera", &server.url("/")) else { return };
    flow.waits_for("the camera dies");
    camera.kill();
    flow.go_on();
    let said = flow.next();
    assert_ne!(said["state"], "live");
    flow.waits_for("the camera is back");
    camera.revive();
    flow.go_on();
    flow.end();
    server.stop();
}

#[test]
fn five_hundred_streams() {
    let long = "x".repeat(60);
    let config: String =
        (0..500).map(|n| format!("[[streams]]\nid = \"{long}-{n}\"\nsource_url = \"publisher\"\n")).collect();
    let (_folder, server) = Server::alone(&config);
    let Some(mut flow) = Flow::start("many", &server.url("/")) else { return };
    println!("{}", flow.next());
    flow.end();
    server.stop();
}

const DAY_MS: i64 = 86_400_000;

/// Moves what was recorded to another time: the files' names are what counts, and the index is made from them.
fn move_recordings(recordings: &Path, by_ms: i64) {
    for file in std::fs::read_dir(recordings).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(stem) = name.strip_suffix(".mp4") else { continue };
        let (day, time) = stem.split_at(10);
        let Ok(begun) = format!("{day}{}", time.replace('-', ":")).parse::<WallTime>() else { continue };
        let moved = WallTime::from_unix_nanos(begun.as_unix_nanos() + by_ms * 1_000_000).to_string();
        std::fs::rename(&file, file.with_file_name(format!("{}.mp4", moved.replace(':', "-")))).unwrap();
    }
}

fn spans(server: &Server, id: &str) -> Vec<(i64, i64)> {
    let (_, timeline) = server.call("GET", &format!("/api/streams/{id}/timeline?resolution=500ms"), None);
    let number = |value: &Value| value.as_i64().unwrap();
    let spans = timeline["spans"].as_array().unwrap().iter();
    spans.map(|span| (number(&span["start"]), number(&span["end"]))).collect()
}

#[test]
fn yesterdays_event() {
    let stream = |id: &str| {
        format!(
            "[[streams]]\nid = \"{id}\"\nsource_url = \"test://ball?width=320&height=180&gop=25\"\nrecording = {{ enabled = true, segment_duration = \"4s\" }}\n"
        )
    };
    let config = format!("{}{}", stream("door"), stream("yard"));
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(&config));
    for id in ["door", "yard"] {
        wait_until("some is recorded", LIMIT, || {
            spans(&server, id).first().is_some_and(|(start, end)| end - start > 12_000)
        });
    }
    server.stop();
    // In the middle of the day, so that there is room on the timeline on both sides at whatever time this runs.
    let now = WallTime::now().as_unix_nanos() / 1_000_000;
    let yesterday_at_ten = (now / DAY_MS - 1) * DAY_MS + DAY_MS * 10 / 24;
    for id in ["door", "yard"] {
        move_recordings(&folder.path().join("data/recordings").join(id), yesterday_at_ten - now);
    }
    let server = Server::start(folder.path(), Some(&config));
    wait_until("yesterday is known", LIMIT, || {
        let now = WallTime::now().as_unix_nanos() / 1_000_000;
        ["door", "yard"].iter().all(|id| {
            spans(&server, id).first().is_some_and(|(_, end)| now - end > DAY_MS / 2)
                && spans(&server, id).len() > 1
        })
    });
    let yesterday = spans(&server, "door")[0];
    let at = WallTime::from_unix_nanos((yesterday.0 + 5000) * 1_000_000);
    let mark = json!({"kind": "parcel", "text": "left at the door", "time": at.to_string()});
    assert_eq!(server.call("POST", "/api/streams/door/marks", Some(&mark)).0, 201);
    let Some(mut flow) = Flow::start("recordings", &server.url("/")) else { return };
    let said = flow.next();
    assert!(said["found"].as_str().unwrap().contains("left at the door"), "{said}");
    assert_eq!(said["players"], json!(["door", "yard"]));
    assert!((said["at"].as_i64().unwrap() - (yesterday.0 + 5000) / 1000).abs() <= 1, "{said}");
    let said = flow.next();
    // 25 pictures a second.
    for key in ["step", "back"] {
        assert!((said[key].as_f64().unwrap() - 0.04).abs() < 0.005, "{said}");
    }
    for rate in [0.25, 1.0, 4.0] {
        let said = flow.next();
        assert_eq!((said["rate"].as_f64(), &said["rates"]), (Some(rate), &json!([true, true])));
        assert!(said["apart"].as_f64().unwrap() < 1.0, "{said}");
    }
    let said = flow.next();
    let today = spans(&server, "door")[1].0 / 1000;
    let over = said["over"].as_i64().unwrap();
    assert!((today..today + 60).contains(&over), "{said} {today}");
    let said = flow.next();
    assert!(said["hover"].as_str().unwrap().contains("parcel: left at the door"), "{said}");
    let said = flow.next();
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0"]);
    ffprobe.arg(said["exported"].as_str().unwrap());
    let output = finish(ffprobe, LIMIT);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>(),
        ["h264", "aac"]
    );
    let protected = || {
        let (_, timeline) = server.call("GET", "/api/streams/yard/timeline?resolution=1s", None);
        timeline["protected"].as_array().unwrap().len()
    };
    flow.waits_for("protected");
    assert_eq!(protected(), 1);
    flow.go_on();
    flow.waits_for("nothing is deleted");
    assert_eq!((protected(), spans(&server, "door")[0]), (0, yesterday));
    flow.go_on();
    flow.waits_for("deleted");
    let left = spans(&server, "door");
    assert!(left.is_empty() || left[0].0 > yesterday.1, "{left:?} {yesterday:?}");
    assert!(!spans(&server, "yard").is_empty(), "the other one is as it was");
    flow.go_on();
    let said = flow.next();
    let now = WallTime::now().as_unix_nanos() / 1_000_000_000;
    assert!((said["wrongClock"].as_i64().unwrap() - now).abs() < 600, "{said} {now}");
    let said = flow.next();
    assert_eq!(said["hours"], json!([23, 25, 24]));
    assert_eq!(said["spring"], json!(["Sun 29 Mar", "01:00", "03:00", "04:00"]));
    assert_eq!(said["autumn"], json!(["Sun 25 Oct", "01:00", "02:00", "02:00", "03:00"]));
    assert_eq!(said["twice"], json!(["Sun 25 Oct 2026, 02:30:00 CEST", "Sun 25 Oct 2026, 02:30:00 CET"]));
    assert_eq!(said["beirut"], "2026-03-28T22:00:00.000Z");
    flow.end();
    server.stop();
}

#[test]
fn a_week_with_many_marks() {
    const MARKS: i64 = 50_000;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(BALL));
    server.wait_for("ball", "recording", LIMIT, |s| s["recording"]["state"] == "recording");
    server.stop();
    let now = WallTime::now().as_unix_nanos();
    let week = 7 * DAY_MS * 1_000_000;
    let mark = |number: i64| Mark {
        time: WallTime::from_unix_nanos(now - week + number * (week / MARKS)),
        kind: ["person", "car", "note"][usize::try_from(number % 3).unwrap()].into(),
        text: format!("number {number}"),
        data: Value::Null,
    };
    let mut catalog = Catalog::open(&folder.path().join("data")).unwrap();
    let changes: Vec<Change> = (0..MARKS).map(|number| Change::Mark("ball".into(), mark(number))).collect();
    catalog.apply(&changes).unwrap();
    drop(catalog);
    let server = Server::start(folder.path(), Some(BALL));
    let count = |resolution: &str| {
        let begun = std::time::Instant::now();
        let (status, timeline) =
            server.call("GET", &format!("/api/streams/ball/timeline?resolution={resolution}"), None);
        assert_eq!(status, 200, "{timeline}");
        let marks = timeline["marks"].as_array().unwrap();
        println!("{} marks at {resolution} in {:?}", marks.len(), begun.elapsed());
        (marks.len(), marks.iter().map(|mark| mark["count"].as_i64().unwrap()).sum::<i64>(), timeline)
    };
    // A pixel of a week: none is left out, and few are sent.
    let (few, all, timeline) = count("10m");
    assert_eq!((all, &timeline["next"]), (MARKS, &Value::Null));
    assert!(few < 3100, "{few}");
    // As they are they are too many for one answer, which says where the rest is.
    let (some, same, timeline) = count("0s");
    assert_eq!(i64::try_from(some).unwrap(), same);
    assert!((10_000..=20_000).contains(&some) && timeline["next"].is_i64(), "{some} {}", timeline["next"]);
    if let Some(mut flow) = Flow::start("week", &server.url("/")) {
        println!("{}", flow.next());
        flow.end();
    }
    server.stop();
}

#[test]
fn a_camera_is_added() {
    let (_sources, source) = Server::alone(BALL);
    source.wait_for("ball", "running", LIMIT, |s| s["state"] == "running");
    let (_folder, server) = Server::alone("");
    let camera = source.rtsp_url("ball");
    let settings = json!({"profiles": [
        {"token": "main", "source": "eye", "codec": "H264", "width": 320, "height": 180, "uri": camera},
    ]});
    let mut device = Command::new("python3")
        .args([
            &format!("{}/players/onvif_device.py", env!("CARGO_MANIFEST_DIR")),
            "127.0.0.1",
            &settings.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It says what it is asked, so somebody has to listen.
    let mut said_by_device = BufReader::new(device.stdout.take().unwrap()).lines();
    let port = said_by_device.next().unwrap().unwrap();
    if let Some(mut flow) = Flow::start("add", &server.url("/")) {
        flow.tell(&format!(
            "{camera} http://127.0.0.1:{port}/onvif/device_service rtsp://127.0.0.1:{}/x",
            free_port()
        ));
        let said = flow.next();
        assert!(said["problem"].as_str().unwrap().contains("connect"), "{said}");
        let said = flow.next();
        assert!(said["seen"].as_str().unwrap().contains("320 × 180"), "{said}");
        assert!(said["picture"].as_i64().unwrap() > 0, "{said}");
        assert_eq!(flow.next(), json!({"added": "yard/new"}));
        let config = &server.stream("yard%2Fnew")["config"];
        assert_eq!(config["recording"]["retention"]["max_age"], "7days", "{config}");
        server.wait_for("yard%2Fnew", "recording", LIMIT, |s| s["recording"]["state"] == "recording");
        let said = flow.next();
        assert!(said["refused"].as_str().unwrap().contains("yard/new"), "{said}");
        let said = flow.next();
        assert!(said["found"][0].as_str().unwrap().contains("h264 320 × 180"), "{said}");
        let said = flow.next();
        assert!(said["chosen"].as_str().unwrap().ends_with("/ball"), "{said}");
        let said = flow.next();
        let results = said["results"].as_array().unwrap();
        assert_eq!((results.len(), &results[1]), (4, &json!("many/1")), "{said}");
        assert!(results[2].as_str().unwrap().starts_with("yard/new: "), "{said}");
        flow.waits_for("removed");
        assert_eq!(server.call("GET", "/api/streams/yard%2Fnew", None).0, 404);
        flow.go_on();
        flow.end();
    }
    signal(&device, "TERM");
    let _ = device.wait();
    drop(said_by_device);
    server.stop();
    source.stop();
}

#[test]
fn settings_are_checked_before_they_are_applied() {
    let (_folder, mut server) = Server::alone(&format!(
        "{BALL}[[auth.users]]\nname = \"root\"\npassword = \"of root\"\nrole = \"admin\"\n"
    ));
    server.log_in("root", "of root");
    let Some(mut flow) = Flow::start("settings", &server.url("/")) else { return };
    let said = flow.next();
    let tabs = ["Storage", "Users", "Configuration", "Backups", "Log", "Health", "Models"];
    assert_eq!(said["tabs"], json!(tabs));
    assert_eq!(flow.next(), json!({"inView": [true, true]}));
    assert_eq!(flow.next(), json!({"applyAtFirst": true}));
    assert_eq!(flow.next(), json!({"applyWrong": true}));
    assert_eq!(flow.next(), json!({"applyAfterAnotherKey": true}));
    flow.waits_for("applied");
    let (_, config) = server.call("GET", "/api/config", None);
    assert_eq!(config["storage"]["min_free"], "1%");
    flow.go_on();
    let said = flow.next();
    assert!(said["user"].as_str().unwrap().contains("of yard/*"), "{said}");
    let said = flow.next();
    assert!(said["token"].as_str().unwrap().len() > 20, "{said}");
    let said = flow.next();
    assert!(std::fs::metadata(said["backup"].as_str().unwrap()).unwrap().len() > 1000);
    flow.end();
    server.stop();
}

#[test]
fn what_is_seen_is_drawn() {
    let Some(assets) = assets() else {
        println!("SKIPPED: the assets are not there");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // As cameras send it: browsers take no B frames by WebRTC, and get what has some in another way.
    let clip = folder.path().join("persons.mp4");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-t", "21", "-i"]).arg(assets.join("one-by-one-person-detection.mp4"));
    ffmpeg.args(["-an", "-c:v", "libx264", "-preset", "veryfast", "-g", "10", "-bf", "0"]).arg(&clip);
    assert!(finish(ffmpeg, LIMIT).status.success());
    let config = format!(
        "[[inference.models]]\nname = \"yolox\"\npath = \"{0}/yolox_nano.onnx\"\nkind = \"detector\"\nlabels = \"{0}/coco_classes.txt\"\n\
         [[streams]]\nid = \"persons\"\nsource_url = \"file://{1}?loop=true\"\nrecording = {{ enabled = true }}\ninference = {{ enabled = true, model = \"yolox\" }}\n\
         [[streams]]\nid = \"others\"\nsource_url = \"file://{0}/one-by-one-person-detection.mp4?loop=true\"\ninference = {{ enabled = true, model = \"yolox\" }}\n",
        assets.display(),
        clip.display(),
    );
    let (_home, server) = Server::alone(&config);
    wait_until("the model is there, or cannot be", LIMIT, || {
        let state = server.call("GET", "/api/models/yolox", None).1["state"].clone();
        state == "ready" || state == "failed"
    });
    let (_, model) = server.call("GET", "/api/models/yolox", None);
    if model["state"] != "ready" {
        println!("SKIPPED: {}", model["reason"]);
        return;
    }
    let Some(mut flow) = Flow::start("seen", &server.url("/")) else { return };
    let said = flow.next();
    assert_eq!(said["painted"], true);
    assert!(said["words"].as_str().unwrap().contains("person"), "{said}");
    assert!(said["by"].as_str() == Some("rtp") && said["age"].as_f64().unwrap() < 1.0, "{said}");
    // What the code says, somebody else's program reads.
    let said = flow.next();
    if let Some(python) = tool("python") {
        let rows: Vec<&str> =
            said["modules"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
        let script = "import sys, cv2, numpy as np\n\
                      rows = sys.argv[1].split(',')\n\
                      a = np.array([[0 if c == '1' else 255 for c in row] for row in rows], dtype=np.uint8)\n\
                      a = np.kron(np.pad(a, 4, constant_values=255), np.ones((8, 8), dtype=np.uint8))\n\
                      print(cv2.QRCodeDetector().detectAndDecode(a)[0])\n";
        let mut command = Command::new(python);
        command.args(["-c", script, &rows.join(",")]);
        let output = finish(command, LIMIT);
        assert_eq!(json!(String::from_utf8_lossy(&output.stdout).trim()), said["address"]);
    } else {
        println!("SKIPPED: nothing here reads QR codes");
    }
    assert_eq!(flow.next(), json!({"by": "pts", "way": "mse"}));
    let said = flow.next();
    assert!(said["happened"].as_str().unwrap().contains("person"), "{said}");
    let said = flow.next();
    assert!(said["clip"].as_f64().unwrap() > 3.0, "{said}");
    assert!(said["facts"].as_str().unwrap().contains("persons"), "{said}");
    flow.end();
    server.stop();
    drop(folder);
}

#[test]
fn zones_are_drawn_over_the_picture() {
    let gate =
        "[[streams]]\nid = \"gate\"\nsource_url = \"test://ball?gop=10&audio=false\"\n[streams.inference]\n";
    let door = "zones = [{ name = \"door\", points = [[0, 0], [0.5, 0], [0.5, 1]] }]\n";
    let (folder, server) = Server::alone(&format!("{gate}{door}"));
    let stream = json!({"id": "yard", "source_url": "test://ball?gop=10&audio=false"});
    assert_eq!(server.call("POST", "/api/streams", Some(&stream)).0, 201);
    let before = server.wait_for("yard", "it runs", LIMIT, |s| s["state"] == "running")["since"].clone();
    let config =
        |id: &str| server.call("GET", &format!("/api/streams/{id}/inference"), None).1["config"].clone();
    let inference = || config("yard");
    let Some(mut flow) = Flow::start("zones", &server.url("/")) else { return };
    let said = flow.next();
    assert!(said["refused"].as_str().unwrap().contains("loitering_after"), "{said}");
    assert!(inference()["zones"].is_null(), "nothing of it holds: {}", inference());
    flow.next();
    let drawn = inference();
    let zone = &drawn["zones"][0];
    assert_eq!((&zone["name"], &zone["classes"]), (&json!("door"), &json!(["person", "dog"])), "{drawn}");
    assert_eq!(zone["loitering_after"], "30s", "{drawn}");
    let points: Vec<[f64; 2]> = serde_json::from_value(zone["points"].clone()).unwrap();
    assert!((points[0][0] - 0.1).abs() < 0.02 && (points[0][1] - 0.2).abs() < 0.02, "{points:?}");
    assert_eq!((points.len(), points[2]), (5, [1.0, 0.5]), "{points:?}");
    assert_eq!(drawn["lines"][0]["direction"], "forward", "{drawn}");
    assert_eq!(drawn["masks"].as_array().map(Vec::len), Some(1), "{drawn}");
    // What the page has written for the file means what was drawn.
    let lines = flow.next()["lines"].as_str().unwrap().to_owned();
    flow.end();
    let before_it = config("gate");
    std::fs::write(folder.path().join("config.toml"), format!("{gate}{lines}")).unwrap();
    assert_eq!(server.call("POST", "/api/config/reload", None).0, 200, "{lines}");
    let after = config("gate");
    assert_eq!(after["zones"], before_it["zones"], "{lines}");
    let line = &after["lines"][0];
    assert_eq!((&line["name"], &line["classes"]), (&json!("way in"), &json!(["person", "dog"])));
    assert_eq!(line["points"], json!([[0.5, 0.8], [0.5, 0.2]]));
    assert_eq!(inference()["masks"].as_array().map(Vec::len), Some(0), "{}", inference());
    assert_eq!(server.stream("yard")["since"], before, "the stream goes on");
    server.stop();
}

#[test]
fn a_slow_network() {
    let (_folder, server) = Server::alone(BALL);
    let Some(mut flow) = Flow::start("slow", &server.url("/")) else { return };
    assert_eq!(flow.next(), json!({"busy": "Pause recording"}));
    flow.end();
    server.stop();
}
