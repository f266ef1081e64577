//! What there is to play: the index, and what is known of files' beginnings.

use super::follow::Follower;
use super::plan::{Candidate, Plan, PlanEnd, Planner, PlaybackRequest};
use super::{MAX_FILES, PlaybackError};
use crate::fmp4::{FileHead, FragmentTrack, Scan, read_fragment, scan_more};
use crate::storage::index::{Index, PartEntry, SegmentRow, TimeRange};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of which the beginning is remembered, a kilobyte or two each.
const MAX_KNOWN: usize = 4096;
/// Files of which the parts are read from the index at once.
const FILES_AT_ONCE: usize = 128;
/// Parts of one playback at most, a few bytes each: eleven days of half a second.
const MAX_PARTS: usize = 2_000_000;
/// A head that is larger is none of ours.
const MAX_HEAD_BYTES: u64 = 1 << 20;
/// So much of a part is read to see what it holds; its `moof` is in there as a rule.
pub(super) const USUAL_MOOF_BYTES: u64 = 4096;
/// A part that is larger is none of ours.
pub(super) const MAX_PART_BYTES: u64 = 256 << 20;

/// A file's beginning.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) head: FileHead,
    /// What its first part holds.
    pub(super) first: Vec<FragmentTrack>,
}

/// By their paths, which are never used again; numbers would be by an index that was made anew.
#[derive(Debug, Default)]
struct Known {
    heads: HashMap<PathBuf, Arc<Beginning>>,
    order: VecDeque<PathBuf>,
}

/// A stream's recordings, to be played again. Clones are handles to the same one.
///
/// ```
/// # use stream_manager_core::playback::{Archive, Gaps, PlaybackRequest};
/// # use stream_manager_core::storage::index::Index;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (index, _) = Index::open(folder.path()).unwrap();
/// let archive = Archive::new(index);
/// let request = PlaybackRequest {
///     start: "2026-01-31T12:00:00Z".parse().unwrap(),
///     end: Some("2026-01-31T13:00:00Z".parse().unwrap()),
///     gaps: Gaps::Skip,
/// };
/// let nothing = archive.plan("door", request).await.unwrap_err();
/// assert!(nothing.to_string().contains("nothing has been recorded"));
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Archive {
    index: Index,
    known: Arc<Mutex<Known>>,
}

/// What a planner has asked for of one file.
struct Share {
    row: SegmentRow,
    parts: Vec<PartEntry>,
}

pub(super) fn file_error(path: &Path, problem: impl ToString) -> PlaybackError {
    PlaybackError::File { path: path.to_owned(), problem: problem.to_string() }
}

pub(super) fn read_at(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut data, offset)?;
    Ok(data)
}

/// What a part holds; its payload is not read if it can be helped.
pub(super) fn held(file: &File, offset: u64, length: u64) -> io::Result<Option<Vec<FragmentTrack>>> {
    let beginning = read_at(file, offset, length.min(USUAL_MOOF_BYTES))?;
    if let Some(held) = read_fragment(&beginning) {
        return Ok(Some(held));
    }
    Ok(read_fragment(&read_at(file, offset, length.min(MAX_PART_BYTES))?))
}

/// A growing file's parts.
pub(super) fn scanned(path: &Path) -> Result<Vec<PartEntry>, PlaybackError> {
    let mut file = File::open(path).map_err(|e| file_error(path, e))?;
    let mut scan = Scan::default();
    scan_more(&mut file, &mut scan).map_err(|e| file_error(path, e))?;
    Ok(entries(&scan))
}

/// Parts as the index has them: times count from the first one.
pub(super) fn entries(scan: &Scan) -> Vec<PartEntry> {
    let zero = scan.parts.first().map(|p| p.start).unwrap_or_default();
    let entry = |p: &crate::fmp4::ScannedPart| PartEntry {
        offset: p.offset,
        len_bytes: p.len_bytes,
        start: p.start.saturating_sub(zero),
        duration: p.duration,
        frames: p.frames,
        keyframe: p.keyframe,
    };
    scan.parts.iter().map(entry).collect()
}

impl Archive {
    /// Of what this index knows.
    pub fn new(index: Index) -> Self {
        Self { index, known: Arc::default() }
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// A file's beginning. Blocks.
    pub(super) fn beginning(&self, path: &Path, first: &PartEntry) -> Result<Arc<Beginning>, PlaybackError> {
        if let Some(known) = self.known.lock().heads.get(path) {
            return Ok(known.clone());
        }
        let failed = |problem: &dyn std::fmt::Display| file_error(path, problem);
        if first.offset > MAX_HEAD_BYTES {
            return Err(failed(&"its head is too large"));
        }
        let file = File::open(path).map_err(|e| failed(&e))?;
        let data = read_at(&file, 0, first.offset).map_err(|e| failed(&e))?;
        let head = FileHead::parse(&data).ok_or_else(|| failed(&"is damaged: its head cannot be read"))?;
        let held = held(&file, first.offset, first.len_bytes).map_err(|e| failed(&e))?;
        let held = held.ok_or_else(|| failed(&"is damaged: its first part cannot be read"))?;
        let beginning = Arc::new(Beginning { head, first: held });
        let mut known = self.known.lock();
        if known.heads.insert(path.to_owned(), beginning.clone()).is_none() {
            known.order.push_back(path.to_owned());
        }
        while known.order.len() > MAX_KNOWN {
            if let Some(oldest) = known.order.pop_front() {
                known.heads.remove(&oldest);
            }
        }
        Ok(beginning)
    }

    /// What has been recorded of a stream in a range, as one file. Without an end it is what there is so far; see [`follow`](Self::follow)
    /// for the rest.
    ///
    /// # Errors
    /// If there is nothing, it cannot be played, or a file cannot be read.
    pub async fn plan(&self, stream: &str, request: PlaybackRequest) -> Result<Plan, PlaybackError> {
        let end = request.end.unwrap_or(TimeRange::ALL.end);
        let nothing = || PlaybackError::Nothing { start: request.start };
        let range = TimeRange::new(request.start, end).map_err(|_| nothing())?;
        let rows = self.index.segments(stream, range, None, MAX_FILES + 1).await?;
        if rows.len() > MAX_FILES {
            return Err(PlaybackError::TooLong);
        }
        let other = rows.iter().find(|row| row.format != "fmp4").map(|row| row.format.clone());
        let mut rows: Vec<SegmentRow> = rows.into_iter().filter(|row| row.format == "fmp4").collect();
        // Whoever names the moment at which a file begins means that file, also where the one before reaches a little beyond it: that is how
        // it is told where a plan that has ended goes on.
        if let Some(named) = rows.iter().rposition(|row| row.start == request.start) {
            rows.drain(..named);
        }
        if rows.is_empty() {
            return Err(other.map_or_else(nothing, |format| PlaybackError::Format { format }));
        }
        let mut planner = Planner::new(request);
        // A few files at a time: what is known of their parts is needed only until they are planned.
        for some in rows.chunks(FILES_AT_ONCE) {
            let some = some.to_vec();
            // One question for all of them: each has its way to another thread and back.
            let shares = self.index.read(move |catalog| {
                let share = |row: SegmentRow| {
                    let parts = if row.complete { catalog.parts(row.id)? } else { Vec::new() };
                    Ok(Share { row, parts })
                };
                some.into_iter().map(share).collect::<Result<Vec<Share>, _>>()
            });
            let shares = shares.await?;
            let this = self.clone();
            let adding = tokio::task::spawn_blocking(move || {
                let more = this.add(&mut planner, shares)?;
                Ok::<_, PlaybackError>((planner, more))
            });
            let (added, more) = adding.await.map_err(|e| file_error(Path::new(stream), e))??;
            planner = added;
            if planner.parts() > MAX_PARTS {
                return Err(PlaybackError::TooLong);
            }
            if !more {
                break;
            }
        }
        planner.finish().ok_or_else(nothing)
    }

    /// Reads what is needed of some files, and adds them to a plan. False if it ends there.
    fn add(&self, planner: &mut Planner, shares: Vec<Share>) -> Result<bool, PlaybackError> {
        for mut share in shares {
            let path = share.row.path.clone();
            if !share.row.complete {
                // One that was begun just now is empty, or not there yet.
                share.parts = scanned(&path).unwrap_or_default();
            }
            let Some(first) = share.parts.first().copied() else { continue };
            let beginning = match self.beginning(&path, &first) {
                // Retention may have deleted it meanwhile, as long as nothing of it has been promised.
                Err(_) if planner.last_part().is_none() && !path.exists() => continue,
                other => other?,
            };
            if planner.closes_up(&share.row)
                && let Some((last, offset, length)) = planner.last_part()
            {
                let (last, length) = (last.clone(), u64::from(length));
                let file = File::open(&last).map_err(|e| file_error(&last, e))?;
                let held = held(&file, offset, length).map_err(|e| file_error(&last, e))?;
                planner.set_last_part(&held.unwrap_or_default());
            }
            let candidate = Candidate {
                row: &share.row,
                head: &beginning.head,
                parts: &share.parts,
                first: &beginning.first,
            };
            let read = |part: &PartEntry| {
                let file = File::open(&path).ok()?;
                read_at(&file, part.offset, part.len_bytes.min(MAX_PART_BYTES)).ok()
            };
            match planner.add(&candidate, &read) {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => return Err(file_error(&path, "is damaged: its parts are not what the index says")),
            }
        }
        Ok(true)
    }

    /// Goes on behind a plan without an end, with what is being recorded, as long as it is (`goes_on`). `None` if the plan has ended for
    /// another reason.
    pub fn follow(
        &self,
        stream: &str,
        plan: &Plan,
        goes_on: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Option<Follower> {
        let complete = plan.ends() == PlanEnd::Complete;
        complete.then(|| Follower::new(self.clone(), stream, plan.last.clone(), Box::new(goes_on)))
    }
}
