//! All parts in the order in which they were made: endless fMP4 for those who read along.
//!
//! A [`LiveReader`] has no queue, only its place in the [`Ring`] of the last parts. One that is too slow for that is
//! brought forward to the newest keyframe.

use super::presentation::Presentation;
use super::rendition::{Init, Part};
use crate::fmp4::{CmafTrack, Fmp4Error, Shifted, init_segment, shift_fragment};
use crate::frame::{CodecParameters, MediaTime};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How far behind a reader may be.
const LENGTH: Duration = Duration::from_secs(10);

/// A part on its way to those who read along.
#[derive(Clone, Debug)]
pub struct LiveItem {
    /// Its number, counted over all tracks.
    pub sequence: u64,
    /// `track_ID`.
    pub track: u32,
    /// The initialization segment that goes before it.
    pub init: Arc<Init>,
    /// The part.
    pub part: Arc<Part>,
    /// Whether a reader can begin here.
    pub sync: bool,
}

/// The last parts of all tracks.
#[derive(Debug, Default)]
pub(super) struct Ring {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<LiveItem>,
    next: u64,
    bytes: u64,
    ended: bool,
}

impl State {
    fn forget_first(&mut self) {
        let gone = self.items.pop_front();
        self.bytes -= gone.map_or(0, |item| item.part.data.len() as u64);
    }
}

impl Ring {
    pub(super) fn push(&self, track: u32, init: Arc<Init>, part: Arc<Part>, sync: bool, max_bytes: u64) {
        let mut state = self.state.lock();
        state.bytes += part.data.len() as u64;
        let sequence = state.next;
        state.next += 1;
        let newest = part.start;
        state.items.push_back(LiveItem { sequence, track, init, part, sync });
        // The newest beginning always stays, however long ago it was: without it nobody could begin.
        let last_sync = state.items.iter().rposition(|item| item.sync).unwrap_or(0);
        let old = |item: &LiveItem| newest.saturating_since(item.part.start) > LENGTH;
        let gone = state.items.iter().take(last_sync).take_while(|item| old(item)).count();
        for _ in 0..gone {
            state.forget_first();
        }
        // Unless it is more than may be held.
        while state.bytes > max_bytes && state.items.len() > 1 {
            state.forget_first();
        }
        drop(state);
        self.changed.send_replace(sequence);
    }

    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.send_modify(|_| {});
    }
}

/// The tracks that follow, as a player has to be told.
#[derive(Clone, Debug)]
pub struct LiveTracks {
    /// The initialization segment (`ftyp`, `moov`).
    pub init: Bytes,
    /// The MIME type with the codecs, as Media Source Extensions want it.
    pub mime: String,
    /// What the reader's zero is on the stream's timeline.
    pub zero: MediaTime,
}

/// Somebody who reads along.
pub struct LiveReader {
    presentation: Arc<Presentation>,
    changes: watch::Receiver<u64>,
    /// The next item's number; none before the first.
    next: Option<u64>,
    zero: Option<MediaTime>,
    /// The tracks as they have been told: `track_ID` and the number of its initialization segment.
    told: Vec<(u32, Arc<Init>)>,
    skipped: u64,
    /// Fragments are numbered for each reader.
    sequence: u32,
}

impl LiveReader {
    /// Begins with the newest keyframe that there is.
    pub fn new(presentation: Arc<Presentation>) -> Self {
        let changes = presentation.ring.changed.subscribe();
        Self { presentation, changes, next: None, zero: None, told: Vec::new(), skipped: 0, sequence: 0 }
    }

    /// Parts that it was too slow for.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What waits for it, without waiting: parts in their order. Empty if nothing is there; `None` if nothing will come.
    pub fn take(&mut self) -> Option<Vec<LiveItem>> {
        let state = self.presentation.ring.state.lock();
        let first = state.items.front().map_or(state.next, |item| item.sequence);
        let lost = self.next.is_none_or(|next| next < first);
        if lost {
            let begin = state.items.iter().rfind(|item| item.sync).map(|item| item.sequence);
            let Some(begin) = begin else {
                return (!state.ended).then(Vec::new);
            };
            self.skipped += self.next.map_or(0, |next| begin.saturating_sub(next));
            self.next = Some(begin);
        }
        let next = self.next.unwrap_or(first);
        let items: Vec<LiveItem> =
            state.items.iter().skip(usize::try_from(next - first).unwrap_or(usize::MAX)).cloned().collect();
        if items.is_empty() && state.ended {
            return None;
        }
        self.next = Some(next + items.len() as u64);
        Some(items)
    }

    /// The next parts; `None` at the end of the stream. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<LiveItem>> {
        loop {
            self.changes.mark_unchanged();
            let items = self.take()?;
            if !items.is_empty() {
                return Some(items);
            }
            self.changes.changed().await.ok()?;
        }
    }

    /// The tracks, if a player has to be told of them before this part: at the beginning, and when one is encoded
    /// differently.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn tracks_before(&mut self, item: &LiveItem) -> Result<Option<LiveTracks>, Fmp4Error> {
        let known = self.told.iter().find(|(track, _)| *track == item.track);
        if known.is_some_and(|(_, init)| Arc::ptr_eq(init, &item.init) || init.data == item.init.data) {
            return Ok(None);
        }
        let renditions = self.presentation.renditions();
        self.told = renditions
            .iter()
            .map(|r| (r.id(), r.read(|held| held.init.clone())))
            .map(|(id, init)| if id == item.track { (id, item.init.clone()) } else { (id, init) })
            .collect();
        let zero = *self.zero.get_or_insert(item.part.start);
        let tracks: Vec<CmafTrack> = self
            .told
            .iter()
            .map(|(id, init)| CmafTrack { id: *id, parameters: init.parameters.clone() })
            .collect();
        Ok(Some(LiveTracks {
            init: init_segment(&tracks)?,
            mime: mime(tracks.iter().map(|t| &*t.parameters)),
            zero: self.presentation.of_stream(zero),
        }))
    }
}

impl LiveReader {
    /// A part as this reader gets it, in pieces: its time begins at zero. Nothing if it lies before that: sound that
    /// belongs to pictures of before.
    pub fn pieces(&mut self, item: &LiveItem) -> Option<Shifted> {
        let zero = *self.zero.get_or_insert(item.part.start);
        if item.part.start < zero {
            return None;
        }
        let ticks = zero.to_ticks(item.init.parameters.clock_rate());
        self.sequence = self.sequence.wrapping_add(1);
        shift_fragment(&item.part.data, u64::try_from(ticks).unwrap_or(0), self.sequence)
    }
}

/// The MIME type of fMP4 with these tracks (RFC 6381).
fn mime<'a>(tracks: impl Iterator<Item = &'a CodecParameters>) -> String {
    let codecs: Vec<String> = tracks.filter_map(CodecParameters::rfc6381).collect();
    format!("video/mp4; codecs=\"{}\"", codecs.join(", "))
}
