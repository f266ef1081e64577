//! What is said of a stream's source beside its address.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

use super::{Address, StreamConfig};

/// `[streams.tls]`: how a camera shows who it is (`rtsps://`). Without any of it, it does not have to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Whether an authority that the system trusts has to vouch for its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// The SHA-256 hash of its certificate, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// A PEM file with the authorities that have to vouch for its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl TlsConfig {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What stands for a password in what is shown.
const HIDDEN: &str = "***";

/// A source's password. It is written where configurations are kept, and nowhere else: whoever shows a configuration shows
/// [`StreamConfig::shown`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it is only what stands for one.
    pub fn is_hidden(&self) -> bool {
        self.0 == HIDDEN
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl StreamConfig {
    /// The same without secrets, for people.
    #[must_use]
    pub fn shown(&self) -> Self {
        let mut shown = self.clone();
        shown.source_url = self.source_url.without_secrets();
        if shown.password.is_some() {
            shown.password = Some(Password::new(HIDDEN));
        }
        shown.inference.source_url = shown.inference.source_url.as_ref().map(Address::without_secrets);
        shown.fallback.url = shown.fallback.url.as_ref().map(Address::without_secrets);
        shown.onvif.url = shown.onvif.url.as_ref().map(Address::without_secrets);
        if shown.onvif.password.is_some() {
            shown.onvif.password = Some(Password::new(HIDDEN));
        }
        for variant in &mut shown.variants {
            variant.source_url = variant.source_url.without_secrets();
        }
        for forward in &mut shown.forward {
            forward.url = forward.url.shown_as_forward().into();
        }
        shown
    }
}
