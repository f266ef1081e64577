//! From retina into the hub: frames, the parameters of tracks, and what sender reports say of the time.

use crate::frame::{CodecParameters, MediaTime, WallTime};
use crate::hub::{HubWriter, RawFrame};
use crate::rtp::format::translate_retina;
use crate::rtp::shrink;
use crate::source::SourceError;
use bytes::Bytes;
use futures_util::StreamExt;
use retina::client::Demuxed;
use retina::codec::CodecItem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One track of the camera's SDP.
pub(super) struct Offer {
    pub(super) media: String,
    pub(super) name: String,
}

impl Offer {
    pub(super) fn of(stream: &retina::client::Stream) -> Self {
        Self { media: stream.media().to_owned(), name: stream.encoding_name().to_owned() }
    }

    pub(super) fn unwanted(self) -> Self {
        Self { media: String::new(), name: String::new() }
    }

    pub(super) fn is_media(&self) -> bool {
        matches!(self.media.as_str(), "video" | "audio" | "image" | "application")
    }

    pub(super) fn by_retina(&self) -> bool {
        matches!(
            (self.media.as_str(), self.name.as_str()),
            ("video", "h264" | "h265")
                | ("video" | "image", "jpeg")
                | ("audio", "mpeg4-generic" | "pcma" | "pcmu" | "l16")
                | ("application", "vnd.onvif.metadata")
        )
    }

    /// Supported, but only through GStreamer.
    pub(super) fn needs_gstreamer(&self) -> bool {
        matches!(
            (self.media.as_str(), self.name.as_str()),
            ("video", "av1" | "vp8" | "vp9") | ("audio", "opus" | "mpa" | "mpa-robust" | "ac3" | "mp4a-latm")
        )
    }
}

/// Why no more is received.
pub(super) enum ReceiveError {
    Retina(retina::Error),
    Source(SourceError),
}

impl From<crate::hub::HubError> for ReceiveError {
    fn from(error: crate::hub::HubError) -> Self {
        Self::Source(error.into())
    }
}

/// A playing session and what is known of its tracks.
pub(super) struct Receiver {
    demuxed: Demuxed,
    /// By retina's stream index.
    tracks: Vec<TrackState>,
    announced: bool,
    /// Whether anything has come.
    pub(super) received: Arc<AtomicBool>,
}

#[derive(Default)]
struct TrackState {
    wanted: bool,
    parameters: Option<CodecParameters>,
    track: Option<u32>,
    /// A point where the sender's RTP clock and wall clock meet, from its last sender report.
    report: Option<(i64, WallTime)>,
}

impl Receiver {
    pub(super) fn new(demuxed: Demuxed, wanted: &[usize]) -> Self {
        let mut tracks: Vec<TrackState> = Vec::new();
        tracks.resize_with(demuxed.streams().len(), TrackState::default);
        for index in wanted {
            tracks[*index].wanted = true;
        }
        Self { demuxed, tracks, announced: false, received: Arc::default() }
    }

    pub(super) async fn receive(&mut self, hub: &HubWriter) -> Result<(), ReceiveError> {
        for index in 0..self.tracks.len() {
            self.learn(index, None);
        }
        self.announce_if_complete(hub);
        while let Some(item) = self.demuxed.next().await {
            let item = item.map_err(ReceiveError::Retina)?;
            if !self.received.load(Ordering::Relaxed) && !matches!(item, CodecItem::Rtcp(_)) {
                self.received.store(true, Ordering::Relaxed);
            }
            match item {
                CodecItem::VideoFrame(frame) => {
                    let index = frame.stream_id();
                    report_loss(hub, frame.loss());
                    if frame.has_new_parameters() || self.tracks[index].parameters.is_none() {
                        self.change(index, hub, Some(frame.data()))?;
                    }
                    let keyframe = frame.is_random_access_point();
                    let timestamp = frame.timestamp();
                    self.push(hub, index, timestamp, keyframe, || shrink(frame.into_data()))?;
                }
                CodecItem::AudioFrame(frame) => {
                    report_loss(hub, frame.loss());
                    self.push(hub, frame.stream_id(), frame.timestamp(), true, || {
                        Bytes::copy_from_slice(frame.data())
                    })?;
                }
                CodecItem::MessageFrame(frame) => {
                    self.push(hub, frame.stream_id(), frame.timestamp(), true, || {
                        Bytes::copy_from_slice(frame.data())
                    })?;
                }
                CodecItem::Rtcp(packet) => {
                    if let (Some(timestamp), Some(Ok(Some(report)))) =
                        (packet.rtp_timestamp(), packet.pkts().next().map(|p| p.as_sender_report()))
                    {
                        let wall = WallTime::from_ntp(report.ntp_timestamp().0);
                        self.tracks[packet.stream_id()].report = Some((timestamp.timestamp(), wall));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        hub: &HubWriter,
        index: usize,
        timestamp: retina::Timestamp,
        keyframe: bool,
        data: impl FnOnce() -> Bytes,
    ) -> Result<(), ReceiveError> {
        let state = &self.tracks[index];
        // Before a track's parameters are known nothing can be done with its frames.
        let Some(track) = state.track else { return Ok(()) };
        let rate = timestamp.clock_rate().get();
        let ntp = state.report.map(|(at, wall)| {
            let since = MediaTime::from_ticks(timestamp.timestamp().saturating_sub(at), rate).as_nanos();
            WallTime::from_unix_nanos(wall.as_unix_nanos().saturating_add(since))
        });
        let pts = MediaTime::from_ticks(timestamp.elapsed(), rate);
        hub.push(RawFrame { track, pts: Some(pts), dts: None, ntp, keyframe, data: data() })?;
        Ok(())
    }

    /// Takes over what retina knows of a track's parameters.
    fn learn(&mut self, index: usize, frame: Option<&[u8]>) {
        let stream = &self.demuxed.streams()[index];
        let frame_rate = stream.framerate().filter(|r| *r > 0.0).map(|r| ((r * 1000.0).round() as u32, 1000));
        if let Some(found) =
            stream.parameters().and_then(|p| translate_retina(p, stream.encoding_name(), frame_rate, frame))
        {
            self.tracks[index].parameters = Some(found);
        }
    }

    fn change(&mut self, index: usize, hub: &HubWriter, frame: Option<&[u8]>) -> Result<(), ReceiveError> {
        self.learn(index, frame);
        match (self.tracks[index].track, self.tracks[index].parameters.clone()) {
            (Some(track), Some(parameters)) => hub.set_parameters(track, parameters)?,
            _ => self.announce_if_complete(hub),
        }
        Ok(())
    }

    /// Announces the tracks once the parameters of all of them are known: video first, for sinks that take
    /// the first track as the main one.
    fn announce_if_complete(&mut self, hub: &HubWriter) {
        let wanted: Vec<usize> = (0..self.tracks.len()).filter(|i| self.tracks[*i].wanted).collect();
        if self.announced || wanted.iter().any(|i| self.tracks[*i].parameters.is_none()) {
            return;
        }
        let mut order = wanted;
        order.sort_by_key(|i| self.tracks[*i].parameters.as_ref().map(CodecParameters::kind));
        for (track, index) in (0u32..).zip(&order) {
            self.tracks[*index].track = Some(track);
        }
        hub.set_tracks(order.iter().filter_map(|i| self.tracks[*i].parameters.clone()));
        self.announced = true;
    }
}

fn report_loss(hub: &HubWriter, packets: u16) {
    if packets > 0 {
        hub.report_loss(u64::from(packets));
    }
}
