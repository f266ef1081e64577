//! The state behind all changes: what is defined, where it is remembered, and whose turn it is.

use super::definition::Defined;
use super::reload::ConfigUser;
use super::{ManagerError, StreamId};
use crate::config::{Config, ConfigSource, Written};
use crate::frame::WallTime;
use crate::storage::journal::Journal;
use crate::storage::state::{StateChange, StateError, StateStore};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long after a change the copy of the database is renewed.
const COPY_DELAY: Duration = Duration::from_secs(10);

pub(super) struct Control {
    pub(super) defined: RwLock<Defined>,
    /// The configuration in force.
    pub(super) config: RwLock<Arc<Config>>,
    /// Where it is read from again.
    pub(super) source: Option<ConfigSource>,
    /// What the operator had written when the configuration in force was read.
    pub(super) written: Mutex<Written>,
    /// Settings made through the API.
    pub(super) settings: Mutex<toml::Table>,
    pub(super) store: Option<Arc<StateStore>>,
    pub(super) journal: Option<Journal>,
    /// Held by whoever changes definitions or settings, from looking at what is there until it is remembered.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    pub(super) turns: Turns,
    /// Changes under way: they go on when whoever asked for them is gone.
    pub(super) tasks: TaskTracker,
    pub(super) users: RwLock<Vec<Arc<dyn ConfigUser>>>,
    pub(super) status: Mutex<LastReload>,
    /// Streams that could not be started, and why.
    pub(super) failed: Mutex<BTreeMap<String, String>>,
    pub(super) changed: Arc<Notify>,
}

/// How reading the configuration went last.
#[derive(Clone, Debug, Default)]
pub(super) struct LastReload {
    pub(super) loaded: Option<WallTime>,
    pub(super) attempted: Option<WallTime>,
    pub(super) problem: Option<String>,
    pub(super) needs_restart: Vec<String>,
    pub(super) reloads: u64,
    pub(super) rejected: u64,
    /// The file's content as it was read last.
    pub(super) content: Option<u64>,
}

impl Control {
    pub(super) fn new(
        config: Config,
        source: Option<ConfigSource>,
        settings: toml::Table,
        defined: Defined,
        store: Option<Arc<StateStore>>,
        journal: Option<Journal>,
    ) -> Self {
        Self {
            defined: RwLock::new(defined),
            config: RwLock::new(Arc::new(config)),
            source,
            written: Mutex::default(),
            settings: Mutex::new(settings),
            store,
            journal,
            changing: Arc::default(),
            turns: Turns::default(),
            tasks: TaskTracker::new(),
            users: RwLock::default(),
            status: Mutex::new(LastReload { loaded: Some(WallTime::now()), ..LastReload::default() }),
            failed: Mutex::default(),
            changed: Arc::default(),
        }
    }

    /// Writes changes to the database. Nothing has changed if it fails.
    pub(super) async fn remember(
        &self,
        changes: Vec<StateChange>,
        revision: u64,
    ) -> Result<(), ManagerError> {
        let Some(store) = self.store.clone().filter(|_| !changes.is_empty()) else { return Ok(()) };
        let done = tokio::task::spawn_blocking(move || store.apply(&changes, revision)).await;
        done.unwrap_or(Err(StateError::Gone))?;
        self.changed.notify_one();
        Ok(())
    }

    /// Renews the database's copy some time after each change, and at the end.
    pub(super) async fn keep_copy(store: Arc<StateStore>, changed: Arc<Notify>, cancel: CancellationToken) {
        loop {
            if cancel.run_until_cancelled(changed.notified()).await.is_none() {
                return;
            }
            let ended = cancel.run_until_cancelled(tokio::time::sleep(COPY_DELAY)).await.is_none();
            let copied = store.clone();
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || copied.copy()).await {
                tracing::warn!(%error, "the database of streams and settings cannot be copied");
            }
            if ended {
                return;
            }
        }
    }
}

/// One at a time for each stream.
#[derive(Clone, Default)]
pub(super) struct Turns {
    map: Arc<Mutex<HashMap<StreamId, Arc<tokio::sync::Mutex<()>>>>>,
}

pub(super) struct Turn {
    turns: Turns,
    id: StreamId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    pub(super) async fn take(&self, id: &StreamId) -> Turn {
        let lock = self.map.lock().entry(id.clone()).or_default().clone();
        Turn { turns: self.clone(), id: id.clone(), guard: Some(lock.lock_owned().await) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut map = self.turns.map.lock();
        self.guard = None;
        // Whoever waits for it has a handle of its own.
        if map.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            map.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_taken_one_after_the_other_and_forgotten() {
        let turns = Turns::default();
        let (a, b): (StreamId, StreamId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = turns.take(&a).await;
        let _other = turns.take(&b).await;
        let second = tokio::spawn({
            let (turns, a) = (turns.clone(), a.clone());
            async move { turns.take(&a).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        drop(second.await.unwrap());
        assert_eq!(turns.map.lock().len(), 1);
    }
}
