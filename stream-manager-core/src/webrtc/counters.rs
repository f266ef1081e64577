//! A viewer's counters: its worker writes them, the list of sessions reads.

use crate::session::{SessionState, SessionStats};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A viewer's counters, which the list of sessions reads.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connected: AtomicBool,
    pub(super) bytes: AtomicU64,
    pub(super) packets: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) jitter_micros: AtomicU64,
    pub(super) round_trip_micros: AtomicU64,
    pub(super) line_bps: AtomicU64,
}

impl Counters {
    pub(super) fn stats(&self) -> SessionStats {
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let millis =
            |value: &AtomicU64| Some(get(value)).filter(|v| *v > 0).map(|micros| micros as f64 / 1000.0);
        SessionStats {
            state: SessionState::of(self.connected.load(Ordering::Relaxed)),
            bytes: get(&self.bytes),
            packets: get(&self.packets),
            dropped_frames: get(&self.dropped),
            queued_bytes: get(&self.queued),
            packets_lost: get(&self.lost),
            jitter_ms: millis(&self.jitter_micros),
            round_trip_ms: millis(&self.round_trip_micros),
            line_bps: Some(get(&self.line_bps)).filter(|bps| *bps > 0),
        }
    }
}
