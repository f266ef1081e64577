//! How streams are packaged for HLS, DASH and fMP4 players, and what holds for their server.

use super::units::check_duration;
use super::{BytesText, DurationText};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[hls]`: HLS, DASH, `live.mp4`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HlsConfig {
    /// Whether they are served.
    pub enabled: bool,
    /// Which pages may play: `*`, an origin such as `https://example.org`, or nothing for none but our own.
    pub allow_origin: String,
    /// Whether each viewer gets playlists of its own, by which it is counted and can be ended. Without, caches can
    /// answer for all.
    pub sessions: bool,
    /// Requests that may wait for something that is still to come, over all streams.
    pub max_waiting: usize,
}

impl Default for HlsConfig {
    fn default() -> Self {
        Self { enabled: true, allow_origin: "*".into(), sessions: true, max_waiting: 2048 }
    }
}

impl HlsConfig {
    /// What is wrong with it: the key, and what would be right.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), String> {
        check_origin("hls.allow_origin", &self.allow_origin)?;
        if !(1..=100_000).contains(&self.max_waiting) {
            return Err(format!("hls.max_waiting: it is {}; expected 1 to 100000", self.max_waiting));
        }
        Ok(())
    }
}

/// Which pages may play.
pub(super) fn check_origin(key: &str, origin: &str) -> Result<(), String> {
    let right = origin.is_empty()
        || origin == "*"
        || (origin.bytes().all(|b| b.is_ascii_graphic())
            && origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/')));
    if right {
        return Ok(());
    }
    Err(format!(
        "{key}: \"{origin}\" is no origin; expected \"*\", one such as \"https://example.org\", or \"\""
    ))
}

/// `[defaults.hls]` and `[streams.hls]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StreamHlsConfig {
    /// Whether it can be had by HLS, DASH and as `live.mp4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether it is packaged all the time, not only while somebody watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always: Option<bool>,
    /// Whether segments can be had in parts while they are being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_latency: Option<bool>,
    /// Length of a segment; the cut is at the next keyframe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_duration: Option<DurationText>,
    /// Length of a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_duration: Option<DurationText>,
    /// How much a playlist lists; twice that is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<DurationText>,
    /// The most that is held, over all tracks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<BytesText>,
    /// Packaging ends this long after the last request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<DurationText>,
    /// Other streams that are the same camera in other qualities, by their ids: players choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variants: Option<Vec<String>>,
}

/// How a stream is packaged, with everything that it leaves to the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct HlsSettings {
    /// Whether it can be had.
    pub enabled: bool,
    /// Whether it is packaged all the time.
    pub always: bool,
    /// Whether segments can be had in parts.
    pub low_latency: bool,
    /// Length of a segment.
    pub segment_duration: Duration,
    /// Length of a part.
    pub part_duration: Duration,
    /// How much a playlist lists.
    pub window: Duration,
    /// The most that is held.
    pub max_bytes: u64,
    /// Packaging ends this long after the last request.
    pub idle_timeout: Duration,
    /// The same camera in other qualities.
    pub variants: Vec<String>,
}

impl Default for HlsSettings {
    /// Low latency: segments of two seconds, parts of 200 ms, twelve seconds listed, 64 MiB, only while watched.
    fn default() -> Self {
        Self {
            enabled: true,
            always: false,
            low_latency: true,
            segment_duration: Duration::from_secs(2),
            part_duration: Duration::from_millis(200),
            window: Duration::from_secs(12),
            max_bytes: 64 << 20,
            idle_timeout: Duration::from_secs(30),
            variants: Vec::new(),
        }
    }
}

impl HlsSettings {
    /// What is wrong: the key, and what would be right.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let (secs, millis) = (Duration::from_secs, Duration::from_millis);
        check_duration("hls/segment_duration", self.segment_duration, secs(1), secs(30))?;
        check_duration("hls/part_duration", self.part_duration, millis(50), self.segment_duration)?;
        check_duration("hls/window", self.window, self.segment_duration * 3, secs(3600))?;
        check_duration("hls/idle_timeout", self.idle_timeout, secs(5), secs(24 * 3600))?;
        if self.max_bytes < 1 << 20 {
            return Err((
                "hls/max_size",
                format!("it is {}; expected at least 1MiB", BytesText(self.max_bytes)),
            ));
        }
        if self.variants.len() > 16 {
            return Err(("hls/variants", format!("there are {}; expected 16 at most", self.variants.len())));
        }
        for variant in &self.variants {
            if let Err(error) = variant.parse::<crate::manager::StreamId>() {
                return Err(("hls/variants", error.to_string()));
            }
        }
        Ok(())
    }
}

impl StreamHlsConfig {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn resolve(&self, defaults: &Self) -> HlsSettings {
        let base = HlsSettings::default();
        let time = |own: Option<DurationText>, common: Option<DurationText>, base: Duration| {
            own.or(common).map_or(base, |d| d.0)
        };
        HlsSettings {
            enabled: self.enabled.or(defaults.enabled).unwrap_or(base.enabled),
            always: self.always.or(defaults.always).unwrap_or(base.always),
            low_latency: self.low_latency.or(defaults.low_latency).unwrap_or(base.low_latency),
            segment_duration: time(self.segment_duration, defaults.segment_duration, base.segment_duration),
            part_duration: time(self.part_duration, defaults.part_duration, base.part_duration),
            window: time(self.window, defaults.window, base.window),
            max_bytes: self.max_size.or(defaults.max_size).map_or(base.max_bytes, |b| b.0),
            idle_timeout: time(self.idle_timeout, defaults.idle_timeout, base.idle_timeout),
            variants: self.variants.clone().unwrap_or_default(),
        }
    }
}
