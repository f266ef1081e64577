//! GStreamer elements of the user's as a source.

use super::gst_source::{self, GstOptions};
use super::{Source, SourceEnd, SourceError};
use crate::hub::HubWriter;
use crate::pipeline::{self, PipelineError, share_time};
use gstreamer as gst;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

type Make = dyn FnMut() -> Result<gst::Element, PipelineError> + Send;

/// GStreamer elements as a source; see [`from_pipeline`].
pub struct PipelineSource {
    name: Arc<str>,
    make: Box<Make>,
}

/// A source of a GStreamer element, which may be a bin, that `make` gives for every connection anew. Its loose source pads, those that
/// are there and those that come later, become the stream's tracks: encoded media is parsed, raw media is encoded (H.264, AAC),
/// containers and RTP are looked into. `name` is for people.
///
/// ```
/// # use stream_manager_core::manager::Stream;
/// # use stream_manager_core::pipeline::parse_bin;
/// # use stream_manager_core::source::from_pipeline;
/// let source = from_pipeline("bars", || Ok(parse_bin("videotestsrc is-live=true ! x264enc tune=zerolatency")?.into()));
/// let stream = Stream::builder("bars").source(source);
/// ```
pub fn from_pipeline(
    name: impl Into<Arc<str>>,
    make: impl FnMut() -> Result<gst::Element, PipelineError> + Send + 'static,
) -> PipelineSource {
    PipelineSource { name: name.into(), make: Box::new(make) }
}

#[async_trait::async_trait]
impl Source for PipelineSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        pipeline::init()?;
        let options = GstOptions::live(self.address());
        let built = gst_source::pipeline_of(&(self.make)()?)?;
        share_time(&built);
        gst_source::run(built, &options, hub, &cancel).await
    }

    fn address(&self) -> String {
        format!("pipeline:{}", self.name)
    }
}
