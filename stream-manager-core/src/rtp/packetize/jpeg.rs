//! MJPEG: RFC 2435.
//!
//! The format knows baseline JPEG with three components, 4:2:0 or 4:2:2, the standard Huffman tables and at
//! most 2040x2040 pixels. The headers of the picture are taken apart and only what differs is sent; receivers make
//! new ones.

use super::Output;

#[derive(Default)]
struct Picture {
    /// 0 is 4:2:2, 1 is 4:2:0.
    kind: u8,
    width: u8,
    height: u8,
    restart_interval: u16,
    tables: Vec<(u8, Vec<u8>)>,
    /// The tables that luma and chroma use.
    used: [u8; 2],
    scan: std::ops::Range<usize>,
}

pub(super) fn packetize(data: &[u8], out: &mut Output) -> Result<(), &'static str> {
    let picture = parse(data)?;
    let mut tables = Vec::with_capacity(128);
    for id in picture.used {
        let (_, table) =
            picture.tables.iter().rev().find(|(n, _)| *n == id).ok_or("it lacks a quantization table")?;
        tables.extend_from_slice(table);
    }
    let restart = picture.restart_interval > 0;
    let kind = picture.kind + if restart { 64 } else { 0 };
    let length = picture.scan.len();
    if length >= 1 << 24 {
        return Err("it is longer than 16 MiB");
    }
    let mut at = 0;
    while at < length {
        let offset = (at as u32).to_be_bytes();
        out.begin();
        out.writer.head(&[0, offset[1], offset[2], offset[3], kind, 255, picture.width, picture.height]);
        let mut used = 8;
        if restart {
            let [high, low] = picture.restart_interval.to_be_bytes();
            // F, L and the count say that the scan may be cut anywhere.
            out.writer.head(&[high, low, 0xff, 0xff]);
            used += 4;
        }
        if at == 0 {
            out.writer.head(&[0, 0, 0, 128]);
            out.writer.head(&tables);
            used += 132;
        }
        let end = (at + out.max.saturating_sub(used).max(1)).min(length);
        out.writer.body(picture.scan.start + at..picture.scan.start + end);
        out.writer.end(end == length);
        at = end;
    }
    Ok(())
}

/// Takes the picture's headers apart (ITU-T T.81 annex B).
fn parse(data: &[u8]) -> Result<Picture, &'static str> {
    const SHORT: &str = "it ends within its headers";
    if data.get(..2) != Some(&[0xff, 0xd8]) {
        return Err("it does not begin like a JPEG picture");
    }
    let mut picture = Picture::default();
    let mut has_frame = false;
    let mut at = 2;
    loop {
        let (&[0xff, marker], rest) = data.get(at..).and_then(<[u8]>::split_first_chunk::<2>).ok_or(SHORT)?
        else {
            return Err("its headers do not follow each other");
        };
        if marker == 0xff {
            at += 1;
            continue;
        }
        let length = rest.first_chunk::<2>().map(|l| usize::from(u16::from_be_bytes(*l))).ok_or(SHORT)?;
        let body = rest.get(2..length.max(2)).ok_or(SHORT)?;
        at += 2 + length.max(2);
        match marker {
            0xdb => tables(body, &mut picture)?,
            0xc0 => {
                frame(body, &mut picture)?;
                has_frame = true;
            }
            0xc1..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcf => {
                return Err("it is no baseline JPEG (RFC 2435 section 3.1.3)");
            }
            0xdd => {
                picture.restart_interval = body.first_chunk().map(|i| u16::from_be_bytes(*i)).ok_or(SHORT)?
            }
            0xda => break,
            _ => {}
        }
    }
    if !has_frame {
        return Err("it has no frame header");
    }
    // With its end marker, as other senders do: not every receiver puts one there where it is missing.
    picture.scan = at..data.len();
    Ok(picture)
}

fn tables(mut body: &[u8], picture: &mut Picture) -> Result<(), &'static str> {
    while let Some((head, rest)) = body.split_first() {
        if head >> 4 != 0 {
            return Err("its quantization tables have 16 bits");
        }
        let (table, rest) = rest.split_first_chunk::<64>().ok_or("a quantization table ends early")?;
        picture.tables.push((head & 15, table.to_vec()));
        body = rest;
    }
    Ok(())
}

fn frame(body: &[u8], picture: &mut Picture) -> Result<(), &'static str> {
    let Some((head, components)) = body.split_first_chunk::<6>() else {
        return Err("its frame header ends early");
    };
    let (height, width) = (u16::from_be_bytes([head[1], head[2]]), u16::from_be_bytes([head[3], head[4]]));
    if !(1..=2040).contains(&width) || !(1..=2040).contains(&height) {
        return Err("it is larger than 2040x2040 pixels, which RTP cannot state (RFC 2435 section 3.1.5)");
    }
    if head[5] != 3 || components.len() < 9 {
        return Err("it does not have three components");
    }
    let sampling = [components[1], components[4], components[7]];
    picture.kind = match sampling {
        [0x21, 0x11, 0x11] => 0,
        [0x22, 0x11, 0x11] => 1,
        _ => return Err("its chroma is neither 4:2:0 nor 4:2:2 (RFC 2435 section 4.1)"),
    };
    if components[5] != components[8] {
        return Err("its chroma components use different quantization tables");
    }
    picture.used = [components[2], components[5]];
    picture.width = width.div_ceil(8) as u8;
    picture.height = height.div_ceil(8) as u8;
    Ok(())
}
