//! What is said of a stream, by whom, and what somebody has wished for it since.
//!
//! A stream is defined by the configuration file or through the API. If both name it the file wins, and the other
//! definition waits until the file drops the stream. What is wished at run time (disabled, recording, paused) is kept
//! beside the definition and holds as long as the configured value is the one that it goes against.

use crate::config::{Defaults, ResolvedStream, StreamConfig};
use crate::frame::WallTime;
use crate::storage::state::{Recalled, StateChange, StoredStream, StoredWish};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who says that a stream exists.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The configuration file.
    File,
    /// The API; kept in the database.
    Api,
    /// The program that uses the library.
    Code,
    /// A publisher whose stream's id fits a pattern.
    Pattern,
    /// Another stream, of which it is made (`transcode`).
    Derived,
}

impl Origin {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Code => "code",
            Self::Pattern => "pattern",
            Self::Derived => "derived",
        }
    }
}

/// What somebody wants of a stream's recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordingWish {
    /// Recorded, as its modes say.
    On,
    /// Recorded, whatever its modes say.
    Forced,
    /// Held.
    Paused,
    /// Not recorded.
    Off,
}

impl RecordingWish {
    /// What is configured, as a wish.
    pub fn configured(recorded: bool) -> Self {
        if recorded { Self::On } else { Self::Off }
    }

    /// Its name in the database.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Forced => "forced",
            Self::Paused => "paused",
            Self::Off => "off",
        }
    }

    fn from_name(name: &str) -> Self {
        [Self::On, Self::Forced, Self::Paused]
            .into_iter()
            .find(|wish| wish.name() == name)
            .unwrap_or(Self::Off)
    }
}

/// A definition with its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The configuration.
    pub config: StreamConfig,
    /// Who says so.
    pub origin: Origin,
    /// The number of its last change, greater than any before.
    pub revision: u64,
    /// When it was made.
    pub created: WallTime,
    /// When it was changed last.
    pub changed: WallTime,
    /// Its place in the file.
    pub(super) order: usize,
}

impl Definition {
    /// Whether it stands for every stream that is published with an id that fits.
    pub fn is_pattern(&self) -> bool {
        self.config.id.contains('*')
    }

    pub(super) fn put(&self) -> StateChange {
        StateChange::Put(StoredStream {
            id: self.config.id.clone(),
            config: serde_json::to_string(&self.config).unwrap_or_default(),
            revision: self.revision,
            created: self.created,
            changed: self.changed,
        })
    }
}

/// What was wished for a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Whether it runs, and the configured value that this goes against.
    pub(super) enabled: Option<(bool, bool)>,
    /// Its recording, and the configured value that this goes against.
    pub(super) recording: Option<(RecordingWish, bool)>,
    /// Whether it is analysed, and the configured value that this goes against.
    pub(super) inference: Option<(bool, bool)>,
}

pub(super) const ENABLED: &str = "enabled";
pub(super) const RECORDING: &str = "recording";
pub(super) const INFERENCE: &str = "inference";

impl Wishes {
    pub(super) fn enabled(&self, configured: bool) -> bool {
        self.enabled.filter(|(_, against)| *against == configured).map_or(configured, |(wish, _)| wish)
    }

    pub(super) fn inference(&self, configured: bool) -> bool {
        self.inference.filter(|(_, against)| *against == configured).map_or(configured, |(wish, _)| wish)
    }

    /// Ends a wish.
    pub(super) fn forget(&mut self, what: &str) {
        match what {
            ENABLED => self.enabled = None,
            RECORDING => self.recording = None,
            _ => self.inference = None,
        }
    }

    pub(super) fn recording(&self, configured: bool) -> RecordingWish {
        let default = RecordingWish::configured(configured);
        self.recording.filter(|(_, against)| *against == configured).map_or(default, |(wish, _)| wish)
    }
}

/// All definitions. Behind a lock that is held for moments only.
#[derive(Debug, Default)]
pub(super) struct Defined {
    pub(super) revision: u64,
    pub(super) file: BTreeMap<String, Arc<Definition>>,
    pub(super) api: BTreeMap<String, Arc<Definition>>,
    pub(super) wishes: BTreeMap<String, Wishes>,
}

/// What a stream should be.
#[derive(Clone, Debug)]
pub(super) struct Desired {
    pub(super) resolved: ResolvedStream,
    pub(super) enabled: bool,
    pub(super) recording: RecordingWish,
    pub(super) inference: bool,
}

impl Defined {
    /// The definition in force.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Definition>> {
        self.file.get(id).or_else(|| self.api.get(id))
    }

    pub(super) fn desired(&self, id: &str, defaults: &Defaults) -> Option<Desired> {
        let resolved = self.get(id)?.config.resolve(defaults);
        let wishes = self.wishes.get(id).copied().unwrap_or_default();
        Some(Desired {
            enabled: wishes.enabled(resolved.enabled),
            recording: wishes.recording(resolved.recording.enabled),
            inference: wishes.inference(resolved.inference.enabled),
            resolved,
        })
    }

    /// All definitions in force, by id.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Definition>> {
        let (mut file, mut api) = (self.file.values().peekable(), self.api.values().peekable());
        std::iter::from_fn(move || match (file.peek(), api.peek()) {
            (Some(f), Some(a)) if f.config.id == a.config.id => {
                api.next();
                file.next()
            }
            (Some(f), Some(a)) if f.config.id < a.config.id => file.next(),
            (_, Some(_)) => api.next(),
            _ => file.next(),
        })
    }

    /// Patterns in the order in which they are tried: the file's first, as they stand there.
    pub(super) fn patterns(&self) -> Vec<Arc<Definition>> {
        let mut patterns: Vec<_> = self.all().filter(|d| d.is_pattern()).cloned().collect();
        patterns.sort_by_key(|d| (d.origin != Origin::File, d.order, d.created));
        patterns
    }

    /// Takes over what is remembered. Gives the ids of streams that cannot be read, with the reason.
    pub(super) fn recall(&mut self, recalled: Recalled) -> Vec<(String, String)> {
        let mut unreadable = Vec::new();
        self.revision = recalled.revision;
        for stream in recalled.streams {
            self.revision = self.revision.max(stream.revision);
            match serde_json::from_str::<StreamConfig>(&stream.config) {
                Ok(config) => {
                    let definition = Definition {
                        config,
                        origin: Origin::Api,
                        revision: stream.revision,
                        created: stream.created,
                        changed: stream.changed,
                        order: 0,
                    };
                    self.api.insert(stream.id, Arc::new(definition));
                }
                Err(error) => unreadable.push((stream.id, error.to_string())),
            }
        }
        for (id, what, value, against) in recalled.wishes {
            let wishes = self.wishes.entry(id).or_default();
            let against = against == "true";
            match (what.as_str(), value.as_str()) {
                (ENABLED, value) => wishes.enabled = Some((value == "true", against)),
                (INFERENCE, value) => wishes.inference = Some((value == "true", against)),
                (RECORDING, value) => wishes.recording = Some((RecordingWish::from_name(value), against)),
                _ => {}
            }
        }
        unreadable
    }

    /// The file's streams as they are from now on. Gives the ids that are different.
    pub(super) fn set_file(&mut self, streams: &[StreamConfig]) -> Vec<(String, FileChange)> {
        let mut changes = Vec::new();
        let mut file = BTreeMap::new();
        for (order, config) in streams.iter().enumerate() {
            let old = self.file.remove(&config.id);
            let change = match &old {
                Some(old) if old.config == *config => None,
                Some(_) => Some(FileChange::Changed),
                None => Some(FileChange::Created),
            };
            let definition = match (old, change) {
                (Some(old), None) => Definition { order, ..Definition::clone(&old) },
                (old, _) => {
                    self.revision += 1;
                    let now = WallTime::now();
                    Definition {
                        config: config.clone(),
                        origin: Origin::File,
                        revision: self.revision,
                        created: old.map_or(now, |old| old.created),
                        changed: now,
                        order,
                    }
                }
            };
            changes.extend(change.map(|change| (config.id.clone(), change)));
            file.insert(config.id.clone(), Arc::new(definition));
        }
        changes.extend(self.file.keys().map(|id| (id.clone(), FileChange::Deleted)));
        self.file = file;
        changes
    }
}

/// What became of a stream of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileChange {
    Created,
    Changed,
    Deleted,
}

/// Makes the change that remembers a wish, or forgets it where it is what is configured anyway.
pub(super) fn wish_change(
    id: &str,
    what: &'static str,
    value: &str,
    against: bool,
    same: bool,
) -> StateChange {
    let id = id.to_owned();
    if same {
        return StateChange::Unwish { id, what };
    }
    StateChange::Wish(StoredWish { id, what, value: value.to_owned(), against: against.to_string() })
}
