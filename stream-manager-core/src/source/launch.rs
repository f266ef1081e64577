//! Any GStreamer launch line as a source.

use super::gst_source::{self, GstOptions};
use super::{AddressError, Source, SourceEnd, SourceError};
use crate::error::redact_unparsed;
use crate::hub::HubWriter;
use crate::pipeline::{self, parse_bin};
use gstreamer::prelude::*;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A launch line whose loose ends become the stream's tracks: encoded media is parsed, raw media is
/// encoded (H.264 by x264, AAC), containers and RTP are looked into.
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
        let bin = match parse_bin(&line) {
            Ok(bin) => bin,
            Err(error) => {
                // GStreamer wants an element behind the last caps.
                let ended = format!("{line} ! identity");
                let bin = parse_bin(&ended).map_err(|_| error)?;
                line = ended;
                bin
            }
        };
        let line = line.as_str();
        let has_end = bin.src_pads().iter().any(|_| true)
            || bin.iterate_sources().into_iter().flatten().any(|e| {
                e.pad_template_list().iter().any(|t| t.presence() == gstreamer::PadPresence::Sometimes)
            });
        if !has_end {
            return Err(AddressError::Parameter {
                address: format!("gst:{}", redact_unparsed(line)),
                parameter: "launch line".into(),
                value: redact_unparsed(line),
                expected: "a line that ends in encoded or raw media, without a sink".into(),
            });
        }
        Ok(Self { line: line.to_owned() })
    }
}

#[async_trait::async_trait]
impl Source for LaunchSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        let options = GstOptions {
            address: self.address(),
            paced: false,
            looped: false,
            may_end: true,
            timeout: Duration::from_secs(10),
        };
        let bin = parse_bin(&self.line)?;
        gst_source::run(bin.upcast(), &options, hub, &cancel).await
    }

    fn address(&self) -> String {
        format!("gst:{}", redact_unparsed(&self.line))
    }
}
