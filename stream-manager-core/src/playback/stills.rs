//! Single pictures of recordings: their keyframes as a small file of its own, which any decoder takes.

use super::archive::{Archive, Beginning, MAX_PART_BYTES, file_error, read_at, scanned};
use super::plan::main_of;
use super::{MAX_FILES, PlaybackError};
use crate::fmp4::{Shift, joined_init, move_fragments, read_fragment, trim_fragment};
use crate::frame::WallTime;
use crate::storage::index::{PartEntry, SegmentRow, TimeRange};
use bytes::Bytes;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In a file of stills, each is shown for this long.
pub(crate) const STILL_SECS: u64 = 1;
/// Keyframes that one decoder takes, one for each second.
#[derive(Debug)]
pub(crate) struct Stills {
    /// A whole file.
    pub(crate) file: Bytes,
    /// For each of its pictures, which of the wanted times it is of.
    pub(crate) slots: Vec<Vec<usize>>,
}

/// A keyframe's place.
#[derive(Clone, PartialEq)]
struct Place {
    path: PathBuf,
    /// The file's first part, and the one that begins with the keyframe.
    first: PartEntry,
    part: PartEntry,
}

impl Archive {
    /// The keyframes at or before these times, which are in order; times at which nothing was recorded have none. Files that are encoded
    /// differently are apart.
    pub(crate) async fn stills(
        &self,
        stream: &str,
        times: Vec<WallTime>,
    ) -> Result<Vec<Stills>, PlaybackError> {
        let (Some(first), Some(last)) = (times.first().copied(), times.last().copied()) else {
            return Ok(Vec::new());
        };
        let range = TimeRange { start: first, end: last + std::time::Duration::from_nanos(1) };
        let rows = self.index().segments(stream, range, None, MAX_FILES + 1).await?;
        if rows.len() > MAX_FILES {
            return Err(PlaybackError::TooLong);
        }
        let mut places = vec![None; times.len()];
        // File by file, so that no more than one file's parts are held.
        for row in rows.into_iter().filter(|row| row.format == "fmp4") {
            let parts = if row.complete {
                self.index().parts(row.id).await?
            } else {
                let path = row.path.clone();
                let scanning = tokio::task::spawn_blocking(move || scanned(&path).unwrap_or_default());
                scanning.await.map_err(|e| file_error(&row.path, e))?
            };
            find(&row, &parts, &times, &mut places);
        }
        let this = self.clone();
        let made = tokio::task::spawn_blocking(move || this.read_stills(places)).await;
        made.map_err(|e| file_error(Path::new(stream), e))
    }

    fn read_stills(&self, places: Vec<Option<Place>>) -> Vec<Stills> {
        let mut made: Vec<(Arc<Beginning>, Vec<u8>, Stills)> = Vec::new();
        // The group and the place in it that the last picture went to, which the next time may share.
        let mut last: Option<(Place, usize)> = None;
        for (slot, place) in places.into_iter().enumerate() {
            let Some(place) = place else { continue };
            if let Some((_, at)) = last.as_ref().filter(|(before, _)| *before == place)
                && let Some(slots) = made.get_mut(*at).and_then(|(.., stills)| stills.slots.last_mut())
            {
                slots.push(slot);
                continue;
            }
            // What was deleted meanwhile, or is damaged, is not shown; the others are.
            let Ok(beginning) = self.beginning(&place.path, &place.first) else { continue };
            let at = match made.iter().position(|(other, ..)| other.head.encoding == beginning.head.encoding)
            {
                Some(at) => at,
                None => {
                    let init = joined_init(&beginning.head, 0, &[], None);
                    made.push((beginning.clone(), init, Stills { file: Bytes::new(), slots: Vec::new() }));
                    made.len() - 1
                }
            };
            let Some((_, file, stills)) = made.get_mut(at) else { continue };
            let number = stills.slots.len() as u64;
            let Some(fragment) = still(&place.path, &place.part, &beginning, number) else { continue };
            file.extend_from_slice(&fragment);
            stills.slots.push(vec![slot]);
            last = Some((place, at));
        }
        let done = made.into_iter().map(|(_, file, stills)| Stills { file: file.into(), ..stills });
        done.filter(|stills| !stills.slots.is_empty()).collect()
    }
}

/// Which keyframes of a file are at or before the times that lie in it. Where clocks were set and files overlap, the later one counts.
fn find(row: &SegmentRow, parts: &[PartEntry], times: &[WallTime], places: &mut [Option<Place>]) {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return };
    for (time, place) in times.iter().zip(places) {
        let into = time.saturating_since(row.start);
        if *time < row.start || into >= last.start + last.duration {
            continue;
        }
        if let Some(part) = parts.iter().rfind(|part| part.keyframe && part.start <= into) {
            *place = Some(Place { path: row.path.clone(), first: *first, part: *part });
        }
    }
}

/// The first picture of a part alone, as a fragment at its second.
fn still(path: &Path, part: &PartEntry, beginning: &Beginning, number: u64) -> Option<Vec<u8>> {
    let main = main_of(&beginning.head)?;
    let data = read_at(&File::open(path).ok()?, part.offset, part.len_bytes.min(MAX_PART_BYTES)).ok()?;
    let held = read_fragment(&data)?;
    let start = held.iter().find(|track| track.id == main.id)?.start;
    let ends: Vec<(u32, u64)> =
        beginning.head.tracks.iter().map(|t| (t.id, if t.id == main.id { start + 1 } else { 0 })).collect();
    let mut fragment = Vec::from(trim_fragment(&data, &ends)?);
    let wanted = i64::try_from(number * STILL_SECS * u64::from(main.timescale)).ok()?;
    let shift = Shift { track: main.id, ticks: wanted - i64::try_from(start).ok()? };
    let mut sequence = u32::try_from(number + 1).ok()?;
    move_fragments(&mut fragment, &[shift], &mut sequence)?;
    Some(fragment)
}
