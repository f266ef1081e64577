//! A zone: who is in it, since when, and what that means.

use super::object::{InZone, Object};
use super::{Now, ZoneStatus, anchor, event, is_of};
use crate::config::{ZoneConfig, scene_schedule};
use crate::frame::MediaTime;
use crate::inference::track::Track;
use crate::object::{SceneAction, SceneEvent};
use crate::schedule::Schedule;
use crate::shape;
use std::sync::Arc;

/// A zone and what is counted in it.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) config: ZoneConfig,
    pub(super) name: Arc<str>,
    schedule: Option<Schedule>,
    /// Whether it means something at this time of the week.
    open: bool,
    pub(super) count: u32,
    entered: u64,
    overcrowded: bool,
    /// Since when that would be otherwise.
    crowd_since: Option<MediaTime>,
}

impl Zone {
    pub(super) fn new(config: &ZoneConfig) -> Self {
        Self {
            name: config.name.as_str().into(),
            // It was checked with the rest.
            schedule: scene_schedule(&config.schedule, config.time_zone.as_deref()).ok().flatten(),
            config: config.clone(),
            open: true,
            count: 0,
            entered: 0,
            overcrowded: false,
            crowd_since: None,
        }
    }

    pub(super) fn status(&self) -> ZoneStatus {
        ZoneStatus {
            name: self.config.name.clone(),
            count: self.count,
            entered: self.entered,
            overcrowded: self.overcrowded,
        }
    }

    pub(super) fn look_at_clock(&mut self, now: Now) {
        self.open = self.schedule.as_ref().is_none_or(|schedule| schedule.is_open(now.time));
    }

    /// Whether an object that is seen is in it.
    fn holds(&self, track: &Track) -> bool {
        self.open
            && is_of(&self.config.classes, &track.label)
            && track.region.area() >= self.config.min_area
            && shape::contains(&self.config.points, anchor(self.config.anchor, &track.region))
    }

    pub(super) fn see(
        &mut self,
        object: &mut Object,
        at: usize,
        track: &Track,
        now: Now,
        told: &mut Vec<SceneEvent>,
    ) {
        let holds = self.holds(track);
        let rests_since = object.rests_since();
        let Some(state) = object.zones.get_mut(at) else { return };
        if holds == state.inside {
            state.changing = None;
        } else {
            let since = *state.changing.get_or_insert(now.pts);
            let wait = if holds { self.config.enter_after.0 } else { self.config.leave_after.0 };
            if now.pts.saturating_since(since) >= wait {
                if holds {
                    *state = InZone { inside: true, since, ..InZone::default() };
                    self.entered += 1;
                    told.push(event(SceneAction::Entered, now.time).of_zone(self));
                    object.has_been_in(&self.name);
                } else {
                    self.leave(state, since, now, told);
                }
            }
        }
        let Some(state) = object.zones.get_mut(at).filter(|state| state.inside) else { return };
        let dwell = now.pts.saturating_since(state.since);
        if let Some(limit) = self.config.loitering_after
            && !state.loitering
            && dwell >= limit.0
        {
            state.loitering = true;
            told.push(SceneEvent {
                dwell_secs: Some(dwell.as_secs_f64()),
                ..event(SceneAction::Loitering, now.time).of_zone(self)
            });
        }
        let Some(limit) = self.config.stationary_after else { return };
        // It may have stood there before it counted as being in.
        let still = now.pts.saturating_since(rests_since) >= limit.0;
        if still != state.stationary {
            state.stationary = still;
            let action = if still { SceneAction::Stationary } else { SceneAction::Removed };
            told.push(SceneEvent {
                dwell_secs: Some(dwell.as_secs_f64()),
                ..event(action, now.time).of_zone(self)
            });
        }
    }

    /// An object's track has ended.
    pub(super) fn end(
        &mut self,
        object: &mut Object,
        at: usize,
        track: &Track,
        now: Now,
        told: &mut Vec<SceneEvent>,
    ) {
        if let Some(state) = object.zones.get_mut(at).filter(|state| state.inside) {
            let gone = state.changing.unwrap_or(track.last);
            self.leave(state, gone, now, told);
        }
    }

    fn leave(&self, state: &mut InZone, gone: MediaTime, now: Now, told: &mut Vec<SceneEvent>) {
        let dwell_secs = Some(gone.saturating_since(state.since).as_secs_f64());
        let when = now.at(gone);
        if state.stationary {
            told.push(SceneEvent { dwell_secs, ..event(SceneAction::Removed, when).of_zone(self) });
        }
        told.push(SceneEvent { dwell_secs, ..event(SceneAction::Left, when).of_zone(self) });
        *state = InZone::default();
    }

    /// Whether there are too many, if that has changed.
    pub(super) fn crowd(&mut self, now: Now) -> Option<bool> {
        let too_many = self.config.max_objects.is_some_and(|most| self.count > most);
        if too_many == self.overcrowded {
            self.crowd_since = None;
            return None;
        }
        let since = *self.crowd_since.get_or_insert(now.pts);
        let wait = if too_many { self.config.enter_after.0 } else { self.config.leave_after.0 };
        if now.pts.saturating_since(since) < wait {
            return None;
        }
        (self.overcrowded, self.crowd_since) = (too_many, None);
        Some(too_many)
    }
}
