//! When streams are recorded: by events with the seconds before them, by schedule, by hand.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, check, counters, files};
use stream_manager_tests::program::{Server, run};
use stream_manager_tests::wait_until;

const SOON: Duration = Duration::from_secs(40);

fn config(url: &str, recording: &str) -> String {
    format!(
        "[storage]\nmin_free = 0\n[[streams]]\nid = \"cam\"\nsource_url = \"{url}\"\n[streams.recording]\nenabled = true\n{recording}\n"
    )
}

fn until(server: &Server, state: &str) -> Value {
    server.wait_for("cam", state, SOON, |s| s["recording"]["state"] == state)["recording"].clone()
}

fn post(server: &Server, what: &str, body: Option<&Value>) -> (u16, Value) {
    server.call("POST", &format!("/api/streams/cam/recording/{what}"), body)
}

fn recorded(server: &Server) -> Vec<PathBuf> {
    let folder = server.folder.join("data/recordings/cam");
    if folder.is_dir() { files(&folder) } else { Vec::new() }
}

fn marks(server: &Server) -> Vec<Value> {
    let (_, page) = server.call("GET", "/api/streams/cam/recordings?view=marks", None);
    page["items"].as_array().unwrap().clone()
}

/// Nothing is recorded but what surrounds an event: whole GOPs before it, and as long behind as it is told of.
#[test]
fn an_event_is_recorded_with_what_came_before() {
    let camera = Camera::start(Feed::with_audio(false));
    let (_folder, server) =
        Server::alone(&config(&camera.url(), "modes = [\"event\"]\npre_roll = \"3s\"\npost_roll = \"2s\""));
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > Some(400));
    let status = until(&server, "waiting");
    assert_eq!((&status["modes"], &status["reason"]), (&json!(["event"]), &json!("waits for an event")));
    assert!(status["pre_roll_bytes"].as_u64() > Some(10_000), "{status:#}");
    assert!(recorded(&server).is_empty());
    for event in 0..2 {
        let now = camera.counter();
        let body = json!({"door": event});
        let (code, answer) = post(&server, "trigger?kind=door&text=it%20opens", Some(&body));
        assert_eq!(
            (code, &answer["state"], &answer["reason"]),
            (200, &json!("recording"), &json!("an event")),
            "{answer:#}"
        );
        // Told again, it lasts longer.
        wait_until("a second", SOON, || camera.counter() > now + 25);
        let again = camera.counter();
        assert_eq!(post(&server, "trigger?kind=motion", None).0, 200);
        until(&server, "waiting");
        wait_until("its file", SOON, || recorded(&server).len() == event + 1);
        let files = recorded(&server);
        let file = files.last().unwrap();
        check(file);
        let numbers = counters(file);
        assert_contiguous(&numbers, "an event");
        let (first, last) = (numbers[0], *numbers.last().unwrap());
        // Three seconds and what is left of the GOP before; the network and the encoder are a few frames behind.
        assert!((now - 75 - 25 - 12..=now - 75 + 12).contains(&first), "{first} to {last}, told of at {now}");
        assert!(
            (again + 50 - 12..=again + 50 + 25).contains(&last),
            "{first} to {last}, told of again at {again}"
        );
        // The seconds before the next one are to be there in full.
        let end = camera.counter();
        wait_until("four seconds", SOON, || camera.counter() > end + 110);
    }
    let marks = marks(&server);
    let kinds: Vec<&Value> = marks.iter().map(|m| &m["kind"]).collect();
    assert_eq!(kinds, ["door", "motion", "door", "motion"]);
    assert_eq!((&marks[2]["text"], &marks[2]["data"]), (&json!("it opens"), &json!({"door": 1})));
    let (_, line) = server.call("GET", "/api/streams/cam/timeline", None);
    assert_eq!(
        (line["spans"].as_array().unwrap().len(), &line["gaps"][0]["reason"]),
        (2, &json!("waiting")),
        "{line:#}"
    );
    assert!(!server.stop().contains("panicked"));
}

/// What is asked for by hand comes first, and is remembered, until it is left to the modes again.
#[test]
fn by_hand_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let text = config("test://ball", "modes = [\"event\"]\npost_roll = \"30s\"");
    let server = Server::start(folder.path(), Some(&text));
    until(&server, "waiting");
    assert_eq!(post(&server, "split", None).1["code"], "recording_state");
    assert_eq!(post(&server, "start", None).0, 200);
    assert_eq!(until(&server, "recording")["reason"], "started by request");
    server.kill();
    let server = Server::start(folder.path(), Some(&text));
    assert_eq!(until(&server, "recording")["reason"], "started by request");
    assert_eq!(post(&server, "auto", None).0, 200);
    until(&server, "waiting");
    assert_eq!(post(&server, "pause", None).0, 200);
    until(&server, "paused");
    assert_eq!(post(&server, "trigger", None).1["code"], "recording_state");
    assert_eq!(post(&server, "resume", None).0, 200);
    until(&server, "waiting");
    assert_eq!(post(&server, "trigger", None).0, 200);
    until(&server, "recording");
    assert_eq!(post(&server, "stop", None).0, 200);
    until(&server, "off");
    assert_eq!(post(&server, "trigger", None).1["code"], "recording_state");
    server.stop();
    let server = Server::start(folder.path(), Some(&text));
    until(&server, "off");
    assert_eq!(post(&server, "auto", None).0, 200);
    until(&server, "waiting");
    assert!(!server.stop().contains("panicked"));
}

#[test]
fn a_schedule_says_when() {
    let now: u64 =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
    let hours = |from: u64| format!("daily {:02}:00-{:02}:00", (now + from) % 24, (now + from + 4) % 24);
    let recording = |from: u64, modes: &str| {
        format!("modes = {modes}\ntime_zone = \"UTC\"\nschedule = [\"{}\"]\npost_roll = \"2s\"", hours(from))
    };
    let (_folder, server) = Server::alone(&config("test://ball", &recording(22, "[\"schedule\"]")));
    assert_eq!(until(&server, "recording")["reason"], "its schedule");
    let (code, answer) = post(&server, "trigger", None);
    assert_eq!((code, &answer["code"]), (409, &json!("no_events")), "{answer:#}");
    server.stop();
    let (_folder, server) = Server::alone(&config("test://ball", &recording(4, "[\"schedule\"]")));
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > Some(50));
    assert_eq!(until(&server, "waiting")["reason"], "waits for its schedule");
    server.stop();
    // One reason is enough.
    let (_folder, server) = Server::alone(&config("test://ball", &recording(4, "[\"schedule\", \"event\"]")));
    server.wait_for("cam", "frames", SOON, |s| s["frames"].as_u64() > Some(50));
    until(&server, "waiting");
    assert_eq!(post(&server, "trigger", None).0, 200);
    assert_eq!(until(&server, "recording")["reason"], "an event");
    until(&server, "waiting");
    server.stop();
}

#[test]
fn what_makes_no_sense_is_said() {
    let (folder, server) = Server::alone(&config("test://ball", ""));
    for (recording, pointer) in [
        (json!({"modes": []}), "/recording/modes"),
        (json!({"modes": ["sometimes"]}), "/recording/modes/0"),
        (json!({"modes": ["schedule"]}), "/recording/schedule"),
        (json!({"modes": ["schedule"], "schedule": ["mon 25:00-26:00"]}), "/recording/schedule"),
        (
            json!({"modes": ["schedule"], "schedule": ["daily 08:00-09:00"], "time_zone": "Mars"}),
            "/recording/time_zone",
        ),
        (json!({"modes": ["event"], "pre_roll": "1h"}), "/recording/pre_roll"),
        (json!({"modes": ["event"], "post_roll": "0s"}), "/recording/post_roll"),
        (json!({"modes": ["event"], "max_duration": "1s"}), "/recording/max_duration"),
    ] {
        let body = json!({"id": "x", "source_url": "test://ball", "recording": recording});
        let (status, answer) = server.call("POST", "/api/streams", Some(&body));
        assert!((status == 422 || status == 400) && answer["pointer"] == pointer, "{body}: {answer:#}");
    }
    let right = json!({"modes": ["schedule", "event"], "schedule": ["daily 08:00-09:00"], "time_zone": "Europe/Berlin"});
    let body = json!({"id": "right", "source_url": "test://ball", "recording": right});
    let (status, answer) = server.call("POST", "/api/streams", Some(&body));
    assert_eq!((status, &answer["config"]["recording"]), (201, &right), "{answer:#}");
    for (query, code) in [
        ("kind=a%20b", 400),
        ("kind=", 400),
        ("duration=0s", 400),
        ("duration=2d", 400),
        ("colour=red", 400),
        ("", 409),
    ] {
        assert_eq!(post(&server, &format!("trigger?{query}"), None).0, code, "{query}");
    }
    let (status, _) = server.call("POST", "/api/streams/none/recording/trigger", None);
    assert_eq!(status, 404);
    server.stop();
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, config("test://ball", "modes = [\"schedule\"]\nschedule = [\"never\"]")).unwrap();
    let (code, said) = run(&["check", "--config", file.to_str().unwrap()], folder.path());
    assert!(code != 0 && said.contains("never") && said.contains("mon-fri 08:00-18:00"), "{said}");
}

/// The same words on the command line, which asks the server that runs.
#[test]
fn the_same_words_on_the_command_line() {
    let text = config("test://ball", "modes = [\"event\"]\npost_roll = \"30s\"");
    let (folder, server) = Server::alone(&text);
    until(&server, "waiting");
    let base = server.url("");
    let say = |words: &[&str]| run(&[&["recording"], words, &["--server", &base]].concat(), folder.path());
    for (word, state) in [
        ("start", "recording"),
        ("pause", "paused"),
        ("resume", "recording"),
        ("split", "recording"),
        ("stop", "off"),
        ("auto", "waiting"),
    ] {
        let (code, said) = say(&[word, "cam"]);
        assert!(code == 0 && said.starts_with("cam: "), "{word}: {code} {said}");
        until(&server, state);
    }
    let (code, said) =
        say(&["trigger", "cam", "--kind", "door", "--text", "it & opens", "--duration", "5s", "--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["state"]), (0, &json!("recording")), "{said}");
    wait_until("the mark", SOON, || marks(&server).len() == 1);
    assert_eq!(marks(&server)[0]["text"], "it & opens");
    for (words, code, says) in [
        (&["split", "none"][..], 1, "there is no stream"),
        (&["trigger", "cam", "--kind", "a b"], 1, "kind"),
        (&["explode", "cam"], 2, "unrecognized"),
    ] {
        let (found, said) = say(words);
        assert!(found == code && said.contains(says), "{words:?}: {found} {said}");
    }
    let (code, said) = run(&["recording", "stop", "cam", "--server", "http://127.0.0.1:9"], folder.path());
    assert!(code == 1 && said.contains("127.0.0.1:9"), "{code} {said}");
    let (code, said) = run(&["recording", "stop", "cam", "--server", "u:secret@nowhere"], folder.path());
    assert!(code == 2 && said.contains("http://localhost:3000") && !said.contains("secret"), "{code} {said}");
    server.stop();
}
