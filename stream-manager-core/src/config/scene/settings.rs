//! What is made of what a model sees, with everything that is left to the defaults, and whether it can be so.

use super::{CascadeConfig, LineConfig, MOST_TIME, MaskConfig, ObjectsConfig, TrackingConfig, ZoneConfig};
use crate::config::{DurationText, units};
use crate::shape;
use std::collections::HashSet;
use std::time::Duration;

/// Zones, lines and masks of one stream, each.
const MOST: usize = 32;
/// Classifiers of one stream.
const MOST_CLASSIFIERS: usize = 4;

/// What is made of what a model sees, with everything that is left to the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneSettings {
    /// How objects are followed; not if `None`.
    pub tracking: Option<TrackingSettings>,
    /// Which become events; none if `None`.
    pub objects: Option<ObjectSettings>,
    /// Parts of the picture that mean something.
    pub zones: Vec<ZoneConfig>,
    /// Lines that are crossed.
    pub lines: Vec<LineConfig>,
    /// Parts in which objects do not count.
    pub masks: Vec<MaskConfig>,
    /// Classifiers that look at objects.
    pub cascade: Vec<CascadeConfig>,
}

/// How objects are followed.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackingSettings {
    /// The score from which an object that is followed already goes on being so.
    pub doubtful: f32,
    /// For how long an object that is not seen may come back as the same one.
    pub max_lost: Duration,
    /// Objects in one picture that are followed at most.
    pub max_objects: usize,
}

impl Default for TrackingSettings {
    fn default() -> Self {
        Self { doubtful: 0.15, max_lost: Duration::from_secs(2), max_objects: 200 }
    }
}

/// Which objects become events.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectSettings {
    /// Their classes; any if empty.
    pub classes: Vec<String>,
    /// The score that the best picture has to have.
    pub min_score: f32,
    /// How much of the picture they have to fill.
    pub min_area: f32,
    /// For how long they have to be there.
    pub min_time: Duration,
    /// Zones, one of which they have to have been in; anywhere if empty.
    pub zones: Vec<String>,
    /// How often it is told how one is that is still there.
    pub update_interval: Duration,
    /// For how long one has to be where it is to count as standing still.
    pub stationary_after: Duration,
    /// Whether a stream that is recorded by events is recorded while they are there.
    pub record: bool,
    /// Events in a minute at most.
    pub max_per_minute: u32,
}

impl Default for ObjectSettings {
    fn default() -> Self {
        Self {
            classes: Vec::new(),
            min_score: 0.0,
            min_area: 0.0,
            min_time: Duration::from_millis(500),
            zones: Vec::new(),
            update_interval: Duration::from_secs(10),
            stationary_after: Duration::from_secs(30),
            record: true,
            max_per_minute: 120,
        }
    }
}

impl Default for SceneSettings {
    fn default() -> Self {
        Self {
            tracking: Some(TrackingSettings::default()),
            objects: Some(ObjectSettings::default()),
            zones: Vec::new(),
            lines: Vec::new(),
            masks: Vec::new(),
            cascade: Vec::new(),
        }
    }
}

impl TrackingConfig {
    pub(in crate::config) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(in crate::config) fn resolve(&self, common: &Self) -> Option<TrackingSettings> {
        let standard = TrackingSettings::default();
        self.enabled.or(common.enabled).unwrap_or(true).then(|| TrackingSettings {
            doubtful: self.doubtful.or(common.doubtful).unwrap_or(standard.doubtful),
            max_lost: self.max_lost.or(common.max_lost).map_or(standard.max_lost, |d| d.0),
            max_objects: self.max_objects.or(common.max_objects).unwrap_or(standard.max_objects),
        })
    }
}

impl ObjectsConfig {
    pub(in crate::config) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(in crate::config) fn resolve(&self, common: &Self) -> Option<ObjectSettings> {
        let standard = ObjectSettings::default();
        let time = |own: Option<DurationText>, common: Option<DurationText>, other| {
            own.or(common).map_or(other, |d: DurationText| d.0)
        };
        let names = |own: &Option<Vec<String>>, common: &Option<Vec<String>>| {
            own.clone().or_else(|| common.clone()).unwrap_or_default()
        };
        self.enabled.or(common.enabled).unwrap_or(true).then(|| ObjectSettings {
            classes: names(&self.classes, &common.classes),
            min_score: self.min_score.or(common.min_score).unwrap_or(standard.min_score),
            min_area: self.min_area.or(common.min_area).unwrap_or(standard.min_area),
            min_time: time(self.min_time, common.min_time, standard.min_time),
            zones: names(&self.zones, &common.zones),
            update_interval: time(self.update_interval, common.update_interval, standard.update_interval),
            stationary_after: time(self.stationary_after, common.stationary_after, standard.stationary_after),
            record: self.record.or(common.record).unwrap_or(standard.record),
            max_per_minute: self.max_per_minute.or(common.max_per_minute).unwrap_or(standard.max_per_minute),
        })
    }
}

impl SceneSettings {
    /// What is wrong with it: the key, and what would be right.
    ///
    /// # Errors
    /// If a zone crosses itself, a line has no length, a name comes twice or none has it, a time is none.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let all: [(&'static str, usize); 3] = [
            ("inference/zones", self.zones.len()),
            ("inference/lines", self.lines.len()),
            ("inference/masks", self.masks.len()),
        ];
        for (key, number) in all {
            if number > MOST {
                return Err((key, format!("there are {number}; expected at most {MOST}")));
            }
        }
        let mut names = HashSet::new();
        for (index, zone) in self.zones.iter().enumerate() {
            let fail = |problem: String| ("inference/zones", format!("[{index}].{problem}"));
            zone.check().map_err(fail)?;
            if !names.insert(&zone.name) {
                return Err(fail(format!("name: \"{}\" is an earlier zone's already", zone.name)));
            }
        }
        let mut lines = HashSet::new();
        for (index, line) in self.lines.iter().enumerate() {
            let fail = |problem: String| ("inference/lines", format!("[{index}].{problem}"));
            line.check().map_err(fail)?;
            if !lines.insert(&line.name) {
                return Err(fail(format!("name: \"{}\" is an earlier line's already", line.name)));
            }
        }
        for (index, mask) in self.masks.iter().enumerate() {
            shape::check_polygon(&mask.points)
                .map_err(|problem| ("inference/masks", format!("[{index}].points: {problem}")))?;
        }
        if self.cascade.len() > MOST_CLASSIFIERS {
            let number = self.cascade.len();
            return Err((
                "inference/cascade",
                format!("there are {number}; expected at most {MOST_CLASSIFIERS}"),
            ));
        }
        for (index, one) in self.cascade.iter().enumerate() {
            let fail = |problem: String| Err(("inference/cascade", format!("[{index}].{problem}")));
            if one.model.is_empty() {
                return fail("model: it is empty; expected a classifier's name".into());
            }
            if self.cascade[..index].iter().any(|other| other.model == one.model) {
                return fail(format!("model: \"{}\" is an earlier one's already", one.model));
            }
            if let Some(interval) =
                one.interval.filter(|i| i.0 < Duration::from_millis(100) || i.0 > MOST_TIME)
            {
                return fail(format!(
                    "interval: it is {interval}; expected 100ms to {}",
                    DurationText(MOST_TIME)
                ));
            }
        }
        let needed = !(self.zones.is_empty() && self.lines.is_empty() && self.cascade.is_empty());
        if self.tracking.is_none() && needed {
            let problem =
                "it is false; expected true, because there are zones, lines or a cascade".to_owned();
            return Err(("inference/tracking/enabled", problem));
        }
        if let Some(tracking) = &self.tracking {
            tracking.check()?;
        }
        match &self.objects {
            Some(objects) => objects.check(&names),
            None => Ok(()),
        }
    }
}

impl TrackingSettings {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if !units::is_part(self.doubtful) {
            return Err(("inference/tracking/doubtful", format!("it is {}; expected 0 to 1", self.doubtful)));
        }
        units::check_duration(
            "inference/tracking/max_lost",
            self.max_lost,
            Duration::ZERO,
            Duration::from_secs(60),
        )?;
        if !(1..=1000).contains(&self.max_objects) {
            let problem = format!("it is {}; expected 1 to 1000", self.max_objects);
            return Err(("inference/tracking/max_objects", problem));
        }
        Ok(())
    }
}

impl ObjectSettings {
    fn check(&self, zones: &HashSet<&String>) -> Result<(), (&'static str, String)> {
        for (key, value) in
            [("inference/objects/min_score", self.min_score), ("inference/objects/min_area", self.min_area)]
        {
            if !units::is_part(value) {
                return Err((key, format!("it is {value}; expected 0 to 1")));
            }
        }
        if let Some(name) = self.zones.iter().find(|name| !zones.contains(name)) {
            let known: Vec<&str> = zones.iter().map(|name| name.as_str()).collect();
            let problem = format!("there is no zone \"{name}\"; expected one of {known:?}");
            return Err(("inference/objects/zones", problem));
        }
        let (least, most) = (Duration::ZERO, MOST_TIME);
        units::check_duration("inference/objects/min_time", self.min_time, least, most)?;
        let second = Duration::from_secs(1);
        units::check_duration("inference/objects/update_interval", self.update_interval, second, most)?;
        units::check_duration("inference/objects/stationary_after", self.stationary_after, second, most)?;
        if !(1..=10_000).contains(&self.max_per_minute) {
            let problem = format!("it is {}; expected 1 to 10000", self.max_per_minute);
            return Err(("inference/objects/max_per_minute", problem));
        }
        Ok(())
    }
}
