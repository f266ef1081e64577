//! Backups: made beside a running server, brought back onto an empty machine, refused when they are not right.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use stream_manager_tests::disk::Disk;
use stream_manager_tests::program::{Server, run, stream_manager};

const LIMIT: Duration = Duration::from_secs(40);
const CONFIG: &str = "[[auth.users]]\nname = \"root\"\npassword = \"geheim\"\nrole = \"admin\"\n\
                      [[streams]]\nid = \"file\"\nsource_url = \"test://ball\"\n";

fn as_root(mut server: Server) -> Server {
    server.log_in("root", "geheim");
    server
}

/// What a server is asked to compare it with another.
fn known(server: &Server) -> Vec<Value> {
    let mut streams = server.call("GET", "/api/streams", None).1["items"].as_array().unwrap().clone();
    for stream in &mut streams {
        let mut shown = json!({"id": stream["id"], "config": stream["config"]});
        if stream["origin"] == "api" {
            // Those of the file are as old as the process.
            (shown["revision"], shown["created"]) = (stream["revision"].clone(), stream["created"].clone());
        }
        *stream = shown;
    }
    let users = server.call("GET", "/api/users", None).1["items"].clone();
    let tokens = server.call("GET", "/api/tokens", None).1["items"].clone();
    let tokens: Vec<Value> = tokens.as_array().unwrap().iter().map(|t| t["id"].clone()).collect();
    let marks = server.call("GET", "/api/streams/cam/marks", None).1["items"].clone();
    let recorded = server.call("GET", "/api/streams/cam/recordings", None).1["items"].clone();
    vec![json!(streams), users, json!(tokens), marks, recorded]
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a"]).arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn an_empty_machine_is_as_the_old_one() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = as_root(Server::start(old.path(), Some(CONFIG)));
    let cam = json!({"id": "cam", "source_url": "test://smpte?width=320&height=180&gop=25", "recording": {"enabled": true}});
    assert_eq!(server.call("POST", "/api/streams", Some(&cam)).0, 201);
    let user = json!({"name": "vic", "password": "see", "role": "viewer"});
    assert_eq!(server.call("POST", "/api/users", Some(&user)).0, 201);
    let (_, token) = server.call("POST", "/api/tokens", Some(&json!({"name": "t", "user": "vic"})));
    server.call("PATCH", "/api/config", Some(&json!({"server": {"max_connects": 7}})));
    server.call("POST", "/api/streams/cam/marks", Some(&json!({"kind": "note", "text": "here"})));
    server.wait_until("/api/storage", "two segments", LIMIT, |storage| {
        server.call("POST", "/api/streams/cam/recording/split", None);
        let streams = storage["streams"].as_array().into_iter().flatten();
        streams.filter(|s| s["id"] == "cam").any(|s| s["segments"].as_u64() >= Some(2))
    });
    let state = server.call("POST", "/api/streams/cam/recording/stop", None).1;
    assert_eq!(state["state"], "off", "{state}");
    // Beside the running server, which goes on making streams.
    let file = old.path().join("b.tar.gz");
    let (code, text) = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            for n in 0..40 {
                let stream = json!({"id": format!("busy-{n}"), "source_url": "publisher"});
                assert_eq!(server.call("POST", "/api/streams", Some(&stream)).0, 201);
                assert_eq!(server.call("DELETE", &format!("/api/streams/busy-{n}"), None).0, 204);
            }
        });
        let made = run(&["backup", "-o", "b.tar.gz"], old.path());
        busy.join().unwrap();
        made
    });
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("config.toml") && text.contains("accounts.db") && text.contains("recordings.db"),
        "{text}"
    );
    // Others read it, and only its owner may.
    let listed = Command::new("tar").args(["-tzf"]).arg(&file).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        ["manifest.json", "config.toml", "state.db", "accounts.db", "recordings.db", "objects.db"]
    );
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(&["backup", "-o", "b.tar.gz"], old.path()).0, 2, "it is there already");
    // Once more now that nothing changes, to compare.
    let (code, text) = run(&["backup", "-o", "b.tar.gz", "--overwrite"], old.path());
    assert_eq!(code, 0, "{text}");
    let before = known(&server);
    server.stop();
    // The machine is gone; its disk of recordings was saved.
    let kept = new.path().join("b.tar.gz");
    std::fs::copy(&file, &kept).unwrap();
    let (code, text) = run(&["restore", "b.tar.gz", "--dry-run"], new.path());
    assert!(code == 0 && text.contains("whole, made"), "{text}");
    assert_eq!(std::fs::read_dir(new.path()).unwrap().count(), 1, "a look changes nothing");
    let (code, text) = run(&["restore", "b.tar.gz", "--config", "config.toml"], new.path());
    assert_eq!(code, 0, "{text}");
    copy_folder(&old.path().join("data/recordings"), &new.path().join("data/"));
    let server = as_root(Server::start(new.path(), None));
    server.wait_until("/api/storage", "the files are compared", LIMIT, |s| s["checked"] == true);
    assert_eq!(known(&server), before);
    assert_eq!(server.call("GET", "/api/config", None).1["server"]["max_connects"], 7);
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let me = server.call_with("GET", "/api/me", &[("authorization", &bearer)], None);
    assert_eq!(me.1["user"], "vic");
    // Not while a server runs on it, nor over what is there.
    let (code, text) = run(&["restore", "b.tar.gz", "--overwrite"], new.path());
    assert!(code == 1 && text.contains("is in use by process"), "{text}");
    assert_eq!(known(&server), before);
    server.stop();
    let (code, text) = run(&["restore", "b.tar.gz"], new.path());
    assert!(code == 2 && text.contains("is there already"), "{text}");
    let (code, text) = run(&["restore", "b.tar.gz", "--overwrite"], new.path());
    assert!(code == 0 && text.contains("what was there before is in data/before-restore-"), "{text}");
    let server = as_root(Server::start(new.path(), None));
    server.wait_until("/api/storage", "the files are compared", LIMIT, |s| s["checked"] == true);
    assert_eq!(known(&server), before);
    server.stop();
}

/// A full disk: said so, and nothing is left of the attempt; nor is anything lost of the backup before.
#[test]
fn a_disk_without_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "backups");
    let server = as_root(Server::start(disk.root(), Some(CONFIG)));
    std::fs::create_dir(disk.root().join("backups")).unwrap();
    let backup = |name: &str, arguments: &[&str]| {
        let mut command = stream_manager();
        let file = disk.root().join("backups").join(name);
        command.arg("backup").arg("-o").arg(file).args(arguments).current_dir(disk.root());
        disk.attach(&mut command);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(backup("b.tar.gz", &[]).0, Some(0));
    let good = std::fs::read(disk.root().join("backups/b.tar.gz")).unwrap();
    disk.trouble("enospc");
    for (name, arguments) in [("b.tar.gz", ["--overwrite"].as_slice()), ("c.tar.gz", &[])] {
        let (code, said) = backup(name, arguments);
        assert!(code == Some(4) && said.contains("No space left"), "{name}: {code:?} {said}");
        let left: Vec<_> =
            std::fs::read_dir(disk.root().join("backups")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["b.tar.gz"]);
        assert_eq!(std::fs::read(disk.root().join("backups/b.tar.gz")).unwrap(), good);
    }
    // The server has not noticed.
    assert_eq!(server.call("GET", "/api/streams/file", None).0, 200);
    server.stop();
}

/// Everything in a folder, by name and content.
fn everything(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap() != "lock" {
                all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn what_is_not_right_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let server = as_root(Server::start(at, Some(CONFIG)));
    server.wait_for("file", "running", LIMIT, |s| s["state"] == "running");
    server.stop();
    assert_eq!(run(&["backup", "-o", "good.tar.gz"], at).0, 0);
    let good = std::fs::read(at.join("good.tar.gz")).unwrap();
    let shell = |script: &str| {
        let output = Command::new("sh").args(["-e", "-c", script]).current_dir(at).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    };
    // A byte in the midst of it, a half of it, another order, another content, a newer form, a name that leads elsewhere.
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    std::fs::write(at.join("flipped.tar.gz"), flipped).unwrap();
    std::fs::write(at.join("half.tar.gz"), &good[..middle]).unwrap();
    std::fs::write(at.join("rubbish.tar.gz"), "not a tar").unwrap();
    std::fs::write(at.join("empty.tar.gz"), "").unwrap();
    shell(
        "mkdir x && cd x && tar xzf ../good.tar.gz && files='config.toml state.db accounts.db recordings.db objects.db'
         tar czf ../foreign.tar.gz $files
         printf x >> state.db && tar czf ../changed.tar.gz manifest.json $files && truncate -s -1 state.db
         tar czf ../missing.tar.gz manifest.json config.toml state.db
         cp manifest.json kept && sed 's/\"format\": 1/\"format\": 2/' kept > manifest.json && tar czf ../newer.tar.gz manifest.json $files
         sed 's/\"state.db\"/\"..\\/evil\"/' kept > manifest.json && tar czf ../leading.tar.gz manifest.json $files
         cp kept manifest.json && rm state.db && ln -s /etc/passwd state.db && tar czf ../link.tar.gz manifest.json $files
         cd .. && rm -rf x",
    );
    shell(
        "mkdir y && cd y && tar xzf ../good.tar.gz
         python3 -c \"import sqlite3; c = sqlite3.connect('state.db'); c.execute('pragma user_version = 99'); c.commit()\"
         python3 - <<'END'
import hashlib, json
m = json.load(open('manifest.json'))
for f in m['files']:
    data = open(f['name'], 'rb').read()
    f['bytes'], f['sha256'] = len(data), hashlib.sha256(data).hexdigest()
json.dump(m, open('manifest.json', 'w'))
END
         tar czf ../schema.tar.gz manifest.json config.toml state.db accounts.db recordings.db objects.db && cd .. && rm -rf y",
    );
    let before = everything(at);
    for (file, said) in [
        ("flipped", "damaged"),
        ("half", "damaged"),
        ("rubbish", "no backup of Stream Manager"),
        ("empty", "no backup of Stream Manager"),
        ("foreign", "it has no manifest"),
        ("changed", "damaged"),
        ("missing", "accounts.db is missing"),
        ("newer", "use a newer version"),
        ("leading", "use a newer version"),
        ("link", "damaged"),
        ("schema", "use a newer version"),
        ("none", "No such file"),
    ] {
        let (code, text) =
            run(&["restore", &format!("{file}.tar.gz"), "--config", "config.toml", "--overwrite"], at);
        assert!(code != 0 && text.contains(said), "{file}: {code} {text}");
        assert_eq!(everything(at), before, "{file}");
    }
    let (code, text) = run(&["backup", "-o", "no/such/folder/b.tar.gz"], at);
    assert!(code == 4 && text.contains("no/such/folder"), "{text}");
    let (code, text) =
        run(&["backup", "--data-dir", "nowhere", "-o", "b.tar.gz", "--config", "good.tar.gz"], at);
    assert!(code != 0 && !at.join("b.tar.gz").exists(), "{text}");
    // And the server still starts.
    let server = as_root(Server::start(at, None));
    assert_eq!(server.call("GET", "/api/streams/file", None).0, 200);
    server.stop();
}
