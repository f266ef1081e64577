//! One connection: the handshake, its commands, which stream it publishes, and its media's way.

use super::amf::{Amf, read_values, write_values};
use super::chunk::{self, CHUNK_SIZE, ChunkReader, RtmpMessage};
use super::flv;
use super::intake::Intake;
use super::server::Shared;
use crate::auth::{Access, Action, Credentials, Secret, Subject};
use crate::frame::MediaKind;
use crate::rtp::is_worth_a_line;
use crate::session::{NewSession, SessionGuard, SessionKind, SessionStats};
use crate::source::Publication;
use crate::tcp::{self, Place};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a client may take until it publishes.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a publisher may say nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to take an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to end the connection after last words.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The length of what is said in the handshake (RTMP 1.0 section 5.2).
const HANDSHAKE: usize = 1536;
/// The version that is spoken.
const VERSION: u8 = 3;
/// How much may come between acknowledgements (section 5.4.4).
const WINDOW_BYTES: u32 = 2_500_000;
/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// The number of the one stream that a connection has.
const STREAM: f64 = 1.0;

/// Why a connection has ended.
enum Ended {
    /// It has said goodbye, or is refused: it may still read that.
    Said(String),
    /// It is gone, or is cut off.
    Gone(String),
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Gone(error.to_string())
    }
}

struct Published {
    publication: Publication,
    guard: SessionGuard,
}

/// A client.
struct Client {
    shared: Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
    comes: BytesMut,
    chunks: ChunkReader,
    app: String,
    published: Option<Published>,
    intake: Intake,
    bytes: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
    acknowledged: u64,
    window: u64,
    refused: u64,
}

/// Serves a connection until its end.
pub(super) async fn run(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr, _place: Place) {
    tcp::prepare(&socket);
    let cancel = shared.cancel.clone();
    let mut client = Client {
        shared,
        socket,
        peer,
        comes: BytesMut::new(),
        chunks: ChunkReader::default(),
        app: String::new(),
        published: None,
        intake: Intake::new(),
        bytes: Arc::default(),
        messages: Arc::default(),
        acknowledged: 0,
        window: WINDOW_BYTES.into(),
        refused: 0,
    };
    let ended = cancel.run_until_cancelled(client.serve()).await;
    let (reason, said) = match ended {
        None => ("the server stops".to_owned(), false),
        Some(Ended::Gone(reason)) => (reason, false),
        Some(Ended::Said(reason)) => (reason, true),
    };
    match client.published.take() {
        Some(published) => published.guard.ends_because(reason),
        None if said => tracing::info!(%peer, reason, "an RTMP client is refused"),
        None => tracing::debug!(%peer, reason, "an RTMP connection that published nothing has ended"),
    }
    if said {
        client.close().await;
    }
}

/// The stream that is meant, and what stands behind its name: by the names of the application and of the stream.
fn target(app: &str, name: &str) -> (String, Option<String>) {
    let mut id = String::new();
    let mut query = None;
    for part in [app, name] {
        let (path, behind) = part.split_once('?').map_or((part, None), |(path, behind)| (path, Some(behind)));
        query = behind.map(str::to_owned).or(query);
        let path = path.trim_matches('/');
        if !path.is_empty() && !id.is_empty() {
            id.push('/');
        }
        id.push_str(path);
    }
    (id, query)
}

/// Who it is, by `user` and `pass` behind the name.
fn credentials(query: Option<&str>) -> Credentials {
    let pairs = || url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let value = |name: &str| pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match (value("user"), value("pass")) {
        (Some(user), password) => {
            Credentials::Password { user, password: Secret::new(password.unwrap_or_default()) }
        }
        _ => Credentials::None,
    }
}

impl Client {
    /// Until its end.
    async fn serve(&mut self) -> Ended {
        let start = tokio::time::timeout(START_TIMEOUT, async {
            self.shake_hands().await?;
            while self.published.is_none() {
                self.step().await?;
            }
            Ok(())
        });
        match start.await {
            Err(_) => return Ended::Gone(format!("it has published nothing within {START_TIMEOUT:?}")),
            Ok(Err(ended)) => return ended,
            Ok(Ok(())) => {}
        }
        loop {
            if let Err(ended) = self.step().await {
                return ended;
            }
        }
    }

    async fn shake_hands(&mut self) -> Result<(), Ended> {
        while self.comes.len() < 1 + HANDSHAKE {
            self.receive().await?;
        }
        let version = self.comes.get_u8();
        if version != VERSION {
            return Err(Ended::Gone(format!("it speaks version {version}; expected {VERSION}")));
        }
        let theirs = self.comes.split_to(HANDSHAKE);
        // Ours: a time, four zeros, and what nobody looks at; and theirs again.
        let mut answer = BytesMut::with_capacity(1 + 2 * HANDSHAKE);
        answer.put_u8(VERSION);
        answer.put_bytes(0, HANDSHAKE);
        answer.put_slice(&theirs);
        self.send(&answer).await?;
        while self.comes.len() < HANDSHAKE {
            self.receive().await?;
        }
        self.comes.advance(HANDSHAKE);
        Ok(())
    }

    /// Takes the next message, as soon as it is there.
    async fn step(&mut self) -> Result<(), Ended> {
        loop {
            let message = self.chunks.read(&mut self.comes).map_err(|e| Ended::Gone(e.to_string()))?;
            match message {
                Some(message) => return self.take(message).await,
                None => self.receive().await?,
            }
        }
    }

    /// More of what comes, until somebody ends that.
    async fn receive(&mut self) -> Result<(), Ended> {
        self.comes.reserve(READ_BYTES);
        let over = async {
            match &self.published {
                Some(published) => tokio::select! {
                    () = published.publication.ended() => "another publisher has taken over, or the stream has ended",
                    () = published.guard.kicked() => "ended by request",
                },
                None => std::future::pending().await,
            }
        };
        let count = tokio::select! {
            reason = over => return Err(Ended::Gone(reason.into())),
            () = tokio::time::sleep(IDLE_TIMEOUT) => {
                return Err(Ended::Gone(format!("it has said nothing for {IDLE_TIMEOUT:?}")));
            }
            count = self.socket.read_buf(&mut self.comes) => count?,
        };
        if count == 0 {
            return Err(Ended::Gone("it has ended the connection".into()));
        }
        let received = self.bytes.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        if received - self.acknowledged >= self.window {
            self.acknowledged = received;
            // The number wraps.
            self.control(3, &(received as u32).to_be_bytes()).await?;
        }
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        match tokio::time::timeout(WRITE_TIMEOUT, self.socket.write_all(bytes)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Ended::Gone(format!("it takes nothing for {WRITE_TIMEOUT:?}"))),
        }
    }

    /// A message about the connection (section 5.4).
    async fn control(&mut self, kind: u8, body: &[u8]) -> Result<(), Ended> {
        let mut out = BytesMut::new();
        let message = RtmpMessage { kind, stream: 0, timestamp: 0, body: Bytes::copy_from_slice(body) };
        chunk::write(&mut out, 2, &message);
        self.send(&out).await
    }

    /// A command (section 7.1.1).
    async fn say(&mut self, stream: u32, values: &[Amf]) -> Result<(), Ended> {
        let mut out = BytesMut::new();
        let message = RtmpMessage { kind: 20, stream, timestamp: 0, body: write_values(values) };
        chunk::write(&mut out, 3, &message);
        self.send(&out).await
    }

    /// What has become of a stream (section 7.2.2).
    async fn status(&mut self, stream: u32, error: bool, code: &str, description: &str) -> Result<(), Ended> {
        let status = Amf::Object(vec![
            ("level".into(), Amf::text(if error { "error" } else { "status" })),
            ("code".into(), Amf::text(code)),
            ("description".into(), Amf::text(description)),
        ]);
        self.say(stream, &[Amf::text("onStatus"), Amf::Number(0.0), Amf::Null, status]).await
    }

    async fn take(&mut self, message: RtmpMessage) -> Result<(), Ended> {
        let RtmpMessage { kind, stream, timestamp, mut body } = message;
        match kind {
            // A ping is answered with what it says (section 7.1.7).
            4 if body.starts_with(&[0, 6]) => {
                let pong = [&[0, 7], body.get(2..6).unwrap_or_default()].concat();
                self.control(4, &pong).await
            }
            5 => {
                self.window = body.try_get_u32().map_or(self.window, |window| u64::from(window.max(1 << 16)));
                Ok(())
            }
            8 => {
                self.media(MediaKind::Audio, timestamp, flv::audio(body));
                Ok(())
            }
            9 => {
                self.media(MediaKind::Video, timestamp, flv::video(body));
                Ok(())
            }
            20 => self.command(stream, read_values(body)).await,
            // With a byte in front that says that the rest is AMF0 all the same.
            17 if body.first() == Some(&0) => self.command(stream, read_values(body.slice(1..))).await,
            // What is said of the media stands in the media, too.
            _ => Ok(()),
        }
    }

    async fn command(&mut self, stream: u32, values: Vec<Amf>) -> Result<(), Ended> {
        let Some(name) = values.first().and_then(Amf::as_str) else { return Ok(()) };
        let transaction = values.get(1).cloned().unwrap_or(Amf::Null);
        let text = |at: usize| values.get(at).and_then(Amf::as_str).unwrap_or_default();
        match name {
            "connect" => self.connect(transaction, values.get(2)).await,
            "releaseStream" | "FCPublish" => {
                self.say(0, &[Amf::text("_result"), transaction, Amf::Null, Amf::Null]).await
            }
            "createStream" => {
                self.say(0, &[Amf::text("_result"), transaction, Amf::Null, Amf::Number(STREAM)]).await
            }
            "publish" if self.published.is_none() => {
                let (app, name) = (self.app.clone(), text(3).to_owned());
                match self.publish(&app, &name).await {
                    Ok(published) => {
                        self.published = Some(published);
                        self.chunks.allow_media();
                        // "Stream begin" (section 7.1.7).
                        self.control(4, &[&[0, 0][..], &stream.to_be_bytes()].concat()).await?;
                        self.status(stream, false, "NetStream.Publish.Start", "it is published").await
                    }
                    Err(reason) => {
                        self.status(stream, true, "NetStream.Publish.BadName", &reason).await?;
                        Err(Ended::Said(reason))
                    }
                }
            }
            "play" | "play2" => {
                let reason = "streams are not read by RTMP here; RTSP, HLS and WebRTC are served";
                self.status(stream, true, "NetStream.Play.Failed", reason).await?;
                Err(Ended::Said(reason.into()))
            }
            "deleteStream" | "closeStream" if self.published.is_some() => {
                self.status(stream, false, "NetStream.Unpublish.Success", "it is no longer published")
                    .await?;
                Err(Ended::Said("it has said goodbye".into()))
            }
            _ => Ok(()),
        }
    }

    async fn connect(&mut self, transaction: Amf, object: Option<&Amf>) -> Result<(), Ended> {
        let app = object.and_then(|object| object.get("app")).and_then(Amf::as_str);
        self.app = app.unwrap_or_default().to_owned();
        self.control(5, &WINDOW_BYTES.to_be_bytes()).await?;
        // "Dynamic" (section 5.4.5).
        self.control(6, &[&WINDOW_BYTES.to_be_bytes()[..], &[2]].concat()).await?;
        self.control(1, &(CHUNK_SIZE as u32).to_be_bytes()).await?;
        let server = Amf::Object(vec![
            // What clients expect to hear.
            ("fmsVer".into(), Amf::text("FMS/3,0,1,123")),
            ("capabilities".into(), Amf::Number(31.0)),
        ]);
        let status = Amf::Object(vec![
            ("level".into(), Amf::text("status")),
            ("code".into(), Amf::text("NetConnection.Connect.Success")),
            ("description".into(), Amf::text("Connection succeeded.")),
            ("objectEncoding".into(), Amf::Number(0.0)),
        ]);
        self.say(0, &[Amf::text("_result"), transaction, server, status]).await
    }

    async fn publish(&self, app: &str, name: &str) -> Result<Published, String> {
        let (id, query) = target(app, name);
        let credentials = credentials(query.as_deref());
        let access = Access {
            action: Action::Publish,
            subject: Subject::Stream(&id),
            address: self.peer.ip().to_canonical(),
            protocol: "rtmp",
            query: query.as_deref(),
            user_agent: None,
            credentials: &credentials,
        };
        let grant = self.shared.authorizer.authorize(&access).await.map_err(|e| e.to_string())?;
        let slot = self.shared.streams.publish(&id).map_err(|e| e.to_string())?;
        let publication = slot.publish(&format!("rtmp {}", self.peer)).await.map_err(|e| e.to_string())?;
        let new = NewSession {
            protocol: "rtmp",
            kind: SessionKind::Publisher,
            stream: id.into(),
            address: self.peer,
            user: grant.user,
            user_agent: None,
            transport: "tcp",
        };
        let (bytes, messages) = (self.bytes.clone(), self.messages.clone());
        let stats = move || SessionStats {
            bytes: bytes.load(Ordering::Relaxed),
            packets: messages.load(Ordering::Relaxed),
            ..SessionStats::default()
        };
        let guard = self.shared.sessions.open(new, Arc::new(stats));
        Ok(Published { publication, guard })
    }

    fn media(&mut self, kind: MediaKind, timestamp: u32, message: Result<flv::Message, flv::FlvError>) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        // From the moment another has taken over nothing of this one may come between.
        let Some(published) = self.published.as_ref().filter(|p| !p.publication.is_over()) else { return };
        let taken = message
            .map_err(|e| e.to_string())
            .and_then(|message| self.intake.take(kind, timestamp, message, published.publication.writer()));
        if let Err(error) = taken {
            self.refused += 1;
            if is_worth_a_line(self.refused) {
                let (peer, messages) = (self.peer, self.refused);
                tracing::warn!(%peer, error, messages, "messages of an RTMP publisher are left out");
            }
        }
    }

    /// Lets the client end the connection, which some take for an error if we do; and one that is closed with something unread loses
    /// what was said.
    async fn close(mut self) {
        let ends = async {
            while self.socket.read_buf(&mut self.comes).await? > 0 {
                self.comes.clear();
            }
            std::io::Result::Ok(())
        };
        // Whoever does not end it by then is cut off.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ends).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_together() {
        for (app, name, id, query) in [
            ("yard", "cam", "yard/cam", None),
            ("cam", "", "cam", None),
            ("/yard/", "cam?user=a&pass=b", "yard/cam", Some("user=a&pass=b")),
            ("yard/north", "cam", "yard/north/cam", None),
            ("cam?user=a", "", "cam", Some("user=a")),
        ] {
            assert_eq!(target(app, name), (id.to_owned(), query.map(str::to_owned)), "{app} {name}");
        }
    }

    #[test]
    fn who_it_is_stands_behind_the_name() {
        let is = |user: &str, password: &str| Credentials::Password {
            user: user.into(),
            password: Secret::new(password),
        };
        assert_eq!(credentials(Some("user=a%20b&pass=c+d&x=1")), is("a b", "c d"));
        assert_eq!(credentials(Some("user=a")), is("a", ""));
        assert_eq!(credentials(Some("pass=a")), Credentials::None);
        assert_eq!(credentials(None), Credentials::None);
    }
}
