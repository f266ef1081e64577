//! What is looked for.

use super::find::find;
use super::{BUSY_TIMEOUT, OBJECTS_FILE, ObjectStore, ObjectsError, VERSION};
use crate::frame::WallTime;
use crate::object::{ObjectEvent, SceneEvent};
use crate::shape::{Point, contains};
use crate::storage::index::TimeRange;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

pub(super) const HOUR_NANOS: i64 = 3_600_000_000_000;
/// Cells of a heat map, across and down.
pub(super) const GRID: (usize, usize) = (32, 18);

/// Which objects are looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectFilter {
    /// Only those of these streams: ids, in which `*` stands for anything. Of all, if there are none.
    pub streams: Vec<String>,
    /// Only what is one of these; anything, if there are none.
    pub labels: Vec<String>,
    /// Only what has been in one of these zones; anywhere, if there are none.
    pub zones: Vec<String>,
    /// Only what was seen with this score at least.
    pub min_score: f32,
    /// Only what was first seen in this time.
    pub range: TimeRange,
    /// The last ones first.
    pub newest_first: bool,
    /// Only behind the object of this time and number, in the order that is asked for.
    pub after: Option<(WallTime, u64)>,
}

impl Default for ObjectFilter {
    /// All of them.
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            labels: Vec::new(),
            zones: Vec::new(),
            min_score: 0.0,
            range: TimeRange::ALL,
            newest_first: false,
            after: None,
        }
    }
}

/// An object that was found.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ObjectRow {
    /// Its number, in the order in which objects were first told of.
    pub id: u64,
    /// The stream's id.
    pub stream: Arc<str>,
    /// Whether there is a picture of it.
    pub has_picture: bool,
    /// What is known of it.
    #[serde(flatten)]
    pub event: ObjectEvent,
}

/// The best picture of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPicture {
    /// The object's stream.
    pub stream: Arc<str>,
    /// When it was taken.
    pub time: WallTime,
    /// The picture, a JPEG.
    pub jpeg: Vec<u8>,
}

/// Which counts are looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceFilter {
    /// The stream.
    pub stream: String,
    /// Only these zones and lines; all, if there are none.
    pub places: Vec<String>,
    /// Only this time, by whole hours.
    pub range: TimeRange,
}

/// How often something was done in an hour.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CountRow {
    /// When the hour begins.
    pub hour: WallTime,
    /// The zone, or the line.
    pub place: String,
    /// What: `entered`, `left`, `loitering`, `stationary`, `removed`, `overcrowded`; of a line `forward` and `backward`.
    pub action: String,
    /// By what; empty where it is about all of them.
    pub label: String,
    /// How often.
    pub count: u64,
    /// How long those who left had been in it, all together, in seconds.
    pub secs: f64,
}

/// Something that has happened in a zone or at a line.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct HappeningRow {
    /// Its number.
    pub id: u64,
    /// What.
    #[serde(flatten)]
    pub event: SceneEvent,
}

/// Where objects went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct HeatMap {
    /// Cells across.
    pub columns: usize,
    /// Cells down.
    pub rows: usize,
    /// How many points of objects' ways lie in each, row by row.
    pub cells: Vec<u64>,
}

impl HeatMap {
    /// Leaves the cells whose middle lies in a polygon, relative to the picture; the others are zero.
    pub fn keep_within(&mut self, points: &[Point]) {
        let middle = |at: usize, of: usize| (at as f32 + 0.5) / of as f32;
        for (number, cell) in self.cells.iter_mut().enumerate() {
            let (column, row) = (number % self.columns, number / self.columns);
            if !contains(points, [middle(column, self.columns), middle(row, self.rows)]) {
                *cell = 0;
            }
        }
    }
}

pub(super) fn list(names: &[String]) -> Value {
    Value::from(serde_json::to_string(names).unwrap_or_default())
}

pub(super) fn object(row: &Row<'_>) -> rusqlite::Result<Option<ObjectRow>> {
    let (id, stream): (i64, String) = (row.get(0)?, row.get(1)?);
    let Ok(event) = serde_json::from_str(&row.get::<_, String>(2)?) else { return Ok(None) };
    Ok(Some(ObjectRow { id: id.unsigned_abs(), stream: stream.into(), has_picture: row.get(3)?, event }))
}

/// Looks for objects in a data folder, also beside a running server. Blocks.
///
/// # Errors
/// If there is no database of objects there, it is of another version, or it cannot be read.
pub fn search(data_dir: &Path, filter: &ObjectFilter, limit: usize) -> Result<Vec<ObjectRow>, ObjectsError> {
    let path = data_dir.join(OBJECTS_FILE);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = || {
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok::<_, rusqlite::Error>((connection, found))
    };
    let (connection, found) = read().map_err(|error| ObjectsError(format!("{}: {error}", path.display())))?;
    if found != VERSION {
        let known = VERSION;
        return Err(ObjectsError(format!(
            "{}: it has version {found}; this program knows {known}",
            path.display()
        )));
    }
    Ok(find(&connection, filter, limit)?)
}

impl ObjectStore {
    /// Looks for objects, by the time at which they were first seen.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn find(&self, filter: ObjectFilter, limit: usize) -> Result<Vec<ObjectRow>, ObjectsError> {
        self.read(move |connection| find(connection, &filter, limit)).await
    }

    /// The object of a name.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn get(&self, name: &str) -> Result<Option<ObjectRow>, ObjectsError> {
        let name = name.to_owned();
        self.read(move |connection| {
            let sql = "SELECT o.id, s.name, o.json, EXISTS (SELECT 1 FROM pictures p WHERE p.object = o.id) \
                       FROM objects o JOIN names s ON s.id = o.stream WHERE o.name = ?1 LIMIT 1";
            Ok(connection.prepare_cached(sql)?.query_row([name], object).optional()?.flatten())
        })
        .await
    }

    /// Its best picture.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn picture(&self, name: &str) -> Result<Option<ObjectPicture>, ObjectsError> {
        let name = name.to_owned();
        self.read(move |connection| {
            let sql = "SELECT s.name, p.time, p.jpeg FROM objects o JOIN names s ON s.id = o.stream \
                       JOIN pictures p ON p.object = o.id WHERE o.name = ?1 LIMIT 1";
            let picture = |row: &Row<'_>| {
                let stream: String = row.get(0)?;
                let time = WallTime::from_unix_nanos(row.get(1)?);
                Ok(ObjectPicture { stream: stream.into(), time, jpeg: row.get(2)? })
            };
            connection.prepare_cached(sql)?.query_row([name], picture).optional()
        })
        .await
    }

    /// How often what was done in zones and at lines, hour by hour.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn counts(&self, filter: PlaceFilter, limit: usize) -> Result<Vec<CountRow>, ObjectsError> {
        self.read(move |connection| {
            let hour = |time: WallTime| time.as_unix_nanos().div_euclid(HOUR_NANOS);
            // An hour that has begun is in it.
            let last = filter.range.end.as_unix_nanos().saturating_sub(1).div_euclid(HOUR_NANOS);
            let sql = "SELECT c.hour, p.name, c.action, l.name, c.count, c.secs FROM counts c JOIN names p ON p.id = c.place \
                       JOIN names l ON l.id = c.label WHERE c.stream = (SELECT id FROM names WHERE name = ?1) AND c.hour >= ?2 \
                       AND c.hour <= ?3 AND (?4 = '[]' OR p.name IN (SELECT value FROM json_each(?4))) \
                       ORDER BY c.hour, p.name, c.action, l.name LIMIT ?5";
            let count = |row: &Row<'_>| {
                Ok(CountRow {
                    hour: WallTime::from_unix_nanos(row.get::<_, i64>(0)?.saturating_mul(HOUR_NANOS)),
                    place: row.get(1)?,
                    action: row.get(2)?,
                    label: row.get(3)?,
                    count: row.get::<_, i64>(4)?.unsigned_abs(),
                    secs: row.get(5)?,
                })
            };
            let (first, limit) = (hour(filter.range.start), i64::try_from(limit).unwrap_or(i64::MAX));
            let values = params![filter.stream, first, last, list(&filter.places), limit];
            connection.prepare_cached(sql)?.query_map(values, count)?.collect()
        })
        .await
    }

    /// What has happened in a stream's zones and at its lines, the oldest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn happenings(
        &self,
        stream: &str,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<HappeningRow>, ObjectsError> {
        let stream = stream.to_owned();
        self.read(move |connection| {
            let sql = "SELECT id, json FROM happenings WHERE stream = (SELECT id FROM names WHERE name = ?1) \
                       AND time >= ?2 AND time < ?3 ORDER BY time, id LIMIT ?4";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let values = params![stream, range.start.as_unix_nanos(), range.end.as_unix_nanos(), limit];
            let row = |row: &Row<'_>| {
                let event = serde_json::from_str(&row.get::<_, String>(1)?).ok();
                let id = row.get::<_, i64>(0)?.unsigned_abs();
                Ok(event.map(|event| HappeningRow { id, event }))
            };
            connection.prepare_cached(sql)?.query_map(values, row)?.filter_map(Result::transpose).collect()
        })
        .await
    }

    /// Where a stream's objects went, all hours of a range together.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn heat(&self, stream: &str, range: TimeRange) -> Result<HeatMap, ObjectsError> {
        let stream = stream.to_owned();
        self.read(move |connection| {
            let first = range.start.as_unix_nanos().div_euclid(HOUR_NANOS);
            let last = range.end.as_unix_nanos().saturating_sub(1).div_euclid(HOUR_NANOS);
            let sql = "SELECT cells FROM heat WHERE stream = (SELECT id FROM names WHERE name = ?1) AND hour >= ?2 AND hour <= ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![stream, first, last])?;
            let mut map = HeatMap { columns: GRID.0, rows: GRID.1, cells: vec![0; GRID.0 * GRID.1] };
            while let Some(row) = rows.next()? {
                let bytes: Vec<u8> = row.get(0)?;
                for (cell, bytes) in map.cells.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *cell += u64::from(u32::from_le_bytes(*bytes));
                }
            }
            Ok(map)
        })
        .await
    }
}
