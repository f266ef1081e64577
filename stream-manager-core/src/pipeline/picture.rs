//! Pictures of encoded video: the first or the last of a few frames as JPEG, or many small ones.

use super::caps::caps_for;
use super::{ErrorCause, ManagedPipeline, PipelineError, PipelineMessage, make_element, missing};
use crate::frame::{Frame, MediaTime};
#[cfg(feature = "http")]
use crate::{
    frame::MediaKind,
    hub::{Hub, HubItem, ReaderOptions},
};
use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// How long decoding may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More frames than this are not looked at, and no more pictures are made at once.
const MAX_FRAMES: usize = 1500;

/// How a picture is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PictureOptions {
    /// Its width in pixels, if it is to be smaller than it came; the height follows.
    pub width: Option<u32>,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
}

impl Default for PictureOptions {
    /// As large as it came, quality 85.
    fn default() -> Self {
        Self { width: None, quality: 85 }
    }
}

/// What pictures are made from.
pub(crate) enum Encoded {
    /// Frames of one video track, from a keyframe on.
    Frames(Vec<Frame>),
    /// A whole file.
    File(Bytes),
}

/// Which pictures are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    First,
    Last,
    /// All, in RGB, of this size.
    All(u32, u32),
}

fn failed(message: impl Into<String>) -> PipelineError {
    PipelineError::Element { element: "picture".into(), message: message.into(), cause: ErrorCause::Other }
}

/// The first picture of what a hub keeps.
///
/// # Errors
/// If there is no keyframe, no decoder, or it cannot be decoded in time.
#[cfg(feature = "http")]
pub(crate) async fn picture(hub: &Hub) -> Result<Vec<u8>, PipelineError> {
    let mut reader = hub.subscribe("picture", ReaderOptions::default());
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(item) = reader.try_next() {
        let HubItem::Frame(frame) = item else { continue };
        let wanted = frame.parameters.kind() == MediaKind::Video
            && frames.first().map_or(frame.keyframe, |first| first.track == frame.track);
        if wanted && frames.len() < MAX_FRAMES {
            frames.push(frame);
        }
    }
    drop(reader);
    jpeg(Encoded::Frames(frames), Wanted::First, PictureOptions::default()).await
}

/// One picture, as JPEG.
///
/// # Errors
/// If there is no keyframe, no decoder, or it cannot be decoded in time.
pub(crate) async fn jpeg(
    encoded: Encoded,
    wanted: Wanted,
    options: PictureOptions,
) -> Result<Vec<u8>, PipelineError> {
    let made = async {
        let pictures = decode(encoded, wanted).await?;
        let sample = pictures.into_iter().next_back().ok_or_else(|| failed("no picture came out"))?;
        encode(&sample, options).await
    };
    let timeout = PipelineError::Timeout { state: "a picture", timeout: TIMEOUT };
    tokio::time::timeout(TIMEOUT, made).await.unwrap_or(Err(timeout))
}

/// Decodes pictures; each is one sample of raw video.
///
/// # Errors
/// If there is no keyframe, no decoder, or they cannot be decoded.
pub(crate) async fn decode(encoded: Encoded, wanted: Wanted) -> Result<Vec<gst::Sample>, PipelineError> {
    super::init()?;
    let (caps, origin) = match &encoded {
        Encoded::File(_) => (gst::Caps::new_empty_simple("video/quicktime"), MediaTime::ZERO),
        Encoded::Frames(frames) => {
            let first = frames.first().ok_or_else(|| failed("no keyframe has come"))?;
            let caps = caps_for(&first.parameters);
            (caps.ok_or_else(|| failed("this codec cannot be decoded"))?, first.dts)
        }
    };
    // Made only if they are there, so that a missing one is told by its package.
    for element in ["decodebin", "videoconvert", "videoscale", "jpegenc"] {
        if gst::ElementFactory::find(element).is_none() {
            return Err(missing(element));
        }
    }
    let pipeline = gst::Pipeline::new();
    let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).max_bytes(0).build();
    if matches!(encoded, Encoded::File(_)) {
        source.set_format(gst::Format::Bytes);
    }
    let decoder = make_element("decodebin")?;
    let (convert, scale) = (make_element("videoconvert")?, make_element("videoscale")?);
    let raw = match wanted {
        Wanted::All(width, height) => gst::Caps::builder("video/x-raw")
            .field("format", "RGB")
            .field("width", i32::try_from(width).unwrap_or(i32::MAX))
            .field("height", i32::try_from(height).unwrap_or(i32::MAX))
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .build(),
        Wanted::First | Wanted::Last => gst::Caps::new_empty_simple("video/x-raw"),
    };
    // Whoever waits is told of the first one; of the others only the last ones are kept that are wanted.
    let shown: Arc<Mutex<Vec<gst::Sample>>> = Arc::default();
    let (pictures, first) = (shown.clone(), Arc::new(Notify::new()));
    let told = first.clone();
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let mut pictures = pictures.lock();
            match wanted {
                Wanted::Last => pictures.clear(),
                Wanted::First if !pictures.is_empty() => return Ok(gst::FlowSuccess::Ok),
                Wanted::All(..) if pictures.len() >= MAX_FRAMES => return Ok(gst::FlowSuccess::Ok),
                _ => {}
            }
            pictures.push(sample);
            told.notify_one();
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    let sink = gst_app::AppSink::builder().sync(false).caps(&raw).callbacks(callbacks).build();
    let all = [source.upcast_ref(), &decoder, &convert, &scale, sink.upcast_ref()];
    pipeline.add_many(all).map_err(|e| failed(e.to_string()))?;
    source.link(&decoder).map_err(|e| failed(e.to_string()))?;
    // Scaled first: of a large picture little is left to convert.
    gst::Element::link_many([&scale, &convert, sink.upcast_ref()]).map_err(|e| failed(e.to_string()))?;
    super::link_first(&decoder, &scale);
    let (managed, mut bus) = ManagedPipeline::new(pipeline);
    managed.play(TIMEOUT).await?;
    let buffers = match encoded {
        Encoded::File(data) => vec![gst::Buffer::from_slice(data)],
        Encoded::Frames(frames) => frames.iter().map(|frame| super::buffer_of(frame, origin)).collect(),
    };
    for buffer in buffers {
        if source.push_buffer(buffer).is_err() {
            break;
        }
    }
    // What decoders hold back comes out at the end.
    let _ = source.end_of_stream();
    let result = loop {
        tokio::select! {
            biased;
            () = first.notified(), if wanted == Wanted::First => break Ok(()),
            message = bus.recv() => match message {
                // What came before the error will do.
                Some(PipelineMessage::Error(error)) if shown.lock().is_empty() => break Err(error),
                Some(PipelineMessage::Error(_) | PipelineMessage::Eos) | None => break Ok(()),
                Some(PipelineMessage::Element(_)) => {}
            },
        }
    };
    managed.stop().await;
    let pictures = std::mem::take(&mut *shown.lock());
    result.map(|()| pictures)
}

/// A picture as JPEG, smaller if that is wanted.
pub(crate) async fn encode(picture: &gst::Sample, options: PictureOptions) -> Result<Vec<u8>, PipelineError> {
    let caps = picture.caps().ok_or_else(|| failed("a picture has no format"))?.to_owned();
    let info = gst_video::VideoInfo::from_caps(&caps).map_err(|e| failed(e.to_string()))?;
    let width = options.width.unwrap_or(info.width()).min(info.width()).max(2);
    let height = u64::from(info.height()) * u64::from(width) / u64::from(info.width().max(1));
    let height = i32::try_from(height.max(2)).unwrap_or(i32::MAX);
    let size = gst::Caps::builder("video/x-raw")
        .field("width", i32::try_from(width).unwrap_or(i32::MAX))
        .field("height", height)
        .build();
    let pipeline = gst::Pipeline::new();
    let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).max_bytes(0).build();
    let (convert, scale) = (make_element("videoconvert")?, make_element("videoscale")?);
    let filter = gst::ElementFactory::make("capsfilter").property("caps", &size).build();
    let filter = filter.map_err(|_| missing("capsfilter"))?;
    let encoder = make_element("jpegenc")?;
    encoder.set_property("quality", i32::from(options.quality.clamp(1, 100)));
    let (sender, mut made) = mpsc::channel::<Vec<u8>>(1);
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let map = sample.buffer().and_then(|b| b.map_readable().ok()).ok_or(gst::FlowError::Error)?;
            // There is one.
            let _ = sender.try_send(map.as_slice().to_vec());
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    let sink = gst_app::AppSink::builder().sync(false).callbacks(callbacks).build();
    let all = [source.upcast_ref(), &convert, &scale, &filter, &encoder, sink.upcast_ref()];
    pipeline.add_many(all).map_err(|e| failed(e.to_string()))?;
    gst::Element::link_many(all).map_err(|e| failed(e.to_string()))?;
    let (managed, mut bus) = ManagedPipeline::new(pipeline);
    managed.play(TIMEOUT).await?;
    let mut buffer = picture.buffer().ok_or_else(|| failed("a picture is empty"))?.to_owned();
    let bare = buffer.make_mut();
    bare.set_pts(gst::ClockTime::ZERO);
    bare.set_dts(None);
    let _ = source.push_buffer(buffer);
    let _ = source.end_of_stream();
    let result = loop {
        tokio::select! {
            biased;
            picture = made.recv() => break picture.ok_or_else(|| failed("no picture came out")),
            message = bus.recv() => match message {
                Some(PipelineMessage::Error(error)) => break Err(error),
                Some(PipelineMessage::Eos) | None => {
                    break made.try_recv().map_err(|_| failed("no picture came out"));
                }
                Some(PipelineMessage::Element(_)) => {}
            },
        }
    };
    managed.stop().await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::source::{Source, TestSource};
    use tokio_util::sync::CancellationToken;

    #[cfg(feature = "http")]
    #[tokio::test(flavor = "multi_thread")]
    async fn a_picture_comes_out() {
        let hub = Hub::default();
        let mut source = TestSource::default();
        let (writer, cancel) = (hub.writer(), CancellationToken::new());
        writer.begin_session();
        let run = source.run(&writer, cancel.clone());
        tokio::pin!(run);
        // The first frame may be of sound.
        let keyframe = async {
            while hub.stats().keyframes == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = &mut run => panic!("the source ended"),
            () = keyframe => {}
        }
        cancel.cancel();
        let _ = run.await;
        let jpeg = picture(&hub).await.unwrap();
        assert_eq!((&jpeg[..2], &jpeg[jpeg.len() - 2..]), (&[0xff, 0xd8][..], &[0xff, 0xd9][..]));
    }
}
