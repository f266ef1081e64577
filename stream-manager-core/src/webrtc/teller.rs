//! A stream's events for a viewer that has opened a data channel (RFC 8831) for them.

use crate::event::{Event, EventBus};
use std::sync::Arc;
use str0m::Rtc;
use str0m::channel::ChannelId;
use tokio::sync::broadcast::{self, error::TryRecvError};

/// Events that are told in one go.
const AT_ONCE: usize = 64;

/// Tells a viewer.
pub(super) struct Teller {
    events: EventBus,
    stream: Arc<str>,
    open: Option<(ChannelId, broadcast::Receiver<Arc<Event>>)>,
}

impl Teller {
    /// Of what happens to a stream.
    pub(super) fn new(events: EventBus, stream: Arc<str>) -> Self {
        Self { events, stream, open: None }
    }

    /// The client has opened a channel; the first is the one.
    pub(super) fn opened(&mut self, channel: ChannelId) {
        self.open.get_or_insert_with(|| (channel, self.events.subscribe()));
    }

    /// It has closed one.
    pub(super) fn closed(&mut self, channel: ChannelId) {
        self.open.take_if(|(open, _)| *open == channel);
    }

    /// Tells what has happened since the last time. What a slow client does not take it does not get.
    pub(super) fn tell(&mut self, rtc: &mut Rtc) {
        let Some((channel, events)) = &mut self.open else { return };
        for _ in 0..AT_ONCE {
            match events.try_recv() {
                Ok(event) if event.stream.as_deref() == Some(&*self.stream) => {
                    let written = rtc
                        .channel(*channel)
                        .map(|mut channel| channel.write(false, event.json().as_bytes()));
                    if !matches!(written, Some(Ok(true))) {
                        tracing::debug!(stream = %self.stream, "a viewer's data channel takes no event");
                    }
                }
                // It sees by the numbers that some are missing.
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}
