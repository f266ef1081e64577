//! A worker: owns its viewers, and is woken by frames, datagrams and time.

use super::feed::RtcFrame;
use super::route::Routes;
use super::socket::{Batch, Datagram, Socket};
use super::tcp::Links;
use super::viewer::Viewer;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::Candidate;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What may wait for a worker: ten frames of each of a hundred streams.
const QUEUE: usize = 1024;
/// Viewers are looked after this often, whatever else happens.
const LOOK: Duration = Duration::from_millis(500);
/// Timers are not kept more exactly than this.
const GRAIN: Duration = Duration::from_millis(2);
/// After so many commands in one go, others on this thread have their turn.
const COMMANDS_PER_TURN: usize = 32;

/// What a worker is told.
pub(super) enum Command {
    /// Another viewer.
    Add(Box<Viewer>),
    /// A datagram for one.
    Datagram(u64, Datagram),
    /// A feed's next frame.
    Media(u64, Arc<RtcFrame>),
    /// A feed has ended.
    FeedEnded(u64),
    /// Candidates that a client has found.
    Trickle(u64, Vec<Candidate>),
    /// A viewer goes.
    Close(u64),
}

/// The way to a worker. It never waits: a worker that is behind loses what it cannot take.
#[derive(Clone, Debug)]
pub(super) struct WorkerHandle(mpsc::Sender<Command>);

impl WorkerHandle {
    pub(super) fn try_send(&self, command: Command) -> Result<(), ()> {
        self.0.try_send(command).map_err(|_| ())
    }

    /// For what must not be lost; waits for room.
    pub(super) async fn send(&self, command: Command) -> Result<(), ()> {
        self.0.send(command).await.map_err(|_| ())
    }
}

/// The ways out.
#[derive(Clone)]
pub(super) struct Port {
    pub(super) socket: Arc<Socket>,
    pub(super) links: Arc<Links>,
}

/// A worker before it runs.
pub(super) struct Worker {
    commands: mpsc::Receiver<Command>,
    viewers: HashMap<u64, Viewer>,
    by_feed: HashMap<u64, Vec<u64>>,
    routes: Arc<Routes>,
    port: Port,
    batch: Batch,
    looked: Instant,
}

impl Worker {
    pub(super) fn new(routes: Arc<Routes>, port: Port) -> (WorkerHandle, Self) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let worker = Self {
            commands,
            viewers: HashMap::new(),
            by_feed: HashMap::new(),
            routes,
            port,
            batch: Batch::default(),
            looked: Instant::now(),
        };
        (WorkerHandle(sender), worker)
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let next = self.next();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                command = self.commands.recv() => {
                    let Some(command) = command else { break };
                    self.take(command);
                    for _ in 1..COMMANDS_PER_TURN {
                        let Ok(command) = self.commands.try_recv() else { break };
                        self.take(command);
                    }
                    tokio::task::yield_now().await;
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
            self.look();
        }
        for (_, mut viewer) in std::mem::take(&mut self.viewers) {
            viewer.ends_because("the server is shutting down");
            viewer.finish(&self.routes, &self.port, &mut self.batch);
        }
    }

    /// When somebody wants to be looked at.
    fn next(&self) -> Instant {
        let look = self.looked + LOOK;
        let wake = self.viewers.values().map(Viewer::wake).min().unwrap_or(look);
        wake.min(look).max(Instant::now() + GRAIN)
    }

    /// Looks after those whose time has come.
    fn look(&mut self) {
        let now = Instant::now();
        let everybody = now.saturating_duration_since(self.looked) >= LOOK;
        if everybody {
            self.looked = now;
        }
        let due: Vec<u64> = self
            .viewers
            .iter()
            .filter(|(_, v)| everybody || v.wake() <= now + GRAIN)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.with(id, |viewer, _, port, batch| viewer.tick(now, port, batch));
        }
    }

    /// Does something with a viewer, and lets it go if that was its end. A panic in the protocol library is the end of
    /// that viewer, and of nobody else.
    fn with(&mut self, id: u64, act: impl FnOnce(&mut Viewer, &Routes, &Port, &mut Batch)) {
        let Some(viewer) = self.viewers.get_mut(&id) else { return };
        let (routes, port, batch) = (&self.routes, &self.port, &mut self.batch);
        if catch_unwind(AssertUnwindSafe(|| act(viewer, routes, port, batch))).is_err() {
            tracing::error!(session = id, "a WebRTC session has failed within the protocol library");
            viewer.ends_because("it has failed within the server");
        }
        if viewer.end().is_some() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(viewer) = self.viewers.remove(&id) else { return };
        let feed = viewer.feed_id();
        if let Some(watching) = self.by_feed.get_mut(&feed) {
            watching.retain(|watching| *watching != id);
            if watching.is_empty() {
                self.by_feed.remove(&feed);
            }
        }
        let finish = || viewer.finish(&self.routes, &self.port, &mut self.batch);
        // What was to be said in parting is not worth more than that.
        let _ = catch_unwind(AssertUnwindSafe(finish));
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Add(viewer) => {
                let id = viewer.owner().session;
                self.by_feed.entry(viewer.feed_id()).or_default().push(id);
                self.viewers.insert(id, *viewer);
                self.with(id, |viewer, _, port, batch| viewer.tick(Instant::now(), port, batch));
            }
            Command::Datagram(id, datagram) => {
                self.with(id, |viewer, routes, port, batch| viewer.receive(&datagram, routes, port, batch));
            }
            Command::Media(feed, frame) => {
                for id in self.by_feed.get(&feed).cloned().unwrap_or_default() {
                    self.with(id, |viewer, _, port, batch| viewer.media(&frame, port, batch));
                }
            }
            Command::FeedEnded(feed) => {
                for id in self.by_feed.get(&feed).cloned().unwrap_or_default() {
                    self.with(id, |viewer, _, port, batch| viewer.tick(Instant::now(), port, batch));
                }
            }
            Command::Trickle(id, candidates) => {
                self.with(id, |viewer, _, port, batch| {
                    viewer.trickle(candidates);
                    viewer.tick(Instant::now(), port, batch);
                });
            }
            Command::Close(id) => {
                self.with(id, |viewer, _, _, _| viewer.ends_because("the client has left"));
            }
        }
    }
}
