//! Against a reference in floating point.

use super::*;
use crate::config::{Fit, ModelSpec};
use crate::inference::picture::{ColorSpace, Matrix, PixelFormat};
use crate::inference::plan::ModelPlan;
use crate::inference::tensor::{ModelIo, TensorInfo};
use proptest::prelude::*;

/// Four neighbours around each point, as OpenCV's INTER_LINEAR.
fn bilinear(plane: &[u8], (width, height): (usize, usize), x: f64, y: f64) -> f64 {
    let at = |x: i64, y: i64| {
        let x = x.clamp(0, width as i64 - 1) as usize;
        let y = y.clamp(0, height as i64 - 1) as usize;
        f64::from(plane[y * width + x])
    };
    let (left, top) = (x.floor(), y.floor());
    let (right, down) = (x - left, y - top);
    let (l, t) = (left as i64, top as i64);
    at(l, t) * (1.0 - right) * (1.0 - down)
        + at(l + 1, t) * right * (1.0 - down)
        + at(l, t + 1) * (1.0 - right) * down
        + at(l + 1, t + 1) * right * down
}

struct Planes {
    y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
}

fn rgb_of(y: f64, u: f64, v: f64, colors: ColorSpace) -> [f64; 3] {
    let (kr, kb) = match colors.matrix {
        Matrix::Bt601 => (0.299, 0.114),
        Matrix::Bt709 => (0.2126, 0.0722),
        Matrix::Bt2020 => (0.2627, 0.0593),
    };
    let kg = 1.0 - kr - kb;
    let (y, u, v) = if colors.full_range {
        (y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0)
    } else {
        ((y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0)
    };
    let r = y + 2.0 * (1.0 - kr) * v;
    let b = y + 2.0 * (1.0 - kb) * u;
    let g = (y - kr * r - kb * b) / kg;
    [r, g, b].map(|c| (c * 255.0).clamp(0.0, 255.0))
}

fn plan(fit: Fit, width: usize, height: usize) -> InputPlan {
    let io = ModelIo {
        inputs: vec![TensorInfo::f32("x", &[1, 3, height, width])],
        outputs: vec![TensorInfo::f32("y", &[1, 10, 6])],
        ..ModelIo::default()
    };
    let spec = ModelSpec {
        letterbox: Some(fit),
        scale: Some(1.0),
        color: Some(ColorOrder::Rgb),
        ..ModelSpec::new("x")
    };
    ModelPlan::new(&spec, &io).unwrap().input
}

/// Smooth shapes and edges, different in each plane.
fn planes(width: usize, height: usize, seed: u64) -> Planes {
    let wave = |x: usize, y: usize, k: u64| {
        let k = (seed + k) as f64;
        let v = 128.0 + 80.0 * ((x as f64 * 0.13 + k).sin() * (y as f64 * 0.09 - k).cos());
        if (x / 9 + y / 7).is_multiple_of(5) { 230 } else { v as u8 }
    };
    let plane = |w: usize, h: usize, k: u64| -> Vec<u8> {
        (0..w * h).map(|i| wave(i % w, i / w, k).clamp(16, 235)).collect()
    };
    let (half_w, half_h) = (width.div_ceil(2), height.div_ceil(2));
    Planes { y: plane(width, height, 1), u: plane(half_w, half_h, 5), v: plane(half_w, half_h, 9) }
}

/// What the model's input should be, by the formulas, with the colours of each place from the planes.
fn check(
    picture: &Picture,
    planes: &Planes,
    colors: ColorSpace,
    plan: &InputPlan,
) -> Result<(), TestCaseError> {
    let mut input = Preprocessor::tensor(plan, 2);
    let geometry = Preprocessor::default().fill(picture, plan, &mut input, 1).unwrap();
    let size = (picture.width() as usize, picture.height() as usize);
    let half = (size.0.div_ceil(2), size.1.div_ceil(2));
    let (left, top, width, height) = geometry.target;
    let (w, h) = (plan.width as usize, plan.height as usize);
    let row = &input.as_f32()[3 * w * h..];
    let (mut worst, mut sum) = (0.0f64, 0.0);
    for y in 0..h {
        for x in 0..w {
            let inside = (left as usize..(left + width) as usize).contains(&x)
                && (top as usize..(top + height) as usize).contains(&y);
            let expected = if inside {
                let across = f64::from(geometry.crop.2) / f64::from(width);
                let down = f64::from(geometry.crop.3) / f64::from(height);
                let sx = (x as f64 - f64::from(left) + 0.5) * across + f64::from(geometry.crop.0);
                let sy = (y as f64 - f64::from(top) + 0.5) * down + f64::from(geometry.crop.1);
                let luma = bilinear(&planes.y, size, sx - 0.5, sy - 0.5);
                let u = bilinear(&planes.u, half, sx / 2.0 - 0.5, sy / 2.0 - 0.5);
                let v = bilinear(&planes.v, half, sx / 2.0 - 0.5, sy / 2.0 - 0.5);
                rgb_of(luma, u, v, colors)
            } else {
                [f64::from(plan.pad); 3]
            };
            for channel in 0..3 {
                let found = f64::from(row[channel * w * h + y * w + x]);
                worst = worst.max((found - expected[channel]).abs());
                sum += (found - expected[channel]).abs();
            }
        }
    }
    // 1/255, of which 0.5 is the rounding to a byte, and a hair for the libraries' fixed point.
    let mean = sum / (3 * w * h) as f64;
    prop_assert!(worst <= 1.15, "{mean} {worst} for {picture:?} {geometry:?}");
    Ok(())
}

fn colors() -> impl Strategy<Value = ColorSpace> {
    let matrix = prop::sample::select(vec![Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020]);
    (matrix, any::<bool>()).prop_map(|(matrix, full_range)| ColorSpace { matrix, full_range })
}

fn fits() -> impl Strategy<Value = Fit> {
    prop::sample::select(vec![Fit::TopLeft, Fit::Center, Fit::Stretch])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn luminance_and_colour_as_by_the_formulas(
        width in 20usize..300, height in 20usize..200, (iw, ih) in (16usize..160, 16usize..160),
        colors in colors(), fit in fits(), seed in 0u64..100, nv12 in any::<bool>(),
    ) {
        let planes = planes(width, height, seed);
        let mut data = planes.y.clone();
        let format = if nv12 {
            data.extend(planes.u.iter().zip(&planes.v).flat_map(|(u, v)| [*u, *v]));
            PixelFormat::Nv12(colors)
        } else {
            data.extend(planes.u.iter().chain(&planes.v));
            PixelFormat::I420(colors)
        };
        let picture = Picture::owned(width as u32, height as u32, format, data).unwrap();
        check(&picture, &planes, colors, &plan(fit, iw, ih))?;
    }

    #[test]
    fn rgb_within_one_step(width in 3usize..300, height in 3usize..200, (iw, ih) in (8usize..160, 8usize..160), fit in fits(), seed in 0u64..100) {
        let channels: Vec<Vec<u8>> = (0..3).map(|c| planes(width, height, seed + c * 17).y).collect();
        let data: Vec<u8> = (0..width * height).flat_map(|i| [channels[0][i], channels[1][i], channels[2][i]]).collect();
        let picture = Picture::rgb(width as u32, height as u32, data).unwrap();
        let plan = plan(fit, iw, ih);
        let mut input = Preprocessor::tensor(&plan, 1);
        let geometry = Preprocessor::default().fill(&picture, &plan, &mut input, 0).unwrap();
        let (left, top, w, h) = geometry.target;
        for y in 0..h {
            for x in 0..w {
                let sx = (f64::from(x) + 0.5) * width as f64 / f64::from(w) - 0.5;
                let sy = (f64::from(y) + 0.5) * height as f64 / f64::from(h) - 0.5;
                for (channel, plane) in channels.iter().enumerate() {
                    let at = channel * iw * ih + (top + y) as usize * iw + (left + x) as usize;
                    let found = f64::from(input.as_f32()[at]);
                    let expected = bilinear(plane, (width, height), sx, sy);
                    prop_assert!((found - expected).abs() <= 1.0 + 1e-6, "{found} {expected}");
                }
            }
        }
    }
}

#[test]
fn numbers_are_normalised_and_in_their_order() {
    let io = |input: &[usize]| ModelIo {
        inputs: vec![TensorInfo::f32("x", input)],
        outputs: vec![TensorInfo::f32("y", &[1, 10])],
        ..ModelIo::default()
    };
    let spec = ModelSpec {
        letterbox: Some(Fit::Stretch),
        color: Some(crate::config::ColorOrder::Bgr),
        scale: Some(1.0 / 255.0),
        mean: Some(vec![0.5, 0.25, 0.0]),
        std: Some(vec![0.5, 1.0, 2.0]),
        ..ModelSpec::new("x")
    };
    let picture = Picture::rgb(2, 2, [255, 51, 102].repeat(4)).unwrap();
    let fill = |input: &[usize]| {
        let plan = ModelPlan::new(&spec, &io(input)).unwrap().input;
        let mut tensor = Preprocessor::tensor(&plan, 1);
        Preprocessor::default().fill(&picture, &plan, &mut tensor, 0).unwrap();
        tensor
    };
    // Blue 0.4 - 0.5 over 0.5, green 0.2 - 0.25, red 1.0 over 2.
    let expected = [-0.2, -0.05, 0.5];
    let first = fill(&[1, 3, 2, 2]);
    let last = fill(&[1, 2, 2, 3]);
    for (channel, expected) in expected.iter().enumerate() {
        assert!((first.number(channel * 4) - expected).abs() < 1e-6, "{first:?}");
        assert!((last.number(channel) - expected).abs() < 1e-6, "{last:?}");
    }
    let gray = fill(&[1, 1, 2, 2]);
    let luma = (0.299f32 * 255.0 + 0.587 * 51.0 + 0.114 * 102.0).round() / 255.0;
    assert!((gray.number(0) - (luma - 0.5) / 0.5).abs() < 1e-5, "{gray:?}");
}
