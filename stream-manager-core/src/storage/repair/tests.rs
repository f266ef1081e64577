use super::*;
use crate::fmp4::{Fragmenter, FragmenterOptions, SegmentIdentity};
use crate::frame::{CodecParameters, Frame, Track, TrackId, VideoCodec, VideoParameters, WallTime};
use crate::storage::index::{Change, GapReason, RecordingItem, TimeRange};
use crate::storage::segment_name;
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;

fn at(seconds: i64) -> WallTime {
    WallTime::from_unix_nanos(1_700_000_000 * SECOND + seconds * SECOND)
}

/// An unfinished segment as the recorder writes it, `seconds` parts of a second.
fn media(stream: &str, start: i64, seconds: i64) -> Vec<u8> {
    let parameters = CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 64, 48));
    let track = Track { id: TrackId(0), parameters: Arc::new(parameters) };
    let mut fragmenter = Fragmenter::new(std::slice::from_ref(&track), FragmenterOptions::default()).unwrap();
    fragmenter
        .set_identity(&SegmentIdentity {
            stream: stream.into(),
            media_start_nanos: start * SECOND,
            continues: start > 0,
            tracks: serde_json::json!([{"codec": "vp8"}]),
        })
        .unwrap();
    let mut bytes = Vec::new();
    for n in 0..=seconds * 5 {
        let dts = MediaTime::from_nanos(start * SECOND + n * SECOND / 5);
        let frame = Frame {
            track: track.id,
            parameters: track.parameters.clone(),
            pts: dts,
            dts,
            wall_clock: WallTime::from_unix_nanos(at(start).as_unix_nanos() + n * SECOND / 5),
            ntp: None,
            keyframe: n % 5 == 0,
            data: vec![1; 100].into(),
        };
        if let Some(part) = fragmenter.push(frame).unwrap() {
            part.chunks().for_each(|c| bytes.extend_from_slice(c));
        }
    }
    bytes
}

struct World {
    folder: tempfile::TempDir,
    catalog: Catalog,
    places: Vec<Arc<Place>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).unwrap();
        let place = Arc::new(Place::new(folder.path().join("video"), false));
        place.ready().unwrap();
        Self { folder, catalog, places: vec![place] }
    }

    fn path(&self, stream: &str, start: i64) -> PathBuf {
        self.places[0].path().join(stream).join(segment_name(at(start), "mp4"))
    }

    fn write(&self, stream: &str, start: i64, bytes: &[u8]) -> PathBuf {
        let path = self.path(stream, start);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn begun(&mut self, stream: &str, start: i64) {
        let segment = NewSegment {
            id: SegmentId(self.catalog.next_id().unwrap()),
            stream: stream.into(),
            start: at(start),
            media_start: MediaTime::ZERO,
            folder: self.places[0].path().join(stream),
            name: segment_name(at(start), "mp4"),
            format: "fmp4".into(),
            tracks: "[]".into(),
            continues: false,
            lost_frames: 0,
        };
        self.catalog.apply([&Change::Begin(segment)]).unwrap();
    }

    fn run(&mut self, change: bool) -> Report {
        let stop = AtomicBool::new(false);
        let repair = Repair { places: &self.places, change, trust_folders: false, index: None, stop: &stop };
        let mut report = Report::default();
        repair.everything(&mut self.catalog, &mut report).unwrap();
        report
    }
}

#[test]
fn an_unfinished_segment_is_cut_and_completed() {
    let mut world = World::new();
    let mut bytes = media("cam", 0, 3);
    let whole = bytes.len() as u64;
    bytes.extend_from_slice(&media("cam", 0, 3)[..500]);
    let path = world.write("cam", 0, &bytes);
    world.begun("cam", 0);
    let told = world.run(false);
    assert_eq!((told.repaired.len(), std::fs::metadata(&path).unwrap().len()), (1, bytes.len() as u64));
    let done = world.run(true);
    assert_eq!(done.repaired, told.repaired);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
    let row = &world.catalog.segments("cam", TimeRange::ALL, None, 9).unwrap()[0];
    assert_eq!((row.complete, row.end, row.bytes, row.frames), (true, at(3), whole, 15));
    assert_eq!(world.catalog.parts(row.id).unwrap().len(), 3);
    let gap = world.catalog.recordings("cam", TimeRange::ALL, 9).unwrap().pop().unwrap();
    assert_eq!(gap, RecordingItem::Gap { start: at(3), end: None, reason: GapReason::Killed, frames: 0 });
    assert!(world.run(true).is_clean());
    // The file says how long it is now.
    let data = std::fs::read(&path).unwrap();
    let scan = crate::fmp4::scan(&mut std::io::Cursor::new(&data)).unwrap();
    assert_eq!((scan.duration_patch, scan.duration()), (None, Duration::from_secs(3)));
}

#[test]
fn an_index_is_made_anew_from_the_files() {
    let mut world = World::new();
    world.write("yard/door", 0, &media("yard/door", 0, 2));
    world.write("yard/door", 2, &media("yard/door", 2, 2));
    world.write("b", 10, &media("b", 10, 1));
    let report = world.run(true);
    assert_eq!(report.adopted.len(), 3, "{report:#?}");
    let items = world.catalog.recordings("yard/door", TimeRange::ALL, 9).unwrap();
    assert!(
        matches!(items[0], RecordingItem::Span { start, end, segments: 2, complete: true, .. }
        if (start, end) == (at(0), at(4))),
        "{items:#?}"
    );
    let row = &world.catalog.segments("yard/door", TimeRange::ALL, None, 9).unwrap()[1];
    assert_eq!((row.media_start_nanos, row.tracks.as_str()), (2 * SECOND, "[{\"codec\":\"vp8\"}]"));
    assert!(world.run(true).is_clean());
}

#[test]
fn a_row_without_its_file_is_dropped_unless_the_disk_is_away() {
    let mut world = World::new();
    let path = world.write("cam", 0, &media("cam", 0, 2));
    world.run(true);
    std::fs::remove_file(&path).unwrap();
    let marker = world.places[0].path().join(MARKER);
    std::fs::remove_file(&marker).unwrap();
    let report = world.run(true);
    assert_eq!((report.dropped.len(), report.unavailable.len()), (0, 1), "{report:#?}");
    std::fs::write(&marker, "").unwrap();
    let report = world.run(true);
    assert_eq!((report.dropped.len(), report.unavailable.len()), (1, 0), "{report:#?}");
    assert!(world.catalog.segments("cam", TimeRange::ALL, None, 9).unwrap().is_empty());
}

#[test]
fn what_is_foreign_damaged_or_a_link_is_left_alone() {
    let mut world = World::new();
    let inside = world.write("cam", 0, &media("cam", 0, 1));
    let folder = world.places[0].path().to_owned();
    let outside = world.folder.path().join("outside.mp4");
    std::fs::write(&outside, media("cam", 50, 1)).unwrap();
    std::os::unix::fs::symlink(&outside, world.path("cam", 50)).unwrap();
    std::os::unix::fs::symlink(world.folder.path(), folder.join("elsewhere")).unwrap();
    std::fs::write(folder.join("cam/holiday.mp4"), b"mine").unwrap();
    let text = world.write("cam", 60, b"these are words");
    let plain = world.write("cam", 70, b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08moov");
    let empty = world.write("cam", 80, b"");
    let torn = world.write("cam", 90, &media("cam", 90, 1)[..900]);
    let report = world.run(true);
    let names = |f: &[Finding]| f.iter().map(|f| f.path.clone()).collect::<HashSet<_>>();
    assert_eq!(names(&report.adopted), HashSet::from([inside.clone()]));
    assert_eq!(names(&report.damaged), HashSet::from([text.clone(), plain.clone()]));
    assert_eq!(names(&report.removed), HashSet::from([empty.clone(), torn.clone()]));
    assert_eq!(report.foreign.len(), 3, "{:#?}", report.foreign);
    assert!(text.is_file() && plain.is_file() && outside.is_file() && !empty.exists() && !torn.exists());
    assert_eq!(std::fs::read(folder.join("cam/holiday.mp4")).unwrap(), b"mine");
    // A file of another stream, put here by somebody, is taken and told.
    let moved = world.write("moved", 5, &media("cam", 5, 1));
    let report = world.run(true);
    assert_eq!((names(&report.adopted), report.foreign.len()), (HashSet::from([moved]), 4));
}

#[test]
fn an_interrupted_deletion_is_finished() {
    let mut world = World::new();
    let path = world.write("cam", 0, &media("cam", 0, 1));
    world.run(true);
    world.catalog.doom(&crate::storage::index::Selection::Oldest, false, 9).unwrap();
    let report = world.run(true);
    assert_eq!(report.deleted.len(), 1, "{report:#?}");
    assert!(!path.exists() && world.run(true).is_clean());
}

#[test]
fn an_adopted_segment_takes_its_time_from_the_gap() {
    let mut world = World::new();
    world.write("cam", 0, &media("cam", 0, 2));
    world.run(true);
    let interrupt = Change::Interrupt { stream: "cam".into(), at: Some(at(2)), reason: GapReason::Source };
    world.catalog.apply([&interrupt]).unwrap();
    world.write("cam", 10, &media("cam", 10, 2));
    world.run(true);
    let gaps: Vec<RecordingItem> = world
        .catalog
        .recordings("cam", TimeRange::ALL, 9)
        .unwrap()
        .into_iter()
        .filter(|i| matches!(i, RecordingItem::Gap { .. }))
        .collect();
    assert_eq!(gaps.len(), 2, "{gaps:#?}");
    assert!(
        matches!(gaps[0], RecordingItem::Gap { start, end: Some(end), .. } if (start, end) == (at(2), at(10)))
    );
    assert!(matches!(gaps[1], RecordingItem::Gap { start, end: None, .. } if start == at(12)));
}

#[test]
fn verification_finds_what_has_changed() {
    let mut world = World::new();
    let path = world.write("cam", 0, &media("cam", 0, 2));
    world.run(true);
    let row = || world.catalog.segments("cam", TimeRange::ALL, None, 9).unwrap().remove(0);
    assert_eq!(verify(row()).problem, None);
    let data = std::fs::read(&path).unwrap();
    std::fs::write(&path, &data[..data.len() - 1]).unwrap();
    assert!(verify(row()).problem.unwrap().contains("no whole part"));
    std::fs::write(&path, b"words").unwrap();
    assert!(verify(row()).problem.unwrap().contains("no MP4"));
    std::fs::remove_file(&path).unwrap();
    assert!(verify(row()).problem.unwrap().contains("gone"));
}
