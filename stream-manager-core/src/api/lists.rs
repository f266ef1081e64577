//! Lists of streams that have just been made, for callers who ask for the same again at once.
//!
//! A page is given out again for a fraction of a second, and only while no event has happened and no definition
//! changed: states are always as they are, only counters may be that much older.

use crate::manager::StreamManager;
use axum::body::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const MAX_AGE: Duration = Duration::from_millis(250);
const MAX_PAGES: usize = 64;
const MAX_BYTES: usize = 16 << 20;

/// What has to be the same for a page to be good still.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    event: u64,
    made: Instant,
}

#[derive(Default)]
pub(super) struct Lists {
    pages: Mutex<HashMap<String, (Moment, Bytes)>>,
}

impl Lists {
    pub(super) fn now(&self, manager: &StreamManager) -> Moment {
        Moment { event: manager.events().last_id(), made: Instant::now() }
    }

    pub(super) fn get(&self, manager: &StreamManager, key: &str) -> Option<Bytes> {
        let now = self.now(manager);
        let pages = self.pages.lock();
        let (moment, text) = pages.get(key)?;
        (moment.event == now.event && now.made - moment.made < MAX_AGE).then(|| text.clone())
    }

    pub(super) fn put(&self, key: String, moment: Moment, text: Bytes) {
        let mut pages = self.pages.lock();
        pages.retain(|_, (known, _)| moment.made.saturating_duration_since(known.made) < MAX_AGE);
        let bytes: usize = pages.values().map(|(_, text)| text.len()).sum();
        if pages.len() < MAX_PAGES && bytes + text.len() <= MAX_BYTES {
            pages.insert(key, (moment, text));
        }
    }
}
