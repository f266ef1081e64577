//! What is deleted, and when: too old, too much, or in the way of what is to be recorded.
//!
//! Oldest first over all streams, in small steps. A deletion is entered in the index, the file removed, and
//! the entry forgotten, so that a crash at any moment leaves neither a file without an entry nor an entry
//! without a file for good. Protected segments are left alone, unless they alone fill the disk, which is
//! never silent. A limit that cannot be kept is told, and deletes nothing that would not help.

use super::index::{Catalog, Doomed, GapReason, IndexError, Selection, TimeRange};
use super::repair::remove;
use super::space::{MinFree, Space};
use crate::frame::WallTime;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Segments that go in one step.
/// How the limit of a disk's free room begins; its folder follows.
pub(super) const MIN_FREE_ON: &str = "storage.min_free on ";

const STEP: usize = 16;
/// Steps in one pass; the next pass goes on.
const MAX_STEPS: usize = 256;
/// What is kept free where the configured room cannot be had: enough for a while, and for the index.
const FLOOR_BYTES: u64 = 64 << 20;

/// Limits of one stream's recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamLimits {
    /// Older ones go.
    pub max_age: Option<Duration>,
    /// The same for those in which something was seen, if they are kept for longer.
    pub events_max_age: Option<Duration>,
    /// The oldest go while there is more.
    pub max_bytes: Option<u64>,
}

/// What holds for the recordings.
#[derive(Clone, Debug, PartialEq)]
pub struct RetentionPolicy {
    /// Streams with limits of their own.
    pub streams: BTreeMap<String, StreamLimits>,
    /// All others, also those that are no longer configured.
    pub default: StreamLimits,
    /// The most that all recordings together may take.
    pub max_bytes: Option<u64>,
    /// Room to be kept free on every disk that is recorded to.
    pub min_free: MinFree,
}

impl Default for RetentionPolicy {
    /// Nothing is too old, and two per cent of the disk stay free.
    fn default() -> Self {
        Self {
            streams: BTreeMap::new(),
            default: StreamLimits::default(),
            max_bytes: None,
            min_free: MinFree::Percent(2.0),
        }
    }
}

impl RetentionPolicy {
    /// The limits of a stream.
    pub fn of(&self, stream: &str) -> StreamLimits {
        self.streams.get(stream).copied().unwrap_or(self.default)
    }
}

/// A disk that is recorded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The folders for recordings on it.
    pub places: Vec<PathBuf>,
    /// Its room.
    pub space: Space,
}

/// What one pass has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Segments deleted, and their size, by reason.
    pub deleted: BTreeMap<&'static str, (u64, u64)>,
    /// Protected segments that had to go.
    pub protected: Vec<PathBuf>,
    /// Limits that cannot be kept, and why.
    pub unmet: BTreeMap<String, String>,
    /// Files that could not be removed, and why.
    pub failed: Vec<(PathBuf, String)>,
}

impl Pass {
    fn carry_out(
        &mut self,
        catalog: &mut Catalog,
        doomed: Vec<Doomed>,
        reason: &'static str,
        gap: Option<GapReason>,
    ) -> Result<(u64, usize), IndexError> {
        let (mut gone, mut bytes) = (Vec::new(), 0);
        for segment in &doomed {
            match remove(&segment.path) {
                Ok(()) => {
                    gone.push(segment.id);
                    bytes += segment.bytes;
                    tracing::debug!(path = %segment.path.display(), reason, "segment deleted");
                }
                // Its entry stays, as being deleted; the next repair tries again.
                Err(problem) => self.failed.push((segment.path.clone(), problem)),
            }
        }
        catalog.forget(&gone, gap)?;
        if !gone.is_empty() {
            let entry = self.deleted.entry(reason).or_default();
            *entry = (entry.0 + gone.len() as u64, entry.1 + bytes);
        }
        Ok((bytes, gone.len()))
    }
}

/// Deletes what is beyond its limits. `now` is missing while the clock cannot be trusted, `live_bytes` is
/// what is being written, and `disk` asks for a disk's room again. Blocks.
///
/// # Errors
/// If the index refuses.
pub fn pass(
    catalog: &mut Catalog,
    policy: &RetentionPolicy,
    now: Option<WallTime>,
    live_bytes: u64,
    disks: &[Disk],
    refresh: &dyn Fn(&Path) -> Option<Space>,
) -> Result<Pass, IndexError> {
    let mut pass = Pass::default();
    for total in catalog.totals()? {
        let limits = policy.of(&total.stream);
        if let (Some(age), Some(now)) = (limits.max_age, now) {
            let selection = Selection::OlderThan {
                stream: total.stream.clone(),
                before: now - age,
                seen_before: limits.events_max_age.map(|age| now - age),
            };
            for _ in 0..MAX_STEPS {
                let doomed = catalog.doom(&selection, false, STEP)?;
                let last = doomed.len() < STEP;
                pass.carry_out(catalog, doomed, "max_age", None)?;
                if last {
                    break;
                }
            }
        }
    }
    for total in catalog.totals()? {
        if let Some(max) = policy.of(&total.stream).max_bytes {
            let selection = Selection::OldestOf(total.stream.clone());
            let left = shrink(catalog, &mut pass, &selection, total.bytes, max, "max_size of the stream")?;
            if left > max && total.protected_bytes > max {
                let problem = format!("protected segments alone take {} bytes", total.protected_bytes);
                pass.unmet.insert(format!("max_size of {}", total.stream), problem);
            }
        }
    }
    if let Some(max) = policy.max_bytes {
        let totals = catalog.totals()?;
        let bytes = totals.iter().map(|t| t.bytes).sum::<u64>() + live_bytes;
        let left = shrink(catalog, &mut pass, &Selection::Oldest, bytes, max, "storage.max_size")?;
        if left > max {
            let problem = format!("what is protected or being written takes {left} bytes; allowed are {max}");
            pass.unmet.insert("storage.max_size".into(), problem);
        }
    }
    for disk in disks {
        make_room(catalog, &mut pass, policy, disk, refresh)?;
    }
    Ok(pass)
}

/// Deletes the oldest until `bytes` is within `max`. Gives what is left.
fn shrink(
    catalog: &mut Catalog,
    pass: &mut Pass,
    selection: &Selection,
    mut bytes: u64,
    max: u64,
    reason: &'static str,
) -> Result<u64, IndexError> {
    for _ in 0..MAX_STEPS * STEP {
        if bytes <= max {
            break;
        }
        let doomed = catalog.doom(selection, false, 1)?;
        if doomed.is_empty() {
            break;
        }
        let size: u64 = doomed.iter().map(|d| d.bytes).sum();
        pass.carry_out(catalog, doomed, reason, None)?;
        bytes = bytes.saturating_sub(size);
    }
    Ok(bytes)
}

fn make_room(
    catalog: &mut Catalog,
    pass: &mut Pass,
    policy: &RetentionPolicy,
    disk: &Disk,
    refresh: &dyn Fn(&Path) -> Option<Space>,
) -> Result<(), IndexError> {
    let wanted = policy.min_free.bytes(disk.space.total_bytes);
    if disk.space.free_bytes >= wanted {
        return Ok(());
    }
    let Some(place) = disk.places.first() else { return Ok(()) };
    let folders: Vec<(PathBuf, u64)> = catalog
        .folders()?
        .into_iter()
        .filter(|(folder, _)| disk.places.iter().any(|place| folder.starts_with(place)))
        .collect();
    let ours: u64 = folders.iter().map(|(_, bytes)| bytes).sum();
    let mut floor = wanted;
    if disk.space.free_bytes.saturating_add(ours) < wanted {
        // Deleting everything would not be enough: keep only as much as recording needs to go on.
        floor = wanted.min(FLOOR_BYTES);
        let problem = format!(
            "{wanted} bytes are to stay free, but only {} are, and all recordings there take {ours}",
            disk.space.free_bytes
        );
        pass.unmet.insert(format!("{MIN_FREE_ON}{}", place.display()), problem);
    }
    let folders: Vec<PathBuf> = folders.into_iter().map(|(folder, _)| folder).collect();
    let mut free = disk.space.free_bytes;
    for _ in 0..MAX_STEPS * STEP {
        if free >= floor {
            return Ok(());
        }
        let selection = Selection::OldestIn(folders.clone());
        let mut doomed = catalog.doom(&selection, false, 1)?;
        if doomed.is_empty() {
            doomed = catalog.doom(&selection, true, 1)?;
            pass.protected.extend(doomed.iter().map(|d| d.path.clone()));
        }
        if doomed.is_empty() {
            return Ok(());
        }
        let (_, gone) = pass.carry_out(catalog, doomed, "storage.min_free", None)?;
        if gone == 0 {
            // A disk that does not delete any more.
            return Ok(());
        }
        let Some(space) = refresh(place) else { return Ok(()) };
        free = space.free_bytes;
    }
    Ok(())
}

/// Deletes a stream's finished segments that lie wholly in a range, protected ones only if asked for. Gives
/// how many went and their size. Blocks.
///
/// # Errors
/// If the index refuses. What could not be removed is deleted later.
pub fn delete(
    catalog: &mut Catalog,
    stream: &str,
    range: TimeRange,
    protected: bool,
) -> Result<(u64, u64), IndexError> {
    let mut pass = Pass::default();
    let selection = Selection::Within(stream.to_owned(), range);
    for kind in [false, true].into_iter().filter(|kind| !kind || protected) {
        loop {
            let doomed = catalog.doom(&selection, kind, STEP)?;
            let last = doomed.len() < STEP;
            pass.carry_out(catalog, doomed, "request", Some(GapReason::Deleted))?;
            if last {
                break;
            }
        }
    }
    Ok(pass.deleted.get("request").copied().unwrap_or_default())
}

#[cfg(test)]
mod tests;
