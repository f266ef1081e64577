//! Pictures of a recording made anew: decoded, chosen, shown at another time, written on, and encoded again.
//!
//! One pipeline does it. What goes in waits for room; what comes out waits to be taken. Pictures are told apart by their times, which
//! decoders keep, and come out of the encoder in the order in which they went in, since it makes no B frames.

use crate::frame::{CodecParameters, Frame, MediaTime, WallTime};
use crate::pipeline::caps::{caps_for, parameters};
use crate::pipeline::encoder::{self, Encoding};
use crate::pipeline::{
    ErrorCause, ManagedPipeline, PipelineError, PipelineMessage, buffer_of, init, link_first, make_element,
    parse_chain,
};
use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Frames that may wait to be decoded.
const MAX_WAITING: u64 = 16;
/// Frames that a decoder may hold, and the queue in front of it.
const MAX_HELD: usize = 256;
/// Encoded pictures that may wait to be taken.
const MAX_MADE: usize = 32;
/// How long starting may take.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long nothing may come out at the end, or there may be no room.
const SILENCE: Duration = Duration::from_secs(60);

/// A picture by when it is shown: in time of the plan, and in the world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) pts: MediaTime,
    pub(super) wall: WallTime,
}

/// An encoded picture.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) pts: MediaTime,
    pub(super) wall: WallTime,
    pub(super) keyframe: bool,
    pub(super) data: Bytes,
    pub(super) parameters: Arc<CodecParameters>,
}

/// Whether a picture stays, and when it is shown then.
pub(super) type Decide = Box<dyn FnMut(Shown) -> Option<MediaTime> + Send>;
/// What is written on a picture.
pub(super) type Caption = Box<dyn Fn(WallTime) -> String + Send + Sync>;

/// What encodes.
pub(super) enum Encode {
    /// What raw video is encoded by.
    Usual(Encoding),
    /// This line.
    Line(String),
}

/// How pictures are made anew.
pub(super) struct RecodeOptions {
    pub(super) decide: Decide,
    pub(super) caption: Option<Caption>,
    pub(super) encode: Encode,
}

/// What the threads of the pipeline share.
struct Ways {
    /// What is being decoded.
    coming: Mutex<VecDeque<Shown>>,
    /// What is being encoded.
    going: Mutex<VecDeque<Shown>>,
}

pub(super) struct Recode {
    source: gst_app::AppSrc,
    // Dropped before the pipeline: a thread of it that waits for room ends then.
    made: mpsc::Receiver<Option<Made>>,
    ready: VecDeque<Made>,
    bus: mpsc::Receiver<PipelineMessage>,
    managed: Option<ManagedPipeline>,
    room: Arc<Notify>,
    ways: Arc<Ways>,
    origin: MediaTime,
    /// The encoder, if that is hardware.
    hardware: Option<&'static str>,
}

fn failed(problem: impl ToString) -> PipelineError {
    PipelineError::Element {
        element: "export".into(),
        message: problem.to_string(),
        cause: ErrorCause::Other,
    }
}

impl Recode {
    /// Starts with this as the first frame to come.
    pub(super) async fn start(first: &Frame, options: RecodeOptions) -> Result<Self, PipelineError> {
        init()?;
        let caps = caps_for(&first.parameters).ok_or_else(|| failed("this codec cannot be decoded"))?;
        // Pictures may be shown earlier than they are decoded.
        let origin = first.dts.min(first.pts) - Duration::from_secs(1);
        let room = Arc::new(Notify::new());
        let notify = room.clone();
        let source = gst_app::AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .max_buffers(MAX_WAITING)
            .callbacks(gst_app::AppSrcCallbacks::builder().need_data(move |_, _| notify.notify_one()).build())
            .build();
        let ways = Arc::new(Ways { coming: Mutex::default(), going: Mutex::default() });
        let (decoder, gate) = (make_element("decodebin")?, make_element("identity")?);
        let overlay = match &options.caption {
            Some(_) => Some(make_element("textoverlay")?),
            None => None,
        };
        if let Some(overlay) = &overlay {
            for (name, value) in [
                ("valignment", "top"),
                ("halignment", "left"),
                ("font-desc", "Sans 14"),
                ("shaded-background", "true"),
            ] {
                overlay.set_property_from_str(name, value);
            }
        }
        let (encoder, hardware): (gst::Element, _) = match options.encode {
            Encode::Usual(encoding) => {
                let made = encoder::make(encoding, ("queue", "queue"))?;
                (made.bin.upcast(), made.hardware)
            }
            Encode::Line(line) => (parse_chain(&line)?.upcast(), None),
        };
        let (sender, made) = mpsc::channel(MAX_MADE);
        let sink = sink(ways.clone(), sender);
        let pipeline = gst::Pipeline::new();
        let add = |element: &gst::Element| pipeline.add(element).map_err(failed);
        [source.upcast_ref(), &decoder, &gate, &encoder, sink.upcast_ref()].into_iter().try_for_each(add)?;
        source.link(&decoder).map_err(failed)?;
        match &overlay {
            Some(overlay) => {
                let convert = make_element("videoconvert")?;
                add(&convert)?;
                add(overlay)?;
                gst::Element::link_many([&convert, &gate, overlay, &encoder, sink.upcast_ref()])
                    .map_err(failed)?;
                link_first(&decoder, &convert);
            }
            None => {
                gst::Element::link_many([&gate, &encoder, sink.upcast_ref()]).map_err(failed)?;
                link_first(&decoder, &gate);
            }
        }
        let (decide, caption) = (Mutex::new(options.decide), options.caption);
        let (shared, weak) = (ways.clone(), overlay.as_ref().map(ObjectExt::downgrade));
        let pad = gate.static_pad("src").ok_or_else(|| failed("no pad"))?;
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let Some(buffer) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
            let pts = buffer.pts().map(|pts| origin + Duration::from_nanos(pts.nseconds()));
            let Some(shown) = pts.and_then(|pts| shared.came(pts)) else { return gst::PadProbeReturn::Drop };
            let Some(at) = (*decide.lock())(shown) else { return gst::PadProbeReturn::Drop };
            if let (Some(caption), Some(overlay)) =
                (&caption, weak.as_ref().and_then(gst::glib::WeakRef::upgrade))
            {
                // It takes markup.
                overlay.set_property("text", gst::glib::markup_escape_text(&caption(shown.wall)).as_str());
            }
            let buffer = buffer.make_mut();
            buffer.set_pts(gst::ClockTime::try_from(at.saturating_since(origin)).ok());
            buffer.set_dts(None);
            shared.going.lock().push_back(Shown { pts: at, wall: shown.wall });
            gst::PadProbeReturn::Ok
        });
        let (managed, bus) = ManagedPipeline::new(pipeline);
        let this = Self {
            source,
            made,
            ready: VecDeque::new(),
            bus,
            managed: Some(managed),
            room,
            ways,
            origin,
            hardware,
        };
        if let Some(managed) = &this.managed {
            managed.play(START_TIMEOUT).await?;
        }
        Ok(this)
    }

    /// Puts a frame in, once there is room, that is shown in the world at this time.
    pub(super) async fn push(&mut self, frame: &Frame, wall: WallTime) -> Result<(), PipelineError> {
        while self.source.current_level_buffers() >= MAX_WAITING {
            let (source, room) = (self.source.clone(), self.room.clone());
            tokio::select! {
                () = room.notified() => {}
                made = self.made.recv() => self.ready.extend(made.flatten()),
                message = self.bus.recv() => said(message).inspect_err(|_| self.distrust())?,
                () = tokio::time::sleep(SILENCE) => {
                    let _ = source.end_of_stream();
                    return Err(PipelineError::Timeout { state: "the next picture", timeout: SILENCE });
                }
            }
        }
        {
            let mut coming = self.ways.coming.lock();
            if coming.len() >= MAX_HELD {
                coming.pop_front();
            }
            coming.push_back(Shown { pts: frame.pts, wall });
        }
        self.source
            .push_buffer(buffer_of(frame, self.origin))
            .map_err(|_| failed("the decoder takes nothing"))?;
        while let Ok(made) = self.made.try_recv() {
            self.ready.extend(made);
        }
        Ok(())
    }

    /// It has failed: if hardware encodes, whoever comes next is served by another encoder.
    fn distrust(&self) {
        if let Some(hardware) = self.hardware {
            encoder::distrust(hardware);
        }
    }

    /// What has been made so far.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Made> + '_ {
        self.ready.drain(..)
    }

    /// Waits for what is still being made.
    pub(super) async fn finish(mut self) -> Result<VecDeque<Made>, PipelineError> {
        let _ = self.source.end_of_stream();
        let result = loop {
            tokio::select! {
                biased;
                made = self.made.recv() => match made {
                    Some(Some(made)) => self.ready.push_back(made),
                    Some(None) | None => break Ok(()),
                },
                message = self.bus.recv() => if let Err(error) = said(message) {
                    self.distrust();
                    break Err(error);
                },
                () = tokio::time::sleep(SILENCE) => {
                    break Err(PipelineError::Timeout { state: "the last picture", timeout: SILENCE });
                }
            }
        };
        self.made.close();
        if let Some(managed) = self.managed.take() {
            managed.stop().await;
        }
        result.map(|()| self.ready)
    }
}

fn said(message: Option<PipelineMessage>) -> Result<(), PipelineError> {
    match message {
        Some(PipelineMessage::Error(error)) => Err(error),
        _ => Ok(()),
    }
}

impl Ways {
    /// The picture of this time, which has been decoded.
    fn came(&self, pts: MediaTime) -> Option<Shown> {
        let mut coming = self.coming.lock();
        let at = coming.iter().position(|shown| shown.pts == pts)?;
        coming.remove(at)
    }
}

/// Gives what is encoded to whoever takes it.
fn sink(ways: Arc<Ways>, sender: mpsc::Sender<Option<Made>>) -> gst_app::AppSink {
    let last = sender.clone();
    let known: Mutex<Option<(gst::Caps, Arc<CodecParameters>)>> = Mutex::default();
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let (buffer, caps) = sample.buffer().zip(sample.caps()).ok_or(gst::FlowError::Error)?;
            let data = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            let mut known = known.lock();
            let parameters = match &*known {
                Some((before, parameters)) if *before == *caps => parameters.clone(),
                _ => {
                    let made = parameters(caps, &data).map_err(|problem| {
                        gst::element_error!(sink, gst::StreamError::Format, ("{problem}"));
                        gst::FlowError::NotNegotiated
                    })?;
                    let made = Arc::new(made);
                    *known = Some((caps.to_owned(), made.clone()));
                    made
                }
            };
            let shown = ways.going.lock().pop_front().ok_or(gst::FlowError::Error)?;
            let made = Made {
                pts: shown.pts,
                wall: shown.wall,
                keyframe: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                data: Bytes::copy_from_slice(&data),
                parameters,
            };
            // Waits until there is room; whoever took it may be gone.
            sender.blocking_send(Some(made)).map_err(|_| gst::FlowError::Eos)?;
            Ok(gst::FlowSuccess::Ok)
        })
        .eos(move |_| {
            let _ = last.blocking_send(None);
        })
        .build();
    gst_app::AppSink::builder().sync(false).callbacks(callbacks).build()
}
