//! VP8 (RFC 7741) and VP9 (RFC 9628), as encoders without layers send them.

use super::Output;

pub(super) fn vp8(length: usize, out: &mut Output) {
    split(length, out, 1, |first, _| {
        // S: a partition begins; the frame is sent as one (RFC 7741 section 4.2).
        vec![if first { 0x10 } else { 0 }]
    });
}

pub(super) fn vp9(length: usize, keyframe: bool, picture: u16, out: &mut Output) {
    split(length, out, 3, |first, last| {
        // I: picture id, P: not a keyframe, B and E: first and last packet of the frame (RFC 9628 section 4.2).
        let flags = 0x80 | u8::from(!keyframe) << 6 | u8::from(first) << 3 | u8::from(last) << 2;
        vec![flags, 0x80 | (picture >> 8) as u8, picture as u8]
    });
}

fn split(length: usize, out: &mut Output, head: usize, descriptor: impl Fn(bool, bool) -> Vec<u8>) {
    let step = out.max - head;
    let mut at = 0;
    while at < length {
        let end = (at + step).min(length);
        out.begin();
        out.writer.head(&descriptor(at == 0, end == length));
        out.writer.body(at..end);
        out.writer.end(end == length);
        at = end;
    }
}
