//! What stands in for a source that has failed.
//!
//! One task per stream that has a fallback. While the source delivers it does no more than look at the clock. When nothing has come for
//! a part of the timeout, what stands in is begun, so that it is there when the timeout is over; then the hub lets it in
//! ([`Hub::stand_in`]), and goes back to the source by itself once that is stable.

use super::StreamId;
use super::supervisor::StateInfo;
use crate::backoff::{Backoff, RetryPolicy};
use crate::event::{EventKind, EventSender, StreamState};
use crate::frame::WallTime;
use crate::hub::{Hub, Input};
use crate::source::{Source, SourceEnd, SourceError, StillPicture, StillSource};
use futures_util::FutureExt;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long before the timeout is over what stands in is begun, at most.
const AHEAD: Duration = Duration::from_millis(1500);
/// How often it is looked whether the source is back before anything stood in for it.
const LOOK: Duration = Duration::from_millis(100);
/// How long a source may take to come back after it was cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(8);

/// What stands in for a stream's source when it fails.
///
/// ```
/// # use std::time::Duration;
/// # use stream_manager_core::manager::{Fallback, Stream};
/// # use stream_manager_core::source::TestSource;
/// let fallback = Fallback::slate("{id}: no signal since {since}").timeout(Duration::from_secs(5));
/// let stream = Stream::builder("door").source(TestSource::default()).fallback(fallback);
/// ```
pub struct Fallback {
    kind: Kind,
    timeout: Duration,
    return_after: Duration,
}

enum Kind {
    Slate(String),
    Image(PathBuf),
    Source(Box<dyn Source>),
}

impl Fallback {
    fn new(kind: Kind) -> Self {
        Self { kind, timeout: Duration::from_secs(3), return_after: Duration::from_secs(2) }
    }

    /// Text on black. `{id}` in it is the stream's id, `{since}` the local time of its last frame.
    pub fn slate(text: impl Into<String>) -> Self {
        Self::new(Kind::Slate(text.into()))
    }

    /// An image: PNG or JPEG.
    pub fn image(path: impl Into<PathBuf>) -> Self {
        Self::new(Kind::Image(path.into()))
    }

    /// Another source.
    pub fn source(source: impl Source) -> Self {
        Self::boxed(Box::new(source))
    }

    /// The same for a source that is boxed already.
    pub fn boxed(source: Box<dyn Source>) -> Self {
        Self::new(Kind::Source(source))
    }

    /// Sets how long the source may say nothing; three seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long the source has to deliver before it is shown again; two seconds by default.
    #[must_use]
    pub fn return_after(mut self, return_after: Duration) -> Self {
        self.return_after = return_after;
        self
    }
}

/// How a stream's fallback stands.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FallbackStatus {
    /// What it is, without secrets: an address, an image's path, or `slate`.
    pub source: String,
    /// Whether it is what readers get.
    pub active: bool,
    /// Since when that is so.
    pub since: WallTime,
    /// How often it has stood in.
    pub switches: u64,
    /// Why it could not, the last time that it was to.
    pub last_error: Option<String>,
}

/// The status of a fallback from outside.
#[derive(Clone)]
pub(super) struct FallbackHandle(Arc<Mutex<FallbackStatus>>);

impl FallbackHandle {
    pub(super) fn status(&self) -> FallbackStatus {
        self.0.lock().clone()
    }
}

pub(super) struct StandIn {
    id: StreamId,
    fallback: Fallback,
    hub: Hub,
    events: EventSender,
    state: watch::Receiver<StateInfo>,
    /// Whether the stream runs only while somebody reads.
    on_demand: bool,
    policy: RetryPolicy,
    status: FallbackHandle,
    cancel: CancellationToken,
}

/// What a stream's fallback has to know of it.
pub(super) struct Context {
    pub(super) id: StreamId,
    pub(super) hub: Hub,
    pub(super) events: EventSender,
    pub(super) state: watch::Receiver<StateInfo>,
    pub(super) on_demand: bool,
    pub(super) policy: RetryPolicy,
    pub(super) cancel: CancellationToken,
}

impl StandIn {
    pub(super) fn new(fallback: Fallback, context: Context) -> (FallbackHandle, Self) {
        let source = match &fallback.kind {
            Kind::Slate(_) => "slate".into(),
            Kind::Image(path) => path.display().to_string(),
            Kind::Source(source) => source.address(),
        };
        let status =
            FallbackStatus { source, active: false, since: WallTime::now(), switches: 0, last_error: None };
        let handle = FallbackHandle(Arc::new(Mutex::new(status)));
        let Context { id, hub, events, state, on_demand, policy, cancel } = context;
        let status = handle.clone();
        (handle, Self { id, fallback, hub, events, state, on_demand, policy, status, cancel })
    }

    /// Until the stream ends.
    pub(super) async fn run(mut self) {
        let (cancel, hub) = (self.cancel.clone(), self.hub.clone());
        loop {
            let stop = cancel.child_token();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = hub.closed() => return,
                () = self.silent() => {}
            }
            let stands = self.stand_in(&stop);
            tokio::select! {
                () = stands => {}
                () = hub.closed() => return,
            }
            if cancel.is_cancelled() {
                return;
            }
        }
    }

    /// Whether anybody would see what stands in.
    fn wanted(&self) -> bool {
        !(self.on_demand && self.state.borrow().state == StreamState::Idle)
    }

    /// Waits until the source has been silent for so long that something has to be done.
    async fn silent(&mut self) {
        let ahead = AHEAD.min(self.fallback.timeout / 2);
        let mut wanted_since = Instant::now();
        loop {
            if !self.wanted() {
                // The sender lives in the supervisor; without it the hub is closed.
                if self.state.changed().await.is_err() {
                    return std::future::pending().await;
                }
                wanted_since = Instant::now();
                continue;
            }
            let due = self.quiet_since(wanted_since) + self.fallback.timeout - ahead;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due.into()).await;
        }
    }

    fn quiet_since(&self, at_least: Instant) -> Instant {
        self.hub.last_source_frame().map_or(at_least, |last| last.max(at_least))
    }

    /// From the first frame that is made in place of the source's until the source is back, or nobody wants it.
    async fn stand_in(&mut self, stop: &CancellationToken) {
        let begun = Instant::now();
        let ahead = AHEAD.min(self.fallback.timeout / 2);
        let mut input = self.hub.input();
        let mut state = self.state.clone();
        let on_demand = self.on_demand;
        let mut source = self.source();
        let (hub, status, events) = (self.hub.clone(), self.status.clone(), self.events.clone());
        let (timeout, return_after) = (self.fallback.timeout, self.fallback.return_after);
        let runs = keep_running(&mut *source, &hub, &status, &events, self.policy, stop);
        let mut runs = Box::pin(runs);
        let mut active = false;
        let mut asked = false;
        loop {
            let due = begun + ahead;
            tokio::select! {
                () = &mut runs => break,
                changed = input.changed() => {
                    // The sender lives as long as the hub, of which there is a handle here.
                    let now = if changed.is_ok() { *input.borrow_and_update() } else { Input::Main };
                    if (now == Input::Fallback) == active {
                        continue;
                    }
                    active = now == Input::Fallback;
                    tell(&status, &events, active);
                    if !active {
                        stop.cancel();
                    }
                }
                () = tokio::time::sleep_until(due.into()), if !asked => {
                    asked = true;
                    if hub.last_source_frame().is_none_or(|last| last < begun) {
                        hub.stand_in(return_after);
                    }
                }
                () = tokio::time::sleep(LOOK), if asked && !active => {
                    if hub.last_source_frame().is_some_and(|last| last.elapsed() < timeout && last >= begun)
                        && *input.borrow() == Input::Main
                    {
                        stop.cancel();
                    }
                }
                () = idle(&mut state), if on_demand && !stop.is_cancelled() => stop.cancel(),
            }
        }
        if active {
            // Nobody wants it any more, or the stream ends.
            tell(&status, &events, false);
        }
        drop(runs);
        if let Kind::Source(own) = &mut self.fallback.kind {
            *own = source;
        }
    }

    /// What stands in, as it is to be now.
    fn source(&mut self) -> Box<dyn Source> {
        let picture = match &mut self.fallback.kind {
            Kind::Source(source) => {
                let empty = StillSource::new(StillPicture::Text(String::new()));
                return std::mem::replace(source, Box::new(empty));
            }
            Kind::Image(path) => StillPicture::Image(path.clone()),
            Kind::Slate(text) => {
                // Of the last frame, or of now if there has been none.
                let silence = self.hub.last_source_frame().map_or(Duration::ZERO, |at| at.elapsed());
                let since = (WallTime::now() - silence).format_local("%H:%M");
                StillPicture::Text(text.replace("{id}", self.id.as_str()).replace("{since}", &since))
            }
        };
        Box::new(StillSource::new(picture).like(self.hub.source_tracks()))
    }
}

async fn idle(state: &mut watch::Receiver<StateInfo>) {
    // Without its sender the stream has ended, and nobody wants anything of it either.
    let _ = state.wait_for(|info| info.state == StreamState::Idle).await;
}

/// Runs what stands in until it is stopped, again and again if it fails.
async fn keep_running(
    source: &mut dyn Source,
    hub: &Hub,
    status: &FallbackHandle,
    events: &EventSender,
    policy: RetryPolicy,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::new(policy);
    let writer = hub.fallback_writer();
    while !stop.is_cancelled() {
        writer.begin_session();
        let run = AssertUnwindSafe(source.run(&writer, stop.clone())).catch_unwind();
        tokio::pin!(run);
        let result = tokio::select! {
            result = &mut run => result,
            () = stop.cancelled() => match tokio::time::timeout(CANCEL_TIMEOUT, &mut run).await {
                Ok(result) => result,
                // It is dropped.
                Err(_) => return,
            },
        };
        let error = match result {
            Ok(Ok(SourceEnd::Cancelled)) if stop.is_cancelled() => return,
            // What has an end begins again.
            Ok(Ok(_)) => SourceError::Ended,
            Ok(Err(error)) => error,
            Err(_) => SourceError::Other("it panicked".into()),
        };
        if stop.is_cancelled() {
            return;
        }
        tracing::warn!(stream = events.stream(), %error, "what stands in for the source has failed");
        let problem = error.to_string();
        let before = status.0.lock().last_error.replace(problem.clone());
        if before.as_ref() != Some(&problem) {
            let active = status.0.lock().active;
            events.emit(EventKind::FallbackState { active, reason: problem });
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await;
    }
}

fn tell(status: &FallbackHandle, events: &EventSender, active: bool) {
    let reason = {
        let mut status = status.0.lock();
        status.active = active;
        status.since = WallTime::now();
        if active {
            status.switches += 1;
            status.last_error = None;
            format!("the source is silent; {} stands in for it", status.source)
        } else {
            "the source is back, or nobody reads any more".to_owned()
        }
    };
    tracing::info!(stream = events.stream(), active, reason, "fallback");
    events.emit(EventKind::FallbackState { active, reason });
}
