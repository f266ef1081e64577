//! The arguments.

use clap::{Args as ClapArgs, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use stream_manager_core::auth::{Action, Network, PathPattern, Role};
use stream_manager_core::backup::Include;
use stream_manager_core::config::{BackendChoice, DurationText, Layout, LineConfig, ZoneConfig};
use stream_manager_core::frame::WallTime;
use stream_manager_core::playback::{ExportFormat, TimeZoneName};
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

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user; the password is asked for, or read from standard input
    Add {
        /// The name
        name: String,
        #[command(flatten)]
        rights: Rights,
        #[command(flatten)]
        place: Place,
    },
    /// Give a user another password, which is asked for, or read from standard input
    Passwd {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Give a user other permissions
    Allow {
        /// The name
        name: String,
        #[command(flatten)]
        rights: Rights,
        #[command(flatten)]
        place: Place,
    },
    /// Let a user do nothing for now
    Disable {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Let a disabled user in again
    Enable {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Take a user away, with the user's tokens
    Remove {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the users and what they may
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Print the hash of a password, for the configuration file
    Hash,
}

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it: this is the only time that it is shown
    Add {
        /// What it is for
        name: String,
        /// Whose it is; it may what its user may, unless told otherwise, and ends with the user
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        rights: Rights,
        /// For how long it is good, such as 30d; for ever if not given
        #[arg(long, value_name = "DURATION")]
        expires: Option<DurationText>,
        #[command(flatten)]
        place: Place,
    },
    /// Take a token away
    Remove {
        /// Its id, as `token list` shows it
        id: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the tokens
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

/// What somebody may.
#[derive(ClapArgs)]
pub(crate) struct Rights {
    /// A usual set: admin, operator, viewer, publisher or monitor
    #[arg(long)]
    pub(crate) role: Option<Role>,
    /// Single actions: read, publish, playback, record, api.read, api.write, metrics, admin; several with commas
    #[arg(long, value_delimiter = ',', value_name = "ACTION")]
    pub(crate) actions: Vec<Action>,
    /// Only with these streams: ids, in which * stands for anything; several with commas
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    pub(crate) streams: Vec<PathPattern>,
    /// Only from there: addresses or networks, such as 192.168.1.0/24; several with commas
    #[arg(long, value_delimiter = ',', value_name = "NETWORK")]
    pub(crate) from: Vec<Network>,
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

/// A model: a file, or one of the configuration.
#[derive(ClapArgs)]
pub(crate) struct ModelArgs {
    #[arg(long, value_parser = parse_layout, value_name = "LAYOUT", help = "What its outputs mean: yolox, yolov5, yolov8, yolov10, rt-detr, ssd, softmax or logits [default: guessed]")]
    pub(crate) layout: Option<Layout>,
    /// The names of its classes, a file with one a line [default: as the model's file says]
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// The lowest score that counts, 0 to 1
    #[arg(long, value_name = "SCORE")]
    pub(crate) threshold: Option<f32>,
    /// What runs it: auto, tensorrt, cuda or cpu [default: auto]
    #[arg(long, value_name = "BACKEND")]
    pub(crate) backend: Option<BackendChoice>,
    /// CPU threads [default: as many as there are cores, four at most]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) threads: Option<usize>,
    /// ONNX Runtime's library [default: inference.onnxruntime, or the usual places]
    #[arg(long, value_name = "FILE")]
    pub(crate) onnxruntime: Option<PathBuf>,
    /// The configuration file [default: config.toml here or in /etc/stream-manager, if there is one]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(ClapArgs)]
#[command(
    after_help = "With --json, one object a line: {\"time\": seconds, \"frame\": number, \"detections\": [{\"label\", \"score\", \"box\": [left, top, right, bottom] in pixels}]}.\n\
    Exit codes: 0 done, 1 other failure, 2 wrong arguments, 3 the source cannot be opened or decoded,\n\
    4 the output cannot be written."
)]
pub(crate) struct DetectArgs {
    /// rtsp://, rtsps://, http://, https://, test://, a video or an image (.jpg, .png)
    pub(crate) input: String,
    /// The model: an ONNX file, or the name of one in the configuration
    #[arg(long, short, value_name = "FILE|NAME")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) description: ModelArgs,
    /// Only these classes, with commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) classes: Vec<String>,
    /// Analyse every N-th picture only
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) every: u64,
    /// End after this many analysed pictures
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Write what was seen into a copy: .mp4 of a stream or a video, .jpg or .png of an image
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print JSON, one line for each analysed picture (or for each event)
    #[arg(long)]
    pub(crate) json: bool,
    /// Follow objects from picture to picture: each has a number
    #[arg(long)]
    pub(crate) track: bool,
    /// A zone, by its corners in order around it, each x,y from 0 to 1: yard=0.1,0.9,0.9,0.9,0.5,0.2 (several times for several)
    #[arg(long, value_name = "NAME=X,Y,…", value_parser = ZoneConfig::parse)]
    pub(crate) zone: Vec<ZoneConfig>,
    /// A line, from x,y to x,y: gate=0.5,1,0.5,0 (several times for several); forward is from its left to its right
    #[arg(long, value_name = "NAME=X,Y,X,Y", value_parser = LineConfig::parse)]
    pub(crate) line: Vec<LineConfig>,
    /// Print what objects do instead of what each picture has: when they come, go, enter and leave zones, cross lines
    #[arg(long)]
    pub(crate) events: bool,
    /// Tell how many pictures are analysed in a second, on standard error
    #[arg(long)]
    pub(crate) show_fps: bool,
    /// How RTP travels
    #[arg(long, value_parser = parse_transport, default_value = "auto", value_name = "auto|tcp|udp")]
    pub(crate) transport: SourceTransport,
    /// What to log: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub(crate) log: String,
}

#[derive(Subcommand)]
pub(crate) enum ModelsCommand {
    /// Show what a model's file says: inputs, outputs, what they mean
    Inspect {
        /// The ONNX file, or the name of a model in the configuration
        model: String,
        #[command(flatten)]
        description: ModelArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Time a model
    Bench {
        /// The ONNX file, or the name of a model in the configuration
        model: String,
        #[command(flatten)]
        description: ModelArgs,
        /// Pictures computed at once
        #[arg(long, value_delimiter = ',', default_value = "1", value_name = "NUMBERS")]
        batch: Vec<usize>,
        /// How long each is timed
        #[arg(long, default_value = "3s", value_name = "DURATION")]
        duration: DurationText,
        /// Print JSON, one line for each
        #[arg(long)]
        json: bool,
    },
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

fn parse_export_format(text: &str) -> Result<ExportFormat, String> {
    match text {
        "mp4" => Ok(ExportFormat::Mp4),
        "fmp4" => Ok(ExportFormat::Fmp4),
        "mkv" => Ok(ExportFormat::Mkv),
        "ts" => Ok(ExportFormat::Ts),
        _ => Err("expected mp4, fmp4, mkv or ts".into()),
    }
}

fn parse_layout(text: &str) -> Result<Layout, String> {
    let value: Result<Layout, serde_json::Error> = serde_json::from_value(text.into());
    value.map_err(|_| "expected yolox, yolov5, yolov8, yolov10, rt-detr, ssd, softmax or logits".into())
}

fn parse_transport(text: &str) -> Result<SourceTransport, String> {
    match text {
        "auto" => Ok(SourceTransport::Auto),
        "tcp" => Ok(SourceTransport::Tcp),
        "udp" => Ok(SourceTransport::Udp),
        _ => Err("expected auto, tcp or udp".into()),
    }
}
