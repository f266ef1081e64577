//! ONNX Runtime: on the CPU, and on NVIDIA GPUs by CUDA or TensorRT (feature `tensorrt`).
//!
//! What is asked for is tried, then what is below it: TensorRT, CUDA, CPU. Why the one was taken and not the other is
//! kept in words.

use super::backend::{BackendStats, ChosenBackend, InferenceBackend, Interrupt, LoadOptions};
use super::library::{Library, load};
use super::tensor::{ElementType, ModelIo, Tensor, TensorData, TensorInfo};
use super::{InferenceError, ModelSpec};
use crate::config::BackendChoice;
use half::f16;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// One model in ONNX Runtime.
pub struct OrtBackend {
    session: Option<Session>,
    options: Option<Arc<RunOptions<NoSelectedOutputs>>>,
    io: ModelIo,
    chosen: ChosenBackend,
    stats: BackendStats,
    model: String,
}

impl Default for OrtBackend {
    fn default() -> Self {
        let chosen =
            ChosenBackend { name: "none".into(), device: String::new(), reason: "not loaded".into() };
        Self {
            session: None,
            options: None,
            io: ModelIo::default(),
            chosen,
            stats: BackendStats::default(),
            model: String::new(),
        }
    }
}

/// What a session runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    TensorRt,
    Cuda,
    Cpu,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }

    /// What is tried, in this order.
    fn of(choice: &BackendChoice) -> &'static [Self] {
        match choice {
            BackendChoice::Cpu => &[Self::Cpu],
            BackendChoice::Cuda => &[Self::Cuda, Self::Cpu],
            _ => &[Self::TensorRt, Self::Cuda, Self::Cpu],
        }
    }
}

impl InferenceBackend for OrtBackend {
    fn load(&mut self, options: &LoadOptions<'_>) -> Result<(), InferenceError> {
        let started = Instant::now();
        let spec = options.spec;
        self.model = spec.name();
        let library = load(options.library)?;
        let mut reasons = Vec::new();
        let targets = Target::of(&spec.backend);
        for &target in targets {
            match open(&library, target, options) {
                Ok(session) => {
                    self.io = describe(&session);
                    self.session = Some(session);
                    let device = match target {
                        Target::Cpu => {
                            format!("CPU, {} threads, ONNX Runtime {}", options.threads, library.version)
                        }
                        _ => format!("GPU {}, ONNX Runtime {}", spec.device, library.version),
                    };
                    if reasons.is_empty() {
                        reasons.push(match (&spec.backend, target) {
                            (BackendChoice::Auto, target) => format!("{} works", target.name()),
                            _ => "as configured".to_owned(),
                        });
                    }
                    self.chosen =
                        ChosenBackend { name: target.name().into(), device, reason: reasons.join("; ") };
                    let options = RunOptions::new().map_err(|e| failed(spec, &e))?;
                    self.options = Some(Arc::new(options));
                    self.stats.load_time = started.elapsed();
                    return Ok(());
                }
                // What is wrong with the file is so on any hardware.
                Err(error) if target == Target::Cpu => return Err(error),
                Err(InferenceError::Backend { problem, .. }) => {
                    reasons.push(format!("{}: {problem}", target.name()));
                }
                Err(error) => reasons.push(format!("{}: {error}", target.name())),
            }
        }
        Err(InferenceError::Backend { backend: spec.backend.name().into(), problem: reasons.join("; ") })
    }

    fn describe(&self) -> &ModelIo {
        &self.io
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InferenceError> {
        let started = Instant::now();
        let model = self.model.clone();
        let failed =
            |e: &dyn std::fmt::Display| InferenceError::Run { model: model.clone(), problem: e.to_string() };
        let (Some(session), Some(options)) = (&mut self.session, &self.options) else {
            return Err(failed(&"it is not loaded"));
        };
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (info, tensor) in self.io.inputs.iter().zip(inputs) {
            let shape: Vec<i64> = tensor.shape.iter().map(|&s| s as i64).collect();
            let value: SessionInputValue<'_> = match &tensor.data {
                TensorData::F32(data) if info.element == ElementType::F16 => {
                    let data: Vec<f16> = data.iter().map(|v| f16::from_f32(*v)).collect();
                    ort::value::Tensor::from_array((shape, data)).map_err(|e| failed(&e))?.into()
                }
                TensorData::F32(data) => {
                    TensorRef::from_array_view((shape, data.as_slice())).map_err(|e| failed(&e))?.into()
                }
                TensorData::U8(data) => {
                    TensorRef::from_array_view((shape, data.as_slice())).map_err(|e| failed(&e))?.into()
                }
                TensorData::I64(data) => {
                    TensorRef::from_array_view((shape, data.as_slice())).map_err(|e| failed(&e))?.into()
                }
            };
            values.push((Cow::Borrowed(info.name.as_str()), value));
        }
        let outputs = session.run_with_options(values, &**options).map_err(|e| failed(&e))?;
        let mut tensors = Vec::with_capacity(self.io.outputs.len());
        for info in &self.io.outputs {
            let value = outputs.get(&info.name).ok_or_else(|| failed(&"an output is missing"))?;
            tensors.push(extract(value).map_err(|e| failed(&e))?);
        }
        self.stats.runs += 1;
        self.stats.run_time += started.elapsed();
        Ok(tensors)
    }

    fn stats(&self) -> BackendStats {
        self.stats
    }

    fn chosen(&self) -> ChosenBackend {
        self.chosen.clone()
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let options = Arc::downgrade(self.options.as_ref()?);
        Some(Arc::new(move || {
            if let Some(options) = options.upgrade() {
                // It fails only for options that are broken, and then nothing runs with them.
                let _ = options.terminate();
            }
        }))
    }
}

fn failed(spec: &ModelSpec, error: &dyn std::fmt::Display) -> InferenceError {
    InferenceError::File { path: spec.path.clone(), problem: in_words(&error.to_string()) }
}

/// ONNX Runtime's words without its source lines.
fn in_words(error: &str) -> String {
    let mut text = error.replace('\n', " ");
    text.truncate(text.char_indices().nth(400).map_or(text.len(), |(at, _)| at));
    if text.contains("Protobuf parsing failed") || text.contains("ModelProto") {
        return format!("it is no ONNX file, or only part of one ({text})");
    }
    if text.contains("opset") {
        return format!("it is made for another version of ONNX than this ONNX Runtime knows: {text}");
    }
    text
}

fn open(library: &Library, target: Target, options: &LoadOptions<'_>) -> Result<Session, InferenceError> {
    let spec = options.spec;
    let wrong = |e: &dyn std::fmt::Display| failed(spec, e);
    let mut builder = Session::builder(&library.environment)
        .map_err(|e| wrong(&e))?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(|e| wrong(&e))?
        .with_intra_threads(options.threads.max(1))
        .map_err(|e| wrong(&e))?
        // Threads that wait by spinning take from the recordings what they do not need.
        .with_intra_op_spinning(false)
        .map_err(|e| wrong(&e))?
        .with_flush_to_zero()
        .map_err(|e| wrong(&e))?;
    // The thread that calls is one of them; the others are placed here. ONNX Runtime counts CPUs from 1.
    if !spec.cpus.is_empty() && options.threads > 1 {
        let cpu = |i: usize| spec.cpus[i % spec.cpus.len()] + 1;
        let places: Vec<String> = (1..options.threads).map(|i| cpu(i).to_string()).collect();
        builder = builder
            .with_config_entry("session.intra_op_thread_affinities", places.join(";"))
            .map_err(|e| wrong(&e))?;
    }
    if target != Target::Cpu {
        builder = gpu::register(builder, library, target, options)?;
    }
    builder.commit_from_file(&spec.path).map_err(|e| wrong(&e))
}

#[cfg(feature = "tensorrt")]
mod gpu {
    use super::{InferenceError, Library, LoadOptions, SessionBuilder, Target};
    use crate::config::Precision;
    use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
    use std::path::{Path, PathBuf};

    fn wrong(target: Target, problem: impl Into<String>) -> InferenceError {
        InferenceError::Backend { backend: target.name().into(), problem: problem.into() }
    }

    /// Puts a session onto a GPU, if all that it takes is there.
    pub(super) fn register(
        builder: SessionBuilder,
        library: &Library,
        target: Target,
        options: &LoadOptions<'_>,
    ) -> Result<SessionBuilder, InferenceError> {
        let available = match target {
            Target::TensorRt => TensorRT::is_available(),
            _ => CUDA::is_available(),
        };
        if !available.unwrap_or(false) {
            return Err(wrong(
                target,
                format!(
                    "{} is built without it (the package onnxruntime-gpu has it)",
                    library.path.display()
                ),
            ));
        }
        let device = device_name(options.spec.device).ok_or_else(|| {
            wrong(
                target,
                format!("there is no GPU {}, or no NVIDIA driver (/proc/driver/nvidia)", options.spec.device),
            )
        })?;
        let id = i32::try_from(options.spec.device).unwrap_or(i32::MAX);
        let cuda = CUDA::default().with_device_id(id).build().error_on_failure();
        let mut providers: Vec<ExecutionProviderDispatch> = Vec::new();
        if target == Target::TensorRt {
            let precision = options.spec.precision;
            let mut provider = TensorRT::default()
                .with_device_id(id)
                .with_fp16(precision != Precision::Fp32)
                .with_int8(precision == Precision::Int8);
            if let Some(folder) = engine_folder(options, &device, &library.version) {
                let text = folder.display().to_string();
                provider = provider
                    .with_engine_cache(true)
                    .with_engine_cache_path(&text)
                    .with_timing_cache(true)
                    .with_timing_cache_path(&text);
            }
            providers.push(provider.build().error_on_failure());
        }
        // What TensorRT cannot do is left to CUDA.
        providers.push(cuda);
        builder.with_execution_providers(providers).map_err(|e| wrong(target, e.to_string()))
    }

    /// An engine fits one model, one kind of device and one version: each has a folder of its own.
    fn engine_folder(options: &LoadOptions<'_>, device: &str, version: &str) -> Option<PathBuf> {
        let plain = |text: &str| -> String {
            text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
        };
        let name = format!("{}-{}-{}", options.sha256.get(..16)?, plain(device), plain(version));
        let folder = options.engine_dir?.join(name);
        match std::fs::create_dir_all(&folder) {
            Ok(()) => Some(folder),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "engines cannot be kept; each start builds them anew");
                None
            }
        }
    }

    /// A GPU's name, as the driver says it.
    fn device_name(index: u32) -> Option<String> {
        let mut gpus: Vec<PathBuf> = std::fs::read_dir(Path::new("/proc/driver/nvidia/gpus"))
            .ok()?
            .filter_map(|e| Some(e.ok()?.path()))
            .collect();
        gpus.sort();
        let text = std::fs::read_to_string(gpus.get(index as usize)?.join("information")).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix("Model:"))?;
        Some(line.trim().to_owned())
    }
}

#[cfg(not(feature = "tensorrt"))]
mod gpu {
    use super::{InferenceError, Library, LoadOptions, SessionBuilder, Target};

    pub(super) fn register(
        _: SessionBuilder,
        _: &Library,
        target: Target,
        _: &LoadOptions<'_>,
    ) -> Result<SessionBuilder, InferenceError> {
        Err(InferenceError::Backend {
            backend: target.name().into(),
            problem: "this program was built without the feature \"tensorrt\"".into(),
        })
    }
}

fn describe(session: &Session) -> ModelIo {
    let mut metadata = std::collections::BTreeMap::new();
    if let Ok(found) = session.metadata() {
        for key in found.custom_keys().unwrap_or_default() {
            if let Some(value) = found.custom(&key) {
                metadata.insert(key, value);
            }
        }
    }
    ModelIo {
        inputs: session.inputs().iter().map(info).collect(),
        outputs: session.outputs().iter().map(info).collect(),
        metadata,
    }
}

fn info(outlet: &Outlet) -> TensorInfo {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let element = match ty {
                TensorElementType::Float32 => ElementType::F32,
                TensorElementType::Float16 => ElementType::F16,
                TensorElementType::Uint8 => ElementType::U8,
                TensorElementType::Int32 => ElementType::I32,
                TensorElementType::Int64 => ElementType::I64,
                _ => ElementType::Other,
            };
            (element, shape.iter().map(|&s| usize::try_from(s).ok().filter(|s| *s > 0)).collect())
        }
        _ => (ElementType::Other, Vec::new()),
    };
    TensorInfo { name: outlet.name().to_owned(), element, shape }
}

fn extract(value: &ort::value::DynValue) -> Result<Tensor, ort::Error> {
    let size = |shape: &ort::value::Shape| shape.iter().map(|&s| usize::try_from(s).unwrap_or(0)).collect();
    let element = value.dtype().tensor_type();
    Ok(match element {
        Some(TensorElementType::Float16) => {
            let (shape, data) = value.try_extract_tensor::<f16>()?;
            Tensor { shape: size(shape), data: TensorData::F32(data.iter().map(|v| v.to_f32()).collect()) }
        }
        Some(TensorElementType::Int64) => {
            let (shape, data) = value.try_extract_tensor::<i64>()?;
            Tensor { shape: size(shape), data: TensorData::I64(data.to_vec()) }
        }
        Some(TensorElementType::Int32) => {
            let (shape, data) = value.try_extract_tensor::<i32>()?;
            Tensor { shape: size(shape), data: TensorData::I64(data.iter().map(|v| i64::from(*v)).collect()) }
        }
        Some(TensorElementType::Uint8) => {
            let (shape, data) = value.try_extract_tensor::<u8>()?;
            Tensor { shape: size(shape), data: TensorData::U8(data.to_vec()) }
        }
        _ => {
            let (shape, data) = value.try_extract_tensor::<f32>()?;
            Tensor { shape: size(shape), data: TensorData::F32(data.to_vec()) }
        }
    })
}
