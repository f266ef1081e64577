//! One track as players get it: segments made of parts, the ones that are listed and the one that is being made.

use super::text::Texts;
use crate::frame::{CodecParameters, MediaTime, TrackId};
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How far apart the first numbers of parts are for segments one apart: numbers of segments begin with the time in
/// seconds, those of parts with milliseconds.
const PARTS_A_SEGMENT: u64 = 1000;

/// A part of a segment: one fragment, `moof` and `mdat`.
#[derive(Debug)]
pub struct Part {
    /// Its bytes.
    pub data: Bytes,
    /// When its first frame is decoded, in UTC.
    pub start: MediaTime,
    /// How long it is.
    pub duration: Duration,
    /// Whether decoding can start with it.
    pub independent: bool,
}

/// An initialization segment, and what goes with it.
#[derive(Debug)]
pub struct Init {
    /// The number of the first segment that goes with it.
    pub number: u64,
    /// Its bytes.
    pub data: Bytes,
    /// How frames are encoded.
    pub parameters: Arc<CodecParameters>,
}

/// A segment: its parts one after the other.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its media sequence number.
    pub number: u64,
    /// What goes before it.
    pub init: Arc<Init>,
    /// Whether it does not follow on the segment before it.
    pub discontinuity: bool,
    /// Counts the discontinuities of the whole presentation.
    pub epoch: u64,
    /// When its first frame is shown, in UTC.
    pub start: MediaTime,
    /// How long it is; of an unfinished one, how long its parts are.
    pub duration: Duration,
    /// Whether decoding can start with it.
    pub independent: bool,
    /// The number of its first part. Parts are numbered through the whole rendition, so that the next one's name does not
    /// depend on whether the segment ends before it.
    pub first_part: u64,
    /// Its parts.
    pub parts: Vec<Arc<Part>>,
    /// How many bytes it has.
    pub bytes: u64,
}

impl Segment {
    /// Bits per second.
    pub fn bitrate(&self) -> u64 {
        let micros = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX).max(1);
        self.bytes.saturating_mul(8_000_000) / micros
    }

    /// When it ends.
    pub fn end(&self) -> MediaTime {
        self.start + self.duration
    }

    /// The number of the part behind its last one.
    pub fn next_part(&self) -> u64 {
        self.first_part + self.parts.len() as u64
    }

    fn part(&self, number: u64) -> Option<&Arc<Part>> {
        self.parts.get(usize::try_from(number.checked_sub(self.first_part)?).ok()?)
    }
}

/// Whether a segment or part is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Have {
    /// It is, or newer ones are.
    Now,
    /// It is the next one or the one after.
    Later,
    /// It is further away than players may ask for.
    TooFar,
}

/// What a rendition holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) init: Arc<Init>,
    pub(super) segments: VecDeque<Arc<Segment>>,
    pub(super) open: Option<Segment>,
    /// The number of the segment that is begun next.
    pub(super) next: u64,
    /// The number of the part that comes next, while no segment is being made.
    pub(super) next_part: u64,
    /// That of the first one that playlists list: it never goes back (RFC 8216bis section 6.2.2), also when longer GOPs make
    /// the window longer.
    first_listed: u64,
    /// Discontinuities in front of what is held.
    pub(super) discontinuities: u64,
    pub(super) bytes: u64,
    pub(super) ended: bool,
    /// The highest bit rate of a segment.
    pub(super) peak: u64,
    /// Bytes and time of all segments.
    pub(super) total: (u64, Duration),
    pub(super) frames: u64,
}

/// One track of a [`Presentation`](super::Presentation).
#[derive(Debug)]
pub struct Rendition {
    name: String,
    /// `track_ID` in its fragments.
    id: u32,
    track: TrackId,
    held: RwLock<Held>,
    changed: watch::Sender<u64>,
    pub(super) texts: Texts,
}

impl Rendition {
    pub(super) fn new(name: String, track: TrackId, init: Arc<Init>) -> Self {
        let held = Held {
            next: init.number,
            // Of parts, too, none has a number that one had before a restart.
            next_part: init.number * PARTS_A_SEGMENT,
            first_listed: 0,
            init,
            segments: VecDeque::new(),
            open: None,
            discontinuities: 0,
            bytes: 0,
            ended: false,
            peak: 0,
            total: (0, Duration::ZERO),
            frames: 0,
        };
        let held = RwLock::new(held);
        Self { name, id: track.0 + 1, track, held, changed: watch::Sender::new(0), texts: Texts::default() }
    }

    /// As its playlist and its segments are called: `v0`, `a1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `track_ID` in its fragments.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The stream's track that it carries.
    pub fn track(&self) -> TrackId {
        self.track
    }

    /// How its frames are encoded at the moment.
    pub fn parameters(&self) -> Arc<CodecParameters> {
        self.held.read().init.parameters.clone()
    }

    /// Whether it is video.
    pub fn is_video(&self) -> bool {
        self.held.read().init.parameters.video().is_some()
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&Held) -> T) -> T {
        look(&self.held.read())
    }

    /// Changes what is held, and wakes who waits for that.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        let result = change(&mut self.held.write());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// A number that is another one after each change.
    pub fn version(&self) -> u64 {
        *self.changed.borrow()
    }

    /// The initialization segment that begins with this number.
    pub fn init(&self, number: u64) -> Option<Arc<Init>> {
        let held = self.held.read();
        let all = held.segments.iter().map(|s| &s.init).chain([&held.init]);
        all.rev().find(|init| init.number == number).cloned()
    }

    /// The segment with this number; an unfinished one as far as it is.
    pub fn segment(&self, number: u64) -> Option<Arc<Segment>> {
        let held = self.held.read();
        if let Some(open) = held.open.as_ref().filter(|open| open.number == number) {
            return Some(Arc::new(open.clone()));
        }
        let first = held.segments.front()?.number;
        held.segments.get(usize::try_from(number.checked_sub(first)?).ok()?).cloned()
    }

    /// A part of a segment, by its place in it.
    pub fn part_of(&self, segment: u64, index: usize) -> Option<Arc<Part>> {
        let held = self.held.read();
        if let Some(open) = held.open.as_ref().filter(|open| open.number == segment) {
            return open.parts.get(index).cloned();
        }
        let first = held.segments.front()?.number;
        held.segments.get(usize::try_from(segment.checked_sub(first)?).ok()?)?.parts.get(index).cloned()
    }

    /// A part by its number.
    pub fn part(&self, number: u64) -> Option<Arc<Part>> {
        let held = self.held.read();
        if let Some(open) = held.open.as_ref().filter(|open| open.first_part <= number) {
            return open.part(number).cloned();
        }
        let behind = held.segments.partition_point(|segment| segment.first_part <= number);
        held.segments.get(behind.checked_sub(1)?)?.part(number).cloned()
    }

    /// Whether a part is the next one that will be made.
    pub fn is_next_part(&self, number: u64) -> bool {
        let held = self.held.read();
        !held.ended && held.hinted_part() == number
    }

    /// Whether a segment is finished.
    pub fn is_complete(&self, number: u64) -> bool {
        let held = self.held.read();
        number < held.next && held.open.as_ref().is_none_or(|open| open.number != number)
    }

    /// Whether nothing more will come.
    pub fn has_ended(&self) -> bool {
        self.held.read().ended
    }

    /// Whether there is a finished segment.
    pub fn has_segment(&self) -> bool {
        !self.held.read().segments.is_empty()
    }

    /// Whether a playlist would have this segment, or this part of it (RFC 8216bis section 6.2.5.2). Without a part,
    /// the whole segment.
    pub fn have(&self, number: u64, part: Option<usize>) -> Have {
        let held = self.held.read();
        if held.ended {
            return Have::Now;
        }
        // A part behind a segment's last one means the next segment's first.
        let (number, part) = match (part, held.segments.back()) {
            (Some(p), Some(last)) if last.number == number && p >= last.parts.len() => (number + 1, Some(0)),
            (part, _) => (number, part),
        };
        let current = held.open.as_ref().map_or(held.next, |open| open.number);
        if number < current {
            return Have::Now;
        }
        if number > current + 1 {
            return Have::TooFar;
        }
        match (part, &held.open) {
            (Some(part), Some(open)) if number == current => {
                if part < open.parts.len() {
                    Have::Now
                } else if part > open.parts.len() + 1000 {
                    Have::TooFar
                } else {
                    Have::Later
                }
            }
            _ => Have::Later,
        }
    }

    /// Waits until this holds. The caller bounds the wait.
    pub async fn wait_until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if holds(self) || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The bit rate that is not exceeded, and the mean one, in bits per second; none before the first part.
    pub fn bitrates(&self) -> Option<(u64, u64)> {
        let held = self.held.read();
        let open = held.open.as_ref().filter(|open| !open.parts.is_empty());
        let first = || open.filter(|_| held.segments.is_empty()).map(Segment::bitrate);
        let (bytes, time) = held.total;
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return first().map(|rate| (rate, rate));
        }
        let mean = u64::try_from(u128::from(bytes) * 8_000_000 / u128::from(micros)).unwrap_or(u64::MAX);
        Some((held.peak.max(mean), mean))
    }
}

impl Held {
    /// The number of the part that will most likely come next.
    pub(super) fn hinted_part(&self) -> u64 {
        self.open.as_ref().map_or(self.next_part, Segment::next_part)
    }

    /// Adds a part to the segment that is being made.
    pub(super) fn add_part(&mut self, part: Arc<Part>, frames: usize) {
        self.frames += frames as u64;
        let Some(open) = &mut self.open else { return };
        self.bytes += part.data.len() as u64;
        open.bytes += part.data.len() as u64;
        open.duration += part.duration;
        open.parts.push(part);
    }

    /// Finishes the segment that is being made. An empty one never was.
    pub(super) fn close(&mut self) {
        let Some(segment) = self.open.take() else { return };
        self.next_part = segment.next_part();
        if segment.parts.is_empty() {
            self.next = segment.number;
            return;
        }
        // The first one may be a piece of a GOP only, whose rate says nothing.
        if segment.independent {
            self.peak = self.peak.max(segment.bitrate());
        }
        self.total.0 += segment.bytes;
        self.total.1 += segment.duration;
        self.segments.push_back(Arc::new(segment));
    }

    /// Lists the newest segments, and forgets the oldest: those behind twice what is listed.
    pub(super) fn trim(&mut self, window: Duration, max_bytes: u64) {
        let mut listed = Duration::ZERO;
        let first = self.segments.iter().rev().find(|segment| {
            listed += segment.duration;
            listed >= window
        });
        self.first_listed = first.map_or(0, |first| first.number).max(self.first_listed);
        let total: Duration = self.segments.iter().map(|s| s.duration).sum();
        let mut over = total.saturating_sub(window * 2);
        while let Some(first) = self.segments.front() {
            let old = first.duration <= over && self.segments.len() > 3;
            if !old && self.bytes <= max_bytes {
                return;
            }
            over = over.saturating_sub(first.duration);
            self.bytes -= first.bytes;
            self.discontinuities += u64::from(first.discontinuity);
            self.segments.pop_front();
        }
    }

    /// Where playlists begin.
    pub(super) fn listed_from(&self) -> usize {
        self.segments.partition_point(|segment| segment.number < self.first_listed)
    }
}
