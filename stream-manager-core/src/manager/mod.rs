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

mod backoff;
mod from_config;
mod fsck;
mod id;
mod job;
mod probe;
mod publish;
mod recordings;
mod storage;
mod stream;
mod supervisor;

pub use crate::frame::TrackInfo;
pub use backoff::RetryPolicy;
pub use from_config::{BuildError, check_streams, pattern_from_config, stream_from_config};
pub use fsck::{FsckOptions, FsckReport, fsck};
pub use id::{InvalidStreamId, StreamId};
pub use job::{JobError, JobReport, Progress, RecordJob};
pub use probe::{ProbeReport, ProbeTrack, probe};
pub use publish::StreamPattern;
pub use recordings::{DirectoryReport, StorageReport, StreamReport};
pub use stream::{NoSource, Stream, StreamHandle, StreamStatus};
pub use supervisor::StateInfo;

use crate::event::EventBus;
use crate::recording::{Destination, RecordError, RecorderContext, RecorderSink, Recording};
use crate::session::Sessions;
use crate::sink::Sink;
use crate::storage::index::{Index, IndexError};
use crate::storage::retention::RetentionPolicy;
use crate::storage::{LockError, StorageError};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::Storage;
use stream::{StreamShared, Tasks};
use supervisor::Supervisor;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Shorter segments are cut at their full length from the first: what is staggered is to be worth it.
const STAGGERED_FROM: Duration = Duration::from_secs(30);
/// How long stopping one stream may take, its files included.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What the manager refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// The id is not one.
    #[error(transparent)]
    InvalidId(#[from] InvalidStreamId),
    /// The id is taken.
    #[error("a stream with the id \"{0}\" exists already; choose another id, or delete that one first")]
    Exists(StreamId),
    /// There is no such stream.
    #[error("there is no stream with the id \"{0}\"")]
    NotFound(String),
    /// The recording's settings do not make sense.
    #[error(transparent)]
    Recording(#[from] RecordError),
    /// The data folder is in use, or cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The index of recordings cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// There is no index: the manager was made without a data folder.
    #[error("nothing is known of recordings: the manager was made without a data_dir")]
    NoIndex,
    /// There is no folder for recordings with that name.
    #[error("there is no recordings folder named \"{name}\"; expected one of: {known}")]
    NoDirectory {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The disk threads do not start.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A stream's configuration cannot be carried out.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The manager has been shut down.
    #[error("the manager has been shut down")]
    ShutDown,
}

/// Makes a [`StreamManager`].
pub struct StreamManagerBuilder {
    data_dir: Option<PathBuf>,
    recordings_dir: Option<PathBuf>,
    directories: BTreeMap<String, PathBuf>,
    retention: RetentionPolicy,
    max_connects: usize,
    disk_threads: usize,
    streams: Vec<Stream>,
    patterns: Vec<StreamPattern>,
}

impl StreamManagerBuilder {
    /// Where the manager keeps what it has to remember: the index of recordings. Only one manager may use a
    /// folder at a time. Without one nothing is remembered, and nothing deleted.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Adds a folder for recordings that streams may choose by its name.
    #[must_use]
    pub fn directory(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.directories.insert(name.into(), path.into());
        self
    }

    /// Sets how long recordings are kept.
    #[must_use]
    pub fn retention(mut self, policy: RetentionPolicy) -> Self {
        self.retention = policy;
        self
    }

    /// Where recordings go; `recordings` in the data folder by default, or `data/recordings` without one.
    #[must_use]
    pub fn recordings_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.recordings_dir = Some(path.into());
        self
    }

    /// How many sources may be connecting at one time; 16 by default.
    #[must_use]
    pub fn max_connects(mut self, number: usize) -> Self {
        self.max_connects = number.max(1);
        self
    }

    /// How many threads write to each disk; 2 by default.
    #[must_use]
    pub fn disk_threads(mut self, number: usize) -> Self {
        self.disk_threads = number.max(1);
        self
    }

    /// Adds a stream that starts with the manager.
    #[must_use]
    pub fn stream(mut self, stream: Stream) -> Self {
        self.streams.push(stream);
        self
    }

    /// Adds streams that come into being when they are published.
    #[must_use]
    pub fn pattern(mut self, pattern: StreamPattern) -> Self {
        self.patterns.push(pattern);
        self
    }

    /// Starts the manager and its streams. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If an id is wrong or taken, or a recording's settings do not make sense; nothing runs then.
    pub async fn build(self) -> Result<StreamManager, ManagerError> {
        let events = EventBus::default();
        let cancel = CancellationToken::new();
        let storage = Storage::open(
            storage::Settings {
                data_dir: self.data_dir,
                recordings_dir: self.recordings_dir,
                directories: self.directories,
                retention: self.retention,
                disk_threads: self.disk_threads,
            },
            &events,
            &cancel,
        )
        .await?;
        let manager = StreamManager {
            inner: Arc::new(Inner {
                storage,
                connects: Arc::new(Semaphore::new(self.max_connects)),
                sessions: Sessions::new(events.clone()),
                events,
                streams: RwLock::default(),
                patterns: self.patterns,
                cancel,
            }),
        };
        let mut result = Ok(());
        for stream in self.streams {
            result = manager.add_stream(stream).map(drop);
            if result.is_err() {
                break;
            }
        }
        if let Err(error) = result {
            manager.shutdown().await;
            return Err(error);
        }
        Ok(manager)
    }
}

/// Owns streams. Clones are handles to the same manager.
#[derive(Clone)]
pub struct StreamManager {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Storage,
    connects: Arc<Semaphore>,
    events: EventBus,
    sessions: Sessions,
    streams: RwLock<BTreeMap<StreamId, StreamHandle>>,
    patterns: Vec<StreamPattern>,
    cancel: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The tasks hold nothing of the manager: they see this, finish their files and end.
        self.cancel.cancel();
    }
}

impl StreamManager {
    /// Begins a manager.
    pub fn builder() -> StreamManagerBuilder {
        StreamManagerBuilder {
            data_dir: None,
            recordings_dir: None,
            directories: BTreeMap::new(),
            retention: RetentionPolicy::default(),
            max_connects: 16,
            disk_threads: 2,
            streams: Vec::new(),
            patterns: Vec::new(),
        }
    }

    /// Adds a stream and starts it.
    ///
    /// # Errors
    /// If its id is wrong or taken, or its recording's settings do not make sense.
    pub fn add_stream(&self, stream: Stream) -> Result<StreamHandle, ManagerError> {
        self.forget_ended();
        self.add(stream, false)
    }

    fn add(&self, stream: Stream, by_pattern: bool) -> Result<StreamHandle, ManagerError> {
        let id = stream.checked_id()?;
        let mut streams = self.inner.streams.write();
        if self.inner.cancel.is_cancelled() {
            return Err(ManagerError::ShutDown);
        }
        if streams.contains_key(&id) {
            return Err(ManagerError::Exists(id));
        }
        let handle = self.start(id.clone(), stream, by_pattern)?;
        streams.insert(id, handle.clone());
        Ok(handle)
    }

    fn start(&self, id: StreamId, stream: Stream, by_pattern: bool) -> Result<StreamHandle, ManagerError> {
        let hub = crate::hub::Hub::new(stream.hub);
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
        let cancel = self.inner.cancel.child_token();
        let (sender, state) = watch::channel(StateInfo::idle());
        let mut sinks: Vec<Box<dyn Sink>> = stream.sinks;
        sinks.push(Box::new(sink));
        let sinks = sinks.into_iter().map(|sink| spawn_sink(sink, &hub, &id)).collect();
        let (address, publish) = (stream.source.address(), stream.source.publish_slot());
        let supervisor = Supervisor {
            source: stream.source,
            hub: hub.clone(),
            policy: stream.retry,
            connects: self.inner.connects.clone(),
            events,
            state: sender,
            cancel: cancel.clone(),
        };
        let supervisor = tokio::spawn(supervisor.run());
        let tasks = parking_lot::Mutex::new(Some(Tasks { supervisor, sinks }));
        let shared = StreamShared { id, address, hub, state, recorder, publish, by_pattern, cancel, tasks };
        Ok(StreamHandle { shared: Arc::new(shared) })
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
        self.inner.streams.read().get(&key).cloned().ok_or_else(not_found)
    }

    /// All streams, by id.
    pub fn streams(&self) -> Vec<StreamHandle> {
        self.forget_ended();
        self.inner.streams.read().values().cloned().collect()
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
        let handles: Vec<StreamHandle> = {
            let streams = self.inner.streams.write();
            self.inner.cancel.cancel();
            streams.values().cloned().collect()
        };
        futures_util::future::join_all(handles.iter().map(|handle| handle.stop(STOP_TIMEOUT))).await;
        self.inner.storage.close().await;
    }
}

fn spawn_sink(mut sink: Box<dyn Sink>, hub: &crate::hub::Hub, id: &StreamId) -> tokio::task::JoinHandle<()> {
    let reader = hub.subscribe(sink.name(), crate::hub::ReaderOptions::default());
    let id = id.clone();
    tokio::spawn(async move {
        // A stream's end closes its hub, which is how sinks learn of it.
        if let Err(error) = sink.run(reader, CancellationToken::new()).await {
            tracing::error!(stream = %id, %error, "a sink has failed");
        }
    })
}
