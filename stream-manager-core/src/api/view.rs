//! How streams look in answers.

use crate::event::{RecordingState, StreamState};
use crate::frame::WallTime;
use crate::manager::{StreamStatus, TrackInfo};
use crate::recording::{RecorderStatus, Segment};
use serde::Serialize;

/// A stream.
#[derive(Clone, Debug, Serialize)]
pub struct StreamView {
    id: String,
    state: StreamState,
    reason: String,
    since: WallTime,
    /// Without secrets.
    source_url: String,
    tracks: Vec<TrackInfo>,
    frames: u64,
    bytes: u64,
    packets_lost: u64,
    failed_attempts: u32,
    next_attempt: Option<WallTime>,
    last_error: Option<String>,
    consumers: Vec<ConsumerView>,
    recording: RecordingView,
}

#[derive(Clone, Debug, Serialize)]
struct ConsumerView {
    name: String,
    frames: u64,
    dropped_frames: u64,
    queued_frames: usize,
    lag_secs: f64,
}

/// A stream's recording.
#[derive(Clone, Debug, Serialize)]
pub struct RecordingView {
    enabled: bool,
    state: RecordingState,
    reason: String,
    file: Option<String>,
    bytes: u64,
    duration_secs: f64,
    frames: u64,
    lost_frames: u64,
    segments: u64,
    last_error: Option<String>,
    last_segment: Option<Segment>,
}

impl From<RecorderStatus> for RecordingView {
    fn from(status: RecorderStatus) -> Self {
        Self {
            enabled: status.state != RecordingState::Off,
            state: status.state,
            reason: status.reason,
            file: status.file.map(|f| f.display().to_string()),
            bytes: status.bytes,
            duration_secs: status.duration_secs,
            frames: status.frames,
            lost_frames: status.lost_frames,
            segments: status.segments,
            last_error: status.last_error,
            last_segment: status.last_segment,
        }
    }
}

impl StreamView {
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

impl From<StreamStatus> for StreamView {
    fn from(status: StreamStatus) -> Self {
        let consumers = status
            .consumers
            .into_iter()
            .map(|(name, c)| ConsumerView {
                name,
                frames: c.frames,
                dropped_frames: c.dropped_frames,
                queued_frames: c.queued_frames,
                lag_secs: c.lag.as_secs_f64(),
            })
            .collect();
        Self {
            id: status.id.to_string(),
            state: status.state.state,
            reason: status.state.reason,
            since: status.state.since,
            source_url: status.source,
            tracks: status.tracks,
            frames: status.hub.frames,
            bytes: status.hub.bytes,
            packets_lost: status.hub.packets_lost,
            failed_attempts: status.state.failed_attempts,
            next_attempt: status.state.next_attempt,
            last_error: status.state.last_error,
            consumers,
            recording: status.recording.into(),
        }
    }
}
