//! What the manager refuses, and why.

use super::{BuildError, InvalidStreamId};
use crate::playback::PlaybackError;
use crate::recording::RecordError;
use crate::storage::index::IndexError;
use crate::storage::state::StateError;
use crate::storage::{LockError, StorageError};

/// What the manager refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// The id is not one.
    #[error(transparent)]
    InvalidId(#[from] InvalidStreamId),
    /// The id is taken.
    #[error("a stream with the id \"{0}\" exists already; choose another id, or delete that one first")]
    Exists(String),
    /// There is no such stream.
    #[error("there is no stream with the id \"{0}\"")]
    NotFound(String),
    /// The recording's settings do not make sense.
    #[error(transparent)]
    Recording(#[from] RecordError),
    /// The data folder is in use, or cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The index of recordings cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// There is no index: the manager was made without a data folder.
    #[error("nothing is known of recordings: the manager was made without a data_dir")]
    NoIndex,
    /// There is no folder for recordings with that name.
    #[error("there is no recordings folder named \"{name}\"; expected one of: {known}")]
    NoDirectory {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The disk threads do not start.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A stream's configuration cannot be carried out.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The configuration file says what this stream is.
    #[error(
        "the stream \"{0}\" is defined in the configuration file and can only be changed there; then reload it"
    )]
    DefinedInFile(String),
    /// The stream was made by the program or by a publisher, and is not configured.
    #[error(
        "the stream \"{0}\" was made by a publisher or by the program and has no configuration of its own"
    )]
    NotDefined(String),
    /// The stream is disabled.
    #[error("the stream \"{0}\" is disabled; enable it first")]
    Disabled(String),
    /// It stands for many streams.
    #[error("\"{0}\" is a pattern that stands for the streams that are published; it does not run itself")]
    Pattern(String),
    /// Somebody else was quicker.
    #[error("{}", precondition(*found))]
    Precondition {
        /// The stream's revision, if it exists.
        found: Option<u64>,
    },
    /// A value is wrong.
    #[error("{problem}")]
    Invalid {
        /// The key, as a JSON pointer.
        pointer: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A source that may only be set in the file.
    #[error("{kind} sources can only be configured in the file, not through the API")]
    Untrusted {
        /// How its address begins.
        kind: &'static str,
        /// The key, as a JSON pointer.
        pointer: &'static str,
    },
    /// There are too many streams.
    #[error("there are {limit} streams made through the API already, which is the most that there may be")]
    TooMany {
        /// The most.
        limit: usize,
    },
    /// There are too many exports.
    #[error("there are {limit} exports already, which is the most that there may be; delete some")]
    TooManyExports {
        /// The most.
        limit: usize,
    },
    /// There is too little room for an export.
    #[error("it takes {wanted} bytes, and {free} are free beside what storage.min_free keeps")]
    NoRoom {
        /// What it takes.
        wanted: u64,
        /// What is free.
        free: u64,
    },
    /// A backup is being made already.
    #[error("the backup \"{0}\" is being made; wait for it, or delete it first")]
    BackupRunning(String),
    /// A backup cannot be deleted.
    #[error("{0}")]
    Backup(String),
    /// What was asked for could not be remembered, so it was not done.
    #[error(transparent)]
    State(#[from] StateError),
    /// What has been recorded cannot be played.
    #[error(transparent)]
    Playback(#[from] PlaybackError),
    /// A picture, or another container, could not be made.
    #[error("it cannot be made: {0}")]
    Picture(#[from] crate::pipeline::PipelineError),
    /// A stream has no picture.
    #[error("there is no picture of \"{0}\": no keyframe came in time")]
    NoPicture(String),
    /// The manager has been shut down.
    #[error("the manager has been shut down")]
    ShutDown,
}

fn precondition(found: Option<u64>) -> String {
    match found {
        Some(revision) => format!("the stream has revision {revision}; read it again, and decide again"),
        None => "there is no such stream (any more)".into(),
    }
}
