//! The database's tables, and how older versions of them are brought up to date.
//!
//! Segments are clustered by stream and start, so a day of one camera is read in one go however many
//! cameras there are. Sums of bytes are kept by triggers, so nobody has to add up millions of rows.

use rusqlite::Connection;

/// Each entry brings the database from the version of its index to the next.
const MIGRATIONS: &[&str] = &[
    r"
CREATE TABLE streams (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  segments INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  protected_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE folders (
  id INTEGER PRIMARY KEY,
  path TEXT NOT NULL UNIQUE,
  bytes INTEGER NOT NULL DEFAULT 0
);
-- Codec parameters, each set once.
CREATE TABLE tracks (id INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE);
-- Times in nanoseconds since 1970 UTC; state 0 being written, 1 complete, 2 being deleted.
CREATE TABLE segments (
  stream INTEGER NOT NULL REFERENCES streams(id),
  start INTEGER NOT NULL,
  id INTEGER NOT NULL,
  end INTEGER NOT NULL,
  media_start INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  frames INTEGER NOT NULL,
  folder INTEGER NOT NULL REFERENCES folders(id),
  name TEXT NOT NULL,
  format TEXT NOT NULL,
  tracks INTEGER NOT NULL REFERENCES tracks(id),
  state INTEGER NOT NULL,
  protected INTEGER NOT NULL DEFAULT 0,
  continues INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (stream, start, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX segments_by_id ON segments (id);
-- What retention looks for, oldest first over all streams.
CREATE INDEX segments_by_age ON segments (end, folder, bytes) WHERE state = 1 AND protected = 0;
CREATE INDEX segments_protected ON segments (end, folder, bytes) WHERE state = 1 AND protected = 1;
CREATE INDEX segments_unfinished ON segments (state) WHERE state <> 1;
-- Offsets of a segment's parts, see `parts`.
CREATE TABLE parts (segment INTEGER PRIMARY KEY, data BLOB NOT NULL);
-- An open gap has no end.
CREATE TABLE gaps (
  stream INTEGER NOT NULL REFERENCES streams(id),
  start INTEGER NOT NULL,
  id INTEGER NOT NULL,
  end INTEGER,
  reason TEXT NOT NULL,
  frames INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (stream, start, id)
) WITHOUT ROWID;
CREATE INDEX gaps_open ON gaps (stream) WHERE end IS NULL;
CREATE TABLE marks (
  id INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL REFERENCES streams(id),
  time INTEGER NOT NULL,
  kind TEXT NOT NULL,
  text TEXT NOT NULL,
  json TEXT NOT NULL
);
CREATE INDEX marks_by_time ON marks (stream, time);
CREATE TRIGGER segment_added AFTER INSERT ON segments BEGIN
  UPDATE streams SET segments = segments + 1, bytes = bytes + new.bytes,
    protected_bytes = protected_bytes + new.protected * new.bytes WHERE id = new.stream;
  UPDATE folders SET bytes = bytes + new.bytes WHERE id = new.folder;
END;
CREATE TRIGGER segment_removed AFTER DELETE ON segments BEGIN
  UPDATE streams SET segments = segments - 1, bytes = bytes - old.bytes,
    protected_bytes = protected_bytes - old.protected * old.bytes WHERE id = old.stream;
  UPDATE folders SET bytes = bytes - old.bytes WHERE id = old.folder;
END;
CREATE TRIGGER segment_changed AFTER UPDATE OF bytes, protected ON segments BEGIN
  UPDATE streams SET bytes = bytes + new.bytes - old.bytes,
    protected_bytes = protected_bytes + new.protected * new.bytes - old.protected * old.bytes
    WHERE id = new.stream;
  UPDATE folders SET bytes = bytes + new.bytes - old.bytes WHERE id = new.folder;
END;
",
    r"
-- When something was seen: what was recorded then may be kept for longer than the rest.
CREATE TABLE keeps (
  stream INTEGER NOT NULL REFERENCES streams(id),
  start INTEGER NOT NULL,
  end INTEGER NOT NULL,
  PRIMARY KEY (stream, start)
) WITHOUT ROWID;
",
];

/// The version that this program writes.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Brings a database up to date. Gives the version it had.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<i64> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(usize::try_from(version).unwrap_or(0)) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", number as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(version)
}
