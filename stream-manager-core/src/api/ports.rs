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

    /// The addresses of a stream, by protocol. `packaged` says that it can be had by HTTP too, `published` that its source
    /// is whoever publishes it.
    pub fn addresses(
        &self,
        host: &str,
        id: &str,
        packaged: bool,
        published: bool,
    ) -> BTreeMap<String, String> {
        let mut addresses = BTreeMap::new();
        let ports = self.ports.read();
        for (protocol, port) in ports.iter() {
            let mut add = |name: &str, scheme: &str, path: &str| {
                addresses.insert(name.to_owned(), format!("{scheme}://{host}:{port}/{path}"));
            };
            match *protocol {
                // Media goes another way, but who wants it asks by HTTP.
                "webrtc" => {
                    if let Some(http) = ports.get("http") {
                        let page = format!("http://{host}:{http}/webrtc/{id}");
                        addresses.insert("whep".to_owned(), format!("{page}/whep"));
                        if published {
                            addresses.insert("whip".to_owned(), format!("{page}/whip"));
                        }
                        addresses.insert("webrtc".to_owned(), page);
                    }
                }
                "http" if packaged => {
                    add("hls", "http", &format!("hls/{id}/index.m3u8"));
                    add("dash", "http", &format!("dash/{id}/manifest.mpd"));
                    add("mp4", "http", &format!("api/streams/{id}/live.mp4"));
                    add("websocket", "ws", &format!("api/streams/{id}/live.mp4"));
                }
                "http" | "https" => {}
                // Nobody reads by it.
                "rtmp" if !published => {}
                protocol => add(protocol, protocol, id),
            }
        }
        addresses
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
        ports.set("http", Some(80));
        assert_eq!(ports.addresses("[::1]", "a/b", false, false).len(), 1);
        let addresses = ports.addresses("[::1]", "a/b", true, false);
        assert_eq!(addresses["rtsp"], "rtsp://[::1]:8554/a/b");
        assert_eq!(addresses["hls"], "http://[::1]:80/hls/a/b/index.m3u8");
        ports.set("webrtc", Some(8189));
        assert_eq!(ports.addresses("cam", "a/b", false, false)["whep"], "http://cam:80/webrtc/a/b/whep");
        assert_eq!(ports.addresses("cam", "a", false, true)["whip"], "http://cam:80/webrtc/a/whip");
        ports.set("rtmp", Some(1935));
        assert_eq!(ports.addresses("cam", "a", false, true)["rtmp"], "rtmp://cam:1935/a");
        assert!(!ports.addresses("cam", "a", false, false).contains_key("rtmp"));
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
