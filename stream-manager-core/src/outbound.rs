//! Where this process connects to, and where not: a guard against addresses that lead to what is not meant to be reached through it
//! (server-side request forgery).
//!
//! Every address of a source, a forward, a webhook, keys of JWT and the like is looked at once its name is resolved, at each connection:
//! a name that leads elsewhere by then changes nothing. Unless told otherwise the services are closed that clouds have for
//! their machines' own secrets. The rules are those of the process ([`set_rules`]), as an egress firewall's would be.
//!
//! What an HTTP server redirects GStreamer to is not looked at.

use crate::auth::Network;
use parking_lot::RwLock;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// Addresses under which clouds tell machines their secrets: AWS, Azure, Google and others; AWS (containers, IPv6); Alibaba; Azure's agent.
pub const METADATA_SERVICES: [&str; 5] =
    ["169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"];

/// They as networks.
pub(crate) fn metadata_services() -> Vec<Network> {
    METADATA_SERVICES.iter().filter_map(|address| address.parse().ok()).collect()
}

/// What may be connected to.
///
/// ```
/// # use stream_manager_core::outbound::Rules;
/// let rules = Rules::default();
/// assert!(rules.allows("192.168.1.7".parse().unwrap()));
/// assert!(!rules.allows("::ffff:169.254.169.254".parse().unwrap()));
/// let inside = Rules::new(vec!["127.0.0.0/8".parse().unwrap()], vec!["127.0.0.2".parse().unwrap()]);
/// assert!(!inside.allows("0.0.0.0".parse().unwrap()) && inside.allows("127.0.0.2".parse().unwrap()));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    denied: Vec<Network>,
    allowed: Vec<Network>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { denied: metadata_services(), allowed: Vec::new() }
    }
}

impl Rules {
    /// Everything may be connected to but what is denied and not allowed.
    pub fn new(denied: Vec<Network>, allowed: Vec<Network>) -> Self {
        Self { denied, allowed }
    }

    /// Whether an address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        // What is connected to by these is this machine.
        let address = match address.to_canonical() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            other => other,
        };
        let within = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        within(&self.allowed) || !within(&self.denied)
    }
}

/// An address that is not to be connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{address} is not to be connected to (outbound.deny)", by_name(host, *address))]
pub struct Denied {
    /// What was asked for.
    pub host: String,
    /// Where it leads.
    pub address: IpAddr,
}

fn by_name(host: &str, address: IpAddr) -> String {
    let is_name = host.trim_matches(['[', ']']).parse() != Ok(address);
    if is_name { format!("{host} leads to an address that is closed: ") } else { String::new() }
}

static RULES: LazyLock<RwLock<Rules>> = LazyLock::new(RwLock::default);

/// Sets the rules of this process.
pub fn set_rules(rules: Rules) {
    *RULES.write() = rules;
}

/// Looks at where a name leads. One address that is denied is enough: it is the one that would be tried in the end.
pub(crate) fn check(host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), Denied> {
    let rules = RULES.read();
    match addresses.into_iter().find(|address| !rules.allows(*address)) {
        Some(address) => Err(Denied { host: host.to_owned(), address }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_written() {
        let rules = Rules::new(
            ["127.0.0.0/8", "::1", "10.0.0.0/8", "169.254.0.0/16"].map(|n| n.parse().unwrap()).into(),
            vec!["10.0.0.7".parse().unwrap()],
        );
        for (address, allowed) in [
            ("127.0.0.1", false),
            ("127.1.2.3", false),
            ("0.0.0.0", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:a9fe:a9fe", false),
            ("10.0.0.8", false),
            ("10.0.0.7", true),
            ("::ffff:10.0.0.7", true),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(rules.allows(address.parse().unwrap()), allowed, "{address}");
        }
        assert!(Rules::new(Vec::new(), Vec::new()).allows("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn secrets_of_clouds_are_closed_unless_told_otherwise() {
        for address in METADATA_SERVICES {
            let said = check("camera.example", [address.parse().unwrap()]).unwrap_err();
            assert_eq!(said.host, "camera.example");
        }
        assert_eq!(check("x", ["192.168.1.7".parse().unwrap()]), Ok(()));
    }
}
