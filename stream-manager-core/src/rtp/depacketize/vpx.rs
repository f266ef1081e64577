//! VP8 (RFC 7741 section 4.2) and VP9 (RFC 9628 section 4.2).

use super::super::packet::RtpPacket;
use super::{AccessUnit, MAX_UNIT_BYTES};
use crate::frame::{CodecParameters, VideoCodec, VideoParameters};
use bytes::{Bytes, BytesMut};

#[derive(Debug)]
pub(super) struct Vpx {
    codec: VideoCodec,
    partial: BytesMut,
    /// The frame being put together; none while its beginning is missing.
    ticks: Option<i64>,
    ready: Option<(i64, Bytes)>,
    size: Option<(u32, u32)>,
}

impl Vpx {
    pub(super) fn new(codec: VideoCodec) -> Self {
        Self { codec, partial: BytesMut::new(), ticks: None, ready: None, size: None }
    }

    pub(super) fn push(&mut self, packet: &RtpPacket, ticks: i64, lost: u16) -> Result<(), String> {
        if lost > 0 || self.ticks.is_some_and(|t| t != ticks) {
            self.partial.clear();
            self.ticks = None;
        }
        let payload = &packet.payload[..];
        if payload.is_empty() {
            return Ok(());
        }
        let header = match self.codec {
            VideoCodec::Vp8 => vp8_descriptor(payload),
            _ => vp9_descriptor(payload),
        };
        let (first, length) = header.ok_or("a packet ends within its payload descriptor")?;
        if first && self.ticks.is_none() {
            self.partial.clear();
            self.ticks = Some(ticks);
        }
        if self.ticks.is_none() {
            return Ok(());
        }
        if self.partial.len() + payload.len() > MAX_UNIT_BYTES {
            self.ticks = None;
            return Err("a frame is longer than 16 MiB".into());
        }
        self.partial.extend_from_slice(&payload[length..]);
        if packet.marker && !self.partial.is_empty() {
            self.ready = Some((ticks, self.partial.split().freeze()));
            self.ticks = None;
        }
        Ok(())
    }

    pub(super) fn pull(&mut self) -> Option<AccessUnit> {
        let (ticks, data) = self.ready.take()?;
        let size = match self.codec {
            VideoCodec::Vp8 => vp8_key_size(&data),
            _ => vp9_key_size(&data),
        };
        let keyframe = size.is_some();
        let changed = size.filter(|s| self.size != Some(*s));
        if changed.is_some() {
            self.size = changed;
        }
        let parameters = changed
            .map(|(width, height)| CodecParameters::Video(VideoParameters::new(self.codec, width, height)));
        Some(AccessUnit { ticks, keyframe, data, parameters })
    }
}

/// Whether a frame begins, and the descriptor's length.
fn vp8_descriptor(data: &[u8]) -> Option<(bool, usize)> {
    let first = *data.first()?;
    let mut length = 1;
    if first & 0x80 != 0 {
        let extension = *data.get(1)?;
        length += 1;
        if extension & 0x80 != 0 {
            length += if data.get(length)? & 0x80 != 0 { 2 } else { 1 };
        }
        if extension & 0x40 != 0 {
            length += 1;
        }
        if extension & 0x30 != 0 {
            length += 1;
        }
    }
    (length <= data.len()).then_some((first & 0x10 != 0 && first & 7 == 0, length))
}

/// The same for VP9.
fn vp9_descriptor(data: &[u8]) -> Option<(bool, usize)> {
    let first = *data.first()?;
    let mut length = 1;
    if first & 0x80 != 0 {
        length += if data.get(length)? & 0x80 != 0 { 2 } else { 1 };
    }
    let flexible = first & 0x10 != 0;
    if first & 0x20 != 0 {
        length += if flexible { 1 } else { 2 };
    }
    if flexible && first & 0x40 != 0 {
        for _ in 0..3 {
            let more = data.get(length)? & 1 != 0;
            length += 1;
            if !more {
                break;
            }
        }
    }
    if first & 0x02 != 0 {
        length += scalability(data.get(length..)?)?;
    }
    (length <= data.len()).then_some((first & 0x08 != 0, length))
}

/// The length of a scalability structure, RFC 9628 section 4.2.1.
fn scalability(data: &[u8]) -> Option<usize> {
    let head = *data.first()?;
    let mut length = 1;
    if head & 0x10 != 0 {
        length += 4 * (usize::from(head >> 5) + 1);
    }
    if head & 0x08 != 0 {
        let groups = *data.get(length)?;
        length += 1;
        for _ in 0..groups {
            let references = usize::from(data.get(length)? >> 2 & 3);
            length += 1 + references;
        }
    }
    Some(length)
}

/// Width and height, if it is a keyframe (RFC 6386 section 9.1).
fn vp8_key_size(data: &[u8]) -> Option<(u32, u32)> {
    let head = data.first_chunk::<10>()?;
    if head[0] & 1 != 0 || head[3..6] != [0x9d, 0x01, 0x2a] {
        return None;
    }
    let number = |a, b| u32::from(u16::from_le_bytes([a, b]) & 0x3fff);
    Some((number(head[6], head[7]), number(head[8], head[9])))
}

/// Width and height, if it is a keyframe (VP9 bitstream specification section 6.2).
fn vp9_key_size(data: &[u8]) -> Option<(u32, u32)> {
    let mut r = crate::frame::BitReader::new(data);
    if r.bits(2)? != 2 {
        return None;
    }
    let profile = r.bits(1)? | r.bits(1)? << 1;
    if profile == 3 {
        r.bits(1)?;
    }
    // show_existing_frame, frame_type
    if r.bits(1)? == 1 || r.bits(1)? == 1 {
        return None;
    }
    r.bits(2)?;
    if r.bits(24)? != 0x0049_8342 {
        return None;
    }
    if profile >= 2 {
        r.bits(1)?;
    }
    const RGB: u32 = 7;
    if r.bits(3)? == RGB {
        if profile & 1 == 1 {
            r.bits(1)?;
        }
    } else {
        r.bits(1)?;
        if profile & 1 == 1 {
            r.bits(3)?;
        }
    }
    Some((r.bits(16)? + 1, r.bits(16)? + 1))
}
