//! Wrong passwords, counted by address, so that they cannot be tried at any speed.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// More addresses than this are not remembered; the oldest go.
const MAX_ADDRESSES: usize = 10_000;

/// Counts failed attempts.
#[derive(Debug)]
pub struct Attempts {
    allowed: u32,
    window: Duration,
    failed: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

impl Attempts {
    /// Allows so many failures within the window.
    pub fn new(allowed: u32, window: Duration) -> Self {
        Self { allowed, window, failed: Mutex::default() }
    }

    /// How long the address has to wait, if it has failed too often.
    pub fn wait(&self, address: IpAddr) -> Option<Duration> {
        let failed = self.failed.lock();
        let (count, since) = failed.get(&address)?;
        let left = self.window.checked_sub(since.elapsed())?;
        (*count >= self.allowed).then_some(left)
    }

    /// Counts a failure.
    pub fn failed(&self, address: IpAddr) {
        let now = Instant::now();
        let mut failed = self.failed.lock();
        if failed.len() >= MAX_ADDRESSES && !failed.contains_key(&address) {
            failed.retain(|_, (_, since)| now.duration_since(*since) < self.window);
            if failed.len() >= MAX_ADDRESSES
                && let Some(oldest) = failed.iter().min_by_key(|(_, (_, since))| *since).map(|(a, _)| *a)
            {
                failed.remove(&oldest);
            }
        }
        let entry = failed.entry(address).or_insert((0, now));
        if now.duration_since(entry.1) >= self.window {
            *entry = (0, now);
        }
        entry.0 = entry.0.saturating_add(1);
    }

    /// Forgets the failures of an address that has proved itself.
    pub fn succeeded(&self, address: IpAddr) {
        self.failed.lock().remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_others_do_not() {
        let attempts = Attempts::new(3, Duration::from_secs(60));
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for _ in 0..3 {
            assert_eq!(attempts.wait(a), None);
            attempts.failed(a);
        }
        assert!(attempts.wait(a).is_some());
        assert_eq!(attempts.wait(b), None);
        attempts.succeeded(a);
        assert_eq!(attempts.wait(a), None);
        let brief = Attempts::new(1, Duration::ZERO);
        brief.failed(a);
        assert_eq!(brief.wait(a), None, "the window is over");
    }

    #[test]
    fn the_memory_is_bounded() {
        let attempts = Attempts::new(3, Duration::from_secs(60));
        for n in 0..MAX_ADDRESSES as u32 + 50 {
            attempts.failed(IpAddr::from(n.to_be_bytes()));
        }
        assert!(attempts.failed.lock().len() <= MAX_ADDRESSES);
    }
}
