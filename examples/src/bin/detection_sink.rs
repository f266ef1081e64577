//! What becomes of detections is one's own affair: here people are counted, and a recording is begun when one comes.
//! `cargo run -p stream-manager-examples --bin detection_sink -- rtsp://camera MODEL LABELS`
#![allow(clippy::print_stdout)]

use std::time::Duration;
use stream_manager_core::inference::{AnalysisSettings, ModelSpec};
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::recording::{Recorder, Recording};
use stream_manager_core::source::from_url;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, model, labels] = &arguments[..] else {
        return Err("usage: detection_sink URL MODEL LABELS".into());
    };
    let settings =
        AnalysisSettings { enabled: true, classes: vec!["person".into()], ..AnalysisSettings::default() };
    let stream = Stream::builder("door")
        .boxed_source(from_url(url)?)
        .record_on_demand(Recording::fmp4())
        .analyse(settings);
    let manager = StreamManager::builder()
        .recordings_dir("people")
        .model(ModelSpec::new(model).labels_file(labels))
        .stream(stream)
        .build()
        .await?;
    let handle = manager.stream("door")?;
    let mut seen = handle.analysis().subscribe();
    let mut recording = false;
    // Until nothing is seen for half a minute, as when the stream has ended.
    while let Ok(Ok(one)) = tokio::time::timeout(Duration::from_secs(30), seen.recv()).await {
        if one.detections.is_empty() {
            continue;
        }
        println!("{} people at {}", one.detections.len(), one.time);
        if !recording {
            handle.recorder().start().await?;
            recording = true;
        }
    }
    manager.shutdown().await;
    Ok(())
}
