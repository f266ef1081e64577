//! `/api/exports` and `/api/streams/{id}/exports`: recordings that leave as files.

use super::access::Refused;
use super::body::{self, Media};
use super::file;
use super::problem::Problem;
use super::query::{self, PageQuery};
use super::{ApiState, accepted, json};
use crate::auth::{Action, Grant};
use crate::config::DurationText;
use crate::frame::WallTime;
use crate::manager::{ExportInfo, ExportState};
use crate::playback::{ExportFormat, ExportOptions, Gaps, TimeZoneName};
use crate::storage::index::TimeRange;
use axum::Router;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/api/exports", get(all))
        .route("/api/exports/{id}", get(one).delete(remove))
        .route("/api/exports/{id}/file", get(download))
}

/// What is to be exported.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewExport {
    /// From here on: RFC 3339, or seconds since 1970.
    start: WallTime,
    /// Up to here.
    #[serde(default)]
    end: Option<WallTime>,
    /// Or for so long.
    #[serde(default)]
    duration: Option<DurationText>,
    /// Where something is missing: time closes up over it, or the file ends.
    #[serde(default)]
    gaps: Gaps,
    /// The container.
    #[serde(default)]
    format: ExportFormat,
    /// Begins and ends with the picture at these times, instead of with a keyframe.
    #[serde(default)]
    exact: bool,
    /// A time-lapse: so many times as fast.
    #[serde(default)]
    #[schemars(range(min = 0.1, max = 10_000.0))]
    speed: Option<f64>,
    /// Writes the time into each picture, in this time zone.
    #[serde(default)]
    burn_time: Option<TimeZoneName>,
}

/// Exports, as they were asked for.
#[derive(Serialize, JsonSchema)]
pub(super) struct ExportPage {
    items: Vec<ExportInfo>,
    /// What `after` has to be for the next page; none on the last.
    next: Option<String>,
}

fn not_found(id: &str) -> Problem {
    let shown: String = id.chars().take(60).collect();
    Problem::new(StatusCode::NOT_FOUND, "export_not_found", format!("there is no export \"{shown}\""))
}

async fn all(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut exports = state.manager.exports();
    exports.retain(|export| grant.may(Action::Playback, Some(&export.stream)));
    page(exports, &query::parse(&uri)?)
}

pub(super) async fn of_stream(state: &ApiState, stream: &str, uri: &Uri) -> Result<Response, Problem> {
    let query = query::parse(uri)?;
    page(state.manager.exports_of(stream).await?, &query)
}

fn page(items: Vec<ExportInfo>, query: &PageQuery) -> Result<Response, Problem> {
    let (items, next) = query.page(items, |export| &export.id)?;
    Ok(json(StatusCode::OK, &ExportPage { items, next }))
}

async fn one(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let export = state.manager.export(&id).ok_or_else(|| not_found(&id))?;
    Ok(json(StatusCode::OK, &export))
}

async fn remove(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    if state.manager.delete_export(&id).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(not_found(&id))
    }
}

/// Begins one.
pub(super) async fn begin(
    state: &Arc<ApiState>,
    stream: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Problem> {
    let new: NewExport = body::object(body::value(headers, body, Media::Json)?)?;
    let start = new.start;
    let end = match (new.end, new.duration) {
        (Some(end), None) => end,
        (None, Some(duration)) => start + duration.0,
        _ => return Err(Problem::invalid_body("/end", "expected an end, or a duration, and not both")),
    };
    let range = TimeRange::new(start, end).map_err(|e| Problem::invalid_body("/end", e.to_string()))?;
    let options = ExportOptions {
        format: new.format,
        exact: new.exact,
        speed: new.speed,
        burn_time: new.burn_time,
        overwrite: false,
    };
    let begun = state.manager.begin_export(stream, range, new.gaps, options).await?;
    Ok(accepted(&begun, &format!("/api/exports/{}", begun.id)))
}

/// The file itself, whole or in pieces.
async fn download(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (parts, _) = request.into_parts();
    let _: query::Nothing = query::parse_for_media(&parts.uri)?;
    let export = state.manager.export(&id).ok_or_else(|| not_found(&id))?;
    let result = match (export.state, export.result) {
        (ExportState::Done, Some(result)) => result,
        (ExportState::Failed, _) => {
            let detail = export.problem.unwrap_or_default();
            return Err(Problem::new(StatusCode::CONFLICT, "export_ended", detail).into());
        }
        _ => {
            let detail = format!("it is not done yet ({:.0} %)", export.progress * 100.0);
            return Err(Problem::new(StatusCode::CONFLICT, "export_running", detail).into());
        }
    };
    let kind = match export.options.format {
        ExportFormat::Mp4 | ExportFormat::Fmp4 => "video/mp4",
        ExportFormat::Ts => "video/mp2t",
        ExportFormat::Mkv => "video/x-matroska",
    };
    let begins: String = result.start.to_string().chars().map(|c| if c == ':' { '-' } else { c }).collect();
    let extension = export.options.format.extension();
    let name = format!("{}_{begins}.{extension}", export.stream.replace('/', "_"));
    let sent = file::File { path: &result.path, media_type: kind, name: &name, sha256: &result.sha256 };
    Ok(file::send(&parts, sent).await?)
}
