//! `/api/config`: the configuration in force, and changing it.

use super::body::{self, Media};
use super::problem::Problem;
use super::query;
use super::{ApiState, json};
use crate::manager::{ReloadError, ReloadReport, Trigger};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

type Shared = State<Arc<ApiState>>;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/api/config", get(show).patch(patch))
        .route("/api/config/reload", post(reload))
        .route("/api/config/status", get(status))
        .route("/api/config/schema", get(schema))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigQuery {
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Toml,
}

async fn show(State(state): Shared, uri: Uri) -> Result<Response, Problem> {
    let query: ConfigQuery = query::parse(&uri)?;
    match query.format {
        Format::Toml => {
            let text = state.manager.export_toml(false);
            Ok(([(header::CONTENT_TYPE, "application/toml")], text).into_response())
        }
        Format::Json => {
            let config = state.manager.config();
            let mut value = serde_json::to_value(&*config).map_err(|e| Problem::internal(&e))?;
            // These have a list of their own, with pages.
            if let Some(object) = value.as_object_mut() {
                object.remove("streams");
            }
            Ok(json(StatusCode::OK, &value))
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PatchQuery {
    dry_run: bool,
}

/// What a new configuration has changed, or would.
#[derive(Serialize, JsonSchema)]
pub(super) struct Applied {
    dry_run: bool,
    #[serde(flatten)]
    report: ReloadReport,
}

async fn patch(
    State(state): Shared,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let query: PatchQuery = query::parse(&uri)?;
    let patch = body::value(&headers, &bytes, Media::MergePatch)?;
    let report = state.manager.patch_settings(patch, query.dry_run).await?;
    Ok(json(StatusCode::OK, &Applied { dry_run: query.dry_run, report }))
}

async fn reload(State(state): Shared, uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let report = state.manager.reload(Trigger::Request).await?;
    Ok(json(StatusCode::OK, &Applied { dry_run: false, report }))
}

async fn status(State(state): Shared, uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    Ok(json(StatusCode::OK, &state.manager.config_status()))
}

async fn schema(uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    Ok(json(StatusCode::OK, &crate::config::json_schema()))
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let text = error.to_string();
        match error {
            ReloadError::Key { pointer, problem, by_operator } => {
                let (status, code) = if by_operator {
                    (StatusCode::CONFLICT, "set_by_operator")
                } else {
                    (StatusCode::UNPROCESSABLE_ENTITY, "invalid_config")
                };
                Self::new(status, code, problem).at(pointer)
            }
            ReloadError::Fixed => Self::new(StatusCode::CONFLICT, "config_fixed", text),
            ReloadError::Manager(error) => error.into(),
            _ => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", text),
        }
    }
}
