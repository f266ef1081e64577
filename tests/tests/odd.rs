//! Streams that are unlike most: one frame a second, a GOP of ten minutes, frames of twenty megabytes, sound
//! alone, sound that comes and goes.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};
use stream_manager_core::frame::{
    AudioCodec, AudioParameters, CodecParameters, MediaTime, VideoCodec, VideoParameters, WallTime,
};
use stream_manager_core::hub::{Hub, HubItem, HubOptions, RawFrame, ReaderOptions};
use stream_manager_core::recording::{Recorder, RecorderContext, RecorderHandle, RecorderSink, Recording};
use stream_manager_core::sink::Sink;
use stream_manager_core::storage::index::{Index, RecordingItem, SegmentRow, TimeRange};
use stream_manager_core::storage::{DiskPool, Place, repair};
use stream_manager_tests::media;
use tokio_util::sync::CancellationToken;

const WALL: i64 = 1_700_000_000_000_000_000;
const LIMIT: Duration = Duration::from_secs(60);

struct Studio {
    folder: tempfile::TempDir,
    hub: Hub,
    index: Index,
    recorder: RecorderHandle,
    task: tokio::task::JoinHandle<()>,
    base: Instant,
}

fn video() -> CodecParameters {
    CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 64, 48))
}

fn sound() -> CodecParameters {
    CodecParameters::Audio(AudioParameters::new(AudioCodec::Pcma, 8000, 1))
}

impl Studio {
    fn new(tracks: &[CodecParameters], segment: Duration) -> Self {
        Self::with(tracks, Recording::fmp4().segment_duration(segment))
    }

    fn with(tracks: &[CodecParameters], recording: Recording) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(folder.path()).unwrap();
        let place = Arc::new(Place::new(folder.path().join("video"), false));
        let recording = recording.folder(folder.path().join("video/cam"));
        let context =
            RecorderContext::new(DiskPool::new(1).unwrap(), "cam").index(index.clone()).place(place);
        let (recorder, mut sink) = RecorderSink::new(recording, context, true).unwrap();
        let hub = Hub::new(HubOptions { gop_max_bytes: 128 << 20, ..HubOptions::default() });
        let reader = hub.subscribe("recorder", ReaderOptions::default());
        let task = tokio::spawn(async move { sink.run(reader, CancellationToken::new()).await.unwrap() });
        hub.writer().begin_session();
        hub.writer().set_tracks(tracks.iter().cloned());
        Self { folder, hub, index, recorder, task, base: Instant::now() }
    }

    /// Pushes a frame as if it had come at its time, as fast as the recorder takes it.
    async fn push(&self, track: u32, millis: u64, keyframe: bool, data: Vec<u8>) {
        let time = Duration::from_millis(millis);
        let raw =
            RawFrame::new(track, MediaTime::from_nanos(time.as_nanos() as i64), data).keyframe(keyframe);
        let wall = WallTime::from_unix_nanos(WALL) + time;
        self.hub.writer().push_at(raw, self.base + time, wall).unwrap();
        let deadline = Instant::now() + LIMIT;
        while self.hub.consumers().iter().any(|(_, s)| s.queued_frames > 500 || s.queued_bytes > 40 << 20) {
            assert!(Instant::now() < deadline, "the recorder takes nothing: {:?}", self.recorder.status());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the recording. Gives its segments, whose files are whole and which lack nothing in between, the number of frames, and the folder that they
    /// are in.
    async fn finish(self) -> (Vec<SegmentRow>, u64, tempfile::TempDir) {
        self.recorder.stop().await.unwrap();
        self.hub.close();
        self.task.await.unwrap();
        let status = self.recorder.status();
        assert_eq!(status.lost_frames, 0, "{status:?}");
        let deadline = Instant::now() + LIMIT;
        let rows = loop {
            let rows = self.index.segments("cam", TimeRange::ALL, None, 1000).await.unwrap();
            if rows.len() as u64 == status.segments && rows.iter().all(|row| row.complete) {
                break rows;
            }
            assert!(Instant::now() < deadline, "{status:?} {rows:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        for row in &rows {
            assert_eq!(repair::verify(row.clone()).problem, None, "{row:?}");
        }
        let (items, _) = self.index.recordings("cam", TimeRange::ALL, 1000).await.unwrap();
        let spans: Vec<&RecordingItem> =
            items.iter().filter(|i| matches!(i, RecordingItem::Span { .. })).collect();
        assert_eq!(spans.len(), 1, "{items:#?}");
        (rows, status.frames, self.folder)
    }
}

fn seconds(row: &SegmentRow) -> f64 {
    row.end.saturating_since(row.start).as_secs_f64()
}

#[tokio::test]
async fn one_frame_a_second() {
    let studio = Studio::new(&[video()], Duration::from_secs(10));
    for n in 0..60 {
        studio.push(0, n * 1000, n % 5 == 0, vec![1; 500]).await;
    }
    let (rows, frames, _folder) = studio.finish().await;
    assert_eq!((rows.len(), frames), (6, 60));
    assert!(rows.iter().all(|row| seconds(row) == 10.0 && row.frames == 10), "{rows:#?}");
}

#[tokio::test]
async fn a_gop_of_ten_minutes() {
    let studio = Studio::new(&[video()], Duration::from_secs(60));
    for n in 0..15_000u64 {
        studio.push(0, n * 40, n == 0, vec![2; 200]).await;
    }
    // It is there for whoever comes late, all of it.
    let mut late = studio.hub.subscribe("late", ReaderOptions::default());
    let kept = std::iter::from_fn(|| late.try_next()).filter(|i| matches!(i, HubItem::Frame(_))).count();
    assert_eq!(kept, 15_000);
    drop(late);
    let (rows, frames, _folder) = studio.finish().await;
    // There is no keyframe to cut at.
    assert_eq!((rows.len(), frames), (1, 15_000));
    assert!((seconds(&rows[0]) - 600.0).abs() < 0.1, "{rows:#?}");
}

#[tokio::test]
async fn frames_of_twenty_megabytes() {
    let studio = Studio::new(&[video()], Duration::from_secs(3600));
    for n in 0..6u64 {
        studio.push(0, n * 500, true, vec![3; 20 << 20]).await;
    }
    let (rows, frames, _folder) = studio.finish().await;
    assert_eq!((rows.len(), frames), (1, 6));
    assert!(rows[0].bytes > 6 * (20 << 20));
}

#[tokio::test]
async fn sound_alone() {
    let studio = Studio::new(&[sound()], Duration::from_secs(5));
    for n in 0..1000u64 {
        studio.push(0, n * 20, true, vec![0xd5; 160]).await;
    }
    let (rows, frames, _folder) = studio.finish().await;
    assert_eq!((rows.len(), frames), (4, 1000));
    let samples: usize = rows.iter().map(|row| media::check(&row.path).len()).sum();
    assert_eq!(samples, 1000);
}

#[tokio::test]
async fn sound_that_comes_and_goes() {
    let studio = Studio::new(&[video()], Duration::from_secs(3600));
    let mut pushed = 0;
    for n in 0..300u64 {
        match n {
            100 => studio.hub.writer().set_tracks([video(), sound()]),
            200 => studio.hub.writer().set_tracks([video()]),
            _ => {}
        }
        studio.push(0, n * 40, n % 25 == 0, vec![4; 300]).await;
        pushed += 1;
        if (100..200).contains(&n) {
            for half in 0..2 {
                studio.push(1, n * 40 + half * 20, true, vec![0xd5; 160]).await;
                pushed += 1;
            }
        }
    }
    let (rows, frames, _folder) = studio.finish().await;
    assert_eq!((rows.len(), frames), (3, pushed));
    let tracks: Vec<usize> = rows
        .iter()
        .map(|row| serde_json::from_str::<serde_json::Value>(&row.tracks).unwrap().as_array().unwrap().len())
        .collect();
    assert_eq!(tracks, [1, 2, 1]);
}

#[tokio::test]
async fn the_first_segment_is_shorter_where_it_is_staggered() {
    let recording = Recording::fmp4().segment_duration(Duration::from_secs(10)).stagger(0.6);
    let studio = Studio::with(&[video()], recording);
    for n in 0..300u64 {
        studio.push(0, n * 100, n % 10 == 0, vec![5; 100]).await;
    }
    let (rows, frames, _folder) = studio.finish().await;
    assert_eq!((rows.iter().map(seconds).collect::<Vec<_>>(), frames), (vec![6.0, 10.0, 10.0, 4.0], 300));
}
