//! What an analysis does with each item that it reads: which frames are decoded, by what, and when that fails.

use super::thrift::Thrift;
use super::{AnalysisState, Shared, slot_settings};
use crate::config::AnalysisSettings;
use crate::frame::{CodecParameters, Frame, MediaKind, MediaTime};
use crate::hub::{HubItem, Input};
use crate::inference::InferenceError;
use crate::inference::decode::{Decoder, Pace};
use crate::inference::follow::{Follow, Question};
use crate::inference::models::ModelState;
use crate::inference::plan::ModelPlan;
use crate::inference::scheduler::Slot;
use crate::object::Attribute;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long after a decoder has failed it is tried again.
const DECODER_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How far apart keyframes are.
#[derive(Default)]
struct Keyframes {
    last: Option<MediaTime>,
    distance: Option<Duration>,
}

impl Keyframes {
    fn see(&mut self, frame: &Frame) {
        if !frame.keyframe {
            return;
        }
        if let Some(last) = self.last {
            let distance = frame.pts.saturating_since(last);
            // The longest of late: an encoder puts in further ones at cuts.
            self.distance = Some(self.distance.map_or(distance, |d| distance.max(d.mul_f64(0.9))));
        }
        self.last = Some(frame.pts);
    }

    /// Whether so many pictures in a second are had from keyframes alone.
    fn are_enough(&self, per_second: f64) -> bool {
        self.distance.is_some_and(|d| !d.is_zero() && d.as_secs_f64() <= 1.05 / per_second)
    }
}

pub(super) struct Work {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    questions: mpsc::Sender<Question>,
    pace: Arc<Mutex<Pace>>,
    pub(super) settings: AnalysisSettings,
    pub(super) decoder: Option<Decoder>,
    /// What the decoder was made for.
    parameters: Option<Arc<CodecParameters>>,
    /// When the decoder failed, and how often.
    failed: Option<(Instant, u32)>,
    waits_for_keyframe: bool,
    /// Whose pictures come.
    input: Input,
    keyframes: Keyframes,
    thrift: Thrift,
    /// Whether the stream has video, as far as is known.
    video: bool,
}

impl Work {
    pub(super) fn new(
        shared: Arc<Shared>,
        slot: Arc<Slot>,
        settings: AnalysisSettings,
        questions: mpsc::Sender<Question>,
    ) -> Self {
        let pace = Arc::new(Mutex::new(Pace::new(settings.max_fps)));
        Self {
            shared,
            slot,
            questions,
            pace,
            settings,
            decoder: None,
            parameters: None,
            failed: None,
            waits_for_keyframe: true,
            input: Input::Main,
            keyframes: Keyframes::default(),
            thrift: Thrift::new(Instant::now()),
            video: true,
        }
    }

    pub(super) fn set(&mut self, settings: AnalysisSettings) {
        self.slot.set(slot_settings(&settings));
        self.pace.lock().set(settings.max_fps);
        let mut follow = self.shared.follow.lock();
        match &mut *follow {
            Some(held) if settings.scene.tracking.is_some() => held.configure(&settings.scene),
            Some(held) => {
                self.shared.tell(held.end());
                *follow = None;
            }
            None => *follow = Follow::new(&settings.scene, Some(self.questions.clone())),
        }
        drop(follow);
        self.settings = settings;
    }

    pub(super) fn look_at_classes(&self, plan: Option<&ModelPlan>) {
        if let (Some(follow), Some(plan)) = (&mut *self.shared.follow.lock(), plan) {
            follow.look_at_classes(&plan.labels);
        }
    }

    pub(super) fn look_at_clock(&self) {
        let still = self.shared.stats().still;
        if let Some(follow) = &mut *self.shared.follow.lock() {
            self.shared.tell(follow.look_at_clock(still));
        }
    }

    pub(super) fn answer(&self, track: u64, answer: Result<Option<Attribute>, String>) {
        if let Some(follow) = &mut *self.shared.follow.lock() {
            follow.answer(track, answer);
        }
    }

    pub(super) fn end_follow(&self) {
        if let Some(mut follow) = self.shared.follow.lock().take() {
            self.shared.tell(follow.end());
        }
    }

    pub(super) fn model_stands(&self, state: ModelState, reason: &str) {
        match state {
            ModelState::Loading => self.shared.stand(AnalysisState::Starting, reason),
            ModelState::Failed => self.shared.stand(AnalysisState::Blocked, reason),
            ModelState::Ready if self.decoder.is_some() || !self.video => {}
            ModelState::Ready => self.shared.stand(AnalysisState::Starting, "waiting for the first picture"),
        }
    }

    pub(super) async fn item(&mut self, item: HubItem) {
        match item {
            // A picture that stands in for the stream's is none of the stream.
            HubItem::Frame(_) if self.input == Input::Fallback => {}
            HubItem::Frame(frame) => self.frame(&frame).await,
            HubItem::Input(input) => {
                self.input = input;
                self.waits_for_keyframe = true;
            }
            HubItem::Discontinuity | HubItem::Lagged { .. } => self.waits_for_keyframe = true,
            HubItem::Tracks(tracks) => {
                self.waits_for_keyframe = true;
                self.video =
                    tracks.is_empty() || tracks.iter().any(|t| t.parameters.kind() == MediaKind::Video);
                if !self.video {
                    self.shared.stand(AnalysisState::Blocked, "the stream has no video");
                }
            }
        }
    }

    async fn frame(&mut self, frame: &Frame) {
        if !frame.is_video() {
            return;
        }
        self.keyframes.see(frame);
        if self.waits_for_keyframe && !frame.keyframe {
            return;
        }
        let are_enough = self.keyframes.are_enough(self.settings.max_fps);
        let saves = !are_enough && self.saves(frame.keyframe);
        let only = are_enough || saves;
        self.shared.keyframes_only.store(only, Ordering::Relaxed);
        self.shared.saving.store(saves, Ordering::Relaxed);
        if only && !frame.keyframe {
            // Decoding goes on with the next one.
            self.waits_for_keyframe = true;
            return;
        }
        if only && !self.pace_allows(frame) {
            return;
        }
        if self.parameters.as_ref().is_none_or(|p| **p != *frame.parameters) && frame.keyframe {
            self.stop_decoder().await;
        }
        if self.decoder.is_none() {
            if !frame.keyframe || self.rests() {
                self.waits_for_keyframe = true;
                return;
            }
            self.start_decoder(frame).await;
        }
        let Some(decoder) = &mut self.decoder else { return };
        self.waits_for_keyframe = false;
        self.shared.decoded.fetch_add(1, Ordering::Relaxed);
        decoder.push(frame, only);
    }

    /// Whether the model gets round to so few pictures that only keyframes are worth decoding.
    fn saves(&mut self, keyframe: bool) -> bool {
        let stats = self.slot.stats();
        self.thrift.saves(Instant::now(), keyframe, stats.offered.saturating_sub(stats.replaced))
    }

    /// Keyframes more often than pictures are wanted are not decoded in vain. The pace itself is kept behind the
    /// decoder; this only leaves out what it would.
    fn pace_allows(&self, frame: &Frame) -> bool {
        self.pace.lock().would_want(frame.pts)
    }

    fn rests(&self) -> bool {
        self.failed.is_some_and(|(at, times)| {
            let wait = DECODER_RETRY.0 * 2u32.saturating_pow(times.min(8));
            at.elapsed() < wait.min(DECODER_RETRY.1)
        })
    }

    async fn start_decoder(&mut self, frame: &Frame) {
        let (slot, pace) = (self.slot.clone(), self.pace.clone());
        match Decoder::start(&frame.parameters, pace, move |picture| slot.offer(picture)).await {
            Ok(decoder) => {
                self.decoder = Some(decoder);
                self.parameters = Some(frame.parameters.clone());
            }
            Err(error) => self.decoder_failed(&error).await,
        }
    }

    pub(super) async fn decoder_failed(&mut self, error: &InferenceError) {
        self.stop_decoder().await;
        let times = self.failed.map_or(0, |(at, times)| {
            // One that has worked for a while begins anew.
            if at.elapsed() > DECODER_RETRY.1 * 2 { 0 } else { times + 1 }
        });
        self.failed = Some((Instant::now(), times));
        self.waits_for_keyframe = true;
        self.shared.stand(AnalysisState::Blocked, format!("decoding: {error}"));
    }

    pub(super) async fn stop_decoder(&mut self) {
        self.parameters = None;
        if let Some(decoder) = self.decoder.take() {
            decoder.stop().await;
        }
    }
}
