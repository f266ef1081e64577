//! Backups that the server makes: by request and by schedule, with recordings, encrypted, onto a disk that is gone or full.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use stream_manager_tests::disk::Disk;
use stream_manager_tests::http::{get, request, sse};
use stream_manager_tests::program::{Server, run};

const LIMIT: Duration = Duration::from_secs(40);
const CAM: &str = "[[streams]]\nid = \"cam\"\nsource_url = \"test://smpte?width=320&height=180&gop=25\"\n\
                   recording = { enabled = true }\n";

/// Has a backup made, and waits for it.
fn make(server: &Server, query: &str) -> Value {
    let (status, begun) = server.call("POST", &format!("/api/backups{query}"), None);
    assert_eq!(status, 202, "{begun}");
    assert_eq!((&begun["state"], &begun["trigger"]), (&json!("running"), &json!("request")), "{begun}");
    let path = format!("/api/backups/{}", begun["id"].as_str().unwrap());
    server.wait_until(&path, "the backup is made", LIMIT, |backup| backup["state"] != "running")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn archives(folder: &Path) -> Vec<String> {
    names(folder).into_iter().filter(|name| name.ends_with(".tar.gz") || name.ends_with(".age")).collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Finished segments of the stream.
fn segments(server: &Server) -> u64 {
    let (_, page) = server.call("GET", "/api/streams/cam/recordings?view=segments&limit=1000", None);
    page["items"].as_array().unwrap().iter().filter(|s| s["complete"] == true).count() as u64
}

fn record(server: &Server, count: u64) {
    server.wait_until("/api/storage", "segments are there", LIMIT, |_| {
        server.call("POST", "/api/streams/cam/recording/split", None);
        segments(server) >= count
    });
}

#[test]
fn made_listed_fetched_deleted() {
    let (folder, server) = Server::alone(CAM);
    let made = make(&server, "");
    assert_eq!((&made["state"], &made["progress"]), (&json!("done"), &json!(1.0)), "{made}");
    assert_eq!(made["include"], json!(["config", "state", "index"]));
    let id = made["id"].as_str().unwrap();
    let file = get(&server.url(&format!("/api/backups/{id}/file")));
    assert_eq!((file.status, file.body.len() as u64), (200, made["bytes"].as_u64().unwrap()));
    assert!(file.header("content-disposition").contains(made["file"].as_str().unwrap()));
    let copy = folder.path().join("copy.tar.gz");
    std::fs::write(&copy, &file.body).unwrap();
    let sum = Command::new("sha256sum").arg(&copy).output().unwrap();
    assert!(String::from_utf8_lossy(&sum.stdout).starts_with(made["sha256"].as_str().unwrap()));
    let piece = request("GET", &server.url(&format!("/api/backups/{id}/file")), &[("range", "bytes=10-19")]);
    assert_eq!((piece.status, &piece.body[..]), (206, &file.body[10..20]));
    let (code, text) = run(&["restore", "copy.tar.gz", "--dry-run"], folder.path());
    assert!(code == 0 && text.contains("whole, made"), "{text}");
    // Nobody else may read it, or look into the folder.
    use std::os::unix::fs::PermissionsExt as _;
    let backups = folder.path().join("data/backups");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&backups), 0o700);
    assert!(files(&backups).iter().all(|file| mode(file) == 0o600));
    let only = make(&server, "?include=state");
    assert_eq!(only["include"], json!(["state"]), "{only}");
    let (_, list) = server.call("GET", "/api/backups", None);
    assert_eq!(list["items"], json!([made, only]), "the oldest first");
    let (_, page) = server.call("GET", "/api/backups?limit=1", None);
    assert_eq!((&page["items"], &page["next"]), (&json!([made]), &made["id"]));
    for (query, said) in [("?include=everything", "include"), ("?include=", "include"), ("?what=x", "what")] {
        let (status, problem) = server.call("POST", &format!("/api/backups{query}"), None);
        assert!(
            (400..=422).contains(&status) && problem.to_string().contains(said),
            "{query}: {status} {problem}"
        );
    }
    assert_eq!(server.call("DELETE", &format!("/api/backups/{id}"), None).0, 204);
    assert_eq!(server.call("DELETE", &format!("/api/backups/{id}"), None).0, 404);
    assert_eq!(server.call("GET", "/api/backups/..%2F..%2Fstate.db/file", None).0, 404);
    assert_eq!(archives(&backups), [only["file"].as_str().unwrap()]);
    let (_, events) = sse(server.address(), "/api/events?kind=backup_finished&after=0", 2);
    assert_eq!(events[0]["backup"], made["id"], "{events:?}");
    // They are there for the next process, too.
    server.stop();
    let server = Server::start(folder.path(), None);
    assert_eq!(server.call("GET", "/api/backups", None).1["items"], json!([only]));
    server.stop();
}

#[test]
fn made_by_itself_and_the_oldest_go() {
    let config = format!("[backup]\nschedule = [\"daily 03:30\"]\nkeep = 2\n{CAM}");
    let (folder, server) = Server::alone(&config);
    let first = server
        .wait_until("/api/backups", "the first is due", LIMIT, |list| list["items"][0]["state"] == "done");
    assert_eq!(first["items"][0]["trigger"], "schedule", "{first}");
    let made: Vec<Value> = (0..3).map(|_| make(&server, "")).collect();
    let (_, list) = server.call("GET", "/api/backups", None);
    assert_eq!(list["items"], json!(made[1..]));
    let kept: Vec<&str> = made[1..].iter().map(|backup| backup["file"].as_str().unwrap()).collect();
    assert_eq!(archives(&folder.path().join("data/backups")), kept);
    // One is newer than the last moment: none is made at the next start.
    server.stop();
    let server = Server::start(folder.path(), None);
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(server.call("GET", "/api/backups", None).1["items"], json!(made[1..]));
    let metrics = get(&server.url("/metrics")).text();
    assert!(metrics.contains("stream_manager_backup_timestamp_seconds 1"), "{metrics}");
    // By the API, but for what is none of its affair.
    let patched = server.call("PATCH", "/api/config", Some(&json!({"backup": {"include": ["state"]}})));
    assert_eq!(patched.0, 200, "{patched:?}");
    assert_eq!(make(&server, "")["include"], json!(["state"]));
    for fixed in [json!({"folder": "/tmp"}), json!({"recipients": []})] {
        let (status, problem) = server.call("PATCH", "/api/config", Some(&json!({ "backup": fixed })));
        assert_eq!((status, &problem["code"]), (422, &json!("invalid_config")), "{problem}");
    }
    server.stop();
}

#[test]
fn recordings_are_copied_once_and_brought_back() {
    let (folder, server) = Server::alone(CAM);
    record(&server, 2);
    let all = "?include=config,state,index,recordings";
    let first = make(&server, all);
    assert_eq!(first["state"], "done", "{first}");
    let count = first["recordings"]["files"].as_u64().unwrap();
    assert!(count >= 2 && first["recordings"]["new_files"] == count, "{first}");
    record(&server, count + 2);
    let second = make(&server, all);
    let copied = &second["recordings"];
    assert_eq!(
        copied["files"].as_u64().unwrap() - copied["new_files"].as_u64().unwrap(),
        count,
        "what was there is not copied again: {second}"
    );
    // What only the first had goes with it; what the second has stays.
    let backups = folder.path().join("data/backups");
    let mirror = backups.join("recordings");
    let before = files(&mirror);
    let (_, deleted) = server.call(
        "DELETE",
        "/api/streams/cam/recordings?start=2020-01-01T00:00:00Z&end=2100-01-01T00:00:00Z",
        None,
    );
    assert!(deleted["segments"].as_u64() >= Some(count), "{deleted}");
    record(&server, 1);
    let third = make(&server, all);
    assert_eq!(
        files(&mirror).len() as u64,
        before.len() as u64 + third["recordings"]["new_files"].as_u64().unwrap()
    );
    let delete = |backup: &Value| {
        let path = format!("/api/backups/{}", backup["id"].as_str().unwrap());
        assert_eq!(server.call("DELETE", &path, None).0, 204);
    };
    delete(&first);
    assert!(before.iter().all(|file| file.is_file()), "the second still has them all");
    delete(&third);
    assert_eq!(files(&mirror), before);
    server.stop();
    // An empty machine gets everything back; a file that is not what it was keeps all of it away.
    let new = tempfile::tempdir().unwrap();
    let archive = backups.join(second["file"].as_str().unwrap());
    let arguments = ["restore", archive.to_str().unwrap(), "--config", "config.toml"];
    let good = std::fs::read(&before[0]).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&before[0], bad).unwrap();
    let (code, text) = run(&arguments, new.path());
    assert!(code == 1 && text.contains("it is not what it was"), "{code} {text}");
    assert!(files(new.path()).iter().all(|f| f.ends_with("lock")), "{:?}", files(new.path()));
    std::fs::remove_file(&before[0]).unwrap();
    let (code, text) = run(&arguments, new.path());
    assert!(code == 1 && text.contains("a recording is missing"), "{code} {text}");
    std::fs::write(&before[0], good).unwrap();
    let (code, text) = run(&arguments, new.path());
    assert!(code == 0 && text.contains(&format!("restored {} files of recordings", before.len())), "{text}");
    let recorded = new.path().join("data/recordings/cam");
    let brought = files(&recorded);
    assert_eq!(brought.len(), before.len());
    for (copy, file) in before.iter().zip(&brought) {
        assert_eq!(std::fs::read(copy).unwrap(), std::fs::read(file).unwrap());
        let probed = Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "format=duration"])
            .arg(file)
            .output()
            .unwrap();
        assert!(probed.status.success() && probed.stderr.is_empty(), "{file:?}: {probed:?}");
    }
    // The server there knows them.
    let server = Server::start(new.path(), None);
    server.wait_until("/api/storage", "files are compared", LIMIT, |storage| storage["checked"] == true);
    assert!(segments(&server) >= brought.len() as u64);
    server.stop();
}

#[test]
fn encrypted_ones_are_read_by_who_has_the_key() {
    if Command::new("age-keygen").arg("--version").output().is_err() {
        println!("SKIPPED: age is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let made = Command::new("age-keygen").args(["-o", name]).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8(made.stderr).unwrap();
        said.trim().rsplit(' ').next().unwrap().to_owned()
    };
    let (public, _) = (key("mine.key"), key("other.key"));
    let config = format!("[backup]\nrecipients = [\"{public}\"]\n{CAM}");
    let server = Server::start(folder.path(), Some(&config));
    record(&server, 1);
    let made = make(&server, "?include=config,state,index,recordings");
    assert_eq!((&made["state"], &made["encrypted"]), (&json!("done"), &json!(true)), "{made}");
    server.stop();
    let backups = folder.path().join("data/backups");
    let archive = backups.join(made["file"].as_str().unwrap());
    for file in std::iter::once(&archive).chain(&files(&backups.join("recordings"))) {
        assert!(std::fs::read(file).unwrap().starts_with(b"age-encryption.org/v1\n"), "{file:?}");
    }
    // Somebody else's program reads it.
    let shell = format!("age -d -i mine.key '{}' | tar -tzf -", archive.display());
    let listed = Command::new("sh").args(["-c", &shell]).current_dir(folder.path()).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.lines().eq([
            "manifest.json",
            "config.toml",
            "state.db",
            "accounts.db",
            "recordings.db",
            "objects.db",
            "recordings.jsonl"
        ]),
        "{listed}"
    );
    let new = tempfile::tempdir().unwrap();
    let restore = |keys: &[&str]| {
        let mut arguments = vec!["restore", archive.to_str().unwrap(), "--config", "config.toml"];
        arguments.extend(keys);
        run(&arguments, new.path())
    };
    let (mine, other) = (folder.path().join("mine.key"), folder.path().join("other.key"));
    let (code, text) = restore(&[]);
    assert!(code == 2 && text.contains("it is encrypted") && text.contains("--identity"), "{text}");
    let (code, text) = restore(&["--identity", other.to_str().unwrap()]);
    assert!(code == 2 && text.contains("for other keys"), "{text}");
    let (code, text) = restore(&["--identity", archive.to_str().unwrap()]);
    assert!(code == 2 && text.contains("holds no key"), "{text}");
    assert_eq!(files(new.path()), Vec::<PathBuf>::new());
    let (code, text) = restore(&["--identity", mine.to_str().unwrap()]);
    assert!(code == 0 && text.contains("files of recordings"), "{text}");
    let recorded = files(&new.path().join("data/recordings"));
    let probed = Command::new("ffprobe").args(["-v", "error"]).arg(&recorded[0]).output().unwrap();
    assert!(probed.status.success() && probed.stderr.is_empty(), "{probed:?}");
    // By the program alone, too, and with a key that is none.
    let (code, text) = run(&["backup", "-o", "b.tar.gz.age", "--recipient", &public], folder.path());
    assert!(code == 0, "{text}");
    assert!(std::fs::read(folder.path().join("b.tar.gz.age")).unwrap().starts_with(b"age-encryption"));
    let secret = std::fs::read_to_string(&mine).unwrap();
    let secret = secret.lines().find(|line| line.starts_with("AGE-SECRET")).unwrap();
    let (code, text) = run(&["backup", "-o", "c.tar.gz", "--recipient", secret], folder.path());
    assert!(
        code == 2 && text.contains("a secret key is no recipient") && !text.contains(&secret[20..40]),
        "{text}"
    );
    let (code, text) = run(&["backup", "-o", "c.tar.gz", "--recipient", "age1qqq"], folder.path());
    assert!(code == 2 && text.contains("\"age1qqq\" is no public key"), "{text}");
}

/// How the server says that it cannot, while everything else goes on.
fn failing(server: &Server, said: &str) {
    let failed = make(server, "");
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(failed["problem"].as_str().unwrap().contains(said), "{failed}");
    let (status, health) = server.call("GET", "/health/ready", None);
    let backups = health["components"].as_array().unwrap().iter().find(|c| c["name"] == "backups").unwrap();
    assert_eq!((status, &backups["status"]), (200, &json!("degraded")));
    assert!(backups["reason"].as_str().unwrap().contains(said), "{backups}");
    assert!(get(&server.url("/metrics")).text().contains("stream_manager_backups_failed_total 1"));
    let (_, events) = sse(server.address(), "/api/events?kind=backup_failed&after=0", 1);
    assert!(events[0]["problem"].as_str().unwrap().contains(said), "{events:?}");
    let id = failed["id"].as_str().unwrap();
    assert_eq!(server.call("GET", &format!("/api/backups/{id}/file"), None).0, 409);
    server.wait_for("cam", "running and recorded", LIMIT, |s| {
        s["state"] == "running" && s["recording"]["state"] == "recording"
    });
}

#[test]
fn a_target_that_is_gone() {
    let (folder, server) = Server::alone(&format!("[backup]\nfolder = \"taken/backups\"\n{CAM}"));
    std::fs::write(folder.path().join("taken"), "").unwrap();
    failing(&server, "taken/backups");
    // It is back: so is health.
    std::fs::remove_file(folder.path().join("taken")).unwrap();
    assert_eq!(make(&server, "")["state"], "done");
    let (_, health) = server.call("GET", "/health/ready", None);
    let backups = health["components"].as_array().unwrap().iter().find(|c| c["name"] == "backups").unwrap();
    assert_eq!(backups["status"], "ok");
    server.stop();
}

#[test]
fn a_target_that_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "backups");
    std::fs::create_dir(disk.root().join("backups")).unwrap();
    let config = format!("[backup]\nfolder = \"{}\"\n{CAM}", disk.root().join("backups").display());
    let server = Server::start_with(disk.root(), Some(&config), |command| disk.attach(command));
    assert_eq!(make(&server, "")["state"], "done");
    let before = names(&disk.root().join("backups"));
    disk.trouble("enospc");
    // It looks for its troubles every 50 ms.
    std::thread::sleep(Duration::from_millis(200));
    failing(&server, "No space left");
    assert_eq!(
        names(&disk.root().join("backups")),
        before,
        "nothing is left of it, and the one before is there"
    );
    server.stop();
}

/// A clock that is off by a day makes one backup, not many, and disturbs nothing else.
#[test]
fn a_clock_that_is_off_by_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "nothing");
    let config = format!("[backup]\nschedule = [\"daily 03:30\"]\n{CAM}");
    let server = Server::start_with(disk.root(), Some(&config), |command| disk.attach(command));
    let done = |list: &Value| {
        let items = list["items"].as_array().unwrap();
        items.iter().filter(|backup| backup["state"] == "done").count()
    };
    server.wait_until("/api/backups", "the first is due", LIMIT, |list| done(list) == 1);
    for (clock, at_most) in [("clock 86400", 2), ("clock 0", 3), ("clock -86400", 4)] {
        let before = server.stream("cam")["frames"].as_u64().unwrap();
        disk.trouble(clock);
        // Several looks at the clock later there is one more, if any, and the stream has gone on.
        let begun = std::time::Instant::now();
        server.wait_for("cam", "frames come", LIMIT, |s| {
            s["frames"].as_u64().unwrap() > before + 100 && begun.elapsed() > Duration::from_secs(11)
        });
        let (_, list) = server.call("GET", "/api/backups", None);
        assert!(done(&list) <= at_most, "{clock}: {list}");
        assert_eq!(server.stream("cam")["recording"]["state"], "recording", "{clock}");
        assert_eq!(make(&server, "")["state"], "done", "{clock}");
        let id = server.call("GET", "/api/backups", None).1["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|backup| backup["trigger"] == "request")
            .unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(server.call("DELETE", &format!("/api/backups/{id}"), None).0, 204);
    }
    server.stop();
}

/// One that is being made counts on what others have: they stay until it is done.
#[test]
fn none_is_deleted_while_another_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "backups");
    let backups = disk.root().join("backups");
    std::fs::create_dir(&backups).unwrap();
    let config = format!("[backup]\nfolder = \"{}\"\n{CAM}", backups.display());
    let server = Server::start_with(disk.root(), Some(&config), |command| disk.attach(command));
    record(&server, 2);
    let first = make(&server, "?include=index,recordings");
    assert_eq!(first["state"], "done", "{first}");
    disk.trouble("slow");
    // It looks for its troubles every 50 ms.
    std::thread::sleep(Duration::from_millis(200));
    let (status, second) = server.call("POST", "/api/backups?include=index,recordings", None);
    assert_eq!(status, 202, "{second}");
    let path = |backup: &Value| format!("/api/backups/{}", backup["id"].as_str().unwrap());
    let (status, problem) = server.call("DELETE", &path(&first), None);
    assert_eq!((status, &problem["code"]), (409, &json!("backup_running")), "{problem}");
    disk.trouble("");
    let second = server.wait_until(&path(&second), "it is made", LIMIT, |backup| backup["state"] == "done");
    assert_eq!(server.call("DELETE", &path(&first), None).0, 204);
    let copies = files(&backups.join("recordings")).len() as u64;
    assert_eq!(second["recordings"]["files"], copies, "{second}");
    assert!(copies >= 2);
    server.stop();
}
