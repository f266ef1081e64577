//! H.264 (RFC 6184, packetization mode 1) and H.265 (RFC 7798).
//!
//! Small NAL units that follow each other travel in one packet, large ones are split, and the parameter sets go
//! in front of every keyframe that does not bring its own, so that a decoder can start or change there.

use super::super::format::{avcc_parameter_sets, hvcc_parameter_sets};
use super::Output;
use std::ops::Range;

/// A NAL unit: part of the frame, or a parameter set from elsewhere.
enum Nal<'a> {
    Body(Range<usize>),
    Set(&'a [u8]),
}

impl Nal<'_> {
    fn len(&self) -> usize {
        match self {
            Nal::Body(range) => range.len(),
            Nal::Set(set) => set.len(),
        }
    }
}

/// What differs between the two.
trait Syntax {
    /// Length of a NAL unit's header.
    const HEADER: usize;
    /// Header of an aggregation packet, from the headers of what is in it.
    fn aggregate(headers: &[[u8; 2]]) -> Vec<u8>;
    /// The header of a fragment and its fragmentation header.
    fn fragment(header: [u8; 2], start: bool, end: bool) -> Vec<u8>;
}

struct H264;

impl Syntax for H264 {
    const HEADER: usize = 1;

    fn aggregate(headers: &[[u8; 2]]) -> Vec<u8> {
        const STAP_A: u8 = 24;
        let forbidden = headers.iter().fold(0, |f, h| f | h[0] & 0x80);
        let importance = headers.iter().map(|h| h[0] & 0x60).max().unwrap_or(0);
        vec![forbidden | importance | STAP_A]
    }

    fn fragment(header: [u8; 2], start: bool, end: bool) -> Vec<u8> {
        const FU_A: u8 = 28;
        vec![header[0] & 0xe0 | FU_A, u8::from(start) << 7 | u8::from(end) << 6 | header[0] & 0x1f]
    }
}

struct H265;

impl Syntax for H265 {
    const HEADER: usize = 2;

    fn aggregate(headers: &[[u8; 2]]) -> Vec<u8> {
        const AP: u8 = 48;
        let layer =
            headers.iter().map(|h| u16::from(h[0] & 1) << 5 | u16::from(h[1] >> 3)).min().unwrap_or(0);
        let temporal = headers.iter().map(|h| h[1] & 7).min().unwrap_or(1);
        vec![AP << 1 | (layer >> 5) as u8, (layer << 3) as u8 | temporal]
    }

    fn fragment(header: [u8; 2], start: bool, end: bool) -> Vec<u8> {
        const FU: u8 = 49;
        let kind = header[0] >> 1 & 0x3f;
        vec![header[0] & 0x81 | FU << 1, header[1], u8::from(start) << 7 | u8::from(end) << 6 | kind]
    }
}

pub(super) fn h264(data: &[u8], avcc: &[u8], keyframe: bool, out: &mut Output) -> Result<(), &'static str> {
    let sets = if keyframe { avcc_parameter_sets(avcc) } else { Vec::new() };
    let is_set = |header: u8| matches!(header & 0x1f, 7 | 8);
    packetize::<H264>(data, &sets, is_set, out)
}

pub(super) fn h265(data: &[u8], hvcc: &[u8], keyframe: bool, out: &mut Output) -> Result<(), &'static str> {
    let sets = if keyframe { hvcc_parameter_sets(hvcc) } else { Vec::new() };
    let is_set = |header: u8| matches!(header >> 1 & 0x3f, 32..=34);
    packetize::<H265>(data, &sets, is_set, out)
}

fn packetize<S: Syntax>(
    data: &[u8],
    sets: &[&[u8]],
    is_set: impl Fn(u8) -> bool,
    out: &mut Output,
) -> Result<(), &'static str> {
    let mut nals = Vec::new();
    let mut has_sets = false;
    let mut at = 0;
    while at < data.len() {
        let Some(length) = data.get(at..at + 4) else {
            return Err("it ends within the length of a NAL unit");
        };
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let range = at + 4..at.saturating_add(4).saturating_add(length);
        if range.end > data.len() {
            return Err("it ends within a NAL unit");
        }
        at = range.end;
        if length > S::HEADER {
            has_sets |= is_set(data[range.start]);
            nals.push(Nal::Body(range));
        }
    }
    if !has_sets {
        // Behind an access unit delimiter, which has to be first.
        let delimiter =
            nals.first().is_some_and(|n| matches!(n, Nal::Body(r) if is_delimiter::<S>(data[r.start])));
        let place = usize::from(delimiter);
        nals.splice(place..place, sets.iter().filter(|s| s.len() > S::HEADER).map(|s| Nal::Set(s)));
    }
    let mut group: Vec<Nal<'_>> = Vec::new();
    let mut size = S::HEADER;
    let mut iterator = nals.into_iter().peekable();
    while let Some(nal) = iterator.next() {
        let last = iterator.peek().is_none();
        let length = nal.len();
        if !group.is_empty() && size + 2 + length > out.max {
            send_group::<S>(data, &group, false, out);
            group.clear();
            size = S::HEADER;
        }
        if length > out.max {
            send_fragments::<S>(data, &nal, last, out);
        } else {
            size += 2 + length;
            group.push(nal);
        }
        if last && !group.is_empty() {
            send_group::<S>(data, &group, true, out);
        }
    }
    Ok(())
}

fn is_delimiter<S: Syntax>(header: u8) -> bool {
    if S::HEADER == 1 { header & 0x1f == 9 } else { header >> 1 & 0x3f == 35 }
}

fn bytes<'a>(data: &'a [u8], nal: &'a Nal<'_>) -> &'a [u8] {
    match nal {
        Nal::Body(range) => &data[range.clone()],
        Nal::Set(set) => set,
    }
}

fn header(data: &[u8], nal: &Nal<'_>) -> [u8; 2] {
    let bytes = bytes(data, nal);
    [bytes[0], bytes.get(1).copied().unwrap_or(0)]
}

fn write(nal: &Nal<'_>, skip: usize, end: usize, out: &mut Output) {
    match nal {
        Nal::Body(range) => out.writer.body(range.start + skip..range.start + end),
        Nal::Set(set) => out.writer.head(&set[skip..end]),
    }
}

fn send_group<S: Syntax>(data: &[u8], group: &[Nal<'_>], last: bool, out: &mut Output) {
    out.begin();
    if let [nal] = group {
        write(nal, 0, nal.len(), out);
    } else {
        let headers: Vec<[u8; 2]> = group.iter().map(|nal| header(data, nal)).collect();
        out.writer.head(&S::aggregate(&headers));
        for nal in group {
            out.writer.head(&(nal.len() as u16).to_be_bytes());
            write(nal, 0, nal.len(), out);
        }
    }
    out.writer.end(last);
}

fn send_fragments<S: Syntax>(data: &[u8], nal: &Nal<'_>, last: bool, out: &mut Output) {
    let header = header(data, nal);
    let step = out.max - S::HEADER - 1;
    let mut at = S::HEADER;
    while at < nal.len() {
        let end = (at + step).min(nal.len());
        let (first, final_one) = (at == S::HEADER, end == nal.len());
        out.begin();
        out.writer.head(&S::fragment(header, first, final_one));
        write(nal, at, end, out);
        out.writer.end(last && final_one);
        at = end;
    }
}
