//! What the answers of a model become: what is followed, events, and what players are told.

use super::{AnalysisState, MIN_EVENT_INTERVAL, Shared};
use crate::detection::Detections;
use crate::event::EventKind;
use crate::frame::WallTime;
use crate::inference::follow::Answer;
use crate::inference::scene::Happening;
use crate::inference::scheduler::{Outcome, Slot, SlotStats};
use crate::inference::{Picture, metadata};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Shared {
    pub(super) fn stats(&self) -> SlotStats {
        let past = *self.past.lock();
        past.plus(self.slot.lock().as_ref().map(|slot| slot.stats()).unwrap_or_default())
    }

    pub(super) fn set_slot(&self, slot: Option<Arc<Slot>>) {
        let old = std::mem::replace(&mut *self.slot.lock(), slot);
        if let Some(old) = old {
            let mut past = self.past.lock();
            *past = past.plus(old.stats());
        }
    }

    /// Another session than before: answers to pictures of an earlier one count no more.
    pub(super) fn next_session(&self) -> u64 {
        let mut standing = self.standing.lock();
        standing.session += 1;
        standing.session
    }

    pub(super) fn stand(&self, state: AnalysisState, reason: impl Into<String>) {
        self.change(None, state, reason.into());
    }

    /// Takes another state, unless it is for a session that is over. Says whether it was not.
    pub(super) fn change(&self, session: Option<u64>, state: AnalysisState, reason: String) -> bool {
        {
            let mut standing = self.standing.lock();
            if session.is_some_and(|session| session != standing.session) {
                return false;
            }
            if (standing.state, &standing.reason) == (state, &reason) {
                return true;
            }
            if standing.state != state {
                standing.since = WallTime::now();
            }
            (standing.state, standing.reason) = (state, reason.clone());
        }
        if state == AnalysisState::Blocked {
            self.seen.lock().last_error = Some(reason.clone());
        }
        self.events.emit(EventKind::InferenceState { state: state.name(), reason });
        true
    }

    /// Follows what is in a picture, and tells what it does.
    pub(super) fn follow(&self, session: u64, detections: &mut Detections, sure: usize, picture: &Picture) {
        let still = self.stats().still;
        let mut held = self.follow.lock();
        // Whatever ends a session ends what it follows afterwards, under this lock.
        if session != self.standing.lock().session {
            return;
        }
        match &mut *held {
            Some(follow) => self.tell(follow.take(Answer { detections, sure, picture, still })),
            None => detections.detections.truncate(sure),
        }
    }

    pub(super) fn tell(&self, happenings: Vec<Happening>) {
        let log = self.log.get();
        for one in happenings {
            self.events.emit(match one {
                Happening::Object(mut object) => {
                    if let Some(log) = log {
                        log.object(&object);
                    }
                    // It would be kept with the last events, for nobody.
                    object.picture = None;
                    EventKind::Object(object)
                }
                Happening::Scene(scene) => {
                    if let Some(log) = log {
                        log.scene(&scene);
                    }
                    EventKind::Scene(scene)
                }
            });
        }
    }

    pub(super) fn take(&self, session: u64, outcome: Outcome) {
        let detections = match outcome.result {
            Ok(mut detections) => {
                let running = format!("model \"{}\"", detections.model);
                if !self.change(Some(session), AnalysisState::Running, running) {
                    return;
                }
                let begun = Instant::now();
                self.follow(session, &mut detections, outcome.sure, &outcome.picture);
                let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.followed_nanos.fetch_add(took, Ordering::Relaxed);
                Arc::new(detections)
            }
            Err(error) => {
                let mut seen = self.seen.lock();
                seen.errors += 1;
                seen.last_error = Some(error.to_string());
                return;
            }
        };
        let now = Instant::now();
        let interval = self.settings.borrow().event_interval;
        let tell = {
            let mut seen = self.seen.lock();
            seen.analysed += 1;
            seen.latency = Some(outcome.arrived.elapsed());
            seen.last = Some(detections.clone());
            if seen.recent.len() >= 256 {
                seen.recent.pop_front();
            }
            seen.recent.push_back(now);
            let counts = detections.counts();
            let tell = match &seen.told {
                None => !counts.is_empty(),
                Some((before, at)) => {
                    let passed = now.duration_since(*at);
                    // What flickers is told once in a while, and what stays, stays to be told.
                    (*before != counts && passed >= MIN_EVENT_INTERVAL)
                        || (!counts.is_empty() && passed >= interval)
                }
            };
            if tell {
                seen.told = Some((counts, now));
            }
            tell
        };
        if tell {
            self.events.emit(EventKind::Detections((*detections).clone()));
        }
        self.show(&detections, outcome.arrived);
        // Nobody may be listening.
        let _ = self.listeners.send(detections);
    }

    /// Tells those who show the stream.
    pub(super) fn show(&self, detections: &Arc<Detections>, arrived: Instant) {
        let Some(hub) = self.hub.get() else { return };
        let seen = hub.tell_seen(detections.clone(), arrived);
        if let Some(stream) = self.metadata.get()
            && let Some(pts) = stream.time_of(&seen)
        {
            let document = metadata::document(detections);
            // Without a picture there is nothing that it goes with.
            let _ = stream.push_data(pts, WallTime::now() - arrived.elapsed(), document);
        }
    }
}
