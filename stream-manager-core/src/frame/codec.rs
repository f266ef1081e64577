//! The codecs the library knows, by the names people use for them.

use std::fmt;
use std::str::FromStr;

/// A video codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VideoCodec {
    /// H.264 / AVC, ITU-T H.264.
    H264,
    /// H.265 / HEVC, ITU-T H.265.
    H265,
    /// AV1, AOMedia.
    Av1,
    /// VP8, RFC 6386.
    Vp8,
    /// VP9.
    Vp9,
    /// Motion JPEG.
    Mjpeg,
}

/// An audio codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AudioCodec {
    /// AAC, ISO/IEC 14496-3.
    Aac,
    /// Opus, RFC 6716.
    Opus,
    /// G.711 A-law.
    Pcma,
    /// G.711 µ-law.
    Pcmu,
    /// Linear PCM, 16 bit, network byte order (RFC 3551 section 4.5.11).
    L16,
    /// MPEG audio layer III.
    Mp3,
    /// AC-3, ETSI TS 102 366.
    Ac3,
}

/// A codec of timed metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataCodec {
    /// SMPTE 336M key-length-value, RFC 6597.
    Klv,
    /// ONVIF metadata, XML.
    Onvif,
}

/// Any codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Video.
    Video(VideoCodec),
    /// Audio.
    Audio(AudioCodec),
    /// Timed metadata.
    Data(DataCodec),
}

const NAMES: &[(Codec, &str)] = &[
    (Codec::Video(VideoCodec::H264), "h264"),
    (Codec::Video(VideoCodec::H265), "h265"),
    (Codec::Video(VideoCodec::Av1), "av1"),
    (Codec::Video(VideoCodec::Vp8), "vp8"),
    (Codec::Video(VideoCodec::Vp9), "vp9"),
    (Codec::Video(VideoCodec::Mjpeg), "mjpeg"),
    (Codec::Audio(AudioCodec::Aac), "aac"),
    (Codec::Audio(AudioCodec::Opus), "opus"),
    (Codec::Audio(AudioCodec::Pcma), "pcma"),
    (Codec::Audio(AudioCodec::Pcmu), "pcmu"),
    (Codec::Audio(AudioCodec::L16), "l16"),
    (Codec::Audio(AudioCodec::Mp3), "mp3"),
    (Codec::Audio(AudioCodec::Ac3), "ac3"),
    (Codec::Data(DataCodec::Klv), "klv"),
    (Codec::Data(DataCodec::Onvif), "onvif"),
];

impl Codec {
    /// The short lower-case name, as it appears in the API: `h264`, `aac`, …
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(codec, _)| *codec == self).map_or("unknown", |(_, name)| name)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a codec that the library does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown codec \"{0}\"")]
pub struct UnknownCodec(pub String);

impl FromStr for Codec {
    type Err = UnknownCodec;
    fn from_str(name: &str) -> Result<Self, UnknownCodec> {
        NAMES
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(codec, _)| *codec)
            .ok_or_else(|| UnknownCodec(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for (codec, name) in NAMES {
            assert_eq!(name.parse::<Codec>(), Ok(*codec));
        }
        assert_eq!("h266".parse::<Codec>(), Err(UnknownCodec("h266".into())));
    }
}
