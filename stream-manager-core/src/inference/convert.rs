//! Scaling and colour conversion, both by libraries that use the CPU's vector instructions.

use super::InferenceError;
use super::error::picture as wrong;
use super::picture::{ColorSpace, Matrix, Picture, PixelFormat, Plane};
use fast_image_resize::images::{Image, ImageRef, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U16, U16x2};
use fast_image_resize::{FilterType, PixelTrait, PixelType, ResizeAlg, ResizeOptions, Resizer};
use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvPlanarImage, YuvRange, YuvStandardMatrix};

fn range_of(colors: ColorSpace) -> YuvRange {
    if colors.full_range { YuvRange::Full } else { YuvRange::Limited }
}

fn matrix_of(colors: ColorSpace) -> YuvStandardMatrix {
    match colors.matrix {
        Matrix::Bt601 => YuvStandardMatrix::Bt601,
        Matrix::Bt709 => YuvStandardMatrix::Bt709,
        Matrix::Bt2020 => YuvStandardMatrix::Bt2020,
    }
}

fn stride(plane: Plane<'_>) -> u32 {
    u32::try_from(plane.stride).unwrap_or(u32::MAX)
}

/// A whole picture as red, green and blue, into `rgb` of exactly its size.
pub(super) fn to_rgb(picture: &Picture, rgb: &mut [u8]) -> Result<(), InferenceError> {
    let (width, height) = (picture.width(), picture.height());
    let failed = |e: yuv::YuvError| wrong(e.to_string());
    match picture.format() {
        PixelFormat::Rgb => {
            let plane = picture.plane(0)?;
            let row = width as usize * 3;
            for (from, to) in plane.data.chunks(plane.stride).zip(rgb.chunks_exact_mut(row)) {
                to.copy_from_slice(from.get(..row).ok_or_else(|| wrong("too few bytes in a row"))?);
            }
            Ok(())
        }
        PixelFormat::I420(colors) => {
            let (y, u, v) = (picture.plane(0)?, picture.plane(1)?, picture.plane(2)?);
            let image = YuvPlanarImage {
                y_plane: y.data,
                y_stride: stride(y),
                u_plane: u.data,
                u_stride: stride(u),
                v_plane: v.data,
                v_stride: stride(v),
                width,
                height,
            };
            yuv::yuv420_to_rgb(&image, rgb, width * 3, range_of(colors), matrix_of(colors)).map_err(failed)
        }
        PixelFormat::Nv12(colors) => {
            let (y, uv) = (picture.plane(0)?, picture.plane(1)?);
            let image = YuvBiPlanarImage {
                y_plane: y.data,
                y_stride: stride(y),
                uv_plane: uv.data,
                uv_stride: stride(uv),
                width,
                height,
            };
            let mode = YuvConversionMode::Balanced;
            yuv::yuv_nv12_to_rgb(&image, rgb, width * 3, range_of(colors), matrix_of(colors), mode)
                .map_err(failed)
        }
    }
}

/// A byte with more bits, so that what is rounded while it is scaled is not seen in the result.
fn widened(value: u8) -> u16 {
    u16::from(value) << 8
}

/// The twelve bits of it that colours are made of.
fn twelve_bits(value: u16) -> u16 {
    (value.saturating_add(8) >> 4).min(4095)
}

/// Bits of the weights of two rows.
const WEIGHT_BITS: u32 = 15;

/// New rows that are made at a time: what that takes stays in the processor's cache.
const STRIP: usize = 64;

/// Scales and converts; keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Scaler {
    resizer: Resizer,
    /// Rows of a plane with more bits.
    one: Vec<U16>,
    two: Vec<U16x2>,
    /// The same in their new width.
    one_narrow: Vec<U16>,
    two_narrow: Vec<U16x2>,
    /// Luminance and colour in their new size.
    planes: [Vec<u16>; 3],
    rgb: Vec<u8>,
    luma: Vec<u8>,
}

/// The part of a picture that is scaled: left, top, width, height in pixels.
type Crop = (f32, f32, f32, f32);

impl Scaler {
    /// Part of a picture, scaled to `width` x `height`, as red, green and blue. Bilinear as OpenCV does it: four
    /// neighbours, whatever the size.
    pub(super) fn rgb(
        &mut self,
        picture: &Picture,
        crop: Crop,
        (width, height): (u32, u32),
    ) -> Result<&[u8], InferenceError> {
        let target = (width, height);
        let size = (picture.width(), picture.height());
        let half = (size.0.div_ceil(2), size.1.div_ceil(2));
        // Two pixels share a colour, also the last one with nobody.
        let half_crop = (crop.0 / 2.0, crop.1 / 2.0, crop.2 / 2.0, crop.3 / 2.0);
        self.rgb.resize(width as usize * height as usize * 3, 0);
        let colors = match picture.format() {
            PixelFormat::Rgb => {
                let to = &mut self.rgb;
                scale_bytes(&mut self.resizer, picture.plane(0)?, size, PixelType::U8x3, crop, to, target)?;
                return Ok(&self.rgb);
            }
            PixelFormat::I420(colors) => {
                self.plane(picture.plane(0)?, size, crop, target, 0)?;
                self.plane(picture.plane(1)?, half, half_crop, target, 1)?;
                self.plane(picture.plane(2)?, half, half_crop, target, 2)?;
                colors
            }
            PixelFormat::Nv12(colors) => {
                self.plane(picture.plane(0)?, size, crop, target, 0)?;
                self.pair(picture.plane(1)?, half, half_crop, target)?;
                colors
            }
        };
        let [y, u, v] = &self.planes;
        let image = YuvPlanarImage {
            y_plane: y,
            y_stride: width,
            u_plane: u,
            u_stride: width,
            v_plane: v,
            v_stride: width,
            width,
            height,
        };
        yuv::i412_to_rgb(&image, &mut self.rgb, width * 3, range_of(colors), matrix_of(colors))
            .map_err(|e| wrong(e.to_string()))?;
        Ok(&self.rgb)
    }

    /// One plane into the `index`-th of those in their new size.
    fn plane(
        &mut self,
        plane: Plane<'_>,
        size: (u32, u32),
        crop: Crop,
        target: (u32, u32),
        index: usize,
    ) -> Result<(), InferenceError> {
        let Self { resizer, one, one_narrow, planes, .. } = self;
        let (width, across) = (size.0 as usize, target.0 as usize);
        let to = &mut planes[index];
        to.resize(across * target.1 as usize, 0);
        let convert = |bytes: &[u8], to: &mut [U16]| {
            for (to, from) in to.iter_mut().zip(bytes) {
                *to = U16::new(widened(*from));
            }
        };
        let Some(pairs) = pairs(size.1, crop, target.1) else {
            gather(plane, width, 0..size.1 as usize, one, convert)?;
            one_narrow.resize(to.len(), U16::new(0));
            scale(resizer, one, size, one_narrow, target, crop)?;
            to.iter_mut().zip(one_narrow).for_each(|(to, from)| *to = twelve_bits(from.0));
            return Ok(());
        };
        for (strip, to) in pairs.chunks(STRIP).zip(to.chunks_mut(across * STRIP)) {
            gather(plane, width, strip.iter().flat_map(|(above, below, _)| [*above, *below]), one, convert)?;
            let rows = strip.len() as u32 * 2;
            one_narrow.resize(across * rows as usize, U16::new(0));
            scale(resizer, one, (size.0, rows), one_narrow, (target.0, rows), across_only(crop, rows))?;
            for ((to, from), (.., weight)) in
                to.chunks_exact_mut(across).zip(one_narrow.chunks_exact(across * 2)).zip(strip)
            {
                let (above, below) = from.split_at(across);
                for ((to, above), below) in to.iter_mut().zip(above).zip(below) {
                    *to = blend(above.0, below.0, *weight);
                }
            }
        }
        Ok(())
    }

    /// A plane of two colours into the second and third of those in their new size.
    fn pair(
        &mut self,
        plane: Plane<'_>,
        size: (u32, u32),
        crop: Crop,
        target: (u32, u32),
    ) -> Result<(), InferenceError> {
        let Self { resizer, two, two_narrow, planes, .. } = self;
        let (width, across) = (size.0 as usize, target.0 as usize);
        let [_, first, second] = planes;
        let pixels = across * target.1 as usize;
        first.resize(pixels, 0);
        second.resize(pixels, 0);
        let convert = |bytes: &[u8], to: &mut [U16x2]| {
            for (to, from) in to.iter_mut().zip(bytes.chunks_exact(2)) {
                *to = U16x2::new([widened(from[0]), widened(from[1])]);
            }
        };
        let Some(pairs) = pairs(size.1, crop, target.1) else {
            gather(plane, width, 0..size.1 as usize, two, convert)?;
            two_narrow.resize(pixels, U16x2::new([0; 2]));
            scale(resizer, two, size, two_narrow, target, crop)?;
            for ((first, second), from) in first.iter_mut().zip(second).zip(two_narrow) {
                [*first, *second] = from.0.map(twelve_bits);
            }
            return Ok(());
        };
        let to = first.chunks_mut(across * STRIP).zip(second.chunks_mut(across * STRIP));
        for (strip, (first, second)) in pairs.chunks(STRIP).zip(to) {
            gather(plane, width, strip.iter().flat_map(|(above, below, _)| [*above, *below]), two, convert)?;
            let rows = strip.len() as u32 * 2;
            two_narrow.resize(across * rows as usize, U16x2::new([0; 2]));
            scale(resizer, two, (size.0, rows), two_narrow, (target.0, rows), across_only(crop, rows))?;
            let to = first.chunks_exact_mut(across).zip(second.chunks_exact_mut(across));
            for (((first, second), from), (.., weight)) in
                to.zip(two_narrow.chunks_exact(across * 2)).zip(strip)
            {
                let (above, below) = from.split_at(across);
                for (((first, second), above), below) in first.iter_mut().zip(second).zip(above).zip(below) {
                    *first = blend(above.0[0], below.0[0], *weight);
                    *second = blend(above.0[1], below.0[1], *weight);
                }
            }
        }
        Ok(())
    }

    /// The whole picture's luminance (of a picture in colour: its green), scaled.
    pub(super) fn luma(&mut self, picture: &Picture, target: (u32, u32)) -> Result<&[u8], InferenceError> {
        let size = (picture.width(), picture.height());
        let crop = (0.0, 0.0, size.0 as f32, size.1 as f32);
        if picture.format() == PixelFormat::Rgb {
            self.rgb(picture, crop, target)?;
            self.luma = self.rgb.iter().skip(1).step_by(3).copied().collect();
        } else {
            self.luma.resize(target.0 as usize * target.1 as usize, 0);
            let (plane, to) = (picture.plane(0)?, &mut self.luma);
            scale_bytes(&mut self.resizer, plane, size, PixelType::U8, crop, to, target)?;
        }
        Ok(&self.luma)
    }
}

/// Twelve bits of two rows by the weight of the second.
fn blend(above: u16, below: u16, weight: u32) -> u16 {
    const WHOLE: u32 = 1 << WEIGHT_BITS;
    twelve_bits(((u32::from(above) * (WHOLE - weight) + u32::from(below) * weight) >> WEIGHT_BITS) as u16)
}

/// For each new row the two that it lies between, and the weight of the second. `None` when a plane does not get less than
/// half as high: then two rows for each new one are not fewer than all.
fn pairs(height: u32, crop: Crop, target: u32) -> Option<Vec<(usize, usize, u32)>> {
    if target.saturating_mul(2) >= height {
        return None;
    }
    let (top, crop_height) = (f64::from(crop.1), f64::from(crop.3));
    let last = height.saturating_sub(1) as usize;
    let pair = |row: u32| {
        let centre = (f64::from(row) + 0.5) * crop_height / f64::from(target) + top - 0.5;
        let above = centre.floor();
        let weight = ((centre - above) * f64::from(1u32 << WEIGHT_BITS)).round() as u32;
        // Above the first row there is the first row.
        ((above.max(0.0) as usize).min(last), ((above + 1.0).max(0.0) as usize).min(last), weight)
    };
    Some((0..target).map(pair).collect())
}

/// Some rows of a plane, with more bits.
fn gather<P: Copy + Default>(
    plane: Plane<'_>,
    width: usize,
    rows: impl Iterator<Item = usize>,
    to: &mut Vec<P>,
    convert: impl Fn(&[u8], &mut [P]),
) -> Result<(), InferenceError> {
    // One byte for each value of a pixel.
    let bytes = width * (std::mem::size_of::<P>() / 2);
    let mut number = 0;
    for row in rows {
        let start = row * plane.stride;
        let from = plane.data.get(start..start + bytes);
        let from = from.ok_or_else(|| wrong("it has fewer rows than it says"))?;
        if to.len() < (number + 1) * width {
            to.resize((number + 1) * width, P::default());
        }
        convert(from, &mut to[number * width..(number + 1) * width]);
        number += 1;
    }
    to.truncate(number * width);
    Ok(())
}

/// The same part of each row, and all rows.
fn across_only(crop: Crop, rows: u32) -> Crop {
    (crop.0, 0.0, crop.2, rows as f32)
}

fn options(crop: Crop, (width, height): (u32, u32)) -> ResizeOptions {
    let algorithm = ResizeAlg::Interpolation(FilterType::Bilinear);
    let options = ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
    let is_part = crop.0 > 0.0 || crop.1 > 0.0 || crop.2 < width as f32 || crop.3 < height as f32;
    if !is_part {
        return options;
    }
    let (w, h) = (f64::from(width), f64::from(height));
    let (left, top) = (f64::from(crop.0).min(w - 0.01), f64::from(crop.1).min(h - 0.01));
    options.crop(left, top, f64::from(crop.2).min(w - left), f64::from(crop.3).min(h - top))
}

fn scale<P: PixelTrait + Default>(
    resizer: &mut Resizer,
    from: &[P],
    size: (u32, u32),
    to: &mut [P],
    target: (u32, u32),
    crop: Crop,
) -> Result<(), InferenceError> {
    let failed = |e: &dyn std::fmt::Display| wrong(format!("it cannot be scaled: {e}"));
    let source = TypedImageRef::new(size.0, size.1, from).map_err(|e| failed(&e))?;
    let mut destination = TypedImage::from_pixels_slice(target.0, target.1, to).map_err(|e| failed(&e))?;
    resizer.resize_typed(&source, &mut destination, &options(crop, size)).map_err(|e| failed(&e))
}

fn scale_bytes(
    resizer: &mut Resizer,
    plane: Plane<'_>,
    size: (u32, u32),
    pixel: PixelType,
    crop: Crop,
    to: &mut [u8],
    target: (u32, u32),
) -> Result<(), InferenceError> {
    let failed = |e: &dyn std::fmt::Display| wrong(format!("it cannot be scaled: {e}"));
    let (width, height) = (size.0 as usize * pixel.size(), size.1 as usize);
    let packed: Vec<u8>;
    // The library takes rows without gaps.
    let data = if plane.stride == width {
        plane.data.get(..width * height).ok_or_else(|| wrong("it has fewer rows than it says"))?
    } else {
        let rows = (0..height).map(|row| plane.data.get(row * plane.stride..row * plane.stride + width));
        let rows: Option<Vec<&[u8]>> = rows.collect();
        packed = rows.ok_or_else(|| wrong("it has fewer rows than it says"))?.concat();
        &packed
    };
    let source = ImageRef::new(size.0, size.1, data, pixel).map_err(|e| failed(&e))?;
    let mut destination = Image::from_slice_u8(target.0, target.1, to, pixel).map_err(|e| failed(&e))?;
    resizer.resize(&source, &mut destination, &options(crop, size)).map_err(|e| failed(&e))
}
