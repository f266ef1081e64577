//! `/api/streams/<id>/stats`: what a stream did in the last minutes.

use super::problem::Problem;
use super::query;
use super::{ApiState, json};
use crate::manager::Sample;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// What a stream did in the last minutes.
#[derive(Serialize, JsonSchema)]
pub(super) struct StatsView {
    id: Arc<str>,
    frames: u64,
    bytes: u64,
    keyframes: u64,
    packets_lost: u64,
    /// Connections to the source since the stream was made.
    connections: u64,
    /// The kept GOP.
    gop_frames: usize,
    gop_bytes: usize,
    /// For how long no frame has come, in seconds.
    silence_secs: Option<f64>,
    /// How far apart the samples are, in seconds.
    interval_secs: f64,
    /// Oldest first, of the last ten minutes.
    history: Vec<Sample>,
}

/// Counters since the beginning, and samples of the last minutes.
pub(super) fn stats(state: &ApiState, id: &str, uri: &Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(uri)?;
    let info = state.manager.info(id)?;
    let stats = info.handle().map(|h| h.hub().stats());
    let count = |value: fn(&crate::hub::HubStats) -> u64| stats.as_ref().map_or(0, value);
    let view = StatsView {
        frames: count(|s| s.frames),
        bytes: count(|s| s.bytes),
        keyframes: count(|s| s.keyframes),
        packets_lost: count(|s| s.packets_lost),
        connections: count(|s| s.sessions),
        gop_frames: stats.as_ref().map_or(0, |s| s.gop_frames),
        gop_bytes: stats.as_ref().map_or(0, |s| s.gop_bytes),
        silence_secs: info.handle().and_then(|h| h.hub().silence()).map(|d| d.as_secs_f64()),
        interval_secs: crate::manager::SAMPLE_INTERVAL.as_secs_f64(),
        history: info.handle().map(crate::manager::StreamHandle::history).unwrap_or_default(),
        id: info.id,
    };
    Ok(json(StatusCode::OK, &view))
}
