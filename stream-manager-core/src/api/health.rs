//! `/health`: for supervisors, load balancers and people.

use super::access::{Refused, authorize, authorize_for};
use super::problem::Problem;
use super::{ApiState, json, query};
use crate::auth::{Action, Subject};
use crate::event::StreamState;
use crate::health::{HealthReport, HealthStatus, StreamHealth, report};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

type Shared = State<Arc<ApiState>>;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/health/streams/{*id}", get(stream))
}

/// How the server is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    status: &'static str,
}

/// The loop turns: somebody has answered, and the watch says so, too.
async fn live(State(state): Shared) -> Response {
    let turns =
        state.options.watch.as_ref().is_none_or(|watch| watch.silence().is_none() || watch.is_turning());
    let (status, text) =
        if turns { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "failing") };
    json(status, &Health { status: text })
}

/// Whether requests are of any use, with reasons for those who may see everything.
async fn ready(State(state): Shared, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let _: query::Nothing = query::parse(&parts.uri)?;
    let mut report: HealthReport = report(&state.manager, state.options.watch.as_deref());
    if authorize_for(&state, &parts, Subject::Server, Action::ApiRead, "http").await.is_err() {
        report.components.iter_mut().for_each(|component| component.reason = None);
    }
    let status = match report.status {
        HealthStatus::Failing => StatusCode::SERVICE_UNAVAILABLE,
        HealthStatus::Ok | HealthStatus::Degraded => StatusCode::OK,
    };
    Ok(json(status, &report))
}

/// One stream: whether it can be had.
async fn stream(State(state): Shared, Path(id): Path<String>, request: Request) -> Result<Response, Refused> {
    let (parts, _) = request.into_parts();
    let _: query::Nothing = query::parse(&parts.uri)?;
    authorize(&state, &parts, &id, Action::ApiRead, "http").await?;
    let info = state.manager.info(&id).map_err(Problem::from)?;
    let standing = info.status().map(|status| status.state);
    let status = match info.state() {
        _ if info.problem.is_some() => HealthStatus::Failing,
        StreamState::Running | StreamState::Idle => HealthStatus::Ok,
        StreamState::Connecting => HealthStatus::Degraded,
        StreamState::Backoff | StreamState::Stopped => HealthStatus::Failing,
    };
    let reason = info.problem.clone().or_else(|| standing.as_ref().map(|s| s.reason.clone()));
    let health = StreamHealth {
        status,
        reason: reason.unwrap_or_else(|| info.state().name().to_owned()),
        since: standing.map(|s| s.since),
    };
    let code = if status == HealthStatus::Failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    Ok(json(code, &health))
}
