//! From a stream's own timeline to UTC.

use crate::frame::{Frame, MediaTime};

/// A second of media may be lengthened or shortened by this much to follow the clock, in nanoseconds: more than any
/// camera's clock drifts, and less than anybody hears.
const SLEW_PER_SEC: i64 = 100_000;
/// A difference that is taken over at once where there is a gap anyway.
const STEP: i64 = 1_000_000_000;

/// The first picture's time is a whole number of these, in nanoseconds. Browsers count microseconds: a player that begins at
/// the very beginning and moves that to zero in floating point would else have it at a microsecond before zero, half of the
/// times, and the browser would drop it and all that needs it.
const ALIGNED: i64 = 100_000;

/// The distance between a stream's timeline and UTC.
#[derive(Debug, Default)]
pub(super) struct Clock {
    offset: Option<i64>,
    aligned: bool,
    /// The least distance seen since the last time it was followed: what has arrived with the least delay.
    least: Option<i64>,
}

fn distance(frame: &Frame) -> i64 {
    frame.wall_clock.as_unix_nanos().saturating_sub(frame.dts.as_nanos())
}

impl Clock {
    /// Takes notice of when a frame arrived.
    pub(super) fn see(&mut self, frame: &Frame) {
        let distance = distance(frame);
        self.least = Some(self.least.map_or(distance, |least| least.min(distance)));
    }

    fn offset(&mut self, frame: &Frame) -> &mut i64 {
        self.offset.get_or_insert_with(|| self.least.take().unwrap_or_else(|| distance(frame)))
    }

    /// Moves everything, if only this once, so that this frame's time is a round one.
    pub(super) fn align(&mut self, frame: &Frame) {
        if !std::mem::replace(&mut self.aligned, true) {
            let offset = self.offset(frame);
            let over = frame.pts.as_nanos().saturating_add(*offset).rem_euclid(ALIGNED);
            *offset += (ALIGNED - over) % ALIGNED;
        }
    }

    /// The frame with its times in UTC.
    pub(super) fn place(&mut self, frame: Frame) -> Frame {
        let offset = *self.offset(&frame);
        let shift = |time: MediaTime| MediaTime::from_nanos(time.as_nanos().saturating_add(offset).max(0));
        Frame { pts: shift(frame.pts), dts: shift(frame.dts), ..frame }
    }

    /// Comes nearer to the clock of arrival, after so many nanoseconds of media.
    pub(super) fn follow(&mut self, passed_nanos: i64) {
        let (Some(offset), Some(least)) = (&mut self.offset, self.least.take()) else { return };
        let most = (passed_nanos / 1_000_000_000).clamp(0, 60) * SLEW_PER_SEC;
        *offset += (least - *offset).clamp(-most, most);
    }

    /// There is a gap: a large difference is taken over, but never so that times come again.
    pub(super) fn step(&mut self, next: &Frame, last_end: Option<MediaTime>) {
        let (Some(offset), distance) = (&mut self.offset, distance(next)) else { return };
        if (distance - *offset).abs() >= STEP {
            let least = last_end.map_or(i64::MIN, |end| end.as_nanos().saturating_sub(next.dts.as_nanos()));
            *offset = distance.max(least);
        }
        self.least = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{CodecParameters, TrackId, VideoCodec, VideoParameters, WallTime};

    fn frame(dts: i64, arrived: i64) -> Frame {
        let parameters = CodecParameters::Video(VideoParameters::new(VideoCodec::H264, 16, 16));
        Frame {
            track: TrackId(0),
            parameters: parameters.into(),
            pts: MediaTime::from_nanos(dts),
            dts: MediaTime::from_nanos(dts),
            wall_clock: WallTime::from_unix_nanos(arrived),
            ntp: None,
            keyframe: true,
            data: bytes::Bytes::new(),
        }
    }

    #[test]
    fn begins_with_what_was_least_delayed_and_follows_slowly() {
        let mut clock = Clock::default();
        clock.see(&frame(0, 1_000_900));
        clock.see(&frame(40, 1_000_040));
        assert_eq!(clock.place(frame(0, 0)).dts.as_nanos(), 1_000_000);
        clock.see(&frame(0, 5_000_000_000));
        clock.follow(2_000_000_000);
        assert_eq!(clock.place(frame(0, 0)).dts.as_nanos(), 1_000_000 + 2 * SLEW_PER_SEC);
    }

    #[test]
    fn the_first_picture_s_time_is_a_round_one() {
        let mut clock = Clock::default();
        clock.place(frame(10, 1_000_010));
        clock.align(&frame(77, 0));
        assert_eq!(clock.place(frame(77, 0)).pts.as_nanos(), 1_100_000);
        clock.align(&frame(78, 0));
        assert_eq!(clock.place(frame(78, 0)).pts.as_nanos(), 1_100_001);
    }

    #[test]
    fn a_gap_takes_the_difference_over_but_never_goes_back() {
        let mut clock = Clock::default();
        clock.place(frame(0, 10_000_000_000));
        clock.step(&frame(0, 15_000_000_000), None);
        assert_eq!(clock.place(frame(0, 0)).dts.as_nanos(), 15_000_000_000);
        clock.step(&frame(0, 1_000_000_000), Some(MediaTime::from_nanos(16_000_000_000)));
        assert_eq!(clock.place(frame(0, 0)).dts.as_nanos(), 16_000_000_000);
    }
}
