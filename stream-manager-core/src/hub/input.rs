//! Which of a stream's two inputs is let in: its source, or what stands in for it.
//!
//! The source is let in until [`Shared::stand_in`] says otherwise. What the fallback writes before that is held, one GOP at most, so
//! that a picture is there at once; its frames keep the times of their arrival, which lie in the gap that the source has left. What a
//! source writes while it is not let in only counts: once it has delivered for long enough without a pause, it is let in at its next
//! keyframe, with that.

use super::{HubError, HubItem, Inner, RawFrame, Shared};
use crate::frame::{CodecParameters, MediaKind, Track, TrackId, WallTime};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A source that delivers nothing for this long is not back yet.
const PAUSE: Duration = Duration::from_secs(1);

/// Where frames come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// The stream's source.
    #[default]
    Main,
    /// What stands in for it.
    Fallback,
}

/// What is known of an input, whether it is let in or not.
#[derive(Debug, Default)]
pub(super) struct InputState {
    /// Its tracks, as it told them last.
    pub(super) tracks: Vec<Arc<CodecParameters>>,
    /// When its last frame came.
    pub(super) last: Option<Instant>,
    /// Since when its frames come without a pause.
    since: Option<Instant>,
    /// Its frames since its last keyframe, while it waits to be let in.
    held: Vec<(RawFrame, Instant, WallTime)>,
    held_bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Inputs {
    active: Input,
    main: InputState,
    fallback: InputState,
    /// The fallback is to be let in, as soon as it has a keyframe.
    wanted: bool,
    return_after: Duration,
}

impl InputState {
    /// A frame of it has come.
    fn seen(&mut self, now: Instant) {
        let paused = self.last.is_none_or(|last| now.saturating_duration_since(last) > PAUSE);
        if paused || self.since.is_none() {
            self.since = Some(now);
        }
        self.last = Some(now);
    }

    pub(super) fn begin_session(&mut self) {
        self.since = None;
        self.let_go();
    }

    pub(super) fn let_go(&mut self) {
        self.held = Vec::new();
        self.held_bytes = 0;
    }

    /// Whether decoding can begin with this frame.
    fn is_sync(&self, frame: &RawFrame) -> bool {
        let video = self.tracks.iter().position(|p| p.kind() == MediaKind::Video);
        video.is_none_or(|video| frame.keyframe && frame.track as usize == video)
    }

    fn hold(&mut self, frame: RawFrame, now: Instant, wall_clock: WallTime, max_bytes: usize) {
        if self.is_sync(&frame) {
            self.let_go();
        } else if self.held.is_empty() {
            return;
        }
        self.held_bytes += frame.data.len();
        self.held.push((frame, now, wall_clock));
        if self.held_bytes > max_bytes {
            self.let_go();
        }
    }
}

impl Inputs {
    pub(super) fn active(&self) -> Input {
        self.active
    }

    pub(super) fn of(&self, input: Input) -> &InputState {
        match input {
            Input::Main => &self.main,
            Input::Fallback => &self.fallback,
        }
    }

    pub(super) fn of_mut(&mut self, input: Input) -> &mut InputState {
        match input {
            Input::Main => &mut self.main,
            Input::Fallback => &mut self.fallback,
        }
    }

    /// A frame of this input has come.
    pub(super) fn seen(&mut self, input: Input, now: Instant) {
        self.of_mut(input).seen(now);
        if input == Input::Main && self.active == Input::Main {
            self.wanted = false;
        }
    }

    /// Whether an input that is not let in is to be from this frame of it on.
    fn takes_over(&self, input: Input, frame: &RawFrame, now: Instant) -> bool {
        let state = self.of(input);
        let ready = match input {
            Input::Fallback => self.wanted,
            Input::Main => {
                state.since.is_some_and(|at| now.saturating_duration_since(at) >= self.return_after)
            }
        };
        ready && state.is_sync(frame)
    }
}

impl Inner {
    /// A frame of an input that is not let in. Gives it back if it is let in with this one.
    pub(super) fn wait(
        &mut self,
        input: Input,
        frame: RawFrame,
        (now, wall_clock): (Instant, WallTime),
        max_bytes: usize,
    ) -> Result<Option<RawFrame>, HubError> {
        let tracks = self.inputs.of(input).tracks.len();
        if frame.track as usize >= tracks {
            return Err(HubError::UnknownTrack { track: frame.track, tracks });
        }
        if self.inputs.takes_over(input, &frame, now) {
            self.switch(input);
            return Ok(Some(frame));
        }
        // Of the source, what comes before is not shown: the fallback's time has it.
        if input == Input::Fallback {
            self.inputs.fallback.hold(frame, now, wall_clock, max_bytes);
        }
        Ok(None)
    }

    /// Lets the other input in.
    fn switch(&mut self, to: Input) {
        self.inputs.active = to;
        self.inputs.wanted = false;
        self.timeline.begin_session();
        self.discontinuity = self.stats.frames > 0;
        self.last_sync = None;
        self.forget_gop();
        for consumer in &self.consumers {
            consumer.push_item(HubItem::Input(to));
        }
        self.apply_tracks();
    }

    /// Makes the tracks of the input that is let in the stream's.
    pub(super) fn apply_tracks(&mut self) {
        let own = &self.inputs.of(self.inputs.active).tracks;
        // What is made here goes with what it is made of.
        let made = self.data.as_ref().filter(|_| !own.is_empty()).map(|data| &data.parameters);
        let tracks: Arc<[Track]> = (0..)
            .zip(own.iter().chain(made))
            .map(|(id, parameters)| Track { id: TrackId(id), parameters: parameters.clone() })
            .collect();
        if tracks != self.tracks {
            self.timeline.set_tracks(tracks.iter().map(|t| &*t.parameters));
            self.tracks_changed(tracks);
        }
    }
}

impl Shared {
    pub(super) fn stand_in(&self, return_after: Duration) {
        let mut inner = self.inner.lock();
        inner.inputs.return_after = return_after;
        if inner.inputs.active == Input::Fallback || inner.closed {
            return;
        }
        let held = std::mem::take(&mut inner.inputs.fallback.held);
        inner.inputs.fallback.let_go();
        if held.is_empty() {
            inner.inputs.wanted = true;
            return;
        }
        inner.switch(Input::Fallback);
        for (frame, now, wall_clock) in held {
            // Its track was known when it was held, and what is held is let go when that changes.
            let _ = inner.enter(frame, now, wall_clock, self.options.gop_max_bytes);
        }
        self.tell_input(&inner);
    }

    /// To be called whenever another input was let in.
    pub(super) fn tell_input(&self, inner: &Inner) {
        let active = inner.inputs.active;
        self.input.send_if_modified(|input| std::mem::replace(input, active) != active);
    }
}
