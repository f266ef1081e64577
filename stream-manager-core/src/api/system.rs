//! `/api/system`, `/api/probe` and `/api/hooks`: the machine, a look at an address, and what is done about events.

use super::body::{self, Media};
use super::problem::Problem;
use super::query;
use super::{ApiState, json};
use crate::config::DurationText;
use crate::error::redact_url;
use crate::manager::{ProbeReport, probe_with};
use crate::source::{SourceError, SourceOptions, SourceTransport, from_url_with};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

type Shared = State<Arc<ApiState>>;

/// The longest look at an address.
const MAX_PROBE: Duration = Duration::from_secs(60);

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/api/system", get(system))
        .route("/api/probe", post(probe))
        .route("/api/hooks", get(hooks))
        .route("/api/hooks/{name}/test", post(test_hook))
}

async fn system(State(state): Shared, uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let manager = state.manager.clone();
    // Reads a few files of the kernel's.
    let report = tokio::task::spawn_blocking(move || manager.system()).await;
    let report = report.map_err(|e| Problem::internal(&e))?;
    Ok(json(StatusCode::OK, &report))
}

/// What to look at.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProbeRequest {
    /// The address.
    url: String,
    /// How RTP travels.
    #[serde(default)]
    transport: SourceTransport,
    /// For how long to look at it.
    #[serde(default = "three_seconds")]
    duration: DurationText,
    /// Whether a picture is wanted.
    #[serde(default = "yes")]
    picture: bool,
}

fn three_seconds() -> DurationText {
    DurationText(Duration::from_secs(3))
}

fn yes() -> bool {
    true
}

/// What was found at an address.
#[derive(Serialize, JsonSchema)]
pub(super) struct ProbeView {
    #[serde(flatten)]
    report: ProbeReport,
    /// The first picture, JPEG as a data URL; none if none was wanted, or it could not be made.
    picture: Option<String>,
    /// Why there is no picture.
    picture_problem: Option<String>,
}

async fn probe(
    State(state): Shared,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let value = body::value(&headers, &bytes, Media::Json)?;
    let request: ProbeRequest = body::object(value)?;
    let invalid = Problem::invalid_body::<String>;
    let scheme = request.url.trim_start();
    let of_this_machine = ["gst:", "exec:", "file:", "sdp:", "v4l2:"];
    if of_this_machine.iter().any(|kind| scheme.starts_with(kind)) || !scheme.contains("://") {
        let shown: String = redact_url(&request.url).chars().take(200).collect();
        let detail =
            format!("\"{shown}\" cannot be looked at through the API; expected rtsp://, http:// or test://");
        return Err(invalid("/url", detail));
    }
    if request.duration.0 > MAX_PROBE || request.duration.0 < Duration::from_millis(100) {
        return Err(invalid("/duration", format!("it is {}; expected 100ms to 1m", request.duration)));
    }
    let options = SourceOptions {
        transport: request.transport,
        connect_timeout: Some(Duration::from_secs(10)),
        ice: state.manager.config().webrtc.ice(),
        ..SourceOptions::default()
    };
    let source = from_url_with(&request.url, &options).map_err(|e| invalid("/url", e.to_string()))?;
    let _place = state.probe_place()?;
    let (report, picture) = probe_with(source, request.duration.0, request.picture).await?;
    let (picture, picture_problem) = match picture {
        None => (None, None),
        Some(Ok(jpeg)) => {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(jpeg);
            (Some(format!("data:image/jpeg;base64,{text}")), None)
        }
        Some(Err(problem)) => (None, Some(problem)),
    };
    Ok(json(StatusCode::OK, &ProbeView { report, picture, picture_problem }))
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "source_failed", error.to_string())
    }
}

/// The hooks.
#[derive(Serialize, JsonSchema)]
pub(super) struct HookPage {
    items: Vec<crate::hooks::HookStatus>,
    next: Option<String>,
}

async fn hooks(State(state): Shared, uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let items = state.options.hooks.as_ref().map(|h| h.status()).unwrap_or_default();
    Ok(json(StatusCode::OK, &HookPage { items, next: None }))
}

/// How a test went.
#[derive(Serialize, JsonSchema)]
pub(super) struct HookTest {
    hook: String,
    ok: bool,
    /// Why not, in words.
    problem: Option<String>,
}

async fn test_hook(State(state): Shared, uri: Uri, Path(name): Path<String>) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let found = match &state.options.hooks {
        Some(hooks) => hooks.test(&name).await,
        None => None,
    };
    let Some(result) = found else {
        let shown: String = name.chars().take(60).collect();
        let detail = format!("there is no hook named \"{shown}\"");
        return Err(Problem::new(StatusCode::NOT_FOUND, "hook_not_found", detail));
    };
    let view = HookTest { hook: name, ok: result.is_ok(), problem: result.err() };
    Ok(json(StatusCode::OK, &view))
}
