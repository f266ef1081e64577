//! Recordings for one reader: sent at their own pace, or faster, from anywhere on.
//!
//! Nothing is shared with others here. A task reads the frames, waits until each is due and until its reader has taken what came before,
//! and gives them to the reader's way out. While it does not play, it stands where it was.
//!
//! RTP's time goes on over everything (RFC 2326 appendix B): pauses and steps to other places leave no gap in numbers or timestamps, and
//! `Scale` is a matter of timestamps, so that players show it faster without knowing.

use super::NotRecorded;
use super::feed::{FirstPacket, Reader, reports};
use super::message::Answer;
use super::range::{MAX_WHOLE_SCALE, Point, Wanted, clock_text};
use super::server::Shared;
use crate::frame::{Frame, MediaTime, Track, TrackId, WallTime};
use crate::playback::{PlanFrames, PlaybackError, PlaybackRequest};
use crate::rtp::{Packetizer, PacketizerOptions, Packets, rtcp};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What may wait for the reader before nothing more is read.
const ROOM_BYTES: u64 = 256 << 10;
/// How often it is looked whether there is room.
const LOOK: Duration = Duration::from_millis(5);
/// How often sender reports go out.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// What lies between what was sent before a pause or a step and what is sent behind it, on RTP's clock.
const STEP: Duration = Duration::from_millis(40);

/// A recording that one client plays.
pub(super) struct Replay {
    shared: Arc<Shared>,
    stream: Arc<str>,
    request: PlaybackRequest,
    tracks: Arc<[Track]>,
    main: TrackId,
    /// By track: who sends it, ticks per second.
    senders: Vec<(u32, u32)>,
    length: Option<Duration>,
    player: Option<Player>,
    playing: Option<(CancellationToken, JoinHandle<Player>)>,
}

/// What plays.
struct Player {
    frames: PlanFrames,
    packetizers: Vec<Packetizer>,
    /// Where the next frame lies on RTP's clock at the earliest.
    clock: MediaTime,
    /// How its times become RTP's, since it was last somewhere else.
    timeline: Option<Timeline>,
    /// Read, and not sent yet.
    held: Option<Frame>,
    /// All has been sent.
    ended: bool,
}

/// How times of a recording become RTP's.
#[derive(Clone, Copy)]
struct Timeline {
    /// This time of the recording, which was then,
    zero: MediaTime,
    wall: WallTime,
    /// is this time of RTP's clock.
    clock: MediaTime,
    scale: f64,
}

impl Timeline {
    fn of(&self, time: MediaTime) -> MediaTime {
        self.clock + time.saturating_since(self.zero).div_f64(self.scale)
    }
}

/// How it begins.
pub(super) struct Begun {
    /// The headers `Range` and `Scale`.
    pub(super) range: String,
    pub(super) scale: f64,
    pub(super) first: Vec<FirstPacket>,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Some((cancel, _)) = &self.playing {
            // The task sees it before it sends another frame.
            cancel.cancel();
        }
    }
}

fn answer(error: &NotRecorded) -> Answer {
    match error {
        NotRecorded::NotFound(problem) => Answer::new(404, format!("Not Found: {problem}")),
        NotRecorded::Unplayable(problem) => Answer::new(415, format!("Unsupported Media Type: {problem}")),
        NotRecorded::Failed(problem) => Answer::new(500, format!("Internal Server Error: {problem}")),
    }
}

fn broken(error: &PlaybackError) -> Answer {
    answer(&NotRecorded::Failed(error.to_string()))
}

impl Replay {
    /// Looks up what is to be played.
    pub(super) async fn open(
        shared: &Arc<Shared>,
        stream: &str,
        request: PlaybackRequest,
    ) -> Result<Self, Answer> {
        let frames = shared.streams.recorded(stream, request).await.map_err(|e| answer(&e))?;
        let (tracks, main) = (frames.tracks().clone(), frames.main());
        let options =
            PacketizerOptions { packet_bytes: shared.options.packet_bytes, ..PacketizerOptions::default() };
        let packetizers: Vec<Packetizer> =
            tracks.iter().enumerate().map(|(n, t)| Packetizer::new(n, &t.parameters, options)).collect();
        Ok(Self {
            shared: shared.clone(),
            stream: stream.into(),
            request,
            main,
            senders: packetizers.iter().map(|p| (p.ssrc(), p.clock_rate())).collect(),
            length: request.end.map(|_| frames.plan().duration()),
            player: Some(Player {
                frames,
                packetizers,
                clock: MediaTime::ZERO,
                timeline: None,
                held: None,
                ended: false,
            }),
            playing: None,
            tracks,
        })
    }

    pub(super) fn stream(&self) -> &Arc<str> {
        &self.stream
    }

    pub(super) fn tracks(&self) -> &Arc<[Track]> {
        &self.tracks
    }

    /// Who sends a track, and its ticks per second.
    pub(super) fn sender(&self, track: usize) -> Option<(u32, u32)> {
        self.senders.get(track).copied()
    }

    /// The track with pictures that a reader begins with.
    pub(super) fn main_video(&self) -> Option<usize> {
        let video = self.tracks.iter().find(|t| t.id == self.main && t.parameters.video().is_some())?;
        usize::try_from(video.id.0).ok()
    }

    /// What the session description says of its length (RFC 2326 section C.1.5).
    pub(super) fn range(&self) -> String {
        format!(
            "npt=0-{}",
            self.length.map(|length| format!("{:.3}", length.as_secs_f64())).unwrap_or_default()
        )
    }

    /// Whether anything is still being sent.
    pub(super) fn runs(&self) -> bool {
        self.playing.as_ref().is_some_and(|(_, task)| !task.is_finished())
    }

    /// Stands still, where it is.
    pub(super) async fn pause(&mut self) {
        if let Some((cancel, task)) = self.playing.take() {
            cancel.cancel();
            self.player = task.await.ok();
        }
    }

    /// Goes to where it is to begin, and says how that is; [`start`](Self::start) lets it run.
    pub(super) async fn prepare(&mut self, wanted: &Wanted) -> Result<Begun, Answer> {
        self.pause().await;
        let mut player = match self.player.take() {
            Some(player) => player,
            // Its task has failed.
            None => return Err(Answer::new(500, "Internal Server Error: the playback has broken off")),
        };
        let prepared = self.step(&mut player, wanted).await;
        let begun = prepared.map(|(range, at)| Begun {
            range,
            scale: wanted.scale,
            first: player
                .packetizers
                .iter()
                .map(|p| FirstPacket { sequence: p.sequence(), timestamp: Some(p.timestamp(at)) })
                .collect(),
        });
        self.player = Some(player);
        begun
    }

    /// Goes to where it is wanted. Gives the answer's `Range`, and where that lies on RTP's clock.
    async fn step(&self, player: &mut Player, wanted: &Wanted) -> Result<(String, MediaTime), Answer> {
        let from = wanted.from.or(player.ended.then_some(Point::Normal(Duration::ZERO)));
        if let Some(from) = from {
            let start = match from {
                Point::Normal(_) => self.request.start,
                Point::Clock(time) => time,
            };
            let request = PlaybackRequest { start, ..self.request };
            // From the files as they are now: there may be more of them.
            let found = self.shared.streams.recorded(&self.stream, request).await;
            let mut frames = found.map_err(|e| answer(&e))?;
            let same = |(a, b): (&Track, &Track)| a.parameters.codec() == b.parameters.codec();
            let alike = frames.tracks().len() == self.tracks.len()
                && frames.tracks().iter().zip(self.tracks.iter()).all(same);
            if !alike {
                return Err(Answer::new(457, "Invalid Range: it is encoded differently there"));
            }
            if let Point::Normal(to) = from
                && !to.is_zero()
            {
                if self.length.is_some_and(|length| to > length) {
                    return Err(Answer::new(457, "Invalid Range: it lies behind the end"));
                }
                frames.seek(to).await.map_err(|e| broken(&e))?;
            }
            (player.frames, player.held, player.ended) = (frames, None, false);
            player.timeline = None;
        }
        if player.held.is_none() {
            player.held = player.frames.next().await.map_err(|e| broken(&e))?;
        }
        let at = player.held.as_ref().map(|frame| (frame.pts.min(frame.dts), frame.wall_clock));
        let (at, wall) = at.unwrap_or((MediaTime::ZERO, self.request.start));
        // What goes on where it stood goes on in the same time.
        let timeline = match player.timeline {
            Some(timeline) if timeline.scale.to_bits() == wanted.scale.to_bits() => timeline,
            _ => Timeline { zero: at, wall, clock: player.clock, scale: wanted.scale },
        };
        player.timeline = Some(timeline);
        let range = match from {
            Some(Point::Clock(_)) => format!("clock={}-", clock_text(wall)),
            _ => {
                let end = self.length.map(|l| format!("{:.3}", l.as_secs_f64())).unwrap_or_default();
                format!("npt={:.3}-{end}", at.as_secs_f64().max(0.0))
            }
        };
        Ok((range, timeline.of(at)))
    }

    /// Plays, after [`prepare`](Self::prepare).
    pub(super) fn start(&mut self, wanted: &Wanted, reader: &Arc<Reader>) {
        let Some(player) = self.player.take() else { return };
        let cancel = CancellationToken::new();
        let run = Run { wanted: *wanted, main: self.main, reader: reader.clone(), cancel: cancel.clone() };
        self.playing = Some((cancel, tokio::spawn(run.play(player))));
    }
}

/// One run of a player.
struct Run {
    wanted: Wanted,
    main: TrackId,
    reader: Arc<Reader>,
    cancel: CancellationToken,
}

impl Run {
    async fn play(self, mut player: Player) -> Player {
        if let Err(error) = self.send_all(&mut player).await {
            tracing::warn!(%error, "a playback by RTSP breaks off");
            player.ended = true;
        }
        if player.ended {
            for (track, packetizer) in player.packetizers.iter().enumerate() {
                self.give(&Arc::new(Packets::rtcp(track, &rtcp::bye(packetizer.ssrc()))));
            }
        }
        player
    }

    fn give(&self, packets: &Arc<Packets>) {
        self.reader.send(packets, &packets.slices(0));
    }

    async fn send_all(&self, player: &mut Player) -> Result<(), PlaybackError> {
        let Some(timeline) = player.timeline else { return Ok(()) };
        let begin = Instant::now();
        // The time of the first frame that is sent, which is due at once.
        let mut origin: Option<MediaTime> = None;
        let mut reported: Option<Instant> = None;
        loop {
            let frame = match player.held.take() {
                Some(frame) => Some(frame),
                None => match self.cancel.run_until_cancelled(player.frames.next()).await {
                    None => return Ok(()),
                    Some(frame) => frame?,
                },
            };
            let Some(frame) = frame.filter(|frame| !self.is_behind(frame)) else {
                player.ended = true;
                return Ok(());
            };
            if !self.wants(&frame, timeline.zero) {
                continue;
            }
            let from = *origin.get_or_insert(frame.dts);
            let due = begin + frame.dts.saturating_since(from).div_f64(timeline.scale);
            if !self.wait(due).await {
                player.held = Some(frame);
                return Ok(());
            }
            let pts = timeline.of(frame.pts);
            player.clock = player.clock.max(pts + STEP);
            let track = usize::try_from(frame.track.0).unwrap_or(usize::MAX);
            let sync = frame.keyframe && frame.track == self.main;
            if let Some(packetizer) = player.packetizers.get_mut(track) {
                let frame = Frame { pts, ..frame };
                match packetizer.packetize(&frame, sync) {
                    Ok(packets) if packets.is_empty() => {}
                    Ok(packets) => self.give(&Arc::new(packets)),
                    Err(error) => tracing::debug!(%error, "a recorded frame is left out"),
                }
            }
            if reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
                reported = Some(Instant::now());
                // The time of the recording, as far as it is one; where something is missing it goes on with what is sent.
                let wall = timeline.wall + pts.saturating_since(timeline.clock);
                reports(&player.packetizers, wall, pts).for_each(|packets| self.give(&Arc::new(packets)));
            }
        }
    }

    /// Whether a frame lies behind the end of what is wanted.
    fn is_behind(&self, frame: &Frame) -> bool {
        match self.wanted.until {
            None => false,
            Some(Point::Normal(end)) => frame.dts >= MediaTime::ZERO + end,
            Some(Point::Clock(end)) => frame.wall_clock >= end,
        }
    }

    fn wants(&self, frame: &Frame, zero: MediaTime) -> bool {
        let is_main = frame.track == self.main;
        if self.wanted.scale > MAX_WHOLE_SCALE && frame.is_video() {
            return is_main && frame.keyframe;
        }
        // Sound at another speed is none.
        let heard = frame.is_video() || (self.wanted.scale - 1.0).abs() < 0.001;
        heard && (is_main || frame.pts >= zero)
    }

    /// Waits until a frame is due, and its reader has room for it. False if it is not to be sent any more.
    async fn wait(&self, due: Instant) -> bool {
        let waiting = async {
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
            // A reader that takes nothing is disconnected by its connection.
            while self.reader.queued_bytes() > ROOM_BYTES {
                tokio::time::sleep(LOOK).await;
            }
        };
        self.cancel.run_until_cancelled(waiting).await.is_some()
    }
}
