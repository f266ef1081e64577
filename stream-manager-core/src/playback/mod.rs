//! What has been recorded, watched again: any range of a stream's time as one file.
//!
//! An [`Archive`] reads the index. From it comes a [`Plan`]: which bytes of which files, with a head of its own in front, at which times,
//! and how many bytes that is in all. No media is read for it, only a few hundred bytes of each file. A [`PlanReader`] then gives any part
//! of that, some hundred kilobytes at a time, and changes nothing in it but the times in the fragments' headers. A range without an end
//! goes on with what is being recorded ([`Follower`]).
//!
//! What the file is like:
//!
//! - It begins with the keyframe at or before the start, since nothing can be decoded before; it ends with the last frame that is decoded
//!   before the end.
//! - Time is seamless over segments that follow on each other. Where something is missing it closes up ([`Gaps::Skip`]), or the file ends
//!   ([`Gaps::Stop`]).
//! - It ends where the codecs or their parameters change, since one head says how all of it is encoded;
//!   [`Plan::next`] says where to begin for the rest.
//! - Other containers are made from it while they are sent ([`Remux`]).
//! - Recordings have to be fragmented MP4.

mod archive;
mod export;
mod follow;
mod frames;
mod plain;
mod plan;
mod read;
mod remux;
mod stills;

pub use archive::Archive;
pub use export::{
    Export, ExportFormat, ExportOptions, ExportProgress, TimeZoneName, UnknownTimeZone, export,
};
pub use follow::Follower;
pub use frames::PlanFrames;
pub use plain::{PlainPlan, PlainReader};
pub use plan::{Gaps, Plan, PlanEnd, PlaybackRequest};
pub use read::PlanReader;
pub use remux::{Container, Remux};
pub(crate) use stills::{STILL_SECS, Stills};

use crate::frame::WallTime;
use crate::storage::index::IndexError;
use std::path::PathBuf;

/// Files of one playback at most.
pub const MAX_FILES: usize = 4096;

/// Why nothing can be played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaybackError {
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Nothing has been recorded in that time.
    #[error("nothing has been recorded from {start} on that lies before the end of what was asked for")]
    Nothing {
        /// The beginning that was asked for.
        start: WallTime,
    },
    /// It was recorded in another container.
    #[error("it has been recorded as {format}; expected fmp4, which alone can be played again")]
    Format {
        /// The container.
        format: String,
    },
    /// Too many files.
    #[error("there are more than {MAX_FILES} files in it, or too many parts; expected a shorter range")]
    TooLong,
    /// There is only sound.
    #[error("there are no pictures in it that could be encoded anew")]
    NoPictures,
    /// It was cancelled.
    #[error("it was given up before it was done")]
    GivenUp,
    /// It cannot be put into another container, or encoded.
    #[error(transparent)]
    Pipeline(#[from] crate::pipeline::PipelineError),
    /// A file cannot be read, or written.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}
