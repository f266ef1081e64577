//! Users, API tokens, the key of signed addresses and the audit log, in a small SQLite database of its own: `accounts.db` in
//! the data folder, readable by its owner only.
//!
//! What decides is held in memory and asked without a lock on the database. Another process (`stream-manager user add`) may
//! write beside a running server, which sees it by [`Accounts::refresh`]. All calls that write block.

mod audit;
mod database;
mod records;
#[cfg(test)]
mod tests;
mod tokens;

use super::{PasswordHash, Permission, Signer};
use crate::frame::WallTime;
use crate::storage::private::make_private;
use database::{Held, HeldUser, Problem, SCHEMA, is_last_admin, json, read, signer, version};
use parking_lot::{Mutex, RwLock};
use records::{check_name, check_permissions, invalid, is_admin};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use audit::{AuditEntry, AuditFilter};
pub(crate) use database::VERSION;
pub use records::{Account, AccountError, NewAccount, NewToken, TokenInfo};
pub(super) use tokens::TokenOwner;

/// The database's file name in the data folder.
pub const ACCOUNTS_FILE: &str = "accounts.db";
/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Users and tokens, at most.
const MAX_ENTRIES: usize = 10_000;

/// The database, and what decides in memory.
#[derive(Debug)]
pub struct Accounts {
    connection: Mutex<Connection>,
    path: PathBuf,
    held: RwLock<Arc<Held>>,
    signer: Signer,
    used: Mutex<HashMap<String, WallTime>>,
}

impl Accounts {
    /// Opens the database of a data folder, making it if need be.
    ///
    /// # Errors
    /// If the folder cannot be written to, or the database is damaged or from a newer version.
    pub fn open(data_dir: &Path) -> Result<Self, AccountError> {
        let path = data_dir.join(ACCOUNTS_FILE);
        let failed =
            |e: rusqlite::Error| AccountError::Database { path: path.clone(), problem: e.to_string() };
        let unreadable =
            |e: std::io::Error| AccountError::Database { path: path.clone(), problem: e.to_string() };
        std::fs::create_dir_all(data_dir).and_then(|()| make_private(&path)).map_err(unreadable)?;
        let connection = Connection::open(&path).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(failed)?;
        if found > VERSION {
            return Err(AccountError::TooNew { path, found });
        }
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        connection.pragma_update(None, "cache_size", -256).map_err(failed)?;
        if found == 0 {
            let made = connection.execute_batch(&format!("BEGIN IMMEDIATE;{SCHEMA}COMMIT;"));
            // Another process may have been first.
            if let Err(error) = made {
                let _ = connection.execute_batch("ROLLBACK;");
                let found: i64 =
                    connection.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(failed)?;
                if found != VERSION {
                    return Err(failed(error));
                }
            }
        }
        let signer = signer(&connection).map_err(failed)?;
        let held = read(&connection).map_err(failed)?;
        let (connection, held) = (Mutex::new(connection), RwLock::new(Arc::new(held)));
        Ok(Self { connection, path, held, signer, used: Mutex::default() })
    }

    /// Nobody's, in memory.
    ///
    /// # Errors
    /// If SQLite cannot be used at all.
    pub fn in_memory() -> Result<Self, AccountError> {
        let path = PathBuf::from(":memory:");
        let failed =
            |e: rusqlite::Error| AccountError::Database { path: path.clone(), problem: e.to_string() };
        let connection = Connection::open_in_memory().map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        let signer = signer(&connection).map_err(failed)?;
        Ok(Self {
            connection: Mutex::new(connection),
            path,
            held: RwLock::default(),
            signer,
            used: Mutex::default(),
        })
    }

    /// Signs addresses.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    fn failed(&self, error: &rusqlite::Error) -> AccountError {
        AccountError::Database { path: self.path.clone(), problem: error.to_string() }
    }

    /// Takes over what another process has written. Costs microseconds if that is nothing.
    ///
    /// # Errors
    /// If the database cannot be read; what was known before stays.
    pub fn refresh(&self) -> Result<bool, AccountError> {
        let connection = self.connection.lock();
        let version = version(&connection).map_err(|e| self.failed(&e))?;
        if version == self.held.read().version {
            return Ok(false);
        }
        self.take(&connection)?;
        Ok(true)
    }

    fn take(&self, connection: &Connection) -> Result<(), AccountError> {
        let held = read(connection).map_err(|e| self.failed(&e))?;
        *self.held.write() = Arc::new(held);
        Ok(())
    }

    /// Changes something, all or nothing, and takes it over.
    fn change<T>(
        &self,
        change: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, Problem>,
    ) -> Result<T, AccountError> {
        let mut connection = self.connection.lock();
        let run = || -> Result<T, Problem> {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        match run() {
            Ok(result) => {
                self.take(&connection)?;
                Ok(result)
            }
            Err(Problem::Account(error)) => Err(error),
            Err(Problem::Sql(error)) => Err(self.failed(&error)),
        }
    }

    /// All users, by name.
    pub fn users(&self) -> Vec<Account> {
        let held = self.held.read().clone();
        let mut users: Vec<Account> = held.users.values().map(|user| user.account.clone()).collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<Account> {
        self.held.read().users.get(name).map(|user| user.account.clone())
    }

    pub(super) fn held_user(&self, name: &str) -> Option<HeldUser> {
        self.held.read().users.get(name).cloned()
    }

    /// Whether there is no user and no token.
    pub fn is_empty(&self) -> bool {
        let held = self.held.read();
        held.users.is_empty() && held.tokens.is_empty()
    }

    /// Makes a user.
    ///
    /// # Errors
    /// If there is one of this name, or the name or permissions are wrong.
    pub fn add_user(&self, new: &NewAccount) -> Result<Account, AccountError> {
        self.insert(new, false)
    }

    /// Makes the first user: of several who try at once, one succeeds.
    ///
    /// # Errors
    /// If there is a user already, or the name or permissions are wrong.
    pub fn add_first_user(&self, new: &NewAccount) -> Result<Account, AccountError> {
        self.insert(new, true)
    }

    fn insert(&self, new: &NewAccount, first: bool) -> Result<Account, AccountError> {
        check_name("name", &new.name)?;
        check_permissions(&new.permissions)?;
        if self.held.read().users.len() >= MAX_ENTRIES {
            return Err(invalid("name", format!("there are {MAX_ENTRIES} users already")));
        }
        let now = WallTime::now();
        self.change(|transaction| {
            if first {
                let other = transaction
                    .query_row("SELECT name FROM users LIMIT 1", [], |row| row.get::<_, String>(0))
                    .optional()?;
                if let Some(other) = other {
                    return Err(AccountError::Exists(other).into());
                }
            }
            let made = transaction.execute(
                "INSERT INTO users VALUES (?1, ?2, ?3, 0, ?4, ?4) ON CONFLICT DO NOTHING",
                params![new.name, new.hash.as_str(), json(&new.permissions), now.as_unix_nanos()],
            )?;
            if made == 0 { Err(AccountError::Exists(new.name.clone()).into()) } else { Ok(()) }
        })?;
        let (name, permissions) = (new.name.clone(), new.permissions.clone());
        Ok(Account { name, permissions, disabled: false, created: now, changed: now })
    }

    /// Changes a user: what is given. Another password or `disabled` ends the user's browser sessions.
    ///
    /// # Errors
    /// If there is none, what is given is wrong, or nobody would be left who may do everything.
    pub fn change_user(
        &self,
        name: &str,
        hash: Option<&PasswordHash>,
        permissions: Option<&[Permission]>,
        disabled: Option<bool>,
    ) -> Result<Account, AccountError> {
        if let Some(permissions) = permissions {
            check_permissions(permissions)?;
        }
        let now = WallTime::now();
        let loses = disabled == Some(true) || permissions.is_some_and(|p| !is_admin(p));
        self.change(|transaction| {
            // By what is written, which another process may have changed since.
            if loses && is_last_admin(&read(transaction)?, name) {
                return Err(AccountError::LastAdmin(name.to_owned()).into());
            }
            let changed = transaction.execute(
                "UPDATE users SET hash = COALESCE(?2, hash), permissions = COALESCE(?3, permissions),
                 disabled = COALESCE(?4, disabled), changed = ?5 WHERE name = ?1",
                params![
                    name,
                    hash.map(PasswordHash::as_str),
                    permissions.map(json),
                    disabled,
                    now.as_unix_nanos()
                ],
            )?;
            if changed == 0 {
                return Err(AccountError::NotFound { what: "user", name: name.to_owned() }.into());
            }
            if hash.is_some() || disabled == Some(true) {
                transaction.execute("DELETE FROM tokens WHERE user = ?1 AND session = 1", [name])?;
            }
            Ok(())
        })?;
        self.user(name).ok_or_else(|| AccountError::NotFound { what: "user", name: name.to_owned() })
    }

    /// Takes a user away, with the user's tokens.
    ///
    /// # Errors
    /// If there is none, or nobody would be left who may do everything.
    pub fn remove_user(&self, name: &str) -> Result<(), AccountError> {
        self.change(|transaction| {
            let written = read(transaction)?;
            // The very last one of all may go: then everything is as it was before the first.
            if written.users.len() > 1 && is_last_admin(&written, name) {
                return Err(AccountError::LastAdmin(name.to_owned()).into());
            }
            if transaction.execute("DELETE FROM users WHERE name = ?1", [name])? == 0 {
                return Err(AccountError::NotFound { what: "user", name: name.to_owned() }.into());
            }
            transaction.execute("DELETE FROM tokens WHERE user = ?1", [name])?;
            Ok(())
        })
    }
}
