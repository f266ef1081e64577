//! What happens with the objects that are seen: plain values that events, recordings, the API and inference share.
//!
//! An object that is followed for long enough is an [`ObjectEvent`]: it begins, is told of now and then, and ends. What it does with zones and
//! lines is a [`SceneEvent`], at the moment that it does it.

use crate::detection::Region;
use crate::frame::WallTime;
use crate::shape::Point;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where an object's event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is there.
    Begin,
    /// It is still there, or somewhere else, or better seen.
    Update,
    /// It has gone.
    End,
}

impl Phase {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Update => "update",
            Self::End => "end",
        }
    }
}

/// Which way a line was crossed, as one looks from its first point to its second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From its left to its right.
    Forward,
    /// From its right to its left.
    Backward,
}

impl Direction {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        }
    }
}

/// A line that an object has crossed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Crossing {
    /// The line's name.
    pub line: Arc<str>,
    /// Which way.
    pub direction: Direction,
    /// When.
    pub time: WallTime,
}

/// What a further model has said of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attribute {
    /// The model.
    pub model: Arc<str>,
    /// The class's name.
    pub label: Arc<str>,
    /// How sure it is, 0 to 1.
    pub score: f32,
}

/// An object that was followed, as far as it is known by now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ObjectEvent {
    /// Where it stands.
    pub phase: Phase,
    /// The event's name: another one for each object, also over restarts.
    pub object: Arc<str>,
    /// The number of its track.
    pub track: u64,
    /// What it is.
    pub label: Arc<str>,
    /// What further models say of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// The last score, 0 to 1.
    pub score: f32,
    /// The best one.
    pub best_score: f32,
    /// Where it is, relative to the picture: left, top, right, bottom.
    #[serde(rename = "box")]
    pub region: Region,
    /// Parts of the picture in a second, across and down.
    pub velocity: Point,
    /// Whether it has been standing still.
    pub stationary: bool,
    /// When it was first seen.
    pub begin: WallTime,
    /// When it was last seen.
    pub last: WallTime,
    /// The same as a length, in seconds.
    pub duration_secs: f64,
    /// The zones that it has been in, in order.
    pub zones: Vec<Arc<str>>,
    /// Those that it is in.
    pub in_zones: Vec<Arc<str>>,
    /// The lines that it has crossed.
    pub lines: Vec<Crossing>,
    /// Where it went: points relative to the picture, of which some are left out.
    pub path: Vec<Point>,
    /// When the best picture of it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_time: Option<WallTime>,
    /// That picture, a JPEG, if it is another one than was told before. Listeners of events do not get it.
    #[serde(skip)]
    pub picture: Option<Arc<[u8]>>,
    /// Whether it is to be recorded, where a stream is recorded by events.
    #[serde(skip)]
    pub records: bool,
}

/// Takes what happens with a stream's objects, to keep it or to do something about it. It is called on a model's thread and must not block.
pub trait ObjectLog: Send + Sync {
    /// An object has come, is still there, or has gone.
    fn object(&self, event: &ObjectEvent);

    /// Something has happened in a zone, or at a line.
    fn scene(&self, event: &SceneEvent);
}

/// What an object does with a zone or a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SceneAction {
    /// It has come into a zone.
    Entered,
    /// It has left it.
    Left,
    /// It is in it for longer than it should be.
    Loitering,
    /// It stands still in it for longer than it should.
    Stationary,
    /// What stood still in it has gone, or was taken away.
    Removed,
    /// There are too many in it; or no longer.
    Overcrowded,
    /// It has crossed a line.
    Crossed,
}

impl SceneAction {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entered => "entered",
            Self::Left => "left",
            Self::Loitering => "loitering",
            Self::Stationary => "stationary",
            Self::Removed => "removed",
            Self::Overcrowded => "overcrowded",
            Self::Crossed => "crossed",
        }
    }
}

/// Something has happened in a zone, or at a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct SceneEvent {
    /// What.
    pub action: SceneAction,
    /// The zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// The line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Arc<str>>,
    /// Which way it was crossed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The object's event; none where it is about all of them, or the object is none that is told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Arc<str>>,
    /// The number of its track.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<u64>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Arc<str>>,
    /// Whether it begins or ends, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// How many are in the zone, where that is what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// How long it was in the zone, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dwell_secs: Option<f64>,
    /// When the picture was taken in which it was seen.
    pub frame_time: WallTime,
}
