//! Which encoder makes a codec: the hardware's if there is one, else a program's.
//!
//! GStreamer registers an encoder of a graphics card only where the card is there and can do it, so the first of each list that is known is
//! the one. It may fail all the same (cards have a number of sessions, drivers have bad days): then it is left alone for a while, in the
//! whole process, and the next one of the list has its turn. They all are set the same: no B frames, no delay, a keyframe at least every so
//! many pictures.

use super::{PipelineError, make_element, parse_chain};
use crate::frame::VideoCodec;
use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// A hardware encoder that has failed is not tried again for so long.
const DISTRUST: Duration = Duration::from_secs(600);
/// Less would do no raw picture good.
const LEAST_BPS: u64 = 500_000;

/// What is to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    pub(crate) codec: VideoCodec,
    pub(crate) bitrate_bps: u64,
    /// Pictures from one keyframe to the next.
    pub(crate) gop: u32,
}

impl Encoding {
    /// What raw video becomes if nothing is said: H.264, which everything plays.
    pub(crate) fn of_raw(caps: &gst::CapsRef) -> Self {
        let s = caps.structure(0);
        let size = |name| s.and_then(|s| s.get::<i32>(name).ok()).and_then(|v| u32::try_from(v).ok());
        let rate = s
            .and_then(|s| s.get::<gst::Fraction>("framerate").ok())
            .and_then(|f| Some((u32::try_from(f.numer()).ok()?, u32::try_from(f.denom()).ok()?)))
            // None is stated by what has no fixed one.
            .filter(|(num, _)| *num > 0);
        let bitrate_bps = usual_bitrate((size("width").unwrap_or(0), size("height").unwrap_or(0)), rate);
        Self { codec: VideoCodec::H264, bitrate_bps: bitrate_bps.max(LEAST_BPS), gop: usual_gop(rate) }
    }
}

/// A tenth of a bit for each pixel.
pub(crate) fn usual_bitrate((width, height): (u32, u32), rate: Option<(u32, u32)>) -> u64 {
    let (num, den) = rate.unwrap_or((25, 1));
    u64::from(width) * u64::from(height) * u64::from(num) / u64::from(den.max(1)) / 10
}

/// A keyframe every two seconds.
pub(crate) fn usual_gop(rate: Option<(u32, u32)>) -> u32 {
    let (num, den) = rate.unwrap_or((25, 1));
    (num.saturating_mul(2) / den.max(1)).clamp(2, 500)
}

struct Candidate {
    element: &'static str,
    hardware: bool,
}

const fn hardware(element: &'static str) -> Candidate {
    Candidate { element, hardware: true }
}

const fn program(element: &'static str) -> Candidate {
    Candidate { element, hardware: false }
}

const H264: &[Candidate] =
    &[hardware("nvh264enc"), hardware("vah264enc"), hardware("qsvh264enc"), program("x264enc")];
const H265: &[Candidate] =
    &[hardware("nvh265enc"), hardware("vah265enc"), hardware("qsvh265enc"), program("x265enc")];

/// Hardware encoders that have failed, and when.
static FAILED: Mutex<Vec<(&str, Instant)>> = Mutex::new(Vec::new());

/// A hardware encoder has failed: others have their turn for a while.
pub(crate) fn distrust(element: &'static str) {
    let now = Instant::now();
    let mut failed = FAILED.lock();
    failed.retain(|(name, since)| *name != element && now.duration_since(*since) < DISTRUST);
    failed.push((element, now));
    drop(failed);
    tracing::warn!(encoder = element, again_after = ?DISTRUST, "a hardware encoder does not work and is left alone");
}

fn is_trusted(element: &str) -> bool {
    !FAILED.lock().iter().any(|(name, since)| *name == element && since.elapsed() < DISTRUST)
}

/// The first that may be used, or the last, which is the program's: it says which package has it.
fn choose(candidates: &[Candidate], usable: impl Fn(&Candidate) -> bool) -> Option<&Candidate> {
    candidates.iter().find(|c| usable(c)).or(candidates.last())
}

/// An encoder with what brings its output into the library's form, from raw video on, and what was to stand around both.
pub(crate) struct Encoder {
    pub(crate) bin: gst::Bin,
    /// Its element, if that is hardware.
    pub(crate) hardware: Option<&'static str>,
}

/// The name of the element in [`Encoder::bin`] that encodes.
pub(crate) const NAME: &str = "encoder";

/// An encoder between these elements.
///
/// # Errors
/// If there is none for this codec.
pub(crate) fn make(encoding: Encoding, around: (&str, &str)) -> Result<Encoder, PipelineError> {
    let (candidates, behind): (&[Candidate], &str) = match encoding.codec {
        VideoCodec::H264 => {
            (H264, "! h264parse ! capsfilter caps=\"video/x-h264,stream-format=avc,alignment=au\"")
        }
        VideoCodec::H265 => {
            (H265, "! h265parse ! capsfilter caps=\"video/x-h265,stream-format=hvc1,alignment=au\"")
        }
        VideoCodec::Vp8 => (&[program("vp8enc")], ""),
        VideoCodec::Vp9 => (&[program("vp9enc")], ""),
        codec => return Err(PipelineError::Parse(format!("{codec:?} cannot be encoded"))),
    };
    let is_there = |c: &Candidate| gst::ElementFactory::find(c.element).is_some();
    loop {
        let chosen = choose(candidates, |c| is_there(c) && (!c.hardware || is_trusted(c.element)))
            .ok_or_else(|| PipelineError::Parse("there is no encoder".into()))?;
        match make_of(chosen.element, encoding, (around.0, &format!("{behind} ! {}", around.1))) {
            Ok(bin) => return Ok(Encoder { bin, hardware: chosen.hardware.then_some(chosen.element) }),
            Err(_) if chosen.hardware => distrust(chosen.element),
            Err(error) => return Err(error),
        }
    }
}

fn make_of(
    element: &str,
    encoding: Encoding,
    (before, behind): (&str, &str),
) -> Result<gst::Bin, PipelineError> {
    // Says which package has it, if it is not there.
    drop(make_element(element)?);
    // Not all players know pictures that have colours of more than a quarter of their size.
    let bin = parse_chain(&format!(
        "{before} ! videoconvert ! capsfilter caps=\"video/x-raw,format=(string){{I420,NV12}}\" ! {element} name={NAME} {behind}"
    ))?;
    if let Some(encoder) = bin.by_name(NAME) {
        set(&encoder, encoding);
    }
    Ok(bin)
}

/// Sets what an encoder has of all this; they all have other names for it.
fn set(encoder: &gst::Element, encoding: Encoding) {
    let kbit = (encoding.bitrate_bps / 1000).max(1).to_string();
    let (bits, gop) = (encoding.bitrate_bps.to_string(), encoding.gop.to_string());
    for (name, value) in [
        ("bitrate", kbit.as_str()),
        ("target-bitrate", &bits),
        ("key-int-max", &gop),
        ("gop-size", &gop),
        ("keyframe-max-dist", &gop),
        ("bframes", "0"),
        ("b-frames", "0"),
        ("tune", "zerolatency"),
        ("zerolatency", "true"),
        ("speed-preset", "veryfast"),
        ("deadline", "1"),
        ("cpu-used", "8"),
    ] {
        let Some(property) = encoder.find_property(name) else { continue };
        // What an encoder calls the same and means something else by is left as it is.
        if gst::glib::Value::deserialize(value, property.value_type()).is_ok() {
            encoder.set_property_from_str(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_is_found_and_set() {
        super::super::init().unwrap();
        let encoding = Encoding { codec: VideoCodec::H264, bitrate_bps: 700_000, gop: 33 };
        let Encoder { bin, hardware } = make(encoding, ("queue", "queue")).unwrap();
        let encoder = bin.by_name(NAME).unwrap();
        if hardware.is_none() {
            let set = (encoder.property::<u32>("bitrate"), encoder.property::<u32>("key-int-max"));
            assert_eq!(set, (700, 33));
        }
        assert!(bin.static_pad("sink").is_some() && bin.src_pads().len() == 1);
        let refused = make(Encoding { codec: VideoCodec::Mjpeg, ..encoding }, ("queue", "queue"));
        let refused = refused.err().unwrap().to_string();
        assert!(refused.contains("cannot be encoded"), "{refused}");
    }

    #[test]
    fn hardware_goes_first_until_it_fails() {
        let chosen = |known: &[&str]| {
            choose(H264, |c| known.contains(&c.element) && is_trusted(c.element)).map(|c| c.element)
        };
        assert_eq!(chosen(&["x264enc", "vah264enc"]), Some("vah264enc"));
        assert_eq!(chosen(&["x264enc"]), Some("x264enc"));
        assert_eq!(chosen(&[]), Some("x264enc"));
        distrust("vah264enc");
        assert_eq!(chosen(&["x264enc", "vah264enc"]), Some("x264enc"));
        assert_eq!(chosen(&["x264enc", "vah264enc", "qsvh264enc"]), Some("qsvh264enc"));
    }

    #[test]
    fn raw_video_has_a_rate_by_its_size() {
        super::super::init().unwrap();
        let of = |caps: &str| Encoding::of_raw(&caps.parse::<gst::Caps>().unwrap());
        let hd = of("video/x-raw,width=1920,height=1080,framerate=30/1");
        assert_eq!((hd.codec, hd.bitrate_bps, hd.gop), (VideoCodec::H264, 6_220_800, 60));
        let small = of("video/x-raw,width=320,height=240,framerate=0/1");
        assert_eq!((small.bitrate_bps, small.gop), (LEAST_BPS, 50));
    }
}
