//! Telling the index what is recorded, in the order file, folder, database.
//!
//! Everything goes through the disk's sync thread, after the file that it speaks of is safe on the disk, and
//! so in the order in which it happened. Without an index all of this does nothing.

use super::{RecorderContext, RecordingFormat, RecordingTrigger};
use crate::frame::{MediaTime, Track, TrackInfo, WallTime};
use crate::hub::Input;
use crate::storage::DiskPool;
use crate::storage::index::{Change, GapReason, Index, Mark, NewSegment, SegmentEnd};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One recorder's line to the index.
pub(super) struct Ledger {
    index: Option<Index>,
    stream: Arc<str>,
    pool: DiskPool,
    /// Where what has been written ends.
    end: Mutex<Option<WallTime>>,
    /// Frames lost since the last segment began.
    lost: AtomicU64,
}

/// A segment that is being written, as the index will know it.
#[derive(Clone)]
pub(super) struct Entry {
    index: Index,
    pub(super) segment: NewSegment,
    pub(super) end: SegmentEnd,
}

/// Tracks as the index keeps them.
pub(super) fn describe(tracks: &[Track]) -> serde_json::Value {
    let infos: Vec<TrackInfo> = tracks.iter().map(|t| TrackInfo::of(&t.parameters)).collect();
    serde_json::to_value(infos).unwrap_or_default()
}

/// What is known of a segment when its file is made.
pub(super) struct Beginning<'a> {
    pub(super) path: &'a Path,
    pub(super) start: WallTime,
    pub(super) media_start: MediaTime,
    pub(super) format: RecordingFormat,
    pub(super) tracks: &'a str,
    pub(super) continues: bool,
}

impl Ledger {
    pub(super) fn new(context: &RecorderContext) -> Self {
        Self {
            index: context.index.clone(),
            stream: context.stream.clone(),
            pool: context.pool.clone(),
            end: Mutex::new(None),
            lost: AtomicU64::new(0),
        }
    }

    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// Says that a file is about to be made, so that a repair leaves it alone.
    pub(super) fn opening(&self, path: &Path) {
        if let Some(index) = &self.index {
            index.opening(path);
        }
    }

    /// Takes that back.
    pub(super) fn not_opened(&self, path: &Path) {
        if let Some(index) = &self.index {
            index.closed(path);
        }
    }

    /// A segment whose file has been made.
    pub(super) fn begin(&self, beginning: &Beginning<'_>) -> Option<Entry> {
        let index = self.index.clone()?;
        let path = beginning.path;
        let segment = NewSegment {
            id: index.new_id(),
            stream: self.stream.clone(),
            start: beginning.start,
            media_start: beginning.media_start,
            folder: path.parent().map(PathBuf::from).unwrap_or_default(),
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            format: beginning.format.name().to_owned(),
            tracks: beginning.tracks.into(),
            continues: beginning.continues,
            lost_frames: self.lost.swap(0, Ordering::Relaxed),
        };
        Some(Entry { index, segment, end: SegmentEnd::default() })
    }

    /// Remembers where what has been written ends.
    pub(super) fn reached(&self, end: WallTime) {
        *self.end.lock() = Some(end);
    }

    pub(super) fn lost(&self, frames: u64) {
        self.lost.fetch_add(frames, Ordering::Relaxed);
    }

    pub(super) fn interrupted(&self, reason: GapReason, at: Option<WallTime>) {
        let Some(index) = &self.index else { return };
        let at = at.or(*self.end.lock());
        let change = Change::Interrupt { stream: self.stream.clone(), at, reason };
        let index = index.clone();
        self.pool.in_order(move || index.change(change));
    }

    /// What is recorded from here on stands in for the source, or is the source's again.
    pub(super) fn switched(&self, input: Input, at: WallTime) {
        let fallback = input == Input::Fallback;
        let text = if fallback {
            "the source is lost; what follows stands in for it"
        } else {
            "what follows is the source's again"
        };
        let data = serde_json::json!({ "fallback": fallback });
        self.mark(Mark { time: at, kind: "fallback".into(), text: text.into(), data });
    }

    /// Something has happened, now.
    pub(super) fn triggered(&self, trigger: RecordingTrigger) {
        let RecordingTrigger { kind, text, data, .. } = trigger;
        self.mark(Mark { time: WallTime::now(), kind, text, data });
    }

    fn mark(&self, mark: Mark) {
        let Some(index) = self.index.clone() else { return };
        let stream = self.stream.clone();
        self.pool.in_order(move || index.change(Change::Mark(stream, mark)));
    }

    /// The clock was set while a segment was being written.
    pub(super) fn clock_step(&self, at: WallTime, step: Duration, back: bool) {
        let seconds = step.as_secs_f64();
        let direction = if back { "back" } else { "forward" };
        let mark = Mark {
            time: at,
            kind: "clock_step".into(),
            text: format!("the system clock was set {direction} by {seconds:.1} s"),
            data: serde_json::json!({"step_secs": if back { -seconds } else { seconds }}),
        };
        self.mark(mark);
    }
}

impl Entry {
    /// The change that makes its row.
    pub(super) fn begun(&self) -> impl FnOnce() + Send + 'static {
        let (index, segment) = (self.index.clone(), self.segment.clone());
        move || index.change(Change::Begin(segment))
    }

    /// A part was written. `offset` is where it begins.
    pub(super) fn part(
        &mut self,
        offset: u64,
        len_bytes: u64,
        duration: Duration,
        frames: u64,
        keyframe: bool,
    ) {
        if self.end.bytes == 0 {
            self.end.parts = crate::storage::index::PartList::new(offset);
        }
        self.end.parts.push(len_bytes, duration, frames, keyframe);
        self.end.bytes = offset + len_bytes;
        self.end.duration_nanos += i64::try_from(duration.as_nanos()).unwrap_or(0);
        self.end.frames += frames;
        self.index.progress(self.segment.id, self.end.duration_nanos, self.end.bytes);
    }

    /// The whole of it was written, by a muxer that knows no parts.
    pub(super) fn whole(&mut self, bytes: u64, duration: Duration, frames: u64) {
        let duration_nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        self.end = SegmentEnd { duration_nanos, bytes, frames, ..SegmentEnd::default() };
    }

    /// The change that completes its row, if the file could be finished. One that could not is left to the
    /// next repair.
    pub(super) fn finished(self) -> impl FnOnce(bool) + Send + 'static {
        move |finished| {
            let Self { index, segment, end } = self;
            if finished {
                index.change(Change::Finish { segment, end });
            } else {
                index.leave_to_repair(&segment);
            }
        }
    }
}
