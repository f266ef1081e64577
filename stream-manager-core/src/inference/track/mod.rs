//! The same object in one picture after the other.
//!
//! ```text
//! Detections (by score: sure, doubtful) ─► Kalman filters say where each track should be by now
//!   1. sure ones to all tracks by overlap    2. doubtful ones to what was there just now    3. sure ones to what is new
//!   4. sure ones to what is near, where few pictures a second come    ─► tracks: seen, lost for a while, ended
//! ```
//!
//! After ByteTrack (Zhang et al., ECCV 2022): what a model is not sure of keeps a track going that is there already, so that somebody who
//! walks behind a fence stays the same person, and never begins one. Everything is by the time of the pictures, so that 2 a second work as 30 do.
//!
//! ```
//! use stream_manager_core::frame::MediaTime;
//! use stream_manager_core::inference::{Detection, Region, Tracker, TrackerSettings};
//!
//! let mut tracker = Tracker::new(TrackerSettings::default());
//! for n in 0..10 {
//!     let left = 100.0 + 5.0 * n as f32;
//!     let person = Detection::object("person".into(), 0, 0.8, Region::new(left, 50.0, left + 40.0, 150.0), 640, 360);
//!     tracker.update(&[person], MediaTime::from_nanos(n * 100_000_000));
//! }
//! let track = &tracker.tracks()[0];
//! assert!(track.is_confirmed() && &*track.label == "person" && track.velocity[0] > 0.07);
//! ```

mod assign;
mod kalman;

use crate::detection::{Detection, Region};
use crate::frame::MediaTime;
use assign::{Fit, assign};
use kalman::Motion;
use std::sync::Arc;
use std::time::Duration;

/// Overlap from which a box may belong to a track, for sure ones, doubtful ones, and tracks that have been seen once.
const OVERLAP: [f32; 3] = [0.12, 0.4, 0.25];
/// What another class than before counts for: cars and trucks are taken for each other, people and cars are not often.
const OTHER_CLASS: f32 = 0.5;
/// Pictures further apart than this have nothing to do with each other; nor do those in which time goes back.
const MAX_STEP: Duration = Duration::from_secs(10);
/// How much of a box may be between two pictures of it, at most, to be near.
const NEAR: f32 = 1.5;
/// How much wider or higher something may be than just now, to be near.
const LIKE: f32 = 1.8;
/// For how long what is lost is looked for near where it should be.
const NEAR_FOR: Duration = Duration::from_millis(1500);
/// Classes that something is taken for, at most.
const MAX_VOTES: usize = 16;
/// Pictures in which something has to be seen before it counts.
const CONFIRMED: u32 = 2;

/// How objects are followed.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackerSettings {
    /// The score from which an object is sure, and may begin a track.
    pub sure: f32,
    /// The score from which it keeps a track going that is there.
    pub doubtful: f32,
    /// For how long something that is not seen may come back as the same.
    pub max_lost: Duration,
    /// Objects in one picture that are followed at most: the surest of them.
    pub max_objects: usize,
}

impl Default for TrackerSettings {
    fn default() -> Self {
        Self { sure: 0.4, doubtful: 0.15, max_lost: Duration::from_secs(2), max_objects: 200 }
    }
}

/// An object that is followed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Track {
    /// Its number: never that of another one of this tracker.
    pub id: u64,
    /// What it was taken for most, by the sum of scores.
    pub label: Arc<str>,
    /// That class's number.
    pub class: u32,
    /// Where it is, relative to the picture; where it should be if it is not seen just now.
    pub region: Region,
    /// Parts of the picture in a second, across and down.
    pub velocity: [f32; 2],
    /// The last score.
    pub score: f32,
    /// The best one.
    pub best_score: f32,
    /// When it was first seen.
    pub first: MediaTime,
    /// When it was last seen.
    pub last: MediaTime,
    /// Pictures in which it was seen.
    pub hits: u32,
    /// Which of the last picture's detections it is; `None` while it is not seen.
    pub seen: Option<usize>,
    motion: Motion,
    /// Sums of scores by class.
    votes: Vec<(u32, Arc<str>, f32)>,
}

impl Track {
    fn new(id: u64, detection: &Detection, region: Region, index: usize, now: MediaTime) -> Self {
        Self {
            id,
            label: detection.label.clone(),
            class: detection.class,
            region,
            velocity: [0.0; 2],
            score: detection.score,
            best_score: detection.score,
            first: now,
            last: now,
            hits: 1,
            seen: Some(index),
            motion: Motion::new(&region),
            votes: vec![(detection.class, detection.label.clone(), detection.score)],
        }
    }

    /// Whether it was seen often enough to count.
    pub fn is_confirmed(&self) -> bool {
        self.hits >= CONFIRMED
    }

    /// Whether it counts, and is seen just now.
    pub fn is_seen(&self) -> bool {
        self.is_confirmed() && self.seen.is_some()
    }

    /// For how long it has been followed.
    pub fn age(&self) -> Duration {
        self.last.saturating_since(self.first)
    }

    fn take(&mut self, detection: &Detection, region: Region, index: usize, now: MediaTime) {
        self.motion.correct(&region);
        // What the model sees is nearer to the truth than what was foreseen, and what is drawn has to fit.
        self.region = region;
        self.velocity = self.motion.velocity();
        self.score = detection.score;
        self.best_score = self.best_score.max(detection.score);
        (self.last, self.seen) = (now, Some(index));
        self.hits = self.hits.saturating_add(1);
        match self.votes.iter().position(|(class, ..)| *class == detection.class) {
            Some(known) => self.votes[known].2 += detection.score,
            None if self.votes.len() < MAX_VOTES => {
                self.votes.push((detection.class, detection.label.clone(), detection.score));
            }
            None => {}
        }
        if let Some((class, label, _)) = self.votes.iter().max_by(|a, b| a.2.total_cmp(&b.2))
            && *class != self.class
        {
            (self.class, self.label) = (*class, label.clone());
        }
    }

    /// Whether it has gone out of the picture.
    fn is_outside(&self) -> bool {
        let r = &self.region;
        let (x, y) = ((r.x0 + r.x1) / 2.0, (r.y0 + r.y1) / 2.0);
        !(0.0..=1.0).contains(&x) || !(0.0..=1.0).contains(&y)
    }
}

/// Follows the objects of one camera.
#[derive(Debug)]
pub struct Tracker {
    settings: TrackerSettings,
    tracks: Vec<Track>,
    ended: Vec<Track>,
    now: Option<MediaTime>,
    next_id: u64,
    left_out: u64,
}

impl Tracker {
    /// One that has seen nothing yet.
    pub fn new(settings: TrackerSettings) -> Self {
        Self { settings, tracks: Vec::new(), ended: Vec::new(), now: None, next_id: 1, left_out: 0 }
    }

    /// Works like this from the next picture on.
    pub fn configure(&mut self, settings: TrackerSettings) {
        self.settings = settings;
    }

    /// All that are followed: seen in the last picture, or lost for a while.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Those that were confirmed and have ended since this was last asked.
    pub fn take_ended(&mut self) -> Vec<Track> {
        std::mem::take(&mut self.ended)
    }

    /// Objects that were one too many in their picture, in all.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Ends all tracks, as where a stream has an end or its picture changes.
    pub fn reset(&mut self) {
        let tracks = std::mem::take(&mut self.tracks);
        self.ended.extend(tracks.into_iter().filter(Track::is_confirmed));
        self.now = None;
    }

    /// What was seen in the next picture. What has no place (a classifier's answer) is left out.
    pub fn update(&mut self, detections: &[Detection], now: MediaTime) {
        let (sure, doubtful) = (self.settings.sure, self.settings.doubtful);
        let found = self.sorted(detections, |d| d.score >= doubtful);
        let parts = found.into_iter().partition(|index| detections[*index].score >= sure);
        self.step(detections, parts, now);
    }

    /// The same where somebody else has said what is sure: the first ones are, the others are doubtful.
    pub(super) fn update_split(&mut self, detections: &[Detection], sure: usize, now: MediaTime) {
        let found = self.sorted(detections, |_| true);
        let parts = found.into_iter().partition(|index| *index < sure);
        self.step(detections, parts, now);
    }

    /// Nothing has moved from one picture to another, and those between were not looked at.
    pub(super) fn stay_until(&mut self, from: MediaTime, now: MediaTime) {
        if self.now != Some(from) || now <= from {
            return;
        }
        for track in self.tracks.iter_mut().filter(|track| track.last == from) {
            track.last = now;
        }
        self.now = Some(now);
    }

    fn step(&mut self, detections: &[Detection], (sure, doubtful): (Vec<usize>, Vec<usize>), now: MediaTime) {
        let step = self.now.map(|before| (now.as_nanos() - before.as_nanos()) as f64 / 1e9);
        if step.is_some_and(|secs| secs < 0.0 || secs > MAX_STEP.as_secs_f64()) {
            self.reset();
        }
        let secs = if self.now.is_some() { step.unwrap_or(0.0) } else { 0.0 };
        self.now = Some(now);
        for track in &mut self.tracks {
            if track.seen.take().is_none() {
                track.motion.hold_size();
            }
            track.motion.predict(secs);
            track.region = track.motion.region();
        }
        let just_now = |track: &Track| {
            track.is_confirmed() && now.saturating_since(track.last).as_secs_f64() <= secs + 1e-6
        };
        let sure = self.pair(detections, sure, now, Track::is_confirmed, |t, r| overlap(t, r, OVERLAP[0]));
        self.pair(detections, doubtful, now, just_now, |t, r| overlap(t, r, OVERLAP[1]));
        let sure = self.pair(detections, sure, now, |t| !t.is_confirmed(), |t, r| overlap(t, r, OVERLAP[2]));
        let sure = self.pair(detections, sure, now, |_| true, |t, r| near(t, r, now));
        for index in sure {
            if let Some(region) = detections[index].relative {
                self.tracks.push(Track::new(self.next_id, &detections[index], region, index, now));
                self.next_id += 1;
            }
        }
        self.end(now);
    }

    /// The places of what counts, the surest first, no more than are followed.
    fn sorted(&mut self, detections: &[Detection], counts: impl Fn(&Detection) -> bool) -> Vec<usize> {
        let is_box = |r: &Region| r.x1 > r.x0 && r.y1 > r.y0 && r.area().is_finite();
        let counts = |(index, d): (usize, &Detection)| {
            (d.relative.as_ref().is_some_and(is_box) && counts(d)).then_some(index)
        };
        let mut found: Vec<usize> = detections.iter().enumerate().filter_map(counts).collect();
        found.sort_by(|a, b| detections[*b].score.total_cmp(&detections[*a].score));
        let most = self.settings.max_objects;
        if found.len() > most {
            self.left_out += (found.len() - most) as u64;
            found.truncate(most);
        }
        found
    }

    /// Pairs what is left with the tracks that are still without. Gives what is left then.
    fn pair(
        &mut self,
        detections: &[Detection],
        left: Vec<usize>,
        now: MediaTime,
        wanted: impl Fn(&Track) -> bool,
        fit: impl Fn(&Track, &Region) -> Option<f32>,
    ) -> Vec<usize> {
        if left.is_empty() {
            return left;
        }
        let mut fits = Vec::new();
        for (at, track) in self.tracks.iter().enumerate() {
            // What has just begun is none to be paired again.
            if track.seen.is_some() || !wanted(track) {
                continue;
            }
            for (seen, index) in left.iter().enumerate() {
                let detection = &detections[*index];
                let Some(value) = detection.relative.as_ref().and_then(|region| fit(track, region)) else {
                    continue;
                };
                let class = if track.class == detection.class { 1.0 } else { OTHER_CLASS };
                fits.push(Fit { track: at, seen, fit: value * class });
            }
        }
        let mut taken = vec![false; left.len()];
        for (track, seen) in assign(&fits, self.tracks.len(), left.len()) {
            let detection = &detections[left[seen]];
            if let Some(region) = detection.relative {
                self.tracks[track].take(detection, region, left[seen], now);
                taken[seen] = true;
            }
        }
        left.into_iter().zip(taken).filter(|(_, taken)| !taken).map(|(index, _)| index).collect()
    }

    fn end(&mut self, now: MediaTime) {
        let max_lost = self.settings.max_lost;
        let ended = self.tracks.extract_if(.., |track| {
            let lost = track.seen.is_none();
            lost && (!track.is_confirmed()
                || now.saturating_since(track.last) > max_lost
                || track.is_outside())
        });
        self.ended.extend(ended.filter(Track::is_confirmed));
    }
}

fn overlap(track: &Track, region: &Region, least: f32) -> Option<f32> {
    let iou = track.region.iou(region);
    (iou >= least).then_some(iou)
}

/// How near something is to where it should be, in its own size: for pictures so far apart that nothing overlaps.
fn near(track: &Track, region: &Region, now: MediaTime) -> Option<f32> {
    let since = now.saturating_since(track.last);
    if since > NEAR_FOR {
        return None;
    }
    let size = |r: &Region| (r.x1 - r.x0, r.y1 - r.y0);
    let ((w, h), (width, height)) = (size(&track.region), size(region));
    let like = |a: f32, b: f32| a.max(b) / a.min(b).max(1e-6);
    if like(w, width) > LIKE || like(h, height) > LIKE {
        return None;
    }
    let middle = |r: &Region| ((r.x0 + r.x1) / 2.0, (r.y0 + r.y1) / 2.0);
    let ((x, y), (at_x, at_y)) = (middle(&track.region), middle(region));
    let far = ((x - at_x) / w.max(width)).hypot((y - at_y) / h.max(height));
    // Who was seen once could be going anywhere; the longer ago, the further.
    let reach = NEAR * (since.as_secs_f32() * 2.0).min(1.0);
    (far < reach).then(|| (1.0 - far / NEAR).max(0.01) * 0.5)
}

#[cfg(test)]
mod tests;
