//! The middle of every stream: one source writes, any number of consumers read.
//!
//! A source's frames enter through the [`HubWriter`], which puts them onto the stream's timeline (see
//! `docs/ARCHITECTURE.md`), are kept until the GOP they belong to ends, and are handed to each
//! [`HubReader`] through a bounded queue of its own. Nobody waits for a consumer: one that is too slow
//! loses whole GOPs and is told so by [`HubItem::Lagged`]. A hub without consumers does no more than
//! keep the last GOP.
//!
//! ```
//! # use stream_manager_core::hub::{Hub, HubItem, RawFrame, ReaderOptions};
//! # use stream_manager_core::frame::{CodecParameters, MediaTime, VideoCodec, VideoParameters};
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let hub = Hub::default();
//! let mut reader = hub.subscribe("example", ReaderOptions::default());
//! let writer = hub.writer();
//! writer.set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 640, 360))]);
//! writer.push(RawFrame::new(0, MediaTime::ZERO, vec![0u8; 10]).keyframe(true)).unwrap();
//! assert!(matches!(reader.next().await, Some(HubItem::Tracks(_))));
//! assert!(matches!(reader.next().await, Some(HubItem::Frame(_))));
//! # });
//! ```

mod data;
mod dts;
mod input;
mod queue;
mod seen;
mod timeline;
mod writer;

pub use input::Input;
pub use queue::{ConsumerStats, QueueLimits};
pub use seen::{Played, Seen};
pub use writer::HubWriter;

use crate::frame::{CodecParameters, Frame, MediaKind, MediaTime, Track, TrackId, WallTime};
use bytes::Bytes;
use input::Inputs;
use parking_lot::Mutex;
use queue::Consumer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timeline::Timeline;
use tokio::sync::{Notify, watch};

/// What a reader gets, in order.
#[derive(Clone, Debug)]
pub enum HubItem {
    /// The stream's tracks, first of all and again whenever they or their parameters change.
    Tracks(Arc<[Track]>),
    /// The next frame.
    Frame(Frame),
    /// What comes from here on is of this input: of what stands in for the source, or of the source again.
    Input(Input),
    /// The source was lost and has come back; there is a gap in time here.
    Discontinuity,
    /// This reader was too slow; frames are missing here.
    Lagged {
        /// How many frames.
        frames: u64,
        /// How many bytes of payload.
        bytes: u64,
    },
}

/// A frame as a source hands it over, with its own clock's times.
#[derive(Clone, Debug)]
pub struct RawFrame {
    /// Index into the tracks given to [`HubWriter::set_tracks`].
    pub track: u32,
    /// Presentation time by the source's clock, from any origin.
    pub pts: Option<MediaTime>,
    /// Decoding time, if the source knows it.
    pub dts: Option<MediaTime>,
    /// When the sender says it was captured.
    pub ntp: Option<WallTime>,
    /// Whether decoding can start here.
    pub keyframe: bool,
    /// The payload, in the format that [`crate::frame`] lists.
    pub data: Bytes,
}

impl RawFrame {
    /// A frame with a presentation time.
    pub fn new(track: u32, pts: MediaTime, data: impl Into<Bytes>) -> Self {
        Self { track, pts: Some(pts), dts: None, ntp: None, keyframe: false, data: data.into() }
    }

    /// Marks it as a keyframe, or not.
    #[must_use]
    pub fn keyframe(mut self, keyframe: bool) -> Self {
        self.keyframe = keyframe;
        self
    }

    /// Sets the decoding time.
    #[must_use]
    pub fn dts(mut self, dts: Option<MediaTime>) -> Self {
        self.dts = dts;
        self
    }

    /// Sets the sender's wall-clock time.
    #[must_use]
    pub fn ntp(mut self, ntp: Option<WallTime>) -> Self {
        self.ntp = ntp;
        self
    }
}

/// What a hub refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The frame's track was never announced.
    #[error(
        "frame for track {track}, but the stream has {tracks} tracks; announce them with set_tracks first"
    )]
    UnknownTrack {
        /// The frame's track.
        track: u32,
        /// How many tracks there are.
        tracks: usize,
    },
}

/// Settings of a hub.
#[derive(Clone, Copy, Debug)]
pub struct HubOptions {
    /// The most that is kept of a GOP; a larger one is not kept at all.
    pub gop_max_bytes: usize,
    /// How long those who ask for the stream wait for its tracks.
    pub start_timeout: Duration,
}

impl Default for HubOptions {
    /// 32 MiB, ten seconds.
    fn default() -> Self {
        Self { gop_max_bytes: 32 << 20, start_timeout: Duration::from_secs(10) }
    }
}

/// How a reader begins and how much it may leave unread.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReaderOptions {
    /// The bounds of its queue.
    pub limits: QueueLimits,
    /// Where it begins.
    pub start: StartAt,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With the kept GOP, so that a picture is there at once.
    #[default]
    KeptGop,
    /// With the next keyframe that arrives.
    NextKeyframe,
}

/// Counters of a hub, from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Frames written.
    pub frames: u64,
    /// Of these, frames of video tracks.
    pub video_frames: u64,
    /// Bytes of payload written.
    pub bytes: u64,
    /// Video keyframes written.
    pub keyframes: u64,
    /// RTP packets the source reported as lost.
    pub packets_lost: u64,
    /// Sessions (connections) begun.
    pub sessions: u64,
    /// Frames in the kept GOP.
    pub gop_frames: usize,
    /// Bytes in the kept GOP.
    pub gop_bytes: usize,
    /// When the last frame was written.
    pub last_frame: Option<Instant>,
}

/// One stream's hub. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: HubOptions,
    inner: Mutex<Inner>,
    first_frame: Notify,
    closing: Notify,
    /// Whether anybody reads.
    demand: watch::Sender<bool>,
    /// Which input is let in.
    input: watch::Sender<Input>,
    /// What is seen in the pictures.
    seen: seen::SeenChannel,
}

#[derive(Debug)]
struct Inner {
    timeline: Timeline,
    tracks: Arc<[Track]>,
    /// The video track whose keyframes begin a GOP.
    main_video: Option<TrackId>,
    gop: Vec<Frame>,
    gop_bytes: usize,
    gop_since: Option<Instant>,
    /// Decoding time of the last keyframe of this session, and its distance to the one before.
    last_sync: Option<MediaTime>,
    gop_duration: Option<Duration>,
    consumers: Vec<Arc<Consumer>>,
    next_consumer: u64,
    stats: HubStats,
    inputs: Inputs,
    /// A track that is made here.
    data: Option<data::DataTrack>,
    /// The last picture, and when it arrived.
    last_picture: Option<(MediaTime, Instant)>,
    session_has_frame: bool,
    discontinuity: bool,
    closed: bool,
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(HubOptions::default(), seen::SeenChannel::new())
    }
}

impl Shared {
    fn new(options: HubOptions, seen: seen::SeenChannel) -> Self {
        Self {
            options,
            inner: Mutex::new(Inner {
                timeline: Timeline::new(),
                tracks: Arc::new([]),
                main_video: None,
                gop: Vec::new(),
                gop_bytes: 0,
                gop_since: None,
                last_sync: None,
                gop_duration: None,
                consumers: Vec::new(),
                next_consumer: 0,
                stats: HubStats::default(),
                inputs: Inputs::default(),
                data: None,
                last_picture: None,
                session_has_frame: false,
                discontinuity: false,
                closed: false,
            }),
            first_frame: Notify::new(),
            closing: Notify::new(),
            demand: watch::Sender::new(false),
            input: watch::Sender::new(Input::Main),
            seen,
        }
    }

    /// To be called whenever consumers come or go.
    fn tell_demand(&self, inner: &Inner) {
        let some = !inner.consumers.is_empty();
        self.demand.send_if_modified(|demand| std::mem::replace(demand, some) != some);
    }
}

impl Hub {
    /// A hub with these settings.
    pub fn new(options: HubOptions) -> Self {
        Self { shared: Arc::new(Shared::new(options, seen::SeenChannel::new())) }
    }

    /// The end a source writes to. There should be one source at a time.
    pub fn writer(&self) -> HubWriter {
        HubWriter::new(self.shared.clone(), Input::Main)
    }

    /// The end that writes in place of a source that has failed. What it writes waits, a GOP at most, until it is
    /// [let in](Self::stand_in).
    pub fn fallback_writer(&self) -> HubWriter {
        HubWriter::new(self.shared.clone(), Input::Fallback)
    }

    /// Lets the fallback in, with the GOP that waits, or else as soon as there is a keyframe of it, if the source says nothing
    /// until then. It is let in until the source has delivered for `return_after` without a pause and comes to a keyframe.
    pub fn stand_in(&self, return_after: Duration) {
        self.shared.stand_in(return_after);
    }

    /// Which input is let in, now and whenever that changes.
    pub fn input(&self) -> watch::Receiver<Input> {
        self.shared.input.subscribe()
    }

    /// The parameters of the source's own tracks, as it told them last, whichever input is let in.
    pub fn source_tracks(&self) -> Vec<Arc<CodecParameters>> {
        self.shared.inner.lock().inputs.of(Input::Main).tracks.clone()
    }

    /// A new consumer; `name` shows up in statistics and events.
    pub fn subscribe(&self, name: impl Into<String>, options: ReaderOptions) -> HubReader {
        let mut inner = self.shared.inner.lock();
        let id = inner.next_consumer;
        inner.next_consumer += 1;
        let from_gop = options.start == StartAt::KeptGop && !inner.gop.is_empty();
        let wait_for_keyframe = inner.main_video.is_some() && !from_gop;
        let consumer = Arc::new(Consumer::new(id, name.into(), options.limits, wait_for_keyframe));
        if inner.inputs.active() == Input::Fallback && !inner.closed {
            consumer.push_item(HubItem::Input(Input::Fallback));
        }
        if !inner.tracks.is_empty() && !inner.closed {
            consumer.push_item(HubItem::Tracks(inner.tracks.clone()));
        }
        if from_gop {
            consumer.make_room(inner.gop.len(), inner.gop_bytes);
            for frame in &inner.gop {
                consumer.push_frame(frame, inner.is_sync(frame));
            }
        }
        if inner.closed {
            consumer.close();
        } else {
            inner.consumers.push(consumer.clone());
            self.shared.tell_demand(&inner);
        }
        HubReader { consumer, shared: self.shared.clone() }
    }

    /// The stream's tracks, empty until the source has told them.
    pub fn tracks(&self) -> Arc<[Track]> {
        self.shared.inner.lock().tracks.clone()
    }

    /// The hub's counters.
    pub fn stats(&self) -> HubStats {
        let inner = self.shared.inner.lock();
        HubStats { gop_frames: inner.gop.len(), gop_bytes: inner.gop_bytes, ..inner.stats }
    }

    /// The most that is kept of a GOP.
    pub fn gop_max_bytes(&self) -> usize {
        self.shared.options.gop_max_bytes
    }

    /// Decoding time of the first frame that is kept for late readers, and when it arrived.
    pub fn kept_since(&self) -> Option<(MediaTime, Instant)> {
        let inner = self.shared.inner.lock();
        inner.gop.first().map(|frame| frame.dts).zip(inner.gop_since)
    }

    /// How long those who ask for the stream wait for its tracks.
    pub fn start_timeout(&self) -> Duration {
        self.shared.options.start_timeout
    }

    /// Whether anybody reads, now and whenever that changes: what runs only while it is wanted goes by this.
    pub fn demand(&self) -> watch::Receiver<bool> {
        self.shared.demand.subscribe()
    }

    /// The source is let go until somebody reads again: what is known of it may not be true then, and what is kept is old.
    pub fn rest(&self) {
        let mut inner = self.shared.inner.lock();
        inner.session_has_frame = false;
        let input = std::mem::take(&mut inner.inputs).active();
        if input == Input::Fallback {
            self.shared.tell_input(&inner);
        }
        if !inner.tracks.is_empty() {
            inner.tracks_changed(Arc::new([]));
        }
    }

    /// How far the source's last two keyframes were apart, if there have been two.
    pub fn gop_duration(&self) -> Option<Duration> {
        self.shared.inner.lock().gop_duration
    }

    /// Every consumer's name and counters.
    pub fn consumers(&self) -> Vec<(String, ConsumerStats)> {
        self.shared.inner.lock().consumers.iter().map(|c| (c.name.clone(), c.stats())).collect()
    }

    /// Waits until the current session has delivered a frame.
    pub async fn session_frame(&self) {
        loop {
            let notified = self.shared.first_frame.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.shared.inner.lock().session_has_frame {
                return;
            }
            notified.await;
        }
    }

    /// How long ago the source's last frame came, `None` if none has come in this session.
    pub fn silence(&self) -> Option<Duration> {
        let inner = self.shared.inner.lock();
        inner.inputs.of(Input::Main).last.filter(|_| inner.session_has_frame).map(|at| at.elapsed())
    }

    /// When the source's last frame came, in this session or an earlier one.
    pub fn last_source_frame(&self) -> Option<Instant> {
        self.shared.inner.lock().inputs.of(Input::Main).last
    }

    /// Ends the stream: readers get what is queued and then `None`.
    pub fn close(&self) {
        let mut inner = self.shared.inner.lock();
        inner.closed = true;
        inner.forget_gop();
        for consumer in inner.consumers.drain(..) {
            consumer.close();
        }
        drop(inner);
        self.shared.closing.notify_waiters();
    }

    /// Waits until the stream has ended, for those who do not read at the moment.
    pub async fn closed(&self) {
        loop {
            let notified = self.shared.closing.notified();
            tokio::pin!(notified);
            // Registered before the look, so that a close in between is not missed.
            notified.as_mut().enable();
            if self.shared.inner.lock().closed {
                return;
            }
            notified.await;
        }
    }
}

impl Inner {
    fn is_sync(&self, frame: &Frame) -> bool {
        frame.keyframe && self.main_video.is_none_or(|video| video == frame.track)
    }

    fn keep(&mut self, frame: &Frame, sync: bool, max_bytes: usize, now: Instant) {
        if self.main_video.is_none() {
            return;
        }
        if sync {
            self.forget_gop();
            self.gop_since = Some(now);
            let before = self.last_sync.replace(frame.dts);
            self.gop_duration = before.map(|before| frame.dts.saturating_since(before)).or(self.gop_duration);
        } else if self.gop.is_empty() {
            return;
        }
        self.gop.push(frame.clone());
        self.gop_bytes += frame.data.len();
        if self.gop_bytes > max_bytes {
            self.forget_gop();
        }
    }

    fn forget_gop(&mut self) {
        self.gop.clear();
        self.gop_bytes = 0;
    }

    fn announce(&self) {
        for consumer in &self.consumers {
            consumer.push_item(HubItem::Tracks(self.tracks.clone()));
        }
    }

    fn tracks_changed(&mut self, tracks: Arc<[Track]>) {
        self.tracks = tracks;
        self.main_video = self.tracks.iter().find(|t| t.parameters.kind() == MediaKind::Video).map(|t| t.id);
        self.forget_gop();
        self.announce();
    }
}

impl Inner {
    fn accept(&mut self, frame: &Frame, now: Instant, gop_max_bytes: usize) {
        let sync = self.is_sync(frame);
        self.stats.frames += 1;
        self.stats.video_frames += u64::from(frame.is_video());
        self.stats.bytes += frame.data.len() as u64;
        self.stats.keyframes += u64::from(sync && self.main_video.is_some());
        self.stats.last_frame = Some(now);
        if frame.is_video() {
            self.last_picture = Some((frame.pts, now));
        }
        if std::mem::take(&mut self.discontinuity) {
            for consumer in &self.consumers {
                consumer.push_item(HubItem::Discontinuity);
            }
        }
        self.keep(frame, sync, gop_max_bytes, now);
        for consumer in &self.consumers {
            consumer.push_frame(frame, sync);
        }
    }
}

/// The end of a hub that a consumer reads from. Dropping it ends the subscription.
#[derive(Debug)]
pub struct HubReader {
    consumer: Arc<Consumer>,
    shared: Arc<Shared>,
}

impl HubReader {
    /// The next item; `None` once the hub is closed and the queue is empty. Cancel safe.
    pub async fn next(&mut self) -> Option<HubItem> {
        loop {
            match self.consumer.pop() {
                Ok(item) => return Some(item),
                Err(true) => return None,
                Err(false) => self.consumer.notify.notified().await,
            }
        }
    }

    /// The stream's tracks, as soon as it has some; frames before that are passed over. `None` once the hub is closed.
    pub async fn tracks(&mut self) -> Option<Arc<[Track]>> {
        loop {
            match self.next().await? {
                HubItem::Tracks(tracks) if !tracks.is_empty() => return Some(tracks),
                _ => {}
            }
        }
    }

    /// The next item if there is one waiting.
    pub fn try_next(&mut self) -> Option<HubItem> {
        self.consumer.pop().ok()
    }

    /// The next item, for a reader that has no use for frames that are decoded before `time`: it is only woken
    /// for that one, and then finds those before it waiting. Everything that is no frame wakes it at once.
    /// Waking a task for every frame is much of what a frame costs. Cancel safe.
    pub async fn next_from(&mut self, time: Option<MediaTime>) -> Option<HubItem> {
        if let Some(item) = self.try_next() {
            return Some(item);
        }
        self.consumer.wake_at(time);
        self.next().await
    }

    /// This reader's counters.
    pub fn stats(&self) -> ConsumerStats {
        self.consumer.stats()
    }

    /// The name it subscribed under.
    pub fn name(&self) -> &str {
        &self.consumer.name
    }

    /// The hub it reads from, to subscribe again.
    pub fn hub(&self) -> Hub {
        Hub { shared: self.shared.clone() }
    }
}

impl Drop for HubReader {
    fn drop(&mut self) {
        self.consumer.close();
        let mut inner = self.shared.inner.lock();
        inner.consumers.retain(|c| c.id != self.consumer.id);
        self.shared.tell_demand(&inner);
    }
}

#[cfg(test)]
mod tests;
