//! What is seen in the picture, for a viewer that has opened a data channel (RFC 8831) of this name for it: each message has the RTP
//! timestamp of the picture that it is of, so that players draw it over that one.

use super::feed::FeedShared;
use crate::hub::{Played, Seen};
use str0m::Rtc;
use str0m::channel::ChannelId;
use tokio::sync::broadcast::{self, error::TryRecvError};

/// The label of the channel.
pub(super) const LABEL: &str = "detections";
/// Messages that are sent in one go.
const AT_ONCE: usize = 16;

/// Tells a viewer.
#[derive(Default)]
pub(super) struct SeenTeller {
    open: Option<(ChannelId, broadcast::Receiver<Seen>)>,
}

impl SeenTeller {
    /// The client has opened the channel; the first is the one.
    pub(super) fn opened(&mut self, channel: ChannelId, feed: &FeedShared) {
        self.open.get_or_insert_with(|| (channel, feed.seen()));
    }

    /// It has closed one.
    pub(super) fn closed(&mut self, channel: ChannelId) {
        self.open.take_if(|(open, _)| *open == channel);
    }

    /// Tells what was seen since the last time in what is shown, whose timestamps are moved by `shift` for this viewer. What a slow
    /// client does not take it does not get.
    pub(super) fn tell(&mut self, rtc: &mut Rtc, shown: &FeedShared, shift: u32) {
        let Some((channel, seen)) = &mut self.open else { return };
        for _ in 0..AT_ONCE {
            match seen.try_recv() {
                Ok(one) => {
                    let Some((pts, timestamp)) = shown.time_of(&one) else { continue };
                    let message = one.message(pts, Played::Rtp(timestamp.wrapping_add(shift)));
                    let written =
                        rtc.channel(*channel).map(|mut channel| channel.write(false, message.as_bytes()));
                    if !matches!(written, Some(Ok(true))) {
                        tracing::debug!(stream = %shown.stream, "a viewer's data channel takes nothing");
                    }
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}
