//! What is made of what a model sees in one picture after the other: tracks, what they do, and the best picture of each.

use super::convert::Scaler;
use super::picture::Picture;
use super::scene::{Happening, Scene, SceneStatus, is_of};
use super::track::{Track, Tracker, TrackerSettings};
use crate::config::{SceneSettings, TrackingSettings};
use crate::detection::{Detections, Region};
use crate::frame::{MediaTime, WallTime};
use crate::object::Attribute;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A picture that is so much older than one that was looked at already came late: models work at several at once.
const LATE: Duration = Duration::from_secs(2);
/// How long nothing has to come until what was there has gone.
const SILENCE: Duration = Duration::from_secs(5);
/// The same where pictures come rarely.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// Objects of which a picture is kept.
const MOST_PICTURES: usize = 64;
/// How many pixels a kept picture is wide or high at most.
const PICTURE_SIZE: f32 = 320.0;
/// How much of what is around an object is in its picture, in parts of it on each side.
const AROUND: f32 = 0.15;
/// How much better a picture has to be to replace another.
const BETTER: f32 = 1.08;
const QUALITY: u8 = 80;
/// How many pixels a classifier's picture is wide or high at most: few take more.
const CLASSIFIED_SIZE: f32 = 512.0;

/// What is followed on one stream.
pub(crate) struct Follow {
    settings: SceneSettings,
    tracker: Tracker,
    scene: Scene,
    /// When the last picture was taken.
    last: Option<(MediaTime, WallTime)>,
    /// Pictures in which nothing had moved, by then.
    still: u64,
    /// Since when nothing has come that says anything.
    quiet: Instant,
    /// How far apart the last two pictures were.
    step: Duration,
    pictures: BTreeMap<u64, Shot>,
    scaler: Scaler,
    problems: Vec<String>,
    /// Where classifiers are asked, if there are any.
    questions: Option<mpsc::Sender<Question>>,
    /// When each was asked last, by track and classifier.
    asked: BTreeMap<(u64, usize), MediaTime>,
    /// What went wrong with a classifier.
    failed: Option<String>,
}

/// A picture of an object for a classifier.
pub(crate) struct Question {
    pub(crate) track: u64,
    pub(crate) model: String,
    pub(crate) min_score: f32,
    pub(crate) picture: Picture,
}

/// The best picture of an object.
struct Shot {
    quality: f32,
    time: WallTime,
    width: u32,
    height: u32,
    rgb: Vec<u8>,
    /// Whether it was told: then it is the listener's.
    told: bool,
}

/// What a model has said of a picture.
pub(crate) struct Answer<'a> {
    /// What it is sure of, and behind that what it is not.
    pub(crate) detections: &'a mut Detections,
    /// How many it is sure of.
    pub(crate) sure: usize,
    pub(crate) picture: &'a Picture,
    /// Pictures so far in which nothing had moved.
    pub(crate) still: u64,
}

fn tracking(settings: &TrackingSettings) -> TrackerSettings {
    TrackerSettings {
        max_lost: settings.max_lost,
        max_objects: settings.max_objects,
        ..TrackerSettings::default()
    }
}

impl Follow {
    /// None where nothing is to be followed. Classifiers are asked by `questions`, if there are any.
    pub(crate) fn new(settings: &SceneSettings, questions: Option<mpsc::Sender<Question>>) -> Option<Self> {
        let followed = settings.tracking.as_ref()?;
        Some(Self {
            tracker: Tracker::new(tracking(followed)),
            scene: Scene::new(settings.clone()),
            settings: settings.clone(),
            last: None,
            still: 0,
            quiet: Instant::now(),
            step: Duration::ZERO,
            pictures: BTreeMap::new(),
            scaler: Scaler::default(),
            problems: Vec::new(),
            questions,
            asked: BTreeMap::new(),
            failed: None,
        })
    }

    /// What a classifier has said of an object, or why it says nothing.
    pub(crate) fn answer(&mut self, track: u64, answer: Result<Option<Attribute>, String>) {
        match answer {
            Ok(Some(attribute)) => self.scene.call(track, attribute),
            Ok(None) => {}
            Err(problem) => self.failed = Some(problem),
        }
    }

    /// Has classifiers look at those that they have not seen yet, or not for a while.
    fn ask(&mut self, picture: &Picture, pts: MediaTime) {
        let Some(questions) = &self.questions else { return };
        for (index, cascade) in self.settings.cascade.iter().enumerate() {
            for track in self.tracker.tracks().iter().filter(|track| track.is_seen()) {
                let fits = is_of(&cascade.classes, &track.label);
                let due = match (self.asked.get(&(track.id, index)), cascade.interval) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(at), Some(interval)) => pts.saturating_since(*at) >= interval.0,
                };
                if !fits || !due || track.region.area() < cascade.min_area {
                    continue;
                }
                // One that has no room is asked with the next picture.
                let Ok(permit) = questions.try_reserve() else { return };
                let Some((width, height, rgb)) =
                    cut(&mut self.scaler, picture, &track.region, 0.0, CLASSIFIED_SIZE)
                else {
                    continue;
                };
                let Ok(cut) = Picture::rgb(width, height, rgb) else { continue };
                let (model, min_score) = (cascade.model.clone(), cascade.min_score);
                permit.send(Question { track: track.id, model, min_score, picture: cut });
                self.asked.insert((track.id, index), pts);
            }
        }
    }

    pub(crate) fn configure(&mut self, settings: &SceneSettings) {
        if let Some(followed) = &settings.tracking {
            self.tracker.configure(tracking(followed));
        }
        self.scene.configure(settings.clone());
        self.settings = settings.clone();
        self.problems.clear();
        // By their places: another classifier may be there now.
        self.asked.clear();
        self.failed = None;
    }

    /// Which classes are asked for that the model does not have.
    pub(crate) fn look_at_classes(&mut self, labels: &[Arc<str>]) {
        let known = |class: &String| labels.iter().any(|label| **label == **class);
        let mut problems = Vec::new();
        let mut look = |whose: String, classes: &[String]| {
            problems.extend(
                classes
                    .iter()
                    .filter(|class| !known(class))
                    .map(|class| format!("{whose}: the model has no class \"{class}\"")),
            );
        };
        for zone in &self.settings.zones {
            look(format!("zone \"{}\"", zone.name), &zone.classes);
        }
        for line in &self.settings.lines {
            look(format!("line \"{}\"", line.name), &line.classes);
        }
        for (index, mask) in self.settings.masks.iter().enumerate() {
            look(format!("masks[{index}]"), &mask.classes);
        }
        if let Some(objects) = &self.settings.objects {
            look("objects".to_owned(), &objects.classes);
        }
        for (index, cascade) in self.settings.cascade.iter().enumerate() {
            look(format!("cascade[{index}]"), &cascade.classes);
        }
        self.problems = problems;
    }

    /// A picture's objects. They get the numbers of their tracks; what only helps to follow is taken out.
    pub(crate) fn take(&mut self, answer: Answer<'_>) -> Vec<Happening> {
        let Answer { detections, sure, picture, still } = answer;
        let (pts, time) = (detections.pts, detections.time);
        self.quiet = Instant::now();
        if self.last.is_some_and(|(last, _)| pts < last && last.saturating_since(pts) < LATE) {
            detections.detections.truncate(sure);
            return Vec::new();
        }
        if still > self.still
            && let Some((last, _)) = self.last
        {
            // Nothing had moved in between, so all was where it was.
            self.tracker.stay_until(last, pts);
        }
        self.still = still;
        self.step = self.last.map_or(Duration::ZERO, |(last, _)| pts.saturating_since(last));
        self.last = Some((pts, time));
        let scene = &self.scene;
        let (mut places, mut wanted) = (Vec::new(), Vec::new());
        let mut surely = 0;
        for (index, detection) in detections.detections.iter().enumerate() {
            if !scene.is_masked(detection) {
                surely += usize::from(index < sure);
                places.push(index);
                wanted.push(detection.clone());
            }
        }
        self.tracker.update_split(&wanted, surely, pts);
        for track in self.tracker.tracks().iter().filter(|track| track.is_confirmed()) {
            let place = track.seen.and_then(|seen| places.get(seen));
            if let Some(detection) = place.and_then(|index| detections.detections.get_mut(*index)) {
                detection.track = Some(track.id);
            }
        }
        detections.detections.truncate(sure);
        self.shoot(picture, time);
        self.ask(picture, pts);
        let ended = self.tracker.take_ended();
        let told = self.scene.look(self.tracker.tracks(), &ended, pts, time);
        self.illustrate(told, &ended)
    }

    /// Ends what is there if nothing comes any more.
    pub(crate) fn look_at_clock(&mut self, still: u64) -> Vec<Happening> {
        if still != self.still {
            // The camera is there, and nothing moves in front of it.
            self.quiet = Instant::now();
        }
        let lost = self.settings.tracking.as_ref().map_or(SILENCE, |t| t.max_lost.max(SILENCE));
        // Where only keyframes are looked at, it takes a while until the next one.
        let patience = lost.max(self.step.saturating_mul(3).min(LONGEST_SILENCE));
        if self.quiet.elapsed() < patience { Vec::new() } else { self.end() }
    }

    /// Ends all that is there.
    pub(crate) fn end(&mut self) -> Vec<Happening> {
        self.tracker.reset();
        let ended = self.tracker.take_ended();
        let Some((pts, time)) = self.last.take() else { return Vec::new() };
        let told = self.scene.look(&[], &ended, pts, time);
        self.illustrate(told, &ended)
    }

    pub(crate) fn status(&self) -> SceneStatus {
        SceneStatus {
            left_out: self.tracker.left_out(),
            problems: self.problems.iter().chain(&self.failed).cloned().collect(),
            ..self.scene.status()
        }
    }

    /// Keeps the best picture of each that may be told of.
    fn shoot(&mut self, picture: &Picture, time: WallTime) {
        for track in self.tracker.tracks().iter().filter(|track| track.is_seen()) {
            let quality = track.score * track.region.area().sqrt();
            match self.pictures.get(&track.id) {
                Some(shot) if quality < shot.quality * BETTER => continue,
                None if self.pictures.len() >= MOST_PICTURES => continue,
                _ => {}
            }
            if let Some(shot) = shot(&mut self.scaler, picture, &track.region, quality, time) {
                self.pictures.insert(track.id, shot);
            }
        }
    }

    /// Puts pictures to what is told of objects, and forgets those of what has ended.
    fn illustrate(&mut self, mut told: Vec<Happening>, ended: &[Track]) -> Vec<Happening> {
        for one in &mut told {
            let Happening::Object(object) = one else { continue };
            let Some(shot) = self.pictures.get_mut(&object.track) else { continue };
            object.best_time = Some(shot.time);
            if !std::mem::replace(&mut shot.told, true) {
                object.picture = shot.jpeg();
            }
        }
        for track in ended {
            self.pictures.remove(&track.id);
            self.asked.retain(|(id, _), _| *id != track.id);
        }
        told
    }
}

fn shot(
    scaler: &mut Scaler,
    picture: &Picture,
    region: &Region,
    quality: f32,
    time: WallTime,
) -> Option<Shot> {
    let (width, height, rgb) = cut(scaler, picture, region, AROUND, PICTURE_SIZE)?;
    Some(Shot { quality, time, width, height, rgb, told: false })
}

/// A part of a picture, with so much around it and not larger than that, as red, green and blue.
fn cut(
    scaler: &mut Scaler,
    picture: &Picture,
    region: &Region,
    around: f32,
    most: f32,
) -> Option<(u32, u32, Vec<u8>)> {
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let (w, h) = ((region.x1 - region.x0) * width, (region.y1 - region.y0) * height);
    let x0 = (region.x0 * width - w * around).max(0.0).floor();
    let y0 = (region.y0 * height - h * around).max(0.0).floor();
    let x1 = (region.x1 * width + w * around).min(width).ceil();
    let y1 = (region.y1 * height + h * around).min(height).ceil();
    let (w, h) = (x1 - x0, y1 - y0);
    if w < 2.0 || h < 2.0 {
        return None;
    }
    let scale = (most / w.max(h)).min(1.0);
    let size = |v: f32| ((v * scale).round() as u32).max(1);
    let (width, height) = (size(w), size(h));
    let rgb = scaler.rgb(picture, (x0, y0, w, h), (width, height)).ok()?.to_vec();
    Some((width, height, rgb))
}

impl Shot {
    fn jpeg(&mut self) -> Option<Arc<[u8]>> {
        // It is never asked for again.
        let rgb = std::mem::take(&mut self.rgb);
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, QUALITY);
        match encoder.encode(&rgb, self.width, self.height, image::ExtendedColorType::Rgb8) {
            Ok(()) => Some(bytes.into()),
            Err(error) => {
                tracing::warn!(%error, "an object's picture cannot be encoded");
                None
            }
        }
    }
}
