//! The client of one session: where it is, whether it is still there, and its connection (str0m).

use super::route::{Owner, Place, Routes, contents, is_stun};
use super::socket::{Batch, Datagram};
use super::worker::Port;
use crate::session::SessionGuard;
use std::time::{Duration, Instant};
use str0m::change::SdpOffer;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

/// Addresses that one client may come from.
const MAX_ADDRESSES: usize = 8;
/// Candidates that a client may tell.
pub(super) const MAX_CANDIDATES: usize = 64;

/// What a client's end of a session is made of.
pub(super) struct NewPeer {
    pub(super) owner: Owner,
    pub(super) rtc: Rtc,
    /// What it has offered.
    pub(super) offer: Box<str>,
    /// Its ICE name.
    pub(super) name: String,
    pub(super) guard: SessionGuard,
    /// A client of which nothing is heard for so long is gone.
    pub(super) timeout: Duration,
    /// What is said when the other side ends it.
    pub(super) leaves: &'static str,
    /// Dropped when the session ends.
    pub(super) place: Box<dyn std::any::Any + Send>,
}

/// A line of an offer as it is with other credentials; none for what held for the old ones.
fn with_credentials(line: &str, credentials: &IceCreds) -> Option<String> {
    let is = |name: &str| line.starts_with(name);
    match () {
        () if is("a=ice-ufrag:") => Some(format!("a=ice-ufrag:{}\r\n", credentials.ufrag)),
        () if is("a=ice-pwd:") => Some(format!("a=ice-pwd:{}\r\n", credentials.pass)),
        () if is("a=candidate:") || is("a=end-of-candidates") => None,
        () => Some(format!("{line}\r\n")),
    }
}

/// A client.
pub(super) struct Peer {
    pub(super) owner: Owner,
    pub(super) rtc: Rtc,
    offer: Box<str>,
    name: String,
    addresses: Vec<Place>,
    guard: SessionGuard,
    pub(super) connected: bool,
    heard: Instant,
    timeout: Duration,
    leaves: &'static str,
    wake: Instant,
    candidates: usize,
    end: Option<String>,
    /// Bytes and packets that have been sent to it.
    pub(super) sent: (u64, u64),
    _place: Box<dyn std::any::Any + Send>,
}

impl Peer {
    pub(super) fn new(new: NewPeer) -> Self {
        let now = Instant::now();
        Self {
            owner: new.owner,
            rtc: new.rtc,
            offer: new.offer,
            name: new.name,
            addresses: Vec::new(),
            guard: new.guard,
            connected: false,
            heard: now,
            timeout: new.timeout,
            leaves: new.leaves,
            wake: now,
            candidates: 0,
            end: None,
            sent: (0, 0),
            _place: new.place,
        }
    }

    /// When its connection wants to be looked at again.
    pub(super) fn wake(&self) -> Instant {
        self.wake
    }

    /// Why it has to go, if it has to.
    pub(super) fn end(&self) -> Option<&str> {
        self.end.as_deref()
    }

    /// It gets another stream than it asked for, or again that one.
    pub(super) fn gets(&self, stream: Option<std::sync::Arc<str>>) {
        self.guard.gets(stream);
    }

    pub(super) fn ends_because(&mut self, reason: impl Into<String>) {
        self.end.get_or_insert_with(|| reason.into());
    }

    /// A datagram for it.
    pub(super) fn receive(&mut self, datagram: &Datagram, routes: &Routes) {
        let Some(contents) = contents(&datagram.data) else { return };
        let now = Instant::now();
        let (source, destination) = (datagram.source, datagram.destination);
        let place = (datagram.protocol, source);
        let input = Input::Receive(now, Receive { proto: datagram.protocol, source, destination, contents });
        if !self.addresses.contains(&place) {
            // Only who knows the session's password may be at a new address.
            if !is_stun(&datagram.data) || !self.rtc.accepts(&input) {
                return;
            }
            if self.addresses.len() >= MAX_ADDRESSES {
                let oldest = self.addresses.remove(0);
                routes.remove("", &[oldest], self.owner.session);
            }
            self.addresses.push(place);
            routes.claim(place, self.owner);
        }
        self.heard = now;
        self.input(input);
    }

    /// Candidates that the client has found.
    pub(super) fn trickle(&mut self, candidates: Vec<Candidate>) {
        for candidate in candidates {
            if self.candidates < MAX_CANDIDATES {
                self.candidates += 1;
                self.rtc.add_remote_candidate(candidate);
            }
        }
    }

    /// The client begins ICE anew, for example since it is in another network now: gives our new name and password. What goes
    /// on by the old way goes on until the new one is found.
    pub(super) fn restart(&mut self, theirs: &IceCreds, routes: &Routes) -> Option<IceCreds> {
        // The protocol library begins ICE anew for a new offer only: the same one with another name and password.
        let anew: String = self.offer.lines().filter_map(|line| with_credentials(line, theirs)).collect();
        let offer = SdpOffer::from_sdp_string(&anew).ok()?;
        if let Err(error) = self.rtc.sdp_api().accept_offer(offer) {
            tracing::debug!(session = self.owner.session, %error, "ICE does not begin anew");
            return None;
        }
        let ours = self.rtc.direct_api().local_ice_credentials();
        routes.rename(&self.name, ours.ufrag.clone(), self.owner);
        self.name.clone_from(&ours.ufrag);
        self.candidates = 0;
        Some(ours)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.guard.kick_token().is_cancelled() {
            self.ends_because("ended by request");
        }
        if now.saturating_duration_since(self.heard) >= self.timeout {
            self.ends_because(if self.connected {
                "nothing was heard of it"
            } else {
                "it has never connected"
            });
        }
    }

    pub(super) fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input) {
            self.ends_because(error.to_string());
        }
    }

    /// Sends what the connection has to send, up to the next thing that has happened; none once it waits.
    pub(super) fn poll(&mut self, port: &Port, batch: &mut Batch) -> Option<Event> {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.wake = at;
                    break;
                }
                Ok(Output::Transmit(transmit)) => {
                    self.sent.0 += transmit.contents.len() as u64;
                    self.sent.1 += 1;
                    let (source, destination) = (transmit.source, transmit.destination);
                    if port.relays.as_ref().is_some_and(|r| r.send(source, destination, &transmit.contents)) {
                        continue;
                    }
                    if transmit.proto == Protocol::Udp {
                        batch.add(&port.socket, source, destination, &transmit.contents);
                    } else {
                        // What does not fit is asked for again.
                        port.links.send(destination, &transmit.contents);
                    }
                }
                Ok(Output::Event(event)) => match event {
                    Event::Connected => {
                        self.connected = true;
                        return Some(event);
                    }
                    Event::Closed => self.ends_because(self.leaves),
                    event => return Some(event),
                },
                Err(error) => {
                    self.ends_because(error.to_string());
                    break;
                }
            }
        }
        batch.flush(&port.socket);
        if !self.rtc.is_alive() {
            self.ends_because(self.leaves);
        }
        None
    }

    /// Says goodbye and is forgotten.
    pub(super) fn finish(&mut self, routes: &Routes, port: &Port, batch: &mut Batch) {
        routes.remove(&self.name, &self.addresses, self.owner.session);
        if let Some(reason) = self.end.take() {
            self.guard.ends_because(reason);
        }
        if self.connected && self.rtc.close().is_ok() {
            while self.poll(port, batch).is_some() {}
        }
    }
}
