//! `/api/streams/{id}/recordings` and `/api/storage`: what has been recorded, and how the disks are.

use super::playback::range;
use super::problem::Problem;
use super::query::{self, bad};
use super::{ApiState, json};
use crate::config::DurationText;
use crate::frame::WallTime;
use crate::manager::ManagerError;
use crate::recording::RecordingTrigger;
use crate::storage::index::{Mark, RecordingItem, SegmentId, SegmentRow, TimeRange};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What may be asked of recordings.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RecordingsQuery {
    start: Option<String>,
    end: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
    view: Option<View>,
    protected: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum View {
    Spans,
    Segments,
    Marks,
}

/// A page of recordings: spans and gaps, or segments, or marks.
#[derive(Serialize, JsonSchema)]
pub(super) struct RecordingsPage {
    items: Vec<RecordingsItem>,
    /// What `after` has to be for the next page; none on the last.
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum RecordingsItem {
    Item(ItemView),
    Segment(SegmentView),
    Mark(Mark),
}

#[derive(Serialize, JsonSchema)]
struct SegmentView {
    #[serde(flatten)]
    row: SegmentRow,
    duration_secs: f64,
    #[schemars(with = "Vec<crate::frame::TrackInfo>")]
    tracks: serde_json::Value,
}

#[derive(Serialize, JsonSchema)]
struct ItemView {
    #[serde(flatten)]
    item: RecordingItem,
    duration_secs: Option<f64>,
}

/// What was deleted.
#[derive(Serialize, JsonSchema)]
pub(super) struct Deleted {
    segments: u64,
    bytes: u64,
}

/// How many segments have changed.
#[derive(Serialize, JsonSchema)]
pub(super) struct Protected {
    segments: usize,
}

/// A range of which both ends are given: what changes recordings is not guessed.
fn whole_range(query: &RecordingsQuery) -> Result<TimeRange, Problem> {
    if query.start.is_none() || query.end.is_none() {
        return Err(bad(
            "start and end are needed here; expected RFC 3339 times such as 2026-01-31T23:59:59Z, or seconds since 1970",
        ));
    }
    range(query.start.as_ref(), query.end.as_ref())
}

pub(super) async fn list(
    state: &Arc<ApiState>,
    id: &str,
    query: &RecordingsQuery,
) -> Result<Response, Problem> {
    let mut range = range(query.start.as_ref(), query.end.as_ref())?;
    let limit = query::limit(query.limit)?;
    let cursor = query.after.as_deref().unwrap_or_default();
    let no_cursor =
        || query::contradiction(format!("after is \"{cursor}\"; expected the \"next\" of the page before"));
    match query.view.unwrap_or(View::Spans) {
        View::Spans => {
            if !cursor.is_empty() {
                let from = cursor.parse().map(WallTime::from_unix_nanos).map_err(|_| no_cursor())?;
                range.start = range.start.max(from);
            }
            let (items, next) = state.manager.recordings(id, range, limit).await?;
            let items = items
                .into_iter()
                .map(|item| {
                    let duration_secs = match &item {
                        RecordingItem::Span { start, end, .. } => {
                            Some(end.saturating_since(*start).as_secs_f64())
                        }
                        RecordingItem::Gap { start, end, .. } => {
                            end.map(|end| end.saturating_since(*start).as_secs_f64())
                        }
                    };
                    RecordingsItem::Item(ItemView { item, duration_secs })
                })
                .collect();
            let next = next.map(|time| time.as_unix_nanos().to_string());
            Ok(json(StatusCode::OK, &RecordingsPage { items, next }))
        }
        View::Marks => {
            if !cursor.is_empty() {
                let from = cursor.parse().map(WallTime::from_unix_nanos).map_err(|_| no_cursor())?;
                range.start = range.start.max(from);
            }
            let mut marks = state.manager.marks(id, range, limit + 1).await?;
            let next = marks.get(limit).map(|mark| mark.time.as_unix_nanos().to_string());
            marks.truncate(limit);
            let items = marks.into_iter().map(RecordingsItem::Mark).collect();
            Ok(json(StatusCode::OK, &RecordingsPage { items, next }))
        }
        View::Segments => {
            let after = match cursor {
                "" => None,
                cursor => {
                    let (start, id) = cursor.split_once('.').ok_or_else(no_cursor)?;
                    let start = start.parse().map_err(|_| no_cursor())?;
                    Some((WallTime::from_unix_nanos(start), SegmentId(id.parse().map_err(|_| no_cursor())?)))
                }
            };
            let mut rows = state.manager.segments(id, range, after, limit + 1).await?;
            let more = rows.len() > limit;
            rows.truncate(limit);
            let last = rows.last().filter(|_| more);
            let next = last.map(|row| format!("{}.{}", row.start.as_unix_nanos(), row.id.0));
            let items = rows
                .into_iter()
                .map(|row| {
                    RecordingsItem::Segment(SegmentView {
                        duration_secs: row.end.saturating_since(row.start).as_secs_f64(),
                        tracks: serde_json::from_str(&row.tracks).unwrap_or_default(),
                        row,
                    })
                })
                .collect();
            Ok(json(StatusCode::OK, &RecordingsPage { items, next }))
        }
    }
}

pub(super) async fn delete(
    state: &Arc<ApiState>,
    id: &str,
    query: &RecordingsQuery,
) -> Result<Response, Problem> {
    let range = whole_range(query)?;
    let (segments, bytes) = state.manager.delete_recordings(id, range, query.protected).await?;
    Ok(json(StatusCode::OK, &Deleted { segments, bytes }))
}

pub(super) async fn protect(
    state: &Arc<ApiState>,
    id: &str,
    query: &RecordingsQuery,
    protected: bool,
) -> Result<Response, Problem> {
    let range = whole_range(query)?;
    let segments = state.manager.protect_recordings(id, range, protected).await?;
    Ok(json(StatusCode::OK, &Protected { segments }))
}

/// What is said of an event beside its body.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TriggerQuery {
    kind: Option<String>,
    text: Option<String>,
    duration: Option<DurationText>,
}

/// The longest name of a kind, and the longest text.
const MAX_KIND: usize = 60;
pub(super) const MAX_TEXT: usize = 500;
/// The most that is kept with an event.
pub(super) const MAX_DATA_BYTES: usize = 64 << 10;
/// The longest time that one event may ask for.
const MAX_EVENT: Duration = Duration::from_secs(86_400);

/// Whether it can be the name of a kind.
pub(super) fn check_kind(kind: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if kind.is_empty() || kind.len() > MAX_KIND || !kind.chars().all(plain) {
        let shown: String = kind.chars().take(MAX_KIND).collect();
        return Err(format!(
            "\"{shown}\"; expected 1 to {MAX_KIND} letters, digits, '.', '_' or '-', such as motion"
        ));
    }
    Ok(())
}

/// An event as somebody tells of it: what is to be known of it stands in the address, so that whatever sends webhooks can do it. A body
/// that is JSON is kept with it.
pub(super) fn trigger(query: &TriggerQuery, body: &[u8]) -> Result<RecordingTrigger, Problem> {
    let kind = query.kind.clone().unwrap_or_else(|| "event".to_owned());
    check_kind(&kind).map_err(|problem| bad(format!("kind is {problem}")))?;
    let text = query.text.clone().unwrap_or_default();
    if text.chars().count() > MAX_TEXT {
        return Err(bad(format!("text is longer than {MAX_TEXT} characters")));
    }
    let duration = query.duration.map(|text| text.0);
    if let Some(duration) = duration.filter(|d| d.is_zero() || *d > MAX_EVENT) {
        return Err(bad(format!(
            "duration is {}; expected more than 0s and at most 24h",
            DurationText(duration)
        )));
    }
    if body.len() > MAX_DATA_BYTES {
        let detail =
            format!("the body has {} bytes; at most {MAX_DATA_BYTES} are kept with an event", body.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail));
    }
    let data = serde_json::from_slice(body).unwrap_or_default();
    Ok(RecordingTrigger { kind, text, data, duration, extends: false })
}

pub(super) async fn storage(
    State(state): State<Arc<ApiState>>,
    uri: axum::http::Uri,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let report = state.manager.storage().await.map_err(|error: ManagerError| Problem::from(error))?;
    Ok(json(StatusCode::OK, &report))
}
