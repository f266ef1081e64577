//! How many sources may be connecting at one time; the number can change.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A semaphore whose size can be changed.
#[derive(Clone)]
pub(super) struct Connects {
    semaphore: Arc<Semaphore>,
    state: Arc<Mutex<Size>>,
}

struct Size {
    limit: usize,
    /// Permits that are out and are to be forgotten instead of given back.
    surplus: usize,
}

pub(super) struct Connecting {
    permit: Option<OwnedSemaphorePermit>,
    state: Arc<Mutex<Size>>,
}

impl Connects {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        let state = Arc::new(Mutex::new(Size { limit, surplus: 0 }));
        Self { semaphore: Arc::new(Semaphore::new(limit)), state }
    }

    pub(super) fn set_limit(&self, limit: usize) {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        let mut state = self.state.lock();
        if limit > state.limit {
            let more = limit - state.limit;
            let kept = more.min(state.surplus);
            state.surplus -= kept;
            self.semaphore.add_permits(more - kept);
        } else {
            let less = state.limit - limit;
            state.surplus += less - self.semaphore.forget_permits(less);
        }
        state.limit = limit;
    }

    /// Waits for a turn. `None` only if there is no limit any more, which does not happen.
    pub(super) async fn turn(&self) -> Option<Connecting> {
        let permit = self.semaphore.clone().acquire_owned().await.ok()?;
        Some(Connecting { permit: Some(permit), state: self.state.clone() })
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut state = self.state.lock();
        if state.surplus > 0 {
            state.surplus -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_number_may_change_while_some_are_out() {
        let connects = Connects::new(3);
        let mut out = Vec::new();
        for _ in 0..3 {
            out.push(connects.turn().await);
        }
        connects.set_limit(1);
        out.truncate(1);
        assert_eq!(connects.semaphore.available_permits(), 0);
        drop(out);
        assert_eq!(connects.semaphore.available_permits(), 1);
        connects.set_limit(4);
        assert_eq!(connects.semaphore.available_permits(), 4);
    }
}
