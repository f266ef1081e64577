//! A session that begins here: an offer of ours, a server's answer, and a port of its own for both.
//!
//! What goes on in it is what goes on in a server's sessions: a worker owns it, and it is a viewer's turned round (we send)
//! or a publisher's (we receive).

use super::address::candidates;
use super::answer::STATS_INTERVAL;
use super::dtls;
use super::feed::Feeds;
use super::gather::gather;
use super::ice_server::IceServer;
use super::peer::{NewPeer, Peer};
use super::relay::{Allocation, Relays};
use super::route::{Owner, Routes};
use super::session::{Role, Session};
use super::signalling::{Endpoint, Opened};
use super::socket::{Datagram, Socket};
use super::worker::{Command, Port, Worker, WorkerHandle};
use crate::config::IceConfig;
use crate::event::{EventBus, EventKind};
use crate::session::{NewSession, SessionKind, SessionStats, Sessions, StatsSource};
use crate::source::SourceError;
use futures_util::future::join_all;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::change::{SdpAnswer, SdpApi, SdpPendingOffer};
use str0m::net::Protocol;
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

/// A server of which nothing is heard for this long is gone.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long ending may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How a connection that begins here gets out of its network.
#[derive(Clone, Default)]
pub(super) struct IceOptions {
    servers: Vec<IceServer>,
    relay_only: bool,
}

impl From<&IceConfig> for IceOptions {
    fn from(config: &IceConfig) -> Self {
        Self { servers: config.servers.iter().map(IceServer::from).collect(), relay_only: config.relay_only }
    }
}

/// An offer before it goes.
pub(super) struct Dial {
    endpoint: Endpoint,
    ice: IceOptions,
    port: Port,
    relays: Arc<Relays>,
    worker: WorkerHandle,
    /// For a feed, which serves workers.
    pub(super) workers: Arc<[WorkerHandle]>,
    pub(super) feeds: Feeds,
    cancel: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// What the server said.
pub(super) struct Answered {
    rtc: Rtc,
    name: String,
    pub(super) answer: String,
    session: Option<Url>,
    allocations: Vec<Allocation>,
}

/// A session that lasts until this is dropped.
pub(super) struct Dialled {
    endpoint: Endpoint,
    session: Option<Url>,
    events: broadcast::Receiver<Arc<crate::event::Event>>,
    sessions: Sessions,
    id: u64,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Dialled {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn failed(problem: impl ToString) -> SourceError {
    SourceError::Protocol(problem.to_string())
}

/// Both families where the machine has both.
fn bind() -> std::io::Result<Socket> {
    Socket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        .or_else(|_| Socket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}

/// Whether a server is on this very machine, as far as its name says.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl Dial {
    /// Takes a port and a worker.
    pub(super) fn new(endpoint: Endpoint, ice: IceOptions) -> Result<Self, SourceError> {
        let problem = |error: std::io::Error| failed(format!("no UDP port: {error}"));
        let relays = Arc::new(Relays::default());
        let socket = Arc::new(bind().map_err(problem)?);
        let port = Port { socket, links: Arc::default(), relays: Some(relays.clone()) };
        let cancel = CancellationToken::new();
        let (worker, runs) = Worker::new(Arc::new(Routes::default()), port.clone());
        let task = Some(tokio::spawn(runs.run(cancel.clone())));
        let workers = Arc::new([worker.clone()]);
        Ok(Self { endpoint, ice, port, relays, worker, workers, feeds: Feeds::default(), cancel, task })
    }

    /// Offers what `change` adds, and takes the answer.
    pub(super) async fn ask(
        &self,
        config: RtcConfig,
        change: impl FnOnce(&mut SdpApi<'_>),
    ) -> Result<Answered, SourceError> {
        let credentials = IceCreds::new();
        let name = credentials.ufrag.clone();
        let config = config
            .set_local_ice_credentials(credentials)
            .set_crypto_provider(dtls::crypto())
            .set_rtp_mode(true)
            .set_stats_interval(Some(STATS_INTERVAL));
        let mut rtc = config.build(Instant::now());
        let mut own = candidates(self.port.socket.address(), &[]);
        if is_here(self.endpoint.url()) {
            let port = self.port.socket.address().port();
            own.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
            if self.port.socket.address().is_ipv6() {
                own.push(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port));
            }
        }
        own.sort();
        own.dedup();
        if !self.ice.relay_only {
            for candidate in own.into_iter().filter_map(|address| Candidate::host(address, "udp").ok()) {
                rtc.add_local_candidate(candidate);
            }
        }
        let mut allocations = self.find(&mut rtc, &self.ice.servers).await;
        let (offer, pending): (_, SdpPendingOffer) = {
            let mut api = rtc.sdp_api();
            change(&mut api);
            api.apply().ok_or_else(|| failed("nothing is offered"))?
        };
        let Opened { answer, session, servers } = match self.endpoint.open(&offer.to_sdp_string()).await {
            Ok(opened) => opened,
            Err(error) => {
                self.back_out(None, allocations).await;
                return Err(error);
            }
        };
        // The parser is somebody else's, and this comes from anybody.
        let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let answer = SdpAnswer::from_sdp_string(&answer).map_err(|e| e.to_string())?;
            rtc.sdp_api().accept_answer(pending, answer).map_err(|e| e.to_string())?;
            Ok::<_, String>(rtc)
        }));
        match taken {
            Ok(Ok(mut rtc)) => {
                // The other side learns of these when something comes from there.
                let known = |told: &IceServer| self.ice.servers.iter().any(|own| own.url == told.url);
                let more: Vec<IceServer> = servers.into_iter().filter(|told| !known(told)).collect();
                allocations.extend(self.find(&mut rtc, &more).await);
                Ok(Answered { rtc, name, answer, session, allocations })
            }
            other => {
                self.back_out(session.as_ref(), allocations).await;
                let problem = other.ok().and_then(Result::err);
                Err(failed(format!(
                    "the answer is none: {}",
                    problem.as_deref().unwrap_or("it makes no sense")
                )))
            }
        }
    }

    /// Finds ways out by these servers.
    async fn find(&self, rtc: &mut Rtc, servers: &[IceServer]) -> Vec<Allocation> {
        if servers.is_empty() {
            return Vec::new();
        }
        let gathered = gather(servers, &self.port.socket, self.ice.relay_only).await;
        for problem in &gathered.problems {
            tracing::warn!(problem, "a STUN or TURN server is of no use");
        }
        let mapped = gathered.mapped.iter();
        let mapped =
            mapped.filter_map(|(address, base)| Candidate::server_reflexive(*address, *base, "udp").ok());
        let allocated = gathered.allocations.iter();
        let allocated = allocated.filter_map(|a| Candidate::relayed(a.allocated, a.local(), "udp").ok());
        for candidate in mapped.chain(allocated) {
            rtc.add_local_candidate(candidate);
        }
        gathered.allocations
    }

    /// Gives an answer up.
    pub(super) async fn give_up(&self, answered: Answered) {
        self.back_out(answered.session.as_ref(), answered.allocations).await;
    }

    /// Leaves neither a session nor addresses on other servers.
    async fn back_out(&self, session: Option<&Url>, allocations: Vec<Allocation>) {
        if let Some(session) = session {
            self.endpoint.close(session).await;
        }
        join_all(allocations.into_iter().map(Allocation::release)).await;
    }

    /// Begins the session.
    pub(super) async fn begin(
        mut self,
        answered: Answered,
        kind: SessionKind,
        stats: StatsSource,
        role: impl FnOnce(Owner, &WorkerHandle) -> Role,
    ) -> Result<Dialled, SourceError> {
        let bus = EventBus::default();
        let events = bus.subscribe();
        let sessions = Sessions::new(bus);
        let new = NewSession {
            protocol: "webrtc",
            kind,
            stream: "".into(),
            address: self.port.socket.address(),
            user: None,
            user_agent: None,
            transport: "udp",
        };
        let guard = sessions.open(new, stats);
        let id = guard.id();
        let owner = Owner { worker: 0, session: id };
        let peer = Peer::new(NewPeer {
            owner,
            rtc: answered.rtc,
            offer: "".into(),
            name: answered.name,
            guard,
            timeout: TIMEOUT,
            leaves: "the other server has ended the session",
            place: Box::new(()),
        });
        let session = Session::new(peer, role(owner, &self.worker));
        let (socket, worker) = (self.port.socket.clone(), self.worker.clone());
        let receives = tokio::spawn(async move {
            let mut buffers = socket.buffers();
            loop {
                let received = socket
                    .receive(&mut buffers, |datagram| {
                        // A worker that is behind loses it, as a network would.
                        let _ = worker.try_send(Command::Datagram(id, datagram));
                    })
                    .await;
                if let Err(error) = received {
                    tracing::debug!(%error, "a WebRTC client's port");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        let mut tasks: Vec<JoinHandle<()>> = self.task.take().into_iter().collect();
        let relayed = answered.allocations.into_iter().map(|allocation| {
            let (outgoing, worker) = (self.relays.add(allocation.allocated), self.worker.clone());
            let destination = allocation.allocated;
            let deliver = move |source, data| {
                let datagram = Datagram { protocol: Protocol::Udp, source, destination, data };
                // A worker that is behind loses it, as a network would.
                let _ = worker.try_send(Command::Datagram(id, datagram));
            };
            tokio::spawn(async move {
                if let Err(error) = allocation.run(outgoing, deliver).await {
                    tracing::debug!(%error, "a TURN server");
                }
            })
        });
        tasks.extend(relayed);
        tasks.push(receives);
        let dialled = Dialled {
            endpoint: self.endpoint.clone(),
            session: answered.session,
            events,
            sessions,
            id,
            cancel: self.cancel.clone(),
            tasks,
        };
        let sent = self.worker.send(Command::Add(Box::new(session))).await;
        sent.map_err(|()| failed("the worker has ended"))?;
        Ok(dialled)
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        // Begun, the session has it.
        if let Some(task) = self.task.take() {
            self.cancel.cancel();
            task.abort();
        }
    }
}

impl Dialled {
    /// Waits until it ends by itself; gives why.
    pub(super) async fn over(&mut self) -> String {
        loop {
            match self.events.recv().await {
                Ok(event) => {
                    if let EventKind::SessionClosed { reason, .. } = &event.kind {
                        return reason.clone();
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return "it has ended".into(),
            }
        }
    }

    /// Its counters.
    pub(super) fn stats(&self) -> SessionStats {
        self.sessions.get(self.id).map(|info| info.stats).unwrap_or_default()
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        if let Some(session) = self.session.take() {
            self.endpoint.close(&session).await;
        }
        self.cancel.cancel();
        // The worker says goodbye to its session.
        let receives = self.tasks.pop();
        if let Some(receives) = &receives {
            receives.abort();
        }
        // Then the ways by TURN servers end, with the worker's end.
        let _ = tokio::time::timeout(STOP_TIMEOUT, async {
            for task in &mut self.tasks {
                let _ = task.await;
            }
        })
        .await;
    }
}
