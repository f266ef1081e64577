//! A client that reads: its tracks, its place at the stream's feed, its reports.

use super::FoundStream;
use super::feed::{Feed, FirstPacket, Reader, Way};
use super::message::Answer;
use super::outlet::{Outlet, QueueRule, Sent};
use super::session::Opening;
use super::transport::Setup;
use super::udp::{Datagram, Registration, TAKEN, UdpOutlet, UdpPair, taken};
use crate::frame::WallTime;
use crate::rtp::rtcp::{self, Report};
use crate::session::{SessionGuard, SessionKind, SessionStats, StatsSource};
use bytes::Bytes;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// A reader's part of a session.
pub(super) struct Reading {
    stream: FoundStream,
    feed: Arc<Feed>,
    ended: watch::Receiver<Option<&'static str>>,
    setups: Vec<Option<Setup>>,
    /// What the reader's reports say.
    heard: Arc<Mutex<SessionStats>>,
    playing: Option<Playing>,
}

struct Playing {
    reader: Arc<Reader>,
    guard: SessionGuard,
    udp: Option<Arc<UdpOutlet>>,
    registration: Option<Registration>,
}

/// What PLAY needs beside the session itself.
pub(super) struct Play<'a> {
    pub(super) opening: Opening<'a>,
    pub(super) outlet: &'a Arc<Outlet>,
    pub(super) rule: QueueRule,
    /// The server's sockets and where this session's datagrams go, if it can do UDP.
    pub(super) udp: Option<(&'a Arc<UdpPair>, &'a mpsc::Sender<Datagram>)>,
    /// The address that tracks' controls are added to.
    pub(super) base: &'a str,
}

impl Reading {
    pub(super) fn new(stream: FoundStream, feed: Arc<Feed>) -> Self {
        let (ended, setups) = (feed.ended(), vec![None; feed.tracks().len()]);
        Self { stream, feed, ended, setups, heard: Arc::default(), playing: None }
    }

    pub(super) fn stream(&self) -> &Arc<str> {
        &self.stream.id
    }

    pub(super) fn setups(&self) -> &[Option<Setup>] {
        &self.setups
    }

    pub(super) fn is_playing(&self) -> bool {
        self.playing.is_some()
    }

    /// Whether it shows by what it takes that the client is there.
    pub(super) fn plays_by_tcp(&self) -> bool {
        self.playing.as_ref().is_some_and(|p| p.udp.is_none())
    }

    /// The track that a control names; without one the only track.
    pub(super) fn track(&self, control: Option<&str>) -> Result<usize, Answer> {
        let count = self.setups.len();
        match control.map(|c| c.trim_start_matches("trackID=").parse::<usize>()) {
            Some(Ok(track)) if track < count => Ok(track),
            None if count == 1 => Ok(0),
            _ => Err(Answer::new(404, "Not Found: the stream has no such track")),
        }
    }

    /// Remembers how a track travels; gives who sends it.
    pub(super) fn set_up(&mut self, track: usize, setup: Setup) -> Option<u32> {
        self.setups[track] = Some(setup);
        self.feed.ssrc(track)
    }

    /// Begins to play. `answer` gets the RTP-Info before anything of the media is sent.
    pub(super) fn play(&mut self, play: Play<'_>, answer: impl FnOnce(String)) {
        let setups = &self.setups;
        let mut registration = None;
        let addresses: Vec<Option<(SocketAddr, SocketAddr)>> = setups
            .iter()
            .map(|s| match s {
                Some(Setup::Udp { rtp, rtcp }) => Some((*rtp, *rtcp)),
                _ => None,
            })
            .collect();
        let (way, udp) = match play.udp.filter(|_| addresses.iter().any(Option::is_some)) {
            Some((pair, inbox)) => {
                let all: Vec<SocketAddr> = addresses.iter().flatten().flat_map(|(a, b)| [*a, *b]).collect();
                registration = Some(pair.register(&all, inbox));
                let tracks = addresses.iter().map(Option::is_some).collect();
                let outlet = Arc::new(UdpOutlet::new(pair.clone(), addresses, play.rule));
                (Way::Udp(outlet.clone(), tracks), Some(outlet))
            }
            None => {
                let channels = setups
                    .iter()
                    .map(|s| match s {
                        Some(Setup::Tcp { rtp, rtcp }) => Some((*rtp, *rtcp)),
                        _ => None,
                    })
                    .collect();
                (Way::Tcp(play.outlet.clone(), channels), None)
            }
        };
        let stats: StatsSource = {
            let (outlet, udp, heard) = (play.outlet.clone(), udp.clone(), self.heard.clone());
            Arc::new(move || {
                let sent = udp.as_ref().map_or_else(|| outlet.stats(), |udp| udp.stats());
                let heard = *heard.lock();
                SessionStats {
                    packets_lost: heard.packets_lost,
                    jitter_ms: heard.jitter_ms,
                    round_trip_ms: heard.round_trip_ms,
                    ..sent
                }
            })
        };
        let guard = play.opening.open(SessionKind::Reader, &self.stream.id, udp.is_some(), stats);
        let reader = Arc::new(Reader::new(way, &self.feed));
        self.feed.join(&reader, |first| answer(rtp_info(play.base, setups, &first)));
        self.playing = Some(Playing { reader, guard, udp, registration });
    }

    /// Plays no longer, if it does.
    pub(super) fn stop(&mut self, reason: Option<String>) {
        let Some(playing) = self.playing.take() else { return };
        self.feed.leave(&playing.reader);
        playing.reader.clear();
        if let Some(reason) = reason {
            playing.guard.ends_because(reason);
        }
    }

    /// Takes an interleaved packet: only reports are expected.
    pub(super) fn data(&self, channel: u8, data: &Bytes) {
        let of_track = |s: &Option<Setup>| matches!(s, Some(Setup::Tcp { rtcp, .. }) if *rtcp == channel);
        if let Some(track) = self.setups.iter().position(of_track) {
            self.report(track, data);
        }
    }

    /// Takes a datagram: only reports are expected.
    pub(super) fn datagram(&self, datagram: &Datagram) {
        let of_track =
            |s: &Option<Setup>| matches!(s, Some(Setup::Udp { rtcp, .. }) if *rtcp == datagram.from);
        if let Some(track) = self.setups.iter().position(of_track) {
            self.report(track, &datagram.data);
        }
    }

    fn report(&self, track: usize, data: &[u8]) {
        let Ok(reports) = rtcp::parse(data) else { return };
        let (ssrc, rate) = (self.feed.ssrc(track), self.feed.clock_rate(track).unwrap_or(90_000));
        for report in reports {
            let Report::Reception(reception) = report else { continue };
            if Some(reception.ssrc) != ssrc {
                continue;
            }
            let mut heard = self.heard.lock();
            heard.packets_lost = u64::from(reception.lost & 0x7f_ffff);
            heard.jitter_ms = Some(f64::from(reception.jitter) * 1000.0 / f64::from(rate.max(1)));
            if let Some(trip) = reception.round_trip(WallTime::now()) {
                heard.round_trip_ms = Some(trip.as_secs_f64() * 1000.0);
            }
        }
    }

    /// Sends what is due by UDP; returns when the session has to end, and says why. Cancel safe.
    pub(super) async fn ended(&mut self) -> String {
        let Self { ended, playing, .. } = self;
        let over = async {
            let reason = ended.wait_for(Option::is_some).await.ok().and_then(|r| *r);
            reason.unwrap_or("the stream has ended")
        };
        let Some(playing) = playing else { return over.await.into() };
        let send = async {
            let Some(udp) = &playing.udp else { return std::future::pending().await };
            loop {
                match udp.drain() {
                    Sent::Until(due) => tokio::time::sleep_until(due.into()).await,
                    _ => udp.notified().await,
                }
            }
        };
        let reason = tokio::select! {
            reason = over => reason,
            () = playing.guard.kicked() => "ended by request",
            () = taken(playing.registration.as_ref()) => TAKEN,
            () = send => return String::new(),
        };
        playing.guard.ends_because(reason);
        reason.into()
    }

    /// Frames that were dropped since this was last asked.
    pub(super) fn dropped(&self, outlet: &Outlet) -> u64 {
        self.playing.as_ref().map_or(0, |p| p.udp.as_ref().map_or_else(|| outlet.dropped(), |u| u.dropped()))
    }
}

/// What each track begins with (RFC 2326 section 12.33).
fn rtp_info(base: &str, setups: &[Option<Setup>], first: &[FirstPacket]) -> String {
    let entries: Vec<String> = setups
        .iter()
        .zip(first)
        .enumerate()
        .filter(|(_, (setup, _))| setup.is_some())
        .map(|(track, (_, first))| {
            let time = first.timestamp.map(|t| format!(";rtptime={t}")).unwrap_or_default();
            format!("url={base}trackID={track};seq={}{time}", first.sequence)
        })
        .collect();
    entries.join(",")
}
