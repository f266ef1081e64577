//! One stream for all its viewers: each frame is packetized once, kept until the next keyframe, and handed to the
//! workers whose viewers watch it.
//!
//! A feed exists while somebody watches. It ends when the stream does, or when its tracks are no longer those that were
//! negotiated; its viewers are told and begin anew.

use super::worker::{Command, WorkerHandle};
use crate::frame::{
    AudioCodec, AudioParameters, Codec, CodecParameters, Frame, MediaTime, Track, TrackId, VideoCodec,
};
use crate::hub::{Hub, HubItem, HubReader, ReaderOptions, Seen};
use crate::pipeline::sound::Encoder;
use crate::rtp::{HEADER_BYTES, Packetizer, PacketizerOptions, Packets, is_worth_a_line};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

/// With SRTP's tag and header extensions no datagram is longer than 1200 bytes, which passes everywhere.
const PACKET_BYTES: usize = 1160;
/// A difference between the stream's clock and ours that is taken over at once.
const CLOCK_STEP: Duration = Duration::from_secs(2);

/// Ticks of a picture's timestamps in a second (RFC 6184 section 5.1 and its like).
const VIDEO_CLOCK: u32 = 90_000;

/// A stream's rate is that over so long.
const RATE_WINDOW: Duration = Duration::from_secs(2);
/// Among so many pictures from a keyframe on there is one out of order, if any is: as many B frames as encoders usually put
/// in a row, and one on each side.
const TELLING_FRAMES: u64 = 5;

/// A packet without its header.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) payload: Arc<[u8]>,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
}

/// What a track's packets are for viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) track: TrackId,
    /// Turned into Opus.
    pub(super) to_opus: bool,
}

/// A frame, packetized.
#[derive(Debug)]
pub(super) struct RtcFrame {
    /// Counts without gaps within a feed.
    pub(super) index: u64,
    pub(super) lane: Lane,
    /// Whether it is of the main video track.
    pub(super) video: bool,
    /// Whether a viewer may begin with it.
    pub(super) sync: bool,
    /// When it was shown at its source, by our clock.
    pub(super) at: Instant,
    pub(super) packets: Vec<Packet>,
    pub(super) bytes: usize,
}

/// What viewers begin with.
#[derive(Debug, Default)]
struct Kept {
    /// Pictures since the last keyframe.
    frames: Vec<Arc<RtcFrame>>,
    bytes: usize,
    /// The index of the frame that comes next.
    next: u64,
}

/// A stream's feed. Dropping the last handle ends its task.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) shared: Arc<FeedShared>,
    task: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
pub(super) struct FeedShared {
    pub(super) id: u64,
    pub(super) stream: Arc<str>,
    pub(super) tracks: Arc<[Track]>,
    main_video: Option<TrackId>,
    /// What it reads.
    hub: Hub,
    /// The picture's RTP timestamp at the stream's zero.
    zero_timestamp: u32,
    /// Whether pictures were seen that are not sent in the order in which they are shown.
    reorders: AtomicBool,
    /// Viewers of each worker.
    watching: Vec<AtomicUsize>,
    /// Viewers that take sound as Opus that comes as something else.
    listening: AtomicUsize,
    /// What the workers did not take: they were busy.
    dropped: AtomicU64,
    /// Bytes of the main video in a second, over the last seconds.
    rate: AtomicU64,
    kept: Mutex<Kept>,
    /// What has been looked at: frames of the main video.
    seen: watch::Sender<u64>,
    ended: watch::Sender<Option<&'static str>>,
}

impl FeedShared {
    /// What is seen in its pictures, from now on.
    pub(super) fn seen(&self) -> broadcast::Receiver<Seen> {
        self.hub.seen()
    }

    /// When something was seen: on the stream's timeline, and as the picture's RTP timestamp.
    pub(super) fn time_of(&self, seen: &Seen) -> Option<(MediaTime, u32)> {
        let pts = self.hub.time_of(seen)?;
        // Wraps, as it is meant to.
        Some((pts, (pts.to_ticks(VIDEO_CLOCK) as u32).wrapping_add(self.zero_timestamp)))
    }

    pub(super) fn reorders(&self) -> bool {
        self.reorders.load(Ordering::Relaxed)
    }

    /// The pictures since the last keyframe, and the index of the frame that comes next.
    pub(super) fn kept(&self) -> (Vec<Arc<RtcFrame>>, u64) {
        let kept = self.kept.lock();
        (kept.frames.clone(), kept.next)
    }

    /// Bytes of the main video in a second.
    pub(super) fn rate(&self) -> f64 {
        self.rate.load(Ordering::Relaxed) as f64
    }

    pub(super) fn ended(&self) -> Option<&'static str> {
        *self.ended.borrow()
    }
}

impl Feed {
    /// Waits until it is known whether pictures are reordered, but not longer than `limit`.
    pub(super) async fn look(&self, limit: Duration) {
        let main = self.shared.tracks.iter().find(|track| Some(track.id) == self.shared.main_video);
        let Some(video) = main.and_then(|track| track.parameters.video()) else { return };
        if video.max_reorder_frames == Some(0) {
            return;
        }
        let mut seen = self.shared.seen.subscribe();
        // If nothing comes, what is known has to do.
        let _ = tokio::time::timeout(limit, seen.wait_for(|frames| *frames >= TELLING_FRAMES)).await;
    }

    /// A viewer that is counted until this is dropped.
    pub(super) fn watch(self: &Arc<Self>, worker: usize, to_opus: bool) -> Watch {
        if let Some(count) = self.shared.watching.get(worker) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.listening.fetch_add(usize::from(to_opus), Ordering::Relaxed);
        Watch { feed: self.clone(), worker, to_opus }
    }
}

/// A viewer's hold on its feed.
#[derive(Debug)]
pub(super) struct Watch {
    feed: Arc<Feed>,
    worker: usize,
    to_opus: bool,
}

impl Watch {
    pub(super) fn feed(&self) -> &FeedShared {
        &self.feed.shared
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(count) = self.feed.shared.watching.get(self.worker) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        self.feed.shared.listening.fetch_sub(usize::from(self.to_opus), Ordering::Relaxed);
    }
}

/// What turns a track into packets.
struct Line {
    parameters: Arc<CodecParameters>,
    /// None for sound that goes as Opus only.
    copy: Option<Packetizer>,
    opus: Option<(Packetizer, Encoder)>,
    /// Why it is not turned into Opus any more.
    broken: bool,
}

fn opus_of(parameters: &CodecParameters) -> Option<CodecParameters> {
    let sound = parameters.audio().filter(|a| a.codec != AudioCodec::Opus)?;
    Some(CodecParameters::Audio(AudioParameters::new(AudioCodec::Opus, 48_000, sound.channels.clamp(1, 2))))
}

impl Line {
    /// With the timestamp at the stream's zero, if that is given.
    fn new(number: usize, track: &Track, timestamp: Option<u32>) -> Self {
        let options = PacketizerOptions { packet_bytes: PACKET_BYTES, timestamp, ..Default::default() };
        let copied = match &*track.parameters {
            CodecParameters::Video(_) => true,
            CodecParameters::Audio(a) => {
                matches!(a.codec, AudioCodec::Opus | AudioCodec::Pcma | AudioCodec::Pcmu)
            }
            CodecParameters::Data(_) => false,
        };
        let opus = opus_of(&track.parameters).map(|output| {
            let packetizer = Packetizer::new(number, &output, options);
            (packetizer, Encoder::new(track.parameters.clone(), Arc::new(output)))
        });
        Self {
            parameters: track.parameters.clone(),
            copy: copied.then(|| Packetizer::new(number, &track.parameters, options)),
            opus,
            broken: false,
        }
    }
}

struct Work {
    shared: Arc<FeedShared>,
    lines: Vec<Line>,
    workers: Arc<[WorkerHandle]>,
    gop_max_bytes: usize,
    last_video: Option<MediaTime>,
    /// Since when bytes are counted, and how many.
    counted: (Instant, u64),
    /// What our clock shows at the stream's zero.
    zero: Option<Instant>,
    refused: u64,
}

impl Work {
    async fn take(&mut self, frame: Frame) {
        let Some(line) = self.lines.get_mut(frame.track.0 as usize) else { return };
        let video = self.shared.main_video == Some(frame.track);
        if video {
            if self.last_video.is_some_and(|last| frame.pts < last) && !frame.keyframe {
                self.shared.reorders.store(true, Ordering::Relaxed);
            }
            self.last_video = Some(frame.pts);
        }
        let lane = Lane { track: frame.track, to_opus: false };
        let sync = video && frame.keyframe;
        match line.copy.as_mut().map(|copy| copy.packetize(&frame, sync)) {
            Some(Ok(packets)) => self.hand_out(&packets, lane, video, frame.pts),
            Some(Err(error)) => self.refuse(&error.to_string()),
            None => {}
        }
        if video {
            self.shared.seen.send_modify(|seen| *seen += 1);
        } else if self.shared.listening.load(Ordering::Relaxed) > 0 {
            self.as_opus(&frame).await;
        }
    }

    async fn as_opus(&mut self, frame: &Frame) {
        let Some(line) = self.lines.get_mut(frame.track.0 as usize) else { return };
        if line.parameters != frame.parameters {
            // Another encoder for another kind of sound.
            line.parameters = frame.parameters.clone();
            line.broken = false;
            if let (Some((_, encoder)), Some(output)) = (&mut line.opus, opus_of(&frame.parameters)) {
                *encoder = Encoder::new(frame.parameters.clone(), Arc::new(output));
            }
        }
        let Some((packetizer, encoder)) = line.opus.as_mut().filter(|_| !line.broken) else { return };
        let encoded = match encoder.push(frame).await {
            Ok(encoded) => encoded,
            Err(error) => {
                line.broken = true;
                tracing::warn!(stream = %self.shared.stream, %error, "sound cannot be turned into Opus");
                return;
            }
        };
        let lane = Lane { track: frame.track, to_opus: true };
        let packets: Vec<(Packets, MediaTime)> = encoded
            .iter()
            .filter_map(|frame| Some((packetizer.packetize(frame, false).ok()?, frame.pts)))
            .collect();
        for (packets, pts) in packets {
            self.hand_out(&packets, lane, false, pts);
        }
    }

    fn refuse(&mut self, error: &str) {
        self.refused += 1;
        if is_worth_a_line(self.refused) {
            tracing::warn!(stream = %self.shared.stream, error, frames = self.refused, "frames are left out by WebRTC");
        }
    }

    fn count(&mut self, bytes: u64) {
        self.counted.1 += bytes;
        let passed = self.counted.0.elapsed();
        if passed >= RATE_WINDOW {
            let rate = (self.counted.1 as f64 / passed.as_secs_f64()) as u64;
            self.shared.rate.store(rate, Ordering::Relaxed);
            self.counted = (Instant::now(), 0);
        }
    }

    /// When a moment of the stream was, by our clock.
    fn instant(&mut self, pts: MediaTime) -> Instant {
        let now = Instant::now();
        let since = Duration::from_nanos(u64::try_from(pts.as_nanos()).unwrap_or(0));
        let at = self.zero.and_then(|zero| zero.checked_add(since));
        match at {
            Some(at) if at.max(now) - at.min(now) < CLOCK_STEP => at,
            _ => {
                self.zero = now.checked_sub(since);
                now
            }
        }
    }

    fn hand_out(&mut self, packets: &Packets, lane: Lane, video: bool, pts: MediaTime) {
        if packets.is_empty() {
            return;
        }
        let at = self.instant(pts);
        let mut bytes = 0;
        let list = (0..packets.len())
            .map(|index| {
                let mut slices = Vec::new();
                let length = packets.datagram(index, &mut slices);
                let mut datagram = Vec::with_capacity(length);
                slices.iter().for_each(|slice| datagram.extend_from_slice(slice));
                bytes += length;
                let timestamp =
                    datagram.get(4..8).and_then(|t| t.try_into().ok()).map_or(0, u32::from_be_bytes);
                let marker = datagram.get(1).is_some_and(|b| b & 0x80 != 0);
                Packet { payload: datagram.get(HEADER_BYTES..).unwrap_or_default().into(), timestamp, marker }
            })
            .collect();
        if video {
            self.count(bytes as u64);
        }
        let frame = {
            let kept = &mut *self.shared.kept.lock();
            let index = kept.next;
            kept.next += 1;
            let sync = packets.sync;
            let frame = Arc::new(RtcFrame { index, lane, video, sync, at, packets: list, bytes });
            if sync {
                kept.frames.clear();
                kept.bytes = 0;
            }
            if video && (sync || !kept.frames.is_empty()) {
                kept.frames.push(frame.clone());
                kept.bytes += bytes;
            }
            if kept.bytes > self.gop_max_bytes {
                kept.frames.clear();
                kept.bytes = 0;
            }
            frame
        };
        for (worker, watching) in self.workers.iter().zip(&self.shared.watching) {
            if watching.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // Its viewers see a gap in the numbers, and go on with the next keyframe.
            if worker.try_send(Command::Media(self.shared.id, frame.clone())).is_err() {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn run(mut work: Work, mut reader: HubReader) {
    let reason = loop {
        match reader.next().await {
            None => break "the stream has ended",
            Some(HubItem::Frame(frame)) => work.take(frame).await,
            Some(HubItem::Tracks(tracks)) if !compatible(&work.shared.tracks, &tracks) => {
                break "the stream's tracks have changed";
            }
            Some(HubItem::Tracks(_) | HubItem::Input(_)) => {}
            Some(HubItem::Discontinuity | HubItem::Lagged { .. }) => {
                for line in &mut work.lines {
                    if let Some((_, encoder)) = &mut line.opus {
                        encoder.reset();
                    }
                }
            }
        }
    };
    work.shared.ended.send_replace(Some(reason));
    for worker in work.workers.iter() {
        // One that is too busy for this finds out when it looks after its viewers.
        let _ = worker.try_send(Command::FeedEnded(work.shared.id));
    }
}

/// Whether viewers that were told of `old` can go on with `new`: the same codecs, which say the rest themselves.
fn compatible(old: &[Track], new: &[Track]) -> bool {
    let kind = |track: &Track| match track.parameters.codec() {
        Codec::Video(VideoCodec::H264) => {
            // Profiles are negotiated.
            let profile = track.parameters.video().and_then(|v| v.extra_data.get(1).copied());
            (Codec::Video(VideoCodec::H264), profile)
        }
        codec => (codec, None),
    };
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| kind(old) == kind(new))
}

/// The feeds of all streams that are watched.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    next: AtomicU64,
    feeds: Mutex<HashMap<Arc<str>, Weak<Feed>>>,
}

impl Feeds {
    /// The feed of a stream whose tracks are these; a new one if there is none for them.
    pub(super) fn get(
        &self,
        stream: &Arc<str>,
        hub: &Hub,
        tracks: &Arc<[Track]>,
        workers: &Arc<[WorkerHandle]>,
    ) -> Arc<Feed> {
        let mut feeds = self.feeds.lock();
        if let Some(feed) = feeds.get(stream).and_then(Weak::upgrade)
            && feed.shared.ended().is_none()
            && compatible(&feed.shared.tracks, tracks)
        {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let zero_timestamp = fastrand::u32(..);
        let shared = Arc::new(FeedShared {
            hub: hub.clone(),
            zero_timestamp,
            id: self.next.fetch_add(1, Ordering::Relaxed),
            stream: stream.clone(),
            tracks: tracks.clone(),
            main_video: tracks.iter().find(|t| t.parameters.video().is_some()).map(|t| t.id),
            reorders: AtomicBool::new(false),
            watching: workers.iter().map(|_| AtomicUsize::new(0)).collect(),
            listening: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            kept: Mutex::default(),
            seen: watch::Sender::new(0),
            ended: watch::Sender::new(None),
        });
        let work = Work {
            shared: shared.clone(),
            lines: tracks
                .iter()
                .enumerate()
                .map(|(number, track)| {
                    let shown = shared.main_video == Some(track.id);
                    Line::new(number, track, shown.then_some(zero_timestamp))
                })
                .collect(),
            workers: workers.clone(),
            gop_max_bytes: hub.gop_max_bytes(),
            last_video: None,
            counted: (Instant::now(), 0),
            zero: None,
            refused: 0,
        };
        let reader = hub.subscribe("webrtc", ReaderOptions::default());
        let feed = Arc::new(Feed { shared, task: tokio::spawn(run(work, reader)) });
        feeds.insert(stream.clone(), Arc::downgrade(&feed));
        feed
    }
}
