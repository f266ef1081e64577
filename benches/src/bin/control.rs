//! The control plane's bench: starting, reloading and stopping with many streams, requests beside recordings, events to
//! many listeners.
//!
//! ```text
//! cargo run --release -p stream-manager-benches --bin control -- --streams 100
//! ```
//!
//! Three kinds of processes: the simulator (one encoded loop served to all sessions), the server, and this one, which asks
//! and listens.

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use stream_manager_benches::{runtime, usage};
use stream_manager_core::config::ConfigSource;
use stream_manager_core::frame::WallTime;
use stream_manager_core::service::{Service, ServiceOptions};
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Measures the control plane")]
struct Arguments {
    /// Number of cameras that are recorded
    #[arg(long, default_value_t = 100)]
    streams: usize,
    /// Number of streams that are only stored
    #[arg(long, default_value_t = 10_000)]
    stored: usize,
    /// Requests a second
    #[arg(long, default_value_t = 2000)]
    requests: u64,
    /// For how long, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Listeners to events
    #[arg(long, default_value_t = 100)]
    listeners: usize,
    /// Used by the bench itself: the part this process plays
    #[arg(long, value_enum, hide = true)]
    role: Option<Role>,
    /// Used by the bench itself: where the server lives
    #[arg(long, hide = true)]
    folder: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Simulate,
    Serve,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = runtime()?;
    match arguments.role {
        Some(Role::Simulate) => runtime.block_on(simulate()),
        Some(Role::Serve) => runtime.block_on(serve(&arguments)),
        None => runtime.block_on(measure(&arguments)),
    }
}

async fn until_stdin_ends() -> Result<(), Failure> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

async fn simulate() -> Result<(), Failure> {
    let media = tokio::task::spawn_blocking(|| Loop::encode(1920, 1080, 25, 25, 4000, 10, false)).await?;
    let mischief = Mischief { spread: Duration::from_secs(1), ..Mischief::default() };
    let server = ReplayServer::start(Arc::new(media), mischief).await;
    println!("{}", server.url("cam"));
    until_stdin_ends().await
}

async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let folder = arguments.folder.clone().unwrap_or_default();
    let begun = Instant::now();
    let source =
        ConfigSource { file: Some(Path::new(&folder).join("config.toml")), ..ConfigSource::default() };
    let service = Service::start(source, ServiceOptions::default()).await?;
    println!("{} {}", service.address(), begun.elapsed().as_secs_f64());
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let input = tokio::spawn(async move {
        // An error ends it as well.
        let _ = until_stdin_ends().await;
        stop.cancel();
    });
    service.run(cancel).await;
    Ok(input.await?)
}

/// A part of the bench in a process of its own; it ends with its input.
struct Part {
    child: Child,
    _lines: BufReader<ChildStdout>,
    first: String,
}

impl Part {
    fn start(role: &str, folder: &Path) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--role", role, "--folder", &folder.display().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        Ok(Self { child, _lines: lines, first: first.trim().to_owned() })
    }

    fn stop(&mut self) -> Result<Duration, Failure> {
        let begun = Instant::now();
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(begun.elapsed())
    }
}

/// One connection that is kept.
struct Http {
    socket: TcpStream,
    address: String,
    buffer: Vec<u8>,
}

impl Http {
    async fn open(address: &str) -> Result<Self, Failure> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, address: address.to_owned(), buffer: Vec::new() })
    }

    /// Status and body.
    async fn call(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>), Failure> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.socket.write_all(head.as_bytes()).await?;
        self.buffer.clear();
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection has ended".into());
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let status = head.get(9..12).and_then(|s| s.parse().ok()).ok_or("no status")?;
        let length =
            head.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        let length = length.unwrap_or(0);
        while self.buffer.len() < end + length {
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection has ended".into());
            }
        }
        Ok((status, self.buffer[end..end + length].to_vec()))
    }

    async fn json(&mut self, method: &str, path: &str, body: &str) -> Result<Value, Failure> {
        let (status, body) = self.call(method, path, body).await?;
        if status >= 400 {
            return Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).map_or(0.0, |t| t.as_secs_f64() * 1e3)
}

async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    stored(arguments, &folder.path().join("stored")).await?;
    let mut simulator = Part::start("simulate", folder.path())?;
    let url = simulator.first.clone();
    recorded(arguments, &folder.path().join("recorded"), &url).await?;
    simulator.stop()?;
    Ok(())
}

const HEAD: &str = "[server]\nlisten = \"127.0.0.1:0\"\n[rtsp]\nlisten = \"127.0.0.1:0\"\n";

/// Many streams in the database, few of which run.
async fn stored(arguments: &Arguments, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let config = format!("{HEAD}[storage]\ndata_dir = \"{}\"\n", folder.join("data").display());
    std::fs::write(folder.join("config.toml"), config)?;
    let mut server = Part::start("serve", folder)?;
    let address = server.first.split(' ').next().unwrap_or_default().to_owned();
    let mut http = Http::open(&address).await?;
    let operations: Vec<Value> = (0..arguments.stored)
        .map(|n| {
            let stream = json!({"id": format!("stored/{n}"), "source_url": "publisher", "enabled": n < 100});
            json!({"op": "create", "stream": stream})
        })
        .collect();
    let begun = Instant::now();
    let result =
        http.json("POST", "/api/streams:batch", &json!({"operations": operations}).to_string()).await?;
    println!(
        "{} streams made in one batch: {:.3} s, {} failed",
        arguments.stored,
        begun.elapsed().as_secs_f64(),
        result["failed"]
    );
    drop(http);
    println!("  stopped in {:.3} s", server.stop()?.as_secs_f64());
    let begun = Instant::now();
    let mut server = Part::start("serve", folder)?;
    let until_listening = begun.elapsed();
    let address = server.first.split(' ').next().unwrap_or_default().to_owned();
    let mut http = Http::open(&address).await?;
    let page = http.json("GET", "/api/streams?enabled=true&state=idle&limit=1", "").await?;
    println!(
        "  started: listening after {:.3} s, all {} enabled ones there after {:.3} s (goal 2 s)",
        until_listening.as_secs_f64(),
        page["total"],
        begun.elapsed().as_secs_f64()
    );
    let (mut times, mut after) = (Vec::new(), String::new());
    loop {
        let begun = Instant::now();
        let page = http.json("GET", &format!("/api/streams?limit=100&after={after}"), "").await?;
        times.push(begun.elapsed());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    let pages = times.len();
    println!(
        "  {pages} pages of 100: p50 {:.2} ms, slowest {:.2} ms (goal 50 ms)",
        percentile(&mut times, 50),
        percentile(&mut times, 100)
    );
    for query in ["sort=-changed", "sort=state", "search=9999", "enabled=false&sort=-id"] {
        let begun = Instant::now();
        http.json("GET", &format!("/api/streams?limit=100&{query}"), "").await?;
        println!("  {query}: {:.2} ms", begun.elapsed().as_secs_f64() * 1e3);
    }
    let memory = usage(server.child.id()).unwrap_or_default().resident_bytes as f64 / 1e6;
    println!("  memory: {memory:.1} MB");
    drop(http);
    println!("  stopped in {:.3} s", server.stop()?.as_secs_f64());
    Ok(())
}

fn counters(page: &Value) -> (u64, u64, u64) {
    let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().fold((0, 0, 0), |(received, recorded, lost), s| {
        let number = |v: &Value| v.as_u64().unwrap_or(0);
        let dropped: u64 =
            s["consumers"].as_array().into_iter().flatten().map(|c| number(&c["dropped_frames"])).sum();
        let lost_now = number(&s["recording"]["lost_frames"]) + number(&s["packets_lost"]) + dropped;
        (received + number(&s["frames"]), recorded + number(&s["recording"]["frames"]), lost + lost_now)
    })
}

/// Cameras that are recorded, while others ask and listen.
async fn recorded(arguments: &Arguments, folder: &Path, url: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let streams = |changed: usize| -> String {
        (0..arguments.streams)
            .map(|n| {
                let more = if n < changed { "connect_timeout = \"9s\"\n" } else { "" };
                format!("[[streams]]\nid = \"cam-{n}\"\nsource_url = \"{url}\"\n{more}")
            })
            .collect()
    };
    let config = |changed: usize| {
        let data = folder.join("data");
        format!(
            "{HEAD}[storage]\ndata_dir = \"{}\"\n[defaults.recording]\nenabled = true\nsegment_duration = \"60s\"\n{}",
            data.display(),
            streams(changed)
        )
    };
    std::fs::write(folder.join("config.toml"), config(0))?;
    let begun = Instant::now();
    let mut server = Part::start("serve", folder)?;
    let listening = begun.elapsed();
    let address = server.first.split(' ').next().unwrap_or_default().to_owned();
    let mut http = Http::open(&address).await?;
    let all_run = async |http: &mut Http| -> Result<Duration, Failure> {
        let begun = Instant::now();
        loop {
            let page = http.json("GET", "/api/streams?state=running&limit=1", "").await?;
            if page["total"].as_u64() == Some(arguments.streams as u64) {
                return Ok(begun.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    all_run(&mut http).await?;
    println!(
        "{} cameras: listening after {:.3} s, all recorded after {:.3} s",
        arguments.streams,
        listening.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    for changed in [0, 1, arguments.streams] {
        std::fs::write(folder.join("config.toml"), config(changed))?;
        let begun = Instant::now();
        let report = http.json("POST", "/api/config/reload", "").await?;
        let reloaded = begun.elapsed();
        let running = reloaded + all_run(&mut http).await?;
        println!(
            "  reload, {} changed: {:.3} s, all recorded again after {:.3} s",
            report["streams_changed"].as_array().map_or(0, Vec::len),
            reloaded.as_secs_f64(),
            running.as_secs_f64()
        );
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    quiet_and_asked(arguments, &address, &mut http, server.child.id()).await?;
    heard(arguments, &address, &mut http).await?;
    drop(http);
    println!("  stopped in {:.3} s", server.stop()?.as_secs_f64());
    Ok(())
}

async fn quiet_and_asked(
    arguments: &Arguments,
    address: &str,
    http: &mut Http,
    pid: u32,
) -> Result<(), Failure> {
    let seconds = Duration::from_secs(arguments.seconds);
    let mut cpu = Vec::new();
    for asked in [false, true] {
        let before = (
            counters(&http.json("GET", "/api/streams?limit=1000&sort=-id", "").await?),
            usage(pid).unwrap_or_default(),
        );
        let begun = Instant::now();
        let mut times = if asked { ask(arguments, address).await? } else { Vec::new() };
        tokio::time::sleep(seconds.saturating_sub(begun.elapsed())).await;
        let elapsed = begun.elapsed();
        let after = (
            counters(&http.json("GET", "/api/streams?limit=1000&sort=-id", "").await?),
            usage(pid).unwrap_or_default(),
        );
        let used = (after.1.cpu - before.1.cpu).as_secs_f64() / elapsed.as_secs_f64() * 100.0;
        cpu.push(used);
        let (received, recorded) = (after.0.0 - before.0.0, after.0.1 - before.0.1);
        println!(
            "  {}: server {used:.1} % of a core, {received} frames received, {recorded} recorded, {} lost",
            if asked { "asked" } else { "quiet" },
            after.0.2 - before.0.2
        );
        if asked {
            println!(
                "    {:.0} requests a second (goal {}), {} streams each; p50 {:.2} ms, p99 {:.2} ms, slowest {:.2} ms",
                times.len() as f64 / elapsed.as_secs_f64(),
                arguments.requests,
                arguments.streams,
                percentile(&mut times, 50),
                percentile(&mut times, 99),
                percentile(&mut times, 100)
            );
            println!("    processor time for the requests: {:.1} % of a core", cpu[1] - cpu[0]);
        }
    }
    Ok(())
}

/// Asks at an even pace over four connections; gives how long each answer took.
async fn ask(arguments: &Arguments, address: &str) -> Result<Vec<Duration>, Failure> {
    const CONNECTIONS: u64 = 4;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (address, requests) =
                (address.to_owned(), arguments.requests / CONNECTIONS * arguments.seconds);
            let pace = Duration::from_secs_f64(CONNECTIONS as f64 / arguments.requests as f64);
            tokio::spawn(async move {
                let mut http = Http::open(&address).await?;
                let mut times = Vec::new();
                for n in 0..requests {
                    let due = begun
                        + pace * u32::try_from(n).unwrap_or(0)
                        + pace / CONNECTIONS as u32 * number as u32;
                    tokio::time::sleep_until(due.into()).await;
                    let asked = Instant::now();
                    let (status, _) = http.call("GET", "/api/streams", "").await?;
                    if status != 200 {
                        return Err(format!("status {status}").into());
                    }
                    times.push(asked.elapsed());
                }
                Ok::<_, Failure>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    Ok(times)
}

/// From an event to all its listeners.
async fn heard(arguments: &Arguments, address: &str, http: &mut Http) -> Result<(), Failure> {
    const EVENTS: usize = 200;
    let mut tasks = Vec::new();
    for _ in 0..arguments.listeners {
        let mut socket = TcpStream::connect(address).await?;
        let head = format!(
            "GET /api/events?kind=stream_created HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await?;
        let mut buffer = Vec::new();
        while !buffer.windows(4).any(|w| w == b"\r\n\r\n") {
            socket.read_buf(&mut buffer).await?;
        }
        let end = buffer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0) + 4;
        buffer.drain(..end);
        tasks.push(tokio::spawn(listen(socket, buffer, EVENTS)));
    }
    for n in 0..EVENTS {
        let body =
            json!({"id": format!("event/{n}"), "source_url": "publisher", "enabled": false}).to_string();
        http.json("POST", "/api/streams", &body).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    println!(
        "  {EVENTS} events to {} listeners by WebSocket: {} heard; p50 {:.1} ms, p99 {:.1} ms (goal 20 ms), slowest {:.1} ms",
        arguments.listeners,
        times.len(),
        percentile(&mut times, 50),
        percentile(&mut times, 99),
        percentile(&mut times, 100)
    );
    Ok(())
}

/// How long each event took, by its own time, which has milliseconds.
async fn listen(mut socket: TcpStream, mut buffer: Vec<u8>, events: usize) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    while times.len() < events {
        let Some((opcode, payload, used)) = frame(&buffer) else {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Err("a listener was cut off".into());
            }
            continue;
        };
        if opcode == 1 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i64;
            let event: Value = serde_json::from_slice(&buffer[payload])?;
            let time: WallTime = event["time"].as_str().unwrap_or_default().parse()?;
            times.push(Duration::from_nanos(u64::try_from(now - time.as_unix_nanos()).unwrap_or(0)));
        }
        buffer.drain(..used);
    }
    Ok(times)
}

/// A frame of the server's, RFC 6455 section 5.2: opcode, payload, and where the next one begins.
fn frame(buffer: &[u8]) -> Option<(u8, std::ops::Range<usize>, usize)> {
    let (opcode, short) = (buffer.first()? & 0xf, *buffer.get(1)? as usize);
    let (start, length) = match short {
        126 => (4, u16::from_be_bytes([*buffer.get(2)?, *buffer.get(3)?]) as usize),
        127 => return None,
        length => (2, length),
    };
    (buffer.len() >= start + length).then_some((opcode, start..start + length, start + length))
}
