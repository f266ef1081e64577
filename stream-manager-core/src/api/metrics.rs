//! `/metrics`: the numbers that Prometheus scrapes.

use super::ApiState;
use super::problem::Problem;
use super::query;
use crate::metrics::{Format, Sources, text};
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

pub(super) async fn metrics(
    State(state): State<Arc<ApiState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let open = accept.contains("application/openmetrics-text");
    let format = if open { Format::OpenMetrics } else { Format::Prometheus };
    let sources = Sources::new(&state.manager)
        .hooks(state.options.hooks.as_ref())
        .requests(&state.requests)
        .loop_delay(state.options.watch.as_ref().map(|watch| watch.delay()));
    let text = text(&sources, format).await.map_err(|e| Problem::internal(&e))?;
    Ok(([(header::CONTENT_TYPE, format.media_type())], text).into_response())
}
