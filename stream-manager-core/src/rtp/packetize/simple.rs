//! Sound and timed metadata: payload formats with little or no header.

use super::Output;
use crate::frame::{AudioCodec, AudioParameters};

/// More in one packet would only delay it.
const MAX_SAMPLES_MILLIS: usize = 40;

pub(super) fn audio(
    codec: AudioCodec,
    parameters: &AudioParameters,
    length: usize,
    out: &mut Output,
) -> Result<(), &'static str> {
    match codec {
        AudioCodec::Pcma | AudioCodec::Pcmu => samples(1, parameters, length, out),
        AudioCodec::L16 => samples(2, parameters, length, out),
        AudioCodec::Aac => aac(length, out)?,
        AudioCodec::Opus => {
            if length > 65_000 {
                return Err("it is too large for a packet, and Opus is not split (RFC 7587 section 4.2)");
            }
            whole(length, out);
        }
        AudioCodec::Mp3 => mp3(length, out)?,
        AudioCodec::Ac3 => ac3(length, out)?,
    }
    Ok(())
}

fn whole(length: usize, out: &mut Output) {
    if length > 0 {
        out.begin();
        out.writer.body(0..length);
        out.writer.end(true);
    }
}

/// Messages: split, with the marker on the last packet (RFC 6597 section 4.2).
pub(super) fn split(length: usize, out: &mut Output) {
    let mut at = 0;
    while at < length {
        let end = (at + out.max).min(length);
        out.begin();
        out.writer.body(at..end);
        out.writer.end(end == length);
        at = end;
    }
}

/// Plain samples (RFC 3551): packets of whole samples, each with its own time.
fn samples(sample_bytes: usize, parameters: &AudioParameters, length: usize, out: &mut Output) {
    let block = sample_bytes * usize::from(parameters.channels.max(1));
    let by_time = parameters.sample_rate as usize * MAX_SAMPLES_MILLIS / 1000;
    let step = (out.max / block).min(by_time).max(1) * block;
    let mut at = 0;
    while at + block <= length {
        let end = (at + step).min(length / block * block);
        out.begin_after((at / block) as u32);
        out.writer.body(at..end);
        out.writer.end(false);
        at = end;
    }
}

/// RFC 3640 section 3.3.6, AAC-hbr: one access unit or one fragment of one in a packet.
fn aac(length: usize, out: &mut Output) -> Result<(), &'static str> {
    const HEADERS: usize = 4;
    if length >= 1 << 13 {
        return Err("it is longer than 8191 bytes, which AAC-hbr cannot state (RFC 3640 section 3.3.6)");
    }
    let [high, low] = ((length as u16) << 3).to_be_bytes();
    let step = out.max - HEADERS;
    let mut at = 0;
    while at < length {
        let end = (at + step).min(length);
        out.begin();
        // The headers' length in bits, then size (13) and index (3).
        out.writer.head(&[0, 16, high, low]);
        out.writer.body(at..end);
        out.writer.end(end == length);
        at = end;
    }
    Ok(())
}

/// RFC 2250 section 3.5.
fn mp3(length: usize, out: &mut Output) -> Result<(), &'static str> {
    if length > usize::from(u16::MAX) {
        return Err("it is longer than 65535 bytes");
    }
    let step = out.max - 4;
    let mut at = 0;
    while at < length {
        let end = (at + step).min(length);
        let [high, low] = (at as u16).to_be_bytes();
        out.begin();
        out.writer.head(&[0, 0, high, low]);
        out.writer.body(at..end);
        out.writer.end(false);
        at = end;
    }
    Ok(())
}

/// RFC 4184 section 4.1: frame type and number of fragments.
fn ac3(length: usize, out: &mut Output) -> Result<(), &'static str> {
    let step = out.max - 2;
    if length <= step {
        if length > 0 {
            out.begin();
            out.writer.head(&[0, 1]);
            out.writer.body(0..length);
            out.writer.end(true);
        }
        return Ok(());
    }
    let count = u8::try_from(length.div_ceil(step)).map_err(|_| "it needs more than 255 packets")?;
    let mut at = 0;
    while at < length {
        let end = (at + step).min(length);
        // The first five eighths of a frame can be decoded alone.
        let kind = match at {
            0 if end * 8 >= length * 5 => 1,
            0 => 2,
            _ => 3,
        };
        out.begin();
        out.writer.head(&[kind, count]);
        out.writer.body(at..end);
        out.writer.end(end == length);
        at = end;
    }
    Ok(())
}
