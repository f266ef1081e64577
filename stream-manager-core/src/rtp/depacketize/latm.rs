//! AAC in LATM (RFC 6416 section 6, ISO/IEC 14496-3 section 1.7), as some encoders send it: with the multiplex's
//! configuration in the description, never in the stream.

use super::super::packet::RtpPacket;
use super::{AccessUnit, MAX_UNIT_BYTES};
use crate::frame::{AudioParameters, BitReader, CodecParameters};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Samples of an AAC frame.
const SAMPLES: i64 = 1024;

#[derive(Debug)]
pub(super) struct Latm {
    parameters: AudioParameters,
    partial: BytesMut,
    broken: bool,
    ready: VecDeque<(i64, Bytes)>,
}

impl Latm {
    pub(super) fn new(fmtp: Option<&str>) -> Result<Self, String> {
        let get = |name: &str| {
            fmtp.unwrap_or_default()
                .split(';')
                .filter_map(|p| p.trim().split_once('='))
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim())
        };
        // 1 is the default (RFC 6416 section 7.3).
        if get("cpresent") != Some("0") {
            return Err("the configuration is to come in the stream; expected cpresent=0 and config=…".into());
        }
        let config = get("config").ok_or("config is missing")?;
        let bytes: Option<Vec<u8>> = (0..config.len() / 2)
            .map(|n| config.get(n * 2..n * 2 + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .collect();
        let bytes = bytes.ok_or("config is not hexadecimal")?;
        let specific = audio_specific_config(&bytes)
            .ok_or("config describes no single stream of AAC (ISO/IEC 14496-3 section 1.7.3)")?;
        let parameters = AudioParameters::aac(specific.into()).map_err(|e| e.to_string())?;
        Ok(Self { parameters, partial: BytesMut::new(), broken: false, ready: VecDeque::new() })
    }

    pub(super) fn parameters(&self) -> CodecParameters {
        CodecParameters::Audio(self.parameters.clone())
    }

    pub(super) fn push(&mut self, packet: &RtpPacket, ticks: i64, lost: u16) -> Result<(), String> {
        if lost > 0 {
            // Whether the next packet begins an element nobody knows, unless the last one ended one.
            self.broken = !self.partial.is_empty() || !packet.marker;
            self.partial.clear();
        }
        if self.partial.len() + packet.payload.len() > MAX_UNIT_BYTES {
            self.broken = true;
        } else {
            self.partial.extend_from_slice(&packet.payload);
        }
        if !packet.marker {
            return Ok(());
        }
        let mut data = self.partial.split().freeze();
        if std::mem::take(&mut self.broken) {
            return Ok(());
        }
        let mut at = ticks;
        while !data.is_empty() {
            let mut length = 0;
            loop {
                if data.is_empty() {
                    return Err("an element ends within a length".into());
                }
                let byte = data.split_to(1)[0];
                length += usize::from(byte);
                if byte < 255 {
                    break;
                }
            }
            if length > data.len() {
                return Err("a frame is longer than its element".into());
            }
            self.ready.push_back((at, data.split_to(length)));
            at += SAMPLES;
        }
        Ok(())
    }

    pub(super) fn pull(&mut self) -> Option<AccessUnit> {
        let (ticks, data) = self.ready.pop_front()?;
        Some(AccessUnit { ticks, keyframe: true, data, parameters: None })
    }
}

/// The `AudioSpecificConfig` in a `StreamMuxConfig` of one program with one layer.
fn audio_specific_config(mux: &[u8]) -> Option<Vec<u8>> {
    let mut r = BitReader::new(mux);
    // audioMuxVersion, allStreamsSameTimeFraming, numSubFrames, numProgram, numLayer
    if r.bit()? || !r.bit()? {
        return None;
    }
    r.bits(6)?;
    if r.bits(4)? != 0 || r.bits(3)? != 0 {
        return None;
    }
    let mut out = BitWriter::default();
    let copy = |r: &mut BitReader<'_>, out: &mut BitWriter, count: u32| -> Option<u32> {
        let value = r.bits(count)?;
        out.put(value, count);
        Some(value)
    };
    let mut object = copy(&mut r, &mut out, 5)?;
    if copy(&mut r, &mut out, 4)? == 15 {
        copy(&mut r, &mut out, 24)?;
    }
    copy(&mut r, &mut out, 4)?;
    if object == 5 || object == 29 {
        // Spectral band replication: the rate with it, and the object beneath.
        if copy(&mut r, &mut out, 4)? == 15 {
            copy(&mut r, &mut out, 24)?;
        }
        object = copy(&mut r, &mut out, 5)?;
    }
    if !matches!(object, 1..=4) {
        return None;
    }
    // GASpecificConfig: frame length, core coder with its delay, extension.
    copy(&mut r, &mut out, 1)?;
    if copy(&mut r, &mut out, 1)? == 1 {
        copy(&mut r, &mut out, 14)?;
    }
    copy(&mut r, &mut out, 1)?;
    Some(out.bytes)
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, count: u32) {
        for n in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> n & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(payload: &[u8], marker: bool) -> RtpPacket {
        let payload = Bytes::copy_from_slice(payload);
        RtpPacket { sequence: 0, timestamp: 0, ssrc: 0, marker, payload_type: 96, payload }
    }

    #[test]
    fn frames_alone_together_and_in_pieces() {
        // As GStreamer's payloader writes it for 44.1 kHz, two channels.
        let mut latm = Latm::new(Some("cpresent=0;config=40002420adca00")).unwrap();
        let CodecParameters::Audio(parameters) = latm.parameters() else { panic!() };
        assert_eq!((parameters.sample_rate, parameters.channels), (44_100, 2));
        assert_eq!(parameters.extra_data, [0x12, 0x10][..]);
        let long = [vec![255, 45], vec![7; 300]].concat();
        latm.push(&packet(&long[..100], false), 0, 0).unwrap();
        latm.push(&packet(&long[100..], true), 0, 0).unwrap();
        latm.push(&packet(&[1, 8, 2, 9, 9], true), 5000, 0).unwrap();
        // The beginning of this one is lost.
        latm.push(&packet(&[3, 3], false), 6000, 1).unwrap();
        latm.push(&packet(&[3], true), 6000, 0).unwrap();
        latm.push(&packet(&[1, 4], true), 7000, 0).unwrap();
        let got: Vec<(i64, usize)> =
            std::iter::from_fn(|| latm.pull()).map(|u| (u.ticks, u.data.len())).collect();
        assert_eq!(got, [(0, 300), (5000, 1), (6024, 2), (7000, 1)]);
        assert!(latm.push(&packet(&[9, 1], true), 0, 0).is_err());
        for bad in [
            None,
            Some("cpresent=1"),
            Some("cpresent=0"),
            Some("cpresent=0;config=zz"),
            Some("cpresent=0;config=c0"),
        ] {
            assert!(Latm::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(config in prop::collection::vec(any::<u8>(), 0..30), text in "\\PC{0,20}") {
            let _ = audio_specific_config(&config);
            let _ = Latm::new(Some(&format!("cpresent=0;config={text}")));
        }
    }
}
