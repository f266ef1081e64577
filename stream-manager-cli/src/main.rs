//! `stream-manager`: records, re-serves and analyses live camera streams.
//!
//! Parses arguments, calls the library, prints. Without a command it serves.

mod accounts;
mod args;
mod backup;
mod check;
mod config;
mod detect;
mod discover;
mod events;
mod export;
mod fsck;
mod models;
mod output;
mod probe;
mod record;
mod recording;
mod recordings;
mod serve;
mod snapshot;

use args::{Args, Command, EventsCommand};
use clap::Parser;
use std::process::ExitCode;

/// What exit codes mean.
pub(crate) mod exit {
    /// Something else went wrong.
    pub(crate) const FAILURE: u8 = 1;
    /// Arguments or configuration are wrong (clap uses 2 as well).
    pub(crate) const USAGE: u8 = 2;
    /// The source cannot be opened.
    pub(crate) const SOURCE: u8 = 3;
    /// The output cannot be written.
    pub(crate) const OUTPUT: u8 = 4;
    /// The source was lost; what was recorded until then is finished.
    pub(crate) const LOST: u8 = 5;
}

fn main() -> ExitCode {
    let args = Args::parse();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // More threads than this only cost memory: a hundred cameras need a fraction of one core.
        .worker_threads(cores.clamp(1, 8))
        // For databases, name resolution and GStreamer, which may hang; they end when there is nothing to do.
        .max_blocking_threads(16)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("no threads to run on: {error}"));
            return ExitCode::from(exit::FAILURE);
        }
    };
    let code = runtime.block_on(async {
        match args.command {
            None => serve::run(&args.serve).await,
            Some(Command::Record(record)) => record::run(record).await,
            Some(Command::Probe(probe)) => probe::run(&probe).await,
            Some(Command::Snapshot(args)) => snapshot::run(&args).await,
            Some(Command::Recording(command)) => recording::run(command).await,
            Some(Command::Export(args)) => export::run(args).await,
            Some(Command::Discover(args)) => discover::run(args).await,
            Some(Command::Detect(args)) => detect::run(args, detect::Kind::Detector).await,
            Some(Command::Classify(args)) => detect::run(args, detect::Kind::Classifier).await,
            Some(Command::Models(command)) => models::run(command),
            Some(Command::Check(check)) => check::run(&check),
            Some(Command::Config(command)) => config::run(command),
            Some(Command::Openapi) => config::openapi(),
            // Nothing else runs: these may block.
            Some(Command::Recordings(command)) => recordings::run(command),
            Some(Command::Events(EventsCommand::Search(args))) => events::run(args),
            Some(Command::Backup(args)) => backup::make(args),
            Some(Command::Restore(args)) => backup::restore(args),
            Some(Command::User(command)) => accounts::users(command),
            Some(Command::Token(command)) => accounts::tokens(command),
            Some(Command::Fsck(args)) => fsck::run(&args),
        }
    });
    // A GStreamer element that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ExitCode::from(code)
}
