//! The database itself: one connection, blocking calls.
//!
//! The server uses it from the index's threads; `fsck` and `stream-manager recordings` use it directly, also
//! beside a running server (SQLite's WAL lets one write while others read).

use super::model::{GapReason, Mark, NewSegment, SegmentEnd, SegmentId};
use super::schema;
use crate::frame::WallTime;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The database's file name in the data folder.
pub const FILE_NAME: &str = "recordings.db";
/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Memory for pages.
const CACHE_KIB: i64 = 2048;

/// Why the index refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The database refuses.
    #[error("the index of recordings {path}: {source}")]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It was written by a newer version of the program.
    #[error(
        "the index of recordings {path} has version {found}; this program knows {known} at most. Use a newer version, or make it anew with stream-manager fsck --rebuild"
    )]
    TooNew {
        /// Its file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It was damaged and could not be put aside.
    #[error("the damaged index of recordings {path} cannot be put aside: {source}")]
    Aside {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its thread is gone or does not answer.
    #[error("the index of recordings does not answer")]
    Gone,
}

impl IndexError {
    /// Whether the database's file is damaged.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Database { source, .. } if is_corrupt(source))
    }
}

pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// A change to the index. Each may be applied again without harm.
#[derive(Clone, Debug)]
pub enum Change {
    /// A segment has begun.
    Begin(NewSegment),
    /// It is complete.
    Finish {
        /// As it began.
        segment: NewSegment,
        /// How it ended.
        end: SegmentEnd,
    },
    /// It holds nothing and is gone.
    Cancel(SegmentId),
    /// Nothing is recorded from here on.
    Interrupt {
        /// The stream.
        stream: Arc<str>,
        /// Since when; `None` if nothing has been recorded since the program began, so since whatever was
        /// recorded last.
        at: Option<WallTime>,
        /// Why.
        reason: GapReason,
    },
    /// Something has happened.
    Mark(Arc<str>, Mark),
    /// Something was seen: what was recorded then may be kept for longer than the rest. With the same start it goes on.
    Keep {
        /// The stream.
        stream: Arc<str>,
        /// Since when.
        start: WallTime,
        /// Until when, as far as is known.
        end: WallTime,
    },
}

/// One connection to the index.
#[derive(Debug)]
pub struct Catalog {
    pub(super) connection: Connection,
    path: PathBuf,
    streams: HashMap<Arc<str>, i64>,
    folders: HashMap<PathBuf, i64>,
    tracks: HashMap<Arc<str>, i64>,
}

impl Catalog {
    /// Opens the index in a data folder, making it if need be.
    ///
    /// # Errors
    /// If it cannot be opened, is damaged, or too new.
    pub fn open(data_dir: &Path) -> Result<Self, IndexError> {
        let path = data_dir.join(FILE_NAME);
        let failed = |source| IndexError::Database { path: path.clone(), source };
        let mut connection = Connection::open(&path).map_err(failed)?;
        prepare(&connection).map_err(failed)?;
        let found = schema::migrate(&mut connection).map_err(failed)?;
        if found > schema::VERSION {
            return Err(IndexError::TooNew { path, found, known: schema::VERSION });
        }
        Ok(Self::with(connection, path))
    }

    /// Opens an index that is there already, for reading.
    ///
    /// # Errors
    /// If it is not there or cannot be read.
    pub fn open_for_reading(data_dir: &Path) -> Result<Self, IndexError> {
        let path = data_dir.join(FILE_NAME);
        let failed = |source| IndexError::Database { path: path.clone(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        // Fails here, with a name, if it is no database.
        let found: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(failed)?;
        if found != schema::VERSION {
            return Err(IndexError::TooNew { path, found, known: schema::VERSION });
        }
        Ok(Self::with(connection, path))
    }

    fn with(connection: Connection, path: PathBuf) -> Self {
        connection.set_prepared_statement_cache_capacity(64);
        Self { connection, path, streams: HashMap::new(), folders: HashMap::new(), tracks: HashMap::new() }
    }

    /// Puts a damaged database aside, with its journal, under a name that says when. Gives the new name.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn put_aside(data_dir: &Path) -> Result<PathBuf, IndexError> {
        let path = data_dir.join(FILE_NAME);
        let stamp = WallTime::now().format_utc("%Y-%m-%dT%H-%M-%S%.3fZ");
        let aside = data_dir.join(format!("{FILE_NAME}.damaged-{stamp}"));
        let failed = |source| IndexError::Aside { path: path.clone(), source };
        std::fs::rename(&path, &aside).map_err(failed)?;
        for journal in ["-wal", "-shm"] {
            let from = data_dir.join(format!("{FILE_NAME}{journal}"));
            if from.exists() {
                std::fs::rename(&from, format!("{}{journal}", aside.display())).map_err(failed)?;
            }
        }
        Ok(aside)
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Wraps the database's own errors.
    pub(super) fn failed(&self) -> impl Fn(rusqlite::Error) -> IndexError + use<> {
        let path = self.path.clone();
        move |source| IndexError::Database { path: path.clone(), source }
    }

    /// A quick look at the whole file for damage. Reads all of it.
    ///
    /// # Errors
    /// If it is damaged or cannot be read.
    pub fn check(&self) -> Result<(), IndexError> {
        let failed = self.failed();
        let verdict: String =
            self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(&failed)?;
        if verdict == "ok" {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        Err(failed(rusqlite::Error::SqliteFailure(code, Some(verdict))))
    }

    /// From now on commits of this connection need not be on the disk to count: for what can be done again.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn relax(&self) -> Result<(), IndexError> {
        self.connection.pragma_update(None, "synchronous", "NORMAL").map_err(self.failed())
    }

    /// The number for the next segment.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn next_id(&self) -> Result<u64, IndexError> {
        let last: Option<i64> = self
            .connection
            .query_row("SELECT max(id) FROM segments", [], |row| row.get(0))
            .map_err(self.failed())?;
        Ok(last.map_or(1, |id| id.unsigned_abs() + 1))
    }

    /// Applies changes in one transaction: all of them, or none if the database refuses.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn apply<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) -> Result<(), IndexError> {
        let failed = self.failed();
        let Self { connection, streams, folders, tracks, .. } = self;
        let result = (|| {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let mut names = Names { transaction: &transaction, streams, folders, tracks };
            for change in changes {
                names.apply(change)?;
            }
            transaction.commit()
        })();
        if result.is_err() {
            // What was remembered may have been rolled back.
            self.streams.clear();
            self.folders.clear();
            self.tracks.clear();
        }
        result.map_err(failed)
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Every commit is on the disk before it counts: the files have been synced before it.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Numbers for names, remembered.
struct Names<'a> {
    transaction: &'a Transaction<'a>,
    streams: &'a mut HashMap<Arc<str>, i64>,
    folders: &'a mut HashMap<PathBuf, i64>,
    tracks: &'a mut HashMap<Arc<str>, i64>,
}

fn number_of(transaction: &Transaction<'_>, table: &str, column: &str, value: &str) -> rusqlite::Result<i64> {
    let find = format!("SELECT id FROM {table} WHERE {column} = ?1");
    let found = transaction.prepare_cached(&find)?.query_row([value], |row| row.get(0)).optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    transaction.prepare_cached(&format!("INSERT INTO {table} ({column}) VALUES (?1)"))?.execute([value])?;
    Ok(transaction.last_insert_rowid())
}

impl Names<'_> {
    fn stream(&mut self, name: &Arc<str>) -> rusqlite::Result<i64> {
        if let Some(id) = self.streams.get(name) {
            return Ok(*id);
        }
        let id = number_of(self.transaction, "streams", "name", name)?;
        self.streams.insert(name.clone(), id);
        Ok(id)
    }

    fn apply(&mut self, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Begin(segment) => self.begin(segment),
            Change::Finish { segment, end } => self.finish(segment, end),
            Change::Cancel(id) => {
                self.transaction
                    .prepare_cached("DELETE FROM segments WHERE id = ?1 AND state = 0")?
                    .execute([id.0 as i64])?;
                Ok(())
            }
            Change::Interrupt { stream, at, reason } => self.interrupt(stream, *at, *reason),
            Change::Keep { stream, start, end } => {
                let stream = self.stream(stream)?;
                self.transaction
                    .prepare_cached(
                        "INSERT INTO keeps (stream, start, end) VALUES (?1,?2,?3) \
                         ON CONFLICT DO UPDATE SET end = max(end, ?3)",
                    )?
                    .execute([stream, start.as_unix_nanos(), end.as_unix_nanos()])?;
                Ok(())
            }
            Change::Mark(stream, mark) => {
                let stream = self.stream(stream)?;
                self.transaction
                    .prepare_cached(
                        "INSERT INTO marks (stream, time, kind, text, json) VALUES (?1,?2,?3,?4,?5)",
                    )?
                    .execute(params![
                        stream,
                        mark.time.as_unix_nanos(),
                        mark.kind,
                        mark.text,
                        mark.data.to_string()
                    ])?;
                Ok(())
            }
        }
    }

    fn begin(&mut self, segment: &NewSegment) -> rusqlite::Result<()> {
        let stream = self.stream(&segment.stream)?;
        let start = segment.start.as_unix_nanos();
        let closed = self.close_gaps(stream, start, segment.lost_frames)?;
        if !closed && !segment.continues {
            self.gap_since_last(stream, start, segment)?;
        }
        self.insert(segment, stream, start, &SegmentEnd::default(), 0)
    }

    /// Ends what gap is open. One that turns out to be none is forgotten.
    fn close_gaps(&self, stream: i64, end: i64, lost_frames: u64) -> rusqlite::Result<bool> {
        let open: Vec<(i64, i64)> = self
            .transaction
            .prepare_cached("SELECT start, id FROM gaps WHERE stream = ?1 AND end IS NULL")?
            .query_map([stream], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (start, id) in &open {
            let sql = if *start >= end && lost_frames == 0 {
                "DELETE FROM gaps WHERE stream = ?1 AND start = ?2 AND id = ?3 AND ?4 = ?4 AND ?5 = ?5"
            } else {
                "UPDATE gaps SET frames = frames + ?4, end = max(start, ?5) WHERE stream = ?1 AND start = ?2 AND id = ?3"
            };
            self.transaction.prepare_cached(sql)?.execute(params![
                stream,
                start,
                id,
                lost_frames as i64,
                end
            ])?;
        }
        Ok(!open.is_empty())
    }

    /// Nobody has said why there is nothing before this segment: a program that is ended properly does.
    fn gap_since_last(&self, stream: i64, start: i64, segment: &NewSegment) -> rusqlite::Result<()> {
        let last: Option<(i64, i64)> = self
            .transaction
            .prepare_cached(
                "SELECT end, state FROM segments WHERE stream = ?1 AND start <= ?2 AND id <> ?3 \
                 ORDER BY start DESC, id DESC LIMIT 1",
            )?
            .query_row(params![stream, start, segment.id.0 as i64], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        // The end of one that was never finished is only known when it has been repaired.
        match last {
            Some((end, 1)) if end + 1_000_000 < start => {
                insert_gap(self.transaction, stream, end, Some(start), GapReason::Killed, segment.lost_frames)
            }
            _ => Ok(()),
        }
    }

    fn insert(
        &mut self,
        segment: &NewSegment,
        stream: i64,
        start: i64,
        end: &SegmentEnd,
        state: i64,
    ) -> rusqlite::Result<()> {
        let folder = match self.folders.get(&segment.folder) {
            Some(id) => *id,
            None => {
                let path = segment.folder.to_string_lossy();
                let id = number_of(self.transaction, "folders", "path", &path)?;
                self.folders.insert(segment.folder.clone(), id);
                id
            }
        };
        let tracks = match self.tracks.get(&segment.tracks) {
            Some(id) => *id,
            None => {
                let id = number_of(self.transaction, "tracks", "json", &segment.tracks)?;
                self.tracks.insert(segment.tracks.clone(), id);
                id
            }
        };
        self.transaction
            .prepare_cached(
                "INSERT INTO segments (stream, start, id, end, media_start, bytes, frames, folder, name, format, \
                 tracks, state, continues) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13) \
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                stream,
                start,
                segment.id.0 as i64,
                start.saturating_add(end.duration_nanos),
                segment.media_start.as_nanos(),
                end.bytes as i64,
                end.frames as i64,
                folder,
                segment.name,
                segment.format,
                tracks,
                state,
                segment.continues
            ])?;
        Ok(())
    }

    fn finish(&mut self, segment: &NewSegment, end: &SegmentEnd) -> rusqlite::Result<()> {
        let stream = self.stream(&segment.stream)?;
        let start = segment.start.as_unix_nanos();
        // The row that was made at its beginning may have been lost to a full disk.
        self.insert(segment, stream, start, &SegmentEnd::default(), 0)?;
        self.transaction
            .prepare_cached(
                "UPDATE segments SET state = 1, end = ?4, bytes = ?5, frames = ?6 \
                 WHERE stream = ?1 AND start = ?2 AND id = ?3 AND state = 0",
            )?
            .execute(params![
                stream,
                start,
                segment.id.0 as i64,
                start.saturating_add(end.duration_nanos),
                end.bytes as i64,
                end.frames as i64
            ])?;
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO parts (segment, data) VALUES (?1, ?2)")?
            .execute(params![segment.id.0 as i64, end.parts.as_bytes()])?;
        Ok(())
    }

    fn interrupt(
        &mut self,
        stream: &Arc<str>,
        at: Option<WallTime>,
        reason: GapReason,
    ) -> rusqlite::Result<()> {
        let stream = self.stream(stream)?;
        let open: bool = self
            .transaction
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM gaps WHERE stream = ?1 AND end IS NULL)")?
            .query_row([stream], |row| row.get(0))?;
        // The first reason counts: a camera that is lost while the disk is full changes nothing.
        if open {
            return Ok(());
        }
        let last: Option<(i64, i64)> = self
            .transaction
            .prepare_cached(
                "SELECT end, state FROM segments WHERE stream = ?1 ORDER BY start DESC, id DESC LIMIT 1",
            )?
            .query_row([stream], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match (last, at) {
            // Before the first segment nothing is missing.
            (None, _) => Ok(()),
            (Some(_), Some(at)) => insert_gap(self.transaction, stream, at.as_unix_nanos(), None, reason, 0),
            // A program that is ended properly leaves an open gap.
            (Some((end, 1)), None) => insert_gap(self.transaction, stream, end, None, GapReason::Killed, 0),
            // Where it ends is found by the repair.
            (Some(_), None) => Ok(()),
        }
    }
}

pub(super) fn insert_gap(
    transaction: &Transaction<'_>,
    stream: i64,
    start: i64,
    end: Option<i64>,
    reason: GapReason,
    frames: u64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO gaps (stream, start, id, end, reason, frames) VALUES (?1, ?2, \
             (SELECT ifnull(max(id), 0) + 1 FROM gaps WHERE stream = ?1 AND start = ?2), ?3, ?4, ?5)",
        )?
        .execute(params![stream, start, end, reason.name(), frames as i64])?;
    Ok(())
}
