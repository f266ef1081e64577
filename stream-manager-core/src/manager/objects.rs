//! What is seen on streams, kept and acted upon: the database of objects, marks in recordings, recordings because of objects.
//!
//! A stream's analysis hands what happens to its [`StreamLog`], on the thread of its model, so nothing here waits: the database and the index
//! have bounded queues, and the recorder is spoken to by a task of the stream's ([`record_while_present`]).

use super::{ManagerError, StreamManager};
use crate::event::{EventBus, EventKind};
use crate::frame::WallTime;
#[cfg(feature = "inference")]
use crate::object::{ObjectEvent, ObjectLog, Phase, SceneEvent};
#[cfg(feature = "inference")]
use crate::recording::{RecordError, Recorder, RecorderHandle, RecordingTrigger};
#[cfg(feature = "inference")]
use crate::storage::index::{Change, Index, Mark};
use crate::storage::objects::ObjectStore;
#[cfg(feature = "inference")]
use parking_lot::Mutex;
#[cfg(feature = "inference")]
use std::collections::HashSet;
#[cfg(feature = "inference")]
use std::sync::Arc;
use std::time::Duration;
#[cfg(feature = "inference")]
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a recorder is told that something is still there: the shortest time after an event is a second.
#[cfg(feature = "inference")]
const STILL_THERE: Duration = Duration::from_millis(500);
/// How often it is looked for what is too old.
const TIDY: Duration = Duration::from_secs(600);

/// How much is kept of what was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ObjectLimits {
    pub(super) max_age: Duration,
    pub(super) max_count: u64,
}

impl StreamManager {
    /// What was seen on streams, to be looked for.
    ///
    /// # Errors
    /// If the manager has no data folder, or the database cannot be opened.
    pub fn objects(&self) -> Result<&ObjectStore, ManagerError> {
        self.inner.storage.objects.as_ref().ok_or(ManagerError::NoIndex)
    }
}

/// Opens the database, and tells of what was there when the program was killed that it has ended. Blocks.
pub(super) fn open(data_dir: &std::path::Path, events: &EventBus) -> Option<ObjectStore> {
    match ObjectStore::open(data_dir) {
        Ok((store, ended)) => {
            for (stream, event) in ended {
                events.for_stream(stream).emit(EventKind::Object(Box::new(event)));
            }
            Some(store)
        }
        Err(error) => {
            tracing::error!(%error, "what is seen is not kept");
            None
        }
    }
}

/// Forgets what is too old or too much, until `cancel`.
pub(super) async fn tidy(
    store: ObjectStore,
    limits: impl Fn() -> Option<ObjectLimits>,
    cancel: CancellationToken,
) {
    loop {
        let Some(limits) = limits() else { return };
        let age = i64::try_from(limits.max_age.as_nanos()).unwrap_or(i64::MAX);
        let moment = WallTime::from_unix_nanos(WallTime::now().as_unix_nanos().saturating_sub(age));
        let gone = async {
            let old = store.forget_before(moment).await?;
            Ok::<_, crate::storage::objects::ObjectsError>(old + store.keep_newest(limits.max_count).await?)
        };
        match gone.await {
            Ok(0) => {}
            Ok(objects) => tracing::info!(objects, "objects that are too old or too many are forgotten"),
            Err(error) => tracing::warn!(%error, "objects that are too old cannot be forgotten"),
        }
        if cancel.run_until_cancelled(tokio::time::sleep(TIDY)).await.is_none() {
            return;
        }
    }
}

/// Takes what happens on one stream.
#[cfg(feature = "inference")]
pub(super) struct StreamLog {
    stream: Arc<str>,
    store: Option<ObjectStore>,
    index: Option<Index>,
    present: Mutex<HashSet<Arc<str>>>,
    count: watch::Sender<usize>,
}

#[cfg(feature = "inference")]
impl StreamLog {
    pub(super) fn new(stream: Arc<str>, store: Option<ObjectStore>, index: Option<Index>) -> Self {
        Self { stream, store, index, present: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// How many objects are there that are to be recorded.
    pub(super) fn present(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }
}

#[cfg(feature = "inference")]
impl ObjectLog for StreamLog {
    fn object(&self, event: &ObjectEvent) {
        if let Some(store) = &self.store {
            store.object(&self.stream, event);
        }
        if let Some(index) = &self.index {
            if event.phase == Phase::Begin {
                index.change(Change::Mark(self.stream.clone(), mark(event)));
            }
            let (start, end) = (event.begin, event.last);
            index.change(Change::Keep { stream: self.stream.clone(), start, end });
        }
        let count = {
            let mut present = self.present.lock();
            match event.phase {
                Phase::Begin if event.records => {
                    present.insert(event.object.clone());
                }
                Phase::End => {
                    present.remove(&event.object);
                }
                _ => {}
            }
            present.len()
        };
        self.count.send_if_modified(|held| std::mem::replace(held, count) != count);
    }

    fn scene(&self, event: &SceneEvent) {
        if let Some(store) = &self.store {
            store.scene(&self.stream, event);
        }
    }
}

#[cfg(feature = "inference")]
fn mark(event: &ObjectEvent) -> Mark {
    // As all kinds of marks are written.
    let letter = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let kind: String = event.label.chars().map(letter).take(60).collect();
    let zones = event.zones.iter().map(|zone| format!(" in {zone}")).collect::<String>();
    Mark {
        time: event.begin,
        kind,
        text: format!("{:.0} %{zones}", event.best_score * 100.0),
        data: serde_json::json!({ "object": event.object }),
    }
}

/// Has the recorder record as long as something is there.
#[cfg(feature = "inference")]
pub(super) async fn record_while_present(
    mut present: watch::Receiver<usize>,
    recorder: RecorderHandle,
    cancel: CancellationToken,
) {
    loop {
        match cancel.run_until_cancelled(present.wait_for(|count| *count > 0)).await {
            Some(Ok(_)) => {}
            _ => return,
        }
        loop {
            let count = *present.borrow_and_update();
            let trigger = RecordingTrigger { extends: true, ..RecordingTrigger::default() };
            match recorder.trigger(trigger).await {
                // Nothing is done about events there, or nothing is recorded just now.
                Ok(()) | Err(RecordError::NoEvents | RecordError::State { .. }) => {}
                Err(RecordError::Ended) => return,
                Err(error) => tracing::warn!(%error, "what is seen cannot be recorded"),
            }
            if count == 0 {
                break;
            }
            let next = tokio::time::timeout(STILL_THERE, present.changed());
            if cancel.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }
}
