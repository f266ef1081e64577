//! The way that a search goes through a million objects.
//!
//! ```text
//! filter ──► numbers of names ──► how many are there of each? ──► by the rarest: one index, in order of time, until there are enough
//! ```
//!
//! By time alone, what hardly any has would be looked for among all of them. Each way is bounded by how many there are of what is asked
//! for: a few names are looked for one by one, each in its own order of time, and what was found of each is put together.

use super::query::{ObjectFilter, ObjectRow, list, object};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

/// So many of something are enough to be found soon by any way; they are not counted further.
const MANY: i64 = 20_000;
/// As many of a score are still put in order of time at once.
const MANY_OF_SCORE: i64 = 2_000;
/// More names than this are not looked for one by one.
const MOST_NAMES: usize = 16;

/// What an index is there for. The order is that of preference where there are many of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Zone,
    Stream,
    Label,
    Score,
    Time,
}

impl Way {
    /// What is read, what of it is looked for, and the object's number.
    fn table(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Way::Zone => ("visits t", "t.zone", "t.object"),
            Way::Stream => ("objects t INDEXED BY objects_by_stream", "t.stream", "t.id"),
            Way::Label => ("objects t INDEXED BY objects_by_label", "t.label", "t.id"),
            Way::Score => ("objects t INDEXED BY objects_by_score", "t.score", "t.id"),
            Way::Time => ("objects t INDEXED BY objects_by_time", "t.begin", "t.id"),
        }
    }
}

/// What is looked for, by numbers, so that an index answers alone.
struct Wanted<'a> {
    filter: &'a ObjectFilter,
    zones: Option<Vec<i64>>,
    streams: Option<Vec<i64>>,
    labels: Option<Vec<i64>>,
}

/// The numbers of names that are known, by patterns in which `*` stands for anything.
fn numbers(connection: &Connection, patterns: &[String]) -> rusqlite::Result<Option<Vec<i64>>> {
    let sql =
        "SELECT n.id FROM names n WHERE EXISTS (SELECT 1 FROM json_each(?1) p WHERE n.name GLOB p.value)";
    ids(connection, sql, patterns)
}

/// The numbers of exactly these names.
fn exact(connection: &Connection, names: &[String]) -> rusqlite::Result<Option<Vec<i64>>> {
    ids(connection, "SELECT n.id FROM names n WHERE n.name IN (SELECT value FROM json_each(?1))", names)
}

fn ids(connection: &Connection, sql: &str, names: &[String]) -> rusqlite::Result<Option<Vec<i64>>> {
    if names.is_empty() {
        return Ok(None);
    }
    connection
        .prepare_cached(sql)?
        .query_map([list(names)], |row| row.get(0))?
        .collect::<Result<_, _>>()
        .map(Some)
}

impl Wanted<'_> {
    fn numbers(&self, way: Way) -> Option<&[i64]> {
        match way {
            Way::Zone => self.zones.as_deref(),
            Way::Stream => self.streams.as_deref(),
            Way::Label => self.labels.as_deref(),
            Way::Score | Way::Time => None,
        }
    }

    /// By what there is the least of, as far as that is worth counting.
    fn way(&self, connection: &Connection, [many, many_of_score]: [i64; 2]) -> rusqlite::Result<Way> {
        let (start, end) = (self.filter.range.start.as_unix_nanos(), self.filter.range.end.as_unix_nanos());
        let mut best = (many, Way::Time);
        for way in [Way::Zone, Way::Stream, Way::Label] {
            let Some(numbers) = self.numbers(way).filter(|numbers| numbers.len() <= MOST_NAMES) else {
                continue;
            };
            let (table, column, _) = way.table();
            let sql = format!(
                "SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE {column} = ?1 AND t.begin >= ?2 AND t.begin < ?3 LIMIT ?4)"
            );
            let mut found = 0;
            for number in numbers {
                // Not further than it takes to know which is less.
                let left = best.0 - found;
                if left <= 0 {
                    break;
                }
                found += connection
                    .prepare_cached(&sql)?
                    .query_row((number, start, end, left), |row| row.get::<_, i64>(0))?;
            }
            if found < best.0 || best.1 == Way::Time {
                best = (found, way);
            }
        }
        if self.filter.min_score > 0.0 {
            let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM objects t INDEXED BY objects_by_score WHERE t.score >= ?1 LIMIT ?2)";
            let least = f64::from(self.filter.min_score);
            let found: i64 =
                connection.prepare_cached(sql)?.query_row((least, many_of_score), |row| row.get(0))?;
            if found < many_of_score && found < best.0 {
                best = (found, Way::Score);
            }
        }
        Ok(best.1)
    }

    /// What gives the number and the time of the objects that one way leads to: of one number, if it is about numbers.
    fn branch(&self, way: Way, number: Option<i64>, values: &mut Vec<Value>) -> String {
        let filter = self.filter;
        let (table, column, id) = way.table();
        let mut text = String::new();
        let mut and = |condition: &str, value: Value| {
            values.push(value);
            text += if text.is_empty() { " WHERE " } else { " AND " };
            text += &condition.replace('?', &format!("?{}", values.len()));
        };
        if let Some(number) = number {
            and(&format!("{column} = ?"), number.into());
        }
        // By an index that is not for the time, the time is no more than a condition; elsewhere it is the order.
        let time = if way == Way::Score { "+t.begin" } else { "t.begin" };
        and(&format!("{time} >= ?"), filter.range.start.as_unix_nanos().into());
        and(&format!("{time} < ?"), filter.range.end.as_unix_nanos().into());
        if filter.min_score > 0.0 {
            and("t.score >= ?", f64::from(filter.min_score).into());
        }
        let of = |numbers: &[i64]| Value::from(serde_json::to_string(numbers).unwrap_or_default());
        for (other, condition) in [
            (Way::Stream, "+t.stream IN (SELECT value FROM json_each(?))".to_owned()),
            (Way::Label, "+t.label IN (SELECT value FROM json_each(?))".to_owned()),
            (
                Way::Zone,
                format!(
                    "EXISTS (SELECT 1 FROM visits v WHERE v.object = {id} AND v.zone IN (SELECT value FROM json_each(?)))"
                ),
            ),
        ] {
            if let Some(numbers) = self.numbers(other).filter(|_| other != way) {
                and(&condition, of(numbers));
            }
        }
        if let Some((time, number)) = filter.after {
            let (time, number) = (time.as_unix_nanos(), i64::try_from(number).unwrap_or(i64::MAX));
            let than = if filter.newest_first { "<" } else { ">" };
            values.extend([time.into(), number.into()]);
            let (time, number) = (values.len() - 1, values.len());
            text += &format!(" AND (t.begin, {id}) {than} (?{time}, ?{number})");
        }
        let order = order(filter);
        format!(
            "SELECT {id} AS found, t.begin AS begin FROM {table}{text} ORDER BY t.begin {order}, {id} {order}"
        )
    }
}

fn order(filter: &ObjectFilter) -> &'static str {
    if filter.newest_first { "DESC" } else { "ASC" }
}

/// The objects that a filter is about, so many at most.
pub(super) fn find(
    connection: &Connection,
    filter: &ObjectFilter,
    limit: usize,
) -> rusqlite::Result<Vec<ObjectRow>> {
    find_with(connection, filter, limit, [MANY, MANY_OF_SCORE])
}

pub(super) fn find_with(
    connection: &Connection,
    filter: &ObjectFilter,
    limit: usize,
    many: [i64; 2],
) -> rusqlite::Result<Vec<ObjectRow>> {
    let wanted = Wanted {
        filter,
        zones: exact(connection, &filter.zones)?,
        streams: numbers(connection, &filter.streams)?,
        labels: exact(connection, &filter.labels)?,
    };
    // A name that is not known is nobody's.
    if [&wanted.zones, &wanted.streams, &wanted.labels].into_iter().flatten().any(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let way = wanted.way(connection, many)?;
    let mut values = vec![Value::from(i64::try_from(limit).unwrap_or(i64::MAX))];
    let branches: Vec<String> = match wanted.numbers(way) {
        Some(numbers) => numbers
            .iter()
            .map(|number| {
                format!("SELECT * FROM ({} LIMIT ?1)", wanted.branch(way, Some(*number), &mut values))
            })
            .collect(),
        None => vec![format!("SELECT * FROM ({} LIMIT ?1)", wanted.branch(way, None, &mut values))],
    };
    let order = order(filter);
    // First which, by an index alone, then what. One that has been in two of the zones is one.
    let sql = format!(
        "SELECT o.id, s.name, o.json, EXISTS (SELECT 1 FROM pictures p WHERE p.object = o.id) \
         FROM (SELECT found FROM ({}) ORDER BY begin {order}, found {order} LIMIT ?1) \
         JOIN objects o ON o.id = found JOIN names s ON s.id = o.stream ORDER BY o.begin {order}, o.id {order}",
        branches.join(" UNION ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), object)?;
    // One that cannot be read any more is none that stops the others.
    rows.filter_map(Result::transpose).collect()
}
