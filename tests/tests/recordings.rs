//! What has been recorded, asked for by REST and on the command line; limits; and everything that can be wrong
//! with a data folder.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use stream_manager_tests::media::{check, files};
use stream_manager_tests::program::{Server, run};
use stream_manager_tests::recorded::seconds;
use stream_manager_tests::wait_until;

const LIMIT: Duration = Duration::from_secs(40);

/// A test picture in segments of a second.
fn config(storage: &str, stream: &str) -> String {
    format!(
        "[storage]\nmin_free = 0\n{storage}\n[defaults.recording]\nsegment_duration = \"1s\"\nenabled = true\n\
         [[streams]]\nid = \"yard/cam\"\nsource_url = \"test://smpte?width=192&height=144&audio=false\"\n{stream}\n"
    )
}

fn get(server: &Server, path: &str) -> Value {
    let (status, answer) = server.call("GET", path, None);
    assert_eq!(status, 200, "{path}: {answer:#}");
    answer
}

fn segments(server: &Server) -> Vec<Value> {
    get(server, "/api/streams/yard/cam/recordings?view=segments")["items"].as_array().unwrap().clone()
}

fn until_segments(server: &Server, number: usize) -> Vec<Value> {
    wait_until("segments", LIMIT, || {
        segments(server).iter().filter(|s| s["complete"] == true).count() >= number
    });
    segments(server)
}

fn problem(server: &Server, method: &str, path: &str, status: u16, says: &str) {
    let (found, answer) = server.call(method, path, None);
    assert_eq!(found, status, "{method} {path}: {answer:#}");
    let detail = answer["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(says), "{method} {path}: {detail}");
}

#[test]
fn recordings_by_rest_and_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(&config("", "")));
    let rows = until_segments(&server, 4);
    let first = &rows[0];
    assert_eq!(first["stream"], "yard/cam");
    assert_eq!(
        (first["format"].as_str(), first["tracks"][0]["codec"].as_str()),
        (Some("fmp4"), Some("h264"))
    );
    // All of it is one span, and pages of one segment are the same segments.
    let spans = get(&server, "/api/streams/yard/cam/recordings");
    assert_eq!(spans["items"].as_array().unwrap().len(), 1, "{spans:#}");
    let page = get(&server, "/api/streams/yard/cam/recordings?view=segments&limit=1");
    assert_eq!(page["items"][0], *first);
    let next = page["next"].as_str().unwrap();
    let page = get(&server, &format!("/api/streams/yard/cam/recordings?view=segments&limit=1&after={next}"));
    assert_eq!(page["items"][0]["id"], rows[1]["id"]);

    // A pause is a gap.
    server.call("POST", "/api/streams/yard/cam/recording/pause", None);
    std::thread::sleep(Duration::from_millis(700));
    server.call("POST", "/api/streams/yard/cam/recording/resume", None);
    wait_until("the span after the pause", LIMIT, || {
        get(&server, "/api/streams/yard/cam/recordings")["items"].as_array().unwrap().len() == 3
    });
    let items = get(&server, "/api/streams/yard/cam/recordings");
    let gap = &items["items"][1];
    assert_eq!((&gap["kind"], &gap["reason"]), (&"gap".into(), &"paused".into()), "{items:#}");
    assert!(gap["duration_secs"].as_f64() >= Some(0.7), "{gap:#}");

    // The range is checked, and only what lies wholly in it goes.
    let base = "/api/streams/yard/cam/recordings";
    problem(&server, "GET", &format!("{base}?start=20&end=10"), 422, "ends");
    problem(&server, "GET", &format!("{base}?start=yesterday"), 400, "RFC 3339");
    problem(&server, "GET", &format!("{base}?limit=0"), 400, "expected 1 to 1000");
    problem(&server, "GET", &format!("{base}?after=x"), 422, "next");
    problem(&server, "GET", &format!("{base}?view=all"), 400, "");
    problem(&server, "GET", &format!("{base}?from=1"), 400, "from");
    problem(&server, "DELETE", base, 400, "start and end are needed");
    problem(&server, "DELETE", &format!("{base}?start=5&end=5"), 422, "ends");
    problem(&server, "POST", &format!("{base}/protect"), 400, "start and end are needed");
    problem(&server, "GET", "/api/streams/nobody/recordings", 404, "nobody");
    let (start, end) = (rows[1]["start"].as_str().unwrap(), rows[1]["end"].as_str().unwrap());
    let whole = format!("start={start}&end={}", rows[2]["end"].as_str().unwrap());
    let (status, answer) = server.call("POST", &format!("{base}/protect?start={start}&end={end}"), None);
    assert!(status == 200 && answer["segments"].as_u64() >= Some(1), "{answer:#}");
    let inside: Vec<Value> = segments(&server);
    let protected: Vec<&Value> = inside.iter().filter(|s| s["protected"] == true).collect();
    assert!(protected.iter().any(|s| s["id"] == rows[1]["id"]), "{inside:#?}");
    let before = inside.len();
    let (status, answer) = server.call("DELETE", &format!("{base}?{whole}"), None);
    assert_eq!(status, 200);
    let after = segments(&server);
    assert!(after.iter().any(|s| s["id"] == rows[1]["id"]), "a protected segment was deleted");
    assert!(before as u64 - answer["segments"].as_u64().unwrap() <= after.len() as u64);
    let path = rows[1]["path"].as_str().unwrap();
    assert!(Path::new(path).is_file());

    // The same beside the running server.
    let (code, text) = run(&["recordings", "list", "yard/cam"], folder.path());
    assert!(code == 0 && text.contains(path) && text.contains("protected"), "{text}");
    let (code, text) = run(&["recordings", "delete", "yard/cam"], folder.path());
    assert!(code == 2 && text.contains("--start and --end"), "{text}");
    let (code, text) =
        run(&["recordings", "protect", "yard/cam", "--start", start, "--end", end, "--off"], folder.path());
    assert!(code == 0 && text.contains("no longer protected"), "{text}");
    let (code, text) =
        run(&["recordings", "delete", "yard/cam", "--start", "0", "--end", "9000000000"], folder.path());
    assert!(code == 0 && !Path::new(path).exists(), "{text}");
    let (code, text) = run(&["recordings", "list", "nobody"], folder.path());
    assert!(code == 1 && text.contains("nothing is recorded of \"nobody\""), "{text}");
    let (code, text) = run(&["recordings", "verify"], folder.path());
    assert_eq!(code, 0, "{text}");
    // While it runs nobody else may put things right.
    let (code, text) = run(&["fsck"], folder.path());
    assert!(code == 1 && text.contains("is in use by process"), "{text}");
    server.stop();
    // What is recorded outlives its stream.
    let server = Server::start(folder.path(), Some("[storage]\nmin_free = 0\n"));
    assert!(!get(&server, base)["items"].as_array().unwrap().is_empty());
    assert_eq!(server.call("GET", "/api/streams/yard/cam", None).0, 404);
    server.stop();
}

#[test]
fn limits_of_age_and_size() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(
        folder.path(),
        Some(&config("", "[streams.recording.retention]\nmax_size = \"100kB\"\n")),
    );
    wait_until("old segments go", LIMIT, || server.log().contains("old recordings deleted"));
    let storage = get(&server, "/api/storage");
    assert_eq!(storage["streams"][0]["max_size_bytes"], 100_000, "{storage:#}");
    server.stop();
    let (code, text) = run(&["fsck"], folder.path());
    assert_eq!(code, 0, "{text}");
    let aged = config("", "[streams.recording.retention]\nmax_age = \"3s\"\n");
    let server = Server::start(folder.path(), Some(&aged));
    let first = files(&folder.path().join("data/recordings/yard/cam"))[0].clone();
    wait_until("the oldest goes for its age", LIMIT, || !first.exists());
    server.stop();
}

#[test]
fn several_folders_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    let storage = format!("[storage.directories]\nfast = \"{}\"", other.display());
    let server = Server::start(folder.path(), Some(&config(&storage, "recording.directory = \"fast\"")));
    until_segments(&server, 1);
    assert!(!files(&other.join("yard/cam")).is_empty());
    let report = get(&server, "/api/storage");
    let names: Vec<&str> =
        report["directories"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "fast"]);
    let body =
        serde_json::json!({"id": "x", "source_url": "test://ball", "recording": {"directory": "slow"}});
    let (status, answer) = server.call("POST", "/api/streams", Some(&body));
    assert_eq!(status, 422, "{answer:#}");
    assert!(answer["detail"].as_str().unwrap().contains("default, fast"), "{answer:#}");
    server.stop();
    std::fs::write(folder.path().join("config.toml"), config("", "recording.directory = \"fast\"")).unwrap();
    let (code, text) = run(&["check"], folder.path());
    assert!(code == 2 && text.contains("none of storage.directories"), "{text}");
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(&config("", "")));
    let (code, text) = run(&["--port", "0"], folder.path());
    assert!(code == 1 && text.contains(&format!("is in use by process {}", server.child.id())), "{text}");
    until_segments(&server, 1);
    server.stop();
}

#[test]
fn a_damaged_index_is_kept_aside_and_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(&config("", "")));
    let before = until_segments(&server, 3).len();
    server.stop();
    let database = folder.path().join("data/recordings.db");
    std::fs::write(&database, b"this is no database, and was never one").unwrap();
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", database.display()));
    }
    let server = Server::start(folder.path(), Some(&config("", "")));
    wait_until("the recordings are there again", LIMIT, || segments(&server).len() > before);
    let log = server.stop();
    assert!(log.contains("the index of recordings is damaged"), "{log}");
    let kept = files(&folder.path().join("data"))
        .into_iter()
        .find(|f| f.file_name().unwrap().to_string_lossy().contains(".damaged-"))
        .expect("the damaged index was not kept");
    assert_eq!(std::fs::read(kept).unwrap(), b"this is no database, and was never one");
    let (code, text) = run(&["fsck"], folder.path());
    assert_eq!(code, 0, "{text}");
}

#[test]
fn an_index_is_rebuilt_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Some(&config("", "")));
    let rows = until_segments(&server, 3);
    let (start, end) = (rows[1]["start"].as_str().unwrap(), rows[1]["end"].as_str().unwrap());
    server.call("POST", &format!("/api/streams/yard/cam/recordings/protect?start={start}&end={end}"), None);
    server.stop();
    let list = || {
        let (code, text) = run(&["recordings", "list", "yard/cam", "--json"], folder.path());
        assert_eq!(code, 0, "{text}");
        let mut value: Value = serde_json::from_str(text.trim()).unwrap();
        for row in value["segments"].as_array_mut().unwrap() {
            row.as_object_mut().unwrap().remove("id");
        }
        value
    };
    let before = list();
    let (code, text) = run(&["fsck", "--rebuild"], folder.path());
    assert!(code == 0 && text.contains("made anew"), "{text}");
    assert_eq!(list(), before, "what is recorded, why something is missing, and what is protected");
}

#[test]
fn what_is_wrong_with_a_folder_is_said_and_nothing_else_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in-the-way"), "mine").unwrap();
    let server = Server::start(folder.path(), Some(&config("recordings_dir = \"in-the-way\"", "")));
    let stream = server.wait_for("yard/cam", "blocked", LIMIT, |s| s["recording"]["state"] == "blocked");
    assert!(
        stream["recording"]["reason"].as_str().unwrap().contains("is a file; expected a folder"),
        "{stream:#}"
    );
    assert_eq!(stream["state"], "running");
    let report = get(&server, "/api/storage");
    assert_eq!(report["directories"][0]["state"], "unavailable", "{report:#}");
    // Put right, it goes on by itself.
    std::fs::remove_file(folder.path().join("in-the-way")).unwrap();
    server.wait_for("yard/cam", "recording", LIMIT, |s| s["recording"]["state"] == "recording");
    until_segments(&server, 1);
    server.stop();

    // A link that leads out is not followed.
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let yard = folder.path().join("in-the-way/yard");
    std::fs::remove_dir_all(&yard).unwrap();
    std::os::unix::fs::symlink(&outside, &yard).unwrap();
    let server = Server::start(folder.path(), Some(&config("recordings_dir = \"in-the-way\"", "")));
    let stream = server.wait_for("yard/cam", "blocked", LIMIT, |s| s["recording"]["state"] == "blocked");
    assert!(stream["recording"]["reason"].as_str().unwrap().contains("leads out"), "{stream:#}");
    assert!(files(&outside.join("cam")).is_empty());
    server.stop();
}

#[test]
fn foreign_files_survive_and_a_limit_that_cannot_be_kept_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let cam = folder.path().join("data/recordings/yard/cam");
    std::fs::create_dir_all(&cam).unwrap();
    let foreign = [("holiday.mp4", "words"), ("2020-01-01T00-00-00.000Z.mp4", "no video"), ("note.txt", "x")];
    for (name, text) in foreign {
        std::fs::write(cam.join(name), text).unwrap();
    }
    // More is to stay free than any disk has.
    let server =
        Server::start(folder.path(), Some(&config("", "").replace("min_free = 0", "min_free = \"900PB\"")));
    until_segments(&server, 3);
    wait_until("the limit is told", LIMIT, || {
        !get(&server, "/api/storage")["unmet"].as_object().unwrap().is_empty()
    });
    let log = server.stop();
    assert_eq!(log.matches("a limit on recordings cannot be kept").count(), 1, "{log}");
    assert!(!log.contains("old recordings deleted"), "{log}");
    for (name, text) in foreign {
        assert_eq!(std::fs::read_to_string(cam.join(name)).unwrap(), text);
    }
    let (_, text) = run(&["fsck"], folder.path());
    assert!(text.contains("is no MP4 file") && text.contains("holiday.mp4: is none of ours"), "{text}");
    for (key, says) in [("min_free = \"100%\"", "less than 100%"), ("sync_interval = \"never\"", "\"off\"")] {
        let text = match key {
            k if k.starts_with("min_free") => config("", "").replace("min_free = 0", k),
            k => config("", &format!("recording.{k}")),
        };
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        let (code, text) = run(&["check"], folder.path());
        assert!(code == 2 && text.contains(says), "{text}");
    }
}

#[test]
fn mkv_and_ts_are_indexed_and_adopted() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["mkv", "ts", "mp4"] {
        let text = config("", &format!("recording.format = \"{format}\""));
        let server = Server::start(folder.path(), Some(&text));
        let before = segments(&server).len();
        until_segments(&server, before + 2);
        server.stop();
    }
    let cam = folder.path().join("data/recordings/yard/cam");
    files(&cam).iter().for_each(|file| drop(check(file)));
    let (code, text) = run(&["fsck"], folder.path());
    assert_eq!(code, 0, "{text}");
    let number = files(&cam).len();
    let (code, text) = run(&["fsck", "--rebuild"], folder.path());
    assert!(code == 0 && text.matches("adopted: ").count() == number, "{text}");
    let (code, text) = run(&["recordings", "verify"], folder.path());
    assert_eq!(code, 0, "{text}");
}

/// Marks: made, found over all streams, taken away; gone with the recordings that they are about.
#[test]
fn marks_by_rest() {
    let folder = tempfile::tempdir().unwrap();
    let more = "[[streams]]\nid = \"gate\"\nsource_url = \"test://smpte?width=192&height=144&audio=false\"";
    let server = Server::start(folder.path(), Some(&config("", more)));
    let rows = until_segments(&server, 4);
    let begin = rows[0]["start"].as_str().unwrap();
    let mark = |stream: &str, body: &Value| {
        let (status, made) = server.call("POST", &format!("/api/streams/{stream}/marks"), Some(body));
        assert_eq!(status, 201, "{made:#}");
        made
    };
    let first =
        mark("yard/cam", &json!({"time": rows[0]["end"], "kind": "parcel", "text": "Left at the Door"}));
    assert_eq!((&first["stream"], &first["time"]), (&json!("yard/cam"), &rows[0]["end"]));
    let second =
        mark("yard/cam", &json!({"time": rows[1]["end"], "kind": "person", "data": {"name": "B. 50%_"}}));
    mark("gate", &json!({"time": rows[1]["start"], "kind": "person", "text": "at the gate"}));
    let now = mark("gate", &json!({"text": "<b>now</b>"}));
    assert_eq!((&now["kind"], now["time"].as_str() > Some(begin)), (&json!("note"), true), "{now:#}");
    let found = |query: &str| -> Vec<String> {
        let page = get(&server, &format!("/api/marks?{query}"));
        page["items"].as_array().unwrap().iter().map(|m| m["id"].to_string()).collect()
    };
    let id = |mark: &Value| mark["id"].to_string();
    assert_eq!(found("").len(), 4);
    assert_eq!(found("kind=person").len(), 2);
    assert_eq!(found("kind=person,parcel&stream=yard/*"), [id(&first), id(&second)]);
    assert_eq!(found("kind=person,parcel&stream=yard/*&order=newest"), [id(&second), id(&first)]);
    assert_eq!(found("text=the%20DOOR"), [id(&first)]);
    assert_eq!(found("text=%25"), Vec::<String>::new(), "a sign like any other");
    assert_eq!(found(&format!("end={begin}")), Vec::<String>::new());
    assert_eq!(found("stream=g*").len(), 2);
    assert_eq!(found("stream=none"), Vec::<String>::new());
    for order in ["oldest", "newest"] {
        let (mut paged, mut after) = (Vec::new(), String::new());
        loop {
            let page = get(&server, &format!("/api/marks?limit=1&order={order}&after={after}"));
            paged.extend(page["items"].as_array().unwrap().iter().map(id));
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(paged, found(&format!("order={order}")));
    }
    let of_stream = get(&server, "/api/streams/yard/cam/marks?kind=person");
    assert_eq!(of_stream["items"][0]["data"]["name"], "B. 50%_");
    let line = get(&server, "/api/streams/yard/cam/timeline");
    assert_eq!(line["marks"].as_array().unwrap().len(), 2, "{line:#}");
    for (method, path, status, says) in [
        ("GET", "/api/marks?after=x", 422, "next"),
        ("GET", "/api/marks?order=best", 400, "oldest"),
        ("GET", "/api/marks?start=2&end=1", 422, "start"),
        ("GET", "/api/streams/none/marks", 404, "none"),
        ("GET", "/api/streams/yard/cam/marks?stream=gate", 400, "path"),
        ("DELETE", "/api/streams/yard/cam/marks/99999", 404, "99999"),
        ("DELETE", "/api/streams/yard/cam/marks/first", 404, "first"),
    ] {
        problem(&server, method, path, status, says);
    }
    for body in [
        json!({"kind": "a b"}),
        json!({"text": "x".repeat(501)}),
        json!({"data": "x".repeat(70_000)}),
        json!({"time": "then"}),
        json!({"colour": "red"}),
        json!(null),
    ] {
        let (status, answer) = server.call("POST", "/api/streams/gate/marks", Some(&body));
        assert_eq!(status, 422, "{answer:#}");
    }
    // Another stream's mark is none of this one.
    let path = format!("marks/{}", id(&first));
    assert_eq!(server.call("DELETE", &format!("/api/streams/gate/{path}"), None).0, 404);
    assert_eq!(server.call("DELETE", &format!("/api/streams/yard/cam/{path}"), None).0, 204);
    assert_eq!(found("stream=yard/*"), [id(&second)]);
    // With the recordings goes what is said of them.
    // Times are told in whole milliseconds: a little more, so that the third lies wholly in it.
    let end = seconds(&rows[2]["end"]) + 0.05;
    let range = format!("start={begin}&end={end:.3}");
    server.call("DELETE", &format!("/api/streams/yard/cam/recordings?{range}"), None);
    assert_eq!(get(&server, "/api/streams/yard/cam/marks")["items"], json!([]));
    assert_eq!(found("stream=gate").len(), 2);
    server.stop();
}
