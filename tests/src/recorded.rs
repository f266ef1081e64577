//! A stream that is being recorded in short segments, `yard/cam`, and what its server says of it.

use crate::http::{Answer, request};
use crate::media::Packet;
use crate::program::Server;
use crate::wait_until;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// How it is recorded.
pub const SEGMENTS: &str = "recording = { enabled = true, segment_duration = \"2s\" }\n";

/// A server that takes this in and records it. `more` is added to its configuration.
pub fn start(source: &str, more: &str) -> (tempfile::TempDir, Server) {
    Server::alone(&format!("[[streams]]\nid = \"yard/cam\"\nsource_url = \"{source}\"\n{SEGMENTS}{more}"))
}

/// Its segments, as the API lists them.
pub fn segments(server: &Server) -> Vec<Value> {
    let (_, page) = server.call("GET", "/api/streams/yard/cam/recordings?view=segments&limit=1000", None);
    page["items"].as_array().unwrap().clone()
}

/// Waits until so many of them are complete, and gives all.
pub fn until_segments(server: &Server, number: usize) -> Vec<Value> {
    wait_until("segments", SOON, || {
        segments(server).iter().filter(|s| s["complete"] == true).count() >= number
    });
    segments(server)
}

/// Does something about its recording.
pub fn record(server: &Server, action: &str) {
    let (status, answer) = server.call("POST", &format!("/api/streams/yard/cam/recording/{action}"), None);
    assert_eq!(status, 200, "{answer:#}");
}

/// Stops recording and gives the segments, all of which can be found by then.
pub fn stopped(server: &Server) -> Vec<Value> {
    record(server, "stop");
    let rows = segments(server);
    assert!(rows.iter().all(|row| row["complete"] == true), "{rows:#?}");
    rows
}

/// What lies below its address in the API.
pub fn get(server: &Server, what: &str) -> Answer {
    request("GET", &server.url(&format!("/api/streams/yard/cam/{what}")), &[])
}

/// The file of a segment.
pub fn path_of(segment: &Value) -> &Path {
    Path::new(segment["path"].as_str().unwrap())
}

/// A time as the API has it in seconds since 1970.
pub fn seconds(time: &Value) -> f64 {
    let time: stream_manager_core::frame::WallTime = time.as_str().unwrap().parse().unwrap();
    time.as_unix_nanos() as f64 / 1e9
}

/// The packets of a kind.
pub fn of_kind<'a>(packets: &'a [Packet], kind: &'a str) -> impl Iterator<Item = &'a Packet> {
    packets.iter().filter(move |p| p.kind == kind)
}

/// A range as a query has it.
pub fn range(start: f64, end: f64) -> String {
    format!("start={start:.6}&end={end:.6}")
}
