//! Segments of fragmented MP4, written part by part through the disk pool.
//!
//! A file is created when its first part is complete, so a recording that gets no frame leaves no file,
//! and a file always ends with a whole part.

use super::clock::ClockWatch;
use super::ledger::{Beginning, Entry, describe};
use super::name::{numbered, segment_file_name};
use super::progress::Shared;
use super::writer::SegmentWriter;
use super::{Destination, RecordError, RecorderContext, Recording, Segment, SharedWriter};
use crate::fmp4::{DurationPatch, Fragmenter, FragmenterOptions, Part, SegmentIdentity};
use crate::frame::{Frame, MediaTime, Track, TrackId, WallTime};
use crate::storage::index::GapReason;
use crate::storage::{Appending, Lane, SegmentFile, StorageError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How many milliseconds a segment's name is moved on at most if its name is taken.
const MAX_NAME_STEPS: u32 = 1000;
/// How long somebody who reads a recording from a pipe may take for a part.
const READER_TIMEOUT: Duration = Duration::from_secs(600);
/// How long finishing the last file may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) struct Fmp4Writer {
    recording: Recording,
    context: RecorderContext,
    shared: Arc<Shared>,
    tracks: Option<Arc<[Track]>>,
    /// The tracks as the index keeps them.
    description: Arc<str>,
    open: Option<Open>,
    split: bool,
    /// Segments begun.
    number: u64,
    /// Where each track ends, to go on from after a pause within one file.
    end: Option<MediaTime>,
    /// Taken off the frames' times because of pauses within one file.
    shift: Duration,
    resuming: bool,
    /// The next segment follows on the last one without a missing frame.
    follows: bool,
    /// Frames are lost until the next keyframe.
    skipping: bool,
    /// Files that are being finished.
    closing: Vec<oneshot::Receiver<Result<(), StorageError>>>,
    clock: ClockWatch,
}

struct Open {
    fragmenter: Fragmenter,
    main: TrackId,
    main_is_video: bool,
    start: MediaTime,
    wall_clock: WallTime,
    output: Option<Output>,
    patch: Option<DurationPatch>,
    /// Payload bytes pushed, the measure for the segment's size.
    pushed_bytes: u64,
    written_bytes: u64,
    duration: Duration,
    frames: u64,
    pushed_frames: u64,
    continues: bool,
    /// When to begin the next one.
    limit: Option<Duration>,
    entry: Option<Entry>,
    /// The part that the disk has been given and has not confirmed yet.
    given: Option<Given>,
}

/// A part on its way to the disk.
struct Given {
    appending: Appending,
    part: WrittenPart,
}

/// What is to be told of a part once it is written.
#[derive(Clone, Copy)]
struct WrittenPart {
    init_bytes: u64,
    bytes: u64,
    duration: Duration,
    frames: u64,
    keyframe: bool,
}

enum Output {
    File(SegmentFile),
    Stream(Lane, SharedWriter),
}

impl Fmp4Writer {
    pub(super) fn new(recording: Recording, context: RecorderContext, shared: Arc<Shared>) -> Self {
        Self {
            recording,
            context,
            shared,
            tracks: None,
            description: "".into(),
            open: None,
            split: false,
            number: 0,
            end: None,
            shift: Duration::ZERO,
            resuming: false,
            follows: false,
            skipping: false,
            closing: Vec::new(),
            clock: ClockWatch::default(),
        }
    }

    /// Whether a pause leaves the file open: where there is one file for everything.
    fn one_file(&self) -> bool {
        !matches!(self.recording.destination, Some(Destination::Folder(_)))
    }

    fn wants_cut(&self, open: &Open, frame: &Frame) -> bool {
        let length = frame.dts.saturating_since(open.start);
        self.split
            || open.limit.is_some_and(|limit| length >= limit)
            || self.recording.segment_bytes.is_some_and(|limit| open.pushed_bytes >= limit)
    }

    fn begin(&mut self, tracks: &Arc<[Track]>, frame: &Frame) -> Result<Option<Open>, RecordError> {
        let options =
            FragmenterOptions { part_duration: self.recording.part_duration, ..FragmenterOptions::default() };
        let mut fragmenter = Fragmenter::new(tracks, options)?;
        let main = fragmenter.main_track();
        if frame.track != main || !frame.keyframe {
            if frame.track == main {
                self.skip(frame);
            }
            return Ok(None);
        }
        fragmenter.set_identity(&SegmentIdentity {
            stream: self.shared.ledger.stream().to_owned(),
            media_start_nanos: frame.dts.as_nanos(),
            continues: self.follows,
            tracks: serde_json::from_str(&self.description).unwrap_or_default(),
        })?;
        // Recordings that begin together do not change their segments together.
        let first = self.recording.stagger.filter(|_| self.number == 0).unwrap_or(1.0);
        self.split = false;
        self.number += 1;
        self.skipping = false;
        self.clock.restart();
        Ok(Some(Open {
            main,
            main_is_video: frame.is_video(),
            fragmenter,
            start: frame.dts,
            wall_clock: frame.wall_clock,
            output: None,
            patch: None,
            pushed_bytes: 0,
            written_bytes: 0,
            duration: Duration::ZERO,
            frames: 0,
            pushed_frames: 0,
            continues: std::mem::replace(&mut self.follows, false),
            limit: self.recording.segment_duration.map(|limit| limit.mul_f64(first)),
            entry: None,
            given: None,
        }))
    }

    /// A frame between two segments that cannot begin one.
    fn skip(&mut self, frame: &Frame) {
        if std::mem::replace(&mut self.follows, false) {
            self.shared.interrupted(GapReason::Format, Some(frame.wall_clock));
            self.skipping = true;
        }
        self.shared.lost(u64::from(self.skipping));
    }

    /// Closes the segment. `next` is the decoding time of the main track's frame that follows directly.
    async fn close(&mut self, next: Option<MediaTime>) -> Result<(), RecordError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let last = open.fragmenter.finish(next)?;
        let mut written = match last {
            Some(part) => self.write(&mut open, part).await,
            None => Ok(()),
        };
        if written.is_ok() {
            written = self.confirm(&mut open).await;
        }
        if let Err(error) = written {
            self.settle(open, true)?;
            return Err(error);
        }
        self.settle(open, false)
    }

    /// Finishes a segment's file in the background and tells of it. After a failure its end is left as it is.
    fn settle(&mut self, open: Open, failed: bool) -> Result<(), RecordError> {
        self.shared.lost(open.pushed_frames.saturating_sub(open.frames));
        let path = match open.output {
            None => return Ok(()), // never got a frame
            Some(Output::File(file)) => {
                let path = file.path().to_owned();
                let patch = open.patch.map(|p| (p.offset(), p.bytes(open.duration)));
                let entry = open.entry;
                let done = file.finish(patch, move |finished| {
                    if let Some(entry) = entry {
                        entry.finished()(finished);
                    }
                });
                self.closing.retain_mut(|earlier| {
                    earlier.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty)
                });
                match done {
                    Ok(done) => self.closing.push(done),
                    Err(error) if !failed => return Err(error.into()),
                    Err(_) => {}
                }
                path
            }
            Some(Output::Stream(..)) => PathBuf::new(),
        };
        self.shared.segment_finished(Segment {
            path,
            start: open.wall_clock,
            duration: open.duration,
            bytes: open.written_bytes,
            frames: open.frames,
        });
        Ok(())
    }

    async fn write(&mut self, open: &mut Open, part: Part) -> Result<(), RecordError> {
        if open.output.is_none() {
            open.output = Some(self.create(&mut open.wall_clock).await?);
        }
        let written = WrittenPart {
            init_bytes: part.init.as_ref().map_or(0, |init| init.len() as u64),
            bytes: part.len_bytes(),
            duration: part.duration,
            frames: part.frames as u64,
            keyframe: part.keyframe,
        };
        open.patch = part.duration_patch.or(open.patch);
        let chunks = part.chunks().cloned().collect::<Vec<_>>();
        // One part is on its way at a time: waiting for it only when the next is there saves waking up for it.
        self.confirm(open).await?;
        match &mut open.output {
            Some(Output::File(file)) => {
                let appending = file.append_later(chunks).await?;
                open.given = Some(Given { appending, part: written });
            }
            Some(Output::Stream(lane, writer)) => {
                let writer = writer.clone();
                let done = lane.run_within(READER_TIMEOUT, move || {
                    let mut out = writer.lock();
                    crate::storage::write_all(&mut *out, &chunks).and_then(|_| out.flush())
                });
                let at = PathBuf::from("the output stream");
                done.await.and_then(|result| result.map_err(StorageError::at(&at)))?;
                self.wrote(open, written);
            }
            None => {}
        }
        // The first one says whether writing is possible at all.
        if open.written_bytes == 0 { self.confirm(open).await } else { Ok(()) }
    }

    /// Waits for the part that the disk has been given, and tells of it.
    async fn confirm(&self, open: &mut Open) -> Result<(), RecordError> {
        let Some(Given { appending, part }) = open.given.take() else { return Ok(()) };
        if let Err(error) = appending.done().await {
            if open.written_bytes == 0
                && let Some(Output::File(file)) = open.output.take()
            {
                self.shared.ledger.not_opened(file.path());
                file.remove().await;
            }
            return Err(error.into());
        }
        self.wrote(open, part);
        Ok(())
    }

    fn wrote(&self, open: &mut Open, part: WrittenPart) {
        if open.written_bytes == 0 {
            self.begun(open);
        }
        let WrittenPart { init_bytes, bytes, duration, frames, keyframe } = part;
        if let Some(entry) = &mut open.entry {
            entry.part(open.written_bytes + init_bytes, bytes - init_bytes, duration, frames, keyframe);
        }
        open.written_bytes += bytes;
        open.duration += duration;
        open.frames += frames;
        self.shared.ledger.reached(open.wall_clock + open.duration);
        self.shared.media_reached(open.start + open.duration);
        self.shared.wrote(bytes, duration, frames);
    }

    /// The segment's first part is in its file: from now on there is a segment.
    fn begun(&self, open: &mut Open) {
        let path = match &open.output {
            Some(Output::File(file)) => file.path().to_owned(),
            _ => PathBuf::new(),
        };
        if let Some(Output::File(file)) = &open.output {
            open.entry = self.shared.ledger.begin(&Beginning {
                path: &path,
                start: open.wall_clock,
                media_start: open.start,
                format: self.recording.format,
                tracks: &self.description,
                continues: open.continues,
            });
            if let Some(entry) = &open.entry {
                file.settle(entry.begun());
            }
        }
        self.shared.segment_started(path);
    }

    /// Creates the segment's file. A name that is taken (the clock was set back) is moved on by a
    /// millisecond until it is free; nothing is ever overwritten.
    async fn create(&self, wall_clock: &mut WallTime) -> Result<Output, RecordError> {
        match &self.recording.destination {
            Some(Destination::Stream(writer)) => Ok(Output::Stream(self.context.pool.lane(), writer.clone())),
            Some(Destination::File { path, overwrite }) => {
                let path = numbered(path, self.number);
                Ok(Output::File(self.make(path, *overwrite).await?))
            }
            destination => {
                let folder = match destination {
                    Some(Destination::Folder(folder)) => folder.clone(),
                    _ => PathBuf::from("."),
                };
                let mut steps = 0;
                loop {
                    let path = folder.join(segment_file_name(*wall_clock, self.recording.format));
                    match self.make(path, false).await {
                        Ok(file) => return Ok(Output::File(file)),
                        Err(StorageError::Io { source, .. })
                            if source.kind() == std::io::ErrorKind::AlreadyExists
                                && steps < MAX_NAME_STEPS =>
                        {
                            steps += 1;
                            *wall_clock = *wall_clock + Duration::from_millis(1);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    async fn make(&self, path: PathBuf, overwrite: bool) -> Result<SegmentFile, StorageError> {
        self.shared.ledger.opening(&path);
        let place = self.context.place.clone();
        let made =
            SegmentFile::create(&self.context.pool, path.clone(), overwrite, self.recording.sync, place)
                .await;
        if made.is_err() {
            self.shared.ledger.not_opened(&path);
        }
        made
    }

    /// After a pause within one file: its media goes on where it stopped.
    fn shift_times(&mut self, frame: &mut Frame, open: &Open) -> bool {
        if self.resuming {
            if frame.track != open.main || (open.main_is_video && !frame.keyframe) {
                return false;
            }
            self.resuming = false;
            let moved = frame.dts - self.shift;
            if let Some(end) = self.end {
                self.shift += moved.saturating_since(end);
            }
        }
        frame.dts = frame.dts - self.shift;
        frame.pts = frame.pts - self.shift;
        // Sound from inside the pause that came after the picture.
        self.shift.is_zero() || frame.dts >= open.start
    }
}

#[async_trait::async_trait]
impl SegmentWriter for Fmp4Writer {
    async fn tracks(&mut self, tracks: Arc<[Track]>) -> Result<(), RecordError> {
        if self.tracks.as_ref() == Some(&tracks) {
            return Ok(());
        }
        let follows = self.open.is_some();
        // The open one is entered with its own tracks, perhaps only now; the new ones are taken over whatever comes of that.
        let closed = self.close(None).await;
        self.description = serde_json::to_string(&describe(&tracks)).unwrap_or_default().into();
        self.tracks = Some(tracks);
        closed?;
        // New parameters come with a keyframe: nothing is missing between the two segments.
        self.follows = follows;
        Ok(())
    }

    async fn frame(&mut self, mut frame: Frame) -> Result<(), RecordError> {
        let Some(tracks) = self.tracks.clone() else { return Ok(()) };
        if let Some(open) = self.open.take() {
            let kept = self.shift_times(&mut frame, &open);
            let may_cut = kept && frame.track == open.main && frame.keyframe;
            let step = if may_cut { self.clock.step() } else { None };
            if let Some((step, back)) = step {
                self.shared.ledger.clock_step(frame.wall_clock, step, back);
            }
            let cut = may_cut && (step.is_some() && !self.one_file() || self.wants_cut(&open, &frame));
            self.open = Some(open);
            if !kept {
                return Ok(());
            }
            if cut {
                self.close(Some(frame.dts)).await?;
                self.follows = true;
            }
        }
        if self.open.is_none() {
            self.open = self.begin(&tracks, &frame)?;
        }
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.pushed_bytes += frame.data.len() as u64;
        let length = Duration::from_millis(20);
        self.end = self.end.max(Some(frame.dts + length));
        open.pushed_frames += 1;
        // On an error the segment is closed: what is on disk ends with a whole part.
        let written = match open.fragmenter.push(frame) {
            Ok(Some(part)) => self.write(&mut open, part).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            // The error that counts is the first.
            let _ = self.confirm(&mut open).await;
            let _ = self.settle(open, true);
            return Err(error);
        }
        self.open = Some(open);
        Ok(())
    }

    async fn gap(&mut self) -> Result<(), RecordError> {
        if self.one_file() {
            return Ok(());
        }
        self.follows = false;
        self.close(None).await
    }

    async fn pause(&mut self) -> Result<(), RecordError> {
        if self.one_file() {
            self.resuming = true;
            return Ok(());
        }
        self.follows = false;
        self.close(None).await
    }

    fn paused_frame(&mut self, _: &Frame) {}

    fn resume(&mut self) {}

    fn split(&mut self) {
        self.split = true;
    }

    fn next_write(&self) -> Option<MediaTime> {
        let since = self.open.as_ref()?.fragmenter.pending_since()?;
        Some(since + self.shift + self.recording.part_duration)
    }

    async fn finish(&mut self) -> Result<(), RecordError> {
        self.close(None).await?;
        for done in self.closing.drain(..) {
            let answer = tokio::time::timeout(FINISH_TIMEOUT, done).await;
            // A thread that went away without an answer has no file left to speak of.
            answer.map_err(|_| RecordError::Stalled)?.unwrap_or(Ok(()))?;
        }
        Ok(())
    }
}
