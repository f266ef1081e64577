//! A camera that needs no camera: a test picture with a clock and a frame counter, and a tone.
//!
//! The counter is burnt in twice: as text for people, and as a row of 24 black or white blocks along the
//! top edge for programs ([`read_counter`]), so that a test can tell a lost, doubled or reordered frame.

use super::address::{parse_parameter, unknown_parameter};
use super::gst_source::{self, GstOptions};
use super::{AddressError, Source, SourceEnd, SourceError};
use crate::error::redact_url;
use crate::hub::HubWriter;
use crate::pipeline::{self, parse_bin};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_util::sync::CancellationToken;
use url::Url;

/// How many blocks the counter has.
const COUNTER_BITS: usize = 24;

/// Which picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TestPattern {
    /// Colour bars.
    #[default]
    Smpte,
    /// A moving ball.
    Ball,
}

/// The settings of a test source; the defaults are those of `test://smpte`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestSource {
    /// Which picture.
    pub pattern: TestPattern,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
    /// Frames from one keyframe to the next.
    pub gop: u32,
    /// Whether there is a tone (AAC).
    pub audio: bool,
}

impl Default for TestSource {
    fn default() -> Self {
        Self { pattern: TestPattern::Smpte, width: 640, height: 360, fps: 25, gop: 25, audio: true }
    }
}

const PARAMETERS: &[&str] = &["width", "height", "fps", "gop", "audio"];

impl TestSource {
    /// From `test://smpte?width=640&height=360&fps=25&gop=25&audio=true`.
    ///
    /// # Errors
    /// If the pattern or a parameter is not known or out of range.
    pub fn from_url(url: &Url) -> Result<Self, AddressError> {
        let mut source = Self::default();
        let fail = |parameter: &str, value: &str, expected: &str| AddressError::Parameter {
            address: redact_url(url.as_str()),
            parameter: parameter.to_owned(),
            value: value.to_owned(),
            expected: expected.to_owned(),
        };
        source.pattern = match url.host_str().unwrap_or_default() {
            "smpte" => TestPattern::Smpte,
            "ball" => TestPattern::Ball,
            other => return Err(fail("pattern", other, "smpte or ball")),
        };
        for (name, value) in url.query_pairs() {
            let number = |min: u32, max: u32| -> Result<u32, AddressError> {
                let expected = format!("a number from {min} to {max}");
                let parsed: u32 = parse_parameter(url, &name, &value, &expected)?;
                if (min..=max).contains(&parsed) { Ok(parsed) } else { Err(fail(&name, &value, &expected)) }
            };
            match &*name {
                // x264 needs even sizes; narrower than this the counter's blocks would not survive coding.
                "width" => source.width = number(192, 7680)? & !1,
                "height" => source.height = number(64, 4320)? & !1,
                "fps" => source.fps = number(1, 240)?,
                "gop" => source.gop = number(1, 100_000)?,
                "audio" => source.audio = parse_parameter(url, "audio", &value, "true or false")?,
                other => return Err(unknown_parameter(url, other, PARAMETERS)),
            }
        }
        Ok(source)
    }

    fn launch_line(&self) -> String {
        let pattern = match self.pattern {
            TestPattern::Smpte => "smpte",
            TestPattern::Ball => "ball",
        };
        let Self { width, height, fps, gop, .. } = self;
        let video = format!(
            "videotestsrc is-live=true pattern={pattern} ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 \
             ! clockoverlay name=counter time-format=\"%Y-%m-%d %H:%M:%S\" halignment=left valignment=bottom \
             ! identity name=stamp ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} \
             ! h264parse ! capsfilter caps=\"video/x-h264,stream-format=avc,alignment=au\""
        );
        if self.audio {
            format!(
                "{video} audiotestsrc is-live=true wave=ticks volume=0.3 ! audio/x-raw,rate=48000,channels=2 \
                 ! audioconvert ! avenc_aac bitrate=64000 ! aacparse ! capsfilter caps=\"audio/mpeg,mpegversion=4,stream-format=raw\""
            )
        } else {
            video
        }
    }

    fn build(&self) -> Result<gst::Element, SourceError> {
        pipeline::init()?;
        let bin = parse_bin(&self.launch_line())?;
        let (overlay, stamp) = (bin.by_name("counter"), bin.by_name("stamp"));
        let pads = (
            overlay.as_ref().and_then(|e| e.static_pad("video_sink")),
            stamp.and_then(|e| e.static_pad("src")),
        );
        let (Some(overlay), (Some(text_pad), Some(stamp_pad))) = (overlay, pads) else {
            return Err(SourceError::Other("the test picture's elements are incomplete".into()));
        };
        let weak = overlay.downgrade();
        let counter = Arc::new(AtomicU32::new(0));
        let shared = counter.clone();
        text_pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let number = shared.fetch_add(1, Ordering::Relaxed);
            if let Some(overlay) = weak.upgrade() {
                overlay.set_property("text", format!("frame {number} "));
            }
            gst::PadProbeReturn::Ok
        });
        stamp_pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let number = counter.load(Ordering::Relaxed).wrapping_sub(1);
            if let (Some(buffer), Some(caps)) = (info.buffer_mut(), pad.current_caps()) {
                stamp_counter(buffer.make_mut(), &caps, number);
            }
            gst::PadProbeReturn::Ok
        });
        Ok(bin.upcast())
    }
}

/// Width of one block, for a picture of this width.
fn block_width(width: usize) -> usize {
    width / COUNTER_BITS
}

/// Draws the counter's blocks into the luma plane.
fn stamp_counter(buffer: &mut gst::BufferRef, caps: &gst::Caps, number: u32) {
    let Ok(info) = gst_video::VideoInfo::from_caps(caps) else { return };
    let Ok(mut frame) = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &info) else { return };
    let (width, stride) = (info.width() as usize, info.stride()[0] as usize);
    let block = block_width(width);
    let rows = block.min(info.height() as usize);
    // Neutral colour under the blocks, so that only luma tells.
    for plane in 1..frame.n_planes().min(3) {
        let stride = info.stride()[plane as usize] as usize;
        if let Ok(data) = frame.plane_data_mut(plane) {
            for row in data.chunks_mut(stride.max(1)).take(rows / 2) {
                row.iter_mut().take(block * COUNTER_BITS / 2).for_each(|c| *c = 128);
            }
        }
    }
    let Ok(luma) = frame.plane_data_mut(0) else { return };
    for row in luma.chunks_mut(stride.max(1)).take(rows) {
        for (bit, pixels) in row.chunks_mut(block.max(1)).take(COUNTER_BITS).enumerate() {
            pixels.fill(if number >> bit & 1 == 1 { 235 } else { 16 });
        }
    }
}

/// Reads the frame counter out of a decoded picture's luma plane of `width` pixels a row (no padding).
/// `None` if there is none to be read.
pub fn read_counter(luma: &[u8], width: usize) -> Option<u32> {
    let block = block_width(width);
    let row = luma.chunks(width.max(1)).nth(block / 2)?;
    let mut number = 0;
    for bit in 0..COUNTER_BITS {
        let value = *row.get(bit * block + block / 2)?;
        match value {
            0..=80 => {}
            170..=255 => number |= 1 << bit,
            _ => return None,
        }
    }
    Some(number)
}

#[async_trait::async_trait]
impl Source for TestSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        let options = GstOptions::live(self.address());
        gst_source::run(gst_source::pipeline_of(&self.build()?)?, &options, hub, &cancel).await
    }

    fn address(&self) -> String {
        let pattern = match self.pattern {
            TestPattern::Smpte => "smpte",
            TestPattern::Ball => "ball",
        };
        let Self { width, height, fps, gop, audio, .. } = self;
        format!("test://{pattern}?width={width}&height={height}&fps={fps}&gop={gop}&audio={audio}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back() {
        let source =
            TestSource::from_url(&"test://ball?fps=10&audio=false&width=320".parse().unwrap()).unwrap();
        assert_eq!((source.fps, source.audio, source.width, source.gop), (10, false, 320, 25));
        assert_eq!(TestSource::from_url(&source.address().parse().unwrap()).unwrap(), source);
    }

    #[test]
    fn the_counter_reads_back() {
        pipeline::init().unwrap();
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", 640i32)
            .field("height", 360i32)
            .field("framerate", gst::Fraction::new(25, 1))
            .build();
        for number in [0, 1, 0xaaaaaa, 0xffffff, 12345] {
            let mut buffer = gst::Buffer::with_size(640 * 360 * 3 / 2).unwrap();
            stamp_counter(buffer.get_mut().unwrap(), &caps, number);
            let map = buffer.map_readable().unwrap();
            assert_eq!(read_counter(&map, 640), Some(number));
        }
        assert_eq!(read_counter(&[128; 640 * 100], 640), None);
    }
}
