//! How much a viewer's line carries, as far as that matters: less than what it is sent, or not.
//!
//! Nothing is estimated while everything arrives in time. What tells of a thin line is what the client reports: losses and
//! the round trip (by RTCP, and by transport-wide feedback where that is spoken), and its own estimate (REMB). A queue that
//! grows shows in the round trip: what was sent in a second took a second and that growth to get through.

use std::time::{Duration, Instant};

/// Of a hundred packets so many are lost: more than radio loses, and more than sending again makes up for.
const LOSS: f32 = 0.12;
/// So much is no accident, even once.
const HEAVY_LOSS: f32 = 0.4;
/// A round trip that is longer than the shortest one by this is that of a queue.
const LATE: Duration = Duration::from_millis(250);
/// An estimate below this share of what is sent says that the line is thin. It begins, and mostly stays, near what is sent.
const REFUSED: f64 = 0.7;
/// But not by itself: of a stream of few packets browsers know too little, and guess half of it and less. Something is lost
/// too then, or takes longer.
const SIGNS: (f32, Duration) = (0.02, Duration::from_millis(40));
/// Of what gets through so much is used, so that the queue empties.
const SHARE: f64 = 0.85;
/// Grows by so much with every look while it is used: slowly near what was too much lately, fast elsewhere.
const GROWTH: (f64, f64) = (1.06, 1.25);
/// Whole GOPs never fill a limit; from this share on it is used.
const USED: f64 = 0.4;
/// What was too much may be no more after so long.
const REMEMBERED: Duration = Duration::from_secs(15);
/// What is reported after a change is of before for so long.
const SETTLING: Duration = Duration::from_millis(2500);
/// A limit that is so much more than what is to be sent is none.
const ENOUGH: f64 = 1.3;
/// Nobody sends less.
const LEAST: f64 = 4000.0;
/// An estimate of the client's is good for so long.
const REMB_AGE: Duration = Duration::from_secs(4);
/// How long a lower stream goes well before the better one is tried again: doubles each time that this was wrong.
const CALM: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(160));

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What is sent arrives.
    Fine,
    /// It does not.
    Thin,
}

/// A viewer's line.
#[derive(Debug)]
pub(super) struct Line {
    /// What may be sent, in bytes a second, if that is known to be limited.
    limit: Option<f64>,
    /// The shortest round trip.
    base: Option<Duration>,
    before: Option<Duration>,
    /// When it was looked at, and what had been sent by then.
    looked: Option<(Instant, u64)>,
    /// Reports since then.
    loss: f32,
    round_trip: Option<Duration>,
    remb: Option<(Instant, f64)>,
    /// Bad looks in a row.
    bad: u32,
    /// What was too much, in bytes a second, and when that was seen.
    too_much: Option<(Instant, f64)>,
    /// Since when all goes well.
    calm: Instant,
    calm_needed: Duration,
    /// When the better stream was last tried.
    tried: Option<Instant>,
}

impl Line {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            limit: None,
            base: None,
            before: None,
            looked: None,
            loss: 0.0,
            round_trip: None,
            remb: None,
            bad: 0,
            too_much: None,
            calm: now,
            calm_needed: CALM.0,
            tried: None,
        }
    }

    /// What may be sent, in bytes a second, if that is limited.
    pub(super) fn limit(&self) -> Option<f64> {
        self.limit
    }

    /// What the client has reported.
    pub(super) fn hears(&mut self, loss: Option<f32>, round_trip: Option<Duration>) {
        self.loss = self.loss.max(loss.unwrap_or(0.0));
        self.round_trip = self.round_trip.max(round_trip);
    }

    /// What the client says that it could receive, in bytes a second.
    pub(super) fn estimated(&mut self, now: Instant, bytes_per_second: f64) {
        self.remb = Some((now, bytes_per_second));
    }

    /// Looks at what was heard, about once a second. `sent` is all that was sent so far in bytes, `wanted` what the stream
    /// has in a second.
    pub(super) fn look(&mut self, now: Instant, sent: u64, wanted: f64) -> Verdict {
        let (loss, round_trip) = (std::mem::take(&mut self.loss), self.round_trip.take());
        let before = self.looked.replace((now, sent));
        if let Some(round_trip) = round_trip {
            self.base = Some(self.base.map_or(round_trip, |base| base.min(round_trip)));
        }
        let earlier = self.before;
        self.before = round_trip.or(earlier);
        let Some((at, sent_before)) = before else { return Verdict::Fine };
        let passed = now.saturating_duration_since(at).as_secs_f64().max(0.1);
        let bytes = sent.saturating_sub(sent_before) as f64;
        let rate = bytes / passed;
        let remb = self.remb.filter(|(at, _)| now.saturating_duration_since(*at) < REMB_AGE).map(|(_, e)| e);
        // One that is known to be thin is watched more closely: its queue is to be found before it overflows.
        let slack = if self.limit.is_some() { LATE / 2 } else { LATE };
        let late = round_trip.zip(self.base).is_some_and(|(now, base)| now > base + slack.max(base / 2));
        // Some speak of the picture alone, and what is sent has sound in it as well.
        let below = remb.is_some_and(|estimate| estimate < (rate * REFUSED).min(wanted));
        let waits = self.before.zip(self.base).is_some_and(|(now, base)| now > base + SIGNS.1);
        let refused = below && (loss > SIGNS.0 || waits);
        let settles = self.too_much.is_some_and(|(at, _)| now.saturating_duration_since(at) < SETTLING);
        let is_bad = (loss > LOSS || late || refused) && !settles;
        self.bad = if is_bad { self.bad + 1 } else { 0 };
        let enough = if self.limit.is_some() { 1 } else { 2 };
        if self.bad >= enough || (is_bad && loss > HEAVY_LOSS) {
            let growth = round_trip
                .zip(earlier)
                .map_or(0.0, |(now, earlier)| now.saturating_sub(earlier).as_secs_f64());
            let carried = bytes * f64::from(1.0 - loss) / (passed + growth);
            let limit = remb.filter(|_| refused).unwrap_or(carried).min(carried) * SHARE;
            // One report alone does not say that much.
            let limit = self.limit.map_or(limit, |held| limit.clamp(held / 2.0, held));
            self.limit = Some(limit.max(LEAST));
            self.too_much = Some((now, carried));
            self.bad = 0;
            self.calm = now;
            return Verdict::Thin;
        }
        if is_bad {
            self.calm = now;
        } else if let Some(limit) = self.limit.as_mut().filter(|_| !settles) {
            if rate > *limit * USED {
                let near = self.too_much.is_some_and(|(at, rate)| {
                    *limit > rate * 0.8 && now.saturating_duration_since(at) < REMEMBERED
                });
                *limit *= if near { GROWTH.0 } else { GROWTH.1 };
            }
            if *limit > wanted * ENOUGH {
                self.limit = None;
            }
        }
        Verdict::Fine
    }

    /// Another stream goes over it now.
    pub(super) fn changes(&mut self, now: Instant, down: bool) {
        self.limit = None;
        self.bad = 0;
        self.too_much = Some((now, f64::MAX));
        self.calm = now;
        if !down {
            self.tried = Some(now);
        } else if self.tried.is_some_and(|tried| now.saturating_duration_since(tried) < self.calm_needed) {
            self.calm_needed = (self.calm_needed * 2).min(CALM.1);
        } else {
            self.calm_needed = CALM.0;
        }
    }

    /// Whether a better stream may be tried.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.limit.is_none() && now.saturating_duration_since(self.calm) >= self.calm_needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Firefox has it: sound is most of what is sent, and its estimate knows of the picture only.
    #[test]
    fn an_estimate_of_the_picture_alone_does_not_make_a_line_thin() {
        let now = Instant::now();
        let mut line = Line::new(now);
        for second in 0..10u32 {
            let now = now + Duration::from_secs(second.into());
            line.estimated(now, 4100.0);
            assert_eq!(line.look(now, u64::from(second) * 10_000, 3200.0), Verdict::Fine);
        }
        assert_eq!(line.limit(), None);
    }

    /// As Chromium has it: of little that is sent it may receive less still, and all arrives.
    #[test]
    fn an_estimate_alone_does_not_make_a_line_thin() {
        let begin = Instant::now();
        let mut line = Line::new(begin);
        let heard = |line: &mut Line, second: u32, round_trip| {
            let now = begin + Duration::from_secs(second.into());
            line.estimated(now, 750.0);
            line.hears(Some(0.0), Some(Duration::from_millis(round_trip)));
            line.look(now, u64::from(second) * 12_000, 1500.0)
        };
        assert!((0..20).all(|second| heard(&mut line, second, 2) == Verdict::Fine));
        assert_eq!(line.limit(), None);
        // What it says comes early, then: nothing is lost yet.
        assert_eq!(heard(&mut line, 20, 60), Verdict::Fine);
        assert_eq!(heard(&mut line, 21, 80), Verdict::Thin);
    }

    /// A line with a queue, and a sender that keeps to the limit.
    struct Net {
        line: Line,
        now: Instant,
        sent: u64,
        /// What waits, in bytes.
        queue: f64,
        /// Bytes a second, and how much may wait.
        capacity: f64,
        buffer: f64,
        remb: bool,
    }

    impl Net {
        fn new(capacity: f64, buffer: f64) -> Self {
            let now = Instant::now();
            Self { line: Line::new(now), now, sent: 0, queue: 0.0, capacity, buffer, remb: false }
        }

        /// Seconds go by with a stream of this rate; says how much of the last one got through, and the delay.
        fn run(&mut self, seconds: u32, wanted: f64) -> (f64, f64, u32) {
            let (mut carried, mut thin) = (0.0, 0);
            for _ in 0..seconds {
                let rate = wanted.min(self.line.limit().unwrap_or(f64::MAX));
                self.sent += rate as u64;
                let (through, lost) = {
                    let all = self.queue + rate;
                    let through = all.min(self.capacity);
                    let lost = (all - through - self.buffer).max(0.0);
                    self.queue = all - through - lost;
                    (through, lost)
                };
                carried = through;
                self.now += Duration::from_secs(1);
                let delay = self.queue / self.capacity;
                self.line.hears(Some((lost / rate) as f32), Some(Duration::from_secs_f64(0.02 + delay)));
                if self.remb && rate > self.capacity {
                    self.line.estimated(self.now, self.capacity * 0.85);
                }
                thin += u32::from(self.line.look(self.now, self.sent, wanted) == Verdict::Thin);
            }
            (carried, self.queue / self.capacity, thin)
        }
    }

    #[test]
    fn a_line_that_carries_everything_is_left_alone() {
        let mut net = Net::new(1e6, 1e6);
        assert_eq!(net.run(60, 5e5).2, 0);
        assert_eq!(net.line.limit(), None);
        // A bad second is no thin line.
        net.line.hears(Some(0.3), Some(Duration::from_millis(900)));
        assert_eq!(net.run(10, 5e5).2, 0);
    }

    #[test]
    fn a_thin_line_is_filled_and_not_overrun() {
        for (buffer, remb) in [(5e5, false), (2e4, false), (2e6, false), (5e5, true)] {
            let mut net = Net { remb, ..Net::new(2.5e5, buffer) };
            let (_, _, thin) = net.run(10, 5e5);
            assert!(thin > 0, "{buffer}");
            let (mut carried, mut delay) = (0.0, 0.0);
            for _ in 0..60 {
                let (bytes, waits, _) = net.run(1, 5e5);
                carried += bytes / 60.0;
                delay += waits / 60.0;
            }
            assert!(carried > 0.55 * 2.5e5, "{carried} with {buffer}");
            // Of up to eight seconds that would wait otherwise.
            assert!(delay < 0.75, "{delay} with {buffer}");
            // It widens.
            net.capacity = 1e6;
            net.run(30, 5e5);
            assert_eq!(net.line.limit(), None, "{buffer}");
        }
    }

    #[test]
    fn a_better_stream_is_tried_ever_more_rarely() {
        let mut net = Net::new(2.5e5, 2e5);
        let mut tries = Vec::new();
        let (mut low, mut second) = (false, 0);
        while second < 600 {
            let thin = net.run(1, if low { 5e4 } else { 5e5 }).2 > 0;
            second += 1;
            if thin && !low {
                low = true;
                net.line.changes(net.now, true);
            } else if low && net.line.may_try(net.now) {
                low = false;
                net.line.changes(net.now, false);
                tries.push(second);
            }
        }
        let distances: Vec<i32> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!((4..=8).contains(&tries.len()), "{tries:?}");
        assert!(distances.is_sorted(), "{distances:?}");
    }
}
