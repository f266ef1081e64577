//! What a client wants and gets: the state machine of RFC 2326 appendix A.
//!
//! ```text
//! Init ── SETUP ─► Ready (reader) ── PLAY ─► Playing ── PAUSE ─► Ready
//! Init ── ANNOUNCE ─► Announced ── SETUP … RECORD ─► Recording
//! any ── TEARDOWN ─► Init
//! ```

use super::FoundStream;
use super::feed::{Feed, FirstPacket, Reader, Way};
use super::message::Answer;
use super::outlet::{Outlet, QueueRule, Sent};
use super::publish::Publishing;
use super::server::Shared;
use super::udp::{Datagram, Registration, UdpOutlet, canonical};
use crate::auth::digest::{Challenges, HeaderError};
use crate::auth::{Access, Action, Credentials, Denied, Grant};
use crate::frame::WallTime;
use crate::hub::HubItem;
use crate::rtp::format::describe;
use crate::rtp::rtcp::{self, Report};
use crate::session::{NewSession, SessionGuard, SessionKind, SessionStats, StatsSource};
use crate::source::PublishError;
use bytes::Bytes;
use parking_lot::Mutex;
use rtsp_types::headers::{self, RtpLowerTransport, RtpProfile, Transport, TransportMode};
use rtsp_types::{HeaderName, Method, Request};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// A wrong password is answered this much later, so that trying many takes long.
const WRONG_CREDENTIALS_DELAY: Duration = Duration::from_secs(1);
const METHODS: &str =
    "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, PAUSE, RECORD, GET_PARAMETER, SET_PARAMETER, TEARDOWN";

/// Whether the connection goes on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    GoOn,
    Close,
}

/// What an address asks for.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    stream: String,
    /// What stands behind the stream's name: `trackID=0`.
    control: Option<String>,
    query: Option<String>,
}

/// How a track's media travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    Tcp { rtp: u8, rtcp: u8 },
    Udp { rtp: SocketAddr, rtcp: SocketAddr },
}

/// A client's session.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    outlet: Arc<Outlet>,
    pub(super) protocol: &'static str,
    local: SocketAddr,
    pub(super) peer: SocketAddr,
    challenges: Challenges,
    /// What has been allowed on this connection.
    granted: Option<(Action, String, Grant)>,
    user_agent: Option<String>,
    id: Option<String>,
    role: Role,
    /// Datagrams for this session.
    inbox: Option<(mpsc::Sender<Datagram>, mpsc::Receiver<Datagram>)>,
    heard_by_udp: Instant,
}

enum Role {
    None,
    Reader(Box<Reading>),
    Publisher(Box<Publishing>),
}

struct Reading {
    stream: FoundStream,
    feed: Arc<Feed>,
    ended: watch::Receiver<Option<&'static str>>,
    setups: Vec<Option<Setup>>,
    reports: Arc<Mutex<SessionStats>>,
    playing: Option<Playing>,
}

struct Playing {
    reader: Arc<Reader>,
    guard: SessionGuard,
    udp: Option<Arc<UdpOutlet>>,
    _registration: Option<Registration>,
}

type Reply = Result<Answer, Answer>;

impl Session {
    pub(super) fn new(
        shared: Arc<Shared>,
        outlet: Arc<Outlet>,
        protocol: &'static str,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Self {
        let challenges = Challenges::new(&shared.options.auth_methods, shared.options.nonce_lifetime);
        Self {
            shared,
            outlet,
            protocol,
            local,
            peer,
            challenges,
            granted: None,
            user_agent: None,
            id: None,
            role: Role::None,
            inbox: None,
            heard_by_udp: Instant::now(),
        }
    }

    pub(super) fn is_publishing(&self) -> bool {
        matches!(self.role, Role::Publisher(_))
    }

    /// Whether it shows without requests that the client is there: it takes what is sent by TCP, or sends.
    pub(super) fn is_alive_by_itself(&self) -> bool {
        match &self.role {
            Role::Reader(reading) => reading.playing.as_ref().is_some_and(|p| p.udp.is_none()),
            // Its stream's supervisor watches for silence.
            Role::Publisher(publishing) => publishing.is_recording(),
            Role::None => false,
        }
    }

    /// How long nothing has come by UDP.
    pub(super) fn silence(&self) -> Duration {
        self.heard_by_udp.elapsed()
    }

    /// Answers a request.
    pub(super) async fn request(&mut self, request: &Request<Vec<u8>>, outlet: &Outlet) -> After {
        let header = |name: &HeaderName| request.header(name).map(|v| v.as_str().trim().to_owned());
        let sequence =
            header(&headers::CSEQ).filter(|s| s.len() <= 10 && s.bytes().all(|b| b.is_ascii_digit()));
        let Some(sequence) = sequence else {
            outlet.control(bad("CSeq is missing or no number").into_bytes(None, None));
            return After::GoOn;
        };
        if self.user_agent.is_none() {
            self.user_agent = header(&headers::USER_AGENT)
                .map(|a| a.chars().filter(|c| !c.is_control()).take(100).collect());
        }
        let result = self.dispatch(request, &sequence).await;
        let (answer, sent) = match result {
            Ok(Some(answer)) | Err(answer) => (answer, false),
            // PLAY answers by itself, in front of the first packet.
            Ok(None) => (Answer::ok(), true),
        };
        if answer.status() >= 400 {
            tracing::debug!(peer = %self.peer, method = ?request.method(), status = answer.status(), reason = answer.reason(), "refused");
        }
        if !sent {
            let session = self.session_header();
            outlet.control(answer.into_bytes(Some(&sequence), session.as_deref()));
        }
        if *request.method() == Method::Teardown {
            self.finish(None);
        }
        After::GoOn
    }

    fn session_header(&self) -> Option<String> {
        let seconds = self.shared.options.session_timeout.as_secs();
        self.id.as_ref().map(|id| format!("{id};timeout={seconds}"))
    }

    async fn dispatch(
        &mut self,
        request: &Request<Vec<u8>>,
        sequence: &str,
    ) -> Result<Option<Answer>, Answer> {
        if let Some(required) = request.header(&headers::REQUIRE) {
            return Err(Answer::new(551, "Option Not Supported").header("Unsupported", required.as_str()));
        }
        let method = request.method();
        // Only these begin something; the others belong to a session.
        if !matches!(method, Method::Options | Method::Describe | Method::Announce | Method::Setup) {
            self.check_session(request)?;
        }
        match method {
            Method::Options => Ok(Some(Answer::ok().header("Public", METHODS))),
            Method::Describe => self.describe(request).await.map(Some),
            Method::Announce => self.announce(request).await.map(Some),
            Method::Setup => self.setup(request).await.map(Some),
            Method::Play => self.play(request, sequence),
            Method::Pause => self.pause().map(Some),
            Method::Record => self.record().await.map(Some),
            Method::Teardown => Ok(Some(Answer::ok())),
            Method::GetParameter | Method::SetParameter if request.body().is_empty() => {
                Ok(Some(Answer::ok()))
            }
            Method::GetParameter | Method::SetParameter => Err(Answer::new(451, "Parameter Not Understood")),
            _ => Err(Answer::new(501, "Not Implemented").header("Public", METHODS)),
        }
    }

    fn check_session(&self, request: &Request<Vec<u8>>) -> Result<(), Answer> {
        let given = request
            .header(&headers::SESSION)
            .map(|v| v.as_str().split(';').next().unwrap_or_default().trim().to_owned());
        match (&self.id, given) {
            // Keepalives without a session are common.
            (None, None) if matches!(request.method(), Method::GetParameter | Method::SetParameter) => Ok(()),
            (None, None) => Err(Answer::new(455, "Method Not Valid in This State")),
            (Some(id), Some(given)) if *id != given => Err(Answer::new(454, "Session Not Found")),
            (None, Some(_)) => Err(Answer::new(454, "Session Not Found")),
            _ => Ok(()),
        }
    }

    /// Who asks, and whether they may.
    async fn authorize(
        &mut self,
        action: Action,
        target: &Target,
        request: &Request<Vec<u8>>,
    ) -> Result<Grant, Answer> {
        if let Some((granted, stream, grant)) = &self.granted
            && *granted == action
            && *stream == target.stream
        {
            return Ok(grant.clone());
        }
        let method: &str = request.method().into();
        let credentials = match request.header(&headers::AUTHORIZATION) {
            None => Credentials::None,
            Some(header) => match self.challenges.read(header.as_str(), method) {
                Ok(credentials) => credentials,
                Err(HeaderError::Stale) => return Err(self.challenge(true)),
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "credentials cannot be used");
                    return Err(self.challenge(false));
                }
            },
        };
        let access = Access {
            action,
            stream: &target.stream,
            address: self.peer.ip().to_canonical(),
            protocol: self.protocol,
            query: target.query.as_deref(),
            credentials: &credentials,
        };
        match self.shared.authorizer.authorize(&access).await {
            Ok(grant) => {
                self.granted = Some((action, target.stream.clone(), grant.clone()));
                Ok(grant)
            }
            Err(Denied::Anonymous) => Err(self.challenge(false)),
            Err(Denied::WrongCredentials) => {
                tracing::warn!(peer = %self.peer, user = credentials.user(), "wrong credentials");
                tokio::time::sleep(WRONG_CREDENTIALS_DELAY).await;
                Err(self.challenge(false))
            }
            Err(Denied::Limited { wait }) => Err(Answer::new(503, "Too Many Failed Attempts")
                .header("Retry-After", wait.as_secs().max(1).to_string())),
            Err(denied) => Err(Answer::new(403, format!("Forbidden: {denied}"))),
        }
    }

    fn challenge(&mut self, stale: bool) -> Answer {
        self.challenges
            .headers(stale)
            .into_iter()
            .fold(Answer::new(401, "Unauthorized"), |answer, line| answer.header("WWW-Authenticate", line))
    }

    async fn describe(&mut self, request: &Request<Vec<u8>>) -> Reply {
        let target = target(request, |_| false)?;
        self.authorize(Action::Read, &target, request).await?;
        let accepts = request.header(&headers::ACCEPT).is_none_or(|accept| {
            let text = accept.as_str().to_ascii_lowercase();
            ["application/sdp", "application/*", "*/*"].iter().any(|kind| text.contains(kind))
        });
        if !accepts {
            return Err(Answer::new(406, "Not Acceptable"));
        }
        let stream = self.wait_for_tracks(&target).await?;
        let tracks = stream.hub.tracks();
        let sdp = describe(&tracks, self.local.ip().to_canonical(), &stream.id);
        Ok(Answer::ok().header("Content-Base", content_base(request)).body("application/sdp", sdp))
    }

    /// The stream, once its tracks are known.
    async fn wait_for_tracks(&self, target: &Target) -> Result<FoundStream, Answer> {
        let not_found = || Answer::new(404, "Stream Not Found");
        let stream = self.shared.streams.find(&target.stream).ok_or_else(not_found)?;
        if stream.idle {
            return Err(Answer::new(404, "Stream Not Found: nobody publishes it at the moment"));
        }
        if !stream.hub.tracks().is_empty() {
            return Ok(stream);
        }
        let mut reader = stream.hub.subscribe("rtsp (waiting)", Default::default());
        let tracks = async {
            while let Some(item) = reader.next().await {
                if let HubItem::Tracks(_) = item {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(self.shared.options.start_timeout, tracks).await {
            Ok(true) => Ok(stream),
            Ok(false) => Err(not_found()),
            Err(_) => Err(Answer::new(503, "Service Unavailable: the stream's source sends nothing")),
        }
    }

    async fn announce(&mut self, request: &Request<Vec<u8>>) -> Reply {
        if !matches!(self.role, Role::None) {
            return Err(Answer::new(455, "Method Not Valid in This State"));
        }
        let target = target(request, |_| false)?;
        let grant = self.authorize(Action::Publish, &target, request).await?;
        let kind = request.header(&headers::CONTENT_TYPE).map_or("", |v| v.as_str());
        if !kind.trim().to_ascii_lowercase().starts_with("application/sdp") {
            return Err(Answer::new(415, "Unsupported Media Type: expected application/sdp"));
        }
        let slot = self.shared.streams.publish(&target.stream).map_err(|e| refused(&e))?;
        slot.check().map_err(|e| refused(&e))?;
        let publishing = Publishing::new(&target.stream, request.body(), slot, grant.user)?;
        self.role = Role::Publisher(Box::new(publishing));
        self.begin();
        Ok(Answer::ok())
    }

    /// Gives the session its name.
    fn begin(&mut self) {
        self.id.get_or_insert_with(|| format!("{:016x}", fastrand::u64(..)));
    }

    async fn setup(&mut self, request: &Request<Vec<u8>>) -> Reply {
        if self.id.is_some() {
            // A session that is there has to be named, if the client names one at all.
            self.check_session(request)?;
        } else if request.header(&headers::SESSION).is_some() {
            return Err(Answer::new(454, "Session Not Found"));
        }
        let transports = request
            .typed_header::<headers::Transports>()
            .map_err(|_| bad("the Transport header cannot be read"))?
            .ok_or_else(|| bad("the Transport header is missing"))?;
        match &mut self.role {
            Role::Publisher(publishing) => {
                let url = request.request_uri().map_or("", |u| u.as_str());
                let track = publishing.track(url)?;
                let taken = publishing.setups().to_vec();
                let (setup, transport) = self.choose(&transports, track, &taken, true)?;
                if let Role::Publisher(publishing) = &mut self.role {
                    publishing.set_up(track, setup);
                }
                Ok(Answer::ok().header("Transport", transport))
            }
            Role::Reader(reading) => {
                if reading.playing.is_some() {
                    return Err(Answer::new(455, "Method Not Valid in This State"));
                }
                let target = target(request, is_track)?;
                if *target.stream != *reading.stream.id {
                    return Err(Answer::new(459, "Aggregate Operation Not Allowed"));
                }
                self.set_up_reader(&target, &transports)
            }
            Role::None => {
                let target = target(request, is_track)?;
                self.authorize(Action::Read, &target, request).await?;
                let stream = self.wait_for_tracks(&target).await?;
                let tracks = stream.hub.tracks();
                let feed = self.shared.feeds.get(&stream.id, &stream.hub, &tracks);
                let reading = Reading {
                    ended: feed.ended(),
                    setups: vec![None; feed.tracks().len()],
                    stream,
                    feed,
                    reports: Arc::default(),
                    playing: None,
                };
                self.role = Role::Reader(Box::new(reading));
                let reply = self.set_up_reader(&target, &transports);
                match reply {
                    Ok(_) => self.begin(),
                    Err(_) => self.role = Role::None,
                }
                reply
            }
        }
    }

    fn set_up_reader(&mut self, target: &Target, transports: &headers::Transports) -> Reply {
        let Role::Reader(reading) = &self.role else {
            return Err(Answer::new(455, "Method Not Valid in This State"));
        };
        let count = reading.setups.len();
        let track = match target.control.as_deref().map(|c| c.trim_start_matches("trackID=").parse::<usize>())
        {
            Some(Ok(track)) if track < count => track,
            // The whole address of a stream that has one track only.
            None if count == 1 => 0,
            _ => return Err(Answer::new(404, "Not Found: the stream has no such track")),
        };
        let (taken, ssrc) = (reading.setups.clone(), reading.feed.ssrc(track));
        let (setup, transport) = self.choose(transports, track, &taken, false)?;
        if let Role::Reader(reading) = &mut self.role {
            reading.setups[track] = Some(setup);
        }
        let ssrc = ssrc.map(|s| format!(";ssrc={s:08X}")).unwrap_or_default();
        Ok(Answer::ok().header("Transport", transport + &ssrc))
    }

    /// The first of the client's transports that will do, and how it is confirmed.
    fn choose(
        &self,
        transports: &headers::Transports,
        track: usize,
        taken: &[Option<Setup>],
        record: bool,
    ) -> Result<(Setup, String), Answer> {
        let unsupported = || Answer::new(461, "Unsupported Transport");
        let mode = if record { ";mode=record" } else { "" };
        let others = || taken.iter().enumerate().filter(|(n, _)| *n != track).filter_map(|(_, s)| *s);
        let mut problem = None;
        for transport in transports.iter() {
            let Transport::Rtp(transport) = transport else { continue };
            let params = &transport.params;
            // Publishers that say no mode mean the only one that makes sense; a wrong one is wrong.
            let wrong = if record { TransportMode::Play } else { TransportMode::Record };
            if transport.profile != RtpProfile::Avp || params.multicast || params.mode.contains(&wrong) {
                continue;
            }
            match transport.lower_transport {
                Some(RtpLowerTransport::Tcp) if self.shared.options.tcp => {
                    if others().any(|s| matches!(s, Setup::Udp { .. })) {
                        continue;
                    }
                    let used = |channel: u8| {
                        others().any(
                            |s| matches!(s, Setup::Tcp { rtp, rtcp } if rtp == channel || rtcp == channel),
                        )
                    };
                    let (rtp, rtcp) = match params.interleaved {
                        Some((rtp, rtcp)) => (rtp, rtcp.or_else(|| rtp.checked_add(1))),
                        None => {
                            let free = (0..=254u8).step_by(2).find(|c| !used(*c) && !used(*c + 1));
                            let free = free.ok_or_else(unsupported)?;
                            (free, Some(free + 1))
                        }
                    };
                    let Some(rtcp) = rtcp.filter(|rtcp| *rtcp != rtp) else {
                        problem = Some(bad("interleaved needs two different channels from 0 to 255"));
                        continue;
                    };
                    if used(rtp) || used(rtcp) {
                        problem = Some(bad("these interleaved channels are another track's"));
                        continue;
                    }
                    let text = format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp}{mode}");
                    return Ok((Setup::Tcp { rtp, rtcp }, text));
                }
                Some(RtpLowerTransport::Udp) | None if self.protocol == "rtsp" => {
                    let Some(pair) = &self.shared.udp else { continue };
                    if others().any(|s| matches!(s, Setup::Tcp { .. })) {
                        continue;
                    }
                    let Some((first, second)) = params.client_port else { continue };
                    let second = second.or_else(|| first.checked_add(1)).unwrap_or(0);
                    if first == 0 || second == 0 || first == second {
                        problem = Some(bad("client_port needs two different ports"));
                        continue;
                    }
                    let address = self.peer.ip().to_canonical();
                    // Nobody has media sent to somebody else.
                    let foreign = params.destination.as_ref().is_some_and(|d| {
                        d.parse::<std::net::IpAddr>().map(|ip| ip.to_canonical()) != Ok(address)
                    });
                    if foreign {
                        problem = Some(Answer::new(
                            403,
                            "Forbidden: destination has to be the client's own address",
                        ));
                        continue;
                    }
                    let (rtp, rtcp) = (SocketAddr::new(address, first), SocketAddr::new(address, second));
                    let clash = others().any(
                        |s| matches!(s, Setup::Udp { rtp: a, rtcp: b } if [a, b].contains(&rtp) || [a, b].contains(&rtcp)),
                    );
                    if clash {
                        problem = Some(bad("these client ports are another track's"));
                        continue;
                    }
                    let (ours, ours_too) = pair.ports();
                    let text = format!(
                        "RTP/AVP;unicast;client_port={first}-{second};server_port={ours}-{ours_too}{mode}"
                    );
                    return Ok((Setup::Udp { rtp, rtcp }, text));
                }
                _ => {}
            }
        }
        Err(problem.unwrap_or_else(unsupported))
    }

    fn play(&mut self, request: &Request<Vec<u8>>, sequence: &str) -> Result<Option<Answer>, Answer> {
        let session = self.session_header();
        let base = content_base(request);
        let user = self.granted.as_ref().and_then(|(_, _, grant)| grant.user.clone());
        let Role::Reader(reading) = &mut self.role else {
            return Err(Answer::new(455, "Method Not Valid in This State"));
        };
        if reading.playing.is_some() {
            // Some clients do it again to stay alive.
            return Ok(Some(Answer::ok()));
        }
        let setups = reading.setups.clone();
        let udp = setups.iter().flatten().any(|s| matches!(s, Setup::Udp { .. }));
        let queue =
            QueueRule { bytes: self.shared.options.queue_bytes, timeout: self.shared.options.write_timeout };
        let mut registration = None;
        let (way, udp_outlet) = match self.shared.udp.as_ref().filter(|_| udp) {
            Some(pair) => {
                let targets: Vec<_> = setups
                    .iter()
                    .map(|s| match s {
                        Some(Setup::Udp { rtp, rtcp }) => Some((*rtp, *rtcp)),
                        _ => None,
                    })
                    .collect();
                let (inbox, _) = self.inbox.get_or_insert_with(|| mpsc::channel(64));
                let reports: Vec<SocketAddr> = targets.iter().flatten().flat_map(|(a, b)| [*a, *b]).collect();
                let registered = pair.register(&reports, inbox);
                registration = Some(registered.map_err(|_| bad("another session uses these client ports"))?);
                let tracks = targets.iter().map(Option::is_some).collect();
                let outlet = Arc::new(UdpOutlet::new(pair.clone(), targets, queue));
                (Way::Udp(outlet.clone(), tracks), Some(outlet))
            }
            None => {
                let channels = setups
                    .iter()
                    .map(|s| match s {
                        Some(Setup::Tcp { rtp, rtcp }) => Some((*rtp, *rtcp)),
                        _ => None,
                    })
                    .collect();
                (Way::Tcp(self.outlet.clone(), channels), None)
            }
        };
        let stats: StatsSource = {
            let (outlet, udp, reports) = (self.outlet.clone(), udp_outlet.clone(), reading.reports.clone());
            Arc::new(move || {
                let sent = udp.as_ref().map_or_else(|| outlet.stats(), |udp| udp.stats());
                let heard = *reports.lock();
                SessionStats {
                    packets_lost: heard.packets_lost,
                    jitter_ms: heard.jitter_ms,
                    round_trip_ms: heard.round_trip_ms,
                    ..sent
                }
            })
        };
        let guard = self.shared.sessions.open(
            NewSession {
                protocol: self.protocol,
                kind: SessionKind::Reader,
                stream: reading.stream.id.clone(),
                address: canonical(self.peer),
                user,
                user_agent: self.user_agent.clone(),
                transport: if udp { "udp" } else { "tcp" },
            },
            stats,
        );
        let reader = Arc::new(Reader { way });
        let outlet = &self.outlet;
        reading.feed.join(&reader, |first| {
            let info = rtp_info(&base, &setups, &first);
            let answer = Answer::ok().header("RTP-Info", info);
            outlet.control(answer.into_bytes(Some(sequence), session.as_deref()));
        });
        self.heard_by_udp = Instant::now();
        reading.playing = Some(Playing { reader, guard, udp: udp_outlet, _registration: registration });
        Ok(None)
    }

    fn pause(&mut self) -> Reply {
        if let Role::Publisher(publishing) = &mut self.role {
            publishing.pause();
            return Ok(Answer::ok());
        }
        let Role::Reader(reading) = &mut self.role else {
            return Err(Answer::new(455, "Method Not Valid in This State"));
        };
        if let Some(playing) = reading.playing.take() {
            reading.feed.leave(&playing.reader);
            playing.reader.clear();
            playing.guard.ends_because("paused");
        }
        Ok(Answer::ok())
    }

    async fn record(&mut self) -> Reply {
        let Role::Publisher(publishing) = &mut self.role else {
            return Err(Answer::new(455, "Method Not Valid in This State"));
        };
        let inbox = match &self.shared.udp {
            Some(pair) => {
                let (inbox, _) = self.inbox.get_or_insert_with(|| mpsc::channel(2048));
                Some((pair, &*inbox))
            }
            None => None,
        };
        let opening = super::publish::Opening {
            sessions: &self.shared.sessions,
            protocol: self.protocol,
            peer: canonical(self.peer),
            user_agent: self.user_agent.clone(),
        };
        publishing.record(opening, inbox).await?;
        Ok(Answer::ok())
    }

    /// Takes an interleaved packet. What belongs to no track is dropped.
    pub(super) fn data(&mut self, channel: u8, payload: &Bytes) {
        match &mut self.role {
            Role::Publisher(publishing) => publishing.data(channel, payload),
            Role::Reader(reading) => {
                let track = reading
                    .setups
                    .iter()
                    .position(|s| matches!(s, Some(Setup::Tcp { rtcp, .. }) if *rtcp == channel));
                if let Some(track) = track {
                    reading.heard(track, payload);
                }
            }
            Role::None => {}
        }
    }

    /// Something that happens by itself; `Some` is the reason for which the connection has to end. Cancel safe.
    pub(super) async fn event(&mut self) -> Option<String> {
        let inbox = async {
            match &mut self.inbox {
                Some((_, receiver)) => receiver.recv().await,
                None => std::future::pending().await,
            }
        };
        match &mut self.role {
            Role::None => std::future::pending().await,
            Role::Reader(reading) => {
                let Reading { ended, playing, .. } = &mut **reading;
                let Some(playing) = playing else {
                    let reason = ended.wait_for(Option::is_some).await.ok().and_then(|r| *r);
                    return Some(reason.unwrap_or("the stream has ended").into());
                };
                let drain = async {
                    let Some(udp) = &playing.udp else { return std::future::pending().await };
                    loop {
                        match udp.drain() {
                            Sent::Until(due) => tokio::time::sleep_until(due.into()).await,
                            _ => udp.notified().await,
                        }
                    }
                };
                let datagram = tokio::select! {
                    reason = ended.wait_for(Option::is_some) => {
                        let reason = reason.ok().and_then(|r| *r).unwrap_or("the stream has ended");
                        playing.guard.ends_because(reason);
                        return Some(reason.into());
                    }
                    () = playing.guard.kicked() => return Some("ended by request".into()),
                    () = drain => None,
                    datagram = inbox => datagram,
                };
                if let Some(datagram) = datagram {
                    self.heard_by_udp = Instant::now();
                    let track = reading
                        .setups
                        .iter()
                        .position(|s| matches!(s, Some(Setup::Udp { rtcp, .. }) if *rtcp == datagram.from));
                    if let Some(track) = track {
                        reading.heard(track, &datagram.data);
                    }
                }
                None
            }
            Role::Publisher(publishing) => {
                let datagram = tokio::select! {
                    reason = publishing.ended() => return Some(reason),
                    datagram = inbox => datagram?,
                };
                self.heard_by_udp = Instant::now();
                publishing.datagram(&datagram);
                None
            }
        }
    }

    /// Now and then: tells of frames that were dropped, and sends a publisher its reports.
    pub(super) fn tick(&mut self) {
        match &mut self.role {
            Role::Reader(reading) => {
                if let Some(playing) = &reading.playing {
                    let dropped = playing.udp.as_ref().map_or_else(|| self.outlet.dropped(), |u| u.dropped());
                    if dropped > 0 {
                        let reader = format!("{} reader {}", self.protocol, canonical(self.peer));
                        self.shared.streams.lagged(&reading.stream.id, &reader, dropped);
                    }
                }
            }
            Role::Publisher(publishing) => {
                for report in publishing.reports(self.shared.udp.as_ref()) {
                    self.outlet.control(report);
                }
            }
            Role::None => {}
        }
    }

    /// Ends the session, and says why if it was not the client's wish.
    pub(super) fn end(&mut self, reason: Option<String>) {
        self.finish(reason);
    }

    fn finish(&mut self, reason: Option<String>) {
        match std::mem::replace(&mut self.role, Role::None) {
            Role::Reader(mut reading) => {
                if let Some(playing) = reading.playing.take() {
                    reading.feed.leave(&playing.reader);
                    playing.reader.clear();
                    if let Some(reason) = reason {
                        playing.guard.ends_because(reason);
                    }
                }
            }
            Role::Publisher(publishing) => publishing.end(reason),
            Role::None => {}
        }
        self.id = None;
        self.inbox = None;
    }
}

impl Reading {
    /// Takes a receiver's report.
    fn heard(&self, track: usize, data: &[u8]) {
        let Ok(reports) = rtcp::parse(data) else { return };
        let (ssrc, rate) = (self.feed.ssrc(track), self.feed.clock_rate(track).unwrap_or(90_000));
        for report in reports {
            let Report::Reception(reception) = report else { continue };
            if Some(reception.ssrc) != ssrc {
                continue;
            }
            let mut stats = self.reports.lock();
            stats.packets_lost = u64::from(reception.lost & 0x7f_ffff);
            stats.jitter_ms = Some(f64::from(reception.jitter) * 1000.0 / f64::from(rate.max(1)));
            if let Some(trip) = reception.round_trip(WallTime::now()) {
                stats.round_trip_ms = Some(trip.as_secs_f64() * 1000.0);
            }
        }
    }
}

pub(super) fn bad(problem: &str) -> Answer {
    Answer::new(400, format!("Bad Request: {problem}"))
}

pub(super) fn refused(error: &PublishError) -> Answer {
    match error {
        PublishError::NotFound(_) | PublishError::InvalidId(_) => {
            Answer::new(404, format!("Not Found: {error}"))
        }
        PublishError::Busy { .. } | PublishError::HasSource(_) => {
            Answer::new(403, format!("Forbidden: {error}"))
        }
        _ => Answer::new(503, format!("Service Unavailable: {error}")),
    }
}

fn is_track(part: &str) -> bool {
    part.strip_prefix("trackID=").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// What the address of a request names. The control of a track stands at its end: behind the path, or, since many
/// clients add it to the whole address, behind the query.
fn target(request: &Request<Vec<u8>>, is_control: impl Fn(&str) -> bool) -> Result<Target, Answer> {
    let url = request.request_uri().ok_or_else(|| bad("this method needs the address of a stream"))?;
    let decode = |text: &str| -> String {
        // Ids have no characters that are encoded; some clients encode others, such as ~.
        url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let mut path = decode(url.path());
    let mut query = url.query().map(str::to_owned);
    let mut control = None;
    let mut split = |text: &mut String| {
        if let Some((front, last)) = text.trim_end_matches('/').rsplit_once('/')
            && is_control(last)
        {
            control = Some(last.to_owned());
            *text = front.to_owned();
        }
    };
    split(&mut path);
    if let Some(query) = &mut query {
        split(query);
        let trimmed = query.trim_end_matches('/').len();
        query.truncate(trimmed);
    }
    let stream = path.trim_matches('/').to_owned();
    if stream.is_empty() {
        return Err(Answer::new(
            404,
            "Not Found: the address names no stream; expected rtsp://host/<stream>",
        ));
    }
    Ok(Target { stream, control, query })
}

/// The address that tracks' controls are added to.
fn content_base(request: &Request<Vec<u8>>) -> String {
    let mut base = request.request_uri().map_or_else(String::new, |url| {
        let mut url = url.clone();
        // Both can only fail for addresses without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.to_string()
    });
    if !base.ends_with('/') {
        base.push('/');
    }
    base
}

fn rtp_info(base: &str, setups: &[Option<Setup>], first: &[FirstPacket]) -> String {
    let entries: Vec<String> = setups
        .iter()
        .zip(first)
        .enumerate()
        .filter(|(_, (setup, _))| setup.is_some())
        .map(|(track, (_, first))| {
            let time = first.timestamp.map(|t| format!(";rtptime={t}")).unwrap_or_default();
            format!("url={base}trackID={track};seq={}{time}", first.sequence)
        })
        .collect();
    entries.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<Target, u16> {
        let request = Request::builder(Method::Setup, rtsp_types::Version::V1_0)
            .request_uri(url::Url::parse(url).unwrap())
            .build(Vec::new());
        target(&request, is_track).map_err(|a| a.status())
    }

    #[test]
    fn addresses_as_clients_write_them() {
        let expect = |stream: &str, control: Option<&str>, query: Option<&str>| {
            Ok(Target {
                stream: stream.into(),
                control: control.map(Into::into),
                query: query.map(Into::into),
            })
        };
        assert_eq!(of("rtsp://h:8554/cam"), expect("cam", None, None));
        assert_eq!(of("rtsp://h/cam/"), expect("cam", None, None));
        assert_eq!(of("rtsp://h/yard/door/trackID=1"), expect("yard/door", Some("trackID=1"), None));
        assert_eq!(of("rtsp://h/cam?token=a/trackID=0"), expect("cam", Some("trackID=0"), Some("token=a")));
        assert_eq!(of("rtsp://h/cam/?token=a/trackID=0"), expect("cam", Some("trackID=0"), Some("token=a")));
        assert_eq!(of("rtsp://h/cam/trackID=0?token=a"), expect("cam", Some("trackID=0"), Some("token=a")));
        assert_eq!(of("rtsp://h/a%7Eb"), expect("a~b", None, None));
        assert_eq!(of("rtsp://h/cam/trackID=x"), expect("cam/trackID=x", None, None));
        assert_eq!(of("rtsp://h/"), Err(404));
        assert_eq!(of("rtsp://h"), Err(404));
    }
}
