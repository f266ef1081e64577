//! One stream for all its readers: each frame is packetized once and written to every reader.
//!
//! A feed exists while somebody has set a session up. Its task reads the hub, keeps the packets since the last
//! keyframe for readers that come later, sends sender reports, and ends when the tracks are no longer those that
//! readers were told of, or the stream has ended.

use super::outlet::Outlet;
use super::udp::UdpOutlet;
use crate::config::StartMode;
use crate::frame::{CodecParameters, Frame, MediaTime, Track, TrackId, WallTime};
use crate::hub::{Hub, HubItem, HubReader, ReaderOptions};
use crate::rtp::{Packetizer, PacketizerOptions, Packets, is_worth_a_line, rtcp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often sender reports go out.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// A paced start goes through the kept GOP this much faster than it was recorded.
const PACE: u32 = 4;
/// The clock of arrival is followed by at most one part in so many of the time that passes: faster than any camera's
/// clock drifts, and so slowly that neither a network's jitter nor an outage makes players jump.
const CLOCK_SLEW: i64 = 2000;
/// A difference that is taken over at once.
const CLOCK_STEP: i64 = 2_000_000_000;
/// After so many readers written to in one go, others on this thread have their turn.
const READERS_PER_TURN: usize = 64;

/// Where a reader's media goes.
#[derive(Debug)]
pub(super) enum Way {
    /// Interleaved: RTP and RTCP channels by track.
    Tcp(Arc<Outlet>, Vec<Option<(u8, u8)>>),
    /// Datagrams.
    Udp(Arc<UdpOutlet>, Vec<bool>),
}

/// A reader that plays.
#[derive(Debug)]
pub(super) struct Reader {
    way: Way,
    /// Whether it needs a keyframe of this track to begin with; one that only listens does not.
    main_video: Option<usize>,
}

impl Reader {
    /// A reader of some of a stream's tracks, of which this is the one with pictures to begin with.
    pub(super) fn new(way: Way, main_video: Option<usize>) -> Self {
        let mut reader = Self { way, main_video: None };
        reader.main_video = main_video.filter(|track| reader.wants(*track));
        reader
    }

    /// What waits to be taken.
    pub(super) fn queued_bytes(&self) -> u64 {
        match &self.way {
            Way::Tcp(outlet, _) => outlet.stats().queued_bytes,
            Way::Udp(outlet, _) => outlet.stats().queued_bytes,
        }
    }

    fn wants(&self, track: usize) -> bool {
        match &self.way {
            Way::Tcp(_, channels) => channels.get(track).is_some_and(Option::is_some),
            Way::Udp(_, tracks) => tracks.get(track).copied().unwrap_or(false),
        }
    }

    /// The packets as this reader has to get them.
    fn adapt(&self, packets: &Arc<Packets>) -> Arc<Packets> {
        match self.channel(packets) {
            Some(channel) => Arc::new(packets.with_channel(channel)),
            None => packets.clone(),
        }
    }

    /// The channel, if it is not the usual one.
    fn channel(&self, packets: &Packets) -> Option<u8> {
        let Way::Tcp(_, channels) = &self.way else { return None };
        let (rtp, rtcp) = channels.get(packets.track).copied().flatten()?;
        let channel = if packets.rtcp { rtcp } else { rtp };
        (usize::from(channel) != packets.track * 2 + usize::from(packets.rtcp)).then_some(channel)
    }

    pub(super) fn send(&self, packets: &Arc<Packets>, slices: &[std::io::IoSlice<'_>]) {
        if !self.wants(packets.track) {
            return;
        }
        let sync = packets.sync || self.main_video.is_none();
        match &self.way {
            Way::Tcp(outlet, _) => match self.channel(packets) {
                None => outlet.media(packets, slices, sync),
                Some(_) => {
                    let adapted = self.adapt(packets);
                    outlet.media(&adapted, &adapted.slices(0), sync);
                }
            },
            Way::Udp(outlet, _) => outlet.media(packets, sync),
        }
    }

    fn begin(&self, frames: impl Iterator<Item = (Arc<Packets>, Option<Instant>)>, skip: bool) {
        let frames = frames.filter(|(p, _)| self.wants(p.track)).map(|(p, due)| (self.adapt(&p), due));
        match &self.way {
            Way::Tcp(outlet, _) => outlet.begin(frames, skip),
            Way::Udp(outlet, _) => outlet.begin(frames, skip),
        }
    }

    /// Forgets what waits.
    pub(super) fn clear(&self) {
        match &self.way {
            Way::Tcp(outlet, _) => outlet.clear(),
            Way::Udp(outlet, _) => outlet.clear(),
        }
    }
}

/// Sequence number and timestamp that a track begins with, for RTP-Info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstPacket {
    pub(super) sequence: u16,
    pub(super) timestamp: Option<u32>,
}

/// A stream's feed. Dropping the last handle ends its task.
#[derive(Debug)]
pub(super) struct Feed {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Shared {
    tracks: Arc<[Track]>,
    ended: watch::Sender<Option<&'static str>>,
    start: StartMode,
    /// The track whose keyframes readers may begin with.
    main_video: Option<TrackId>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    packetizers: Vec<Packetizer>,
    /// Since the last keyframe.
    gop: Vec<(Arc<Packets>, MediaTime)>,
    gop_bytes: usize,
    gop_max_bytes: usize,
    readers: Arc<Vec<Arc<Reader>>>,
    /// Wall clock less timeline, in nanoseconds.
    clock: Option<i64>,
    /// When that was last looked at.
    clock_followed: i64,
    /// When the last reports went out.
    reported: Option<Instant>,
    /// Frames that their payload format cannot carry.
    refused: u64,
}

impl Feed {
    fn start(hub: &Hub, tracks: Arc<[Track]>, options: &FeedOptions) -> Self {
        // The reader first: what it gets begins with the tracks, which tells whether they are still these.
        let mut reader = hub.subscribe("rtsp", ReaderOptions::default());
        let packetizer = PacketizerOptions { packet_bytes: options.packet_bytes, ..Default::default() };
        let packetizers =
            tracks.iter().enumerate().map(|(n, t)| Packetizer::new(n, &t.parameters, packetizer)).collect();
        let shared = Arc::new(Shared {
            ended: watch::Sender::new(None),
            start: options.start,
            main_video: tracks.iter().find(|t| t.parameters.video().is_some()).map(|t| t.id),
            state: Mutex::new(State {
                packetizers,
                gop: Vec::new(),
                gop_bytes: 0,
                gop_max_bytes: hub.gop_max_bytes(),
                readers: Arc::default(),
                clock: None,
                clock_followed: 0,
                reported: None,
                refused: 0,
            }),
            tracks,
        });
        // What is kept already is there for the first reader at once.
        while let Some(item) = reader.try_next() {
            if let Err(reason) = shared.take(item) {
                shared.ended.send_replace(Some(reason));
                break;
            }
        }
        let task = tokio::spawn(run(shared.clone(), reader));
        Self { shared, task }
    }

    /// The tracks that it carries.
    pub(super) fn tracks(&self) -> &Arc<[Track]> {
        &self.shared.tracks
    }

    /// The track whose keyframes readers begin with.
    pub(super) fn main_video(&self) -> Option<usize> {
        self.shared.main_video.map(|track| track.0 as usize)
    }

    /// Who sends a track.
    pub(super) fn ssrc(&self, track: usize) -> Option<u32> {
        self.shared.state.lock().packetizers.get(track).map(Packetizer::ssrc)
    }

    /// Ticks per second of a track.
    pub(super) fn clock_rate(&self, track: usize) -> Option<u32> {
        self.shared.state.lock().packetizers.get(track).map(Packetizer::clock_rate)
    }

    /// Why it has ended, once it has.
    pub(super) fn ended(&self) -> watch::Receiver<Option<&'static str>> {
        self.shared.ended.subscribe()
    }

    /// Lets a reader play. `answer` gets what each track begins with, before anything of it is sent.
    pub(super) fn join(&self, reader: &Arc<Reader>, answer: impl FnOnce(Vec<FirstPacket>)) {
        let mut state = self.shared.state.lock();
        let first = state
            .packetizers
            .iter()
            .enumerate()
            .map(|(track, packetizer)| match state.gop.iter().find(|(p, _)| p.track == track) {
                Some((packets, _)) => {
                    FirstPacket { sequence: packets.sequence, timestamp: Some(packets.timestamp) }
                }
                None => {
                    let now = state.now().map(|now| packetizer.timestamp(now));
                    FirstPacket { sequence: packetizer.sequence(), timestamp: now }
                }
            })
            .collect();
        answer(first);
        let begin = Instant::now();
        let origin = state.gop.first().map(|(_, pts)| *pts);
        let paced = self.shared.start == StartMode::Paced;
        let due = |pts: MediaTime| {
            let origin = origin.filter(|_| paced)?;
            Some(begin + pts.saturating_since(origin) / PACE)
        };
        let skip = reader.main_video.is_some() && state.gop.is_empty();
        let frames = state.gop.iter().map(|(packets, pts)| (packets.clone(), due(*pts)));
        let reports = state.reports().into_iter().map(|packets| (packets, None));
        reader.begin(frames.chain(reports), skip);
        Arc::make_mut(&mut state.readers).push(reader.clone());
    }

    /// A reader no longer plays.
    pub(super) fn leave(&self, reader: &Arc<Reader>) {
        Arc::make_mut(&mut self.shared.state.lock().readers).retain(|r| !Arc::ptr_eq(r, reader));
    }
}

impl State {
    /// Now, on the stream's timeline.
    fn now(&self) -> Option<MediaTime> {
        self.clock.map(|clock| MediaTime::from_nanos(WallTime::now().as_unix_nanos() - clock))
    }

    fn reports(&self) -> Vec<Arc<Packets>> {
        let Some(clock) = self.clock else { return Vec::new() };
        let wall = WallTime::now();
        let time = MediaTime::from_nanos(wall.as_unix_nanos() - clock);
        reports(&self.packetizers, wall, time).map(Arc::new).collect()
    }

    fn follow_clock(&mut self, frame: &Frame) {
        let arrived = frame.wall_clock.as_unix_nanos();
        let now = arrived.saturating_sub(frame.pts.as_nanos());
        let passed = arrived.saturating_sub(self.clock_followed).clamp(0, 1_000_000_000);
        self.clock_followed = arrived;
        self.clock = Some(match self.clock {
            Some(clock) if now.abs_diff(clock) < CLOCK_STEP as u64 => {
                let most = passed / CLOCK_SLEW;
                clock + (now - clock).clamp(-most, most)
            }
            _ => now,
        });
    }

    fn keep(&mut self, packets: &Arc<Packets>, pts: MediaTime) {
        if packets.sync {
            self.gop.clear();
            self.gop_bytes = 0;
        } else if self.gop.is_empty() {
            return;
        }
        self.gop.push((packets.clone(), pts));
        self.gop_bytes += packets.bytes();
        if self.gop_bytes > self.gop_max_bytes {
            self.gop.clear();
            self.gop_bytes = 0;
        }
    }
}

/// A frame's packets, reports that are due with them, and who gets them.
type Batch = (Vec<Arc<Packets>>, Arc<Vec<Arc<Reader>>>);

impl Shared {
    /// Takes what the hub gives; an error says why the feed ends.
    fn take(&self, item: HubItem) -> Result<Option<Batch>, &'static str> {
        let frame = match item {
            HubItem::Frame(frame) => frame,
            HubItem::Tracks(tracks) if compatible(&self.tracks, &tracks) => return Ok(None),
            HubItem::Tracks(_) => return Err("the stream's tracks have changed"),
            HubItem::Input(_) | HubItem::Discontinuity | HubItem::Lagged { .. } => return Ok(None),
        };
        let mut state = self.state.lock();
        state.follow_clock(&frame);
        let sync = frame.keyframe && self.main_video.is_none_or(|video| video == frame.track);
        let Some(packetizer) = state.packetizers.get_mut(frame.track.0 as usize) else { return Ok(None) };
        let packets = match packetizer.packetize(&frame, sync) {
            Ok(packets) if packets.is_empty() => return Ok(None),
            Ok(packets) => Arc::new(packets),
            Err(error) => {
                state.refused += 1;
                let count = state.refused;
                if is_worth_a_line(count) {
                    tracing::warn!(%error, frames = count, "frames are left out for RTSP readers");
                }
                return Ok(None);
            }
        };
        // Without video there is nothing to begin with but the next frame.
        if self.main_video.is_some() {
            state.keep(&packets, frame.pts);
        }
        let mut batch = vec![packets];
        if state.reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            state.reported = Some(Instant::now());
            batch.extend(state.reports());
        }
        Ok(Some((batch, state.readers.clone())))
    }
}

async fn run(shared: Arc<Shared>, mut reader: HubReader) {
    let reason = loop {
        let Some(item) = reader.next().await else { break "the stream has ended" };
        let (batch, readers) = match shared.take(item) {
            Ok(Some(batch)) => batch,
            Ok(None) => continue,
            Err(reason) => break reason,
        };
        for packets in &batch {
            for turn in readers.chunks(READERS_PER_TURN) {
                write(packets, turn);
                if turn.len() == READERS_PER_TURN {
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    let (ends, readers) = {
        let state = shared.state.lock();
        let ends: Vec<Arc<Packets>> = state
            .packetizers
            .iter()
            .enumerate()
            .map(|(track, p)| Arc::new(Packets::rtcp(track, &rtcp::bye(p.ssrc()))))
            .collect();
        (ends, state.readers.clone())
    };
    ends.iter().for_each(|packets| write(packets, &readers));
    shared.ended.send_replace(Some(reason));
}

fn write(packets: &Arc<Packets>, readers: &[Arc<Reader>]) {
    let slices = packets.slices(0);
    readers.iter().for_each(|reader| reader.send(packets, &slices));
}

/// Whether readers that were told of `old` can go on with `new`: the same codecs, and nothing changed but what
/// travels with the media itself.
pub(super) fn compatible(old: &[Track], new: &[Track]) -> bool {
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| match (&*old.parameters, &*new.parameters) {
            (CodecParameters::Video(a), CodecParameters::Video(b)) => a.codec == b.codec,
            (a, b) => a == b,
        })
}

/// A sender report for each track (RFC 3550 section 6.4.1), that says that it is `wall` at `time`. All tracks share one clock, so
/// that players put sound and picture together.
pub(super) fn reports(
    packetizers: &[Packetizer],
    wall: WallTime,
    time: MediaTime,
) -> impl Iterator<Item = Packets> {
    packetizers.iter().enumerate().filter(|(_, p)| p.sent().0 > 0).map(move |(track, p)| {
        let (packets, octets) = p.sent();
        Packets::rtcp(track, &rtcp::sender_report(p.ssrc(), wall, p.timestamp(time), packets, octets))
    })
}

/// What all feeds have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct FeedOptions {
    pub(super) packet_bytes: usize,
    pub(super) start: StartMode,
}

/// The feeds of all streams that are read.
#[derive(Debug)]
pub(super) struct Feeds {
    options: FeedOptions,
    feeds: Mutex<HashMap<Arc<str>, Weak<Feed>>>,
}

impl Feeds {
    pub(super) fn new(options: FeedOptions) -> Self {
        Self { options, feeds: Mutex::default() }
    }

    /// The feed of a stream whose tracks are these; a new one if there is none for them.
    pub(super) fn get(&self, id: &Arc<str>, hub: &Hub, tracks: &Arc<[Track]>) -> Arc<Feed> {
        let mut feeds = self.feeds.lock();
        if let Some(feed) = feeds.get(id).and_then(Weak::upgrade)
            && feed.shared.ended.borrow().is_none()
            && compatible(&feed.shared.tracks, tracks)
        {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = Arc::new(Feed::start(hub, tracks.clone(), &self.options));
        feeds.insert(id.clone(), Arc::downgrade(&feed));
        feed
    }
}
