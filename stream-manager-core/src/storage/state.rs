//! What is to be remembered for good: streams made through the API, settings, and what people have asked for at
//! run time (disabled, recording, paused), in a small SQLite database of its own.
//!
//! Each call is one transaction that is on the disk, synced, when it returns. A copy of the database is kept beside
//! it and taken if the database itself is damaged. Blocks.

use crate::frame::WallTime;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The database's file name in the data folder.
pub const STATE_FILE: &str = "state.db";
/// Its copy.
const COPY_FILE: &str = "state.db.copy";
/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Answers kept for idempotency keys, and for how long.
const KEPT_ANSWERS: i64 = 10_000;
const KEPT_ANSWERS_FOR: Duration = Duration::from_secs(24 * 3600);
/// The newest version that is known.
pub(crate) const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE streams (
  id TEXT PRIMARY KEY,
  config TEXT NOT NULL,
  revision INTEGER NOT NULL,
  created INTEGER NOT NULL,
  changed INTEGER NOT NULL
) WITHOUT ROWID;
-- What was asked for at run time, and the configured value that it goes against.
CREATE TABLE wishes (
  id TEXT NOT NULL,
  what TEXT NOT NULL,
  value TEXT NOT NULL,
  against TEXT NOT NULL,
  PRIMARY KEY (id, what)
) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE answers (
  key TEXT PRIMARY KEY,
  fingerprint TEXT NOT NULL,
  time INTEGER NOT NULL,
  status INTEGER NOT NULL,
  body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX answers_by_time ON answers (time);
PRAGMA user_version = 1;
";

/// Why nothing could be remembered, or recalled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The database refuses.
    #[error("the database of streams and settings {path}: {problem}")]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why, and what would help.
        problem: String,
        /// Whether the disk is full.
        full: bool,
        /// Whether the file is damaged.
        corrupt: bool,
    },
    /// It was written by a newer version of the program.
    #[error(
        "the database {path} has version {found}; this program knows {VERSION} at most. Use a newer version"
    )]
    TooNew {
        /// Its file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// It was damaged and could not be put aside.
    #[error("the damaged database {path} cannot be put aside: {source}")]
    Aside {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The thread that asked it is gone.
    #[error("the database of streams and settings does not answer")]
    Gone,
}

/// A stream as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredStream {
    /// Its id; may be a pattern.
    pub id: String,
    /// Its configuration, JSON.
    pub config: String,
    /// The number of its last change.
    pub revision: u64,
    /// When it was made.
    pub created: WallTime,
    /// When it was changed last.
    pub changed: WallTime,
}

/// What somebody asked for at run time. It holds as long as the configured value is the one it goes against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWish {
    /// The stream.
    pub id: String,
    /// What it is about.
    pub what: &'static str,
    /// What is wished.
    pub value: String,
    /// The configured value then.
    pub against: String,
}

/// One change; several are done together or not at all.
#[derive(Clone, Debug)]
pub enum StateChange {
    /// A stream is made or changed.
    Put(StoredStream),
    /// A stream is forgotten.
    Delete(String),
    /// What was wished for a stream is forgotten.
    Forget(String),
    /// Something is wished.
    Wish(StoredWish),
    /// A wish no longer holds.
    Unwish {
        /// The stream.
        id: String,
        /// What it was about.
        what: &'static str,
    },
    /// The settings made through the API, JSON.
    Settings(String),
    /// A request was carried out; see [`Answer`].
    Answer(Answer),
}

/// A request that carries an idempotency key, and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The key.
    pub key: String,
    /// What tells the request from others.
    pub fingerprint: String,
    /// Status and body.
    pub response: (u16, String),
}

/// Everything that is remembered.
#[derive(Clone, Debug, Default)]
pub struct Recalled {
    /// The streams, by id.
    pub streams: Vec<StoredStream>,
    /// What is wished: stream, what, value, against.
    pub wishes: Vec<(String, String, String, String)>,
    /// The settings, JSON.
    pub settings: Option<String>,
    /// The number of the last change.
    pub revision: u64,
}

/// What was found when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateOpened {
    /// The database was damaged: it was put there.
    pub damaged: Option<PathBuf>,
    /// Streams in the copy that was taken instead.
    pub restored: Option<u64>,
}

/// The database.
#[derive(Debug)]
pub struct StateStore {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl StateStore {
    /// Opens the database of a data folder, making it if need be. A damaged one is put aside, and its copy taken.
    ///
    /// # Errors
    /// If the folder cannot be written to, or the database is from a newer version.
    pub fn open(data_dir: &Path) -> Result<(Self, StateOpened), StateError> {
        let path = data_dir.join(STATE_FILE);
        let mut opened = StateOpened::default();
        match Self::open_file(&path) {
            Err(StateError::Database { corrupt: true, problem, .. }) => {
                tracing::error!(problem, "the database of streams and settings is damaged");
                opened.damaged = Some(put_aside(&path)?);
                let copy = data_dir.join(COPY_FILE);
                let usable = Self::open_file(&copy).and_then(|store| store.recall());
                if let Ok(recalled) = usable {
                    std::fs::copy(&copy, &path)
                        .map_err(|source| StateError::Aside { path: path.clone(), source })?;
                    opened.restored = Some(recalled.streams.len() as u64);
                }
                Ok((Self::open_file(&path)?, opened))
            }
            other => Ok((other?, opened)),
        }
    }

    /// What is remembered in a data folder, also beside a running server. Nothing if there is no database.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn read(data_dir: &Path) -> Result<Recalled, StateError> {
        let path = data_dir.join(STATE_FILE);
        if !path.exists() {
            return Ok(Recalled::default());
        }
        let failed = |e| database_error(&path, &e);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(failed)?;
        match found {
            0 => Ok(Recalled::default()),
            VERSION => Self { connection: Mutex::new(connection), path: path.clone() }.recall(),
            _ => Err(StateError::TooNew { path, found }),
        }
    }

    fn open_file(path: &Path) -> Result<Self, StateError> {
        let failed = |e| database_error(path, &e);
        // Streams have passwords in their addresses.
        if let Err(error) = super::private::make_private(path) {
            tracing::warn!(%error, path = %path.display(), "others may read this file");
        }
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(failed)?;
        if found > VERSION {
            return Err(StateError::TooNew { path: path.to_owned(), found });
        }
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        // What was answered with success must also survive a power cut.
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        connection.pragma_update(None, "cache_size", -512).map_err(failed)?;
        if found == 0 {
            connection.execute_batch(&format!("BEGIN IMMEDIATE;{SCHEMA}COMMIT;")).map_err(failed)?;
        }
        let sound: String =
            connection.pragma_query_value(None, "quick_check", |r| r.get(0)).map_err(failed)?;
        if sound != "ok" {
            let path = path.to_owned();
            return Err(StateError::Database { path, problem: sound, full: false, corrupt: true });
        }
        Ok(Self { connection: Mutex::new(connection), path: path.to_owned() })
    }

    /// Everything that is remembered.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn recall(&self) -> Result<Recalled, StateError> {
        let connection = self.connection.lock();
        let read = || -> rusqlite::Result<Recalled> {
            let streams = connection
                .prepare("SELECT id, config, revision, created, changed FROM streams ORDER BY id")?
                .query_map([], |row| {
                    Ok(StoredStream {
                        id: row.get(0)?,
                        config: row.get(1)?,
                        revision: row.get::<_, i64>(2)?.unsigned_abs(),
                        created: WallTime::from_unix_nanos(row.get(3)?),
                        changed: WallTime::from_unix_nanos(row.get(4)?),
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let wishes = connection
                .prepare("SELECT id, what, value, against FROM wishes")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let meta = |key: &str| {
                connection
                    .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, String>(0))
                    .optional()
            };
            let revision = meta("revision")?.and_then(|text| text.parse().ok()).unwrap_or(0);
            Ok(Recalled { streams, wishes, settings: meta("settings")?, revision })
        };
        read().map_err(|e| database_error(&self.path, &e))
    }

    /// Makes changes, all or none. They are on the disk when this returns.
    ///
    /// # Errors
    /// If the database refuses; nothing is changed then.
    pub fn apply(&self, changes: &[StateChange], revision: u64) -> Result<(), StateError> {
        let mut connection = self.connection.lock();
        let mut write = || -> rusqlite::Result<()> {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for change in changes {
                apply_one(&transaction, change)?;
            }
            transaction
                .prepare_cached(
                    "INSERT INTO meta VALUES ('revision', ?1) ON CONFLICT DO UPDATE SET value = ?1",
                )?
                .execute([revision.to_string()])?;
            transaction.commit()
        };
        write().map_err(|e| database_error(&self.path, &e))
    }

    /// What a request with this key was answered.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn answer(&self, key: &str) -> Result<Option<Answer>, StateError> {
        let connection = self.connection.lock();
        let oldest = (WallTime::now() - KEPT_ANSWERS_FOR).as_unix_nanos();
        connection
            .prepare_cached("SELECT fingerprint, status, body FROM answers WHERE key = ?1 AND time > ?2")
            .and_then(|mut statement| {
                let row = statement.query_row(params![key, oldest], |row| {
                    let response = (row.get(1)?, row.get(2)?);
                    Ok(Answer { key: key.into(), fingerprint: row.get(0)?, response })
                });
                row.optional()
            })
            .map_err(|e| database_error(&self.path, &e))
    }

    /// Renews the copy that is taken if the database is damaged.
    ///
    /// # Errors
    /// If it cannot be written; the one before stays.
    pub fn copy(&self) -> Result<(), StateError> {
        let copy = self.path.with_file_name(COPY_FILE);
        let fresh = self.path.with_file_name("state.db.copy.new");
        let io = |source| StateError::Aside { path: fresh.clone(), source };
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        {
            let connection = self.connection.lock();
            let name = fresh.display().to_string();
            connection.execute("VACUUM INTO ?1", [name]).map_err(|e| database_error(&self.path, &e))?;
        }
        super::private::make_private(&fresh).map_err(io)?;
        std::fs::File::open(&fresh).and_then(|file| file.sync_all()).map_err(io)?;
        std::fs::rename(&fresh, copy).map_err(io)
    }
}

fn apply_one(transaction: &Connection, change: &StateChange) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql).and_then(|mut s| s.execute(values)).map(drop)
    };
    match change {
        StateChange::Put(s) => run(
            "INSERT INTO streams (id, config, revision, created, changed) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET config = ?2, revision = ?3, changed = ?5",
            &[
                &s.id,
                &s.config,
                &i64::try_from(s.revision).unwrap_or(i64::MAX),
                &s.created.as_unix_nanos(),
                &s.changed.as_unix_nanos(),
            ],
        ),
        StateChange::Delete(id) => run("DELETE FROM streams WHERE id = ?1", &[id]),
        StateChange::Forget(id) => run("DELETE FROM wishes WHERE id = ?1", &[id]),
        StateChange::Wish(w) => run(
            "INSERT INTO wishes VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET value = ?3, against = ?4",
            &[&w.id, &w.what, &w.value, &w.against],
        ),
        StateChange::Unwish { id, what } => {
            run("DELETE FROM wishes WHERE id = ?1 AND what = ?2", &[id, what])
        }
        StateChange::Settings(json) => {
            run("INSERT INTO meta VALUES ('settings', ?1) ON CONFLICT DO UPDATE SET value = ?1", &[json])
        }
        StateChange::Answer(answer) => {
            let (status, body) = &answer.response;
            let now = WallTime::now();
            run(
                "INSERT INTO answers VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET fingerprint = ?2, time = ?3, status = ?4, body = ?5",
                &[&answer.key, &answer.fingerprint, &now.as_unix_nanos(), status, body],
            )?;
            run(
                "DELETE FROM answers WHERE time < max(?1, coalesce(
                   (SELECT time FROM answers ORDER BY time DESC LIMIT 1 OFFSET ?2), 0))",
                &[&(now - KEPT_ANSWERS_FOR).as_unix_nanos(), &KEPT_ANSWERS],
            )
        }
    }
}

fn put_aside(path: &Path) -> Result<PathBuf, StateError> {
    let aside =
        path.with_file_name(format!("{STATE_FILE}.damaged-{}", WallTime::now().format_utc("%Y%m%dT%H%M%SZ")));
    std::fs::rename(path, &aside).map_err(|source| StateError::Aside { path: path.to_owned(), source })?;
    for suffix in ["-wal", "-shm"] {
        let beside = path.with_file_name(format!("{STATE_FILE}{suffix}"));
        let moved = aside
            .with_file_name(format!("{}{suffix}", aside.file_name().unwrap_or_default().to_string_lossy()));
        match std::fs::rename(&beside, moved) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StateError::Aside { path: beside, source });
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn database_error(path: &Path, error: &rusqlite::Error) -> StateError {
    let code = error.sqlite_error_code();
    let help = match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "; another program has locked it, try again"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "; the data folder has to be writable for the user that the program runs as"
        }
        Some(ErrorCode::DiskFull) => "; the disk of the data folder is full",
        _ => "",
    };
    StateError::Database {
        path: path.to_owned(),
        problem: format!("{error}{help}"),
        full: code == Some(ErrorCode::DiskFull),
        corrupt: matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(id: &str, revision: u64) -> StoredStream {
        let now = WallTime::from_unix_nanos(5);
        StoredStream { id: id.into(), config: "{}".into(), revision, created: now, changed: now }
    }

    #[test]
    fn what_was_applied_is_recalled() {
        let folder = tempfile::tempdir().unwrap();
        let (store, opened) = StateStore::open(folder.path()).unwrap();
        assert_eq!(opened, StateOpened::default());
        let wish =
            StoredWish { id: "a".into(), what: "enabled", value: "false".into(), against: "true".into() };
        let answer = Answer { key: "k".into(), fingerprint: "f".into(), response: (201, "{}".into()) };
        store
            .apply(
                &[
                    StateChange::Put(stream("a", 1)),
                    StateChange::Put(stream("b", 2)),
                    StateChange::Wish(wish.clone()),
                    StateChange::Settings("{}".into()),
                    StateChange::Answer(answer.clone()),
                ],
                2,
            )
            .unwrap();
        store.apply(&[StateChange::Delete("b".into())], 3).unwrap();
        drop(store);
        let (store, _) = StateStore::open(folder.path()).unwrap();
        let recalled = store.recall().unwrap();
        assert_eq!((recalled.streams, recalled.revision), (vec![stream("a", 1)], 3));
        assert_eq!(recalled.wishes, [("a".into(), "enabled".into(), wish.value, wish.against)]);
        assert_eq!(store.answer("k").unwrap(), Some(answer));
        assert_eq!(store.answer("other").unwrap(), None);
        store.apply(&[StateChange::Delete("a".into()), StateChange::Forget("a".into())], 4).unwrap();
        assert!(store.recall().unwrap().wishes.is_empty());
    }

    #[test]
    fn a_damaged_database_is_put_aside_and_its_copy_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = StateStore::open(folder.path()).unwrap();
        store.apply(&[StateChange::Put(stream("a", 1))], 1).unwrap();
        store.copy().unwrap();
        drop(store);
        for (content, restored) in [("no database at all, and that for a while", Some(1)), ("", None)] {
            std::fs::write(folder.path().join(STATE_FILE), content).unwrap();
            let (store, opened) = StateStore::open(folder.path()).unwrap();
            assert_eq!(opened.restored, restored);
            // An empty file is what SQLite makes of a new database, and no damage that could be seen.
            assert_eq!(opened.damaged.is_some(), restored.is_some());
            assert_eq!(store.recall().unwrap().streams.len() as u64, restored.unwrap_or(0));
        }
    }

    #[test]
    fn a_change_that_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = StateStore::open(folder.path()).unwrap();
        let other = Connection::open(folder.path().join(STATE_FILE)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = store.apply(&[StateChange::Put(stream("a", 1))], 1).unwrap_err().to_string();
        assert!(error.contains("another program has locked it"), "{error}");
        other.execute_batch("ROLLBACK").unwrap();
        assert!(store.recall().unwrap().streams.is_empty());
        store.apply(&[StateChange::Put(stream("a", 1))], 1).unwrap();
    }
}
