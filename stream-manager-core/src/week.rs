//! Times of the week, as people write them: days such as `mon-fri`, hours such as `08:00`, and the moments at which something is to
//! be done ([`Moments`]).

use crate::frame::WallTime;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use std::str::FromStr;

pub(crate) const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];
pub(crate) const MINUTES_OF_A_DAY: u16 = 24 * 60;

fn day(text: &str) -> Option<usize> {
    DAYS.iter().position(|(name, _)| text.eq_ignore_ascii_case(name))
}

/// The days that are meant; Monday is the lowest bit.
pub(crate) fn days(text: &str) -> Option<u8> {
    if text.eq_ignore_ascii_case("daily") {
        return Some(0x7f);
    }
    let mut set = 0;
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        // fri-mon goes over the end of the week.
        let count = (last + 7 - first) % 7;
        (0..=count).for_each(|n| set |= 1 << ((first + n) % 7));
    }
    Some(set)
}

/// Minutes of a day.
pub(crate) fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= MINUTES_OF_A_DAY).then_some(all)
}

/// A time zone by its name; the machine's own if none is given. A name that is not known is given back.
pub(crate) fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    match name {
        None => Ok(TimeZone::system()),
        Some(name) => TimeZone::get(name).map_err(|_| name.chars().take(60).collect()),
    }
}

/// What the machine's own time zone is called, if it has a name.
#[cfg(feature = "http")]
pub(crate) fn zone_name() -> Option<String> {
    TimeZone::system().iana_name().map(str::to_owned)
}

/// What a clock on the wall says.
pub(crate) fn civil(at: WallTime, zone: &TimeZone) -> Option<DateTime> {
    let timestamp = jiff::Timestamp::from_nanosecond(i128::from(at.as_unix_nanos())).ok()?;
    Some(zone.to_datetime(timestamp))
}

/// Monday is 0.
pub(crate) fn weekday(date: Date) -> usize {
    DAYS.iter().position(|(_, day)| *day == date.weekday()).unwrap_or(0)
}

/// A moment of the week: days, and a minute of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    days: u8,
    minute: u16,
}

/// What cannot be read as moments of the week.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no moment of the week; expected days and a time such as \"daily 03:30\" or \"sat,sun 23:00\""
)]
pub struct ParseMomentError(String);

impl FromStr for Moment {
    type Err = ParseMomentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (on, at) = text.trim().split_once(' ')?;
            let minute = minutes(at.trim()).filter(|minute| *minute < MINUTES_OF_A_DAY)?;
            Some(Self { days: days(on)?, minute })
        };
        read().ok_or_else(|| ParseMomentError(text.chars().take(60).collect()))
    }
}

/// Moments of the week at which something is to be done, in a time zone.
///
/// ```
/// # use stream_manager_core::week::Moments;
/// let moments = Moments::new(["daily 03:30"], Some("UTC")).unwrap();
/// let last = moments.last_before("2026-07-06T01:00:00Z".parse().unwrap()).unwrap();
/// assert_eq!(last.to_string(), "2026-07-05T03:30:00.000Z");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    moments: Vec<Moment>,
    zone: TimeZone,
}

/// Why there are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MomentsError {
    /// One cannot be read.
    #[error(transparent)]
    Moment(#[from] ParseMomentError),
    /// The time zone is not known to this machine.
    #[error("\"{0}\" is no time zone that this machine knows; expected a name such as Europe/Berlin, or UTC")]
    Zone(String),
}

impl Moments {
    /// From days and times, such as `mon-fri 03:30`, and the name of a time zone (IANA); the machine's own if none is given.
    ///
    /// # Errors
    /// If one of them cannot be read, or the time zone is not known.
    pub fn new<'a>(
        moments: impl IntoIterator<Item = &'a str>,
        zone: Option<&str>,
    ) -> Result<Self, MomentsError> {
        let moments = moments.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { moments, zone: self::zone(zone).map_err(MomentsError::Zone)? })
    }

    /// The last of them that is not after `at`. One that daylight saving leaves out comes as much later; one that comes twice is the
    /// first.
    pub fn last_before(&self, at: WallTime) -> Option<WallTime> {
        let today = civil(at, &self.zone)?.date();
        let mut last = None;
        for back in 0..=8 {
            let date = today.checked_sub(jiff::Span::new().days(back)).ok()?;
            for moment in self.moments.iter().filter(|moment| moment.days & (1 << weekday(date)) != 0) {
                let (hour, minute) = (moment.minute / 60, moment.minute % 60);
                let time = date.at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
                let nanos = self.zone.to_timestamp(time).ok()?.as_nanosecond();
                let then = WallTime::from_unix_nanos(i64::try_from(nanos).ok()?);
                last = last.max(Some(then).filter(|then| *then <= at));
            }
            // Whatever is further back is earlier.
            if last.is_some() && back > 0 {
                break;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(moments: &[&str], zone: &str, at: &str) -> String {
        let moments = Moments::new(moments.iter().copied(), Some(zone)).unwrap();
        moments.last_before(at.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn the_last_one() {
        let daily = ["daily 03:30"];
        assert_eq!(last(&daily, "UTC", "2026-07-06T03:30:00Z"), "2026-07-06T03:30:00.000Z");
        assert_eq!(last(&daily, "UTC", "2026-07-06T03:29:59Z"), "2026-07-05T03:30:00.000Z");
        // 2026-07-06 is a Monday; Berlin is two hours ahead.
        let weekly = ["sun 03:30", "wed 23:00"];
        assert_eq!(last(&weekly, "Europe/Berlin", "2026-07-06T12:00:00Z"), "2026-07-05T01:30:00.000Z");
        assert_eq!(last(&weekly, "Europe/Berlin", "2026-07-05T01:00:00Z"), "2026-07-01T21:00:00.000Z");
        assert_eq!(last(&["mon 00:00"], "UTC", "2026-07-05T23:59:59Z"), "2026-06-29T00:00:00.000Z");
    }

    /// Berlin, 2026: at 01:00 UTC on 29 March 02:00 becomes 03:00, at 01:00 UTC on 25 October 03:00 becomes 02:00.
    #[test]
    fn daylight_saving() {
        let daily = ["daily 02:30"];
        assert_eq!(last(&daily, "Europe/Berlin", "2026-03-29T12:00:00Z"), "2026-03-29T01:30:00.000Z");
        assert_eq!(last(&daily, "Europe/Berlin", "2026-10-25T12:00:00Z"), "2026-10-25T00:30:00.000Z");
    }

    #[test]
    fn what_cannot_be_read() {
        for text in ["", "daily", "03:30", "daily 24:00", "daily 3:30", "day 03:30", "daily 03:30-04:00"] {
            let error = Moments::new([text], None).unwrap_err();
            assert!(error.to_string().contains("expected days and a time"), "{text}: {error}");
        }
        assert!(matches!(Moments::new(["daily 03:30"], Some("Nowhere")), Err(MomentsError::Zone(_))));
        assert_eq!(Moments::new([], None).unwrap().last_before(WallTime::now()), None);
    }
}
