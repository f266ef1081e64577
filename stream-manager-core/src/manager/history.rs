//! What a stream did in the last minutes: a sample every few seconds.

use super::StreamHandle;
use crate::frame::{MediaKind, WallTime};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a sample is taken.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// Samples that are kept: ten minutes.
const LENGTH: usize = 120;

/// What came in within a few seconds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct Sample {
    /// When they were over.
    pub time: WallTime,
    /// Bits per second.
    pub bitrate_bps: f64,
    /// Frames of video per second; of all tracks if there is none.
    pub frame_rate: f64,
    /// Packets lost.
    pub packets_lost: u64,
    /// Consumers, such as readers and recorders.
    pub consumers: usize,
}

/// The samples of one stream.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    last: Option<Counters>,
}

#[derive(Clone, Copy, Debug)]
struct Counters {
    at: Instant,
    frames: u64,
    bytes: u64,
    lost: u64,
}

impl StreamHandle {
    /// Takes a sample.
    pub(super) fn sample(&self) {
        let stats = self.hub().stats();
        let consumers = self.hub().consumers().len();
        let video = self.hub().tracks().iter().any(|t| t.parameters.kind() == MediaKind::Video);
        let now = Counters {
            at: Instant::now(),
            frames: if video { stats.video_frames } else { stats.frames },
            bytes: stats.bytes,
            lost: stats.packets_lost,
        };
        let mut history = self.shared.history.lock();
        if let Some(last) = history.last {
            let secs = (now.at - last.at).as_secs_f64().max(1e-3);
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / secs;
            let sample = Sample {
                time: WallTime::now(),
                bitrate_bps: (rate(now.bytes, last.bytes) * 8.0).round(),
                frame_rate: (rate(now.frames, last.frames) * 100.0).round() / 100.0,
                packets_lost: now.lost.saturating_sub(last.lost),
                consumers,
            };
            if history.samples.len() == LENGTH {
                history.samples.pop_front();
            }
            history.samples.push_back(sample);
        }
        history.last = Some(now);
    }

    /// What it did in the last ten minutes, oldest first.
    pub fn history(&self) -> Vec<Sample> {
        self.shared.history.lock().samples.iter().copied().collect()
    }

    /// The latest sample.
    pub fn latest_sample(&self) -> Option<Sample> {
        self.shared.history.lock().samples.back().copied()
    }
}
