//! The library's promises to programs that use it: bounded, isolated, cleaned up.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stream_manager_core::event::StreamState;
use stream_manager_core::frame::{CodecParameters, MediaTime, VideoCodec, VideoParameters};
use stream_manager_core::hub::{HubItem, HubReader, HubWriter, RawFrame};
use stream_manager_core::manager::{ManagerError, RetryPolicy, Stream, StreamManager};
use stream_manager_core::recording::{Recorder, Recording};
use stream_manager_core::sink::{Sink, SinkError};
use stream_manager_core::source::{Source, SourceEnd, SourceError};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

/// What a scripted source does.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Deliver,
    Panic,
    /// Never returns, whatever it is told.
    Hang,
    /// Takes a while to connect.
    ConnectSlowly,
    /// Fails at once.
    Fail,
}

struct Scripted {
    act: Act,
    connecting: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(act: Act) -> Self {
        Self { act, connecting: Arc::default(), most: Arc::default() }
    }
}

#[async_trait]
impl Source for Scripted {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        match self.act {
            Act::Panic => panic!("a source's own mistake"),
            Act::Hang => std::future::pending::<()>().await,
            Act::Fail => return Err(SourceError::Other("always".into())),
            Act::ConnectSlowly => {
                let now = self.connecting.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.connecting.fetch_sub(1, Ordering::SeqCst);
            }
            Act::Deliver => {}
        }
        hub.set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 64, 64))]);
        let mut clock = tokio::time::interval(Duration::from_millis(10));
        for number in 0i64.. {
            if cancel.run_until_cancelled(clock.tick()).await.is_none() {
                break;
            }
            let data = Bytes::copy_from_slice(&number.to_be_bytes());
            hub.push(RawFrame::new(0, MediaTime::from_ticks(number, 100), data).keyframe(number % 10 == 0))?;
        }
        Ok(SourceEnd::Cancelled)
    }

    fn address(&self) -> String {
        "scripted".into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_cameras_do_not_storm() {
    let (connecting, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let folder = tempfile::tempdir().unwrap();
    let mut builder = StreamManager::builder().data_dir(folder.path()).max_connects(8);
    for number in 0..200 {
        let source = Scripted { act: Act::ConnectSlowly, connecting: connecting.clone(), most: most.clone() };
        builder = builder.stream(Stream::builder(format!("c{number}")).source(source));
    }
    let manager = builder.build().await.unwrap();
    for stream in manager.streams() {
        assert!(stream.wait_for(StreamState::Running, LIMIT).await);
    }
    assert_eq!(most.load(Ordering::SeqCst), 8);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_panics_or_hangs_harms_nobody_and_stopping_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let retry = RetryPolicy {
        initial: Duration::from_millis(50),
        max: Duration::from_millis(100),
        ..Default::default()
    };
    let manager = StreamManager::builder()
        .data_dir(folder.path())
        .stream(Stream::builder("good").source(Scripted::new(Act::Deliver)))
        .stream(Stream::builder("panics").source(Scripted::new(Act::Panic)).retry(retry))
        .stream(Stream::builder("hangs").source(Scripted::new(Act::Hang)))
        .build()
        .await
        .unwrap();
    let panics = manager.stream("panics").unwrap();
    assert!(panics.wait_for(StreamState::Backoff, LIMIT).await);
    assert_eq!(panics.state().last_error.as_deref(), Some("the source panicked"));
    assert!(manager.stream("good").unwrap().wait_for(StreamState::Running, LIMIT).await);
    let start = Instant::now();
    manager.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert!(matches!(
        manager.add_stream(Stream::builder("late").source(Scripted::new(Act::Deliver))),
        Err(ManagerError::ShutDown)
    ));
}

/// Reads one frame and then never again.
struct Stuck;

#[async_trait]
impl Sink for Stuck {
    async fn run(&mut self, mut reader: HubReader, _: CancellationToken) -> Result<(), SinkError> {
        reader.next().await;
        let hub = reader.hub();
        hub.closed().await;
        Ok(())
    }

    fn name(&self) -> String {
        "stuck".into()
    }
}

struct Count(Arc<AtomicU64>);

#[async_trait]
impl Sink for Count {
    async fn run(&mut self, mut reader: HubReader, _: CancellationToken) -> Result<(), SinkError> {
        let mut next = None;
        while let Some(item) = reader.next().await {
            if let HubItem::Frame(frame) = item {
                let number = i64::from_be_bytes(frame.data[..].try_into().unwrap());
                assert_eq!(next.unwrap_or(number), number, "a frame is missing or out of order");
                next = Some(number + 1);
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        "count".into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_sink_changes_nothing_for_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let stream = Stream::builder("s")
        .source(Scripted::new(Act::Deliver))
        .sink(Stuck)
        .sink(Count(count.clone()))
        .record(Recording::fmp4());
    let manager = StreamManager::builder().data_dir(folder.path()).stream(stream).build().await.unwrap();
    let stream = manager.stream("s").unwrap();
    // More than a queue holds.
    while stream.hub().stats().frames < 1300 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let consumers = stream.hub().consumers();
    let stuck = consumers.iter().find(|(name, _)| name == "stuck").unwrap();
    assert!(stuck.1.dropped_frames > 100, "{stuck:?}");
    assert!(stuck.1.queued_frames <= 1024);
    manager.shutdown().await;
    let frames = stream.hub().stats().frames;
    assert_eq!(count.load(Ordering::SeqCst), frames);
    let recording = stream.recorder().status();
    assert_eq!((recording.frames, recording.lost_frames), (frames, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_manager_finishes_files() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::builder("s").source(Scripted::new(Act::Deliver)).record(Recording::fmp4());
    let manager = StreamManager::builder().data_dir(folder.path()).stream(stream).build().await.unwrap();
    let stream = manager.stream("s").unwrap();
    assert!(stream.wait_for(StreamState::Running, LIMIT).await);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(manager);
    assert!(stream.wait_for(StreamState::Stopped, LIMIT).await);
    let recorder = stream.recorder().clone();
    while recorder.status().last_segment.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(recorder.status().frames, stream.hub().stats().frames);
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_grow_and_wrong_ids_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let manager = StreamManager::builder().data_dir(folder.path()).build().await.unwrap();
    let mut events = manager.events().subscribe();
    let retry = RetryPolicy {
        initial: Duration::from_millis(100),
        max: Duration::from_millis(800),
        ..Default::default()
    };
    manager.add_stream(Stream::builder("f").source(Scripted::new(Act::Fail)).retry(retry)).unwrap();
    let mut times = Vec::new();
    while times.len() < 5 {
        let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
        if format!("{:?}", event.kind).contains("Backoff") {
            times.push(event.time.as_unix_nanos() / 1_000_000);
        }
    }
    let waits: Vec<i64> = times.windows(2).map(|t| t[1] - t[0]).collect();
    assert!(waits[2] > waits[0] * 2, "waits do not grow: {waits:?}");
    for id in ["f", "", "a b", "../x"] {
        assert!(manager.add_stream(Stream::builder(id).source(Scripted::new(Act::Fail))).is_err(), "{id}");
    }
    manager.remove_stream("f").await.unwrap();
    assert!(matches!(manager.stream("f"), Err(ManagerError::NotFound(_))));
    manager.shutdown().await;
}
