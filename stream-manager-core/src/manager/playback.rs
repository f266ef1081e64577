//! Recordings, watched again.

use super::{ManagerError, StreamManager};
use crate::event::RecordingState;
use crate::frame::WallTime;
use crate::playback::{Archive, Follower, Plan, PlanFrames, PlaybackRequest};
use crate::storage::index::{Mark, MarkFilter, MarkRow, RecordingItem, TimeRange};
use std::collections::HashMap;
use std::time::Duration;

/// Spans and gaps, and marks, of a timeline at most.
const MAX_ITEMS: usize = 20_000;
/// How many are asked for at once.
const PAGE: usize = 2000;

/// What there is of a range of time, for drawing it.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Spans and gaps, in order.
    pub items: Vec<RecordingItem>,
    /// What happened, in order.
    pub marks: Vec<MarkGroup>,
    /// What no retention deletes, in order.
    pub protected: Vec<TimeRange>,
    /// Where it breaks off, if there is more than can be told at once.
    pub next: Option<WallTime>,
}

/// Marks of one kind that are too close to each other to be drawn beside each other.
#[derive(Clone, Debug, PartialEq)]
pub struct MarkGroup {
    /// The first of them.
    pub first: Mark,
    /// How many there are.
    pub count: u64,
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

    /// Spans, gaps and marks of a stream in a range. Gaps shorter than `resolution` are not told, and what they part becomes one; so
    /// do marks of a kind that are closer to each other.
    ///
    /// # Errors
    /// As [`recordings`](Self::recordings).
    pub async fn timeline(
        &self,
        id: &str,
        range: TimeRange,
        resolution: Duration,
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
            let index = self.need_index()?;
            let name = self.recorded_id(id).await?;
            timeline.protected = index
                .read(move |catalog| catalog.protected_ranges(&name, until, resolution, MAX_ITEMS))
                .await?;
            self.group_marks(id, until, resolution, &mut timeline).await?;
        }
        Ok(timeline)
    }

    async fn group_marks(
        &self,
        id: &str,
        range: TimeRange,
        resolution: Duration,
        timeline: &mut Timeline,
    ) -> Result<(), ManagerError> {
        let mut filter = MarkFilter { stream: Some(id.to_owned()), range, ..MarkFilter::default() };
        let mut groups = Groups::default();
        loop {
            let rows = self.find_marks(filter.clone(), PAGE).await?;
            let Some(last) = rows.last() else { break };
            filter.after = Some((last.mark.time, last.id));
            let whole = rows.len() < PAGE;
            rows.into_iter().for_each(|MarkRow { mark, .. }| groups.add(mark, resolution));
            if groups.all.len() >= MAX_ITEMS {
                // What comes after is for the next time, spans as well.
                let end = groups.all.last().map_or(range.end, |group| group.first.time);
                groups.all.retain(|group| group.first.time < end);
                timeline.items.retain(|item| item.start() < end);
                timeline.next = Some(end);
                break;
            }
            if whole {
                break;
            }
        }
        timeline.marks = groups.all;
        Ok(())
    }
}

/// Marks, of which those close to each other are one.
#[derive(Default)]
struct Groups {
    all: Vec<MarkGroup>,
    /// Where the newest of a kind is.
    newest: HashMap<String, usize>,
}

impl Groups {
    fn add(&mut self, mark: Mark, resolution: Duration) {
        let at = self.newest.get(&mark.kind).copied();
        if let Some(group) = at.and_then(|at| self.all.get_mut(at))
            && mark.time.saturating_since(group.first.time) < resolution
        {
            group.count += 1;
            return;
        }
        self.newest.insert(mark.kind.clone(), self.all.len());
        self.all.push(MarkGroup { first: mark, count: 1 });
    }
}

/// Adds an item to those before it.
fn join(items: &mut Vec<RecordingItem>, item: RecordingItem, resolution: Duration) {
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

    #[test]
    fn marks_that_are_close_are_one() {
        let mark = |at, kind: &str| Mark {
            time: time(at),
            kind: kind.into(),
            text: String::new(),
            data: serde_json::Value::Null,
        };
        let counts = |resolution| {
            let mut groups = Groups::default();
            for (at, kind) in [(0, "a"), (1, "b"), (4, "a"), (9, "a"), (11, "a"), (30, "b")] {
                groups.add(mark(at, kind), Duration::from_secs(resolution));
            }
            groups.all.iter().map(|group| (group.first.kind.clone(), group.count)).collect::<Vec<_>>()
        };
        assert_eq!(counts(0).len(), 6);
        let pair = |kind: &str, count| (kind.to_owned(), count);
        assert_eq!(counts(10), [pair("a", 3), pair("b", 1), pair("a", 1), pair("b", 1)]);
        assert_eq!(counts(100), [pair("a", 4), pair("b", 2)]);
    }
}
