//! A stream's picture made anew: decoded, and encoded as H.264 without B frames for players that take nothing else, or in another
//! codec, size, frame rate or bit rate. Sound goes along as it is, if it is to.
//!
//! Decoded here and scaled, it goes the way of all raw video (see [`super::gst_source`]).

use super::gst_source::{self, GstOptions};
use super::paint::{self, Painter};
use super::{Source, SourceEnd, SourceError};
use crate::frame::{Frame, MediaKind, MediaTime, TrackId, VideoCodec, VideoParameters};
use crate::hub::{Hub, HubItem, HubReader, HubWriter, ReaderOptions};
use crate::pipeline::caps::caps_for;
use crate::pipeline::encoder::{Encoding, usual_bitrate, usual_gop};
use crate::pipeline::{self, ErrorCause, PipelineError, buffer_of, link_first, make_element, parse_chain};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Frames that may wait to be decoded: more than a kept GOP usually has. What is more is left out up to the next keyframe.
const MAX_WAITING: u64 = 600;
/// For how long frames are held back at most.
const LONGEST_HOLD: Duration = Duration::from_secs(1);
/// Frames in which there has to be sound if there is any.
const MAX_FIRST: usize = 500;

/// What a picture is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// The codec: H.264, H.265, VP8 or VP9.
    pub codec: VideoCodec,
    /// Height in pixels, if it is to be smaller than it is.
    pub height: Option<u32>,
    /// Pictures a second, if there are to be fewer than there are.
    pub fps: Option<u32>,
    /// Bits a second; by size and rate if not set.
    pub bitrate_bps: Option<u64>,
    /// Whether the first track of sound goes along.
    pub sound: bool,
}

impl Default for Rendition {
    /// H.264, as large and as often as it is, with sound.
    fn default() -> Self {
        Self { codec: VideoCodec::H264, height: None, fps: None, bitrate_bps: None, sound: true }
    }
}

impl Rendition {
    /// Width, height, and frame rate as a fraction, of what becomes of such a picture.
    fn shape(&self, video: &VideoParameters) -> (u32, u32, Option<(u32, u32)>) {
        let (width, height) = (video.width.max(2), video.height.max(2));
        // Encoders want even numbers.
        let made = self.height.unwrap_or(height).min(height).max(2) & !1;
        let wide = (u64::from(width) * u64::from(made) / u64::from(height)).max(2) as u32 & !1;
        let rate = self.fps.map(|fps| match video.frame_rate {
            Some((num, den)) if u64::from(num) < u64::from(fps) * u64::from(den) => (num, den),
            _ => (fps, 1),
        });
        (wide, made, rate)
    }

    fn bitrate(&self, (width, height, rate): (u32, u32, Option<(u32, u32)>), video: &VideoParameters) -> u64 {
        let usual = || usual_bitrate((width, height), rate.or(video.frame_rate));
        self.bitrate_bps.unwrap_or_else(usual).max(50_000)
    }
}

/// The first video track of another stream in another form: as a player without much to choose wants it, or as a [`Rendition`] says.
///
/// ```
/// # use stream_manager_core::hub::Hub;
/// # use stream_manager_core::source::{Rendition, TranscodeSource};
/// let camera = Hub::default();
/// let small = TranscodeSource::new(camera).rendition(Rendition { height: Some(360), ..Rendition::default() });
/// ```
pub struct TranscodeSource {
    hub: Hub,
    rendition: Option<Rendition>,
    painter: Option<Arc<dyn Painter>>,
}

impl TranscodeSource {
    /// Of what goes through this hub: H.264, without sound, by the encoder and with the settings that raw video gets.
    pub fn new(hub: Hub) -> Self {
        Self { hub, rendition: None, painter: None }
    }

    /// Makes this of it.
    #[must_use]
    pub fn rendition(mut self, rendition: Rendition) -> Self {
        self.rendition = Some(rendition);
        self
    }

    /// Has its pictures drawn into. Only with a [rendition](Self::rendition).
    #[must_use]
    pub fn paint(mut self, painter: Arc<dyn Painter>) -> Self {
        self.painter = Some(painter);
        self
    }

    /// What stands behind the decoder, and how what comes out of that is encoded, if this is not left to whoever takes raw video.
    fn behind(&self, video: &VideoParameters) -> Result<Option<(gst::Bin, Encoding)>, PipelineError> {
        let Some(rendition) = self.rendition else { return Ok(None) };
        let shape = rendition.shape(video);
        let (width, height, rate) = shape;
        let mut caps = format!("video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1");
        if let Some((num, den)) = rate {
            caps += &format!(",framerate={num}/{den}");
        }
        let rates = if rate.is_some() { "videorate drop-only=true !" } else { "" };
        let canvas = if self.painter.is_some() { paint::CHAIN } else { "" };
        let scale = parse_chain(&format!("{canvas} {rates} videoscale ! capsfilter caps=\"{caps}\""))?;
        let bitrate_bps = rendition.bitrate(shape, video);
        let gop = usual_gop(rate.or(video.frame_rate));
        Ok(Some((scale, Encoding { codec: rendition.codec, bitrate_bps, gop })))
    }
}

fn failed(problem: impl ToString) -> PipelineError {
    PipelineError::Element {
        element: "decoder".into(),
        message: problem.to_string(),
        cause: ErrorCause::Other,
    }
}

/// Where frames of a track go in.
struct Inlet {
    source: gst_app::AppSrc,
    track: TrackId,
    origin: MediaTime,
    waits_for_keyframe: bool,
}

impl Inlet {
    fn new(first: &Frame, origin: MediaTime) -> Result<Self, PipelineError> {
        let caps = caps_for(&first.parameters).ok_or_else(|| failed("this codec cannot be decoded"))?;
        let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).is_live(true).build();
        source.set_max_buffers(MAX_WAITING);
        Ok(Self { source, track: first.track, origin, waits_for_keyframe: false })
    }

    fn push(&mut self, frame: &Frame) {
        if frame.track != self.track
            || frame.dts < self.origin
            || (self.waits_for_keyframe && !frame.keyframe)
        {
            return;
        }
        if self.source.current_level_buffers() >= MAX_WAITING {
            // The decoder cannot keep up.
            self.waits_for_keyframe = true;
            return;
        }
        self.waits_for_keyframe = false;
        // It refuses only when it is ending, of which the pipeline tells.
        let _ = self.source.push_buffer(buffer_of(frame, self.origin));
    }
}

/// Frames that are held back, and until when.
struct Held<'a> {
    painter: Option<&'a dyn Painter>,
    frames: VecDeque<(Frame, Instant)>,
}

impl Held<'_> {
    /// Takes a frame in. Gives it back if it is not to be held.
    fn hold(&mut self, frame: Frame) -> Option<Frame> {
        let hold = self.painter.map_or(Duration::ZERO, Painter::hold).min(LONGEST_HOLD);
        if (hold.is_zero() && self.frames.is_empty()) || self.frames.len() as u64 >= MAX_WAITING {
            return Some(frame);
        }
        // None overtakes another.
        let due = self.frames.back().map_or_else(Instant::now, |(_, due)| *due).max(Instant::now() + hold);
        self.frames.push_back((frame, due));
        None
    }

    /// The next one, when its time has come. Cancel safe.
    async fn next(&mut self) -> Frame {
        let Some((_, due)) = self.frames.front() else { return std::future::pending().await };
        tokio::time::sleep_until((*due).into()).await;
        match self.frames.pop_front() {
            Some((frame, _)) => frame,
            None => std::future::pending().await,
        }
    }
}

/// Puts in what comes, until something else comes than was begun with.
async fn fill(inlets: &mut [Inlet], mut reader: HubReader, first: Vec<Frame>, painter: Option<&dyn Painter>) {
    let begun: Vec<_> = inlets
        .iter()
        .filter_map(|inlet| Some(first.iter().find(|f| f.track == inlet.track)?.parameters.clone()))
        .collect();
    for frame in &first {
        inlets.iter_mut().for_each(|inlet| inlet.push(frame));
    }
    let mut held = Held { painter, frames: VecDeque::new() };
    loop {
        let item = tokio::select! {
            frame = held.next() => {
                inlets.iter_mut().for_each(|inlet| inlet.push(&frame));
                continue;
            }
            item = reader.next() => item,
        };
        let Some(item) = item else { return };
        match item {
            HubItem::Frame(frame) => {
                for (_, parameters) in inlets.iter().zip(&begun).filter(|(i, _)| i.track == frame.track) {
                    if frame.keyframe && *frame.parameters != **parameters {
                        return;
                    }
                }
                if let Some(frame) = held.hold(frame) {
                    // What is held has been for too long already.
                    for (frame, _) in held.frames.drain(..) {
                        inlets.iter_mut().for_each(|inlet| inlet.push(&frame));
                    }
                    inlets.iter_mut().for_each(|inlet| inlet.push(&frame));
                }
            }
            HubItem::Discontinuity | HubItem::Lagged { .. } => {
                held.frames.clear();
                inlets.iter_mut().for_each(|inlet| inlet.waits_for_keyframe = true);
            }
            _ => {}
        }
    }
}

#[async_trait::async_trait]
impl Source for TranscodeSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        pipeline::init()?;
        let mut reader = self.hub.subscribe("transcoding", ReaderOptions::default());
        let sound = self.rendition.is_some_and(|rendition| rendition.sound)
            && self.hub.tracks().iter().any(|t| t.parameters.kind() == MediaKind::Audio);
        // From a keyframe on, and what has come of the sound until one of that is there, too.
        let mut first: Vec<Frame> = Vec::new();
        let has = |first: &[Frame], kind| first.iter().any(|frame: &Frame| frame.parameters.kind() == kind);
        while !has(&first, MediaKind::Video) || (sound && !has(&first, MediaKind::Audio)) {
            match cancel.run_until_cancelled(reader.next()).await {
                None => return Ok(SourceEnd::Cancelled),
                Some(None) => return Ok(SourceEnd::Finished),
                Some(Some(HubItem::Frame(frame))) => {
                    let begins = frame.is_video() && frame.keyframe;
                    if begins || has(&first, MediaKind::Video) || frame.parameters.kind() == MediaKind::Audio
                    {
                        first.push(frame);
                    }
                }
                Some(Some(HubItem::Discontinuity | HubItem::Tracks(_))) => first.clear(),
                Some(Some(_)) => {}
            }
            if first.len() > MAX_FIRST {
                // There is no sound, whatever was said.
                break;
            }
        }
        let Some(picture) = first.iter().find(|frame| frame.is_video()).cloned() else {
            return Err(SourceError::NoTracks { address: self.address() });
        };
        let Some(video) = picture.parameters.video() else {
            return Err(SourceError::NoTracks { address: self.address() });
        };
        // Pictures may be shown earlier than they are decoded.
        let origin = picture.dts.min(picture.pts) - Duration::from_secs(1);
        let line = gst::Pipeline::new();
        let decoder = make_element("decodebin")?;
        let mut inlets = vec![Inlet::new(&picture, origin)?];
        let inlet = inlets[0].source.clone();
        line.add_many([inlet.upcast_ref(), &decoder]).map_err(failed)?;
        inlet.link(&decoder).map_err(failed)?;
        let mut options = GstOptions::live(self.address());
        if let Some((scale, encoding)) = self.behind(video)? {
            if let Some(painter) = &self.painter {
                paint::paint_in(&scale, painter.clone(), origin);
            }
            line.add(&scale).map_err(failed)?;
            link_first(&decoder, scale.upcast_ref());
            options.encoding = Some(encoding);
        }
        if let Some(frame) = first.iter().find(|f| sound && f.parameters.kind() == MediaKind::Audio) {
            let inlet = Inlet::new(frame, origin)?;
            line.add(&inlet.source).map_err(failed)?;
            inlets.push(inlet);
        }
        let stop = cancel.child_token();
        let mut runs = std::pin::pin!(gst_source::run(line, &options, hub, &stop));
        tokio::select! {
            ended = &mut runs => ended,
            () = fill(&mut inlets, reader, first, self.painter.as_deref()) => {
                stop.cancel();
                runs.await?;
                // What comes now is something else: to be begun anew.
                if cancel.is_cancelled() { Ok(SourceEnd::Cancelled) } else { Err(SourceError::Ended) }
            }
        }
    }

    fn address(&self) -> String {
        "transcoded".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_their_shape_and_are_never_made_larger() {
        let mut camera = VideoParameters::new(VideoCodec::H265, 2560, 1440);
        camera.frame_rate = Some((15, 1));
        let of = |height, fps| Rendition { height, fps, ..Rendition::default() };
        assert_eq!(of(Some(720), Some(10)).shape(&camera), (1280, 720, Some((10, 1))));
        assert_eq!(of(Some(2160), Some(30)).shape(&camera), (2560, 1440, Some((15, 1))));
        assert_eq!(of(None, None).shape(&camera), (2560, 1440, None));
        camera.width = 1921;
        assert_eq!(of(Some(361), None).shape(&camera).0 % 2, 0);
        assert_eq!(of(Some(361), None).shape(&camera).1, 360);
        let rendition = of(Some(720), Some(10));
        assert_eq!(rendition.bitrate((1280, 720, Some((10, 1))), &camera), 921_600);
        assert_eq!(
            Rendition { bitrate_bps: Some(1_000_000), ..rendition }.bitrate((2, 2, None), &camera),
            1_000_000
        );
    }
}
