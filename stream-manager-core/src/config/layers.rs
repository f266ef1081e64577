//! The layers that make up a configuration, and what changes from one to the next.
//!
//! defaults < what was set through the API < file < environment < arguments: what the operator writes wins, the
//! API fills in the rest.

use super::load::{Overrides, apply_variable, from_table, parse};
use super::{Config, ConfigError};
use serde_json::Value;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Where a configuration comes from; can be read again and again.
#[derive(Clone, Debug, Default)]
pub struct ConfigSource {
    /// The file.
    pub file: Option<PathBuf>,
    /// What [`std::env::vars`] gives.
    pub environment: Vec<(String, String)>,
    /// The arguments.
    pub overrides: Overrides,
}

impl ConfigSource {
    /// Reads the layers in their order, and checks the whole, its streams included. `stored` is what was set through
    /// the API. Blocks.
    ///
    /// # Errors
    /// For the first mistake found; see [`ConfigError`].
    pub fn load(&self, stored: Option<&toml::Table>) -> Result<Config, ConfigError> {
        self.with(&self.written()?, stored)
    }

    /// The same with what the operator had written at an earlier moment.
    pub(crate) fn with(
        &self,
        written: &Written,
        stored: Option<&toml::Table>,
    ) -> Result<Config, ConfigError> {
        let mut table = stored.cloned().unwrap_or_default();
        merge(&mut table, written.table.clone());
        let mut config = from_table(&table).map_err(|problem| ConfigError::File {
            place: String::new(),
            key: String::new(),
            problem,
        })?;
        self.overrides.apply(&mut config);
        let whole = |problem| ConfigError::File {
            place: self.file.as_ref().map(|f| format!("{}: ", f.display())).unwrap_or_default(),
            key: String::new(),
            problem,
        };
        config.check().map_err(whole)?;
        Ok(config)
    }

    /// What tells the file's content from others. Blocks.
    pub(crate) fn content(&self) -> Option<u64> {
        let text = read(self.file.as_ref()?).ok()?;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Some(hasher.finish())
    }

    /// What the file and the environment set at the moment. Blocks.
    pub(crate) fn written(&self) -> Result<Written, ConfigError> {
        let mut table = toml::Table::new();
        if let Some(path) = &self.file {
            let shown = path.display().to_string();
            let content = read(path)?;
            parse::<Config>(&content, Some(&shown))?;
            // Parsed once as configuration for its messages, once as plain TOML to be merged.
            table = content.parse().unwrap_or_default();
        }
        let mut variables = self.environment.clone();
        variables.sort();
        for (name, value) in variables {
            apply_variable(&mut table, &name, &value)?;
        }
        Ok(Written { table })
    }

    /// The keys that the file, the environment or the arguments set, with dots between their parts.
    pub(crate) fn operator_keys(&self, written: &Written) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        collect_keys(&serde_json::to_value(&written.table).unwrap_or_default(), "", &mut keys);
        let overrides = &self.overrides;
        for (set, key) in [
            (overrides.port.is_some() || overrides.listen.is_some(), "server.listen"),
            (overrides.rtsp_listen.is_some(), "rtsp.listen"),
            (overrides.data_dir.is_some(), "storage.data_dir"),
            (overrides.log.is_some(), "telemetry.log"),
        ] {
            if set {
                keys.insert(key.to_owned());
            }
        }
        keys
    }
}

/// What the operator has written, file and environment, as it was read at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    table: toml::Table,
}

/// A file of more than this is none of ours.
const MAX_FILE_BYTES: u64 = 64 << 20;

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |problem: String| ConfigError::Read { path: path.display().to_string(), problem };
    let size = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(failed(format!("it has {size} bytes; expected {MAX_FILE_BYTES} at most")));
    }
    std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))
}

/// Lays one table over another: tables key by key, everything else as a whole.
fn merge(below: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

pub(crate) fn collect_keys(value: &Value, prefix: &str, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                collect_keys(value, &path, keys);
            }
        }
        _ => {
            keys.insert(prefix.to_owned());
        }
    }
}

/// What a changed key takes to come into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing is interrupted.
    Live,
    /// The streams that it concerns are started again.
    StreamRestart,
    /// The listener is bound anew; its connections end.
    Rebind,
    /// The old value stays in force until the process is started again.
    ProcessRestart,
}

impl Effect {
    /// As in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::StreamRestart => "stream restart",
            Self::Rebind => "rebind",
            Self::ProcessRestart => "process restart",
        }
    }

    /// What a change of this key takes. Keys are as in the file, with dots between their parts.
    pub fn of(key: &str) -> Self {
        let stream = key.strip_prefix("defaults.").or_else(|| key.strip_prefix("streams."));
        if let Some(key) = stream {
            let live = key == "enabled"
                || key == "recording.enabled"
                || key.starts_with("recording.retention")
                || (key.starts_with("inference.")
                    && !matches!(
                        key,
                        "inference.source_url"
                            | "inference.variant"
                            | "inference.annotated"
                            | "inference.metadata_track"
                    ))
                || key.starts_with("hls.");
            return if live { Self::Live } else { Self::StreamRestart };
        }
        match key {
            "server.listen" | "auth.methods" => Self::Rebind,
            _ if key.starts_with("server.tls_") => Self::Rebind,
            "storage.max_size"
            | "storage.min_free"
            | "storage.objects_max_age"
            | "storage.objects_max_count" => Self::Live,
            "telemetry.log_format" => Self::ProcessRestart,
            _ if key.starts_with("telemetry.otlp") => Self::ProcessRestart,
            _ if ["rtmp.", "rtsp.", "webrtc."].iter().any(|section| key.starts_with(section)) => Self::Rebind,
            _ if key.starts_with("storage.") => Self::ProcessRestart,
            _ => Self::Live,
        }
    }
}

/// A key that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key, with dots between its parts.
    pub key: String,
    /// What it takes.
    pub effect: Effect,
}

impl Config {
    /// The keys in which another configuration differs; the streams themselves are left out.
    pub fn changes_to(&self, new: &Self) -> Vec<KeyChange> {
        let flat = |config: &Self| {
            // Secrets look all the same as JSON: these are compared as they are.
            let plain = Self {
                auth: Default::default(),
                hooks: Default::default(),
                streams: Vec::new(),
                ..config.clone()
            };
            let mut values = std::collections::BTreeMap::new();
            flatten(&serde_json::to_value(plain).unwrap_or_default(), "", &mut values);
            values
        };
        let (old_values, new_values) = (flat(self), flat(new));
        let mut keys: BTreeSet<String> = old_values
            .keys()
            .chain(new_values.keys())
            .filter(|key| old_values.get(*key) != new_values.get(*key))
            .cloned()
            .collect();
        for (differs, key) in [
            (self.auth.methods != new.auth.methods, "auth.methods"),
            (self.auth.users != new.auth.users, "auth.users"),
            (self.auth.anonymous != new.auth.anonymous, "auth.anonymous"),
            (self.auth.open_viewing != new.auth.open_viewing, "auth.open_viewing"),
            (self.auth.session_lifetime != new.auth.session_lifetime, "auth.session_lifetime"),
            (self.auth.jwt != new.auth.jwt, "auth.jwt"),
            (self.auth.callback != new.auth.callback, "auth.callback"),
            (self.hooks.webhooks != new.hooks.webhooks, "hooks.webhooks"),
            (self.hooks.commands != new.hooks.commands, "hooks.commands"),
            (self.hooks.mqtt != new.hooks.mqtt, "hooks.mqtt"),
        ] {
            if differs {
                keys.insert(key.to_owned());
            }
        }
        keys.into_iter().map(|key| KeyChange { effect: Effect::of(&key), key }).collect()
    }

    /// This configuration, but with the values of `old` where a change takes a restart of the process.
    #[must_use]
    pub fn keeping_process_keys(mut self, old: &Self) -> Self {
        let storage = self.storage;
        self.storage = old.storage.clone();
        self.storage.max_size = storage.max_size;
        self.storage.min_free = storage.min_free;
        self.telemetry.log_format = old.telemetry.log_format;
        self
    }
}

fn flatten(value: &Value, prefix: &str, values: &mut std::collections::BTreeMap<String, Value>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(value, &path, values);
            }
        }
        value => {
            values.insert(prefix.to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_writes_wins_and_the_rest_is_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, "[server]\nmax_connects = 4\n[defaults.recording]\nenabled = true\n").unwrap();
        let source = ConfigSource {
            file: Some(file),
            environment: vec![("STREAM_MANAGER_STORAGE__MIN_FREE".into(), "5%".into())],
            overrides: Overrides { log: Some("debug".into()), ..Overrides::default() },
        };
        let stored: toml::Table =
            "[server]\nmax_connects = 9\n[storage]\nmin_free = '1%'\nmax_size = '1GB'\n\
                                   [defaults]\ntransport = 'udp'\n"
                .parse()
                .unwrap();
        let config = source.load(Some(&stored)).unwrap();
        assert_eq!(config.server.max_connects, 4);
        assert_eq!(config.storage.min_free.to_string(), "5%");
        assert_eq!(config.storage.max_size.unwrap().0, 1_000_000_000);
        assert_eq!(config.defaults.transport, crate::source::SourceTransport::Udp);
        assert!(config.defaults.recording.enabled);
        let keys: Vec<String> = source.operator_keys(&source.written().unwrap()).into_iter().collect();
        assert_eq!(
            keys,
            ["defaults.recording.enabled", "server.max_connects", "storage.min_free", "telemetry.log"]
        );
    }

    #[test]
    fn changes_are_named_with_what_they_take() {
        let old = Config::default();
        let mut new = old.clone();
        new.server.max_connects = 3;
        new.rtsp.udp_port = 8000;
        new.storage.data_dir = "elsewhere".into();
        new.storage.max_size = Some(super::super::BytesText(5));
        new.auth.users.push(super::super::UserConfig {
            name: "a".into(),
            password: crate::auth::Secret::new("b"),
            role: None,
            streams: None,
            permissions: Vec::new(),
            read: None,
            publish: Vec::new(),
        });
        let changes = old.changes_to(&new);
        let named: Vec<(&str, Effect)> = changes.iter().map(|c| (c.key.as_str(), c.effect)).collect();
        assert_eq!(
            named,
            [
                ("auth.users", Effect::Live),
                ("rtsp.udp_port", Effect::Rebind),
                ("server.max_connects", Effect::Live),
                ("storage.data_dir", Effect::ProcessRestart),
                ("storage.max_size", Effect::Live)
            ]
        );
        let mut other = new.clone();
        other.auth.users[0].password = crate::auth::Secret::new("c");
        assert_eq!(new.changes_to(&other).len(), 1);
        let kept = new.clone().keeping_process_keys(&old);
        assert_eq!(kept.storage.data_dir, old.storage.data_dir);
        assert_eq!(kept.storage.max_size, new.storage.max_size);
    }
}
