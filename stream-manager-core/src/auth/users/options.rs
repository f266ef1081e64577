//! Users of the configuration, and what holds beside the accounts.

use crate::auth::{Action, PasswordHash, PathPattern, Permission, Secret};

/// What a user proves who they are with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Password {
    Plain(Secret),
    Hash(PasswordHash),
}

/// Somebody who may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub(super) name: String,
    pub(super) password: Password,
    pub(super) permissions: Vec<Permission>,
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
    pub jwt: Option<crate::auth::jwt::JwtOptions>,
    /// Somebody who is asked.
    #[cfg(feature = "http")]
    pub callback: Option<crate::auth::callback::CallbackOptions>,
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
