//! Streams sent on to other servers: how each of them stands, and from an address to the sink that does it.

use super::Sink;
use crate::backoff::Backoff;
use crate::config::IceConfig;
use crate::event::{EventKind, EventSender};
use crate::frame::WallTime;
use crate::hub::{Hub, HubReader};
use crate::source::AddressError;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Where a forward stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ForwardState {
    /// It waits for the stream, or for the other server.
    #[default]
    Connecting,
    /// Frames go.
    Running,
    /// It has failed and is tried again in a while.
    Backoff,
    /// The stream has ended.
    Stopped,
}

impl ForwardState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Stopped => "stopped",
        }
    }
}

/// Everything about a forward at one moment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ForwardStatus {
    /// Where it goes, without secrets.
    pub url: String,
    /// Where it stands.
    pub state: ForwardState,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
    /// Bytes sent, over all attempts.
    pub bytes: u64,
    /// Tracks that do not go, and why.
    pub left_out: Vec<String>,
    /// The last error.
    pub last_error: Option<String>,
}

/// A forward from outside. Clones are handles to the same one.
#[derive(Clone)]
pub struct ForwardHandle {
    shared: Arc<Shared>,
}

struct Shared {
    status: Mutex<ForwardStatus>,
    events: OnceLock<EventSender>,
}

impl ForwardHandle {
    /// Of a forward to this address.
    pub fn new(url: String) -> Self {
        let status = ForwardStatus {
            url,
            state: ForwardState::Connecting,
            reason: "not begun yet".into(),
            since: WallTime::now(),
            bytes: 0,
            left_out: Vec::new(),
            last_error: None,
        };
        Self { shared: Arc::new(Shared { status: Mutex::new(status), events: OnceLock::new() }) }
    }

    /// Everything about it.
    pub fn status(&self) -> ForwardStatus {
        self.shared.status.lock().clone()
    }

    /// Changes of its state become events of this stream. The first one counts.
    pub fn tell(&self, events: EventSender) {
        // It has somebody to tell already.
        let _ = self.shared.events.set(events);
    }

    /// Takes another state.
    pub fn set(&self, state: ForwardState, reason: impl Into<String>) {
        let reason = reason.into();
        let url = {
            let mut status = self.shared.status.lock();
            if (status.state, &status.reason) == (state, &reason) {
                return;
            }
            if status.state != state {
                status.since = WallTime::now();
            }
            if state == ForwardState::Backoff {
                status.last_error = Some(reason.clone());
            }
            (status.state, status.reason) = (state, reason.clone());
            status.url.clone()
        };
        if let Some(events) = self.shared.events.get() {
            events.emit(EventKind::ForwardState { url, state: state.name(), reason });
        }
    }

    /// So many more bytes have gone.
    pub fn add_bytes(&self, bytes: u64) {
        self.shared.status.lock().bytes += bytes;
    }

    /// Says which tracks do not go.
    pub fn leaves_out(&self, tracks: Vec<String>) {
        self.shared.status.lock().left_out = tracks;
    }
}

/// Attempts are apart by this, doubled each time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// What has gone well for so long begins with the first wait again.
const WENT_WELL: Duration = Duration::from_secs(30);

/// A way of sending.
#[async_trait::async_trait]
pub(crate) trait Forward: Sync {
    /// How it stands.
    fn status_handle(&self) -> &ForwardHandle;
    /// Sends until that fails or is cancelled; gives why it has ended.
    async fn attempt(&self, hub: &Hub, cancel: &CancellationToken) -> Result<String, String>;
}

/// Makes one attempt after the other until the stream ends or `cancel`. Each has a reader of its own.
pub(crate) async fn keep_sending(forward: &dyn Forward, reader: HubReader, cancel: &CancellationToken) {
    let hub = &reader.hub();
    drop(reader);
    let handle = forward.status_handle();
    let mut backoff = Backoff::between(RETRY.0, RETRY.1);
    loop {
        let begun = Instant::now();
        handle.set(ForwardState::Connecting, "connecting");
        // The stream's end is no reason to leave without a goodbye.
        let stop = cancel.child_token();
        let ended = {
            let mut attempt = forward.attempt(hub, &stop);
            tokio::select! {
                ended = &mut attempt => ended,
                () = hub.closed() => {
                    stop.cancel();
                    attempt.await
                }
            }
        };
        if stop.is_cancelled() {
            break;
        }
        let reason = ended.unwrap_or_else(|error| error);
        if begun.elapsed() >= WENT_WELL {
            backoff.reset();
        }
        handle.set(ForwardState::Backoff, reason);
        tokio::select! {
            () = cancel.cancelled() => break,
            () = hub.closed() => break,
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
    handle.set(ForwardState::Stopped, "the stream has ended");
}

/// Makes the sink that sends a stream on to an address: `rtmp://`, `rtmps://`, `srt://`, `udp://`, with the
/// feature `rtsp` `rtsp://` and `rtsps://`, and with the feature `webrtc` `whip://` and `whips://`.
///
/// # Errors
/// If there is no way to send anything there.
pub fn forward_to(
    address: &str,
    #[cfg_attr(not(feature = "webrtc"), expect(unused_variables))] ice: &IceConfig,
) -> Result<(ForwardHandle, Box<dyn Sink>), AddressError> {
    let shown = crate::error::redact_url(address);
    let url = url::Url::parse(address)
        .map_err(|e| AddressError::NotAUrl { address: shown.clone(), problem: e.to_string() })?;
    match url.scheme() {
        #[cfg(feature = "webrtc")]
        "whip" | "whips" => {
            let sink = crate::webrtc::WhipForward::from_url(&url)?.ice(ice);
            Ok((sink.handle(), Box::new(sink)))
        }
        #[cfg(feature = "rtsp")]
        "rtsp" | "rtsps" => {
            let sink = crate::rtsp::RtspForward::from_url(url)?;
            Ok((sink.handle(), Box::new(sink)))
        }
        #[cfg(not(feature = "webrtc"))]
        "whip" | "whips" => Err(AddressError::NoForward { address: shown, scheme: url.scheme().to_owned() }),
        _ => {
            let sink = super::GstForward::from_url(url)?;
            Ok((sink.handle(), Box::new(sink)))
        }
    }
}
