//! The server as a whole: what runs, who is connected, events, hooks, the runtime.

use super::write::{Labels, counter, gauge};
use crate::hooks::HookStatus;
use crate::manager::{BackupStatus, StreamManager, SystemReport};
use crate::session::SessionKind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Server {
    sessions: BTreeMap<(&'static str, &'static str), u64>,
    events: u64,
    events_lost: u64,
    objects: Option<(u64, u64)>,
    hooks: Vec<HookStatus>,
    backups: BackupStatus,
    runtime: Option<(usize, usize, usize)>,
    loop_delay: Option<Duration>,
}

impl Server {
    pub(super) fn of(
        manager: &StreamManager,
        hooks: Vec<HookStatus>,
        system: Option<SystemReport>,
        loop_delay: Option<Duration>,
    ) -> Self {
        let mut sessions = BTreeMap::new();
        manager.sessions().for_each(|session| {
            let kind = match session.kind {
                SessionKind::Reader => "reader",
                SessionKind::Publisher => "publisher",
            };
            *sessions.entry((session.protocol, kind)).or_default() += 1;
        });
        let runtime = tokio::runtime::Handle::try_current().ok().map(|handle| {
            let metrics = handle.metrics();
            (metrics.num_workers(), metrics.num_alive_tasks(), metrics.global_queue_depth())
        });
        let events = manager.events().last_id();
        let events_lost = system.map_or(0, |system| system.events_lost);
        let objects = manager.objects().ok().map(|store| (store.waiting(), store.lost()));
        let backups = manager.backup_status();
        Self { sessions, events, events_lost, objects, hooks, backups, runtime, loop_delay }
    }

    fn hooks<T>(&self, value: impl Fn(&HookStatus) -> T) -> Vec<(Labels, T)> {
        self.hooks
            .iter()
            .map(|hook| (vec![("hook", hook.name.clone()), ("kind", hook.kind.to_owned())], value(hook)))
            .collect()
    }
}

impl Collector for Server {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauge(out, "build_info", "What runs; always 1", vec![(version, 1.0)])?;
        let sessions = self.sessions.iter().map(|((protocol, kind), count)| {
            (vec![("protocol", (*protocol).to_owned()), ("kind", (*kind).to_owned())], *count as f64)
        });
        gauge(out, "sessions", "Who reads and who publishes", sessions.collect())?;
        counter(out, "events", "Events that have happened, over all runs", vec![(Vec::new(), self.events)])?;
        let lost = vec![(Vec::new(), self.events_lost)];
        counter(out, "events_lost", "Events that could not be written into the journal", lost)?;
        let of_store = |value: fn((u64, u64)) -> u64| -> Vec<(Labels, u64)> {
            self.objects.iter().map(|of| (Vec::new(), value(*of))).collect()
        };
        let waiting = of_store(|(waiting, _)| waiting).into_iter().map(|(l, n)| (l, n as f64)).collect();
        gauge(out, "objects_waiting", "What was seen and waits to be written", waiting)?;
        counter(out, "objects_lost", "What was seen and could not be kept", of_store(|(_, lost)| lost))?;
        counter(out, "hook_done", "Times that a hook was carried out", self.hooks(|h| h.done))?;
        counter(out, "hook_failed", "Attempts of a hook that failed", self.hooks(|h| h.failed))?;
        counter(out, "hook_given_up", "Events that a hook was given up for", self.hooks(|h| h.given_up))?;
        gauge(out, "hook_behind_events", "Events that wait for a hook", self.hooks(|h| h.behind as f64))?;
        let newest = |value: fn(&(crate::frame::WallTime, u64)) -> f64| {
            self.backups.newest.iter().map(|newest| (Vec::new(), value(newest))).collect()
        };
        gauge(
            out,
            "backup_timestamp_seconds",
            "When the newest backup was made",
            newest(|(at, _)| at.as_unix_nanos() as f64 / 1e9),
        )?;
        gauge(out, "backup_size_bytes", "The size of the newest backup", newest(|(_, bytes)| *bytes as f64))?;
        counter(out, "backups", "Backups made since the start", vec![(Vec::new(), self.backups.made)])?;
        let failures = vec![(Vec::new(), self.backups.failures)];
        counter(out, "backups_failed", "Backups that could not be made since the start", failures)?;
        if let Some((workers, tasks, queued)) = self.runtime {
            let one = |value: usize| vec![(Vec::new(), value as f64)];
            gauge(out, "runtime_workers", "Threads that tasks run on", one(workers))?;
            gauge(out, "runtime_tasks", "Tasks that there are", one(tasks))?;
            gauge(out, "runtime_queued_tasks", "Tasks that wait for a thread", one(queued))?;
        }
        let delay = self.loop_delay.map(|delay| (Vec::new(), delay.as_secs_f64()));
        gauge(
            out,
            "runtime_loop_delay_seconds",
            "How much later than it should a task ran, at most within the last ten seconds",
            delay.into_iter().collect(),
        )
    }
}
