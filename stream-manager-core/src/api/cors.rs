//! What pages of other sites may ask for (CORS, <https://fetch.spec.whatwg.org>).

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

/// Methods, headers of requests, and headers of answers that such pages may use.
pub(super) struct Cors {
    pub(super) methods: &'static str,
    pub(super) headers: &'static str,
    pub(super) exposed: &'static str,
}

/// Lets pages of other sites in, if they may.
pub(super) fn cors(response: &mut Response, allow: &str, request: &HeaderMap, what: &Cors) {
    let Ok(value) = HeaderValue::try_from(allow) else { return };
    if allow.is_empty() {
        return;
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
    if allow != "*" {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    let fixed = HeaderValue::from_static;
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, fixed(what.exposed));
    if request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, fixed(what.methods));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fixed(what.headers));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, fixed("86400"));
    }
}
