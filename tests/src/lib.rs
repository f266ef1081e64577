//! What the whole-system tests share: cameras that are real RTSP servers, the programs under test, and other
//! people's programs to check the results with.
//!
//! - [`camera`]: a gst-rtsp-server that can stall, die, come back, change its picture size, lose packets,
//!   demand credentials. Its pictures carry a counter that shows a lost, doubled or reordered frame.
//! - [`replay`]: a small RTSP server that plays one encoded loop to any number of clients and can lie about
//!   its clock or send garbage; cheap enough for load benches.
//! - [`broker`]: an MQTT broker.
//! - [`client`]: an RTSP client that says exactly what a test wants.
//! - certificates that an [`authority`] of the tests vouches for.
//! - [`disk`]: a disk that forgets what was not synced, refuses or is slow.
//! - [`http`]: single requests.
//! - [`player`]: browser players; [`playlist`], [`mpd`]: the rules of HLS playlists and of MPDs.
//! - [`whep`], [`whip`]: WebRTC clients that watch and that publish, and a network that loses datagrams.
//! - [`media`]: ffprobe and ffmpeg, and what they say about a file.
//! - [`recorded`]: a stream that is being recorded.
//! - [`turn`]: a TURN server.
//! - [`program`]: starts `stream-manager` and talks to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test kit: a failure is to end the test

pub mod authority;
pub mod broker;
pub mod camera;
pub mod client;
pub mod disk;
pub mod http;
pub mod media;
pub mod mpd;
pub mod player;
pub mod playlist;
pub mod program;
pub mod recorded;
pub mod relay;
pub mod replay;
pub mod turn;
pub mod webhook;
pub mod whep;
pub mod whip;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The folder with the real videos, if it is here: `STREAM_MANAGER_TEST_ASSETS`, or `../shared/assets` beside the
/// repository.
pub fn assets() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/assets");
    let folder = std::env::var_os("STREAM_MANAGER_TEST_ASSETS").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// A port for somebody who listens later, free by UDP and by TCP: none of those that the system gives to whoever connects
/// in between.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(12_000..32_000);
        let address = (std::net::Ipv4Addr::LOCALHOST, port);
        if std::net::UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok() {
            return port;
        }
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within `limit`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
