//! What a reload is told and tells: who takes part, why, what came of it.

use super::ManagerError;
use crate::config::{Config, ConfigError};
use crate::frame::WallTime;
use std::sync::Arc;

/// Somebody who uses a part of the configuration and can take over a new one.
#[async_trait::async_trait]
pub trait ConfigUser: Send + Sync + 'static {
    /// Takes over what has changed.
    ///
    /// # Errors
    /// If it cannot; then it has to go on with the old one. The key and the reason in words.
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String>;
}

/// Why a configuration was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The file has changed.
    File,
    /// A signal.
    Signal,
    /// Somebody asked for it.
    Request,
}

impl Trigger {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Signal => "signal",
            Self::Request => "request",
        }
    }
}

/// What a new configuration has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct ReloadReport {
    /// The keys that are different.
    pub changed: Vec<String>,
    /// Of these, the ones that have their old value until the process is started again.
    pub needs_restart: Vec<String>,
    /// The file's streams that are new.
    pub streams_created: Vec<String>,
    /// The file's streams that are different.
    pub streams_changed: Vec<String>,
    /// The file's streams that are gone.
    pub streams_deleted: Vec<String>,
}

/// Why the old configuration stays in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The new one is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A stream in it is wrong, or a part of it cannot be taken over.
    #[error("{0}")]
    Refused(String),
    /// A key cannot be set like this.
    #[error("{pointer}: {problem}")]
    Key {
        /// The key, as a JSON pointer.
        pointer: String,
        /// What is wrong and what would be right.
        problem: String,
        /// Whether the file, the environment or an argument sets it already.
        by_operator: bool,
    },
    /// There is nothing to read it from.
    #[error("the configuration was given by the program and cannot be read again")]
    Fixed,
    /// It could not be remembered.
    #[error(transparent)]
    Manager(#[from] ManagerError),
}

/// How the configuration stands.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct ConfigStatus {
    /// The file.
    pub file: Option<String>,
    /// When the configuration in force was read.
    pub loaded: Option<WallTime>,
    /// When one was read last, whatever came of it.
    pub attempted: Option<WallTime>,
    /// Why the last one is not in force.
    pub problem: Option<String>,
    /// Keys that have a new value which needs a restart of the process.
    pub needs_restart: Vec<String>,
    /// Configurations taken over since the start.
    pub reloads: u64,
    /// Configurations refused since the start.
    pub rejected: u64,
    /// Streams that are made through the API but named by the file too, which wins.
    pub shadowed: Vec<String>,
}
