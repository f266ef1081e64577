//! What a camera notices by itself, told as events of its stream.
//!
//! By a pull point (ONVIF Core Specification section 9.2): one subscription, one question at a time that the camera answers
//! as soon as there is something, or after a few seconds. When that fails it begins anew, ever more rarely; what went on until
//! then is told to have ended, so that nobody waits for its end.

use super::notice::Notices;
use super::{OnvifAddress, OnvifError};
use crate::backoff::Backoff;
use crate::event::{EventKind, EventSender};
use crate::frame::WallTime;
use oxvif::OnvifSession;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long the camera keeps its answer back if there is nothing, and how long the answer may take then.
const PULL: &str = "PT5S";
const PATIENCE: Duration = Duration::from_secs(15);
/// Messages in one answer.
const MESSAGES: u32 = 100;
/// A subscription's length, and when it is made longer.
const SUBSCRIPTION: &str = "PT60S";
const RENEW: Duration = Duration::from_secs(20);
/// Between two questions: at least so long, and longer if the camera had nothing to say and said so at once.
const APART: Duration = Duration::from_millis(100);
const APART_IF_EMPTY: Duration = Duration::from_secs(1);
/// Attempts are apart by this, doubled each time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What has gone well for so long begins with the first wait again.
const WENT_WELL: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// How listening to a camera stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CameraEventsState {
    /// It is asked whether it tells what it notices.
    Connecting,
    /// It is listened to.
    Running,
    /// That has failed, and is tried again in a while.
    Backoff,
    /// The stream has ended.
    Stopped,
}

impl CameraEventsState {
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

/// Everything about it at one moment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CameraEventsStatus {
    /// The device's service.
    pub url: String,
    /// Where it stands.
    pub state: CameraEventsState,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
    /// How many events there have been.
    pub events: u64,
    /// When the last one was.
    pub last_event: Option<WallTime>,
}

/// Listens to a camera. [`Stream::camera_events`](crate::manager::Stream::camera_events) makes it part of a stream.
///
/// ```
/// # use stream_manager_core::onvif::{CameraEvents, OnvifAddress};
/// # use stream_manager_core::manager::Stream;
/// let camera = OnvifAddress::new("192.168.1.20").unwrap().credentials("admin", "secret");
/// let stream = Stream::builder("door").camera_events(CameraEvents::new(camera));
/// ```
pub struct CameraEvents {
    device: OnvifAddress,
    status: Arc<Mutex<CameraEventsStatus>>,
}

/// How it stands, from outside. Clones are handles to the same.
#[derive(Clone)]
pub struct CameraEventsHandle {
    status: Arc<Mutex<CameraEventsStatus>>,
}

impl CameraEventsHandle {
    /// Everything about it.
    pub fn status(&self) -> CameraEventsStatus {
        self.status.lock().clone()
    }
}

impl CameraEvents {
    /// To this device.
    pub fn new(device: OnvifAddress) -> Self {
        let status = CameraEventsStatus {
            url: device.to_string(),
            state: CameraEventsState::Connecting,
            reason: "not begun yet".into(),
            since: WallTime::now(),
            events: 0,
            last_event: None,
        };
        Self { device: device.timeout(PATIENCE), status: Arc::new(Mutex::new(status)) }
    }

    /// How it stands.
    pub fn handle(&self) -> CameraEventsHandle {
        CameraEventsHandle { status: self.status.clone() }
    }

    /// Listens until `cancel`, and tells what it hears.
    pub async fn run(self, events: EventSender, cancel: CancellationToken) {
        let mut backoff = Backoff::between(RETRY.0, RETRY.1);
        let mut notices = Notices::default();
        loop {
            let begun = Instant::now();
            self.set(&events, CameraEventsState::Connecting, "connecting".into());
            let mut subscribed = None;
            let ended = cancel.run_until_cancelled(self.listen(&events, &mut notices, &mut subscribed)).await;
            // Cameras have few subscriptions: one that is no longer of use is given back.
            if let Some((session, pull_point)) = subscribed {
                let _ = tokio::time::timeout(GOODBYE, session.unsubscribe(&pull_point)).await;
            }
            for ended in notices.forget() {
                events.emit(ended);
            }
            let Some(error) = ended else { break };
            if begun.elapsed() >= WENT_WELL {
                backoff.reset();
            }
            self.set(&events, CameraEventsState::Backoff, error.to_string());
            if cancel.run_until_cancelled(tokio::time::sleep(backoff.next())).await.is_none() {
                break;
            }
        }
        self.set(&events, CameraEventsState::Stopped, "the stream has ended".into());
    }

    fn set(&self, events: &EventSender, state: CameraEventsState, reason: String) {
        {
            let mut status = self.status.lock();
            if (status.state, &status.reason) == (state, &reason) {
                return;
            }
            if status.state != state {
                status.since = WallTime::now();
            }
            (status.state, status.reason) = (state, reason.clone());
        }
        events.emit(EventKind::CameraEventsState { state: state.name(), reason });
    }

    async fn listen(
        &self,
        events: &EventSender,
        notices: &mut Notices,
        subscribed: &mut Option<(OnvifSession, String)>,
    ) -> OnvifError {
        match self.pull(events, notices, subscribed).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn pull(
        &self,
        events: &EventSender,
        notices: &mut Notices,
        subscribed: &mut Option<(OnvifSession, String)>,
    ) -> Result<Infallible, OnvifError> {
        let session = self.device.session().await?;
        let wrong = |error| OnvifError::of(&self.device, error);
        if session.capabilities().events.url.is_none() {
            return Err(OnvifError::Answer {
                address: self.device.to_string(),
                problem: "it has no service for events".into(),
            });
        }
        let made = session.create_pull_point_subscription(None, Some(SUBSCRIPTION)).await;
        let pull_point = made.map_err(wrong)?.reference_url;
        *subscribed = Some((session.clone(), pull_point.clone()));
        self.set(events, CameraEventsState::Running, "the camera tells what it notices".into());
        let mut renewed = Instant::now();
        loop {
            let asked = Instant::now();
            let messages = session.pull_messages(&pull_point, PULL, MESSAGES).await.map_err(wrong)?;
            let apart = if messages.is_empty() { APART_IF_EMPTY } else { APART };
            for event in messages.into_iter().take(MESSAGES as usize).filter_map(|m| notices.take(m)) {
                {
                    let mut status = self.status.lock();
                    status.events += 1;
                    status.last_event = Some(WallTime::now());
                }
                events.emit(event);
            }
            if renewed.elapsed() >= RENEW {
                renewed = Instant::now();
                // Some know nothing of it, and are content with being asked; if not, the next question fails.
                if let Err(error) = session.renew_subscription(&pull_point, SUBSCRIPTION).await {
                    tracing::debug!(device = %self.device, %error, "a camera does not renew the subscription");
                }
            }
            tokio::time::sleep_until((asked + apart).into()).await;
        }
    }
}
