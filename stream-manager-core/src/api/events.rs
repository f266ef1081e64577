//! `/api/events`: what happens, by WebSocket or as server-sent events, and what a listener has missed.
//!
//! Each listener has a bounded queue. One that takes nothing for a while is cut off with a reason; it can go on behind
//! the last number that it has.

use super::ApiState;
use super::problem::Problem;
use super::query;
use crate::auth::Grant;
use crate::manager::{EventFilter, EventListener, Heard};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, FromRequestParts, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// A listener that takes nothing for this long is cut off.
const SLOW: Duration = Duration::from_secs(10);
/// How often a quiet connection is tried.
const PING: Duration = Duration::from_secs(15);
/// A WebSocket that has said nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Events that may wait for one listener by SSE.
const QUEUE_LENGTH: usize = 64;
/// The most that a client may send at once: it has nothing to say.
const MAX_MESSAGE_BYTES: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    stream: Option<String>,
    kind: Option<String>,
    after: Option<u64>,
}

pub(super) async fn events(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    request: Request,
) -> Result<Response, Problem> {
    let query: EventsQuery = query::parse(request.uri())?;
    let filter = EventFilter::new()
        .kinds(&query::names(query.kind.as_deref()))
        .map_err(|e| query::bad(format!("kind: {e}")))?;
    let streams = query::names(query.stream.as_deref());
    let filter = filter.streams(&streams).map_err(|e| query::bad(format!("stream: {e}")))?;
    let filter = if streams.is_empty() { filter } else { filter.only_streams() };
    let filter = filter.seen_by(grant);
    let after = query.after.or(last_event_id(request.headers())?);
    let place = state.listeners.clone().try_acquire_owned().map_err(|_| {
        let detail = "there are too many listeners; end one, or use a filter instead of several connections";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_listeners", detail)
    })?;
    // From here on nothing is missed, however long the answer takes.
    let listener = state.manager.listen(filter, after);
    let closing = state.options.closing.clone();
    if request.headers().contains_key(header::UPGRADE) {
        let (mut parts, _) = request.into_parts();
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &state)
            .await
            .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "invalid_upgrade", e.body_text()))?;
        return Ok(upgrade
            .max_message_size(MAX_MESSAGE_BYTES)
            .max_frame_size(MAX_MESSAGE_BYTES)
            .on_upgrade(move |socket| by_websocket(socket, listener, closing, place)));
    }
    Ok(by_sse(&state, listener, closing, place))
}

/// What a browser sends when it connects again.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let id = value.to_str().ok().map(str::trim);
    match id {
        Some("") => Ok(None),
        Some(id) if id.parse::<u64>().is_ok() => Ok(id.parse().ok()),
        _ => {
            let detail = "Last-Event-ID is no number; expected the id of an event";
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_header", detail))
        }
    }
}

/// What a listener is told if events are no longer to be had.
fn missed(last: u64) -> String {
    serde_json::json!({"kind": "missed", "after": last}).to_string()
}

async fn by_websocket(
    socket: WebSocket,
    mut listener: EventListener,
    closing: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let (mut sender, mut receiver) = socket.split();
    let mut heard_at = Instant::now();
    let mut ping = tokio::time::interval(PING);
    let reason = loop {
        let message = tokio::select! {
            () = closing.cancelled() => break Some((1001, "the server is shutting down")),
            heard = listener.next() => match heard {
                None => break Some((1001, "the server is shutting down")),
                Some(Heard::Event(entry)) => Message::Text((&*entry.json).into()),
                Some(Heard::Missed) => Message::Text(missed(listener.last()).into()),
            },
            message = receiver.next() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => break None,
                Some(Ok(_)) => {
                    heard_at = Instant::now();
                    continue;
                }
            },
            _ = ping.tick() => {
                if heard_at.elapsed() >= SILENCE {
                    break Some((1008, "no answer to pings"));
                }
                Message::Ping(Vec::new().into())
            }
        };
        match tokio::time::timeout(SLOW, sender.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break None,
            Err(_) => break Some((1008, "too slow: nothing was taken for ten seconds")),
        }
    };
    if let Some((code, reason)) = reason {
        tracing::debug!(code, reason, "a listener to events is cut off");
        let frame = CloseFrame { code, reason: reason.into() };
        // It may take as little as before.
        let _ = tokio::time::timeout(Duration::from_secs(1), sender.send(Message::Close(Some(frame)))).await;
    }
}

fn by_sse(
    state: &ApiState,
    mut listener: EventListener,
    closing: CancellationToken,
    place: OwnedSemaphorePermit,
) -> Response {
    let (sender, receiver) = mpsc::channel::<Event>(QUEUE_LENGTH);
    state.tasks.spawn(async move {
        let _place = place;
        loop {
            let event = tokio::select! {
                () = closing.cancelled() => return,
                () = sender.closed() => return,
                heard = listener.next() => match heard {
                    None => return,
                    Some(Heard::Event(entry)) => {
                        Event::default().id(entry.id.to_string()).event(&*entry.kind).data(&*entry.json)
                    }
                    Some(Heard::Missed) => Event::default().event("missed").data(missed(listener.last())),
                },
            };
            if sender.send_timeout(event, SLOW).await.is_err() {
                tracing::debug!("a listener to events is cut off: it is too slow");
                return;
            }
        }
    });
    let events = futures_util::stream::unfold((receiver, false), |(mut receiver, ended)| async move {
        if ended {
            return None;
        }
        match receiver.recv().await {
            Some(event) => Some((Ok::<_, Infallible>(event), (receiver, false))),
            // Whoever was too slow reads this when it reads again.
            None => {
                let reason = r#"{"kind":"closed","reason":"too slow, or the server is shutting down"}"#;
                Some((Ok(Event::default().event("closed").data(reason)), (receiver, true)))
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(PING)).into_response()
}
