//! `Idempotency-Key`: a POST that is sent again is not carried out again, also after a restart.
//!
//! Making streams remembers the answer in the same transaction as the streams. Other calls remember theirs right
//! behind. Only successes are remembered.

use super::ApiState;
use super::problem::Problem;
use crate::manager::{KeyedAnswer, Render};
use crate::storage::state::Answer;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::Arc;

const HEADER: &str = "idempotency-key";
const REPLAYED: &str = "idempotency-replayed";
const MAX_KEY: usize = 255;
/// Answers larger than this are not kept.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Keys whose requests are being carried out.
#[derive(Clone, Default)]
pub(super) struct InProgress(Arc<Mutex<HashSet<String>>>);

struct Taken(InProgress, String);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

/// A request's key.
#[derive(Clone)]
pub(super) struct Key {
    key: String,
    fingerprint: String,
}

impl Key {
    pub(super) fn answer(&self, render: Arc<Render>) -> KeyedAnswer {
        KeyedAnswer { key: self.key.clone(), fingerprint: self.fingerprint.clone(), render }
    }
}

pub(super) async fn layer(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    keyed(state, request, next).await.unwrap_or_else(Problem::into_response)
}

async fn keyed(state: Arc<ApiState>, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = parts.headers.get(HEADER).and_then(|v| v.to_str().ok()).map(str::trim);
    let right =
        key.filter(|k| !k.is_empty() && k.len() <= MAX_KEY && k.bytes().all(|b| b.is_ascii_graphic()));
    let Some(key) = right.map(str::to_owned) else {
        let detail = format!("Idempotency-Key is wrong; expected up to {MAX_KEY} visible ASCII characters");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_header", detail));
    };
    // Its size was limited when it was read.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let fingerprint = fingerprint(&parts, &body);
    if !state.in_progress.0.lock().insert(key.clone()) {
        let detail =
            "a request with this Idempotency-Key is being carried out at the moment; try again later";
        return Err(Problem::new(StatusCode::CONFLICT, "idempotency_in_progress", detail));
    }
    let _taken = Taken(state.in_progress.clone(), key.clone());
    if let Some(answer) = state.manager.answered(&key).await? {
        return replay(&answer, &fingerprint);
    }
    parts.extensions.insert(Key { key: key.clone(), fingerprint: fingerprint.clone() });
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    if let Ok(Some(_)) = state.manager.answered(&key).await {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_ANSWER_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    state
        .manager
        .remember_answer(Answer { key, fingerprint, response: (parts.status.as_u16(), text) })
        .await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(answer: &Answer, fingerprint: &str) -> Result<Response, Problem> {
    if answer.fingerprint != fingerprint {
        let detail =
            "this Idempotency-Key came with another request before; expected a new key for each request";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail));
    }
    let (status, text) = answer.response.clone();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], text).into_response();
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

fn fingerprint(parts: &axum::http::request::Parts, body: &Bytes) -> String {
    let mut hash = Sha256::new();
    // Another's answers are nobody's business.
    let proof = |name| parts.headers.get(name).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    for part in [
        parts.method.as_str().as_bytes(),
        path.as_bytes(),
        query.as_bytes(),
        proof(header::AUTHORIZATION),
        proof(header::COOKIE),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(body);
    format!("{:x}", hash.finalize())
}
