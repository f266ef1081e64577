//! The load bench: many cameras, what they cost, and what ffmpeg costs beside it.
//!
//! ```text
//! cargo run --release -p stream-manager-benches --bin load -- --streams 20 --scenario record
//! ```
//!
//! Three kinds of processes: the simulator (one encoded loop served to all sessions), the library recording
//! every stream, and ffmpeg, one process a stream, recording the same. The two recorders run one after the
//! other against the same simulator. Processor time is the kernel's count for the recording processes alone.

use clap::{Parser, ValueEnum};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use stream_manager_benches::{Usage, infer, runtime, total, usage};
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::recording::{Recorder, Recording};
use stream_manager_core::source::RtspSource;
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};

type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(about = "Measures what many cameras cost")]
struct Arguments {
    /// Number of cameras
    #[arg(long, default_value_t = 20)]
    streams: usize,
    /// What is done with them
    #[arg(long, value_enum, default_value_t = Scenario::Record)]
    scenario: Scenario,
    /// How long is measured, in seconds, after five seconds of warm-up
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Frames from one keyframe to the next
    #[arg(long, default_value_t = 25)]
    gop: u32,
    /// All cameras begin their GOPs at the same moment, which no real ones do: the most memory
    #[arg(long)]
    in_phase: bool,
    /// Leave ffmpeg out
    #[arg(long)]
    no_ffmpeg: bool,
    /// The model of the scenario infer
    #[arg(long)]
    model: Option<std::path::PathBuf>,
    /// What the cameras show, over and over again, instead of snow
    #[arg(long)]
    video: Option<std::path::PathBuf>,
    /// A classifier that looks at each object that the model finds, once a second
    #[arg(long)]
    classifier: Option<std::path::PathBuf>,
    /// Their threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How often it is loaded
    #[arg(long, default_value_t = 1)]
    instances: usize,
    /// Pictures that each camera asks for, a second
    #[arg(long, default_value_t = 25.0)]
    max_fps: f64,
    /// Height of the cameras' pictures; 16:9
    #[arg(long, default_value_t = 1080)]
    height: u32,
    /// Used by the bench itself: what is measured, as JSON
    #[arg(long, hide = true)]
    setup: Option<String>,
    /// Used by the bench itself: the part this process plays
    #[arg(long, value_enum, hide = true)]
    role: Option<Role>,
    /// Used by the bench itself: the simulator's address
    #[arg(long, hide = true)]
    url: Option<String>,
    /// Used by the bench itself: where to record
    #[arg(long, hide = true)]
    folder: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// RTSP over TCP to fragmented MP4
    Record,
    /// RTSP over TCP into the hub, no consumer
    Receive,
    /// Recorded, and analysed by one model for all: 1, 2, 4, … up to --streams cameras
    Infer,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Simulate,
    Library,
    Infer,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = runtime()?;
    match arguments.role {
        Some(Role::Simulate) => runtime.block_on(simulate(&arguments)),
        Some(Role::Library) => runtime.block_on(library(&arguments)),
        Some(Role::Infer) => runtime.block_on(async {
            let setup = serde_json::from_str(arguments.setup.as_deref().unwrap_or_default())?;
            println!("{}", serde_json::to_string(&infer::library(&setup).await?)?);
            Ok(())
        }),
        None if matches!(arguments.scenario, Scenario::Infer) => measure_inference(&arguments),
        None => measure(&arguments),
    }
}

/// Serves the loop until standard input ends.
async fn simulate(arguments: &Arguments) -> Result<(), Failure> {
    let (gop, height) = (arguments.gop, arguments.height);
    let (width, kbit) = (height * 16 / 9 / 2 * 2, 4000 * height / 1080 * height / 1080);
    let kbit = kbit.max(300);
    let video = arguments.video.clone();
    let media = tokio::task::spawn_blocking(move || match video {
        Some(path) => Loop::of_video(&path, width, height, 25, gop, kbit),
        None => Loop::encode(width, height, 25, gop, kbit, 10, false),
    })
    .await?;
    let rate = media.bitrate();
    let spread = if arguments.in_phase { Duration::ZERO } else { Duration::from_secs(u64::from(gop) / 25) };
    let mischief = Mischief { spread, ..Mischief::default() };
    let server = ReplayServer::start(Arc::new(media), mischief).await;
    println!("{} {rate}", server.url("cam"));
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

/// Takes in every stream until standard input ends, then tells of losses.
async fn library(arguments: &Arguments) -> Result<(), Failure> {
    let (url, folder) =
        (arguments.url.clone().unwrap_or_default(), arguments.folder.clone().unwrap_or_default());
    let mut builder = StreamManager::builder().data_dir(folder);
    for number in 0..arguments.streams {
        let stream = Stream::builder(format!("cam-{number}")).source(RtspSource::new(&url)?);
        builder = builder.stream(match arguments.scenario {
            Scenario::Record => stream.record(Recording::fmp4().segment_duration(Duration::from_secs(60))),
            Scenario::Receive | Scenario::Infer => stream.record_on_demand(Recording::fmp4()),
        });
    }
    let manager = builder.build().await?;
    println!("started");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    let streams = manager.streams();
    let storage = manager.storage().await?;
    let written: u64 = storage.directories.iter().map(|d| d.writes).sum();
    let syncs: u64 = storage.directories.iter().map(|d| d.syncs).sum();
    manager.shutdown().await;
    let (mut received, mut recorded, mut lost, mut sessions) = (0, 0, 0, 0);
    for stream in &streams {
        let hub = stream.hub().stats();
        received += hub.frames;
        sessions += hub.sessions;
        lost += hub.packets_lost;
        recorded += stream.recorder().status().frames;
    }
    let payload: u64 = streams.iter().map(|s| s.hub().stats().bytes).sum();
    let given = usage(std::process::id()).unwrap_or_default().written_bytes;
    println!("{received} {recorded} {lost} {sessions} {payload} {given} {written} {syncs}");
    Ok(())
}

fn start(
    arguments: &Arguments,
    role: &str,
    more: &[&str],
) -> Result<(Child, BufReader<std::process::ChildStdout>, String), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "--role",
            role,
            "--streams",
            &arguments.streams.to_string(),
            "--gop",
            &arguments.gop.to_string(),
            "--height",
            &arguments.height.to_string(),
        ])
        .args([
            "--scenario",
            if matches!(arguments.scenario, Scenario::Record) { "record" } else { "receive" },
        ])
        .args(if arguments.in_phase { &["--in-phase"][..] } else { &[] })
        .args(arguments.video.iter().flat_map(|path| [OsStr::new("--video"), path.as_os_str()]))
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?);
    let mut first = String::new();
    lines.read_line(&mut first)?;
    Ok((child, lines, first.trim().to_owned()))
}

struct Measured {
    cpu_percent_per_stream: f64,
    peak: Usage,
    written_bytes: u64,
    write_calls: u64,
    seconds: f64,
}

/// Watches processes for the measured time.
fn watch(pids: &[u32], arguments: &Arguments) -> Measured {
    std::thread::sleep(Duration::from_secs(5));
    let before = total(pids);
    let mut peak = Usage::default();
    let start = std::time::Instant::now();
    for _ in 0..arguments.seconds {
        std::thread::sleep(Duration::from_secs(1));
        let now = total(pids);
        peak.resident_bytes = peak.resident_bytes.max(now.resident_bytes);
        peak.threads = peak.threads.max(now.threads);
    }
    let after = total(pids);
    let (used, seconds) = (after.cpu.saturating_sub(before.cpu).as_secs_f64(), start.elapsed().as_secs_f64());
    let cpu_percent_per_stream = used / seconds * 100.0 / arguments.streams as f64;
    Measured {
        cpu_percent_per_stream,
        peak,
        written_bytes: after.written_bytes - before.written_bytes,
        write_calls: after.write_calls - before.write_calls,
        seconds,
    }
}

fn report(who: &str, arguments: &Arguments, measured: &Measured) {
    let megabytes = measured.peak.resident_bytes as f64 / 1e6;
    println!(
        "{who:<16} {:>7.3} % of a core per stream   {megabytes:>8.1} MB in all   {:>6.2} MB per stream   {:>5} threads",
        measured.cpu_percent_per_stream,
        megabytes / arguments.streams as f64,
        measured.peak.threads
    );
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let (mut simulator, _lines, first) = start(arguments, "simulate", &[])?;
    let (url, rate) = first.split_once(' ').ok_or("the simulator did not start")?;
    println!(
        "{} streams 1080p25 H.264, {:.2} Mbit/s, GOP {}, RTSP over TCP, {} s",
        arguments.streams,
        rate.parse::<f64>()? / 1e6,
        arguments.gop,
        arguments.seconds
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("library");
    let (mut child, mut lines, _) =
        start(arguments, "library", &["--url", url, "--folder", &path.display().to_string()])?;
    let ours = watch(&[child.id()], arguments);
    let simulator_usage = usage(simulator.id()).unwrap_or_default();
    drop(child.stdin.take());
    let mut losses = String::new();
    lines.read_line(&mut losses)?;
    child.wait()?;
    report("stream-manager", arguments, &ours);
    let numbers: Vec<u64> = losses.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    if let [received, recorded, lost, sessions, payload, given, parts, syncs] = numbers[..] {
        let missing = if matches!(arguments.scenario, Scenario::Record) {
            received.saturating_sub(recorded)
        } else {
            0
        };
        println!(
            "  received {received} frames in {sessions} sessions, recorded {recorded}; lost: {missing} frames, {lost} packets"
        );
        let per_stream = ours.seconds * arguments.streams as f64;
        println!(
            "  a second and stream: {:.1} kB, {:.2} write calls; all in all {parts} parts, {syncs} syncs",
            ours.written_bytes as f64 / per_stream / 1e3,
            ours.write_calls as f64 / per_stream,
        );
        // All that was given to write(2), the index and the requests to cameras too, by what the cameras sent.
        println!("  write amplification: {:.4}", given as f64 / payload.max(1) as f64);
    }
    println!(
        "  simulator: {} threads, {:.1} MB",
        simulator_usage.threads,
        simulator_usage.resident_bytes as f64 / 1e6
    );
    if !arguments.no_ffmpeg && matches!(arguments.scenario, Scenario::Record) {
        let theirs = ffmpeg(arguments, url, &folder.path().join("ffmpeg"))?;
        report("ffmpeg -c copy", arguments, &theirs);
        println!(
            "ratio of processor time: {:.3}",
            ours.cpu_percent_per_stream / theirs.cpu_percent_per_stream
        );
    }
    drop(simulator.stdin.take());
    simulator.wait()?;
    Ok(())
}

/// One camera, two, four, … that are recorded and share a model.
fn measure_inference(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.clone().ok_or("--model is missing: an ONNX file")?;
    let spec = stream_manager_core::inference::ModelSpec::new(&model);
    let spec = stream_manager_core::inference::ModelSpec { threads: arguments.threads, ..spec };
    let mut ours = 0.0;
    stream_manager_core::inference::bench(&spec, None, &[1], Duration::from_secs(3), |row| {
        ours = row.median_ms
    })?;
    match infer::python(&model, arguments.threads) {
        Some(python) => {
            println!("the model alone: {ours:.2} ms, in Python {python:.2} ms, ratio {:.3}", ours / python)
        }
        None => println!("the model alone: {ours:.2} ms; there is no Python with onnxruntime here"),
    }
    let (mut simulator, _lines, first) = start(arguments, "simulate", &[])?;
    let (url, rate) = first.split_once(' ').ok_or("the simulator did not start")?;
    println!(
        "{}p25 H.264, {:.2} Mbit/s, GOP {}, RTSP over TCP; recorded, and {} pictures a second wanted of each; {} instances with {} threads; {} s each",
        arguments.height,
        rate.parse::<f64>()? / 1e6,
        arguments.gop,
        arguments.max_fps,
        arguments.instances,
        arguments.threads,
        arguments.seconds
    );
    println!("{}", infer::HEAD);
    let numbers = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n <= arguments.streams);
    let mut empty = None;
    for streams in numbers {
        let folder = tempfile::tempdir()?;
        let setup = infer::Setup {
            url: url.to_owned(),
            streams,
            model: model.clone(),
            threads: arguments.threads,
            instances: arguments.instances,
            max_fps: arguments.max_fps,
            seconds: arguments.seconds,
            folder: folder.path().to_owned(),
            classifier: arguments.classifier.clone(),
        };
        let output = Command::new(std::env::current_exe()?)
            .args(["--role", "infer", "--setup", &serde_json::to_string(&setup)?])
            .stderr(Stdio::inherit())
            .output()?;
        let figures: infer::Figures = serde_json::from_slice(&output.stdout)?;
        // The first has the model and the program in it as well.
        let empty = *empty.get_or_insert(figures.resident_bytes.saturating_sub(30_000_000));
        println!("{}", infer::line(streams, &figures, empty));
    }
    drop(simulator.stdin.take());
    simulator.wait()?;
    Ok(())
}

/// One ffmpeg a stream, as people do it.
fn ffmpeg(arguments: &Arguments, url: &str, folder: &Path) -> Result<Measured, Failure> {
    std::fs::create_dir_all(folder)?;
    let mut children = Vec::new();
    for number in 0..arguments.streams {
        let output = folder.join(format!("cam-{number}-%03d.mp4"));
        children.push(
            Command::new("ffmpeg")
                .args(["-v", "error", "-rtsp_transport", "tcp", "-i", url, "-c", "copy", "-f", "segment"])
                .args(["-segment_time", "60", "-reset_timestamps", "1"])
                .arg(output)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?,
        );
    }
    let pids: Vec<u32> = children.iter().map(Child::id).collect();
    let measured = watch(&pids, arguments);
    for child in &mut children {
        child.kill()?;
        child.wait()?;
    }
    Ok(measured)
}
