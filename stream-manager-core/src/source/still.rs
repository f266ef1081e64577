//! A picture that stands still, for when there is no other: text on black, or an image.
//!
//! It is encoded once, a second of it, in the form of the stream that it stands in for (codec, profile, size, sound as silence), and
//! then sent again and again from memory: a hundred of them cost no more than a hundred timers.

use super::gst_source::{self, GstOptions};
use super::{Source, SourceEnd, SourceError};
use crate::frame::{
    AudioCodec, AudioParameters, CodecParameters, Frame, MediaTime, VideoCodec, VideoParameters,
};
use crate::hub::{Hub, HubItem, HubOptions, HubReader, HubWriter, QueueLimits, RawFrame, ReaderOptions};
use crate::pipeline::{self, make_element, parse_bin};
use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pictures a second.
const FPS: u32 = 10;
/// Pictures that are encoded: the first is a keyframe.
const PICTURES: u32 = 10;
/// Its size if there is nothing to go by.
const SIZE: (u32, u32) = (1280, 720);
/// Sound that is encoded, of which one frame is sent again and again.
const SOUND: Duration = Duration::from_millis(500);
/// How much sound goes at once.
const CHUNK: Duration = Duration::from_millis(20);
/// How long encoding may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StillPicture {
    /// White text on black.
    Text(String),
    /// An image file: PNG or JPEG.
    Image(PathBuf),
}

/// A picture that stands still, with silence if there is to be sound.
///
/// ```
/// # use stream_manager_core::source::{StillPicture, StillSource};
/// let source = StillSource::new(StillPicture::Text("no signal".into()));
/// ```
#[derive(Clone, Debug)]
pub struct StillSource {
    picture: StillPicture,
    like: Vec<Arc<CodecParameters>>,
    /// What was encoded, and for which tracks.
    encoded: Option<Arc<Encoded>>,
}

#[derive(Debug)]
struct Encoded {
    tracks: Vec<CodecParameters>,
    pictures: Vec<Frame>,
    /// A frame of silence and how long it is.
    silence: Option<(Bytes, Duration)>,
}

impl StillSource {
    /// Shows this, as H.264 of 1280x720 without sound.
    pub fn new(picture: StillPicture) -> Self {
        Self { picture, like: Vec::new(), encoded: None }
    }

    /// Makes it as much as possible like a stream of these tracks: with their codecs, their size, and silence for their sound.
    #[must_use]
    pub fn like(mut self, tracks: Vec<Arc<CodecParameters>>) -> Self {
        self.like = tracks;
        self.encoded = None;
        self
    }

    fn failed(&self, problem: impl ToString) -> SourceError {
        match &self.picture {
            StillPicture::Image(path) => {
                SourceError::File { path: path.display().to_string(), problem: problem.to_string() }
            }
            StillPicture::Text(_) => SourceError::Other(problem.to_string()),
        }
    }

    /// Lines that make the picture and the silence; the second only if there is to be sound that can be made.
    fn lines(&self) -> (String, Option<String>) {
        let video = self.like.iter().find_map(|p| p.video());
        let (width, height) = video.map_or(SIZE, |v| (v.width.max(16) & !1, v.height.max(16) & !1));
        let caps = format!("video/x-raw,format=I420,width={width},height={height},pixel-aspect-ratio=1/1");
        let shown = match &self.picture {
            StillPicture::Text(_) => format!(
                "videotestsrc pattern=black num-buffers={PICTURES} ! {caps},framerate={FPS}/1 \
                 ! textoverlay name=text valignment=center halignment=center font-desc=\"Sans 24\" wrap-mode=wordchar"
            ),
            StillPicture::Image(_) => format!(
                "filesrc name=file ! decodebin ! videoconvert ! videoscale add-borders=true ! {caps} \
                 ! imagefreeze num-buffers={PICTURES} ! video/x-raw,framerate={FPS}/1"
            ),
        };
        let sound = self.like.iter().find_map(|p| p.audio()).and_then(silence);
        (format!("{shown} ! videoconvert ! {}", encoder(video)), sound)
    }

    async fn encode(&self) -> Result<Encoded, SourceError> {
        pipeline::init()?;
        let (video, sound) = self.lines();
        let mut tracks = Vec::new();
        let mut frames = Vec::new();
        for line in std::iter::once(video).chain(sound) {
            let bin = parse_bin(&line)?;
            match &self.picture {
                StillPicture::Text(text) => {
                    if let Some(overlay) = bin.by_name("text") {
                        // It takes markup.
                        overlay.set_property("text", gst::glib::markup_escape_text(text).as_str());
                    }
                }
                StillPicture::Image(path) => {
                    if let Some(file) = bin.by_name("file") {
                        file.set_property("location", path);
                    }
                }
            }
            let (parameters, encoded) = self.run_once(bin.upcast_ref()).await?;
            tracks.push(parameters);
            frames.push(encoded);
        }
        let mut frames = frames.into_iter();
        let pictures = frames.next().unwrap_or_default();
        // The first frames of an encoder prepare for what comes; one from the middle is like all that follow.
        let silence = frames.next().and_then(|sound| {
            let middle = sound.len() / 2;
            let (frame, next) = (sound.get(middle)?, sound.get(middle + 1)?);
            let length = next.pts.saturating_since(frame.pts);
            (!length.is_zero()).then(|| (frame.data.clone(), length))
        });
        if silence.is_none() {
            tracks.truncate(1);
        }
        let uncompressed = self.like.iter().find_map(|like| Some((like, zeros(like.audio()?)?)));
        let silence = match uncompressed {
            Some((like, zeros)) => {
                tracks.push((**like).clone());
                Some((zeros, CHUNK))
            }
            None => silence,
        };
        Ok(Encoded { tracks, pictures, silence })
    }

    /// Runs one line to its end. Gives what it is, and its frames.
    async fn run_once(&self, bin: &gst::Element) -> Result<(CodecParameters, Vec<Frame>), SourceError> {
        let hub = Hub::new(HubOptions::default());
        let limits = QueueLimits { frames: 4096, ..QueueLimits::default() };
        let mut reader = hub.subscribe("still", ReaderOptions { limits, ..ReaderOptions::default() });
        let writer = hub.writer();
        writer.begin_session();
        let options = GstOptions::live("a picture".into());
        let cancel = CancellationToken::new();
        let runs = gst_source::run(gst_source::pipeline_of(bin)?, &options, &writer, &cancel);
        tokio::time::timeout(TIMEOUT, runs)
            .await
            .map_err(|_| SourceError::Timeout { what: "encoding a picture".into(), timeout: TIMEOUT })?
            .map_err(|e| self.failed(e))?;
        collect(&mut reader).ok_or_else(|| self.failed("nothing can be made of it"))
    }
}

fn collect(reader: &mut HubReader) -> Option<(CodecParameters, Vec<Frame>)> {
    let frames: Vec<Frame> = std::iter::from_fn(|| reader.try_next())
        .filter_map(|item| if let HubItem::Frame(frame) = item { Some(frame) } else { None })
        .collect();
    let parameters = (*frames.first()?.parameters).clone();
    Some((parameters, frames))
}

/// The encoder for pictures like these; H.264 if there is none for their codec.
fn encoder(like: Option<&VideoParameters>) -> String {
    let has = |name: &str| make_element(name).is_ok();
    match like.map(|v| v.codec) {
        Some(VideoCodec::H265) if has("x265enc") => format!(
            "x265enc tune=zerolatency speed-preset=ultrafast key-int-max={PICTURES} \
             ! h265parse ! capsfilter caps=\"video/x-h265,stream-format=hvc1,alignment=au\""
        ),
        Some(VideoCodec::Vp8) if has("vp8enc") => {
            format!("vp8enc deadline=1 keyframe-max-dist={PICTURES} target-bitrate=300000")
        }
        Some(VideoCodec::Vp9) if has("vp9enc") => {
            format!("vp9enc deadline=1 keyframe-max-dist={PICTURES} target-bitrate=300000")
        }
        Some(VideoCodec::Mjpeg) if has("jpegenc") => "jpegenc quality=70".into(),
        _ => {
            // Whoever has agreed on a profile goes on with it (`profile_idc`, ISO/IEC 14496-10 section 7.4.2.1.1).
            let profile = match like.and_then(|v| v.extra_data.get(1)) {
                Some(66) => ",profile=constrained-baseline",
                Some(77) => ",profile=main",
                Some(100) => ",profile=high",
                _ => "",
            };
            format!(
                "x264enc tune=zerolatency speed-preset=veryfast key-int-max={PICTURES} pass=quant quantizer=24 \
                 ! capsfilter caps=\"video/x-h264{profile}\" ! h264parse \
                 ! capsfilter caps=\"video/x-h264,stream-format=avc,alignment=au\""
            )
        }
    }
}

/// A chunk of silence in a codec that is no more than numbers: 0 in A-law and µ-law (ITU-T G.711) and as such.
fn zeros(like: &AudioParameters) -> Option<Bytes> {
    let (zero, bytes) = match like.codec {
        AudioCodec::Pcma => (0xd5, 1),
        AudioCodec::Pcmu => (0xff, 1),
        AudioCodec::L16 => (0, 2),
        _ => return None,
    };
    let samples = like.sample_rate as usize * CHUNK.as_millis() as usize / 1000;
    Some(vec![zero; samples * usize::from(like.channels) * bytes].into())
}

/// A line that makes silence like this sound, if that can be made.
fn silence(like: &AudioParameters) -> Option<String> {
    let encoder = match like.codec {
        AudioCodec::Aac => {
            "avenc_aac bitrate=32000 ! aacparse ! capsfilter caps=\"audio/mpeg,mpegversion=4,stream-format=raw\""
        }
        AudioCodec::Opus => "opusenc bitrate=16000 ! opusparse",
        AudioCodec::Mp3 => "lamemp3enc ! mpegaudioparse",
        AudioCodec::Pcma | AudioCodec::Pcmu | AudioCodec::L16 | AudioCodec::Ac3 => return None,
    };
    make_element(encoder.split_whitespace().next()?).ok()?;
    let AudioParameters { sample_rate, channels, .. } = like;
    let samples = (sample_rate * CHUNK.as_millis() as u32 / 1000).max(1);
    let count = SOUND.as_millis() / CHUNK.as_millis();
    Some(format!(
        "audiotestsrc wave=silence samplesperbuffer={samples} num-buffers={count} \
         ! audio/x-raw,rate={sample_rate},channels={channels} ! audioconvert ! {encoder}"
    ))
}

/// The same parameters as the stream's, where they mean the same: readers notice nothing then.
fn alike(made: CodecParameters, like: &[Arc<CodecParameters>]) -> CodecParameters {
    let same = |like: &&Arc<CodecParameters>| match (&made, &***like) {
        (CodecParameters::Audio(a), CodecParameters::Audio(b)) => {
            (a.codec, a.sample_rate, a.channels) == (b.codec, b.sample_rate, b.channels)
        }
        _ => false,
    };
    like.iter().find(same).map_or(made.clone(), |like| (**like).clone())
}

#[async_trait::async_trait]
impl Source for StillSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        let encoded = match &self.encoded {
            Some(encoded) => encoded.clone(),
            None => match cancel.run_until_cancelled(self.encode()).await {
                None => return Ok(SourceEnd::Cancelled),
                Some(encoded) => self.encoded.insert(Arc::new(encoded?)).clone(),
            },
        };
        hub.set_tracks(encoded.tracks.iter().cloned().map(|made| alike(made, &self.like)));
        let begun = Instant::now();
        let interval = Duration::from_secs(1) / FPS;
        let (mut picture, mut sound) = (0u32, 0u32);
        loop {
            let picture_at = interval * picture;
            let sound_at = encoded.silence.as_ref().map(|(_, length)| *length * sound);
            let is_sound = sound_at.is_some_and(|at| at < picture_at);
            let at = sound_at.filter(|_| is_sound).unwrap_or(picture_at);
            if cancel.run_until_cancelled(tokio::time::sleep_until(begun + at)).await.is_none() {
                return Ok(SourceEnd::Cancelled);
            }
            let pts = MediaTime::ZERO + at;
            if let (true, Some((data, _))) = (is_sound, &encoded.silence) {
                hub.push(RawFrame::new(1, pts, data.clone()).keyframe(true))?;
                sound += 1;
            } else if let Some(frame) = encoded.pictures.get(picture as usize % encoded.pictures.len().max(1))
            {
                hub.push(RawFrame::new(0, pts, frame.data.clone()).keyframe(frame.keyframe))?;
                picture += 1;
            } else {
                return Err(self.failed("nothing can be made of it"));
            }
        }
    }

    fn address(&self) -> String {
        match &self.picture {
            StillPicture::Text(_) => "slate".into(),
            StillPicture::Image(path) => path.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn made(like: Vec<CodecParameters>) -> Encoded {
        let like = like.into_iter().map(Arc::new).collect();
        StillSource::new(StillPicture::Text("no \"signal\" <since> 12:30".into()))
            .like(like)
            .encode()
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn it_is_like_what_it_stands_in_for() {
        let encoded = made(Vec::new()).await;
        let video = encoded.tracks[0].video().unwrap();
        assert_eq!(
            (video.codec, video.width, video.height, encoded.tracks.len()),
            (VideoCodec::H264, 1280, 720, 1)
        );
        assert_eq!(encoded.pictures.len(), PICTURES as usize);
        assert_eq!(encoded.pictures.iter().filter(|f| f.keyframe).count(), 1);
        let mut camera = VideoParameters::new(VideoCodec::H264, 640, 360);
        camera.extra_data = vec![1, 77, 0, 30].into();
        for codec in [AudioCodec::Aac, AudioCodec::Pcma, AudioCodec::Pcmu, AudioCodec::L16, AudioCodec::Opus]
        {
            let rate = if codec == AudioCodec::Opus { 48000 } else { 16000 };
            let sound = AudioParameters::new(codec, rate, 1);
            let like = vec![CodecParameters::Video(camera.clone()), CodecParameters::Audio(sound)];
            let encoded = made(like).await;
            let video = encoded.tracks[0].video().unwrap();
            assert_eq!((video.width, video.height, video.extra_data[1]), (640, 360, 77));
            let audio = encoded.tracks[1].audio().unwrap();
            assert_eq!((audio.codec, audio.sample_rate, audio.channels), (codec, rate, 1));
            let length = encoded.silence.unwrap().1;
            assert!((10..130).contains(&length.as_millis()), "{codec:?}: {length:?}");
        }
    }

    #[tokio::test]
    async fn an_image_that_is_none_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        std::fs::write(&path, "no picture").unwrap();
        let error = StillSource::new(StillPicture::Image(path)).encode().await.unwrap_err().to_string();
        assert!(error.contains("x.png"), "{error}");
    }
}
