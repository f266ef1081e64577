//! Who is connected: one list of sessions for all protocols, in which each can be looked at and ended.
//!
//! A protocol [opens](Sessions::open) a session, keeps the [`SessionGuard`] for as long as it lasts, updates its
//! counters, and ends when the guard's [`kicked`](SessionGuard::kicked) says so.

use crate::event::{EventBus, EventKind};
use crate::frame::WallTime;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// It reads a stream.
    Reader,
    /// It is a stream's source.
    Publisher,
}

/// A session as people are shown it.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct SessionInfo {
    /// Its number, never used again within a run.
    pub id: u64,
    /// The protocol: `rtsp`, `rtsps`.
    pub protocol: &'static str,
    /// What it does.
    pub kind: SessionKind,
    /// The stream.
    pub stream: Arc<str>,
    /// From where.
    pub address: SocketAddr,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// How media travels: `tcp`, `udp`.
    pub transport: &'static str,
    /// Since when.
    pub since: WallTime,
    /// Tracks that it does not get, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The stream that it gets instead of the one that it asked for: one of lower quality, since its line carries no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gets: Option<Arc<str>>,
    /// Bits of media a second, between the last two times that it was looked at with a second between; at first since
    /// it began.
    pub bitrate_bps: u64,
    /// Its counters.
    #[serde(flatten)]
    pub stats: SessionStats,
}

/// Whether media flows yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// It has been answered, and its client is not there yet.
    Connecting,
    /// Media flows.
    #[default]
    Connected,
}

impl SessionState {
    /// By whether the client is there.
    pub fn of(connected: bool) -> Self {
        if connected { Self::Connected } else { Self::Connecting }
    }
}

/// Counters of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct SessionStats {
    /// Whether media flows yet.
    pub state: SessionState,
    /// Bytes of media, headers included.
    pub bytes: u64,
    /// RTP packets.
    pub packets: u64,
    /// Frames that were left out because the reader was too slow.
    pub dropped_frames: u64,
    /// Bytes that wait to be sent.
    pub queued_bytes: u64,
    /// RTP packets that did not arrive, by the receiver's reports or, for a publisher, by our own count.
    pub packets_lost: u64,
    /// Interarrival jitter that the receiver reports, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// Time there and back by RTCP, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// Bits a second that its line carries, as far as is known: only while that is less than what there is to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_bps: Option<u64>,
}

/// Gives a session's counters when somebody asks.
pub type StatsSource = Arc<dyn Fn() -> SessionStats + Send + Sync>;

/// How fast bytes are counted.
#[derive(Debug)]
struct Rate {
    at: Instant,
    bytes: u64,
    bps: Option<u64>,
}

impl Rate {
    fn see(&mut self, now: Instant, bytes: u64) -> u64 {
        let passed = now.saturating_duration_since(self.at);
        let bps = || (bytes.saturating_sub(self.bytes) as f64 * 8.0 / passed.as_secs_f64().max(0.001)) as u64;
        if passed < Duration::from_secs(1) {
            return self.bps.unwrap_or_else(bps);
        }
        *self = Self { at: now, bytes, bps: Some(bps()) };
        self.bps.unwrap_or(0)
    }
}

struct Entry {
    info: SessionInfo,
    stats: StatsSource,
    rate: Arc<Mutex<Rate>>,
    kick: CancellationToken,
}

impl Entry {
    /// To be called for what it is like now.
    fn look(&self) -> impl FnOnce() -> SessionInfo + use<> {
        let (info, stats, rate) = (self.info.clone(), self.stats.clone(), self.rate.clone());
        move || {
            let stats = stats();
            let bitrate_bps = rate.lock().see(Instant::now(), stats.bytes);
            SessionInfo { bitrate_bps, stats, ..info }
        }
    }
}

/// All sessions. Clones are handles to the same list.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    next: AtomicU64,
    entries: Mutex<BTreeMap<u64, Entry>>,
    events: EventBus,
}

/// What is known of a session when it begins.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The protocol.
    pub protocol: &'static str,
    /// What it does.
    pub kind: SessionKind,
    /// The stream.
    pub stream: Arc<str>,
    /// From where.
    pub address: SocketAddr,
    /// Who.
    pub user: Option<String>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
    /// How media travels.
    pub transport: &'static str,
}

impl Sessions {
    /// An empty list that tells of its changes on this bus.
    pub fn new(events: EventBus) -> Self {
        let shared = Shared { next: AtomicU64::new(1), entries: Mutex::default(), events };
        Self { shared: Arc::new(shared) }
    }

    /// Begins a session.
    pub fn open(&self, new: NewSession, stats: StatsSource) -> SessionGuard {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let kick = CancellationToken::new();
        let info = SessionInfo {
            id,
            protocol: new.protocol,
            kind: new.kind,
            stream: new.stream,
            address: new.address,
            user: new.user,
            user_agent: new.user_agent,
            transport: new.transport,
            since: WallTime::now(),
            left_out: Vec::new(),
            gets: None,
            bitrate_bps: 0,
            stats: SessionStats::default(),
        };
        self.shared.emit(
            &info.stream,
            EventKind::SessionOpened {
                session: id,
                protocol: info.protocol,
                kind: info.kind,
                address: info.address.to_string(),
            },
        );
        let rate = Arc::new(Mutex::new(Rate { at: Instant::now(), bytes: 0, bps: None }));
        self.shared.entries.lock().insert(id, Entry { info, stats, rate, kick: kick.clone() });
        SessionGuard { id, shared: self.shared.clone(), kick, reason: Mutex::new(None) }
    }

    /// Where its changes are told, as everything else is.
    pub fn events(&self) -> &EventBus {
        &self.shared.events
    }

    /// All sessions, oldest first.
    pub fn list(&self) -> Vec<SessionInfo> {
        let looks: Vec<_> = self.shared.entries.lock().values().map(Entry::look).collect();
        // Counters are read without holding up those who come and go.
        looks.into_iter().map(|look| look()).collect()
    }

    /// Looks at each session without its counters.
    pub fn for_each(&self, mut look: impl FnMut(&SessionInfo)) {
        self.shared.entries.lock().values().for_each(|entry| look(&entry.info));
    }

    /// Ends all sessions of a stream. Gives how many.
    pub fn kick_stream(&self, stream: &str) -> usize {
        let entries = self.shared.entries.lock();
        entries.values().filter(|e| *e.info.stream == *stream).map(|e| e.kick.cancel()).count()
    }

    /// One session.
    pub fn get(&self, id: u64) -> Option<SessionInfo> {
        let look = self.shared.entries.lock().get(&id).map(Entry::look)?;
        Some(look())
    }

    /// Ends a session; `false` if there is none with this number.
    pub fn kick(&self, id: u64) -> bool {
        let entries = self.shared.entries.lock();
        entries.get(&id).map(|entry| entry.kick.cancel()).is_some()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.shared.entries.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shared {
    fn emit(&self, stream: &Arc<str>, kind: EventKind) {
        self.events.for_stream(stream.clone()).emit(kind);
    }
}

/// A session that lasts until this is dropped.
pub struct SessionGuard {
    id: u64,
    shared: Arc<Shared>,
    kick: CancellationToken,
    reason: Mutex<Option<String>>,
}

impl SessionGuard {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns when somebody wants it to end.
    pub async fn kicked(&self) {
        self.kick.cancelled().await;
    }

    /// The same as a token.
    pub fn kick_token(&self) -> CancellationToken {
        self.kick.clone()
    }

    /// Says which tracks it does not get, and why.
    pub fn leaves_out(&self, tracks: Vec<String>) {
        if let Some(entry) = self.shared.entries.lock().get_mut(&self.id) {
            entry.info.left_out = tracks;
        }
    }

    /// Says that it gets another stream than it asked for, or again that one.
    pub fn gets(&self, stream: Option<Arc<str>>) {
        if let Some(entry) = self.shared.entries.lock().get_mut(&self.id) {
            entry.info.gets = stream;
        }
    }

    /// Says why it ends; the first reason counts.
    pub fn ends_because(&self, reason: impl Into<String>) {
        self.reason.lock().get_or_insert_with(|| reason.into());
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let Some(entry) = self.shared.entries.lock().remove(&self.id) else { return };
        let default = if self.kick.is_cancelled() { "ended by request" } else { "the client has left" };
        let reason = self.reason.lock().take().unwrap_or_else(|| default.into());
        self.shared.emit(&entry.info.stream, EventKind::SessionClosed { session: self.id, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_while() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut rate = Rate { at: start, bytes: 0, bps: None };
        assert_eq!(rate.see(at(500), 1000), 16_000);
        assert_eq!(rate.see(at(2000), 1000), 4000);
        // Somebody else has looked just before.
        assert_eq!(rate.see(at(2010), 1_000_000), 4000);
        assert_eq!(rate.see(at(4000), 11_000), 40_000);
    }

    #[tokio::test]
    async fn a_session_s_life() {
        let bus = EventBus::default();
        let mut events = bus.subscribe();
        let sessions = Sessions::new(bus);
        let new = NewSession {
            protocol: "rtsp",
            kind: SessionKind::Reader,
            stream: "cam".into(),
            address: "127.0.0.1:9".parse().unwrap(),
            user: None,
            user_agent: None,
            transport: "tcp",
        };
        let guard = sessions.open(new, Arc::new(|| SessionStats { bytes: 7, ..SessionStats::default() }));
        assert_eq!(sessions.get(guard.id()).unwrap().stats.bytes, 7);
        assert!(sessions.kick(guard.id()) && !sessions.kick(guard.id() + 1));
        guard.kicked().await;
        drop(guard);
        assert!(sessions.is_empty());
        assert!(matches!(events.recv().await.unwrap().kind, EventKind::SessionOpened { .. }));
        let EventKind::SessionClosed { reason, .. } = events.recv().await.unwrap().kind.clone() else {
            panic!()
        };
        assert_eq!(reason, "ended by request");
    }
}
