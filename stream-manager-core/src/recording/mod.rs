//! Recording a stream into files.
//!
//! A [`RecorderSink`] reads the hub and writes segments; the [`RecorderHandle`] beside it starts, pauses,
//! splits and stops it. Fragmented MP4 is written by the library's own fragmenter through the disk pool,
//! MPEG-TS, MKV and plain MP4 by GStreamer's muxers. Frames lost to a slow disk, a reconnect or new codec
//! parameters end a segment; nothing else in the stream notices.
//!
//! Which codecs a container holds: fMP4 all but timed metadata; MKV the same; MPEG-TS H.264, H.265, AAC,
//! MP3, AC-3, Opus; plain MP4 those and AV1, VP9. A track that does not fit is left out and said so in the
//! log; if none fits, that is an error.

mod clock;
mod fmp4_writer;
mod gst_run;
mod gst_writer;
mod handle;
mod ledger;
mod mode;
mod name;
mod pre_roll;
mod progress;
mod recorder;
mod writer;

pub use crate::schedule::{ParseWeeklyTimeError, Schedule, ScheduleError, WeeklyTime};
pub use handle::{Recorder, RecorderHandle, RecorderStatus, RecordingAction};
pub use mode::{RecordingModes, RecordingTrigger};
pub use name::segment_file_name;
pub use recorder::RecorderSink;

use crate::event::EventSender;
use crate::fmp4::Fmp4Error;
use crate::frame::WallTime;
use crate::pipeline::PipelineError;
use crate::storage::index::{GapReason, Index};
use crate::storage::{DiskPool, Place, StorageError, SyncPolicy};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Half a second: with the frame that is held back, a kill costs less than a second at any frame rate above two.
pub(crate) const DEFAULT_PART_DURATION: Duration = Duration::from_millis(500);

/// A container format for recordings.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RecordingFormat {
    /// Fragmented MP4: complete up to its last part at any moment, even after a power cut.
    #[default]
    Fmp4,
    /// Plain MP4: only complete once it is finished.
    Mp4,
    /// Matroska.
    Mkv,
    /// MPEG transport stream.
    Ts,
}

impl RecordingFormat {
    /// Its name, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fmp4 => "fmp4",
            Self::Mp4 => "mp4",
            Self::Mkv => "mkv",
            Self::Ts => "ts",
        }
    }

    /// The file extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Fmp4 | Self::Mp4 => "mp4",
            Self::Mkv => "mkv",
            Self::Ts => "ts",
        }
    }

    /// The format that a file name asks for; `.mp4` means fragmented MP4.
    pub fn from_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "mp4" | "m4v" => Some(Self::Fmp4),
            "mkv" | "mka" => Some(Self::Mkv),
            "ts" | "m2ts" => Some(Self::Ts),
            _ => None,
        }
    }
}

/// Where segments go.
#[derive(Clone)]
pub enum Destination {
    /// A folder: one file a segment, named by its start in UTC.
    Folder(PathBuf),
    /// One file; further segments, if there are any, get a number before the extension.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether an existing file is replaced.
        overwrite: bool,
    },
    /// Bytes to anything that takes them, such as standard output. All segments go into it, one after the
    /// other; plain MP4 cannot be written this way.
    Stream(SharedWriter),
}

/// A writer that the recording's disk thread may use.
pub type SharedWriter = Arc<parking_lot::Mutex<dyn Write + Send>>;

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => f.debug_tuple("Folder").field(path).finish(),
            Self::File { path, overwrite } => {
                f.debug_struct("File").field("path", path).field("overwrite", overwrite).finish()
            }
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// How a stream is recorded.
///
/// ```
/// # use stream_manager_core::recording::Recording;
/// # use std::time::Duration;
/// let recording = Recording::fmp4().segment_duration(Duration::from_secs(60)).folder("/srv/video/door");
/// assert!(recording.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Recording {
    pub(crate) format: RecordingFormat,
    pub(crate) segment_duration: Option<Duration>,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) part_duration: Duration,
    pub(crate) destination: Option<Destination>,
    pub(crate) retry: bool,
    pub(crate) retry_after: Duration,
    pub(crate) limit: Option<Duration>,
    pub(crate) sync: SyncPolicy,
    pub(crate) stagger: Option<f64>,
    pub(crate) fallback: bool,
    pub(crate) modes: RecordingModes,
}

/// What a recorder works with.
#[derive(Clone, Debug)]
pub struct RecorderContext {
    pub(crate) pool: DiskPool,
    pub(crate) events: Option<EventSender>,
    pub(crate) stream: Arc<str>,
    pub(crate) index: Option<Index>,
    pub(crate) place: Option<Arc<Place>>,
}

impl RecorderContext {
    /// A recorder that writes through these disk threads, for the stream with this id.
    pub fn new(pool: DiskPool, stream: impl Into<Arc<str>>) -> Self {
        Self { pool, events: None, stream: stream.into(), index: None, place: None }
    }

    /// Tells of what happens.
    #[must_use]
    pub fn events(mut self, events: EventSender) -> Self {
        self.events = Some(events);
        self
    }

    /// Enters what is recorded.
    #[must_use]
    pub fn index(mut self, index: Index) -> Self {
        self.index = Some(index);
        self
    }

    /// Only records where this place is there.
    #[must_use]
    pub fn place(mut self, place: Arc<Place>) -> Self {
        self.place = Some(place);
        self
    }
}

impl Recording {
    /// A recording in this format: segments of one hour, parts of half a second, made safe on disk once a
    /// second, kept trying after errors.
    pub fn new(format: RecordingFormat) -> Self {
        Self {
            format,
            segment_duration: Some(Duration::from_secs(3600)),
            segment_bytes: None,
            part_duration: DEFAULT_PART_DURATION,
            destination: None,
            retry: true,
            retry_after: Duration::from_secs(2),
            limit: None,
            sync: SyncPolicy::default(),
            stagger: None,
            fallback: true,
            modes: RecordingModes::default(),
        }
    }

    /// A recording of one job into `path`, unsegmented, in the format that is asked for or that the file's
    /// extension names.
    ///
    /// # Errors
    /// If the extension names no format, or the file exists and may not be replaced.
    pub fn to_file(
        path: impl Into<PathBuf>,
        format: Option<RecordingFormat>,
        overwrite: bool,
    ) -> Result<Self, RecordError> {
        let path = path.into();
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let Some(format) = format.or_else(|| RecordingFormat::from_extension(&extension)) else {
            let expected = "a file name that ends in .mp4, .mkv or .ts, or a format";
            return Err(RecordError::Setting {
                setting: "output",
                value: path.display().to_string(),
                expected,
            });
        };
        if path.is_dir() || (!overwrite && path.exists()) {
            return Err(RecordError::Exists { path: path.display().to_string() });
        }
        Ok(Self::new(format).unsegmented().file(path, overwrite))
    }

    /// A recording of one job into anything that takes bytes.
    pub fn to_writer(writer: impl Write + Send + 'static, format: RecordingFormat) -> Self {
        Self::new(format)
            .unsegmented()
            .destination(Destination::Stream(Arc::new(parking_lot::Mutex::new(writer))))
    }

    /// A recording in fragmented MP4.
    pub fn fmp4() -> Self {
        Self::new(RecordingFormat::Fmp4)
    }

    /// Begins a new segment at the first keyframe after this long.
    #[must_use]
    pub fn segment_duration(mut self, duration: Duration) -> Self {
        self.segment_duration = Some(duration);
        self
    }

    /// Begins a new segment at the first keyframe after this many bytes.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// Never begins a new segment because of length.
    #[must_use]
    pub fn unsegmented(mut self) -> Self {
        self.segment_duration = None;
        self.segment_bytes = None;
        self
    }

    /// How much media is written at once (fMP4): the most that a crash costs.
    #[must_use]
    pub fn part_duration(mut self, duration: Duration) -> Self {
        self.part_duration = duration;
        self
    }

    /// Segments go into this folder.
    #[must_use]
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.destination = Some(Destination::Folder(path.into()));
        self
    }

    /// Everything goes into this file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, overwrite: bool) -> Self {
        self.destination = Some(Destination::File { path: path.into(), overwrite });
        self
    }

    /// Segments go there.
    #[must_use]
    pub fn destination(mut self, destination: Destination) -> Self {
        self.destination = Some(destination);
        self
    }

    /// Whether what stands in for a source that has failed is recorded too, which is marked; by default it is.
    #[must_use]
    pub fn fallback(mut self, recorded: bool) -> Self {
        self.fallback = recorded;
        self
    }

    /// When it is recorded; always, by default.
    #[must_use]
    pub fn modes(mut self, modes: RecordingModes) -> Self {
        self.modes = modes;
        self
    }

    /// How often what is written is made safe on the disk.
    #[must_use]
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// Makes the first segment shorter, to this part of its length (0 to 1): recordings that begin together
    /// then do not change their segments together.
    #[must_use]
    pub fn stagger(mut self, fraction: f64) -> Self {
        self.stagger = Some(fraction.clamp(0.01, 1.0));
        self
    }

    /// Ends the recording after this much media.
    #[must_use]
    pub fn limit(mut self, duration: Duration) -> Self {
        self.limit = Some(duration);
        self
    }

    /// Whether the recorder tries again after an error (a server's way, the default) or ends with it (for
    /// one job).
    #[must_use]
    pub fn retry(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    /// How long a recorder that cannot write waits before it tries again; two seconds by default.
    #[must_use]
    pub fn retry_after(mut self, duration: Duration) -> Self {
        self.retry_after = duration;
        self
    }

    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// Names the setting that does not.
    pub fn check(&self) -> Result<(), RecordError> {
        let bad = |setting: &'static str, value: String, expected: &'static str| {
            Err(RecordError::Setting { setting, value, expected })
        };
        if let Some(duration) = self.segment_duration
            && duration < Duration::from_secs(1)
        {
            return bad("segment_duration", format!("{duration:?}"), "at least 1s");
        }
        if let Some(bytes) = self.segment_bytes
            && bytes < 64 * 1024
        {
            return bad("segment_size", format!("{bytes}B"), "at least 64KiB");
        }
        if self.part_duration < Duration::from_millis(50) || self.part_duration > Duration::from_secs(60) {
            return bad("part_duration", format!("{:?}", self.part_duration), "between 50ms and 1m");
        }
        if let SyncPolicy::Interval(interval) = self.sync
            && !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval)
        {
            return bad("sync_interval", format!("{interval:?}"), "off, 0, or between 100ms and 1h");
        }
        self.modes.check()?;
        if matches!(self.destination, Some(Destination::Stream(_))) && self.format == RecordingFormat::Mp4 {
            return bad("format", "mp4".into(), "fmp4, mkv or ts, since plain MP4 cannot be streamed");
        }
        Ok(())
    }
}

/// A finished segment.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct Segment {
    /// The file; empty if it went to a writer.
    pub path: PathBuf,
    /// Wall clock of its first frame.
    pub start: WallTime,
    /// Its length.
    #[serde(serialize_with = "as_secs")]
    #[schemars(with = "f64")]
    pub duration: Duration,
    /// Its size in bytes.
    pub bytes: u64,
    /// Frames in it, of all tracks.
    pub frames: u64,
}

fn as_secs<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Why a recording stops or cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The disk refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The container cannot hold the stream.
    #[error(transparent)]
    Fmp4(#[from] Fmp4Error),
    /// GStreamer's muxer failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// None of the tracks fits into the container.
    #[error("{format:?} holds none of the stream's codecs ({codecs}); use fmp4 or mkv")]
    NoFittingTrack {
        /// The container.
        format: RecordingFormat,
        /// What the stream has.
        codecs: String,
    },
    /// The output is there already.
    #[error("{path} exists already; choose another name, or allow it to be replaced")]
    Exists {
        /// The file.
        path: String,
    },
    /// A setting is out of range.
    #[error("{setting} is {value}; expected {expected}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The muxer does not take its input.
    #[error("the muxer takes no more input; a track may have fallen silent")]
    Stalled,
    /// What was asked for does not fit the recorder's state.
    #[error("cannot {action} while the recording is {state}")]
    State {
        /// What was asked for.
        action: &'static str,
        /// The state, as in the API.
        state: &'static str,
    },
    /// Events are not recorded.
    #[error("nothing is done about events here; expected \"event\" among the recording's modes")]
    NoEvents,
    /// The recorder is gone.
    #[error("the recorder has ended")]
    Ended,
}

impl RecordError {
    /// How the index calls what is missing because of it.
    fn gap_reason(&self) -> GapReason {
        match self {
            Self::Storage(error) if error.is_full() => GapReason::DiskFull,
            Self::Storage(StorageError::Stalled { .. }) | Self::Stalled => GapReason::DiskSlow,
            Self::Storage(_) => GapReason::DiskError,
            Self::Fmp4(_) | Self::NoFittingTrack { .. } => GapReason::Format,
            _ => GapReason::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
