//! Non-maximum suppression: of boxes of one class that overlap, the best one stays.

use crate::detection::Region;

/// A box as a model gives it, in pixels of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The class's number.
    pub class: u32,
    /// 0 to 1.
    pub score: f32,
    /// Where.
    pub region: Region,
}

/// More candidates than this are not compared with each other: the worst are left out.
const MAX_CANDIDATES: usize = 3000;

/// Sorts candidates by score, best first, and leaves out those that overlap a better one of their class by more than
/// `iou`, and all but the best `most`.
pub fn suppress(mut candidates: Vec<Candidate>, iou: f32, most: usize) -> Vec<Candidate> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(MAX_CANDIDATES);
    let mut kept: Vec<Candidate> = Vec::with_capacity(candidates.len().min(most));
    for candidate in candidates {
        if kept.len() >= most {
            break;
        }
        let covered =
            kept.iter().any(|k| k.class == candidate.class && k.region.iou(&candidate.region) > iou);
        if !covered {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate() -> impl Strategy<Value = Candidate> {
        (0u32..3, 0.0f32..1.0, 0.0f32..90.0, 0.0f32..90.0, 1.0f32..60.0, 1.0f32..60.0).prop_map(
            |(class, score, x, y, w, h)| Candidate { class, score, region: Region::new(x, y, x + w, y + h) },
        )
    }

    proptest! {
        #[test]
        fn what_stays_is_the_best_and_apart(
            all in prop::collection::vec(candidate(), 0..60), iou in 0.1f32..0.9, most in 1usize..80,
        ) {
            let kept = suppress(all.clone(), iou, most);
            prop_assert!(kept.len() <= most);
            prop_assert!(kept.windows(2).all(|w| w[0].score >= w[1].score));
            for (i, a) in kept.iter().enumerate() {
                prop_assert!(all.contains(a));
                for b in &kept[i + 1..] {
                    prop_assert!(a.class != b.class || a.region.iou(&b.region) <= iou);
                }
            }
            if kept.len() < most {
                // Whatever is gone is covered by something better.
                for gone in all.iter().filter(|c| !kept.contains(c)) {
                    let covers = |k: &&Candidate| {
                        k.class == gone.class && k.score >= gone.score && k.region.iou(&gone.region) > iou
                    };
                    prop_assert!(kept.iter().find(covers).is_some());
                }
            }
            prop_assert_eq!(suppress(kept.clone(), iou, most), kept);
        }
    }
}
