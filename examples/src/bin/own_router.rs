//! The REST control plane inside one's own web program, under a path of one's own.
//!
//! `cargo run -p stream-manager-examples --bin own_router`, then `curl localhost:PORT/cameras/api/streams`.
//! Ends after the number of seconds in the first argument, if there is one.

use axum::{Router, routing::get};
use std::time::Duration;
use stream_manager_core::api::{self, ApiOptions};
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::source::TestSource;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(u64::MAX / 1000), |s| s.parse())?;
    let stream = Stream::builder("demo").source(TestSource::default());
    let manager = StreamManager::builder().data_dir("own_router").stream(stream).build().await?;
    let app = Router::new()
        .route("/", get(|| async { "my own page\n" }))
        .nest("/cameras", api::router(manager.clone(), ApiOptions::default()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/cameras/api/streams", listener.local_addr()?);
    tokio::select! {
        result = axum::serve(listener, app) => result?,
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    manager.shutdown().await;
    Ok(())
}
