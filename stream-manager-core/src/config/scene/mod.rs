//! What is made of what a model sees: `[streams.inference.tracking]`, `objects`, and the tables `zones`, `lines` and `masks`.

mod settings;

use super::{DurationText, units};
use crate::schedule::{Schedule, ScheduleError};
use crate::shape::{self, Point};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub use settings::{ObjectSettings, SceneSettings, TrackingSettings};

/// Letters of a name.
const MOST_LETTERS: usize = 60;
/// Longer than this nothing takes that is waited for.
const MOST_TIME: Duration = Duration::from_secs(7 * 86_400);

/// `[defaults.inference.tracking]` and `[streams.inference.tracking]`: objects are followed from picture to picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrackingConfig {
    /// Whether they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The score from which an object that is followed already goes on being so.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "units::optional_part")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub doubtful: Option<f32>,
    /// For how long an object that is not seen may come back as the same one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lost: Option<DurationText>,
    /// Objects in one picture that are followed at most: the surest ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_objects: Option<usize>,
}

/// `[defaults.inference.objects]` and `[streams.inference.objects]`: which of them become events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectsConfig {
    /// Whether any do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Their classes; any that the model sees if empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// The score that the best picture has to have.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "units::optional_part")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_score: Option<f32>,
    /// How much of the picture they have to fill, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "units::optional_part")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_area: Option<f32>,
    /// For how long they have to be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_time: Option<DurationText>,
    /// Zones, one of which they have to have been in; anywhere if empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<String>>,
    /// How often it is told how one is that is still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_interval: Option<DurationText>,
    /// For how long one has to be where it is to count as standing still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stationary_after: Option<DurationText>,
    /// Whether a stream that is recorded by events is recorded while they are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<bool>,
    /// Events of one stream in a minute at most; what is more is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_per_minute: Option<u32>,
}

/// Where in its box an object is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Anchor {
    /// In the middle of the lower edge: where it stands.
    #[default]
    Bottom,
    /// In the middle.
    Center,
}

/// One of `[[streams.inference.zones]]`: a part of the picture that means something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ZoneConfig {
    /// What it is called.
    pub name: String,
    /// Its corners in order around it: x and y, each 0 to 1.
    pub points: Vec<Point>,
    /// The classes that count; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Where in its box an object is.
    pub anchor: Anchor,
    /// How much of the picture an object has to fill, 0 to 1.
    #[serde(deserialize_with = "units::part")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_area: f32,
    /// How long an object has to be in it to have come in.
    pub enter_after: DurationText,
    /// How long it has to be outside to have left.
    pub leave_after: DurationText,
    /// How long one may be in it without being told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loitering_after: Option<DurationText>,
    /// How many may be in it without being told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_objects: Option<u32>,
    /// How long one may stand still in it without being told of; when it goes or is taken away that is told, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stationary_after: Option<DurationText>,
    /// Times of the week at which it means something, such as "mon-fri 08:00-18:00"; always if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<String>,
    /// The time zone that they are in; the machine's if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// Which way a line is crossed: as one looks from its first point to its second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LineDirection {
    /// Both ways.
    #[default]
    Both,
    /// From its left to its right.
    Forward,
    /// From its right to its left.
    Backward,
}

/// One of `[[streams.inference.lines]]`: a line that is crossed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LineConfig {
    /// What it is called.
    pub name: String,
    /// From where to where: x and y, each 0 to 1.
    pub points: [Point; 2],
    /// Which way counts: forward is from its left to its right, as one looks from the first point to the second.
    pub direction: LineDirection,
    /// The classes that count; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Where in its box an object is.
    pub anchor: Anchor,
    /// Times of the week at which it means something; always if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<String>,
    /// The time zone that they are in; the machine's if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// One of `[[streams.inference.masks]]`: a part of the picture in which objects do not count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MaskConfig {
    /// Its corners in order around it: x and y, each 0 to 1.
    pub points: Vec<Point>,
    /// The classes that do not count there; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Where in its box an object is.
    pub anchor: Anchor,
}

/// One of `[[streams.inference.cascade]]`: a classifier that looks at objects, as at a person's clothes or a car's plate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeConfig {
    /// The classifier, by its name.
    pub model: String,
    /// The classes of objects that it looks at; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// How often it looks at one again; once if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<DurationText>,
    /// The lowest score that counts.
    #[serde(deserialize_with = "units::part")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_score: f32,
    /// How much of the picture an object has to fill, 0 to 1.
    #[serde(deserialize_with = "units::part")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_area: f32,
}

impl Default for CascadeConfig {
    fn default() -> Self {
        Self { model: String::new(), classes: Vec::new(), interval: None, min_score: 0.5, min_area: 0.0 }
    }
}

impl Default for ZoneConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            points: Vec::new(),
            classes: Vec::new(),
            anchor: Anchor::default(),
            min_area: 0.0,
            enter_after: DurationText(Duration::ZERO),
            leave_after: DurationText(Duration::from_secs(1)),
            loitering_after: None,
            max_objects: None,
            stationary_after: None,
            schedule: Vec::new(),
            time_zone: None,
        }
    }
}

/// The times of the week at which a zone or a line means something.
///
/// # Errors
/// If one of them cannot be read, or the time zone is not known.
pub fn scene_schedule(times: &[String], zone: Option<&str>) -> Result<Option<Schedule>, ScheduleError> {
    if times.is_empty() {
        return Ok(None);
    }
    Schedule::new(times.iter().map(String::as_str), zone).map(Some)
}

fn check_name(name: &str) -> Result<(), String> {
    let letters = name.chars().count();
    let right = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ');
    if (1..=MOST_LETTERS).contains(&letters) && name.chars().all(right) && name.trim() == name {
        return Ok(());
    }
    let shown: String = name.chars().take(MOST_LETTERS).collect();
    Err(format!(
        "name: \"{shown}\" is no name; expected 1 to {MOST_LETTERS} letters, digits, \"-\", \"_\", \".\" and spaces between"
    ))
}

fn check_time(key: &str, value: DurationText) -> Result<(), String> {
    if value.0 <= MOST_TIME {
        return Ok(());
    }
    Err(format!("{key}: it is {value}; expected at most {}", DurationText(MOST_TIME)))
}

/// `name=x,y,x,y…`, as in a command; also with spaces or semicolons between points.
fn parse_points(text: &str) -> Result<(String, Vec<Point>), String> {
    let expected = "expected a name and points such as yard=0.1,0.9,0.9,0.9,0.5,0.2";
    let (name, rest) = text.split_once('=').ok_or_else(|| format!("\"{text}\": {expected}"))?;
    let numbers = rest
        .split([',', ';', ' '])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<f32>().map_err(|_| format!("\"{part}\" is no number; {expected}")));
    let numbers = numbers.collect::<Result<Vec<f32>, String>>()?;
    let (points, []) = numbers.as_chunks::<2>() else {
        return Err(format!("there are {} numbers; {expected}", numbers.len()));
    };
    Ok((name.to_owned(), points.to_vec()))
}

impl ZoneConfig {
    /// From what stands in a command: `name=x,y,x,y,x,y…`.
    ///
    /// # Errors
    /// If it is no zone, with what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, points) = parse_points(text)?;
        let zone = Self { name, points, ..Self::default() };
        zone.check().map(|()| zone)
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        shape::check_polygon(&self.points).map_err(|e| format!("points: {e}"))?;
        let times = [
            ("enter_after", Some(self.enter_after)),
            ("leave_after", Some(self.leave_after)),
            ("loitering_after", self.loitering_after),
            ("stationary_after", self.stationary_after),
        ];
        for (key, value) in times {
            value.map_or(Ok(()), |value| check_time(key, value))?;
        }
        if self.max_objects == Some(0) {
            return Err("max_objects: it is 0; expected at least 1".into());
        }
        scene_schedule(&self.schedule, self.time_zone.as_deref()).map_err(|e| format!("schedule: {e}"))?;
        Ok(())
    }
}

impl LineConfig {
    /// From what stands in a command: `name=x,y,x,y`.
    ///
    /// # Errors
    /// If it is no line, with what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, points) = parse_points(text)?;
        let points: [Point; 2] = points
            .try_into()
            .map_err(|points: Vec<Point>| format!("it has {} points; expected two", points.len()))?;
        let line = Self { name, points, ..Self::default() };
        line.check().map(|()| line)
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        shape::check_line(self.points).map_err(|e| format!("points: {e}"))?;
        scene_schedule(&self.schedule, self.time_zone.as_deref()).map_err(|e| format!("schedule: {e}"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::StreamInferenceConfig;
    use super::*;

    fn settings(text: &str) -> super::super::AnalysisSettings {
        let own: StreamInferenceConfig = toml::from_str(text).unwrap();
        own.resolve(&StreamInferenceConfig::default())
    }

    const YARD: &str = "[[zones]]\nname = 'yard'\npoints = [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]\n";

    #[test]
    fn zones_and_lines_are_read() {
        let text = format!(
            "{YARD}classes = ['person']\nloitering_after = '10s'\nschedule = ['daily 22:00-06:00']\ntime_zone = 'Europe/Berlin'\n\
             [[lines]]\nname = 'gate'\npoints = [[0.5, 1], [0.5, 0]]\ndirection = 'forward'\n[objects]\nzones = ['yard']\nmin_time = '2s'\n"
        );
        let settings = settings(&text);
        assert_eq!(settings.check(), Ok(()));
        let scene = &settings.scene;
        assert_eq!(
            (scene.zones[0].leave_after.0, scene.zones[0].anchor),
            (Duration::from_secs(1), Anchor::Bottom)
        );
        assert_eq!(scene.lines[0].direction, LineDirection::Forward);
        assert_eq!(scene.objects.as_ref().unwrap().min_time, Duration::from_secs(2));
        // Nothing is lost on the way back.
        let own: StreamInferenceConfig = toml::from_str(&text).unwrap();
        let back: StreamInferenceConfig = toml::from_str(&toml::to_string(&own).unwrap()).unwrap();
        assert_eq!(back, own);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| settings(text).check().unwrap_err();
        let bow = "[[zones]]\nname = 'a'\npoints = [[0, 0], [1, 1], [1, 0], [0, 1]]\n";
        let (key, problem) = wrong(bow);
        assert!(
            key == "inference/zones" && problem.starts_with("[0].points: it crosses itself"),
            "{problem}"
        );
        let (_, problem) = wrong(&format!("{YARD}{YARD}"));
        assert!(problem.starts_with("[1].name: \"yard\" is an earlier zone's"), "{problem}");
        for (text, expected) in [
            ("[[lines]]\nname = 'l'\npoints = [[0.5, 0.5], [0.5, 0.5]]", "[0].points: it has no length"),
            ("[[lines]]\nname = ''\npoints = [[0.5, 0.5], [0.5, 0.9]]", "[0].name: \"\" is no name"),
            ("[[masks]]\npoints = [[0.5, 0.5], [0.5, 0.9]]", "[0].points: it has 2 corners"),
            ("[objects]\nzones = ['nowhere']", "there is no zone \"nowhere\""),
            ("[[cascade]]\nmodel = ''", "[0].model: it is empty"),
            ("[[cascade]]\nmodel = 'a'\n[[cascade]]\nmodel = 'a'", "[1].model: \"a\" is an earlier"),
            ("[[cascade]]\nmodel = 'a'\ninterval = '1ms'", "[0].interval: it is 1ms"),
            ("[tracking]\nmax_objects = 0", "it is 0; expected 1 to 1000"),
            (&format!("{YARD}[tracking]\nenabled = false"), "expected true, because there are zones"),
            (&format!("{YARD}schedule = ['whenever']"), "[0].schedule: \"whenever\" is no time"),
            (&format!("{YARD}max_objects = 0"), "[0].max_objects: it is 0"),
            (&format!("{YARD}loitering_after = '1000d'"), "[0].loitering_after: it is"),
        ] {
            let (_, problem) = wrong(text);
            assert!(problem.starts_with(expected) || problem.contains(expected), "{text}: {problem}");
        }
    }
}
