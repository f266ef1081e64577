//! TCP ports that are listened at, and how many may connect to them.
//!
//! Listeners that the process was started with (systemd's socket activation) are taken before new ones are bound: by the address, or by
//! their names.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// After this long without a packet the system asks whether the client is still there.
#[cfg(any(feature = "rtmp", feature = "rtsp"))]
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Listeners that the process was started with.
static INHERITED: Mutex<Vec<Inherited>> = Mutex::new(Vec::new());

struct Inherited {
    name: String,
    listener: std::net::TcpListener,
}

/// What listeners of sections of the configuration are called (`FileDescriptorName=`).
const NAMES: [(&str, &str); 5] = [
    ("server.listen", "http"),
    ("server.tls_listen", "https"),
    ("rtsp.listen", "rtsp"),
    ("rtsp.tls_listen", "rtsps"),
    ("rtmp.listen", "rtmp"),
];

/// Takes over listeners that the process was started with, by their names.
#[cfg(feature = "systemd")]
pub(crate) fn inherit(listeners: impl IntoIterator<Item = (String, std::net::TcpListener)>) {
    let listeners = listeners.into_iter().map(|(name, listener)| Inherited { name, listener });
    INHERITED.lock().extend(listeners);
}

/// The inherited listener for an address, or for the key's name.
fn inherited(address: SocketAddr, key: &str) -> Option<std::io::Result<TcpListener>> {
    let name = NAMES.iter().find(|(of, _)| *of == key).map(|(_, name)| *name);
    let inherited = INHERITED.lock();
    let by_name = inherited.iter().find(|inherited| name == Some(inherited.name.as_str()));
    let by_address = || {
        inherited.iter().find(|inherited| {
            let unnamed = NAMES.iter().all(|(_, name)| *name != inherited.name);
            unnamed && inherited.listener.local_addr().is_ok_and(|local| local == address)
        })
    };
    let found = by_name.or_else(by_address)?;
    // It stays with us: whoever gives it up may come back to it.
    let listener = found.listener.try_clone();
    Some(listener.and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }))
}

/// Listens at an address, which `key` of the configuration says; or says why that cannot be, and what would help.
pub(crate) fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, String> {
    let open = || -> std::io::Result<TcpListener> {
        if let Some(inherited) = inherited(address, key) {
            return inherited;
        }
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
            format!(
                "the port is in use; stop the other program, or choose another port with {key}{}",
                if key == "server.listen" { ", --port or STREAM_MANAGER_PORT" } else { "" }
            )
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
#[cfg(any(feature = "rtmp", feature = "rtsp"))]
pub(crate) fn prepare(socket: &TcpStream) {
    // A frame is one write: nothing is gained by waiting for more.
    let _ = socket.set_nodelay(true);
    // A client that vanishes while its stream has nothing to send is noticed all the same.
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// Who is connected, in all and from each address.
#[derive(Default)]
pub(crate) struct Places {
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
    /// A place among so many in all and from one address; none if there is none left.
    pub(crate) fn take(&self, peer: SocketAddr, limit: usize, limit_per_address: usize) -> Option<Place> {
        let address = peer.ip().to_canonical();
        let mut taken = self.taken.lock();
        if taken.all >= limit {
            tracing::debug!(%peer, limit, "too many connections");
            return None;
        }
        let count = taken.addresses.get(&address).copied().unwrap_or(0);
        if count >= limit_per_address {
            tracing::debug!(%peer, limit = limit_per_address, "too many connections from one address");
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
        let places = Places::default();
        let (a, b): (SocketAddr, SocketAddr) =
            ("10.0.0.1:1".parse().unwrap(), "[::ffff:10.0.0.1]:2".parse().unwrap());
        let other: SocketAddr = "10.0.0.2:1".parse().unwrap();
        let (first, second) = (places.take(a, 3, 2).unwrap(), places.take(b, 3, 2).unwrap());
        assert!(places.take(a, 3, 2).is_none());
        let third = places.take(other, 3, 2).unwrap();
        assert!(places.take(other, 3, 2).is_none());
        drop((first, second));
        assert!(places.take(a, 3, 2).is_some());
        drop(third);
        let taken = places.taken.lock();
        assert_eq!((taken.all, taken.addresses.len()), (0, 0));
    }
}
