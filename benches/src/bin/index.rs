//! The index bench: how long a start takes with many segments, and how long a day of one camera takes among
//! millions.
//!
//! ```text
//! cargo run --release -p stream-manager-benches --bin index -- --segments 10000000
//! cargo run --release -p stream-manager-benches --bin index -- --segments 100000 --files
//! ```
//!
//! A hundred cameras, segments of a minute, each with sixty parts. With `--files` each segment has a file (of
//! one byte), so that the comparison of files and index at the start is measured too.

use clap::Parser;
use std::path::Path;
use std::time::{Duration, Instant};
use stream_manager_core::frame::{MediaTime, WallTime};
use stream_manager_core::manager::StreamManager;
use stream_manager_core::storage::index::{
    Catalog, Change, NewSegment, PartList, SegmentEnd, SegmentId, TimeRange,
};
use stream_manager_core::storage::{MARKER, segment_name};

type Failure = Box<dyn std::error::Error>;

const STREAMS: u64 = 100;
const MINUTE: i64 = 60_000_000_000;
const BATCH: u64 = 20_000;

#[derive(Parser)]
#[command(about = "Measures the index of recordings")]
struct Arguments {
    /// Segments in the index
    #[arg(long, default_value_t = 1_000_000)]
    segments: u64,
    /// Make a file for each segment
    #[arg(long)]
    files: bool,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let path = folder.path().canonicalize()?;
    let started = Instant::now();
    fill(&path, &arguments)?;
    let took = started.elapsed().as_secs_f64();
    let size = std::fs::metadata(path.join("recordings.db"))?.len();
    println!(
        "{} segments entered in {took:.1} s ({:.0} a second), {:.0} bytes each",
        arguments.segments,
        arguments.segments as f64 / took,
        size as f64 / arguments.segments as f64
    );
    days(&path, &arguments)?;
    tokio::runtime::Runtime::new()?.block_on(start(&path))
}

fn fill(path: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let video = path.join("recordings");
    std::fs::create_dir(&video)?;
    std::fs::write(video.join(MARKER), "")?;
    let mut catalog = Catalog::open(path)?;
    let mut parts = PartList::new(900);
    for _ in 0..60 {
        parts.push(250_000, Duration::from_secs(1), 25, true);
    }
    let end = SegmentEnd { duration_nanos: MINUTE, bytes: 15_000_000, frames: 1500, parts };
    let first = WallTime::now().as_unix_nanos() - (arguments.segments / STREAMS) as i64 * MINUTE;
    let mut id = 0;
    while id < arguments.segments {
        let until = (id + BATCH).min(arguments.segments);
        let mut changes = Vec::new();
        for id in id..until {
            let start = WallTime::from_unix_nanos(first + (id / STREAMS) as i64 * MINUTE);
            let stream = format!("cam-{}", id % STREAMS);
            let (folder, name) = (video.join(&stream), segment_name(start, "mp4"));
            if arguments.files {
                std::fs::create_dir_all(&folder)?;
                std::fs::write(folder.join(&name), "x")?;
            }
            let segment = NewSegment {
                id: SegmentId(id + 1),
                stream: stream.into(),
                start,
                media_start: MediaTime::ZERO,
                folder,
                name,
                format: "fmp4".into(),
                tracks: "[]".into(),
                continues: true,
                lost_frames: 0,
            };
            changes.push(Change::Finish { segment, end: end.clone() });
        }
        catalog.apply(&changes)?;
        id = until;
    }
    Ok(())
}

/// A day of one camera, from anywhere in what there is.
fn days(path: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let catalog = Catalog::open_for_reading(path)?;
    let length = (arguments.segments / STREAMS) as i64 * MINUTE;
    let first = WallTime::now().as_unix_nanos() - length;
    let day = (24 * 60 * MINUTE).min(length);
    let (mut spans, mut segments, mut rows) = (Vec::new(), Vec::new(), 0);
    for number in 0..50i64 {
        let start = first + (length - day) / 50 * number;
        let range = TimeRange::new(WallTime::from_unix_nanos(start), WallTime::from_unix_nanos(start + day))?;
        let stream = format!("cam-{}", number * 7 % STREAMS as i64);
        let begun = Instant::now();
        catalog.recordings(&stream, range, 1000)?;
        spans.push(begun.elapsed());
        let begun = Instant::now();
        rows = catalog.segments(&stream, range, None, usize::MAX)?.len();
        segments.push(begun.elapsed());
    }
    for (what, mut times) in [("spans and gaps", spans), ("segments", segments)] {
        times.sort();
        println!(
            "a day of one camera, {what} ({rows} segments): median {:.2} ms, slowest {:.2} ms",
            times[times.len() / 2].as_secs_f64() * 1e3,
            times[times.len() - 1].as_secs_f64() * 1e3
        );
    }
    Ok(())
}

async fn start(path: &Path) -> Result<(), Failure> {
    let begun = Instant::now();
    let manager = StreamManager::builder().data_dir(path).build().await?;
    println!("start: {:.3} s", begun.elapsed().as_secs_f64());
    while !manager.storage().await?.checked {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("files and index compared in the background after {:.3} s", begun.elapsed().as_secs_f64());
    manager.shutdown().await;
    Ok(())
}
