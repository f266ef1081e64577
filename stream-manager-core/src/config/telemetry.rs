//! `[telemetry]`: what is told about the work, and to whom.

use super::{DurationText, ServiceAddress};
use crate::auth::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as
    /// `info,stream_manager_core::source=debug`.
    pub log: String,
    /// The level of single streams, by their ids, in which `*` stands for anything. It holds for lines about them instead of `log`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub log_streams: BTreeMap<String, LogLevel>,
    /// How often a minute the same warning or error is written; 0 for no limit.
    pub log_repeats: u32,
    /// How it is written.
    pub log_format: LogFormat,
    /// Traces, logs and metrics by OTLP. None if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpConfig>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: "info".into(),
            log_streams: BTreeMap::new(),
            log_repeats: 5,
            log_format: LogFormat::Text,
            otlp: None,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// To systemd's journal, with fields of its own.
    Journald,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something may not work.
    Warn,
    /// What happens.
    Info,
    /// What happens inside.
    Debug,
    /// Everything.
    Trace,
}

/// `[telemetry.otlp]`: where traces, logs and metrics go, by OTLP over HTTP (protobuf).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// The receiver's address, such as `http://127.0.0.1:4318`.
    pub endpoint: ServiceAddress,
    /// Headers that go with each request, such as keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Whether traces are sent.
    #[serde(default = "yes")]
    pub traces: bool,
    /// Whether log lines are sent.
    #[serde(default = "yes")]
    pub logs: bool,
    /// Whether metrics are sent.
    #[serde(default = "yes")]
    pub metrics: bool,
    /// How often metrics are sent.
    #[serde(default = "interval")]
    pub interval: DurationText,
    /// Which part of all traces is sent, from 0 to 1.
    #[serde(default = "all")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// What this machine is called there; its host name if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

const fn yes() -> bool {
    true
}

const fn interval() -> DurationText {
    DurationText(Duration::from_secs(60))
}

const fn all() -> f64 {
    1.0
}

impl TelemetryConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        for pattern in self.log_streams.keys() {
            let read: Result<crate::auth::PathPattern, _> = pattern.parse();
            read.map_err(|e| format!("telemetry.log_streams.\"{pattern}\": {e}"))?;
        }
        let Some(otlp) = &self.otlp else { return Ok(()) };
        let shown = otlp.endpoint.shown();
        let url = url::Url::parse(otlp.endpoint.reveal())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
        if url.is_none() {
            return Err(format!(
                "telemetry.otlp.endpoint: \"{shown}\" is no address; expected such as \"http://127.0.0.1:4318\""
            ));
        }
        if !(0.0..=1.0).contains(&otlp.sample) {
            return Err(format!("telemetry.otlp.sample: it is {}; expected 0 to 1", otlp.sample));
        }
        if otlp.interval.0 < Duration::from_secs(1) || otlp.interval.0 > Duration::from_secs(3600) {
            return Err("telemetry.otlp.interval: expected 1s to 1h".into());
        }
        let token = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        };
        if let Some(name) = otlp.headers.keys().find(|name| !token(name)) {
            return Err(format!(
                "telemetry.otlp.headers: \"{name}\" is no name of a header (RFC 9110, section 5.1)"
            ));
        }
        Ok(())
    }
}
