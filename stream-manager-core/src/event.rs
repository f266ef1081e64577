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
    /// A disk is slow; nothing is lost yet.
    DiskSlow {
        /// The recordings folder on it.
        path: String,
        /// What is slow, in words.
        problem: String,
    },
    /// The disk is as fast as it should be again.
    DiskRecovered {
        /// The recordings folder on it.
        path: String,
    },
    /// Segments were deleted because they are too old or too many.
    SegmentsDeleted {
        /// How many.
        segments: u64,
        /// Their size.
        bytes: u64,
        /// Why, in words.
        reason: String,
    },
    /// A protected segment had to go, because protected ones alone fill the disk.
    ProtectedDeleted {
        /// Its file.
        path: String,
    },
    /// A limit on recordings cannot be kept.
    RetentionUnmet {
        /// Which limit.
        limit: String,
        /// Why, in words.
        problem: String,
    },
    /// That limit is kept again.
    RetentionMet {
        /// Which limit.
        limit: String,
    },
    /// The index and the files did not agree, as after a crash, and were put right.
    IndexRepaired {
        /// Unfinished segments completed.
        repaired: u64,
        /// Unknown files adopted.
        adopted: u64,
        /// Entries without a file dropped.
        dropped: u64,
        /// Files without anything in them removed.
        removed: u64,
        /// Files that cannot be read, left alone.
        damaged: u64,
    },
    /// The index was damaged. It was put aside and is made anew from the files.
    IndexDamaged {
        /// Where the old one is.
        kept_as: String,
    },
    /// Somebody has begun to read or to publish.
    SessionOpened {
        /// The session's number.
        session: u64,
        /// The protocol.
        protocol: &'static str,
        /// What it does.
        #[serde(rename = "session_kind")]
        kind: crate::session::SessionKind,
        /// From where.
        address: String,
    },
    /// A session has ended.
    SessionClosed {
        /// The session's number.
        session: u64,
        /// Why, in words.
        reason: String,
    },
    /// The source lost packets on the way.
    PacketsLost {
        /// How many RTP packets.
        packets: u64,
    },
}

/// One event of one stream, or of the whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub time: WallTime,
    /// Which stream; none if it concerns the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Arc<str>>,
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

    /// Emits an event that concerns no single stream.
    pub fn emit(&self, kind: EventKind) {
        tracing::debug!(event = ?kind, "event");
        // An error only says that nobody listens.
        let _ = self.sender.send(Event { time: WallTime::now(), stream: None, kind });
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
        let event = Event { time: WallTime::now(), stream: Some(self.stream.clone()), kind };
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
