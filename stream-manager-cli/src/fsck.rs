//! Are the recordings and their index in order?

use crate::args::FsckArgs;
use crate::{exit, output, serve};
use stream_manager_core::config::Overrides;
use stream_manager_core::manager::{FsckOptions, FsckReport, fsck};
use stream_manager_core::storage::repair::Finding;

pub(crate) fn run(args: &FsckArgs) -> u8 {
    let overrides = Overrides { data_dir: args.place.data_dir.clone(), ..Overrides::default() };
    let file = serve::config_file(args.place.config.as_deref());
    let config = match serve::load(&serve::source(file, overrides)) {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|p| output::error(p));
            return exit::USAGE;
        }
    };
    let options = FsckOptions { repair: args.repair, rebuild: args.rebuild };
    match fsck(&config.storage, options) {
        Ok(report) => {
            if args.json {
                output::line(&serde_json::to_string_pretty(&report).unwrap_or_default());
            } else {
                print(&report, args);
            }
            let report = &report.report;
            let left = !report.damaged.is_empty() || !report.unavailable.is_empty();
            let done = args.repair || args.rebuild;
            if report.is_clean() || (done && !left) { 0 } else { exit::FAILURE }
        }
        Err(error) => {
            output::error(&error.to_string());
            exit::FAILURE
        }
    }
}

fn print(result: &FsckReport, args: &FsckArgs) {
    let done = args.repair || args.rebuild;
    if let Some(problem) = &result.index_problem {
        output::line(&format!("index: {problem}"));
    }
    if let Some(old) = &result.old_index {
        output::line(&format!("index: made anew; the old one is {}", old.display()));
    }
    let say = |findings: &[Finding], what: &str, did: &str| {
        for finding in findings {
            let verb = if done { did } else { what };
            output::line(&format!("{verb}: {}: {}", finding.path.display(), finding.problem));
        }
    };
    let report = &result.report;
    say(&report.repaired, "unfinished", "completed");
    say(&report.adopted, "unknown to the index", "adopted");
    say(&report.dropped, "missing", "dropped from the index");
    say(&report.removed, "empty", "removed");
    say(&report.deleted, "half deleted", "deleted");
    say(&report.damaged, "damaged", "damaged, left alone");
    say(&report.foreign, "not ours", "not ours, left alone");
    say(&report.unavailable, "out of reach", "out of reach, entries kept");
    let verdict = match (report.is_clean(), done) {
        (true, _) => "files and index agree",
        (false, true) => "put right as far as possible",
        (false, false) => "run again with --repair to put this right",
    };
    output::line(&format!("{} segments looked at: {verdict}", report.segments));
}
