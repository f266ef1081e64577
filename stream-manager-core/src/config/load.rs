//! Reading the configuration, and saying precisely what is wrong with it.

use super::Config;
use serde::Deserialize;
use std::path::Path;

/// Arguments that override the file and the environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--port`
    pub port: Option<u16>,
    /// `--listen`
    pub listen: Option<std::net::SocketAddr>,
    /// `--rtsp-listen`
    pub rtsp_listen: Option<std::net::SocketAddr>,
    /// `--data-dir`
    pub data_dir: Option<std::path::PathBuf>,
    /// `--log`
    pub log: Option<String>,
}

impl Overrides {
    pub(super) fn apply(&self, config: &mut Config) {
        if let Some(rtsp) = self.rtsp_listen {
            config.rtsp.listen = rtsp;
        }
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        if let Some(port) = self.port {
            config.server.listen.set_port(port);
        }
        if let Some(data_dir) = &self.data_dir {
            config.storage.data_dir.clone_from(data_dir);
        }
        if let Some(log) = &self.log {
            config.telemetry.log.clone_from(log);
        }
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {problem}")]
    Read {
        /// The file.
        path: String,
        /// The system's words.
        problem: String,
    },
    /// The file is no TOML, or a key in it is wrong.
    #[error("{place}{key}{problem}")]
    File {
        /// File and line, with a colon and a space behind; without a file only the line.
        place: String,
        /// The key's full name with a colon and a space behind; empty for a mistake in the syntax.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A variable of the environment is wrong.
    #[error("environment variable {variable}: {problem}")]
    Environment {
        /// Its name.
        variable: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Config {
    /// Reads the layers in their order. `environment` is what [`std::env::vars`] gives.
    ///
    /// # Errors
    /// For the first mistake found; see [`ConfigError`].
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let source = super::ConfigSource {
            file: file.map(Path::to_owned),
            environment: environment.into_iter().collect(),
            overrides: overrides.clone(),
        };
        source.load(None)
    }

    /// What is wrong with it as a whole: the key, and what would be right. Streams are checked by
    /// [`check_streams`](crate::manager::check_streams).
    pub fn check(&self) -> Result<(), String> {
        self.rtsp.check()?;
        self.server.check()?;
        self.auth.check()?;
        self.backup.check()?;
        self.telemetry.check()?;
        self.hooks.check()?;
        self.inference.check()?;
        self.hls.check()?;
        self.webrtc.check()?;
        if self.defaults.hls.variants.is_some() {
            return Err("defaults.hls.variants: they belong to one camera; expected them in a stream".into());
        }
        if self.defaults.inference.variant.is_some() {
            return Err(
                "defaults.inference.variant: it belongs to one camera; expected it in a stream".into()
            );
        }
        if self.defaults.inference.source_url.is_some() {
            return Err(
                "defaults.inference.source_url: it belongs to one camera; expected it in a stream".into()
            );
        }
        if self.server.max_connects == 0 || self.server.max_connects > 100_000 {
            return Err(format!(
                "server.max_connects: it is {}; expected 1 to 100000",
                self.server.max_connects
            ));
        }
        if self.server.max_connects_per_host == 0 || self.server.max_connects_per_host > 100_000 {
            return Err(format!(
                "server.max_connects_per_host: it is {}; expected 1 to 100000",
                self.server.max_connects_per_host
            ));
        }
        if self.events.journal_size == 0 || self.events.journal_size > 100_000_000 {
            return Err(format!(
                "events.journal_size: it is {}; expected 1 to 100000000",
                self.events.journal_size
            ));
        }
        Ok(())
    }

    /// From TOML text alone.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        parse(text, None)
    }

    /// The line of a file in which the n-th `[[streams]]` begins, counted from one.
    pub fn line_of_stream(text: &str, index: usize) -> Option<usize> {
        #[derive(Deserialize)]
        struct Spans {
            streams: Vec<toml::Spanned<toml::Table>>,
        }
        let spans: Spans = toml::from_str(text).ok()?;
        Some(line_of(text, spans.streams.get(index)?.span().start))
    }
}

pub(super) fn parse<T: for<'a> Deserialize<'a>>(text: &str, file: Option<&str>) -> Result<T, ConfigError> {
    let place = |offset: Option<usize>| match (file, offset.map(|o| line_of(text, o))) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        (Some(file), None) => format!("{file}: "),
        (None, Some(line)) => format!("line {line}: "),
        (None, None) => String::new(),
    };
    let syntax = |e: toml::de::Error| ConfigError::File {
        place: place(e.span().map(|s| s.start)),
        key: String::new(),
        problem: e.message().trim().to_owned(),
    };
    let deserializer = toml::Deserializer::parse(text).map_err(syntax)?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        let problem = explain(error.message());
        let key = if path == "." { String::new() } else { format!("{path}: ") };
        ConfigError::File { place: place(error.span().map(|s| s.start)), key, problem }
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}

/// Turns serde's words about an unknown key into a suggestion.
pub(crate) fn explain(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field")
        && let Some((unknown, known)) = quoted.split_first()
    {
        return format!("unknown key; {}", suggest(unknown, known));
    }
    if message.starts_with("unknown variant")
        && let Some((unknown, known)) = quoted.split_first()
    {
        return format!("\"{unknown}\" is not possible; expected {}", list(known));
    }
    if let Some(missing) = message.strip_prefix("missing field ") {
        return format!("the key {} is missing", missing.replace('`', "\""));
    }
    message.trim().replace('`', "")
}

pub(crate) fn suggest(unknown: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(unknown, k), *k))
        .min()
        .filter(|(distance, k)| *distance <= 1 + k.len() / 3);
    match best {
        Some((_, best)) => format!("did you mean \"{best}\"?"),
        None => format!("expected {}", list(known)),
    }
}

/// What is wrong with a name that is no kind of event.
pub(crate) fn unknown_kind(kind: &str) -> String {
    let shown: String = kind.chars().take(60).collect();
    format!("\"{shown}\" is no kind of event; {}", suggest(&shown, crate::event::EventKind::NAMES))
}

fn list(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|k| format!("\"{k}\"")).collect();
    match quoted.as_slice() {
        [only] => only.clone(),
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
        [] => "nothing here".into(),
    }
}

pub(super) fn from_table(table: &toml::Table) -> Result<Config, String> {
    let config = serde_path_to_error::deserialize(table.clone()).map_err(|error| {
        let path = error.path().to_string();
        let problem = explain(error.into_inner().message());
        if path == "." { problem } else { format!("{path}: {problem}") }
    })?;
    let (given, taken) = (serde_json::to_value(table), serde_json::to_value(&config));
    match misplaced_array(&given.unwrap_or_default(), &taken.unwrap_or_default()) {
        Some(path) => Err(format!("{}: it is an array; expected a table", path.trim_start_matches('.'))),
        None => Ok(config),
    }
}

/// Where an array stands for a table: serde takes one for a table's values in its own order.
fn misplaced_array(given: &serde_json::Value, taken: &serde_json::Value) -> Option<String> {
    use serde_json::Value::{Array, Object};
    match (given, taken) {
        (Array(_), Object(_)) => Some(String::new()),
        (Object(given), Object(taken)) => given.iter().find_map(|(key, value)| {
            misplaced_array(value, taken.get(key)?).map(|path| format!(".{key}{path}"))
        }),
        (Array(given), Array(taken)) => {
            given.iter().zip(taken).enumerate().find_map(|(index, (given, taken))| {
                misplaced_array(given, taken).map(|path| format!("[{index}]{path}"))
            })
        }
        _ => None,
    }
}

const PREFIX: &str = "STREAM_MANAGER_";

/// Lays one variable over the table, if it is one of ours.
pub(super) fn apply_variable(table: &mut toml::Table, name: &str, value: &str) -> Result<(), ConfigError> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(()) };
    let fail = |problem: String| ConfigError::Environment { variable: name.to_owned(), problem };
    if rest == "PORT" {
        let port: u16 = value
            .parse()
            .map_err(|_| fail(format!("\"{value}\" is no port; expected a number from 0 to 65535")))?;
        let current = from_table(table).map_err(&fail)?.server.listen;
        let listen = std::net::SocketAddr::new(current.ip(), port).to_string();
        return set(table, &["server".into(), "listen".into()], listen.into()).map_err(fail);
    }
    // Without a section it is none of the keys: other programs' variables may begin like this.
    if !rest.contains("__") {
        return Ok(());
    }
    let path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    let mut problem = String::new();
    // A value may be a number or a truth value, or text that only looks like one.
    for value in as_toml(value).into_iter().chain([toml::Value::from(value)]) {
        let mut trial = table.clone();
        match set(&mut trial, &path, value).and_then(|()| from_table(&trial).map(drop)) {
            Ok(()) => {
                *table = trial;
                return Ok(());
            }
            Err(error) if problem.is_empty() => problem = error,
            Err(_) => {}
        }
    }
    Err(fail(problem))
}

fn as_toml(value: &str) -> Option<toml::Value> {
    let table: toml::Table = format!("value = {value}").parse().ok()?;
    table.get("value").cloned()
}

fn set(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    match path {
        [key] => {
            table.insert(key.clone(), value);
            Ok(())
        }
        [section, rest @ ..] => {
            let inner = table.entry(section.clone()).or_insert_with(|| toml::Table::new().into());
            let inner = inner.as_table_mut().ok_or_else(|| format!("\"{section}\" is no section"))?;
            set(inner, rest, value)
        }
        [] => Err("names no key".into()),
    }
}
