//! What objects cost: following them, zones and lines, keeping and finding a million.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use std::sync::Arc;
use stream_manager_core::config::{LineConfig, SceneSettings, ZoneConfig};
use stream_manager_core::frame::{MediaTime, WallTime};
use stream_manager_core::inference::{Detection, Region, Scene, Tracker, TrackerSettings};
use stream_manager_core::object::ObjectEvent;
use stream_manager_core::storage::index::TimeRange;
use stream_manager_core::storage::objects::{ObjectFilter, ObjectStore, search};

const OBJECTS: i64 = 1_000_000;
const BEGIN: i64 = 1_790_000_000;

/// Twenty people who walk about, by the picture: some cross each other.
fn picture(number: i64) -> Vec<Detection> {
    let person = |who: i64| {
        let speed = 0.02 + 0.004 * (who % 7) as f32;
        let way = (number as f32 / 10.0 * speed + who as f32 * 0.37).fract();
        let (x, y) = (if who % 2 == 0 { way } else { 1.0 - way }, 0.3 + 0.03 * who as f32);
        let region = Region::new(x, y - 0.2, x + 0.05, y);
        Detection::object("person".into(), 0, 0.8, region.scaled(1920.0, 1080.0), 1920, 1080)
    };
    (0..20).map(person).collect()
}

fn at(number: i64) -> MediaTime {
    MediaTime::from_nanos(number * 100_000_000)
}

fn following(c: &mut Criterion) {
    let mut group = c.benchmark_group("objects");
    let mut number = 0;
    let mut tracker = Tracker::new(TrackerSettings::default());
    let pictures: Vec<_> = (0..1000).map(picture).collect();
    group.bench_function("20 objects followed, a picture", |b| {
        b.iter(|| {
            tracker.update(&pictures[(number % 1000) as usize], at(number));
            number += 1;
            tracker.take_ended()
        });
    });
    let zone = |n: usize| ZoneConfig {
        name: format!("zone {n}"),
        points: vec![[0.1, 0.1], [0.9, 0.2], [0.8, 0.5], [0.95, 0.9], [0.5, 0.7], [0.1, 0.95]],
        ..ZoneConfig::default()
    };
    let line = |n: usize| LineConfig {
        name: format!("line {n}"),
        points: [[0.2 * n as f32 + 0.1, 1.0], [0.2 * n as f32 + 0.1, 0.0]],
        ..LineConfig::default()
    };
    let settings = SceneSettings {
        zones: (0..8).map(zone).collect(),
        lines: (0..4).map(line).collect(),
        ..SceneSettings::default()
    };
    let mut scene = Scene::new(settings);
    let mut tracker = Tracker::new(TrackerSettings::default());
    group.bench_function("the same, with 8 zones and 4 lines", |b| {
        b.iter(|| {
            tracker.update(&pictures[(number % 1000) as usize], at(number));
            let ended = tracker.take_ended();
            let time = WallTime::from_unix_nanos(BEGIN * 1_000_000_000 + number * 100_000_000);
            number += 1;
            scene.look(tracker.tracks(), &ended, at(number), time)
        });
    });
    group.finish();
}

/// Sixteen cameras, a few classes and zones, over ninety days.
fn event(number: i64) -> (Arc<str>, ObjectEvent) {
    let begin = BEGIN * 1000 + number * 7776;
    let time = |millis: i64| WallTime::from_unix_nanos(millis * 1_000_000);
    let label = match number % 100_000 {
        5 => "horse",
        6 => "bear",
        _ => ["person", "person", "person", "car", "dog", "bicycle"][(number % 6) as usize],
    };
    let zones: &[&str] = match number % 100_000 {
        7 => &["gate"],
        9 => &["gate", "pool"],
        _ => [&["door"][..], &["yard", "door"], &[], &["street"]][(number % 4) as usize],
    };
    let event = json!({
        "phase": "end", "object": format!("o{number}"), "track": number, "label": label, "score": 0.7,
        "best_score": 0.5 + (number % 500) as f64 / 1000.0, "box": [0.1, 0.2, 0.3, 0.6], "velocity": [0.0, 0.0],
        "stationary": false, "begin": time(begin), "last": time(begin + 9000), "duration_secs": 9.0, "zones": zones,
        "in_zones": [], "lines": [], "path": [[0.1, 0.5], [0.2, 0.5], [0.3, 0.6]],
    });
    (format!("camera-{}", number % 16).into(), serde_json::from_value(event).unwrap())
}

fn searching(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (store, _) = ObjectStore::open(folder.path()).unwrap();
    let begun = std::time::Instant::now();
    for number in 0..OBJECTS {
        let (stream, event) = event(number);
        store.object(&stream, &event);
        if number % 500 == 499 {
            runtime.block_on(store.flush()).unwrap();
        }
    }
    runtime.block_on(store.flush()).unwrap();
    assert_eq!(store.lost(), 0);
    println!("a million objects are kept after {:?}", begun.elapsed());
    let mut group = c.benchmark_group("a million objects");
    group.sample_size(20);
    let strings = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let all = || ObjectFilter { newest_first: true, ..ObjectFilter::default() };
    let hours = |from: i64, to: i64| {
        let time = |hours: i64| WallTime::from_unix_nanos((BEGIN + hours * 3600) * 1_000_000_000);
        TimeRange::new(time(from), time(to)).unwrap()
    };
    let cases = [
        ("the newest", all()),
        (
            "people in a zone, two hours of a day",
            ObjectFilter {
                labels: strings(&["person"]),
                zones: strings(&["door"]),
                range: hours(998, 1000),
                ..all()
            },
        ),
        (
            "dogs of one camera",
            ObjectFilter { labels: strings(&["dog"]), streams: strings(&["camera-4"]), ..all() },
        ),
        (
            "of some cameras, in two zones",
            ObjectFilter { streams: strings(&["camera-1*"]), zones: strings(&["yard", "street"]), ..all() },
        ),
        ("a score that hardly any has", ObjectFilter { min_score: 0.9985, ..all() }),
        ("a score that none has", ObjectFilter { min_score: 0.9999, ..all() }),
        (
            "people of a score that none has",
            ObjectFilter { labels: strings(&["person"]), min_score: 0.9999, ..all() },
        ),
        ("of two rare labels", ObjectFilter { labels: strings(&["horse", "bear"]), ..all() }),
        ("in two zones where hardly any are", ObjectFilter { zones: strings(&["gate", "pool"]), ..all() }),
        (
            "a rare label of all cameras by name",
            ObjectFilter { labels: strings(&["bear"]), streams: strings(&["camera-*"]), ..all() },
        ),
        (
            "of a label that none of the camera has",
            ObjectFilter { labels: strings(&["bicycle"]), streams: strings(&["camera-4"]), ..all() },
        ),
        (
            "the last page of a camera",
            ObjectFilter {
                streams: strings(&["camera-3"]),
                after: Some((WallTime::from_unix_nanos((BEGIN + 3600) * 1_000_000_000), 0)),
                ..all()
            },
        ),
    ];
    for (name, filter) in cases {
        let found = search(folder.path(), &filter, 100).unwrap().len();
        group.bench_function(format!("{name} ({found})"), |b| {
            b.iter(|| runtime.block_on(store.find(filter.clone(), 100)).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, following, searching);
criterion_main!(benches);
