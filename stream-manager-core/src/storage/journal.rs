//! The last events, in a database, so that a listener who was away can go on where it was.
//!
//! A task takes events from the bus as they come and writes all that have come together. Events that cannot be
//! written (the disk is full) are missing afterwards, and a listener who asks for them is told so. Hooks keep
//! their place in the journal here too, which makes it their queue.

use crate::event::{Event, EventBus, EventKind};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// The database's file name in the data folder.
pub const JOURNAL_FILE: &str = "events.db";
/// Events written at once.
const BATCH: usize = 512;
/// Numbers that may have been given out without being written when the program ended.
const ID_RESERVE: u64 = 10_000;
/// Memory for pages.
const CACHE_KIB: i64 = 512;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, stream TEXT, kind TEXT NOT NULL, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS places (hook TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
-- The last event that is not there any more.
CREATE TABLE IF NOT EXISTS forgotten (one INTEGER PRIMARY KEY CHECK (one = 1), id INTEGER NOT NULL);
";

/// An event as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Its number.
    pub id: u64,
    /// Its stream.
    pub stream: Option<Arc<str>>,
    /// Its kind's name.
    pub kind: Arc<str>,
    /// The whole event as JSON.
    pub json: Arc<str>,
}

impl From<&Event> for JournalEntry {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id,
            stream: event.stream.clone(),
            kind: event.kind.name().into(),
            json: event.json(),
        }
    }
}

/// A piece of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalPage {
    /// Events, oldest first.
    pub entries: Vec<JournalEntry>,
    /// Whether there have been events in between that are no longer there.
    pub incomplete: bool,
}

/// The journal of one data folder. Clones are handles to the same one.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Mutex<Connection>,
    /// The number of the last event that is written, or given up.
    written: watch::Sender<u64>,
    length: AtomicU64,
    lost: AtomicU64,
    /// The last event that could not be written.
    hole: AtomicU64,
}

impl Journal {
    /// Opens the journal of a data folder, and lets the bus go on with its numbers. A damaged one is begun anew:
    /// it holds nothing that anything depends on. Blocks.
    ///
    /// # Errors
    /// If it can neither be opened nor made anew; the reason in words.
    pub fn open(data_dir: &Path, length: u64, bus: &EventBus) -> Result<Self, String> {
        let path = data_dir.join(JOURNAL_FILE);
        let named = |e: rusqlite::Error| format!("the journal of events {}: {e}", path.display());
        let connection = match open(&path) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(%error, "the journal of events cannot be used and is begun anew");
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(data_dir.join(format!("{JOURNAL_FILE}{suffix}")));
                }
                open(&path).map_err(named)?
            }
        };
        let last: i64 = connection
            .query_row("SELECT coalesce(max(id), 0) FROM events", [], |row| row.get(0))
            .map_err(named)?;
        let places: i64 = connection
            .query_row("SELECT coalesce(max(id), 0) FROM places", [], |row| row.get(0))
            .map_err(named)?;
        let last = last.max(places).unsigned_abs();
        if last > 0 {
            bus.continue_after(last + ID_RESERVE);
        }
        let shared = Shared {
            connection: Mutex::new(connection),
            written: watch::Sender::new(bus.last_id()),
            length: AtomicU64::new(length.max(1)),
            lost: AtomicU64::new(0),
            hole: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How many events are kept from now on.
    pub fn set_length(&self, length: u64) {
        self.shared.length.store(length.max(1), Ordering::Relaxed);
    }

    /// Events that could not be written.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Writes the bus's events until cancelled, and then those that are left.
    pub async fn run(self, bus: EventBus, cancel: CancellationToken) {
        let mut last = *self.shared.written.borrow();
        let mut failing = false;
        loop {
            let mut subscription = bus.subscribe_after(last);
            let ended = cancel.is_cancelled();
            if subscription.incomplete {
                let oldest = subscription.kept.first().map_or(bus.last_id() + 1, |e| e.id);
                // The numbers of earlier runs are no events.
                let missing = oldest - last - 1;
                self.shared.lost.fetch_add(missing, Ordering::Relaxed);
                self.shared.hole.store(oldest - 1, Ordering::Relaxed);
                bus.emit(EventKind::EventsLost { events: missing });
            }
            if subscription.kept.is_empty() {
                if ended {
                    return;
                }
                tokio::select! {
                    () = cancel.cancelled() => {}
                    event = subscription.receiver.recv() => {
                        if matches!(event, Err(broadcast::error::RecvError::Closed)) {
                            return;
                        }
                    }
                }
                continue;
            }
            let mut events = std::mem::take(&mut subscription.kept);
            drop(subscription);
            events.truncate(BATCH);
            let until = events.last().map_or(last, |e| e.id);
            let (shared, number) = (self.shared.clone(), events.len() as u64);
            let written = tokio::task::spawn_blocking(move || shared.write(&events)).await;
            match written {
                Ok(Ok(())) => failing = false,
                Ok(Err(error)) => {
                    self.shared.lost.fetch_add(number, Ordering::Relaxed);
                    self.shared.hole.store(until, Ordering::Relaxed);
                    if !failing {
                        tracing::error!(%error, "events cannot be written to the journal");
                    }
                    failing = true;
                }
                Err(_) => return,
            }
            last = until;
            self.shared.written.send_replace(until);
        }
    }

    /// Waits, for a bounded time, until this event is written.
    pub async fn written(&self, id: u64) -> bool {
        let mut written = self.shared.written.subscribe();
        let reached = written.wait_for(|last| *last >= id);
        matches!(tokio::time::timeout(Duration::from_secs(5), reached).await, Ok(Ok(_)))
    }

    /// Up to `limit` events behind a number.
    ///
    /// # Errors
    /// The database's words.
    pub async fn page(&self, after: u64, limit: usize) -> Result<JournalPage, String> {
        self.ask(move |shared| shared.page(after, limit)).await
    }

    /// Where a hook stands.
    ///
    /// # Errors
    /// The database's words.
    pub async fn place(&self, hook: &str) -> Result<Option<u64>, String> {
        let hook = hook.to_owned();
        self.ask(move |shared| {
            let connection = shared.connection.lock();
            connection
                .query_row("SELECT id FROM places WHERE hook = ?1", [hook], |row| row.get::<_, i64>(0))
                .optional()
                .map(|id| id.map(i64::unsigned_abs))
        })
        .await
    }

    /// A hook has carried out everything up to this event.
    ///
    /// # Errors
    /// The database's words.
    pub async fn set_place(&self, hook: &str, id: u64) -> Result<(), String> {
        let hook = hook.to_owned();
        self.ask(move |shared| {
            let connection = shared.connection.lock();
            connection
                .prepare_cached("INSERT INTO places VALUES (?1, ?2) ON CONFLICT DO UPDATE SET id = ?2")?
                .execute(params![hook, signed(id)])
                .map(drop)
        })
        .await
    }

    /// Forgets the places of all hooks but these: one that comes back begins with what happens then.
    ///
    /// # Errors
    /// The database's words.
    pub async fn keep_places(&self, hooks: Vec<String>) -> Result<(), String> {
        self.ask(move |shared| {
            let connection = shared.connection.lock();
            let known: Vec<String> = connection
                .prepare_cached("SELECT hook FROM places")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut forget = connection.prepare_cached("DELETE FROM places WHERE hook = ?1")?;
            for hook in known.iter().filter(|hook| !hooks.contains(hook)) {
                forget.execute([hook])?;
            }
            Ok(())
        })
        .await
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Shared) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let shared = self.shared.clone();
        let answer = tokio::task::spawn_blocking(move || question(&shared)).await;
        answer.map_err(|e| e.to_string())?.map_err(|e| format!("the journal of events: {e}"))
    }
}

fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A power cut may cost the last events; nothing else hangs on them.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

impl Shared {
    fn write(&self, events: &[Arc<Event>]) -> rusqlite::Result<()> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO events VALUES (?1, ?2, ?3, ?4)")?;
            for event in events {
                let (stream, json) = (event.stream.as_deref(), event.json());
                insert.execute(params![signed(event.id), stream, event.kind.name(), &*json])?;
            }
        }
        // Numbers have holes where a run ended, so rows are counted.
        let length = signed(self.length.load(Ordering::Relaxed));
        let too_old: Option<i64> = transaction
            .prepare_cached("SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?1")?
            .query_row([length], |row| row.get(0))
            .optional()?;
        if let Some(id) = too_old {
            transaction.prepare_cached("DELETE FROM events WHERE id <= ?1")?.execute([id])?;
            transaction
                .prepare_cached("INSERT INTO forgotten VALUES (1, ?1) ON CONFLICT DO UPDATE SET id = ?1")?
                .execute([id])?;
        }
        transaction.commit()
    }

    fn page(&self, after: u64, limit: usize) -> rusqlite::Result<JournalPage> {
        let connection = self.connection.lock();
        let forgotten: i64 = connection
            .prepare_cached("SELECT coalesce(max(id), 0) FROM forgotten")?
            .query_row([], |row| row.get(0))?;
        let forgotten = forgotten.unsigned_abs().max(self.hole.load(Ordering::Relaxed));
        let entries = connection
            .prepare_cached("SELECT id, stream, kind, json FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")?
            .query_map(params![signed(after), signed(limit as u64)], |row| {
                let stream: Option<String> = row.get(1)?;
                Ok(JournalEntry {
                    id: row.get::<_, i64>(0)?.unsigned_abs(),
                    stream: stream.map(Into::into),
                    kind: row.get::<_, String>(2)?.into(),
                    json: row.get::<_, String>(3)?.into(),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(JournalPage { entries, incomplete: after < forgotten })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(page: &JournalPage) -> Vec<u64> {
        let number = |e: &JournalEntry| {
            serde_json::from_str::<serde_json::Value>(&e.json).unwrap()["packets"].as_u64().unwrap()
        };
        page.entries.iter().map(number).collect()
    }

    #[tokio::test]
    async fn events_are_there_after_a_restart_and_numbers_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut last = 0;
        for run in 0..2u64 {
            let bus = EventBus::default();
            let journal = Journal::open(folder.path(), 15, &bus).unwrap();
            let cancel = CancellationToken::new();
            let task = tokio::spawn(journal.clone().run(bus.clone(), cancel.clone()));
            for n in 0..10 {
                bus.emit(EventKind::PacketsLost { packets: run * 10 + n });
            }
            assert!(bus.last_id() > last);
            last = bus.last_id();
            assert!(journal.written(last).await);
            let page = journal.page(0, 100).await.unwrap();
            if run == 0 {
                assert_eq!((packets(&page), page.incomplete), ((0..10).collect(), false));
                let rest = journal.page(page.entries[6].id, 2).await.unwrap();
                assert_eq!(packets(&rest), [7, 8]);
                journal.set_place("hook", page.entries[3].id).await.unwrap();
            } else {
                assert_eq!((packets(&page), page.incomplete), ((5..20).collect(), true));
                let place = journal.place("hook").await.unwrap().unwrap();
                assert!(journal.page(place, 5).await.unwrap().incomplete);
                journal.keep_places(vec!["hook".into()]).await.unwrap();
                assert_eq!(journal.place("hook").await.unwrap(), Some(place));
                journal.keep_places(vec!["other".into()]).await.unwrap();
                assert_eq!(journal.place("hook").await.unwrap(), None);
            }
            cancel.cancel();
            task.await.unwrap();
        }
    }
}
