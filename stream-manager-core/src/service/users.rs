//! The users: one list for all protocols, from the configuration and the accounts.

use crate::auth::{Accounts, SetupCode, Users};
use crate::config::Config;
use crate::manager::ConfigUser;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether `stream-manager user` has changed something.
const REFRESH: Duration = Duration::from_secs(1);
/// How often it is written down when tokens were used.
const WRITE_USE: u32 = 60;

pub(super) struct ConfiguredUsers {
    list: Arc<Users>,
    setup: Arc<SetupCode>,
    cancel: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ConfiguredUsers {
    /// The users that a configuration names, and the accounts of its data folder.
    pub(super) async fn open(config: &Config) -> Result<Arc<Self>, String> {
        let data_dir = config.storage.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Accounts::open(&data_dir)).await;
        let accounts = Arc::new(opened.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?);
        let list = Arc::new(Users::with(&config.auth.options()?, Some(accounts.clone()))?);
        let cancel = CancellationToken::new();
        let task = Mutex::new(Some(tokio::spawn(keep(accounts, cancel.clone()))));
        Ok(Arc::new(Self { list, setup: Arc::default(), cancel, task }))
    }

    /// The list, which changes when the configuration does.
    pub(super) fn list(&self) -> Arc<Users> {
        self.list.clone()
    }

    /// What makes the first user.
    pub(super) fn setup(&self) -> Arc<SetupCode> {
        self.setup.clone()
    }

    /// Lets go of the database.
    pub(super) async fn stop(&self) {
        self.cancel.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // It ends at once but for a write that takes a moment.
            let _ = task.await;
        }
    }
}

impl Drop for ConfiguredUsers {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Takes over what other processes write, and writes down which tokens are used.
async fn keep(accounts: Arc<Accounts>, cancel: CancellationToken) {
    let mut tick = tokio::time::interval(REFRESH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticks = 0u32;
    loop {
        let ends = cancel.run_until_cancelled(tick.tick()).await.is_none();
        ticks = ticks.wrapping_add(1);
        let writes = ends || ticks.is_multiple_of(WRITE_USE);
        let accounts = accounts.clone();
        let done = tokio::task::spawn_blocking(move || {
            let changed = accounts.refresh()?;
            if writes { accounts.write_use().map(|()| changed) } else { Ok(changed) }
        });
        match done.await {
            Ok(Ok(true)) => tracing::info!("users or tokens were changed by another program"),
            Ok(Err(error)) => {
                tracing::error!(%error, "the users cannot be read; what is known of them stays")
            }
            _ => {}
        }
        if ends {
            return;
        }
    }
}

#[async_trait::async_trait]
impl ConfigUser for ConfiguredUsers {
    async fn change(&self, _: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        self.list.replace(&new.auth.options()?)
    }
}
