//! `/api/marks` and `/api/streams/{id}/marks`: what is marked in recordings.

use super::body::{self, Media};
use super::playback::range;
use super::problem::Problem;
use super::query::{self, Order, bad};
use super::recordings::{MAX_DATA_BYTES, MAX_TEXT, check_kind};
use super::{ApiState, json};
use crate::auth::{Action, Grant};
use crate::frame::WallTime;
use crate::storage::index::{Mark, MarkFilter, MarkRow};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// Which marks are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MarksQuery {
    stream: Option<String>,
    kind: Option<String>,
    text: Option<String>,
    start: Option<String>,
    end: Option<String>,
    order: Option<Order>,
    limit: Option<usize>,
    after: Option<String>,
}

/// A page of marks.
#[derive(Serialize, JsonSchema)]
pub(super) struct MarkPage {
    items: Vec<MarkRow>,
    /// What `after` has to be for the next page; none on the last.
    next: Option<String>,
}

/// A mark that is to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMark {
    /// When: RFC 3339, or seconds since 1970; now if it is not given.
    #[serde(default)]
    time: Option<WallTime>,
    /// What kind of thing.
    #[serde(default = "note")]
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,60}$"))]
    kind: String,
    /// In words.
    #[serde(default)]
    #[schemars(length(max = 500))]
    text: String,
    /// Anything else.
    #[serde(default)]
    data: Value,
}

fn note() -> String {
    "note".into()
}

/// All streams' marks.
pub(super) async fn search(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    uri: Uri,
) -> Result<Response, Problem> {
    list(&state, None, &grant, query::parse(&uri)?).await
}

/// Marks of one stream, or of all.
pub(super) async fn list(
    state: &Arc<ApiState>,
    stream: Option<&str>,
    grant: &Grant,
    query: MarksQuery,
) -> Result<Response, Problem> {
    if stream.is_some() && query.stream.is_some() {
        return Err(bad("stream stands in the path already"));
    }
    let limit = query::limit(query.limit)?;
    let filter = MarkFilter {
        stream: stream.map(str::to_owned),
        streams: query::names(query.stream.as_deref()),
        kinds: query::names(query.kind.as_deref()),
        text: query.text,
        range: range(query.start.as_ref(), query.end.as_ref())?,
        newest_first: query.order == Some(Order::Newest),
        after: query::place(query.after.as_deref())?,
    };
    let mut items = state.manager.find_marks(filter, limit + 1).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next = last.map(|row| format!("{}.{}", row.mark.time.as_unix_nanos(), row.id));
    // A page may be shorter by those that are not to be seen.
    items.retain(|row| grant.may(Action::Playback, Some(&row.stream)));
    Ok(json(StatusCode::OK, &MarkPage { items, next }))
}

/// Makes one.
pub(super) async fn add(
    state: &Arc<ApiState>,
    stream: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Problem> {
    let new: NewMark = body::object(body::value(headers, body, Media::Json)?)?;
    check_kind(&new.kind).map_err(|problem| Problem::invalid_body("/kind", problem))?;
    if new.text.chars().count() > MAX_TEXT {
        return Err(Problem::invalid_body("/text", format!("it is longer than {MAX_TEXT} characters")));
    }
    if new.data.to_string().len() > MAX_DATA_BYTES {
        return Err(Problem::invalid_body("/data", format!("it is longer than {MAX_DATA_BYTES} bytes")));
    }
    let mark =
        Mark { time: new.time.unwrap_or_else(WallTime::now), kind: new.kind, text: new.text, data: new.data };
    let made = state.manager.add_mark(stream, mark).await?;
    Ok(json(StatusCode::CREATED, &made))
}

/// Takes one away.
pub(super) async fn remove(state: &Arc<ApiState>, stream: &str, number: &str) -> Result<Response, Problem> {
    let none = || {
        let shown: String = number.chars().take(40).collect();
        Problem::new(StatusCode::NOT_FOUND, "mark_not_found", format!("there is no mark \"{shown}\" here"))
    };
    let number_read = number.parse().map_err(|_| none())?;
    if state.manager.remove_mark(stream, number_read).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(none())
    }
}
