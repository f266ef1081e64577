//! What stands in for a camera: how long after the timeout it is there, and whether anything is missing when the camera is back.
//!
//! ```text
//! cargo run --release -p stream-manager-benches --bin stand_in -- --cameras 20 --minutes 3
//! ```
//!
//! Each camera goes silent twelve seconds into every session; a slate stands in a second later, the camera is connected anew, and is let in
//! again after a second without a pause. A reader on each stream takes the times.

use clap::Parser;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream_manager_benches::runtime;
use stream_manager_core::hub::{HubItem, HubReader, Input, ReaderOptions};
use stream_manager_core::manager::{Fallback, RetryPolicy, Stream, StreamManager};
use stream_manager_core::source::RtspSource;
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};

const TIMEOUT: Duration = Duration::from_secs(1);
const FPS: u32 = 25;
/// Frames of a session before the camera goes silent.
const WELL: u64 = 300;

#[derive(Parser)]
#[command(about = "Measures how a slate stands in for cameras that go silent and come back")]
struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Cameras
    #[arg(long, default_value_t = 20)]
    cameras: usize,
}

/// What a reader has seen.
#[derive(Default)]
struct Seen {
    /// From a camera's last frame to the first one of what stands in, less the timeout.
    over: Vec<Duration>,
    /// Presentation time from the last frame that stood in to the camera's first one.
    steps: Vec<Duration>,
    /// Frames missing between two of the camera's, within the time that it was let in.
    missing: u64,
    /// The camera's frames.
    frames: u64,
}

async fn watch(mut reader: HubReader) -> Seen {
    let mut seen = Seen::default();
    let mut input = Input::Main;
    // When and where on the timeline the last frame was, and whose it was.
    let mut last: Option<(Instant, i64, Input)> = None;
    let tick = |from: i64, to: i64| Duration::from_nanos(u64::try_from(to - from).unwrap_or_default());
    while let Some(item) = reader.next().await {
        match item {
            HubItem::Input(now) => input = now,
            HubItem::Frame(frame) => {
                let (now, pts) = (Instant::now(), frame.pts.as_nanos());
                seen.frames += u64::from(input == Input::Main);
                match (last, input) {
                    (Some((at, _, Input::Main)), Input::Fallback) => {
                        seen.over.push((now - at).saturating_sub(TIMEOUT));
                    }
                    (Some((_, before, Input::Fallback)), Input::Main) => seen.steps.push(tick(before, pts)),
                    (Some((_, before, Input::Main)), Input::Main) => {
                        let steps = (tick(before, pts).as_secs_f64() * f64::from(FPS)).round() as u64;
                        seen.missing += steps.saturating_sub(1);
                    }
                    _ => {}
                }
                last = Some((now, pts, input));
            }
            _ => {}
        }
    }
    seen
}

fn tell(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times.get(times.len().saturating_sub(1) * part / 100).copied().unwrap_or_default();
    println!(
        "{name}: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        at(50).as_secs_f64() * 1e3,
        at(99).as_secs_f64() * 1e3,
        at(100).as_secs_f64() * 1e3
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    runtime()?.block_on(async {
        let media = tokio::task::spawn_blocking(|| Loop::encode(640, 360, FPS, FPS, 500, 10, false)).await?;
        let spread = Duration::from_secs(5);
        let mischief = Mischief { silent_from: Some(WELL), spread, ..Mischief::default() };
        let cameras = ReplayServer::start(Arc::new(media), mischief).await;
        let manager = StreamManager::builder().build().await?;
        let mut watching = Vec::new();
        for number in 0..arguments.cameras {
            let fallback = Fallback::slate("{id}: no signal since {since}");
            let stream = Stream::builder(format!("cam-{number}"))
                .source(RtspSource::new(&cameras.url("cam"))?)
                .retry(RetryPolicy { silence: Duration::from_secs(3), ..RetryPolicy::default() })
                .fallback(fallback.timeout(TIMEOUT).return_after(Duration::from_secs(1)));
            let stream = manager.add_stream(stream)?;
            let reader = stream.hub().subscribe("watch", ReaderOptions::default());
            watching.push(tokio::spawn(watch(reader)));
        }
        tokio::time::sleep(Duration::from_secs_f64(arguments.minutes * 60.0)).await;
        manager.shutdown().await;
        let mut all = Seen::default();
        for task in watching {
            let seen = task.await?;
            all.over.extend(seen.over);
            all.steps.extend(seen.steps);
            all.missing += seen.missing;
            all.frames += seen.frames;
        }
        println!("{} times a slate stood in, {} times the camera came back", all.over.len(), all.steps.len());
        tell("beyond the timeout until it was there", all.over);
        tell("from its last frame to the camera's first, on the timeline", all.steps);
        println!(
            "{} of {} frames of the cameras are missing while they were let in",
            all.missing, all.frames
        );
        Ok(())
    })
}
