//! What this program is, and how the machine is.

use super::StreamManager;
use crate::frame::WallTime;
use crate::pipeline::GstreamerReport;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// What this program is, and how the machine is.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SystemReport {
    /// The library's version.
    pub version: &'static str,
    /// `release` or `debug`.
    pub profile: &'static str,
    /// Operating system and processor.
    pub target: String,
    /// What was built in.
    pub features: Vec<&'static str>,
    /// GStreamer, if it can be used.
    pub gstreamer: Option<GstreamerReport>,
    /// When the manager was made.
    pub started: WallTime,
    /// For how long it has run, in seconds.
    pub uptime_secs: f64,
    /// This process's number.
    pub pid: u32,
    /// Processors that this process may use.
    pub cpus: usize,
    /// The machine's load over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// The processor time that this process has used, in seconds.
    pub cpu_secs: Option<f64>,
    /// Memory that this process has.
    pub memory_bytes: Option<u64>,
    /// The machine's memory.
    pub memory_total_bytes: Option<u64>,
    /// Of that, what could still be had.
    pub memory_available_bytes: Option<u64>,
    /// Threads of this process.
    pub threads: Option<u64>,
    /// Files and sockets that are open.
    pub open_files: Option<usize>,
    /// Streams that run.
    pub streams_running: usize,
    /// Streams that are defined.
    pub streams_defined: usize,
    /// Who reads and who publishes.
    pub sessions: usize,
    /// Events that are missing in the journal.
    pub events_lost: u64,
}

impl StreamManager {
    /// What this program is, and how the machine is. Reads a few small files; may block for a moment.
    pub fn system(&self) -> SystemReport {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let uptime = self.inner.made.elapsed();
        let features = [
            ("http", cfg!(feature = "http")),
            ("inference", cfg!(feature = "inference")),
            ("mqtt", cfg!(feature = "mqtt")),
            ("hls", cfg!(feature = "hls")),
            ("rtmp", cfg!(feature = "rtmp")),
            ("rtsp", cfg!(feature = "rtsp")),
            ("systemd", cfg!(feature = "systemd")),
            ("tensorrt", cfg!(feature = "tensorrt")),
            ("webrtc", cfg!(feature = "webrtc")),
        ];
        SystemReport {
            version: env!("CARGO_PKG_VERSION"),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            target: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            features: features.iter().filter(|(_, built)| *built).map(|(name, _)| *name).collect(),
            gstreamer: crate::pipeline::installed(),
            started: WallTime::now() - uptime,
            uptime_secs: uptime.as_secs_f64(),
            pid: std::process::id(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load: load(),
            cpu_secs: cpu_time().map(|d| d.as_secs_f64()),
            memory_bytes: kib(&status, "VmRSS:"),
            memory_total_bytes: kib(&memory, "MemTotal:"),
            memory_available_bytes: kib(&memory, "MemAvailable:"),
            threads: number(&status, "Threads:"),
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            streams_running: self.inner.streams.read().len(),
            streams_defined: self.inner.control.defined.read().all().count(),
            sessions: self.sessions().len(),
            events_lost: self.journal().map_or(0, crate::storage::journal::Journal::lost),
        }
    }
}

/// A number behind a name, as in `/proc/self/status`.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

fn kib(text: &str, name: &str) -> Option<u64> {
    Some(number(text, name)? * 1024)
}

fn load() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut numbers = text.split_whitespace().map_while(|n| n.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

/// The processor time of this process, of all its threads.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: utime and stime are the 14th and 15th field.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // The kernel's clock ticks are a hundred a second for user space on every Linux.
    Some(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        let text = "Name:\tx\nVmRSS:\t  1024 kB\nThreads:\t7\n";
        assert_eq!(
            (kib(text, "VmRSS:"), number(text, "Threads:"), number(text, "None:")),
            (Some(1 << 20), Some(7), None)
        );
        assert!(cpu_time().is_some() && load().is_some());
    }
}
