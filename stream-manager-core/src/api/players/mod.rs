//! `/hls/…`, `/dash/…` and `live.mp4`: what players ask for.
//!
//! ```text
//! /hls/<id>/index.m3u8               multivariant playlist: begins a session
//! /hls/<id>/s/<session>/v0.m3u8      its media playlists, which wait for what is asked for
//! /hls/<id>/v0-17.m4s                segments, the same for everybody; v0-p173.m4s a part; v0-i12.mp4 its beginning
//! /dash/<id>/manifest.mpd            begins a session; /dash/<id>/s/<session>/manifest.mpd goes on with it
//! /dash/<id>/time                    what time it is
//! /api/streams/<id>/live.mp4         endless fMP4, also by WebSocket
//! ```
//!
//! A session is seen by its playlists: they have an address of their own in each (or, with `hls.sessions` off, it is
//! told by address and program). Segments have none, so that caches can answer for all.

mod access;
mod answer;
mod dash;
mod dvr;
mod hls;
mod live;
mod viewers;

pub(super) use live::live;
pub(crate) use viewers::Viewers;

use super::ApiState;
use super::access::{Refused, wrong_method};
use super::cors::{Cors, cors};
use super::problem::Problem;
use super::secure;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use std::sync::Arc;

/// What pages of other sites may do.
const CORS: Cors = Cors {
    methods: "GET, HEAD, OPTIONS",
    headers: "authorization, range, if-none-match, cmcd-request, cmcd-object, cmcd-session, cmcd-status",
    exposed: "content-length, content-range, date, etag",
};

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/hls/{*path}", any(by_hls)).route("/dash/{*path}", any(by_dash))
}

/// What a path below `/hls/` or `/dash/` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted<'a> {
    stream: &'a str,
    session: Option<&'a str>,
    file: &'a str,
}

fn is_session(text: &str) -> bool {
    text.len() == viewers::TOKEN_LENGTH && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl<'a> Wanted<'a> {
    /// An id may contain slashes, so the end of the path decides.
    fn of(path: &'a str) -> Option<Self> {
        let (front, file) = path.rsplit_once('/')?;
        if let Some((front, session)) = front.rsplit_once('/')
            && let Some(stream) = front.strip_suffix("/s")
            && is_session(session)
        {
            return Some(Self { stream, session: Some(session), file });
        }
        Some(Self { stream: front, session: None, file })
    }
}

/// A file's name: a segment, a part of one, what goes before, or a span of a recording's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File<'a> {
    Playlist(&'a str),
    Init(&'a str, u64),
    Segment(&'a str, u64),
    Part(&'a str, u64),
    Span(&'a str, u64, usize),
}

impl<'a> File<'a> {
    fn of(name: &'a str) -> Option<Self> {
        if let Some(rendition) = name.strip_suffix(".m3u8") {
            return Some(Self::Playlist(rendition));
        }
        let (rendition, rest) = name.split_once('-')?;
        if let Some(number) = rest.strip_prefix('i').and_then(|rest| rest.strip_suffix(".mp4")) {
            return Some(Self::Init(rendition, digits(number)?));
        }
        let rest = rest.strip_suffix(".m4s")?;
        if let Some(number) = rest.strip_prefix('p') {
            return Some(Self::Part(rendition, digits(number)?));
        }
        match rest.split_once('.') {
            Some((first, count)) => {
                Some(Self::Span(rendition, digits(first)?, usize::try_from(digits(count)?).ok()?))
            }
            None => Some(Self::Segment(rendition, digits(rest)?)),
        }
    }
}

/// A number as it is written in names: one way only, so that nothing has two names.
fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn no_such_file(file: &str) -> Problem {
    let file: String = file.chars().take(60).collect();
    Problem::new(StatusCode::NOT_FOUND, "no_such_file", format!("there is no \"{file}\" at the moment"))
}

async fn by_hls(state: State<Arc<ApiState>>, path: Path<String>, request: Request) -> Response {
    by_protocol(state.0, path.0, request, "hls").await
}

async fn by_dash(state: State<Arc<ApiState>>, path: Path<String>, request: Request) -> Response {
    by_protocol(state.0, path.0, request, "dash").await
}

/// `/api/streams/{id}/playback.m3u8`: recordings as a playlist.
pub(super) async fn playback_playlist(state: &Arc<ApiState>, stream: &str, request: Request) -> Response {
    let allow_origin = state.manager.config().hls.allow_origin.clone();
    let (request, _) = request.into_parts();
    let answer = async {
        enabled(state)?;
        if request.method == Method::OPTIONS {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        dvr::vod(state, &request, Wanted { stream, session: None, file: "playback.m3u8" }).await
    };
    let mut response = answer.await.unwrap_or_else(IntoResponse::into_response);
    cors(&mut response, &allow_origin, &request.headers, &CORS);
    response
}

fn enabled(state: &ApiState) -> Result<(), Refused> {
    if state.manager.config().hls.enabled {
        return Ok(());
    }
    let detail = "HLS and DASH are not served; hls.enabled is false";
    Err(Refused::from(Problem::new(StatusCode::NOT_FOUND, "hls_disabled", detail)))
}

async fn by_protocol(
    state: Arc<ApiState>,
    path: String,
    request: Request,
    protocol: &'static str,
) -> Response {
    let allow_origin = state.manager.config().hls.allow_origin.clone();
    let (request, _) = request.into_parts();
    let answer = async {
        enabled(&state)?;
        match request.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return Ok(StatusCode::NO_CONTENT.into_response()),
            ref method => return Err(wrong_method(method, "GET or HEAD", "GET, HEAD, OPTIONS")),
        }
        let wanted = Wanted::of(&path).ok_or_else(|| no_such_file(&path))?;
        match protocol {
            "hls" => hls::answer(&state, &request, wanted).await,
            _ => dash::answer(&state, &request, wanted).await,
        }
    };
    let mut response = answer.await.unwrap_or_else(IntoResponse::into_response);
    cors(&mut response, &allow_origin, &request.headers, &CORS);
    secure(response).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names() {
        let token = "0123456789abcdef0123456789abcdef";
        let with = format!("yard/door/s/{token}/v0.m3u8");
        let wanted = Wanted::of(&with).unwrap();
        assert_eq!((wanted.stream, wanted.session, wanted.file), ("yard/door", Some(token), "v0.m3u8"));
        let wanted = Wanted::of("yard/s/door/index.m3u8").unwrap();
        assert_eq!((wanted.stream, wanted.session, wanted.file), ("yard/s/door", None, "index.m3u8"));
        assert_eq!(Wanted::of("index.m3u8"), None);
        assert_eq!(File::of("v0.m3u8"), Some(File::Playlist("v0")));
        assert_eq!(File::of("v0-i17.mp4"), Some(File::Init("v0", 17)));
        assert_eq!(File::of("a1-17.m4s"), Some(File::Segment("a1", 17)));
        assert_eq!(File::of("a1-p17.m4s"), Some(File::Part("a1", 17)));
        assert_eq!(File::of("r1-17.3.m4s"), Some(File::Span("r1", 17, 3)));
        for bad in [
            "",
            "v0",
            "v0-.m4s",
            "v0-+1.m4s",
            "v0-01.m4s",
            "v0-1.2.3.m4s",
            "v0-p.m4s",
            "v0-p01.m4s",
            "v0-p1.2.m4s",
            "v0-i.mp4",
            "v0-1.m4s/..",
            "v0-99999999999999999999.m4s",
        ] {
            assert_eq!(File::of(bad), None, "{bad}");
        }
    }
}
