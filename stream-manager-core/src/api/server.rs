//! Listening and answering.
//!
//! Each connection has a task of its own. A client that does not send its request's head in time is disconnected, and
//! one that takes nothing, by the kernel; the number of connections is limited.

use super::accounts::ByTls;
use crate::tcp::{self, Places};
use crate::tls::{Certificate, TlsFiles};
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a request's head may take to arrive, and a connection be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// What was sent has to be taken within this time.
const WRITE_TIMEOUT_MS: u32 = 30_000;
/// The largest head of a request.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long requests in progress may take when the server ends.
const GRACE: Duration = Duration::from_secs(5);

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {problem}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why, and what would help.
        problem: String,
    },
    /// Certificate and key cannot be used.
    #[error("server.tls_certificate and server.tls_key: {0}")]
    Tls(String),
}

/// A bound listener. Binding is separate from serving, so that a taken port is found before anything starts.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    limits: Arc<Limits>,
}

type Limits = dyn Fn(IpAddr) -> ConnectionLimits + Send + Sync;

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// How many may be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub all: usize,
    /// From one address.
    pub per_address: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { all: 4096, per_address: 1024 }
    }
}

impl Server {
    /// Listens; port 0 lets the system choose.
    ///
    /// # Errors
    /// If the port is taken or not allowed.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        Self::bind_for(address, "server.listen")
    }

    /// The same for a key of the configuration.
    pub(crate) fn bind_for(address: SocketAddr, key: &str) -> Result<Self, ServeError> {
        let failed = |problem: String| ServeError::Listen { address, problem };
        let listener = tcp::listen(address, key).map_err(failed)?;
        let address = listener.local_addr().map_err(|e| failed(e.to_string()))?;
        Ok(Self { listener, address, certificate: None, limits: Arc::new(|_| ConnectionLimits::default()) })
    }

    /// By TLS, with HTTP/2 and HTTP/1.1. New files are used as soon as they are there.
    ///
    /// # Errors
    /// If certificate and key cannot be used.
    pub async fn tls(mut self, files: TlsFiles) -> Result<Self, ServeError> {
        let opened = tokio::task::spawn_blocking(move || Certificate::open(files, PROTOCOLS)).await;
        let opened = opened.unwrap_or_else(|e| Err(e.to_string())).map_err(ServeError::Tls)?;
        self.certificate = Some(opened);
        Ok(self)
    }

    /// Sets how many may be connected when somebody comes from an address. Who comes beyond that is turned away.
    #[must_use]
    pub fn limits(mut self, limits: impl Fn(IpAddr) -> ConnectionLimits + Send + Sync + 'static) -> Self {
        self.limits = Arc::new(limits);
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `cancel`, then lets requests in progress finish for up to five seconds.
    ///
    /// # Errors
    /// None at the moment: what goes wrong with a connection ends that connection.
    pub async fn run(self, router: Router, cancel: CancellationToken) -> Result<(), ServeError> {
        let mut connections = JoinSet::new();
        let places = Places::default();
        loop {
            let (socket, peer) = tokio::select! {
                () = cancel.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = tcp::accept(&self.listener) => accepted,
            };
            let limits = (self.limits)(peer.ip().to_canonical());
            let Some(place) = places.take(peer, limits.all, limits.per_address) else { continue };
            let serving = serve(socket, peer, self.certificate.clone(), router.clone(), cancel.clone());
            connections.spawn(async move {
                let _place = place;
                serving.await;
            });
        }
        // Nobody else is to be let in.
        drop(self.listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            connections.shutdown().await;
        }
        Ok(())
    }
}

/// What a client that speaks HTTP/2 from the start says first (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests at one time on one HTTP/2 connection.
const MAX_HTTP2_STREAMS: u32 = 256;

/// Whether a client speaks HTTP/2. What it has said stays where it is.
async fn speaks_http2(socket: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0u8; HTTP2_PREFACE.len()];
    loop {
        let known = socket.peek(&mut start).await?;
        let said = start.get(..known).unwrap_or_default();
        if known == 0 || !HTTP2_PREFACE.starts_with(said) {
            return Ok(false);
        }
        if known == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        // Half of it is there, which peeking finds again and again.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What TLS offers (ALPN, RFC 7301).
const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Finds out what a client speaks, and answers.
async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    router: Router,
    cancel: CancellationToken,
) {
    // Answers are written as a whole: waiting for more would only delay them.
    let _ = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, WRITE_TIMEOUT_MS);
    let Some(certificate) = certificate else {
        let version = tokio::time::timeout(HEAD_TIMEOUT, speaks_http2(&socket));
        let Some(Ok(Ok(http2))) = cancel.run_until_cancelled(version).await else { return };
        return answer(socket, peer, (http2, false), router, cancel).await;
    };
    let handshake = async { certificate.acceptor().await.accept(socket).await };
    let handshake = tokio::time::timeout(HEAD_TIMEOUT, handshake);
    match cancel.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => {
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            answer(stream, peer, (http2, true), router, cancel).await;
        }
        Some(Ok(Err(error))) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        _ => {}
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    (http2, by_tls): (bool, bool),
    router: Router,
    cancel: CancellationToken,
) {
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        if by_tls {
            request.extensions_mut().insert(ByTls);
        }
        router.call(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIMEOUT)
        .max_concurrent_streams(MAX_HTTP2_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32);
    // Told which it is, since by itself it would wait for ever for a client that says nothing.
    let builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended with an error");
    }
}
