//! Whether decoding all of a stream is worth it.
//!
//! Decoding costs more than a small model does. Where there are more pictures than the machine can do, most are decoded
//! only to be replaced by a newer one, and on a machine that is full the decoders take from the model what it needs to keep
//! up. So when fewer pictures get to the model than the keyframes alone would be, nothing but keyframes is decoded for a
//! while; then all is tried again.

use std::time::{Duration, Instant};

/// Counted over so long, and over so many keyframes at least.
const WINDOW: Duration = Duration::from_secs(5);
const MIN_KEYFRAMES: u64 = 3;
/// How long it is saved at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

#[derive(Debug)]
pub(super) struct Thrift {
    began: Instant,
    keyframes: u64,
    /// Pictures that had got to the model when the window began.
    taken: u64,
    until: Option<Instant>,
    pause: Duration,
}

impl Thrift {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, keyframes: 0, taken: 0, until: None, pause: PAUSE.0 }
    }

    /// Whether only keyframes are worth it. Told of every frame, and of how many pictures have got to the model so far.
    pub(super) fn saves(&mut self, now: Instant, keyframe: bool, taken: u64) -> bool {
        self.keyframes += u64::from(keyframe);
        if let Some(until) = self.until {
            if now < until {
                return true;
            }
            self.until = None;
            self.begin(now, taken);
        }
        if now.saturating_duration_since(self.began) < WINDOW || self.keyframes < MIN_KEYFRAMES {
            return false;
        }
        // The counters are of another model if they have gone back.
        if taken.saturating_sub(self.taken) < self.keyframes && taken >= self.taken {
            // Many streams do not begin again at the same moment.
            self.until = Some(now + self.pause.mul_f64(0.75 + fastrand::f64() / 2.0));
            self.pause = (self.pause * 2).min(PAUSE.1);
        } else {
            self.pause = (self.pause / 2).max(PAUSE.0);
        }
        self.begin(now, taken);
        self.until.is_some()
    }

    fn begin(&mut self, now: Instant, taken: u64) {
        (self.began, self.keyframes, self.taken) = (now, 0, taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty-five frames a second with a keyframe in each, of which so many get to the model; what is decoded in each second.
    fn run(seconds: u64, per_second: impl Fn(u64) -> u64) -> Vec<bool> {
        let start = Instant::now();
        let mut thrift = Thrift::new(start);
        let mut taken = 0;
        let mut saved = Vec::new();
        for second in 0..seconds {
            taken += per_second(second);
            let mut saves = false;
            for frame in 0..25u64 {
                let now = start + Duration::from_millis(second * 1000 + frame * 40);
                saves = thrift.saves(now, frame == 0, taken);
            }
            saved.push(saves);
        }
        saved
    }

    #[test]
    fn who_gets_enough_goes_on() {
        assert!(run(120, |_| 1).iter().all(|saves| !saves));
        assert!(run(120, |_| 25).iter().all(|saves| !saves));
    }

    #[test]
    fn who_does_not_saves_ever_longer_and_tries_again() {
        let saved = run(2000, |second| u64::from(second % 4 == 0));
        assert!(saved.iter().filter(|saves| **saves).count() > 1800);
        let tries = saved.windows(2).filter(|pair| pair[0] && !pair[1]).count();
        assert!((3..12).contains(&tries), "{tries}");
        // The machine has room again.
        let saved = run(2000, |second| if second < 20 { 0 } else { 25 });
        assert!(saved[15] && saved[100..].iter().all(|saves| !saves));
    }
}
