//! What systemd is told, by a socket that stands for it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};
use stream_manager_tests::program::{Server, signal};

const LIMIT: Duration = Duration::from_secs(30);

/// Waits for a message with this in it; gives all that have come until then.
fn until(socket: &UnixDatagram, wanted: &str) -> String {
    let (begun, mut all) = (Instant::now(), String::new());
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0u8; 4096];
    while begun.elapsed() < LIMIT {
        if let Ok(length) = socket.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            all.push_str(&message);
            if message.contains(wanted) {
                return all;
            }
        }
    }
    panic!("\"{wanted}\" was not told: {all}");
}

#[test]
fn ready_watched_reloaded_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let config = "[[streams]]\nid = \"one\"\nsource_url = \"test://ball\"\nrecording = { enabled = true }\n";
    let server = Server::start_with(folder.path(), Some(config), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000");
    });
    let told = until(&socket, "READY=1");
    assert!(told.contains("STATUS="), "{told}");
    // Twice as often as it is wanted, with what the server does.
    until(&socket, "WATCHDOG=1");
    until(&socket, "STATUS=1 of 1 streams run, 1 are recorded, 0 sessions");
    signal(&server.child, "HUP");
    until(&socket, "RELOADING=1");
    until(&socket, "READY=1");
    // A process that does not run tells nothing; one that does again, does.
    signal(&server.child, "STOP");
    std::thread::sleep(Duration::from_millis(300));
    let mut buffer = [0u8; 4096];
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut buffer).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(2500))).unwrap();
    assert!(socket.recv(&mut buffer).is_err(), "it is stopped");
    signal(&server.child, "CONT");
    until(&socket, "WATCHDOG=1");
    server.stop();
    until(&socket, "STOPPING=1");
}
