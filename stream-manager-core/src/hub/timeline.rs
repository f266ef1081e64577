//! The rule by which a source's timestamps become the stream's.
//!
//! A stream's timeline runs on for as long as the stream exists, across reconnects and whatever clock
//! the camera has. Within a session the camera's clock is followed exactly (an offset is added and
//! nothing else), so that the distances between frames are the camera's own. The offset is chosen anew
//! only when there is nothing to follow:
//!
//! 1. **First frame of a track in a session**: with the offset of the session's other tracks if that puts
//!    it within [`TRACK_TOLERANCE`] of where its arrival says it belongs (this keeps sound and picture
//!    together), else by arrival.
//! 2. **A jump of the camera's clock**: a step forward that exceeds the time that has passed by more
//!    than [`FORWARD_TOLERANCE`], or a step back beyond what reordering explains. The frame is put where
//!    its arrival says.
//!
//! "By arrival" means: last frame of the stream plus the time since it arrived. So a reconnect leaves a
//! gap as long as the outage was, and a clock that jumps leaves none. Independent of all that, decoding
//! times strictly increase within a track by at least one tick of 90 kHz, and no frame is presented
//! before it is decoded.

use super::dts::DtsGenerator;
use crate::frame::{CodecParameters, MediaTime};
use std::time::{Duration, Instant};

/// How far a track may lie from its arrival time and still use the session's offset.
const TRACK_TOLERANCE: i64 = 2_000_000_000;
/// How far the clock may run ahead of the time that has passed before it counts as a jump.
const FORWARD_TOLERANCE: i64 = 10_000_000_000;
/// How far back a track without reordering may step before it counts as a jump.
const BACKWARD_TOLERANCE: i64 = 100_000_000;
/// The same for a track with reordering.
const REORDER_TOLERANCE: i64 = 2_000_000_000;
/// One tick of 90 kHz, rounded up so that no two decoding times fall onto the same tick.
const TICK: i64 = 11_112;
/// A decoding time further from its presentation time than this is nonsense.
const MAX_REORDER_NANOS: i64 = 20_000_000_000;
/// Timestamps are taken to lie within 36 years of zero, so that no sum of them overflows.
const MAX_RAW: i64 = 1 << 60;

/// Where a frame has been put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) pts: MediaTime,
    pub(super) dts: MediaTime,
}

#[derive(Debug)]
pub(super) struct Timeline {
    tracks: Vec<TrackClock>,
    /// The latest frame of any track: where it was put and when it arrived.
    reference: Option<(i64, Instant)>,
    session_offset: Option<i64>,
}

#[derive(Debug)]
struct TrackClock {
    generator: DtsGenerator,
    /// The last raw timestamp, when it arrived, and the offset in force.
    followed: Option<(i64, Instant, i64)>,
    last_dts: Option<i64>,
    /// Length of the last frame, for the step over a jump.
    frame_nanos: i64,
    may_reorder: bool,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { tracks: Vec::new(), reference: None, session_offset: None }
    }

    /// A new connection: no clock of the old one is trusted.
    pub(super) fn begin_session(&mut self) {
        self.session_offset = None;
        for track in &mut self.tracks {
            track.followed = None;
            track.generator.reset();
        }
    }

    /// Sets the number of tracks and what is known about their order of frames.
    pub(super) fn set_tracks<'a>(&mut self, parameters: impl Iterator<Item = &'a CodecParameters>) {
        let mut old = std::mem::take(&mut self.tracks).into_iter();
        for parameters in parameters {
            let last_dts = old.next().and_then(|t| t.last_dts);
            self.tracks.push(TrackClock::new(parameters, last_dts));
        }
    }

    /// The parameters of one track changed in mid-stream.
    pub(super) fn set_parameters(&mut self, track: usize, parameters: &CodecParameters) {
        if let Some(clock) = self.tracks.get_mut(track) {
            let fresh = TrackClock::new(parameters, clock.last_dts);
            clock.generator = fresh.generator;
            clock.may_reorder = fresh.may_reorder;
        }
    }

    /// Puts a frame onto the timeline. `pts` and `dts` are nanoseconds of the source's clock.
    pub(super) fn place(
        &mut self,
        track: usize,
        pts: Option<i64>,
        dts: Option<i64>,
        now: Instant,
    ) -> Option<Placed> {
        let reference = self.reference;
        let session_offset = self.session_offset;
        let clock = self.tracks.get_mut(track)?;
        let (pts, dts) = clock.complete(pts, dts);
        let basis = dts.unwrap_or(pts);
        let followed = clock.followed;
        let offset = match followed {
            Some((last, at, offset))
                if !clock.is_jump(basis.saturating_sub(last), now.saturating_duration_since(at)) =>
            {
                offset
            }
            _ => {
                clock.generator.reset();
                let own = followed.map(|(last, at, offset)| (last.saturating_add(offset), at));
                let expected = own
                    .or(reference)
                    .map_or(0, |(out, at)| out.saturating_add(nanos(now.saturating_duration_since(at))));
                let floor = clock.last_dts.map(|last| last.saturating_add(clock.frame_nanos));
                let offset = session_offset
                    .filter(|offset| {
                        let out = pts.saturating_add(*offset);
                        out.abs_diff(expected) <= TRACK_TOLERANCE as u64
                            && floor.is_none_or(|floor| out >= floor)
                    })
                    .unwrap_or_else(|| {
                        floor.map_or(expected, |floor| expected.max(floor)).saturating_sub(pts)
                    });
                self.session_offset = Some(offset);
                offset
            }
        };
        clock.followed = Some((basis, now, offset));
        let raw_dts = dts.unwrap_or_else(|| clock.generator.next(pts));
        let mut out_dts = raw_dts.saturating_add(offset);
        if let Some(last) = clock.last_dts {
            out_dts = out_dts.max(last.saturating_add(TICK));
            if followed.is_some_and(|(_, _, old)| old == offset) {
                clock.frame_nanos = out_dts.saturating_sub(last).clamp(TICK, 1_000_000_000);
            }
        }
        clock.last_dts = Some(out_dts);
        let out_pts = pts.saturating_add(offset).max(out_dts);
        self.reference = Some((out_pts, now));
        Some(Placed { pts: MediaTime::from_nanos(out_pts), dts: MediaTime::from_nanos(out_dts) })
    }
}

impl TrackClock {
    fn new(parameters: &CodecParameters, last_dts: Option<i64>) -> Self {
        let (reorder, frame_nanos) = match parameters {
            CodecParameters::Video(v) => (
                v.max_reorder_frames,
                v.frame_rate.map(|(num, den)| 1_000_000_000 * i64::from(den) / i64::from(num.max(1))),
            ),
            _ => (Some(0), None),
        };
        Self {
            generator: DtsGenerator::new(reorder, frame_nanos),
            followed: None,
            last_dts,
            frame_nanos: frame_nanos.filter(|n| *n > 0).unwrap_or(20_000_000).min(1_000_000_000),
            may_reorder: reorder != Some(0),
        }
    }

    /// Fills in a missing presentation time.
    fn complete(&self, pts: Option<i64>, dts: Option<i64>) -> (i64, Option<i64>) {
        let clamp = |raw: i64| raw.clamp(-MAX_RAW, MAX_RAW);
        match (pts.map(clamp), dts.map(clamp)) {
            (Some(pts), dts) => (pts, dts.filter(|dts| (0..=MAX_REORDER_NANOS).contains(&(pts - dts)))),
            (None, Some(dts)) => (dts, Some(dts)),
            (None, None) => {
                (self.followed.map_or(0, |(last, ..)| last.saturating_add(self.frame_nanos)), None)
            }
        }
    }

    fn is_jump(&self, step: i64, passed: Duration) -> bool {
        let back = if self.may_reorder || self.generator.reorders() {
            REORDER_TOLERANCE
        } else {
            BACKWARD_TOLERANCE
        };
        step > nanos(passed).saturating_add(FORWARD_TOLERANCE) || step < -back
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{AudioCodec, AudioParameters, VideoCodec, VideoParameters};
    use proptest::prelude::*;

    const MS: i64 = 1_000_000;

    fn timeline() -> Timeline {
        let mut timeline = Timeline::new();
        let video = CodecParameters::Video(VideoParameters::new(VideoCodec::H264, 2, 2));
        let audio = CodecParameters::Audio(AudioParameters::new(AudioCodec::Pcma, 8000, 1));
        timeline.set_tracks([video, audio].iter());
        timeline
    }

    fn at(start: Instant, ms: i64) -> Instant {
        start + Duration::from_millis(ms as u64)
    }

    fn place(t: &mut Timeline, track: usize, pts_ms: i64, now: Instant) -> i64 {
        t.place(track, Some(pts_ms * MS), None, now).unwrap().pts.as_nanos() / MS
    }

    #[test]
    fn follows_the_camera_exactly() {
        let (mut t, start) = (timeline(), Instant::now());
        // Arrival jitters, distances do not.
        assert_eq!(place(&mut t, 0, 5000, start), 0);
        assert_eq!(place(&mut t, 0, 5040, at(start, 90)), 40);
        assert_eq!(place(&mut t, 0, 5080, at(start, 91)), 80);
        assert_eq!(place(&mut t, 1, 5060, at(start, 92)), 60);
    }

    #[test]
    fn a_reconnect_leaves_a_gap_as_long_as_the_outage() {
        let (mut t, start) = (timeline(), Instant::now());
        place(&mut t, 0, 5000, start);
        t.begin_session();
        assert_eq!(place(&mut t, 0, 100, at(start, 7000)), 7000);
        assert_eq!(place(&mut t, 0, 140, at(start, 7040)), 7040);
    }

    #[test]
    fn a_jump_of_the_clock_leaves_none() {
        let (mut t, start) = (timeline(), Instant::now());
        place(&mut t, 0, 5000, start);
        place(&mut t, 1, 5010, at(start, 10));
        assert_eq!(place(&mut t, 0, 9_000_040, at(start, 40)), 40);
        // The other track jumps with it and stays in step.
        assert_eq!(place(&mut t, 1, 9_000_030, at(start, 45)), 30);
        assert_eq!(place(&mut t, 0, 1000, at(start, 80)), 80);
        assert_eq!(place(&mut t, 0, 1040, at(start, 120)), 120);
    }

    #[test]
    fn a_stall_that_the_camera_buffered_is_no_jump() {
        let (mut t, start) = (timeline(), Instant::now());
        place(&mut t, 0, 0, start);
        assert_eq!(place(&mut t, 0, 40, at(start, 9000)), 40);
        assert_eq!(place(&mut t, 0, 9000, at(start, 9001)), 9000);
    }

    #[test]
    fn missing_times_are_filled_in() {
        let (mut t, start) = (timeline(), Instant::now());
        let a = t.place(0, Some(0), None, start).unwrap();
        let b = t.place(0, None, None, at(start, 40)).unwrap();
        assert!(b.dts > a.dts && b.pts >= b.dts);
        let negative = t.place(0, Some(80 * MS), Some(-40 * MS), at(start, 80)).unwrap();
        assert!(negative.dts > b.dts);
    }

    proptest! {
        /// Whatever a source says, what leaves is ordered, and the timeline advances like the clock.
        #[test]
        fn always_ordered(steps in prop::collection::vec((0usize..2, prop::option::of(any::<i64>()), prop::option::of(-1i64<<40..1<<40), 0u64..3000, any::<bool>()), 1..200)) {
            let mut t = timeline();
            let mut now = Instant::now();
            let mut last: [Option<MediaTime>; 2] = [None, None];
            for (track, pts, dts, wait, reconnect) in steps {
                now += Duration::from_millis(wait);
                if reconnect { t.begin_session(); }
                let placed = t.place(track, pts, dts, now).unwrap();
                prop_assert!(placed.pts >= placed.dts);
                if let Some(last) = last[track] { prop_assert!(placed.dts > last); }
                last[track] = Some(placed.dts);
            }
        }

        /// A well-behaved camera that wraps, reconnects and jumps never moves the timeline away from
        /// the time that has really passed.
        #[test]
        fn never_runs_away(events in prop::collection::vec(prop::sample::select(vec![0u8, 0, 0, 0, 0, 0, 1, 2, 3]), 1..400), base in -1_000_000_000i64..1_000_000_000) {
            let (mut t, start) = (timeline(), Instant::now());
            let (mut passed, mut clock) = (0i64, base);
            for event in events {
                passed += 40;
                clock += 40;
                match event {
                    1 => { passed += 5000; t.begin_session(); clock = 17; }
                    2 => clock += 86_400_000,
                    3 => clock -= 3_600_000,
                    _ => {}
                }
                let out = place(&mut t, 0, clock, at(start, passed));
                prop_assert!((out - (passed - 40)).abs() <= 5100, "{} {}", out, passed);
            }
        }
    }
}
