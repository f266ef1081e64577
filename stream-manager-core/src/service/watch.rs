//! Watching the configuration file.
//!
//! It is looked at once a second, which works on every file system and whatever an editor does. A change counts when the
//! file has been the same for one look, so that half of one is not read.

use crate::file_state::FileState;
use crate::manager::{StreamManager, Trigger};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const INTERVAL: Duration = Duration::from_secs(1);

/// None if it could not be looked at.
async fn look(path: &Path) -> Option<FileState> {
    let path: PathBuf = path.to_owned();
    tokio::task::spawn_blocking(move || FileState::of(&path)).await.ok()
}

/// Whether somebody else has had it read since.
async fn is_known(manager: &StreamManager) -> bool {
    let manager = manager.clone();
    tokio::task::spawn_blocking(move || manager.file_is_known()).await.unwrap_or(false)
}

/// Reads the configuration again whenever its file has changed, until `cancel`.
pub(super) async fn run(manager: &StreamManager, cancel: &CancellationToken) {
    let Some(path) = manager.config_file() else { return cancel.cancelled().await };
    let mut taken = look(&path).await;
    let mut last = taken;
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(tick.tick()).await.is_some() {
        let now = look(&path).await;
        let settled = now == last && now != taken;
        last = now;
        if !settled {
            continue;
        }
        taken = now;
        // A file that is gone is no new configuration.
        if !now.is_some_and(FileState::is_there) {
            tracing::warn!(file = %path.display(), "the configuration file is gone; what it said stays in force");
        } else if manager.config().server.reload_on_change && !is_known(manager).await {
            // What came of it is in the log and an event.
            let _ = manager.reload(Trigger::File).await;
        }
    }
}
