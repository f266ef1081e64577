//! What happens in front of a camera: zones, lines, and which objects are told of.
//!
//! ```text
//! tracks of a picture ─► zones: come in, leave, stay too long, stand still, too many ─┐
//!                     ─► lines: crossed, which way                                    ├─► within the limit per minute ─► Happening
//!                     ─► objects: begin, update, end                                  ┘
//! ```
//!
//! Everything is by the time of the pictures. What is not seen just now stays where it was until it is seen again or its track ends.

mod line;
mod object;
mod zone;

use super::track::Track;
use crate::config::{Anchor, LineConfig, SceneSettings, ZoneConfig};
use crate::detection::{Detection, Region};
use crate::frame::{MediaTime, WallTime};
use crate::object::{Attribute, ObjectEvent, Phase, SceneAction, SceneEvent};
use crate::shape::{self, Point};
use line::Line;
use object::Object;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use zone::Zone;

/// So near to the edge an object is in the picture: boxes end there, and so do zones.
const EDGE: f32 = 0.0005;

/// Something to be told.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Happening {
    /// Of an object.
    Object(Box<ObjectEvent>),
    /// Of a zone or a line.
    Scene(Box<SceneEvent>),
}

impl std::fmt::Display for Happening {
    /// In words, as in `person #3 crosses gate, forward`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Object(object) => {
                write!(f, "{} #{} ", object.label, object.track)?;
                match object.phase {
                    Phase::Begin => write!(f, "is there, {:.2}", object.best_score),
                    Phase::Update => write!(f, "is still there, {:.2}", object.score),
                    Phase::End => {
                        write!(f, "has gone after {:.1} s, {:.2}", object.duration_secs, object.best_score)
                    }
                }
            }
            Self::Scene(scene) => {
                if let (Some(label), Some(track)) = (&scene.label, scene.track) {
                    write!(f, "{label} #{track} ")?;
                }
                let place = scene.zone.as_deref().or(scene.line.as_deref()).unwrap_or_default();
                let count = scene.count.unwrap_or_default();
                match scene.action {
                    SceneAction::Entered => write!(f, "enters {place}"),
                    SceneAction::Left => {
                        write!(f, "leaves {place} after {:.1} s", scene.dwell_secs.unwrap_or_default())
                    }
                    SceneAction::Loitering => write!(f, "stays in {place}"),
                    SceneAction::Stationary => write!(f, "stands still in {place}"),
                    SceneAction::Removed => write!(f, "has gone from where it stood in {place}"),
                    SceneAction::Overcrowded if scene.active == Some(true) => {
                        write!(f, "{count} are too many in {place}")
                    }
                    SceneAction::Overcrowded => write!(f, "{count} are not too many in {place}"),
                    SceneAction::Crossed => {
                        write!(f, "crosses {place}, {}", scene.direction.map_or("", |d| d.name()))
                    }
                }
            }
        }
    }
}

/// What has been counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct SceneStatus {
    /// Objects that are followed.
    pub tracked: usize,
    /// Objects that were one too many in their picture.
    pub left_out: u64,
    /// Events that were one too many in their minute.
    pub suppressed: u64,
    /// Its zones.
    pub zones: Vec<ZoneStatus>,
    /// Its lines.
    pub lines: Vec<LineStatus>,
    /// What is wrong with it, as a class that the model does not have.
    pub problems: Vec<String>,
}

/// What has been counted in a zone since the stream was made or the zone was changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ZoneStatus {
    /// Its name.
    pub name: String,
    /// How many are in it.
    pub count: u32,
    /// How many have come in.
    pub entered: u64,
    /// Whether there are too many.
    pub overcrowded: bool,
}

/// What has been counted at a line since the stream was made or the line was changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct LineStatus {
    /// Its name.
    pub name: String,
    /// How many have crossed it from its left to its right.
    pub forward: u64,
    /// How many from its right to its left.
    pub backward: u64,
}

/// When a picture was taken.
#[derive(Clone, Copy, Debug)]
struct Now {
    pts: MediaTime,
    time: WallTime,
}

impl Now {
    /// A moment of the stream's timeline, by the clock.
    fn at(&self, pts: MediaTime) -> WallTime {
        let ago = self.pts.as_nanos().saturating_sub(pts.as_nanos());
        WallTime::from_unix_nanos(self.time.as_unix_nanos().saturating_sub(ago))
    }
}

/// So many in a minute, and no more at once.
#[derive(Debug)]
struct Budget {
    per_minute: f64,
    left: f64,
    at: Option<MediaTime>,
    refused: u64,
}

impl Budget {
    fn new(per_minute: u32) -> Self {
        let per_minute = f64::from(per_minute);
        Self { per_minute, left: per_minute, at: None, refused: 0 }
    }

    fn take(&mut self, now: MediaTime) -> bool {
        let passed = self.at.map_or(0.0, |at| now.saturating_since(at).as_secs_f64());
        self.left = (self.left + passed * self.per_minute / 60.0).min(self.per_minute);
        self.at = Some(now);
        if self.left < 1.0 {
            self.refused += 1;
            return false;
        }
        self.left -= 1.0;
        true
    }
}

/// What happens in front of one camera.
#[derive(Debug)]
pub struct Scene {
    settings: SceneSettings,
    zones: Vec<Zone>,
    lines: Vec<Line>,
    objects: BTreeMap<u64, Object>,
    budget: Budget,
    /// Events that were refused under earlier settings.
    refused: u64,
}

impl Scene {
    /// One in which nothing has happened yet.
    pub fn new(settings: SceneSettings) -> Self {
        Self {
            zones: settings.zones.iter().map(Zone::new).collect(),
            lines: settings.lines.iter().map(Line::new).collect(),
            budget: budget(&settings),
            settings,
            objects: BTreeMap::new(),
            refused: 0,
        }
    }

    /// Works like this from the next picture on. Zones and lines that stay as they are go on counting, and objects that are told of go on
    /// being so.
    pub fn configure(&mut self, settings: SceneSettings) {
        if settings == self.settings {
            return;
        }
        let same_zone = |config: &ZoneConfig| self.zones.iter().position(|zone| zone.config == *config);
        let zones: Vec<Option<usize>> = settings.zones.iter().map(same_zone).collect();
        let same_line = |config: &LineConfig| self.lines.iter().position(|line| line.config == *config);
        let lines: Vec<Option<usize>> = settings.lines.iter().map(same_line).collect();
        for object in self.objects.values_mut() {
            object.rearrange(&zones, &lines);
        }
        carry_over(&mut self.zones, &settings.zones, &zones, Zone::new);
        carry_over(&mut self.lines, &settings.lines, &lines, Line::new);
        self.refused += self.budget.refused;
        self.budget = budget(&settings);
        self.settings = settings;
    }

    /// Whether something is where it does not count.
    pub fn is_masked(&self, detection: &Detection) -> bool {
        let Some(region) = &detection.relative else { return false };
        self.settings.masks.iter().any(|mask| {
            is_of(&mask.classes, &detection.label)
                && shape::contains(&mask.points, anchor(mask.anchor, region))
        })
    }

    /// What the next picture has brought. `ended` are the tracks that have ended since.
    pub fn look(
        &mut self,
        tracks: &[Track],
        ended: &[Track],
        pts: MediaTime,
        time: WallTime,
    ) -> Vec<Happening> {
        let now = Now { pts, time };
        let mut told = Vec::new();
        for track in ended {
            self.end(track, now, &mut told);
        }
        for zone in &mut self.zones {
            zone.look_at_clock(now);
        }
        for track in tracks.iter().filter(|track| track.is_seen()) {
            self.see(track, now, &mut told);
        }
        for at in 0..self.zones.len() {
            let count = self.objects.values().filter(|object| object.is_in(at)).count();
            let zone = &mut self.zones[at];
            zone.count = u32::try_from(count).unwrap_or(u32::MAX);
            if let Some(active) = zone.crowd(now)
                // What was told has an end whatever the limit says.
                && (!active || self.budget.take(pts))
            {
                let zone = &self.zones[at];
                told.push(Happening::Scene(Box::new(SceneEvent {
                    active: Some(active),
                    count: Some(zone.count),
                    ..event(SceneAction::Overcrowded, time).of_zone(zone)
                })));
            }
        }
        told
    }

    fn see(&mut self, track: &Track, now: Now, told: &mut Vec<Happening>) {
        let fresh = || Object::new(track, now, self.zones.len(), self.lines.len());
        let object = self.objects.entry(track.id).or_insert_with(fresh);
        object.see(track, now, self.settings.objects.as_ref());
        let mut scene = Vec::new();
        for (at, zone) in self.zones.iter_mut().enumerate() {
            zone.see(object, at, track, now, &mut scene);
        }
        for (at, line) in self.lines.iter_mut().enumerate() {
            scene.extend(line.see(object, at, track, now));
        }
        // An object begins before what it does is told of, so that this can name it.
        let begins = self.settings.objects.as_ref().filter(|wanted| object.is_to_begin(wanted, track));
        if let Some(wanted) = begins {
            if self.budget.take(now.pts) {
                object.begin(wanted, now);
                told.push(object.event(Phase::Begin, track, now, &self.zones));
            } else {
                object.suppress();
            }
        }
        for one in scene {
            if one.may_be_left_out() && !self.budget.take(now.pts) {
                continue;
            }
            told.push(one.by(object, track));
        }
        if let Some(wanted) = &self.settings.objects
            && begins.is_none()
            && object.is_due(wanted, now)
        {
            told.push(object.event(Phase::Update, track, now, &self.zones));
        }
    }

    fn end(&mut self, track: &Track, now: Now, told: &mut Vec<Happening>) {
        let Some(mut object) = self.objects.remove(&track.id) else { return };
        let mut scene = Vec::new();
        for (at, zone) in self.zones.iter_mut().enumerate() {
            zone.end(&mut object, at, track, now, &mut scene);
        }
        told.extend(scene.into_iter().map(|one| one.by(&object, track)));
        if object.name().is_some() {
            told.push(object.event(Phase::End, track, now, &self.zones));
        }
    }

    /// A classifier has said what an object is.
    pub fn call(&mut self, track: u64, attribute: Attribute) {
        if let Some(object) = self.objects.get_mut(&track) {
            object.is_called(attribute);
        }
    }

    /// What has been counted.
    pub fn status(&self) -> SceneStatus {
        SceneStatus {
            tracked: self.objects.len(),
            left_out: 0,
            suppressed: self.refused + self.budget.refused,
            zones: self.zones.iter().map(Zone::status).collect(),
            lines: self.lines.iter().map(Line::status).collect(),
            problems: Vec::new(),
        }
    }
}

/// What stays as it is goes on, at its new place; the rest is new.
fn carry_over<T, C>(held: &mut Vec<T>, configs: &[C], places: &[Option<usize>], new: impl Fn(&C) -> T) {
    let mut old: Vec<Option<T>> = held.drain(..).map(Some).collect();
    let mut kept = |at: Option<usize>| at.and_then(|at| old.get_mut(at)?.take());
    held.extend(configs.iter().zip(places).map(|(config, at)| kept(*at).unwrap_or_else(|| new(config))));
}

fn budget(settings: &SceneSettings) -> Budget {
    Budget::new(settings.objects.as_ref().map_or_else(
        || crate::config::ObjectSettings::default().max_per_minute,
        |objects| objects.max_per_minute,
    ))
}

pub(super) fn is_of(classes: &[String], label: &str) -> bool {
    classes.is_empty() || classes.iter().any(|class| class == label)
}

/// Where an object is.
fn anchor(anchor: Anchor, region: &Region) -> Point {
    let y = match anchor {
        Anchor::Bottom => region.y1,
        Anchor::Center => (region.y0 + region.y1) / 2.0,
    };
    [(region.x0 + region.x1) / 2.0, y].map(|v| v.clamp(EDGE, 1.0 - EDGE))
}

fn event(action: SceneAction, frame_time: WallTime) -> SceneEvent {
    SceneEvent {
        action,
        zone: None,
        line: None,
        direction: None,
        object: None,
        track: None,
        label: None,
        active: None,
        count: None,
        dwell_secs: None,
        frame_time,
    }
}

impl SceneEvent {
    fn of_zone(mut self, zone: &Zone) -> Self {
        self.zone = Some(zone.name.clone());
        self
    }

    /// What an object does.
    fn by(mut self, object: &Object, track: &Track) -> Happening {
        self.object = object.name();
        (self.track, self.label) = (Some(track.id), Some(track.label.clone()));
        Happening::Scene(Box::new(self))
    }

    /// What ends something that was told of is always told.
    fn may_be_left_out(&self) -> bool {
        !matches!(self.action, SceneAction::Left | SceneAction::Removed)
    }
}

#[cfg(test)]
mod tests;
