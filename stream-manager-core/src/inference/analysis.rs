//! A stream's analysis: a sink that decodes what is needed and no more, and hands pictures to a model.
//!
//! It reads the hub only while it is on. When so few pictures are wanted that keyframes are enough, nothing else is
//! decoded. What its model sees is told to whoever listens, and as an event when it is something else than before.

mod thrift;
mod work;

use super::decode::{Decoder, Room};
use super::follow::{Answer, Follow, Question};
use super::models::{Model, Models};
use super::scene::{Happening, SceneStatus};
use super::scheduler::{Outcome, Slot, SlotSettings, SlotStats};
use super::{InferenceError, Wanted};
use crate::config::AnalysisSettings;
use crate::detection::Detections;
use crate::event::{EventKind, EventSender};
use crate::frame::{CodecParameters, DataCodec, DataParameters, WallTime};
use crate::hub::{Hub, HubItem, HubReader, QueueLimits, ReaderOptions};
use crate::object::{Attribute, ObjectLog};
use crate::sink::{Sink, SinkError};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use work::Work;

/// Results that a slow listener may leave unread.
const LISTENER_LENGTH: usize = 256;
/// Changes are told no more often than this.
const MIN_EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// A decoder that takes nothing for this long hangs.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);
/// Pictures of objects that wait for classifiers.
const MAX_QUESTIONS: usize = 16;
/// Those that classifiers have at once.
const MAX_ASKED: usize = 4;
/// How often it is looked whether anything comes at all.
const CLOCK: Duration = Duration::from_secs(1);
/// What may wait for the decoder: it should be near the present.
const LIMITS: QueueLimits = QueueLimits { frames: 256, bytes: 16 << 20 };

/// Where a stream's analysis stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnalysisState {
    /// Nothing is analysed.
    Off,
    /// Waiting for the model, or for the stream's first picture.
    Starting,
    /// Pictures are analysed.
    Running,
    /// It cannot; tried again by itself.
    Blocked,
}

impl AnalysisState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Blocked => "blocked",
        }
    }
}

/// Everything about a stream's analysis at one moment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AnalysisStatus {
    /// Where it stands.
    pub state: AnalysisState,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
    /// The model.
    pub model: Option<String>,
    /// Pictures analysed in a second at most.
    pub max_fps: f64,
    /// Pictures analysed in a second, over the last seconds.
    pub fps: f64,
    /// Whether only keyframes are decoded.
    pub keyframes_only: bool,
    /// Whether that is so because the model gets round to fewer pictures than keyframes alone are.
    pub saving: bool,
    /// Frames decoded.
    pub decoded: u64,
    /// Pictures handed to the model.
    pub offered: u64,
    /// Pictures analysed.
    pub analysed: u64,
    /// Pictures that a newer one replaced before their turn came.
    pub dropped: u64,
    /// Pictures in which nothing had moved.
    pub still: u64,
    /// Pictures that failed.
    pub errors: u64,
    /// From the last analysed frame's arrival to its answer, in seconds.
    pub latency_secs: Option<f64>,
    /// What was seen last.
    pub last: Option<Arc<Detections>>,
    /// What is followed, and what was counted; nothing while nothing is analysed.
    pub scene: Option<SceneStatus>,
    /// How long following objects and what is made of that has taken, in seconds, for all pictures together.
    pub followed_secs: f64,
    /// The last error.
    pub last_error: Option<String>,
}

struct Seen {
    last: Option<Arc<Detections>>,
    last_error: Option<String>,
    analysed: u64,
    errors: u64,
    latency: Option<Duration>,
    /// When the last answers came.
    recent: VecDeque<Instant>,
    /// What the last event said, and when.
    told: Option<(BTreeMap<Arc<str>, usize>, Instant)>,
}

struct Standing {
    state: AnalysisState,
    reason: String,
    since: WallTime,
    /// Whose pictures count: a model may still be at one when the session that it came from is over.
    session: u64,
}

struct Shared {
    settings: watch::Sender<AnalysisSettings>,
    standing: Mutex<Standing>,
    seen: Mutex<Seen>,
    listeners: broadcast::Sender<Arc<Detections>>,
    slot: Mutex<Option<Arc<Slot>>>,
    past: Mutex<SlotStats>,
    keyframes_only: AtomicBool,
    saving: AtomicBool,
    decoded: AtomicU64,
    followed_nanos: AtomicU64,
    /// Held while events are told, so that they are in order.
    follow: Mutex<Option<Follow>>,
    log: OnceLock<Arc<dyn ObjectLog>>,
    /// Whose pictures are analysed: what is seen is told there.
    hub: OnceLock<Hub>,
    /// Whose track of metadata it goes into, if it is to.
    metadata: OnceLock<Hub>,
    events: EventSender,
}

/// A stream's analysis from outside. Clones are handles to the same one.
#[derive(Clone)]
pub struct AnalysisHandle {
    shared: Arc<Shared>,
}

impl AnalysisHandle {
    /// How it works at the moment.
    pub fn settings(&self) -> AnalysisSettings {
        self.shared.settings.borrow().clone()
    }

    /// Works like this from now on. The stream and its recording notice nothing of it.
    pub fn configure(&self, settings: AnalysisSettings) {
        self.shared.settings.send_if_modified(|held| {
            let differs = *held != settings;
            *held = settings;
            differs
        });
    }

    /// Begins or ends it.
    pub fn set_enabled(&self, enabled: bool) {
        self.shared.settings.send_if_modified(|held| {
            let differs = held.enabled != enabled;
            held.enabled = enabled;
            differs
        });
    }

    /// What is seen from now on, picture by picture. A listener that is too slow misses some and is told how many.
    ///
    /// ```
    /// # use stream_manager_core::inference::AnalysisHandle;
    /// # async fn example(analysis: &AnalysisHandle) {
    /// let mut seen = analysis.subscribe();
    /// while let Ok(seen) = seen.recv().await {
    ///     let people = seen.detections.iter().filter(|d| &*d.label == "person").count();
    /// }
    /// # }
    /// ```
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Detections>> {
        self.shared.listeners.subscribe()
    }

    /// Everything about it.
    pub fn status(&self) -> AnalysisStatus {
        let shared = &self.shared;
        let (state, reason, since) = {
            let standing = shared.standing.lock();
            (standing.state, standing.reason.clone(), standing.since)
        };
        let settings = shared.settings.borrow().clone();
        let stats = shared.stats();
        let scene = shared.follow.lock().as_ref().map(Follow::status);
        let seen = shared.seen.lock();
        AnalysisStatus {
            state,
            reason,
            since,
            model: settings.model,
            max_fps: settings.max_fps,
            fps: rate(&seen.recent),
            keyframes_only: shared.keyframes_only.load(Ordering::Relaxed),
            saving: shared.saving.load(Ordering::Relaxed),
            decoded: shared.decoded.load(Ordering::Relaxed),
            offered: stats.offered,
            analysed: seen.analysed,
            dropped: stats.replaced,
            still: stats.still,
            errors: seen.errors,
            latency_secs: seen.latency.map(|l| l.as_secs_f64()),
            last: seen.last.clone(),
            scene,
            followed_secs: shared.followed_nanos.load(Ordering::Relaxed) as f64 / 1e9,
            last_error: seen.last_error.clone(),
        }
    }
}

fn rate(recent: &VecDeque<Instant>) -> f64 {
    const WINDOW: Duration = Duration::from_secs(5);
    let count = recent.iter().filter(|at| at.elapsed() < WINDOW).count();
    count as f64 / WINDOW.as_secs_f64()
}

impl Shared {
    fn stats(&self) -> SlotStats {
        let past = *self.past.lock();
        past.plus(self.slot.lock().as_ref().map(|slot| slot.stats()).unwrap_or_default())
    }

    fn set_slot(&self, slot: Option<Arc<Slot>>) {
        let old = std::mem::replace(&mut *self.slot.lock(), slot);
        if let Some(old) = old {
            let mut past = self.past.lock();
            *past = past.plus(old.stats());
        }
    }

    /// Another session than before: answers to pictures of an earlier one count no more.
    fn next_session(&self) -> u64 {
        let mut standing = self.standing.lock();
        standing.session += 1;
        standing.session
    }

    fn stand(&self, state: AnalysisState, reason: impl Into<String>) {
        self.change(None, state, reason.into());
    }

    /// Takes another state, unless it is for a session that is over. Says whether it was not.
    fn change(&self, session: Option<u64>, state: AnalysisState, reason: String) -> bool {
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
    fn follow(&self, session: u64, detections: &mut Detections, sure: usize, picture: &super::Picture) {
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

    fn tell(&self, happenings: Vec<Happening>) {
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

    fn take(&self, session: u64, outcome: Outcome) {
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
    fn show(&self, detections: &Arc<Detections>, arrived: Instant) {
        let Some(hub) = self.hub.get() else { return };
        let seen = hub.tell_seen(detections.clone(), arrived);
        if let Some(stream) = self.metadata.get()
            && let Some(pts) = stream.time_of(&seen)
        {
            let document = super::metadata::document(detections);
            // Without a picture there is nothing that it goes with.
            let _ = stream.push_data(pts, WallTime::now() - arrived.elapsed(), document);
        }
    }
}

/// A stream's analysis: the sink.
pub struct Analysis {
    shared: Arc<Shared>,
    models: Models,
}

impl Analysis {
    /// An analysis by one of these models. Its state and what it sees become events.
    ///
    /// ```no_run
    /// # use stream_manager_core::event::EventBus;
    /// # use stream_manager_core::inference::{Analysis, AnalysisSettings, Models};
    /// # fn example(models: Models) {
    /// let settings = AnalysisSettings { enabled: true, max_fps: 2.0, ..AnalysisSettings::default() };
    /// let (handle, sink) = Analysis::new(models, settings, EventBus::default().for_stream("door".into()));
    /// # }
    /// ```
    pub fn new(models: Models, settings: AnalysisSettings, events: EventSender) -> (AnalysisHandle, Self) {
        let shared = Arc::new(Shared {
            settings: watch::Sender::new(settings),
            standing: Mutex::new(Standing {
                state: AnalysisState::Off,
                reason: "not enabled".into(),
                since: WallTime::now(),
                session: 0,
            }),
            seen: Mutex::new(Seen {
                last: None,
                last_error: None,
                analysed: 0,
                errors: 0,
                latency: None,
                recent: VecDeque::new(),
                told: None,
            }),
            listeners: broadcast::Sender::new(LISTENER_LENGTH),
            slot: Mutex::default(),
            past: Mutex::default(),
            keyframes_only: AtomicBool::new(false),
            saving: AtomicBool::new(false),
            decoded: AtomicU64::new(0),
            followed_nanos: AtomicU64::new(0),
            follow: Mutex::default(),
            log: OnceLock::new(),
            hub: OnceLock::new(),
            metadata: OnceLock::new(),
            events,
        });
        (AnalysisHandle { shared: shared.clone() }, Self { shared, models })
    }

    /// What happens with objects is told to this, too, with their pictures.
    #[must_use]
    pub fn log(self, log: Arc<dyn ObjectLog>) -> Self {
        // The first one stays.
        let _ = self.shared.log.set(log);
        self
    }

    /// What is seen also goes into a stream as a [track of metadata](Hub::set_data_track), as ONVIF tells it. It is of the hub that is
    /// analysed, or of one that shows the same.
    #[must_use]
    pub fn metadata(self, stream: Hub) -> Self {
        stream.set_data_track(CodecParameters::Data(DataParameters { codec: DataCodec::Onvif }));
        // The first one stays.
        let _ = self.shared.metadata.set(stream);
        self
    }

    fn slot(
        &self,
        model: &Model,
        settings: &AnalysisSettings,
        questions: mpsc::Sender<Question>,
    ) -> Arc<Slot> {
        let weak = Arc::downgrade(&self.shared);
        let session = self.shared.next_session();
        let slot = model.slot(slot_settings(settings), move |outcome| {
            if let Some(shared) = weak.upgrade() {
                shared.take(session, outcome);
            }
        });
        let slot = Arc::new(slot);
        self.shared.set_slot(Some(slot.clone()));
        *self.shared.follow.lock() = Follow::new(&settings.scene, Some(questions));
        slot
    }

    /// Works until it is switched off, the stream ends, or something else is to be done differently.
    async fn session(&mut self, hub: &Hub, cancel: &CancellationToken) -> Ended {
        let mut changes = self.shared.settings.subscribe();
        let settings = changes.borrow_and_update().clone();
        let mut others = self.models.changes();
        let model = match self.models.pick(settings.model.as_deref()) {
            Ok(model) => model,
            Err(error) => {
                self.shared.stand(AnalysisState::Blocked, error.to_string());
                tokio::select! {
                    () = cancel.cancelled() => return Ended::Over,
                    () = hub.closed() => return Ended::Over,
                    _ = others.changed() => return Ended::Again,
                    _ = changes.changed() => return Ended::Again,
                }
            }
        };
        let mut standing = model.standing();
        let (sender, mut questions) = mpsc::channel(MAX_QUESTIONS);
        let slot = self.slot(&model, &settings, sender.clone());
        let mut answers = FuturesUnordered::new();
        let options = ReaderOptions { limits: LIMITS, ..ReaderOptions::default() };
        let mut work = Work::new(self.shared.clone(), slot, settings, sender);
        let mut reader = hub.subscribe("inference", options);
        let look = standing.borrow_and_update().clone();
        work.model_stands(look.state, &look.reason);
        work.look_at_classes(model.plan().as_deref());
        let mut clock = tokio::time::interval(CLOCK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            let room = work.decoder.as_ref().map(Decoder::room);
            let step = tokio::select! {
                biased;
                () = cancel.cancelled() => break Ended::Over,
                _ = changes.changed() => Step::Settings,
                _ = standing.changed() => Step::Model,
                _ = others.changed() => Step::Models,
                _ = clock.tick() => Step::Clock,
                Some((track, answer)) = answers.next() => Step::Answer(track, answer),
                Some(question) = questions.recv(), if answers.len() < MAX_ASKED => Step::Question(question),
                error = decoder_error(&mut work.decoder) => Step::Decoder(error),
                step = next_step(&mut reader, room) => step,
            };
            match step {
                Step::Settings => {
                    let settings = changes.borrow_and_update().clone();
                    if !settings.enabled || settings.model != work.settings.model {
                        break Ended::Again;
                    }
                    work.set(settings);
                    work.look_at_classes(model.plan().as_deref());
                }
                Step::Clock => work.look_at_clock(),
                Step::Question(question) => answers.push(classify(self.models.clone(), question)),
                Step::Answer(track, answer) => work.answer(track, answer),
                Step::Model => {
                    let look = standing.borrow_and_update().clone();
                    work.model_stands(look.state, &look.reason);
                    work.look_at_classes(model.plan().as_deref());
                }
                // Another one may have come under its name.
                Step::Models => match self.models.pick(work.settings.model.as_deref()) {
                    Ok(found) if found.is(&model) => {}
                    _ => break Ended::Again,
                },
                Step::Decoder(error) => work.decoder_failed(&error).await,
                Step::Item(None) => break Ended::Over,
                Step::Item(Some(item)) => work.item(item).await,
            }
        };
        work.stop_decoder().await;
        self.shared.next_session();
        work.end_follow();
        self.shared.set_slot(None);
        self.shared.keyframes_only.store(false, Ordering::Relaxed);
        self.shared.saving.store(false, Ordering::Relaxed);
        ended
    }
}

enum Ended {
    /// The stream is over.
    Over,
    /// To be begun anew, or switched off.
    Again,
}

enum Step {
    Settings,
    Model,
    Models,
    Clock,
    Question(Question),
    Answer(u64, Result<Option<Attribute>, String>),
    Decoder(InferenceError),
    Item(Option<HubItem>),
}

/// What a classifier says of an object. Many streams' are computed together, as the classifier can.
async fn classify(models: Models, question: Question) -> (u64, Result<Option<Attribute>, String>) {
    let Question { track, model, min_score, picture } = question;
    let ask = async {
        let model = models.get(&model)?;
        // The best one alone is asked for.
        let wanted = Wanted { threshold: Some(min_score), classes: Vec::new() };
        let seen = model.infer_with(Arc::new(picture), wanted).await?;
        let best = seen.detections.into_iter().max_by(|a, b| a.score.total_cmp(&b.score));
        Ok::<_, InferenceError>(best.map(|best| Attribute {
            model: seen.model,
            label: best.label,
            score: best.score,
        }))
    };
    let answer = ask.await.map_err(|error| format!("cascade: {error}"));
    (track, answer)
}

fn slot_settings(settings: &AnalysisSettings) -> SlotSettings {
    SlotSettings {
        wanted: Wanted { threshold: settings.threshold, classes: settings.classes.clone() },
        priority: settings.priority,
        motion: settings.motion.clone(),
        doubtful: settings.scene.tracking.as_ref().map(|tracking| tracking.doubtful),
    }
}

async fn decoder_error(decoder: &mut Option<Decoder>) -> InferenceError {
    match decoder {
        Some(decoder) => decoder.error().await,
        None => std::future::pending().await,
    }
}

/// The next item, once the decoder has room for it: what waits meanwhile is bounded by the reader's queue.
async fn next_step(reader: &mut HubReader, room: Option<Room>) -> Step {
    if let Some(room) = room
        && tokio::time::timeout(ROOM_TIMEOUT, room.wait()).await.is_err()
    {
        let problem = format!("the decoder has taken no frame for {ROOM_TIMEOUT:?}");
        return Step::Decoder(super::decode::failed(problem).into());
    }
    Step::Item(reader.next().await)
}

#[async_trait::async_trait]
impl Sink for Analysis {
    async fn run(&mut self, reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
        let hub = reader.hub();
        drop(reader);
        // It has one all its life.
        let _ = self.shared.hub.set(hub.clone());
        loop {
            let mut changes = self.shared.settings.subscribe();
            let enabled = changes.borrow_and_update().enabled;
            if !enabled {
                self.shared.stand(AnalysisState::Off, "not enabled");
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = hub.closed() => break,
                    _ = changes.changed() => continue,
                }
            }
            if let Ended::Over = self.session(&hub, &cancel).await {
                break;
            }
        }
        self.shared.stand(AnalysisState::Off, "the stream has ended");
        Ok(())
    }

    fn name(&self) -> String {
        "inference".into()
    }
}

#[cfg(test)]
mod tests;
