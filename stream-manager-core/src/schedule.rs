//! When a stream is recorded or a zone means something, week by week.
//!
//! A schedule is a list of times of the week, such as `mon-fri 08:00-18:00`, in a time zone. It is a question about a moment: whether
//! what a clock on the wall says then lies in one of them. So where an hour comes twice (the end of daylight saving time) both are in, where
//! an hour is left out nothing is, and a clock that is set changes the answer at once.

use crate::frame::WallTime;
use crate::week::{self, MINUTES_OF_A_DAY, days, minutes};
use jiff::tz::TimeZone;
use std::fmt;
use std::str::FromStr;

/// A time of the week: days, and minutes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeeklyTime {
    /// Monday is the lowest bit.
    days: u8,
    /// From this minute of the day on.
    from: u16,
    /// Up to this one; of the next day if it is not behind `from`.
    to: u16,
}

/// What cannot be read as a time of the week.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no time of the week; expected days and hours such as \"mon-fri 08:00-18:00\", \"sat,sun 22:00-06:00\" or \"daily 00:00-24:00\""
)]
pub struct ParseWeeklyTimeError(String);

impl FromStr for WeeklyTime {
    type Err = ParseWeeklyTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (on, at) = text.trim().split_once(' ')?;
            let (from, to) = at.trim().split_once('-')?;
            let (from, to) = (minutes(from)?, minutes(to)?);
            (from < MINUTES_OF_A_DAY && from != to).then_some(Self { days: days(on)?, from, to })
        };
        read().ok_or_else(|| ParseWeeklyTimeError(text.chars().take(60).collect()))
    }
}

impl WeeklyTime {
    fn holds(self, weekday: usize, minute: u16) -> bool {
        let on = |day: usize| self.days & (1 << (day % 7)) != 0;
        if self.to > self.from {
            return on(weekday) && (self.from..self.to).contains(&minute);
        }
        // Over midnight: this evening's, or what is left of yesterday's.
        (on(weekday) && minute >= self.from) || (on(weekday + 6) && minute < self.to)
    }
}

/// Times of the week in a time zone.
///
/// ```
/// # use stream_manager_core::recording::Schedule;
/// let schedule = Schedule::new(["mon-fri 22:00-06:00", "sat,sun 00:00-24:00"], Some("Europe/Berlin")).unwrap();
/// // A Tuesday, one o'clock at night there.
/// assert!(schedule.is_open("2026-07-07T23:00:00Z".parse().unwrap()));
/// assert!(!schedule.is_open("2026-07-08T10:00:00Z".parse().unwrap()));
/// ```
#[derive(Clone, PartialEq)]
pub struct Schedule {
    times: Vec<WeeklyTime>,
    zone: TimeZone,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name().unwrap_or("local");
        f.debug_struct("Schedule").field("times", &self.times).field("zone", &zone).finish()
    }
}

impl Schedule {
    /// From times of the week, and the name of a time zone (IANA, such as `Europe/Berlin`); the machine's own if none is given.
    ///
    /// # Errors
    /// If one of them cannot be read, or the time zone is not known.
    pub fn new<'a>(
        times: impl IntoIterator<Item = &'a str>,
        zone: Option<&str>,
    ) -> Result<Self, ScheduleError> {
        let times = times.into_iter().map(str::parse).collect::<Result<Vec<WeeklyTime>, _>>()?;
        let zone = week::zone(zone).map_err(ScheduleError::Zone)?;
        Ok(Self { times, zone })
    }

    /// Whether a moment lies in it.
    pub fn is_open(&self, at: WallTime) -> bool {
        let Some(civil) = week::civil(at, &self.zone) else { return false };
        let weekday = week::weekday(civil.date());
        let minute = u16::from(civil.hour().unsigned_abs()) * 60 + u16::from(civil.minute().unsigned_abs());
        self.times.iter().any(|time| time.holds(weekday, minute))
    }
}

/// Why there is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// A time of the week cannot be read.
    #[error(transparent)]
    Time(#[from] ParseWeeklyTimeError),
    /// The time zone is not known to this machine.
    #[error("\"{0}\" is no time zone that this machine knows; expected a name such as Europe/Berlin, or UTC")]
    Zone(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::week::DAYS;
    use proptest::prelude::*;

    fn open(times: &[&str], zone: &str, at: &str) -> bool {
        Schedule::new(times.iter().copied(), Some(zone)).unwrap().is_open(at.parse().unwrap())
    }

    #[test]
    fn days_and_hours() {
        let office = ["mon-fri 08:00-18:00"];
        // 2026-07-06 is a Monday.
        for (at, expected) in [
            ("2026-07-06T05:59:59Z", false),
            ("2026-07-06T06:00:00Z", true),
            ("2026-07-10T15:59:59Z", true),
            ("2026-07-10T16:00:00Z", false),
            ("2026-07-11T10:00:00Z", false),
        ] {
            assert_eq!(open(&office, "Europe/Berlin", at), expected, "{at}");
        }
        let nights = ["fri-sun 22:00-06:00"];
        for (at, expected) in [
            ("2026-07-09T23:00:00Z", false),
            ("2026-07-10T22:00:00Z", true),
            ("2026-07-13T05:59:00Z", true),
            ("2026-07-13T06:00:00Z", false),
            ("2026-07-13T23:00:00Z", false),
        ] {
            assert_eq!(open(&nights, "UTC", at), expected, "{at}");
        }
        assert!(open(&["daily 00:00-24:00"], "UTC", "2026-07-13T23:59:59Z"));
    }

    /// Berlin, 2026: at 01:00 UTC on 29 March the clocks go from 02:00 to 03:00, at 01:00 UTC on 25 October from 03:00 to 02:00.
    #[test]
    fn hours_that_are_left_out_or_come_twice() {
        let minutes = |times: &[&str], day: &str| {
            let schedule = Schedule::new(times.iter().copied(), Some("Europe/Berlin")).unwrap();
            let begin: WallTime = format!("{day}T00:00:00Z").parse().unwrap();
            let at = |n: u64| {
                begin + std::time::Duration::from_secs(n * 60) - std::time::Duration::from_secs(7200)
            };
            (0..28 * 60).filter(|n| schedule.is_open(at(*n))).count()
        };
        assert_eq!(minutes(&["sun 01:00-04:00"], "2026-03-22"), 180);
        assert_eq!(minutes(&["sun 01:00-04:00"], "2026-03-29"), 120);
        assert_eq!(minutes(&["sun 02:10-02:50"], "2026-03-29"), 0);
        assert_eq!(minutes(&["sun 01:00-04:00"], "2026-10-25"), 240);
        assert_eq!(minutes(&["sun 02:10-02:50"], "2026-10-25"), 80);
        assert_eq!(minutes(&["sat 23:00-01:00", "sun 23:00-01:00"], "2026-10-25"), 60 + 60 + 60);
        assert!(open(&["sun 02:00-03:00"], "Europe/Berlin", "2026-10-25T00:30:00Z"));
        assert!(open(&["sun 02:00-03:00"], "Europe/Berlin", "2026-10-25T01:30:00Z"));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for bad in [
            "",
            "mon",
            "mon 8:00-18:00",
            "mon 08:00",
            "mon 08:00-08:00",
            "mon 24:00-08:00",
            "mon 08:60-09:00",
            "mon 08:00-24:01",
            "monday 08:00-09:00",
            "mon- 08:00-09:00",
            "mon 08:00-09:00-10:00",
            "mon +8:00-09:00",
        ] {
            let error = bad.parse::<WeeklyTime>().unwrap_err().to_string();
            assert!(error.contains("expected days and hours"), "{bad}: {error}");
        }
        let error = Schedule::new(["daily 00:00-24:00"], Some("Mars/Olympus")).unwrap_err().to_string();
        assert!(error.contains("Mars/Olympus") && error.contains("Europe/Berlin"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = text.parse::<WeeklyTime>();
        }

        /// A time over midnight is the same as its two halves.
        #[test]
        fn over_midnight_is_two_halves(from in 1u16..1440, to in 1u16..1440, day in 0usize..7, at in 0i64..10080) {
            prop_assume!(to < from);
            let hours = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
            let (this, next) = (DAYS[day].0, DAYS[(day + 1) % 7].0);
            let whole = format!("{this} {}-{}", hours(from), hours(to));
            let halves = [format!("{this} {}-24:00", hours(from)), format!("{next} 00:00-{}", hours(to))];
            let at = WallTime::from_unix_nanos(at * 60_000_000_000);
            let whole = Schedule::new([whole.as_str()], Some("UTC")).unwrap();
            let halves = Schedule::new(halves.iter().map(String::as_str), Some("UTC")).unwrap();
            prop_assert_eq!(whole.is_open(at), halves.is_open(at));
        }
    }
}
