//! Holds a recording and goes on, by hand: two seconds recorded, two not, two recorded.
//!
//! `cargo run -p stream-manager-examples --bin pause_resume -- rtsp://camera/stream`

use std::time::Duration;
use stream_manager_core::event::StreamState;
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::recording::{Recorder, Recording};
use stream_manager_core::source;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "test://smpte".into());
    let stream =
        Stream::builder("camera").boxed_source(source::from_url(&url)?).record_on_demand(Recording::fmp4());
    let manager = StreamManager::builder().data_dir("pause_resume").stream(stream).build().await?;
    let camera = manager.stream("camera")?;
    camera.wait_for(StreamState::Running, Duration::from_secs(15)).await;

    let recorder = camera.recorder();
    recorder.start().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    recorder.pause().await?;
    println!("paused after {} frames", recorder.status().frames);
    tokio::time::sleep(Duration::from_secs(2)).await;
    recorder.resume().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let last = recorder.stop().await?;
    println!("{} segments, the last is {:?}", recorder.status().segments, last.map(|s| s.path));
    manager.shutdown().await;
    Ok(())
}
