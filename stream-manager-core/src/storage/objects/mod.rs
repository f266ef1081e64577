//! What was seen and what it did, to be looked for: objects with their best pictures, visits to zones, crossings, counts by the hour.
//!
//! ```text
//! analysis ── never blocks, bounded ──► one thread ── in batches ──► objects.db ◄── searches, on a connection of their own
//! ```
//!
//! A database beside that of recordings, so that a storm of events holds up no segment. A damaged one is put aside and begun anew: no
//! recording hangs on it. Whatever was there when the program was killed is ended when it starts again.

mod find;
mod query;
mod write;

pub use query::{
    CountRow, HappeningRow, HeatMap, ObjectFilter, ObjectPicture, ObjectRow, PlaceFilter, search,
};

use crate::frame::WallTime;
use crate::object::{ObjectEvent, SceneEvent};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// The database's file name in the data folder.
pub const OBJECTS_FILE: &str = "objects.db";
/// What may wait to be written.
const QUEUE_LENGTH: usize = 1024;
/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory for pages, of each connection.
const CACHE_KIB: i64 = 2048;
/// How long an answer of the writing thread may take.
const ANSWER: Duration = Duration::from_secs(30);

const MIGRATIONS: &[&str] = &["
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- Streams, labels and zones by the numbers of their names. Times in nanoseconds since 1970 UTC.
CREATE TABLE objects (
  id INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL,
  name TEXT NOT NULL,
  label INTEGER NOT NULL,
  begin INTEGER NOT NULL,
  score REAL NOT NULL,
  open INTEGER NOT NULL,
  json TEXT NOT NULL
);
CREATE UNIQUE INDEX objects_by_name ON objects (name, stream);
-- Each has all that is asked for, so that only what is found is read.
CREATE INDEX objects_by_time ON objects (begin, score, label, stream);
CREATE INDEX objects_by_stream ON objects (stream, begin, score, label);
CREATE INDEX objects_by_label ON objects (label, begin, score, stream);
CREATE INDEX objects_open ON objects (open) WHERE open = 1;
CREATE TABLE visits (
  zone INTEGER NOT NULL,
  begin INTEGER NOT NULL,
  object INTEGER NOT NULL,
  score REAL NOT NULL,
  label INTEGER NOT NULL,
  stream INTEGER NOT NULL,
  PRIMARY KEY (zone, begin, object)
) WITHOUT ROWID;
CREATE INDEX visits_by_object ON visits (object);
CREATE TABLE pictures (object INTEGER PRIMARY KEY, time INTEGER NOT NULL, jpeg BLOB NOT NULL);
CREATE TABLE happenings (
  id INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL,
  time INTEGER NOT NULL,
  json TEXT NOT NULL
);
CREATE INDEX happenings_by_stream ON happenings (stream, time);
CREATE INDEX happenings_by_time ON happenings (time);
CREATE TABLE counts (
  stream INTEGER NOT NULL,
  hour INTEGER NOT NULL,
  place INTEGER NOT NULL,
  action TEXT NOT NULL,
  label INTEGER NOT NULL,
  count INTEGER NOT NULL,
  secs REAL NOT NULL,
  PRIMARY KEY (stream, hour, place, action, label)
) WITHOUT ROWID;
CREATE TABLE heat (stream INTEGER NOT NULL, hour INTEGER NOT NULL, cells BLOB NOT NULL, PRIMARY KEY (stream, hour)) WITHOUT ROWID;
", "
-- What hardly any has is not looked for among all.
CREATE INDEX objects_by_score ON objects (score, begin, label, stream);
"];

/// The version that this program writes.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// What goes wrong with the database, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database of objects: {0}")]
pub struct ObjectsError(String);

impl From<rusqlite::Error> for ObjectsError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

/// A stream's id, and an object of it.
pub type OfStream = (Arc<str>, ObjectEvent);

type Question = Box<dyn FnOnce(&mut Connection) + Send>;

/// Something to be written.
enum Request {
    Object(Arc<str>, Box<ObjectEvent>),
    Scene(Arc<str>, Box<SceneEvent>),
    Ask(Question),
}

/// The objects of one data folder. Clones are handles to the same ones; the thread ends with the last of them.
#[derive(Clone)]
pub struct ObjectStore {
    writer: SyncSender<Request>,
    reader: Arc<Mutex<Connection>>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectStore").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    lost: AtomicU64,
    waiting: AtomicU64,
    failing: Mutex<Option<String>>,
}

impl ObjectStore {
    /// Opens the database of a data folder, making it if need be. Gives also what was there when the program was killed: it has ended
    /// now. Blocks.
    ///
    /// # Errors
    /// If it can neither be opened nor begun anew.
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<OfStream>), ObjectsError> {
        let path = data_dir.join(OBJECTS_FILE);
        let mut connection = match open(&path) {
            Ok(connection) => connection,
            Err(error) if is_damaged(&error) => {
                tracing::error!(%error, "the database of objects is damaged and begun anew");
                put_aside(&path)?;
                open(&path)?
            }
            Err(error) => return Err(error.into()),
        };
        let ended = write::end_all(&mut connection)?;
        let reading = open(&path)?;
        let shared: Arc<Shared> = Arc::default();
        let (writer, requests) = sync_channel(QUEUE_LENGTH);
        let for_writer = shared.clone();
        std::thread::Builder::new()
            .name("objects-write".into())
            .spawn(move || write::run(connection, &requests, &for_writer))
            .map_err(|error| ObjectsError(error.to_string()))?;
        Ok((Self { writer, reader: Arc::new(Mutex::new(reading)), shared }, ended))
    }

    /// Keeps what is known of an object. Never blocks; what is too much is counted as lost.
    pub fn object(&self, stream: &Arc<str>, event: &ObjectEvent) {
        self.hand_in(Request::Object(stream.clone(), Box::new(event.clone())));
    }

    /// Keeps what has happened in a zone or at a line.
    pub fn scene(&self, stream: &Arc<str>, event: &SceneEvent) {
        self.hand_in(Request::Scene(stream.clone(), Box::new(event.clone())));
    }

    fn hand_in(&self, request: Request) {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        if self.writer.try_send(request).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that could not be kept.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Events that wait to be written.
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Why nothing can be written at the moment.
    pub fn failing(&self) -> Option<String> {
        self.shared.failing.lock().clone()
    }

    /// Waits until everything handed in so far is written, or has failed to be.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn flush(&self) -> Result<(), ObjectsError> {
        self.write(|_| Ok(())).await
    }

    /// Forgets what began before a moment, a part at a time. Gives how many objects are gone.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn forget_before(&self, moment: WallTime) -> Result<u64, ObjectsError> {
        self.write(move |connection| write::forget_before(connection, moment)).await
    }

    /// Forgets all but so many of the newest objects. Gives how many are gone.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn keep_newest(&self, most: u64) -> Result<u64, ObjectsError> {
        self.write(move |connection| write::keep_newest(connection, most)).await
    }

    /// Forgets one object. False if there is none of this name.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn forget(&self, name: &str) -> Result<bool, ObjectsError> {
        let name = name.to_owned();
        self.write(move |connection| write::forget(connection, &name)).await
    }

    /// On the writing connection, behind all that was handed in before.
    async fn write<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ObjectsError> {
        let (sender, receiver) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            // Whoever asked may have gone away.
            let _ = sender.send(question(connection));
        });
        let gone = || ObjectsError("it does not answer".into());
        self.writer.try_send(Request::Ask(question)).map_err(|_| gone())?;
        match tokio::time::timeout(ANSWER, receiver).await {
            Ok(Ok(answer)) => Ok(answer?),
            _ => Err(gone()),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ObjectsError> {
        let reader = self.reader.clone();
        let answer = tokio::task::spawn_blocking(move || question(&reader.lock())).await;
        Ok(answer.map_err(|error| ObjectsError(error.to_string()))??)
    }
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

fn put_aside(path: &Path) -> Result<(), ObjectsError> {
    let stamp = WallTime::now().format_utc("%Y-%m-%dT%H-%M-%S%.3fZ");
    let with = |path: &Path, end: &str| PathBuf::from(format!("{}{end}", path.display()));
    let aside = with(path, &format!(".damaged-{stamp}"));
    for end in ["", "-wal", "-shm"] {
        let from = with(path, end);
        if from.exists() {
            std::fs::rename(&from, with(&aside, end)).map_err(|error| ObjectsError(error.to_string()))?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A power cut may cost the last events; no recording hangs on them.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(usize::try_from(version).unwrap_or(0)) {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Another connection may have been faster.
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == number as i64 {
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", number as i64 + 1)?;
        }
        transaction.commit()?;
    }
    Ok(connection)
}

#[cfg(test)]
mod tests;
