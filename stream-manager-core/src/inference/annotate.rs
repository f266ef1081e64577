//! Pictures with what was seen drawn into them, and videos of such pictures.

use super::InferenceError;
use super::error::picture as wrong;
use super::picture::Picture;
use crate::detection::Detection;
use crate::pipeline::{ErrorCause, ManagedPipeline, PipelineError, PipelineMessage, make_element};
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::{FONT_6X10, FONT_9X15, FONT_10X20};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{Drawable, Pixel};
use embedded_graphics::primitives::{Primitive, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Pictures that may wait to be encoded.
const MAX_WAITING: u64 = 4;
/// How long starting and finishing may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A picture to draw in: red, green and blue, row by row.
struct Canvas {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(point, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else { continue };
            if x < self.width && y < self.height {
                let at = (y as usize * self.width as usize + x as usize) * 3;
                self.rgb[at..at + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

/// Colours that are told apart on most pictures.
const COLORS: [Rgb888; 8] = [
    Rgb888::new(0, 220, 90),
    Rgb888::new(255, 90, 60),
    Rgb888::new(70, 150, 255),
    Rgb888::new(255, 210, 0),
    Rgb888::new(220, 80, 255),
    Rgb888::new(0, 220, 230),
    Rgb888::new(255, 130, 190),
    Rgb888::new(160, 230, 0),
];

/// A copy of a picture, in red, green and blue, with boxes and names.
///
/// # Errors
/// If the picture's memory is not as its format says.
pub fn annotated(picture: &Picture, detections: &[Detection]) -> Result<Vec<u8>, InferenceError> {
    let mut canvas = Canvas { width: picture.width(), height: picture.height(), rgb: picture.to_rgb()? };
    draw(&mut canvas, detections);
    Ok(canvas.rgb)
}

/// Draws boxes and names. Boxes are in pixels of the picture that is drawn in.
pub(super) fn draw<D>(canvas: &mut D, detections: &[Detection])
where
    D: DrawTarget<Color = Rgb888, Error = std::convert::Infallible> + OriginDimensions,
{
    let (font, line) = match canvas.size().height {
        0..400 => (&FONT_6X10, 1),
        400..900 => (&FONT_9X15, 2),
        _ => (&FONT_10X20, 4),
    };
    let (wide, high) = (font.character_size.width, font.character_size.height);
    let mut lines = 0;
    for detection in detections {
        // The same object has the same colour.
        let color = detection.track.unwrap_or(u64::from(detection.class)) % COLORS.len() as u64;
        let color = COLORS[color as usize];
        let track = detection.track.map(|track| format!(" #{track}")).unwrap_or_default();
        let text = format!("{}{track} {:.2}", detection.label, detection.score);
        let place = match detection.region {
            Some(r) => {
                let corner = Point::new(r.x0.round() as i32, r.y0.round() as i32);
                let size = Size::new((r.x1 - r.x0).round() as u32, (r.y1 - r.y0).round() as u32);
                let frame =
                    Rectangle::new(corner, size).into_styled(PrimitiveStyle::with_stroke(color, line));
                // Drawing into memory cannot fail.
                let _ = frame.draw(canvas);
                let above = corner.y - high as i32;
                Point::new(corner.x, if above < 0 { corner.y } else { above })
            }
            // What the whole picture shows stands in its corner.
            None => {
                lines += 1;
                Point::new(0, (lines - 1) * high as i32)
            }
        };
        let ground = Rectangle::new(place, Size::new(text.len() as u32 * wide, high));
        let _ = ground.into_styled(PrimitiveStyle::with_fill(color)).draw(canvas);
        let style = MonoTextStyle::new(font, Rgb888::BLACK);
        let _ = Text::with_baseline(&text, place, style, Baseline::Top).draw(canvas);
    }
}

/// Writes a picture with what was seen in it as JPEG or PNG, by the file's name. Blocks.
///
/// # Errors
/// If the name ends otherwise, or it cannot be written.
pub fn write_image(path: &Path, picture: &Picture, detections: &[Detection]) -> Result<(), InferenceError> {
    let output = |problem: String| InferenceError::Output { path: path.to_owned(), problem };
    let rgb = annotated(picture, detections)?;
    let image = image::RgbImage::from_raw(picture.width(), picture.height(), rgb)
        .ok_or_else(|| wrong("it has too few bytes"))?;
    match image::ImageFormat::from_path(path) {
        Ok(format @ (image::ImageFormat::Jpeg | image::ImageFormat::Png)) => {
            image.save_with_format(path, format).map_err(|e| output(e.to_string()))
        }
        _ => Err(output("expected a name that ends in .jpg or .png".into())),
    }
}

/// Writes a video of pictures with what was seen in them: H.264 in MP4.
pub struct AnnotatedVideo {
    path: PathBuf,
    source: gst_app::AppSrc,
    pipeline: ManagedPipeline,
    bus: mpsc::Receiver<PipelineMessage>,
    size: (u32, u32),
    first: Option<Duration>,
}

impl AnnotatedVideo {
    /// Begins a video of pictures of this size.
    ///
    /// # Errors
    /// If the file cannot be written, or an encoder is not installed.
    pub async fn create(path: &Path, width: u32, height: u32) -> Result<Self, InferenceError> {
        crate::pipeline::init()?;
        let failed = |e: &dyn std::fmt::Display| PipelineError::Element {
            element: "encoder".into(),
            message: e.to_string(),
            cause: ErrorCause::Other,
        };
        // To see what is wrong with the file in the system's own words.
        let probe = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || std::fs::File::create(probe).map(drop)).await;
        if let Ok(Err(error)) = opened {
            return Err(InferenceError::Output { path: path.to_owned(), problem: error.to_string() });
        }
        let size = |v: u32| i32::try_from(v).unwrap_or(i32::MAX);
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "RGB")
            .field("width", size(width))
            .field("height", size(height))
            .field("framerate", gst::Fraction::new(0, 1))
            .build();
        let source = gst_app::AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .max_buffers(MAX_WAITING)
            .block(true)
            .build();
        let names = ["videoconvert", "x264enc", "h264parse", "mp4mux", "filesink"];
        let elements = names.iter().map(|n| make_element(n)).collect::<Result<Vec<_>, _>>()?;
        elements[1].set_property_from_str("speed-preset", "veryfast");
        elements[4].set_property("location", path.display().to_string());
        let pipeline = gst::Pipeline::new();
        pipeline.add(&source).map_err(|e| failed(&e))?;
        pipeline.add_many(&elements).map_err(|e| failed(&e))?;
        // Half the colour, as every player can.
        let plain = gst::Caps::builder("video/x-raw").field("format", "I420").build();
        source.link(&elements[0]).map_err(|e| failed(&e))?;
        elements[0].link_filtered(&elements[1], &plain).map_err(|e| failed(&e))?;
        gst::Element::link_many(&elements[1..]).map_err(|e| failed(&e))?;
        let (pipeline, bus) = ManagedPipeline::new(pipeline);
        pipeline.play(TIMEOUT).await?;
        Ok(Self { path: path.to_owned(), source, pipeline, bus, size: (width, height), first: None })
    }

    /// Adds a picture. One of another size is left out.
    ///
    /// # Errors
    /// If it cannot be encoded or written.
    pub async fn add(
        &mut self,
        picture: &Picture,
        time: Duration,
        detections: &[Detection],
    ) -> Result<(), InferenceError> {
        if (picture.width(), picture.height()) != self.size {
            return Ok(());
        }
        let first = *self.first.get_or_insert(time);
        // GStreamer's rows are a multiple of four bytes long.
        let row = self.size.0 as usize * 3;
        let padded = row.next_multiple_of(4);
        let mut rgb = annotated(picture, detections)?;
        if padded != row {
            let rows = rgb
                .chunks_exact(row)
                .flat_map(|r| r.iter().copied().chain(std::iter::repeat_n(0, padded - row)));
            rgb = rows.collect();
        }
        let mut buffer = gst::Buffer::from_mut_slice(rgb);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::try_from(time.saturating_sub(first)).ok());
        }
        let source = self.source.clone();
        // It waits for the encoder.
        let pushed = tokio::task::spawn_blocking(move || source.push_buffer(buffer)).await;
        match pushed {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.failure()),
        }
    }

    fn failure(&mut self) -> InferenceError {
        while let Ok(message) = self.bus.try_recv() {
            if let PipelineMessage::Error(error) = message {
                return InferenceError::Output { path: self.path.clone(), problem: error.to_string() };
            }
        }
        InferenceError::Output { path: self.path.clone(), problem: "the encoder has ended".into() }
    }

    /// Completes the file.
    ///
    /// # Errors
    /// If it cannot be written, or not in time.
    pub async fn finish(mut self) -> Result<(), InferenceError> {
        let _ = self.source.end_of_stream();
        let end = async {
            loop {
                match self.bus.recv().await {
                    Some(PipelineMessage::Eos) => return Ok(()),
                    Some(PipelineMessage::Error(error)) => return Err(error.to_string()),
                    None => return Err("the encoder has ended".to_owned()),
                    Some(PipelineMessage::Element(_)) => {}
                }
            }
        };
        let result = tokio::time::timeout(TIMEOUT, end).await.unwrap_or(Err("it does not end".into()));
        self.pipeline.stop().await;
        result.map_err(|problem| InferenceError::Output { path: self.path, problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::Region;

    #[test]
    fn boxes_are_drawn_where_they_are() {
        let picture = Picture::rgb(60, 40, vec![0; 60 * 40 * 3]).unwrap();
        let found = Detection::object("a".into(), 0, 0.5, Region::new(10.0, 20.0, 30.0, 35.0), 60, 40);
        let edge = Detection::object("b".into(), 1, 0.5, Region::new(50.0, 0.0, 60.0, 40.0), 60, 40);
        let rgb = annotated(&picture, &[found, edge, Detection::class("c".into(), 2, 0.1)]).unwrap();
        let at = |x: usize, y: usize| &rgb[(y * 60 + x) * 3..][..3];
        assert_eq!(at(10, 25), [0, 220, 90]);
        assert_eq!(at(29, 34), [0, 220, 90]);
        assert_eq!(at(20, 25), [0, 0, 0]);
        assert_eq!(at(59, 39), [255, 90, 60]);
    }
}
