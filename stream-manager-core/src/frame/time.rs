//! The two clocks of a frame: [`MediaTime`] on the stream's own timeline, [`WallTime`] in the world.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds on a stream's timeline, which starts near zero when the stream is made.
///
/// Signed, because the decoding time of a first frame with B frames lies before its presentation time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(i64);

impl MediaTime {
    /// The start of the timeline.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From ticks of a clock with `rate` ticks a second; saturates far outside of any real time.
    pub fn from_ticks(ticks: i64, rate: u32) -> Self {
        let nanos = i128::from(ticks) * 1_000_000_000 / i128::from(rate.max(1));
        Self(saturate(nanos))
    }

    /// In nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// In ticks of a clock with `rate` ticks a second, rounded to the nearest one, so that a value
    /// made from ticks of the same rate comes back unchanged.
    pub fn to_ticks(self, rate: u32) -> i64 {
        let scaled = i128::from(self.0) * i128::from(rate);
        saturate((scaled + 500_000_000).div_euclid(1_000_000_000))
    }

    /// In seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Add<Duration> for MediaTime {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl Sub<Duration> for MediaTime {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rhs)))
    }
}

impl fmt::Display for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.as_secs_f64())
    }
}

/// A moment in the world: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(i64);

/// Seconds from the NTP epoch (1900) to the Unix epoch, RFC 5905 section 6.
const NTP_TO_UNIX_SECS: i64 = 2_208_988_800;
/// Seconds from the ISO base media epoch (1904) to the Unix epoch, ISO/IEC 14496-12 section 8.2.2.
const MP4_TO_UNIX_SECS: i64 = 2_082_844_800;

impl WallTime {
    /// Now, by the local clock.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// From nanoseconds since the Unix epoch.
    pub const fn from_unix_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// In nanoseconds since the Unix epoch.
    pub const fn as_unix_nanos(self) -> i64 {
        self.0
    }

    /// From a 64-bit NTP timestamp (RFC 3550 section 4), read in the era around now: seconds below
    /// 2^31 are taken to lie after 2036.
    pub fn from_ntp(ntp: u64) -> Self {
        let mut secs = (ntp >> 32) as i64;
        if secs < 1 << 31 {
            secs += 1 << 32;
        }
        let nanos = ((ntp & 0xffff_ffff) * 1_000_000_000) >> 32;
        Self((secs - NTP_TO_UNIX_SECS) * 1_000_000_000 + nanos as i64)
    }

    /// As a 64-bit NTP timestamp.
    pub fn to_ntp(self) -> u64 {
        let secs = self.0.div_euclid(1_000_000_000) + NTP_TO_UNIX_SECS;
        let nanos = self.0.rem_euclid(1_000_000_000) as u64;
        // Rounded up, so that reading it back does not lose the last nanosecond.
        let fraction = (nanos << 32).div_ceil(1_000_000_000);
        ((secs as u64 & 0xffff_ffff) << 32) | fraction.min(0xffff_ffff)
    }

    /// In seconds since 1904, as `mvhd` and its kin count.
    pub fn to_mp4_secs(self) -> u64 {
        u64::try_from(self.0.div_euclid(1_000_000_000) + MP4_TO_UNIX_SECS).unwrap_or(0)
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Formatted by a `strftime` pattern in UTC.
    pub fn format_utc(self, pattern: &str) -> String {
        self.timestamp().strftime(pattern).to_string()
    }

    /// Formatted by a `strftime` pattern in the machine's time zone.
    pub fn format_local(self, pattern: &str) -> String {
        self.format_in(&jiff::tz::TimeZone::system(), pattern)
    }

    /// Formatted by a `strftime` pattern in a time zone.
    pub(crate) fn format_in(self, zone: &jiff::tz::TimeZone, pattern: &str) -> String {
        self.timestamp().to_zoned_datetime(zone.clone()).strftime(pattern).to_string()
    }

    /// Reads what [`format_utc`](Self::format_utc) gave for the same pattern.
    pub fn parse_utc(pattern: &str, text: &str) -> Option<Self> {
        let broken_down = jiff::fmt::strtime::parse(pattern, text).ok()?;
        let time = jiff::tz::TimeZone::UTC.to_timestamp(broken_down.to_datetime().ok()?).ok()?;
        i64::try_from(time.as_nanosecond()).ok().map(Self)
    }

    fn timestamp(self) -> jiff::Timestamp {
        // i64 nanoseconds reach from 1677 to 2262, all of which jiff can hold.
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl From<SystemTime> for WallTime {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(nanos(after)),
            Err(before) => Self(-nanos(before.duration())),
        }
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl Sub<Duration> for WallTime {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rhs)))
    }
}

impl schemars::JsonSchema for WallTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time", "description": "RFC 3339, UTC"})
    }
}

/// Not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no time; expected RFC 3339 such as 2026-01-31T23:59:59Z, or seconds since 1970")]
pub struct ParseTimeError(String);

/// Nanoseconds of plain decimal seconds, of which a float would keep a quarter of a microsecond: a time that we have given is to come back
/// as it was. What is behind the nanoseconds is left out.
fn exact_nanos(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = fraction.get(..9).unwrap_or(fraction);
    let nanos = nanos.parse::<i64>().ok()? * 10_i64.pow(9 - u32::try_from(nanos.len()).ok()?);
    whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// RFC 3339, or seconds since 1970 with or without a fraction.
impl std::str::FromStr for WallTime {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseTimeError(text.chars().take(60).collect());
        if let Some(nanos) = exact_nanos(text) {
            return Ok(Self(nanos));
        }
        if let Ok(seconds) = text.parse::<f64>() {
            // Nanoseconds end in the year 2262; whatever is beyond is as far as that.
            let micros = (seconds * 1e6).round();
            return if seconds.is_nan() {
                Err(bad())
            } else {
                Ok(Self((micros as i64).saturating_mul(1000)))
            };
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        let nanos = time.as_nanosecond();
        Ok(Self(i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })))
    }
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.format_utc("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

/// From RFC 3339 text, or seconds since 1970 as text or number.
impl<'de> serde::Deserialize<'de> for WallTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = WallTime;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time such as 2026-01-31T23:59:59Z, or seconds since 1970")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<WallTime, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<WallTime, E> {
                self.visit_str(&seconds.to_string())
            }

            fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<WallTime, E> {
                self.visit_str(&seconds.to_string())
            }

            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<WallTime, E> {
                self.visit_str(&seconds.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl serde::Serialize for WallTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ticks_survive(ticks in -1i64<<40..1i64<<40, rate in prop::sample::select(vec![8000u32, 44_100, 48_000, 90_000])) {
            prop_assert_eq!(MediaTime::from_ticks(ticks, rate).to_ticks(rate), ticks);
        }

        #[test]
        fn seconds_survive(nanos in 0i64..i64::MAX) {
            let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
            prop_assert_eq!(text.parse(), Ok(WallTime::from_unix_nanos(nanos)));
        }

        #[test]
        fn ntp_survives(nanos in 0i64..4_000_000_000_000_000_000) {
            prop_assert_eq!(WallTime::from_ntp(WallTime::from_unix_nanos(nanos).to_ntp()).as_unix_nanos(), nanos);
        }
    }

    #[test]
    fn reads_times() {
        let expected = WallTime::from_unix_nanos(1_700_000_000_500_000_000);
        for text in ["2023-11-14T22:13:20.5Z", "2023-11-14T23:13:20.5+01:00", "1700000000.5"] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for (text, nanos) in [
            ("5", 5_000_000_000),
            ("0.1234567899", 123_456_789),
            ("-0.5", -500_000_000),
            ("1.7e1", 17_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(WallTime::from_unix_nanos(nanos)), "{text}");
        }
        assert_eq!("99999999999.5".parse(), Ok(WallTime::from_unix_nanos(i64::MAX)));
        assert_eq!("1e300".parse(), Ok(WallTime::from_unix_nanos(i64::MAX)));
        assert_eq!("9999-01-01T00:00:00Z".parse(), Ok(WallTime::from_unix_nanos(i64::MAX)));
        for text in ["", "yesterday", "NaN", "2023-11-14T22:13:20"] {
            assert!(text.parse::<WallTime>().unwrap_err().to_string().contains("RFC 3339"), "{text}");
        }
        let pattern = "%Y-%m-%dT%H-%M-%S%.fZ";
        assert_eq!(WallTime::parse_utc(pattern, &expected.format_utc(pattern)), Some(expected));
    }

    #[test]
    fn prints_rfc_3339() {
        let t = WallTime::from_unix_nanos(1_700_000_000_123_456_789);
        assert_eq!(t.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(t.format_utc("%Y-%m-%dT%H-%M-%S%.3fZ"), "2023-11-14T22-13-20.123Z");
    }
}
