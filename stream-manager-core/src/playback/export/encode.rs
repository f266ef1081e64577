//! Exports whose pictures are encoded anew: all of them, or only those at the edges.

use super::exact::Edges;
use super::recode::{Caption, Decide, Encode, Made, Recode, RecodeOptions, Shown};
use super::write::FrameWriter;
use super::{ExportOptions, Telling};
use crate::frame::{Codec, Frame, MediaTime, TrackId, VideoCodec, VideoParameters, WallTime};
use crate::pipeline::encoder::{Encoding, usual_bitrate, usual_gop};
use crate::playback::{PlanFrames, PlaybackError};
use crate::storage::index::TimeRange;
use std::sync::Arc;
use std::time::Duration;

/// Pictures a second of what is shown faster.
const FAST_FPS: u32 = 25;
/// Fewer pictures a second than these, and keyframes alone are not enough.
const LEAST_FPS: f64 = 10.0;

/// What one export works with.
pub(super) struct Work<'a> {
    pub(super) frames: PlanFrames,
    pub(super) range: TimeRange,
    pub(super) options: &'a ExportOptions,
    pub(super) writer: FrameWriter,
    pub(super) telling: Telling<'a>,
    /// By how much pictures are shown later than they are decoded; known with the first keyframe.
    delay: Option<Duration>,
}

/// A frame with the time at which it is shown, as recordings are found by it.
pub(super) struct Timed {
    pub(super) frame: Frame,
    pub(super) shown: WallTime,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        frames: PlanFrames,
        range: TimeRange,
        options: &'a ExportOptions,
        writer: FrameWriter,
        telling: Telling<'a>,
    ) -> Self {
        Self { frames, range, options, writer, telling, delay: None }
    }

    pub(super) fn main(&self) -> TrackId {
        self.frames.main()
    }

    /// By how much pictures are shown later than they are decoded.
    pub(super) fn delay(&self) -> Duration {
        self.delay.unwrap_or_default()
    }

    /// The next frame; says how far that is.
    pub(super) async fn next(&mut self) -> Result<Option<Timed>, PlaybackError> {
        let Some(frame) = self.frames.next().await? else { return Ok(None) };
        let later = frame.pts.saturating_since(frame.dts);
        if frame.track == self.main() && frame.keyframe && self.delay.is_none() {
            self.delay = Some(later);
        }
        // Files are found by when their frames were decoded: a keyframe's picture counts as shown then, and the others around it.
        let delay = if frame.is_video() { self.delay() } else { Duration::ZERO };
        let shown = frame.wall_clock + later - delay;
        let whole = self.frames.plan().duration().as_secs_f64();
        let done = frame.dts.as_secs_f64() / whole.max(0.001);
        self.telling.tell(done, self.writer.bytes())?;
        Ok(Some(Timed { frame, shown }))
    }

    pub(super) fn is_in(&self, time: WallTime) -> bool {
        (self.range.start..self.range.end).contains(&time)
    }

    /// Writes encoded pictures.
    pub(super) async fn write(&mut self, made: impl IntoIterator<Item = Made>) -> Result<(), PlaybackError> {
        for made in made {
            let frame = Frame {
                track: self.main(),
                parameters: made.parameters,
                pts: made.pts,
                // As much earlier as those that are not encoded anew.
                dts: made.pts - self.delay(),
                wall_clock: made.wall,
                ntp: None,
                keyframe: made.keyframe,
                data: made.data,
            };
            self.writer.picture(frame, made.wall).await?;
        }
        Ok(())
    }
}

/// How the main track is encoded.
pub(super) fn video_of(frames: &PlanFrames) -> Option<VideoParameters> {
    let track = frames.tracks().iter().find(|track| track.id == frames.main())?;
    track.parameters.video().cloned()
}

/// Whether only the edges have to be encoded anew.
pub(super) fn only_edges(options: &ExportOptions, frames: &PlanFrames) -> bool {
    let video = video_of(frames).map(|video| video.codec);
    options.exact && options.speed.is_none() && options.burn_time.is_none() && video == Some(VideoCodec::H264)
}

/// Encodes what has to be.
pub(super) async fn run(mut work: Work<'_>) -> Result<Option<WallTime>, PlaybackError> {
    if only_edges(work.options, &work.frames) {
        Edges::default().run(&mut work).await?;
    } else {
        all(&mut work).await?;
    }
    let start = work.writer.start();
    Ok(if work.writer.finish().await? { start } else { None })
}

/// All pictures.
async fn all(work: &mut Work<'_>) -> Result<(), PlaybackError> {
    let Some(video) = video_of(&work.frames) else {
        return Err(PlaybackError::NoPictures);
    };
    let speed = work.options.speed.unwrap_or(1.0);
    let plan = work.frames.plan();
    let per_second = plan.known_keyframes() as f64 * speed / plan.duration().as_secs_f64().max(0.001);
    let only_keyframes = work.options.speed.is_some() && per_second >= LEAST_FPS;
    let rate = if work.options.speed.is_some() { Some((FAST_FPS, 1)) } else { video.frame_rate };
    let bitrate_bps = usual_bitrate((video.width, video.height), rate).max(500_000);
    let encoding = Encoding { codec: VideoCodec::H264, bitrate_bps, gop: usual_gop(rate) };
    let mut options = Some(RecodeOptions {
        decide: decide(work.options, work.range),
        caption: caption(work.options),
        encode: Encode::Usual(encoding),
    });
    let mut recode: Option<Recode> = None;
    while let Some(Timed { frame, shown }) = work.next().await? {
        if frame.track != work.main() {
            let heard = work.options.speed.is_none() && (!work.options.exact || work.is_in(shown));
            if heard && matches!(frame.codec(), Codec::Audio(_)) {
                work.writer.sound(frame);
            }
            continue;
        }
        if only_keyframes && !frame.keyframe {
            continue;
        }
        if recode.is_none()
            && frame.keyframe
            && let Some(options) = options.take()
        {
            recode = Some(Recode::start(&frame, options).await?);
        }
        if let Some(recode) = &mut recode {
            recode.push(&frame, shown).await?;
            let made: Vec<Made> = recode.take().collect();
            work.write(made).await?;
        }
    }
    if let Some(recode) = recode {
        let made = recode.finish().await?;
        work.write(made).await?;
    }
    Ok(())
}

/// Which pictures stay, and when they are shown.
fn decide(options: &ExportOptions, range: TimeRange) -> Decide {
    let exact = options.exact;
    let stays = move |shown: &Shown| !exact || (range.start..range.end).contains(&shown.wall);
    let Some(speed) = options.speed else { return Box::new(move |shown| stays(&shown).then_some(shown.pts)) };
    let step = Duration::from_secs(1) / FAST_FPS;
    let mut first: Option<MediaTime> = None;
    let mut made: u32 = 0;
    Box::new(move |shown| {
        if !stays(&shown) {
            return None;
        }
        let first = *first.get_or_insert(shown.pts);
        let at = shown.pts.saturating_since(first).div_f64(speed);
        // So many a second at most, each at its own even time.
        if at + step / 2 < step * made {
            return None;
        }
        let even = u32::try_from(at.as_nanos() / step.as_nanos()).unwrap_or(u32::MAX).max(made);
        made = even.saturating_add(1);
        Some(first + step * even)
    })
}

fn caption(options: &ExportOptions) -> Option<Caption> {
    let zone = options.burn_time.clone()?;
    Some(Box::new(move |wall| wall.format_in(zone.zone(), "%Y-%m-%d %H:%M:%S %Z")))
}

/// All that goes along and is heard.
pub(super) fn sound_of(frames: &PlanFrames, options: &ExportOptions) -> Vec<crate::frame::Track> {
    let heard = |track: &&crate::frame::Track| matches!(track.parameters.codec(), Codec::Audio(_));
    let none = options.speed.is_some();
    frames.tracks().iter().filter(heard).filter(|_| !none).cloned().collect()
}

/// A copy of a frame with other parameters.
pub(super) fn with_parameters(frame: Frame, parameters: &Arc<crate::frame::CodecParameters>) -> Frame {
    Frame { parameters: parameters.clone(), ..frame }
}
