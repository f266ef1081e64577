//! Puts right what a crash, a full disk or a person has left: files and index agree afterwards.
//!
//! - A segment that was never finished is cut after its last whole part and completed.
//! - A file that the index does not know is adopted, if it is one of ours.
//! - A row whose file is gone is dropped, unless the whole folder is out of reach: a disk that is not
//!   mounted has lost nothing.
//! - A deletion that was interrupted is finished.
//! - Files that hold nothing are removed. Whatever else is in the folders is left alone, and told.
//!
//! The server does this in the background when it starts, `stream-manager fsck` by hand. Links are never
//! followed and never removed.

mod segment;
mod walk;

use segment::examine_all;
pub use segment::{Examined, Found, examine};

use super::index::{Catalog, Index, IndexError, NewSegment, SegmentEnd, SegmentId, SegmentRow};
use super::{MARKER, Place};
use crate::frame::MediaTime;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that was found, and what it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file or folder.
    pub path: PathBuf,
    /// What is the matter with it.
    pub problem: String,
}

/// What a repair has found, and done if it was to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Segments looked at.
    pub segments: u64,
    /// Segments that were not finished: cut after the last whole part and completed.
    pub repaired: Vec<Finding>,
    /// Files that the index did not know.
    pub adopted: Vec<Finding>,
    /// Rows without a file.
    pub dropped: Vec<Finding>,
    /// Files that held nothing.
    pub removed: Vec<Finding>,
    /// Deletions that were finished.
    pub deleted: Vec<Finding>,
    /// Files that cannot be read as what they should be; left alone.
    pub damaged: Vec<Finding>,
    /// What does not belong into the folders; left alone.
    pub foreign: Vec<Finding>,
    /// Folders that are out of reach; their rows are kept.
    pub unavailable: Vec<Finding>,
}

impl Report {
    /// Whether files and index agreed already.
    pub fn is_clean(&self) -> bool {
        self.repaired.is_empty()
            && self.adopted.is_empty()
            && self.dropped.is_empty()
            && self.removed.is_empty()
            && self.deleted.is_empty()
            && self.damaged.is_empty()
            && self.unavailable.is_empty()
    }
}

/// How a repair is done.
pub struct Repair<'a> {
    /// The folders for recordings, each with a folder per stream inside.
    pub places: &'a [Arc<Place>],
    /// Whether anything is changed, or only told.
    pub change: bool,
    /// Whether missing rows are dropped even where the folder has lost its marker.
    pub trust_folders: bool,
    /// The server's index, whose open files are left alone.
    pub index: Option<&'a Index>,
    /// Set by somebody who wants it to end early.
    pub stop: &'a AtomicBool,
}

fn finding(path: &Path, problem: impl Into<String>) -> Finding {
    Finding { path: path.to_owned(), problem: problem.into() }
}

impl Repair<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_open(&self, path: &Path) -> bool {
        self.index.is_some_and(|index| index.is_open(path))
    }

    /// Finishes what was not finished. Quick: only looks at the rows that say so.
    ///
    /// # Errors
    /// If the index refuses.
    pub fn unfinished(&self, catalog: &mut Catalog, report: &mut Report) -> Result<(), IndexError> {
        let doomed = catalog.unfinished(true)?;
        let mut gone = Vec::new();
        for row in doomed {
            // With the index at hand a deletion may be going on at this moment; it is told apart by nothing,
            // but removing twice does no harm.
            if !self.change {
                report.deleted.push(finding(&row.path, "was being deleted"));
                continue;
            }
            match remove(&row.path) {
                Ok(()) => {
                    report.deleted.push(finding(&row.path, "was being deleted"));
                    gone.push(row.id);
                }
                Err(problem) => report.damaged.push(finding(&row.path, problem)),
            }
        }
        catalog.forget(&gone, None)?;
        for row in catalog.unfinished(false)? {
            if !self.stopped() && !self.is_open(&row.path) && self.reachable(&row, report) {
                self.finish(catalog, &row, report)?;
            }
        }
        Ok(())
    }

    /// Whether the place that a row's file lies in is there.
    fn reachable(&self, row: &SegmentRow, report: &mut Report) -> bool {
        let Some(place) = self.places.iter().find(|p| row.path.starts_with(p.path())) else { return true };
        self.available(place, report)
    }

    fn available(&self, place: &Place, report: &mut Report) -> bool {
        if self.trust_folders || place.path().join(MARKER).is_file() || !place.path().exists() {
            return true;
        }
        let problem = format!("has lost its marker file {MARKER}; its disk does not seem to be mounted");
        if !report.unavailable.iter().any(|f| f.path == place.path()) {
            report.unavailable.push(finding(place.path(), problem));
        }
        false
    }

    fn finish(&self, catalog: &mut Catalog, row: &SegmentRow, report: &mut Report) -> Result<(), IndexError> {
        report.segments += 1;
        let examined = match examine(&row.path, self.change) {
            // The row says that it is ours.
            Examined::Damaged(_) if row.format == "fmp4" && segment::is_torn(&row.path) => Examined::Nothing,
            other => other,
        };
        match examined {
            Examined::Missing => {
                report.dropped.push(finding(&row.path, "the file is gone"));
                if self.change {
                    catalog.drop_lost(&[row])?;
                }
            }
            Examined::Nothing => {
                report.removed.push(finding(&row.path, "holds no whole part"));
                if self.change {
                    if let Err(problem) = remove(&row.path) {
                        report.damaged.push(finding(&row.path, problem));
                    }
                    catalog.drop_lost(&[row])?;
                }
            }
            Examined::Damaged(problem) => {
                report.damaged.push(finding(&row.path, problem));
                if self.change {
                    // Kept as it is, with its size, so that retention can remove it.
                    let bytes = std::fs::metadata(&row.path).map_or(0, |m| m.len());
                    catalog.complete_repaired(row, &SegmentEnd { bytes, ..SegmentEnd::default() })?;
                }
            }
            Examined::Segment(found) => {
                let text = match found.cut_bytes {
                    0 => "was not finished".to_owned(),
                    cut => format!("was not finished; {cut} bytes after the last whole part cut off"),
                };
                report.repaired.push(finding(&row.path, text));
                if self.change {
                    catalog.complete_repaired(row, &found.end)?;
                }
            }
        }
        Ok(())
    }

    /// Compares all files with all rows.
    ///
    /// # Errors
    /// If the index refuses.
    pub fn everything(&self, catalog: &mut Catalog, report: &mut Report) -> Result<(), IndexError> {
        self.unfinished(catalog, report)?;
        // What is lost of this in a power cut is found again by the next repair.
        catalog.relax()?;
        let mut found: HashMap<String, Vec<PathBuf>> = HashMap::new();
        let mut reached = Vec::new();
        for place in self.places {
            if place.path().exists() && !place.path().is_dir() {
                report.unavailable.push(finding(place.path(), "is a file; expected a folder"));
                continue;
            }
            if !place.path().exists() {
                // Gone with everything in it, unless it is a disk that is not there: then its mount point is.
                reached.push(place.clone());
                continue;
            }
            let before = report.unavailable.len();
            let known_empty = catalog.folders()?.iter().all(|(folder, _)| !folder.starts_with(place.path()));
            if !known_empty && !self.available(place, report) {
                continue;
            }
            walk::walk(place.path(), &mut found, report);
            if report.unavailable.len() == before {
                reached.push(place.clone());
            }
        }
        let known: HashSet<String> = catalog.totals()?.into_iter().map(|t| t.stream).collect();
        let streams: HashSet<String> = known.into_iter().chain(found.keys().cloned()).collect();
        let mut streams: Vec<String> = streams.into_iter().collect();
        streams.sort();
        for stream in streams {
            if self.stopped() {
                break;
            }
            let files = found.remove(&stream).unwrap_or_default();
            self.stream(catalog, &stream, files, &reached, report)?;
        }
        Ok(())
    }

    fn stream(
        &self,
        catalog: &mut Catalog,
        stream: &str,
        files: Vec<PathBuf>,
        reached: &[Arc<Place>],
        report: &mut Report,
    ) -> Result<(), IndexError> {
        let rows = catalog.rows_of(stream)?;
        report.segments += rows.len() as u64;
        let known: HashSet<&Path> = rows.iter().map(|r| r.path.as_path()).collect();
        let on_disk: HashSet<&Path> = files.iter().map(PathBuf::as_path).collect();
        let mut gone = Vec::new();
        for row in rows.iter().filter(|r| r.complete && !on_disk.contains(r.path.as_path())) {
            let ours = reached.iter().any(|p| row.path.starts_with(p.path()));
            let elsewhere = !self.places.iter().any(|p| row.path.starts_with(p.path()));
            // Looked at once more: it may have been finished while the folders were read.
            if (ours || elsewhere && row.path.parent().is_some_and(Path::is_dir))
                && !self.is_open(&row.path)
                && std::fs::symlink_metadata(&row.path)
                    .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
            {
                report.dropped.push(finding(&row.path, "the file is gone"));
                gone.push(row);
            }
        }
        if self.change {
            catalog.drop_lost(&gone)?;
        }
        let mut unknown: Vec<&PathBuf> = files.iter().filter(|f| !known.contains(f.as_path())).collect();
        unknown.sort();
        let before = report.adopted.len();
        for path in unknown {
            if !self.is_open(path) && !self.stopped() {
                self.adopt(catalog, stream, path, report)?;
            }
        }
        if self.change && report.adopted.len() > before {
            catalog.fill_gaps(stream)?;
        }
        Ok(())
    }

    fn adopt(
        &self,
        catalog: &mut Catalog,
        stream: &str,
        path: &Path,
        report: &mut Report,
    ) -> Result<(), IndexError> {
        let found = match examine(path, self.change) {
            Examined::Segment(found) => found,
            Examined::Missing => return Ok(()),
            Examined::Nothing => {
                report.removed.push(finding(path, "holds nothing"));
                if self.change
                    && let Err(problem) = remove(path)
                {
                    report.damaged.push(finding(path, problem));
                }
                return Ok(());
            }
            Examined::Damaged(problem) => {
                report.damaged.push(finding(path, problem));
                return Ok(());
            }
        };
        if let Some(identity) = found.identity.as_ref().filter(|i| i.stream != stream) {
            let problem =
                format!("says that it belongs to the stream {}; taken as one of {stream}", identity.stream);
            report.foreign.push(finding(path, problem));
        }
        // Finished in the meantime?
        if self.is_open(path) || catalog.has_file(stream, found.start, path)? {
            return Ok(());
        }
        report.adopted.push(finding(path, format!("{} bytes, {} frames", found.end.bytes, found.end.frames)));
        if !self.change {
            return Ok(());
        }
        let id = match self.index {
            Some(index) => index.new_id(),
            None => SegmentId(catalog.next_id()?),
        };
        let identity = found.identity.as_ref();
        let segment = NewSegment {
            id,
            stream: stream.into(),
            start: found.start,
            media_start: MediaTime::from_nanos(identity.map_or(0, |i| i.media_start_nanos)),
            folder: path.parent().map(PathBuf::from).unwrap_or_default(),
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            format: found.format.clone(),
            tracks: identity.map_or_else(|| "[]".into(), |i| i.tracks.to_string().into()),
            continues: identity.is_some_and(|i| i.continues),
            lost_frames: 0,
        };
        catalog.adopt(&segment, &found.end)
    }
}

/// A segment that was read from end to end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verified {
    /// As the index has it.
    pub segment: SegmentRow,
    /// What is the matter with its file, if anything is.
    pub problem: Option<String>,
}

/// Compares a segment's file with what the index says of it, and looks at every part's payload. Changes
/// nothing. Blocks.
pub fn verify(segment: SegmentRow) -> Verified {
    let path = &segment.path;
    let problem = match examine_all(path) {
        Examined::Missing => Some("the file is gone".to_owned()),
        Examined::Nothing => Some("the file holds nothing".to_owned()),
        Examined::Damaged(problem) => Some(problem),
        // Being written, or to be repaired.
        Examined::Segment(_) if !segment.complete => None,
        Examined::Segment(found) if found.cut_bytes > 0 => {
            Some(format!("{} bytes at its end are no whole part", found.cut_bytes))
        }
        Examined::Segment(found) if found.end.bytes != segment.bytes => {
            Some(format!("has {} bytes; the index says {}", found.end.bytes, segment.bytes))
        }
        Examined::Segment(found) if found.format == "fmp4" && found.end.frames != segment.frames => {
            Some(format!("has {} frames; the index says {}", found.end.frames, segment.frames))
        }
        Examined::Segment(_) => None,
    };
    Verified { segment, problem }
}

/// Removes a regular file; one that is gone already is fine. Blocks.
pub(super) fn remove(path: &Path) -> Result<(), String> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(found) if !found.is_file() => Err("is no regular file, and is not removed".into()),
        Ok(_) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests;
