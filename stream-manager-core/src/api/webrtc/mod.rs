//! WebRTC by HTTP: WHEP (draft-ietf-wish-whep) for those who watch, WHIP (RFC 9725) for those who publish, and a page that
//! plays.
//!
//! ```text
//! POST   /webrtc/<id>/whep          an offer; 201 with the answer, and the session's address in Location
//! PATCH  /webrtc/<id>/whep/<token>  candidates that the client has found since (RFC 8840)
//! DELETE /webrtc/<id>/whep/<token>  ends the session
//! OPTIONS of both                   STUN and TURN servers, as Link headers
//! the same with whip                publishes the stream
//! GET    /webrtc/<id>               the page that plays
//! GET    /webrtc/<id>/publish       the page that publishes
//! GET    /webrtc/player.js          the module that it uses, for other pages
//! ```

use super::ApiState;
use super::access::{Refused, authorize, header_text, later, peer, user_agent, wrong_method};
use super::body::closing;
use super::cors::{Cors, cors};
use super::problem::Problem;
use super::secure;
use crate::auth::Action;
use crate::source::{PublishError, PublishSlot};
use crate::webrtc::{
    LowerStream, NegotiationError, RestartError, SessionError, SessionRequest, WebRtcServer,
};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;

/// Offers of browsers have some ten thousand bytes.
const MAX_BODY_BYTES: usize = 64 << 10;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const CORS: Cors = Cors {
    methods: "GET, POST, PATCH, DELETE, OPTIONS",
    headers: "authorization, content-type, if-match",
    exposed: "accept-patch, accept-post, etag, link, location",
};

/// The WebRTC server as it is at the moment: it can be bound anew. Clones are handles to the same.
#[derive(Clone, Default)]
pub struct ServedWebRtc {
    server: Arc<RwLock<Option<Arc<WebRtcServer>>>>,
}

impl ServedWebRtc {
    /// Takes another server, or none, and gives the one before.
    pub fn set(&self, server: Option<Arc<WebRtcServer>>) -> Option<Arc<WebRtcServer>> {
        std::mem::replace(&mut *self.server.write(), server)
    }

    /// The server, if there is one.
    pub fn get(&self) -> Option<Arc<WebRtcServer>> {
        self.server.read().clone()
    }
}

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/webrtc/{*path}", any(by_path))
}

/// What a path below `/webrtc/` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Script(&'static str),
    /// What for, and the stream.
    Endpoint(Action, &'a str),
    /// The stream, and what its client alone knows.
    Session(&'a str, &'a str),
    /// What for, and the stream.
    Page(Action, &'a str),
}

impl<'a> Wanted<'a> {
    /// An id may contain slashes, so the end of the path decides.
    fn of(path: &'a str) -> Option<Self> {
        match path {
            "player.js" => return Some(Self::Script(include_str!("player.js"))),
            "page.js" => return Some(Self::Script(include_str!("page.js"))),
            "publish.js" => return Some(Self::Script(include_str!("publish.js"))),
            _ => {}
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let endpoint = |path: &'a str| {
            let ends = [("/whep", Action::Read), ("/whip", Action::Publish)];
            ends.into_iter().find_map(|(end, action)| Some((action, path.strip_suffix(end)?)))
        };
        if let Some((action, stream)) = endpoint(path) {
            return Some(Self::Endpoint(action, stream));
        }
        if let Some((front, token)) = path.rsplit_once('/')
            && let Some((_, stream)) = endpoint(front)
            && token.len() == 32
            && token.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Some(Self::Session(stream, token));
        }
        match path.strip_suffix("/publish") {
            Some(stream) => Some(Self::Page(Action::Publish, stream)),
            None => (!path.is_empty()).then_some(Self::Page(Action::Read, path)),
        }
    }

    fn allowed(&self) -> &'static str {
        match self {
            Self::Endpoint(..) => "POST, OPTIONS",
            Self::Session(..) => "PATCH, DELETE, OPTIONS",
            Self::Page(..) | Self::Script(_) => "GET, HEAD, OPTIONS",
        }
    }
}

fn off() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "webrtc_disabled", "WebRTC is not served; webrtc.enabled is false")
}

async fn by_path(State(state): State<Arc<ApiState>>, Path(path): Path<String>, request: Request) -> Response {
    let allow = state.manager.config().webrtc.allow_origin.clone();
    let (request, body) = request.into_parts();
    let answer = answer(&state, &path, &request, body).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    cors(&mut response, &allow, &request.headers, &CORS);
    secure(response).await
}

async fn answer(state: &Arc<ApiState>, path: &str, request: &Parts, body: Body) -> Result<Response, Refused> {
    let none = || Problem::new(StatusCode::NOT_FOUND, "no_such_path", "expected /webrtc/{id}");
    let wanted = Wanted::of(path).ok_or_else(none)?;
    let server = state.options.webrtc.get().ok_or_else(off)?;
    match (wanted, request.method.as_str()) {
        (Wanted::Script(text), "GET" | "HEAD") => Ok(script(text)),
        (Wanted::Page(action, stream), "GET" | "HEAD") => page(state, request, stream, action).await,
        (Wanted::Endpoint(action, stream), "POST") => {
            post(state, &server, request, body, stream, action).await
        }
        (Wanted::Session(stream, token), "PATCH") => patch(&server, request, body, stream, token).await,
        (Wanted::Session(stream, token), "DELETE") => match server.close(stream, token).await {
            true => Ok(StatusCode::OK.into_response()),
            false => Err(no_session().into()),
        },
        (_, "OPTIONS") => options(state, &server, request, wanted).await,
        _ => Err(wrong_method(&request.method, wanted.allowed(), wanted.allowed())),
    }
}

fn no_session() -> Problem {
    let detail = "there is no such session: it has ended, or never began; begin again with a POST";
    Problem::new(StatusCode::NOT_FOUND, "no_such_session", detail)
}

/// Servers' addresses are for those who may watch: their passwords are in there.
fn link(response: &mut Response, server: &WebRtcServer) {
    for link in server.ice_links() {
        if let Ok(value) = HeaderValue::try_from(link) {
            response.headers_mut().append(header::LINK, value);
        }
    }
}

async fn options(
    state: &ApiState,
    server: &WebRtcServer,
    request: &Parts,
    wanted: Wanted<'_>,
) -> Result<Response, Refused> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(wanted.allowed()));
    match wanted {
        Wanted::Endpoint(action, stream) => {
            headers.insert("accept-post", HeaderValue::from_static(SDP));
            // A browser asks before it knows who its user is; that question carries no credentials.
            let preflight = request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
            if !preflight && !server.options().ice_servers.is_empty() {
                authorize(state, request, stream, action, "webrtc").await?;
                link(&mut response, server);
            }
        }
        Wanted::Session(..) => {
            headers.insert("accept-patch", HeaderValue::from_static(FRAGMENT));
        }
        _ => {}
    }
    Ok(response)
}

/// A body of this type as text.
async fn text(request: &Parts, body: Body, kind: &'static str) -> Result<String, Refused> {
    let given = header_text(request, header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if !given.eq_ignore_ascii_case(kind) {
        let detail = format!("the body's type is \"{given}\"; expected {kind}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail).into());
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY_BYTES)).await;
    let read = read.map_err(|_| {
        let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
        Refused::from(closing(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)))
    })?;
    let bytes = read.map_err(|_| {
        let detail = format!("the body is too large; expected {MAX_BODY_BYTES} bytes at most");
        Refused::from(closing(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)))
    })?;
    String::from_utf8(bytes.into()).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "the body is no text; expected UTF-8").into()
    })
}

fn refused(error: SessionError) -> Refused {
    let (status, code) = match &error {
        SessionError::Negotiation(NegotiationError::NoCommonCodec(_)) => {
            (StatusCode::NOT_ACCEPTABLE, "no_common_codec")
        }
        SessionError::Negotiation(_) => (StatusCode::BAD_REQUEST, "invalid_offer"),
        SessionError::Publish(PublishError::NotFound(_)) => (StatusCode::NOT_FOUND, "stream_not_found"),
        SessionError::Publish(PublishError::InvalidId(_)) => (StatusCode::BAD_REQUEST, "invalid_id"),
        SessionError::Publish(PublishError::HasSource(_)) => (StatusCode::CONFLICT, "has_source"),
        SessionError::Publish(PublishError::Busy { .. }) => (StatusCode::CONFLICT, "already_published"),
        SessionError::Publish(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        SessionError::NoTracks => (StatusCode::SERVICE_UNAVAILABLE, "no_tracks"),
        SessionError::TooMany(_) => (StatusCode::SERVICE_UNAVAILABLE, "too_many_sessions"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
    };
    let problem = Problem::new(status, code, error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE { later(problem, 2) } else { problem.into() }
}

/// The place for whoever publishes a stream.
fn slot(state: &ApiState, stream: &str) -> Result<PublishSlot, Refused> {
    state.manager.publish(stream).map_err(|error| refused(error.into()))
}

/// The streams that show the same in a lower quality, as far as this client may watch them.
async fn lower(state: &ApiState, request: &Parts, stream: &str) -> Vec<LowerStream> {
    let Ok(info) = state.manager.info(stream) else { return Vec::new() };
    let names = info.definition.map(|d| d.config.qualities()).unwrap_or_default();
    let mut found = Vec::new();
    for name in names {
        let Ok(handle) = state.manager.running(&name) else { continue };
        if authorize(state, request, &name, Action::Read, "webrtc").await.is_ok() {
            found.push(LowerStream { stream: name.into(), hub: handle.hub().clone() });
        }
    }
    found
}

async fn post(
    state: &Arc<ApiState>,
    server: &WebRtcServer,
    request: &Parts,
    body: Body,
    stream: &str,
    action: Action,
) -> Result<Response, Refused> {
    let grant = authorize(state, request, stream, action, "webrtc").await?;
    let offer = text(request, body, SDP).await?;
    let session = SessionRequest {
        offer: &offer,
        stream: stream.into(),
        peer: peer(request),
        user: grant.user,
        user_agent: user_agent(request),
    };
    let opened = match action {
        Action::Publish => server.publish(session, slot(state, stream)?).await,
        _ => {
            let handle = state.manager.running(stream).map_err(Problem::from)?;
            server.watch(session, handle.hub(), lower(state, request, stream).await).await
        }
    };
    let opened = opened.map_err(refused)?;
    // Behind the path as it was asked for: the routes may be part of another server's.
    let asked = request.extensions.get::<axum::extract::OriginalUri>();
    let asked = asked.map_or(request.uri.path(), |uri| uri.0.path());
    let location = format!("{}/{}", asked.trim_end_matches('/'), opened.token);
    let mut response = (StatusCode::CREATED, opened.answer).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert("accept-patch", HeaderValue::from_static(FRAGMENT));
    for (name, value) in [(header::LOCATION, location), (header::ETAG, etag(&opened.token, 0))] {
        headers.insert(name, HeaderValue::try_from(value).map_err(|e| Problem::internal(&e))?);
    }
    link(&mut response, server);
    Ok(response)
}

/// The tag of a session's ICE credentials, which change when ICE begins anew.
fn etag(token: &str, restarts: u32) -> String {
    format!("\"{}-{restarts}\"", token.get(..8).unwrap_or_default())
}

async fn patch(
    server: &WebRtcServer,
    request: &Parts,
    body: Body,
    stream: &str,
    token: &str,
) -> Result<Response, Refused> {
    let restarts = server.restarts(stream, token).ok_or_else(no_session)?;
    match header_text(request, header::IF_MATCH) {
        "" => {}
        // RFC 9725 section 4.3.3.
        "*" => {
            let fragment = text(request, body, FRAGMENT).await?;
            return restarted(server, stream, token, &fragment).await;
        }
        tag if tag == etag(token, restarts) => {}
        _ => {
            let detail = "the session's ICE credentials are others; expected the ETag of its answer";
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail).into());
        }
    }
    let fragment = text(request, body, FRAGMENT).await?;
    match server.trickle(stream, token, &fragment).await {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(no_session().into()),
    }
}

/// ICE begins anew, with other credentials and so another tag.
async fn restarted(
    server: &WebRtcServer,
    stream: &str,
    token: &str,
    fragment: &str,
) -> Result<Response, Refused> {
    let ours = server.restart_ice(stream, token, fragment).await.map_err(|error| match error {
        RestartError::NoCredentials => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fragment", error.to_string())
        }
        _ => no_session(),
    })?;
    let tag = etag(token, server.restarts(stream, token).unwrap_or_default());
    let headers = [(header::CONTENT_TYPE, FRAGMENT.to_owned()), (header::ETAG, tag)];
    Ok((StatusCode::OK, headers, ours).into_response())
}

fn script(text: &'static str) -> Response {
    let kind =
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (kind, text).into_response()
}

async fn page(state: &ApiState, request: &Parts, stream: &str, action: Action) -> Result<Response, Refused> {
    // Here, a browser asks its user for a name and a password; it does not for what scripts ask for.
    authorize(state, request, stream, action, "webrtc").await?;
    let (html, above) = match action {
        Action::Publish => {
            slot(state, stream)?;
            (include_str!("publish.html"), 1)
        }
        _ => {
            state.manager.running(stream).map_err(Problem::from)?;
            (include_str!("page.html"), 0)
        }
    };
    // An id is letters, digits and a few signs, none of which means anything in HTML.
    let scripts = "../".repeat(stream.matches('/').count() + above);
    let html = html.replace("{title}", stream).replace("{scripts}", &scripts);
    let policy = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; \
                  media-src 'self' blob: mediastream:; img-src data:; base-uri 'none'; form-action 'none'";
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)];
    Ok((headers, html).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let token = "0123456789abcdef0123456789abcdef";
        assert_eq!(Wanted::of("yard/door/whep"), Some(Wanted::Endpoint(Action::Read, "yard/door")));
        assert_eq!(Wanted::of("yard/door/whip"), Some(Wanted::Endpoint(Action::Publish, "yard/door")));
        assert_eq!(Wanted::of(&format!("door/whep/{token}")), Some(Wanted::Session("door", token)));
        assert_eq!(Wanted::of("door/whep/x"), Some(Wanted::Page(Action::Read, "door/whep/x")));
        assert_eq!(Wanted::of("yard/door/"), Some(Wanted::Page(Action::Read, "yard/door")));
        assert_eq!(Wanted::of("yard/publish"), Some(Wanted::Page(Action::Publish, "yard")));
        assert!(matches!(Wanted::of("player.js"), Some(Wanted::Script(_))));
        assert_eq!(Wanted::of("/"), None);
    }
}
