//! Each layout with outputs of which it is known what they mean.

use super::*;
use crate::config::Fit;
use crate::detection::Region;
use crate::inference::plan::Wanted;
use crate::inference::tensor::{ElementType, TensorData};

fn io(size: usize, outputs: &[(&str, &[usize])]) -> ModelIo {
    ModelIo {
        inputs: vec![TensorInfo::f32("images", &[0, 3, size, size])],
        outputs: outputs.iter().map(|(name, shape)| TensorInfo::f32(*name, shape)).collect(),
        ..ModelIo::default()
    }
}

/// What a model of this description sees in a picture of twice its input's size, of which the input has the whole.
fn seen(spec: &ModelSpec, io: &ModelIo, tensors: &[Tensor], index: usize) -> (Layout, Vec<Detection>) {
    let plan = ModelPlan::new(spec, io).unwrap();
    let size = (plan.input.width, plan.input.height);
    let geometry = Geometry::new(Fit::Stretch, (size.0 * 2, size.1 * 2), size);
    let thresholds = plan.thresholds_for(spec, &Wanted::default()).unwrap();
    let row = Row { plan: &plan, thresholds: &thresholds, geometry: &geometry, index };
    (plan.layout, read(tensors, &row).unwrap())
}

fn assert_one(found: &[Detection], class: u32, score: f32, region: Region) {
    assert_eq!(found.len(), 1, "{found:?}");
    let one = &found[0];
    assert_eq!(one.class, class);
    assert!((one.score - score).abs() < 1e-4, "{one:?}");
    let place = one.region.unwrap();
    assert!(place.iou(&region) > 0.99, "{place:?} {region:?}");
}

/// In the picture: centre 80, 80; 40 wide, 60 high.
const PLACE: Region = Region::new(60.0, 50.0, 100.0, 110.0);

#[test]
fn yolox() {
    // 64x64: grids of 8x8, 4x4 and 2x2 cells. The box's centre is at 40, 40 in the input: cell 2, 2 of the middle grid.
    let mut rows = vec![0.0f32; 2 * 84 * 7];
    let cell = 64 + 2 * 4 + 2;
    let n = &mut rows[(84 + cell) * 7..(84 + cell + 1) * 7];
    n.copy_from_slice(&[
        40.0 / 16.0 - 2.0,
        40.0 / 16.0 - 2.0,
        (20.0f32 / 16.0).ln(),
        (30.0f32 / 16.0).ln(),
        0.9,
        0.1,
        0.8,
    ]);
    let io = io(64, &[("output", &[0, 84, 7])]);
    let (layout, found) = seen(&ModelSpec::new("x"), &io, &[Tensor::f32([2, 84, 7], rows.clone())], 1);
    assert_eq!(layout, Layout::YoloX);
    assert_one(&found, 1, 0.72, PLACE);
    let (_, nothing) = seen(&ModelSpec::new("x"), &io, &[Tensor::f32([2, 84, 7], rows)], 0);
    assert!(nothing.is_empty());
}

#[test]
fn yolov5() {
    let mut rows = vec![0.0f32; 252 * 7];
    rows[700..707].copy_from_slice(&[40.0, 40.0, 20.0, 30.0, 0.9, 0.1, 0.8]);
    // The same a little beside it, and worse: suppressed.
    rows[707..714].copy_from_slice(&[41.0, 40.0, 20.0, 30.0, 0.8, 0.1, 0.8]);
    let (layout, found) = seen(
        &ModelSpec::new("x"),
        &io(64, &[("output0", &[0, 252, 7])]),
        &[Tensor::f32([1, 252, 7], rows)],
        0,
    );
    assert_eq!(layout, Layout::YoloV5);
    assert_one(&found, 1, 0.72, PLACE);
}

#[test]
fn yolov8() {
    let mut columns = vec![0.0f32; 7 * 84];
    for (row, value) in [40.0, 40.0, 20.0, 30.0, 0.1, 0.2, 0.9].into_iter().enumerate() {
        columns[row * 84 + 33] = value;
    }
    let (layout, found) = seen(
        &ModelSpec::new("x"),
        &io(64, &[("output0", &[0, 7, 84])]),
        &[Tensor::f32([1, 7, 84], columns)],
        0,
    );
    assert_eq!(layout, Layout::YoloV8);
    assert_one(&found, 2, 0.9, PLACE);
}

#[test]
fn end_to_end() {
    let mut rows = vec![0.0f32; 300 * 6];
    rows[..6].copy_from_slice(&[30.0, 25.0, 50.0, 55.0, 0.9, 3.0]);
    rows[6..12].copy_from_slice(&[30.0, 25.0, 50.0, 55.0, 0.2, 3.0]);
    let io = io(64, &[("output0", &[0, 300, 6])]);
    let tensors = [Tensor::f32([1, 300, 6], rows)];
    let (layout, found) = seen(&ModelSpec::new("x"), &io, &tensors, 0);
    assert_eq!(layout, Layout::EndToEnd);
    assert_one(&found, 3, 0.9, PLACE);
    let few = ModelSpec::new("x").labels(["a", "b"]);
    assert!(seen(&few, &io, &tensors, 0).1.is_empty(), "a class that does not exist");
}

#[test]
fn rt_detr_in_its_three_forms() {
    let query = [40.0 / 64.0, 40.0 / 64.0, 20.0 / 64.0, 30.0 / 64.0];
    // Twenty queries, which are no number of cells.
    let mut one = vec![0.0f32; 20 * 7];
    one[..4].copy_from_slice(&query);
    one[4..7].copy_from_slice(&[0.1, 0.9, 0.2]);
    let (layout, found) =
        seen(&ModelSpec::new("x"), &io(64, &[("output0", &[0, 20, 7])]), &[Tensor::f32([1, 20, 7], one)], 0);
    assert_eq!(layout, Layout::RtDetr);
    assert_one(&found, 1, 0.9, PLACE);

    let mut boxes = vec![0.0f32; 20 * 4];
    boxes[4..8].copy_from_slice(&query);
    let mut logits = vec![-9.0f32; 20 * 3];
    logits[5] = 2.0;
    let both = io(64, &[("logits", &[0, 20, 3]), ("pred_boxes", &[0, 20, 4])]);
    let tensors = [Tensor::f32([1, 20, 3], logits), Tensor::f32([1, 20, 4], boxes)];
    let (layout, found) = seen(&ModelSpec::new("x"), &both, &tensors, 0);
    assert_eq!(layout, Layout::RtDetr);
    assert_one(&found, 2, 0.8808, PLACE);

    let mut three = io(64, &[("labels", &[0, 20]), ("boxes", &[0, 20, 4]), ("scores", &[0, 20])]);
    three.inputs.push(TensorInfo {
        name: "orig_target_sizes".into(),
        element: ElementType::I64,
        shape: vec![None, Some(2)],
    });
    let mut boxes = vec![0.0f32; 20 * 4];
    boxes[..4].copy_from_slice(&[30.0, 25.0, 50.0, 55.0]);
    let mut scores = vec![0.0f32; 20];
    scores[0] = 0.7;
    let mut labels = vec![0i64; 20];
    labels[0] = 5;
    let tensors = [
        Tensor { shape: vec![1, 20], data: TensorData::I64(labels) },
        Tensor::f32([1, 20, 4], boxes),
        Tensor::f32([1, 20], scores),
    ];
    let (layout, found) = seen(&ModelSpec::new("x"), &three, &tensors, 0);
    assert_eq!(layout, Layout::RtDetr);
    assert_one(&found, 5, 0.7, PLACE);
}

#[test]
fn ssd_as_tensorflow_and_the_model_zoo_have_it() {
    let (height, width) = (64.0, 64.0);
    let (y0, x0, y1, x1) = (25.0 / height, 30.0 / width, 55.0 / height, 50.0 / width);
    let mut boxes = vec![0.0f32; 10 * 4];
    boxes[..4].copy_from_slice(&[y0, x0, y1, x1]);
    let mut scores = vec![0.0f32; 10];
    scores[0] = 0.8;
    let mut classes = vec![0.0f32; 10];
    classes[0] = 3.0;
    let tensorflow = io(
        64,
        &[
            ("detection_boxes:0", &[0, 10, 4]),
            ("detection_classes:0", &[0, 10]),
            ("detection_scores:0", &[0, 10]),
            ("num_detections:0", &[0]),
        ],
    );
    let tensors = [
        Tensor::f32([1, 10, 4], boxes.clone()),
        Tensor::f32([1, 10], classes.clone()),
        Tensor::f32([1, 10], scores.clone()),
        Tensor::f32([1], vec![1.0]),
    ];
    let (layout, found) = seen(&ModelSpec::new("x"), &tensorflow, &tensors, 0);
    assert_eq!(layout, Layout::Ssd);
    assert_one(&found, 2, 0.8, PLACE);

    boxes[..4].copy_from_slice(&[x0, y0, x1, y1]);
    let zoo = io(64, &[("bboxes", &[0, 10, 4]), ("labels", &[0, 10]), ("scores", &[0, 10])]);
    let tensors =
        [Tensor::f32([1, 10, 4], boxes), Tensor::f32([1, 10], classes), Tensor::f32([1, 10], scores)];
    let (layout, found) = seen(&ModelSpec::new("x"), &zoo, &tensors, 0);
    assert_eq!(layout, Layout::Ssd);
    assert_one(&found, 3, 0.8, PLACE);
}

#[test]
fn classifiers() {
    let io = io(28, &[("Plus", &[0, 4])]);
    let spec = ModelSpec { threshold: 0.0, max_detections: 2, ..ModelSpec::new("x") };
    let logits = Tensor::f32([1, 4], vec![1.0, 3.0, 0.0, 2.0]);
    let (layout, found) = seen(&spec, &io, &[logits], 0);
    assert_eq!(layout, Layout::Logits);
    let best: Vec<(u32, i32)> = found.iter().map(|d| (d.class, (d.score * 1000.0) as i32)).collect();
    assert_eq!(best, [(1, 643), (3, 236)]);
    assert!(found[0].region.is_none());
    let already = Tensor::f32([1, 4], vec![0.1, 0.2, 0.7, 0.0]);
    assert!((seen(&spec, &io, &[already], 0).1[0].score - 0.7).abs() < 1e-6);
}

#[test]
fn what_is_no_number_is_an_error_and_not_an_object() {
    let io = io(64, &[("output", &[0, 84, 7])]);
    let mut rows = vec![0.0f32; 84 * 7];
    rows[300] = f32::NAN;
    let error = check_numbers(&[Tensor::f32([1, 84, 7], rows)], &io, "x").unwrap_err().to_string();
    assert!(error.contains("output \"output\" has values that are no numbers"), "{error}");
    let endless = vec![f32::INFINITY; 84 * 7];
    let (_, found) = seen(&ModelSpec::new("x"), &io, &[Tensor::f32([1, 84, 7], endless)], 0);
    assert!(found.iter().all(|d| d.region.is_some_and(|r| r.x1 <= 128.0)), "{found:?}");
}

proptest::proptest! {
    /// Whatever numbers a model gives: boxes lie in the picture and scores between 0 and 1, and nothing panics.
    #[test]
    fn any_numbers_are_read(
        which in 0usize..6,
        numbers in proptest::collection::vec(proptest::prelude::any::<f32>(), 84 * 7),
        threshold in 0.0f32..1.0,
    ) {
        let (layout, shape): (_, &[usize]) = [
            (Layout::YoloX, &[0, 84, 7][..]),
            (Layout::YoloV5, &[0, 84, 7]),
            (Layout::YoloV8, &[0, 7, 84]),
            (Layout::EndToEnd, &[0, 98, 6]),
            (Layout::RtDetr, &[0, 84, 7]),
            (Layout::Logits, &[0, 588]),
        ][which];
        let io = io(64, &[("o", shape)]);
        let shape: Vec<usize> = shape.iter().map(|s| (*s).max(1)).collect();
        let spec = ModelSpec { threshold, ..ModelSpec::new("x").layout(layout) };
        let tensors = [Tensor::f32(shape, numbers)];
        for one in seen(&spec, &io, &tensors, 0).1 {
            proptest::prop_assert!(one.score.is_nan() || one.score >= threshold.min(1.0) && one.score <= 1.0, "{one:?}");
            if let Some(r) = one.region {
                proptest::prop_assert!(r.x0 >= 0.0 && r.y0 >= 0.0 && r.x1 <= 128.0 && r.y1 <= 128.0, "{r:?}");
            }
        }
    }
}

#[test]
fn fewer_numbers_than_described_are_an_error() {
    let io = io(64, &[("output", &[0, 84, 7])]);
    let spec = ModelSpec::new("x");
    let plan = ModelPlan::new(&spec, &io).unwrap();
    let geometry = Geometry::new(Fit::Stretch, (64, 64), (64, 64));
    let row = Row { plan: &plan, thresholds: &plan.thresholds, geometry: &geometry, index: 1 };
    assert!(read(&[Tensor::f32([1, 84, 7], vec![0.0; 84 * 7])], &row).is_err());
    assert!(read(&[], &row).is_err());
}
