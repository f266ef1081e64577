//! A client that publishes: its session description, its packets, its hold on the stream.

use super::message::Answer;
use super::session::{Opening, bad, refused};
use super::transport::Setup;
use super::udp::{Datagram, Registration, TAKEN, UdpPair, taken};
use crate::rtp::format::{Description, SdpError, parse};
use crate::rtp::{Packets, Receiver, ReceiverStats};
use crate::session::{SessionGuard, SessionKind, SessionStats};
use crate::source::{Publication, PublishSlot};
use bytes::Bytes;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How many packets of a track may wait for one that comes late by UDP.
const REORDER: usize = 64;
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A publisher's part of a session.
pub(super) struct Publishing {
    stream: Arc<str>,
    descriptions: Vec<Description>,
    setups: Vec<Option<Setup>>,
    slot: PublishSlot,
    recording: Option<Recording>,
}

struct Recording {
    publication: Publication,
    receiver: Receiver,
    /// A copy for whoever asks.
    stats: Arc<Mutex<ReceiverStats>>,
    guard: SessionGuard,
    registration: Option<Registration>,
    reported: Instant,
}

impl Publishing {
    pub(super) fn new(stream: &str, sdp: &[u8], slot: PublishSlot) -> Result<Self, Answer> {
        let descriptions = parse(sdp).map_err(|error| match &error {
            SdpError::UnknownCodec { .. } => Answer::new(415, format!("Unsupported Media Type: {error}")),
            _ => bad(&error.to_string()),
        })?;
        // Looked at now, so that it is refused before anything is set up.
        Receiver::new(&descriptions, 0).map_err(|e| bad(&e.to_string()))?;
        let setups = vec![None; descriptions.len()];
        Ok(Self { stream: stream.into(), descriptions, setups, slot, recording: None })
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    pub(super) fn setups(&self) -> &[Option<Setup>] {
        &self.setups
    }

    /// The track that an address of SETUP means: by its control, which the publisher chose.
    pub(super) fn track(&self, url: &str) -> Result<usize, Answer> {
        if self.recording.is_some() {
            return Err(Answer::new(455, "Method Not Valid in This State"));
        }
        let matches =
            |control: &str| !control.is_empty() && (url == control || url.ends_with(&format!("/{control}")));
        let by_control = self.descriptions.iter().position(|d| matches(d.control.trim_matches('/')));
        match by_control {
            Some(track) => Ok(track),
            // Without controls, the next one.
            None if self.descriptions.iter().all(|d| d.control.is_empty() || d.control == "*") => self
                .setups
                .iter()
                .position(Option::is_none)
                .ok_or_else(|| Answer::new(404, "Not Found: all tracks are set up")),
            None => Err(Answer::new(404, "Not Found: no such track was announced")),
        }
    }

    pub(super) fn set_up(&mut self, track: usize, setup: Setup) {
        self.setups[track] = Some(setup);
    }

    pub(super) async fn record(
        &mut self,
        opening: Opening<'_>,
        udp: Option<(&Arc<UdpPair>, &mpsc::Sender<Datagram>)>,
    ) -> Result<(), Answer> {
        if self.recording.is_some() {
            return Ok(());
        }
        if self.setups.iter().any(Option::is_none) {
            return Err(Answer::new(
                455,
                "Method Not Valid in This State: not all announced tracks are set up",
            ));
        }
        let addresses: Vec<SocketAddr> = self
            .setups
            .iter()
            .flatten()
            .filter_map(|s| match s {
                Setup::Udp { rtp, rtcp } => Some([*rtp, *rtcp]),
                Setup::Tcp { .. } => None,
            })
            .flatten()
            .collect();
        let registration =
            udp.filter(|_| !addresses.is_empty()).map(|(pair, inbox)| pair.register(&addresses, inbox));
        let reorder = if addresses.is_empty() { 0 } else { REORDER };
        let receiver = Receiver::new(&self.descriptions, reorder).map_err(|e| bad(&e.to_string()))?;
        let by = format!("{} {}", opening.protocol, opening.peer);
        let publication = self.slot.publish(&by).await.map_err(|e| refused(&e))?;
        let stats: Arc<Mutex<ReceiverStats>> = Arc::default();
        let shown = stats.clone();
        let source = move || {
            let stats = *shown.lock();
            SessionStats {
                bytes: stats.bytes,
                packets: stats.packets,
                packets_lost: stats.lost,
                ..SessionStats::default()
            }
        };
        let guard =
            opening.open(SessionKind::Publisher, &self.stream, !addresses.is_empty(), Arc::new(source));
        let reported = Instant::now();
        self.recording = Some(Recording { publication, receiver, stats, guard, registration, reported });
        Ok(())
    }

    /// Gives the stream free until the next RECORD.
    pub(super) fn pause(&mut self) {
        if let Some(recording) = self.recording.take() {
            recording.end(Some("paused".into()));
        }
    }

    /// Takes an interleaved packet; one that belongs to no track is dropped.
    pub(super) fn data(&mut self, channel: u8, payload: &Bytes) {
        let Some(recording) = &mut self.recording else { return };
        for (track, setup) in self.setups.iter().enumerate() {
            let Some(Setup::Tcp { rtp, rtcp }) = setup else { continue };
            if *rtp == channel {
                recording.rtp(track, payload);
            } else if *rtcp == channel {
                recording.receiver.rtcp(track, payload);
            }
        }
    }

    /// Takes a datagram.
    pub(super) fn datagram(&mut self, datagram: &Datagram) {
        let Some(recording) = &mut self.recording else { return };
        for (track, setup) in self.setups.iter().enumerate() {
            let Some(Setup::Udp { rtp, rtcp }) = setup else { continue };
            if *rtp == datagram.from {
                recording.rtp(track, &datagram.data);
            } else if *rtcp == datagram.from {
                recording.receiver.rtcp(track, &datagram.data);
            }
        }
    }

    /// Sends receiver reports by UDP, and gives those for TCP, if they are due.
    pub(super) fn reports(&mut self, udp: Option<&Arc<UdpPair>>) -> Vec<Bytes> {
        let Some(recording) = &mut self.recording else { return Vec::new() };
        if recording.reported.elapsed() < REPORT_INTERVAL {
            return Vec::new();
        }
        recording.reported = Instant::now();
        let mut reports = Vec::new();
        for (track, setup) in self.setups.iter().enumerate() {
            let Some(report) = recording.receiver.report(track) else { continue };
            let packets = Packets::rtcp(track, &report);
            match setup {
                Some(Setup::Tcp { rtcp, .. }) => {
                    let packets = packets.with_channel(*rtcp);
                    reports
                        .push(packets.slices(0).iter().flat_map(|s| s.to_vec()).collect::<Vec<u8>>().into());
                }
                Some(Setup::Udp { rtcp, .. }) => {
                    // One that is lost is followed by another.
                    let _ = udp.map(|pair| pair.send(&packets, 0, 1, *rtcp));
                }
                None => {}
            }
        }
        reports
    }

    /// Returns when the stream has been taken away, or somebody ends the session; says why.
    pub(super) async fn ended(&mut self) -> String {
        let Some(recording) = &self.recording else { return std::future::pending().await };
        let reason = tokio::select! {
            () = recording.publication.ended() => "another publisher has taken over, or the stream has ended",
            () = recording.guard.kicked() => "ended by request",
            () = taken(recording.registration.as_ref()) => TAKEN,
        };
        recording.guard.ends_because(reason);
        reason.into()
    }

    /// Whether media comes by UDP, and so may come after the request that ends it.
    pub(super) fn comes_by_udp(&self) -> bool {
        self.recording.as_ref().is_some_and(|r| r.registration.is_some())
    }

    /// Ends it; what is left of the media is given out.
    pub(super) fn end(self, reason: Option<String>) {
        if let Some(recording) = self.recording {
            recording.end(reason);
        }
    }
}

impl Recording {
    fn end(mut self, reason: Option<String>) {
        if !self.publication.is_over() {
            self.receiver.finish(self.publication.writer());
        }
        if let Some(reason) = reason {
            self.guard.ends_because(reason);
        }
    }

    fn rtp(&mut self, track: usize, data: &Bytes) {
        // From the moment another has taken over nothing of this one may come between.
        if self.publication.is_over() {
            return;
        }
        // A packet that is none is counted; the next may be one.
        let _ = self.receiver.rtp(track, data, self.publication.writer());
        *self.stats.lock() = self.receiver.stats();
    }
}
