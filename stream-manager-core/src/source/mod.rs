//! Where streams come from.
//!
//! A [`Source`] connects once and writes what it receives into the stream's hub until it is cancelled,
//! ends, or fails; its supervisor (in [`crate::manager`]) decides what happens then. A source does
//! not retry, does not repair timestamps and knows no consumer.
//!
//! | address | source |
//! |---|---|
//! | `rtsp://` | [`RtspSource`]: the retina client, without GStreamer; codecs it cannot do go through `rtspsrc` |
//! | `rtsps://` | [`RtspSource`] through `rtspsrc` |
//! | `http://`, `https://`, `file://` | [`UriSource`]: GStreamer, demuxed and parsed, never decoded |
//! | `file:///videos/` | [`UriSource`]: the files of a folder, one behind the other |
//! | `udp://`, `srt://`, `rtmp://`, `sdp://`, `v4l2://` | [`NetworkSource`]: MPEG-TS by UDP and SRT, RTMP, RTP by an SDP, devices |
//! | `exec:` command | [`ExecSource`]: a program that writes media to its output |
//! | `test://smpte`, `test://ball` | [`TestSource`]: a picture with a clock and a frame counter, and a tone |
//! | `whep://`, `wheps://` | [`WhepSource`](crate::webrtc::WhepSource): another server's stream by WebRTC (feature `webrtc`) |
//! | `publisher` | [`PublishSource`]: waits for somebody who publishes the stream |
//! | `gst:` launch line | [`LaunchSource`]: any GStreamer elements; raw media is encoded |
//!
//! [`from_pipeline`] makes a source of GStreamer elements, [`StillSource`] of a picture.
//!
//! [`from_url`] chooses by the address. A source of one's own is an implementation of the trait:
//!
//! ```
//! use stream_manager_core::frame::{CodecParameters, MediaTime, VideoCodec, VideoParameters};
//! use stream_manager_core::hub::{HubWriter, RawFrame};
//! use stream_manager_core::source::{Source, SourceEnd, SourceError};
//! use tokio_util::sync::CancellationToken;
//!
//! struct OneFrame;
//!
//! #[async_trait::async_trait]
//! impl Source for OneFrame {
//!     async fn run(&mut self, hub: &HubWriter, _: CancellationToken) -> Result<SourceEnd, SourceError> {
//!         hub.set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Mjpeg, 8, 8))]);
//!         hub.push(RawFrame::new(0, MediaTime::ZERO, vec![0xff, 0xd8]).keyframe(true))?;
//!         Ok(SourceEnd::Finished)
//!     }
//!
//!     fn address(&self) -> String {
//!         "one frame".into()
//!     }
//! }
//! ```

mod address;
pub(crate) mod connect;
mod exec;
mod folder;
mod gio_tls;
mod gst_source;
mod launch;
mod network;
pub(crate) mod paint;
mod pipeline;
mod publish;
mod rtsp;
mod still;
mod test_pattern;
#[cfg(any(feature = "rtsp", feature = "webrtc"))]
pub(crate) mod tls;
mod transcode;
mod tunnel;
mod uri;

pub(crate) use address::PUBLISHER;
pub(crate) use address::percent_decoded;
pub use address::{AddressError, SourceOptions, from_url, from_url_with};
pub use exec::ExecSource;
pub use launch::LaunchSource;
pub use network::NetworkSource;
pub use paint::{Canvas, Drawing, Painter};
pub use pipeline::{PipelineSource, from_pipeline};
pub use publish::{Publication, PublishError, PublishSlot, PublishSource};
pub use rtsp::{RtspSource, RtspTransport, SourceTransport};
pub use still::{StillPicture, StillSource};
pub use test_pattern::{TestPattern, TestSource, read_counter};
pub use transcode::{Rendition, TranscodeSource};
pub use uri::UriSource;

use crate::hub::{HubError, HubWriter};
use crate::pipeline::PipelineError;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How a source ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceEnd {
    /// It has delivered all there is, and there will be no more.
    Finished,
    /// It was cancelled.
    Cancelled,
    /// It is over for now; [`Source::ready`] says when there is something again.
    Waiting,
}

/// Something that frames come from.
#[async_trait::async_trait]
pub trait Source: Send + 'static {
    /// Waits until there is something to connect to, for sources that are not there all the time. The stream is
    /// idle meanwhile. `Some` says that there will be nothing any more. Must be cancel safe.
    async fn ready(&mut self) -> Option<SourceEnd> {
        None
    }

    /// Connects and delivers until the end, an error, or `cancel`. Called again for every attempt.
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError>;

    /// Where it comes from, for people; without secrets.
    fn address(&self) -> String;

    /// Whether [`run`](Self::run) may wait as long as it likes for its first frame, since somebody has to come with it. The stream is
    /// idle meanwhile.
    fn waits(&self) -> bool {
        false
    }

    /// The place for a publisher, if that is what it waits for.
    fn publish_slot(&self) -> Option<PublishSlot> {
        None
    }
}

/// Why a source failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The host has no address.
    #[error("host \"{host}\" does not resolve: {problem}; check the name")]
    Resolve {
        /// The host.
        host: String,
        /// The resolver's words.
        problem: String,
    },
    /// No connection.
    #[error("cannot connect to {address}: {problem}")]
    Connect {
        /// Host and port.
        address: String,
        /// The system's words.
        problem: String,
    },
    /// It is not to be connected to.
    #[error(transparent)]
    Denied(#[from] crate::outbound::Denied),
    /// No TLS with it, or none that can be trusted.
    #[error("TLS with {address}: {problem}")]
    Tls {
        /// Host and port.
        address: String,
        /// What went wrong.
        problem: String,
    },
    /// The server wants other credentials.
    #[error("{address} refuses the credentials (401); put the right user and password into the address")]
    Unauthorized {
        /// The address.
        address: String,
    },
    /// The server has no such stream.
    #[error("{address} does not exist on the server (404); check the path")]
    NotFound {
        /// The address.
        address: String,
    },
    /// The server answered with another error.
    #[error("{address} answers with status {status}")]
    Status {
        /// The address.
        address: String,
        /// The status code.
        status: u16,
    },
    /// Connected, but there is no track.
    #[error("{address} offers no video or audio")]
    NoTracks {
        /// The address.
        address: String,
    },
    /// There are tracks, but none of those that are wanted.
    #[error("{address} offers none of the tracks that are asked for; take fewer limits in \"tracks\"")]
    NoWantedTracks {
        /// The address.
        address: String,
    },
    /// There are tracks, but none with a codec that is known.
    #[error("{address} offers only codecs that are not supported: {codecs}; supported are {supported}")]
    UnsupportedCodecs {
        /// The address.
        address: String,
        /// What it offers.
        codecs: String,
        /// What would do.
        supported: &'static str,
    },
    /// The file is not there or cannot be read.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// The system's words.
        problem: String,
    },
    /// It is waited for, which only a server does.
    #[error("\"publisher\" is no address to read from; it is for streams of a server that others publish")]
    Published,
    /// Something did not happen in time.
    #[error("{what} took longer than {timeout:?}")]
    Timeout {
        /// What.
        what: String,
        /// The limit.
        timeout: Duration,
    },
    /// Connected, but nothing arrives.
    #[error("connected, but no frame for {silence:?}")]
    Silent {
        /// For how long.
        silence: Duration,
    },
    /// A live source ended.
    #[error("the server ended the stream")]
    Ended,
    /// The other side broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// GStreamer failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The hub refused a frame, which is a mistake in the source.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Any other failure, for sources outside this crate.
    #[error("{0}")]
    Other(String),
}

/// The codecs sources can deliver, for error messages.
pub(crate) const SUPPORTED_CODECS: &str =
    "h264, h265, av1, vp8, vp9, mjpeg; aac, opus, pcma, pcmu, l16, mp3, ac3; klv, onvif";
