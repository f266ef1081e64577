//! Looking at a model, and timing it, without streams.

use super::backend::{ChosenBackend, InferenceBackend, LoadOptions};
use super::ort_backend::OrtBackend;
use super::plan::{ExtraInput, ModelPlan};
use super::preprocess::Preprocessor;
use super::tensor::{ModelIo, Tensor, TensorData};
use super::{InferenceError, ModelSpec};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a model's file says of itself.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The file's SHA-256.
    pub sha256: String,
    /// Its inputs, outputs and what else it says.
    pub io: ModelIo,
    /// What that means, or why it cannot be told.
    pub plan: Result<ModelPlan, InferenceError>,
    /// What ran it.
    pub backend: ChosenBackend,
    /// How long loading took.
    pub load_time: Duration,
}

/// Loads a model by ONNX Runtime and says what it is. Blocks.
///
/// # Errors
/// If it cannot be loaded.
pub fn inspect(spec: &ModelSpec, library: Option<&Path>) -> Result<Inspection, InferenceError> {
    let sha256 = super::file::fingerprint(spec, false)?.unwrap_or_default();
    let started = Instant::now();
    let mut backend = OrtBackend::default();
    backend.load(&LoadOptions { library, sha256: &sha256, ..LoadOptions::new(spec) })?;
    let io = backend.describe().clone();
    Ok(Inspection {
        plan: ModelPlan::new(spec, &io),
        sha256,
        io,
        backend: backend.chosen(),
        load_time: started.elapsed(),
    })
}

/// How fast a model is with batches of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchRow {
    /// Pictures in a batch.
    pub batch: usize,
    /// CPU threads.
    pub threads: usize,
    /// What ran it.
    pub backend: String,
    /// Batches timed.
    pub runs: usize,
    /// Milliseconds for a batch: the median.
    pub median_ms: f64,
    /// The fastest.
    pub min_ms: f64,
    /// 95 of 100 are faster.
    pub p95_ms: f64,
    /// Pictures in a second, by the median.
    pub pictures_per_sec: f64,
}

/// Times a model with batches of these sizes, each for `time` but at least ten times. Blocks. A file that takes one size
/// only is timed with that.
///
/// # Errors
/// If it cannot be loaded or fails.
pub fn bench(
    spec: &ModelSpec,
    library: Option<&Path>,
    batches: &[usize],
    time: Duration,
    mut tell: impl FnMut(&BenchRow),
) -> Result<(), InferenceError> {
    let sha256 = super::file::fingerprint(spec, false)?.unwrap_or_default();
    let threads = super::instance::threads_of(spec);
    let mut backend = OrtBackend::default();
    let most = batches.iter().copied().max().unwrap_or(1);
    backend.load(&LoadOptions {
        library,
        sha256: &sha256,
        threads,
        max_batch: most,
        ..LoadOptions::new(spec)
    })?;
    let plan = ModelPlan::new(spec, backend.describe())?;
    let mut done = Vec::new();
    for &batch in batches {
        let batch = plan.fixed_batch.unwrap_or(batch.max(1));
        if done.contains(&batch) {
            continue;
        }
        done.push(batch);
        let inputs = inputs(&plan, backend.describe(), batch);
        backend.warm_up(&inputs)?;
        let mut times = Vec::new();
        let began = Instant::now();
        while times.len() < 10 || began.elapsed() < time {
            let started = Instant::now();
            backend.run(&inputs)?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        tell(&BenchRow {
            batch,
            threads,
            backend: backend.chosen().name,
            runs: times.len(),
            median_ms: at(0.5),
            min_ms: at(0.0),
            p95_ms: at(0.95),
            pictures_per_sec: batch as f64 * 1e3 / at(0.5),
        });
    }
    Ok(())
}

/// Inputs for a batch, of which the pictures are not filled.
pub(super) fn inputs(plan: &ModelPlan, io: &ModelIo, rows: usize) -> Vec<Tensor> {
    let size = (i64::from(plan.input.width), i64::from(plan.input.height));
    let one = |index: usize| {
        if index == plan.picture_input {
            return Preprocessor::tensor(&plan.input, rows);
        }
        let sizes = match plan.extra {
            Some((_, ExtraInput::SizesHeightFirst)) => [size.1, size.0],
            _ => [size.0, size.1],
        };
        Tensor { shape: vec![rows, 2], data: TensorData::I64(sizes.repeat(rows)) }
    };
    (0..io.inputs.len()).map(one).collect()
}
