//! How safe and how much: values that are a word, a time or a size.

use super::{BytesText, DurationText};
use crate::storage::SyncPolicy;
use crate::storage::space::MinFree;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// How often recordings are made safe on disk: a duration, `"0"` for with every part, or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncText(pub SyncPolicy);

/// Room to keep free: a size such as `"10GB"`, or a part of the disk such as `"2%"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MinFreeText(pub MinFree);

impl FromStr for SyncText {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "off" {
            return Ok(Self(SyncPolicy::Off));
        }
        let bad = || {
            format!(
                "\"{text}\" is no sync interval; expected a duration such as \"1s\", \"0\" for with every part, or \"off\""
            )
        };
        let duration = text.parse::<DurationText>().map_err(|_| bad())?.0;
        Ok(Self(if duration.is_zero() { SyncPolicy::EveryPart } else { SyncPolicy::Interval(duration) }))
    }
}

impl fmt::Display for SyncText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SyncPolicy::Off => f.write_str("off"),
            SyncPolicy::EveryPart => f.write_str("0"),
            SyncPolicy::Interval(interval) => DurationText(interval).fmt(f),
        }
    }
}

impl FromStr for MinFreeText {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            let bad = |_| {
                format!(
                    "\"{text}\" is no room to keep free; expected a size such as \"10GB\" or a part such as \"2%\""
                )
            };
            return text.parse::<BytesText>().map(|b| Self(MinFree::Bytes(b.0))).map_err(bad);
        };
        match percent.trim().parse::<f64>() {
            Ok(percent) if (0.0..100.0).contains(&percent) => Ok(Self(MinFree::Percent(percent))),
            _ => Err(format!("\"{text}\" is no part of a disk; expected 0% to less than 100%")),
        }
    }
}

impl fmt::Display for MinFreeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MinFree::Bytes(bytes) => BytesText(bytes).fmt(f),
            MinFree::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Reads text, and numbers as the text that they would be.
struct TextVisitor<T>(PhantomData<T>, &'static str);

impl<T: FromStr<Err = String>> Visitor<'_> for TextVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for SyncText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData, "a duration such as \"1s\", \"0\" or \"off\""))
    }
}

impl<'de> Deserialize<'de> for MinFreeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(TextVisitor(PhantomData, "a size such as \"10GB\", or a part such as \"2%\""))
    }
}

impl Serialize for SyncText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for MinFreeText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for SyncText {
    fn schema_name() -> Cow<'static, str> {
        "SyncInterval".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        if generator.contract().is_serialize() {
            return json_schema!({"type": "string", "description": "A duration such as \"1s\", \"0\" for with every part, or \"off\""});
        }
        json_schema!({
            "description": "A duration such as \"1s\", \"0\" for with every part, or \"off\"",
            "anyOf": [
                {"type": "string", "pattern": "^off$|^[0-9]{1,6}(ms|s|m)?$"},
                {"type": "number", "minimum": 0, "maximum": 3600}
            ]
        })
    }
}

impl JsonSchema for MinFreeText {
    fn schema_name() -> Cow<'static, str> {
        "MinFree".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        if generator.contract().is_serialize() {
            return json_schema!({"type": "string", "description": "A size such as \"10GB\", or a part of the disk such as \"2%\""});
        }
        json_schema!({
            "description": "A size such as \"10GB\", or a part of the disk such as \"2%\"",
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]{1,2}(\\.[0-9]+)?%$|^[0-9]{1,9} ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$"},
                {"type": "number", "minimum": 0, "maximum": u64::MAX}
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn words_times_and_sizes() {
        let second = SyncPolicy::Interval(Duration::from_secs(1));
        for (text, policy) in [("off", SyncPolicy::Off), ("0", SyncPolicy::EveryPart), ("1s", second)] {
            let read: SyncText = text.parse().unwrap();
            assert_eq!((read.0, read.to_string().as_str()), (policy, text));
        }
        assert!("often".parse::<SyncText>().unwrap_err().contains("\"off\""));
        let parts = [("2.5%", MinFree::Percent(2.5)), ("10GiB", MinFree::Bytes(10 << 30))];
        for (text, free) in parts {
            let read: MinFreeText = text.parse().unwrap();
            assert_eq!((read.0, read.to_string().as_str()), (free, text));
        }
        for text in ["100%", "-1%", "much"] {
            assert!(text.parse::<MinFreeText>().unwrap_err().contains("expected"), "{text}");
        }
    }
}
