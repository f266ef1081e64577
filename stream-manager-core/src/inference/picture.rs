//! A decoded picture, from a decoder or from an image file, without copying its pixels.

use super::InferenceError;
use super::error::picture as wrong;
use crate::frame::{MediaTime, WallTime};
use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use std::io::Cursor;
use std::time::Instant;

/// The most pixels that a picture may have: more than any camera's.
const MAX_PIXELS: u64 = 120_000_000;
/// Memory that decoding an image file may take.
const MAX_DECODE_BYTES: u64 = 512 << 20;

/// How luminance and colour are turned into red, green and blue (ITU-T H.273).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColorSpace {
    /// Which matrix.
    pub matrix: Matrix,
    /// Whether luminance uses 0 to 255 instead of 16 to 235.
    pub full_range: bool,
}

/// See [`ColorSpace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601.
    Bt601,
    /// ITU-R BT.709.
    Bt709,
    /// ITU-R BT.2020.
    Bt2020,
}

/// How a picture's pixels lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Three bytes a pixel: red, green, blue.
    Rgb,
    /// Luminance, then colour in two planes of half the width and height.
    I420(ColorSpace),
    /// Luminance, then colour in one plane of half the width and height, two bytes each.
    Nv12(ColorSpace),
}

enum Pixels {
    Owned(Vec<u8>),
    Mapped(Box<gst_video::VideoFrame<gst_video::video_frame::Readable>>),
}

/// A picture and its place in time.
pub struct Picture {
    width: u32,
    height: u32,
    format: PixelFormat,
    pixels: Pixels,
    /// Its presentation time on the stream's timeline.
    pub pts: MediaTime,
    /// When it was taken, by the sender's clock if it tells it, else when it arrived.
    pub time: WallTime,
    /// When its frame arrived in this process.
    pub arrived: Instant,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picture")
            .field("width", &self.width)
            .field("height", &self.height)
            .field("format", &self.format)
            .field("pts", &self.pts)
            .finish_non_exhaustive()
    }
}

/// One plane of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane<'a> {
    pub(super) data: &'a [u8],
    /// Bytes from one row to the next.
    pub(super) stride: usize,
}

impl Picture {
    fn new(width: u32, height: u32, format: PixelFormat, pixels: Pixels) -> Result<Self, InferenceError> {
        if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(wrong(format!("it has {width}x{height} pixels; expected 1 to {MAX_PIXELS} in all")));
        }
        let time = WallTime::now();
        Ok(Self { width, height, format, pixels, pts: MediaTime::ZERO, time, arrived: Instant::now() })
    }

    /// From red, green and blue, a byte each, row by row.
    ///
    /// # Errors
    /// If there are not as many bytes as pixels need, or none, or far too many.
    pub fn rgb(width: u32, height: u32, data: Vec<u8>) -> Result<Self, InferenceError> {
        Self::owned(width, height, PixelFormat::Rgb, data)
    }

    /// From pixels in a format, the planes one after the other without gaps between rows. Planes of half the size are
    /// rounded up.
    ///
    /// # Errors
    /// As [`rgb`](Self::rgb).
    pub fn owned(
        width: u32,
        height: u32,
        format: PixelFormat,
        data: Vec<u8>,
    ) -> Result<Self, InferenceError> {
        let picture = Self::new(width, height, format, Pixels::Owned(Vec::new()))?;
        let (w, h) = (width as usize, height as usize);
        let expected = match format {
            PixelFormat::Rgb => w * h * 3,
            PixelFormat::I420(_) | PixelFormat::Nv12(_) => w * h + w.div_ceil(2) * h.div_ceil(2) * 2,
        };
        if data.len() != expected {
            let found = data.len();
            return Err(wrong(format!("{width}x{height} pixels have {found} bytes; expected {expected}")));
        }
        Ok(Self { pixels: Pixels::Owned(data), ..picture })
    }

    /// From an image file's content: JPEG or PNG.
    ///
    /// # Errors
    /// If it is neither, damaged, or far too large.
    pub fn from_image(data: &[u8]) -> Result<Self, InferenceError> {
        let mut reader = image::ImageReader::new(Cursor::new(data))
            .with_guessed_format()
            .map_err(|e| wrong(format!("it cannot be read: {e}")))?;
        if reader.format().is_none() {
            return Err(wrong("it is no image; expected JPEG or PNG"));
        }
        let mut limits = image::Limits::default();
        limits.max_alloc = Some(MAX_DECODE_BYTES);
        limits.max_image_width = Some(65_500);
        limits.max_image_height = Some(65_500);
        reader.limits(limits);
        let image =
            reader.decode().map_err(|e| wrong(format!("it cannot be decoded: {e}; expected JPEG or PNG")))?;
        let image = image.into_rgb8();
        Self::rgb(image.width(), image.height(), image.into_raw())
    }

    /// From a decoder's output in I420 or NV12. The pixels stay where they are.
    pub(super) fn from_sample(sample: &gst::Sample) -> Result<Self, InferenceError> {
        let caps = sample.caps().ok_or_else(|| wrong("a sample without caps"))?;
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|e| wrong(e.to_string()))?;
        let colors = color_space(&info);
        let format = match info.format() {
            gst_video::VideoFormat::I420 => PixelFormat::I420(colors),
            gst_video::VideoFormat::Nv12 => PixelFormat::Nv12(colors),
            other => return Err(wrong(format!("unexpected format {}", other.to_str()))),
        };
        let buffer = sample.buffer_owned().ok_or_else(|| wrong("a sample without a buffer"))?;
        let (width, height) = (info.width(), info.height());
        let frame = gst_video::VideoFrame::from_buffer_readable(buffer, &info)
            .map_err(|_| wrong("a decoder's buffer cannot be read"))?;
        Self::new(width, height, format, Pixels::Mapped(Box::new(frame)))
    }

    /// Sets its place in time.
    #[must_use]
    pub fn at(mut self, pts: MediaTime, time: WallTime) -> Self {
        (self.pts, self.time) = (pts, time);
        self
    }

    /// Its width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Its height.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// How its pixels lie in memory.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    pub(super) fn plane(&self, index: u32) -> Result<Plane<'_>, InferenceError> {
        match &self.pixels {
            Pixels::Mapped(frame) => {
                let data = frame.plane_data(index).map_err(|e| wrong(e.to_string()))?;
                let stride = frame.plane_stride().get(index as usize).copied().unwrap_or(0);
                let stride = usize::try_from(stride).map_err(|_| wrong("rows that go upwards"))?;
                Ok(Plane { data, stride })
            }
            Pixels::Owned(data) => {
                let (w, h) = (self.width as usize, self.height as usize);
                let (half_w, half_h) = (w.div_ceil(2), h.div_ceil(2));
                let luma = w * h;
                let (start, stride, rows) = match (self.format, index) {
                    (PixelFormat::Rgb, _) => (0, w * 3, h),
                    (_, 0) => (0, w, h),
                    (PixelFormat::I420(_), 1) => (luma, half_w, half_h),
                    (PixelFormat::I420(_), _) => (luma + half_w * half_h, half_w, half_h),
                    (PixelFormat::Nv12(_), _) => (luma, half_w * 2, half_h),
                };
                let data = data.get(start..start + stride * rows).ok_or_else(|| wrong("too few bytes"))?;
                Ok(Plane { data, stride })
            }
        }
    }

    /// A copy in red, green and blue, a byte each, row by row.
    ///
    /// # Errors
    /// If its memory is not as its format says.
    pub fn to_rgb(&self) -> Result<Vec<u8>, InferenceError> {
        let (w, h) = (self.width as usize, self.height as usize);
        let mut rgb = vec![0; w * h * 3];
        super::convert::to_rgb(self, &mut rgb)?;
        Ok(rgb)
    }
}

fn color_space(info: &gst_video::VideoInfo) -> ColorSpace {
    let colorimetry = info.colorimetry();
    let matrix = match colorimetry.matrix() {
        gst_video::VideoColorMatrix::Bt709 => Matrix::Bt709,
        gst_video::VideoColorMatrix::Bt2020 => Matrix::Bt2020,
        gst_video::VideoColorMatrix::Bt601 | gst_video::VideoColorMatrix::Fcc => Matrix::Bt601,
        // Not said: as televisions assume.
        _ if info.height() >= 720 => Matrix::Bt709,
        _ => Matrix::Bt601,
    };
    ColorSpace { matrix, full_range: colorimetry.range() == gst_video::VideoColorRange::Range0_255 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        let error = |data: &[u8]| Picture::from_image(data).unwrap_err().to_string();
        assert_eq!(error(b"hello"), "picture: it is no image; expected JPEG or PNG");
        assert!(error(&[0xff, 0xd8, 0xff, 0xe0, 1, 2, 3]).contains("cannot be decoded"));
        let mut png = Vec::new();
        image::RgbImage::from_pixel(3, 2, image::Rgb([1, 2, 3]))
            .write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png)
            .unwrap();
        let picture = Picture::from_image(&png).unwrap();
        assert_eq!((picture.width(), picture.height()), (3, 2));
        assert_eq!(picture.to_rgb().unwrap(), [1, 2, 3].repeat(6));
        assert!(error(&png[..png.len() / 2]).contains("cannot be decoded"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(mut data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), kind in 0usize..3) {
            let head: &[u8] = [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &[0xff, 0xd8, 0xff, 0xdb], &[]][kind];
            data.splice(0..0, head.iter().copied());
            let _ = Picture::from_image(&data);
        }
    }

    #[test]
    fn too_few_bytes_are_refused() {
        assert!(Picture::rgb(4, 4, vec![0; 47]).unwrap_err().to_string().contains("expected 48"));
        assert!(Picture::rgb(0, 4, vec![]).is_err());
        assert!(Picture::rgb(60_000, 60_000, vec![]).unwrap_err().to_string().contains("60000x60000"));
    }
}
