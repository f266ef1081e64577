//! What computes: one trait, whatever the hardware.

use super::tensor::{ModelIo, Tensor};
use super::{InferenceError, ModelSpec};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a backend gets to load a model.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoadOptions<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// Threads that it may use.
    pub threads: usize,
    /// Pictures that it has to be able to compute at once.
    pub max_batch: usize,
    /// The SHA-256 of the model's file, in hexadecimal.
    pub sha256: &'a str,
    /// Where it may keep what it makes of the model.
    pub engine_dir: Option<&'a Path>,
    /// ONNX Runtime's library, if one is configured.
    pub library: Option<&'a Path>,
}

impl<'a> LoadOptions<'a> {
    /// One thread, one picture, and nothing kept.
    pub fn new(spec: &'a ModelSpec) -> Self {
        Self { spec, threads: 1, max_batch: 1, sha256: "", engine_dir: None, library: None }
    }
}

/// What a backend has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// How often it has computed.
    pub runs: u64,
    /// How long that took in all.
    pub run_time: Duration,
    /// How long loading took.
    pub load_time: Duration,
}

/// What runs a model in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenBackend {
    /// Its name.
    pub name: String,
    /// The device, in words.
    pub device: String,
    /// Why this one and not another.
    pub reason: String,
}

impl ChosenBackend {
    /// Whether it is one of the GPU's.
    pub(super) fn is_gpu(&self) -> bool {
        matches!(self.name.as_str(), "tensorrt" | "cuda")
    }
}

/// Makes a computation that hangs end with an error; may be called from any thread, at any time.
pub type Interrupt = Arc<dyn Fn() + Send + Sync>;

/// Computes a model. One value is one loaded model, and is used by one thread of its own.
///
/// ```
/// use stream_manager_core::inference::{
///     InferenceBackend, InferenceError, LoadOptions, ModelIo, Tensor, TensorInfo,
/// };
///
/// /// Finds the same object in every picture.
/// struct Same(ModelIo);
///
/// impl InferenceBackend for Same {
///     fn load(&mut self, _: &LoadOptions<'_>) -> Result<(), InferenceError> {
///         self.0.inputs = vec![TensorInfo::f32("picture", &[0, 3, 64, 64])];
///         // As the layout "yolov10": corners, score, class.
///         self.0.outputs = vec![TensorInfo::f32("objects", &[0, 1, 6])];
///         Ok(())
///     }
///
///     fn describe(&self) -> &ModelIo {
///         &self.0
///     }
///
///     fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InferenceError> {
///         let batch = inputs[0].shape[0];
///         Ok(vec![Tensor::f32([batch, 1, 6], [8.0, 8.0, 56.0, 56.0, 0.9, 0.0].repeat(batch))])
///     }
/// }
/// ```
pub trait InferenceBackend: Send {
    /// Loads a model; called once, and first.
    ///
    /// # Errors
    /// If it cannot be loaded, with the reason.
    fn load(&mut self, options: &LoadOptions<'_>) -> Result<(), InferenceError>;

    /// What the loaded model takes and gives.
    fn describe(&self) -> &ModelIo;

    /// Computes a batch: the inputs in the order of [`describe`](Self::describe), each with as many rows as there are
    /// pictures; gives the outputs in their order.
    ///
    /// # Errors
    /// If it fails; the next batch is tried all the same.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InferenceError>;

    /// Computes once so that the first picture does not wait for what is made at first use.
    ///
    /// # Errors
    /// If it fails.
    fn warm_up(&mut self, inputs: &[Tensor]) -> Result<(), InferenceError> {
        self.run(inputs).map(drop)
    }

    /// What it has done.
    fn stats(&self) -> BackendStats {
        BackendStats::default()
    }

    /// What runs the model.
    fn chosen(&self) -> ChosenBackend {
        ChosenBackend { name: "custom".into(), device: String::new(), reason: "made by the program".into() }
    }

    /// How a computation that hangs can be ended, if it can.
    fn interrupt(&self) -> Option<Interrupt> {
        None
    }
}

/// Makes backends, one for each instance of a model.
pub type BackendFactory = Arc<dyn Fn() -> Box<dyn InferenceBackend> + Send + Sync>;
