//! How WebRTC is served.

use super::{BytesText, DurationText, socket_address};
use crate::auth::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// `[webrtc]`: WHEP and WHIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebRtcConfig {
    /// Whether WebRTC is served.
    pub enabled: bool,
    /// Where media arrives and leaves: one UDP port for all sessions.
    #[serde(deserialize_with = "socket_address")]
    pub listen: SocketAddr,
    /// Addresses at which clients elsewhere reach this machine: that of the router in front of it, for example. They
    /// are told beside the machine's own ones.
    pub public_addresses: Vec<IpAddr>,
    /// Which pages may play: `*`, an origin such as `https://example.org`, or nothing for none but our own.
    pub allow_origin: String,
    /// Sessions in all.
    pub max_sessions: usize,
    /// A client of which nothing is heard for this long is gone.
    pub session_timeout: DurationText,
    /// What may wait for one viewer.
    pub queue_size: BytesText,
    /// A publisher whose picture goes without a keyframe for this long is asked for one: browsers send none by
    /// themselves, and recordings and players begin with one.
    pub keyframe_interval: DurationText,
    /// What becomes of pictures that a client cannot take as they are.
    pub transcode: Transcode,
    /// Whether viewers that open a data channel are told the stream's events.
    pub events: bool,
    /// Whether connections that begin here (`whep://`, `whip://`) go by TURN servers only.
    pub relay_only: bool,
    /// STUN and TURN servers: clients are told of them, and connections that begin here use them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ice_servers: Vec<IceServerConfig>,
}

/// What becomes of pictures that a client cannot take as they are: with B frames, or in a codec that it does not offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transcode {
    /// The client is refused, and told why.
    #[default]
    Off,
    /// They are encoded anew as H.264, once for all who need that, while somebody does.
    Auto,
}

/// `[[webrtc.ice_servers]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IceServerConfig {
    /// Its address (RFC 7064, RFC 7065): `stun:host:port`, `turn:host:port?transport=udp`, `turns:host:port`.
    pub url: String,
    /// The name to give to a TURN server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password that goes with the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Shared with the TURN server instead of a password: each client gets a name and a password that end by
    /// themselves (coturn's `static-auth-secret`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// How long such a password is good for.
    #[serde(default = "an_hour")]
    pub secret_lifetime: DurationText,
}

fn an_hour() -> DurationText {
    DurationText(Duration::from_secs(3600))
}

impl Default for WebRtcConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([0, 0, 0, 0], 8189)),
            public_addresses: Vec::new(),
            allow_origin: "*".into(),
            max_sessions: 1000,
            session_timeout: DurationText(Duration::from_secs(15)),
            queue_size: BytesText(8 << 20),
            keyframe_interval: DurationText(Duration::from_secs(2)),
            transcode: Transcode::Off,
            events: false,
            relay_only: false,
            ice_servers: Vec::new(),
        }
    }
}

/// How connections that begin here get out of their network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IceConfig {
    /// STUN and TURN servers.
    pub servers: Vec<IceServerConfig>,
    /// Whether nothing goes but by TURN servers.
    pub relay_only: bool,
}

impl WebRtcConfig {
    /// What holds for connections that begin here.
    pub fn ice(&self) -> IceConfig {
        IceConfig { servers: self.ice_servers.clone(), relay_only: self.relay_only }
    }

    /// What is wrong with it: the key, and what would be right.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), String> {
        super::hls::check_origin("webrtc.allow_origin", &self.allow_origin)?;
        if !(1..=100_000).contains(&self.max_sessions) {
            return Err(format!("webrtc.max_sessions: it is {}; expected 1 to 100000", self.max_sessions));
        }
        if !(Duration::from_secs(5)..=Duration::from_secs(600)).contains(&self.session_timeout.0) {
            return Err(format!(
                "webrtc.session_timeout: it is {}; expected 5s to 10m",
                self.session_timeout
            ));
        }
        if self.queue_size.0 < 256 << 10 {
            return Err(format!("webrtc.queue_size: it is {}; expected at least 256KiB", self.queue_size));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.keyframe_interval.0) {
            return Err(format!(
                "webrtc.keyframe_interval: it is {}; expected 1s to 1m",
                self.keyframe_interval
            ));
        }
        if let Some(address) = self.public_addresses.iter().find(|a| a.is_unspecified() || a.is_multicast()) {
            return Err(format!("webrtc.public_addresses: nobody can reach {address}; expected an address"));
        }
        if self.relay_only && !self.ice_servers.iter().any(|server| server.url.starts_with("turn")) {
            return Err("webrtc.relay_only: it is true, and there is no TURN server; expected one in webrtc.ice_servers".into());
        }
        self.ice_servers.iter().enumerate().try_for_each(|(index, server)| server.check(index))
    }
}

impl IceServerConfig {
    fn check(&self, index: usize) -> Result<(), String> {
        let key = |key: &str| format!("webrtc.ice_servers[{index}].{key}");
        let (scheme, host) = self.url.split_once(':').unwrap_or_default();
        // It goes into a header between angle brackets.
        let clean = self.url.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"\\".contains(&b));
        if !matches!(scheme, "stun" | "stuns" | "turn" | "turns") || host.is_empty() || !clean {
            return Err(format!(
                "{}: \"{}\" is no address of a STUN or TURN server; expected one such as \"stun:stun.example.org:3478\"",
                key("url"),
                self.url
            ));
        }
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b));
        let named = [
            ("username", self.username.as_deref()),
            ("password", self.password.as_ref().map(|p| p.reveal())),
        ];
        for (name, value) in named {
            if value.is_some_and(|value| !plain(value)) {
                return Err(format!("{}: expected letters, digits and signs of ASCII", key(name)));
            }
        }
        if scheme.starts_with("stun") {
            return match (&self.username, &self.password, &self.secret) {
                (None, None, None) => Ok(()),
                _ => {
                    Err(format!("{}: a STUN server takes no credentials; expected turn: or none", key("url")))
                }
            };
        }
        match (&self.username, &self.password, &self.secret) {
            (Some(_), Some(_), None) | (_, None, Some(_)) => {}
            _ => {
                return Err(format!(
                    "{}: a TURN server needs credentials; expected username and password, or secret",
                    key("url")
                ));
            }
        }
        if self.secret_lifetime.0 < Duration::from_secs(60) {
            return Err(format!(
                "{}: it is {}; expected at least 1m",
                key("secret_lifetime"),
                self.secret_lifetime
            ));
        }
        Ok(())
    }
}
