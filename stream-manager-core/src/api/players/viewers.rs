//! Who watches by HLS and DASH: sessions made of single requests.

use crate::auth::{Action, Grant};
use crate::session::{NewSession, SessionGuard, SessionKind, SessionStats, Sessions};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Characters of a session's name in addresses: 128 bits.
pub(super) const TOKEN_LENGTH: usize = 32;
/// A session without a request for this long has ended.
const IDLE: Duration = Duration::from_secs(20);
/// How often that is looked for.
const SWEEP: Duration = Duration::from_secs(2);
/// Sessions at one time; the one that was silent longest goes first.
const MAX_VIEWERS: usize = 20_000;
/// Ended sessions that are remembered, so that they do not just go on.
const MAX_KICKED: usize = 10_000;

/// What tells a client from others if it has no session's name: address, program, credentials, stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    pub(super) agent: String,
    /// What it proves who it is with.
    pub(super) proof: String,
    pub(super) stream: String,
    pub(super) protocol: &'static str,
}

/// A session.
pub(super) struct Viewer {
    pub(super) token: String,
    client: Client,
    grant: Grant,
    guard: SessionGuard,
    counters: Arc<Counters>,
    /// Milliseconds since the list was made.
    last: AtomicU64,
    /// Whether it has been asked for by its name.
    named: AtomicBool,
}

#[derive(Default)]
struct Counters {
    bytes: AtomicU64,
    requests: AtomicU64,
}

impl Viewer {
    pub(super) fn sent(&self, bytes: u64) {
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn kicked(&self) -> CancellationToken {
        self.guard.kick_token()
    }

    /// Whether the client does not take the session's name, but asks for the first address again and again.
    pub(super) fn is_nameless(&self) -> bool {
        !self.named.load(Ordering::Relaxed)
    }

    /// The stream that it watches.
    pub(super) fn stream(&self) -> &str {
        &self.client.stream
    }

    /// Whether it may do something else with its stream.
    pub(super) fn may(&self, action: Action) -> bool {
        self.grant.may(action, Some(&self.client.stream))
    }

    pub(super) fn address(&self) -> IpAddr {
        self.client.address
    }
}

#[derive(Default)]
struct State {
    by_token: HashMap<String, Arc<Viewer>>,
    by_client: HashMap<Client, Arc<Viewer>>,
    kicked: VecDeque<String>,
}

/// All who watch by HLS and DASH.
pub(crate) struct Viewers {
    made: Instant,
    state: Mutex<State>,
    waiting: AtomicUsize,
    sweeping: Mutex<bool>,
    pub(super) recordings: super::dvr::Recordings,
}

/// A request that waits.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a session stands.
pub(super) enum Found {
    Viewer(Arc<Viewer>),
    /// It was ended by somebody.
    Kicked,
    None,
}

impl Default for Viewers {
    fn default() -> Self {
        Self {
            made: Instant::now(),
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
            sweeping: Mutex::new(false),
            recordings: super::dvr::Recordings::default(),
        }
    }
}

impl Viewers {
    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes a place among those that wait, if there is one.
    pub(super) fn wait(&self, max: usize) -> Option<Waiting<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Waiting(&self.waiting);
        (before < max).then_some(place)
    }

    /// The session with this name.
    pub(super) fn by_token(&self, token: &str) -> Found {
        let state = self.state.lock();
        match state.by_token.get(token) {
            Some(viewer) if viewer.kicked().is_cancelled() => Found::Kicked,
            Some(viewer) => {
                viewer.last.store(self.now(), Ordering::Relaxed);
                viewer.named.store(true, Ordering::Relaxed);
                Found::Viewer(viewer.clone())
            }
            None if state.kicked.iter().any(|kicked| kicked == token) => Found::Kicked,
            None => Found::None,
        }
    }

    /// The newest session of this client.
    pub(super) fn by_client(&self, client: &Client) -> Found {
        let state = self.state.lock();
        match state.by_client.get(client) {
            Some(viewer) if viewer.kicked().is_cancelled() => Found::Kicked,
            Some(viewer) => {
                viewer.last.store(self.now(), Ordering::Relaxed);
                Found::Viewer(viewer.clone())
            }
            None => Found::None,
        }
    }

    /// Begins a session.
    pub(super) fn open(
        &self,
        sessions: &Sessions,
        client: Client,
        peer: SocketAddr,
        grant: Grant,
        token: Option<&str>,
    ) -> Arc<Viewer> {
        let new = NewSession {
            protocol: client.protocol,
            kind: SessionKind::Reader,
            stream: client.stream.as_str().into(),
            address: peer,
            user: grant.user.clone(),
            user_agent: Some(client.agent.clone()).filter(|agent| !agent.is_empty()),
            transport: "http",
        };
        let counters = Arc::new(Counters::default());
        let counted = counters.clone();
        let stats = Arc::new(move || SessionStats {
            bytes: counted.bytes.load(Ordering::Relaxed),
            packets: counted.requests.load(Ordering::Relaxed),
            ..SessionStats::default()
        });
        let token = token.map_or_else(
            || format!("{:016x}{:016x}", crate::auth::unpredictable(), crate::auth::unpredictable()),
            str::to_owned,
        );
        let guard = sessions.open(new, stats);
        let last = AtomicU64::new(self.now());
        let viewer = Arc::new(Viewer {
            token: token.clone(),
            client: client.clone(),
            grant,
            guard,
            counters,
            last,
            named: AtomicBool::new(false),
        });
        let mut state = self.state.lock();
        if state.by_token.len() >= MAX_VIEWERS {
            let oldest = state.by_token.values().min_by_key(|v| v.last.load(Ordering::Relaxed)).cloned();
            if let Some(oldest) = oldest {
                oldest.guard.ends_because("there are too many sessions");
                state.forget(&oldest);
            }
        }
        state.by_token.insert(token, viewer.clone());
        state.by_client.insert(client, viewer.clone());
        viewer
    }

    /// Ends those that are silent or were ended. `false` when there is nobody left.
    fn sweep(&self) -> bool {
        let limit = self.now().saturating_sub(u64::try_from(IDLE.as_millis()).unwrap_or(0));
        let mut state = self.state.lock();
        let is_over = |v: &&Arc<Viewer>| v.kicked().is_cancelled() || v.last.load(Ordering::Relaxed) < limit;
        let over: Vec<Arc<Viewer>> = state.by_token.values().filter(is_over).cloned().collect();
        for viewer in over {
            if viewer.kicked().is_cancelled() {
                state.kicked.push_back(viewer.token.clone());
                while state.kicked.len() > MAX_KICKED {
                    state.kicked.pop_front();
                }
            }
            state.forget(&viewer);
        }
        !state.by_token.is_empty()
    }

    /// Says that a task that sweeps is wanted; the caller runs [`sweep_all`] if so.
    pub(super) fn wants_sweeping(&self) -> bool {
        !std::mem::replace(&mut *self.sweeping.lock(), true)
    }
}

impl State {
    fn forget(&mut self, viewer: &Arc<Viewer>) {
        self.by_token.remove(&viewer.token);
        if self.by_client.get(&viewer.client).is_some_and(|v| Arc::ptr_eq(v, viewer)) {
            self.by_client.remove(&viewer.client);
        }
    }
}

/// Ends sessions until there are none, or the server ends.
pub(super) async fn sweep_all(viewers: std::sync::Weak<Viewers>, closing: CancellationToken) {
    loop {
        let closed = closing.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_none();
        let Some(viewers) = viewers.upgrade() else { return };
        if closed {
            *viewers.state.lock() = State::default();
        }
        // Looked at under the lock of the flag, so that a session that begins now starts another task.
        let mut sweeping = viewers.sweeping.lock();
        if !viewers.sweep() {
            *sweeping = false;
            return;
        }
    }
}
