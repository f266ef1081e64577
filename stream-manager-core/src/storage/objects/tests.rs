//! Kept, found, forgotten.

use super::*;
use crate::detection::Region;
use crate::object::{Direction, Phase, SceneAction};
use crate::storage::index::TimeRange;

const BEGIN: i64 = 1_795_960_980_000_000_000;

fn at(secs: f64) -> WallTime {
    WallTime::from_unix_nanos(BEGIN + (secs * 1e9) as i64)
}

fn seen(name: &str, label: &str, secs: f64, score: f32, zones: &[&str]) -> ObjectEvent {
    ObjectEvent {
        phase: Phase::Begin,
        object: name.into(),
        track: 1,
        label: label.into(),
        attributes: Vec::new(),
        score,
        best_score: score,
        region: Region::new(0.1, 0.2, 0.3, 0.4),
        velocity: [0.0; 2],
        stationary: false,
        begin: at(secs),
        last: at(secs + 1.0),
        duration_secs: 1.0,
        zones: zones.iter().map(|zone| (*zone).into()).collect(),
        in_zones: Vec::new(),
        lines: Vec::new(),
        path: vec![[0.1, 0.1], [0.9, 0.9]],
        best_time: None,
        picture: None,
        records: false,
    }
}

fn crossing(secs: f64, direction: Direction) -> SceneEvent {
    SceneEvent {
        action: SceneAction::Crossed,
        zone: None,
        line: Some("gate".into()),
        direction: Some(direction),
        object: None,
        track: Some(1),
        label: Some("person".into()),
        active: None,
        count: None,
        dwell_secs: None,
        frame_time: at(secs),
    }
}

async fn names(store: &ObjectStore, filter: ObjectFilter) -> Vec<String> {
    store.find(filter, 100).await.unwrap().iter().map(|row| row.event.object.to_string()).collect()
}

#[tokio::test]
async fn objects_are_found_by_what_is_known_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (store, ended) = ObjectStore::open(folder.path()).unwrap();
    assert!(ended.is_empty());
    let (door, yard): (Arc<str>, Arc<str>) = ("door".into(), "yard/a".into());
    store.object(&door, &seen("a", "person", 0.0, 0.9, &["step"]));
    store.object(&door, &seen("b", "car", 10.0, 0.6, &[]));
    store.object(&yard, &seen("c", "person", 20.0, 0.7, &["grass", "step"]));
    store.object(
        &yard,
        &ObjectEvent {
            picture: Some(vec![1, 2, 3].into()),
            best_time: Some(at(31.0)),
            ..seen("d", "dog", 30.0, 0.5, &["grass"])
        },
    );
    store.flush().await.unwrap();
    let all = ObjectFilter::default;
    let strings = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let cases = [
        (all(), vec!["a", "b", "c", "d"]),
        (ObjectFilter { newest_first: true, ..all() }, vec!["d", "c", "b", "a"]),
        (ObjectFilter { labels: strings(&["person"]), ..all() }, vec!["a", "c"]),
        (ObjectFilter { labels: strings(&["dog", "car"]), ..all() }, vec!["b", "d"]),
        (ObjectFilter { labels: strings(&["unicorn"]), ..all() }, vec![]),
        (ObjectFilter { streams: strings(&["yard/*"]), ..all() }, vec!["c", "d"]),
        (ObjectFilter { streams: strings(&["door"]), ..all() }, vec!["a", "b"]),
        (ObjectFilter { zones: strings(&["step"]), ..all() }, vec!["a", "c"]),
        (ObjectFilter { zones: strings(&["step"]), streams: strings(&["door"]), ..all() }, vec!["a"]),
        (
            ObjectFilter { zones: strings(&["step", "grass"]), newest_first: true, ..all() },
            vec!["d", "c", "a"],
        ),
        (ObjectFilter { min_score: 0.65, ..all() }, vec!["a", "c"]),
        (ObjectFilter { range: TimeRange::new(at(10.0), at(30.0)).unwrap(), ..all() }, vec!["b", "c"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(names(&store, filter.clone()).await, expected, "{filter:?}");
    }
    // Page by page.
    for newest_first in [false, true] {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let filter = ObjectFilter { newest_first, after, ..all() };
            let page = store.find(filter, 1).await.unwrap();
            let Some(row) = page.first() else { break };
            after = Some((row.event.begin, row.id));
            found.push(row.event.object.to_string());
        }
        let expected = if newest_first { ["d", "c", "b", "a"] } else { ["a", "b", "c", "d"] };
        assert_eq!(found, expected);
    }
    let row = store.get("d").await.unwrap().unwrap();
    assert_eq!((&*row.stream, row.has_picture, row.event.label.as_ref()), ("yard/a", true, "dog"));
    let picture = store.picture("d").await.unwrap().unwrap();
    assert_eq!((&*picture.stream, picture.time, picture.jpeg), ("yard/a", at(31.0), vec![1, 2, 3]));
    assert!(store.get("e").await.unwrap().is_none() && store.picture("a").await.unwrap().is_none());
    assert!(store.forget("d").await.unwrap() && !store.forget("d").await.unwrap());
    assert!(store.picture("d").await.unwrap().is_none());
    assert_eq!(names(&store, ObjectFilter { zones: strings(&["grass"]), ..all() }).await, ["c"]);
}

/// Whatever the way, what is found is what a look at each of them finds.
#[test]
fn all_ways_lead_to_the_same() {
    use proptest::prelude::*;
    let (zones, labels, streams) =
        (["step", "grass", "pool"], ["person", "car", "dog"], ["door", "yard/a", "yard/b"]);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (store, _) = ObjectStore::open(folder.path()).unwrap();
    let mut kept = Vec::new();
    for number in 0..240_usize {
        let within: Vec<&str> = zones
            .iter()
            .enumerate()
            .filter(|(bit, _)| ((number * 7) >> bit) & 1 == 1)
            .map(|(_, zone)| *zone)
            .collect();
        // Some begin at the same moment.
        let (label, score) = (labels[number * 5 % 11 % 3], (number * 37 % 100) as f32 / 100.0);
        let event = seen(&format!("o{number}"), label, (number / 3) as f64, score, &within);
        let stream = streams[number * 3 % 7 % 3];
        store.object(&stream.into(), &event);
        kept.push((stream, number as u64 + 1, event));
    }
    runtime.block_on(store.flush()).unwrap();
    let some = |names: &'static [&'static str]| proptest::sample::subsequence(names, 0..=names.len());
    let (a, b, c) = (
        some(&["step", "grass", "pool"]),
        some(&["person", "car", "dog"]),
        some(&["door", "yard/*", "yard/b"]),
    );
    let connection = super::open(&folder.path().join(OBJECTS_FILE)).unwrap();
    proptest!(|(zones in a, labels in b, streams in c, score in 0..100_u32, newest_first: bool, times in (0..80_u32, 0..80_u32),
                after in proptest::option::of((0..80_u32, 0..240_u64)), limit in 1..30_usize, many in 1..200_i64)| {
        let strings = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let range = TimeRange::new(at(f64::from(times.0)), at(f64::from(times.1))).unwrap_or(TimeRange::ALL);
        let min_score = score.saturating_sub(30) as f32 / 100.0;
        let after = after.map(|(secs, id)| (at(f64::from(secs)), id));
        let filter = ObjectFilter {
            zones: strings(&zones), labels: strings(&labels), streams: strings(&streams), min_score, range, newest_first, after,
        };
        let behind = |(_, id, event): &&(&str, u64, ObjectEvent)| after.is_none_or(|after| {
            if newest_first { (event.begin, *id) < after } else { (event.begin, *id) > after }
        });
        let mut expected: Vec<(WallTime, u64)> = kept.iter().filter(behind).filter(|(stream, _, event)| {
            (zones.is_empty() || zones.iter().any(|zone| event.zones.iter().any(|within| &**within == *zone)))
                && (labels.is_empty() || labels.contains(&&*event.label))
                && (streams.is_empty() || streams.iter().any(|one| one == stream || (*one == "yard/*" && stream.starts_with("yard/"))))
                && event.best_score >= min_score && event.begin >= range.start && event.begin < range.end
        }).map(|(_, id, event)| (event.begin, *id)).collect();
        expected.sort_unstable();
        if newest_first {
            expected.reverse();
        }
        expected.truncate(limit);
        let found = super::find::find_with(&connection, &filter, limit, [many, many]).unwrap();
        prop_assert_eq!(found.iter().map(|row| (row.event.begin, row.id)).collect::<Vec<_>>(), expected, "{:?}", filter);
    });
}

#[tokio::test]
async fn what_was_there_when_the_program_was_killed_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = ObjectStore::open(folder.path()).unwrap();
    let door: Arc<str> = "door".into();
    store.object(&door, &seen("a", "person", 0.0, 0.9, &["step"]));
    let changed = ObjectEvent {
        phase: Phase::Update,
        in_zones: vec!["step".into()],
        last: at(9.0),
        ..seen("a", "person", 0.0, 0.95, &["step"])
    };
    store.object(&door, &changed);
    store.object(&door, &ObjectEvent { phase: Phase::End, ..seen("b", "person", 1.0, 0.5, &[]) });
    store.flush().await.unwrap();
    drop(store);
    let (store, ended) = ObjectStore::open(folder.path()).unwrap();
    let [(stream, event)] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!((&**stream, &*event.object, event.phase, event.last), ("door", "a", Phase::End, at(9.0)));
    let row = store.get("a").await.unwrap().unwrap();
    assert_eq!((row.event.phase, row.event.best_score, row.event.in_zones.len()), (Phase::End, 0.95, 0));
    drop(store);
    assert!(ObjectStore::open(folder.path()).unwrap().1.is_empty(), "once");
}

#[tokio::test]
async fn counts_and_ways_by_the_hour() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = ObjectStore::open(folder.path()).unwrap();
    let door: Arc<str> = "door".into();
    for (secs, direction) in [
        (0.0, Direction::Forward),
        (1.0, Direction::Forward),
        (2.0, Direction::Backward),
        (3600.0, Direction::Forward),
    ] {
        store.scene(&door, &crossing(secs, direction));
    }
    let zone = |action, dwell_secs| SceneEvent {
        action,
        zone: Some("step".into()),
        line: None,
        direction: None,
        dwell_secs,
        ..crossing(5.0, Direction::Forward)
    };
    store.scene(&door, &zone(SceneAction::Entered, None));
    store.scene(&door, &zone(SceneAction::Left, Some(7.5)));
    store.object(&door, &ObjectEvent { phase: Phase::End, ..seen("a", "person", 0.0, 0.9, &[]) });
    store.flush().await.unwrap();
    let filter = PlaceFilter { stream: "door".into(), places: Vec::new(), range: TimeRange::ALL };
    let rows = store.counts(filter.clone(), 100).await.unwrap();
    let short: Vec<_> = rows.iter().map(|r| (r.place.as_str(), r.action.as_str(), r.count, r.secs)).collect();
    // 14:03 is in the hour from 14:00 on.
    assert_eq!(
        short,
        [
            ("gate", "backward", 1, 0.0),
            ("gate", "forward", 2, 0.0),
            ("step", "entered", 1, 0.0),
            ("step", "left", 1, 7.5),
            ("gate", "forward", 1, 0.0)
        ]
    );
    assert_eq!(
        (rows[0].hour.to_string(), rows[4].hour.to_string()),
        ("2026-11-29T14:00:00.000Z".into(), "2026-11-29T15:00:00.000Z".into())
    );
    let one = PlaceFilter {
        places: vec!["gate".into()],
        range: TimeRange::new(at(3500.0), at(9999.0)).unwrap(),
        ..filter
    };
    assert_eq!(store.counts(one, 100).await.unwrap().len(), 1);
    let heat = store.heat("door", TimeRange::ALL).await.unwrap();
    assert_eq!((heat.cells.iter().sum::<u64>(), heat.cells[32 + 3], heat.cells[16 * 32 + 28]), (2, 1, 1));
    // Of a zone in the upper left quarter.
    let mut quarter = heat;
    quarter.keep_within(&[[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]);
    assert_eq!((quarter.cells.iter().sum::<u64>(), quarter.cells[32 + 3]), (1, 1));
    assert_eq!(store.happenings("door", TimeRange::ALL, 100).await.unwrap().len(), 6);
    assert_eq!(store.forget_before(at(3000.0)).await.unwrap(), 1);
    assert_eq!(store.happenings("door", TimeRange::ALL, 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn only_the_newest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = ObjectStore::open(folder.path()).unwrap();
    let door: Arc<str> = "door".into();
    for n in 0..900 {
        store.object(
            &door,
            &ObjectEvent {
                phase: Phase::End,
                ..seen(&format!("o{n}"), "person", f64::from(n), 0.9, &["step"])
            },
        );
    }
    store.flush().await.unwrap();
    assert_eq!(store.keep_newest(1000).await.unwrap(), 0);
    assert_eq!(store.keep_newest(300).await.unwrap(), 600);
    let left = names(&store, ObjectFilter { zones: vec!["step".into()], ..ObjectFilter::default() }).await;
    assert_eq!((left.len(), left[0].as_str()), (100, "o600"));
    assert_eq!((store.lost(), store.waiting()), (0, 0));
}

#[tokio::test]
async fn a_damaged_one_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(OBJECTS_FILE), vec![0x55; 9000]).unwrap();
    let (store, _) = ObjectStore::open(folder.path()).unwrap();
    store.object(&"door".into(), &seen("a", "person", 0.0, 0.9, &[]));
    store.flush().await.unwrap();
    assert!(store.get("a").await.unwrap().is_some());
    let kept = std::fs::read_dir(folder.path())
        .unwrap()
        .any(|e| e.unwrap().file_name().to_str().unwrap().contains("damaged"));
    assert!(kept);
}
