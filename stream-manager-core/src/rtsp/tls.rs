//! RTSPS: certificate and key from files.

use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where certificate and key are, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and behind it those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads them; the error says which file is wrong and how.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|e| format!("{certificate}: {e}; expected a certificate in PEM"))?;
        if chain.is_empty() {
            return Err(format!("{certificate}: there is no certificate in it; expected one in PEM"));
        }
        let private = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|e| format!("{key}: {e}; expected a private key in PEM"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|e| format!("{certificate} and {key} do not go together: {e}"))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
