//! From a configuration to a manager: what it says, what is remembered, and both together.

use super::definition::Defined;
use super::from_config::check_streams;
use super::settings::retention_of;
use super::{BuildError, ManagerError, StreamId, StreamManager, StreamManagerBuilder};
use crate::config::{Config, ConfigError, ConfigSource};
use crate::storage::state::{Recalled, StateStore};

/// Why a configuration does not become a manager.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Streams in it are wrong; each with its place in the list.
    #[error("{}", first(.0))]
    Streams(Vec<(usize, BuildError)>),
    /// The manager cannot be made.
    #[error(transparent)]
    Manager(#[from] ManagerError),
}

fn first(errors: &[(usize, BuildError)]) -> String {
    errors.first().map(|(_, error)| error.to_string()).unwrap_or_default()
}

/// What is remembered in a data folder.
#[derive(Default)]
pub(super) struct Remembered {
    pub(super) defined: Defined,
    pub(super) settings: toml::Table,
}

impl Remembered {
    /// Reads it. Blocks.
    pub(super) fn read(store: &StateStore) -> Result<Self, ManagerError> {
        Ok(Self::of(store.recall()?))
    }

    fn of(recalled: Recalled) -> Self {
        let settings = recalled.settings.as_deref().and_then(|text| {
            serde_json::from_str(text)
                .inspect_err(
                    |error| tracing::error!(%error, "the settings made through the API cannot be read"),
                )
                .ok()
        });
        let mut defined = Defined::default();
        for (id, problem) in defined.recall(recalled) {
            // It stays in the database: a newer version may know it.
            tracing::error!(
                stream = id,
                problem,
                "a stream made through the API cannot be read and is left out"
            );
        }
        Self { defined, settings: settings.unwrap_or_default() }
    }
}

/// The configuration, what was set through the API, and all streams as one file. For when no manager is at hand: beside a
/// running server it reads what that remembers. Blocks.
///
/// # Errors
/// If the configuration is wrong, or what is remembered cannot be read.
pub fn export_config(source: &ConfigSource, secrets: bool) -> Result<String, OpenError> {
    let config = source.load(None)?;
    let recalled = StateStore::read(&config.storage.data_dir).map_err(ManagerError::from)?;
    let Remembered { mut defined, settings } = Remembered::of(recalled);
    let config = source.load(Some(&settings))?;
    defined.set_file(&config.streams);
    let streams = defined.all().map(|d| d.config.clone()).collect();
    Ok(Config { streams, ..config }.to_toml(secrets))
}

impl StreamManagerBuilder {
    /// What a configuration says of folders and limits.
    pub(super) fn of_config(config: &Config) -> Self {
        let mut builder = StreamManager::builder()
            .data_dir(&config.storage.data_dir)
            .max_connects(config.server.max_connects)
            .max_connects_per_host(config.server.max_connects_per_host)
            .disk_threads(config.storage.disk_threads)
            .retention(retention_of(config))
            .config(config.clone());
        if let Some(recordings) = &config.storage.recordings_dir {
            builder = builder.recordings_dir(recordings);
        }
        for (name, path) in &config.storage.directories {
            builder = builder.directory(name, path);
        }
        builder
    }
}

impl StreamManager {
    /// Starts a manager with everything that a configuration says, and with the streams that were made through the
    /// API earlier.
    ///
    /// # Errors
    /// If a stream cannot be made from it; nothing runs then.
    pub async fn from_config(config: &Config) -> Result<Self, OpenError> {
        let errors = check_streams(config);
        if !errors.is_empty() {
            return Err(OpenError::Streams(errors));
        }
        Ok(StreamManagerBuilder::of_config(config).build().await?)
    }

    /// Opens a manager that reads its configuration from this source, now and whenever it is told to
    /// [`reload`](Self::reload). No stream runs before [`start`](Self::start).
    ///
    /// # Errors
    /// If the configuration is wrong, or the data folder cannot be used.
    pub async fn open(source: ConfigSource) -> Result<Self, OpenError> {
        let reading = source.clone();
        let read = tokio::task::spawn_blocking(move || {
            let written = reading.written()?;
            let config = reading.with(&written, None)?;
            Ok::<_, ConfigError>((reading.content(), written, config))
        });
        let (content, written, config) = read.await.map_err(|_| ManagerError::ShutDown)??;
        let errors = check_streams(&config);
        if !errors.is_empty() {
            return Err(OpenError::Streams(errors));
        }
        let manager = StreamManagerBuilder::of_config(&config).source(source).open().await?;
        manager.inner.control.status.lock().content = content;
        *manager.inner.control.written.lock() = written;
        Ok(manager)
    }

    /// Starts all streams that are defined and enabled. Once is enough.
    pub async fn start(&self) {
        self.renew_patterns().await;
        let ids: Vec<StreamId> = {
            let config = self.config();
            let defined = self.inner.control.defined.read();
            let enabled = |id: &str| defined.desired(id, &config.defaults).is_some_and(|d| d.enabled);
            defined.all().filter(|d| enabled(&d.config.id)).filter_map(|d| d.config.id.parse().ok()).collect()
        };
        for id in ids {
            let _turn = self.inner.control.turns.take(&id).await;
            // Looked at again: somebody may have been quicker.
            if let Some(desired) = self.desired(id.as_str()).filter(|d| d.enabled)
                && self.stream(id.as_str()).is_err()
            {
                self.begin(&id, &desired);
            }
        }
    }

    /// What was set through the API, laid below what the operator says. If that no longer goes together it is left
    /// out, and said so.
    pub(super) async fn with_settings(
        source: Option<&ConfigSource>,
        config: Config,
        settings: toml::Table,
    ) -> (Config, toml::Table) {
        let Some(source) = source.filter(|_| !settings.is_empty()).cloned() else {
            return (config, settings);
        };
        let with = settings.clone();
        let loaded = tokio::task::spawn_blocking(move || source.load(Some(&with))).await;
        match loaded {
            Ok(Ok(loaded)) if check_streams(&loaded).is_empty() => {
                (loaded.keeping_process_keys(&config), settings)
            }
            other => {
                let error = other.ok().and_then(Result::err).map(|e| e.to_string()).unwrap_or_default();
                tracing::error!(error, "the settings made through the API no longer fit and are left out");
                (config, settings)
            }
        }
    }

    /// Warns of streams that both the file and the API name.
    pub(super) fn tell_shadowed(&self) {
        for id in self.config_status().shadowed {
            tracing::warn!(
                stream = id,
                "the configuration file names a stream that was made through the API; the file's counts, and the other \
                 is kept until the file drops it"
            );
        }
    }
}

/// Renews the database's copy; see [`Control`](super::control::Control).
pub(super) fn keep_copy(manager: &StreamManager) {
    let Some(store) = manager.inner.control.store.clone() else { return };
    let (changed, cancel) = (manager.inner.control.changed.clone(), manager.inner.cancel.clone());
    let task = tokio::spawn(super::control::Control::keep_copy(store, changed, cancel));
    *manager.inner.copying.lock() = Some(task);
}
