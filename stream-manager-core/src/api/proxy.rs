//! Whom a request comes from, where a proxy stands between, and whether "this machine" is to be believed.
//!
//! Proxies that are configured (`server.trusted_proxies`) say in `X-Forwarded-For` for whom they speak. From this machine itself a
//! request counts as local only if nothing says otherwise: a proxy that is not configured, or a page whose name was made to lead here
//! (DNS rebinding), would lend its visitors the rights of this machine.

use super::ApiState;
use super::accounts::ByTls;
use super::ports::host_of;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// What only proxies send.
const FORWARDED: [&str; 4] = ["x-forwarded-for", "forwarded", "x-real-ip", "via"];

pub(super) async fn layer(State(state): State<Arc<ApiState>>, mut request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() {
        let config = state.manager.config();
        let is_trusted = |address: IpAddr| config.server.trusted_proxies.iter().any(|n| n.contains(address));
        let headers = request.headers();
        let address = origin(headers, request.uri().host(), peer.ip(), is_trusted);
        let by_tls = is_trusted(peer.ip())
            && headers
                .get("x-forwarded-proto")
                .is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(address, peer.port())));
        if by_tls {
            request.extensions_mut().insert(ByTls);
        }
    }
    next.run(request).await
}

fn origin(
    headers: &HeaderMap,
    authority: Option<&str>,
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let peer = peer.to_canonical();
    if is_trusted(peer) {
        return forwarded_for(headers, peer, is_trusted).to_canonical();
    }
    let by_proxy = FORWARDED.iter().any(|name| headers.contains_key(*name));
    // HTTP/2 has the host in the address.
    let host = host_of(headers).or(authority);
    if peer.is_loopback() && (by_proxy || !host.is_none_or(is_this_machine)) {
        tracing::debug!(%peer, host, "a request by way of this machine does not count as from this machine");
        return Ipv4Addr::UNSPECIFIED.into();
    }
    peer
}

/// Whom a proxy that is trusted says it speaks for: the last address in `X-Forwarded-For` that is no such proxy itself.
fn forwarded_for(headers: &HeaderMap, peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    if !is_trusted(peer) {
        return peer;
    }
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let mut address = peer;
    for hop in hops.iter().rev() {
        // With a port, or without; IPv6 in brackets, or without.
        let parsed = hop.parse::<IpAddr>().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|a| a.ip()));
        let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
        let Some(hop) = parsed.or_else(bracketed) else { return address };
        address = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    address
}

/// Names that nobody else can make lead here.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let own = || rustix::system::uname().nodename().to_str().is_ok_and(|own| own.eq_ignore_ascii_case(&name));
    host.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost") || own()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_this_machine() {
        let of = |peer: &str, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            let proxy: IpAddr = "10.0.0.1".parse().unwrap();
            origin(&map, None, peer.parse().unwrap(), |a| a == proxy).to_string()
        };
        for host in ["127.0.0.1:3000", "localhost:3000", "[::1]:3000", "LOCALHOST", "cam.localhost"] {
            assert_eq!(of("127.0.0.1", &[("host", host)]), "127.0.0.1", "{host}");
        }
        let own = rustix::system::uname().nodename().to_str().unwrap().to_owned();
        assert_eq!(of("127.0.0.1", &[("host", &format!("{own}:3000"))]), "127.0.0.1", "{own}");
        assert_eq!(of("::ffff:127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(
            of("127.0.0.1", &[("host", "evil.example")]),
            "0.0.0.0",
            "a name that was made to lead here"
        );
        for name in FORWARDED {
            assert_eq!(
                of("127.0.0.1", &[("host", "localhost"), (name, "198.51.100.7")]),
                "0.0.0.0",
                "{name}"
            );
        }
        assert_eq!(of("192.0.2.1", &[("x-forwarded-for", "127.0.0.1")]), "192.0.2.1");
        assert_eq!(
            of("10.0.0.1", &[("x-forwarded-for", "198.51.100.7"), ("host", "cams.example")]),
            "198.51.100.7"
        );
    }

    #[test]
    fn only_trusted_proxies_say_for_whom_they_speak() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxies = [address("10.0.0.1"), address("10.0.0.2")];
        let of = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            forwarded_for(&headers, address(peer), |a| proxies.contains(&a)).to_string()
        };
        assert_eq!(of("192.0.2.1", &["127.0.0.1"]), "192.0.2.1", "anybody can write such a header");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(
            of("10.0.0.1", &["127.0.0.1, 198.51.100.7"]),
            "198.51.100.7",
            "what the client wrote itself"
        );
        assert_eq!(of("10.0.0.1", &["198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &["127.0.0.1", "198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(of("10.0.0.1", &["127.0.0.1, rubbish"]), "10.0.0.1");
    }
}
