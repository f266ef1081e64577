//! What the server does not connect to, however it is asked: nobody there ever sees a connection.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use std::net::TcpListener;
use std::time::Duration;
use stream_manager_tests::program::Server;
use stream_manager_tests::wait_until;

const LIMIT: Duration = Duration::from_secs(40);

/// Somebody who must not be reached, at all addresses of this machine.
struct Inside {
    listeners: Vec<TcpListener>,
    port: u16,
}

impl Inside {
    fn new() -> Self {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let mut listeners = vec![first];
        listeners.extend(TcpListener::bind(("::1", port)));
        listeners.extend(TcpListener::bind(("127.0.0.2", port)));
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
        }
        Self { listeners, port }
    }

    fn was_reached(&self) -> bool {
        self.listeners.iter().any(|listener| listener.accept().is_ok())
    }
}

/// This machine, in all its spellings.
const HERE: [&str; 10] = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
];

#[test]
fn sources_forwards_and_questions() {
    let inside = Inside::new();
    let port = inside.port;
    let config = "[outbound]\ndeny = [\"127.0.0.0/8\", \"::1\"]\n[defaults]\nstart_timeout = \"1s\"\n\
                  [[streams]]\nid = \"well\"\nsource_url = \"test://ball\"\n";
    let (_folder, server) = Server::alone(config);
    let mut number = 0;
    for host in HERE {
        for scheme in ["rtsp", "http", "rtmp", "srt"] {
            let url = format!("{scheme}://{host}:{port}/x");
            number += 1;
            let id = format!("s{number}");
            let (status, made) =
                server.call("POST", "/api/streams", Some(&json!({"id": id, "source_url": url})));
            if status == 422 {
                // It is no address of that kind.
                continue;
            }
            assert_eq!(status, 201, "{url}: {made}");
            let failed = server.wait_for(&id, &url, LIMIT, |s| s["last_error"].is_string());
            let said = failed["last_error"].as_str().unwrap();
            assert!(said.contains("is not to be connected to (outbound.deny)"), "{url}: {said}");
            assert_eq!(server.call("DELETE", &format!("/api/streams/{id}"), None).0, 204);
        }
    }
    // By the other ways.
    for (id, body) in [
        ("whep", json!({"source_url": format!("whep://127.0.0.1:{port}/x")})),
        ("https", json!({"source_url": format!("https://localhost:{port}/x")})),
        ("rtsps", json!({"source_url": format!("rtsps://localhost:{port}/x")})),
    ] {
        let mut stream = body.clone();
        stream["id"] = json!(id);
        assert_eq!(server.call("POST", "/api/streams", Some(&stream)).0, 201, "{id}");
        let failed = server.wait_for(id, id, LIMIT, |s| s["last_error"].is_string());
        assert!(failed["last_error"].as_str().unwrap().contains("outbound.deny"), "{id}: {failed}");
    }
    let forwards: Vec<_> = ["rtsp", "rtmp", "srt", "whip"]
        .map(|scheme| json!({"url": format!("{scheme}://127.0.0.1:{port}/live/key")}))
        .into();
    let count = forwards.len();
    let stream = json!({"id": "sent", "source_url": "test://ball?width=320&height=180", "forward": forwards});
    let (status, made) = server.call("POST", "/api/streams", Some(&stream));
    assert_eq!(status, 201, "{made}");
    let sent = server.wait_for("sent", "all forwards fail", LIMIT, |s| {
        let failed = s["forwards"].as_array().into_iter().flatten().filter(|f| f["last_error"].is_string());
        failed.count() == count
    });
    for forward in sent["forwards"].as_array().unwrap() {
        assert!(forward["last_error"].as_str().unwrap().contains("outbound.deny"), "{forward}");
    }
    let (_, probed) =
        server.call("POST", "/api/probe", Some(&json!({"url": format!("rtsp://127.0.0.1:{port}/x")})));
    assert!(probed.to_string().contains("outbound.deny"), "{probed}");
    let asked =
        json!({"addresses": [format!("http://127.0.0.1:{port}/onvif/device_service")], "timeout": "2s"});
    let (_, found) = server.call("POST", "/api/discover", Some(&asked));
    assert!(!found.to_string().contains("profiles"), "{found}");
    assert!(!inside.was_reached(), "somebody inside was reached");
    server.wait_for("well", "others go on", LIMIT, |s| s["state"] == "running");
    server.stop();
}

#[test]
fn webhooks_and_exceptions_while_it_runs() {
    let inside = Inside::new();
    let port = inside.port;
    let config = |allow: &str| {
        format!(
            "[outbound]\ndeny = [\"127.0.0.0/8\"]\nallow = [{allow}]\n\
             [[hooks.webhooks]]\nname = \"here\"\nurl = \"http://127.0.0.1:{port}/\"\n\
             [[streams]]\nid = \"cam\"\nsource_url = \"rtsp://127.0.0.2:{port}/x\"\n"
        )
    };
    let (folder, server) = Server::alone(&config(""));
    server.wait_for("cam", "it is refused", LIMIT, |s| {
        s["last_error"].as_str().unwrap_or_default().contains("outbound.deny")
    });
    server.wait_until("/api/hooks", "the hook fails", LIMIT, |hooks| {
        hooks["items"][0]["problem"].as_str().unwrap_or_default().contains("outbound.deny")
    });
    assert!(!inside.was_reached());
    std::fs::write(folder.path().join("config.toml"), config("\"127.0.0.2\"")).unwrap();
    assert_eq!(server.call("POST", "/api/config/reload", None).0, 200);
    wait_until("the exception is connected to", LIMIT, || inside.listeners[2].accept().is_ok());
    assert!(inside.listeners[0].accept().is_err(), "the hook is still refused");
    let (status, problem) = server.call("PATCH", "/api/config", Some(&json!({"outbound": {"deny": []}})));
    assert_eq!((status, &problem["code"]), (422, &json!("invalid_config")), "{problem}");
    server.stop();
}

#[test]
fn secrets_of_clouds_are_closed_by_default() {
    let (_folder, server) = Server::alone("[defaults]\nstart_timeout = \"1s\"\n");
    for (number, url) in [
        "http://169.254.169.254/latest/meta-data/",
        "rtsp://[fd00:ec2::254]/x",
        "http://2852039166/x",
        "rtsp://[::ffff:a9fe:a9fe]/x",
    ]
    .iter()
    .enumerate()
    {
        let id = format!("s{number}");
        assert_eq!(server.call("POST", "/api/streams", Some(&json!({"id": id, "source_url": url}))).0, 201);
        let failed = server.wait_for(&id, url, LIMIT, |s| s["last_error"].is_string());
        assert!(failed["last_error"].as_str().unwrap().contains("outbound.deny"), "{url}: {failed}");
    }
    server.stop();
}
