//! Requests to the receiver, on the runtime, whoever asks for them: the exporters have threads of their own.

use crate::http_client;
use bytes::Bytes;
use http_body_util::Full;
use opentelemetry_http::{HttpClient, HttpError};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;

/// No answer is longer.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Traces,
    Logs,
    Metrics,
}

impl Sent {
    fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }
}

/// Whether the last request of each kind has failed.
#[derive(Debug, Default)]
struct Failing([AtomicBool; 3]);

#[derive(Clone)]
pub(super) struct Client {
    handle: Handle,
    client: http_client::Client,
    failing: Arc<Failing>,
}

impl Client {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, client: http_client::client(), failing: Arc::default() }
    }

    pub(super) fn for_what(&self, what: Sent) -> Exporting {
        Exporting { client: self.clone(), what }
    }

    /// Says once that it fails, and once that it does no longer.
    fn note(&self, what: Sent, problem: Option<&str>) {
        let Some(failing) = self.failing.0.get(what as usize) else { return };
        let was_failing = failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !was_failing => tracing::warn!(
                target: "stream_manager_core::otel",
                what = what.name(),
                problem,
                "telemetry cannot be sent; what is not taken is lost"
            ),
            None if was_failing => {
                tracing::info!(target: "stream_manager_core::otel", what = what.name(), "telemetry is sent again");
            }
            _ => {}
        }
    }

    async fn ask(
        &self,
        what: Sent,
        request: hyper::Request<Bytes>,
    ) -> Result<hyper::Response<Bytes>, String> {
        let (parts, body) = request.into_parts();
        let request = hyper::Request::from_parts(parts, Full::new(body));
        let client = self.client.clone();
        // Its connections belong to the runtime.
        let asked = self.handle.spawn(async move {
            http_client::fetch(&client, request, MAX_ANSWER_BYTES, super::TIMEOUT).await
        });
        let answer = asked.await.unwrap_or_else(|error| Err(error.to_string()));
        let refused = answer.as_ref().ok().filter(|(status, _)| !status.is_success());
        let refused = refused.map(|(status, _)| format!("the receiver answers {status}"));
        self.note(what, answer.as_ref().err().or(refused.as_ref()).map(String::as_str));
        let (status, body) = answer?;
        let mut response = hyper::Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }

    /// Sends a protobuf message.
    pub(super) async fn send(
        &self,
        what: Sent,
        url: &str,
        headers: &HashMap<String, String>,
        body: Vec<u8>,
    ) -> Result<(), String> {
        let mut request = hyper::Request::post(url).header("content-type", "application/x-protobuf");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Bytes::from(body)).map_err(|e| e.to_string())?;
        self.ask(what, request).await.map(drop)
    }
}

/// Sends what an exporter of OpenTelemetry's makes.
pub(super) struct Exporting {
    client: Client,
    what: Sent,
}

impl std::fmt::Debug for Exporting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Exporting").field(&self.what).finish()
    }
}

#[async_trait::async_trait]
impl HttpClient for Exporting {
    async fn send_bytes(&self, request: hyper::Request<Bytes>) -> Result<hyper::Response<Bytes>, HttpError> {
        self.client.ask(self.what, request).await.map_err(Into::into)
    }
}
