//! What holds for the server.

use super::ice_server::IceServer;
use crate::config::{Transcode, WebRtcConfig};
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
        Self {
            listen: config.listen,
            public_addresses: config.public_addresses.clone(),
            max_sessions: config.max_sessions,
            session_timeout: config.session_timeout.0,
            queue_bytes: usize::try_from(config.queue_size.0).unwrap_or(usize::MAX),
            keyframe_interval: config.keyframe_interval.0,
            transcode: config.transcode,
            events: config.events,
            ice_servers: config.ice_servers.iter().map(IceServer::from).collect(),
        }
    }
}
