//! RTSP cameras (RFC 2326): by retina straight into the hub, or by `rtspsrc` where that cannot do it.
//!
//! retina is chosen when it can depacketize every video and audio track that the camera offers. Otherwise GStreamer's
//! `rtspsrc` takes over, which costs about eight times as much. The choice is made anew at every connection. Neither of them
//! knows TLS as we want it, or local addresses: for these both go by a [tunnel](super::tunnel). (Without the feature `rtsp`, which
//! has TLS, `rtsps://` is `rtspsrc`'s.)

mod receive;

use super::address::percent_decoded;
use super::connect;
use super::gst_source::{self, GstOptions};
use super::tunnel::{self, Tunnel, TunnelOptions};
use super::{AddressError, SUPPORTED_CODECS, Source, SourceEnd, SourceError};
use crate::error::redact_url;
use crate::frame::MediaKind;
use crate::hub::HubWriter;
use crate::pipeline::{self, make_element};
use gstreamer as gst;
use gstreamer::prelude::*;
use receive::{Offer, ReceiveError, Receiver};
use retina::client::{
    Credentials, InitialTimestampPolicy, PlayOptions, Session, SessionOptions, SetupOptions,
    TcpTransportOptions, Transport, UdpTransportOptions,
};
use retina::codec::FrameFormat;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use url::Url;

/// How long nothing may come by one transport before the other is tried.
const PATIENCE: Duration = Duration::from_secs(5);

/// How RTP travels between us and those who read or publish.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RtspTransport {
    /// Interleaved in the RTSP connection.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// How RTP travels from a camera.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum SourceTransport {
    /// By TCP if the camera can do that and sends something, else by UDP; what has worked is tried first the next time.
    #[default]
    Auto,
    /// Interleaved in the RTSP connection.
    Tcp,
    /// UDP, for the local network.
    Udp,
}

/// An RTSP camera or server.
///
/// ```
/// # use stream_manager_core::source::{RtspSource, SourceTransport};
/// let source = RtspSource::new("rtsp://admin:secret@192.0.2.7/stream1").unwrap().transport(SourceTransport::Udp);
/// ```
#[derive(Clone, Debug)]
pub struct RtspSource {
    /// Without credentials.
    url: Url,
    credentials: Option<Credentials>,
    transport: SourceTransport,
    timeout: Duration,
    user_agent: String,
    local: Option<IpAddr>,
    /// The kinds of tracks that are taken; all if none.
    tracks: Vec<MediaKind>,
    #[cfg(feature = "rtsp")]
    tls: super::tls::TlsOptions,
    /// What is tried first if that is ours to choose.
    udp_first: bool,
}

impl RtspSource {
    /// From an address; user and password may stand in it.
    ///
    /// # Errors
    /// If it is no `rtsp://` or `rtsps://` URL with a host.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let url = Url::parse(address)
            .map_err(|e| AddressError::NotAUrl { address: redact_url(address), problem: e.to_string() })?;
        Self::from_url(url)
    }

    /// From a parsed address.
    ///
    /// # Errors
    /// If it is no `rtsp://` or `rtsps://` URL with a host.
    pub fn from_url(mut url: Url) -> Result<Self, AddressError> {
        if !matches!(url.scheme(), "rtsp" | "rtsps") {
            let (address, scheme) = (redact_url(url.as_str()), url.scheme().to_owned());
            return Err(AddressError::UnknownScheme { address, scheme });
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(AddressError::NoHost { address: redact_url(url.as_str()) });
        }
        let credentials = (!url.username().is_empty()).then(|| Credentials {
            username: percent_decoded(url.username()),
            password: percent_decoded(url.password().unwrap_or_default()),
        });
        // Both can only fail for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self {
            url,
            credentials,
            transport: SourceTransport::default(),
            timeout: Duration::from_secs(10),
            user_agent: concat!("stream-manager/", env!("CARGO_PKG_VERSION")).into(),
            local: None,
            tracks: Vec::new(),
            #[cfg(feature = "rtsp")]
            tls: super::tls::TlsOptions::default(),
            udp_first: false,
        })
    }

    /// Sets how RTP travels; what works by default, TCP first.
    #[must_use]
    pub fn transport(mut self, transport: SourceTransport) -> Self {
        self.transport = transport;
        self
    }

    /// Sets how long connecting may take, up to the answer to PLAY; 10 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets user and password, instead of those in the address.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials { username: user.into(), password: password.into() });
        self
    }

    /// Sets what we say we are.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Sets the local address that connections come from. Media travels by TCP then.
    #[must_use]
    pub fn local_address(mut self, address: IpAddr) -> Self {
        self.local = Some(address);
        self
    }

    /// Takes only tracks of these kinds; the others are not even asked for.
    #[must_use]
    pub fn tracks(mut self, kinds: impl IntoIterator<Item = MediaKind>) -> Self {
        self.tracks = kinds.into_iter().collect();
        self
    }

    /// Says how the camera has to show who it is (`rtsps://`); by default it does not have to.
    ///
    /// # Errors
    /// If the fingerprint is none, or there is also an authority.
    #[cfg(feature = "rtsp")]
    pub fn tls(mut self, config: &crate::config::TlsConfig) -> Result<Self, AddressError> {
        self.tls = super::tls::TlsOptions::from_config(config)
            .map_err(|problem| AddressError::Tls { address: self.shown(), problem })?;
        Ok(self)
    }

    /// The way to the camera, if it is none that clients know.
    fn tunnel(&self) -> Option<TunnelOptions> {
        #[cfg(feature = "rtsp")]
        {
            let tls = (self.url.scheme() == "rtsps").then(|| self.tls.clone());
            (tls.is_some() || self.local.is_some()).then_some(TunnelOptions { local: self.local, tls })
        }
        #[cfg(not(feature = "rtsp"))]
        self.local.filter(|_| self.url.scheme() == "rtsp").map(|local| TunnelOptions { local: Some(local) })
    }

    /// Where a client has to connect, and what has to live as long as it does.
    async fn reach(&self) -> Result<(Url, Option<Tunnel>), SourceError> {
        let at = |address: SocketAddr| {
            let mut url = self.url.clone();
            // These can only fail for URLs without a host.
            let _ = url.set_ip_host(address.ip());
            let _ = url.set_port(Some(address.port()));
            url
        };
        if let Some(options) = self.tunnel() {
            let tunnel = tunnel::open(&self.url, self.port(), &options).await?;
            let mut url = at(tunnel.address);
            let _ = url.set_scheme("rtsp");
            return Ok((url, Some(tunnel)));
        }
        let addresses = connect::addresses(&self.url, self.port()).await?;
        if addresses.len() < 2 {
            return Ok((self.url.clone(), None));
        }
        // Which of them answers; clients would wait for one after the other.
        let host = connect::host_and_port(&self.url, self.port());
        let answers = connect::connect(&host, &addresses, None).await?;
        let address = answers.peer_addr().map_err(|e| SourceError::Other(e.to_string()))?;
        Ok((at(address), None))
    }

    /// Whether tracks of this kind of media, as SDP calls it, are taken.
    fn wants(&self, media: &str) -> bool {
        let kind = match media {
            "video" | "image" => MediaKind::Video,
            "audio" => MediaKind::Audio,
            _ => MediaKind::Data,
        };
        self.tracks.is_empty() || self.tracks.contains(&kind)
    }

    fn shown(&self) -> String {
        redact_url(self.url.as_str())
    }

    async fn connect(&self, udp: bool) -> Result<Connection, SourceError> {
        let (url, tunnel) = self.reach().await?;
        let options =
            SessionOptions::default().creds(self.credentials.clone()).user_agent(self.user_agent.clone());
        let mut session = Session::describe(url, options).await.map_err(|e| self.translate(&e))?;
        let all: Vec<Offer> = session.streams().iter().map(Offer::of).collect();
        if all.iter().all(|o| !o.is_media()) {
            return Err(SourceError::NoTracks { address: self.shown() });
        }
        // Those that are not wanted keep their place, and are nothing.
        let offered: Vec<Offer> =
            all.into_iter().map(|o| if self.wants(&o.media) { o } else { o.unwanted() }).collect();
        if offered.iter().all(|o| o.media.is_empty()) {
            return Err(SourceError::NoWantedTracks { address: self.shown() });
        }
        if offered.iter().any(Offer::needs_gstreamer) {
            return Ok(Connection::NeedsGstreamer);
        }
        let wanted: Vec<usize> = (0..offered.len()).filter(|i| offered[*i].by_retina()).collect();
        if wanted.is_empty() {
            let codecs = offered
                .iter()
                .filter(|o| !o.name.is_empty())
                .map(|o| o.name.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            return Err(SourceError::UnsupportedCodecs {
                address: self.shown(),
                codecs,
                supported: SUPPORTED_CODECS,
            });
        }
        for index in &wanted {
            let transport = if udp && tunnel.is_none() {
                Transport::Udp(UdpTransportOptions::default())
            } else {
                Transport::Tcp(TcpTransportOptions::default())
            };
            let options = SetupOptions::default().transport(transport).frame_format(FrameFormat::MP4);
            session.setup(*index, options).await.map_err(|e| self.translate(&e))?;
        }
        // Many cameras leave RTP-Info out; the timeline then starts with each track's first packet.
        let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
        let playing = session.play(options).await.map_err(|e| self.translate(&e))?;
        let demuxed = playing.demuxed().map_err(|e| self.translate(&e))?;
        Ok(Connection::Retina(Box::new(Receiver::new(demuxed, &wanted)), tunnel))
    }

    fn port(&self) -> u16 {
        self.url.port().unwrap_or(if self.url.scheme() == "rtsps" { 322 } else { 554 })
    }

    fn translate(&self, error: &retina::Error) -> SourceError {
        match error.status_code() {
            Some(401) => return SourceError::Unauthorized { address: self.shown() },
            Some(404) => return SourceError::NotFound { address: self.shown() },
            // 200 with a status error means that the answer's body made no sense.
            Some(status) if status >= 300 => return SourceError::Status { address: self.shown(), status },
            _ => {}
        }
        // The rest of the text is connection detail for packet captures.
        let text = error.to_string();
        let first_line = text.lines().next().unwrap_or_default().to_owned();
        if first_line.contains("No parseable streams") {
            return SourceError::NoTracks { address: self.shown() };
        }
        if let Some(problem) = first_line.strip_prefix("Unable to connect to RTSP server: ") {
            let address = format!("{}:{}", self.url.host_str().unwrap_or_default(), self.port());
            return SourceError::Connect { address, problem: problem.to_owned() };
        }
        SourceError::Protocol(first_line)
    }

    async fn run_rtspsrc(
        &self,
        hub: &HubWriter,
        cancel: &CancellationToken,
        udp: bool,
    ) -> Result<SourceEnd, SourceError> {
        pipeline::init()?;
        let timeout = self.timeout;
        let reached = tokio::time::timeout(timeout, self.reach()).await;
        let (url, tunnel) = reached.map_err(|_| SourceError::Timeout {
            what: format!("connecting to {}", self.shown()),
            timeout,
        })??;
        let source = make_element("rtspsrc")?;
        source.set_property("location", url.as_str());
        source.set_property("user-agent", &self.user_agent);
        if let Some(credentials) = &self.credentials {
            source.set_property("user-id", &credentials.username);
            source.set_property("user-pw", &credentials.password);
        }
        source
            .set_property_from_str("protocols", if udp && tunnel.is_none() { "udp+tls" } else { "tcp+tls" });
        source.set_property("latency", 200u32);
        // The camera's own timestamps, not corrected for the drift of its clock: the timeline follows them.
        source.set_property_from_str("buffer-mode", "none");
        let timeout_us = u64::try_from(self.timeout.as_micros()).unwrap_or(u64::MAX);
        source.set_property("tcp-timeout", timeout_us);
        // Where there is no tunnel that looks at certificates, none is looked at: cameras make their own.
        source.set_property_from_str("tls-validation-flags", "generic-error");
        if source.find_property("add-reference-timestamp-meta").is_some() {
            source.set_property("add-reference-timestamp-meta", true);
        }
        let this = self.clone();
        source.connect("select-stream", false, move |values| {
            let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
            let media = caps.and_then(|caps| caps.structure(0)?.get::<String>("media").ok());
            Some(media.is_none_or(|media| this.wants(&media)).to_value())
        });
        let options = GstOptions { may_end: false, timeout: self.timeout, ..GstOptions::live(self.shown()) };
        let result = gst_source::run(gst_source::pipeline_of(&source)?, &options, hub, cancel).await;
        drop(tunnel);
        result
    }

    /// One connection by one transport. `None` if nothing has come by it, and the other one is to be tried.
    async fn attempt(
        &mut self,
        udp: bool,
        patience: Option<Duration>,
        hub: &HubWriter,
        cancel: &CancellationToken,
    ) -> Result<Option<SourceEnd>, SourceError> {
        let timeout = self.timeout;
        let connection = tokio::select! {
            () = cancel.cancelled() => return Ok(Some(SourceEnd::Cancelled)),
            connection = tokio::time::timeout(timeout, self.connect(udp)) => connection,
        };
        let connection = connection
            .map_err(|_| SourceError::Timeout { what: format!("connecting to {}", self.shown()), timeout })?;
        let (mut receiver, _tunnel) = match connection {
            // "Unsupported transport" (RFC 2326 section 11.3.14).
            Err(SourceError::Status { status: 461, .. }) if patience.is_some() => return Ok(None),
            Err(error) => return Err(error),
            Ok(Connection::NeedsGstreamer) => return self.run_rtspsrc(hub, cancel, udp).await.map(Some),
            Ok(Connection::Retina(receiver, tunnel)) => (receiver, tunnel),
        };
        let received = receiver.received.clone();
        let silent = async {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
            if received.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let result = tokio::select! {
            () = cancel.cancelled() => None,
            () = silent => return Ok(None),
            result = receiver.receive(hub) => Some(result),
        };
        if receiver.received.load(Ordering::Relaxed) {
            self.udp_first = udp;
        }
        let Some(result) = result else { return Ok(Some(SourceEnd::Cancelled)) };
        Err(match result {
            Ok(()) => SourceError::Ended,
            Err(ReceiveError::Retina(error)) => self.translate(&error),
            Err(ReceiveError::Source(error)) => error,
        })
    }
}

#[async_trait::async_trait]
impl Source for RtspSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        if cfg!(not(feature = "rtsp")) && self.url.scheme() == "rtsps" {
            return self.run_rtspsrc(hub, &cancel, self.transport == SourceTransport::Udp).await;
        }
        let udp = match self.transport {
            SourceTransport::Tcp => false,
            SourceTransport::Udp => true,
            // By a tunnel there is only one.
            SourceTransport::Auto if self.tunnel().is_some() => false,
            SourceTransport::Auto => {
                let udp = self.udp_first;
                if let Some(end) = self.attempt(udp, Some(PATIENCE), hub, &cancel).await? {
                    return Ok(end);
                }
                tracing::info!(
                    address = self.shown(),
                    tcp = udp,
                    udp = !udp,
                    "nothing comes this way; trying the other"
                );
                // Also if the camera needs a moment before it takes another connection.
                self.udp_first = !udp;
                hub.begin_session();
                let other = self.attempt(!udp, Some(PATIENCE), hub, &cancel).await?;
                return other.ok_or(SourceError::Silent { silence: PATIENCE });
            }
        };
        Ok(self.attempt(udp, None, hub, &cancel).await?.unwrap_or(SourceEnd::Cancelled))
    }

    fn address(&self) -> String {
        let mut shown = self.url.clone();
        if let Some(credentials) = &self.credentials {
            let _ = shown.set_username(&credentials.username);
            let _ = shown.set_password(Some("***"));
        }
        redact_url(shown.as_str())
    }
}

enum Connection {
    Retina(Box<Receiver>, Option<Tunnel>),
    NeedsGstreamer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_address_and_never_show() {
        let source = RtspSource::new("rtsp://ad%40min:p%2Fw+d@cam:8554/x").unwrap();
        let credentials = source.credentials.clone().unwrap();
        assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("ad@min", "p/w+d"));
        assert_eq!(source.url.as_str(), "rtsp://cam:8554/x");
        assert_eq!(source.address(), "rtsp://ad%40min:***@cam:8554/x");
    }
}
