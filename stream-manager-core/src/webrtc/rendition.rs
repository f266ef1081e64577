//! A stream's picture as browsers take it: made for all viewers who need it, while there is one.

use super::server::tracks;
use crate::frame::Track;
use crate::hub::{Hub, HubOptions};
use crate::source::{Source, TranscodeSource};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A stream's picture in H.264 without B frames. It is made until the last handle is dropped.
pub(super) struct Rendition {
    pub(super) hub: Hub,
    _stops: DropGuard,
}

/// Those of all streams.
#[derive(Default)]
pub(super) struct Renditions {
    all: Mutex<HashMap<Arc<str>, Weak<Rendition>>>,
}

impl Renditions {
    /// A stream's rendition, and its track as soon as that is known. None if it cannot be made.
    pub(super) async fn get(
        &self,
        stream: &Arc<str>,
        hub: &Hub,
        owner: &TaskTracker,
    ) -> Option<(Arc<Rendition>, Arc<[Track]>)> {
        let rendition = self.begin(stream, hub, owner);
        let tracks = tracks(&rendition.hub).await?;
        Some((rendition, tracks))
    }

    fn begin(&self, stream: &Arc<str>, hub: &Hub, owner: &TaskTracker) -> Arc<Rendition> {
        use futures_util::FutureExt as _;
        let mut all = self.all.lock();
        let lasts = |rendition: &Arc<Rendition>| rendition.hub.closed().now_or_never().is_none();
        if let Some(rendition) = all.get(stream).and_then(Weak::upgrade).filter(lasts) {
            return rendition;
        }
        all.retain(|_, rendition| rendition.strong_count() > 0);
        let (made, cancel) = (Hub::beside(HubOptions::default(), hub), CancellationToken::new());
        let (writes, ends, name) = (made.clone(), cancel.clone(), stream.clone());
        let mut source = TranscodeSource::new(hub.clone());
        owner.spawn(async move {
            let writer = writes.writer();
            writer.begin_session();
            tracing::info!(stream = %name, "pictures are encoded anew for WebRTC");
            if let Err(error) = source.run(&writer, ends).await {
                tracing::warn!(stream = %name, %error, "pictures are no longer encoded anew for WebRTC");
            } else {
                tracing::info!(stream = %name, "pictures are no longer encoded anew for WebRTC");
            }
            // Its viewers learn of it, and begin anew.
            writes.close();
        });
        let rendition = Arc::new(Rendition { hub: made, _stops: cancel.drop_guard() });
        all.insert(stream.clone(), Arc::downgrade(&rendition));
        rendition
    }
}
