//! What holds for the server.

use crate::auth::Secret;
use crate::config::{Transcode, WebRtcConfig};
use crate::frame::WallTime;
use base64::Engine as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Settings of a [`WebRtcServer`](super::WebRtcServer).
///
/// ```
/// use stream_manager_core::webrtc::WebRtcOptions;
/// let options = WebRtcOptions { listen: "127.0.0.1:0".parse().unwrap(), ..WebRtcOptions::default() };
/// assert_eq!(options.max_sessions, 1000);
/// ```
#[derive(Clone, Debug)]
pub struct WebRtcOptions {
    /// Where media arrives and leaves.
    pub listen: SocketAddr,
    /// Addresses at which clients elsewhere reach this machine.
    pub public_addresses: Vec<IpAddr>,
    /// Sessions in all.
    pub max_sessions: usize,
    /// A client of which nothing is heard for this long is gone.
    pub session_timeout: Duration,
    /// What may wait for one viewer.
    pub queue_bytes: usize,
    /// A publisher whose picture goes without a keyframe for this long is asked for one.
    pub keyframe_interval: Duration,
    /// What becomes of pictures that a client cannot take as they are.
    pub transcode: Transcode,
    /// Whether viewers that open a data channel are told the stream's events, in JSON as by the control plane.
    pub events: bool,
    /// STUN and TURN servers that clients are told.
    pub ice_servers: Vec<IceServer>,
}

impl Default for WebRtcOptions {
    /// As `[webrtc]` of the configuration.
    fn default() -> Self {
        Self::from_config(&WebRtcConfig::default())
    }
}

impl WebRtcOptions {
    /// As the configuration says.
    pub fn from_config(config: &WebRtcConfig) -> Self {
        let server = |server: &crate::config::IceServerConfig| IceServer {
            url: server.url.clone(),
            username: server.username.clone(),
            password: server.password.clone(),
            secret: server.secret.clone(),
            secret_lifetime: server.secret_lifetime.0,
        };
        Self {
            listen: config.listen,
            public_addresses: config.public_addresses.clone(),
            max_sessions: config.max_sessions,
            session_timeout: config.session_timeout.0,
            queue_bytes: usize::try_from(config.queue_size.0).unwrap_or(usize::MAX),
            keyframe_interval: config.keyframe_interval.0,
            transcode: config.transcode,
            events: config.events,
            ice_servers: config.ice_servers.iter().map(server).collect(),
        }
    }
}

/// A STUN or TURN server that clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// Its address (RFC 7064, RFC 7065).
    pub url: String,
    /// The name to give to it.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Shared with it instead of a password.
    pub secret: Option<Secret>,
    /// How long passwords made of that are good for.
    pub secret_lifetime: Duration,
}

impl IceServer {
    /// Name and password for a client that comes at this moment, if the server wants any. With a shared secret they are
    /// made as "A REST API For Access To TURN Services" (draft-uberti-behave-turn-rest) says, which coturn follows.
    pub fn credentials(&self, now: WallTime) -> Option<(String, String)> {
        if let Some(secret) = &self.secret {
            let end = now.as_unix_nanos() / 1_000_000_000
                + i64::try_from(self.secret_lifetime.as_secs()).unwrap_or(0);
            let user = match &self.username {
                Some(name) => format!("{end}:{name}"),
                None => end.to_string(),
            };
            let tag = hmac_sha1(secret.reveal().as_bytes(), user.as_bytes());
            return Some((user, base64::engine::general_purpose::STANDARD.encode(tag)));
        }
        Some((self.username.clone()?, self.password.as_ref()?.reveal().to_owned()))
    }

    /// As a value of a `Link` header (RFC 9725 section 4.6).
    pub fn link(&self, now: WallTime) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut link = format!("<{}>; rel=\"ice-server\"", self.url);
        if let Some((user, password)) = self.credentials(now) {
            link += &format!(
                "; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"",
                quoted(&user),
                quoted(&password)
            );
        }
        link
    }
}

/// HMAC (RFC 2104) with SHA-1, which is what TURN servers expect.
fn hmac_sha1(key: &[u8], data: &[u8]) -> Vec<u8> {
    use hmac::Mac as _;
    // A key may have any length.
    let Ok(mut mac) = hmac::Hmac::<sha1::Sha1>::new_from_slice(key) else { return Vec::new() };
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_for_turn_servers_end_by_themselves() {
        let mut server = IceServer {
            url: "turn:turn.example.org:3478".into(),
            username: Some("camera".into()),
            password: None,
            secret: Some(Secret::new("north")),
            secret_lifetime: Duration::from_secs(3600),
        };
        let now = WallTime::from_unix_nanos(1_600_000_000_000_000_000);
        let (user, password) = server.credentials(now).unwrap();
        assert_eq!(user, "1600003600:camera");
        // printf '1600003600:camera' | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(password, "7WmyuJQlCfsa2MqNefu530mGlpE=");
        assert!(
            server.link(now).starts_with(
                "<turn:turn.example.org:3478>; rel=\"ice-server\"; username=\"1600003600:camera\""
            )
        );
        server = IceServer { secret: None, password: Some(Secret::new("a\"b")), ..server };
        assert!(server.link(now).contains(r#"credential="a\"b""#));
        server = IceServer { url: "stun:a:1".into(), username: None, password: None, ..server };
        assert_eq!(server.link(now), "<stun:a:1>; rel=\"ice-server\"");
    }
}
