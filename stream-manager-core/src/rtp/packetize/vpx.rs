//! VP8 (RFC 7741) and VP9 (RFC 9628), as encoders without layers send them.

use super::Output;

pub(super) fn vp8(length: usize, out: &mut Output) {
    split(length, out, 1, |first, _| {
        // S: a partition begins; the frame is sent as one (RFC 7741 section 4.2).
        vec![if first { 0x10 } else { 0 }]
    });
}

pub(super) fn vp9(length: usize, keyframe: bool, size: (u32, u32), out: &mut Output) {
    // Behind a keyframe's first descriptor stands the size of the picture, which receivers wait for (RFC 9628
    // section 4.2.1): one spatial layer, no description of groups.
    let [w1, w0] = (size.0 as u16).to_be_bytes();
    let [h1, h0] = (size.1 as u16).to_be_bytes();
    let scalability = [0x10, w1, w0, h1, h0];
    split(length, out, 1 + scalability.len(), |first, last| {
        // P: not a keyframe, B and E: first and last packet of the frame, V: the size follows (section 4.2).
        let flags = u8::from(!keyframe) << 6 | u8::from(first) << 3 | u8::from(last) << 2;
        if keyframe && first { [&[flags | 0x02][..], &scalability].concat() } else { vec![flags] }
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
