//! How many sources may be connecting at one time, over all and to one host; the numbers can change.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Who is connecting.
#[derive(Clone)]
pub(super) struct Connects(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Some turn has ended, or there are more.
    free: Notify,
}

struct State {
    limit: usize,
    limit_per_host: usize,
    out: usize,
    /// By host; hosts to which nobody is connecting are not in it.
    hosts: HashMap<Arc<str>, usize>,
}

/// A turn, until it is dropped.
pub(super) struct Connecting {
    connects: Connects,
    host: Option<Arc<str>>,
}

impl Connects {
    pub(super) fn new(limit: usize, limit_per_host: usize) -> Self {
        let state = State {
            limit: limit.max(1),
            limit_per_host: limit_per_host.max(1),
            out: 0,
            hosts: HashMap::new(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), free: Notify::new() }))
    }

    /// Turns that are out stay so.
    pub(super) fn set_limits(&self, limit: usize, limit_per_host: usize) {
        let mut state = self.0.state.lock();
        state.limit = limit.max(1);
        state.limit_per_host = limit_per_host.max(1);
        drop(state);
        self.0.free.notify_waiters();
    }

    /// Waits for a turn to connect to this host. Cancel safe.
    pub(super) async fn turn(&self, host: Option<&Arc<str>>) -> Connecting {
        loop {
            let free = self.0.free.notified();
            tokio::pin!(free);
            // Registered before the look, so that a turn that ends in between is not missed.
            free.as_mut().enable();
            if self.0.state.lock().take(host) {
                return Connecting { connects: self.clone(), host: host.cloned() };
            }
            free.await;
        }
    }
}

impl State {
    fn take(&mut self, host: Option<&Arc<str>>) -> bool {
        let to_host = host.and_then(|host| self.hosts.get(host)).copied().unwrap_or(0);
        if self.out >= self.limit || to_host >= self.limit_per_host {
            return false;
        }
        self.out += 1;
        if let Some(host) = host {
            self.hosts.insert(host.clone(), to_host + 1);
        }
        true
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        let mut state = self.connects.0.state.lock();
        state.out = state.out.saturating_sub(1);
        if let Some(host) = &self.host
            && let Some(count) = state.hosts.get_mut(host)
        {
            *count -= 1;
            if *count == 0 {
                state.hosts.remove(host);
            }
        }
        drop(state);
        self.connects.0.free.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn out(connects: &Connects) -> (usize, usize) {
        let state = connects.0.state.lock();
        (state.out, state.hosts.len())
    }

    #[tokio::test]
    async fn the_number_may_change_while_some_are_out() {
        let connects = Connects::new(3, 3);
        let mut turns = Vec::new();
        for _ in 0..3 {
            turns.push(connects.turn(None).await);
        }
        connects.set_limits(1, 1);
        turns.truncate(1);
        assert!(connects.turn(None).now_or_never().is_none());
        drop(turns);
        assert_eq!(out(&connects), (0, 0));
        assert!(connects.turn(None).now_or_never().is_some());
        connects.set_limits(4, 1);
        let turns: Vec<_> = (0..5).filter_map(|_| connects.turn(None).now_or_never()).collect();
        assert_eq!(turns.len(), 4);
    }

    #[tokio::test]
    async fn one_host_does_not_keep_others_waiting() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let connects = Connects::new(3, 1);
        let first = connects.turn(Some(&a)).await;
        assert!(connects.turn(Some(&a)).now_or_never().is_none());
        let _other = connects.turn(Some(&b)).await;
        assert_eq!(out(&connects), (2, 2));
        // Whoever waits gets the turn when it is free.
        let waiting = tokio::spawn({
            let (connects, a) = (connects.clone(), a.clone());
            async move { connects.turn(Some(&a)).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiting.await.unwrap();
        assert_eq!(out(&connects), (2, 2));
        drop(second);
        assert_eq!(out(&connects), (1, 1));
    }
}
