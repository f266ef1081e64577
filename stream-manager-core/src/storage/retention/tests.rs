use super::*;
use crate::frame::MediaTime;
use crate::storage::index::{Change, NewSegment, SegmentEnd, SegmentId};

const SECOND: i64 = 1_000_000_000;

struct World {
    folder: tempfile::TempDir,
    catalog: Catalog,
    ids: u64,
}

fn at(seconds: i64) -> WallTime {
    WallTime::from_unix_nanos(1_700_000_000 * SECOND + seconds * SECOND)
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).unwrap();
        Self { folder, catalog, ids: 0 }
    }

    /// A segment of a thousand bytes and ten seconds.
    fn record(&mut self, stream: &str, start: i64) {
        self.ids += 1;
        let folder = self.folder.path().join("video").join(stream);
        std::fs::create_dir_all(&folder).unwrap();
        let name = format!("{start}.mp4");
        std::fs::write(folder.join(&name), vec![0; 1000]).unwrap();
        let segment = NewSegment {
            id: SegmentId(self.ids),
            stream: stream.into(),
            start: at(start),
            media_start: MediaTime::ZERO,
            folder,
            name,
            format: "fmp4".into(),
            tracks: "[]".into(),
            continues: false,
            lost_frames: 0,
        };
        let end = SegmentEnd { duration_nanos: 10 * SECOND, bytes: 1000, ..Default::default() };
        self.catalog.apply([&Change::Finish { segment, end }]).unwrap();
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for total in self.catalog.totals().unwrap() {
            for row in self.catalog.segments(&total.stream, TimeRange::ALL, None, 100).unwrap() {
                assert!(row.path.is_file(), "an entry without a file");
                left.push(format!("{}{}", total.stream, row.path.file_stem().unwrap().display()));
            }
        }
        let files: usize = std::fs::read_dir(self.folder.path().join("video"))
            .unwrap()
            .map(|d| std::fs::read_dir(d.unwrap().path()).unwrap().count())
            .sum();
        assert_eq!(files, left.len(), "files without entries");
        left
    }

    fn pass(&mut self, policy: &RetentionPolicy) -> Pass {
        pass(&mut self.catalog, policy, Some(at(100)), 0, &[], &|_| None).unwrap()
    }

    /// A disk on which each file of a segment takes its thousand bytes and others take `used`.
    fn on_disk(&mut self, min_free: u64, total: u64, used: u64) -> Pass {
        let policy = RetentionPolicy { min_free: MinFree::Bytes(min_free), ..Default::default() };
        let video = self.folder.path().join("video");
        let refresh = |place: &Path| {
            let files: usize = std::fs::read_dir(place)
                .unwrap()
                .map(|d| std::fs::read_dir(d.unwrap().path()).unwrap().count())
                .sum();
            Some(Space { total_bytes: total, free_bytes: total - used - 1000 * files as u64 })
        };
        let disk = Disk { places: vec![video.clone()], space: refresh(&video).unwrap() };
        pass(&mut self.catalog, &policy, Some(at(100)), 0, &[disk], &refresh).unwrap()
    }
}

fn limits(max_age: Option<u64>, max_bytes: Option<u64>) -> StreamLimits {
    StreamLimits { max_age: max_age.map(Duration::from_secs), events_max_age: None, max_bytes }
}

#[test]
fn too_old_and_too_much_of_one_stream() {
    let mut world = World::new();
    for start in [0, 20, 40, 60] {
        world.record("a", start);
        world.record("b", start);
    }
    let mut policy = RetentionPolicy { default: limits(Some(75), None), ..Default::default() };
    policy.streams.insert("b".into(), limits(None, Some(2500)));
    let pass = world.pass(&policy);
    assert_eq!(world.left(), ["a20", "a40", "a60", "b40", "b60"]);
    assert_eq!(pass.deleted["max_age"], (1, 1000));
    assert_eq!(pass.deleted["max_size of the stream"], (2, 2000));
    // A clock that cannot be trusted makes nothing old.
    let policy = RetentionPolicy { default: limits(Some(1), None), ..Default::default() };
    super::pass(&mut world.catalog, &policy, None, 0, &[], &|_| None).unwrap();
    assert_eq!(world.left().len(), 5);
}

#[test]
fn the_oldest_of_all_go_first() {
    let mut world = World::new();
    for (stream, start) in [("a", 30), ("b", 0), ("a", 50), ("b", 40)] {
        world.record(stream, start);
    }
    let policy = RetentionPolicy { max_bytes: Some(3000), ..Default::default() };
    // What is being written counts.
    let pass = pass(&mut world.catalog, &policy, None, 500, &[], &|_| None).unwrap();
    assert_eq!(world.left(), ["a50", "b40"]);
    assert!(pass.unmet.is_empty());
}

#[test]
fn protected_ones_make_a_limit_unmet_and_stay() {
    let mut world = World::new();
    for start in [0, 20, 40] {
        world.record("a", start);
    }
    world.catalog.protect("a", TimeRange::ALL, true).unwrap();
    let mut policy = RetentionPolicy { max_bytes: Some(1000), ..Default::default() };
    policy.streams.insert("a".into(), limits(Some(1), Some(1000)));
    let pass = world.pass(&policy);
    assert_eq!(world.left().len(), 3);
    assert_eq!(pass.unmet.keys().collect::<Vec<_>>(), ["max_size of a", "storage.max_size"]);
}

#[test]
fn room_is_made_and_protected_ones_go_only_when_they_alone_fill_the_disk() {
    let mut world = World::new();
    for start in [0, 20, 40] {
        world.record("a", start);
    }
    world.catalog.protect("a", TimeRange::new(at(0), at(1)).unwrap(), true).unwrap();
    // 10,000 bytes, 5,000 of others, 3,000 of ours: 2,000 free.
    let pass = world.on_disk(3500, 10_000, 5000);
    assert_eq!((world.left(), pass.protected.len()), (vec!["a0".to_owned()], 0));
    let pass = world.on_disk(4500, 10_000, 5000);
    assert_eq!((world.left().len(), pass.protected.len()), (0, 1));
}

#[test]
fn room_that_cannot_be_had_costs_nothing() {
    let mut world = World::new();
    world.record("a", 0);
    world.record("a", 20);
    // More is to stay free than the disk has, and there is enough to go on with.
    let total = 10 * FLOOR_BYTES;
    let pass = world.on_disk(2 * total, total, 0);
    assert_eq!(world.left().len(), 2);
    assert_eq!(pass.unmet.len(), 1, "{pass:?}");
}

#[test]
fn a_range_is_deleted_and_what_is_protected_only_if_asked_for() {
    let mut world = World::new();
    for start in [0, 20, 40, 60] {
        world.record("a", start);
    }
    world.catalog.protect("a", TimeRange::new(at(20), at(21)).unwrap(), true).unwrap();
    let range = TimeRange::new(at(0), at(65)).unwrap();
    assert_eq!(delete(&mut world.catalog, "a", range, false).unwrap(), (2, 2000));
    assert_eq!(world.left(), ["a20", "a60"]);
    assert_eq!(delete(&mut world.catalog, "a", range, true).unwrap(), (1, 1000));
    assert_eq!(world.left(), ["a60"]);
    assert!(TimeRange::new(at(5), at(5)).unwrap_err().to_string().contains("before it starts"));
}

#[test]
fn a_file_that_cannot_be_removed_keeps_its_entry() {
    let mut world = World::new();
    world.record("a", 0);
    let path = world.folder.path().join("video/a/0.mp4");
    // Something that is no regular file is never removed.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let pass = world.pass(&RetentionPolicy { max_bytes: Some(0), ..Default::default() });
    assert_eq!(pass.failed.len(), 1);
    assert!(pass.deleted.is_empty());
    assert_eq!(world.catalog.totals().unwrap()[0].segments, 1);
}

#[test]
fn what_something_was_seen_in_is_kept_for_longer() {
    let mut world = World::new();
    for start in (0..100).step_by(10) {
        world.record("a", start);
        world.record("b", start);
    }
    // Somebody was there for a while; ten seconds before and after belong to it.
    let keep = |start, end| Change::Keep { stream: "a".into(), start: at(start), end: at(end) };
    world.catalog.apply([&keep(45, 46), &keep(45, 62)]).unwrap();
    let both = StreamLimits { events_max_age: Some(Duration::from_secs(1000)), ..limits(Some(20), None) };
    let policy = RetentionPolicy { default: both, ..RetentionPolicy::default() };
    let passed = pass(&mut world.catalog, &policy, Some(at(120)), 0, &[], &|_| None).unwrap();
    assert_eq!(passed.deleted["max_age"].0, 13);
    assert_eq!(world.left(), ["a30", "a40", "a50", "a60", "a70", "a90", "b90"]);
    // Not for ever.
    pass(&mut world.catalog, &policy, Some(at(1075)), 0, &[], &|_| None).unwrap();
    assert_eq!(world.left(), ["a70"]);
    // And without a longer time like all others.
    let policy = RetentionPolicy { default: limits(Some(20), None), ..RetentionPolicy::default() };
    pass(&mut world.catalog, &policy, Some(at(1075)), 0, &[], &|_| None).unwrap();
    assert!(world.left().is_empty());
}
