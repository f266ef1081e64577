//! Sound and messages: Opus, G.711 and L16 (a packet is a frame), MP3 (RFC 2250), AC-3 (RFC 4184), KLV (RFC 6597).

use super::super::packet::RtpPacket;
use super::{AccessUnit, MAX_UNIT_BYTES};
use crate::frame::{AudioCodec, AudioParameters, CodecParameters};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    Message,
    Mp3,
    Ac3,
}

#[derive(Debug)]
pub(super) struct Simple {
    kind: Kind,
    partial: BytesMut,
    partial_ticks: Option<i64>,
    ready: VecDeque<(i64, Bytes)>,
    /// In a message whose beginning is missing.
    skipping: bool,
    /// Rate and channels of MPEG audio.
    known: Option<(u32, u16)>,
}

impl Simple {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            partial: BytesMut::new(),
            partial_ticks: None,
            ready: VecDeque::new(),
            skipping: false,
            known: None,
        }
    }

    pub(super) fn push(&mut self, packet: &RtpPacket, ticks: i64, lost: u16) -> Result<(), String> {
        if lost > 0 {
            self.forget();
        }
        let payload = &packet.payload;
        if payload.is_empty() {
            return Ok(());
        }
        match self.kind {
            Kind::Whole => self.ready.push_back((ticks, payload.clone())),
            Kind::Message => {
                // After a loss nobody knows where a message begins, up to the end of one.
                self.skipping |= lost > 0;
                if self.skipping {
                    self.skipping = !packet.marker;
                    return Ok(());
                }
                if self.partial_ticks != Some(ticks) {
                    self.forget();
                    self.partial_ticks = Some(ticks);
                }
                self.append(payload)?;
                if packet.marker {
                    self.finish(ticks);
                }
            }
            Kind::Mp3 => self.mp3(payload, ticks)?,
            Kind::Ac3 => self.ac3(packet, ticks)?,
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.partial.clear();
        self.partial_ticks = None;
    }

    fn append(&mut self, data: &[u8]) -> Result<(), String> {
        if self.partial.len() + data.len() > MAX_UNIT_BYTES {
            self.forget();
            return Err("a unit is longer than 16 MiB".into());
        }
        self.partial.extend_from_slice(data);
        Ok(())
    }

    fn finish(&mut self, ticks: i64) {
        self.ready.push_back((ticks, self.partial.split().freeze()));
        self.partial_ticks = None;
    }

    fn mp3(&mut self, payload: &Bytes, ticks: i64) -> Result<(), String> {
        let Some((header, _)) = payload.split_first_chunk::<4>() else {
            return Err("an MPEG audio packet without its header (RFC 2250 section 3.5)".into());
        };
        let offset = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let mut data = payload.slice(4..);
        if offset > 0 {
            if self.partial_ticks != Some(ticks) || offset != self.partial.len() {
                self.forget();
                return Ok(());
            }
            self.append(&data)?;
            if mpeg_audio(&self.partial).is_some_and(|(length, _, _)| self.partial.len() >= length) {
                self.finish(ticks);
            }
            return Ok(());
        }
        self.forget();
        let mut at = ticks;
        while !data.is_empty() {
            let Some((length, samples, rate)) = mpeg_audio(&data) else {
                return Err("no MPEG audio frame where one should begin".into());
            };
            if data.len() < length {
                self.partial_ticks = Some(at);
                return self.append(&data);
            }
            self.ready.push_back((at, data.split_to(length)));
            at += i64::from(samples) * 90_000 / i64::from(rate);
        }
        Ok(())
    }

    fn ac3(&mut self, packet: &RtpPacket, ticks: i64) -> Result<(), String> {
        let Some((&[kind, count], _)) = packet.payload.split_first_chunk::<2>() else {
            return Err("an AC-3 packet without its header (RFC 4184 section 4.1)".into());
        };
        let mut data = packet.payload.slice(2..);
        match kind & 3 {
            0 if count <= 1 => self.ready.push_back((ticks, data)),
            0 => {
                // Several frames; each says how long it is.
                let mut at = ticks;
                while let Some(length) = ac3_frame(&data) {
                    if length > data.len() {
                        return Err("an AC-3 frame is longer than its packet".into());
                    }
                    self.ready.push_back((at, data.split_to(length)));
                    at += 1536;
                }
            }
            1 | 2 => {
                self.forget();
                self.partial_ticks = Some(ticks);
                self.append(&data)?;
            }
            _ => {
                if self.partial_ticks != Some(ticks) {
                    return Ok(());
                }
                self.append(&data)?;
                if packet.marker {
                    self.finish(ticks);
                }
            }
        }
        Ok(())
    }

    pub(super) fn pull(&mut self) -> Option<AccessUnit> {
        let (ticks, data) = self.ready.pop_front()?;
        // What the description of MPEG audio does not say stands in every frame.
        let parameters = (self.kind == Kind::Mp3)
            .then(|| mpeg_audio(&data))
            .flatten()
            .map(|(_, _, rate)| (rate, if data[3] >> 6 == 3 { 1 } else { 2 }))
            .filter(|found| self.known.replace(*found) != Some(*found))
            .map(|(rate, channels)| {
                CodecParameters::Audio(AudioParameters::new(AudioCodec::Mp3, rate, channels))
            });
        Some(AccessUnit { ticks, keyframe: true, data, parameters })
    }
}

/// Length in bytes, samples and rate of the MPEG audio layer III frame that begins here (ISO/IEC 11172-3 section
/// 2.4.1.3, ISO/IEC 13818-3 for the low rates).
fn mpeg_audio(data: &[u8]) -> Option<(usize, u32, u32)> {
    const V1: [u32; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    const V2: [u32; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    let head = data.first_chunk::<4>()?;
    if head[0] != 0xff || head[1] & 0xe6 != 0xe2 {
        return None;
    }
    let version = head[1] >> 3 & 3;
    let (first, rates) = match version {
        3 => (true, [44_100, 48_000, 32_000]),
        2 => (false, [22_050, 24_000, 16_000]),
        0 => (false, [11_025, 12_000, 8_000]),
        _ => return None,
    };
    let bitrate = *(if first { V1 } else { V2 }).get(usize::from(head[2] >> 4))? * 1000;
    let rate = *rates.get(usize::from(head[2] >> 2 & 3))?;
    let padding = u32::from(head[2] >> 1 & 1);
    let samples = if first { 1152 } else { 576 };
    let length = samples / 8 * bitrate / rate + padding;
    (bitrate > 0 && length >= 4).then_some((length as usize, samples, rate))
}

/// Length in bytes of the AC-3 frame that begins here (ETSI TS 102 366 section 4.4.1).
fn ac3_frame(data: &[u8]) -> Option<usize> {
    const KBIT: [usize; 19] =
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];
    let head = data.first_chunk::<5>()?;
    if head[..2] != [0x0b, 0x77] {
        return None;
    }
    let code = usize::from(head[4] & 0x3f);
    let kbit = *KBIT.get(code / 2)?;
    let words = match head[4] >> 6 {
        0 => kbit * 2,
        1 => kbit * 96_000 / 44_100 + code % 2,
        2 => kbit * 3,
        _ => return None,
    };
    Some(words * 2)
}
