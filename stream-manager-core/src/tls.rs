//! Certificate and key from files, for HTTPS and RTSPS, and new ones without a lost connection.
//!
//! [`Certificate`] looks at its files again when somebody connects and the last look is some seconds old. What is new and right is
//! used from then on; what is wrong is told, and the one before stays. Connections keep what they began with.

use crate::file_state::FileState;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where certificate and key are, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and behind it those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Whether they can be used. Blocks.
    ///
    /// # Errors
    /// If a file cannot be read, or they do not go together.
    pub fn check(&self) -> Result<(), String> {
        self.read(&[]).map(drop)
    }

    /// With what is offered by ALPN (RFC 7301).
    fn read(&self, protocols: &[&[u8]]) -> Result<(TlsAcceptor, Option<Validity>), String> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|e| format!("{certificate}: {e}; expected a certificate in PEM"))?;
        let Some(first) = chain.first() else {
            return Err(format!("{certificate}: there is no certificate in it; expected one in PEM"));
        };
        let validity = Validity::of(first);
        let private = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|e| format!("{key}: {e}; expected a private key in PEM"))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|e| format!("{certificate} and {key} do not go together: {e}"))?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok((TlsAcceptor::from(Arc::new(config)), validity))
    }
}

/// When a certificate is good, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Validity {
    from: i64,
    until: i64,
}

impl Validity {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        use x509_cert::der::Decode as _;
        let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
        let validity = parsed.tbs_certificate().validity();
        let secs = |time: &x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).ok();
        Some(Self { from: secs(&validity.not_before)?, until: secs(&validity.not_after)? })
    }

    /// What is wrong with it now.
    fn problem(self) -> Option<String> {
        use crate::frame::WallTime;
        let now = WallTime::now().as_unix_nanos() / 1_000_000_000;
        let time = |secs: i64| WallTime::from_unix_nanos(secs.saturating_mul(1_000_000_000));
        if now > self.until {
            Some(format!("it expired at {}", time(self.until)))
        } else if now < self.from {
            Some(format!("it is good from {} on only; is the clock right?", time(self.from)))
        } else {
            None
        }
    }
}

/// A certificate in use.
pub(crate) struct Certificate {
    files: TlsFiles,
    protocols: &'static [&'static [u8]],
    held: Mutex<Held>,
}

struct Held {
    acceptor: TlsAcceptor,
    states: (FileState, FileState),
    looked: Instant,
}

impl Certificate {
    /// Reads it. Blocks.
    ///
    /// # Errors
    /// If a file cannot be read, or they do not go together. One that has expired is used all the same, and complained of: a
    /// server that does not start records nothing.
    pub(crate) fn open(files: TlsFiles, protocols: &'static [&'static [u8]]) -> Result<Arc<Self>, String> {
        let states = (FileState::of(&files.certificate), FileState::of(&files.key));
        let (acceptor, validity) = files.read(protocols)?;
        if let Some(problem) = validity.and_then(Validity::problem) {
            tracing::error!(certificate = %files.certificate.display(), problem, "clients will not take this certificate");
        }
        let held = Mutex::new(Held { acceptor, states, looked: Instant::now() });
        Ok(Arc::new(Self { files, protocols, held }))
    }

    /// For somebody who connects now.
    pub(crate) async fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let is_due = {
            let mut held = self.held.lock();
            let is_due = held.looked.elapsed() >= LOOK_EVERY;
            if is_due {
                held.looked = Instant::now();
            }
            is_due
        };
        if is_due {
            let own = self.clone();
            // It panics nowhere; without an answer, what is known is used.
            let _ = tokio::task::spawn_blocking(move || own.look()).await;
        }
        self.held.lock().acceptor.clone()
    }

    fn look(&self) {
        let states = (FileState::of(&self.files.certificate), FileState::of(&self.files.key));
        if states == self.held.lock().states {
            return;
        }
        let read = self.files.read(self.protocols).and_then(|(acceptor, validity)| {
            match validity.and_then(Validity::problem) {
                Some(problem) => Err(format!("{}: {problem}", self.files.certificate.display())),
                None => Ok(acceptor),
            }
        });
        let mut held = self.held.lock();
        // Told once for each state: half of a pair may have been written.
        held.states = states;
        match read {
            Ok(acceptor) => {
                held.acceptor = acceptor;
                tracing::info!(certificate = %self.files.certificate.display(), "a new certificate is in use");
            }
            Err(problem) => tracing::error!(problem, "the new certificate is not used; the one before stays"),
        }
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}
