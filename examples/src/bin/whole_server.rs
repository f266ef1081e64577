//! The whole server inside one's own program: REST, RTSP, hooks, and a configuration that is read again when it changes.
//!
//! `cargo run -p stream-manager-examples --bin whole_server`. Ends after the number of seconds in the first argument, if
//! there is one.

use std::time::Duration;
use stream_manager_core::config::ConfigSource;
use stream_manager_core::service::{Service, ServiceOptions};
use tokio_util::sync::CancellationToken;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[rtsp]
listen = "127.0.0.1:0"
[rtmp]
listen = "127.0.0.1:0"
[storage]
data_dir = "whole_server"
[[streams]]
id = "demo"
source_url = "test://smpte"
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(u64::MAX / 1000), |s| s.parse())?;
    std::fs::write("whole_server.toml", CONFIG)?;
    let source = ConfigSource { file: Some("whole_server.toml".into()), ..ConfigSource::default() };
    let service = Service::start(source, ServiceOptions::default()).await?;
    println!("http://{}/api/docs", service.address());
    let cancel = CancellationToken::new();
    let running = tokio::spawn(service.run(cancel.clone()));
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    // Files are finished before this is over.
    cancel.cancel();
    running.await?;
    Ok(())
}
