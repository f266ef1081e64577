//! A stream of ours, sent on to another server by WHIP.

use super::counters::Counters;
use super::dial::{Answered, Dial, IceOptions};
use super::negotiate::{Plan, plan};
use super::server::{LOOK_TIMEOUT, tracks};
use super::session::Role;
use super::signalling::Endpoint;
use super::viewer::{NewViewer, Viewer};
use crate::config::IceConfig;
use crate::error::redact_url;
use crate::frame::{AudioCodec, CodecParameters, Track, VideoCodec};
use crate::hub::{Hub, HubReader};
use crate::session::{SessionKind, SessionState};
use crate::sink::forward::{Forward, ForwardHandle, ForwardState, keep_sending};
use crate::sink::{Sink, SinkError};
use crate::source::AddressError;
use std::sync::Arc;
use std::time::Duration;
use str0m::RtcConfig;
use str0m::format::{Codec, CodecConfig, CodecSpec, FormatParams, PayloadParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid, Pt};
use tokio_util::sync::CancellationToken;
use url::Url;

/// How often its counters are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// What may wait for the other server.
const QUEUE_BYTES: usize = 8 << 20;

/// Sends a stream to another server by WHIP: `whip://`, and `whips://` for HTTPS. It connects again by itself.
///
/// ```
/// # use stream_manager_core::webrtc::WhipForward;
/// # use stream_manager_core::manager::Stream;
/// # use stream_manager_core::source::TestSource;
/// let forward = WhipForward::new("whips://:token@media.example.org/door/whip").unwrap();
/// let handle = forward.handle();
/// let stream = Stream::builder("door").source(TestSource::default()).sink(forward);
/// assert_eq!(handle.status().url, "whips://:***@media.example.org/door/whip");
/// ```
pub struct WhipForward {
    endpoint: Endpoint,
    handle: ForwardHandle,
    ice: IceOptions,
}

impl WhipForward {
    /// To an address; in it may stand a name and a password, or a bearer token as a password without a name.
    ///
    /// # Errors
    /// If it is no `whip://` or `whips://` URL with a host.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let wrong = |problem: String| AddressError::NotAUrl { address: redact_url(address), problem };
        Self::from_url(&Url::parse(address).map_err(|e| wrong(e.to_string()))?)
    }

    /// To a parsed address.
    ///
    /// # Errors
    /// If it is no `whip://` or `whips://` URL with a host.
    pub fn from_url(url: &Url) -> Result<Self, AddressError> {
        let address = redact_url(url.as_str());
        match Endpoint::new(url).filter(|_| url.scheme().starts_with("whip")) {
            Some(endpoint) => {
                Ok(Self { endpoint, handle: ForwardHandle::new(address), ice: IceOptions::default() })
            }
            None => Err(AddressError::NoHost { address }),
        }
    }

    /// Sets how the server is reached, as for a [`WhepSource`](super::WhepSource::ice).
    #[must_use]
    pub fn ice(mut self, ice: &IceConfig) -> Self {
        self.ice = ice.into();
        self
    }

    /// To see how it stands.
    pub fn handle(&self) -> ForwardHandle {
        self.handle.clone()
    }

    async fn send(
        &self,
        dial: Dial,
        answered: Answered,
        plan: Plan,
        mids: Vec<(MediaKind, Mid)>,
        feed: Arc<super::feed::Feed>,
        cancel: &CancellationToken,
    ) -> Result<String, String> {
        let counters = Arc::new(Counters::default());
        let stats = counters.clone();
        let to_opus = plan.audio.as_ref().is_some_and(|chosen| chosen.to_opus);
        let role = |_, _: &super::worker::WorkerHandle| {
            Role::Viewer(Box::new(Viewer::new(NewViewer {
                watch: feed.watch(0, to_opus),
                video: plan.video,
                audio: plan.audio,
                counters,
                queue_bytes: QUEUE_BYTES,
                lower: None,
                instead: None,
                mids,
                teller: None,
            })))
        };
        let begins = dial.begin(answered, SessionKind::Reader, Arc::new(move || stats.stats()), role);
        let mut dialled = begins.await.map_err(|e| e.to_string())?;
        let mut sent = 0;
        let reason = loop {
            let over = tokio::select! {
                () = cancel.cancelled() => break None,
                reason = dialled.over() => Some(reason),
                () = tokio::time::sleep(LOOK) => None,
            };
            let stats = dialled.stats();
            if let Some(reason) = over {
                break Some(reason);
            }
            self.handle.add_bytes(stats.bytes.saturating_sub(sent));
            sent = sent.max(stats.bytes);
            if stats.state == SessionState::Connected {
                self.handle.set(ForwardState::Running, "frames go");
            }
        };
        dialled.close().await;
        Ok(reason.unwrap_or_default())
    }
}

/// What is offered of a stream's tracks.
fn offered(tracks: &[Track]) -> Vec<PayloadParams> {
    let params = |pt: u8, resend: Option<u8>, codec, rate: u32, channels, format: &str| {
        let clock_rate = Frequency::new(rate)?;
        let spec = CodecSpec { codec, clock_rate, channels, format: FormatParams::parse_line(format) };
        Some(PayloadParams::new(Pt::from(pt), resend.map(Pt::from), spec))
    };
    let video = |codec, format: &str| params(96, Some(97), codec, 90_000, None, format);
    let opus = || params(111, None, Codec::Opus, 48_000, Some(2), "minptime=10;useinbandfec=1");
    let mut offered: Vec<PayloadParams> = Vec::new();
    if let Some(found) = tracks.iter().find_map(|t| t.parameters.video()) {
        offered.extend(match found.codec {
            VideoCodec::H264 => {
                // profile-level-id is what avcC has from its second byte on (ISO/IEC 14496-15 section 5.3.3.1).
                let id: String = found
                    .extra_data
                    .get(1..4)
                    .unwrap_or(&[0x42, 0xe0, 0x1f])
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect();
                video(
                    Codec::H264,
                    &format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={id}"),
                )
            }
            VideoCodec::H265 => video(Codec::H265, "profile-id=1;tier-flag=0;level-id=153;tx-mode=SRST"),
            VideoCodec::Vp8 => video(Codec::Vp8, ""),
            VideoCodec::Vp9 => video(Codec::Vp9, "profile-id=0"),
            VideoCodec::Av1 => video(Codec::Av1, "level-idx=5;profile=0;tier=0"),
            VideoCodec::Mjpeg => None,
        });
    }
    if let Some(sound) = tracks.iter().find_map(|t| match &*t.parameters {
        CodecParameters::Audio(sound) => Some(sound),
        _ => None,
    }) {
        let telephone = sound.sample_rate == 8000 && sound.channels == 1;
        let own = match sound.codec {
            AudioCodec::Pcmu if telephone => params(0, None, Codec::PCMU, 8000, None, ""),
            AudioCodec::Pcma if telephone => params(8, None, Codec::PCMA, 8000, None, ""),
            _ => None,
        };
        offered.extend(own.into_iter().chain(opus()));
    }
    offered
}

#[async_trait::async_trait]
impl Forward for WhipForward {
    fn status_handle(&self) -> &ForwardHandle {
        &self.handle
    }

    async fn attempt(&self, hub: &Hub, cancel: &CancellationToken) -> Result<String, String> {
        let Some(tracks) = cancel.run_until_cancelled(tracks(hub)).await else { return Ok(String::new()) };
        let tracks = tracks.ok_or("the stream has no tracks at the moment")?;
        let dial = Dial::new(self.endpoint.clone(), self.ice.clone()).map_err(|e| e.to_string())?;
        let feed = dial.feeds.get(&"".into(), hub, &tracks, &dial.workers);
        feed.look(LOOK_TIMEOUT).await;
        let mut config = RtcConfig::new();
        *config.codec_config() = CodecConfig::new_from_payload_params(offered(&tracks));
        let mut mids = Vec::new();
        let asks = dial.ask(config, |api| {
            for (kind, wanted) in [
                (MediaKind::Video, tracks.iter().any(|t| t.parameters.video().is_some())),
                (MediaKind::Audio, tracks.iter().any(|t| t.parameters.audio().is_some())),
            ] {
                if wanted {
                    let (stream, track) = (Some("stream".to_owned()), Some(kind.to_string()));
                    mids.push((kind, api.add_media(kind, Direction::SendOnly, stream, track, None)));
                }
            }
        });
        let Some(answered) = cancel.run_until_cancelled(asks).await else { return Ok(String::new()) };
        let answered = answered.map_err(|e| e.to_string())?;
        let plan = match plan(&answered.answer, &tracks, feed.shared.reorders()) {
            Ok(plan) => plan,
            Err(error) => {
                dial.give_up(answered).await;
                return Err(error.to_string());
            }
        };
        self.handle.leaves_out(plan.left_out.iter().map(ToString::to_string).collect());
        self.send(dial, answered, plan, mids, feed, cancel).await
    }
}

#[async_trait::async_trait]
impl Sink for WhipForward {
    async fn run(&mut self, reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
        keep_sending(self, reader, &cancel).await;
        Ok(())
    }

    fn name(&self) -> String {
        "forward".into()
    }
}
