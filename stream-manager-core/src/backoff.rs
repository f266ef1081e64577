//! How long to wait before the next attempt: of a source, a forward, a hook.

use std::time::Duration;

/// When and how a stream tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// After running for this long, the next failure starts with the first wait again.
    pub reset_after: Duration,
    /// How long the source may be connected, or connecting, without a frame.
    pub silence: Duration,
    /// For one job: end with the error if the first attempt fails, or if attempts fail for this long.
    pub give_up_after: Option<Duration>,
}

impl Default for RetryPolicy {
    /// 1 s doubling to 30 s, reset after 30 s, silent after 10 s, never giving up.
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(30),
            reset_after: Duration::from_secs(30),
            silence: Duration::from_secs(10),
            give_up_after: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    attempt: u32,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, attempt: 0 }
    }

    /// Waits from the first length to the second.
    pub(crate) fn between(initial: Duration, max: Duration) -> Self {
        Self::new(RetryPolicy { initial, max, ..RetryPolicy::default() })
    }

    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The next wait: doubled each time, with a quarter of jitter each way so that cameras behind one
    /// switch do not come back at once.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled =
            self.policy.initial.saturating_mul(1u32.checked_shl(self.attempt.min(20)).unwrap_or(u32::MAX));
        self.attempt = self.attempt.saturating_add(1);
        doubled.min(self.policy.max).mul_f64(0.75 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_limit_with_jitter() {
        let mut backoff = Backoff::new(RetryPolicy::default());
        for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            let wait = backoff.next().as_secs_f64();
            assert!((expected * 0.75..=expected * 1.25).contains(&wait), "{wait} for {expected}");
        }
        backoff.reset();
        assert!(backoff.next() < Duration::from_secs(2));
        (0..100).for_each(|_| {
            backoff.next();
        });
        let waits: std::collections::HashSet<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(waits.len() > 10, "no jitter");
    }
}
