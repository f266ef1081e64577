//! A segment file that is written in whole parts.

use super::{Lane, StorageError};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The pieces of one write, in order.
pub type Chunks = Vec<Bytes>;

/// The most pieces one `writev` takes (`IOV_MAX` on Linux).
const MAX_SLICES: usize = 1024;

/// An open segment file, tied to its lane.
#[derive(Debug)]
pub struct SegmentFile {
    lane: Lane,
    path: PathBuf,
    /// Away only while a job of the lane has it.
    file: Option<File>,
    bytes: u64,
}

impl SegmentFile {
    /// Creates the file and the folders it lies in.
    ///
    /// # Errors
    /// If it exists already (unless `overwrite`), or cannot be created.
    pub async fn create(lane: Lane, path: PathBuf, overwrite: bool) -> Result<Self, StorageError> {
        let target = path.clone();
        let file = lane.run(move || open(&target, overwrite)).await??;
        Ok(Self { lane, path, file: Some(file), bytes: 0 })
    }

    /// Appends the chunks with as few system calls as possible. If that fails, what was written of them is
    /// cut off again, so that the file ends with a whole part.
    ///
    /// # Errors
    /// If the disk is full, gone, or read-only.
    pub async fn append(&mut self, chunks: Chunks) -> Result<(), StorageError> {
        let (before, path) = (self.bytes, self.path.clone());
        self.bytes = self
            .with_file(move |file| match write_all(&mut &*file, &chunks) {
                Ok(written) => Ok(before + written),
                Err(error) => {
                    // Best effort: a disk that is gone cannot be tidied.
                    let _ = file.set_len(before);
                    Err(StorageError::at(&path)(error))
                }
            })
            .await?;
        Ok(())
    }

    /// Overwrites bytes at an offset.
    ///
    /// # Errors
    /// If the disk refuses.
    pub async fn patch(&mut self, offset: u64, bytes: [u8; 16]) -> Result<(), StorageError> {
        let path = self.path.clone();
        self.with_file(move |file| file.write_all_at(&bytes, offset).map_err(StorageError::at(&path))).await
    }

    async fn with_file<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&File) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let Some(file) = self.file.take() else {
            return Err(StorageError::Threads("an earlier write was given up".into()));
        };
        let (file, result) = self
            .lane
            .run(move || {
                let result = job(&file);
                (file, result)
            })
            .await?;
        self.file = Some(file);
        result
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is.
    pub fn len_bytes(&self) -> u64 {
        self.bytes
    }

    /// Removes it, for a file that holds nothing.
    pub async fn remove(mut self) {
        let path = self.path.clone();
        self.file = None;
        let remove = move || match std::fs::symlink_metadata(&path) {
            // Never a device that somebody has given as output.
            Ok(meta) if meta.is_file() => std::fs::remove_file(&path),
            _ => Ok(()),
        };
        // It may be gone already, with its disk.
        let _ = self.lane.run(remove).await;
    }
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
        let lane = DiskPool::new(1).unwrap().lane();
        let mut file = SegmentFile::create(lane.clone(), path.clone(), false).await.unwrap();
        file.append(vec![Bytes::from_static(b"part"), Bytes::new(), Bytes::from_static(b"!")]).await.unwrap();
        assert_eq!(file.len_bytes(), 5);
        let error = SegmentFile::create(lane, path.clone(), false).await.unwrap_err();
        assert!(error.to_string().contains("exists"), "{error}");
        assert_eq!(std::fs::read(path).unwrap(), b"part!");
    }

    #[tokio::test]
    async fn a_full_disk_is_told_apart() {
        let lane = DiskPool::new(1).unwrap().lane();
        let mut file = SegmentFile::create(lane, "/dev/full".into(), true).await.unwrap();
        let error = file.append(vec![Bytes::from_static(b"x")]).await.unwrap_err();
        assert!(error.is_full(), "{error}");
    }
}
