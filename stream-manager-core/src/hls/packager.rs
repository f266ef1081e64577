//! The packager of one stream: a sink that reads its hub only while somebody watches.

use super::presentation::Presentation;
use super::rules::LeftOut;
use super::work::Work;
use crate::config::HlsSettings;
use crate::frame::WallTime;
use crate::hub::{Hub, HubItem, HubReader, ReaderOptions};
use crate::sink::{Sink, SinkError};
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether anybody still watches.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Where packaging stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PackagerState {
    /// It may not be had.
    Off,
    /// Nobody watches.
    Idle,
    /// Somebody watches, or it is packaged all the time.
    Packaging,
}

/// A rendition in short.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RenditionStatus {
    /// As its playlist is called.
    pub name: String,
    /// The stream's track that it carries.
    pub track: u32,
    /// Its codec, as RFC 6381 writes it.
    pub codecs: Option<String>,
    /// The codec that it was encoded from, if it was.
    pub encoded_from: Option<&'static str>,
    /// Segments that are held.
    pub segments: usize,
    /// Bytes that are held.
    pub bytes: u64,
    /// The highest bit rate of a segment.
    pub peak_bps: Option<u64>,
    /// The mean bit rate.
    pub average_bps: Option<u64>,
}

/// Everything about packaging at one moment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PackagerStatus {
    /// Where it stands.
    pub state: PackagerState,
    /// The tracks that players get; none while nobody watches.
    pub renditions: Vec<RenditionStatus>,
    /// The tracks that they do not get, by the rules or because it failed.
    pub left_out: Vec<LeftOut>,
    /// Tracks that are encoded anew for players.
    pub encoded: Vec<LeftOut>,
}

/// Why there is nothing to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It is switched off for this stream.
    #[error("the stream is not packaged for players; hls.enabled is false")]
    Off,
    /// Nothing has come.
    #[error("nothing has come from the stream yet")]
    NothingYet,
    /// None of its tracks can be had.
    #[error("none of the stream's tracks can be packaged for players")]
    NoTracks,
    /// The stream has ended.
    #[error("the stream has ended")]
    Ended,
}

struct Shared {
    id: Arc<str>,
    settings: watch::Sender<HlsSettings>,
    present: watch::Sender<Option<Arc<Presentation>>>,
    /// Counts those who want it, so that a change is seen.
    wanted: watch::Sender<u64>,
    made: Instant,
    /// When it was last asked for, in milliseconds since it was made.
    last_use: AtomicU64,
    users: AtomicUsize,
    next_number: AtomicU64,
    hub: parking_lot::Mutex<Option<Hub>>,
}

/// The handle to a stream's packager. Clones are handles to the same one.
#[derive(Clone)]
pub struct Packager {
    shared: Arc<Shared>,
}

/// Packaging goes on for at least as long as this is kept.
pub struct PackagerUse {
    shared: Arc<Shared>,
}

impl Drop for PackagerUse {
    fn drop(&mut self) {
        self.shared.touch();
        self.shared.users.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn touch(&self) {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_use.store(now, Ordering::Relaxed);
    }

    fn idle_for(&self) -> Duration {
        if self.users.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.made.elapsed().saturating_sub(Duration::from_millis(self.last_use.load(Ordering::Relaxed)))
    }
}

impl Packager {
    /// A packager and the sink that does its work.
    pub fn new(settings: HlsSettings, id: Arc<str>) -> (Self, PackagerSink) {
        let shared = Arc::new(Shared {
            id,
            settings: watch::Sender::new(settings),
            present: watch::Sender::new(None),
            wanted: watch::Sender::new(0),
            made: Instant::now(),
            last_use: AtomicU64::new(0),
            users: AtomicUsize::new(0),
            next_number: AtomicU64::new(0),
            hub: parking_lot::Mutex::new(None),
        });
        (Self { shared: shared.clone() }, PackagerSink { shared })
    }

    /// Other settings from now on. Who watches has to begin again if they differ.
    pub fn configure(&self, settings: HlsSettings) {
        self.shared.settings.send_if_modified(|old| {
            let differs = *old != settings;
            *old = settings;
            differs
        });
    }

    /// Its settings.
    pub fn settings(&self) -> HlsSettings {
        self.shared.settings.borrow().clone()
    }

    /// Keeps packaging going while the result is kept.
    pub fn keep(&self) -> PackagerUse {
        self.shared.users.fetch_add(1, Ordering::Relaxed);
        self.shared.touch();
        self.shared.wanted.send_modify(|count| *count += 1);
        PackagerUse { shared: self.shared.clone() }
    }

    /// What is packaged at the moment. Counts as being asked for.
    pub fn now(&self) -> Option<Arc<Presentation>> {
        self.shared.touch();
        self.shared.present.borrow().clone()
    }

    /// What is packaged, begun if need be; waits until players can begin, or `timeout`.
    ///
    /// # Errors
    /// If nothing can be had.
    pub async fn present(&self, timeout: Duration) -> Result<Arc<Presentation>, NotReady> {
        if !self.shared.settings.borrow().enabled {
            return Err(NotReady::Off);
        }
        let _keep = self.keep();
        let mut present = self.shared.present.subscribe();
        let begun = async {
            let found = present.wait_for(Option::is_some).await.map(|p| p.clone());
            let presentation = found.ok().flatten()?;
            presentation.begun().await;
            Some(presentation)
        };
        match tokio::time::timeout(timeout, begun).await {
            Ok(Some(presentation)) if presentation.has_begun() => Ok(presentation),
            Ok(Some(presentation)) if presentation.has_nothing() => Err(NotReady::NoTracks),
            Ok(_) => Err(NotReady::Ended),
            Err(_) => Err(NotReady::NothingYet),
        }
    }

    /// How it stands.
    pub fn status(&self) -> PackagerStatus {
        let shared = &self.shared;
        let present = shared.present.borrow().clone();
        let state = match (&present, shared.settings.borrow().enabled) {
            (_, false) => PackagerState::Off,
            (None, true) => PackagerState::Idle,
            (Some(_), true) => PackagerState::Packaging,
        };
        let hub = shared.hub.lock().clone();
        let tracks = hub.map(|hub| hub.tracks());
        let (planned, rules) = super::rules::plan(tracks.as_deref().unwrap_or_default());
        let codec_of = |track: u32| planned.iter().find(|p| p.id.0 == track && p.is_encoded());
        let renditions = present.iter().flat_map(|p| p.renditions().to_vec()).map(|rendition| {
            let (segments, bytes) = rendition.read(|held| (held.segments.len(), held.bytes));
            let rates = rendition.bitrates();
            RenditionStatus {
                name: rendition.name().to_owned(),
                track: rendition.track().0,
                codecs: rendition.parameters().rfc6381(),
                encoded_from: codec_of(rendition.track().0).map(|p| p.input.codec().name()),
                segments,
                bytes,
                peak_bps: rates.map(|r| r.0),
                average_bps: rates.map(|r| r.1),
            }
        });
        let encoded = planned.iter().filter(|p| p.is_encoded()).map(|p| LeftOut {
            track: p.id.0,
            codec: p.input.codec().name(),
            reason: format!("encoded as {} for players", p.output.codec().name()),
        });
        PackagerStatus {
            state,
            renditions: renditions.collect(),
            left_out: present.as_ref().map_or(rules, |p| p.left_out()),
            encoded: encoded.collect(),
        }
    }
}

/// Does a packager's work.
pub struct PackagerSink {
    shared: Arc<Shared>,
}

impl PackagerSink {
    /// Packages until nobody watches any more. `false` when the stream is over.
    async fn session(&self, hub: &Hub, settings: HlsSettings, cancel: &CancellationToken) -> bool {
        let shared = &self.shared;
        let mut changes = shared.settings.subscribe();
        let presentation = Arc::new(Presentation::new(settings.clone()));
        // Numbers go on from the time: no number comes again when the server is started anew.
        let seconds = u64::try_from(WallTime::now().as_unix_nanos() / 1_000_000_000).unwrap_or(0);
        let number = shared.next_number.load(Ordering::Relaxed).max(seconds);
        let mut work = Work::new(presentation.clone(), shared.id.clone(), number);
        let mut reader = hub.subscribe("hls", ReaderOptions::default());
        let kept: Vec<HubItem> = std::iter::from_fn(|| reader.try_next()).collect();
        work.begin(hub, kept).await;
        shared.present.send_replace(Some(presentation));
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let goes_on = loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break false,
                item = reader.next() => match item {
                    Some(item) => work.take(item).await,
                    None => break false,
                },
                _ = changes.changed() => break true,
                _ = look.tick() => {
                    if !settings.always && shared.idle_for() >= settings.idle_timeout {
                        break true;
                    }
                }
            }
        };
        work.finish();
        shared.next_number.store(work.next_number() + 1, Ordering::Relaxed);
        // What there is of a stream that has ended can be had for as long as the stream is there.
        if goes_on {
            shared.present.send_replace(None);
        }
        goes_on
    }
}

#[async_trait::async_trait]
impl Sink for PackagerSink {
    async fn run(&mut self, reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
        let hub = reader.hub();
        drop(reader);
        *self.shared.hub.lock() = Some(hub.clone());
        let mut wanted = self.shared.wanted.subscribe();
        let mut changes = self.shared.settings.subscribe();
        loop {
            wanted.mark_unchanged();
            let settings = changes.borrow_and_update().clone();
            let is_wanted = self.shared.users.load(Ordering::Relaxed) > 0;
            if settings.enabled && (settings.always || is_wanted) {
                if self.session(&hub, settings, &cancel).await {
                    continue;
                }
                break;
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                () = hub.closed() => break,
                _ = changes.changed() => {}
                _ = wanted.changed() => {}
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        "hls".into()
    }
}
