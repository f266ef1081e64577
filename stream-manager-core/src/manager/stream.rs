//! What a stream is made of, and the handle to one that runs.

use super::fallback::{Fallback, FallbackHandle, FallbackStatus};
use super::history::History;
use super::id::{InvalidStreamId, StreamId};
use super::supervisor::StateInfo;
use crate::backoff::RetryPolicy;
use crate::config::{AnalysisSettings, HlsSettings, ResolvedStream};
use crate::event::StreamState;
use crate::frame::TrackInfo;
use crate::hub::{ConsumerStats, Hub, HubOptions, HubStats};
use crate::recording::{RecordError, Recorder, RecorderHandle, RecorderStatus, Recording, Segment};
use crate::sink::Sink;
use crate::sink::forward::{ForwardHandle, ForwardStatus};
use crate::source::{PublishSlot, Rendition, Source, SourceError};
use crate::storage::retention::StreamLimits;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A builder's mark: there is no source yet.
#[derive(Debug)]
pub struct NoSource;

/// A stream that has not been started.
///
/// Made by [`Stream::builder`]; the compiler refuses one without a source:
///
/// ```
/// # use stream_manager_core::manager::Stream;
/// # use stream_manager_core::recording::Recording;
/// # use stream_manager_core::source::TestSource;
/// let stream = Stream::builder("door").source(TestSource::default()).record(Recording::fmp4());
/// ```
///
/// ```compile_fail
/// # use stream_manager_core::manager::{Stream, StreamManager};
/// let manager = StreamManager::builder().stream(Stream::builder("door"));
/// ```
pub struct Stream<S = Box<dyn Source>> {
    pub(super) id: String,
    pub(super) source: S,
    pub(super) recording: Option<Recording>,
    pub(super) record: bool,
    pub(super) retry: RetryPolicy,
    pub(super) hub: HubOptions,
    pub(super) sinks: Vec<Box<dyn Sink>>,
    pub(super) limits: Option<StreamLimits>,
    pub(super) directory: Option<String>,
    /// Its recording begins paused.
    pub(super) paused: bool,
    /// It is recorded whatever its modes say.
    pub(super) forced: bool,
    pub(super) analysis: AnalysisSettings,
    /// What is analysed instead of the source, if anything.
    pub(super) substream: Option<Box<dyn Source>>,
    pub(super) hls: HlsSettings,
    pub(super) forwards: Vec<(ForwardHandle, Box<dyn Sink>)>,
    pub(super) fallback: Option<Fallback>,
    #[cfg(feature = "onvif")]
    pub(super) camera_events: Option<crate::onvif::CameraEvents>,
    /// What is made of it, by name.
    pub(super) renditions: Vec<(String, Rendition)>,
    /// The same in other qualities, by name.
    pub(super) variants: Vec<(String, Box<dyn Source>)>,
    /// The variants that are recorded and analysed instead of it.
    pub(super) recorded: Option<String>,
    pub(super) analysed: Option<String>,
    pub(super) built: Option<ResolvedStream>,
    /// How long it goes on without readers, if it runs only for them.
    pub(super) on_demand: Option<Duration>,
}

impl Stream<NoSource> {
    /// Begins a stream with this id.
    pub fn builder(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            source: NoSource,
            recording: None,
            record: false,
            retry: RetryPolicy::default(),
            hub: HubOptions::default(),
            sinks: Vec::new(),
            limits: None,
            directory: None,
            paused: false,
            forced: false,
            analysis: AnalysisSettings::default(),
            substream: None,
            hls: HlsSettings::default(),
            forwards: Vec::new(),
            fallback: None,
            #[cfg(feature = "onvif")]
            camera_events: None,
            renditions: Vec::new(),
            variants: Vec::new(),
            recorded: None,
            analysed: None,
            built: None,
            on_demand: None,
        }
    }

    /// Sets where it comes from.
    pub fn source(self, source: impl Source) -> Stream {
        self.boxed_source(Box::new(source))
    }

    /// The same for a source that is boxed already, as [`from_url`](crate::source::from_url) makes them.
    pub fn boxed_source(self, source: Box<dyn Source>) -> Stream {
        let Self {
            id, recording, record, retry, hub, sinks, limits, directory, paused, forced, built, ..
        } = self;
        let Self { analysis, substream, hls, forwards, fallback, renditions, on_demand, .. } = self;
        let Self { variants, recorded, analysed, .. } = self;
        #[cfg(feature = "onvif")]
        let Self { camera_events, .. } = self;
        Stream {
            id,
            source,
            recording,
            record,
            retry,
            hub,
            sinks,
            limits,
            directory,
            paused,
            forced,
            analysis,
            substream,
            hls,
            forwards,
            fallback,
            #[cfg(feature = "onvif")]
            camera_events,
            renditions,
            variants,
            recorded,
            analysed,
            built,
            on_demand,
        }
    }
}

impl<S> Stream<S> {
    /// Records it from the start. Without a destination it goes into the manager's recordings folder.
    #[must_use]
    pub fn record(mut self, recording: Recording) -> Self {
        self.recording = Some(recording);
        self.record = true;
        self
    }

    /// Says how it is recorded when somebody starts the recording.
    #[must_use]
    pub fn record_on_demand(mut self, recording: Recording) -> Self {
        self.recording = Some(recording);
        self.record = false;
        self
    }

    /// Connects to the source only while somebody reads, and lets go of it so long after the last one: viewers by any protocol,
    /// the recording, the analysis, forwards, and sinks that keep their reader.
    #[must_use]
    pub fn on_demand(mut self, close_after: Duration) -> Self {
        self.on_demand = Some(close_after);
        self
    }

    /// Sets how long its recordings are kept, instead of what holds for all.
    #[must_use]
    pub fn limits(mut self, limits: StreamLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Chooses one of the manager's named folders for its recordings.
    #[must_use]
    pub fn directory(mut self, name: impl Into<String>) -> Self {
        self.directory = Some(name.into());
        self
    }

    /// Sets when and how it is tried again.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets how much of a GOP is kept for readers that come late.
    #[must_use]
    pub fn hub(mut self, options: HubOptions) -> Self {
        self.hub = options;
        self
    }

    /// Adds a consumer that runs for as long as the stream does.
    #[must_use]
    pub fn sink(mut self, sink: impl Sink) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Sends it on to another server, as [`forward_to`](crate::sink::forward::forward_to) makes it. How that stands is in
    /// the stream's status, and told as events.
    #[must_use]
    pub fn forward(mut self, handle: ForwardHandle, sink: Box<dyn Sink>) -> Self {
        self.forwards.push((handle, sink));
        self
    }

    /// Listens to what the camera notices by itself, and tells it as events of the stream. How that stands is in the stream's
    /// status.
    #[cfg(feature = "onvif")]
    #[must_use]
    pub fn camera_events(mut self, camera: crate::onvif::CameraEvents) -> Self {
        self.camera_events = Some(camera);
        self
    }

    /// Says what readers get while the source is silent.
    #[must_use]
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// Makes another stream of it, `<id>/<name>`, while somebody watches that: in another size, rate or codec.
    #[must_use]
    pub fn transcode(mut self, name: impl Into<String>, rendition: Rendition) -> Self {
        self.renditions.push((name.into(), rendition));
        self
    }

    /// Says where the camera sends the same in another quality: a stream of its own, `<id>/<name>`, that is connected to while somebody
    /// reads it.
    ///
    /// ```
    /// # use stream_manager_core::manager::Stream;
    /// # use stream_manager_core::source::RtspSource;
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let stream = Stream::builder("door")
    ///     .source(RtspSource::new("rtsp://192.0.2.7/main")?)
    ///     .variant("sub", Box::new(RtspSource::new("rtsp://192.0.2.7/sub")?))
    ///     .analyse_variant("sub");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn variant(mut self, name: impl Into<String>, source: Box<dyn Source>) -> Self {
        self.variants.push((name.into(), source));
        self
    }

    /// Records this [variant](Self::variant) instead of the stream itself.
    #[must_use]
    pub fn record_variant(mut self, name: impl Into<String>) -> Self {
        self.recorded = Some(name.into());
        self
    }

    /// Analyses this [variant](Self::variant) instead of the stream itself.
    #[must_use]
    pub fn analyse_variant(mut self, name: impl Into<String>) -> Self {
        self.analysed = Some(name.into());
        self
    }

    /// Says how its pictures are analysed (feature `inference`); by default only when somebody asks for it.
    #[must_use]
    pub fn analyse(mut self, settings: AnalysisSettings) -> Self {
        self.analysis = settings;
        self
    }

    /// Has the pictures of another source analysed: the camera's smaller stream.
    #[must_use]
    pub fn substream(mut self, source: Box<dyn Source>) -> Self {
        self.substream = Some(source);
        self
    }

    /// Says how it is packaged for HLS, DASH and fMP4 players (feature `hls`); by default with low latency, and only
    /// while somebody watches.
    #[must_use]
    pub fn package(mut self, settings: HlsSettings) -> Self {
        self.hls = settings;
        self
    }

    pub(super) fn checked_id(&self) -> Result<StreamId, InvalidStreamId> {
        self.id.parse()
    }
}

/// Everything about a stream at one moment.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    /// Its id.
    pub id: StreamId,
    /// Where it stands.
    pub state: StateInfo,
    /// Where it comes from, without secrets.
    pub source: String,
    /// Its tracks, once known.
    pub tracks: Vec<TrackInfo>,
    /// The hub's counters.
    pub hub: HubStats,
    /// The consumers by name.
    pub consumers: Vec<(String, ConsumerStats)>,
    /// The recording.
    pub recording: RecorderStatus,
    /// What it is sent on to.
    pub forwards: Vec<ForwardStatus>,
    /// What stands in for its source, if there is something.
    pub fallback: Option<FallbackStatus>,
    /// How the camera is listened to, if it is.
    #[cfg(feature = "onvif")]
    pub camera_events: Option<crate::onvif::CameraEventsStatus>,
}

/// A running stream. Clones are handles to the same one; dropping them changes nothing.
#[derive(Clone)]
pub struct StreamHandle {
    pub(super) shared: std::sync::Arc<StreamShared>,
}

pub(super) struct StreamShared {
    pub(super) id: StreamId,
    pub(super) address: String,
    pub(super) hub: Hub,
    pub(super) state: watch::Receiver<StateInfo>,
    pub(super) recorder: RecorderHandle,
    pub(super) publish: Option<PublishSlot>,
    #[cfg(feature = "inference")]
    pub(super) analysis: crate::inference::AnalysisHandle,
    /// How what is analysed instead of the source stands.
    #[cfg(feature = "inference")]
    pub(super) substream: Option<watch::Receiver<StateInfo>>,
    #[cfg(feature = "hls")]
    pub(super) packager: crate::hls::Packager,
    pub(super) forwards: Vec<ForwardHandle>,
    pub(super) fallback: Option<FallbackHandle>,
    #[cfg(feature = "onvif")]
    pub(super) camera_events: Option<crate::onvif::CameraEventsHandle>,
    /// The streams that are made of it.
    pub(super) renditions: Vec<StreamHandle>,
    /// Made of another stream, with which it ends.
    pub(super) derived: bool,
    /// Made because somebody published it.
    pub(super) by_pattern: bool,
    /// What it was made from, if that is a definition.
    pub(super) built: Mutex<Option<ResolvedStream>>,
    pub(super) history: Mutex<History>,
    pub(super) cancel: CancellationToken,
    pub(super) tasks: Mutex<Option<Tasks>>,
}

pub(super) struct Tasks {
    pub(super) supervisor: JoinHandle<Result<(), SourceError>>,
    pub(super) sinks: Vec<JoinHandle<()>>,
    /// The supervisor of what is analysed instead of the source.
    pub(super) substream: Option<JoinHandle<Result<(), SourceError>>>,
}

impl StreamHandle {
    /// Its id.
    pub fn id(&self) -> &StreamId {
        &self.shared.id
    }

    /// Its hub, to subscribe to.
    pub fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// The streams that are made of it, and those that show the same in other qualities.
    pub fn renditions(&self) -> &[StreamHandle] {
        &self.shared.renditions
    }

    /// Whether it is made of another stream.
    pub fn is_derived(&self) -> bool {
        self.shared.derived
    }

    /// Its recorder.
    pub fn recorder(&self) -> &RecorderHandle {
        &self.shared.recorder
    }

    /// Its analysis.
    #[cfg(feature = "inference")]
    pub fn analysis(&self) -> &crate::inference::AnalysisHandle {
        &self.shared.analysis
    }

    /// How the smaller stream that is analysed stands, if there is one.
    #[cfg(feature = "inference")]
    pub fn substream_state(&self) -> Option<StateInfo> {
        self.shared.substream.as_ref().map(|state| state.borrow().clone())
    }

    /// What packages it for HLS, DASH and fMP4 players.
    #[cfg(feature = "hls")]
    pub fn packager(&self) -> &crate::hls::Packager {
        &self.shared.packager
    }

    /// The place for its publisher, if it is published.
    pub fn publish_slot(&self) -> Option<PublishSlot> {
        self.shared.publish.clone()
    }

    /// What it was made from, if that is a definition.
    pub(super) fn built(&self) -> Option<ResolvedStream> {
        self.shared.built.lock().clone()
    }

    /// Whether its source and its sinks have ended.
    pub(super) fn is_finished(&self) -> bool {
        self.shared
            .tasks
            .lock()
            .as_ref()
            .is_none_or(|t| t.supervisor.is_finished() && t.sinks.iter().all(JoinHandle::is_finished))
    }

    /// Where it stands.
    pub fn state(&self) -> StateInfo {
        self.shared.state.borrow().clone()
    }

    /// Waits until it is in this state; `false` if `timeout` comes first or the stream has ended in
    /// another one.
    pub async fn wait_for(&self, state: StreamState, timeout: Duration) -> bool {
        let mut receiver = self.shared.state.clone();
        let reached = receiver.wait_for(|info| info.state == state);
        matches!(tokio::time::timeout(timeout, reached).await, Ok(Ok(_)))
    }

    /// Everything about it.
    pub fn status(&self) -> StreamStatus {
        let shared = &self.shared;
        StreamStatus {
            id: shared.id.clone(),
            state: self.state(),
            source: shared.address.clone(),
            tracks: shared.hub.tracks().iter().map(|t| TrackInfo::of(&t.parameters)).collect(),
            hub: shared.hub.stats(),
            consumers: shared.hub.consumers(),
            recording: shared.recorder.status(),
            forwards: shared.forwards.iter().map(ForwardHandle::status).collect(),
            fallback: shared.fallback.as_ref().map(FallbackHandle::status),
            #[cfg(feature = "onvif")]
            camera_events: shared.camera_events.as_ref().map(crate::onvif::CameraEventsHandle::status),
        }
    }

    /// Stops it and waits, for a bounded time, until its files are finished. Returns the error that ended
    /// its source, if one did.
    pub(super) async fn stop(&self, timeout: Duration) -> Result<(), SourceError> {
        self.shared.cancel.cancel();
        self.wait(timeout).await
    }

    /// Waits until its source and its sinks have ended.
    pub(super) async fn wait(&self, timeout: Duration) -> Result<(), SourceError> {
        let Some(tasks) = self.shared.tasks.lock().take() else { return Ok(()) };
        let wait = async {
            let result = tasks.supervisor.await;
            if let Some(substream) = tasks.substream {
                let _ = substream.await;
            }
            for rendition in &self.shared.renditions {
                // Its end is this one's.
                let _ = Box::pin(rendition.wait(timeout)).await;
            }
            for sink in tasks.sinks {
                // A sink that panicked has said so in the log.
                let _ = sink.await;
            }
            result.unwrap_or(Ok(()))
        };
        tokio::time::timeout(timeout, wait).await.unwrap_or_else(|_| {
            tracing::warn!(stream = %self.shared.id, ?timeout, "a stream did not end in time");
            Ok(())
        })
    }

    /// Stops its recording; see [`Recorder::stop`].
    ///
    /// # Errors
    /// As there.
    pub async fn stop_recording(&self) -> Result<Option<Segment>, RecordError> {
        self.shared.recorder.stop().await
    }
}
