//! A folder for recordings, and whether it is the one that it should be.
//!
//! A disk that is not mounted leaves an empty folder behind, and recording into that would fill the wrong
//! disk. So each folder gets a marker file when it is first used; a folder that has been used before and
//! has lost its marker is taken as a disk that has vanished. One that is gone altogether is made anew.

use super::StorageError;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The marker's name.
pub const MARKER: &str = ".stream-manager";
const MARKER_TEXT: &str =
    "Stream Manager records into this folder. It takes the disk as missing if this file is not here.\n";

/// A folder for recordings.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// Whether recordings are known to be in it.
    used: AtomicBool,
}

impl Place {
    /// A folder; `used` says whether it has been recorded to before.
    pub fn new(path: impl Into<PathBuf>, used: bool) -> Self {
        Self { path: path.into(), used: AtomicBool::new(used) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that the folder is there and the right one. Blocks.
    ///
    /// # Errors
    /// If it is not, or cannot be made.
    pub fn ready(&self) -> Result<(), StorageError> {
        let marker = self.path.join(MARKER);
        if marker.is_file() {
            self.used.store(true, Ordering::Relaxed);
            return Ok(());
        }
        match std::fs::metadata(&self.path) {
            Ok(found) if !found.is_dir() => {
                return Err(StorageError::NotAFolder { path: self.path.display().to_string() });
            }
            Ok(_) if self.used.load(Ordering::Relaxed) => {
                return Err(StorageError::Vanished { path: self.path.display().to_string() });
            }
            _ => {}
        }
        self.claim()
    }

    /// Takes the folder as the right one, whatever it looks like. Blocks.
    ///
    /// # Errors
    /// If it cannot be made or written to.
    pub fn claim(&self) -> Result<(), StorageError> {
        std::fs::create_dir_all(&self.path).map_err(StorageError::at(&self.path))?;
        let marker = self.path.join(MARKER);
        std::fs::write(&marker, MARKER_TEXT).map_err(StorageError::at(&marker))?;
        File::open(&marker).and_then(|f| f.sync_all()).map_err(StorageError::at(&marker))?;
        sync_names(&self.path, None)?;
        self.used.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a folder inside and checks that it really lies inside: a link that leads out of it is not
    /// followed. Blocks.
    ///
    /// # Errors
    /// If it does not, or the place is not ready.
    pub fn folder(&self, folder: &Path) -> Result<(), StorageError> {
        self.ready()?;
        let new = !folder.is_dir();
        std::fs::create_dir_all(folder).map_err(|error| match folder.metadata() {
            Ok(found) if !found.is_dir() => StorageError::NotAFolder { path: folder.display().to_string() },
            _ => StorageError::at(folder)(error),
        })?;
        let real = |path: &Path| path.canonicalize().map_err(StorageError::at(path));
        if real(folder)?.starts_with(real(&self.path)?) {
            // A folder's own name has to reach the disk too, or all that is in it is lost with it.
            return if new { sync_names(folder, Some(&self.path)) } else { Ok(()) };
        }
        Err(StorageError::LeadsOut {
            path: folder.display().to_string(),
            place: self.path.display().to_string(),
        })
    }
}

/// Makes the names of a folder and of those that it lies in safe on the disk, up to `top`. Blocks.
pub(super) fn sync_names(folder: &Path, top: Option<&Path>) -> Result<(), StorageError> {
    for path in folder.ancestors().filter(|p| !p.as_os_str().is_empty()) {
        match File::open(path).and_then(|f| f.sync_all()) {
            // A file system without this, or a folder that may not be read: others' names are others' affair.
            Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => {
                return Err(StorageError::at(path)(error));
            }
            _ => {}
        }
        if Some(path) == top {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vanished_disk_is_not_recorded_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("video");
        let place = Place::new(&path, false);
        place.folder(&path.join("cam")).unwrap();
        assert!(path.join(MARKER).is_file());
        // As after an unmount: the folder is there, but empty.
        std::fs::remove_file(path.join(MARKER)).unwrap();
        assert!(matches!(place.ready(), Err(StorageError::Vanished { .. })));
        // As after `rm -r`: begun anew.
        std::fs::remove_dir_all(&path).unwrap();
        place.ready().unwrap();
        assert!(path.join(MARKER).is_file());
    }

    #[test]
    fn files_and_links_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        let error = Place::new(&file, false).ready().unwrap_err();
        assert!(matches!(error, StorageError::NotAFolder { .. }), "{error}");
        let place = Place::new(folder.path().join("video"), false);
        place.ready().unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, place.path().join("cam")).unwrap();
        let error = place.folder(&place.path().join("cam")).unwrap_err();
        assert!(matches!(error, StorageError::LeadsOut { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
    }
}
