//! What the load benches share: their runtime, and reading what a process has used from `/proc`.

pub mod infer;

use std::path::Path;
use std::time::Duration;

/// A runtime as the program makes it.
///
/// # Errors
/// If its threads do not start.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(1, 8))
        .max_blocking_threads(8)
        .enable_all()
        .build()
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// That of it which the system took.
    pub system: Duration,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes given to `write` and its kin, files and sockets.
    pub written_bytes: u64,
    /// Calls of `write` and its kin.
    pub write_calls: u64,
}

/// Reads a process' usage; `None` if it is gone.
pub fn usage(pid: u32) -> Option<Usage> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    // The name in parentheses may hold anything; the fields behind it are fixed (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (user, system): (u64, u64) = (fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?);
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        status.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    let io = std::fs::read_to_string(folder.join("io")).unwrap_or_default();
    let counter = |name: &str| -> u64 {
        io.lines().find_map(|l| l.strip_prefix(name)).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    };
    // USER_HZ is 100 on every Linux that this runs on.
    let cpu = Duration::from_millis((user + system) * 10);
    Some(Usage {
        cpu,
        system: Duration::from_millis(system * 10),
        resident_bytes: field("VmRSS:")? * 1024,
        threads: field("Threads:")?,
        written_bytes: counter("wchar:"),
        write_calls: counter("syscw:"),
    })
}

/// The sum over several processes.
pub fn total(pids: &[u32]) -> Usage {
    pids.iter().filter_map(|pid| usage(*pid)).fold(Usage::default(), |a, b| Usage {
        cpu: a.cpu + b.cpu,
        system: a.system + b.system,
        resident_bytes: a.resident_bytes + b.resident_bytes,
        threads: a.threads + b.threads,
        written_bytes: a.written_bytes + b.written_bytes,
        write_calls: a.write_calls + b.write_calls,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_itself() {
        let usage = super::usage(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.threads >= 1);
        assert!(super::usage(u32::MAX).is_none());
    }
}
