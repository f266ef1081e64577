//! The cookie of a browser that has logged in, and which requests may use it.
//!
//! The cookie is `HttpOnly` and `SameSite=Strict`, so scripts cannot read it and other sites' pages do not send it. As a second
//! line, what changes something is refused with it if the browser says that another site asks (`Sec-Fetch-Site`, or `Origin`).

use crate::auth::Secret;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use std::time::Duration;

const NAME: &str = "stream_manager_session";

/// The token that a request's cookie holds.
pub(super) fn token(headers: &HeaderMap) -> Option<Secret> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == NAME && !value.is_empty()).then(|| Secret::new(value))
    })
}

/// The header that sets the cookie, or, without a token, takes it away.
pub(super) fn set(token: Option<&Secret>, lifetime: Duration, by_tls: bool) -> Option<HeaderValue> {
    let (value, age) = token.map_or(("", 0), |token| (token.reveal(), lifetime.as_secs()));
    let secure = if by_tls { "; Secure" } else { "" };
    let text = format!("{NAME}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}");
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Whether a request may be answered by what its cookie says: what only looks may; anything else may if its page is ours.
pub(super) fn is_from_here(request: &Parts) -> bool {
    let looks = super::guard::looks(&request.method);
    let upgrades = request.headers.contains_key(header::UPGRADE);
    if looks && !upgrades
        || request.headers.contains_key(header::AUTHORIZATION)
        || token(&request.headers).is_none()
    {
        return true;
    }
    let text = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some("same-origin" | "none"), _) => true,
        (Some(_), _) => false,
        // Browsers of before 2023 say only where the page is from; programs say neither.
        (None, Some(origin)) => {
            let host = text("host").or_else(|| request.uri.host());
            origin.split_once("://").is_some_and(|(_, of)| Some(of) == host)
        }
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = axum::http::Request::builder().method(method).uri("/api/streams");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn other_sites_cannot_use_the_cookie() {
        let cookie = ("cookie", "stream_manager_session=smt_a_b");
        for (method, headers, may) in [
            ("GET", vec![cookie, ("sec-fetch-site", "cross-site")], true),
            ("POST", vec![cookie, ("sec-fetch-site", "cross-site")], false),
            ("POST", vec![cookie, ("sec-fetch-site", "same-site")], false),
            ("POST", vec![cookie, ("sec-fetch-site", "same-origin")], true),
            ("DELETE", vec![cookie, ("origin", "http://evil.example"), ("host", "cams:3000")], false),
            ("DELETE", vec![cookie, ("origin", "null"), ("host", "cams:3000")], false),
            ("DELETE", vec![cookie, ("origin", "http://cams:3000"), ("host", "cams:3000")], true),
            ("POST", vec![("sec-fetch-site", "cross-site")], true),
            ("POST", vec![cookie, ("authorization", "Bearer x"), ("sec-fetch-site", "cross-site")], true),
            (
                "GET",
                vec![cookie, ("upgrade", "websocket"), ("origin", "http://evil.example"), ("host", "c")],
                false,
            ),
            ("POST", vec![cookie], true),
        ] {
            assert_eq!(is_from_here(&request(method, &headers)), may, "{method} {headers:?}");
        }
        let header = set(Some(&Secret::new("t")), Duration::from_secs(60), true).unwrap();
        let expected = "stream_manager_session=t; Path=/; HttpOnly; SameSite=Strict; Max-Age=60; Secure";
        assert_eq!(header, expected);
        assert!(!format!("{header:?}").contains("=t"), "it is not printed");
    }
}
