//! What somebody may do: actions, with which streams, from where.

use super::Action;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::str::FromStr;

/// Which streams: an id, `*` for all, or parts with a `*` in them, such as `yard/*`.
///
/// A `*` stands for any characters, `/` included.
///
/// ```
/// # use stream_manager_core::auth::PathPattern;
/// let pattern: PathPattern = "yard/*".parse().unwrap();
/// assert!(pattern.matches("yard/door") && !pattern.matches("house/door"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(String);

impl PathPattern {
    /// All streams.
    pub fn everything() -> Self {
        Self("*".into())
    }

    /// Whether the id of a stream is meant.
    pub fn matches(&self, id: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| id.strip_prefix(first)) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }

    /// Whether it stands for more than one id.
    pub fn is_pattern(&self) -> bool {
        self.0.contains('*')
    }

    /// Whether every id is meant.
    pub fn is_everything(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|b| b == b'*')
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._~-/*".contains(c);
        if text.is_empty() || text.len() > 200 || !text.chars().all(allowed) {
            let shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
            return Err(format!(
                "\"{shown}\" is no pattern of streams; expected an id, in which * stands for anything"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Serialize for PathPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PathPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathPattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A stream's id, in which * stands for anything",
            "pattern": "^[A-Za-z0-9._~/*-]{1,200}$"
        })
    }
}

/// Addresses: one, or a network (`192.168.1.0/24`, `fd00::/8`).
///
/// ```
/// # use stream_manager_core::auth::Network;
/// let network: Network = "192.168.1.0/24".parse().unwrap();
/// assert!(network.contains("192.168.1.7".parse().unwrap()));
/// assert!("192.168.1.7".parse::<Network>().unwrap().contains("::ffff:192.168.1.7".parse().unwrap()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether an address is one of them. IPv4 in IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
        net.map(Self).ok_or_else(|| {
            format!(
                "\"{shown}\" is no address or network; expected such as \"192.168.1.7\" or \"192.168.1.0/24\""
            )
        })
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = self.0.prefix_len() == self.0.max_prefix_len();
        if whole { serializer.collect_str(&self.0.addr()) } else { serializer.collect_str(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "An address or a network, such as 192.168.1.0/24",
            "examples": ["192.168.1.0/24", "::1"]
        })
    }
}

/// What may be done, with which streams, from where.
///
/// ```
/// # use stream_manager_core::auth::{Action, Permission};
/// let watch = Permission::new([Action::Read]).streams(["yard/*".parse().unwrap()]);
/// let from = "192.0.2.1".parse().unwrap();
/// assert!(watch.allows(Action::Read, Some("yard/door"), from));
/// assert!(!watch.allows(Action::Publish, Some("yard/door"), from));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// What. `admin` is everything, with all streams.
    pub actions: Vec<Action>,
    /// With which streams; what concerns no stream in particular needs `*`.
    #[serde(default = "everything")]
    pub streams: Vec<PathPattern>,
    /// From where; anywhere if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Network>,
}

fn everything() -> Vec<PathPattern> {
    vec![PathPattern::everything()]
}

impl Permission {
    /// These actions with all streams, from anywhere.
    pub fn new(actions: impl IntoIterator<Item = Action>) -> Self {
        Self { actions: actions.into_iter().collect(), streams: everything(), addresses: Vec::new() }
    }

    /// Only with these.
    #[must_use]
    pub fn streams(mut self, streams: impl IntoIterator<Item = PathPattern>) -> Self {
        self.streams = streams.into_iter().collect();
        self
    }

    /// Only from there.
    #[must_use]
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = Network>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// Whether it allows this with a stream, or with the whole server if none is given.
    pub fn allows(&self, action: Action, stream: Option<&str>, from: IpAddr) -> bool {
        self.allows_some(action, from)
            && (self.actions.contains(&Action::Admin)
                || match stream {
                    Some(stream) => self.streams.iter().any(|pattern| pattern.matches(stream)),
                    None => self.streams.iter().any(PathPattern::is_everything),
                })
    }

    /// Whether it allows this with any stream at all.
    pub fn allows_some(&self, action: Action, from: IpAddr) -> bool {
        let is_admin = self.actions.contains(&Action::Admin);
        let action = is_admin || self.actions.contains(&action) && !self.streams.is_empty();
        action && (self.addresses.is_empty() || self.addresses.iter().any(|network| network.contains(from)))
    }

    /// Whether whoever has all of these may do nothing more by this one: permissions that are handed on must not grow.
    pub fn is_within(&self, others: &[Self]) -> bool {
        let from = |other: &Self| {
            other.addresses.is_empty()
                || !self.addresses.is_empty() && self.addresses.iter().all(|a| other.addresses.contains(a))
        };
        self.actions.iter().all(|action| {
            others.iter().any(|other| {
                let may = other.actions.contains(action) || other.actions.contains(&Action::Admin);
                let streams = other.actions.contains(&Action::Admin)
                    || self.streams.iter().all(|s| {
                        other
                            .streams
                            .iter()
                            .any(|o| o == s || o.is_everything() || !s.is_pattern() && o.matches(s.as_str()))
                    });
                may && streams && from(other)
            })
        })
    }
}

/// A usual set of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything with streams and recordings; not users, settings, logs and the machine.
    Operator,
    /// Watching, live and recorded, and seeing what there is.
    Viewer,
    /// Being the source of streams.
    Publisher,
    /// `/metrics` and the state of things, for a monitoring system.
    Monitor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Admin, Self::Operator, Self::Viewer, Self::Publisher, Self::Monitor];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Monitor => "monitor",
        }
    }

    /// What it may.
    pub fn actions(self) -> &'static [Action] {
        match self {
            Self::Admin => &[Action::Admin],
            Self::Operator => &[
                Action::Read,
                Action::Playback,
                Action::Publish,
                Action::Record,
                Action::ApiRead,
                Action::ApiWrite,
                Action::Metrics,
            ],
            Self::Viewer => &[Action::Read, Action::Playback, Action::ApiRead],
            Self::Publisher => &[Action::Publish],
            Self::Monitor => &[Action::Metrics, Action::ApiRead],
        }
    }

    /// The same with some streams.
    pub fn permission(self, streams: Vec<PathPattern>) -> Permission {
        Permission::new(self.actions().iter().copied()).streams(streams)
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| {
            let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            format!("\"{shown}\" is no role; expected {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, yes, no) in [
            ("*", "a/b", ""),
            ("cam/*", "cam/1/2", "cams/1"),
            ("*/main", "a/main", "a/mainx"),
            ("a*b*c", "a1b2c", "ab"),
            ("door", "door", "door2"),
        ] {
            let parsed: PathPattern = pattern.parse().unwrap();
            assert!(parsed.matches(yes), "{pattern} {yes}");
            assert!(no.is_empty() || !parsed.matches(no), "{pattern} {no}");
        }
        assert!("a b".parse::<PathPattern>().is_err() && "".parse::<PathPattern>().is_err());
    }

    #[test]
    fn what_a_permission_allows() {
        let (home, away) = ("192.168.1.7".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let permission: Permission = serde_json::from_value(serde_json::json!({
            "actions": ["read", "api.read"], "streams": ["yard/*"], "addresses": ["192.168.0.0/16", "::1"]
        }))
        .unwrap();
        assert!(permission.allows(Action::Read, Some("yard/door"), home));
        assert!(permission.allows(Action::ApiRead, Some("yard/door"), "::1".parse().unwrap()));
        assert!(permission.allows(Action::Read, Some("yard/door"), "::ffff:192.168.1.7".parse().unwrap()));
        assert!(!permission.allows(Action::Read, Some("yard/door"), away));
        assert!(!permission.allows(Action::Read, Some("house"), home));
        assert!(!permission.allows(Action::Publish, Some("yard/door"), home));
        // The whole server is more than some streams.
        assert!(!permission.allows(Action::ApiRead, None, home));
        assert!(permission.allows_some(Action::ApiRead, home));
        assert!(!Permission::new([Action::Read]).streams([]).allows_some(Action::Read, home));
        let admin = Permission::new([Action::Admin]).streams([]);
        assert!(admin.allows(Action::Metrics, None, away) && admin.allows(Action::Read, Some("x"), away));
        assert!(serde_json::from_str::<Permission>(r#"{"actions": ["fly"]}"#).is_err());
        assert!(
            serde_json::from_str::<Permission>(r#"{"actions": [], "addresses": ["10.0.0.0/33"]}"#).is_err()
        );
    }

    #[test]
    fn what_is_handed_on_does_not_grow() {
        let pattern = |p: &str| p.parse::<PathPattern>().unwrap();
        let own = [
            Permission::new([Action::Read, Action::Playback]).streams([pattern("yard/*")]),
            Permission::new([Action::ApiRead]).addresses(["10.0.0.0/8".parse().unwrap()]),
        ];
        assert!(Permission::new([Action::Read]).streams([pattern("yard/door")]).is_within(&own));
        assert!(Permission::new([Action::Read]).streams([pattern("yard/*")]).is_within(&own));
        for more in [
            Permission::new([Action::Read]),
            Permission::new([Action::Read]).streams([pattern("y*")]),
            Permission::new([Action::Read, Action::Publish]).streams([pattern("yard/*")]),
            Permission::new([Action::ApiRead]),
            Permission::new([Action::Admin]),
        ] {
            assert!(!more.is_within(&own), "{more:?}");
            assert!(more.is_within(&[Permission::new([Action::Admin])]), "{more:?}");
        }
    }
}
