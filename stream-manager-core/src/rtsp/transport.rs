//! How media travels: the choice among what a client offers (RFC 2326 section 12.39).

use super::message::Answer;
use super::session::bad;
use super::udp::{UdpPair, with_port};
use rtsp_types::headers::{self, RtpLowerTransport, RtpProfile, Transport, TransportMode};
use std::net::SocketAddr;
use std::sync::Arc;

/// How a track's media travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    Tcp { rtp: u8, rtcp: u8 },
    Udp { rtp: SocketAddr, rtcp: SocketAddr },
}

/// What a connection can do.
pub(super) struct Possible<'a> {
    /// Media may travel within the connection.
    pub(super) tcp: bool,
    /// Media may travel by UDP; never beside TLS.
    pub(super) udp: Option<&'a Arc<UdpPair>>,
    /// The client.
    pub(super) peer: SocketAddr,
    /// The session publishes.
    pub(super) record: bool,
}

impl Possible<'_> {
    /// The first of the client's transports that will do, and how it is confirmed.
    pub(super) fn choose(
        &self,
        transports: &headers::Transports,
        track: usize,
        taken: &[Option<Setup>],
    ) -> Result<(Setup, String), Answer> {
        let unsupported = || Answer::new(461, "Unsupported Transport");
        let record = self.record;
        let mode = if record { ";mode=record" } else { "" };
        let others = || taken.iter().enumerate().filter(|(n, _)| *n != track).filter_map(|(_, s)| *s);
        let mut problem = None;
        for transport in transports.iter() {
            let Transport::Rtp(transport) = transport else { continue };
            let params = &transport.params;
            // Publishers that say no mode mean the only one that makes sense; a wrong one is wrong.
            let wrong = if record { TransportMode::Play } else { TransportMode::Record };
            if transport.profile != RtpProfile::Avp || params.multicast || params.mode.contains(&wrong) {
                continue;
            }
            match transport.lower_transport {
                Some(RtpLowerTransport::Tcp) if self.tcp => {
                    if others().any(|s| matches!(s, Setup::Udp { .. })) {
                        continue;
                    }
                    let used = |channel: u8| {
                        others().any(
                            |s| matches!(s, Setup::Tcp { rtp, rtcp } if rtp == channel || rtcp == channel),
                        )
                    };
                    let (rtp, rtcp) = match params.interleaved {
                        Some((rtp, rtcp)) => (rtp, rtcp.or_else(|| rtp.checked_add(1))),
                        None => {
                            let free = (0..=254u8).step_by(2).find(|c| !used(*c) && !used(*c + 1));
                            let free = free.ok_or_else(unsupported)?;
                            (free, Some(free + 1))
                        }
                    };
                    let Some(rtcp) = rtcp.filter(|rtcp| *rtcp != rtp) else {
                        problem = Some(bad("interleaved needs two different channels from 0 to 255"));
                        continue;
                    };
                    if used(rtp) || used(rtcp) {
                        problem = Some(bad("these interleaved channels are another track's"));
                        continue;
                    }
                    let text = format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp}{mode}");
                    return Ok((Setup::Tcp { rtp, rtcp }, text));
                }
                Some(RtpLowerTransport::Udp) | None => {
                    let Some(pair) = self.udp else { continue };
                    if others().any(|s| matches!(s, Setup::Tcp { .. })) {
                        continue;
                    }
                    let Some((first, second)) = params.client_port else { continue };
                    let second = second.or_else(|| first.checked_add(1)).unwrap_or(0);
                    if first == 0 || second == 0 || first == second {
                        problem = Some(bad("client_port needs two different ports"));
                        continue;
                    }
                    let address = self.peer.ip().to_canonical();
                    // Nobody has media sent to somebody else.
                    let foreign = params.destination.as_ref().is_some_and(|d| {
                        d.parse::<std::net::IpAddr>().map(|ip| ip.to_canonical()) != Ok(address)
                    });
                    if foreign {
                        problem = Some(Answer::new(
                            403,
                            "Forbidden: destination has to be the client's own address",
                        ));
                        continue;
                    }
                    let (rtp, rtcp) = (with_port(self.peer, first), with_port(self.peer, second));
                    let clash = others().any(
                        |s| matches!(s, Setup::Udp { rtp: a, rtcp: b } if [a, b].contains(&rtp) || [a, b].contains(&rtcp)),
                    );
                    if clash {
                        problem = Some(bad("these client ports are another track's"));
                        continue;
                    }
                    let (ours, ours_too) = pair.ports();
                    let text = format!(
                        "RTP/AVP;unicast;client_port={first}-{second};server_port={ours}-{ours_too}{mode}"
                    );
                    return Ok((Setup::Udp { rtp, rtcp }, text));
                }
                _ => {}
            }
        }
        Err(problem.unwrap_or_else(unsupported))
    }
}
