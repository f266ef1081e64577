//! Any GStreamer launch line as a source.

use super::gst_source::{self, GstOptions};
use super::{AddressError, Source, SourceEnd, SourceError};
use crate::error::redact_unparsed;
use crate::hub::HubWriter;
use crate::pipeline::{self, parse_pipeline, share_time};
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio_util::sync::CancellationToken;

/// A launch line whose loose ends, pads that are there or that come later, become the stream's tracks: encoded media is parsed, raw media is
/// encoded (H.264 by the hardware's encoder if there is one, else x264; AAC), containers and RTP are looked into.
///
/// ```
/// # use stream_manager_core::source::LaunchSource;
/// let source = LaunchSource::new("videotestsrc is-live=true ! video/x-raw,width=320,height=240").unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct LaunchSource {
    line: String,
}

impl LaunchSource {
    /// From a launch line, as for `gst-launch-1.0`, without the last sink.
    ///
    /// # Errors
    /// If it cannot be parsed, an element is missing, or it has no loose end.
    pub fn new(line: &str) -> Result<Self, AddressError> {
        pipeline::init()?;
        let mut line = line.trim().to_owned();
        let parsed = match parse_pipeline(&line) {
            Ok(parsed) => parsed,
            Err(error) => {
                // GStreamer wants an element behind the last caps.
                let ended = format!("{line} ! identity");
                let parsed = parse_pipeline(&ended).map_err(|_| error)?;
                line = ended;
                parsed
            }
        };
        if !parsed.children().iter().any(has_loose_end) {
            return Err(AddressError::Parameter {
                address: format!("gst:{}", redact_unparsed(&line)),
                parameter: "launch line".into(),
                value: redact_unparsed(&line),
                expected: "a line that ends in encoded or raw media, without a sink".into(),
            });
        }
        Ok(Self { line })
    }
}

/// Whether an element has, or will have, a source pad that nothing is linked to.
fn has_loose_end(element: &gst::Element) -> bool {
    let sometimes = |t: &gst::PadTemplate| {
        t.direction() == gst::PadDirection::Src && t.presence() == gst::PadPresence::Sometimes
    };
    element.src_pads().iter().any(|pad| !pad.is_linked()) || element.pad_template_list().iter().any(sometimes)
}

#[async_trait::async_trait]
impl Source for LaunchSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        let options = GstOptions::live(self.address());
        let pipeline = parse_pipeline(&self.line)?;
        // It may tap into other streams by intersrc.
        share_time(&pipeline);
        gst_source::run(pipeline, &options, hub, &cancel).await
    }

    fn address(&self) -> String {
        format!("gst:{}", redact_unparsed(&self.line))
    }
}
