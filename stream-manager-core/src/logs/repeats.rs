//! Lines that come again and again: a few are written, the rest are counted.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// What is counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// One place in the program says so much more about one stream than the same words.
const PLACE_FACTOR: u32 = 6;
/// Kinds of lines that are counted at one time; what comes beyond is written.
const MAX_KINDS: usize = 4096;

/// Limits how often warnings and errors are written, for all layers of a subscriber: the same words, and what one place in the
/// program says about one stream. Clones count together.
///
/// ```
/// use stream_manager_core::logs::{LogRing, RepeatLimit};
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let (limit, ring) = (RepeatLimit::new(2), LogRing::new(100));
/// tracing::subscriber::with_default(tracing_subscriber::registry().with(ring.clone()).with(limit.clone()), || {
///     for _ in 0..10 {
///         tracing::warn!(stream = "door", "no frames");
///     }
///     tracing::warn!(stream = "gate", "no frames");
/// });
/// assert_eq!(ring.lines().len(), 3);
/// assert_eq!(limit.held_back(), 8);
/// ```
#[derive(Clone, Debug)]
pub struct RepeatLimit {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// No limit if none.
    most: u32,
    kinds: HashMap<u64, Kind>,
    held_back: u64,
}

#[derive(Debug)]
struct Kind {
    begun: Instant,
    written: u32,
    held_back: u64,
    level: Level,
    stream: Option<String>,
    message: String,
}

impl RepeatLimit {
    /// So many times a minute the same; 0 for no limit.
    pub fn new(most: u32) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { most, kinds: HashMap::new(), held_back: 0 })) }
    }

    /// Sets another limit.
    pub fn change(&self, most: u32) {
        self.shared.lock().most = most;
    }

    /// How many lines were not written.
    pub fn held_back(&self) -> u64 {
        self.shared.lock().held_back
    }

    /// Says of each kind whose minute is over how many were not written. To be called now and then.
    pub fn tell(&self) {
        let mut over = Vec::new();
        self.shared.lock().kinds.retain(|_, kind| {
            let is_over = kind.begun.elapsed() >= WINDOW;
            if is_over && kind.held_back > 0 {
                let message = std::mem::take(&mut kind.message);
                over.push((kind.level, kind.stream.take(), message, kind.held_back));
            }
            !is_over
        });
        for (level, stream, message, times) in over {
            if level == Level::ERROR {
                tracing::error!(stream, times, "said again within a minute, and not written: {message}");
            } else {
                tracing::warn!(stream, times, "said again within a minute, and not written: {message}");
            }
        }
    }
}

impl Shared {
    fn lets(&mut self, key: u64, most: u32, make: impl FnOnce() -> Kind) -> bool {
        let count = self.kinds.len();
        let kind = match self.kinds.entry(key) {
            std::collections::hash_map::Entry::Occupied(kind) => kind.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) if count < MAX_KINDS => place.insert(make()),
            std::collections::hash_map::Entry::Vacant(_) => return true,
        };
        // Its count is told before it begins anew.
        if kind.begun.elapsed() >= WINDOW && kind.held_back == 0 {
            (kind.begun, kind.written) = (Instant::now(), 0);
        }
        if kind.written < most {
            kind.written += 1;
            return true;
        }
        kind.held_back += 1;
        self.held_back += 1;
        false
    }
}

/// What is said, and about which stream.
struct Said {
    words: DefaultHasher,
    stream: Option<String>,
    message: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        (field.name(), value).hash(&mut self.words);
        match field.name() {
            "message" => self.message = value.chars().take(300).collect(),
            "stream" => self.stream = Some(value.to_owned()),
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for RepeatLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // What is told of them is one itself.
        if *metadata.level() > Level::WARN || metadata.target() == module_path!() {
            return true;
        }
        let mut said = Said { words: DefaultHasher::new(), stream: None, message: String::new() };
        metadata.callsite().hash(&mut said.words);
        event.record(&mut said);
        let mut place = DefaultHasher::new();
        (metadata.callsite(), &said.stream, "place").hash(&mut place);
        let make = || Kind {
            begun: Instant::now(),
            written: 0,
            held_back: 0,
            level: *metadata.level(),
            stream: said.stream.clone(),
            message: said.message.clone(),
        };
        let mut shared = self.shared.lock();
        let most = shared.most;
        most == 0
            || (shared.lets(said.words.finish(), most, make)
                && shared.lets(place.finish(), most.saturating_mul(PLACE_FACTOR), make))
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogRing;
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn what_varies_is_limited_by_its_place() {
        let (limit, ring) = (RepeatLimit::new(2), LogRing::new(1000));
        let subscriber = tracing_subscriber::registry().with(ring.clone()).with(limit.clone());
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..100 {
                tracing::error!(stream = "door", n, "a number");
                tracing::info!(stream = "door", "what is no trouble is not limited");
            }
            // Another stream has its own.
            tracing::error!(stream = "gate", "a number");
            // Minutes are over.
            limit.shared.lock().kinds.values_mut().for_each(|kind| kind.begun -= WINDOW);
            limit.tell();
        });
        let lines = ring.lines();
        let count = |text: &str| lines.iter().filter(|line| line.message.starts_with(text)).count();
        assert_eq!(count("a number"), 12 + 1);
        assert_eq!(count("what is no trouble"), 100);
        let told: Vec<_> = lines.iter().filter(|line| line.message.starts_with("said again")).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].stream.as_deref(), told[0].fields["times"].as_str()), (Some("door"), "88"));
        assert!(limit.shared.lock().kinds.is_empty());
    }

    #[test]
    fn without_a_limit_everything_is_written() {
        let (limit, ring) = (RepeatLimit::new(0), LogRing::new(1000));
        let subscriber = tracing_subscriber::registry().with(ring.clone()).with(limit);
        tracing::subscriber::with_default(subscriber, || (0..50).for_each(|_| tracing::warn!("again")));
        assert_eq!(ring.lines().len(), 50);
    }
}
