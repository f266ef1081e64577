//! Which tracks are packaged, and how.

use crate::frame::{AudioCodec, AudioParameters, Codec, CodecParameters, Track, TrackId, VideoCodec};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// Samples per second of sound that is encoded anew: G.711's own 8,000 would make frames of 128 ms, too long to be cut
/// into parts.
const ENCODED_RATE: u32 = 16_000;

/// What happens to a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is packaged as it is.
    Copy,
    /// It is encoded as AAC, once for all viewers.
    ToAac,
    /// It is left out, for this reason.
    LeaveOut(&'static str),
}

/// A track that players do not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LeftOut {
    /// Its number.
    pub track: u32,
    /// Its codec.
    pub codec: &'static str,
    /// Why.
    pub reason: String,
}

/// What happens to tracks of these codecs: of several video tracks only the first that players take is packaged.
pub fn treatments(codecs: impl IntoIterator<Item = Codec>) -> Vec<Treatment> {
    let mut has_video = false;
    let decide = |codec| {
        let is_video = matches!(codec, Codec::Video(_));
        if is_video && has_video {
            return Treatment::LeaveOut("only the first video track is packaged");
        }
        let treatment = treatment(codec);
        has_video |= is_video && treatment == Treatment::Copy;
        treatment
    };
    codecs.into_iter().map(decide).collect()
}

/// What happens to a track of this codec.
fn treatment(codec: Codec) -> Treatment {
    match codec {
        Codec::Video(VideoCodec::H264 | VideoCodec::H265 | VideoCodec::Av1 | VideoCodec::Vp9)
        | Codec::Audio(AudioCodec::Aac | AudioCodec::Opus | AudioCodec::Mp3 | AudioCodec::Ac3) => {
            Treatment::Copy
        }
        Codec::Audio(AudioCodec::Pcma | AudioCodec::Pcmu | AudioCodec::L16) => Treatment::ToAac,
        Codec::Video(VideoCodec::Vp8) => Treatment::LeaveOut("no player takes VP8 in MP4"),
        Codec::Video(VideoCodec::Mjpeg) => Treatment::LeaveOut("no player takes MJPEG in MP4"),
        Codec::Data(_) => Treatment::LeaveOut("metadata is not packaged"),
    }
}

/// A track as it will be packaged.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    pub(super) id: TrackId,
    /// As it comes.
    pub(super) input: Arc<CodecParameters>,
    /// As players get it.
    pub(super) output: Arc<CodecParameters>,
}

impl Planned {
    pub(super) fn is_encoded(&self) -> bool {
        self.input.codec() != self.output.codec()
    }

    pub(super) fn as_track(&self) -> Track {
        Track { id: self.id, parameters: self.output.clone() }
    }

    /// As its playlist and its segments are called.
    pub(super) fn name(&self) -> String {
        let letter = if self.output.video().is_some() { 'v' } else { 'a' };
        format!("{letter}{}", self.id.0)
    }
}

/// The parameters of sound that is encoded as AAC: an `AudioSpecificConfig` of AAC-LC (ISO/IEC 14496-3 section 1.6.2.1).
fn aac(channels: u16) -> Option<CodecParameters> {
    const LC: u16 = 2;
    const INDEX_OF_16_KHZ: u16 = 8;
    let config = LC << 11 | INDEX_OF_16_KHZ << 7 | channels << 3;
    let config = Bytes::copy_from_slice(&config.to_be_bytes());
    let parameters = AudioParameters::aac(config).ok()?;
    debug_assert_eq!(parameters.sample_rate, ENCODED_RATE);
    Some(CodecParameters::Audio(parameters))
}

/// What becomes of a stream's tracks.
pub(super) fn plan(tracks: &[Track]) -> (Vec<Planned>, Vec<LeftOut>) {
    let (mut planned, mut left_out) = (Vec::new(), Vec::new());
    for (track, treatment) in tracks.iter().zip(treatments(tracks.iter().map(|t| t.parameters.codec()))) {
        let codec = track.parameters.codec();
        let input = track.parameters.clone();
        let output = match treatment {
            Treatment::Copy => Ok(input.clone()),
            Treatment::ToAac => {
                let channels = input.audio().map_or(1, |a| a.channels).clamp(1, 2);
                aac(channels).map(Arc::new).ok_or("it cannot be encoded")
            }
            Treatment::LeaveOut(reason) => Err(reason),
        };
        match output {
            Ok(output) => planned.push(Planned { id: track.id, input, output }),
            Err(reason) => {
                left_out.push(LeftOut { track: track.id.0, codec: codec.name(), reason: reason.into() });
            }
        }
    }
    (planned, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{DataCodec, DataParameters, VideoParameters};

    #[test]
    fn what_becomes_of_tracks() {
        let tracks: Vec<Track> = [
            CodecParameters::Video(VideoParameters::new(VideoCodec::Mjpeg, 64, 64)),
            CodecParameters::Video(VideoParameters::new(VideoCodec::Vp9, 64, 64)),
            CodecParameters::Audio(AudioParameters::new(AudioCodec::Pcma, 8000, 1)),
            CodecParameters::Audio(AudioParameters::new(AudioCodec::Opus, 48_000, 2)),
            CodecParameters::Data(DataParameters { codec: DataCodec::Klv }),
        ]
        .into_iter()
        .zip(0..)
        .map(|(parameters, id)| Track { id: TrackId(id), parameters: parameters.into() })
        .collect();
        let (planned, left_out) = plan(&tracks);
        let names: Vec<_> = planned.iter().map(|p| (p.name(), p.output.rfc6381().unwrap())).collect();
        assert_eq!(
            names,
            [
                ("v1".to_owned(), "vp09.00.10.08".to_owned()),
                ("a2".to_owned(), "mp4a.40.2".to_owned()),
                ("a3".to_owned(), "opus".to_owned())
            ]
        );
        assert!(planned[1].is_encoded() && !planned[2].is_encoded());
        let left: Vec<_> = left_out.iter().map(|l| (l.track, l.codec)).collect();
        assert_eq!(left, [(0, "mjpeg"), (4, "klv")]);
    }
}
