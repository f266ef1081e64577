//! Who may do what: one [`Authorizer`] for every protocol.
//!
//! A protocol brings an [`Access`]: what somebody wants to do with which stream, from where, and the credentials
//! as the protocol carries them. The authorizer answers with a [`Grant`] or with the reason why not. [`Users`] is
//! the one that works on a configured list; a library user may bring another.

#[cfg(any(feature = "onvif", feature = "rtsp"))]
pub(crate) mod challenge;
pub mod digest;
mod limit;
mod users;

pub use digest::{DigestAlgorithm, DigestAnswer};
pub use limit::Attempts;
pub use users::{PathPattern, User, Users};

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Text that is never shown.
///
/// ```
/// # use stream_manager_core::auth::Secret;
/// assert_eq!(format!("{:?}", Secret::new("geheim")), "***");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for comparing and hashing only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl schemars::JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A secret. Answers show \"***\" instead; sent back like that, it stays as it is."
        })
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Action {
    /// Watch a stream.
    Read,
    /// Be a stream's source.
    Publish,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Publish => "publish",
        })
    }
}

/// Credentials as a protocol carries them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// None were sent.
    #[default]
    None,
    /// A name and a password in the clear: HTTP's Basic (RFC 7617).
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// The answer to a challenge: Digest (RFC 7616). The protocol has checked that the challenge was its own.
    Digest(DigestAnswer),
}

impl Credentials {
    /// The name they claim.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Password { user, .. } => Some(user),
            Self::Digest(answer) => Some(&answer.user),
        }
    }

    /// Whether they prove that their sender knows the password.
    pub fn prove(&self, password: &Secret) -> bool {
        match self {
            Self::None => false,
            Self::Password { password: given, .. } => {
                equal(given.reveal().as_bytes(), password.reveal().as_bytes())
            }
            Self::Digest(answer) => answer.verify(password),
        }
    }
}

/// A number that nobody can guess: from the standard library's hasher, whose keys the system's random numbers make.
pub(crate) fn unpredictable() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(fastrand::u64(..));
    hasher.finish()
}

/// Compares without telling by its duration where the difference is.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    use subtle::ConstantTimeEq as _;
    // Hashed first, so that not even the length shows.
    use sha2::Digest as _;
    sha2::Sha256::digest(a).ct_eq(&sha2::Sha256::digest(b)).into()
}

/// Somebody wants to do something.
#[derive(Clone, Debug)]
pub struct Access<'a> {
    /// What.
    pub action: Action,
    /// With which stream.
    pub stream: &'a str,
    /// From where.
    pub address: IpAddr,
    /// By which protocol, in lower case: `rtsp`.
    pub protocol: &'static str,
    /// The query string of the address that was asked for.
    pub query: Option<&'a str>,
    /// Who.
    pub credentials: &'a Credentials,
}

/// It may be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// By whom; none for everybody.
    pub user: Option<String>,
}

/// It may not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// Nobody in particular may not; credentials may help.
    #[error("credentials are needed")]
    Anonymous,
    /// The credentials are wrong.
    #[error("the credentials are wrong")]
    WrongCredentials,
    /// The credentials are right, but this is not allowed.
    #[error("user \"{user}\" may not {action} this stream")]
    Forbidden {
        /// The user.
        user: String,
        /// What was asked for.
        action: Action,
    },
    /// Too many wrong attempts.
    #[error("too many failed attempts from this address; try again in {wait:?}")]
    Limited {
        /// How long to wait.
        wait: Duration,
    },
}

/// Decides who may do what.
///
/// ```
/// use stream_manager_core::auth::{Access, Action, Authorizer, Denied, Grant};
///
/// /// Everybody may watch, nobody may publish.
/// struct WatchOnly;
///
/// #[async_trait::async_trait]
/// impl Authorizer for WatchOnly {
///     async fn authorize(&self, access: &Access<'_>) -> Result<Grant, Denied> {
///         match access.action {
///             Action::Read => Ok(Grant::default()),
///             _ => Err(Denied::Anonymous),
///         }
///     }
/// }
/// ```
#[async_trait::async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Whether it may be done.
    async fn authorize(&self, access: &Access<'_>) -> Result<Grant, Denied>;
}
