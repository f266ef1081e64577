//! The task that owns a model's threads: it loads them, lets them work, watches that they do not hang, and when they fail
//! waits (longer each time) and loads anew.

use super::{Inner, LOAD_TIMEOUT, ModelState, Shared};
use crate::config::BackendChoice;
use crate::event::EventKind;
use crate::frame::WallTime;
use crate::inference::InferenceError;
use crate::inference::backend::BackendFactory;
use crate::inference::instance::{Loaded, Start, Watch, spawn, threads_of};
use crate::inference::ort_backend::OrtBackend;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How often an owner looks at its threads.
const LOOK: Duration = Duration::from_millis(250);
/// The first wait after a failure, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// How long the end waits for threads.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Threads of one model that may hang before it is not loaded again.
const MAX_STUCK: usize = 2;

/// Somebody who has asked for the model to be loaded again.
pub(super) type Asked = oneshot::Sender<Result<(), InferenceError>>;

struct Thread {
    handle: JoinHandle<()>,
    watch: Arc<Watch>,
}

/// What happens next to a model that works.
enum Next {
    Reload(Asked),
    Failed(InferenceError),
    End,
}

pub(super) struct Owner {
    shared: Arc<Shared>,
    inner: Weak<Inner>,
    generation: u64,
    workers: Vec<Thread>,
    /// Threads that load, and have not taken over.
    loading: Vec<Thread>,
    /// Threads that were told to end.
    retired: Vec<JoinHandle<()>>,
    failures: u32,
}

impl Owner {
    pub(super) fn new(shared: Arc<Shared>, inner: Weak<Inner>) -> Self {
        Self {
            shared,
            inner,
            generation: 0,
            workers: Vec::new(),
            loading: Vec::new(),
            retired: Vec::new(),
            failures: 0,
        }
    }

    /// Works until the model is given up.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Asked>) {
        let cancel = self.shared.cancel.clone();
        let mut asked: Option<Asked> = None;
        loop {
            let loaded = cancel.run_until_cancelled(self.load()).await;
            let Some(loaded) = loaded else { break };
            let failed = loaded.as_ref().err().cloned();
            if let Some(sender) = asked.take() {
                // Whoever asked may be gone.
                let _ = sender.send(loaded);
            }
            match failed {
                // Whether it works shows when it has for a while.
                None => {}
                Some(error) if self.workers.is_empty() => {
                    match self.rest(&error, &mut commands, &cancel).await {
                        Some(by) => asked = by,
                        None => break,
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
                    self.retire(true);
                    match self.rest(&error, &mut commands, &cancel).await {
                        Some(by) => asked = by,
                        None => break,
                    }
                }
            }
        }
        self.end().await;
    }

    /// Tells of a failure and waits, longer each time, or until somebody asks. `None` when the model is given up.
    async fn rest(
        &mut self,
        error: &InferenceError,
        commands: &mut mpsc::Receiver<Asked>,
        cancel: &CancellationToken,
    ) -> Option<Option<Asked>> {
        self.failures += 1;
        let wait = retry_after(self.failures);
        self.fail(error, wait);
        tokio::select! {
            () = cancel.cancelled() => None,
            () = tokio::time::sleep(wait) => Some(None),
            command = commands.recv() => Some(command),
        }
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
        let hashed =
            tokio::task::spawn_blocking(move || crate::inference::file::fingerprint(&file, own)).await;
        let sha256 = hashed.unwrap_or_else(|e| Err(InferenceError::Thread(e.to_string())))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads_of(&spec);
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
        let mut first: Option<Loaded> = None;
        let mut wanted = 1;
        while self.loading.len() < wanted {
            let watch = Arc::new(Watch::default());
            let (handle, receiver) = spawn(start(self.loading.len(), &watch))?;
            self.loading.push(Thread { handle, watch });
            let loaded = match tokio::time::timeout(LOAD_TIMEOUT, receiver).await {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(_)) => Err(InferenceError::Thread("a model's thread has ended".into())),
                Err(_) => Err(InferenceError::Timeout { model: name.clone(), limit: LOAD_TIMEOUT }),
            };
            match loaded {
                Ok(loaded) if first.is_none() => {
                    wanted = match spec.instances {
                        0 if loaded.chosen.is_gpu() => 1,
                        0 => (cores / 4).max(1),
                        number => number,
                    };
                    first = Some(loaded);
                }
                Ok(_) => {}
                Err(error) => {
                    self.give_up_loading();
                    return Err(error);
                }
            }
        }
        let Some(loaded) = first else { return Ok(()) };
        self.retire(false);
        self.workers = std::mem::take(&mut self.loading);
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

    /// Those that are loaded, or about to be, wait for a turn that never comes.
    fn give_up_loading(&mut self) {
        for thread in self.loading.drain(..) {
            thread.watch.given_up.store(true, Ordering::Relaxed);
            self.retired.push(thread.handle);
        }
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
    async fn watch_over(&mut self, commands: &mut mpsc::Receiver<Asked>, cancel: &CancellationToken) -> Next {
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
        // One that is in the midst of it is waited for, too: a process that ends while native code loads may crash.
        self.give_up_loading();
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
