//! A look at a source: what it sends and how.

use crate::frame::TrackInfo;
use crate::frame::{MediaKind, MediaTime, WallTime};
use crate::hub::{Hub, HubItem, ReaderOptions};
use crate::source::{Source, SourceError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a source sends.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct ProbeReport {
    /// Its address, without secrets.
    pub source: String,
    /// For how long it was looked at, in seconds of media.
    pub observed_secs: f64,
    /// Its tracks.
    pub tracks: Vec<ProbeTrack>,
    /// The sender's clock minus the local one, in seconds, if the sender states its time (RTCP).
    pub clock_offset_secs: Option<f64>,
    /// Packets lost meanwhile.
    pub packets_lost: u64,
}

/// One track, as stated and as measured.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct ProbeTrack {
    /// What it states of itself.
    #[serde(flatten)]
    pub info: TrackInfo,
    /// Frames seen.
    pub frames: u64,
    /// Frames per second, measured.
    pub measured_frame_rate: Option<f64>,
    /// Bits per second, measured.
    pub bitrate: Option<f64>,
    /// Frames from one keyframe to the next, for video, if two were seen.
    pub gop_frames: Option<u64>,
    /// The same in seconds.
    pub gop_secs: Option<f64>,
    /// Whether frames are reordered (B frames).
    pub reordered: bool,
}

#[derive(Default)]
struct Seen {
    frames: u64,
    bytes: u64,
    first: Option<MediaTime>,
    last: Option<MediaTime>,
    last_pts: Option<MediaTime>,
    keyframe: Option<(u64, MediaTime)>,
    gop: Option<(u64, f64)>,
    reordered: bool,
}

/// Opens a source, watches it for `duration` and tells what it sends.
///
/// # Errors
/// If it cannot be opened, or sends nothing within ten seconds.
pub async fn probe(source: Box<dyn Source>, duration: Duration) -> Result<ProbeReport, SourceError> {
    watch(source, duration).await.map(|(report, _)| report)
}

/// The same, and a picture as JPEG if one is wanted: `None` if not, or if there is no video.
#[cfg(feature = "http")]
pub(crate) async fn probe_with(
    source: Box<dyn Source>,
    duration: Duration,
    picture: bool,
) -> Result<(ProbeReport, Option<Result<Vec<u8>, String>>), SourceError> {
    let (report, hub) = watch(source, duration).await?;
    if !picture || !report.tracks.iter().any(|t| t.info.kind == MediaKind::Video) {
        return Ok((report, None));
    }
    let made = crate::pipeline::picture(&hub).await.map_err(|e| e.to_string());
    Ok((report, Some(made)))
}

async fn watch(mut source: Box<dyn Source>, duration: Duration) -> Result<(ProbeReport, Hub), SourceError> {
    if source.publish_slot().is_some() {
        return Err(SourceError::Published);
    }
    let hub = Hub::default();
    let (writer, cancel) = (hub.writer(), CancellationToken::new());
    writer.begin_session();
    let mut reader = hub.subscribe("probe", ReaderOptions::default());
    let silence = Duration::from_secs(10);
    let mut seen: Vec<Seen> = Vec::new();
    let mut offset = None;
    let result = {
        let mut run = source.run(&writer, cancel.clone());
        let watch = async {
            let first = tokio::time::timeout(silence, hub.session_frame()).await;
            if first.is_err() {
                return Err(SourceError::Silent { silence });
            }
            tokio::time::sleep(duration).await;
            Ok(())
        };
        tokio::pin!(watch);
        loop {
            tokio::select! {
                biased;
                item = reader.next() => if let Some(item) = item { note(item, &mut seen, &mut offset); },
                result = &mut run => break result.map(drop),
                result = &mut watch => {
                    cancel.cancel();
                    // Bounded: a source that does not let itself be cancelled is dropped.
                    let _ = tokio::time::timeout(Duration::from_secs(8), &mut run).await;
                    break result;
                }
            }
        }
    };
    while let Some(item) = reader.try_next() {
        note(item, &mut seen, &mut offset);
    }
    let tracks = hub.tracks();
    if tracks.is_empty() {
        result?;
        return Err(SourceError::NoTracks { address: source.address() });
    }
    seen.resize_with(tracks.len(), Seen::default);
    let observed = seen.iter().filter_map(Seen::secs).fold(0.0, f64::max);
    let report = ProbeReport {
        source: source.address(),
        observed_secs: observed,
        tracks: tracks.iter().zip(&seen).map(|(t, s)| s.report(TrackInfo::of(&t.parameters))).collect(),
        clock_offset_secs: offset,
        packets_lost: hub.stats().packets_lost,
    };
    Ok((report, hub))
}

fn note(item: HubItem, seen: &mut Vec<Seen>, offset: &mut Option<f64>) {
    let HubItem::Frame(frame) = item else { return };
    let index = frame.track.0 as usize;
    if seen.len() <= index {
        seen.resize_with(index + 1, Seen::default);
    }
    let track = &mut seen[index];
    if frame.parameters.kind() == MediaKind::Video && frame.keyframe {
        if let Some((number, time)) = track.keyframe {
            track.gop = Some((track.frames - number, frame.dts.saturating_since(time).as_secs_f64()));
        }
        track.keyframe = Some((track.frames, frame.dts));
    }
    track.frames += 1;
    track.bytes += frame.data.len() as u64;
    track.first.get_or_insert(frame.dts);
    track.last = Some(frame.dts);
    track.reordered |= track.last_pts.is_some_and(|last| frame.pts < last);
    track.last_pts = Some(frame.pts);
    if let Some(ntp) = frame.ntp {
        let nanos = |t: WallTime| t.as_unix_nanos() as f64;
        *offset = Some((nanos(ntp) - nanos(frame.wall_clock)) / 1e9);
    }
}

impl Seen {
    fn secs(&self) -> Option<f64> {
        let secs = self.last?.saturating_since(self.first?).as_secs_f64();
        (secs > 0.0).then_some(secs)
    }

    fn report(&self, info: TrackInfo) -> ProbeTrack {
        let rate = self.secs().map(|secs| (self.frames.saturating_sub(1)) as f64 / secs);
        let average = self.bytes as f64 / self.frames.max(1) as f64;
        ProbeTrack {
            info,
            frames: self.frames,
            measured_frame_rate: rate,
            bitrate: rate.map(|rate| rate * average * 8.0),
            gop_frames: self.gop.map(|(frames, _)| frames),
            gop_secs: self.gop.map(|(_, secs)| secs),
            reordered: self.reordered,
        }
    }
}
