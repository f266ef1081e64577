//! `/api/backups`: streams, settings, users and recordings, put by.

use super::access::Refused;
use super::file;
use super::problem::Problem;
use super::query::{self, PageQuery};
use super::{ApiState, accepted, json};
use crate::manager::{BackupInfo, BackupState, BackupTrigger};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/api/backups", get(all).post(begin))
        .route("/api/backups/{id}", get(one).delete(remove))
        .route("/api/backups/{id}/file", get(download))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NewQuery {
    /// Of what, with commas between; as the configuration says if not given.
    include: Option<String>,
}

/// Backups, the oldest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct BackupPage {
    items: Vec<BackupInfo>,
    /// What `after` has to be for the next page; none on the last.
    next: Option<String>,
}

fn not_found(id: &str) -> Problem {
    let shown: String = id.chars().take(60).collect();
    Problem::new(StatusCode::NOT_FOUND, "backup_not_found", format!("there is no backup \"{shown}\""))
}

async fn all(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Response, Problem> {
    let query: PageQuery = query::parse(&uri)?;
    let (items, next) = query.page(state.manager.backups().await, |backup| &backup.id)?;
    Ok(json(StatusCode::OK, &BackupPage { items, next }))
}

async fn begin(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Response, Problem> {
    let query: NewQuery = query::parse(&uri)?;
    let text = query.include.as_deref();
    let include = query::values("include", text)?;
    let begun = state.manager.begin_backup(text.map(|_| include), BackupTrigger::Request).await?;
    Ok(accepted(&begun, &format!("/api/backups/{}", begun.id)))
}

async fn one(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let backup = state.manager.backup(&id).await.ok_or_else(|| not_found(&id))?;
    Ok(json(StatusCode::OK, &backup))
}

async fn remove(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    if state.manager.delete_backup(&id).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(not_found(&id))
    }
}

/// The archive itself, whole or in pieces.
async fn download(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (parts, _) = request.into_parts();
    let _: query::Nothing = query::parse_for_media(&parts.uri)?;
    let backup = state.manager.backup(&id).await.ok_or_else(|| not_found(&id))?;
    if backup.state != BackupState::Done {
        let detail = backup
            .problem
            .unwrap_or_else(|| format!("it is not done yet ({:.0} %)", backup.progress * 100.0));
        return Err(Problem::new(StatusCode::CONFLICT, "backup_not_done", detail).into());
    }
    let sent = file::File {
        path: &state.manager.backup_file(&backup),
        media_type: if backup.encrypted { "application/octet-stream" } else { "application/gzip" },
        name: &backup.file,
        sha256: backup.sha256.as_deref().unwrap_or_default(),
    };
    Ok(file::send(&parts, sent).await?)
}
