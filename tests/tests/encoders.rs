//! Raw video is encoded by hardware if there is some, and goes on without it if that does not work.
//!
//! The hardware's encoders are others under their names, for this process alone: one that cannot be linked, and one that cannot be
//! opened.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};
use stream_manager_core::event::{EventKind, StreamState};
use stream_manager_core::manager::{RetryPolicy, Stream, StreamManager};
use stream_manager_core::pipeline::gst;
use stream_manager_core::pipeline::gst::prelude::*;
use stream_manager_core::source::LaunchSource;

const SOON: Duration = Duration::from_secs(30);

/// Starts such a stream; says how often it had to begin anew until it ran.
async fn failures(manager: &StreamManager, id: &str) -> usize {
    let mut events = manager.events().subscribe();
    let line = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1";
    let retry = RetryPolicy { initial: Duration::from_millis(100), ..RetryPolicy::default() };
    let source = LaunchSource::new(line).unwrap();
    let handle = manager.add_stream(Stream::builder(id).source(source).retry(retry)).unwrap();
    let end = Instant::now() + SOON;
    while handle.status().hub.frames < 50 {
        assert!(Instant::now() < end, "{:?}", handle.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let video = handle.hub().tracks()[0].parameters.clone();
    // As everything plays it: High profile at most, a quarter of the colours.
    let codec = video.rfc6381().unwrap();
    assert!(codec.starts_with("avc1.64") || codec.starts_with("avc1.4"), "{video:?}");
    let mut failures = 0;
    while let Ok(event) = events.try_recv() {
        let is_failure = matches!(&event.kind, EventKind::StreamState { state: StreamState::Backoff, .. });
        failures += usize::from(event.stream.as_deref() == Some(id) && is_failure);
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn hardware_that_does_not_work_is_left_alone() {
    stream_manager_core::pipeline::init().unwrap();
    if ["nvh264enc", "vah264enc"].iter().any(|name| gst::ElementFactory::find(name).is_some()) {
        println!("SKIPPED: this machine has hardware that encodes");
        return;
    }
    for (name, is) in [("nvh264enc", "identity"), ("vah264enc", "avenc_h264_omx")] {
        let factory = gst::ElementFactory::find(is).unwrap().load().unwrap();
        gst::Element::register(None, name, gst::Rank::NONE, factory.element_type()).unwrap();
    }
    let manager = StreamManager::builder().build().await.unwrap();
    assert_eq!(failures(&manager, "first").await, 1, "one is tried, and only once");
    assert_eq!(failures(&manager, "second").await, 0, "and not again by others");
    manager.shutdown().await;
}
