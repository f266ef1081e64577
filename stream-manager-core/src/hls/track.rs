//! One track on its way into parts and segments.

use super::presentation::{Presentation, Targets};
use super::rendition::{Init, Part, Rendition, Segment};
use super::rules::Planned;
use crate::config::HlsSettings;
use crate::fmp4::{CmafTrack, Fmp4Error, Fragmenter, init_segment};
use crate::frame::{CodecParameters, Frame, MediaTime};
use crate::pipeline::sound::Encoder;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A camera that sends no keyframe for this long has its segments cut all the same.
const MAX_SEGMENT: Duration = Duration::from_secs(30);
/// The very first segment is cut this early, so that players that only take whole ones can begin.
const FIRST_SEGMENT: Duration = Duration::from_millis(500);
/// Segments may be this much shorter than wished: keyframes do not come to the millisecond.
const EARLY: f64 = 0.95;
/// Parts may be this much longer than so many frames: cameras' timestamps jitter.
const JITTER: f64 = 1.05;

/// A part that is being made.
#[derive(Clone, Copy)]
struct OpenPart {
    dts: MediaTime,
    independent: bool,
    frames: usize,
}

/// A segment that is being made.
#[derive(Clone, Copy)]
struct OpenSegment {
    dts: MediaTime,
    independent: bool,
    bytes: u64,
}

pub(super) struct Making {
    pub(super) planned: Planned,
    pub(super) rendition: Arc<Rendition>,
    pub(super) encoder: Option<Encoder>,
    /// Frames that wait until the main track has come as far.
    pub(super) queue: VecDeque<Frame>,
    /// Where the main track's segments have begun.
    pub(super) boundaries: VecDeque<MediaTime>,
    fragmenter: Fragmenter,
    init: Arc<Init>,
    segment: Option<OpenSegment>,
    part: Option<OpenPart>,
    last_dts: Option<MediaTime>,
    interval: Duration,
    discontinuity: bool,
    /// When its last frame ends, as far as that is known.
    pub(super) end: Option<MediaTime>,
}

/// An initialization segment for one track.
fn make_init(planned: &Planned, id: u32, number: u64) -> Result<Arc<Init>, Fmp4Error> {
    let parameters = planned.output.clone();
    let data = init_segment(&[CmafTrack { id, parameters: parameters.clone() }])?;
    Ok(Arc::new(Init { number, data, parameters }))
}

/// How far apart frames are before that is known.
fn usual_interval(parameters: &CodecParameters) -> Duration {
    let ticks = i64::from(parameters.usual_ticks(0));
    MediaTime::from_ticks(ticks, parameters.clock_rate()).saturating_since(MediaTime::ZERO)
}

impl Making {
    pub(super) fn new(planned: Planned, number: u64) -> Result<Self, Fmp4Error> {
        let id = planned.id.0 + 1;
        let init = make_init(&planned, id, number)?;
        let rendition = Arc::new(Rendition::new(planned.name(), planned.id, init.clone()));
        Ok(Self {
            fragmenter: Fragmenter::cmaf(&planned.as_track(), id)?,
            interval: usual_interval(&planned.output),
            encoder: planned
                .is_encoded()
                .then(|| Encoder::new(planned.input.clone(), planned.output.clone())),
            rendition,
            queue: VecDeque::new(),
            boundaries: VecDeque::new(),
            init,
            segment: None,
            part: None,
            last_dts: None,
            discontinuity: false,
            end: None,
            planned,
        })
    }

    pub(super) fn is_video(&self) -> bool {
        self.planned.output.video().is_some()
    }

    /// Encoded differently from now on.
    pub(super) fn change(&mut self, planned: Planned) -> Result<(), Fmp4Error> {
        let id = self.rendition.id();
        self.fragmenter = Fragmenter::cmaf(&planned.as_track(), id)?;
        self.interval = usual_interval(&planned.output);
        if planned.input != self.planned.input {
            self.encoder =
                planned.is_encoded().then(|| Encoder::new(planned.input.clone(), planned.output.clone()));
        }
        if planned.output != self.planned.output {
            self.init = make_init(&planned, id, self.rendition.read(|held| held.next))?;
            self.rendition.change(|held| held.init = self.init.clone());
        }
        self.planned = planned;
        Ok(())
    }

    /// How far apart its frames are.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes what the first frames say about how far apart they are.
    pub(super) fn learn_interval(&mut self, mut distances: Vec<Duration>) {
        distances.sort_unstable();
        if let Some(median) = distances.get(distances.len() / 2) {
            self.interval = *median;
        }
    }

    /// Ends the segment that is being made; the next one does not follow on it.
    pub(super) fn interrupt(&mut self, presentation: &Presentation) -> Result<(), Fmp4Error> {
        let begun = self.segment.is_some() || self.rendition.has_segment();
        self.queue.clear();
        self.boundaries.clear();
        self.close(None, presentation)?;
        self.discontinuity |= begun;
        self.last_dts = None;
        Ok(())
    }

    /// Whether the main track's segment ends before this frame.
    fn is_full(&self, frame: &Frame, settings: &HlsSettings) -> bool {
        let Some(segment) = self.segment else { return false };
        let elapsed = frame.dts.saturating_since(segment.dts);
        if frame.keyframe && (!segment.independent || elapsed >= settings.segment_duration.mul_f64(EARLY)) {
            return elapsed > Duration::ZERO;
        }
        let forced =
            elapsed >= MAX_SEGMENT.max(settings.segment_duration) || segment.bytes > settings.max_bytes / 2;
        forced || (elapsed >= FIRST_SEGMENT && !self.rendition.has_segment())
    }

    /// Takes the main track's next frame; says where a segment has begun with it.
    pub(super) fn push_main(
        &mut self,
        frame: Frame,
        presentation: &Presentation,
    ) -> Result<Option<MediaTime>, Fmp4Error> {
        if self.segment.is_none() && !frame.keyframe {
            return Ok(None);
        }
        let cut = self.segment.is_none() || self.is_full(&frame, presentation.settings());
        let start = cut.then_some(frame.pts);
        self.push(frame, cut, presentation)?;
        Ok(start)
    }

    /// Takes another track's next frame; its segments begin where the main track's do.
    pub(super) fn push_other(&mut self, frame: Frame, presentation: &Presentation) -> Result<(), Fmp4Error> {
        let mut cut = false;
        while self.boundaries.front().is_some_and(|boundary| *boundary <= frame.pts) {
            self.boundaries.pop_front();
            cut = true;
        }
        if self.segment.is_none() && !cut {
            // Sound from before the first picture.
            return Ok(());
        }
        self.push(frame, cut, presentation)
    }

    fn push(&mut self, frame: Frame, cut: bool, presentation: &Presentation) -> Result<(), Fmp4Error> {
        if let Some(last) = self.last_dts.replace(frame.dts) {
            let distance = frame.dts.saturating_since(last);
            self.interval = (self.interval * 7 + distance) / 8;
        }
        if cut {
            self.close(Some(&frame), presentation)?;
            // In mid-GOP it goes on where the last one ended: with B frames, its first frame may be shown earlier.
            let ended = self.rendition.read(|held| held.segments.back().map(|segment| segment.end()));
            let start = ended.filter(|_| !self.discontinuity && !frame.keyframe).unwrap_or(frame.pts);
            self.begin(start, &frame, presentation);
        } else if let Some(part) = self.part {
            let end = frame.dts + self.interval;
            if end.saturating_since(part.dts) > presentation.part_target() + Duration::from_millis(1) {
                self.finish_part(Some(frame.dts), presentation)?;
            }
        }
        let part =
            self.part.get_or_insert(OpenPart { dts: frame.dts, independent: frame.keyframe, frames: 0 });
        part.frames += 1;
        if let Some(segment) = &mut self.segment {
            segment.bytes += frame.data.len() as u64;
        }
        // It makes a part only when it is told to.
        self.fragmenter.push(frame).map(drop)
    }

    fn begin(&mut self, start: MediaTime, frame: &Frame, presentation: &Presentation) {
        self.segment = Some(OpenSegment { dts: frame.dts, independent: frame.keyframe, bytes: 0 });
        let (init, discontinuity) = (self.init.clone(), std::mem::take(&mut self.discontinuity));
        let epoch = presentation.epoch();
        if presentation.is_main(self.rendition.id()) {
            presentation.epoch_begins(epoch, start);
        }
        self.rendition.change(|held| {
            // The part that was hinted would have followed on what was there, and been decoded as that was.
            let is_other = held.segments.back().is_some_and(|last| !Arc::ptr_eq(&last.init, &init));
            let first_part = held.next_part + u64::from(discontinuity || is_other);
            held.open = Some(Segment {
                number: held.next,
                init,
                discontinuity,
                epoch,
                start,
                duration: Duration::ZERO,
                independent: frame.keyframe,
                first_part,
                parts: Vec::new(),
                bytes: 0,
            });
            held.next += 1;
        });
    }

    fn finish_part(&mut self, next: Option<MediaTime>, presentation: &Presentation) -> Result<(), Fmp4Error> {
        let Some(open) = self.part.take() else { return Ok(()) };
        let Some(made) = self.fragmenter.finish(next)? else { return Ok(()) };
        let length = usize::try_from(made.len_bytes()).unwrap_or(0);
        let mut data = BytesMut::with_capacity(length);
        made.chunks().for_each(|chunk| data.extend_from_slice(chunk));
        let data: Bytes = data.freeze();
        let part = Part { data, start: open.dts, duration: made.duration, independent: open.independent };
        let part = Arc::new(part);
        self.end = Some(open.dts + made.duration);
        presentation.raise_targets(Duration::ZERO, made.duration);
        let (init, id) = (self.init.clone(), self.rendition.id());
        let others = presentation.held_bytes().saturating_sub(self.rendition.read(|held| held.bytes));
        let limit = presentation.settings().max_bytes.saturating_sub(others);
        let window = presentation.kept_window();
        self.rendition.change(|held| {
            held.add_part(part.clone(), open.frames);
            held.trim(window, limit);
        });
        let sync = open.independent && presentation.is_main(id);
        presentation.ring.push(id, init, part, sync, presentation.settings().max_bytes);
        Ok(())
    }

    /// Finishes part and segment; `next` is the frame that follows.
    pub(super) fn close(
        &mut self,
        next: Option<&Frame>,
        presentation: &Presentation,
    ) -> Result<(), Fmp4Error> {
        let result = self.finish_part(next.map(|frame| frame.dts), presentation);
        if self.segment.take().is_some() {
            let window = presentation.kept_window();
            let longest = self.rendition.change(|held| {
                held.close();
                let longest = held.segments.back().map_or(Duration::ZERO, |s| s.duration);
                held.trim(window, u64::MAX);
                longest
            });
            presentation.raise_targets(longest, Duration::ZERO);
        }
        result
    }
}

/// What playlists promise of a stream whose main track is this.
pub(super) fn targets_of(main: &Making, gop: Option<Duration>, settings: &HlsSettings) -> Targets {
    let wanted = settings.segment_duration;
    let segment = match gop.filter(|gop| !gop.is_zero()) {
        // As many GOPs as it takes.
        Some(gop) => {
            let enough = wanted.mul_f64(EARLY).as_secs_f64() / gop.as_secs_f64();
            gop.mul_f64(enough.ceil().max(1.0)).min(MAX_SEGMENT)
        }
        None => wanted,
    };
    let segment = Duration::from_secs((segment.as_secs_f64().round() as u64).max(wanted.as_secs()).max(1));
    let interval = main.interval().max(Duration::from_millis(1));
    let frames = (settings.part_duration.as_secs_f64() / interval.as_secs_f64() + 0.01).floor().max(1.0);
    // Whole milliseconds, as playlists say it.
    let part = interval.mul_f64(frames * JITTER).as_millis() as u64;
    Targets { segment, part: Duration::from_millis(part.max(1)) }
}
