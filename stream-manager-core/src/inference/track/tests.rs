//! Followed through made-up scenes whose truth is known, measured as in the MOT challenge: MOTA and ID switches (Bernardin and
//! Stiefelhagen, 2008), IDF1 (Ristani et al., 2016).

use super::*;
use pathfinding::prelude::{Matrix, kuhn_munkres};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Someone who walks from one place to another.
#[derive(Clone, Debug)]
struct Walker {
    begins: f32,
    ends: f32,
    from: (f32, f32),
    to: (f32, f32),
    size: (f32, f32),
    class: u32,
    /// Nobody sees it from when to when.
    hidden: Vec<(f32, f32)>,
}

impl Walker {
    fn at(&self, secs: f32) -> Option<Region> {
        if secs < self.begins || secs > self.ends {
            return None;
        }
        let part = (secs - self.begins) / (self.ends - self.begins);
        let (x, y) =
            (self.from.0 + part * (self.to.0 - self.from.0), self.from.1 + part * (self.to.1 - self.from.1));
        // Bobbing, as who walks does.
        let y = y + (secs * 9.0).sin() * 0.004;
        let (w, h) = (self.size.0 / 2.0, self.size.1 / 2.0);
        let cut = Region::new((x - w).max(0.0), (y - h).max(0.0), (x + w).min(1.0), (y + h).min(1.0));
        // What is hardly in the picture is not in it.
        (cut.area() > 0.35 * self.size.0 * self.size.1 && cut.x1 > cut.x0).then_some(cut)
    }
}

fn walker(begins: f32, ends: f32, from: (f32, f32), to: (f32, f32)) -> Walker {
    Walker { begins, ends, from, to, size: (0.06, 0.25), class: 0, hidden: Vec::new() }
}

/// What a model would see of it: boxes that are a little wrong, some doubtful, some missed, some of nothing.
struct Eye {
    random: fastrand::Rng,
    jitter: f32,
    missed: f32,
    phantoms: f32,
}

impl Eye {
    fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), jitter: 0.03, missed: 0.05, phantoms: 0.02 }
    }

    fn wrong(&mut self, size: f32) -> f32 {
        // Nearly normal.
        (0..4).map(|_| self.random.f32() - 0.5).sum::<f32>() * size * self.jitter * 1.7
    }

    fn see(&mut self, truth: &[(usize, Region)], walkers: &[Walker], secs: f32) -> Vec<Detection> {
        let mut seen = Vec::new();
        for (who, region) in truth {
            let walker = &walkers[*who];
            if walker.hidden.iter().any(|(from, to)| (*from..*to).contains(&secs))
                || self.random.f32() < self.missed
            {
                continue;
            }
            // Whoever is further down stands in front.
            let covered = truth.iter().filter(|(other, _)| other != who).map(|(_, other)| {
                let in_front = other.y1 > region.y1;
                let (w, h) = (
                    region.x1.min(other.x1) - region.x0.max(other.x0),
                    region.y1.min(other.y1) - region.y0.max(other.y0),
                );
                if in_front { w.max(0.0) * h.max(0.0) / region.area() } else { 0.0 }
            });
            let covered = covered.fold(0.0, f32::max);
            if covered > 0.75 {
                continue;
            }
            let score =
                if covered > 0.3 { 0.2 + self.random.f32() * 0.15 } else { 0.55 + self.random.f32() * 0.4 };
            let (w, h) = (region.x1 - region.x0, region.y1 - region.y0);
            let place = Region::new(
                region.x0 + self.wrong(w),
                region.y0 + self.wrong(h),
                region.x1 + self.wrong(w),
                region.y1 + self.wrong(h),
            );
            seen.push(detection(walker.class, score, place));
        }
        if self.random.f32() < self.phantoms {
            let (x, y) = (self.random.f32() * 0.9, self.random.f32() * 0.7);
            seen.push(detection(0, 0.4 + self.random.f32() * 0.1, Region::new(x, y, x + 0.08, y + 0.2)));
        }
        self.random.shuffle(&mut seen);
        seen
    }
}

fn detection(class: u32, score: f32, relative: Region) -> Detection {
    Detection::object(format!("c{class}").into(), class, score, relative.scaled(1000.0, 1000.0), 1000, 1000)
}

fn at(secs: f32) -> MediaTime {
    MediaTime::from_nanos((f64::from(secs) * 1e9) as i64)
}

#[derive(Debug)]
struct Score {
    mota: f64,
    idf1: f64,
    switches: usize,
}

/// Follows a scene at a rate, and says how well.
fn follow(walkers: &[Walker], rate: f32, secs: f32, eye: &mut Eye) -> Score {
    let mut tracker = Tracker::new(TrackerSettings::default());
    let (mut truths, mut answers, mut missed, mut wrong, mut switches) =
        (0usize, 0usize, 0usize, 0usize, 0usize);
    // Whose track each was last, and how often each is together with each.
    let mut last: BTreeMap<usize, u64> = BTreeMap::new();
    let mut together: BTreeMap<(usize, u64), i64> = BTreeMap::new();
    for n in 0..(secs * rate) as usize {
        let now = n as f32 / rate;
        let truth: Vec<(usize, Region)> =
            walkers.iter().enumerate().filter_map(|(who, w)| Some((who, w.at(now)?))).collect();
        let seen = eye.see(&truth, walkers, now);
        tracker.update(&seen, at(now));
        // Who is behind something is nowhere, for who measures.
        let truth: Vec<(usize, Region)> = truth
            .into_iter()
            .filter(|(who, _)| !walkers[*who].hidden.iter().any(|(from, to)| (*from..*to).contains(&now)))
            .collect();
        let told: Vec<&Track> =
            tracker.tracks().iter().filter(|t| t.is_confirmed() && t.seen.is_some()).collect();
        let mut fits = Vec::new();
        for (track, (_, truth)) in truth.iter().enumerate() {
            for (seen, told) in told.iter().enumerate() {
                let fit = told.region.iou(truth);
                if fit >= 0.5 {
                    fits.push(Fit { track, seen, fit });
                }
            }
        }
        let pairs = assign(&fits, truth.len(), told.len());
        truths += truth.len();
        answers += told.len();
        missed += truth.len() - pairs.len();
        wrong += told.len() - pairs.len();
        for (a, b) in pairs {
            let (who, id) = (truth[a].0, told[b].id);
            if last.insert(who, id).is_some_and(|before| before != id) {
                switches += 1;
            }
            *together.entry((who, id)).or_default() += 1;
        }
    }
    let ids: Vec<u64> =
        together.keys().map(|(_, id)| *id).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    let columns = ids.len().max(walkers.len());
    let mut counts = Matrix::new(walkers.len(), columns, 0i64);
    for ((who, id), count) in &together {
        counts[(*who, ids.binary_search(id).unwrap())] = *count;
    }
    let same = kuhn_munkres(&counts).0 as f64;
    Score {
        mota: 1.0 - (missed + wrong + switches) as f64 / truths as f64,
        idf1: 2.0 * same / (truths + answers) as f64,
        switches,
    }
}

/// Two cross, one is behind a pillar, some come and go.
fn street() -> Vec<Walker> {
    let mut all = vec![
        walker(0.0, 8.0, (-0.05, 0.5), (1.05, 0.52)),
        walker(0.5, 9.0, (1.05, 0.44), (-0.05, 0.46)),
        Walker { hidden: vec![(6.0, 7.2)], ..walker(2.0, 12.0, (0.0, 0.75), (1.0, 0.75)) },
        walker(5.0, 20.0, (0.3, 0.3), (0.34, 0.32)),
        Walker { size: (0.15, 0.1), class: 2, ..walker(10.0, 14.0, (1.1, 0.85), (-0.1, 0.85)) },
    ];
    for n in 0..8 {
        let begins = 12.0 + n as f32 * 2.2;
        let (from, to) = if n % 2 == 0 { (-0.05, 1.05) } else { (1.05, -0.05) };
        let y = 0.35 + 0.07 * (n % 5) as f32;
        all.push(walker(begins, begins + 7.0 + n as f32 * 0.3, (from, y), (to, y + 0.03)));
    }
    all
}

#[test]
fn crossing_hiding_coming_and_going() {
    // Fewer pictures, harder: at two a second a walker is in another place each time.
    for (rate, mota, idf1, switches) in
        [(30.0, 0.9, 0.9, 2), (12.5, 0.9, 0.9, 2), (5.0, 0.85, 0.88, 3), (2.0, 0.7, 0.75, 6)]
    {
        let mut all: Vec<Score> =
            (0..12).map(|seed| follow(&street(), rate, 40.0, &mut Eye::new(seed))).collect();
        let mean = |of: fn(&Score) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        let means = (mean(|s| s.mota), mean(|s| s.idf1), mean(|s| s.switches as f64));
        println!("{rate} a second: MOTA {:.3}, IDF1 {:.3}, {:.1} ID switches", means.0, means.1, means.2);
        all.sort_by(|a, b| a.mota.total_cmp(&b.mota));
        assert!(
            means.0 >= mota && means.1 >= idf1 && means.2 <= f64::from(switches),
            "{rate}: {means:?} {all:?}"
        );
    }
}

fn still(x: f32) -> Region {
    Region::new(x, 0.3, x + 0.1, 0.6)
}

fn followed(pictures: &[(f32, Vec<Detection>)]) -> Tracker {
    let mut tracker = Tracker::new(TrackerSettings::default());
    for (secs, seen) in pictures {
        tracker.update(seen, at(*secs));
    }
    tracker
}

#[test]
fn doubtful_ones_keep_a_track_and_begin_none() {
    let sure = |n: u32| (n as f32 * 0.1, vec![detection(0, 0.8, still(0.2))]);
    let doubtful =
        |n: u32| (n as f32 * 0.1, vec![detection(0, 0.2, still(0.2)), detection(0, 0.3, still(0.7))]);
    let pictures: Vec<_> = (0..5).map(sure).chain((5..60).map(doubtful)).collect();
    let tracker = followed(&pictures);
    let [track] = tracker.tracks() else { panic!("{:?}", tracker.tracks()) };
    assert_eq!((track.hits, track.seen, track.best_score, track.score), (60, Some(0), 0.8, 0.2));
    assert!((track.age().as_secs_f64() - 5.9).abs() < 0.01);
}

#[test]
fn a_clock_that_jumps_ends_all_and_mixes_nothing_up() {
    let mut tracker =
        followed(&[(5.0, vec![detection(0, 0.8, still(0.2))]), (5.1, vec![detection(0, 0.8, still(0.2))])]);
    let before = tracker.tracks()[0].id;
    for (secs, ended) in [(3.0, 1), (3.1, 0), (500.0, 1), (500.0, 0), (500.1, 0)] {
        tracker.update(&[detection(0, 0.8, still(0.2))], at(secs));
        assert_eq!(tracker.take_ended().len(), ended, "{secs}");
        assert!(tracker.tracks().len() == 1 && tracker.tracks()[0].id > before);
    }
}

#[test]
fn what_is_taken_for_something_else_now_and_then_stays_what_it_is() {
    let pictures: Vec<_> = (0..20u32)
        .map(|n| {
            (
                n as f32 * 0.2,
                vec![detection(if n % 4 == 3 { 7 } else { 2 }, 0.7, still(0.2 + 0.005 * n as f32))],
            )
        })
        .collect();
    let tracker = followed(&pictures);
    assert_eq!(tracker.tracks().len(), 1);
    assert_eq!((&*tracker.tracks()[0].label, tracker.tracks()[0].hits), ("c2", 20));
}

#[test]
fn what_is_lost_comes_back_as_the_same_or_ends() {
    let seen = |n: u32| (n as f32 * 0.1, vec![detection(0, 0.8, still(0.2))]);
    let unseen = |n: u32| (n as f32 * 0.1, vec![]);
    let mut tracker =
        followed(&(0..5).map(seen).chain((5..20).map(unseen)).chain([seen(20)]).collect::<Vec<_>>());
    assert_eq!((tracker.tracks().len(), tracker.tracks()[0].id, tracker.tracks()[0].hits), (1, 1, 6));
    for n in 21..60 {
        tracker.update(&[], at(n as f32 * 0.1));
    }
    assert!(tracker.tracks().is_empty());
    let ended = tracker.take_ended();
    assert_eq!((ended.len(), ended[0].id, ended[0].last), (1, 1, at(2.0)));
}

#[test]
fn a_classifier_s_answer_has_no_place_to_follow() {
    let tracker = followed(&[(0.0, vec![Detection::class("7".into(), 7, 0.9)]), (0.1, vec![])]);
    assert!(tracker.tracks().is_empty());
}

#[test]
fn thousands_of_objects_are_a_stated_limit() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut tracker = Tracker::new(TrackerSettings::default());
    let begun = std::time::Instant::now();
    for n in 0..20 {
        let crowd: Vec<Detection> = (0..3000)
            .map(|_| {
                let (x, y) = (random.f32() * 0.8, random.f32() * 0.6);
                detection(0, 0.2 + random.f32() * 0.8, Region::new(x, y, x + 0.2, y + 0.4))
            })
            .collect();
        tracker.update(&crowd, at(n as f32 * 0.2));
    }
    assert_eq!(tracker.left_out(), 20 * 2800);
    // Those of one picture, and what was lost within two seconds.
    assert!(tracker.tracks().len() <= 11 * 200, "{}", tracker.tracks().len());
    println!("{:?} a picture", begun.elapsed() / 20);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn each_is_one_track_s_at_most(
        pictures in prop::collection::vec(
            (prop::collection::vec((0u32..3, 0.0f32..1.0, -0.2f32..1.2, -0.2f32..1.2, -0.1f32..0.6, 0.0f32..0.6), 0..12), -0.5f64..3.0),
            1..30,
        ),
    ) {
        let mut tracker = Tracker::new(TrackerSettings::default());
        let mut secs = 0.0;
        let mut over = std::collections::BTreeSet::new();
        for (boxes, step) in &pictures {
            secs += step;
            let seen: Vec<Detection> =
                boxes.iter().map(|(c, s, x, y, w, h)| detection(*c, *s, Region::new(*x, *y, x + w, y + h))).collect();
            tracker.update(&seen, MediaTime::from_nanos((secs * 1e9) as i64));
            let mut taken: Vec<usize> = tracker.tracks().iter().filter_map(|t| t.seen).collect();
            let count = taken.len();
            taken.sort_unstable();
            taken.dedup();
            prop_assert_eq!(taken.len(), count);
            prop_assert!(taken.iter().all(|index| *index < seen.len()));
            // What is sure and has a place is followed.
            for (index, one) in seen.iter().enumerate() {
                let region = one.relative.unwrap();
                let is_box = region.x1 > region.x0 && region.y1 > region.y0;
                prop_assert!(!is_box || one.score < 0.4 || taken.contains(&index), "{one:?}");
            }
            let mut ids: Vec<u64> = tracker.tracks().iter().map(|t| t.id).collect();
            over.extend(tracker.take_ended().iter().map(|t| t.id));
            prop_assert!(ids.iter().all(|id| !over.contains(id)), "what has ended is over");
            ids.dedup();
            prop_assert_eq!(ids.len(), tracker.tracks().len());
        }
    }
}
