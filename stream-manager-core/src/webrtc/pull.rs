//! A stream that another server has, pulled by WHEP.

use super::dial::{Dial, IceOptions};
use super::intake::{Incoming, intake};
use super::publisher::{Intaken, Into, NewPublisher, Publisher, REORDER};
use super::session::Role;
use super::signalling::Endpoint;
use crate::config::{IceConfig, TlsConfig};
use crate::error::redact_url;
use crate::hub::HubWriter;
use crate::rtp::Receiver;
use crate::rtp::format::Description;
use crate::session::SessionKind;
use crate::source::tls::TlsOptions;
use crate::source::{AddressError, SUPPORTED_CODECS, Source, SourceEnd, SourceError};
use std::sync::Arc;
use std::time::Duration;
use str0m::RtcConfig;
use str0m::media::{Direction, MediaKind};
use tokio_util::sync::CancellationToken;
use url::Url;

/// A server's picture comes with keyframes of its own; one that has none for this long is asked for one.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(20);

/// A stream of another server, by WHEP: `whep://`, and `wheps://` for HTTPS.
///
/// ```
/// # use stream_manager_core::webrtc::WhepSource;
/// # use stream_manager_core::source::Source;
/// let source = WhepSource::new("wheps://:token@media.example.org/door/whep").unwrap();
/// assert_eq!(source.address(), "wheps://:***@media.example.org/door/whep");
/// ```
pub struct WhepSource {
    /// For people.
    address: String,
    endpoint: Endpoint,
    ice: IceOptions,
}

impl WhepSource {
    /// From an address; in it may stand a name and a password, or a bearer token as a password without a name.
    ///
    /// # Errors
    /// If it is no `whep://` or `wheps://` URL with a host.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let wrong = |problem: String| AddressError::NotAUrl { address: redact_url(address), problem };
        Self::from_url(&Url::parse(address).map_err(|e| wrong(e.to_string()))?)
    }

    /// From a parsed address.
    ///
    /// # Errors
    /// If it is no `whep://` or `wheps://` URL with a host.
    pub fn from_url(url: &Url) -> Result<Self, AddressError> {
        let address = redact_url(url.as_str());
        let endpoint = Endpoint::new(url).filter(|_| url.scheme().starts_with("whep"));
        match endpoint {
            Some(endpoint) => Ok(Self { address, endpoint, ice: IceOptions::default() }),
            None => Err(AddressError::NoHost { address }),
        }
    }

    /// Sets how the server is reached: by which STUN and TURN servers, beside those that it tells of itself.
    ///
    /// ```
    /// # use stream_manager_core::{config::WebRtcConfig, webrtc::WhepSource};
    /// let config: WebRtcConfig = toml::from_str("ice_servers = [{ url = \"stun:stun.example.org\" }]").unwrap();
    /// let source = WhepSource::new("wheps://media.example.org/door/whep").unwrap().ice(&config.ice());
    /// ```
    #[must_use]
    pub fn ice(mut self, ice: &IceConfig) -> Self {
        self.ice = ice.into();
        self
    }

    /// Sets how a server at a `wheps://` address shows who it is. If nothing is said, an authority that the system trusts has to
    /// vouch for it.
    ///
    /// # Errors
    /// If what is said makes no sense.
    ///
    /// ```
    /// # use stream_manager_core::{config::TlsConfig, webrtc::WhepSource};
    /// let own = TlsConfig { fingerprint: Some("0a".repeat(32)), ..TlsConfig::default() };
    /// let source = WhepSource::new("wheps://media.example.org/door/whep").unwrap().tls(&own).unwrap();
    /// ```
    pub fn tls(mut self, tls: &TlsConfig) -> Result<Self, AddressError> {
        let problem = |problem| AddressError::Tls { address: self.address.clone(), problem };
        self.endpoint.tls(TlsOptions::for_https(tls).map_err(problem)?);
        Ok(self)
    }
}

#[async_trait::async_trait]
impl Source for WhepSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        let dial = Dial::new(self.endpoint.clone(), self.ice.clone())?;
        let config = RtcConfig::new().clear_codecs();
        let config =
            config.enable_h264(true).enable_h265(true).enable_av1(true).enable_vp9(true).enable_vp8(true);
        let config = config.enable_opus(true, false).enable_pcma(true, false).enable_pcmu(true, false);
        let asks = dial.ask(config, |api| {
            for kind in [MediaKind::Video, MediaKind::Audio] {
                api.add_media(kind, Direction::RecvOnly, None, None, None);
            }
        });
        let Some(answered) = cancel.run_until_cancelled(asks).await else { return Ok(SourceEnd::Cancelled) };
        let answered = answered?;
        let taken = intake(&answered.answer).ok();
        let tracks: Vec<&Incoming> = taken.iter().flat_map(|t| t.video.iter().chain(&t.audio)).collect();
        if tracks.is_empty() {
            dial.give_up(answered).await;
            return Err(match taken.filter(|t| !t.left_out.is_empty()) {
                Some(taken) => SourceError::UnsupportedCodecs {
                    address: self.address.clone(),
                    codecs: super::reasons(&taken.left_out),
                    supported: SUPPORTED_CODECS,
                },
                None => SourceError::NoTracks { address: self.address.clone() },
            });
        }
        let descriptions: Vec<Description> = tracks.iter().map(|t| t.description.clone()).collect();
        let receiver =
            Receiver::new(&descriptions, REORDER).map_err(|e| SourceError::Protocol(e.to_string()))?;
        let counters = Arc::new(Intaken::default());
        let stats = counters.clone();
        let (finished, done) = tokio::sync::oneshot::channel::<()>();
        let role = |owner, worker: &super::worker::WorkerHandle| {
            let new = NewPublisher {
                owner,
                worker: worker.clone(),
                receiver,
                into: Into::Hub(hub.clone()),
                by: self.address.clone(),
                counters,
                keyframe_interval: KEYFRAME_INTERVAL,
            };
            let (publisher, task) = Publisher::new(&tracks, new);
            tokio::spawn(async move {
                task.await;
                drop(finished);
            });
            Role::Publisher(publisher)
        };
        let mut dialled =
            dial.begin(answered, SessionKind::Publisher, Arc::new(move || stats.stats()), role).await?;
        let reason = cancel.run_until_cancelled(dialled.over()).await;
        dialled.close().await;
        // The task ends with the session; nothing is written behind this attempt's end.
        let _ = tokio::time::timeout(Duration::from_secs(2), done).await;
        match reason {
            None => Ok(SourceEnd::Cancelled),
            Some(reason) => Err(SourceError::Other(format!("{}: {reason}", self.address))),
        }
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
