//! The HTTP listener, which can move to another address.

use crate::api::{ServedPorts, Server};
use crate::config::Config;
use crate::manager::ConfigUser;
use axum::Router;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) struct HttpListener {
    router: Router,
    ports: ServedPorts,
    running: Mutex<Running>,
    /// Listeners that have been left: their last requests may still be answered.
    left: Mutex<Vec<JoinHandle<()>>>,
}

struct Running {
    address: SocketAddr,
    cancel: CancellationToken,
    task: Option<JoinHandle<()>>,
}

fn serve(server: Server, router: Router) -> Running {
    let (address, cancel) = (server.address(), CancellationToken::new());
    let run = server.run(router, cancel.clone());
    let task = tokio::spawn(async move {
        if let Err(error) = run.await {
            tracing::error!(%error, "HTTP is no longer served");
        }
    });
    tracing::info!("HTTP at http://{address}");
    Running { address, cancel, task: Some(task) }
}

impl HttpListener {
    pub(super) fn start(server: Server, router: Router, ports: ServedPorts) -> Arc<Self> {
        ports.set("http", Some(server.address().port()));
        let running = Mutex::new(serve(server, router.clone()));
        Arc::new(Self { router, ports, running, left: Mutex::default() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.running.lock().address
    }

    fn leave(&self, mut old: Running) {
        old.cancel.cancel();
        let mut left = self.left.lock();
        left.retain(|task| !task.is_finished());
        left.extend(old.task.take());
    }

    pub(super) async fn stop(&self) {
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
}

#[async_trait::async_trait]
impl ConfigUser for HttpListener {
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        if old.server.listen == new.server.listen {
            return Ok(());
        }
        let wanted = new.server.listen;
        let server = match Server::bind(wanted).await {
            Ok(server) => server,
            // Perhaps it is our own listener that is in the way: the same port at all addresses, or at one.
            Err(_) if wanted.port() == self.address().port() && wanted.port() != 0 => {
                let before = self.address();
                self.running.lock().cancel.cancel();
                match bind_patiently(wanted).await {
                    Ok(server) => server,
                    Err(error) => {
                        let server = bind_patiently(before).await.map_err(|again| {
                            format!("server.listen: {error}; and the old address is lost: {again}")
                        })?;
                        let running = serve(server, self.router.clone());
                        let old = std::mem::replace(&mut *self.running.lock(), running);
                        self.leave(old);
                        return Err(format!("server.listen: {error}"));
                    }
                }
            }
            Err(error) => return Err(format!("server.listen: {error}")),
        };
        self.ports.set("http", Some(server.address().port()));
        let running = serve(server, self.router.clone());
        let old = std::mem::replace(&mut *self.running.lock(), running);
        self.leave(old);
        Ok(())
    }
}

/// Our own listener needs a moment to let go of its port.
async fn bind_patiently(address: SocketAddr) -> Result<Server, crate::api::ServeError> {
    for _ in 0..20 {
        if let Ok(server) = Server::bind(address).await {
            return Ok(server);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Server::bind(address).await
}
