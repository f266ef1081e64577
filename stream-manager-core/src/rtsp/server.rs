//! Listening, and the limits on who may connect.

use super::StreamDirectory;
use super::connection;
use super::feed::{FeedOptions, Feeds};
use super::udp::UdpPair;
use crate::auth::Authorizer;
use crate::auth::digest::AuthMethod;
use crate::config::{AuthConfig, RtspConfig, StartMode};
use crate::session::Sessions;
use crate::source::RtspTransport;
use crate::tcp::{self, Place, Places};
use crate::tls::{Certificate, TlsFiles};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections have to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of the server.
///
/// ```
/// # use stream_manager_core::rtsp::RtspOptions;
/// let options = RtspOptions { listen: Some("127.0.0.1:0".parse().unwrap()), ..RtspOptions::default() };
/// ```
#[derive(Clone, Debug)]
pub struct RtspOptions {
    /// Where RTSP listens; port 0 lets the system choose. Not at all if not set.
    pub listen: Option<SocketAddr>,
    /// Where RTSPS listens. Not at all if not set.
    pub tls_listen: Option<SocketAddr>,
    /// Certificate and key of RTSPS.
    pub tls: Option<TlsFiles>,
    /// Whether media may travel interleaved in the RTSP connection.
    pub tcp: bool,
    /// Whether media may travel by UDP.
    pub udp: bool,
    /// The port of RTP, even; RTCP has the next one. 0 lets the system choose.
    pub udp_port: u16,
    /// The largest RTP packet.
    pub packet_bytes: usize,
    /// How readers begin.
    pub start: StartMode,
    /// What may wait for one reader.
    pub queue_bytes: usize,
    /// A reader that takes nothing for this long is disconnected.
    pub write_timeout: Duration,
    /// A client that says nothing for this long, and does not receive by TCP, is disconnected.
    pub session_timeout: Duration,
    /// How long a reader waits for a stream that has no tracks yet.
    pub start_timeout: Duration,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_address: usize,
    /// How passwords may be proved.
    pub auth_methods: Vec<AuthMethod>,
    /// How long a challenge is good.
    pub nonce_lifetime: Duration,
}

impl Default for RtspOptions {
    /// Port 8554 on all addresses, TCP and UDP.
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 8554))),
            tls_listen: None,
            tls: None,
            tcp: true,
            udp: true,
            udp_port: 0,
            packet_bytes: 1440,
            start: StartMode::Burst,
            queue_bytes: 4 << 20,
            write_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(60),
            start_timeout: Duration::from_secs(10),
            max_connections: 4096,
            max_connections_per_address: 1024,
            auth_methods: vec![AuthMethod::Basic, AuthMethod::Digest, AuthMethod::DigestSha256],
            nonce_lifetime: Duration::from_secs(300),
        }
    }
}

impl RtspOptions {
    /// Whether certificate and key can be used, without listening anywhere. Reads files.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn check(&self) -> Result<(), RtspError> {
        match (self.tls_listen, &self.tls) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(RtspError::NoCertificate),
            (Some(_), Some(files)) => files.check().map_err(RtspError::Tls),
        }
    }

    /// From the sections of the configuration.
    pub fn from_config(rtsp: &RtspConfig, auth: &AuthConfig) -> Self {
        let bytes = |b: crate::config::BytesText| usize::try_from(b.0).unwrap_or(usize::MAX);
        Self {
            listen: Some(rtsp.listen),
            tls_listen: rtsp.tls_listen,
            tls: match (&rtsp.tls_certificate, &rtsp.tls_key) {
                (Some(certificate), Some(key)) => {
                    Some(TlsFiles { certificate: certificate.clone(), key: key.clone() })
                }
                _ => None,
            },
            tcp: rtsp.transports.contains(&RtspTransport::Tcp),
            udp: rtsp.transports.contains(&RtspTransport::Udp),
            udp_port: rtsp.udp_port,
            packet_bytes: bytes(rtsp.packet_size),
            start: rtsp.start,
            queue_bytes: bytes(rtsp.queue_size),
            write_timeout: rtsp.write_timeout.0,
            session_timeout: rtsp.session_timeout.0,
            start_timeout: rtsp.start_timeout.0,
            max_connections: rtsp.max_connections,
            max_connections_per_address: rtsp.max_connections_per_address,
            auth_methods: auth.methods.clone(),
            ..Self::default()
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RtspError {
    /// It cannot listen.
    #[error("cannot listen for {what} on {address}: {problem}")]
    Listen {
        /// For what.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not, and what would help.
        problem: String,
    },
    /// Certificate or key are wrong.
    #[error("rtsp.tls_certificate and rtsp.tls_key: {0}")]
    Tls(String),
    /// RTSPS is to listen, but has no certificate.
    #[error("rtsp.tls_listen is set, but rtsp.tls_certificate and rtsp.tls_key are not; RTSPS needs both")]
    NoCertificate,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) options: RtspOptions,
    pub(super) udp: Option<Arc<UdpPair>>,
    pub(super) feeds: Feeds,
    pub(super) streams: Arc<dyn StreamDirectory>,
    pub(super) authorizer: Arc<dyn Authorizer>,
    pub(super) sessions: Sessions,
    pub(super) cancel: CancellationToken,
}

/// A server whose ports are bound.
pub struct RtspServer {
    options: RtspOptions,
    listener: Option<TcpListener>,
    tls: Option<(TcpListener, Arc<Certificate>)>,
    udp: Option<UdpPair>,
}

impl RtspServer {
    /// Binds its ports.
    ///
    /// # Errors
    /// If a port is taken or not allowed, or certificate and key cannot be used.
    pub async fn bind(options: RtspOptions) -> Result<Self, RtspError> {
        let tls = match (options.tls_listen, &options.tls) {
            (None, _) => None,
            (Some(_), None) => return Err(RtspError::NoCertificate),
            (Some(address), Some(files)) => {
                let files = files.clone();
                // Reading files blocks.
                let certificate = tokio::task::spawn_blocking(move || Certificate::open(files, &[]))
                    .await
                    .map_err(|e| RtspError::Tls(e.to_string()))?
                    .map_err(RtspError::Tls)?;
                Some((listen(address, "RTSPS", "rtsp.tls_listen")?, certificate))
            }
        };
        let listener = options.listen.map(|address| listen(address, "RTSP", "rtsp.listen")).transpose()?;
        let udp = match options.listen {
            Some(address) if options.udp => {
                let pair = UdpPair::bind(address.ip(), options.udp_port).map_err(|e| RtspError::Listen {
                    what: "RTP by UDP",
                    address: SocketAddr::new(address.ip(), options.udp_port),
                    problem: format!("{e}; choose another pair of ports with rtsp.udp_port, or 0"),
                })?;
                Some(pair)
            }
            _ => None,
        };
        Ok(Self { options, listener, tls, udp })
    }

    /// Where RTSP listens, or else RTSPS; an unspecified address if neither does.
    pub fn address(&self) -> SocketAddr {
        let local = |listener: &TcpListener| listener.local_addr().ok();
        self.listener
            .as_ref()
            .and_then(local)
            .or_else(|| self.tls_address())
            .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Where RTSPS listens.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// The ports of RTP and RTCP by UDP.
    pub fn udp_ports(&self) -> Option<(u16, u16)> {
        self.udp.as_ref().map(UdpPair::ports)
    }

    /// Serves until `cancel`; then ends all sessions and returns.
    pub async fn run(
        self,
        streams: Arc<dyn StreamDirectory>,
        authorizer: Arc<dyn Authorizer>,
        sessions: Sessions,
        cancel: CancellationToken,
    ) {
        let feeds = FeedOptions { packet_bytes: self.options.packet_bytes, start: self.options.start };
        let shared = Arc::new(Shared {
            udp: self.udp.map(Arc::new),
            feeds: Feeds::new(feeds),
            options: self.options,
            streams,
            authorizer,
            sessions,
            cancel: cancel.clone(),
        });
        let mut connections = JoinSet::new();
        let places = Places::default();
        let options = &shared.options;
        let (all, per_address) = (options.max_connections, options.max_connections_per_address);
        let datagrams = shared.udp.clone().map(|pair| tokio::spawn(pair.receive()));
        let (plain, tls) = (self.listener, self.tls);
        loop {
            let (socket, peer, certificate) = tokio::select! {
                () = cancel.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                (socket, peer) = accept(plain.as_ref()) => (socket, peer, None),
                (socket, peer) = accept(tls.as_ref().map(|(l, _)| l)) => {
                    (socket, peer, tls.as_ref().map(|(_, certificate)| certificate.clone()))
                }
            };
            let Some(place) = places.take(peer, all, per_address) else { continue };
            connections.spawn(serve(shared.clone(), socket, peer, certificate, place));
        }
        // Each connection has seen the token.
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            connections.shutdown().await;
        }
        if let Some(datagrams) = datagrams {
            datagrams.abort();
        }
    }
}

fn listen(address: SocketAddr, what: &'static str, key: &str) -> Result<TcpListener, RtspError> {
    tcp::listen(address, key).map_err(|problem| RtspError::Listen { what, address, problem })
}

async fn accept(listener: Option<&TcpListener>) -> (TcpStream, SocketAddr) {
    match listener {
        Some(listener) => tcp::accept(listener).await,
        None => std::future::pending().await,
    }
}

async fn serve(
    shared: Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    _place: Place,
) {
    tcp::prepare(&socket);
    let Ok(local) = socket.local_addr() else { return };
    let stream = match certificate {
        None => connection::Stream::Plain(Arc::new(socket)),
        Some(certificate) => {
            let handshake = async { certificate.acceptor().await.accept(socket).await };
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake);
            match shared.cancel.run_until_cancelled(handshake).await {
                Some(Ok(Ok(stream))) => connection::Stream::Tls(Box::new(stream)),
                Some(Ok(Err(error))) => {
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                    return;
                }
                _ => return,
            }
        }
    };
    connection::run(shared, stream, local, peer).await;
}
