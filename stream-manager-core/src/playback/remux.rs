//! Recordings in other containers: MPEG-TS and Matroska, made while they are sent, nothing encoded anew.
//!
//! A plan's bytes go into GStreamer's demuxer as they would be sent, and out of a muxer. How fast is up to whoever takes them: the muxer
//! waits when a few pieces wait, and then nothing more is read.

use super::plan::Plan;
use super::read::PlanReader;
use crate::pipeline::{
    ErrorCause, ManagedPipeline, PipelineError, PipelineMessage, init, make_element, parse_pipeline,
};
use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long starting may take.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing may come out while somebody waits for it: the disk may be slow.
const SILENCE: Duration = Duration::from_secs(30);
/// How often it is looked how far a file is.
const LOOK: Duration = Duration::from_millis(100);
/// Pieces that may wait to be taken.
const WAITING: usize = 8;
/// Muxers give out small pieces, which are sent together.
const PIECE_BYTES: usize = 64 << 10;
/// What a track may be ahead of another, which comes behind it in a file.
const AHEAD_BYTES: u32 = 64 << 20;

/// A container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// MPEG transport stream.
    Ts,
    /// Matroska.
    Mkv,
}

/// A plan in another container.
pub struct Remux {
    // Dropped first: a muxer that waits for it to be taken ends then.
    pieces: mpsc::Receiver<Bytes>,
    bus: mpsc::Receiver<PipelineMessage>,
    managed: Option<ManagedPipeline>,
}

fn failed(problem: impl ToString) -> PipelineError {
    PipelineError::Element { element: "remux".into(), message: problem.to_string(), cause: ErrorCause::Other }
}

/// The way of one track from the demuxer into the muxer. Tracks that it does not hold are left out.
fn connect(pipeline: &gst::Pipeline, mux: &gst::Element, pad: &gst::Pad, container: Container) -> Option<()> {
    let caps = pad.current_caps()?;
    let media = caps.structure(0)?.name();
    let parser = match (media.as_str(), container) {
        ("video/x-h264", Container::Ts) => "h264parse",
        ("video/x-h265", Container::Ts) => "h265parse",
        _ => "identity",
    };
    let kind = match container {
        Container::Ts => "sink_%d",
        Container::Mkv if media.starts_with("audio/") => "audio_%u",
        Container::Mkv => "video_%u",
    };
    // A parser makes of it what is taken; as it is, it has to fit.
    let template = mux.pad_template(kind)?;
    if parser == "identity" && !template.caps().can_intersect(&caps) {
        return None;
    }
    let parser = make_element(parser).ok()?;
    if parser.has_property("config-interval") {
        parser.set_property("config-interval", -1i32);
    }
    let queue = gst::ElementFactory::make("queue")
        .property("max-size-buffers", 0u32)
        .property("max-size-bytes", AHEAD_BYTES)
        .property("max-size-time", 0u64)
        .build()
        .ok()?;
    pipeline.add_many([&queue, &parser]).ok()?;
    queue.link(&parser).ok()?;
    let into = mux.request_pad(&template, None, None)?;
    let source = parser.static_pad("src")?;
    if container == Container::Mkv {
        keep_caps(&source);
    }
    source.link(&into).ok()?;
    queue.sync_state_with_parent().ok()?;
    parser.sync_state_with_parent().ok()?;
    pad.link(&queue.static_pad("sink")?).ok().map(drop)
}

/// Lets only the first caps through. Matroska takes no others once it has begun, and a demuxer guesses another rate of frames where one is
/// missing; one head says how all of a plan is encoded, so nothing else can change.
fn keep_caps(pad: &gst::Pad) {
    let seen = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let is_caps = info.event().is_some_and(|event| event.type_() == gst::EventType::Caps);
        if is_caps && seen.swap(true, Ordering::Relaxed) {
            // Not Drop: the event is let go of here, and GStreamer would let go of it once more.
            gst::PadProbeReturn::Handled
        } else {
            gst::PadProbeReturn::Ok
        }
    });
}

/// A pipeline that reads a plan into a muxer and what is behind it, the last element of which is called `out`; gives both.
fn read_into(
    plan: Arc<Plan>,
    container: Container,
    behind: &str,
) -> Result<(gst::Pipeline, gst::Element), PipelineError> {
    init()?;
    let line = format!("appsrc name=in format=bytes max-bytes=1048576 ! qtdemux name=demux {behind}");
    let pipeline = parse_pipeline(&line)?;
    let element = |name: &str| pipeline.by_name(name).ok_or_else(|| failed(format!("no element {name}")));
    let (source, sink) = (element("in")?, element("out")?);
    let (demux, mux) = (element("demux")?, element("mux")?);
    let source = source.downcast::<gst_app::AppSrc>().map_err(|_| failed("no source"))?;
    let length = plan.length_bytes();
    let reader = Mutex::new(PlanReader::new(plan, 0..length));
    // On the source's own thread, which has nothing else to do.
    source.set_callbacks(
        gst_app::AppSrcCallbacks::builder()
            .need_data(move |source, _| {
                let next = reader.lock().read();
                let ended = match next {
                    Ok(Some(data)) => source.push_buffer(gst::Buffer::from_slice(data)).is_err(),
                    Ok(None) => true,
                    Err(error) => {
                        gst::element_error!(source, gst::ResourceError::Read, ("{error}"));
                        false
                    }
                };
                if ended {
                    // It is over for one reason or the other.
                    let _ = source.end_of_stream();
                }
            })
            .build(),
    );
    let (weak, into) = (pipeline.downgrade(), mux.downgrade());
    demux.connect_pad_added(move |_, pad| {
        let (Some(pipeline), Some(mux)) = (weak.upgrade(), into.upgrade()) else { return };
        if connect(&pipeline, &mux, pad, container).is_none() {
            tracing::info!(track = %pad.name(), ?container, "a track is left out");
        }
    });
    Ok((pipeline, sink))
}

/// Gives what a sink gets to whoever takes it, in larger pieces.
fn give(sink: &gst_app::AppSink, sender: mpsc::Sender<Bytes>) {
    let collected = Arc::new(Mutex::new(Vec::with_capacity(PIECE_BYTES * 2)));
    let (rest, last) = (collected.clone(), sender.clone());
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let map = sample.buffer().and_then(|b| b.map_readable().ok()).ok_or(gst::FlowError::Error)?;
                let mut collected = collected.lock();
                collected.extend_from_slice(&map);
                if collected.len() < PIECE_BYTES {
                    return Ok(gst::FlowSuccess::Ok);
                }
                let piece = std::mem::take(&mut *collected);
                // Waits until there is room; whoever took it may be gone.
                sender.blocking_send(piece.into()).map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                let piece = std::mem::take(&mut *rest.lock());
                // An empty one says that this is all.
                for piece in [piece, Vec::new()] {
                    let _ = last.blocking_send(piece.into());
                }
            })
            .build(),
    );
}

/// Writes a plan into a file in another container, with all that only a file can have: its length, and where its keyframes are. `done` is
/// asked now and then whether it is to go on.
///
/// # Errors
/// If GStreamer lacks what is needed for it, a file cannot be read or written, or it was not to go on.
pub(super) async fn remux_into(
    plan: Arc<Plan>,
    container: Container,
    path: &Path,
    mut goes_on: impl FnMut() -> bool,
) -> Result<(), PipelineError> {
    let mux = match container {
        Container::Ts => "mpegtsmux name=mux",
        Container::Mkv => "matroskamux name=mux",
    };
    let (pipeline, sink) = read_into(plan, container, &format!("{mux} ! filesink name=out"))?;
    sink.set_property("location", path);
    let (managed, mut bus) = ManagedPipeline::new(pipeline);
    managed.play(START_TIMEOUT).await?;
    let mut written = (0, Instant::now());
    let result = loop {
        tokio::select! {
            message = bus.recv() => match message {
                Some(PipelineMessage::Error(error)) => break Err(error),
                Some(PipelineMessage::Eos) | None => break Ok(()),
                Some(PipelineMessage::Element(_)) => {}
            },
            () = tokio::time::sleep(LOOK) => {
                if !goes_on() {
                    break Err(failed("it was given up"));
                }
                let name = path.to_owned();
                let size = tokio::task::spawn_blocking(move || std::fs::metadata(name).map_or(0, |m| m.len()));
                let size = size.await.unwrap_or(0);
                if size != written.0 {
                    written = (size, Instant::now());
                } else if written.1.elapsed() > SILENCE {
                    break Err(PipelineError::Timeout { state: "the next piece", timeout: SILENCE });
                }
            }
        }
    };
    managed.stop().await;
    result
}

impl Remux {
    /// Begins. What comes out has no length that is known before.
    ///
    /// # Errors
    /// If GStreamer lacks what is needed for it.
    pub async fn start(plan: Arc<Plan>, container: Container) -> Result<Self, PipelineError> {
        let mux = match container {
            Container::Ts => "mpegtsmux name=mux",
            Container::Mkv => "matroskamux name=mux streamable=true",
        };
        let (pipeline, into) = read_into(plan, container, &format!("{mux} ! appsink name=out sync=false"))?;
        let sink = into.downcast::<gst_app::AppSink>().map_err(|_| failed("no sink"))?;
        let (sender, pieces) = mpsc::channel(WAITING);
        give(&sink, sender);
        let (managed, bus) = ManagedPipeline::new(pipeline);
        let this = Self { pieces, bus, managed: Some(managed) };
        if let Some(managed) = &this.managed {
            managed.play(START_TIMEOUT).await?;
        }
        Ok(this)
    }

    /// The next piece; `None` at the end. May be cancelled.
    ///
    /// # Errors
    /// If a file cannot be read, or nothing can be made of it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PipelineError> {
        loop {
            tokio::select! {
                biased;
                piece = self.pieces.recv() => match piece {
                    Some(piece) if !piece.is_empty() => return Ok(Some(piece)),
                    _ => {
                        self.stop().await;
                        return Ok(None);
                    }
                },
                message = self.bus.recv() => if let Some(PipelineMessage::Error(error)) = message {
                    self.stop().await;
                    return Err(error);
                },
                () = tokio::time::sleep(SILENCE) => {
                    self.stop().await;
                    return Err(PipelineError::Timeout { state: "the next piece", timeout: SILENCE });
                }
            }
        }
    }

    async fn stop(&mut self) {
        self.pieces.close();
        if let Some(managed) = self.managed.take() {
            managed.stop().await;
        }
    }
}
