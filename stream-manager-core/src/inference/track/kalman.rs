//! Where a box is, and how fast it moves and grows: a Kalman filter with constant velocity and noise that grows with the box.
//!
//! The four numbers of a box (centre, width, height) are independent of each other as in SORT and its successors, where all
//! matrices are diagonal by blocks. So this is four filters of two numbers each, and no matrix is ever inverted.

use crate::detection::Region;

/// How wrong a model's boxes are, in parts of the box (standard deviation).
const MEASURED: f64 = 0.05;
/// How fast a box changes its mind, in parts of the box a second and root of a second.
const RESTLESS: f64 = 0.9;
/// How fast something may be when it is first seen, in boxes a second.
const AT_FIRST: f64 = 2.5;
/// How much slower its size changes than its place.
const STIFF: f64 = 0.35;

/// A number and its change in a second, with their covariance.
#[derive(Clone, Copy, Debug)]
struct Axis {
    at: f64,
    speed: f64,
    var_at: f64,
    covar: f64,
    var_speed: f64,
}

impl Axis {
    fn new(at: f64, scale: f64, stiff: f64) -> Self {
        let (measured, speed) = (MEASURED * scale, AT_FIRST * stiff * scale);
        Self { at, speed: 0.0, var_at: measured * measured, covar: 0.0, var_speed: speed * speed }
    }

    fn predict(&mut self, secs: f64, scale: f64, stiff: f64) {
        let noise = RESTLESS * stiff * scale;
        let noise = noise * noise;
        self.at += self.speed * secs;
        self.var_at += secs * (2.0 * self.covar + secs * self.var_speed) + noise * secs.powi(3) / 3.0;
        self.covar += secs * self.var_speed + noise * secs * secs / 2.0;
        self.var_speed += noise * secs;
    }

    fn correct(&mut self, measured: f64, scale: f64) {
        let noise = MEASURED * scale;
        let total = self.var_at + noise * noise;
        if total <= 0.0 {
            return;
        }
        let (gain_at, gain_speed) = (self.var_at / total, self.covar / total);
        let error = measured - self.at;
        self.at += gain_at * error;
        self.speed += gain_speed * error;
        // The covariance times (1 - gain); the one of the speed loses what the place has taught about it.
        self.var_speed -= gain_speed * self.covar;
        self.var_at *= 1.0 - gain_at;
        self.covar *= 1.0 - gain_at;
    }
}

/// The filter of one box.
#[derive(Clone, Debug)]
pub(super) struct Motion {
    x: Axis,
    y: Axis,
    width: Axis,
    height: Axis,
}

fn parts(region: &Region) -> [f64; 4] {
    let [x0, y0, x1, y1] = [region.x0, region.y0, region.x1, region.y1].map(f64::from);
    [(x0 + x1) / 2.0, (y0 + y1) / 2.0, (x1 - x0).max(1e-6), (y1 - y0).max(1e-6)]
}

impl Motion {
    pub(super) fn new(region: &Region) -> Self {
        let [x, y, width, height] = parts(region);
        Self {
            x: Axis::new(x, width, 1.0),
            y: Axis::new(y, height, 1.0),
            width: Axis::new(width, width, STIFF),
            height: Axis::new(height, height, STIFF),
        }
    }

    /// So much later, not seen since.
    pub(super) fn predict(&mut self, secs: f64) {
        let (width, height) = (self.width.at, self.height.at);
        self.x.predict(secs, width, 1.0);
        self.y.predict(secs, height, 1.0);
        self.width.predict(secs, width, STIFF);
        self.height.predict(secs, height, STIFF);
        // What shrinks does not turn inside out.
        self.width.at = self.width.at.max(width * 0.2).max(1e-6);
        self.height.at = self.height.at.max(height * 0.2).max(1e-6);
    }

    /// Seen here.
    pub(super) fn correct(&mut self, region: &Region) {
        let [x, y, width, height] = parts(region);
        self.x.correct(x, width);
        self.y.correct(y, height);
        self.width.correct(width, width);
        self.height.correct(height, height);
        self.width.at = self.width.at.max(1e-6);
        self.height.at = self.height.at.max(1e-6);
    }

    /// It does not grow while nobody sees it.
    pub(super) fn hold_size(&mut self) {
        self.width.speed = 0.0;
        self.height.speed = 0.0;
    }

    pub(super) fn region(&self) -> Region {
        let (w, h) = (self.width.at / 2.0, self.height.at / 2.0);
        let edges = [self.x.at - w, self.y.at - h, self.x.at + w, self.y.at + h].map(|v| v as f32);
        Region::new(edges[0], edges[1], edges[2], edges[3])
    }

    /// Parts of the picture in a second, across and down.
    pub(super) fn velocity(&self) -> [f32; 2] {
        [self.x.speed as f32, self.y.speed as f32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same by the textbook, with matrices: P = FPF' + Q, K = PH'(HPH' + R)^-1, P = (I - KH)P.
    fn textbook(steps: &[(f64, f64)], scale: f64) -> ([f64; 2], [[f64; 2]; 2]) {
        let mul = |a: [[f64; 2]; 2], b: [[f64; 2]; 2]| {
            let cell = |i: usize, j: usize| a[i][0] * b[0][j] + a[i][1] * b[1][j];
            [[cell(0, 0), cell(0, 1)], [cell(1, 0), cell(1, 1)]]
        };
        let mut x = [steps[0].1, 0.0];
        let r = (MEASURED * scale).powi(2);
        let mut p = [[r, 0.0], [0.0, (AT_FIRST * scale).powi(2)]];
        for &(secs, measured) in &steps[1..] {
            let (f, ft) = ([[1.0, secs], [0.0, 1.0]], [[1.0, 0.0], [secs, 1.0]]);
            x = [x[0] + secs * x[1], x[1]];
            p = mul(mul(f, p), ft);
            let q = (RESTLESS * scale).powi(2);
            p[0][0] += q * secs.powi(3) / 3.0;
            p[0][1] += q * secs.powi(2) / 2.0;
            p[1][0] += q * secs.powi(2) / 2.0;
            p[1][1] += q * secs;
            let s = p[0][0] + r;
            let k = [p[0][0] / s, p[1][0] / s];
            let e = measured - x[0];
            x = [x[0] + k[0] * e, x[1] + k[1] * e];
            p = mul([[1.0 - k[0], 0.0], [-k[1], 1.0]], p);
        }
        (x, p)
    }

    proptest! {
        #[test]
        fn as_by_the_textbook(steps in prop::collection::vec((0.01f64..1.0, -1.0f64..2.0), 1..40), scale in 0.01f64..1.0) {
            let mut axis = Axis::new(steps[0].1, scale, 1.0);
            for &(secs, measured) in &steps[1..] {
                axis.predict(secs, scale, 1.0);
                axis.correct(measured, scale);
            }
            let (x, p) = textbook(&steps, scale);
            prop_assert!((axis.at - x[0]).abs() < 1e-9 && (axis.speed - x[1]).abs() < 1e-7, "{axis:?} {x:?}");
            for (a, b) in [(axis.var_at, p[0][0]), (axis.covar, p[0][1]), (axis.var_speed, p[1][1])] {
                prop_assert!((a - b).abs() <= 1e-9 + b.abs() * 1e-6, "{axis:?} {p:?}");
            }
            // A covariance: nothing less than zero, and no more in common than each has.
            prop_assert!(axis.var_at >= 0.0 && axis.var_speed >= 0.0);
            prop_assert!(axis.covar * axis.covar <= axis.var_at * axis.var_speed * 1.000_001);
        }

        #[test]
        fn what_moves_evenly_is_foreseen(
            from in (0.1f32..0.5, 0.1f32..0.5), size in (0.02f32..0.3, 0.02f32..0.3),
            boxes in (-1.0f32..1.0, -1.0f32..1.0), rate in 2u32..31,
        ) {
            // As many boxes a second across and down.
            let (vx, vy) = (boxes.0 * size.0, boxes.1 * size.1);
            let at = |secs: f32| {
                let (x, y) = (from.0 + vx * secs, from.1 + vy * secs);
                Region::new(x, y, x + size.0, y + size.1)
            };
            let step = 1.0 / rate as f32;
            let mut motion = Motion::new(&at(0.0));
            for n in 1..=rate * 3 {
                motion.predict(f64::from(step));
                motion.correct(&at(n as f32 * step));
            }
            let [x, y] = motion.velocity();
            prop_assert!((x - vx).abs() < 0.12 * size.0 && (y - vy).abs() < 0.12 * size.1, "{x} {vx} {y} {vy}");
            motion.predict(0.5);
            prop_assert!(motion.region().iou(&at(3.5)) > 0.8, "{:?} {:?}", motion.region(), at(3.5));
        }

        #[test]
        fn nothing_makes_a_box_that_is_none(
            boxes in prop::collection::vec((0.0f32..1.0, 0.0f32..1.0, 0.0f32..1.0, 0.0f32..1.0, 0.0f64..20.0), 1..50),
        ) {
            let region = |b: &(f32, f32, f32, f32, f64)| Region::new(b.0, b.1, b.0 + b.2, b.1 + b.3);
            let mut motion = Motion::new(&region(&boxes[0]));
            for one in &boxes {
                motion.predict(one.4);
                let foreseen = motion.region();
                prop_assert!([foreseen.x0, foreseen.y0, foreseen.x1, foreseen.y1].iter().all(|v| v.is_finite()));
                motion.correct(&region(one));
                let seen = motion.region();
                prop_assert!(seen.x1 >= seen.x0 && seen.y1 >= seen.y0, "{seen:?}");
            }
        }
    }
}
