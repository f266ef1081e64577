//! ICE by TCP (RFC 6544): for clients whose networks let no UDP out. The same port number, by which they are connected to.
//!
//! A connection carries datagrams, each behind its length (RFC 4571). Its task hands them to the session that the first one
//! names; what a session sends waits in the connection's queue, and is lost when that is full, as it would be by UDP.

use super::route::{Owner, Routes};
use super::socket::Datagram;
use super::worker::{Command, WorkerHandle};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use str0m::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// No datagram of WebRTC is longer.
const MAX_BYTES: usize = 2048;
/// What may wait for one connection: two seconds of 4 Mbit/s.
const QUEUE: usize = 1024;
/// Written in one go.
const WRITE_AT_ONCE: usize = 32;
/// How long a connection may take to say whose it is.
const NAME_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that says nothing for this long, or takes nothing, is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The connections that there are.
#[derive(Debug, Default)]
pub(super) struct Links {
    queues: RwLock<HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>>,
}

impl Links {
    /// Sends a datagram over the connection to an address. `false` if it is lost.
    pub(super) fn send(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        let Ok(length) = u16::try_from(datagram.len()) else { return false };
        let queues = self.queues.read();
        let Some(queue) = queues.get(&to) else { return false };
        let mut frame = Vec::with_capacity(2 + datagram.len());
        frame.extend(length.to_be_bytes());
        frame.extend(datagram);
        queue.try_send(frame).is_ok()
    }
}

/// A connection's place among them.
struct Linked<'a> {
    links: &'a Links,
    address: SocketAddr,
}

impl Drop for Linked<'_> {
    fn drop(&mut self) {
        self.links.queues.write().remove(&self.address);
    }
}

/// What connections need.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) links: Arc<Links>,
    pub(super) routes: Arc<Routes>,
    pub(super) workers: Arc<[WorkerHandle]>,
    pub(super) max_connections: usize,
}

async fn read_frame(reader: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = usize::from(reader.read_u16().await?);
    if length > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram that long is none of WebRTC's"));
    }
    let mut data = vec![0; length];
    reader.read_exact(&mut data).await?;
    Ok(data)
}

async fn read(mut reader: OwnedReadHalf, ends: (SocketAddr, SocketAddr), shared: &Shared) -> io::Result<()> {
    let (source, destination) = ends;
    let mut owner: Option<Owner> = None;
    loop {
        let limit = if owner.is_some() { IDLE_TIMEOUT } else { NAME_TIMEOUT };
        let data = tokio::time::timeout(limit, read_frame(&mut reader)).await??;
        let datagram = Datagram { protocol: Protocol::Tcp, source, destination, data };
        let whose = match owner {
            Some(owner) => owner,
            // Whoever connects has to say first whose it is.
            None => shared.routes.named(&datagram).ok_or(io::ErrorKind::InvalidData)?,
        };
        owner = Some(whose);
        if let Some(worker) = shared.workers.get(whose.worker) {
            // A worker that is behind loses it, as a network would.
            let _ = worker.try_send(Command::Datagram(whose.session, datagram));
        }
    }
}

async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    let mut frames = Vec::with_capacity(WRITE_AT_ONCE);
    while queue.recv_many(&mut frames, WRITE_AT_ONCE).await > 0 {
        let together = frames.concat();
        frames.clear();
        tokio::time::timeout(IDLE_TIMEOUT, writer.write_all(&together)).await??;
    }
    Ok(())
}

async fn connection(stream: TcpStream, peer: SocketAddr, shared: Shared) {
    let Ok(local) = stream.local_addr() else { return };
    // Small things must not wait for more.
    let _ = stream.set_nodelay(true);
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (peer, local) = (plain(peer), plain(local));
    let (sender, queue) = mpsc::channel(QUEUE);
    shared.links.queues.write().insert(peer, sender);
    let linked = Linked { links: &shared.links, address: peer };
    let (reader, writer) = stream.into_split();
    let ended = tokio::select! {
        ended = read(reader, (peer, local), &shared) => ended,
        ended = write(writer, queue) => ended,
    };
    drop(linked);
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a WebRTC connection by TCP has ended");
    }
}

/// Takes connections for as long as it is polled; they end with it.
pub(super) async fn run(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) if connections.len() < shared.max_connections => {
                connections.spawn(connection(stream, peer, shared.clone()));
            }
            // Closed at once: there are too many.
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a WebRTC connection by TCP");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
