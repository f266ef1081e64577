//! When streams are recorded: the keys of `[defaults.recording]` and `[streams.recording]` for it, and what they come to.

use super::{BytesText, DurationText};
use crate::recording::RecordingModes;
use crate::schedule::Schedule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A reason to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// Always.
    Continuous,
    /// At times of the week.
    Schedule,
    /// While events last, with the seconds before and after them.
    Event,
}

/// When a stream is recorded, with everything that it leaves to the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct ModeSettings {
    /// Reasons to record; one is enough.
    pub modes: Vec<ModeName>,
    /// Times of the week.
    pub schedule: Vec<String>,
    /// The time zone that they are in.
    pub time_zone: Option<String>,
    /// How much of what came before an event is recorded.
    pub pre_roll: Duration,
    /// How much memory that may take.
    pub pre_roll_max_bytes: u64,
    /// For how long an event is recorded.
    pub post_roll: Duration,
    /// How long a recording by events may become.
    pub max_duration: Duration,
}

pub(super) const PRE_ROLL: DurationText = DurationText(Duration::from_secs(5));
pub(super) const PRE_ROLL_MAX_SIZE: BytesText = BytesText(64 << 20);
pub(super) const POST_ROLL: DurationText = DurationText(Duration::from_secs(10));
pub(super) const MAX_DURATION: DurationText = DurationText(Duration::from_secs(300));

impl ModeSettings {
    /// What a recorder is told.
    ///
    /// # Errors
    /// Names the key that makes no sense, and says what would be right.
    pub fn build(&self) -> Result<RecordingModes, (&'static str, String)> {
        let has = |mode| self.modes.contains(&mode);
        let schedule = if has(ModeName::Schedule) {
            if self.schedule.is_empty() {
                let problem = "is empty; expected times of the week such as [\"mon-fri 08:00-18:00\"]";
                return Err(("schedule", format!("schedule {problem}")));
            }
            let times = self.schedule.iter().map(String::as_str);
            let made = Schedule::new(times, self.time_zone.as_deref());
            Some(made.map_err(|error| match error {
                crate::schedule::ScheduleError::Zone(_) => ("time_zone", format!("time_zone: {error}")),
                error => ("schedule", format!("schedule: {error}")),
            })?)
        } else {
            None
        };
        let mut modes = match (has(ModeName::Continuous), has(ModeName::Event), schedule) {
            (true, ..) => RecordingModes::continuous(),
            (false, true, None) => RecordingModes::events(),
            (false, true, Some(schedule)) => RecordingModes::events().schedule(schedule),
            (false, false, Some(schedule)) => RecordingModes::scheduled(schedule),
            (false, false, None) => {
                let problem =
                    "modes is empty; expected \"continuous\", \"schedule\", \"event\" or several of them";
                return Err(("modes", problem.to_owned()));
            }
        };
        if has(ModeName::Event) {
            modes = modes.with_events();
        }
        Ok(modes
            .pre_roll(self.pre_roll)
            .pre_roll_max_bytes(self.pre_roll_max_bytes)
            .post_roll(self.post_roll)
            .max_duration(self.max_duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named() {
        let settings = |modes: &[ModeName], schedule: &[&str], zone: Option<&str>| ModeSettings {
            modes: modes.to_vec(),
            schedule: schedule.iter().map(|text| (*text).to_owned()).collect(),
            time_zone: zone.map(Into::into),
            pre_roll: PRE_ROLL.0,
            pre_roll_max_bytes: PRE_ROLL_MAX_SIZE.0,
            post_roll: POST_ROLL.0,
            max_duration: MAX_DURATION.0,
        };
        use ModeName::{Continuous, Event, Schedule};
        let key = |modes: &[ModeName], schedule: &[&str], zone| {
            settings(modes, schedule, zone).build().map_err(|e| e.0)
        };
        assert_eq!(key(&[], &[], None), Err("modes"));
        assert_eq!(key(&[Schedule], &[], None), Err("schedule"));
        assert_eq!(key(&[Schedule], &["whenever"], None), Err("schedule"));
        assert_eq!(key(&[Schedule], &["daily 08:00-09:00"], Some("Nowhere")), Err("time_zone"));
        assert_eq!(key(&[Continuous], &[], Some("Nowhere")), Ok(RecordingModes::continuous()));
        assert!(key(&[Continuous, Event], &[], None).is_ok() && key(&[Event], &[], None).is_ok());
    }
}
