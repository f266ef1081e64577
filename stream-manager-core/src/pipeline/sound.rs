//! Sound that receivers cannot take, encoded as AAC or Opus: one small GStreamer pipeline for a track, whatever the
//! number of those who listen.

use super::caps::caps_for;
use super::{ErrorCause, ManagedPipeline, PipelineError, PipelineMessage};
use crate::frame::{AudioCodec, CodecParameters, Frame, MediaTime};
use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Encoded frames that may wait to be taken: more than four seconds.
const QUEUE: usize = 64;
/// Bytes that may wait to be encoded: eight seconds of G.711.
const INPUT_BYTES: u64 = 64 << 10;
/// What AAC-LC encoders put in front of the sound, in samples.
const PRIMING: i64 = 1024;

/// Encodes one track.
pub(crate) struct Encoder {
    input: Arc<CodecParameters>,
    output: Arc<CodecParameters>,
    running: Option<Running>,
}

struct Running {
    /// Stops when it is dropped.
    _pipeline: ManagedPipeline,
    bus: mpsc::Receiver<PipelineMessage>,
    source: gst_app::AppSrc,
    encoded: mpsc::Receiver<(MediaTime, Bytes)>,
    /// The time that the pipeline calls zero.
    zero: MediaTime,
    like: Frame,
}

fn failed(problem: impl Into<String>) -> PipelineError {
    PipelineError::Element { element: "encoder".into(), message: problem.into(), cause: ErrorCause::Other }
}

impl Encoder {
    /// Nothing runs before the first frame.
    pub(crate) fn new(input: Arc<CodecParameters>, output: Arc<CodecParameters>) -> Self {
        Self { input, output, running: None }
    }

    fn is_opus(&self) -> bool {
        self.output.audio().is_some_and(|a| a.codec == AudioCodec::Opus)
    }

    async fn start(&self, first: &Frame) -> Result<Running, PipelineError> {
        super::init()?;
        let caps = caps_for(&self.input).ok_or_else(|| failed("this codec cannot be decoded"))?;
        let decoder = match self.input.audio().map(|a| a.codec) {
            Some(AudioCodec::Pcma) => "alawdec",
            Some(AudioCodec::Pcmu) => "mulawdec",
            Some(AudioCodec::Aac) => "avdec_aac",
            Some(AudioCodec::Mp3) => "avdec_mp3",
            Some(AudioCodec::Ac3) => "avdec_ac3",
            Some(AudioCodec::Opus) => "opusdec",
            Some(AudioCodec::L16) | None => "identity",
        };
        let (rate, channels) = self.output.audio().map_or((16_000, 1), |a| (a.sample_rate, a.channels));
        let encoder = if self.is_opus() { "opusenc" } else { "avenc_aac" };
        let chain = format!(
            "{decoder} ! audioconvert ! audioresample ! capsfilter caps=audio/x-raw,rate={rate},channels={channels} ! \
             {encoder} bitrate={}",
            32_000 * u32::from(channels)
        );
        let chain = super::parse_chain(&chain)?;
        let source =
            gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).max_bytes(INPUT_BYTES).build();
        let (sender, encoded) = mpsc::channel(QUEUE);
        let callbacks = gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
                let time = buffer.pts().map_or(0, |t| i64::try_from(t.nseconds()).unwrap_or(0));
                let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
                // Nobody takes it only if its consumer hangs; then sound is what is lost.
                let _ = sender.try_send((MediaTime::from_nanos(time), Bytes::copy_from_slice(&map)));
                Ok(gst::FlowSuccess::Ok)
            })
            .build();
        let sink = gst_app::AppSink::builder().sync(false).callbacks(callbacks).build();
        let whole = gst::Pipeline::new();
        let all = [source.upcast_ref(), chain.upcast_ref(), sink.upcast_ref::<gst::Element>()];
        whole.add_many(all).map_err(|e| failed(e.to_string()))?;
        gst::Element::link_many(all).map_err(|e| failed(e.to_string()))?;
        let (pipeline, bus) = ManagedPipeline::new(whole);
        pipeline.play(START_TIMEOUT).await?;
        Ok(Running { _pipeline: pipeline, bus, source, encoded, zero: first.dts, like: first.clone() })
    }

    /// Takes a frame and gives those that are encoded by now.
    ///
    /// # Errors
    /// If it cannot be encoded; it is of no use then.
    pub(crate) async fn push(&mut self, frame: &Frame) -> Result<Vec<Frame>, PipelineError> {
        let is_opus = self.is_opus();
        let running = match &mut self.running {
            Some(running) => running,
            None => {
                let running = self.start(frame).await?;
                self.running.insert(running)
            }
        };
        while let Ok(message) = running.bus.try_recv() {
            if let PipelineMessage::Error(error) = message {
                return Err(error);
            }
        }
        // What does not fit is lost here, and never waited for.
        if running.source.current_level_bytes() < INPUT_BYTES {
            let mut buffer = gst::Buffer::from_slice(frame.data.clone());
            let time = frame.dts.saturating_since(running.zero);
            if let Some(buffer) = buffer.get_mut() {
                buffer.set_pts(gst::ClockTime::try_from(time).ok());
            }
            running.source.push_buffer(buffer).map_err(|e| failed(format!("{e:?}")))?;
        }
        let rate = self.output.clock_rate();
        // Opus encoders take theirs off by themselves.
        let priming = if is_opus { 0 } else { MediaTime::from_ticks(PRIMING, rate).as_nanos() };
        let (zero, like) = (running.zero, &running.like);
        let mut frames = Vec::new();
        while let Ok((time, data)) = running.encoded.try_recv() {
            let time = MediaTime::from_nanos((zero.as_nanos() + time.as_nanos() - priming).max(0));
            frames.push(Frame {
                parameters: self.output.clone(),
                pts: time,
                dts: time,
                data,
                keyframe: true,
                ..like.clone()
            });
        }
        Ok(frames)
    }

    /// A gap in time: begins anew behind it.
    pub(crate) fn reset(&mut self) {
        self.running = None;
    }
}
