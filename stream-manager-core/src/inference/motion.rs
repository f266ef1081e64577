//! Whether something has moved: cheap, on a small picture in grey.
//!
//! The picture is made 80 pixels wide and compared with a slowly following memory of what is usually there. Wind,
//! noise and the sun are below the contrast that counts or in the mask.

use super::InferenceError;
use super::convert::Scaler;
use super::picture::Picture;
use crate::config::MotionSettings;
use std::time::Instant;

/// The small picture's width.
const WIDTH: u32 = 80;
/// How fast the memory follows: a sixteenth of the difference with each picture.
const SHIFT: u32 = 4;

/// Decides for one stream, picture by picture.
pub(super) struct MotionGate {
    settings: MotionSettings,
    scaler: Scaler,
    size: (u32, u32),
    source: (u32, u32),
    /// What is usually there, times 256.
    memory: Vec<u16>,
    /// Whether a pixel counts.
    counts: Vec<bool>,
    moved: Option<Instant>,
}

impl MotionGate {
    pub(super) fn new(settings: MotionSettings) -> Self {
        Self {
            settings,
            scaler: Scaler::default(),
            size: (0, 0),
            source: (0, 0),
            memory: Vec::new(),
            counts: Vec::new(),
            moved: None,
        }
    }

    /// Whether the picture is worth a look.
    pub(super) fn passes(&mut self, picture: &Picture, now: Instant) -> Result<bool, InferenceError> {
        let source = (picture.width(), picture.height());
        let begins = self.source != source;
        if begins {
            let height = (u64::from(WIDTH) * u64::from(source.1) / u64::from(source.0.max(1))).clamp(1, 200);
            (self.source, self.size) = (source, (WIDTH, height as u32));
            self.counts = self.mask();
        }
        let luma = self.scaler.luma(picture, self.size)?;
        if begins {
            self.memory = luma.iter().map(|v| u16::from(*v) << 8).collect();
        }
        let contrast = u16::from(self.settings.contrast);
        let mut changed = 0usize;
        for ((memory, &value), &counts) in self.memory.iter_mut().zip(luma).zip(&self.counts) {
            let now = u16::from(value) << 8;
            changed += usize::from(counts && (*memory >> 8).abs_diff(u16::from(value)) > contrast);
            // Toward what is there, without ever stopping short of it.
            *memory = if now >= *memory {
                *memory + ((now - *memory) >> SHIFT)
            } else {
                *memory - ((*memory - now) >> SHIFT)
            };
        }
        let of = self.counts.iter().filter(|c| **c).count();
        // A stream's first picture is looked at in any case: what stands there already is also there.
        if begins || (changed > 0 && changed as f32 >= self.settings.area * of as f32) {
            self.moved = Some(now);
        }
        Ok(self.moved.is_some_and(|at| now.duration_since(at) <= self.settings.hold))
    }

    fn mask(&self) -> Vec<bool> {
        let (width, height) = self.size;
        let masked = |x: f32, y: f32| {
            self.settings.mask.iter().any(|[x0, y0, x1, y1]| x >= *x0 && x <= *x1 && y >= *y0 && y <= *y1)
        };
        (0..width * height)
            .map(|i| {
                let (x, y) = (i % width, i / width);
                !masked((x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A grey picture with a bright square.
    fn picture(square: Option<(u32, u32)>) -> Picture {
        let (width, height) = (320, 240);
        let mut data = vec![90u8; width as usize * height as usize * 3];
        if let Some((left, top)) = square {
            for y in top..top + 40 {
                for x in left..left + 40 {
                    let at = ((y * width + x) * 3) as usize;
                    data[at..at + 3].fill(220);
                }
            }
        }
        Picture::rgb(width, height, data).unwrap()
    }

    #[test]
    fn what_moves_passes_and_what_stands_does_not() {
        let settings = MotionSettings { hold: Duration::from_secs(1), ..MotionSettings::default() };
        let mut gate = MotionGate::new(settings);
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        assert!(gate.passes(&picture(None), at(0)).unwrap(), "the first picture");
        for second in 2..10 {
            assert!(!gate.passes(&picture(None), at(second)).unwrap());
        }
        assert!(gate.passes(&picture(Some((20, 20))), at(10)).unwrap());
        assert!(gate.passes(&picture(None), at(11)).unwrap(), "held");
        for second in 20..100 {
            gate.passes(&picture(Some((20, 20))), at(second)).unwrap();
        }
        assert!(!gate.passes(&picture(Some((20, 20))), at(200)).unwrap(), "it stands there now");
    }

    #[test]
    fn what_is_masked_does_not_count() {
        let mask = vec![[0.0, 0.0, 0.5, 1.0]];
        let mut gate =
            MotionGate::new(MotionSettings { mask, hold: Duration::ZERO, ..MotionSettings::default() });
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        gate.passes(&picture(None), at(0)).unwrap();
        assert!(!gate.passes(&picture(Some((20, 20))), at(1)).unwrap());
        assert!(gate.passes(&picture(Some((240, 20))), at(2)).unwrap());
    }
}
