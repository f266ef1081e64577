//! Listening and answering.

use axum::Router;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    /// Accepting connections failed.
    #[error("the HTTP server failed: {0}")]
    Serve(std::io::Error),
}

/// A bound listener. Binding is separate from serving, so that a taken port is found before anything starts.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens; port 0 lets the system choose.
    ///
    /// # Errors
    /// If the port is taken or not allowed.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let failed = |e: std::io::Error| {
            let problem = match e.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "the port is in use; stop the other program, or choose another port with server.listen, --port or STREAM_MANAGER_PORT".to_owned()
                }
                _ => e.to_string(),
            };
            ServeError::Listen { address, problem }
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `cancel`, then lets requests in progress finish for up to five seconds.
    ///
    /// # Errors
    /// If accepting connections fails for good.
    pub async fn run(self, router: Router, cancel: CancellationToken) -> Result<(), ServeError> {
        let graceful = cancel.clone();
        let serve = axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { graceful.cancelled().await });
        let limit = async {
            cancel.cancelled().await;
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        };
        tokio::select! {
            result = serve.into_future() => result.map_err(ServeError::Serve),
            () = limit => Ok(()),
        }
    }
}
