//! An offer's answer: the session behind it.

use super::dtls;
use super::negotiate::{Feedback, NegotiationError};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use str0m::change::SdpOffer;
use str0m::config::DtlsCert;
use str0m::format::{CodecConfig, PayloadParams};
use str0m::net::TcpType;
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

/// How often a session's counters are looked at.
pub(super) const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// A session that has been answered and waits for the client to connect.
pub(super) struct Answered {
    pub(super) rtc: Rtc,
    /// What it answers.
    pub(super) offer: Box<str>,
    pub(super) sdp: String,
    /// Its ICE name.
    pub(super) name: String,
}

/// What all sessions have in common.
pub(super) struct Identity {
    pub(super) certificate: DtlsCert,
    /// Where the port is reached, public addresses first.
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) public: Vec<IpAddr>,
}

impl Identity {
    pub(super) fn local(&self) -> Vec<Candidate> {
        let own = || self.candidates.iter().filter(|c| !self.public.contains(&c.ip()));
        let public = self.candidates.iter().filter(|c| self.public.contains(&c.ip()));
        // What arrives for a public address has been rewritten on its way to one of our own.
        let ways = own().map(|own| (own, None)).chain(public.map(|public| {
            let base = own().find(|own| own.is_ipv4() == public.is_ipv4());
            (public, base)
        }));
        // Checks go the other way by TCP: clients connect (RFC 6544 section 4.1).
        let udp = ways.clone().filter_map(|(address, base)| match base {
            Some(base) => Candidate::server_reflexive(*address, *base, "udp").ok(),
            None => Candidate::host(*address, "udp").ok(),
        });
        let tcp = ways.filter_map(|(address, base)| {
            let candidate = Candidate::builder().tcp();
            match base {
                Some(base) => {
                    candidate.server_reflexive(*address, *base).tcptype(TcpType::Passive).build().ok()
                }
                None => candidate.host(*address).tcptype(TcpType::Passive).build().ok(),
            }
        });
        udp.chain(tcp).collect()
    }

    /// Answers an offer with these payload types.
    pub(super) fn answer(
        &self,
        offer: &str,
        params: Vec<PayloadParams>,
        feedback: Feedback,
    ) -> Result<Answered, NegotiationError> {
        let bad = |error: String| NegotiationError::BadOffer(error);
        let text = offer;
        let offer = SdpOffer::from_sdp_string(offer).map_err(|e| bad(e.to_string()))?;
        let credentials = IceCreds::new();
        let name = credentials.ufrag.clone();
        let mut extensions = ExtensionMap::empty();
        extensions.set(4, Extension::RtpMid);
        match feedback {
            Feedback::Reports => {}
            Feedback::Estimate => extensions.set(2, Extension::AbsoluteSendTime),
            Feedback::TransportWide => extensions.set(3, Extension::TransportSequenceNumber),
        }
        let mut config = RtcConfig::new()
            .set_local_ice_credentials(credentials)
            .set_crypto_provider(dtls::crypto())
            .set_dtls_cert(self.certificate.clone())
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .set_extension_map(extensions)
            .set_stats_interval(Some(STATS_INTERVAL));
        *config.codec_config() = CodecConfig::new_from_payload_params(params);
        let mut rtc = config.build(Instant::now());
        for candidate in self.local() {
            rtc.add_local_candidate(candidate);
        }
        let answer = rtc.sdp_api().accept_offer(offer).map_err(|e| bad(e.to_string()))?;
        Ok(Answered { rtc, offer: text.into(), sdp: answer.to_sdp_string(), name })
    }
}

/// The same for what comes from anybody: a library's assertion is not our end.
pub(super) fn answer(
    identity: &Identity,
    offer: &str,
    params: Vec<PayloadParams>,
    feedback: Feedback,
) -> Result<Answered, NegotiationError> {
    let answer = std::panic::AssertUnwindSafe(|| identity.answer(offer, params, feedback));
    std::panic::catch_unwind(answer)
        .unwrap_or_else(|_| Err(NegotiationError::BadOffer("it contradicts itself".into())))
}
