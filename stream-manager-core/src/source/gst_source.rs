//! The engine under every source that GStreamer does: pads become tracks, buffers become frames.
//!
//! A source element's pads appear at any time and may carry a container, RTP, an elementary stream or
//! raw media. The [`Collector`] looks at each pad's caps as soon as they are known, puts a `parsebin` or
//! the right parser behind it and an appsink at the end, and sends what comes out of the appsinks over
//! one bounded channel to [`run`], which announces the tracks when all are known and writes the frames
//! to the hub. A buffer's memory is handed on as it is.

use super::{SUPPORTED_CODECS, SourceEnd, SourceError};
use crate::frame::{CodecParameters, MediaKind, MediaTime, VideoCodec, WallTime};
use crate::hub::{HubWriter, RawFrame};
use crate::pipeline::caps::{PadMedia, classify, parameters};
use crate::pipeline::encoder::{self, Encoding};
use crate::pipeline::{ManagedPipeline, PipelineError, PipelineMessage, make_element, parse_chain};
use bytes::Bytes;
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long to wait for further tracks once one is there and the source does not say how many there are.
const TRACKS_TIMEOUT: Duration = Duration::from_secs(3);
/// Frames that may wait for the tracks to be announced.
const MAX_WAITING: usize = 2048;
/// Frames between GStreamer's threads and the hub. The hub never blocks, so this fills only when the
/// whole process is short of time, and then GStreamer waits.
const CHANNEL_FRAMES: usize = 128;
/// What may wait for a parser, and for an encoder: what that one has no time for is better left out where it comes from.
const QUEUE: &str = "queue max-size-time=0 max-size-buffers=0 max-size-bytes=33554432";
const QUEUE_OF_RAW: &str = "queue max-size-time=0 max-size-buffers=8 max-size-bytes=0";

/// What the source is like.
#[derive(Clone, Debug)]
pub(super) struct GstOptions {
    /// For people, without secrets.
    pub(super) address: String,
    /// Whether frames are let out at the pace of their timestamps (files) or as they come (live).
    pub(super) paced: bool,
    /// Whether the end leads back to the start.
    pub(super) looped: bool,
    /// Whether an end is expected even if the length is unknown (files).
    pub(super) may_end: bool,
    /// How long starting may take.
    pub(super) timeout: Duration,
    /// What raw video becomes, if it is not left to its size and rate.
    pub(super) encoding: Option<Encoding>,
}

impl GstOptions {
    /// For a source that delivers as it comes and may have an end.
    pub(super) fn live(address: String) -> Self {
        let timeout = Duration::from_secs(10);
        Self { address, paced: false, looped: false, may_end: true, timeout, encoding: None }
    }
}

enum Message {
    /// A pad was found; its parameters come with its first frame.
    Pad(usize),
    Parameters(usize, CodecParameters),
    Frame(usize, RawFrame),
    Unsupported(String),
    /// No more pads will come.
    Complete,
    Failed(PipelineError),
}

/// Finds the media behind a source element's pads.
pub(super) struct Collector {
    pipeline: glib::WeakRef<gst::Pipeline>,
    sender: mpsc::Sender<Message>,
    sync: bool,
    encoding: Option<Encoding>,
    state: Mutex<CollectorState>,
}

#[derive(Default)]
struct CollectorState {
    pads: usize,
    /// Elements that have not said "no more pads" yet, and pads that have no caps yet.
    open: usize,
    /// Hardware encoders behind pads.
    hardware: Vec<(usize, &'static str)>,
}

impl Collector {
    /// Takes on an element: pads it has and pads it will have.
    pub(super) fn attach(self: &Arc<Self>, element: &gst::Element) {
        let sometimes = element
            .pad_template_list()
            .iter()
            .any(|t| t.direction() == gst::PadDirection::Src && t.presence() == gst::PadPresence::Sometimes);
        if sometimes {
            self.state.lock().open += 1;
            let weak = Arc::downgrade(self);
            element.connect_pad_added(move |_, pad| {
                if let Some(this) = weak.upgrade() {
                    this.pad_found(pad);
                }
            });
            let weak = Arc::downgrade(self);
            element.connect_no_more_pads(move |_| {
                if let Some(this) = weak.upgrade() {
                    this.one_done();
                }
            });
        }
        for pad in element.src_pads() {
            self.pad_found(&pad);
        }
    }

    fn one_done(&self) {
        let none_left = {
            let mut state = self.state.lock();
            state.open = state.open.saturating_sub(1);
            state.open == 0
        };
        if none_left {
            self.send(Message::Complete);
        }
    }

    fn send(&self, message: Message) {
        // Control messages are few and the channel is long; a lost one would only mean a late start.
        if self.sender.try_send(message).is_err() {
            tracing::debug!("a source's control message found no room");
        }
    }

    fn pad_found(self: &Arc<Self>, pad: &gst::Pad) {
        if pad.direction() != gst::PadDirection::Src || pad.is_linked() {
            return;
        }
        self.state.lock().open += 1;
        if let Some(caps) = pad.current_caps() {
            self.connect(pad, &caps);
            self.one_done();
            return;
        }
        let weak = Arc::downgrade(self);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
            let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) else {
                return gst::PadProbeReturn::Ok;
            };
            if let Some(this) = weak.upgrade() {
                this.connect(pad, event.caps());
                this.one_done();
            }
            gst::PadProbeReturn::Remove
        });
    }

    fn connect(self: &Arc<Self>, pad: &gst::Pad, caps: &gst::CapsRef) {
        let result = match classify(caps) {
            PadMedia::Elementary(chain) | PadMedia::RawAudio(chain) => self.connect_chain(pad, chain),
            PadMedia::RawVideo => self.connect_encoder(pad, caps),
            PadMedia::Container => self.connect_parsebin(pad),
            PadMedia::Unsupported => {
                let name = caps.structure(0).map_or("unknown", |s| s.name().as_str());
                self.send(Message::Unsupported(name.to_owned()));
                self.connect_fakesink(pad)
            }
        };
        if let Err(error) = result {
            self.send(Message::Failed(error));
        }
    }

    fn connect_parsebin(self: &Arc<Self>, pad: &gst::Pad) -> Result<(), PipelineError> {
        let parsebin = make_element("parsebin")?;
        self.attach(&parsebin);
        self.add_and_link(pad, &parsebin)
    }

    fn connect_fakesink(&self, pad: &gst::Pad) -> Result<(), PipelineError> {
        let sink = make_element("fakesink")?;
        sink.set_property("async", false);
        self.add_and_link(pad, &sink)
    }

    fn connect_chain(&self, pad: &gst::Pad, chain: &str) -> Result<(), PipelineError> {
        let index = self.next_pad();
        self.connect_bin(pad, index, &parse_chain(&format!("{QUEUE} ! {chain} ! appsink name=sink"))?)
    }

    fn connect_encoder(&self, pad: &gst::Pad, caps: &gst::CapsRef) -> Result<(), PipelineError> {
        let index = self.next_pad();
        let encoding = self.encoding.unwrap_or_else(|| Encoding::of_raw(caps));
        let encoder = encoder::make(encoding, (QUEUE_OF_RAW, "appsink name=sink"))?;
        if let Some(element) = encoder.hardware {
            self.state.lock().hardware.push((index, element));
        }
        self.connect_bin(pad, index, &encoder.bin)
    }

    fn next_pad(&self) -> usize {
        let mut state = self.state.lock();
        state.pads += 1;
        state.pads - 1
    }

    fn connect_bin(&self, pad: &gst::Pad, index: usize, bin: &gst::Bin) -> Result<(), PipelineError> {
        let sink = bin
            .by_name("sink")
            .and_then(|e| e.downcast::<gst_app::AppSink>().ok())
            .ok_or_else(|| crate::pipeline::missing("appsink"))?;
        sink.set_sync(self.sync);
        sink.set_max_buffers(16);
        sink.set_async(false);
        self.send(Message::Pad(index));
        sink.set_callbacks(appsink_callbacks(index, self.sender.clone()));
        self.add_and_link(pad, bin.upcast_ref())
    }

    /// The pipeline has failed. Hardware that encodes in it is to blame if it says so itself, or if nothing has come out of it.
    fn blame(&self, error: &SourceError, nothing_of: impl Fn(usize) -> bool) {
        let said = matches!(
            error,
            SourceError::Pipeline(PipelineError::Element { element, .. }) if element == encoder::NAME
        );
        for (pad, element) in &self.state.lock().hardware {
            if said || nothing_of(*pad) {
                encoder::distrust(element);
            }
        }
    }

    fn add_and_link(&self, pad: &gst::Pad, element: &gst::Element) -> Result<(), PipelineError> {
        let failed = |what: &str| PipelineError::Element {
            element: element.name().to_string(),
            message: what.to_owned(),
            cause: crate::pipeline::ErrorCause::Other,
        };
        let Some(pipeline) = self.pipeline.upgrade() else {
            return Ok(()); // Being taken down.
        };
        pipeline.add(element).map_err(|e| failed(&e.to_string()))?;
        element.sync_state_with_parent().map_err(|e| failed(&e.to_string()))?;
        let sink = element.static_pad("sink").or_else(|| element.sink_pads().into_iter().next());
        let sink = sink.ok_or_else(|| failed("no sink pad"))?;
        pad.link(&sink).map_err(|e| failed(&format!("cannot be linked: {e}")))?;
        Ok(())
    }
}

fn appsink_callbacks(index: usize, sender: mpsc::Sender<Message>) -> gst_app::AppSinkCallbacks {
    let mut last_caps: Option<gst::Caps> = None;
    let mut is_av1 = false;
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let Some(buffer) = sample.buffer_owned() else {
                return Ok(gst::FlowSuccess::Ok);
            };
            let (pts, dts) = running_times(&sample, &buffer);
            let ntp = capture_time(&buffer);
            let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            let Ok(map) = buffer.into_mapped_buffer_readable() else {
                return Ok(gst::FlowSuccess::Ok);
            };
            let caps = sample.caps_owned();
            if caps.is_some() && caps != last_caps {
                if let Some(found) = caps.as_deref().map(|caps| parameters(caps, &map)) {
                    match found {
                        Ok(found) => {
                            is_av1 = found.video().is_some_and(|v| v.codec == VideoCodec::Av1);
                            sender
                                .blocking_send(Message::Parameters(index, found))
                                .map_err(|_| gst::FlowError::Flushing)?;
                        }
                        Err(problem) => tracing::debug!(%problem, "caps without parameters yet"),
                    }
                }
                last_caps = caps;
            }
            let mut data = Bytes::from_owner(map);
            if is_av1 && data.starts_with(&[0x12, 0x00]) {
                data = data.slice(2..); // temporal delimiter, not stored (AV1 in ISOBMFF section 2.4)
            }
            let frame = RawFrame { track: 0, pts, dts, ntp, keyframe, data };
            sender.blocking_send(Message::Frame(index, frame)).map_err(|_| gst::FlowError::Flushing)?;
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

/// Times on the pipeline's running time, which goes on over the segments of a stream.
fn running_times(sample: &gst::Sample, buffer: &gst::Buffer) -> (Option<MediaTime>, Option<MediaTime>) {
    let segment = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>().cloned());
    let to_running = |time: Option<gst::ClockTime>| {
        let time = time?;
        let nanos = match &segment {
            Some(segment) => {
                let signed = segment.to_running_time_full(time)?;
                let magnitude = i64::try_from(signed.abs().nseconds()).ok()?;
                if signed.is_negative() { -magnitude } else { magnitude }
            }
            None => i64::try_from(time.nseconds()).ok()?,
        };
        Some(MediaTime::from_nanos(nanos))
    };
    (to_running(buffer.pts()), to_running(buffer.dts()))
}

/// The sender's wall clock, which `rtspsrc` attaches from RTCP sender reports.
fn capture_time(buffer: &gst::Buffer) -> Option<WallTime> {
    let meta = buffer.meta::<gst::ReferenceTimestampMeta>()?;
    let ntp_nanos =
        (meta.reference().structure(0)?.name() == "timestamp/x-ntp").then(|| meta.timestamp().nseconds())?;
    // Nanoseconds since 1900 to nanoseconds since 1970.
    i64::try_from(ntp_nanos).ok()?.checked_sub(2_208_988_800_000_000_000).map(WallTime::from_unix_nanos)
}

/// A pipeline of one source element.
pub(super) fn pipeline_of(source: &gst::Element) -> Result<gst::Pipeline, PipelineError> {
    let pipeline = gst::Pipeline::new();
    pipeline.add(source).map_err(|e| PipelineError::Parse(e.to_string()))?;
    Ok(pipeline)
}

/// Runs a pipeline of sources: every pad in it that is not linked becomes a track, and what comes is
/// written to the hub.
pub(super) async fn run(
    pipeline: gst::Pipeline,
    options: &GstOptions,
    hub: &HubWriter,
    cancel: &CancellationToken,
) -> Result<SourceEnd, SourceError> {
    let (sender, mut receiver) = mpsc::channel(CHANNEL_FRAMES);
    let collector = Arc::new(Collector {
        pipeline: pipeline.downgrade(),
        sender,
        sync: options.paced,
        encoding: options.encoding,
        state: Mutex::default(),
    });
    // Children are listed with the newest first; tracks keep the order of the line.
    for element in pipeline.children().iter().rev() {
        collector.attach(element);
    }
    let (managed, mut bus) = ManagedPipeline::new(pipeline);
    let mut tracks = TrackSet::new(hub);
    let result = tokio::select! {
        () = cancel.cancelled() => Ok(SourceEnd::Cancelled),
        result = pump(&managed, &mut receiver, &mut bus, options, &mut tracks) => result,
    };
    if let Err(error) = &result {
        collector.blame(error, |pad| tracks.pads.get(pad).is_none_or(|pad| pad.parameters.is_none()));
    }
    // Closed before the pipeline stops, so that no GStreamer thread waits for room in it.
    drop(receiver);
    drop(bus);
    managed.stop().await;
    result
}

async fn pump(
    managed: &ManagedPipeline,
    receiver: &mut mpsc::Receiver<Message>,
    bus: &mut mpsc::Receiver<PipelineMessage>,
    options: &GstOptions,
    tracks: &mut TrackSet<'_>,
) -> Result<SourceEnd, SourceError> {
    if let Err(error) = managed.play(options.timeout).await {
        // The element's own words are better than "refused to start".
        return Err(match bus.try_recv() {
            Ok(PipelineMessage::Error(said)) => said_by_element(said, options),
            _ => error.into(),
        });
    }
    let mut announce_by: Option<tokio::time::Instant> = None;
    loop {
        let deadline = announce_by.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            biased;
            message = receiver.recv() => {
                let Some(message) = message else { return Err(SourceError::Ended) };
                tracks.take(message, options)?;
                if announce_by.is_none() && tracks.any_known() {
                    announce_by = Some(tokio::time::Instant::now() + TRACKS_TIMEOUT);
                }
            }
            said = bus.recv() => match said {
                Some(PipelineMessage::Error(error)) => return Err(said_by_element(error, options)),
                Some(PipelineMessage::Eos) => {
                    // What was delivered before the end is in the channel already.
                    while let Ok(message) = receiver.try_recv() {
                        tracks.take(message, options)?;
                    }
                    tracks.announce()?;
                    if let Some(end) = at_end(managed, tracks, options).await? {
                        return Ok(end);
                    }
                    tracks.hub.restart_clock();
                }
                Some(PipelineMessage::Element(_)) => {}
                None => return Err(SourceError::Ended),
            },
            () = tokio::time::sleep_until(deadline), if announce_by.is_some() && !tracks.announced => {
                tracks.announce()?;
            }
        }
    }
}

/// What to do at the end: `None` to go on from the start.
async fn at_end(
    managed: &ManagedPipeline,
    tracks: &TrackSet<'_>,
    options: &GstOptions,
) -> Result<Option<SourceEnd>, SourceError> {
    if tracks.pads.is_empty() {
        return Err(tracks.nothing_found(options));
    }
    let Some(pipeline) = managed.get().cloned() else {
        return Ok(Some(SourceEnd::Finished));
    };
    if options.looped {
        let seek = tokio::task::spawn_blocking(move || {
            // Running time begins anew with a seek. The clock does not, and nothing sets one by the other where sinks wait for nothing
            // to start: all that comes would be late, and be let out at once.
            if let Some(now) = pipeline.clock().map(|clock| clock.time()) {
                pipeline.set_base_time(now);
                for element in pipeline.iterate_recurse().into_iter().flatten() {
                    element.set_base_time(now);
                }
            }
            pipeline.seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT, gst::ClockTime::ZERO)
        });
        return match tokio::time::timeout(options.timeout, seek).await {
            Ok(Ok(Ok(()))) => Ok(None),
            _ => {
                Err(SourceError::Other(format!("{} cannot be played from the start again", options.address)))
            }
        };
    }
    let has_length = pipeline.query_duration::<gst::ClockTime>().is_some_and(|d| d > gst::ClockTime::ZERO);
    if options.may_end || has_length { Ok(Some(SourceEnd::Finished)) } else { Err(SourceError::Ended) }
}

/// GStreamer's error in the words of [`SourceError`].
fn said_by_element(error: PipelineError, options: &GstOptions) -> SourceError {
    use crate::pipeline::ErrorCause;
    let address = options.address.clone();
    let PipelineError::Element { message, cause, .. } = &error else {
        return error.into();
    };
    match cause {
        ErrorCause::NotAuthorized => SourceError::Unauthorized { address },
        ErrorCause::NotFound if address.starts_with("file:") => {
            SourceError::File { path: address, problem: message.clone() }
        }
        ErrorCause::NotFound => SourceError::NotFound { address },
        ErrorCause::Open => SourceError::Connect { address, problem: message.clone() },
        ErrorCause::NoMedia => {
            SourceError::UnsupportedCodecs { address, codecs: message.clone(), supported: SUPPORTED_CODECS }
        }
        _ => error.into(),
    }
}

/// The tracks found so far, and the frames that wait until all are known.
struct TrackSet<'a> {
    hub: &'a HubWriter,
    pads: Vec<PadTrack>,
    complete: bool,
    announced: bool,
    order: Vec<usize>,
    waiting: VecDeque<(usize, RawFrame)>,
    unsupported: Vec<String>,
}

#[derive(Default)]
struct PadTrack {
    parameters: Option<CodecParameters>,
    track: Option<u32>,
}

impl<'a> TrackSet<'a> {
    fn new(hub: &'a HubWriter) -> Self {
        Self {
            hub,
            pads: Vec::new(),
            complete: false,
            announced: false,
            order: Vec::new(),
            waiting: VecDeque::new(),
            unsupported: Vec::new(),
        }
    }

    fn any_known(&self) -> bool {
        self.pads.iter().any(|p| p.parameters.is_some())
    }

    fn take(&mut self, message: Message, options: &GstOptions) -> Result<(), SourceError> {
        match message {
            Message::Pad(index) => self.pads.resize_with(self.pads.len().max(index + 1), PadTrack::default),
            Message::Parameters(index, parameters) => self.learn(index, parameters)?,
            Message::Frame(index, frame) if self.announced => self.write(index, frame)?,
            Message::Frame(index, frame) => {
                if self.waiting.len() == MAX_WAITING {
                    self.waiting.pop_front();
                }
                self.waiting.push_back((index, frame));
            }
            Message::Unsupported(name) => self.unsupported.push(name),
            Message::Complete => {
                self.complete = true;
                if self.pads.is_empty() && !self.unsupported.is_empty() {
                    return Err(self.nothing_found(options));
                }
            }
            Message::Failed(error) => return Err(error.into()),
        }
        if !self.announced
            && self.complete
            && !self.pads.is_empty()
            && self.pads.iter().all(|p| p.parameters.is_some())
        {
            self.announce()?;
        }
        Ok(())
    }

    fn nothing_found(&self, options: &GstOptions) -> SourceError {
        let address = options.address.clone();
        if self.unsupported.is_empty() {
            SourceError::NoTracks { address }
        } else {
            let codecs = self.unsupported.join(", ");
            SourceError::UnsupportedCodecs { address, codecs, supported: SUPPORTED_CODECS }
        }
    }

    fn learn(&mut self, index: usize, parameters: CodecParameters) -> Result<(), SourceError> {
        self.pads.resize_with(self.pads.len().max(index + 1), PadTrack::default);
        let pad = &mut self.pads[index];
        let known = pad.track;
        pad.parameters = Some(parameters.clone());
        match known {
            Some(track) => self.hub.set_parameters(track, parameters)?,
            // A track that turned up late: announced behind the others.
            None if self.announced => self.announce()?,
            None => {}
        }
        Ok(())
    }

    /// Announces what is known: first video, then audio, then data; late ones after those.
    fn announce(&mut self) -> Result<(), SourceError> {
        let mut fresh: Vec<usize> = (0..self.pads.len())
            .filter(|i| self.pads[*i].track.is_none() && self.pads[*i].parameters.is_some())
            .collect();
        fresh.sort_by_key(|i| match self.pads[*i].parameters.as_ref().map(CodecParameters::kind) {
            Some(MediaKind::Video) => 0,
            Some(MediaKind::Audio) => 1,
            _ => 2,
        });
        if fresh.is_empty() {
            return Ok(());
        }
        self.order.extend(fresh);
        for (track, index) in (0u32..).zip(&self.order) {
            self.pads[*index].track = Some(track);
        }
        self.hub.set_tracks(self.order.iter().filter_map(|i| self.pads[*i].parameters.clone()));
        self.announced = true;
        for (index, frame) in std::mem::take(&mut self.waiting) {
            self.write(index, frame)?;
        }
        Ok(())
    }

    fn write(&mut self, index: usize, mut frame: RawFrame) -> Result<(), SourceError> {
        if let Some(track) = self.pads.get(index).and_then(|p| p.track) {
            frame.track = track;
            self.hub.push(frame)?;
        }
        Ok(())
    }
}
