//! Whose a datagram is: by the ICE name in it, or by where it comes from.
//!
//! Anybody can send anything to the port, so an address belongs to a session only after a binding request from there has
//! proved to know the session's password (RFC 8445 section 7.3). The worker that owns the session sees to that.

use super::socket::Datagram;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use str0m::ice::StunMessage;
use str0m::net::{DatagramRecv, Protocol};

/// A session, and the worker that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) worker: usize,
    pub(super) session: u64,
}

/// Where a client is: the same address by UDP and by TCP are two.
pub(super) type Place = (Protocol, SocketAddr);

/// All sessions by name and address.
#[derive(Debug, Default)]
pub(super) struct Routes {
    known: RwLock<Known>,
    /// Datagrams that belong to nobody.
    strays: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    names: HashMap<String, Owner>,
    addresses: HashMap<Place, Owner>,
}

/// The ICE name that a binding request is meant for.
fn name(data: &[u8]) -> Option<String> {
    // The parser is somebody else's, and this comes from anybody.
    let parse = || {
        let message = StunMessage::parse(data).ok()?;
        let (name, _) = message.split_username()?;
        message.is_binding_request().then(|| name.to_owned())
    };
    std::panic::catch_unwind(parse).ok().flatten()
}

/// Whether it is STUN by its first byte (RFC 7983 section 7).
pub(super) fn is_stun(data: &[u8]) -> bool {
    data.first().is_some_and(|first| *first < 4)
}

/// Whether it can be of WebRTC at all.
pub(super) fn contents(data: &[u8]) -> Option<DatagramRecv<'_>> {
    std::panic::catch_unwind(|| DatagramRecv::try_from(data).ok()).ok().flatten()
}

impl Routes {
    /// Whose it is.
    pub(super) fn find(&self, datagram: &Datagram) -> Option<Owner> {
        let name = if is_stun(&datagram.data) { name(&datagram.data) } else { None };
        let known = self.known.read();
        let owner = match name {
            Some(name) => known.names.get(&name),
            None => known.addresses.get(&(datagram.protocol, datagram.source)),
        };
        if owner.is_none() {
            self.strays.fetch_add(1, Ordering::Relaxed);
        }
        owner.copied()
    }

    /// Whose it is by the name in it.
    pub(super) fn named(&self, datagram: &Datagram) -> Option<Owner> {
        let name = name(&datagram.data).filter(|_| is_stun(&datagram.data))?;
        self.known.read().names.get(&name).copied()
    }

    /// Datagrams that belonged to nobody so far.
    pub(super) fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, name: String, owner: Owner) {
        self.known.write().names.insert(name, owner);
    }

    /// A session has another name.
    pub(super) fn rename(&self, old: &str, new: String, owner: Owner) {
        let mut known = self.known.write();
        known.names.remove(old);
        known.names.insert(new, owner);
    }

    /// Gives an address to a session that has proved that it is there.
    pub(super) fn claim(&self, address: Place, owner: Owner) {
        self.known.write().addresses.insert(address, owner);
    }

    /// Forgets a session.
    pub(super) fn remove(&self, name: &str, addresses: &[Place], session: u64) {
        let mut known = self.known.write();
        known.names.remove(name);
        for address in addresses {
            // Another session may have come from there since.
            if known.addresses.get(address).is_some_and(|owner| owner.session == session) {
                known.addresses.remove(address);
            }
        }
    }

    /// How many names and addresses are known.
    pub(super) fn len(&self) -> (usize, usize) {
        let known = self.known.read();
        (known.names.len(), known.addresses.len())
    }
}
