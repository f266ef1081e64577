//! What a model needs and means, from its description and what its file says; made once when it is loaded.

use super::layout::{Outputs, guess};
use super::tensor::{ElementType, ModelIo, TensorInfo};
use super::{InferenceError, ModelSpec};
use crate::config::{ColorOrder, Fit, Labels, Layout, ModelKind};
use std::path::Path;
use std::sync::Arc;

/// A file of labels is not larger than this.
const MAX_LABELS_BYTES: u64 = 4 << 20;

/// How a picture becomes a model's input.
#[derive(Clone, Debug, PartialEq)]
pub struct InputPlan {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// One or three.
    pub channels: usize,
    /// Whether a channel's numbers lie together (NCHW) or a pixel's (NHWC).
    pub channels_first: bool,
    /// What it is made of.
    pub element: ElementType,
    /// The order of channels.
    pub color: ColorOrder,
    /// What 0 to 255 is multiplied by, for each channel.
    pub factor: [f32; 3],
    /// What is then added.
    pub offset: [f32; 3],
    /// How a picture comes into its shape.
    pub fit: Fit,
    /// What the rest is filled with.
    pub pad: u8,
}

/// A further input that is no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraInput {
    /// The height and width that boxes are to be relative to, as 64-bit integers `[n, 2]` (DETR).
    SizesHeightFirst,
    /// The same, width first (RT-DETR).
    SizesWidthFirst,
}

/// Everything about a loaded model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPlan {
    /// Its name.
    pub name: Arc<str>,
    /// What its outputs mean.
    pub layout: Layout,
    /// Which output is what.
    pub(super) outputs: Outputs,
    /// Its picture.
    pub input: InputPlan,
    /// The picture's place among its inputs.
    pub picture_input: usize,
    /// The inputs beside that.
    pub extra: Option<(usize, ExtraInput)>,
    /// The only number of pictures that it takes, if its file says so.
    pub fixed_batch: Option<usize>,
    /// Names of its classes.
    pub labels: Arc<[Arc<str>]>,
    /// The lowest scores that count.
    pub thresholds: Thresholds,
    /// See [`ModelSpec::nms_iou`].
    pub nms_iou: f32,
    /// See [`ModelSpec::max_detections`].
    pub max_detections: usize,
}

/// The lowest scores that count, by class; what is not wanted has one that nothing reaches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// By the class's number.
    pub classes: Vec<f32>,
    /// For classes beyond those.
    pub other: f32,
}

impl Thresholds {
    /// That of a class.
    pub fn of(&self, class: usize) -> f32 {
        self.classes.get(class).copied().unwrap_or(self.other)
    }

    /// The same, but this where they are higher; what is not wanted stays so.
    pub(super) fn lowered_to(&self, least: f32) -> Self {
        let lower = |bar: f32| if bar <= 1.0 { bar.min(least) } else { bar };
        Self { classes: self.classes.iter().copied().map(lower).collect(), other: lower(self.other) }
    }

    /// The lowest of all.
    pub fn lowest(&self) -> f32 {
        self.classes.iter().copied().reduce(f32::min).unwrap_or(self.other)
    }
}

/// What one who asks may want otherwise than the model's description.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The lowest score that counts.
    pub threshold: Option<f32>,
    /// The classes that count; as described if empty.
    pub classes: Vec<String>,
}

impl ModelPlan {
    /// Brings a description and a file together.
    ///
    /// # Errors
    /// If they contradict each other, or leave something open; names the tensor or the key.
    pub fn new(spec: &ModelSpec, io: &ModelIo) -> Result<Self, InferenceError> {
        let name: Arc<str> = spec.name().into();
        let (picture_input, info) = picture_input(&name, io)?;
        let (mut input, fixed_batch) = shape(spec, &name, info, io)?;
        let (layout, outputs) = guess(spec, &name, io, &input)?;
        normalise(spec, layout, io, &mut input);
        let extra = extra_inputs(&name, io, picture_input)?;
        let labels = labels(spec, &name, io, outputs.classes)?;
        let wanted = Wanted::default();
        let mut plan = Self {
            name,
            layout,
            outputs,
            input,
            picture_input,
            extra,
            fixed_batch,
            labels: labels.into(),
            thresholds: Thresholds::default(),
            nms_iou: spec.nms_iou,
            max_detections: spec.max_detections,
        };
        plan.thresholds = plan.thresholds_for(spec, &wanted)?;
        Ok(plan)
    }

    /// What it is for.
    pub fn kind(&self) -> ModelKind {
        self.layout.kind()
    }

    /// The name of a class.
    pub fn label(&self, class: usize) -> Arc<str> {
        self.labels.get(class).cloned().unwrap_or_else(|| class.to_string().into())
    }

    /// The lowest scores that count for one who asks.
    ///
    /// # Errors
    /// If there is no such class.
    pub fn thresholds_for(&self, spec: &ModelSpec, wanted: &Wanted) -> Result<Thresholds, InferenceError> {
        let number = self.labels.len().max(self.outputs.classes.unwrap_or(0));
        let find = |key: &'static str, class: &str| {
            self.labels.iter().position(|label| **label == *class).ok_or_else(|| InferenceError::Spec {
                model: self.name.to_string(),
                key,
                problem: format!("there is no class \"{class}\"; {}", some_of(&self.labels)),
            })
        };
        let lowest = wanted.threshold.unwrap_or(spec.threshold);
        let classes = if wanted.classes.is_empty() { &spec.classes } else { &wanted.classes };
        let mut thresholds = vec![if classes.is_empty() { lowest } else { f32::INFINITY }; number];
        // Where nobody knows how many classes there are, all count alike.
        let other = if number == 0 { lowest } else { f32::INFINITY };
        for class in classes {
            thresholds[find("classes", class)?] = lowest;
        }
        for (class, value) in &spec.class_thresholds {
            let index = find("class_thresholds", class)?;
            if thresholds[index].is_finite() && wanted.threshold.is_none() {
                thresholds[index] = *value;
            }
        }
        Ok(Thresholds { classes: thresholds, other })
    }
}

fn some_of(labels: &[Arc<str>]) -> String {
    match labels {
        [] => "its classes have no names; set labels".into(),
        labels => {
            let some: Vec<&str> = labels.iter().take(8).map(|l| &**l).collect();
            format!("expected one of: {}{}", some.join(", "), if labels.len() > 8 { ", ..." } else { "" })
        }
    }
}

pub(super) fn mismatch(model: &str, info: &TensorInfo, expected: impl Into<String>) -> InferenceError {
    InferenceError::Mismatch {
        model: model.to_owned(),
        tensor: info.name.clone(),
        found: info.to_string(),
        expected: expected.into(),
    }
}

fn picture_input<'a>(name: &str, io: &'a ModelIo) -> Result<(usize, &'a TensorInfo), InferenceError> {
    let pictures: Vec<_> = io.inputs.iter().enumerate().filter(|(_, i)| i.shape.len() == 4).collect();
    match pictures[..] {
        [one] => Ok(one),
        [] => match io.inputs.first() {
            Some(first) => Err(mismatch(name, first, "a picture: [n,3,height,width] or [n,height,width,3]")),
            None => Err(InferenceError::Run { model: name.to_owned(), problem: "it has no inputs".into() }),
        },
        [_, (_, second), ..] => {
            Err(mismatch(name, second, "a model with one picture as input; this is another one"))
        }
    }
}

fn shape(
    spec: &ModelSpec,
    name: &str,
    info: &TensorInfo,
    io: &ModelIo,
) -> Result<(InputPlan, Option<usize>), InferenceError> {
    let [batch, a, b, c] = info.shape[..] else {
        return Err(mismatch(name, info, "four sizes"));
    };
    let is_color = |size: Option<usize>| matches!(size, Some(1 | 3));
    let (channels_first, channels, height, width) = match (is_color(a), is_color(c)) {
        (true, _) => (true, a, b, c),
        (false, true) => (false, c, a, b),
        // Left open: as nearly everybody does it.
        (false, false) if a.is_none() => (true, Some(3), b, c),
        _ => return Err(mismatch(name, info, "1 or 3 channels: [n,3,height,width] or [n,height,width,3]")),
    };
    if !matches!(info.element, ElementType::F32 | ElementType::F16 | ElementType::U8) {
        return Err(mismatch(name, info, "made of f32, f16 or u8"));
    }
    let stated = spec.input_size.map(|[w, h]| (w as usize, h as usize)).or_else(|| image_size(io));
    let one = |found: Option<usize>, stated: Option<usize>, what: &str| match (found, stated) {
        (Some(found), Some(stated)) if found != stated && spec.input_size.is_some() => {
            Err(mismatch(name, info, format!("a {what} of {stated}, as input_size says")))
        }
        (Some(found), _) => Ok(found),
        (None, Some(stated)) => Ok(stated),
        (None, None) => Err(mismatch(name, info, "a fixed size; this one is left open: set input_size")),
    };
    let (width, height) =
        (one(width, stated.map(|s| s.0), "width")?, one(height, stated.map(|s| s.1), "height")?);
    let bounded = |size: usize| u32::try_from(size).ok().filter(|s| (1..=8192).contains(s));
    let (Some(width), Some(height)) = (bounded(width), bounded(height)) else {
        return Err(mismatch(name, info, "a width and a height of 1 to 8192"));
    };
    let plan = InputPlan {
        width,
        height,
        channels: channels.unwrap_or(3),
        channels_first,
        element: info.element,
        color: ColorOrder::Rgb,
        factor: [1.0; 3],
        offset: [0.0; 3],
        fit: Fit::Stretch,
        pad: spec.pad,
    };
    Ok((plan, batch))
}

/// What Ultralytics writes into its files: `imgsz = [640, 640]`, height first.
fn image_size(io: &ModelIo) -> Option<(usize, usize)> {
    let text = io.metadata.get("imgsz")?;
    let numbers: Vec<usize> =
        text.trim_matches(['[', ']', '(', ')']).split(',').filter_map(|n| n.trim().parse().ok()).collect();
    match numbers[..] {
        [height, width] => Some((width, height)),
        [size] => Some((size, size)),
        _ => None,
    }
}

/// What people train with for each layout, and then what the description says.
fn normalise(spec: &ModelSpec, layout: Layout, io: &ModelIo, input: &mut InputPlan) {
    const UNIT: f32 = 1.0 / 255.0;
    let of_ultralytics = io.metadata.contains_key("task") && io.metadata.contains_key("stride");
    let gray = input.channels == 1;
    let imagenet = !gray && !of_ultralytics && layout.kind() == ModelKind::Classifier;
    let (color, scale, fit) = match layout {
        Layout::YoloX => (ColorOrder::Bgr, 1.0, Fit::TopLeft),
        Layout::YoloV5 | Layout::YoloV8 | Layout::EndToEnd => (ColorOrder::Rgb, UNIT, Fit::Center),
        Layout::RtDetr | Layout::Ssd => (ColorOrder::Rgb, UNIT, Fit::Stretch),
        Layout::Softmax | Layout::Logits if gray => (ColorOrder::Rgb, UNIT, Fit::Stretch),
        Layout::Softmax | Layout::Logits => (ColorOrder::Rgb, UNIT, Fit::Crop),
    };
    input.color = if gray { ColorOrder::Gray } else { spec.color.unwrap_or(color) };
    input.fit = spec.letterbox.unwrap_or(fit);
    let scale = spec.scale.unwrap_or(scale);
    let three = |values: &Option<Vec<f32>>, otherwise: [f32; 3]| match values.as_deref() {
        Some([one]) => [*one; 3],
        Some([a, b, c]) => [*a, *b, *c],
        _ => otherwise,
    };
    let (mean, std) =
        if imagenet { ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) } else { ([0.0; 3], [1.0; 3]) };
    let (mean, std) = (three(&spec.mean, mean), three(&spec.std, std));
    for channel in 0..3 {
        input.factor[channel] = scale / std[channel];
        input.offset[channel] = -mean[channel] / std[channel];
    }
}

fn extra_inputs(
    name: &str,
    io: &ModelIo,
    picture: usize,
) -> Result<Option<(usize, ExtraInput)>, InferenceError> {
    let mut found = None;
    for (index, info) in io.inputs.iter().enumerate().filter(|(index, _)| *index != picture) {
        let sizes = info.element == ElementType::I64 && info.shape.len() == 2 && info.shape[1] == Some(2);
        if !sizes || found.is_some() {
            return Err(mismatch(
                name,
                info,
                "a model whose only further input is the picture's size, i64[n,2]",
            ));
        }
        let order = if info.name.contains("orig_target_sizes") {
            ExtraInput::SizesWidthFirst
        } else {
            ExtraInput::SizesHeightFirst
        };
        found = Some((index, order));
    }
    Ok(found)
}

fn labels(
    spec: &ModelSpec,
    name: &str,
    io: &ModelIo,
    classes: Option<usize>,
) -> Result<Vec<Arc<str>>, InferenceError> {
    let wrong = |problem: String| InferenceError::Spec { model: name.to_owned(), key: "labels", problem };
    let labels: Vec<Arc<str>> = match &spec.labels {
        Some(Labels::List(list)) => list.iter().map(|l| l.as_str().into()).collect(),
        Some(Labels::File(path)) => read_labels(path).map_err(wrong)?,
        None => io.metadata.get("names").map(|text| names(text)).unwrap_or_default(),
    };
    match classes {
        Some(classes) if !labels.is_empty() && labels.len() != classes => Err(wrong(format!(
            "there are {} names, but the model has {classes} classes; expected one name for each, in their order",
            labels.len()
        ))),
        _ => Ok(labels),
    }
}

fn read_labels(path: &Path) -> Result<Vec<Arc<str>>, String> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?.len();
    if size > MAX_LABELS_BYTES {
        return Err(format!("{shown}: it has {size} bytes; expected a text file with one name a line"));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("{shown}: {e}; expected a text file with one name a line"))?;
    let names: Vec<Arc<str>> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(Into::into).collect();
    if names.is_empty() {
        return Err(format!("{shown}: it is empty; expected one name a line"));
    }
    Ok(names)
}

/// The names as Ultralytics writes them: a Python dictionary, `{0: 'person', 1: "driver's cab"}`.
fn names(text: &str) -> Vec<Arc<str>> {
    let mut names = Vec::new();
    let mut rest = text.trim().trim_matches(['{', '}']);
    while let Some(colon) = rest.find(':') {
        if rest[..colon].trim().parse() != Ok(names.len()) {
            return Vec::new();
        }
        let value = rest[colon + 1..].trim_start();
        let Some(quote) = value.chars().next().filter(|c| matches!(c, '\'' | '"')) else { return Vec::new() };
        let mut name = String::new();
        let mut characters = value.char_indices().skip(1);
        let mut end = None;
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => name.extend(characters.next().map(|(_, c)| c)),
                c if c == quote => {
                    end = Some(at + 1);
                    break;
                }
                c => name.push(c),
            }
        }
        let Some(end) = end else { return Vec::new() };
        names.push(name.into());
        rest = value[end..].trim_start().trim_start_matches(',').trim_start();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(input: &[usize], outputs: &[&[usize]]) -> ModelIo {
        ModelIo {
            inputs: vec![TensorInfo::f32("images", input)],
            outputs: outputs.iter().enumerate().map(|(i, o)| TensorInfo::f32(format!("out{i}"), o)).collect(),
            ..ModelIo::default()
        }
    }

    fn error(spec: &ModelSpec, io: &ModelIo) -> String {
        ModelPlan::new(spec, io).unwrap_err().to_string()
    }

    #[test]
    fn names_of_ultralytics() {
        let found = names(r#"{0: 'person', 1: "driver's cab", 2: 'a\'b'}"#);
        assert_eq!(found.iter().map(|n| &**n).collect::<Vec<_>>(), ["person", "driver's cab", "a'b"]);
        assert!(names("{1: 'x'}").is_empty() && names("{0: 'x").is_empty() && names("nonsense").is_empty());
    }

    #[test]
    fn what_a_file_says_is_taken() {
        let mut io = io(&[0, 3, 0, 0], &[&[0, 6, 0]]);
        io.metadata.insert("imgsz".into(), "[320, 640]".into());
        io.metadata.insert("names".into(), "{0: 'cat', 1: 'dog'}".into());
        let spec = ModelSpec::new("x.onnx").layout(Layout::YoloV8);
        let plan = ModelPlan::new(&spec, &io).unwrap();
        assert_eq!((plan.input.width, plan.input.height, plan.fixed_batch), (640, 320, None));
        assert_eq!(&*plan.label(1), "dog");
        assert_eq!(&*plan.label(7), "7");
    }

    #[test]
    fn a_mismatch_names_the_tensor_and_both_shapes() {
        let yolox = io(&[1, 3, 416, 416], &[&[1, 3549, 85]]);
        let spec = ModelSpec::new("x.onnx");
        assert_eq!(ModelPlan::new(&spec, &yolox).unwrap().layout, Layout::YoloX);
        let sized = ModelSpec { input_size: Some([640, 416]), ..spec.clone() };
        assert_eq!(
            error(&sized, &yolox),
            "model \"x\": tensor \"images\" is f32[1,3,416,416]; expected a width of 640, as input_size says"
        );
        let other = error(&spec.clone().layout(Layout::YoloV8), &yolox);
        assert!(other.contains("\"out0\" is f32[1,3549,85]; expected [n,4+classes,boxes]"), "{other}");
        let labels = error(&spec.clone().labels(["a", "b"]), &yolox);
        assert!(labels.contains("there are 2 names, but the model has 80 classes"), "{labels}");
        let open = error(&spec, &io(&[1, 3, 0, 0], &[&[1, 3549, 85]]));
        assert!(open.contains("set input_size"), "{open}");
        let text = io(&[1, 77], &[&[1, 10]]);
        assert!(error(&spec, &text).contains("expected a picture"), "{}", error(&spec, &text));
        assert!(error(&spec, &io(&[1, 4, 32, 32], &[&[1, 10]])).contains("1 or 3 channels"));
    }

    #[test]
    fn classes_are_chosen_by_name() {
        let yolox = io(&[1, 3, 32, 32], &[&[1, 21, 7]]);
        let mut spec = ModelSpec::new("x.onnx").labels(["cat", "dog"]);
        spec.classes = vec!["dog".into()];
        spec.class_thresholds.insert("dog".into(), 0.8);
        let plan = ModelPlan::new(&spec, &yolox).unwrap();
        assert_eq!(plan.thresholds.classes, [f32::INFINITY, 0.8]);
        let wanted = Wanted { threshold: Some(0.1), classes: vec!["cat".into()] };
        assert_eq!(plan.thresholds_for(&spec, &wanted).unwrap().classes, [0.1, f32::INFINITY]);
        let wrong = Wanted { classes: vec!["cow".into()], ..Wanted::default() };
        let problem = plan.thresholds_for(&spec, &wrong).unwrap_err().to_string();
        assert!(problem.contains("no class \"cow\"; expected one of: cat, dog"), "{problem}");
    }
}
