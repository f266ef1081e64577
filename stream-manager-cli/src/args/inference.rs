//! What is seen in pictures.

use super::parse_transport;
use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;
use stream_manager_core::config::{BackendChoice, DurationText, Layout, LineConfig, ZoneConfig};
use stream_manager_core::source::SourceTransport;

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

fn parse_layout(text: &str) -> Result<Layout, String> {
    let value: Result<Layout, serde_json::Error> = serde_json::from_value(text.into());
    value.map_err(|_| "expected yolox, yolov5, yolov8, yolov10, rt-detr, ssd, softmax or logits".into())
}
