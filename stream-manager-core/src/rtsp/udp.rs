//! Media by UDP: one pair of sockets for all sessions, and a session's way out through it.
//!
//! Packets of the same size go out with one system call (generic segmentation offload), or, where the system cannot do
//! that, whatever their size with one `sendmmsg`. A large frame is sent in parts with a millisecond between, so that it
//! does not overrun the receiver's buffer. What a socket does not take is lost, as datagrams are;
//! a reader that lost part of its video goes on with the next keyframe.

use super::outlet::{QueueRule, Sent};
use crate::rtp::Packets;
use crate::session::SessionStats;
use bytes::Bytes;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// What the system keeps of datagrams that are not read yet: a few keyframes of a few publishers.
const RECEIVE_BUFFER: usize = 4 << 20;
const SEND_BUFFER: usize = 4 << 20;
/// Why a session ends whose addresses another one has taken.
pub(super) const TAKEN: &str = "the client has come again from the same ports";
/// One system call's limits: UDP_MAX_SEGMENTS is 64 on older kernels, and all of it is one IP packet at first.
const MAX_SEGMENTS: usize = 60;
const MAX_SEGMENTS_BYTES: usize = 60_000;
/// So many packets go out at once: a receiver whose buffer is the system's usual 208 KiB has room for about ninety.
const BURST_PACKETS: usize = 32;
/// The next ones follow after this.
const BURST_GAP: Duration = Duration::from_millis(1);

/// A datagram for a session.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) data: Bytes,
}

/// Where datagrams from one address go.
#[derive(Debug)]
struct Inbox {
    sender: mpsc::Sender<Datagram>,
    owner: u64,
    taken: CancellationToken,
}

/// RTP and RTCP sockets of the server.
#[derive(Debug)]
pub(super) struct UdpPair {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    ports: (u16, u16),
    offload: AtomicBool,
    inboxes: Mutex<HashMap<SocketAddr, Inbox>>,
    owners: AtomicU64,
    /// Datagrams that came faster than they were taken.
    dropped: AtomicU64,
}

impl UdpPair {
    /// Binds an even port and the next one; `port` 0 lets the system choose.
    pub(super) fn bind(address: IpAddr, port: u16) -> io::Result<Self> {
        let mut last = io::Error::other("no pair of ports is free");
        for _ in 0..if port == 0 { 64 } else { 1 } {
            match Self::bind_once(address, port) {
                Ok(pair) => return Ok(pair),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn bind_once(address: IpAddr, port: u16) -> io::Result<Self> {
        let rtp = socket(SocketAddr::new(address, port))?;
        let first = rtp.local_addr()?.port();
        if first % 2 != 0 {
            return Err(io::Error::other("the port is odd; RTP takes an even one (RFC 3550 section 11)"));
        }
        let second = first.checked_add(1).ok_or_else(|| io::Error::other("there is no next port"))?;
        let rtcp = socket(SocketAddr::new(address, second))?;
        Ok(Self {
            rtp,
            rtcp,
            ports: (first, second),
            offload: AtomicBool::new(true),
            inboxes: Mutex::default(),
            owners: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    pub(super) fn ports(&self) -> (u16, u16) {
        self.ports
    }

    /// Takes datagrams from these addresses for a session. A session that has had one of them until now loses it: the
    /// same host at the same port is the same client, which has come again before the old session ended.
    pub(super) fn register(
        self: &Arc<Self>,
        addresses: &[SocketAddr],
        sender: &mpsc::Sender<Datagram>,
    ) -> Registration {
        let taken = CancellationToken::new();
        let addresses: Vec<SocketAddr> = addresses.iter().map(|a| canonical(*a)).collect();
        let owner = self.owners.fetch_add(1, Ordering::Relaxed);
        let mut inboxes = self.inboxes.lock();
        for address in &addresses {
            let inbox = Inbox { sender: sender.clone(), owner, taken: taken.clone() };
            if let Some(old) = inboxes.insert(*address, inbox) {
                old.taken.cancel();
            }
        }
        Registration { pair: self.clone(), addresses, owner, taken }
    }

    /// Hands arriving datagrams to their sessions until it is dropped.
    pub(super) async fn receive(self: Arc<Self>) {
        tokio::join!(self.receive_from(&self.rtp), self.receive_from(&self.rtcp));
    }

    async fn receive_from(&self, socket: &UdpSocket) {
        let mut buffer = vec![0u8; 65_536];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, from)) => {
                    let from = canonical(from);
                    let inbox = self.inboxes.lock().get(&from).map(|inbox| inbox.sender.clone());
                    // From a stranger: nobody has said that it would come.
                    let Some(inbox) = inbox else { continue };
                    let data = Bytes::copy_from_slice(&buffer[..length]);
                    if inbox.try_send(Datagram { from, data }).is_err() {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // An answer that a port is closed comes up here; the session finds out by itself.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Sends packets from `first` on, up to `end`; the number of the first that did not go.
    pub(super) fn send(
        &self,
        packets: &Packets,
        first: usize,
        end: usize,
        to: SocketAddr,
    ) -> io::Result<usize> {
        let end = end.min(packets.len());
        let socket = if packets.rtcp { &self.rtcp } else { &self.rtp };
        let to = SockaddrStorage::from(self.mapped(to));
        let mut sent = first;
        while sent < end {
            let result = if self.offload.load(Ordering::Relaxed) {
                segments(socket, packets, sent..end, &to)
            } else {
                many(socket, packets, sent..end, &to)
            };
            match result {
                Ok(count) => sent += count.max(1),
                Err(e) if is_unsupported(&e) && self.offload.swap(false, Ordering::Relaxed) => {
                    tracing::info!(error = %e, "UDP segmentation offload does not work here; going on without");
                }
                Err(e) => return if sent == first { Err(e) } else { Ok(sent) },
            }
        }
        Ok(sent)
    }

    /// An IPv4 address as an IPv6 socket wants it.
    fn mapped(&self, address: SocketAddr) -> SocketAddr {
        match (self.rtp.local_addr(), address) {
            (Ok(SocketAddr::V6(_)), SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => address,
        }
    }
}

/// An address by which one host is known, whatever the socket's family.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            // A link-local address is nothing without its scope.
            None => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id())),
        },
        v4 => v4,
    }
}

/// The same host at another port.
pub(super) fn with_port(host: SocketAddr, port: u16) -> SocketAddr {
    let mut address = canonical(host);
    address.set_port(port);
    address
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The system gives what it allows.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn is_unsupported(error: &io::Error) -> bool {
    use nix::errno::Errno;
    [Errno::EINVAL, Errno::EIO, Errno::EOPNOTSUPP, Errno::ENOPROTOOPT, Errno::EMSGSIZE]
        .iter()
        .any(|e| error.raw_os_error() == Some(*e as i32))
}

/// Sends a run of packets of the same size, of which the last one may be shorter, in one call.
fn segments(
    socket: &UdpSocket,
    packets: &Packets,
    range: Range<usize>,
    to: &SockaddrStorage,
) -> io::Result<usize> {
    let first = range.start;
    let size = packets.datagram_bytes(first);
    let mut count = 1;
    let mut total = size;
    while first + count < range.end && count < MAX_SEGMENTS {
        let next = packets.datagram_bytes(first + count);
        if next > size || total + next > MAX_SEGMENTS_BYTES {
            break;
        }
        total += next;
        count += 1;
        if next < size {
            break;
        }
    }
    let mut slices = Vec::with_capacity(count * 3);
    for index in first..first + count {
        packets.datagram(index, &mut slices);
    }
    let size = size as u16;
    let controls = [ControlMessage::UdpGsoSegments(&size)];
    let controls = if count > 1 { &controls[..] } else { &[] };
    socket.try_io(Interest::WRITABLE, || {
        sendmsg(socket.as_raw_fd(), &slices, controls, MsgFlags::MSG_DONTWAIT, Some(to))
            .map_err(io::Error::from)
    })?;
    Ok(count)
}

/// Sends packets one by one, in one call.
fn many(
    socket: &UdpSocket,
    packets: &Packets,
    range: Range<usize>,
    to: &SockaddrStorage,
) -> io::Result<usize> {
    let count = range.len().min(MAX_SEGMENTS);
    let slices: Vec<Vec<IoSlice<'_>>> = range
        .take(count)
        .map(|index| {
            let mut slices = Vec::with_capacity(3);
            packets.datagram(index, &mut slices);
            slices
        })
        .collect();
    let addresses = vec![Some(*to); count];
    let mut headers = MultiHeaders::preallocate(count, None);
    socket.try_io(Interest::WRITABLE, || {
        let none: [ControlMessage<'_>; 0] = [];
        sendmmsg(socket.as_raw_fd(), &mut headers, slices.iter(), addresses, none, MsgFlags::MSG_DONTWAIT)
            .map(|sent| sent.count())
            .map_err(io::Error::from)
    })
}

/// While it lives, datagrams from its addresses go to a session.
#[derive(Debug)]
pub(super) struct Registration {
    pair: Arc<UdpPair>,
    addresses: Vec<SocketAddr>,
    owner: u64,
    taken: CancellationToken,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inboxes = self.pair.inboxes.lock();
        for address in &self.addresses {
            if inboxes.get(address).is_some_and(|inbox| inbox.owner == self.owner) {
                inboxes.remove(address);
            }
        }
    }
}

/// Returns when another session has taken the addresses of this one, if it has any.
pub(super) async fn taken(registration: Option<&Registration>) {
    match registration {
        Some(registration) => registration.taken.cancelled().await,
        None => std::future::pending().await,
    }
}

/// A reader's way out by UDP.
#[derive(Debug)]
pub(super) struct UdpOutlet {
    pair: Arc<UdpPair>,
    /// By track: where RTP and RTCP go.
    targets: Vec<Option<(SocketAddr, SocketAddr)>>,
    rule: QueueRule,
    notify: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Waiting>,
    bytes: usize,
    skipping: bool,
    untold: u64,
    stats: SessionStats,
}

#[derive(Debug)]
struct Waiting {
    packets: Arc<Packets>,
    /// The first that has not been sent.
    first: usize,
    due: Instant,
}

impl UdpOutlet {
    pub(super) fn new(
        pair: Arc<UdpPair>,
        targets: Vec<Option<(SocketAddr, SocketAddr)>>,
        rule: QueueRule,
    ) -> Self {
        Self { pair, targets, rule, notify: Notify::new(), state: Mutex::default() }
    }

    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }

    pub(super) fn media(&self, packets: &Arc<Packets>, sync: bool) {
        let mut state = self.state.lock();
        if state.skipping {
            if !sync || packets.rtcp {
                let lost = u64::from(!packets.rtcp);
                state.lose(lost);
                return;
            }
            state.skipping = false;
        }
        let now = Instant::now();
        if state.pending.is_empty() {
            if let Some(first) = self.send(&mut state, packets, 0) {
                state.bytes += packets.bytes();
                state.pending.push_back(Waiting { packets: packets.clone(), first, due: now + BURST_GAP });
                drop(state);
                self.notify.notify_one();
            }
            return;
        }
        if state.bytes + packets.bytes() > self.rule.bytes {
            let lost = state.pending.drain(..).filter(|w| !w.packets.rtcp).count() as u64 + 1;
            (state.bytes, state.skipping) = (0, true);
            state.lose(lost);
            return;
        }
        state.bytes += packets.bytes();
        state.pending.push_back(Waiting { packets: packets.clone(), first: 0, due: now });
    }

    pub(super) fn begin(&self, frames: impl Iterator<Item = (Arc<Packets>, Option<Instant>)>, skip: bool) {
        let mut state = self.state.lock();
        state.skipping = skip;
        let now = Instant::now();
        for (packets, due) in frames {
            state.bytes += packets.bytes();
            state.pending.push_back(Waiting { packets, first: 0, due: due.unwrap_or(now) });
        }
        drop(state);
        self.notify.notify_one();
    }

    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.pending.clear();
        state.bytes = 0;
    }

    /// Sends what is due, at most one burst.
    pub(super) fn drain(&self) -> Sent {
        let mut state = self.state.lock();
        let now = Instant::now();
        let mut budget = BURST_PACKETS;
        while let Some(Waiting { packets, first, due }) = state.pending.front() {
            if *due > now {
                return Sent::Until(*due);
            }
            if budget == 0 {
                return Sent::Until(now + BURST_GAP);
            }
            let (packets, first) = (packets.clone(), *first);
            budget = budget.saturating_sub(packets.len() - first);
            let next = self.send(&mut state, &packets, first);
            match (next, state.pending.front_mut()) {
                (Some(next), Some(front)) => (front.first, front.due) = (next, now + BURST_GAP),
                _ => {
                    state.bytes -= packets.bytes();
                    state.pending.pop_front();
                }
            }
        }
        Sent::All
    }

    /// Sends one burst of a frame; `Some` is the first packet of the next one.
    fn send(&self, state: &mut State, packets: &Arc<Packets>, first: usize) -> Option<usize> {
        let (rtp, rtcp) = self.targets.get(packets.track).copied().flatten()?;
        let end = (first + BURST_PACKETS).min(packets.len());
        let to = if packets.rtcp { rtcp } else { rtp };
        let sent = self.pair.send(packets, first, end, to).unwrap_or(first);
        state.stats.packets += (sent - first) as u64;
        state.stats.bytes += (packets.bytes() * (sent - first) / packets.len().max(1)) as u64;
        if sent < end {
            if !packets.rtcp {
                state.lose(1);
                state.skipping = true;
            }
            return None;
        }
        (end < packets.len()).then_some(end)
    }

    pub(super) fn stats(&self) -> SessionStats {
        let state = self.state.lock();
        SessionStats { queued_bytes: state.bytes as u64, ..state.stats }
    }

    pub(super) fn dropped(&self) -> u64 {
        std::mem::take(&mut self.state.lock().untold)
    }
}

impl State {
    fn lose(&mut self, frames: u64) {
        self.stats.dropped_frames += frames;
        self.untold += frames;
    }
}
