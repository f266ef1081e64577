//! An object: since when it is there, where it went, and whether it is told of.

use super::zone::Zone;
use super::{Happening, Now};
use crate::config::{Anchor, ObjectSettings};
use crate::detection::Region;
use crate::frame::{MediaTime, WallTime};
use crate::inference::track::Track;
use crate::object::{Attribute, Crossing, ObjectEvent, Phase};
use crate::shape::Point;
use std::sync::Arc;
use std::time::Duration;

/// How far an object goes, in parts of the picture, until another point of its path is kept.
const STEP: f32 = 0.02;
/// Points of a path; when there are more, every second one is left out.
const MOST_POINTS: usize = 64;
/// Zones and crossings that are kept of one object.
const MOST_KEPT: usize = 64;
/// Who overlaps with where it was by so much stands still.
const STILL: f32 = 0.6;
/// What happens to an object is told at once, and not more often than this.
const MIN_UPDATE: Duration = Duration::from_millis(500);

/// Whether an object is in a zone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InZone {
    pub(super) inside: bool,
    /// Since when it is in.
    pub(super) since: MediaTime,
    /// Since when that seems otherwise.
    pub(super) changing: Option<MediaTime>,
    pub(super) loitering: bool,
    pub(super) stationary: bool,
}

/// Where an object was beside a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtLine {
    pub(super) right: bool,
    pub(super) at: Point,
}

#[derive(Debug, PartialEq)]
enum Telling {
    Not,
    /// It would have been one too many.
    Suppressed,
    Told {
        name: Arc<str>,
        at: MediaTime,
        /// Something has happened to it since.
        more: bool,
    },
}

/// What is known of a track beside where it is.
#[derive(Debug)]
pub(super) struct Object {
    begin: WallTime,
    telling: Telling,
    /// Where it was last seen: a track that is lost is where it should be.
    region: Region,
    /// Where it rests, and since when.
    rest: (Region, MediaTime),
    stationary: bool,
    largest: f32,
    records: bool,
    path: Vec<Point>,
    been_in: Vec<Arc<str>>,
    crossed: Vec<Crossing>,
    attributes: Vec<Attribute>,
    /// By the places of the zones.
    pub(super) zones: Vec<InZone>,
    pub(super) lines: Vec<Option<AtLine>>,
}

impl Object {
    pub(super) fn new(track: &Track, now: Now, zones: usize, lines: usize) -> Self {
        Self {
            begin: now.at(track.first),
            telling: Telling::Not,
            region: track.region,
            rest: (track.region, now.pts),
            stationary: false,
            largest: 0.0,
            records: false,
            path: Vec::new(),
            been_in: Vec::new(),
            crossed: Vec::new(),
            attributes: Vec::new(),
            zones: vec![InZone::default(); zones],
            lines: vec![None; lines],
        }
    }

    /// Zones and lines have changed: where each was before, if it is the same.
    pub(super) fn rearrange(&mut self, zones: &[Option<usize>], lines: &[Option<usize>]) {
        let before = std::mem::take(&mut self.zones);
        let of_zone = |at: &Option<usize>| at.and_then(|at| before.get(at).copied()).unwrap_or_default();
        self.zones = zones.iter().map(of_zone).collect();
        let before = std::mem::take(&mut self.lines);
        self.lines = lines.iter().map(|at| at.and_then(|at| before.get(at).copied().flatten())).collect();
    }

    pub(super) fn see(&mut self, track: &Track, now: Now, wanted: Option<&ObjectSettings>) {
        self.region = track.region;
        self.largest = self.largest.max(track.region.area());
        if track.region.iou(&self.rest.0) < STILL {
            self.rest = (track.region, now.pts);
        }
        let after = wanted.map_or_else(|| ObjectSettings::default().stationary_after, |o| o.stationary_after);
        let stationary = now.pts.saturating_since(self.rest.1) >= after;
        if stationary != self.stationary {
            self.stationary = stationary;
            self.has_changed();
        }
        let here = super::anchor(Anchor::Bottom, &track.region);
        let far = |p: &Point| (p[0] - here[0]).hypot(p[1] - here[1]) >= STEP;
        if self.path.last().is_none_or(far) {
            if self.path.len() >= MOST_POINTS {
                let mut keep = false;
                self.path.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            self.path.push(here);
        }
    }

    /// Since when it has not moved.
    pub(super) fn rests_since(&self) -> MediaTime {
        self.rest.1
    }

    pub(super) fn is_in(&self, zone: usize) -> bool {
        self.zones.get(zone).is_some_and(|state| state.inside)
    }

    pub(super) fn has_been_in(&mut self, zone: &Arc<str>) {
        if !self.been_in.contains(zone) && self.been_in.len() < MOST_KEPT {
            self.been_in.push(zone.clone());
        }
        self.has_changed();
    }

    pub(super) fn has_crossed(&mut self, crossing: Crossing) {
        if self.crossed.len() < MOST_KEPT {
            self.crossed.push(crossing);
        }
        self.has_changed();
    }

    /// A classifier has looked at it; what it said before is replaced.
    pub(super) fn is_called(&mut self, attribute: Attribute) {
        match self.attributes.iter_mut().find(|known| known.model == attribute.model) {
            Some(known) => {
                let changes = known.label != attribute.label;
                *known = attribute;
                if changes {
                    self.has_changed();
                }
            }
            None => {
                self.attributes.push(attribute);
                self.has_changed();
            }
        }
    }

    fn has_changed(&mut self) {
        if let Telling::Told { more, .. } = &mut self.telling {
            *more = true;
        }
    }

    /// Its event's name, if it is told of.
    pub(super) fn name(&self) -> Option<Arc<str>> {
        match &self.telling {
            Telling::Told { name, .. } => Some(name.clone()),
            _ => None,
        }
    }

    pub(super) fn is_to_begin(&self, wanted: &ObjectSettings, track: &Track) -> bool {
        self.telling == Telling::Not
            && track.age() >= wanted.min_time
            && track.best_score >= wanted.min_score
            && self.largest >= wanted.min_area
            && super::is_of(&wanted.classes, &track.label)
            && (wanted.zones.is_empty()
                || self.been_in.iter().any(|zone| wanted.zones.iter().any(|w| **w == **zone)))
    }

    pub(super) fn begin(&mut self, wanted: &ObjectSettings, now: Now) {
        self.records = wanted.record;
        let millis = self.begin.as_unix_nanos().rem_euclid(1_000_000_000) / 1_000_000;
        let moment = self.begin.format_utc("%Y%m%dT%H%M%S");
        let name = format!("{moment}.{millis:03}Z-{:04x}", fastrand::u32(..0x1_0000));
        self.telling = Telling::Told { name: name.into(), at: now.pts, more: false };
    }

    pub(super) fn suppress(&mut self) {
        self.telling = Telling::Suppressed;
    }

    /// Whether it is time to tell how it is.
    pub(super) fn is_due(&self, wanted: &ObjectSettings, now: Now) -> bool {
        let Telling::Told { at, more, .. } = &self.telling else { return false };
        let passed = now.pts.saturating_since(*at);
        passed >= wanted.update_interval || (*more && passed >= MIN_UPDATE)
    }

    pub(super) fn event(&mut self, phase: Phase, track: &Track, now: Now, zones: &[Zone]) -> Happening {
        if let Telling::Told { at, more, .. } = &mut self.telling {
            (*at, *more) = (now.pts, false);
        }
        let zones = self.zones.iter().zip(zones).filter(|(state, _)| state.inside);
        Happening::Object(Box::new(ObjectEvent {
            phase,
            object: self.name().unwrap_or_default(),
            track: track.id,
            label: track.label.clone(),
            attributes: self.attributes.clone(),
            score: track.score,
            best_score: track.best_score,
            region: self.region,
            velocity: track.velocity,
            stationary: self.stationary,
            begin: self.begin,
            last: now.at(track.last),
            duration_secs: track.age().as_secs_f64(),
            zones: self.been_in.clone(),
            in_zones: zones.map(|(_, zone)| zone.name.clone()).collect(),
            lines: self.crossed.clone(),
            path: self.path.clone(),
            best_time: None,
            picture: None,
            records: self.records,
        }))
    }
}
