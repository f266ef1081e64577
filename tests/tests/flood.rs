//! Too many connections, and ones that say almost nothing, at each listener: others are served, memory is bounded, and the slow ones are
//! let go of.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use stream_manager_tests::authority::{authority, certificate};
use stream_manager_tests::program::Server;
use stream_manager_tests::{free_port, wait_until};

const LIMIT: Duration = Duration::from_secs(40);
/// Connections in all.
const FLOOD: usize = 10_000;

struct Ports {
    http: u16,
    https: u16,
    rtsp: u16,
    rtsps: u16,
    rtmp: u16,
}

fn start(folder: &std::path::Path) -> (Server, Ports) {
    authority(folder);
    certificate(folder, "one", "2");
    let [https, rtsp, rtsps, rtmp] = [(); 4].map(|()| free_port());
    let config = format!(
        "[server]\ntls_listen = \"127.0.0.1:{https}\"\ntls_certificate = \"one.pem\"\ntls_key = \"one.key\"\n\
         [rtsp]\ntls_listen = \"127.0.0.1:{rtsps}\"\ntls_certificate = \"one.pem\"\ntls_key = \"one.key\"\n\
         [[streams]]\nid = \"cam\"\nsource_url = \"test://smpte?width=320&height=180&gop=25\"\nrecording = {{ enabled = true }}\n"
    );
    let server = Server::start_with(folder, Some(&config), |command| {
        command
            .env("STREAM_MANAGER_RTSP__LISTEN", format!("127.0.0.1:{rtsp}"))
            .env("STREAM_MANAGER_RTMP__LISTEN", format!("127.0.0.1:{rtmp}"));
    });
    let http = server.address().rsplit(':').next().unwrap().parse().unwrap();
    server.wait_for("cam", "it is recorded", LIMIT, |s| s["frames"].as_u64() > Some(5));
    (server, Ports { http, https, rtsp, rtsps, rtmp })
}

/// Somebody else, at another address, is served by HTTP, HTTPS, RTSP, RTSPS and RTMP.
fn others_are_served(ports: &Ports) {
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sk", "--interface", "127.0.0.2", "--max-time", "15"]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(curl(&[&format!("http://127.0.0.1:{}/health/live", ports.http)]).contains("ok"));
    assert!(curl(&[&format!("https://127.0.0.1:{}/health/live", ports.https)]).contains("ok"));
    let described = curl(&[&format!("rtsp://127.0.0.1:{}/cam", ports.rtsp), "-i", "-X", "OPTIONS"]);
    assert!(described.contains("RTSP/1.0 200"), "{described}");
    // Its handshake and its first answer.
    let script =
        format!("(sleep 0.3) | openssl s_client -connect 127.0.0.1:{} -bind 127.0.0.2:0 2>&1", ports.rtsps);
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("BEGIN CERTIFICATE"), "{output:?}");
    let script = format!(
        "import socket\ns = socket.create_connection(('127.0.0.1', {}), 10, ('127.0.0.2', 0))\n\
         s.sendall(b'\\x03' + bytes(1536))\nassert s.recv(1) == b'\\x03'",
        ports.rtmp
    );
    let output = Command::new("python3").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn memory(server: &Server) -> u64 {
    // From another address, too: this one has no places left.
    let output = Command::new("curl")
        .args(["-s", "--interface", "127.0.0.2", "--max-time", "15", &server.url("/api/system")])
        .output()
        .unwrap();
    let system: Value = serde_json::from_slice(&output.stdout).unwrap();
    system["memory_bytes"].as_u64().unwrap()
}

fn connect(port: u16) -> Option<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(10)).ok()
}

#[test]
fn ten_thousand_connections() {
    let folder = tempfile::tempdir().unwrap();
    let (server, ports) = start(folder.path());
    // For this side of the connections; the server does that by itself.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    // Where fewer may be open, as many as there may.
    let most = limit.maximum.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let flood = FLOOD.min(most.saturating_sub(500));
    if flood < FLOOD {
        println!("only {flood} connections: no more files may be open here");
    }
    let before = memory(&server);
    for port in [ports.http, ports.https, ports.rtsp, ports.rtsps, ports.rtmp] {
        let mut held = Vec::with_capacity(flood);
        for _ in 0..flood {
            let Some(mut socket) = connect(port) else { continue };
            // Something, so that it is not only the kernel that has them.
            let _ = socket.write_all(b"\x16");
            held.push(socket);
        }
        assert!(held.len() > flood * 9 / 10, "{} could connect", held.len());
        others_are_served(&ports);
        let now = memory(&server);
        assert!(now < before + (200 << 20), "port {port}: {before} bytes became {now}");
        drop(held);
    }
    // This address, too, as soon as its connections are gone.
    wait_until("this address is served again", LIMIT, || {
        std::panic::catch_unwind(|| server.call("GET", "/health/live", None).0 == 200).unwrap_or(false)
    });
    let stream = server.stream("cam");
    assert_eq!(
        (&stream["state"], &stream["recording"]["lost_frames"]),
        (&"running".into(), &0.into()),
        "{stream}"
    );
    server.stop();
}

#[test]
fn who_says_almost_nothing_is_let_go_of() {
    let folder = tempfile::tempdir().unwrap();
    let (server, ports) = start(folder.path());
    // What each would have to say, a letter now and then: it never comes to an end.
    let http = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nx-a: ".as_slice();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let rtsp = b"DESCRIBE rtsp://localhost/cam RTSP/1.0\r\nCSeq: 1\r\nX-A: ".as_slice();
    let rtmp = b"\x03\x00\x00\x00".as_slice();
    let mut slow: Vec<(u16, &[u8], usize, TcpStream)> = Vec::new();
    for (port, text) in [
        (ports.http, http),
        (ports.https, hello),
        (ports.rtsp, rtsp),
        (ports.rtsps, hello),
        (ports.rtmp, rtmp),
    ] {
        for silent in [true, false].repeat(50) {
            let socket = connect(port).unwrap();
            socket.set_nonblocking(true).unwrap();
            slow.push((port, if silent { b"" } else { text }, 0, socket));
        }
    }
    assert_eq!(slow.len(), 500);
    let begun = Instant::now();
    let mut served = Instant::now();
    while !slow.is_empty() {
        slow.retain_mut(|(_, text, at, socket)| {
            // What was to be said is followed by more of the same.
            let letter = [text.get(*at).copied().unwrap_or(b'a')];
            *at += 1;
            if !text.is_empty() && socket.write(&letter).is_err() {
                return false;
            }
            // Over once the other side has ended it.
            let mut buffer = [0u8; 64];
            match socket.read(&mut buffer) {
                Ok(0) => false,
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
        let left: Vec<u16> = slow.iter().map(|(port, ..)| *port).collect();
        assert!(begun.elapsed() < Duration::from_secs(75), "still there: {left:?}");
        if served.elapsed() > Duration::from_secs(5) {
            others_are_served(&ports);
            served = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    let stream = server.stream("cam");
    assert_eq!(
        (&stream["state"], &stream["recording"]["lost_frames"]),
        (&"running".into(), &0.into()),
        "{stream}"
    );
    server.stop();
}
