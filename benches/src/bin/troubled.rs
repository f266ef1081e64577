//! Cameras in trouble: of a hundred some come and go, some are silent, some send rubbish, some are not there, and all others are
//! recorded. What matters is that these lose nothing, and that memory, files and threads stay what they are.
//!
//! ```text
//! cargo run --release -p stream-manager-benches --bin troubled -- --minutes 10
//! troubled --well 200 --flapping 0 --silent 0 --garbage 0 --answer-ms 300 --hosts 200 --minutes 0.2  # slow lines: when are all up?
//! troubled --on-demand 100 --answer-ms 50                                                   # how long a reader waits
//! troubled --well 1 --flapping 0 --silent 0 --garbage 0 --dead 200 --minutes 2              # what dead cameras cost
//! ```

use clap::Parser;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream_manager_benches::{runtime, usage};
use stream_manager_core::event::StreamState;
use stream_manager_core::hub::{HubItem, ReaderOptions};
use stream_manager_core::manager::{Fallback, Stream, StreamManager};
use stream_manager_core::recording::{Recorder, Recording};
use stream_manager_core::source::RtspSource;
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};

type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(about = "Measures what cameras in trouble do to the others")]
struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Cameras that are well
    #[arg(long, default_value_t = 50)]
    well: usize,
    /// Cameras whose connection is cut after ten seconds, again and again
    #[arg(long, default_value_t = 30)]
    flapping: usize,
    /// Cameras that connect and send nothing
    #[arg(long, default_value_t = 10)]
    silent: usize,
    /// Cameras that send something that is no RTSP after two seconds
    #[arg(long, default_value_t = 10)]
    garbage: usize,
    /// Cameras that are not there
    #[arg(long, default_value_t = 0)]
    dead: usize,
    /// A slate stands in for those in trouble
    #[arg(long)]
    fallback: bool,
    /// How long each answer of a camera takes, in milliseconds: a slow line
    #[arg(long, default_value_t = 0)]
    answer_ms: u64,
    /// On how many hosts the cameras of each kind are
    #[arg(long, default_value_t = 1)]
    hosts: u8,
    /// Instead of all that: so many times a reader asks for a stream on demand
    #[arg(long, default_value_t = 0)]
    on_demand: usize,
    /// Height of the pictures; 16:9
    #[arg(long, default_value_t = 720)]
    height: u32,
    #[arg(long, hide = true)]
    role: Option<String>,
    #[arg(long, hide = true)]
    urls: Option<String>,
}

impl Arguments {
    /// The kinds, with how many there are of each.
    fn kinds(&self) -> [(&'static str, usize); 5] {
        [
            ("well", self.well),
            ("flapping", self.flapping),
            ("silent", self.silent),
            ("garbage", self.garbage),
            ("dead", self.dead),
        ]
    }
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    match arguments.role.as_deref() {
        Some("cameras") => runtime()?.block_on(cameras(&arguments)),
        Some("on-demand") => runtime()?.block_on(on_demand(&arguments)),
        Some(_) => runtime()?.block_on(library(&arguments)),
        None => measure(&arguments),
    }
}

/// Serves all kinds until standard input ends; prints an address for each kind.
async fn cameras(arguments: &Arguments) -> Result<(), Failure> {
    let height = arguments.height;
    let media = tokio::task::spawn_blocking(move || {
        Loop::encode(
            height * 16 / 9 / 2 * 2,
            height,
            25,
            25,
            (4000 * height / 1080 * height / 1080).max(300),
            10,
            false,
        )
    });
    let media = Arc::new(media.await?);
    let mut servers = Vec::new();
    let mut urls = Vec::new();
    for (kind, _) in arguments.kinds() {
        let answer_delay = Duration::from_millis(arguments.answer_ms);
        let usual = Mischief { spread: Duration::from_secs(1), answer_delay, ..Mischief::default() };
        let mischief = match kind {
            "flapping" => Mischief { cut_after: Some(250), ..usual },
            "silent" => Mischief { silent_from: Some(0), ..usual },
            "garbage" => Mischief { garbage_after: Some(50), ..usual },
            _ => usual,
        };
        let mut hosts = Vec::new();
        for host in 1..=arguments.hosts.max(1) {
            let ip = Ipv4Addr::new(127, 0, 0, host);
            let server = ReplayServer::start_at(ip, media.clone(), mischief.clone()).await;
            hosts.push(server.url("cam"));
            // Of a dead one only the address is left.
            if kind != "dead" {
                servers.push(server);
            }
        }
        urls.push(hosts.join(","));
    }
    println!("{}", urls.join(" "));
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

/// Asks for a camera that nobody else reads, again and again; prints how long its first frame took.
async fn on_demand(arguments: &Arguments) -> Result<(), Failure> {
    let urls = arguments.urls.as_deref().unwrap_or_default();
    let url = urls.split([' ', ',']).next().unwrap_or_default();
    let manager = StreamManager::builder().build().await?;
    let stream = Stream::builder("cam").source(RtspSource::new(url)?).on_demand(Duration::ZERO);
    let stream = manager.add_stream(stream)?;
    let mut times = Vec::new();
    for _ in 0..arguments.on_demand {
        let begun = Instant::now();
        let mut reader = stream.hub().subscribe("reader", ReaderOptions::default());
        while !matches!(reader.next().await.ok_or("the stream has ended")?, HubItem::Frame(_)) {}
        times.push(begun.elapsed());
        drop(reader);
        while stream.state().state != StreamState::Idle {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    times.sort();
    let at =
        |part: usize| times.get((times.len() * part / 100).min(times.len() - 1)).map(Duration::as_millis);
    println!(
        "first frame of {} times: p50 {:?} ms, p99 {:?} ms, slowest {:?} ms",
        times.len(),
        at(50),
        at(99),
        at(100)
    );
    manager.shutdown().await;
    Ok(())
}

/// Records every camera until standard input ends, then tells how each kind has fared.
async fn library(arguments: &Arguments) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let mut builder = StreamManager::builder().data_dir(folder.path());
    let urls: Vec<&str> = arguments.urls.as_deref().unwrap_or_default().split(' ').collect();
    for ((kind, count), hosts) in arguments.kinds().iter().zip(&urls) {
        let hosts: Vec<&str> = hosts.split(',').collect();
        for (number, url) in (0..*count).zip(hosts.iter().cycle()) {
            let mut stream = Stream::builder(format!("{kind}-{number}"))
                .source(RtspSource::new(url)?)
                .record(Recording::fmp4().segment_duration(Duration::from_secs(60)));
            if arguments.fallback && *kind != "well" {
                stream = stream.fallback(Fallback::slate("{id}: no signal since {since}"));
            }
            builder = builder.stream(stream);
        }
    }
    let started = Instant::now();
    let manager = builder.build().await?;
    let up = || {
        manager
            .streams()
            .iter()
            .filter(|s| s.id().as_str().starts_with("well"))
            .all(|s| s.hub().stats().frames > 0)
    };
    while !up() {
        if started.elapsed() > Duration::from_secs(60) {
            return Err("not all that are well are up within a minute".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{}", started.elapsed().as_secs_f64());
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    let streams = manager.streams();
    manager.shutdown().await;
    let mut kinds: BTreeMap<&str, [u64; 6]> = BTreeMap::new();
    for stream in &streams {
        let (hub, recording) = (stream.hub().stats(), stream.recorder().status());
        let kind = stream.id().as_str().split('-').next().unwrap_or_default();
        let sums = kinds.entry(kind).or_default();
        let lost = hub.frames.saturating_sub(recording.frames);
        let switches = stream.status().fallback.map_or(0, |f| f.switches);
        for (sum, value) in
            sums.iter_mut().zip([1, hub.sessions, hub.frames, lost, hub.packets_lost, switches])
        {
            *sum += value;
        }
    }
    for (kind, [count, sessions, frames, lost, packets, switches]) in kinds {
        println!(
            "{kind:<9} {count:>3} cameras: {sessions:>5} sessions, {frames:>8} frames; not recorded {lost}, packets lost {packets}; \
             stood in for {switches} times"
        );
    }
    Ok(())
}

fn files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let given: Vec<String> = std::env::args().skip(1).collect();
    let start = |role: &str, more: &[&str]| {
        let mut command = Command::new(&program);
        command.args(&given).args(["--role", role]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    };
    let mut simulator = start("cameras", &[])?;
    let mut lines = BufReader::new(simulator.stdout.take().ok_or("no output")?);
    let mut urls = String::new();
    lines.read_line(&mut urls)?;
    if arguments.on_demand > 0 {
        let reader = start("on-demand", &["--urls", urls.trim()])?;
        print!("{}", String::from_utf8_lossy(&reader.wait_with_output()?.stdout));
        drop(simulator.stdin.take());
        simulator.wait()?;
        return Ok(());
    }
    let mut child = start("library", &["--urls", urls.trim()])?;
    let mut said = BufReader::new(child.stdout.take().ok_or("no output")?);
    let mut up = String::new();
    said.read_line(&mut up)?;
    println!("all that are well are up after {:.2} s", up.trim().parse::<f64>()?);
    let begun = Instant::now();
    let mut before = usage(child.id()).ok_or("the library has ended")?;
    let step = Duration::from_secs_f64((arguments.minutes * 60.0 / 20.0).clamp(1.0, 60.0));
    while begun.elapsed().as_secs_f64() < arguments.minutes * 60.0 {
        std::thread::sleep(step);
        let now = usage(child.id()).ok_or("the library has ended")?;
        println!(
            "{:>5.1} min: {:>6.1} MB, {:>3} threads, {:>4} files, {:>5.1} % of a core",
            begun.elapsed().as_secs_f64() / 60.0,
            now.resident_bytes as f64 / 1e6,
            now.threads,
            files(child.id()),
            now.cpu.saturating_sub(before.cpu).as_secs_f64() / step.as_secs_f64() * 100.0
        );
        before = now;
    }
    drop(child.stdin.take());
    for line in said.lines() {
        println!("{}", line?);
    }
    child.wait()?;
    drop(simulator.stdin.take());
    simulator.wait()?;
    Ok(())
}
