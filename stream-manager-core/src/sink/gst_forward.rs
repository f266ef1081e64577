//! Streams sent on by GStreamer: RTMP, SRT, and MPEG-TS by UDP.
//!
//! Nothing is encoded anew: the hub's frames go into a muxer, from a keyframe on. An attempt lasts until the other
//! side is gone or takes nothing, or the stream's codecs change; then comes the next one.

use super::forward::{Forward, ForwardHandle, ForwardState, keep_sending};
use super::{Sink, SinkError};
use crate::error::{redact_publish_url, redact_url};
use crate::frame::{AudioCodec, Codec, MediaKind, MediaTime, Track, TrackId, VideoCodec};
use crate::hub::{Hub, HubItem, HubReader, ReaderOptions};
use crate::pipeline::caps::caps_for;
use crate::pipeline::{
    self, ManagedPipeline, PipelineError, PipelineMessage, buffer_of, make_element, parse_pipeline,
};
use crate::source::AddressError;
use crate::source::connect::check_outbound;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What may wait for the other side; one that takes less is connected to anew, and begins with the present.
const QUEUE_BYTES: u64 = 16 << 20;
/// What has not failed for so long is taken to be connected: not every element says so.
const SETTLED: Duration = Duration::from_secs(1);

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Rtmp,
    Srt,
    Udp,
}

impl Way {
    fn of(url: &Url) -> Option<Self> {
        match url.scheme() {
            "rtmp" | "rtmps" => Some(Self::Rtmp),
            "srt" => Some(Self::Srt),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }

    /// Whether it carries a codec.
    fn carries(self, codec: Codec) -> bool {
        use AudioCodec::{Aac, Ac3, Mp3, Opus};
        use VideoCodec::{H264, H265};
        match self {
            // What the format itself has (Adobe Flash Video File Format Specification 10.1, annex E.4).
            Self::Rtmp => matches!(codec, Codec::Video(H264) | Codec::Audio(Aac | Mp3)),
            Self::Srt | Self::Udp => {
                matches!(codec, Codec::Video(H264 | H265) | Codec::Audio(Aac | Mp3 | Ac3 | Opus))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rtmp => "RTMP",
            Self::Srt | Self::Udp => "MPEG-TS",
        }
    }
}

/// Sends a stream to another server: `rtmp://` and `rtmps://`, `srt://` and `udp://` (MPEG-TS). It connects again by itself.
///
/// ```
/// # use stream_manager_core::sink::GstForward;
/// let forward = GstForward::new("rtmp://live.example.org/app/geheim?auth=geheim").unwrap();
/// assert_eq!(forward.handle().status().url, "rtmp://live.example.org/app/***?auth=***");
/// ```
pub struct GstForward {
    url: Url,
    way: Way,
    handle: ForwardHandle,
}

impl GstForward {
    /// To an address.
    ///
    /// # Errors
    /// If it is of another kind, or lacks its host or port.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let wrong = |problem: String| AddressError::NotAUrl { address: redact_url(address), problem };
        Self::from_url(Url::parse(address).map_err(|e| wrong(e.to_string()))?)
    }

    /// To a parsed address.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_url(url: Url) -> Result<Self, AddressError> {
        let address = redact_url(url.as_str());
        let Some(way) = Way::of(&url) else {
            return Err(AddressError::NoForward { address, scheme: url.scheme().to_owned() });
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(AddressError::NoHost { address });
        }
        if matches!(way, Way::Srt | Way::Udp) && url.port().is_none_or(|port| port == 0) {
            return Err(AddressError::Parameter {
                address,
                parameter: "port".into(),
                value: String::new(),
                expected: "a port behind the host, such as :5000".into(),
            });
        }
        let handle = ForwardHandle::new(redact_publish_url(url.as_str()));
        Ok(Self { url, way, handle })
    }

    /// To see how it stands.
    pub fn handle(&self) -> ForwardHandle {
        self.handle.clone()
    }

    /// The pipeline behind the sources: what they are linked to.
    fn pipeline(&self) -> Result<(gst::Pipeline, gst::Element), PipelineError> {
        let line = match self.way {
            Way::Rtmp => "flvmux name=mux streamable=true ! rtmp2sink name=to sync=false",
            Way::Srt => "mpegtsmux name=mux alignment=7 ! srtsink name=to sync=false",
            Way::Udp => "mpegtsmux name=mux alignment=7 ! udpsink name=to sync=false",
        };
        let pipeline = parse_pipeline(line)?;
        let missing = |name: &str| PipelineError::Parse(format!("no element {name}"));
        let to = pipeline.by_name("to").ok_or_else(|| missing("to"))?;
        let mux = pipeline.by_name("mux").ok_or_else(|| missing("mux"))?;
        match self.way {
            Way::Rtmp => to.set_property("location", self.url.as_str()),
            Way::Srt => {
                pipeline::set_srt_address(&to, &self.url);
                // Where others come to us, nobody need be there.
                to.set_property("wait-for-connection", !pipeline::listens(&self.url));
            }
            Way::Udp => {
                to.set_property("host", self.url.host_str().unwrap_or_default());
                to.set_property("port", i32::from(self.url.port().unwrap_or_default()));
            }
        }
        Ok((pipeline, mux))
    }

    /// A source for a track, linked into the pipeline.
    fn source(
        &self,
        pipeline: &gst::Pipeline,
        into: &gst::Element,
        track: &Track,
    ) -> Result<gst_app::AppSrc, PipelineError> {
        let failed = |problem: String| PipelineError::Parse(format!("{}: {problem}", self.way.name()));
        let caps = caps_for(&track.parameters).ok_or_else(|| failed("a track without caps".into()))?;
        let source = gst_app::AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .is_live(true)
            // What waits is looked after here.
            .max_bytes(0)
            .build();
        pipeline.add(&source).map_err(|e| failed(e.to_string()))?;
        let mut last: gst::Element = source.clone().upcast();
        let parser = match track.parameters.codec() {
            Codec::Video(VideoCodec::H264) if self.way != Way::Rtmp => Some("h264parse"),
            Codec::Video(VideoCodec::H265) => Some("h265parse"),
            _ => None,
        };
        if let Some(parser) = parser {
            let parser = make_element(parser)?;
            // Whoever comes late can begin with any keyframe.
            parser.set_property("config-interval", -1i32);
            pipeline.add(&parser).map_err(|e| failed(e.to_string()))?;
            last.link(&parser).map_err(|e| failed(e.to_string()))?;
            last = parser;
        }
        let pad = match (self.way, track.parameters.kind()) {
            (Way::Rtmp, MediaKind::Video) => "video",
            (Way::Rtmp, _) => "audio",
            _ => "sink_%d",
        };
        let pad = into.request_pad_simple(pad).ok_or_else(|| failed(format!("no pad {pad}")))?;
        let from = last.static_pad("src").ok_or_else(|| failed("no pad".into()))?;
        from.link(&pad).map_err(|e| failed(e.to_string()))?;
        Ok(source)
    }

    async fn send(
        &self,
        managed: &ManagedPipeline,
        mut bus: mpsc::Receiver<PipelineMessage>,
        sources: &[(TrackId, gst_app::AppSrc)],
        reader: &mut HubReader,
        cancel: &CancellationToken,
    ) -> Result<String, String> {
        let said = |message: PipelineMessage| match message {
            PipelineMessage::Error(PipelineError::Element { message, .. }) => Some(message),
            PipelineMessage::Error(error) => Some(error.to_string()),
            PipelineMessage::Eos => Some("the other side has ended it".to_owned()),
            PipelineMessage::Element(_) => None,
        };
        if let Err(error) = managed.play(CONNECT_TIMEOUT).await {
            // The element's own words are better than "refused to start".
            return Err(bus.try_recv().ok().and_then(said).unwrap_or_else(|| error.to_string()));
        }
        let mut begun: Option<(MediaTime, Instant)> = None;
        loop {
            let item = tokio::select! {
                () = cancel.cancelled() => return Ok(String::new()),
                message = bus.recv() => match message.and_then(said) {
                    Some(problem) => return Err(problem),
                    None => continue,
                },
                item = reader.next() => item,
            };
            let frame = match item {
                None => return Ok(String::new()),
                Some(HubItem::Frame(frame)) => frame,
                Some(HubItem::Tracks(_)) => return Err("the stream's codecs have changed".into()),
                Some(HubItem::Input(_) | HubItem::Discontinuity | HubItem::Lagged { .. }) => continue,
            };
            let Some((_, source)) = sources.iter().find(|(track, _)| *track == frame.track) else { continue };
            let (origin, since) = *begun.get_or_insert_with(|| (frame.dts, Instant::now()));
            if frame.dts < origin {
                // Sound from before the first picture.
                continue;
            }
            // Before this one, which nobody can have taken yet.
            let waiting: u64 = sources.iter().map(|(_, source)| source.current_level_bytes()).sum();
            if waiting > QUEUE_BYTES {
                return Err("the other side is too slow for this stream".into());
            }
            let bytes = frame.data.len() as u64;
            if source.push_buffer(buffer_of(&frame, origin)).is_err() {
                let problem = bus.try_recv().ok().and_then(said);
                return Err(problem.unwrap_or_else(|| "the other side takes nothing more".into()));
            }
            if waiting > 0 && self.handle.status().state == ForwardState::Connecting {
                if since.elapsed() >= CONNECT_TIMEOUT {
                    return Err(format!("the other side takes nothing for {CONNECT_TIMEOUT:?}"));
                }
                continue;
            }
            self.handle.add_bytes(bytes);
            if since.elapsed() >= SETTLED {
                self.handle.set(ForwardState::Running, "frames go");
            }
        }
    }
}

#[async_trait::async_trait]
impl Forward for GstForward {
    fn status_handle(&self) -> &ForwardHandle {
        &self.handle
    }

    async fn attempt(&self, hub: &Hub, cancel: &CancellationToken) -> Result<String, String> {
        pipeline::init().map_err(|e| e.to_string())?;
        let mut reader = hub.subscribe("forward", ReaderOptions::default());
        let Some(Some(tracks)) = cancel.run_until_cancelled(reader.tracks()).await else {
            return Ok(String::new());
        };
        let (mut taken, mut left_out): (Vec<&Track>, Vec<String>) = (Vec::new(), Vec::new());
        for track in tracks.iter() {
            let codec = track.parameters.codec();
            let again = taken.iter().any(|other| other.parameters.kind() == track.parameters.kind());
            if !self.way.carries(codec) {
                left_out.push(format!("{}: {} does not carry it", codec.name(), self.way.name()));
            } else if again {
                left_out.push(format!("{}: one track of each kind goes", codec.name()));
            } else {
                taken.push(track);
            }
        }
        self.handle.leaves_out(left_out.clone());
        if taken.is_empty() {
            return Err(format!("no track can be sent: {}", left_out.join("; ")));
        }
        check_outbound(&self.url).await.map_err(|e| e.to_string())?;
        let (built, into) = self.pipeline().map_err(|e| e.to_string())?;
        let mut sources = Vec::new();
        for track in &taken {
            sources.push((track.id, self.source(&built, &into, track).map_err(|e| e.to_string())?));
        }
        let (managed, bus) = ManagedPipeline::new(built);
        let sent = self.send(&managed, bus, &sources, &mut reader, cancel).await;
        for (_, source) in &sources {
            // Refused only if the pipeline is down already.
            let _ = source.end_of_stream();
        }
        managed.stop().await;
        sent
    }
}

#[async_trait::async_trait]
impl Sink for GstForward {
    async fn run(&mut self, reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
        keep_sending(self, reader, &cancel).await;
        Ok(())
    }

    fn name(&self) -> String {
        "forward".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_named_and_secrets_are_not_shown() {
        for (address, words) in [
            ("rtmp:///x", "no host"),
            ("rtsp://host/x", "streams are not forwarded"),
            ("srt://host", "expected a port"),
            ("udp://239.1.1.1", "expected a port"),
            ("ftp://host/x", "streams are not forwarded"),
        ] {
            let said = GstForward::new(address).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains(words), "{address}: {said}");
        }
        for address in
            ["rtmp://h/live/geheim", "srt://h:9?passphrase=geheim-geheim", "srt://0.0.0.0:9?mode=listener"]
        {
            let shown = GstForward::new(address).unwrap().handle().status().url;
            assert!(!shown.contains("geheim"), "{shown}");
        }
    }
}
