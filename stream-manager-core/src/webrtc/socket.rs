//! The UDP port: datagrams in batches, both ways.
//!
//! Packets of one frame for one viewer are handed to the system in one piece where it can split them by itself (GSO), and
//! what it has put together (GRO) is taken apart again.

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU64, Ordering};
use str0m::net::Protocol;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// As much as a keyframe for many viewers, or what many publishers send while we are busy.
const BUFFER_BYTES: usize = 4 << 20;
/// The most that is handed over in one piece: the length of a datagram.
const MAX_BATCH_BYTES: usize = 60_000;
/// Datagrams that are read at one time.
const READ_AT_ONCE: usize = 16;

/// A datagram that has arrived.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) protocol: Protocol,
    pub(super) source: SocketAddr,
    /// Where it was sent to.
    pub(super) destination: SocketAddr,
    pub(super) data: Vec<u8>,
}

/// The port.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// Where it is reached, if it listens everywhere and the system does not say at which address.
    fallback: IpAddr,
    /// Datagrams that the system did not take.
    refused: AtomicU64,
}

impl Socket {
    pub(super) fn bind(listen: SocketAddr) -> io::Result<Self> {
        let domain = if listen.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let raw = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
        if listen.is_ipv6() {
            raw.set_only_v6(false)?;
        }
        // As much of it as the system allows.
        let _ = raw.set_send_buffer_size(BUFFER_BYTES);
        let _ = raw.set_recv_buffer_size(BUFFER_BYTES);
        raw.set_nonblocking(true)?;
        raw.bind(&listen.into())?;
        let io = UdpSocket::from_std(raw.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let local = io.local_addr()?;
        Ok(Self { io, state, local, fallback: local.ip(), refused: AtomicU64::new(0) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.local
    }

    /// Datagrams that the system did not take so far.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits for datagrams and reads what is there.
    pub(super) async fn receive(
        &self,
        buffers: &mut Buffers,
        mut take: impl FnMut(Datagram),
    ) -> io::Result<()> {
        let mut meta = [RecvMeta::default(); READ_AT_ONCE];
        let count = loop {
            self.io.readable().await?;
            let mut slices: Vec<IoSliceMut<'_>> = buffers.0.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            let read = self.io.try_io(Interest::READABLE, || {
                self.state.recv(UdpSockRef::from(&self.io), &mut slices, &mut meta)
            });
            match read {
                Ok(count) => break count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        };
        for (meta, buffer) in meta.iter().zip(&buffers.0).take(count) {
            let ip = meta.dst_ip.unwrap_or(self.fallback).to_canonical();
            let destination = SocketAddr::new(ip, self.local.port());
            let source = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            for data in buffer[..meta.len].chunks(meta.stride.max(1)) {
                take(Datagram { protocol: Protocol::Udp, source, destination, data: data.to_vec() });
            }
        }
        Ok(())
    }

    pub(super) fn buffers(&self) -> Buffers {
        Buffers(vec![vec![0; 2048 * self.state.gro_segments().min(32)]; READ_AT_ONCE])
    }

    /// Sends a single datagram, from whatever address the system takes.
    pub(super) fn send_to(&self, destination: SocketAddr, contents: &[u8]) {
        let destination = self.reachable(destination);
        let transmit =
            quinn_udp::Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
        if self.state.try_send(UdpSockRef::from(&self.io), &transmit).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An address as this socket's family has it.
    fn reachable(&self, destination: SocketAddr) -> SocketAddr {
        match (self.local, destination) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
            }
            _ => destination,
        }
    }

    fn send(&self, batch: &Batch) {
        let Some((source, destination)) = batch.way else { return };
        let destination = self.reachable(destination);
        // What is bound to one address sends from there anyway.
        let src_ip = self.local.ip().is_unspecified().then_some(source.ip());
        let send = |contents: &[u8], segment_size| {
            let transmit = quinn_udp::Transmit { destination, ecn: None, contents, segment_size, src_ip };
            // Without asking tokio first: it would say no until its next turn after each refusal of the system.
            self.state.try_send(UdpSockRef::from(&self.io), &transmit)
        };
        let single = batch.data.len() <= batch.segment;
        match send(&batch.data, (!single).then_some(batch.segment)) {
            Ok(()) => {}
            // A network card that cannot split: each by itself.
            Err(e) if !single && e.kind() != io::ErrorKind::WouldBlock => {
                let refused = batch.data.chunks(batch.segment).filter(|one| send(one, None).is_err()).count();
                self.refused.fetch_add(refused as u64, Ordering::Relaxed);
            }
            // Lost, as on any network; what matters is asked for again.
            Err(_) => {
                let count = batch.data.len().div_ceil(batch.segment.max(1));
                self.refused.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    }
}

/// Room for what is read at one time.
pub(super) struct Buffers(Vec<Vec<u8>>);

/// Datagrams on one way, all of the same length but perhaps the last.
#[derive(Debug, Default)]
pub(super) struct Batch {
    way: Option<(SocketAddr, SocketAddr)>,
    segment: usize,
    data: Vec<u8>,
    full: bool,
}

impl Batch {
    /// Adds a datagram, and sends what is there first if it does not go with it.
    pub(super) fn add(
        &mut self,
        socket: &Socket,
        source: SocketAddr,
        destination: SocketAddr,
        datagram: &[u8],
    ) {
        let most = MAX_BATCH_BYTES.min(self.segment.saturating_mul(socket.state.max_gso_segments()));
        let goes_with = self.way == Some((source, destination))
            && !self.full
            && datagram.len() <= self.segment
            && self.data.len() + datagram.len() <= most;
        if !goes_with {
            self.flush(socket);
            self.way = Some((source, destination));
            self.segment = datagram.len();
        }
        self.data.extend_from_slice(datagram);
        self.full = datagram.len() < self.segment;
    }

    /// Sends what is there.
    pub(super) fn flush(&mut self, socket: &Socket) {
        if !self.data.is_empty() {
            socket.send(self);
        }
        self.data.clear();
        self.way = None;
        self.segment = 0;
        self.full = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_in_one_piece_arrives_as_single_datagrams_also_between_families() {
        for (from, to, home) in [
            ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
            ("[::]:0", "127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "[::]:0", "127.0.0.1"),
            ("[::1]:0", "[::1]:0", "::1"),
            ("[::]:0", "[::1]:0", "::1"),
        ] {
            let (from, to) =
                (Socket::bind(from.parse().unwrap()).unwrap(), Socket::bind(to.parse().unwrap()).unwrap());
            let home = |socket: &Socket| SocketAddr::new(home.parse().unwrap(), socket.local.port());
            let (source, destination) = (home(&from), home(&to));
            let sent: Vec<Vec<u8>> = [1000, 1000, 1000, 400, 700, 1100, 1100]
                .iter()
                .enumerate()
                .map(|(n, l)| vec![n as u8; *l])
                .collect();
            let mut batch = Batch::default();
            sent.iter().for_each(|datagram| batch.add(&from, source, destination, datagram));
            batch.flush(&from);
            let (mut buffers, mut received) = (to.buffers(), Vec::new());
            let limit = std::time::Duration::from_secs(5);
            while received.len() < sent.len() {
                let receive = to.receive(&mut buffers, |datagram| received.push(datagram));
                let arrived = tokio::time::timeout(limit, receive).await;
                assert!(
                    arrived.is_ok(),
                    "{} arrived, {} refused: {source} {destination}",
                    received.len(),
                    from.refused()
                );
            }
            assert!(
                received.iter().all(|d| d.source == source && d.destination == destination),
                "{received:?}"
            );
            assert_eq!(received.into_iter().map(|d| d.data).collect::<Vec<_>>(), sent);
            assert_eq!(from.refused(), 0);
        }
    }
}
