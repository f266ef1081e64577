//! The load bench of the RTSP server: what readers cost, how late frames reach them, and what is left when they go.
//!
//! ```text
//! cargo run --release -p stream-manager-benches --bin serve -- --readers 100
//! cargo run --release -p stream-manager-benches --bin serve -- --streams 100 --readers 100
//! cargo run --release -p stream-manager-benches --bin serve -- --readers 100 --transport udp
//! cargo run --release -p stream-manager-benches --bin serve -- --churn 1000
//! ```
//!
//! Processes: cameras (the simulator), the server under test, the readers, and, in the same run, a program that does
//! nothing but write the same frames to as many connections: what the system itself takes. Processor time is the
//! kernel's count for the server alone, less what it took without readers.

use clap::{Parser, ValueEnum};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream_manager_benches::{Usage, runtime, usage};
use stream_manager_core::auth::Users;
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::rtsp::{RtspOptions, RtspServer};
use stream_manager_core::source::RtspSource;
use stream_manager_tests::client::Client;
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer, monotonic_nanos, read_stamp};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

#[derive(Parser, Clone)]
#[command(about = "Measures what RTSP readers cost")]
struct Arguments {
    /// Number of cameras
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Number of readers, spread over the cameras
    #[arg(long, default_value_t = 50)]
    readers: usize,
    /// How media travels to the readers
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,
    /// How long is measured, in seconds
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Instead: so many clients connect, read for a second and leave, fifty at a time
    #[arg(long)]
    churn: Option<usize>,
    /// Used by the bench itself
    #[arg(long, value_enum, hide = true)]
    role: Option<Role>,
    /// Used by the bench itself
    #[arg(long, hide = true)]
    url: Option<String>,
}

#[derive(Clone, Copy, ValueEnum, PartialEq)]
enum Transport {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Simulate,
    Serve,
    Read,
    Bare,
    Churn,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = runtime()?;
    match arguments.role {
        Some(Role::Simulate) => runtime.block_on(simulate()),
        Some(Role::Serve) => runtime.block_on(serve(&arguments)),
        Some(Role::Read) => runtime.block_on(read(&arguments)),
        Some(Role::Bare) => runtime.block_on(bare(&arguments)),
        Some(Role::Churn) => runtime.block_on(churn(&arguments)),
        None => measure(&arguments),
    }
}

async fn line() -> Result<(), Failure> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

async fn media() -> Result<Loop, Failure> {
    Ok(tokio::task::spawn_blocking(|| Loop::encode(1920, 1080, 25, 25, 4000, 10, false)).await?)
}

async fn simulate() -> Result<(), Failure> {
    let media = media().await?;
    let rate = media.bitrate();
    let mischief = Mischief { spread: Duration::from_secs(1), stamped: true, ..Mischief::default() };
    let server = ReplayServer::start(Arc::new(media), mischief).await;
    println!("{} {rate}", server.url("cam"));
    line().await
}

async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let url = arguments.url.clone().unwrap_or_default();
    let mut builder = StreamManager::builder();
    for number in 0..arguments.streams {
        builder = builder.stream(Stream::builder(format!("cam-{number}")).source(RtspSource::new(&url)?));
    }
    let manager = builder.build().await?;
    let options = RtspOptions {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        max_connections_per_address: 100_000,
        ..RtspOptions::default()
    };
    let server = RtspServer::bind(options).await?;
    println!("{}", server.address());
    let cancel = CancellationToken::new();
    let (streams, sessions) = (Arc::new(manager.clone()), manager.sessions().clone());
    let running = tokio::spawn(server.run(streams, Arc::new(Users::new([])), sessions, cancel.clone()));
    // Each line asks how things are.
    let handle = tokio::runtime::Handle::current();
    while tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await?? > 0 {
        let fds = std::fs::read_dir("/proc/self/fd")?.count();
        let dropped: u64 = manager.sessions().list().iter().map(|s| s.stats.dropped_frames).sum();
        println!("{fds} {} {} {dropped}", handle.metrics().num_alive_tasks(), manager.sessions().len());
        std::io::stdout().flush()?;
    }
    cancel.cancel();
    running.await?;
    manager.shutdown().await;
    Ok(())
}

/// What one reader has seen.
#[derive(Default)]
struct Seen {
    frames: u64,
    lost: u64,
    last: Option<u16>,
    first: Option<Duration>,
    latencies: Vec<u32>,
}

impl Seen {
    fn packet(&mut self, packet: &[u8], played: Instant, measuring: bool) {
        let Some(head) = packet.first_chunk::<12>() else { return };
        if head[1] & 0x7f != 96 {
            return;
        }
        self.first.get_or_insert_with(|| played.elapsed());
        let sequence = u16::from_be_bytes([head[2], head[3]]);
        if let Some(last) = self.last.replace(sequence) {
            self.lost += u64::from(sequence.wrapping_sub(last).wrapping_sub(1));
        }
        if measuring {
            self.frames += u64::from(head[1] >> 7);
            if let Some(sent) = read_stamp(packet) {
                self.latencies.push((monotonic_nanos().saturating_sub(sent) / 1000) as u32);
            }
        }
    }
}

/// Takes packets out of an interleaved stream of bytes.
#[derive(Default)]
struct Split {
    rest: VecDeque<u8>,
}

impl Split {
    fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        self.rest.extend(bytes);
        let data = self.rest.make_contiguous();
        let mut at = 0;
        while data.len() >= at + 4 && data[at] == b'$' {
            let length = usize::from(u16::from_be_bytes([data[at + 2], data[at + 3]]));
            if data.len() < at + 4 + length {
                break;
            }
            if data[at + 1] == 0 {
                each(&data[at + 4..at + 4 + length]);
            }
            at += 4 + length;
        }
        self.rest.drain(..at);
    }
}

async fn read(arguments: &Arguments) -> Result<(), Failure> {
    let address: SocketAddr = arguments.url.as_deref().unwrap_or_default().parse()?;
    let begin = Instant::now() + Duration::from_secs(4);
    let end = begin + Duration::from_secs(arguments.seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..arguments.readers {
        let url = format!("rtsp://{address}/cam-{}", number % arguments.streams);
        let transport = arguments.transport;
        // Not all in the same moment, and so that each meets the stream elsewhere in its GOP.
        let wait = Duration::from_millis(number as u64 * 2500 / arguments.readers.max(1) as u64);
        tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let mut client = Client::connect(address).await;
            let mut seen = Seen::default();
            if transport == Transport::Tcp {
                client
                    .request(
                        "SETUP",
                        &format!("{url}/trackID=0"),
                        &[("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1")],
                        "",
                    )
                    .await;
                let played = Instant::now();
                client.request("PLAY", &url, &[], "").await;
                let mut split = Split::default();
                client
                    .drink(|bytes| {
                        let now = Instant::now();
                        split.take(bytes, |packet| seen.packet(packet, played, now >= begin && now < end));
                        now < end
                    })
                    .await;
            } else {
                let played = Instant::now();
                let (rtp, _rtcp) = client.play_udp(&url).await;
                let mut buffer = vec![0u8; 2048];
                while let Ok(Ok(length)) = tokio::time::timeout_at(end.into(), rtp.recv(&mut buffer)).await {
                    let now = Instant::now();
                    seen.packet(&buffer[..length], played, now >= begin && now < end);
                }
            }
            seen
        });
    }
    let all = tasks.join_all().await;
    let mut latencies: Vec<u32> = all.iter().flat_map(|s| s.latencies.iter().copied()).collect();
    let mut firsts: Vec<u32> = all.iter().filter_map(|s| s.first).map(|d| d.as_micros() as u32).collect();
    let frames: u64 = all.iter().map(|s| s.frames).sum();
    let lost: u64 = all.iter().map(|s| s.lost).sum();
    let (l50, l99) = percentiles(&mut latencies);
    let (f50, f99) = percentiles(&mut firsts);
    println!("{frames} {lost} {l50} {l99} {f50} {f99}");
    Ok(())
}

fn percentiles(values: &mut [u32]) -> (f64, f64) {
    values.sort_unstable();
    let at = |p: f64| {
        let index = ((values.len() as f64 * p) as usize).min(values.len().saturating_sub(1));
        values.get(index).map_or(f64::NAN, |v| f64::from(*v) / 1000.0)
    };
    (at(0.5), at(0.99))
}

/// Writes frames of the same size to every connection, and does nothing else.
async fn bare(arguments: &Arguments) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    let mut sockets = Vec::new();
    while sockets.len() < arguments.readers {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    // 4 Mbit/s at 25 fps: packets of 1440 bytes, headers and payload apart.
    let (head, body) = (vec![b'$'; 18], vec![7u8; 1426]);
    let pieces: Vec<IoSlice<'_>> = (0..14).flat_map(|_| [IoSlice::new(&head), IoSlice::new(&body)]).collect();
    let mut tick = tokio::time::interval(Duration::from_millis(40));
    loop {
        tick.tick().await;
        for socket in &sockets {
            if let Err(e) = socket.try_write_vectored(&pieces)
                && e.kind() != std::io::ErrorKind::WouldBlock
            {
                return Ok(());
            }
        }
    }
}

async fn churn(arguments: &Arguments) -> Result<(), Failure> {
    let address: SocketAddr = arguments.url.as_deref().unwrap_or_default().parse()?;
    let places = Arc::new(tokio::sync::Semaphore::new(50));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..arguments.churn.unwrap_or(0) {
        let place = places.clone().acquire_owned().await?;
        tasks.spawn(async move {
            let _place = place;
            let mut client = Client::connect(address).await;
            client.play_tcp(&format!("rtsp://{address}/cam-0")).await;
            let end = Instant::now() + Duration::from_secs(1);
            client.drink(|_| Instant::now() < end).await;
        });
    }
    tasks.join_all().await;
    println!("done");
    Ok(())
}

struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &Arguments, role: &str, url: &str) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--role", role, "--url", url]);
        command.args([
            "--streams",
            &arguments.streams.to_string(),
            "--readers",
            &arguments.readers.to_string(),
        ]);
        command.args(["--seconds", &arguments.seconds.to_string()]);
        command.args(["--transport", if arguments.transport == Transport::Tcp { "tcp" } else { "udp" }]);
        if let Some(churn) = arguments.churn {
            command.args(["--churn", &churn.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { child, lines })
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn ask(&mut self) -> Result<String, Failure> {
        self.child.stdin.as_mut().ok_or("no input")?.write_all(b"\n")?;
        self.line()
    }

    fn usage(&self) -> Usage {
        usage(self.child.id()).unwrap_or_default()
    }

    /// Processor time over some seconds, as a part of one core.
    fn watch(&self, seconds: u64) -> (f64, Usage) {
        let (before, start) = (self.usage(), Instant::now());
        std::thread::sleep(Duration::from_secs(seconds));
        let after = self.usage();
        ((after.cpu - before.cpu).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0, after)
    }

    fn end(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let mut cameras = Process::start(arguments, "simulate", "")?;
    let first = cameras.line()?;
    let (url, rate) = first.split_once(' ').ok_or("the simulator did not start")?;
    let mut server = Process::start(arguments, "serve", url)?;
    let address = server.line()?;
    std::thread::sleep(Duration::from_secs(5));
    if let Some(clients) = arguments.churn {
        let show = |server: &mut Process, when: &str| -> Result<(), Failure> {
            let usage = server.usage();
            let told = server.ask()?;
            println!(
                "{when:<8} {:>7.1} MB, {} threads, fds tasks sessions dropped: {told}",
                usage.resident_bytes as f64 / 1e6,
                usage.threads
            );
            Ok(())
        };
        println!("{clients} clients connect, read for a second and leave, 50 at a time");
        show(&mut server, "before")?;
        for round in ["after", "again"] {
            let mut readers = Process::start(arguments, "churn", &address)?;
            readers.line()?;
            readers.child.wait()?;
            std::thread::sleep(Duration::from_secs(3));
            show(&mut server, round)?;
        }
        server.end()?;
        return cameras.end();
    }
    println!(
        "{} streams 1080p25 H.264, {:.2} Mbit/s, {} readers by {}, {} s",
        arguments.streams,
        rate.parse::<f64>()? / 1e6,
        arguments.readers,
        if arguments.transport == Transport::Tcp { "TCP" } else { "UDP" },
        arguments.seconds
    );
    let (idle, idle_usage) = server.watch(arguments.seconds.min(10));
    println!(
        "without readers  {:>7.3} % of a core per stream   {:>7.1} MB   {} threads",
        idle / arguments.streams as f64,
        idle_usage.resident_bytes as f64 / 1e6,
        idle_usage.threads
    );
    if arguments.readers > 0 {
        let mut readers = Process::start(arguments, "read", &address)?;
        std::thread::sleep(Duration::from_secs(4));
        let (busy, busy_usage) = server.watch(arguments.seconds.saturating_sub(1));
        let told = server.ask()?;
        let line = readers.line()?;
        readers.child.wait()?;
        let per_reader = (busy - idle) / arguments.readers as f64;
        println!(
            "each reader      {per_reader:>7.4} % of a core   {:>7.1} KB   (server {busy:.2} % of a core, {:.1} MB, {} threads)",
            (busy_usage.resident_bytes as f64 - idle_usage.resident_bytes as f64)
                / 1e3
                / arguments.readers as f64,
            busy_usage.resident_bytes as f64 / 1e6,
            busy_usage.threads
        );
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        if let [frames, lost, l50, l99, f50, f99] = numbers[..] {
            println!(
                "  frames read {frames} of {:.0}, packets lost {lost}; fds tasks sessions dropped: {told}",
                arguments.readers as f64 * 25.0 * arguments.seconds as f64
            );
            println!(
                "  camera to reader p50 {l50:.2} ms p99 {l99:.2} ms; first packet after PLAY p50 {f50:.2} ms p99 {f99:.2} ms"
            );
        }
        if arguments.transport == Transport::Tcp {
            let mut bare = Process::start(arguments, "bare", "")?;
            let address: SocketAddr = bare.line()?.parse()?;
            let sinks: Vec<std::thread::JoinHandle<()>> = sinks(address, arguments.readers)?;
            std::thread::sleep(Duration::from_secs(2));
            let (floor, _) = bare.watch(8);
            let floor = floor / arguments.readers as f64;
            println!(
                "a bare loop of vectored writes {floor:>7.4} % of a core each; ratio {:.2}",
                per_reader / floor
            );
            bare.end()?;
            sinks.into_iter().for_each(|s| drop(s.join()));
        }
    }
    server.end()?;
    cameras.end()
}

/// Connections that are read and thrown away, on one thread.
fn sinks(address: SocketAddr, count: usize) -> Result<Vec<std::thread::JoinHandle<()>>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(vec![std::thread::spawn(move || {
        runtime.block_on(async move {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..count {
                tasks.spawn(async move { Client::connect(address).await.drink(|_| true).await });
            }
            tasks.join_all().await;
        });
    })])
}
