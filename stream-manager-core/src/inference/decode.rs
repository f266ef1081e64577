//! From a stream's frames to pictures, by whatever decoder GStreamer prefers: one of the hardware if there is one, else
//! one of libav. What goes in is bounded; what comes out is handed on at once.

use super::InferenceError;
use super::picture::Picture;
use crate::frame::{CodecParameters, Frame, MediaTime, WallTime};
use crate::pipeline::caps::caps_for;
use crate::pipeline::{
    ErrorCause, ManagedPipeline, PipelineError, PipelineMessage, buffer_of, check_decoder, link_first,
    make_element,
};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// Frames that may wait to be decoded.
const MAX_WAITING: u64 = 8;
/// Frames that a decoder may hold: more than any codec reorders.
const MAX_HELD: usize = 64;
/// How long starting may take.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// When a frame arrived, by its time.
#[derive(Clone, Copy)]
struct Arrival {
    pts: MediaTime,
    time: WallTime,
    at: Instant,
}

/// Which pictures are wanted: so many in a second, by their times.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    due: Option<MediaTime>,
}

impl Pace {
    pub(super) fn new(per_second: f64) -> Self {
        Self { interval: interval(per_second), due: None }
    }

    /// All of them.
    fn all() -> Self {
        Self { interval: Duration::ZERO, due: None }
    }

    pub(super) fn set(&mut self, per_second: f64) {
        let interval = interval(per_second);
        if interval != self.interval {
            (self.interval, self.due) = (interval, None);
        }
    }

    /// The same without counting it.
    pub(super) fn would_want(&self, pts: MediaTime) -> bool {
        Self { interval: self.interval, due: self.due }.wants(pts)
    }

    /// Whether a picture of this time is wanted.
    pub(super) fn wants(&mut self, pts: MediaTime) -> bool {
        // Cameras are not exact: what comes a little early is on time.
        let slack = self.interval / 8;
        match self.due {
            // Time that has gone back is another stream's.
            Some(due) if pts + slack < due && due.saturating_since(pts) <= self.interval * 2 => false,
            Some(due) if pts + slack >= due && pts.saturating_since(due) < self.interval => {
                self.due = Some(due + self.interval);
                true
            }
            _ => {
                self.due = Some(pts + self.interval);
                true
            }
        }
    }
}

fn interval(per_second: f64) -> Duration {
    Duration::try_from_secs_f64(1.0 / per_second.clamp(1e-4, 1000.0)).unwrap_or(Duration::from_secs(1))
}

/// Decodes one track.
pub(super) struct Decoder {
    source: gst_app::AppSrc,
    pipeline: ManagedPipeline,
    bus: mpsc::Receiver<PipelineMessage>,
    arrivals: Arc<Mutex<VecDeque<Arrival>>>,
    room: Arc<Notify>,
    /// The time that GStreamer calls zero; known with the first frame.
    origin: Arc<OnceLock<MediaTime>>,
}

impl Decoder {
    /// Starts a decoder. Its pictures are given to `take` on a thread of GStreamer's: that should be done soon.
    pub(super) async fn start(
        parameters: &CodecParameters,
        pace: Arc<Mutex<Pace>>,
        take: impl Fn(Picture) + Send + Sync + 'static,
    ) -> Result<Self, InferenceError> {
        crate::pipeline::init()?;
        let caps = caps_for(parameters).ok_or_else(|| failed("this codec cannot be decoded"))?;
        check_decoder(&caps)?;
        let arrivals: Arc<Mutex<VecDeque<Arrival>>> = Arc::default();
        let origin: Arc<OnceLock<MediaTime>> = Arc::default();
        let room = Arc::new(Notify::new());
        let notify = room.clone();
        let source = gst_app::AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .is_live(true)
            .max_buffers(MAX_WAITING)
            .callbacks(gst_app::AppSrcCallbacks::builder().need_data(move |_, _| notify.notify_one()).build())
            .build();
        let (known, begun) = (arrivals.clone(), origin.clone());
        let sink = picture_sink(false, move |sample| {
            let pts = sample.buffer().and_then(|b| b.pts()).map_or(0, gst::ClockTime::nseconds);
            let pts = begun.get().copied().unwrap_or_default() + Duration::from_nanos(pts);
            let arrival = arrival_of(&mut known.lock(), pts);
            if !pace.lock().wants(pts) {
                return Ok(());
            }
            let mut picture = Picture::from_sample(sample)?;
            picture.pts = pts;
            if let Some(arrival) = arrival {
                (picture.time, picture.arrived) = (arrival.time, arrival.at);
            }
            take(picture);
            Ok(())
        });
        let pipeline = gst::Pipeline::new();
        let decoder = make_element("decodebin")?;
        modest(&decoder);
        let tail = tail(&pipeline, &sink)?;
        pipeline.add_many([source.upcast_ref(), &decoder]).map_err(|e| failed(e.to_string()))?;
        source.link(&decoder).map_err(|e| failed(e.to_string()))?;
        link_first(&decoder, &tail);
        let (pipeline, bus) = ManagedPipeline::new(pipeline);
        pipeline.play(START_TIMEOUT).await?;
        Ok(Self { source, pipeline, bus, arrivals, room, origin })
    }

    /// To wait with until another frame may be put in.
    pub(super) fn room(&self) -> Room {
        Room { source: self.source.clone(), room: self.room.clone() }
    }

    /// Puts a frame in. With `alone` its picture is wanted before the next frame comes.
    pub(super) fn push(&mut self, frame: &Frame, alone: bool) {
        // Before the first frame: pictures may be shown earlier than they are decoded.
        let origin = *self.origin.get_or_init(|| frame.dts.min(frame.pts) - Duration::from_secs(1));
        let relative = |time: MediaTime| gst::ClockTime::try_from(time.saturating_since(origin)).ok();
        {
            let mut arrivals = self.arrivals.lock();
            if arrivals.len() >= MAX_HELD {
                arrivals.pop_front();
            }
            let time = frame.ntp.unwrap_or(frame.wall_clock);
            let waited = WallTime::now().saturating_since(frame.wall_clock);
            let at = Instant::now().checked_sub(waited).unwrap_or_else(Instant::now);
            arrivals.push_back(Arrival { pts: frame.pts, time, at });
        }
        // It refuses only when it is ending, of which its bus tells.
        if self.source.push_buffer(buffer_of(frame, origin)).is_ok() && alone {
            // A gap makes a decoder give out what it holds for reordering.
            let gap = gst::event::Gap::builder(relative(frame.pts).unwrap_or(gst::ClockTime::ZERO))
                .duration(gst::ClockTime::from_mseconds(1))
                .build();
            self.source.send_event(gap);
        }
    }

    /// The error that ends it. Cancel safe.
    pub(super) async fn error(&mut self) -> InferenceError {
        loop {
            match self.bus.recv().await {
                Some(PipelineMessage::Error(error)) => return error.into(),
                Some(PipelineMessage::Eos) | None => return failed("the decoder has ended").into(),
                Some(PipelineMessage::Element(_)) => {}
            }
        }
    }

    pub(super) async fn stop(self) {
        self.pipeline.stop().await;
    }
}

/// Decodes all pictures of one track of a live stream.
pub struct LiveDecoder {
    decoder: Decoder,
}

impl LiveDecoder {
    /// Starts a decoder. Its pictures are given to `take` on a thread of GStreamer's: that should be done soon.
    ///
    /// # Errors
    /// If nothing that is installed decodes this; names the package that would.
    pub async fn start(
        parameters: &CodecParameters,
        take: impl Fn(Picture) + Send + Sync + 'static,
    ) -> Result<Self, InferenceError> {
        let pace = Arc::new(Mutex::new(Pace::all()));
        Ok(Self { decoder: Decoder::start(parameters, pace, take).await? })
    }

    /// Puts a frame in, when there is room for it.
    pub async fn push(&mut self, frame: &Frame) {
        self.decoder.room().wait().await;
        self.decoder.push(frame, false);
    }

    /// Ends it.
    pub async fn stop(self) {
        self.decoder.stop().await;
    }
}

/// See [`Decoder::room`].
pub(super) struct Room {
    source: gst_app::AppSrc,
    room: Arc<Notify>,
}

impl Room {
    pub(super) async fn wait(&self) {
        while self.source.current_level_buffers() >= MAX_WAITING {
            self.room.notified().await;
        }
    }
}

fn arrival_of(arrivals: &mut VecDeque<Arrival>, pts: MediaTime) -> Option<Arrival> {
    // GStreamer's decoders keep times as they are.
    let at = arrivals.iter().position(|a| a.pts == pts)?;
    arrivals.remove(at)
}

pub(super) fn failed(message: impl Into<String>) -> PipelineError {
    PipelineError::Element { element: "decoder".into(), message: message.into(), cause: ErrorCause::Other }
}

/// A sink for pictures in a format that is understood. With `waits` the decoder waits for whoever takes them.
pub(super) fn picture_sink(
    waits: bool,
    take: impl Fn(&gst::Sample) -> Result<(), InferenceError> + Send + Sync + 'static,
) -> gst_app::AppSink {
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            if let Err(error) = take(&sample) {
                tracing::debug!(%error, "a decoder's picture cannot be used");
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    let caps = gst::Caps::builder("video/x-raw").field("format", gst::List::new(["I420", "NV12"])).build();
    let sink =
        gst_app::AppSink::builder().sync(false).caps(&caps).callbacks(callbacks).max_buffers(2).build();
    sink.set_property("async", waits);
    sink
}

/// What is behind a decoder; gives the element that it is linked to.
pub(super) fn tail(pipeline: &gst::Pipeline, sink: &gst_app::AppSink) -> Result<gst::Element, PipelineError> {
    let convert = make_element("videoconvert")?;
    pipeline.add_many([&convert, sink.upcast_ref()]).map_err(|e| failed(e.to_string()))?;
    convert.link(sink).map_err(|e| failed(e.to_string()))?;
    Ok(convert)
}

/// One thread for each stream: many of them share the cores, and every further one holds back pictures.
fn modest(decoder: &gst::Element) {
    let Some(bin) = decoder.downcast_ref::<gst::Bin>() else { return };
    bin.connect_deep_element_added(|_, _, element| {
        if element.find_property("max-threads").is_some() && element.type_().name().starts_with("avdec") {
            element.set_property_from_str("max-threads", "1");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(per_second: f64, times_ms: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut pace = Pace::new(per_second);
        times_ms.into_iter().filter(|ms| pace.wants(MediaTime::from_nanos(ms * 1_000_000))).collect()
    }

    #[test]
    fn so_many_in_a_second() {
        assert_eq!(wanted(5.0, (0..25).map(|i| i * 40)), [0, 200, 400, 600, 800]);
        // 12.5 frames, 5 wanted: alternately every second and every third.
        assert_eq!(wanted(5.0, (0..13).map(|i| i * 80)).len(), 5);
        assert_eq!(wanted(100.0, (0..10).map(|i| i * 40)).len(), 10);
        // A gap is not made up for, and a clock that goes back does not stop it.
        assert_eq!(wanted(1.0, [0, 5000, 5040, 6000]), [0, 5000, 6000]);
        assert_eq!(wanted(1.0, [10_000, 0, 40, 1000]), [10_000, 0, 1000]);
    }
}
