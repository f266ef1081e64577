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

    /// Sends a frame's packets, whose pieces are `slices`, or queues or drops them. `sync` says that the reader may
    /// begin with it.
    pub(super) fn media(&self, packets: &Arc<Packets>, slices: &[IoSlice<'_>], sync: bool) {
        let mut state = self.state.lock();
        if state.failure.is_some() || !state.admit(packets, sync, self.rule.bytes) {
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

    /// The connection is broken.
    pub(super) fn broken(&self, problem: &str) {
        let mut state = self.state.lock();
        state.in_flight = false;
        state.fail(problem);
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
    fn admit(&mut self, packets: &Packets, sync: bool, limit: usize) -> bool {
        if self.skipping {
            if packets.rtcp || !sync || self.bytes * 2 > limit {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{CodecParameters, DataCodec, DataParameters, Frame, MediaTime, TrackId, WallTime};
    use crate::rtp::{Packetizer, PacketizerOptions};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    const RULE: QueueRule = QueueRule { bytes: 100_000, timeout: Duration::from_millis(300) };

    fn frames(count: usize, bytes: usize) -> Vec<Arc<Packets>> {
        let parameters = Arc::new(CodecParameters::Data(DataParameters { codec: DataCodec::Klv }));
        let mut packetizer = Packetizer::new(0, &parameters, PacketizerOptions::default());
        (0..count)
            .map(|number| {
                let frame = Frame {
                    track: TrackId(0),
                    parameters: parameters.clone(),
                    pts: MediaTime::ZERO,
                    dts: MediaTime::ZERO,
                    wall_clock: WallTime::from_unix_nanos(0),
                    ntp: None,
                    keyframe: true,
                    data: vec![number as u8; bytes].into(),
                };
                Arc::new(packetizer.packetize(&frame, true).unwrap())
            })
            .collect()
    }

    async fn pair() -> (Outlet, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (Outlet::new(Some(Arc::new(server)), RULE), client)
    }

    fn send(outlet: &Outlet, packets: &Arc<Packets>, sync: bool) {
        outlet.media(packets, &packets.slices(0), sync);
    }

    /// Sends until the socket takes nothing more; gives the bytes that went.
    fn fill(outlet: &Outlet, frame: &Arc<Packets>) -> usize {
        let mut sent = 0;
        while !outlet.pending() {
            send(outlet, frame, true);
            sent += frame.bytes();
        }
        sent
    }

    async fn read(client: &mut TcpStream, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        client.read_exact(&mut data).await.unwrap();
        data
    }

    #[tokio::test]
    async fn what_does_not_go_at_once_goes_later_and_nothing_is_mixed() {
        let (outlet, mut client) = pair().await;
        let frames = frames(8, 3000);
        let first = fill(&outlet, &frames[0]);
        outlet.control(Bytes::from_static(b"answer"));
        send(&outlet, &frames[1], true);
        let expected: usize = first + 6 + frames[1].bytes();
        let reading = async {
            let data = read(&mut client, expected).await;
            let packets = frames[1].slices(0).iter().flat_map(|s| s.to_vec()).collect::<Vec<u8>>();
            assert_eq!(data[first..first + 6], *b"answer");
            assert_eq!(data[first + 6..], packets);
        };
        let writing = async {
            while outlet.drain() != Sent::All {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::join!(reading, writing);
        let stats = outlet.stats();
        assert_eq!((stats.bytes as usize, stats.queued_bytes, stats.dropped_frames), (expected - 6, 0, 0));
        assert_eq!(outlet.verdict(), None);
    }

    #[tokio::test]
    async fn a_full_queue_is_emptied_up_to_the_next_keyframe() {
        let (outlet, mut client) = pair().await;
        let frames = frames(2, 3000);
        let begun = fill(&outlet, &frames[0]);
        // As much as there is room for, then one more.
        let room = (RULE.bytes - outlet.stats().queued_bytes as usize) / frames[0].bytes();
        for _ in 0..room {
            send(&outlet, &frames[0], false);
        }
        assert_eq!(outlet.stats().dropped_frames, 0);
        send(&outlet, &frames[0], false);
        assert_eq!(outlet.stats().dropped_frames, room as u64 + 1);
        assert!(outlet.stats().queued_bytes as usize <= frames[0].bytes(), "what is begun stays");
        send(&outlet, &frames[0], false);
        assert_eq!(outlet.dropped(), room as u64 + 2);
        assert_eq!(outlet.dropped(), 0, "told once");
        send(&outlet, &frames[1], true);
        let reading = async {
            let data = read(&mut client, begun + frames[1].bytes()).await;
            assert_eq!(data[data.len() - 1], 1, "the keyframe comes after what had begun");
        };
        let writing = async {
            while outlet.drain() != Sent::All {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::join!(reading, writing);
    }

    #[tokio::test]
    async fn who_takes_nothing_or_falls_behind_again_and_again_is_cut_off() {
        let (outlet, _client) = pair().await;
        let frames = frames(1, 3000);
        fill(&outlet, &frames[0]);
        assert_eq!(outlet.verdict(), None);
        tokio::time::sleep(RULE.timeout + Duration::from_millis(50)).await;
        assert!(outlet.verdict().unwrap().contains("it has taken nothing for 300ms"));

        let (outlet, _client) = pair().await;
        fill(&outlet, &frames[0]);
        while outlet.verdict().is_none_or(|v| v.contains("taken nothing")) {
            send(&outlet, &frames[0], true);
        }
        assert!(outlet.verdict().unwrap().contains("more than ten times"));
        assert_eq!(outlet.stats().queued_bytes, 0);
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_are_bounded() {
        let (outlet, _client) = pair().await;
        fill(&outlet, &frames(1, 3000)[0]);
        let answer = Bytes::from(vec![b'x'; 10_000]);
        for _ in 0..30 {
            outlet.control(answer.clone());
        }
        assert!(outlet.verdict().unwrap().contains("does not read its answers"));
    }

    #[tokio::test]
    async fn a_paced_start_waits_for_its_time() {
        let (outlet, mut client) = pair().await;
        let frames = frames(2, 500);
        let due = Instant::now() + Duration::from_millis(100);
        outlet.begin([(frames[0].clone(), None), (frames[1].clone(), Some(due))].into_iter(), false);
        assert_eq!(outlet.drain(), Sent::Until(due));
        read(&mut client, frames[0].bytes()).await;
        tokio::time::sleep_until(due.into()).await;
        assert_eq!(outlet.drain(), Sent::All);
        read(&mut client, frames[1].bytes()).await;
    }
}
