//! Whose picture is next: a mailbox for each stream in which the newest picture replaces an older one, fair turns by
//! priority, and a bounded queue for single pictures.
//!
//! Turns are those of start-time fair queueing: each stream has a virtual time that grows by the inverse of its weight
//! with every picture of it that is computed, and the one that is furthest behind is next.

use super::InferenceError;
use super::motion::MotionGate;
use super::picture::Picture;
use super::plan::{Thresholds, Wanted};
use crate::config::{MotionSettings, Priority};
use crate::detection::Detections;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Single pictures that may wait.
pub(super) const MAX_WAITING: usize = 64;
/// How long a thread sleeps before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(500);

/// What became of a stream's picture.
pub(super) struct Outcome {
    pub(super) result: Result<Detections, InferenceError>,
    /// How many of them reach the score that counts; those behind are doubtful.
    pub(super) sure: usize,
    pub(super) picture: Arc<Picture>,
    /// When the picture's frame arrived.
    pub(super) arrived: Instant,
}

/// What a stream wants of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SlotSettings {
    pub(super) wanted: Wanted,
    pub(super) priority: Priority,
    pub(super) motion: Option<MotionSettings>,
    /// The score from which also what does not count is told.
    pub(super) doubtful: Option<f32>,
}

/// The scores that count, and those from which something is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bars {
    pub(super) sure: Thresholds,
    pub(super) told: Thresholds,
}

impl Bars {
    pub(super) fn new(sure: Thresholds, doubtful: Option<f32>) -> Self {
        let told = doubtful.map_or_else(|| sure.clone(), |least| sure.lowered_to(least));
        Self { sure, told }
    }
}

/// The side of a stream's mailbox that is emptied.
pub(super) struct SlotShared {
    pub(super) settings: Mutex<(u64, SlotSettings)>,
    /// The scores that count by those settings, for the model in its present form.
    pub(super) thresholds: Mutex<Option<(u64, u64, Arc<Bars>)>>,
    pub(super) gate: Mutex<Option<MotionGate>>,
    pub(super) deliver: Box<dyn Fn(Outcome) + Send + Sync>,
    offered: AtomicU64,
    replaced: AtomicU64,
    pub(super) still: AtomicU64,
}

/// What a mailbox has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotStats {
    /// Pictures put in.
    pub(super) offered: u64,
    /// Pictures that a newer one replaced before their turn came.
    pub(super) replaced: u64,
    /// Pictures in which nothing had moved.
    pub(super) still: u64,
}

impl SlotStats {
    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            offered: self.offered + other.offered,
            replaced: self.replaced + other.replaced,
            still: self.still + other.still,
        }
    }
}

/// A stream's mailbox. Dropping it gives up its place.
pub(super) struct Slot {
    id: u64,
    shared: Arc<SlotShared>,
    scheduler: Arc<Scheduler>,
}

impl Slot {
    /// Puts a picture in; one that waits there is replaced.
    pub(super) fn offer(&self, picture: Picture) {
        self.shared.offered.fetch_add(1, Ordering::Relaxed);
        let mut state = self.scheduler.state.lock();
        let now = state.now;
        let Some(entry) = state.slots.iter_mut().find(|s| s.id == self.id) else { return };
        if entry.pending.replace(Arc::new(picture)).is_some() {
            self.shared.replaced.fetch_add(1, Ordering::Relaxed);
        } else {
            // Who was away has no credit for it.
            entry.time = entry.time.max(now);
        }
        drop(state);
        self.scheduler.wake.notify_one();
    }

    /// Changes what is wanted, from the next picture on.
    pub(super) fn set(&self, settings: SlotSettings) {
        let priority = settings.priority;
        {
            let mut held = self.shared.settings.lock();
            if held.1 == settings {
                return;
            }
            if held.1.motion != settings.motion {
                *self.shared.gate.lock() = settings.motion.clone().map(MotionGate::new);
            }
            *held = (held.0 + 1, settings);
        }
        let mut state = self.scheduler.state.lock();
        if let Some(entry) = state.slots.iter_mut().find(|s| s.id == self.id) {
            entry.weight = weight(priority);
        }
    }

    pub(super) fn stats(&self) -> SlotStats {
        SlotStats {
            offered: self.shared.offered.load(Ordering::Relaxed),
            replaced: self.shared.replaced.load(Ordering::Relaxed),
            still: self.shared.still.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.scheduler.state.lock().slots.retain(|s| s.id != self.id);
    }
}

fn weight(priority: Priority) -> f64 {
    match priority {
        Priority::Low => 0.25,
        Priority::Normal => 1.0,
        Priority::High => 4.0,
    }
}

/// What is in a single picture, and how many of it reach the score that counts.
pub(super) type Told = (Detections, usize);

/// What is asked of a single picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ask {
    pub(super) wanted: Wanted,
    /// The score from which also what does not count is told.
    pub(super) doubtful: Option<f32>,
}

/// Who gets the answer.
pub(super) enum To {
    Slot(Arc<SlotShared>),
    Once(oneshot::Sender<Result<Told, InferenceError>>, Ask),
}

/// A picture whose turn it is.
pub(super) struct Work {
    pub(super) picture: Arc<Picture>,
    pub(super) to: To,
    /// Since when it waited.
    pub(super) since: Instant,
}

struct Entry {
    id: u64,
    pending: Option<Arc<Picture>>,
    time: f64,
    weight: f64,
    shared: Arc<SlotShared>,
}

#[derive(Default)]
struct State {
    slots: Vec<Entry>,
    once: VecDeque<Work>,
    once_time: f64,
    /// The virtual time of the picture that was taken last.
    now: f64,
    next_id: u64,
    /// Which threads work: those of a model's last loading.
    generation: u64,
    closed: bool,
}

/// What waits for one model.
#[derive(Default)]
pub(super) struct Scheduler {
    state: Mutex<State>,
    wake: Condvar,
}

impl Scheduler {
    /// A mailbox for a stream.
    pub(super) fn slot(
        self: &Arc<Self>,
        settings: SlotSettings,
        deliver: impl Fn(Outcome) + Send + Sync + 'static,
    ) -> Slot {
        let gate = settings.motion.clone().map(MotionGate::new);
        let weight = weight(settings.priority);
        let shared = Arc::new(SlotShared {
            settings: Mutex::new((0, settings)),
            thresholds: Mutex::default(),
            gate: Mutex::new(gate),
            deliver: Box::new(deliver),
            offered: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            still: AtomicU64::new(0),
        });
        let mut state = self.state.lock();
        let (id, time) = (state.next_id, state.now);
        state.next_id += 1;
        state.slots.push(Entry { id, pending: None, time, weight, shared: shared.clone() });
        Slot { id, shared, scheduler: self.clone() }
    }

    /// Has a single picture computed.
    pub(super) fn once(
        &self,
        picture: Arc<Picture>,
        ask: Ask,
        model: &str,
    ) -> Result<oneshot::Receiver<Result<Told, InferenceError>>, InferenceError> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        let waiting = state.once.len();
        if waiting >= MAX_WAITING {
            return Err(InferenceError::Busy { model: model.to_owned(), waiting });
        }
        if waiting == 0 {
            state.once_time = state.once_time.max(state.now);
        }
        state.once.push_back(Work { picture, to: To::Once(sender, ask), since: Instant::now() });
        drop(state);
        self.wake.notify_one();
        Ok(receiver)
    }

    /// How many single pictures wait.
    pub(super) fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.once.len() + state.slots.iter().filter(|s| s.pending.is_some()).count()
    }

    /// How many streams have a mailbox.
    pub(super) fn streams(&self) -> usize {
        self.state.lock().slots.len()
    }

    /// From now on the threads of this generation work, and the others end.
    pub(super) fn set_generation(&self, generation: u64) {
        self.state.lock().generation = generation;
        self.wake.notify_all();
    }

    /// Ends all threads; single pictures that wait are not computed.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.once.clear();
        drop(state);
        self.wake.notify_all();
    }

    /// Single pictures do not wait for a model that has failed.
    pub(super) fn refuse(&self, error: &InferenceError) {
        let waiting: Vec<Work> = self.state.lock().once.drain(..).collect();
        for work in waiting {
            if let To::Once(sender, _) = work.to {
                // Nobody may be waiting any more.
                let _ = sender.send(Err(error.clone()));
            }
        }
    }

    /// Waits until this generation is the one that works; `false` if it never will.
    pub(super) fn wait_for_turn(&self, generation: u64, given_up: &AtomicBool) -> bool {
        let mut state = self.state.lock();
        while state.generation < generation && !state.closed && !given_up.load(Ordering::Relaxed) {
            self.wake.wait_for(&mut state, LOOK);
        }
        state.generation == generation && !state.closed
    }

    /// The next pictures, `most` at once; waits for the first, and then up to `delay` for more. `None` when the thread
    /// is no longer wanted.
    pub(super) fn take(&self, generation: u64, most: usize, delay: Duration) -> Option<Vec<Work>> {
        let mut state = self.state.lock();
        let mut taken = Vec::new();
        let mut deadline = None;
        loop {
            if state.closed || state.generation != generation {
                // What was taken is computed all the same.
                return (!taken.is_empty()).then_some(taken);
            }
            while taken.len() < most {
                let Some(work) = state.next() else { break };
                taken.push(work);
            }
            let more = state.slots.len() + state.once.len();
            if taken.len() >= most || (!taken.is_empty() && more <= taken.len()) {
                return Some(taken);
            }
            let wait = match (taken.is_empty(), deadline) {
                (true, _) => LOOK,
                (false, None) => {
                    deadline = Some(Instant::now() + delay);
                    delay
                }
                (false, Some(at)) => at.saturating_duration_since(Instant::now()),
            };
            if !taken.is_empty() && wait.is_zero() {
                return Some(taken);
            }
            self.wake.wait_for(&mut state, wait);
        }
    }
}

impl State {
    fn next(&mut self) -> Option<Work> {
        let ready = self.slots.iter_mut().filter(|s| s.pending.is_some());
        let slot = ready.min_by(|a, b| a.time.total_cmp(&b.time));
        let once = !self.once.is_empty() && slot.as_ref().is_none_or(|slot| self.once_time <= slot.time);
        if once {
            self.now = self.once_time;
            self.once_time += 1.0 / weight(Priority::High);
            return self.once.pop_front();
        }
        let slot = slot?;
        let picture = slot.pending.take()?;
        self.now = slot.time;
        slot.time += 1.0 / slot.weight;
        let since = picture.arrived;
        Some(Work { picture, to: To::Slot(slot.shared.clone()), since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(pts: i64) -> Picture {
        let at = crate::frame::MediaTime::from_nanos(pts);
        Picture::rgb(1, 1, vec![0; 3]).unwrap().at(at, crate::frame::WallTime::now())
    }

    fn slot(scheduler: &Arc<Scheduler>, priority: Priority) -> Slot {
        scheduler.slot(SlotSettings { priority, ..SlotSettings::default() }, |_| {})
    }

    fn is(work: &Work, slot: &Slot) -> bool {
        matches!(&work.to, To::Slot(shared) if Arc::ptr_eq(shared, &slot.shared))
    }

    #[test]
    fn the_newest_wins() {
        let scheduler = Arc::new(Scheduler::default());
        let one = slot(&scheduler, Priority::Normal);
        for pts in 0..5 {
            one.offer(picture(pts));
        }
        let taken = scheduler.take(0, 8, Duration::from_millis(1)).unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].picture.pts.as_nanos(), 4);
        assert_eq!(one.stats(), SlotStats { offered: 5, replaced: 4, still: 0 });
    }

    #[test]
    fn turns_are_fair_by_priority() {
        let scheduler = Arc::new(Scheduler::default());
        let slots =
            [Priority::Normal, Priority::Normal, Priority::High, Priority::Low].map(|p| slot(&scheduler, p));
        let mut counts = [0; 4];
        for _ in 0..625 {
            // All of them always have something.
            slots.iter().for_each(|s| s.offer(picture(0)));
            let taken = scheduler.take(0, 1, Duration::ZERO).unwrap();
            let which = slots.iter().position(|s| is(&taken[0], s)).unwrap();
            counts[which] += 1;
        }
        assert_eq!(counts, [100, 100, 400, 25]);
    }

    #[test]
    fn who_was_away_does_not_get_all_turns() {
        let scheduler = Arc::new(Scheduler::default());
        let (busy, late) = (slot(&scheduler, Priority::Normal), slot(&scheduler, Priority::Normal));
        for _ in 0..50 {
            busy.offer(picture(0));
            scheduler.take(0, 1, Duration::ZERO).unwrap();
        }
        let mut of_late = 0;
        for _ in 0..20 {
            busy.offer(picture(0));
            late.offer(picture(0));
            of_late += usize::from(is(&scheduler.take(0, 1, Duration::ZERO).unwrap()[0], &late));
        }
        assert!((9..=11).contains(&of_late), "{of_late}");
    }

    #[test]
    fn single_pictures_are_bounded_and_have_their_turns() {
        let scheduler = Arc::new(Scheduler::default());
        let stream = slot(&scheduler, Priority::Normal);
        let receivers: Vec<_> = (0..MAX_WAITING)
            .map(|_| scheduler.once(Arc::new(picture(0)), Ask::default(), "m").unwrap())
            .collect();
        let busy = scheduler.once(Arc::new(picture(0)), Ask::default(), "m").unwrap_err().to_string();
        assert_eq!(busy, "model \"m\": 64 pictures are waiting already; try again later");
        stream.offer(picture(0));
        let taken = scheduler.take(0, 6, Duration::ZERO).unwrap();
        assert_eq!(taken.iter().filter(|w| is(w, &stream)).count(), 1);
        drop(receivers);
    }

    #[test]
    fn a_generation_that_is_over_ends() {
        let scheduler = Arc::new(Scheduler::default());
        scheduler.set_generation(2);
        assert!(!scheduler.wait_for_turn(1, &AtomicBool::new(false)));
        assert!(scheduler.wait_for_turn(2, &AtomicBool::new(false)));
        assert!(scheduler.take(1, 1, Duration::ZERO).is_none());
        scheduler.close();
        assert!(scheduler.take(2, 1, Duration::ZERO).is_none());
        assert!(!scheduler.wait_for_turn(3, &AtomicBool::new(false)));
    }
}
