//! What happens to streams, as values that anyone may listen to.
//!
//! Every change of state and every failure becomes an [`Event`] on the manager's [`EventBus`]. The bus
//! never blocks a sender: a listener that falls behind by more than the bus's length is told how many
//! events it missed.

use crate::frame::WallTime;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Where a stream's supervisor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// Made, not started.
    Idle,
    /// Waiting for its turn to connect, or connecting.
    Connecting,
    /// Frames arrive.
    Running,
    /// Failed; waiting before the next attempt.
    Backoff,
    /// Ended, by request or because its source had an end.
    Stopped,
}

/// Where a stream's recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordingState {
    /// Nothing is recorded.
    Off,
    /// Frames go to disk (or will, as soon as the stream has some).
    Recording,
    /// Held by request.
    Paused,
    /// Cannot write; retried by itself.
    Blocked,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A stream's supervisor changed state.
    StreamState {
        /// The new state.
        state: StreamState,
        /// Why, in words.
        reason: String,
    },
    /// A stream's recording changed state.
    RecordingState {
        /// The new state.
        state: RecordingState,
        /// Why, in words.
        reason: String,
    },
    /// A segment file was begun.
    SegmentStarted {
        /// Its path.
        path: String,
    },
    /// A segment file is complete.
    SegmentFinished {
        /// Its path.
        path: String,
        /// Its length in seconds.
        duration_secs: f64,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A consumer was too slow and lost whole GOPs.
    ConsumerLagged {
        /// The consumer's name.
        consumer: String,
        /// How many frames it lost.
        frames: u64,
    },
    /// The source lost packets on the way.
    PacketsLost {
        /// How many RTP packets.
        packets: u64,
    },
}

/// One event of one stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub time: WallTime,
    /// Which stream.
    pub stream: Arc<str>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Hands events to any number of listeners.
#[derive(Clone, Debug)]
pub struct EventBus {
    sender: broadcast::Sender<Event>,
}

impl EventBus {
    /// A bus that keeps the last `length` events for slow listeners.
    pub fn new(length: usize) -> Self {
        Self { sender: broadcast::channel(length.max(1)).0 }
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
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
        tracing::debug!(stream = %self.stream, event = ?kind, "event");
        let event = Event { time: WallTime::now(), stream: self.stream.clone(), kind };
        // An error only says that nobody listens.
        let _ = self.bus.sender.send(event);
    }

    /// The stream it speaks for.
    pub fn stream(&self) -> &str {
        &self.stream
    }
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new(1024)
    }
}
