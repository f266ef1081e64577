//! A client for HTTP and HTTPS: webhooks, keys of JWT, the signalling of WebRTC, ONVIF. It connects to what [`outbound`] allows.

use crate::outbound;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_rustls::rustls;
use tower_service::Service;

/// Clones share their connections.
pub(crate) type Client = hyper_util::client::legacy::Client<HttpsConnector<Guarded>, Full<Bytes>>;

/// Trusts what the system does.
pub(crate) fn client() -> Client {
    static CONNECTOR: OnceLock<HttpsConnector<Guarded>> = OnceLock::new();
    with(CONNECTOR.get_or_init(|| connector(rustls::ClientConfig::clone(&tls_config()))).clone())
}

fn with(connector: HttpsConnector<Guarded>) -> Client {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(1)
        .build(connector)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Connects to what may be connected to.
#[derive(Clone)]
pub(crate) struct Guarded(HttpConnector<Resolver>);

impl Service<Uri> for Guarded {
    type Response = <HttpConnector<Resolver> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Boxed<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // Addresses are not resolved.
        let host = uri.host().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        if let Err(denied) = outbound::check(host, address) {
            return Box::pin(std::future::ready(Err(denied.into())));
        }
        let connecting = self.0.call(uri);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

/// Finds the addresses of names, and looks whether they may be connected to.
#[derive(Clone)]
pub(crate) struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Boxed<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            outbound::check(name.as_str(), found.iter().map(SocketAddr::ip))?;
            Ok(found.into_iter())
        })
    }
}

/// An address without user and password, and the header that they are meant for: hosts with them would be logged.
#[cfg(feature = "http")]
pub(crate) fn without_login(address: &str) -> Result<(url::Url, Option<hyper::header::HeaderValue>), String> {
    use crate::source::percent_decoded;
    use base64::Engine as _;
    let mut url = url::Url::parse(address).map_err(|e| e.to_string())?;
    let (user, password) = (percent_decoded(url.username()), url.password().map(percent_decoded));
    if user.is_empty() && password.is_none() {
        return Ok((url, None));
    }
    if url.set_username("").and_then(|()| url.set_password(None)).is_err() {
        return Err("it has no host".into());
    }
    let pair = format!("{user}:{}", password.unwrap_or_default());
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let mut value = hyper::header::HeaderValue::try_from(text).map_err(|e| e.to_string())?;
    value.set_sensitive(true);
    Ok((url, Some(value)))
}

/// A request for an address, with the user and the password that are in it.
#[cfg(feature = "http")]
pub(crate) fn request(method: hyper::Method, address: &str) -> Result<hyper::http::request::Builder, String> {
    let (url, login) = without_login(address)?;
    let request = hyper::Request::builder().method(method).uri(url.as_str());
    Ok(match login {
        Some(login) => request.header(hyper::header::AUTHORIZATION, login),
        None => request,
    })
}

/// An answer of which the body is wanted, up to a size and within a time.
#[cfg(feature = "http")]
pub(crate) async fn fetch(
    client: &Client,
    request: hyper::Request<Full<Bytes>>,
    max_bytes: usize,
    limit: Duration,
) -> Result<(hyper::StatusCode, Bytes), String> {
    use http_body_util::BodyExt as _;
    let whole = async {
        let answer = client.request(request).await.map_err(|e| crate::error::causes(&e))?;
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), max_bytes);
        let body = body.collect().await.map_err(|e| {
            if e.is::<http_body_util::LengthLimitError>() {
                format!("the answer is longer than {max_bytes} bytes")
            } else {
                e.to_string()
            }
        })?;
        Ok((status, body.to_bytes()))
    };
    tokio::time::timeout(limit, whole).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

/// Trusts what is given. Has connections of its own.
#[cfg(feature = "webrtc")]
pub(crate) fn client_with(config: rustls::ClientConfig) -> Client {
    with(connector(config))
}

fn connector(config: rustls::ClientConfig) -> HttpsConnector<Guarded> {
    let mut http = HttpConnector::new_with_resolver(Resolver);
    http.enforce_http(false);
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
    builder.https_or_http().enable_http1().wrap_connector(Guarded(http))
}

/// For TLS connections of all kinds; trusts what the system does.
pub(crate) fn tls_config() -> Arc<rustls::ClientConfig> {
    // Certificates are read once.
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    let make = || {
        let builder =
            rustls::ClientConfig::builder_with_provider(ring()).with_safe_default_protocol_versions();
        let trusting = builder.map_err(std::io::Error::other).and_then(ConfigBuilderExt::with_native_roots);
        Arc::new(match trusting {
            Ok(builder) => builder.with_no_client_auth(),
            Err(error) => {
                // Without any certificate authority TLS cannot be trusted, but http can be used.
                tracing::warn!(%error, "no certificate authorities are installed; requests to https:// will fail");
                no_roots(ring())
            }
        })
    };
    CONFIG.get_or_init(make).clone()
}

fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn no_roots(provider: Arc<rustls::crypto::CryptoProvider>) -> rustls::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
    let versions = builder.with_safe_default_protocol_versions();
    match versions {
        Ok(builder) => builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
        // Not with this provider, which has all default versions.
        Err(_) => rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
    }
}
