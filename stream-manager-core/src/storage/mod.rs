//! The disk: a few threads that do all writing, so that no async thread ever waits for a disk.
//!
//! A [`DiskPool`] has a fixed number of lanes, each a thread with a bounded queue. A file belongs to one
//! lane for as long as it is open, so its writes stay in order; many files share a lane, so a hundred
//! recordings need no hundred threads. A lane whose disk is slow makes its own callers wait and no one else.

mod file;

pub(crate) use file::write_all;
pub use file::{Chunks, SegmentFile};

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait in a lane.
const LANE_LENGTH: usize = 64;

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

/// The threads that write. Clones share them; they end when the last clone is gone.
#[derive(Clone, Debug)]
pub struct DiskPool {
    lanes: Arc<[mpsc::Sender<Job>]>,
    next: Arc<AtomicUsize>,
}

/// One of a pool's lanes.
#[derive(Clone, Debug)]
pub struct Lane {
    sender: mpsc::Sender<Job>,
}

impl DiskPool {
    /// Starts `threads` disk threads.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn new(threads: usize) -> Result<Self, StorageError> {
        let mut lanes = Vec::new();
        for number in 0..threads.max(1) {
            let (sender, mut receiver) = mpsc::channel::<Job>(LANE_LENGTH);
            std::thread::Builder::new()
                .name(format!("disk-{number}"))
                .spawn(move || {
                    while let Some(job) = receiver.blocking_recv() {
                        job();
                    }
                })
                .map_err(|e| StorageError::Threads(e.to_string()))?;
            lanes.push(sender);
        }
        Ok(Self { lanes: lanes.into(), next: Arc::default() })
    }

    /// A lane for a new file, in turn.
    pub fn lane(&self) -> Lane {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        Lane { sender: self.lanes[index].clone() }
    }

    /// Jobs waiting, over all lanes.
    pub fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| LANE_LENGTH - lane.capacity()).sum()
    }
}

impl Lane {
    /// Runs a job on the lane's thread and waits for its answer. A job whose caller goes away is done all
    /// the same.
    ///
    /// # Errors
    /// If the lane's thread is gone.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StorageError> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody may be waiting any more; the work was still to be done.
            let _ = answer.send(job());
        });
        let gone = || StorageError::Threads("a disk thread has ended".into());
        self.sender.send(job).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())
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
