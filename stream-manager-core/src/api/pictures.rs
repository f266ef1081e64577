//! `/api/streams/{id}/snapshot.jpg`, `…/mjpeg` and `…/thumbnails.jpg`: single pictures, one after the other, and many small ones as one.

use super::ApiState;
use super::access::{Refused, authorize, peer, user_agent};
use super::playback::time;
use super::problem::Problem;
use super::query::{self, bad};
use crate::auth::Action;
use crate::frame::WallTime;
use crate::manager::StripOptions;
use crate::pipeline::PictureOptions;
use crate::session::{NewSession, SessionKind, SessionStats};
use crate::storage::index::TimeRange;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// No row has more pictures.
const MAX_COLUMNS: usize = 1500;
/// The widest picture that may be asked for.
const MAX_WIDTH: u32 = 16_384;
/// The widest small one.
const MAX_SMALL_WIDTH: u32 = 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SnapshotQuery {
    time: Option<String>,
    width: Option<u32>,
    quality: Option<u8>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StripQuery {
    start: Option<String>,
    end: Option<String>,
    count: Option<usize>,
    columns: Option<usize>,
    width: Option<u32>,
    quality: Option<u8>,
}

fn quality(quality: Option<u8>) -> Result<u8, Problem> {
    match quality.unwrap_or(PictureOptions::default().quality) {
        quality @ 1..=100 => Ok(quality),
        other => Err(bad(format!("quality is {other}; expected 1 to 100"))),
    }
}

fn width(width: Option<u32>, max: u32) -> Result<Option<u32>, Problem> {
    match width {
        Some(width) if !(8..=max).contains(&width) => {
            Err(bad(format!("width is {width}; expected 8 to {max} pixels")))
        }
        width => Ok(width),
    }
}

/// Answers a request for a picture.
pub(super) async fn snapshot(state: &Arc<ApiState>, stream: &str, request: Parts) -> Response {
    one(state, stream, &request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn one(state: &ApiState, stream: &str, request: &Parts) -> Result<Response, Refused> {
    let pairs = url::form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes());
    let is_recorded = pairs.into_iter().any(|(name, _)| name == "time");
    let action = if is_recorded { Action::Playback } else { Action::Read };
    authorize(state, request, stream, action, "snapshot").await?;
    let query: SnapshotQuery = query::parse_for_media(&request.uri)?;
    let options = PictureOptions { width: width(query.width, MAX_WIDTH)?, quality: quality(query.quality)? };
    let time = time("time", query.time.as_ref())?;
    let (made, keep) = match time {
        None => (state.manager.snapshot(stream, options).await, "no-store"),
        Some(time) => (state.manager.recorded_snapshot(stream, time, options).await, "private, max-age=60"),
    };
    let made = made.map_err(Problem::from)?;
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg".to_owned()),
        (header::CACHE_CONTROL, keep.to_owned()),
        (header::HeaderName::from_static("picture-time"), made.time.to_string()),
    ];
    Ok((headers, made.jpeg).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MjpegQuery {
    fps: Option<f64>,
    width: Option<u32>,
    quality: Option<u8>,
}

/// What stands between two pictures.
const BOUNDARY: &str = "picture";
/// How many pictures a second there are at most, if nothing else is said.
const USUAL_FPS: f64 = 10.0;

/// Answers a request for pictures without an end, as browsers show them in an `<img>`.
pub(super) async fn mjpeg(state: &Arc<ApiState>, stream: &str, request: Parts) -> Response {
    endless(state, stream, &request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn endless(state: &ApiState, stream: &str, request: &Parts) -> Result<Response, Refused> {
    let grant = authorize(state, request, stream, Action::Read, "mjpeg").await?;
    let query: MjpegQuery = query::parse_for_media(&request.uri)?;
    let options = PictureOptions { width: width(query.width, MAX_WIDTH)?, quality: quality(query.quality)? };
    let fps = query.fps.unwrap_or(USUAL_FPS);
    if !(0.01..=60.0).contains(&fps) {
        return Err(bad(format!("fps is {fps}; expected 0.01 to 60")).into());
    }
    let mut pictures = state.manager.pictures(stream, options, fps).map_err(Problem::from)?;
    let headers = [
        (header::CONTENT_TYPE, format!("multipart/x-mixed-replace; boundary={BOUNDARY}")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    if request.method == Method::HEAD {
        return Ok(headers.into_response());
    }
    // What cannot be shown at all is said as long as it can be.
    let first = pictures.next().await.map_err(Problem::from)?;
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = bytes.clone();
    let stats = move || SessionStats { bytes: counted.load(Ordering::Relaxed), ..SessionStats::default() };
    let new = NewSession {
        protocol: "mjpeg",
        kind: SessionKind::Reader,
        stream: stream.into(),
        address: peer(request),
        user: grant.user,
        user_agent: user_agent(request),
        transport: "http",
    };
    let guard = state.manager.sessions().open(new, Arc::new(stats));
    let closing = state.options.closing.clone();
    let shown = futures_util::stream::unfold(Some((pictures, guard, first)), move |showing| {
        let (closing, bytes) = (closing.clone(), bytes.clone());
        async move {
            let (mut pictures, guard, next) = showing?;
            let made = match next {
                Some(made) => made,
                None => {
                    let kicked = guard.kick_token();
                    tokio::select! {
                        () = kicked.cancelled() => return None,
                        () = closing.cancelled() => return None,
                        made = pictures.next() => made.ok()??,
                    }
                }
            };
            let head = format!(
                "--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\nPicture-Time: {}\r\n\r\n",
                made.jpeg.len(),
                made.time
            );
            let part = [head.as_bytes(), &made.jpeg, b"\r\n"].concat();
            bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
            Some((Ok::<_, std::io::Error>(Bytes::from(part)), Some((pictures, guard, None))))
        }
    });
    Ok((headers, Body::from_stream(shown)).into_response())
}

/// Answers a request for a strip of small pictures.
pub(super) async fn thumbnails(state: &Arc<ApiState>, stream: &str, request: Parts) -> Response {
    strip(state, stream, &request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn strip(state: &ApiState, stream: &str, request: &Parts) -> Result<Response, Refused> {
    authorize(state, request, stream, Action::Playback, "snapshot").await?;
    let query: StripQuery = query::parse_for_media(&request.uri)?;
    let needed = |name: &str, text: Option<&String>| -> Result<WallTime, Problem> {
        time(name, text)?
            .ok_or_else(|| bad(format!("{name} is missing; expected a time such as 2026-01-31T23:59:59Z")))
    };
    let (start, end) = (needed("start", query.start.as_ref())?, needed("end", query.end.as_ref())?);
    let range = TimeRange::new(start, end).map_err(|e| query::contradiction(e.to_string()))?;
    let count = query.count.unwrap_or(24);
    let options = StripOptions {
        count,
        columns: query.columns.unwrap_or(10).min(count),
        width: width(query.width, MAX_SMALL_WIDTH)?.unwrap_or(160),
        quality: quality(query.quality)?,
    };
    if options.columns == 0 || query.columns.is_some_and(|columns| columns > MAX_COLUMNS) {
        return Err(bad(format!("columns and count are 1 to {MAX_COLUMNS}")).into());
    }
    let strip = state.manager.strip(stream, range, options).await.map_err(Problem::from)?;
    let found: String = strip.found.iter().map(|found| if *found { '1' } else { '0' }).collect();
    let name = header::HeaderName::from_static;
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg".to_owned()),
        (header::CACHE_CONTROL, "private, max-age=60".to_owned()),
        (name("thumbnails-columns"), options.columns.to_string()),
        (name("thumbnails-size"), format!("{}x{}", options.width / 4 * 4, strip.height)),
        (name("thumbnails-found"), found),
    ];
    Ok((headers, strip.jpeg).into_response())
}
