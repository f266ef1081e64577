//! How SOAP goes to a device: by HTTP or HTTPS to the address that it was reached at, whatever it says of itself.

use crate::auth::challenge::{Challenge, Login};
use crate::http_client::{Client, client};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};
use oxvif::transport::{Transport, TransportError};
use parking_lot::Mutex;
use std::time::Duration;
use url::Url;

/// The status of a failure that is no answer.
pub(super) const OWN: u16 = 0;
/// Longer answers are none.
const MAX_ANSWER: usize = 2 << 20;

/// To one device.
pub(super) struct SoapTransport {
    client: Client,
    device: Url,
    login: Option<Login>,
    challenge: Mutex<Option<Challenge>>,
    timeout: Duration,
}

impl SoapTransport {
    pub(super) fn new(device: Url, login: Option<Login>, timeout: Duration) -> Self {
        Self { client: client(), device, login, challenge: Mutex::default(), timeout }
    }

    /// The same path at the device.
    fn at_device(&self, url: &str) -> Url {
        let mut at = self.device.clone();
        if let Ok(url) = Url::parse(url) {
            at.set_path(url.path());
            at.set_query(url.query());
        }
        at
    }

    async fn post(&self, url: &Url, action: &str, body: String) -> Result<(StatusCode, String), String> {
        let body = Bytes::from(body);
        let mut answered = false;
        loop {
            let mut request = Request::post(url.as_str())
                .header(CONTENT_TYPE, format!("application/soap+xml; charset=utf-8; action=\"{action}\""))
                .header(USER_AGENT, concat!("stream-manager/", env!("CARGO_PKG_VERSION")));
            let path = match url.query() {
                Some(query) => format!("{}?{query}", url.path()),
                None => url.path().to_owned(),
            };
            if let Some((challenge, login)) = self.challenge.lock().as_mut().zip(self.login.as_ref()) {
                request = request.header(AUTHORIZATION, challenge.answer(login, "POST", &path));
            }
            let request = request.body(Full::new(body.clone())).map_err(|e| e.to_string())?;
            let response = self.client.request(request).await.map_err(|e| crate::error::root_cause(&e))?;
            let (head, body) = response.into_parts();
            if head.status == StatusCode::UNAUTHORIZED && self.login.is_some() && !answered {
                let lines = head.headers.get_all(WWW_AUTHENTICATE).iter();
                let challenge = Challenge::read(lines.filter_map(|line| line.to_str().ok()));
                // By Basic the password itself would go.
                if let Some(challenge @ Challenge::Digest { .. }) = challenge {
                    *self.challenge.lock() = Some(challenge);
                    answered = true;
                    continue;
                }
            }
            let text = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
            return Ok((head.status, String::from_utf8_lossy(&text.to_bytes()).into_owned()));
        }
    }
}

#[async_trait::async_trait]
impl Transport for SoapTransport {
    async fn soap_post(&self, url: &str, action: &str, body: String) -> Result<String, TransportError> {
        let own = |body| TransportError::HttpStatus { status: OWN, body };
        let at = self.at_device(url);
        let answer = tokio::time::timeout(self.timeout, self.post(&at, action, body)).await;
        let answer = answer.map_err(|_| own(format!("no answer within {:?}", self.timeout)))?;
        let (status, text) = answer.map_err(own)?;
        match status.as_u16() {
            // Faults come with these, and say more than the status.
            200 | 400 | 500 => Ok(text),
            status => Err(TransportError::HttpStatus { status, body: String::new() }),
        }
    }
}
