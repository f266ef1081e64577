//! How streams look in answers.

use super::ApiState;
use crate::config::StreamConfig;
use crate::error::redact_url;
use crate::event::{RecordingState, StreamState};
use crate::frame::WallTime;
use crate::manager::{Definition, Origin, RecordingWish, Sample, StreamInfo, StreamStatus, TrackInfo};
use crate::recording::{RecorderStatus, Segment};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// A stream.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StreamView {
    /// Its id. With a `*` in it, it stands for all streams that are published with an id that fits.
    id: String,
    /// Who says that it exists.
    origin: Origin,
    /// Whether it is to run.
    enabled: bool,
    /// The number of its configuration's last change, which is its ETag. None if it has no configuration.
    revision: Option<u64>,
    state: StreamState,
    /// Why it is in this state, in words.
    reason: String,
    since: Option<WallTime>,
    /// Without secrets.
    source_url: String,
    tracks: Vec<TrackInfo>,
    frames: u64,
    bytes: u64,
    packets_lost: u64,
    /// Bits per second within the last seconds.
    bitrate_bps: Option<f64>,
    /// Frames of video per second within the last seconds; of all tracks if there is none.
    frame_rate: Option<f64>,
    failed_attempts: u32,
    next_attempt: Option<WallTime>,
    last_error: Option<String>,
    /// How many watch it, by protocol.
    readers: BTreeMap<String, u64>,
    consumers: Vec<ConsumerView>,
    recording: RecordingView,
    /// Its analysis; none if it does not run.
    #[cfg(feature = "inference")]
    inference: Option<InferenceView>,
    /// How it is packaged for players; none if it does not run.
    #[cfg(feature = "hls")]
    hls: Option<crate::hls::PackagerStatus>,
    /// How what it is sent on to stands.
    forwards: Vec<crate::sink::forward::ForwardStatus>,
    /// How what stands in for its source stands; none if there is nothing, or it does not run.
    fallback: Option<crate::manager::FallbackStatus>,
    /// How the camera is listened to; none if it is not, or the stream does not run.
    #[cfg(feature = "onvif")]
    camera_events: Option<crate::onvif::CameraEventsStatus>,
    /// The ids of the streams that are made of it.
    renditions: Vec<String>,
    /// Where it can be had, by protocol.
    addresses: BTreeMap<String, String>,
    /// As it is configured, without secrets and without what is left to the defaults.
    config: Option<StreamConfig>,
    created: Option<WallTime>,
    changed: Option<WallTime>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
struct ConsumerView {
    name: String,
    frames: u64,
    dropped_frames: u64,
    queued_frames: usize,
    lag_secs: f64,
}

/// A stream's analysis, in short.
#[cfg(feature = "inference")]
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct InferenceView {
    state: crate::inference::AnalysisState,
    /// Why it is in this state, in words.
    reason: String,
    /// The model.
    model: Option<String>,
    /// Pictures analysed in a second, over the last seconds.
    fps: f64,
}

#[cfg(feature = "inference")]
impl From<crate::inference::AnalysisStatus> for InferenceView {
    fn from(status: crate::inference::AnalysisStatus) -> Self {
        Self { state: status.state, reason: status.reason, model: status.model, fps: status.fps }
    }
}

/// A stream's recording.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RecordingView {
    /// Whether it is recorded, or would be if nothing were in the way.
    enabled: bool,
    state: RecordingState,
    /// Why it is in this state, in words.
    reason: String,
    /// The file that is being written.
    file: Option<String>,
    bytes: u64,
    duration_secs: f64,
    frames: u64,
    lost_frames: u64,
    segments: u64,
    last_error: Option<String>,
    last_segment: Option<Segment>,
    /// When it records by itself: `continuous`, `schedule`, `event`.
    modes: Vec<String>,
    /// What is kept in memory of what came before an event.
    pre_roll_bytes: u64,
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
            modes: status.modes.into_iter().map(Into::into).collect(),
            pre_roll_bytes: status.pre_roll_bytes,
        }
    }
}

impl RecordingView {
    fn off(wish: RecordingWish) -> Self {
        Self {
            enabled: wish != RecordingWish::Off,
            state: RecordingState::Off,
            reason: "the stream does not run".into(),
            file: None,
            bytes: 0,
            duration_secs: 0.0,
            frames: 0,
            lost_frames: 0,
            segments: 0,
            last_error: None,
            last_segment: None,
            modes: Vec::new(),
            pre_roll_bytes: 0,
        }
    }
}

impl StreamView {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// A stream that is only defined so far.
    pub(super) fn defined(definition: &Definition, enabled: bool, recording: RecordingWish) -> Self {
        let id = definition.config.id.clone();
        Self::known(id, definition.origin, enabled, recording).with_definition(definition)
    }

    /// A stream of which only this is known.
    fn known(id: String, origin: Origin, enabled: bool, recording: RecordingWish) -> Self {
        Self {
            id,
            origin,
            enabled,
            revision: None,
            state: StreamState::Stopped,
            reason: String::new(),
            since: None,
            source_url: String::new(),
            tracks: Vec::new(),
            frames: 0,
            bytes: 0,
            packets_lost: 0,
            bitrate_bps: None,
            frame_rate: None,
            failed_attempts: 0,
            next_attempt: None,
            last_error: None,
            readers: BTreeMap::new(),
            consumers: Vec::new(),
            recording: RecordingView::off(recording),
            #[cfg(feature = "inference")]
            inference: None,
            #[cfg(feature = "hls")]
            hls: None,
            forwards: Vec::new(),
            #[cfg(feature = "onvif")]
            camera_events: None,
            fallback: None,
            renditions: Vec::new(),
            addresses: BTreeMap::new(),
            config: None,
            created: None,
            changed: None,
        }
    }

    fn with_definition(mut self, definition: &Definition) -> Self {
        let (state, reason) = match (self.enabled, definition.is_pattern()) {
            (true, true) => (StreamState::Idle, "stands for the streams that are published"),
            (true, false) => (StreamState::Idle, "about to start"),
            (false, _) => (StreamState::Stopped, "disabled"),
        };
        (self.state, self.reason) = (state, reason.into());
        self.revision = Some(definition.revision);
        self.source_url = redact_url(&definition.config.source_url);
        self.config = Some(definition.config.shown());
        self.created = Some(definition.created);
        self.changed = Some(definition.changed);
        self
    }

    /// A stream as it is. `host` is what the caller calls this machine.
    pub(super) fn of(info: &StreamInfo, state: &ApiState, host: Option<&str>) -> Self {
        let mut view = Self::known(info.id.to_string(), info.origin, info.enabled, info.recording);
        if let Some(definition) = &info.definition {
            view = view.with_definition(definition);
        }
        if let Some(problem) = &info.problem {
            view.state = StreamState::Stopped;
            view.reason = "it could not be started".into();
            view.last_error = Some(problem.clone());
        }
        #[cfg(feature = "inference")]
        {
            view.inference = info.handle().map(|h| InferenceView::from(h.analysis().status()));
        }
        #[cfg(feature = "hls")]
        {
            view.hls = info.handle().map(|h| h.packager().status());
        }
        if let Some(status) = info.status() {
            view = view.with_status(status, info.latest_sample());
        }
        if view.state != StreamState::Stopped && !view.id.contains('*') {
            #[cfg(feature = "hls")]
            let packaged = state.manager.config().hls.enabled
                && info.handle().is_some_and(|h| h.packager().settings().enabled);
            #[cfg(not(feature = "hls"))]
            let packaged = false;
            let made = info.handle().map_or(&[][..], crate::manager::StreamHandle::renditions);
            view.renditions = made.iter().map(|made| made.id().to_string()).collect();
            let published = info.handle().is_some_and(|h| h.publish_slot().is_some());
            let (ports, host) = (&state.options.ports, host.unwrap_or("localhost"));
            view.addresses = ports.addresses(host, &view.id, packaged, published);
        }
        view
    }

    fn with_status(mut self, status: StreamStatus, sample: Option<Sample>) -> Self {
        self.state = status.state.state;
        self.reason = status.state.reason;
        self.since = Some(status.state.since);
        self.source_url = status.source;
        self.tracks = status.tracks;
        self.frames = status.hub.frames;
        self.bytes = status.hub.bytes;
        self.packets_lost = status.hub.packets_lost;
        self.bitrate_bps = sample.map(|s| s.bitrate_bps);
        self.frame_rate = sample.map(|s| s.frame_rate);
        self.failed_attempts = status.state.failed_attempts;
        self.next_attempt = status.state.next_attempt;
        self.last_error = status.state.last_error;
        self.recording = status.recording.into();
        self.forwards = status.forwards;
        self.fallback = status.fallback;
        #[cfg(feature = "onvif")]
        {
            self.camera_events = status.camera_events;
        }
        self.consumers = status
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
        self
    }

    /// Where it can be had, by protocol.
    pub(super) fn into_addresses(self) -> BTreeMap<String, String> {
        self.addresses
    }

    /// Counts who watches it.
    pub(super) fn with_readers(mut self, readers: Option<&BTreeMap<String, u64>>) -> Self {
        self.readers = readers.cloned().unwrap_or_default();
        self
    }
}
