//! The recorder: a sink that its handle starts, pauses, splits and stops.
//!
//! The sink reads the hub while it records or is paused and leaves the hub alone while it is off. The
//! writing itself is a [`SegmentWriter`]'s; what an error means is decided here: a server's recorder is
//! `blocked`, drops frames instead of holding anybody up, and tries again every two seconds, from the hub's
//! kept GOP on if that holds nothing that is recorded already, so that a camera with long GOPs need not wait
//! for its next keyframe; a one-shot recorder ends.
//!
//! **Pause to the frame**: every frame that reached the hub before the pause is written, none that reached
//! it inside. After the resume recording goes on with the first keyframe, since nothing before it could be
//! decoded.

use super::fmp4_writer::Fmp4Writer;
use super::gst_writer::GstWriter;
use super::handle::{Asked, Command, RecorderHandle, RecorderStatus, RecordingAction as Action, refused};
use super::mode::{Gate, RecordingTrigger, Verdict};
use super::pre_roll::PreRoll;
use super::progress::Shared;
use super::writer::SegmentWriter;
use super::{RecordError, RecorderContext, Recording, RecordingFormat, Segment};
use crate::event::{EventKind, RecordingState};
use crate::frame::{Frame, MediaKind, MediaTime, Track, WallTime};
use crate::hub::{Hub, HubItem, HubReader, Input, ReaderOptions, StartAt};
use crate::sink::{Sink, SinkError};
use crate::storage::index::GapReason;
use crate::trace::Origin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// For how many retries a blocked recorder waits for a keyframe that is not recorded yet. After that it begins
/// with one that is: some frames are then in two files, which is better than none in either.
const WAIT_FOR_KEYFRAME: u32 = 2;
/// A GOP that lasts longer is not waited for when a recording is started again.
const LONG_GOP: Duration = Duration::from_secs(10);
/// How long a recording that was stopped waits for the index.
const ENTERED_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of what waits for an event is taken at once.
const KEEP_AT_ONCE: Duration = Duration::from_millis(500);

/// The consuming end of a recorder.
pub struct RecorderSink {
    recording: Recording,
    context: RecorderContext,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    commands_open: bool,
    writer: Box<dyn SegmentWriter>,
    tracks: Option<Arc<[Track]>>,
    /// Whose frames come, and whether that is still to be marked.
    input: Input,
    marks: bool,
    retry_at: Option<Instant>,
    blocked_since: Option<Instant>,
    /// Blocked, but writing is being tried again.
    trying: bool,
    /// Frames that were dropped while blocked: up to the last keyframe, and since then.
    dropped: (u64, u64),
    /// Decoding time of the first recorded frame, for the limit.
    began: Option<MediaTime>,
    done: bool,
    gate: Gate,
    /// When it is to be looked whether it still is, or is again, time to record.
    look_at: Option<Instant>,
    pre_roll: PreRoll,
}

impl RecorderSink {
    /// A recorder and its handle. `start` says whether it records from the beginning or waits for
    /// [`Recorder::start`](super::Recorder::start).
    ///
    /// # Errors
    /// If the settings do not make sense.
    pub fn new(
        recording: Recording,
        context: RecorderContext,
        start: bool,
    ) -> Result<(RecorderHandle, Self), RecordError> {
        recording.check()?;
        let modes = &recording.modes;
        let (state, reason) = match (start, modes.waits()) {
            (false, _) => (RecordingState::Off, "not started"),
            (true, false) => (RecordingState::Recording, "configured"),
            (true, true) => (RecordingState::Waiting, "about to start"),
        };
        let status = RecorderStatus {
            state,
            reason: reason.into(),
            file: None,
            bytes: 0,
            duration_secs: 0.0,
            frames: 0,
            segments: 0,
            lost_frames: 0,
            last_error: None,
            last_segment: None,
            modes: modes.names(),
            pre_roll_bytes: 0,
        };
        let (gate, pre_roll) = (Gate::new(modes.clone()), modes.ring());
        let shared = Arc::new(Shared::new(status, &context));
        if start {
            shared.opening(&Origin::current());
        }
        let (sender, commands) = mpsc::channel(8);
        let writer = make_writer(&recording, &context, &shared);
        let sink = Self {
            recording,
            context,
            shared: shared.clone(),
            commands,
            commands_open: true,
            writer,
            tracks: None,
            input: Input::Main,
            marks: false,
            retry_at: None,
            blocked_since: None,
            trying: false,
            dropped: (0, 0),
            began: None,
            done: false,
            gate,
            look_at: None,
            pre_roll,
        };
        Ok((RecorderHandle { commands: sender, shared }, sink))
    }

    async fn item(&mut self, item: HubItem) -> Result<(), RecordError> {
        let state = self.shared.state();
        if state == RecordingState::Waiting {
            // It is looked at when it is recorded; until then it is only kept.
            self.pre_roll.push(item);
            self.shared.status.lock().pre_roll_bytes = self.pre_roll.bytes();
            return Ok(());
        }
        match item {
            HubItem::Tracks(tracks) => {
                self.tracks = Some(tracks.clone());
                if state != RecordingState::Blocked || self.trying {
                    self.writer.tracks(tracks).await?;
                }
            }
            HubItem::Input(input) => self.switched(input).await?,
            HubItem::Frame(_) if self.input == Input::Fallback && !self.recording.fallback => {}
            HubItem::Frame(frame) => match state {
                RecordingState::Paused => self.writer.paused_frame(&frame),
                RecordingState::Blocked if !self.trying => self.drop_frame(&frame),
                _ if self.over_limit(&frame) => {}
                _ => {
                    if std::mem::take(&mut self.marks) {
                        self.shared.ledger.switched(self.input, frame.wall_clock);
                    }
                    self.writer.frame(frame).await?;
                }
            },
            HubItem::Discontinuity => {
                self.writer.gap().await?;
                self.shared.interrupted(GapReason::Source, None);
            }
            HubItem::Lagged { frames, .. } => {
                let closed = self.writer.gap().await;
                // Said after the segment's end, whatever came of that.
                self.shared.interrupted(GapReason::DiskSlow, None);
                self.shared.lost(frames);
                self.shared.emit(EventKind::ConsumerLagged { consumer: self.name(), frames });
                closed?;
            }
        }
        Ok(())
    }

    /// From here on comes what stands in for the source, or the source again.
    async fn switched(&mut self, input: Input) -> Result<(), RecordError> {
        if std::mem::replace(&mut self.input, input) == input {
            return Ok(());
        }
        let state = self.shared.state();
        let closed = if state == RecordingState::Recording { self.writer.gap().await } else { Ok(()) };
        self.shared.interrupted(GapReason::Source, None);
        self.marks = self.recording.fallback;
        closed
    }

    /// Lets it begin paused.
    #[must_use]
    pub fn paused(self) -> Self {
        {
            let mut status = self.shared.status.lock();
            status.state = RecordingState::Paused;
            status.reason = "paused by request".into();
        }
        self
    }

    /// Lets it record whatever its modes say.
    #[must_use]
    pub fn by_hand(mut self) -> Self {
        self.gate.set_by_hand(true);
        self
    }

    /// Whether the frame lies beyond the recording's limit; ends the recording once the main track does.
    fn over_limit(&mut self, frame: &Frame) -> bool {
        let Some(limit) = self.recording.limit else { return false };
        let main = self.main_is_video() == frame.is_video();
        if main && frame.keyframe {
            self.began.get_or_insert(frame.dts);
        }
        let over = self.began.is_some_and(|began| frame.dts.saturating_since(began) >= limit);
        self.done |= over && main;
        over
    }

    fn main_is_video(&self) -> bool {
        self.tracks.iter().flat_map(|t| t.iter()).any(|t| t.parameters.kind() == MediaKind::Video)
    }

    fn drop_frame(&mut self, frame: &Frame) {
        if frame.keyframe && frame.is_video() == self.main_is_video() {
            self.shared.lost(std::mem::take(&mut self.dropped.1));
        }
        self.dropped.1 += 1;
    }

    /// Tries again, when it is time: with what the hub has kept, so that nothing more is lost than must be.
    fn try_again(&mut self, reader: &mut Option<HubReader>, hub: &Hub) {
        let now = Instant::now();
        if self.trying || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = Some(now + self.recording.retry_after / 8);
        let kept = hub.kept_since();
        let recorded = kept.zip(self.shared.media_end()).is_some_and(|((first, _), end)| first < end);
        let patience = self.recording.retry_after * WAIT_FOR_KEYFRAME;
        let waited = self.blocked_since.is_some_and(|since| now - since >= patience);
        if recorded && !waited {
            return;
        }
        // What is in the old queue is in the new one too, or lost.
        self.begin_reading();
        let old = reader.replace(hub.subscribe(self.name(), ReaderOptions::default()));
        for item in old.into_iter().flat_map(|mut old| std::iter::from_fn(move || old.try_next())) {
            if let HubItem::Frame(frame) = item {
                self.drop_frame(&frame);
            }
        }
        // What was dropped since the kept keyframe is recorded now. Without one (a GOP that is too large, or sound
        // alone) it is lost, and the next frame will do if it can.
        let dropped = std::mem::take(&mut self.dropped.1);
        if kept.is_none() {
            self.shared.lost(dropped);
        }
        self.trying = true;
        self.writer = make_writer(&self.recording, &self.context, &self.shared);
    }

    /// A new reader is told when it is not the source's frames that come.
    fn begin_reading(&mut self) {
        self.input = Input::Main;
        self.marks = false;
    }

    /// Reads from the kept GOP on, unless that is recorded already: then from the next keyframe on, if GOPs
    /// are so short that it is worth the wait.
    fn subscribe_again(&mut self, hub: &Hub) -> HubReader {
        self.begin_reading();
        let (kept, Some(end)) = (hub.kept_since(), self.shared.media_end()) else {
            return hub.subscribe(self.name(), ReaderOptions::default());
        };
        let recorded = kept.is_some_and(|(first, since)| first < end && since.elapsed() < LONG_GOP);
        let start = if recorded { StartAt::NextKeyframe } else { StartAt::KeptGop };
        hub.subscribe(self.name(), ReaderOptions { start, ..ReaderOptions::default() })
    }

    /// What an error means. `Err` if the recorder ends with it.
    async fn failed(&mut self, error: RecordError) -> Result<(), SinkError> {
        let problem = error.to_string();
        if !self.recording.retry {
            // What was written before the error is still worth having.
            let _ = self.writer.finish().await;
            self.shared.status.lock().last_error = Some(problem.clone());
            self.shared.set_state(RecordingState::Off, &problem);
            return Err(SinkError { sink: self.name(), problem });
        }
        if self.shared.state() != RecordingState::Blocked {
            tracing::warn!(stream = self.shared.ledger.stream(), %problem, "recording is blocked");
        }
        self.shared.interrupted(error.gap_reason(), None);
        self.shared.status.lock().last_error = Some(problem.clone());
        self.shared.set_state(RecordingState::Blocked, &problem);
        let now = Instant::now();
        self.blocked_since.get_or_insert(now);
        self.retry_at = Some(now + self.recording.retry_after);
        self.trying = false;
        // The old writer is dropped with its open file, which ends with a whole part.
        self.writer = make_writer(&self.recording, &self.context, &self.shared);
        Ok(())
    }

    async fn command(
        &mut self,
        action: Action,
        reader: &mut Option<HubReader>,
        hub: &Hub,
    ) -> Result<Option<Segment>, RecordError> {
        use RecordingState::{Blocked, Off, Paused, Recording, Waiting};
        let state = self.shared.state();
        match action {
            Action::Start => self.gate.set_by_hand(true),
            Action::Stop | Action::Auto => self.gate.set_by_hand(false),
            Action::Pause | Action::Resume | Action::Split => {}
        }
        match (action, state) {
            (Action::Start | Action::Auto, Off) => {
                *reader = Some(self.subscribe_again(hub));
                // What is kept of the stream comes before what begins now.
                let waits = self.recording.modes.waits() && action == Action::Auto;
                self.shared.set_state(if waits { Waiting } else { Recording }, "started by request");
                self.look(reader).await?;
            }
            (Action::Start | Action::Resume | Action::Auto, Paused) => {
                self.drain(reader).await?;
                self.writer.resume();
                self.shared.set_state(Recording, "resumed by request");
                self.look(reader).await?;
            }
            (Action::Pause, Recording | Blocked | Waiting) => {
                // What reached the hub before the pause belongs into the file.
                self.drain(reader).await?;
                if state == Waiting {
                    self.forget_pre_roll().await?;
                }
                self.writer.pause().await?;
                self.shared.interrupted(GapReason::Paused, None);
                self.shared.set_state(Paused, "paused by request");
            }
            (Action::Split, Recording) => self.writer.split(),
            (Action::Stop, Off) => return Ok(None),
            (Action::Stop, _) => {
                self.drain(reader).await?;
                *reader = None;
                let result = self.writer.finish().await;
                self.writer = make_writer(&self.recording, &self.context, &self.shared);
                self.forget_pre_roll().await?;
                self.shared.interrupted(GapReason::Stopped, None);
                self.shared.set_state(Off, "stopped by request");
                result?;
                entered(&self.context).await;
                return Ok(self.shared.status.lock().last_segment.clone());
            }
            // Asking for what is so already is no error.
            (Action::Start | Action::Resume | Action::Auto, Recording | Blocked | Waiting) => {
                self.look(reader).await?;
            }
            (Action::Pause, Paused) => {}
            (Action::Resume | Action::Pause | Action::Split, _) => return Err(refused(action, state)),
        }
        Ok(None)
    }

    /// Records, or no longer, if it is time to.
    async fn look(&mut self, reader: &mut Option<HubReader>) -> Result<(), RecordError> {
        use RecordingState::{Blocked, Recording, Waiting};
        let now = Instant::now();
        let verdict = self.gate.verdict(now, WallTime::now());
        self.look_at = self.gate.holds_until(now);
        match (verdict, self.shared.state()) {
            (Verdict::Record(reason), Waiting) => {
                // What has come until now comes before the event.
                self.drain(reader).await?;
                let kept = self.pre_roll.take();
                self.shared.status.lock().pre_roll_bytes = 0;
                self.shared.set_state(Recording, reason);
                for item in kept {
                    self.item(item).await?;
                }
            }
            (Verdict::Wait(reason), Recording | Blocked) => {
                self.drain(reader).await?;
                let finished = self.writer.finish().await;
                self.writer = make_writer(&self.recording, &self.context, &self.shared);
                self.shared.interrupted(GapReason::Waiting, None);
                self.shared.set_state(Waiting, reason);
                self.pre_roll.begin(self.tracks.clone(), self.input);
                finished?;
            }
            (Verdict::Wait(reason), Waiting) => self.shared.status.lock().reason = reason.to_owned(),
            _ => {}
        }
        Ok(())
    }

    /// What was kept is not recorded; only what the stream is, is remembered of it.
    async fn forget_pre_roll(&mut self) -> Result<(), RecordError> {
        for item in self.pre_roll.take() {
            match item {
                HubItem::Tracks(tracks) => {
                    self.tracks = Some(tracks.clone());
                    self.writer.tracks(tracks).await?;
                }
                HubItem::Input(input) => self.input = input,
                _ => {}
            }
        }
        self.shared.status.lock().pre_roll_bytes = 0;
        Ok(())
    }

    async fn trigger(
        &mut self,
        trigger: RecordingTrigger,
        reader: &mut Option<HubReader>,
    ) -> Result<(), RecordError> {
        let state = self.shared.state();
        if matches!(state, RecordingState::Off | RecordingState::Paused) {
            return Err(RecordError::State { action: "trigger", state: state.name() });
        }
        if !self.gate.trigger(Instant::now(), trigger.duration) {
            return Err(RecordError::NoEvents);
        }
        if !trigger.extends {
            self.shared.ledger.triggered(trigger);
        }
        self.look(reader).await
    }

    /// Takes what is waiting in the queue.
    async fn drain(&mut self, reader: &mut Option<HubReader>) -> Result<(), RecordError> {
        while let Some(item) = reader.as_mut().and_then(HubReader::try_next) {
            self.item(item).await?;
        }
        Ok(())
    }
}

/// Waits until what was recorded is in the index, so that whoever has stopped it finds it there; but not for long.
async fn entered(context: &RecorderContext) {
    let Some(index) = &context.index else { return };
    let entering = async {
        context.pool.caught_up().await;
        index.flush().await
    };
    match tokio::time::timeout(ENTERED_TIMEOUT, entering).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what was recorded is not in the index yet"),
        Err(_) => tracing::warn!(timeout = ?ENTERED_TIMEOUT, "what was recorded is not in the index yet"),
    }
}

fn make_writer(
    recording: &Recording,
    context: &RecorderContext,
    shared: &Arc<Shared>,
) -> Box<dyn SegmentWriter> {
    match recording.format {
        RecordingFormat::Fmp4 => {
            Box::new(Fmp4Writer::new(recording.clone(), context.clone(), shared.clone()))
        }
        _ => Box::new(GstWriter::new(recording.clone(), context.clone(), shared.clone())),
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn next_item(reader: &mut Option<HubReader>, next_write: Option<MediaTime>) -> Option<HubItem> {
    match reader {
        Some(reader) => reader.next_from(next_write).await,
        None => std::future::pending().await,
    }
}

#[async_trait::async_trait]
impl Sink for RecorderSink {
    async fn run(&mut self, reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
        let hub = reader.hub();
        let mut reader = (self.shared.state() != RecordingState::Off).then_some(reader);
        if self.shared.state() == RecordingState::Paused
            && let Err(error) = self.writer.pause().await
        {
            self.failed(error).await?;
        }
        if let Err(error) = self.look(&mut reader).await {
            self.failed(error).await?;
        }
        while !self.done {
            // Frames that only wait for their part to be complete, or for an event, need not wake anybody.
            let next_write = match self.shared.state() {
                RecordingState::Recording => self.writer.next_write(),
                RecordingState::Waiting => self.pre_roll.newest().map(|newest| newest + KEEP_AT_ONCE),
                _ => None,
            };
            let look_at = self.look_at.filter(|_| self.recording.modes.waits());
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                command = self.commands.recv(), if self.commands_open => match command {
                    None => self.commands_open = false,
                    Some(Command { asked, origin, answer }) => {
                        if matches!(asked, Asked::Action(Action::Start | Action::Resume | Action::Split) | Asked::Trigger(_)) {
                            self.shared.opening(&origin);
                        }
                        let action = match &asked {
                            Asked::Action(action) => Some(*action),
                            Asked::Trigger(_) => None,
                        };
                        let result = match asked {
                            Asked::Action(action) => self.command(action, &mut reader, &hub).await,
                            Asked::Trigger(trigger) => self.trigger(trigger, &mut reader).await.map(|()| None),
                        };
                        // The answer to a request that ran into an error is the error; the recorder lives on.
                        if let Err(error) = &result && !matches!(error, RecordError::State { .. } | RecordError::NoEvents) {
                            tracing::warn!(%error, ?action, "a recorder's command failed");
                        }
                        let _ = answer.send(result);
                    }
                },
                () = until(look_at), if look_at.is_some() => {
                    if let Err(error) = self.look(&mut reader).await {
                        self.failed(error).await?;
                    }
                }
                () = hub.closed(), if reader.is_none() => break,
                item = next_item(&mut reader, next_write) => {
                    let Some(item) = item else { break };
                    let result = self.item(item).await;
                    if result.is_ok() && self.shared.state() == RecordingState::Blocked {
                        if self.shared.status.lock().file.is_some() {
                            self.blocked_since = None;
                            self.trying = false;
                            self.shared.set_state(RecordingState::Recording, "writing again");
                        } else {
                            self.try_again(&mut reader, &hub);
                        }
                    }
                    if let Err(error) = result {
                        self.failed(error).await?;
                    }
                }
            }
        }
        if let Err(error) = self.drain(&mut reader).await {
            self.failed(error).await?;
        }
        drop(reader);
        let finished = self.writer.finish().await;
        if let Err(error) = &finished {
            let problem = error.to_string();
            self.shared.set_state(RecordingState::Off, &problem);
            self.shared.status.lock().last_error = Some(problem);
        }
        if !matches!(self.shared.state(), RecordingState::Off | RecordingState::Waiting) {
            self.shared.interrupted(GapReason::Shutdown, None);
        }
        let reason = if self.done { "the recording has its full length" } else { "the stream has ended" };
        self.shared.set_state(RecordingState::Off, reason);
        finished.map_err(|e| SinkError { sink: self.name(), problem: e.to_string() })
    }

    fn name(&self) -> String {
        "recorder".into()
    }
}
