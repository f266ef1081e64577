//! The RTMP port, which can be bound anew.

use super::{ServiceError, patiently};
use crate::api::ServedPorts;
use crate::auth::Users;
use crate::config::Config;
use crate::manager::{ConfigUser, StreamManager};
use crate::rtmp::{RtmpError, RtmpOptions, RtmpServer};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) struct RtmpListener {
    manager: StreamManager,
    users: Arc<Users>,
    ports: ServedPorts,
    running: Mutex<Option<Running>>,
}

struct Running {
    address: SocketAddr,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn bind(config: &Config) -> Result<RtmpServer, RtmpError> {
    RtmpServer::bind(RtmpOptions::from_config(&config.rtmp))
}

impl RtmpListener {
    pub(super) fn start(
        manager: &StreamManager,
        users: Arc<Users>,
        ports: ServedPorts,
    ) -> Result<Arc<Self>, ServiceError> {
        let config = manager.config();
        let listener = Arc::new(Self { manager: manager.clone(), users, ports, running: Mutex::new(None) });
        if config.rtmp.enabled {
            listener.serve(bind(&config)?);
        }
        Ok(listener)
    }

    fn serve(&self, server: RtmpServer) {
        let address = server.address();
        self.ports.set("rtmp", Some(address.port()));
        tracing::info!("RTMP for publishers at rtmp://{address}/<id>");
        let cancel = CancellationToken::new();
        let (streams, sessions) = (Arc::new(self.manager.clone()), self.manager.sessions().clone());
        let task = tokio::spawn(server.run(streams, self.users.clone(), sessions, cancel.clone()));
        *self.running.lock() = Some(Running { address, cancel, task });
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.running.lock().as_ref().map(|r| r.address)
    }

    /// Ends all sessions and lets go of the port.
    pub(super) async fn stop(&self) {
        let running = self.running.lock().take();
        self.ports.set("rtmp", None);
        if let Some(running) = running {
            running.cancel.cancel();
            // It ends within its own time limit; a panic in there has said so in the log.
            let _ = running.task.await;
        }
    }

    async fn bind_patiently(&self, config: &Config) -> Result<(), RtmpError> {
        if !config.rtmp.enabled {
            return Ok(());
        }
        patiently(|| std::future::ready(bind(config))).await.map(|server| self.serve(server))
    }
}

#[async_trait::async_trait]
impl ConfigUser for RtmpListener {
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        if old.rtmp == new.rtmp {
            return Ok(());
        }
        self.stop().await;
        let Err(error) = self.bind_patiently(new).await else { return Ok(()) };
        match self.bind_patiently(old).await {
            Ok(()) => Err(format!("rtmp.listen: {error}")),
            Err(again) => Err(format!("rtmp.listen: {error}; and the old port is lost: {again}")),
        }
    }
}
