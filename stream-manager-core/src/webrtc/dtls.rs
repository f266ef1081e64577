//! DTLS (RFC 6347) with SRTP keys (RFC 5764) by OpenSSL.
//!
//! The protocol library's own DTLS takes no certificates with RSA keys, and those are what every client made with GStreamer
//! has. So its handshakes are OpenSSL's here; SRTP stays with the protocol library. An instance is one connection: datagrams
//! go in and come out, and the clock is looked at when somebody says that time has passed.

use openssl::pkey::PKey;
use openssl::srtp::SrtpProfileId;
use openssl::ssl::{
    ErrorCode, HandshakeError, MidHandshakeSslStream, ShutdownState, Ssl, SslContext, SslContextBuilder,
    SslMethod, SslMode, SslOptions, SslStream, SslVerifyMode,
};
use openssl::x509::X509;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use str0m::config::CryptoProvider;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};

/// What may be spoken; forward secrecy in all cases.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:ECDHE+AES";
/// What everybody has, and the one of the certificates of ffmpeg with GnuTLS.
const GROUPS: &str = "X25519:P-256:P-384:P-521:P-224";
/// The shortest key first of those that protect and encrypt in one go: it is as good as all others, and the fastest.
const PROFILES: &str = "SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80";
/// Keys are exported by this name (RFC 5764 section 4.2).
const LABEL: &str = "EXTRACTOR-dtls_srtp";
/// While shaking hands, OpenSSL's own timers are looked at this often.
const LOOK: Duration = Duration::from_millis(100);
/// Datagrams that may wait in either direction.
const MAX_WAITING: usize = 64;
/// The longest record that is taken.
const MAX_RECORD_BYTES: usize = 16 << 10;
const MTU_BYTES: u32 = 1200;

/// The protocol library's own, but for DTLS.
pub(super) fn crypto() -> Arc<CryptoProvider> {
    static CRYPTO: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let own = str0m::crypto::from_feature_flags();
        Arc::new(CryptoProvider { dtls_provider: &PROVIDER, ..own })
    };
    CRYPTO.get_or_init(make).clone()
}

static PROVIDER: OpenSsl = OpenSsl { last: Mutex::new(None) };

/// Makes connections.
struct OpenSsl {
    /// A server's sessions have one certificate, which need not be read for each of them.
    last: Mutex<Option<(Vec<u8>, SslContext)>>,
}

impl fmt::Debug for OpenSsl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenSsl")
    }
}

fn failed(error: impl fmt::Display) -> CryptoError {
    CryptoError::Other(error.to_string())
}

fn context(cert: &DtlsCert) -> Result<SslContext, openssl::error::ErrorStack> {
    let mut builder = SslContextBuilder::new(SslMethod::dtls())?;
    builder.set_cipher_list(CIPHERS)?;
    builder.set_groups_list(GROUPS)?;
    builder.set_tlsext_use_srtp(PROFILES)?;
    // Who it is, the fingerprint in the description says (RFC 5763 section 5), which the protocol library compares.
    builder.set_verify_callback(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT, |_, _| true);
    builder.set_certificate(&*X509::from_der(&cert.certificate)?)?;
    builder.set_private_key(&*PKey::private_key_from_der(&cert.private_key)?)?;
    builder.set_options(SslOptions::NO_DTLSV1 | SslOptions::NO_QUERY_MTU | SslOptions::NO_RENEGOTIATION);
    // 34 KB less for each viewer.
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    Ok(builder.build())
}

impl DtlsProvider for OpenSsl {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        _: Instant,
        _: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let context = {
            let mut last = self.last.lock();
            match last.as_ref().filter(|(certificate, _)| *certificate == cert.certificate) {
                Some((_, context)) => context.clone(),
                None => {
                    let context = context(cert).map_err(failed)?;
                    *last = Some((cert.certificate.clone(), context.clone()));
                    context
                }
            }
        };
        let mut ssl = Ssl::new(&context).map_err(failed)?;
        let mtu = mtu.and_then(|mtu| u32::try_from(mtu).ok()).unwrap_or(MTU_BYTES);
        ssl.set_mtu(mtu).map_err(failed)?;
        Ok(Box::new(Connection {
            active: false,
            state: State::Before(ssl),
            peer: None,
            keys: None,
            connected: false,
            received: VecDeque::new(),
            outgoing: VecDeque::new(),
            look: None,
            closing: false,
            left: Left::No,
        }))
    }
}

/// Where datagrams wait between us and OpenSSL.
#[derive(Default)]
struct Datagrams {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Read for Datagrams {
    /// One datagram at a time, as a socket would.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok(length)
    }
}

impl Write for Datagrams {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        // Lost if nobody takes it, as on any network.
        if self.outgoing.len() < MAX_WAITING {
            self.outgoing.push_back(datagram.to_vec());
        }
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum State {
    Before(Ssl),
    Shaking(MidHandshakeSslStream<Datagrams>),
    Open(SslStream<Datagrams>),
    Failed,
}

/// Whether the other side has left.
#[derive(PartialEq)]
enum Left {
    No,
    Yes,
    Told,
}

/// One connection.
struct Connection {
    active: bool,
    state: State,
    peer: Option<Vec<u8>>,
    keys: Option<(Vec<u8>, SrtpProfile)>,
    /// To be told.
    connected: bool,
    received: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
    /// When OpenSSL's timers are to be looked at.
    look: Option<Instant>,
    closing: bool,
    left: Left,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("active", &self.active).finish_non_exhaustive()
    }
}

fn profile(id: SrtpProfileId) -> Option<SrtpProfile> {
    match id {
        SrtpProfileId::SRTP_AEAD_AES_128_GCM => Some(SrtpProfile::AEAD_AES_128_GCM),
        SrtpProfileId::SRTP_AEAD_AES_256_GCM => Some(SrtpProfile::AEAD_AES_256_GCM),
        SrtpProfileId::SRTP_AES128_CM_SHA1_80 => Some(SrtpProfile::AES128_CM_SHA1_80),
        _ => None,
    }
}

impl Connection {
    /// Goes on with the handshake, also when time has passed: OpenSSL then sends again what may have been lost.
    fn shake(&mut self) -> Result<(), DtlsImplError> {
        let shaken = match std::mem::replace(&mut self.state, State::Failed) {
            State::Before(ssl) if self.active => ssl.connect(Datagrams::default()),
            State::Before(ssl) => ssl.accept(Datagrams::default()),
            State::Shaking(stream) => stream.handshake(),
            other => {
                self.state = other;
                return Ok(());
            }
        };
        let failure = match shaken {
            Ok(stream) => match self.opened(&stream) {
                Ok(()) => {
                    self.state = State::Open(stream);
                    self.connected = true;
                    self.look = None;
                    self.collect();
                    return Ok(());
                }
                Err(problem) => problem,
            },
            Err(HandshakeError::WouldBlock(stream)) => {
                self.state = State::Shaking(stream);
                self.look = Some(Instant::now() + LOOK);
                self.collect();
                return Ok(());
            }
            Err(HandshakeError::Failure(mut stream)) => {
                // The alert in it says why.
                self.outgoing.append(&mut stream.get_mut().outgoing);
                stream.error().to_string()
            }
            Err(HandshakeError::SetupFailure(error)) => error.to_string(),
        };
        tracing::debug!(problem = failure, "a DTLS handshake has failed");
        self.look = None;
        Err(DtlsImplError::ConnectionClosed)
    }

    /// Takes keys and certificate of a connection that has just opened.
    fn opened(&mut self, stream: &SslStream<Datagrams>) -> Result<(), String> {
        let ssl = stream.ssl();
        let certificate = ssl.peer_certificate().ok_or("it has no certificate")?;
        self.peer = Some(certificate.to_der().map_err(|e| e.to_string())?);
        let profile = ssl.selected_srtp_profile().and_then(|p| profile(p.id())).ok_or("no SRTP in common")?;
        let mut keys = vec![0; profile.keying_material_len()];
        ssl.export_keying_material(&mut keys, LABEL, None).map_err(|e| e.to_string())?;
        self.keys = Some((keys, profile));
        Ok(())
    }

    fn datagrams(&mut self) -> Option<&mut Datagrams> {
        match &mut self.state {
            State::Shaking(stream) => Some(stream.get_mut()),
            State::Open(stream) => Some(stream.get_mut()),
            State::Before(_) | State::Failed => None,
        }
    }

    fn collect(&mut self) {
        let fresh = self.datagrams().map(|d| std::mem::take(&mut d.outgoing));
        self.outgoing.extend(fresh.into_iter().flatten());
    }

    /// Reads what the other side says, also what it says again of the handshake.
    fn read(&mut self) {
        let mut buffer = vec![0; MAX_RECORD_BYTES];
        while let State::Open(stream) = &mut self.state {
            match stream.ssl_read(&mut buffer) {
                Ok(0) => break,
                Ok(length) if self.received.len() < MAX_WAITING => {
                    self.received.push_back(buffer[..length].to_vec());
                }
                Ok(_) => {}
                Err(error) => {
                    let over = error.code() == ErrorCode::ZERO_RETURN
                        || stream.get_shutdown().contains(ShutdownState::RECEIVED);
                    if over && self.left == Left::No {
                        self.left = Left::Yes;
                        // The answer to a goodbye is a goodbye.
                        let _ = stream.shutdown();
                        self.closing = true;
                    }
                    break;
                }
            }
        }
        self.collect();
    }
}

impl DtlsInstance for Connection {
    fn set_active(&mut self, active: bool) {
        self.active = active;
        self.look = active.then(Instant::now);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        if matches!(self.state, State::Before(_)) {
            // It has nowhere to wait yet.
            self.shake()?;
        }
        // An empty one is the protocol library's way to say that it begins; it would be the end of a stream.
        if let Some(datagrams) = self.datagrams()
            && datagrams.incoming.len() < MAX_WAITING
            && !packet.is_empty()
        {
            datagrams.incoming.push_back(packet.to_vec());
        }
        self.shake()?;
        self.read();
        Ok(())
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        /// Into the buffer, if there is room.
        macro_rules! give {
            ($from:expr) => {{
                let bytes: &[u8] = $from;
                match buffer.get_mut(..bytes.len()) {
                    Some(room) => room.copy_from_slice(bytes),
                    None => return DtlsOutput::BufferTooSmall { needed: bytes.len() },
                }
                bytes.len()
            }};
        }
        if let Some(packet) = self.outgoing.front() {
            let length = give!(packet);
            self.outgoing.pop_front();
            return DtlsOutput::Packet(&buffer[..length]);
        }
        if std::mem::take(&mut self.connected) {
            return DtlsOutput::Connected;
        }
        if let Some(certificate) = &self.peer {
            let length = give!(certificate);
            self.peer = None;
            return DtlsOutput::PeerCert(&buffer[..length]);
        }
        if let Some((keys, profile)) = self.keys.take() {
            return DtlsOutput::KeyingMaterial(KeyingMaterial::new(&keys), profile);
        }
        if let Some(data) = self.received.front() {
            let length = give!(data);
            self.received.pop_front();
            return DtlsOutput::ApplicationData(&buffer[..length]);
        }
        if self.left == Left::Yes {
            self.left = Left::Told;
            return DtlsOutput::CloseNotify;
        }
        DtlsOutput::Timeout(self.look.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)))
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        match self.look {
            Some(look) if look <= now => self.shake(),
            _ => Ok(()),
        }
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        if self.closing {
            return Err(DtlsImplError::ConnectionClosed);
        }
        let State::Open(stream) = &mut self.state else { return Ok(0) };
        if data.is_empty() {
            return Ok(0);
        }
        let written = stream.ssl_write(data).map_err(|error| {
            tracing::debug!(%error, "DTLS takes nothing");
            DtlsImplError::ConnectionClosed
        })?;
        self.collect();
        Ok(written)
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        matches!(self.state, State::Open(_)).then_some(ProtocolVersion::DTLS1_2)
    }

    fn is_closing(&self) -> bool {
        self.closing
    }

    fn is_closed(&self) -> bool {
        self.closing && self.outgoing.is_empty()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        if let State::Open(stream) = &mut self.state
            && !self.closing
        {
            // It need not be heard.
            let _ = stream.shutdown();
        }
        self.closing = true;
        self.collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As GStreamer makes it.
    fn rsa() -> DtlsCert {
        use openssl::{asn1::Asn1Time, hash::MessageDigest, rsa::Rsa, x509::X509Builder};
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        let private_key = key.private_key_to_pkcs8().unwrap();
        DtlsCert { certificate: builder.build().to_der().unwrap(), private_key }
    }

    fn own() -> DtlsCert {
        PROVIDER.generate_certificate().unwrap()
    }

    /// One end, and what it has told.
    struct End {
        connection: Box<dyn DtlsInstance>,
        keys: Option<(Vec<u8>, SrtpProfile)>,
        peer: Option<Vec<u8>>,
        told: Vec<String>,
    }

    impl End {
        fn new(cert: &DtlsCert, active: bool, provider: &dyn DtlsProvider) -> Self {
            let now = Instant::now();
            let mut connection = provider.new_dtls(cert, now, DtlsVersion::Dtls12, Some(1200)).unwrap();
            connection.set_active(active);
            connection.handle_timeout(now).unwrap();
            Self { connection, keys: None, peer: None, told: Vec::new() }
        }

        fn poll(&mut self) -> Vec<Vec<u8>> {
            let (mut packets, mut buffer) = (Vec::new(), vec![0; 2000]);
            loop {
                match self.connection.poll_output(&mut buffer) {
                    DtlsOutput::Packet(packet) => packets.push(packet.to_vec()),
                    DtlsOutput::PeerCert(certificate) => self.peer = Some(certificate.to_vec()),
                    DtlsOutput::KeyingMaterial(keys, profile) => {
                        self.keys = Some(((*keys).to_vec(), profile))
                    }
                    DtlsOutput::ApplicationData(data) => {
                        self.told.push(String::from_utf8(data.to_vec()).unwrap())
                    }
                    DtlsOutput::CloseNotify => self.told.push("goodbye".into()),
                    DtlsOutput::Timeout(_) => return packets,
                    _ => {}
                }
            }
        }
    }

    /// Carries datagrams until both have keys; `loses` says which do not arrive.
    fn connect(client: &mut End, server: &mut End, mut loses: impl FnMut(usize) -> bool) {
        let (begun, mut number) = (Instant::now(), 0);
        while client.keys.is_none() || server.keys.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "they do not connect");
            for _ in 0..2 {
                for packet in client.poll() {
                    number += 1;
                    if !loses(number) {
                        server.connection.handle_packet(&packet).unwrap();
                    }
                }
                std::mem::swap(client, server);
            }
            std::thread::sleep(Duration::from_millis(5));
            for end in [&mut *client, &mut *server] {
                end.connection.handle_timeout(Instant::now()).unwrap();
            }
        }
    }

    #[test]
    fn both_ends_have_the_same_keys_with_certificates_of_both_kinds_and_other_libraries() {
        let (rsa, own) = (rsa(), own());
        let other = str0m::crypto::from_feature_flags().dtls_provider;
        let ours: &dyn DtlsProvider = &PROVIDER;
        for (client_cert, client, server_cert, server) in [
            (&rsa, ours, &own, ours),
            (&own, ours, &rsa, ours),
            (&own, other, &own, ours),
            (&own, ours, &own, other),
        ] {
            let mut client = End::new(client_cert, true, client);
            let mut server = End::new(server_cert, false, server);
            connect(&mut client, &mut server, |_| false);
            assert_eq!(client.keys, server.keys);
            assert_eq!(server.peer.as_ref(), Some(&client_cert.certificate));
            assert_eq!(client.peer.as_ref(), Some(&server_cert.certificate));
        }
    }

    #[test]
    fn what_is_lost_of_a_handshake_comes_again() {
        let mut client = End::new(&own(), true, &PROVIDER);
        let mut server = End::new(&rsa(), false, &PROVIDER);
        let lost = [1, 3, 6];
        connect(&mut client, &mut server, |number| lost.contains(&number));
        assert_eq!(client.keys, server.keys);
        assert_eq!(client.keys.unwrap().1, SrtpProfile::AEAD_AES_128_GCM);
    }

    #[test]
    fn data_and_goodbyes_go_both_ways_and_rubbish_harms_nobody() {
        let mut client = End::new(&own(), true, &PROVIDER);
        let mut server = End::new(&own(), false, &PROVIDER);
        assert_eq!(client.connection.send_application_data(b"too soon").unwrap(), 0);
        for rubbish in [&[22, 254, 253, 0][..], &[20; 40], &[63; 1400], &[]] {
            server.connection.handle_packet(rubbish).unwrap();
        }
        connect(&mut client, &mut server, |_| false);
        for rubbish in [&[22, 254, 253, 0][..], &[23; 40], &[63; 1400], &[]] {
            server.connection.handle_packet(rubbish).unwrap();
        }
        assert_eq!(client.connection.send_application_data(b"hello").unwrap(), 5);
        assert_eq!(server.connection.send_application_data(b"you").unwrap(), 3);
        client.connection.close().unwrap();
        for _ in 0..3 {
            client.poll().iter().for_each(|p| server.connection.handle_packet(p).unwrap());
            server.poll().iter().for_each(|p| client.connection.handle_packet(p).unwrap());
        }
        assert_eq!(server.told, ["hello", "goodbye"]);
        assert!(client.told.contains(&"you".to_owned()), "{:?}", client.told);
        assert!(client.connection.is_closed() && server.connection.is_closed());
        assert!(client.connection.send_application_data(b"too late").is_err());
    }
}
