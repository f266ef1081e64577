//! A GStreamer pipeline of one's own gets a stream of this process by one element: counts decoded pictures, or shows them.
//!
//! `cargo run -p stream-manager-examples --bin gst_tap -- rtsp://camera/stream` counts for five seconds; with `--show` behind it, it opens
//! a window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::pipeline::gst;
use stream_manager_core::pipeline::gst::prelude::*;
use stream_manager_core::pipeline::{init, parse_pipeline, share_time};
use stream_manager_core::sink::to_intersrc;
use stream_manager_core::source;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "test://smpte".into());
    let shown = std::env::args().any(|argument| argument == "--show");
    let stream = Stream::builder("camera").boxed_source(source::from_url(&url)?).sink(to_intersrc("camera"));
    let manager = StreamManager::builder().stream(stream).build().await?;

    init()?;
    let end = if shown { "autovideosink" } else { "fakesink sync=true" };
    let pipeline = parse_pipeline(&format!(
        "intersrc producer-name=camera/video ! decodebin ! videoconvert ! identity name=pictures ! {end}"
    ))?;
    // Buffers keep their times on the way: both sides go by the same clock.
    share_time(&pipeline);
    let pictures = Arc::new(AtomicU64::new(0));
    let count = pictures.clone();
    let pad = pipeline.by_name("pictures").and_then(|element| element.static_pad("src"));
    pad.ok_or("no pad")?.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing)?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    pipeline.set_state(gst::State::Null)?;
    manager.shutdown().await;
    println!("{} pictures", pictures.load(Ordering::Relaxed));
    Ok(())
}
