//! What of the log is written: by module, and by stream.

use super::LogLevel;
use crate::auth::PathPattern;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Decides what is logged, for all layers of a subscriber; can be changed while it is in use. Clones are handles to the same.
///
/// ```
/// use std::collections::BTreeMap;
/// use stream_manager_core::logs::{LogFilter, LogLevel, LogRing};
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let streams = BTreeMap::from([("door".to_owned(), LogLevel::Debug), ("yard/*".to_owned(), LogLevel::Error)]);
/// let (filter, ring) = (LogFilter::new("info", &streams).unwrap(), LogRing::new(10));
/// tracing::subscriber::with_default(tracing_subscriber::registry().with(ring.clone()).with(filter), || {
///     tracing::debug!(stream = "door", "one");
///     tracing::debug!(stream = "gate", "too little");
///     tracing::warn!(stream = "yard/left", "too little");
///     tracing::info!("two");
/// });
/// let lines: Vec<String> = ring.lines().iter().map(|line| line.message.clone()).collect();
/// assert_eq!(lines, ["one", "two"]);
/// ```
#[derive(Clone)]
pub struct LogFilter {
    /// Read recursively: what is formatted for a line may log itself.
    rules: Arc<RwLock<Rules>>,
    /// Spans of traces pass, whatever the rules say.
    traces: Arc<AtomicBool>,
}

struct Rules {
    modules: EnvFilter,
    streams: Vec<(PathPattern, Level)>,
    /// The most that any stream's rule lets through.
    most: LevelFilter,
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFilter")
            .field("modules", &self.rules.read_recursive().modules.to_string())
            .finish_non_exhaustive()
    }
}

fn rules(modules: &str, streams: &BTreeMap<String, LogLevel>) -> Result<Rules, String> {
    let modules = EnvFilter::builder()
        .parse(modules)
        .map_err(|e| format!("log filter \"{modules}\": {e}; expected error, warn, info, debug or trace"))?;
    let read = |(pattern, level): (&String, &LogLevel)| {
        let pattern: PathPattern = pattern.parse().map_err(|e| format!("\"{pattern}\": {e}"))?;
        Ok::<_, String>((pattern, level.level()))
    };
    // What is said of one stream goes before what is said of many.
    let mut streams: Vec<_> = streams.iter().collect();
    streams.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.replace('*', "").len()));
    let streams = streams.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let most = streams.iter().map(|(_, level)| LevelFilter::from_level(*level)).max();
    Ok(Rules { modules, streams, most: most.unwrap_or(LevelFilter::OFF) })
}

impl LogFilter {
    /// From a filter by modules, such as `info,stream_manager_core::source=debug`, and levels of streams by their ids, in which `*` stands
    /// for anything. A stream's level holds for lines that say that they are about it, instead of the filter by modules.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn new(modules: &str, streams: &BTreeMap<String, LogLevel>) -> Result<Self, String> {
        Ok(Self { rules: Arc::new(RwLock::new(rules(modules, streams)?)), traces: Arc::default() })
    }

    /// Sets other rules.
    ///
    /// # Errors
    /// As [`new`](Self::new); the old ones stay.
    pub fn change(&self, modules: &str, streams: &BTreeMap<String, LogLevel>) -> Result<(), String> {
        *self.rules.write() = rules(modules, streams)?;
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Whether spans of traces are let through, for a layer that sends them on.
    pub fn let_traces_through(&self, traces: bool) {
        self.traces.store(traces, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Whether this is a span of a trace, which is no business of the log's.
pub fn is_trace(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == crate::trace::TARGET
}

#[derive(Default)]
struct StreamOf(Option<String>);

impl Visit for StreamOf {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "stream" {
            self.0 = Some(format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "stream" {
            self.0 = Some(value.to_owned());
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_trace(metadata) {
            return if self.traces.load(Ordering::Relaxed) { Interest::always() } else { Interest::never() };
        }
        let rules = self.rules.read_recursive();
        if metadata.is_event() && !rules.streams.is_empty() && *metadata.level() <= rules.most {
            return Interest::sometimes();
        }
        Layer::<S>::register_callsite(&rules.modules, metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        if is_trace(metadata) {
            return self.traces.load(Ordering::Relaxed);
        }
        let rules = self.rules.read_recursive();
        (metadata.is_event() && *metadata.level() <= rules.most)
            || Layer::<S>::enabled(&rules.modules, metadata, context)
    }

    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        let rules = self.rules.read_recursive();
        if rules.streams.is_empty() {
            return true;
        }
        let mut stream = StreamOf::default();
        event.record(&mut stream);
        let level = stream.0.and_then(|stream| {
            rules.streams.iter().find(|(pattern, _)| pattern.matches(&stream)).map(|(_, level)| *level)
        });
        match level {
            Some(level) => *event.metadata().level() <= level,
            None => Layer::<S>::enabled(&rules.modules, event.metadata(), context),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let rules = self.rules.read_recursive();
        let traces = if self.traces.load(Ordering::Relaxed) { LevelFilter::INFO } else { LevelFilter::OFF };
        Some(Layer::<S>::max_level_hint(&rules.modules)?.max(rules.most).max(traces))
    }
}
