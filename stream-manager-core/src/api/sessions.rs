//! `/api/sessions`: who reads and who publishes, and ending that.

use super::problem::Problem;
use super::{ApiState, json, query};
use crate::auth::{Action, Grant};
use crate::session::SessionInfo;
use axum::Router;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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

/// A page of sessions.
#[derive(Serialize, JsonSchema)]
pub(super) struct SessionPage {
    items: Vec<SessionInfo>,
    /// What `after` has to be for the next page; none on the last.
    next: Option<String>,
}

/// How many sessions were ended.
#[derive(Serialize, JsonSchema)]
pub(super) struct Ended {
    ended: usize,
}

/// Ends all sessions of a stream.
pub(super) fn kick_all(state: &ApiState, stream: &str) -> Ended {
    Ended { ended: state.manager.sessions().kick_stream(stream) }
}

async fn list_all(
    State(state): Shared,
    Extension(grant): Extension<Grant>,
    uri: Uri,
) -> Result<Response, Problem> {
    list(&state, &query::parse(&uri)?, |stream| grant.may(Action::ApiRead, Some(stream)))
}

/// The sessions of some streams.
pub(super) fn list(
    state: &ApiState,
    query: &PageQuery,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Response, Problem> {
    let limit = query::limit(query.limit)?;
    let after = query.after.unwrap_or(0);
    let mut sessions =
        state.manager.sessions().list().into_iter().filter(|s| s.id > after && is_wanted(&s.stream));
    let items: Vec<SessionInfo> = sessions.by_ref().take(limit).collect();
    let next = items.last().filter(|_| sessions.next().is_some()).map(|s| s.id.to_string());
    Ok(json(StatusCode::OK, &SessionPage { items, next }))
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
