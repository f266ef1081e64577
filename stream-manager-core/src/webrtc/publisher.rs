//! A client that publishes: its packets go into the stream.
//!
//! The worker hands packets to a task of the publisher's own, which puts them into order, makes access units of them and
//! pushes those into the hub. Browsers send a keyframe only when they are asked for one; the task has the worker ask.

use super::intake::Incoming;
use super::peer::Peer;
use super::route::Owner;
use super::worker::{Command, WorkerHandle};
use crate::frame::WallTime;
use crate::hub::HubWriter;
use crate::rtp::{Receiver, ReceiverStats, RtpPacket};
use crate::session::{SessionState, SessionStats};
use crate::source::PublishSlot;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use str0m::Event;
use str0m::media::{KeyframeRequestKind, MediaKind, Mid};
use str0m::rtp::Ssrc;
use tokio::sync::mpsc;

/// How many packets of a track may wait for one that is asked for again.
pub(super) const REORDER: usize = 256;
/// What may wait for the task: some seconds of a large picture.
const QUEUE: usize = 2048;
/// Keyframes are not asked for more often.
const ASK_AGAIN: Duration = Duration::from_millis(1000);
/// A clock that says less than this is none: 2000-01-01, in seconds since 1970.
const NO_CLOCK_BEFORE: i64 = 946_684_800;

/// A publisher's counters, which the list of sessions reads.
#[derive(Debug, Default)]
pub(super) struct Intaken {
    connected: AtomicBool,
    receiver: Mutex<ReceiverStats>,
    round_trip_micros: AtomicU64,
    /// Packets that the task did not take: it was busy.
    refused: AtomicU64,
}

impl Intaken {
    pub(super) fn stats(&self) -> SessionStats {
        let receiver = *self.receiver.lock();
        let micros = self.round_trip_micros.load(Ordering::Relaxed);
        SessionStats {
            state: SessionState::of(self.connected.load(Ordering::Relaxed)),
            bytes: receiver.bytes,
            packets: receiver.packets,
            packets_lost: receiver.lost + self.refused.load(Ordering::Relaxed),
            round_trip_ms: (micros > 0).then_some(micros as f64 / 1000.0),
            ..SessionStats::default()
        }
    }
}

/// What the task is told.
enum Came {
    /// The client has connected.
    Connected,
    /// A packet of a track, and where its sender's clocks met last.
    Packet(usize, RtpPacket, Option<(WallTime, u32)>),
}

/// A media section that comes.
struct In {
    kind: MediaKind,
    mid: Option<Mid>,
    ssrc: Option<Ssrc>,
}

/// A publisher, as its worker sees it.
pub(super) struct Publisher {
    tracks: Vec<In>,
    came: mpsc::Sender<Came>,
    counters: Arc<Intaken>,
}

/// Where its packets go.
pub(super) enum Into {
    /// Into a stream that takes publishers.
    Slot(PublishSlot),
    /// Into a hub that is ours already.
    Hub(HubWriter),
}

/// What a publisher is made of.
pub(super) struct NewPublisher {
    pub(super) owner: Owner,
    pub(super) worker: WorkerHandle,
    pub(super) receiver: Receiver,
    pub(super) into: Into,
    /// Who it is, for people.
    pub(super) by: String,
    pub(super) counters: Arc<Intaken>,
    /// How long a picture may go without a keyframe.
    pub(super) keyframe_interval: Duration,
}

impl Publisher {
    /// A publisher, and the task that has to run for it. The task ends when the publisher is dropped.
    pub(super) fn new(tracks: &[&Incoming], new: NewPublisher) -> (Self, impl Future<Output = ()> + use<>) {
        let (came, comes) = mpsc::channel(QUEUE);
        let kind = |incoming: &&Incoming| match incoming.description.media.as_str() {
            "video" => MediaKind::Video,
            _ => MediaKind::Audio,
        };
        let tracks = tracks.iter().map(|t| In { kind: kind(t), mid: None, ssrc: None }).collect();
        let publisher = Self { tracks, came, counters: new.counters.clone() };
        (publisher, run(new, comes))
    }

    /// Something has happened at the client.
    pub(super) fn event(&mut self, peer: &mut Peer, event: Event) {
        match event {
            Event::MediaAdded(media) => {
                let free = self.tracks.iter_mut().find(|t| t.kind == media.kind && t.mid.is_none());
                if let Some(track) = free {
                    track.mid = Some(media.mid);
                }
            }
            Event::Connected => {
                self.counters.connected.store(true, Ordering::Relaxed);
                self.tell(Came::Connected);
            }
            Event::RtpPacket(packet) => {
                let ssrc = packet.header.ssrc;
                let known = self.tracks.iter().position(|t| t.ssrc == Some(ssrc));
                let Some(track) = known.or_else(|| self.learn(peer, ssrc)) else { return };
                let clocks = packet
                    .last_sender_info
                    .map(|info| (WallTime::from(info.ntp_time), info.rtp_time.numer() as u32));
                // Some send zeros as long as they have nothing to say.
                let clocks = clocks.filter(|(wall, timestamp)| {
                    *timestamp != 0 && wall.as_unix_nanos() / 1_000_000_000 > NO_CLOCK_BEFORE
                });
                let header = &packet.header;
                let packet = RtpPacket {
                    sequence: header.sequence_number,
                    timestamp: header.timestamp,
                    ssrc: *ssrc,
                    marker: header.marker,
                    payload_type: *header.payload_type,
                    payload: Bytes::from_owner(packet.payload),
                };
                self.tell(Came::Packet(track, packet, clocks));
            }
            Event::MediaIngressStats(stats) => {
                if let Some(rtt) = stats.rtt {
                    self.counters.round_trip_micros.store(rtt.as_micros() as u64, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    /// Whose track it is that a sender's first packet has come of.
    fn learn(&mut self, peer: &mut Peer, ssrc: Ssrc) -> Option<usize> {
        let mid = peer.rtc.direct_api().stream_rx(&ssrc)?.mid();
        let known = self.tracks.iter().position(|t| t.mid == Some(mid));
        // What we have asked for ourselves is not told of as new.
        let kind = peer.rtc.media(mid)?.kind();
        let track = known.or_else(|| self.tracks.iter().position(|t| t.kind == kind && t.mid.is_none()))?;
        self.tracks[track].mid = Some(mid);
        self.tracks[track].ssrc = Some(ssrc);
        Some(track)
    }

    fn tell(&self, came: Came) {
        // A task that is behind loses it, as a network would.
        if self.came.try_send(came).is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks the client for a keyframe.
    pub(super) fn ask(&self, peer: &mut Peer) {
        let ssrc = self.tracks.iter().find(|t| t.kind == MediaKind::Video).and_then(|t| t.ssrc);
        if let Some(ssrc) = ssrc
            && let Some(stream) = peer.rtc.direct_api().stream_rx(&ssrc)
        {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }
}

/// Brings what comes into the stream until one of both ends.
async fn run(mut new: NewPublisher, mut comes: mpsc::Receiver<Came>) {
    let (owner, worker) = (new.owner, new.worker.clone());
    if let Some(reason) = publish(&mut new, &mut comes).await {
        // It fails only when everything ends.
        let _ = worker.send(Command::Close(owner.session, reason)).await;
    }
}

/// Gives why the client has to go; nothing if it has gone.
async fn publish(new: &mut NewPublisher, comes: &mut mpsc::Receiver<Came>) -> Option<String> {
    // Somebody who has not even connected takes the stream from nobody.
    comes.recv().await?;
    let publication = match &new.into {
        Into::Slot(slot) => match slot.publish(&new.by).await {
            Ok(publication) => Some(publication),
            Err(error) => return Some(error.to_string()),
        },
        Into::Hub(_) => None,
    };
    let writer = match (&publication, &new.into) {
        (Some(publication), _) => publication.writer().clone(),
        (None, Into::Hub(writer)) => writer.clone(),
        (None, Into::Slot(_)) => return None,
    };
    let taken_away = async {
        match &publication {
            Some(publication) => publication.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(taken_away);
    let mut asked = Instant::now();
    let mut lost = 0;
    loop {
        let came = tokio::select! {
            came = comes.recv() => came,
            () = &mut taken_away => {
                return Some("another publisher has taken over, or the stream has ended".into());
            }
        };
        let Some(came) = came else { break };
        let Came::Packet(track, packet, clocks) = came else { continue };
        if let Some((wall, timestamp)) = clocks {
            new.receiver.sender_clock(track, wall, timestamp);
        }
        new.receiver.packet(track, packet, &writer);
        let stats = new.receiver.stats();
        let broken = std::mem::replace(&mut lost, stats.lost) < stats.lost;
        *new.counters.receiver.lock() = stats;
        let since = new.receiver.keyframe_at();
        let old = since.is_none_or(|at| at.elapsed() >= new.keyframe_interval);
        if (broken || old) && asked.elapsed() >= ASK_AGAIN {
            asked = Instant::now();
            // A worker that is busy is asked again.
            let _ = new.worker.try_send(Command::AskKeyframe(new.owner.session));
        }
    }
    if publication.as_ref().is_none_or(|publication| !publication.is_over()) {
        new.receiver.finish(&writer);
    }
    None
}
