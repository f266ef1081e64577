//! Transformers with queries instead of grids: RT-DETR, D-FINE and their exports.

use super::{Outputs, Row, classes_behind};
use crate::detection::Region;
use crate::inference::InferenceError;
use crate::inference::nms::Candidate;
use crate::inference::tensor::{ModelIo, Tensor};

/// Three shapes are known: everything in one output (Ultralytics), boxes and logits (Hugging Face), and labels, boxes
/// and scores (the authors' own export, which wants the picture's size as second input).
pub(super) fn outputs(io: &ModelIo) -> Result<Outputs, &'static str> {
    const EXPECTED: &str = "[n,queries,4+classes]; or outputs \"pred_boxes\" [n,queries,4] and \"logits\"; or \"labels\", \
                            \"boxes\" and \"scores\"";
    let find = |names: &[&str]| io.outputs.iter().position(|o| names.contains(&o.name.as_str()));
    let last = |index: usize, size: usize| {
        io.outputs[index].shape.last().is_some_and(|s| s.is_none_or(|s| s == size))
    };
    if let (Some(boxes), Some(logits)) = (find(&["pred_boxes"]), find(&["logits", "pred_logits"]))
        && last(boxes, 4)
    {
        let classes = classes_behind(&io.outputs[logits], 2, 0).ok_or(EXPECTED)?;
        return Ok(Outputs { scores: Some(logits), ..Outputs::one(boxes, classes) });
    }
    if let (Some(labels), Some(boxes), Some(scores)) =
        (find(&["labels"]), find(&["boxes"]), find(&["scores"]))
        && last(boxes, 4)
        && io.inputs.len() == 2
    {
        return Ok(Outputs {
            scores: Some(scores),
            classes_output: Some(labels),
            ..Outputs::one(boxes, None)
        });
    }
    match &io.outputs[..] {
        [one] => Ok(Outputs::one(0, classes_behind(one, 2, 4).ok_or(EXPECTED)?)),
        _ => Err(EXPECTED),
    }
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

pub(super) fn read(tensors: &[Tensor], row: &Row<'_>) -> Result<Vec<Candidate>, InferenceError> {
    let (outputs, input) = (row.plan.outputs, &row.plan.input);
    let (width, height) = (input.width as f32, input.height as f32);
    let relative = |b: &[f32]| {
        let (x, y, w, h) = (b[0] * width, b[1] * height, b[2] * width, b[3] * height);
        Region::new(x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0)
    };
    let (boxes, shape) = row.numbers(tensors, outputs.main)?;
    let columns = shape.last().copied().unwrap_or(0);
    if columns < 4 {
        return Err(row.wrong("its boxes have fewer than four numbers"));
    }
    let mut found = Vec::new();
    match (outputs.scores, outputs.classes_output) {
        (Some(scores), Some(labels)) => {
            let (scores, _) = row.numbers(tensors, scores)?;
            let labels = tensors.get(labels).ok_or_else(|| row.wrong("an output is missing"))?;
            for (query, (b, &score)) in boxes.chunks_exact(columns).zip(scores).enumerate() {
                let class = labels.number(row.index * scores.len() + query).max(0.0) as u32;
                if score >= row.thresholds.of(class as usize) {
                    // Relative to the size that was given as input, which is the model's own.
                    found.push(Candidate { class, score, region: Region::new(b[0], b[1], b[2], b[3]) });
                }
            }
        }
        (Some(logits), None) => {
            let (logits, shape) = row.numbers(tensors, logits)?;
            let classes = shape.last().copied().unwrap_or(0).max(1);
            for (b, logits) in boxes.chunks_exact(columns).zip(logits.chunks_exact(classes)) {
                let (class, logit) = best(logits);
                let score = sigmoid(logit);
                if score >= row.thresholds.of(class) {
                    found.push(Candidate { class: class as u32, score, region: relative(b) });
                }
            }
        }
        _ => {
            for b in boxes.chunks_exact(columns) {
                if let Some((class, score)) = row.best(&b[4..], 1.0) {
                    found.push(Candidate { class, score, region: relative(b) });
                }
            }
        }
    }
    Ok(found)
}

fn best(values: &[f32]) -> (usize, f32) {
    values.iter().copied().enumerate().fold((0, f32::NEG_INFINITY), |best, (class, value)| {
        if value > best.1 { (class, value) } else { best }
    })
}
