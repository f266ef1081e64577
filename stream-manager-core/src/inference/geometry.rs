//! Where a picture lies in a model's input, and where a box in the input lies in the picture.

use crate::config::Fit;
use crate::detection::Region;

/// How a picture was brought into a model's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// The picture's size in pixels.
    pub source: (u32, u32),
    /// The part of it that is used: left, top, width, height.
    pub crop: (f32, f32, f32, f32),
    /// Where that lies in the input: left, top, width, height.
    pub target: (u32, u32, u32, u32),
    /// Pixels of the picture for one of the input, across and down.
    pub scale: (f32, f32),
}

impl Geometry {
    /// How a picture of this size fits into an input of that size. Both have at least one pixel.
    pub fn new(fit: Fit, source: (u32, u32), input: (u32, u32)) -> Self {
        let (width, height) = (source.0.max(1) as f32, source.1.max(1) as f32);
        let (across, down) = (input.0 as f32 / width, input.1 as f32 / height);
        let whole = (0.0, 0.0, width, height);
        let full = (0, 0, input.0, input.1);
        let each = |crop: (f32, f32, f32, f32)| (crop.2 / input.0 as f32, crop.3 / input.1 as f32);
        let (crop, target, scale) = match fit {
            Fit::Stretch => (whole, full, each(whole)),
            Fit::Crop => {
                let scale = across.max(down);
                let (w, h) = ((input.0 as f32 / scale).min(width), (input.1 as f32 / scale).min(height));
                let crop = ((width - w) / 2.0, (height - h) / 2.0, w, h);
                (crop, full, each(crop))
            }
            Fit::TopLeft | Fit::Center => {
                // In the same precision and order as the authors of these models, who train with what comes out:
                // YOLOX cuts fractions off, also such as come from rounding alone (432 rows become 233).
                let (wide, high) = (f64::from(source.0.max(1)), f64::from(source.1.max(1)));
                let scale = (f64::from(input.1) / high).min(f64::from(input.0) / wide);
                let round = |v: f64| if fit == Fit::TopLeft { v.floor() } else { v.round() };
                let w = (round(wide * scale) as u32).clamp(1, input.0);
                let h = (round(high * scale) as u32).clamp(1, input.1);
                let (x, y) =
                    if fit == Fit::TopLeft { (0, 0) } else { ((input.0 - w) / 2, (input.1 - h) / 2) };
                // Boxes are scaled by the ratio, not by what rounding has made of it: also as they do it.
                let ratio = (1.0 / scale) as f32;
                (whole, (x, y, w, h), (ratio, ratio))
            }
        };
        Self { source, crop, target, scale }
    }

    /// A box in the input as a box in the picture, cut at its edges. `None` if nothing of it is left.
    pub fn to_source(&self, region: Region) -> Option<Region> {
        let (left, top, ..) = self.target;
        let scale = self.scale;
        let x = |v: f32| ((v - left as f32) * scale.0 + self.crop.0).clamp(0.0, self.source.0 as f32);
        let y = |v: f32| ((v - top as f32) * scale.1 + self.crop.1).clamp(0.0, self.source.1 as f32);
        let region = Region::new(x(region.x0), y(region.y0), x(region.x1), y(region.y1));
        // Also false for what is no number.
        (region.x1 > region.x0 && region.y1 > region.y0 && region.area() > 0.0).then_some(region)
    }

    /// A box in the picture as a box in the input.
    pub fn to_input(&self, region: Region) -> Region {
        let (left, top, ..) = self.target;
        let x = |v: f32| (v - self.crop.0) / self.scale.0 + left as f32;
        let y = |v: f32| (v - self.crop.1) / self.scale.1 + top as f32;
        Region::new(x(region.x0), y(region.y0), x(region.x1), y(region.y1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_yolox_and_ultralytics_do_it() {
        let yolox = Geometry::new(Fit::TopLeft, (768, 432), (416, 416));
        assert_eq!(yolox.target, (0, 0, 416, 233));
        let centred = Geometry::new(Fit::Center, (1920, 1080), (640, 640));
        assert_eq!(centred.target, (0, 140, 640, 360));
        let cropped = Geometry::new(Fit::Crop, (400, 200), (100, 100));
        assert_eq!(cropped.crop, (100.0, 0.0, 200.0, 200.0));
    }

    fn fits() -> impl Strategy<Value = Fit> {
        prop::sample::select(vec![Fit::TopLeft, Fit::Center, Fit::Stretch, Fit::Crop])
    }

    proptest! {
        #[test]
        fn boxes_come_back(
            fit in fits(), w in 1u32..8000, h in 1u32..8000, iw in 16u32..1300, ih in 16u32..1300,
            corner in (0.0f32..0.9, 0.0f32..0.9), size in (0.05f32..1.0, 0.05f32..1.0),
        ) {
            let geometry = Geometry::new(fit, (w, h), (iw, ih));
            let (x, y, cw, ch) = geometry.crop;
            let at = |start: f32, len: f32, part: f32| start + len * part.min(1.0);
            let region = Region::new(
                at(x, cw, corner.0), at(y, ch, corner.1),
                at(x, cw, corner.0 + size.0), at(y, ch, corner.1 + size.1),
            );
            let back = geometry.to_source(geometry.to_input(region)).unwrap();
            // Floating point of 24 bits: relative to the picture's size.
            for (a, b) in [(back.x0, region.x0), (back.y0, region.y0), (back.x1, region.x1), (back.y1, region.y1)] {
                prop_assert!((a - b).abs() <= 1e-4 * w.max(h) as f32 + 1e-3, "{back:?} {region:?}");
            }
        }

        #[test]
        fn the_picture_lies_inside_the_input(fit in fits(), w in 1u32..20_000, h in 1u32..20_000, iw in 1u32..2000, ih in 1u32..2000) {
            let geometry = Geometry::new(fit, (w, h), (iw, ih));
            let (x, y, tw, th) = geometry.target;
            prop_assert!(tw >= 1 && th >= 1 && x + tw <= iw && y + th <= ih);
            let (x, y, cw, ch) = geometry.crop;
            prop_assert!(x >= 0.0 && y >= 0.0 && cw > 0.0 && ch > 0.0);
            prop_assert!(x + cw <= w as f32 * 1.0001 && y + ch <= h as f32 * 1.0001);
        }

        #[test]
        fn boxes_never_leave_the_picture(fit in fits(), w in 1u32..8000, h in 1u32..8000, v in prop::array::uniform4(any::<f32>())) {
            let geometry = Geometry::new(fit, (w, h), (416, 416));
            if let Some(r) = geometry.to_source(Region::new(v[0], v[1], v[2], v[3])) {
                prop_assert!(r.x0 >= 0.0 && r.y0 >= 0.0 && r.x1 <= w as f32 && r.y1 <= h as f32 && r.area() > 0.0);
            }
        }
    }
}
