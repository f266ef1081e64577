//! The WebRTC port, which can be bound anew.

use super::{ServiceError, patiently};
use crate::api::{ServedPorts, ServedWebRtc};
use crate::config::Config;
use crate::manager::{ConfigUser, StreamManager};
use crate::webrtc::{WebRtcError, WebRtcOptions, WebRtcServer};
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) struct WebRtcListener {
    manager: StreamManager,
    ports: ServedPorts,
    served: ServedWebRtc,
}

impl WebRtcListener {
    pub(super) fn start(
        manager: &StreamManager,
        ports: ServedPorts,
        served: ServedWebRtc,
    ) -> Result<Arc<Self>, ServiceError> {
        let listener = Arc::new(Self { manager: manager.clone(), ports, served });
        let config = manager.config();
        if config.webrtc.enabled {
            listener.serve(listener.bind(&config)?);
        }
        Ok(listener)
    }

    fn bind(&self, config: &Config) -> Result<WebRtcServer, WebRtcError> {
        WebRtcServer::start(WebRtcOptions::from_config(&config.webrtc), self.manager.sessions().clone())
    }

    fn serve(&self, server: WebRtcServer) {
        tracing::info!("WebRTC by UDP at {}", server.address());
        self.ports.set("webrtc", Some(server.address().port()));
        self.served.set(Some(Arc::new(server)));
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.served.get().map(|server| server.address())
    }

    /// Says goodbye to all viewers and lets go of the port.
    pub(super) async fn stop(&self) {
        self.ports.set("webrtc", None);
        if let Some(server) = self.served.set(None) {
            server.stop().await;
        }
    }

    async fn bind_patiently(&self, config: &Config) -> Result<(), WebRtcError> {
        if !config.webrtc.enabled {
            return Ok(());
        }
        patiently(|| std::future::ready(self.bind(config))).await.map(|server| self.serve(server))
    }
}

#[async_trait::async_trait]
impl ConfigUser for WebRtcListener {
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        if old.webrtc == new.webrtc {
            return Ok(());
        }
        self.stop().await;
        let Err(error) = self.bind_patiently(new).await else { return Ok(()) };
        match self.bind_patiently(old).await {
            Ok(()) => Err(format!("webrtc.listen: {error}")),
            Err(again) => Err(format!("webrtc.listen: {error}; and the old port is lost: {again}")),
        }
    }
}
