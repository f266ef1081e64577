//! One task per stream that owns its source: connects, watches, waits, tries again.
//!
//! ```text
//!          ┌────────────────────── wait over ───────────────────────┐
//!          ▼                                                        │
//! Idle ─► Connecting ── first frame ─► Running ── error, silence ─► Backoff
//!              └───────── error, silence ───────────────────────────┘
//! any ── cancelled, or the source has an end ─► Stopped
//! ```
//!
//! A stream on demand is `Idle` while nobody reads, and goes back there some time after its last reader; what has failed is not
//! tried again for nobody.
//!
//! A source that has to be waited for, such as a publisher, leaves the stream in `Idle` until it is there, and
//! brings it back there when it leaves.

use super::connects::{Connecting, Connects};
use crate::backoff::{Backoff, RetryPolicy};
use crate::event::{EventKind, EventSender, StreamState};
use crate::frame::WallTime;
use crate::hub::Hub;
use crate::source::{Source, SourceEnd, SourceError};
use crate::trace::{Origin, trace_span};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a source may take to come back after it was cancelled before it is dropped.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long sinks may take to say that they want nothing.
const SETTLES: Duration = Duration::from_millis(200);
/// How long a source that is connecting keeps others waiting.
const TURN: Duration = Duration::from_millis(500);
/// How often the watchdog looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Where a stream stands, and why.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StateInfo {
    /// The state.
    pub state: StreamState,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
    /// Attempts to connect that failed since it last ran.
    pub failed_attempts: u32,
    /// When the next attempt is due, in `backoff`.
    pub next_attempt: Option<WallTime>,
    /// The last error, until it runs again.
    pub last_error: Option<String>,
}

impl StateInfo {
    pub(super) fn idle() -> Self {
        Self {
            state: StreamState::Idle,
            reason: "not started".into(),
            since: WallTime::now(),
            failed_attempts: 0,
            next_attempt: None,
            last_error: None,
        }
    }
}

pub(super) struct Supervisor {
    pub(super) source: Box<dyn Source>,
    pub(super) hub: Hub,
    pub(super) policy: RetryPolicy,
    pub(super) connects: Connects,
    pub(super) events: EventSender,
    pub(super) state: watch::Sender<StateInfo>,
    /// How long it goes on without readers, if it runs only for them.
    pub(super) on_demand: Option<Duration>,
    pub(super) cancel: CancellationToken,
    /// What it was begun by: the first connection belongs to that.
    pub(super) origin: Origin,
}

enum Outcome {
    Cancelled,
    Finished,
    Waiting,
    /// Nobody reads any more.
    Unwanted,
    Failed(SourceError),
}

/// Waits until nobody has read for so long.
async fn unwanted(demand: &mut watch::Receiver<bool>, close_after: Option<Duration>) {
    let Some(close_after) = close_after else { return std::future::pending().await };
    loop {
        // The sender lives as long as the hub, of which we hold one.
        let _ = demand.wait_for(|demand| !demand).await;
        if tokio::time::timeout(close_after, demand.wait_for(|demand| *demand)).await.is_err() {
            return;
        }
    }
}

impl Supervisor {
    /// Runs the stream until it is cancelled, its source ends, or it gives up. The hub is closed then.
    pub(super) async fn run(mut self) -> Result<(), SourceError> {
        let mut backoff = Backoff::new(self.policy);
        let mut failing_since: Option<Instant> = None;
        let mut demand = self.hub.demand();
        if self.on_demand.is_some() {
            // Sinks that want nothing yet let go of the readers that they have been given.
            let _ = self.cancel.run_until_cancelled(tokio::time::sleep(SETTLES)).await;
        }
        let result = loop {
            if self.on_demand.is_some() && !*demand.borrow_and_update() {
                self.hub.rest();
                backoff.reset();
                failing_since = None;
                self.set(StreamState::Idle, "waiting for a reader", None);
                if self.cancel.run_until_cancelled(demand.wait_for(|demand| *demand)).await.is_none() {
                    self.set(StreamState::Stopped, "stopped by request", None);
                    break Ok(());
                }
            }
            if let Some(outcome) = self.wait_until_ready().await {
                let reason = match outcome {
                    Outcome::Cancelled => "stopped by request",
                    _ => "nobody publishes it any more",
                };
                self.set(StreamState::Stopped, reason, None);
                break Ok(());
            }
            let started = Instant::now();
            let (outcome, ran_for) = self.session().await;
            let error = match outcome {
                Outcome::Cancelled => {
                    self.set(StreamState::Stopped, "stopped by request", None);
                    break Ok(());
                }
                Outcome::Finished => {
                    self.set(StreamState::Stopped, "the source has ended", None);
                    break Ok(());
                }
                Outcome::Waiting => {
                    failing_since = None;
                    backoff.reset();
                    continue;
                }
                Outcome::Unwanted => continue,
                Outcome::Failed(error) => error,
            };
            if ran_for.is_some() {
                failing_since = None;
            }
            if ran_for.is_some_and(|ran| ran >= self.policy.reset_after) {
                backoff.reset();
            }
            // A session that ran has only just begun to fail.
            let since =
                *failing_since.get_or_insert(if ran_for.is_some() { Instant::now() } else { started });
            if self.source.publish_slot().is_some() {
                // The publisher was at fault; the next one does not have to wait for that.
                tracing::warn!(stream = self.events.stream(), %error, "a publisher failed");
                self.state.send_modify(|s| s.last_error = Some(error.to_string()));
                continue;
            }
            let never_ran = self.hub.stats().frames == 0;
            if self.policy.give_up_after.is_some_and(|limit| never_ran || since.elapsed() >= limit) {
                self.set(StreamState::Stopped, &error.to_string(), None);
                self.state.send_modify(|s| s.last_error = Some(error.to_string()));
                break Err(error);
            }
            let wait = backoff.next();
            self.fail(&error, wait);
            let waits = async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = unwanted(&mut demand, self.on_demand) => {}
                }
            };
            if self.cancel.run_until_cancelled(waits).await.is_none() {
                self.set(StreamState::Stopped, "stopped by request", None);
                break Ok(());
            }
        };
        self.hub.close();
        result
    }

    /// Waits for a source that is not there all the time. `Some` if the stream ends instead.
    async fn wait_until_ready(&mut self) -> Option<Outcome> {
        let (state, events) = (&self.state, &self.events);
        let mut ready = AssertUnwindSafe(self.source.ready()).catch_unwind();
        let result = tokio::select! {
            biased;
            result = &mut ready => Some(result),
            () = std::future::ready(()) => {
                change(state, events, StreamState::Idle, "waiting for a publisher", None);
                self.cancel.run_until_cancelled(ready).await
            }
        };
        match result {
            None => Some(Outcome::Cancelled),
            Some(Ok(Some(_))) => Some(Outcome::Finished),
            // A panic in here comes up again when it is run.
            Some(Ok(None) | Err(_)) => None,
        }
    }

    /// One connection, from waiting for a turn to its end. Also says for how long frames came, if any did.
    async fn session(&mut self) -> (Outcome, Option<Duration>) {
        let waits = self.source.waits();
        if waits {
            self.set(StreamState::Idle, "waiting for somebody who sends", None);
        } else {
            self.set(StreamState::Connecting, "connecting", None);
        }
        let permit = if waits || self.source.publish_slot().is_some() {
            // It connects to us; how many do is not limited by how many cameras may be connected to at one time.
            None
        } else {
            let host = host_of(&self.source.address());
            match self.cancel.run_until_cancelled(self.connects.turn(host.as_ref())).await {
                None => return (Outcome::Cancelled, None),
                turn => turn,
            }
        };
        let connecting = trace_span!(apart
            "source.connect",
            stream = self.events.stream(),
            url = self.source.address(),
            error = tracing::field::Empty
        );
        let mut connecting = Some(std::mem::take(&mut self.origin).adopt(connecting));
        let writer = self.hub.writer();
        writer.begin_session();
        let cancel = self.cancel.child_token();
        let (state, events, hub, policy) = (&self.state, &self.events, &self.hub, self.policy);
        // A panic in a user's source must not take the stream's supervisor with it.
        let mut run = AssertUnwindSafe(self.source.run(&writer, cancel.clone())).catch_unwind();
        let mut watch = Watch::new(hub, events, policy, permit);
        let mut demand = hub.demand();
        let mut unwanted = std::pin::pin!(unwanted(&mut demand, self.on_demand));
        let result = loop {
            tokio::select! {
                result = &mut run => break result,
                () = hub.session_frame(), if !watch.running() => {
                    watch.first_frame();
                    connecting = None;
                    change(state, events, StreamState::Running, "frames arrive", None);
                }
                () = tokio::time::sleep_until((watch.started + TURN).into()), if watch.permit.is_some() => {
                    watch.permit = None;
                }
                () = tokio::time::sleep(WATCH_INTERVAL) => {
                    if let Some(silence) = watch.silent().filter(|_| !waits || watch.running()) {
                        cancel.cancel();
                        // Cancelled sources return at once; one that does not is dropped.
                        let _ = tokio::time::timeout(CANCEL_TIMEOUT, &mut run).await;
                        return (Outcome::Failed(SourceError::Silent { silence }), watch.ran_for());
                    }
                }
                () = &mut unwanted => {
                    cancel.cancel();
                    let _ = tokio::time::timeout(CANCEL_TIMEOUT, &mut run).await;
                    return (Outcome::Unwanted, watch.ran_for());
                }
                () = self.cancel.cancelled() => {
                    let _ = tokio::time::timeout(CANCEL_TIMEOUT, &mut run).await;
                    return (Outcome::Cancelled, watch.ran_for());
                }
            }
        };
        let ran_for = watch.ran_for();
        let outcome = match result {
            Ok(Ok(SourceEnd::Finished)) => Outcome::Finished,
            Ok(Ok(SourceEnd::Waiting)) => Outcome::Waiting,
            Ok(Ok(SourceEnd::Cancelled)) if self.cancel.is_cancelled() => Outcome::Cancelled,
            Ok(Ok(SourceEnd::Cancelled)) => Outcome::Failed(SourceError::Ended),
            Ok(Err(error)) => {
                if let Some(span) = connecting {
                    span.record("error", error.to_string());
                }
                Outcome::Failed(error)
            }
            Err(_) => Outcome::Failed(SourceError::Other("the source panicked".into())),
        };
        (outcome, ran_for)
    }

    fn set(&self, state: StreamState, reason: &str, next_attempt: Option<WallTime>) {
        change(&self.state, &self.events, state, reason, next_attempt);
    }

    fn fail(&self, error: &SourceError, wait: Duration) {
        let reason = error.to_string();
        tracing::warn!(stream = self.events.stream(), %error, ?wait, "source failed");
        self.state.send_modify(|s| {
            s.failed_attempts = s.failed_attempts.saturating_add(1);
            s.last_error = Some(reason.clone());
        });
        self.set(StreamState::Backoff, &reason, Some(WallTime::now() + wait));
    }
}

/// The host of an address, if it has one.
fn host_of(address: &str) -> Option<Arc<str>> {
    let url = url::Url::parse(address).ok()?;
    url.host_str().filter(|host| !host.is_empty()).map(Into::into)
}

fn change(
    sender: &watch::Sender<StateInfo>,
    events: &EventSender,
    state: StreamState,
    reason: &str,
    next_attempt: Option<WallTime>,
) {
    sender.send_modify(|info| {
        info.state = state;
        reason.clone_into(&mut info.reason);
        info.since = WallTime::now();
        info.next_attempt = next_attempt;
        if state == StreamState::Running {
            info.failed_attempts = 0;
            info.last_error = None;
        }
    });
    events.emit(EventKind::StreamState { state, reason: reason.to_owned() });
}

/// The watchdog of one session.
struct Watch<'a> {
    hub: &'a Hub,
    events: &'a EventSender,
    policy: RetryPolicy,
    started: Instant,
    running_since: Option<Instant>,
    /// Held while connecting: the number of connects at one time is limited.
    permit: Option<Connecting>,
    lost: u64,
}

impl<'a> Watch<'a> {
    fn new(hub: &'a Hub, events: &'a EventSender, policy: RetryPolicy, permit: Option<Connecting>) -> Self {
        let lost = hub.stats().packets_lost;
        Self { hub, events, policy, started: Instant::now(), running_since: None, permit, lost }
    }

    fn running(&self) -> bool {
        self.running_since.is_some()
    }

    fn first_frame(&mut self) {
        self.running_since = Some(Instant::now());
        self.permit = None;
    }

    fn ran_for(&self) -> Option<Duration> {
        self.running_since.map(|at| at.elapsed())
    }

    /// For how long nothing has come, if that is too long. Reports packet loss on the way.
    fn silent(&mut self) -> Option<Duration> {
        let lost = self.hub.stats().packets_lost;
        if lost > self.lost {
            self.events.emit(EventKind::PacketsLost { packets: lost - self.lost });
            self.lost = lost;
        }
        // A source has its own time limit for connecting; this one is for those that have none.
        let (silence, limit) = match self.hub.silence() {
            Some(silence) => (silence, self.policy.silence),
            None => (self.started.elapsed(), self.policy.silence + Duration::from_secs(10)),
        };
        (silence >= limit).then_some(silence)
    }
}
