//! Events for listeners who may have been away: what they have missed comes first, then what happens.

use super::StreamManager;
use crate::auth::{Action, Grant, PathPattern};
use crate::event::{Event, EventBus, EventKind};
use crate::storage::journal::{Journal, JournalEntry};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Events read from the journal at once.
const PAGE: usize = 256;
/// Events emitted at once.
const BURST: usize = 500;

/// Which events somebody wants. Events that concern no single stream pass any choice of streams but that of
/// [`only_streams`](Self::only_streams).
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    streams: Vec<PathPattern>,
    kinds: Vec<String>,
    only_streams: bool,
    seen_by: Grant,
}

impl EventFilter {
    /// Everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only these streams', and those of no stream.
    ///
    /// # Errors
    /// Says which pattern is wrong.
    pub fn streams<T: AsRef<str>>(mut self, patterns: &[T]) -> Result<Self, String> {
        self.streams = patterns.iter().map(|p| p.as_ref().parse()).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Leaves out the events of no stream.
    #[must_use]
    pub fn only_streams(mut self) -> Self {
        self.only_streams = true;
        self
    }

    /// Only what somebody may see; what concerns no stream, whoever may see all.
    #[must_use]
    pub fn seen_by(mut self, grant: Grant) -> Self {
        self.seen_by = grant;
        self
    }

    /// Only these kinds, by their names in [`EventKind::NAMES`].
    ///
    /// # Errors
    /// Says which name is wrong.
    pub fn kinds<T: AsRef<str>>(mut self, kinds: &[T]) -> Result<Self, String> {
        for kind in kinds {
            if !EventKind::NAMES.contains(&kind.as_ref()) {
                return Err(crate::config::unknown_kind(kind.as_ref()));
            }
        }
        self.kinds = kinds.iter().map(|k| k.as_ref().to_owned()).collect();
        Ok(self)
    }

    /// Whether an event passes.
    pub fn passes(&self, stream: Option<&str>, kind: &str) -> bool {
        let is_seen = self.seen_by.may(Action::ApiRead, stream);
        let stream = match stream {
            Some(stream) => self.streams.is_empty() || self.streams.iter().any(|p| p.matches(stream)),
            None => !self.only_streams,
        };
        let stream = stream && is_seen;
        stream && (self.kinds.is_empty() || self.kinds.iter().any(|k| k == kind))
    }
}

/// What an [`EventListener`] gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event.
    Event(JournalEntry),
    /// Events before the next one are no longer to be had.
    Missed,
}

/// Hears events, from a number on.
pub struct EventListener {
    bus: EventBus,
    journal: Option<Journal>,
    filter: EventFilter,
    /// The last event that was looked at.
    last: u64,
    waiting: VecDeque<JournalEntry>,
    live: Option<broadcast::Receiver<Arc<Event>>>,
    missed: bool,
}

impl StreamManager {
    /// Listens to events: those behind the number `after`, if it is given, and all that come.
    pub fn listen(&self, filter: EventFilter, after: Option<u64>) -> EventListener {
        let bus = self.inner.events.clone();
        let last = bus.last_id();
        let mut listener = EventListener {
            journal: self.inner.control.journal.clone(),
            filter,
            last: after.map_or(last, |after| after.min(last)),
            waiting: VecDeque::new(),
            live: None,
            missed: false,
            bus,
        };
        // From here on nothing is missed, also if it takes a while until somebody asks.
        listener.subscribe();
        listener
    }

    /// Emits many events, no faster than the journal takes them.
    pub(super) async fn emit_all(&self, events: Vec<(String, EventKind)>) {
        for (number, (stream, kind)) in events.into_iter().enumerate() {
            self.inner.events.for_stream(stream.as_str().into()).emit(kind);
            if (number + 1).is_multiple_of(BURST)
                && let Some(journal) = self.journal()
            {
                journal.written(self.inner.events.last_id()).await;
            }
        }
    }

    /// The journal of events, if there is a data folder.
    pub fn journal(&self) -> Option<&Journal> {
        self.inner.control.journal.as_ref()
    }
}

impl EventListener {
    /// The number of the last event that was looked at.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Goes over to live events, if none in between are lost for the bus.
    fn subscribe(&mut self) -> bool {
        let subscription = self.bus.subscribe_after(self.last);
        if subscription.incomplete {
            return false;
        }
        self.waiting.extend(subscription.kept.iter().map(|event| JournalEntry::from(&**event)));
        self.live = Some(subscription.receiver);
        true
    }

    /// The next event that passes the filter. `None` when the manager is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            if std::mem::take(&mut self.missed) {
                return Some(Heard::Missed);
            }
            while let Some(entry) = self.waiting.pop_front() {
                if entry.id <= self.last {
                    continue;
                }
                self.last = entry.id;
                if self.filter.passes(entry.stream.as_deref(), &entry.kind) {
                    return Some(Heard::Event(entry));
                }
            }
            let Some(live) = &mut self.live else {
                self.catch_up().await;
                continue;
            };
            match live.recv().await {
                Ok(event) if event.id <= self.last => {}
                Ok(event) => {
                    self.last = event.id;
                    if self.filter.passes(event.stream.as_deref(), event.kind.name()) {
                        return Some(Heard::Event(JournalEntry::from(&*event)));
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.live = None,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Reads from the journal until what follows is on the bus.
    async fn catch_up(&mut self) {
        if self.subscribe() {
            return;
        }
        let Some(journal) = self.journal.clone() else { return self.skip() };
        // What the bus has forgotten is written, about to be, or lost.
        let oldest =
            self.bus.subscribe_after(0).kept.first().map_or(self.bus.last_id() + 1, |event| event.id);
        journal.written(oldest - 1).await;
        let Ok(page) = journal.page(self.last, PAGE).await else { return self.skip() };
        self.missed |= page.incomplete;
        if page.entries.is_empty() {
            // Only numbers that no event has.
            return self.skip_quietly();
        }
        self.waiting.extend(page.entries);
    }

    fn skip(&mut self) {
        self.missed = true;
        self.skip_quietly();
    }

    /// To the oldest event that the bus still has.
    fn skip_quietly(&mut self) {
        let oldest = self.bus.subscribe_after(0).kept.first().map(|event| event.id);
        self.last = self.last.max(oldest.map_or(self.bus.last_id(), |oldest| oldest - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::StreamManager;

    async fn packets(listener: &mut EventListener, number: usize) -> (Vec<u64>, bool) {
        let (mut found, mut missed) = (Vec::new(), false);
        while found.len() < number {
            match listener.next().await.unwrap() {
                Heard::Missed => missed = true,
                Heard::Event(entry) => {
                    let value: serde_json::Value = serde_json::from_str(&entry.json).unwrap();
                    found.push(value["packets"].as_u64().unwrap());
                }
            }
        }
        (found, missed)
    }

    async fn emit(manager: &StreamManager, numbers: std::ops::Range<u64>) {
        let mut events = Vec::new();
        for packets in numbers {
            events.push(("cam".to_owned(), EventKind::PacketsLost { packets }));
            events.push(("other".to_owned(), EventKind::Test { hook: String::new() }));
        }
        manager.emit_all(events).await;
    }

    #[tokio::test]
    async fn a_listener_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let filter = || EventFilter::new().streams(&["c*"]).unwrap().kinds(&["packets_lost"]).unwrap();
        let after = {
            let manager = StreamManager::builder().data_dir(folder.path()).build().await.unwrap();
            let mut live = manager.listen(filter(), None);
            // More than the bus keeps.
            emit(&manager, 0..3000).await;
            assert_eq!(packets(&mut live, 100).await.0, (0..100).collect::<Vec<_>>());
            let after = live.last();
            let mut again = manager.listen(filter(), Some(after));
            assert_eq!(packets(&mut again, 2900).await, ((100..3000).collect(), false));
            manager.shutdown().await;
            after
        };
        let manager = StreamManager::builder().data_dir(folder.path()).build().await.unwrap();
        emit(&manager, 3000..3003).await;
        let mut again = manager.listen(filter(), Some(after));
        assert_eq!(packets(&mut again, 2903).await, ((100..3003).collect(), false));
        manager.shutdown().await;
    }

    #[tokio::test]
    async fn without_a_journal_a_listener_is_told_what_it_missed() {
        let manager = StreamManager::builder().build().await.unwrap();
        emit(&manager, 0..3000).await;
        let mut late = manager.listen(EventFilter::new().kinds(&["packets_lost"]).unwrap(), Some(0));
        // Half of what the bus keeps is of the other kind.
        let (numbers, missed) = packets(&mut late, 1024).await;
        assert!(missed && numbers == (1976..3000).collect::<Vec<_>>());
    }

    #[test]
    fn filters_name_what_is_wrong() {
        assert!(EventFilter::new().kinds(&["stream_stat"]).unwrap_err().contains("\"stream_state\""));
        let filter = EventFilter::new().streams(&["yard/*"]).unwrap();
        assert!(filter.passes(Some("yard/a"), "test") && filter.passes(None, "test"));
        assert!(!filter.passes(Some("door"), "test") && !filter.clone().only_streams().passes(None, "test"));
    }
}
