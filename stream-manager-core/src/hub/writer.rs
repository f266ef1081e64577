//! The end of a hub that a source writes to.

use super::{HubError, Inner, Input, RawFrame, Shared};
use crate::frame::{CodecParameters, Frame, MediaKind, MediaTime, TrackId, WallTime};
use std::sync::Arc;
use std::time::Instant;

/// The end of a hub that a source writes to.
#[derive(Clone, Debug)]
pub struct HubWriter {
    shared: Arc<Shared>,
    input: Input,
}

impl HubWriter {
    pub(super) fn new(shared: Arc<Shared>, input: Input) -> Self {
        Self { shared, input }
    }

    /// Begins a session: the source has (re)connected and its clock is a new one. The supervisor calls
    /// this before every [`Source::run`](crate::source::Source::run).
    pub fn begin_session(&self) {
        let mut inner = self.shared.inner.lock();
        inner.inputs.of_mut(self.input).begin_session();
        if self.input == Input::Main {
            inner.stats.sessions += 1;
            inner.session_has_frame = false;
        }
        if inner.inputs.active() == self.input {
            inner.timeline.begin_session();
            inner.discontinuity = inner.stats.frames > 0;
            inner.last_sync = None;
            inner.forget_gop();
        }
    }

    /// The source's clock starts anew without a gap, as when a file is played from its start again.
    pub fn restart_clock(&self) {
        let mut inner = self.shared.inner.lock();
        if inner.inputs.active() == self.input {
            inner.timeline.begin_session();
        } else {
            // What is held and what comes have nothing to do with each other.
            inner.inputs.of_mut(self.input).let_go();
        }
    }

    /// Announces the stream's tracks; their index is what [`RawFrame::track`] means.
    pub fn set_tracks(&self, parameters: impl IntoIterator<Item = CodecParameters>) {
        let mut inner = self.shared.inner.lock();
        let active = inner.inputs.active() == self.input;
        let state = inner.inputs.of_mut(self.input);
        state.tracks = parameters.into_iter().map(Arc::new).collect();
        state.let_go();
        if active {
            inner.apply_tracks();
        }
    }

    /// Changes the parameters of one track in mid-stream. Frames pushed from now on carry them.
    ///
    /// # Errors
    /// If there is no such track.
    pub fn set_parameters(&self, track: u32, parameters: CodecParameters) -> Result<(), HubError> {
        let mut inner = self.shared.inner.lock();
        let active = inner.inputs.active() == self.input;
        let state = inner.inputs.of_mut(self.input);
        let tracks = state.tracks.len();
        let Some(current) = state.tracks.get_mut(track as usize) else {
            return Err(HubError::UnknownTrack { track, tracks });
        };
        if **current == parameters {
            return Ok(());
        }
        let parameters = Arc::new(parameters);
        *current = parameters.clone();
        state.let_go();
        if active {
            inner.timeline.set_parameters(track as usize, &parameters);
            let mut tracks = inner.tracks.to_vec();
            tracks[track as usize].parameters = parameters;
            inner.tracks_changed(tracks.into());
        }
        Ok(())
    }

    /// Puts a frame onto the timeline and hands it to every consumer. Never blocks on any of them.
    ///
    /// # Errors
    /// If the frame's track was never announced.
    pub fn push(&self, raw: RawFrame) -> Result<(), HubError> {
        self.push_at(raw, Instant::now(), WallTime::now())
    }

    /// The same with the time of arrival given, for sources that know it better and for tests.
    ///
    /// # Errors
    /// If the frame's track was never announced.
    pub fn push_at(&self, raw: RawFrame, now: Instant, wall_clock: WallTime) -> Result<(), HubError> {
        let max_bytes = self.shared.options.gop_max_bytes;
        let mut inner = self.shared.inner.lock();
        inner.inputs.seen(self.input, now);
        let mut entering = Some(raw);
        if inner.inputs.active() != self.input
            && let Some(raw) = entering.take()
        {
            entering = inner.wait(self.input, raw, (now, wall_clock), max_bytes)?;
            if entering.is_some() {
                self.shared.tell_input(&inner);
            }
        }
        if let Some(raw) = entering {
            let tracks = inner.inputs.of(self.input).tracks.len();
            if raw.track as usize >= tracks {
                return Err(HubError::UnknownTrack { track: raw.track, tracks });
            }
            inner.enter(raw, now, wall_clock, max_bytes)?;
        }
        let first = self.input == Input::Main && !std::mem::replace(&mut inner.session_has_frame, true);
        drop(inner);
        if first {
            self.shared.first_frame.notify_waiters();
        }
        Ok(())
    }

    /// Counts packets that were lost between the camera and here.
    pub fn report_loss(&self, packets: u64) {
        self.shared.inner.lock().stats.packets_lost += packets;
    }
}

impl Inner {
    /// A frame of the input that is let in.
    pub(super) fn enter(
        &mut self,
        raw: RawFrame,
        now: Instant,
        wall_clock: WallTime,
        gop_max_bytes: usize,
    ) -> Result<(), HubError> {
        let unknown = HubError::UnknownTrack { track: raw.track, tracks: self.tracks.len() };
        let Some(parameters) = self.tracks.get(raw.track as usize).map(|t| t.parameters.clone()) else {
            return Err(unknown);
        };
        let (pts, dts) = (raw.pts.map(MediaTime::as_nanos), raw.dts.map(MediaTime::as_nanos));
        let Some(placed) = self.timeline.place(raw.track as usize, pts, dts, now) else {
            return Err(unknown);
        };
        let frame = Frame {
            track: TrackId(raw.track),
            keyframe: raw.keyframe || parameters.kind() != MediaKind::Video,
            parameters,
            pts: placed.pts,
            dts: placed.dts,
            wall_clock,
            ntp: raw.ntp,
            data: raw.data,
        };
        self.accept(&frame, now, gop_max_bytes);
        Ok(())
    }
}
