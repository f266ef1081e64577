//! When a recorder records: always, by a schedule, by events with the seconds before and after them.
//!
//! **One rule where they overlap**: it records as long as one of its modes wants it to; and what somebody asks for by hand (start, pause,
//! stop) comes before all of them, until that is taken back (`auto`).

use super::RecordError;
use super::pre_roll::PreRoll;
use crate::frame::WallTime;
use crate::schedule::Schedule;
use std::time::{Duration, Instant};

/// How often a schedule is looked at; its times are whole minutes.
const LOOK: Duration = Duration::from_secs(1);

/// What a recorder does by itself.
///
/// ```
/// # use std::time::Duration;
/// # use stream_manager_core::recording::{Recording, RecordingModes, Schedule};
/// let modes = RecordingModes::events()
///     .pre_roll(Duration::from_secs(10))
///     .post_roll(Duration::from_secs(20))
///     .schedule(Schedule::new(["daily 22:00-06:00"], Some("Europe/Berlin")).unwrap());
/// assert!(Recording::fmp4().modes(modes).check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingModes {
    pub(super) continuous: bool,
    pub(super) schedule: Option<Schedule>,
    pub(super) events: bool,
    pub(super) pre_roll: Duration,
    pub(super) pre_roll_max_bytes: u64,
    pub(super) post_roll: Duration,
    pub(super) max_duration: Duration,
}

impl Default for RecordingModes {
    /// Always.
    fn default() -> Self {
        Self {
            continuous: true,
            schedule: None,
            events: false,
            pre_roll: Duration::from_secs(5),
            pre_roll_max_bytes: 64 << 20,
            post_roll: Duration::from_secs(10),
            max_duration: Duration::from_secs(300),
        }
    }
}

impl RecordingModes {
    /// Always.
    pub fn continuous() -> Self {
        Self::default()
    }

    /// At these times.
    pub fn scheduled(schedule: Schedule) -> Self {
        Self { continuous: false, schedule: Some(schedule), ..Self::default() }
    }

    /// While events last, by [`Recorder::trigger`](super::Recorder::trigger).
    pub fn events() -> Self {
        Self { continuous: false, events: true, ..Self::default() }
    }

    /// At these times, too.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = Some(schedule);
        self
    }

    /// At events, too.
    #[must_use]
    pub fn with_events(mut self) -> Self {
        self.events = true;
        self
    }

    /// Sets how much of what came before an event is recorded; five seconds by default. It begins with the keyframe before.
    #[must_use]
    pub fn pre_roll(mut self, length: Duration) -> Self {
        self.pre_roll = length;
        self
    }

    /// Sets how much memory that may take; 64 MiB by default. What is too much is left out at the beginning.
    #[must_use]
    pub fn pre_roll_max_bytes(mut self, bytes: u64) -> Self {
        self.pre_roll_max_bytes = bytes;
        self
    }

    /// Sets for how long an event is recorded, from the last time that it is told of; ten seconds by default.
    #[must_use]
    pub fn post_roll(mut self, length: Duration) -> Self {
        self.post_roll = length;
        self
    }

    /// Sets how long a recording by events may become; five minutes by default. What is told of then begins another one.
    #[must_use]
    pub fn max_duration(mut self, length: Duration) -> Self {
        self.max_duration = length;
        self
    }

    pub(super) fn check(&self) -> Result<(), RecordError> {
        let bad = |setting: &'static str, value: Duration, expected: &'static str| {
            Err(RecordError::Setting { setting, value: format!("{value:?}"), expected })
        };
        if self.pre_roll > Duration::from_secs(600) {
            return bad("pre_roll", self.pre_roll, "at most 10m");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.post_roll) {
            return bad("post_roll", self.post_roll, "between 1s and 1h");
        }
        if self.max_duration < self.post_roll || self.max_duration > Duration::from_secs(86_400) {
            return bad("max_duration", self.max_duration, "at least post_roll, and at most 24h");
        }
        Ok(())
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        let all =
            [("continuous", self.continuous), ("schedule", self.schedule.is_some()), ("event", self.events)];
        all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect()
    }

    pub(super) fn ring(&self) -> PreRoll {
        // Only events have something before them.
        PreRoll::new(if self.events { self.pre_roll } else { Duration::ZERO }, self.pre_roll_max_bytes)
    }

    /// Whether it waits for anything at all.
    pub(super) fn waits(&self) -> bool {
        !self.continuous
    }
}

/// Something has happened that is to be recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingTrigger {
    /// What kind of thing, for the mark that is left.
    pub kind: String,
    /// In words.
    pub text: String,
    /// Anything else.
    pub data: serde_json::Value,
    /// For how long from now on, if not for the post-roll.
    pub duration: Option<Duration>,
    /// Whether it only goes on with what is marked elsewhere: no mark is left.
    pub extends: bool,
}

/// Whether it is time to record.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    modes: RecordingModes,
    /// Somebody wants it whatever the modes say.
    by_hand: bool,
    event: Option<Event>,
    scheduled: bool,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    until: Instant,
    limit: Instant,
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Record(&'static str),
    Wait(&'static str),
}

impl Gate {
    pub(super) fn new(modes: RecordingModes) -> Self {
        Self { modes, by_hand: false, event: None, scheduled: false }
    }

    pub(super) fn set_by_hand(&mut self, by_hand: bool) {
        self.by_hand = by_hand;
    }

    /// An event has happened. False if nothing is done about events.
    pub(super) fn trigger(&mut self, now: Instant, duration: Option<Duration>) -> bool {
        if !self.modes.events {
            return false;
        }
        let limit =
            self.event.filter(|event| now < event.until).map_or(now + self.modes.max_duration, |e| e.limit);
        let until = now + duration.unwrap_or(self.modes.post_roll);
        let until = self.event.map_or(until, |event| until.max(event.until)).min(limit);
        self.event = Some(Event { until, limit });
        true
    }

    pub(super) fn verdict(&mut self, now: Instant, wall_clock: WallTime) -> Verdict {
        self.event = self.event.filter(|event| now < event.until);
        self.scheduled = self.modes.schedule.as_ref().is_some_and(|schedule| schedule.is_open(wall_clock));
        if self.by_hand {
            Verdict::Record("started by request")
        } else if self.modes.continuous {
            Verdict::Record("configured")
        } else if self.event.is_some() {
            Verdict::Record("an event")
        } else if self.scheduled {
            Verdict::Record("its schedule")
        } else if self.modes.events {
            Verdict::Wait("waits for an event")
        } else {
            Verdict::Wait("waits for its schedule")
        }
    }

    /// Until when what it says holds at least; `None` as long as nobody says anything.
    pub(super) fn holds_until(&self, now: Instant) -> Option<Instant> {
        let event = self.event.map(|event| event.until);
        let schedule = self.modes.schedule.as_ref().map(|_| now + LOOK);
        event.into_iter().chain(schedule).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: WallTime = WallTime::from_unix_nanos(1_783_339_200_000_000_000);

    #[test]
    fn events_last_as_long_as_they_are_told_of() {
        let modes =
            RecordingModes::events().post_roll(Duration::from_secs(10)).max_duration(Duration::from_secs(25));
        let mut gate = Gate::new(modes);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let records =
            |gate: &mut Gate, seconds| matches!(gate.verdict(at(seconds), NOON), Verdict::Record(_));
        assert!(!records(&mut gate, 0) && gate.holds_until(at(0)).is_none());
        assert!(gate.trigger(at(1), None));
        assert_eq!(gate.holds_until(at(2)), Some(at(11)));
        assert!(records(&mut gate, 10));
        // Told again: ten seconds from then.
        gate.trigger(at(8), None);
        assert!(records(&mut gate, 17) && !records(&mut gate, 18));
        // A short one does not make it shorter, and nothing makes it longer than it may be.
        gate.trigger(at(100), Some(Duration::from_secs(20)));
        gate.trigger(at(101), Some(Duration::from_secs(1)));
        assert!(records(&mut gate, 119));
        gate.trigger(at(119), None);
        assert!(records(&mut gate, 124) && !records(&mut gate, 125));
        gate.trigger(at(125), None);
        assert!(records(&mut gate, 134));
        assert!(!Gate::new(RecordingModes::continuous()).trigger(at(0), None));
    }

    #[test]
    fn it_records_as_long_as_one_of_them_wants_it() {
        let schedule = |text: &str| Schedule::new([text], Some("UTC")).unwrap();
        let now = Instant::now();
        // 2026-07-06 is a Monday.
        let mut gate = Gate::new(RecordingModes::events().schedule(schedule("mon 11:00-13:00")));
        assert_eq!(gate.verdict(now, NOON), Verdict::Record("its schedule"));
        let mut gate = Gate::new(RecordingModes::events().schedule(schedule("tue 11:00-13:00")));
        assert_eq!(gate.verdict(now, NOON), Verdict::Wait("waits for an event"));
        gate.trigger(now, None);
        assert_eq!(gate.verdict(now, NOON), Verdict::Record("an event"));
        gate.set_by_hand(true);
        let later = now + Duration::from_secs(1000);
        assert_eq!(gate.verdict(later, NOON), Verdict::Record("started by request"));
        gate.set_by_hand(false);
        assert_eq!(gate.verdict(later, NOON), Verdict::Wait("waits for an event"));
        let mut gate = Gate::new(RecordingModes::scheduled(schedule("tue 11:00-13:00")));
        assert_eq!(gate.verdict(now, NOON), Verdict::Wait("waits for its schedule"));
    }
}
