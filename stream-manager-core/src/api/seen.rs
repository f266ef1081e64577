//! `/api/streams/{id}/detections`: what is seen in a stream's pictures, one after the other, by WebSocket or as server-sent events. Each
//! has the picture's presentation time on the timeline of what is played, so that a player draws it over that one.

use super::ApiState;
use super::access::{Refused, authorize};
use super::listen::{Line, Lines, listen};
use super::query;
use crate::auth::Action;
use crate::frame::MediaTime;
use crate::hub::{Hub, Played, Seen};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Somebody who shows the stream.
struct Listener {
    hub: Hub,
    #[cfg(feature = "hls")]
    packager: crate::hls::Packager,
    seen: broadcast::Receiver<Seen>,
}

impl Listener {
    /// As playlists have it, while there are some.
    fn played(&self, pts: MediaTime) -> Played {
        #[cfg(feature = "hls")]
        if let Some(made) = self.packager.now().filter(|made| made.has_begun()) {
            return Played::Playlist(made.utc_of(pts));
        }
        let _ = pts;
        Played::Stream
    }
}

impl Lines for Listener {
    async fn next(&mut self) -> Option<Line> {
        let line = |kind: &str, json: String| Line { id: None, kind: kind.into(), json: json.into() };
        loop {
            let seen = tokio::select! {
                () = self.hub.closed() => return None,
                seen = self.seen.recv() => seen,
            };
            match seen {
                Ok(seen) => {
                    if let Some(pts) = self.hub.time_of(&seen) {
                        return Some(line("detections", seen.message(pts, self.played(pts))));
                    }
                }
                Err(RecvError::Lagged(count)) => {
                    let json = serde_json::json!({"missed": count});
                    return Some(line("missed", json.to_string()));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn end(&self) -> &'static str {
        "the stream has ended"
    }
}

/// Whoever may watch the stream may know what is seen in it.
pub(super) async fn detections(state: &Arc<ApiState>, id: &str, request: Request) -> Response {
    answer(state, id, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(state: &Arc<ApiState>, id: &str, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    authorize(state, &parts, id, Action::Read, "detections").await?;
    let _: query::Nothing = query::parse(&parts.uri)?;
    let handle = state.manager.running(id).map_err(super::problem::Problem::from)?;
    let hub = handle.hub().clone();
    let listener = Listener {
        seen: hub.seen(),
        hub,
        #[cfg(feature = "hls")]
        packager: handle.packager().clone(),
    };
    Ok(listen(state, Request::from_parts(parts, body), listener).await?)
}
