//! What the index holds, as values.

use super::parts::PartList;
use crate::frame::{MediaTime, WallTime};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// A segment's number, unique in its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
pub struct SegmentId(pub u64);

/// Why frames are missing from a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapReason {
    /// The source was lost.
    Source,
    /// Paused by request.
    Paused,
    /// Stopped by request.
    Stopped,
    /// The program was ended properly.
    Shutdown,
    /// The program or the machine ended without finishing the recording.
    Killed,
    /// There was no room on the disk.
    DiskFull,
    /// The disk refused.
    DiskError,
    /// The disk was too slow.
    DiskSlow,
    /// The recording could not hold the stream.
    Format,
    /// Deleted by request.
    Deleted,
    /// Its modes wanted nothing recorded: no event, or not its time.
    Waiting,
    /// Not known.
    Unknown,
}

impl GapReason {
    const ALL: [Self; 12] = [
        Self::Source,
        Self::Paused,
        Self::Stopped,
        Self::Shutdown,
        Self::Killed,
        Self::DiskFull,
        Self::DiskError,
        Self::DiskSlow,
        Self::Format,
        Self::Deleted,
        Self::Waiting,
        Self::Unknown,
    ];

    /// Its name in the database and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Shutdown => "shutdown",
            Self::Killed => "killed",
            Self::DiskFull => "disk_full",
            Self::DiskError => "disk_error",
            Self::DiskSlow => "disk_slow",
            Self::Format => "format",
            Self::Deleted => "deleted",
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|r| r.name() == name).unwrap_or(Self::Unknown)
    }
}

/// A segment that begins.
#[derive(Clone, Debug)]
pub struct NewSegment {
    /// Its number.
    pub id: SegmentId,
    /// The stream's id.
    pub stream: Arc<str>,
    /// Wall clock of its first frame.
    pub start: WallTime,
    /// Decoding time of its first frame on the stream's timeline.
    pub media_start: MediaTime,
    /// The folder that it lies in.
    pub folder: PathBuf,
    /// Its file name.
    pub name: String,
    /// The container, as in the configuration.
    pub format: String,
    /// The tracks and their codec parameters, as JSON.
    pub tracks: Arc<str>,
    /// Whether it follows on the one before without a missing frame.
    pub continues: bool,
    /// Frames that were lost before it.
    pub lost_frames: u64,
}

/// How a segment ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Its length in nanoseconds.
    pub duration_nanos: i64,
    /// Its size.
    pub bytes: u64,
    /// Frames of all tracks.
    pub frames: u64,
    /// Its parts; empty for containers that have none.
    pub parts: PartList,
}

/// A segment as the index has it.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct SegmentRow {
    /// Its number.
    pub id: SegmentId,
    /// The stream's id.
    pub stream: String,
    /// Wall clock of its first frame.
    pub start: WallTime,
    /// Wall clock of its end: its start plus the length of its media.
    pub end: WallTime,
    /// Where it begins on the stream's timeline, in nanoseconds. A timeline begins anew with each start of
    /// the program.
    pub media_start_nanos: i64,
    /// Its size.
    pub bytes: u64,
    /// Frames of all tracks.
    pub frames: u64,
    /// The file.
    pub path: PathBuf,
    /// The container.
    pub format: String,
    /// The tracks, as JSON.
    #[serde(skip)]
    pub tracks: String,
    /// Whether it is finished.
    pub complete: bool,
    /// Whether retention leaves it alone.
    pub protected: bool,
    /// Whether it follows on the one before without a missing frame.
    pub continues: bool,
}

/// A piece of a stream's recordings.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RecordingItem {
    /// Recorded without a missing frame, over one or more segments.
    Span {
        /// Where it begins, or the range does.
        start: WallTime,
        /// Where it ends, or the range does.
        end: WallTime,
        /// The size of its segments.
        bytes: u64,
        /// How many segments it lies in.
        segments: u64,
        /// Whether all of them are finished.
        complete: bool,
        /// Whether any of them is protected.
        protected: bool,
    },
    /// Nothing recorded.
    Gap {
        /// Where it begins.
        start: WallTime,
        /// Where it ends; open if nothing has been recorded since.
        end: Option<WallTime>,
        /// Why.
        reason: GapReason,
        /// Frames that arrived and were not recorded, as far as known.
        frames: u64,
    },
}

impl RecordingItem {
    /// Where it begins.
    pub fn start(&self) -> WallTime {
        match self {
            Self::Span { start, .. } | Self::Gap { start, .. } => *start,
        }
    }
}

/// Something that happened in a recording.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Mark {
    /// When.
    pub time: WallTime,
    /// What kind of thing.
    pub kind: String,
    /// In words.
    pub text: String,
    /// Anything else.
    pub data: serde_json::Value,
}

/// A mark as the index has it.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct MarkRow {
    /// Its number, which no other mark has.
    pub id: u64,
    /// The stream's id.
    pub stream: String,
    /// What it says.
    #[serde(flatten)]
    pub mark: Mark,
}

/// Which marks are looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct MarkFilter {
    /// Only this stream's.
    pub stream: Option<String>,
    /// Only those of these streams: ids, in which `*` stands for anything. Of all, if there are none.
    pub streams: Vec<String>,
    /// Only of these kinds; of all, if there are none.
    pub kinds: Vec<String>,
    /// Only with this in their text, whatever the case of ASCII letters.
    pub text: Option<String>,
    /// Only of this time.
    pub range: TimeRange,
    /// The last ones first.
    pub newest_first: bool,
    /// Only behind the mark of this time and number, in the order that is asked for.
    pub after: Option<(WallTime, u64)>,
}

impl Default for MarkFilter {
    /// All of them.
    fn default() -> Self {
        Self {
            stream: None,
            streams: Vec::new(),
            kinds: Vec::new(),
            text: None,
            range: TimeRange::ALL,
            newest_first: false,
            after: None,
        }
    }
}

/// What a stream has on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct StreamTotals {
    /// The stream's id.
    pub stream: String,
    /// Its segments.
    pub segments: u64,
    /// Their size.
    pub bytes: u64,
    /// The size of those that are protected.
    pub protected_bytes: u64,
}

/// Part of the time; the end is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// From here on.
    pub start: WallTime,
    /// Up to here.
    pub end: WallTime,
}

/// A range that holds no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range ends ({end}) before it starts ({start}); expected start before end")]
pub struct EmptyRange {
    /// Its start.
    pub start: WallTime,
    /// Its end.
    pub end: WallTime,
}

impl TimeRange {
    /// All time.
    pub const ALL: Self =
        Self { start: WallTime::from_unix_nanos(i64::MIN), end: WallTime::from_unix_nanos(i64::MAX) };

    /// A range.
    ///
    /// # Errors
    /// If it ends before it starts.
    pub fn new(start: WallTime, end: WallTime) -> Result<Self, EmptyRange> {
        if start < end { Ok(Self { start, end }) } else { Err(EmptyRange { start, end }) }
    }
}
