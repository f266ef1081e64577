//! One viewer: what it gets of the feed.

use super::feed::{Lane, RtcFrame, Watch};
use super::negotiate::Chosen;
use super::peer::Peer;
use crate::session::{SessionState, SessionStats};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use str0m::Event;
use str0m::media::{MediaKind, Mid, Pt};
use str0m::rtp::RtpWrite;

/// How fast a viewer is sent what has piled up: 50 Mbit/s, so that a keyframe does not overrun what lies between.
const BYTES_PER_SECOND: f64 = 6_250_000.0;
/// As much goes at once.
const BURST_BYTES: f64 = 96.0 * 1024.0;
/// While something waits, this is how soon it is looked at again.
const PACE: Duration = Duration::from_millis(5);
/// A viewer that asks for a keyframe more often is not answered.
const AGAIN: Duration = Duration::from_millis(1500);
/// Packets that are kept for a viewer that has not got them: more than two seconds of 4 Mbit/s.
const RESEND_PACKETS: usize = 1024;
const RESEND_AGE: Duration = Duration::from_secs(3);
/// Of what is sent to a viewer at most so much may be for the second time: enough for a line that loses every third
/// packet, and no way to make us flood it.
const RESEND_SHARE: f32 = 0.5;

/// A viewer's counters, which the list of sessions reads.
#[derive(Debug, Default)]
pub(super) struct Counters {
    connected: AtomicBool,
    bytes: AtomicU64,
    packets: AtomicU64,
    dropped: AtomicU64,
    queued: AtomicU64,
    lost: AtomicU64,
    jitter_micros: AtomicU64,
    round_trip_micros: AtomicU64,
}

impl Counters {
    pub(super) fn stats(&self) -> SessionStats {
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let millis =
            |value: &AtomicU64| Some(get(value)).filter(|v| *v > 0).map(|micros| micros as f64 / 1000.0);
        SessionStats {
            state: SessionState::of(self.connected.load(Ordering::Relaxed)),
            bytes: get(&self.bytes),
            packets: get(&self.packets),
            dropped_frames: get(&self.dropped),
            queued_bytes: get(&self.queued),
            packets_lost: get(&self.lost),
            jitter_ms: millis(&self.jitter_micros),
            round_trip_ms: millis(&self.round_trip_micros),
        }
    }
}

/// A media section that is sent.
struct Out {
    lane: Lane,
    mid: Option<Mid>,
    payload_type: Pt,
    resends: bool,
    sequence: u64,
    /// Of the last packet.
    timestamp: u32,
    clock_rate: u32,
    /// Packets that the client says have not arrived.
    lost: u64,
}

impl Out {
    fn new(chosen: &Chosen) -> Self {
        Self {
            lane: Lane { track: chosen.track, to_opus: chosen.to_opus },
            mid: None,
            payload_type: chosen.params.pt(),
            resends: chosen.params.resend().is_some(),
            sequence: u64::from(fastrand::u16(1..32_768)),
            timestamp: 0,
            clock_rate: chosen.params.spec().clock_rate.get(),
            lost: 0,
        }
    }
}

/// A frame that waits.
struct Queued {
    frame: Arc<RtcFrame>,
    /// Instead of its own time.
    at: Option<(u32, Instant)>,
    /// Packets that have gone.
    gone: usize,
}

/// What a viewer is made of.
pub(super) struct NewViewer {
    pub(super) watch: Watch,
    pub(super) video: Option<Chosen>,
    pub(super) audio: Option<Chosen>,
    pub(super) counters: Arc<Counters>,
    pub(super) queue_bytes: usize,
}

/// A viewer.
pub(super) struct Viewer {
    watch: Watch,
    video: Option<Out>,
    audio: Option<Out>,
    counters: Arc<Counters>,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    max_queue_bytes: usize,
    tokens: f64,
    refilled: Instant,
    /// The frame that comes next; what is older has been sent.
    next: u64,
    /// Needs a keyframe.
    waits: bool,
    asked: Option<Instant>,
}

impl Viewer {
    pub(super) fn new(new: NewViewer) -> Self {
        Self {
            watch: new.watch,
            video: new.video.as_ref().map(Out::new),
            audio: new.audio.as_ref().map(Out::new),
            counters: new.counters,
            queue: VecDeque::new(),
            queue_bytes: 0,
            max_queue_bytes: new.queue_bytes,
            tokens: BURST_BYTES,
            refilled: Instant::now(),
            next: 0,
            waits: true,
            asked: None,
        }
    }

    pub(super) fn feed_id(&self) -> u64 {
        self.watch.feed().id
    }

    /// When it wants to send more, if something waits.
    pub(super) fn wake(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then(|| self.refilled + PACE)
    }

    /// Time has passed.
    pub(super) fn tick(&self, peer: &mut Peer) {
        if let Some(reason) = self.watch.feed().ended() {
            peer.ends_because(reason);
        }
        if self.watch.feed().reorders() && self.video.is_some() {
            peer.ends_because("the camera has begun to send B frames, which browsers do not play");
        }
    }

    /// Takes the next frame of its feed; says whether there is something to send.
    pub(super) fn media(&mut self, peer: &Peer, frame: &Arc<RtcFrame>) -> bool {
        if !peer.connected || frame.index < self.next {
            return false;
        }
        if frame.index > self.next {
            // The worker had no time for what came between.
            self.lose();
        }
        self.next = frame.index + 1;
        let wanted = |out: &Option<Out>| out.as_ref().is_some_and(|out| out.lane == frame.lane);
        if !wanted(&self.video) && !wanted(&self.audio) {
            return false;
        }
        if frame.video {
            if self.waits && !frame.sync {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            self.waits = false;
        }
        if self.queue_bytes + frame.bytes > self.max_queue_bytes {
            self.lose();
            return false;
        }
        self.push(frame.clone(), None);
        true
    }

    fn push(&mut self, frame: Arc<RtcFrame>, at: Option<(u32, Instant)>) {
        self.queue_bytes += frame.bytes;
        self.queue.push_back(Queued { frame, at, gone: 0 });
    }

    /// Everything that waits goes, up to the next keyframe.
    fn lose(&mut self) {
        let lost = self.queue.iter().filter(|q| q.frame.video).count();
        self.counters.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        self.queue.clear();
        self.queue_bytes = 0;
        self.waits = true;
    }

    /// Begins with the kept GOP, so that a picture is there at once. Its timestamps are pressed together: players would
    /// otherwise show all of it at its own speed, and stay behind for good.
    fn begin(&mut self) {
        let feed = self.watch.feed();
        let (kept, next) = feed.kept();
        let Some(out) = self.video.as_ref().filter(|_| feed.has_main_video()) else { return };
        let Some(last) = kept.last() else { return };
        let Some(newest) = last.packets.first().map(|p| p.timestamp) else { return };
        let count = u32::try_from(kept.len()).unwrap_or(u32::MAX);
        // Behind what has been sent, or so that the newest has its own time.
        let again = out.timestamp != 0 && self.next > last.index;
        let first = if again { out.timestamp.wrapping_add(1) } else { newest.wrapping_sub(count - 1) };
        let rate = f64::from(out.clock_rate.max(1));
        self.queue.retain(|q| !q.frame.video);
        self.queue_bytes = self.queue.iter().map(|q| q.frame.bytes).sum();
        for (frame, number) in kept.iter().zip(0u32..) {
            let timestamp = first.wrapping_add(number);
            let before = Duration::from_secs_f64(f64::from(count - 1 - number) / rate);
            let at = last.at.checked_sub(before).unwrap_or(last.at);
            self.push(frame.clone(), Some((timestamp, at)));
        }
        self.next = self.next.max(next);
        self.waits = false;
    }

    /// Sends of what waits as much as is due.
    pub(super) fn write(&mut self, peer: &mut Peer, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + passed * BYTES_PER_SECOND).min(BURST_BYTES);
        self.refilled = now;
        while self.tokens > 0.0
            && let Some(queued) = self.queue.front_mut()
        {
            let out = if queued.frame.video { &mut self.video } else { &mut self.audio };
            let Some((out, packet)) = out.as_mut().zip(queued.frame.packets.get(queued.gone)) else {
                self.queue_bytes = self.queue_bytes.saturating_sub(queued.frame.bytes);
                self.queue.pop_front();
                continue;
            };
            queued.gone += 1;
            let (timestamp, at) = queued.at.unwrap_or((packet.timestamp, queued.frame.at));
            let Some(mid) = out.mid else { continue };
            let mut direct = peer.rtc.direct_api();
            let Some(stream) = direct.stream_tx_by_mid(mid, None) else { continue };
            let payload = packet.payload.clone();
            let bytes = payload.len();
            out.sequence += 1;
            out.timestamp = timestamp;
            stream.write_rtp(
                RtpWrite::new(out.payload_type, out.sequence.into(), timestamp, at, payload)
                    .marker(packet.marker)
                    .nackable(out.resends),
            );
            self.tokens -= bytes as f64;
        }
        self.counters.queued.store(self.queue_bytes as u64, Ordering::Relaxed);
    }

    /// Bytes and packets that have been sent to its client.
    pub(super) fn sent(&self, (bytes, packets): (u64, u64)) {
        self.counters.bytes.store(bytes, Ordering::Relaxed);
        self.counters.packets.store(packets, Ordering::Relaxed);
    }

    /// Something has happened at the client.
    pub(super) fn event(&mut self, peer: &mut Peer, event: Event) {
        match event {
            Event::MediaAdded(media) => {
                let out = match media.kind {
                    MediaKind::Video => &mut self.video,
                    MediaKind::Audio => &mut self.audio,
                };
                if let Some(out) = out.as_mut().filter(|out| out.mid.is_none()) {
                    out.mid = Some(media.mid);
                    if out.resends
                        && let Some(stream) = peer.rtc.direct_api().stream_tx_by_mid(media.mid, None)
                    {
                        stream.set_rtx_cache(RESEND_PACKETS, RESEND_AGE, Some(RESEND_SHARE));
                    }
                }
            }
            Event::Connected => {
                self.counters.connected.store(true, Ordering::Relaxed);
                self.begin();
            }
            Event::KeyframeRequest(_) => {
                let now = Instant::now();
                let soon = self.asked.is_some_and(|asked| now - asked < AGAIN);
                let answered = peer.connected && !soon && self.queue.is_empty();
                tracing::debug!(session = peer.owner.session, answered, "a viewer asks for a keyframe");
                if answered {
                    self.asked = Some(now);
                    self.begin();
                }
            }
            Event::MediaEgressStats(stats) => {
                if let Some(rtt) = stats.rtt {
                    self.counters.round_trip_micros.store(rtt.as_micros() as u64, Ordering::Relaxed);
                }
                if let Some(remote) = stats.remote {
                    self.reported(stats.mid, remote.packets_lost, remote.jitter);
                }
            }
            _ => {}
        }
    }

    /// What the client has reported of what it gets.
    fn reported(&mut self, mid: Mid, lost: u64, jitter: u32) {
        let mut outs = self.video.iter_mut().chain(&mut self.audio);
        if let Some(out) = outs.find(|out| out.mid == Some(mid)) {
            out.lost = lost;
            let micros = u64::from(jitter) * 1_000_000 / u64::from(out.clock_rate.max(1));
            self.counters.jitter_micros.store(micros, Ordering::Relaxed);
        }
        let lost = self.video.iter().chain(&self.audio).map(|out| out.lost).sum();
        self.counters.lost.store(lost, Ordering::Relaxed);
    }
}
