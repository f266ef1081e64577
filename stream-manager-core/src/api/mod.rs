//! The REST control plane, as an [`axum::Router`] that can be mounted anywhere (feature `http`).
//!
//! | call | what it does |
//! |---|---|
//! | `POST /api/streams` | makes a stream and starts it; the body is a `[[streams]]` entry as JSON |
//! | `GET /api/streams?limit=&after=` | lists them: `{"items": […], "next": id or null}` |
//! | `GET /api/streams/{id}` | one stream: state and why, tracks, counters, recording |
//! | `DELETE /api/streams/{id}` | stops it, finishes its files; its recordings stay |
//! | `POST /api/streams/{id}/recording/{start,stop,pause,resume,split}` | controls its recording |
//! | `GET /api/streams/{id}/recordings?start=&end=&limit=&after=` | spans and gaps, joined over segments; `view=segments` gives the segments |
//! | `DELETE /api/streams/{id}/recordings?start=&end=` | deletes the segments that lie wholly in the range; `protected=true` also the protected ones |
//! | `POST /api/streams/{id}/recordings/{protect,unprotect}?start=&end=` | protects the segments that touch the range, or no longer does |
//! | `GET /api/streams/{id}/sessions?limit=&after=`, `GET /api/sessions`, `GET /api/sessions/{number}` | who reads and who publishes, with counters |
//! | `DELETE /api/sessions/{number}` | ends a session |
//! | `GET /api/storage` | the disks, what is on them, how long they will do |
//! | `GET /health/live`, `GET /health/ready` | for supervisors and load balancers |
//!
//! Errors are problem details (RFC 9457) with a stable `code`. An id may contain `/`.
//!
//! ```
//! # use stream_manager_core::{api, manager::StreamManager};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let manager = StreamManager::builder().build().await.unwrap();
//! let app: axum::Router = axum::Router::new().nest("/cameras", api::router(manager, api::ApiOptions::default()));
//! # });
//! ```

mod problem;
mod recordings;
mod server;
mod sessions;
mod streams;
mod view;

pub use problem::Problem;
pub use server::{ServeError, Server};
pub use view::{RecordingView, StreamView};

use crate::config::Defaults;
use crate::manager::StreamManager;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use std::sync::Arc;

/// The largest request body.
const MAX_BODY_BYTES: usize = 1 << 20;

/// What the API needs to know beside the manager.
#[derive(Clone, Debug, Default)]
pub struct ApiOptions {
    /// What holds for streams made through the API.
    pub defaults: Defaults,
}

/// What every handler has.
pub(crate) struct ApiState {
    pub(crate) manager: StreamManager,
    pub(crate) options: ApiOptions,
}

/// The routes of the control plane.
pub fn router(manager: StreamManager, options: ApiOptions) -> Router {
    let state = Arc::new(ApiState { manager, options });
    Router::new()
        .merge(streams::routes())
        .merge(sessions::routes())
        .route("/api/storage", get(recordings::storage))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

/// Readable JSON: most who see it see it in a terminal.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(body) {
        Ok(mut text) => {
            text.push('\n');
            (status, [("content-type", "application/json")], text).into_response()
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

async fn live() -> Response {
    json(StatusCode::OK, &Health { status: "ok" })
}

async fn ready(State(state): State<Arc<ApiState>>) -> Response {
    if state.manager.is_shut_down() {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the server is shutting down")
            .into_response();
    }
    json(StatusCode::OK, &Health { status: "ok" })
}

async fn no_route(uri: axum::http::Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, "no_such_path", format!("there is nothing at {path}"))
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not possible at {path}"),
    )
}

#[cfg(test)]
mod tests;
