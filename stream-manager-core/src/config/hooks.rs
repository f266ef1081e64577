//! `[events]` and `[hooks]`: what is kept of events, and what is done when they happen.

use super::DurationText;
use super::ServiceAddress;
use crate::auth::{PathPattern, Secret};
use crate::event::EventKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::time::Duration;

/// `[events]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// How many events the journal keeps.
    pub journal_size: u64,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { journal_size: 100_000 }
    }
}

/// `[hooks]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HooksConfig {
    /// Addresses that events are sent to.
    pub webhooks: Vec<WebhookConfig>,
    /// Programs that are run.
    pub commands: Vec<CommandConfig>,
    /// The broker that events are published to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<MqttConfig>,
}

/// `[[hooks.webhooks]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name, for logs and the API.
    pub name: String,
    /// Where events are sent to: `http://` or `https://`.
    pub url: ServiceAddress,
    /// What requests are signed with. Not signed if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Which streams' events: ids, in which `*` stands for anything. Events of no stream always count.
    #[serde(default = "everything")]
    pub streams: Vec<String>,
    /// Which kinds of events; all if empty.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// How long an answer may take.
    #[serde(default = "ten_seconds")]
    pub timeout: DurationText,
    /// How long an event is tried again.
    #[serde(default = "one_day")]
    pub max_age: DurationText,
}

/// `[[hooks.commands]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// Its name, for logs and the API.
    pub name: String,
    /// The program and its arguments. No shell is between.
    pub command: Vec<String>,
    /// Which streams' events: ids, in which `*` stands for anything. Events of no stream always count.
    #[serde(default = "everything")]
    pub streams: Vec<String>,
    /// Which kinds of events; all if empty.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// How long it may run; then it and its children are ended.
    #[serde(default = "thirty_seconds")]
    pub timeout: DurationText,
    /// How many may run at one time; further events wait.
    #[serde(default = "four")]
    pub max_running: usize,
}

/// `[hooks.mqtt]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttConfig {
    /// The broker: `mqtt://host:1883`.
    pub url: ServiceAddress,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// What the client calls itself.
    #[serde(default = "client_id")]
    pub client_id: String,
    /// What topics begin with: an event goes to `<topic>/<stream>/<kind>`, or `<topic>/<kind>` without a stream.
    #[serde(default = "client_id")]
    pub topic: String,
    /// 0: at most once, 1: at least once, 2: exactly once.
    #[serde(default = "one")]
    pub qos: u8,
    /// Which streams' events: ids, in which `*` stands for anything. Events of no stream always count.
    #[serde(default = "everything")]
    pub streams: Vec<String>,
    /// Which kinds of events; all if empty.
    #[serde(default)]
    pub kinds: Vec<String>,
}

fn everything() -> Vec<String> {
    vec!["*".into()]
}

fn ten_seconds() -> DurationText {
    DurationText(Duration::from_secs(10))
}

fn thirty_seconds() -> DurationText {
    DurationText(Duration::from_secs(30))
}

fn one_day() -> DurationText {
    DurationText(Duration::from_secs(24 * 3600))
}

fn four() -> usize {
    4
}

fn one() -> u8 {
    1
}

fn client_id() -> String {
    "stream-manager".into()
}

impl HooksConfig {
    /// What is wrong with it: the key, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for (index, hook) in self.webhooks.iter().enumerate() {
            let key = |key: &str| format!("hooks.webhooks[{index}].{key}");
            check_name(&key("name"), &hook.name, &mut names)?;
            let right = url::Url::parse(hook.url.reveal())
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if !right {
                let shown = hook.url.shown();
                return Err(format!(
                    "{}: \"{shown}\" is no address; expected http:// or https://",
                    key("url")
                ));
            }
            check_filter(&key, &hook.streams, &hook.kinds)?;
            at_least(&key("timeout"), hook.timeout, 1)?;
        }
        for (index, hook) in self.commands.iter().enumerate() {
            let key = |key: &str| format!("hooks.commands[{index}].{key}");
            check_name(&key("name"), &hook.name, &mut names)?;
            if hook.command.first().is_none_or(String::is_empty) {
                return Err(format!("{}: it is empty; expected a program and its arguments", key("command")));
            }
            check_filter(&key, &hook.streams, &hook.kinds)?;
            at_least(&key("timeout"), hook.timeout, 1)?;
            if !(1..=100).contains(&hook.max_running) {
                return Err(format!("{}: it is {}; expected 1 to 100", key("max_running"), hook.max_running));
            }
        }
        if let Some(mqtt) = &self.mqtt {
            let key = |key: &str| format!("hooks.mqtt.{key}");
            if !url::Url::parse(mqtt.url.reveal()).is_ok_and(|url| url.scheme() == "mqtt" && url.has_host()) {
                let shown = mqtt.url.shown();
                return Err(format!(
                    "{}: \"{shown}\" is no broker; expected an address such as \"mqtt://host:1883\"",
                    key("url")
                ));
            }
            if mqtt.topic.is_empty() || mqtt.topic.contains(['#', '+']) {
                return Err(format!("{}: \"{}\" is no topic to publish to", key("topic"), mqtt.topic));
            }
            if mqtt.qos > 2 {
                return Err(format!("{}: it is {}; expected 0, 1 or 2", key("qos"), mqtt.qos));
            }
            check_filter(&key, &mqtt.streams, &mqtt.kinds)?;
        }
        Ok(())
    }
}

fn check_name(key: &str, name: &str, names: &mut HashSet<String>) -> Result<(), String> {
    let right = !name.is_empty()
        && name.len() <= 60
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !right {
        return Err(format!("{key}: expected up to 60 letters, digits, '.', '_' and '-'"));
    }
    if name == "mqtt" {
        return Err(format!("{key}: \"mqtt\" is the broker's; expected another name"));
    }
    if names.insert(name.to_owned()) {
        Ok(())
    } else {
        Err(format!("{key}: \"{name}\" is an earlier hook's already"))
    }
}

fn check_filter(key: &impl Fn(&str) -> String, streams: &[String], kinds: &[String]) -> Result<(), String> {
    for pattern in streams {
        pattern.parse::<PathPattern>().map_err(|problem| format!("{}: {problem}", key("streams")))?;
    }
    for kind in kinds {
        if !EventKind::NAMES.contains(&kind.as_str()) {
            return Err(format!("{}: {}", key("kinds"), super::load::unknown_kind(kind)));
        }
    }
    Ok(())
}

fn at_least(key: &str, duration: DurationText, seconds: u64) -> Result<(), String> {
    if duration.0 >= Duration::from_secs(seconds) {
        Ok(())
    } else {
        Err(format!("{key}: it is {duration}; expected at least {seconds}s"))
    }
}
