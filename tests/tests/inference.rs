//! What is seen: known answers, live streams, the API, and models that are none.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use stream_manager_core::detection::Region;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::media::{check, describe};
use stream_manager_tests::program::{Server, finish, material, stream_manager};

const LIMIT: Duration = Duration::from_secs(120);

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs the program to its end. Gives the exit code and all that it has said.
fn sm(arguments: &[&str]) -> (i32, String) {
    let mut command = stream_manager();
    command.args(arguments);
    let output = finish(command, LIMIT);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn yolox(folder: &Path) -> [String; 4] {
    let (model, labels) = (folder.join("yolox_nano.onnx"), folder.join("coco_classes.txt"));
    ["--model".into(), path(&model).into(), "--labels".into(), path(&labels).into()]
}

fn region(value: &Value) -> Region {
    let at = |i: usize| value[i].as_f64().unwrap() as f32;
    Region::new(at(0), at(1), at(2), at(3))
}

/// Whether these objects were seen: label, score, place; and nothing else of the label.
fn assert_seen(frame: &Value, label: &str, expected: &[(f64, [f32; 4])], iou: f32) {
    let found: Vec<&Value> =
        frame["detections"].as_array().unwrap().iter().filter(|d| d["label"] == label).collect();
    assert_eq!(found.len(), expected.len(), "{frame}");
    for (score, [x0, y0, x1, y1]) in expected {
        let wanted = Region::new(*x0, *y0, *x1, *y1);
        let best = found
            .iter()
            .max_by(|a, b| region(&a["box"]).iou(&wanted).total_cmp(&region(&b["box"]).iou(&wanted)));
        let best = best.unwrap();
        assert!(region(&best["box"]).iou(&wanted) >= iou, "{best} is not at {wanted:?}");
        assert!((best["score"].as_f64().unwrap() - score).abs() <= 0.03, "{best} has not {score}");
    }
}

fn at(frames: &[Value], secs: f64) -> &Value {
    let far = |f: &&Value| ((f["time"].as_f64().unwrap() - secs).abs() * 1e6) as u64;
    frames.iter().min_by_key(far).unwrap()
}

#[test]
fn known_objects_are_found_in_videos() {
    let Some(folder) = material() else { return };
    let people = folder.join("one-by-one-person-detection.mp4");
    let mut arguments = vec!["detect", path(&people), "--json", "--every", "10", "--limit", "26"];
    let model = yolox(&folder);
    arguments.extend(model.iter().map(String::as_str));
    let (code, text) = sm(&arguments);
    assert_eq!(code, 0, "{text}");
    let frames = lines(&text);
    assert_eq!(frames.len(), 26);
    assert_eq!((frames[3]["frame"].as_u64(), frames[3]["time"].as_f64()), (Some(30), Some(3.0)));
    assert_seen(at(&frames, 8.0), "person", &[(0.87, [373.0, 17.0, 524.0, 393.0])], 0.95);
    // Two boxes have nearly the same score here, and the reference has taken the other one.
    assert_seen(at(&frames, 15.0), "person", &[(0.86, [383.0, 19.0, 516.0, 389.0])], 0.93);
    assert_seen(at(&frames, 25.0), "person", &[(0.90, [387.0, 4.0, 548.0, 373.0])], 0.95);
    assert_seen(at(&frames, 3.0), "person", &[], 0.95);
    assert_seen(at(&frames, 22.0), "person", &[], 0.95);

    // With B frames, and another rate.
    let bottles = folder.join("bottle-detection.mp4");
    let picked = |every: &str| {
        let mut arguments = vec!["detect", path(&bottles), "--json", "--every", every, "--limit", "2"];
        arguments.extend(model.iter().map(String::as_str));
        let (code, text) = sm(&arguments);
        assert_eq!(code, 0, "{text}");
        lines(&text)
    };
    // At 29.83 a second: what is shown at 3 s, and at 22 s.
    let (frames, later) = (picked("89"), picked("656"));
    let three = [
        (0.93, [508.0, 106.0, 570.0, 317.0]),
        (0.93, [286.0, 109.0, 344.0, 315.0]),
        (0.91, [56.0, 109.0, 121.0, 313.0]),
    ];
    assert_seen(at(&frames, 3.0), "bottle", &three, 0.95);
    assert_seen(at(&later, 22.0), "bottle", &[(0.92, [509.0, 107.0, 569.0, 317.0])], 0.95);
}

/// Fifty frames through Python's ONNX Runtime, decoded by ffmpeg and scaled by OpenCV, as the model's authors do it.
#[test]
fn fifty_frames_are_as_python_sees_them() {
    let Some(folder) = material() else { return };
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let python = cache.join("stream-manager/tools/bin/python");
    let probe = Command::new(&python).args(["-c", "import onnxruntime, cv2"]).output();
    if !probe.is_ok_and(|o| o.status.success()) {
        println!("SKIPPED: no Python with onnxruntime and cv2 at {}", python.display());
        return;
    }
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("reference/yolox.py");
    let mut compared = (0, 0);
    for (name, every) in [("one-by-one-person-detection.mp4", 10), ("bottle-detection.mp4", 13)] {
        let video = folder.join(name);
        let mut command = Command::new(&python);
        command.arg(&script).args([path(&folder.join("yolox_nano.onnx")), path(&video)]);
        command.args([&every.to_string(), "25"]);
        let output = finish(command, LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = lines(&String::from_utf8_lossy(&output.stdout));
        let step = every.to_string();
        let mut arguments = vec!["detect", path(&video), "--json", "--every", &step, "--limit", "25"];
        // Their answers have all candidates from 0.3 on, so near the edge both are right. Below a half, a difference of
        // one step of 255 in the picture (they double colour before they scale it) is 0.03 of the score.
        let model = yolox(&folder);
        arguments.extend(model.iter().map(String::as_str));
        arguments.extend(["--threshold", "0.5"]);
        let (code, text) = sm(&arguments);
        assert_eq!(code, 0, "{text}");
        let ours = lines(&text);
        assert_eq!((ours.len(), theirs.len()), (25, 25));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours["frame"], theirs["frame"]);
            let candidates = theirs["candidates"].as_array().unwrap();
            let found = ours["detections"].as_array().unwrap();
            for object in found {
                // One of the reference's boxes before it drops those that overlap: near ties may go either way.
                let place = region(&object["box"]);
                let same = candidates.iter().any(|c| {
                    c["class"] == object["class"]
                        && region(&c["box"]).iou(&place) >= 0.95
                        && (c["score"].as_f64().unwrap() - object["score"].as_f64().unwrap()).abs() <= 0.03
                });
                assert!(same, "{name} {}: {object} is none of {candidates:?}", ours["frame"]);
                compared.0 += 1;
            }
            for object in theirs["detections"].as_array().unwrap() {
                // What they are sure of we see too: 0.05 above our threshold.
                if object["score"].as_f64().unwrap() < 0.55 {
                    continue;
                }
                let place = region(&object["box"]);
                let same = found
                    .iter()
                    .any(|f| f["class"] == object["class"] && region(&f["box"]).iou(&place) >= 0.8);
                assert!(same, "{name} {}: {object} is not in {found:?}", ours["frame"]);
                compared.1 += 1;
            }
        }
    }
    println!("{compared:?} objects compared");
    assert!(compared.0 > 50 && compared.1 > 50, "{compared:?}");
}

#[test]
fn digits_are_read() {
    let Some(folder) = material() else { return };
    let model = folder.join("mnist.onnx");
    for digit in ["0", "3", "5", "7"] {
        let image = folder.join(format!("digit-{digit}.jpg"));
        let (code, text) = sm(&["classify", path(&image), "--model", path(&model), "--json"]);
        assert_eq!(code, 0, "{text}");
        let best = &lines(&text)[0]["detections"][0];
        assert_eq!(best["label"], digit, "{text}");
        assert!(best["score"].as_f64().unwrap() > 0.9 && best.get("box").is_none(), "{best}");
    }
}

#[test]
fn what_was_seen_is_drawn() {
    let Some(folder) = material() else { return };
    let target = tempfile::tempdir().unwrap();
    let (video, image) = (target.path().join("out.mp4"), target.path().join("out.png"));
    let cars = folder.join("car-detection.mp4");
    let model = yolox(&folder);
    let with = |input: &Path, more: &[&str]| {
        let mut arguments = vec!["detect", path(input), "--json"];
        arguments.extend(more);
        arguments.extend(model.iter().map(String::as_str));
        sm(&arguments)
    };
    let (code, text) = with(&cars, &["-o", path(&video), "--every", "3", "--limit", "10"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(lines(&text).len(), 10);
    let packets = check(&video);
    assert!((28..=40).contains(&packets.len()), "{} pictures, also those between", packets.len());
    let info = describe(&video);
    let original = describe(&cars);
    assert_eq!(info["streams"][0]["codec_name"], "h264");
    let of = |v: &Value| {
        v["streams"].as_array().unwrap().iter().find(|s| s["codec_type"] == "video").unwrap()["width"].clone()
    };
    assert_eq!(of(&info), of(&original));

    let photo = target.path().join("photo.jpg");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-ss", "8", "-i", path(&folder.join("one-by-one-person-detection.mp4"))])
        .args(["-frames:v", "1", "-q:v", "2", path(&photo)])
        .status();
    assert!(made.unwrap().success());
    let (code, text) = with(&photo, &["-o", path(&image)]);
    assert_eq!(code, 0, "{text}");
    let seen = &lines(&text)[0];
    assert_seen(seen, "person", &[(0.87, [373.0, 17.0, 524.0, 393.0])], 0.9);
    // The box's left edge is drawn in its class's colour.
    let drawn = stream_manager_core::inference::Picture::from_image(&std::fs::read(&image).unwrap()).unwrap();
    let rgb = drawn.to_rgb().unwrap();
    let (x, y) = (seen["detections"][0]["box"][0].as_f64().unwrap().round() as usize, 200);
    assert_eq!(rgb[(y * 768 + x) * 3..][..3], [0, 220, 90]);
    let (code, text) = with(&photo, &["-o", path(&target.path().join("out.gif"))]);
    assert!(code == 4 && text.contains(".jpg or .png"), "{code} {text}");
}

#[test]
fn models_are_looked_at_and_timed() {
    let Some(folder) = material() else { return };
    let model = folder.join("yolox_nano.onnx");
    let (code, text) = sm(&["models", "inspect", path(&model), "--json"]);
    assert_eq!(code, 0, "{text}");
    let found = &lines(&text)[0];
    assert_eq!((&found["layout"], &found["kind"]), (&json!("yolox"), &json!("detector")));
    assert_eq!(found["inputs"], json!([{"name": "images", "type": "f32", "shape": [1, 3, 416, 416]}]));
    assert_eq!(found["outputs"][0]["shape"], json!([1, 3549, 85]));
    assert_eq!(found["sha256"].as_str().unwrap().len(), 64);
    let (code, text) = sm(&[
        "models",
        "bench",
        path(&model),
        "--json",
        "--duration",
        "200ms",
        "--threads",
        "1",
        "--backend",
        "cpu",
    ]);
    assert_eq!(code, 0, "{text}");
    let row = &lines(&text)[0];
    assert!(
        row["median_ms"].as_f64().unwrap() > 0.0
            && row["backend"] == "cpu"
            && row["runs"].as_u64().unwrap() >= 10
    );
}

/// What asks for a GPU where there is none is done by the CPU, and says why.
#[test]
fn without_a_gpu_the_cpu_does_it_and_says_why() {
    let Some(folder) = material() else { return };
    if Path::new("/proc/driver/nvidia/gpus").exists() {
        println!("SKIPPED: there is a GPU");
        return;
    }
    let here = tempfile::tempdir().unwrap();
    let model = |name: &str, backend: &str| {
        format!(
            "[[inference.models]]\nname = \"{name}\"\npath = \"{}\"\nbackend = \"{backend}\"\n",
            path(&folder.join("mnist.onnx"))
        )
    };
    let config = model("a", "tensorrt") + &model("b", "auto") + &model("c", "cpu");
    let server = Server::start(here.path(), Some(&config));
    let ready = |v: &Value| v["items"].as_array().is_some_and(|m| m.iter().all(|m| m["state"] == "ready"));
    let models = server.wait_until("/api/models", "all are ready", LIMIT, ready);
    for (index, wanted) in ["tensorrt", "auto", "cpu"].iter().enumerate() {
        let model = &models["items"][index];
        assert_eq!((&model["backend"], &model["backend_wanted"]), (&json!("cpu"), &json!(wanted)), "{model}");
    }
    for index in [0, 1] {
        let reason = models["items"][index]["backend_reason"].as_str().unwrap();
        assert!(reason.contains("tensorrt: ") && reason.contains("cuda: "), "{reason}");
    }
    assert_eq!(models["items"][2]["backend_reason"], "as configured");
    assert!(server.stop().contains("tensorrt: "));
}

/// A server that looks at a camera by the real model.
fn looking(folder: &Path, here: &Path, camera: &str, more: &str) -> Server {
    let config = format!(
        "[[inference.models]]\nname = \"yolox\"\npath = \"{}\"\nlabels = \"{}\"\nthreads = 1\n{more}",
        path(&folder.join("yolox_nano.onnx")),
        path(&folder.join("coco_classes.txt")),
    );
    let server = Server::start(here, Some(&config));
    let stream = json!({
        "id": "door", "source_url": camera,
        "recording": {"enabled": true},
        "inference": {"enabled": true, "max_fps": 10}
    });
    let (status, answer) = server.call("POST", "/api/streams", Some(&stream));
    assert_eq!(status, 201, "{answer}");
    server
}

fn replayed(folder: &Path, video: &str) -> Camera {
    Camera::start(Feed::custom(format!(
        "( filesrc location={} ! qtdemux name=d d.video_0 ! queue ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )",
        folder.join(video).display()
    )))
}

const INFERENCE: &str = "/api/streams/door/inference";

#[test]
fn a_live_camera_is_seen_as_its_video_is() {
    let Some(folder) = material() else { return };
    let here = tempfile::tempdir().unwrap();
    let camera = replayed(&folder, "bottle-detection.mp4");
    let server = looking(&folder, here.path(), &camera.url(), "");
    // From about 2 to 3.5 s in the video nothing moves: three bottles stand there.
    let three = [
        (0.93, [508.0, 106.0, 570.0, 317.0]),
        (0.93, [286.0, 109.0, 344.0, 315.0]),
        (0.91, [56.0, 109.0, 121.0, 313.0]),
    ];
    let stand = |v: &Value| {
        let found = v["last"]["detections"].as_array().cloned().unwrap_or_default();
        three.iter().all(|(score, [x0, y0, x1, y1])| {
            let wanted = Region::new(*x0, *y0, *x1, *y1);
            found.iter().any(|d| {
                d["label"] == "bottle"
                    && region(&d["box"]).iou(&wanted) >= 0.95
                    && (d["score"].as_f64().unwrap() - score).abs() <= 0.03
            })
        })
    };
    let seen = server.wait_until(INFERENCE, "three bottles", LIMIT, stand);
    assert_eq!((&seen["last"]["width"], &seen["last"]["height"]), (&json!(640), &json!(360)));
    let first = &seen["last"]["detections"][0];
    let (left, relative) = (first["box"][0].as_f64().unwrap(), first["relative_box"][0].as_f64().unwrap());
    assert!((left / 640.0 - relative).abs() < 1e-4);
    // As an event, too.
    let events = events(&server, "detections");
    let told = events
        .iter()
        .find(|e| e["detections"].as_array().is_some_and(|d| d.iter().any(|d| d["label"] == "bottle")));
    let told = told.unwrap_or_else(|| panic!("{events:?}"));
    assert_eq!((&told["stream"], &told["model"]), (&json!("door"), &json!("yolox")));
    // The recording has noticed nothing of it.
    let stream = server.stream("door");
    assert_eq!(
        (&stream["recording"]["state"], &stream["recording"]["lost_frames"]),
        (&json!("recording"), &json!(0))
    );
    assert_eq!(stream["inference"]["state"], "running");
    server.stop();
}

/// The events of a kind that have happened so far.
fn events(server: &Server, kind: &str) -> Vec<Value> {
    let output = Command::new("curl")
        .args(["-sN", "--max-time", "2", &server.url(&format!("/api/events?kind={kind}&after=0"))])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|l| serde_json::from_str(l.strip_prefix("data: ")?).ok()).collect()
}

#[test]
fn it_is_switched_and_set_live_and_remembered() {
    let Some(folder) = material() else { return };
    let here = tempfile::tempdir().unwrap();
    let camera = replayed(&folder, "bottle-detection.mp4");
    let server = looking(&folder, here.path(), &camera.url(), "");
    let running = |v: &Value| v["state"] == "running" && v["analysed"].as_u64() > Some(3);
    server.wait_until(INFERENCE, "it runs", LIMIT, running);
    server.wait_for("door", "its recording", LIMIT, |stream| stream["recording"]["file"].is_string());
    let since = server.stream("door")["since"].clone();
    let file = server.stream("door")["recording"]["file"].clone();

    let (status, answer) = server.call("POST", &format!("{INFERENCE}/stop"), None);
    assert_eq!((status, &answer["enabled"]), (200, &json!(false)));
    server.wait_until(INFERENCE, "it is off", LIMIT, |v| v["state"] == "off");
    let (status, answer) = server.call(
        "PATCH",
        INFERENCE,
        Some(&json!({"max_fps": 2, "classes": ["bottle"], "threshold": 0.9})),
    );
    assert_eq!((status, &answer["config"]["max_fps"]), (200, &json!(2.0)), "{answer}");
    server.call("POST", &format!("{INFERENCE}/start"), None);
    let seen = server.wait_until(INFERENCE, "only sure bottles", LIMIT, |v| {
        v["last"]["detections"].as_array().is_some_and(|d| !d.is_empty())
            && v["fps"].as_f64().is_some_and(|fps| fps > 0.0 && fps <= 2.5)
    });
    for object in seen["last"]["detections"].as_array().unwrap() {
        assert!(object["label"] == "bottle" && object["score"].as_f64().unwrap() >= 0.9, "{object}");
    }
    // None of this has touched the stream or its recording.
    assert_eq!(
        (&server.stream("door")["since"], &server.stream("door")["recording"]["file"]),
        (&since, &file)
    );

    for (body, pointer, words) in [
        (json!({"max_fps": 0}), "/max_fps", "expected more than 0"),
        (json!({"model": "resnet"}), "/model", "expected one of: yolox"),
        (json!({"motion": {"enabled": true, "mask": [[0.5, 0, 0.4, 1]]}}), "/motion/mask", "x0 < x1"),
        (json!({"speed": 3}), "/speed", "unknown key"),
    ] {
        let (status, answer) = server.call("PATCH", INFERENCE, Some(&body));
        assert_eq!(status, 422, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(words), "{answer}");
        assert_eq!(answer["pointer"], pointer, "{answer}");
    }
    // Stopped by hand, it is so after a restart.
    server.call("POST", &format!("{INFERENCE}/stop"), None);
    server.stop();
    let server = Server::start(here.path(), None);
    server.wait_for("door", "it runs again", LIMIT, |s| s["state"] == "running");
    let after = server.call("GET", INFERENCE, None).1;
    assert_eq!(
        (&after["enabled"], &after["state"], &after["config"]["threshold"]),
        (&json!(false), &json!("off"), &json!(0.9)),
        "{after}"
    );
    server.stop();
}

#[test]
fn a_smaller_stream_is_decoded_instead() {
    let Some(folder) = material() else { return };
    let here = tempfile::tempdir().unwrap();
    let camera = replayed(&folder, "bottle-detection.mp4");
    let server = looking(&folder, here.path(), "test://smpte?width=1280&height=720", "");
    let secret = camera.url().replace("rtsp://", "rtsp://viewer:geheim@");
    let (status, answer) = server.call("PATCH", INFERENCE, Some(&json!({"source_url": secret})));
    assert_eq!(status, 200, "{answer}");
    assert!(!answer.to_string().contains("geheim"), "{answer}");
    server.wait_until(INFERENCE, "the smaller one is seen", LIMIT, |v| v["last"]["width"] == 640);
    assert_eq!(server.stream("door")["tracks"][0]["width"], 1280);
    assert_eq!(server.call("GET", INFERENCE, None).1["substream"]["state"], "running");
    assert!(!server.stream("door").to_string().contains("geheim"));
    let log = server.stop();
    assert!(!log.contains("geheim"), "{log}");
}

/// Sends a picture.
fn infer(server: &Server, query: &str, body: &[u8], mime: &str) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent
        .post(server.url(&format!("/api/infer{query}")))
        .header("content-type", mime)
        .send(body)
        .unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
}

#[test]
fn a_picture_goes_in_and_boxes_come_out() {
    let Some(folder) = material() else { return };
    let here = tempfile::tempdir().unwrap();
    let config = format!(
        "[[inference.models]]\nname = \"digits\"\npath = \"{0}/mnist.onnx\"\nthreshold = 0.0\n\
         [[inference.models]]\nname = \"yolox\"\npath = \"{0}/yolox_nano.onnx\"\nlabels = \"{0}/coco_classes.txt\"\n",
        folder.display()
    );
    let server = Server::start(here.path(), Some(&config));
    let digit = std::fs::read(folder.join("digit-7.jpg")).unwrap();
    let (status, answer) = infer(&server, "?model=digits", &digit, "image/jpeg");
    assert_eq!((status, &answer["detections"][0]["label"]), (200, &json!("7")), "{answer}");
    assert_eq!((&answer["width"], &answer["height"]), (&json!(28), &json!(28)));
    for (query, body, mime, status, code) in [
        ("", &digit[..], "image/jpeg", 404, "model_not_found"),
        ("?model=none", &digit[..], "image/jpeg", 404, "model_not_found"),
        ("?model=digits", b"hello", "image/jpeg", 422, "invalid_image"),
        ("?model=digits", b"", "image/jpeg", 422, "invalid_image"),
        ("?model=digits", &digit[..100], "image/jpeg", 422, "invalid_image"),
        ("?model=digits", &digit[..], "text/html", 415, "unsupported_media_type"),
        ("?model=yolox&classes=unicorn", &digit[..], "image/jpeg", 422, "invalid_class"),
        ("?model=digits&threshold=2", &digit[..], "image/jpeg", 400, "invalid_query"),
    ] {
        let (found, answer) = infer(&server, query, body, mime);
        assert_eq!((found, answer["code"].as_str().unwrap()), (status, code), "{query} {answer}");
    }
    server.stop();
}

/// A model that is none is said to be so, and everything else works.
#[test]
fn models_that_are_none_harm_nothing() {
    let Some(folder) = material() else { return };
    let here = tempfile::tempdir().unwrap();
    let yolox = std::fs::read(folder.join("yolox_nano.onnx")).unwrap();
    std::fs::write(here.path().join("truncated.onnx"), &yolox[..yolox.len() / 2]).unwrap();
    std::fs::write(here.path().join("text.onnx"), "this is no model").unwrap();
    // The opset's version is a small number behind the field of the imports: 11 becomes 99.
    let mut opset = yolox.clone();
    let place = opset.windows(4).rposition(|w| w[0] == 0x42 && w[2] == 0x10 || w[..3] == [0x0a, 0x00, 0x10]);
    if let Some(place) = place {
        opset[place + 3] = 99;
    }
    std::fs::write(here.path().join("opset.onnx"), opset).unwrap();
    let models: Vec<(&str, String, &str)> = vec![
        ("missing", "path = \"nowhere.onnx\"".into(), "No such file"),
        ("truncated", "path = \"truncated.onnx\"".into(), "no ONNX file, or only part of one"),
        ("text", "path = \"text.onnx\"".into(), "no ONNX file"),
        ("opset", "path = \"opset.onnx\"".into(), "opset"),
        (
            "shape",
            format!("path = \"{}/yolox_nano.onnx\"\ninput_size = [640, 640]", folder.display()),
            "is f32[1,3,416,416]; expected a width of 640",
        ),
        (
            "layout",
            format!("path = \"{}/yolox_nano.onnx\"\nlayout = \"yolov8\"", folder.display()),
            "f32[1,3549,85]; expected [n,4+classes,boxes]",
        ),
        (
            "labels",
            format!("path = \"{}/yolox_nano.onnx\"\nlabels = [\"a\"]", folder.display()),
            "there are 1 names, but the model has 80 classes",
        ),
        (
            "backend",
            format!("path = \"{}/yolox_nano.onnx\"\nbackend = \"tpu\"", folder.display()),
            "expected one of: auto, tensorrt, cuda, cpu",
        ),
    ];
    let mut config = String::new();
    for (name, text, _) in &models {
        config += &format!("[[inference.models]]\nname = \"{name}\"\n{text}\n");
    }
    config += "[[streams]]\nid = \"door\"\nsource_url = \"test://smpte\"\n[streams.recording]\nenabled = true\n[streams.inference]\nenabled = true\nmodel = \"text\"\n";
    let server = Server::start(here.path(), Some(&config));
    for (name, _, words) in &models {
        let at = format!("/api/models/{name}");
        let failed = server.wait_until(&at, "it has failed", LIMIT, |m| m["state"] == "failed");
        let reason = failed["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{name}: {reason}");
    }
    let blocked = server.wait_until(INFERENCE, "it is blocked", LIMIT, |v| v["state"] == "blocked");
    assert!(blocked["reason"].as_str().unwrap().contains("no ONNX file"), "{blocked}");
    server.wait_for("door", "it is recorded", LIMIT, |s| s["recording"]["frames"].as_u64() > Some(25));
    let (status, answer) =
        infer(&server, "?model=text", &std::fs::read(folder.join("digit-7.jpg")).unwrap(), "image/jpeg");
    assert_eq!((status, answer["code"].as_str().unwrap()), (503, "model_not_ready"), "{answer}");
    let states = events(&server, "model_state");
    assert!(states.iter().any(|e| e["model"] == "text" && e["state"] == "failed"), "{states:?}");
    // The right file in its place, and it works.
    std::fs::write(here.path().join("text.onnx"), yolox).unwrap();
    let (status, answer) = server.call("POST", "/api/models/text/reload", None);
    assert_eq!((status, &answer["state"]), (200, &json!("ready")), "{answer}");
    server.wait_until(INFERENCE, "it runs", LIMIT, |v| v["state"] == "running");
    server.stop();
}

#[test]
fn without_onnx_runtime_it_is_said_how_to_get_it() {
    let here = tempfile::tempdir().unwrap();
    let model = here.path().join("m.onnx");
    std::fs::write(&model, "x").unwrap();
    let mut command = stream_manager();
    command.args(["models", "inspect", path(&model), "--onnxruntime", "/nowhere/libonnxruntime.so"]);
    let output = finish(command, LIMIT);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no library at /nowhere/libonnxruntime.so") && text.contains("pip install"),
        "{text}"
    );
}

#[test]
fn sources_and_models_that_are_wrong_have_their_exit_codes() {
    let Some(folder) = material() else { return };
    let here = tempfile::tempdir().unwrap();
    let text = here.path().join("video.mp4");
    std::fs::write(&text, "this is no video").unwrap();
    let sound = here.path().join("sound.wav");
    let made =
        Command::new("ffmpeg").args(["-v", "error", "-f", "lavfi", "-i", "sine=d=1", path(&sound)]).status();
    assert!(made.unwrap().success());
    let model = folder.join("yolox_nano.onnx");
    let people = folder.join("one-by-one-person-detection.mp4");
    for (input, model, code, words) in [
        ("/nowhere/video.mp4", path(&model), 3, "expected an address, a video or an image"),
        (path(&text), path(&model), 3, "could not"),
        (path(&sound), path(&model), 3, ""),
        ("rtsp://127.0.0.1:9/none", path(&model), 3, "127.0.0.1:9"),
        (path(&people), "resnet", 2, "is no file and no model of the configuration"),
        (path(&people), "/nowhere/model.onnx", 1, "No such file"),
    ] {
        let (found, said) = sm(&["detect", input, "--model", model]);
        assert_eq!(found, code, "{input} {model}: {said}");
        assert!(said.to_lowercase().contains(&words.to_lowercase()), "{input} {model}: {said}");
    }
}

/// The picture's size and the codec's parameters change, frames are damaged, the camera goes: the stream is seen on.
#[test]
fn a_stream_that_changes_is_seen_on() {
    let Some(folder) = material() else { return };
    let here = tempfile::tempdir().unwrap();
    let mut camera = Camera::start(Feed::h264());
    let server = looking(&folder, here.path(), &camera.url(), "");
    let first = server.wait_until(INFERENCE, "it is seen", LIMIT, |v| v["last"]["width"].is_u64());
    camera.resize(1280, 960);
    server.wait_until(INFERENCE, "it is seen at its new size", LIMIT, |v| v["last"]["width"] == 1280);
    assert_ne!(first["last"]["width"], 1280);
    let before = server.call("GET", INFERENCE, None).1["analysed"].as_u64();
    camera.kill();
    server.wait_for("door", "it is lost", LIMIT, |s| s["state"] != "running");
    camera.revive();
    let on = |v: &Value| v["analysed"].as_u64() > before.map(|b| b + 10) && v["state"] == "running";
    server.wait_until(INFERENCE, "it is seen again", LIMIT, on);
    assert_eq!(server.stream("door")["recording"]["state"], "recording");
    server.stop();
}

/// Where a decoder is not installed, the stream is recorded, and it is said what to install.
#[test]
fn a_codec_that_nothing_decodes_names_the_package() {
    let Some(folder) = material() else { return };
    let here = tempfile::tempdir().unwrap();
    let config = format!(
        "[[inference.models]]\npath = \"{}\"\n[[streams]]\nid = \"door\"\nsource_url = \"test://smpte\"\n\
         [streams.recording]\nenabled = true\n[streams.inference]\nenabled = true\n",
        path(&folder.join("yolox_nano.onnx"))
    );
    // GStreamer passes over elements of no rank.
    let none = ["avdec_h264", "openh264dec", "vah264dec", "vaapih264dec", "nvh264dec", "v4l2h264dec"];
    let ranks: Vec<String> = none.iter().map(|name| format!("{name}:NONE")).collect();
    let server = Server::start_with(here.path(), Some(&config), |command| {
        command.env("GST_PLUGIN_FEATURE_RANK", ranks.join(","));
    });
    let blocked = server.wait_until(INFERENCE, "it is blocked", LIMIT, |v| v["state"] == "blocked");
    let reason = blocked["reason"].as_str().unwrap();
    assert!(reason.contains("avdec_h264") && reason.contains("gstreamer1.0-libav"), "{reason}");
    server.wait_for("door", "it is recorded", LIMIT, |s| s["recording"]["frames"].as_u64() > Some(25));
    server.stop();
}

#[test]
fn check_loads_the_models() {
    let Some(folder) = material() else { return };
    let here = tempfile::tempdir().unwrap();
    let config = |model: &Path| format!("[[inference.models]]\nname = \"m\"\npath = \"{}\"\n", path(model));
    let check = |text: String| {
        std::fs::write(here.path().join("config.toml"), text).unwrap();
        let mut command = stream_manager();
        command.arg("check").current_dir(here.path());
        let output = finish(command, LIMIT);
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, text) = check(config(&folder.join("yolox_nano.onnx")));
    assert!(code == Some(0) && text.contains("model m: ok (yolox, 416x416, cpu on CPU"), "{text}");
    let (code, text) = check(config(&folder.join("coco_classes.txt")));
    assert!(code == Some(1) && text.contains("no ONNX file"), "{text}");
}

/// The same answers from a GPU, by whatever of TensorRT and CUDA works there.
#[test]
fn a_gpu_sees_the_same() {
    let Some(folder) = material() else { return };
    if !Path::new("/proc/driver/nvidia/gpus").exists() {
        println!("SKIPPED: there is no NVIDIA GPU here (/proc/driver/nvidia/gpus)");
        return;
    }
    let (code, text) =
        sm(&["models", "inspect", path(&folder.join("yolox_nano.onnx")), "--backend", "tensorrt", "--json"]);
    assert_eq!(code, 0, "{text}");
    let backend = lines(&text)[0]["backend"].clone();
    if backend == "cpu" {
        println!("SKIPPED: there is a GPU, but this ONNX Runtime does not use it: {text}");
        return;
    }
    let people = folder.join("one-by-one-person-detection.mp4");
    let mut arguments =
        vec!["detect", path(&people), "--json", "--every", "10", "--limit", "26", "--backend", "tensorrt"];
    let model = yolox(&folder);
    arguments.extend(model.iter().map(String::as_str));
    let (code, text) = sm(&arguments);
    assert_eq!(code, 0, "{text}");
    assert_seen(at(&lines(&text), 25.0), "person", &[(0.90, [387.0, 4.0, 548.0, 373.0])], 0.95);
}
