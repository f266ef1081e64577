//! YOLO and its kin: a box for each cell of a few grids laid over the picture.

use super::{Outputs, Row, classes_behind, strides};
use crate::config::Layout;
use crate::detection::Region;
use crate::inference::nms::Candidate;
use crate::inference::plan::InputPlan;
use crate::inference::tensor::ModelIo;

type Numbers<'a> = (&'a [f32], &'a [usize]);

pub(super) fn outputs(layout: Layout, io: &ModelIo, input: &InputPlan) -> Result<Outputs, &'static str> {
    let first = io.outputs.first().ok_or("an output")?;
    let classes = match layout {
        Layout::YoloX => {
            let cells = first.shape.get(1).copied().flatten();
            if cells.is_some_and(|cells| strides(input, cells).is_none()) {
                return Err("[n,cells,5+classes] with one row for each cell of the grids 8, 16 and 32");
            }
            classes_behind(first, 2, 5).ok_or("[n,cells,5+classes]")?
        }
        Layout::YoloV5 => classes_behind(first, 2, 5).ok_or("[n,boxes,5+classes]")?,
        Layout::YoloV8 => {
            let (rows, columns) =
                (first.shape.get(1).copied().flatten(), first.shape.get(2).copied().flatten());
            if rows.zip(columns).is_some_and(|(rows, columns)| rows > columns) {
                return Err("[n,4+classes,boxes]");
            }
            classes_behind(first, 1, 4).ok_or("[n,4+classes,boxes]")?
        }
        _ => match first.shape[..] {
            [_, _, Some(6) | None] => None,
            _ => return Err("[n,boxes,6]: two corners, score, class"),
        },
    };
    Ok(Outputs::one(0, classes))
}

fn centred(x: f32, y: f32, w: f32, h: f32) -> Region {
    Region::new(x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0)
}

/// Centres relative to the cell in cells, sizes as logarithms (YOLOX, demo_utils.py).
pub(super) fn yolox((data, shape): Numbers<'_>, row: &Row<'_>) -> Vec<Candidate> {
    let [rows, columns] = shape[..] else { return Vec::new() };
    let (Some(strides), true) = (strides(&row.plan.input, rows), columns > 5) else { return Vec::new() };
    let lowest = row.thresholds.lowest();
    let mut found = Vec::new();
    let mut numbers = data.chunks_exact(columns);
    for &stride in strides {
        let (across, down) = (row.plan.input.width / stride, row.plan.input.height / stride);
        for cell in 0..across * down {
            let Some(n) = numbers.next() else { return found };
            // No class can have more than its object has.
            if n[4] < lowest {
                continue;
            }
            let Some((class, score)) = row.best(&n[5..], n[4]) else { continue };
            let step = stride as f32;
            let (x, y) = ((n[0] + (cell % across) as f32) * step, (n[1] + (cell / across) as f32) * step);
            found.push(Candidate {
                class,
                score,
                region: centred(x, y, n[2].exp() * step, n[3].exp() * step),
            });
        }
    }
    found
}

/// Centres and sizes in pixels, with objectness.
pub(super) fn yolov5((data, shape): Numbers<'_>, row: &Row<'_>) -> Vec<Candidate> {
    let [_, columns] = shape[..] else { return Vec::new() };
    if columns <= 5 {
        return Vec::new();
    }
    let lowest = row.thresholds.lowest();
    let box_of = |n: &[f32]| {
        if n[4] < lowest {
            return None;
        }
        let (class, score) = row.best(&n[5..], n[4])?;
        Some(Candidate { class, score, region: centred(n[0], n[1], n[2], n[3]) })
    };
    data.chunks_exact(columns).filter_map(box_of).collect()
}

/// Centres and sizes in pixels, one row for each number and not for each box.
pub(super) fn yolov8((data, shape): Numbers<'_>, row: &Row<'_>) -> Vec<Candidate> {
    let [rows, boxes] = shape[..] else { return Vec::new() };
    if rows <= 4 || boxes == 0 {
        return Vec::new();
    }
    // Row by row, which is how it lies in memory.
    let (mut best, mut class_of) = (vec![f32::NEG_INFINITY; boxes], vec![0u32; boxes]);
    for (class, scores) in (0u32..).zip(data[4 * boxes..].chunks_exact(boxes)) {
        for ((best, of), &score) in best.iter_mut().zip(&mut class_of).zip(scores) {
            if score > *best {
                (*best, *of) = (score, class);
            }
        }
    }
    let box_of = |index: usize| {
        let (class, score) = (class_of[index], best[index]);
        let at = |number: usize| data[number * boxes + index];
        (score >= row.thresholds.of(class as usize)).then(|| Candidate {
            class,
            score,
            region: centred(at(0), at(1), at(2), at(3)),
        })
    };
    (0..boxes).filter_map(box_of).collect()
}

/// Corners in pixels, score, class; nothing overlaps any more.
pub(super) fn end_to_end((data, shape): Numbers<'_>, row: &Row<'_>) -> Vec<Candidate> {
    let [_, 6] = shape[..] else { return Vec::new() };
    let box_of = |n: &[f32]| {
        let class = n[5].round();
        let threshold = row.thresholds.of(class.max(0.0) as usize);
        (class >= 0.0 && n[4] > 0.0 && n[4] >= threshold).then(|| Candidate {
            class: class as u32,
            score: n[4],
            region: Region::new(n[0], n[1], n[2], n[3]),
        })
    };
    data.chunks_exact(6).filter_map(box_of).collect()
}
