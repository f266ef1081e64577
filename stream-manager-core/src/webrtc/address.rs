//! Which addresses clients are told.

use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, SocketAddr};

/// Addresses of one machine that are told at most.
const MAX_ADDRESSES: usize = 16;

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0) == 0xfe80,
    }
}

/// The machine's own addresses of the families that a socket serves; the loopback only if there is nothing else.
fn own(bound: SocketAddr) -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    let mut all: Vec<IpAddr> =
        addresses.filter(|a| (a.is_ipv4() || bound.is_ipv6()) && !is_link_local(a)).collect();
    if all.iter().any(|a| !a.is_loopback()) {
        all.retain(|a| !a.is_loopback());
    }
    all.sort();
    all.dedup();
    all
}

/// Where clients may reach a socket: those in the public first.
pub(super) fn candidates(bound: SocketAddr, public: &[IpAddr]) -> Vec<SocketAddr> {
    let own = if bound.ip().is_unspecified() { own(bound) } else { vec![bound.ip().to_canonical()] };
    let mut addresses: Vec<IpAddr> = public.to_vec();
    addresses.extend(own.into_iter().filter(|a| !public.contains(a)));
    addresses.truncate(MAX_ADDRESSES);
    addresses.into_iter().map(|address| SocketAddr::new(address, bound.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_address_is_told_alone_and_any_address_as_those_of_the_machine() {
        let public: IpAddr = "192.0.2.1".parse().unwrap();
        let bound = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(candidates(bound, &[public]), ["192.0.2.1:4000".parse().unwrap(), bound]);
        let any = candidates("[::]:5000".parse().unwrap(), &[]);
        assert!(!any.is_empty());
        assert!(any.iter().all(|a| a.port() == 5000 && !a.ip().is_unspecified() && !is_link_local(&a.ip())));
    }
}
