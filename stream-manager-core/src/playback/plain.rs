//! A plan as plain MP4: all of its samples are known before the first byte goes out, so it too has a length, and can be had in pieces.

use super::PlaybackError;
use super::archive::{USUAL_MOOF_BYTES, file_error, read_at};
use super::plan::Plan;
use super::read::CHUNK_BYTES;
use crate::fmp4::{FileHead, PlainMovie};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Samples of one file at most: 12 hours of 25 pictures a second with AAC, and 40 MB of tables.
const MAX_SAMPLES: usize = 3_300_000;
/// A `moof` that is larger is none of ours.
const MAX_MOOF_BYTES: u64 = 32 << 20;

/// Where a piece of the payload is.
#[derive(Clone, Debug)]
struct Piece {
    /// Where it begins behind the head.
    at: u64,
    /// The file, by its number in the plan; the plan's last part, which is in memory, without one.
    file: Option<u32>,
    offset: u64,
    len_bytes: u64,
}

/// A plan as plain MP4.
#[derive(Clone, Debug)]
pub struct PlainPlan {
    plan: Arc<Plan>,
    head: Bytes,
    pieces: Vec<Piece>,
    length_bytes: u64,
    etag: String,
}

/// A part of a file up to its payload.
fn header(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let beginning = read_at(file, offset, length.min(USUAL_MOOF_BYTES))?;
    // The boxes' sizes say how far it goes, whether or not they are all there.
    let mut end = 0u64;
    loop {
        let at = usize::try_from(end).map_err(io::Error::other)?;
        let Some(head) = beginning.get(at..at + 8) else { break };
        if head[4..] == *b"mdat" {
            end += 8;
            break;
        }
        end += u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]])).max(8);
    }
    let end = if end > beginning.len() as u64 { end + 8 } else { end };
    if end > length.min(MAX_MOOF_BYTES) {
        return Err(io::Error::other("a part is not what it should be"));
    }
    if end <= beginning.len() as u64 { Ok(beginning) } else { read_at(file, offset, end) }
}

impl PlainPlan {
    /// Reads what all parts of a plan say of their samples; a few kilobytes of each. Blocks.
    ///
    /// # Errors
    /// If a file cannot be read, or there is more in it than one table can well hold.
    pub fn new(plan: Arc<Plan>) -> Result<Self, PlaybackError> {
        let damaged = |path: &PathBuf| file_error(path, "is damaged");
        let recording = PathBuf::from("a recording");
        let head = FileHead::parse(&plan.head).ok_or_else(|| damaged(&recording))?;
        let mut movie = PlainMovie::new(&head);
        let mut pieces = Vec::new();
        for (number, planned) in (0..).zip(&plan.files) {
            let path = &planned.path;
            let file = File::open(path).map_err(|e| file_error(path, e))?;
            let mut offset = planned.from;
            for length in &planned.parts {
                let length = u64::from(*length);
                let header = header(&file, offset, length).map_err(|e| file_error(path, e))?;
                let at = movie.payload_bytes();
                let payload = movie.add(&header, &planned.shifts).ok_or_else(|| damaged(path))?;
                if payload.offset + payload.len_bytes > length {
                    return Err(damaged(path));
                }
                let (offset_of, len_bytes) = (offset + payload.offset, payload.len_bytes);
                pieces.push(Piece { at, file: Some(number), offset: offset_of, len_bytes });
                offset += length;
                if movie.samples() > MAX_SAMPLES {
                    return Err(PlaybackError::TooLong);
                }
            }
        }
        if let Some(tail) = &plan.tail {
            let at = movie.payload_bytes();
            // Its times are moved already.
            let still: Vec<_> =
                head.tracks.iter().map(|t| crate::fmp4::Shift { track: t.id, ticks: 0 }).collect();
            let payload = movie.add(tail, &still).ok_or_else(|| damaged(&recording))?;
            pieces.push(Piece { at, file: None, offset: payload.offset, len_bytes: payload.len_bytes });
        }
        let payload_bytes = movie.payload_bytes();
        let head = movie.finish(&head, plan.start().to_mp4_secs());
        let head: Bytes = head.ok_or_else(|| damaged(&recording))?.into();
        let mut hash = Sha256::new();
        hash.update(b"plain");
        hash.update(plan.etag());
        let etag = hash.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect();
        Ok(Self { length_bytes: head.len() as u64 + payload_bytes, plan, head, pieces, etag })
    }

    /// How many bytes it is.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// What tells it from others: the same for the same bytes.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// What it is made from.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
}

/// Reads a plan as plain MP4. Blocks.
#[derive(Clone, Debug)]
pub struct PlainReader {
    plain: Arc<PlainPlan>,
    at: u64,
    until: u64,
    open: Option<(u32, Arc<File>)>,
}

impl PlainReader {
    /// Reads these bytes of it; what lies beyond its end is not there.
    pub fn new(plain: Arc<PlainPlan>, range: Range<u64>) -> Self {
        let until = range.end.min(plain.length_bytes);
        Self { plain, at: range.start, until, open: None }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// If a file is gone, or shorter than it was.
    pub fn read(&mut self) -> io::Result<Option<Bytes>> {
        if self.at >= self.until {
            return Ok(None);
        }
        let (plain, left) = (self.plain.clone(), self.until - self.at);
        let head = plain.head.len() as u64;
        let mut data = if self.at < head {
            plain.head.slice(usize::try_from(self.at).map_err(io::Error::other)?..)
        } else {
            self.pieces(self.at - head, left)?
        };
        data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        if data.is_empty() {
            return Err(io::Error::other("a plan is shorter than it says"));
        }
        self.at += data.len() as u64;
        Ok(Some(data))
    }

    /// Some of the payload from here on: a few pieces, or a part of a large one.
    fn pieces(&mut self, at: u64, left: u64) -> io::Result<Bytes> {
        let plain = self.plain.clone();
        let wanted = left.min(CHUNK_BYTES);
        let mut data = Vec::with_capacity(usize::try_from(wanted).map_err(io::Error::other)?);
        let first = plain.pieces.partition_point(|p| p.at + p.len_bytes <= at);
        for piece in &plain.pieces[first..] {
            let have = data.len() as u64;
            if have >= wanted {
                break;
            }
            let from = (at + have).saturating_sub(piece.at);
            let length = (piece.len_bytes - from).min(wanted - have);
            let (begin, length) = (data.len(), usize::try_from(length).map_err(io::Error::other)?);
            match piece.file {
                Some(number) => {
                    let file = self.file(number)?;
                    data.resize(begin + length, 0);
                    file.read_exact_at(&mut data[begin..], piece.offset + from)?;
                }
                None => {
                    let tail = plain.plan.tail.as_ref();
                    let from = usize::try_from(piece.offset + from).map_err(io::Error::other)?;
                    let part = tail.and_then(|tail| tail.get(from..from + length));
                    data.extend_from_slice(part.ok_or_else(|| io::Error::other("no such part"))?);
                }
            }
        }
        Ok(data.into())
    }

    fn file(&mut self, number: u32) -> io::Result<Arc<File>> {
        if let Some((_, file)) = self.open.as_ref().filter(|(open, _)| *open == number) {
            return Ok(file.clone());
        }
        let planned = usize::try_from(number).ok().and_then(|n| self.plain.plan.files.get(n));
        let planned = planned.ok_or_else(|| io::Error::other("no such file"))?;
        let file = Arc::new(File::open(&planned.path)?);
        self.open = Some((number, file.clone()));
        Ok(file)
    }
}
