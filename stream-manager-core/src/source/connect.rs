//! TCP connections to cameras: every address of a name in turn, from the address that is asked for.
//!
//! A name is resolved anew for every connection. Its addresses are tried one after the other, IPv6 and IPv4 in turn, each with a head
//! start before the next (RFC 8305): one that swallows everything costs no more than that.

use super::SourceError;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use url::{Host, Url};

/// How long an address is tried alone (RFC 8305 section 8).
const HEAD_START: Duration = Duration::from_millis(250);
/// How long it may take to find out why somebody else could not connect.
pub(super) const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// More addresses of one name than this are not tried.
const MAX_ADDRESSES: usize = 8;

/// The addresses of a URL's host, in the order in which they are to be tried; never none.
pub(crate) async fn addresses(url: &Url, port: u16) -> Result<Vec<SocketAddr>, SourceError> {
    let name = match url.host() {
        Some(Host::Ipv4(ip)) => return allowed(&ip.to_string(), vec![(ip, port).into()]),
        Some(Host::Ipv6(ip)) => return allowed(&ip.to_string(), vec![(ip, port).into()]),
        Some(Host::Domain(name)) => name,
        None => "",
    };
    // RTSP is no scheme whose hosts the parser understands.
    if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
        return allowed(name, vec![(ip, port).into()]);
    }
    let failed = |problem: String| SourceError::Resolve { host: name.to_owned(), problem };
    let found = tokio::net::lookup_host((name, port)).await.map_err(|e| failed(e.to_string()))?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.dedup();
    let found = in_turn(found);
    if found.is_empty() { Err(failed("no address".into())) } else { allowed(name, found) }
}

fn allowed(host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, SourceError> {
    crate::outbound::check(host, found.iter().map(SocketAddr::ip))?;
    Ok(found)
}

/// Whether a URL's host may be connected to, for clients that connect by themselves. One that does not resolve is theirs to say.
pub(crate) async fn check_outbound(url: &Url) -> Result<(), SourceError> {
    if url.host_str().is_none_or(str::is_empty) {
        return Ok(());
    }
    match addresses(url, url.port_or_known_default().unwrap_or(1)).await {
        Err(error @ SourceError::Denied(_)) => Err(error),
        _ => Ok(()),
    }
}

/// IPv6 and IPv4 in turn, beginning with the kind that the system prefers.
fn in_turn(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let pairs = std::iter::from_fn(|| Some([first.next(), second.next()]));
    pairs
        .take_while(|pair| pair.iter().any(Option::is_some))
        .flatten()
        .flatten()
        .take(MAX_ADDRESSES)
        .collect()
}

/// Connects to the first of these that answers.
pub(crate) async fn connect(
    host: &str,
    addresses: &[SocketAddr],
    local: Option<IpAddr>,
) -> Result<TcpStream, SourceError> {
    let failed = |problem: String| SourceError::Connect { address: host.to_owned(), problem };
    let fits = |address: &&SocketAddr| local.is_none_or(|local| local.is_ipv6() == address.is_ipv6());
    let attempts: Vec<_> = addresses
        .iter()
        .filter(fits)
        .zip(0u32..)
        .map(|(address, number)| {
            Box::pin(async move {
                tokio::time::sleep(HEAD_START * number).await;
                from(local, *address).await
            })
        })
        .collect();
    if attempts.is_empty() {
        let local = local.map(|l| l.to_string()).unwrap_or_default();
        return Err(failed(format!("it has no address of the kind of local_address {local}")));
    }
    futures_util::future::select_ok(attempts)
        .await
        .map(|(stream, _)| stream)
        .map_err(|e| failed(e.to_string()))
}

async fn from(local: Option<IpAddr>, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if let Some(local) = local {
        socket.bind((local, 0).into())?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to a URL's host, from the given address if there is one.
pub(crate) async fn connect_to(
    url: &Url,
    port: u16,
    local: Option<IpAddr>,
) -> Result<TcpStream, SourceError> {
    connect(&host_and_port(url, port), &addresses(url, port).await?, local).await
}

/// Why a client has failed that does not tell a host that does not resolve from one that does not answer: by trying it. Not before
/// it fails: some servers take one connection only.
pub(super) async fn explain(url: &Url, port: u16, error: SourceError) -> SourceError {
    if matches!(error, SourceError::Ended) {
        return error;
    }
    match tokio::time::timeout(EXPLAIN_TIMEOUT, connect_to(url, port, None)).await {
        Ok(Err(reason)) => reason,
        Err(_) | Ok(Ok(_)) => error,
    }
}

/// Host and port, for people.
pub(crate) fn host_and_port(url: &Url, port: u16) -> String {
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn both_kinds_have_their_turn() {
        let found = parsed(&["[::1]:1", "[::2]:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
        let expected = parsed(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "10.0.0.3:1"]);
        assert_eq!(in_turn(found), expected);
        assert_eq!(in_turn(parsed(&["10.0.0.1:1"])), parsed(&["10.0.0.1:1"]));
    }

    #[tokio::test]
    async fn the_one_that_answers_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        // Nobody is there, whatever the network makes of that.
        let nobody: SocketAddr = "[100::1]:9".parse().unwrap();
        let stream = connect("x", &[nobody, here], None).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), here);
        let local = "127.0.0.2".parse().unwrap();
        let stream = connect("x", &[nobody, here], Some(local)).await.unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), local);
        let said = connect("x", &[nobody], Some(local)).await.unwrap_err().to_string();
        assert!(said.contains("local_address 127.0.0.2"), "{said}");
    }

    #[tokio::test]
    async fn addresses_are_found_and_names_that_are_none_are_said() {
        for (url, count) in [("rtsp://127.0.0.1/x", 1), ("rtsp://[::1]/x", 1), ("rtsp://localhost/x", 1)] {
            assert!(addresses(&url.parse().unwrap(), 554).await.unwrap().len() >= count, "{url}");
        }
        let said = addresses(&"rtsp://nowhere.invalid/x".parse().unwrap(), 554).await.unwrap_err();
        assert!(matches!(said, SourceError::Resolve { .. }), "{said}");
    }
}
