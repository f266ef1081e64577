//! Whoever listens, by WebSocket or by server-sent events.
//!
//! Each listener has a bounded queue. One that takes nothing for a while is cut off with a reason.

use super::ApiState;
use super::problem::Problem;
use super::websocket::{Goodbye, Outgoing, PING, SLOW, serve, upgrade};
use axum::extract::Request;
use axum::extract::ws::{Message, WebSocket};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// What may wait for one listener by SSE.
const QUEUE_LENGTH: usize = 64;
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
    let told = Told { lines, closing };
    Ok(upgrade(&mut parts).await?.on_upgrade(move |socket| by_websocket(socket, told, place)))
}

/// What a listener by WebSocket is sent.
struct Told<L> {
    lines: L,
    closing: CancellationToken,
}

impl<L: Lines> Outgoing for Told<L> {
    async fn next(&mut self) -> Result<Vec<Message>, Goodbye> {
        tokio::select! {
            () = self.closing.cancelled() => Err(Goodbye::over("the server is shutting down")),
            line = self.lines.next() => match line {
                None => Err(Goodbye::over(self.lines.end())),
                Some(line) => Ok(vec![Message::Text((&*line.json).into())]),
            },
        }
    }
}

async fn by_websocket(socket: WebSocket, mut told: Told<impl Lines>, _place: OwnedSemaphorePermit) {
    if let Some(goodbye) = serve(socket, &mut told).await {
        tracing::debug!(reason = goodbye.reason, "a listener is cut off");
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
