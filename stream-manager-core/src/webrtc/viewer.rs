//! One viewer: its session, and what it gets of the feed.

use super::feed::{Lane, RtcFrame, Watch};
use super::negotiate::Chosen;
use super::route::{Owner, Place, Routes, contents, is_stun};
use super::socket::{Batch, Datagram};
use super::worker::Port;
use crate::session::{SessionGuard, SessionStats};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use str0m::media::{MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

/// How fast a viewer is sent what has piled up: 50 Mbit/s, so that a keyframe does not overrun what lies between.
const BYTES_PER_SECOND: f64 = 6_250_000.0;
/// As much goes at once.
const BURST_BYTES: f64 = 96.0 * 1024.0;
/// While something waits, this is how soon it is looked at again.
const PACE: Duration = Duration::from_millis(5);
/// A viewer that asks for a keyframe more often is not answered.
const AGAIN: Duration = Duration::from_millis(1500);
/// Addresses that one viewer may come from.
const MAX_ADDRESSES: usize = 8;
/// Packets that are kept for a viewer that has not got them: more than two seconds of 4 Mbit/s.
const RESEND_PACKETS: usize = 1024;
const RESEND_AGE: Duration = Duration::from_secs(3);
/// Of what is sent to a viewer at most so much may be for the second time: enough for a line that loses every third
/// packet, and no way to make us flood it.
const RESEND_SHARE: f32 = 0.5;
/// Candidates that a client may tell.
pub(super) const MAX_CANDIDATES: usize = 64;

/// A viewer's counters, which the list of sessions reads.
#[derive(Debug, Default)]
pub(super) struct Counters {
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
    pub(super) owner: Owner,
    pub(super) rtc: Rtc,
    pub(super) name: String,
    pub(super) watch: Watch,
    pub(super) video: Option<Chosen>,
    pub(super) audio: Option<Chosen>,
    pub(super) guard: SessionGuard,
    pub(super) counters: Arc<Counters>,
    pub(super) queue_bytes: usize,
    pub(super) timeout: Duration,
    /// Dropped when the session ends.
    pub(super) place: Box<dyn std::any::Any + Send>,
}

/// A viewer.
pub(super) struct Viewer {
    owner: Owner,
    rtc: Rtc,
    name: String,
    addresses: Vec<Place>,
    watch: Watch,
    video: Option<Out>,
    audio: Option<Out>,
    guard: SessionGuard,
    counters: Arc<Counters>,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    max_queue_bytes: usize,
    tokens: f64,
    refilled: Instant,
    connected: bool,
    /// The frame that comes next; what is older has been sent.
    next: u64,
    /// Needs a keyframe.
    waits: bool,
    asked: Option<Instant>,
    heard: Instant,
    timeout: Duration,
    wake: Instant,
    candidates: usize,
    end: Option<String>,
    _place: Box<dyn std::any::Any + Send>,
}

impl Viewer {
    pub(super) fn new(new: NewViewer) -> Self {
        let now = Instant::now();
        Self {
            owner: new.owner,
            rtc: new.rtc,
            name: new.name,
            addresses: Vec::new(),
            watch: new.watch,
            video: new.video.as_ref().map(Out::new),
            audio: new.audio.as_ref().map(Out::new),
            guard: new.guard,
            counters: new.counters,
            queue: VecDeque::new(),
            queue_bytes: 0,
            max_queue_bytes: new.queue_bytes,
            tokens: BURST_BYTES,
            refilled: now,
            connected: false,
            next: 0,
            waits: true,
            asked: None,
            heard: now,
            timeout: new.timeout,
            wake: now,
            candidates: 0,
            end: None,
            _place: new.place,
        }
    }

    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    pub(super) fn feed_id(&self) -> u64 {
        self.watch.feed().id
    }

    /// When it wants to be looked at again.
    pub(super) fn wake(&self) -> Instant {
        if self.queue.is_empty() { self.wake } else { self.wake.min(self.refilled + PACE) }
    }

    /// Why it has to go, if it has to.
    pub(super) fn end(&self) -> Option<&str> {
        self.end.as_deref()
    }

    pub(super) fn ends_because(&mut self, reason: impl Into<String>) {
        self.end.get_or_insert_with(|| reason.into());
    }

    /// A datagram for it.
    pub(super) fn receive(&mut self, datagram: &Datagram, routes: &Routes, port: &Port, batch: &mut Batch) {
        let Some(contents) = contents(&datagram.data) else { return };
        let now = Instant::now();
        let (source, destination) = (datagram.source, datagram.destination);
        let place = (datagram.protocol, source);
        let input = Input::Receive(now, Receive { proto: datagram.protocol, source, destination, contents });
        if !self.addresses.contains(&place) {
            // Only who knows the session's password may be at a new address.
            if !is_stun(&datagram.data) || !self.rtc.accepts(&input) {
                return;
            }
            if self.addresses.len() >= MAX_ADDRESSES {
                let oldest = self.addresses.remove(0);
                routes.remove("", &[oldest], self.owner.session);
            }
            self.addresses.push(place);
            routes.claim(place, self.owner);
        }
        self.heard = now;
        self.input(input);
        self.drain(port, batch);
    }

    /// Candidates that the client has found.
    pub(super) fn trickle(&mut self, candidates: Vec<Candidate>) {
        for candidate in candidates {
            if self.candidates < MAX_CANDIDATES {
                self.candidates += 1;
                self.rtc.add_remote_candidate(candidate);
            }
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant, port: &Port, batch: &mut Batch) {
        if self.guard.kick_token().is_cancelled() {
            self.ends_because("ended by request");
        }
        if let Some(reason) = self.watch.feed().ended() {
            self.ends_because(reason);
        }
        if self.watch.feed().reorders() && self.video.is_some() {
            self.ends_because("the camera has begun to send B frames, which browsers do not play");
        }
        if now.saturating_duration_since(self.heard) >= self.timeout {
            self.ends_because(if self.connected {
                "nothing was heard of it"
            } else {
                "it has never connected"
            });
        }
        if self.end.is_none() {
            self.flush(now, port, batch);
        }
    }

    /// The next frame of its feed.
    pub(super) fn media(&mut self, frame: &Arc<RtcFrame>, port: &Port, batch: &mut Batch) {
        if !self.connected || frame.index < self.next {
            return;
        }
        if frame.index > self.next {
            // The worker had no time for what came between.
            self.lose();
        }
        self.next = frame.index + 1;
        let wanted = |out: &Option<Out>| out.as_ref().is_some_and(|out| out.lane == frame.lane);
        if !wanted(&self.video) && !wanted(&self.audio) {
            return;
        }
        if frame.video {
            if self.waits && !frame.sync {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.waits = false;
        }
        if self.queue_bytes + frame.bytes > self.max_queue_bytes {
            self.lose();
            return;
        }
        self.push(frame.clone(), None);
        self.flush(Instant::now(), port, batch);
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

    fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input) {
            self.ends_because(error.to_string());
        }
    }

    /// Sends of what waits as much as is due.
    fn flush(&mut self, now: Instant, port: &Port, batch: &mut Batch) {
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
            let mut direct = self.rtc.direct_api();
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
        self.input(Input::Timeout(now));
        self.drain(port, batch);
    }

    /// Takes what the session has to say until it waits.
    fn drain(&mut self, port: &Port, batch: &mut Batch) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.wake = at;
                    break;
                }
                Ok(Output::Transmit(transmit)) => {
                    self.counters.bytes.fetch_add(transmit.contents.len() as u64, Ordering::Relaxed);
                    self.counters.packets.fetch_add(1, Ordering::Relaxed);
                    if transmit.proto == Protocol::Udp {
                        batch.add(&port.socket, transmit.source, transmit.destination, &transmit.contents);
                    } else {
                        // What does not fit is asked for again.
                        port.links.send(transmit.destination, &transmit.contents);
                    }
                }
                Ok(Output::Event(event)) => self.event(event),
                Err(error) => {
                    self.ends_because(error.to_string());
                    break;
                }
            }
        }
        batch.flush(&port.socket);
        if !self.rtc.is_alive() {
            self.ends_because("the client has left");
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::MediaAdded(media) => {
                let out = match media.kind {
                    MediaKind::Video => &mut self.video,
                    MediaKind::Audio => &mut self.audio,
                };
                if let Some(out) = out.as_mut().filter(|out| out.mid.is_none()) {
                    out.mid = Some(media.mid);
                    if out.resends
                        && let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(media.mid, None)
                    {
                        stream.set_rtx_cache(RESEND_PACKETS, RESEND_AGE, Some(RESEND_SHARE));
                    }
                }
            }
            Event::Connected => {
                self.connected = true;
                self.begin();
            }
            Event::KeyframeRequest(_) => {
                let now = Instant::now();
                let soon = self.asked.is_some_and(|asked| now - asked < AGAIN);
                let answered = self.connected && !soon && self.queue.is_empty();
                tracing::debug!(session = self.owner.session, answered, "a viewer asks for a keyframe");
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
            Event::Closed => self.ends_because("the client has left"),
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

    /// Says goodbye and is forgotten.
    pub(super) fn finish(mut self, routes: &Routes, port: &Port, batch: &mut Batch) {
        routes.remove(&self.name, &self.addresses, self.owner.session);
        if let Some(reason) = self.end.take() {
            self.guard.ends_because(reason);
        }
        if self.connected && self.rtc.close().is_ok() {
            self.drain(port, batch);
        }
    }
}
