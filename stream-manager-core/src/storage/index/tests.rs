use super::*;
use crate::frame::MediaTime;

const SECOND: i64 = 1_000_000_000;

fn at(seconds: i64) -> WallTime {
    WallTime::from_unix_nanos(1_700_000_000 * SECOND + seconds * SECOND)
}

fn segment(id: u64, stream: &str, start: i64, continues: bool) -> NewSegment {
    NewSegment {
        id: SegmentId(id),
        stream: stream.into(),
        start: at(start),
        media_start: MediaTime::from_nanos(start * SECOND),
        folder: format!("/video/{stream}").into(),
        name: format!("{start}.mp4"),
        format: "fmp4".into(),
        tracks: "[]".into(),
        continues,
        lost_frames: 0,
    }
}

fn end(seconds: i64, bytes: u64) -> SegmentEnd {
    SegmentEnd {
        duration_nanos: seconds * SECOND,
        bytes,
        frames: 25 * seconds as u64,
        parts: PartList::new(900),
    }
}

fn finished(id: u64, stream: &str, start: i64, seconds: i64, continues: bool) -> [Change; 2] {
    let segment = segment(id, stream, start, continues);
    [Change::Begin(segment.clone()), Change::Finish { segment, end: end(seconds, 1000) }]
}

fn range(from: i64, to: i64) -> TimeRange {
    TimeRange::new(at(from), at(to)).unwrap()
}

fn shown(items: &[RecordingItem]) -> Vec<String> {
    let seconds = |t: WallTime| (t.as_unix_nanos() - at(0).as_unix_nanos()) / SECOND;
    items
        .iter()
        .map(|item| match item {
            RecordingItem::Span { start, end, segments, .. } => {
                format!("{}-{} in {segments}", seconds(*start), seconds(*end))
            }
            RecordingItem::Gap { start, end, reason, .. } => {
                format!("{} {}-{:?}", reason.name(), seconds(*start), end.map(seconds))
            }
        })
        .collect()
}

fn catalog() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(folder.path()).unwrap();
    (folder, catalog)
}

#[test]
fn segments_join_into_spans_with_gaps_between() {
    let (_folder, mut catalog) = catalog();
    let mut changes = Vec::new();
    changes.extend(finished(1, "a", 0, 10, false));
    changes.extend(finished(2, "a", 10, 10, true));
    changes.push(Change::Interrupt { stream: "a".into(), at: Some(at(20)), reason: GapReason::Paused });
    // The first reason counts.
    changes.push(Change::Interrupt { stream: "a".into(), at: Some(at(25)), reason: GapReason::Source });
    changes.extend(finished(3, "a", 30, 10, false));
    changes.extend(finished(4, "b", 5, 10, false));
    // After a kill nobody has said why.
    changes.extend(finished(5, "a", 50, 10, false));
    catalog.apply(&changes).unwrap();
    // Applied again, nothing changes.
    catalog.apply(changes.iter().filter(|c| matches!(c, Change::Finish { .. }))).unwrap();
    let items = catalog.recordings("a", TimeRange::ALL, 100).unwrap();
    assert_eq!(
        shown(&items),
        ["0-20 in 2", "paused 20-Some(30)", "30-40 in 1", "killed 40-Some(50)", "50-60 in 1"]
    );
    let items = catalog.recordings("a", range(5, 35), 100).unwrap();
    assert_eq!(shown(&items), ["5-20 in 2", "paused 20-Some(30)", "30-35 in 1"]);
    assert_eq!(
        shown(&catalog.recordings("a", range(15, 55), 2).unwrap()),
        ["15-20 in 1", "paused 20-Some(30)"]
    );
    assert!(catalog.recordings("a", range(100, 200), 100).unwrap().is_empty());
    assert!(catalog.recordings("nobody", TimeRange::ALL, 100).unwrap().is_empty());
    let totals = catalog.totals().unwrap();
    assert_eq!((totals[0].segments, totals[0].bytes, totals[1].bytes), (4, 4000, 1000));
}

#[test]
fn an_open_gap_has_no_end_and_before_the_first_segment_nothing_is_missing() {
    let (_folder, mut catalog) = catalog();
    let interrupt = |at, reason| Change::Interrupt { stream: "a".into(), at, reason };
    catalog.apply([&interrupt(Some(at(0)), GapReason::DiskFull)]).unwrap();
    assert!(catalog.recordings("a", TimeRange::ALL, 9).unwrap().is_empty());
    catalog.apply(&finished(1, "a", 10, 5, false)).unwrap();
    // The program was killed, and what is started next cannot record.
    catalog.apply([&interrupt(None, GapReason::DiskFull)]).unwrap();
    let items = catalog.recordings("a", TimeRange::ALL, 9).unwrap();
    assert_eq!(shown(&items), ["10-15 in 1", "killed 15-None"]);
    // A gap that turns out to be none is forgotten.
    catalog.apply(&finished(2, "a", 15, 5, true)).unwrap();
    assert_eq!(shown(&catalog.recordings("a", TimeRange::ALL, 9).unwrap()), ["10-20 in 2"]);
}

#[test]
fn protected_segments_are_not_doomed_and_the_oldest_of_all_go_first() {
    let (_folder, mut catalog) = catalog();
    for (id, stream, start) in [(1, "a", 20), (2, "b", 0), (3, "a", 40), (4, "b", 30)] {
        catalog.apply(&finished(id, stream, start, 10, false)).unwrap();
    }
    assert_eq!(catalog.protect("a", range(25, 26), true).unwrap(), 1);
    assert_eq!(catalog.protect("a", range(25, 26), true).unwrap(), 0, "nothing changes twice");
    assert_eq!(catalog.totals().unwrap()[0].protected_bytes, 1000);
    let shown = |range, resolution| {
        catalog.protected_ranges("a", range, std::time::Duration::from_secs(resolution), 9).unwrap()
    };
    assert_eq!(shown(range(0, 100), 0), [range(20, 30)]);
    assert_eq!(shown(range(25, 100), 0), [range(25, 30)]);
    assert!(shown(range(30, 100), 0).is_empty());
    let ids = |doomed: Vec<Doomed>| doomed.into_iter().map(|d| d.id.0).collect::<Vec<_>>();
    assert_eq!(ids(catalog.doom(&Selection::Oldest, false, 2).unwrap()), [2, 4]);
    // Being deleted, they are gone for whoever asks, but not forgotten.
    assert!(catalog.segments("b", TimeRange::ALL, None, 9).unwrap().is_empty());
    assert_eq!(catalog.unfinished(true).unwrap().len(), 2);
    catalog.forget(&[SegmentId(2), SegmentId(4)], None).unwrap();
    assert_eq!(catalog.totals().unwrap()[1].bytes, 0);
    assert_eq!(ids(catalog.doom(&Selection::OldestOf("a".into()), false, 9).unwrap()), [3]);
    assert!(catalog.doom(&Selection::Oldest, false, 9).unwrap().is_empty());
    let folders = vec!["/video/a".into()];
    assert_eq!(ids(catalog.doom(&Selection::OldestIn(folders), true, 9).unwrap()), [1]);
}

#[test]
fn what_is_deleted_in_the_middle_is_a_gap() {
    let (_folder, mut catalog) = catalog();
    for (id, start) in [(1, 0), (2, 10), (3, 20)] {
        catalog.apply(&finished(id, "a", start, 10, id > 1)).unwrap();
    }
    let doomed = catalog.doom(&Selection::Within("a".into(), range(5, 25)), false, 9).unwrap();
    assert_eq!(doomed.len(), 1, "only what lies wholly inside");
    catalog.forget(&[doomed[0].id], Some(GapReason::Deleted)).unwrap();
    let items = catalog.recordings("a", TimeRange::ALL, 9).unwrap();
    assert_eq!(shown(&items), ["0-10 in 1", "deleted 10-Some(20)", "20-30 in 1"]);
}

#[test]
fn a_clock_that_was_set_back_does_not_join_what_does_not_belong_together() {
    let (_folder, mut catalog) = catalog();
    catalog.apply(&finished(1, "a", 7200, 10, false)).unwrap();
    catalog.apply(&finished(2, "a", 10, 10, true)).unwrap();
    let items = catalog.recordings("a", TimeRange::ALL, 9).unwrap();
    assert_eq!(shown(&items), ["10-20 in 1", "7200-7210 in 1"]);
}

#[test]
fn marks_come_back_by_time() {
    let (_folder, mut catalog) = catalog();
    let mark = |time, kind: &str| {
        let data = serde_json::json!({"score": 0.5});
        Change::Mark("a".into(), Mark { time: at(time), kind: kind.into(), text: "x".into(), data })
    };
    catalog.apply(&[mark(5, "motion"), mark(1, "clock_step"), mark(50, "late")]).unwrap();
    let marks = catalog.marks("a", range(0, 50), 9).unwrap();
    assert_eq!(marks.iter().map(|m| m.kind.as_str()).collect::<Vec<_>>(), ["clock_step", "motion"]);
    assert_eq!(marks[0].data["score"], 0.5);
}

#[test]
fn a_newer_database_and_a_damaged_one_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(folder.path()).unwrap();
    catalog.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(catalog);
    let error = Catalog::open(folder.path()).unwrap_err();
    assert!(matches!(error, IndexError::TooNew { found: 99, .. }), "{error}");
    let path = folder.path().join(FILE_NAME);
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let error = Catalog::open(folder.path()).unwrap_err();
    assert!(error.is_corrupt(), "{error}");
    let (_index, opened) = Index::open(folder.path()).unwrap();
    let aside = opened.damaged.unwrap();
    assert_eq!(std::fs::read(aside).unwrap(), vec![7; 8192], "kept as it was");
}

#[tokio::test]
async fn the_index_shows_what_is_being_written_and_pages() {
    let folder = tempfile::tempdir().unwrap();
    let (index, opened) = Index::open(folder.path()).unwrap();
    assert!(opened.new && opened.damaged.is_none());
    for start in 0..5 {
        let [begin, finish] = finished(index.new_id().0, "a", start * 20, 10, false);
        index.change(begin);
        index.change(finish);
    }
    let open = segment(index.new_id().0, "a", 100, false);
    index.change(Change::Begin(open.clone()));
    index.progress(open.id, 3 * SECOND, 77);
    index.flush().await.unwrap();
    let (items, next) = index.recordings("a", TimeRange::ALL, 100).await.unwrap();
    assert_eq!((items.len(), next), (11, None));
    assert_eq!(shown(&items[10..]), ["100-103 in 1"]);
    let rows = index.segments("a", TimeRange::ALL, None, 100).await.unwrap();
    assert_eq!((rows[5].complete, rows[5].bytes, rows[5].end), (false, 77, at(103)));
    // Pages of two give the same.
    let (mut paged, mut from) = (Vec::new(), None);
    loop {
        let range = from.map_or(TimeRange::ALL, |start| TimeRange { start, ..TimeRange::ALL });
        let (page, next) = index.recordings("a", range, 2).await.unwrap();
        paged.extend(page);
        match next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!(shown(&paged), shown(&items));
    assert!(index.parts(rows[0].id).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_damaged_database_is_replaced_while_it_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = Index::open(folder.path()).unwrap();
    for change in finished(1, "a", 0, 10, false) {
        index.change(change);
    }
    index.flush().await.unwrap();
    let aside = index.renew().await.unwrap();
    assert!(aside.is_file());
    assert!(index.recordings("a", TimeRange::ALL, 9).await.unwrap().0.is_empty());
    for change in finished(2, "a", 20, 10, false) {
        index.change(change);
    }
    index.flush().await.unwrap();
    assert_eq!(shown(&index.recordings("a", TimeRange::ALL, 9).await.unwrap().0), ["20-30 in 1"]);
}
