//! Records one camera for a while.
//!
//! `cargo run -p stream-manager-examples --bin record_one -- rtsp://camera/stream out.mp4 10`

use std::time::Duration;
use stream_manager_core::manager::RecordJob;
use stream_manager_core::recording::Recording;
use stream_manager_core::source;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "test://smpte".into());
    let path = arguments.next().unwrap_or_else(|| "record_one.mp4".into());
    let seconds = arguments.next().map_or(Ok(5), |s| s.parse())?;

    let recording = Recording::to_file(&path, None, true)?;
    let job = RecordJob::new(source::from_url(&url)?, recording).duration(Duration::from_secs(seconds));
    let report = job.run(Default::default(), |progress| println!("{} frames", progress.frames)).await?;
    println!("{path}: {:.1} s, {} bytes", report.progress.duration_secs, report.progress.bytes);
    Ok(())
}
