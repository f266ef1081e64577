//! Which bytes of which files make up a range of time, and at which times.
//!
//! A plan is made file by file ([`Planner::add`]), in order. Of each file it needs the head, the parts as the index has them, and what the
//! first and, before a gap, the last of them hold. Sizes and times follow from that.

use super::PlaybackError;
use super::archive::{file_error, read_at};
use crate::fmp4::{
    FileHead, FragmentTrack, ScannedPart, Shift, joined_init, read_fragment, scan, segment_index,
    trim_fragment,
};
use crate::frame::{MediaTime, WallTime};
use crate::storage::index::{PartEntry, SegmentId, SegmentRow};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Entries of a file's index at most: one every 86 seconds of a day.
const MAX_ENTRIES: usize = 1000;

const MILLISECOND: Duration = Duration::from_millis(1);

/// What to do where something is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Gaps {
    /// Time closes up over it.
    #[default]
    Skip,
    /// The file ends there.
    Stop,
}

/// What is to be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaybackRequest {
    /// From the keyframe at or before it.
    pub start: WallTime,
    /// Up to here; into live without it.
    pub end: Option<WallTime>,
    /// What to do where something is missing.
    pub gaps: Gaps,
}

/// Why a plan ends before what was asked for does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanEnd {
    /// It does not: it has all there is.
    Complete,
    /// Something is missing there.
    Gap,
    /// It is encoded differently from there on.
    Encoding,
}

/// A file's share of a plan.
#[derive(Clone, Debug)]
pub(super) struct PlanFile {
    pub(super) path: PathBuf,
    /// Where its first part begins in the file.
    pub(super) from: u64,
    /// How long each of its parts is.
    pub(super) parts: Vec<u32>,
    pub(super) bytes: u64,
    pub(super) shifts: Vec<Shift>,
    /// The number of its first fragment.
    pub(super) sequence: u32,
    /// Where it begins in what is made.
    pub(super) offset: u64,
    /// Wall clock less time of what is made, in nanoseconds.
    pub(super) clock_nanos: i64,
}

/// A range of a stream's recordings as one file.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) head: Bytes,
    pub(super) files: Vec<PlanFile>,
    /// The last part, cut short; its times are moved already.
    pub(super) tail: Option<Bytes>,
    length_bytes: u64,
    duration: Duration,
    start: WallTime,
    end: WallTime,
    ends: PlanEnd,
    next: Option<WallTime>,
    etag: String,
    /// Where some of its keyframes are: bytes behind the head, and time.
    places: Arc<[(u64, Duration)]>,
    /// Where what follows has its place, for whoever goes on.
    pub(super) last: Last,
}

/// Where the last file of a plan stands.
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) id: SegmentId,
    pub(super) start: WallTime,
    /// Where its planned parts end in the file.
    pub(super) offset: u64,
    pub(super) sequence: u32,
    pub(super) encoding: Vec<u8>,
    pub(super) shifts: Vec<Shift>,
    /// Time of the file, from its beginning, to time of what is made, in nanoseconds.
    pub(super) shift_nanos: i64,
    /// Where the file's beginning lies on the stream's timeline.
    pub(super) base_nanos: i64,
}

impl Plan {
    /// How many bytes it is.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// How long it is, by the index.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Wall clock of its first frame.
    pub fn start(&self) -> WallTime {
        self.start
    }

    /// Wall clock of its end.
    pub fn end(&self) -> WallTime {
        self.end
    }

    /// Why it ends where it does.
    pub fn ends(&self) -> PlanEnd {
        self.ends
    }

    /// Where to begin for what follows, if it ends early.
    pub fn next(&self) -> Option<WallTime> {
        self.next
    }

    /// What tells it from others: the same for the same bytes.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// A keyframe at or before a time, of those whose place is known: how many bytes behind the head, and its time.
    pub(super) fn place_before(&self, to: Duration) -> (u64, Duration) {
        let behind = self.places.partition_point(|(_, time)| *time <= to);
        behind.checked_sub(1).and_then(|at| self.places.get(at)).copied().unwrap_or_default()
    }

    /// How many files it is read from.
    pub fn files(&self) -> usize {
        self.files.len()
    }
}

impl Plan {
    /// A whole file of our own as it is, which began at this time. Blocks.
    pub(super) fn of_file(path: &Path, start: WallTime) -> Result<Self, PlaybackError> {
        let failed = |problem: &dyn std::fmt::Display| file_error(path, problem);
        let mut file = File::open(path).map_err(|e| failed(&e))?;
        let scanned = scan(&mut file).map_err(|e| failed(&e))?;
        let first = scanned.parts.first().ok_or_else(|| failed(&"there is nothing in it"))?;
        let head = read_at(&file, 0, first.offset).map_err(|e| failed(&e))?;
        let parsed = FileHead::parse(&head).ok_or_else(|| failed(&"its head cannot be read"))?;
        let shifts: Vec<Shift> = parsed.tracks.iter().map(|t| Shift { track: t.id, ticks: 0 }).collect();
        let lengths = scanned.parts.iter().map(|part| u32::try_from(part.len_bytes));
        let bytes = scanned.whole_bytes - first.offset;
        let place = |part: &&ScannedPart| (part.offset - first.offset, part.start);
        Ok(Self {
            length_bytes: scanned.whole_bytes,
            duration: scanned.duration(),
            start,
            end: start + scanned.duration(),
            ends: PlanEnd::Complete,
            next: None,
            etag: String::new(),
            places: scanned.parts.iter().filter(|part| part.keyframe).map(|part| place(&part)).collect(),
            tail: None,
            files: vec![PlanFile {
                path: path.to_owned(),
                from: first.offset,
                parts: lengths.collect::<Result<_, _>>().map_err(|e| failed(&e))?,
                bytes,
                shifts: shifts.clone(),
                sequence: 1,
                offset: 0,
                clock_nanos: start.as_unix_nanos(),
            }],
            last: Last {
                id: SegmentId(0),
                start,
                offset: scanned.whole_bytes,
                sequence: 1,
                encoding: parsed.encoding,
                shifts,
                shift_nanos: 0,
                base_nanos: 0,
            },
            head: head.into(),
        })
    }

    /// How many keyframes of it are known.
    pub(super) fn known_keyframes(&self) -> usize {
        self.places.len()
    }
}

/// A file as a planner needs it.
pub(super) struct Candidate<'a> {
    pub(super) row: &'a SegmentRow,
    pub(super) head: &'a FileHead,
    pub(super) parts: &'a [PartEntry],
    /// What the file's first part holds.
    pub(super) first: &'a [FragmentTrack],
}

/// Reads one part of a candidate, whole.
pub(super) type ReadPart<'a> = &'a dyn Fn(&PartEntry) -> Option<Vec<u8>>;

/// Makes a plan, file by file.
pub(super) struct Planner {
    request: PlaybackRequest,
    head: Option<FileHead>,
    edits: Vec<(u32, u64)>,
    files: Vec<PlanFile>,
    tail: Option<Bytes>,
    start: WallTime,
    end: WallTime,
    ends: PlanEnd,
    next: Option<WallTime>,
    /// Where each subsegment begins: bytes behind the head, and ticks of the main track.
    entries: Vec<(u64, u64)>,
    bytes: u64,
    sequence: u32,
    /// Where the main track ends, in time of what is made.
    end_ticks: u64,
    last: Option<Last>,
    /// Where each track of the last file ends, in time of what is made, in its ticks. Known once it is needed.
    ended: Option<Vec<(u32, u64)>>,
    tail_bytes: u64,
    hash: Sha256,
}

fn nanos(ticks: u64, timescale: u32) -> i64 {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(timescale.max(1));
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

fn ticks(nanos: i64, timescale: u32) -> i64 {
    MediaTime::from_nanos(nanos).to_ticks(timescale)
}

fn as_nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The track that parts are counted on, as the fragmenter chooses it.
pub(super) fn main_of(head: &FileHead) -> Option<crate::fmp4::ScannedTrack> {
    head.tracks.iter().find(|t| t.video).or(head.tracks.first()).copied()
}

/// Where tracks end, in time of what is made.
pub(super) fn moved(held: &[FragmentTrack], shifts: &[Shift]) -> Vec<(u32, u64)> {
    let moved = |track: &FragmentTrack| {
        let ticks = shifts.iter().find(|s| s.track == track.id)?.ticks;
        Some((track.id, track.end.checked_add_signed(ticks)?))
    };
    held.iter().filter_map(moved).collect()
}

/// Where a file's beginning lies on the stream's timeline: its first frame there, and how far into the file that is. `None` if it has
/// none of the track that counts.
pub(super) fn base_of(row: &SegmentRow, head: &FileHead, first: &[FragmentTrack]) -> Option<i64> {
    let main = main_of(head)?;
    let zero = first.iter().find(|f| f.id == main.id)?.start;
    Some(row.media_start_nanos.saturating_sub(nanos(zero, main.timescale)))
}

/// Wall clock less time of what is made, of a file that is moved like this: recordings are found by it. `None` if it has none of the track
/// that counts.
pub(super) fn clock_of(
    row: &SegmentRow,
    main: &crate::fmp4::ScannedTrack,
    first: &[FragmentTrack],
    shifts: &[Shift],
) -> Option<i64> {
    let zero = first.iter().find(|f| f.id == main.id)?.start;
    let shift = shifts.iter().find(|s| s.track == main.id)?.ticks;
    // A plan may begin in the midst of its first file, which lies before its zero then.
    let moved = i64::try_from(zero).ok()?.checked_add(shift)?;
    let moved = MediaTime::from_ticks(moved, main.timescale).as_nanos();
    Some(row.start.as_unix_nanos().saturating_sub(moved))
}

/// By how much a file that does not follow on what is there is moved: each track begins where it ended, or later.
pub(super) fn behind(ends: &[(u32, u64)], first: &[FragmentTrack], head: &FileHead) -> i64 {
    let needed = head.tracks.iter().filter_map(|track| {
        let (_, end) = ends.iter().find(|(id, _)| *id == track.id)?;
        let first = first.iter().find(|f| f.id == track.id)?;
        // Rounded up, so that it does not end up a tick too early.
        Some(nanos(*end + 1, track.timescale).saturating_sub(nanos(first.start, track.timescale)))
    });
    needed.max().unwrap_or(0)
}

/// The same shift in every track's ticks; no first sample before the beginning.
pub(super) fn shifts(shift_nanos: i64, first: &[FragmentTrack], head: &FileHead) -> Vec<Shift> {
    let of = |track: &crate::fmp4::ScannedTrack| {
        let earliest = first.iter().find(|f| f.id == track.id).map_or(0, |f| f.start);
        let least = -i64::try_from(earliest).unwrap_or(i64::MAX);
        Shift { track: track.id, ticks: ticks(shift_nanos, track.timescale).max(least) }
    };
    head.tracks.iter().map(of).collect()
}

impl Planner {
    pub(super) fn new(request: PlaybackRequest) -> Self {
        Self {
            request,
            head: None,
            edits: Vec::new(),
            files: Vec::new(),
            tail: None,
            start: request.start,
            end: request.start,
            ends: PlanEnd::Complete,
            next: None,
            entries: Vec::new(),
            bytes: 0,
            sequence: 1,
            end_ticks: 0,
            last: None,
            ended: None,
            tail_bytes: 0,
            hash: Sha256::new(),
        }
    }

    /// How many parts were added.
    pub(super) fn parts(&self) -> usize {
        self.files.iter().map(|file| file.parts.len()).sum()
    }

    /// A subsegment begins at this byte, at this time.
    fn enter(&mut self, bytes: u64, ticks: u64) {
        if self.entries.len() >= MAX_ENTRIES * 8 {
            let mut kept = false;
            self.entries.retain(|_| {
                kept = !kept;
                kept
            });
        }
        self.entries.push((bytes, ticks));
    }

    /// Whether what was recorded last is needed to add a file: something is missing between.
    pub(super) fn closes_up(&self, row: &SegmentRow) -> bool {
        self.last.is_some() && !row.continues
    }

    /// Tells what the last part that was added holds.
    pub(super) fn set_last_part(&mut self, held: &[FragmentTrack]) {
        if let Some(last) = &self.last {
            self.ended = Some(moved(held, &last.shifts));
        }
    }

    /// The last part that was added: its file, and where it lies.
    pub(super) fn last_part(&self) -> Option<(&PathBuf, u64, u32)> {
        let file = self.files.last()?;
        let length = *file.parts.last()?;
        Some((&file.path, file.from + file.bytes - u64::from(length), length))
    }

    fn stop(&mut self, ends: PlanEnd, next: WallTime) -> bool {
        self.ends = ends;
        self.next = Some(next);
        false
    }

    /// Adds the next file. False if the plan ends before it. `None` if the file is none of ours.
    pub(super) fn add(&mut self, file: &Candidate<'_>, read: ReadPart<'_>) -> Option<bool> {
        let main = main_of(file.head)?;
        let zero = file.first.iter().find(|f| f.id == main.id)?.start;
        let base_nanos = base_of(file.row, file.head, file.first)?;
        let into = |time: WallTime| {
            let nanos = time.as_unix_nanos().saturating_sub(file.row.start.as_unix_nanos());
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
        };
        let end = self.request.end.map(into);
        let mut from = 0;
        if self.head.is_none() {
            // A time as people are told it is cut off behind the millisecond: what begins within that is meant.
            let into = into(self.request.start) + MILLISECOND;
            if file.parts.last().is_some_and(|last| last.start + last.duration <= into) {
                return Some(true);
            }
            from = file.parts.iter().rposition(|p| p.keyframe && p.start <= into).unwrap_or(0);
        }
        let to = end.map_or(file.parts.len(), |end| file.parts.partition_point(|p| p.start < end));
        if from >= to {
            return Some(true);
        }
        let (shift_nanos, shifts) = match &self.last {
            None => {
                let data;
                let first = if from == 0 {
                    file.first
                } else {
                    data = read_fragment(&read(&file.parts[from])?)?;
                    &data
                };
                self.begin(file, first, from)?
            }
            Some(last) => {
                if last.encoding != file.head.encoding {
                    return Some(self.stop(PlanEnd::Encoding, file.row.start));
                }
                if file.row.continues {
                    let shift = last.shift_nanos.saturating_add(base_nanos - last.base_nanos);
                    (shift, shifts(shift, file.first, file.head))
                } else if self.request.gaps == Gaps::Stop {
                    return Some(self.stop(PlanEnd::Gap, file.row.start));
                } else {
                    let shift = behind(self.ended.as_deref()?, file.first, file.head);
                    (shift, shifts(shift, file.first, file.head))
                }
            }
        };
        let mut whole = &file.parts[from..to];
        let shift_main = shifts.iter().find(|s| s.track == main.id)?.ticks;
        let clock_nanos = clock_of(file.row, &main, file.first, &shifts)?;
        let at = |time: Duration| {
            let here = i64::try_from(zero).ok()?.checked_add(ticks(as_nanos(time), main.timescale))?;
            u64::try_from(here.checked_add(shift_main)?).ok()
        };
        // The last one may have to be cut short.
        let mut cut = None;
        if let (Some(end), Some(last)) = (end, whole.last())
            && last.start + last.duration > end
        {
            let data = read(last)?;
            let ends: Vec<(u32, u64)> = file
                .head
                .tracks
                .iter()
                .map(|track| {
                    let end = nanos(zero, main.timescale).saturating_add(as_nanos(end));
                    (track.id, u64::try_from(ticks(end, track.timescale)).unwrap_or(0))
                })
                .collect();
            cut = Some((trim_fragment(&data, &ends), *last));
            whole = &whole[..whole.len() - 1];
        }
        let sequence = self.sequence;
        let first_offset = file.parts[from].offset;
        let (mut lengths, mut bytes) = (Vec::with_capacity(whole.len()), 0);
        for part in whole {
            if part.offset != first_offset + bytes {
                return None;
            }
            if part.keyframe || self.entries.is_empty() {
                self.enter(self.bytes + bytes, at(part.start)?);
            }
            lengths.push(u32::try_from(part.len_bytes).ok()?);
            bytes += part.len_bytes;
            self.end_ticks = at(part.start + part.duration)?;
            self.end = file.row.start + part.start + part.duration;
        }
        self.sequence = self.sequence.wrapping_add(u32::try_from(lengths.len()).ok()?);
        self.hash.update(file.row.id.0.to_be_bytes());
        self.hash.update(first_offset.to_be_bytes());
        self.hash.update(bytes.to_be_bytes());
        self.files.push(PlanFile {
            path: file.row.path.clone(),
            from: first_offset,
            parts: lengths,
            bytes,
            shifts: shifts.clone(),
            sequence,
            offset: self.bytes,
            clock_nanos,
        });
        self.bytes += bytes;
        self.last = Some(Last {
            id: file.row.id,
            start: file.row.start,
            offset: first_offset + bytes,
            sequence: self.sequence,
            encoding: file.head.encoding.clone(),
            shifts: shifts.clone(),
            shift_nanos,
            base_nanos,
        });
        self.ended = None;
        if let Some((tail, part)) = cut
            && let Some(tail) = tail
        {
            let mut tail = Vec::from(tail);
            let mut number = self.sequence;
            crate::fmp4::move_fragments(&mut tail, &shifts, &mut number)?;
            if part.keyframe || self.entries.is_empty() {
                self.enter(self.bytes, at(part.start)?);
            }
            let held = read_fragment(&tail)?;
            if let Some(track) = held.iter().find(|f| f.id == main.id) {
                self.end_ticks = self.end_ticks.max(track.end);
            }
            self.end = self.request.end.unwrap_or(self.end);
            self.hash.update((tail.len() as u64).to_be_bytes());
            self.tail_bytes = tail.len() as u64;
            self.tail = Some(tail.into());
        }
        Some(self.tail.is_none())
    }

    /// Begins with this file: what is first in it is at zero.
    fn begin(
        &mut self,
        file: &Candidate<'_>,
        first: &[FragmentTrack],
        from: usize,
    ) -> Option<(i64, Vec<Shift>)> {
        let scale = |id: u32| file.head.tracks.iter().find(|t| t.id == id).map(|t| t.timescale);
        let begins = first.iter().map(|f| Some(nanos(f.start, scale(f.id)?)));
        let zero = begins.collect::<Option<Vec<i64>>>()?.into_iter().min()?;
        let shown = first.iter().map(|f| Some(nanos(u64::try_from(f.earliest).unwrap_or(0), scale(f.id)?)));
        let shown = shown.collect::<Option<Vec<i64>>>()?.into_iter().min()?.max(zero);
        let edit = |track: &crate::fmp4::ScannedTrack| {
            (track.id, u64::try_from(ticks(shown - zero, track.timescale)).unwrap_or(0))
        };
        self.edits = file.head.tracks.iter().map(edit).collect();
        self.head = Some(file.head.clone());
        self.start = file.row.start + file.parts.get(from)?.start;
        Some((-zero, shifts(-zero, first, file.head)))
    }

    /// The whole plan; `None` if there is nothing in it. Without an end it is a beginning: it has neither a length nor an index of
    /// what is in it.
    pub(super) fn finish(mut self) -> Option<Plan> {
        let head = self.head.take()?;
        let last = self.last.take()?;
        let main = main_of(&head)?;
        let known = self.request.end.is_some();
        let duration =
            Duration::from_nanos(u64::try_from(nanos(self.end_ticks, main.timescale)).unwrap_or(0));
        let mut bytes = joined_init(&head, self.start.to_mp4_secs(), &self.edits, known.then_some(duration));
        if known {
            let total = self.bytes + self.tail_bytes;
            bytes.extend(segment_index(&main, &lengths(&self.entries, total, self.end_ticks)));
        }
        self.hash.update(&bytes);
        let etag: String = self.hash.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect();
        let time = |ticks| Duration::from_nanos(u64::try_from(nanos(ticks, main.timescale)).unwrap_or(0));
        let places = self.entries.iter().map(|(bytes, ticks)| (*bytes, time(*ticks))).collect();
        Some(Plan {
            length_bytes: bytes.len() as u64 + self.bytes + self.tail_bytes,
            head: bytes.into(),
            files: self.files,
            tail: self.tail,
            duration,
            start: self.start,
            end: self.end,
            ends: self.ends,
            next: self.next,
            etag,
            places,
            last,
        })
    }
}

/// From where subsegments begin to how long they are; neighbours become one where there are too many.
fn lengths(entries: &[(u64, u64)], end_bytes: u64, end_ticks: u64) -> Vec<(u64, u64)> {
    let step = entries.len().div_ceil(MAX_ENTRIES).max(1);
    let chosen: Vec<(u64, u64)> = entries.iter().step_by(step).copied().collect();
    let nexts = chosen.iter().skip(1).copied().chain(std::iter::once((end_bytes, end_ticks)));
    chosen.iter().zip(nexts).map(|(a, b)| (b.0.saturating_sub(a.0), b.1.saturating_sub(a.1))).collect()
}
