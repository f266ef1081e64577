//! One session: a client, and what it is here for.

use super::feed::RtcFrame;
use super::peer::Peer;
use super::publisher::Publisher;
use super::route::Routes;
use super::socket::{Batch, Datagram};
use super::viewer::Viewer;
use super::worker::Port;
use std::sync::Arc;
use std::time::Instant;
use str0m::{Candidate, IceCreds, Input};

/// What a client is here for.
pub(super) enum Role {
    /// It watches.
    Viewer(Box<Viewer>),
    /// It is a stream's source.
    Publisher(Publisher),
}

/// A session.
pub(super) struct Session {
    pub(super) peer: Peer,
    role: Role,
}

impl Session {
    pub(super) fn new(peer: Peer, role: Role) -> Self {
        Self { peer, role }
    }

    /// The feeds that it watches.
    pub(super) fn feed_ids(&self) -> [Option<u64>; 2] {
        match &self.role {
            Role::Viewer(viewer) => viewer.feed_ids(),
            Role::Publisher(_) => [None, None],
        }
    }

    /// When it wants to be looked at again.
    pub(super) fn wake(&self) -> Instant {
        match &self.role {
            Role::Viewer(viewer) => viewer.wake().map_or(self.peer.wake(), |at| at.min(self.peer.wake())),
            Role::Publisher(_) => self.peer.wake(),
        }
    }

    /// A datagram for it.
    pub(super) fn receive(&mut self, datagram: &Datagram, routes: &Routes, port: &Port, batch: &mut Batch) {
        self.peer.receive(datagram, routes);
        self.drain(port, batch);
    }

    /// Candidates that the client has found.
    pub(super) fn trickle(&mut self, candidates: Vec<Candidate>, port: &Port, batch: &mut Batch) {
        self.peer.trickle(candidates);
        self.tick(Instant::now(), port, batch);
    }

    /// The client begins ICE anew; gives our new name and password.
    pub(super) fn restart(&mut self, theirs: &IceCreds, routes: &Routes) -> Option<IceCreds> {
        self.peer.restart(theirs, routes)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant, port: &Port, batch: &mut Batch) {
        self.peer.tick(now);
        match &mut self.role {
            Role::Viewer(viewer) => viewer.tick(&mut self.peer),
            Role::Publisher(_) => {}
        }
        if self.peer.end().is_none() {
            self.flush(now, port, batch);
        }
    }

    /// The next frame of a feed that it watches.
    pub(super) fn media(&mut self, feed: u64, frame: &Arc<RtcFrame>, port: &Port, batch: &mut Batch) {
        if let Role::Viewer(viewer) = &mut self.role
            && viewer.media(&self.peer, feed, frame)
        {
            self.flush(Instant::now(), port, batch);
        }
    }

    /// Asks a publisher for a keyframe.
    pub(super) fn ask(&mut self, port: &Port, batch: &mut Batch) {
        if let Role::Publisher(publisher) = &self.role {
            publisher.ask(&mut self.peer);
            self.flush(Instant::now(), port, batch);
        }
    }

    /// Sends of what waits as much as is due.
    fn flush(&mut self, now: Instant, port: &Port, batch: &mut Batch) {
        if let Role::Viewer(viewer) = &mut self.role {
            viewer.write(&mut self.peer, now);
        }
        self.peer.input(Input::Timeout(now));
        self.drain(port, batch);
    }

    /// Takes what the connection has to say until it waits.
    fn drain(&mut self, port: &Port, batch: &mut Batch) {
        while let Some(event) = self.peer.poll(port, batch) {
            match &mut self.role {
                Role::Viewer(viewer) => viewer.event(&mut self.peer, event),
                Role::Publisher(publisher) => publisher.event(&mut self.peer, event),
            }
        }
        if let Role::Viewer(viewer) = &self.role {
            viewer.sent(self.peer.sent);
        }
    }

    /// Says goodbye and is forgotten.
    pub(super) fn finish(mut self, routes: &Routes, port: &Port, batch: &mut Batch) {
        self.peer.finish(routes, port, batch);
    }
}
