//! RTP packets to access units.
//!
//! One [`Depacketizer`] a track: [`push`](Depacketizer::push) a packet, then [`pull`](Depacketizer::pull) until
//! there is nothing more. Packets come in order; how many are missing before one is said with it, and what
//! cannot be put together because of that is left out. H.264, H.265, MJPEG, AAC and ONVIF metadata are
//! done by retina, which has met many cameras; the others here.

pub mod av1;
mod by_retina;
mod latm;
mod simple;
mod vpx;

pub(crate) use by_retina::shrink;

use super::format::Description;
use super::packet::RtpPacket;
use crate::frame::{
    AudioCodec, AudioParameters, Codec, CodecParameters, DataCodec, DataParameters, VideoCodec,
};
use bytes::Bytes;

/// The largest access unit that is put together; a sender that never ends one must not fill the memory.
pub(super) const MAX_UNIT_BYTES: usize = 16 << 20;

/// One access unit, in the format that [`crate::frame`] lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// Its time in ticks of the track's clock, unwrapped.
    pub ticks: i64,
    /// Whether decoding can start with it.
    pub keyframe: bool,
    /// The payload.
    pub data: Bytes,
    /// The track's parameters, if they are known only now or change with this unit.
    pub parameters: Option<CodecParameters>,
}

/// What is wrong with a packet, or with the description of a track.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{codec}: {problem}")]
pub struct DepacketizeError {
    /// The codec.
    pub codec: Codec,
    /// What is wrong.
    pub problem: String,
}

/// Makes access units of one track's packets.
#[derive(Debug)]
pub struct Depacketizer {
    codec: Codec,
    parameters: Option<CodecParameters>,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Retina(Box<by_retina::ByRetina>),
    Av1(av1::Av1),
    Vpx(vpx::Vpx),
    Simple(simple::Simple),
    Latm(latm::Latm),
}

impl Depacketizer {
    /// For a track as its sender describes it.
    ///
    /// # Errors
    /// If the description contradicts itself.
    pub fn new(description: &Description) -> Result<Self, DepacketizeError> {
        let codec = description.codec;
        let simple = |kind| Inner::Simple(simple::Simple::new(kind));
        let wrong = |problem| DepacketizeError { codec, problem };
        let inner = match codec {
            Codec::Audio(AudioCodec::Aac) if description.encoding == "mp4a-latm" => {
                Inner::Latm(latm::Latm::new(description.fmtp.as_deref()).map_err(wrong)?)
            }
            Codec::Video(VideoCodec::H264 | VideoCodec::H265 | VideoCodec::Mjpeg)
            | Codec::Audio(AudioCodec::Aac)
            | Codec::Data(DataCodec::Onvif) => Inner::Retina(Box::new(
                by_retina::ByRetina::new(description)
                    .map_err(|problem| DepacketizeError { codec, problem })?,
            )),
            Codec::Video(VideoCodec::Av1) => Inner::Av1(av1::Av1::default()),
            Codec::Video(VideoCodec::Vp8) => Inner::Vpx(vpx::Vpx::new(VideoCodec::Vp8)),
            Codec::Video(VideoCodec::Vp9) => Inner::Vpx(vpx::Vpx::new(VideoCodec::Vp9)),
            Codec::Audio(AudioCodec::Mp3) => simple(simple::Kind::Mp3),
            Codec::Audio(AudioCodec::Ac3) => simple(simple::Kind::Ac3),
            Codec::Audio(_) => simple(simple::Kind::Whole),
            Codec::Data(DataCodec::Klv) => simple(simple::Kind::Message),
        };
        let parameters = match (&inner, codec) {
            (Inner::Retina(retina), _) => retina.parameters(),
            (Inner::Latm(latm), _) => Some(latm.parameters()),
            (_, Codec::Audio(AudioCodec::Mp3)) => None,
            (_, Codec::Audio(audio)) => Some(CodecParameters::Audio(AudioParameters::new(
                audio,
                description.sample_rate(),
                description.channels,
            ))),
            (_, Codec::Data(data)) => Some(CodecParameters::Data(DataParameters { codec: data })),
            (_, Codec::Video(_)) => None,
        };
        Ok(Self { codec, parameters, inner })
    }

    /// The codec.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The track's parameters, as far as they are known.
    pub fn parameters(&self) -> Option<&CodecParameters> {
        self.parameters.as_ref()
    }

    /// Takes the next packet. `ticks` is its timestamp, unwrapped; `lost` how many are missing before it.
    ///
    /// # Errors
    /// If the packet makes no sense; the next one may be taken.
    pub fn push(&mut self, packet: &RtpPacket, ticks: i64, lost: u16) -> Result<(), DepacketizeError> {
        let result = match &mut self.inner {
            Inner::Retina(inner) => inner.push(packet, ticks, lost),
            Inner::Av1(inner) => inner.push(packet, ticks, lost),
            Inner::Vpx(inner) => inner.push(packet, ticks, lost),
            Inner::Simple(inner) => inner.push(packet, ticks, lost),
            Inner::Latm(inner) => inner.push(packet, ticks, lost),
        };
        result.map_err(|problem| DepacketizeError { codec: self.codec, problem })
    }

    /// The next complete access unit, if there is one.
    pub fn pull(&mut self) -> Option<AccessUnit> {
        let unit = match &mut self.inner {
            Inner::Retina(inner) => inner.pull(),
            Inner::Av1(inner) => inner.pull(),
            Inner::Vpx(inner) => inner.pull(),
            Inner::Simple(inner) => inner.pull(),
            Inner::Latm(inner) => inner.pull(),
        }?;
        if let Some(parameters) = &unit.parameters {
            self.parameters = Some(parameters.clone());
        }
        Some(unit)
    }
}
