//! Changes that somebody waits for: protecting, deleting, repairing.

use super::catalog::{Catalog, Change, IndexError, insert_gap};
use super::model::{GapReason, NewSegment, SegmentEnd, SegmentId, SegmentRow, TimeRange};
use crate::frame::WallTime;
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, TransactionBehavior, params, params_from_iter};
use std::path::{Path, PathBuf};

/// Shorter ones come from rounding, in nanoseconds.
const SHORTEST_GAP: i64 = 1_000_000;

/// What is kept before and after something that was seen, in nanoseconds.
const AROUND_SEEN: i64 = 10_000_000_000;

/// Rows dropped in one transaction.
const DROP_STEP: usize = 256;

/// Which segments are to go.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection {
    /// Those of a stream that end before a moment.
    OlderThan {
        /// The stream.
        stream: String,
        /// The moment.
        before: WallTime,
        /// Another one for those in which something was seen, if they are kept for longer.
        seen_before: Option<WallTime>,
    },
    /// The oldest of a stream.
    OldestOf(String),
    /// The oldest of all streams.
    Oldest,
    /// The oldest of all streams in these folders.
    OldestIn(Vec<PathBuf>),
    /// Those of a stream that lie wholly in a range.
    Within(String, TimeRange),
}

/// A segment that is about to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// Its number.
    pub id: SegmentId,
    /// The stream's id.
    pub stream: String,
    /// Its file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Where it begins.
    pub start: WallTime,
    /// Where it ends.
    pub end: WallTime,
}

impl Catalog {
    /// Marks up to `limit` finished segments as being deleted, oldest first, and gives them. Their files are
    /// to be removed next, then [`forget`](Self::forget) takes their rows. A crash in between leaves rows
    /// that the next start finishes deleting.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn doom(
        &mut self,
        selection: &Selection,
        protected: bool,
        limit: usize,
    ) -> Result<Vec<Doomed>, IndexError> {
        let failed = self.failed();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut run = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let from = "SELECT s.id, st.name, f.path, s.name, s.bytes, s.start, s.end FROM segments s \
                JOIN streams st ON st.id = s.stream JOIN folders f ON f.id = s.folder WHERE s.state = 1 ";
            // Said in full, so that the partial indexes are used.
            let kept = if protected { "AND s.protected = 1 " } else { "AND s.protected = 0 " };
            let read = |row: &rusqlite::Row<'_>| {
                Ok(Doomed {
                    id: SegmentId(row.get::<_, i64>(0)?.unsigned_abs()),
                    stream: row.get(1)?,
                    path: PathBuf::from(row.get::<_, String>(2)?).join(row.get::<_, String>(3)?),
                    bytes: row.get::<_, i64>(4)?.unsigned_abs(),
                    start: WallTime::from_unix_nanos(row.get(5)?),
                    end: WallTime::from_unix_nanos(row.get(6)?),
                })
            };
            let of_stream = "AND s.stream = (SELECT id FROM streams WHERE name = ?1) ";
            // What else has to hold, in which order, and the values for it.
            let (rest, mut values): (String, Vec<Value>) = match selection {
                Selection::OlderThan { stream, before, seen_before: None } => (
                    format!("{of_stream} AND s.end < ?2 ORDER BY s.start, s.id LIMIT ?3"),
                    vec![stream.clone().into(), before.as_unix_nanos().into()],
                ),
                Selection::OlderThan { stream, before, seen_before: Some(seen) } => (
                    format!(
                        "{of_stream} AND s.end < ?2 AND (s.end < ?3 OR NOT EXISTS (SELECT 1 FROM keeps k \
                         WHERE k.stream = s.stream AND k.start <= s.end + ?4 AND k.end >= s.start - ?4)) \
                         ORDER BY s.start, s.id LIMIT ?5"
                    ),
                    vec![
                        stream.clone().into(),
                        before.as_unix_nanos().into(),
                        seen.as_unix_nanos().into(),
                        AROUND_SEEN.into(),
                    ],
                ),
                Selection::OldestOf(stream) => {
                    (format!("{of_stream} ORDER BY s.start, s.id LIMIT ?2"), vec![stream.clone().into()])
                }
                Selection::Oldest => ("ORDER BY s.end LIMIT ?1".into(), Vec::new()),
                Selection::OldestIn(folders) => {
                    let folders: Vec<_> = folders.iter().map(|f| f.to_string_lossy()).collect();
                    let within = "AND s.folder IN (SELECT id FROM folders WHERE path IN \
                        (SELECT value FROM json_each(?1))) ORDER BY s.end LIMIT ?2";
                    (within.into(), vec![serde_json::to_string(&folders).unwrap_or_default().into()])
                }
                Selection::Within(stream, range) => (
                    format!("{of_stream} AND s.start >= ?2 AND s.end <= ?3 ORDER BY s.start, s.id LIMIT ?4"),
                    vec![
                        stream.clone().into(),
                        range.start.as_unix_nanos().into(),
                        range.end.as_unix_nanos().into(),
                    ],
                ),
            };
            values.push(limit.into());
            let doomed: Vec<Doomed> = transaction
                .prepare_cached(&format!("{from}{kept}{rest}"))?
                .query_map(params_from_iter(values), read)?
                .collect::<Result<_, _>>()?;
            for segment in &doomed {
                transaction
                    .prepare_cached("UPDATE segments SET state = 2 WHERE id = ?1")?
                    .execute([segment.id.0 as i64])?;
            }
            transaction.commit()?;
            Ok(doomed)
        };
        run().map_err(failed)
    }

    /// Forgets segments whose files are gone. `reason` says why, if what is around them stays. Gaps and marks from before the stream's
    /// first segment go too.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn forget(&mut self, ids: &[SegmentId], reason: Option<GapReason>) -> Result<(), IndexError> {
        let failed = self.failed();
        let mut run = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut streams = Vec::new();
            for id in ids {
                let row: Option<(i64, i64, i64)> = transaction
                    .prepare_cached("SELECT stream, start, end FROM segments WHERE id = ?1")?
                    .query_row([id.0 as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                    .optional()?;
                let Some((stream, start, end)) = row else { continue };
                if !streams.contains(&stream) {
                    streams.push(stream);
                }
                // What follows no longer follows on anything.
                transaction
                    .prepare_cached(
                        "UPDATE segments SET continues = 0 WHERE stream = ?1 AND start = (SELECT min(start) FROM \
                         segments WHERE stream = ?1 AND start > ?2) AND continues = 1",
                    )?
                    .execute([stream, start])?;
                transaction.prepare_cached("DELETE FROM segments WHERE id = ?1")?.execute([id.0 as i64])?;
                transaction.prepare_cached("DELETE FROM parts WHERE segment = ?1")?.execute([id.0 as i64])?;
                if let Some(reason) = reason {
                    insert_gap(&transaction, stream, start, Some(end), reason, 0)?;
                }
            }
            for stream in streams {
                // What is said of recordings goes with them.
                for behind in
                    ["gaps WHERE end IS NOT NULL AND end <=", "marks WHERE time <", "keeps WHERE end <"]
                {
                    transaction
                        .prepare_cached(&format!(
                            "DELETE FROM {behind} (SELECT min(start) FROM segments WHERE stream = ?1) AND stream = ?1"
                        ))?
                        .execute([stream])?;
                }
            }
            transaction.commit()
        };
        run().map_err(failed)
    }

    /// Protects the segments that touch a range, or no longer does. Gives how many have changed.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn protect(&mut self, stream: &str, range: TimeRange, protected: bool) -> Result<usize, IndexError> {
        let failed = self.failed();
        self.connection
            .execute(
                "UPDATE segments SET protected = ?4 WHERE stream = (SELECT id FROM streams WHERE name = ?1) \
                 AND start < ?3 AND (end > ?2 OR state = 0) AND state < 2 AND protected <> ?4",
                params![stream, range.start.as_unix_nanos(), range.end.as_unix_nanos(), protected],
            )
            .map_err(failed)
    }

    /// Completes the row of a segment that was repaired. What was lost after it becomes a gap.
    ///
    /// # Errors
    /// If the database refuses.
    pub(in crate::storage) fn complete_repaired(
        &mut self,
        row: &SegmentRow,
        end: &SegmentEnd,
    ) -> Result<(), IndexError> {
        let failed = self.failed();
        let mut run = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let (start, id) = (row.start.as_unix_nanos(), row.id.0 as i64);
            let until = start.saturating_add(end.duration_nanos);
            transaction.execute(
                "UPDATE segments SET state = 1, end = ?2, bytes = ?3, frames = ?4 WHERE id = ?1 AND state = 0",
                params![id, until, end.bytes as i64, end.frames as i64],
            )?;
            transaction.execute(
                "INSERT OR REPLACE INTO parts (segment, data) VALUES (?1, ?2)",
                params![id, end.parts.as_bytes()],
            )?;
            let stream: i64 =
                transaction.query_row("SELECT stream FROM segments WHERE id = ?1", [id], |r| r.get(0))?;
            lost_after(&transaction, stream, start, id, until)?;
            transaction.commit()
        };
        run().map_err(failed)
    }

    /// Drops the rows of segments that hold nothing or are gone. What they would have held becomes a gap.
    ///
    /// # Errors
    /// If the database refuses.
    pub(in crate::storage) fn drop_lost(&mut self, rows: &[&SegmentRow]) -> Result<(), IndexError> {
        let failed = self.failed();
        let mut run = |rows: &[&SegmentRow]| {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for row in rows {
                drop_row(&transaction, row)?;
            }
            transaction.commit()
        };
        // In steps, so that nobody who records waits long for the index.
        rows.chunks(DROP_STEP).try_for_each(|step| run(step).map_err(&failed))
    }
}

impl Catalog {
    /// Enters a finished segment that the index did not know. Gaps that were taken for its time give way.
    ///
    /// # Errors
    /// If the database refuses.
    pub(in crate::storage) fn adopt(
        &mut self,
        segment: &NewSegment,
        end: &SegmentEnd,
    ) -> Result<(), IndexError> {
        let change = Change::Finish { segment: segment.clone(), end: end.clone() };
        self.apply([&change])?;
        let failed = self.failed();
        let mut run = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let stream: i64 =
                transaction
                    .query_row("SELECT id FROM streams WHERE name = ?1", [&*segment.stream], |r| r.get(0))?;
            let from = segment.start.as_unix_nanos();
            let to = from.saturating_add(end.duration_nanos);
            let overlapping: Vec<(i64, i64, Option<i64>, String, i64)> = transaction
                .prepare_cached(
                    "SELECT start, id, end, reason, frames FROM gaps WHERE stream = ?1 AND start < ?3 \
                     AND (end IS NULL OR end > ?2)",
                )?
                .query_map([stream, from, to], |r| {
                    Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
                })?
                .collect::<Result<_, _>>()?;
            for (start, id, gap_end, reason, frames) in overlapping {
                transaction
                    .prepare_cached("DELETE FROM gaps WHERE stream = ?1 AND start = ?2 AND id = ?3")?
                    .execute([stream, start, id])?;
                let (reason, frames) = (GapReason::from_name(&reason), frames.unsigned_abs());
                if start + SHORTEST_GAP < from {
                    insert_gap(&transaction, stream, start, Some(from), reason, 0)?;
                }
                if gap_end.is_none_or(|end| to + SHORTEST_GAP < end) {
                    insert_gap(&transaction, stream, to, gap_end, reason, frames)?;
                }
            }
            transaction.commit()
        };
        run().map_err(failed)
    }

    /// Enters a gap wherever a stream's segments do not follow on each other and nobody has said why, and after
    /// the last one.
    ///
    /// # Errors
    /// If the database refuses.
    pub(in crate::storage) fn fill_gaps(&mut self, stream: &str) -> Result<(), IndexError> {
        let failed = self.failed();
        self.connection
            .execute(
                "INSERT INTO gaps (stream, start, id, end, reason) \
                 SELECT stream, before, 1000, start, 'unknown' FROM ( \
                   SELECT stream, start, continues, lag(end) OVER (ORDER BY start, id) AS before FROM segments \
                   WHERE stream = (SELECT id FROM streams WHERE name = ?1) AND state < 2) AS s \
                 WHERE continues = 0 AND before + ?2 < start AND NOT EXISTS ( \
                   SELECT 1 FROM gaps g WHERE g.stream = s.stream AND g.start < s.start \
                   AND (g.end IS NULL OR g.end > s.before))",
                params![stream, SHORTEST_GAP],
            )
            .map_err(&failed)?;
        // Nothing follows on the last one, so far.
        self.connection
            .execute(
                "INSERT INTO gaps (stream, start, id, reason) \
                 SELECT stream, end, 1000, 'unknown' FROM (SELECT stream, end, state FROM segments \
                   WHERE stream = (SELECT id FROM streams WHERE name = ?1) ORDER BY start DESC, id DESC LIMIT 1) AS s \
                 WHERE state = 1 AND NOT EXISTS \
                   (SELECT 1 FROM gaps g WHERE g.stream = s.stream AND g.end IS NULL)",
                [stream],
            )
            .map_err(failed)?;
        Ok(())
    }
}

impl Catalog {
    /// Runs statements with another index attached as `old`.
    fn with_old(&mut self, old: &Path, statements: &str) -> Result<(), IndexError> {
        let failed = self.failed();
        self.connection.execute("ATTACH ?1 AS old", [old.to_string_lossy()]).map_err(&failed)?;
        let result = self.connection.execute_batch(&format!("BEGIN; {statements} COMMIT;"));
        if result.is_err() {
            // Fails if there is nothing to roll back.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.connection.execute_batch("DETACH old").map_err(&failed)?;
        result.map_err(failed)
    }

    /// Takes gaps and marks over from another index: they are in no file.
    ///
    /// # Errors
    /// If the other one cannot be read; nothing is taken over then.
    pub(crate) fn take_over(&mut self, old: &Path) -> Result<(), IndexError> {
        self.with_old(
            old,
            "INSERT OR IGNORE INTO streams (name) SELECT name FROM old.streams;
             INSERT OR IGNORE INTO gaps (stream, start, id, end, reason, frames)
               SELECT n.id, g.start, g.id, g.end, g.reason, g.frames FROM old.gaps g
               JOIN old.streams o ON o.id = g.stream JOIN streams n ON n.name = o.name;
             INSERT INTO marks (stream, time, kind, text, json)
               SELECT n.id, m.time, m.kind, m.text, m.json FROM old.marks m
               JOIN old.streams o ON o.id = m.stream JOIN streams n ON n.name = o.name;",
        )
    }

    /// Takes over which segments are protected.
    ///
    /// # Errors
    /// As [`take_over`](Self::take_over).
    pub(crate) fn take_over_protection(&mut self, old: &Path) -> Result<(), IndexError> {
        self.with_old(
            old,
            "UPDATE segments SET protected = 1 WHERE EXISTS (
               SELECT 1 FROM old.segments p JOIN old.streams o ON o.id = p.stream
               JOIN streams n ON n.name = o.name
               WHERE n.id = segments.stream AND p.start = segments.start AND p.protected = 1);",
        )
    }
}

fn drop_row(transaction: &rusqlite::Transaction<'_>, row: &SegmentRow) -> rusqlite::Result<()> {
    let id = row.id.0 as i64;
    let stream: Option<i64> = transaction
        .prepare_cached("SELECT stream FROM segments WHERE id = ?1")?
        .query_row([id], |r| r.get(0))
        .optional()?;
    let Some(stream) = stream else { return Ok(()) };
    transaction.prepare_cached("DELETE FROM segments WHERE id = ?1")?.execute([id])?;
    transaction.prepare_cached("DELETE FROM parts WHERE segment = ?1")?.execute([id])?;
    let start = row.start.as_unix_nanos();
    if row.complete {
        insert_gap(transaction, stream, start, Some(row.end.as_unix_nanos()), GapReason::Unknown, 0)
    } else {
        lost_after(transaction, stream, start, i64::MAX, start)
    }
}

/// A recording that nobody finished ended at `until`: from there to what follows, if anything does, is a gap.
fn lost_after(
    transaction: &rusqlite::Transaction<'_>,
    stream: i64,
    start: i64,
    id: i64,
    until: i64,
) -> rusqlite::Result<()> {
    let next: Option<i64> = transaction
        .query_row(
            "SELECT start FROM segments WHERE stream = ?1 AND (start, id) > (?2, ?3) ORDER BY start, id LIMIT 1",
            [stream, start, id],
            |row| row.get(0),
        )
        .optional()?;
    // A recorder that could still say why it stopped has done so.
    let known: bool = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM gaps WHERE stream = ?1 AND start >= ?2 AND start <= ?3)",
        params![stream, start, next.unwrap_or(i64::MAX)],
        |row| row.get(0),
    )?;
    let open: bool = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM gaps WHERE stream = ?1 AND end IS NULL)",
        [stream],
        |row| row.get(0),
    )?;
    if known || next.is_some_and(|next| next <= until) || (next.is_none() && open) {
        return Ok(());
    }
    insert_gap(transaction, stream, until, next, GapReason::Killed, 0)
}
