//! What is known of streams: of those that run, and of those that are only defined.

use super::definition::{Definition, Origin, RecordingWish};
use super::{ManagerError, Sample, StreamHandle, StreamManager, StreamStatus};
use crate::event::{RecordingState, StreamState};
use std::sync::Arc;

/// A stream as it is defined and as it runs.
#[derive(Clone)]
pub struct StreamInfo {
    /// Its id.
    pub id: Arc<str>,
    /// Who says that it exists.
    pub origin: Origin,
    /// How it is defined, unless it came by code or by a pattern.
    pub definition: Option<Arc<Definition>>,
    /// Whether it is to run.
    pub enabled: bool,
    /// What is wished for its recording.
    pub recording: RecordingWish,
    /// Why it could not be started.
    pub problem: Option<String>,
    handle: Option<StreamHandle>,
}

/// Which streams a list is to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamFilter {
    /// In one of these states; all if empty.
    pub states: Vec<StreamState>,
    /// Whose recording is in one of these states; all if empty.
    pub recordings: Vec<RecordingState>,
    /// By their origin; all if empty.
    pub origins: Vec<Origin>,
    /// Whether they are to run.
    pub enabled: Option<bool>,
    /// With this text in the id or the source's address, in upper or lower case.
    pub search: Option<String>,
}

/// By what a list is ordered. Streams that are equal in it are ordered by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamOrder {
    /// By id.
    #[default]
    Id,
    /// By state.
    State,
    /// By when they were made; those without a definition first.
    Created,
    /// By when they were changed last; those without a definition first.
    Changed,
    /// By bits per second.
    Bitrate,
}

impl StreamInfo {
    /// How it runs, if it does.
    pub fn status(&self) -> Option<StreamStatus> {
        self.handle.as_ref().map(StreamHandle::status)
    }

    /// The running stream.
    pub fn handle(&self) -> Option<&StreamHandle> {
        self.handle.as_ref()
    }

    /// The state; `stopped` if it is not to run, `idle` for a pattern.
    pub fn state(&self) -> StreamState {
        match &self.handle {
            Some(handle) => handle.shared.state.borrow().state,
            None if self.enabled && self.definition.as_ref().is_some_and(|d| d.is_pattern()) => {
                StreamState::Idle
            }
            None => StreamState::Stopped,
        }
    }

    /// The recording's state.
    pub fn recording_state(&self) -> RecordingState {
        use crate::recording::Recorder;
        self.handle.as_ref().map_or(RecordingState::Off, |h| h.recorder().status().state)
    }

    /// What came in within the last seconds.
    pub fn latest_sample(&self) -> Option<Sample> {
        self.handle.as_ref().and_then(StreamHandle::latest_sample)
    }

    fn is_in(&self, filter: &StreamFilter) -> bool {
        let any = |empty: bool, found: bool| empty || found;
        any(filter.origins.is_empty(), filter.origins.contains(&self.origin))
            && filter.enabled.is_none_or(|enabled| enabled == self.enabled)
            && any(filter.states.is_empty(), filter.states.contains(&self.state()))
            && any(filter.recordings.is_empty(), filter.recordings.contains(&self.recording_state()))
            && filter.search.as_ref().is_none_or(|text| self.contains(text))
    }

    fn contains(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let address = match (&self.handle, &self.definition) {
            (Some(handle), _) => handle.shared.address.clone(),
            (None, Some(definition)) => crate::error::redact_url(&definition.config.source_url),
            (None, None) => String::new(),
        };
        self.id.to_lowercase().contains(&text) || address.to_lowercase().contains(&text)
    }
}

impl StreamManager {
    /// What is known of one stream.
    ///
    /// # Errors
    /// If there is none with this id, neither defined nor running.
    pub fn info(&self, id: &str) -> Result<StreamInfo, ManagerError> {
        let handle = self.stream(id);
        let definition = self.inner.control.defined.read().get(id).cloned();
        match (definition, handle) {
            (None, Err(error)) => Err(error),
            (definition, handle) => Ok(self.info_of(id.into(), definition, handle.ok())),
        }
    }

    fn info_of(
        &self,
        id: Arc<str>,
        definition: Option<Arc<Definition>>,
        handle: Option<StreamHandle>,
    ) -> StreamInfo {
        let origin = match (&definition, &handle) {
            (Some(definition), _) => definition.origin,
            (None, Some(handle)) if handle.shared.derived => Origin::Derived,
            (None, Some(handle)) if handle.shared.by_pattern => Origin::Pattern,
            (None, _) => Origin::Code,
        };
        let desired = definition.as_ref().and_then(|_| self.desired(&id));
        let problem = self.inner.control.failed.lock().get(&*id).cloned().filter(|_| handle.is_none());
        StreamInfo {
            enabled: desired.as_ref().is_none_or(|d| d.enabled),
            recording: desired.map_or(RecordingWish::Off, |d| d.recording),
            id,
            origin,
            definition,
            problem,
            handle,
        }
    }

    /// The streams that are to run and do not, and how many are to.
    pub fn failing_streams(&self) -> (Vec<String>, usize) {
        let infos = self.infos(
            &StreamFilter { enabled: Some(true), ..StreamFilter::default() },
            StreamOrder::Id,
            false,
        );
        let fails =
            |info: &&StreamInfo| info.problem.is_some() || matches!(info.state(), StreamState::Backoff);
        (infos.iter().filter(fails).map(|info| info.id.to_string()).collect(), infos.len())
    }

    /// All streams that pass a filter, in their order.
    pub fn infos(&self, filter: &StreamFilter, order: StreamOrder, descending: bool) -> Vec<StreamInfo> {
        self.forget_ended();
        let running: Vec<StreamHandle> = self.inner.streams.read().values().cloned().collect();
        let defined: Vec<Arc<Definition>> = self.inner.control.defined.read().all().cloned().collect();
        let mut infos = Vec::with_capacity(running.len().max(defined.len()));
        let (mut running, mut defined) = (running.into_iter().peekable(), defined.into_iter().peekable());
        loop {
            let (id, definition, handle) = match (running.peek(), defined.peek()) {
                (None, None) => break,
                (Some(r), Some(d)) if r.id().as_str() == d.config.id => {
                    (r.id().shared(), defined.next(), running.next())
                }
                (Some(r), Some(d)) if r.id().as_str() < d.config.id.as_str() => {
                    (r.id().shared(), None, running.next())
                }
                (_, Some(d)) => (d.config.id.as_str().into(), defined.next(), None),
                (Some(r), None) => (r.id().shared(), None, running.next()),
            };
            let info = self.info_of(id, definition, handle);
            if info.is_in(filter) {
                infos.push(info);
            }
        }
        let definition = |i: &StreamInfo| i.definition.as_ref().map(|d| (d.created, d.changed));
        match order {
            StreamOrder::Id => {}
            StreamOrder::State => infos.sort_by_cached_key(|i| i.state().rank()),
            StreamOrder::Created => infos.sort_by_cached_key(|i| definition(i).map(|d| d.0)),
            StreamOrder::Changed => infos.sort_by_cached_key(|i| definition(i).map(|d| d.1)),
            StreamOrder::Bitrate => {
                infos.sort_by_cached_key(|i| i.latest_sample().map_or(0, |s| s.bitrate_bps as u64));
            }
        }
        if descending {
            infos.reverse();
        }
        infos
    }

    /// A running stream. Unlike [`stream`](Self::stream) it tells one that is disabled from one that does not exist.
    ///
    /// # Errors
    /// If it does not run.
    pub fn running(&self, id: &str) -> Result<StreamHandle, ManagerError> {
        let handle = self.stream(id);
        if let Some(definition) = self.inner.control.defined.read().get(id).filter(|_| handle.is_err()) {
            let id = id.to_owned();
            return Err(if definition.is_pattern() {
                ManagerError::Pattern(id)
            } else {
                ManagerError::Disabled(id)
            });
        }
        handle
    }
}
