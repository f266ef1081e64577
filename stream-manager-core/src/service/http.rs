//! The HTTP listener and the HTTPS listener, which can move to other addresses.

use super::patiently;
use crate::api::{ConnectionLimits, ServeError, ServedPorts, Server, TlsFiles};
use crate::config::{Config, ServerConfig};
use crate::manager::{ConfigUser, StreamManager};
use axum::Router;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Listeners that are bound.
pub(super) struct Bound {
    plain: Server,
    secure: Option<Server>,
}

impl Bound {
    pub(super) async fn bind(config: &ServerConfig) -> Result<Self, ServeError> {
        let plain = plain(config.listen)?;
        Ok(Self { plain, secure: secure(config).await? })
    }
}

fn files(config: &ServerConfig) -> Option<TlsFiles> {
    Some(TlsFiles { certificate: config.tls_certificate.clone()?, key: config.tls_key.clone()? })
}

fn plain(address: SocketAddr) -> Result<Server, ServeError> {
    Server::bind_for(address, "server.listen")
}

/// The HTTPS listener, if there is to be one.
async fn secure(config: &ServerConfig) -> Result<Option<Server>, ServeError> {
    let (Some(address), Some(files)) = (config.tls_listen, files(config)) else { return Ok(None) };
    Ok(Some(Server::bind_for(address, "server.tls_listen")?.tls(files).await?))
}

pub(super) struct HttpListener {
    router: Router,
    manager: StreamManager,
    ports: ServedPorts,
    running: Mutex<Running>,
    secure: Mutex<Option<Running>>,
    /// Listeners that have been left: their last requests may still be answered.
    left: Mutex<Vec<JoinHandle<()>>>,
}

struct Running {
    address: SocketAddr,
    cancel: CancellationToken,
    task: Option<JoinHandle<()>>,
}

fn serve(server: Server, router: Router, manager: &StreamManager, scheme: &str) -> Running {
    let (address, cancel, manager) = (server.address(), CancellationToken::new(), manager.clone());
    let limits = move |from| {
        let config = &manager.config().server;
        let all = config.max_connections;
        let is_proxy = config.trusted_proxies.iter().any(|network| network.contains(from));
        ConnectionLimits { all, per_address: if is_proxy { all } else { config.max_connections_per_address } }
    };
    let run = server.limits(limits).run(router, cancel.clone());
    let task = tokio::spawn(async move {
        if let Err(error) = run.await {
            tracing::error!(%error, "HTTP is no longer served");
        }
    });
    tracing::info!("HTTP at {scheme}://{address}");
    Running { address, cancel, task: Some(task) }
}

impl HttpListener {
    pub(super) fn start(
        bound: Bound,
        router: Router,
        manager: StreamManager,
        ports: ServedPorts,
    ) -> Arc<Self> {
        ports.set("http", Some(bound.plain.address().port()));
        let running = Mutex::new(serve(bound.plain, router.clone(), &manager, "http"));
        let listener =
            Self { router, manager, ports, running, secure: Mutex::default(), left: Mutex::default() };
        listener.set_secure(bound.secure);
        Arc::new(listener)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.running.lock().address
    }

    /// Where HTTPS listens.
    pub(super) fn secure_address(&self) -> Option<SocketAddr> {
        self.secure.lock().as_ref().map(|running| running.address)
    }

    fn set_secure(&self, server: Option<Server>) {
        self.ports.set("https", server.as_ref().map(|server| server.address().port()));
        let running = server.map(|server| serve(server, self.router.clone(), &self.manager, "https"));
        let old = std::mem::replace(&mut *self.secure.lock(), running);
        if let Some(old) = old {
            self.leave(old);
        }
    }

    fn leave(&self, mut old: Running) {
        old.cancel.cancel();
        let mut left = self.left.lock();
        left.retain(|task| !task.is_finished());
        left.extend(old.task.take());
    }

    pub(super) async fn stop(&self) {
        self.set_secure(None);
        let task = {
            let mut running = self.running.lock();
            running.cancel.cancel();
            running.task.take()
        };
        let left = std::mem::take(&mut *self.left.lock());
        for task in task.into_iter().chain(left) {
            // It ends within its own time limit.
            let _ = task.await;
        }
    }

    async fn move_plain(&self, wanted: SocketAddr) -> Result<(), String> {
        let server = match plain(wanted) {
            Ok(server) => server,
            // Perhaps it is our own listener that is in the way: the same port at all addresses, or at one.
            Err(_) if wanted.port() == self.address().port() && wanted.port() != 0 => {
                let before = self.address();
                self.running.lock().cancel.cancel();
                match patiently(|| async { plain(wanted) }).await {
                    Ok(server) => server,
                    Err(error) => {
                        let server = patiently(|| async { plain(before) }).await.map_err(|again| {
                            format!("server.listen: {error}; and the old address is lost: {again}")
                        })?;
                        self.set_plain(server);
                        return Err(format!("server.listen: {error}"));
                    }
                }
            }
            Err(error) => return Err(format!("server.listen: {error}")),
        };
        self.set_plain(server);
        Ok(())
    }

    fn set_plain(&self, server: Server) {
        self.ports.set("http", Some(server.address().port()));
        let running = serve(server, self.router.clone(), &self.manager, "http");
        let old = std::mem::replace(&mut *self.running.lock(), running);
        self.leave(old);
    }

    async fn move_secure(&self, old: &ServerConfig, new: &ServerConfig) -> Result<(), String> {
        let in_own_way = new.tls_listen.is_some_and(|wanted| {
            wanted.port() != 0 && self.secure_address().is_some_and(|own| own.port() == wanted.port())
        });
        if !in_own_way {
            let server = secure(new).await.map_err(|e| e.to_string())?;
            self.set_secure(server);
            return Ok(());
        }
        // What is wrong with the files is found before anything is let go of.
        if let Some(files) = files(new) {
            let checked = tokio::task::spawn_blocking(move || files.check()).await;
            checked.map_err(|e| e.to_string())?.map_err(|e| format!("server.tls_certificate: {e}"))?;
        }
        self.set_secure(None);
        match patiently(|| secure(new)).await {
            Ok(server) => {
                self.set_secure(server);
                Ok(())
            }
            Err(error) => {
                let server = patiently(|| secure(old)).await.map_err(|again| {
                    format!("server.tls_listen: {error}; and the old address is lost: {again}")
                })?;
                self.set_secure(server);
                Err(format!("server.tls_listen: {error}"))
            }
        }
    }
}

/// What the HTTPS listener is made from.
fn tls_of(config: &ServerConfig) -> impl PartialEq {
    (config.tls_listen, config.tls_certificate.clone(), config.tls_key.clone())
}

#[async_trait::async_trait]
impl ConfigUser for HttpListener {
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        let (old, new) = (&old.server, &new.server);
        if old.listen != new.listen {
            self.move_plain(new.listen).await?;
        }
        if tls_of(old) != tls_of(new) {
            self.move_secure(old, new).await?;
        }
        Ok(())
    }
}
