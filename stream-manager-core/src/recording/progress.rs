//! What a recorder has done so far: for its status, for listeners, and for the index.

use super::handle::RecorderStatus;
use super::ledger::Ledger;
use super::{RecorderContext, Segment};
use crate::event::{EventKind, EventSender, RecordingState};
use crate::frame::{MediaTime, WallTime};
use crate::storage::index::GapReason;
use crate::trace::{Origin, trace_span};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the writers tell about their work.
pub(super) struct Shared {
    pub(super) status: Mutex<RecorderStatus>,
    events: Option<EventSender>,
    pub(super) ledger: Ledger,
    /// Decoding time up to which the stream has been written.
    media_end: Mutex<Option<MediaTime>>,
    /// Whether nothing has been written since a gap was told of.
    in_gap: AtomicBool,
    /// A trace's span, until the first segment is there.
    opening: Mutex<Option<tracing::Span>>,
}

impl Shared {
    pub(super) fn new(status: RecorderStatus, context: &RecorderContext) -> Self {
        Self {
            status: Mutex::new(status),
            events: context.events.clone(),
            ledger: Ledger::new(context),
            media_end: Mutex::new(None),
            in_gap: AtomicBool::new(true),
            opening: Mutex::new(None),
        }
    }

    /// It is to record from here on, because of that.
    pub(super) fn opening(&self, origin: &Origin) {
        let span =
            trace_span!(apart "recorder.start", stream = self.ledger.stream(), file = tracing::field::Empty);
        *self.opening.lock() = (!span.is_disabled()).then(|| origin.adopt(span));
    }

    pub(super) fn segment_started(&self, path: PathBuf) {
        self.in_gap.store(false, Ordering::Relaxed);
        self.emit(EventKind::SegmentStarted { path: path.display().to_string() });
        if let Some(span) = self.opening.lock().take() {
            span.record("file", path.display().to_string());
        }
        self.status.lock().file = Some(path);
    }

    pub(super) fn wrote(&self, bytes: u64, duration: Duration, frames: u64) {
        let mut status = self.status.lock();
        status.bytes += bytes;
        status.duration_secs += duration.as_secs_f64();
        status.frames += frames;
    }

    pub(super) fn segment_finished(&self, segment: Segment) {
        self.emit(EventKind::SegmentFinished {
            path: segment.path.display().to_string(),
            duration_secs: segment.duration.as_secs_f64(),
            bytes: segment.bytes,
        });
        let mut status = self.status.lock();
        status.segments += 1;
        status.file = None;
        status.last_segment = Some(segment);
    }

    pub(super) fn media_reached(&self, end: MediaTime) {
        *self.media_end.lock() = Some(end);
    }

    pub(super) fn media_end(&self) -> Option<MediaTime> {
        *self.media_end.lock()
    }

    /// Frames that were not written.
    pub(super) fn lost(&self, frames: u64) {
        self.status.lock().lost_frames += frames;
        self.ledger.lost(frames);
    }

    /// Nothing is written from `at` on, or from the end of what has been written.
    pub(super) fn interrupted(&self, reason: GapReason, at: Option<WallTime>) {
        self.ledger.interrupted(reason, at);
        if !self.in_gap.swap(true, Ordering::Relaxed) {
            self.emit(EventKind::RecordingGap { reason: reason.name() });
        }
    }

    pub(super) fn emit(&self, kind: EventKind) {
        if let Some(events) = &self.events {
            events.emit(kind);
        }
    }

    pub(super) fn set_state(&self, state: RecordingState, reason: &str) {
        {
            let mut status = self.status.lock();
            if status.state == state {
                return;
            }
            status.state = state;
            reason.clone_into(&mut status.reason);
            match state {
                RecordingState::Recording => status.last_error = None,
                RecordingState::Blocked => status.file = None,
                RecordingState::Off | RecordingState::Paused | RecordingState::Waiting => {}
            }
        }
        self.emit(EventKind::RecordingState { state, reason: reason.to_owned() });
    }

    pub(super) fn state(&self) -> RecordingState {
        self.status.lock().state
    }
}
