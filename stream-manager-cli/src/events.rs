//! What was seen, looked for. Also beside a running server.

use crate::args::SearchArgs;
use crate::recordings::{Failure, data_dir, ranged};
use crate::{exit, output};
use stream_manager_core::object::Phase;
use stream_manager_core::storage::objects::{ObjectFilter, ObjectRow, search};

pub(crate) fn run(args: SearchArgs) -> u8 {
    find(args).unwrap_or_else(|(code, problem)| {
        output::error(&problem);
        code
    })
}

fn find(args: SearchArgs) -> Result<u8, Failure> {
    let data_dir = data_dir(&args.place)?;
    let filter = ObjectFilter {
        range: ranged(&args.range)?,
        streams: args.stream,
        labels: args.label,
        zones: args.zone,
        min_score: args.min_score,
        newest_first: !args.oldest,
        after: None,
    };
    let rows = search(&data_dir, &filter, args.limit).map_err(|error| (exit::FAILURE, error.to_string()))?;
    for row in &rows {
        output::line(&if args.json { serde_json::to_string(row).unwrap_or_default() } else { describe(row) });
    }
    Ok(0)
}

fn describe(row: &ObjectRow) -> String {
    let event = &row.event;
    let zones = event.zones.iter().map(|zone| format!(" in {zone}")).collect::<String>();
    let lines =
        event.lines.iter().map(|l| format!(" over {} {}", l.line, l.direction.name())).collect::<String>();
    let there = if event.phase == Phase::End { "" } else { ", still there" };
    let (begin, score) = (event.begin, event.best_score);
    format!(
        "{begin}  {:>6.1} s  {}  {} {score:.2}{zones}{lines}{there}",
        event.duration_secs, row.stream, event.label
    )
}
