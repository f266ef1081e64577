//! What was recorded: looked for, exported, kept, backed up.

use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;
use stream_manager_core::backup::Include;
use stream_manager_core::config::DurationText;
use stream_manager_core::frame::WallTime;
use stream_manager_core::playback::{ExportFormat, TimeZoneName};

fn include_of(text: &str) -> Result<Include, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

#[derive(ClapArgs)]
pub(crate) struct BackupArgs {
    /// The file to write [default: stream-manager-TIME.tar.gz]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// What it is of: config, state, index, recordings (whose files go into the folder "recordings" beside it)
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = include_of, default_value = "config,state,index")]
    pub(crate) include: Vec<Include>,
    /// Encrypt it for this public key of age's (several times for several) [default: backup.recipients]
    #[arg(long, value_name = "KEY")]
    pub(crate) recipient: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(ClapArgs)]
pub(crate) struct RestoreArgs {
    /// The backup
    pub(crate) backup: PathBuf,
    /// Where the configuration file goes; it stays in the backup if not given
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The data folder [default: that of the configuration in the backup, or data]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The file with the key to an encrypted backup, as age-keygen writes it
    #[arg(long, short, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Leave the recordings of the backup where they are
    #[arg(long)]
    pub(crate) no_recordings: bool,
    /// Replace what is there; it is put aside
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Only say what is in it, and whether it is whole
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Which stream, and which server has it.
#[derive(ClapArgs)]
pub(crate) struct ServerArgs {
    /// The stream's id
    pub(crate) stream: String,
    /// The server; a user and a password may stand in it: http://user:password@host:3000
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "STREAM_MANAGER_URL",
        hide_env_values = true,
        default_value = "http://localhost:3000"
    )]
    pub(crate) server: String,
    /// Print how the recording stands as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum RecordingCommand {
    /// Record, also after a restart
    Start(ServerArgs),
    /// Finish the file and record no longer, also after a restart
    Stop(ServerArgs),
    /// Hold the recording, also after a restart
    Pause(ServerArgs),
    /// Go on after a pause
    Resume(ServerArgs),
    /// Begin a new file at the next keyframe
    Split(ServerArgs),
    /// Leave it to its modes again, after a start, a pause or a stop
    Auto(ServerArgs),
    /// Tell of an event, which is recorded with the seconds before it, and marked
    Trigger {
        #[command(flatten)]
        of: ServerArgs,
        /// What kind of event
        #[arg(long, default_value = "event")]
        kind: String,
        /// What happened, in words
        #[arg(long, default_value = "")]
        text: String,
        /// For how long from now on it is recorded [default: the stream's post_roll]
        #[arg(long, value_name = "DURATION")]
        duration: Option<DurationText>,
    },
}

#[derive(ClapArgs)]
pub(crate) struct ExportArgs {
    /// The stream's id
    pub(crate) id: String,
    /// From the keyframe at or before this time (with --exact from this picture): RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub(crate) start: WallTime,
    /// Up to this time
    #[arg(long, value_name = "TIME", required_unless_present = "duration", conflicts_with = "duration")]
    pub(crate) end: Option<WallTime>,
    /// Or for this long
    #[arg(long, value_name = "DURATION")]
    pub(crate) duration: Option<DurationText>,
    /// The file to write, ending in .mp4, .mkv or .ts
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The container [default: by the output's name; else mp4]
    #[arg(long, value_parser = parse_export_format, value_name = "mp4|fmp4|mkv|ts")]
    pub(crate) format: Option<ExportFormat>,
    /// Begin and end with the picture at these times: the GOPs at the edges are encoded anew
    #[arg(long)]
    pub(crate) exact: bool,
    /// A time-lapse: so many times as fast, without sound
    #[arg(long, value_name = "TIMES")]
    pub(crate) speed: Option<f64>,
    /// Write the time into the picture, in this time zone: UTC, local, Europe/Berlin, ...
    #[arg(long, value_name = "ZONE", num_args = 0..=1, default_missing_value = "local")]
    pub(crate) burn_time: Option<TimeZoneName>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// End where something is missing, instead of leaving it out
    #[arg(long)]
    pub(crate) stop_at_gaps: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Where the recordings are.
#[derive(ClapArgs)]
pub(crate) struct Place {
    /// The configuration file [default: config.toml here or in /etc/stream-manager, if there is one]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The folder for everything, instead of the configuration's
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Part of the time.
#[derive(ClapArgs)]
pub(crate) struct RangeArgs {
    /// From here on: RFC 3339 such as 2026-01-31T23:59:59Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub(crate) start: Option<WallTime>,
    /// Up to here
    #[arg(long, value_name = "TIME")]
    pub(crate) end: Option<WallTime>,
}

#[derive(Subcommand)]
pub(crate) enum EventsCommand {
    /// List the objects that were seen, the newest first
    Search(SearchArgs),
}

#[derive(ClapArgs)]
pub(crate) struct SearchArgs {
    /// Only these streams: ids, in which * stands for anything, with commas
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub(crate) stream: Vec<String>,
    /// Only what is one of these, with commas
    #[arg(long, value_delimiter = ',', value_name = "LABELS")]
    pub(crate) label: Vec<String>,
    /// Only what has been in one of these zones, with commas
    #[arg(long, value_delimiter = ',', value_name = "ZONES")]
    pub(crate) zone: Vec<String>,
    /// The score that the best picture has to have, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "SCORE")]
    pub(crate) min_score: f32,
    #[command(flatten)]
    pub(crate) range: RangeArgs,
    /// The oldest first
    #[arg(long)]
    pub(crate) oldest: bool,
    /// How many at most
    #[arg(long, default_value_t = 100, value_name = "NUMBER")]
    pub(crate) limit: usize,
    /// Print JSON, one line for each
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Subcommand)]
pub(crate) enum RecordingsCommand {
    /// List segments and gaps
    List {
        /// The stream; all if not given
        stream: Option<String>,
        #[command(flatten)]
        range: RangeArgs,
        /// Print JSON, one line a stream
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Delete the segments that lie wholly between --start and --end
    Delete {
        /// The stream
        stream: String,
        #[command(flatten)]
        range: RangeArgs,
        /// Also delete protected segments
        #[arg(long)]
        protected: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Protect the segments that touch the time between --start and --end from retention
    Protect {
        /// The stream
        stream: String,
        #[command(flatten)]
        range: RangeArgs,
        /// No longer protect them
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Read every segment's file and compare it with the index
    Verify {
        /// The stream; all if not given
        stream: Option<String>,
        #[command(flatten)]
        range: RangeArgs,
        /// Print JSON, one line a segment
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(ClapArgs)]
#[command(after_help = "Exit codes: 0 all is well (or has been put right), 1 it is not, 2 wrong arguments.")]
pub(crate) struct FsckArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Put right what is found
    #[arg(long)]
    pub(crate) repair: bool,
    /// Put the index aside and make a new one from the files
    #[arg(long)]
    pub(crate) rebuild: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_export_format(text: &str) -> Result<ExportFormat, String> {
    match text {
        "mp4" => Ok(ExportFormat::Mp4),
        "fmp4" => Ok(ExportFormat::Fmp4),
        "mkv" => Ok(ExportFormat::Mkv),
        "ts" => Ok(ExportFormat::Ts),
        _ => Err("expected mp4, fmp4, mkv or ts".into()),
    }
}
