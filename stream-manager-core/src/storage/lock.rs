//! One process a data folder.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The lock's file name.
const NAME: &str = "lock";

/// Held for as long as a process uses a data folder. The system lets go of it however the process ends.
#[derive(Debug)]
pub struct DataLock {
    /// Keeping it open keeps the lock.
    _file: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process uses it.
    #[error("{folder} is in use by process {pid}; stop that one first, or choose another data_dir")]
    Taken {
        /// The folder.
        folder: PathBuf,
        /// The other process.
        pid: String,
    },
    /// The folder cannot be made or written to.
    #[error("data_dir {folder}: {source}")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl DataLock {
    /// Takes the lock, making the folder if need be. Blocks for a moment at most.
    ///
    /// # Errors
    /// If another process has it, or the folder cannot be used.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { folder: folder.to_owned(), source };
        if !folder.is_dir() {
            std::fs::create_dir_all(folder).map_err(failed)?;
            let path = std::path::absolute(folder).map_err(failed)?;
            // A file system that cannot make a name safe has said so for itself.
            if let Err(error) = super::place::sync_names(&path, None) {
                tracing::warn!(%error, "a new folder could not be made safe on disk");
            }
        }
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(folder.join(NAME)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // For the message only.
                let _ = file.read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() { "(unknown)".into() } else { pid.trim().to_owned() };
                return Err(LockError::Taken { folder: folder.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        // A full disk must not keep the server from starting: the number is for people.
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataLock::take(folder.path()).unwrap();
        let error = DataLock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        DataLock::take(folder.path()).unwrap();
    }
}
