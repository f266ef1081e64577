//! The models of a program: loaded once, shared by all streams, replaced without losing a picture, and tried again when
//! they fail.
//!
//! Each model has a task that owns its threads. It loads them, lets them work, watches that they do not hang, and when
//! they fail waits (longer each time) and loads anew. A replacement is loaded beside the old one and takes over between
//! two batches.

mod owner;

use super::InferenceError;
use super::backend::{BackendFactory, ChosenBackend};
use super::instance::Loaded;
use super::picture::Picture;
use super::plan::{ModelPlan, Wanted};
use super::scheduler::{Ask, Outcome, Scheduler, Slot, SlotSettings};
use super::stats::{Counters, ModelStats};
use crate::config::{ModelKind, ModelSpec};
use crate::detection::Detections;
use crate::event::EventBus;
use crate::frame::WallTime;
use owner::{Asked, CLOSE_TIMEOUT, Owner};
use parking_lot::{Mutex, RwLock};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Building an engine for a GPU may take many minutes; longer than this is a hang.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);

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
    commands: mpsc::Sender<Asked>,
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
        self.ask(picture, Ask { wanted, doubtful: None }).await.map(|(detections, _)| detections)
    }

    /// The same, and behind what counts also what reaches this score; and how many count.
    pub(crate) async fn infer_doubtful(
        &self,
        picture: Arc<Picture>,
        wanted: Wanted,
        doubtful: f32,
    ) -> Result<(Detections, usize), InferenceError> {
        self.ask(picture, Ask { wanted, doubtful: Some(doubtful) }).await
    }

    async fn ask(&self, picture: Arc<Picture>, ask: Ask) -> Result<(Detections, usize), InferenceError> {
        if self.shared.standing.borrow().loaded.is_none() {
            self.ready(LOAD_TIMEOUT).await?;
        }
        if self.state() == ModelState::Failed {
            return Err(self.not_ready());
        }
        let spec = self.shared.spec.read().clone();
        let receiver = self.shared.scheduler.once(picture, ask, &self.shared.name)?;
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
        let owner = Owner::new(shared.clone(), Arc::downgrade(&self.inner));
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
        .ok_or_else(|| InferenceError::NotNamed { known: known(&models) })
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

#[cfg(test)]
mod tests;
