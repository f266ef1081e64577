//! `/api/streams`: make, list, look at, remove, and control their recordings.

use super::problem::Problem;
use super::recordings::{self, RecordingsQuery};
use super::sessions::{self, PageQuery};
use super::view::{RecordingView, StreamView};
use super::{ApiState, json};
use crate::config::{StreamConfig, explain};
use crate::manager::stream_from_config;
use crate::recording::Recorder;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Streams on a page if the caller does not say.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

type Shared = State<Arc<ApiState>>;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/api/streams", get(list).post(create))
        // An id may contain slashes, so what follows it is told apart in the handlers.
        .route("/api/streams/{*path}", get(show).delete(remove).post(act))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Serialize)]
struct Page {
    items: Vec<StreamView>,
    next: Option<String>,
}

async fn list(
    State(state): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) =
        query.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "invalid_query", e.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let detail = format!("limit is {limit}; expected 1 to {MAX_LIMIT}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail));
    }
    let after = query.after.unwrap_or_default();
    let mut streams = state
        .manager
        .streams()
        .into_iter()
        .skip_while(|s| !after.is_empty() && s.id().as_str() <= after.as_str());
    let items: Vec<StreamView> = streams.by_ref().take(limit).map(|s| s.status().into()).collect();
    let last = items.len().checked_sub(1);
    let next = if streams.next().is_some() { last.map(|i| items[i].id().to_owned()) } else { None };
    Ok(json(StatusCode::OK, &Page { items, next }))
}

async fn create(
    State(state): Shared,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let config: StreamConfig = parse_body(&headers, body)?;
    if config.source_url.trim_start().starts_with("gst:") {
        // A launch line can read and write any file: that is for who may edit the configuration.
        let detail = "gst: sources can only be configured in the file, not through the API";
        return Err(
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_stream", detail).at("/source_url")
        );
    }
    let stream = stream_from_config(&config, &state.options.defaults)?;
    let handle = state.manager.add_stream(stream)?;
    let mut response = json(StatusCode::CREATED, &StreamView::from(handle.status()));
    if let Ok(location) = format!("/api/streams/{}", handle.id()).parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The stream's id, if a path asks for its recordings. A stream whose id ends like that comes first.
fn recordings_of<'a>(state: &Arc<ApiState>, path: &'a str) -> Option<&'a str> {
    path.strip_suffix("/recordings").filter(|_| state.manager.stream(path).is_err())
}

fn query_of(query: Result<Query<RecordingsQuery>, QueryRejection>) -> Result<RecordingsQuery, Problem> {
    let invalid = |e: QueryRejection| Problem::new(StatusCode::BAD_REQUEST, "invalid_query", e.body_text());
    query.map(|Query(query)| query).map_err(invalid)
}

async fn show(
    State(state): Shared,
    Path(path): Path<String>,
    uri: axum::http::Uri,
    query: Result<Query<RecordingsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    if let Some(id) = path.strip_suffix("/sessions").filter(|_| state.manager.stream(&path).is_err()) {
        let handle = state.manager.stream(id)?;
        let Query(page) = Query::<PageQuery>::try_from_uri(&uri)
            .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "invalid_query", e.body_text()))?;
        return sessions::list(&state, &page, Some(handle.id().as_str()));
    }
    if let Some(id) = recordings_of(&state, &path) {
        return recordings::list(&state, id, &query_of(query)?).await;
    }
    let handle = state.manager.stream(&path)?;
    Ok(json(StatusCode::OK, &StreamView::from(handle.status())))
}

async fn remove(
    State(state): Shared,
    Path(path): Path<String>,
    query: Result<Query<RecordingsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    if let Some(id) = recordings_of(&state, &path) {
        return recordings::delete(&state, id, &query_of(query)?).await;
    }
    state.manager.remove_stream(&path).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn act(
    State(state): Shared,
    Path(path): Path<String>,
    query: Result<Query<RecordingsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let no_such = || {
        let detail = "POST here takes a path that ends in /recording/start, stop, pause, resume or split, or in \
            /recordings/protect or unprotect";
        Problem::new(StatusCode::NOT_FOUND, "no_such_path", detail)
    };
    let (front, action) = path.rsplit_once('/').ok_or_else(no_such)?;
    if let (Some(id), "protect" | "unprotect") = (front.strip_suffix("/recordings"), action) {
        return recordings::protect(&state, id, &query_of(query)?, action == "protect").await;
    }
    let id = front.strip_suffix("/recording").ok_or_else(no_such)?;
    let handle = state.manager.stream(id)?;
    let recorder = handle.recorder();
    match action {
        "start" => recorder.start().await?,
        "stop" => drop(recorder.stop().await?),
        "pause" => recorder.pause().await?,
        "resume" => recorder.resume().await?,
        "split" => recorder.split().await?,
        _ => return Err(no_such()),
    }
    Ok(json(StatusCode::OK, &RecordingView::from(recorder.status())))
}

/// Reads a JSON body and says precisely what is wrong with it.
fn parse_body<T: for<'a> Deserialize<'a>>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), "invalid_body", e.body_text()))?;
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    let mime = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // The second is what curl sends with -d unless told otherwise.
    if !matches!(mime.as_str(), "application/json" | "application/x-www-form-urlencoded") {
        let detail = format!("the content type is {mime}; expected application/json");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(&body);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer: String = error.path().iter().map(|s| format!("/{s}")).collect();
        let inner = error.into_inner();
        if inner.is_data() {
            let text = inner.to_string();
            let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(m, _)| m);
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", explain(message));
            if pointer.is_empty() || pointer == "/." { problem } else { problem.at(pointer) }
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the body is no JSON: {inner}"))
        }
    })?;
    deserializer.end().map_err(|e| {
        Problem::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the body is no JSON: {e}"))
    })?;
    Ok(value)
}
