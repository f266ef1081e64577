//! The client side of an RTSP connection that we send by: requests, answers, authentication (RFC 2326, RFC 7616).

use super::message::{Incoming, next_message};
use crate::auth::challenge::{Challenge, Login};
use crate::rtp::Packets;
use crate::source::connect::connect_to;
use crate::source::tls::TlsOptions;
use bytes::BytesMut;
use std::fmt::Write;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use url::Url;

/// How long a goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection.
pub(super) struct Client {
    reader: ReadHalf<Box<dyn Socket>>,
    writer: WriteHalf<Box<dyn Socket>>,
    local: IpAddr,
    url: String,
    buffer: BytesMut,
    searched: usize,
    sequence: u32,
    session: Option<String>,
    credentials: Option<Login>,
    challenge: Option<Challenge>,
}

impl Client {
    /// Connects, by TLS if the address says so.
    pub(super) async fn connect(url: &Url, credentials: Option<Login>) -> Result<Self, String> {
        let tls = url.scheme() == "rtsps";
        let port = url.port().unwrap_or(if tls { 322 } else { 554 });
        let socket = connect_to(url, port, None).await.map_err(|e| e.to_string())?;
        let local = socket.local_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
        let socket: Box<dyn Socket> = if tls {
            let name = url.host_str().unwrap_or_default();
            Box::new(TlsOptions::Any.connect(name, socket).await.map_err(|e| format!("TLS: {e}"))?)
        } else {
            Box::new(socket)
        };
        let (reader, writer) = tokio::io::split(socket);
        Ok(Self {
            reader,
            writer,
            local,
            url: url.as_str().to_owned(),
            buffer: BytesMut::new(),
            searched: 0,
            sequence: 0,
            session: None,
            credentials,
            challenge: None,
        })
    }

    /// Where the connection comes from.
    pub(super) fn local_address(&self) -> IpAddr {
        self.local
    }

    async fn send(
        &mut self,
        method: &str,
        uri: &str,
        headers: &[(&str, String)],
        body: &str,
    ) -> Result<(), String> {
        self.sequence += 1;
        let mut text = format!(
            "{method} {uri} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: stream-manager/{}\r\n",
            self.sequence,
            env!("CARGO_PKG_VERSION")
        );
        if let Some(session) = &self.session {
            let _ = write!(text, "Session: {session}\r\n");
        }
        if let (Some(challenge), Some(credentials)) = (&mut self.challenge, &self.credentials) {
            let _ = write!(text, "Authorization: {}\r\n", challenge.answer(credentials, method, uri));
        }
        for (name, value) in headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if !body.is_empty() {
            let _ = write!(text, "Content-Length: {}\r\n", body.len());
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.writer.write_all(text.as_bytes()).await.map_err(|e| e.to_string())
    }

    /// Makes a request whose answer nobody waits for.
    pub(super) async fn say(&mut self, method: &str, uri: &str) -> Result<(), String> {
        self.send(method, uri, &[], "").await
    }

    /// Makes a request, with credentials if the server asks for some, and waits until it is granted.
    pub(super) async fn request(
        &mut self,
        method: &str,
        uri: &str,
        headers: &[(&str, String)],
        body: &str,
    ) -> Result<(), String> {
        loop {
            self.send(method, uri, headers, body).await?;
            let answer = loop {
                match self.next().await? {
                    Incoming::Response(answer) => break answer,
                    // The server's own requests and reports do not matter here.
                    Incoming::Request(_) | Incoming::Data { .. } => {}
                }
            };
            let status = u16::from(answer.status());
            if status == 401 && self.challenge.is_none() && self.credentials.is_some() {
                let lines =
                    answer.headers().filter(|(name, _)| **name == rtsp_types::headers::WWW_AUTHENTICATE);
                // Several lines of one name are joined by commas.
                let lines: Vec<String> = lines
                    .map(|(_, value)| {
                        value.as_str().replace(", Digest", "\nDigest").replace(", Basic", "\nBasic")
                    })
                    .collect();
                self.challenge = Challenge::read(lines.iter().flat_map(|lines| lines.lines()));
                if self.challenge.is_some() {
                    continue;
                }
            }
            if !(200..300).contains(&status) {
                let reason = answer.reason_phrase();
                return Err(match status {
                    401 => "the server refuses the credentials (401); put the right user and password into the address".into(),
                    _ => format!("the server answers {method} with {status} {reason}"),
                });
            }
            if let Some(session) = answer.header(&rtsp_types::headers::SESSION) {
                self.session = session.as_str().split(';').next().map(|id| id.trim().to_owned());
            }
            return Ok(());
        }
    }

    async fn next(&mut self) -> Result<Incoming, String> {
        loop {
            match next_message(&mut self.buffer, &mut self.searched) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            match self.reader.read_buf(&mut self.buffer).await {
                Ok(0) => return Err("the other side has closed the connection".into()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Takes what the server says while we send, until it ends the connection or is no longer content; says why. Cancel safe.
    pub(super) async fn answers(&mut self) -> String {
        loop {
            match self.next().await {
                Err(reason) => return reason,
                Ok(Incoming::Response(answer)) if u16::from(answer.status()) == 454 => {
                    return "the server has ended the session (454)".into();
                }
                Ok(_) => {}
            }
        }
    }

    /// Sends packets.
    pub(super) async fn write(&mut self, packets: &Packets) -> Result<(), String> {
        let mut done = 0;
        while done < packets.bytes() {
            let slices: Vec<IoSlice<'_>> = packets.slices(done);
            match self.writer.write_vectored(&slices).await {
                Ok(0) => return Err("the other side has closed the connection".into()),
                Ok(count) => done += count,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Says goodbye.
    pub(super) async fn tear_down(mut self) {
        let url = self.url.clone();
        let goodbye = async {
            self.say("TEARDOWN", &url).await?;
            self.writer.shutdown().await.map_err(|e| e.to_string())
        };
        // Whoever does not hear it sees the connection's end.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
    }
}
