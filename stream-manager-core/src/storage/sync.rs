//! When data reaches the disk for good: one thread per disk that calls `fdatasync` on each open file in turn.
//!
//! Every file is visited once per interval. The visits are spread evenly over the interval, so a hundred
//! recordings never sync at the same moment, and a disk that cannot keep up makes the interval longer
//! instead of holding up writes; [`SyncStats::behind`] shows by how much. A file whose sync fails is marked:
//! the kernel may have dropped its data, so its writer must not go on as if nothing had happened.

use super::StorageError;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Requests that may wait for the thread.
const QUEUE_LENGTH: usize = 1024;
/// The fractional part of the golden ratio: its multiples are spread evenly over an interval however many
/// there are.
const SPREAD: f64 = 0.618_033_988_749_895;

/// How often what is written is made to reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Whenever the operating system likes.
    Off,
    /// With every part.
    EveryPart,
    /// Once in this time.
    Interval(Duration),
}

impl Default for SyncPolicy {
    /// Once a second.
    fn default() -> Self {
        Self::Interval(Duration::from_secs(1))
    }
}

/// A file as the writer and the sync thread share it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) dirty: AtomicBool,
    pub(super) failed: Mutex<Option<std::io::Error>>,
    pub(super) closed: AtomicBool,
    /// Written by somebody else, so nobody says when there is something to sync.
    pub(super) foreign: bool,
    /// How much of it is written.
    pub(super) bytes: AtomicU64,
    /// A write has failed; nothing more is written.
    pub(super) broken: AtomicBool,
}

impl Shared {
    pub(super) fn sync(&self, counters: &Counters) -> Result<(), StorageError> {
        // Before the call, so that what is written during it counts as not synced.
        self.dirty.store(self.foreign, Ordering::Release);
        let started = Instant::now();
        let result = self.file.sync_data();
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        counters.slowest_nanos.fetch_max(nanos(started.elapsed()), Ordering::Relaxed);
        // A pipe or a device that knows no syncing.
        let result =
            result.or_else(|e| if e.kind() == std::io::ErrorKind::InvalidInput { Ok(()) } else { Err(e) });
        result.map_err(|error| {
            let kind = error.raw_os_error();
            *self.failed.lock() = Some(error);
            let source =
                kind.map_or_else(|| std::io::Error::other("sync failed"), std::io::Error::from_raw_os_error);
            StorageError::Io { path: self.path.display().to_string(), source }
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    syncs: AtomicU64,
    slowest_nanos: AtomicU64,
    behind_nanos: AtomicU64,
}

/// What a disk's sync thread has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncStats {
    /// Calls of `fdatasync` and `fsync`.
    pub syncs: u64,
    /// The slowest since this was last asked for.
    pub slowest: Duration,
    /// How far the thread is behind its schedule.
    pub behind: Duration,
}

type Job = Box<dyn FnOnce(&Counters) + Send>;

enum Request {
    /// Visit this file once per interval until it is closed.
    Watch(Arc<Shared>, Duration),
    Run(Job),
}

/// The handle to a disk's sync thread.
#[derive(Clone, Debug)]
pub(super) struct Syncer {
    requests: SyncSender<Request>,
    pub(super) counters: Arc<Counters>,
}

impl Syncer {
    pub(super) fn start() -> Result<Self, StorageError> {
        let (requests, receiver) = sync_channel(QUEUE_LENGTH);
        let counters = Arc::new(Counters::default());
        let shared = counters.clone();
        std::thread::Builder::new()
            .name("disk-sync".into())
            .spawn(move || run(&receiver, &shared))
            .map_err(|e| StorageError::Threads(e.to_string()))?;
        Ok(Self { requests, counters })
    }

    /// Watches a file. If the thread is too busy to take it, the file is still synced when it is finished.
    pub(super) fn watch(&self, file: &Arc<Shared>, interval: Duration) {
        if self.requests.try_send(Request::Watch(file.clone(), interval)).is_err() {
            tracing::warn!(path = %file.path.display(), "the sync thread is too busy; a file is only synced at its end");
        }
    }

    /// Runs a job on the thread. `None` if it cannot take one.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Counters) -> T + Send + 'static,
    ) -> Option<oneshot::Receiver<T>> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |counters| {
            // Nobody may be waiting; the work was still to be done.
            let _ = answer.send(job(counters));
        });
        self.requests.try_send(Request::Run(job)).ok().map(|()| wait)
    }

    pub(super) fn stats(&self) -> SyncStats {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        SyncStats {
            syncs: load(&self.counters.syncs),
            slowest: Duration::from_nanos(self.counters.slowest_nanos.swap(0, Ordering::Relaxed)),
            behind: Duration::from_nanos(load(&self.counters.behind_nanos)),
        }
    }
}

fn run(requests: &Receiver<Request>, counters: &Counters) {
    // By the time of the next visit; the number keeps equal times apart.
    let mut visits: BTreeMap<(Instant, u64), (Arc<Shared>, Duration)> = BTreeMap::new();
    let mut number = 0u64;
    loop {
        let due = visits.first_key_value().map(|((at, _), _)| *at);
        let request = match due {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => requests.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match request {
            Ok(Request::Watch(file, interval)) => {
                number += 1;
                let phase = (number as f64 * SPREAD).fract();
                visits.insert((Instant::now() + interval.mul_f64(phase), number), (file, interval));
            }
            Ok(Request::Run(job)) => job(counters),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        let behind = due.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        counters.behind_nanos.store(nanos(behind), Ordering::Relaxed);
        // One visit at a time, so that requests never wait for more than one sync.
        if let Some(entry) = visits.first_entry()
            && entry.key().0 <= now
        {
            let ((at, number), (file, interval)) = entry.remove_entry();
            if file.closed.load(Ordering::Acquire) {
                continue;
            }
            if file.dirty.load(Ordering::Acquire)
                && let Err(error) = file.sync(counters)
            {
                tracing::warn!(%error, "data could not be made safe on disk");
                continue;
            }
            // A thread that is behind does not try to make up for the visits that it has missed.
            visits.insert(((at + interval).max(Instant::now()), number), (file, interval));
        }
    }
}
