//! What was seen in a picture: plain values that events, the API and inference share.

use crate::frame::{MediaTime, WallTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A rectangle: left, top, right, bottom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct Region {
    /// Left edge.
    pub x0: f32,
    /// Upper edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Lower edge.
    pub y1: f32,
}

impl Region {
    /// From its edges.
    pub const fn new(x0: f32, y0: f32, x1: f32, y1: f32) -> Self {
        Self { x0, y0, x1, y1 }
    }

    /// Its area; zero if it has none.
    pub fn area(&self) -> f32 {
        (self.x1 - self.x0).max(0.0) * (self.y1 - self.y0).max(0.0)
    }

    /// Intersection over union with another one, 0 to 1.
    pub fn iou(&self, other: &Self) -> f32 {
        let width = self.x1.min(other.x1) - self.x0.max(other.x0);
        let height = self.y1.min(other.y1) - self.y0.max(other.y0);
        let common = width.max(0.0) * height.max(0.0);
        let union = self.area() + other.area() - common;
        if union > 0.0 { common / union } else { 0.0 }
    }

    /// Every edge times a factor for its direction.
    #[must_use]
    pub fn scaled(&self, x: f32, y: f32) -> Self {
        Self::new(self.x0 * x, self.y0 * y, self.x1 * x, self.y1 * y)
    }
}

impl From<[f32; 4]> for Region {
    fn from([x0, y0, x1, y1]: [f32; 4]) -> Self {
        Self { x0, y0, x1, y1 }
    }
}

impl From<Region> for [f32; 4] {
    fn from(region: Region) -> Self {
        [region.x0, region.y0, region.x1, region.y1]
    }
}

/// One object, or one thing that a whole picture shows.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Detection {
    /// The class's name.
    pub label: Arc<str>,
    /// The class's number.
    pub class: u32,
    /// How sure the model is, 0 to 1.
    pub score: f32,
    /// Where it is, in pixels of the picture: left, top, right, bottom. None from a classifier.
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// The same relative to the picture, 0 to 1.
    #[serde(rename = "relative_box", skip_serializing_if = "Option::is_none")]
    pub relative: Option<Region>,
    /// The track that it belongs to, where objects are followed: the same number is the same object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<u64>,
}

impl Detection {
    /// An object in a picture of this size.
    pub fn object(label: Arc<str>, class: u32, score: f32, region: Region, width: u32, height: u32) -> Self {
        let relative = region.scaled(1.0 / width.max(1) as f32, 1.0 / height.max(1) as f32);
        Self { label, class, score, region: Some(region), relative: Some(relative), track: None }
    }

    /// What a whole picture shows.
    pub fn class(label: Arc<str>, class: u32, score: f32) -> Self {
        Self { label, class, score, region: None, relative: None, track: None }
    }
}

/// What was seen in one picture.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Detections {
    /// The model.
    pub model: Arc<str>,
    /// When the picture was taken, by the sender's clock if it tells it, else when it arrived.
    #[serde(rename = "frame_time")]
    pub time: WallTime,
    /// The frame's presentation time on the stream's timeline, in seconds.
    #[serde(rename = "pts_secs", serialize_with = "seconds")]
    #[schemars(with = "f64")]
    pub pts: MediaTime,
    /// The picture's width in pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// What was seen, best first.
    pub detections: Vec<Detection>,
}

impl Detections {
    /// What was seen in a picture of this size.
    pub fn new(model: Arc<str>, width: u32, height: u32, detections: Vec<Detection>) -> Self {
        Self { model, time: WallTime::now(), pts: MediaTime::ZERO, width, height, detections }
    }

    /// The same at another time.
    #[must_use]
    pub fn at(mut self, time: WallTime, pts: MediaTime) -> Self {
        (self.time, self.pts) = (time, pts);
        self
    }

    /// How many of each class, by name.
    pub fn counts(&self) -> std::collections::BTreeMap<Arc<str>, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for detection in &self.detections {
            *counts.entry(detection.label.clone()).or_insert(0) += 1;
        }
        counts
    }
}

fn seconds<S: serde::Serializer>(time: &MediaTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap() {
        let a = Region::new(0.0, 0.0, 2.0, 2.0);
        assert_eq!(a.iou(&a), 1.0);
        assert_eq!(a.iou(&Region::new(1.0, 0.0, 3.0, 2.0)), 1.0 / 3.0);
        assert_eq!(a.iou(&Region::new(5.0, 5.0, 6.0, 6.0)), 0.0);
        assert_eq!(Region::default().iou(&Region::default()), 0.0);
    }

    #[test]
    fn as_json() {
        let one = Detection::object("person".into(), 0, 0.5, Region::new(1.0, 2.0, 3.0, 4.0), 10, 20);
        let json = serde_json::to_value(&one).unwrap();
        assert_eq!(json["box"], serde_json::json!([1.0, 2.0, 3.0, 4.0]));
        assert_eq!(json["label"], "person");
        assert!(serde_json::to_value(Detection::class("7".into(), 7, 0.5)).unwrap().get("box").is_none());
    }
}
