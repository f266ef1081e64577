//! From the past into live: what is recorded behind a plan, as it comes.

use super::PlaybackError;
use super::archive::{Archive, entries, file_error, held};
use super::plan::{Last, base_of, behind, clock_of, main_of, moved, shifts};
use super::read::CHUNK_BYTES;
use crate::fmp4::{Scan, move_fragments, scan_more};
use crate::frame::WallTime;
use crate::storage::index::{SegmentRow, TimeRange};
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether there is more.
const LOOK: Duration = Duration::from_millis(200);
/// Whether more will come.
type GoesOn = Box<dyn Fn() -> bool + Send + Sync>;

/// Follows a recording.
pub struct Follower {
    goes_on: GoesOn,
    archive: Archive,
    stream: String,
    last: Last,
    /// The file that `last` speaks of, as far as it has been read.
    open: Option<Open>,
    /// Wall clock less time of what is made, in nanoseconds, once another file than the plan's last has been begun.
    clock_nanos: Option<i64>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: Arc<File>,
    scan: Scan,
}

impl Open {
    fn new(path: &Path) -> Result<Self, PlaybackError> {
        let file = File::open(path).map_err(|e| file_error(path, e))?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), scan: Scan::default() })
    }

    /// Parts behind this offset that are there by now, at most some hundred kilobytes. Blocks.
    fn more(&mut self, last: &mut Last) -> Result<Option<Bytes>, PlaybackError> {
        let path = self.path.clone();
        let failed = |problem: &dyn std::fmt::Display| file_error(&path, problem);
        scan_more(&mut &*self.file, &mut self.scan).map_err(|e| failed(&e))?;
        let parts = entries(&self.scan);
        let first = parts.partition_point(|p| p.offset < last.offset);
        let mut length = 0;
        for part in &parts[first..] {
            if length > 0 && length + part.len_bytes > CHUNK_BYTES {
                break;
            }
            length += part.len_bytes;
        }
        if length == 0 {
            return Ok(None);
        }
        let mut data = vec![0; usize::try_from(length).map_err(|e| failed(&e))?];
        self.file.read_exact_at(&mut data, last.offset).map_err(|e| failed(&e))?;
        move_fragments(&mut data, &last.shifts, &mut last.sequence).ok_or_else(|| failed(&"is damaged"))?;
        last.offset += length;
        Ok(Some(data.into()))
    }

    /// Where what was given last ends: there begins what comes behind a gap.
    fn ends(&self, last: &Last) -> Result<Vec<(u32, u64)>, PlaybackError> {
        let given = self.scan.parts.iter().rfind(|part| part.offset < last.offset);
        let Some(part) = given else { return Ok(Vec::new()) };
        let held = held(&self.file, part.offset, part.len_bytes).map_err(|e| file_error(&self.path, e))?;
        Ok(moved(&held.unwrap_or_default(), &last.shifts))
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower")
            .field("stream", &self.stream)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl Follower {
    pub(super) fn new(archive: Archive, stream: &str, last: Last, goes_on: GoesOn) -> Self {
        Self { goes_on, archive, stream: stream.to_owned(), last, open: None, clock_nanos: None }
    }

    /// Wall clock less time of what is made, in nanoseconds; none as long as it is the plan's last file that is read.
    pub(super) fn clock_nanos(&self) -> Option<i64> {
        self.clock_nanos
    }

    /// The next parts, once there are some. `None` when nothing is recorded any more, or where it is encoded differently from there on. Waits as long as nothing is recorded;
    /// may be cancelled.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PlaybackError> {
        loop {
            // Asked before the file is read: what is finished then is read to its end.
            let goes_on = (self.goes_on)();
            let Some(row) = self.archive.index().segment(self.last.id).await? else {
                // Deleted meanwhile.
                return Ok(None);
            };
            if let Some(data) = self.read(&row).await? {
                return Ok(Some(data));
            }
            if row.complete {
                match self.following().await? {
                    Some(next) => {
                        if !self.begin(next).await? {
                            return Ok(None);
                        }
                        continue;
                    }
                    None if !goes_on => return Ok(None),
                    None => tokio::time::sleep(LOOK).await,
                }
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn read(&mut self, row: &SegmentRow) -> Result<Option<Bytes>, PlaybackError> {
        let path = row.path.clone();
        let (open, mut last) = (self.open.take(), self.last.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let mut open = match open {
                Some(open) => open,
                None => Open::new(&path)?,
            };
            let data = open.more(&mut last)?;
            Ok::<_, PlaybackError>((open, last, data))
        });
        let (open, last, data) = reading.await.map_err(|e| file_error(&row.path, e))??;
        (self.open, self.last) = (Some(open), last);
        Ok(data)
    }

    /// The segment behind the one that is being read, once it has a part.
    async fn following(&self) -> Result<Option<SegmentRow>, PlaybackError> {
        let range = TimeRange { start: WallTime::from_unix_nanos(i64::MIN), end: TimeRange::ALL.end };
        let after = Some((self.last.start, self.last.id));
        let rows = self.archive.index().segments(&self.stream, range, after, 1).await?;
        Ok(rows.into_iter().next())
    }

    /// Goes over to another file. False if that cannot be.
    async fn begin(&mut self, row: SegmentRow) -> Result<bool, PlaybackError> {
        if row.format != "fmp4" {
            return Ok(false);
        }
        let archive = self.archive.clone();
        let (open, mut last) = (self.open.take(), self.last.clone());
        let path = row.path.clone();
        let going = tokio::task::spawn_blocking(move || {
            let mut next = Open::new(&row.path)?;
            scan_more(&mut &*next.file, &mut next.scan).map_err(|e| file_error(&row.path, e))?;
            let parts = entries(&next.scan);
            let Some(first) = parts.first() else { return Ok((open, last, true, None)) };
            let beginning = archive.beginning(&row.path, first)?;
            if beginning.head.encoding != last.encoding {
                return Ok((None, last, false, None));
            }
            let base = base_of(&row, &beginning.head, &beginning.first);
            let base = base.ok_or_else(|| file_error(&row.path, "is damaged"))?;
            let shift = if row.continues {
                last.shift_nanos.saturating_add(base - last.base_nanos)
            } else {
                let ends = open.as_ref().map(|open| open.ends(&last)).transpose()?.unwrap_or_default();
                behind(&ends, &beginning.first, &beginning.head)
            };
            last.shifts = shifts(shift, &beginning.first, &beginning.head);
            (last.shift_nanos, last.base_nanos) = (shift, base);
            let main = main_of(&beginning.head);
            let clock = main.and_then(|main| clock_of(&row, &main, &beginning.first, &last.shifts));
            (last.id, last.start, last.offset) = (row.id, row.start, first.offset);
            Ok::<_, PlaybackError>((Some(next), last, true, clock))
        });
        let (open, last, goes_on, clock) = going.await.map_err(|e| file_error(&path, e))??;
        if open.is_none() || last.id == self.last.id {
            tokio::time::sleep(LOOK).await;
        }
        (self.open, self.last) = (open, last);
        self.clock_nanos = clock.or(self.clock_nanos);
        Ok(goes_on)
    }
}
