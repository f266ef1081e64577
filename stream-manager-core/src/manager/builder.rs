//! Making a manager.

use super::connects::Connects;
use super::control::Control;
use super::open::Remembered;
use super::storage::{self, Storage};
use super::{Inner, ManagerError, Stream, StreamManager, StreamPattern, open, sample, settings};
use crate::config::{Config, ConfigSource};
use crate::event::EventBus;
use crate::session::Sessions;
use crate::storage::retention::RetentionPolicy;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Makes a [`StreamManager`].
pub struct StreamManagerBuilder {
    data_dir: Option<PathBuf>,
    recordings_dir: Option<PathBuf>,
    directories: BTreeMap<String, PathBuf>,
    retention: RetentionPolicy,
    max_connects: usize,
    max_connects_per_host: usize,
    disk_threads: usize,
    streams: Vec<Stream>,
    patterns: Vec<StreamPattern>,
    config: Config,
    source: Option<ConfigSource>,
    #[cfg(feature = "inference")]
    backends: BTreeMap<String, crate::inference::BackendFactory>,
}

impl StreamManagerBuilder {
    pub(super) fn new() -> Self {
        Self {
            data_dir: None,
            recordings_dir: None,
            directories: BTreeMap::new(),
            retention: RetentionPolicy::default(),
            max_connects: 16,
            max_connects_per_host: 8,
            disk_threads: 2,
            streams: Vec::new(),
            patterns: Vec::new(),
            config: Config::default(),
            source: None,
            #[cfg(feature = "inference")]
            backends: BTreeMap::new(),
        }
    }

    /// Sets what holds for streams that are made by their configuration, its streams included. Folders and limits
    /// are set by the other calls.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    pub(super) fn source(mut self, source: ConfigSource) -> Self {
        self.source = Some(source);
        self
    }

    /// Where the manager keeps what it has to remember: the index of recordings. Only one manager may use a
    /// folder at a time. Without one nothing is remembered, and nothing deleted.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Adds a folder for recordings that streams may choose by its name.
    #[must_use]
    pub fn directory(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.directories.insert(name.into(), path.into());
        self
    }

    /// Sets how long recordings are kept.
    #[must_use]
    pub fn retention(mut self, policy: RetentionPolicy) -> Self {
        self.retention = policy;
        self
    }

    /// Where recordings go; `recordings` in the data folder by default, or `data/recordings` without one.
    #[must_use]
    pub fn recordings_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.recordings_dir = Some(path.into());
        self
    }

    /// How many sources may be connecting at one time; 16 by default.
    #[must_use]
    pub fn max_connects(mut self, number: usize) -> Self {
        self.max_connects = number.max(1);
        self
    }

    /// Sets how many of them may be connecting to one host; 8 by default.
    #[must_use]
    pub fn max_connects_per_host(mut self, number: usize) -> Self {
        self.max_connects_per_host = number.max(1);
        self
    }

    /// How many threads write to each disk; 2 by default.
    #[must_use]
    pub fn disk_threads(mut self, number: usize) -> Self {
        self.disk_threads = number.max(1);
        self
    }

    /// Adds a model that streams may be analysed by.
    #[cfg(feature = "inference")]
    #[must_use]
    pub fn model(mut self, spec: crate::config::ModelSpec) -> Self {
        self.config.inference.models.push(spec);
        self
    }

    /// Adds a backend that models can ask for by its name; see
    /// [`InferenceBackend`](crate::inference::InferenceBackend).
    #[cfg(feature = "inference")]
    #[must_use]
    pub fn backend(mut self, name: impl Into<String>, factory: crate::inference::BackendFactory) -> Self {
        self.backends.insert(name.into(), factory);
        self
    }

    /// Adds a stream that starts with the manager.
    #[must_use]
    pub fn stream(mut self, stream: Stream) -> Self {
        self.streams.push(stream);
        self
    }

    /// Adds streams that come into being when they are published.
    #[must_use]
    pub fn pattern(mut self, pattern: StreamPattern) -> Self {
        self.patterns.push(pattern);
        self
    }

    /// Starts the manager and its streams. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If an id is wrong or taken, or a recording's settings do not make sense; nothing runs then.
    pub async fn build(mut self) -> Result<StreamManager, ManagerError> {
        let streams = std::mem::take(&mut self.streams);
        let manager = self.open().await?;
        let mut result = Ok(());
        for stream in streams {
            result = manager.add_stream(stream).map(drop);
            if result.is_err() {
                break;
            }
        }
        if let Err(error) = result {
            manager.shutdown().await;
            return Err(error);
        }
        manager.start().await;
        Ok(manager)
    }

    /// Opens what is remembered; no stream runs yet.
    pub(super) async fn open(self) -> Result<StreamManager, ManagerError> {
        let events = EventBus::default();
        let cancel = CancellationToken::new();
        let storage = Storage::open(
            storage::Settings {
                data_dir: self.data_dir,
                recordings_dir: self.recordings_dir,
                directories: self.directories,
                retention: self.retention,
                disk_threads: self.disk_threads,
                journal_size: self.config.events.journal_size,
            },
            &events,
            &cancel,
        )
        .await?;
        let remembered = match storage.state.clone() {
            Some(store) => tokio::task::spawn_blocking(move || Remembered::read(&store))
                .await
                .unwrap_or(Err(ManagerError::ShutDown))?,
            None => Remembered::default(),
        };
        let (config, settings) =
            StreamManager::with_settings(self.source.as_ref(), self.config, remembered.settings).await;
        let mut defined = remembered.defined;
        defined.set_file(&config.streams);
        let (connects, per_host) = if self.source.is_some() {
            (config.server.max_connects, config.server.max_connects_per_host)
        } else {
            (self.max_connects, self.max_connects_per_host)
        };
        if let Some(keeper) = storage.keeper().filter(|_| self.source.is_some()) {
            keeper.change_policy(|policy| *policy = settings::retention_of(&config));
        }
        #[cfg(feature = "inference")]
        let models = {
            let (library, engine_dir) = settings::model_places(&config);
            let options = crate::inference::ModelsOptions {
                library,
                engine_dir,
                events: Some(events.clone()),
                backends: self.backends,
            };
            crate::inference::Models::new(options, config.inference.models.clone())
        };
        let data_dir = storage.index().map(|index| index.data_dir().to_owned());
        let exports = tokio::task::spawn_blocking(move || super::exports::Exports::open(data_dir.as_deref()))
            .await
            .map_err(|_| ManagerError::ShutDown)?;
        let (state, journal) = (storage.state.clone(), storage.journal.clone());
        let control = Control::new(config, self.source, settings, defined, state, journal);
        let manager = StreamManager {
            inner: Arc::new(Inner {
                storage,
                control,
                connects: Connects::new(connects, per_host),
                sessions: Sessions::new(events.clone()),
                archive: std::sync::OnceLock::new(),
                exports,
                backups: super::backups::Backups::default(),
                made_pictures: super::snapshot::MadePictures::default(),
                events,
                #[cfg(feature = "inference")]
                models,
                streams: RwLock::default(),
                code_patterns: self.patterns,
                patterns: RwLock::default(),
                made: std::time::Instant::now(),
                copying: Mutex::new(None),
                sampling: Mutex::new(None),
                backing_up: Mutex::new(None),
                cancel,
            }),
        };
        manager.tell_shadowed();
        open::keep_copy(&manager);
        let weak = Arc::downgrade(&manager.inner);
        *manager.inner.sampling.lock() = Some(tokio::spawn(sample(weak, manager.inner.cancel.clone())));
        if manager.inner.storage.index().is_some() {
            let weak = Arc::downgrade(&manager.inner);
            let making = super::backups::keep_making(weak, manager.inner.cancel.clone());
            *manager.inner.backing_up.lock() = Some(tokio::spawn(making));
        }
        if let Some(store) = manager.inner.storage.objects.clone() {
            let weak = Arc::downgrade(&manager.inner);
            let limits = move || {
                let manager = StreamManager { inner: weak.upgrade()? };
                let storage = manager.config().storage.clone();
                Some(super::objects::ObjectLimits {
                    max_age: storage.objects_max_age.0,
                    max_count: storage.objects_max_count,
                })
            };
            let tidying = super::objects::tidy(store, limits, manager.inner.cancel.clone());
            manager.inner.control.tasks.spawn(tidying);
        }
        Ok(manager)
    }
}
