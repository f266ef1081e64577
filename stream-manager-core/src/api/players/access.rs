//! Who asks, whether they may, and which session they belong to.

use super::super::ApiState;
use super::super::problem::Problem;
use super::answer::Refused;
use super::viewers::{Client, Found, Viewer, sweep_all};
use super::{START_TIMEOUT, Wanted};
use crate::auth::{Access, Action, Credentials, Denied, Grant};
use crate::hls::{NotReady, Packager, Presentation};
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A wrong password is answered this much later, so that trying many takes long.
const WRONG_CREDENTIALS_DELAY: Duration = Duration::from_secs(1);
/// What a client calls itself, at most.
const MAX_AGENT: usize = 200;

/// Where a request comes from; nowhere in particular if nobody has said so.
pub(super) fn peer(request: &Parts) -> SocketAddr {
    let known = request.extensions.get::<ConnectInfo<SocketAddr>>();
    known.map_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), |info| info.0)
}

fn text(request: &Parts, name: header::HeaderName) -> &str {
    request.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// The credentials of a request: Basic (RFC 7617). What stands in its address is for the authorizer to look at.
fn credentials(request: &Parts) -> Credentials {
    let basic = text(request, header::AUTHORIZATION).split_once(' ').and_then(|(scheme, value)| {
        let decoded = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok();
        let text = String::from_utf8(decoded.filter(|_| scheme.eq_ignore_ascii_case("basic"))?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Credentials::password(user, password))
    });
    basic.unwrap_or_default()
}

fn client(request: &Parts, address: IpAddr, stream: &str, protocol: &'static str) -> Client {
    let agent: String = text(request, header::USER_AGENT).chars().take(MAX_AGENT).collect();
    Client {
        address,
        agent,
        proof: text(request, header::AUTHORIZATION).to_owned(),
        stream: stream.to_owned(),
        protocol,
    }
}

/// Whether somebody may watch a stream.
pub(super) async fn authorize(
    state: &ApiState,
    request: &Parts,
    stream: &str,
    protocol: &'static str,
) -> Result<Grant, Refused> {
    let credentials = credentials(request);
    let access = Access {
        action: Action::Read,
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
            let mut response = problem.into_response();
            response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
            response.into()
        }
        Denied::Forbidden { .. } => {
            Problem::new(StatusCode::FORBIDDEN, "forbidden", denied.to_string()).into()
        }
    })
}

fn challenge(detail: &str) -> Refused {
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).into_response();
    let basic = HeaderValue::from_static("Basic realm=\"stream-manager\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
    response.into()
}

fn gone() -> Refused {
    Problem::new(
        StatusCode::GONE,
        "session_ended",
        "this session was ended; begin again with the first address",
    )
    .into()
}

/// What a request is part of.
pub(super) enum Part {
    /// A session begins, or goes on if it has a name.
    Playlist,
    /// Media of a session that has begun.
    Media,
}

/// Lets a request in: checks its rights once for each session, and says which session it belongs to.
pub(super) async fn enter(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
    protocol: &'static str,
    part: Part,
) -> Result<Option<Arc<Viewer>>, Refused> {
    let peer = peer(request);
    let address = peer.ip().to_canonical();
    let client = client(request, address, wanted.stream, protocol);
    let viewers = &state.viewers;
    let found = match (wanted.session, &part) {
        (Some(token), _) => viewers.by_token(token),
        (None, Part::Media) => viewers.by_client(&client),
        // With names of their own, each first address is another session; but some players know no other address.
        (None, Part::Playlist) if state.manager.config().hls.sessions => match viewers.by_client(&client) {
            Found::Viewer(viewer) if viewer.is_nameless() => Found::Viewer(viewer),
            _ => Found::None,
        },
        (None, Part::Playlist) => viewers.by_client(&client),
    };
    match found {
        Found::Kicked => return Err(gone()),
        Found::Viewer(viewer) if viewer.address() == address => return Ok(Some(viewer)),
        _ => {}
    }
    let grant = authorize(state, request, wanted.stream, protocol).await?;
    if matches!(part, Part::Media) {
        return Ok(None);
    }
    let viewer = viewers.open(state.manager.sessions(), client, peer, grant.user, wanted.session);
    if viewers.wants_sweeping() {
        state.tasks.spawn(sweep_all(Arc::downgrade(viewers), state.options.closing.clone()));
    }
    Ok(Some(viewer))
}

fn not_ready(error: NotReady, wait: u64) -> Refused {
    let (status, code) = match error {
        NotReady::Off => (StatusCode::NOT_FOUND, "hls_disabled"),
        NotReady::NoTracks => (StatusCode::NOT_FOUND, "no_tracks"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    let mut response = Problem::new(status, code, error.to_string()).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, wait.into());
    }
    response.into()
}

/// The packager of a stream that runs.
pub(super) fn packager(state: &ApiState, stream: &str) -> Result<Packager, Refused> {
    let handle = state.manager.running(stream).map_err(|error| {
        // Who may watch learns whether a stream is there; nobody learns more than by RTSP.
        Refused::from(Problem::from(error))
    })?;
    Ok(handle.packager().clone())
}

/// What is packaged of a stream, begun if need be.
pub(super) async fn presentation(state: &ApiState, stream: &str) -> Result<Arc<Presentation>, Refused> {
    let packager = packager(state, stream)?;
    // Only those who wait count as waiting.
    if let Some(presentation) = packager.now().filter(|p| p.has_begun() && packager.settings().enabled) {
        return Ok(presentation);
    }
    let max = state.manager.config().hls.max_waiting;
    let _place = state.viewers.wait(max).ok_or_else(busy)?;
    packager.present(START_TIMEOUT).await.map_err(|error| not_ready(error, 2))
}

/// What is packaged of a stream at the moment.
pub(super) fn presentation_now(state: &ApiState, stream: &str) -> Result<Arc<Presentation>, Refused> {
    packager(state, stream)?.now().ok_or_else(|| {
        let detail = "nobody has watched this stream for a while; begin again with the first address";
        Problem::new(StatusCode::NOT_FOUND, "no_such_file", detail).into()
    })
}

/// Too many requests wait.
pub(super) fn busy() -> Refused {
    let detail = "too many requests wait at the moment; try again later";
    let mut response =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_waiting", detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response.into()
}
