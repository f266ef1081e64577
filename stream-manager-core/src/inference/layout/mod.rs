//! What models' outputs mean: one file for each family, and how the family is told from the shapes.

mod classes;
mod detr;
mod grid;
mod ssd;

use super::InferenceError;
use super::geometry::Geometry;
use super::nms::{Candidate, suppress};
use super::plan::{InputPlan, ModelPlan, Thresholds, mismatch};
use super::tensor::{ModelIo, Tensor, TensorInfo};
use crate::config::{Layout, ModelKind, ModelSpec};
use crate::detection::Detection;

/// Which output is what. Numbers are places among the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outputs {
    /// The output with everything, or with boxes.
    pub(super) main: usize,
    /// Scores (or logits), where they are on their own.
    pub(super) scores: Option<usize>,
    /// Classes, where they are on their own.
    pub(super) classes_output: Option<usize>,
    /// How many there are.
    pub(super) count: Option<usize>,
    /// How many classes, as far as the shapes say so.
    pub(super) classes: Option<usize>,
}

impl Outputs {
    fn one(main: usize, classes: Option<usize>) -> Self {
        Self { main, scores: None, classes_output: None, count: None, classes }
    }
}

/// What a row of the batch is looked at with.
pub(super) struct Row<'a> {
    pub(super) plan: &'a ModelPlan,
    pub(super) thresholds: &'a Thresholds,
    pub(super) geometry: &'a Geometry,
    pub(super) index: usize,
}

impl Row<'_> {
    /// A row's numbers in an output.
    fn numbers<'t>(
        &self,
        tensors: &'t [Tensor],
        output: usize,
    ) -> Result<(&'t [f32], &'t [usize]), InferenceError> {
        let tensor = tensors.get(output).ok_or_else(|| self.wrong("an output is missing"))?;
        let rest = tensor.shape.get(1..).unwrap_or_default();
        let numbers: usize = rest.iter().product();
        let data = tensor.as_f32().get(self.index * numbers..(self.index + 1) * numbers);
        Ok((data.ok_or_else(|| self.wrong("an output has too few numbers"))?, rest))
    }

    fn wrong(&self, problem: &str) -> InferenceError {
        InferenceError::Run { model: self.plan.name.to_string(), problem: problem.to_owned() }
    }

    /// The best of a number of scores that reaches its threshold.
    fn best(&self, scores: &[f32], factor: f32) -> Option<(u32, f32)> {
        let mut best = (0, f32::NEG_INFINITY);
        for (class, &score) in scores.iter().enumerate() {
            if score > best.1 {
                best = (class, score);
            }
        }
        let score = best.1 * factor;
        let class = u32::try_from(best.0).ok()?;
        (score >= self.thresholds.of(best.0)).then_some((class, score))
    }

    fn objects(&self, candidates: Vec<Candidate>) -> Vec<Detection> {
        let (width, height) = self.geometry.source;
        let object = |c: Candidate| {
            let region = self.geometry.to_source(c.region)?;
            let label = self.plan.label(c.class as usize);
            Some(Detection::object(label, c.class, c.score.min(1.0), region, width, height))
        };
        candidates.into_iter().filter_map(object).collect()
    }
}

/// What a model saw in one row of a batch, best first.
///
/// # Errors
/// If the outputs are not as the model described them, or have numbers that are none.
pub(super) fn read(tensors: &[Tensor], row: &Row<'_>) -> Result<Vec<Detection>, InferenceError> {
    let (plan, outputs) = (row.plan, row.plan.outputs);
    let most = plan.max_detections;
    let suppressed = |found: Vec<Candidate>| suppress(found, plan.nms_iou, most);
    let best = |mut found: Vec<Candidate>| {
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(most);
        found
    };
    let candidates = match plan.layout {
        Layout::Softmax | Layout::Logits => return classes::read(tensors, row),
        Layout::YoloX => suppressed(grid::yolox(row.numbers(tensors, outputs.main)?, row)),
        Layout::YoloV5 => suppressed(grid::yolov5(row.numbers(tensors, outputs.main)?, row)),
        Layout::YoloV8 => suppressed(grid::yolov8(row.numbers(tensors, outputs.main)?, row)),
        Layout::EndToEnd => best(grid::end_to_end(row.numbers(tensors, outputs.main)?, row)),
        Layout::RtDetr => best(detr::read(tensors, row)?),
        Layout::Ssd => best(ssd::read(tensors, row)?),
    };
    Ok(row.objects(candidates))
}

/// Whether an output has numbers that are none: then nothing in it counts.
pub(super) fn check_numbers(tensors: &[Tensor], io: &ModelIo, model: &str) -> Result<(), InferenceError> {
    match tensors.iter().position(Tensor::has_nan) {
        None => Ok(()),
        Some(index) => {
            let name = io.outputs.get(index).map_or("?", |o| o.name.as_str());
            let problem = format!(
                "output \"{name}\" has values that are no numbers (NaN); the model is broken, or \
                                   its input is not normalised as it needs (scale, mean, std)"
            );
            Err(InferenceError::Run { model: model.to_owned(), problem })
        }
    }
}

/// The cells of a picture of this size on the grids with these steps.
pub(super) fn cells(input: &InputPlan, strides: &[u32]) -> usize {
    strides.iter().map(|s| (input.width / s) as usize * (input.height / s) as usize).sum()
}

/// The steps of a model's grids, by how many cells it has.
pub(super) fn strides(input: &InputPlan, number: usize) -> Option<&'static [u32]> {
    const KNOWN: [&[u32]; 2] = [&[8, 16, 32], &[8, 16, 32, 64]];
    KNOWN.into_iter().find(|strides| cells(input, strides) == number)
}

/// Finds out what a model's outputs mean, or checks what is said of them.
pub(super) fn guess(
    spec: &ModelSpec,
    name: &str,
    io: &ModelIo,
    input: &InputPlan,
) -> Result<(Layout, Outputs), InferenceError> {
    let first = io
        .outputs
        .first()
        .ok_or_else(|| InferenceError::Run { model: name.to_owned(), problem: "it has no outputs".into() })?;
    let layout = match (spec.layout, spec.kind) {
        (Some(layout), _) => layout,
        (None, Some(ModelKind::Classifier)) => Layout::Logits,
        (None, _) => guessed(io, input).ok_or_else(|| {
            mismatch(name, first, "outputs of a known kind; set layout: yolox, yolov5, yolov8, yolov10, rt-detr, ssd, softmax or logits")
        })?,
    };
    let outputs = match layout {
        Layout::RtDetr => detr::outputs(io),
        Layout::Ssd => ssd::outputs(io),
        Layout::Softmax | Layout::Logits => classes::outputs(io),
        _ => grid::outputs(layout, io, input),
    };
    match outputs {
        Ok(outputs) => Ok((layout, outputs)),
        Err(expected) => Err(mismatch(name, first, format!("{expected} (layout \"{}\")", layout.name()))),
    }
}

fn guessed(io: &ModelIo, input: &InputPlan) -> Option<Layout> {
    if ssd::outputs(io).is_ok() {
        return Some(Layout::Ssd);
    }
    if io.outputs.len() > 1 && detr::outputs(io).is_ok() {
        return Some(Layout::RtDetr);
    }
    let first = io.outputs.first()?;
    match first.shape[..] {
        [_, Some(classes)] | [_, Some(classes), Some(1), Some(1)] if classes > 1 => {
            Some(classes::guess(first))
        }
        [_, Some(rows), Some(6)] if rows <= 1000 && strides(input, rows).is_none() => Some(Layout::EndToEnd),
        [_, Some(rows), Some(columns)] if columns > 5 && strides(input, rows).is_some() => {
            Some(Layout::YoloX)
        }
        [_, Some(rows), Some(columns)]
            if columns > 5 && rows % 3 == 0 && strides(input, rows / 3).is_some() =>
        {
            Some(Layout::YoloV5)
        }
        [_, Some(rows), Some(columns)] if rows > 4 && strides(input, columns).is_some() => {
            Some(Layout::YoloV8)
        }
        // Left open in one direction, as with a picture of any size.
        [_, Some(rows), None] if rows > 4 => Some(Layout::YoloV8),
        [_, Some(queries), Some(columns)] if queries <= 1000 && columns > 4 => Some(Layout::RtDetr),
        _ => None,
    }
}

/// The last of three sizes, if it is known and more than `more`.
fn classes_behind(info: &TensorInfo, direction: usize, more: usize) -> Option<Option<usize>> {
    match (info.shape.len(), info.shape.get(direction)?) {
        (3, Some(size)) if *size > more => Some(Some(size - more)),
        (3, None) => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
