//! Events: heard by WebSocket and as server-sent events, also by who was away, and not by who is too slow.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use stream_manager_tests::program::Server;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

const LIMIT: Duration = Duration::from_secs(40);

type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

fn websocket(server: &Server, query: &str) -> Socket {
    let url = format!("ws://{}/api/events{query}", server.address());
    let (socket, _) = tungstenite::connect(url).unwrap();
    let MaybeTlsStream::Plain(stream) = socket.get_ref() else { panic!() };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// The next event.
fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn next_of(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let event = next(socket);
        if event["kind"] == kind {
            return event;
        }
    }
}

/// A connection that reads server-sent events.
struct Sse(BufReader<TcpStream>);

impl Sse {
    fn open(server: &Server, query: &str, headers: &str) -> Self {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        write!(socket, "GET /api/events{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
        let mut reader = BufReader::new(socket);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        Self(reader)
    }

    /// Id, kind and data of the next event.
    fn next(&mut self) -> (u64, String, Value) {
        let (mut id, mut kind) = (0, String::new());
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
            let line = line.trim_end();
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.parse().unwrap();
            } else if let Some(text) = line.strip_prefix("event: ") {
                kind = text.to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (id, kind, serde_json::from_str(text).unwrap());
            }
        }
    }
}

fn make(server: &Server, id: &str) {
    let body = json!({"id": id, "source_url": "publisher"});
    assert_eq!(server.call("POST", "/api/streams", Some(&body)).0, 201);
}

fn remove(server: &Server, id: &str) {
    assert_eq!(server.call("DELETE", &format!("/api/streams/{id}"), None).0, 204);
}

#[test]
fn events_are_heard_as_they_happen_and_filtered() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let mut all = websocket(&server, "");
    let mut some = websocket(&server, "?stream=yard/*&kind=stream_created,stream_deleted");
    let mut sse = Sse::open(&server, "?kind=stream_deleted", "");
    for id in ["door", "yard/a", "yard/b"] {
        make(&server, id);
        remove(&server, id);
    }
    let created = next_of(&mut all, "stream_created");
    assert_eq!((&created["stream"], &created["origin"]), (&json!("door"), &json!("api")));
    assert!(created["id"].as_u64() > Some(0) && created["time"].as_str().unwrap().ends_with('Z'));
    let heard: Vec<(Value, Value)> =
        (0..4).map(|_| next(&mut some)).map(|e| (e["kind"].clone(), e["stream"].clone())).collect();
    let pairs = [("created", "a"), ("deleted", "a"), ("created", "b"), ("deleted", "b")];
    let expected: Vec<(Value, Value)> =
        pairs.map(|(kind, id)| (json!(format!("stream_{kind}")), json!(format!("yard/{id}")))).into();
    assert_eq!(heard, expected);
    for id in ["door", "yard/a", "yard/b"] {
        let (number, kind, event) = sse.next();
        assert_eq!(
            (kind.as_str(), &event["stream"], &event["id"]),
            ("stream_deleted", &json!(id), &json!(number))
        );
    }
    for (query, text) in [
        ("?kind=stream_state,nonsense", "\"nonsense\" is no kind of event"),
        ("?stream=a%20b", "is no pattern"),
        ("?after=x", "invalid digit"),
        ("?colour=red", "unknown"),
    ] {
        let (status, problem) = server.call("GET", &format!("/api/events{query}"), None);
        assert_eq!((status, problem["code"].as_str()), (400, Some("invalid_query")), "{query} {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(text), "{problem}");
    }
    // The end of the server is said, and does not wait for listeners.
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let mut reason = None;
    while let Ok(message) = all.read() {
        if let Message::Close(Some(frame)) = message {
            reason = Some((u16::from(frame.code), frame.reason.to_string()));
        }
    }
    assert_eq!(reason, Some((1001, "the server is shutting down".to_owned())));
}

/// Whoever was away goes on behind the last event that he has, also over a restart, and misses none.
#[test]
fn a_listener_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let mut sse = Sse::open(&server, "?kind=stream_created", "");
    make(&server, "s0");
    let (last, ..) = sse.next();
    drop(sse);
    for n in 1..20 {
        make(&server, &format!("s{n}"));
    }
    server.stop();
    let server = Server::start(folder.path(), None);
    for n in 20..30 {
        make(&server, &format!("s{n}"));
    }
    let mut again = Sse::open(&server, "?kind=stream_created", &format!("Last-Event-ID: {last}\r\n"));
    let mut socket = websocket(&server, &format!("?kind=stream_created&after={last}"));
    let mut before = last;
    for n in 1..30 {
        let (id, _, event) = again.next();
        assert_eq!((&event["stream"], next(&mut socket)), (&json!(format!("s{n}")), event.clone()));
        assert!(id > before);
        before = id;
    }
    make(&server, "live");
    assert_eq!(again.next().2["stream"], "live");
    server.kill();
    // A journal that does not reach that far says so.
    let server = Server::start(folder.path(), Some("[events]\njournal_size = 5\n"));
    for n in 0..10 {
        make(&server, &format!("t{n}"));
    }
    server.stop();
    let server = Server::start(folder.path(), Some("[events]\njournal_size = 5\n"));
    let mut socket = websocket(&server, "?after=1");
    assert_eq!(next(&mut socket)["kind"], "missed");
    server.stop();
}

/// A listener that takes nothing is cut off; the others and the server do not notice.
#[test]
fn a_listener_that_takes_nothing_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let mut slow = TcpStream::connect(server.address()).unwrap();
    write!(
        slow,
        "GET /api/events HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut quick = websocket(&server, "?kind=stream_created");
    // More than any buffer between the two holds.
    let operations: Vec<Value> = (0..5000)
        .map(|n| json!({"op": "create", "stream": {"id": format!("s{n}"), "source_url": "publisher", "enabled": false}}))
        .collect();
    let names: Vec<Value> = (0..5000).map(|n| json!({"op": "delete", "id": format!("s{n}")})).collect();
    let begun = Instant::now();
    let mut rounds = 0;
    let closed = || {
        // Open connections of the server's, as the system counts them.
        let inode = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X} ", slow.local_addr().unwrap().port());
        // 01: established.
        !inode.lines().any(|line| {
            line.split_whitespace().nth(2).is_some_and(|remote| format!("{remote} ").ends_with(&port))
                && line.split_whitespace().nth(3) == Some("01")
        })
    };
    assert!(!closed());
    while !closed() {
        assert!(
            begun.elapsed() < Duration::from_secs(90),
            "the slow one is still there after {rounds} rounds"
        );
        for batch in [&operations, &names] {
            let (status, result) =
                server.call("POST", "/api/streams:batch", Some(&json!({"operations": batch})));
            assert_eq!((status, &result["failed"]), (200, &json!(0)));
        }
        for n in 0..5000 {
            assert_eq!(next(&mut quick)["stream"], format!("s{n}"));
        }
        rounds += 1;
    }
    drop(slow);
    server.stop();
}

/// Connections that only take up room end by themselves.
#[test]
fn half_open_and_crawling_connections_are_ended() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    // A head that never ends, one byte at a time.
    let mut crawling = TcpStream::connect(server.address()).unwrap();
    crawling.write_all(b"GET /api/streams HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    // A body that never comes.
    let mut waiting = TcpStream::connect(server.address()).unwrap();
    let head = b"POST /api/streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    waiting.write_all(head).unwrap();
    // Nothing at all.
    let mut silent = TcpStream::connect(server.address()).unwrap();
    // A WebSocket that takes everything and says nothing.
    let mut half_open = TcpStream::connect(server.address()).unwrap();
    write!(
        half_open,
        "GET /api/events HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let begun = Instant::now();
    let mut gone = false;
    while !gone && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(500));
        gone = crawling.write_all(b"X-A: b\r\n").is_err();
        assert_eq!(server.call("GET", "/health/live", None).0, 200);
    }
    assert!(gone, "a crawling head is still taken");
    waiting.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    half_open.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    half_open.read_to_end(&mut rest).unwrap();
    let said = String::from_utf8_lossy(&rest);
    assert!(said.contains("no answer to pings"), "{said}");
    server.stop();
}
