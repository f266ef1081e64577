//! What objects do, on real videos whose truth was counted by eye, and end to end: followed, told of, recorded, looked for.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use stream_manager_core::event::EventKind;
use stream_manager_core::inference::{AnalysisSettings, CascadeConfig, MockBackend, ModelKind, ModelSpec};
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::source::from_url;
use stream_manager_tests::broker::Broker;
use stream_manager_tests::media::reading_rtsp;
use stream_manager_tests::program::{Server, finish, material, stream_manager};
use stream_manager_tests::webhook::{Request, endpoint};
use stream_manager_tests::{http, wait_until};

const LIMIT: Duration = Duration::from_secs(240);

fn events(folder: &Path, video: &Path, more: &[&str]) -> Vec<Value> {
    let mut command = stream_manager();
    command.arg("detect").arg(video).args(["--json", "--events"]).args(more);
    command.arg("--model").arg(folder.join("yolox_nano.onnx"));
    command.arg("--labels").arg(folder.join("coco_classes.txt"));
    let output = finish(command, LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Seconds of a clock that begins at 1970.
fn secs(time: &Value) -> f64 {
    let time: stream_manager_core::frame::WallTime = time.as_str().unwrap().parse().unwrap();
    time.as_unix_nanos() as f64 / 1e9
}

/// First and last seen, in order.
fn passages(events: &[Value], label: &str) -> Vec<(f64, f64)> {
    let ended = events.iter().filter(|e| e["kind"] == "object" && e["phase"] == "end" && e["label"] == label);
    let mut all: Vec<(f64, f64)> = ended.map(|e| (secs(&e["begin"]), secs(&e["last"]))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let begun = events.iter().filter(|e| e["phase"] == "begin" && e["label"] == label).count();
    assert_eq!(begun, all.len(), "what has begun ends");
    all
}

fn assert_passages(found: &[(f64, f64)], truth: &[(f64, f64)], within: f64) {
    assert_eq!(found.len(), truth.len(), "{found:?}");
    for (found, truth) in found.iter().zip(truth) {
        assert!(
            (found.0 - truth.0).abs() <= within && (found.1 - truth.1).abs() <= within,
            "{found:?} is not {truth:?}"
        );
    }
}

/// Counted by eye: six people come one after the other from below, stand at the table, and go to the right. When the
/// shoulders of each have come into the picture, and when nothing is left of them but a leg.
const PEOPLE: [(f64, f64); 6] =
    [(6.4, 19.5), (23.0, 44.5), (50.6, 69.0), (74.8, 86.0), (92.6, 119.0), (123.8, 136.0)];

#[test]
fn six_people_pass_one_by_one_and_leave_to_the_right() {
    let Some(folder) = material() else { return };
    let video = folder.join("one-by-one-person-detection.mp4");
    let events =
        events(&folder, &video, &["--classes", "person", "--every", "2", "--line", "exit=0.72,1,0.72,0"]);
    assert_passages(&passages(&events, "person"), &PEOPLE, 1.5);
    let crossings: Vec<&Value> = events.iter().filter(|e| e["action"] == "crossed").collect();
    assert_eq!(crossings.len(), 6, "{crossings:?}");
    for (crossing, (_, gone)) in crossings.iter().zip(PEOPLE) {
        assert_eq!((&crossing["line"], &crossing["direction"]), (&json!("exit"), &json!("forward")));
        let at = secs(&crossing["frame_time"]);
        assert!(at < gone + 1.0 && at > gone - 3.0, "{crossing}");
    }
    // Each is one, and no other's.
    let mut tracks: Vec<u64> = crossings.iter().map(|c| c["track"].as_u64().unwrap()).collect();
    tracks.dedup();
    assert_eq!(tracks.len(), 6);
}

/// Counted by eye: three stand there; the left one is taken and put back, it and the middle one are taken, both are put back in turn, the
/// right one is taken and put back. The picture ends at 39.8 s.
const BOTTLES: [(f64, f64); 7] =
    [(0.0, 7.0), (0.0, 17.6), (0.0, 31.8), (11.5, 17.6), (22.3, 39.8), (27.5, 39.8), (35.4, 39.8)];

#[test]
fn seven_times_a_bottle_is_put_there() {
    let Some(folder) = material() else { return };
    let zone = "place=0,0,1,0,1,1,0,1";
    let events = events(
        &folder,
        &folder.join("bottle-detection.mp4"),
        &["--classes", "bottle", "--every", "6", "--zone", zone],
    );
    let mut found = passages(&events, "bottle");
    found[..3].sort_by(|a, b| a.1.total_cmp(&b.1));
    assert_passages(&found, &BOTTLES, 1.0);
    let entered = events.iter().filter(|e| e["action"] == "entered").count();
    assert_eq!(entered, 7);
}

/// The first 21 seconds, in which one person passes.
fn one_passage(folder: &Path, target: &Path) -> PathBuf {
    let clip = target.join("passage.mp4");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-t", "21", "-i"]).arg(folder.join("one-by-one-person-detection.mp4"));
    ffmpeg.args(["-an", "-c:v", "libx264", "-preset", "veryfast", "-g", "10", "-bf", "0"]).arg(&clip);
    assert!(finish(ffmpeg, LIMIT).status.success());
    clip
}

struct Rig {
    broker: Option<Broker>,
    _folder: tempfile::TempDir,
    _camera: Server,
    config: String,
    hooked: Receiver<(u16, Request)>,
}

/// A camera that shows one passage, and what a server is told to do with it.
fn rig(folder: &Path) -> Rig {
    let target = tempfile::tempdir().unwrap();
    let clip = one_passage(folder, target.path());
    // It is shown once, and begins now.
    let (_camera_folder, camera) =
        Server::alone(&format!("[[streams]]\nid = \"door\"\nsource_url = \"file://{}\"\n", clip.display()));
    let (address, hooked) = endpoint(|_| 200);
    let broker = Broker::start(target.path(), None);
    let mqtt = broker.as_ref().map_or(String::new(), |broker| {
        format!(
            "[hooks.mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nusername = \"sm\"\npassword = \"geheim\"\ntopic = \"cams\"\n\
             kinds = [\"object\"]\nqos = 1\n",
            broker.port
        )
    });
    let config = format!(
        "{mqtt}[[hooks.webhooks]]\nname = \"w\"\nurl = \"http://{address}/x\"\nkinds = [\"object\", \"scene\"]\n\
         [[inference.models]]\nname = \"yolo\"\npath = \"{model}\"\nlabels = \"{labels}\"\nclasses = [\"person\"]\n\
         [[streams]]\nid = \"door\"\nsource_url = \"{url}\"\n\
         recording = {{ enabled = true, modes = [\"event\"], pre_roll = \"3s\", post_roll = \"2s\" }}\n\
         [streams.inference]\nenabled = true\nmax_fps = 5\n\
         [[streams.inference.zones]]\nname = \"table\"\npoints = [[0.4, 0.0], [0.8, 0.0], [0.8, 1.0], [0.4, 1.0]]\n",
        model = folder.join("yolox_nano.onnx").display(),
        labels = folder.join("coco_classes.txt").display(),
        url = camera.rtsp_url("door"),
    );
    Rig { broker, _folder: target, _camera: camera, config, hooked }
}

/// What the webhook has got of a kind of thing until now, as `begin` or `entered`.
fn told(hooked: &Receiver<(u16, Request)>, into: &mut Vec<Value>) -> Vec<String> {
    into.extend(hooked.try_iter().map(|(_, request)| request.json()));
    let word =
        |event: &Value| event.get("phase").or(event.get("action")).unwrap().as_str().unwrap().to_owned();
    into.iter().map(word).filter(|word| word != "update").collect()
}

#[test]
fn a_passage_is_recorded_told_of_and_found() {
    let Some(folder) = material() else { return };
    let rig = rig(&folder);
    let mut published = rig.broker.as_ref().map(Broker::subscribe);
    let (home, server) = Server::alone(&rig.config);
    let objects = |query: &str| {
        let (status, page) = server.call("GET", &format!("/api/objects{query}"), None);
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().clone()
    };
    let mut heard = Vec::new();
    wait_until("the person has gone", LIMIT, || told(&rig.hooked, &mut heard).contains(&"end".to_owned()));
    let metrics = http::get(&server.url("/metrics")).text();
    for metric in
        ["inference_pictures_total", "inference_tracked_objects", "inference_suppressed_events_total"]
    {
        assert!(
            metrics.contains(&format!("stream_manager_{metric}{{stream=\"door\"}} ")),
            "{metric}: {metrics}"
        );
    }
    assert!(metrics.contains("stream_manager_objects_lost_total 0"), "{metrics}");
    // Told once each, and in an order that makes sense.
    assert_eq!(told(&rig.hooked, &mut heard), ["entered", "begin", "left", "end"]);
    let ids: std::collections::BTreeSet<&str> =
        heard.iter().filter(|e| e["kind"] == "object").map(|e| e["object"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1, "{heard:?}");
    // A broker has been told the same, each once.
    if let Some((listening, heard)) = &mut published {
        let mut phases = Vec::new();
        while phases.last().is_none_or(|phase| phase != "end") {
            let (topic, text) = heard.recv_timeout(LIMIT).unwrap();
            let Ok(event) = serde_json::from_str::<Value>(&text) else { continue };
            if event["kind"] == "object" {
                assert!(topic.contains("door") && event["label"] == "person", "{topic} {text}");
                phases.push(event["phase"].as_str().unwrap().to_owned());
            }
        }
        phases.retain(|phase| phase != "update");
        assert_eq!(phases, ["begin", "end"]);
        let _ = (listening.kill(), listening.wait());
    }
    // Found by what it is and where it was, and by nothing else.
    wait_until("it is written", LIMIT, || objects("").first().is_some_and(|o| o["present"] == false));
    let all = objects("?label=person&zone=table&stream=d*&min_score=0.7");
    let [object] = &all[..] else { panic!("{all:?}") };
    for nothing in
        ["?label=dog", "?zone=yard", "?stream=yard", "?min_score=0.99", "?end=2020-01-01T00:00:00Z"]
    {
        assert!(objects(nothing).is_empty(), "{nothing}");
    }
    let length = object["duration_secs"].as_f64().unwrap();
    // 14 seconds; a slow machine gets round to the first pictures late.
    assert!((8.0..16.0).contains(&length), "{object}");
    let picture = http::get(&server.url(object["picture_url"].as_str().unwrap()));
    assert_eq!((picture.status, picture.header("content-type")), (200, "image/jpeg"));
    let file = home.path().join("person.jpg");
    std::fs::write(&file, &picture.body).unwrap();
    let seen = detected(&folder, &file, &[]);
    assert!(seen[0], "the picture shows somebody");
    // The clip has the passage, and what was before it and after it.
    wait_until("the recording is finished", LIMIT, || {
        server.stream("door")["recording"]["state"] == "waiting"
            || server.stream("door")["state"] != "running"
    });
    let clip = http::get(&server.url(object["clip_url"].as_str().unwrap()));
    assert_eq!(clip.status, 200, "{}", clip.text());
    let file = home.path().join("clip.mp4");
    std::fs::write(&file, &clip.body).unwrap();
    let seen = detected(&folder, &file, &["--every", "5"]);
    assert!(!seen[0] && !seen[1], "nobody is there yet: {seen:?}");
    assert!(!seen[seen.len() - 1], "and no longer: {seen:?}");
    assert!(seen.iter().filter(|seen| **seen).count() >= 22, "{seen:?}");
    // Only that was recorded.
    let (_, recordings) = server.call("GET", "/api/streams/door/recordings", None);
    let spans: Vec<&Value> =
        recordings["items"].as_array().unwrap().iter().filter(|i| i["kind"] == "span").collect();
    assert_eq!(spans.len(), 1, "{recordings}");
    let (_, marks) = server.call("GET", "/api/marks?kind=person", None);
    assert_eq!(marks["items"][0]["data"]["object"], object["object"], "{marks}");
    let (_, counts) = server.call("GET", "/api/counts?stream=door&place=table", None);
    let count = |action: &str| {
        let rows = counts["items"].as_array().unwrap().iter().filter(|row| row["action"] == action);
        rows.map(|row| row["count"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((count("entered"), count("left")), (1, 1), "{counts}");
    let (_, heat) = server.call("GET", "/api/heat?stream=door", None);
    let cells = |heat: &Value| -> Vec<u64> {
        heat["cells"].as_array().unwrap().iter().map(|c| c.as_u64().unwrap()).collect()
    };
    assert!(cells(&heat).iter().sum::<u64>() > 3, "{heat}");
    // The zone's cells are those whose middles it holds; the others are empty, whatever there was.
    let (_, in_zone) = server.call("GET", "/api/heat?stream=door&zone=table", None);
    let columns = heat["columns"].as_u64().unwrap() as usize;
    let within = |cell: usize| (0.4..0.8).contains(&(((cell % columns) as f64 + 0.5) / columns as f64));
    let expected: Vec<u64> =
        cells(&heat).iter().enumerate().map(|(cell, &count)| if within(cell) { count } else { 0 }).collect();
    assert_eq!(cells(&in_zone), expected, "{heat}");
    assert!(expected.iter().sum::<u64>() > 0, "{heat}");
    assert_eq!(server.call("GET", "/api/heat?stream=door&zone=none", None).0, 404);
    // Also beside the server.
    let mut command = stream_manager();
    command.args(["events", "search", "--zone", "table", "--data-dir"]).arg(home.path().join("data"));
    let output = finish(command, LIMIT);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("  door  person 0.") && text.contains(" in table") && text.lines().count() == 1,
        "{text}"
    );
    // It can be forgotten; what was recorded stays.
    let path = format!("/api/objects/{}", object["object"].as_str().unwrap());
    assert_eq!(server.call("DELETE", &path, None).0, 204);
    assert_eq!((server.call("GET", &path, None).0, server.call("DELETE", &path, None).0), (404, 404));
    assert!(objects("").is_empty());
    server.stop();
}

/// In which of a file's pictures somebody is.
fn detected(folder: &Path, file: &Path, more: &[&str]) -> Vec<bool> {
    let mut command = stream_manager();
    command.arg("detect").arg(file).args(["--json", "--classes", "person"]).args(more);
    command.arg("--model").arg(folder.join("yolox_nano.onnx"));
    command.arg("--labels").arg(folder.join("coco_classes.txt"));
    let output = finish(command, LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let is_seen = |line: &str| {
        !serde_json::from_str::<Value>(line).unwrap()["detections"].as_array().unwrap().is_empty()
    };
    text.lines().map(is_seen).collect()
}

#[test]
fn who_is_there_when_the_server_is_killed_has_left_when_it_is_back() {
    let Some(folder) = material() else { return };
    let rig = rig(&folder);
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), Some(&rig.config));
    let first = |server: &Server| server.call("GET", "/api/objects?order=oldest", None).1["items"][0].clone();
    wait_until("somebody is there", LIMIT, || first(&server)["present"] == true);
    let object = first(&server)["object"].clone();
    // Zones are changed, and the stream notices nothing of it.
    let before = server.stream("door")["since"].clone();
    let whole = json!({"zones": [{"name": "whole", "points": [[0, 0], [1, 0], [1, 1], [0, 1]]}]});
    assert_eq!(server.call("PATCH", "/api/streams/door/inference", Some(&whole)).0, 409, "it is the file's");
    let made = json!({"id": "x", "source_url": "publisher"});
    assert_eq!(server.call("POST", "/api/streams", Some(&made)).0, 201);
    let (status, changed) = server.call("PATCH", "/api/streams/x/inference", Some(&whole));
    assert_eq!((status, &changed["config"]["zones"][0]["name"]), (200, &json!("whole")), "{changed}");
    let bow = json!({"zones": [{"name": "bow", "points": [[0, 0], [1, 1], [1, 0], [0, 1]]}]});
    let (status, problem) = server.call("PATCH", "/api/streams/x/inference", Some(&bow));
    assert_eq!((status, &problem["pointer"]), (422, &json!("/zones")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("[0].points: it crosses itself"), "{problem}");
    let nested = json!({"zones": [["bow", [[0, 0], [1, 1], [1, 0]]]]});
    assert_eq!(server.call("PATCH", "/api/streams/x/inference", Some(&nested)).0, 422);
    assert_eq!(server.stream("door")["since"], before);
    server.kill();
    let server = Server::start(home.path(), Some(&rig.config));
    let found = first(&server);
    assert_eq!(
        (&found["object"], &found["phase"], &found["present"]),
        (&object, &json!("end"), &json!(false))
    );
    let mut heard = Vec::new();
    let deadline = Instant::now() + LIMIT;
    let ended = |heard: &[Value]| {
        let of_it = heard.iter().filter(|e| e["object"] == object && e["phase"] == "end");
        of_it.count()
    };
    while ended(&heard) == 0 {
        assert!(Instant::now() < deadline, "{heard:?}");
        heard.extend(rig.hooked.recv_timeout(Duration::from_secs(1)).ok().map(|(_, request)| request.json()));
    }
    assert_eq!(ended(&heard), 1);
    server.stop();
}

/// A digit on grey, three seconds and again and again.
fn digit_video(folder: &Path, target: &Path, digit: &str) -> String {
    let video = target.join(format!("{digit}.mp4"));
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", "color=gray:size=256x256:rate=10:duration=3", "-i"]);
    ffmpeg.arg(folder.join(format!("digit-{digit}.jpg")));
    ffmpeg.args([
        "-filter_complex",
        "[1]scale=128:128[d];[0][d]overlay=64:64",
        "-c:v",
        "libx264",
        "-g",
        "10",
    ]);
    ffmpeg.args(["-pix_fmt", "yuv420p"]).arg(&video);
    assert!(finish(ffmpeg, LIMIT).status.success());
    format!("file://{}?loop=true", video.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classifier_looks_at_each_object_once() {
    let Some(folder) = material() else { return };
    let target = tempfile::tempdir().unwrap();
    // It finds something where the digit is; what it is says the other one.
    let finder = MockBackend::detecting(64, 64, vec![[16.0, 16.0, 48.0, 48.0, 0.9, 0.0]]);
    let finding = ModelSpec::new("-").named("finder").backend("mock".parse().unwrap()).labels(["plate"]);
    let mut reading = ModelSpec::new(folder.join("mnist.onnx")).named("digits");
    reading.kind = Some(ModelKind::Classifier);
    let mut settings = AnalysisSettings { enabled: true, model: Some("finder".into()), ..Default::default() };
    settings.scene.cascade = vec![CascadeConfig { model: "digits".into(), ..CascadeConfig::default() }];
    let digits = ["3", "5", "7"];
    let mut builder =
        StreamManager::builder().backend("mock", finder.factory()).model(finding).model(reading);
    for digit in digits {
        let source = from_url(&digit_video(&folder, target.path(), digit)).unwrap();
        builder = builder.stream(Stream::builder(digit).boxed_source(source).analyse(settings.clone()));
    }
    let manager = builder.build().await.unwrap();
    let mut heard = manager.events().subscribe();
    let mut read = std::collections::BTreeMap::new();
    while read.len() < digits.len() {
        let event = tokio::time::timeout(LIMIT, heard.recv()).await.unwrap().unwrap();
        if let EventKind::Object(object) = &event.kind
            && let Some(attribute) = object.attributes.first()
        {
            assert_eq!((&*object.label, &*attribute.model), ("plate", "digits"));
            assert!(attribute.score > 0.9, "{attribute:?}");
            read.insert(event.stream.clone().unwrap().to_string(), attribute.label.to_string());
        }
    }
    assert!(read.iter().all(|(stream, label)| stream == label), "{read:?}");
    // Once for each object, however long it is there.
    let pictures = manager.models().get("digits").unwrap().status().stats.pictures;
    let tracks: u64 = digits
        .iter()
        .map(|d| manager.stream(d).unwrap().analysis().status().scene.unwrap().tracked as u64)
        .sum();
    assert!(pictures <= tracks.max(3) + 3, "{pictures} of {tracks}");
    manager.shutdown().await;
}

/// How many pixels of a picture by ffmpeg have the colour of the first track's box.
fn boxed(url: &str, more: &[&str]) -> Option<usize> {
    let mut ffmpeg = Command::new("timeout");
    ffmpeg.args(["30", "ffmpeg", "-v", "error"]).args(more).args(["-i", url]);
    ffmpeg.args(["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
    let output = finish(ffmpeg, LIMIT);
    (!output.stdout.is_empty()).then(|| {
        let is = |p: &&[u8]| p[0] > 200 && (60..130).contains(&p[1]) && p[2] < 110;
        output.stdout.chunks_exact(3).filter(is).count()
    })
}

/// The first so many of what server-sent events tell.
fn sent(url: &str, number: usize) -> Vec<Value> {
    let mut curl = Command::new("curl");
    curl.args(["-sN", "-m", "120", url]).stdout(Stdio::piped());
    let mut curl = curl.spawn().unwrap();
    let lines = BufReader::new(curl.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told: Vec<Value> = lines
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .take(number)
        .collect();
    curl.kill().unwrap();
    curl.wait().unwrap();
    assert_eq!(told.len(), number, "{told:?}");
    told
}

#[test]
fn what_is_seen_goes_with_the_picture_in_every_way() {
    let Some(folder) = material() else { return };
    let target = tempfile::tempdir().unwrap();
    let clip = one_passage(&folder, target.path());
    let config = format!(
        "[[inference.models]]\nname = \"yolo\"\npath = \"{model}\"\nlabels = \"{labels}\"\nclasses = [\"person\"]\n\
         [[streams]]\nid = \"door\"\nsource_url = \"file://{clip}?loop=true\"\nrecording = {{ enabled = true }}\n\
         inference = {{ enabled = true, metadata_track = true }}\n\
         [[streams]]\nid = \"yard\"\nsource_url = \"file://{clip}?loop=true\"\n",
        model = folder.join("yolox_nano.onnx").display(),
        labels = folder.join("coco_classes.txt").display(),
        clip = clip.display(),
    );
    let (_home, server) = Server::alone(&config);
    let state = |id: &str| server.stream(id)["state"].as_str().unwrap_or_default().to_owned();
    let somebody = || {
        let last = server.call("GET", "/api/streams/door/inference", None).1["last"].clone();
        last["detections"].as_array().is_some_and(|seen| seen.iter().any(|one| one["track"].is_u64()))
    };
    wait_until("somebody is seen", LIMIT, somebody);
    // By server-sent events: each analysed picture once, with its time.
    let told = sent(&server.url("/api/streams/door/detections"), 8);
    let times: Vec<f64> = told.iter().map(|seen| seen["pts_secs"].as_f64().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "{times:?}");
    // Nothing is drawn while nobody watches, and only in the stream that is for it.
    assert_eq!(
        (state("door/annotated"), server.call("GET", "/api/streams/yard/annotated", None).0),
        ("idle".into(), 404)
    );
    // Its id is taken, and nobody else's can become one.
    let stream = |id: &str, enabled: bool| json!({"id": id, "source_url": "publisher", "inference": {"enabled": enabled}});
    assert_eq!(server.call("POST", "/api/streams", Some(&stream("door/annotated", false))).0, 409);
    assert_eq!(server.call("POST", "/api/streams", Some(&stream("hall/annotated", false))).0, 201);
    let (status, problem) = server.call("POST", "/api/streams", Some(&stream("hall", true)));
    assert_eq!((status, &problem["pointer"]), (422, &json!("/inference/annotated")), "{problem}");
    let drawn = |url: &str, more: &[&str]| {
        wait_until(url, LIMIT, || boxed(url, more).is_some_and(|count| count > 600));
    };
    drawn(&server.rtsp_url("door/annotated"), &["-rtsp_transport", "tcp"]);
    drawn(&server.url("/hls/door/annotated/index.m3u8"), &[]);
    drawn(&server.url("/api/streams/door/annotated/live.mp4"), &[]);
    assert_eq!(state("door/annotated"), "running");
    wait_until("somebody is seen", LIMIT, somebody);
    let plain = boxed(&server.rtsp_url("door"), &["-rtsp_transport", "tcp"]).unwrap();
    assert!(plain < 200, "the stream itself stays as it is: {plain}");
    wait_until("nobody watches any more", LIMIT, || state("door/annotated") == "idle");
    // As ONVIF has it, by somebody else's program.
    let tracks = server.stream("door")["tracks"].clone();
    assert_eq!((&tracks[0]["codec"], &tracks[1]["codec"]), (&json!("h264"), &json!("onvif")), "{tracks}");
    let xml = target.path().join("metadata.xml");
    wait_until("a person in the metadata", LIMIT, || {
        let mut ffmpeg = Command::new("timeout");
        ffmpeg.args(["30", "ffmpeg"]).args(reading_rtsp(&server.rtsp_url("door")));
        ffmpeg.args(["-t", "3", "-map", "0:d", "-c", "copy", "-f", "data"]).arg(&xml);
        finish(ffmpeg, LIMIT);
        std::fs::read_to_string(&xml).is_ok_and(|text| text.contains(">Human</tt:Type>"))
    });
    let text = std::fs::read_to_string(&xml).unwrap();
    let document = text.split("<?xml").nth(1).unwrap();
    assert!(
        document.starts_with(" version=\"1.0\" encoding=\"UTF-8\"?><tt:MetadataStream ")
            && document.ends_with("</tt:MetadataStream>"),
        "{document}"
    );
    // The recording has the picture, and goes on.
    let recorded = server.stream("door")["recording"].clone();
    assert_eq!(recorded["state"], "recording", "{recorded}");
    server.stop();
}
