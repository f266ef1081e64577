//! What went into the hub is what the files hold, minus the gaps that the index states: whatever happens.

use super::*;
use crate::frame::{CodecParameters, MediaTime, VideoCodec, VideoParameters};
use crate::hub::{Hub, RawFrame, ReaderOptions};
use crate::sink::Sink;
use crate::storage::index::{FILE_NAME, RecordingItem, SegmentRow, TimeRange};
use crate::storage::repair::{Repair, Report};
use proptest::prelude::*;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

const START: i64 = 1_700_000_000_000_000_000;
const FRAME: i64 = 40_000_000;
const GOP: u64 = 5;
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
enum Action {
    Push(u64),
    Pause,
    Resume,
    Start,
    Stop,
    Split,
    /// The source is lost for this many frames and comes back.
    Lost(u64),
    Codec,
    Full,
    Room,
    /// As by SIGKILL, with this many bytes of the open file torn off.
    Kill(u64),
    /// The same, and the index is gone too.
    KillAndForget,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (1u64..40).prop_map(Action::Push),
        1 => Just(Action::Pause),
        1 => Just(Action::Resume),
        1 => Just(Action::Start),
        1 => Just(Action::Stop),
        1 => Just(Action::Split),
        1 => (1u64..50).prop_map(Action::Lost),
        1 => Just(Action::Codec),
        1 => Just(Action::Full),
        2 => Just(Action::Room),
        1 => (0u64..400).prop_map(Action::Kill),
        1 => Just(Action::KillAndForget),
    ]
}

struct World {
    folder: tempfile::TempDir,
    base: Instant,
    /// Frames pushed so far, also those that were lost on the way.
    next: u64,
    /// The frames that reached the hub.
    pushed: Vec<u64>,
    since_keyframe: u64,
    width: u32,
    life: Option<Life>,
}

/// One run of the program.
struct Life {
    hub: Hub,
    index: Index,
    pool: DiskPool,
    recorder: RecorderHandle,
    task: tokio::task::JoinHandle<()>,
}

fn wall(number: u64) -> WallTime {
    WallTime::from_unix_nanos(START + number as i64 * FRAME)
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self {
            folder,
            base: Instant::now(),
            next: 0,
            pushed: Vec::new(),
            since_keyframe: 0,
            width: 64,
            life: None,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let root = self.folder.path();
        let (index, _) = Index::open(root).unwrap();
        let place = Arc::new(Place::new(root.join("video"), false));
        place.ready().unwrap();
        repair(&index, &place);
        let pool = DiskPool::new(1).unwrap();
        let recording = Recording::fmp4()
            .segment_duration(Duration::from_secs(1))
            .part_duration(Duration::from_millis(200))
            .retry_after(Duration::from_millis(10))
            .sync(SyncPolicy::Off)
            .folder(root.join("video/cam"));
        let context = RecorderContext::new(pool.clone(), "cam").index(index.clone()).place(place);
        let (recorder, mut sink) = RecorderSink::new(recording, context, true).unwrap();
        let hub = Hub::default();
        let reader = hub.subscribe("recorder", ReaderOptions::default());
        let task = tokio::spawn(async move {
            sink.run(reader, CancellationToken::new()).await.unwrap();
        });
        self.since_keyframe = 0;
        hub.writer().begin_session();
        hub.writer().set_tracks([self.parameters()]);
        self.life = Some(Life { hub, index, pool, recorder, task });
    }

    fn parameters(&self) -> CodecParameters {
        CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, self.width, 48))
    }

    fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
    }

    /// Waits until the recorder has taken everything.
    async fn settle(&self) {
        let life = self.life();
        let deadline = Instant::now() + LIMIT;
        // Frames of a part that is not complete do not wake it.
        while life.hub.consumers().iter().any(|(_, stats)| stats.queued_frames > 5) {
            assert!(Instant::now() < deadline, "the recorder takes nothing: {:?}", life.recorder.status());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn push(&mut self, frames: u64) {
        for _ in 0..frames {
            let number = self.next;
            self.next += 1;
            let mut data = number.to_be_bytes().to_vec();
            data.extend_from_slice(b"payload!");
            let time = MediaTime::from_nanos(number as i64 * FRAME);
            let keyframe = self.since_keyframe.is_multiple_of(GOP);
            self.since_keyframe += 1;
            let raw = RawFrame::new(0, time, data).keyframe(keyframe);
            let now = self.base + Duration::from_nanos(number * FRAME as u64);
            self.life().hub.writer().push_at(raw, now, wall(number)).unwrap();
            self.pushed.push(number);
        }
        self.settle().await;
    }

    async fn act(&mut self, action: &Action) {
        let recorder = self.life().recorder.clone();
        match action {
            Action::Push(frames) => self.push(*frames).await,
            // What does not fit the state is refused, and that is that.
            Action::Pause => drop(recorder.pause().await),
            Action::Resume => drop(recorder.resume().await),
            Action::Start => drop(recorder.start().await),
            Action::Stop => drop(recorder.stop().await),
            Action::Split => drop(recorder.split().await),
            Action::Lost(frames) => {
                self.next += frames;
                self.since_keyframe = 0;
                self.life().hub.writer().begin_session();
            }
            Action::Codec => {
                self.width = if self.width == 64 { 128 } else { 64 };
                self.since_keyframe = 0;
                self.life().hub.writer().set_parameters(0, self.parameters()).unwrap();
            }
            Action::Full => self.life().pool.set_full(true),
            Action::Room => {
                self.life().pool.set_full(false);
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            Action::Kill(torn) => {
                let open = self.kill().await;
                if let Some(file) = open.filter(|f| f.is_file()) {
                    let length = std::fs::metadata(&file).unwrap().len().saturating_sub(*torn);
                    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
                    file.set_len(length).unwrap();
                }
                self.begin();
            }
            Action::KillAndForget => {
                self.kill().await;
                for end in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(self.folder.path().join(format!("{FILE_NAME}{end}")));
                }
                self.begin();
            }
        }
    }

    /// Ends the program in the middle of whatever it does. Gives the file that was being written.
    async fn kill(&mut self) -> Option<PathBuf> {
        let life = self.life.take().unwrap();
        life.task.abort();
        let _ = life.task.await;
        flush(&life.pool, &life.index).await;
        // Recorded up to the end is what the row says.
        let rows = life.index.segments("cam", TimeRange::ALL, None, 10_000).await.unwrap();
        let open: Vec<SegmentRow> = rows.into_iter().filter(|row| !row.complete).collect();
        assert!(open.len() <= 1 || life.pool.stats().queued == 0, "{open:?}");
        open.last().map(|row| row.path.clone())
    }

    async fn check(mut self) {
        self.push(GOP).await;
        let life = self.life.take().unwrap();
        life.pool.set_full(false);
        // What was begun while there was no room may still be what it answers with.
        if let Err(error) = life.recorder.stop().await {
            assert!(matches!(&error, RecordError::Storage(error) if error.is_full()), "{error}");
        }
        life.hub.close();
        life.task.await.unwrap();
        flush(&life.pool, &life.index).await;
        let place = Arc::new(Place::new(self.folder.path().join("video"), true));
        repair(&life.index, &place);
        let rows = life.index.segments("cam", TimeRange::ALL, None, 10_000).await.unwrap();
        let (items, _) = life.index.recordings("cam", TimeRange::ALL, 10_000).await.unwrap();
        let mut recorded = Vec::new();
        for row in &rows {
            assert!(row.complete, "{row:?}");
            let numbers = numbers(&row.path);
            assert_eq!(numbers.len() as u64, row.frames, "{row:?}");
            assert!(numbers.windows(2).all(|w| w[0] + 1 == w[1]), "{row:?}: {numbers:?}");
            assert_eq!(
                (row.start, row.end),
                (wall(numbers[0]), wall(numbers[numbers.len() - 1] + 1)),
                "{row:?}"
            );
            recorded.extend(numbers);
            let identity = crate::fmp4::scan(&mut std::fs::File::open(&row.path).unwrap()).unwrap().identity;
            let tracks: serde_json::Value = serde_json::from_str(&row.tracks).unwrap();
            assert_eq!(tracks, serde_json::to_value(identity.unwrap().tracks).unwrap(), "{row:?}");
        }
        let on_disk = std::fs::read_dir(self.folder.path().join("video/cam")).map_or(0, Iterator::count);
        assert_eq!(on_disk, rows.len(), "files that nobody knows");
        let Some(first) = recorded.iter().min().copied() else { return };
        let in_gap = |number: u64| {
            items.iter().any(|item| {
                matches!(item, RecordingItem::Gap { start, end, .. }
                    if *start <= wall(number) && end.is_none_or(|end| wall(number) < end))
            })
        };
        let in_span = |number: u64| {
            items.iter().any(|item| {
                matches!(item, RecordingItem::Span { start, end, .. }
                    if *start <= wall(number) && wall(number) < *end)
            })
        };
        let recorded: std::collections::HashSet<u64> = recorded.into_iter().collect();
        for number in self.pushed.iter().copied().filter(|n| *n >= first) {
            let there = recorded.contains(&number);
            assert_eq!(there, in_span(number), "frame {number}, recorded: {there}: {items:#?}");
            assert_eq!(there, !in_gap(number), "frame {number}, recorded: {there}: {items:#?}");
        }
    }
}

fn repair(index: &Index, place: &Arc<Place>) {
    let mut catalog = crate::storage::index::Catalog::open(index.data_dir()).unwrap();
    let (stop, places) = (AtomicBool::new(false), [place.clone()]);
    let repair =
        Repair { places: &places, change: true, trust_folders: false, index: Some(index), stop: &stop };
    let mut report = Report::default();
    repair.everything(&mut catalog, &mut report).unwrap();
    assert!(report.damaged.is_empty() && report.unavailable.is_empty(), "{report:#?}");
}

async fn flush(pool: &DiskPool, index: &Index) {
    pool.caught_up().await;
    index.flush().await.unwrap();
}

/// The frames' numbers in a file.
fn numbers(path: &Path) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap();
    let scan = crate::fmp4::scan(&mut std::io::Cursor::new(&bytes)).unwrap();
    assert!(scan.is_whole() && scan.duration_patch.is_none(), "{} is not finished", path.display());
    let mut numbers = Vec::new();
    for part in &scan.parts {
        let end = (part.offset + part.len_bytes) as usize;
        let start = end - part.frames as usize * 16;
        for frame in bytes[start..end].chunks(16) {
            assert_eq!(&frame[8..], b"payload!", "{}", path.display());
            numbers.push(u64::from_be_bytes(frame[..8].try_into().unwrap()));
        }
    }
    numbers
}

fn run(actions: &[Action]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        for action in actions {
            world.act(action).await;
        }
        world.check().await;
    });
}

#[test]
fn a_recorder_that_cannot_keep_up_loses_whole_gops_and_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        world.push(20).await;
        // All at once: more than its queue holds, before it has a chance.
        world.push(3000).await;
        world.push(20).await;
        let life = world.life();
        assert!(life.recorder.status().lost_frames > 500, "{:?}", life.recorder.status());
        flush(&life.pool, &life.index).await;
        let (items, _) = life.index.recordings("cam", TimeRange::ALL, 100).await.unwrap();
        let slow = items.iter().find_map(|item| match item {
            RecordingItem::Gap { reason: GapReason::DiskSlow, frames, .. } => Some(*frames),
            _ => None,
        });
        assert_eq!(slow, Some(life.recorder.status().lost_frames), "{items:#?}");
        world.check().await;
    });
}

/// More on request: PROPTEST_CASES=1000.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn files_and_gaps_are_all_there_is(actions in prop::collection::vec(action(), 1..16)) {
        run(&actions);
    }
}
