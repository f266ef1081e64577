//! Segments of MPEG-TS, MKV and plain MP4, by GStreamer: `appsrc ! togglerecord ! splitmuxsink`.
//!
//! The pipeline is made when the first keyframe and the tracks that really deliver are known (a muxer
//! waits for every one of its tracks), and lives until the recording is paused, stopped or meets a gap or
//! new parameters. Frames go in by reference. Where there is one file for everything, a pause is
//! `togglerecord`'s: it stops and starts at keyframes, so the frames between the pause and the next
//! keyframe are held back here.

use super::gst_run::{Fragment, Input, Keyframes, Run, nominal_duration, until_end, wall_clock_of};
use super::ledger::{Beginning, Entry, describe};
use super::name::{numbered, segment_file_name};
use super::progress::Shared;
use super::writer::SegmentWriter;
use super::{Destination, RecordError, RecorderContext, Recording, RecordingFormat, Segment, SharedWriter};
use crate::frame::{AudioCodec, Codec, Frame, MediaKind, MediaTime, Track, TrackId, VideoCodec, WallTime};
use crate::pipeline::caps::caps_for;
use crate::pipeline::{self, ErrorCause, ManagedPipeline, PipelineError, PipelineMessage, make_element};
use crate::storage::{StorageError, WatchedFile};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Media to look at before it is decided which tracks deliver.
const LOOK_AHEAD: Duration = Duration::from_millis(600);
/// Bytes that may wait in front of the muxer before it counts as stalled.
const MAX_QUEUED_BYTES: u64 = 64 << 20;
/// How long the muxer may take to finish a file.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);
/// Less room than this, and no file is begun.
const LEAST_FREE_BYTES: u64 = 2 << 20;

pub(super) struct GstWriter {
    recording: Recording,
    context: RecorderContext,
    shared: Arc<Shared>,
    tracks: Option<Arc<[Track]>>,
    /// The tracks as the index keeps them.
    description: String,
    /// Files that the muxer has open, what the index will know of them, and their syncing.
    files: HashMap<PathBuf, (Option<Entry>, Option<WatchedFile>)>,
    /// The next file follows on the last one without a missing frame.
    follows: bool,
    /// Frames from the first keyframe on, until the pipeline is made.
    waiting: Vec<Frame>,
    run: Option<Run>,
    number: Arc<AtomicU64>,
}

fn holds(format: RecordingFormat, codec: Codec) -> bool {
    use AudioCodec::{Aac, Ac3, Mp3, Opus};
    use VideoCodec::{Av1, H264, H265, Vp9};
    let common = matches!(codec, Codec::Video(H264 | H265) | Codec::Audio(Aac | Mp3 | Ac3 | Opus));
    match format {
        RecordingFormat::Fmp4 | RecordingFormat::Mkv => !matches!(codec, Codec::Data(_)),
        RecordingFormat::Ts => common,
        RecordingFormat::Mp4 => common || matches!(codec, Codec::Video(Av1 | Vp9)),
    }
}

impl GstWriter {
    pub(super) fn new(recording: Recording, context: RecorderContext, shared: Arc<Shared>) -> Self {
        Self {
            recording,
            context,
            shared,
            tracks: None,
            description: String::new(),
            files: HashMap::new(),
            follows: false,
            waiting: Vec::new(),
            run: None,
            number: Arc::default(),
        }
    }

    fn one_file(&self) -> bool {
        !matches!(self.recording.destination, Some(Destination::Folder(_)))
    }

    /// The tracks that the container can hold.
    fn fitting(&self, tracks: &[Track]) -> Result<Vec<Track>, RecordError> {
        let fitting: Vec<Track> =
            tracks.iter().filter(|t| holds(self.recording.format, t.parameters.codec())).cloned().collect();
        if fitting.is_empty() {
            let codecs = tracks.iter().map(|t| t.parameters.codec().name()).collect::<Vec<_>>().join(", ");
            return Err(RecordError::NoFittingTrack { format: self.recording.format, codecs });
        }
        Ok(fitting)
    }

    /// Makes the pipeline once it is clear which tracks deliver, and feeds it what has waited.
    async fn begin_when_ready(&mut self, tracks: &[Track], at_end: bool) -> Result<(), RecordError> {
        let fitting = self.fitting(tracks)?;
        let (Some(first), Some(last)) = (self.waiting.first(), self.waiting.last()) else { return Ok(()) };
        let delivering: Vec<Track> =
            fitting.iter().filter(|t| self.waiting.iter().any(|f| f.track == t.id)).cloned().collect();
        let looked = last.dts.saturating_since(first.dts) >= LOOK_AHEAD;
        if delivering.is_empty() || !(looked || at_end || delivering.len() == fitting.len()) {
            return Ok(());
        }
        if delivering.len() < tracks.len() {
            tracing::info!(format = ?self.recording.format, tracks = tracks.len(), recorded = delivering.len(),
                "tracks that the container cannot hold, or that deliver nothing, are left out");
        }
        let base = first.dts;
        let mut run = self.build(&delivering, base)?;
        run.managed.play(FINISH_TIMEOUT).await?;
        for frame in std::mem::take(&mut self.waiting) {
            run.push(frame);
        }
        self.run = Some(run);
        Ok(())
    }

    fn build(&self, tracks: &[Track], base: MediaTime) -> Result<Run, RecordError> {
        pipeline::init()?;
        let failed = |what: String| PipelineError::Element {
            element: "recording".into(),
            message: what,
            cause: ErrorCause::Other,
        };
        let pipeline = gst::Pipeline::new();
        let toggle = make_element("togglerecord")?;
        toggle.set_property("record", true);
        pipeline.add(&toggle).map_err(|e| failed(e.to_string()))?;
        let keyframes: Keyframes = Arc::default();
        let (output, splitmux) = self.output(&pipeline, &keyframes, base)?;
        let main = tracks
            .iter()
            .find(|t| t.parameters.kind() == MediaKind::Video)
            .or(tracks.first())
            .map_or(TrackId(0), |t| t.id);
        let mut sources = Vec::new();
        for track in tracks {
            let caps = caps_for(&track.parameters).ok_or_else(|| failed("a track without caps".into()))?;
            let source = gst_app::AppSrc::builder()
                .caps(&caps)
                .format(gst::Format::Time)
                .is_live(true)
                .max_bytes(0)
                .build();
            pipeline.add(&source).map_err(|e| failed(e.to_string()))?;
            let (sink_pad, src_pad) = toggle_pads(&toggle, track.id == main)
                .ok_or_else(|| failed("togglerecord has no pad".into()))?;
            let link =
                |from: &gst::Pad, to: &gst::Pad| from.link(to).map(drop).map_err(|e| failed(e.to_string()));
            link(&source.static_pad("src").ok_or_else(|| failed("no pad".into()))?, &sink_pad)?;
            // Without a queue the muxer's waiting for sound would hold the picture in togglerecord, which holds
            // the sound until the picture has gone on.
            let queue = make_element("queue")?;
            queue.set_property("max-size-time", 0u64);
            queue.set_property("max-size-buffers", 0u32);
            queue.set_property("max-size-bytes", u32::try_from(MAX_QUEUED_BYTES).unwrap_or(u32::MAX));
            pipeline.add(&queue).map_err(|e| failed(e.to_string()))?;
            link(&src_pad, &queue.static_pad("sink").ok_or_else(|| failed("no pad".into()))?)?;
            let mut last = queue;
            if let Some(parser) = self.parser_for(track.parameters.codec()) {
                let parser = make_element(parser)?;
                // Every segment, and every keyframe in it, can be decoded by itself.
                parser.set_property("config-interval", -1i32);
                pipeline.add(&parser).map_err(|e| failed(e.to_string()))?;
                last.link(&parser).map_err(|e| failed(e.to_string()))?;
                last = parser;
            }
            let name = match (&splitmux, track.parameters.kind(), track.id == main) {
                (Some(_), MediaKind::Video, true) => "video",
                (Some(_), MediaKind::Video, false) => "video_aux_%u",
                (Some(_), ..) => "audio_%u",
                (None, MediaKind::Video, _) if self.recording.format == RecordingFormat::Mkv => "video_%u",
                (None, _, _) if self.recording.format == RecordingFormat::Mkv => "audio_%u",
                _ => "sink_%d",
            };
            let to = output
                .request_pad_simple(name)
                .ok_or_else(|| failed(format!("the muxer has no pad {name}")))?;
            link(&last.static_pad("src").ok_or_else(|| failed("no pad".into()))?, &to)?;
            let frame_duration = nominal_duration(&track.parameters);
            sources.push(Input { track: track.id, source, last_dts: None, frame_duration });
        }
        let (managed, bus) = ManagedPipeline::new(pipeline);
        Ok(Run {
            managed,
            bus,
            sources,
            toggle,
            splitmux,
            main,
            base,
            keyframes,
            frames: 0,
            segment_frames: 0,
            bytes: 0,
            last_dts: base,
            segment_start: base,
            holding: false,
        })
    }

    /// What goes between a track and the muxer. Only MPEG-TS needs another format than the hub's; elsewhere a
    /// parser would only refine the caps after the first frame, which `splitmuxsink` takes as a new format
    /// and begins a new file for.
    fn parser_for(&self, codec: Codec) -> Option<&'static str> {
        match (self.recording.format, codec) {
            (RecordingFormat::Ts, Codec::Video(VideoCodec::H264)) => Some("h264parse"),
            (RecordingFormat::Ts, Codec::Video(VideoCodec::H265)) => Some("h265parse"),
            _ => None,
        }
    }

    /// The element that the tracks are linked to: `splitmuxsink`, or a muxer in front of a writer.
    fn output(
        &self,
        pipeline: &gst::Pipeline,
        keyframes: &Keyframes,
        base: MediaTime,
    ) -> Result<(gst::Element, Option<gst::Element>), RecordError> {
        let failed = |what: String| PipelineError::Element {
            element: "recording".into(),
            message: what,
            cause: ErrorCause::Other,
        };
        let muxer = match self.recording.format {
            RecordingFormat::Ts => "mpegtsmux",
            RecordingFormat::Mkv => "matroskamux",
            RecordingFormat::Mp4 | RecordingFormat::Fmp4 => "mp4mux",
        };
        let mux = make_element(muxer)?;
        if let Some(Destination::Stream(writer)) = &self.recording.destination {
            if mux.find_property("streamable").is_some() {
                mux.set_property("streamable", true);
            }
            let sink = stream_sink(writer.clone(), self.shared.clone());
            pipeline.add_many([&mux, sink.upcast_ref()]).map_err(|e| failed(e.to_string()))?;
            mux.link(&sink).map_err(|e| failed(e.to_string()))?;
            self.shared.segment_started(PathBuf::new());
            return Ok((mux, None));
        }
        let splitmux = make_element("splitmuxsink")?;
        splitmux.set_property("muxer", &mux);
        // Recordings that begin together do not change their segments together: see `listen`.
        let first =
            self.recording.stagger.filter(|_| self.number.load(Ordering::Relaxed) == 0).unwrap_or(1.0);
        splitmux
            .set_property("max-size-time", nanos(self.recording.segment_duration.map(|d| d.mul_f64(first))));
        splitmux.set_property("max-size-bytes", self.recording.segment_bytes.unwrap_or(0));
        splitmux.set_property("send-keyframe-requests", false);
        let (recording, number, keyframes) = (self.recording.clone(), self.number.clone(), keyframes.clone());
        let shared = Arc::downgrade(&self.shared);
        splitmux.connect("format-location-full", false, move |values| {
            let sample = values.get(2).and_then(|v| v.get::<gst::Sample>().ok());
            let time = sample.as_ref().and_then(|s| s.buffer()).and_then(gst::BufferRef::pts);
            let start = wall_clock_of(&keyframes, time, base);
            let number = number.fetch_add(1, Ordering::Relaxed) + 1;
            let path = location(&recording, start, number);
            if let Some(shared) = shared.upgrade() {
                shared.ledger.opening(&path);
            }
            Some(path.display().to_string().to_value())
        });
        pipeline.add(&splitmux).map_err(|e| failed(e.to_string()))?;
        Ok((splitmux.clone(), Some(splitmux)))
    }

    /// Takes note of what the pipeline has said.
    async fn listen(&mut self) -> Result<(), RecordError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let mut fragments = Vec::new();
        let mut error = None;
        while let Ok(message) = run.bus.try_recv() {
            match message {
                PipelineMessage::Error(said) => error = Some(said),
                PipelineMessage::Element(structure) => fragments.extend(run.fragment_message(&structure)),
                PipelineMessage::Eos => {}
            }
        }
        for fragment in fragments {
            self.fragment(fragment).await;
        }
        match error {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    async fn fragment(&mut self, fragment: Fragment) {
        match fragment {
            Fragment::Opened { path, start, media_start } => {
                let entry = self.shared.ledger.begin(&Beginning {
                    path: &path,
                    start,
                    media_start,
                    format: self.recording.format,
                    tracks: &self.description,
                    // Those after the first of a run follow on each other.
                    continues: std::mem::replace(&mut self.follows, true),
                });
                let (pool, file, sync) = (self.context.pool.clone(), path.clone(), self.recording.sync);
                let watched = self.context.pool.lane().run(move || pool.watch(&file, sync)).await.ok();
                let begun = entry.as_ref().map(Entry::begun);
                self.context.pool.in_order(move || {
                    if let Some(begun) = begun {
                        begun();
                    }
                });
                self.shared.segment_started(path.clone());
                self.files.insert(path, (entry, watched));
            }
            Fragment::Closed(segment) => {
                if let Some(splitmux) = self.run.as_ref().and_then(|run| run.splitmux.as_ref()) {
                    splitmux.set_property("max-size-time", nanos(self.recording.segment_duration));
                }
                self.report(segment).await;
            }
        }
    }

    /// Looks up a finished file's size, makes it safe and tells of it.
    async fn report(&mut self, mut segment: Segment) {
        let (entry, watched) = self.files.remove(&segment.path).unwrap_or_default();
        let (path, sync) = (segment.path.clone(), self.recording.sync);
        let lane = self.context.pool.lane();
        let size = lane.run(move || {
            let size = std::fs::metadata(&path).map(|m| m.len());
            if let Some(watched) = watched {
                watched.finish(sync);
            }
            size
        });
        segment.bytes = size.await.ok().and_then(Result::ok).unwrap_or(0);
        self.shared.ledger.reached(segment.start + segment.duration);
        if let Some(mut entry) = entry {
            entry.whole(segment.bytes, segment.duration, segment.frames);
            let finished = entry.finished();
            self.context.pool.in_order(move || finished(true));
        }
        self.shared.wrote(segment.bytes, segment.duration, segment.frames);
        self.shared.segment_finished(segment);
    }

    async fn close(&mut self) -> Result<(), RecordError> {
        if let Some(tracks) = self.tracks.clone()
            && self.run.is_none()
            && !self.waiting.is_empty()
        {
            self.begin_when_ready(&tracks, true).await?;
        }
        self.waiting.clear();
        let listened = self.listen().await;
        let Some(mut run) = self.run.take() else { return listened };
        for Input { source, .. } in &run.sources {
            // Refused only if the pipeline is down already.
            let _ = source.end_of_stream();
        }
        let mut result = listened;
        let mut closed = Vec::new();
        if result.is_ok() {
            let wait = until_end(&mut run.bus, &mut closed);
            result = tokio::time::timeout(FINISH_TIMEOUT, wait).await.unwrap_or(Err(RecordError::Stalled));
        }
        for structure in closed {
            if let Some(fragment) = run.fragment_message(&structure) {
                self.fragment(fragment).await;
            }
        }
        if run.splitmux.is_none() {
            let duration = run.last_dts.saturating_since(run.segment_start);
            self.shared.segment_finished(Segment {
                path: PathBuf::new(),
                start: wall_clock_of(&run.keyframes, None, run.base),
                duration,
                bytes: run.bytes,
                frames: run.frames,
            });
        }
        run.managed.stop().await;
        self.follows = false;
        result
    }
}

impl Drop for GstWriter {
    fn drop(&mut self) {
        // Files that the muxer could not finish.
        for (path, (entry, _)) in self.files.drain() {
            self.context.pool.in_order(move || {
                // An empty one is of no use to anybody.
                if std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() == 0) {
                    let _ = std::fs::remove_file(&path);
                }
                if let Some(entry) = entry {
                    entry.finished()(false);
                }
            });
        }
    }
}

fn nanos(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(0))
}

fn toggle_pads(toggle: &gst::Element, main: bool) -> Option<(gst::Pad, gst::Pad)> {
    if main {
        return Some((toggle.static_pad("sink")?, toggle.static_pad("src")?));
    }
    let sink = toggle.request_pad_simple("sink_%u")?;
    let src = toggle.static_pad(&sink.name().replace("sink", "src"))?;
    Some((sink, src))
}

fn stream_sink(writer: SharedWriter, shared: Arc<Shared>) -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder().sync(false).async_(false).build();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                if let Some(map) = sample.buffer().and_then(|b| b.map_readable().ok()) {
                    let mut out = writer.lock();
                    out.write_all(&map).and_then(|()| out.flush()).map_err(|_| gst::FlowError::Error)?;
                    shared.wrote(map.len() as u64, Duration::ZERO, 0);
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    sink
}

fn location(recording: &Recording, mut start: WallTime, number: u64) -> PathBuf {
    match &recording.destination {
        Some(Destination::File { path, .. }) => numbered(path, number),
        Some(Destination::Folder(folder)) => loop {
            let path = folder.join(segment_file_name(start, recording.format));
            if !path.exists() {
                return path;
            }
            start = start + Duration::from_millis(1);
        },
        _ => PathBuf::from(segment_file_name(start, recording.format)),
    }
}

async fn prepare_target(context: &RecorderContext, recording: &Recording) -> Result<(), RecordError> {
    let (path, is_file, overwrite) = match &recording.destination {
        Some(Destination::Folder(path)) => (path.clone(), false, false),
        Some(Destination::File { path, overwrite }) => (path.clone(), true, *overwrite),
        _ => return Ok(()),
    };
    let place = context.place.clone();
    let prepare = move || {
        if let Some(place) = place {
            place.folder(&path)?;
        }
        prepare(&path, is_file, overwrite)
    };
    context.pool.lane().run(prepare).await?.map_err(RecordError::from)
}

fn prepare(path: &Path, is_file: bool, overwrite: bool) -> Result<(), StorageError> {
    let folder = if is_file { path.parent().filter(|p| !p.as_os_str().is_empty()) } else { Some(path) };
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).map_err(StorageError::at(folder))?;
        // The muxer would leave an empty file behind.
        if crate::storage::space::space(folder)?.free_bytes < LEAST_FREE_BYTES {
            return Err(StorageError::at(folder)(std::io::ErrorKind::StorageFull.into()));
        }
    }
    if is_file && !overwrite && path.exists() {
        return Err(StorageError::at(path)(std::io::ErrorKind::AlreadyExists.into()));
    }
    Ok(())
}

#[async_trait::async_trait]
impl SegmentWriter for GstWriter {
    async fn tracks(&mut self, tracks: Arc<[Track]>) -> Result<(), RecordError> {
        if self.tracks.as_ref() == Some(&tracks) {
            return Ok(());
        }
        if self.tracks.is_some() {
            let follows = self.run.is_some();
            self.close().await?;
            self.follows = follows;
        }
        self.description = serde_json::to_string(&describe(&self.fitting(&tracks)?)).unwrap_or_default();
        self.tracks = Some(tracks);
        Ok(())
    }

    async fn frame(&mut self, frame: Frame) -> Result<(), RecordError> {
        let Some(tracks) = self.tracks.clone() else { return Ok(()) };
        self.listen().await?;
        if let Some(run) = &mut self.run {
            if run.holding {
                // Resumed within the GOP in which it was paused: go on with the next keyframe.
                if frame.track != run.main || !frame.keyframe {
                    return Ok(());
                }
                run.holding = false;
            }
            run.push(frame);
            return if run.queued_bytes() > MAX_QUEUED_BYTES { Err(RecordError::Stalled) } else { Ok(()) };
        }
        let has_video = self.fitting(&tracks)?.iter().any(|t| t.parameters.kind() == MediaKind::Video);
        if self.waiting.is_empty() {
            if !frame.keyframe || frame.is_video() != has_video {
                return Ok(());
            }
            if self.number.load(Ordering::Relaxed) == 0 {
                prepare_target(&self.context, &self.recording).await?;
            }
        }
        self.waiting.push(frame);
        self.begin_when_ready(&tracks, false).await
    }

    async fn gap(&mut self) -> Result<(), RecordError> {
        if self.one_file() { Ok(()) } else { self.close().await }
    }

    async fn pause(&mut self) -> Result<(), RecordError> {
        if !self.one_file() || self.run.is_none() {
            return self.close().await;
        }
        if let Some(run) = &mut self.run {
            run.toggle.set_property("record", false);
            run.holding = true;
        }
        Ok(())
    }

    fn paused_frame(&mut self, frame: &Frame) {
        let Some(run) = &mut self.run else { return };
        let mut frame = frame.clone();
        if run.holding {
            if frame.track != run.main || !frame.keyframe {
                return;
            }
            run.holding = false;
            // togglerecord counts the time up to this keyframe as recorded, so it is told that the keyframe
            // follows directly on the last frame.
            frame.dts = run.last_dts + run.main_frame_duration();
            frame.pts = frame.dts;
        }
        // togglerecord drops it.
        let (frames, bytes) = (run.frames, run.bytes);
        run.push(frame);
        (run.frames, run.bytes) = (frames, bytes);
    }

    fn resume(&mut self) {
        if let Some(run) = &mut self.run {
            run.toggle.set_property("record", true);
        }
    }

    fn split(&mut self) {
        if let Some(splitmux) = self.run.as_ref().and_then(|r| r.splitmux.as_ref()) {
            splitmux.emit_by_name::<()>("split-now", &[]);
        }
    }

    async fn finish(&mut self) -> Result<(), RecordError> {
        self.close().await
    }
}
