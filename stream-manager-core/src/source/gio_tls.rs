//! TLS of what GStreamer connects by itself: HTTPS and RTMPS. GIO does it, which checks certificates unless it is told not to.

use super::{AddressError, SourceError, connect};
use crate::config::TlsConfig;
use crate::error::redact_url;
use gstreamer as gst;
use gstreamer::prelude::*;
use std::path::{Path, PathBuf};
use url::Url;

/// How a server shows who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum GioTls {
    /// By a certificate that an authority vouches for which the system trusts.
    #[default]
    System,
    /// By one that an authority in this file vouches for.
    Authority(PathBuf),
    /// It does not have to.
    Any,
}

impl GioTls {
    /// From what is configured for this address. With `only_verify` there is no way to name authorities.
    pub(super) fn from_config(
        url: &Url,
        config: &TlsConfig,
        only_verify: bool,
    ) -> Result<Self, AddressError> {
        let wrong = |problem: &str| AddressError::Tls {
            address: redact_url(url.as_str()),
            problem: format!("has {problem}"),
        };
        match (&config.fingerprint, &config.ca) {
            (Some(_), _) => {
                Err(wrong("fingerprint, by which only cameras by rtsps:// are known; expected ca or verify"))
            }
            (None, Some(_)) if only_verify => {
                Err(wrong("ca, which there is no way to use for rtmps://; expected verify"))
            }
            (None, Some(_)) if config.verify == Some(false) => {
                Err(wrong("ca, and verify = false; expected one of them"))
            }
            (None, Some(path)) => Ok(Self::Authority(path.clone())),
            (None, None) if config.verify == Some(false) => Ok(Self::Any),
            (None, None) => Ok(Self::System),
        }
    }

    /// What elements are told.
    pub(super) async fn prepared(&self) -> Result<PreparedTls, SourceError> {
        Ok(match self {
            Self::System => PreparedTls { strict: true, ca: None },
            Self::Any => PreparedTls { strict: false, ca: None },
            Self::Authority(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || authorities(&path)).await;
                let ca = read.map_err(|e| SourceError::Other(e.to_string()))??;
                PreparedTls { strict: true, ca: Some(ca) }
            }
        })
    }
}

/// Why a client of GStreamer's has failed that does not tell: by trying it, and by a look at the certificate as GIO has had one.
pub(super) async fn explain(
    #[cfg_attr(not(feature = "rtsp"), expect(unused_variables))] tls: &GioTls,
    url: &Url,
    port: u16,
    error: SourceError,
) -> SourceError {
    let explained = connect::explain(url, port, error).await;
    #[cfg(feature = "rtsp")]
    if matches!(url.scheme(), "https" | "rtmps") && matches!(explained, SourceError::Pipeline(_)) {
        use super::tls::TlsOptions;
        let options = match tls {
            GioTls::System => TlsOptions::System,
            GioTls::Authority(path) => TlsOptions::Authority(path.clone()),
            GioTls::Any => return explained,
        };
        let host = url.host_str().unwrap_or_default();
        let look =
            async { options.connect(host, connect::connect_to(url, port, None).await.ok()?).await.err() };
        if let Ok(Some(problem)) = tokio::time::timeout(connect::EXPLAIN_TIMEOUT, look).await {
            let address = connect::host_and_port(url, port);
            return SourceError::Tls { address, problem };
        }
    }
    explained
}

/// The whole path of a file that has certificates in it; GStreamer does not say what is wrong with one that has not.
fn authorities(path: &Path) -> Result<String, SourceError> {
    let failed = |problem: String| SourceError::File { path: path.display().to_string(), problem };
    let whole = std::fs::canonicalize(path).map_err(|e| failed(e.to_string()))?;
    let text = std::fs::read(&whole).map_err(|e| failed(e.to_string()))?;
    if !String::from_utf8_lossy(&text).contains("-----BEGIN CERTIFICATE-----") {
        return Err(failed("it has no certificates in PEM".into()));
    }
    whole.into_os_string().into_string().map_err(|_| failed("its name is no UTF-8".into()))
}

/// The same, with its file looked at.
#[derive(Clone, Debug)]
pub(super) struct PreparedTls {
    strict: bool,
    ca: Option<String>,
}

impl PreparedTls {
    /// Tells all elements of a pipeline that connect by TLS, also those that come later.
    pub(super) fn apply(self, pipeline: &gst::Pipeline) {
        for element in pipeline.iterate_recurse().into_iter().flatten() {
            self.tell(&element);
        }
        pipeline.connect_deep_element_added(move |_, _, element| self.tell(element));
    }

    fn tell(&self, element: &gst::Element) {
        if element.has_property("ssl-strict") {
            element.set_property("ssl-strict", self.strict);
            match &self.ca {
                Some(ca) => element.set_property("ssl-ca-file", ca),
                // Without a list of authorities nothing is checked.
                None => element.set_property("ssl-use-system-ca-file", self.strict),
            }
        } else if element.has_property("tls-validation-flags") && !self.strict {
            element.set_property_from_str("tls-validation-flags", "no-flags");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_is_read_or_said() {
        let url = Url::parse("https://u:geheim@camera/x").unwrap();
        let read = |verify, ca: Option<&str>, fingerprint: Option<&str>, only_verify| {
            let config =
                TlsConfig { verify, ca: ca.map(Into::into), fingerprint: fingerprint.map(Into::into) };
            GioTls::from_config(&url, &config, only_verify).map_err(|e| e.to_string())
        };
        assert_eq!(read(None, None, None, false), Ok(GioTls::System));
        assert_eq!(read(Some(true), None, None, true), Ok(GioTls::System));
        assert_eq!(read(Some(false), None, None, true), Ok(GioTls::Any));
        assert_eq!(read(None, Some("/ca.pem"), None, false), Ok(GioTls::Authority("/ca.pem".into())));
        for wrong in [
            read(None, Some("/ca.pem"), None, true),
            read(Some(false), Some("/ca.pem"), None, false),
            read(None, None, Some("00"), false),
        ] {
            let said = wrong.unwrap_err();
            assert!(said.contains("; expected ") && !said.contains("geheim"), "{said}");
        }
        assert!(authorities(Path::new("/nowhere.pem")).unwrap_err().to_string().contains("/nowhere.pem"));
    }
}
