//! Backups: streams, settings, users, the index of recordings and the recordings themselves, and back from them.
//!
//! [`make`] copies the databases as they are at one moment each, also beside a running server (SQLite's `VACUUM INTO`), writes them
//! with the configuration file into a gzipped tar, encrypted if there are [`Recipients`], reads that again whole, and only then gives it
//! its name. Recordings are too many for an archive: their files are copied into a folder beside it, where those of the last backup are
//! already, and the archive lists them. [`verify`] looks at an archive. [`restore`] does that first, and changes nothing unless
//! everything is right and no server runs on the folder; what was there before is put aside.
//!
//! ```
//! use stream_manager_core::backup::{BackupOptions, Identities, RestoreOptions, make, restore, verify};
//! # let folder = tempfile::tempdir().unwrap();
//! # let (data, file) = (folder.path().join("data"), folder.path().join("backup.tar.gz"));
//! # stream_manager_core::auth::Accounts::open(&data).unwrap();
//! make(&BackupOptions::new(&data, &file)).unwrap();
//! assert_eq!(verify(&file, &Identities::default()).unwrap().files.len(), 1);
//! restore(&RestoreOptions::new(&file, folder.path().join("elsewhere")), &Identities::default()).unwrap();
//! ```

mod archive;
mod crypt;
mod make;
mod mirror;
mod restore;

pub use archive::{config_of, verify};
pub use crypt::{Identities, Recipients};
pub use make::{BackupOptions, Made, Progress, make, make_telling};
pub use mirror::{Copied, forget, sweep};
pub use restore::{RestoreOptions, RestoreReport, restore};

use crate::frame::WallTime;
use crate::storage::index::FILE_NAME as INDEX;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What an archive calls itself.
const KIND: &str = "stream-manager-backup";
/// The newest form that is known.
const FORMAT: u32 = 1;
/// The manifest's name, which comes first.
const MANIFEST: &str = "manifest.json";
/// The configuration file's name in an archive.
const CONFIG: &str = "config.toml";
/// The name of the list of recordings in an archive.
const RECORDINGS: &str = "recordings.jsonl";

/// What a backup is of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Include {
    /// The configuration file.
    Config,
    /// Streams and settings made through the API, users, tokens, the audit log.
    State,
    /// The index of recordings. Without it, a server makes it anew from the files.
    Index,
    /// The recordings.
    Recordings,
}

impl Include {
    /// Everything but the recordings.
    pub const USUAL: [Self; 3] = [Self::Config, Self::State, Self::Index];
}

/// What may be in an archive, and the newest version of each database.
fn known() -> [(&'static str, Option<i64>); 6] {
    [
        (CONFIG, None),
        (crate::storage::state::STATE_FILE, Some(crate::storage::state::VERSION)),
        (crate::auth::ACCOUNTS_FILE, Some(crate::auth::ACCOUNTS_VERSION)),
        (INDEX, Some(crate::storage::index::VERSION)),
        (crate::storage::objects::OBJECTS_FILE, Some(crate::storage::objects::VERSION)),
        (RECORDINGS, None),
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
    /// The archive is encrypted, and there is no key.
    #[error("{0}: it is encrypted; expected the file with the key to it (--identity)")]
    Encrypted(PathBuf),
    /// A key does not fit, or is none.
    #[error("{path}: {problem}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is too little room.
    #[error(
        "{path}: there is no room for it: it takes {wanted} bytes, and {free} are free beside what storage.min_free keeps"
    )]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// What it takes.
        wanted: u64,
        /// What is free.
        free: u64,
    },
    /// A disk cannot be looked at.
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
    /// Somebody has given it up.
    #[error("it was given up")]
    GivenUp,
    /// A server runs on the folder.
    #[error(transparent)]
    InUse(#[from] crate::storage::LockError),
}

impl BackupError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| {
            if source.get_ref().is_some_and(|inner| inner.is::<archive::GivenUp>()) {
                return Self::GivenUp;
            }
            Self::Io { path, source }
        }
    }
}

/// A path with something behind its last name.
fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The folder that a file lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether there is room for so much in a folder, beside what is to be kept free.
fn check_room(folder: &Path, wanted: u64, keep_free_bytes: u64) -> Result<(), BackupError> {
    let space = crate::storage::space::space(folder)?;
    let free = space.free_bytes.saturating_sub(keep_free_bytes);
    if free > 0 && free >= wanted {
        return Ok(());
    }
    Err(BackupError::NoRoom { path: folder.to_owned(), wanted, free })
}

/// A folder of one's own, which goes with this.
struct Staging(PathBuf);

impl Staging {
    fn new(beside: &Path) -> Result<Self, BackupError> {
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
