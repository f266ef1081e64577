//! What is marked in recordings: added, looked for, taken away.

use super::catalog::{Catalog, Change, IndexError};
use super::model::{Mark, MarkFilter, MarkRow, TimeRange};
use crate::frame::WallTime;
use rusqlite::types::Value;
use rusqlite::{params, params_from_iter};

impl Catalog {
    /// Adds a mark. Gives its number.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn add_mark(&mut self, stream: &str, mark: &Mark) -> Result<u64, IndexError> {
        self.apply(&[Change::Mark(stream.into(), mark.clone())])?;
        // Nobody else writes by this connection meanwhile.
        Ok(self.connection.last_insert_rowid().unsigned_abs())
    }

    /// Takes a stream's mark away. False if there is none of this number.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn remove_mark(&mut self, stream: &str, id: u64) -> Result<bool, IndexError> {
        let failed = self.failed();
        let id = i64::try_from(id).unwrap_or(-1);
        let removed = self.connection.execute(
            "DELETE FROM marks WHERE id = ?1 AND stream = (SELECT id FROM streams WHERE name = ?2)",
            params![id, stream],
        );
        Ok(removed.map_err(failed)? > 0)
    }

    /// Looks for marks, by time.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn find_marks(&self, filter: &MarkFilter, limit: usize) -> Result<Vec<MarkRow>, IndexError> {
        let mut conditions = String::from("m.time >= ?1 AND m.time < ?2");
        let mut values: Vec<Value> =
            vec![filter.range.start.as_unix_nanos().into(), filter.range.end.as_unix_nanos().into()];
        let list = |names: &[String]| Value::from(serde_json::to_string(names).unwrap_or_default());
        let mut and = |condition: &str, value: Value| {
            values.push(value);
            conditions += " AND ";
            conditions += &condition.replace('?', &format!("?{}", values.len()));
        };
        if let Some(stream) = &filter.stream {
            // The one stream's index is used.
            and("m.stream = (SELECT id FROM streams WHERE name = ?)", stream.clone().into());
        }
        if !filter.streams.is_empty() {
            // What GLOB takes as more than a letter is no letter of an id, but for the star.
            and("EXISTS (SELECT 1 FROM json_each(?) p WHERE s.name GLOB p.value)", list(&filter.streams));
        }
        if !filter.kinds.is_empty() {
            and("m.kind IN (SELECT value FROM json_each(?))", list(&filter.kinds));
        }
        if let Some(text) = filter.text.as_ref().filter(|text| !text.is_empty()) {
            and("instr(lower(m.text), lower(?)) > 0", text.clone().into());
        }
        let order = if filter.newest_first { "DESC" } else { "ASC" };
        if let Some((time, id)) = filter.after {
            let than = if filter.newest_first { "<" } else { ">" };
            values.extend([time.as_unix_nanos().into(), i64::try_from(id).unwrap_or(i64::MAX).into()]);
            let (time, id) = (values.len() - 1, values.len());
            conditions += &format!(" AND (m.time, m.id) {than} (?{time}, ?{id})");
        }
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let statement = format!(
            "SELECT m.id, s.name, m.time, m.kind, m.text, m.json FROM marks m JOIN streams s ON s.id = m.stream \
             WHERE {conditions} ORDER BY m.time {order}, m.id {order} LIMIT ?{}",
            values.len()
        );
        let read = || {
            let mut statement = self.connection.prepare_cached(&statement)?;
            let rows = statement.query_map(params_from_iter(values), |row| {
                Ok(MarkRow {
                    id: row.get::<_, i64>(0)?.unsigned_abs(),
                    stream: row.get(1)?,
                    mark: Mark {
                        time: WallTime::from_unix_nanos(row.get(2)?),
                        kind: row.get(3)?,
                        text: row.get(4)?,
                        data: serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default(),
                    },
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed())
    }

    /// A stream's marks in a range, at most `limit`.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn marks(&self, stream: &str, range: TimeRange, limit: usize) -> Result<Vec<Mark>, IndexError> {
        let filter = MarkFilter { stream: Some(stream.to_owned()), range, ..MarkFilter::default() };
        Ok(self.find_marks(&filter, limit)?.into_iter().map(|row| row.mark).collect())
    }
}
