//! WebRTC: browsers watch a stream in well under a second, and are cameras (feature `webrtc`).
//!
//! [`WebRtcServer`] binds one UDP port for all sessions, and the same number by TCP for clients that cannot use UDP.
//! Signalling is not its business: whoever has an offer hands it to [`watch`](WebRtcServer::watch) or
//! [`publish`](WebRtcServer::publish) and gets the answer; the control plane does so for WHEP and WHIP.
//!
//! ```text
//! hub ──► feed (one a stream): packetizes once, keeps the GOP, turns sound into Opus ──► workers (a fixed number)
//! UDP port ──► router: by ICE name or address ──► worker: its sessions (str0m) ──► UDP port
//!                                                 └──► a publisher's task: access units ──► hub
//! ```
//!
//! A feed exists while somebody watches its stream. A worker owns its viewers outright, so there is no
//! lock on the way of a packet; payloads are shared by all viewers and by what is kept for retransmission. A viewer
//! begins with the kept GOP, whose timestamps are pressed together so that players show the present at once, and gets it
//! again when it says that its picture is broken (PLI). One that is too slow loses whole GOPs.
//!
//! What is spoken: ICE (RFC 8445, lite; RFC 6544 by TCP), DTLS-SRTP (RFC 5763, RFC 5764), RTP as in [`crate::rtp`], NACK and PLI
//! (RFC 4585), retransmission (RFC 4588).

mod address;
mod answer;
mod counters;
mod dial;
mod dtls;
mod feed;
mod gather;
mod ice_server;
mod intake;
mod line;
mod lower;
mod negotiate;
mod options;
mod peer;
mod publisher;
mod pull;
mod push;
mod relay;
mod rendition;
mod route;
mod seen;
mod server;
mod session;
mod signalling;
mod signals;
mod socket;
mod tcp;
mod teller;
mod viewer;
mod worker;

pub use ice_server::IceServer;
pub use lower::LowerStream;
pub use negotiate::NegotiationError;
pub use options::WebRtcOptions;
pub use pull::WhepSource;
pub use push::WhipForward;
pub use server::{OpenedSession, PortStats, SessionError, SessionRequest, WebRtcError, WebRtcServer};
pub use signals::RestartError;

/// A track that viewers do not get.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct LeftOut {
    /// Its codec.
    pub codec: String,
    /// Why.
    pub reason: String,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.codec, self.reason)
    }
}

/// All of it in one line.
fn reasons(left_out: &[LeftOut]) -> String {
    left_out.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The ways in for what comes from the network, as fuzz targets use them. Nothing here catches a panic.
#[doc(hidden)]
pub mod fuzzing {
    use super::answer::Identity;
    use super::intake::{intake, one_way};
    use super::negotiate::{Feedback, plan};
    use crate::frame::Track;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::OnceLock;
    use std::time::Instant;
    use str0m::net::{DatagramRecv, Protocol, Receive};
    use str0m::{Input, Output, Rtc};

    const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

    fn identity() -> Option<&'static Identity> {
        static IDENTITY: OnceLock<Option<Identity>> = OnceLock::new();
        let make = || {
            let certificate = str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()?;
            Some(Identity { certificate, candidates: vec![HERE], public: Vec::new() })
        };
        IDENTITY.get_or_init(make).as_ref()
    }

    /// A session as an offer makes it.
    pub struct Peer(Rtc);

    /// Answers an offer.
    pub fn offer(text: &str, tracks: &[Track]) -> Option<Peer> {
        let plan = plan(text, tracks, false).ok()?;
        let params = plan.video.iter().chain(&plan.audio).map(|chosen| chosen.params).collect();
        identity()?.answer(text, params, plan.feedback).ok().map(|answered| Peer(answered.rtc))
    }

    /// Answers an offer of somebody who publishes.
    pub fn publish(text: &str) -> Option<Peer> {
        let intake = intake(text).ok()?;
        let params = intake.video.iter().chain(&intake.audio).map(|incoming| incoming.params).collect();
        identity()?
            .answer(&one_way(text), params, Feedback::TransportWide)
            .ok()
            .map(|answered| Peer(answered.rtc))
    }

    impl Peer {
        /// Takes a datagram and everything that the session says to it.
        pub fn receive(&mut self, data: &[u8]) {
            let Ok(contents) = DatagramRecv::try_from(data) else { return };
            let receive = Receive { proto: Protocol::Udp, source: HERE, destination: HERE, contents };
            let input = Input::Receive(Instant::now(), receive);
            if self.0.handle_input(input).is_err() {
                return;
            }
            while let Ok(output) = self.0.poll_output() {
                if matches!(output, Output::Timeout(_)) {
                    return;
                }
            }
        }
    }
}
