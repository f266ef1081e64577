//! A stream's picture made anew: decoded and encoded as H.264 without B frames, for players that take nothing else.

use super::gst_source::{self, GstOptions};
use super::{Source, SourceEnd, SourceError};
use crate::frame::{Frame, MediaTime, TrackId};
use crate::hub::{Hub, HubItem, HubReader, HubWriter, ReaderOptions};
use crate::pipeline::caps::caps_for;
use crate::pipeline::{self, ErrorCause, PipelineError, buffer_of, make_element};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Frames that may wait to be decoded: more than a kept GOP usually has. What is more is left out up to the next keyframe.
const MAX_WAITING: u64 = 600;

/// The first video track of another stream in H.264, by the encoder and with the settings that raw video gets.
pub struct TranscodeSource {
    hub: Hub,
}

impl TranscodeSource {
    /// Of what goes through this hub.
    pub fn new(hub: Hub) -> Self {
        Self { hub }
    }
}

fn failed(problem: impl ToString) -> PipelineError {
    PipelineError::Element {
        element: "decoder".into(),
        message: problem.to_string(),
        cause: ErrorCause::Other,
    }
}

/// Where frames go in.
struct Inlet {
    source: gst_app::AppSrc,
    track: TrackId,
    origin: MediaTime,
    waits_for_keyframe: bool,
}

impl Inlet {
    fn push(&mut self, frame: &Frame) {
        if frame.track != self.track || (self.waits_for_keyframe && !frame.keyframe) {
            return;
        }
        if self.source.current_level_buffers() >= MAX_WAITING {
            // The decoder cannot keep up.
            self.waits_for_keyframe = true;
            return;
        }
        self.waits_for_keyframe = false;
        // It refuses only when it is ending, of which the pipeline tells.
        let _ = self.source.push_buffer(buffer_of(frame, self.origin));
    }

    /// Puts in what comes, until something else comes than was begun with.
    async fn fill(&mut self, mut reader: HubReader, first: Frame) {
        self.push(&first);
        while let Some(item) = reader.next().await {
            match item {
                HubItem::Frame(frame) if frame.track == self.track => {
                    if frame.keyframe && *frame.parameters != *first.parameters {
                        return;
                    }
                    self.push(&frame);
                }
                HubItem::Discontinuity | HubItem::Lagged { .. } => self.waits_for_keyframe = true,
                _ => {}
            }
        }
    }
}

#[async_trait::async_trait]
impl Source for TranscodeSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        pipeline::init()?;
        let mut reader = self.hub.subscribe("transcoding", ReaderOptions::default());
        let first = loop {
            match cancel.run_until_cancelled(reader.next()).await {
                None => return Ok(SourceEnd::Cancelled),
                Some(None) => return Ok(SourceEnd::Finished),
                Some(Some(HubItem::Frame(frame))) if frame.is_video() && frame.keyframe => break frame,
                Some(Some(_)) => {}
            }
        };
        let caps = caps_for(&first.parameters).ok_or_else(|| failed("this codec cannot be decoded"))?;
        let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).is_live(true).build();
        source.set_max_buffers(MAX_WAITING);
        let decoder = make_element("decodebin")?;
        let line = gst::Pipeline::new();
        line.add_many([source.upcast_ref(), &decoder]).map_err(failed)?;
        source.link(&decoder).map_err(failed)?;
        // Pictures may be shown earlier than they are decoded.
        let origin = first.dts.min(first.pts) - Duration::from_secs(1);
        let mut inlet = Inlet { source, track: first.track, origin, waits_for_keyframe: false };
        let stop = cancel.child_token();
        let options = GstOptions::live(self.address());
        let mut runs = std::pin::pin!(gst_source::run(line, &options, hub, &stop));
        let ended = tokio::select! {
            ended = &mut runs => return ended,
            () = inlet.fill(reader, first) => {
                stop.cancel();
                runs.await
            }
        };
        ended?;
        // What comes now is something else: to be begun anew.
        if cancel.is_cancelled() { Ok(SourceEnd::Cancelled) } else { Err(SourceError::Ended) }
    }

    fn address(&self) -> String {
        "transcoded".into()
    }
}
