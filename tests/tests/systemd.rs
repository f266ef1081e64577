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

/// Runs a program as systemd does with sockets of its own: from descriptor 3 on, with their names.
const ACTIVATE: &str = r"
import os, socket, sys
names, sockets = [], []
for text in sys.argv[1].split(','):
    name, port = text.split('=')
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(('127.0.0.1', int(port)))
    listener.listen()
    names.append(name)
    sockets.append(listener)
held = [os.dup(s.fileno()) for s in sockets]
held = [os.dup2(fd, 100 + n) for n, fd in enumerate(held)]
for n, fd in enumerate(held):
    os.dup2(fd, 3 + n, inheritable=True)
os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': str(len(held)), 'LISTEN_FDNAMES': ':'.join(names)}
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn listeners_of_systemds_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let [http, rtsp, rtmp] = [(); 3].map(|()| stream_manager_tests::free_port());
    // One by its name, wherever the configuration would have it; one by its address; and one that nobody wants.
    let other = stream_manager_tests::free_port();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:1\"\n[rtsp]\nlisten = \"127.0.0.1:{rtsp}\"\n\
         [[streams]]\nid = \"one\"\nsource_url = \"test://ball?width=320&height=180&gop=25\"\n"
    );
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let program = stream_manager_tests::program::stream_manager();
    let sockets = format!("http={http},my.socket={rtsp},rtmp={rtmp},my.socket={other}");
    let mut child = std::process::Command::new("python3")
        .args(["-c", ACTIVATE, &sockets])
        .arg(program.get_program())
        .env("STREAM_MANAGER_WEBRTC__LISTEN", "127.0.0.1:0")
        .current_dir(folder.path())
        .spawn()
        .unwrap();
    let url = format!("http://127.0.0.1:{http}/api/streams/one");
    stream_manager_tests::wait_until("it answers and its stream runs", LIMIT, || {
        let answer = std::panic::catch_unwind(|| stream_manager_tests::http::get(&url));
        answer.is_ok_and(|answer| answer.text().contains("\"running\""))
    });
    let played = std::process::Command::new("ffprobe")
        .args(["-v", "error", "-rtsp_transport", "tcp", "-show_entries", "stream=codec_name"])
        .arg(format!("rtsp://127.0.0.1:{rtsp}/one"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&played.stdout).contains("h264"), "{played:?}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", rtmp)).is_ok());
    signal(&child, "TERM");
    assert!(stream_manager_tests::program::wait(&mut child, LIMIT).success());
}
