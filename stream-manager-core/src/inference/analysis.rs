//! A stream's analysis: a sink that decodes what is needed and no more, and hands pictures to a model.
//!
//! It reads the hub only while it is on. When so few pictures are wanted that keyframes are enough, nothing else is
//! decoded. What its model sees is told to whoever listens, and as an event when it is something else than before.

mod handle;
mod shared;
mod thrift;
mod work;

use super::decode::{Decoder, Room};
use super::follow::{Follow, Question};
use super::models::{Model, Models};
use super::scheduler::{Slot, SlotSettings, SlotStats};
use super::{InferenceError, Wanted};
use crate::config::AnalysisSettings;
use crate::detection::Detections;
use crate::event::EventSender;
use crate::frame::{CodecParameters, DataCodec, DataParameters, WallTime};
use crate::hub::{Hub, HubItem, HubReader, QueueLimits, ReaderOptions};
use crate::object::{Attribute, ObjectLog};
use crate::sink::{Sink, SinkError};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use work::Work;

pub use handle::{AnalysisHandle, AnalysisState, AnalysisStatus};

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
