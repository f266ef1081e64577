//! The RTMP server (Adobe's RTMP 1.0, Enhanced RTMP): streams in from publishers such as OBS, ffmpeg and encoders.
//!
//! Feature `rtmp`. Works on tokio alone.
//!
//! ```text
//! connection ──► ChunkReader ──► messages ──► flv (what a message carries) ──► Intake (tracks, times) ──► hub
//! ```
//!
//! A client publishes `rtmp://host/<id>`: the application's name and the stream's (OBS: the key) put together with a `/` are the
//! stream's id. Who it is stands behind that: `?user=…&pass=…`. Clients that want to play are refused: streams are read by RTSP, HLS
//! and the other protocols.
//!
//! ```no_run
//! use std::sync::Arc;
//! use stream_manager_core::auth::Users;
//! use stream_manager_core::manager::StreamManager;
//! use stream_manager_core::rtmp::{RtmpOptions, RtmpServer};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let manager = StreamManager::builder().build().await?;
//! let server = RtmpServer::bind(RtmpOptions::default())?;
//! println!("rtmp://{}/<id>", server.address());
//! let (streams, sessions) = (Arc::new(manager.clone()), manager.sessions().clone());
//! server.run(streams, Arc::new(Users::new([])), sessions, CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```

mod amf;
mod chunk;
mod flv;
mod intake;
mod server;
mod session;

pub use amf::{Amf, read_values};
pub use chunk::{ChunkError, ChunkReader, RtmpMessage};
pub use flv::{FlvError, Message, audio, video};
pub use server::{RtmpError, RtmpOptions, RtmpServer};

use crate::source::{PublishError, PublishSlot};

/// Where the server finds the streams that are published.
pub trait PublishDirectory: Send + Sync + 'static {
    /// The place for a publisher of this stream, which may come into being by that.
    ///
    /// # Errors
    /// If it cannot be published.
    fn publish(&self, id: &str) -> Result<PublishSlot, PublishError>;
}
