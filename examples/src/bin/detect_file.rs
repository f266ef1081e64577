//! Finds the objects in a video: `cargo run -p stream-manager-examples --bin detect_file -- VIDEO MODEL [LABELS]`
#![allow(clippy::print_stdout)]

use stream_manager_core::inference::{ModelSpec, Models, ModelsOptions};
use stream_manager_core::manager::{DetectInput, DetectJob};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(video), Some(model)) = (arguments.next(), arguments.next()) else {
        return Err("usage: detect_file VIDEO MODEL [LABELS]".into());
    };
    let mut spec = ModelSpec::new(model).named("model");
    if let Some(labels) = arguments.next() {
        spec = spec.labels_file(labels);
    }
    let models = Models::new(ModelsOptions::default(), vec![spec]);
    let input = DetectInput::parse(&video, &Default::default())?;
    let job = DetectJob::new(input, models.get("model")?).every(10);
    let report = job
        .run(CancellationToken::new(), |frame| {
            for object in &frame.detections {
                println!("{:8.2} s  {} {:.2}", frame.time, object.label, object.score);
            }
        })
        .await?;
    println!("{} pictures, {} objects", report.frames, report.detections);
    models.close().await;
    Ok(())
}
