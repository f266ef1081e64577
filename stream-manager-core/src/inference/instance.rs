//! One loaded model and the thread that runs it.

use super::backend::{BackendFactory, ChosenBackend, InferenceBackend, Interrupt, LoadOptions};
use super::inspect::inputs;
use super::layout::{Row, check_numbers, read};
use super::plan::{ModelPlan, Thresholds, Wanted};
use super::preprocess::Preprocessor;
use super::scheduler::{Bars, Outcome, Scheduler, SlotShared, To, Work};
use super::stats::Counters;
use super::tensor::{ModelIo, Tensor};
use super::{InferenceError, ModelSpec};
use crate::detection::{Detection, Detections};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How much less important than others these threads are to the system: recording and serving come first.
const NICENESS: i32 = 5;
/// After this many failures one after the other, the model counts as failed.
const MAX_FAILURES: u32 = 5;

/// What a thread needs to begin.
pub(super) struct Start {
    pub(super) spec: Arc<ModelSpec>,
    pub(super) factory: BackendFactory,
    pub(super) sha256: String,
    pub(super) threads: usize,
    /// Pictures at once; 0 to choose.
    pub(super) max_batch: usize,
    pub(super) engine_dir: Option<PathBuf>,
    pub(super) library: Option<PathBuf>,
    pub(super) generation: u64,
    pub(super) number: usize,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) counters: Arc<Mutex<Counters>>,
    pub(super) watch: Arc<Watch>,
}

/// What the owner sees of a thread.
#[derive(Default)]
pub(super) struct Watch {
    /// When the batch that is computed began, in nanoseconds since `ORIGIN`; 0 if none is.
    busy_since: AtomicU64,
    /// Failures one after the other.
    failures: AtomicU64,
    /// Its turn never comes.
    pub(super) given_up: AtomicBool,
    pub(super) interrupt: Mutex<Option<Interrupt>>,
    pub(super) last_error: Mutex<Option<String>>,
}

impl Watch {
    fn now() -> u64 {
        static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let origin = ORIGIN.get_or_init(Instant::now);
        u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// For how long it has been computing.
    pub(super) fn busy_for(&self) -> Option<Duration> {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Duration::from_nanos(Self::now().saturating_sub(since))),
        }
    }

    /// Whether it fails again and again.
    pub(super) fn has_failed(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= u64::from(MAX_FAILURES)
    }
}

/// A model as one thread has loaded it.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) plan: Arc<ModelPlan>,
    pub(super) io: Arc<ModelIo>,
    pub(super) chosen: ChosenBackend,
    pub(super) max_batch: usize,
    pub(super) load_time: Duration,
}

/// What a thread says once it has loaded its model.
type Loading = oneshot::Receiver<Result<Loaded, InferenceError>>;

/// Loads a model on a thread of its own, which then works when its generation's turn comes.
pub(super) fn spawn(start: Start) -> Result<(std::thread::JoinHandle<()>, Loading), InferenceError> {
    let (sender, receiver) = oneshot::channel();
    let handle = std::thread::Builder::new()
        .name(format!("model-{}", start.number))
        .spawn(move || {
            be_modest(&start.spec);
            let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Worker::load(&start)))
                .unwrap_or_else(|_| {
                    Err(InferenceError::Run {
                        model: start.spec.name(),
                        problem: "its backend panicked".into(),
                    })
                });
            match loaded {
                Ok(mut worker) => {
                    let known = sender.send(Ok(worker.loaded.clone())).is_ok();
                    if known && start.scheduler.wait_for_turn(start.generation, &start.watch.given_up) {
                        worker.work(&start);
                    }
                }
                Err(error) => {
                    // Nobody waits if the model is gone by now.
                    let _ = sender.send(Err(error));
                }
            }
        })
        .map_err(|e| InferenceError::Thread(e.to_string()))?;
    Ok((handle, receiver))
}

/// Takes this thread, and those that it will start, back behind others, and onto the CPUs that are set.
fn be_modest(spec: &ModelSpec) {
    #[cfg(target_os = "linux")]
    {
        // On Linux this is about the calling thread alone.
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "a model's thread keeps its priority");
        }
        if !spec.cpus.is_empty() {
            let mut set = rustix::thread::CpuSet::new();
            spec.cpus.iter().filter(|c| **c < rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
            if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
                tracing::warn!(model = spec.name(), cpus = ?spec.cpus, %error, "a model cannot be kept to these CPUs");
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (spec, NICENESS);
}

/// CPU threads of each instance.
pub(super) fn threads_of(spec: &ModelSpec) -> usize {
    match spec.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(4),
        threads => threads,
    }
}

struct Worker {
    backend: Box<dyn InferenceBackend>,
    loaded: Loaded,
    /// Whether batches are filled up to a power of two, so that a GPU sees few different sizes.
    in_powers: bool,
    preprocessor: Preprocessor,
    /// The inputs of the last batch, by their rows: memory that is used again is there already.
    inputs: Option<(usize, Vec<Tensor>)>,
}

impl Worker {
    fn load(start: &Start) -> Result<Self, InferenceError> {
        let started = Instant::now();
        let mut backend = (start.factory)();
        let options = LoadOptions {
            spec: &start.spec,
            threads: start.threads,
            max_batch: start.max_batch.max(1),
            sha256: &start.sha256,
            engine_dir: start.engine_dir.as_deref(),
            library: start.library.as_deref(),
        };
        backend.load(&options)?;
        let io = backend.describe().clone();
        let plan = ModelPlan::new(&start.spec, &io)?;
        let chosen = backend.chosen();
        *start.watch.interrupt.lock() = backend.interrupt();
        let gpu = chosen.is_gpu();
        let max_batch = match (plan.fixed_batch, start.max_batch) {
            (Some(fixed), _) => fixed.max(1),
            (None, 0) if gpu => 16,
            (None, 0) => 1,
            (None, most) => most,
        };
        let mut worker = Self {
            backend,
            loaded: Loaded {
                plan: Arc::new(plan),
                io: Arc::new(io),
                chosen,
                max_batch,
                load_time: Duration::ZERO,
            },
            in_powers: gpu,
            preprocessor: Preprocessor::default(),
            inputs: None,
        };
        worker.warm_up()?;
        worker.loaded.load_time = started.elapsed();
        Ok(worker)
    }

    /// Computes each size of batch once, and sees whether the outputs are as described.
    fn warm_up(&mut self) -> Result<(), InferenceError> {
        let mut batch = if self.loaded.plan.fixed_batch.is_some() { self.loaded.max_batch } else { 1 };
        loop {
            let inputs = inputs(&self.loaded.plan, &self.loaded.io, batch);
            self.backend.warm_up(&inputs)?;
            if !self.in_powers || batch >= self.loaded.max_batch {
                return Ok(());
            }
            batch = (batch * 2).min(self.loaded.max_batch);
        }
    }

    /// How many rows a batch of so many pictures has.
    fn rows(&self, pictures: usize) -> usize {
        match self.loaded.plan.fixed_batch {
            Some(fixed) => fixed,
            None if self.in_powers => pictures.next_power_of_two().min(self.loaded.max_batch.max(pictures)),
            None => pictures,
        }
    }

    fn work(&mut self, start: &Start) {
        while let Some(work) =
            start.scheduler.take(start.generation, self.loaded.max_batch, start.spec.max_delay.0)
        {
            let began = Instant::now();
            start.watch.busy_since.store(Watch::now(), Ordering::Relaxed);
            let moving = self.moving(work, start);
            if !moving.is_empty() {
                self.batch(moving, start);
            }
            start.watch.busy_since.store(0, Ordering::Relaxed);
            start.counters.lock().busy += began.elapsed();
        }
    }

    /// Leaves out pictures in which nothing has moved.
    fn moving(&self, work: Vec<Work>, start: &Start) -> Vec<Work> {
        let passes = |work: &Work| {
            let To::Slot(slot) = &work.to else { return true };
            let mut gate = slot.gate.lock();
            let Some(gate) = gate.as_mut() else { return true };
            // A picture that cannot be read says so when it is computed.
            let passes = gate.passes(&work.picture, Instant::now()).unwrap_or(true);
            if !passes {
                slot.still.fetch_add(1, Ordering::Relaxed);
                start.counters.lock().still += 1;
            }
            passes
        };
        work.into_iter().filter(passes).collect()
    }

    fn batch(&mut self, work: Vec<Work>, start: &Start) {
        let plan = self.loaded.plan.clone();
        let began = Instant::now();
        let needed = self.rows(work.len());
        let mut inputs = match self.inputs.take() {
            Some((rows, inputs)) if rows == needed => inputs,
            _ => inputs(&plan, &self.loaded.io, needed),
        };
        let mut rows = Vec::with_capacity(work.len());
        for (index, work) in work.iter().enumerate() {
            let input = &mut inputs[plan.picture_input];
            rows.push(self.preprocessor.fill(&work.picture, &plan.input, input, index));
        }
        let preprocessed = Instant::now();
        let outputs = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.backend.run(&inputs)))
            .unwrap_or_else(|_| {
                Err(InferenceError::Run {
                    model: plan.name.to_string(),
                    problem: "its backend panicked".into(),
                })
            });
        let ran = Instant::now();
        self.inputs = Some((needed, inputs));
        let outputs = outputs.and_then(|outputs| {
            check_numbers(&outputs, &self.loaded.io, &plan.name)?;
            Ok(outputs)
        });
        match &outputs {
            Ok(_) => start.watch.failures.store(0, Ordering::Relaxed),
            Err(error) => {
                start.watch.failures.fetch_add(1, Ordering::Relaxed);
                *start.watch.last_error.lock() = Some(error.to_string());
            }
        }
        let answers: Vec<_> = work
            .into_iter()
            .zip(rows)
            .enumerate()
            .map(|(index, (work, geometry))| {
                let answer = match (&outputs, geometry, self.thresholds(&work.to, start)) {
                    (Err(error), _, _) => Err(error.clone()),
                    (_, Err(error), _) | (_, _, Err(error)) => Err(error),
                    (Ok(outputs), Ok(geometry), Ok(thresholds)) => {
                        let row =
                            Row { plan: &plan, thresholds: &thresholds.told, geometry: &geometry, index };
                        read(outputs, &row).map(|found| sort(found, &thresholds.sure))
                    }
                };
                (work, answer)
            })
            .collect();
        // Counted before it is handed out: whoever has the answer finds it in the statistics.
        {
            let mut counters = start.counters.lock();
            counters.pictures += answers.len() as u64;
            counters.batches += 1;
            counters.errors += answers.iter().filter(|(_, answer)| answer.is_err()).count() as u64;
            counters.preprocess += preprocessed - began;
            counters.run += ran - preprocessed;
            counters.postprocess += ran.elapsed();
            answers.iter().for_each(|(work, _)| counters.latency(work.since.elapsed()));
        }
        for (work, answer) in answers {
            give(&plan, work, answer);
        }
    }

    fn thresholds(&self, to: &To, start: &Start) -> Result<Arc<Bars>, InferenceError> {
        let plan = &self.loaded.plan;
        match to {
            To::Once(_, ask) if ask.wanted == Wanted::default() => {
                Ok(Arc::new(Bars::new(plan.thresholds.clone(), ask.doubtful)))
            }
            To::Once(_, ask) => {
                Ok(Arc::new(Bars::new(plan.thresholds_for(&start.spec, &ask.wanted)?, ask.doubtful)))
            }
            To::Slot(slot) => self.thresholds_of(slot, start),
        }
    }

    fn thresholds_of(&self, slot: &SlotShared, start: &Start) -> Result<Arc<Bars>, InferenceError> {
        let (version, wanted, doubtful) = {
            let settings = slot.settings.lock();
            (settings.0, settings.1.wanted.clone(), settings.1.doubtful)
        };
        let mut known = slot.thresholds.lock();
        match &*known {
            Some((generation, of, thresholds)) if *generation == start.generation && *of == version => {
                Ok(thresholds.clone())
            }
            _ => {
                let sure = self.loaded.plan.thresholds_for(&start.spec, &wanted)?;
                let made = Arc::new(Bars::new(sure, doubtful));
                *known = Some((start.generation, version, made.clone()));
                Ok(made)
            }
        }
    }
}

/// What counts first, then what does not, each the best first; and how many count.
fn sort(found: Vec<Detection>, sure: &Thresholds) -> (Vec<Detection>, usize) {
    let (mut found, doubtful): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|one| one.score >= sure.of(one.class as usize));
    let count = found.len();
    found.extend(doubtful);
    (found, count)
}

fn give(plan: &ModelPlan, work: Work, answer: Result<(Vec<Detection>, usize), InferenceError>) {
    let picture = &work.picture;
    let sure = answer.as_ref().map_or(0, |(_, sure)| *sure);
    let result = answer.map(|(detections, _)| {
        Detections::new(plan.name.clone(), picture.width(), picture.height(), detections)
            .at(picture.time, picture.pts)
    });
    match work.to {
        To::Slot(slot) => {
            (slot.deliver)(Outcome { result, sure, picture: work.picture, arrived: work.since })
        }
        To::Once(sender, _) => {
            // Whoever asked may be gone.
            let _ = sender.send(result.map(|detections| (detections, sure)));
        }
    }
}
