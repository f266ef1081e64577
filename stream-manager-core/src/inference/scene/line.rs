//! A line: who crosses it, and which way.

use super::object::{AtLine, Object};
use super::{LineStatus, Now, anchor, event, is_of};
use crate::config::{LineConfig, LineDirection, scene_schedule};
use crate::inference::track::Track;
use crate::object::{Crossing, Direction, SceneAction, SceneEvent};
use crate::schedule::Schedule;
use crate::shape;
use std::sync::Arc;

/// How far behind a line an object has to be to have crossed it, in parts of its box: boxes tremble.
const BEHIND: f32 = 0.1;
/// The same in parts of the picture, at least and at most.
const BEHIND_LIMITS: (f32, f32) = (0.003, 0.02);

/// A line and what is counted at it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) config: LineConfig,
    name: Arc<str>,
    schedule: Option<Schedule>,
    forward: u64,
    backward: u64,
}

impl Line {
    pub(super) fn new(config: &LineConfig) -> Self {
        Self {
            name: config.name.as_str().into(),
            // It was checked with the rest.
            schedule: scene_schedule(&config.schedule, config.time_zone.as_deref()).ok().flatten(),
            config: config.clone(),
            forward: 0,
            backward: 0,
        }
    }

    pub(super) fn status(&self) -> LineStatus {
        LineStatus { name: self.config.name.clone(), forward: self.forward, backward: self.backward }
    }

    pub(super) fn see(
        &mut self,
        object: &mut Object,
        at: usize,
        track: &Track,
        now: Now,
    ) -> Option<SceneEvent> {
        let here = anchor(self.config.anchor, &track.region);
        let beside = shape::beside(self.config.points, here);
        let region = &track.region;
        let size = (region.x1 - region.x0).min(region.y1 - region.y0);
        if beside.abs() < (BEHIND * size).clamp(BEHIND_LIMITS.0, BEHIND_LIMITS.1) {
            return None;
        }
        let right = beside > 0.0;
        let before = object.lines.get_mut(at)?.replace(AtLine { right, at: here })?;
        if before.right == right || !shape::meet([before.at, here], self.config.points) {
            return None;
        }
        let direction = if right { Direction::Forward } else { Direction::Backward };
        let counts = match self.config.direction {
            LineDirection::Both => true,
            LineDirection::Forward => direction == Direction::Forward,
            LineDirection::Backward => direction == Direction::Backward,
        };
        let open = self.schedule.as_ref().is_none_or(|schedule| schedule.is_open(now.time));
        if !counts || !open || !is_of(&self.config.classes, &track.label) {
            return None;
        }
        match direction {
            Direction::Forward => self.forward += 1,
            Direction::Backward => self.backward += 1,
        }
        object.has_crossed(Crossing { line: self.name.clone(), direction, time: now.time });
        Some(SceneEvent {
            line: Some(self.name.clone()),
            direction: Some(direction),
            ..event(SceneAction::Crossed, now.time)
        })
    }
}
