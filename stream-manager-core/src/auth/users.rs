//! The authorizer that works on a configured list of users.

use super::{Access, Action, Attempts, Authorizer, Credentials, Denied, Grant, Secret};
use parking_lot::RwLock;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// Failures that an address may make within [`WINDOW`].
const ALLOWED_FAILURES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

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

/// Somebody who may do something.
#[derive(Clone, Debug)]
pub struct User {
    name: String,
    password: Secret,
    read: Vec<PathPattern>,
    publish: Vec<PathPattern>,
}

impl User {
    /// Somebody who may do nothing yet.
    pub fn new(name: impl Into<String>, password: Secret) -> Self {
        Self { name: name.into(), password, read: Vec::new(), publish: Vec::new() }
    }

    /// May watch these.
    #[must_use]
    pub fn read(mut self, streams: impl IntoIterator<Item = PathPattern>) -> Self {
        self.read = streams.into_iter().collect();
        self
    }

    /// May be the source of these.
    #[must_use]
    pub fn publish(mut self, streams: impl IntoIterator<Item = PathPattern>) -> Self {
        self.publish = streams.into_iter().collect();
        self
    }

    fn may(&self, action: Action, stream: &str) -> bool {
        let patterns = match action {
            Action::Read => &self.read,
            Action::Publish => &self.publish,
        };
        patterns.iter().any(|p| p.matches(stream))
    }
}

/// A list of users.
///
/// Without any, everybody may watch, and publish from this machine. With some, only they may, each what the list
/// says.
///
/// ```
/// # use stream_manager_core::auth::{Secret, User, Users};
/// let users = Users::new([User::new("viewer", Secret::new("…")).read(["*".parse().unwrap()])]);
/// ```
#[derive(Debug)]
pub struct Users {
    users: RwLock<Vec<User>>,
    attempts: Attempts,
}

impl Users {
    /// From a list.
    pub fn new(users: impl IntoIterator<Item = User>) -> Self {
        Self {
            users: RwLock::new(users.into_iter().collect()),
            attempts: Attempts::new(ALLOWED_FAILURES, WINDOW),
        }
    }

    /// Other users from now on. Whoever is let in already stays.
    pub fn replace(&self, users: Vec<User>) {
        *self.users.write() = users;
    }

    fn open(access: &Access<'_>) -> Result<Grant, Denied> {
        match access.action {
            Action::Publish if !is_loopback(access.address) => {
                Err(Denied::Forbidden { user: "anonymous".into(), action: access.action })
            }
            _ => Ok(Grant::default()),
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[async_trait::async_trait]
impl Authorizer for Users {
    async fn authorize(&self, access: &Access<'_>) -> Result<Grant, Denied> {
        let users = self.users.read();
        if users.is_empty() {
            return Self::open(access);
        }
        let Some(name) = access.credentials.user() else { return Err(Denied::Anonymous) };
        if let Some(wait) = self.attempts.wait(access.address) {
            return Err(Denied::Limited { wait });
        }
        let user = users.iter().find(|u| u.name == name);
        // A name that does not exist takes as long as a wrong password.
        let nobody = Secret::new("nobody's");
        let proved = access.credentials.prove(user.map_or(&nobody, |u| &u.password));
        let Some(user) = user.filter(|_| proved) else {
            self.attempts.failed(access.address);
            return Err(Denied::WrongCredentials);
        };
        self.attempts.succeeded(access.address);
        if !user.may(access.action, access.stream) {
            return Err(Denied::Forbidden { user: user.name.clone(), action: access.action });
        }
        Ok(Grant { user: Some(user.name.clone()) })
    }
}

impl Credentials {
    /// A name and a password.
    pub fn password(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password { user: user.into(), password: Secret::new(password) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(
        users: &Users,
        action: Action,
        stream: &str,
        from: &str,
        credentials: Credentials,
    ) -> Result<Grant, Denied> {
        let access = Access {
            action,
            stream,
            address: from.parse().unwrap(),
            protocol: "rtsp",
            query: None,
            credentials: &credentials,
        };
        users.authorize(&access).await
    }

    #[tokio::test]
    async fn without_users_watching_is_open_and_publishing_local() {
        let users = Users::new([]);
        assert!(ask(&users, Action::Read, "a", "192.0.2.1", Credentials::None).await.is_ok());
        for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(ask(&users, Action::Publish, "a", local, Credentials::None).await.is_ok());
        }
        assert!(ask(&users, Action::Publish, "a", "192.0.2.1", Credentials::None).await.is_err());
    }

    #[tokio::test]
    async fn users_may_what_the_list_says() {
        let pattern = |p: &str| p.parse::<PathPattern>().unwrap();
        let users = Users::new([
            User::new("viewer", Secret::new("v")).read([pattern("*")]),
            User::new("camera", Secret::new("c")).publish([pattern("cam/*")]),
        ]);
        let from = "192.0.2.1";
        let as_user = Credentials::password;
        assert_eq!(ask(&users, Action::Read, "x", from, Credentials::None).await, Err(Denied::Anonymous));
        let grant = ask(&users, Action::Read, "x", from, as_user("viewer", "v")).await.unwrap();
        assert_eq!(grant.user.as_deref(), Some("viewer"));
        assert!(ask(&users, Action::Publish, "cam/1", from, as_user("camera", "c")).await.is_ok());
        for (action, stream, user, password) in [
            (Action::Publish, "x", "camera", "c"),
            (Action::Publish, "cam/1", "viewer", "v"),
            (Action::Read, "x", "camera", "c"),
        ] {
            let denied = ask(&users, action, stream, from, as_user(user, password)).await;
            assert!(matches!(denied, Err(Denied::Forbidden { .. })), "{denied:?}");
        }
        for _ in 0..ALLOWED_FAILURES {
            let denied = ask(&users, Action::Read, "x", from, as_user("viewer", "w")).await;
            assert_eq!(denied, Err(Denied::WrongCredentials));
        }
        let denied = ask(&users, Action::Read, "x", from, as_user("viewer", "v")).await;
        assert!(matches!(denied, Err(Denied::Limited { .. })), "{denied:?}");
        assert!(ask(&users, Action::Read, "x", "192.0.2.2", as_user("viewer", "v")).await.is_ok());
    }

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
}
