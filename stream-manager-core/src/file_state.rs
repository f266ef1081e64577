//! Whether a file is still the same: looked at now and then, which works on every file system and whatever an editor does.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What tells one state of a file from another; a file that is not there has one, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileState(Option<(i64, i64, u64, u64)>);

impl FileState {
    /// As it is now. Blocks for a moment.
    pub(crate) fn of(path: &Path) -> Self {
        let look = |metadata: std::fs::Metadata| {
            (metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino())
        };
        Self(std::fs::metadata(path).ok().map(look))
    }

    /// Whether there is a file.
    #[cfg(feature = "http")]
    pub(crate) fn is_there(self) -> bool {
        self.0.is_some()
    }
}
