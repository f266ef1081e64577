//! One consumer's bounded queue, and the rule for a consumer that is too slow.
//!
//! When a frame does not fit, everything queued from the last video keyframe on is dropped, and whatever
//! comes after it until the next keyframe for which there is room. So the consumer loses whole GOPs, what
//! it gets stays decodable, and a [`HubItem::Lagged`] stands exactly where the hole is.

use super::HubItem;
use crate::frame::{Frame, MediaTime};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Notify;

/// How much a consumer may leave unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Frames.
    pub frames: usize,
    /// Bytes of payload.
    pub bytes: usize,
}

impl Default for QueueLimits {
    /// 1024 frames (about 15 s of a camera with sound) and 64 MiB.
    fn default() -> Self {
        Self { frames: 1024, bytes: 64 << 20 }
    }
}

/// What a consumer's queue has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerStats {
    /// Frames handed out.
    pub frames: u64,
    /// Bytes handed out.
    pub bytes: u64,
    /// Frames dropped because the consumer was too slow.
    pub dropped_frames: u64,
    /// Frames waiting.
    pub queued_frames: usize,
    /// Bytes waiting.
    pub queued_bytes: usize,
    /// Media time between the newest waiting frame and the last one handed out.
    pub lag: Duration,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) notify: Notify,
    limits: QueueLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<HubItem>,
    frames: usize,
    bytes: usize,
    /// Nothing is taken until the next keyframe.
    skipping: bool,
    /// Skipping because it came in mid-GOP, which is no loss.
    joining: bool,
    lost_frames: u64,
    lost_bytes: u64,
    closed: bool,
    /// Room beyond the limits for the kept GOP that it began with: frames and bytes.
    extra: (usize, usize),
    stats: ConsumerStats,
    newest: Option<MediaTime>,
    /// Frames that are decoded before this do not wake the reader.
    wake_at: Option<MediaTime>,
    last_out: Option<MediaTime>,
}

impl Consumer {
    pub(super) fn new(id: u64, name: String, limits: QueueLimits, skip_to_keyframe: bool) -> Self {
        let state = State { skipping: skip_to_keyframe, joining: skip_to_keyframe, ..State::default() };
        Self { id, name, notify: Notify::new(), limits, state: Mutex::new(state) }
    }

    /// Makes room for a kept GOP, however long it is: it is what the consumer has come for.
    pub(super) fn make_room(&self, frames: usize, bytes: usize) {
        self.state.lock().extra = (frames, bytes);
    }

    /// Queues a frame. `sync` says that decoding may start at it.
    pub(super) fn push_frame(&self, frame: &Frame, sync: bool) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.newest = Some(frame.dts);
        let size = frame.data.len();
        // A frame larger than the whole limit still passes through an empty queue.
        let limits = QueueLimits {
            frames: self.limits.frames + state.extra.0,
            bytes: self.limits.bytes + state.extra.1,
        };
        let fits = state.frames < limits.frames && (state.bytes + size <= limits.bytes || state.frames == 0);
        if state.skipping {
            // Half empty at least, or the next frames would be cut off again at once.
            let room = state.frames * 2 <= limits.frames && state.bytes * 2 <= limits.bytes;
            if sync && fits && room {
                state.skipping = false;
                state.joining = false;
                state.report_loss();
            } else {
                if !state.joining {
                    state.lose(size);
                }
                return;
            }
        } else if !fits {
            state.drop_tail();
            state.lose(size);
            state.skipping = true;
            return;
        }
        state.frames += 1;
        state.bytes += size;
        state.items.push_back(HubItem::Frame(frame.clone()));
        let wake = state.wake_at.is_none_or(|at| frame.dts >= at);
        drop(state);
        if wake {
            self.notify.notify_one();
        }
    }

    /// Queues something that is not a frame; never dropped.
    pub(super) fn push_item(&self, item: HubItem) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        // A source that changes its parameters in a loop while nobody reads must not grow the queue.
        if state.items.len() > self.limits.frames + 64 {
            state.items.retain(|queued| std::mem::discriminant(queued) != std::mem::discriminant(&item));
        }
        state.items.push_back(item);
        drop(state);
        self.notify.notify_one();
    }

    pub(super) fn wake_at(&self, time: Option<MediaTime>) {
        self.state.lock().wake_at = time;
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.notify.notify_one();
    }

    /// The next item; `Err(closed)` if there is none at the moment.
    pub(super) fn pop(&self) -> Result<HubItem, bool> {
        let mut state = self.state.lock();
        let Some(item) = state.items.pop_front() else {
            return Err(state.closed);
        };
        if let HubItem::Frame(frame) = &item {
            state.frames -= 1;
            state.bytes -= frame.data.len();
            state.stats.frames += 1;
            state.stats.bytes += frame.data.len() as u64;
            state.last_out = Some(frame.dts);
        }
        Ok(item)
    }

    pub(super) fn stats(&self) -> ConsumerStats {
        let state = self.state.lock();
        ConsumerStats {
            queued_frames: state.frames,
            queued_bytes: state.bytes,
            lag: match (state.newest, state.last_out) {
                (Some(newest), Some(last)) => newest.saturating_since(last),
                _ => Duration::ZERO,
            },
            ..state.stats
        }
    }
}

impl State {
    fn lose(&mut self, size: usize) {
        self.lost_frames += 1;
        self.lost_bytes += size as u64;
        self.stats.dropped_frames += 1;
    }

    /// Drops the queued frames from the last video keyframe on; other items stay where they are.
    fn drop_tail(&mut self) {
        let Some(start) = self
            .items
            .iter()
            .rposition(|item| matches!(item, HubItem::Frame(f) if f.keyframe && f.is_video()))
        else {
            return;
        };
        for item in self.items.split_off(start) {
            if let HubItem::Frame(frame) = item {
                self.frames -= 1;
                self.bytes -= frame.data.len();
                self.lose(frame.data.len());
            } else {
                self.items.push_back(item);
            }
        }
    }

    fn report_loss(&mut self) {
        let (frames, bytes) = (std::mem::take(&mut self.lost_frames), std::mem::take(&mut self.lost_bytes));
        if frames > 0 {
            self.items.push_back(HubItem::Lagged { frames, bytes });
        }
    }
}
