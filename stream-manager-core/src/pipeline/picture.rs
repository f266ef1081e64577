//! The first picture of a few frames, as JPEG.

use super::caps::caps_for;
use super::{ErrorCause, ManagedPipeline, PipelineError, PipelineMessage, make_element, missing};
use crate::frame::{Frame, MediaKind};
use crate::hub::{Hub, HubItem, ReaderOptions};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long decoding may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More frames than this are not looked at.
const MAX_FRAMES: usize = 300;

fn failed(message: impl Into<String>) -> PipelineError {
    PipelineError::Element { element: "picture".into(), message: message.into(), cause: ErrorCause::Other }
}

/// The first picture of what a hub keeps.
///
/// # Errors
/// If there is no keyframe, no decoder, or it cannot be decoded in time.
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
    let decode = decode(frames);
    tokio::time::timeout(TIMEOUT, decode)
        .await
        .unwrap_or(Err(PipelineError::Timeout { state: "a picture", timeout: TIMEOUT }))
}

async fn decode(frames: Vec<Frame>) -> Result<Vec<u8>, PipelineError> {
    super::init()?;
    let Some(first) = frames.first() else { return Err(failed("no keyframe has come")) };
    let caps = caps_for(&first.parameters).ok_or_else(|| failed("this codec cannot be decoded"))?;
    // Made only if they are there, so that a missing one is told by its package.
    for element in ["decodebin", "videoconvert", "jpegenc"] {
        if gst::ElementFactory::find(element).is_none() {
            return Err(missing(element));
        }
    }
    let pipeline = gst::Pipeline::new();
    let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).build();
    let (decoder, convert) = (make_element("decodebin")?, make_element("videoconvert")?);
    let encoder = make_element("jpegenc")?;
    let (sender, mut pictures) = mpsc::channel::<Vec<u8>>(1);
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let map = sample.buffer().and_then(|b| b.map_readable().ok()).ok_or(gst::FlowError::Error)?;
            // Only the first one is wanted.
            let _ = sender.try_send(map.as_slice().to_vec());
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    let sink = gst_app::AppSink::builder().sync(false).callbacks(callbacks).build();
    let all = [source.upcast_ref(), &decoder, &convert, &encoder, sink.upcast_ref()];
    pipeline.add_many(all).map_err(|e| failed(e.to_string()))?;
    source.link(&decoder).map_err(|e| failed(e.to_string()))?;
    gst::Element::link_many([&convert, &encoder, sink.upcast_ref()]).map_err(|e| failed(e.to_string()))?;
    super::link_first(&decoder, &convert);
    let (managed, mut bus) = ManagedPipeline::new(pipeline);
    managed.play(TIMEOUT).await?;
    let start = first.dts;
    for frame in &frames {
        let mut buffer = gst::Buffer::from_slice(frame.data.clone());
        let relative =
            |time: crate::frame::MediaTime| gst::ClockTime::try_from(time.saturating_since(start)).ok();
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(relative(frame.pts));
            buffer.set_dts(relative(frame.dts));
        }
        if source.push_buffer(buffer).is_err() {
            break;
        }
    }
    let _ = source.end_of_stream();
    let result = loop {
        tokio::select! {
            biased;
            picture = pictures.recv() => break picture.ok_or_else(|| failed("no picture came out")),
            message = bus.recv() => match message {
                Some(PipelineMessage::Error(error)) => break Err(error),
                Some(PipelineMessage::Eos) | None => {
                    break pictures.try_recv().map_err(|_| failed("no picture came out"));
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
    use crate::source::{Source, TestSource};
    use tokio_util::sync::CancellationToken;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_picture_comes_out() {
        let hub = Hub::default();
        let mut source = TestSource::default();
        let (writer, cancel) = (hub.writer(), CancellationToken::new());
        writer.begin_session();
        let run = source.run(&writer, cancel.clone());
        tokio::pin!(run);
        tokio::select! {
            _ = &mut run => panic!("the source ended"),
            () = hub.session_frame() => {}
        }
        cancel.cancel();
        let _ = run.await;
        let jpeg = picture(&hub).await.unwrap();
        assert_eq!((&jpeg[..2], &jpeg[jpeg.len() - 2..]), (&[0xff, 0xd8][..], &[0xff, 0xd9][..]));
    }
}
