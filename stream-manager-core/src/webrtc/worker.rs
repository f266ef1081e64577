//! A worker: owns its sessions, and is woken by frames, datagrams and time.

use super::feed::RtcFrame;
use super::relay::Relays;
use super::route::Routes;
use super::session::Session;
use super::socket::{Batch, Datagram, Socket};
use super::tcp::Links;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::{Candidate, IceCreds};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What may wait for a worker: ten frames of each of a hundred streams.
const QUEUE: usize = 1024;
/// Sessions are looked after this often, whatever else happens.
const LOOK: Duration = Duration::from_millis(500);
/// Timers are not kept more exactly than this.
const GRAIN: Duration = Duration::from_millis(2);
/// After so many commands in one go, others on this thread have their turn.
const COMMANDS_PER_TURN: usize = 32;

/// What a worker is told.
pub(super) enum Command {
    /// Another session.
    Add(Box<Session>),
    /// A datagram for one.
    Datagram(u64, Datagram),
    /// A feed's next frame.
    Media(u64, Arc<RtcFrame>),
    /// A feed has ended.
    FeedEnded(u64),
    /// Candidates that a client has found.
    Trickle(u64, Vec<Candidate>),
    /// A client begins ICE anew, with this name and password; to be answered with ours.
    Restart(u64, IceCreds, oneshot::Sender<IceCreds>),
    /// A publisher's picture needs a keyframe.
    AskKeyframe(u64),
    /// A session ends, and why.
    Close(u64, String),
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
    /// Addresses on TURN servers, if there may be some.
    pub(super) relays: Option<Arc<Relays>>,
}

/// A worker before it runs.
pub(super) struct Worker {
    commands: mpsc::Receiver<Command>,
    sessions: HashMap<u64, Session>,
    /// Who watches what.
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
            sessions: HashMap::new(),
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
        for (_, mut session) in std::mem::take(&mut self.sessions) {
            session.peer.ends_because("the server is shutting down");
            session.finish(&self.routes, &self.port, &mut self.batch);
        }
    }

    /// When somebody wants to be looked at.
    fn next(&self) -> Instant {
        let look = self.looked + LOOK;
        let wake = self.sessions.values().map(Session::wake).min().unwrap_or(look);
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
            .sessions
            .iter()
            .filter(|(_, v)| everybody || v.wake() <= now + GRAIN)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.with(id, |session, _, port, batch| session.tick(now, port, batch));
        }
    }

    /// Does something with a session, and lets it go if that was its end. A panic in the protocol library is the end of
    /// that session, and of nobody else.
    fn with(&mut self, id: u64, act: impl FnOnce(&mut Session, &Routes, &Port, &mut Batch)) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (routes, port, batch) = (&self.routes, &self.port, &mut self.batch);
        let before = session.feed_ids();
        if catch_unwind(AssertUnwindSafe(|| act(session, routes, port, batch))).is_err() {
            tracing::error!(session = id, "a WebRTC session has failed within the protocol library");
            session.peer.ends_because("it has failed within the server");
        }
        let after = session.feed_ids();
        if session.peer.end().is_some() {
            self.remove(id);
        } else if before != after {
            self.list(id, before, after);
        }
    }

    /// A session watches other feeds than before.
    fn list(&mut self, id: u64, before: [Option<u64>; 2], after: [Option<u64>; 2]) {
        for feed in before.into_iter().flatten() {
            if let Some(watching) = self.by_feed.get_mut(&feed) {
                watching.retain(|watching| *watching != id);
                if watching.is_empty() {
                    self.by_feed.remove(&feed);
                }
            }
        }
        for feed in after.into_iter().flatten() {
            self.by_feed.entry(feed).or_default().push(id);
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.list(id, session.feed_ids(), [None, None]);
        let finish = || session.finish(&self.routes, &self.port, &mut self.batch);
        // What was to be said in parting is not worth more than that.
        let _ = catch_unwind(AssertUnwindSafe(finish));
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Add(session) => {
                let id = session.peer.owner.session;
                self.list(id, [None, None], session.feed_ids());
                self.sessions.insert(id, *session);
                self.with(id, |session, _, port, batch| session.tick(Instant::now(), port, batch));
            }
            Command::Datagram(id, datagram) => {
                self.with(id, |session, routes, port, batch| session.receive(&datagram, routes, port, batch));
            }
            Command::Media(feed, frame) => {
                for id in self.by_feed.get(&feed).cloned().unwrap_or_default() {
                    self.with(id, |session, _, port, batch| session.media(feed, &frame, port, batch));
                }
            }
            Command::FeedEnded(feed) => {
                for id in self.by_feed.get(&feed).cloned().unwrap_or_default() {
                    self.with(id, |session, _, port, batch| session.tick(Instant::now(), port, batch));
                }
            }
            Command::Trickle(id, candidates) => {
                self.with(id, |session, _, port, batch| session.trickle(candidates, port, batch));
            }
            Command::Restart(id, theirs, answer) => {
                self.with(id, |session, routes, _, _| {
                    if let Some(ours) = session.restart(&theirs, routes) {
                        // Whoever asked may have gone.
                        let _ = answer.send(ours);
                    }
                });
            }
            Command::AskKeyframe(id) => self.with(id, |session, _, port, batch| session.ask(port, batch)),
            Command::Close(id, reason) => {
                self.with(id, |session, _, _, _| session.peer.ends_because(reason));
            }
        }
    }
}
