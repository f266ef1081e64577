//! A backend for tests: gives what it is told to.

use super::backend::{ChosenBackend, InferenceBackend, LoadOptions};
use super::tensor::{ModelIo, Tensor, TensorInfo};
use super::{BackendFactory, InferenceError};
use std::sync::Arc;

/// What a mock computes: the outputs for the inputs.
pub type MockRun = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>, InferenceError> + Send + Sync;

/// A backend for tests: takes pictures of one size and gives what a function makes of them. It reads no file.
///
/// ```
/// use stream_manager_core::inference::{MockBackend, Models, ModelsOptions, ModelSpec, Picture};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let objects = vec![[10.0, 10.0, 50.0, 50.0, 0.9, 0.0]];
/// let options = ModelsOptions::default().backend("mock", MockBackend::detecting(64, 64, objects).factory());
/// let spec = ModelSpec::new("-").named("test").backend("mock".parse().unwrap()).labels(["thing"]);
/// let models = Models::new(options, vec![spec]);
/// let seen = models.get("test").unwrap().infer(Picture::rgb(64, 64, vec![0; 64 * 64 * 3]).unwrap()).await.unwrap();
/// assert_eq!(&*seen.detections[0].label, "thing");
/// # models.close().await;
/// # });
/// ```
#[derive(Clone)]
pub struct MockBackend {
    io: ModelIo,
    run: Arc<MockRun>,
}

impl MockBackend {
    /// One that describes itself like this and computes like this.
    pub fn new(
        io: ModelIo,
        run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>, InferenceError> + Send + Sync + 'static,
    ) -> Self {
        Self { io, run: Arc::new(run) }
    }

    /// One that finds these objects (two corners in pixels of the input, score, class) in every picture.
    pub fn detecting(width: usize, height: usize, objects: Vec<[f32; 6]>) -> Self {
        let number = objects.len().max(1);
        let io = ModelIo {
            inputs: vec![TensorInfo::f32("images", &[0, 3, height, width])],
            outputs: vec![TensorInfo::f32("objects", &[0, number, 6])],
            ..ModelIo::default()
        };
        let row = if objects.is_empty() { vec![0.0; 6] } else { objects.concat() };
        Self::new(io, move |inputs| {
            let batch = inputs.first().map_or(1, |input| input.shape[0]);
            Ok(vec![Tensor::f32([batch, number, 6], row.repeat(batch))])
        })
    }

    /// For [`ModelsOptions::backend`](super::ModelsOptions::backend).
    pub fn factory(self) -> BackendFactory {
        Arc::new(move || Box::new(self.clone()))
    }
}

impl InferenceBackend for MockBackend {
    fn load(&mut self, _: &LoadOptions<'_>) -> Result<(), InferenceError> {
        Ok(())
    }

    fn describe(&self) -> &ModelIo {
        &self.io
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InferenceError> {
        (self.run)(inputs)
    }

    fn chosen(&self) -> ChosenBackend {
        ChosenBackend { name: "mock".into(), device: "none".into(), reason: "asked for".into() }
    }
}
