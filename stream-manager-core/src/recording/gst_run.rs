//! One life of a muxing pipeline: frames in, fragments' ends out.

use super::{RecordError, Segment};
use crate::frame::{CodecParameters, Frame, MediaTime, TrackId, WallTime};
use crate::pipeline::{ManagedPipeline, PipelineMessage};
use gstreamer as gst;
use gstreamer_app as gst_app;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Keyframes whose wall clock is remembered, to name segments by.
const REMEMBERED_KEYFRAMES: usize = 64;

/// Running time and wall clock of recent keyframes.
pub(super) type Keyframes = Arc<Mutex<VecDeque<(i64, WallTime)>>>;

pub(super) struct Run {
    pub(super) managed: ManagedPipeline,
    pub(super) bus: mpsc::Receiver<PipelineMessage>,
    pub(super) sources: Vec<Input>,
    pub(super) toggle: gst::Element,
    pub(super) splitmux: Option<gst::Element>,
    pub(super) main: TrackId,
    pub(super) base: MediaTime,
    pub(super) keyframes: Keyframes,
    /// Frames pushed that have not been counted into the status yet.
    pub(super) frames: u64,
    pub(super) segment_frames: u64,
    pub(super) bytes: u64,
    pub(super) last_dts: MediaTime,
    pub(super) segment_start: MediaTime,
    /// Between a pause and the next keyframe.
    pub(super) holding: bool,
}

pub(super) struct Input {
    pub(super) track: TrackId,
    pub(super) source: gst_app::AppSrc,
    pub(super) last_dts: Option<MediaTime>,
    /// Length of the last frame, taken for that of the next: muxers give it to the very last one.
    pub(super) frame_duration: Duration,
}

/// Waits for the end of the stream to reach the file, keeping what elements post on the way.
pub(super) async fn until_end(
    bus: &mut mpsc::Receiver<PipelineMessage>,
    posted: &mut Vec<gst::Structure>,
) -> Result<(), RecordError> {
    while let Some(message) = bus.recv().await {
        match message {
            PipelineMessage::Eos => return Ok(()),
            PipelineMessage::Error(error) => return Err(error.into()),
            PipelineMessage::Element(structure) => posted.push(structure),
        }
    }
    Ok(())
}

/// Length of a frame, as far as the parameters tell.
pub(super) fn nominal_duration(parameters: &CodecParameters) -> Duration {
    match parameters {
        CodecParameters::Video(v) => {
            let (num, den) = v.frame_rate.unwrap_or((25, 1));
            Duration::from_secs(1) * den / num.max(1)
        }
        CodecParameters::Audio(a) => {
            Duration::from_secs(1) * a.samples_per_frame(0).unwrap_or(a.sample_rate / 50)
                / a.sample_rate.max(1)
        }
        CodecParameters::Data(_) => Duration::ZERO,
    }
}

pub(super) fn wall_clock_of(
    keyframes: &Keyframes,
    running_time: Option<gst::ClockTime>,
    base: MediaTime,
) -> WallTime {
    let keyframes = keyframes.lock();
    let wanted = running_time
        .and_then(|t| i64::try_from(t.nseconds()).ok())
        .map_or(base.as_nanos(), |t| t + base.as_nanos());
    keyframes
        .iter()
        .min_by_key(|(time, _)| time.abs_diff(wanted))
        .map_or_else(WallTime::now, |(_, wall)| *wall)
}

impl Run {
    pub(super) fn push(&mut self, frame: Frame) {
        let Some(input) = self.sources.iter_mut().find(|i| i.track == frame.track) else { return };
        let base = self.base.as_nanos();
        let relative = |time: MediaTime| {
            u64::try_from(time.as_nanos().saturating_sub(base)).ok().map(gst::ClockTime::from_nseconds)
        };
        // Sound from before the first picture.
        let (Some(pts), Some(dts)) = (relative(frame.pts), relative(frame.dts)) else { return };
        if frame.track == self.main {
            self.last_dts = frame.dts;
            if frame.keyframe {
                let mut keyframes = self.keyframes.lock();
                keyframes.push_back((frame.pts.as_nanos(), frame.wall_clock));
                if keyframes.len() > REMEMBERED_KEYFRAMES {
                    keyframes.pop_front();
                }
            }
        }
        if let Some(last) = input.last_dts.replace(frame.dts) {
            input.frame_duration = frame.dts.saturating_since(last).min(Duration::from_secs(1));
        }
        self.frames += 1;
        self.bytes += frame.data.len() as u64;
        let keyframe = frame.keyframe;
        let mut buffer = gst::Buffer::from_slice(frame.data);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(pts);
            buffer.set_dts(dts);
            buffer.set_duration(gst::ClockTime::try_from(input.frame_duration).ok());
            if !keyframe {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        // A refusal means that the pipeline is ending; its error is on the bus.
        let _ = input.source.push_buffer(buffer);
    }

    pub(super) fn main_frame_duration(&self) -> Duration {
        self.sources.iter().find(|i| i.track == self.main).map_or(Duration::ZERO, |i| i.frame_duration)
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        self.sources.iter().map(|i| i.source.current_level_bytes()).max().unwrap_or(0)
    }

    /// Reads splitmuxsink's messages.
    pub(super) fn fragment_message(&mut self, structure: &gst::Structure) -> Option<Fragment> {
        let path = PathBuf::from(structure.get::<String>("location").ok()?);
        let time = structure.get::<gst::ClockTime>("running-time").ok()?;
        let at =
            MediaTime::from_nanos(i64::try_from(time.nseconds()).ok()?.saturating_add(self.base.as_nanos()));
        match structure.name().as_str() {
            "splitmuxsink-fragment-opened" => {
                self.segment_start = at;
                Some(Fragment::Opened { path, start: self.wall_clock_at(at), media_start: at })
            }
            "splitmuxsink-fragment-closed" => {
                let start = self.wall_clock_at(self.segment_start);
                let frames = self.frames - self.segment_frames;
                self.segment_frames = self.frames;
                let duration = at.saturating_since(self.segment_start);
                Some(Fragment::Closed(Segment { path, start, duration, bytes: 0, frames }))
            }
            _ => None,
        }
    }

    fn wall_clock_at(&self, time: MediaTime) -> WallTime {
        let running_time = u64::try_from(time.as_nanos().saturating_sub(self.base.as_nanos())).unwrap_or(0);
        wall_clock_of(&self.keyframes, Some(gst::ClockTime::from_nseconds(running_time)), self.base)
    }
}

/// What splitmuxsink tells of a file.
pub(super) enum Fragment {
    Opened { path: PathBuf, start: WallTime, media_start: MediaTime },
    Closed(Segment),
}
