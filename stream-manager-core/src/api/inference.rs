//! `…/inference`, `/api/models` and `/api/infer`: what is seen, and by what.

use super::body::MAX_IMAGE_BYTES;
use super::problem::Problem;
use super::query::{self, bad};
use super::{ApiState, json};
use crate::config::StreamInferenceConfig;
use crate::event::StreamState;
use crate::inference::{AnalysisStatus, InferenceError, Model, ModelStatus, Picture, Wanted};
use crate::manager::ManagerError;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{get as on_get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

type Shared = State<Arc<ApiState>>;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/api/models", on_get(models))
        .route("/api/models/{name}", on_get(model))
        .route("/api/models/{name}/reload", post(reload))
        .route("/api/infer", post(infer))
}

/// A stream's analysis.
#[derive(Serialize, JsonSchema)]
pub(super) struct AnalysisView {
    /// The stream.
    id: String,
    /// Whether it is to be analysed.
    enabled: bool,
    /// As it is configured, without what is left to the defaults; none of a stream without a configuration.
    config: Option<StreamInferenceConfig>,
    /// How the smaller stream that is analysed stands, if there is one.
    substream: Option<SubstreamView>,
    #[serde(flatten)]
    status: Option<AnalysisStatus>,
}

/// The smaller stream that is analysed.
#[derive(Serialize, JsonSchema)]
struct SubstreamView {
    state: StreamState,
    /// Why it is in this state, in words.
    reason: String,
    last_error: Option<String>,
}

/// A stream's analysis as it is.
pub(super) fn get(state: &Arc<ApiState>, id: &str) -> Result<Response, Problem> {
    let info = state.manager.info(id)?;
    let status =
        info.handle().map(|handle| (handle.analysis().settings().enabled, handle.analysis().status()));
    let config = info.definition.as_ref().map(|d| d.config.shown().inference);
    let configured = info
        .definition
        .as_ref()
        .is_some_and(|d| d.config.resolve(&state.manager.config().defaults).inference.enabled);
    let substream = info.handle().and_then(|handle| handle.substream_state());
    let view = AnalysisView {
        substream: substream.map(|s| SubstreamView {
            state: s.state,
            reason: s.reason,
            last_error: s.last_error,
        }),
        id: info.id.to_string(),
        enabled: status.as_ref().map_or(configured, |(enabled, _)| *enabled),
        config,
        status: status.map(|(_, status)| status),
    };
    Ok(json(StatusCode::OK, &view))
}

/// A patch of a stream's configuration, from one of its analysis.
pub(super) fn patch_of(patch: Value) -> Result<Value, Problem> {
    if !patch.is_object() {
        let detail = "it is no object; expected a JSON merge patch of the stream's inference settings";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail));
    }
    Ok(serde_json::json!({ "inference": patch }))
}

/// Places in the body are those of the body that was sent.
pub(super) fn problem_of(error: &ManagerError) -> Problem {
    Problem::of(error).without("/inference")
}

/// The models.
#[derive(Serialize, JsonSchema)]
pub(super) struct ModelPage {
    items: Vec<ModelStatus>,
    next: Option<String>,
}

async fn models(State(state): Shared, uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let items = state.manager.models().all().iter().map(Model::status).collect();
    Ok(json(StatusCode::OK, &ModelPage { items, next: None }))
}

async fn model(State(state): Shared, Path(name): Path<String>, uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    Ok(json(StatusCode::OK, &state.manager.models().get(&name)?.status()))
}

async fn reload(State(state): Shared, Path(name): Path<String>, uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let model = state.manager.models().get(&name)?;
    model.reload().await?;
    Ok(json(StatusCode::OK, &model.status()))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct InferQuery {
    model: Option<String>,
    threshold: Option<f32>,
    classes: Option<String>,
}

async fn infer(State(state): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let query: InferQuery = query::parse(&uri)?;
    if query.threshold.is_some_and(|t| !(0.0..=1.0).contains(&t)) {
        return Err(bad("threshold is out of range; expected 0 to 1"));
    }
    let mime = headers.get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?").to_ascii_lowercase());
    let mime = mime.as_deref().map(|m| m.split(';').next().unwrap_or_default().trim().to_owned());
    // curl says the last of --data-binary unless told otherwise; what it is, its first bytes tell.
    const RIGHT: [&str; 4] =
        ["image/jpeg", "image/png", "application/octet-stream", "application/x-www-form-urlencoded"];
    if let Some(mime) = mime.filter(|m| !RIGHT.contains(&m.as_str())) {
        let shown: String = mime.chars().take(100).collect();
        let detail = format!("the content type is {shown}; expected image/jpeg or image/png");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let model = state.manager.models().pick(query.model.as_deref())?;
    if body.is_empty() {
        let detail =
            format!("the body is empty; expected a JPEG or PNG image, {MAX_IMAGE_BYTES} bytes at most");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_image", detail));
    }
    let classes = query.classes.unwrap_or_default();
    let classes = classes.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
    let wanted = Wanted { threshold: query.threshold, classes };
    let picture = tokio::task::spawn_blocking(move || Picture::from_image(&body)).await;
    let picture = picture.map_err(|e| Problem::internal(&e))??;
    Ok(json(StatusCode::OK, &model.infer_with(Arc::new(picture), wanted).await?))
}

impl From<InferenceError> for Problem {
    fn from(error: InferenceError) -> Self {
        let (status, code) = match &error {
            InferenceError::NoModel { .. } | InferenceError::NotNamed { .. } => {
                (StatusCode::NOT_FOUND, "model_not_found")
            }
            InferenceError::NotReady { .. } => (StatusCode::SERVICE_UNAVAILABLE, "model_not_ready"),
            InferenceError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "model_busy"),
            InferenceError::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "model_timeout"),
            InferenceError::Picture { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_image"),
            InferenceError::Spec { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_class"),
            InferenceError::File { .. } | InferenceError::Mismatch { .. } => {
                (StatusCode::CONFLICT, "model_unusable")
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "inference_failed"),
        };
        Self::new(status, code, error.to_string())
    }
}
