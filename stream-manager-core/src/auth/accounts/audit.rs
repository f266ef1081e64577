//! The audit log: who has changed what, or tried to.

use super::{AccountError, Accounts};
use crate::frame::WallTime;
use rusqlite::params;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows that the audit log keeps.
const KEPT_AUDIT: i64 = 50_000;

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

impl Accounts {
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
