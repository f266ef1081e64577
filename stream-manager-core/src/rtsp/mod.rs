//! The RTSP server (RFC 2326): streams out to readers, and in from publishers.
//!
//! Feature `rtsp`. Works on tokio alone; no GStreamer is on the way.
//!
//! ```text
//! hub ──► Feed (one per stream that is read) ──► Reader ──► TCP connection, or UDP address
//!           packets of each frame, made once      bounded queue, only filled while the socket takes nothing
//! ```
//!
//! A feed reads the hub, packetizes each frame once, and writes it to every reader's socket by itself: one vectored
//! write per frame and reader, without waking a task per reader. Only what a socket does not take at once waits in
//! that reader's queue, for its connection's task to send. Readers never wait for each other.
//!
//! # A slow reader
//!
//! When a frame does not fit into its queue ([`RtspOptions::queue_bytes`]), everything in it that has not been begun
//! is dropped, and so is what follows up to the next keyframe for which the queue is at most half full. A reader
//! that takes nothing for [`RtspOptions::write_timeout`], or has to be brought forward like that more than ten times
//! in a minute, is disconnected. What waits is shared with the other readers and the kept GOP; a reader's own
//! memory is its queue's list.
//!
//! # Recordings
//!
//! An address with `?start=` (and `end`, `duration`, `gaps`, as for playback by HTTP) is a recording, which its reader has for itself: sent as
//! fast as it was recorded, or as `Scale` says (above 2 its keyframes only), from where `Range` says (`npt`, `clock`), and held by PAUSE. It
//! waits for a reader that is slow. Without an end it goes on with what is being recorded.
//!
//! # Streams and rights
//!
//! The server knows streams by a [`StreamDirectory`], rights by an [`Authorizer`](crate::auth::Authorizer), and lists
//! its sessions in [`Sessions`](crate::session::Sessions). [`StreamManager`](crate::manager::StreamManager) is
//! such a directory.
//!
//! ```no_run
//! use std::sync::Arc;
//! use stream_manager_core::auth::Users;
//! use stream_manager_core::manager::StreamManager;
//! use stream_manager_core::rtsp::{RtspOptions, RtspServer};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let manager = StreamManager::builder().build().await?;
//! let server = RtspServer::bind(RtspOptions::default()).await?;
//! println!("rtsp://{}/<id>", server.address());
//! let (streams, sessions) = (Arc::new(manager.clone()), manager.sessions().clone());
//! server.run(streams, Arc::new(Users::new([])), sessions, CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```

mod access;
mod address;
mod client;
mod connection;
mod feed;
mod forward;
mod message;
mod outlet;
mod publish;
mod range;
mod reading;
mod replay;
mod server;
mod session;
mod transport;
mod udp;

pub use crate::config::StartMode;
pub use crate::tls::TlsFiles;
pub use forward::RtspForward;
pub use message::{Incoming, MessageError, next_message};
pub use server::{RtspError, RtspOptions, RtspServer};

use crate::hub::Hub;
use crate::playback::{PlanFrames, PlaybackRequest};
use crate::source::{PublishError, PublishSlot};
use std::sync::Arc;

/// A stream as the server finds it.
#[derive(Clone, Debug)]
pub struct FoundStream {
    /// Its id.
    pub id: Arc<str>,
    /// Its hub.
    pub hub: Hub,
    /// Whether nothing comes and nothing is on its way: a reader would wait for nothing.
    pub idle: bool,
}

/// Why a recording cannot be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// There is no such stream, or nothing has been recorded then.
    #[error("{0}")]
    NotFound(String),
    /// It has been recorded in a form that cannot be played.
    #[error("{0}")]
    Unplayable(String),
    /// It cannot be read.
    #[error("{0}")]
    Failed(String),
}

/// Where the server finds streams.
#[async_trait::async_trait]
pub trait StreamDirectory: Send + Sync + 'static {
    /// The stream with this id.
    fn find(&self, id: &str) -> Option<FoundStream>;

    /// The place for a publisher of this stream, which may come into being by that.
    ///
    /// # Errors
    /// If it cannot be published.
    fn publish(&self, id: &str) -> Result<PublishSlot, PublishError>;

    /// What has been recorded of a stream in a range, and what follows if it has no end. Nothing, if the directory knows of no
    /// recordings.
    ///
    /// # Errors
    /// If there is nothing, or it cannot be played.
    async fn recorded(&self, id: &str, request: PlaybackRequest) -> Result<PlanFrames, NotRecorded> {
        Err(NotRecorded::NotFound(format!("nothing is recorded of {id} from {} on", request.start)))
    }

    /// Tells of a reader that was too slow and lost frames.
    fn lagged(&self, id: &str, reader: &str, frames: u64);
}
