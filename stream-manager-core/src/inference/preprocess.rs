//! From a picture to a model's input: scaled, converted, put in its place, and as numbers.

use super::InferenceError;
use super::convert::Scaler;
use super::geometry::Geometry;
use super::picture::Picture;
use super::plan::InputPlan;
use super::tensor::{ElementType, Tensor, TensorData};
use crate::config::ColorOrder;

/// Fills the rows of a batch; keeps its buffers.
#[derive(Debug, Default)]
pub struct Preprocessor {
    scaler: Scaler,
}

impl Preprocessor {
    /// An input for `batch` pictures, not filled yet.
    pub fn tensor(plan: &InputPlan, batch: usize) -> Tensor {
        let [w, h, c] = [plan.width as usize, plan.height as usize, plan.channels];
        let shape = if plan.channels_first { vec![batch, c, h, w] } else { vec![batch, h, w, c] };
        let numbers = batch * c * h * w;
        let data = match plan.element {
            ElementType::U8 => TensorData::U8(vec![0; numbers]),
            _ => TensorData::F32(vec![0.0; numbers]),
        };
        Tensor { shape, data }
    }

    /// Puts a picture into row `index` of an input. Gives where it lies there.
    ///
    /// # Errors
    /// If the picture's memory is not as its format says.
    pub fn fill(
        &mut self,
        picture: &Picture,
        plan: &InputPlan,
        input: &mut Tensor,
        index: usize,
    ) -> Result<Geometry, InferenceError> {
        let size = (picture.width(), picture.height());
        let geometry = Geometry::new(plan.fit, size, (plan.width, plan.height));
        let (_, _, width, height) = geometry.target;
        let rgb = self.scaler.rgb(picture, geometry.crop, (width, height))?;
        let numbers = plan.width as usize * plan.height as usize * plan.channels;
        let range = index * numbers..(index + 1) * numbers;
        match &mut input.data {
            TensorData::F32(data) => {
                if let Some(row) = data.get_mut(range) {
                    // There are only 256 values.
                    let number = |channel: usize, value: u8| {
                        f32::from(value) * plan.factor[channel] + plan.offset[channel]
                    };
                    let numbers: [[f32; 256]; 3] = std::array::from_fn(|channel| {
                        std::array::from_fn(|value| number(channel, value as u8))
                    });
                    place(rgb, plan, &geometry, row, |value, channel| numbers[channel][usize::from(value)]);
                }
            }
            TensorData::U8(data) => {
                if let Some(row) = data.get_mut(range) {
                    place(rgb, plan, &geometry, row, |value, _| value);
                }
            }
            TensorData::I64(_) => {}
        }
        Ok(geometry)
    }
}

/// Writes a scaled picture into its place, and fills what is around it.
fn place<T: Copy>(
    rgb: &[u8],
    plan: &InputPlan,
    geometry: &Geometry,
    out: &mut [T],
    number: impl Fn(u8, usize) -> T,
) {
    let (left, top, width, height) = geometry.target;
    let [left, top, width, height] = [left, top, width, height].map(|v| v as usize);
    let (across, down, channels) = (plan.width as usize, plan.height as usize, plan.channels);
    let order: [usize; 3] = if plan.color == ColorOrder::Bgr { [2, 1, 0] } else { [0, 1, 2] };
    let padded = width < across || height < down;
    if plan.channels_first {
        for (channel, plane) in out.chunks_exact_mut(across * down).enumerate() {
            if padded {
                let pad = number(plan.pad, channel);
                plane[..top * across].fill(pad);
                plane[(top + height) * across..].fill(pad);
                for row in plane[top * across..(top + height) * across].chunks_exact_mut(across) {
                    row[..left].fill(pad);
                    row[left + width..].fill(pad);
                }
            }
            let rows = plane[top * across..(top + height) * across].chunks_exact_mut(across);
            for (row, from) in rows.zip(rgb.chunks_exact(width * 3)) {
                let row = &mut row[left..left + width];
                if channels == 1 {
                    for (to, pixel) in row.iter_mut().zip(from.chunks_exact(3)) {
                        *to = number(gray(pixel), 0);
                    }
                } else {
                    let at = order[channel];
                    for (to, pixel) in row.iter_mut().zip(from.chunks_exact(3)) {
                        *to = number(pixel[at], channel);
                    }
                }
            }
        }
        return;
    }
    if padded {
        for pixel in out.chunks_exact_mut(channels) {
            for (channel, to) in pixel.iter_mut().enumerate() {
                *to = number(plan.pad, channel);
            }
        }
    }
    let rows = out.chunks_exact_mut(across * channels).skip(top).take(height);
    for (row, from) in rows.zip(rgb.chunks_exact(width * 3)) {
        let row = &mut row[left * channels..(left + width) * channels];
        for (to, pixel) in row.chunks_exact_mut(channels).zip(from.chunks_exact(3)) {
            if channels == 1 {
                to[0] = number(gray(pixel), 0);
            } else {
                for (channel, to) in to.iter_mut().enumerate() {
                    *to = number(pixel[order[channel]], channel);
                }
            }
        }
    }
}

/// Luminance as in ITU-R BT.601.
fn gray(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((r * 299 + g * 587 + b * 114 + 500) / 1000) as u8
}

#[cfg(test)]
mod tests;
