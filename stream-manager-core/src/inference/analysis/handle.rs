//! A stream's analysis from outside: what it is told, and what it says of itself.

use super::Shared;
use crate::config::AnalysisSettings;
use crate::detection::Detections;
use crate::frame::WallTime;
use crate::inference::follow::Follow;
use crate::inference::scene::SceneStatus;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

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

/// A stream's analysis from outside. Clones are handles to the same one.
#[derive(Clone)]
pub struct AnalysisHandle {
    pub(super) shared: Arc<Shared>,
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
