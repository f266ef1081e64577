//! The tables, and how all that decides is read from them.

use super::records::{Account, AccountError, TokenInfo, is_admin};
use crate::auth::{PasswordHash, Permission, Signer, random};
use crate::frame::WallTime;
use base64::Engine as _;
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::HashMap;
use std::sync::Arc;

/// The newest version that is known.
pub(crate) const VERSION: i64 = 1;

pub(super) const SCHEMA: &str = "
CREATE TABLE users (
  name TEXT PRIMARY KEY,
  hash TEXT NOT NULL,
  permissions TEXT NOT NULL,
  disabled INTEGER NOT NULL,
  created INTEGER NOT NULL,
  changed INTEGER NOT NULL
) WITHOUT ROWID;
-- Without permissions of their own, tokens have those of their user.
CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  hash TEXT NOT NULL,
  name TEXT NOT NULL,
  user TEXT,
  session INTEGER NOT NULL,
  permissions TEXT,
  created INTEGER NOT NULL,
  expires INTEGER,
  used INTEGER
) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE audit (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  time INTEGER NOT NULL,
  user TEXT,
  address TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  status INTEGER NOT NULL,
  detail TEXT
);
PRAGMA user_version = 1;
";

/// What is held of a user.
#[derive(Clone, Debug)]
pub(in crate::auth) struct HeldUser {
    pub(in crate::auth) hash: PasswordHash,
    pub(in crate::auth) permissions: Arc<[Permission]>,
    pub(in crate::auth) account: Account,
}

#[derive(Debug)]
pub(super) struct HeldToken {
    pub(super) hash: String,
    pub(super) permissions: Option<Arc<[Permission]>>,
    pub(super) info: TokenInfo,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) users: HashMap<String, HeldUser>,
    pub(super) tokens: HashMap<String, HeldToken>,
    pub(super) version: i64,
}

/// Why a transaction was not made.
pub(super) enum Problem {
    Sql(rusqlite::Error),
    Account(AccountError),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        Self::Account(error)
    }
}

pub(super) fn json(permissions: &[Permission]) -> String {
    serde_json::to_string(permissions).unwrap_or_else(|_| "[]".into())
}

pub(super) fn is_last_admin(held: &Held, name: &str) -> bool {
    let is_admin = |user: &HeldUser| is_admin(&user.permissions) && !user.account.disabled;
    held.users.get(name).is_some_and(is_admin)
        && !held.users.values().any(|user| user.account.name != name && is_admin(user))
}

pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    // Goes up when another connection has written.
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

pub(super) fn signer(connection: &Connection) -> rusqlite::Result<Signer> {
    let engine = &base64::engine::general_purpose::STANDARD;
    let fresh: [u8; 32] = random();
    connection.execute(
        "INSERT INTO meta VALUES ('signing_key', ?1) ON CONFLICT DO NOTHING",
        [engine.encode(fresh)],
    )?;
    let text: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE key = 'signing_key'", [], |row| row.get(0))
        .optional()?;
    let key =
        text.and_then(|text| engine.decode(text).ok()).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    Ok(Signer::new(key.unwrap_or(fresh)))
}

fn permissions_of(text: &str, of: &str) -> Vec<Permission> {
    serde_json::from_str(text).unwrap_or_else(|error| {
        // Those of a newer version, perhaps. Nothing is the safe answer.
        tracing::error!(%error, of, "permissions cannot be read; none are given");
        Vec::new()
    })
}

pub(super) fn read(connection: &Connection) -> rusqlite::Result<Held> {
    let version = version(connection)?;
    let mut held = Held { version, ..Held::default() };
    let time = WallTime::from_unix_nanos;
    let mut statement =
        connection.prepare("SELECT name, hash, permissions, disabled, created, changed FROM users")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, hash, permissions): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let hash = match hash.parse::<PasswordHash>() {
            Ok(hash) => hash,
            Err(error) => {
                tracing::error!(user = name, %error, "a user's password hash cannot be used; the user is left out");
                continue;
            }
        };
        let permissions = permissions_of(&permissions, &name);
        let account = Account {
            name: name.clone(),
            permissions: permissions.clone(),
            disabled: row.get(3)?,
            created: time(row.get(4)?),
            changed: time(row.get(5)?),
        };
        held.users.insert(name, HeldUser { hash, permissions: permissions.into(), account });
    }
    let mut statement = connection
        .prepare("SELECT id, hash, name, user, session, permissions, created, expires, used FROM tokens")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let permissions: Option<String> = row.get(5)?;
        let permissions = permissions.map(|text| permissions_of(&text, &id));
        let info = TokenInfo {
            id: id.clone(),
            name: row.get(2)?,
            user: row.get(3)?,
            permissions: permissions.clone(),
            created: time(row.get(6)?),
            expires: row.get::<_, Option<i64>>(7)?.map(time),
            used: row.get::<_, Option<i64>>(8)?.map(time),
            session: row.get(4)?,
        };
        let token = HeldToken { hash: row.get(1)?, permissions: permissions.map(Into::into), info };
        held.tokens.insert(id, token);
    }
    Ok(held)
}
