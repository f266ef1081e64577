//! Many streams in one process: the top of the library.
//!
//! [`StreamManager`] owns the streams, the disk threads and the event bus. It runs on the caller's tokio
//! runtime, prints nothing and installs nothing. [`shutdown`](StreamManager::shutdown) finishes every file;
//! dropping the last handle stops everything without waiting.
//!
//! ```no_run
//! use std::time::Duration;
//! use stream_manager_core::manager::{Stream, StreamManager};
//! use stream_manager_core::recording::Recording;
//! use stream_manager_core::source::RtspSource;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let manager = StreamManager::builder()
//!     .data_dir("/var/lib/stream-manager")
//!     .stream(
//!         Stream::builder("camera-1")
//!             .source(RtspSource::new("rtsp://admin:secret@192.0.2.7/stream1")?)
//!             .record(Recording::fmp4().segment_duration(Duration::from_secs(60))),
//!     )
//!     .build()
//!     .await?;
//! tokio::time::sleep(Duration::from_secs(3600)).await;
//! manager.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod backups;
mod builder;
mod change;
mod connects;
mod control;
mod definition;
#[cfg(feature = "inference")]
mod detect;
mod error;
mod events;
mod exports;
mod fallback;
mod from_config;
mod fsck;
mod history;
mod id;
mod info;
mod job;
mod loops;
mod marks;
mod objects;
mod open;
mod patch;
mod plan;
mod playback;
mod probe;
mod publish;
mod reconcile;
mod recordings;
mod reload;
mod settings;
mod snapshot;
mod storage;
mod stream;
mod supervisor;
mod system;
mod wish;

pub use crate::backoff::RetryPolicy;
pub use crate::frame::TrackInfo;
pub use backups::{BackupInfo, BackupState, BackupStatus, BackupTrigger};
pub use builder::StreamManagerBuilder;
pub use change::{ChangeOptions, DeleteRecordings, Done, KeyedAnswer, Operation, Outcome, Render};
pub use definition::{Definition, Origin, RecordingWish};
#[cfg(feature = "inference")]
pub use detect::{AnalysedFrame, DetectInput, DetectJob, DetectReport};
pub use error::ManagerError;
pub use events::{EventFilter, EventListener, Heard};
pub use exports::{ExportInfo, ExportState};
pub use fallback::{Fallback, FallbackStatus};
pub use from_config::{BuildError, check_stream, check_streams, pattern_from_config, stream_from_config};
pub use fsck::{FsckOptions, FsckReport, fsck};
pub use history::{SAMPLE_INTERVAL, Sample};
pub use id::{InvalidStreamId, StreamId};
pub use info::{StreamFilter, StreamInfo, StreamOrder};
pub use job::{JobError, JobReport, Progress, RecordJob};
pub use open::{OpenError, export_config};
#[cfg(feature = "http")]
pub(crate) use patch::{NO_ARRAY, find_array, pointer_of};
pub use playback::{MarkGroup, Timeline};
#[cfg(feature = "http")]
pub(crate) use probe::probe_with;
pub use probe::{ProbeReport, ProbeTrack, probe};
pub use publish::StreamPattern;
pub use recordings::{DirectoryReport, StorageReport, StreamReport};
pub use reload::{ConfigStatus, ConfigUser, ReloadError, ReloadReport, Trigger};
pub use snapshot::{Pictures, Snapshot, Strip, StripOptions, snapshot};
pub use stream::{NoSource, Stream, StreamHandle, StreamStatus};
pub use supervisor::StateInfo;
pub use system::SystemReport;

use crate::config::ResolvedStream;
use crate::event::EventBus;
use crate::recording::{Destination, RecorderContext, RecorderSink, Recording};
use crate::session::Sessions;
use crate::sink::Sink;
use crate::source::TranscodeSource;
use crate::storage::index::Index;
use connects::Connects;
use control::Control;
use parking_lot::Mutex;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::Storage;
use stream::{StreamShared, Tasks};
use supervisor::Supervisor;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Shorter segments are cut at their full length from the first: what is staggered is to be worth it.
const STAGGERED_FROM: Duration = Duration::from_secs(30);
/// How long stopping one stream may take, its files included.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Owns streams. Clones are handles to the same manager.
#[derive(Clone)]
pub struct StreamManager {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Storage,
    control: Control,
    connects: Connects,
    events: EventBus,
    sessions: Sessions,
    archive: std::sync::OnceLock<crate::playback::Archive>,
    exports: exports::Exports,
    backups: backups::Backups,
    made_pictures: snapshot::MadePictures,
    #[cfg(feature = "inference")]
    models: crate::inference::Models,
    streams: RwLock<BTreeMap<StreamId, StreamHandle>>,
    /// Patterns that the program has given.
    code_patterns: Vec<StreamPattern>,
    /// Patterns that are defined, with what they are made from.
    patterns: RwLock<Vec<(ResolvedStream, StreamPattern)>>,
    made: std::time::Instant,
    copying: Mutex<Option<JoinHandle<()>>>,
    sampling: Mutex<Option<JoinHandle<()>>>,
    backing_up: Mutex<Option<JoinHandle<()>>>,
    cancel: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The tasks hold nothing of the manager: they see this, finish their files and end.
        self.cancel.cancel();
        self.storage.abandon();
    }
}

/// How long a rendition goes on without readers.
const CLOSE_RENDITION_AFTER: Duration = Duration::from_secs(10);

/// Where a stream comes from.
struct Kin<'a> {
    /// A publisher whose id fits a pattern.
    by_pattern: bool,
    /// Another stream, which ends by this token, and shows the same.
    parent: Option<(&'a CancellationToken, &'a crate::hub::Hub)>,
}

/// Takes a sample of each stream now and then.
async fn sample(inner: std::sync::Weak<Inner>, cancel: CancellationToken) {
    let mut tick = tokio::time::interval(SAMPLE_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(tick.tick()).await.is_some() {
        let Some(inner) = inner.upgrade() else { return };
        let streams: Vec<StreamHandle> = inner.streams.read().values().cloned().collect();
        for stream in &streams {
            stream.sample();
            stream.renditions().iter().for_each(StreamHandle::sample);
        }
    }
}

impl StreamManager {
    /// Begins a manager.
    pub fn builder() -> StreamManagerBuilder {
        StreamManagerBuilder::new()
    }

    /// Adds a stream and starts it.
    ///
    /// # Errors
    /// If its id is wrong or taken, or its recording's settings do not make sense.
    pub fn add_stream(&self, stream: Stream) -> Result<StreamHandle, ManagerError> {
        self.forget_ended();
        if self.inner.control.defined.read().get(&stream.id).is_some() {
            return Err(ManagerError::Exists(stream.id));
        }
        self.add(stream, false)
    }

    fn add(&self, stream: Stream, by_pattern: bool) -> Result<StreamHandle, ManagerError> {
        let id = stream.checked_id()?;
        let mut streams = self.inner.streams.write();
        if self.inner.cancel.is_cancelled() {
            return Err(ManagerError::ShutDown);
        }
        if streams.contains_key(&id) {
            return Err(ManagerError::Exists(id.to_string()));
        }
        let handle = self.launch(id.clone(), stream, Kin { by_pattern, parent: None })?;
        streams.insert(id, handle.clone());
        Ok(handle)
    }

    /// The streams that are made of one, and its other qualities, which end with it.
    fn launch_renditions(
        &self,
        id: &StreamId,
        stream: &mut Stream,
        parent: &crate::hub::Hub,
        cancel: &CancellationToken,
    ) -> Result<Vec<StreamHandle>, ManagerError> {
        let (hub, close_after) = (stream.hub, stream.on_demand.unwrap_or(CLOSE_RENDITION_AFTER));
        let launch = |child: Stream| {
            let child = child.hub(hub).on_demand(close_after);
            let kin = Kin { by_pattern: false, parent: Some((cancel, parent)) };
            self.launch(child.checked_id()?, child, kin)
        };
        let mut made = Vec::new();
        for (name, rendition) in std::mem::take(&mut stream.renditions) {
            let source = TranscodeSource::new(parent.clone()).rendition(rendition);
            made.push(launch(Stream::builder(format!("{id}/{name}")).source(source))?);
        }
        for (name, source) in std::mem::take(&mut stream.variants) {
            let child = Stream::builder(format!("{id}/{name}")).boxed_source(source);
            made.push(launch(child.retry(stream.retry))?);
        }
        #[cfg(feature = "inference")]
        {
            // An id that is too long for that has none, and a name that somebody has given is theirs.
            let annotated = format!("{id}/{}", crate::config::ANNOTATED).parse::<StreamId>().ok();
            let is_free =
                |annotated: &StreamId| made.iter().all(|made: &StreamHandle| made.id() != annotated);
            if let Some(annotated) = annotated.filter(|id| stream.analysis.is_annotated() && is_free(id)) {
                let overlay = Arc::new(crate::inference::Overlay::new(parent));
                let source =
                    TranscodeSource::new(parent.clone()).rendition(Default::default()).paint(overlay);
                made.push(launch(Stream::builder(annotated.as_str()).source(source))?);
            }
        }
        Ok(made)
    }

    fn launch(&self, id: StreamId, mut stream: Stream, kin: Kin<'_>) -> Result<StreamHandle, ManagerError> {
        let Kin { by_pattern, parent } = kin;
        let cancel = parent.map_or(&self.inner.cancel, |(cancel, _)| cancel).child_token();
        // Until all of it runs, nothing of it is to stay.
        let unless_all = cancel.clone().drop_guard();
        let hub = match parent {
            Some((_, shown)) => crate::hub::Hub::beside(stream.hub, shown),
            None => crate::hub::Hub::new(stream.hub),
        };
        let renditions = self.launch_renditions(&id, &mut stream, &hub, &cancel)?;
        let variant = |key: &str, name: Option<String>| match name {
            None => Ok(None),
            Some(name) => {
                let wanted = format!("{id}/{name}");
                let found = renditions.iter().find(|made| made.id().as_str() == wanted);
                found.map(Some).ok_or_else(|| ManagerError::Invalid {
                    pointer: key.into(),
                    problem: format!("\"{name}\" is none of the stream's variants"),
                })
            }
        };
        let recorded = variant("/recording/variant", stream.recorded)?;
        #[cfg(feature = "inference")]
        let chosen = variant("/inference/variant", stream.analysed)?;
        let events = self.inner.events.for_stream(id.shared());
        let mut recording = stream.recording.unwrap_or_else(Recording::fmp4);
        let directory = self.inner.storage.directory(stream.directory.as_deref())?;
        let mut context = RecorderContext::new(directory.pool.clone(), id.shared()).events(events.clone());
        if recording.destination.is_none() {
            recording.destination = Some(Destination::Folder(directory.place.path().join(id.as_str())));
            context = context.place(directory.place.clone());
            if recording.segment_duration.is_some_and(|d| d >= STAGGERED_FROM) {
                recording = recording.stagger(id.phase());
            }
        }
        if let (Some(index), Some(Destination::Folder(_))) =
            (self.inner.storage.index(), &recording.destination)
        {
            context = context.index(index.clone());
        }
        self.inner.storage.limit(&id, stream.limits);
        let (recorder, sink) = RecorderSink::new(recording, context, stream.record)?;
        let sink = if stream.paused { sink.paused() } else { sink };
        let sink = if stream.forced { sink.by_hand() } else { sink };
        let (sender, state) = watch::channel(StateInfo::idle());
        let recorder_task = spawn_sink(Box::new(sink), recorded.map_or(&hub, StreamHandle::hub), &id);
        let mut sinks: Vec<Box<dyn Sink>> = stream.sinks;
        let mut forwards = Vec::new();
        for (handle, sink) in stream.forwards {
            handle.tell(events.clone());
            forwards.push(handle);
            sinks.push(sink);
        }
        #[cfg(feature = "hls")]
        let packager = {
            let (packager, sink) = crate::hls::Packager::new(stream.hls, id.shared());
            sinks.push(Box::new(sink));
            packager
        };
        let mut sinks: Vec<_> = sinks.into_iter().map(|sink| spawn_sink(sink, &hub, &id)).collect();
        sinks.push(recorder_task);
        let (address, publish) = (stream.source.address(), stream.source.publish_slot());
        #[cfg_attr(not(feature = "inference"), expect(unused_mut))]
        let mut substream: Option<JoinHandle<_>> = None;
        #[cfg(feature = "inference")]
        let (analysis, substream_state) = {
            let mut state_of = None;
            let metadata = stream.analysis.metadata_track.then(|| hub.clone());
            let (handle, sink) =
                crate::inference::Analysis::new(self.inner.models.clone(), stream.analysis, events.clone());
            let sink = metadata.into_iter().fold(sink, crate::inference::Analysis::metadata);
            let storage = &self.inner.storage;
            let log = objects::StreamLog::new(id.shared(), storage.objects.clone(), storage.index().cloned());
            let present = objects::record_while_present(log.present(), recorder.clone(), cancel.clone());
            sinks.push(tokio::spawn(present));
            let sink = sink.log(Arc::new(log));
            let analysed = match (stream.substream, chosen) {
                (_, Some(variant)) => {
                    state_of = Some(variant.shared.state.clone());
                    variant.hub().clone()
                }
                (None, None) => hub.clone(),
                (Some(source), None) => {
                    let small = crate::hub::Hub::beside(stream.hub, &hub);
                    let (state, receiver) = watch::channel(StateInfo::idle());
                    state_of = Some(receiver);
                    let supervisor = Supervisor {
                        source,
                        hub: small.clone(),
                        policy: stream.retry,
                        connects: self.inner.connects.clone(),
                        // What becomes of it is told by the analysis; the stream's own state is another one.
                        events: EventBus::new(1).for_stream(id.shared()),
                        state,
                        on_demand: stream.on_demand,
                        cancel: cancel.clone(),
                        origin: crate::trace::Origin::default(),
                    };
                    substream = Some(tokio::spawn(supervisor.run()));
                    small
                }
            };
            sinks.push(spawn_sink(Box::new(sink), &analysed, &id));
            (handle, state_of)
        };
        let fallback = stream.fallback.map(|fallback| {
            let context = fallback::Context {
                id: id.clone(),
                hub: hub.clone(),
                events: events.clone(),
                state: state.clone(),
                on_demand: stream.on_demand.is_some(),
                policy: stream.retry,
                cancel: cancel.clone(),
            };
            let (handle, stand_in) = fallback::StandIn::new(fallback, context);
            // It ends with the stream, as sinks do.
            sinks.push(tokio::spawn(stand_in.run()));
            handle
        });
        #[cfg(feature = "onvif")]
        let camera_events = stream.camera_events.map(|camera| {
            let handle = camera.handle();
            sinks.push(tokio::spawn(camera.run(events.clone(), cancel.clone())));
            handle
        });
        let supervisor = Supervisor {
            source: stream.source,
            hub: hub.clone(),
            policy: stream.retry,
            connects: self.inner.connects.clone(),
            events,
            state: sender,
            on_demand: stream.on_demand,
            cancel: cancel.clone(),
            origin: crate::trace::Origin::current(),
        };
        let supervisor = tokio::spawn(supervisor.run());
        let tasks = Mutex::new(Some(Tasks { supervisor, sinks, substream }));
        let (built, history) = (Mutex::new(stream.built), Mutex::default());
        let shared = StreamShared {
            id,
            address,
            hub,
            state,
            recorder,
            publish,
            #[cfg(feature = "inference")]
            analysis,
            #[cfg(feature = "inference")]
            substream: substream_state,
            #[cfg(feature = "hls")]
            packager,
            forwards,
            fallback,
            #[cfg(feature = "onvif")]
            camera_events,
            renditions,
            derived: parent.is_some(),
            by_pattern,
            built,
            history,
            cancel,
            tasks,
        };
        unless_all.disarm();
        let handle = StreamHandle { shared: Arc::new(shared) };
        handle.sample();
        Ok(handle)
    }

    /// Stops a stream, finishes its files and forgets it. Its recordings stay.
    ///
    /// # Errors
    /// If there is no such stream.
    pub async fn remove_stream(&self, id: &str) -> Result<(), ManagerError> {
        let handle = self.stream(id)?;
        // Stopped before it is forgotten: until then its id, and so its folder, is taken.
        let _ = handle.stop(STOP_TIMEOUT).await;
        self.inner.streams.write().remove(handle.id());
        Ok(())
    }

    /// The stream with this id.
    ///
    /// # Errors
    /// If there is none.
    pub fn stream(&self, id: &str) -> Result<StreamHandle, ManagerError> {
        let not_found = || ManagerError::NotFound(id.chars().take(200).collect());
        let key: StreamId = id.parse().map_err(|_| not_found())?;
        let streams = self.inner.streams.read();
        if let Some(handle) = streams.get(&key) {
            return Ok(handle.clone());
        }
        // One that is made of another.
        let parent = id.rsplit_once('/').and_then(|(parent, _)| parent.parse::<StreamId>().ok());
        let parent = parent.and_then(|parent| streams.get(&parent));
        let made = parent.and_then(|parent| parent.renditions().iter().find(|made| *made.id() == key));
        made.cloned().ok_or_else(not_found)
    }

    /// All streams, by id.
    pub fn streams(&self) -> Vec<StreamHandle> {
        self.forget_ended();
        self.inner.streams.read().values().cloned().collect()
    }

    /// The models that streams are analysed by.
    #[cfg(feature = "inference")]
    pub fn models(&self) -> &crate::inference::Models {
        &self.inner.models
    }

    /// Who reads and who publishes, over all protocols.
    pub fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    /// The events of all streams.
    pub fn events(&self) -> &EventBus {
        &self.inner.events
    }

    /// Where recordings go that choose no other folder.
    pub fn recordings_dir(&self) -> &std::path::Path {
        self.inner.storage.default_path()
    }

    /// Where the manager keeps what it remembers, if it does.
    pub fn data_dir(&self) -> Option<&std::path::Path> {
        self.inner.storage.index().map(|index| index.data_dir())
    }

    /// The index of recordings, if there is a data folder.
    pub fn index(&self) -> Option<&Index> {
        self.inner.storage.index()
    }

    /// Whether it has been shut down.
    pub fn is_shut_down(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    /// Stops every stream and waits until all files are finished, half a minute at most.
    pub async fn shutdown(&self) {
        // Changes that are under way are carried through as far as they come.
        self.inner.control.tasks.close();
        let handles: Vec<StreamHandle> = {
            let streams = self.inner.streams.write();
            self.inner.cancel.cancel();
            streams.values().cloned().collect()
        };
        futures_util::future::join_all(handles.iter().map(|handle| handle.stop(STOP_TIMEOUT))).await;
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.inner.control.tasks.wait()).await;
        for task in [&self.inner.copying, &self.inner.sampling, &self.inner.backing_up] {
            let task = task.lock().take();
            if let Some(task) = task {
                // All see the token.
                let _ = tokio::time::timeout(STOP_TIMEOUT, task).await;
            }
        }
        #[cfg(feature = "inference")]
        self.inner.models.close().await;
        self.inner.storage.close().await;
    }
}

fn spawn_sink(mut sink: Box<dyn Sink>, hub: &crate::hub::Hub, id: &StreamId) -> JoinHandle<()> {
    let reader = hub.subscribe(sink.name(), crate::hub::ReaderOptions::default());
    let id = id.clone();
    tokio::spawn(async move {
        // A stream's end closes its hub, which is how sinks learn of it.
        if let Err(error) = sink.run(reader, CancellationToken::new()).await {
            tracing::error!(stream = %id, %error, "a sink has failed");
        }
    })
}
