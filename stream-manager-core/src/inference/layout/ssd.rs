//! Detectors with boxes, classes and scores as outputs of their own, as TensorFlow and the ONNX model zoo export them.

use super::{Outputs, Row};
use crate::detection::Region;
use crate::inference::InferenceError;
use crate::inference::nms::Candidate;
use crate::inference::tensor::{ModelIo, Tensor};

const BOXES: &[&str] = &["detection_boxes", "bboxes", "boxes", "raw_detection_boxes"];
const CLASSES: &[&str] = &["detection_classes", "labels", "classes"];
const SCORES: &[&str] = &["detection_scores", "scores"];
const COUNT: &[&str] = &["num_detections"];

pub(super) fn outputs(io: &ModelIo) -> Result<Outputs, &'static str> {
    // Exporters put ":0" behind names, or a path before them.
    let find = |names: &[&str]| {
        let plain = |name: &str| {
            name.split(':').next().and_then(|n| n.rsplit('/').next()).unwrap_or_default().to_owned()
        };
        io.outputs.iter().position(|o| names.contains(&plain(&o.name).as_str()))
    };
    let (Some(boxes), Some(classes), Some(scores)) = (find(BOXES), find(CLASSES), find(SCORES)) else {
        return Err(
            "outputs called \"detection_boxes\", \"detection_classes\" and \"detection_scores\" (or bboxes, labels, scores)",
        );
    };
    let four = io.outputs[boxes].shape.last().is_some_and(|size| size.is_none_or(|size| size == 4));
    if !four || io.inputs.len() != 1 {
        return Err("boxes of four numbers, and no further input");
    }
    Ok(Outputs {
        scores: Some(scores),
        classes_output: Some(classes),
        count: find(COUNT),
        ..Outputs::one(boxes, None)
    })
}

pub(super) fn read(tensors: &[Tensor], row: &Row<'_>) -> Result<Vec<Candidate>, InferenceError> {
    let outputs = row.plan.outputs;
    let (boxes, _) = row.numbers(tensors, outputs.main)?;
    let missing = || row.wrong("an output is missing");
    let (scores, _) = row.numbers(tensors, outputs.scores.ok_or_else(missing)?)?;
    let classes = outputs.classes_output.and_then(|c| tensors.get(c)).ok_or_else(missing)?;
    let count = outputs.count.and_then(|c| tensors.get(c)).map(|c| c.number(row.index).max(0.0) as usize);
    let (width, height) = (row.plan.input.width as f32, row.plan.input.height as f32);
    // TensorFlow counts classes from 1, and says the upper edge first.
    let tensorflow = outputs.count.is_some();
    let mut found = Vec::new();
    for (index, (b, &score)) in
        boxes.chunks_exact(4).zip(scores).take(count.unwrap_or(usize::MAX)).enumerate()
    {
        let class = classes.number(row.index * scores.len() + index);
        let class = (class - if tensorflow { 1.0 } else { 0.0 }).max(0.0) as u32;
        if score < row.thresholds.of(class as usize) {
            continue;
        }
        let region = if tensorflow {
            Region::new(b[1] * width, b[0] * height, b[3] * width, b[2] * height)
        } else {
            Region::new(b[0] * width, b[1] * height, b[2] * width, b[3] * height)
        };
        found.push(Candidate { class, score, region });
    }
    Ok(found)
}
