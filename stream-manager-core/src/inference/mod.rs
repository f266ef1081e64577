//! What happens in a picture: object detection and classification, on any CPU, and on GPUs where there is one (feature
//! `inference`; GPUs: `tensorrt`).
//!
//! ```text
//! hub ── Analysis (one per stream): decodes ── mailbox, newest wins ─┐
//! hub ── Analysis ── mailbox ─────────────────────────────────────────┼─ Model (one for all streams): fair turns,
//! POST /api/infer ── queue, bounded ──────────────────────────────────┘  batches ── Detections
//! ```
//!
//! A [`Model`] is described by a [`ModelSpec`] and computed by an [`InferenceBackend`]; all of a program's are in
//! [`Models`]. A stream's [`Analysis`] is a sink like any other: it reads the hub through a queue of its own, so nothing
//! here can hold back the hub or the recorder. Its pictures wait in a mailbox of one place, and streams take turns.
//!
//! Pictures stay as the decoder made them (I420 or NV12, no copy) until their turn comes; then they are scaled and
//! converted once, to the size that the model takes.
//!
//! ```no_run
//! use stream_manager_core::inference::{ModelSpec, Models, ModelsOptions, Picture};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let spec = ModelSpec::new("yolox_nano.onnx").labels_file("coco.txt");
//! let models = Models::new(ModelsOptions::default(), vec![spec]);
//! let seen = models.get("yolox_nano")?.infer(Picture::from_image(&std::fs::read("door.jpg")?)?).await?;
//! for object in &seen.detections {
//!     let (label, score, place) = (&object.label, object.score, object.region);
//! }
//! # Ok(())
//! # }
//! ```

mod analysis;
mod annotate;
mod backend;
mod convert;
mod decode;
mod error;
mod file;
mod follow;
mod geometry;
mod inspect;
mod instance;
mod layout;
mod library;
mod metadata;
mod mock;
mod models;
mod motion;
mod nms;
mod ort_backend;
mod overlay;
mod picture;
mod plan;
mod preprocess;
mod scene;
mod scheduler;
mod stats;
mod tensor;
mod track;
mod video;

pub use crate::config::{
    AnalysisSettings, BackendChoice, CascadeConfig, ColorOrder, Fit, Labels, Layout, LineConfig, MaskConfig,
    ModelKind, ModelSpec, MotionSettings, ObjectSettings, Precision, Priority, SceneSettings,
    TrackingSettings, ZoneConfig,
};
pub use crate::detection::{Detection, Detections, Region};
pub use analysis::{Analysis, AnalysisHandle, AnalysisState, AnalysisStatus};
pub use annotate::{AnnotatedVideo, annotated, write_image};
pub use backend::{BackendFactory, BackendStats, ChosenBackend, InferenceBackend, Interrupt, LoadOptions};
pub use decode::LiveDecoder;
pub use error::InferenceError;
pub(crate) use follow::{Answer, Follow};
pub use geometry::Geometry;
pub use inspect::{BenchRow, Inspection, bench, inspect};
pub use library::INSTALL_COMMAND;
pub use mock::{MockBackend, MockRun};
pub use models::{Model, ModelState, ModelStatus, Models, ModelsOptions};
pub use nms::{Candidate, suppress};
pub use ort_backend::OrtBackend;
pub use overlay::Overlay;
pub use picture::{ColorSpace, Matrix, Picture, PixelFormat};
pub use plan::{ExtraInput, InputPlan, ModelPlan, Thresholds, Wanted};
pub use preprocess::Preprocessor;
pub use scene::{Happening, LineStatus, Scene, SceneStatus, ZoneStatus};
pub use stats::ModelStats;
pub use tensor::{ElementType, ModelIo, Tensor, TensorData, TensorInfo};
pub use track::{Track, Tracker, TrackerSettings};
pub use video::{VideoPicture, VideoReader};
