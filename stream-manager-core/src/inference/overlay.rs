//! What is seen, drawn into a stream's pictures on their way to an encoder (`<id>/annotated`).
//!
//! Pictures are analysed more rarely than they come, and what is in one is known a while after it: pictures are held back for about as
//! long as that takes, and what is followed lies between the two places where it was seen.

use super::annotate::draw;
use crate::detection::{Detection, Detections, Region};
use crate::frame::MediaTime;
use crate::hub::{Hub, Seen};
use crate::source::{Canvas, Drawing, Painter};
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Size};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::Pixel;
use embedded_graphics::primitives::Rectangle;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

/// Analysed pictures that are remembered.
const MOST: usize = 64;
/// For so long what was seen last is still true.
const STAYS: Duration = Duration::from_secs(1);
/// Pictures that are further apart tell nothing of what lies between.
const BETWEEN: Duration = Duration::from_secs(2);
/// For how long pictures are held back before anything is known.
const FIRST_HOLD: Duration = Duration::from_millis(300);
/// By so much less are they with every analysed picture that would allow it.
const EASE: f64 = 0.98;
const LONGEST_HOLD: Duration = Duration::from_secs(1);

struct Known {
    receiver: broadcast::Receiver<Seen>,
    /// What was seen, by the stream's time.
    seen: VecDeque<(MediaTime, Arc<Detections>)>,
    /// When the last analysed picture arrived.
    arrived: Option<Instant>,
    hold: Duration,
}

/// Draws what is seen in a stream into its pictures.
///
/// ```
/// # use std::sync::Arc;
/// # use stream_manager_core::{hub::Hub, inference::Overlay, source::{Rendition, TranscodeSource}};
/// let camera = Hub::default();
/// let overlay = Arc::new(Overlay::new(&camera));
/// let annotated = TranscodeSource::new(camera).rendition(Rendition::default()).paint(overlay);
/// ```
pub struct Overlay {
    hub: Hub,
    known: Mutex<Known>,
}

impl Overlay {
    /// Of what is told of this hub's stream, for pictures of its own.
    pub fn new(hub: &Hub) -> Self {
        let known = Known { receiver: hub.seen(), seen: VecDeque::new(), arrived: None, hold: FIRST_HOLD };
        Self { hub: hub.clone(), known: Mutex::new(known) }
    }

    fn known(&self) -> parking_lot::MutexGuard<'_, Known> {
        let mut known = self.known.lock();
        loop {
            match known.receiver.try_recv() {
                Ok(seen) => known.learn(&self.hub, &seen),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return known,
            }
        }
    }
}

impl Known {
    fn learn(&mut self, hub: &Hub, seen: &Seen) {
        let Some(pts) = hub.time_of(seen) else { return };
        if self.seen.back().is_some_and(|(last, _)| pts <= *last) {
            // Time has gone back: another stream's, or the same from its start again.
            self.seen.clear();
        }
        if self.seen.len() >= MOST {
            self.seen.pop_front();
        }
        self.seen.push_back((pts, seen.detections.clone()));
        let apart =
            self.arrived.replace(seen.arrived).map(|last| seen.arrived.saturating_duration_since(last));
        if let Some(apart) = apart.filter(|apart| *apart < BETWEEN) {
            // By when it was told: it may have been lying here since nobody wanted pictures.
            let took = seen.told.saturating_duration_since(seen.arrived);
            let needed = (took + apart).min(LONGEST_HOLD);
            self.hold = needed.max(self.hold.mul_f64(EASE));
        }
    }

    fn at(&self, pts: MediaTime) -> Vec<Detection> {
        let after = self.seen.partition_point(|(time, _)| *time <= pts);
        let Some((before, seen)) = after.checked_sub(1).and_then(|at| self.seen.get(at)) else {
            return Vec::new();
        };
        match self.seen.get(after) {
            Some((next, later)) if next.saturating_since(*before) <= BETWEEN => {
                let part = pts.saturating_since(*before).as_secs_f64()
                    / next.saturating_since(*before).as_secs_f64().max(1e-9);
                between(seen, later, part as f32)
            }
            _ if pts.saturating_since(*before) <= STAYS => seen.detections.clone(),
            _ => Vec::new(),
        }
    }
}

/// What is to be seen a part of the way from one analysed picture to the next.
fn between(seen: &Detections, later: &Detections, part: f32) -> Vec<Detection> {
    let moved = |from: Region, to: Region| {
        let mix = |a: f32, b: f32| a + (b - a) * part;
        Region::new(mix(from.x0, to.x0), mix(from.y0, to.y0), mix(from.x1, to.x1), mix(from.y1, to.y1))
    };
    let mut shown = seen.detections.clone();
    for one in shown.iter_mut().filter(|one| one.track.is_some()) {
        let same = later.detections.iter().find(|other| other.track == one.track);
        if let Some((from, to)) = one.relative.zip(same.and_then(|other| other.relative)) {
            one.relative = Some(moved(from, to));
        }
    }
    shown
}

impl Painter for Overlay {
    fn drawing(&self, pts: MediaTime) -> Option<Drawing<'_>> {
        let mut shown = self.known().at(pts);
        if shown.is_empty() {
            return None;
        }
        Some(Box::new(move |canvas| {
            let (width, height) = (canvas.width() as f32, canvas.height() as f32);
            for one in &mut shown {
                // What is drawn in may have another size than what was analysed.
                one.region = one.relative.map(|place| place.scaled(width, height));
            }
            draw(&mut Paper(canvas), &shown);
        }))
    }

    fn hold(&self) -> Duration {
        self.known().hold
    }
}

/// A canvas as the drawing library takes it.
struct Paper<'a, 'b>(&'a mut Canvas<'b>);

impl OriginDimensions for Paper<'_, '_> {
    fn size(&self) -> Size {
        let side = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
        Size::new(side(self.0.width()), side(self.0.height()))
    }
}

impl DrawTarget for Paper<'_, '_> {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(point, color) in pixels {
            if let (Ok(x), Ok(y)) = (usize::try_from(point.x), usize::try_from(point.y)) {
                self.0.fill(x..x + 1, y..y + 1, [color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, color: Rgb888) -> Result<(), Self::Error> {
        let edge = |from: i32, length: u32| {
            let end = i64::from(from) + i64::from(length);
            usize::try_from(from.max(0)).unwrap_or(0)..usize::try_from(end.max(0)).unwrap_or(0)
        };
        let (corner, size) = (area.top_left, area.size);
        let rgb = [color.r(), color.g(), color.b()];
        self.0.fill(edge(corner.x, size.width), edge(corner.y, size.height), rgb);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::WallTime;
    use crate::source::paint::with_canvas;

    fn ms(ms: i64) -> MediaTime {
        MediaTime::from_nanos(ms * 1_000_000)
    }

    fn seen(left: f32, track: Option<u64>, at: MediaTime) -> Arc<Detections> {
        let place = Region::new(left, 20.0, left + 40.0, 60.0);
        let mut one = Detection::object("person".into(), 0, 0.5, place, 200, 100);
        one.track = track;
        Arc::new(Detections::new("m".into(), 200, 100, vec![one]).at(WallTime::now(), at))
    }

    #[test]
    fn what_is_followed_moves_between_the_pictures_and_stays_for_a_while() {
        let hub = Hub::default();
        let overlay = Overlay::new(&hub);
        let left = |at| {
            let shown = overlay.known().at(ms(at));
            shown.first().map(|one| (one.relative.unwrap().x0 * 1000.0).round() / 1000.0)
        };
        assert_eq!((left(0), overlay.hold()), (None, FIRST_HOLD));
        let now = Instant::now();
        hub.tell_seen(seen(0.0, Some(3), ms(1000)), now);
        hub.tell_seen(seen(100.0, Some(3), ms(1200)), now + Duration::from_millis(200));
        assert_eq!((left(900), left(1000), left(1100), left(1200)), (None, Some(0.0), Some(0.25), Some(0.5)));
        assert_eq!((left(2200), left(2300)), (Some(0.5), None));
        // What is not followed stays where it was seen.
        hub.tell_seen(seen(40.0, None, ms(1400)), now + Duration::from_millis(400));
        hub.tell_seen(seen(80.0, None, ms(1600)), now + Duration::from_millis(600));
        assert_eq!((left(1500), left(1599), left(1600)), (Some(0.2), Some(0.2), Some(0.4)));
        // As long as it takes from one to the next, at least.
        assert!(overlay.hold() >= Duration::from_millis(200) && overlay.hold() <= LONGEST_HOLD);
    }

    #[test]
    fn boxes_are_where_they_were_seen_whatever_the_size() {
        let hub = Hub::default();
        let overlay = Overlay::new(&hub);
        hub.tell_seen(seen(40.0, Some(0), ms(0)), Instant::now());
        assert!(overlay.drawing(ms(1500)).is_none());
        // Twice as large as what was analysed.
        let drawn = with_canvas(400, 200, overlay.drawing(ms(10)).unwrap());
        let at = |x: usize, y: usize| drawn[y * 400 + x];
        assert!(at(80, 100) > 0 && at(159, 100) > 0 && at(120, 119) > 0);
        assert_eq!((at(120, 100), at(78, 100), at(162, 100), at(120, 122)), (0, 0, 0, 0));
    }
}
