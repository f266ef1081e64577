//! What the API makes is remembered for good, and changed without a restart.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::disk::Disk;
use stream_manager_tests::http::sse;
use stream_manager_tests::media::{assert_contiguous, check, counters, files, reading_rtsp};
use stream_manager_tests::program::{Server, run, signal, wait};

const LIMIT: Duration = Duration::from_secs(40);

/// What is to be remembered of a stream.
#[derive(Clone, Debug, PartialEq)]
struct Remembered {
    enabled: bool,
    /// Of one that does not run nobody can see what is wished for its recording.
    recording: Option<&'static str>,
    transport: Value,
}

type Model = BTreeMap<String, Remembered>;

fn remembered(server: &Server) -> Model {
    let (status, page) = server.call("GET", "/api/streams?limit=1000", None);
    assert_eq!(status, 200);
    let item = |s: &Value| {
        let enabled = s["enabled"] == true;
        let state = s["recording"]["state"].as_str().unwrap();
        let recording = ["off", "recording", "paused"].into_iter().find(|known| enabled && *known == state);
        let transport = s["config"]["transport"].clone();
        (s["id"].as_str().unwrap().to_owned(), Remembered { enabled, recording, transport })
    };
    page["items"].as_array().unwrap().iter().map(item).collect()
}

/// As it would be shown.
fn shown(model: &Model) -> Model {
    let hide = |r: &Remembered| Remembered { recording: r.recording.filter(|_| r.enabled), ..r.clone() };
    model.iter().map(|(id, r)| (id.clone(), hide(r))).collect()
}

/// A random change, carried out and noted.
fn change(server: &Server, random: &mut fastrand::Rng, model: &mut Model, made: &mut u32) {
    let ids: Vec<String> = model.keys().cloned().collect();
    let id = random.choice(&ids).unwrap().clone();
    let own = id != "of-the-file";
    let entry = model.get_mut(&id).unwrap();
    let path = format!("/api/streams/{id}");
    match random.u8(0..7) {
        0 | 1 => {
            *made += 1;
            let new = format!("made/{made}");
            let body = json!({"id": new, "source_url": "publisher"});
            assert_eq!(server.call("POST", "/api/streams", Some(&body)).0, 201);
            model.insert(new, Remembered { enabled: true, recording: Some("off"), transport: Value::Null });
        }
        2 if own => {
            assert_eq!(server.call("DELETE", &path, None).0, 204);
            model.remove(&id);
        }
        3 if own => {
            entry.transport = if random.bool() { json!("udp") } else { Value::Null };
            let patch = json!({"transport": entry.transport});
            assert_eq!(server.call("PATCH", &path, Some(&patch)).0, 200);
        }
        4 => {
            entry.enabled = !entry.enabled;
            let action = if entry.enabled { "enable" } else { "disable" };
            assert_eq!(server.call("POST", &format!("{path}/{action}"), None).0, 200);
        }
        _ if entry.enabled => {
            let (action, state) = match entry.recording {
                Some("off") => ("start", "recording"),
                Some("paused") => ("resume", "recording"),
                _ if random.bool() => ("pause", "paused"),
                _ => ("stop", "off"),
            };
            assert_eq!(server.call("POST", &format!("{path}/recording/{action}"), None).0, 200);
            entry.recording = Some(state);
        }
        _ => {}
    }
}

/// A hundred times: something is changed, answered, and the process killed at once.
#[test]
fn a_kill_right_behind_an_answer_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let config = "[[streams]]\nid = \"of-the-file\"\nsource_url = \"publisher\"\n";
    let own = Remembered { enabled: true, recording: Some("off"), transport: Value::Null };
    let mut model = Model::from([("of-the-file".to_owned(), own)]);
    let mut made = 0;
    for round in 0..100 {
        let server = Server::start(folder.path(), Some(config));
        assert_eq!(remembered(&server), shown(&model), "round {round}, seed {seed}");
        for _ in 0..random.usize(1..4) {
            change(&server, &mut random, &mut model, &mut made);
        }
        server.kill();
    }
    let server = Server::start(folder.path(), Some(config));
    assert_eq!(remembered(&server), shown(&model), "seed {seed}");
    server.stop();
}

/// A stream that is untouched by everything else: its reader and its recording notice nothing.
#[test]
fn a_reload_touches_only_what_has_changed() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let steady = format!(
        "[[streams]]\nid = \"steady\"\nsource_url = \"{}\"\n[streams.recording]\nenabled = true\n",
        camera.url()
    );
    let other = |n: u32| format!("[[streams]]\nid = \"other\"\nsource_url = \"test://smpte?gop={n}\"\n");
    let write = |text: String| std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let mut server = Server::start(folder.path(), Some(&format!("{steady}{}", other(25))));
    server.wait_for("steady", "running", LIMIT, |s| s["state"] == "running");
    let through = folder.path().join("through.mkv");
    let mut reader = Command::new("ffmpeg");
    reader.args(reading_rtsp(&server.rtsp_url("steady")));
    let mut reader =
        reader.args(["-t", "14", "-c", "copy"]).arg(&through).stdin(Stdio::null()).spawn().unwrap();
    let sessions = |s: &Value| s["items"].as_array().is_some_and(|items| items.len() == 1);
    let session = server.wait_until("/api/sessions", "a reader", LIMIT, sessions)["items"][0]["id"].clone();
    let since = server.stream("steady")["since"].clone();
    let reloads = |n: u64| move |s: &Value| s["reloads"].as_u64() == Some(n);

    // By the file: one is new.
    write(format!("{steady}{}[[streams]]\nid = \"new\"\nsource_url = \"publisher\"\n", other(25)));
    server.wait_until("/api/config/status", "the reload", LIMIT, reloads(1));
    assert_eq!(server.stream("new")["state"], "idle");
    // By request, before the file's change is noticed: one is different, one is gone.
    let other_since = server.stream("other")["since"].clone();
    write(format!("{steady}{}", other(50)));
    let (status, report) = server.call("POST", "/api/config/reload", None);
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["streams_changed"], json!(["other"]));
    assert_eq!(report["streams_deleted"], json!(["new"]));
    assert_ne!(server.stream("other")["since"], other_since);
    assert_eq!(server.call("GET", "/api/streams/new", None).0, 404);
    server.log_in("u", "p");
    // By signal, and what is live: a limit, the log, users, hooks.
    write(format!(
        "[server]\nmax_connects = 3\n[telemetry]\nlog = \"debug\"\n[[auth.users]]\nname = \"u\"\npassword = \"p\"\nrole = \"admin\"\n\
         [storage]\nmax_size = \"1TB\"\n{steady}{}",
        other(50)
    ));
    signal(&server.child, "HUP");
    server.wait_until("/api/config", "the reload", LIMIT, |c| c["server"]["max_connects"] == 3);
    let status = server.wait_until("/api/config/status", "the reload", LIMIT, reloads(3));
    assert_eq!((&status["problem"], &status["needs_restart"]), (&Value::Null, &json!([])));
    // From now on nobody else may watch, but who does goes on.
    let refused = Command::new("ffprobe").args(["-v", "error", &server.rtsp_url("steady")]).output().unwrap();
    assert!(!refused.status.success());
    // Defaults that the steady stream sets itself or that are live.
    write(format!("[defaults.recording]\nenabled = true\n{steady}{}", other(50)));
    let (_, report) = server.call("POST", "/api/config/reload", None);
    assert!(report["changed"].as_array().unwrap().contains(&json!("defaults.recording.enabled")), "{report}");
    server.wait_for("other", "recorded", LIMIT, |s| s["recording"]["state"] == "recording");

    assert!(wait(&mut reader, LIMIT).success());
    let numbers = counters(&through);
    assert!(numbers.len() > 300, "{}", numbers.len());
    assert_contiguous(&numbers, "the reader");
    let steady = server.stream("steady");
    assert_eq!((&steady["since"], &steady["recording"]["segments"]), (&since, &json!(0)), "{session}");
    server.stop();
    let recorded = files(&folder.path().join("data/recordings/steady"));
    assert_eq!(recorded.len(), 1);
    check(&recorded[0]);
    assert_contiguous(&counters(&recorded[0]), "the recording");
}

#[test]
fn a_bad_configuration_changes_nothing_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let good = "[[streams]]\nid = \"a\"\nsource_url = \"publisher\"\n";
    let rtsp = "[rtsp]\nlisten = \"127.0.0.1:0\"\n";
    let server = Server::start_with(folder.path(), Some(&format!("{rtsp}{good}")), |command| {
        // It would win.
        command.env_remove("STREAM_MANAGER_RTSP__LISTEN");
    });
    let (taken, path) =
        (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), folder.path().join("config.toml"));
    let port = taken.local_addr().unwrap().port();
    for (text, problem) in [
        ("[server\n".to_owned(), "config.toml:1"),
        (format!("{good}colour = \"red\"\n"), "streams[0].colour: unknown key"),
        (format!("{good}{good}"), "used by an earlier stream"),
        (format!("[[streams]]\nid = \"b\"\nsource_url = \"rtsp://\"\n{good}"), "stream \"b\": source_url"),
        (format!("[rtsp]\nlisten = \"127.0.0.1:{port}\"\n{good}"), "the port is in use"),
        (format!("{rtsp}[telemetry]\nlog = \"a=b=c\"\n{good}"), "telemetry.log"),
        (format!("[[hooks.commands]]\nname = \"x\"\ncommand = []\n{good}"), "hooks.commands[0].command"),
    ] {
        std::fs::write(&path, &text).unwrap();
        let (status, answer) = server.call("POST", "/api/config/reload", None);
        assert_eq!((status, &answer["code"]), (422, &json!("invalid_config")), "{text}");
        assert!(answer["detail"].as_str().unwrap().contains(problem), "{answer}");
        let (_, status) = server.call("GET", "/api/config/status", None);
        assert!(status["problem"].as_str().unwrap().contains(problem), "{status}");
        let (_, page) = server.call("GET", "/api/streams", None);
        assert_eq!((&page["total"], &page["items"][0]["state"]), (&json!(1), &json!("idle")));
    }
    // The old address still serves what it served: a listener that cannot move stays.
    let probe = Command::new("ffprobe").args(["-v", "error", &server.rtsp_url("a")]).output().unwrap();
    assert!(String::from_utf8_lossy(&probe.stderr).contains("404"), "{probe:?}");
    let (_, events) = sse(server.address(), "/api/events?after=0&kind=config_rejected", 7);
    assert_eq!(events.len(), 7);
    // A file that is gone is no configuration.
    std::fs::remove_file(&path).unwrap();
    let (status, _) = server.call("POST", "/api/config/reload", None);
    assert_eq!(status, 422);
    std::fs::write(&path, format!("{rtsp}{good}")).unwrap();
    assert_eq!(server.call("POST", "/api/config/reload", None).0, 200);
    let (_, status) = server.call("GET", "/api/config/status", None);
    assert_eq!(status["problem"], Value::Null);
    assert!(server.stop().contains("the new configuration is refused"));
}

#[test]
fn listeners_move_when_they_are_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let free = || std::net::SocketAddr::from(([127, 0, 0, 1], stream_manager_tests::free_port()));
    let (http, rtsp) = (free(), free());
    let stream = "[[streams]]\nid = \"a\"\nsource_url = \"test://smpte\"\n";
    let config = |http, rtsp| format!("[server]\nlisten = \"{http}\"\n[rtsp]\nlisten = \"{rtsp}\"\n{stream}");
    // Without --port, which would win.
    std::fs::write(folder.path().join("config.toml"), config(http, rtsp)).unwrap();
    let mut command = stream_manager_tests::program::stream_manager();
    command.env_remove("STREAM_MANAGER_RTSP__LISTEN").current_dir(folder.path());
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut child = command.stderr(log).stdout(Stdio::null()).spawn().unwrap();
    let get = |address: std::net::SocketAddr, path: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", &format!("http://{address}{path}")]);
        command.output().unwrap()
    };
    let wait_until = |what: &str, condition: &dyn Fn() -> bool| {
        let start = std::time::Instant::now();
        while !condition() {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
            assert!(start.elapsed() < LIMIT, "{what}: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let plays = |rtsp| {
        let url = format!("rtsp://{rtsp}/a");
        Command::new("ffprobe")
            .args(["-v", "error", "-rtsp_transport", "tcp", &url])
            .output()
            .unwrap()
            .status
            .success()
    };
    wait_until("the server answers", &|| get(http, "/health/ready").status.success());
    wait_until("RTSP plays", &|| plays(rtsp));
    let (new_http, new_rtsp) = (free(), free());
    std::fs::write(folder.path().join("config.toml"), config(new_http, new_rtsp)).unwrap();
    wait_until("the new address answers", &|| get(new_http, "/health/ready").status.success());
    wait_until("the new address plays", &|| plays(new_rtsp));
    wait_until("the old address is left", &|| !get(http, "/health/ready").status.success());
    assert!(!plays(rtsp));
    let shown = String::from_utf8(get(new_http, "/api/streams/a").stdout).unwrap();
    assert!(shown.contains(&format!("rtsp://127.0.0.1:{}/a", new_rtsp.port())), "{shown}");
    // The same port at all addresses: our own listener is in the way, and makes room.
    let everywhere = std::net::SocketAddr::from(([0, 0, 0, 0], new_http.port()));
    std::fs::write(folder.path().join("config.toml"), config(everywhere, new_rtsp)).unwrap();
    wait_until("all addresses answer", &|| {
        std::net::TcpStream::connect(("127.0.0.2", new_http.port())).is_ok()
    });
    assert!(get(new_http, "/health/ready").status.success());
    signal(&child, "TERM");
    assert!(wait(&mut child, LIMIT).success());
}

/// One clear rule: what the operator writes wins, the API fills in the rest.
#[test]
fn the_file_wins_and_the_rest_is_the_api_s() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[server]\nmax_connects = 5\nreload_on_change = false\n";
    let server = Server::start(folder.path(), Some(config));
    let a = json!({"id": "a", "source_url": "rtsp://u:geheim@127.0.0.1:1/x", "enabled": false});
    assert_eq!(server.call("POST", "/api/streams", Some(&a)).0, 201);
    let patch = json!({"defaults": {"recording": {"retention": {"max_age": "7d"}}}, "storage": {"min_free": "1%"},
        "hooks": {"webhooks": [{"name": "w", "url": "http://127.0.0.1:1/", "secret": "geheim"}]}});
    let (status, report) = server.call("PATCH", "/api/config?dry_run=true", Some(&patch));
    assert_eq!((status, &report["dry_run"]), (200, &json!(true)));
    assert_eq!(server.call("GET", "/api/config", None).1["storage"]["min_free"], "2%");
    // A setting is no reload: what the file says by now is left for one.
    std::fs::write(folder.path().join("config.toml"), config.replace('5', "6")).unwrap();
    let (status, report) = server.call("PATCH", "/api/config", Some(&patch));
    assert_eq!(status, 200, "{report}");
    assert_eq!(server.call("GET", "/api/config", None).1["server"]["max_connects"], 5);
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    for (patch, status, code, pointer) in [
        (json!({"server": {"max_connects": 7}}), 409, "set_by_operator", "/server/max_connects"),
        (json!({"storage": {"data_dir": "/x"}}), 422, "invalid_config", "/storage/data_dir"),
        (json!({"hooks": {"commands": []}}), 422, "invalid_config", "/hooks/commands"),
        (json!({"auth": {"users": []}}), 422, "invalid_config", "/auth/users"),
        (json!({"colour": null}), 422, "invalid_config", "/colour"),
    ] {
        let (got, problem) = server.call("PATCH", "/api/config", Some(&patch));
        assert_eq!(
            (got, problem["code"].as_str(), problem["pointer"].as_str()),
            (status, Some(code), Some(pointer))
        );
    }
    let (status, problem) =
        server.call("PATCH", "/api/config", Some(&json!({"storage": {"min_free": "much"}})));
    assert_eq!((status, problem["code"].as_str()), (422, Some("invalid_config")), "{problem}");
    let (_, shown) = server.call("GET", "/api/config", None);
    assert_eq!(shown["hooks"]["webhooks"][0]["secret"], "***");
    // Sent back as it was shown, the secret stays.
    let again = json!({"hooks": {"webhooks": shown["hooks"]["webhooks"]}});
    let (status, report) = server.call("PATCH", "/api/config", Some(&again));
    assert_eq!((status, &report["changed"]), (200, &json!([])), "{report}");
    server.kill();

    // The file takes the stream over, and gives it back.
    let with = format!("{config}[[streams]]\nid = \"a\"\nsource_url = \"publisher\"\n");
    let server = Server::start(folder.path(), Some(&with));
    let shown = server.stream("a");
    assert_eq!((&shown["origin"], &shown["state"]), (&json!("file"), &json!("idle")));
    assert_eq!(server.call("GET", "/api/config/status", None).1["shadowed"], json!(["a"]));
    let (status, problem) = server.call("PUT", "/api/streams/a", Some(&json!({"source_url": "publisher"})));
    assert_eq!((status, &problem["code"]), (409, &json!("defined_in_file")));
    // Deleting one that waits behind the file's leaves that as it is.
    let b = json!({"id": "b", "source_url": "publisher"});
    assert_eq!(server.call("POST", "/api/streams", Some(&b)).0, 201);
    let both = format!("{with}[[streams]]\nid = \"b\"\nsource_url = \"publisher\"\n");
    std::fs::write(folder.path().join("config.toml"), &both).unwrap();
    assert_eq!(server.call("POST", "/api/config/reload", None).0, 200);
    assert_eq!(server.call("POST", "/api/streams/b/disable", None).0, 200);
    assert_eq!(server.call("DELETE", "/api/streams/b?recordings=all", None).0, 204);
    let shown = server.stream("b");
    assert_eq!((&shown["origin"], &shown["enabled"]), (&json!("file"), &json!(false)));
    assert_eq!(server.call("DELETE", "/api/streams/b", None).1["code"], "defined_in_file");
    assert_eq!(server.call("GET", "/api/config", None).1["storage"]["min_free"], "1%");
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    assert_eq!(server.call("POST", "/api/config/reload", None).0, 200);
    let shown = server.stream("a");
    assert_eq!((&shown["origin"], &shown["enabled"]), (&json!("api"), &json!(false)));

    // Everything as one file, without and with secrets; the one with secrets is a whole configuration.
    let (_, text) = run(&["config", "export"], folder.path());
    assert!(text.contains("rtsp://u:***@") && !text.contains("geheim"), "{text}");
    let (code, text) = run(&["config", "export", "--secrets"], folder.path());
    assert_eq!(code, 0);
    server.kill();
    let elsewhere = tempfile::tempdir().unwrap();
    let server = Server::start(elsewhere.path(), Some(&text));
    let shown = server.stream("a");
    assert_eq!((&shown["origin"], &shown["enabled"]), (&json!("file"), &json!(false)));
    assert_eq!(server.call("GET", "/api/config", None).1["storage"]["min_free"], "1%");
    let (_, again) = run(&["config", "export", "--secrets"], elsewhere.path());
    assert_eq!(again, text);
    server.stop();
}

fn corrupt(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&vec![0x5a; length as usize], 0).unwrap();
}

/// A database that is damaged, locked or cannot be written: a clear answer, nothing lost, nothing half done.
#[test]
fn a_database_in_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(folder.path(), None);
    let stream = |id: &str| json!({"id": id, "source_url": "publisher"});
    assert_eq!(server.call("POST", "/api/streams", Some(&stream("a"))).0, 201);
    // Locked by somebody else: refused, with the reason, and nothing is there afterwards.
    let mut lock = Command::new("python3");
    lock.args([
        "-c",
        "import sqlite3,sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('begin immediate'); \
         print('locked', flush=True); sys.stdin.read()",
    ]);
    let mut lock =
        lock.arg(data.join("state.db")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(lock.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "locked\n");
    for (method, path, body) in [
        ("POST", "/api/streams", Some(stream("b"))),
        ("DELETE", "/api/streams/a", None),
        ("POST", "/api/streams/a/recording/start", None),
        ("POST", "/api/streams/a/disable", None),
    ] {
        let (status, problem) = server.call(method, path, body.as_ref());
        assert_eq!((status, problem["code"].as_str()), (503, Some("state_unavailable")), "{method} {path}");
        assert!(problem["detail"].as_str().unwrap().contains("another program has locked it"), "{problem}");
    }
    let (_, page) = server.call("GET", "/api/streams", None);
    assert_eq!((&page["total"], &page["items"][0]["id"]), (&json!(1), &json!("a")));
    assert_eq!(page["items"][0]["recording"]["state"], "off");
    drop(lock.stdin.take());
    lock.wait().unwrap();
    assert_eq!(server.call("POST", "/api/streams", Some(&stream("b"))).0, 201);
    // The copy is made some time after a change, and at the end.
    server.stop();
    assert!(data.join("state.db.copy").is_file());

    // Damaged: the copy is taken, the damaged one kept, and said so.
    corrupt(&data.join("state.db"));
    let _ = std::fs::remove_file(data.join("state.db-wal"));
    let server = Server::start(folder.path(), None);
    let (_, page) = server.call("GET", "/api/streams", None);
    assert_eq!(page["total"], 2, "{}", server.log());
    let (_, events) = sse(server.address(), "/api/events?after=0&kind=state_damaged", 1);
    assert_eq!(events[0]["restored_streams"], 2);
    assert!(folder.path().join(events[0]["kept_as"].as_str().unwrap()).is_file());
    server.stop();
    // Damaged journal: begun anew, nothing else is the matter.
    corrupt(&data.join("events.db"));
    let server = Server::start(folder.path(), None);
    assert_eq!(server.call("GET", "/api/streams", None).1["total"], 2);
    server.stop();
}

/// A write limit on files stands for a full disk and for one that takes nothing.
#[test]
fn a_disk_that_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), None, |command| {
        // Told by an error instead of a signal.
        let mut wrapped = Command::new("env");
        wrapped.arg("--ignore-signal=XFSZ").arg(command.get_program());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        *command = wrapped;
    });
    let stream = |id: String| json!({"id": id, "source_url": "publisher"});
    assert_eq!(server.call("POST", "/api/streams", Some(&stream("a".into()))).0, 201);
    // No file of this process may grow any more.
    let pid = server.child.id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=4096:"]).status().unwrap();
    assert!(limited.success());
    let mut refused = None;
    for n in 0..20 {
        let (status, problem) = server.call("POST", "/api/streams", Some(&stream(format!("s{n}"))));
        if status != 201 {
            refused = Some((n, status, problem));
            break;
        }
    }
    let (n, status, problem) = refused.expect("nothing was refused");
    assert!(status == 507 || status == 503, "{status} {problem}");
    assert_eq!(server.call("GET", &format!("/api/streams/s{n}"), None).0, 404);
    let (_, page) = server.call("GET", "/api/streams", None);
    assert_eq!(page["total"], n + 1);
    let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().unwrap();
    assert!(lifted.success());
    assert_eq!(server.call("POST", "/api/streams", Some(&stream("after".into()))).0, 201);
    server.kill();
    let server = Server::start(folder.path(), None);
    assert_eq!(server.call("GET", "/api/streams", None).1["total"], n + 2);
    server.stop();
}

/// What was answered with success is safe on the disk, not only in the system's memory.
#[test]
fn a_power_cut_right_behind_an_answer_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "data/none");
    let mut expected = Vec::new();
    for round in 0..4 {
        let server = Server::start_with(disk.root(), None, |c| disk.attach(c));
        let (_, page) = server.call("GET", "/api/streams", None);
        let ids: Vec<&str> =
            page["items"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "round {round}");
        for n in 0..3 {
            let id = format!("s{round}-{n}");
            let body = json!({"id": id, "source_url": "publisher"});
            assert_eq!(server.call("POST", "/api/streams", Some(&body)).0, 201);
            expected.push(id);
        }
        server.kill();
        disk.cut_power();
    }
}

/// A disk that refuses, and a clock that jumps.
#[test]
fn a_disk_that_refuses_and_a_clock_that_jumps() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "data/state.db");
    let server = Server::start_with(disk.root(), None, |c| disk.attach(c));
    let stream = |id: &str| json!({"id": id, "source_url": "publisher"});
    let trouble = |what: &str| {
        disk.trouble(what);
        // The disk looks up what is wrong with it twenty times a second.
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(server.call("POST", "/api/streams", Some(&stream("before"))).0, 201);
    for what in ["erofs", "eio"] {
        trouble(what);
        let (status, problem) = server.call("POST", "/api/streams", Some(&stream("refused")));
        assert_eq!((status, problem["code"].as_str()), (503, Some("state_unavailable")), "{what}: {problem}");
        let (status, problem) = server.call("DELETE", "/api/streams/before", None);
        assert_eq!(status, 503, "{what}: {problem}");
        let (_, page) = server.call("GET", "/api/streams", None);
        assert_eq!((&page["total"], &page["items"][0]["id"]), (&json!(1), &json!("before")), "{what}");
        trouble("");
        assert_eq!(server.call("POST", "/api/streams", Some(&stream(what))).0, 201);
        assert_eq!(server.call("DELETE", &format!("/api/streams/{what}"), None).0, 204);
    }
    // Two hours back: numbers of events and what is remembered for keys do not mind.
    let (ids, _) = sse(server.address(), "/api/events?after=0&kind=stream_created", 3);
    let key = [("idempotency-key", "one")];
    assert_eq!(server.call_with("POST", "/api/streams", &key, Some(&stream("k"))).0, 201);
    trouble("clock -7200");
    let (status, again) = server.call_with("POST", "/api/streams", &key, Some(&stream("k")));
    assert_eq!((status, &again["id"]), (201, &json!("k")), "{again}");
    assert_eq!(server.call("POST", "/api/streams", Some(&stream("later"))).0, 201);
    let path = format!("/api/events?kind=stream_created&after={}", ids[2]);
    let (more, events) = sse(server.address(), &path, 2);
    assert!(more[0] > ids[2] && more[1] > more[0], "{more:?}");
    assert_eq!((&events[0]["stream"], &events[1]["stream"]), (&json!("k"), &json!("later")));
    server.kill();
    let server = Server::start_with(disk.root(), None, |c| disk.attach(c));
    assert_eq!(server.call("GET", "/api/streams", None).1["total"], 3);
    server.stop();
}
