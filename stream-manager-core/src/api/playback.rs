//! `/api/streams/{id}/playback` and `…/timeline`: recordings, watched again.

use super::ApiState;
use super::access::{Refused, authorize, peer, user_agent};
use super::cors::{Cors, cors};
use super::problem::Problem;
use super::query::{self, bad};
use crate::auth::Action;
use crate::config::DurationText;
use crate::frame::WallTime;
use crate::manager::{ManagerError, MarkGroup};
use crate::playback::{
    Container, Follower, Gaps, PlainPlan, PlainReader, Plan, PlanReader, PlaybackRequest, Remux,
};
use crate::session::{NewSession, SessionGuard, SessionKind, SessionStats};
use crate::storage::index::{RecordingItem, TimeRange};
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How playbacks are called among sessions.
const PROTOCOL: &str = "playback";

const CORS: Cors = Cors {
    methods: "GET, HEAD, OPTIONS",
    headers: "authorization, range, if-none-match",
    exposed: "content-length, content-range, date, etag, link, playback-start, playback-end",
};

/// What may be asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Query {
    start: Option<String>,
    end: Option<String>,
    duration: Option<DurationText>,
    format: Option<Format>,
    gaps: Option<Gaps>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Fmp4,
    Mp4,
    Ts,
    Mkv,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Fmp4 | Self::Mp4 => "video/mp4",
            Self::Ts => "video/mp2t",
            Self::Mkv => "video/x-matroska",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Fmp4 | Self::Mp4 => "mp4",
            Self::Ts => "ts",
            Self::Mkv => "mkv",
        }
    }

    /// What has to be made, if not the file itself.
    fn container(self) -> Option<Container> {
        match self {
            Self::Fmp4 | Self::Mp4 => None,
            Self::Ts => Some(Container::Ts),
            Self::Mkv => Some(Container::Mkv),
        }
    }
}

/// A time from a query.
pub(super) fn time(name: &str, text: Option<&String>) -> Result<Option<WallTime>, Problem> {
    let Some(text) = text else { return Ok(None) };
    // A plus that was not encoded arrives as a space.
    let text = text.replace(' ', "+");
    text.parse().map(Some).map_err(|e| bad(format!("{name}: {e}")))
}

/// Part of the time, from a query; all time where it says nothing.
pub(super) fn range(start: Option<&String>, end: Option<&String>) -> Result<TimeRange, Problem> {
    let start = time("start", start)?.unwrap_or(TimeRange::ALL.start);
    let end = time("end", end)?.unwrap_or(TimeRange::ALL.end);
    TimeRange::new(start, end).map_err(|e| query::contradiction(e.to_string()))
}

/// A start that is needed, and an end or a length.
fn span(
    start: Option<&String>,
    end: Option<&String>,
    duration: Option<DurationText>,
) -> Result<(WallTime, Option<WallTime>), Problem> {
    let Some(start) = time("start", start)? else {
        return Err(bad(
            "start is missing; expected an RFC 3339 time such as 2026-01-31T23:59:59Z, or seconds since 1970",
        ));
    };
    let end = match (time("end", end)?, duration) {
        (Some(_), Some(_)) => {
            return Err(query::contradiction("there are an end and a duration; expected one of them"));
        }
        (end, None) => end,
        (None, Some(duration)) => Some(start + duration.0),
    };
    if let Some(end) = end {
        TimeRange::new(start, end).map_err(|e| query::contradiction(e.to_string()))?;
    }
    Ok((start, end))
}

/// Answers a request for recordings as one file.
pub(super) async fn playback(state: &Arc<ApiState>, stream: &str, request: Parts) -> Response {
    let (allow_origin, asked) = (state.manager.config().hls.allow_origin.clone(), request.headers.clone());
    let answered = answer(state, stream, request).await;
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    cors(&mut response, &allow_origin, &asked, &CORS);
    response
}

async fn answer(state: &Arc<ApiState>, stream: &str, request: Parts) -> Result<Response, Refused> {
    if request.method == Method::OPTIONS {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let grant = authorize(state, &request, stream, Action::Playback, PROTOCOL).await?;
    let query: Query = query::parse_for_media(&request.uri)?;
    let (start, end) = span(query.start.as_ref(), query.end.as_ref(), query.duration)?;
    let format = query.format.unwrap_or(Format::Fmp4);
    let container = format.container();
    if !matches!(format, Format::Fmp4) && end.is_none() {
        let detail = "format: only fmp4 goes on into live; expected an end, or a duration";
        return Err(query::contradiction(detail).into());
    }
    let asked = PlaybackRequest { start, end, gaps: query.gaps.unwrap_or_default() };
    let plan = state.manager.plan_playback(stream, asked).await.map_err(Problem::from)?;
    let follower = match end {
        None => state.manager.follow_playback(stream, &plan).map_err(Problem::from)?,
        Some(_) => None,
    };
    let mut headers = described(stream, &plan, format, &request)?;
    let plan = Arc::new(plan);
    let plain = match format {
        Format::Mp4 => {
            let plan = plan.clone();
            let making = tokio::task::spawn_blocking(move || PlainPlan::new(plan)).await;
            let made = making.map_err(|e| Problem::internal(&e))?;
            Some(Arc::new(made.map_err(|e| Problem::from(ManagerError::Playback(e)))?))
        }
        _ => None,
    };
    let (etag, length) = match &plain {
        Some(plain) => (plain.etag(), plain.length_bytes()),
        None => (plan.etag(), plan.length_bytes()),
    };
    let (status, range) = if follower.is_some() || container.is_some() {
        (StatusCode::OK, 0..length)
    } else {
        match range_of(&request.headers, etag, length, &mut headers) {
            Ok(found) => found,
            Err(status) => return Ok((status, headers).into_response()),
        }
    };
    if request.method != Method::GET {
        return Ok((status, headers).into_response());
    }
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = bytes.clone();
    let stats = move || SessionStats { bytes: counted.load(Ordering::Relaxed), ..SessionStats::default() };
    let new = NewSession {
        protocol: PROTOCOL,
        kind: SessionKind::Reader,
        stream: stream.into(),
        address: peer(&request),
        user: grant.user,
        user_agent: user_agent(&request),
        transport: "http",
    };
    let guard = state.manager.sessions().open(new, Arc::new(stats));
    let media = match (container, plain) {
        (Some(container), _) => {
            let failed = |error| Problem::from(ManagerError::Picture(error));
            Media::Remux(Remux::start(plan, container).await.map_err(failed)?)
        }
        (None, Some(plain)) => Media::Plain(PlainReader::new(plain, range)),
        (None, None) => Media::Plan(PlanReader::new(plan, range)),
    };
    let playing = Playing {
        media: Some(media),
        follower,
        guard,
        bytes,
        closing: state.options.closing.clone(),
        stream: stream.to_owned(),
    };
    Ok((status, headers, Body::from_stream(playing.chunks())).into_response())
}

/// What is said of a plan beside its bytes.
fn described(stream: &str, plan: &Plan, format: Format, request: &Parts) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    let mut say = |name: header::HeaderName, value: String| {
        HeaderValue::try_from(value)
            .map(|value| headers.insert(name, value))
            .map_err(|e| Problem::internal(&e))
    };
    let file: String = plan.start().to_string().chars().map(|c| if c == ':' { '-' } else { c }).collect();
    let name = stream.replace('/', "_");
    say(header::CONTENT_TYPE, format.media_type().into())?;
    let extension = format.extension();
    say(header::CONTENT_DISPOSITION, format!("inline; filename=\"{name}_{file}.{extension}\""))?;
    say(header::HeaderName::from_static("playback-start"), plan.start().to_string())?;
    say(header::HeaderName::from_static("playback-end"), plan.end().to_string())?;
    if let Some(next) = plan.next() {
        // The same address, with another start.
        let query = request.uri.query().unwrap_or_default();
        let kept = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "start");
        let mut address = url::form_urlencoded::Serializer::new(String::new());
        let nanos = next.as_unix_nanos();
        let start = format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
        address.append_pair("start", &start).extend_pairs(kept);
        say(header::LINK, format!("<?{}>; rel=\"next\"", address.finish()))?;
    }
    Ok(headers)
}

/// Which bytes of something that long are wanted, by RFC 9110 sections 13 and 14; or the answer that has none.
pub(super) fn range_of(
    asked: &HeaderMap,
    etag: &str,
    length: u64,
    headers: &mut HeaderMap,
) -> Result<(StatusCode, Range<u64>), StatusCode> {
    let text = |name: header::HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
    let etag = format!("\"{etag}\"");
    let mut say = |name: header::HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    say(header::ETAG, &etag);
    say(header::ACCEPT_RANGES, "bytes");
    // Recordings may be deleted: whoever keeps it is to ask whether it is still what it was.
    say(header::CACHE_CONTROL, "private, no-cache");
    let same = |list: &str| list.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag);
    if text(header::IF_NONE_MATCH).is_some_and(same) {
        return Err(StatusCode::NOT_MODIFIED);
    }
    let range = text(header::RANGE).filter(|_| text(header::IF_RANGE).is_none_or(|tag| tag == etag));
    // What cannot be understood is as if it were not there; so are several ranges at once.
    let Some(range) = range.and_then(|range| http_range_header::parse_range_header(range).ok()) else {
        say(header::CONTENT_LENGTH, &length.to_string());
        return Ok((StatusCode::OK, 0..length));
    };
    match range.validate(length) {
        Err(_) => {
            say(header::CONTENT_RANGE, &format!("bytes */{length}"));
            Err(StatusCode::RANGE_NOT_SATISFIABLE)
        }
        Ok(ranges) => match ranges.as_slice() {
            [range] => {
                let range = *range.start()..*range.end() + 1;
                say(header::CONTENT_RANGE, &format!("bytes {}-{}/{length}", range.start, range.end - 1));
                say(header::CONTENT_LENGTH, &(range.end - range.start).to_string());
                Ok((StatusCode::PARTIAL_CONTENT, range))
            }
            _ => {
                say(header::CONTENT_LENGTH, &length.to_string());
                Ok((StatusCode::OK, 0..length))
            }
        },
    }
}

/// Where bytes come from.
enum Media {
    Plan(PlanReader),
    Plain(PlainReader),
    Remux(Remux),
}

impl Media {
    /// The next bytes, and what gives those behind them.
    async fn next(self) -> io::Result<Option<(Bytes, Self)>> {
        if let Self::Remux(mut remux) = self {
            let next = remux.next().await.map_err(io::Error::other)?;
            return Ok(next.map(|data| (data, Self::Remux(remux))));
        }
        let reading = tokio::task::spawn_blocking(move || {
            let mut media = self;
            let next = match &mut media {
                Self::Plan(reader) => reader.read(),
                Self::Plain(reader) => reader.read(),
                Self::Remux(_) => Ok(None),
            };
            next.map(|data| data.map(|data| (data, media)))
        });
        reading.await.map_err(io::Error::other)?
    }
}

/// Somebody who watches a recording.
struct Playing {
    media: Option<Media>,
    follower: Option<Follower>,
    guard: SessionGuard,
    bytes: Arc<AtomicU64>,
    closing: CancellationToken,
    stream: String,
}

impl Playing {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(media) = self.media.take()
            && let Some((data, media)) = media.next().await?
        {
            self.media = Some(media);
            return Ok(Some(data));
        }
        let Some(follower) = &mut self.follower else { return Ok(None) };
        follower.next().await.map_err(io::Error::other)
    }

    fn chunks(self) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
        futures_util::stream::unfold(Some(self), |playing| async move {
            let mut playing = playing?;
            let (kicked, closing) = (playing.guard.kick_token(), playing.closing.clone());
            let next = tokio::select! {
                () = kicked.cancelled() => return None,
                // What has a length is sent to its end, as far as the server waits for it.
                () = closing.cancelled(), if playing.follower.is_some() => return None,
                next = playing.next() => next,
            };
            match next {
                Ok(Some(data)) => {
                    playing.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                    Some((Ok(data), Some(playing)))
                }
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(stream = playing.stream, %error, "a playback breaks off");
                    playing.guard.ends_because("a recording could not be read");
                    Some((Err(error), None))
                }
            }
        })
    }
}

/// What may be asked of a timeline.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TimelineQuery {
    start: Option<String>,
    end: Option<String>,
    resolution: Option<DurationText>,
}

/// What there is of a range of time, in few words: times are milliseconds since 1970.
#[derive(Serialize, JsonSchema)]
pub(super) struct TimelineView {
    /// What is recorded without a gap.
    spans: Vec<SpanView>,
    /// What is missing.
    gaps: Vec<GapView>,
    /// What happened.
    marks: Vec<MarkView>,
    /// What no retention deletes.
    protected: Vec<SpanView>,
    /// Where it breaks off, if there is more than can be told at once.
    next: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
struct SpanView {
    start: i64,
    end: i64,
}

#[derive(Serialize, JsonSchema)]
struct GapView {
    start: i64,
    /// None if nothing has been recorded since.
    end: Option<i64>,
    reason: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct MarkView {
    time: i64,
    kind: String,
    text: String,
    /// How many of this kind there are, closer to each other than the resolution; this is the first.
    count: u64,
}

fn millis(time: WallTime) -> i64 {
    time.as_unix_nanos().div_euclid(1_000_000)
}

pub(super) async fn timeline(
    state: &Arc<ApiState>,
    id: &str,
    query: &TimelineQuery,
) -> Result<Response, Problem> {
    let range = range(query.start.as_ref(), query.end.as_ref())?;
    let resolution = query.resolution.map_or(Duration::ZERO, |text| text.0);
    let found = state.manager.timeline(id, range, resolution).await?;
    let mut view = TimelineView {
        spans: Vec::new(),
        gaps: Vec::new(),
        marks: found
            .marks
            .into_iter()
            .map(|MarkGroup { first, count }| MarkView {
                time: millis(first.time),
                kind: first.kind,
                text: first.text,
                count,
            })
            .collect(),
        protected: found
            .protected
            .into_iter()
            .map(|range| SpanView { start: millis(range.start), end: millis(range.end) })
            .collect(),
        next: found.next.map(millis),
    };
    for item in found.items {
        match item {
            RecordingItem::Span { start, end, .. } => {
                view.spans.push(SpanView { start: millis(start), end: millis(end) });
            }
            RecordingItem::Gap { start, end, reason, .. } => {
                let (start, end) = (millis(start), end.map(millis));
                view.gaps.push(GapView { start, end, reason: reason.name() });
            }
        }
    }
    // As short as it can be: it may be a day, and nobody reads it.
    Ok(axum::Json(view).into_response())
}
