//! Hooks: an address that is called, a program that is run, a broker that is published to.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};
use stream_manager_tests::broker::Broker;
use stream_manager_tests::program::Server;
use stream_manager_tests::webhook::endpoint;

const LIMIT: Duration = Duration::from_secs(40);

fn make(server: &Server, id: &str) {
    let body = json!({"id": id, "source_url": "publisher"});
    assert_eq!(server.call("POST", "/api/streams", Some(&body)).0, 201);
}

#[test]
fn a_webhook_is_signed_retried_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    // The second event is refused for good, the fourth is in trouble twice.
    let attempts = std::sync::Mutex::new(0);
    let (address, requests) = endpoint(move |request| match request.json()["stream"].as_str() {
        Some("s1") => 400,
        Some("s3") => {
            let mut attempts = attempts.lock().unwrap();
            *attempts += 1;
            if *attempts <= 2 { 503 } else { 204 }
        }
        _ => 200,
    });
    let config = format!(
        "[[hooks.webhooks]]\nname = \"w\"\nurl = \"http://{address}/x\"\nsecret = \"geheim\"\nstreams = [\"s*\"]\n\
         kinds = [\"stream_created\", \"test\"]\n"
    );
    let server = Server::start(folder.path(), Some(&config));
    for id in ["s0", "other", "s1", "s2", "s3", "s4"] {
        make(&server, id);
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&(200, "s4".to_owned())) {
        let (status, request) = requests.recv_timeout(LIMIT).unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"geheim").unwrap();
        mac.update(format!("{}.{}", request.header("stream-manager-timestamp"), request.body).as_bytes());
        let signature: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(request.header("stream-manager-signature"), format!("sha256={signature}"));
        assert_eq!(request.header("stream-manager-event"), "stream_created");
        assert_eq!(request.header("stream-manager-delivery"), request.json()["id"].to_string());
        seen.push((status, request.json()["stream"].as_str().unwrap().to_owned()));
    }
    let expected =
        [(200, "s0"), (400, "s1"), (200, "s2"), (503, "s3"), (503, "s3"), (204, "s3"), (200, "s4")];
    assert_eq!(seen, expected.map(|(status, id)| (status, id.to_owned())));
    let done = |s: &Value| s["items"][0]["done"].as_u64() == Some(4);
    let status = server.wait_until("/api/hooks", "all is done", LIMIT, done)["items"][0].clone();
    assert_eq!(
        (&status["failed"], &status["given_up"], &status["problem"]),
        (&json!(3), &json!(1), &Value::Null)
    );
    // A test call.
    let (code, test) = server.call("POST", "/api/hooks/w/test", None);
    assert_eq!((code, &test["ok"]), (200, &json!(true)), "{test}");
    assert_eq!(requests.recv_timeout(LIMIT).unwrap().1.json()["kind"], "test");
    assert_eq!(server.call("POST", "/api/hooks/none/test", None).0, 404);
    let log = server.log();
    server.kill();
    assert!(!log.contains("geheim"));

    // What happens while the endpoint is away waits, also over a restart.
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = away.local_addr().unwrap();
    drop(away);
    let server =
        Server::start(folder.path(), Some(&config.replace(&address.to_string(), &nowhere.to_string())));
    make(&server, "s5");
    let failing = |s: &Value| s["items"][0]["problem"].is_string();
    let status = server.wait_until("/api/hooks", "it fails", LIMIT, failing)["items"][0].clone();
    assert!(status["problem"].as_str().unwrap().contains("Connection refused"), "{status}");
    server.kill();
    let server = Server::start(folder.path(), Some(&config));
    make(&server, "s6");
    let mut streams = Vec::new();
    while streams.len() < 2 {
        let (_, request) = requests.recv_timeout(LIMIT).unwrap();
        // The last one before the kill may come twice; none is missing.
        if request.json()["stream"] != "s4" {
            streams.push(request.json()["stream"].clone());
        }
    }
    assert_eq!(streams, ["s5", "s6"]);
    server.stop();
    assert!(matches!(requests.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout)));
}

#[test]
fn a_program_is_run_for_each_event_a_few_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("hook.sh");
    // Says how many run beside it.
    let text = "#!/bin/sh\nmkdir run.$$\nls -d run.* | wc -l >> beside\nsleep 0.2\nrmdir run.$$\n\
                echo \"$STREAM_MANAGER_EVENT_KIND $STREAM_MANAGER_EVENT_STREAM $1 ${STREAM_MANAGER_RTSP__LISTEN-unset}\" >> out\n";
    std::fs::write(&script, text).unwrap();
    let config = "[[hooks.commands]]\nname = \"c\"\ncommand = [\"sh\", \"hook.sh\", \"a b; c\"]\nkinds = [\"stream_created\", \"test\"]\n\
                  max_running = 2\n[[hooks.commands]]\nname = \"none\"\ncommand = [\"/no/such/program\"]\nkinds = [\"stream_deleted\"]\n";
    let server = Server::start(folder.path(), Some(config));
    let (_, test) = server.call("POST", "/api/hooks/none/test", None);
    assert!(test["problem"].as_str().unwrap().contains("/no/such/program cannot be run"), "{test}");
    for n in 0..6 {
        make(&server, &format!("s{n}"));
    }
    let begun = Instant::now();
    let lines = || std::fs::read_to_string(folder.path().join("out")).unwrap_or_default();
    while lines().lines().count() < 6 {
        assert!(begun.elapsed() < LIMIT, "{}\n{}", lines(), server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut out: Vec<String> = lines().lines().map(str::to_owned).collect();
    out.sort();
    let expected: Vec<String> = (0..6).map(|n| format!("stream_created s{n} a b; c unset")).collect();
    assert_eq!(out, expected);
    let beside = std::fs::read_to_string(folder.path().join("beside")).unwrap();
    assert!(beside.lines().all(|n| matches!(n.trim(), "1" | "2")), "{beside}");
    assert_eq!(server.call("GET", "/api/hooks", None).1["items"][0]["failed"], 0);
    server.stop();
}

#[test]
fn events_reach_a_broker_also_after_it_was_away() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Broker::start(folder.path(), None) else { return };
    let port = broker.port;
    for qos in [0, 1, 2] {
        let config = format!(
            "[hooks.mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\nusername = \"sm\"\npassword = \"geheim\"\ntopic = \"cams\"\n\
             kinds = [\"stream_created\", \"test\"]\nqos = {qos}\n"
        );
        let home = tempfile::tempdir().unwrap();
        let (mut listening, heard) = broker.subscribe();
        let server = Server::start(home.path(), Some(&config));
        let status = |expected: &str| loop {
            let (topic, text) = heard.recv_timeout(LIMIT).unwrap();
            if topic == "cams/status" && text == expected {
                return;
            }
        };
        status("online");
        let numbers = 30;
        for n in 0..numbers {
            make(&server, &format!("s{n}"));
        }
        for n in 0..numbers {
            let (topic, text) = heard.recv_timeout(LIMIT).unwrap();
            assert_eq!(topic, format!("cams/s{n}/stream_created"), "qos {qos}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["stream"], format!("s{n}"));
        }
        let (_, test) = server.call("POST", "/api/hooks/mqtt/test", None);
        assert_eq!(test["ok"], true, "{test}");
        assert_eq!(heard.recv_timeout(LIMIT).unwrap().0, "cams/test");
        let all = |s: &Value| s["items"][0]["done"].as_u64() == Some(numbers);
        server.wait_until("/api/hooks", "all is confirmed", LIMIT, all);
        assert!(!server.stop().contains("geheim"));
        status("offline");
        listening.kill().unwrap();
        listening.wait().unwrap();
    }

    // The broker goes, and comes back: nothing is missing.
    let config = format!(
        "[hooks.mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\nusername = \"sm\"\npassword = \"geheim\"\ntopic = \"cams\"\n\
         kinds = [\"stream_created\"]\n"
    );
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), Some(&config));
    make(&server, "before");
    let one = |s: &Value| s["items"][0]["done"].as_u64() == Some(1);
    server.wait_until("/api/hooks", "one is confirmed", LIMIT, one);
    drop(broker);
    for n in 0..5 {
        make(&server, &format!("away{n}"));
    }
    let failing = |s: &Value| s["items"][0]["problem"].is_string();
    server.wait_until("/api/hooks", "it fails", LIMIT, failing);
    let broker = Broker::start(folder.path(), Some(port)).unwrap();
    let (mut listening, heard) = broker.subscribe();
    let mut next = 0;
    while next < 5 {
        let (topic, _) = heard.recv_timeout(Duration::from_secs(90)).unwrap();
        if topic != "cams/status" {
            assert_eq!(topic, format!("cams/away{next}/stream_created"));
            next += 1;
        }
    }
    // A server that dies is told of by the broker.
    server.kill();
    loop {
        let (topic, text) = heard.recv_timeout(LIMIT).unwrap();
        if topic == "cams/status" && text == "offline" {
            break;
        }
    }
    listening.kill().unwrap();
    listening.wait().unwrap();
}
