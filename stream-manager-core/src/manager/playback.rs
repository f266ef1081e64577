//! Recordings, watched again.

use super::{ManagerError, StreamManager};
use crate::event::RecordingState;
use crate::frame::WallTime;
use crate::playback::{Archive, Follower, Plan, PlanFrames, PlaybackRequest};
use crate::storage::index::{Mark, RecordingItem, TimeRange};

/// Spans and gaps, and marks, of a timeline at most.
const MAX_ITEMS: usize = 20_000;
/// How many are asked for at once.
const PAGE: usize = 2000;

/// What there is of a range of time, for drawing it.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Spans and gaps, in order.
    pub items: Vec<RecordingItem>,
    /// What happened.
    pub marks: Vec<Mark>,
    /// Where it breaks off, if there is more than can be told at once.
    pub next: Option<WallTime>,
}

impl StreamManager {
    pub(super) fn archive(&self) -> Result<Archive, ManagerError> {
        let index = self.index().ok_or(ManagerError::NoIndex)?;
        Ok(self.inner.archive.get_or_init(|| Archive::new(index.clone())).clone())
    }

    /// What has been recorded of a stream in a range, as one file; also of streams that are no longer there.
    ///
    /// # Errors
    /// If there is no such stream, nothing has been recorded, or it cannot be played.
    pub async fn plan_playback(&self, id: &str, request: PlaybackRequest) -> Result<Plan, ManagerError> {
        let archive = self.archive()?;
        let id = self.recorded_id(id).await?;
        Ok(archive.plan(&id, request).await?)
    }

    /// Goes on behind a plan without an end, as long as the stream is being recorded. `None` if the plan has ended for another reason.
    ///
    /// # Errors
    /// If there is no index.
    pub fn follow_playback(&self, id: &str, plan: &Plan) -> Result<Option<Follower>, ManagerError> {
        let (weak, id) = (std::sync::Arc::downgrade(&self.inner), id.to_owned());
        let named = id.clone();
        let goes_on = move || {
            let Some(inner) = weak.upgrade() else { return false };
            let manager = StreamManager { inner };
            manager.info(&named).is_ok_and(|info| info.recording_state() != RecordingState::Off)
        };
        Ok(self.archive()?.follow(&id, plan, goes_on))
    }

    /// The frames of what has been recorded of a stream in a range; without an end also of what follows.
    ///
    /// # Errors
    /// As [`plan_playback`](Self::plan_playback).
    pub async fn recorded_frames(
        &self,
        id: &str,
        request: PlaybackRequest,
    ) -> Result<PlanFrames, ManagerError> {
        let plan = self.plan_playback(id, request).await?;
        let follower = match request.end {
            None => self.follow_playback(id, &plan)?,
            Some(_) => None,
        };
        Ok(PlanFrames::new(plan, follower)?)
    }

    /// Spans, gaps and marks of a stream in a range. Gaps shorter than `resolution` are not told, and what they part becomes one.
    ///
    /// # Errors
    /// As [`recordings`](Self::recordings).
    pub async fn timeline(
        &self,
        id: &str,
        range: TimeRange,
        resolution: std::time::Duration,
    ) -> Result<Timeline, ManagerError> {
        let mut timeline = Timeline::default();
        let mut from = range;
        loop {
            let (items, next) = self.recordings(id, from, PAGE).await?;
            items.into_iter().for_each(|item| join(&mut timeline.items, item, resolution));
            match next {
                Some(next) if timeline.items.len() < MAX_ITEMS => from.start = next,
                next => {
                    timeline.next = next;
                    break;
                }
            }
        }
        let until = TimeRange { end: timeline.next.unwrap_or(range.end), ..range };
        if until.start < until.end {
            timeline.marks = self.marks(id, until, MAX_ITEMS).await?;
        }
        Ok(timeline)
    }
}

/// Adds an item to those before it.
fn join(items: &mut Vec<RecordingItem>, item: RecordingItem, resolution: std::time::Duration) {
    if let RecordingItem::Gap { start, end: Some(end), .. } = &item
        && end.saturating_since(*start) < resolution
    {
        return;
    }
    if let RecordingItem::Span { start, end, bytes, segments, complete, protected } = &item
        && let Some(RecordingItem::Span {
            end: before,
            bytes: all,
            segments: count,
            complete: whole,
            protected: any,
            ..
        }) = items.last_mut()
        && start.saturating_since(*before) < resolution
    {
        *before = (*before).max(*end);
        *all += bytes;
        *count += segments;
        *whole &= complete;
        *any |= protected;
        return;
    }
    items.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::index::GapReason;
    use std::time::Duration;

    fn time(seconds: i64) -> WallTime {
        WallTime::from_unix_nanos(seconds * 1_000_000_000)
    }

    fn span(from: i64, to: i64) -> RecordingItem {
        let (start, end) = (time(from), time(to));
        RecordingItem::Span { start, end, bytes: 1, segments: 1, complete: true, protected: false }
    }

    #[test]
    fn short_gaps_are_not_drawn() {
        let gap = |from, to: Option<i64>| RecordingItem::Gap {
            start: time(from),
            end: to.map(time),
            reason: GapReason::Source,
            frames: 0,
        };
        let all =
            [span(0, 10), gap(10, Some(12)), span(12, 20), gap(20, Some(50)), span(50, 60), gap(60, None)];
        let drawn = |resolution| {
            let mut items = Vec::new();
            all.iter().for_each(|item| join(&mut items, item.clone(), Duration::from_secs(resolution)));
            items
        };
        assert_eq!(drawn(0), all);
        let RecordingItem::Span { end, bytes, segments, .. } = drawn(5)[0].clone() else { panic!("no span") };
        assert_eq!((drawn(5).len(), end, bytes, segments), (4, time(20), 2, 2));
        assert_eq!(drawn(60).len(), 2);
    }
}
