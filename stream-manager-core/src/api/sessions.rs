//! `/api/sessions`: who reads and who publishes, and ending that.

use super::problem::Problem;
use super::{ApiState, json};
use crate::session::SessionInfo;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

type Shared = State<Arc<ApiState>>;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/api/sessions", get(list_all)).route("/api/sessions/{id}", get(show).delete(kick))
}

/// Which part of a list.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    limit: Option<usize>,
    after: Option<u64>,
}

#[derive(Serialize)]
struct Page {
    items: Vec<SessionInfo>,
    next: Option<String>,
}

async fn list_all(
    State(state): Shared,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) =
        query.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "invalid_query", e.body_text()))?;
    list(&state, &query, None)
}

/// The sessions of one stream, or all.
pub(super) fn list(state: &ApiState, query: &PageQuery, stream: Option<&str>) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let detail = format!("limit is {limit}; expected 1 to {MAX_LIMIT}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail));
    }
    let after = query.after.unwrap_or(0);
    let mut sessions = state
        .manager
        .sessions()
        .list()
        .into_iter()
        .filter(|s| s.id > after && stream.is_none_or(|stream| *s.stream == *stream));
    let items: Vec<SessionInfo> = sessions.by_ref().take(limit).collect();
    let next = items.last().filter(|_| sessions.next().is_some()).map(|s| s.id.to_string());
    Ok(json(StatusCode::OK, &Page { items, next }))
}

fn number(id: &str) -> Result<u64, Problem> {
    id.parse().map_err(|_| no_such(id))
}

fn no_such(id: &str) -> Problem {
    let id: String = id.chars().take(40).collect();
    Problem::new(StatusCode::NOT_FOUND, "session_not_found", format!("there is no session \"{id}\""))
}

async fn show(State(state): Shared, Path(id): Path<String>) -> Result<Response, Problem> {
    let session = state.manager.sessions().get(number(&id)?).ok_or_else(|| no_such(&id))?;
    Ok(json(StatusCode::OK, &session))
}

async fn kick(State(state): Shared, Path(id): Path<String>) -> Result<Response, Problem> {
    if state.manager.sessions().kick(number(&id)?) {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(no_such(&id))
    }
}
