//! The REST control plane, as an [`axum::Router`] that can be mounted anywhere (feature `http`).
//!
//! All calls with their parameters, bodies and answers are in [`openapi`], which is served as `/api/openapi.json` and, for
//! people, as `/api/docs`. The main ones:
//!
//! | call | what it does |
//! |---|---|
//! | `GET/POST /api/streams`, `GET/PUT/PATCH/DELETE /api/streams/{id}`, `POST /api/streams:batch` | streams |
//! | `POST /api/streams/{id}/{enable,disable,restart}`, `…/recording/{start,stop,pause,resume,split}` | what they do |
//! | `GET /api/streams/{id}/{stats,sessions,recordings}` | what they did |
//! | `GET/PATCH /api/config`, `POST /api/config/reload`, `GET /api/config/status` | settings |
//! | `…/inference`, `GET /api/models`, `POST /api/infer` | what is seen (feature `inference`) |
//! | `GET /api/events` | what happens, by WebSocket or server-sent events |
//! | `/api/{setup,login,me,users,tokens,audit}`, `POST /api/streams/{id}/sign` | who may do what |
//! | `GET/POST /api/backups` | what is put by |
//! | `GET /api/{sessions,storage,system,logs,hooks}`, `POST /api/{discover,probe}` | the rest |
//! | `GET /hls/{id}/index.m3u8`, `/dash/{id}/manifest.mpd`, `/api/streams/{id}/live.mp4` | for players (feature `hls`) |
//! | `POST /webrtc/{id}/whep`, `GET /webrtc/{id}` | WebRTC, and a page that plays by it (feature `webrtc`) |
//! | `GET /health/live`, `GET /health/ready` | for supervisors and load balancers |
//! | `GET /metrics` | for Prometheus |
//! | `GET /` | the page for people |
//!
//! Errors are problem details (RFC 9457) with a stable `code`. An id may contain `/`. What is there stays: later versions
//! only add calls, optional parameters, fields and codes.
//!
//! ```
//! # use stream_manager_core::{api, manager::StreamManager};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let manager = StreamManager::builder().build().await.unwrap();
//! let app: axum::Router = axum::Router::new().nest("/cameras", api::router(manager, api::ApiOptions::default()));
//! # });
//! ```

mod access;
mod accounts;
mod backups;
mod batch;
mod body;
mod cors;
#[cfg(feature = "onvif")]
mod discover;
mod events;
mod exports;
mod file;
mod guard;
mod health;
mod idempotency;
#[cfg(feature = "inference")]
mod inference;
mod listen;
mod lists;
mod logs;
mod marks;
mod metrics;
mod objects;
pub mod openapi;
mod page;
mod pictures;
mod playback;
#[cfg(feature = "hls")]
mod players;
mod ports;
mod problem;
mod proxy;
mod query;
mod recordings;
mod routes;
#[cfg(feature = "inference")]
mod seen;
mod server;
mod session_cookie;
mod sessions;
mod settings;
mod statistics;
mod streams;
mod system;
mod target;
mod trace;
mod view;
#[cfg(feature = "webrtc")]
mod webrtc;
mod websocket;

pub use crate::tls::TlsFiles;
pub use ports::ServedPorts;
pub use problem::Problem;
pub use server::{ConnectionLimits, ServeError, Server};
pub use view::{RecordingView, StreamView};
#[cfg(feature = "webrtc")]
pub use webrtc::ServedWebRtc;

use crate::hooks::Hooks;
use crate::logs::LogRing;
use crate::manager::StreamManager;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Listeners to events at one time.
const MAX_LISTENERS: usize = 1000;
/// Addresses that are looked at at one time.
const MAX_PROBES: usize = 4;

/// What the API needs to know beside the manager.
#[derive(Clone, Default)]
pub struct ApiOptions {
    /// The lines of the log that can be asked for.
    pub logs: Option<LogRing>,
    /// The hooks that can be looked at and tested.
    pub hooks: Option<Hooks>,
    /// Where streams can be had.
    pub ports: ServedPorts,
    /// What answers WebRTC offers, if anything does.
    #[cfg(feature = "webrtc")]
    pub webrtc: ServedWebRtc,
    /// Decides who may do what. Everybody everything, if there is none.
    pub authorizer: Option<Arc<dyn crate::auth::Authorizer>>,
    /// The server's own users, which can be looked at and changed, if it has any. They are an authorizer, too.
    pub users: Option<Arc<crate::auth::Users>>,
    /// The code by which the first user may be made from elsewhere.
    pub setup: Option<Arc<crate::auth::SetupCode>>,
    /// Where answers are counted, for those who look at that elsewhere, too.
    pub requests: crate::metrics::Requests,
    /// What watches the runtime, if anything does.
    pub watch: Option<Arc<crate::health::LoopWatch>>,
    /// Cancelled when the server ends: answers without an end end then.
    pub closing: CancellationToken,
}

/// What every handler has.
pub(crate) struct ApiState {
    pub(crate) manager: StreamManager,
    pub(crate) options: ApiOptions,
    #[cfg(feature = "hls")]
    pub(crate) viewers: Arc<players::Viewers>,
    listeners: Arc<Semaphore>,
    probes: Semaphore,
    lists: lists::Lists,
    in_progress: idempotency::InProgress,
    requests: crate::metrics::Requests,
    /// Tasks behind answers that go on; each ends with its answer.
    tasks: TaskTracker,
}

impl ApiState {
    /// A place among those that look at other machines, for as long as it is held.
    fn probe_place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
        self.probes.try_acquire().map_err(|_| {
            let detail = "too many addresses are being looked at; try again in a few seconds";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_probes", detail)
        })
    }
}

/// The routes of the control plane.
pub fn router(manager: StreamManager, options: ApiOptions) -> Router {
    let requests = options.requests.clone();
    let state = Arc::new(ApiState {
        manager,
        options,
        #[cfg(feature = "hls")]
        viewers: Arc::default(),
        listeners: Arc::new(Semaphore::new(MAX_LISTENERS)),
        probes: Semaphore::new(MAX_PROBES),
        lists: lists::Lists::default(),
        in_progress: idempotency::InProgress::default(),
        requests,
        tasks: TaskTracker::new(),
    });
    let router = Router::new();
    #[cfg(feature = "inference")]
    let router = router.merge(inference::routes());
    #[cfg(feature = "onvif")]
    let router = router.merge(discover::routes());
    let router = router
        .merge(streams::routes())
        .merge(sessions::routes())
        .merge(settings::routes())
        .merge(system::routes())
        .merge(openapi::routes())
        .merge(exports::routes())
        .merge(backups::routes())
        .merge(accounts::routes())
        .merge(objects::routes())
        .route("/api/storage", get(recordings::storage))
        .route("/api/marks", get(marks::search))
        .route("/api/logs", get(logs::logs))
        .route("/api/events", get(events::events))
        .route("/metrics", get(metrics::metrics))
        .merge(health::routes())
        .merge(page::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(state.clone(), idempotency::layer))
        .layer(axum::middleware::from_fn(body::read))
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::layer))
        .layer(axum::middleware::map_response(secure));
    // Behind the layers: players' requests have no bodies, and their answers are kept by caches.
    #[cfg(feature = "hls")]
    let router = router.merge(players::routes());
    #[cfg(feature = "webrtc")]
    let router = router.merge(webrtc::routes());
    router
        .layer(axum::middleware::from_fn_with_state(state.clone(), proxy::layer))
        .layer(axum::middleware::from_fn_with_state(state.clone(), trace::layer))
        .with_state(state)
}

/// No answer is anything else than it says, is kept by anybody, or shown inside another page.
async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
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

/// What has been begun, and where it can be watched.
fn accepted(begun: &impl Serialize, location: &str) -> Response {
    let mut response = json(StatusCode::ACCEPTED, begun);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

async fn no_route(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, "no_such_path", format!("there is nothing at {path}"))
}

async fn wrong_method(method: axum::http::Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not possible at {path}"),
    )
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
