//! A segment file that is written in whole parts.

use super::sync::{Shared, SyncPolicy};
use super::{DiskPool, Lane, Place, StorageError};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::oneshot;

/// The pieces of one write, in order.
pub type Chunks = Vec<Bytes>;

/// The most pieces one `writev` takes (`IOV_MAX` on Linux).
const MAX_SLICES: usize = 1024;

/// An open segment file, tied to its lane. Dropping it closes it; what was appended stays.
#[derive(Debug)]
pub struct SegmentFile {
    pool: DiskPool,
    lane: Lane,
    shared: Arc<Shared>,
    policy: SyncPolicy,
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

impl SegmentFile {
    /// Creates the file and the folders it lies in; inside of a place only if that is ready.
    ///
    /// # Errors
    /// If it exists already (unless `overwrite`), or cannot be created.
    pub async fn create(
        pool: &DiskPool,
        path: PathBuf,
        overwrite: bool,
        policy: SyncPolicy,
        place: Option<Arc<Place>>,
    ) -> Result<Self, StorageError> {
        let lane = pool.lane();
        let target = path.clone();
        let open = move || {
            if let (Some(place), Some(folder)) = (place, target.parent()) {
                place.folder(folder)?;
            }
            open(&target, overwrite)
        };
        let file = lane.run(open).await??;
        let shared = Arc::new(Shared {
            file,
            path,
            dirty: AtomicBool::new(false),
            failed: parking_lot::Mutex::new(None),
            closed: AtomicBool::new(false),
            foreign: false,
            bytes: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        });
        if let SyncPolicy::Interval(interval) = policy {
            pool.syncer().watch(&shared, interval);
        }
        Ok(Self { pool: pool.clone(), lane, shared, policy })
    }

    /// Appends the chunks with as few system calls as possible. If that fails, what was written of them is
    /// cut off again, so that the file ends with a whole part, and nothing more is written.
    ///
    /// # Errors
    /// If the disk is full, gone, or read-only, does not answer, or has failed to keep what was written
    /// earlier.
    pub async fn append(&mut self, chunks: Chunks) -> Result<(), StorageError> {
        self.append_later(chunks).await?.done().await
    }

    /// The same without waiting for it to be done.
    ///
    /// # Errors
    /// If the disk does not answer, or has failed to keep what was written earlier.
    pub async fn append_later(&mut self, chunks: Chunks) -> Result<Appending, StorageError> {
        if let Some(source) = self.shared.failed.lock().take() {
            return Err(StorageError::Io { path: self.shared.path.display().to_string(), source });
        }
        let (shared, every_part) = (self.shared.clone(), self.policy == SyncPolicy::EveryPart);
        let counters = self.pool.counters();
        let path = self.shared.path.clone();
        let job = move || {
            let before = shared.bytes.load(Ordering::Acquire);
            if shared.broken.load(Ordering::Acquire) {
                return Err(StorageError::Stalled { path: shared.path.display().to_string() });
            }
            let started = std::time::Instant::now();
            #[cfg(test)]
            let written = fail_if_full(&counters, &shared.file, &chunks);
            #[cfg(not(test))]
            let written = write_all(&mut &shared.file, &chunks);
            match written {
                Ok(written) => {
                    shared.bytes.store(before + written, Ordering::Release);
                    shared.dirty.store(true, Ordering::Release);
                    counters.wrote(written, started.elapsed());
                }
                Err(error) => {
                    shared.broken.store(true, Ordering::Release);
                    // Best effort: a disk that is gone cannot be tidied.
                    let _ = shared.file.set_len(before);
                    return Err(StorageError::at(&shared.path)(error));
                }
            }
            if every_part { shared.sync(&counters.sync) } else { Ok(()) }
        };
        Ok(Appending { answer: self.lane.submit(job).await?, path })
    }

    /// Makes sure that the file and its name are on the disk, in the background, then calls `then`.
    /// Without syncing by policy, only calls it.
    pub fn settle(&self, then: impl FnOnce() + Send + 'static) {
        let (shared, policy) = (self.shared.clone(), self.policy);
        let queued = self.pool.syncer().run(move |counters| {
            let settled = match policy {
                SyncPolicy::Off => Ok(()),
                _ => shared.sync(counters).and_then(|()| sync_folder(&shared.path)),
            };
            match settled {
                Ok(()) => then(),
                Err(error) => tracing::warn!(%error, "a new file could not be made safe on disk"),
            }
        });
        if queued.is_none() {
            tracing::warn!(path = %self.shared.path.display(), "the sync thread is too busy for a new file");
        }
    }

    /// Finishes the file in the background: overwrites `patch`, makes sure that everything is on the disk,
    /// then calls `then` with how that went. What is returned resolves when it is done.
    ///
    /// # Errors
    /// If the disk's thread is too busy to take it. The receiver gives the disk's own error.
    pub fn finish(
        self,
        patch: Option<(u64, [u8; 16])>,
        then: impl FnOnce(bool) + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<(), StorageError>>, StorageError> {
        let (shared, policy) = (self.shared.clone(), self.policy);
        let busy = StorageError::Stalled { path: shared.path.display().to_string() };
        self.pool
            .syncer()
            .run(move |counters| {
                let write = |(offset, bytes): (u64, [u8; 16])| {
                    shared.file.write_all_at(&bytes, offset).map_err(StorageError::at(&shared.path))
                };
                let written = patch.map_or(Ok(()), write);
                let finished = match policy {
                    SyncPolicy::Off => written,
                    _ => written.and_then(|()| shared.sync(counters)),
                };
                then(finished.is_ok());
                finished
            })
            .ok_or(busy)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// How long it is.
    pub fn len_bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }

    /// Removes it, for a file that holds nothing.
    pub async fn remove(self) {
        let path = self.shared.path.clone();
        let remove = move || match std::fs::symlink_metadata(&path) {
            // Never a device that somebody has given as output.
            Ok(meta) if meta.is_file() => std::fs::remove_file(&path),
            _ => Ok(()),
        };
        // It may be gone already, with its disk.
        let _ = self.lane.run(remove).await;
    }
}

/// A write that is under way.
#[derive(Debug)]
pub struct Appending {
    answer: oneshot::Receiver<Result<(), StorageError>>,
    path: PathBuf,
}

impl Appending {
    /// Waits until it is done.
    ///
    /// # Errors
    /// As [`SegmentFile::append`].
    pub async fn done(self) -> Result<(), StorageError> {
        let stalled = || StorageError::Stalled { path: self.path.display().to_string() };
        let answer = tokio::time::timeout(super::STALL_TIMEOUT, self.answer).await.map_err(|_| stalled())?;
        answer.unwrap_or_else(|_| Err(StorageError::Threads("a disk thread has ended".into())))
    }
}

/// A file that somebody else writes and that is synced by policy all the same. Dropping it ends that.
#[derive(Debug)]
pub struct WatchedFile {
    shared: Option<Arc<Shared>>,
    counters: Arc<super::sync::Counters>,
}

impl WatchedFile {
    pub(super) fn new(pool: &DiskPool, path: &Path, policy: SyncPolicy) -> Self {
        let shared = match (policy, File::open(path)) {
            (SyncPolicy::Off, _) | (_, Err(_)) => None,
            (_, Ok(file)) => Some(Arc::new(Shared {
                file,
                path: path.to_owned(),
                dirty: AtomicBool::new(true),
                failed: parking_lot::Mutex::new(None),
                closed: AtomicBool::new(false),
                foreign: true,
                bytes: AtomicU64::new(0),
                broken: AtomicBool::new(false),
            })),
        };
        if let Some(shared) = &shared {
            let interval = match policy {
                SyncPolicy::Interval(interval) => interval,
                _ => std::time::Duration::from_secs(1),
            };
            pool.syncer().watch(shared, interval);
        }
        Self { shared, counters: pool.counters().sync.clone() }
    }

    /// The file is complete: makes sure that it and its name are on the disk. Blocks.
    pub fn finish(self, policy: SyncPolicy) {
        if let Some(shared) = self.shared.as_ref().filter(|_| policy != SyncPolicy::Off)
            && let Err(error) = shared.sync(&self.counters).and_then(|()| sync_folder(&shared.path))
        {
            tracing::warn!(%error, "a finished file could not be made safe on disk");
        }
    }
}

impl Drop for WatchedFile {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.closed.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
fn fail_if_full(counters: &super::WriteCounters, mut file: &File, chunks: &[Bytes]) -> io::Result<u64> {
    if counters.full.load(Ordering::SeqCst) {
        let half = chunks.len() / 2;
        write_all(&mut file, &chunks[..half])?;
        return Err(io::ErrorKind::StorageFull.into());
    }
    write_all(&mut file, chunks)
}

/// Makes sure that a file's name is on the disk.
fn sync_folder(path: &Path) -> Result<(), StorageError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|f| f.sync_all()).map_err(StorageError::at(folder))
}

fn open(path: &Path, overwrite: bool) -> Result<File, StorageError> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(StorageError::at(folder))?;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    if overwrite {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path).map_err(StorageError::at(path))
}

/// `write_all` for many pieces, with `writev`. Returns the number of bytes written.
pub(crate) fn write_all(out: &mut (impl Write + ?Sized), chunks: &[Bytes]) -> io::Result<u64> {
    let mut total = 0;
    for group in chunks.chunks(MAX_SLICES) {
        let mut slices: Vec<IoSlice<'_>> = group.iter().map(|c| IoSlice::new(c)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0); // leading empty pieces
        while !rest.is_empty() {
            match out.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    total += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::DiskPool;

    /// Takes at most seven bytes at a time.
    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let taken = data.len().min(7);
            self.0.extend_from_slice(&data[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn short_writes_lose_nothing() {
        let chunks: Vec<Bytes> = (0..3000u32)
            .map(|n| Bytes::copy_from_slice(&n.to_be_bytes()[..(n % 5).min(4) as usize]))
            .collect();
        let mut slow = Slow(Vec::new());
        let written = write_all(&mut slow, &chunks).unwrap();
        assert_eq!(slow.0, chunks.concat());
        assert_eq!(written as usize, slow.0.len());
    }

    #[tokio::test]
    async fn an_existing_file_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.mp4");
        let pool = DiskPool::new(1).unwrap();
        let policy = SyncPolicy::default();
        let mut file = SegmentFile::create(&pool, path.clone(), false, policy, None).await.unwrap();
        file.append(vec![Bytes::from_static(b"part"), Bytes::new(), Bytes::from_static(b"!")]).await.unwrap();
        assert_eq!(file.len_bytes(), 5);
        let error = SegmentFile::create(&pool, path.clone(), false, policy, None).await.unwrap_err();
        assert!(error.to_string().contains("exists"), "{error}");
        assert_eq!(std::fs::read(path).unwrap(), b"part!");
    }

    #[tokio::test]
    async fn a_full_disk_is_told_apart() {
        let pool = DiskPool::new(1).unwrap();
        let mut file =
            SegmentFile::create(&pool, "/dev/full".into(), true, SyncPolicy::Off, None).await.unwrap();
        let error = file.append(vec![Bytes::from_static(b"x")]).await.unwrap_err();
        assert!(error.is_full(), "{error}");
    }

    #[tokio::test]
    async fn files_are_synced_in_turn_and_when_they_are_finished() {
        let folder = tempfile::tempdir().unwrap();
        let pool = DiskPool::new(1).unwrap();
        let policy = SyncPolicy::Interval(std::time::Duration::from_millis(20));
        let mut file =
            SegmentFile::create(&pool, folder.path().join("a"), false, policy, None).await.unwrap();
        file.append(vec![Bytes::from_static(b"0123456789")]).await.unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while pool.stats().sync.syncs == 0 {
            assert!(std::time::Instant::now() < deadline, "never synced");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let settled = Arc::new(AtomicBool::new(false));
        let flag = settled.clone();
        let done = file
            .finish(Some((2, *b"ABCDEFGHABCDEFGH")), move |finished| flag.store(finished, Ordering::Release));
        done.unwrap().await.unwrap().unwrap();
        assert!(settled.load(Ordering::Acquire));
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"01ABCDEFGHABCDEFGH");
        assert!(pool.stats().bytes == 10 && pool.stats().writes == 1);
    }
}
