//! How much room a file system has.

use super::StorageError;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file system's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Space {
    /// Its size.
    pub total_bytes: u64,
    /// What this process may still write.
    pub free_bytes: u64,
}

/// Asks the file system that a path lies on. Blocks.
///
/// # Errors
/// If it is gone.
pub fn space(path: &Path) -> Result<Space, StorageError> {
    let found = rustix::fs::statvfs(path).map_err(|e| StorageError::at(path)(e.into()))?;
    Ok(Space { total_bytes: found.f_frsize * found.f_blocks, free_bytes: found.f_frsize * found.f_bavail })
}

/// What tells file systems apart; `None` if the path is not there. Blocks.
pub fn device(path: &Path) -> Option<u64> {
    // The nearest folder that exists tells on which disk it would be made.
    path.ancestors()
        .find_map(|p| std::fs::metadata(if p.as_os_str().is_empty() { Path::new(".") } else { p }).ok())
        .map(|m| m.dev())
}

/// Room to be kept free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MinFree {
    /// This many bytes.
    Bytes(u64),
    /// This part of the file system, in per cent.
    Percent(f64),
}

impl MinFree {
    /// In bytes, on a file system of this size.
    pub fn bytes(self, total_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (total_bytes as f64 * percent / 100.0) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_room() {
        let here = space(Path::new("/")).unwrap();
        assert!(here.total_bytes > 0 && here.free_bytes <= here.total_bytes);
        assert!(space(Path::new("/no/such/folder")).is_err());
        assert_eq!(device(Path::new("/no/such/folder")), device(Path::new("/")));
        assert_eq!(MinFree::Percent(10.0).bytes(1000), 100);
    }
}
