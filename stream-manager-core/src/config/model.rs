//! The description of a model: what it is for, what it takes and gives, and what runs it.

use super::{BytesText, DurationText, units};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Finds objects and where they are.
    Detector,
    /// Says what a picture shows.
    Classifier,
}

/// What a model's outputs mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Layout {
    /// `[n, cells, 5 + classes]`, centre and size relative to a grid cell, with objectness (YOLOX).
    #[serde(rename = "yolox")]
    YoloX,
    /// `[n, anchors, 5 + classes]`, centre and size in pixels, with objectness (YOLOv5, v7).
    #[serde(rename = "yolov5", alias = "yolov7")]
    YoloV5,
    /// `[n, 4 + classes, cells]`, centre and size in pixels (YOLOv8, v9, 11, 12).
    #[serde(rename = "yolov8", alias = "yolov9", alias = "yolo11", alias = "yolov11", alias = "yolo12")]
    YoloV8,
    /// `[n, boxes, 6]`: two corners in pixels, score, class, without a need for NMS (YOLOv10, and any with NMS built in).
    #[serde(rename = "yolov10", alias = "end-to-end", alias = "yolo26")]
    EndToEnd,
    /// Queries of a transformer, relative to the picture: `[n, queries, 4 + classes]`; or boxes and logits; or labels,
    /// boxes and scores with the picture's size as second input (RT-DETR, D-FINE).
    #[serde(rename = "rt-detr", alias = "rtdetr", alias = "d-fine")]
    RtDetr,
    /// Boxes, classes and scores as outputs of their own, NMS built in (SSD and what TensorFlow exports).
    #[serde(rename = "ssd")]
    Ssd,
    /// `[n, classes]`: probabilities.
    #[serde(rename = "softmax")]
    Softmax,
    /// `[n, classes]`: values that become probabilities by softmax.
    #[serde(rename = "logits")]
    Logits,
}

impl Layout {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::YoloX => "yolox",
            Self::YoloV5 => "yolov5",
            Self::YoloV8 => "yolov8",
            Self::EndToEnd => "yolov10",
            Self::RtDetr => "rt-detr",
            Self::Ssd => "ssd",
            Self::Softmax => "softmax",
            Self::Logits => "logits",
        }
    }

    /// What a model of this layout is for.
    pub fn kind(self) -> ModelKind {
        match self {
            Self::Softmax | Self::Logits => ModelKind::Classifier,
            _ => ModelKind::Detector,
        }
    }
}

/// The order of a picture's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColorOrder {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
    /// One channel.
    Gray,
}

/// How a picture comes into the shape of the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// As a whole, in the upper left corner, the rest filled.
    TopLeft,
    /// As a whole, in the middle, the rest filled.
    Center,
    /// Stretched.
    Stretch,
    /// As much of its middle as fills the input.
    Crop,
}

/// Which hardware runs a model: `auto`, `tensorrt`, `cuda`, `cpu`, or the name of a backend that the program has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BackendChoice {
    /// The first of TensorRT, CUDA and CPU that works.
    #[default]
    Auto,
    /// TensorRT on an NVIDIA GPU.
    TensorRt,
    /// CUDA on an NVIDIA GPU.
    Cuda,
    /// The CPU.
    Cpu,
    /// One that the program has registered.
    Named(String),
}

impl BackendChoice {
    /// As in the configuration.
    pub fn name(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
            Self::Named(name) => name,
        }
    }
}

impl std::str::FromStr for BackendChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "auto" => Self::Auto,
            "tensorrt" => Self::TensorRt,
            "cuda" => Self::Cuda,
            "cpu" => Self::Cpu,
            "" => {
                return Err(
                    "expected auto, tensorrt, cuda, cpu or the name of a backend of the program".into()
                );
            }
            name => Self::Named(name.to_owned()),
        })
    }
}

impl TryFrom<String> for BackendChoice {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<BackendChoice> for String {
    fn from(choice: BackendChoice) -> Self {
        choice.name().to_owned()
    }
}

impl JsonSchema for BackendChoice {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BackendChoice".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "minLength": 1,
            "description": "auto, tensorrt, cuda, cpu, or the name of a backend that the program has"
        })
    }
}

/// How exactly a GPU computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    Fp32,
    /// 16 bits where TensorRT finds it faster.
    #[default]
    Fp16,
    /// 8 bits, for models that are quantized (QDQ); 16 for the rest.
    Int8,
}

/// The names of a model's classes: a file with one a line, or a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Labels {
    /// A text file.
    File(PathBuf),
    /// The names.
    List(Vec<String>),
}

/// `[[inference.models]]`: a model by its description. What is not set is read from the file as far as it says so.
///
/// ```
/// use stream_manager_core::config::ModelSpec;
/// let model = ModelSpec::new("models/yolox_nano.onnx").labels_file("models/coco.txt").threshold(0.5);
/// assert_eq!(model.name(), "yolox_nano");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// What streams call it; the file's name without its ending if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The ONNX file.
    pub path: PathBuf,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ModelKind>,
    /// What its outputs mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Its classes' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Width and height of its input, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_size: Option<[u32; 2]>,
    /// The order of channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<ColorOrder>,
    /// What 0 to 255 is multiplied by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// What is then subtracted, for each channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// What is then divided by, for each channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// How pictures come into its shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letterbox: Option<Fit>,
    /// What the rest is filled with, 0 to 255.
    #[serde(default = "pad")]
    pub pad: u8,
    /// The lowest score that counts.
    #[serde(default = "threshold")]
    pub threshold: f32,
    /// The same for single classes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub class_thresholds: BTreeMap<String, f32>,
    /// The classes that count; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Of two boxes of one class that overlap by more than this (intersection over union) the better one counts.
    #[serde(default = "nms_iou")]
    pub nms_iou: f32,
    /// Objects in one picture at most; for classifiers, how many of the best classes are told.
    #[serde(default = "max_detections")]
    pub max_detections: usize,
    /// What runs it.
    #[serde(default)]
    pub backend: BackendChoice,
    /// Which GPU.
    #[serde(default)]
    pub device: u32,
    /// How exactly a GPU computes.
    #[serde(default)]
    pub precision: Precision,
    /// CPU threads of each instance; 0 for as many as there are cores, four at most.
    #[serde(default)]
    pub threads: usize,
    /// CPUs (numbered from 0) that its threads keep to; any if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<usize>,
    /// How often it is loaded; 0 for once in every four cores.
    #[serde(default)]
    pub instances: usize,
    /// Pictures that are computed at once; 0 for what fits: 1 on a CPU, 16 on a GPU if the file allows it.
    #[serde(default)]
    pub max_batch: usize,
    /// How long a picture waits for others to be computed with.
    #[serde(default = "max_delay")]
    pub max_delay: DurationText,
    /// How long computing may take before the model counts as failed.
    #[serde(default = "run_timeout")]
    pub run_timeout: DurationText,
    /// The largest file that is loaded.
    #[serde(default = "max_size")]
    pub max_size: BytesText,
}

fn pad() -> u8 {
    114
}
fn threshold() -> f32 {
    0.35
}
fn nms_iou() -> f32 {
    0.5
}
fn max_detections() -> usize {
    100
}
fn max_delay() -> DurationText {
    DurationText(Duration::from_millis(5))
}
fn run_timeout() -> DurationText {
    DurationText(Duration::from_secs(10))
}
fn max_size() -> BytesText {
    BytesText(2 << 30)
}

impl ModelSpec {
    /// A model of which only the file is known.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            name: None,
            path: path.into(),
            kind: None,
            layout: None,
            labels: None,
            input_size: None,
            color: None,
            scale: None,
            mean: None,
            std: None,
            letterbox: None,
            pad: pad(),
            threshold: threshold(),
            class_thresholds: BTreeMap::new(),
            classes: Vec::new(),
            nms_iou: nms_iou(),
            max_detections: max_detections(),
            backend: BackendChoice::Auto,
            device: 0,
            precision: Precision::default(),
            threads: 0,
            cpus: Vec::new(),
            instances: 0,
            max_batch: 0,
            max_delay: max_delay(),
            run_timeout: run_timeout(),
            max_size: max_size(),
        }
    }

    /// What streams call it.
    pub fn name(&self) -> String {
        let stem =
            || self.path.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned());
        self.name.clone().unwrap_or_else(stem)
    }

    /// Sets what streams call it.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets what its outputs mean.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = Some(layout);
        self
    }

    /// Sets its classes' names.
    #[must_use]
    pub fn labels(mut self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.labels = Some(Labels::List(labels.into_iter().map(Into::into).collect()));
        self
    }

    /// Sets the file with its classes' names, one a line.
    #[must_use]
    pub fn labels_file(mut self, path: impl AsRef<Path>) -> Self {
        self.labels = Some(Labels::File(path.as_ref().to_owned()));
        self
    }

    /// Sets the lowest score that counts.
    #[must_use]
    pub fn threshold(mut self, threshold: f32) -> Self {
        self.threshold = threshold;
        self
    }

    /// Sets what runs it.
    #[must_use]
    pub fn backend(mut self, backend: BackendChoice) -> Self {
        self.backend = backend;
        self
    }

    /// What is wrong with it: the key, and what would be right. The file itself is not looked at.
    pub fn check(&self) -> Result<(), String> {
        let unit = |key: &str, value: f32| {
            if units::is_part(value) { Ok(()) } else { Err(format!("{key}: it is {value}; expected 0 to 1")) }
        };
        if self.path.as_os_str().is_empty() {
            return Err("path: it is empty; expected an ONNX file".into());
        }
        if self.name.as_ref().is_some_and(|n| n.is_empty() || n.len() > 100 || n.contains('/')) {
            return Err("name: expected 1 to 100 characters without \"/\"".into());
        }
        unit("threshold", self.threshold)?;
        unit("nms_iou", self.nms_iou)?;
        for (class, value) in &self.class_thresholds {
            unit(&format!("class_thresholds.{class}"), *value)?;
        }
        if let Some((kind, layout)) = self.kind.zip(self.layout)
            && layout.kind() != kind
        {
            return Err(format!(
                "layout: \"{}\" does not belong to this kind; expected {}",
                layout.name(),
                match kind {
                    ModelKind::Detector => "yolox, yolov5, yolov8, yolov10, rt-detr or ssd",
                    ModelKind::Classifier => "softmax or logits",
                }
            ));
        }
        if self.input_size.is_some_and(|s| s.iter().any(|v| !(1..=8192).contains(v))) {
            return Err("input_size: expected a width and a height of 1 to 8192".into());
        }
        let number = |key: &str, value: usize, most: usize| {
            if value <= most { Ok(()) } else { Err(format!("{key}: it is {value}; expected at most {most}")) }
        };
        number("threads", self.threads, 256)?;
        number("instances", self.instances, 64)?;
        number("max_batch", self.max_batch, 256)?;
        if self.max_detections == 0 {
            return Err("max_detections: it is 0; expected at least 1".into());
        }
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            let Some(values) = values else { continue };
            if !matches!(values.len(), 1 | 3) || values.iter().any(|v| !v.is_finite()) {
                return Err(format!("{key}: expected one number, or one for each of three channels"));
            }
            if key == "std" && values.contains(&0.0) {
                return Err("std: it has a 0; expected numbers to divide by".into());
            }
        }
        if self.scale.is_some_and(|s| !s.is_finite() || s == 0.0) {
            return Err("scale: expected a number that is not 0".into());
        }
        if self.max_delay.0 > Duration::from_secs(1) {
            return Err(format!("max_delay: it is {}; expected at most 1s", self.max_delay));
        }
        if self.run_timeout.0 < Duration::from_millis(100) {
            return Err(format!("run_timeout: it is {}; expected at least 100ms", self.run_timeout));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::inference::InferenceConfig;
    use super::*;

    #[test]
    fn a_wrong_description_names_the_key() {
        let wrong = |change: &dyn Fn(&mut ModelSpec)| {
            let mut spec = ModelSpec::new("a.onnx");
            assert_eq!(spec.check(), Ok(()));
            change(&mut spec);
            spec.check().unwrap_err()
        };
        assert_eq!(wrong(&|s| s.threshold = 2.0), "threshold: it is 2; expected 0 to 1");
        assert!(wrong(&|s| s.mean = Some(vec![1.0, 2.0])).starts_with("mean:"));
        assert!(wrong(&|s| s.std = Some(vec![0.0])).starts_with("std: it has a 0"));
        let both = wrong(&|s| (s.kind, s.layout) = (Some(ModelKind::Classifier), Some(Layout::YoloX)));
        assert!(both.contains("expected softmax or logits"), "{both}");
        let twice = InferenceConfig {
            models: vec![ModelSpec::new("a.onnx"), ModelSpec::new("b/a.onnx")],
            ..Default::default()
        };
        assert!(twice.check().unwrap_err().starts_with("inference.models[1].name: \"a\""));
    }
}
