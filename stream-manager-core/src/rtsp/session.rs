//! What a client wants and gets: the state machine of RFC 2326 appendix A.
//!
//! ```text
//! Init ── SETUP ─► Ready (reader) ── PLAY ─► Playing ── PAUSE ─► Ready
//! Init ── ANNOUNCE ─► Announced ── SETUP … RECORD ─► Recording
//! any ── TEARDOWN ─► Init
//! ```

use super::FoundStream;
use super::access::Gate;
use super::address::{Controls, Target, content_base, is_track, target};
use super::message::Answer;
use super::outlet::{Outlet, QueueRule};
use super::publish::Publishing;
use super::range::{self, Wanted};
use super::reading::{Play, Reading};
use super::replay::{Begun, Replay};
use super::server::Shared;
use super::transport::Possible;
use super::udp::{Datagram, canonical};
use crate::auth::{Action, unpredictable};
use crate::hub::HubItem;
use crate::rtp::format::describe_at;
use crate::session::{NewSession, SessionGuard, SessionKind, Sessions, StatsSource};
use crate::source::PublishError;
use bytes::Bytes;
use rtsp_types::headers;
use rtsp_types::{HeaderName, Method, Request};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const METHODS: &str =
    "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, PAUSE, RECORD, GET_PARAMETER, SET_PARAMETER, TEARDOWN";

/// Datagrams that wait for a session's task; more are dropped. A publisher's keyframe has hundreds.
const INBOX: usize = 2048;

/// How long the last datagrams of a publisher may take beyond its TEARDOWN, at most.
const LAST_DATAGRAMS: Duration = Duration::from_millis(500);

/// What a session is opened with.
pub(super) struct Opening<'a> {
    pub(super) sessions: &'a Sessions,
    pub(super) protocol: &'static str,
    pub(super) peer: SocketAddr,
    pub(super) user: Option<String>,
    pub(super) user_agent: Option<String>,
}

impl Opening<'_> {
    pub(super) fn open(
        self,
        kind: SessionKind,
        stream: &Arc<str>,
        udp: bool,
        stats: StatsSource,
    ) -> SessionGuard {
        let new = NewSession {
            protocol: self.protocol,
            kind,
            stream: stream.clone(),
            address: self.peer,
            user: self.user,
            user_agent: self.user_agent,
            transport: if udp { "udp" } else { "tcp" },
        };
        self.sessions.open(new, stats)
    }
}

/// A client's session.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    outlet: Arc<Outlet>,
    pub(super) protocol: &'static str,
    local: SocketAddr,
    pub(super) peer: SocketAddr,
    gate: Gate,
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

type Reply = Result<Answer, Answer>;

impl Session {
    pub(super) fn new(
        shared: Arc<Shared>,
        outlet: Arc<Outlet>,
        protocol: &'static str,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Self {
        let gate = Gate::new(&shared, protocol, peer);
        Self {
            shared,
            outlet,
            protocol,
            local,
            peer,
            gate,
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
            Role::Reader(reading) => reading.plays_by_tcp(),
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
    pub(super) async fn request(&mut self, request: &Request<Vec<u8>>) {
        let header = |name: &HeaderName| request.header(name).map(|v| v.as_str().trim().to_owned());
        let sequence =
            header(&headers::CSEQ).filter(|s| s.len() <= 10 && s.bytes().all(|b| b.is_ascii_digit()));
        let Some(sequence) = sequence else {
            return self.outlet.control(bad("CSeq is missing or no number").into_bytes(None, None));
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
        let refused = answer.status() >= 400;
        if refused {
            tracing::debug!(peer = %self.peer, method = ?request.method(), status = answer.status(), reason = answer.reason(), "refused");
        }
        if !sent {
            let session = self.session_header();
            self.outlet.control(answer.into_bytes(Some(&sequence), session.as_deref()));
        }
        if *request.method() == Method::Teardown && !refused {
            self.take_last_datagrams().await;
            self.end(None);
        }
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
            Method::Play => self.play(request, sequence).await,
            Method::Pause => {
                self.take_last_datagrams().await;
                self.pause().await.map(Some)
            }
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

    async fn describe(&mut self, request: &Request<Vec<u8>>) -> Reply {
        let target = target(request, |_| false)?;
        let recorded = range::recorded(target.query.as_deref())?;
        let action = if recorded.is_some() { Action::Playback } else { Action::Read };
        self.gate.authorize(&self.shared, action, &target, request).await?;
        let accepts = request.header(&headers::ACCEPT).is_none_or(|accept| {
            let text = accept.as_str().to_ascii_lowercase();
            ["application/sdp", "application/*", "*/*"].iter().any(|kind| text.contains(kind))
        });
        if !accepts {
            return Err(Answer::new(406, "Not Acceptable"));
        }
        let (host, controls) = (self.local.ip().to_canonical(), Controls::of(request));
        let control = |number| controls.described(number);
        let sdp = match recorded {
            None => {
                let stream = self.wait_for_tracks(&target).await?;
                describe_at(&stream.hub.tracks(), host, &stream.id, control)
            }
            Some(recorded) => {
                let replay = Replay::open(&self.shared, &target.stream, recorded).await?;
                let sdp = describe_at(replay.tracks(), host, replay.stream(), control);
                with_range(&sdp, &replay.range())
            }
        };
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
        let limit = self.shared.options.start_timeout.max(stream.hub.start_timeout());
        match tokio::time::timeout(limit, tracks).await {
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
        self.gate.authorize(&self.shared, Action::Publish, &target, request).await?;
        let kind = request.header(&headers::CONTENT_TYPE).map_or("", |v| v.as_str());
        if !kind.trim().to_ascii_lowercase().starts_with("application/sdp") {
            return Err(Answer::new(415, "Unsupported Media Type: expected application/sdp"));
        }
        let slot = self.shared.streams.publish(&target.stream).map_err(|e| refused(&e))?;
        slot.check().map_err(|e| refused(&e))?;
        let publishing = Publishing::new(&target.stream, request.body(), slot)?;
        self.role = Role::Publisher(Box::new(publishing));
        self.begin();
        Ok(Answer::ok())
    }

    /// Gives the session its name.
    fn begin(&mut self) {
        self.id.get_or_insert_with(|| format!("{:016x}", unpredictable()));
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
                let (setup, transport) = self.possible(true).choose(&transports, track, &taken)?;
                if let Role::Publisher(publishing) = &mut self.role {
                    publishing.set_up(track, setup);
                }
                Ok(Answer::ok().header("Transport", transport))
            }
            Role::Reader(reading) => {
                if reading.is_playing() {
                    return Err(Answer::new(455, "Method Not Valid in This State"));
                }
                let target = target(request, is_track)?;
                if *target.stream != **reading.stream() {
                    return Err(Answer::new(459, "Aggregate Operation Not Allowed"));
                }
                self.set_up_reader(&target, &transports)
            }
            Role::None => {
                let target = target(request, is_track)?;
                let recorded = range::recorded(target.query.as_deref())?;
                let action = if recorded.is_some() { Action::Playback } else { Action::Read };
                self.gate.authorize(&self.shared, action, &target, request).await?;
                let reading = match recorded {
                    None => {
                        let stream = self.wait_for_tracks(&target).await?;
                        let feed = self.shared.feeds.get(&stream.id, &stream.hub, &stream.hub.tracks());
                        Reading::new(stream, feed)
                    }
                    Some(recorded) => {
                        Reading::recorded(Replay::open(&self.shared, &target.stream, recorded).await?)
                    }
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

    fn possible(&self, record: bool) -> Possible<'_> {
        let options = &self.shared.options;
        // Media that nobody protects is not sent beside TLS.
        let udp = self.shared.udp.as_ref().filter(|_| self.protocol == "rtsp");
        Possible { tcp: options.tcp, udp, peer: self.peer, record }
    }

    fn set_up_reader(&mut self, target: &Target, transports: &headers::Transports) -> Reply {
        let Role::Reader(reading) = &self.role else {
            return Err(Answer::new(455, "Method Not Valid in This State"));
        };
        let track = reading.track(target.control.as_deref())?;
        let taken = reading.setups().to_vec();
        let (setup, mut transport) = self.possible(false).choose(transports, track, &taken)?;
        if let Role::Reader(reading) = &mut self.role
            && let Some(ssrc) = reading.set_up(track, setup)
        {
            transport += &format!(";ssrc={ssrc:08X}");
        }
        Ok(Answer::ok().header("Transport", transport))
    }

    fn opening(&self) -> Opening<'_> {
        Opening {
            sessions: &self.shared.sessions,
            protocol: self.protocol,
            peer: canonical(self.peer),
            user: self.gate.user(),
            user_agent: self.user_agent.clone(),
        }
    }

    async fn play(&mut self, request: &Request<Vec<u8>>, sequence: &str) -> Result<Option<Answer>, Answer> {
        let wanted = Wanted::of(request)?;
        let (session, controls) = (self.session_header(), Controls::of(request));
        let mut role = std::mem::replace(&mut self.role, Role::None);
        let result = match &mut role {
            // Some clients do it again to stay alive.
            Role::Reader(reading) if reading.is_playing() && !reading.is_recorded() => Ok(Some(Answer::ok())),
            Role::Reader(reading) => {
                let (inbox, _) = self.inbox.get_or_insert_with(|| mpsc::channel(INBOX));
                let inbox = inbox.clone();
                let options = &self.shared.options;
                let play = Play {
                    opening: self.opening(),
                    outlet: &self.outlet,
                    rule: QueueRule { bytes: options.queue_bytes, timeout: options.write_timeout },
                    udp: self.shared.udp.as_ref().map(|pair| (pair, &inbox)),
                    controls: &controls,
                };
                let say = |answer: Answer| {
                    self.outlet.control(answer.into_bytes(Some(sequence), session.as_deref()));
                };
                if reading.is_recorded() {
                    let begun = |begun: &Begun, info: String| {
                        let answer = Answer::ok().header("Range", &*begun.range);
                        say(answer.header("Scale", format!("{:?}", begun.scale)).header("RTP-Info", info));
                    };
                    reading.play_recorded(&wanted, play, begun).await.map(|()| None)
                } else {
                    reading.play(play, |info| say(Answer::ok().header("RTP-Info", info)));
                    Ok(None)
                }
            }
            _ => Err(Answer::new(455, "Method Not Valid in This State")),
        };
        self.role = role;
        self.heard_by_udp = Instant::now();
        result
    }

    async fn pause(&mut self) -> Reply {
        if let Role::Publisher(publishing) = &mut self.role {
            publishing.pause();
            return Ok(Answer::ok());
        }
        let Role::Reader(reading) = &mut self.role else {
            return Err(Answer::new(455, "Method Not Valid in This State"));
        };
        reading.pause().await;
        Ok(Answer::ok())
    }

    async fn record(&mut self) -> Reply {
        let (inbox, _) = self.inbox.get_or_insert_with(|| mpsc::channel(INBOX));
        let inbox = inbox.clone();
        let mut role = std::mem::replace(&mut self.role, Role::None);
        let result = match &mut role {
            Role::Publisher(publishing) => {
                let udp = self.shared.udp.as_ref().map(|pair| (pair, &inbox));
                publishing.record(self.opening(), udp).await
            }
            _ => Err(Answer::new(455, "Method Not Valid in This State")),
        };
        self.role = role;
        result.map(|()| Answer::ok())
    }

    /// Takes an interleaved packet. What belongs to no track is dropped.
    pub(super) fn data(&mut self, channel: u8, payload: &Bytes) {
        match &mut self.role {
            Role::Publisher(publishing) => publishing.data(channel, payload),
            Role::Reader(reading) => reading.data(channel, payload),
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
        let datagram = match &mut self.role {
            Role::None => std::future::pending().await,
            Role::Reader(reading) => tokio::select! {
                reason = reading.ended() => return Some(reason),
                datagram = inbox => datagram?,
            },
            Role::Publisher(publishing) => tokio::select! {
                reason = publishing.ended() => return Some(reason),
                datagram = inbox => datagram?,
            },
        };
        self.heard_by_udp = Instant::now();
        match &mut self.role {
            Role::Reader(reading) => reading.datagram(&datagram),
            Role::Publisher(publishing) => publishing.datagram(&datagram),
            Role::None => {}
        }
        None
    }

    /// Now and then: tells of frames that were dropped, and sends a publisher its reports.
    pub(super) fn tick(&mut self) {
        match &mut self.role {
            Role::Reader(reading) => {
                let dropped = reading.dropped(&self.outlet);
                if dropped > 0 {
                    let reader = format!("{} reader {}", self.protocol, canonical(self.peer));
                    self.shared.streams.lagged(reading.stream(), &reader, dropped);
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

    /// Datagrams that were sent before the request that ends it all may come after it.
    async fn take_last_datagrams(&mut self) {
        let (Role::Publisher(publishing), Some((_, inbox))) = (&mut self.role, &mut self.inbox) else {
            return;
        };
        if !publishing.comes_by_udp() {
            return;
        }
        let end = Instant::now() + LAST_DATAGRAMS;
        while Instant::now() < end {
            match tokio::time::timeout(LAST_DATAGRAMS / 5, inbox.recv()).await {
                Ok(Some(datagram)) => publishing.datagram(&datagram),
                _ => return,
            }
        }
    }

    /// Ends the session, and says why if it was not the client's wish.
    pub(super) fn end(&mut self, reason: Option<String>) {
        match std::mem::replace(&mut self.role, Role::None) {
            Role::Reader(mut reading) => reading.stop(reason),
            Role::Publisher(publishing) => publishing.end(reason),
            Role::None => {}
        }
        self.id = None;
        self.inbox = None;
    }
}

/// A session description with how long it is.
fn with_range(sdp: &str, range: &str) -> String {
    let (front, medias) = sdp.split_once("\r\nm=").unwrap_or((sdp, ""));
    format!("{front}\r\na=range:{range}\r\nm={medias}")
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
