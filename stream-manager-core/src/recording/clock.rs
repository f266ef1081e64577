//! Notices when the system's clock is set.

use crate::frame::WallTime;
use std::time::{Duration, Instant};

/// Smaller changes are the clock being steered, not set.
const THRESHOLD: Duration = Duration::from_secs(2);

/// Compares the wall clock with the clock that is never set.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    since: Option<(WallTime, Instant)>,
}

impl ClockWatch {
    /// Compares from now on.
    pub(super) fn restart(&mut self) {
        self.since = Some((WallTime::now(), Instant::now()));
    }

    /// By how much the clock was set since, and whether back. Compares from now on.
    pub(super) fn step(&mut self) -> Option<(Duration, bool)> {
        let (wall, monotonic) = self.since?;
        let step = compare(wall + monotonic.elapsed(), WallTime::now())?;
        self.restart();
        Some(step)
    }
}

fn compare(expected: WallTime, found: WallTime) -> Option<(Duration, bool)> {
    let (forward, back) = (found.saturating_since(expected), expected.saturating_since(found));
    let step = forward.max(back);
    (step >= THRESHOLD).then_some((step, back > forward))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_set_clock_from_a_steered_one() {
        let noon = WallTime::from_unix_nanos(1_700_000_000_000_000_000);
        let hour = Duration::from_secs(3600);
        assert_eq!(compare(noon, noon + hour), Some((hour, false)));
        assert_eq!(compare(noon + hour, noon), Some((hour, true)));
        assert_eq!(compare(noon, noon + Duration::from_millis(500)), None);
        let mut watch = ClockWatch::default();
        watch.restart();
        assert_eq!(watch.step(), None);
    }
}
