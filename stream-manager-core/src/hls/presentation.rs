//! What a packager makes, as its viewers see it.

use super::live::Ring;
use super::rendition::Rendition;
use super::rules::LeftOut;
use super::text::Texts;
use crate::config::HlsSettings;
use crate::frame::{MediaTime, WallTime};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// Durations that playlists promise. They never shrink, since a playlist's promises hold for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Targets {
    /// Of segments, whole seconds.
    pub(super) segment: Duration,
    /// Of parts.
    pub(super) part: Duration,
}

/// A stream as it is packaged, from the first viewer to the last.
#[derive(Debug)]
pub struct Presentation {
    settings: HlsSettings,
    renditions: RwLock<Arc<[Arc<Rendition>]>>,
    left_out: RwLock<Vec<LeftOut>>,
    targets: Mutex<Targets>,
    /// The number of discontinuities, and when each that is still held began.
    epochs: Mutex<(u64, VecDeque<(u64, MediaTime)>)>,
    /// When the first one began, in whole seconds.
    first_start: OnceLock<MediaTime>,
    pub(super) ring: Ring,
    /// MPDs that were asked for in the last moment.
    pub(super) manifests: Texts,
    /// Whenever the renditions are others.
    changed: watch::Sender<()>,
    /// By how much its times are more than those of the stream itself, in nanoseconds.
    ahead: AtomicI64,
}

impl Presentation {
    pub(super) fn new(settings: HlsSettings) -> Self {
        let targets = Targets { segment: settings.segment_duration, part: settings.part_duration };
        Self {
            settings,
            renditions: RwLock::new(Arc::new([])),
            left_out: RwLock::default(),
            targets: Mutex::new(targets),
            epochs: Mutex::default(),
            first_start: OnceLock::new(),
            ring: Ring::default(),
            manifests: Texts::default(),
            changed: watch::Sender::new(()),
            ahead: AtomicI64::new(0),
        }
    }

    pub(super) fn set_ahead(&self, nanos: i64) {
        self.ahead.store(nanos, Ordering::Relaxed);
    }

    /// A time of the stream, as players have it: in UTC.
    pub fn utc_of(&self, pts: MediaTime) -> WallTime {
        WallTime::from_unix_nanos(pts.as_nanos().saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    /// The time of the stream that players have as this.
    pub(super) fn of_stream(&self, utc: MediaTime) -> MediaTime {
        MediaTime::from_nanos(utc.as_nanos().saturating_sub(self.ahead.load(Ordering::Relaxed)))
    }

    /// How it is packaged.
    pub fn settings(&self) -> &HlsSettings {
        &self.settings
    }

    /// Its renditions, video first.
    pub fn renditions(&self) -> Arc<[Arc<Rendition>]> {
        self.renditions.read().clone()
    }

    /// The rendition with this name.
    pub fn rendition(&self, name: &str) -> Option<Arc<Rendition>> {
        self.renditions.read().iter().find(|r| r.name() == name).cloned()
    }

    /// The rendition that segments are counted on: the video, else the first.
    pub fn main(&self) -> Option<Arc<Rendition>> {
        self.renditions.read().first().cloned()
    }

    pub(super) fn is_main(&self, id: u32) -> bool {
        self.renditions.read().first().is_some_and(|main| main.id() == id)
    }

    /// Tracks that players do not get.
    pub fn left_out(&self) -> Vec<LeftOut> {
        self.left_out.read().clone()
    }

    pub(super) fn set(&self, mut renditions: Vec<Arc<Rendition>>, left_out: Vec<LeftOut>) {
        renditions.sort_by_key(|r| (!r.is_video(), r.id()));
        *self.renditions.write() = renditions.into();
        *self.left_out.write() = left_out;
        self.changed.send_replace(());
    }

    pub(super) fn targets(&self) -> Targets {
        *self.targets.lock()
    }

    pub(super) fn raise_targets(&self, segment: Duration, part: Duration) {
        // EXTINF rounded to the nearest second must not be more than this (RFC 8216 section 4.3.3.1).
        let segment = Duration::from_secs((segment.as_secs_f64().round() as u64).max(1));
        // As exactly as playlists say it: three times what they say is what they promise to hold back.
        let part = Duration::from_micros(part.as_nanos().div_ceil(10_000) as u64 * 10);
        let mut targets = self.targets.lock();
        *targets = Targets { segment: targets.segment.max(segment), part: targets.part.max(part) };
    }

    pub(super) fn promise(&self, targets: Targets) {
        *self.targets.lock() = targets;
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epochs.lock().0
    }

    pub(super) fn next_epoch(&self) {
        self.epochs.lock().0 += 1;
    }

    pub(super) fn epoch_begins(&self, epoch: u64, start: MediaTime) {
        const SECOND: i64 = 1_000_000_000;
        self.first_start.get_or_init(|| MediaTime::from_nanos(start.as_nanos() / SECOND * SECOND));
        let mut epochs = self.epochs.lock();
        if epochs.1.back().is_none_or(|(last, _)| *last < epoch) {
            epochs.1.push_back((epoch, start));
        }
        // More than a window can have.
        if epochs.1.len() > 1000 {
            epochs.1.pop_front();
        }
    }

    pub(super) fn first_start(&self) -> Option<MediaTime> {
        self.first_start.get().copied()
    }

    /// The epochs that began, from this one on: numbers and beginnings.
    pub(super) fn epochs_from(&self, first: u64) -> Vec<(u64, MediaTime)> {
        self.epochs.lock().1.iter().filter(|(epoch, _)| *epoch >= first).copied().collect()
    }

    /// The length that no segment exceeds by half a second or more.
    pub fn target_duration(&self) -> Duration {
        self.targets().segment
    }

    /// How much playlists list: the window, and at least three segments.
    pub(super) fn kept_window(&self) -> Duration {
        self.settings.window.max(self.target_duration() * 3)
    }

    /// The length that no part exceeds.
    pub fn part_target(&self) -> Duration {
        self.targets().part
    }

    /// Whether players can begin.
    pub fn has_begun(&self) -> bool {
        self.renditions.read().first().is_some_and(|main| main.bitrates().is_some())
    }

    /// Whether there are tracks, and none that players take.
    pub fn has_nothing(&self) -> bool {
        self.main().is_none() && !self.left_out.read().is_empty()
    }

    /// Waits until there are renditions and the main one has begun, or there will be none. The caller bounds the wait.
    pub async fn begun(&self) {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(main) = self.main() {
                return main.wait_until(|r| r.bitrates().is_some() || r.has_ended()).await;
            }
            if self.has_nothing() || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Bytes of media that are held.
    pub fn held_bytes(&self) -> u64 {
        self.renditions.read().iter().map(|r| r.read(|held| held.bytes)).sum()
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        for rendition in self.renditions().iter() {
            rendition.change(|held| {
                held.close();
                held.ended = true;
            });
        }
        self.ring.end();
    }
}
