//! One end of a WebSocket that only sends: what is to be sent, until there is no more, the client goes, or it takes nothing.
//!
//! ```text
//! Outgoing::next ──► serve ──► client     pings while it is quiet, a reason when it is cut off
//! ```

use super::problem::Problem;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::{SinkExt, StreamExt};
use std::time::{Duration, Instant};

/// A client that takes nothing for this long is cut off.
pub(super) const SLOW: Duration = Duration::from_secs(10);
/// How often a quiet connection is tried.
pub(super) const PING: Duration = Duration::from_secs(15);
/// A client that has said nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a client may take for the last word.
const GOODBYE: Duration = Duration::from_secs(1);
/// The most that a client may send at once: it has nothing to say.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Close codes of RFC 6455, section 7.4.1.
const GOING_AWAY: u16 = 1001;
const POLICY_VIOLATION: u16 = 1008;
#[cfg(feature = "hls")]
const INTERNAL_ERROR: u16 = 1011;

/// Why a client is cut off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goodbye {
    code: u16,
    pub(super) reason: &'static str,
}

impl Goodbye {
    /// There will be nothing more.
    pub(super) fn over(reason: &'static str) -> Self {
        Self { code: GOING_AWAY, reason }
    }

    /// It is the server's fault.
    #[cfg(feature = "hls")]
    pub(super) fn failed(reason: &'static str) -> Self {
        Self { code: INTERNAL_ERROR, reason }
    }

    fn client(reason: &'static str) -> Self {
        Self { code: POLICY_VIOLATION, reason }
    }
}

/// What is sent.
pub(super) trait Outgoing: Send + 'static {
    /// The next messages, which belong together, or why there are no more. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Message>, Goodbye>> + Send;
}

/// The upgrade that a request asks for.
///
/// # Errors
/// If it does not ask for one as RFC 6455 has it.
pub(super) async fn upgrade(parts: &mut Parts) -> Result<WebSocketUpgrade, Problem> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &())
        .await
        .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "invalid_upgrade", e.body_text()))?;
    Ok(upgrade.max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES))
}

/// Sends until there is no more. Gives why the client was cut off; None if it went by itself.
pub(super) async fn serve(socket: WebSocket, outgoing: &mut impl Outgoing) -> Option<Goodbye> {
    let (mut sender, mut receiver) = socket.split();
    let mut heard_at = Instant::now();
    let mut ping = tokio::time::interval(PING);
    let goodbye = loop {
        let messages = tokio::select! {
            messages = outgoing.next() => match messages {
                Ok(messages) => messages,
                Err(goodbye) => break goodbye,
            },
            message = receiver.next() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => return None,
                Some(Ok(_)) => {
                    heard_at = Instant::now();
                    continue;
                }
            },
            _ = ping.tick() => {
                if heard_at.elapsed() >= SILENCE {
                    break Goodbye::client("no answer to pings");
                }
                vec![Message::Ping(Vec::new().into())]
            }
        };
        let sending = async {
            for message in messages {
                sender.feed(message).await?;
            }
            sender.flush().await
        };
        match tokio::time::timeout(SLOW, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => break Goodbye::client("too slow: not everything was taken within ten seconds"),
        }
    };
    let frame = CloseFrame { code: goodbye.code, reason: goodbye.reason.into() };
    // It may take as little as before.
    let _ = tokio::time::timeout(GOODBYE, sender.send(Message::Close(Some(frame)))).await;
    Some(goodbye)
}
