//! All pictures of a file or of something behind HTTP, as fast as they are taken.

use super::InferenceError;
use super::decode::{failed, picture_sink, tail};
use super::picture::Picture;
use crate::frame::MediaTime;
use crate::pipeline::{ManagedPipeline, PipelineMessage, link_first, make_element};
use gstreamer as gst;
use gstreamer::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Pictures that are decoded ahead.
const AHEAD: usize = 4;
/// How long starting may take.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a picture may take to come.
const PICTURE_TIMEOUT: Duration = Duration::from_secs(60);

/// A picture of a video.
#[derive(Clone, Debug)]
pub struct VideoPicture {
    /// Its number, counted from 0.
    pub frame: u64,
    /// Its time from the video's start.
    pub time: Duration,
    /// The picture.
    pub picture: Arc<Picture>,
}

/// Reads a video's pictures one after the other; the decoder waits for whoever reads.
///
/// ```no_run
/// # async fn example() -> Result<(), stream_manager_core::inference::InferenceError> {
/// use stream_manager_core::inference::VideoReader;
/// let mut video = VideoReader::open("file:///videos/door.mp4", 5).await?;
/// while let Some(one) = video.next().await? {
///     let (number, seconds, width) = (one.frame, one.time.as_secs_f64(), one.picture.width());
/// }
/// # Ok(())
/// # }
/// ```
pub struct VideoReader {
    pipeline: Option<ManagedPipeline>,
    bus: mpsc::Receiver<PipelineMessage>,
    pictures: mpsc::Receiver<VideoPicture>,
    ended: bool,
}

impl VideoReader {
    /// Opens a `file://`, `http://` or `https://` address, and reads every `every`-th picture, the first one included.
    ///
    /// # Errors
    /// If it cannot be opened. That it has no video, or one that cannot be decoded, is said when the first picture is
    /// asked for.
    pub async fn open(uri: &str, every: u64) -> Result<Self, InferenceError> {
        crate::pipeline::init()?;
        let decoder = make_element("uridecodebin")?;
        decoder.set_property("uri", uri);
        // Sound is not decoded.
        decoder.set_property("caps", gst::Caps::builder("video/x-raw").any_features().build());
        decoder.set_property("expose-all-streams", false);
        let (sender, pictures) = mpsc::channel(AHEAD);
        let (number, every) = (AtomicU64::new(0), every.max(1));
        let sink = picture_sink(true, move |sample| {
            let frame = number.fetch_add(1, Ordering::Relaxed);
            if !frame.is_multiple_of(every) {
                return Ok(());
            }
            let pts = sample.buffer().and_then(|b| b.pts());
            // As the video's own clock shows it, without what an edit list leaves out.
            let running = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>().cloned());
            let time = running.and_then(|s| s.to_stream_time(pts)).or(pts).unwrap_or_default();
            let mut picture = Picture::from_sample(sample)?;
            picture.pts = MediaTime::from_nanos(i64::try_from(time.nseconds()).unwrap_or(i64::MAX));
            let one = VideoPicture { frame, time: time.into(), picture: Arc::new(picture) };
            // Whoever has stopped reading also stops the pipeline.
            let _ = sender.blocking_send(one);
            Ok(())
        });
        let pipeline = gst::Pipeline::new();
        let tail = tail(&pipeline, &sink)?;
        pipeline.add(&decoder).map_err(|e| failed(e.to_string()))?;
        link_first(&decoder, &tail);
        let (pipeline, bus) = ManagedPipeline::new(pipeline);
        pipeline.play(START_TIMEOUT).await?;
        Ok(Self { pipeline: Some(pipeline), bus, pictures, ended: false })
    }

    /// The next picture; `None` at the end.
    ///
    /// # Errors
    /// If the video is damaged in a way that nothing comes after, or no picture comes for a minute.
    pub async fn next(&mut self) -> Result<Option<VideoPicture>, InferenceError> {
        loop {
            if self.ended {
                return Ok(self.pictures.try_recv().ok());
            }
            tokio::select! {
                biased;
                Some(picture) = self.pictures.recv() => return Ok(Some(picture)),
                message = self.bus.recv() => match message {
                    Some(PipelineMessage::Error(error)) => return Err(error.into()),
                    Some(PipelineMessage::Eos) | None => self.ended = true,
                    Some(PipelineMessage::Element(_)) => {}
                },
                () = tokio::time::sleep(PICTURE_TIMEOUT) => {
                    return Err(failed(format!("no picture has come for {PICTURE_TIMEOUT:?}")).into());
                }
            }
        }
    }

    /// Closes it.
    pub async fn close(mut self) {
        // Frees the decoder, which may be waiting for somebody to take a picture.
        self.pictures.close();
        while self.pictures.try_recv().is_ok() {}
        if let Some(pipeline) = self.pipeline.take() {
            pipeline.stop().await;
        }
    }
}
