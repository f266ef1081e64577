//! All operations of the API but those on accounts, by what they are about.

mod inference;
mod recordings;
mod stored;
mod streams;
mod system;
mod watching;

use super::parts::Operation;

pub(super) const TAGS: &[(&str, &str)] = &[
    ("streams", "What is taken in"),
    ("recordings", "What is recorded"),
    ("sessions", "Who watches and who publishes"),
    ("events", "What happens"),
    ("config", "Settings"),
    ("access", "Who may do what"),
    ("inference", "What is seen in pictures"),
    ("system", "The program and the machine"),
];

/// The operations, some only with their features.
pub(super) const OPERATIONS: &[&[Operation]] = &[
    streams::STREAMS,
    recordings::RECORDINGS,
    stored::STORED,
    watching::WATCHING,
    inference::OBJECTS,
    system::SYSTEM,
    streams::PLAYERS,
    inference::INFERENCE,
    system::ONVIF,
];
