//! From configuration to streams.

use super::{ManagerError, RetryPolicy, Stream, StreamManager, StreamPattern};
use crate::auth::PathPattern;
use crate::config::{Config, Defaults, StreamConfig};
use crate::hub::HubOptions;
use crate::recording::{RecordError, Recording};
use crate::source::{PUBLISHER, SourceOptions, from_url_with};
use crate::storage::retention::{RetentionPolicy, StreamLimits};
use std::time::Duration;

/// A stream's configuration that cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[error("stream \"{id}\": {key}: {problem}")]
pub struct BuildError {
    /// The stream's id, as configured.
    pub id: String,
    /// The key that is wrong.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Makes a stream from its configuration.
///
/// # Errors
/// Names the key that is wrong.
pub fn stream_from_config(config: &StreamConfig, defaults: &Defaults) -> Result<Stream, BuildError> {
    make_stream(config, defaults, None)
}

/// How long a stream that came by a pattern stays without a publisher.
const PATTERN_LINGER: Duration = Duration::from_secs(60);

/// Makes a pattern from the configuration of a stream whose id has a `*` in it.
///
/// # Errors
/// Names the key that is wrong.
pub fn pattern_from_config(config: &StreamConfig, defaults: &Defaults) -> Result<StreamPattern, BuildError> {
    let fail = |key, problem: String| BuildError { id: config.id.chars().take(60).collect(), key, problem };
    let pattern: PathPattern = config.id.parse().map_err(|e| fail("id", e))?;
    if config.source_url != PUBLISHER {
        let problem = "has a * in it, which is for streams with source_url = \"publisher\"".to_owned();
        return Err(fail("id", problem));
    }
    let (config, defaults) = (config.clone(), defaults.clone());
    let make = move |id: &str| {
        let config = StreamConfig { id: id.to_owned(), ..config.clone() };
        make_stream(&config, &defaults, Some(PATTERN_LINGER))
    };
    // Any id will do to see whether the rest is right.
    make("x")?;
    Ok(StreamPattern::new(pattern, make))
}

fn make_stream(
    config: &StreamConfig,
    defaults: &Defaults,
    linger: Option<Duration>,
) -> Result<Stream, BuildError> {
    let fail = |key, problem: String| BuildError { id: config.id.chars().take(60).collect(), key, problem };
    let stream = Stream::builder(&config.id);
    stream.checked_id().map_err(|e| fail("id", e.to_string()))?;
    let options = SourceOptions {
        transport: config.transport.unwrap_or(defaults.transport),
        connect_timeout: Some(config.connect_timeout.unwrap_or(defaults.connect_timeout).0),
        override_publisher: config.override_publisher.unwrap_or(defaults.override_publisher),
        linger,
    };
    let source =
        from_url_with(&config.source_url, &options).map_err(|e| fail("source_url", e.to_string()))?;
    let (own, common) = (&config.recording, &defaults.recording);
    let mut recording = Recording::new(own.format.unwrap_or(common.format))
        .segment_duration(own.segment_duration.unwrap_or(common.segment_duration).0)
        .part_duration(own.part_duration.unwrap_or(common.part_duration).0)
        .sync(own.sync_interval.unwrap_or(common.sync_interval).0);
    if let Some(size) = own.segment_size.or(common.segment_size) {
        recording = recording.segment_bytes(size.0);
    }
    recording.check().map_err(|e| match e {
        RecordError::Setting { setting, .. } => fail(setting, e.to_string()),
        e => fail("recording", e.to_string()),
    })?;
    let stream = if own.enabled.unwrap_or(common.enabled) {
        stream.record(recording)
    } else {
        stream.record_on_demand(recording)
    };
    let retry = RetryPolicy {
        initial: defaults.retry_initial.0,
        max: defaults.retry_max.0,
        reset_after: defaults.retry_reset.0,
        silence: config.silence_timeout.unwrap_or(defaults.silence_timeout).0,
        give_up_after: None,
    };
    let limits = StreamLimits {
        max_age: own.retention.max_age.or(common.retention.max_age).map(|d| d.0),
        max_bytes: own.retention.max_size.or(common.retention.max_size).map(|b| b.0),
    };
    if limits.max_age.is_some_and(|age| age.is_zero()) {
        return Err(fail(
            "retention/max_age",
            "0s would delete every recording at once; expected more".into(),
        ));
    }
    let mut stream = stream.limits(limits);
    if let Some(directory) = own.directory.as_ref().or(common.directory.as_ref()) {
        stream = stream.directory(directory);
    }
    let gop_max_bytes = usize::try_from(defaults.gop_max_size.0).unwrap_or(usize::MAX);
    Ok(stream.retry(retry).hub(HubOptions { gop_max_bytes }).boxed_source(source))
}

/// Every stream of a configuration that cannot be carried out, with its place in the list: a wrong key, or
/// an id that an earlier one has.
pub fn check_streams(config: &Config) -> Vec<(usize, BuildError)> {
    let mut seen = std::collections::HashSet::new();
    let mut errors = Vec::new();
    for (index, stream) in config.streams.iter().enumerate() {
        let directory = stream.recording.directory.as_ref().or(config.defaults.recording.directory.as_ref());
        let made = if stream.id.contains('*') {
            pattern_from_config(stream, &config.defaults).map(drop)
        } else {
            stream_from_config(stream, &config.defaults).map(drop)
        };
        if let Err(error) = made {
            errors.push((index, error));
        } else if let Some(name) = directory.filter(|name| !config.storage.directories.contains_key(*name)) {
            let known: Vec<&str> = config.storage.directories.keys().map(String::as_str).collect();
            let problem =
                format!("\"{name}\" is none of storage.directories; expected one of: {}", known.join(", "));
            errors.push((index, BuildError { id: stream.id.clone(), key: "directory", problem }));
        } else if !seen.insert(&stream.id) {
            let problem =
                "is used by an earlier stream already; every stream needs an id of its own".to_owned();
            errors.push((index, BuildError { id: stream.id.clone(), key: "id", problem }));
        }
    }
    errors
}

impl StreamManager {
    /// Starts a manager with everything that a configuration says.
    ///
    /// # Errors
    /// If a stream cannot be made from it; nothing runs then.
    pub async fn from_config(config: &Config) -> Result<Self, ManagerError> {
        let mut builder = Self::builder()
            .data_dir(&config.storage.data_dir)
            .max_connects(config.server.max_connects)
            .disk_threads(config.storage.disk_threads)
            .retention(RetentionPolicy {
                streams: Default::default(),
                default: StreamLimits {
                    max_age: config.defaults.recording.retention.max_age.map(|d| d.0),
                    max_bytes: config.defaults.recording.retention.max_size.map(|b| b.0),
                },
                max_bytes: config.storage.max_size.map(|b| b.0),
                min_free: config.storage.min_free.0,
            });
        if let Some(recordings) = &config.storage.recordings_dir {
            builder = builder.recordings_dir(recordings);
        }
        for (name, path) in &config.storage.directories {
            builder = builder.directory(name, path);
        }
        for stream in &config.streams {
            builder = if stream.id.contains('*') {
                builder.pattern(pattern_from_config(stream, &config.defaults)?)
            } else {
                builder.stream(stream_from_config(stream, &config.defaults)?)
            };
        }
        builder.build().await
    }
}
