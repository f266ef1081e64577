//! Who may do what: one [`Authorizer`] for every protocol.
//!
//! A protocol brings an [`Access`]: what somebody wants to do with what, from where, and the credentials as the protocol
//! carries them. The authorizer answers with a [`Grant`] or with the reason why not. [`Users`] is the one that the server has:
//! users of the configuration and of the [`Accounts`] (passwords as Argon2id hashes, API tokens, signed addresses), JWT and a
//! callback by HTTP. What each may is a list of [`Permission`]s. A library user may bring another authorizer.

mod access;
mod accounts;
#[cfg(feature = "http")]
pub mod callback;
#[cfg(any(feature = "onvif", feature = "rtsp"))]
pub(crate) mod challenge;
pub mod digest;
#[cfg(feature = "http")]
pub mod jwt;
mod limit;
mod password;
mod permission;
mod secret;
mod setup;
mod signed;
mod token;
mod users;

pub use access::{Access, Action, Authorizer, Credentials, Denied, Grant, Subject};
pub(crate) use accounts::VERSION as ACCOUNTS_VERSION;
pub use accounts::{
    ACCOUNTS_FILE, Account, AccountError, Accounts, AuditEntry, AuditFilter, NewAccount, NewToken, TokenInfo,
};
pub use digest::{DigestAlgorithm, DigestAnswer};
pub use limit::Attempts;
pub use password::{HashError, PasswordHash};
pub use permission::{Network, PathPattern, Permission, Role};
pub use secret::Secret;
pub(crate) use secret::{equal, random, random_text, unpredictable};
pub use setup::SetupCode;
pub use signed::{SignedAddress, Signer};
pub use users::{User, Users, UsersOptions};
