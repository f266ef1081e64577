//! Frames into a file of fragmented MP4, as the recorder writes it.

use crate::fmp4::{DurationPatch, Fragmenter, FragmenterOptions};
use crate::frame::{CodecParameters, Frame, MediaTime, Track, TrackId, WallTime};
use crate::playback::PlaybackError;
use crate::playback::archive::file_error;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Writes one file. The tracks are known when the first picture comes, since that may be encoded anew.
pub(super) struct FrameWriter {
    path: PathBuf,
    /// The tracks of sound that go along.
    sound: Vec<Track>,
    main: TrackId,
    open: Option<Open>,
    /// Sound that waits for the pictures before it.
    waiting: VecDeque<Frame>,
    bytes: u64,
    start: Option<WallTime>,
}

struct Open {
    file: Arc<File>,
    fragmenter: Fragmenter,
    parameters: Arc<CodecParameters>,
    patch: Option<DurationPatch>,
    duration: Duration,
}

impl FrameWriter {
    pub(super) fn new(path: &Path, main: TrackId, sound: Vec<Track>) -> Self {
        Self {
            path: path.to_owned(),
            sound,
            main,
            open: None,
            waiting: VecDeque::new(),
            bytes: 0,
            start: None,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The time of the first picture.
    pub(super) fn start(&self) -> Option<WallTime> {
        self.start
    }

    /// Adds a frame of sound, which is written with the pictures around it.
    pub(super) fn sound(&mut self, frame: Frame) {
        if self.sound.iter().any(|track| track.id == frame.track) {
            self.waiting.push_back(frame);
        }
    }

    /// Adds a picture, shown at this time.
    pub(super) async fn picture(&mut self, frame: Frame, shown: WallTime) -> Result<(), PlaybackError> {
        let until = frame.dts;
        if self.open.is_none() {
            self.start = Some(shown);
            // Sound from before the first picture has none that it belongs to.
            let first = frame.pts;
            self.waiting.retain(|sound| sound.pts >= first);
            self.open = Some(self.begin(&frame.parameters).await?);
        }
        if self.open.as_ref().is_some_and(|open| *open.parameters != *frame.parameters) {
            return Err(file_error(&self.path, "its pictures are not all encoded alike"));
        }
        while self.waiting.front().is_some_and(|sound| sound.dts <= until)
            && let Some(sound) = self.waiting.pop_front()
        {
            self.push(sound).await?;
        }
        self.push(frame).await
    }

    async fn begin(&self, parameters: &Arc<CodecParameters>) -> Result<Open, PlaybackError> {
        let failed = |e: &dyn std::fmt::Display| file_error(&self.path, e);
        let main = Track { id: self.main, parameters: parameters.clone() };
        let tracks: Vec<Track> = std::iter::once(main).chain(self.sound.iter().cloned()).collect();
        let fragmenter = Fragmenter::new(&tracks, FragmenterOptions::default()).map_err(|e| failed(&e))?;
        let path = self.path.clone();
        let created = tokio::task::spawn_blocking(move || File::create(path)).await;
        let file = created.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let parameters = parameters.clone();
        Ok(Open { file: Arc::new(file), fragmenter, parameters, patch: None, duration: Duration::ZERO })
    }

    async fn push(&mut self, frame: Frame) -> Result<(), PlaybackError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let part = open.fragmenter.push(frame).map_err(|e| file_error(&self.path, e))?;
        self.write(part).await
    }

    async fn write(&mut self, part: Option<crate::fmp4::Part>) -> Result<(), PlaybackError> {
        let (Some(part), Some(open)) = (part, &mut self.open) else { return Ok(()) };
        open.patch = open.patch.or(part.duration_patch);
        open.duration += part.duration;
        self.bytes += part.len_bytes();
        let chunks: Vec<Bytes> = part.chunks().cloned().collect();
        let file = open.file.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let mut file = &*file;
            chunks.iter().try_for_each(|chunk| file.write_all(chunk))
        });
        let failed = |e: &dyn std::fmt::Display| file_error(&self.path, e);
        writing.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
    }

    /// Writes the rest. False if there was nothing at all.
    pub(super) async fn finish(mut self) -> Result<bool, PlaybackError> {
        for sound in std::mem::take(&mut self.waiting) {
            self.push(sound).await?;
        }
        let Some(open) = &mut self.open else { return Ok(false) };
        let last = open.fragmenter.finish(None::<MediaTime>).map_err(|e| file_error(&self.path, e))?;
        self.write(last).await?;
        let Some(open) = self.open.take() else { return Ok(false) };
        let finishing = tokio::task::spawn_blocking(move || {
            if let Some(patch) = open.patch {
                open.file.write_all_at(&patch.bytes(open.duration), patch.offset())?;
            }
            open.file.sync_all()
        });
        let failed = |e: &dyn std::fmt::Display| file_error(&self.path, e);
        finishing.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        Ok(true)
    }
}
