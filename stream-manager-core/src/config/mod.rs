//! The configuration as plain data, and how it is read: defaults < file < environment < arguments.
//!
//! The file is TOML and is checked as a whole before anything starts. An error names the file, the line and
//! the key, and for a key that does not exist the one that was probably meant. Every key also has a name
//! in the environment: `STREAM_MANAGER_<SECTION>__<KEY>`, and `STREAM_MANAGER_PORT` sets the port alone.
//!
//! ```
//! # use stream_manager_core::config::Config;
//! let config = Config::from_toml("[server]\nlisten = \"127.0.0.1:8080\"\n").unwrap();
//! assert_eq!(config.server.listen.port(), 8080);
//! let error = Config::from_toml("[server]\nlissen = \"127.0.0.1:8080\"\n").unwrap_err().to_string();
//! assert_eq!(error, "line 2: server.lissen: unknown key; did you mean \"listen\"?");
//! ```

mod address;
mod auth;
mod backup;
mod export;
mod fallback;
mod hls;
mod hooks;
mod inference;
mod layers;
mod load;
mod model;
mod modes;
mod onvif;
mod outbound;
mod policy;
mod rtmp;
mod scene;
mod schema;
mod source;
mod stream;
mod telemetry;
mod transcode;
mod units;
mod variant;
mod webrtc;

pub use address::{Address, ServiceAddress};
pub use auth::{AuthConfig, CallbackConfig, JwtConfig, UserConfig};
pub use backup::BackupConfig;
pub use fallback::{FallbackConfig, FallbackKind, FallbackSettings};
pub use hls::{HlsConfig, HlsSettings, StreamHlsConfig};
pub use hooks::{CommandConfig, EventsConfig, HooksConfig, MqttConfig, WebhookConfig};
pub use inference::{
    AnalysisSettings, InferenceConfig, MotionConfig, MotionSettings, Priority, StreamInferenceConfig,
};
pub use layers::{ConfigSource, Effect, KeyChange};
pub(crate) use layers::{Written, collect_keys};
pub use load::{ConfigError, Overrides};
pub(crate) use load::{explain, suggest, unknown_kind};
pub use model::{BackendChoice, ColorOrder, Fit, Labels, Layout, ModelKind, ModelSpec, Precision};
pub use modes::{ModeName, ModeSettings};
pub use onvif::{OnvifConfig, OnvifDevice};
pub use outbound::OutboundConfig;
pub use policy::{MinFreeText, SyncText};
pub use rtmp::RtmpConfig;
pub use scene::{
    Anchor, CascadeConfig, LineConfig, LineDirection, MaskConfig, ObjectSettings, ObjectsConfig,
    SceneSettings, TrackingConfig, TrackingSettings, ZoneConfig, scene_schedule,
};
pub use schema::json_schema;
pub use source::{Password, TlsConfig};
pub use stream::{
    Defaults, ForwardConfig, RecordingConfig, RecordingDefaults, ResolvedRecording, ResolvedStream,
    RetentionConfig, StreamConfig,
};
pub use telemetry::{LogFormat, LogLevel, OtlpConfig, TelemetryConfig};
pub use transcode::{TranscodeCodec, TranscodeConfig};
pub use units::{BytesText, DurationText};
pub use variant::{ANNOTATED, VariantConfig, check_derived};
pub use webrtc::{IceConfig, IceServerConfig, Transcode, WebRtcConfig};

use crate::auth::Network;
use crate::source::RtspTransport;
use crate::storage::space::MinFree;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP server.
    pub server: ServerConfig,
    /// Where things are kept.
    pub storage: StorageConfig,
    /// The RTSP server.
    pub rtsp: RtspConfig,
    /// The RTMP server.
    pub rtmp: RtmpConfig,
    /// HLS, DASH and fMP4.
    pub hls: HlsConfig,
    /// WebRTC.
    pub webrtc: WebRtcConfig,
    /// Who may do what.
    pub auth: AuthConfig,
    /// What is connected to, and what not.
    pub outbound: OutboundConfig,
    /// What is told about the work.
    pub telemetry: TelemetryConfig,
    /// What is put by, and when.
    pub backup: BackupConfig,
    /// How long events are kept.
    pub events: EventsConfig,
    /// What is done when something happens.
    pub hooks: HooksConfig,
    /// What is seen in pictures.
    pub inference: InferenceConfig,
    /// What holds for every stream that does not say otherwise.
    pub defaults: Defaults,
    /// The streams.
    pub streams: Vec<StreamConfig>,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where HTTP listens. The loopback by default.
    #[serde(deserialize_with = "socket_address")]
    pub listen: SocketAddr,
    /// Where HTTPS listens. Not at all if not set.
    #[serde(deserialize_with = "optional_socket_address", skip_serializing_if = "Option::is_none")]
    pub tls_listen: Option<SocketAddr>,
    /// The certificate of HTTPS, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Proxies that say in `X-Forwarded-For` for whom they speak: addresses or networks.
    pub trusted_proxies: Vec<Network>,
    /// Connections in all, to each of the two.
    pub max_connections: usize,
    /// Connections from one address; from trusted proxies there may be more.
    pub max_connections_per_address: usize,
    /// How many sources may be connecting at one time.
    pub max_connects: usize,
    /// How many of them to one host.
    pub max_connects_per_host: usize,
    /// Whether the configuration file is read again when it changes.
    pub reload_on_change: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 3000));
        Self {
            listen,
            tls_listen: None,
            tls_certificate: None,
            tls_key: None,
            trusted_proxies: Vec::new(),
            max_connections: 4096,
            max_connections_per_address: 1024,
            max_connects: 16,
            max_connects_per_host: 8,
            reload_on_change: true,
        }
    }
}

impl ServerConfig {
    /// What is wrong with it: the key, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        for (key, value) in [
            ("max_connections", self.max_connections),
            ("max_connections_per_address", self.max_connections_per_address),
        ] {
            if value == 0 || value > 1_000_000 {
                return Err(format!("server.{key}: it is {value}; expected 1 to 1000000"));
            }
        }
        match (self.tls_listen.is_some(), self.tls_certificate.is_some(), self.tls_key.is_some()) {
            (_, true, true) | (false, false, false) => Ok(()),
            _ => {
                Err("server.tls_listen, server.tls_certificate and server.tls_key: HTTPS needs all three"
                    .into())
            }
        }
    }
}

fn socket_address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "\"{text}\" is no address to listen on; expected an IP address and a port, such as \"127.0.0.1:3000\""
        ))
    })
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// The folder for everything.
    pub data_dir: PathBuf,
    /// The folder for recordings; `recordings` in `data_dir` if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recordings_dir: Option<PathBuf>,
    /// Further folders for recordings, by name; streams choose one by `recording.directory`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub directories: BTreeMap<String, PathBuf>,
    /// Threads that write recordings, for each disk.
    pub disk_threads: usize,
    /// The most that all recordings together may take; the oldest go first. No limit if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<BytesText>,
    /// Room to keep free on every disk that is recorded to; the oldest recordings there go first.
    pub min_free: MinFreeText,
    /// How long it is remembered which objects were seen.
    pub objects_max_age: DurationText,
    /// How many of them are remembered at most.
    pub objects_max_count: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            recordings_dir: None,
            directories: BTreeMap::new(),
            disk_threads: 2,
            max_size: None,
            min_free: MinFreeText(MinFree::Percent(2.0)),
            objects_max_age: DurationText(Duration::from_secs(90 * 86_400)),
            objects_max_count: 1_000_000,
        }
    }
}

impl StorageConfig {
    /// The folders for recordings, by name; the one that holds for all is called `default`.
    pub fn folders(&self) -> BTreeMap<String, PathBuf> {
        let default = self.recordings_dir.clone().unwrap_or_else(|| self.data_dir.join("recordings"));
        let all = self.directories.clone().into_iter().chain([("default".to_owned(), default)]);
        // The index knows files by their full paths, wherever a program is started.
        all.map(|(name, path)| (name, std::path::absolute(&path).unwrap_or(path))).collect()
    }
}

/// `[rtsp]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RtspConfig {
    /// Whether RTSP is served.
    pub enabled: bool,
    /// Where it listens.
    #[serde(deserialize_with = "socket_address")]
    pub listen: SocketAddr,
    /// How media may travel.
    pub transports: Vec<RtspTransport>,
    /// The port of RTP by UDP, even; RTCP has the next one. 0 lets the system choose.
    pub udp_port: u16,
    /// Where RTSPS listens. Not at all if not set.
    #[serde(deserialize_with = "optional_socket_address", skip_serializing_if = "Option::is_none")]
    pub tls_listen: Option<SocketAddr>,
    /// The certificate of RTSPS, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// The largest RTP packet.
    pub packet_size: BytesText,
    /// How readers get the kept GOP.
    pub start: StartMode,
    /// What may wait for one reader.
    pub queue_size: BytesText,
    /// A reader that takes nothing for this long is disconnected.
    pub write_timeout: DurationText,
    /// A client that shows no sign of life for this long is disconnected.
    pub session_timeout: DurationText,
    /// How long a reader waits for a stream that has no tracks yet.
    pub start_timeout: DurationText,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_address: usize,
}

/// How readers get the kept GOP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartMode {
    /// All at once.
    #[default]
    Burst,
    /// At four times its speed.
    Paced,
}

impl Default for RtspConfig {
    fn default() -> Self {
        let secs = |s| DurationText(Duration::from_secs(s));
        Self {
            enabled: true,
            listen: SocketAddr::from(([0, 0, 0, 0], 8554)),
            transports: vec![RtspTransport::Tcp, RtspTransport::Udp],
            udp_port: 0,
            tls_listen: None,
            tls_certificate: None,
            tls_key: None,
            packet_size: BytesText(1440),
            start: StartMode::Burst,
            queue_size: BytesText(4 << 20),
            write_timeout: secs(10),
            session_timeout: secs(60),
            start_timeout: secs(10),
            max_connections: 4096,
            max_connections_per_address: 1024,
        }
    }
}

impl RtspConfig {
    /// What is wrong with it: the key, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let range = |key: &str, ok: bool, value: String, expected: &str| {
            if ok { Ok(()) } else { Err(format!("rtsp.{key}: it is {value}; expected {expected}")) }
        };
        let text = |d: DurationText| d.to_string();
        range("transports", !self.transports.is_empty(), "empty".into(), "\"tcp\", \"udp\" or both")?;
        let size = self.packet_size.0;
        range("packet_size", (200..=65_000).contains(&size), size.to_string(), "200 to 65000 bytes")?;
        let queue = self.queue_size.0;
        range("queue_size", queue >= 64 << 10, self.queue_size.to_string(), "at least 64KiB")?;
        let port = self.udp_port;
        range("udp_port", port.is_multiple_of(2), port.to_string(), "an even port, or 0")?;
        let second = Duration::from_secs(1);
        range("write_timeout", self.write_timeout.0 >= second, text(self.write_timeout), "at least 1s")?;
        range(
            "session_timeout",
            self.session_timeout.0 >= second * 5,
            text(self.session_timeout),
            "at least 5s",
        )?;
        let tls = (self.tls_listen.is_some(), self.tls_certificate.is_some(), self.tls_key.is_some());
        match tls {
            (_, true, true) | (false, false, false) => Ok(()),
            _ => Err("rtsp.tls_listen, rtsp.tls_certificate and rtsp.tls_key: RTSPS needs all three".into()),
        }
    }
}

fn optional_socket_address<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    socket_address(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
