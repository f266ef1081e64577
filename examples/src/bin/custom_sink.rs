//! A sink of one's own: counts a stream's keyframes, beside whatever else reads the stream.
//!
//! `cargo run -p stream-manager-examples --bin custom_sink -- rtsp://camera/stream`

use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stream_manager_core::hub::{HubItem, HubReader};
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::sink::{Sink, SinkError};
use stream_manager_core::source;
use tokio_util::sync::CancellationToken;

struct CountKeyframes(Arc<AtomicU64>);

#[async_trait]
impl Sink for CountKeyframes {
    async fn run(&mut self, mut reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
        while let Some(Some(item)) = cancel.run_until_cancelled(reader.next()).await {
            if let HubItem::Frame(frame) = item
                && frame.is_video()
                && frame.keyframe
            {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        "keyframe counter".into()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "test://smpte".into());
    let keyframes = Arc::new(AtomicU64::new(0));
    let stream = Stream::builder("camera")
        .boxed_source(source::from_url(&url)?)
        .sink(CountKeyframes(keyframes.clone()));
    let manager = StreamManager::builder().stream(stream).build().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    manager.shutdown().await;
    println!("{} keyframes", keyframes.load(Ordering::Relaxed));
    Ok(())
}
