//! The log: its last lines for people who only have the API, what of it is written, and how often.
//!
//! [`LogFilter`] and [`RepeatLimit`] are layers that decide for all others of a `tracing` subscriber. [`LogRing`] is a layer for a `tracing` subscriber of the program's own: it keeps a bounded number of lines and hands
//! new ones to listeners. The library installs nothing.
//!
//! ```
//! use stream_manager_core::logs::LogRing;
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! let ring = LogRing::new(1000);
//! let subscriber = tracing_subscriber::registry().with(ring.clone());
//! tracing::subscriber::with_default(subscriber, || tracing::warn!(stream = "door", "no frames"));
//! let line = ring.lines().pop().unwrap();
//! assert_eq!((line.message.as_str(), line.stream.as_deref()), ("no frames", Some("door")));
//! ```

mod filter;
mod repeats;

pub use filter::{LogFilter, is_trace};
pub use repeats::RepeatLimit;

pub use crate::config::LogLevel;

use crate::frame::WallTime;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Longer texts are cut.
const MAX_TEXT: usize = 4096;

impl LogLevel {
    /// As `tracing` has it.
    fn level(self) -> Level {
        match self {
            Self::Error => Level::ERROR,
            Self::Warn => Level::WARN,
            Self::Info => Level::INFO,
            Self::Debug => Level::DEBUG,
            Self::Trace => Level::TRACE,
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LogLine {
    /// Its number, greater than any before.
    pub id: u64,
    /// When.
    pub time: WallTime,
    /// How bad it is.
    pub level: LogLevel,
    /// The module that says so.
    pub target: &'static str,
    /// The stream that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What it says.
    pub message: String,
    /// What it says besides.
    pub fields: BTreeMap<&'static str, String>,
}

/// Keeps the last lines. Clones are handles to the same ring.
#[derive(Clone, Debug)]
pub struct LogRing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    length: usize,
    kept: Mutex<Kept>,
    sender: broadcast::Sender<Arc<LogLine>>,
}

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    lines: VecDeque<Arc<LogLine>>,
}

impl LogRing {
    /// A ring of this many lines.
    pub fn new(length: usize) -> Self {
        let length = length.max(1);
        let sender = broadcast::channel(length.min(1024)).0;
        Self { shared: Arc::new(Shared { length, kept: Mutex::default(), sender }) }
    }

    /// The lines that are kept, oldest first.
    pub fn lines(&self) -> Vec<Arc<LogLine>> {
        self.shared.kept.lock().lines.iter().cloned().collect()
    }

    /// The lines that are kept, and all that come.
    pub fn follow(&self) -> (Vec<Arc<LogLine>>, broadcast::Receiver<Arc<LogLine>>) {
        let kept = self.shared.kept.lock();
        (kept.lines.iter().cloned().collect(), self.shared.sender.subscribe())
    }
}

impl<S: Subscriber> Layer<S> for LogRing {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        };
        let mut kept = self.shared.kept.lock();
        kept.next += 1;
        let line = Arc::new(LogLine {
            id: kept.next,
            time: WallTime::now(),
            level,
            target: metadata.target(),
            stream: fields.stream,
            message: fields.message,
            fields: fields.others,
        });
        if kept.lines.len() == self.shared.length {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line.clone());
        // An error only says that nobody listens.
        let _ = self.shared.sender.send(line);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    stream: Option<String>,
    others: BTreeMap<&'static str, String>,
}

impl Fields {
    fn put(&mut self, field: &Field, mut text: String) {
        if text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        match field.name() {
            "message" => self.message = text,
            "stream" => self.stream = Some(text),
            name => drop(self.others.insert(name, text)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }
}
