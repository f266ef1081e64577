//! The port, its workers, and the sessions that begin and end.

use super::LeftOut;
use super::address::candidates;
use super::answer::{Answered, Identity, answer};
use super::counters::Counters;
use super::feed::{Feed, Feeds};
use super::intake::{Incoming, intake, one_way};
use super::lower::{Lower, LowerStream};
use super::negotiate::{Feedback, NegotiationError, Plan, plan, wants_video, with_ports};
use super::options::WebRtcOptions;
use super::peer::{NewPeer, Peer};
use super::publisher::{Intaken, Into, NewPublisher, Publisher, REORDER};
use super::rendition::{Rendition, Renditions};
use super::route::{Owner, Routes};
use super::session::{Role, Session};
use super::socket::Socket;
use super::tcp;
use super::teller::Teller;
use super::viewer::{NewViewer, Viewer};
use super::worker::{Command, Port, Worker, WorkerHandle};
use crate::config::Transcode;
use crate::frame::WallTime;
use crate::hub::{Hub, ReaderOptions, StartAt};
use crate::rtp::Receiver;
use crate::rtp::format::Description;
use crate::session::{NewSession, SessionKind, Sessions, StatsSource};
use crate::source::{PublishError, PublishSlot};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// More workers than this do not make it faster: what is left is the system's own work.
const MAX_WORKERS: usize = 8;
/// How long is waited for a first picture, which tells whether there are B frames.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_millis(300);
/// How long ending may take.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why WebRTC cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebRtcError {
    /// The port cannot be had.
    #[error("WebRTC cannot listen on {address}: {error}; is another server running there? See webrtc.listen")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// There is no certificate.
    #[error("no certificate can be made for WebRTC")]
    Certificate,
}

/// Why a session cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The offer and the stream do not go together.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// The stream has no tracks: its source has never been reached, for example.
    #[error("the stream has no tracks at the moment")]
    NoTracks,
    /// The stream takes no publisher.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// There are too many.
    #[error("there are {0} WebRTC sessions, which is as many as may be; try again later")]
    TooMany(usize),
    /// The server is ending.
    #[error("the server is shutting down")]
    Closed,
}

/// Somebody who wants to watch or to publish.
#[derive(Debug)]
pub struct SessionRequest<'a> {
    /// The offer (SDP, RFC 8866).
    pub offer: &'a str,
    /// The stream's id.
    pub stream: Arc<str>,
    /// Where the request comes from.
    pub peer: SocketAddr,
    /// Who asks.
    pub user: Option<String>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
}

/// A session that has been answered.
#[derive(Clone, Debug)]
pub struct OpenedSession {
    /// The session's number in the list of sessions.
    pub session: u64,
    /// What only its client knows: the end of the session's address.
    pub token: String,
    /// The answer (SDP).
    pub answer: String,
    /// Tracks that do not go.
    pub left_out: Vec<LeftOut>,
}

/// Sessions by what only their clients know.
type Tokens = Arc<Mutex<HashMap<String, Known>>>;

/// A session, from outside.
pub(super) struct Known {
    pub(super) stream: Arc<str>,
    pub(super) owner: Owner,
    /// How often ICE has begun anew.
    pub(super) restarts: u32,
}

/// What the parts of a server share.
pub(super) struct Shared {
    options: WebRtcOptions,
    socket: Arc<Socket>,
    routes: Arc<Routes>,
    pub(super) workers: Arc<[WorkerHandle]>,
    feeds: Arc<Feeds>,
    renditions: Renditions,
    pub(super) identity: Identity,
    sessions: Sessions,
    open: Arc<AtomicUsize>,
    next_worker: AtomicUsize,
    /// Sessions by their tokens.
    pub(super) tokens: Tokens,
    /// Those of publishers.
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// A running server. Dropping it ends its tasks; [`stop`](Self::stop) says goodbye to its viewers first.
pub struct WebRtcServer {
    pub(super) shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for WebRtcServer {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
        self.tasks.lock().iter().for_each(JoinHandle::abort);
    }
}

/// A session that has been answered, before it begins.
struct Opening {
    kind: SessionKind,
    stats: StatsSource,
    left_out: Vec<LeftOut>,
    answered: Answered,
    place: Place,
}

/// Counts a session for as long as it lasts.
struct Place {
    open: Arc<AtomicUsize>,
    tokens: Tokens,
    token: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.tokens.lock().remove(&self.token);
    }
}

async fn receive(socket: Arc<Socket>, routes: Arc<Routes>, workers: Arc<[WorkerHandle]>) {
    let mut buffers = socket.buffers();
    loop {
        let received = socket
            .receive(&mut buffers, |datagram| {
                if let Some(owner) = routes.find(&datagram)
                    && let Some(worker) = workers.get(owner.worker)
                {
                    // A worker that is behind loses it, as a network would.
                    let _ = worker.try_send(Command::Datagram(owner.session, datagram));
                }
            })
            .await;
        if let Err(error) = received {
            // For example that nobody listens where something was sent to.
            tracing::debug!(%error, "the WebRTC port");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The same port number by UDP and by TCP.
fn bind_both(listen: SocketAddr) -> io::Result<(Socket, TcpListener)> {
    // If the system chooses one, it may be taken by the other protocol.
    let mut tries = if listen.port() == 0 { 20 } else { 1 };
    loop {
        tries -= 1;
        let socket = Socket::bind(listen)?;
        let address = socket.address();
        let listener = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        match listener {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

impl WebRtcServer {
    /// Binds the port and starts the workers, on the current tokio runtime.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn start(options: WebRtcOptions, sessions: Sessions) -> Result<Self, WebRtcError> {
        let bind = |error| WebRtcError::Bind { address: options.listen, error };
        let (socket, listener) = bind_both(options.listen).map_err(bind)?;
        let port = Port { socket: Arc::new(socket), links: Arc::default(), relays: None };
        let socket = port.socket.clone();
        let certificate = str0m::crypto::from_feature_flags()
            .dtls_provider
            .generate_certificate()
            .ok_or(WebRtcError::Certificate)?;
        let identity = Identity {
            certificate,
            candidates: candidates(socket.address(), &options.public_addresses),
            public: options.public_addresses.clone(),
        };
        let (routes, cancel) = (Arc::new(Routes::default()), CancellationToken::new());
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
        let (handles, workers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| Worker::new(routes.clone(), port.clone())).unzip();
        let handles: Arc<[WorkerHandle]> = handles.into();
        let mut tasks: Vec<JoinHandle<()>> =
            workers.into_iter().map(|worker| tokio::spawn(worker.run(cancel.clone()))).collect();
        tasks.push(tokio::spawn(receive(socket.clone(), routes.clone(), handles.clone())));
        let connections = tcp::Shared {
            links: port.links,
            routes: routes.clone(),
            workers: handles.clone(),
            max_connections: options.max_sessions.saturating_mul(2),
        };
        tasks.push(tokio::spawn(tcp::run(listener, connections)));
        let shared = Shared {
            options,
            socket,
            routes,
            workers: handles,
            feeds: Arc::default(),
            renditions: Renditions::default(),
            identity,
            sessions,
            open: Arc::default(),
            next_worker: AtomicUsize::new(0),
            tokens: Arc::default(),
            tasks: TaskTracker::new(),
            cancel,
        };
        Ok(Self { shared: Arc::new(shared), tasks: Mutex::new(tasks) })
    }

    /// Where media arrives and leaves.
    pub fn address(&self) -> SocketAddr {
        self.shared.socket.address()
    }

    /// What it was made with.
    pub fn options(&self) -> &WebRtcOptions {
        &self.shared.options
    }

    /// Sessions that last.
    pub fn len(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values of `Link` headers that tell clients of STUN and TURN servers.
    pub fn ice_links(&self) -> Vec<String> {
        let now = WallTime::now();
        self.shared.options.ice_servers.iter().map(|server| server.link(now)).collect()
    }

    fn place(&self) -> Result<Place, SessionError> {
        if self.shared.cancel.is_cancelled() {
            return Err(SessionError::Closed);
        }
        let max = self.shared.options.max_sessions;
        let take = |open: usize| (open < max).then_some(open + 1);
        if self.shared.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(SessionError::TooMany(max));
        }
        let random = || crate::auth::unpredictable();
        let token = format!("{:016x}{:016x}", random(), random());
        Ok(Place { open: self.shared.open.clone(), tokens: self.shared.tokens.clone(), token })
    }

    /// Answers somebody who wants to watch what goes through this hub. The session begins when the client connects, or
    /// ends after a while. A client whose line is too thin gets the first of the lower streams that it can play.
    ///
    /// # Errors
    /// If the offer is none, or nothing in it goes with the stream, or there are too many sessions.
    pub async fn watch(
        &self,
        request: SessionRequest<'_>,
        hub: &Hub,
        lower: Vec<LowerStream>,
    ) -> Result<OpenedSession, SessionError> {
        let shared = &self.shared;
        let offer = with_ports(request.offer);
        let request = SessionRequest { offer: &offer, ..request };
        let place = self.place()?;
        let tracks = tracks(hub).await.ok_or(SessionError::NoTracks)?;
        let feed = shared.feeds.get(&request.stream, hub, &tracks, &shared.workers);
        feed.look(LOOK_TIMEOUT).await;
        let found = plan(request.offer, &tracks, feed.shared.reorders());
        let is_seen = tracks.iter().any(|t| t.parameters.video().is_some());
        let misses = match &found {
            Ok(plan) => plan.video.is_none() && is_seen && wants_video(request.offer),
            Err(error) => matches!(error, NegotiationError::NoCommonCodec(_)) && is_seen,
        };
        let (plan, instead) = match misses && shared.options.transcode == Transcode::Auto {
            true => {
                self.transcoded(&request, hub, &tracks).await.map_or(found.map(|plan| (plan, None)), Ok)?
            }
            false => (found?, None),
        };
        let params = plan.video.iter().chain(&plan.audio).map(|chosen| chosen.params).collect();
        let answered = answer(&shared.identity, request.offer, params, plan.feedback)?;
        let counters = Arc::new(Counters::default());
        let stats = counters.clone();
        let opening = Opening {
            kind: SessionKind::Reader,
            stats: Arc::new(move || stats.stats()),
            left_out: plan.left_out,
            answered,
            place,
        };
        let lower = (!lower.is_empty() && plan.video.is_some() && instead.is_none()).then(|| Lower {
            streams: lower,
            offer: request.offer.into(),
            feeds: shared.feeds.clone(),
            workers: shared.workers.clone(),
        });
        let to_opus = plan.audio.as_ref().is_some_and(|chosen| chosen.to_opus);
        let teller = shared
            .options
            .events
            .then(|| Teller::new(shared.sessions.events().clone(), request.stream.clone()));
        let role = |owner: Owner, _: &WorkerHandle| {
            Role::Viewer(Box::new(Viewer::new(NewViewer {
                watch: feed.watch(owner.worker, to_opus),
                video: plan.video,
                audio: plan.audio,
                counters,
                queue_bytes: shared.options.queue_bytes,
                lower,
                instead: instead.map(|(feed, hold)| (feed.watch(owner.worker, false), hold)),
                mids: Vec::new(),
                teller,
            })))
        };
        self.open(request, opening, role).await
    }

    /// What goes with an offer if the picture is encoded anew; none if that cannot be.
    async fn transcoded(
        &self,
        request: &SessionRequest<'_>,
        hub: &Hub,
        own: &[crate::frame::Track],
    ) -> Option<(Plan, Option<(Arc<Feed>, Arc<Rendition>)>)> {
        let shared = &self.shared;
        let made = shared.renditions.get(&request.stream, hub, &shared.tasks).await;
        let (rendition, tracks) = made?;
        let mixed: Vec<_> =
            tracks.iter().chain(own.iter().filter(|t| t.parameters.video().is_none())).cloned().collect();
        let plan = plan(request.offer, &mixed, false).ok()?;
        plan.video.as_ref()?;
        let name = format!("{} (transcoded)", request.stream).into();
        let feed = shared.feeds.get(&name, &rendition.hub, &tracks, &shared.workers);
        feed.look(LOOK_TIMEOUT).await;
        Some((plan, Some((feed, rendition))))
    }

    /// Answers somebody who wants to be the source of a stream. It becomes that when it connects.
    ///
    /// # Errors
    /// If the offer is none, or nothing in it can be taken, somebody else publishes and is not to be replaced, or there are
    /// too many sessions.
    pub async fn publish(
        &self,
        request: SessionRequest<'_>,
        slot: PublishSlot,
    ) -> Result<OpenedSession, SessionError> {
        let shared = &self.shared;
        let offer = with_ports(request.offer);
        let request = SessionRequest { offer: &offer, ..request };
        let place = self.place()?;
        slot.check()?;
        let intake = intake(request.offer)?;
        let tracks: Vec<&Incoming> = intake.video.iter().chain(&intake.audio).collect();
        let descriptions: Vec<Description> = tracks.iter().map(|t| t.description.clone()).collect();
        let receiver = Receiver::new(&descriptions, REORDER)
            .map_err(|e| NegotiationError::NoCommonCodec(e.to_string()))?;
        let params = tracks.iter().map(|t| t.params).collect();
        let answered = answer(&shared.identity, &one_way(request.offer), params, Feedback::TransportWide)?;
        let counters = Arc::new(Intaken::default());
        let stats = counters.clone();
        let opening = Opening {
            kind: SessionKind::Publisher,
            stats: Arc::new(move || stats.stats()),
            left_out: intake.left_out,
            answered,
            place,
        };
        let by = format!("webrtc {}", request.peer);
        let role = |owner: Owner, worker: &WorkerHandle| {
            let new = NewPublisher {
                owner,
                worker: worker.clone(),
                receiver,
                into: Into::Slot(slot),
                by,
                counters,
                keyframe_interval: shared.options.keyframe_interval,
            };
            let (publisher, task) = Publisher::new(&tracks, new);
            shared.tasks.spawn(task);
            Role::Publisher(publisher)
        };
        self.open(request, opening, role).await
    }

    /// Begins a session that has been answered.
    async fn open(
        &self,
        request: SessionRequest<'_>,
        opening: Opening,
        role: impl FnOnce(Owner, &WorkerHandle) -> Role,
    ) -> Result<OpenedSession, SessionError> {
        let shared = &self.shared;
        let worker = shared.next_worker.fetch_add(1, Ordering::Relaxed) % shared.workers.len();
        let handle = shared.workers.get(worker).ok_or(SessionError::Closed)?;
        let guard = shared.sessions.open(
            NewSession {
                protocol: "webrtc",
                kind: opening.kind,
                stream: request.stream.clone(),
                address: request.peer,
                user: request.user,
                user_agent: request.user_agent,
                transport: "udp",
            },
            opening.stats,
        );
        guard.leaves_out(opening.left_out.iter().map(ToString::to_string).collect());
        let owner = Owner { worker, session: guard.id() };
        let token = opening.place.token.clone();
        shared.tokens.lock().insert(token.clone(), Known { stream: request.stream, owner, restarts: 0 });
        shared.routes.add(opening.answered.name.clone(), owner);
        let peer = Peer::new(NewPeer {
            owner,
            rtc: opening.answered.rtc,
            offer: opening.answered.offer,
            name: opening.answered.name,
            guard,
            timeout: shared.options.session_timeout,
            leaves: "the client has left",
            place: Box::new(opening.place),
        });
        let session = Session::new(peer, role(owner, handle));
        handle.send(Command::Add(Box::new(session))).await.map_err(|()| SessionError::Closed)?;
        Ok(OpenedSession {
            session: owner.session,
            token,
            answer: opening.answered.sdp,
            left_out: opening.left_out,
        })
    }

    /// Names and addresses that are known, and datagrams that were nobody's or that the system did not take.
    pub fn port_stats(&self) -> PortStats {
        let (names, addresses) = self.shared.routes.len();
        PortStats {
            names,
            addresses,
            strays: self.shared.routes.strays(),
            refused: self.shared.socket.refused(),
        }
    }

    /// Says goodbye to all viewers and lets go of the port.
    pub async fn stop(&self) {
        self.shared.cancel.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for (number, task) in tasks.into_iter().enumerate() {
            if number < self.shared.workers.len() {
                let abort = task.abort_handle();
                if tokio::time::timeout(STOP_TIMEOUT, task).await.is_err() {
                    abort.abort();
                }
            } else {
                task.abort();
                // It ends at its next await.
                let _ = task.await;
            }
        }
        // Their sessions are gone, which they notice.
        self.shared.tasks.close();
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.shared.tasks.wait()).await;
    }
}

/// What happens at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// ICE names of sessions.
    pub names: usize,
    /// Addresses that belong to sessions.
    pub addresses: usize,
    /// Datagrams that belonged to nobody.
    pub strays: u64,
    /// Datagrams that the system did not take.
    pub refused: u64,
}

/// The tracks of a stream, as soon as there are some.
pub(super) async fn tracks(hub: &Hub) -> Option<Arc<[crate::frame::Track]>> {
    let now = hub.tracks();
    if !now.is_empty() {
        return Some(now);
    }
    let mut reader =
        hub.subscribe("webrtc start", ReaderOptions { start: StartAt::NextKeyframe, ..Default::default() });
    tokio::time::timeout(hub.start_timeout(), reader.tracks()).await.ok().flatten()
}
