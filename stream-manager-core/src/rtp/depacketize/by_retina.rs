//! The payload formats that retina knows.

use super::super::format::{Description, translate_retina};
use super::super::packet::RtpPacket;
use super::{AccessUnit, MAX_UNIT_BYTES};
use crate::frame::CodecParameters;
use bytes::Bytes;
use retina::codec::{CodecItem, Depacketizer, FrameFormat};
use retina::testutil::DepacketizeBuf;
use std::num::{NonZeroU16, NonZeroU32};

/// What its buffer begins with; it grows to hold an access unit.
const BUFFER_BYTES: usize = 64 << 10;

pub(super) struct ByRetina {
    inner: Depacketizer,
    buffer: DepacketizeBuf,
    /// Bytes since the last unit came out.
    held: usize,
    description: Description,
    clock_rate: NonZeroU32,
    start: Option<i64>,
    known: Option<CodecParameters>,
}

impl std::fmt::Debug for ByRetina {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByRetina").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn depacketizer(description: &Description) -> Result<Depacketizer, String> {
    let mut inner = Depacketizer::new(
        &description.media,
        &description.encoding,
        description.clock_rate,
        NonZeroU16::new(description.channels),
        description.fmtp.as_deref(),
    )?;
    inner.set_frame_format(FrameFormat::MP4);
    Ok(inner)
}

impl ByRetina {
    pub(super) fn new(description: &Description) -> Result<Self, String> {
        let inner = depacketizer(description)?;
        let clock_rate = NonZeroU32::new(description.clock_rate).ok_or("the clock rate is zero")?;
        let buffer = DepacketizeBuf::new(BUFFER_BYTES);
        let known = inner.parameters().and_then(|p| translate_retina(p, &description.encoding, None, None));
        let description = description.clone();
        Ok(Self { inner, buffer, held: 0, description, clock_rate, start: None, known })
    }

    pub(super) fn parameters(&self) -> Option<CodecParameters> {
        self.known.clone()
    }

    pub(super) fn push(&mut self, packet: &RtpPacket, ticks: i64, lost: u16) -> Result<(), String> {
        self.held += packet.payload.len();
        if self.held > MAX_UNIT_BYTES {
            // It keeps whatever belongs to a unit that has not ended, without a limit of its own.
            self.inner = depacketizer(&self.description)?;
            self.buffer = DepacketizeBuf::new(BUFFER_BYTES);
            self.held = 0;
            return Err("a unit is longer than 16 MiB".into());
        }
        let start = *self.start.get_or_insert(ticks);
        let timestamp = retina::Timestamp::new(ticks, self.clock_rate, start as u32)
            .ok_or("the timestamp is out of all range")?;
        let meta = retina::rtp::PacketMeta {
            ctx: retina::PacketContext::dummy(),
            stream_id: 0,
            timestamp,
            sequence_number: packet.sequence,
            ssrc: packet.ssrc,
            mark: packet.marker,
            loss: lost,
        };
        self.buffer.push(&mut self.inner, meta, &packet.payload)
    }

    pub(super) fn pull(&mut self) -> Option<AccessUnit> {
        loop {
            let unit = match self.inner.pull()? {
                Ok(CodecItem::VideoFrame(frame)) => {
                    let changed = frame.has_new_parameters() || self.known.is_none();
                    let parameters = if changed { self.learn(Some(frame.data())) } else { None };
                    AccessUnit {
                        ticks: frame.timestamp().timestamp(),
                        keyframe: frame.is_random_access_point(),
                        data: shrink(self.complete(frame.into_data())),
                        parameters,
                    }
                }
                Ok(CodecItem::AudioFrame(frame)) => AccessUnit {
                    ticks: frame.timestamp().timestamp(),
                    keyframe: true,
                    data: Bytes::copy_from_slice(frame.data()),
                    parameters: None,
                },
                Ok(CodecItem::MessageFrame(frame)) => AccessUnit {
                    ticks: frame.timestamp().timestamp(),
                    keyframe: true,
                    data: Bytes::copy_from_slice(frame.data()),
                    parameters: None,
                },
                // A unit that cannot be put together is left out.
                Ok(_) | Err(_) => continue,
            };
            self.held = 0;
            return Some(unit);
        }
    }

    /// Puts the end marker behind a JPEG picture that came without one; retina does so only where the last two bytes
    /// are both unlike it.
    fn complete(&self, mut data: Vec<u8>) -> Vec<u8> {
        const END: [u8; 2] = [0xff, 0xd9];
        if self.description.encoding == "jpeg" && !data.ends_with(&END) {
            data.extend_from_slice(&END);
        }
        data
    }

    fn learn(&mut self, frame: Option<&[u8]>) -> Option<CodecParameters> {
        let found = translate_retina(self.inner.parameters()?, &self.description.encoding, None, frame)?;
        if self.known.as_ref() == Some(&found) {
            return None;
        }
        self.known = Some(found.clone());
        Some(found)
    }
}

/// Frames are kept for a whole GOP; memory that was only reserved is given back where it is much.
pub(crate) fn shrink(mut data: Vec<u8>) -> Bytes {
    if data.capacity() > data.len() + data.len() / 8 + 1024 {
        data.shrink_to_fit();
    }
    data.into()
}
