//! GStreamer pipelines that start and stop in bounded time and speak to async code.
//!
//! GStreamer runs its own threads. [`ManagedPipeline`] keeps that from leaking into the rest: state
//! changes happen on a blocking thread under a time limit, and what the pipeline has to say arrives as
//! [`PipelineMessage`]s on a bounded channel.

pub(crate) mod caps;
mod elements;
pub(crate) mod encoder;
mod picture;
#[cfg(any(feature = "hls", feature = "webrtc"))]
pub(crate) mod sound;
mod srt;

#[cfg(feature = "inference")]
pub(crate) use elements::check_decoder;
pub(crate) use elements::installed;
pub use elements::{ELEMENTS, ElementNeed, GstreamerReport, missing_elements};
pub use picture::PictureOptions;
#[cfg(feature = "http")]
pub(crate) use picture::picture;
pub(crate) use picture::{Encoded, Wanted, decode as decode_pictures, encode as encode_picture, jpeg};
pub(crate) use srt::{listens, set_srt_address};

use crate::frame::{Frame, MediaTime};
/// The bindings that this library's pipelines are made with.
pub use gstreamer as gst;
use gstreamer::prelude::*;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::mpsc;

/// The longest that stopping a pipeline may hold up its owner.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What can go wrong with a pipeline.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// GStreamer itself does not start.
    #[error("GStreamer does not start: {0}")]
    Init(String),
    /// An element is not installed.
    #[error("GStreamer element \"{element}\" is missing; install the package {package}")]
    MissingElement {
        /// The element's name.
        element: String,
        /// The Debian package that holds it.
        package: String,
    },
    /// The launch line cannot be parsed.
    #[error("GStreamer launch line: {0}")]
    Parse(String),
    /// An element reported an error.
    #[error("{element}: {message}")]
    Element {
        /// The element's name.
        element: String,
        /// Its words, without secrets.
        message: String,
        /// What kind of error it is.
        cause: ErrorCause,
    },
    /// A state change did not finish in time.
    #[error("the pipeline did not change to {state} within {timeout:?}")]
    Timeout {
        /// The state asked for.
        state: &'static str,
        /// The limit.
        timeout: Duration,
    },
}

/// The kinds of element errors that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCause {
    /// The resource does not exist.
    NotFound,
    /// Credentials are wrong or missing.
    NotAuthorized,
    /// It could not be opened or connected to.
    Open,
    /// There is no room left.
    NoSpace,
    /// It could not be written to.
    Write,
    /// The data is no media that could be played.
    NoMedia,
    /// Anything else.
    Other,
}

/// Starts GStreamer, once for the process; later calls return the first one's answer.
///
/// # Errors
/// If the installation is broken.
pub fn init() -> Result<(), PipelineError> {
    static STARTED: OnceLock<Result<(), PipelineError>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            gst::init().map_err(|e| PipelineError::Init(e.to_string()))?;
            let failed = |e: gst::glib::BoolError| PipelineError::Init(e.to_string());
            gstrsinter::plugin_register_static().map_err(failed)?;
            gsttogglerecord::plugin_register_static().map_err(failed)
        })
        .clone()
}

/// The clock and the base time that pipelines of this process share: those of the library, and those of the user that tap into them by
/// `intersrc`, which hands buffers on with the times that they have. To be called before the pipeline starts.
///
/// ```
/// # use stream_manager_core::pipeline::{init, parse_pipeline, share_time};
/// # init().unwrap();
/// let pipeline = parse_pipeline("intersrc producer-name=door/video ! h264parse ! fakesink").unwrap();
/// share_time(&pipeline);
/// ```
pub fn share_time(pipeline: &gst::Pipeline) {
    static BASE: OnceLock<gst::ClockTime> = OnceLock::new();
    let clock = gst::SystemClock::obtain();
    let base = *BASE.get_or_init(|| clock.time());
    pipeline.use_clock(Some(&clock));
    pipeline.set_start_time(gst::ClockTime::NONE);
    pipeline.set_base_time(base);
}

/// Makes an element, or says which package has it.
///
/// # Errors
/// If it is not installed.
pub fn make_element(name: &str) -> Result<gst::Element, PipelineError> {
    gst::ElementFactory::make(name).build().map_err(|_| missing(name))
}

/// The error for an element that is not there.
pub(crate) fn missing(name: &str) -> PipelineError {
    let package = elements::package_of(name).unwrap_or("that has it (see gst-inspect-1.0)");
    PipelineError::MissingElement { element: name.to_owned(), package: package.to_owned() }
}

/// Parses a launch line into a pipeline. Its loose ends (source pads that are not linked) stay as they are.
///
/// # Errors
/// If it cannot be parsed, or an element in it is missing.
pub fn parse_pipeline(description: &str) -> Result<gst::Pipeline, PipelineError> {
    let mut context = gst::ParseContext::new();
    let element = gst::parse::launch_full(description, Some(&mut context), gst::ParseFlags::FATAL_ERRORS)
        .map_err(|e| parse_error(&e, &context))?;
    // A single element comes as it is.
    element.downcast().or_else(|element| {
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).map_err(|e| PipelineError::Parse(e.to_string()))?;
        Ok(pipeline)
    })
}

/// Parses a launch line into a bin; all of its loose ends become the bin's own.
///
/// # Errors
/// If it cannot be parsed, or an element in it is missing.
pub fn parse_bin(description: &str) -> Result<gst::Bin, PipelineError> {
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS | gst::ParseFlags::PLACE_IN_BIN;
    // GStreamer itself would make only the first loose end the bin's own.
    let element = gst::parse::bin_from_description_full(description, false, Some(&mut context), flags)
        .map_err(|e| parse_error(&e, &context))?;
    let bin: gst::Bin =
        element.downcast().map_err(|_| PipelineError::Parse("the line makes no bin".into()))?;
    for (number, pad) in loose_pads(&bin, gst::PadDirection::Src).iter().enumerate() {
        add_ghost(&bin, &format!("src_{number}"), pad)?;
    }
    Ok(bin)
}

fn parse_error(error: &gst::glib::Error, context: &gst::ParseContext) -> PipelineError {
    match context.missing_elements().first() {
        Some(element) => missing(element),
        None => PipelineError::Parse(crate::error::redact_unparsed(error.message())),
    }
}

/// The same for a chain with a beginning: its first unlinked sink pad becomes the bin's pad `sink`.
///
/// # Errors
/// As [`parse_bin`].
pub fn parse_chain(description: &str) -> Result<gst::Bin, PipelineError> {
    let bin = parse_bin(description)?;
    if let Some(pad) = loose_pads(&bin, gst::PadDirection::Sink).first() {
        add_ghost(&bin, "sink", pad)?;
    }
    Ok(bin)
}

fn loose_pads(bin: &gst::Bin, direction: gst::PadDirection) -> Vec<gst::Pad> {
    // Children are listed with the newest first.
    bin.children()
        .iter()
        .rev()
        .flat_map(|e| e.pads())
        .filter(|p| p.direction() == direction && !p.is_linked())
        .collect()
}

fn add_ghost(bin: &gst::Bin, name: &str, target: &gst::Pad) -> Result<(), PipelineError> {
    let failed = |e: gst::glib::BoolError| PipelineError::Parse(e.to_string());
    let pad = gst::GhostPad::builder_with_target(target).map_err(failed)?.name(name).build();
    bin.add_pad(&pad).map_err(failed)
}

/// Links the first pad of a decoder that fits to what is behind it, as soon as it is there.
pub(crate) fn link_first(decoder: &gst::Element, behind: &gst::Element) {
    let weak = behind.downgrade();
    decoder.connect_pad_added(move |_, pad| {
        let target = weak.upgrade().and_then(|behind| behind.static_pad("sink"));
        if let Some(target) = target.filter(|target| !target.is_linked()) {
            // A pad of another kind does not link.
            let _ = pad.link(&target);
        }
    });
}

/// A frame for a decoder or a muxer, with its times counted from `origin`.
pub(crate) fn buffer_of(frame: &Frame, origin: MediaTime) -> gst::Buffer {
    let relative = |time: MediaTime| gst::ClockTime::try_from(time.saturating_since(origin)).ok();
    let mut buffer = gst::Buffer::from_slice(frame.data.clone());
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(relative(frame.pts));
        buffer.set_dts(relative(frame.dts));
        if !frame.keyframe {
            buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
    }
    buffer
}

/// What a pipeline says of itself.
#[derive(Clone, Debug)]
pub enum PipelineMessage {
    /// All of its sinks have seen the end.
    Eos,
    /// An element failed; the pipeline is of no use any more.
    Error(PipelineError),
    /// A structure that an element posted, such as `splitmuxsink-fragment-closed`.
    Element(gst::Structure),
}

/// A pipeline with an owner.
#[derive(Debug)]
pub struct ManagedPipeline {
    pipeline: Option<gst::Pipeline>,
}

impl ManagedPipeline {
    /// Takes charge of a pipeline. The receiver holds its last 64 messages; `Eos` and `Error` are never
    /// left out.
    pub fn new(pipeline: gst::Pipeline) -> (Self, mpsc::Receiver<PipelineMessage>) {
        let (sender, receiver) = mpsc::channel(64);
        if let Some(bus) = pipeline.bus() {
            bus.set_sync_handler(move |_, message| {
                if let Some(said) = translate(message) {
                    let important = !matches!(said, PipelineMessage::Element(_));
                    if sender.try_send(said.clone()).is_err() && important {
                        // Full of element messages: this one has to arrive, on GStreamer's own thread.
                        let _ = sender.blocking_send(said);
                    }
                }
                gst::BusSyncReply::Drop
            });
        }
        (Self { pipeline: Some(pipeline) }, receiver)
    }

    /// The pipeline itself.
    pub fn get(&self) -> Option<&gst::Pipeline> {
        self.pipeline.as_ref()
    }

    /// Sets it playing. Live sources finish the change later, errors arrive as messages.
    ///
    /// # Errors
    /// If it fails at once, or does not return in `timeout`.
    pub async fn play(&self, timeout: Duration) -> Result<(), PipelineError> {
        let Some(pipeline) = self.pipeline.clone() else {
            return Ok(());
        };
        let task = tokio::task::spawn_blocking(move || pipeline.set_state(gst::State::Playing));
        match tokio::time::timeout(timeout, task).await {
            Err(_) => Err(PipelineError::Timeout { state: "PLAYING", timeout }),
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(_) => Err(PipelineError::Element {
                element: "pipeline".into(),
                message: "an element refused to start".into(),
                cause: ErrorCause::Other,
            }),
        }
    }

    /// Stops it. Past the time limit the state change goes on by itself on its own thread.
    pub async fn stop(mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            let task = tokio::task::spawn_blocking(move || shut_down(&pipeline));
            if tokio::time::timeout(STOP_TIMEOUT, task).await.is_err() {
                tracing::warn!(timeout = ?STOP_TIMEOUT, "a GStreamer pipeline does not stop; left to itself");
            }
        }
    }
}

fn shut_down(pipeline: &gst::Pipeline) {
    // A change to NULL cannot fail in a way that anything could be done about.
    let _ = pipeline.set_state(gst::State::Null);
    if let Some(bus) = pipeline.bus() {
        bus.unset_sync_handler();
    }
}

impl Drop for ManagedPipeline {
    /// For owners that are dropped in mid-work: stops it on a thread of its own, since this may block.
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            let spawned =
                std::thread::Builder::new().name("gst-stop".into()).spawn(move || shut_down(&pipeline));
            if let Err(error) = spawned {
                tracing::error!(%error, "no thread to stop a GStreamer pipeline on");
            }
        }
    }
}

fn translate(message: &gst::Message) -> Option<PipelineMessage> {
    match message.view() {
        gst::MessageView::Eos(_) => Some(PipelineMessage::Eos),
        gst::MessageView::Error(error) => {
            let element = error.src().map_or_else(|| "pipeline".to_owned(), |src| src.name().to_string());
            let message = crate::error::redact_unparsed(&error.error().to_string());
            let cause = cause_of(&error.error());
            tracing::debug!(%element, %message, debug = error.debug().map(|d| crate::error::redact_unparsed(&d)), "GStreamer error");
            Some(PipelineMessage::Error(PipelineError::Element { element, message, cause }))
        }
        gst::MessageView::Element(element) => {
            element.structure().map(|s| PipelineMessage::Element(s.to_owned()))
        }
        _ => None,
    }
}

fn cause_of(error: &gst::glib::Error) -> ErrorCause {
    use gst::{ResourceError, StreamError};
    match (error.kind::<ResourceError>(), error.kind::<StreamError>()) {
        (Some(ResourceError::NotFound), _) => ErrorCause::NotFound,
        (Some(ResourceError::NotAuthorized), _) => ErrorCause::NotAuthorized,
        (Some(ResourceError::OpenRead | ResourceError::OpenReadWrite), _) => ErrorCause::Open,
        (Some(ResourceError::NoSpaceLeft), _) => ErrorCause::NoSpace,
        (Some(ResourceError::Write | ResourceError::OpenWrite), _) => ErrorCause::Write,
        (
            _,
            Some(
                StreamError::TypeNotFound
                | StreamError::WrongType
                | StreamError::CodecNotFound
                | StreamError::Demux
                | StreamError::Decode,
            ),
        ) => ErrorCause::NoMedia,
        _ => ErrorCause::Other,
    }
}
