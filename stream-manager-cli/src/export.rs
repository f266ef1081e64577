//! A span of recordings as one file.

use crate::args::ExportArgs;
use crate::{exit, output, recordings};
use std::io::IsTerminal;
use stream_manager_core::playback::{
    Archive, ExportFormat, ExportOptions, Gaps, PlaybackError, PlaybackRequest, export,
};
use stream_manager_core::storage::index::{Index, TimeRange};
use tokio_util::sync::CancellationToken;

pub(crate) async fn run(args: ExportArgs) -> u8 {
    let opened = recordings::data_dir(&args.place).and_then(|data_dir| {
        Index::open_for_reading(&data_dir).map_err(|error| (exit::FAILURE, error.to_string()))
    });
    let index = match opened {
        Ok(index) => index,
        Err((code, problem)) => return failed(code, &problem),
    };
    let end = args.end.or_else(|| args.duration.map(|duration| args.start + duration.0));
    let range = match TimeRange::new(args.start, end.unwrap_or(TimeRange::ALL.end)) {
        Ok(range) => range,
        Err(error) => return failed(exit::USAGE, &error.to_string()),
    };
    let options = ExportOptions {
        format: args.format.or_else(|| ExportFormat::of(&args.output)).unwrap_or_default(),
        exact: args.exact,
        speed: args.speed,
        burn_time: args.burn_time,
        overwrite: args.overwrite,
    };
    if let Err((_, problem)) = options.check() {
        return failed(exit::USAGE, &problem);
    }
    let gaps = if args.stop_at_gaps { Gaps::Stop } else { Gaps::Skip };
    let request = PlaybackRequest { start: range.start, end: Some(range.end), gaps };
    let plan = match Archive::new(index).plan(&args.id, request).await {
        Ok(plan) => plan,
        Err(error) => return failed(exit::USAGE, &format!("{}: {error}", args.id)),
    };
    let shown = std::io::stderr().is_terminal() && !args.json;
    let cancel = CancellationToken::new();
    let mut told = 0;
    let written = {
        let writing = export(plan, range, &args.output, &options, &cancel, |progress| {
            let percent = (progress.done * 100.0) as u32;
            if shown && percent != told {
                told = percent;
                output::status_line(&format!("{percent} % ({} bytes)", progress.bytes));
            }
        });
        let mut writing = std::pin::pin!(writing);
        tokio::select! {
            written = &mut writing => written,
            _ = tokio::signal::ctrl_c() => {
                cancel.cancel();
                writing.await
            }
        }
    };
    if shown {
        output::status_line("");
    }
    match written {
        Ok(written) if args.json => {
            output::line(&serde_json::to_string_pretty(&written).unwrap_or_default());
            0
        }
        Ok(written) => {
            output::line(&format!(
                "{}: {:.3} s from {}",
                written.path.display(),
                written.duration_secs,
                written.start
            ));
            output::line(&format!("  {} bytes, SHA-256 {}", written.bytes, written.sha256));
            if let Some(next) = written.next {
                output::line(&format!("  ends early; the rest: --start {next}"));
            }
            0
        }
        Err(error @ PlaybackError::File { .. }) => failed(exit::OUTPUT, &error.to_string()),
        Err(error) => failed(exit::FAILURE, &error.to_string()),
    }
}

fn failed(code: u8, problem: &str) -> u8 {
    output::error(problem);
    code
}
