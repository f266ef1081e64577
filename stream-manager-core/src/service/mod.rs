//! The whole server: a manager with its listeners and hooks, as the configuration says, and as it says later on.
//!
//! [`Service::start`] reads the configuration, binds the ports and starts everything; [`Service::run`] keeps it going
//! until it is cancelled, and reads the configuration again when its file changes. Everything that the program
//! `stream-manager` does as a server is this.
//!
//! ```no_run
//! use stream_manager_core::config::ConfigSource;
//! use stream_manager_core::service::{Service, ServiceOptions};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let source = ConfigSource { file: Some("config.toml".into()), ..ConfigSource::default() };
//! let service = Service::start(source, ServiceOptions::default()).await?;
//! println!("http://{}", service.address());
//! service.run(CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```

mod http;
#[cfg(feature = "rtmp")]
mod rtmp;
#[cfg(feature = "rtsp")]
mod rtsp;
#[cfg(feature = "systemd")]
mod systemd;
#[cfg(feature = "otel")]
mod telemetry;
mod users;
mod watch;
#[cfg(feature = "webrtc")]
mod webrtc;

use crate::api::{self, ApiOptions, ServeError, ServedPorts};
use crate::config::{Config, ConfigSource};
use crate::health::LoopWatch;
use crate::hooks::Hooks;
use crate::logs::{LogRing, RepeatLimit};
use crate::manager::{ConfigUser, OpenError, StreamManager, Trigger};
use crate::metrics::Requests;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How often it is said what was not logged again.
const TELL_REPEATS: std::time::Duration = std::time::Duration::from_secs(10);

/// What the program gives beside the configuration.
#[derive(Clone, Default)]
pub struct ServiceOptions {
    /// The lines of the log that the API shows.
    pub logs: Option<LogRing>,
    /// How often the same is logged: it is told now and then what was held back.
    pub repeats: Option<RepeatLimit>,
    /// Where metrics are sent, if they are.
    #[cfg(feature = "otel")]
    pub otlp: Option<crate::otel::Otlp>,
    /// Who else takes over new configurations, such as the log.
    pub config_users: Vec<Arc<dyn ConfigUser>>,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The configuration is wrong, or what it says cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// HTTP cannot be served.
    #[error(transparent)]
    Http(#[from] ServeError),
    /// RTMP cannot be served.
    #[cfg(feature = "rtmp")]
    #[error(transparent)]
    Rtmp(#[from] crate::rtmp::RtmpError),
    /// RTSP cannot be served.
    #[cfg(feature = "rtsp")]
    #[error(transparent)]
    Rtsp(#[from] crate::rtsp::RtspError),
    /// WebRTC cannot be served.
    #[cfg(feature = "webrtc")]
    #[error(transparent)]
    WebRtc(#[from] crate::webrtc::WebRtcError),
    /// Users are wrong.
    #[error("{0}")]
    Auth(String),
}

/// A running server.
pub struct Service {
    manager: StreamManager,
    http: Arc<http::HttpListener>,
    #[cfg(feature = "rtmp")]
    rtmp: Arc<rtmp::RtmpListener>,
    #[cfg(feature = "rtsp")]
    rtsp: Arc<rtsp::RtspListener>,
    #[cfg(feature = "webrtc")]
    webrtc: Arc<webrtc::WebRtcListener>,
    hooks: Hooks,
    users: Arc<users::ConfiguredUsers>,
    #[cfg_attr(not(feature = "systemd"), allow(dead_code, reason = "who looks at it has a share of it"))]
    watch: Arc<LoopWatch>,
    watching: CancellationToken,
    tasks: tokio_util::task::TaskTracker,
    closing: CancellationToken,
}

impl Service {
    /// Reads the configuration, binds the ports, and starts everything. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If the configuration is wrong, the data folder cannot be used, or a port is taken; nothing runs then.
    pub async fn start(source: ConfigSource, options: ServiceOptions) -> Result<Self, ServiceError> {
        #[cfg(feature = "systemd")]
        systemd::take_listeners();
        let manager = StreamManager::open(source).await?;
        match Self::with(manager.clone(), options).await {
            Ok(service) => Ok(service),
            Err(error) => {
                manager.shutdown().await;
                Err(error)
            }
        }
    }

    async fn with(manager: StreamManager, options: ServiceOptions) -> Result<Self, ServiceError> {
        let (config, closing, ports) = (manager.config(), CancellationToken::new(), ServedPorts::default());
        // The ports first: if one is taken, no camera has been connected and no file begun.
        let bound = http::Bound::bind(&config.server).await?;
        let users = users::ConfiguredUsers::open(&config).await.map_err(ServiceError::Auth)?;
        #[cfg(feature = "rtsp")]
        let rtsp = rtsp::RtspListener::start(&manager, users.list(), ports.clone()).await?;
        #[cfg(feature = "rtmp")]
        let rtmp = match rtmp::RtmpListener::start(&manager, users.list(), ports.clone()) {
            Ok(rtmp) => rtmp,
            Err(error) => {
                #[cfg(feature = "rtsp")]
                rtsp.stop().await;
                return Err(error);
            }
        };
        #[cfg(feature = "webrtc")]
        let served = api::ServedWebRtc::default();
        #[cfg(feature = "webrtc")]
        let webrtc = match webrtc::WebRtcListener::start(&manager, ports.clone(), served.clone()) {
            Ok(webrtc) => webrtc,
            Err(error) => {
                #[cfg(feature = "rtsp")]
                rtsp.stop().await;
                #[cfg(feature = "rtmp")]
                rtmp.stop().await;
                return Err(error);
            }
        };
        let hooks = Hooks::start(manager.clone()).await;
        // It watches as long as anything is answered.
        let watching = CancellationToken::new();
        let (watch, task) = LoopWatch::start(watching.clone());
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(task);
        if let Some(repeats) = options.repeats {
            tasks.spawn(tell_repeats(repeats, watching.clone()));
        }
        let requests = Requests::default();
        let api = ApiOptions {
            logs: options.logs,
            hooks: Some(hooks.clone()),
            ports: ports.clone(),
            #[cfg(feature = "webrtc")]
            webrtc: served,
            authorizer: Some(users.list()),
            users: Some(users.list()),
            setup: Some(users.setup()),
            watch: Some(watch.clone()),
            requests: requests.clone(),
            closing: closing.clone(),
        };
        #[cfg(feature = "otel")]
        if let Some(otlp) = options.otlp {
            let counted = telemetry::Counted {
                manager: manager.clone(),
                hooks: hooks.clone(),
                requests,
                watch: watch.clone(),
            };
            tasks.spawn(telemetry::keep_sending(otlp, counted, watching.clone()));
        }
        let router = api::router(manager.clone(), api);
        let http = http::HttpListener::start(bound, router, manager.clone(), ports);
        // Listeners first: they are what can refuse.
        crate::outbound::set_rules(config.outbound.rules());
        manager.add_config_user(Arc::new(Outbound));
        manager.add_config_user(users.clone());
        manager.add_config_user(http.clone());
        #[cfg(feature = "rtsp")]
        manager.add_config_user(rtsp.clone());
        #[cfg(feature = "rtmp")]
        manager.add_config_user(rtmp.clone());
        #[cfg(feature = "webrtc")]
        manager.add_config_user(webrtc.clone());
        for user in options.config_users {
            manager.add_config_user(user);
        }
        manager.add_config_user(Arc::new(hooks.clone()));
        manager.start().await;
        Ok(Self {
            manager,
            http,
            #[cfg(feature = "rtmp")]
            rtmp,
            #[cfg(feature = "rtsp")]
            rtsp,
            #[cfg(feature = "webrtc")]
            webrtc,
            hooks,
            users,
            watch,
            watching,
            tasks,
            closing,
        })
    }

    /// The manager.
    pub fn manager(&self) -> &StreamManager {
        &self.manager
    }

    /// The hooks.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Where HTTP listens.
    pub fn address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where HTTPS listens, if it is served.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.http.secure_address()
    }

    /// The code by which the first user can be made from elsewhere; none if there are users already.
    pub fn setup_code(&self) -> Option<crate::auth::Secret> {
        self.users.setup().reveal().filter(|_| self.users.list().is_open())
    }

    /// Where RTSP listens, and RTSPS, and its UDP ports, if it is served.
    #[cfg(feature = "rtsp")]
    pub fn rtsp(&self) -> Option<RtspPorts> {
        self.rtsp.ports()
    }

    /// Where RTMP listens, if it is served.
    #[cfg(feature = "rtmp")]
    pub fn rtmp(&self) -> Option<SocketAddr> {
        self.rtmp.address()
    }

    /// Where media by WebRTC arrives and leaves, if it is served.
    #[cfg(feature = "webrtc")]
    pub fn webrtc(&self) -> Option<SocketAddr> {
        self.webrtc.address()
    }

    /// Keeps going until `cancel`; then finishes every file and ends. Reads the configuration again when its file
    /// changes.
    pub async fn run(self, cancel: CancellationToken) {
        #[cfg(feature = "systemd")]
        {
            systemd::ready(&self.manager);
            let (manager, watch) = (self.manager.clone(), self.watch.clone());
            self.tasks.spawn(systemd::keep_telling(manager, watch, self.watching.clone()));
        }
        watch::run(&self.manager, &cancel).await;
        tracing::info!("stopping: finishing recordings");
        #[cfg(feature = "systemd")]
        systemd::stopping();
        self.closing.cancel();
        #[cfg(feature = "rtsp")]
        self.rtsp.stop().await;
        #[cfg(feature = "rtmp")]
        self.rtmp.stop().await;
        #[cfg(feature = "webrtc")]
        self.webrtc.stop().await;
        // While files are finished, the API still says how that goes.
        self.manager.shutdown().await;
        self.hooks.stop().await;
        self.http.stop().await;
        self.users.stop().await;
        self.watching.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Reads the configuration again, as for a signal.
    pub fn reloader(
        &self,
    ) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static {
        let manager = self.manager.clone();
        move || {
            let manager = manager.clone();
            Box::pin(async move {
                #[cfg(feature = "systemd")]
                systemd::reloading();
                // What came of it is in the log and an event.
                let _ = manager.reload(Trigger::Signal).await;
                #[cfg(feature = "systemd")]
                systemd::ready(&manager);
            })
        }
    }
}

/// Says now and then what was not logged again.
async fn tell_repeats(repeats: RepeatLimit, cancel: CancellationToken) {
    while cancel.run_until_cancelled(tokio::time::sleep(TELL_REPEATS)).await.is_some() {
        repeats.tell();
    }
}

/// Takes over where this process connects to.
struct Outbound;

#[async_trait::async_trait]
impl ConfigUser for Outbound {
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        if old.outbound != new.outbound {
            crate::outbound::set_rules(new.outbound.rules());
        }
        Ok(())
    }
}

/// Lets this process have as many files and sockets open as it is allowed to, where shells and old programs have set less. For servers:
/// a hundred cameras and their viewers are more than the usual 1024.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "no more files may be open than before");
        }
    }
}

/// Binds what is to be bound anew: our own socket needs a moment to let go of its port.
async fn patiently<T, E, F>(mut bind: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut last = bind().await;
    for _ in 0..20 {
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        last = bind().await;
    }
    last
}

/// Where RTSP is served.
#[cfg(feature = "rtsp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtspPorts {
    /// Where RTSP listens.
    pub address: SocketAddr,
    /// Where RTSPS listens.
    pub tls: Option<SocketAddr>,
    /// The ports of RTP and RTCP by UDP.
    pub udp: Option<(u16, u16)>,
}
