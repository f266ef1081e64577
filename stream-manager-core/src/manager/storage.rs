//! A manager's disks: its data folder, its folders for recordings, the index and its keeper.

use super::{ManagerError, StreamId};
use crate::event::{EventBus, EventKind};
use crate::storage::index::{Index, Opened};
use crate::storage::journal::Journal;
use crate::storage::objects::ObjectStore;
use crate::storage::retention::{RetentionPolicy, StreamLimits};
use crate::storage::state::{StateOpened, StateStore};
use crate::storage::{DataLock, Directory, DiskPool, Keeper, Place, space};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The name of the folder for recordings that choose no other.
pub(super) const DEFAULT_DIRECTORY: &str = "default";
/// How long the keeper and the index may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Settings {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) recordings_dir: Option<PathBuf>,
    pub(super) directories: BTreeMap<String, PathBuf>,
    pub(super) retention: RetentionPolicy,
    pub(super) disk_threads: usize,
    pub(super) journal_size: u64,
}

pub(super) struct Storage {
    directories: Arc<[Directory]>,
    index: Option<Index>,
    keeper: Option<Keeper>,
    pub(super) state: Option<Arc<StateStore>>,
    pub(super) journal: Option<Journal>,
    pub(super) objects: Option<ObjectStore>,
    journal_task: Mutex<Option<(JoinHandle<()>, CancellationToken)>>,
    /// Let go of when everything has ended.
    lock: Mutex<Option<DataLock>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What is opened on a blocking thread.
struct OpenedParts {
    directories: Vec<Directory>,
    index: Option<(Index, Opened)>,
    state: Option<(StateStore, StateOpened)>,
    journal: Option<Journal>,
    objects: Option<ObjectStore>,
    lock: Option<DataLock>,
}

impl Storage {
    pub(super) async fn open(
        settings: Settings,
        events: &EventBus,
        cancel: &CancellationToken,
    ) -> Result<Self, ManagerError> {
        let retention = settings.retention.clone();
        let bus = events.clone();
        let opened = tokio::task::spawn_blocking(move || open(&settings, &bus)).await;
        let parts = opened.unwrap_or(Err(ManagerError::ShutDown))?;
        let directories: Arc<[Directory]> = parts.directories.into();
        let Some((index, opened)) = parts.index else {
            return Ok(Self {
                directories,
                index: None,
                keeper: None,
                state: None,
                journal: None,
                objects: None,
                journal_task: Mutex::new(None),
                lock: Mutex::new(None),
                task: Mutex::new(None),
            });
        };
        // Until the end: the last events are those of stopping.
        let journal_cancel = CancellationToken::new();
        let journal_task = parts.journal.clone().map(|journal| {
            (tokio::spawn(journal.run(events.clone(), journal_cancel.clone())), journal_cancel)
        });
        let state = parts.state.map(|(store, opened)| {
            if let Some(aside) = &opened.damaged {
                let (kept_as, restored_streams) = (aside.display().to_string(), opened.restored);
                events.emit(EventKind::StateDamaged { kept_as, restored_streams });
            }
            Arc::new(store)
        });
        let keeper = Keeper::new(index.clone(), directories.clone(), retention, events.clone());
        if let Some(aside) = &opened.damaged {
            events.emit(EventKind::IndexDamaged { kept_as: aside.display().to_string() });
        }
        let rebuild = opened.damaged.is_some() || opened.new;
        let task = tokio::spawn(keeper.clone().run(rebuild, cancel.child_token()));
        Ok(Self {
            directories,
            index: Some(index),
            keeper: Some(keeper),
            state,
            journal: parts.journal,
            objects: parts.objects,
            journal_task: Mutex::new(journal_task),
            lock: Mutex::new(parts.lock),
            task: Mutex::new(Some(task)),
        })
    }

    /// Nobody waits for the end: what runs in the background sees to it by itself.
    pub(super) fn abandon(&self) {
        if let Some((_, cancel)) = &*self.journal_task.lock() {
            cancel.cancel();
        }
    }

    pub(super) fn index(&self) -> Option<&Index> {
        self.index.as_ref()
    }

    pub(super) fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    pub(super) fn default_path(&self) -> &Path {
        self.directories.first().map_or(Path::new("."), |d| d.place.path())
    }

    /// The folders for recordings, by name.
    pub(super) fn folders(&self) -> BTreeMap<String, PathBuf> {
        self.directories.iter().map(|d| (d.name.clone(), d.place.path().to_owned())).collect()
    }

    /// The folder with this name, or the one that holds for all.
    pub(super) fn directory(&self, name: Option<&str>) -> Result<&Directory, ManagerError> {
        let wanted = name.unwrap_or(DEFAULT_DIRECTORY);
        self.directories.iter().find(|d| d.name == wanted).ok_or_else(|| ManagerError::NoDirectory {
            name: wanted.chars().take(60).collect(),
            known: self.directories.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// What holds for one stream's recordings from now on.
    pub(super) fn limit(&self, id: &StreamId, limits: Option<StreamLimits>) {
        let Some(keeper) = &self.keeper else { return };
        keeper.change_policy(|policy| {
            match limits {
                Some(limits) => policy.streams.insert(id.as_str().to_owned(), limits),
                None => policy.streams.remove(id.as_str()),
            };
        });
    }

    /// Ends the keeper, waits until the index has everything, and lets go of the data folder.
    pub(super) async fn close(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            // It has been cancelled. What it still has on a blocking thread may be cut off anywhere.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, task).await;
        }
        if let Some(index) = &self.index {
            // Changes come to the index behind the files that they speak of.
            for directory in self.directories.iter() {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, directory.pool.caught_up()).await;
            }
            if let Err(error) = index.flush().await {
                tracing::warn!(%error, "the index of recordings is put right at the next start");
            }
        }
        if let Some(objects) = &self.objects
            && let Err(error) = objects.flush().await
        {
            tracing::warn!(%error, "the last of what was seen may be missing");
        }
        let journal = self.journal_task.lock().take();
        if let Some((task, cancel)) = journal {
            cancel.cancel();
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, task).await;
        }
        self.lock.lock().take();
    }
}

fn open(settings: &Settings, events: &EventBus) -> Result<OpenedParts, ManagerError> {
    let lock = settings.data_dir.as_deref().map(DataLock::take).transpose()?;
    let index = settings.data_dir.as_deref().map(Index::open).transpose()?;
    let state = settings.data_dir.as_deref().map(StateStore::open).transpose()?;
    let journal = settings.data_dir.as_deref().and_then(|data_dir| {
        Journal::open(data_dir, settings.journal_size, events)
            .inspect_err(|error| tracing::error!(error, "events are not kept"))
            .ok()
    });
    let objects = settings.data_dir.as_deref().and_then(|data_dir| super::objects::open(data_dir, events));
    let data_dir = settings.data_dir.clone().unwrap_or_else(|| "data".into());
    let default = settings.recordings_dir.clone().unwrap_or_else(|| data_dir.join("recordings"));
    let used = match &settings.data_dir {
        Some(data_dir) => crate::storage::index::Catalog::open_for_reading(data_dir)?.folders()?,
        None => Vec::new(),
    };
    let mut directories: Vec<Directory> = Vec::new();
    let mut pools: Vec<(Option<u64>, DiskPool)> = Vec::new();
    let named = settings.directories.iter().map(|(name, path)| (name.as_str(), path));
    for (name, path) in std::iter::once((DEFAULT_DIRECTORY, &default)).chain(named) {
        // The index knows files by their full paths, wherever the program is started.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let known = used.iter().any(|(folder, bytes)| *bytes > 0 && folder.starts_with(&path));
        let place = Arc::new(Place::new(path, known));
        if index.is_some()
            && let Err(error) = place.ready()
        {
            // The streams run all the same; their recordings say what is the matter, until it is put right.
            tracing::error!(name, %error, "recordings cannot go here");
        }
        let device = space::device(place.path());
        let pool = match pools.iter().find(|(d, _)| d.is_some() && *d == device) {
            Some((_, pool)) => pool.clone(),
            None => {
                let pool = DiskPool::new(settings.disk_threads)?;
                pools.push((device, pool.clone()));
                pool
            }
        };
        directories.push(Directory { name: name.to_owned(), place, pool });
    }
    Ok(OpenedParts { directories, index, state, journal, objects, lock })
}
