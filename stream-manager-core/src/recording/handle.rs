//! What a recording is asked to do and what it says: the handle, and what goes between it and the sink.

use super::mode::RecordingTrigger;
use super::progress::Shared;
use super::{RecordError, Segment};
use crate::event::RecordingState;
use crate::trace::Origin;
use RecordingAction as Action;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a command may take; finishing a large plain MP4 is the slowest.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// What a recorder is doing.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RecorderStatus {
    /// Off, recording, paused or blocked.
    pub state: RecordingState,
    /// Why, in words.
    pub reason: String,
    /// The file being written.
    pub file: Option<PathBuf>,
    /// Bytes written, over all segments.
    pub bytes: u64,
    /// Media written, over all segments, in seconds.
    pub duration_secs: f64,
    /// Frames written, over all segments and tracks.
    pub frames: u64,
    /// Segments finished.
    pub segments: u64,
    /// Frames that could not be written (slow or failing disk).
    pub lost_frames: u64,
    /// The last error, while there is one.
    pub last_error: Option<String>,
    /// The last finished segment.
    pub last_segment: Option<Segment>,
    /// When it records by itself: `continuous`, `schedule`, `event`.
    pub modes: Vec<&'static str>,
    /// Bytes that are kept in memory of what came before an event.
    pub pre_roll_bytes: u64,
}

/// Controls a recording. [`RecorderHandle`] is the library's own implementation.
#[async_trait::async_trait]
pub trait Recorder: Send + Sync {
    /// Starts recording, from the kept GOP on, whatever its modes say. Recording already is no error.
    async fn start(&self) -> Result<(), RecordError>;
    /// Leaves it to its modes again.
    async fn auto(&self) -> Result<(), RecordError>;
    /// Something has happened: it is recorded with what came before it, if events are.
    async fn trigger(&self, trigger: RecordingTrigger) -> Result<(), RecordError>;
    /// Holds the recording.
    async fn pause(&self) -> Result<(), RecordError>;
    /// Goes on after a pause.
    async fn resume(&self) -> Result<(), RecordError>;
    /// Begins a new segment at the next keyframe.
    async fn split(&self) -> Result<(), RecordError>;
    /// Finishes the file and stops. Returns the last segment, if there was one; it is in the index by then, unless that takes
    /// longer than two seconds.
    async fn stop(&self) -> Result<Option<Segment>, RecordError>;
    /// What it is doing.
    fn status(&self) -> RecorderStatus;
}

/// What is to be done about a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordingAction {
    /// Record.
    Start,
    /// Hold the recording.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Begin a new segment at the next keyframe.
    Split,
    /// Finish the file and record no more.
    Stop,
    /// Leave it to its modes.
    Auto,
}

impl RecordingAction {
    /// All there are.
    pub const ALL: [Self; 6] = [Self::Start, Self::Stop, Self::Pause, Self::Resume, Self::Split, Self::Auto];

    /// Its name, the same in the API and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Split => "split",
            Self::Auto => "auto",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// What a recorder is asked to do.
pub(super) enum Asked {
    Action(Action),
    Trigger(RecordingTrigger),
}

/// What goes from the handle to the sink.
pub(super) struct Command {
    pub(super) asked: Asked,
    pub(super) origin: Origin,
    pub(super) answer: oneshot::Sender<Result<Option<Segment>, RecordError>>,
}

/// The handle to a [`RecorderSink`](super::RecorderSink).
#[derive(Clone)]
pub struct RecorderHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) shared: Arc<Shared>,
}

impl RecorderHandle {
    async fn send(&self, action: Action) -> Result<Option<Segment>, RecordError> {
        self.ask(Asked::Action(action)).await
    }

    async fn ask(&self, asked: Asked) -> Result<Option<Segment>, RecordError> {
        let (answer, wait) = oneshot::channel();
        let exchange = async {
            self.commands
                .send(Command { asked, origin: Origin::current(), answer })
                .await
                .map_err(|_| RecordError::Ended)?;
            wait.await.map_err(|_| RecordError::Ended)?
        };
        tokio::time::timeout(COMMAND_TIMEOUT, exchange).await.map_err(|_| RecordError::Stalled)?
    }

    /// Whether this can be done as the recording stands.
    ///
    /// # Errors
    /// As the action itself would give.
    pub(crate) fn can(&self, action: Action) -> Result<(), RecordError> {
        let state = self.shared.state();
        match (action, state) {
            (Action::Start | Action::Stop | Action::Auto, _) | (Action::Split, RecordingState::Recording) => {
                Ok(())
            }
            (Action::Pause | Action::Resume, state) if state != RecordingState::Off => Ok(()),
            _ => Err(refused(action, state)),
        }
    }
}

#[async_trait::async_trait]
impl Recorder for RecorderHandle {
    async fn start(&self) -> Result<(), RecordError> {
        self.send(Action::Start).await.map(drop)
    }
    async fn auto(&self) -> Result<(), RecordError> {
        self.send(Action::Auto).await.map(drop)
    }
    async fn trigger(&self, trigger: RecordingTrigger) -> Result<(), RecordError> {
        self.ask(Asked::Trigger(trigger)).await.map(drop)
    }
    async fn pause(&self) -> Result<(), RecordError> {
        self.send(Action::Pause).await.map(drop)
    }
    async fn resume(&self) -> Result<(), RecordError> {
        self.send(Action::Resume).await.map(drop)
    }
    async fn split(&self) -> Result<(), RecordError> {
        self.send(Action::Split).await.map(drop)
    }
    async fn stop(&self) -> Result<Option<Segment>, RecordError> {
        self.send(Action::Stop).await
    }
    fn status(&self) -> RecorderStatus {
        self.shared.status.lock().clone()
    }
}

pub(super) fn refused(action: Action, state: RecordingState) -> RecordError {
    RecordError::State { action: action.name(), state: state.name() }
}
