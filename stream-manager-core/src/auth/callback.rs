//! Asking somebody else by HTTP who may do what: a POST of JSON with the fields that MediaMTX sends, answered by 2xx for yes.

use super::{Access, Action, Credentials, Denied, Grant};
use crate::error::redact_url;
use crate::http_client::{Client, client, fetch, request};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is read of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackOptions {
    /// The address, `http://` or `https://`.
    pub url: url::Url,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What is not asked about: everybody may.
    pub exclude: Vec<Action>,
}

/// Asks.
pub struct Callback {
    options: CallbackOptions,
    client: Client,
    questions: AtomicU64,
}

impl Callback {
    /// Asks nothing yet.
    pub fn new(options: CallbackOptions) -> Self {
        Self { options, client: client(), questions: AtomicU64::new(0) }
    }

    /// With what it was made.
    pub fn options(&self) -> &CallbackOptions {
        &self.options
    }

    /// The action as MediaMTX calls it.
    fn action(action: Action) -> &'static str {
        match action {
            Action::Read => "read",
            Action::Publish => "publish",
            Action::Playback => "playback",
            Action::Metrics => "metrics",
            Action::Record | Action::ApiRead | Action::ApiWrite | Action::Admin => "api",
        }
    }

    /// Whether it may be done.
    ///
    /// # Errors
    /// If not, or if nobody answers.
    pub async fn ask(&self, access: &Access<'_>) -> Result<Grant, Denied> {
        if self.options.exclude.contains(&access.action) {
            return Ok(Grant::default());
        }
        let (user, password, token) = match access.credentials {
            Credentials::None => ("", "", ""),
            Credentials::Password { user, password } => (user.as_str(), password.reveal(), ""),
            Credentials::Token(token) => ("", "", token.reveal()),
            // It cannot be proved by somebody who is not told the password.
            Credentials::Digest(_) => return Err(Denied::WrongCredentials),
        };
        let number = self.questions.fetch_add(1, Ordering::Relaxed);
        let question = json!({
            "user": user,
            "password": password,
            "token": token,
            "ip": access.address.to_canonical().to_string(),
            "action": Self::action(access.action),
            "path": access.subject.stream().unwrap_or_default(),
            "protocol": access.protocol,
            "id": number.to_string(),
            "query": access.query.unwrap_or_default(),
            "userAgent": access.user_agent.unwrap_or_default(),
            // Ours: "api" is several things here.
            "permission": access.action,
        });
        let unavailable = |problem: String| {
            let url = redact_url(self.options.url.as_str());
            tracing::warn!(%url, problem, "the authentication server does not answer");
            Denied::Unavailable { problem: "the authentication server does not answer".into() }
        };
        let request = request(hyper::Method::POST, self.options.url.as_str())
            .map_err(unavailable)?
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(question.to_string())))
            .map_err(|e| unavailable(e.to_string()))?;
        let (status, _) = fetch(&self.client, request, MAX_ANSWER_BYTES, self.options.timeout)
            .await
            .map_err(unavailable)?;
        let user = access.credentials.user().map(str::to_owned);
        match (status.as_u16(), access.credentials) {
            (200..=299, _) => Ok(user.map_or_else(Grant::default, Grant::to)),
            (500..=599, _) => Err(unavailable(format!("it answers {status}"))),
            (_, Credentials::None) => Err(Denied::Anonymous),
            _ => Err(Denied::WrongCredentials),
        }
    }
}
