//! Telling systemd how the server is (`sd_notify(3)`): that it is ready, reloads, stops, what it does, and that its loop turns.
//!
//! Without `NOTIFY_SOCKET`, which systemd sets for `Type=notify`, nothing is told to anybody.

use crate::event::{RecordingState, StreamState};
use crate::health::LoopWatch;
use crate::manager::{StreamFilter, StreamManager, StreamOrder};
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is told what the server does.
const STATUS_EVERY: Duration = Duration::from_secs(10);

fn tell(states: &[NotifyState<'_>]) {
    // A datagram to a socket on this machine; it does not wait.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// Takes over the listeners that systemd has opened for us (`sd_listen_fds(3)`).
pub(super) fn take_listeners() {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut given = listenfd::ListenFd::from_env();
    let mut names = names.split(':');
    let mut taken = Vec::new();
    for index in 0..given.len() {
        let name = names.next().unwrap_or_default().to_owned();
        match given.take_tcp_listener(index) {
            Ok(Some(listener)) => {
                let address = listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
                tracing::info!(name, address, "systemd listens for us");
                taken.push((name, listener));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(name, %error, "a socket of systemd's is no TCP listener, and is not used")
            }
        }
    }
    crate::tcp::inherit(taken);
}

/// It is up.
pub(super) fn ready(manager: &StreamManager) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status(manager))]);
}

/// It reads its configuration again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// It ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: finishing recordings")]);
}

/// In a line.
fn status(manager: &StreamManager) -> String {
    let infos = manager.infos(&StreamFilter::default(), StreamOrder::Id, false);
    let running = infos.iter().filter(|info| info.state() == StreamState::Running).count();
    let recording = infos.iter().filter_map(crate::manager::StreamInfo::status);
    let recording = recording.filter(|status| status.recording.state == RecordingState::Recording).count();
    let sessions = manager.sessions().len();
    format!("{running} of {} streams run, {recording} are recorded, {sessions} sessions", infos.len())
}

/// Tells what the server does, and, as long as its loop turns, that it is alive. Until `cancel`.
pub(super) async fn keep_telling(manager: StreamManager, watch: Arc<LoopWatch>, cancel: CancellationToken) {
    // Twice as often as systemd wants to hear it.
    let every = sd_notify::watchdog_enabled().map_or(STATUS_EVERY, |limit| (limit / 2).min(STATUS_EVERY));
    loop {
        if cancel.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
            return;
        }
        let text = status(&manager);
        if watch.is_turning() {
            tell(&[NotifyState::Watchdog, NotifyState::Status(&text)]);
        } else {
            tell(&[NotifyState::Status(&text)]);
        }
    }
}
