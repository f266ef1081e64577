//! A client that reads: its tracks, its place at the stream's feed or its own recording, its reports.

use super::FoundStream;
use super::address::Controls;
use super::feed::{Feed, FirstPacket, Reader, Way};
use super::message::Answer;
use super::outlet::{Outlet, QueueRule, Sent};
use super::range::Wanted;
use super::replay::{Begun, Replay};
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
    media: Media,
    setups: Vec<Option<Setup>>,
    /// What the reader's reports say.
    heard: Arc<Mutex<SessionStats>>,
    playing: Option<Playing>,
}

/// What is read.
enum Media {
    /// What comes now, with all others who read it.
    Live { id: Arc<str>, feed: Arc<Feed>, ended: watch::Receiver<Option<&'static str>> },
    /// What was recorded.
    Recorded(Box<Replay>),
}

impl Media {
    fn main_video(&self) -> Option<usize> {
        match self {
            Self::Live { feed, .. } => feed.main_video(),
            Self::Recorded(replay) => replay.main_video(),
        }
    }

    /// Who sends a track, and its ticks per second.
    fn sender(&self, track: usize) -> Option<(u32, u32)> {
        match self {
            Self::Live { feed, .. } => feed.ssrc(track).zip(feed.clock_rate(track)),
            Self::Recorded(replay) => replay.sender(track),
        }
    }
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
    /// Where its tracks were set up.
    pub(super) controls: &'a Controls,
}

impl Reading {
    pub(super) fn new(stream: FoundStream, feed: Arc<Feed>) -> Self {
        let (ended, setups) = (feed.ended(), vec![None; feed.tracks().len()]);
        let media = Media::Live { id: stream.id, feed, ended };
        Self { media, setups, heard: Arc::default(), playing: None }
    }

    /// Of what was recorded.
    pub(super) fn recorded(replay: Replay) -> Self {
        let setups = vec![None; replay.tracks().len()];
        Self { media: Media::Recorded(Box::new(replay)), setups, heard: Arc::default(), playing: None }
    }

    pub(super) fn is_recorded(&self) -> bool {
        matches!(self.media, Media::Recorded(_))
    }

    pub(super) fn stream(&self) -> &Arc<str> {
        match &self.media {
            Media::Live { id, .. } => id,
            Media::Recorded(replay) => replay.stream(),
        }
    }

    pub(super) fn setups(&self) -> &[Option<Setup>] {
        &self.setups
    }

    pub(super) fn is_playing(&self) -> bool {
        self.playing.is_some()
    }

    /// Whether it shows by what it takes that the client is there.
    pub(super) fn plays_by_tcp(&self) -> bool {
        let goes_on = match &self.media {
            Media::Live { .. } => true,
            Media::Recorded(replay) => replay.runs(),
        };
        goes_on && self.playing.as_ref().is_some_and(|p| p.udp.is_none())
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
        self.media.sender(track).map(|(ssrc, _)| ssrc)
    }

    /// Begins to play what comes now. `answer` gets the RTP-Info before anything of the media is sent.
    pub(super) fn play(&mut self, play: Play<'_>, answer: impl FnOnce(String)) {
        let controls = play.controls;
        let playing = self.open(play);
        if let Media::Live { feed, .. } = &self.media {
            feed.join(&playing.reader, |first| answer(rtp_info(controls, &self.setups, &first)));
        }
        self.playing = Some(playing);
    }

    /// Begins to play what was recorded. `answer` gets how it begins, and the RTP-Info, before anything of the media is sent.
    ///
    /// # Errors
    /// If what is wanted cannot be played; what was played before stands still then.
    pub(super) async fn play_recorded(
        &mut self,
        wanted: &Wanted,
        play: Play<'_>,
        answer: impl FnOnce(&Begun, String),
    ) -> Result<(), Answer> {
        let Media::Recorded(replay) = &mut self.media else { return Ok(()) };
        let begun = replay.prepare(wanted).await?;
        let controls = play.controls;
        // Where it goes stays as it is while it plays: one session, one way.
        let playing = match self.playing.take() {
            Some(playing) => playing,
            None => self.open(play),
        };
        answer(&begun, rtp_info(controls, &self.setups, &begun.first));
        if let Media::Recorded(replay) = &mut self.media {
            replay.start(wanted, &playing.reader);
        }
        self.playing = Some(playing);
        Ok(())
    }

    /// Stands still. What has been sent goes on its way; what follows is kept for when it goes on.
    pub(super) async fn pause(&mut self) {
        if let Media::Recorded(replay) = &mut self.media {
            replay.pause().await;
            if let Some(playing) = self.playing.take() {
                playing.guard.ends_because("paused");
            }
        } else {
            self.stop(Some("paused".into()));
        }
    }

    /// The way out, and a place among the sessions.
    fn open(&self, play: Play<'_>) -> Playing {
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
        let guard = play.opening.open(SessionKind::Reader, self.stream(), udp.is_some(), stats);
        let reader = Arc::new(Reader::new(way, self.media.main_video()));
        Playing { reader, guard, udp, registration }
    }

    /// Plays no longer, if it does.
    pub(super) fn stop(&mut self, reason: Option<String>) {
        let Some(playing) = self.playing.take() else { return };
        if let Media::Live { feed, .. } = &self.media {
            feed.leave(&playing.reader);
        }
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
        let Some((ssrc, rate)) = self.media.sender(track) else { return };
        for report in reports {
            let Report::Reception(reception) = report else { continue };
            if reception.ssrc != ssrc {
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
        let Self { media, playing, .. } = self;
        let over = async {
            let reason = match media {
                Media::Live { ended, .. } => ended.wait_for(Option::is_some).await.ok().and_then(|r| *r),
                // At its end one may go back.
                Media::Recorded(_) => std::future::pending().await,
            };
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
fn rtp_info(controls: &Controls, setups: &[Option<Setup>], first: &[FirstPacket]) -> String {
    let entries: Vec<String> = setups
        .iter()
        .zip(first)
        .enumerate()
        .filter(|(_, (setup, _))| setup.is_some())
        .map(|(track, (_, first))| {
            let time = first.timestamp.map(|t| format!(";rtptime={t}")).unwrap_or_default();
            format!("url={};seq={}{time}", controls.track(track), first.sequence)
        })
        .collect();
    entries.join(",")
}
