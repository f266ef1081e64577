//! Back from a backup.

use super::{
    BackupError, CONFIG, Identities, Manifest, RECORDINGS, Staging, archive, known, mirror, with_end,
};
use crate::frame::WallTime;
use crate::storage::DataLock;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What goes where.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    archive: PathBuf,
    data_dir: PathBuf,
    config: Option<PathBuf>,
    directories: Option<BTreeMap<String, PathBuf>>,
    overwrite: bool,
}

impl RestoreOptions {
    /// The databases of an archive, into a data folder that has none.
    pub fn new(archive: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            archive: archive.into(),
            data_dir: data_dir.into(),
            config: None,
            directories: None,
            overwrite: false,
        }
    }

    /// And the recordings, if it has any, from the folder beside the archive into these folders for recordings, by name.
    #[must_use]
    pub fn directories(mut self, directories: Option<BTreeMap<String, PathBuf>>) -> Self {
        self.directories = directories;
        self
    }

    /// And the configuration file, to there.
    #[must_use]
    pub fn config(mut self, file: Option<PathBuf>) -> Self {
        self.config = file;
        self
    }

    /// Whether what is there is replaced; it is put aside.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// The archive's own words.
    pub manifest: Manifest,
    /// What there is now.
    pub restored: Vec<PathBuf>,
    /// How many files of recordings were brought back. One that was there already is left as it was.
    pub recordings: u64,
    /// Where that is which was there before, if there was anything.
    pub put_aside: Option<PathBuf>,
}

/// Restores a backup: verified first, all or nothing. Blocks.
///
/// # Errors
/// If the archive is foreign, damaged or too new, a server runs on the folder, there is something already that is not to be replaced, or
/// something cannot be written. Nothing has changed then.
pub fn restore(options: &RestoreOptions, keys: &Identities) -> Result<RestoreReport, BackupError> {
    let RestoreOptions { archive: path, data_dir, config, directories, overwrite } = options;
    // Before anything is touched or even made.
    let manifest = archive::verify(path, keys)?;
    let target = |name: &str| match (name, config) {
        (CONFIG, Some(config)) => Some(config.clone()),
        (CONFIG, None) | (RECORDINGS, _) => None,
        (name, _) => Some(data_dir.join(name)),
    };
    let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    let there = names.iter().filter_map(|name| target(name)).find(|path| path.exists());
    if let Some(there) = there.filter(|_| !overwrite) {
        return Err(BackupError::Exists(there));
    }
    let _lock = DataLock::take(data_dir)?;
    let staging = Staging::new(data_dir)?;
    archive::read(path, keys, |name, content| {
        let (to, mut content) = (staging.0.join(name), content);
        crate::storage::private::make_private(&to).map_err(BackupError::io(&to))?;
        let mut file = File::options().write(true).open(&to).map_err(BackupError::io(&to))?;
        let copied = archive::copy_hashing(&mut content, &mut file).map_err(BackupError::io(&to))?;
        file.sync_all().map_err(BackupError::io(&to))?;
        Ok(copied)
    })?;
    for (name, newest) in known() {
        if let Some(newest) = newest.filter(|_| names.contains(&name)) {
            check_database(path, &staging.0.join(name), name, newest, &manifest)?;
        }
    }
    let recordings = match directories {
        Some(directories) if names.contains(&RECORDINGS) => {
            Some(Recordings::bring(path, &staging.0.join(RECORDINGS), keys, directories)?)
        }
        _ => None,
    };
    let moment = WallTime::now().format_utc("%Y-%m-%dT%H-%M-%SZ");
    let aside = data_dir.join(format!("before-restore-{moment}"));
    let mut moves = Moves::default();
    let done = (|| {
        for name in &names {
            let Some(target) = target(name) else { continue };
            // A database's other files belong to the one before.
            for rest in ["", "-wal", "-shm", ".copy"] {
                let old = with_end(&target, rest);
                if old.exists() {
                    std::fs::create_dir_all(&aside).map_err(BackupError::io(&aside))?;
                    moves.rename(&old, &aside.join(format!("{name}{rest}")))?;
                }
            }
            if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).map_err(BackupError::io(folder))?;
            }
            moves.rename(&staging.0.join(name), &target)?;
        }
        if let Some(recordings) = &recordings {
            recordings.put(&mut moves)?;
        }
        File::open(data_dir).and_then(|folder| folder.sync_all()).map_err(BackupError::io(data_dir))
    })();
    if let Err(error) = done {
        moves.undo();
        let _ = std::fs::remove_dir(&aside);
        return Err(error);
    }
    let restored = names.iter().filter_map(|name| target(name)).collect();
    let put_aside = Some(aside).filter(|aside| aside.is_dir());
    let recordings = recordings.map_or(0, |recordings| recordings.brought.len() as u64);
    Ok(RestoreReport { manifest, restored, recordings, put_aside })
}

/// Recordings that have been brought, each into a folder beside where it belongs.
struct Recordings<'a> {
    directories: &'a BTreeMap<String, PathBuf>,
    staging: BTreeMap<&'a str, Staging>,
    brought: Vec<(String, PathBuf)>,
}

impl<'a> Recordings<'a> {
    fn bring(
        archive: &Path,
        list: &Path,
        keys: &Identities,
        directories: &'a BTreeMap<String, PathBuf>,
    ) -> Result<Self, BackupError> {
        let mut staging = BTreeMap::new();
        for (name, folder) in directories {
            std::fs::create_dir_all(folder).map_err(BackupError::io(folder))?;
            staging.insert(name.as_str(), Staging::new(folder)?);
        }
        let to = |name: &str| staging.get(name).map(|staging| staging.0.clone());
        let is_there = |name: &str, place: &Path| {
            directories.get(name).is_some_and(|directory| directory.join(place).exists())
        };
        let brought = mirror::bring(archive, list, keys, to, is_there)?;
        Ok(Self { directories, staging, brought })
    }

    fn put(&self, moves: &mut Moves) -> Result<(), BackupError> {
        for (name, place) in &self.brought {
            let (Some(from), Some(to)) =
                (self.staging.get(name.as_str()), self.directories.get(name.as_str()))
            else {
                continue;
            };
            let to = to.join(place);
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder).map_err(BackupError::io(folder))?;
            }
            moves.rename(&from.0.join(place), &to)?;
        }
        Ok(())
    }
}

/// Whether a database is whole, and of a version that is known.
fn check_database(
    archive: &Path,
    path: &Path,
    name: &str,
    newest: i64,
    manifest: &Manifest,
) -> Result<(), BackupError> {
    let look = || -> rusqlite::Result<(i64, String)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((version, connection.pragma_query_value(None, "quick_check", |row| row.get(0))?))
    };
    let damaged = |problem: String| BackupError::Damaged {
        path: archive.to_owned(),
        problem: format!("{name}: {problem}"),
    };
    let (version, sound) = look().map_err(|error| damaged(error.to_string()))?;
    if version > newest {
        return Err(BackupError::TooNew { path: archive.to_owned(), version: manifest.version.clone() });
    }
    if sound != "ok" { Err(damaged(sound)) } else { Ok(()) }
}

/// Files that were given other names, in their order.
#[derive(Default)]
struct Moves(Vec<(PathBuf, PathBuf)>);

impl Moves {
    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), BackupError> {
        let moved = std::fs::rename(from, to).or_else(|error| {
            // The configuration may lie on another disk.
            if error.kind() != std::io::ErrorKind::CrossesDevices {
                return Err(error);
            }
            std::fs::copy(from, to)?;
            File::open(to)?.sync_all()?;
            std::fs::remove_file(from)
        });
        moved.map_err(BackupError::io(to))?;
        self.0.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn undo(self) {
        for (from, to) in self.0.into_iter().rev() {
            if let Err(error) = std::fs::rename(&to, &from) {
                tracing::error!(%error, from = %to.display(), to = %from.display(), "a file could not be put back");
            }
        }
    }
}
