//! The arguments.

mod accounts;
mod inference;
mod recordings;

pub(crate) use accounts::{Rights, TokenCommand, UserCommand};
use clap::{Args as ClapArgs, Parser, Subcommand};
pub(crate) use inference::{DetectArgs, ModelArgs, ModelsCommand};
pub(crate) use recordings::{
    BackupArgs, EventsCommand, ExportArgs, FsckArgs, Place, RangeArgs, RecordingCommand, RecordingsCommand,
    RestoreArgs, SearchArgs, ServerArgs,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use stream_manager_core::config::DurationText;
use stream_manager_core::recording::RecordingFormat;
use stream_manager_core::source::SourceTransport;

#[derive(Parser)]
#[command(
    name = "stream-manager",
    version,
    about = "Records, re-serves and analyses live camera streams",
    long_about = "Records, re-serves and analyses live camera streams.\n\nWithout a command it runs as a server.",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Record one source into a file
    Record(RecordArgs),
    /// Show what a source sends
    Probe(ProbeArgs),
    /// Make a picture of what a source shows, as JPEG
    Snapshot(SnapshotArgs),
    /// Find ONVIF cameras, and show what to write into the configuration for them
    Discover(DiscoverArgs),
    /// Find objects in a stream, a video or an image
    Detect(DetectArgs),
    /// Say what a stream, a video or an image shows
    Classify(DetectArgs),
    /// Look at models, or time them
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Check the configuration and the installed GStreamer plugins
    Check(CheckArgs),
    /// Write out the configuration, or its JSON Schema
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the description of the HTTP API (OpenAPI 3.1, JSON)
    Openapi,
    /// List, protect, delete or verify what the server has recorded (it may be running)
    #[command(subcommand)]
    Recordings(RecordingsCommand),
    /// Look for what was seen (the server may be running)
    #[command(subcommand)]
    Events(EventsCommand),
    /// Tell a running server to start, stop, pause, resume or split a stream's recording
    #[command(subcommand)]
    Recording(RecordingCommand),
    /// Write a span of what the server has recorded into one file (it may be running)
    Export(ExportArgs),
    /// Compare the recordings with their index (while no server runs)
    Fsck(FsckArgs),
    /// Write streams, settings, users and the index of recordings into one file (the server may be running)
    Backup(BackupArgs),
    /// Bring back what a backup holds (while no server runs on the folder)
    Restore(RestoreArgs),
    /// Make, change, list and remove users (the server may be running)
    #[command(subcommand)]
    User(UserCommand),
    /// Make, list and remove API tokens (the server may be running)
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the file, what was set through the API, and all streams as one file (the server may be running)
    Export {
        /// With passwords, so that it can be used as it is
        #[arg(long)]
        secrets: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
}

#[derive(ClapArgs)]
pub(crate) struct SnapshotArgs {
    /// The source: rtsp://, http://, a file, test:// …
    pub(crate) url: String,
    /// The file to write; - for standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Its width in pixels, if it is to be smaller than it comes
    #[arg(long, value_parser = clap::value_parser!(u32).range(8..=16384))]
    pub(crate) width: Option<u32>,
    /// JPEG quality
    #[arg(long, default_value_t = 85, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) quality: u8,
    /// How RTP travels: auto, tcp or udp
    #[arg(long, value_parser = parse_transport, default_value = "auto", value_name = "auto|tcp|udp")]
    pub(crate) transport: SourceTransport,
    /// What to log: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub(crate) log: String,
}

#[derive(ClapArgs)]
pub(crate) struct ServeArgs {
    /// The configuration file [default: config.toml here or in /etc/stream-manager, if there is one]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The port to serve HTTP on (also STREAM_MANAGER_PORT) [default: 3000]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// The address to serve HTTP on [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address to serve RTSP on [default: 0.0.0.0:8554]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) rtsp_listen: Option<SocketAddr>,
    /// The folder for everything [default: data]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
}

#[derive(ClapArgs)]
#[command(
    after_help = "Exit codes: 0 done, 1 other failure, 2 wrong arguments, 3 the source cannot be opened,\n\
    4 the output cannot be written, 5 the source was lost (what was recorded until then is finished)."
)]
pub(crate) struct RecordArgs {
    /// rtsp://, rtsps://, http://, https://, file://, test:// or gst: and a launch line
    pub(crate) url: String,
    /// The file to write, ending in .mp4, .mkv or .ts; - for standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: String,
    /// How much to record, such as 30s or 1h; until the end or Ctrl-C if not given
    #[arg(long, short, value_name = "DURATION")]
    pub(crate) duration: Option<DurationText>,
    /// Begin a new file (out-2.mp4, out-3.mp4, ...) at the first keyframe after this long
    #[arg(long, value_name = "DURATION")]
    pub(crate) segment: Option<DurationText>,
    /// The container [default: by the output's name; fmp4 for .mp4]
    #[arg(long, value_parser = parse_format, value_name = "fmp4|mp4|mkv|ts")]
    pub(crate) format: Option<RecordingFormat>,
    /// How RTP travels
    #[arg(long, value_parser = parse_transport, default_value = "auto", value_name = "auto|tcp|udp")]
    pub(crate) transport: SourceTransport,
    /// How long a source that has been lost is tried again; 0s for not at all
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    pub(crate) reconnect_for: DurationText,
    /// Replace the output if it exists
    #[arg(long, short = 'y')]
    pub(crate) overwrite: bool,
    /// Tell progress as JSON lines on standard output (on standard error with -o -)
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing but errors
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// What to log: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub(crate) log: String,
}

#[derive(ClapArgs)]
pub(crate) struct ProbeArgs {
    /// rtsp://, rtsps://, http://, https://, file://, test:// or gst: and a launch line
    pub(crate) url: String,
    /// For how long to look at it
    #[arg(long, short, value_name = "DURATION", default_value = "3s")]
    pub(crate) duration: DurationText,
    /// How RTP travels
    #[arg(long, value_parser = parse_transport, default_value = "auto", value_name = "auto|tcp|udp")]
    pub(crate) transport: SourceTransport,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// What to log: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub(crate) log: String,
}

#[derive(ClapArgs)]
pub(crate) struct DiscoverArgs {
    /// Only these: hosts, hosts with a port, or addresses of ONVIF services [default: all of the network is asked]
    pub(crate) addresses: Vec<String>,
    /// Who asks them what they send
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// The user's password
    #[arg(long, requires = "user", env = "ONVIF_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
    /// How long devices have to answer
    #[arg(long, short, value_name = "DURATION", default_value = "3s")]
    pub(crate) timeout: DurationText,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// What to log: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub(crate) log: String,
}

#[derive(ClapArgs)]
pub(crate) struct CheckArgs {
    /// The configuration file [default: config.toml here or in /etc/stream-manager, if there is one]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

fn parse_format(text: &str) -> Result<RecordingFormat, String> {
    match text {
        "fmp4" => Ok(RecordingFormat::Fmp4),
        "mp4" => Ok(RecordingFormat::Mp4),
        "mkv" => Ok(RecordingFormat::Mkv),
        "ts" => Ok(RecordingFormat::Ts),
        _ => Err("expected fmp4, mp4, mkv or ts".into()),
    }
}

fn parse_transport(text: &str) -> Result<SourceTransport, String> {
    match text {
        "auto" => Ok(SourceTransport::Auto),
        "tcp" => Ok(SourceTransport::Tcp),
        "udp" => Ok(SourceTransport::Udp),
        _ => Err("expected auto, tcp or udp".into()),
    }
}
