//! AV1: "RTP Payload Format For AV1", AOMedia, version 1.0.
//!
//! Every OBU element is preceded by its length (W is zero); OBUs lose their own size fields on the way, and
//! temporal delimiters are left out (section 5).

use super::super::depacketize::av1::{Obu, obus};
use super::Output;

/// An element continues from the packet before.
const Z: u8 = 0x80;
/// An element continues in the next packet.
const Y: u8 = 0x40;
/// A coded video sequence begins.
const N: u8 = 0x08;

pub(super) fn packetize(data: &[u8], keyframe: bool, out: &mut Output) -> Result<(), &'static str> {
    let all: Vec<Obu> = obus(data).ok_or("its OBUs do not fit into each other")?;
    let all: Vec<Obu> = all.into_iter().filter(|o| !o.is_left_out()).collect();
    if all.is_empty() {
        return Ok(());
    }
    // The sequence header is what a coded video sequence begins with (section 4.4).
    let sequence = keyframe && all.iter().any(Obu::is_sequence_header);
    out.begin();
    out.writer.head(&[if sequence { N } else { 0 }]);
    let mut used = 1;
    for (number, obu) in all.iter().enumerate() {
        let header = obu.header_without_size(data);
        let mut head: &[u8] = &header;
        let mut body = obu.payload.clone();
        loop {
            let left = head.len() + body.len();
            // At least one byte of the element and its length have to fit.
            if used + 2 + head.len().max(1) > out.max {
                out.writer.end(false);
                out.begin();
                out.writer.head(&[0]);
                used = 1;
            }
            let room = (out.max - used).min(1 << 14);
            let length = if left + leb128(left).len() <= room { left } else { room - 2 };
            let field = if length == left { leb128(left) } else { padded(length) };
            out.writer.head(&field);
            let from_body = length - head.len();
            out.writer.head(head);
            out.writer.body(body.start..body.start + from_body);
            used += field.len() + length;
            head = &[];
            body.start += from_body;
            if length == left {
                break;
            }
            out.writer.patch(0, |b| b | Y);
            out.writer.end(false);
            out.begin();
            out.writer.head(&[Z]);
            used = 1;
        }
        if number + 1 == all.len() {
            out.writer.end(true);
        }
    }
    Ok(())
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2);
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        bytes.push(if value > 0 { byte | 0x80 } else { byte });
        if value == 0 {
            return bytes;
        }
    }
}

/// In two bytes, whatever it is; packets are shorter than 16 KiB or their elements are cut there.
fn padded(value: usize) -> Vec<u8> {
    vec![(value & 0x7f) as u8 | 0x80, (value >> 7 & 0x7f) as u8]
}
