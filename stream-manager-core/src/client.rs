//! A client of a running server's API, for programs beside it: what the command line does through it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use stream_manager_core::client::Client;
//! use stream_manager_core::recording::RecordingAction;
//! let client = Client::new("http://localhost:3000")?;
//! let recording = client.control_recording("door", RecordingAction::Pause).await?;
//! println!("{}", recording["state"]);
//! # Ok(())
//! # }
//! ```

use crate::error::redact_url;
use crate::http_client;
use crate::recording::{RecordingAction, RecordingTrigger};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// What stands in an id as it is.
const ID: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'~').remove(b'-');

/// Why a server did not do what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is none of a server.
    #[error("{address}: {problem}; expected an address such as http://localhost:3000")]
    Address {
        /// The address, without secrets.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The server cannot be reached, or does not answer.
    #[error("{address}: {problem}")]
    Connection {
        /// The address, without secrets.
        address: String,
        /// What is wrong.
        problem: String,
    },
    /// The server refuses.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The problem's stable name, if it has one.
        code: String,
        /// What is wrong and what would be right.
        detail: String,
    },
}

/// A server's API.
#[derive(Clone, Debug)]
pub struct Client {
    base: Url,
    authorization: Option<String>,
    client: http_client::Client,
}

impl Client {
    /// Of the server at this address; a user and a password may stand in it.
    ///
    /// # Errors
    /// If it is no address of a server.
    pub fn new(server: &str) -> Result<Self, ClientError> {
        // What stands before the host may be a password, whatever else it looks like.
        let shown = server.rsplit('@').next().unwrap_or_default();
        let wrong =
            |problem: &str| ClientError::Address { address: shown.to_owned(), problem: problem.to_owned() };
        let mut base = Url::parse(server).map_err(|e| wrong(&e.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("it is no address of HTTP"));
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let authorization = (!base.username().is_empty()).then(|| {
            let (user, password) = (decode(base.username()), decode(base.password().unwrap_or_default()));
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {pair}")
        });
        // Both can only fail for addresses without a host.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base.set_query(None);
        base.set_fragment(None);
        Ok(Self { base, authorization, client: http_client::client() })
    }

    /// Does something about a stream's recording. Gives how the recording stands then, as the API shows it.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses.
    pub async fn control_recording(&self, id: &str, action: RecordingAction) -> Result<Value, ClientError> {
        self.post(&format!("{}/recording/{}", stream_path(id), action.name()), &[], Bytes::new()).await
    }

    /// Tells of an event that is to be recorded. Gives how the recording stands then.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses.
    pub async fn trigger_recording(
        &self,
        id: &str,
        trigger: &RecordingTrigger,
    ) -> Result<Value, ClientError> {
        let duration = trigger.duration.map(|duration| format!("{}", duration.as_secs_f64()));
        let query: Vec<(&str, &str)> = [("kind", &*trigger.kind), ("text", &*trigger.text)]
            .into_iter()
            .chain(duration.as_deref().map(|duration| ("duration", duration)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let body = if trigger.data.is_null() { Bytes::new() } else { trigger.data.to_string().into() };
        self.post(&format!("{}/recording/trigger", stream_path(id)), &query, body).await
    }

    async fn post(&self, path: &str, query: &[(&str, &str)], body: Bytes) -> Result<Value, ClientError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let failed = |problem: &dyn std::fmt::Display| ClientError::Connection {
            address: redact_url(self.base.as_str()),
            problem: problem.to_string(),
        };
        let mut request = Request::builder().method(Method::POST).uri(url.as_str());
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|e| failed(&e))?;
        let asked = async {
            let answer =
                self.client.request(request).await.map_err(|e| failed(&crate::error::root_cause(&e)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|e| failed(&e))?.to_bytes()))
        };
        let (status, body) =
            tokio::time::timeout(TIMEOUT, asked).await.map_err(|_| failed(&"it does not answer"))??;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let detail = Some(text("detail")).filter(|detail| !detail.is_empty());
        Err(ClientError::Refused {
            status: status.as_u16(),
            code: text("code"),
            detail: detail.unwrap_or_else(|| format!("the server answers {status}")),
        })
    }
}

fn stream_path(id: &str) -> String {
    format!("/api/streams/{}", utf8_percent_encode(id, ID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_looked_at() {
        let client = Client::new("http://admin:sec%20ret@localhost:3000/base/?x=1").unwrap();
        assert_eq!(client.base.as_str(), "http://localhost:3000/base/");
        assert_eq!(client.authorization.as_deref(), Some("Basic YWRtaW46c2VjIHJldA=="));
        assert_eq!(stream_path("yard/door-1"), "/api/streams/yard%2Fdoor-1");
        for wrong in
            ["localhost:3000", "rtsp://u:secret@h/", "nothing", "u:secret@nowhere", "http://u:secret@"]
        {
            let problem = Client::new(wrong).unwrap_err().to_string();
            assert!(problem.contains("http://localhost:3000") && !problem.contains("secret"), "{problem}");
        }
    }
}
