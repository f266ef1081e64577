//! What is seen in a stream's pictures: told by whoever analyses them, for whoever shows them.
//!
//! It goes beside the frames, not between them: it is known later than the picture that it is of, and nobody waits for it. Streams that
//! show the same (a camera's other qualities, what is encoded anew) share one channel, so that whichever of them is analysed, what is
//! seen is known with all of them; [`Hub::time_of`] says when that is on a stream's own timeline.

use super::{Hub, HubOptions, Shared};
use crate::detection::Detections;
use crate::frame::{MediaTime, WallTime};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::broadcast;

/// Pictures of which one who is slow may not have heard yet.
const LENGTH: usize = 64;

/// Numbers hubs.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What was seen in one picture.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it was.
    pub detections: Arc<Detections>,
    /// When the picture's frame arrived.
    pub arrived: Instant,
    /// When it was told.
    pub told: Instant,
    /// On whose timeline its presentation time is.
    hub: u64,
}

/// The channel of a hub, or of several that show the same.
#[derive(Debug)]
pub(super) struct SeenChannel {
    id: u64,
    sender: broadcast::Sender<Seen>,
}

impl SeenChannel {
    pub(super) fn new() -> Self {
        Self::with(broadcast::Sender::new(LENGTH))
    }

    fn with(sender: broadcast::Sender<Seen>) -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), sender }
    }
}

/// As it is sent to players.
#[derive(Serialize)]
struct Message<'a> {
    /// The RTP timestamp of the picture, for players that get it by RTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtp_timestamp: Option<u32>,
    /// The picture's time in playlists, for players that get it by those.
    #[serde(skip_serializing_if = "Option::is_none")]
    program_date_time: Option<WallTime>,
    #[serde(flatten)]
    detections: &'a Detections,
}

impl Seen {
    /// As JSON for a player, with the picture's time on the timeline of what it plays, and what it goes by if it plays RTP or playlists.
    pub fn message(&self, pts: MediaTime, played: Played) -> String {
        let detections = (*self.detections).clone().at(self.detections.time, pts);
        let (rtp_timestamp, program_date_time) = match played {
            Played::Stream => (None, None),
            Played::Rtp(timestamp) => (Some(timestamp), None),
            Played::Playlist(time) => (None, Some(time)),
        };
        let message = Message { rtp_timestamp, program_date_time, detections: &detections };
        // Numbers and names alone: it cannot fail.
        serde_json::to_string(&message).unwrap_or_default()
    }
}

/// How a player knows which picture it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// By its time on the stream's timeline.
    Stream,
    /// By its RTP timestamp.
    Rtp(u32),
    /// By its time in playlists (`EXT-X-PROGRAM-DATE-TIME`), as well as by that on the stream's timeline.
    Playlist(WallTime),
}

impl Hub {
    /// A hub for a stream that shows the same as another one: what is seen in either is told with both.
    ///
    /// ```
    /// # use stream_manager_core::hub::{Hub, HubOptions};
    /// let camera = Hub::default();
    /// let small = Hub::beside(HubOptions::default(), &camera);
    /// ```
    pub fn beside(options: HubOptions, other: &Self) -> Self {
        let channel = SeenChannel::with(other.shared.seen.sender.clone());
        Self { shared: Arc::new(Shared::new(options, channel)) }
    }

    /// Tells what was seen in a picture of this hub's stream, whose frame arrived then. Gives what is told.
    pub fn tell_seen(&self, detections: Arc<Detections>, arrived: Instant) -> Seen {
        let seen = Seen { detections, arrived, told: Instant::now(), hub: self.shared.seen.id };
        // Nobody may be listening.
        let _ = self.shared.seen.sender.send(seen.clone());
        seen
    }

    /// What is seen from now on, in order. A listener that is too slow misses some, and is told how many.
    pub fn seen(&self) -> broadcast::Receiver<Seen> {
        self.shared.seen.sender.subscribe()
    }

    /// When it is, on this hub's timeline, that something was seen: exactly if in this stream itself; for others that show the same, by
    /// when frames arrived. None before the first picture.
    pub fn time_of(&self, seen: &Seen) -> Option<MediaTime> {
        if seen.hub == self.shared.seen.id {
            return Some(seen.detections.pts);
        }
        let (pts, at) = self.shared.inner.lock().last_picture?;
        Some(match at.checked_duration_since(seen.arrived) {
            Some(before) => pts - before,
            None => pts + seen.arrived.duration_since(at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{CodecParameters, VideoCodec, VideoParameters};
    use crate::hub::RawFrame;
    use std::time::Duration;

    fn video() -> CodecParameters {
        CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 640, 360))
    }

    #[test]
    fn what_is_seen_in_one_is_told_with_both_at_their_own_times() {
        let camera = Hub::default();
        let small = Hub::beside(HubOptions::default(), &camera);
        let begun = Instant::now();
        for (hub, start) in [(&camera, 100), (&small, 7)] {
            let writer = hub.writer();
            writer.begin_session();
            writer.set_tracks([video()]);
            for number in 0..50 {
                let at = begun + Duration::from_millis(number * 40);
                let pts = MediaTime::from_nanos((start * 1000 + number as i64 * 40) * 1_000_000);
                let frame = RawFrame::new(0, pts, vec![0u8]).keyframe(number == 0);
                writer.push_at(frame, at, crate::frame::WallTime::now()).unwrap();
            }
        }
        let (mut of_camera, mut of_small) = (camera.seen(), small.seen());
        let arrived = begun + Duration::from_secs(1);
        let pts = MediaTime::from_nanos(123);
        let seen = Detections::new("m".into(), 640, 360, Vec::new()).at(crate::frame::WallTime::now(), pts);
        small.tell_seen(Arc::new(seen), arrived);
        let (by_camera, by_small) = (of_camera.try_recv().unwrap(), of_small.try_recv().unwrap());
        assert_eq!(small.time_of(&by_small), Some(pts));
        // The camera's last frame came 0.96 s later.
        let last = camera.shared.inner.lock().last_picture.unwrap().0;
        assert_eq!(camera.time_of(&by_camera), Some(last - Duration::from_millis(960)));
        let message: serde_json::Value =
            serde_json::from_str(&by_small.message(MediaTime::from_nanos(2_500_000_000), Played::Rtp(7)))
                .unwrap();
        assert_eq!((&message["pts_secs"], &message["rtp_timestamp"]), (&2.5.into(), &7.into()));
        assert_eq!(Hub::default().time_of(&by_small), None);
    }
}
