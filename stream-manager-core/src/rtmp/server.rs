//! Listening, and the limits on who may connect.

use super::PublishDirectory;
use super::session;
use crate::auth::Authorizer;
use crate::config::RtmpConfig;
use crate::session::Sessions;
use crate::tcp::{self, Places};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long connections have to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of the server.
///
/// ```
/// # use stream_manager_core::rtmp::RtmpOptions;
/// let options = RtmpOptions { listen: "127.0.0.1:0".parse().unwrap(), ..RtmpOptions::default() };
/// ```
#[derive(Clone, Debug)]
pub struct RtmpOptions {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_address: usize,
}

impl Default for RtmpOptions {
    /// Port 1935 on all addresses.
    fn default() -> Self {
        Self::from_config(&RtmpConfig::default())
    }
}

impl RtmpOptions {
    /// From the section of the configuration.
    pub fn from_config(config: &RtmpConfig) -> Self {
        Self {
            listen: config.listen,
            max_connections: config.max_connections,
            max_connections_per_address: config.max_connections_per_address,
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RtmpError {
    /// It cannot listen.
    #[error("cannot listen for RTMP on {address}: {problem}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not, and what would help.
        problem: String,
    },
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) streams: Arc<dyn PublishDirectory>,
    pub(super) authorizer: Arc<dyn Authorizer>,
    pub(super) sessions: Sessions,
    pub(super) cancel: CancellationToken,
}

/// A server whose port is bound.
pub struct RtmpServer {
    options: RtmpOptions,
    listener: TcpListener,
}

impl RtmpServer {
    /// Binds its port. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If the port is taken or not allowed.
    pub fn bind(options: RtmpOptions) -> Result<Self, RtmpError> {
        let address = options.listen;
        let listener =
            tcp::listen(address, "rtmp.listen").map_err(|problem| RtmpError::Listen { address, problem })?;
        Ok(Self { options, listener })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap_or(self.options.listen)
    }

    /// Serves until `cancel`; then ends all sessions and returns.
    pub async fn run(
        self,
        streams: Arc<dyn PublishDirectory>,
        authorizer: Arc<dyn Authorizer>,
        sessions: Sessions,
        cancel: CancellationToken,
    ) {
        let shared = Arc::new(Shared { streams, authorizer, sessions, cancel: cancel.clone() });
        let places = Places::default();
        let (all, per_address) = (self.options.max_connections, self.options.max_connections_per_address);
        let mut connections = JoinSet::new();
        loop {
            let (socket, peer) = tokio::select! {
                () = cancel.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = tcp::accept(&self.listener) => accepted,
            };
            let Some(place) = places.take(peer, all, per_address) else { continue };
            connections.spawn(session::run(shared.clone(), socket, peer, place));
        }
        // Each connection has seen the token.
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            connections.shutdown().await;
        }
    }
}
