//! `/api/events`: what happens, by WebSocket or as server-sent events, and what a listener has missed: one that was cut off can go on
//! behind the last number that it has.

use super::ApiState;
use super::listen::{Line, Lines, listen};
use super::problem::Problem;
use super::query;
use crate::auth::Grant;
use crate::manager::{EventFilter, EventListener, Heard};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    stream: Option<String>,
    kind: Option<String>,
    after: Option<u64>,
}

pub(super) async fn events(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    request: Request,
) -> Result<Response, Problem> {
    let query: EventsQuery = query::parse(request.uri())?;
    let filter = EventFilter::new()
        .kinds(&query::names(query.kind.as_deref()))
        .map_err(|e| query::bad(format!("kind: {e}")))?;
    let streams = query::names(query.stream.as_deref());
    let filter = filter.streams(&streams).map_err(|e| query::bad(format!("stream: {e}")))?;
    let filter = if streams.is_empty() { filter } else { filter.only_streams() };
    let filter = filter.seen_by(grant);
    let after = query.after.or(last_event_id(request.headers())?);
    // From here on nothing is missed, however long the answer takes.
    let listener = state.manager.listen(filter, after);
    listen(&state, request, listener).await
}

/// What a browser sends when it connects again.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let id = value.to_str().ok().map(str::trim);
    match id {
        Some("") => Ok(None),
        Some(id) if id.parse::<u64>().is_ok() => Ok(id.parse().ok()),
        _ => {
            let detail = "Last-Event-ID is no number; expected the id of an event";
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_header", detail))
        }
    }
}

/// What a listener is told if events are no longer to be had.
fn missed(last: u64) -> String {
    serde_json::json!({"kind": "missed", "after": last}).to_string()
}

impl Lines for EventListener {
    async fn next(&mut self) -> Option<Line> {
        Some(match EventListener::next(self).await? {
            Heard::Event(entry) => Line { id: Some(entry.id), kind: entry.kind, json: entry.json },
            Heard::Missed => Line { id: None, kind: "missed".into(), json: missed(self.last()).into() },
        })
    }

    fn end(&self) -> &'static str {
        "the server is shutting down"
    }
}
