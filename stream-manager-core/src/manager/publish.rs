//! Streams that somebody publishes, and those that come into being by that.

use super::{BuildError, ManagerError, Stream, StreamHandle, StreamId, StreamManager};
use crate::auth::PathPattern;
use crate::event::StreamState;
use crate::source::{PublishError, PublishSlot};
use std::sync::Arc;

/// Streams that came by patterns, at one time.
const MAX_PATTERN_STREAMS: usize = 1000;

type Make = dyn Fn(&str) -> Result<Stream, BuildError> + Send + Sync;

/// Makes a stream when somebody publishes one whose id fits.
///
/// ```
/// # use stream_manager_core::manager::{Stream, StreamManager, StreamPattern};
/// # use stream_manager_core::source::PublishSource;
/// # use std::time::Duration;
/// let pattern = StreamPattern::new("cam/*".parse().unwrap(), |id| {
///     Ok(Stream::builder(id).source(PublishSource::new(true).linger(Duration::from_secs(60))))
/// });
/// let builder = StreamManager::builder().pattern(pattern);
/// ```
#[derive(Clone)]
pub struct StreamPattern {
    pattern: PathPattern,
    make: Arc<Make>,
}

impl StreamPattern {
    /// For ids that fit the pattern. The stream's source should end by itself some time after its publisher has left.
    pub fn new(
        pattern: PathPattern,
        make: impl Fn(&str) -> Result<Stream, BuildError> + Send + Sync + 'static,
    ) -> Self {
        Self { pattern, make: Arc::new(make) }
    }
}

impl StreamManager {
    /// The place for a publisher of this stream. If there is no such stream but a pattern for it, it is made.
    ///
    /// # Errors
    /// If the stream has a source of its own, does not exist, or cannot be made.
    pub fn publish(&self, id: &str) -> Result<PublishSlot, PublishError> {
        let parsed: StreamId =
            id.parse().map_err(|e: super::InvalidStreamId| PublishError::InvalidId(e.to_string()))?;
        self.forget_ended();
        if let Some(handle) = self.inner.streams.read().get(&parsed).cloned() {
            return handle.publish_slot().ok_or_else(|| PublishError::HasSource(id.to_owned()));
        }
        let unavailable = |problem: String| PublishError::Unavailable(problem);
        if self.inner.control.defined.read().get(id).is_some() {
            return Err(unavailable(format!("the stream \"{id}\" is disabled")));
        }
        let Some(pattern) = self.pattern_for(id) else {
            return Err(PublishError::NotFound(id.to_owned()));
        };
        if self.inner.streams.read().values().filter(|s| s.shared.by_pattern).count() >= MAX_PATTERN_STREAMS {
            return Err(unavailable(format!("there are {MAX_PATTERN_STREAMS} streams by patterns already")));
        }
        let stream = (pattern.make)(id).map_err(|e| unavailable(e.to_string()))?;
        match self.add(stream, true) {
            Ok(handle) => handle.publish_slot().ok_or_else(|| PublishError::HasSource(id.to_owned())),
            // Somebody else has just made it.
            Err(ManagerError::Exists(_)) => {
                let handle = self.stream(id).map_err(|e| unavailable(e.to_string()))?;
                handle.publish_slot().ok_or_else(|| PublishError::HasSource(id.to_owned()))
            }
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    fn pattern_for(&self, id: &str) -> Option<StreamPattern> {
        let own = self.inner.code_patterns.iter().find(|p| p.pattern.matches(id)).cloned();
        own.or_else(|| {
            self.inner.patterns.read().iter().map(|(_, p)| p).find(|p| p.pattern.matches(id)).cloned()
        })
    }

    /// Forgets streams that came by a pattern and have ended.
    pub(super) fn forget_ended(&self) {
        let ended = |handle: &StreamHandle| {
            handle.shared.by_pattern && handle.state().state == StreamState::Stopped && handle.is_finished()
        };
        if self.inner.streams.read().values().any(ended) {
            self.inner.streams.write().retain(|_, handle| !ended(handle));
        }
    }
}

#[cfg(feature = "rtmp")]
impl crate::rtmp::PublishDirectory for StreamManager {
    fn publish(&self, id: &str) -> Result<PublishSlot, PublishError> {
        StreamManager::publish(self, id)
    }
}

#[cfg(feature = "rtsp")]
#[async_trait::async_trait]
impl crate::rtsp::StreamDirectory for StreamManager {
    fn find(&self, id: &str) -> Option<crate::rtsp::FoundStream> {
        let handle = self.stream(id).ok()?;
        let idle = match handle.state().state {
            StreamState::Stopped => return None,
            // Waiting for a publisher; a stream that has just been made is idle for a moment, too.
            StreamState::Idle => {
                // Unless something stands in for one.
                let waits = handle.shared.fallback.is_none();
                waits && handle.publish_slot().is_some_and(|slot| !slot.is_taken())
            }
            _ => false,
        };
        Some(crate::rtsp::FoundStream { id: handle.id().shared(), hub: handle.hub().clone(), idle })
    }

    fn publish(&self, id: &str) -> Result<PublishSlot, PublishError> {
        StreamManager::publish(self, id)
    }

    async fn recorded(
        &self,
        id: &str,
        request: crate::playback::PlaybackRequest,
    ) -> Result<crate::playback::PlanFrames, crate::rtsp::NotRecorded> {
        use crate::playback::PlaybackError;
        use crate::rtsp::NotRecorded;
        self.recorded_frames(id, request).await.map_err(|error| {
            let problem = error.to_string();
            match error {
                ManagerError::NotFound(_)
                | ManagerError::NoIndex
                | ManagerError::Playback(PlaybackError::Nothing { .. }) => NotRecorded::NotFound(problem),
                ManagerError::Playback(PlaybackError::Format { .. } | PlaybackError::TooLong) => {
                    NotRecorded::Unplayable(problem)
                }
                _ => NotRecorded::Failed(problem),
            }
        })
    }

    fn lagged(&self, id: &str, reader: &str, frames: u64) {
        if let Ok(handle) = self.stream(id) {
            let consumer = reader.to_owned();
            let events = self.inner.events.for_stream(handle.id().shared());
            events.emit(crate::event::EventKind::ConsumerLagged { consumer, frames });
        }
    }
}
