//! The models of a program: loaded once, shared by all streams, replaced without losing a picture, and tried again when
//! they fail.
//!
//! Each model has a task that owns its threads. It loads them, lets them work, watches that they do not hang, and when
//! they fail waits (longer each time) and loads anew. A replacement is loaded beside the old one and takes over between
//! two batches.

use super::InferenceError;
use super::backend::{BackendFactory, ChosenBackend};
use super::instance::{Loaded, Start, Watch, spawn};
use super::ort_backend::OrtBackend;
use super::picture::Picture;
use super::plan::{ModelPlan, Wanted};
use super::scheduler::{Outcome, Scheduler, Slot, SlotSettings};
use super::stats::{Counters, ModelStats};
use crate::config::{BackendChoice, ModelKind, ModelSpec};
use crate::detection::Detections;
use crate::event::{EventBus, EventKind};
use crate::frame::WallTime;
use parking_lot::{Mutex, RwLock};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Building an engine for a GPU may take many minutes; longer than this is a hang.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How often an owner looks at its threads.
const LOOK: Duration = Duration::from_millis(250);
/// The first wait after a failure, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// How long the end waits for threads.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Threads of one model that may hang before it is not loaded again.
const MAX_STUCK: usize = 2;

/// Where models get what they need.
#[derive(Clone, Default)]
pub struct ModelsOptions {
    /// ONNX Runtime's library; looked for if not set.
    pub library: Option<PathBuf>,
    /// Where engines for a GPU are kept; they are built anew each time if not set.
    pub engine_dir: Option<PathBuf>,
    /// Where it is told what becomes of models.
    pub events: Option<EventBus>,
    /// Backends of the program, by name.
    pub backends: BTreeMap<String, BackendFactory>,
}

impl ModelsOptions {
    /// Adds a backend that models can ask for by its name.
    #[must_use]
    pub fn backend(mut self, name: impl Into<String>, factory: BackendFactory) -> Self {
        self.backends.insert(name.into(), factory);
        self
    }
}

/// Where a model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelState {
    /// It is being loaded.
    Loading,
    /// It computes.
    Ready,
    /// It cannot be used; it is tried again.
    Failed,
}

impl ModelState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// Everything about a model at one moment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ModelStatus {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: ModelState,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
    /// Its file.
    pub path: String,
    /// The file's SHA-256.
    pub sha256: Option<String>,
    /// What it is for.
    pub kind: Option<ModelKind>,
    /// What its outputs mean.
    pub layout: Option<&'static str>,
    /// Its inputs, as in `images f32[1,3,416,416]`.
    pub inputs: Vec<String>,
    /// Its outputs.
    pub outputs: Vec<String>,
    /// Width and height of its picture.
    pub input_size: Option<[u32; 2]>,
    /// The names of its classes.
    pub labels: Vec<String>,
    /// What was asked for: `auto`, `tensorrt`, `cuda`, `cpu` or another.
    pub backend_wanted: String,
    /// What runs it.
    pub backend: Option<String>,
    /// On which device.
    pub device: Option<String>,
    /// Why this and not another.
    pub backend_reason: Option<String>,
    /// How often it is loaded.
    pub instances: usize,
    /// CPU threads of each.
    pub threads: usize,
    /// Pictures that are computed at once.
    pub max_batch: usize,
    /// Seconds that loading took.
    pub load_secs: Option<f64>,
    /// Streams that use it.
    pub streams: usize,
    /// Pictures that wait.
    pub waiting: usize,
    /// What it has done.
    pub stats: ModelStats,
    /// The last error in computing.
    pub last_error: Option<String>,
}

/// How a model's owner sees it.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) state: ModelState,
    pub(super) reason: String,
    since: WallTime,
    loaded: Option<(Loaded, usize, usize)>,
    sha256: Option<String>,
}

/// One model. Clones are handles to the same one.
#[derive(Clone)]
pub struct Model {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    spec: RwLock<Arc<ModelSpec>>,
    scheduler: Arc<Scheduler>,
    counters: Arc<Mutex<Counters>>,
    standing: watch::Sender<Standing>,
    commands: mpsc::Sender<oneshot::Sender<Result<(), InferenceError>>>,
    last_error: Mutex<Option<String>>,
    cancel: CancellationToken,
}

impl Model {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where it stands.
    pub fn state(&self) -> ModelState {
        self.shared.standing.borrow().state
    }

    /// Whether two handles are to the same one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// What it needs and means, once it is loaded.
    pub fn plan(&self) -> Option<Arc<ModelPlan>> {
        self.shared.standing.borrow().loaded.as_ref().map(|(loaded, ..)| loaded.plan.clone())
    }

    /// Waits until it is loaded.
    ///
    /// # Errors
    /// If it cannot be loaded, or not in time.
    pub async fn ready(&self, timeout: Duration) -> Result<Arc<ModelPlan>, InferenceError> {
        let mut standing = self.standing();
        let waited =
            tokio::time::timeout(timeout, standing.wait_for(|s| s.state != ModelState::Loading)).await;
        drop(waited);
        match self.plan().filter(|_| self.state() == ModelState::Ready) {
            Some(plan) => Ok(plan),
            None => Err(self.not_ready()),
        }
    }

    fn not_ready(&self) -> InferenceError {
        let standing = self.shared.standing.borrow();
        InferenceError::NotReady { model: self.shared.name.clone(), reason: standing.reason.clone() }
    }

    /// What is in a picture.
    ///
    /// # Errors
    /// If the model is not ready, has too much to do, fails, or does not answer in time.
    pub async fn infer(&self, picture: Picture) -> Result<Detections, InferenceError> {
        self.infer_with(Arc::new(picture), Wanted::default()).await
    }

    /// The same with other thresholds or classes than the model's own.
    ///
    /// # Errors
    /// As [`infer`](Self::infer), or if there is no such class.
    pub async fn infer_with(
        &self,
        picture: Arc<Picture>,
        wanted: Wanted,
    ) -> Result<Detections, InferenceError> {
        if self.shared.standing.borrow().loaded.is_none() {
            self.ready(LOAD_TIMEOUT).await?;
        }
        if self.state() == ModelState::Failed {
            return Err(self.not_ready());
        }
        let spec = self.shared.spec.read().clone();
        let receiver = self.shared.scheduler.once(picture, wanted, &self.shared.name)?;
        // Those before it each have their time.
        let limit = spec.run_timeout.0 * 4;
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.not_ready()),
            Err(_) => Err(InferenceError::Timeout { model: self.shared.name.clone(), limit }),
        }
    }

    /// Loads its file again. The old one works until the new one does; if that fails the old one goes on.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub async fn reload(&self) -> Result<(), InferenceError> {
        let (sender, receiver) = oneshot::channel();
        let gone =
            || InferenceError::NotReady { model: self.shared.name.clone(), reason: "it is gone".into() };
        self.shared.commands.send(sender).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    pub(super) fn slot(
        &self,
        settings: SlotSettings,
        deliver: impl Fn(Outcome) + Send + Sync + 'static,
    ) -> Slot {
        self.shared.scheduler.slot(settings, deliver)
    }

    /// Everything about it.
    pub fn status(&self) -> ModelStatus {
        let shared = &self.shared;
        let standing = shared.standing.borrow().clone();
        let spec = shared.spec.read().clone();
        let plan = standing.loaded.as_ref().map(|(l, ..)| l.plan.clone());
        let loaded = standing.loaded.as_ref();
        let tensors = |list: fn(&super::tensor::ModelIo) -> &Vec<super::tensor::TensorInfo>| {
            loaded
                .map(|(l, ..)| list(&l.io).iter().map(|t| format!("{} {t}", t.name)).collect())
                .unwrap_or_default()
        };
        let chosen: Option<&ChosenBackend> = loaded.map(|(l, ..)| &l.chosen);
        ModelStatus {
            name: shared.name.clone(),
            state: standing.state,
            reason: standing.reason,
            since: standing.since,
            path: spec.path.display().to_string(),
            sha256: standing.sha256,
            kind: plan.as_ref().map(|p| p.kind()),
            layout: plan.as_ref().map(|p| p.layout.name()),
            inputs: tensors(|io| &io.inputs),
            outputs: tensors(|io| &io.outputs),
            input_size: plan.as_ref().map(|p| [p.input.width, p.input.height]),
            labels: plan.map(|p| p.labels.iter().map(|l| l.to_string()).collect()).unwrap_or_default(),
            backend_wanted: spec.backend.name().to_owned(),
            backend: chosen.map(|c| c.name.clone()),
            device: chosen.map(|c| c.device.clone()),
            backend_reason: chosen.map(|c| c.reason.clone()),
            instances: loaded.map_or(0, |(_, instances, _)| *instances),
            threads: loaded.map_or(0, |(_, _, threads)| *threads),
            max_batch: loaded.map_or(0, |(l, ..)| l.max_batch),
            load_secs: loaded.map(|(l, ..)| l.load_time.as_secs_f64()),
            streams: shared.scheduler.streams(),
            waiting: shared.scheduler.waiting(),
            stats: shared.counters.lock().stats(),
            last_error: shared.last_error.lock().clone(),
        }
    }
}

/// All models of a program. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Models {
    inner: Arc<Inner>,
}

struct Inner {
    options: RwLock<ModelsOptions>,
    models: RwLock<BTreeMap<String, Model>>,
    /// Told when there are other models than before.
    changed: watch::Sender<()>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Models {
    /// Begins to load these models, each once its name is known; must be called on a tokio runtime.
    pub fn new(options: ModelsOptions, specs: Vec<ModelSpec>) -> Self {
        let inner = Inner {
            options: RwLock::new(options),
            models: RwLock::default(),
            changed: watch::Sender::new(()),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        };
        let models = Self { inner: Arc::new(inner) };
        models.set(specs);
        models
    }

    /// Has these models and no others from now on. Those that are described as before go on as they are; the others are
    /// loaded in the background and replace what was there under their name.
    pub fn set(&self, specs: Vec<ModelSpec>) {
        let mut reloads = Vec::new();
        {
            let mut models = self.inner.models.write();
            let names: Vec<String> = specs.iter().map(ModelSpec::name).collect();
            models.retain(|name, model| {
                let stays = names.contains(name);
                if !stays {
                    model.shared.cancel.cancel();
                }
                stays
            });
            for (name, spec) in names.into_iter().zip(specs) {
                match models.get(&name) {
                    Some(model) if **model.shared.spec.read() == spec => {}
                    Some(model) => {
                        *model.shared.spec.write() = Arc::new(spec);
                        reloads.push(model.clone());
                    }
                    None => {
                        models.insert(name.clone(), self.begin(name, spec));
                    }
                }
            }
        }
        for model in reloads {
            self.inner.tasks.spawn(async move {
                if let Err(error) = model.reload().await {
                    tracing::error!(model = model.name(), %error, "the new model cannot be loaded");
                }
            });
        }
        self.inner.changed.send_replace(());
    }

    /// Other places for what models need, from the next loading on.
    pub fn set_places(&self, library: Option<PathBuf>, engine_dir: Option<PathBuf>) {
        let mut options = self.inner.options.write();
        (options.library, options.engine_dir) = (library, engine_dir);
    }

    fn begin(&self, name: String, spec: ModelSpec) -> Model {
        let (commands, receiver) = mpsc::channel(4);
        let standing = Standing {
            state: ModelState::Loading,
            reason: "it is being loaded".into(),
            since: WallTime::now(),
            loaded: None,
            sha256: None,
        };
        let shared = Arc::new(Shared {
            name,
            spec: RwLock::new(Arc::new(spec)),
            scheduler: Arc::default(),
            counters: Arc::default(),
            standing: watch::Sender::new(standing),
            commands,
            last_error: Mutex::default(),
            cancel: self.inner.cancel.child_token(),
        });
        let owner = Owner {
            shared: shared.clone(),
            inner: Arc::downgrade(&self.inner),
            generation: 0,
            workers: Vec::new(),
            retired: Vec::new(),
            failures: 0,
        };
        self.inner.tasks.spawn(owner.run(receiver));
        Model { shared }
    }

    /// The model with this name.
    ///
    /// # Errors
    /// If there is none; says which there are.
    pub fn get(&self, name: &str) -> Result<Model, InferenceError> {
        let models = self.inner.models.read();
        models.get(name).cloned().ok_or_else(|| InferenceError::NoModel {
            name: name.chars().take(100).collect(),
            known: known(&models),
        })
    }

    /// The model with this name, or without a name the only one there is.
    ///
    /// # Errors
    /// If there is no such model, or without a name not exactly one.
    pub fn pick(&self, name: Option<&str>) -> Result<Model, InferenceError> {
        if let Some(name) = name {
            return self.get(name);
        }
        let models = self.inner.models.read();
        match models.len() {
            1 => models.values().next().cloned(),
            _ => None,
        }
        .ok_or_else(|| InferenceError::NoModel { name: String::new(), known: known(&models) })
    }

    /// All models, by name.
    pub fn all(&self) -> Vec<Model> {
        self.inner.models.read().values().cloned().collect()
    }

    /// Tells when there are other models than before.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.inner.changed.subscribe()
    }

    /// Ends all models and waits a bounded time for their threads.
    pub async fn close(&self) {
        self.inner.cancel.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(CLOSE_TIMEOUT * 2, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("models did not end in time");
        }
    }
}

fn known(models: &BTreeMap<String, Model>) -> String {
    if models.is_empty() {
        return "none (see [[inference.models]] in the configuration)".into();
    }
    models.keys().cloned().collect::<Vec<_>>().join(", ")
}

struct Thread {
    handle: JoinHandle<()>,
    watch: Arc<Watch>,
}

/// What happens next to a model that works.
enum Next {
    Reload(oneshot::Sender<Result<(), InferenceError>>),
    Failed(InferenceError),
    End,
}

struct Owner {
    shared: Arc<Shared>,
    inner: std::sync::Weak<Inner>,
    generation: u64,
    workers: Vec<Thread>,
    /// Threads that were told to end.
    retired: Vec<JoinHandle<()>>,
    failures: u32,
}

impl Owner {
    async fn run(mut self, mut commands: mpsc::Receiver<oneshot::Sender<Result<(), InferenceError>>>) {
        let cancel = self.shared.cancel.clone();
        let mut asked: Option<oneshot::Sender<Result<(), InferenceError>>> = None;
        loop {
            let loaded = cancel.run_until_cancelled(self.load()).await;
            let Some(loaded) = loaded else { break };
            let failed = loaded.as_ref().err().cloned();
            if let Some(sender) = asked.take() {
                // Whoever asked may be gone.
                let _ = sender.send(loaded);
            }
            match failed {
                None => self.failures = 0,
                Some(error) if self.workers.is_empty() => {
                    self.failures += 1;
                    let wait = retry_after(self.failures);
                    self.fail(&error, wait);
                    tokio::select! {
                        () = cancel.cancelled() => break,
                        () = tokio::time::sleep(wait) => {}
                        command = commands.recv() => asked = command,
                    }
                    continue;
                }
                // The old one goes on.
                Some(error) => {
                    self.stand(ModelState::Ready, format!("the new one cannot be loaded: {error}"), None)
                }
            }
            match self.watch_over(&mut commands, &cancel).await {
                Next::End => break,
                Next::Reload(sender) => asked = Some(sender),
                Next::Failed(error) => {
                    self.failures += 1;
                    self.retire(true);
                    self.shared.scheduler.refuse(&error);
                    let wait = retry_after(self.failures);
                    self.fail(&error, wait);
                    tokio::select! {
                        () = cancel.cancelled() => break,
                        () = tokio::time::sleep(wait) => {}
                        command = commands.recv() => asked = command,
                    }
                }
            }
        }
        self.end().await;
    }

    /// Loads the model beside what is there, and lets it take over.
    async fn load(&mut self) -> Result<(), InferenceError> {
        self.retired.retain(|handle| !handle.is_finished());
        let stuck = self.retired.len();
        let name = self.shared.name.clone();
        if stuck > MAX_STUCK && self.workers.is_empty() {
            let problem = format!("{stuck} threads of it hang; it is not loaded again before they end");
            return Err(InferenceError::Run { model: name, problem });
        }
        if self.workers.is_empty() {
            self.stand(ModelState::Loading, "it is being loaded".into(), None);
        }
        let Some(inner) = self.inner.upgrade() else {
            return Err(InferenceError::NotReady { model: name, reason: "it is gone".into() });
        };
        let options = inner.options.read().clone();
        drop(inner);
        let spec = self.shared.spec.read().clone();
        spec.check().map_err(|problem| InferenceError::Spec {
            model: name.clone(),
            key: "description",
            problem,
        })?;
        let factory: BackendFactory = match &spec.backend {
            BackendChoice::Named(backend) => options.backends.get(backend).cloned().ok_or_else(|| {
                let names: Vec<&str> = ["auto", "tensorrt", "cuda", "cpu"]
                    .into_iter()
                    .chain(options.backends.keys().map(String::as_str))
                    .collect();
                InferenceError::Spec {
                    model: name.clone(),
                    key: "backend",
                    problem: format!(
                        "there is no backend \"{backend}\"; expected one of: {}",
                        names.join(", ")
                    ),
                }
            })?,
            _ => Arc::new(|| Box::new(OrtBackend::default())),
        };
        let own = matches!(spec.backend, BackendChoice::Named(_));
        let file = spec.clone();
        let hashed = tokio::task::spawn_blocking(move || super::file::fingerprint(&file, own)).await;
        let sha256 = hashed.unwrap_or_else(|e| Err(InferenceError::Thread(e.to_string())))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if spec.threads == 0 { cores.min(4) } else { spec.threads };
        // Also of a loading that fails: no two have the same.
        self.generation += 1;
        let generation = self.generation;
        let start = |number: usize, watch: &Arc<Watch>| Start {
            spec: spec.clone(),
            factory: factory.clone(),
            sha256: sha256.clone().unwrap_or_default(),
            threads,
            max_batch: spec.max_batch,
            engine_dir: options.engine_dir.clone(),
            library: options.library.clone(),
            generation,
            number,
            scheduler: self.shared.scheduler.clone(),
            counters: self.shared.counters.clone(),
            watch: watch.clone(),
        };
        let mut threads_made = Vec::new();
        let mut first: Option<Loaded> = None;
        let mut wanted = 1;
        while threads_made.len() < wanted {
            let watch = Arc::new(Watch::default());
            let (handle, receiver) = spawn(start(threads_made.len(), &watch))?;
            threads_made.push(Thread { handle, watch });
            let loaded = match tokio::time::timeout(LOAD_TIMEOUT, receiver).await {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(_)) => Err(InferenceError::Thread("a model's thread has ended".into())),
                Err(_) => Err(InferenceError::Timeout { model: name.clone(), limit: LOAD_TIMEOUT }),
            };
            match loaded {
                Ok(loaded) if first.is_none() => {
                    let gpu = matches!(loaded.chosen.name.as_str(), "tensorrt" | "cuda");
                    wanted = match spec.instances {
                        0 if gpu => 1,
                        0 => (cores / 4).max(1),
                        number => number,
                    };
                    first = Some(loaded);
                }
                Ok(_) => {}
                Err(error) => {
                    // Those that are loaded wait for a turn that never comes.
                    for thread in threads_made {
                        thread.watch.given_up.store(true, Ordering::Relaxed);
                        self.retired.push(thread.handle);
                    }
                    return Err(error);
                }
            }
        }
        let Some(loaded) = first else { return Ok(()) };
        self.retire(false);
        self.workers = threads_made;
        self.shared.scheduler.set_generation(generation);
        let reason = format!("{} on {}", loaded.chosen.name, loaded.chosen.device);
        tracing::info!(
            model = name,
            layout = loaded.plan.layout.name(),
            backend = loaded.chosen.name,
            device = loaded.chosen.device,
            why = loaded.chosen.reason,
            instances = wanted,
            max_batch = loaded.max_batch,
            load_secs = loaded.load_time.as_secs_f64(),
            "a model is loaded"
        );
        self.stand(ModelState::Ready, reason, Some((loaded, wanted, threads, sha256)));
        Ok(())
    }

    fn stand(
        &self,
        state: ModelState,
        reason: String,
        loaded: Option<(Loaded, usize, usize, Option<String>)>,
    ) {
        let changed = self.shared.standing.send_if_modified(|standing| {
            let changed = standing.state != state || standing.reason != reason || loaded.is_some();
            if standing.state != state {
                standing.since = WallTime::now();
            }
            (standing.state, standing.reason) = (state, reason.clone());
            if let Some((loaded, instances, threads, sha256)) = loaded {
                standing.loaded = Some((loaded, instances, threads));
                standing.sha256 = sha256;
            }
            changed
        });
        if changed && let Some(events) = self.inner.upgrade().and_then(|i| i.options.read().events.clone()) {
            let backend = self.shared.standing.borrow().loaded.as_ref().map(|(l, ..)| l.chosen.name.clone());
            events.emit(EventKind::ModelState {
                model: self.shared.name.clone(),
                state: state.name(),
                backend,
                reason,
            });
        }
    }

    fn fail(&self, error: &InferenceError, wait: Duration) {
        tracing::error!(model = self.shared.name, %error, retry_secs = wait.as_secs(), "a model cannot be used");
        *self.shared.last_error.lock() = Some(error.to_string());
        self.shared.scheduler.refuse(error);
        self.stand(ModelState::Failed, error.to_string(), None);
    }

    /// Watches the threads until something happens.
    async fn watch_over(
        &mut self,
        commands: &mut mpsc::Receiver<oneshot::Sender<Result<(), InferenceError>>>,
        cancel: &CancellationToken,
    ) -> Next {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let began = Instant::now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Next::End,
                command = commands.recv() => return command.map_or(Next::End, Next::Reload),
                _ = tick.tick() => {}
            }
            let limit = self.shared.spec.read().run_timeout.0;
            let model = || self.shared.name.clone();
            for thread in &self.workers {
                let error = thread.watch.last_error.lock().take();
                if let Some(error) = &error {
                    *self.shared.last_error.lock() = Some(error.clone());
                }
                if thread.watch.busy_for().is_some_and(|busy| busy > limit) {
                    return Next::Failed(InferenceError::Timeout { model: model(), limit });
                }
                if thread.watch.has_failed() {
                    let problem = error.or_else(|| self.shared.last_error.lock().clone()).unwrap_or_default();
                    return Next::Failed(InferenceError::Run {
                        model: model(),
                        problem: format!("it fails again and again: {problem}"),
                    });
                }
                if thread.handle.is_finished() {
                    return Next::Failed(InferenceError::Thread("a model's thread has ended".into()));
                }
            }
            if began.elapsed() > RETRY.1 {
                self.failures = 0;
            }
            self.retired.retain(|handle| !handle.is_finished());
        }
    }

    /// Tells the present threads to end; they finish what they compute, or are interrupted.
    fn retire(&mut self, interrupt: bool) {
        for thread in self.workers.drain(..) {
            if interrupt && let Some(interrupt) = thread.watch.interrupt.lock().clone() {
                interrupt();
            }
            self.retired.push(thread.handle);
        }
        if interrupt {
            self.generation += 1;
            self.shared.scheduler.set_generation(self.generation);
        }
    }

    async fn end(mut self) {
        self.shared.scheduler.close();
        let error = InferenceError::NotReady { model: self.shared.name.clone(), reason: "it is gone".into() };
        self.shared.scheduler.refuse(&error);
        for thread in &self.workers {
            if thread.watch.busy_for().is_some_and(|busy| busy > Duration::from_secs(1))
                && let Some(interrupt) = thread.watch.interrupt.lock().clone()
            {
                interrupt();
            }
        }
        self.retire(false);
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while self.retired.iter().any(|h| !h.is_finished()) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let hanging = self.retired.iter().filter(|h| !h.is_finished()).count();
        if hanging > 0 {
            tracing::warn!(
                model = self.shared.name,
                hanging,
                "threads of a model hang and are left to themselves"
            );
        }
    }
}

/// Longer each time, and not for all models at the same moment.
fn retry_after(failures: u32) -> Duration {
    let doubled = RETRY.0 * 2u32.saturating_pow(failures.saturating_sub(1).min(10));
    doubled.min(RETRY.1).mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests;
