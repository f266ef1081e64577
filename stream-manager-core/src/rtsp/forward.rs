//! Streams sent on by RTSP (RFC 2326): ANNOUNCE and RECORD, media within the connection.
//!
//! Nothing is encoded anew. An attempt lasts until the other side closes the connection or takes nothing, or the stream's tracks change.

use super::client::Client;
use super::feed::{compatible, reports};
use crate::auth::challenge::Login;
use crate::error::redact_url;
use crate::frame::{MediaKind, Track, TrackId, WallTime};
use crate::hub::{Hub, HubItem, HubReader, ReaderOptions};
use crate::rtp::{Packetizer, PacketizerOptions, Packets, format, is_worth_a_line};
use crate::sink::forward::{Forward, ForwardHandle, ForwardState, keep_sending};
use crate::sink::{Sink, SinkError};
use crate::source::{AddressError, percent_decoded};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use url::Url;

/// How long connecting may take, up to the answer to RECORD.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The other side may take nothing for this long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often sender reports go out.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// How often we say that we are still there.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// Sends a stream to another RTSP server: `rtsp://` and `rtsps://`. It connects again by itself.
///
/// ```
/// # use stream_manager_core::rtsp::RtspForward;
/// let forward = RtspForward::new("rtsp://me:geheim@media.example.org/yard").unwrap();
/// assert_eq!(forward.handle().status().url, "rtsp://me:***@media.example.org/yard");
/// ```
pub struct RtspForward {
    url: Url,
    credentials: Option<Login>,
    handle: ForwardHandle,
}

impl RtspForward {
    /// To an address.
    ///
    /// # Errors
    /// If it is of another kind, or lacks its host.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let wrong = |problem: String| AddressError::NotAUrl { address: redact_url(address), problem };
        Self::from_url(Url::parse(address).map_err(|e| wrong(e.to_string()))?)
    }

    /// To a parsed address.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_url(mut url: Url) -> Result<Self, AddressError> {
        let address = redact_url(url.as_str());
        if !matches!(url.scheme(), "rtsp" | "rtsps") {
            return Err(AddressError::NoForward { address, scheme: url.scheme().to_owned() });
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(AddressError::NoHost { address });
        }
        let handle = ForwardHandle::new(address);
        let credentials = (!url.username().is_empty()).then(|| Login {
            user: percent_decoded(url.username()),
            password: percent_decoded(url.password().unwrap_or_default()),
        });
        // Both can only fail for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, credentials, handle })
    }

    /// To see how it stands.
    pub fn handle(&self) -> ForwardHandle {
        self.handle.clone()
    }

    async fn connect(&self, tracks: &[Track]) -> Result<Client, String> {
        let mut client = Client::connect(&self.url, self.credentials.clone()).await?;
        let sdp = format::describe(tracks, client.local_address(), "stream");
        client
            .request("ANNOUNCE", self.url.as_str(), &[("Content-Type", "application/sdp".into())], &sdp)
            .await?;
        let base = self.url.as_str().trim_end_matches('/');
        for number in 0..tracks.len() {
            let (rtp, rtcp) = (number * 2, number * 2 + 1);
            let transport = format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp};mode=record");
            client
                .request("SETUP", &format!("{base}/trackID={number}"), &[("Transport", transport)], "")
                .await?;
        }
        client.request("RECORD", self.url.as_str(), &[("Range", "npt=0.000-".into())], "").await?;
        Ok(client)
    }

    async fn send(
        &self,
        client: &mut Client,
        tracks: &[Track],
        reader: &mut HubReader,
        cancel: &CancellationToken,
    ) -> Result<String, String> {
        let mut packetizers: Vec<Packetizer> = tracks
            .iter()
            .enumerate()
            .map(|(number, track)| Packetizer::new(number, &track.parameters, PacketizerOptions::default()))
            .collect();
        let video = tracks.iter().find(|t| t.parameters.kind() == MediaKind::Video).map(|t| t.id);
        let mut waits_for_keyframe = video.is_some();
        let (mut reported, mut alive) = (None::<Instant>, Instant::now());
        let mut refused = 0u64;
        loop {
            let item = tokio::select! {
                () = cancel.cancelled() => return Ok(String::new()),
                ended = client.answers() => return Err(ended),
                item = reader.next() => item,
            };
            let frame = match item {
                None => return Ok(String::new()),
                Some(HubItem::Frame(frame)) => frame,
                Some(HubItem::Tracks(new)) if compatible(tracks, &new) => continue,
                Some(HubItem::Tracks(_)) => return Err("the stream's tracks have changed".into()),
                Some(HubItem::Discontinuity | HubItem::Lagged { .. }) => {
                    waits_for_keyframe = video.is_some();
                    continue;
                }
                Some(HubItem::Input(_)) => continue,
            };
            let sync = frame.keyframe && video.is_none_or(|video| video == frame.track);
            if waits_for_keyframe && !sync {
                continue;
            }
            waits_for_keyframe = false;
            let TrackId(number) = frame.track;
            let Some(packetizer) = packetizers.get_mut(number as usize) else { continue };
            let packets = match packetizer.packetize(&frame, sync) {
                Ok(packets) => packets,
                Err(error) => {
                    refused += 1;
                    if is_worth_a_line(refused) {
                        tracing::warn!(%error, frames = refused, "frames are left out of a forward");
                    }
                    continue;
                }
            };
            self.write(client, &packets).await?;
            if reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
                reported = Some(Instant::now());
                let now = WallTime::now();
                let time = frame.pts + now.saturating_since(frame.wall_clock);
                for report in reports(&packetizers, now, time) {
                    self.write(client, &report).await?;
                }
            }
            if alive.elapsed() >= KEEP_ALIVE {
                alive = Instant::now();
                client.say("OPTIONS", self.url.as_str()).await?;
            }
        }
    }

    async fn write(&self, client: &mut Client, packets: &Packets) -> Result<(), String> {
        let writing = tokio::time::timeout(WRITE_TIMEOUT, client.write(packets));
        writing.await.map_err(|_| format!("the other side takes nothing for {WRITE_TIMEOUT:?}"))??;
        self.handle.add_bytes(packets.bytes() as u64);
        Ok(())
    }
}

#[async_trait::async_trait]
impl Forward for RtspForward {
    fn status_handle(&self) -> &ForwardHandle {
        &self.handle
    }

    async fn attempt(&self, hub: &Hub, cancel: &CancellationToken) -> Result<String, String> {
        let mut reader = hub.subscribe("forward", ReaderOptions::default());
        let Some(Some(tracks)) = cancel.run_until_cancelled(reader.tracks()).await else {
            return Ok(String::new());
        };
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&tracks));
        let mut client = match cancel.run_until_cancelled(connecting).await {
            None => return Ok(String::new()),
            Some(Err(_)) => return Err(format!("connecting took longer than {CONNECT_TIMEOUT:?}")),
            Some(Ok(client)) => client?,
        };
        self.handle.set(ForwardState::Running, "frames go");
        let sent = self.send(&mut client, &tracks, &mut reader, cancel).await;
        if sent.is_ok() {
            client.tear_down().await;
        }
        sent
    }
}

#[async_trait::async_trait]
impl Sink for RtspForward {
    async fn run(&mut self, reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
        keep_sending(self, reader, &cancel).await;
        Ok(())
    }

    fn name(&self) -> String {
        "forward".into()
    }
}
