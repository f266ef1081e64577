//! Users, API tokens, the key of signed addresses and the audit log, in a small SQLite database of its own: `accounts.db` in
//! the data folder, readable by its owner only.
//!
//! What decides is held in memory and asked without a lock on the database. Another process (`stream-manager user add`) may
//! write beside a running server, which sees it by [`Accounts::refresh`]. All calls that write block.

use super::token::Token;
use super::{PasswordHash, Permission, Secret, Signer, random};
use crate::frame::WallTime;
use crate::storage::private::make_private;
use base64::Engine as _;
use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OptionalExtension as _, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The database's file name in the data folder.
pub const ACCOUNTS_FILE: &str = "accounts.db";
/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Rows that the audit log keeps.
const KEPT_AUDIT: i64 = 50_000;
/// Users and tokens, at most.
const MAX_ENTRIES: usize = 10_000;
/// When a token was used last is written so often.
const USED_EVERY: Duration = Duration::from_secs(60);
/// The newest version that is known.
pub(crate) const VERSION: i64 = 1;

const SCHEMA: &str = "
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

/// A change that somebody has made or tried to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Goes up; none has been used before.
    #[serde(default)]
    pub number: u64,
    /// When.
    pub time: WallTime,
    /// Who; none is nobody in particular.
    pub user: Option<String>,
    /// From where.
    pub address: String,
    /// What: a method and an operation.
    pub action: String,
    /// With what: the path that was asked for, or a name.
    pub target: String,
    /// What came of it: a status of HTTP.
    pub status: u16,
    /// More about it, without secrets.
    pub detail: Option<String>,
}

/// Which entries of the audit log.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Of this user.
    pub user: Option<String>,
    /// Older than this number.
    pub before: Option<u64>,
    /// So many at most.
    pub limit: usize,
}

/// What is held of a user.
#[derive(Clone, Debug)]
pub(super) struct HeldUser {
    pub(super) hash: PasswordHash,
    pub(super) permissions: Arc<[Permission]>,
    pub(super) account: Account,
}

#[derive(Debug)]
struct HeldToken {
    hash: String,
    permissions: Option<Arc<[Permission]>>,
    info: TokenInfo,
}

#[derive(Debug, Default)]
struct Held {
    users: HashMap<String, HeldUser>,
    tokens: HashMap<String, HeldToken>,
    version: i64,
}

/// Who somebody is that has shown a token.
pub(super) struct TokenOwner {
    pub(super) name: String,
    pub(super) permissions: Arc<[Permission]>,
}

/// The database, and what decides in memory.
#[derive(Debug)]
pub struct Accounts {
    connection: Mutex<Connection>,
    path: PathBuf,
    held: RwLock<Arc<Held>>,
    signer: Signer,
    used: Mutex<HashMap<String, WallTime>>,
}

fn invalid(field: &'static str, problem: impl Into<String>) -> AccountError {
    AccountError::Invalid { field, problem: problem.into() }
}

fn check_name(field: &'static str, name: &str) -> Result<(), AccountError> {
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

fn check_permissions(permissions: &[Permission]) -> Result<(), AccountError> {
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

fn is_admin(permissions: &[Permission]) -> bool {
    permissions.iter().any(|p| p.actions.contains(&super::Action::Admin) && p.addresses.is_empty())
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
        let held = self.held.read().clone();
        let now = WallTime::now();
        let loses = disabled == Some(true) || permissions.is_some_and(|p| !is_admin(p));
        if loses && is_last_admin(&held, name) {
            return Err(AccountError::LastAdmin(name.to_owned()));
        }
        self.change(|transaction| {
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
        let held = self.held.read().clone();
        // The very last one of all may go: then everything is as it was before the first.
        if held.users.len() > 1 && is_last_admin(&held, name) {
            return Err(AccountError::LastAdmin(name.to_owned()));
        }
        self.change(|transaction| {
            if transaction.execute("DELETE FROM users WHERE name = ?1", [name])? == 0 {
                return Err(AccountError::NotFound { what: "user", name: name.to_owned() }.into());
            }
            transaction.execute("DELETE FROM tokens WHERE user = ?1", [name])?;
            Ok(())
        })
    }

    /// Makes a token. Its text is given this once and kept nowhere.
    ///
    /// # Errors
    /// If the name is wrong, or the user does not exist.
    pub fn add_token(&self, new: &NewToken) -> Result<(TokenInfo, Secret), AccountError> {
        check_name("name", &new.name)?;
        check_permissions(new.permissions.as_deref().unwrap_or_default())?;
        if new.user.is_none() && new.permissions.is_none() {
            return Err(invalid("permissions", "a token of no user needs permissions of its own"));
        }
        let now = WallTime::now();
        if new.expires.is_some_and(|expires| expires <= now) {
            return Err(invalid("expires", "it is in the past"));
        }
        let token = Token::new();
        self.change(|transaction| {
            transaction.execute("DELETE FROM tokens WHERE expires < ?1", [now.as_unix_nanos()])?;
            let count: i64 = transaction.query_row("SELECT COUNT(*) FROM tokens", [], |row| row.get(0))?;
            if count >= MAX_ENTRIES as i64 {
                // Sessions come by themselves and must not stand in anybody's way.
                let oldest = "DELETE FROM tokens WHERE id = (SELECT id FROM tokens WHERE session = 1 ORDER BY created LIMIT 1)";
                if transaction.execute(oldest, [])? == 0 {
                    return Err(invalid("name", format!("there are {MAX_ENTRIES} tokens already")).into());
                }
            }
            transaction.execute(
                "INSERT INTO tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)",
                params![
                    token.id,
                    token.hash(),
                    new.name,
                    new.user,
                    new.session,
                    new.permissions.as_deref().map(json),
                    now.as_unix_nanos(),
                    new.expires.map(|expires| expires.as_unix_nanos()),
                ],
            )?;
            Ok(())
        })?;
        let info = TokenInfo {
            id: token.id.clone(),
            name: new.name.clone(),
            user: new.user.clone(),
            permissions: new.permissions.clone(),
            created: now,
            expires: new.expires,
            used: None,
            session: new.session,
        };
        Ok((info, token.text()))
    }

    /// All tokens, newest first.
    pub fn tokens(&self) -> Vec<TokenInfo> {
        let held = self.held.read().clone();
        let used = self.used.lock();
        let with_use = |token: &HeldToken| {
            let mut info = token.info.clone();
            info.used = used.get(&info.id).copied().or(info.used);
            info
        };
        let mut tokens: Vec<TokenInfo> = held.tokens.values().map(with_use).collect();
        tokens.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        tokens
    }

    /// Takes a token away.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove_token(&self, id: &str) -> Result<(), AccountError> {
        self.change(|transaction| {
            if transaction.execute("DELETE FROM tokens WHERE id = ?1", [id])? == 0 {
                return Err(AccountError::NotFound { what: "token", name: id.to_owned() }.into());
            }
            Ok(())
        })
    }

    /// The id of a token by its text, if it is one of ours.
    pub fn token_id(&self, text: &Secret) -> Option<String> {
        let token = Token::parse(text.reveal())?;
        let held = self.held.read().clone();
        let known = held.tokens.get(&token.id).filter(|known| token.verify(&known.hash))?;
        Some(known.info.id.clone())
    }

    /// Whose a token is and what it may, if it is good now. `permissions` gives what users of elsewhere may.
    pub(super) fn token(
        &self,
        text: &Secret,
        permissions: impl FnOnce(&str) -> Option<Arc<[Permission]>>,
    ) -> Option<TokenOwner> {
        let token = Token::parse(text.reveal())?;
        let held = self.held.read().clone();
        let known = held.tokens.get(&token.id).filter(|known| token.verify(&known.hash))?;
        let now = WallTime::now();
        if known.info.expires.is_some_and(|expires| expires <= now) {
            return None;
        }
        let of_user = match &known.info.user {
            None => None,
            Some(name) => Some(match held.users.get(name) {
                Some(user) if user.account.disabled => return None,
                Some(user) => user.permissions.clone(),
                None => permissions(name)?,
            }),
        };
        let permissions = known.permissions.clone().or(of_user)?;
        self.used.lock().insert(token.id, now);
        let name = known.info.user.clone().unwrap_or_else(|| format!("token {}", known.info.name));
        Some(TokenOwner { name, permissions })
    }

    /// Writes down which tokens were used. To be called now and then.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn write_use(&self) -> Result<(), AccountError> {
        let used: Vec<(String, WallTime)> = {
            let held = self.held.read().clone();
            let is_newer = |id: &str, time: WallTime| {
                held.tokens.get(id).is_some_and(|t| {
                    t.info.used.is_none_or(|before| time.saturating_since(before) >= USED_EVERY)
                })
            };
            let used = self.used.lock();
            used.iter()
                .filter(|(id, time)| is_newer(id, **time))
                .map(|(id, time)| (id.clone(), *time))
                .collect()
        };
        if used.is_empty() {
            return Ok(());
        }
        self.change(|transaction| {
            for (id, time) in &used {
                transaction.execute(
                    "UPDATE tokens SET used = ?2 WHERE id = ?1",
                    params![id, time.as_unix_nanos()],
                )?;
            }
            Ok(())
        })
    }

    /// Writes down that somebody has changed something, or tried to.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn audit(&self, entry: &AuditEntry) -> Result<(), AccountError> {
        let connection = self.connection.lock();
        let write = || -> rusqlite::Result<()> {
            connection
                .prepare_cached(
                    "INSERT INTO audit (time, user, address, action, target, status, detail)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    entry.time.as_unix_nanos(),
                    entry.user,
                    entry.address,
                    entry.action,
                    entry.target,
                    entry.status,
                    entry.detail,
                ])?;
            let number = connection.last_insert_rowid();
            if number % 100 == 0 {
                connection.execute("DELETE FROM audit WHERE number <= ?1", [number - KEPT_AUDIT])?;
            }
            Ok(())
        };
        write().map_err(|e| self.failed(&e))
    }

    /// What was written down, newest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn audited(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, AccountError> {
        let connection = self.connection.lock();
        let before = filter.before.and_then(|n| i64::try_from(n).ok()).unwrap_or(i64::MAX);
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        let read = || -> rusqlite::Result<Vec<AuditEntry>> {
            connection
                .prepare_cached(
                    "SELECT number, time, user, address, action, target, status, detail FROM audit
                     WHERE number < ?1 AND (?2 IS NULL OR user = ?2) ORDER BY number DESC LIMIT ?3",
                )?
                .query_map(params![before, filter.user, limit], |row| {
                    Ok(AuditEntry {
                        number: row.get::<_, i64>(0)?.unsigned_abs(),
                        time: WallTime::from_unix_nanos(row.get(1)?),
                        user: row.get(2)?,
                        address: row.get(3)?,
                        action: row.get(4)?,
                        target: row.get(5)?,
                        status: row.get(6)?,
                        detail: row.get(7)?,
                    })
                })?
                .collect()
        };
        read().map_err(|e| self.failed(&e))
    }
}

enum Problem {
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

fn json(permissions: &[Permission]) -> String {
    serde_json::to_string(permissions).unwrap_or_else(|_| "[]".into())
}

fn is_last_admin(held: &Held, name: &str) -> bool {
    let is_admin = |user: &HeldUser| is_admin(&user.permissions) && !user.account.disabled;
    held.users.get(name).is_some_and(is_admin)
        && !held.users.values().any(|user| user.account.name != name && is_admin(user))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    // Goes up when another connection has written.
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn signer(connection: &Connection) -> rusqlite::Result<Signer> {
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

fn read(connection: &Connection) -> rusqlite::Result<Held> {
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

#[cfg(test)]
mod tests {
    use super::super::{Action, Role};
    use super::*;

    fn hash() -> PasswordHash {
        PasswordHash::of(&Secret::new("geheim")).unwrap()
    }

    fn user(name: &str, role: Role) -> NewAccount {
        NewAccount {
            name: name.into(),
            hash: hash(),
            permissions: vec![role.permission(vec!["*".parse().unwrap()])],
        }
    }

    #[test]
    fn what_one_process_writes_another_sees() {
        let folder = tempfile::tempdir().unwrap();
        let server = Accounts::open(folder.path()).unwrap();
        let program = Accounts::open(folder.path()).unwrap();
        assert!(server.is_empty() && !server.refresh().unwrap());
        program.add_user(&user("ann", Role::Viewer)).unwrap();
        assert!(matches!(program.add_user(&user("ann", Role::Viewer)), Err(AccountError::Exists(_))));
        assert!(server.user("ann").is_none() && server.refresh().unwrap() && !server.refresh().unwrap());
        assert_eq!(server.user("ann").unwrap().permissions[0].actions, Role::Viewer.actions());
        // The key is the same for both, and only the owner may read it.
        let address = super::super::SignedAddress {
            action: Action::Read,
            stream: "a".into(),
            expires: WallTime::now() + Duration::from_secs(9),
            user: None,
        };
        let query = program.signer().sign(&address).unwrap();
        assert!(server.signer().verify(&query, Action::Read, "a").is_some());
        use std::os::unix::fs::PermissionsExt as _;
        for file in std::fs::read_dir(folder.path()).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_last_admin_stays() {
        let accounts = Accounts::in_memory().unwrap();
        accounts.add_user(&user("ann", Role::Admin)).unwrap();
        accounts.add_user(&user("bob", Role::Viewer)).unwrap();
        let viewer = [Role::Viewer.permission(vec!["*".parse().unwrap()])];
        for refused in [
            accounts.remove_user("ann"),
            accounts.change_user("ann", None, None, Some(true)).map(drop),
            accounts.change_user("ann", None, Some(&viewer), None).map(drop),
        ] {
            assert!(matches!(refused, Err(AccountError::LastAdmin(_))), "{refused:?}");
        }
        assert!(matches!(accounts.remove_user("cal"), Err(AccountError::NotFound { .. })));
        accounts.add_user(&user("cal", Role::Admin)).unwrap();
        accounts.remove_user("ann").unwrap();
        accounts.remove_user("bob").unwrap();
        accounts.remove_user("cal").unwrap();
        assert!(accounts.is_empty());
        accounts.add_first_user(&user("dan", Role::Admin)).unwrap();
        assert!(matches!(accounts.add_first_user(&user("eve", Role::Admin)), Err(AccountError::Exists(_))));
        for name in ["", "a:b", " a", "a\nb", &"x".repeat(65)] {
            let refused = accounts.add_user(&user(name, Role::Viewer));
            assert!(matches!(refused, Err(AccountError::Invalid { field: "name", .. })), "{name:?}");
        }
    }

    #[test]
    fn tokens_end() {
        let accounts = Accounts::in_memory().unwrap();
        accounts.add_user(&user("ann", Role::Viewer)).unwrap();
        let new = |user: Option<&str>, permissions, expires| NewToken {
            name: "script".into(),
            user: user.map(Into::into),
            permissions,
            expires,
            session: false,
        };
        let nobody = |_: &str| None;
        let soon = WallTime::now() + Duration::from_millis(300);
        let (info, text) = accounts.add_token(&new(Some("ann"), None, None)).unwrap();
        let (_, brief) = accounts.add_token(&new(Some("ann"), None, Some(soon))).unwrap();
        let own = vec![Permission::new([Action::Metrics])];
        let (_, alone) = accounts.add_token(&new(None, Some(own), None)).unwrap();
        assert!(accounts.add_token(&new(None, None, None)).is_err());
        let owner = accounts.token(&text, nobody).unwrap();
        assert_eq!(
            (owner.name.as_str(), owner.permissions[0].actions.as_slice()),
            ("ann", Role::Viewer.actions())
        );
        assert_eq!(accounts.token(&alone, nobody).unwrap().name, "token script");
        assert!(accounts.token(&brief, nobody).is_some());
        std::thread::sleep(Duration::from_millis(350));
        assert!(accounts.token(&brief, nobody).is_none(), "it has expired");
        let mut changed = text.reveal().to_owned();
        let last = changed.pop().unwrap();
        changed.push(if last == '0' { '1' } else { '0' });
        assert!(accounts.token(&Secret::new(changed), nobody).is_none());
        // When it was used is written down, and nothing of it is the token itself.
        accounts.write_use().unwrap();
        assert!(accounts.tokens().iter().any(|t| t.id == info.id && t.used.is_some()));
        accounts.change_user("ann", None, None, Some(true)).unwrap();
        assert!(accounts.token(&text, nobody).is_none(), "its user is disabled");
        accounts.change_user("ann", None, None, Some(false)).unwrap();
        assert!(accounts.token(&text, nobody).is_some());
        accounts.remove_token(&info.id).unwrap();
        assert!(accounts.token(&text, nobody).is_none());
        accounts.remove_user("ann").unwrap();
        assert_eq!(accounts.tokens().len(), 1);
    }

    #[test]
    fn the_audit_log_is_bounded_and_searched() {
        let accounts = Accounts::in_memory().unwrap();
        for n in 0..5u16 {
            let entry = AuditEntry {
                number: 0,
                time: WallTime::now(),
                user: (n % 2 == 0).then(|| "ann".to_owned()),
                address: "192.0.2.1".into(),
                action: "DELETE".into(),
                target: format!("/api/streams/{n}"),
                status: 204,
                detail: None,
            };
            accounts.audit(&entry).unwrap();
        }
        let of = |user: Option<&str>, before, limit| {
            let filter = AuditFilter { user: user.map(Into::into), before, limit };
            accounts.audited(&filter).unwrap().iter().map(|e| e.number).collect::<Vec<_>>()
        };
        assert_eq!(of(None, None, 3), [5, 4, 3]);
        assert_eq!(of(None, Some(3), 3), [2, 1]);
        assert_eq!(of(Some("ann"), None, 9), [5, 3, 1]);
    }
}
