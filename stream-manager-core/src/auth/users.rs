//! The authorizer that the server has: users and tokens of its own, JWT, and a callback, in that order.

use super::accounts::TokenOwner;
use super::password::Verifier;
use super::{
    Access, Accounts, Action, Attempts, Authorizer, Credentials, Denied, Grant, PasswordHash, PathPattern,
    Permission, Secret, Subject,
};
use parking_lot::RwLock;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Failures that an address may make within [`WINDOW`].
const ALLOWED_FAILURES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// What a user proves who they are with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Password {
    Plain(Secret),
    Hash(PasswordHash),
}

/// Somebody who may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    password: Password,
    permissions: Vec<Permission>,
}

impl User {
    /// Somebody who may do nothing yet.
    pub fn new(name: impl Into<String>, password: Secret) -> Self {
        Self { name: name.into(), password: Password::Plain(password), permissions: Vec::new() }
    }

    /// The same, of whose password only a hash is known. Cannot answer Digest challenges.
    pub fn hashed(name: impl Into<String>, hash: PasswordHash) -> Self {
        Self { name: name.into(), password: Password::Hash(hash), permissions: Vec::new() }
    }

    /// May do this, too.
    #[must_use]
    pub fn permission(mut self, permission: Permission) -> Self {
        self.permissions.push(permission);
        self
    }

    /// May watch these, live and recorded.
    #[must_use]
    pub fn read(self, streams: impl IntoIterator<Item = PathPattern>) -> Self {
        self.permission(Permission::new([Action::Read, Action::Playback]).streams(streams))
    }

    /// May be the source of these.
    #[must_use]
    pub fn publish(self, streams: impl IntoIterator<Item = PathPattern>) -> Self {
        self.permission(Permission::new([Action::Publish]).streams(streams))
    }
}

/// Who may do what beside the accounts.
#[derive(Clone)]
pub struct UsersOptions {
    /// Users of the configuration.
    pub users: Vec<User>,
    /// What everybody may, without credentials.
    pub anonymous: Vec<Permission>,
    /// Whether everybody may watch live until there is a first user.
    pub open_viewing: bool,
    /// Identity provider.
    #[cfg(feature = "http")]
    pub jwt: Option<super::jwt::JwtOptions>,
    /// Somebody who is asked.
    #[cfg(feature = "http")]
    pub callback: Option<super::callback::CallbackOptions>,
}

impl Default for UsersOptions {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            anonymous: Vec::new(),
            open_viewing: true,
            #[cfg(feature = "http")]
            jwt: None,
            #[cfg(feature = "http")]
            callback: None,
        }
    }
}

struct ListedUser {
    user: User,
    permissions: Arc<[Permission]>,
}

/// What holds at the moment.
#[derive(Default)]
struct Rules {
    users: Vec<ListedUser>,
    anonymous: Arc<[Permission]>,
    open_viewing: bool,
    #[cfg(feature = "http")]
    jwt: Option<Arc<super::jwt::JwtVerifier>>,
    #[cfg(feature = "http")]
    callback: Option<Arc<super::callback::Callback>>,
}

impl Rules {
    fn user(&self, name: &str) -> Option<&ListedUser> {
        self.users.iter().find(|listed| listed.user.name == name)
    }

    /// Whether somebody is named who may do something.
    fn names_somebody(&self) -> bool {
        #[cfg(feature = "http")]
        if self.jwt.is_some() || self.callback.is_some() {
            return true;
        }
        !self.users.is_empty() || !self.anonymous.is_empty()
    }
}

/// Users by configuration, [`Accounts`], JWT and callback.
///
/// Without anybody, requests from this machine may do everything, everybody may watch live, and nobody else anything more. With
/// somebody, only what permissions say is allowed.
///
/// ```
/// # use stream_manager_core::auth::{Secret, User, Users};
/// let users = Users::new([User::new("viewer", Secret::new("…")).read(["*".parse().unwrap()])]);
/// ```
pub struct Users {
    rules: RwLock<Arc<Rules>>,
    accounts: Option<Arc<Accounts>>,
    attempts: Attempts,
    verifier: Verifier,
}

/// Somebody who has proved who they are.
struct Somebody {
    name: String,
    permissions: Arc<[Permission]>,
}

impl Users {
    /// From a list.
    pub fn new(users: impl IntoIterator<Item = User>) -> Self {
        let users = UsersOptions { users: users.into_iter().collect(), ..UsersOptions::default() };
        // Without an identity provider nothing can be wrong with them.
        Self::build(checked_rules(&users, None).unwrap_or_default(), None)
    }

    /// From options, and with accounts.
    ///
    /// # Errors
    /// If the options are wrong; names the key.
    pub fn with(options: &UsersOptions, accounts: Option<Arc<Accounts>>) -> Result<Self, String> {
        Ok(Self::build(checked_rules(options, None)?, accounts))
    }

    fn build(rules: Rules, accounts: Option<Arc<Accounts>>) -> Self {
        Self {
            rules: RwLock::new(Arc::new(rules)),
            accounts,
            attempts: Attempts::new(ALLOWED_FAILURES, WINDOW),
            verifier: Verifier::new(),
        }
    }

    /// Other options from now on. Whoever is let in already stays; keys of an identity provider that is still the same do, too.
    ///
    /// # Errors
    /// If the options are wrong; nothing changes then.
    pub fn replace(&self, options: &UsersOptions) -> Result<(), String> {
        let before = self.rules.read().clone();
        let rules = checked_rules(options, Some(&before))?;
        *self.rules.write() = Arc::new(rules);
        Ok(())
    }

    /// The accounts, if there are any.
    pub fn accounts(&self) -> Option<&Arc<Accounts>> {
        self.accounts.as_ref()
    }

    /// Whether nobody is named yet who may do something.
    pub fn is_open(&self) -> bool {
        !self.rules.read().names_somebody()
            && self.accounts.as_ref().is_none_or(|accounts| accounts.is_empty())
    }

    /// Who somebody is by name and password: for logging in.
    ///
    /// # Errors
    /// If they do not prove it.
    pub async fn log_in(&self, user: &str, password: &Secret, from: IpAddr) -> Result<(), Denied> {
        let credentials = Credentials::Password { user: user.to_owned(), password: password.clone() };
        let rules = self.rules.read().clone();
        self.limited(from, user)?;
        match self.by_password(&rules, &credentials, user).await? {
            Some(_) => {
                self.attempts.succeeded(from, user);
                Ok(())
            }
            None => {
                self.attempts.failed(from, user);
                Err(Denied::WrongCredentials)
            }
        }
    }

    /// Counts a wrong code, as a wrong password.
    pub fn failed(&self, from: IpAddr) {
        self.attempts.failed(from, "");
    }

    /// Whether somebody from there has to wait.
    ///
    /// # Errors
    /// If so.
    pub fn limited(&self, from: IpAddr, user: &str) -> Result<(), Denied> {
        self.attempts.wait(from, user).map_or(Ok(()), |wait| Err(Denied::Limited { wait }))
    }

    fn open(rules: &Rules, access: &Access<'_>) -> Result<Grant, Denied> {
        let watches =
            rules.open_viewing && access.action == Action::Read && access.subject.stream().is_some();
        if is_loopback(access.address) {
            return Ok(Grant::default());
        }
        if watches {
            let watching: Arc<[Permission]> = [Permission::new([Action::Read])].into();
            return Ok(Grant::limited(None, watching, access.address));
        }
        Err(Denied::NotSetUp)
    }

    /// By a password or an answer to a challenge, of the list or the accounts.
    async fn by_password(
        &self,
        rules: &Rules,
        credentials: &Credentials,
        name: &str,
    ) -> Result<Option<Somebody>, Denied> {
        let some = |permissions: &Arc<[Permission]>| {
            Some(Somebody { name: name.to_owned(), permissions: permissions.clone() })
        };
        let listed = rules.user(name);
        if let Some(ListedUser { user: User { password: Password::Plain(password), .. }, permissions }) =
            listed
        {
            return Ok(credentials.prove(password).then(|| some(permissions)).flatten());
        }
        let Credentials::Password { password, .. } = credentials else {
            // A digest of a name that does not exist takes as long as a wrong one.
            let _ = credentials.prove(&Secret::new("nobody's"));
            return Ok(None);
        };
        let held = self.accounts.as_ref().and_then(|accounts| accounts.held_user(name));
        let hash = match (listed, &held) {
            (Some(ListedUser { user: User { password: Password::Hash(hash), .. }, .. }), _) => Some(hash),
            (_, Some(held)) => Some(&held.hash),
            _ => None,
        };
        if hash.is_none() && !self.has_hashes(rules) {
            let _ = credentials.prove(&Secret::new("nobody's"));
            return Ok(None);
        }
        let busy =
            || Denied::Unavailable { problem: "too many passwords are being looked at; try again".into() };
        if !self.verifier.verify(hash, password).await.ok_or_else(busy)? {
            return Ok(None);
        }
        Ok(match (listed, &held) {
            (Some(listed), _) => some(&listed.permissions),
            (None, Some(held)) if !held.account.disabled => some(&held.permissions),
            _ => None,
        })
    }

    fn has_hashes(&self, rules: &Rules) -> bool {
        self.accounts.as_ref().is_some_and(|accounts| !accounts.is_empty())
            || rules.users.iter().any(|listed| matches!(listed.user.password, Password::Hash(_)))
    }

    /// By a token: one of ours, or a JWT.
    async fn by_token(&self, rules: &Rules, token: &Secret) -> Result<Option<Somebody>, Denied> {
        let of_listed = |name: &str| rules.user(name).map(|listed| listed.permissions.clone());
        if let Some(TokenOwner { name, permissions }) =
            self.accounts.as_ref().and_then(|accounts| accounts.token(token, of_listed))
        {
            return Ok(Some(Somebody { name, permissions }));
        }
        #[cfg(feature = "http")]
        if let Some(jwt) = rules.jwt.as_ref().filter(|_| super::jwt::JwtVerifier::is_meant(token.reveal())) {
            use super::jwt::JwtError;
            return match jwt.verify(token.reveal()).await {
                Ok(owner) => Ok(Some(Somebody { name: owner.user, permissions: owner.permissions })),
                Err(error @ JwtError::Refused(_)) => {
                    tracing::debug!(%error, "a token is refused");
                    Ok(None)
                }
                Err(error @ JwtError::NoKeys(_)) => Err(Denied::Unavailable { problem: error.to_string() }),
            };
        }
        Ok(None)
    }

    /// Who it is, if they have shown anything that is known here.
    async fn who(&self, rules: &Rules, credentials: &Credentials) -> Result<Option<Somebody>, Denied> {
        match credentials {
            Credentials::None => Ok(None),
            Credentials::Token(token) => self.by_token(rules, token).await,
            Credentials::Password { user, password } => {
                // Many clients know names and passwords only: a token may be the password, with any name. It is tried first, since
                // that costs nothing.
                if is_token(password)
                    && let Some(somebody) = self.by_token(rules, password).await?
                {
                    return Ok(Some(somebody));
                }
                self.by_password(rules, credentials, user).await
            }
            Credentials::Digest(answer) => self.by_password(rules, credentials, &answer.user).await,
        }
    }
}

/// Whether a password looks like a token of ours, or like a JWT.
fn is_token(text: &Secret) -> bool {
    #[cfg(feature = "http")]
    if super::jwt::JwtVerifier::is_meant(text.reveal()) {
        return true;
    }
    super::token::Token::parse(text.reveal()).is_some()
}

fn checked_rules(options: &UsersOptions, before: Option<&Rules>) -> Result<Rules, String> {
    let listed =
        |user: &User| ListedUser { permissions: user.permissions.clone().into(), user: user.clone() };
    #[cfg(not(feature = "http"))]
    let _ = before;
    Ok(Rules {
        users: options.users.iter().map(listed).collect(),
        anonymous: options.anonymous.clone().into(),
        open_viewing: options.open_viewing,
        #[cfg(feature = "http")]
        jwt: match &options.jwt {
            None => None,
            Some(new) => match before.and_then(|b| b.jwt.as_ref()).filter(|jwt| jwt.options() == new) {
                Some(same) => Some(same.clone()),
                None => Some(Arc::new(
                    super::jwt::JwtVerifier::new(new.clone()).map_err(|e| format!("auth.jwt.{e}"))?,
                )),
            },
        },
        #[cfg(feature = "http")]
        callback: options.callback.clone().map(|options| Arc::new(super::callback::Callback::new(options))),
    })
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether permissions allow an access.
fn allow(permissions: &[Permission], access: &Access<'_>) -> bool {
    permissions.iter().any(|permission| match access.subject {
        Subject::Stream(id) => permission.allows(access.action, Some(id), access.address),
        Subject::Server => permission.allows(access.action, None, access.address),
        Subject::Streams => permission.allows_some(access.action, access.address),
    })
}

#[async_trait::async_trait]
impl Authorizer for Users {
    async fn authorize(&self, access: &Access<'_>) -> Result<Grant, Denied> {
        let rules = self.rules.read().clone();
        // Signed addresses come first: whoever has one needs nothing else.
        if let (Some(query), Some(stream), Some(accounts)) =
            (access.query, access.subject.stream(), &self.accounts)
            && let Some(signed) = accounts.signer().verify(query, access.action, stream)
        {
            let permission = Permission::new([access.action]).streams(stream.parse::<PathPattern>());
            return Ok(Grant::limited(signed.user, [permission].into(), access.address));
        }
        if self.is_open() {
            return Self::open(&rules, access);
        }
        let in_query;
        let credentials = match (access.credentials, access.query) {
            (Credentials::None, Some(query)) => {
                let token = ["token", "jwt"].iter().find_map(|name| super::signed::parameter(query, name));
                in_query = token.map_or(Credentials::None, |token| Credentials::Token(Secret::new(token)));
                &in_query
            }
            (given, _) => given,
        };
        let name = credentials.user().unwrap_or_default();
        let is_somebody = *credentials != Credentials::None;
        if is_somebody {
            self.limited(access.address, name)?;
        }
        if let Some(somebody) = self.who(&rules, credentials).await? {
            self.attempts.succeeded(access.address, name);
            if !allow(&somebody.permissions, access) && !allow(&rules.anonymous, access) {
                return Err(Denied::Forbidden { user: somebody.name, action: access.action });
            }
            let permissions: Vec<Permission> = [&somebody.permissions, &rules.anonymous]
                .into_iter()
                .flat_map(|p| p.iter().cloned())
                .collect();
            return Ok(Grant::limited(Some(somebody.name), permissions.into(), access.address));
        }
        if !is_somebody && allow(&rules.anonymous, access) {
            return Ok(Grant::limited(None, rules.anonymous.clone(), access.address));
        }
        #[cfg(feature = "http")]
        if let Some(callback) = &rules.callback {
            let access = Access { credentials, ..access.clone() };
            let answer = callback.ask(&access).await;
            match &answer {
                Err(Denied::WrongCredentials) => self.attempts.failed(access.address, name),
                Ok(_) if is_somebody => self.attempts.succeeded(access.address, name),
                _ => {}
            }
            return answer;
        }
        if !is_somebody {
            return Err(Denied::Anonymous);
        }
        self.attempts.failed(access.address, name);
        Err(Denied::WrongCredentials)
    }

    fn takes_digest(&self) -> bool {
        let rules = self.rules.read().clone();
        #[cfg(feature = "http")]
        if rules.jwt.is_some() || rules.callback.is_some() {
            return false;
        }
        !self.has_hashes(&rules)
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("users", &self.rules.read().users.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NewAccount, NewToken, Role, SignedAddress};
    use super::*;
    use crate::frame::WallTime;

    async fn ask(
        users: &Users,
        action: Action,
        subject: Subject<'_>,
        from: &str,
        credentials: Credentials,
    ) -> Result<Grant, Denied> {
        with_query(users, action, subject, from, credentials, None).await
    }

    async fn with_query(
        users: &Users,
        action: Action,
        subject: Subject<'_>,
        from: &str,
        credentials: Credentials,
        query: Option<&str>,
    ) -> Result<Grant, Denied> {
        let access = Access {
            action,
            subject,
            address: from.parse().unwrap(),
            protocol: "rtsp",
            query,
            user_agent: None,
            credentials: &credentials,
        };
        users.authorize(&access).await
    }

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap()
    }

    const FROM: &str = "192.0.2.1";
    const A: Subject<'_> = Subject::Stream("a");

    #[tokio::test]
    async fn before_the_first_user_watching_is_open_and_the_rest_local() {
        let users = Users::new([]);
        assert!(users.is_open());
        let grant = ask(&users, Action::Read, A, FROM, Credentials::None).await.unwrap();
        assert!(grant.may(Action::Read, Some("b")) && !grant.may(Action::ApiRead, Some("a")));
        for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            for action in Action::ALL {
                for subject in [A, Subject::Server, Subject::Streams] {
                    let grant = ask(&users, action, subject, local, Credentials::None).await.unwrap();
                    assert!(grant.may_all(Action::Admin));
                }
            }
        }
        for action in Action::ALL.into_iter().filter(|a| *a != Action::Read) {
            for subject in [A, Subject::Server, Subject::Streams] {
                let denied = ask(&users, action, subject, FROM, Credentials::None).await;
                assert_eq!(denied, Err(Denied::NotSetUp), "{action} {subject:?}");
            }
        }
        users.replace(&UsersOptions { open_viewing: false, ..UsersOptions::default() }).unwrap();
        assert_eq!(ask(&users, Action::Read, A, FROM, Credentials::None).await, Err(Denied::NotSetUp));
    }

    #[tokio::test]
    async fn users_may_what_the_list_says() {
        let users = Users::new([
            User::new("viewer", Secret::new("v")).read([pattern("*")]),
            User::new("camera", Secret::new("c")).publish([pattern("cam/*")]),
        ]);
        let as_user = Credentials::password;
        let x = Subject::Stream("x");
        assert_eq!(ask(&users, Action::Read, x, FROM, Credentials::None).await, Err(Denied::Anonymous));
        // Not even from here.
        assert_eq!(
            ask(&users, Action::Read, x, "127.0.0.1", Credentials::None).await,
            Err(Denied::Anonymous)
        );
        let grant = ask(&users, Action::Read, x, FROM, as_user("viewer", "v")).await.unwrap();
        assert_eq!(grant.user.as_deref(), Some("viewer"));
        let cam = Subject::Stream("cam/1");
        assert!(ask(&users, Action::Publish, cam, FROM, as_user("camera", "c")).await.is_ok());
        for (action, subject, user, password) in [
            (Action::Publish, x, "camera", "c"),
            (Action::Publish, cam, "viewer", "v"),
            (Action::Read, x, "camera", "c"),
            (Action::ApiRead, Subject::Streams, "viewer", "v"),
            (Action::Admin, Subject::Server, "viewer", "v"),
        ] {
            let denied = ask(&users, action, subject, FROM, as_user(user, password)).await;
            assert!(matches!(denied, Err(Denied::Forbidden { .. })), "{denied:?}");
        }
        for _ in 0..ALLOWED_FAILURES {
            let denied = ask(&users, Action::Read, x, FROM, as_user("viewer", "w")).await;
            assert_eq!(denied, Err(Denied::WrongCredentials));
        }
        let denied = ask(&users, Action::Read, x, FROM, as_user("viewer", "v")).await;
        assert!(matches!(denied, Err(Denied::Limited { .. })), "{denied:?}");
        assert!(ask(&users, Action::Read, x, "192.0.2.2", as_user("viewer", "v")).await.is_ok());
        assert!(users.takes_digest());
    }

    #[tokio::test]
    async fn accounts_tokens_anonymous_and_signed_addresses() {
        let accounts = Arc::new(Accounts::in_memory().unwrap());
        let anonymous = vec![Permission::new([Action::Read]).streams([pattern("public")])];
        let options = UsersOptions {
            users: vec![User::new("old", Secret::new("o")).read([pattern("a")])],
            anonymous,
            ..UsersOptions::default()
        };
        let users = Users::with(&options, Some(accounts.clone())).unwrap();
        assert!(users.takes_digest());
        let hash = PasswordHash::of(&Secret::new("geheim")).unwrap();
        let permissions = vec![Role::Viewer.permission(vec![pattern("yard/*")])];
        accounts.add_user(&NewAccount { name: "ann".into(), hash, permissions }).unwrap();
        assert!(!users.takes_digest(), "of a hash no answer to a challenge can be proved");
        let door = Subject::Stream("yard/door");
        let as_ann = || Credentials::password("ann", "geheim");
        let grant = ask(&users, Action::ApiRead, Subject::Streams, FROM, as_ann()).await.unwrap();
        assert!(grant.may(Action::ApiRead, Some("yard/door")) && !grant.may(Action::ApiRead, Some("a")));
        assert!(grant.may(Action::Read, Some("public")) && !grant.may_all(Action::ApiRead));
        assert!(ask(&users, Action::ApiRead, Subject::Server, FROM, as_ann()).await.is_err());
        assert!(ask(&users, Action::Read, Subject::Stream("public"), FROM, Credentials::None).await.is_ok());
        assert_eq!(ask(&users, Action::Read, door, FROM, Credentials::None).await, Err(Denied::Anonymous));
        // A token: as bearer, as password of whatever name, in the query.
        let new = NewToken {
            name: "t".into(),
            user: Some("ann".into()),
            permissions: None,
            expires: None,
            session: false,
        };
        let (info, token) = accounts.add_token(&new).unwrap();
        let shown = token.reveal().to_owned();
        for credentials in [Credentials::Token(token.clone()), Credentials::password("x", &shown)] {
            let grant = ask(&users, Action::Read, door, FROM, credentials).await.unwrap();
            assert_eq!(grant.user.as_deref(), Some("ann"));
        }
        let query = format!("x=1&token={shown}");
        assert!(with_query(&users, Action::Read, door, FROM, Credentials::None, Some(&query)).await.is_ok());
        let wrong = Some("token=smt_1_2");
        let denied = with_query(&users, Action::Read, door, FROM, Credentials::None, wrong).await;
        assert_eq!(denied, Err(Denied::WrongCredentials));
        accounts.remove_token(&info.id).unwrap();
        let denied = ask(&users, Action::Read, door, FROM, Credentials::Token(token)).await;
        assert_eq!(denied, Err(Denied::WrongCredentials));
        // A signed address is good for one thing.
        let expires = WallTime::now() + Duration::from_secs(60);
        let address = SignedAddress {
            action: Action::Read,
            stream: "yard/door".into(),
            expires,
            user: Some("ann".into()),
        };
        let query = accounts.signer().sign(&address).unwrap();
        let signed =
            |action, subject| with_query(&users, action, subject, FROM, Credentials::None, Some(&query));
        let grant = signed(Action::Read, door).await.unwrap();
        assert!(grant.user.as_deref() == Some("ann") && !grant.may(Action::Read, Some("a")));
        assert!(signed(Action::Playback, door).await.is_err() && signed(Action::Read, A).await.is_err());
        // Somebody who is disabled is nobody.
        let other = PasswordHash::of(&Secret::new("x")).unwrap();
        let permissions = vec![Role::Admin.permission(vec![])];
        accounts.add_user(&NewAccount { name: "root".into(), hash: other, permissions }).unwrap();
        accounts.change_user("ann", None, None, Some(true)).unwrap();
        assert_eq!(ask(&users, Action::Read, door, FROM, as_ann()).await, Err(Denied::WrongCredentials));
    }
}
