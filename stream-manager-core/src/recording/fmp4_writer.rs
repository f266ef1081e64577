//! Segments of fragmented MP4, written part by part through the disk pool.
//!
//! A file is created when its first part is complete, so a recording that gets no frame leaves no file,
//! and a file always ends with a whole part.

use super::name::{numbered, segment_file_name};
use super::recorder::{SegmentWriter, Shared};
use super::{Destination, RecordError, Recording, Segment, SharedWriter};
use crate::fmp4::{DurationPatch, Fragmenter, FragmenterOptions, Part};
use crate::frame::{Frame, MediaTime, Track, TrackId, WallTime};
use crate::storage::{DiskPool, Lane, SegmentFile, StorageError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How many milliseconds a segment's name is moved on at most if its name is taken.
const MAX_NAME_STEPS: u32 = 1000;

pub(super) struct Fmp4Writer {
    recording: Recording,
    pool: DiskPool,
    shared: Arc<Shared>,
    tracks: Option<Arc<[Track]>>,
    open: Option<Open>,
    split: bool,
    /// Segments begun.
    number: u64,
    /// Where each track ends, to go on from after a pause within one file.
    end: Option<MediaTime>,
    /// Taken off the frames' times because of pauses within one file.
    shift: Duration,
    resuming: bool,
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
}

enum Output {
    File(SegmentFile),
    Stream(Lane, SharedWriter),
}

impl Fmp4Writer {
    pub(super) fn new(recording: Recording, pool: DiskPool, shared: Arc<Shared>) -> Self {
        Self {
            recording,
            pool,
            shared,
            tracks: None,
            open: None,
            split: false,
            number: 0,
            end: None,
            shift: Duration::ZERO,
            resuming: false,
        }
    }

    /// Whether a pause leaves the file open: where there is one file for everything.
    fn one_file(&self) -> bool {
        !matches!(self.recording.destination, Some(Destination::Folder(_)))
    }

    fn wants_cut(&self, open: &Open, frame: &Frame) -> bool {
        let length = frame.dts.saturating_since(open.start);
        self.split
            || self.recording.segment_duration.is_some_and(|limit| length >= limit)
            || self.recording.segment_bytes.is_some_and(|limit| open.pushed_bytes >= limit)
    }

    fn begin(&mut self, tracks: &Arc<[Track]>, frame: &Frame) -> Result<Option<Open>, RecordError> {
        let options = FragmenterOptions { part_duration: self.recording.part_duration };
        let fragmenter = Fragmenter::new(tracks, options)?;
        let main = fragmenter.main_track();
        if frame.track != main || !frame.keyframe {
            return Ok(None);
        }
        self.split = false;
        self.number += 1;
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
        }))
    }

    /// Closes the segment. `next` is the decoding time of the main track's frame that follows directly.
    async fn close(&mut self, next: Option<MediaTime>) -> Result<(), RecordError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if let Some(part) = open.fragmenter.finish(next)? {
            self.write(&mut open, part).await?;
        }
        let path = match open.output {
            None => return Ok(()), // never got a frame
            Some(Output::File(mut file)) => {
                if let Some(patch) = open.patch {
                    file.patch(patch.offset(), patch.bytes(open.duration)).await?;
                }
                file.path().to_owned()
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
        let output = match &mut open.output {
            Some(output) => output,
            none => none.insert(self.create(&mut open.wall_clock).await?),
        };
        let (bytes, duration, frames) = (part.len_bytes(), part.duration, part.frames as u64);
        open.patch = part.duration_patch.or(open.patch);
        let chunks = part.chunks().cloned().collect::<Vec<_>>();
        let result = match output {
            Output::File(file) => file.append(chunks).await,
            Output::Stream(lane, writer) => {
                let writer = writer.clone();
                let written = lane.run(move || {
                    let mut out = writer.lock();
                    crate::storage::write_all(&mut *out, &chunks).and_then(|_| out.flush())
                });
                let at = PathBuf::from("the output stream");
                written.await.and_then(|result| result.map_err(StorageError::at(&at)))
            }
        };
        if let Err(error) = result {
            if open.written_bytes == 0
                && let Some(Output::File(file)) = open.output.take()
            {
                file.remove().await;
            }
            return Err(error.into());
        }
        open.written_bytes += bytes;
        open.duration += duration;
        open.frames += frames;
        self.shared.wrote(bytes, duration, frames);
        Ok(())
    }

    /// Creates the segment's file. A name that is taken (the clock was set back) is moved on by a
    /// millisecond until it is free; nothing is ever overwritten.
    async fn create(&self, wall_clock: &mut WallTime) -> Result<Output, RecordError> {
        let lane = self.pool.lane();
        match &self.recording.destination {
            Some(Destination::Stream(writer)) => {
                self.shared.segment_started(PathBuf::new());
                Ok(Output::Stream(lane, writer.clone()))
            }
            Some(Destination::File { path, overwrite }) => {
                let path = numbered(path, self.number);
                let file = SegmentFile::create(lane, path.clone(), *overwrite).await?;
                self.shared.segment_started(path);
                Ok(Output::File(file))
            }
            destination => {
                let folder = match destination {
                    Some(Destination::Folder(folder)) => folder.clone(),
                    _ => PathBuf::from("."),
                };
                let mut steps = 0;
                loop {
                    let path = folder.join(segment_file_name(*wall_clock, self.recording.format));
                    match SegmentFile::create(lane.clone(), path.clone(), false).await {
                        Ok(file) => {
                            self.shared.segment_started(path);
                            return Ok(Output::File(file));
                        }
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
        self.tracks = Some(tracks);
        self.close(None).await
    }

    async fn frame(&mut self, mut frame: Frame) -> Result<(), RecordError> {
        let Some(tracks) = self.tracks.clone() else { return Ok(()) };
        if let Some(open) = self.open.take() {
            let kept = self.shift_times(&mut frame, &open);
            let cut = kept && frame.track == open.main && frame.keyframe && self.wants_cut(&open, &frame);
            self.open = Some(open);
            if !kept {
                return Ok(());
            }
            if cut {
                self.close(Some(frame.dts)).await?;
            }
        }
        if self.open.is_none() {
            self.open = self.begin(&tracks, &frame)?;
        }
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.pushed_bytes += frame.data.len() as u64;
        let length = Duration::from_millis(20);
        self.end = self.end.max(Some(frame.dts + length));
        // On an error the segment stays closed: what is on disk ends with a whole part.
        if let Some(part) = open.fragmenter.push(frame)? {
            self.write(&mut open, part).await?;
        }
        self.open = Some(open);
        Ok(())
    }

    async fn gap(&mut self) -> Result<(), RecordError> {
        if self.one_file() { Ok(()) } else { self.close(None).await }
    }

    async fn pause(&mut self) -> Result<(), RecordError> {
        if self.one_file() {
            self.resuming = true;
            Ok(())
        } else {
            self.close(None).await
        }
    }

    fn paused_frame(&mut self, _: &Frame) {}

    fn resume(&mut self) {}

    fn split(&mut self) {
        self.split = true;
    }

    async fn finish(&mut self) -> Result<(), RecordError> {
        self.close(None).await
    }
}
