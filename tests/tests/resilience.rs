//! Cameras that misbehave: what was received is recorded, and the stream comes back by itself.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stream_manager_core::event::{EventKind, RecordingState, StreamState};
use stream_manager_core::hub::{HubItem, ReaderOptions};
use stream_manager_core::manager::{RetryPolicy, Stream, StreamHandle, StreamManager};
use stream_manager_core::recording::{Recorder, Recording, RecordingFormat};
use stream_manager_core::source::from_url;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::media::{assert_contiguous, check, counters, describe, files};
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};

const LIMIT: Duration = Duration::from_secs(40);

fn quick_retry() -> RetryPolicy {
    RetryPolicy {
        initial: Duration::from_millis(200),
        max: Duration::from_millis(500),
        silence: Duration::from_secs(2),
        ..RetryPolicy::default()
    }
}

async fn manage(folder: &Path, url: &str, recording: Recording) -> (StreamManager, StreamHandle) {
    let manager = StreamManager::builder().data_dir(folder).build().await.unwrap();
    let stream =
        Stream::builder("cam").boxed_source(from_url(url).unwrap()).retry(quick_retry()).record(recording);
    let handle = manager.add_stream(stream).unwrap();
    (manager, handle)
}

async fn until_frames(handle: &StreamHandle, frames: u64) {
    let target = handle.hub().stats().frames + frames;
    let wait = async {
        while handle.hub().stats().frames < target {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("no frames: {:?}", handle.state()));
}

fn recorded(folder: &Path) -> Vec<Vec<u32>> {
    let files = files(&folder.join("recordings/cam"));
    files
        .iter()
        .map(|file| {
            check(file);
            let numbers = counters(file);
            assert_contiguous(&numbers, &file.display().to_string());
            numbers
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_dies_and_comes_back() {
    let mut camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let (manager, handle) = manage(folder.path(), &camera.url(), Recording::fmp4()).await;
    until_frames(&handle, 60).await;
    camera.kill();
    assert!(handle.wait_for(StreamState::Backoff, LIMIT).await, "{:?}", handle.state());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(handle.state().failed_attempts > 0 && handle.state().last_error.is_some());
    camera.revive();
    assert!(handle.wait_for(StreamState::Running, LIMIT).await, "{:?}", handle.state());
    until_frames(&handle, 60).await;
    manager.shutdown().await;
    let pieces = recorded(folder.path());
    assert_eq!(pieces.len(), 2, "one file before the outage and one after");
    assert!(pieces[0].len() >= 59 && pieces[1].len() >= 59, "{pieces:?}");
    assert!(pieces[0].last() < pieces[1].first());
    // The files' names are as far apart as the outage was long.
    let stats = handle.hub().stats();
    assert!(stats.sessions >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_falls_silent_is_connected_anew() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let (manager, handle) = manage(folder.path(), &camera.url(), Recording::fmp4()).await;
    let mut events = manager.events().subscribe();
    until_frames(&handle, 30).await;
    camera.stall(true);
    assert!(handle.wait_for(StreamState::Backoff, LIMIT).await);
    // The event follows the state.
    let said = tokio::time::timeout(LIMIT, async {
        loop {
            let event = events.recv().await.unwrap();
            if let EventKind::StreamState { state: StreamState::Backoff, reason } = &event.kind {
                return reason.clone();
            }
        }
    });
    let reason = said.await.unwrap();
    assert!(reason.contains("connected, but no frame for"), "{reason}");
    camera.stall(false);
    assert!(handle.wait_for(StreamState::Running, LIMIT).await);
    until_frames(&handle, 30).await;
    manager.shutdown().await;
    assert!(recorded(folder.path()).len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_codec_parameters_begin_a_new_segment() {
    for format in [RecordingFormat::Fmp4, RecordingFormat::Mkv] {
        let camera = Camera::start(Feed::h264());
        let folder = tempfile::tempdir().unwrap();
        let (manager, handle) = manage(folder.path(), &camera.url(), Recording::new(format)).await;
        until_frames(&handle, 40).await;
        let mut reader = handle.hub().subscribe("test", ReaderOptions::default());
        camera.resize(480, 320);
        let changed = async {
            loop {
                if let Some(HubItem::Tracks(tracks)) = reader.next().await
                    && tracks[0].parameters.video().unwrap().width == 480
                {
                    break;
                }
            }
        };
        tokio::time::timeout(LIMIT, changed).await.expect("the size did not change");
        until_frames(&handle, 40).await;
        manager.shutdown().await;
        let pieces = recorded(folder.path());
        assert_eq!(pieces.len(), 2, "{format:?}");
        assert_eq!(
            pieces[0].last().map(|n| n + 1),
            pieces[1].first().copied(),
            "{format:?}: a frame is lost at the change"
        );
        let widths: Vec<u64> = files(&folder.path().join("recordings/cam"))
            .iter()
            .map(|f| describe(f)["streams"][0]["width"].as_u64().unwrap())
            .collect();
        assert_eq!(widths, [384, 480]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_packets_are_counted_and_do_not_end_the_stream() {
    // Packets are dropped behind the payloader, so their numbers are missing.
    let camera = Camera::start(Feed::custom(
        "( videotestsrc is-live=true pattern=snow ! video/x-raw,width=640,height=480,framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=2000 \
         ! rtph264pay pt=96 config-interval=-1 ! identity drop-probability=0.02 name=pay0 )",
    ));
    let folder = tempfile::tempdir().unwrap();
    let (manager, handle) = manage(folder.path(), &camera.url(), Recording::fmp4()).await;
    let mut events = manager.events().subscribe();
    until_frames(&handle, 100).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(handle.hub().stats().packets_lost > 0);
    assert_eq!(handle.hub().stats().sessions, 1, "{:?}", handle.state());
    manager.shutdown().await;
    let mut told = 0;
    while let Ok(event) = events.try_recv() {
        if let EventKind::PacketsLost { packets } = event.kind {
            told += packets;
        }
    }
    assert!(told > 0, "no event tells of the loss");
    files(&folder.path().join("recordings/cam")).iter().for_each(|f| drop(check(f)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_wraps_or_jumps_leaves_no_trace() {
    let media = Arc::new(Loop::encode(384, 240, 25, 25, 300, 8, true));
    let cases = [
        ("wrap", Mischief { first_timestamp: u32::MAX - 90_000, ..Default::default() }),
        ("forward", Mischief { clock_jump: Some((37, 90_000 * 3600)), ..Default::default() }),
        (
            "back",
            Mischief {
                first_timestamp: 1 << 30,
                clock_jump: Some((37, -90_000 * 3600)),
                ..Default::default()
            },
        ),
        ("no RTP-Info", Mischief { first_timestamp: 12345, no_rtp_info: true, ..Default::default() }),
    ];
    for (what, mischief) in cases {
        let server = ReplayServer::start(media.clone(), mischief).await;
        let folder = tempfile::tempdir().unwrap();
        let (manager, handle) = manage(folder.path(), &server.url("x"), Recording::fmp4()).await;
        until_frames(&handle, 90).await;
        manager.shutdown().await;
        let files = files(&folder.path().join("recordings/cam"));
        assert_eq!(files.len(), 1, "{what}");
        let packets = check(&files[0]);
        assert_eq!(counters(&files[0]), (0..packets.len() as u32).collect::<Vec<_>>(), "{what}");
        for pair in packets.windows(2) {
            let step = pair[1].dts - pair[0].dts;
            // The one step over a jump is measured by arrival.
            assert!((0.0..0.5).contains(&step), "{what}: a step of {step} s");
        }
        let length = packets.last().unwrap().dts;
        assert!((3.0..5.5).contains(&length), "{what}: {length} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_cut_connections_end_in_a_new_session() {
    let media = Arc::new(Loop::encode(384, 240, 25, 25, 300, 4, true));
    for mischief in [
        Mischief { garbage_after: Some(30), ..Default::default() },
        Mischief { cut_after: Some(30), ..Default::default() },
    ] {
        let server = ReplayServer::start(media.clone(), mischief.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let (manager, handle) = manage(folder.path(), &server.url("x"), Recording::fmp4()).await;
        until_frames(&handle, 50).await;
        manager.shutdown().await;
        let pieces = recorded(folder.path());
        assert!(pieces.len() >= 2, "{mischief:?}: {pieces:?}");
        // retina holds back a frame until the next one's first packet, so the last one may be missing.
        assert!(pieces[0].len() >= 30, "{mischief:?}: {pieces:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_resume_to_the_frame() {
    for format in [RecordingFormat::Fmp4, RecordingFormat::Mkv, RecordingFormat::Ts] {
        let camera = Camera::start(Feed::with_audio(false));
        let folder = tempfile::tempdir().unwrap();
        let (manager, handle) = manage(folder.path(), &camera.url(), Recording::new(format)).await;
        let mut reader = handle.hub().subscribe("test", ReaderOptions::default());
        until_frames(&handle, 200).await;
        handle.recorder().pause().await.unwrap();
        let before = last_pts(&mut reader);
        assert_eq!(handle.recorder().status().state, RecordingState::Paused);
        until_frames(&handle, 150).await;
        let first_after = handle.hub().stats().keyframes;
        handle.recorder().resume().await.unwrap();
        until_frames(&handle, 200).await;
        manager.shutdown().await;
        let pieces = recorded(folder.path());
        assert_eq!(pieces.len(), 2, "{format:?}");
        let (last, first) = (*pieces[0].last().unwrap(), *pieces[1].first().unwrap());
        // Everything that reached the hub before the pause, counted from the first recorded frame.
        let video_before = before + 1;
        assert!(
            (pieces[0].len() as i64 - video_before as i64).abs() <= 1,
            "{format:?}: {} of {video_before}",
            pieces[0].len()
        );
        // And from the first keyframe after the resume.
        assert!(first > last + 25, "{format:?}: {last} then {first}");
        assert_eq!((first - pieces[0][0]) % 25, 0, "{format:?} goes on without a keyframe");
        assert!(
            first_after * 25 >= u64::from(first - pieces[0][0]),
            "{format:?}: a GOP after the resume is missing"
        );
    }
}

/// Number of video frames that have come, less one.
fn last_pts(reader: &mut stream_manager_core::hub::HubReader) -> usize {
    let items = std::iter::from_fn(|| reader.try_next());
    items.filter(|i| matches!(i, HubItem::Frame(f) if f.is_video())).count().saturating_sub(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_closes_over_a_pause() {
    for name in ["p.mp4", "p.mkv"] {
        let camera = Camera::start(Feed::with_audio(false));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let recording = Recording::to_file(&path, None, false).unwrap();
        let (manager, handle) = manage(folder.path(), &camera.url(), recording).await;
        until_frames(&handle, 180).await;
        handle.recorder().pause().await.unwrap();
        until_frames(&handle, 220).await;
        handle.recorder().resume().await.unwrap();
        until_frames(&handle, 180).await;
        manager.shutdown().await;
        let packets: Vec<_> = check(&path).into_iter().filter(|p| p.kind == "video").collect();
        let numbers = counters(&path);
        let holes: Vec<_> = numbers.windows(2).filter(|p| p[0] + 1 != p[1]).collect();
        assert_eq!(holes.len(), 1, "{name}: {numbers:?}");
        assert!(holes[0][1] - holes[0][0] > 25, "{name}: {holes:?}");
        let longest = packets.windows(2).map(|p| p[1].pts - p[0].pts).fold(0.0, f64::max);
        assert!(longest < 0.3, "{name}: the pause shows as a gap of {longest} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn split_on_demand() {
    for format in [RecordingFormat::Fmp4, RecordingFormat::Ts] {
        let camera = Camera::start(Feed::h264());
        let folder = tempfile::tempdir().unwrap();
        let (manager, handle) = manage(folder.path(), &camera.url(), Recording::new(format)).await;
        until_frames(&handle, 60).await;
        handle.recorder().split().await.unwrap();
        until_frames(&handle, 60).await;
        let last = handle.recorder().stop().await.unwrap().unwrap();
        assert!(last.path.exists() && last.frames > 0);
        manager.shutdown().await;
        let pieces = recorded(folder.path());
        assert_eq!(pieces.len(), 2, "{format:?}");
        assert_contiguous(&pieces.concat(), "split");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_blocks_the_recording_and_nothing_else() {
    let camera = Camera::start(Feed::h264());
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("not-a-folder");
    std::fs::write(&target, "in the way").unwrap();
    let recording = Recording::fmp4().folder(target.join("x"));
    let (manager, handle) = manage(folder.path(), &camera.url(), recording).await;
    until_frames(&handle, 60).await;
    let status = handle.recorder().status();
    assert_eq!(status.state, RecordingState::Blocked, "{status:?}");
    assert!(status.last_error.as_deref().unwrap().contains("not-a-folder"), "{status:?}");
    assert_eq!(handle.state().state, StreamState::Running);
    std::fs::remove_file(&target).unwrap();
    let back = async {
        while handle.recorder().status().state != RecordingState::Recording {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, back).await.expect("the recording did not come back");
    until_frames(&handle, 40).await;
    manager.shutdown().await;
    let written = files(&target.join("x"));
    assert_eq!(written.len(), 1);
    assert_contiguous(&counters(&written[0]), "after the disk came back");
}
