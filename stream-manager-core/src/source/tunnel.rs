//! A way from a client that connects by itself, and in plain, to a camera that wants TLS or another local address.
//!
//! The connection to the camera is made here. The client gets an address on the loopback where exactly one connection is taken, and
//! what goes over that is passed on. The port is gone as soon as the client is there.

use super::SourceError;
use super::connect;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

/// How long the client may take to come.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the connection to the camera has to be like.
#[derive(Clone, Debug, Default)]
pub(super) struct TunnelOptions {
    /// The address that it comes from.
    pub(super) local: Option<IpAddr>,
    /// TLS, and how the camera shows who it is.
    #[cfg(feature = "rtsp")]
    pub(super) tls: Option<super::tls::TlsOptions>,
}

/// One such way; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// Where the client has to connect.
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connects to the camera and waits for the client.
pub(super) async fn open(url: &Url, port: u16, options: &TunnelOptions) -> Result<Tunnel, SourceError> {
    let camera = connect::connect_to(url, port, options.local).await?;
    #[cfg(feature = "rtsp")]
    if let Some(tls) = &options.tls {
        let name = url.host_str().unwrap_or_default();
        let failed = |problem| SourceError::Tls { address: connect::host_and_port(url, port), problem };
        return pass(tls.connect(name, camera).await.map_err(failed)?).await;
    }
    pass(camera).await
}

async fn pass(
    mut camera: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Tunnel, SourceError> {
    let failed = |e: std::io::Error| SourceError::Other(format!("a port on the loopback: {e}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let task = tokio::spawn(async move {
        let Ok(Ok((mut client, _))) = tokio::time::timeout(CLIENT_TIMEOUT, listener.accept()).await else {
            return;
        };
        drop(listener);
        // Without this it would only be slower.
        let _ = client.set_nodelay(true);
        // Whoever is left finds that the connection has ended.
        let _ = copy_bidirectional(&mut client, &mut camera).await;
    });
    Ok(Tunnel { address, task })
}
