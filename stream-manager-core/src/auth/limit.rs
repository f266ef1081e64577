//! Wrong passwords, counted by address and by user, so that they cannot be tried at any speed.
//!
//! An address that fails too often waits, whoever it claims to be; IPv6 addresses count by their /64, which one host has. A name
//! that fails too often from everywhere waits, too, but not where it has proved itself lately: nobody is locked out of where
//! they are by others' attempts.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// More entries than this are not remembered; the oldest go.
const MAX_ENTRIES: usize = 10_000;
/// So many times as many failures as of an address are allowed of a name.
const NAME_FACTOR: u32 = 5;
/// How long an address counts as one where a user has proved themselves.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// What failed, how often, and since when.
type Counts<K> = HashMap<K, (u32, Instant)>;

/// Counts failed attempts.
#[derive(Debug)]
pub struct Attempts {
    allowed: u32,
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    addresses: Counts<IpAddr>,
    names: Counts<String>,
    known: HashMap<(IpAddr, String), Instant>,
}

/// One host.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() & !u128::from(u64::MAX)).to_be_bytes()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Makes room by what is old, then by the oldest.
fn make_room<K: Hash + Eq + Clone, V>(
    map: &mut HashMap<K, V>,
    since: impl Fn(&V) -> Instant,
    window: Duration,
) {
    if map.len() < MAX_ENTRIES {
        return;
    }
    map.retain(|_, value| since(value).elapsed() < window);
    if map.len() >= MAX_ENTRIES
        && let Some(oldest) = map.iter().min_by_key(|(_, value)| since(value)).map(|(key, _)| key.clone())
    {
        map.remove(&oldest);
    }
}

impl Attempts {
    /// Allows so many failures of an address within the window.
    pub fn new(allowed: u32, window: Duration) -> Self {
        Self { allowed, window, state: Mutex::default() }
    }

    fn left<K: Hash + Eq>(&self, counts: &Counts<K>, key: &K, allowed: u32) -> Option<Duration> {
        let (count, since) = counts.get(key)?;
        let left = self.window.checked_sub(since.elapsed())?;
        (*count >= allowed).then_some(left)
    }

    /// How long somebody from an address who claims to be a user has to wait, if there were too many failures.
    pub fn wait(&self, address: IpAddr, user: &str) -> Option<Duration> {
        let (state, host) = (self.state.lock(), host(address));
        if let Some(left) = self.left(&state.addresses, &host, self.allowed) {
            return Some(left);
        }
        let name = user.to_owned();
        let left = self.left(&state.names, &name, self.allowed.saturating_mul(NAME_FACTOR))?;
        let known = state.known.get(&(host, name)).is_some_and(|since| since.elapsed() < KNOWN_FOR);
        (!known).then_some(left)
    }

    fn count<K: Hash + Eq + Clone>(&self, counts: &mut Counts<K>, key: K) {
        if !counts.contains_key(&key) {
            make_room(counts, |(_, since)| *since, self.window);
        }
        let now = Instant::now();
        let entry = counts.entry(key).or_insert((0, now));
        if now.duration_since(entry.1) >= self.window {
            *entry = (0, now);
        }
        entry.0 = entry.0.saturating_add(1);
    }

    /// Counts a failure.
    pub fn failed(&self, address: IpAddr, user: &str) {
        let mut state = self.state.lock();
        let State { addresses, names, .. } = &mut *state;
        self.count(addresses, host(address));
        if !user.is_empty() {
            // Names are as long as somebody likes.
            self.count(names, user.chars().take(64).collect());
        }
    }

    /// Forgets the failures of an address from which a user has proved themselves.
    pub fn succeeded(&self, address: IpAddr, user: &str) {
        let mut state = self.state.lock();
        let host = host(address);
        state.addresses.remove(&host);
        make_room(&mut state.known, |since| *since, KNOWN_FOR);
        state.known.insert((host, user.to_owned()), Instant::now());
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
            assert_eq!(attempts.wait(a, "ann"), None);
            attempts.failed(a, "ann");
        }
        assert!(attempts.wait(a, "ann").is_some() && attempts.wait(a, "bob").is_some());
        assert_eq!(attempts.wait(b, "ann"), None);
        attempts.succeeded(a, "ann");
        assert_eq!(attempts.wait(a, "ann"), None);
        let brief = Attempts::new(1, Duration::ZERO);
        brief.failed(a, "ann");
        assert_eq!(brief.wait(a, "ann"), None, "the window is over");
        // All of a /64 is one host.
        let v6 = |text: &str| text.parse().unwrap();
        for n in 0..3 {
            attempts.failed(v6(&format!("2001:db8::{n}")), "");
        }
        assert!(attempts.wait(v6("2001:db8::99"), "x").is_some());
        assert_eq!(attempts.wait(v6("2001:db8:0:1::99"), "x"), None);
    }

    #[test]
    fn a_name_that_is_tried_from_everywhere_waits_but_not_at_home() {
        let attempts = Attempts::new(3, Duration::from_secs(60));
        let home = "192.168.1.2".parse().unwrap();
        attempts.succeeded(home, "ann");
        for n in 0..15u32 {
            attempts.failed(IpAddr::from(n.to_be_bytes()), "ann");
        }
        let elsewhere = "203.0.113.9".parse().unwrap();
        assert!(attempts.wait(elsewhere, "ann").is_some());
        assert_eq!(attempts.wait(elsewhere, "bob"), None);
        assert_eq!(attempts.wait(home, "ann"), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let attempts = Attempts::new(3, Duration::from_secs(60));
        for n in 0..MAX_ENTRIES as u32 + 50 {
            attempts.failed(IpAddr::from(n.to_be_bytes()), &format!("user {n}"));
            attempts.succeeded(IpAddr::from((n + 1).to_be_bytes()), &format!("user {n}"));
        }
        let state = attempts.state.lock();
        assert!(state.addresses.len() <= MAX_ENTRIES && state.names.len() <= MAX_ENTRIES);
        assert!(state.known.len() <= MAX_ENTRIES);
    }
}
