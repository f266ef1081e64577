//! Durations and sizes as people write them: `"30s"`, `"10GB"`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A duration: text such as `"1h 30m"`, `"500ms"`, or a number of seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationText(pub Duration);

/// A number of bytes: text such as `"10GB"`, `"64MiB"`, or a plain number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BytesText(pub u64);

/// Whether a number is part of a whole.
pub(super) fn is_part(number: f32) -> bool {
    (0.0..=1.0).contains(&number)
}

/// A number from 0 to 1: one that is too large for its type would be none any more.
pub(super) fn optional_part<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f32>, D::Error> {
    let number = Option::<f32>::deserialize(deserializer)?;
    match number.filter(|number| !is_part(*number)) {
        Some(number) => Err(serde::de::Error::custom(format!("it is {number}; expected 0 to 1"))),
        None => Ok(number),
    }
}

/// The same where there is always one.
pub(super) fn part<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    let number = optional_part(deserializer)?;
    number.ok_or_else(|| serde::de::Error::custom("it is missing; expected 0 to 1"))
}

/// Whether a key's length of time is one that it may have.
pub(super) fn check_duration(
    key: &'static str,
    value: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), (&'static str, String)> {
    if value >= least && value <= most {
        return Ok(());
    }
    let [value, least, most] = [value, least, most].map(DurationText);
    Err((key, format!("it is {value}; expected {least} to {most}")))
}

impl fmt::Debug for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl fmt::Debug for BytesText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BytesText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl std::str::FromStr for DurationText {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(seconds) = text.parse::<f64>() {
            return from_seconds(seconds);
        }
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= LONGEST => Ok(Self(duration)),
            _ => {
                let expected = "expected text such as \"30s\", \"500ms\" or \"1h 30m\", up to 30 years";
                Err(format!("\"{text}\" is no duration; {expected}"))
            }
        }
    }
}

fn from_seconds(seconds: f64) -> Result<DurationText, String> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= LONGEST => Ok(DurationText(duration)),
        _ => Err(format!(
            "{seconds} is no duration; expected a number of seconds from 0 to {}",
            LONGEST.as_secs()
        )),
    }
}

/// Thirty years: what is longer is a mistake.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

impl std::str::FromStr for BytesText {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("\"{text}\" is no size; expected text such as \"10GB\" or \"64MiB\""))
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = DurationText;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"30s\", or seconds")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<DurationText, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<DurationText, E> {
        from_seconds(seconds as f64).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<DurationText, E> {
        from_seconds(seconds as f64).map_err(E::custom)
    }
    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<DurationText, E> {
        from_seconds(seconds).map_err(E::custom)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = BytesText;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"10GB\", or bytes")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<BytesText, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<BytesText, E> {
        u64::try_from(bytes)
            .map(BytesText)
            .map_err(|_| E::custom(format!("{bytes} is no size; expected a number that is not negative")))
    }
    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<BytesText, E> {
        Ok(BytesText(bytes))
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

impl<'de> Deserialize<'de> for BytesText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for BytesText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        if generator.contract().is_serialize() {
            return json_schema!({"type": "string", "description": "A duration: text such as \"30s\", \"500ms\" or \"1h 30m\", or a number of seconds"});
        }
        json_schema!({
            "description": "A duration: text such as \"30s\", \"500ms\" or \"1h 30m\", or a number of seconds",
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?$|^([0-9]{1,6}(ns|us|ms|s|m|h|days?|w))( ?[0-9]{1,3}(ns|us|ms|s|m|h))*$"},
                {"type": "number", "minimum": 0, "maximum": 1_000_000_000}
            ]
        })
    }
}

impl JsonSchema for BytesText {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        if generator.contract().is_serialize() {
            return json_schema!({"type": "string", "description": "A size: text such as \"10GB\" or \"64MiB\", or a number of bytes"});
        }
        json_schema!({
            "description": "A size: text such as \"10GB\" or \"64MiB\", or a number of bytes",
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]{1,9} ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$"},
                {"type": "integer", "minimum": 0, "maximum": u64::MAX}
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_s_ways_of_writing() {
        assert_eq!("1h 30m".parse::<DurationText>().unwrap().0, Duration::from_secs(5400));
        assert_eq!("2.5".parse::<DurationText>().unwrap().0, Duration::from_millis(2500));
        assert_eq!("10GB".parse::<BytesText>().unwrap().0, 10_000_000_000);
        assert_eq!("64MiB".parse::<BytesText>().unwrap().0, 64 << 20);
        assert!("-1".parse::<DurationText>().is_err());
        assert!("soon".parse::<DurationText>().unwrap_err().contains("expected text such as"));
        for size in [0, 1000, 1 << 10, 5 << 20, 7 << 30] {
            assert_eq!(BytesText(size).to_string().parse::<BytesText>(), Ok(BytesText(size)));
        }
    }
}
