//! A stream's frames into GStreamer elements of the user's.
//!
//! For each of the stream's tracks the user gives an element, or none. The frames go into it encoded, as they are, from a keyframe on,
//! with the times of [`share_time`]. When the tracks change the pipeline is made anew. One that fails is made anew, too, after a wait;
//! one that takes too little loses whole GOPs.

use super::{Sink, SinkError};
use crate::backoff::Backoff;
use crate::frame::{Frame, MediaKind, MediaTime, Track, TrackId};
use crate::hub::{HubItem, HubReader};
use crate::pipeline::caps::caps_for;
use crate::pipeline::{
    self, ManagedPipeline, PipelineError, PipelineMessage, buffer_of, make_element, share_time,
};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long a pipeline may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// What may wait for an element; more of a GOP is left out then.
const QUEUE_BYTES: u64 = 16 << 20;
/// The first and the longest wait after a pipeline has failed.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

type Make = dyn FnMut(&Track) -> Result<Option<gst::Element>, PipelineError> + Send;

/// Gives a stream's frames to GStreamer elements; see [`to_pipeline`].
pub struct PipelineSink {
    name: String,
    make: Box<Make>,
}

/// A sink that gives a stream's frames to GStreamer elements. `make` is asked for an element for each track, whenever the tracks are
/// others: what it gives is linked behind the encoded frames. The same element may be given for several tracks (a muxer); none means
/// that the track does not go.
///
/// ```
/// # use stream_manager_core::frame::MediaKind;
/// # use stream_manager_core::manager::Stream;
/// # use stream_manager_core::pipeline::parse_chain;
/// # use stream_manager_core::sink::to_pipeline;
/// # use stream_manager_core::source::TestSource;
/// let brightness = to_pipeline("brightness", |track| match track.parameters.kind() {
///     MediaKind::Video => Ok(Some(parse_chain("decodebin ! videoconvert ! videoanalyse ! fakesink")?.into())),
///     _ => Ok(None),
/// });
/// let stream = Stream::builder("door").source(TestSource::default()).sink(brightness);
/// ```
pub fn to_pipeline(
    name: impl Into<String>,
    make: impl FnMut(&Track) -> Result<Option<gst::Element>, PipelineError> + Send + 'static,
) -> PipelineSink {
    PipelineSink { name: name.into(), make: Box::new(make) }
}

/// A sink through which any GStreamer pipeline of this process gets the stream with this id: `intersrc
/// producer-name=<id>/video`, and `<id>/audio`. That pipeline has to have the same clock and base time;
/// [`share_time`] sees to that.
///
/// ```
/// # use stream_manager_core::manager::Stream;
/// # use stream_manager_core::sink::to_intersrc;
/// # use stream_manager_core::source::TestSource;
/// let stream = Stream::builder("door").source(TestSource::default()).sink(to_intersrc("door"));
/// ```
pub fn to_intersrc(id: impl Into<String>) -> PipelineSink {
    let id = id.into();
    let mut seen = Vec::new();
    to_pipeline("intersink", move |track| {
        let kind = match track.parameters.kind() {
            MediaKind::Video => "video",
            MediaKind::Audio => "audio",
            MediaKind::Data => return Ok(None),
        };
        // The first of each kind; the first track of all begins anew.
        if track.id == TrackId(0) {
            seen.clear();
        }
        if seen.contains(&kind) {
            return Ok(None);
        }
        seen.push(kind);
        let element = make_element("intersink")?;
        element.set_property("producer-name", format!("{id}/{kind}"));
        element.set_property("sync", false);
        Ok(Some(element))
    })
}

/// A pipeline for the tracks of the moment.
struct Built {
    managed: ManagedPipeline,
    bus: mpsc::Receiver<PipelineMessage>,
    inlets: Vec<(TrackId, gst_app::AppSrc)>,
    /// The track whose keyframes one can begin with; none if there is no video.
    video: Option<TrackId>,
    /// What counts as the beginning of the pipeline's time.
    origin: Option<MediaTime>,
    waits_for_keyframe: bool,
    dropped: u64,
}

impl PipelineSink {
    /// None if no track goes.
    fn build(&mut self, tracks: &[Track]) -> Result<Option<Built>, PipelineError> {
        pipeline::init()?;
        let pipeline = gst::Pipeline::new();
        share_time(&pipeline);
        let failed = |e: gst::glib::BoolError| PipelineError::Parse(e.to_string());
        let mut inlets = Vec::new();
        let mut video = None;
        for track in tracks {
            let Some(element) = (self.make)(track)? else { continue };
            let Some(caps) = caps_for(&track.parameters) else { continue };
            let inlet =
                gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).is_live(true).build();
            // What waits is looked after here.
            inlet.set_max_bytes(0);
            pipeline.add(&inlet).map_err(failed)?;
            if element.parent().is_none() {
                pipeline.add(&element).map_err(failed)?;
            }
            inlet.link(&element).map_err(failed)?;
            if track.parameters.kind() == MediaKind::Video {
                video = video.or(Some(track.id));
            }
            inlets.push((track.id, inlet));
        }
        if inlets.is_empty() {
            return Ok(None);
        }
        let (managed, bus) = ManagedPipeline::new(pipeline);
        let waits_for_keyframe = video.is_some();
        Ok(Some(Built { managed, bus, inlets, video, origin: None, waits_for_keyframe, dropped: 0 }))
    }

    async fn start(&mut self, tracks: &[Track]) -> Result<Option<Built>, PipelineError> {
        let Some(mut built) = self.build(tracks)? else { return Ok(None) };
        match built.managed.play(START_TIMEOUT).await {
            Ok(()) => Ok(Some(built)),
            Err(error) => {
                // The element's own words are better.
                let said = built.bus.try_recv().ok().and_then(|m| problem(m).and_then(Result::err));
                built.managed.stop().await;
                Err(said.unwrap_or(error))
            }
        }
    }
}

/// What a message means: that the pipeline has ended, or failed.
fn problem(message: PipelineMessage) -> Option<Result<(), PipelineError>> {
    match message {
        PipelineMessage::Eos => Some(Ok(())),
        PipelineMessage::Error(error) => Some(Err(error)),
        PipelineMessage::Element(_) => None,
    }
}

impl Built {
    /// Says whether it takes more.
    fn push(&mut self, frame: &Frame) -> bool {
        let Some((_, inlet)) = self.inlets.iter().find(|(track, _)| *track == frame.track) else {
            return true;
        };
        let sync = frame.keyframe && self.video.is_none_or(|video| video == frame.track);
        if self.waits_for_keyframe {
            if !sync {
                self.dropped += u64::from(self.origin.is_some());
                return true;
            }
            self.waits_for_keyframe = false;
        }
        let waiting: u64 = self.inlets.iter().map(|(_, inlet)| inlet.current_level_bytes()).sum();
        if waiting > QUEUE_BYTES {
            self.waits_for_keyframe = true;
            self.dropped += 1;
            return true;
        }
        let origin = *self.origin.get_or_insert_with(|| {
            let now = self.managed.get().and_then(gst::Pipeline::current_running_time).unwrap_or_default();
            frame.dts - Duration::from(now)
        });
        if frame.dts < origin {
            return true;
        }
        inlet.push_buffer(buffer_of(frame, origin)).is_ok()
    }

    /// Lets the elements finish what they have begun.
    async fn finish(mut self) {
        for (_, inlet) in &self.inlets {
            // Refused only if the pipeline is down already.
            let _ = inlet.end_of_stream();
        }
        let ended =
            async { while self.bus.recv().await.is_some_and(|message| problem(message).is_none()) {} };
        // One that does not end is stopped.
        let _ = tokio::time::timeout(pipeline::STOP_TIMEOUT, ended).await;
        self.managed.stop().await;
    }
}

async fn message(built: &mut Option<Built>) -> Option<PipelineMessage> {
    match built {
        Some(built) => built.bus.recv().await,
        None => std::future::pending().await,
    }
}

#[async_trait::async_trait]
impl Sink for PipelineSink {
    async fn run(&mut self, mut reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
        let mut tracks: Arc<[Track]> = Arc::new([]);
        let mut built: Option<Built> = None;
        let mut backoff = Backoff::between(WAITS.0, WAITS.1);
        let mut retry: Option<tokio::time::Instant> = None;
        loop {
            let again = async {
                match retry {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let mut failure = None;
            tokio::select! {
                () = cancel.cancelled() => break,
                said = message(&mut built) => match said.and_then(problem) {
                    // The user's pipeline is done.
                    Some(Ok(())) => break,
                    Some(Err(error)) => failure = Some(error),
                    None => {}
                },
                () = again => {
                    retry = None;
                    match self.start(&tracks).await {
                        Ok(pipeline) => built = pipeline,
                        Err(error) => failure = Some(error),
                    }
                }
                item = reader.next() => match item {
                    None => break,
                    Some(HubItem::Tracks(new)) => {
                        if let Some(old) = built.take() {
                            old.finish().await;
                        }
                        tracks = new;
                        retry = (!tracks.is_empty()).then(tokio::time::Instant::now);
                    }
                    Some(HubItem::Frame(frame)) => {
                        if let Some(built) = &mut built && built.push(&frame) {
                            backoff.reset();
                        }
                    }
                    Some(HubItem::Discontinuity | HubItem::Lagged { .. }) => {
                        if let Some(built) = &mut built {
                            built.waits_for_keyframe = built.video.is_some();
                        }
                    }
                    Some(HubItem::Input(_)) => {}
                },
            }
            if let Some(error) = failure {
                let wait = backoff.next();
                tracing::warn!(sink = self.name, %error, ?wait, "a sink's pipeline has failed and is made anew");
                if let Some(old) = built.take() {
                    old.managed.stop().await;
                }
                retry = Some(tokio::time::Instant::now() + wait);
            }
        }
        if let Some(built) = built {
            if built.dropped > 0 {
                tracing::info!(
                    sink = self.name,
                    frames = built.dropped,
                    "frames were left out, its pipeline was too slow"
                );
            }
            built.finish().await;
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
