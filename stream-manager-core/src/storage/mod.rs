//! The disk: a few threads that do all writing, so that no async thread ever waits for a disk.
//!
//! A [`DiskPool`] has a fixed number of lanes, each a thread with a bounded queue. A file belongs to one
//! lane for as long as it is open, so its writes stay in order; many files share a lane, so a hundred
//! recordings need no hundred threads. A lane whose disk is slow makes its own callers wait and no one else.
//! Beside the lanes each pool has one thread that makes data reach the disk for good ([`SyncPolicy`]).
//!
//! What has been recorded is in the [`index`]: a database beside the files, which can be made anew from
//! them. [`retention`] removes what is too old or too much; [`repair`] puts right what a crash has left.
//! What was seen is in another one, [`objects`].

mod file;
pub mod index;
pub mod journal;
mod keeper;
mod lock;
mod name;
pub mod objects;
mod place;
pub(crate) mod private;
pub mod repair;
pub mod retention;
pub mod space;
pub mod state;
mod sync;

pub(crate) use file::write_all;
pub use file::{Appending, Chunks, SegmentFile, WatchedFile};
pub use keeper::{Directory, DirectoryState, Keeper, StorageState};
pub use lock::{DataLock, LockError};
pub use name::{parse_segment_name, segment_name};
pub use place::{MARKER, Place};
pub use sync::{SyncPolicy, SyncStats};

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use sync::Syncer;
use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait in a lane.
const LANE_LENGTH: usize = 64;
/// A disk that has not answered for this long is taken as gone; what was asked of it may still happen.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What goes wrong with storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// There is a file where a folder should be.
    #[error("{path} is a file; expected a folder, or a path where one can be made")]
    NotAFolder {
        /// The path.
        path: String,
    },
    /// The folder is there, but empty: its disk is not mounted.
    #[error(
        "{path} has lost its marker file {MARKER}: its disk does not seem to be mounted. If the folder is right, run stream-manager fsck --repair"
    )]
    Vanished {
        /// The folder.
        path: String,
    },
    /// A link leads out of the recordings folder.
    #[error(
        "{path} is a link that leads out of {place}; to record elsewhere, configure another recordings folder"
    )]
    LeadsOut {
        /// The link.
        path: String,
        /// The recordings folder.
        place: String,
    },
    /// The disk has not answered for a long time.
    #[error("{path}: the disk does not answer")]
    Stalled {
        /// The file, if one was asked for.
        path: String,
    },
    /// The disk threads could not be started, or are gone.
    #[error("the disk threads are gone: {0}")]
    Threads(String),
}

impl StorageError {
    /// For use in `map_err`.
    pub(crate) fn at(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.display().to_string(), source }
    }

    /// Whether there is no room left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads that write to one disk. Clones share them; they end when the last clone is gone.
#[derive(Clone, Debug)]
pub struct DiskPool {
    lanes: Arc<[mpsc::Sender<Job>]>,
    next: Arc<AtomicUsize>,
    syncer: Syncer,
    counters: Arc<WriteCounters>,
    busy: Busy,
}

/// Since when each lane has been at its present job.
type Busy = Arc<[parking_lot::Mutex<Option<Instant>>]>;

/// One of a pool's lanes.
#[derive(Clone, Debug)]
pub struct Lane {
    sender: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct WriteCounters {
    writes: AtomicU64,
    bytes: AtomicU64,
    slowest_nanos: AtomicU64,
    sync: Arc<sync::Counters>,
    /// Writes are refused half way.
    #[cfg(test)]
    full: std::sync::atomic::AtomicBool,
}

impl WriteCounters {
    fn wrote(&self, bytes: u64, took: Duration) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.slowest_nanos.fetch_max(nanos, Ordering::Relaxed);
    }
}

/// What a pool has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Parts written.
    pub writes: u64,
    /// Bytes written.
    pub bytes: u64,
    /// The slowest write since this was last asked for.
    pub slowest_write: Duration,
    /// For how long the job has run that has run longest.
    pub running: Duration,
    /// Jobs waiting, over all lanes.
    pub queued: usize,
    /// What the sync thread has done.
    pub sync: SyncStats,
}

impl DiskPool {
    /// Starts `threads` disk threads and one that syncs.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn new(threads: usize) -> Result<Self, StorageError> {
        let mut lanes = Vec::new();
        let busy: Busy = (0..threads.max(1)).map(|_| parking_lot::Mutex::new(None)).collect();
        for number in 0..threads.max(1) {
            let (sender, mut receiver) = mpsc::channel::<Job>(LANE_LENGTH);
            let busy = busy.clone();
            std::thread::Builder::new()
                .name(format!("disk-{number}"))
                .spawn(move || {
                    while let Some(job) = receiver.blocking_recv() {
                        *busy[number].lock() = Some(Instant::now());
                        job();
                        *busy[number].lock() = None;
                    }
                })
                .map_err(|e| StorageError::Threads(e.to_string()))?;
            lanes.push(sender);
        }
        let syncer = Syncer::start()?;
        let counters = Arc::new(WriteCounters {
            writes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            slowest_nanos: AtomicU64::new(0),
            sync: syncer.counters.clone(),
            #[cfg(test)]
            full: std::sync::atomic::AtomicBool::new(false),
        });
        Ok(Self { lanes: lanes.into(), next: Arc::default(), syncer, counters, busy })
    }

    /// A lane for a new file, in turn.
    pub fn lane(&self) -> Lane {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        Lane { sender: self.lanes[index].clone() }
    }

    /// Whether both are handles to the same threads.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lanes, &other.lanes)
    }

    /// Jobs waiting, over all lanes.
    pub fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| LANE_LENGTH - lane.capacity()).sum()
    }

    /// What it has done. The slowest times are those since the last call.
    pub fn stats(&self) -> DiskStats {
        DiskStats {
            writes: self.counters.writes.load(Ordering::Relaxed),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            slowest_write: Duration::from_nanos(self.counters.slowest_nanos.swap(0, Ordering::Relaxed)),
            running: self
                .busy
                .iter()
                .filter_map(|since| since.lock().map(|at| at.elapsed()))
                .max()
                .unwrap_or_default(),
            queued: self.queued(),
            sync: self.syncer.stats(),
        }
    }

    /// Syncs a file that somebody else writes. Opens it, which blocks for a moment.
    pub fn watch(&self, path: &std::path::Path, policy: SyncPolicy) -> WatchedFile {
        WatchedFile::new(self, path, policy)
    }

    /// Runs a small job after all that the sync thread has been asked to do so far, or at once if that thread
    /// is too busy.
    pub fn in_order(&self, job: impl FnOnce() + Send + 'static) {
        let job = Arc::new(parking_lot::Mutex::new(Some(job)));
        let queued = job.clone();
        let run = move || {
            let job = queued.lock().take();
            if let Some(job) = job {
                job();
            }
        };
        if self.syncer.run(move |_| run()).is_none()
            && let Some(job) = job.lock().take()
        {
            job();
        }
    }

    /// Waits until the sync thread has done all that it has been asked to do so far: what it told the index is on
    /// its way there.
    pub async fn caught_up(&self) {
        let (done, wait) = oneshot::channel();
        self.in_order(move || {
            let _ = done.send(());
        });
        // A thread that went away has nothing left to do.
        let _ = wait.await;
    }

    /// Makes the disk full, or not.
    #[cfg(test)]
    pub(crate) fn set_full(&self, full: bool) {
        self.counters.full.store(full, Ordering::SeqCst);
    }

    fn syncer(&self) -> &Syncer {
        &self.syncer
    }

    fn counters(&self) -> Arc<WriteCounters> {
        self.counters.clone()
    }
}

impl Lane {
    /// Runs a job on the lane's thread and waits for its answer. A job whose caller goes away is done all
    /// the same.
    ///
    /// # Errors
    /// If the lane's thread is gone, or the disk does not answer in time.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StorageError> {
        self.run_within(STALL_TIMEOUT, job).await
    }

    /// The same with a time limit of one's own.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_within<T: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StorageError> {
        let gone = || StorageError::Threads("a disk thread has ended".into());
        let stalled = || StorageError::Stalled { path: "storage".into() };
        let exchange = async { self.submit(job).await?.await.map_err(|_| gone()) };
        tokio::time::timeout(limit, exchange).await.map_err(|_| stalled())?
    }

    /// Hands in a job without waiting for its answer.
    ///
    /// # Errors
    /// If the lane's thread is gone, or takes no more jobs for a long time.
    pub async fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, StorageError> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody may be waiting any more; the work was still to be done.
            let _ = answer.send(job());
        });
        let sent = tokio::time::timeout(STALL_TIMEOUT, self.sender.send(job)).await;
        match sent {
            Ok(Ok(())) => Ok(wait),
            Ok(Err(_)) => Err(StorageError::Threads("a disk thread has ended".into())),
            Err(_) => Err(StorageError::Stalled { path: "storage".into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_keeps_order_and_lanes_share_the_work() {
        let pool = DiskPool::new(2).unwrap();
        let (a, b) = (pool.lane(), pool.lane());
        let name = || std::thread::current().name().map(str::to_owned);
        assert_eq!(a.run(name).await.unwrap().as_deref(), Some("disk-0"));
        assert_eq!(b.run(name).await.unwrap().as_deref(), Some("disk-1"));
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        for n in 0..100 {
            let seen = seen.clone();
            a.run(move || seen.lock().push(n)).await.unwrap();
        }
        assert_eq!(*seen.lock(), (0..100).collect::<Vec<_>>());
    }
}
