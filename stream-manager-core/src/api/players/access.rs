//! Who asks, whether they may, and which session they belong to.

use super::super::ApiState;
use super::super::access::{Refused, authorize, header_text, later, peer, user_agent};
use super::super::problem::Problem;
use super::Wanted;
use super::viewers::{Client, Found, Viewer, sweep_all};
use crate::auth::Action;
use crate::hls::{NotReady, Packager, Presentation};
use crate::manager::StreamHandle;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use std::net::IpAddr;
use std::sync::Arc;

fn client(request: &Parts, address: IpAddr, stream: &str, protocol: &'static str) -> Client {
    Client {
        address,
        agent: user_agent(request).unwrap_or_default(),
        proof: header_text(request, header::AUTHORIZATION).to_owned(),
        stream: stream.to_owned(),
        protocol,
    }
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
    action: Action,
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
        Found::Viewer(viewer)
            if viewer.address() == address && is_for(state, &viewer, wanted.stream, action) =>
        {
            return Ok(Some(viewer));
        }
        _ => {}
    }
    let grant = authorize(state, request, wanted.stream, action, protocol).await?;
    if matches!(part, Part::Media) {
        return Ok(None);
    }
    let viewer = viewers.open(state.manager.sessions(), client, peer, grant, wanted.session);
    if viewers.wants_sweeping() {
        state.tasks.spawn(sweep_all(Arc::downgrade(viewers), state.options.closing.clone()));
    }
    Ok(Some(viewer))
}

/// Whether a session is for this: its own stream or one that is made of it, and live only if it was let in for that alone.
fn is_for(state: &ApiState, viewer: &Viewer, stream: &str, action: Action) -> bool {
    let is_made_of_it = || {
        let handle = state.manager.running(viewer.stream());
        handle.is_ok_and(|handle| handle.renditions().iter().any(|made| *made.id().as_str() == *stream))
    };
    viewer.may(action) && (viewer.stream() == stream || is_made_of_it())
}

fn not_ready(error: NotReady, wait: u64) -> Refused {
    let (status, code) = match error {
        NotReady::Off => (StatusCode::NOT_FOUND, "hls_disabled"),
        NotReady::NoTracks => (StatusCode::NOT_FOUND, "no_tracks"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    let problem = Problem::new(status, code, error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE { later(problem, wait) } else { problem.into() }
}

/// A stream that runs.
fn running(state: &ApiState, stream: &str) -> Result<StreamHandle, Refused> {
    // Who may watch learns whether a stream is there; nobody learns more than by RTSP.
    state.manager.running(stream).map_err(|error| Refused::from(Problem::from(error)))
}

/// The packager of a stream that runs.
pub(super) fn packager(state: &ApiState, stream: &str) -> Result<Packager, Refused> {
    Ok(running(state, stream)?.packager().clone())
}

/// What is packaged of a stream, begun if need be.
pub(super) async fn presentation(state: &ApiState, stream: &str) -> Result<Arc<Presentation>, Refused> {
    let handle = running(state, stream)?;
    let packager = handle.packager();
    // Only those who wait count as waiting.
    if let Some(presentation) = packager.now().filter(|p| p.has_begun() && packager.settings().enabled) {
        return Ok(presentation);
    }
    let max = state.manager.config().hls.max_waiting;
    let _place = state.viewers.wait(max).ok_or_else(busy)?;
    packager.present(handle.hub().start_timeout()).await.map_err(|error| not_ready(error, 2))
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
    later(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_waiting", detail), 1)
}
