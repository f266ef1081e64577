//! A TURN server's client (RFC 8656): an address on the server, and what goes by way of it.
//!
//! An allocation has a socket and a task of its own. What a session sends from the allocated address waits in the task's
//! queue, and is lost when that is full, as it would be by UDP; what arrives there goes to the session's worker as if it had
//! come to us. The protocol is `turn-client-proto`'s, without input and output of its own.

use super::ice_server::{IceServer, Transport, Way};
use super::route::is_stun;
use crate::frame::WallTime;
use crate::http_client;
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use turn_client_proto::api::{Transmit, TransmitBuild, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::TurnClientApi as _;
use turn_client_proto::stun::Instant as TurnInstant;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

turn_client_proto::impl_client!(pub(super) TurnClient, (Udp, TurnClientUdp), (Tcp, TurnClientTcp));

/// What may wait for a TURN server: two seconds of 4 Mbit/s.
const QUEUE: usize = 1024;
/// What may wait for a permission: as much as a few checks of ICE.
const MAX_WAITING: usize = 32;
/// Peers that one allocation may send to.
const MAX_PEERS: usize = 32;
/// How long the server may take nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long giving an allocation back may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
const BUFFER_BYTES: usize = 64 << 10;

/// A datagram, and where it goes or comes from.
type Addressed = (SocketAddr, Vec<u8>);

/// The allocations of a session, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Relays {
    queues: RwLock<HashMap<SocketAddr, mpsc::Sender<Addressed>>>,
}

impl Relays {
    /// Sends from an allocated address, if it is one.
    pub(super) fn send(&self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> bool {
        let queues = self.queues.read();
        let Some(queue) = queues.get(&from) else { return false };
        // Lost, as on any network.
        let _ = queue.try_send((to, datagram.to_vec()));
        true
    }

    /// Makes room for what goes by way of an allocation.
    pub(super) fn add(&self, allocated: SocketAddr) -> mpsc::Receiver<Addressed> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.queues.write().insert(allocated, sender);
        receiver
    }
}

/// The protocol's library tells of each of its calls, in the tone in which we tell what matters.
fn quiet<T>(act: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), act)
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// The way to a server.
enum Line {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>),
}

impl Line {
    async fn open(way: &Way, server: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        if way.transport == Transport::Udp {
            let any: SocketAddr =
                if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(server).await?;
            let local = socket.local_addr()?;
            return Ok((Self::Udp(socket), local));
        }
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        if way.transport == Transport::Tcp {
            return Ok((Self::Stream(Box::new(stream)), local));
        }
        let connector = tokio_rustls::TlsConnector::from(http_client::tls_config());
        let name = tokio_rustls::rustls::pki_types::ServerName::try_from(way.host.clone())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let stream = connector.connect(name, stream).await?;
        Ok((Self::Stream(Box::new(stream)), local))
    }

    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(buffer).await,
            Self::Stream(stream) => match stream.read(buffer).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                length => Ok(length),
            },
        }
    }

    async fn send(&mut self, data: &[u8]) -> io::Result<()> {
        let sends = async {
            match self {
                Self::Udp(socket) => socket.send(data).await.map(drop),
                Self::Stream(stream) => stream.write_all(data).await,
            }
        };
        tokio::time::timeout(WRITE_TIMEOUT, sends)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// An address on a TURN server.
pub(super) struct Allocation {
    line: Line,
    client: TurnClient,
    /// The beginning of the client's time.
    base: Instant,
    local: SocketAddr,
    server: SocketAddr,
    pub(super) allocated: SocketAddr,
    peers: HashSet<IpAddr>,
    channels: HashSet<SocketAddr>,
    /// For peers that may not be sent to yet.
    waiting: VecDeque<Addressed>,
}

impl Allocation {
    /// Asks a server for an address.
    pub(super) async fn new(server: &IceServer, way: &Way, address: SocketAddr) -> io::Result<Self> {
        let other = |text: &str| io::Error::other(text.to_owned());
        let (user, password) =
            server.credentials(WallTime::now()).ok_or_else(|| other("it wants a name and a password"))?;
        let (line, local) = Line::open(way, address).await?;
        let mut config = TurnConfig::new(TurnCredentials::new(&user, &password));
        if address.is_ipv6() {
            config.set_address_family(AddressFamily::IPV6);
        }
        let client = quiet(|| match line {
            Line::Udp(_) => TurnClient::Udp(TurnClientUdp::allocate(local, address, config)),
            Line::Stream(_) => TurnClient::Tcp(TurnClientTcp::allocate(local, address, config)),
        });
        let mut new = Self {
            line,
            client,
            base: Instant::now(),
            local,
            server: address,
            // Until there is one.
            allocated: local,
            peers: HashSet::new(),
            channels: HashSet::new(),
            waiting: VecDeque::new(),
        };
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let wake = new.turn().await?;
            while let Some(event) = quiet(|| new.client.poll_event()) {
                match event {
                    TurnEvent::AllocationCreated(TransportType::Udp, allocated) => {
                        new.allocated = allocated;
                        return Ok(new);
                    }
                    TurnEvent::AllocationCreateFailed(_) => return Err(other("it gives no address")),
                    _ => {}
                }
            }
            tokio::select! {
                received = new.line.receive(&mut buffer) => {
                    let length = received?;
                    // Nothing else can come yet.
                    let _ = new.arrived(&buffer[..length]);
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// From where the server is spoken to.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    fn now(&self) -> TurnInstant {
        TurnInstant::from_nanos(i64::try_from(self.base.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }

    /// Sends what the protocol has to send; says when it wants to be looked at again.
    async fn turn(&mut self) -> io::Result<Instant> {
        loop {
            let now = self.now();
            let next = quiet(|| self.client.poll(now));
            let mut sent = false;
            while let Some(transmit) = quiet(|| self.client.poll_transmit(now)) {
                self.line.send(transmit.data.as_ref()).await?;
                sent = true;
            }
            match next {
                TurnPollRet::Closed => return Err(io::ErrorKind::ConnectionAborted.into()),
                TurnPollRet::WaitUntil(at) if !sent => {
                    let ahead = at.saturating_duration_since(now).clamp(Duration::from_millis(1), WAKE);
                    return Ok(Instant::now() + ahead);
                }
                _ => {}
            }
        }
    }

    /// Takes what the server has sent.
    fn arrived(&mut self, data: &[u8]) -> Vec<Addressed> {
        let (now, transport) = (self.now(), self.client.transport());
        let mut all = Vec::new();
        let transmit = Transmit::new(data, transport, self.server, self.local);
        if let TurnRecvRet::PeerData(peer) = quiet(|| self.client.recv(transmit, now)) {
            all.push((peer.peer, peer.data().to_vec()));
        }
        while let Some(peer) = quiet(|| self.client.poll_recv(now)) {
            all.push((peer.peer, peer.data().to_vec()));
        }
        all
    }

    /// Sends to a peer; waits for leave to do so if that is not there yet.
    async fn send(&mut self, to: SocketAddr, data: Vec<u8>) -> io::Result<()> {
        let now = self.now();
        if !self.client.have_permission(TransportType::Udp, to.ip()) {
            if self.peers.len() < MAX_PEERS && self.peers.insert(to.ip()) {
                // Asked for already, if not now.
                let _ = quiet(|| self.client.create_permission(TransportType::Udp, to.ip(), now));
            }
            if self.waiting.len() < MAX_WAITING {
                self.waiting.push_back((to, data));
            }
            return Ok(());
        }
        // What is no more a check of ICE is much, and goes by a channel: 4 bytes a packet instead of 36. Not in a stream, where
        // the protocol's library does not know of the padding behind such packets (RFC 8656 section 12.5).
        let is_stream = matches!(self.line, Line::Stream(_));
        if !is_stream && !is_stun(&data) && self.channels.insert(to) {
            let _ = quiet(|| self.client.bind_channel(TransportType::Udp, to, now));
        }
        let sends = || self.client.send_to(TransportType::Udp, to, data, now).ok().flatten();
        match quiet(|| sends().map(TransmitBuild::build)) {
            Some(transmit) => self.line.send(&transmit.data).await,
            // Lost, as on any network.
            None => Ok(()),
        }
    }

    /// Carries what is sent and what arrives until nothing more is to be sent, then gives the address back.
    pub(super) async fn run(
        mut self,
        mut outgoing: mpsc::Receiver<Addressed>,
        deliver: impl Fn(SocketAddr, Vec<u8>),
    ) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let wake = self.turn().await?;
            while let Some(event) = quiet(|| self.client.poll_event()) {
                match event {
                    TurnEvent::PermissionCreated(_, ip) => {
                        let waiting = std::mem::take(&mut self.waiting);
                        let (now, later) = waiting.into_iter().partition(|(to, _)| to.ip() == ip);
                        self.waiting = later;
                        let now: VecDeque<Addressed> = now;
                        for (to, data) in now {
                            self.send(to, data).await?;
                        }
                    }
                    TurnEvent::PermissionCreateFailed(_, ip) => {
                        tracing::debug!(peer = %ip, "a TURN server does not send there");
                        self.waiting.retain(|(to, _)| to.ip() != ip);
                    }
                    _ => {}
                }
            }
            tokio::select! {
                sent = outgoing.recv() => match sent {
                    Some((to, data)) => self.send(to, data).await?,
                    None => break,
                },
                received = self.line.receive(&mut buffer) => {
                    let length = received?;
                    for (from, data) in self.arrived(&buffer[..length]) {
                        deliver(from, data);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        self.release().await;
        Ok(())
    }

    /// Gives the address back.
    pub(super) async fn release(mut self) {
        let now = self.now();
        if quiet(|| self.client.delete(now)).is_ok() {
            let mut buffer = vec![0; BUFFER_BYTES];
            let goodbye = async {
                // It closes with the answer.
                while let Ok(wake) = self.turn().await {
                    tokio::select! {
                        received = self.line.receive(&mut buffer) => match received {
                            Ok(length) => drop(self.arrived(&buffer[..length])),
                            Err(_) => break,
                        },
                        () = tokio::time::sleep_until(wake.into()) => {}
                    }
                }
            };
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
        }
    }
}

/// The protocol is looked at this often, whatever it says.
const WAKE: Duration = Duration::from_secs(60);
