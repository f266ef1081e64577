//! What a connection that begins here needs to get out of its network: its address as others see it (STUN, RFC 8489), and
//! addresses on servers that send on (TURN).

use super::ice_server::{IceServer, Transport, Way};
use super::relay::Allocation;
use super::socket::Socket;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use turn_client_proto::stun::types::attribute::XorMappedAddress;
use turn_client_proto::stun::types::message::{
    BINDING, Message, MessageWrite, MessageWriteVec, TransactionId,
};

/// How long servers may take, all together.
const TIMEOUT: Duration = Duration::from_secs(3);
/// STUN servers are asked again after this.
const AGAIN: Duration = Duration::from_millis(500);
/// As many servers are asked.
const MAX_SERVERS: usize = 8;

/// What has been found.
#[derive(Default)]
pub(super) struct Gathered {
    /// How others see us, and which of our addresses that is.
    pub(super) mapped: Vec<(SocketAddr, SocketAddr)>,
    pub(super) allocations: Vec<Allocation>,
    /// What did not answer, and why; for people.
    pub(super) problems: Vec<String>,
}

async fn resolve(way: &Way, families: impl Fn(&SocketAddr) -> bool) -> io::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host((way.host.as_str(), way.port)).await?;
    let first = found.find(families);
    first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address of a family that we have"))
}

/// From which address a server is reached.
fn source_towards(server: SocketAddr, port: u16) -> io::Result<SocketAddr> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Sends nothing: the system only says by which way it would.
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    Ok(SocketAddr::new(socket.local_addr()?.ip(), port))
}

/// The address in an answer to one of our requests.
fn mapped(data: &[u8], asked: &HashMap<TransactionId, SocketAddr>) -> Option<(SocketAddr, TransactionId)> {
    // The parser is somebody else's, and this comes from anybody.
    let parse = || {
        let message = Message::from_bytes(data).ok()?;
        let id = message.transaction_id();
        let is_ours = message.is_response() && message.has_method(BINDING) && asked.contains_key(&id);
        let address = message.attribute::<XorMappedAddress>().ok().filter(|_| is_ours)?;
        Some((address.addr(id), id))
    };
    std::panic::catch_unwind(parse).ok().flatten()
}

/// Asks STUN servers by the socket that media will take.
async fn ask(socket: &Socket, servers: &[SocketAddr], found: &mut Vec<(SocketAddr, SocketAddr)>) {
    let (mut asked, mut buffers) = (HashMap::new(), socket.buffers());
    let (mut left, mut again) = (servers.to_vec(), tokio::time::interval(AGAIN));
    while !left.is_empty() {
        let mut answers = Vec::new();
        tokio::select! {
            _ = again.tick() => for server in &left {
                let request = Message::builder_request(BINDING, MessageWriteVec::new());
                let data = request.finish();
                if let Ok(message) = Message::from_bytes(&data) {
                    asked.insert(message.transaction_id(), *server);
                    socket.send_to(*server, &data);
                }
            },
            received = socket.receive(&mut buffers, |d| answers.extend(mapped(&d.data, &asked))) => {
                if received.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        for (address, id) in answers {
            let Some(server) = asked.get(&id).copied() else { continue };
            left.retain(|other| *other != server);
            if let Ok(base) = source_towards(server, socket.address().port())
                && base.ip() != address.ip()
                && base.is_ipv4() == address.is_ipv4()
            {
                found.push((address, base));
            }
        }
    }
}

/// Asks all servers at one time, and takes what has come within a few seconds.
pub(super) async fn gather(servers: &[IceServer], socket: &Socket, relay_only: bool) -> Gathered {
    let mut gathered = Gathered::default();
    let dual = socket.address().is_ipv6();
    let (mut stun, mut turn) = (Vec::new(), tokio::task::JoinSet::new());
    let limit = tokio::time::Instant::now() + TIMEOUT;
    for server in servers.iter().take(MAX_SERVERS) {
        let Some(way) = Way::parse(&server.url) else { continue };
        let resolves = resolve(&way, |a| a.is_ipv4() || dual || way.transport != Transport::Udp);
        let address = match tokio::time::timeout_at(limit, resolves).await {
            Ok(Ok(address)) => address,
            Ok(Err(error)) => {
                gathered.problems.push(format!("{}: {error}", server.url));
                continue;
            }
            Err(_) => {
                gathered.problems.push(format!("{}: its name is not answered", server.url));
                continue;
            }
        };
        match (way.relays, way.transport) {
            (true, _) => {
                let server = server.clone();
                turn.spawn(async move {
                    let asks = Allocation::new(&server, &way, address);
                    let answered = tokio::time::timeout_at(limit, asks).await;
                    let answered = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                    answered.map_err(|error| format!("{}: {error}", server.url))
                });
            }
            // Our address by TCP is of no use to anybody.
            (false, Transport::Udp) if !relay_only => stun.push(address),
            (false, _) => {}
        }
    }
    let mut mapped = Vec::new();
    let asks = tokio::time::timeout_at(limit, ask(socket, &stun, &mut mapped));
    let allocates = async {
        while let Some(allocated) = turn.join_next().await {
            match allocated {
                Ok(Ok(allocation)) => gathered.allocations.push(allocation),
                Ok(Err(problem)) => gathered.problems.push(problem),
                Err(_) => {}
            }
        }
    };
    let (answered, ()) = tokio::join!(asks, allocates);
    if answered.is_err() {
        gathered.problems.push(format!("not all of {} STUN servers answered", stun.len()));
    }
    gathered.mapped = mapped;
    gathered.mapped.sort();
    gathered.mapped.dedup();
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::ice_server::IceServer;
    use turn_client_proto::stun::types::message::MessageWriteExt as _;

    fn stun(address: SocketAddr) -> IceServer {
        let url = format!("stun:{address}");
        IceServer { url, username: None, password: None, secret: None, secret_lifetime: Duration::ZERO }
    }

    #[tokio::test]
    async fn a_stun_server_says_how_others_see_us_and_what_else_comes_does_not_count() {
        let seen: SocketAddr = "203.0.113.9:4242".parse().unwrap();
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let answers = tokio::spawn(async move {
            let mut buffer = [0; 1000];
            // The first request is lost.
            server.recv_from(&mut buffer).await.unwrap();
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(b"rubbish", from).await.unwrap();
            let request = Message::from_bytes(&buffer[..length]).unwrap();
            let answer = |request: &Message<'_>, address| {
                let mut answer = Message::builder_success(request, MessageWriteVec::new());
                let mapped = XorMappedAddress::new(address, request.transaction_id());
                answer.add_attribute(&mapped).unwrap();
                answer.finish()
            };
            // To a request that was none of ours.
            let other = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
            let other = Message::from_bytes(&other).unwrap();
            server.send_to(&answer(&other, "198.51.100.1:1".parse().unwrap()), from).await.unwrap();
            server.send_to(&answer(&request, seen), from).await.unwrap();
        });
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let servers = [stun(address), stun(silent.local_addr().unwrap())];
        let gathered = gather(&servers, &socket, false).await;
        answers.await.unwrap();
        assert_eq!(gathered.mapped, [(seen, socket.address())]);
        assert_eq!(gathered.problems, ["not all of 2 STUN servers answered"]);
    }
}
