//! `/api/objects`, `/api/counts`, `/api/heat`: what was seen, and what it did.

use super::playback::range;
use super::problem::Problem;
use super::query::{self, Order, bad};
use super::{ApiState, json};
use crate::auth::{Action, Grant};
use crate::frame::WallTime;
use crate::object::Phase;
use crate::shape::Point;
use crate::storage::objects::{CountRow, ObjectFilter, ObjectRow, ObjectsError, PlaceFilter};
use axum::Router;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What a clip shows before and after its object.
const AROUND: Duration = Duration::from_secs(5);
/// Hours of counts at once.
const MOST_COUNTS: usize = 100_000;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/api/objects", get(search))
        .route("/api/objects/{object}", get(one).delete(forget))
        .route("/api/objects/{object}/picture.jpg", get(picture))
        .route("/api/counts", get(counts))
        .route("/api/heat", get(heat))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ObjectsQuery {
    stream: Option<String>,
    label: Option<String>,
    zone: Option<String>,
    min_score: Option<f32>,
    start: Option<String>,
    end: Option<String>,
    order: Option<Order>,
    limit: Option<usize>,
    after: Option<String>,
}

/// An object that was seen.
#[derive(Serialize, JsonSchema)]
pub(super) struct ObjectView {
    #[serde(flatten)]
    row: ObjectRow,
    /// Whether it is still there.
    present: bool,
    /// Where its best picture is, if there is one.
    picture_url: Option<String>,
    /// Where what was recorded of it is, with a few seconds before and after it.
    clip_url: String,
}

impl ObjectView {
    fn new(row: ObjectRow) -> Self {
        let around = i64::try_from(AROUND.as_nanos()).unwrap_or_default();
        let shifted =
            |time: WallTime, by: i64| WallTime::from_unix_nanos(time.as_unix_nanos().saturating_add(by));
        let (start, end) = (shifted(row.event.begin, -around), shifted(row.event.last, around));
        Self {
            present: row.event.phase != Phase::End,
            picture_url: row.has_picture.then(|| format!("/api/objects/{}/picture.jpg", row.event.object)),
            clip_url: format!("/api/streams/{}/playback?start={start}&end={end}&format=mp4", row.stream),
            row,
        }
    }
}

/// A page of objects.
#[derive(Serialize, JsonSchema)]
pub(super) struct ObjectPage {
    items: Vec<ObjectView>,
    /// What `after` has to be for the next page; none on the last.
    next: Option<String>,
}

impl From<ObjectsError> for Problem {
    fn from(error: ObjectsError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "index_unavailable", error.to_string())
    }
}

async fn search(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query: ObjectsQuery = query::parse(&uri)?;
    let limit = query::limit(query.limit)?;
    let min_score = query.min_score.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&min_score) {
        return Err(bad("min_score is out of range; expected 0 to 1"));
    }
    let filter = ObjectFilter {
        streams: query::names(query.stream.as_deref()),
        labels: query::names(query.label.as_deref()),
        zones: query::names(query.zone.as_deref()),
        min_score,
        range: range(query.start.as_ref(), query.end.as_ref())?,
        newest_first: query.order != Some(Order::Oldest),
        after: query::place(query.after.as_deref())?,
    };
    let mut items = state.manager.objects()?.find(filter, limit + 1).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next = last.map(|row| format!("{}.{}", row.event.begin.as_unix_nanos(), row.id));
    // A page may be shorter by those that are not to be seen.
    items.retain(|row| grant.may(Action::Playback, Some(&row.stream)));
    let items = items.into_iter().map(ObjectView::new).collect();
    Ok(json(StatusCode::OK, &ObjectPage { items, next }))
}

fn no_object(name: &str) -> Problem {
    let shown: String = name.chars().take(60).collect();
    Problem::new(StatusCode::NOT_FOUND, "object_not_found", format!("there is no object \"{shown}\""))
}

/// An object, for somebody who may do this with its stream. Others do not learn that there is one.
async fn find(state: &ApiState, grant: &Grant, action: Action, name: &str) -> Result<ObjectRow, Problem> {
    let row = state.manager.objects()?.get(name).await?;
    row.filter(|row| grant.may(action, Some(&row.stream))).ok_or_else(|| no_object(name))
}

async fn one(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let row = find(&state, &grant, Action::Playback, &name).await?;
    Ok(json(StatusCode::OK, &ObjectView::new(row)))
}

async fn forget(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    find(&state, &grant, Action::Record, &name).await?;
    state.manager.objects()?.forget(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn picture(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse_for_media(&uri)?;
    let found = state.manager.objects()?.picture(&name).await?;
    let found = found.filter(|picture| grant.may(Action::Playback, Some(&picture.stream)));
    let picture = found.ok_or_else(|| no_object(&name))?;
    // It may be replaced by a better one while the object is there.
    let headers = [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "private, max-age=10")];
    Ok((headers, picture.jpeg).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CountsQuery {
    stream: Option<String>,
    place: Option<String>,
    start: Option<String>,
    end: Option<String>,
}

/// Counts, hour by hour.
#[derive(Serialize, JsonSchema)]
pub(super) struct CountPage {
    items: Vec<CountRow>,
    next: Option<String>,
}

/// The stream that is asked for, by somebody who may see what was recorded of it.
fn stream_of(grant: &Grant, stream: Option<String>) -> Result<String, Problem> {
    let stream =
        stream.filter(|id| !id.is_empty()).ok_or_else(|| bad("stream is missing; expected a stream's id"))?;
    if grant.may(Action::Playback, Some(&stream)) {
        return Ok(stream);
    }
    let shown: String = stream.chars().take(60).collect();
    Err(Problem::new(StatusCode::NOT_FOUND, "stream_not_found", format!("there is no stream \"{shown}\"")))
}

async fn counts(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query: CountsQuery = query::parse(&uri)?;
    let filter = PlaceFilter {
        stream: stream_of(&grant, query.stream)?,
        places: query::names(query.place.as_deref()),
        range: range(query.start.as_ref(), query.end.as_ref())?,
    };
    let items = state.manager.objects()?.counts(filter, MOST_COUNTS).await?;
    Ok(json(StatusCode::OK, &CountPage { items, next: None }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HeatQuery {
    stream: Option<String>,
    zone: Option<String>,
    start: Option<String>,
    end: Option<String>,
}

async fn heat(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query: HeatQuery = query::parse(&uri)?;
    let stream = stream_of(&grant, query.stream)?;
    let range = range(query.start.as_ref(), query.end.as_ref())?;
    let zone = query.zone.map(|name| zone_of(&state, &stream, &name)).transpose()?;
    let mut map = state.manager.objects()?.heat(&stream, range).await?;
    if let Some(points) = zone {
        map.keep_within(&points);
    }
    Ok(json(StatusCode::OK, &map))
}

/// The corners of a stream's zone, as it is now.
fn zone_of(state: &ApiState, stream: &str, name: &str) -> Result<Vec<Point>, Problem> {
    let info = state.manager.info(stream)?;
    #[cfg(feature = "inference")]
    let running = info.handle().map(|handle| handle.analysis().settings());
    #[cfg(not(feature = "inference"))]
    let running: Option<crate::config::AnalysisSettings> = None;
    let defined = || {
        let defaults = &state.manager.config().defaults;
        info.definition.as_ref().map(|definition| definition.config.resolve(defaults).inference)
    };
    let zones = running.or_else(defined).map(|settings| settings.scene.zones).unwrap_or_default();
    let found = zones.into_iter().find(|zone| zone.name == name);
    found.map(|zone| zone.points).ok_or_else(|| {
        let shown: String = name.chars().take(60).collect();
        let detail = format!("the stream \"{stream}\" has no zone \"{shown}\"");
        Problem::new(StatusCode::NOT_FOUND, "zone_not_found", detail)
    })
}
