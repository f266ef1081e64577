//! What happens to streams, as values that anyone may listen to.
//!
//! Every change of state and every failure becomes an [`Event`] with a number on the manager's [`EventBus`]. The
//! bus never blocks a sender: a listener that falls behind by more than the bus's length is told how many
//! events it missed. The last ones are kept, so that a listener may begin a little in the past.

mod kind;

use crate::frame::WallTime;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use tokio::sync::broadcast;

pub use kind::{CameraWords, EventKind, RecordingState, StreamState};

/// One event of one stream, or of the whole.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Event {
    /// Its number: greater than that of any event before, also over restarts if there is a data folder.
    pub id: u64,
    /// When.
    pub time: WallTime,
    /// Which stream; none if it concerns the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Arc<str>>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
    /// Made once for all listeners.
    #[serde(skip)]
    json: OnceLock<Arc<str>>,
}

impl Event {
    /// As JSON, on one line.
    pub fn json(&self) -> Arc<str> {
        self.json.get_or_init(|| serde_json::to_string(self).unwrap_or_default().into()).clone()
    }
}

/// Hands events to any number of listeners. Clones are handles to the same bus.
#[derive(Clone, Debug)]
pub struct EventBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sender: broadcast::Sender<Arc<Event>>,
    kept: Mutex<Kept>,
    length: usize,
}

/// The last events. Numbers are given and events sent under its lock, so that both are in one order.
#[derive(Debug)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    next_id: u64,
    /// The last number that is not kept any more.
    forgotten: u64,
}

/// A place in the bus: what is kept behind a number, and all that comes.
#[derive(Debug)]
pub struct Subscription {
    /// Kept events with greater numbers, oldest first.
    pub kept: Vec<Arc<Event>>,
    /// Whether there have been events in between that are no longer kept.
    pub incomplete: bool,
    /// What comes from now on.
    pub receiver: broadcast::Receiver<Arc<Event>>,
}

impl EventBus {
    /// A bus that keeps the last `length` events for slow listeners.
    pub fn new(length: usize) -> Self {
        let length = length.max(1);
        let kept = Kept { events: VecDeque::new(), next_id: 1, forgotten: 0 };
        let shared = Shared { sender: broadcast::channel(length).0, kept: Mutex::new(kept), length };
        Self { shared: Arc::new(shared) }
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.sender.subscribe()
    }

    /// Listens from behind this number on.
    pub fn subscribe_after(&self, id: u64) -> Subscription {
        let kept = self.shared.kept.lock();
        Subscription {
            kept: kept.events.iter().filter(|event| event.id > id).cloned().collect(),
            incomplete: id < kept.forgotten,
            receiver: self.shared.sender.subscribe(),
        }
    }

    /// The number of the last event.
    pub fn last_id(&self) -> u64 {
        self.shared.kept.lock().next_id - 1
    }

    /// Goes on behind the numbers of an earlier run: all of them up to `id` have been given out.
    pub fn continue_after(&self, id: u64) {
        let mut kept = self.shared.kept.lock();
        if kept.next_id <= id {
            kept.next_id = id + 1;
            kept.forgotten = id;
        }
    }

    /// Emits an event that concerns no single stream.
    pub fn emit(&self, kind: EventKind) {
        self.send(None, kind);
    }

    fn send(&self, stream: Option<Arc<str>>, kind: EventKind) {
        tracing::debug!(stream = stream.as_deref(), event = ?kind, "event");
        let mut kept = self.shared.kept.lock();
        let (id, time) = (kept.next_id, WallTime::now());
        let event = Arc::new(Event { id, time, stream, kind, json: OnceLock::new() });
        kept.next_id += 1;
        if kept.events.len() == self.shared.length
            && let Some(oldest) = kept.events.pop_front()
        {
            kept.forgotten = oldest.id;
        }
        kept.events.push_back(event.clone());
        // An error only says that nobody listens.
        let _ = self.shared.sender.send(event);
    }

    /// A handle that speaks for one stream.
    pub fn for_stream(&self, stream: Arc<str>) -> EventSender {
        EventSender { bus: self.clone(), stream }
    }
}

/// Emits the events of one stream.
#[derive(Clone, Debug)]
pub struct EventSender {
    bus: EventBus,
    stream: Arc<str>,
}

impl EventSender {
    /// Emits an event; without a listener it goes nowhere but the log.
    pub fn emit(&self, kind: EventKind) {
        self.bus.send(Some(self.stream.clone()), kind);
    }

    /// The stream it speaks for.
    pub fn stream(&self) -> &str {
        &self.stream
    }
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new(2048)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_and_the_last_events_are_kept() {
        let bus = EventBus::new(3);
        bus.continue_after(100);
        for packets in 1..=5 {
            bus.emit(EventKind::PacketsLost { packets });
        }
        let ids = |s: &Subscription| s.kept.iter().map(|e| e.id).collect::<Vec<_>>();
        assert_eq!(bus.last_id(), 105);
        let all = bus.subscribe_after(0);
        assert!(all.incomplete);
        assert_eq!(ids(&all), [103, 104, 105]);
        let rest = bus.subscribe_after(102);
        assert!(!rest.incomplete && ids(&rest) == [103, 104, 105]);
        assert!(bus.subscribe_after(105).kept.is_empty());
    }
}
