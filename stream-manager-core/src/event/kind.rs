//! What can happen, and the states that are told of.

use serde::Serialize;
use std::collections::BTreeMap;

/// Where a stream's supervisor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize, schemars::JsonSchema)]
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

impl StreamState {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Idle, Self::Connecting, Self::Running, Self::Backoff, Self::Stopped];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Stopped => "stopped",
        }
    }

    /// Its place in a list by state: what works least comes first.
    pub fn rank(self) -> u8 {
        match self {
            Self::Backoff => 0,
            Self::Connecting => 1,
            Self::Stopped => 2,
            Self::Idle => 3,
            Self::Running => 4,
        }
    }
}

/// Where a stream's recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize, schemars::JsonSchema)]
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
    /// Its modes want nothing recorded at the moment: it waits for an event, or its schedule.
    Waiting,
}

impl RecordingState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Recording => "recording",
            Self::Paused => "paused",
            Self::Blocked => "blocked",
            Self::Waiting => "waiting",
        }
    }
}

/// What a camera says, by its own names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct CameraWords(pub BTreeMap<String, String>);

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
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
    /// Nothing is recorded from here on, until the next segment begins.
    RecordingGap {
        /// Why: `source`, `paused`, `stopped`, `shutdown`, `disk_full`, `disk_error`, `disk_slow`, `format` or others.
        reason: &'static str,
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
    /// A stream was made through the API, or has come into the configuration file.
    StreamCreated {
        /// Who says that it exists.
        origin: &'static str,
    },
    /// A stream's configuration was changed.
    StreamChanged {
        /// Who says that it exists.
        origin: &'static str,
        /// What that took: `live`, or `restart` of the stream.
        effect: &'static str,
    },
    /// A stream was deleted.
    StreamDeleted {
        /// Who said that it exists.
        origin: &'static str,
    },
    /// A new configuration is in force.
    ConfigReloaded {
        /// Why it was read: `file`, `signal`, `request`.
        trigger: &'static str,
        /// The keys that have changed.
        changed: Vec<String>,
        /// Of these, the ones that need a restart of the process, and have the old value until then.
        needs_restart: Vec<String>,
    },
    /// A new configuration was refused; the old one stays in force.
    ConfigRejected {
        /// Why it was read: `file`, `signal`, `request`.
        trigger: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A disk has less room than is to be kept free, and nothing that may be deleted.
    StorageLow {
        /// The recordings folder on it.
        path: String,
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes that should be.
        wanted_bytes: u64,
    },
    /// The disk has enough room again.
    StorageRecovered {
        /// The recordings folder on it.
        path: String,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// Some part of the server works no longer, or works again.
    Health {
        /// Which part.
        component: &'static str,
        /// Whether it works.
        healthy: bool,
        /// What is the matter.
        problem: String,
    },
    /// A hook could not be carried out.
    HookFailed {
        /// Its name.
        hook: String,
        /// Why, in words.
        problem: String,
        /// Whether it was the last attempt.
        given_up: bool,
    },
    /// A span of recordings has been written into a file.
    ExportFinished {
        /// The export's name.
        export: String,
    },
    /// It could not be.
    ExportFailed {
        /// The export's name.
        export: String,
        /// Why, in words.
        problem: String,
    },
    /// A backup has been made.
    BackupFinished {
        /// The backup's name.
        backup: String,
        /// Its size.
        bytes: u64,
    },
    /// It could not be.
    BackupFailed {
        /// The backup's name.
        backup: String,
        /// Why, in words.
        problem: String,
    },
    /// Events are missing in the journal: they came faster than it could be written, or it could not be written.
    EventsLost {
        /// How many.
        events: u64,
    },
    /// The database of streams and settings was damaged.
    StateDamaged {
        /// Where the damaged one is.
        kept_as: String,
        /// How many streams the copy had that was used instead; `None` if there was no copy.
        restored_streams: Option<u64>,
    },
    /// What was seen on a stream: when it is something else than before, and again after a while.
    Detections(crate::detection::Detections),
    /// An object that is followed has come, is still there, or has gone.
    Object(Box<crate::object::ObjectEvent>),
    /// Something has happened in a zone, or at a line.
    Scene(Box<crate::object::SceneEvent>),
    /// A stream's analysis changed state.
    InferenceState {
        /// The new state: `off`, `starting`, `running`, `blocked`.
        state: &'static str,
        /// Why, in words.
        reason: String,
    },
    /// Another input of a stream is let in: what stands in for its source, or the source again. Or what is to stand in fails.
    FallbackState {
        /// Whether what stands in is what readers get.
        active: bool,
        /// Why, in words.
        reason: String,
    },
    /// A forward of a stream changed state.
    ForwardState {
        /// Where it goes, without secrets.
        url: String,
        /// The new state: `connecting`, `running`, `backoff`, `stopped`.
        state: &'static str,
        /// Why, in words.
        reason: String,
    },
    /// A camera has noticed something by itself.
    CameraEvent {
        /// What: `motion`, `tampering`, `line_crossed`, `zone`, `sound`, `input`, `output`, `person`, `face`, `vehicle`, `animal`,
        /// `package`, `visitor`, `other`.
        what: &'static str,
        /// Whether it begins or ends; nothing if it is over as soon as it is told.
        active: Option<bool>,
        /// The camera's own name for it.
        topic: String,
        /// Where it was noticed, in the camera's words.
        source: CameraWords,
        /// What was noticed, in the camera's words.
        data: CameraWords,
    },
    /// How a camera is listened to has changed.
    CameraEventsState {
        /// The new state: `connecting`, `running`, `backoff`, `stopped`.
        state: &'static str,
        /// Why, in words.
        reason: String,
    },
    /// A model changed state.
    ModelState {
        /// Its name.
        model: String,
        /// The new state: `loading`, `ready`, `failed`.
        state: &'static str,
        /// What runs it, once that is known.
        backend: Option<String>,
        /// Why, in words.
        reason: String,
    },
    /// A test of the listeners: it says nothing about the streams.
    Test {
        /// What is tested.
        hook: String,
    },
}

impl EventKind {
    /// The name of each kind, as in the field `kind`.
    pub const NAMES: &'static [&'static str] = &[
        "stream_state",
        "recording_state",
        "segment_started",
        "segment_finished",
        "recording_gap",
        "consumer_lagged",
        "disk_slow",
        "disk_recovered",
        "segments_deleted",
        "protected_deleted",
        "retention_unmet",
        "retention_met",
        "index_repaired",
        "index_damaged",
        "session_opened",
        "session_closed",
        "packets_lost",
        "stream_created",
        "stream_changed",
        "stream_deleted",
        "config_reloaded",
        "config_rejected",
        "storage_low",
        "storage_recovered",
        "health",
        "hook_failed",
        "export_finished",
        "export_failed",
        "backup_finished",
        "backup_failed",
        "events_lost",
        "state_damaged",
        "detections",
        "object",
        "scene",
        "inference_state",
        "fallback_state",
        "forward_state",
        "camera_event",
        "camera_events_state",
        "model_state",
        "test",
    ];

    /// The name of this kind, as in the field `kind`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::StreamState { .. } => "stream_state",
            Self::RecordingState { .. } => "recording_state",
            Self::SegmentStarted { .. } => "segment_started",
            Self::SegmentFinished { .. } => "segment_finished",
            Self::RecordingGap { .. } => "recording_gap",
            Self::ConsumerLagged { .. } => "consumer_lagged",
            Self::DiskSlow { .. } => "disk_slow",
            Self::DiskRecovered { .. } => "disk_recovered",
            Self::SegmentsDeleted { .. } => "segments_deleted",
            Self::ProtectedDeleted { .. } => "protected_deleted",
            Self::RetentionUnmet { .. } => "retention_unmet",
            Self::RetentionMet { .. } => "retention_met",
            Self::IndexRepaired { .. } => "index_repaired",
            Self::IndexDamaged { .. } => "index_damaged",
            Self::SessionOpened { .. } => "session_opened",
            Self::SessionClosed { .. } => "session_closed",
            Self::PacketsLost { .. } => "packets_lost",
            Self::StreamCreated { .. } => "stream_created",
            Self::StreamChanged { .. } => "stream_changed",
            Self::StreamDeleted { .. } => "stream_deleted",
            Self::ConfigReloaded { .. } => "config_reloaded",
            Self::ConfigRejected { .. } => "config_rejected",
            Self::StorageLow { .. } => "storage_low",
            Self::StorageRecovered { .. } => "storage_recovered",
            Self::Health { .. } => "health",
            Self::HookFailed { .. } => "hook_failed",
            Self::ExportFinished { .. } => "export_finished",
            Self::ExportFailed { .. } => "export_failed",
            Self::BackupFinished { .. } => "backup_finished",
            Self::BackupFailed { .. } => "backup_failed",
            Self::EventsLost { .. } => "events_lost",
            Self::StateDamaged { .. } => "state_damaged",
            Self::Detections(_) => "detections",
            Self::Object(_) => "object",
            Self::Scene(_) => "scene",
            Self::InferenceState { .. } => "inference_state",
            Self::FallbackState { .. } => "fallback_state",
            Self::ForwardState { .. } => "forward_state",
            Self::CameraEvent { .. } => "camera_event",
            Self::CameraEventsState { .. } => "camera_events_state",
            Self::ModelState { .. } => "model_state",
            Self::Test { .. } => "test",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_s_name_is_the_one_it_is_written_with() {
        let kind = EventKind::StreamState { state: StreamState::Idle, reason: String::new() };
        assert_eq!(serde_json::to_value(&kind).unwrap()["kind"], kind.name());
        // Each arm of `name` gives one that is in the list, and there are no others.
        let arms = include_str!("kind.rs").lines().filter_map(|line| {
            let name = line.trim().strip_prefix("Self::")?.split_once(" } => \"")?.1;
            name.strip_suffix("\",")
        });
        let mut arms: Vec<&str> = arms.chain(["detections", "object", "scene"]).collect();
        let mut names = EventKind::NAMES.to_vec();
        arms.sort_unstable();
        names.sort_unstable();
        assert_eq!(arms, names);
    }
}
