//! Classifiers: a number for each class.

use super::{Outputs, Row};
use crate::config::Layout;
use crate::detection::Detection;
use crate::inference::InferenceError;
use crate::inference::tensor::{ModelIo, Tensor, TensorInfo};

pub(super) fn outputs(io: &ModelIo) -> Result<Outputs, &'static str> {
    let first = io.outputs.first().ok_or("an output")?;
    match first.shape[..] {
        [_, classes] | [_, classes, Some(1), Some(1)] => Ok(Outputs::one(0, classes)),
        _ => Err("[n,classes]"),
    }
}

/// Whether a classifier's output has been through softmax: as its name says, as exporters of networks call it.
pub(super) fn guess(output: &TensorInfo) -> Layout {
    let name = output.name.to_ascii_lowercase();
    if name.contains("softmax") || name.contains("prob") { Layout::Softmax } else { Layout::Logits }
}

pub(super) fn read(tensors: &[Tensor], row: &Row<'_>) -> Result<Vec<Detection>, InferenceError> {
    let (numbers, _) = row.numbers(tensors, row.plan.outputs.main)?;
    let probabilities = match row.plan.layout {
        // Some have been through it whatever their output's name says; once more would make all alike.
        Layout::Logits if !is_distribution(numbers) => softmax(numbers),
        _ => numbers.to_vec(),
    };
    let mut all: Vec<(usize, f32)> = probabilities.into_iter().enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let wanted = |(class, score): &(usize, f32)| *score >= row.thresholds.of(*class);
    let named = |(class, score): (usize, f32)| {
        Detection::class(row.plan.label(class), u32::try_from(class).unwrap_or(u32::MAX), score)
    };
    Ok(all.into_iter().filter(wanted).take(row.plan.max_detections).map(named).collect())
}

fn is_distribution(numbers: &[f32]) -> bool {
    numbers.iter().all(|v| (0.0..=1.0).contains(v)) && (numbers.iter().sum::<f32>() - 1.0).abs() < 1e-3
}

fn softmax(numbers: &[f32]) -> Vec<f32> {
    let most = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = numbers.iter().map(|v| (v - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}
