//! Backups: streams, settings, users and the index of recordings in one archive, and back from it.
//!
//! [`make`] copies the databases as they are at one moment each, also beside a running server (SQLite's `VACUUM INTO`), writes them
//! with the configuration file into a gzipped tar, reads that again whole, and only then gives it its name. [`verify`] looks at an
//! archive. [`restore`] does that first, and changes nothing unless everything is right and no server runs on the folder; what was
//! there before is put aside. The recordings themselves are not in it.
//!
//! ```
//! use stream_manager_core::backup::{BackupOptions, RestoreOptions, make, restore, verify};
//! # let folder = tempfile::tempdir().unwrap();
//! # let (data, file) = (folder.path().join("data"), folder.path().join("backup.tar.gz"));
//! # stream_manager_core::auth::Accounts::open(&data).unwrap();
//! make(&BackupOptions::new(&data, &file)).unwrap();
//! assert_eq!(verify(&file).unwrap().files.len(), 1);
//! restore(&RestoreOptions::new(&file, folder.path().join("elsewhere"))).unwrap();
//! ```

mod archive;
mod make;
mod restore;

pub use archive::{config_of, verify};
pub use make::{BackupOptions, make};
pub use restore::{RestoreOptions, RestoreReport, restore};

use crate::frame::WallTime;
use crate::storage::index::FILE_NAME as INDEX;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What an archive calls itself.
const KIND: &str = "stream-manager-backup";
/// The newest form that is known.
const FORMAT: u32 = 1;
/// The manifest's name, which comes first.
const MANIFEST: &str = "manifest.json";
/// The configuration file's name in an archive.
const CONFIG: &str = "config.toml";

/// What may be in an archive, and the newest version of each database.
fn known() -> [(&'static str, Option<i64>); 4] {
    [
        (CONFIG, None),
        (crate::storage::state::STATE_FILE, Some(crate::storage::state::VERSION)),
        (crate::auth::ACCOUNTS_FILE, Some(crate::auth::ACCOUNTS_VERSION)),
        (INDEX, Some(crate::storage::index::VERSION)),
    ]
}

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `stream-manager-backup`.
    pub kind: String,
    /// The form of the archive.
    pub format: u32,
    /// The version of the program that made it.
    pub version: String,
    /// When it was made.
    pub created: WallTime,
    /// What is in it, in this order.
    pub files: Vec<ManifestFile>,
}

/// A file in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// Why nothing was backed up or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A database cannot be copied.
    #[error("{path}: it cannot be copied: {problem}")]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// There is something already.
    #[error("{0} is there already; choose another place, or say that it is to be replaced")]
    Exists(PathBuf),
    /// There is nothing to back up.
    #[error("{0}: there is nothing to back up; expected the data folder of a server")]
    Nothing(PathBuf),
    /// The archive is something else.
    #[error("{path}: it is no backup of Stream Manager: {problem}")]
    Foreign {
        /// The archive.
        path: PathBuf,
        /// How one sees that.
        problem: String,
    },
    /// The archive is not what it was.
    #[error("{path}: it is damaged: {problem}")]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// Where.
        problem: String,
    },
    /// The archive was made by a newer version.
    #[error(
        "{path}: it was made by version {version}, in a form that this program does not know; use a newer version"
    )]
    TooNew {
        /// The archive.
        path: PathBuf,
        /// The program's version.
        version: String,
    },
    /// A server runs on the folder.
    #[error(transparent)]
    InUse(#[from] crate::storage::LockError),
}

impl BackupError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// A folder of one's own, which goes with this.
struct Staging(PathBuf);

impl Staging {
    fn new(beside: &std::path::Path) -> Result<Self, BackupError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = beside.join(format!(".staging-{}", crate::auth::random_text::<12>()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(BackupError::io(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a folder of a backup could not be removed");
        }
    }
}
