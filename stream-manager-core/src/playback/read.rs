//! The bytes of a plan, from anywhere to anywhere.

use super::plan::Plan;
use crate::fmp4::move_fragments;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// So much is read at once, as far as parts allow it.
pub(super) const CHUNK_BYTES: u64 = 512 << 10;

/// Reads a plan. Blocks; each call reads a few parts.
#[derive(Clone, Debug)]
pub struct PlanReader {
    plan: Arc<Plan>,
    at: u64,
    until: u64,
    /// The file that is being read: its place in the plan, and the next part with its offset in the file's share.
    open: Option<(usize, Arc<File>, usize, u64)>,
}

impl PlanReader {
    /// Reads these bytes of a plan; what lies beyond its end is not there.
    pub fn new(plan: Arc<Plan>, range: Range<u64>) -> Self {
        let until = range.end.min(plan.length_bytes());
        Self { plan, at: range.start, until, open: None }
    }

    /// How many bytes are left.
    pub fn left(&self) -> u64 {
        self.until.saturating_sub(self.at)
    }

    /// Wall clock less time of what is made, in nanoseconds, of what was read last.
    pub(super) fn clock_nanos(&self) -> Option<i64> {
        let number = self.open.as_ref().map(|(number, ..)| *number);
        let file = match number {
            Some(number) => self.plan.files.get(number),
            // The head, or the last part.
            None => self.plan.files.last(),
        };
        file.map(|file| file.clock_nanos)
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// If a file is gone, or damaged.
    pub fn read(&mut self) -> io::Result<Option<Bytes>> {
        if self.at >= self.until {
            return Ok(None);
        }
        let head = self.plan.head.len() as u64;
        let media: u64 = self.plan.files.last().map_or(0, |f| f.offset + f.bytes);
        let mut data = if self.at < head {
            self.plan.head.slice(index(self.at)?..)
        } else if self.at < head + media {
            self.parts(self.at - head)?
        } else {
            // It is of the last file.
            self.open = None;
            let tail = self.plan.tail.clone().unwrap_or_default();
            tail.slice(index(self.at - head - media)?..)
        };
        data.truncate(index(self.left())?);
        if data.is_empty() {
            return Err(io::Error::other("a plan is shorter than it says"));
        }
        self.at += data.len() as u64;
        Ok(Some(data))
    }

    /// Parts from this byte behind the head on; those of one file at most.
    fn parts(&mut self, at: u64) -> io::Result<Bytes> {
        let plan = self.plan.clone();
        let number = plan.files.partition_point(|f| f.offset + f.bytes <= at);
        let file = plan.files.get(number).ok_or_else(|| io::Error::other("no such part"))?;
        let wanted = at - file.offset;
        let (handle, mut part, mut offset) = match self.open.take() {
            Some((open, handle, part, offset)) if open == number && offset <= wanted => {
                (handle, part, offset)
            }
            Some((open, handle, ..)) if open == number => (handle, 0, 0),
            _ => (Arc::new(File::open(&file.path)?), 0, 0),
        };
        while let Some(length) = file.parts.get(part)
            && offset + u64::from(*length) <= wanted
        {
            offset += u64::from(*length);
            part += 1;
        }
        let first = part;
        let from = offset;
        while let Some(length) = file.parts.get(part)
            && (part == first || offset + u64::from(*length) - from <= CHUNK_BYTES)
        {
            offset += u64::from(*length);
            part += 1;
        }
        let mut data = vec![0; index(offset - from)?];
        handle.read_exact_at(&mut data, file.from + from)?;
        let mut sequence = file.sequence.wrapping_add(u32::try_from(first).unwrap_or(0));
        move_fragments(&mut data, &file.shifts, &mut sequence)
            .ok_or_else(|| io::Error::other(format!("{} is damaged", file.path.display())))?;
        self.open = Some((number, handle, part, offset));
        Ok(Bytes::from(data).slice(index(wanted - from)?..))
    }
}

fn index(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(io::Error::other)
}
