//! TCP ports that are listened at, and how many may connect to them.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// After this long without a packet the system asks whether the client is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Listens at an address, which `key` of the configuration says; or says why that cannot be, and what would help.
pub(crate) fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, String> {
    let open = || -> std::io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        if address.is_ipv6() {
            // [::] is for IPv4, too.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        // A hundred viewers may come at once.
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("the port is in use; stop the other program, or choose another port with {key}")
        }
        _ => e.to_string(),
    })
}

/// The next client.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Out of file descriptors, or the client has left already.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Sets a connection that carries media.
pub(crate) fn prepare(socket: &TcpStream) {
    // A frame is one write: nothing is gained by waiting for more.
    let _ = socket.set_nodelay(true);
    // A client that vanishes while its stream has nothing to send is noticed all the same.
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// How many may be connected, in all and from one address.
pub(crate) struct Places {
    limit: usize,
    limit_per_address: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// Addresses from which nobody is connected are not in it.
    addresses: HashMap<IpAddr, usize>,
}

/// A connection's place, until it is dropped.
pub(crate) struct Place {
    address: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    pub(crate) fn new(limit: usize, limit_per_address: usize) -> Self {
        Self { limit, limit_per_address, taken: Arc::default() }
    }

    /// None if there is none left.
    pub(crate) fn take(&self, peer: SocketAddr) -> Option<Place> {
        let address = peer.ip().to_canonical();
        let mut taken = self.taken.lock();
        if taken.all >= self.limit {
            tracing::debug!(%peer, limit = self.limit, "too many connections");
            return None;
        }
        let count = taken.addresses.get(&address).copied().unwrap_or(0);
        if count >= self.limit_per_address {
            tracing::debug!(%peer, limit = self.limit_per_address, "too many connections from one address");
            return None;
        }
        taken.all += 1;
        taken.addresses.insert(address, count + 1);
        Some(Place { address, taken: self.taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all -= 1;
        if let Some(count) = taken.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let places = Places::new(3, 2);
        let (a, b): (SocketAddr, SocketAddr) =
            ("10.0.0.1:1".parse().unwrap(), "[::ffff:10.0.0.1]:2".parse().unwrap());
        let other: SocketAddr = "10.0.0.2:1".parse().unwrap();
        let (first, second) = (places.take(a).unwrap(), places.take(b).unwrap());
        assert!(places.take(a).is_none());
        let third = places.take(other).unwrap();
        assert!(places.take(other).is_none());
        drop((first, second));
        assert!(places.take(a).is_some());
        drop(third);
        let taken = places.taken.lock();
        assert_eq!((taken.all, taken.addresses.len()), (0, 0));
    }
}
