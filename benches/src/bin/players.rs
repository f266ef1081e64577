//! The load bench of HLS, DASH and WebRTC: what viewers cost, and how late pictures are.
//!
//! ```text
//! cargo run --release -p stream-manager-benches --bin players -- --viewers 200           # Low-Latency HLS
//! cargo run --release -p stream-manager-benches --bin players -- --viewers 1000 --plain  # whole segments
//! cargo run --release -p stream-manager-benches --bin players -- --viewers 200 --webrtc  # WHEP
//! cargo run --release -p stream-manager-benches --bin players -- --churn 1000            # WHEP sessions made and dropped
//! cargo run --release -p stream-manager-benches --bin players -- --delay                 # browsers, by a burnt-in counter
//! ```
//!
//! Processes: a camera (the simulator, 1080p25, 4 Mbit/s), the server under test, the viewers. Processor time is the
//! kernel's count for the server alone, less what it took without viewers (packaging, recording nothing).

use clap::{Parser, ValueEnum};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use stream_manager_benches::{Usage, runtime, usage};
use stream_manager_core::api::{ApiOptions, Server, router};
use stream_manager_core::config::HlsSettings;
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::source::RtspSource;
use stream_manager_core::webrtc::{WebRtcOptions, WebRtcServer};
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::player::{Playing, missing};
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};
use stream_manager_tests::whep::{Client, Offer};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser, Clone)]
#[command(about = "Measures what viewers by HLS and WebRTC cost, and how late they see")]
struct Arguments {
    /// Number of viewers
    #[arg(long, default_value_t = 200)]
    viewers: usize,
    /// Whole segments instead of parts
    #[arg(long)]
    plain: bool,
    /// WebRTC instead of HLS; viewers connect, and then only count what arrives
    #[arg(long)]
    webrtc: bool,
    /// Instead: so many WebRTC sessions are made and dropped
    #[arg(long)]
    churn: Option<usize>,
    /// How long is measured, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Instead: how late browsers show pictures
    #[arg(long)]
    delay: bool,
    /// With it: only players whose name has this in it, and each picture
    #[arg(long)]
    only: Option<String>,
    /// Used by the bench itself
    #[arg(long, value_enum, hide = true)]
    role: Option<Role>,
    /// Used by the bench itself
    #[arg(long, hide = true)]
    url: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Simulate,
    Serve,
    View,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = runtime()?;
    match arguments.role {
        Some(Role::Simulate) => runtime.block_on(simulate()),
        Some(Role::Serve) => runtime.block_on(serve(&arguments)),
        Some(Role::View) if arguments.webrtc => view_webrtc(&arguments),
        Some(Role::View) => runtime.block_on(view(&arguments)),
        None if arguments.delay => delay(&arguments),
        None if arguments.churn.is_some() => churn(&arguments),
        None => measure(&arguments),
    }
}

async fn line() -> Result<(), Failure> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

async fn simulate() -> Result<(), Failure> {
    let media = tokio::task::spawn_blocking(|| Loop::encode(1920, 1080, 25, 25, 4000, 10, false)).await?;
    let rate = media.bitrate();
    let server = ReplayServer::start(Arc::new(media), Mischief::default()).await;
    println!("{} {rate}", server.url("cam"));
    line().await
}

async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let url = arguments.url.clone().unwrap_or_default();
    let always = !arguments.webrtc;
    let settings = HlsSettings { always, low_latency: !arguments.plain, ..HlsSettings::default() };
    let stream = Stream::builder("cam").source(RtspSource::new(&url)?).package(settings);
    let manager = StreamManager::builder().stream(stream).build().await?;
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("{}", server.address());
    let cancel = CancellationToken::new();
    let options = ApiOptions::default();
    let local = WebRtcOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        max_sessions: 10_000,
        ..WebRtcOptions::default()
    };
    options.webrtc.set(Some(Arc::new(WebRtcServer::start(local, manager.sessions().clone())?)));
    let running = tokio::spawn(server.run(router(manager.clone(), options), cancel.clone()));
    line().await?;
    cancel.cancel();
    running.await??;
    manager.shutdown().await;
    Ok(())
}

/// One connection to the server, as players keep it.
struct Connection {
    socket: tokio::io::BufReader<TcpStream>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self, Failure> {
        Ok(Self { socket: tokio::io::BufReader::new(TcpStream::connect(address).await?) })
    }

    async fn get(&mut self, path: &str) -> Result<(u16, Vec<u8>), Failure> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: bench\r\nAccept-Encoding: gzip\r\n\r\n");
        self.socket.write_all(request.as_bytes()).await?;
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.socket.read_line(&mut line).await?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.split(' ').next().unwrap_or_default().parse()?;
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse()?;
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).await?;
        Ok((status, body))
    }

    /// The same for a text that may be compressed.
    async fn text(&mut self, path: &str) -> Result<String, Failure> {
        let (status, body) = self.get(path).await?;
        if status != 200 {
            return Err(format!("{path}: {status}").into());
        }
        if body.starts_with(&[0x1f, 0x8b]) {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut text)?;
            return Ok(text);
        }
        Ok(String::from_utf8(body)?)
    }
}

/// What all viewers have had.
#[derive(Default)]
struct Had {
    requests: AtomicU64,
    bytes: AtomicU64,
    late: AtomicU64,
    failures: AtomicU64,
}

/// Where a playlist ends: its last segment, and the parts behind it.
fn ends(playlist: &str) -> (u64, u64, Option<String>) {
    let mut number = 0;
    let (mut parts, mut last) = (0, None);
    for line in playlist.lines() {
        if let Some(first) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
            number = first.parse::<u64>().unwrap_or(0);
        } else if line.starts_with("#EXT-X-PART:") {
            parts += 1;
            last = line.split("URI=\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned);
        } else if !line.starts_with('#') && !line.is_empty() {
            (number, parts) = (number + 1, 0);
        }
    }
    (number, parts, last)
}

async fn viewer(address: SocketAddr, plain: bool, until: Instant, had: Arc<Had>) -> Result<(), Failure> {
    let (mut playlists, mut media) = (Connection::open(address).await?, Connection::open(address).await?);
    let master = playlists.text("/hls/cam/index.m3u8").await?;
    let name = master.lines().find(|l| !l.starts_with('#')).ok_or("no variant")?;
    let path = format!("/hls/cam/{name}");
    let folder = "/hls/cam/";
    let mut playlist = playlists.text(&path).await?;
    let mut known = None;
    while Instant::now() < until {
        let (number, parts, last) = ends(&playlist);
        had.requests.fetch_add(2, Ordering::Relaxed);
        if plain {
            let segment = playlist.lines().rfind(|l| !l.starts_with('#')).map(str::to_owned);
            if segment != known
                && let Some(uri) = &segment
            {
                let (status, body) = media.get(&format!("{folder}{}", uri.trim_start_matches("../"))).await?;
                had.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                had.failures.fetch_add(u64::from(status != 200), Ordering::Relaxed);
                known = segment;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            playlist = playlists.text(&path).await?;
        } else {
            // The playlist with the next part, and the part, as soon as they are there.
            let asked = format!("{path}?_HLS_msn={number}&_HLS_part={parts}");
            let start = Instant::now();
            playlist = playlists.text(&asked).await?;
            had.late.fetch_add(u64::from(start.elapsed() > Duration::from_millis(500)), Ordering::Relaxed);
            let (_, _, newest) = ends(&playlist);
            if let Some(uri) = newest.filter(|_| last != known || parts == 0) {
                let (status, body) = media.get(&format!("{folder}{}", uri.trim_start_matches("../"))).await?;
                had.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                had.failures.fetch_add(u64::from(status != 200), Ordering::Relaxed);
            }
            known = last;
        }
    }
    Ok(())
}

async fn view(arguments: &Arguments) -> Result<(), Failure> {
    let address: SocketAddr = arguments.url.as_deref().unwrap_or_default().parse()?;
    let until = Instant::now() + Duration::from_secs(arguments.seconds + 8);
    let had = Arc::new(Had::default());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..arguments.viewers {
        tasks.spawn(viewer(address, arguments.plain, until, had.clone()));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let mut broken = 0;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended? {
            broken += 1;
            eprintln!("a viewer failed: {error}");
        }
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} {} {} {} {broken}",
        count(&had.requests),
        count(&had.bytes),
        count(&had.late),
        count(&had.failures)
    );
    Ok(())
}

/// Viewers that cost next to nothing: they keep their sessions alive and count.
fn view_webrtc(arguments: &Arguments) -> Result<(), Failure> {
    let url = format!("http://{}/webrtc/cam/whep", arguments.url.as_deref().unwrap_or_default());
    let until = Instant::now() + Duration::from_secs(arguments.seconds + 8);
    let mut threads = Vec::new();
    for _ in 0..arguments.viewers {
        let url = url.clone();
        threads.push(std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
            let mut client = Client::connect(&url);
            client.until("connection", Duration::from_secs(20), |c| c.connected.is_some());
            client.count_until(until)
        })?);
        std::thread::sleep(Duration::from_millis(3));
    }
    let (mut packets, mut bytes, mut broken) = (0, 0, 0);
    for thread in threads {
        match thread.join() {
            Ok(counted) => (packets, bytes) = (packets + counted.0, bytes + counted.1),
            Err(_) => broken += 1,
        }
    }
    println!("{packets} {bytes} 0 0 {broken}");
    Ok(())
}

/// Sessions made and dropped: half of them connect, half never come.
fn churn(arguments: &Arguments) -> Result<(), Failure> {
    let count = arguments.churn.unwrap_or_default();
    let mut camera = Process::start(arguments, "simulate", "")?;
    let first = camera.line()?;
    let (url, _) = first.split_once(' ').ok_or("the simulator did not start")?;
    let mut server = Process::start(arguments, "serve", url)?;
    let whep = format!("http://{}/webrtc/cam/whep", server.line()?);
    std::thread::sleep(Duration::from_secs(3));
    let files = || std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).map_or(0, Iterator::count);
    let show = |what: &str| {
        let usage = usage(server.child.id()).unwrap_or_default();
        println!(
            "{what:<28} {:>7.1} MB, {} threads, {} files",
            usage.resident_bytes as f64 / 1e6,
            usage.threads,
            files()
        );
    };
    show("before");
    for round in 1..=4 {
        let begin = Instant::now();
        for number in 0..count / 4 {
            if number % 2 == 0 {
                let mut client = Client::connect(&whep);
                client.until("pictures", Duration::from_secs(20), |c| c.connected.is_some());
                stream_manager_tests::http::request("DELETE", &client.session, &[]);
            } else {
                let answer = stream_manager_tests::whep::post(&whep, &Offer::new().sdp, &[]);
                let session = stream_manager_tests::http::join(&whep, answer.header("location"));
                stream_manager_tests::http::request("DELETE", &session, &[]);
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        show(&format!("after {} sessions ({:.1} s)", round * (count / 4), begin.elapsed().as_secs_f64()));
    }
    Ok(())
}

struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &Arguments, role: &str, url: &str) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--role", role, "--url", url]);
        command.args([
            "--viewers",
            &arguments.viewers.to_string(),
            "--seconds",
            &arguments.seconds.to_string(),
        ]);
        if arguments.plain {
            command.arg("--plain");
        }
        if arguments.webrtc || arguments.churn.is_some() {
            command.arg("--webrtc");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { child, output })
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Processor time over some seconds, as a part of one core: all of it, and what the system took.
    fn watch(&self, seconds: u64) -> ((f64, f64), Usage) {
        let (before, start) = (usage(self.child.id()).unwrap_or_default(), Instant::now());
        std::thread::sleep(Duration::from_secs(seconds));
        let after = usage(self.child.id()).unwrap_or_default();
        let share = |time: Duration| time.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
        ((share(after.cpu - before.cpu), share(after.system - before.system)), after)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.stdin.as_mut().map(|stdin| stdin.write_all(b"\n"));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let mut camera = Process::start(arguments, "simulate", "")?;
    let first = camera.line()?;
    let (url, rate) = first.split_once(' ').ok_or("the simulator did not start")?;
    let mut server = Process::start(arguments, "serve", url)?;
    let address = server.line()?;
    // Until twice the window is held.
    std::thread::sleep(Duration::from_secs(if arguments.webrtc { 3 } else { 30 }));
    let kind = match (arguments.webrtc, arguments.plain) {
        (true, _) => "WebRTC",
        (_, true) => "plain HLS",
        _ => "Low-Latency HLS",
    };
    println!(
        "1080p25 H.264, {:.2} Mbit/s, {} viewers by {kind}, {} s",
        rate.parse::<f64>()? / 1e6,
        arguments.viewers,
        arguments.seconds
    );
    let ((idle, idle_system), idle_usage) = server.watch(10);
    println!("without viewers  {idle:>7.3} % of a core   {:>7.1} MB", idle_usage.resident_bytes as f64 / 1e6);
    let mut viewers = Process::start(arguments, "view", &address)?;
    std::thread::sleep(Duration::from_secs(6));
    let ((busy, busy_system), busy_usage) = server.watch(arguments.seconds);
    let line = viewers.line()?;
    println!(
        "each viewer      {:>7.4} % of a core   {:>7.1} KB   (server {busy:.2} % of a core, {:.1} MB)",
        (busy - idle) / arguments.viewers as f64,
        (busy_usage.resident_bytes as f64 - idle_usage.resident_bytes as f64)
            / 1e3
            / arguments.viewers as f64,
        busy_usage.resident_bytes as f64 / 1e6,
    );
    let numbers: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    if let [requests, bytes, late, failures, broken] = numbers[..] {
        println!(
            "  {requests} requests, {:.1} Mbit/s each; answers later than 500 ms {late}, not 200 {failures}, viewers that failed {broken}",
            bytes * 8.0 / 1e6 / (arguments.seconds + 8) as f64 / arguments.viewers as f64
        );
        if arguments.webrtc && requests > 0.0 {
            let viewers = arguments.viewers as f64;
            let packets = requests / (arguments.seconds + 8) as f64 / viewers;
            let (all, system) = ((busy - idle) / viewers, (busy_system - idle_system) / viewers);
            let srtp = srtp((bytes / requests) as usize)? * packets * 100.0;
            println!(
                "  of that: SRTP {srtp:.4} (alone, {packets:.0} packets of {:.0} bytes a second), system {system:.4}, ours {:.4}",
                bytes / requests,
                all - system - srtp
            );
        }
    }
    Ok(())
}

/// Seconds that encrypting a packet of this length takes by itself: AES-128 in GCM (RFC 7714), as the server does it.
fn srtp(bytes: usize) -> Result<f64, Failure> {
    let provider = str0m::crypto::from_feature_flags().srtp_provider;
    let mut cipher = provider.aead_aes_128_gcm().create_cipher([7; 16], true);
    let (input, mut output) = (vec![1; bytes], vec![0; bytes + 16]);
    let (mut iv, begin) = ([0; 12], Instant::now());
    const PACKETS: u32 = 300_000;
    for number in 0..PACKETS {
        iv[..4].copy_from_slice(&number.to_be_bytes());
        cipher.encrypt(&iv, &[0; 12], &input, &mut output).map_err(|e| e.to_string())?;
    }
    Ok(begin.elapsed().as_secs_f64() / f64::from(PACKETS))
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

/// What ffmpeg decodes of `live.mp4`, and when it comes out.
fn decoded(url: &str, seconds: u64) -> Result<(f64, Vec<(u32, f64)>), Failure> {
    const WIDTH: usize = 384;
    let begin = now_ms();
    let mut child = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-fflags",
            "nobuffer",
            "-flags",
            "low_delay",
            "-probesize",
            "32",
            "-analyzeduration",
            "0",
        ])
        .args(["-i", url, "-map", "0:v", "-t", &seconds.to_string()])
        .args(["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().ok_or("no output")?;
    let (mut picture, mut shown) = (vec![0u8; WIDTH * 240], Vec::new());
    while std::io::Read::read_exact(&mut output, &mut picture).is_ok() {
        if let Some(counter) = stream_manager_core::source::read_counter(&picture, WIDTH) {
            shown.push((counter, now_ms()));
        }
    }
    child.wait()?;
    Ok((begin, shown))
}

/// Browsers play a camera whose pictures are numbered; how late each number is shown is how late it is.
fn delay(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(why) = missing() {
        return Err(format!("browsers cannot be tried: {why}").into());
    }
    let camera = Arc::new(Camera::start(Feed::with_audio(false)));
    let mut server = Process::start(arguments, "serve", &camera.url())?;
    let address = server.line()?;
    // When each number was drawn.
    let drawn = Arc::new(std::sync::Mutex::new(Vec::<(u32, f64)>::new()));
    let (watched, times) = (camera.clone(), drawn.clone());
    std::thread::spawn(move || {
        let mut last = 0;
        loop {
            let next = watched.counter();
            if next != last
                && let Ok(mut times) = times.lock()
            {
                times.extend((last..next).map(|number| (number, now_ms())));
                last = next;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    std::thread::sleep(Duration::from_secs(10));
    println!(
        "from the camera's drawing a picture to the browser's showing it, ms (384x240, 25 fps; {} s each)",
        arguments.seconds
    );
    for (name, player, url) in [
        ("LL-HLS, hls.js", "hlsjs", format!("http://{address}/hls/cam/index.m3u8")),
        ("LL-HLS, Shaka Player", "shaka", format!("http://{address}/hls/cam/index.m3u8")),
        ("WebRTC", "whep", format!("http://{address}/webrtc/cam/whep")),
        ("DASH, dash.js", "dashjs", format!("http://{address}/dash/cam/manifest.mpd")),
        ("DASH, Shaka Player", "shaka", format!("http://{address}/dash/cam/manifest.mpd")),
        ("WebSocket, MSE", "websocket", format!("ws://{address}/api/streams/cam/live.mp4")),
        ("live.mp4, ffmpeg", "ffmpeg", format!("http://{address}/api/streams/cam/live.mp4")),
        ("live.mp4, <video>", "video", format!("http://{address}/api/streams/cam/live.mp4")),
    ] {
        if arguments.only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let (begin, shown, errors) = if player == "ffmpeg" {
            let (begin, shown) = decoded(&url, arguments.seconds)?;
            (begin, shown, Vec::new())
        } else {
            let played = Playing::start(player, &url, arguments.seconds).finish();
            let shown = played.shown.iter().map(|shown| (shown.counter, shown.at)).collect();
            (played.begin, shown, played.errors())
        };
        let times = drawn.lock().map(|times| times.clone()).unwrap_or_default();
        if arguments.only.is_some() {
            for (counter, at) in &shown {
                let drawn = times.get(*counter as usize).map_or(f64::NAN, |(_, drawn)| *drawn);
                println!("{:>6.0} ms: picture {counter}, {:.0} ms late", at - begin, at - drawn);
            }
        }
        let mut delays: Vec<f64> = shown
            .iter()
            // The first seconds are for catching up.
            .filter(|(_, shown)| *shown > begin + 4000.0)
            .filter_map(|(counter, shown)| times.get(*counter as usize).map(|(_, drawn)| shown - drawn))
            .collect();
        delays.sort_by(f64::total_cmp);
        let at = |part: f64| delays.get((delays.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
        let first = shown.first().map_or(f64::NAN, |(_, at)| at - begin);
        println!(
            "{name:<22} p50 {:>5.0}  p95 {:>5.0}   first picture after {first:>5.0}   {} pictures, errors {:?}",
            at(0.5),
            at(0.95),
            shown.len(),
            errors
        );
    }
    Ok(())
}
