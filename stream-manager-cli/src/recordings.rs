//! What has been recorded: listed, protected, deleted, verified. Also beside a running server.

use crate::args::{Place, RangeArgs, RecordingsCommand};
use crate::{exit, output, serve};
use std::path::PathBuf;
use stream_manager_core::config::{Config, Overrides};
use stream_manager_core::storage::index::{Catalog, IndexError, RecordingItem, SegmentRow, TimeRange};
use stream_manager_core::storage::{repair, retention};

pub(crate) fn run(command: RecordingsCommand) -> u8 {
    let done = match command {
        RecordingsCommand::List { stream, range, json, place } => {
            open(&place, true).and_then(|c| list(&c, stream.as_deref(), &range, json))
        }
        RecordingsCommand::Delete { stream, range, protected, place } => {
            open(&place, false).and_then(|mut c| {
                let (segments, bytes) = retention::delete(&mut c, &stream, required(&range)?, protected)
                    .map_err(|e| failed(&e))?;
                output::line(&format!("{segments} segments deleted, {bytes} bytes"));
                Ok(0)
            })
        }
        RecordingsCommand::Protect { stream, range, off, place } => open(&place, false).and_then(|mut c| {
            let changed = c.protect(&stream, required(&range)?, !off).map_err(|e| failed(&e))?;
            output::line(&format!(
                "{changed} segments {}",
                if off { "no longer protected" } else { "protected" }
            ));
            Ok(0)
        }),
        RecordingsCommand::Verify { stream, range, json, place } => {
            open(&place, true).and_then(|c| verify(&c, stream.as_deref(), &range, json))
        }
    };
    done.unwrap_or_else(|(code, problem)| {
        output::error(&problem);
        code
    })
}

pub(crate) type Failure = (u8, String);

fn failed(error: &IndexError) -> Failure {
    (exit::FAILURE, error.to_string())
}

fn open(place: &Place, reading: bool) -> Result<Catalog, Failure> {
    let data_dir = data_dir(place)?;
    let found = Catalog::open_for_reading(&data_dir);
    // Only opened for writing if it is there: a mistyped folder gets no index.
    if reading || found.is_err() {
        return found.map_err(|e| failed(&e));
    }
    Catalog::open(&data_dir).map_err(|e| failed(&e))
}

pub(crate) fn data_dir(place: &Place) -> Result<PathBuf, Failure> {
    Ok(config(place)?.storage.data_dir)
}

/// The configuration that a server there has, but for what was set through the API.
pub(crate) fn config(place: &Place) -> Result<Config, Failure> {
    let overrides = Overrides { data_dir: place.data_dir.clone(), ..Overrides::default() };
    let file = serve::config_file(place.config.as_deref());
    serve::load(&serve::source(file, overrides)).map_err(|p| (exit::USAGE, p.join("\n")))
}

fn required(range: &RangeArgs) -> Result<TimeRange, Failure> {
    if range.start.is_none() || range.end.is_none() {
        return Err((exit::USAGE, "--start and --end are needed here".into()));
    }
    ranged(range)
}

pub(crate) fn ranged(range: &RangeArgs) -> Result<TimeRange, Failure> {
    let (start, end) = (range.start.unwrap_or(TimeRange::ALL.start), range.end.unwrap_or(TimeRange::ALL.end));
    TimeRange::new(start, end).map_err(|e| (exit::USAGE, e.to_string()))
}

fn streams(catalog: &Catalog, stream: Option<&str>) -> Result<Vec<String>, Failure> {
    let known: Vec<String> =
        catalog.totals().map_err(|e| failed(&e))?.into_iter().map(|t| t.stream).collect();
    match stream {
        None => Ok(known),
        Some(stream) if known.iter().any(|k| k == stream) => Ok(vec![stream.to_owned()]),
        Some(stream) => Err((
            exit::FAILURE,
            format!("nothing is recorded of \"{stream}\"; recorded are: {}", known.join(", ")),
        )),
    }
}

fn segments(catalog: &Catalog, stream: &str, range: &RangeArgs) -> Result<Vec<SegmentRow>, Failure> {
    catalog.segments(stream, ranged(range)?, None, usize::MAX).map_err(|e| failed(&e))
}

fn list(catalog: &Catalog, stream: Option<&str>, range: &RangeArgs, json: bool) -> Result<u8, Failure> {
    for stream in streams(catalog, stream)? {
        let items = catalog.recordings(&stream, ranged(range)?, usize::MAX).map_err(|e| failed(&e))?;
        let rows = segments(catalog, &stream, range)?;
        if json {
            let value = serde_json::json!({"stream": stream, "items": items, "segments": rows});
            output::line(&value.to_string());
            continue;
        }
        let bytes: u64 = rows.iter().map(|r| r.bytes).sum();
        output::line(&format!("{stream}: {} segments, {:.1} MB", rows.len(), bytes as f64 / 1e6));
        for row in &rows {
            let seconds = row.end.saturating_since(row.start).as_secs_f64();
            let state = match (row.complete, row.protected) {
                (false, _) => "being written",
                (true, true) => "protected",
                (true, false) => "",
            };
            output::line(&format!(
                "  {}  {seconds:>9.3} s  {:>9.1} MB  {}  {state}",
                row.start,
                row.bytes as f64 / 1e6,
                row.path.display()
            ));
        }
        for item in &items {
            if let RecordingItem::Gap { start, end, reason, frames } = item {
                let end = end.map_or_else(|| "(still)".to_owned(), |end| end.to_string());
                output::line(&format!(
                    "  gap {start} to {end}: {}, {frames} frames known lost",
                    reason.name()
                ));
            }
        }
    }
    Ok(0)
}

fn verify(catalog: &Catalog, stream: Option<&str>, range: &RangeArgs, json: bool) -> Result<u8, Failure> {
    let (mut checked, mut bad) = (0u64, 0u64);
    for stream in streams(catalog, stream)? {
        for row in segments(catalog, &stream, range)? {
            let verified = repair::verify(row);
            checked += 1;
            bad += u64::from(verified.problem.is_some());
            if json {
                output::line(&serde_json::to_string(&verified).unwrap_or_default());
            } else if let Some(problem) = &verified.problem {
                output::line(&format!("{}: {problem}", verified.segment.path.display()));
            }
        }
    }
    if !json {
        output::line(&format!("{checked} segments read, {bad} with problems"));
    }
    Ok(if bad == 0 { 0 } else { exit::FAILURE })
}
