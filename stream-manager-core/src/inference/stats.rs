//! Where a model's time goes.

use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// Latencies that are remembered.
const REMEMBERED: usize = 1024;

/// What a model has done since it was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ModelStats {
    /// Pictures computed.
    pub pictures: u64,
    /// Batches they came in.
    pub batches: u64,
    /// Pictures that failed.
    pub errors: u64,
    /// Pictures in which nothing had moved.
    pub still: u64,
    /// Seconds that scaling and converting took.
    pub preprocess_secs: f64,
    /// Seconds that the model itself took.
    pub run_secs: f64,
    /// Seconds that making sense of its outputs took.
    pub postprocess_secs: f64,
    /// Seconds in which it was busy at all.
    pub busy_secs: f64,
    /// From a frame's arrival to its answer, the median of the last thousand.
    pub latency_p50_secs: Option<f64>,
    /// The same, 95 of 100 are faster.
    pub latency_p95_secs: Option<f64>,
}

/// The same while it is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) pictures: u64,
    pub(super) batches: u64,
    pub(super) errors: u64,
    pub(super) still: u64,
    pub(super) preprocess: Duration,
    pub(super) run: Duration,
    pub(super) postprocess: Duration,
    pub(super) busy: Duration,
    latencies: Vec<f32>,
    next: usize,
}

impl Counters {
    pub(super) fn latency(&mut self, latency: Duration) {
        let secs = latency.as_secs_f32();
        if self.latencies.len() < REMEMBERED {
            self.latencies.push(secs);
        } else {
            self.latencies[self.next] = secs;
        }
        self.next = (self.next + 1) % REMEMBERED;
    }

    pub(super) fn stats(&self) -> ModelStats {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f32::total_cmp);
        let part = |part: f64| {
            let last = sorted.len().checked_sub(1)?;
            sorted.get((last as f64 * part).round() as usize).map(|v| f64::from(*v))
        };
        ModelStats {
            pictures: self.pictures,
            batches: self.batches,
            errors: self.errors,
            still: self.still,
            preprocess_secs: self.preprocess.as_secs_f64(),
            run_secs: self.run.as_secs_f64(),
            postprocess_secs: self.postprocess.as_secs_f64(),
            busy_secs: self.busy.as_secs_f64(),
            latency_p50_secs: part(0.5),
            latency_p95_secs: part(0.95),
        }
    }
}
