//! The bench of recordings, watched again: how soon a playback begins, how fast it is, what it does to cameras that are being recorded,
//! and how long pictures take.
//!
//! ```text
//! cargo build --release -p stream-manager && cargo run --release -p stream-manager-benches --bin archive -- --cameras 100
//! ```
//!
//! Processes: the cameras (the simulator, 1080p25, 4 Mbit/s, in this one), and the program under test, which records them all. A day of one
//! camera is made from a recorded half minute, which stands under 2,880 names: its bytes come from memory, so what is measured is the
//! program and not the disk.

use clap::Parser;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream_manager_benches::{runtime, usage};
use stream_manager_core::frame::{MediaTime, WallTime};
use stream_manager_core::storage::index::{Catalog, Change, NewSegment, PartList, SegmentEnd, SegmentId};
use stream_manager_core::storage::segment_name;
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Files of a day.
const FILES: i64 = 2880;
/// What is read of a playback at most.
const MOST: u64 = 20 << 30;

#[derive(Parser, Clone)]
#[command(about = "Measures recordings, watched again")]
struct Arguments {
    /// Cameras that are being recorded
    #[arg(long, default_value_t = 100)]
    cameras: usize,
    /// Playbacks at one time
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// How long they are read, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let program = std::env::current_exe()?.with_file_name("stream-manager");
    if !program.is_file() {
        return Err(format!("{} is not built", program.display()).into());
    }
    let runtime = runtime()?;
    let media = Loop::encode(1920, 1080, 25, 25, 4000, 10, false);
    println!(
        "cameras: {} of 1080p25, {:.2} Mbit/s, a keyframe a second",
        arguments.cameras,
        media.bitrate() / 1e6
    );
    let mischief = Mischief { spread: Duration::from_secs(1), ..Mischief::default() };
    let cameras = runtime.block_on(ReplayServer::start(Arc::new(media), mischief));
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.toml");
    std::fs::write(&config, configuration(&arguments, &cameras.url("cam")))?;
    // A half minute of a camera, and from it a day.
    let server = Server::start(&program, &config, folder.path())?;
    let row = server.first_segment()?;
    server.stop()?;
    let start = make_day(folder.path(), &row)?;
    let server = Server::start(&program, &config, folder.path())?;
    server.wait("all cameras are recorded", |storage| {
        let streams = storage["streams"].as_array().map_or(0, Vec::len);
        storage["checked"] == true && streams > arguments.cameras
    })?;
    std::thread::sleep(Duration::from_secs(5));
    measure(&server, &arguments, start)?;
    server.stop()?;
    drop(cameras);
    Ok(())
}

fn configuration(arguments: &Arguments, url: &str) -> String {
    let mut text = String::from(
        "[server]\nlisten = \"127.0.0.1:0\"\nmax_connects = 100\nmax_connects_per_host = 100\n[storage]\nmin_free = \"1%\"\n\
         [rtsp]\nenabled = false\n[rtmp]\nenabled = false\n[webrtc]\nenabled = false\n\
         [defaults.recording]\nsegment_duration = \"30s\"\n",
    );
    for number in 0..arguments.cameras {
        text += &format!(
            "[[streams]]\nid = \"cam-{number}\"\nsource_url = \"{url}\"\nrecording = {{ enabled = true }}\n"
        );
    }
    text += &format!(
        "[[streams]]\nid = \"armed\"\nsource_url = \"{url}\"\n\
         recording = {{ enabled = true, modes = [\"event\"], pre_roll = \"10s\" }}\n"
    );
    text
}

/// The program under test.
struct Server {
    child: Child,
    host: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(program: &Path, config: &Path, folder: &Path) -> Result<Self, Failure> {
        let log = folder.join("log");
        let child = Command::new(program)
            .arg("--config")
            .arg(config)
            .current_dir(folder)
            .stdout(std::fs::File::create(&log)?)
            .stderr(std::fs::File::create(folder.join("errors"))?)
            .stdin(Stdio::null())
            .spawn()?;
        let mut server = Self { child, host: String::new() };
        let begun = Instant::now();
        while server.host.is_empty() {
            if begun.elapsed() > Duration::from_secs(30) {
                return Err("the server does not start".into());
            }
            std::thread::sleep(Duration::from_millis(50));
            let said = std::fs::read_to_string(&log)? + &std::fs::read_to_string(folder.join("errors"))?;
            if let Some((_, rest)) = said.split_once("listening on http://") {
                server.host = rest.split_whitespace().next().unwrap_or_default().to_owned();
            }
        }
        Ok(server)
    }

    fn stop(mut self) -> Result<(), Failure> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }

    fn open(&self, path: &str) -> Result<TcpStream, Failure> {
        let mut socket = TcpStream::connect(&self.host)?;
        socket.set_read_timeout(Some(Duration::from_secs(120)))?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        Ok(socket)
    }

    /// Status and headers, and what has come of the body.
    fn begin(&self, path: &str) -> Result<(TcpStream, String, Vec<u8>), Failure> {
        let mut socket = self.open(path)?;
        let mut data = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = socket.read(&mut piece)?;
            data.extend_from_slice(&piece[..read]);
            if let Some(at) = data.windows(4).position(|w| w == b"\r\n\r\n") {
                // At least a byte of the body.
                if data.len() > at + 4 || read == 0 {
                    let head = String::from_utf8_lossy(&data[..at]).into_owned();
                    return Ok((socket, head, data.split_off(at + 4)));
                }
            } else if read == 0 {
                return Err("no answer".into());
            }
        }
    }

    fn body(&self, path: &str) -> Result<(String, Vec<u8>), Failure> {
        let (mut socket, head, mut body) = self.begin(path)?;
        socket.read_to_end(&mut body)?;
        Ok((head, body))
    }

    fn json(&self, path: &str) -> Result<Value, Failure> {
        Ok(serde_json::from_slice(&self.body(path)?.1)?)
    }

    fn wait(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(120) {
            if self.json("/api/storage").is_ok_and(|storage| condition(&storage)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Err(format!("{what}: not within two minutes").into())
    }

    /// The first camera's first whole segment.
    fn first_segment(&self) -> Result<Value, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(120) {
            let page = self.json("/api/streams/cam-0/recordings?view=segments")?;
            // The first ones are of a length of their own.
            let whole = |row: &&Value| row["complete"] == true && row["duration_secs"].as_f64() > Some(29.0);
            if let Some(row) = page["items"].as_array().and_then(|rows| rows.iter().find(whole)) {
                return Ok(row.clone());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Err("nothing is recorded".into())
    }

    fn resident_mb(&self) -> f64 {
        usage(self.child.id()).map_or(0.0, |usage| usage.resident_bytes as f64 / 1e6)
    }

    /// Frames that cameras sent and that were not recorded.
    fn lost(&self) -> Result<(u64, u64), Failure> {
        let page = self.json("/api/streams?limit=1000")?;
        let mut sums = (0, 0);
        for stream in page["items"].as_array().into_iter().flatten() {
            sums.0 += stream["recording"]["lost_frames"].as_u64().unwrap_or(0);
            sums.1 += stream["recording"]["frames"].as_u64().unwrap_or(0);
        }
        Ok(sums)
    }
}

/// Enters a day made of one segment; gives when it begins.
fn make_day(folder: &Path, row: &Value) -> Result<i64, Failure> {
    let source = PathBuf::from(row["path"].as_str().ok_or("no path")?);
    let data = folder.join("data");
    let mut catalog = Catalog::open(&data)?;
    let parts = catalog.parts(SegmentId(row["id"].as_u64().ok_or("no id")?))?;
    let mut list = PartList::new(parts.first().map_or(0, |part| part.offset));
    for part in &parts {
        list.push(part.len_bytes, part.duration, part.frames, part.keyframe);
    }
    let length = parts.iter().map(|part| part.duration.as_nanos() as i64).sum::<i64>();
    let bytes = std::fs::metadata(&source)?.len();
    let end = SegmentEnd {
        duration_nanos: length,
        bytes,
        frames: row["frames"].as_u64().unwrap_or(0),
        parts: list,
    };
    let day = source.parent().and_then(Path::parent).ok_or("no folder")?.join("day");
    std::fs::create_dir_all(&day)?;
    let start = WallTime::now().as_unix_nanos() - (FILES + 120) * length;
    let first = catalog.next_id()?;
    let mut changes = Vec::new();
    for (id, number) in (first..).zip(0..FILES) {
        let begins = WallTime::from_unix_nanos(start + number * length);
        let name = segment_name(begins, "mp4");
        std::fs::hard_link(&source, day.join(&name))?;
        let segment = NewSegment {
            id: SegmentId(id),
            stream: "day".into(),
            start: begins,
            media_start: MediaTime::from_nanos(number * length),
            folder: day.clone(),
            name,
            format: "fmp4".into(),
            tracks: row["tracks"].to_string().into(),
            continues: number > 0,
            lost_frames: 0,
        };
        changes.push(Change::Finish { segment, end: end.clone() });
    }
    catalog.apply(&changes)?;
    println!(
        "a day: {FILES} files of {:.1} s, {:.1} MB each, {:.1} GB in all",
        length as f64 / 1e9,
        bytes as f64 / 1e6,
        (bytes * FILES as u64) as f64 / 1e9
    );
    Ok(start)
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    format!("median {:.1} ms, p95 {:.1} ms, slowest {:.1} ms, of {}", at(0.5), at(0.95), at(1.0), times.len())
}

fn measure(server: &Server, arguments: &Arguments, start: i64) -> Result<(), Failure> {
    let seconds = |nanos: i64| nanos as f64 / 1e9;
    let hours = |from: f64, to: f64| {
        let hour = 3_600_000_000_000.0;
        format!("start={:.3}&end={:.3}", seconds(start) + from * hour / 1e9, seconds(start) + to * hour / 1e9)
    };
    let day = format!("/api/streams/day/playback?{}", hours(0.001, 23.9));
    let first = |path: &str| -> Result<Duration, Failure> {
        let begun = Instant::now();
        let (_socket, head, _) = server.begin(path)?;
        let took = begun.elapsed();
        if head.contains(" 200 ") || head.contains(" 206 ") { Ok(took) } else { Err(head.into()) }
    };
    println!("resident at first: {:.1} MB", server.resident_mb());
    println!("first byte of 24 h, the first time: {:.1} ms", first(&day)?.as_secs_f64() * 1e3);
    let again: Vec<Duration> = (0..20).map(|_| first(&day)).collect::<Result<_, _>>()?;
    println!("first byte of 24 h, again: {}", spread(again));
    let anywhere: Vec<Duration> = (0..40)
        .map(|n| {
            let from = f64::from(n) * 0.59;
            first(&format!("/api/streams/day/playback?{}", hours(from, from + 0.2)))
        })
        .collect::<Result<_, _>>()?;
    println!("first byte of 12 minutes from anywhere: {}", spread(anywhere));
    let plain = first(&format!("/api/streams/day/playback?{}&format=mp4", hours(1.0, 5.0)))?;
    println!("first byte of 4 h as plain MP4: {:.1} ms", plain.as_secs_f64() * 1e3);
    println!("resident then: {:.1} MB", server.resident_mb());

    let begun = Instant::now();
    let (mut socket, _, _) = server.begin(&day)?;
    let (mut bytes, mut peak, mut piece) = (0u64, 0f64, vec![0; 1 << 20]);
    while begun.elapsed() < Duration::from_secs(arguments.seconds) && bytes < MOST {
        let read = socket.read(&mut piece)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        if bytes % 64 == 0 {
            peak = peak.max(server.resident_mb());
        }
    }
    let rate = bytes as f64 / begun.elapsed().as_secs_f64() / 1e9;
    println!(
        "one playback: {:.2} GB at {rate:.2} GB/s, resident {:.1} MB at most",
        bytes as f64 / 1e9,
        peak.max(server.resident_mb())
    );
    drop(socket);

    let before = server.lost()?;
    let begun = Instant::now();
    let until = Duration::from_secs(arguments.seconds);
    let all: u64 = std::thread::scope(|scope| {
        let reading: Vec<_> = (0..arguments.clients)
            .map(|n| {
                let path = format!("/api/streams/day/playback?{}", hours(n as f64 * 0.5, 20.0));
                scope.spawn(move || -> u64 {
                    let Ok((mut socket, ..)) = server.begin(&path) else { return 0 };
                    let (mut bytes, mut piece) = (0, vec![0; 256 << 10]);
                    while begun.elapsed() < until {
                        match socket.read(&mut piece) {
                            Ok(read) if read > 0 => bytes += read as u64,
                            _ => break,
                        }
                    }
                    bytes
                })
            })
            .collect();
        reading.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    let rate = all as f64 / begun.elapsed().as_secs_f64() / 1e9;
    let after = server.lost()?;
    println!(
        "{} playbacks at once beside {} recordings: {rate:.2} GB/s in all, resident {:.1} MB; {} frames recorded meanwhile, {} lost",
        arguments.clients,
        arguments.cameras,
        server.resident_mb(),
        after.1 - before.1,
        after.0 - before.0
    );

    let mut live = Vec::new();
    for number in 0..20 {
        let begun = Instant::now();
        let (head, _) =
            server.body(&format!("/api/streams/cam-{}/snapshot.jpg", number % arguments.cameras.max(1)))?;
        if !head.contains(" 200 ") {
            return Err(head.into());
        }
        live.push(begun.elapsed());
        // Another keyframe.
        std::thread::sleep(Duration::from_millis(1100));
    }
    println!("snapshot of a running 1080p stream: {}", spread(live));
    let begun = Instant::now();
    let (head, jpeg) = server.body(&format!(
        "/api/streams/day/thumbnails.jpg?{}&count=1440&columns=48&width=128",
        hours(0.0, 24.0)
    ))?;
    if !head.contains(" 200 ") {
        return Err(head.into());
    }
    println!(
        "1,440 thumbnails of a day: {:.2} s, {:.1} MB",
        begun.elapsed().as_secs_f64(),
        jpeg.len() as f64 / 1e6
    );
    let armed = server.json("/api/streams/armed")?;
    println!(
        "pre-roll of 10 s: {:.2} MB in memory",
        armed["recording"]["pre_roll_bytes"].as_u64().unwrap_or(0) as f64 / 1e6
    );
    println!("resident at the end: {:.1} MB", server.resident_mb());
    Ok(())
}
