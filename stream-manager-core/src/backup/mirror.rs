//! Recordings in a backup: copies of their files in a folder beside the archives, which all backups there share.
//!
//! A finished segment never changes, so one that the last backup had is not copied again. Each backup has a list, one line of JSON for
//! each file, in the archive and beside it, always in the same order: lists are read line by line beside each other, so that a
//! million of files take no memory.

use super::archive::{self, Telling};
use super::{BackupError, Identities, Recipients, check_room, folder_of, with_end};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Component, Path, PathBuf};

/// The folder's name.
const MIRROR: &str = "recordings";
/// How the names of lists beside archives end.
const LIST_END: &str = ".recordings.jsonl";
/// A line of a list is not longer.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// How often it is looked whether there is room.
const LOOK_EVERY_BYTES: u64 = 64 << 20;

/// Where the list of an archive is.
pub(super) fn list_of(archive: &Path) -> PathBuf {
    with_end(archive, LIST_END)
}

/// A file of a recording, by its place in its folder for recordings.
#[derive(Serialize, Deserialize)]
struct Entry {
    directory: String,
    folder: String,
    name: String,
    bytes: u64,
    sha256: String,
}

impl Entry {
    /// What lists are sorted by.
    fn key(&self) -> (&str, &str, &str) {
        (&self.directory, &self.folder, &self.name)
    }

    /// Its place below the folder's; none if it leads elsewhere.
    fn place(&self) -> Option<PathBuf> {
        let normal = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let path = Path::new(&self.folder).join(&self.name);
        (normal(Path::new(&self.directory)) && normal(&path) && !self.name.is_empty()).then_some(path)
    }

    /// Its copy in a mirror.
    fn copy(&self, mirror: &Path, encrypted: bool) -> Option<PathBuf> {
        let path = mirror.join(&self.directory).join(self.place()?);
        Some(if encrypted { with_end(&path, ".age") } else { path })
    }
}

/// Reads a list, line by line.
struct List {
    from: BufReader<File>,
    path: PathBuf,
}

impl List {
    fn open(path: &Path) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::io(path))?;
        Ok(Self { from: BufReader::new(file), path: path.to_owned() })
    }

    fn next(&mut self) -> Result<Option<Entry>, BackupError> {
        let mut line = String::new();
        let read = std::io::Read::take(&mut self.from, MAX_LINE_BYTES).read_line(&mut line);
        read.map_err(BackupError::io(&self.path))?;
        if line.is_empty() {
            return Ok(None);
        }
        let damaged = |problem: String| BackupError::Damaged { path: self.path.clone(), problem };
        let entry: Entry = serde_json::from_str(&line).map_err(|e| damaged(format!("its list: {e}")))?;
        if entry.place().is_none() {
            return Err(damaged("its list names a file that lies elsewhere".into()));
        }
        Ok(Some(entry))
    }
}

/// Several lists, read beside each other.
struct Lists(Vec<(List, Option<Entry>)>);

impl Lists {
    fn open(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, BackupError> {
        let read = |path: PathBuf| -> Result<_, BackupError> {
            let mut list = List::open(&path)?;
            let first = list.next()?;
            Ok((list, first))
        };
        Ok(Self(paths.into_iter().map(read).collect::<Result<_, _>>()?))
    }

    /// What one of them says of a file. Files have to be asked for in the order of lists.
    fn find(&mut self, wanted: &Entry) -> Result<Option<&Entry>, BackupError> {
        let mut found = None;
        for (list, head) in &mut self.0 {
            while head.as_ref().is_some_and(|head| head.key() < wanted.key()) {
                *head = list.next()?;
            }
            found = found.or(head.as_ref().filter(|head| head.key() == wanted.key()));
        }
        Ok(found)
    }
}

/// What became of the recordings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Copied {
    /// Files that belong to the backup.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Of these, files that had to be copied.
    pub new_files: u64,
    /// Their size.
    pub new_bytes: u64,
}

pub(super) struct Mirror<'a> {
    /// Where the archives are.
    pub(super) folder: &'a Path,
    /// The folders for recordings.
    pub(super) directories: &'a BTreeMap<String, PathBuf>,
    pub(super) recipients: &'a Recipients,
    pub(super) keep_free_bytes: u64,
}

/// A folder of the index, and where it lies.
struct Place {
    id: i64,
    directory: String,
    folder: String,
    path: PathBuf,
}

impl Mirror<'_> {
    /// Copies what an index knows and no other backup here had, and writes the list. `tell` gets what is done and what there is to do.
    /// The list is good as far as it goes, also when this fails.
    pub(super) fn copy(
        &self,
        index: &Path,
        list: &Path,
        tell: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Copied, BackupError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(index, flags).map_err(failed(index))?;
        let places = self.places(&connection).map_err(failed(index))?;
        let mirror = self.folder.join(MIRROR);
        let (mut before, mut total) = (Lists::open(lists(self.folder)?)?, 0u64);
        each(&connection, index, &places, |_, entry| {
            let known = before.find(&entry)?.is_some_and(|known| known.bytes == entry.bytes);
            total += if known { 0 } else { entry.bytes };
            Ok(())
        })?;
        check_room(self.folder, total, self.keep_free_bytes)?;
        let mut before = Lists::open(lists(self.folder)?)?;
        let out = File::create(list).map_err(BackupError::io(list))?;
        let mut out = BufWriter::new(out);
        let (mut copied, mut looked) = (Copied::default(), 0);
        each(&connection, index, &places, |place, mut entry| {
            let Some(copy) = entry.copy(&mirror, !self.recipients.is_empty()) else { return Ok(()) };
            let known = before.find(&entry)?.filter(|known| known.bytes == entry.bytes);
            if let Some(known) = known.filter(|_| copy.is_file()) {
                entry.sha256.clone_from(&known.sha256);
            } else {
                let (done, mut read) = (copied.new_bytes, 0);
                let mut told = |bytes: u64| {
                    read += bytes;
                    tell(done + read, total.max(done + read))
                };
                let made = self.copy_file(&place.path.join(&entry.name), &copy, &mut told)?;
                // Retention may have been quicker.
                let Some((bytes, sha256)) = made else { return Ok(()) };
                (entry.bytes, entry.sha256) = (bytes, sha256);
                (copied.new_files, copied.new_bytes) = (copied.new_files + 1, copied.new_bytes + bytes);
                if copied.new_bytes - looked > LOOK_EVERY_BYTES {
                    looked = copied.new_bytes;
                    check_room(self.folder, 0, self.keep_free_bytes)?;
                }
            }
            (copied.files, copied.bytes) = (copied.files + 1, copied.bytes + entry.bytes);
            let mut line = serde_json::to_vec(&entry).unwrap_or_default();
            line.push(b'\n');
            out.write_all(&line).map_err(BackupError::io(list))
        })?;
        out.flush().map_err(BackupError::io(list))?;
        Ok(copied)
    }

    /// The index' folders that lie in one of those for recordings, in the order of lists.
    fn places(&self, connection: &Connection) -> rusqlite::Result<Vec<Place>> {
        let mut statement = connection.prepare("SELECT id, path FROM folders")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        let mut places = Vec::new();
        for row in rows {
            let (id, path) = row?;
            let path = PathBuf::from(path);
            let inside = |(name, root): (&String, &PathBuf)| {
                let folder = path.strip_prefix(root).ok()?.to_str()?.to_owned();
                Some((name.clone(), folder))
            };
            // The innermost, if one lies in another.
            let found = self.directories.iter().filter_map(inside).min_by_key(|(_, folder)| folder.len());
            match found {
                Some((directory, folder)) => places.push(Place { id, directory, folder, path }),
                None => tracing::warn!(
                    path = %path.display(),
                    "recordings lie in none of the folders for recordings, and are not in the backup"
                ),
            }
        }
        places.sort_by(|a, b| (&a.directory, &a.folder).cmp(&(&b.directory, &b.folder)));
        Ok(places)
    }

    /// Copies one file; none if it is not there. Its size, and its hash.
    fn copy_file(
        &self,
        from: &Path,
        to: &Path,
        told: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<(u64, String)>, BackupError> {
        let source = match File::open(from) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BackupError::io(from)(error)),
        };
        let partial = with_end(to, ".part");
        let written = (|| {
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut out = self.recipients.writer(File::create(&partial)?)?;
            let made = archive::copy_hashing(&mut Telling { from: source, told }, &mut out)?;
            out.finish()?.sync_all()?;
            std::fs::rename(&partial, to)?;
            Ok(made)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        written.map(Some).map_err(BackupError::io(to))
    }
}

fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> BackupError + '_ {
    move |error| BackupError::Database { path: path.to_owned(), problem: error.to_string() }
}

/// Goes through the finished segments of some folders, in the order of lists.
fn each(
    connection: &Connection,
    index: &Path,
    places: &[Place],
    mut act: impl FnMut(&Place, Entry) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let failed = failed(index);
    for place in places {
        let mut rows = connection
            .prepare("SELECT name, bytes FROM segments WHERE folder = ?1 AND state = 1 ORDER BY name")
            .map_err(&failed)?;
        let mut rows = rows.query([place.id]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let entry = Entry {
                directory: place.directory.clone(),
                folder: place.folder.clone(),
                name: row.get(0).map_err(&failed)?,
                bytes: row.get::<_, i64>(1).map_err(&failed)?.unsigned_abs(),
                sha256: String::new(),
            };
            act(place, entry)?;
        }
    }
    Ok(())
}

/// The lists of a folder, by name: those of older backups first.
fn lists(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let mut lists = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(BackupError::io(folder))? {
        let path = entry.map_err(BackupError::io(folder))?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(LIST_END)) {
            lists.push(path);
        }
    }
    lists.sort();
    Ok(lists)
}

/// Takes away what backups that came to nothing have left in a folder, and keeps what others have of it. Blocks.
///
/// # Errors
/// If a file cannot be removed.
pub fn sweep(folder: &Path) -> Result<(), BackupError> {
    for list in lists(folder)? {
        let text = list.as_os_str().to_str().and_then(|text| text.strip_suffix(LIST_END));
        if let Some(archive) = text.map(Path::new).filter(|archive| !archive.exists()) {
            forget(archive)?;
        }
    }
    Ok(())
}

/// Takes a backup away: its archive, its list, and the copies of recordings that no other backup of the folder has. Blocks.
///
/// # Errors
/// If a file cannot be removed.
pub fn forget(archive: &Path) -> Result<(), BackupError> {
    let remove = |path: &Path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BackupError::io(path)(error)),
        _ => Ok(()),
    };
    remove(archive)?;
    let own = list_of(archive);
    if !own.exists() {
        return Ok(());
    }
    let folder = folder_of(archive);
    let mirror = folder.join(MIRROR);
    let mut others = Lists::open(lists(folder)?.into_iter().filter(|path| *path != own))?;
    let mut list = List::open(&own)?;
    while let Some(entry) = list.next()? {
        if others.find(&entry)?.is_none() {
            for copy in [false, true].into_iter().filter_map(|encrypted| entry.copy(&mirror, encrypted)) {
                remove(&copy)?;
            }
        }
    }
    remove(&own)
}

/// Brings recordings back from the mirror beside an archive, into a folder for each directory's name. Gives what it has written there, by its place.
pub(super) fn bring(
    archive: &Path,
    list: &Path,
    keys: &Identities,
    to: impl Fn(&str) -> Option<PathBuf>,
    is_there: impl Fn(&str, &Path) -> bool,
) -> Result<Vec<(String, PathBuf)>, BackupError> {
    let mirror = folder_of(archive).join(MIRROR);
    let mut list = List::open(list)?;
    let mut brought = Vec::new();
    while let Some(entry) = list.next()? {
        let damaged = |path: &Path, problem: &str| BackupError::Damaged {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let Some(place) = entry.place() else { continue };
        if is_there(&entry.directory, &place) {
            continue;
        }
        let Some(target) = to(&entry.directory) else {
            let problem =
                format!("the configuration has no folder for recordings named \"{}\"", entry.directory);
            return Err(damaged(archive, &problem));
        };
        let copy = [false, true].into_iter().filter_map(|encrypted| entry.copy(&mirror, encrypted));
        let Some(copy) = copy.into_iter().find(|copy| copy.is_file()) else {
            return Err(damaged(&mirror.join(&entry.directory).join(&place), "a recording is missing"));
        };
        let target = target.join(&place);
        let mut from = keys.open(&copy)?;
        let made = (|| {
            if let Some(folder) = target.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut out = File::create(&target)?;
            let made = archive::copy_hashing(&mut from, &mut out)?;
            out.sync_all()?;
            Ok(made)
        })();
        let (bytes, sha256) = made.map_err(|error: std::io::Error| match error.kind() {
            // age's word for what was changed.
            std::io::ErrorKind::InvalidData => damaged(&copy, &error.to_string()),
            _ => BackupError::io(&target)(error),
        })?;
        if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
            return Err(damaged(&copy, "it is not what it was"));
        }
        brought.push((entry.directory, place));
    }
    Ok(brought)
}
