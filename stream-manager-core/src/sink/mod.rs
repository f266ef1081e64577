//! Where frames go.
//!
//! A [`Sink`] reads one stream's hub until it is cancelled or the stream ends. Sinks know the hub and
//! nothing else: not the source, not each other. One that fails or is slow changes nothing for the rest.

pub mod forward;
mod gst_forward;
mod pipeline;

pub use gst_forward::GstForward;
pub use pipeline::{PipelineSink, to_intersrc, to_pipeline};

use crate::hub::HubReader;
use tokio_util::sync::CancellationToken;

/// A consumer of one stream.
///
/// ```
/// use stream_manager_core::hub::{HubItem, HubReader};
/// use stream_manager_core::sink::{Sink, SinkError};
/// use tokio_util::sync::CancellationToken;
///
/// struct CountKeyframes(u64);
///
/// #[async_trait::async_trait]
/// impl Sink for CountKeyframes {
///     async fn run(&mut self, mut reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
///         while let Some(Some(item)) = cancel.run_until_cancelled(reader.next()).await {
///             if let HubItem::Frame(frame) = item && frame.is_video() && frame.keyframe {
///                 self.0 += 1;
///             }
///         }
///         Ok(())
///     }
///
///     fn name(&self) -> String {
///         "keyframe counter".into()
///     }
/// }
/// ```
#[async_trait::async_trait]
pub trait Sink: Send + 'static {
    /// Reads until the stream ends, an error, or `cancel`; then finishes what it has begun.
    async fn run(&mut self, reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError>;

    /// Its name in statistics and events.
    fn name(&self) -> String;
}

/// Why a sink ended early.
#[derive(Debug, thiserror::Error)]
#[error("{sink}: {problem}")]
pub struct SinkError {
    /// The sink's name.
    pub sink: String,
    /// What happened.
    pub problem: String,
}
