//! The arguments.

use clap::{Args as ClapArgs, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use stream_manager_core::config::{BackendChoice, DurationText, Layout};
use stream_manager_core::frame::WallTime;
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
    /// Compare the recordings with their index (while no server runs)
    Fsck(FsckArgs),
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
    /// Print JSON, one line for each analysed picture
    #[arg(long)]
    pub(crate) json: bool,
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
