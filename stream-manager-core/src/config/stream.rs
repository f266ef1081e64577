//! A stream's configuration, the defaults behind it, and both together.

use super::Address;
use super::fallback::{FallbackConfig, FallbackSettings};
use super::modes::{self, ModeName, ModeSettings};
use super::onvif::OnvifConfig;
use super::source::{Password, TlsConfig};
use super::transcode::TranscodeConfig;
use super::variant::VariantConfig;
use super::{
    AnalysisSettings, BytesText, DurationText, HlsSettings, StreamHlsConfig, StreamInferenceConfig, SyncText,
};
use crate::frame::MediaKind;
use crate::recording::RecordingFormat;
use crate::source::SourceTransport;
use crate::storage::SyncPolicy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// `[defaults]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Whether streams run.
    pub enabled: bool,
    /// How RTP travels from cameras.
    pub transport: SourceTransport,
    /// How long connecting may take.
    pub connect_timeout: DurationText,
    /// How long a connected source may be silent.
    pub silence_timeout: DurationText,
    /// The first wait after a failure.
    pub retry_initial: DurationText,
    /// The longest wait after failures.
    pub retry_max: DurationText,
    /// After running this long, waits begin with the first one again.
    pub retry_reset: DurationText,
    /// The most that is kept of a GOP for viewers that come late.
    pub gop_max_size: BytesText,
    /// Whether a second publisher takes over from the first.
    pub override_publisher: bool,
    /// Whether sources are connected to only while somebody reads.
    pub on_demand: bool,
    /// How long those who ask for a stream wait for its first frame.
    pub start_timeout: DurationText,
    /// How long after its last reader a stream on demand lets go of its source.
    pub close_after: DurationText,
    /// How streams are recorded.
    pub recording: RecordingDefaults,
    /// How streams are analysed.
    #[serde(skip_serializing_if = "StreamInferenceConfig::is_empty")]
    pub inference: StreamInferenceConfig,
    /// How streams are packaged for HLS, DASH and fMP4 players.
    #[serde(skip_serializing_if = "StreamHlsConfig::is_empty")]
    pub hls: StreamHlsConfig,
    /// What stands in for sources that are silent.
    #[serde(skip_serializing_if = "FallbackConfig::is_empty")]
    pub fallback: FallbackConfig,
}

impl Default for Defaults {
    fn default() -> Self {
        let secs = |s| DurationText(Duration::from_secs(s));
        Self {
            enabled: true,
            transport: SourceTransport::Auto,
            connect_timeout: secs(10),
            silence_timeout: secs(10),
            retry_initial: secs(1),
            retry_max: secs(30),
            retry_reset: secs(30),
            gop_max_size: BytesText(32 << 20),
            override_publisher: true,
            on_demand: false,
            start_timeout: secs(10),
            close_after: secs(10),
            recording: RecordingDefaults::default(),
            inference: StreamInferenceConfig::default(),
            hls: StreamHlsConfig::default(),
            fallback: FallbackConfig::default(),
        }
    }
}

/// `[defaults.recording]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecordingDefaults {
    /// Whether streams are recorded from the start.
    pub enabled: bool,
    /// The container.
    pub format: RecordingFormat,
    /// Length of a segment; the cut is at the next keyframe.
    pub segment_duration: DurationText,
    /// Size of a segment; no limit if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<BytesText>,
    /// Media written at once (fMP4): with one frame, the most that a crash costs.
    pub part_duration: DurationText,
    /// How often what is written is made safe on the disk: with the part, the most that a power cut costs.
    pub sync_interval: SyncText,
    /// Which folder they go to; `recordings_dir` if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Reasons to record; one is enough.
    pub modes: Vec<ModeName>,
    /// Times of the week, such as `mon-fri 08:00-18:00`.
    pub schedule: Vec<String>,
    /// The time zone that they are in; the machine's own if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How much of what came before an event is recorded.
    pub pre_roll: DurationText,
    /// How much memory that may take.
    pub pre_roll_max_size: BytesText,
    /// For how long an event is recorded, from the last time that it is told of.
    pub post_roll: DurationText,
    /// How long a recording by events may become.
    pub max_duration: DurationText,
    /// How long they are kept.
    pub retention: RetentionConfig,
}

/// `[defaults.recording.retention]` and `[streams.recording.retention]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Older recordings are deleted. No limit if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<DurationText>,
    /// The same for recordings in which something was seen, which are kept for longer. As the others if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_max_age: Option<DurationText>,
    /// The most that a stream's recordings may take; the oldest are deleted. No limit if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<BytesText>,
}

impl RetentionConfig {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for RecordingDefaults {
    fn default() -> Self {
        Self {
            enabled: false,
            format: RecordingFormat::Fmp4,
            segment_duration: DurationText(Duration::from_secs(3600)),
            segment_size: None,
            part_duration: DurationText(crate::recording::DEFAULT_PART_DURATION),
            sync_interval: SyncText(SyncPolicy::default()),
            directory: None,
            modes: vec![ModeName::Continuous],
            schedule: Vec::new(),
            time_zone: None,
            pre_roll: modes::PRE_ROLL,
            pre_roll_max_size: modes::PRE_ROLL_MAX_SIZE,
            post_roll: modes::POST_ROLL,
            max_duration: modes::MAX_DURATION,
            retention: RetentionConfig::default(),
        }
    }
}

/// `[[streams]]`, and the body of `POST /api/streams`. What is not set is as in [`Defaults`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// The stream's id. With a `*` in it, and `publisher` as source, it stands for every id that is published.
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^[A-Za-z0-9._~*-]+(/[A-Za-z0-9._~*-]+)*$"))]
    pub id: String,
    /// Where it comes from.
    #[schemars(regex(
        pattern = r"^((rtsps?|https?|wheps?|file|test|udp|srt|rtmps?|sdp|v4l2)://.+|(gst|exec):.+|publisher)$"
    ))]
    pub source_url: Address,
    /// Whether it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether a second publisher takes over from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_publisher: Option<bool>,
    /// Whether it is connected to only while somebody reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<bool>,
    /// How long those who ask for it wait for its first frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<DurationText>,
    /// How long after its last reader it lets go of its source, on demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_after: Option<DurationText>,
    /// The user, if it is not in the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// How the camera shows who it is.
    #[serde(default, skip_serializing_if = "TlsConfig::is_empty")]
    pub tls: TlsConfig,
    /// What we say we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The address that connections come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// The kinds of tracks that are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracks: Option<Vec<MediaKind>>,
    /// How RTP travels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<SourceTransport>,
    /// How long connecting may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<DurationText>,
    /// How long it may be silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_timeout: Option<DurationText>,
    /// The first wait after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_initial: Option<DurationText>,
    /// The longest wait after failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_max: Option<DurationText>,
    /// After running this long, waits begin with the first one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_reset: Option<DurationText>,
    /// The most that is kept of a GOP for viewers that come late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gop_max_size: Option<BytesText>,
    /// How it is recorded.
    #[serde(default, skip_serializing_if = "RecordingConfig::is_empty")]
    pub recording: RecordingConfig,
    /// How it is analysed.
    #[serde(default, skip_serializing_if = "StreamInferenceConfig::is_empty")]
    pub inference: StreamInferenceConfig,
    /// How it is packaged for HLS, DASH and fMP4 players.
    #[serde(default, skip_serializing_if = "StreamHlsConfig::is_empty")]
    pub hls: StreamHlsConfig,
    /// What stands in for its source when that is silent.
    #[serde(default, skip_serializing_if = "FallbackConfig::is_empty")]
    pub fallback: FallbackConfig,
    /// What is made of it: streams of their own, while somebody watches them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transcode: Vec<TranscodeConfig>,
    /// The same picture in other qualities, which the camera sends too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<VariantConfig>,
    /// Whether GStreamer pipelines of this process get it by `intersrc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intersink: Option<bool>,
    /// What the camera tells of itself.
    #[serde(default, skip_serializing_if = "OnvifConfig::is_empty")]
    pub onvif: OnvifConfig,
    /// Where it is sent on to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forward: Vec<ForwardConfig>,
}

/// `[[streams.forward]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// The other server's address: RTSP, RTMP, SRT, MPEG-TS by UDP, or WHIP by HTTP or HTTPS.
    #[schemars(regex(pattern = r"^(rtsps?|rtmps?|srt|udp|whips?)://.+$"))]
    pub url: Address,
}

/// `[streams.recording]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecordingConfig {
    /// Whether it is recorded from the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Which of the stream's variants is recorded; the stream itself if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<RecordingFormat>,
    /// Length of a segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_duration: Option<DurationText>,
    /// Size of a segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<BytesText>,
    /// Media written at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_duration: Option<DurationText>,
    /// How often what is written is made safe on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_interval: Option<SyncText>,
    /// Which of `storage.directories` they go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Reasons to record; one is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modes: Option<Vec<ModeName>>,
    /// Times of the week, such as `mon-fri 08:00-18:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Vec<String>>,
    /// The time zone that they are in; the machine's own if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How much of what came before an event is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_roll: Option<DurationText>,
    /// How much memory that may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_roll_max_size: Option<BytesText>,
    /// For how long an event is recorded, from the last time that it is told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_roll: Option<DurationText>,
    /// How long a recording by events may become.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<DurationText>,
    /// How long they are kept.
    #[serde(skip_serializing_if = "RetentionConfig::is_empty")]
    pub retention: RetentionConfig,
}

impl RecordingConfig {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A stream's configuration with everything that it leaves to the [`Defaults`].
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedStream {
    /// The stream's id.
    pub id: String,
    /// Where it comes from.
    pub source_url: Address,
    /// Whether it runs.
    pub enabled: bool,
    /// Whether a second publisher takes over from the first.
    pub override_publisher: bool,
    /// How long it goes on without readers, if it is connected to only while there are some.
    pub on_demand: Option<Duration>,
    /// How long those who ask for it wait for its first frame.
    pub start_timeout: Duration,
    /// User and password, if they are not in the address.
    pub credentials: Option<(String, Password)>,
    /// How the camera shows who it is.
    pub tls: TlsConfig,
    /// What we say we are.
    pub user_agent: Option<String>,
    /// The address that connections come from.
    pub local_address: Option<IpAddr>,
    /// The kinds of tracks that are taken; all if none is said.
    pub tracks: Vec<MediaKind>,
    /// How RTP travels.
    pub transport: SourceTransport,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long it may be silent.
    pub silence_timeout: Duration,
    /// The first wait after a failure.
    pub retry_initial: Duration,
    /// The longest wait after failures.
    pub retry_max: Duration,
    /// After running this long, waits begin with the first one again.
    pub retry_reset: Duration,
    /// The most that is kept of a GOP.
    pub gop_max_bytes: u64,
    /// How it is recorded.
    pub recording: ResolvedRecording,
    /// How it is analysed.
    pub inference: AnalysisSettings,
    /// How it is packaged.
    pub hls: HlsSettings,
    /// What stands in for its source when that is silent.
    pub fallback: Option<FallbackSettings>,
    /// What is made of it.
    pub transcode: Vec<TranscodeConfig>,
    /// What the camera tells of itself.
    pub onvif: OnvifConfig,
    /// The same picture in other qualities.
    pub variants: Vec<VariantConfig>,
    /// Whether GStreamer pipelines of this process get it by `intersrc`.
    pub intersink: bool,
    /// Where it is sent on to.
    pub forward: Vec<ForwardConfig>,
}

/// How a stream is recorded, with everything that it leaves to the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedRecording {
    /// Whether it is recorded from the start.
    pub enabled: bool,
    /// Which of the stream's variants is recorded.
    pub variant: Option<String>,
    /// The container.
    pub format: RecordingFormat,
    /// Length of a segment.
    pub segment_duration: Duration,
    /// Size of a segment.
    pub segment_bytes: Option<u64>,
    /// Media written at once.
    pub part_duration: Duration,
    /// How often what is written is made safe on the disk.
    pub sync: SyncPolicy,
    /// Which of the named folders they go to.
    pub directory: Option<String>,
    /// When it is recorded.
    pub modes: ModeSettings,
    /// Older recordings are deleted.
    pub max_age: Option<Duration>,
    /// The same for those in which something was seen.
    pub events_max_age: Option<Duration>,
    /// The most that they may take.
    pub max_bytes: Option<u64>,
}

impl StreamConfig {
    /// A stream of which only this is known; everything else is as in the defaults.
    pub fn new(id: impl Into<String>, source_url: impl Into<Address>) -> Self {
        Self {
            id: id.into(),
            source_url: source_url.into(),
            enabled: None,
            override_publisher: None,
            on_demand: None,
            start_timeout: None,
            close_after: None,
            user: None,
            password: None,
            tls: TlsConfig::default(),
            user_agent: None,
            local_address: None,
            tracks: None,
            transport: None,
            connect_timeout: None,
            silence_timeout: None,
            retry_initial: None,
            retry_max: None,
            retry_reset: None,
            gop_max_size: None,
            recording: RecordingConfig::default(),
            inference: StreamInferenceConfig::default(),
            hls: StreamHlsConfig::default(),
            fallback: FallbackConfig::default(),
            transcode: Vec::new(),
            variants: Vec::new(),
            onvif: OnvifConfig::default(),
            intersink: None,
            forward: Vec::new(),
        }
    }

    /// User and password, if one of them is said.
    fn credentials(&self) -> Option<(String, Password)> {
        if self.user.is_none() && self.password.is_none() {
            return None;
        }
        let password = self.password.clone().unwrap_or_else(|| Password::new(""));
        Some((self.user.clone().unwrap_or_default(), password))
    }

    /// Fills in what it leaves to the defaults.
    pub fn resolve(&self, defaults: &Defaults) -> ResolvedStream {
        let (own, common) = (&self.recording, &defaults.recording);
        let retention = |r: &RetentionConfig| (r.max_age.map(|d| d.0), r.max_size.map(|b| b.0));
        let (own_age, own_size) = retention(&own.retention);
        let (common_age, common_size) = retention(&common.retention);
        ResolvedStream {
            id: self.id.clone(),
            source_url: self.source_url.clone(),
            enabled: self.enabled.unwrap_or(defaults.enabled),
            override_publisher: self.override_publisher.unwrap_or(defaults.override_publisher),
            on_demand: self
                .on_demand
                .unwrap_or(defaults.on_demand)
                .then_some(self.close_after.unwrap_or(defaults.close_after).0),
            start_timeout: self.start_timeout.unwrap_or(defaults.start_timeout).0,
            credentials: self.credentials(),
            tls: self.tls.clone(),
            user_agent: self.user_agent.clone(),
            local_address: self.local_address,
            tracks: self.tracks.clone().unwrap_or_default(),
            transport: self.transport.unwrap_or(defaults.transport),
            connect_timeout: self.connect_timeout.unwrap_or(defaults.connect_timeout).0,
            silence_timeout: self.silence_timeout.unwrap_or(defaults.silence_timeout).0,
            retry_initial: self.retry_initial.unwrap_or(defaults.retry_initial).0,
            retry_max: self.retry_max.unwrap_or(defaults.retry_max).0,
            retry_reset: self.retry_reset.unwrap_or(defaults.retry_reset).0,
            gop_max_bytes: self.gop_max_size.unwrap_or(defaults.gop_max_size).0,
            recording: ResolvedRecording {
                enabled: own.enabled.unwrap_or(common.enabled),
                variant: own.variant.clone(),
                format: own.format.unwrap_or(common.format),
                segment_duration: own.segment_duration.unwrap_or(common.segment_duration).0,
                segment_bytes: own.segment_size.or(common.segment_size).map(|b| b.0),
                part_duration: own.part_duration.unwrap_or(common.part_duration).0,
                sync: own.sync_interval.unwrap_or(common.sync_interval).0,
                directory: own.directory.as_ref().or(common.directory.as_ref()).cloned(),
                modes: ModeSettings {
                    modes: own.modes.as_ref().unwrap_or(&common.modes).clone(),
                    schedule: own.schedule.as_ref().unwrap_or(&common.schedule).clone(),
                    time_zone: own.time_zone.as_ref().or(common.time_zone.as_ref()).cloned(),
                    pre_roll: own.pre_roll.unwrap_or(common.pre_roll).0,
                    pre_roll_max_bytes: own.pre_roll_max_size.unwrap_or(common.pre_roll_max_size).0,
                    post_roll: own.post_roll.unwrap_or(common.post_roll).0,
                    max_duration: own.max_duration.unwrap_or(common.max_duration).0,
                },
                max_age: own_age.or(common_age),
                events_max_age: own.retention.events_max_age.or(common.retention.events_max_age).map(|d| d.0),
                max_bytes: own_size.or(common_size),
            },
            inference: self.inference.resolve(&defaults.inference),
            hls: HlsSettings { variants: self.qualities(), ..self.hls.resolve(&defaults.hls) },
            fallback: self.fallback.resolve(&defaults.fallback),
            transcode: self.transcode.clone(),
            variants: self.variants.clone(),
            onvif: self.onvif.clone(),
            intersink: self.intersink.unwrap_or(false),
            forward: self.forward.clone(),
        }
    }
}
