//! Questions to the index.

use super::Live;
use super::catalog::{Catalog, IndexError};
use super::model::{GapReason, RecordingItem, SegmentId, SegmentRow, StreamTotals, TimeRange};
use super::parts::{PartEntry, PartList};
use crate::frame::WallTime;
use rusqlite::{OptionalExtension, Row, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Segments before a range that are looked at for reaching into it. One would do if clocks were never set.
const LOOK_BACK: i64 = 16;

const COLUMNS: &str = "s.id, st.name, s.start, s.end, s.media_start, s.bytes, s.frames, f.path, s.name, s.format, \
    t.json, s.state, s.protected, s.continues";
const JOINS: &str = "segments s JOIN streams st ON st.id = s.stream JOIN folders f ON f.id = s.folder \
    JOIN tracks t ON t.id = s.tracks";

/// What is known of the segments that are being written, by number.
pub(super) type LiveMap = HashMap<SegmentId, Live>;

fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn segment(row: &Row<'_>) -> rusqlite::Result<SegmentRow> {
    let (folder, name): (String, String) = (row.get(7)?, row.get(8)?);
    Ok(SegmentRow {
        id: SegmentId(number(row.get(0)?)),
        stream: row.get(1)?,
        start: WallTime::from_unix_nanos(row.get(2)?),
        end: WallTime::from_unix_nanos(row.get(3)?),
        media_start_nanos: row.get(4)?,
        bytes: number(row.get(5)?),
        frames: number(row.get(6)?),
        path: PathBuf::from(folder).join(name),
        format: row.get(9)?,
        tracks: row.get(10)?,
        complete: row.get::<_, i64>(11)? == 1,
        protected: row.get(12)?,
        continues: row.get(13)?,
    })
}

/// What the joining of segments needs of them.
struct Piece {
    start: i64,
    end: i64,
    bytes: u64,
    complete: bool,
    protected: bool,
    continues: bool,
}

impl Catalog {
    fn stream_number(&self, stream: &str) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT id FROM streams WHERE name = ?1")?
            .query_row([stream], |row| row.get(0))
            .optional()
    }

    /// Whether the index has ever seen a stream.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn knows(&self, stream: &str) -> Result<bool, IndexError> {
        self.stream_number(stream).map(|id| id.is_some()).map_err(self.failed())
    }

    /// Where to begin to read for a range: a few segments before it, since they may reach into it.
    fn read_from(&self, stream: i64, range: TimeRange) -> rusqlite::Result<i64> {
        self.connection
            .prepare_cached(
                "SELECT min(start) FROM (SELECT start FROM segments WHERE stream = ?1 AND start <= ?2 \
                 ORDER BY start DESC LIMIT ?3)",
            )?
            .query_row(params![stream, range.start.as_unix_nanos(), LOOK_BACK], |row| {
                row.get::<_, Option<i64>>(0)
            })
            .map(|start| start.unwrap_or(range.start.as_unix_nanos()))
    }

    /// The spans and gaps of a stream in a range, in order, at most `limit`. How far a segment is that is
    /// being written is only known to the [`Index`](super::Index) of the process that writes it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn recordings(
        &self,
        stream: &str,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<RecordingItem>, IndexError> {
        self.spans_and_gaps(stream, range, limit, &LiveMap::new())
    }

    /// The spans and gaps of a stream in a range, in order, at most `limit`.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(super) fn spans_and_gaps(
        &self,
        stream: &str,
        range: TimeRange,
        limit: usize,
        live: &LiveMap,
    ) -> Result<Vec<RecordingItem>, IndexError> {
        self.try_spans_and_gaps(stream, range, limit, live).map_err(self.failed())
    }

    fn try_spans_and_gaps(
        &self,
        stream: &str,
        range: TimeRange,
        limit: usize,
        live: &LiveMap,
    ) -> rusqlite::Result<Vec<RecordingItem>> {
        let Some(stream) = self.stream_number(stream)? else { return Ok(Vec::new()) };
        let mut items = self.gaps(stream, range, limit)?;
        let (from, to) = (range.start.as_unix_nanos(), range.end.as_unix_nanos());
        let mut statement = self.connection.prepare_cached(
            "SELECT start, end, bytes, state, protected, continues, id FROM segments \
             WHERE stream = ?1 AND start >= ?2 AND start < ?3 AND state < 2 ORDER BY start, id",
        )?;
        let mut rows = statement.query(params![stream, self.read_from(stream, range)?, to])?;
        let mut spans: Vec<RecordingItem> = Vec::new();
        // The true end of the last span, which may lie beyond the range.
        let mut reached = i64::MIN;
        while let Some(row) = rows.next()? {
            let mut piece = Piece {
                start: row.get(0)?,
                end: row.get(1)?,
                bytes: number(row.get(2)?),
                complete: row.get::<_, i64>(3)? == 1,
                protected: row.get(4)?,
                continues: row.get(5)?,
            };
            if !piece.complete
                && let Some(live) = live.get(&SegmentId(number(row.get(6)?)))
            {
                piece.end = piece.start.saturating_add(live.duration_nanos);
                piece.bytes = live.bytes;
            }
            if piece.end <= from {
                reached = piece.end;
                continue;
            }
            if !piece.continues || spans.is_empty() || piece.start < reached - 2_000_000_000 {
                if spans.len() > limit {
                    break;
                }
                spans.push(RecordingItem::Span {
                    start: WallTime::from_unix_nanos(piece.start.max(from)),
                    end: WallTime::from_unix_nanos(piece.end.min(to)),
                    bytes: piece.bytes,
                    segments: 1,
                    complete: piece.complete,
                    protected: piece.protected,
                });
            } else if let Some(RecordingItem::Span { end, bytes, segments, complete, protected, .. }) =
                spans.last_mut()
            {
                *end = (*end).max(WallTime::from_unix_nanos(piece.end.min(to)));
                *bytes += piece.bytes;
                *segments += 1;
                *complete &= piece.complete;
                *protected |= piece.protected;
            }
            reached = piece.end;
        }
        items.extend(spans);
        items.sort_by_key(RecordingItem::start);
        items.truncate(limit);
        Ok(items)
    }

    /// Where a stream's recordings are protected in a range. Ranges with less than `resolution` between them are one.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn protected_ranges(
        &self,
        stream: &str,
        range: TimeRange,
        resolution: Duration,
        limit: usize,
    ) -> Result<Vec<TimeRange>, IndexError> {
        self.try_protected_ranges(stream, range, resolution, limit).map_err(self.failed())
    }

    fn try_protected_ranges(
        &self,
        stream: &str,
        range: TimeRange,
        resolution: Duration,
        limit: usize,
    ) -> rusqlite::Result<Vec<TimeRange>> {
        let Some(stream) = self.stream_number(stream)? else { return Ok(Vec::new()) };
        let mut statement = self.connection.prepare_cached(
            "SELECT start, end FROM segments \
             WHERE stream = ?1 AND start >= ?2 AND start < ?3 AND state < 2 AND protected = 1 ORDER BY start, id",
        )?;
        let (from, to) = (range.start, range.end);
        let mut rows =
            statement.query(params![stream, self.read_from(stream, range)?, to.as_unix_nanos()])?;
        let mut ranges: Vec<TimeRange> = Vec::new();
        while let Some(row) = rows.next()? {
            let start = WallTime::from_unix_nanos(row.get(0)?).max(from);
            let end = WallTime::from_unix_nanos(row.get(1)?).min(to);
            // Segments that follow on each other are a little apart by the clock.
            let near = resolution.max(Duration::from_millis(100));
            if let Some(last) = ranges.last_mut()
                && start.saturating_since(last.end) < near
            {
                last.end = last.end.max(end);
            } else if ranges.len() >= limit {
                break;
            } else if end > start {
                ranges.push(TimeRange { start, end });
            }
        }
        Ok(ranges)
    }

    fn gaps(&self, stream: i64, range: TimeRange, limit: usize) -> rusqlite::Result<Vec<RecordingItem>> {
        let (from, to) = (range.start.as_unix_nanos(), range.end.as_unix_nanos());
        let mut statement = self.connection.prepare_cached(
            "SELECT start, end, reason, frames FROM gaps WHERE stream = ?1 AND start < ?3 \
             AND (end IS NULL OR end > ?2 OR (end = start AND start >= ?2)) ORDER BY start, id LIMIT ?4",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![stream, from, to, limit], |row| {
            let end: Option<i64> = row.get(1)?;
            Ok(RecordingItem::Gap {
                start: WallTime::from_unix_nanos(row.get::<_, i64>(0)?.max(from)),
                end: end.map(|end| WallTime::from_unix_nanos(end.min(to))),
                reason: GapReason::from_name(&row.get::<_, String>(2)?),
                frames: number(row.get(3)?),
            })
        })?;
        rows.collect()
    }

    /// A stream's segments in a range, in order, at most `limit`, beginning after the segment `after` if one
    /// is given. Those that are being written are in it if they begin before the range's end: how far they are is only known
    /// to the [`Index`](super::Index) of the process that writes them.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn segments(
        &self,
        stream: &str,
        range: TimeRange,
        after: Option<(WallTime, SegmentId)>,
        limit: usize,
    ) -> Result<Vec<SegmentRow>, IndexError> {
        let read = || {
            let Some(stream) = self.stream_number(stream)? else { return Ok(Vec::new()) };
            let sql = format!(
                "SELECT {COLUMNS} FROM {JOINS} WHERE s.stream = ?1 AND s.start >= ?2 AND s.start < ?4 AND s.state < 2 \
                 AND (s.end > ?3 OR s.state = 0) AND (s.start, s.id) > (?5, ?6) \
                 ORDER BY s.start, s.id LIMIT ?7"
            );
            let (time, id) = after.map_or((i64::MIN, 0), |(time, id)| (time.as_unix_nanos(), id.0 as i64));
            let mut statement = self.connection.prepare_cached(&sql)?;
            let rows = statement.query_map(
                params![
                    stream,
                    self.read_from(stream, range)?,
                    range.start.as_unix_nanos(),
                    range.end.as_unix_nanos(),
                    time,
                    id,
                    i64::try_from(limit).unwrap_or(i64::MAX)
                ],
                segment,
            )?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed())
    }

    /// One segment.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn segment(&self, id: SegmentId) -> Result<Option<SegmentRow>, IndexError> {
        let read = || {
            let sql = format!("SELECT {COLUMNS} FROM {JOINS} WHERE s.id = ?1 AND s.state < 2");
            self.connection.prepare_cached(&sql)?.query_row([id.0 as i64], segment).optional()
        };
        read().map_err(self.failed())
    }

    /// The parts of a segment, for seeking in it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn parts(&self, id: SegmentId) -> Result<Vec<PartEntry>, IndexError> {
        let read = || {
            self.connection
                .prepare_cached("SELECT data FROM parts WHERE segment = ?1")?
                .query_row([id.0 as i64], |row| row.get::<_, Vec<u8>>(0))
                .optional()
        };
        Ok(read().map_err(self.failed())?.map(|data| PartList::entries(&data)).unwrap_or_default())
    }

    /// What every stream has on disk.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn totals(&self) -> Result<Vec<StreamTotals>, IndexError> {
        let read = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT name, segments, bytes, protected_bytes FROM streams ORDER BY name")?;
            let rows = statement.query_map([], |row| {
                Ok(StreamTotals {
                    stream: row.get(0)?,
                    segments: number(row.get(1)?),
                    bytes: number(row.get(2)?),
                    protected_bytes: number(row.get(3)?),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed())
    }

    /// The folders that recordings lie in, and how many bytes.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn folders(&self) -> Result<Vec<(PathBuf, u64)>, IndexError> {
        let read = || {
            let mut statement =
                self.connection.prepare_cached("SELECT path, bytes FROM folders ORDER BY path")?;
            let rows = statement
                .query_map([], |row| Ok((PathBuf::from(row.get::<_, String>(0)?), number(row.get(1)?))))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed())
    }

    /// All segments of a stream.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(in crate::storage) fn rows_of(&self, stream: &str) -> Result<Vec<SegmentRow>, IndexError> {
        self.segments(stream, TimeRange::ALL, None, usize::MAX)
    }

    /// Whether a stream has a segment with this start and file.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(in crate::storage) fn has_file(
        &self,
        stream: &str,
        start: WallTime,
        path: &Path,
    ) -> Result<bool, IndexError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let read = || {
            // A start that a name tells is rounded down to the millisecond.
            self.connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM segments WHERE stream = (SELECT id FROM streams WHERE name = ?1) \
                     AND start BETWEEN ?2 - 2000000 AND ?2 + 2000000 AND name = ?3)",
                )?
                .query_row(params![stream, start.as_unix_nanos(), name], |row| row.get(0))
        };
        read().map_err(self.failed())
    }

    /// Segments that are not finished, or not wholly deleted.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(in crate::storage) fn unfinished(&self, deleting: bool) -> Result<Vec<SegmentRow>, IndexError> {
        let read = || {
            let sql = format!("SELECT {COLUMNS} FROM {JOINS} WHERE s.state = ?1 AND s.state <> 1");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let state = if deleting { 2 } else { 0 };
            let rows = statement.query_map([state], segment)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed())
    }

    /// Bytes and recorded time of a stream's finished segments since a moment.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn rate(&self, stream: &str, since: WallTime) -> Result<(u64, Duration), IndexError> {
        let read = || {
            let Some(stream) = self.stream_number(stream)? else { return Ok((0, 0)) };
            self.connection
                .prepare_cached(
                    "SELECT ifnull(sum(bytes), 0), ifnull(sum(end - start), 0) FROM segments \
                     WHERE stream = ?1 AND start >= ?2 AND state = 1",
                )?
                .query_row(params![stream, since.as_unix_nanos()], |row| {
                    Ok((number(row.get(0)?), number(row.get(1)?)))
                })
        };
        let (bytes, nanos) = read().map_err(self.failed())?;
        Ok((bytes, Duration::from_nanos(nanos)))
    }

    /// Where a stream's recordings begin and end.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn extent(&self, stream: &str) -> Result<Option<(WallTime, WallTime)>, IndexError> {
        let read = || {
            let Some(stream) = self.stream_number(stream)? else { return Ok(None) };
            self.connection
                .prepare_cached(
                    "SELECT (SELECT min(start) FROM segments WHERE stream = ?1), \
                     (SELECT end FROM segments WHERE stream = ?1 ORDER BY start DESC, id DESC LIMIT 1)",
                )?
                .query_row([stream], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))
                .map(|(start, end)| start.zip(end))
        };
        let extent = read().map_err(self.failed())?;
        Ok(extent.map(|(start, end)| (WallTime::from_unix_nanos(start), WallTime::from_unix_nanos(end))))
    }
}
