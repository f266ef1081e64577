//! A span for each request, which belongs to the trace that the client names (`traceparent`, W3C Trace Context), and counts its answer.

use super::ApiState;
use super::routes::route;
use crate::trace::trace_span;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use tracing::Instrument as _;
use tracing::field::Empty;

/// Times an answer, up to its head: what is streamed behind it has no end.
pub(super) async fn layer(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response {
    let timer = state.requests.begin();
    let (method, route) = (request.method().clone(), route(request.uri().path()));
    let span = trace_span!(
        "request",
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("{method} {route}"));
        #[cfg(feature = "otel")]
        crate::otel::continue_trace(&span, request.headers());
    }
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    timer.answered(method.as_str(), route, status.as_u16());
    response
}
