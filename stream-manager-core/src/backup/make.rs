//! Making a backup.

use super::archive::{self, Hashing};
use super::mirror::{self, Copied, Mirror};
use super::{BackupError, CONFIG, FORMAT, INDEX, Include, KIND, Manifest, ManifestFile, RECORDINGS, Staging};
use super::{Identities, Recipients, folder_of};
use crate::frame::WallTime;
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait for a server that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// What goes where.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    data_dir: PathBuf,
    output: PathBuf,
    config: Option<PathBuf>,
    include: BTreeSet<Include>,
    directories: BTreeMap<String, PathBuf>,
    recipients: Recipients,
    keep_free_bytes: u64,
    overwrite: bool,
}

impl BackupOptions {
    /// The databases of a data folder, into a file that is not there yet.
    pub fn new(data_dir: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            output: output.into(),
            config: None,
            include: Include::USUAL.into(),
            directories: BTreeMap::new(),
            recipients: Recipients::default(),
            keep_free_bytes: 0,
            overwrite: false,
        }
    }

    /// And this configuration file.
    #[must_use]
    pub fn config(mut self, file: Option<PathBuf>) -> Self {
        self.config = file;
        self
    }

    /// Sets what it is of; everything but the recordings unless told otherwise.
    #[must_use]
    pub fn include(mut self, include: impl IntoIterator<Item = Include>) -> Self {
        self.include = include.into_iter().collect();
        self
    }

    /// The folders for recordings, by name, for a backup that includes them.
    #[must_use]
    pub fn directories(mut self, directories: BTreeMap<String, PathBuf>) -> Self {
        self.directories = directories;
        self
    }

    /// Who alone can read it. Everybody who has the file, if there are none.
    #[must_use]
    pub fn recipients(mut self, recipients: Recipients) -> Self {
        self.recipients = recipients;
        self
    }

    /// How much room it has to leave free.
    #[must_use]
    pub fn keep_free_bytes(mut self, bytes: u64) -> Self {
        self.keep_free_bytes = bytes;
        self
    }

    /// Whether a file of that name is replaced.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What has been copied.
    pub done_bytes: u64,
    /// What there is to copy, as far as known.
    pub total_bytes: u64,
}

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What is in it.
    pub manifest: Manifest,
    /// The archive's size.
    pub bytes: u64,
    /// The archive's SHA-256, hexadecimal.
    pub sha256: String,
    /// The recordings that belong to it, if they do.
    pub recordings: Option<Copied>,
}

/// Makes a backup, also beside a running server, and reads it again. Blocks.
///
/// # Errors
/// If something cannot be read or written; there is no file then, and one that was there before stays as it was.
pub fn make(options: &BackupOptions) -> Result<Made, BackupError> {
    make_telling(options, &mut |_| true)
}

/// The same, telling now and then how far it is. Whoever is told gives it up by answering `false`.
///
/// # Errors
/// As [`make`], and if it was given up.
pub fn make_telling(
    options: &BackupOptions,
    tell: &mut dyn FnMut(Progress) -> bool,
) -> Result<Made, BackupError> {
    let BackupOptions { data_dir, output, include, overwrite, .. } = options;
    if output.exists() && !overwrite {
        return Err(BackupError::Exists(output.clone()));
    }
    let config = options.config.as_ref().filter(|_| include.contains(&Include::Config));
    let wanted = [
        (crate::storage::state::STATE_FILE, Include::State),
        (crate::auth::ACCOUNTS_FILE, Include::State),
        (INDEX, Include::Index),
        (crate::storage::objects::OBJECTS_FILE, Include::Index),
    ];
    let has_index = data_dir.join(INDEX).is_file();
    let with_recordings = include.contains(&Include::Recordings) && has_index;
    let databases: Vec<&str> = wanted
        .into_iter()
        .filter(|(name, part)| include.contains(part) && data_dir.join(name).is_file())
        .map(|(name, _)| name)
        .collect();
    if databases.is_empty() && config.is_none() && !with_recordings {
        return Err(BackupError::Nothing(data_dir.clone()));
    }
    let folder = folder_of(output);
    // Where the archive is to be there is room for it, or it is said at once. What is to be encrypted lies nowhere else as it is.
    let staging = Staging::new(if options.recipients.is_empty() { folder } else { data_dir })?;
    let mut files = Vec::new();
    if let Some(config) = config {
        let copy = staging.0.join(CONFIG);
        let text = std::fs::read(config).map_err(BackupError::io(config))?;
        crate::storage::private::make_private(&copy).map_err(BackupError::io(&copy))?;
        std::fs::write(&copy, text).map_err(BackupError::io(&copy))?;
        files.push(described(CONFIG, &copy)?);
    }
    for name in databases {
        let copy = staging.0.join(name);
        copy_database(&data_dir.join(name), &copy)?;
        files.push(described(name, &copy)?);
    }
    let mut progress = Progress { done_bytes: 0, total_bytes: files.iter().map(|file| file.bytes).sum() };
    let mut recordings = None;
    if with_recordings {
        let index = staging.0.join(INDEX);
        if !index.exists() {
            copy_database(&data_dir.join(INDEX), &index)?;
        }
        let mirror = Mirror {
            folder,
            directories: &options.directories,
            recipients: &options.recipients,
            keep_free_bytes: options.keep_free_bytes,
        };
        let list = staging.0.join(RECORDINGS);
        let mut tell = |done: u64, total: u64| {
            tell(Progress { done_bytes: done, total_bytes: total + progress.total_bytes })
        };
        let copied = mirror.copy(&index, &list, &mut tell).inspect_err(|_| {
            // The next one goes on from there.
            let _ = std::fs::copy(&list, mirror::list_of(output));
        })?;
        (progress.done_bytes, progress.total_bytes) =
            (copied.new_bytes, progress.total_bytes + copied.new_bytes);
        files.push(described(RECORDINGS, &list)?);
        recordings = Some(copied);
    }
    let manifest = Manifest {
        kind: KIND.to_owned(),
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        created: WallTime::now(),
        files,
    };
    let wanted = manifest.files.iter().map(|file| file.bytes).sum();
    super::check_room(folder, wanted, options.keep_free_bytes)?;
    let partial = PartialFile(folder.join(format!(".partial-{}", crate::auth::random_text::<12>())));
    crate::storage::private::make_private(&partial.0).map_err(BackupError::io(&partial.0))?;
    let to = File::options().write(true).open(&partial.0).map_err(BackupError::io(&partial.0))?;
    let mut told = |bytes: u64| {
        progress.done_bytes += bytes;
        tell(progress)
    };
    let written = (|| {
        let to = options.recipients.writer(Hashing::new(to))?;
        let (file, bytes, sha256) = archive::write(to, &manifest, &staging.0, &mut told)?.finish()?.end();
        file.sync_all()?;
        Ok((bytes, sha256))
    })();
    let (bytes, sha256) = written.map_err(BackupError::io(output))?;
    // What was written is what can be read. Without a key to it there is only to see that it is the same.
    if options.recipients.is_empty() {
        archive::verify(&partial.0, &Identities::default())?;
    } else {
        let again = described("", &partial.0)?;
        if (again.bytes, &again.sha256) != (bytes, &sha256) {
            let problem = "what is read is not what was written".to_owned();
            return Err(BackupError::Damaged { path: output.clone(), problem });
        }
    }
    if recordings.is_some() {
        let (from, to) = (staging.0.join(RECORDINGS), mirror::list_of(output));
        std::fs::copy(from, &to).map_err(BackupError::io(&to))?;
    }
    std::fs::rename(&partial.0, output).map_err(BackupError::io(output))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(BackupError::io(folder))?;
    Ok(Made { manifest, bytes, sha256, recordings })
}

/// Goes with this, unless it has another name by then.
struct PartialFile(PathBuf);

impl Drop for PartialFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn described(name: &str, path: &Path) -> Result<ManifestFile, BackupError> {
    let mut file = File::open(path).map_err(BackupError::io(path))?;
    let (bytes, sha256) =
        archive::copy_hashing(&mut file, &mut std::io::sink()).map_err(BackupError::io(path))?;
    Ok(ManifestFile { name: name.to_owned(), bytes, sha256 })
}

/// As it is at one moment, whoever writes meanwhile.
fn copy_database(from: &Path, to: &Path) -> Result<(), BackupError> {
    // An empty file is taken for none; it is nobody else's from the start, and says precisely why it cannot be made.
    crate::storage::private::make_private(to).map_err(BackupError::io(to))?;
    let copy = || -> rusqlite::Result<()> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(from, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.execute("VACUUM INTO ?1", [to.display().to_string()])?;
        Ok(())
    };
    copy().map_err(|error| BackupError::Database { path: from.to_owned(), problem: error.to_string() })
}
