//! Packets that come by datagrams, put back into order.
//!
//! A packet that is ahead of the one that is missing waits until that one comes, until as many wait as the length
//! allows, or until it has waited for [`PATIENCE`]; what is missing then is lost. Doubles and packets that come too late are dropped.

use super::packet::RtpPacket;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Packets further than this from the expected one belong to another run of numbers: the sender began anew.
const RESTART: u16 = 3000;

/// Longer than this nothing waits; looked at whenever a packet comes.
const PATIENCE: Duration = Duration::from_millis(200);

/// Puts one sender's packets into order.
#[derive(Debug)]
pub struct Reorder {
    length: usize,
    next: Option<u16>,
    waiting: VecDeque<(RtpPacket, Instant)>,
    lost: u64,
    dropped: u64,
}

impl Reorder {
    /// Lets up to `length` packets wait; 0 for senders whose packets come in order.
    pub fn new(length: usize) -> Self {
        Self { length, next: None, waiting: VecDeque::new(), lost: 0, dropped: 0 }
    }

    /// Packets that never came.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Doubles, and packets that came too late.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Packets that wait for an earlier one.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a packet that came at `now`, and gives those whose turn it is to `out`, each with the number of those
    /// missing before.
    pub fn push(&mut self, packet: RtpPacket, now: Instant, mut out: impl FnMut(RtpPacket, u16)) {
        let next = *self.next.get_or_insert(packet.sequence);
        let ahead = packet.sequence.wrapping_sub(next);
        let behind = next.wrapping_sub(packet.sequence);
        if ahead.min(behind) >= RESTART {
            self.flush(&mut out);
            self.next = Some(packet.sequence.wrapping_add(1));
            // That something is missing is certain, how much is not.
            self.lost += 1;
            return out(packet, 1);
        }
        if ahead >= RESTART {
            self.dropped += 1;
            return;
        }
        if ahead == 0 && self.waiting.is_empty() {
            self.next = Some(next.wrapping_add(1));
            return out(packet, 0);
        }
        let place = self.waiting.partition_point(|(w, _)| w.sequence.wrapping_sub(next) < ahead);
        if self.waiting.get(place).is_some_and(|(w, _)| w.sequence == packet.sequence) {
            self.dropped += 1;
            return;
        }
        self.waiting.insert(place, (packet, now));
        self.drain(false, &mut out);
        let late = |(_, came): &(RtpPacket, Instant)| now.saturating_duration_since(*came) >= PATIENCE;
        while self.waiting.len() > self.length || self.waiting.iter().any(late) {
            self.drain(true, &mut out);
        }
    }

    /// Gives everything that waits, whatever is missing.
    pub fn flush(&mut self, mut out: impl FnMut(RtpPacket, u16)) {
        while !self.waiting.is_empty() {
            self.drain(true, &mut out);
        }
    }

    /// Gives what follows without a hole; with `skip` the first hole is passed over.
    fn drain(&mut self, mut skip: bool, out: &mut impl FnMut(RtpPacket, u16)) {
        while let Some((first, _)) = self.waiting.front() {
            let next = self.next.unwrap_or(first.sequence);
            let missing = first.sequence.wrapping_sub(next);
            if missing > 0 && !skip {
                return;
            }
            skip = false;
            let Some((packet, _)) = self.waiting.pop_front() else { return };
            self.next = Some(packet.sequence.wrapping_add(1));
            self.lost += u64::from(missing);
            out(packet, missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn packet(sequence: u16) -> RtpPacket {
        let payload = Bytes::new();
        RtpPacket { sequence, timestamp: 0, ssrc: 0, marker: false, payload_type: 96, payload }
    }

    fn run(length: usize, numbers: &[u16]) -> Vec<(u16, u16)> {
        let mut reorder = Reorder::new(length);
        let mut out = Vec::new();
        let now = Instant::now();
        numbers.iter().for_each(|n| reorder.push(packet(*n), now, |p, lost| out.push((p.sequence, lost))));
        reorder.flush(|p, lost| out.push((p.sequence, lost)));
        out
    }

    #[test]
    fn order_doubles_and_holes() {
        assert_eq!(run(4, &[65534, 0, 65535, 1]), [(65534, 0), (65535, 0), (0, 0), (1, 0)]);
        assert_eq!(run(4, &[1, 2, 2, 1, 3]), [(1, 0), (2, 0), (3, 0)]);
        assert_eq!(run(2, &[1, 3, 4, 5, 2]), [(1, 0), (3, 1), (4, 0), (5, 0)]);
        assert_eq!(run(0, &[1, 3, 2]), [(1, 0), (3, 1)]);
        assert_eq!(run(4, &[1, 40_000, 40_001]), [(1, 0), (40_000, 1), (40_001, 0)]);
    }

    #[test]
    fn nothing_waits_for_long() {
        let mut reorder = Reorder::new(64);
        let (mut out, now) = (Vec::new(), Instant::now());
        let mut push = |number, at| reorder.push(packet(number), at, |p, lost| out.push((p.sequence, lost)));
        push(1, now);
        push(3, now);
        push(4, now + PATIENCE / 2);
        push(6, now + PATIENCE);
        push(5, now + PATIENCE);
        assert_eq!(out, [(1, 0), (3, 1), (4, 0), (5, 0), (6, 0)]);
    }

    proptest! {
        /// Shuffled within the length, everything comes out once and in order.
        #[test]
        fn shuffled_within_the_length_nothing_is_lost(
            start in any::<u16>(),
            keys in prop::collection::vec(0usize..8, 1..300),
        ) {
            let mut order: Vec<(usize, u16)> = keys
                .iter()
                .enumerate()
                .map(|(n, k)| (if n == 0 { 0 } else { n + k }, start.wrapping_add(n as u16)))
                .collect();
            order.sort_by_key(|(at, _)| *at);
            let numbers: Vec<u16> = order.iter().map(|(_, s)| *s).collect();
            let expected: Vec<(u16, u16)> = (0..keys.len()).map(|n| (start.wrapping_add(n as u16), 0)).collect();
            prop_assert_eq!(run(16, &numbers), expected);
        }

        #[test]
        fn whatever_comes_numbers_only_go_up(numbers in prop::collection::vec(0u16..2000, 1..300)) {
            let out = run(16, &numbers);
            prop_assert!(out.windows(2).all(|w| w[0].0 < w[1].0), "{:?}", out);
        }
    }
}
