//! Scaling and colour conversion, both by libraries that use the CPU's vector instructions.

use super::InferenceError;
use super::error::picture as wrong;
use super::picture::{ColorSpace, Matrix, Picture, PixelFormat, Plane};
use fast_image_resize::images::{Image, ImageRef, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U16;
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

/// The twelve bits of a value that colours are made of.
fn twelve_bits(value: u16) -> u16 {
    (value.saturating_add(8) >> 4).min(4095)
}

/// Bits of the weights of two rows.
const WEIGHT_BITS: u32 = 15;

/// New rows that are made at a time: what that takes stays in the processor's cache.
const STRIP: usize = 128;

/// Scales and converts; keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Scaler {
    resizer: Resizer,
    /// Rows of a plane, or of two, with more bits, and one in its new width.
    rows: [Vec<U16>; 2],
    turns: Vec<U16>,
    narrow: Vec<U16>,
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
                self.plane::<1>(picture.plane(0)?, size, crop, target, 0)?;
                self.plane::<1>(picture.plane(1)?, half, half_crop, target, 1)?;
                self.plane::<1>(picture.plane(2)?, half, half_crop, target, 2)?;
                colors
            }
            PixelFormat::Nv12(colors) => {
                self.plane::<1>(picture.plane(0)?, size, crop, target, 0)?;
                self.plane::<2>(picture.plane(1)?, half, half_crop, target, 1)?;
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

    /// A plane of `N` kinds of values in turn into those in their new size, from the `first` on.
    fn plane<const N: usize>(
        &mut self,
        plane: Plane<'_>,
        size: (u32, u32),
        crop: Crop,
        target: (u32, u32),
        first: usize,
    ) -> Result<(), InferenceError> {
        let Self { resizer, rows: [one, two], turns, narrow, planes, .. } = self;
        let (width, across) = (size.0 as usize, target.0 as usize);
        let row = |number: usize| {
            let start = number * plane.stride;
            let row = plane.data.get(start..start + width * N);
            row.ok_or_else(|| wrong("it has fewer rows than it says"))
        };
        let mut scale_into = |rows: &[U16], count: u32, crop: Crop, down: u32, to: &mut [u16]| {
            narrow.resize(to.len(), U16::new(0));
            scale(resizer, rows, (size.0, count), narrow, (target.0, down), crop)?;
            to.iter_mut().zip(&*narrow).for_each(|(to, from)| *to = twelve_bits(from.0));
            Ok::<(), InferenceError>(())
        };
        let pairs = pairs(size.1, crop, target.1);
        // Rows first, if that makes them fewer: it halves what is left to do.
        let whole: Vec<RowPair>;
        let (strips, is_blended) = match &pairs {
            Some(pairs) => (&pairs[..], true),
            None => {
                whole = (0..size.1 as usize).map(|row| (row, row, 0)).collect();
                (&whole[..], false)
            }
        };
        let length = if is_blended { STRIP } else { strips.len().max(1) };
        for (number, strip) in strips.chunks(length).enumerate() {
            let pixels = width * strip.len();
            one.resize(pixels, U16::new(0));
            two.resize(if N == 2 { pixels } else { 0 }, U16::new(0));
            for (index, (above, below, weight)) in strip.iter().enumerate() {
                let at = index * width..(index + 1) * width;
                let (above, below) = (row(*above)?, row(*below)?);
                if N == 2 {
                    turns.resize(width * 2, U16::new(0));
                    blend(above, below, *weight, turns);
                    apart(turns, &mut one[at.clone()], &mut two[at]);
                } else {
                    blend(above, below, *weight, &mut one[at]);
                }
            }
            let count = strip.len() as u32;
            for (rows, to) in [&*one, &*two].into_iter().zip(planes.iter_mut().skip(first)).take(N) {
                to.resize(across * target.1 as usize, 0);
                if is_blended {
                    let start = number * STRIP * across;
                    let to = &mut to[start..start + strip.len() * across];
                    scale_into(rows, count, across_only(crop, count), count, to)?;
                } else {
                    scale_into(rows, count, crop, target.1, to)?;
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

/// Between two bytes, by the weight of the second, with more bits: what is rounded here is not seen in the result.
fn between(above: u8, below: u8, weight: i16) -> U16 {
    let (above, below) = (i16::from(above), i16::from(below));
    // Sixty-fourths: what a product of two numbers of 16 bits has in its upper half.
    let difference = (i32::from((below - above) << 7) * i32::from(weight)) >> 16;
    U16::new((((above << 6) + difference as i16) as u16) << 2)
}

fn blend(above: &[u8], below: &[u8], weight: i16, to: &mut [U16]) {
    for ((to, above), below) in to.iter_mut().zip(above).zip(below) {
        *to = between(*above, *below, weight);
    }
}

/// Takes two kinds of values in turn apart. By itself, since the compiler makes vector instructions of it like that.
fn apart(turns: &[U16], first: &mut [U16], second: &mut [U16]) {
    for ((first, second), turn) in first.iter_mut().zip(second).zip(turns.chunks_exact(2)) {
        (*first, *second) = (turn[0], turn[1]);
    }
}

/// Two rows, and the weight of the second.
type RowPair = (usize, usize, i16);

/// For each new row the two that it lies between, and the weight of the second. `None` when a plane does not get less
/// high: then there is nothing to be had by it.
fn pairs(height: u32, crop: Crop, target: u32) -> Option<Vec<RowPair>> {
    if target >= height {
        return None;
    }
    let (top, crop_height) = (f64::from(crop.1), f64::from(crop.3));
    let last = height.saturating_sub(1) as usize;
    let pair = |row: u32| {
        let centre = (f64::from(row) + 0.5) * crop_height / f64::from(target) + top - 0.5;
        let above = centre.floor();
        let weight =
            ((centre - above) * f64::from(1u32 << WEIGHT_BITS)).round().min(f64::from(i16::MAX)) as i16;
        // Above the first row there is the first row.
        ((above.max(0.0) as usize).min(last), ((above + 1.0).max(0.0) as usize).min(last), weight)
    };
    Some((0..target).map(pair).collect())
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
