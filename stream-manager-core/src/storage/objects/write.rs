//! The thread that writes, and what it does.

use super::query::{GRID, HOUR_NANOS};
use super::{OfStream, Request, Shared};
use crate::frame::WallTime;
use crate::object::{ObjectEvent, Phase, SceneAction, SceneEvent};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Events in one transaction.
const BATCH: usize = 256;
/// Events that are kept while the database cannot be written to.
const MAX_KEPT: usize = 4096;
/// How long to wait before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Objects that are forgotten at once.
const FORGET: i64 = 500;

pub(super) fn run(mut connection: Connection, requests: &Receiver<Request>, shared: &Shared) {
    let mut kept: VecDeque<Request> = VecDeque::new();
    let mut names = HashMap::new();
    loop {
        let request = if kept.is_empty() {
            requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            requests.recv_timeout(RETRY_AFTER)
        };
        let mut next = match request {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        // What has come in meanwhile goes into the same transaction.
        let mut question = None;
        while let Some(request) = next {
            match request {
                Request::Ask(asked) => {
                    question = Some(asked);
                    break;
                }
                event => kept.push_back(event),
            }
            next = if kept.len() < BATCH { requests.try_recv().ok() } else { None };
        }
        commit(&mut connection, &mut kept, &mut names, shared);
        if let Some(question) = question {
            question(&mut connection);
        }
    }
    commit(&mut connection, &mut kept, &mut names, shared);
}

fn commit(
    connection: &mut Connection,
    kept: &mut VecDeque<Request>,
    names: &mut HashMap<Arc<str>, i64>,
    shared: &Shared,
) {
    if kept.is_empty() {
        return;
    }
    let gone = |number: usize| shared.waiting.fetch_sub(number as u64, Ordering::Relaxed);
    match apply(connection, kept, names) {
        Ok(()) => {
            gone(kept.len());
            kept.clear();
            if shared.failing.lock().take().is_some() {
                tracing::info!("the database of objects is written again");
            }
        }
        Err(error) => {
            // What was remembered may have been rolled back.
            names.clear();
            if shared.failing.lock().replace(error.to_string()).is_none() {
                tracing::error!(%error, "the database of objects cannot be written; its events are kept for now");
            }
            if kept.len() > MAX_KEPT {
                shared.lost.fetch_add(kept.len() as u64, Ordering::Relaxed);
                gone(kept.len());
                kept.clear();
            }
        }
    }
}

fn apply(
    connection: &mut Connection,
    kept: &VecDeque<Request>,
    names: &mut HashMap<Arc<str>, i64>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut writing = Writing { transaction: &transaction, names };
    for request in kept {
        match request {
            Request::Object(stream, event) => writing.object(stream, event)?,
            Request::Scene(stream, event) => writing.scene(stream, event)?,
            Request::Ask(_) => {}
        }
    }
    transaction.commit()
}

struct Writing<'a> {
    transaction: &'a Transaction<'a>,
    names: &'a mut HashMap<Arc<str>, i64>,
}

impl Writing<'_> {
    fn name(&mut self, name: &Arc<str>) -> rusqlite::Result<i64> {
        if let Some(id) = self.names.get(name) {
            return Ok(*id);
        }
        let found = self
            .transaction
            .prepare_cached("SELECT id FROM names WHERE name = ?1")?
            .query_row([&**name], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                self.transaction
                    .prepare_cached("INSERT INTO names (name) VALUES (?1)")?
                    .execute([&**name])?;
                self.transaction.last_insert_rowid()
            }
        };
        self.names.insert(name.clone(), id);
        Ok(id)
    }

    fn object(&mut self, stream: &Arc<str>, event: &ObjectEvent) -> rusqlite::Result<()> {
        let (stream, label) = (self.name(stream)?, self.name(&event.label)?);
        let json = serde_json::to_string(event).unwrap_or_default();
        let (begin, score) = (event.begin.as_unix_nanos(), f64::from(event.best_score));
        let open = event.phase != Phase::End;
        let id: i64 = self
            .transaction
            .prepare_cached(
                "INSERT INTO objects (stream, name, label, begin, score, open, json) VALUES (?1,?2,?3,?4,?5,?6,?7) \
                 ON CONFLICT (name, stream) DO UPDATE SET label = ?3, score = ?5, open = ?6, json = ?7 RETURNING id",
            )?
            .query_row(params![stream, &*event.object, label, begin, score, open, json], |row| row.get(0))?;
        for zone in &event.zones {
            let zone = self.name(zone)?;
            self.transaction
                .prepare_cached(
                    "INSERT INTO visits (zone, begin, object, score, label, stream) VALUES (?1,?2,?3,?4,?5,?6) \
                     ON CONFLICT DO UPDATE SET score = ?4, label = ?5",
                )?
                .execute(params![zone, begin, id, score, label, stream])?;
        }
        if let Some(picture) = &event.picture {
            let time = event.best_time.unwrap_or(event.last).as_unix_nanos();
            self.transaction
                .prepare_cached("INSERT OR REPLACE INTO pictures (object, time, jpeg) VALUES (?1,?2,?3)")?
                .execute(params![id, time, &**picture])?;
        }
        if !open {
            self.heat(stream, event)?;
        }
        Ok(())
    }

    /// Where it went, on a grid of its hour.
    fn heat(&mut self, stream: i64, event: &ObjectEvent) -> rusqlite::Result<()> {
        let hour = event.begin.as_unix_nanos().div_euclid(HOUR_NANOS);
        let mut cells: Vec<u8> = self
            .transaction
            .prepare_cached("SELECT cells FROM heat WHERE stream = ?1 AND hour = ?2")?
            .query_row([stream, hour], |row| row.get(0))
            .optional()?
            .unwrap_or_default();
        cells.resize(GRID.0 * GRID.1 * 4, 0);
        for [x, y] in &event.path {
            let at = |v: f32, number: usize| ((v * number as f32) as usize).min(number - 1);
            let cell = (at(*y, GRID.1) * GRID.0 + at(*x, GRID.0)) * 4;
            if let Some(bytes) = cells.get_mut(cell..cell + 4).and_then(|b| <&mut [u8; 4]>::try_from(b).ok())
            {
                *bytes = u32::from_le_bytes(*bytes).saturating_add(1).to_le_bytes();
            }
        }
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO heat (stream, hour, cells) VALUES (?1,?2,?3)")?
            .execute(params![stream, hour, cells])?;
        Ok(())
    }

    fn scene(&mut self, stream: &Arc<str>, event: &SceneEvent) -> rusqlite::Result<()> {
        let stream = self.name(stream)?;
        let time = event.frame_time.as_unix_nanos();
        self.transaction
            .prepare_cached("INSERT INTO happenings (stream, time, json) VALUES (?1,?2,?3)")?
            .execute(params![stream, time, serde_json::to_string(event).unwrap_or_default()])?;
        let Some(place) = event.zone.as_ref().or(event.line.as_ref()) else { return Ok(()) };
        let action = match (event.action, event.direction) {
            (SceneAction::Crossed, Some(direction)) => direction.name(),
            // Its end is none of its own.
            (SceneAction::Overcrowded, _) if event.active == Some(false) => return Ok(()),
            (action, _) => action.name(),
        };
        let (place, label) = (self.name(place)?, self.name(&event.label.clone().unwrap_or_default())?);
        let secs = if event.action == SceneAction::Left { event.dwell_secs.unwrap_or_default() } else { 0.0 };
        self.transaction
            .prepare_cached(
                "INSERT INTO counts (stream, hour, place, action, label, count, secs) VALUES (?1,?2,?3,?4,?5,1,?6) \
                 ON CONFLICT DO UPDATE SET count = count + 1, secs = secs + ?6",
            )?
            .execute(params![stream, time.div_euclid(HOUR_NANOS), place, action, label, secs])?;
        Ok(())
    }
}

/// Ends what was not ended. Gives it as it was last told of, ended.
pub(super) fn end_all(connection: &mut Connection) -> rusqlite::Result<Vec<OfStream>> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let open: Vec<(i64, String, String)> = transaction
        .prepare(
            "SELECT o.id, n.name, o.json FROM objects o JOIN names n ON n.id = o.stream WHERE o.open = 1",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut ended = Vec::new();
    for (id, stream, json) in open {
        let mut json = json;
        if let Ok(mut event) = serde_json::from_str::<ObjectEvent>(&json) {
            event.phase = Phase::End;
            event.in_zones.clear();
            json = serde_json::to_string(&event).unwrap_or(json);
            ended.push((stream.into(), event));
        }
        transaction
            .prepare_cached("UPDATE objects SET open = 0, json = ?2 WHERE id = ?1")?
            .execute(params![id, json])?;
    }
    transaction.commit()?;
    Ok(ended)
}

fn remove(transaction: &Transaction<'_>, ids: &[i64]) -> rusqlite::Result<()> {
    for id in ids {
        for statement in [
            "DELETE FROM visits WHERE object = ?1",
            "DELETE FROM pictures WHERE object = ?1",
            "DELETE FROM objects WHERE id = ?1",
        ] {
            transaction.prepare_cached(statement)?.execute([id])?;
        }
    }
    Ok(())
}

pub(super) fn forget(connection: &mut Connection, name: &str) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let ids: Vec<i64> = transaction
        .prepare_cached("SELECT id FROM objects WHERE name = ?1")?
        .query_map([name], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    remove(&transaction, &ids)?;
    transaction.commit()?;
    Ok(!ids.is_empty())
}

pub(super) fn forget_before(connection: &mut Connection, moment: WallTime) -> rusqlite::Result<u64> {
    let before = moment.as_unix_nanos();
    let mut gone = 0;
    loop {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let ids: Vec<i64> = transaction
            .prepare_cached("SELECT id FROM objects WHERE begin < ?1 AND open = 0 ORDER BY begin LIMIT ?2")?
            .query_map([before, FORGET], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        remove(&transaction, &ids)?;
        let others = transaction
            .prepare_cached(
                "DELETE FROM happenings WHERE id IN (SELECT id FROM happenings WHERE time < ?1 LIMIT ?2)",
            )?
            .execute([before, FORGET])?;
        transaction.commit()?;
        gone += ids.len() as u64;
        if ids.is_empty() && others == 0 {
            return Ok(gone);
        }
    }
}

pub(super) fn keep_newest(connection: &mut Connection, most: u64) -> rusqlite::Result<u64> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let last: Option<i64> = connection
        .query_row("SELECT begin FROM objects ORDER BY begin DESC LIMIT 1 OFFSET ?1", [most], |row| {
            row.get(0)
        })
        .optional()?;
    match last {
        // That one goes, too.
        Some(begin) => forget_before(connection, WallTime::from_unix_nanos(begin.saturating_add(1))),
        None => Ok(0),
    }
}
