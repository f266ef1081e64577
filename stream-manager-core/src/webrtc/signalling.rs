//! The client's side of WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): an offer goes, an answer and the session's address
//! come, and the session is ended.

use super::ice_server::IceServer;
use crate::error::redact_url;
use crate::http_client::{Client, client, client_with};
use crate::source::tls::TlsOptions;
use crate::source::{SourceError, percent_decoded};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LINK, LOCATION, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use std::time::Duration;
use url::Url;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_REDIRECTS: usize = 3;
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// Of what a server says of an error so much is shown.
const SHOWN_CHARS: usize = 200;

/// A WHIP or WHEP endpoint.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// Without credentials.
    url: Url,
    authorization: Option<HeaderValue>,
    client: Client,
    /// How the server shows who it is, if not as the system wants it.
    tls: Option<TlsOptions>,
}

/// What a server has answered.
pub(super) struct Opened {
    pub(super) answer: String,
    /// The session's address.
    pub(super) session: Option<Url>,
    /// STUN and TURN servers that it tells of.
    pub(super) servers: Vec<IceServer>,
}

fn connect_error(url: &Url, problem: impl ToString) -> SourceError {
    SourceError::Connect { address: redact_url(url.as_str()), problem: problem.to_string() }
}

impl Endpoint {
    /// By an address whose scheme says what it is: `whep://`, `whip://`, and with an `s` behind them for HTTPS. A name and a
    /// password are sent as they are (Basic); a password without a name is a bearer token.
    pub(super) fn new(address: &Url) -> Option<Self> {
        let scheme = match address.scheme() {
            "whep" | "whip" => "http",
            "wheps" | "whips" => "https",
            _ => return None,
        };
        // As http, what is behind would be taken for the host.
        address.host_str().filter(|host| !host.is_empty())?;
        // Schemes of these kinds cannot be set one for the other.
        let rest = address.as_str().split_once(':')?.1;
        let mut url = Url::parse(&format!("{scheme}:{rest}")).ok()?;
        let (name, password) = (percent_decoded(url.username()), url.password().map(percent_decoded));
        let authorization = match (name.as_str(), password) {
            ("", None) => None,
            ("", Some(token)) => Some(format!("Bearer {token}")),
            (name, password) => {
                let pair = format!("{name}:{}", password.unwrap_or_default());
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
            }
        };
        let authorization = match authorization {
            Some(text) => {
                let mut value = HeaderValue::try_from(text).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        Some(Self { url, authorization, client: client(), tls: None })
    }

    /// Sets how the server shows who it is.
    pub(super) fn tls(&mut self, tls: TlsOptions) {
        self.tls = Some(tls).filter(|tls| *tls != TlsOptions::System);
    }

    async fn client(&self) -> Result<Client, SourceError> {
        let Some(tls) = &self.tls else { return Ok(self.client.clone()) };
        tls.prepared().await.map(client_with).map_err(|problem| connect_error(&self.url, problem))
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    fn request(&self, method: Method, url: &Url, body: &str) -> Result<Request<Full<Bytes>>, SourceError> {
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(CONTENT_TYPE, "application/sdp")
            .header(USER_AGENT, concat!("stream-manager/", env!("CARGO_PKG_VERSION")));
        // Not for others to whom we may have been sent.
        if let Some(value) = self.authorization.as_ref().filter(|_| url.origin() == self.url.origin()) {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::new(Bytes::from(body.to_owned()))).map_err(|error| connect_error(url, error))
    }

    /// Hands in an offer.
    pub(super) async fn open(&self, offer: &str) -> Result<Opened, SourceError> {
        let asked = tokio::time::timeout(TIMEOUT, self.ask(offer)).await;
        asked.unwrap_or_else(|_| {
            let what = format!("the answer of {}", redact_url(self.url.as_str()));
            Err(SourceError::Timeout { what, timeout: TIMEOUT })
        })
    }

    async fn ask(&self, offer: &str) -> Result<Opened, SourceError> {
        let mut url = self.url.clone();
        let client = self.client().await?;
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(Method::POST, &url, offer)?;
            let response = client.request(request).await.map_err(|e| {
                let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
                connect_error(&url, cause)
            })?;
            let status = response.status();
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let location = location.and_then(|location| url.join(location).ok());
            let links = response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
            let servers = IceServer::from_links(links);
            if matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
                // RFC 9725 section 4.5.
                url = location
                    .ok_or_else(|| connect_error(&url, "it sends us elsewhere without an address"))?;
                continue;
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| connect_error(&url, error))?.to_bytes();
            let text = String::from_utf8_lossy(&body);
            if status != StatusCode::CREATED {
                return Err(refused(&url, status, &text));
            }
            return Ok(Opened { answer: text.into_owned(), session: location, servers });
        }
        Err(connect_error(&self.url, "it sends us from one address to the next"))
    }

    /// Ends a session.
    pub(super) async fn close(&self, session: &Url) {
        let Ok(request) = self.request(Method::DELETE, session, "") else { return };
        let Ok(client) = self.client().await else { return };
        let closed = tokio::time::timeout(GOODBYE_TIMEOUT, client.request(request)).await;
        if !matches!(closed, Ok(Ok(_))) {
            // The server notices in time that nobody is there any more.
            tracing::debug!(address = %redact_url(session.as_str()), "a session could not be ended");
        }
    }
}

fn refused(url: &Url, status: StatusCode, text: &str) -> SourceError {
    let address = redact_url(url.as_str());
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SourceError::Unauthorized { address },
        StatusCode::NOT_FOUND => SourceError::NotFound { address },
        _ => {
            // Problem details (RFC 9457) say it best.
            let detail = serde_json::from_str::<serde_json::Value>(text).ok();
            let detail = detail.as_ref().and_then(|d| d["detail"].as_str());
            let shown: String =
                detail.unwrap_or(text).chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
            SourceError::Other(format!("{address} answers with status {}: {shown}", status.as_u16()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Option<(String, Option<String>)> {
        let endpoint = Endpoint::new(&Url::parse(text).unwrap())?;
        let authorization = endpoint.authorization.map(|value| value.to_str().unwrap().to_owned());
        Some((endpoint.url.to_string(), authorization))
    }

    #[test]
    fn addresses_and_their_credentials() {
        assert_eq!(endpoint("whep://host/a/whep"), Some(("http://host/a/whep".into(), None)));
        assert_eq!(endpoint("wheps://host:8443/a"), Some(("https://host:8443/a".into(), None)));
        let basic = Some("Basic dXNlcjpwOnc=".into());
        assert_eq!(endpoint("whip://user:p%3Aw@host/a"), Some(("http://host/a".into(), basic)));
        assert_eq!(
            endpoint("whips://:t0k@host/a"),
            Some(("https://host/a".into(), Some("Bearer t0k".into())))
        );
        assert_eq!(endpoint("http://host/a"), None);
        assert_eq!(endpoint("whep:///a"), None);
    }

    #[test]
    fn refusals_are_told_in_the_server_s_words() {
        let url = Url::parse("http://host/a").unwrap();
        let error = refused(&url, StatusCode::NOT_ACCEPTABLE, r#"{"detail": "no codec in common"}"#);
        assert_eq!(error.to_string(), "http://host/a answers with status 406: no codec in common");
    }
}
