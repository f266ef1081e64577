//! Reads the structure of a fragmented MP4 file: what its tracks are, where its parts lie, and where the
//! last whole one ends.
//!
//! Only headers are read, a few hundred bytes a part, so an hour of video takes milliseconds. Whatever is in
//! the file, this returns: a foreign file is an error that says what it is, a truncated or damaged tail ends
//! the list of parts.

use super::identity::SegmentIdentity;
use super::{DurationPatch, SYNC};
use crate::frame::WallTime;
use mp4_atom::{self as mp4, Atom, ReadFrom};
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

/// Larger boxes in front of the payload are taken as damage.
const MAX_HEADER_BYTES: u64 = 32 << 20;
/// Boxes in the file that are looked at, at most.
const MAX_BOXES: usize = 4_000_000;
/// A page that a file system may have left without its data after a power cut.
const PAGE: usize = 4096;

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// What the recorder has said about it.
    pub identity: Option<SegmentIdentity>,
    /// Its tracks.
    pub tracks: Vec<ScannedTrack>,
    /// Its whole parts, in order.
    pub parts: Vec<ScannedPart>,
    /// Where the last whole part ends; what follows is damaged or unfinished.
    pub whole_bytes: u64,
    /// The file's size.
    pub file_bytes: u64,
    /// Where its duration belongs, if that has not been written.
    pub duration_patch: Option<DurationPatch>,
}

/// A track of a scanned file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannedTrack {
    /// `track_ID`.
    pub id: u32,
    /// Ticks per second.
    pub timescale: u32,
    /// Whether its handler is `vide`.
    pub video: bool,
    /// Whether its samples are NAL units with a length of four bytes in front (`avc1`, `hvc1` and the like).
    pub nal_units: bool,
}

/// A whole part of a scanned file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannedPart {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, headers included.
    pub len_bytes: u64,
    /// Decoding time of the main track's first frame, from the start of the file.
    pub start: Duration,
    /// Length of the main track in it.
    pub duration: Duration,
    /// Wall clock of its first frame (`prft`).
    pub wall_clock: Option<WallTime>,
    /// Whether the main track begins with a keyframe.
    pub keyframe: bool,
    /// Number of frames, of all tracks.
    pub frames: u64,
}

/// Why a file is no fragmented MP4 that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// It does not begin as MP4 does.
    #[error("is no MP4 file: it does not begin with an ftyp box")]
    NotMp4,
    /// There is no whole `moov` box in it.
    #[error("ends before its moov box does")]
    NoMoov,
    /// A plain MP4 file.
    #[error("is MP4, but not fragmented")]
    NotFragmented,
    /// Its `moov` box is damaged.
    #[error("has a damaged moov box: {0}")]
    BadMoov(&'static str),
}

impl Scan {
    /// Whether nothing follows the last whole part.
    pub fn is_whole(&self) -> bool {
        self.whole_bytes == self.file_bytes
    }

    /// Length of the main track over all parts.
    pub fn duration(&self) -> Duration {
        self.parts.last().map_or(Duration::ZERO, |p| p.start + p.duration)
    }

    /// Frames of all tracks in all parts.
    pub fn frames(&self) -> u64 {
        self.parts.iter().map(|p| p.frames).sum()
    }

    /// Wall clock of the first frame.
    pub fn start(&self) -> Option<WallTime> {
        self.parts.first().and_then(|p| p.wall_clock)
    }

    /// Takes the last part off, because its payload turned out to be damaged.
    pub fn drop_last_part(&mut self) {
        if let Some(part) = self.parts.pop() {
            self.whole_bytes = part.offset;
        }
    }
}

/// One box's header, as it lies in the file.
#[derive(Clone, Copy)]
struct Header {
    kind: [u8; 4],
    /// Header included.
    size: u64,
    header_bytes: u64,
}

/// Reads a box's header at `at`; `None` where the file ends or is damaged.
fn header_at(file: &mut (impl Read + Seek), at: u64, end: u64) -> io::Result<Option<Header>> {
    let left = end.saturating_sub(at);
    if left < 8 {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at))?;
    let mut head = [0u8; 16];
    let known = usize::try_from(left.min(16)).unwrap_or(16);
    file.read_exact(&mut head[..known])?;
    let kind = [head[4], head[5], head[6], head[7]];
    let short = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
    let (size, header_bytes) = match short {
        1 if known == 16 => {
            let mut large = [0u8; 8];
            large.copy_from_slice(&head[8..]);
            (u64::from_be_bytes(large), 16)
        }
        // Zero would mean "up to the end of the file", which this library never writes; a hole in the file
        // reads as that.
        0 | 1 => return Ok(None),
        size => (size, 8),
    };
    let plausible = size >= header_bytes && size <= left && kind.iter().all(|c| (0x20..0x7f).contains(c));
    Ok(plausible.then_some(Header { kind, size, header_bytes }))
}

fn body_at(file: &mut (impl Read + Seek), at: u64, header: Header) -> io::Result<Option<Vec<u8>>> {
    let length = header.size - header.header_bytes;
    if length > MAX_HEADER_BYTES {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at + header.header_bytes))?;
    let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact(&mut body)?;
    Ok(Some(body))
}

/// Reads a file's structure.
///
/// # Errors
/// If it is no fragmented MP4. A damaged tail is no error.
pub fn scan(file: &mut (impl Read + Seek)) -> Result<Scan, ScanError> {
    let end = file.seek(SeekFrom::End(0))?;
    if end == 0 {
        return Err(ScanError::Empty);
    }
    let mut scan = Scan::default();
    scan_more(file, &mut scan)?;
    if scan.tracks.is_empty() {
        return Err(if header_at(file, 0, end)?.is_some() { ScanError::NoMoov } else { ScanError::NotMp4 });
    }
    Ok(scan)
}

/// Reads what has been added to a file since it was scanned.
///
/// # Errors
/// If it is no fragmented MP4.
pub fn scan_more(file: &mut (impl Read + Seek), scan: &mut Scan) -> Result<(), ScanError> {
    let end = file.seek(SeekFrom::End(0))?;
    scan.file_bytes = end;
    let mut at = scan.whole_bytes;
    let mut part: Option<Building> = None;
    for number in 0..MAX_BOXES {
        let Some(header) = header_at(file, at, end)? else { break };
        if number == 0 && at == 0 && header.kind != *b"ftyp" {
            return Err(ScanError::NotMp4);
        }
        match &header.kind {
            b"moov" if scan.tracks.is_empty() => {
                let body = body_at(file, at, header)?.ok_or(ScanError::BadMoov("it is too large"))?;
                (scan.tracks, scan.duration_patch) = read_moov(&body, at + header.header_bytes)?;
                scan.whole_bytes = at + header.size;
            }
            b"uuid" if part.is_none() => {
                if let Some(body) = body_at(file, at, header)? {
                    scan.identity = SegmentIdentity::from_body(&body).or_else(|| scan.identity.take());
                }
                if scan.parts.is_empty() && !scan.tracks.is_empty() {
                    scan.whole_bytes = at + header.size;
                }
            }
            b"prft" | b"styp" | b"emsg" if !scan.tracks.is_empty() => {
                let building = part.get_or_insert_with(|| Building::at(at));
                if header.kind == *b"prft"
                    && let Some(body) = body_at(file, at, header)?
                {
                    building.prft = decode::<mp4::Prft>(&body);
                }
            }
            b"moof" if !scan.tracks.is_empty() => {
                let Some(body) = body_at(file, at, header)? else { break };
                let Some(moof) = decode::<mp4::Moof>(&body) else { break };
                part.get_or_insert_with(|| Building::at(at)).moof = Some(moof);
            }
            b"mdat" if part.as_ref().is_some_and(|p| p.moof.is_some()) => {
                let finished = part.take().and_then(|p| p.finish(at + header.size, header, scan));
                let Some(finished) = finished else { break };
                scan.parts.push(finished);
                scan.whole_bytes = at + header.size;
            }
            _ => {}
        }
        at += header.size;
    }
    Ok(())
}

pub(super) fn decode<T: Atom>(body: &[u8]) -> Option<T> {
    let mut framed = Vec::with_capacity(body.len() + 8);
    framed.extend_from_slice(&u32::try_from(body.len() + 8).ok()?.to_be_bytes());
    framed.extend_from_slice(&T::KIND.as_ref()[..]);
    framed.extend_from_slice(body);
    T::read_from(&mut framed.as_slice()).ok()
}

/// A part whose `mdat` has not been reached.
struct Building {
    offset: u64,
    prft: Option<mp4::Prft>,
    moof: Option<mp4::Moof>,
}

impl Building {
    fn at(offset: u64) -> Self {
        Self { offset, prft: None, moof: None }
    }

    fn finish(self, end: u64, mdat: Header, scan: &Scan) -> Option<ScannedPart> {
        let moof = self.moof?;
        let named = self.prft.as_ref().map(|p| p.reference_track_id);
        let main = named
            .and_then(|id| scan.tracks.iter().find(|t| t.id == id))
            .or_else(|| scan.tracks.iter().find(|t| t.video))
            .or(scan.tracks.first())?;
        let (mut frames, mut payload) = (0u64, 0u64);
        let (mut start, mut ticks, mut keyframe) = (None, 0u64, false);
        for traf in &moof.traf {
            let is_main = traf.tfhd.track_id == main.id;
            if is_main {
                start = traf.tfdt.as_ref().map(|t| t.base_media_decode_time);
            }
            let default_duration = traf.tfhd.default_sample_duration.unwrap_or(0);
            let default_size = u64::from(traf.tfhd.default_sample_size.unwrap_or(0));
            for trun in &traf.trun {
                frames += trun.samples.len() as u64;
                if let mp4::TrunSamples::Inherited { count, .. } = trun.samples {
                    // Thousands of millions of samples are said in four bytes; they are not walked.
                    payload = payload.saturating_add(default_size.saturating_mul(count.into()));
                    if is_main {
                        ticks =
                            ticks.saturating_add(u64::from(default_duration).saturating_mul(count.into()));
                    }
                    continue;
                }
                for (index, sample) in trun.samples.iter().enumerate() {
                    payload = payload.saturating_add(sample.size.map_or(default_size, u64::from));
                    if is_main {
                        let flags = sample.flags.or(traf.tfhd.default_sample_flags).unwrap_or(0);
                        keyframe |= index == 0 && ticks == 0 && (!main.video || flags == SYNC);
                        ticks = ticks.saturating_add(sample.duration.unwrap_or(default_duration).into());
                    }
                }
            }
        }
        if payload > mdat.size - mdat.header_bytes {
            return None;
        }
        let earlier = scan.parts.last().map_or(Duration::ZERO, |p| p.start + p.duration);
        Some(ScannedPart {
            offset: self.offset,
            len_bytes: end - self.offset,
            start: start.map_or(earlier, |t| duration_of(t, main.timescale)),
            duration: duration_of(ticks, main.timescale),
            wall_clock: self.prft.map(|p| WallTime::from_ntp(p.ntp_timestamp)),
            keyframe,
            frames,
        })
    }
}

fn duration_of(ticks: u64, timescale: u32) -> Duration {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(timescale.max(1));
    // More than this is no recording.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).min(i64::MAX as u64 / 4))
}

/// The boxes directly inside of `data`: kind, body, and the body's offset.
pub(super) fn children(data: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8], usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = data.get(at..at + 8)?;
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = [head[4], head[5], head[6], head[7]];
        let body_at = at + 8;
        let body = data.get(body_at..at.checked_add(size)?)?;
        at += size.max(8);
        Some((kind, body, body_at))
    })
}

pub(super) fn child<'a>(data: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(data).find(|(k, ..)| k == kind).map(|(_, body, _)| body)
}

fn be_u32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

pub(super) fn read_moov(
    moov: &[u8],
    offset: u64,
) -> Result<(Vec<ScannedTrack>, Option<DurationPatch>), ScanError> {
    let mut tracks = Vec::new();
    let mut patch = None;
    let mut fragmented = false;
    for (kind, body, at) in children(moov) {
        match &kind {
            b"trak" => tracks.push(read_trak(body).ok_or(ScanError::BadMoov("a track is incomplete"))?),
            b"mvex" => {
                fragmented = true;
                // The place that the fragmenter has left for the duration: see `DurationPatch`.
                patch = children(body)
                    .find(|(kind, free, _)| kind == b"free" && free.len() == 12)
                    .map(|(_, _, free_at)| DurationPatch::at(offset + (at + free_at - 4) as u64));
            }
            _ => {}
        }
    }
    match (fragmented, tracks.is_empty()) {
        (false, _) => Err(ScanError::NotFragmented),
        (true, true) => Err(ScanError::BadMoov("it has no tracks")),
        (true, false) => Ok((tracks, patch)),
    }
}

fn read_trak(trak: &[u8]) -> Option<ScannedTrack> {
    let tkhd = child(trak, b"tkhd")?;
    // Version 1 has two times of eight bytes in front of the id, version 0 two of four.
    let id = be_u32(tkhd, if tkhd.first() == Some(&1) { 20 } else { 12 })?;
    let mdia = child(trak, b"mdia")?;
    let mdhd = child(mdia, b"mdhd")?;
    let timescale = be_u32(mdhd, if mdhd.first() == Some(&1) { 20 } else { 12 })?;
    let video = child(mdia, b"hdlr")?.get(8..12)? == b"vide";
    let stsd = child(mdia, b"minf").and_then(|b| child(b, b"stbl")).and_then(|b| child(b, b"stsd"));
    let entry = stsd.and_then(|b| b.get(12..16)).unwrap_or_default();
    let nal_units = matches!(entry, b"avc1" | b"avc3" | b"hvc1" | b"hev1");
    Some(ScannedTrack { id, timescale, video, nal_units })
}

/// Whether a part's payload looks as it was written. After a power cut a file system may give back zeros
/// where data was not yet on the disk; H.264 and H.265 never hold so many of them (their emulation prevention
/// breaks up every run of three). Other payloads are taken as they are.
///
/// # Errors
/// If the file cannot be read.
pub fn payload_is_plausible(
    file: &mut (impl Read + Seek),
    scan: &Scan,
    part: &ScannedPart,
) -> io::Result<bool> {
    if !scan.tracks.iter().all(|t| t.nal_units || !t.video) || !scan.tracks.iter().any(|t| t.nal_units) {
        return Ok(true);
    }
    file.seek(SeekFrom::Start(part.offset))?;
    let mut left = part.len_bytes;
    let mut offset = part.offset;
    let mut page = [0u8; PAGE];
    while left > 0 {
        // Looked at by the pages of the file, which is what goes missing.
        let until_border = PAGE as u64 - offset % PAGE as u64;
        let length = usize::try_from(left.min(until_border)).unwrap_or(PAGE);
        file.read_exact(&mut page[..length])?;
        if length >= 512 && page[..length].iter().all(|b| *b == 0) {
            return Ok(false);
        }
        left -= length as u64;
        offset += length as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
