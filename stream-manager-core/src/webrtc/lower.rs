//! Where a viewer finds the same picture in a lower quality.

use super::feed::{Feeds, Watch};
use super::negotiate::plan;
use super::worker::WorkerHandle;
use crate::hub::Hub;
use futures_util::FutureExt as _;
use std::sync::Arc;
use str0m::media::Pt;

/// A stream that shows the same in a lower quality.
#[derive(Clone, Debug)]
pub struct LowerStream {
    /// Its id.
    pub stream: Arc<str>,
    /// What goes through it.
    pub hub: Hub,
}

/// What it takes to watch one: it is begun with when it is needed.
pub(super) struct Lower {
    /// Best first.
    pub(super) streams: Vec<LowerStream>,
    /// What the client has offered.
    pub(super) offer: Arc<str>,
    pub(super) feeds: Arc<Feeds>,
    pub(super) workers: Arc<[WorkerHandle]>,
}

impl Lower {
    /// The best one that can be sent with this payload type, by a worker.
    pub(super) fn find(&self, payload_type: Pt, worker: usize) -> Option<Watch> {
        self.streams.iter().find_map(|lower| {
            let tracks = lower.hub.tracks();
            let chosen = plan(&self.offer, &tracks, false).ok()?.video?;
            if chosen.params.pt() != payload_type || lower.hub.closed().now_or_never().is_some() {
                return None;
            }
            let feed = self.feeds.get(&lower.stream, &lower.hub, &tracks, &self.workers);
            (!feed.shared.reorders()).then(|| feed.watch(worker, false))
        })
    }
}
