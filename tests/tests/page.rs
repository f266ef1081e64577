//! The page, as people use it: flows in a headless Chromium, its types, and what it weighs.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use stream_manager_tests::player::{missing, modules};
use stream_manager_tests::program::{Server, signal, stream_manager, wait};
use stream_manager_tests::{free_port, wait_until};

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
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
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
        .args(["--noEmit", "--allowJs", "--checkJs", "--strict", "--noUnusedLocals", "--target", "es2023"])
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
    assert_eq!(flow.next(), json!({"searched": ["dead"]}));
    assert_eq!(flow.next(), json!({"one": ["dead"], "pager": "1 of 2"}));
    assert_eq!(flow.next(), json!({"next": ["ball"]}));
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
