//! From configuration to streams.

use super::storage::DEFAULT_DIRECTORY;
use super::{Fallback, RetryPolicy, Stream, StreamPattern};
use crate::auth::PathPattern;
use crate::config::{
    Config, Defaults, FallbackKind, FallbackSettings, IceConfig, ResolvedStream, StreamConfig, TlsConfig,
    check_derived,
};
use crate::hub::HubOptions;
use crate::recording::{RecordError, Recording};
use crate::source::{
    AddressError, PUBLISHER, Rendition, SourceOptions, SourceTransport, UriSource, from_url_with,
};
use crate::storage::retention::StreamLimits;
use std::time::Duration;

/// Nobody waits longer for a stream.
const MAX_START_TIMEOUT: Duration = Duration::from_secs(120);
/// Forwards of one stream.
const MAX_FORWARDS: usize = 16;

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
    make_stream(&config.resolve(defaults), None, &IceConfig::default())
}

/// How long a stream that came by a pattern stays without a publisher.
const PATTERN_LINGER: Duration = Duration::from_secs(60);

/// Makes a pattern from the configuration of a stream whose id has a `*` in it.
///
/// # Errors
/// Names the key that is wrong.
pub fn pattern_from_config(config: &StreamConfig, defaults: &Defaults) -> Result<StreamPattern, BuildError> {
    make_pattern(config, defaults, IceConfig::default())
}

/// The same with what holds for connections to other servers.
pub(super) fn make_pattern(
    config: &StreamConfig,
    defaults: &Defaults,
    ice: IceConfig,
) -> Result<StreamPattern, BuildError> {
    let fail = |key, problem: String| BuildError { id: config.id.chars().take(60).collect(), key, problem };
    let pattern: PathPattern = config.id.parse().map_err(|e| fail("id", e))?;
    if config.source_url != PUBLISHER {
        let problem = "has a * in it, which is for streams with source_url = \"publisher\"".to_owned();
        return Err(fail("id", problem));
    }
    let resolved = config.resolve(defaults);
    let make = move |id: &str| {
        let config = ResolvedStream { id: id.to_owned(), ..resolved.clone() };
        make_stream(&config, Some(PATTERN_LINGER), &ice)
    };
    // Any id will do to see whether the rest is right.
    make("x")?;
    Ok(StreamPattern::new(pattern, make))
}

/// Makes a stream from its configuration and the defaults. With `linger` it ends that long after its publisher.
pub(super) fn make_stream(
    config: &ResolvedStream,
    linger: Option<Duration>,
    ice: &IceConfig,
) -> Result<Stream, BuildError> {
    let fail = |key, problem: String| BuildError { id: config.id.chars().take(60).collect(), key, problem };
    let stream = Stream::builder(&config.id);
    stream.checked_id().map_err(|e| fail("id", e.to_string()))?;
    let options = SourceOptions {
        transport: config.transport,
        credentials: config.credentials.clone().map(|(user, password)| (user, password.reveal().to_owned())),
        user_agent: config.user_agent.clone(),
        local_address: config.local_address,
        tracks: config.tracks.clone(),
        tls: config.tls.clone(),
        connect_timeout: Some(config.connect_timeout),
        override_publisher: config.override_publisher,
        linger,
        ice: ice.clone(),
    };
    let source = from_url_with(&config.source_url, &options).map_err(|e| match e {
        AddressError::Tls { .. } => fail("tls", e.to_string()),
        AddressError::Credentials { .. } => fail("user", e.to_string()),
        e => fail("source_url", e.to_string()),
    })?;
    check_source(config).map_err(|(key, problem)| fail(key, problem))?;
    // The others are other cameras, or may be.
    let own_credentials = options.credentials.clone();
    let options = SourceOptions { credentials: None, ..options };
    let own = &config.recording;
    let stands_in = config.fallback.as_ref().map(|f| fallback_of(f, config, &options)).transpose();
    let stands_in = stands_in.map_err(|(key, problem)| fail(key, problem))?;
    let mut recording = Recording::new(own.format)
        .segment_duration(own.segment_duration)
        .part_duration(own.part_duration)
        .sync(own.sync)
        .fallback(config.fallback.as_ref().is_none_or(|f| f.record));
    if let Some(size) = own.segment_bytes {
        recording = recording.segment_bytes(size);
    }
    let modes = own.modes.build().map_err(|(key, problem)| {
        let pointer = match key {
            "modes" => "recording/modes",
            "schedule" => "recording/schedule",
            _ => "recording/time_zone",
        };
        fail(pointer, problem)
    })?;
    recording = recording.modes(modes);
    recording.check().map_err(|e| match e {
        RecordError::Setting { setting, .. } => fail(pointer_of_setting(setting), e.to_string()),
        e => fail("recording", e.to_string()),
    })?;
    let stream = if own.enabled { stream.record(recording) } else { stream.record_on_demand(recording) };
    let retry = RetryPolicy {
        initial: config.retry_initial,
        max: config.retry_max,
        reset_after: config.retry_reset,
        silence: config.silence_timeout,
        give_up_after: None,
    };
    let limits = limits_of(config);
    if limits.max_age.is_some_and(|age| age.is_zero()) {
        return Err(fail(
            "retention/max_age",
            "0s would delete every recording at once; expected more".into(),
        ));
    }
    if let (Some(events), Some(age)) = (limits.events_max_age, limits.max_age)
        && events < age
    {
        let [events, age] = [events, age].map(crate::config::DurationText);
        let problem = format!("it is {events}, which is shorter than max_age ({age}); expected more");
        return Err(fail("retention/events_max_age", problem));
    }
    let mut stream = stream.limits(limits);
    if let Some(directory) = &own.directory {
        stream = stream.directory(directory);
    }
    config.inference.check().map_err(|(key, problem)| fail(key, problem))?;
    if config.inference.enabled && !cfg!(feature = "inference") {
        let problem = "this program was built without the feature \"inference\"; expected false".to_owned();
        return Err(fail("inference/enabled", problem));
    }
    config.hls.check().map_err(|(key, problem)| fail(key, problem))?;
    if config.hls.variants.contains(&config.id) {
        return Err(fail(
            "hls/variants",
            format!("\"{}\" is the stream itself; expected other streams", config.id),
        ));
    }
    stream = stream.analyse(config.inference.clone()).package(config.hls.clone());
    if let Some(fallback) = stands_in {
        stream = stream.fallback(fallback);
    }
    check_derived(&config.id, &config.transcode, &config.variants)
        .map_err(|(key, problem)| fail(key, problem))?;
    for (index, variant) in config.variants.iter().enumerate() {
        let wrong = |problem: String| fail("variants", format!("number {}: {problem}", index + 1));
        let credentials = variant_credentials(config, &own_credentials, &variant.source_url);
        let transport = variant.transport.unwrap_or(config.transport);
        let options = SourceOptions { credentials, transport, linger: None, ..options.clone() };
        let source = from_url_with(&variant.source_url, &options).map_err(|e| wrong(e.to_string()))?;
        if source.publish_slot().is_some() {
            return Err(wrong("\"publisher\" has no other qualities; expected an address".into()));
        }
        stream = stream.variant(&variant.name, source);
    }
    let known = |key, name: &Option<String>| match name {
        Some(name) if !config.variants.iter().any(|variant| variant.name == *name) => {
            let names: Vec<&str> = config.variants.iter().map(|variant| variant.name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(fail(key, format!("\"{name}\" is none of the stream's variants; expected one of: {names}")))
        }
        _ => Ok(()),
    };
    known("recording/variant", &own.variant)?;
    known("inference/variant", &config.inference.variant)?;
    if config.inference.variant.is_some() && config.inference.source_url.is_some() {
        let problem = "it is set beside inference.source_url; expected one of them".to_owned();
        return Err(fail("inference/variant", problem));
    }
    if let Some(name) = &own.variant {
        stream = stream.record_variant(name);
    }
    if let Some(name) = &config.inference.variant {
        stream = stream.analyse_variant(name);
    }
    for rendition in &config.transcode {
        let made = Rendition {
            codec: rendition.codec.into(),
            height: rendition.height,
            fps: rendition.fps,
            bitrate_bps: rendition.bitrate_kbps.map(|kbit| u64::from(kbit) * 1000),
            sound: true,
        };
        stream = stream.transcode(&rendition.name, made);
    }
    if config.intersink {
        stream = stream.sink(crate::sink::to_intersrc(&config.id));
    }
    let listens = config.onvif_device().map_err(|problem| fail("onvif", problem))?;
    #[cfg(feature = "onvif")]
    if let Some(camera) = listens {
        let device = crate::onvif::OnvifAddress::new(&camera.address);
        let mut device = device.map_err(|e| fail("onvif/url", e.to_string()))?;
        if let Some((user, password)) = camera.credentials {
            device = device.credentials(user, password.reveal());
        }
        stream = stream.camera_events(crate::onvif::CameraEvents::new(device));
    }
    #[cfg(not(feature = "onvif"))]
    if listens.is_some() {
        let problem = "this program was built without the feature \"onvif\"; expected false".to_owned();
        return Err(fail("onvif/events", problem));
    }
    if config.forward.len() > MAX_FORWARDS {
        let problem = format!("there are {}; expected {MAX_FORWARDS} at most", config.forward.len());
        return Err(fail("forward", problem));
    }
    for (index, forward) in config.forward.iter().enumerate() {
        let (handle, sink) = crate::sink::forward::forward_to(&forward.url, ice)
            .map_err(|e| fail("forward", format!("number {}: {e}", index + 1)))?;
        stream = stream.forward(handle, sink);
    }
    if let Some(url) = &config.inference.source_url {
        let source = from_url_with(url, &SourceOptions { linger: None, ..options })
            .map_err(|e| fail("inference/source_url", e.to_string()))?;
        if source.publish_slot().is_some() {
            let problem = "\"publisher\" has no smaller stream; expected an address".to_owned();
            return Err(fail("inference/source_url", problem));
        }
        stream = stream.substream(source);
    }
    let gop_max_bytes = usize::try_from(config.gop_max_bytes).unwrap_or(usize::MAX);
    if !(Duration::from_secs(1)..=MAX_START_TIMEOUT).contains(&config.start_timeout) {
        let problem = format!("it is {:?}; expected 1s to 2m", config.start_timeout);
        return Err(fail("start_timeout", problem));
    }
    if let Some(close_after) = config.on_demand {
        if source.publish_slot().is_some() {
            let problem = "a published stream comes when its publisher does; expected an address".to_owned();
            return Err(fail("on_demand", problem));
        }
        stream = stream.on_demand(close_after);
    }
    let hub = HubOptions { gop_max_bytes, start_timeout: config.start_timeout };
    Ok(stream.retry(retry).hub(hub).boxed_source(source))
}

/// Where a recording's setting stands.
fn pointer_of_setting(setting: &str) -> &'static str {
    const KEYS: [&str; 7] = [
        "recording/segment_duration",
        "recording/segment_size",
        "recording/part_duration",
        "recording/sync_interval",
        "recording/pre_roll",
        "recording/post_roll",
        "recording/max_duration",
    ];
    let known = KEYS.into_iter().find(|key| key.strip_prefix("recording/") == Some(setting));
    known.unwrap_or("recording")
}

/// Whether what is said of a source beside its address applies to it.
fn check_source(config: &ResolvedStream) -> Result<(), (&'static str, String)> {
    let scheme = config.source_url.split_once(':').map_or(&*config.source_url, |(scheme, _)| scheme);
    let rtsp = matches!(scheme, "rtsp" | "rtsps");
    let only = |key, said: bool, applies: bool, to: &str| match said && !applies {
        true => {
            Err((key, format!("it is only for {to}, and the source is \"{scheme}\"; expected nothing here")))
        }
        false => Ok(()),
    };
    only("user_agent", config.user_agent.is_some(), rtsp, "rtsp:// and rtsps://")?;
    only("tracks", !config.tracks.is_empty(), rtsp, "rtsp:// and rtsps://")?;
    only("local_address", config.local_address.is_some(), rtsp, "rtsp:// and rtsps://")?;
    let by_tls = matches!(scheme, "rtsps" | "https" | "rtmps" | "wheps");
    only("tls", config.tls != TlsConfig::default(), by_tls, "rtsps://, https://, rtmps:// and wheps://")?;
    if config.local_address.is_some() && config.transport == SourceTransport::Udp {
        return Err((
            "local_address",
            "it is for TCP alone; expected transport = \"tcp\" or \"auto\"".into(),
        ));
    }
    Ok(())
}

/// User and password for a variant: the stream's, if it is the same camera, and says none itself.
fn variant_credentials(
    config: &ResolvedStream,
    own: &Option<(String, String)>,
    address: &str,
) -> Option<(String, String)> {
    let (main, variant) = (url::Url::parse(&config.source_url).ok()?, url::Url::parse(address).ok()?);
    if !variant.username().is_empty() || variant.password().is_some() || variant.host_str() != main.host_str()
    {
        return None;
    }
    let decoded = crate::source::percent_decoded;
    let in_address = || (decoded(main.username()), decoded(main.password().unwrap_or_default()));
    own.clone().or_else(|| (!main.username().is_empty()).then(in_address))
}

/// What stands in for a stream's source.
fn fallback_of(
    settings: &FallbackSettings,
    stream: &ResolvedStream,
    options: &SourceOptions,
) -> Result<Fallback, (&'static str, String)> {
    settings.check()?;
    let fallback = match settings.kinds.first() {
        Some(FallbackKind::Slate(text)) => Fallback::slate(text),
        Some(FallbackKind::Image(path)) => Fallback::image(path),
        Some(FallbackKind::File(path)) => {
            let failed = |problem: String| ("fallback/file", problem);
            let path = std::path::absolute(path).map_err(|e| failed(e.to_string()))?;
            let url = url::Url::from_file_path(&path)
                .map_err(|()| failed(format!("\"{}\" is no path of a file", path.display())))?;
            let source = UriSource::from_url(url).map_err(|e| failed(e.to_string()))?;
            Fallback::source(source.looped(true))
        }
        Some(FallbackKind::Url(url)) => {
            let failed = |problem: String| ("fallback/url", problem);
            if **url == *stream.source_url {
                let problem = "is the stream's own source; expected another one".to_owned();
                return Err(failed(problem));
            }
            let options = SourceOptions { linger: None, ..options.clone() };
            let source = from_url_with(url, &options).map_err(|e| failed(e.to_string()))?;
            if source.publish_slot().is_some() {
                let problem = "\"publisher\" cannot stand in; expected an address".to_owned();
                return Err(failed(problem));
            }
            Fallback::boxed(source)
        }
        None => return Err(("fallback", "there is nothing that stands in".into())),
    };
    Ok(fallback.timeout(settings.timeout).return_after(settings.return_after))
}

/// How long a stream's recordings are kept.
pub(super) fn limits_of(config: &ResolvedStream) -> StreamLimits {
    StreamLimits {
        max_age: config.recording.max_age,
        events_max_age: config.recording.events_max_age,
        max_bytes: config.recording.max_bytes,
    }
}

/// Whether a stream can be made from this configuration: the same checks as for a whole file.
///
/// # Errors
/// Names the key that is wrong.
pub fn check_stream(config: &StreamConfig, whole: &Config) -> Result<(), BuildError> {
    if config.id.contains('*') {
        pattern_from_config(config, &whole.defaults).map(drop)?;
    } else {
        stream_from_config(config, &whole.defaults).map(drop)?;
    }
    let resolved = config.resolve(&whole.defaults);
    check_model(&resolved, whole)?;
    check_loops(config, whole)?;
    let directory = resolved.recording.directory;
    match directory.filter(|name| !is_directory(whole, name)) {
        None => Ok(()),
        Some(name) => {
            let known: Vec<&str> = std::iter::once(DEFAULT_DIRECTORY)
                .chain(whole.storage.directories.keys().map(String::as_str))
                .collect();
            let problem =
                format!("\"{name}\" is none of storage.directories; expected one of: {}", known.join(", "));
            Err(BuildError { id: config.id.clone(), key: "directory", problem })
        }
    }
}

/// Whether any of its addresses leads back to itself.
fn check_loops(config: &StreamConfig, whole: &Config) -> Result<(), BuildError> {
    let addresses = [
        ("source_url", Some(&config.source_url)),
        ("inference/source_url", config.inference.source_url.as_ref()),
        ("fallback/url", config.fallback.url.as_ref()),
    ];
    let forwards = config.forward.iter().map(|forward| ("forward", Some(&forward.url)));
    for variant in &config.variants {
        if super::loops::leads_back(&variant.source_url, &format!("{}/{}", config.id, variant.name), whole) {
            let problem = format!("\"{}\" leads back to itself; expected another address", variant.name);
            return Err(BuildError { id: config.id.clone(), key: "variants", problem });
        }
    }
    for (key, address) in addresses.into_iter().chain(forwards) {
        if address.is_some_and(|address| super::loops::leads_back(address, &config.id, whole)) {
            let problem = "leads back to this stream itself; expected another address".to_owned();
            return Err(BuildError { id: config.id.clone(), key, problem });
        }
    }
    Ok(())
}

/// Whether there is the model that a stream is to be analysed by.
fn check_model(stream: &ResolvedStream, whole: &Config) -> Result<(), BuildError> {
    let models: Vec<String> = whole.inference.models.iter().map(crate::config::ModelSpec::name).collect();
    for (index, one) in stream.inference.scene.cascade.iter().enumerate() {
        if !models.contains(&one.model) {
            let known = if models.is_empty() { "none".to_owned() } else { models.join(", ") };
            let problem = format!(
                "[{index}].model: \"{}\" is none of inference.models; expected one of: {known}",
                one.model
            );
            return Err(BuildError { id: stream.id.clone(), key: "inference/cascade", problem });
        }
    }
    let problem = match &stream.inference.model {
        Some(name) if models.contains(name) => return Ok(()),
        None if !stream.inference.enabled || models.len() == 1 => return Ok(()),
        Some(name) => format!("\"{name}\" is none of inference.models; "),
        None => "it is not set; ".to_owned(),
    };
    let known = if models.is_empty() { "none".to_owned() } else { models.join(", ") };
    let problem = format!("{problem}expected one of: {known}");
    Err(BuildError { id: stream.id.clone(), key: "inference/model", problem })
}

fn is_directory(whole: &Config, name: &str) -> bool {
    name == DEFAULT_DIRECTORY || whole.storage.directories.contains_key(name)
}

/// Every stream of a configuration that cannot be carried out, with its place in the list: a wrong key, or
/// an id that an earlier one has.
pub fn check_streams(config: &Config) -> Vec<(usize, BuildError)> {
    let mut seen = std::collections::HashSet::new();
    let made: std::collections::HashSet<String> = config
        .streams
        .iter()
        .flat_map(|stream| stream.derived_ids(&config.defaults))
        .map(|(_, id)| id)
        .collect();
    let mut errors = Vec::new();
    for (index, stream) in config.streams.iter().enumerate() {
        if let Err(error) = check_stream(stream, config) {
            errors.push((index, error));
        } else if made.contains(&stream.id) {
            let problem =
                "is the id of what is made of another stream by transcode, variants or inference.annotated; expected another one"
                    .to_owned();
            errors.push((index, BuildError { id: stream.id.clone(), key: "id", problem }));
        } else if !seen.insert(&stream.id) {
            let problem =
                "is used by an earlier stream already; every stream needs an id of its own".to_owned();
            errors.push((index, BuildError { id: stream.id.clone(), key: "id", problem }));
        }
    }
    errors
}
