//! A backend of one's own, here one that finds what is bright, on a stream of its own.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Duration;
use stream_manager_core::inference::{
    AnalysisSettings, InferenceBackend, InferenceError, LoadOptions, ModelIo, ModelSpec, Tensor, TensorInfo,
};
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::source::TestSource;

const SIZE: usize = 64;

/// Draws a box around all pixels that are brighter than a threshold.
#[derive(Default)]
struct Bright(ModelIo);

impl InferenceBackend for Bright {
    fn load(&mut self, _: &LoadOptions<'_>) -> Result<(), InferenceError> {
        self.0.inputs = vec![TensorInfo::f32("picture", &[0, 3, SIZE, SIZE])];
        // Two corners, score, class: the layout that is called "yolov10".
        self.0.outputs = vec![TensorInfo::f32("objects", &[0, 1, 6])];
        Ok(())
    }

    fn describe(&self) -> &ModelIo {
        &self.0
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InferenceError> {
        let (batch, pixels) = (inputs[0].shape[0], inputs[0].as_f32());
        let mut objects = Vec::new();
        for picture in pixels.chunks_exact(3 * SIZE * SIZE) {
            let bright = (0..SIZE * SIZE).filter(|&i| (0..3).all(|c| picture[c * SIZE * SIZE + i] > 0.9));
            let corners = bright.fold(None, |corners: Option<[usize; 4]>, i| {
                let (x, y) = (i % SIZE, i / SIZE);
                let [x0, y0, x1, y1] = corners.unwrap_or([x, y, x, y]);
                Some([x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1)])
            });
            let [x0, y0, x1, y1] = corners.unwrap_or_default().map(|v| v as f32);
            objects.extend([x0, y0, x1, y1, if corners.is_some() { 1.0 } else { 0.0 }, 0.0]);
        }
        Ok(vec![Tensor::f32([batch, 1, 6], objects)])
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec = ModelSpec::new("-").named("bright").backend("bright".parse()?).labels(["bright"]);
    let settings = AnalysisSettings { enabled: true, max_fps: 2.0, ..AnalysisSettings::default() };
    let manager = StreamManager::builder()
        .backend("bright", Arc::new(|| Box::new(Bright::default())))
        .model(spec)
        .stream(Stream::builder("door").source(TestSource::default()).analyse(settings))
        .build()
        .await?;
    let mut seen = manager.stream("door")?.analysis().subscribe();
    for _ in 0..5 {
        let one = tokio::time::timeout(Duration::from_secs(30), seen.recv()).await??;
        println!("{:.2} s: {:?}", one.pts.as_secs_f64(), one.detections.first().and_then(|d| d.region));
    }
    manager.shutdown().await;
    Ok(())
}
