//! `live.mp4`: endless fMP4 over HTTP, and over a WebSocket for Media Source Extensions.

use super::super::ApiState;
use super::super::access::{Refused, authorize, peer, user_agent};
use super::super::problem::Problem;
use super::super::websocket::{Goodbye, Outgoing, serve, upgrade};
use super::access::presentation;
use crate::auth::Action;
use crate::hls::{LiveItem, LiveReader, LiveTracks, PackagerUse};
use crate::session::{NewSession, SessionGuard, SessionKind, SessionStats};
use axum::body::Body;
use axum::extract::Request;
use axum::extract::ws::{Message, WebSocket};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// Somebody who reads along.
struct Viewing {
    reader: LiveReader,
    guard: SessionGuard,
    _keep: PackagerUse,
    bytes: Arc<AtomicU64>,
    skipped: Arc<AtomicU64>,
    closing: CancellationToken,
}

impl Viewing {
    /// The next parts; `None` when it is over.
    async fn items(&mut self) -> Option<Vec<LiveItem>> {
        let kicked = self.guard.kick_token();
        let items = tokio::select! {
            () = self.closing.cancelled() => None,
            () = kicked.cancelled() => None,
            items = self.reader.next() => items,
        };
        self.skipped.store(self.reader.skipped(), Ordering::Relaxed);
        items
    }

    fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Answers a request for `live.mp4`.
pub(in super::super) async fn live(state: &Arc<ApiState>, stream: &str, request: Request) -> Response {
    let allow_origin = state.manager.config().hls.allow_origin.clone();
    let (request, _) = request.into_parts();
    let asked = request.headers.clone();
    let mut response = answer(state, stream, request).await.unwrap_or_else(IntoResponse::into_response);
    super::super::cors::cors(&mut response, &allow_origin, &asked, &super::CORS);
    response
}

async fn answer(state: &Arc<ApiState>, stream: &str, mut request: Parts) -> Result<Response, Refused> {
    if request.method == Method::OPTIONS {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if !state.manager.config().hls.enabled {
        let detail = "live.mp4 is not served; hls.enabled is false";
        return Err(Problem::new(StatusCode::NOT_FOUND, "hls_disabled", detail).into());
    }
    let by_websocket = request.headers.contains_key(header::UPGRADE);
    let protocol = if by_websocket { "ws-fmp4" } else { "fmp4" };
    let grant = authorize(state, &request, stream, Action::Read, protocol).await?;
    let packager = super::access::packager(state, stream)?;
    let keep = packager.keep();
    let presentation = presentation(state, stream).await?;
    if request.method == Method::HEAD {
        return Ok([(header::CONTENT_TYPE, HeaderValue::from_static("video/mp4"))].into_response());
    }
    let (bytes, skipped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counted = (bytes.clone(), skipped.clone());
    let stats = Arc::new(move || SessionStats {
        bytes: counted.0.load(Ordering::Relaxed),
        dropped_frames: counted.1.load(Ordering::Relaxed),
        ..SessionStats::default()
    });
    let new = NewSession {
        protocol,
        kind: SessionKind::Reader,
        stream: stream.into(),
        address: peer(&request),
        user: grant.user,
        user_agent: user_agent(&request),
        transport: if by_websocket { "websocket" } else { "http" },
    };
    let guard = state.manager.sessions().open(new, stats);
    let closing = state.options.closing.clone();
    let viewing =
        Viewing { reader: LiveReader::new(presentation), guard, _keep: keep, bytes, skipped, closing };
    if !by_websocket {
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("video/mp4"))];
        return Ok((headers, Body::from_stream(chunks(viewing))).into_response());
    }
    let upgrade = upgrade(&mut request).await?;
    Ok(upgrade.on_upgrade(move |socket| over_websocket(socket, viewing)))
}

/// What goes out over HTTP: one initialization segment, then parts. It ends when a track is encoded differently, which
/// MP4 has no words for in mid-stream.
fn chunks(viewing: Viewing) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    let batches = futures_util::stream::unfold((viewing, false), |(mut viewing, begun)| async move {
        let items = viewing.items().await?;
        let mut out = Vec::with_capacity(items.len() + 1);
        let mut begun = begun;
        for item in &items {
            match viewing.reader.tracks_before(item) {
                Ok(None) => {}
                Ok(Some(tracks)) if !begun => {
                    begun = true;
                    out.push(tracks.init);
                }
                _ => {
                    viewing.guard.ends_because("a track is encoded differently now");
                    // Nothing behind this is for this answer.
                    viewing.closing = closed();
                    break;
                }
            }
            out.extend(viewing.reader.pieces(item).into_iter().flat_map(|part| [part.header, part.payload]));
        }
        viewing.sent(out.iter().map(Bytes::len).sum());
        Some((futures_util::stream::iter(out.into_iter().map(Ok)), (viewing, begun)))
    });
    batches.flatten()
}

fn closed() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

/// What a player has to know, and where its zero is on the stream's timeline, for what else has times on that.
fn told(tracks: &LiveTracks) -> String {
    serde_json::json!({"mime": tracks.mime, "start_pts_secs": tracks.zero.as_secs_f64()}).to_string()
}

/// What goes out over a WebSocket: for each set of tracks a text `{"mime": …, "start_pts_secs": …}`, then its initialization segment and
/// parts, as binary messages that are pieces of one row of bytes.
impl Outgoing for Viewing {
    async fn next(&mut self) -> Result<Vec<Message>, Goodbye> {
        let items = self.items().await.ok_or(Goodbye::over("the stream or the session has ended"))?;
        let mut messages = Vec::with_capacity(items.len() + 2);
        for item in &items {
            match self.reader.tracks_before(item) {
                Ok(None) => {}
                Ok(Some(tracks)) => {
                    messages.push(Message::Text(told(&tracks).into()));
                    messages.push(Message::Binary(tracks.init));
                }
                Err(error) => {
                    tracing::warn!(%error, "tracks cannot be written");
                    return Err(Goodbye::failed("the tracks cannot be written"));
                }
            }
            if let Some(part) = self.reader.pieces(item) {
                self.sent(part.header.len() + part.payload.len());
                messages.extend([Message::Binary(part.header), Message::Binary(part.payload)]);
            }
        }
        Ok(messages)
    }
}

async fn over_websocket(socket: WebSocket, mut viewing: Viewing) {
    if let Some(goodbye) = serve(socket, &mut viewing).await {
        viewing.guard.ends_because(goodbye.reason);
    }
}
