//! Making a backup.

use super::{BackupError, CONFIG, FORMAT, INDEX, KIND, Manifest, ManifestFile, Staging, archive};
use crate::frame::WallTime;
use rusqlite::{Connection, OpenFlags};
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
    index: bool,
    overwrite: bool,
}

impl BackupOptions {
    /// The databases of a data folder, into a file that is not there yet.
    pub fn new(data_dir: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), output: output.into(), config: None, index: true, overwrite: false }
    }

    /// And this configuration file.
    #[must_use]
    pub fn config(mut self, file: Option<PathBuf>) -> Self {
        self.config = file;
        self
    }

    /// Whether the index of recordings is in it (it is, unless told otherwise). Without it, a server makes it anew from the files.
    #[must_use]
    pub fn index(mut self, index: bool) -> Self {
        self.index = index;
        self
    }

    /// Whether a file of that name is replaced.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }
}

/// Makes a backup, also beside a running server, and reads it again. Blocks.
///
/// # Errors
/// If something cannot be read or written; there is no file then, and one that was there before stays as it was.
pub fn make(options: &BackupOptions) -> Result<Manifest, BackupError> {
    let BackupOptions { data_dir, output, config, index, overwrite } = options;
    if output.exists() && !overwrite {
        return Err(BackupError::Exists(output.clone()));
    }
    let databases = [crate::storage::state::STATE_FILE, crate::auth::ACCOUNTS_FILE, INDEX];
    let databases: Vec<&str> = databases
        .into_iter()
        .filter(|name| *index || *name != INDEX)
        .filter(|name| data_dir.join(name).is_file())
        .collect();
    if databases.is_empty() && config.is_none() {
        return Err(BackupError::Nothing(data_dir.clone()));
    }
    // Where the archive is to be there is room for it, or it is said at once.
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staging = Staging::new(folder)?;
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
    let manifest = Manifest {
        kind: KIND.to_owned(),
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        created: WallTime::now(),
        files,
    };
    let partial = staging.0.join("archive");
    crate::storage::private::make_private(&partial).map_err(BackupError::io(&partial))?;
    let to = File::options().write(true).open(&partial).map_err(BackupError::io(&partial))?;
    archive::write(to, &manifest, &staging.0).map_err(BackupError::io(output))?;
    // What was written is what can be read.
    archive::verify(&partial)?;
    std::fs::rename(&partial, output).map_err(BackupError::io(output))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(BackupError::io(folder))?;
    Ok(manifest)
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
