//! `[backup]`: when backups are made, of what, and how many are kept.

use crate::backup::{Include, Recipients};
use crate::week::{Moments, MomentsError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[backup]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackupConfig {
    /// When backups are made: moments of the week, such as `daily 03:30`. None by themselves if empty.
    pub schedule: Vec<String>,
    /// The time zone that they are in; the machine's own if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How many are kept; the oldest go.
    pub keep: usize,
    /// What they are of.
    pub include: Vec<Include>,
    /// Where they go; `backups` in the data folder if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Who alone can read them: public keys of age's. Everybody who has the file, if there are none.
    pub recipients: Vec<String>,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            schedule: Vec::new(),
            time_zone: None,
            keep: 7,
            include: Include::USUAL.into(),
            folder: None,
            recipients: Vec::new(),
        }
    }
}

impl BackupConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        self.moments().map_err(|error| match error {
            MomentsError::Zone(_) => format!("backup.time_zone: {error}"),
            error => format!("backup.schedule: {error}"),
        })?;
        self.recipients().map_err(|problem| format!("backup.recipients: {problem}"))?;
        if self.keep == 0 || self.keep > 1000 {
            return Err(format!("backup.keep: it is {}; expected 1 to 1000", self.keep));
        }
        if self.include.is_empty() {
            return Err(
                "backup.include is empty; expected some of \"config\", \"state\", \"index\", \"recordings\""
                    .into(),
            );
        }
        Ok(())
    }

    /// When they are made.
    pub(crate) fn moments(&self) -> Result<Moments, MomentsError> {
        Moments::new(self.schedule.iter().map(String::as_str), self.time_zone.as_deref())
    }

    /// Who can read them.
    pub(crate) fn recipients(&self) -> Result<Recipients, String> {
        Recipients::new(&self.recipients)
    }
}
