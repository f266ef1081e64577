//! Addresses in configurations: they may hold a secret, so no accident shows them.

use crate::error::{redact_publish_url, redact_url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;

/// An address that may hold a secret: its `Debug` leaves that out, and it has no `Display`. As text it can be used where it is meant to be:
/// to connect, and where configurations are kept. Whoever shows a configuration shows
/// [`StreamConfig::shown`](super::StreamConfig::shown).
///
/// ```
/// # use stream_manager_core::config::Address;
/// let address = Address::from("rtsp://u:geheim@camera/1");
/// assert_eq!(format!("{address:?}"), "\"rtsp://u:***@camera/1\"");
/// assert_eq!(&*address, "rtsp://u:geheim@camera/1");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// Without secrets, for people.
    pub fn shown(&self) -> String {
        redact_url(&self.0)
    }

    /// The same as an address, in a configuration that is shown.
    pub(crate) fn without_secrets(&self) -> Self {
        Self(self.shown())
    }

    /// As the address of a forward: what stands last in one of RTMP is the key by which one publishes.
    pub(crate) fn shown_as_forward(&self) -> String {
        redact_publish_url(&self.0)
    }
}

impl Deref for Address {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Address {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl PartialEq<str> for Address {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Address {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown(), f)
    }
}

/// The address of a service, which may hold a secret, and which is written without it everywhere.
///
/// ```
/// # use stream_manager_core::config::ServiceAddress;
/// let address: ServiceAddress = serde_json::from_str("\"https://u:geheim@h/x?token=y\"").unwrap();
/// assert_eq!(serde_json::to_string(&address).unwrap(), "\"https://u:***@h/x?token=***\"");
/// assert_eq!(address.reveal(), "https://u:geheim@h/x?token=y");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ServiceAddress(String);

impl ServiceAddress {
    /// The text itself, to connect to.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Without secrets, for people.
    pub fn shown(&self) -> String {
        redact_url(&self.0)
    }
}

impl From<&str> for ServiceAddress {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for ServiceAddress {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown(), f)
    }
}

impl Serialize for ServiceAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}
