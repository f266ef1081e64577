//! Frames in, whole fragments out.
//!
//! A sample's duration is the distance to the next one's decoding time, so each track holds back its
//! last frame until the next arrives; [`Fragmenter::finish`] gives the very last one the length of the
//! one before. All times are relative to the earliest decoding time of the segment's first part, and an
//! edit list moves the earliest *presentation* to zero, by the same amount in all tracks, so sound and
//! picture stay in step and B frames need no negative times.

use super::init::{DurationPatch, InitTrack, can_hold, write_init};
use super::{Fmp4Error, SYNC, SegmentIdentity};
use crate::frame::{CodecParameters, Frame, MediaKind, MediaTime, Track, TrackId, WallTime};
use bytes::Bytes;
use mp4_atom as mp4;
use mp4_atom::Encode;
use std::collections::VecDeque;
use std::time::Duration;

/// `sample_depends_on` = 1, `sample_is_non_sync_sample` = 1.
const NON_SYNC: u32 = 0x0101_0000;

/// Settings of a fragmenter.
#[derive(Clone, Copy, Debug)]
pub struct FragmenterOptions {
    /// How much media a part holds, counted on the main track.
    pub part_duration: Duration,
    /// Whether a keyframe begins another part even if the one before is shorter, so that whoever seeks finds it at the
    /// beginning of a part. Where every frame is a keyframe, parts have their length all the same.
    pub cut_at_keyframes: bool,
}

impl Default for FragmenterOptions {
    /// Parts of one second, cut at keyframes.
    fn default() -> Self {
        Self { part_duration: Duration::from_secs(1), cut_at_keyframes: true }
    }
}

/// A whole fragment: `prft`, `moof` and `mdat`, and with the first one `ftyp` and `moov`.
#[derive(Clone, Debug)]
pub struct Part {
    /// The initialization segment, with the first part of a segment.
    pub init: Option<Bytes>,
    /// Where to write the segment's duration when it is complete, with the first part of a segment.
    pub duration_patch: Option<DurationPatch>,
    /// Everything in front of the payload.
    pub header: Bytes,
    /// The frames' payloads, in the order in which `mdat` holds them.
    pub payload: Vec<Bytes>,
    /// Decoding time of the main track's first frame.
    pub start: MediaTime,
    /// Wall clock of the main track's first frame: the local one, because cameras' clocks are often wrong
    /// and a recording's files must agree with each other.
    pub wall_clock: WallTime,
    /// Length of the main track in this part.
    pub duration: Duration,
    /// Whether the main track's first frame is a keyframe.
    pub keyframe: bool,
    /// Number of frames.
    pub frames: usize,
}

impl Part {
    /// The bytes to write, in order, none of them copied.
    pub fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        self.init.iter().chain(std::iter::once(&self.header)).chain(self.payload.iter())
    }

    /// How many bytes that is.
    pub fn len_bytes(&self) -> u64 {
        self.chunks().map(|c| c.len() as u64).sum()
    }
}

/// Makes one segment's parts.
#[derive(Debug)]
pub struct Fragmenter {
    tracks: Vec<TrackState>,
    /// Index of the track that parts are counted on: the first video track, else the first.
    main: usize,
    part_nanos: i64,
    cut_at_keyframes: bool,
    sequence: u32,
    /// Decoding time that the file calls zero; known once the first part is made.
    base: Option<MediaTime>,
    /// Appended to the initialization segment.
    identity: Vec<u8>,
    /// `track_ID` of the first track.
    first_id: u32,
}

#[derive(Debug)]
struct TrackState {
    id: TrackId,
    parameters: std::sync::Arc<CodecParameters>,
    timescale: u32,
    /// Frames not yet written; the last one's duration is not known yet.
    pending: VecDeque<Frame>,
    /// Length of the last sample written, in ticks.
    last_duration: Option<u32>,
}

impl TrackState {
    fn ticks(&self, time: MediaTime, base: MediaTime) -> i64 {
        MediaTime::from_nanos(time.as_nanos().saturating_sub(base.as_nanos())).to_ticks(self.timescale)
    }
}

impl Fragmenter {
    /// A fragmenter for a segment of these tracks. Tracks that MP4 cannot store are left out.
    ///
    /// # Errors
    /// If no track can be stored, or a decoder configuration is not usable.
    pub fn new(tracks: &[Track], options: FragmenterOptions) -> Result<Self, Fmp4Error> {
        let states: Vec<TrackState> = tracks
            .iter()
            .filter(|t| can_hold(&t.parameters))
            .map(|t| TrackState {
                id: t.id,
                parameters: t.parameters.clone(),
                timescale: t.parameters.clock_rate(),
                pending: VecDeque::new(),
                last_duration: None,
            })
            .collect();
        if states.is_empty() {
            return Err(Fmp4Error::NoTracks { tracks: tracks.len() });
        }
        let main = states.iter().position(|t| t.parameters.kind() == MediaKind::Video).unwrap_or(0);
        let part_nanos = i64::try_from(options.part_duration.as_nanos()).unwrap_or(i64::MAX);
        let fragmenter = Self {
            tracks: states,
            main,
            part_nanos,
            cut_at_keyframes: options.cut_at_keyframes,
            sequence: 0,
            base: None,
            identity: Vec::new(),
            first_id: 1,
        };
        // Finds a bad configuration now, not when the first part is due.
        fragmenter.init(&[], MediaTime::ZERO, WallTime::from_unix_nanos(0))?;
        Ok(fragmenter)
    }

    /// A fragmenter of one track for [CMAF](https://www.iso.org/standard/85623.html) (ISO/IEC 23000-19): its fragments have
    /// this `track_ID` and the frames' own times, and go with the [`init_segment`](super::init_segment) of such tracks.
    /// It makes no part by itself: [`finish`](Self::finish) makes one of what has been pushed since the last.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn cmaf(track: &Track, id: u32) -> Result<Self, Fmp4Error> {
        let options = FragmenterOptions { part_duration: Duration::MAX, cut_at_keyframes: false };
        let fragmenter = Self::new(std::slice::from_ref(track), options)?;
        Ok(Self { base: Some(MediaTime::ZERO), first_id: id, ..fragmenter })
    }

    /// Writes into the file which stream and which time it belongs to.
    ///
    /// # Errors
    /// If that is too much to say.
    pub fn set_identity(&mut self, identity: &SegmentIdentity) -> Result<(), Fmp4Error> {
        self.identity = identity.to_box()?;
        Ok(())
    }

    /// The track that parts and segments are counted on.
    pub fn main_track(&self) -> TrackId {
        self.tracks[self.main].id
    }

    /// Adds a frame and returns the part that it completes, if it does. Frames of tracks that are not
    /// stored are ignored.
    ///
    /// # Errors
    /// If a part cannot be said in MP4; its frames are lost, the next part is a new start.
    pub fn push(&mut self, frame: Frame) -> Result<Option<Part>, Fmp4Error> {
        let Some(index) = self.tracks.iter().position(|t| t.id == frame.track) else {
            return Ok(None);
        };
        let dts = frame.dts;
        let first = self.tracks[self.main].pending.front();
        let complete = first.is_some_and(|first| {
            if self.cut_at_keyframes && index == self.main && frame.keyframe && !first.keyframe {
                return true;
            }
            let length = dts.as_nanos().saturating_sub(first.dts.as_nanos());
            // Another track that has run far ahead means that the main one has stalled.
            let enough = if index == self.main { self.part_nanos } else { self.part_nanos.saturating_mul(3) };
            length >= enough
        });
        self.tracks[index].pending.push_back(frame);
        if complete { self.make_part(Some(index), None) } else { Ok(None) }
    }

    /// Writes what is left. `next` is the decoding time of the main track's frame that follows in the
    /// next segment, if there is one: it gives the last frame its exact length.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self, next: Option<MediaTime>) -> Result<Option<Part>, Fmp4Error> {
        self.make_part(None, next)
    }

    /// Decoding time of the first frame that is not yet in a part, on the main track.
    pub fn pending_since(&self) -> Option<MediaTime> {
        self.tracks[self.main].pending.front().map(|f| f.dts)
    }

    /// Takes the samples whose durations are known, or all of them at the end of the segment.
    fn make_part(
        &mut self,
        opened_by: Option<usize>,
        next: Option<MediaTime>,
    ) -> Result<Option<Part>, Fmp4Error> {
        let at_end = opened_by.is_none();
        let runs: Vec<Vec<Frame>> = self
            .tracks
            .iter_mut()
            .map(|t| {
                let keep = usize::from(!at_end).min(t.pending.len());
                t.pending.drain(..t.pending.len() - keep).collect()
            })
            .collect();
        let Some(first) = runs[self.main].first().or_else(|| runs.iter().flatten().next()) else {
            return Ok(None);
        };
        let (start, wall_clock, keyframe) = (first.dts, first.wall_clock, first.keyframe);
        let mut init = None;
        let base = match self.base {
            Some(base) => base,
            None => {
                let base = runs.iter().filter_map(|run| run.first()).map(|f| f.dts).min().unwrap_or(start);
                init = Some(self.init(&runs, base, wall_clock)?);
                self.base = Some(base);
                base
            }
        };
        let durations: Vec<Vec<u32>> = (0..runs.len())
            .map(|i| self.durations(i, &runs[i], base, next.filter(|_| i == self.main)))
            .collect();
        let header = self.write_header(&runs, &durations, base)?;
        let main_ticks: u64 = durations[self.main].iter().map(|d| u64::from(*d)).sum();
        let duration =
            Duration::from_nanos(main_ticks * 1_000_000_000 / u64::from(self.tracks[self.main].timescale));
        let (init, duration_patch) = init.map_or((None, None), |(bytes, patch)| (Some(bytes), patch));
        Ok(Some(Part {
            init,
            duration_patch,
            header,
            frames: runs.iter().map(Vec::len).sum(),
            payload: runs.into_iter().flatten().map(|f| f.data).collect(),
            start,
            wall_clock,
            duration,
            keyframe,
        }))
    }

    fn durations(
        &mut self,
        index: usize,
        run: &[Frame],
        base: MediaTime,
        next: Option<MediaTime>,
    ) -> Vec<u32> {
        let track = &self.tracks[index];
        let following = track.pending.front().map(|f| f.dts).or(next);
        let ends = run.iter().skip(1).map(|f| Some(f.dts)).chain(std::iter::once(following));
        let mut last = track.last_duration;
        let durations: Vec<u32> = run
            .iter()
            .zip(ends)
            .map(|(frame, end)| {
                let known = end.map(|end| track.ticks(end, base) - track.ticks(frame.dts, base));
                let ticks = known.map_or_else(
                    || last.unwrap_or_else(|| track.parameters.usual_ticks(frame.data.len())),
                    |ticks| u32::try_from(ticks).unwrap_or(if ticks < 0 { 0 } else { u32::MAX }),
                );
                last = Some(ticks);
                ticks
            })
            .collect();
        self.tracks[index].last_duration = last;
        durations
    }

    fn init(
        &self,
        runs: &[Vec<Frame>],
        base: MediaTime,
        wall_clock: WallTime,
    ) -> Result<(Bytes, Option<DurationPatch>), Fmp4Error> {
        let earliest = runs.iter().flatten().map(|f| f.pts).min().unwrap_or(base).max(base);
        let tracks: Vec<InitTrack<'_>> = (1..)
            .zip(&self.tracks)
            .map(|(id, t)| InitTrack {
                id,
                timescale: t.timescale,
                parameters: &t.parameters,
                media_time: u64::try_from(t.ticks(earliest, base)).unwrap_or(0),
            })
            .collect();
        write_init(&tracks, Some(wall_clock), &self.identity)
    }

    /// `prft`, `moof` and the head of `mdat`.
    fn write_header(
        &mut self,
        runs: &[Vec<Frame>],
        durations: &[Vec<u32>],
        base: MediaTime,
    ) -> Result<Bytes, Fmp4Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let sizes: Vec<u64> = runs.iter().map(|run| run.iter().map(|f| f.data.len() as u64).sum()).collect();
        let total: u64 = sizes.iter().sum();
        if total > u64::from(u32::MAX) - 8 || runs.iter().any(|run| run.len() > u32::MAX as usize) {
            return Err(Fmp4Error::TooLarge { bytes: total });
        }
        let mut moof = mp4::Moof { mfhd: mp4::Mfhd { sequence_number: self.sequence }, traf: Vec::new() };
        let mut payload_offsets = Vec::new();
        let mut offset = 0u64;
        for (index, run) in runs.iter().enumerate() {
            if let Some(first) = run.first() {
                moof.traf.push(self.traf(index, first, run, &durations[index], base));
                payload_offsets.push(offset);
            }
            offset += sizes[index];
        }
        let mut header = Vec::with_capacity(512);
        self.write_prft(&mut header, runs, base)?;
        let moof_at = header.len();
        moof.encode(&mut header)?;
        // The offsets count from the start of moof and depend on its size, which does not depend on them.
        let moof_len = (header.len() - moof_at) as u64;
        for (traf, payload_offset) in moof.traf.iter_mut().zip(payload_offsets) {
            let from_moof = moof_len + 8 + payload_offset;
            let data_offset = i32::try_from(from_moof).map_err(|_| Fmp4Error::TooLarge { bytes: total })?;
            if let Some(trun) = traf.trun.first_mut() {
                trun.data_offset = Some(data_offset);
            }
        }
        header.truncate(moof_at);
        moof.encode(&mut header)?;
        header.extend_from_slice(&(total as u32 + 8).to_be_bytes());
        header.extend_from_slice(b"mdat");
        Ok(header.into())
    }

    fn traf(
        &self,
        index: usize,
        first: &Frame,
        run: &[Frame],
        durations: &[u32],
        base: MediaTime,
    ) -> mp4::Traf {
        let track = &self.tracks[index];
        let video = track.parameters.kind() == MediaKind::Video;
        let shared = durations.first().copied().filter(|first| durations.iter().all(|d| d == first));
        let offsets: Vec<i64> =
            run.iter().map(|f| track.ticks(f.pts, base) - track.ticks(f.dts, base)).collect();
        let reordered = offsets.iter().any(|o| *o != 0);
        // Only keyframes need flags of their own, and usually only the first frame is one.
        let later_key = video && run.iter().skip(1).any(|f| f.keyframe);
        let entries: Vec<mp4::TrunEntry> = run
            .iter()
            .enumerate()
            .map(|(i, f)| mp4::TrunEntry {
                duration: shared.is_none().then(|| durations[i]),
                size: Some(f.data.len() as u32),
                flags: (video && (later_key || (i == 0 && f.keyframe))).then_some(if f.keyframe {
                    SYNC
                } else {
                    NON_SYNC
                }),
                cts: reordered.then(|| offsets[i]),
            })
            .collect();
        mp4::Traf {
            tfhd: mp4::Tfhd {
                track_id: index as u32 + self.first_id,
                default_base_is_moof: true,
                default_sample_duration: shared,
                default_sample_flags: Some(if video { NON_SYNC } else { SYNC }),
                ..Default::default()
            },
            tfdt: Some(mp4::Tfdt {
                // A frame of another track that arrives late and lies before the start is put at it.
                base_media_decode_time: u64::try_from(track.ticks(first.dts, base)).unwrap_or(0),
            }),
            trun: vec![mp4::Trun { data_offset: Some(0), samples: entries.into() }],
            ..Default::default()
        }
    }

    /// The wall clock of the part's first frame, ISO/IEC 14496-12 section 8.16.5.
    fn write_prft(&self, out: &mut Vec<u8>, runs: &[Vec<Frame>], base: MediaTime) -> Result<(), Fmp4Error> {
        if let Some(first) = runs[self.main].first() {
            mp4::Prft {
                reference_track_id: self.main as u32 + self.first_id,
                ntp_timestamp: first.wall_clock.to_ntp(),
                media_time: u64::try_from(self.tracks[self.main].ticks(first.pts, base)).unwrap_or(0),
                utc_time_semantics: mp4::ReferenceTime::Output,
            }
            .encode(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
