//! One recording, from start to end: what `stream-manager record` does.

use super::stream::Stream;
use super::{ManagerError, StreamManager};
use crate::backoff::RetryPolicy;
use crate::event::{RecordingState, StreamState};
use crate::recording::{Recorder, Recording, Segment};
use crate::source::{Source, SourceError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Records one source for a while.
///
/// ```no_run
/// # use stream_manager_core::{manager::RecordJob, recording::Recording, source::TestSource};
/// # use std::time::Duration;
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let recording = Recording::fmp4().unsegmented().file("out.mp4", false);
/// let job = RecordJob::new(Box::new(TestSource::default()), recording).duration(Duration::from_secs(30));
/// let report = job.run(Default::default(), |progress| eprintln!("{} frames", progress.frames)).await?;
/// # Ok(())
/// # }
/// ```
pub struct RecordJob {
    source: Box<dyn Source>,
    recording: Recording,
    retry: RetryPolicy,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Progress {
    /// Where the source stands.
    pub state: StreamState,
    /// Why, in words.
    pub reason: String,
    /// Media written, in seconds.
    pub duration_secs: f64,
    /// Bytes written.
    pub bytes: u64,
    /// Frames written.
    pub frames: u64,
    /// Bits per second received during the last interval.
    pub bitrate: f64,
    /// Packets lost between the camera and here.
    pub packets_lost: u64,
    /// Frames lost because the disk was too slow.
    pub frames_lost: u64,
    /// The file being written.
    pub file: Option<std::path::PathBuf>,
}

/// What a job has recorded.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct JobReport {
    /// The state at the end.
    pub progress: Progress,
    /// How many segments there are.
    pub segments: u64,
    /// The last one.
    pub last_segment: Option<Segment>,
}

/// Why a job failed. What was recorded until then is finished and stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The recording failed.
    #[error("recording failed: {0}")]
    Recording(String),
    /// There was no frame to record.
    #[error("nothing was recorded: no keyframe arrived")]
    Nothing,
    /// The job's settings do not make sense.
    #[error(transparent)]
    Settings(#[from] ManagerError),
}

impl RecordJob {
    /// A job without a time limit. A source that fails at the first attempt ends it; later it is tried
    /// again for up to a minute.
    pub fn new(source: Box<dyn Source>, recording: Recording) -> Self {
        let retry = RetryPolicy { give_up_after: Some(Duration::from_secs(60)), ..RetryPolicy::default() };
        Self { source, recording: recording.retry(false), retry }
    }

    /// Ends it after this much media.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.recording = self.recording.limit(duration);
        self
    }

    /// Sets how long a source that has run is tried again; zero for not at all.
    #[must_use]
    pub fn give_up_after(mut self, duration: Duration) -> Self {
        self.retry.give_up_after = Some(duration);
        self
    }

    /// Runs it until its duration, the source's end, or `cancel`; the files are finished in any case.
    ///
    /// # Errors
    /// If the source cannot be opened or is lost for good, or nothing can be written.
    pub async fn run(
        self,
        cancel: CancellationToken,
        mut tell: impl FnMut(&Progress),
    ) -> Result<JobReport, JobError> {
        if self.source.publish_slot().is_some() {
            return Err(SourceError::Published.into());
        }
        let manager = StreamManager::builder().disk_threads(1).build().await?;
        let stream =
            Stream::builder("job").boxed_source(self.source).retry(self.retry).record(self.recording);
        let handle = manager.add_stream(stream)?;
        let mut state = handle.shared.state.clone();
        let mut received = 0;
        let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.tick().await;
        let mut progress = snapshot(&handle, 0.0);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = state.wait_for(|s| s.state == StreamState::Stopped) => {
                    drop(changed);
                    break;
                }
                _ = interval.tick() => {
                    let bytes = handle.hub().stats().bytes;
                    let bitrate = (bytes - received) as f64 * 8.0 / PROGRESS_INTERVAL.as_secs_f64();
                    received = bytes;
                    progress = snapshot(&handle, bitrate);
                    tell(&progress);
                    // Off means done: the duration is reached, or writing failed.
                    if handle.recorder().status().state == RecordingState::Off {
                        break;
                    }
                }
            }
        }
        let source = handle.stop(super::STOP_TIMEOUT).await;
        let status = handle.recorder().status();
        let report = JobReport {
            progress: snapshot(&handle, progress.bitrate),
            segments: status.segments,
            last_segment: status.last_segment,
        };
        tell(&report.progress);
        if let Some(problem) = status.last_error {
            return Err(JobError::Recording(problem));
        }
        source?;
        if report.segments == 0 {
            return Err(JobError::Nothing);
        }
        Ok(report)
    }
}

fn snapshot(handle: &super::StreamHandle, bitrate: f64) -> Progress {
    let (state, recording, hub) = (handle.state(), handle.recorder().status(), handle.hub().stats());
    Progress {
        state: state.state,
        reason: state.reason,
        duration_secs: recording.duration_secs,
        bytes: recording.bytes,
        frames: recording.frames,
        bitrate,
        packets_lost: hub.packets_lost,
        frames_lost: recording.lost_frames,
        file: recording.file,
    }
}
