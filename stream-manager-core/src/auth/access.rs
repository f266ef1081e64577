//! A question of rights as a protocol asks it, and the answer.

use super::{DigestAnswer, Permission, Secret, equal};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Watch a stream live.
    Read,
    /// Be a stream's source.
    Publish,
    /// Watch what was recorded, export it.
    Playback,
    /// Start, stop, pause, split recordings; make and take away marks.
    Record,
    /// See streams, their state and what happens with them.
    ApiRead,
    /// Make, change and delete streams and recordings.
    ApiWrite,
    /// See numbers about everything.
    Metrics,
    /// Everything: users, settings, logs, the machine, and all of the above.
    Admin,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::Publish,
        Self::Playback,
        Self::Record,
        Self::ApiRead,
        Self::ApiWrite,
        Self::Metrics,
        Self::Admin,
    ];

    /// Its name in configurations and answers: `read`, `api.write`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Playback => "playback",
            Self::Record => "record",
            Self::ApiRead => "api.read",
            Self::ApiWrite => "api.write",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Action {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|action| action.name() == text);
        found.ok_or_else(|| {
            let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            format!("\"{shown}\" is no action; expected {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

impl serde::Serialize for Action {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for Action {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Action {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Action".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "What may be done",
            "enum": Self::ALL.map(Self::name)
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
    /// A bearer token (RFC 6750): one of ours, or a JWT (RFC 7519).
    Token(Secret),
}

impl Credentials {
    /// A name and a password.
    pub fn password(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password { user: user.into(), password: Secret::new(password) }
    }

    /// The name they claim.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::None | Self::Token(_) => None,
            Self::Password { user, .. } => Some(user),
            Self::Digest(answer) => Some(&answer.user),
        }
    }

    /// Whether they prove that their sender knows the password.
    pub fn prove(&self, password: &Secret) -> bool {
        match self {
            Self::None | Self::Token(_) => false,
            Self::Password { password: given, .. } => {
                equal(given.reveal().as_bytes(), password.reveal().as_bytes())
            }
            Self::Digest(answer) => answer.verify(password),
        }
    }
}

/// What an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A stream.
    Stream(&'a str),
    /// Streams of which there may be several or none: what may be seen of them is asked of the [`Grant`].
    Streams,
    /// The whole server.
    Server,
}

impl<'a> Subject<'a> {
    /// The stream, if it is one.
    pub fn stream(self) -> Option<&'a str> {
        match self {
            Self::Stream(id) => Some(id),
            Self::Streams | Self::Server => None,
        }
    }
}

/// Somebody wants to do something.
#[derive(Clone, Debug)]
pub struct Access<'a> {
    /// What.
    pub action: Action,
    /// With what.
    pub subject: Subject<'a>,
    /// From where.
    pub address: IpAddr,
    /// By which protocol, in lower case: `rtsp`.
    pub protocol: &'static str,
    /// The query string of the address that was asked for.
    pub query: Option<&'a str>,
    /// What the client calls itself, if it does.
    pub user_agent: Option<&'a str>,
    /// Who.
    pub credentials: &'a Credentials,
}

/// It may be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// By whom; none for everybody.
    pub user: Option<String>,
    /// What else they may do, if that is limited.
    limits: Option<Limits>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Limits {
    permissions: Arc<[Permission]>,
    address: IpAddr,
}

impl Grant {
    /// To somebody who may do everything that they are not asked about.
    pub fn to(user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), limits: None }
    }

    /// To somebody who may do no more than this, from this address.
    pub fn limited(user: Option<String>, permissions: Arc<[Permission]>, address: IpAddr) -> Self {
        Self { user, limits: Some(Limits { permissions, address }) }
    }

    /// Whether something else may be done, too, with a stream or, without one, the whole server.
    pub fn may(&self, action: Action, stream: Option<&str>) -> bool {
        self.limits
            .as_ref()
            .is_none_or(|limits| limits.permissions.iter().any(|p| p.allows(action, stream, limits.address)))
    }

    /// Whether it may be done with every stream there is or will be.
    pub fn may_all(&self, action: Action) -> bool {
        self.may(action, None)
    }

    /// All that they may, if that is limited.
    pub fn permissions(&self) -> Option<&[Permission]> {
        self.limits.as_ref().map(|limits| &*limits.permissions)
    }
}

/// It may not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// Nobody in particular may not; credentials may help.
    #[error("credentials are needed")]
    Anonymous,
    /// There are no users yet, and this is not open to everybody.
    #[error(
        "there are no users yet, so this is possible from the server's own machine only; make the first user with the code that the server printed when it started"
    )]
    NotSetUp,
    /// The credentials are wrong.
    #[error("the credentials are wrong")]
    WrongCredentials,
    /// The credentials are right, but this is not allowed.
    #[error("user \"{user}\" has no permission for {action} here")]
    Forbidden {
        /// The user.
        user: String,
        /// What was asked for.
        action: Action,
    },
    /// Too many wrong attempts.
    #[error("too many failed attempts; try again in {} s", wait.as_secs().max(1))]
    Limited {
        /// How long to wait.
        wait: Duration,
    },
    /// It cannot be found out at the moment.
    #[error("it cannot be found out who may: {problem}")]
    Unavailable {
        /// Why.
        problem: String,
    },
}

/// Decides who may do what.
///
/// ```
/// use stream_manager_core::auth::{Access, Action, Authorizer, Denied, Grant};
///
/// /// Everybody may watch, nobody may do anything else.
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

    /// Whether an answer to a Digest challenge (RFC 7616) can be proved for everybody, which needs their passwords. Where it
    /// cannot, clients are not asked for one.
    fn takes_digest(&self) -> bool {
        true
    }
}
