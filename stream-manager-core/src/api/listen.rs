//! Whoever listens, by WebSocket or by server-sent events.
//!
//! Each listener has a bounded queue. One that takes nothing for a while is cut off with a reason.

use super::ApiState;
use super::problem::Problem;
use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
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
/// What may wait for one listener by SSE.
const QUEUE_LENGTH: usize = 64;
/// The most that a client may send at once: it has nothing to say.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What a listener is told: JSON, of some kind, with a number to go on behind if it has one.
pub(super) struct Line {
    pub(super) id: Option<u64>,
    pub(super) kind: Arc<str>,
    pub(super) json: Arc<str>,
}

/// Where it comes from.
pub(super) trait Lines: Send + 'static {
    /// The next one; None when there will be nothing more. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Line>> + Send;
    /// Why there is nothing more.
    fn end(&self) -> &'static str;
}

/// Lets whoever has sent a request listen, in the way that it asks for, for as long as it likes.
pub(super) async fn listen(
    state: &Arc<ApiState>,
    request: Request,
    lines: impl Lines,
) -> Result<Response, Problem> {
    let place = state.listeners.clone().try_acquire_owned().map_err(|_| {
        let detail = "there are too many listeners; end one, or use a filter instead of several connections";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_listeners", detail)
    })?;
    let closing = state.options.closing.clone();
    if !request.headers().contains_key(header::UPGRADE) {
        return Ok(by_sse(state, lines, closing, place));
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, state)
        .await
        .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "invalid_upgrade", e.body_text()))?;
    Ok(upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .on_upgrade(move |socket| by_websocket(socket, lines, closing, place)))
}

async fn by_websocket(
    socket: WebSocket,
    mut lines: impl Lines,
    closing: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let (mut sender, mut receiver) = socket.split();
    let mut heard_at = Instant::now();
    let mut ping = tokio::time::interval(PING);
    let reason = loop {
        let message = tokio::select! {
            () = closing.cancelled() => break Some((1001, "the server is shutting down")),
            line = lines.next() => match line {
                None => break Some((1001, lines.end())),
                Some(line) => Message::Text((&*line.json).into()),
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
        tracing::debug!(code, reason, "a listener is cut off");
        let frame = CloseFrame { code, reason: reason.into() };
        // It may take as little as before.
        let _ = tokio::time::timeout(Duration::from_secs(1), sender.send(Message::Close(Some(frame)))).await;
    }
}

fn by_sse(
    state: &ApiState,
    mut lines: impl Lines,
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
                line = lines.next() => match line {
                    None => return,
                    Some(line) => {
                        let event = line.id.iter().fold(Event::default(), |event, id| event.id(id.to_string()));
                        event.event(&*line.kind).data(&*line.json)
                    }
                },
            };
            if sender.send_timeout(event, SLOW).await.is_err() {
                tracing::debug!("a listener is cut off: it is too slow");
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
