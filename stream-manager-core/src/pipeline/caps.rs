//! Between GStreamer's caps and the library's codec parameters.
//!
//! [`chain_for`] names the elements that bring a pad's media into the payload format that
//! [`crate::frame`] fixes; [`parameters`] reads the result's caps.

use crate::frame::{
    AudioCodec, AudioParameters, CodecParameters, DataCodec, DataParameters, VideoCodec, VideoParameters,
};
use bytes::Bytes;
use gstreamer as gst;

const H264: &str = "h264parse ! video/x-h264,stream-format=avc,alignment=au";
const AAC: &str = "aacparse ! audio/mpeg,mpegversion=4,stream-format=raw";
/// Raw audio is encoded as AAC.
const ENCODE_AUDIO: &str =
    "audioconvert ! audioresample ! avenc_aac ! aacparse ! audio/mpeg,mpegversion=4,stream-format=raw";

/// What may come out of a pad.
pub(crate) enum PadMedia {
    /// An elementary stream and the elements that parse it.
    Elementary(&'static str),
    /// Raw sound and the elements that encode it.
    RawAudio(&'static str),
    /// Raw video, for [`super::encoder`].
    RawVideo,
    /// Something to look into: a container, RTP, bytes of unknown kind.
    Container,
    /// Media of a codec that is not supported.
    Unsupported,
}

/// What a pad with these caps carries.
pub(crate) fn classify(caps: &gst::CapsRef) -> PadMedia {
    let Some(s) = caps.structure(0) else {
        return PadMedia::Container;
    };
    let mpegversion = s.get::<i32>("mpegversion").unwrap_or(0);
    if s.name() == "application/x-rtp" {
        return classify_rtp(s.get::<&str>("encoding-name").unwrap_or_default());
    }
    let elementary = match (s.name().as_str(), mpegversion) {
        ("video/x-h264", _) => H264,
        ("video/x-h265", _) => "h265parse ! video/x-h265,stream-format=hvc1,alignment=au",
        ("video/x-av1", _) => "av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu",
        ("video/x-vp8" | "video/x-vp9" | "audio/x-alaw" | "audio/x-mulaw", _) => "identity",
        ("meta/x-klv" | "application/x-onvif-metadata", _) => "identity",
        ("image/jpeg", _) => "jpegparse",
        ("audio/mpeg", 2 | 4) => AAC,
        ("audio/mpeg", _) => "mpegaudioparse",
        ("audio/x-ac3", _) => "ac3parse",
        ("audio/x-opus", _) => "opusparse",
        ("audio/x-raw", _) => return PadMedia::RawAudio(ENCODE_AUDIO),
        ("video/x-raw", _) => return PadMedia::RawVideo,
        (name, _) => return classify_other(name),
    };
    PadMedia::Elementary(elementary)
}

/// RTP by its encoding name. A parser is put directly behind the depayloader: two parsers in a row, as
/// `parsebin` would make them, split access units of several slices.
fn classify_rtp(encoding: &str) -> PadMedia {
    PadMedia::Elementary(match encoding.to_ascii_uppercase().as_str() {
        "H264" => "rtph264depay ! h264parse ! video/x-h264,stream-format=avc,alignment=au",
        "H265" => "rtph265depay ! h265parse ! video/x-h265,stream-format=hvc1,alignment=au",
        "VP8" => "rtpvp8depay",
        "VP9" => "rtpvp9depay",
        "JPEG" => "rtpjpegdepay ! jpegparse",
        "MPEG4-GENERIC" => "rtpmp4gdepay ! aacparse ! audio/mpeg,mpegversion=4,stream-format=raw",
        "MP4A-LATM" => "rtpmp4adepay ! aacparse ! audio/mpeg,mpegversion=4,stream-format=raw",
        "OPUS" => "rtpopusdepay ! opusparse",
        "PCMU" => "rtppcmudepay",
        "PCMA" => "rtppcmadepay",
        "MPA" => "rtpmpadepay ! mpegaudioparse",
        "AC3" => "rtpac3depay ! ac3parse",
        // Containers in RTP, and what may be in other installations.
        _ => return PadMedia::Container,
    })
}

fn classify_other(name: &str) -> PadMedia {
    const CONTAINERS: &[&str] = &[
        "application/x-rtp",
        "video/mpegts",
        "video/quicktime",
        "video/x-matroska",
        "video/webm",
        "video/x-flv",
        "application/ogg",
        "application/x-hls",
        "application/dash+xml",
        "multipart/x-mixed-replace",
        "video/mpeg",
        "video/x-msvideo",
        "application/x-id3",
        "application/x-apetag",
        "audio/x-wav",
        "audio/x-m4a",
        "application/x-3gp",
        "video/x-ms-asf",
        "application/mxf",
    ];
    if CONTAINERS.contains(&name) { PadMedia::Container } else { PadMedia::Unsupported }
}

/// The parameters of what comes out of a chain. `frame` is the first frame, for codecs whose parameters
/// stand in it.
pub(crate) fn parameters(caps: &gst::CapsRef, frame: &[u8]) -> Result<CodecParameters, String> {
    let s = caps.structure(0).ok_or("caps without a structure")?;
    let name = s.name().as_str();
    if name.starts_with("video/") || name.starts_with("image/") {
        return video(s, name, frame);
    }
    Ok(match name {
        "meta/x-klv" => CodecParameters::Data(DataParameters { codec: DataCodec::Klv }),
        "application/x-onvif-metadata" => CodecParameters::Data(DataParameters { codec: DataCodec::Onvif }),
        _ => CodecParameters::Audio(audio(s, name, frame)?),
    })
}

fn video(s: &gst::StructureRef, name: &str, frame: &[u8]) -> Result<CodecParameters, String> {
    let get = |field| s.get::<i32>(field).ok().and_then(|v| u32::try_from(v).ok());
    let (width, height) = (get("width"), get("height"));
    let frame_rate = s
        .get::<gst::Fraction>("framerate")
        .ok()
        .and_then(|f| Some((u32::try_from(f.numer()).ok()?, u32::try_from(f.denom()).ok()?)));
    let config = || codec_data(s).ok_or_else(|| format!("{name} without codec_data"));
    let size = || width.zip(height).ok_or_else(|| format!("{name} without width and height"));
    let parameters = match name {
        "video/x-h264" => VideoParameters::h264(config()?).map_err(|e| e.to_string())?,
        "video/x-h265" => VideoParameters::h265(config()?).map_err(|e| e.to_string())?,
        "video/x-av1" => {
            let (width, height) = size()?;
            match codec_data(s) {
                Some(config) => VideoParameters {
                    extra_data: config,
                    ..VideoParameters::new(VideoCodec::Av1, width, height)
                },
                // av1parse states none; it stands in the first frame.
                None => {
                    let depth = s.get::<u32>("bit-depth-luma").unwrap_or(8);
                    VideoParameters::av1(frame, width, height, depth).map_err(|e| e.to_string())?
                }
            }
        }
        other => {
            let codec = match other {
                "video/x-vp8" => VideoCodec::Vp8,
                "video/x-vp9" => VideoCodec::Vp9,
                "image/jpeg" => VideoCodec::Mjpeg,
                _ => return Err(format!("unexpected media {other}")),
            };
            // RTP depayloaders of VP8 and VP9 do not know the size before the first keyframe.
            let (width, height) = size().unwrap_or((0, 0));
            VideoParameters::new(codec, width, height)
        }
    };
    Ok(CodecParameters::Video(parameters.with_frame_rate(frame_rate)))
}

fn audio(s: &gst::StructureRef, name: &str, frame: &[u8]) -> Result<AudioParameters, String> {
    let get = |field| s.get::<i32>(field).ok().and_then(|v| u32::try_from(v).ok());
    let rate = get("rate").unwrap_or(48_000);
    let channels = get("channels").and_then(|c| u16::try_from(c).ok()).unwrap_or(1);
    let plain = |codec| AudioParameters::new(codec, rate, channels);
    Ok(match (name, s.get::<i32>("mpegversion").unwrap_or(0)) {
        ("audio/mpeg", 2 | 4) => {
            let config = codec_data(s).ok_or("AAC without codec_data")?;
            AudioParameters::aac(config).map_err(|e| e.to_string())?
        }
        ("audio/mpeg", _) => plain(AudioCodec::Mp3),
        ("audio/x-alaw", _) => plain(AudioCodec::Pcma),
        ("audio/x-mulaw", _) => plain(AudioCodec::Pcmu),
        ("audio/x-ac3", _) => AudioParameters {
            extra_data: Bytes::copy_from_slice(&frame[..frame.len().min(8)]),
            ..plain(AudioCodec::Ac3)
        },
        ("audio/x-opus", _) => AudioParameters {
            // Opus always counts in 48 kHz, RFC 7587 section 4.1.
            sample_rate: 48_000,
            extra_data: stream_header(s).unwrap_or_default(),
            ..plain(AudioCodec::Opus)
        },
        (other, _) => return Err(format!("unexpected media {other}")),
    })
}

fn codec_data(s: &gst::StructureRef) -> Option<Bytes> {
    bytes_of(&s.get::<gst::Buffer>("codec_data").ok()?)
}

fn stream_header(s: &gst::StructureRef) -> Option<Bytes> {
    let headers = s.get::<gst::ArrayRef<'_>>("streamheader").ok()?;
    bytes_of(&headers.first()?.get::<gst::Buffer>().ok()?)
}

fn bytes_of(buffer: &gst::Buffer) -> Option<Bytes> {
    buffer.map_readable().ok().map(|map| Bytes::copy_from_slice(&map))
}

/// The caps that an appsrc needs so that muxers take frames with these parameters.
pub(crate) fn caps_for(parameters: &CodecParameters) -> Option<gst::Caps> {
    let config = |p: &Bytes| gst::Buffer::from_slice(p.clone());
    Some(match parameters {
        CodecParameters::Video(p) => {
            let (name, format) = match p.codec {
                VideoCodec::H264 => ("video/x-h264", Some("avc")),
                VideoCodec::H265 => ("video/x-h265", Some("hvc1")),
                VideoCodec::Av1 => ("video/x-av1", Some("obu-stream")),
                VideoCodec::Vp8 => ("video/x-vp8", None),
                VideoCodec::Vp9 => ("video/x-vp9", None),
                VideoCodec::Mjpeg => ("image/jpeg", None),
            };
            let mut caps = gst::Caps::builder(name)
                .field_if_some("stream-format", format)
                .field("width", i32::try_from(p.width).unwrap_or(i32::MAX))
                .field("height", i32::try_from(p.height).unwrap_or(i32::MAX));
            caps = match p.codec {
                VideoCodec::H264 | VideoCodec::H265 => caps.field("alignment", "au"),
                VideoCodec::Av1 => caps.field("alignment", "tu"),
                _ => caps,
            };
            if !p.extra_data.is_empty() {
                caps = caps.field("codec_data", config(&p.extra_data));
            }
            if let Some((num, den)) = p.frame_rate {
                let fraction = |v| i32::try_from(v).unwrap_or(1);
                caps = caps.field("framerate", gst::Fraction::new(fraction(num), fraction(den)));
            }
            caps.build()
        }
        CodecParameters::Audio(p) => {
            let caps = match p.codec {
                AudioCodec::Aac => gst::Caps::builder("audio/mpeg")
                    .field("mpegversion", 4i32)
                    .field("stream-format", "raw")
                    .field("framed", true)
                    .field("codec_data", config(&p.extra_data)),
                AudioCodec::Mp3 => gst::Caps::builder("audio/mpeg")
                    .field("mpegversion", 1i32)
                    .field("layer", 3i32)
                    .field("parsed", true),
                AudioCodec::Opus => gst::Caps::builder("audio/x-opus").field("channel-mapping-family", 0i32),
                AudioCodec::Ac3 => {
                    gst::Caps::builder("audio/x-ac3").field("framed", true).field("alignment", "frame")
                }
                AudioCodec::Pcma => gst::Caps::builder("audio/x-alaw"),
                AudioCodec::Pcmu => gst::Caps::builder("audio/x-mulaw"),
                AudioCodec::L16 => {
                    gst::Caps::builder("audio/x-raw").field("format", "S16BE").field("layout", "interleaved")
                }
            };
            caps.field("rate", i32::try_from(p.sample_rate).unwrap_or(48_000))
                .field("channels", i32::from(p.channels))
                .build()
        }
        CodecParameters::Data(_) => return None,
    })
}
