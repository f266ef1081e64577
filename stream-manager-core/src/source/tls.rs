//! TLS to cameras and to servers that one pulls from: any certificate, one that is known, or one that an authority vouches for.

use crate::config::TlsConfig;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
#[cfg(feature = "rtsp")]
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
#[cfg(feature = "rtsp")]
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How a camera shows who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum TlsOptions {
    /// It does not have to.
    #[default]
    Any,
    /// By a certificate with this SHA-256 hash.
    Fingerprint([u8; 32]),
    /// By a certificate that an authority in this file vouches for.
    Authority(PathBuf),
    /// By one that an authority vouches for which the system trusts.
    System,
}

impl TlsOptions {
    /// From what is configured; an error says what would be right.
    pub(crate) fn from_config(config: &TlsConfig) -> Result<Self, String> {
        Ok(match (&config.fingerprint, &config.ca) {
            (Some(_), Some(_)) => return Err("has fingerprint and ca; expected one of them".into()),
            (Some(text), None) => Self::Fingerprint(fingerprint(text)?),
            (None, Some(path)) => Self::Authority(path.clone()),
            (None, None) if config.verify == Some(true) => Self::System,
            (None, None) => Self::Any,
        })
    }

    /// The same for HTTPS, where servers have certificates as a rule: the system's authorities, unless something else is said.
    #[cfg(feature = "webrtc")]
    pub(crate) fn for_https(config: &TlsConfig) -> Result<Self, String> {
        let said = Self::from_config(config)?;
        Ok(if said == Self::Any && config.verify != Some(false) { Self::System } else { said })
    }

    /// Puts TLS onto a connection. `host` is a name or an IP address.
    #[cfg(feature = "rtsp")]
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let config = self.prepared().await?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.map_err(|e| e.to_string())
    }

    /// What a connection is made with. Files are read anew each time.
    pub(crate) async fn prepared(&self) -> Result<ClientConfig, String> {
        let this = self.clone();
        // Reads files.
        let config = tokio::task::spawn_blocking(move || this.client_config()).await;
        config.map_err(|e| e.to_string())?
    }

    fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let roots = match self {
            Self::Authority(path) => authority(path)?,
            Self::System => system()?,
            Self::Any | Self::Fingerprint(_) => {
                let expected = if let Self::Fingerprint(hash) = self { Some(*hash) } else { None };
                let verifier = Arc::new(Pinned { expected, provider });
                return Ok(builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
                    .with_no_client_auth());
            }
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().map_err(|e| e.to_string())?;
        Ok(builder.with_webpki_verifier(verifier).with_no_client_auth())
    }
}

/// A SHA-256 hash as people write it: 64 hexadecimal digits, with or without colons.
fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let bad = || format!("fingerprint is \"{text}\"; expected a SHA-256 hash, 64 hexadecimal digits");
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return Err(bad());
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
    }
    Ok(hash)
}

fn authority(path: &std::path::Path) -> Result<RootCertStore, String> {
    let shown = path.display();
    let bad = |problem: String| format!("ca {shown}: {problem}; expected certificates in PEM");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))? {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() { Err(bad("there is no certificate in it".into())) } else { Ok(roots) }
}

/// What the system trusts; read once.
fn system() -> Result<RootCertStore, String> {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // Some of a system's certificates are always odd; those that are not will do.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    if roots.is_empty() { Err("no certificate authorities are installed".into()) } else { Ok(roots.clone()) }
}

/// Takes any certificate, or one; whoever shows it has to have its key.
#[derive(Debug)]
struct Pinned {
    expected: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found: [u8; 32] = Sha256::digest(certificate).into();
        match self.expected {
            Some(expected) if expected != found => {
                let hex: String = found.iter().map(|b| format!("{b:02x}")).collect();
                let problem =
                    format!("the certificate has the fingerprint {hex}, not the one that is configured");
                Err(Error::InvalidCertificate(CertificateError::Other(tokio_rustls::rustls::OtherError(
                    Arc::new(std::io::Error::other(problem)),
                ))))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_is_read_or_said() {
        let read = |fingerprint: Option<&str>, ca: Option<&str>, verify| {
            let config =
                TlsConfig { verify, fingerprint: fingerprint.map(Into::into), ca: ca.map(Into::into) };
            TlsOptions::from_config(&config)
        };
        assert_eq!(read(None, None, None), Ok(TlsOptions::Any));
        assert_eq!(read(None, None, Some(true)), Ok(TlsOptions::System));
        assert_eq!(read(Some(&"0A".repeat(32)), None, None), Ok(TlsOptions::Fingerprint([10; 32])));
        assert_eq!(read(Some(&["0a"; 32].join(":")), None, None), Ok(TlsOptions::Fingerprint([10; 32])));
        assert!(read(Some("0a0b"), None, None).unwrap_err().contains("64 hexadecimal digits"));
        assert!(read(Some(&"0g".repeat(32)), None, None).is_err());
        assert!(read(Some(&"0a".repeat(32)), Some("x"), None).unwrap_err().contains("one of them"));
        let missing = TlsOptions::Authority("/nowhere/ca.pem".into()).client_config().unwrap_err();
        assert!(missing.contains("/nowhere/ca.pem") && missing.contains("PEM"), "{missing}");
    }
}
