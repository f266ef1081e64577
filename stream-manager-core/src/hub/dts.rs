//! Decoding times for sources that only state presentation times (RTP, RFC 3550, has no DTS).
//!
//! Access units come in decoding order. If at most `d` of them may precede another in decoding order
//! and follow it in output order, the n-th decoding time is the (n-d)-th smallest presentation time:
//! it is strictly increasing, never later than the unit's own presentation time, and known as soon as
//! the unit arrives, so nothing is held back. `d` comes from the parameter sets. Where they are silent it
//! starts at two, which is as deep as encoders usually go and costs a stream without B frames no more than
//! a constant distance between its two times; it grows by one whenever a unit arrives that should have
//! been decoded earlier.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The deepest reordering that H.264 and H.265 allow.
const MAX_REORDER: usize = 16;
/// Taken for streams whose parameter sets do not say.
const UNKNOWN_REORDER: usize = 2;
/// Used for the first `d` frames of a stream that does not state its frame rate, in nanoseconds.
const DEFAULT_FRAME_NANOS: i64 = 40_000_000;

#[derive(Debug)]
pub(super) struct DtsGenerator {
    reorder: usize,
    pending: BinaryHeap<Reverse<i64>>,
    first_pts: Option<i64>,
    count: usize,
    last: Option<i64>,
    frame_nanos: i64,
}

impl DtsGenerator {
    pub(super) fn new(max_reorder: Option<u32>, frame_nanos: Option<i64>) -> Self {
        Self {
            reorder: max_reorder.map_or(UNKNOWN_REORDER, |d| d as usize).min(MAX_REORDER),
            pending: BinaryHeap::new(),
            first_pts: None,
            count: 0,
            last: None,
            frame_nanos: frame_nanos.filter(|n| *n > 0).unwrap_or(DEFAULT_FRAME_NANOS),
        }
    }

    /// Forgets the past (the source's clock has jumped), keeps what was learnt about reordering.
    pub(super) fn reset(&mut self) {
        self.pending.clear();
        self.first_pts = None;
        self.count = 0;
        self.last = None;
    }

    /// Whether presentation times may go back from one unit to the next.
    pub(super) fn reorders(&self) -> bool {
        self.reorder > 0
    }

    /// The decoding time of the unit with this presentation time. Never later than that, unless the
    /// stream has just broken its promise about reordering.
    pub(super) fn next(&mut self, pts: i64) -> i64 {
        let first = *self.first_pts.get_or_insert(pts);
        self.pending.push(Reverse(pts));
        let late = self.last.is_some_and(|last| pts <= last);
        let dts = if self.count < self.reorder {
            let ahead = (self.reorder - self.count) as i64;
            self.count += 1;
            first.saturating_sub(ahead.saturating_mul(self.frame_nanos))
        } else if late && self.reorder < MAX_REORDER {
            self.reorder += 1;
            self.count += 1;
            self.last.unwrap_or(pts).saturating_add(1)
        } else {
            self.pending.pop().map_or(pts, |Reverse(dts)| dts)
        };
        let dts = self.last.map_or(dts, |last| dts.max(last.saturating_add(1)));
        self.last = Some(dts);
        dts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(generator: &mut DtsGenerator, pts: &[i64]) -> Vec<i64> {
        pts.iter().map(|p| generator.next(*p)).collect()
    }

    #[test]
    fn without_b_frames_dts_is_pts() {
        let mut generator = DtsGenerator::new(Some(0), None);
        assert_eq!(run(&mut generator, &[0, 40, 80]), [0, 40, 80]);
    }

    #[test]
    fn with_b_frames_dts_is_the_sorted_pts_moved_by_the_depth() {
        let mut generator = DtsGenerator::new(Some(2), Some(40));
        // I0 P4 B2 b1 b3 | P8 B6 b5 b7
        let pts = [0, 160, 80, 40, 120, 320, 240, 200, 280];
        assert_eq!(run(&mut generator, &pts), [-80, -40, 0, 40, 80, 120, 160, 200, 240]);
    }

    #[test]
    fn unknown_depth_is_enough_for_most_and_learnt_for_the_rest() {
        let mut generator = DtsGenerator::new(None, Some(40));
        let pts: Vec<i64> = (0..20).flat_map(|g| [g * 120, g * 120 + 80, g * 120 + 40]).collect();
        let dts = run(&mut generator, &pts);
        assert!(pts.iter().zip(&dts).all(|(p, d)| d <= p), "{dts:?}");

        let mut generator = DtsGenerator::new(Some(0), Some(40));
        let pts: Vec<i64> = (0..20).flat_map(|g| [g * 120 + 120, g * 120 + 40, g * 120 + 80]).collect();
        let dts = run(&mut generator, &pts);
        assert!(dts.windows(2).all(|w| w[0] < w[1]), "{dts:?}");
        // After the first groups every decoding time is in front of its presentation time.
        assert!(pts.iter().zip(&dts).skip(6).all(|(p, d)| d <= p), "{dts:?}");
    }

    proptest! {
        /// Any order that keeps its promised depth gives strictly increasing times, none after its PTS.
        #[test]
        fn promise_kept_means_dts_before_pts(depth in 0usize..5, seed in prop::collection::vec(0usize..5, 1..200)) {
            // Decode order that obeys the depth: pick among the next `depth + 1` output positions, but
            // never leave one waiting for more than `depth` others.
            let mut waiting: Vec<i64> = Vec::new();
            let mut next = 0i64;
            let mut order = Vec::new();
            for pick in seed {
                while waiting.len() <= depth { waiting.push(next * 40); next += 1; }
                // A unit skipped `depth` times has to go now.
                let ahead = order.iter().filter(|p: &&i64| **p > waiting[0]).count();
                let index = if ahead >= depth { 0 } else { pick.min(waiting.len() - 1) };
                order.push(waiting.remove(index));
            }
            let first = order[0];
            prop_assume!(order.iter().all(|p| *p >= first) || depth > 0);
            let mut generator = DtsGenerator::new(Some(depth as u32), Some(40));
            let dts = run(&mut generator, &order);
            prop_assert!(dts.windows(2).all(|w| w[0] < w[1]));
            if order.iter().all(|p| *p >= first) {
                prop_assert!(order.iter().zip(&dts).all(|(p, d)| d <= p), "{:?} {:?}", order, dts);
            }
        }
    }
}
