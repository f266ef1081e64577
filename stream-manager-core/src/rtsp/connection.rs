//! One client's connection: its bytes to requests and packets, and answers back.
//!
//! One task a connection. It reads, asks the [session](super::session) what to answer, sends what the
//! [outlet](super::outlet) could not send at once, and ends the session when the client leaves, is told to, or is
//! silent for too long. A session belongs to its connection and ends with it.

use super::message::{Answer, Incoming, next_message};
use super::outlet::{Outlet, QueueRule, Sent};
use super::server::Shared;
use super::session::Session;
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// How often timeouts are looked at.
const TICK: Duration = Duration::from_secs(2);
/// A client that has just connected has this long for its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last answer may take before the connection is closed.
const LINGER: Duration = Duration::from_secs(1);
/// Room for requests; a publisher's packets get more.
const READ_BYTES: usize = 4 << 10;
const PUBLISH_READ_BYTES: usize = 64 << 10;

/// What a connection runs over.
pub(super) enum Stream {
    /// Nothing.
    Plain(Arc<TcpStream>),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

enum Input {
    Plain(Arc<TcpStream>),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

enum Output {
    Plain(Arc<TcpStream>),
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

impl Input {
    /// Reads more; 0 at the end. Cancel safe. The buffer gets its room only when there is something to read, so that
    /// a client that says nothing costs nothing.
    async fn fill(&mut self, buffer: &mut BytesMut, room: usize) -> io::Result<usize> {
        match self {
            Input::Plain(socket) => loop {
                socket.readable().await?;
                buffer.reserve(room);
                match socket.try_read_buf(buffer) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        if buffer.is_empty() {
                            *buffer = BytesMut::new();
                        }
                    }
                    result => return result,
                }
            },
            Input::Tls(half) => {
                buffer.reserve(room);
                half.read_buf(buffer).await
            }
        }
    }
}

impl Output {
    /// Sends what waits, as far as it goes; returns when nothing waits or the connection is broken. Cancel safe.
    async fn flush(&mut self, outlet: &Outlet) {
        loop {
            match self {
                Output::Plain(socket) => match outlet.drain() {
                    Sent::All | Sent::Failed => return,
                    Sent::Blocked => {
                        if socket.writable().await.is_err() {
                            return;
                        }
                    }
                    Sent::Until(due) => tokio::time::sleep_until(due.into()).await,
                },
                Output::Tls(half) => match outlet.next_bytes() {
                    Ok(bytes) => match half.write(&bytes).await {
                        Ok(count) => outlet.taken(count),
                        Err(error) => return outlet.broken(&error.to_string()),
                    },
                    Err(Sent::Until(due)) => tokio::time::sleep_until(due.into()).await,
                    Err(_) => {
                        let _ = half.flush().await;
                        return;
                    }
                },
            }
        }
    }
}

/// Serves a client until it leaves or has to.
pub(super) async fn run(shared: Arc<Shared>, stream: Stream, local: SocketAddr, peer: SocketAddr) {
    let rule = QueueRule { bytes: shared.options.queue_bytes, timeout: shared.options.write_timeout };
    let (mut input, mut output, outlet, protocol) = match stream {
        Stream::Plain(socket) => {
            let outlet = Outlet::new(Some(socket.clone()), rule);
            (Input::Plain(socket.clone()), Output::Plain(socket), outlet, "rtsp")
        }
        Stream::Tls(stream) => {
            let (read, write) = tokio::io::split(*stream);
            (Input::Tls(read), Output::Tls(write), Outlet::new(None, rule), "rtsps")
        }
    };
    let outlet = Arc::new(outlet);
    let mut session = Session::new(shared.clone(), outlet.clone(), protocol, local, peer);
    let mut connection = Connection {
        buffer: BytesMut::new(),
        searched: 0,
        connected: Instant::now(),
        heard: Instant::now(),
        requests: 0,
    };
    let mut tick = tokio::time::interval_at((Instant::now() + TICK).into(), TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut flushing = false;
    let reason = loop {
        let room = if session.is_publishing() { PUBLISH_READ_BYTES } else { READ_BYTES };
        tokio::select! {
            result = input.fill(&mut connection.buffer, room) => match result {
                Ok(0) => break None,
                Err(error) => break Some(error.to_string()),
                Ok(_) => {
                    if let Err(reason) = connection.take(&mut session, &outlet).await {
                        break reason;
                    }
                }
            },
            () = output.flush(&outlet), if flushing => flushing = false,
            () = outlet.notified(), if !flushing => flushing = outlet.pending() || outlet.verdict().is_some(),
            reason = session.event() => if let Some(reason) = reason { break Some(reason) },
            _ = tick.tick() => {
                session.tick();
                if let Some(reason) = connection.overdue(&session, &shared) {
                    break Some(reason);
                }
            }
            () = shared.cancel.cancelled() => break Some("the server is stopping".into()),
        }
        if let Some(reason) = outlet.verdict() {
            break Some(reason);
        }
    };
    if let Some(reason) = &reason {
        tracing::debug!(%peer, reason, "RTSP connection ends");
    }
    session.end(reason);
    // The last answer, or a BYE, is still to go out.
    let _ = tokio::time::timeout(LINGER, output.flush(&outlet)).await;
    match &mut output {
        Output::Plain(socket) => {
            let _ = rustix::net::shutdown(&**socket, rustix::net::Shutdown::Write);
        }
        Output::Tls(half) => {
            let _ = tokio::time::timeout(LINGER, half.shutdown()).await;
        }
    }
}

struct Connection {
    buffer: BytesMut,
    searched: usize,
    connected: Instant,
    /// When the client last said something.
    heard: Instant,
    requests: u64,
}

impl Connection {
    /// Takes what has arrived; an error says why the connection ends.
    async fn take(&mut self, session: &mut Session, outlet: &Outlet) -> Result<(), Option<String>> {
        loop {
            match next_message(&mut self.buffer, &mut self.searched) {
                Ok(None) => break,
                // Nobody has asked for anything.
                Ok(Some(Incoming::Response(_))) => {}
                Ok(Some(Incoming::Data { channel, payload })) => {
                    self.heard = Instant::now();
                    session.data(channel, &payload);
                }
                Ok(Some(Incoming::Request(request))) => {
                    self.heard = Instant::now();
                    self.requests += 1;
                    session.request(&request).await;
                    // Answering may have taken long.
                    self.heard = Instant::now();
                }
                Err(error) => {
                    let (status, reason) = error.status();
                    outlet.control(Answer::new(status, reason).into_bytes(None, None));
                    return Err(Some(error.to_string()));
                }
            }
        }
        if self.buffer.is_empty() && !session.is_publishing() {
            // Readers are many and say little.
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    fn overdue(&self, session: &Session, shared: &Shared) -> Option<String> {
        if self.requests == 0 {
            let late = self.connected.elapsed() >= FIRST_REQUEST_TIMEOUT;
            return late.then(|| format!("no request within {FIRST_REQUEST_TIMEOUT:?}"));
        }
        let timeout = shared.options.session_timeout;
        // A reader by TCP shows by what it takes that it is there.
        let silent = !session.is_alive_by_itself()
            && self.heard.elapsed().min(session.silence()) >= timeout + timeout / 4;
        silent.then(|| format!("the client has said nothing for {timeout:?}"))
    }
}
