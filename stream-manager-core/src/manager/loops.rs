//! Addresses that lead back to the stream that they belong to.

use crate::config::Config;
use crate::source::percent_decoded;
use std::net::{IpAddr, SocketAddr};
use url::{Host, Url};

/// Whether an address is this server's own of the stream with this id. Only what is plain to see is seen: this machine by its
/// loopback, by the address that is listened at, or as `localhost`.
pub(super) fn leads_back(address: &str, id: &str, config: &Config) -> bool {
    let Ok(url) = Url::parse(address) else { return false };
    let path = percent_decoded(url.path());
    let path = path.trim_matches('/');
    let below = |front: &str| path.strip_prefix(front).and_then(|rest| rest.strip_prefix(id));
    let http = || {
        below("webrtc/").is_some_and(|rest| matches!(rest, "/whep" | "/whip"))
            || below("hls/").is_some_and(|rest| rest.starts_with('/'))
            || below("api/streams/").is_some_and(|rest| rest == "/live.mp4")
    };
    let (listen, default_port, same) = match url.scheme() {
        "rtsp" => (config.rtsp.enabled.then_some(config.rtsp.listen), 554, path == id),
        "rtsps" => (config.rtsp.tls_listen.filter(|_| config.rtsp.enabled), 322, path == id),
        "http" | "whep" | "whip" => (Some(config.server.listen), 80, http()),
        _ => return false,
    };
    let port = url.port().unwrap_or(default_port);
    same && listen.is_some_and(|listen| listen.port() == port && is_here(&url, listen))
}

fn is_here(url: &Url, listen: SocketAddr) -> bool {
    let name = match url.host() {
        Some(Host::Ipv4(ip)) => return is_own(ip.into(), listen),
        Some(Host::Ipv6(ip)) => return is_own(ip.into(), listen),
        Some(Host::Domain(name)) => name,
        None => return false,
    };
    // RTSP is no scheme whose hosts the parser understands.
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip| is_own(ip, listen))
}

fn is_own(ip: IpAddr, listen: SocketAddr) -> bool {
    ip.is_loopback() || (ip == listen.ip() && !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_back_is_seen_and_others_are_left_alone() {
        let config =
            Config::from_toml("[server]\nlisten = \"127.0.0.1:3000\"\n[rtsp]\nlisten = \"192.0.2.7:8554\"\n")
                .unwrap();
        for address in [
            "rtsp://localhost:8554/yard/cam",
            "rtsp://me:x@127.0.0.1:8554/yard/cam/",
            "rtsp://[::1]:8554/yard/cam?x=1",
            "rtsp://192.0.2.7:8554/yard/c%61m",
            "whip://localhost:3000/webrtc/yard/cam/whip",
            "http://127.0.0.1:3000/hls/yard/cam/index.m3u8",
            "http://127.0.0.1:3000/api/streams/yard/cam/live.mp4",
        ] {
            assert!(leads_back(address, "yard/cam", &config), "{address}");
        }
        for address in [
            "rtsp://localhost:8554/yard/cam2",
            "rtsp://localhost:554/yard/cam",
            "rtsp://192.0.2.8:8554/yard/cam",
            "rtsps://localhost:8554/yard/cam",
            "http://127.0.0.1:3000/hls/yard/camera/index.m3u8",
            "test://ball",
            "publisher",
        ] {
            assert!(!leads_back(address, "yard/cam", &config), "{address}");
        }
    }
}
