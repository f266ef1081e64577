//! Sending events to an address, signed and retried.
//!
//! A request is a POST of the event's JSON. `Stream-Manager-Signature: sha256=<hex>` is HMAC-SHA256 (RFC 2104) with the
//! secret over `<timestamp>.<body>`, where the timestamp is that of `Stream-Manager-Timestamp`. Any 2xx is a success.
//! Another 4xx than 408, 425 and 429 is taken as refusing the event; everything else is tried again.

use super::Context;
use crate::config::WebhookConfig;
use crate::frame::WallTime;
use crate::http_client::{Client, request};
use crate::storage::journal::JournalEntry;
use bytes::Bytes;
use hmac::{Hmac, Mac};
use http_body_util::Full;
use hyper::{Method, StatusCode};
use sha2::Sha256;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("it answers {0}, which refuses the event")]
    Refused(StatusCode),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("it does not answer within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Connection(String),
}

pub(super) struct Webhook {
    config: WebhookConfig,
    client: Client,
}

impl Webhook {
    pub(super) fn new(config: WebhookConfig, client: Client) -> Self {
        Self { config, client }
    }

    pub(super) async fn run(self: Arc<Self>, context: Context) {
        let mut listener = context.listen(&self.config.streams, &self.config.kinds).await;
        while let Some(entry) = context.next(&mut listener).await {
            if !self.deliver(&context, &entry).await {
                return;
            }
        }
    }

    /// Tries until the event is taken or given up. `false` if the hook ends before.
    async fn deliver(&self, context: &Context, entry: &JournalEntry) -> bool {
        let mut backoff = super::backoff();
        let started = Instant::now();
        loop {
            // What is under way is finished: it may have been taken already.
            let error = match self.send(entry).await {
                Ok(()) => {
                    context.done(entry);
                    context.keep_place(entry.id).await;
                    return true;
                }
                Err(error) => error,
            };
            let problem = format!("{}: {error}", self.config.url.shown());
            if matches!(error, SendError::Refused(_)) || started.elapsed() >= self.config.max_age.0 {
                context.give_up(entry, &problem).await;
                return true;
            }
            // What is said to be waiting is waiting for good: it is in the journal, however soon the program ends.
            context.written(entry.id).await;
            context.failed(entry.stream.as_ref(), &problem, false);
            let wait = tokio::time::sleep(backoff.next());
            if context.cancel.run_until_cancelled(wait).await.is_none() {
                return false;
            }
        }
    }

    /// One attempt.
    pub(super) async fn send(&self, entry: &JournalEntry) -> Result<(), SendError> {
        let timestamp = WallTime::now().as_unix_nanos() / 1_000_000_000;
        let mut request = request(Method::POST, self.config.url.reveal())
            .map_err(SendError::Connection)?
            .header("content-type", "application/json")
            .header("user-agent", concat!("stream-manager/", env!("CARGO_PKG_VERSION")))
            .header("stream-manager-event", &*entry.kind)
            .header("stream-manager-delivery", entry.id)
            .header("stream-manager-timestamp", timestamp);
        if let Some(secret) = &self.config.secret {
            let signature = sign(secret.reveal().as_bytes(), timestamp, entry.json.as_bytes());
            request = request.header("stream-manager-signature", format!("sha256={signature}"));
        }
        let body = Full::new(Bytes::copy_from_slice(entry.json.as_bytes()));
        let request = request.body(body).map_err(|e| SendError::Connection(e.to_string()))?;
        let timeout = self.config.timeout.0;
        let answer = tokio::time::timeout(timeout, self.client.request(request)).await;
        let answer = answer.map_err(|_| SendError::Timeout(timeout))?;
        let status = answer.map_err(|e| SendError::Connection(crate::error::causes(&e)))?.status();
        match status.as_u16() {
            200..=299 => Ok(()),
            408 | 425 | 429 => Err(SendError::Status(status)),
            400..=499 => Err(SendError::Refused(status)),
            _ => Err(SendError::Status(status)),
        }
    }
}

/// HMAC-SHA256 over `<timestamp>.<body>`, hexadecimal.
fn sign(secret: &[u8], timestamp: i64, body: &[u8]) -> String {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '1700000000.{"kind":"test"}' | openssl dgst -sha256 -hmac geheim`
    #[test]
    fn signatures_are_those_that_openssl_makes() {
        assert_eq!(
            sign(b"geheim", 1_700_000_000, br#"{"kind":"test"}"#),
            "77f72b14a049dd6deb5df4804a24ae1279a1c6d5c20a5d91755ece03a5007a0c"
        );
    }
}
