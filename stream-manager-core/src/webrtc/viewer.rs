//! One viewer: what it gets of the feed, and of that of a lower stream while its line carries no more.

use super::counters::Counters;
use super::feed::{FeedShared, Lane, RtcFrame, Watch};
use super::line::{Line, Verdict};
use super::lower::Lower;
use super::negotiate::Chosen;
use super::peer::Peer;
use super::rendition::Rendition;
use super::seen::{self, SeenTeller};
use super::teller::Teller;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use str0m::Event;
use str0m::bwe::BweKind;
use str0m::media::{MediaKind, Mid, Pt};
use str0m::rtp::{ExtensionValues, RtpWrite};

/// How fast a viewer is sent what has piled up: 50 Mbit/s, so that a keyframe does not overrun what lies between.
const BYTES_PER_SECOND: f64 = 6_250_000.0;
/// As much goes at once.
const BURST_BYTES: f64 = 96.0 * 1024.0;
/// While something waits, this is how soon it is looked at again.
const PACE: Duration = Duration::from_millis(5);
/// A viewer that asks for a keyframe more often is not answered.
const AGAIN: Duration = Duration::from_millis(1500);
/// The same on a line that is full already: mostly, the next keyframe comes by itself.
const AGAIN_THIN: Duration = Duration::from_secs(10);
/// A feed that has just begun has its kept GOP after so long.
const SETTLED: Duration = Duration::from_millis(150);
/// One of which nothing has come by then is not waited for.
const STILL_NOTHING: Duration = Duration::from_secs(5);
/// On a thin line no more waits than what it carries in this time; what is more, goes up to the next keyframe.
const THIN_QUEUE: Duration = Duration::from_secs(1);
/// Packets that are kept for a viewer that has not got them: more than two seconds of 4 Mbit/s.
const RESEND_PACKETS: usize = 1024;
const RESEND_AGE: Duration = Duration::from_secs(3);
/// Of what is sent to a viewer at most so much may be for the second time: enough for a line that loses every third
/// packet, and no way to make us flood it.
const RESEND_SHARE: f32 = 0.5;

/// A media section that is sent.
struct Out {
    lane: Lane,
    mid: Option<Mid>,
    payload_type: Pt,
    resends: bool,
    sequence: u64,
    /// Of the last packet, and when that was shown at its source.
    last: Option<(u32, Instant)>,
    /// What is added to a feed's timestamps.
    shift: u32,
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
            last: None,
            shift: 0,
            clock_rate: chosen.params.spec().clock_rate.get(),
            lost: 0,
        }
    }
}

/// A feed, and how far it has been taken.
struct Taken {
    watch: Watch,
    /// The frame that comes next; what is older has been sent.
    next: u64,
}

impl Taken {
    fn new(watch: Watch) -> Self {
        Self { watch, next: 0 }
    }

    fn feed(&self) -> &FeedShared {
        self.watch.feed()
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
    /// Where a stream of lower quality is had, if there is one.
    pub(super) lower: Option<Lower>,
    /// What the picture comes from for good, and what has to be held for that.
    pub(super) instead: Option<(Watch, Arc<Rendition>)>,
    /// Media sections that were ours to offer; others are told of by the client.
    pub(super) mids: Vec<(MediaKind, Mid)>,
    /// For what happens to the stream, if that is told.
    pub(super) teller: Option<Teller>,
}

/// A viewer.
pub(super) struct Viewer {
    main: Taken,
    /// What the picture comes from instead.
    low: Option<Taken>,
    /// Held for a picture that is made for us: it comes from there for good.
    hold: Option<Arc<Rendition>>,
    /// What it is to come from, and since when: as soon as that feed has its kept GOP.
    coming: Option<(Taken, Instant)>,
    /// Where that is had.
    lower: Option<Lower>,
    line: Line,
    video: Option<Out>,
    audio: Option<Out>,
    counters: Arc<Counters>,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    max_queue_bytes: usize,
    tokens: f64,
    refilled: Instant,
    /// Bytes that had been sent by then.
    accounted: u64,
    mids: Vec<(MediaKind, Mid)>,
    teller: Option<Teller>,
    seen: SeenTeller,
    /// Needs a keyframe.
    waits: bool,
    asked: Option<Instant>,
}

impl Viewer {
    pub(super) fn new(new: NewViewer) -> Self {
        let now = Instant::now();
        let (low, hold) = new.instead.unzip();
        Self {
            main: Taken::new(new.watch),
            low: low.map(Taken::new),
            hold,
            coming: None,
            lower: new.lower,
            line: Line::new(now),
            video: new.video.as_ref().map(Out::new),
            audio: new.audio.as_ref().map(Out::new),
            counters: new.counters,
            queue: VecDeque::new(),
            queue_bytes: 0,
            max_queue_bytes: new.queue_bytes,
            tokens: BURST_BYTES,
            refilled: now,
            accounted: 0,
            mids: new.mids,
            teller: new.teller,
            seen: SeenTeller::default(),
            waits: true,
            asked: None,
        }
    }

    /// The feeds that it watches.
    pub(super) fn feed_ids(&self) -> [Option<u64>; 2] {
        let other = self.low.as_ref().or(self.coming.as_ref().map(|(coming, _)| coming));
        [Some(self.main.feed().id), other.map(|taken| taken.feed().id)]
    }

    /// When it wants to send more, if something waits.
    pub(super) fn wake(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then(|| self.refilled + PACE)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, peer: &mut Peer) {
        if let Some(reason) = self.main.feed().ended() {
            peer.ends_because(reason);
        }
        if self.main.feed().reorders() && self.video.is_some() && self.hold.is_none() {
            peer.ends_because("the camera has begun to send B frames, which browsers do not play");
        }
        if self.low.as_ref().is_some_and(|low| low.feed().ended().is_some() || low.feed().reorders()) {
            match self.hold {
                Some(_) => peer.ends_because("its picture is no longer made for it"),
                None => self.rises(peer),
            }
        }
        if self.coming.as_ref().is_some_and(|(_, since)| since.elapsed() > STILL_NOTHING) {
            self.coming = None;
        }
    }

    /// What the picture comes from.
    fn shown(&mut self) -> &mut Taken {
        self.low.as_mut().unwrap_or(&mut self.main)
    }

    /// Takes the next frame of a feed of its; says whether there is something to send.
    pub(super) fn media(&mut self, peer: &Peer, feed: u64, frame: &Arc<RtcFrame>) -> bool {
        if let Some((coming, since)) = &self.coming
            && coming.feed().id == feed
        {
            if since.elapsed() < SETTLED {
                return false;
            }
            self.sinks(peer);
            return true;
        }
        let is_main = self.main.feed().id == feed;
        let shows = is_main == self.low.is_none();
        let Some(taken) = (if is_main { Some(&mut self.main) } else { self.low.as_mut() }) else {
            return false;
        };
        if !peer.connected || taken.feed().id != feed || frame.index < taken.next {
            return false;
        }
        let gap = frame.index > taken.next;
        taken.next = frame.index + 1;
        if gap && shows {
            // The worker had no time for what came between.
            self.lose();
        }
        let wanted = if frame.video {
            shows && self.video.is_some()
        } else {
            is_main && self.audio.as_ref().is_some_and(|out| out.lane == frame.lane)
        };
        if !wanted {
            return false;
        }
        if frame.video {
            if self.waits && !frame.sync {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            self.waits = false;
        }
        if self.is_full(frame) {
            if self.line.limit().is_some() && frame.video && !frame.sync {
                // What waits is whole as far as it goes, and goes; what would come behind it does not.
                self.waits = true;
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            self.lose();
            if !frame.sync || self.is_full(frame) {
                return false;
            }
            // The next keyframe is here already.
            self.waits = false;
        }
        self.push(frame.clone(), None);
        true
    }

    /// Whether there is no room for a frame. On a thin line that is for pictures to feel: sound is little, and its gaps are
    /// heard.
    fn is_full(&self, frame: &RtcFrame) -> bool {
        let limit = self.line.limit().filter(|_| frame.video);
        let thin = limit.map_or(usize::MAX, |limit| (limit * THIN_QUEUE.as_secs_f64()) as usize);
        self.queue_bytes > 0 && self.queue_bytes + frame.bytes > thin.min(self.max_queue_bytes)
    }

    fn push(&mut self, frame: Arc<RtcFrame>, at: Option<(u32, Instant)>) {
        self.queue_bytes += frame.bytes;
        self.queue.push_back(Queued { frame, at, gone: 0 });
    }

    /// All pictures that wait go, up to the next keyframe; one of which the first packets have gone goes whole.
    fn lose(&mut self) {
        let before = self.queue.len();
        self.queue.retain(|q| !q.frame.video || q.gone > 0);
        self.queue_bytes = self.queue.iter().map(|q| q.frame.bytes).sum();
        self.counters.dropped.fetch_add((before - self.queue.len()) as u64, Ordering::Relaxed);
        self.waits = true;
    }

    /// Begins with the kept GOP, so that a picture is there at once. Its timestamps are pressed together: players would
    /// otherwise show all of it at its own speed, and stay behind for good.
    fn begin(&mut self) {
        self.lose();
        let taken = self.shown();
        let (kept, next) = taken.feed().kept();
        taken.next = taken.next.max(next);
        let Some(out) = self.video.as_mut() else { return };
        let Some(last) = kept.last() else { return };
        let Some(newest) = last.packets.first().map(|p| p.timestamp.wrapping_add(out.shift)) else { return };
        let count = u32::try_from(kept.len()).unwrap_or(u32::MAX);
        let mut first = newest.wrapping_sub(count - 1);
        // Behind what has been sent.
        if let Some((sent, _)) = out.last
            && first.wrapping_sub(sent.wrapping_add(1)) > u32::MAX / 2
        {
            first = sent.wrapping_add(1);
        }
        let rate = f64::from(out.clock_rate.max(1));
        for (frame, number) in kept.iter().zip(0u32..) {
            let timestamp = first.wrapping_add(number);
            let before = Duration::from_secs_f64(f64::from(count - 1 - number) / rate);
            let at = last.at.checked_sub(before).unwrap_or(last.at);
            self.push(frame.clone(), Some((timestamp, at)));
        }
        self.waits = false;
    }

    /// The timestamps of what is shown from now on go on where they are.
    fn align(&mut self) {
        let (kept, _) = self.shown().feed().kept();
        let Some(out) = self.video.as_mut() else { return };
        let newest = kept.last().and_then(|last| Some((last.packets.first()?.timestamp, last.at)));
        let Some(((timestamp, at), (sent, sent_at))) = newest.zip(out.last) else { return };
        let since = at.saturating_duration_since(sent_at).as_secs_f64() * f64::from(out.clock_rate);
        out.shift = sent.wrapping_add(since as u32).wrapping_sub(timestamp);
    }

    /// A stream of lower quality is to be shown, if there is one.
    fn looks_lower(&mut self, peer: &Peer) {
        if self.low.is_some() || self.coming.is_some() {
            return;
        }
        let Some((out, lower)) = self.video.as_ref().zip(self.lower.as_ref()) else { return };
        let found = lower.find(out.payload_type, peer.owner.worker);
        self.coming = found.map(|watch| (Taken::new(watch), Instant::now()));
    }

    /// The lower stream is shown.
    fn sinks(&mut self, peer: &Peer) {
        if let Some((coming, _)) = self.coming.take() {
            let stream = coming.feed().stream.clone();
            tracing::debug!(session = peer.owner.session, %stream, "a lower stream is sent");
            peer.gets(Some(stream));
            self.low = Some(coming);
            self.changes(true);
        }
    }

    /// The stream itself is shown again.
    fn rises(&mut self, peer: &Peer) {
        if self.low.take().is_some() {
            tracing::debug!(session = peer.owner.session, "the stream itself is sent again");
            peer.gets(None);
            self.changes(false);
        }
    }

    fn changes(&mut self, down: bool) {
        self.line.changes(Instant::now(), down);
        self.lose();
        self.align();
        self.begin();
    }

    /// Looks after the line.
    fn look(&mut self, peer: &Peer) {
        let now = Instant::now();
        let wanted = self.shown().feed().rate();
        let verdict = self.line.look(now, peer.sent.0, wanted);
        if verdict == Verdict::Thin {
            tracing::debug!(session = peer.owner.session, line = ?self.line, wanted, "a viewer's line is thin");
            self.looks_lower(peer);
        } else if self.low.is_some() && self.hold.is_none() && self.line.may_try(now) {
            self.rises(peer);
        }
        let bps = self.line.limit().map_or(0, |limit| (limit * 8.0) as u64);
        self.counters.line_bps.store(bps, Ordering::Relaxed);
    }

    /// Sends of what waits as much as is due.
    pub(super) fn write(&mut self, peer: &mut Peer, now: Instant) {
        if let Some(teller) = &mut self.teller {
            teller.tell(&mut peer.rtc);
        }
        if let Some(out) = &self.video {
            let shown = self.low.as_ref().unwrap_or(&self.main);
            self.seen.tell(&mut peer.rtc, shown.feed(), out.shift);
        }
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        let pace = self.line.limit().unwrap_or(BYTES_PER_SECOND).min(BYTES_PER_SECOND);
        // What a slow line takes in a tenth of a second goes at once, or one packet.
        let burst = if self.line.limit().is_some() { (pace / 10.0).max(1500.0) } else { BURST_BYTES };
        // All that has gone since counts, also what went for the second time.
        let gone = peer.sent.0 - std::mem::replace(&mut self.accounted, peer.sent.0);
        self.tokens = (self.tokens - gone as f64 + passed * pace).clamp(-pace, burst);
        self.refilled = now;
        let mut tokens = self.tokens;
        while tokens > 0.0
            && let Some(queued) = self.queue.front_mut()
        {
            let out = if queued.frame.video { &mut self.video } else { &mut self.audio };
            let Some((out, packet)) = out.as_mut().zip(queued.frame.packets.get(queued.gone)) else {
                self.queue_bytes = self.queue_bytes.saturating_sub(queued.frame.bytes);
                self.queue.pop_front();
                continue;
            };
            queued.gone += 1;
            let (timestamp, at) =
                queued.at.unwrap_or((packet.timestamp.wrapping_add(out.shift), queued.frame.at));
            let Some(mid) = out.mid else { continue };
            let mut direct = peer.rtc.direct_api();
            let Some(stream) = direct.stream_tx_by_mid(mid, None) else { continue };
            // Sender reports cannot be made of a moment that is yet to come: they would be wrong.
            let at = at.min(now);
            let payload = packet.payload.clone();
            let bytes = payload.len();
            out.sequence += 1;
            out.last = Some((timestamp, at));
            // For the client's own estimate, if that was agreed upon.
            let sent_at = ExtensionValues { abs_send_time: Some(now), ..Default::default() };
            stream.write_rtp(
                RtpWrite::new(out.payload_type, out.sequence.into(), timestamp, at, payload)
                    .marker(packet.marker)
                    .ext_vals(sent_at)
                    .nackable(out.resends),
            );
            tokens -= bytes as f64;
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
            Event::ChannelOpen(channel, label) if label == seen::LABEL => {
                self.seen.opened(channel, self.main.feed());
            }
            Event::ChannelOpen(channel, _) => {
                if let Some(teller) = &mut self.teller {
                    teller.opened(channel);
                }
            }
            Event::ChannelClose(channel) => {
                self.seen.closed(channel);
                if let Some(teller) = &mut self.teller {
                    teller.closed(channel);
                }
            }
            Event::MediaAdded(media) => self.opens(peer, media.kind, media.mid),
            Event::Connected => {
                for (kind, mid) in std::mem::take(&mut self.mids) {
                    self.opens(peer, kind, mid);
                }
                self.counters.connected.store(true, Ordering::Relaxed);
                self.begin();
            }
            Event::KeyframeRequest(_) => {
                let now = Instant::now();
                let again = if self.line.limit().is_some() { AGAIN_THIN } else { AGAIN };
                let soon = self.asked.is_some_and(|asked| now - asked < again);
                let answered = peer.connected && !soon && self.queue.is_empty();
                tracing::debug!(session = peer.owner.session, answered, "a viewer asks for a keyframe");
                if answered {
                    self.asked = Some(now);
                    self.begin();
                }
            }
            Event::EgressBitrateEstimate(BweKind::Remb { estimate, .. }) => {
                self.line.estimated(Instant::now(), estimate.as_f64() / 8.0);
            }
            Event::PeerStats(stats) => {
                self.line.hears(stats.egress_loss_fraction, stats.rtt);
                self.look(peer);
            }
            Event::MediaEgressStats(stats) => {
                // Without a report since, it is that of an earlier one.
                self.line.hears(stats.loss, stats.rtt.filter(|_| stats.loss.is_some()));
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

    /// A media section is open.
    fn opens(&mut self, peer: &mut Peer, kind: MediaKind, mid: Mid) {
        let out = match kind {
            MediaKind::Video => &mut self.video,
            MediaKind::Audio => &mut self.audio,
        };
        if let Some(out) = out.as_mut().filter(|out| out.mid.is_none()) {
            out.mid = Some(mid);
            if out.resends
                && let Some(stream) = peer.rtc.direct_api().stream_tx_by_mid(mid, None)
            {
                stream.set_rtx_cache(RESEND_PACKETS, RESEND_AGE, Some(RESEND_SHARE));
            }
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
