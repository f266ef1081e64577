//! An RTSP client that says exactly what a test wants it to say, also what no good client would.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The reason behind it.
    pub reason: String,
    /// The headers by name in lower case; one that comes several times has its lines joined by a line feed.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What comes over a connection.
#[derive(Clone, Debug)]
pub enum Received {
    /// An answer.
    Answer(Answer),
    /// An interleaved packet.
    Packet(u8, Vec<u8>),
}

/// A connection to an RTSP server.
#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
    sequence: u32,
    /// The session that SETUP or ANNOUNCE gave.
    pub session: Option<String>,
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, buffer: Vec::new(), sequence: 0, session: None }
    }

    /// The local end.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The same for a server that may have gone; `false` if it has.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).await.is_ok()
    }

    /// Sends a request and waits for its answer; packets in between are dropped.
    pub async fn request(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.sequence += 1;
        let mut text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n", self.sequence);
        if let Some(session) = &self.session {
            text += &format!("Session: {session}\r\n");
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body;
        self.send(text.as_bytes()).await;
        let answer = self.answer().await.unwrap_or_else(|| panic!("no answer to {text}"));
        assert_eq!(answer.header("cseq"), self.sequence.to_string(), "{answer:?}");
        if !answer.header("session").is_empty() {
            self.session = Some(answer.header("session").split(';').next().unwrap().to_owned());
        }
        answer
    }

    /// The next answer; `None` if the connection ends before.
    pub async fn answer(&mut self) -> Option<Answer> {
        loop {
            match self.receive().await? {
                Received::Answer(answer) => return Some(answer),
                Received::Packet(..) => {}
            }
        }
    }

    /// What comes next; `None` at the end.
    ///
    /// # Panics
    /// If nothing comes in time.
    pub async fn receive(&mut self) -> Option<Received> {
        tokio::time::timeout(LIMIT, self.next()).await.expect("the server says nothing")
    }

    async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some(received) = self.parse() {
                return Some(received);
            }
            let mut chunk = vec![0u8; 65_536];
            match self.socket.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn parse(&mut self) -> Option<Received> {
        if *self.buffer.first()? == b'$' {
            let length = usize::from(u16::from_be_bytes([*self.buffer.get(2)?, *self.buffer.get(3)?]));
            if self.buffer.len() < 4 + length {
                return None;
            }
            let packet: Vec<u8> = self.buffer.drain(..4 + length).collect();
            return Some(Received::Packet(packet[1], packet[4..].to_vec()));
        }
        let end = self.buffer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.buffer[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap();
        let mut words = first.splitn(3, ' ');
        assert_eq!(words.next(), Some("RTSP/1.0"), "{head}");
        let status = words.next().unwrap().parse().unwrap();
        let reason = words.next().unwrap_or_default().to_owned();
        let mut headers: HashMap<String, String> = HashMap::new();
        for line in lines.filter(|l| !l.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            headers
                .entry(name.to_ascii_lowercase())
                .and_modify(|all| *all += &format!("\n{}", value.trim()))
                .or_insert_with(|| value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or(0, |l| l.parse::<usize>().unwrap());
        if self.buffer.len() < end + length {
            return None;
        }
        let body = String::from_utf8(self.buffer[end..end + length].to_vec()).unwrap();
        self.buffer.drain(..end + length);
        Some(Received::Answer(Answer { status, reason, headers, body }))
    }

    /// Sets all tracks of a stream up by TCP and plays it.
    pub async fn play_tcp(&mut self, url: &str) -> Answer {
        let described = self.request("DESCRIBE", url, &[("Accept", "application/sdp")], "").await;
        assert_eq!(described.status, 200, "{described:?}");
        let base = described.header("content-base").to_owned();
        let tracks = described.body.matches("\r\nm=").count();
        for track in 0..tracks {
            let transport = format!("RTP/AVP/TCP;unicast;interleaved={}-{}", track * 2, track * 2 + 1);
            let answer = self
                .request("SETUP", &format!("{base}trackID={track}"), &[("Transport", &transport)], "")
                .await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let answer = self.request("PLAY", &base, &[], "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// Sets the first track of a stream up by UDP, plays it, and gives the sockets of RTP and RTCP.
    pub async fn play_udp(&mut self, url: &str) -> (UdpSocket, UdpSocket) {
        let host = self.local().ip();
        let (rtp, rtcp) =
            (UdpSocket::bind((host, 0)).await.unwrap(), UdpSocket::bind((host, 0)).await.unwrap());
        let ports = (rtp.local_addr().unwrap().port(), rtcp.local_addr().unwrap().port());
        let transport = format!("RTP/AVP;unicast;client_port={}-{}", ports.0, ports.1);
        let answer =
            self.request("SETUP", &format!("{url}/trackID=0"), &[("Transport", &transport)], "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = self.request("PLAY", url, &[], "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (rtp, rtcp)
    }

    /// Reads as fast as it can and gives the bytes to `take`, until the connection ends or `take` has enough.
    pub async fn drink(mut self, mut take: impl FnMut(&[u8]) -> bool) {
        if !self.buffer.is_empty() && !take(&std::mem::take(&mut self.buffer)) {
            return;
        }
        let mut chunk = vec![0u8; 65_536];
        loop {
            match self.socket.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    if !take(&chunk[..count]) {
                        return;
                    }
                }
            }
        }
    }

    /// Whether the server closes the connection within the limit; what it still sends is dropped.
    pub async fn is_closed(&mut self) -> bool {
        let drain = async { while self.next().await.is_some() {} };
        tokio::time::timeout(LIMIT, drain).await.is_ok()
    }
}
