//! HLS: playlists that wait for what is asked for, segments and parts.

use super::super::ApiState;
use super::super::access::{Refused, later};
use super::super::problem::Problem;
use super::access::{Part as Kind, busy, enter, presentation, presentation_now};
use super::answer::{PLAYLIST, cache_control, media, text};
use super::viewers::Viewer;
use super::{File, Wanted, dvr, no_such_file};
use crate::auth::Action;
use crate::hls::{
    Have, PlaylistOptions, Presentation, ReloadQuery, Rendition, Segment, Text, Variant, master_playlist,
    media_playlist,
};
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// From a session's playlists to the segments, which belong to nobody.
pub(super) const UP: &str = "../../";

pub(super) async fn answer(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
) -> Result<Response, Refused> {
    if wanted.file == "index.m3u8" {
        return match dvr::start(request)? {
            Some(start) => dvr::master(state, request, wanted, start).await,
            None => master(state, request, wanted).await,
        };
    }
    match File::of(wanted.file) {
        Some(File::Playlist("dvr")) => dvr::playlist(state, request, wanted).await,
        Some(File::Init(name, _)) if dvr::is_recorded(name) => {
            dvr::piece(state, request, wanted, name, None).await
        }
        Some(File::Span(name, first, count)) if dvr::is_recorded(name) => {
            dvr::piece(state, request, wanted, name, Some((first, count))).await
        }
        None => Err(Refused::from(no_such_file(wanted.file))),
        Some(File::Playlist(name)) => playlist(state, request, wanted, name).await,
        Some(file) => segment(state, request, wanted, file, "hls").await,
    }
}

/// The stream in all its qualities; the ones that are not there at the moment are left out.
pub(super) async fn variants(
    state: &ApiState,
    wanted: Wanted<'_>,
    own_prefix: &str,
) -> Result<Vec<Variant>, Refused> {
    let main = presentation(state, wanted.stream).await?;
    let names = main.settings().variants.clone();
    let mut variants = vec![Variant { presentation: main, prefix: own_prefix.to_owned() }];
    // Up to where the ids begin.
    let up = "../".repeat(wanted.stream.matches('/').count() + 1);
    let others = names.iter().map(|name| async move {
        let packager = super::access::packager(state, name).ok()?;
        // One that is not there must not hold up the others.
        packager.present(Duration::from_secs(2)).await.ok()
    });
    for (name, other) in names.iter().zip(futures_util::future::join_all(others).await) {
        if let Some(presentation) = other.filter(|p| p.main().is_some_and(|m| m.is_video())) {
            variants.push(Variant { presentation, prefix: format!("{up}{name}/") });
        }
    }
    Ok(variants)
}

async fn master(state: &Arc<ApiState>, request: &Parts, wanted: Wanted<'_>) -> Result<Response, Refused> {
    // Whether it may be asked for comes before whether it is there.
    let viewer = enter(state, request, wanted, "hls", Kind::Playlist, Action::Read).await?;
    let named = state.manager.config().hls.sessions && wanted.session.is_none();
    let prefix = viewer.as_ref().filter(|_| named).map_or_else(String::new, |v| format!("s/{}/", v.token));
    let mut variants = variants(state, wanted, &prefix).await?;
    if let Some(viewer) = viewer.filter(|_| named) {
        for variant in variants.iter_mut().skip(1) {
            variant.prefix = format!("{}s/{}/", variant.prefix, viewer.token);
        }
    }
    let playlist = Text::new(master_playlist(&variants));
    let cache = if named {
        HeaderValue::from_static("no-store")
    } else {
        cache_control(&request.headers, "max-age=2")
    };
    Ok(text(&request.headers, &playlist, PLAYLIST, cache))
}

pub(super) fn bad_query(error: impl std::fmt::Display) -> Refused {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", error.to_string()).into()
}

fn find(presentation: &Presentation, name: &str, file: &str) -> Result<Arc<Rendition>, Refused> {
    presentation.rendition(name).ok_or_else(|| Refused::from(no_such_file(file)))
}

/// Waits until `holds`, for three target durations at most (RFC 8216bis section 6.2.5.2), and no longer than the
/// session.
async fn wait(
    state: &ApiState,
    viewer: Option<&Viewer>,
    presentation: &Presentation,
    rendition: &Rendition,
    mut holds: impl FnMut(&Rendition) -> bool,
) -> Result<(), Refused> {
    if holds(rendition) {
        return Ok(());
    }
    let _place = state.viewers.wait(state.manager.config().hls.max_waiting).ok_or_else(busy)?;
    let limit = presentation.target_duration() * 3;
    let kicked = viewer.map(Viewer::kicked).unwrap_or_default();
    let late = || {
        let detail = format!("it has not come within {} s", limit.as_secs());
        later(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_in_time", detail), 1)
    };
    tokio::select! {
        waited = tokio::time::timeout(limit, rendition.wait_until(holds)) => waited.map_err(|_| late()),
        () = kicked.cancelled() => Err(Problem::new(StatusCode::GONE, "session_ended", "this session was ended").into()),
        () = state.options.closing.cancelled() => Err(late()),
    }
}

async fn playlist(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
    name: &str,
) -> Result<Response, Refused> {
    let query = ReloadQuery::parse(request.uri.query().unwrap_or_default()).map_err(bad_query)?;
    let viewer = enter(state, request, wanted, "hls", Kind::Playlist, Action::Read).await?;
    let presentation = presentation(state, wanted.stream).await?;
    let rendition = find(&presentation, name, wanted.file)?;
    let low_latency = presentation.settings().low_latency;
    match query.number.filter(|_| low_latency) {
        Some(number) => {
            if rendition.have(number, query.part) == Have::TooFar {
                return Err(bad_query(format!(
                    "_HLS_msn is \"{number}\"; expected at most two more than the last segment's"
                )));
            }
            let there = |r: &Rendition| r.have(number, query.part) == Have::Now;
            wait(state, viewer.as_deref(), &presentation, &rendition, there).await?;
        }
        // Players that only take whole segments have nothing to begin with before there is one.
        None => {
            wait(state, viewer.as_deref(), &presentation, &rendition, |r| r.has_segment() || r.has_ended())
                .await?
        }
    }
    let prefix = if wanted.session.is_some() { UP } else { "" };
    let playlist = media_playlist(&presentation, &rendition, PlaylistOptions { prefix, skip: query.skip });
    if let Some(viewer) = viewer {
        viewer.sent(playlist.plain().len() as u64);
    }
    // What was waited for is the same for all who wait for it; the rest is only good for a moment.
    let age = if query.number.is_some() { presentation.target_duration().as_secs() * 6 } else { 1 };
    let cache = cache_control(&request.headers, &format!("max-age={age}"));
    Ok(text(&request.headers, &playlist, PLAYLIST, cache))
}

/// The pieces of a finished segment.
fn pieces(segment: &Segment) -> Vec<Bytes> {
    segment.parts.iter().map(|part| part.data.clone()).collect()
}

/// A segment, a part, or what goes before: for HLS and DASH alike.
pub(super) async fn segment(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
    file: File<'_>,
    protocol: &'static str,
) -> Result<Response, Refused> {
    let viewer = enter(state, request, wanted, protocol, Kind::Media, Action::Read).await?;
    let presentation = presentation_now(state, wanted.stream)?;
    let missing = || Refused::from(no_such_file(wanted.file));
    let count = |bytes: u64| {
        if let Some(viewer) = &viewer {
            viewer.sent(bytes);
        }
    };
    let (pieces, kind) = match file {
        File::Playlist(_) | File::Span(..) => return Err(missing()),
        File::Init(name, number) => {
            let rendition = find(&presentation, name, wanted.file)?;
            let init = rendition.init(number).ok_or_else(missing)?;
            (vec![init.data.clone()], rendition.is_video())
        }
        File::Part(name, number) => {
            let rendition = find(&presentation, name, wanted.file)?;
            if rendition.part(number).is_none() {
                // The part that playlists promise as the next one is waited for; no other.
                if !rendition.is_next_part(number) {
                    return Err(missing());
                }
                let there = |r: &Rendition| r.part(number).is_some() || !r.is_next_part(number);
                wait(state, viewer.as_deref(), &presentation, &rendition, there).await?;
            }
            let part = rendition.part(number).ok_or_else(missing)?;
            (vec![part.data.clone()], rendition.is_video())
        }
        File::Segment(name, number) => {
            let rendition = find(&presentation, name, wanted.file)?;
            if rendition.segment(number).is_none() {
                // A DASH player may come a moment before the segment begins.
                if rendition.have(number, None) != Have::Later {
                    return Err(missing());
                }
                let there = |r: &Rendition| r.segment(number).is_some() || r.has_ended();
                wait(state, viewer.as_deref(), &presentation, &rendition, there).await?;
            }
            if !rendition.is_complete(number) {
                return growing(state, request, rendition, number, viewer).await;
            }
            (pieces(&*rendition.segment(number).ok_or_else(missing)?), rendition.is_video())
        }
    };
    count(pieces.iter().map(|piece| piece.len() as u64).sum());
    let kind = if kind { "video/mp4" } else { "audio/mp4" };
    Ok(media(&request.headers, pieces, kind, wanted.file))
}

/// A segment while it is being made: part by part, in chunks.
async fn growing(
    state: &Arc<ApiState>,
    request: &Parts,
    rendition: Arc<Rendition>,
    number: u64,
    viewer: Option<Arc<Viewer>>,
) -> Result<Response, Refused> {
    let kind = if rendition.is_video() { "video/mp4" } else { "audio/mp4" };
    let cache = cache_control(&request.headers, super::answer::IMMUTABLE);
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CACHE_CONTROL, cache)];
    let closing = state.options.closing.clone();
    let parts = futures_util::stream::unfold((rendition, 0usize), move |(rendition, index)| {
        let (closing, viewer) = (closing.clone(), viewer.clone());
        async move {
            let ready =
                |r: &Rendition| r.part_of(number, index).is_some() || r.is_complete(number) || r.has_ended();
            let waited = tokio::time::timeout(Duration::from_secs(60), rendition.wait_until(ready));
            closing.run_until_cancelled(waited).await?.ok()?;
            let data = rendition.part_of(number, index)?.data.clone();
            if let Some(viewer) = viewer {
                viewer.sent(data.len() as u64);
            }
            Some((Ok::<_, Infallible>(data), (rendition, index + 1)))
        }
    });
    Ok((headers, Body::from_stream(parts)).into_response())
}
