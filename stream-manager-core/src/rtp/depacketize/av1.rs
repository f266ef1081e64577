//! AV1: "RTP Payload Format For AV1", AOMedia, version 1.0, and what is needed of OBUs.

use super::super::packet::RtpPacket;
use super::{AccessUnit, MAX_UNIT_BYTES};
use crate::frame::{BitReader, CodecParameters, VideoParameters};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;
const TILE_LIST: u8 = 8;
const PADDING: u8 = 15;

/// An OBU within a temporal unit (AV1 specification section 5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rtp) struct Obu {
    /// Header and extension.
    head: Range<usize>,
    /// What follows the size.
    pub(in crate::rtp) payload: Range<usize>,
    kind: u8,
}

impl Obu {
    /// Those that RTP does not carry.
    pub(in crate::rtp) fn is_left_out(&self) -> bool {
        matches!(self.kind, TEMPORAL_DELIMITER | TILE_LIST | PADDING)
    }

    pub(in crate::rtp) fn is_sequence_header(&self) -> bool {
        self.kind == SEQUENCE_HEADER
    }

    /// Its header without the flag that a size follows.
    pub(in crate::rtp) fn header_without_size(&self, data: &[u8]) -> Vec<u8> {
        let mut head = data[self.head.clone()].to_vec();
        head[0] &= !2;
        head
    }
}

/// The OBUs of a temporal unit; none if their sizes do not fit.
pub(in crate::rtp) fn obus(data: &[u8]) -> Option<Vec<Obu>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let header = data[at];
        let head = at..at + if header & 4 != 0 { 2 } else { 1 };
        let payload = if header & 2 != 0 {
            let (size, length) = leb128(data.get(head.end..)?)?;
            let start = head.end + length;
            start..start.checked_add(size)?
        } else {
            head.end..data.len()
        };
        if payload.end > data.len() || head.end > data.len() {
            return None;
        }
        at = payload.end;
        all.push(Obu { head, payload, kind: header >> 3 & 15 });
    }
    Some(all)
}

/// A little-endian base 128 number and its length (AV1 specification section 4.10.5).
fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (n, byte) in data.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

fn put_leb128(out: &mut BytesMut, mut value: usize) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        out.put_u8(if value > 0 { byte | 0x80 } else { byte });
        if value == 0 {
            return;
        }
    }
}

/// Puts temporal units together.
#[derive(Debug, Default)]
pub(super) struct Av1 {
    unit: BytesMut,
    /// An element that goes on in the next packet.
    fragment: BytesMut,
    fragmented: bool,
    ticks: Option<i64>,
    broken: bool,
    ready: Option<(i64, Bytes)>,
    known: Option<CodecParameters>,
}

impl Av1 {
    pub(super) fn push(&mut self, packet: &RtpPacket, ticks: i64, lost: u16) -> Result<(), String> {
        let Some((head, mut data)) = packet.payload.split_first() else { return Ok(()) };
        if self.ticks != Some(ticks) {
            // The unit before had no end; what there is of it is no use.
            self.restart(ticks);
            self.broken = lost > 0 && head & 0x80 != 0;
        } else if lost > 0 {
            self.broken = true;
        }
        let result = self.elements(*head, &mut data);
        if result.is_err() {
            self.broken = true;
        }
        if packet.marker {
            if !self.broken && !self.fragmented && !self.unit.is_empty() {
                self.ready = Some((ticks, self.unit.split().freeze()));
            }
            self.ticks = None;
        }
        result
    }

    fn restart(&mut self, ticks: i64) {
        self.unit.clear();
        self.fragment.clear();
        self.fragmented = false;
        self.broken = false;
        self.ticks = Some(ticks);
    }

    fn elements(&mut self, head: u8, data: &mut &[u8]) -> Result<(), String> {
        let (continued, continues, count) = (head & 0x80 != 0, head & 0x40 != 0, usize::from(head >> 4 & 3));
        if continued != self.fragmented && !self.broken {
            return Err("a fragment does not continue the one before".into());
        }
        let mut number = 0;
        while !data.is_empty() {
            number += 1;
            let length = if count > 0 && number == count {
                data.len()
            } else {
                let (length, size) = leb128(data).ok_or("the length of an element does not end")?;
                *data = &data[size..];
                length
            };
            let element = data.get(..length).ok_or("an element is longer than its packet")?;
            *data = &data[length..];
            let last = data.is_empty();
            if self.unit.len() + self.fragment.len() + element.len() > MAX_UNIT_BYTES {
                return Err("a temporal unit is longer than 16 MiB".into());
            }
            self.fragment.extend_from_slice(element);
            self.fragmented = last && continues;
            if !self.fragmented {
                let whole = self.fragment.split();
                self.append(&whole)?;
            }
        }
        Ok(())
    }

    /// Adds an OBU to the unit, with its size.
    fn append(&mut self, obu: &[u8]) -> Result<(), String> {
        let Some(first) = obu.first() else { return Ok(()) };
        let head = if first & 4 != 0 { 2 } else { 1 };
        // A sender may leave the size in.
        let whole;
        let (header, payload) = if first & 2 != 0 {
            whole = obus(obu).ok_or("an OBU's size does not fit")?;
            let Some(only) = whole.first() else { return Ok(()) };
            (only.header_without_size(obu), &obu[only.payload.clone()])
        } else {
            (obu.get(..head).ok_or("an OBU ends within its header")?.to_vec(), &obu[head..])
        };
        if matches!(first >> 3 & 15, TEMPORAL_DELIMITER | TILE_LIST) {
            return Ok(());
        }
        self.unit.put_u8(header[0] | 2);
        self.unit.extend_from_slice(&header[1..]);
        put_leb128(&mut self.unit, payload.len());
        self.unit.extend_from_slice(payload);
        Ok(())
    }

    pub(super) fn pull(&mut self) -> Option<AccessUnit> {
        let (ticks, data) = self.ready.take()?;
        let all = obus(&data).unwrap_or_default();
        let sequence = all.iter().find(|o| o.is_sequence_header());
        let keyframe = sequence.is_some() && all.iter().any(|o| is_key(o, &data));
        let found =
            sequence.filter(|_| keyframe).and_then(|_| parameters_of(&data)).map(CodecParameters::Video);
        let parameters = found.filter(|f| self.known.as_ref() != Some(f));
        if parameters.is_some() {
            self.known.clone_from(&parameters);
        }
        Some(AccessUnit { ticks, keyframe, data, parameters })
    }
}

/// What OBUs with a sequence header among them say of themselves.
pub(crate) fn parameters_of(data: &[u8]) -> Option<VideoParameters> {
    let all = obus(data)?;
    let sequence = all.iter().find(|o| o.is_sequence_header())?;
    let (width, height, depth) = dimensions(&data[sequence.payload.clone()])?;
    VideoParameters::av1(data, width, height, depth).ok()
}

/// Whether it is the header of a keyframe that is shown (AV1 specification section 5.9.2).
fn is_key(obu: &Obu, data: &[u8]) -> bool {
    matches!(obu.kind, FRAME_HEADER | FRAME)
        && data.get(obu.payload.start).is_some_and(|b| b & 0x80 == 0 && b >> 5 & 3 == 0)
}

/// Width and height that a sequence header states (AV1 specification section 5.5.1), and eight bits: the depth stands
/// behind many options, and what cameras send has eight.
fn dimensions(payload: &[u8]) -> Option<(u32, u32, u32)> {
    let mut r = BitReader::new(payload);
    r.bits(3)?;
    r.bit()?;
    if r.bit()? {
        r.bits(5)?;
    } else {
        let mut decoder_model = None;
        if r.bit()? {
            r.bits(32)?;
            r.bits(32)?;
            if r.bit()? {
                r.ue()?;
            }
            if r.bit()? {
                decoder_model = Some(r.bits(5)? + 1);
                r.bits(32)?;
                r.bits(10)?;
            }
        }
        let display_delay = r.bit()?;
        for _ in 0..=r.bits(5)? {
            r.bits(12)?;
            if r.bits(5)? > 7 {
                r.bit()?;
            }
            if let Some(length) = decoder_model
                && r.bit()?
            {
                r.bits(length)?;
                r.bits(length)?;
                r.bit()?;
            }
            if display_delay && r.bit()? {
                r.bits(4)?;
            }
        }
    }
    let (width_bits, height_bits) = (r.bits(4)? + 1, r.bits(4)? + 1);
    Some((r.bits(width_bits)? + 1, r.bits(height_bits)? + 1, 8))
}
