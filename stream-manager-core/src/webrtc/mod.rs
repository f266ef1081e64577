//! WebRTC: browsers watch a stream in well under a second (feature `webrtc`).
//!
//! [`WebRtcServer`] binds one UDP port for all sessions, and the same number by TCP for clients that cannot use UDP. Signalling is not its business: whoever has an offer hands it
//! to [`watch`](WebRtcServer::watch) and gets the answer; the control plane does so for WHEP.
//!
//! ```text
//! hub ──► feed (one a stream): packetizes once, keeps the GOP, turns sound into Opus ──► workers (a fixed number)
//! UDP port ──► router: by ICE name or address ──► worker: its viewers' sessions (str0m) ──► UDP port
//! ```
//!
//! A [`feed`](feed::Feed) exists while somebody watches its stream. A worker owns its viewers outright, so there is no
//! lock on the way of a packet; payloads are shared by all viewers and by what is kept for retransmission. A viewer
//! begins with the kept GOP, whose timestamps are pressed together so that players show the present at once, and gets it
//! again when it says that its picture is broken (PLI). One that is too slow loses whole GOPs.
//!
//! What is spoken: ICE (RFC 8445, lite; RFC 6544 by TCP), DTLS-SRTP (RFC 5763, RFC 5764), RTP as in [`crate::rtp`], NACK and PLI
//! (RFC 4585), retransmission (RFC 4588).

mod address;
mod answer;
mod feed;
mod negotiate;
mod options;
mod route;
mod server;
mod socket;
mod tcp;
mod viewer;
mod worker;

pub use negotiate::NegotiationError;
pub use options::{IceServer, WebRtcOptions};
pub use server::{PortStats, WatchError, WatchRequest, Watching, WebRtcError, WebRtcServer};

/// A track that viewers do not get.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct LeftOut {
    /// Its codec.
    pub codec: String,
    /// Why.
    pub reason: String,
}
