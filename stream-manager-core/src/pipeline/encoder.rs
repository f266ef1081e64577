//! Which encoder makes a codec: the hardware's if there is one, else a program's.
//!
//! GStreamer registers an encoder of a graphics card only where the card is there and can do it, so the first of each list that is known is
//! the one. They all are set the same: no B frames, no delay, a keyframe at least every so many pictures.

use super::{PipelineError, make_element, parse_chain};
use crate::frame::VideoCodec;
use gstreamer as gst;
use gstreamer::prelude::*;

/// What is to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    pub(crate) codec: VideoCodec,
    pub(crate) bitrate_bps: u64,
    /// Pictures from one keyframe to the next.
    pub(crate) gop: u32,
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

/// An encoder with what brings its output into the library's form, from raw video on. Also says whether it is hardware; with
/// `no_hardware` it is not.
///
/// # Errors
/// If there is none for this codec.
pub(crate) fn make(encoding: Encoding, no_hardware: bool) -> Result<(gst::Bin, bool), PipelineError> {
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
    let mut known = candidates.iter().filter(|c| !(c.hardware && no_hardware));
    let chosen = known
        .clone()
        .find(|c| gst::ElementFactory::find(c.element).is_some())
        .or_else(|| known.next_back())
        .ok_or_else(|| PipelineError::Parse("there is no encoder".into()))?;
    // Says which package has it, if it is not there.
    drop(make_element(chosen.element)?);
    let bin = parse_chain(&format!("videoconvert ! {} name=encoder {behind}", chosen.element))?;
    if let Some(encoder) = bin.by_name("encoder") {
        set(&encoder, encoding);
    }
    Ok((bin, chosen.hardware))
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
        let (bin, hardware) = make(encoding, true).unwrap();
        let encoder = bin.by_name("encoder").unwrap();
        assert!(!hardware);
        assert_eq!((encoder.property::<u32>("bitrate"), encoder.property::<u32>("key-int-max")), (700, 33));
        assert!(bin.static_pad("sink").is_some() && bin.src_pads().len() == 1);
        let refused = make(Encoding { codec: VideoCodec::Mjpeg, ..encoding }, true).unwrap_err().to_string();
        assert!(refused.contains("cannot be encoded"), "{refused}");
    }
}
