//! Which box belongs to which track: the pairs that fit best together in all (Kuhn and Munkres).
//!
//! Most boxes are near one track and far from all others. So what is near each other is taken apart into groups first, and
//! each group is solved for itself: a crowd of two hundred costs little unless all stand in one place.

use pathfinding::prelude::{Matrix, kuhn_munkres};

/// How finely fits are told apart.
const STEPS: f32 = 1e6;
/// Boxes in one group that are solved exactly; the time grows with its third power. More are paired greedily.
const MOST_EXACT: usize = 128;

/// A pair that would do, and how well: 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub(super) track: usize,
    pub(super) seen: usize,
    pub(super) fit: f32,
}

/// The pairs with the greatest sum of fits; nothing is in two pairs.
pub(super) fn assign(fits: &[Fit], tracks: usize, seen: usize) -> Vec<(usize, usize)> {
    let mut groups = Groups::new(tracks + seen);
    for fit in fits {
        groups.join(fit.track, tracks + fit.seen);
    }
    let mut of_group: std::collections::BTreeMap<usize, Vec<Fit>> = std::collections::BTreeMap::new();
    for fit in fits {
        of_group.entry(groups.root(fit.track)).or_default().push(*fit);
    }
    let mut pairs = Vec::new();
    for fits in of_group.values() {
        match fits[..] {
            [Fit { track, seen, .. }] => pairs.push((track, seen)),
            _ => solve(fits, &mut pairs),
        }
    }
    pairs
}

fn solve(fits: &[Fit], pairs: &mut Vec<(usize, usize)>) {
    let names = |of: fn(&Fit) -> usize| {
        let mut names: Vec<usize> = fits.iter().map(of).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let (tracks, seen) = (names(|f| f.track), names(|f| f.seen));
    if tracks.len().max(seen.len()) > MOST_EXACT {
        return greedy(fits, pairs);
    }
    let across = tracks.len() > seen.len();
    let (rows, columns) = if across { (&seen, &tracks) } else { (&tracks, &seen) };
    let mut weights = Matrix::new(rows.len(), columns.len(), 0i64);
    for fit in fits {
        let (row, column) = if across { (fit.seen, fit.track) } else { (fit.track, fit.seen) };
        let (Ok(row), Ok(column)) = (rows.binary_search(&row), columns.binary_search(&column)) else {
            continue;
        };
        weights[(row, column)] = weights[(row, column)].max((fit.fit * STEPS) as i64);
    }
    let (_, chosen) = kuhn_munkres(&weights);
    for (row, column) in chosen.into_iter().enumerate() {
        // A zero is no pair that would do.
        if weights[(row, column)] > 0 {
            let (one, other) = (rows[row], columns[column]);
            pairs.push(if across { (other, one) } else { (one, other) });
        }
    }
}

fn greedy(fits: &[Fit], pairs: &mut Vec<(usize, usize)>) {
    let mut fits = fits.to_vec();
    fits.sort_by(|a, b| b.fit.total_cmp(&a.fit));
    let (mut tracks, mut seen) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for fit in fits {
        if !tracks.contains(&fit.track) && !seen.contains(&fit.seen) {
            tracks.insert(fit.track);
            seen.insert(fit.seen);
            pairs.push((fit.track, fit.seen));
        }
    }
}

/// What belongs together.
struct Groups(Vec<usize>);

impl Groups {
    fn new(number: usize) -> Self {
        Self((0..number).collect())
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All ways to pair, tried one by one.
    fn best(fits: &[Fit], track: usize, tracks: usize, taken: u32) -> i64 {
        if track == tracks {
            return 0;
        }
        let without = best(fits, track + 1, tracks, taken);
        let with = fits.iter().filter(|f| f.track == track && taken & (1 << f.seen) == 0);
        with.map(|f| (f.fit * STEPS) as i64 + best(fits, track + 1, tracks, taken | 1 << f.seen))
            .max()
            .map_or(without, |w| w.max(without))
    }

    proptest! {
        #[test]
        fn nothing_fits_better(tracks in 1usize..7, seen in 1usize..7, numbers in prop::collection::vec(prop::option::of(0.01f32..1.0), 36)) {
            let mut fits = Vec::new();
            for track in 0..tracks {
                for seen in 0..seen {
                    fits.extend(numbers[track * 6 + seen].map(|fit| Fit { track, seen, fit }));
                }
            }
            let pairs = assign(&fits, tracks, seen);
            let mut sum = 0;
            for (n, pair) in pairs.iter().enumerate() {
                prop_assert!(pairs[..n].iter().all(|other| other.0 != pair.0 && other.1 != pair.1), "{pairs:?}");
                let fit = fits.iter().find(|f| (f.track, f.seen) == *pair);
                prop_assert!(fit.is_some(), "{pair:?} would not do");
                sum += (fit.unwrap().fit * STEPS) as i64;
            }
            prop_assert_eq!(sum, best(&fits, 0, tracks, 0));
        }
    }

    #[test]
    fn a_crowd_in_one_place_is_paired_all_the_same() {
        let number = MOST_EXACT + 20;
        let fits: Vec<Fit> = (0..number)
            .flat_map(|track| {
                (0..number).map(move |seen| Fit { track, seen, fit: if track == seen { 0.9 } else { 0.1 } })
            })
            .collect();
        let pairs = assign(&fits, number, number);
        assert_eq!(pairs.len(), number);
        assert!(pairs.iter().all(|(track, seen)| track == seen));
    }
}
