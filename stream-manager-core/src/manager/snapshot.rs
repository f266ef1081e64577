//! Single pictures: of what a stream shows now or showed once, and many small ones of a span as one picture.
//!
//! A picture is decoded once for all who ask for the same one: live ones are of the last keyframe, recorded ones of the frame at their
//! time. What was made last is kept, up to a limit; a few are made at one time, the others wait.

use super::{ManagerError, StreamManager};
use crate::frame::{Codec, Frame, MediaKind, MediaTime, VideoCodec, WallTime};
use crate::hub::{Hub, HubItem, HubReader, ReaderOptions};
use crate::pipeline::{
    Encoded, PictureOptions, PipelineError, Wanted, decode_pictures, encode_picture, jpeg,
};
use crate::playback::{Gaps, PlanReader, PlaybackRequest, STILL_SECS, Stills};
use crate::source::{Source, SourceError};
use crate::storage::index::TimeRange;
use bytes::Bytes;
use gstreamer as gst;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

/// The most that is kept of pictures.
const KEPT_BYTES: usize = 32 << 20;
/// Pictures that are made at one time.
const AT_ONCE: usize = 2;
/// How long somebody waits for a stream's first keyframe, or for their turn.
const PATIENCE: Duration = Duration::from_secs(20);
/// How far recordings are read for one picture: no GOP is longer.
const MAX_READ_BYTES: u64 = 64 << 20;
/// Pixels of a strip at most.
const MAX_PIXELS: u64 = 32_000_000;
/// Small pictures of a strip at most.
const MAX_COUNT: usize = 1500;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// JPEG.
    pub jpeg: Bytes,
    /// The time that it shows, by this machine's clock.
    pub time: WallTime,
}

/// Small pictures of a span, in rows from left to right, as one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripOptions {
    /// How many.
    pub count: usize,
    /// How many in a row.
    pub columns: usize,
    /// How wide each of them is, in pixels.
    pub width: u32,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
}

/// A strip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strip {
    /// JPEG.
    pub jpeg: Bytes,
    /// How high each of its pictures is, in pixels.
    pub height: u32,
    /// Of which of them something was recorded; the others are black.
    pub found: Vec<bool>,
}

type Cell = Arc<OnceCell<Snapshot>>;

/// Pictures that were made.
#[derive(Debug)]
pub(super) struct MadePictures {
    kept: Mutex<Kept>,
    turns: Semaphore,
}

#[derive(Debug, Default)]
struct Kept {
    cells: HashMap<String, Cell>,
    order: VecDeque<String>,
}

impl Default for MadePictures {
    fn default() -> Self {
        Self { kept: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl MadePictures {
    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ManagerError> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        let turn = turn.map_err(|_| {
            ManagerError::Picture(PipelineError::Timeout { state: "a turn", timeout: PATIENCE })
        })?;
        turn.map_err(|_| ManagerError::ShutDown)
    }

    /// The picture of this name; made by the first who asks for it.
    async fn get(
        &self,
        name: String,
        make: impl Future<Output = Result<Snapshot, ManagerError>>,
    ) -> Result<Snapshot, ManagerError> {
        let cell = {
            let mut kept = self.kept.lock();
            let cell = kept.cells.entry(name.clone()).or_default().clone();
            if !kept.order.contains(&name) {
                kept.order.push_back(name);
            }
            cell
        };
        let made = cell
            .get_or_try_init(|| async {
                let _turn = self.turn().await?;
                make.await
            })
            .await
            .cloned();
        let mut kept = self.kept.lock();
        let size = |cell: &Cell| cell.get().map_or(0, |picture| picture.jpeg.len());
        let mut bytes: usize = kept.cells.values().map(size).sum();
        while bytes > KEPT_BYTES && kept.order.len() > 1 {
            let Some(oldest) = kept.order.pop_front() else { break };
            bytes -= kept.cells.remove(&oldest).as_ref().map_or(0, size);
        }
        made
    }
}

/// The last keyframe of a hub, once there is one.
async fn keyframe(hub: &Hub, patience: Duration) -> Option<Frame> {
    let mut reader = hub.subscribe("picture", ReaderOptions::default());
    let next = async {
        loop {
            if let HubItem::Frame(frame) = reader.next().await?
                && frame.keyframe
                && frame.parameters.kind() == MediaKind::Video
            {
                return Some(frame);
            }
        }
    };
    tokio::time::timeout(patience, next).await.ok().flatten()
}

impl StreamManager {
    /// What a stream shows now, by its last keyframe.
    ///
    /// # Errors
    /// If there is no such stream, it shows nothing, or that cannot be decoded.
    pub async fn snapshot(&self, id: &str, options: PictureOptions) -> Result<Snapshot, ManagerError> {
        let handle = self.running(id)?;
        let frame = keyframe(handle.hub(), handle.hub().start_timeout())
            .await
            .ok_or_else(|| ManagerError::NoPicture(id.to_owned()))?;
        self.live_picture(id, frame, options).await
    }

    /// The picture of a stream's keyframe.
    async fn live_picture(
        &self,
        id: &str,
        frame: Frame,
        options: PictureOptions,
    ) -> Result<Snapshot, ManagerError> {
        let name = format!("{id} live {} {options:?}", frame.dts.as_nanos());
        let time = frame.wall_clock;
        let make = async {
            let jpeg = jpeg(Encoded::Frames(vec![frame]), Wanted::First, options).await?;
            Ok(Snapshot { jpeg: jpeg.into(), time })
        };
        self.inner.made_pictures.get(name, make).await
    }

    /// What a stream showed at a time of which there is a recording.
    ///
    /// # Errors
    /// If nothing was recorded then, or it cannot be decoded.
    pub async fn recorded_snapshot(
        &self,
        id: &str,
        time: WallTime,
        options: PictureOptions,
    ) -> Result<Snapshot, ManagerError> {
        // Up to the first frame behind it.
        let end = Some(time + Duration::from_millis(1));
        let plan = self.plan_playback(id, PlaybackRequest { start: time, end, gaps: Gaps::Stop }).await?;
        let name = format!("{id} {} {options:?}", plan.etag());
        let make = async {
            let mut reader = PlanReader::new(Arc::new(plan), 0..MAX_READ_BYTES);
            let reading = tokio::task::spawn_blocking(move || {
                let mut file = Vec::new();
                while let Some(data) = reader.read()? {
                    file.extend_from_slice(&data);
                }
                Ok::<_, std::io::Error>(Bytes::from(file))
            });
            let file = reading.await.map_err(std::io::Error::other).and_then(|read| read);
            let file = file.map_err(|e| ManagerError::NoPicture(format!("{id}: {e}")))?;
            let jpeg = jpeg(Encoded::File(file), Wanted::Last, options).await?;
            Ok(Snapshot { jpeg: jpeg.into(), time })
        };
        self.inner.made_pictures.get(name, make).await
    }

    /// Small pictures of a span of recordings, evenly over it, as one picture: each is of the keyframe at or before the middle of its share.
    ///
    /// # Errors
    /// If nothing was recorded, the strip would be too large, or it cannot be decoded.
    pub async fn strip(
        &self,
        id: &str,
        range: TimeRange,
        options: StripOptions,
    ) -> Result<Strip, ManagerError> {
        let invalid =
            |pointer: &str, problem: String| ManagerError::Invalid { pointer: pointer.into(), problem };
        if options.count == 0 || options.count > MAX_COUNT || options.columns == 0 {
            let problem = format!("count is {}; expected 1 to {MAX_COUNT}", options.count);
            return Err(invalid("", problem));
        }
        let options = StripOptions { columns: options.columns.min(options.count), ..options };
        let nanos = range.end.as_unix_nanos().saturating_sub(range.start.as_unix_nanos());
        let share = nanos / i64::try_from(options.count).unwrap_or(i64::MAX);
        let times = (0..options.count as i64)
            .map(|n| WallTime::from_unix_nanos(range.start.as_unix_nanos() + share * n + share / 2))
            .collect();
        let archive = self.archive()?;
        let name = self.recorded_id(id).await?;
        let stills = archive.stills(&name, times).await?;
        let segments = self.segments(id, range, None, 1).await?;
        let (width, height) = size_of(segments.first().map(|row| row.tracks.as_str()), options.width);
        let rows = options.count.div_ceil(options.columns);
        let pixels = u64::from(width) * u64::from(height) * (rows * options.columns) as u64;
        if pixels > MAX_PIXELS {
            let problem = format!(
                "the strip would have {pixels} pixels; expected at most {MAX_PIXELS}: fewer pictures, or smaller ones"
            );
            return Err(invalid("", problem));
        }
        if stills.is_empty() {
            return Err(crate::playback::PlaybackError::Nothing { start: range.start }.into());
        }
        let _turn = self.inner.made_pictures.turn().await?;
        let mut canvas = Canvas::new(options.columns, rows, (width, height));
        let mut found = vec![false; options.count];
        for Stills { file, slots } in stills {
            let pictures = decode_pictures(Encoded::File(file), Wanted::All(width, height)).await?;
            for picture in pictures {
                let at = picture
                    .buffer()
                    .and_then(gst::BufferRef::pts)
                    .map_or(0, |pts| pts.seconds() / STILL_SECS);
                for slot in usize::try_from(at).ok().and_then(|at| slots.get(at)).into_iter().flatten() {
                    found[*slot] = canvas.put(*slot, &picture);
                }
            }
        }
        let quality = PictureOptions { width: None, quality: options.quality };
        let jpeg = encode_picture(&canvas.sample()?, quality).await?.into();
        Ok(Strip { jpeg, height, found })
    }
}

/// The size of small pictures, by what the index says of the tracks. Rows of pixels are whole words, as GStreamer has them.
fn size_of(tracks: Option<&str>, width: u32) -> (u32, u32) {
    let tracks: serde_json::Value =
        tracks.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let video = tracks.as_array().into_iter().flatten().find(|track| track["width"].is_u64());
    let of = |name: &str| video.and_then(|track| track[name].as_u64()).filter(|n| *n > 0);
    let width = (width / 4 * 4).max(4);
    let height = match (of("width"), of("height")) {
        (Some(w), Some(h)) => u64::from(width) * h / w,
        _ => u64::from(width) * 9 / 16,
    };
    (width, u32::try_from(height / 2 * 2).unwrap_or(2).max(2))
}

/// Many pictures beside and below each other, RGB.
struct Canvas {
    columns: usize,
    cell: (usize, usize),
    size: (u32, u32),
    data: Vec<u8>,
}

impl Canvas {
    fn new(columns: usize, rows: usize, (width, height): (u32, u32)) -> Self {
        let cell = (width as usize, height as usize);
        let size = (width.saturating_mul(columns as u32), height.saturating_mul(rows as u32));
        Self { columns, cell, size, data: vec![0; cell.0 * columns * cell.1 * rows * 3] }
    }

    fn put(&mut self, slot: usize, picture: &gst::Sample) -> bool {
        let Some(map) = picture.buffer().and_then(|buffer| buffer.map_readable().ok()) else { return false };
        let (width, height) = self.cell;
        let row_bytes = width * 3;
        let line = row_bytes * self.columns;
        let begin = slot / self.columns * height * line + slot % self.columns * row_bytes;
        for (y, row) in map.chunks_exact(row_bytes).take(height).enumerate() {
            let at = begin + y * line;
            let Some(target) = self.data.get_mut(at..at + row_bytes) else { return false };
            target.copy_from_slice(row);
        }
        true
    }

    fn sample(self) -> Result<gst::Sample, ManagerError> {
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "RGB")
            .field("width", i32::try_from(self.size.0).unwrap_or(i32::MAX))
            .field("height", i32::try_from(self.size.1).unwrap_or(i32::MAX))
            .field("framerate", gst::Fraction::new(0, 1))
            .build();
        crate::pipeline::init()?;
        Ok(gst::Sample::builder().caps(&caps).buffer(&gst::Buffer::from_slice(self.data)).build())
    }
}

/// What a stream shows, picture by picture: of each keyframe one, which is made once for all who ask. Of MJPEG that is every frame, as it is.
pub struct Pictures {
    manager: StreamManager,
    id: String,
    reader: HubReader,
    options: PictureOptions,
    interval: Duration,
    /// The time of the last one.
    last: Option<MediaTime>,
    patience: Duration,
}

impl std::fmt::Debug for Pictures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pictures")
            .field("id", &self.id)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl StreamManager {
    /// What a stream shows from now on, so many pictures a second at most.
    ///
    /// # Errors
    /// If there is no such stream.
    pub fn pictures(&self, id: &str, options: PictureOptions, fps: f64) -> Result<Pictures, ManagerError> {
        let handle = self.running(id)?;
        Ok(Pictures {
            manager: self.clone(),
            id: id.to_owned(),
            reader: handle.hub().subscribe("mjpeg", ReaderOptions::default()),
            options,
            interval: Duration::try_from_secs_f64(1.0 / fps).unwrap_or(Duration::ZERO),
            last: None,
            patience: handle.hub().start_timeout(),
        })
    }
}

impl Pictures {
    /// The next one; `None` when the stream has ended. Those that come while one is made are left out.
    ///
    /// # Errors
    /// If the first one does not come in time, or they cannot be decoded.
    pub async fn next(&mut self) -> Result<Option<Snapshot>, ManagerError> {
        let frame = if self.last.is_some() {
            self.keyframe().await
        } else {
            let first = tokio::time::timeout(self.patience, self.keyframe()).await;
            Some(first.ok().flatten().ok_or_else(|| ManagerError::NoPicture(self.id.clone()))?)
        };
        let Some(frame) = frame else { return Ok(None) };
        self.last = Some(frame.pts);
        let is_jpeg = frame.codec() == Codec::Video(VideoCodec::Mjpeg);
        if is_jpeg && self.options.width.is_none() {
            return Ok(Some(Snapshot { jpeg: frame.data, time: frame.wall_clock }));
        }
        self.manager.live_picture(&self.id, frame, self.options).await.map(Some)
    }

    /// The newest keyframe that is wanted.
    async fn keyframe(&mut self) -> Option<Frame> {
        loop {
            let mut newest = None;
            let mut item = Some(self.reader.next().await?);
            while let Some(next) = item {
                if let HubItem::Frame(frame) = next
                    && frame.keyframe
                    && frame.is_video()
                {
                    newest = Some(frame);
                }
                item = self.reader.try_next();
            }
            // Cameras are not exact: what comes a little early is on time.
            let wanted = |frame: &Frame| match self.last {
                Some(last) => {
                    frame.pts < last || frame.pts.saturating_since(last) >= self.interval.mul_f64(0.9)
                }
                None => true,
            };
            if let Some(frame) = newest.filter(wanted) {
                return Some(frame);
            }
        }
    }
}

/// A picture of a source that is opened for it, by its first keyframe.
///
/// # Errors
/// If it cannot be opened, has no video or no keyframe within twenty seconds, or that cannot be decoded.
pub async fn snapshot(mut source: Box<dyn Source>, options: PictureOptions) -> Result<Snapshot, SourceError> {
    if source.publish_slot().is_some() {
        return Err(SourceError::Published);
    }
    let hub = Hub::default();
    let (writer, cancel) = (hub.writer(), CancellationToken::new());
    writer.begin_session();
    let found = {
        let mut run = source.run(&writer, cancel.clone());
        let wait = keyframe(&hub, PATIENCE);
        tokio::pin!(wait);
        tokio::select! {
            biased;
            frame = &mut wait => {
                cancel.cancel();
                // Bounded: a source that does not let itself be cancelled is dropped.
                let _ = tokio::time::timeout(Duration::from_secs(8), &mut run).await;
                frame
            }
            // A file may be over before it was looked at.
            ended = &mut run => match tokio::time::timeout(Duration::ZERO, &mut wait).await {
                Ok(frame) => frame,
                Err(_) => {
                    ended?;
                    None
                }
            },
        }
    };
    let address = source.address();
    let frame =
        found.ok_or_else(|| SourceError::Other(format!("{address}: no picture came within {PATIENCE:?}")))?;
    let time = frame.wall_clock;
    let jpeg = jpeg(Encoded::Frames(vec![frame]), Wanted::First, options).await;
    let jpeg = jpeg.map_err(|error| SourceError::Other(format!("{address}: {error}")))?;
    Ok(Snapshot { jpeg: jpeg.into(), time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_picture_is_made_once_for_all() {
        let pictures = Arc::new(MadePictures::default());
        let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let get = |name: &str, bytes: usize| {
            let (pictures, made, name) = (pictures.clone(), made.clone(), name.to_owned());
            async move {
                let make = async {
                    made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok(Snapshot { jpeg: vec![0; bytes].into(), time: WallTime::from_unix_nanos(0) })
                };
                pictures.get(name, make).await.unwrap().jpeg.len()
            }
        };
        let all = futures_util::future::join_all((0..10).map(|_| get("a", 7))).await;
        assert_eq!((all, made.load(std::sync::atomic::Ordering::SeqCst)), (vec![7; 10], 1));
        // What is too much is made again when it is asked for again.
        for n in 0..5 {
            get(&format!("large {n}"), KEPT_BYTES / 2).await;
        }
        assert!(pictures.kept.lock().cells.len() <= 3);
        get("a", 7).await;
        assert_eq!(made.load(std::sync::atomic::Ordering::SeqCst), 7);
    }

    #[test]
    fn small_pictures_keep_their_shape() {
        assert_eq!(size_of(Some(r#"[{"kind":"audio"},{"width":1920,"height":1080}]"#), 161), (160, 90));
        assert_eq!(size_of(Some(r#"[{"width":640,"height":480}]"#), 160), (160, 120));
        assert_eq!(size_of(None, 160), (160, 90));
    }
}
