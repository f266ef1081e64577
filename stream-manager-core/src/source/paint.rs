//! Drawing into a stream's pictures on their way from the decoder to the encoder.

use crate::frame::MediaTime;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The element whose pictures are drawn into.
const CANVAS: &str = "canvas";
/// What brings pictures into the form of a [`Canvas`]; more may stand behind it.
pub(super) const CHAIN: &str =
    "videoconvert ! capsfilter caps=\"video/x-raw,format=I420\" ! identity name=canvas ! ";

/// What is drawn into one picture.
pub type Drawing<'a> = Box<dyn FnOnce(&mut Canvas<'_>) + 'a>;

/// Draws into pictures.
pub trait Painter: Send + Sync + 'static {
    /// What is to be drawn into the picture of this time. One that is left as it is costs nothing. Called on a thread of GStreamer's,
    /// for every picture in turn.
    fn drawing(&self, pts: MediaTime) -> Option<Drawing<'_>>;

    /// For how long pictures are held back before they are decoded, so that what is to be drawn is known by then. Asked for each of
    /// them; a second at most.
    fn hold(&self) -> Duration {
        Duration::ZERO
    }
}

/// A picture to draw in: a plane of brightness and two of colour of half its size (I420).
pub struct Canvas<'a> {
    width: usize,
    height: usize,
    planes: [&'a mut [u8]; 3],
    strides: [usize; 3],
    /// ITU-R BT.709, else BT.601.
    bt709: bool,
}

impl Canvas<'_> {
    /// Its width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Its height.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Fills a part with a colour: red, green, blue. What lies outside of the picture is left out.
    pub fn fill(&mut self, across: Range<usize>, down: Range<usize>, rgb: [u8; 3]) {
        let (x0, x1) = (across.start.min(self.width), across.end.min(self.width));
        let (y0, y1) = (down.start.min(self.height), down.end.min(self.height));
        if x0 >= x1 || y0 >= y1 {
            return;
        }
        let [y, u, v] = self.color(rgb);
        let half = |v: usize| v.div_ceil(2);
        for (plane, value, shift) in [(0, y, false), (1, u, true), (2, v, true)] {
            // A place of colour belongs to four of brightness: it is taken as soon as one of them is.
            let (columns, rows) = if shift { (x0 / 2..half(x1), y0 / 2..half(y1)) } else { (x0..x1, y0..y1) };
            let stride = self.strides[plane];
            for row in rows {
                let cells =
                    self.planes[plane].get_mut(row * stride + columns.start..row * stride + columns.end);
                if let Some(cells) = cells {
                    cells.fill(value);
                }
            }
        }
    }

    /// A colour in the picture's own terms, of limited range.
    fn color(&self, rgb: [u8; 3]) -> [u8; 3] {
        let [r, g, b] = rgb.map(f32::from);
        let (kr, kb) = if self.bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
        let luma = kr * r + (1.0 - kr - kb) * g + kb * b;
        let chroma =
            |part: f32, k: f32| (128.0 + (part - luma) / (1.0 - k) / 2.0 * 224.0 / 255.0).round() as u8;
        [(16.0 + luma * 219.0 / 255.0).round() as u8, chroma(b, kb), chroma(r, kr)]
    }
}

/// Has pictures that pass through a bin with [`CHAIN`] drawn into. Their times count from `origin`.
pub(super) fn paint_in(bin: &gst::Bin, painter: Arc<dyn Painter>, origin: MediaTime) {
    let Some(pad) = bin.by_name(CANVAS).and_then(|element| element.static_pad("src")) else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let caps = pad.current_caps();
        let video = caps.as_ref().and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
        if let (Some(video), Some(buffer)) = (video, info.buffer_mut()) {
            let since = buffer.pts().map_or(0, gst::ClockTime::nseconds);
            let pts = origin + Duration::from_nanos(since);
            if let Some(drawing) = painter.drawing(pts) {
                draw_in(buffer.make_mut(), &video, drawing);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

fn draw_in(buffer: &mut gst::BufferRef, video: &gst_video::VideoInfo, drawing: Drawing<'_>) {
    // The decoder may still need its picture: what is written to is a copy then, which GStreamer makes.
    let Ok(mut frame) = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, video) else { return };
    let size = (frame.width() as usize, frame.height() as usize);
    let mut strides = [0; 3];
    for (stride, told) in strides.iter_mut().zip(frame.plane_stride()) {
        *stride = usize::try_from(*told).unwrap_or_default();
    }
    let bt709 = video.colorimetry().matrix() == gst_video::VideoColorMatrix::Bt709;
    let [y, u, v, _] = frame.planes_data_mut();
    drawing(&mut Canvas { width: size.0, height: size.1, planes: [y, u, v], strides, bt709 });
}

/// A canvas of memory, for tests of what is drawn.
#[cfg(test)]
pub(crate) fn with_canvas(width: usize, height: usize, draw: impl FnOnce(&mut Canvas<'_>)) -> Vec<u8> {
    let (wide, high) = (width.div_ceil(2), height.div_ceil(2));
    let (mut y, mut u, mut v) = (vec![0; width * height], vec![0; wide * high], vec![0; wide * high]);
    let planes = [&mut y[..], &mut u[..], &mut v[..]];
    draw(&mut Canvas { width, height, planes, strides: [width, wide, wide], bt709: false });
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_edges() {
        let drawn = with_canvas(6, 4, |canvas| {
            canvas.fill(4..99, 3..99, [255, 255, 255]);
            canvas.fill(0..1, 0..1, [0, 0, 0]);
            canvas.fill(9..12, 0..4, [255, 0, 0]);
            assert_eq!(canvas.color([255, 0, 0]), [81, 90, 240]);
            canvas.bt709 = true;
            assert_eq!(canvas.color([0, 255, 0]), [173, 42, 26]);
        });
        assert_eq!((drawn[0], drawn[1], drawn[3 * 6 + 4], drawn[3 * 6 + 5]), (16, 0, 235, 235));
        assert_eq!(drawn.iter().filter(|y| **y != 0).count(), 3);
    }
}
