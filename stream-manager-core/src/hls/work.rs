//! What a packager does while it is wanted: hub items in, parts out.

use super::clock::Clock;
use super::presentation::Presentation;
use super::rendition::Rendition;
use super::rules::{LeftOut, plan};
use super::track::{Making, targets_of};
use crate::fmp4::Fmp4Error;
use crate::frame::{Frame, MediaTime, Track};
use crate::hub::{Hub, HubItem};
use std::sync::Arc;
use std::time::Duration;

/// Sound may be this far ahead of a picture that does not come; then it goes on alone.
const MAX_AHEAD: Duration = Duration::from_secs(1);

pub(super) struct Work {
    presentation: Arc<Presentation>,
    id: Arc<str>,
    makings: Vec<Making>,
    clock: Clock,
    /// The clock is to take a difference over with the next frame.
    gap: bool,
    /// How far the main track has come.
    reached: Option<MediaTime>,
    /// Where its segment has begun.
    segment_start: Option<MediaTime>,
    last_end: Option<MediaTime>,
    begun: bool,
    next_number: u64,
}

impl Work {
    pub(super) fn new(presentation: Arc<Presentation>, id: Arc<str>, next_number: u64) -> Self {
        Self {
            presentation,
            id,
            makings: Vec::new(),
            clock: Clock::default(),
            gap: false,
            reached: None,
            segment_start: None,
            last_end: None,
            begun: false,
            next_number,
        }
    }

    /// The number that no segment has had.
    pub(super) fn next_number(&self) -> u64 {
        let held = |making: &Making| making.rendition.read(|held| held.next);
        self.makings.iter().map(held).max().unwrap_or(0).max(self.next_number)
    }

    /// What a hub keeps for those who come late, all at once.
    pub(super) async fn begin(&mut self, hub: &Hub, items: Vec<HubItem>) {
        let frames = || items.iter().filter_map(|i| if let HubItem::Frame(f) = i { Some(f) } else { None });
        frames().for_each(|frame| self.clock.see(frame));
        if let Some(HubItem::Tracks(tracks)) = items.iter().rev().find(|i| matches!(i, HubItem::Tracks(_))) {
            self.set_tracks(tracks);
        }
        if let Some(main) = self.makings.first_mut() {
            let times: Vec<MediaTime> =
                frames().filter(|frame| frame.track == main.planned.id).map(|frame| frame.dts).collect();
            main.learn_interval(times.windows(2).map(|w| w[1].saturating_since(w[0])).collect());
            self.begun = true;
            self.presentation.promise(targets_of(main, hub.gop_duration(), self.presentation.settings()));
        }
        for item in items {
            self.take(item).await;
        }
    }

    pub(super) async fn take(&mut self, item: HubItem) {
        match item {
            HubItem::Tracks(tracks) => self.set_tracks(&tracks),
            HubItem::Discontinuity => self.interrupt(),
            HubItem::Lagged { frames, .. } => {
                tracing::warn!(stream = %self.id, frames, "packaging was too slow");
                self.interrupt();
            }
            HubItem::Frame(frame) => self.frame(frame).await,
            // What that changes is told as tracks and as a discontinuity.
            HubItem::Input(_) => {}
        }
    }

    fn failed(&self, rendition: &Rendition, error: &Fmp4Error) {
        tracing::warn!(stream = %self.id, rendition = rendition.name(), %error, "a part could not be made");
    }

    /// Nothing that comes follows on what has been.
    fn interrupt(&mut self) {
        let mut makings = std::mem::take(&mut self.makings);
        for making in &mut makings {
            if let Err(error) = making.interrupt(&self.presentation) {
                self.failed(&making.rendition, &error);
            }
            if let Some(encoder) = &mut making.encoder {
                encoder.reset();
            }
            self.last_end = self.last_end.max(making.end);
        }
        if makings.iter().any(|m| m.rendition.has_segment()) {
            self.presentation.next_epoch();
        }
        self.makings = makings;
        self.gap = true;
        self.reached = None;
        self.segment_start = None;
    }

    fn set_tracks(&mut self, tracks: &[Track]) {
        let (planned, mut left_out) = plan(tracks);
        if planned.iter().eq(self.makings.iter().map(|m| &m.planned))
            && self.presentation.left_out() == left_out
        {
            return;
        }
        let number = self.next_number();
        self.interrupt();
        let mut old = std::mem::take(&mut self.makings);
        for planned in planned {
            let (track, codec) = (planned.id.0, planned.input.codec().name());
            let same = old.iter().position(|m| m.rendition.name() == planned.name());
            let made = match same.map(|at| old.swap_remove(at)) {
                Some(mut making) => making.change(planned).map(|()| making),
                None => Making::new(planned, number),
            };
            match made {
                Ok(making) => self.makings.push(making),
                Err(error) => left_out.push(LeftOut { track, codec, reason: error.to_string() }),
            }
        }
        for gone in old {
            gone.rendition.change(|held| held.ended = true);
        }
        self.makings.sort_by_key(|m| (!m.is_video(), m.planned.id));
        let renditions = self.makings.iter().map(|m| m.rendition.clone()).collect();
        self.presentation.set(renditions, left_out);
        if let Some(main) = self.makings.first().filter(|_| !std::mem::replace(&mut self.begun, true)) {
            self.presentation.promise(targets_of(main, None, self.presentation.settings()));
        }
    }

    async fn frame(&mut self, frame: Frame) {
        let Some(index) = self.makings.iter().position(|m| m.planned.id == frame.track) else { return };
        self.clock.see(&frame);
        if std::mem::take(&mut self.gap) {
            self.clock.step(&frame, self.last_end);
        }
        if index == 0 && frame.keyframe {
            self.clock.align(&frame);
        }
        let own = frame.pts;
        let frame = self.clock.place(frame);
        self.presentation.set_ahead(frame.pts.as_nanos() - own.as_nanos());
        if index == 0 && self.makings[0].encoder.is_none() {
            return self.main_frame(frame);
        }
        let frames = match &mut self.makings[index].encoder {
            None => vec![frame],
            Some(encoder) => match encoder.push(&frame).await {
                Ok(frames) => frames,
                Err(error) => return self.give_up(index, &error.to_string()),
            },
        };
        if index == 0 {
            frames.into_iter().for_each(|frame| self.main_frame(frame));
            return;
        }
        self.makings[index].queue.extend(frames);
        self.release(index);
    }

    /// A track that cannot be encoded is left out from now on.
    fn give_up(&mut self, index: usize, reason: &str) {
        let gone = self.makings.remove(index);
        tracing::warn!(stream = %self.id, rendition = gone.rendition.name(), reason, "a track is left out");
        gone.rendition.change(|held| held.ended = true);
        let mut left_out = self.presentation.left_out();
        let codec = gone.planned.input.codec().name();
        left_out.push(LeftOut { track: gone.planned.id.0, codec, reason: reason.to_owned() });
        self.presentation.set(self.makings.iter().map(|m| m.rendition.clone()).collect(), left_out);
    }

    fn main_frame(&mut self, frame: Frame) {
        let dts = frame.dts;
        match self.makings[0].push_main(frame, &self.presentation) {
            Ok(Some(start)) => {
                for other in &mut self.makings[1..] {
                    other.boundaries.push_back(start);
                }
                if let Some(before) = self.segment_start.replace(start) {
                    self.clock.follow(start.as_nanos() - before.as_nanos());
                }
            }
            Ok(None) => {}
            Err(error) => self.failed(&self.makings[0].rendition, &error),
        }
        self.reached = Some(dts);
        for index in 1..self.makings.len() {
            self.release(index);
        }
    }

    /// Hands on what waits as far as the main track has come.
    fn release(&mut self, index: usize) {
        let making = &mut self.makings[index];
        let newest = making.queue.back().map(|frame| frame.pts);
        let alone = newest.map(|newest| newest - MAX_AHEAD);
        let limit = self.reached.max(alone);
        let mut failure = None;
        while making.queue.front().is_some_and(|frame| Some(frame.pts) <= limit)
            && let Some(frame) = making.queue.pop_front()
        {
            if let Err(error) = making.push_other(frame, &self.presentation) {
                failure = Some(error);
            }
        }
        if let Some(error) = failure {
            self.failed(&self.makings[index].rendition, &error);
        }
    }

    /// Finishes what has been begun.
    pub(super) fn finish(&mut self) {
        self.interrupt();
        self.presentation.end();
    }
}
