//! Who asks, from where, and whether they may: the same for the API, players and WebRTC.

use super::ApiState;
use super::guard::AskedBy;
use super::problem::Problem;
use super::session_cookie;
use crate::auth::{Access, Action, Credentials, Denied, Grant, Secret, Subject};
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A wrong password is answered this much later, so that trying many takes long.
const WRONG_CREDENTIALS_DELAY: Duration = Duration::from_secs(1);

/// What a client calls itself, at most.
const MAX_AGENT: usize = 200;

/// An answer that is none: what stands in the way.
pub(super) struct Refused(Box<Response>);

impl Refused {
    pub(super) fn status(&self) -> StatusCode {
        self.0.status()
    }
}

impl From<Response> for Refused {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        problem.into_response().into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// Where a request comes from; nowhere in particular if nobody has said so.
pub(super) fn peer(request: &Parts) -> SocketAddr {
    let known = request.extensions.get::<ConnectInfo<SocketAddr>>();
    known.map_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), |info| info.0)
}

/// A header's text, or nothing.
pub(super) fn header_text(request: &Parts, name: header::HeaderName) -> &str {
    request.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// What a client calls itself.
pub(super) fn user_agent(request: &Parts) -> Option<String> {
    let agent = header_text(request, header::USER_AGENT);
    (!agent.is_empty()).then(|| agent.chars().take(MAX_AGENT).collect())
}

/// The credentials of a request: Basic (RFC 7617), a bearer token (RFC 6750), which may be a name and a password, too, since
/// that is all that many WHIP and WHEP clients can be told, or the cookie of a browser that has logged in. What stands in its
/// address is for the authorizer to look at.
pub(super) fn credentials(headers: &HeaderMap) -> Credentials {
    let text = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let given = text.split_once(' ').and_then(|(scheme, value)| {
        let value = value.trim();
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        let text = if scheme.eq_ignore_ascii_case("basic") {
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(value).ok()?).ok()?
        } else if is_bearer {
            value.to_owned()
        } else {
            return None;
        };
        match text.split_once(':') {
            Some((user, password)) => Some(Credentials::password(user, password)),
            None => (is_bearer && !text.is_empty()).then(|| Credentials::Token(Secret::new(text))),
        }
    });
    let from_cookie = || session_cookie::token(headers).map(Credentials::Token);
    given.or_else(from_cookie).unwrap_or_default()
}

/// Whether somebody may do something with a stream.
pub(super) async fn authorize(
    state: &ApiState,
    request: &Parts,
    stream: &str,
    action: Action,
    protocol: &'static str,
) -> Result<Grant, Refused> {
    authorize_for(state, request, Subject::Stream(stream), action, protocol).await
}

/// Whether somebody may do something.
pub(super) async fn authorize_for(
    state: &ApiState,
    request: &Parts,
    subject: Subject<'_>,
    action: Action,
    protocol: &'static str,
) -> Result<Grant, Refused> {
    let Some(authorizer) = &state.options.authorizer else { return Ok(Grant::default()) };
    if !session_cookie::is_from_here(request) {
        let detail = "the request comes from a page of another site, with a cookie of this one";
        return Err(Problem::new(StatusCode::FORBIDDEN, "cross_site_request", detail).into());
    }
    let credentials = credentials(&request.headers);
    let agent = user_agent(request);
    let access = Access {
        action,
        subject,
        address: peer(request).ip().to_canonical(),
        protocol,
        query: request.uri.query(),
        user_agent: agent.as_deref(),
        credentials: &credentials,
    };
    let denied = match authorizer.authorize(&access).await {
        Ok(grant) => return Ok(grant),
        Err(denied) => denied,
    };
    Err(refusal(denied, access.address, credentials.user(), is_asked_by_script(request)).await)
}

/// Scripts of our own page want no dialog of the browser's.
fn is_asked_by_script(request: &Parts) -> bool {
    request.headers.get("x-requested-with").is_some()
}

/// What a denial is in HTTP.
pub(super) async fn refusal(denied: Denied, from: IpAddr, user: Option<&str>, by_script: bool) -> Refused {
    match denied {
        Denied::Anonymous => challenge("credentials are needed", by_script),
        Denied::WrongCredentials => {
            tracing::warn!(peer = %from, user, "wrong credentials");
            tokio::time::sleep(WRONG_CREDENTIALS_DELAY).await;
            challenge("the credentials are wrong", by_script)
        }
        Denied::NotSetUp => Problem::new(StatusCode::FORBIDDEN, "not_set_up", denied.to_string()).into(),
        Denied::Limited { wait } => {
            let problem =
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", denied.to_string());
            later(problem, wait.as_secs().max(1))
        }
        Denied::Forbidden { ref user, .. } => {
            let mut response =
                Problem::new(StatusCode::FORBIDDEN, "forbidden", denied.to_string()).into_response();
            response.extensions_mut().insert(AskedBy(Some(user.clone())));
            response.into()
        }
        Denied::Unavailable { .. } => {
            let problem = Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "authentication_unavailable",
                denied.to_string(),
            );
            later(problem, 5)
        }
    }
}

/// A problem that may be gone after so many seconds.
pub(super) fn later(problem: Problem, seconds: u64) -> Refused {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response.into()
}

/// Another method is right here.
#[cfg(any(feature = "hls", feature = "webrtc"))]
pub(super) fn wrong_method(method: &axum::http::Method, expected: &str, allow: &'static str) -> Refused {
    let detail = format!("{method} is not possible here; expected {expected}");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response.into()
}

fn challenge(detail: &str, by_script: bool) -> Refused {
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).into_response();
    let way = if by_script {
        "Bearer realm=\"stream-manager\""
    } else {
        "Basic realm=\"stream-manager\", charset=\"UTF-8\""
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(way));
    response.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Credentials {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        credentials(&headers)
    }

    #[test]
    fn credentials_come_as_basic_or_as_a_token() {
        let expected = Credentials::password("viewer", "see:me");
        assert_eq!(of("Basic dmlld2VyOnNlZTptZQ=="), expected);
        assert_eq!(of("bearer viewer:see:me"), expected);
        assert_eq!(of("Bearer smt_a_b"), Credentials::Token(Secret::new("smt_a_b")));
        for nothing in ["Basic !", "Bearer ", "Digest a=b", "Basic", ""] {
            assert_eq!(of(nothing), Credentials::None, "{nothing}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "a=b; stream_manager_session=smt_a_b".parse().unwrap());
        assert_eq!(credentials(&headers), Credentials::Token(Secret::new("smt_a_b")));
        headers.insert(header::AUTHORIZATION, "Bearer other".parse().unwrap());
        assert_eq!(credentials(&headers), Credentials::Token(Secret::new("other")));
    }
}
