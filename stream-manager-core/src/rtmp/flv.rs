//! What an RTMP message carries: the body of an FLV tag (Adobe Flash Video File Format 10.1, annex E.4.2 and E.4.3; Enhanced RTMP v2 for
//! codecs that are named by four letters).

use crate::frame::{AudioCodec, AudioParameters, CodecParameters, ParametersError, VideoParameters};
use crate::rtp::av1_parameters;
use bytes::{Buf, Bytes};

/// Why a message makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlvError {
    /// It ends too early.
    #[error("a message of {0} bytes ends too early")]
    Short(usize),
    /// Nobody here takes this codec.
    #[error("{0} is not supported; expected H.264, H.265 or AV1 with AAC, Opus, MP3 or G.711")]
    Codec(String),
    /// What it says of its codec makes no sense.
    #[error("{0}")]
    Parameters(#[from] ParametersError),
    /// The lengths of its NAL units do not add up.
    #[error("the lengths of a picture's NAL units do not add up to its {0} bytes")]
    Lengths(usize),
}

/// What a message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What the frames that follow are encoded with.
    Parameters(CodecParameters),
    /// A frame.
    Frame {
        /// Whether decoding can begin here.
        keyframe: bool,
        /// How much later than it is decoded it is shown, in milliseconds.
        composition_ms: i32,
        /// The frame, in the form of [`crate::frame`].
        data: Bytes,
        /// What it is encoded with, where every frame says so.
        parameters: Option<CodecParameters>,
    },
    /// Nothing that matters here.
    Nothing,
}

fn take(body: &mut Bytes, count: usize, whole: usize) -> Result<Bytes, FlvError> {
    if body.len() < count { Err(FlvError::Short(whole)) } else { Ok(body.split_to(count)) }
}

/// A signed number of 24 bits.
fn composition(body: &mut Bytes, whole: usize) -> Result<i32, FlvError> {
    let bytes = take(body, 3, whole)?;
    Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], 0]) >> 8)
}

fn four_letters(body: &mut Bytes, whole: usize) -> Result<[u8; 4], FlvError> {
    let bytes = take(body, 4, whole)?;
    Ok([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn shown(letters: [u8; 4]) -> String {
    format!("\"{}\"", letters.escape_ascii())
}

/// How a video codec is put into messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    H264,
    H265,
    Av1,
}

impl Form {
    fn parameters(self, config: Bytes) -> Result<VideoParameters, FlvError> {
        Ok(match self {
            Self::H264 => VideoParameters::h264(config)?,
            Self::H265 => VideoParameters::h265(config)?,
            // Its OBUs are behind four bytes (AV1 in ISOBMFF section 2.3).
            Self::Av1 => {
                let found = config.get(4..).and_then(av1_parameters);
                found.ok_or_else(|| FlvError::Codec("AV1 without a sequence header".into()))?
            }
        })
    }

    fn frame(self, keyframe: bool, composition_ms: i32, data: Bytes) -> Result<Message, FlvError> {
        if data.is_empty() {
            return Ok(Message::Nothing);
        }
        if self != Self::Av1 && !lengths_add_up(&data) {
            return Err(FlvError::Lengths(data.len()));
        }
        Ok(Message::Frame { keyframe, composition_ms, data, parameters: None })
    }
}

/// Whether it is NAL units, each behind its length in four bytes.
fn lengths_add_up(mut data: &[u8]) -> bool {
    while !data.is_empty() {
        if data.len() < 4 {
            return false;
        }
        let length = data.get_u32() as usize;
        if length == 0 || length > data.len() {
            return false;
        }
        data.advance(length);
    }
    true
}

/// The body of a video message.
///
/// # Errors
/// If it makes no sense, or its codec is none that is taken.
pub fn video(mut body: Bytes) -> Result<Message, FlvError> {
    let whole = body.len();
    let first = take(&mut body, 1, whole)?[0];
    let keyframe = |kind: u8| kind == 1;
    if first & 0x80 != 0 {
        return enhanced_video(body, keyframe(first >> 4 & 7), first & 15, whole);
    }
    // A seek at a server: a command, no picture.
    if first >> 4 == 5 {
        return Ok(Message::Nothing);
    }
    let form = match first & 15 {
        7 => Form::H264,
        // What encoders made of it before there was a standard.
        12 => Form::H265,
        other => return Err(FlvError::Codec(format!("video codec {other}"))),
    };
    let kind = take(&mut body, 1, whole)?[0];
    let composition = composition(&mut body, whole)?;
    match kind {
        0 => Ok(Message::Parameters(CodecParameters::Video(form.parameters(body)?))),
        1 => form.frame(keyframe(first >> 4), composition, body),
        _ => Ok(Message::Nothing),
    }
}

/// Enhanced RTMP v2, section "Enhanced Video".
fn enhanced_video(mut body: Bytes, keyframe: bool, kind: u8, whole: usize) -> Result<Message, FlvError> {
    const START: u8 = 0;
    const CODED: u8 = 1;
    const CODED_AT_ONCE: u8 = 3;
    if !matches!(kind, START | CODED | CODED_AT_ONCE) {
        // Its end, metadata, several tracks.
        return Ok(Message::Nothing);
    }
    let form = match &four_letters(&mut body, whole)? {
        b"avc1" => Form::H264,
        b"hvc1" => Form::H265,
        b"av01" => Form::Av1,
        other => return Err(FlvError::Codec(shown(*other))),
    };
    if kind == START {
        return Ok(Message::Parameters(CodecParameters::Video(form.parameters(body)?)));
    }
    let shifted = kind == CODED && form != Form::Av1;
    let composition = if shifted { composition(&mut body, whole)? } else { 0 };
    form.frame(keyframe, composition, body)
}

/// The body of an audio message.
///
/// # Errors
/// As [`video`].
pub fn audio(mut body: Bytes) -> Result<Message, FlvError> {
    let whole = body.len();
    let first = take(&mut body, 1, whole)?[0];
    let channels = 1 + u16::from(first & 1);
    let frame = |data: Bytes, parameters: Option<AudioParameters>| match data.is_empty() {
        true => Message::Nothing,
        false => Message::Frame {
            keyframe: true,
            composition_ms: 0,
            data,
            parameters: parameters.map(CodecParameters::Audio),
        },
    };
    let plain = |codec, rate, channels| Some(AudioParameters::new(codec, rate, channels));
    match first >> 4 {
        2 => {
            let rate = [5512, 11_025, 22_050, 44_100][usize::from(first >> 2 & 3)];
            let parameters = mp3(&body).unwrap_or(AudioParameters::new(AudioCodec::Mp3, rate, channels));
            Ok(frame(body, Some(parameters)))
        }
        7 => Ok(frame(body, plain(AudioCodec::Pcma, 8000, channels))),
        8 => Ok(frame(body, plain(AudioCodec::Pcmu, 8000, channels))),
        9 => enhanced_audio(body, first & 15, whole, frame),
        10 => match take(&mut body, 1, whole)?[0] {
            0 => Ok(Message::Parameters(CodecParameters::Audio(AudioParameters::aac(body)?))),
            1 => Ok(frame(body, None)),
            _ => Ok(Message::Nothing),
        },
        other => Err(FlvError::Codec(format!("audio codec {other}"))),
    }
}

/// Enhanced RTMP v2, section "Enhanced Audio".
fn enhanced_audio(
    mut body: Bytes,
    kind: u8,
    whole: usize,
    frame: impl Fn(Bytes, Option<AudioParameters>) -> Message,
) -> Result<Message, FlvError> {
    const START: u8 = 0;
    const CODED: u8 = 1;
    if !matches!(kind, START | CODED) {
        return Ok(Message::Nothing);
    }
    let letters = four_letters(&mut body, whole)?;
    let start = kind == START;
    Ok(match &letters {
        b"mp4a" if start => Message::Parameters(CodecParameters::Audio(AudioParameters::aac(body)?)),
        b"Opus" if start => {
            // The identification header (RFC 7845 section 5.1): its tenth byte is the number of channels.
            let channels = body.get(9).copied().filter(|count| (1..=8).contains(count)).unwrap_or(2);
            let parameters = AudioParameters::new(AudioCodec::Opus, 48_000, channels.into());
            Message::Parameters(CodecParameters::Audio(parameters))
        }
        b".mp3" if start => Message::Nothing,
        b".mp3" => {
            let parameters = mp3(&body);
            frame(body, parameters)
        }
        b"mp4a" | b"Opus" => frame(body, None),
        other => return Err(FlvError::Codec(shown(*other))),
    })
}

/// What an MP3 frame says of itself (ISO/IEC 11172-3 section 2.4.1.3, ISO/IEC 13818-3).
fn mp3(frame: &[u8]) -> Option<AudioParameters> {
    let header = u32::from_be_bytes(frame.get(..4)?.try_into().ok()?);
    let rates = match header >> 19 & 3 {
        3 => [44_100, 48_000, 32_000],
        2 => [22_050, 24_000, 16_000],
        0 => [11_025, 12_000, 8000],
        _ => return None,
    };
    let rate = *rates.get((header >> 10 & 3) as usize).filter(|_| header >> 21 == 0x7ff)?;
    let channels = if header >> 6 & 3 == 3 { 1 } else { 2 };
    Some(AudioParameters::new(AudioCodec::Mp3, rate, channels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::AVCC;
    use proptest::prelude::*;

    fn body(front: &[u8], rest: &[u8]) -> Bytes {
        [front, rest].concat().into()
    }

    #[test]
    fn pictures_of_both_kinds() {
        for front in [&[0x17, 0, 0, 0, 0][..], &[0x90, b'a', b'v', b'c', b'1'][..]] {
            let Ok(Message::Parameters(CodecParameters::Video(found))) = video(body(front, AVCC)) else {
                panic!("{front:?}");
            };
            assert_eq!((found.width, found.height), (640, 360));
        }
        let nal = [0, 0, 0, 2, 0x65, 1];
        let frame = |keyframe, composition_ms| Message::Frame {
            keyframe,
            composition_ms,
            data: Bytes::copy_from_slice(&nal),
            parameters: None,
        };
        assert_eq!(video(body(&[0x17, 1, 0, 0, 80], &nal)), Ok(frame(true, 80)));
        assert_eq!(video(body(&[0x27, 1, 0xff, 0xff, 0xd8], &nal)), Ok(frame(false, -40)));
        assert_eq!(video(body(b"\x91hvc1\x00\x00\x28", &nal)), Ok(frame(true, 40)));
        assert_eq!(video(body(b"\xa3hvc1", &nal)), Ok(frame(false, 0)));
        assert_eq!(video(body(&[0x17, 2, 0, 0, 0], &[])), Ok(Message::Nothing));
        assert_eq!(video(body(&[0x57, 0], &[])), Ok(Message::Nothing));
    }

    #[test]
    fn sound_of_both_kinds() {
        let Ok(Message::Parameters(CodecParameters::Audio(aac))) = audio(body(&[0xaf, 0], &[0x12, 0x10]))
        else {
            panic!();
        };
        assert_eq!((aac.codec, aac.sample_rate, aac.channels), (AudioCodec::Aac, 44_100, 2));
        let parameters = |message| match message {
            Ok(Message::Frame { parameters: Some(CodecParameters::Audio(a)), .. }) => {
                (a.codec, a.sample_rate, a.channels)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(parameters(audio(body(&[0x72], &[1, 2]))), (AudioCodec::Pcma, 8000, 1));
        assert_eq!(parameters(audio(body(&[0x2f], &[0xff, 0xfb, 0x94, 0xc4]))), (AudioCodec::Mp3, 48_000, 1));
        let head = b"OpusHead\x01\x01rest";
        let Ok(Message::Parameters(CodecParameters::Audio(opus))) = audio(body(b"\x90Opus", head)) else {
            panic!()
        };
        assert_eq!((opus.codec, opus.channels), (AudioCodec::Opus, 1));
        assert!(matches!(audio(body(b"\x91Opus", &[1])), Ok(Message::Frame { parameters: None, .. })));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        assert_eq!(video(Bytes::new()), Err(FlvError::Short(0)));
        assert!(video(body(&[0x12, 1, 0, 0, 0], &[])).unwrap_err().to_string().contains("video codec 2"));
        assert!(video(body(b"\x91vp08", &[])).unwrap_err().to_string().contains("\"vp08\""));
        assert_eq!(video(body(&[0x17, 1, 0, 0, 0], &[0, 0, 0, 9, 1])), Err(FlvError::Lengths(5)));
        assert!(matches!(video(body(&[0x17, 0, 0, 0, 0], &[1, 2])), Err(FlvError::Parameters(_))));
        assert!(audio(body(&[0x60], &[])).unwrap_err().to_string().contains("AAC"));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), first in any::<u8>()) {
            let bytes = body(&[first], &bytes);
            let _ = video(bytes.clone());
            let _ = audio(bytes);
        }
    }
}
