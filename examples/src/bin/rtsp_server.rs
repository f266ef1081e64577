//! A stream served by RTSP, and one that others may publish.
//!
//! `cargo run -p stream-manager-examples --bin rtsp_server`, then `ffplay rtsp://127.0.0.1:PORT/demo`, and
//! `ffmpeg -re -i some.mp4 -c copy -f rtsp rtsp://127.0.0.1:PORT/yours`.
//! Ends after the number of seconds in the first argument, if there is one.

use std::sync::Arc;
use std::time::Duration;
use stream_manager_core::auth::Users;
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::rtsp::{RtspOptions, RtspServer};
use stream_manager_core::source::{PublishSource, TestSource};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(u64::MAX / 1000), |s| s.parse())?;
    let manager = StreamManager::builder()
        .stream(Stream::builder("demo").source(TestSource::default()))
        .stream(Stream::builder("yours").source(PublishSource::new(true)))
        .build()
        .await?;
    let listen = Some(([127, 0, 0, 1], 0).into());
    let server = RtspServer::bind(RtspOptions { listen, ..RtspOptions::default() }).await?;
    println!("rtsp://{}/demo", server.address());

    let cancel = CancellationToken::new();
    let (streams, sessions) = (Arc::new(manager.clone()), manager.sessions().clone());
    // Everybody may watch, and publish from this machine.
    let running = tokio::spawn(server.run(streams, Arc::new(Users::new([])), sessions, cancel.clone()));
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    cancel.cancel();
    running.await?;
    manager.shutdown().await;
    Ok(())
}
