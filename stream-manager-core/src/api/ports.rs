//! Where streams can be had: the ports that are served, as they are at the moment.

use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ports by protocol. Clones are handles to the same list.
#[derive(Clone, Debug, Default)]
pub struct ServedPorts {
    ports: Arc<RwLock<BTreeMap<&'static str, u16>>>,
}

impl ServedPorts {
    /// Says that a protocol, which is also the scheme of its addresses, is served on a port, or no longer.
    pub fn set(&self, protocol: &'static str, port: Option<u16>) {
        let mut ports = self.ports.write();
        match port {
            Some(port) => drop(ports.insert(protocol, port)),
            None => drop(ports.remove(protocol)),
        }
    }

    /// The addresses of a stream, by protocol.
    pub fn addresses(&self, host: &str, id: &str) -> BTreeMap<String, String> {
        let address = |(protocol, port): (&&str, &u16)| {
            ((*protocol).to_owned(), format!("{protocol}://{host}:{port}/{id}"))
        };
        self.ports.read().iter().map(address).collect()
    }
}

/// The host of a `Host` header, without its port, if it looks like one.
pub(super) fn host_of(headers: &axum::http::HeaderMap) -> Option<&str> {
    let host = headers.get(axum::http::header::HOST)?.to_str().ok()?;
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let host = host.get(..end)?;
    let right = !host.is_empty()
        && host.len() <= 255
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    right.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_addresses() {
        let ports = ServedPorts::default();
        ports.set("rtsp", Some(8554));
        assert_eq!(ports.addresses("[::1]", "a/b")["rtsp"], "rtsp://[::1]:8554/a/b");
        for (header, host) in [
            ("cam.example:3000", Some("cam.example")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("[::1]:3000", Some("[::1]")),
            ("<script>", None),
            ("", None),
        ] {
            let mut headers = axum::http::HeaderMap::new();
            headers.insert("host", header.parse().unwrap());
            assert_eq!(host_of(&headers), host);
        }
    }
}
