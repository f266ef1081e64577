//! Users and tokens as others see them, and what can be wrong with them.

use super::VERSION;
use crate::auth::{Action, PasswordHash, Permission};
use crate::frame::WallTime;
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

/// Why users and tokens could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The database refuses.
    #[error("the database of users {path}: {problem}")]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// It was written by a newer version of the program.
    #[error(
        "the database of users {path} has version {found}; this program knows {VERSION} at most. Use a newer version"
    )]
    TooNew {
        /// Its file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// There is one of this name already.
    #[error("there is a user \"{0}\" already")]
    Exists(String),
    /// There is none.
    #[error("there is no {what} \"{name}\"")]
    NotFound {
        /// A user or a token.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// Something about it is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// What.
        field: &'static str,
        /// How, and what would be right.
        problem: String,
    },
    /// Nobody would be left who could change anything.
    #[error("\"{0}\" is the last user who may do everything; make another one first")]
    LastAdmin(String),
}

/// A user as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Account {
    /// The name.
    pub name: String,
    /// What the user may.
    pub permissions: Vec<Permission>,
    /// Whether the user may do nothing at the moment.
    pub disabled: bool,
    /// When it was made.
    pub created: WallTime,
    /// When it was changed last.
    pub changed: WallTime,
}

/// A user to be made.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The name: 1 to 64 characters, no `:`.
    pub name: String,
    /// The password's hash.
    pub hash: PasswordHash,
    /// What the user may.
    pub permissions: Vec<Permission>,
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What it is for, in words.
    pub name: String,
    /// Whose it is; with the user it ends.
    pub user: Option<String>,
    /// What it may; what its user may if not given.
    pub permissions: Option<Vec<Permission>>,
    /// Until when it is good; for ever if not given.
    pub expires: Option<WallTime>,
    /// Whether it is a browser's session.
    pub session: bool,
}

/// A token as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenInfo {
    /// What it is called.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Whose it is; none if it stands for itself.
    pub user: Option<String>,
    /// What it may; none if it may what its user may.
    pub permissions: Option<Vec<Permission>>,
    /// When it was made.
    pub created: WallTime,
    /// Until when it is good; none for ever.
    pub expires: Option<WallTime>,
    /// When it was used last, to the minute; none if never.
    pub used: Option<WallTime>,
    /// Whether it is a browser's session.
    pub session: bool,
}

pub(super) fn invalid(field: &'static str, problem: impl Into<String>) -> AccountError {
    AccountError::Invalid { field, problem: problem.into() }
}

pub(super) fn check_name(field: &'static str, name: &str) -> Result<(), AccountError> {
    let length = name.chars().count();
    if !(1..=64).contains(&length)
        || name.contains(':')
        || name.chars().any(char::is_control)
        || name.trim() != name
    {
        let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
        return Err(invalid(field, format!("it is \"{shown}\"; expected 1 to 64 characters without \":\"")));
    }
    Ok(())
}

pub(super) fn check_permissions(permissions: &[Permission]) -> Result<(), AccountError> {
    if permissions.len() > 100
        || permissions.iter().any(|p| p.streams.len() > 1000 || p.addresses.len() > 1000)
    {
        return Err(invalid(
            "permissions",
            "there are too many; expected 100 at most, with 1000 streams each",
        ));
    }
    Ok(())
}

pub(super) fn is_admin(permissions: &[Permission]) -> bool {
    permissions.iter().any(|p| p.actions.contains(&Action::Admin) && p.addresses.is_empty())
}
