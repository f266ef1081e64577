//! One connection's way out, which its own task and the feed of a stream share.
//!
//! Whoever has something to send writes it at once if nothing waits; what the socket does not take is queued and
//! the connection's task sends it when it can. Everything is behind one lock that is held for a system call at most,
//! so that packets and answers never mix.

use crate::rtp::Packets;
use crate::session::SessionStats;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Answers that a client does not read; more and it is disconnected.
const MAX_CONTROL_BYTES: usize = 256 << 10;
/// A reader that has to be brought forward more often than this within [`RESYNC_WINDOW`] is disconnected.
const MAX_RESYNCS: u32 = 10;
const RESYNC_WINDOW: Duration = Duration::from_secs(60);

/// When a queue is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueRule {
    pub(super) bytes: usize,
    pub(super) timeout: Duration,
}

#[derive(Debug)]
enum Chunk {
    Control(Bytes),
    Media(Arc<Packets>, Option<Instant>),
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Chunk::Control(bytes) => bytes.len(),
            Chunk::Media(packets, _) => packets.bytes(),
        }
    }

    fn slices(&self, skip: usize) -> Vec<IoSlice<'_>> {
        match self {
            Chunk::Control(bytes) => vec![IoSlice::new(bytes.get(skip..).unwrap_or_default())],
            Chunk::Media(packets, _) => packets.slices(skip),
        }
    }
}

/// Where sending stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing waits.
    All,
    /// The socket takes nothing at the moment.
    Blocked,
    /// The next frame is not due yet.
    Until(Instant),
    /// The connection is broken.
    Failed,
}

/// A connection's way out.
#[derive(Debug)]
pub(super) struct Outlet {
    /// None for TLS: only the connection's task can write there.
    socket: Option<Arc<TcpStream>>,
    rule: QueueRule,
    notify: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Chunk>,
    bytes: usize,
    control_bytes: usize,
    /// Of the first one.
    written: usize,
    /// The connection's task has taken the first one's bytes and is writing them.
    in_flight: bool,
    skipping: bool,
    /// Since when the socket has taken nothing, while something waits.
    stalled: Option<Instant>,
    resyncs: u32,
    resyncs_since: Option<Instant>,
    failure: Option<String>,
    /// Frames dropped that nobody has been told of.
    untold: u64,
    stats: SessionStats,
}

impl Outlet {
    pub(super) fn new(socket: Option<Arc<TcpStream>>, rule: QueueRule) -> Self {
        Self { socket, rule, notify: Notify::new(), state: Mutex::default() }
    }

    /// Returns when the connection's task has something to do.
    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Sends an answer, or queues it.
    pub(super) fn control(&self, bytes: Bytes) {
        let mut state = self.state.lock();
        if state.control_bytes + bytes.len() > MAX_CONTROL_BYTES {
            state.fail("the client does not read its answers");
        } else {
            state.control_bytes += bytes.len();
            state.queue(Chunk::Control(bytes));
            self.try_send(&mut state);
        }
        drop(state);
        self.notify.notify_one();
    }

    /// Sends a frame's packets, whose pieces are `slices`, or queues or drops them.
    pub(super) fn media(&self, packets: &Arc<Packets>, slices: &[IoSlice<'_>]) {
        let mut state = self.state.lock();
        if state.failure.is_some() || !state.admit(packets, self.rule.bytes) {
            return;
        }
        let total = packets.bytes();
        if state.pending.is_empty()
            && let Some(socket) = &self.socket
        {
            let taken = match socket.try_write_vectored(slices) {
                Ok(taken) => taken,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(e) => {
                    state.fail(&e.to_string());
                    drop(state);
                    return self.notify.notify_one();
                }
            };
            if taken == total {
                return state.sent(packets);
            }
            state.queue(Chunk::Media(packets.clone(), None));
            state.advance(taken);
            state.written = taken;
        } else {
            state.queue(Chunk::Media(packets.clone(), None));
        }
        state.stalled.get_or_insert_with(Instant::now);
        drop(state);
        self.notify.notify_one();
    }

    /// Queues what a reader begins with. `due` says when each frame goes out.
    pub(super) fn begin(&self, frames: impl Iterator<Item = (Arc<Packets>, Option<Instant>)>, skip: bool) {
        let mut state = self.state.lock();
        state.skipping = skip;
        for (packets, due) in frames {
            state.queue(Chunk::Media(packets, due));
        }
        drop(state);
        self.notify.notify_one();
    }

    /// Drops what media waits and is not begun: the reader has paused.
    pub(super) fn clear(&self) {
        self.state.lock().drop_media();
    }

    /// Sends what waits as far as the socket takes it.
    pub(super) fn drain(&self) -> Sent {
        self.try_send(&mut self.state.lock())
    }

    fn try_send(&self, state: &mut State) -> Sent {
        let Some(socket) = &self.socket else {
            return if state.pending.is_empty() { Sent::All } else { Sent::Blocked };
        };
        while let Some(chunk) = state.pending.front() {
            if let Chunk::Media(_, Some(due)) = chunk
                && *due > Instant::now()
            {
                return Sent::Until(*due);
            }
            match socket.try_write_vectored(&chunk.slices(state.written)) {
                Ok(taken) => state.take(taken),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    state.stalled.get_or_insert_with(Instant::now);
                    return Sent::Blocked;
                }
                Err(e) => {
                    state.fail(&e.to_string());
                    return Sent::Failed;
                }
            }
        }
        state.stalled = None;
        Sent::All
    }

    /// For TLS: the next bytes to write, up to 32 KiB. [`taken`](Self::taken) says how many of them went.
    pub(super) fn next_bytes(&self) -> Result<Bytes, Sent> {
        let mut state = self.state.lock();
        let Some(chunk) = state.pending.front() else {
            state.stalled = None;
            return Err(Sent::All);
        };
        if let Chunk::Media(_, Some(due)) = chunk
            && *due > Instant::now()
        {
            return Err(Sent::Until(*due));
        }
        let mut data = Vec::with_capacity((chunk.len() - state.written).min(32 << 10));
        for slice in chunk.slices(state.written) {
            let room = (32 << 10) - data.len();
            data.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        state.in_flight = true;
        Ok(data.into())
    }

    /// So many of [`next_bytes`](Self::next_bytes) have been written.
    pub(super) fn taken(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.in_flight = false;
        state.take(bytes);
    }

    pub(super) fn pending(&self) -> bool {
        !self.state.lock().pending.is_empty()
    }

    pub(super) fn stats(&self) -> SessionStats {
        let state = self.state.lock();
        SessionStats { queued_bytes: state.bytes as u64, ..state.stats }
    }

    /// Why the connection has to end, if it has to.
    pub(super) fn verdict(&self) -> Option<String> {
        let state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Some(failure.clone());
        }
        let timeout = self.rule.timeout;
        let stalled = state.stalled.is_some_and(|since| since.elapsed() >= timeout);
        stalled.then(|| format!("too slow: it has taken nothing for {timeout:?}"))
    }

    /// Frames that were dropped since this was last asked.
    pub(super) fn dropped(&self) -> u64 {
        std::mem::take(&mut self.state.lock().untold)
    }
}

impl State {
    fn fail(&mut self, problem: &str) {
        self.failure.get_or_insert_with(|| problem.to_owned());
        self.pending.clear();
        (self.bytes, self.control_bytes, self.written) = (0, 0, 0);
    }

    fn queue(&mut self, chunk: Chunk) {
        self.bytes += chunk.len();
        self.pending.push_back(chunk);
    }

    /// Whether a frame is taken; makes room first if there is none.
    fn admit(&mut self, packets: &Packets, limit: usize) -> bool {
        if self.skipping {
            if packets.rtcp || !packets.sync || self.bytes * 2 > limit {
                self.lose(u64::from(!packets.rtcp));
                return false;
            }
            self.skipping = false;
        } else if self.bytes + packets.bytes() > limit && !self.pending.is_empty() {
            self.resync();
            self.lose(u64::from(!packets.rtcp));
            return false;
        }
        true
    }

    fn lose(&mut self, frames: u64) {
        self.stats.dropped_frames += frames;
        self.untold += frames;
    }

    /// Too slow: everything that is not begun goes, up to the next keyframe.
    fn resync(&mut self) {
        let lost = self.drop_media();
        self.lose(lost);
        self.skipping = true;
        let now = Instant::now();
        if self.resyncs_since.is_none_or(|since| now.duration_since(since) >= RESYNC_WINDOW) {
            self.resyncs_since = Some(now);
            self.resyncs = 0;
        }
        self.resyncs += 1;
        if self.resyncs > MAX_RESYNCS {
            self.fail("too slow: it had to be brought forward more than ten times in a minute");
        }
    }

    fn drop_media(&mut self) -> u64 {
        let keep_first = self.written > 0 || self.in_flight;
        let mut lost = 0;
        let mut kept = VecDeque::new();
        for (index, chunk) in self.pending.drain(..).enumerate() {
            match &chunk {
                Chunk::Media(packets, _) if index > 0 || !keep_first => {
                    self.bytes -= packets.bytes();
                    lost += u64::from(!packets.rtcp);
                }
                _ => kept.push_back(chunk),
            }
        }
        self.pending = kept;
        lost
    }

    fn advance(&mut self, taken: usize) {
        self.bytes = self.bytes.saturating_sub(taken);
        if taken > 0 {
            self.stalled = None;
        }
    }

    /// So much of the first chunk has been written.
    fn take(&mut self, taken: usize) {
        self.advance(taken);
        self.written += taken;
        if self.pending.front().is_some_and(|chunk| self.written >= chunk.len()) {
            self.written = 0;
            match self.pending.pop_front() {
                Some(Chunk::Media(packets, _)) => self.sent(&packets),
                Some(Chunk::Control(bytes)) => self.control_bytes -= bytes.len(),
                None => {}
            }
        }
    }

    fn sent(&mut self, packets: &Packets) {
        self.stats.bytes += packets.bytes() as u64;
        self.stats.packets += packets.len() as u64;
    }
}
