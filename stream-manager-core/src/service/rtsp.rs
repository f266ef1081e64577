//! The RTSP listener, which can be bound anew, and the users behind it.

use super::{RtspPorts, ServiceError, patiently};
use crate::api::ServedPorts;
use crate::auth::Users;
use crate::config::{Config, RtspConfig};
use crate::manager::{ConfigUser, StreamManager};
use crate::rtsp::{RtspError, RtspOptions, RtspServer};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) struct RtspListener {
    manager: StreamManager,
    users: Arc<Users>,
    ports: ServedPorts,
    running: Mutex<Option<Running>>,
}

struct Running {
    bound: RtspPorts,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn options(config: &Config) -> RtspOptions {
    RtspOptions::from_config(&config.rtsp, &config.auth)
}

impl RtspListener {
    pub(super) async fn start(
        manager: &StreamManager,
        users: Arc<Users>,
        ports: ServedPorts,
    ) -> Result<Arc<Self>, ServiceError> {
        let config = manager.config();
        let listener = Arc::new(Self { manager: manager.clone(), users, ports, running: Mutex::new(None) });
        if config.rtsp.enabled {
            let server = RtspServer::bind(options(&config)).await?;
            listener.serve(server);
        }
        Ok(listener)
    }

    fn serve(&self, server: RtspServer) {
        let bound =
            RtspPorts { address: server.address(), tls: server.tls_address(), udp: server.udp_ports() };
        self.ports.set("rtsp", Some(bound.address.port()));
        self.ports.set("rtsps", bound.tls.map(|tls| tls.port()));
        let udp = bound.udp.map(|(rtp, rtcp)| format!("{rtp}-{rtcp}"));
        let tls = bound.tls.map(|address| address.to_string());
        tracing::info!(udp, tls, "RTSP at rtsp://{}/<id>", bound.address);
        let cancel = CancellationToken::new();
        let (streams, sessions) = (Arc::new(self.manager.clone()), self.manager.sessions().clone());
        let task = tokio::spawn(server.run(streams, self.users.clone(), sessions, cancel.clone()));
        *self.running.lock() = Some(Running { bound, cancel, task });
    }

    pub(super) fn ports(&self) -> Option<RtspPorts> {
        self.running.lock().as_ref().map(|r| r.bound)
    }

    /// Ends all sessions and lets go of the ports.
    pub(super) async fn stop(&self) {
        let running = self.running.lock().take();
        self.ports.set("rtsp", None);
        self.ports.set("rtsps", None);
        if let Some(running) = running {
            running.cancel.cancel();
            // It ends within its own time limit; a panic in there has said so in the log.
            let _ = running.task.await;
        }
    }

    async fn bind(&self, config: &Config) -> Result<(), RtspError> {
        if !config.rtsp.enabled {
            return Ok(());
        }
        let server = patiently(|| RtspServer::bind(options(config))).await?;
        self.serve(server);
        Ok(())
    }
}

impl RtspListener {
    async fn move_to(&self, old: &Config, new: &Config) -> Result<(), String> {
        if !new.rtsp.enabled {
            self.stop().await;
            return Ok(());
        }
        match RtspServer::bind(options(new)).await {
            Ok(server) => {
                self.stop().await;
                self.serve(server);
                return Ok(());
            }
            // Somebody else is in the way; who is connected stays.
            Err(error) if !self.in_own_way(new) => return Err(format!("rtsp: {error}")),
            Err(_) => {}
        }
        self.stop().await;
        if let Err(error) = self.bind(new).await {
            if let Err(again) = self.bind(old).await {
                return Err(format!("rtsp: {error}; and the old address is lost: {again}"));
            }
            return Err(format!("rtsp: {error}"));
        }
        Ok(())
    }

    /// Whether a port that is wanted is one of our own.
    fn in_own_way(&self, new: &Config) -> bool {
        let Some(bound) = self.ports() else { return false };
        let own = [Some(bound.address.port()), bound.tls.map(|tls| tls.port())];
        let wanted = [Some(new.rtsp.listen.port()), new.rtsp.tls_listen.map(|tls| tls.port())];
        let tcp = wanted.iter().flatten().any(|port| own.iter().flatten().any(|own| own == port));
        tcp || bound.udp.is_some_and(|(rtp, _)| rtp == new.rtsp.udp_port)
    }
}

/// What the listener is made from.
fn relevant(config: &Config) -> (&RtspConfig, &[crate::auth::digest::AuthMethod]) {
    (&config.rtsp, &config.auth.methods)
}

#[async_trait::async_trait]
impl ConfigUser for RtspListener {
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        if relevant(old) != relevant(new) {
            let options = options(new);
            let checked = tokio::task::spawn_blocking(move || options.check()).await;
            checked.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            self.move_to(old, new).await?;
        }
        Ok(())
    }
}
