//! What writes a recording's files.

use super::RecordError;
use crate::frame::{Frame, MediaTime, Track};
use std::sync::Arc;

/// Writes frames into segments of one container.
#[async_trait::async_trait]
pub(super) trait SegmentWriter: Send {
    /// The tracks, before the first frame and whenever they change.
    async fn tracks(&mut self, tracks: Arc<[Track]>) -> Result<(), RecordError>;
    /// The next frame.
    async fn frame(&mut self, frame: Frame) -> Result<(), RecordError>;
    /// Frames are missing here.
    async fn gap(&mut self) -> Result<(), RecordError>;
    /// Frames from here on are not to be recorded.
    async fn pause(&mut self) -> Result<(), RecordError>;
    /// A frame inside a pause; some muxers have to see it go by.
    fn paused_frame(&mut self, frame: &Frame);
    /// Frames from the next keyframe on are to be recorded again.
    fn resume(&mut self);
    /// Cut at the next keyframe.
    fn split(&mut self);
    /// Decoding time of the frame that the next write waits for, if there is one.
    fn next_write(&self) -> Option<MediaTime> {
        None
    }
    /// Finishes what is open.
    async fn finish(&mut self) -> Result<(), RecordError>;
}
