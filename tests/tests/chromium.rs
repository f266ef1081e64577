//! A browser plays recordings: finished ones to their end, and the one that is still being written.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::program::{finish, signal, stream_manager, wait};
use stream_manager_tests::wait_until;

/// Plays the video named in the address and reports when it has ended, failed, or played for two seconds.
const PAGE: &str = r"<video id=v muted></video><script>
const v = document.getElementById('v'), name = location.search.slice(1);
const report = (what) => fetch('/report?' + [what, v.currentTime, v.duration, v.videoWidth,
    v.getVideoPlaybackQuality().totalVideoFrames].join(','));
v.onerror = () => report('error ' + v.error.message);
v.onended = () => report('ended');
if (name.includes('live')) v.ontimeupdate = () => { if (v.currentTime > 2) { v.ontimeupdate = null; report('played'); } };
v.src = name;
v.play();
</script>";

/// Files with byte ranges, and the reports.
fn serve(folder: PathBuf) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (folder, sender) = (folder.clone(), sender.clone());
            std::thread::spawn(move || drop(answer(socket, &folder, &sender)));
        }
    });
    (address, receiver)
}

fn answer(mut socket: TcpStream, folder: &Path, reports: &Sender<String>) -> std::io::Result<()> {
    let lines: Vec<String> = BufReader::new(socket.try_clone()?)
        .lines()
        .map_while(Result::ok)
        .take_while(|l| !l.is_empty())
        .collect();
    let target = lines.first().and_then(|l| l.split(' ').nth(1)).unwrap_or("/").to_owned();
    if let Some((_, report)) = target.split_once("/report?") {
        let _ = reports.send(report.to_owned());
        return socket.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    }
    let Ok(mut file) = std::fs::File::open(folder.join(target.trim_start_matches('/'))) else {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            PAGE.len()
        );
        return socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(PAGE.as_bytes()));
    };
    let size = file.metadata()?.len();
    let range =
        lines.iter().find_map(|l| l.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let (from, to) = range.as_deref().and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
    let (from, to) = (from.parse::<u64>().unwrap_or(0), to.parse::<u64>().unwrap_or(size - 1).min(size - 1));
    file.seek(SeekFrom::Start(from))?;
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Type: video/mp4\r\nAccept-Ranges: bytes\r\nContent-Range: bytes {from}-{to}/{size}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        to + 1 - from
    );
    socket.write_all(head.as_bytes())?;
    std::io::copy(&mut file.take(to + 1 - from), &mut socket).map(drop)
}

fn play(address: &str, reports: &Receiver<String>, name: &str) -> Vec<String> {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"])
        .arg("--autoplay-policy=no-user-gesture-required")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("{address}/?{name}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let report = reports.recv_timeout(Duration::from_secs(60));
    let _ = browser.kill();
    let _ = browser.wait();
    report
        .unwrap_or_else(|_| panic!("the browser says nothing about {name}"))
        .split(',')
        .map(str::to_owned)
        .collect()
}

#[test]
fn chromium_plays_finished_and_growing_files() {
    if Command::new("chromium").arg("--version").output().is_err() {
        println!("skipped: chromium is not installed");
        return;
    }
    let camera = Camera::start(Feed::with_audio(false));
    let folder = tempfile::tempdir().unwrap();
    let mut command = stream_manager();
    command.current_dir(folder.path()).args(["record", &camera.url(), "-o", "done.mp4", "--duration", "3s"]);
    assert!(finish(command, Duration::from_secs(60)).status.success());
    let mut growing = stream_manager()
        .current_dir(folder.path())
        .args(["record", &camera.url(), "-o", "live.mp4", "--quiet"])
        .spawn()
        .unwrap();
    let live = folder.path().join("live.mp4");
    wait_until("five parts", Duration::from_secs(60), || {
        std::fs::metadata(&live).is_ok_and(|m| m.len() > 100_000)
    });

    let (address, reports) = serve(folder.path().to_owned());
    let done = play(&address, &reports, "done.mp4");
    let number = |text: &str| text.parse::<f64>().unwrap();
    assert_eq!((done[0].as_str(), done[3].as_str()), ("ended", "384"), "{done:?}");
    assert!((2.9..3.2).contains(&number(&done[2])), "the length is wrong: {done:?}");
    assert!(number(&done[4]) >= 70.0, "frames are missing: {done:?}");
    let live = play(&address, &reports, "live.mp4");
    assert_eq!(live[0], "played", "{live:?}");
    signal(&growing, "INT");
    assert!(wait(&mut growing, Duration::from_secs(30)).success());
}
