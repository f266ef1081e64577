//! What a camera tells of itself by ONVIF.

use super::{Address, Password, ResolvedStream};
use crate::source::percent_decoded;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[streams.onvif]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnvifConfig {
    /// Whether what it notices by itself (motion, tampering, inputs) becomes events of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<bool>,
    /// The address of its ONVIF service; the usual one at the host of `source_url` if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Address>,
    /// The user there; the stream's if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
}

impl OnvifConfig {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A camera that is listened to.
#[derive(Clone, Debug, PartialEq)]
pub struct OnvifDevice {
    /// Its address, as [`OnvifConfig::url`] or a host.
    pub address: String,
    /// Who asks.
    pub credentials: Option<(String, Password)>,
}

impl ResolvedStream {
    /// The camera that is listened to, if one is.
    ///
    /// # Errors
    /// If nothing says which one that is, or a password is said without a user.
    pub fn onvif_device(&self) -> Result<Option<OnvifDevice>, String> {
        let onvif = &self.onvif;
        if onvif.events != Some(true) {
            return Ok(None);
        }
        let source = url::Url::parse(&self.source_url).ok();
        let host = source.as_ref().and_then(url::Url::host_str).filter(|host| !host.is_empty());
        let address = match (&onvif.url, host) {
            (Some(url), _) => url.to_string(),
            (None, Some(host)) => host.trim_matches(['[', ']']).to_owned(),
            (None, None) => {
                return Err(
                    "the source has no host; expected the address of the camera's ONVIF service in url"
                        .into(),
                );
            }
        };
        let own = match (&onvif.user, &onvif.password) {
            (Some(user), Some(password)) => Some((user.clone(), password.clone())),
            (None, None) => None,
            _ => return Err("user and password go together; expected both or none".into()),
        };
        let of_source = || {
            let source = source.as_ref().filter(|url| !url.username().is_empty())?;
            let password = Password::new(percent_decoded(source.password().unwrap_or_default()));
            Some((percent_decoded(source.username()), password))
        };
        // The stream's hold for its own host alone.
        let same_host = onvif.url.as_ref().is_none_or(|url| {
            let at = url::Url::parse(url).ok();
            at.as_ref().and_then(url::Url::host_str).is_some_and(|at| Some(at) == host)
        });
        let streams = || self.credentials.clone().or_else(of_source).filter(|_| same_host);
        Ok(Some(OnvifDevice { address, credentials: own.or_else(streams) }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Defaults, StreamConfig};
    use super::*;

    #[test]
    fn the_camera_is_that_of_the_source_if_nothing_else_is_said() {
        let device = |source: &str, onvif: OnvifConfig| {
            let mut stream = StreamConfig::new("door", source);
            stream.onvif = onvif;
            let found = stream.resolve(&Defaults::default()).onvif_device();
            let plain = |(user, password): (String, Password)| (user, password.reveal().to_owned());
            found.map(|found| found.map(|device| (device.address, device.credentials.map(plain))))
        };
        let on = || OnvifConfig { events: Some(true), ..OnvifConfig::default() };
        let login = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        let of = |url: &str, login| Ok(Some((url.to_owned(), login)));
        assert_eq!(device("rtsp://u:p%40@cam/1", OnvifConfig::default()), Ok(None));
        assert_eq!(device("rtsp://u:p%40@cam/1", on()), of("cam", login("u", "p@")));
        assert_eq!(device("rtsp://[fd00::1]/1", on()), of("fd00::1", None));
        let other = OnvifConfig { url: Some("http://other:80/x".into()), ..on() };
        assert_eq!(device("rtsp://u:p@cam/1", other), of("http://other:80/x", None));
        let port = OnvifConfig { url: Some("http://cam:8000/x".into()), ..on() };
        assert_eq!(device("rtsp://u:p@cam/1", port.clone()), of("http://cam:8000/x", login("u", "p")));
        let own = OnvifConfig { user: Some("a".into()), password: Some(Password::new("b")), ..port };
        assert_eq!(device("rtsp://u:p@cam/1", own), of("http://cam:8000/x", login("a", "b")));
        assert!(device("test://", on()).unwrap_err().contains("url"));
        let half = OnvifConfig { user: Some("a".into()), ..on() };
        assert!(device("rtsp://cam", half).unwrap_err().contains("go together"));
    }
}
