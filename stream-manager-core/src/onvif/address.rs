//! One device, and who asks it.

use super::transport::SoapTransport;
use super::{DeviceReport, OnvifError};
use crate::auth::challenge::Login;
use crate::error::redact_url;
use crate::source::percent_decoded;
use oxvif::OnvifSession;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Where devices have their service if nothing is said: ONVIF Core Specification section 5.1.1.
const SERVICE: &str = "/onvif/device_service";
/// One answer may take so long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The address of a device's ONVIF service, and who asks there.
///
/// ```
/// # use stream_manager_core::onvif::OnvifAddress;
/// let camera = OnvifAddress::new("192.168.1.20").unwrap().credentials("admin", "secret");
/// assert_eq!(camera.to_string(), "http://192.168.1.20/onvif/device_service");
/// ```
#[derive(Clone)]
pub struct OnvifAddress {
    pub(super) url: Url,
    pub(super) login: Option<Login>,
    timeout: Duration,
}

impl OnvifAddress {
    /// From a host, a host with a port, or the whole address. User and password may stand in it.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn new(text: &str) -> Result<Self, OnvifError> {
        let wrong = |problem: String| OnvifError::Address {
            address: redact_url(text).chars().take(200).collect(),
            problem,
        };
        let bare_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        let whole = match text {
            text if text.contains("://") => text.to_owned(),
            text if bare_ipv6 => format!("http://[{text}]"),
            text => format!("http://{text}"),
        };
        let mut url = Url::parse(&whole).map_err(|e| wrong(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("its scheme is \"{}\"", url.scheme())));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it has no host".into()));
        }
        if matches!(url.path(), "" | "/") {
            url.set_path(SERVICE);
        }
        let login = (!url.username().is_empty()).then(|| Login {
            user: percent_decoded(url.username()),
            password: percent_decoded(url.password().unwrap_or_default()),
        });
        // Of an address that has a host, both can be taken away.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        Ok(Self { url, login, timeout: TIMEOUT })
    }

    /// Who asks.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(Login { user: user.into(), password: password.into() });
        self
    }

    /// How long one answer may take, if not 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks the device what it is, what it sends, and how to take that in.
    ///
    /// # Errors
    /// If it cannot be reached, wants to know who asks, or answers something else.
    pub async fn describe(&self) -> Result<DeviceReport, OnvifError> {
        super::device::describe(self).await
    }

    /// A session with it; its clock is asked for first, since what proves the password has the time in it.
    pub(super) async fn session(&self) -> Result<OnvifSession, OnvifError> {
        let transport = SoapTransport::new(self.url.clone(), self.login.clone(), self.timeout);
        let mut builder = OnvifSession::builder(self.url.as_str()).with_transport(Arc::new(transport));
        if let Some(Login { user, password }) = &self.login {
            builder = builder.with_credentials(user, password).with_clock_sync();
        }
        builder.build().await.map_err(|e| OnvifError::of(self, e))
    }
}

impl fmt::Display for OnvifAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str())
    }
}

impl fmt::Debug for OnvifAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnvifAddress").field(&self.url.as_str()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, url) in [
            ("192.168.1.20", "http://192.168.1.20/onvif/device_service"),
            ("camera.local:8000", "http://camera.local:8000/onvif/device_service"),
            ("fd00::20", "http://[fd00::20]/onvif/device_service"),
            ("https://camera/", "https://camera/onvif/device_service"),
            ("http://camera:81/onvif/services?x=1#y", "http://camera:81/onvif/services?x=1"),
        ] {
            assert_eq!(OnvifAddress::new(text).unwrap().to_string(), url);
        }
        let with = OnvifAddress::new("http://admin:p%40ss@camera").unwrap();
        let login = with.login.clone().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("admin", "p@ss"));
        assert!(!format!("{with} {with:?}").contains("ss@"), "{with:?}");
        for wrong in ["", "rtsp://camera", "a b", "http://"] {
            assert!(OnvifAddress::new(wrong).is_err(), "{wrong}");
        }
        let said = OnvifAddress::new("ftp://u:secret@camera").unwrap_err().to_string();
        assert!(!said.contains("secret") && said.contains("\"ftp\""), "{said}");
    }
}
