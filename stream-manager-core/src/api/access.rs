//! Who asks for media, from where, and whether they may: the same for players and WebRTC.

use super::ApiState;
use super::problem::Problem;
use crate::auth::{Access, Action, Credentials, Denied, Grant};
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A wrong password is answered this much later, so that trying many takes long.
const WRONG_CREDENTIALS_DELAY: Duration = Duration::from_secs(1);

/// What a client calls itself, at most.
const MAX_AGENT: usize = 200;

/// An answer that is none: what stands in the way.
pub(super) struct Refused(Box<Response>);

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

/// What a client calls itself, or nothing.
pub(super) fn user_agent(request: &Parts) -> String {
    header_text(request, header::USER_AGENT).chars().take(MAX_AGENT).collect()
}

/// The credentials of a request: Basic (RFC 7617), or the same in the clear as a bearer token (RFC 6750), which is all
/// that many WHIP and WHEP clients can be told. What stands in its address is for the authorizer to look at.
fn credentials(request: &Parts) -> Credentials {
    let given = header_text(request, header::AUTHORIZATION).split_once(' ').and_then(|(scheme, value)| {
        let value = value.trim();
        let text = if scheme.eq_ignore_ascii_case("basic") {
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(value).ok()?).ok()?
        } else if scheme.eq_ignore_ascii_case("bearer") {
            value.to_owned()
        } else {
            return None;
        };
        let (user, password) = text.split_once(':')?;
        Some(Credentials::password(user, password))
    });
    given.unwrap_or_default()
}

/// Whether somebody may watch a stream, or be its source.
pub(super) async fn authorize(
    state: &ApiState,
    request: &Parts,
    stream: &str,
    action: Action,
    protocol: &'static str,
) -> Result<Grant, Refused> {
    let credentials = credentials(request);
    let access = Access {
        action,
        stream,
        address: peer(request).ip().to_canonical(),
        protocol,
        query: request.uri.query(),
        credentials: &credentials,
    };
    let denied = match &state.options.authorizer {
        None => return Ok(Grant::default()),
        Some(authorizer) => match authorizer.authorize(&access).await {
            Ok(grant) => return Ok(grant),
            Err(denied) => denied,
        },
    };
    Err(match denied {
        Denied::Anonymous => challenge("credentials are needed"),
        Denied::WrongCredentials => {
            tracing::warn!(peer = %access.address, user = credentials.user(), "wrong credentials");
            tokio::time::sleep(WRONG_CREDENTIALS_DELAY).await;
            challenge("the credentials are wrong")
        }
        Denied::Limited { wait } => {
            let problem =
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", denied.to_string());
            later(problem, wait.as_secs().max(1))
        }
        Denied::Forbidden { .. } => {
            Problem::new(StatusCode::FORBIDDEN, "forbidden", denied.to_string()).into()
        }
    })
}

/// A problem that may be gone after so many seconds.
pub(super) fn later(problem: Problem, seconds: u64) -> Refused {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response.into()
}

/// Another method is right here.
pub(super) fn wrong_method(method: &Method, expected: &str, allow: &'static str) -> Refused {
    let detail = format!("{method} is not possible here; expected {expected}");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response.into()
}

fn challenge(detail: &str) -> Refused {
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).into_response();
    let basic = HeaderValue::from_static("Basic realm=\"stream-manager\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
    response.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Credentials {
        let request = axum::http::Request::builder().header("authorization", value).body(()).unwrap();
        credentials(&request.into_parts().0)
    }

    #[test]
    fn credentials_come_as_basic_or_as_a_token() {
        let expected = Credentials::password("viewer", "see:me");
        assert_eq!(of("Basic dmlld2VyOnNlZTptZQ=="), expected);
        assert_eq!(of("bearer viewer:see:me"), expected);
        for nothing in ["Basic !", "Bearer token", "Digest a=b", "Basic", ""] {
            assert_eq!(of(nothing), Credentials::None, "{nothing}");
        }
    }
}
