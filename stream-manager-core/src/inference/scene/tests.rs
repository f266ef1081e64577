//! People walk through made-up pictures.

use super::*;
use crate::config::{MaskConfig, ObjectSettings};
use crate::inference::track::{Tracker, TrackerSettings};
use crate::object::Direction;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// 2026-11-29T14:03:00Z, a Sunday.
const BEGIN: i64 = 1_795_960_980_000_000_000;
const RATE: i64 = 10;

struct Camera {
    tracker: Tracker,
    scene: Scene,
    frame: i64,
    told: Vec<Happening>,
}

/// Feet at (x, y).
fn person(x: f32, y: f32) -> Detection {
    object("person", x, y, 0.08, 0.3)
}

fn object(label: &str, x: f32, y: f32, w: f32, h: f32) -> Detection {
    let region = Region::new(x - w / 2.0, y - h, x + w / 2.0, y);
    Detection::object(label.into(), 0, 0.8, region.scaled(1000.0, 1000.0), 1000, 1000)
}

impl Camera {
    fn new(text: &str) -> Self {
        let own: crate::config::StreamInferenceConfig = toml::from_str(text).unwrap();
        let settings = own.resolve(&Default::default());
        settings.check().unwrap();
        Self::with(settings.scene)
    }

    fn with(settings: SceneSettings) -> Self {
        let tracker = Tracker::new(TrackerSettings::default());
        Self { tracker, scene: Scene::new(settings), frame: 0, told: Vec::new() }
    }

    fn see(&mut self, detections: &[Detection]) {
        let kept: Vec<Detection> = detections.iter().filter(|d| !self.scene.is_masked(d)).cloned().collect();
        let nanos = self.frame * (1_000_000_000 / RATE);
        let pts = MediaTime::from_nanos(nanos);
        self.tracker.update(&kept, pts);
        let ended = self.tracker.take_ended();
        let time = WallTime::from_unix_nanos(BEGIN + nanos);
        self.told.extend(self.scene.look(self.tracker.tracks(), &ended, pts, time));
        self.frame += 1;
    }

    /// One person walks, so many pictures long.
    fn walk(&mut self, from: (f32, f32), to: (f32, f32), pictures: u32) {
        for n in 0..=pictures {
            let part = n as f32 / pictures as f32;
            self.see(&[person(from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1))]);
        }
    }

    fn nobody(&mut self, pictures: u32) {
        for _ in 0..pictures {
            self.see(&[]);
        }
    }

    fn scenes(&self) -> Vec<&SceneEvent> {
        self.told
            .iter()
            .filter_map(|one| if let Happening::Scene(s) = one { Some(&**s) } else { None })
            .collect()
    }

    fn actions(&self) -> Vec<&'static str> {
        self.scenes().iter().map(|event| event.action.name()).collect()
    }

    fn objects(&self) -> Vec<&ObjectEvent> {
        self.told
            .iter()
            .filter_map(|one| if let Happening::Object(o) = one { Some(&**o) } else { None })
            .collect()
    }

    fn secs(time: WallTime) -> f64 {
        (time.as_unix_nanos() - BEGIN) as f64 / 1e9
    }
}

const YARD: &str = "[[zones]]\nname = 'yard'\npoints = [[0.4, 0], [0.6, 0], [0.6, 1], [0.4, 1]]\n";

#[test]
fn a_passage_is_one_event() {
    let mut camera = Camera::new(YARD);
    camera.nobody(20);
    camera.walk((0.1, 0.8), (0.9, 0.8), 80);
    camera.nobody(40);
    assert_eq!(camera.actions(), ["entered", "left"]);
    let objects = camera.objects();
    let phases: Vec<Phase> = objects.iter().map(|o| o.phase).collect();
    assert_eq!((phases[0], phases[phases.len() - 1]), (Phase::Begin, Phase::End));
    assert!(phases[1..phases.len() - 1].iter().all(|phase| *phase == Phase::Update), "{phases:?}");
    assert!(objects.iter().all(|o| o.object == objects[0].object && o.track == 1));
    let end = objects[objects.len() - 1];
    assert_eq!((&*end.label, &end.zones, &end.in_zones), ("person", &vec!["yard".into()], &vec![]));
    assert!(
        (Camera::secs(end.begin) - 2.0).abs() < 0.01 && (Camera::secs(end.last) - 10.0).abs() < 0.01,
        "{end:?}"
    );
    assert!(
        (end.duration_secs - 8.0).abs() < 0.01 && end.object.starts_with("20261129T140302.000Z-"),
        "{end:?}"
    );
    assert!(
        end.path.len() > 20 && end.path[0][0] < 0.13 && end.path[end.path.len() - 1][0] > 0.87,
        "{:?}",
        end.path
    );
    assert!(end.region.x1 < 0.95, "where it was last seen: {:?}", end.region);
    // In from 0.4 on, out from 0.6 on, which is told a second later.
    let [entered, left] = camera.scenes()[..] else { panic!() };
    assert!(
        (Camera::secs(entered.frame_time) - 5.0).abs() < 0.15
            && (Camera::secs(left.frame_time) - 7.0).abs() < 0.15
    );
    assert!((left.dwell_secs.unwrap() - 2.0).abs() < 0.15);
    assert_eq!(
        (entered.object.clone(), entered.label.as_deref()),
        (Some(end.object.clone()), Some("person"))
    );
    let status = camera.scene.status();
    assert_eq!((status.zones[0].count, status.zones[0].entered, status.tracked), (0, 1, 0));
}

#[test]
fn lines_are_crossed_once_and_in_a_direction() {
    let line = "[[lines]]\nname = 'gate'\npoints = [[0.5, 0.95], [0.5, 0.5]]\n";
    let crossings = |text: &str, ways: &[[(f32, f32); 2]]| {
        let mut camera = Camera::new(text);
        for [from, to] in ways {
            camera.walk(*from, *to, 40);
            camera.nobody(30);
        }
        let status = camera.scene.status().lines[0].clone();
        let directions: Vec<Direction> = camera.scenes().iter().filter_map(|e| e.direction).collect();
        assert_eq!(directions.len() as u64, status.forward + status.backward);
        (status.forward, status.backward)
    };
    let (there, back) = ([(0.2, 0.7), (0.8, 0.7)], [(0.8, 0.8), (0.2, 0.8)]);
    assert_eq!(crossings(line, &[there, back, there]), (2, 1));
    assert_eq!(crossings(&format!("{line}direction = 'backward'\n"), &[there, back, there]), (0, 1));
    assert_eq!(crossings(&format!("{line}classes = ['dog']\n"), &[there]), (0, 0));
    // Beside its end.
    assert_eq!(crossings(line, &[[(0.2, 0.4), (0.8, 0.4)]]), (0, 0));
    // Up to it and back, and trembling on it.
    let mut camera = Camera::new(line);
    camera.walk((0.2, 0.7), (0.5, 0.7), 30);
    for n in 0..50 {
        camera.see(&[person(0.5 + if n % 2 == 0 { 0.004 } else { -0.004 }, 0.7)]);
    }
    camera.walk((0.5, 0.7), (0.2, 0.7), 30);
    assert_eq!(camera.actions(), [""; 0]);
    camera.walk((0.2, 0.7), (0.8, 0.7), 50);
    assert_eq!(camera.actions(), ["crossed"]);
    assert_eq!(camera.objects().last().unwrap().lines[0].direction, Direction::Forward);
}

#[test]
fn who_stays_too_long_and_what_stands_still() {
    let text = format!(
        "{YARD}loitering_after = '3s'\nstationary_after = '5s'\n[objects]\nstationary_after = '5s'\n"
    );
    let mut camera = Camera::new(&text);
    camera.walk((0.2, 0.8), (0.5, 0.8), 30);
    for _ in 0..100 {
        camera.see(&[person(0.5, 0.8)]);
    }
    assert_eq!(camera.actions(), ["entered", "loitering", "stationary"]);
    assert!(camera.objects().last().unwrap().stationary);
    camera.walk((0.5, 0.8), (0.9, 0.8), 40);
    assert_eq!(camera.actions(), ["entered", "loitering", "stationary", "removed", "left"]);
    // Taken away: it is simply gone.
    let mut camera = Camera::new(&text);
    for _ in 0..100 {
        camera.see(&[object("suitcase", 0.5, 0.8, 0.1, 0.1)]);
    }
    camera.nobody(30);
    assert_eq!(camera.actions(), ["entered", "loitering", "stationary", "removed", "left"]);
    let removed = camera.scenes()[3];
    assert!((Camera::secs(removed.frame_time) - 9.9).abs() < 0.15, "{removed:?}");
}

#[test]
fn short_visits_do_not_count() {
    let mut camera = Camera::new(&format!("{YARD}enter_after = '1s'\nleave_after = '1s'\n"));
    // Half a second inside, and then for long with half a second outside.
    camera.walk((0.35, 0.8), (0.43, 0.8), 8);
    camera.walk((0.43, 0.8), (0.35, 0.8), 4);
    for _ in 0..10 {
        camera.see(&[person(0.35, 0.8)]);
    }
    assert_eq!(camera.actions(), [""; 0]);
    camera.walk((0.35, 0.8), (0.41, 0.8), 20);
    for n in 0..60 {
        camera.see(&[person(if (30..35).contains(&n) { 0.39 } else { 0.41 }, 0.8)]);
    }
    assert_eq!(camera.actions(), ["entered"]);
}

#[test]
fn too_many_at_once() {
    let mut camera = Camera::new(&format!("{YARD}max_objects = 2\nleave_after = '0s'\n"));
    let crowd = |number: usize| (0..number).map(|n| person(0.45, 0.4 + 0.2 * n as f32)).collect::<Vec<_>>();
    for number in [1, 2, 3, 3, 2, 1] {
        for _ in 0..30 {
            camera.see(&crowd(number));
        }
    }
    let told: Vec<_> = camera
        .scenes()
        .into_iter()
        .filter(|e| e.action == SceneAction::Overcrowded)
        .map(|e| (e.active, e.count, e.label.clone()))
        .collect();
    assert_eq!(told, [(Some(true), Some(3), None), (Some(false), Some(2), None)]);
}

#[test]
fn at_other_times_a_zone_means_nothing() {
    for (times, expected) in [("sun 14:00-15:00", vec!["entered", "left"]), ("mon-sat 00:00-24:00", vec![])] {
        let mut camera = Camera::new(&format!("{YARD}schedule = ['{times}']\ntime_zone = 'UTC'\n"));
        camera.walk((0.1, 0.8), (0.9, 0.8), 80);
        camera.nobody(40);
        assert_eq!(camera.actions(), expected, "{times}");
        assert_eq!(camera.objects().last().unwrap().phase, Phase::End);
    }
}

#[test]
fn what_is_masked_is_nothing() {
    let mask = MaskConfig {
        points: vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
        classes: vec!["person".into()],
        ..MaskConfig::default()
    };
    let mut camera = Camera::with(SceneSettings { masks: vec![mask], ..SceneSettings::default() });
    for _ in 0..20 {
        camera.see(&[person(0.5, 0.8), object("dog", 0.2, 0.9, 0.1, 0.1)]);
    }
    assert!(!camera.objects().is_empty() && camera.objects().iter().all(|o| &*o.label == "dog"));
}

#[test]
fn only_what_is_wanted_is_told() {
    let wanted = |objects: ObjectSettings| {
        let zones = vec![ZoneConfig {
            name: "yard".into(),
            points: vec![[0.4, 0.0], [0.6, 0.0], [0.6, 1.0], [0.4, 1.0]],
            ..ZoneConfig::default()
        }];
        let settings = SceneSettings { zones, objects: Some(objects), ..SceneSettings::default() };
        let mut camera = Camera::with(settings);
        camera.walk((0.1, 0.8), (0.9, 0.8), 80);
        camera.nobody(40);
        camera
            .objects()
            .iter()
            .filter(|o| o.phase == Phase::Begin)
            .map(|o| Camera::secs(o.last))
            .collect::<Vec<_>>()
    };
    let standard = ObjectSettings::default();
    assert_eq!(wanted(ObjectSettings { min_time: Duration::from_secs(2), ..standard.clone() }), [2.0]);
    assert_eq!(wanted(ObjectSettings { min_score: 0.9, ..standard.clone() }), [0.0; 0]);
    assert_eq!(wanted(ObjectSettings { min_area: 0.1, ..standard.clone() }), [0.0; 0]);
    assert_eq!(wanted(ObjectSettings { classes: vec!["car".into()], ..standard.clone() }), [0.0; 0]);
    let in_zone = wanted(ObjectSettings { zones: vec!["yard".into()], ..standard.clone() });
    assert!(in_zone.len() == 1 && (in_zone[0] - 3.0).abs() < 0.2, "{in_zone:?}");
    assert_eq!(wanted(standard).len(), 1);
}

#[test]
fn a_storm_is_limited_and_counted() {
    let mut camera = Camera::new("[objects]\nmax_per_minute = 10\nmin_time = '0s'\n");
    // Somebody else in another place twice a second.
    for n in 0..200u32 {
        let (x, y) = (0.1 + 0.2 * (n % 5) as f32, 0.35 + 0.3 * ((n / 5) % 3) as f32);
        for _ in 0..3 {
            camera.see(&[person(x, y)]);
        }
        camera.nobody(22);
    }
    let count = |phase| camera.objects().iter().filter(|o| o.phase == phase).count();
    // Ten at first, and ten for each of eight minutes and a bit.
    assert!((90..=94).contains(&count(Phase::Begin)), "{}", count(Phase::Begin));
    assert_eq!(count(Phase::Begin), count(Phase::End), "what has begun ends");
    assert_eq!(camera.scene.status().suppressed as usize + count(Phase::Begin), 200);
}

#[test]
fn zones_change_while_somebody_is_in_them() {
    let mut camera = Camera::new(YARD);
    camera.walk((0.1, 0.8), (0.5, 0.8), 40);
    assert_eq!(camera.actions(), ["entered"]);
    let object = camera.objects()[0].object.clone();
    // Another one comes first; this one stays as it is.
    let mut settings = camera.scene.settings.clone();
    settings.zones.insert(
        0,
        ZoneConfig {
            name: "all".into(),
            points: vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
            ..ZoneConfig::default()
        },
    );
    settings.lines.push(LineConfig {
        name: "gate".into(),
        points: [[0.7, 1.0], [0.7, 0.0]],
        ..LineConfig::default()
    });
    camera.scene.configure(settings.clone());
    camera.walk((0.5, 0.8), (0.9, 0.8), 40);
    assert_eq!(camera.actions(), ["entered", "entered", "left", "crossed"].map(|a| a));
    let status = camera.scene.status();
    assert_eq!((status.zones[0].entered, status.zones[1].entered, status.lines[0].forward), (1, 1, 1));
    // Without any.
    settings.zones.clear();
    camera.scene.configure(settings);
    camera.nobody(40);
    assert!(camera.objects().iter().all(|o| o.object == object));
    assert_eq!(camera.objects().last().unwrap().phase, Phase::End);
    assert_eq!(camera.actions().len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn all_that_begins_ends(
        walks in prop::collection::vec((prop::array::uniform4(0.0f32..1.0), 1u32..40, 0u32..40), 1..8),
        corners in prop::collection::vec(prop::array::uniform2(0.0f32..1.0), 3),
    ) {
        prop_assume!(shape::check_polygon(&corners).is_ok());
        let zones = vec![ZoneConfig {
            name: "z".into(),
            points: corners,
            stationary_after: Some(crate::config::DurationText(Duration::from_secs(1))),
            max_objects: Some(1),
            ..ZoneConfig::default()
        }];
        let mut camera = Camera::with(SceneSettings { zones, ..SceneSettings::default() });
        for ([x, y, to_x, to_y], pictures, pause) in walks {
            camera.walk((x, y), (to_x, to_y), pictures);
            camera.nobody(pause);
        }
        camera.nobody(30);
        let mut told: BTreeMap<Arc<str>, Vec<Phase>> = BTreeMap::new();
        for one in camera.objects() {
            told.entry(one.object.clone()).or_default().push(one.phase);
        }
        for phases in told.values() {
            prop_assert_eq!((phases[0], phases[phases.len() - 1]), (Phase::Begin, Phase::End));
            prop_assert!(phases[1..phases.len() - 1].iter().all(|phase| *phase == Phase::Update));
        }
        let mut inside: BTreeMap<Option<u64>, Vec<&'static str>> = BTreeMap::new();
        for one in camera.scenes() {
            inside.entry(one.track).or_default().push(one.action.name());
        }
        for actions in inside.values() {
            let (mut within, mut still) = (false, false);
            for action in actions {
                match *action {
                    "entered" => prop_assert!(!std::mem::replace(&mut within, true)),
                    "left" => prop_assert!(std::mem::replace(&mut within, false) && !still),
                    "stationary" => prop_assert!(within && !std::mem::replace(&mut still, true)),
                    "removed" => prop_assert!(within && std::mem::replace(&mut still, false)),
                    other => prop_assert!(other == "overcrowded"),
                }
            }
            prop_assert!(!within && !still, "{actions:?}");
        }
        let status = camera.scene.status();
        prop_assert_eq!((status.zones[0].count, status.tracked), (0, 0));
    }
}
