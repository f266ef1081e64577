//! Twenty cameras at once for a minute: every frame of every camera, in order, over segment borders.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::time::Duration;
use stream_manager_core::event::StreamState;
use stream_manager_core::manager::{Stream, StreamManager};
use stream_manager_core::recording::{Recorder, Recording};
use stream_manager_core::source::RtspSource;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, check, counters, files};

const CAMERAS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_cameras_for_a_minute() {
    // One simulator a camera: the counter is the simulator's.
    let cameras: Vec<Camera> = (0..CAMERAS)
        .map(|_| {
            // Small and slow enough that encoding twenty of them leaves the machine time for the test itself.
            let feed = Feed::h264()
                .launch
                .replace("framerate=25/1", "framerate=10/1")
                .replace("key-int-max=25", "key-int-max=10");
            Camera::with(HashMap::from([("/live".to_owned(), Feed::custom(feed))]), None)
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let mut builder = StreamManager::builder().data_dir(folder.path());
    for (number, camera) in cameras.iter().enumerate() {
        let recording = Recording::fmp4().segment_duration(Duration::from_secs(10));
        builder = builder.stream(
            Stream::builder(format!("cam-{number}"))
                .source(RtspSource::new(&camera.url()).unwrap())
                .record(recording),
        );
    }
    let manager = builder.build().await.unwrap();
    for stream in manager.streams() {
        assert!(stream.wait_for(StreamState::Running, Duration::from_secs(60)).await, "{:?}", stream.state());
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let streams = manager.streams();
    manager.shutdown().await;
    for stream in streams {
        let (id, hub, recording) = (stream.id().clone(), stream.hub().stats(), stream.recorder().status());
        assert_eq!((hub.sessions, hub.packets_lost, recording.lost_frames), (1, 0, 0), "{id}");
        let files = files(&folder.path().join("recordings").join(id.as_str()));
        assert!(files.len() >= 6, "{id}: {files:?}");
        let mut numbers = Vec::new();
        for file in &files {
            check(file);
            numbers.extend(counters(file));
        }
        assert_eq!(numbers.len() as u64, recording.frames, "{id}");
        assert!(numbers.len() >= 580, "{id}: only {} frames", numbers.len());
        assert_contiguous(&numbers, id.as_str());
    }
}
