//! DASH: the manifest, the same segments, and the time.

use super::super::ApiState;
use super::super::access::Refused;
use super::access::{Part as Kind, enter};
use super::answer::{MPD, cache_control, text};
use super::hls::{segment, variants};
use super::{File, Wanted, no_such_file};
use crate::auth::Action;
use crate::frame::WallTime;
use crate::hls::{MpdOptions, manifest};
use axum::extract::OriginalUri;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

pub(super) async fn answer(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
) -> Result<Response, Refused> {
    match (wanted.file, File::of(wanted.file)) {
        ("manifest.mpd", _) => mpd(state, request, wanted).await,
        ("time", _) => {
            let now = WallTime::now().to_string();
            let headers = [(header::CONTENT_TYPE, "text/plain"), (header::CACHE_CONTROL, "no-store")];
            Ok((headers, now).into_response())
        }
        (_, Some(File::Init(..) | File::Segment(..) | File::Part(..))) => {
            let file = File::of(wanted.file).ok_or_else(|| Refused::from(no_such_file(wanted.file)))?;
            segment(state, request, wanted, file, "dash").await
        }
        _ => Err(Refused::from(no_such_file(wanted.file))),
    }
}

/// Where a stream's files are, wherever this API is mounted.
fn base(request: &Parts, wanted: Wanted<'_>) -> String {
    let asked = request.extensions.get::<OriginalUri>().map_or(request.uri.path(), |uri| uri.0.path());
    let own = match wanted.session {
        Some(session) => format!("s/{session}/{}", wanted.file),
        None => wanted.file.to_owned(),
    };
    asked.strip_suffix(&own).unwrap_or("./").to_owned()
}

async fn mpd(state: &Arc<ApiState>, request: &Parts, wanted: Wanted<'_>) -> Result<Response, Refused> {
    let viewer = enter(state, request, wanted, "dash", Kind::Playlist, Action::Read).await?;
    let variants = variants(state, wanted, "").await?;
    let named = state.manager.config().hls.sessions && wanted.session.is_none();
    let base = base(request, wanted);
    let location = viewer.as_ref().filter(|_| named).map(|v| format!("{base}s/{}/manifest.mpd", v.token));
    let options = MpdOptions { location, base };
    let manifest = manifest(&variants, &options);
    if let Some(viewer) = viewer {
        viewer.sent(manifest.plain().len() as u64);
    }
    let cache = if named {
        HeaderValue::from_static("no-store")
    } else {
        cache_control(&request.headers, "no-cache")
    };
    Ok(text(&request.headers, &manifest, MPD, cache))
}
