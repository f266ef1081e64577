//! The authorizer that the server has: users and tokens of its own, JWT, and a callback, in that order.

mod options;

use super::accounts::TokenOwner;
use super::password::Verifier;
use super::{
    Access, Accounts, Action, Attempts, Authorizer, Credentials, Denied, Grant, PathPattern, Permission,
    Secret, Subject,
};
use parking_lot::RwLock;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use options::Password;
pub use options::{User, UsersOptions};

/// Failures that an address may make within [`WINDOW`].
const ALLOWED_FAILURES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

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
mod tests;
