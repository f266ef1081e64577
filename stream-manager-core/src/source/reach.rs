//! Tells a host that does not resolve from one that does not answer, where the clients behind cannot.

use super::SourceError;
use std::time::Duration;
use tokio::net::TcpStream;
use url::Url;

/// Checks that the address' host has an address.
pub(super) async fn resolve(url: &Url, port: u16) -> Result<(), SourceError> {
    let Some(url::Host::Domain(name)) = url.host() else { return Ok(()) };
    let failed = |problem: String| SourceError::Resolve { host: name.to_owned(), problem };
    let mut addresses = tokio::net::lookup_host((name, port)).await.map_err(|e| failed(e.to_string()))?;
    addresses.next().map(drop).ok_or_else(|| failed("no address".into()))
}

/// Checks that somebody listens there.
pub(super) async fn connect(url: &Url, port: u16, timeout: Duration) -> Result<(), SourceError> {
    resolve(url, port).await?;
    let address = format!("{}:{port}", url.host_str().unwrap_or_default());
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Err(_) => Err(SourceError::Timeout { what: format!("connecting to {address}"), timeout }),
        Ok(Err(error)) => Err(SourceError::Connect { address, problem: error.to_string() }),
        Ok(Ok(_)) => Ok(()),
    }
}
