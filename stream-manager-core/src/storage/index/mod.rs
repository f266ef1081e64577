//! What has been recorded: segments, gaps and marks, in SQLite beside the files.
//!
//! The files are the truth and can be played without the index; the index answers quickly what there is
//! between two moments, and can be made anew from the files. Writers tell it of segments by [`Change`]s,
//! which a thread of its own collects and commits together: nobody who records waits for the database. A
//! database that cannot be written to (a full disk) gets its changes later; if there are too many, the next
//! [repair](super::repair) finds the files.
//!
//! What is known of the segments that are being written is kept in memory and shown with the rest.

mod catalog;
mod edit;
mod marks;
mod model;
mod parts;
mod query;
mod schema;
mod writer;

pub use catalog::{Catalog, Change, FILE_NAME, IndexError};
pub use edit::{Doomed, Selection};
pub use model::{
    EmptyRange, GapReason, Mark, MarkFilter, MarkRow, NewSegment, RecordingItem, SegmentEnd, SegmentId,
    SegmentRow, StreamTotals, TimeRange,
};
pub use parts::{PartEntry, PartList};
pub(crate) use schema::VERSION;

use crate::frame::WallTime;
use parking_lot::Mutex;
use query::LiveMap;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Changes and questions that may wait.
const QUEUE_LENGTH: usize = 4096;
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A segment that is being written.
#[derive(Clone, Copy, Debug, Default)]
struct Live {
    duration_nanos: i64,
    bytes: u64,
}

#[derive(Debug)]
struct Shared {
    data_dir: PathBuf,
    next_id: AtomicU64,
    /// The first number given out by this process.
    first_id: u64,
    live: Mutex<LiveMap>,
    /// Files of this process that the database does not know to be complete yet.
    open_files: Mutex<HashSet<PathBuf>>,
    /// Changes that could not be kept: the files have to be looked at again.
    missed: AtomicBool,
    failing: Mutex<Option<String>>,
}

type Question = Box<dyn FnOnce(&mut Catalog) + Send>;

enum Request {
    Change(Change),
    Ask(Question),
    /// The database is damaged: put it aside and make a new one.
    Renew(oneshot::Sender<Result<PathBuf, IndexError>>),
}

/// The index of one data folder. Clones are handles to the same one; its threads end with the last of them.
#[derive(Clone, Debug)]
pub struct Index {
    writer: SyncSender<Request>,
    reader: SyncSender<Question>,
    shared: Arc<Shared>,
}

/// What was found when an index was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The database was damaged: it was put there, and a new one begun.
    pub damaged: Option<PathBuf>,
    /// There was no database.
    pub new: bool,
}

impl Index {
    /// Opens the index of a data folder, making it if need be. A damaged one is put aside and begun anew, to
    /// be filled from the files by a [repair](super::repair). Blocks.
    ///
    /// # Errors
    /// If the folder cannot be written to, or the index is from a newer version.
    pub fn open(data_dir: &Path) -> Result<(Self, Opened), IndexError> {
        let mut opened = Opened { new: !data_dir.join(FILE_NAME).exists(), damaged: None };
        let catalog = match Catalog::open(data_dir) {
            Err(error) if error.is_corrupt() => {
                tracing::error!(%error, "the index of recordings is damaged");
                opened.damaged = Some(Catalog::put_aside(data_dir)?);
                Catalog::open(data_dir)?
            }
            other => other?,
        };
        let next_id = catalog.next_id()?;
        let shared = Arc::new(Shared {
            data_dir: data_dir.to_owned(),
            next_id: AtomicU64::new(next_id),
            first_id: next_id,
            live: Mutex::new(HashMap::new()),
            open_files: Mutex::new(HashSet::new()),
            missed: AtomicBool::new(false),
            failing: Mutex::new(None),
        });
        let reading = Catalog::open(data_dir)?;
        let (writer, requests) = sync_channel(QUEUE_LENGTH);
        let for_writer = shared.clone();
        let started = std::thread::Builder::new()
            .name("index-write".into())
            .spawn(move || writer::run(catalog, &requests, &for_writer));
        started.map_err(|_| IndexError::Gone)?;
        Ok((Self { writer, reader: answer_questions(reading)?, shared }, opened))
    }

    /// Opens an index that another process may be writing, to be asked only: changes are refused. Blocks.
    ///
    /// # Errors
    /// If there is none, it cannot be read, or it is from another version.
    pub fn open_for_reading(data_dir: &Path) -> Result<Self, IndexError> {
        let reading = Catalog::open_for_reading(data_dir)?;
        let shared = Arc::new(Shared {
            data_dir: data_dir.to_owned(),
            next_id: AtomicU64::new(0),
            first_id: 0,
            live: Mutex::new(HashMap::new()),
            open_files: Mutex::new(HashSet::new()),
            missed: AtomicBool::new(false),
            failing: Mutex::new(None),
        });
        // Nobody listens to the writer's end.
        let (writer, _) = sync_channel(1);
        Ok(Self { writer, reader: answer_questions(reading)?, shared })
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.shared.data_dir
    }

    /// A number for a new segment.
    pub fn new_id(&self) -> SegmentId {
        SegmentId(self.shared.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// The first number that this process has given out: unfinished segments below it are a crash's.
    pub fn first_id(&self) -> SegmentId {
        SegmentId(self.shared.first_id)
    }

    /// Tells that a file is about to be created, so that a repair leaves it alone. Until
    /// [`Change::Finish`] is in the database, or [`closed`](Self::closed).
    pub fn opening(&self, path: &Path) {
        self.shared.open_files.lock().insert(path.to_owned());
    }

    /// Tells that a file is none of this process' any more.
    pub fn closed(&self, path: &Path) {
        self.shared.open_files.lock().remove(path);
    }

    /// Whether a file is being written by this process.
    pub fn is_open(&self, path: &Path) -> bool {
        self.shared.open_files.lock().contains(path)
    }

    /// Tells how far a segment is that is being written.
    pub fn progress(&self, id: SegmentId, duration_nanos: i64, bytes: u64) {
        self.shared.live.lock().insert(id, Live { duration_nanos, bytes });
    }

    /// Bytes in segments that are being written.
    pub fn live_bytes(&self) -> u64 {
        self.shared.live.lock().values().map(|l| l.bytes).sum()
    }

    /// Hands in a change. Never blocks; if too many are waiting it is left to the next repair.
    pub fn change(&self, change: Change) {
        if self.writer.try_send(Request::Change(change)).is_err()
            && !self.shared.missed.swap(true, Ordering::Relaxed)
        {
            tracing::error!("the index of recordings cannot keep up; it will be put right from the files");
        }
    }

    /// A segment could not be finished: it is this process' no longer, and to be repaired.
    pub fn leave_to_repair(&self, segment: &NewSegment) {
        self.shared.live.lock().remove(&segment.id);
        self.shared.open_files.lock().remove(&segment.folder.join(&segment.name));
        self.shared.missed.store(true, Ordering::Relaxed);
    }

    /// Asks for all files to be compared with the index again.
    pub fn look_again(&self) {
        self.shared.missed.store(true, Ordering::Relaxed);
    }

    /// Whether changes were lost since this was last asked.
    pub fn take_missed(&self) -> bool {
        self.shared.missed.swap(false, Ordering::Relaxed)
    }

    /// Why the database cannot be written to at the moment.
    pub fn failing(&self) -> Option<String> {
        self.shared.failing.lock().clone()
    }

    /// Asks the reading connection.
    ///
    /// # Errors
    /// If the database cannot be read or does not answer.
    pub async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Catalog) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let (question, wait) = ask(question);
        self.reader.try_send(question).map_err(|_| IndexError::Gone)?;
        answer(wait).await
    }

    /// Asks the writing connection, after all changes that were handed in before.
    ///
    /// # Errors
    /// If the database refuses or does not answer.
    pub async fn write<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Catalog) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let (question, wait) = ask(question);
        self.writer.try_send(Request::Ask(question)).map_err(|_| IndexError::Gone)?;
        answer(wait).await
    }

    /// Waits until everything handed in so far is in the database, or has failed to get there.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn flush(&self) -> Result<(), IndexError> {
        self.write(|_| Ok(())).await
    }

    /// The spans and gaps of a stream in a range, in order, and where the next page begins. Segments that are
    /// being written are in it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn recordings(
        &self,
        stream: &str,
        range: TimeRange,
        limit: usize,
    ) -> Result<(Vec<RecordingItem>, Option<WallTime>), IndexError> {
        let (stream, shared) = (stream.to_owned(), self.shared.clone());
        let mut items = self
            .read(move |catalog| {
                let live = shared.live.lock().clone();
                catalog.spans_and_gaps(&stream, range, limit.saturating_add(1), &live)
            })
            .await?;
        let next = items.get(limit).map(RecordingItem::start);
        items.truncate(limit);
        Ok((items, next))
    }

    /// A stream's marks in a range, by time.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn marks(&self, stream: &str, range: TimeRange, limit: usize) -> Result<Vec<Mark>, IndexError> {
        let stream = stream.to_owned();
        self.read(move |catalog| catalog.marks(&stream, range, limit)).await
    }

    /// A stream's segments in a range. Segments that are being written show how far they are.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn segments(
        &self,
        stream: &str,
        range: TimeRange,
        after: Option<(WallTime, SegmentId)>,
        limit: usize,
    ) -> Result<Vec<SegmentRow>, IndexError> {
        let stream = stream.to_owned();
        let mut rows = self.read(move |catalog| catalog.segments(&stream, range, after, limit)).await?;
        let live = self.shared.live.lock();
        for row in rows.iter_mut().filter(|row| !row.complete) {
            if let Some(live) = live.get(&row.id) {
                row.end =
                    WallTime::from_unix_nanos(row.start.as_unix_nanos().saturating_add(live.duration_nanos));
                row.bytes = live.bytes;
            }
        }
        rows.retain(|row| row.complete || row.end > range.start || row.start >= range.start);
        Ok(rows)
    }

    /// One segment, if there is one with this number.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn segment(&self, id: SegmentId) -> Result<Option<SegmentRow>, IndexError> {
        self.read(move |catalog| catalog.segment(id)).await
    }

    /// The parts of a segment, for seeking in it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn parts(&self, id: SegmentId) -> Result<Vec<PartEntry>, IndexError> {
        self.read(move |catalog| catalog.parts(id)).await
    }

    /// Puts the database aside as damaged and begins a new one. Gives where the old one is.
    ///
    /// # Errors
    /// If that is not possible.
    pub async fn renew(&self) -> Result<PathBuf, IndexError> {
        let (renewed, wait) = oneshot::channel();
        self.writer.try_send(Request::Renew(renewed)).map_err(|_| IndexError::Gone)?;
        let aside = answer(wait).await?;
        let data_dir = self.shared.data_dir.clone();
        self.read(move |catalog| {
            *catalog = Catalog::open(&data_dir)?;
            Ok(())
        })
        .await?;
        Ok(aside)
    }
}

/// A thread that asks a catalog what it is given.
fn answer_questions(mut catalog: Catalog) -> Result<SyncSender<Question>, IndexError> {
    let (reader, questions) = sync_channel::<Question>(QUEUE_LENGTH);
    let started = std::thread::Builder::new().name("index-read".into()).spawn(move || {
        while let Ok(question) = questions.recv() {
            question(&mut catalog);
        }
    });
    started.map_err(|_| IndexError::Gone)?;
    Ok(reader)
}

type Answer<T> = oneshot::Receiver<Result<T, IndexError>>;

/// A question for one of the threads, and where its answer will be.
fn ask<T: Send + 'static>(
    question: impl FnOnce(&mut Catalog) -> Result<T, IndexError> + Send + 'static,
) -> (Question, Answer<T>) {
    let (sender, wait) = oneshot::channel();
    let question = move |catalog: &mut Catalog| {
        // Whoever asked may have gone away.
        let _ = sender.send(question(catalog));
    };
    (Box::new(question), wait)
}

async fn answer<T>(wait: Answer<T>) -> Result<T, IndexError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, wait).await;
    answer.map_err(|_| IndexError::Gone)?.map_err(|_| IndexError::Gone)?
}

#[cfg(test)]
mod tests;
