//! Whether everything is well: what stands in the way, component by component, and whether the runtime turns.
//!
//! [`LoopWatch`] lets a task wake up once a second and remembers how late it was. A thread of its own looks at that: where the runtime
//! is stuck, no task could say so.

use crate::frame::WallTime;
use crate::manager::StreamManager;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the loop is to turn.
const TICK: Duration = Duration::from_secs(1);
/// A loop that has not turned for this long is stuck.
const STUCK: Duration = Duration::from_secs(10);
/// For how long the worst delay is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// As it should be.
    Ok,
    /// It works, but not as it should.
    Degraded,
    /// It does not work.
    Failing,
}

/// A part of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Component {
    /// What it is: `runtime`, `index`, `storage`, `configuration`, `streams`.
    pub name: String,
    /// How it is.
    pub status: HealthStatus,
    /// Why, in words; none if all is well.
    pub reason: Option<String>,
}

/// How the server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HealthReport {
    /// As well as the worst component that others cannot do without.
    pub status: HealthStatus,
    /// Its parts.
    pub components: Vec<Component>,
}

fn component(name: impl Into<String>, status: HealthStatus, reason: Option<String>) -> Component {
    Component { name: name.into(), status, reason }
}

/// Looks at everything. A disk or a camera in trouble is [`Degraded`](HealthStatus::Degraded): the rest goes on, and starting the
/// process anew would help nobody.
pub fn report(manager: &StreamManager, watch: Option<&LoopWatch>) -> HealthReport {
    use HealthStatus::{Degraded, Failing, Ok};
    let mut components = Vec::new();
    let mut add = |name: &str, problem: Option<(HealthStatus, String)>| {
        let (status, reason) = problem.map_or((Ok, None), |(status, reason)| (status, Some(reason)));
        components.push(component(name, status, reason));
    };
    let shut_down = manager.is_shut_down().then(|| (Failing, "the server is shutting down".to_owned()));
    add("manager", shut_down);
    if let Some(watch) = watch {
        let stuck = watch.silence().filter(|silence| *silence >= STUCK);
        add(
            "runtime",
            stuck.map(|silence| (Failing, format!("no task has run for {} s", silence.as_secs()))),
        );
    }
    let status = manager.config_status();
    add(
        "configuration",
        status.problem.map(|problem| (Degraded, format!("the last one was refused: {problem}"))),
    );
    let storage = manager.storage_state();
    for directory in &storage.directories {
        let problem = directory.problem.clone().or_else(|| directory.slow.clone());
        add(&format!("storage/{}", directory.name), problem.map(|problem| (Degraded, problem)));
    }
    if !storage.unmet.is_empty() {
        let reasons: Vec<&str> = storage.unmet.values().map(String::as_str).collect();
        add("retention", Some((Degraded, reasons.join("; "))));
    }
    add("backups", manager.backup_status().problem.map(|problem| (Degraded, problem)));
    let (failing, wanted) = manager.failing_streams();
    let shown: Vec<&str> = failing.iter().take(10).map(String::as_str).collect();
    let some = (!failing.is_empty()).then(|| {
        let more = if failing.len() > shown.len() { ", …" } else { "" };
        (Degraded, format!("{} of {wanted} do not run: {}{more}", failing.len(), shown.join(", ")))
    });
    add("streams", some);
    let status = components.iter().map(|c| c.status).max().unwrap_or(Ok);
    HealthReport { status, components }
}

/// Whether tasks run when they should.
#[derive(Debug)]
pub struct LoopWatch {
    turned: Mutex<Instant>,
    /// The worst delays, and when they were.
    worst: Mutex<Vec<(Instant, Duration)>>,
    ended: AtomicBool,
}

impl LoopWatch {
    /// Starts a task and a thread that watch, until `cancel`. The task is to be awaited after that.
    pub fn start(cancel: CancellationToken) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let watch = Arc::new(Self {
            turned: Mutex::new(Instant::now()),
            worst: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let own = watch.clone();
        let task = tokio::spawn(async move {
            own.turn(&cancel).await;
            own.ended.store(true, Ordering::Relaxed);
        });
        let own = Arc::downgrade(&watch);
        let looking = std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let mut was_stuck = false;
            loop {
                std::thread::sleep(TICK);
                let Some(watch) = own.upgrade().filter(|watch| !watch.ended.load(Ordering::Relaxed)) else {
                    return;
                };
                let silence = watch.silence().unwrap_or_default();
                let is_stuck = silence >= STUCK;
                if is_stuck && !was_stuck {
                    tracing::error!(secs = silence.as_secs(), "the runtime is stuck: no task has run");
                } else if was_stuck && !is_stuck {
                    tracing::warn!("the runtime runs again");
                }
                was_stuck = is_stuck;
            }
        });
        if let Err(error) = looking {
            tracing::error!(%error, "there is no thread to watch the runtime");
        }
        (watch, task)
    }

    async fn turn(&self, cancel: &CancellationToken) {
        loop {
            let due = Instant::now() + TICK;
            if cancel.run_until_cancelled(tokio::time::sleep_until(due.into())).await.is_none() {
                return;
            }
            let now = Instant::now();
            *self.turned.lock() = now;
            let mut worst = self.worst.lock();
            worst.retain(|(at, _)| now.duration_since(*at) < REMEMBERED);
            worst.push((now, now.saturating_duration_since(due)));
        }
    }

    /// How long ago the loop turned; none if it is not watched any more.
    pub fn silence(&self) -> Option<Duration> {
        (!self.ended.load(Ordering::Relaxed)).then(|| self.turned.lock().elapsed())
    }

    /// The most that a task was late within the last ten seconds.
    pub fn delay(&self) -> Duration {
        self.worst.lock().iter().map(|(_, delay)| *delay).max().unwrap_or_default()
    }

    /// Whether the loop turns.
    pub fn is_turning(&self) -> bool {
        self.silence().is_some_and(|silence| silence < STUCK)
    }
}

/// One stream, for whoever balances between servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StreamHealth {
    /// How it is.
    pub status: HealthStatus,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    pub since: Option<WallTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_runtime_is_seen_from_outside() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let cancel = CancellationToken::new();
        let (watch, task) = runtime.block_on(async { LoopWatch::start(cancel.clone()) });
        let wait = |what: &str, holds: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !holds() {
                assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        wait("it turns", &|| !watch.worst.lock().is_empty());
        // The only worker is blocked.
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        runtime.spawn(async move {
            let _ = blocked.recv();
        });
        wait("it does not turn", &|| watch.silence().unwrap() > TICK * 3);
        release.send(()).unwrap();
        wait("it turns again", &|| watch.silence().unwrap() < TICK && watch.delay() > TICK);
        cancel.cancel();
        runtime.block_on(task).unwrap();
        assert!(watch.silence().is_none() && !watch.is_turning());
    }
}
