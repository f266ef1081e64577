//! One analysis, from start to end: what `stream-manager detect` and `classify` do.

use super::{ManagerError, RetryPolicy, Stream, StreamManager};
use crate::config::SceneSettings;
use crate::detection::{Detection, Detections};
use crate::frame::{CodecParameters, MediaKind, MediaTime, WallTime};
use crate::hub::{HubItem, HubReader};
use crate::inference::{
    AnnotatedVideo, Answer, Follow, Happening, InferenceError, LiveDecoder, Model, Picture, VideoPicture,
    VideoReader, Wanted, write_image,
};
use crate::sink::{Sink, SinkError};
use crate::source::Source;
use futures_util::StreamExt;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long a model may take to be ready.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// The largest image file.
const MAX_IMAGE_BYTES: u64 = 256 << 20;

/// Where pictures come from.
pub enum DetectInput {
    /// A file with one picture, JPEG or PNG.
    Image(PathBuf),
    /// A video that is read as fast as it is analysed: `file://`, `http://`, `https://`.
    Video(String),
    /// Something live: what comes while the model is busy is left out.
    Live(Box<dyn Source>),
}

/// What was seen in one picture of a [`DetectJob`].
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct AnalysedFrame {
    /// Seconds from the start.
    pub time: f64,
    /// The picture's number, counted from 0.
    pub frame: u64,
    /// Its width in pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// What was seen, best first.
    pub detections: Vec<Detection>,
}

/// What a job has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct DetectReport {
    /// Pictures analysed.
    pub frames: u64,
    /// What was seen in all of them together.
    pub detections: u64,
}

/// Analyses one source by one model.
///
/// ```no_run
/// # use stream_manager_core::{inference::{ModelSpec, Models, ModelsOptions}, manager::{DetectInput, DetectJob}};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let models = Models::new(ModelsOptions::default(), vec![ModelSpec::new("yolox_nano.onnx")]);
/// let input = DetectInput::Video("file:///videos/door.mp4".into());
/// let job = DetectJob::new(input, models.get("yolox_nano")?).every(5);
/// let report = job.run(Default::default(), |seen| eprintln!("{}: {}", seen.time, seen.detections.len())).await?;
/// # Ok(())
/// # }
/// ```
pub struct DetectJob {
    input: DetectInput,
    model: Model,
    every: u64,
    wanted: Wanted,
    annotated: Option<PathBuf>,
    scene: Option<SceneSettings>,
    tell: Option<Teller>,
}

/// Who is told what objects do, and at which time from the start.
type Teller = Box<dyn FnMut(Duration, &Happening) + Send>;

impl DetectInput {
    /// By what stands in a command: an address, or a file's name.
    ///
    /// # Errors
    /// If it is neither, with what is wrong.
    pub fn parse(text: &str, options: &crate::source::SourceOptions) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("http://") || lower.starts_with("https://") || lower.starts_with("file://") {
            return Ok(Self::Video(text.to_owned()));
        }
        let is_address = text.split_once(':').is_some_and(|(scheme, _)| {
            matches!(
                scheme,
                "rtsp"
                    | "rtsps"
                    | "whep"
                    | "wheps"
                    | "test"
                    | "gst"
                    | "publisher"
                    | "udp"
                    | "srt"
                    | "rtmp"
                    | "rtmps"
                    | "sdp"
                    | "v4l2"
                    | "exec"
            )
        });
        if is_address {
            return crate::source::from_url_with(text, options).map(Self::Live).map_err(|e| e.to_string());
        }
        let path = std::path::absolute(text).map_err(|e| format!("{text}: {e}"))?;
        let image = ["jpg", "jpeg", "png"].into_iter().any(|e| lower.ends_with(&format!(".{e}")));
        match std::fs::metadata(&path) {
            Err(error) => Err(format!("{text}: {error}; expected an address, a video or an image")),
            Ok(found) if !found.is_file() => Err(format!("{text}: it is no file")),
            Ok(_) if image => Ok(Self::Image(path)),
            Ok(_) => url::Url::from_file_path(&path)
                .map(|url| Self::Video(url.into()))
                .map_err(|()| format!("{text}: it cannot be named as an address")),
        }
    }
}

impl DetectJob {
    /// A job that looks at every picture.
    pub fn new(input: DetectInput, model: Model) -> Self {
        Self { input, model, every: 1, wanted: Wanted::default(), annotated: None, scene: None, tell: None }
    }

    /// Looks at every `number`-th picture only.
    #[must_use]
    pub fn every(mut self, number: u64) -> Self {
        self.every = number.max(1);
        self
    }

    /// Sets other thresholds or classes than the model's own.
    #[must_use]
    pub fn wanted(mut self, wanted: Wanted) -> Self {
        self.wanted = wanted;
        self
    }

    /// Writes the pictures with what was seen drawn into them: `.mp4` for videos, `.jpg` or `.png` for an image.
    #[must_use]
    pub fn annotated(mut self, path: impl Into<PathBuf>) -> Self {
        self.annotated = Some(path.into());
        self
    }

    /// Follows objects from picture to picture: they have the numbers of their tracks.
    #[must_use]
    pub fn follow(mut self, scene: SceneSettings) -> Self {
        self.scene = Some(scene);
        self
    }

    /// Tells what objects do, as they are followed: the time from the start, and what. Clocks of what is told begin at 1970 where the
    /// input is a file.
    #[must_use]
    pub fn on_event(mut self, tell: impl FnMut(Duration, &Happening) + Send + 'static) -> Self {
        self.tell = Some(Box::new(tell));
        self
    }

    /// Runs it until the end of its input, or `cancel`. What has been written until then is completed in any case.
    ///
    /// # Errors
    /// If the model cannot be loaded, the input not opened, or the output not written.
    pub async fn run(
        self,
        cancel: CancellationToken,
        mut tell: impl FnMut(&AnalysedFrame),
    ) -> Result<DetectReport, InferenceError> {
        match cancel.run_until_cancelled(self.model.ready(LOAD_TIMEOUT)).await {
            None => return Ok(DetectReport::default()),
            Some(ready) => drop(ready?),
        }
        let mut output = Output { path: self.annotated, video: None, last: Vec::new() };
        let (model, wanted, every) = (&self.model, &self.wanted, self.every);
        let mut report = DetectReport::default();
        let begin = match &self.input {
            DetectInput::Live(_) => WallTime::now(),
            _ => WallTime::from_unix_nanos(0),
        };
        let doubtful = self.scene.as_ref().and_then(|scene| scene.tracking.as_ref()).map(|t| t.doubtful);
        let mut followed = Followed {
            follow: self.scene.as_ref().and_then(|scene| Follow::new(scene, None)),
            begin,
            last: Duration::ZERO,
            tell: self.tell,
        };
        let analysed = |one: VideoPicture| async move {
            if !one.frame.is_multiple_of(every) {
                return Ok((one, None));
            }
            let picture = one.picture.clone();
            let seen = match doubtful {
                Some(doubtful) => model.infer_doubtful(picture, wanted.clone(), doubtful).await?,
                None => {
                    let seen = model.infer_with(picture, wanted.clone()).await?;
                    let count = seen.detections.len();
                    (seen, count)
                }
            };
            Ok((one, Some(seen)))
        };
        let mut note = |one: &VideoPicture, seen: Option<(Detections, usize)>| {
            let (mut seen, sure) = seen?;
            followed.take(one, &mut seen, sure);
            let detections = seen.detections;
            report.frames += 1;
            report.detections += detections.len() as u64;
            tell(&AnalysedFrame {
                // Microseconds are enough for anybody, and look better.
                time: (one.time.as_secs_f64() * 1e6).round() / 1e6,
                frame: one.frame,
                width: one.picture.width(),
                height: one.picture.height(),
                detections: detections.clone(),
            });
            Some(detections)
        };
        let result = match self.input {
            DetectInput::Image(path) => {
                let picture = tokio::task::spawn_blocking(move || read_image(&path)).await;
                let picture = picture.unwrap_or_else(|e| Err(InferenceError::Thread(e.to_string())))?;
                let one = VideoPicture { frame: 0, time: Duration::ZERO, picture: Arc::new(picture) };
                let (one, seen) = analysed(one).await?;
                let seen = note(&one, seen);
                output.image(&one, seen.unwrap_or_default()).await
            }
            DetectInput::Video(uri) => {
                // What is drawn needs all pictures, also those that are not looked at.
                let step = if output.path.is_some() { 1 } else { every };
                let mut video = VideoReader::open(&uri, step).await?;
                // Some ahead of the model, so that it never waits for the decoder.
                let ahead = self.model.status();
                let ahead = (ahead.instances * ahead.max_batch).clamp(1, 16) + 1;
                let result = {
                    let pictures = futures_util::stream::unfold(Some(&mut video), |video| async {
                        let video = video?;
                        match video.next().await {
                            Ok(Some(one)) => Some((Ok(one), Some(video))),
                            Ok(None) => None,
                            Err(error) => Some((Err(error), None)),
                        }
                    });
                    let mut seen = std::pin::pin!(
                        pictures
                            .map(|one| async {
                                match one {
                                    Ok(one) => analysed(one).await,
                                    Err(error) => Err(error),
                                }
                            })
                            .buffered(ahead)
                    );
                    loop {
                        match cancel.run_until_cancelled(seen.next()).await {
                            None | Some(None) => break Ok(()),
                            Some(Some(Err(error))) => break Err(error),
                            Some(Some(Ok((one, seen)))) => {
                                let detections = note(&one, seen);
                                if let Err(error) = output.add(&one, detections).await {
                                    break Err(error);
                                }
                            }
                        }
                    }
                };
                video.close().await;
                result
            }
            DetectInput::Live(source) => {
                let mut live =
                    Live::start(source).await.map_err(|e| InferenceError::Source(e.to_string()))?;
                let result = loop {
                    match cancel.run_until_cancelled(live.next(every)).await {
                        None | Some(Ok(None)) => break Ok(()),
                        Some(Err(error)) => break Err(error),
                        Some(Ok(Some(one))) => match analysed(one).await {
                            Err(error) => break Err(error),
                            Ok((one, seen)) => {
                                let seen = note(&one, seen);
                                if let Err(error) = output.add(&one, seen).await {
                                    break Err(error);
                                }
                            }
                        },
                    }
                };
                live.stop().await;
                result
            }
        };
        followed.end();
        let finished = output.finish().await;
        result.and(finished).map(|()| report)
    }
}

fn read_image(path: &std::path::Path) -> Result<Picture, InferenceError> {
    let wrong =
        |problem: String| InferenceError::Picture { problem: format!("{}: {problem}", path.display()) };
    let size = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if size > MAX_IMAGE_BYTES {
        return Err(wrong(format!("it has {size} bytes; expected at most {MAX_IMAGE_BYTES}")));
    }
    let data = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    Picture::from_image(&data).map_err(|e| match e {
        InferenceError::Picture { problem } => wrong(problem),
        other => other,
    })
}

/// What is followed, if anything is.
struct Followed {
    follow: Option<Follow>,
    begin: WallTime,
    last: Duration,
    tell: Option<Teller>,
}

impl Followed {
    fn take(&mut self, one: &VideoPicture, seen: &mut Detections, sure: usize) {
        let Some(follow) = &mut self.follow else { return seen.detections.truncate(sure) };
        let nanos = i64::try_from(one.time.as_nanos()).unwrap_or(i64::MAX);
        seen.pts = MediaTime::from_nanos(nanos);
        seen.time = WallTime::from_unix_nanos(self.begin.as_unix_nanos().saturating_add(nanos));
        self.last = one.time;
        let told = follow.take(Answer { detections: seen, sure, picture: &one.picture, still: 0 });
        self.tell(&told);
    }

    fn end(&mut self) {
        if let Some(mut follow) = self.follow.take() {
            let told = follow.end();
            self.tell(&told);
        }
    }

    fn tell(&mut self, told: &[Happening]) {
        if let Some(tell) = &mut self.tell {
            told.iter().for_each(|one| tell(self.last, one));
        }
    }
}

/// Where drawn pictures go, if anywhere.
struct Output {
    path: Option<PathBuf>,
    video: Option<AnnotatedVideo>,
    /// What was seen last, for the pictures in between.
    last: Vec<Detection>,
}

impl Output {
    async fn image(&mut self, one: &VideoPicture, detections: Vec<Detection>) -> Result<(), InferenceError> {
        let Some(path) = self.path.take() else { return Ok(()) };
        let picture = one.picture.clone();
        let written = tokio::task::spawn_blocking(move || write_image(&path, &picture, &detections)).await;
        written.unwrap_or_else(|e| Err(InferenceError::Thread(e.to_string())))
    }

    async fn add(
        &mut self,
        one: &VideoPicture,
        detections: Option<Vec<Detection>>,
    ) -> Result<(), InferenceError> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(detections) = detections {
            self.last = detections;
        }
        if self.video.is_none() {
            let (width, height) = (one.picture.width(), one.picture.height());
            self.video = Some(AnnotatedVideo::create(path, width, height).await?);
        }
        match &mut self.video {
            Some(video) => video.add(&one.picture, one.time, &self.last).await,
            None => Ok(()),
        }
    }

    async fn finish(self) -> Result<(), InferenceError> {
        match self.video {
            Some(video) => video.finish().await,
            None => Ok(()),
        }
    }
}

/// A live source's pictures, the newest of which is there to be taken.
struct Live {
    manager: StreamManager,
    newest: Arc<Newest>,
}

#[derive(Default)]
struct Newest {
    picture: Mutex<(u64, Option<VideoPicture>)>,
    first: Mutex<Option<crate::frame::MediaTime>>,
    problem: Mutex<Option<InferenceError>>,
    ended: std::sync::atomic::AtomicBool,
    wake: Notify,
}

impl Live {
    async fn start(source: Box<dyn Source>) -> Result<Self, ManagerError> {
        let newest: Arc<Newest> = Arc::default();
        let retry = RetryPolicy { give_up_after: Some(Duration::from_secs(60)), ..RetryPolicy::default() };
        let sink = PictureSink { newest: newest.clone() };
        let stream = Stream::builder("detect").boxed_source(source).retry(retry).sink(sink);
        let manager = StreamManager::builder().disk_threads(1).stream(stream).build().await?;
        Ok(Self { manager, newest })
    }

    async fn next(&mut self, every: u64) -> Result<Option<VideoPicture>, InferenceError> {
        loop {
            let notified = self.newest.wake.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Some(one) = self.newest.picture.lock().1.take() {
                if one.frame.is_multiple_of(every) {
                    return Ok(Some(one));
                }
                continue;
            }
            if let Some(problem) = self.newest.problem.lock().take() {
                return Err(problem);
            }
            if self.newest.ended.load(std::sync::atomic::Ordering::Acquire) {
                return match self.manager.stream("detect").ok().and_then(|h| h.state().last_error) {
                    Some(problem) => Err(InferenceError::Source(problem)),
                    None => Ok(None),
                };
            }
            notified.await;
        }
    }

    async fn stop(self) {
        self.manager.shutdown().await;
    }
}

/// Decodes all of a stream's video.
struct PictureSink {
    newest: Arc<Newest>,
}

#[async_trait::async_trait]
impl Sink for PictureSink {
    async fn run(&mut self, mut reader: HubReader, cancel: CancellationToken) -> Result<(), SinkError> {
        let mut decoder: Option<(LiveDecoder, Arc<CodecParameters>)> = None;
        while let Some(Some(item)) = cancel.run_until_cancelled(reader.next()).await {
            let HubItem::Frame(frame) = item else { continue };
            if frame.parameters.kind() != MediaKind::Video {
                continue;
            }
            if frame.keyframe && decoder.as_ref().is_some_and(|(_, p)| **p != *frame.parameters) {
                decoder = None;
            }
            if decoder.is_none() && frame.keyframe {
                let newest = self.newest.clone();
                let take = move |picture: Picture| newest.put(picture);
                match LiveDecoder::start(&frame.parameters, take).await {
                    Ok(started) => decoder = Some((started, frame.parameters.clone())),
                    Err(error) => {
                        *self.newest.problem.lock() = Some(error);
                        self.newest.wake.notify_waiters();
                    }
                }
            }
            if let Some((decoder, _)) = &mut decoder {
                decoder.push(&frame).await;
            }
        }
        self.newest.ended.store(true, std::sync::atomic::Ordering::Release);
        self.newest.wake.notify_waiters();
        Ok(())
    }

    fn name(&self) -> String {
        "pictures".into()
    }
}

impl Newest {
    fn put(&self, picture: Picture) {
        let first = *self.first.lock().get_or_insert(picture.pts);
        let time = picture.pts.saturating_since(first);
        let mut newest = self.picture.lock();
        let frame = newest.0;
        newest.0 += 1;
        newest.1 = Some(VideoPicture { frame, time, picture: Arc::new(picture) });
        drop(newest);
        self.wake.notify_waiters();
    }
}
