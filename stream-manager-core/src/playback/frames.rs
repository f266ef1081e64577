//! A plan's access units, one by one: for whoever sends or encodes them instead of bytes.

use super::PlaybackError;
use super::archive::file_error;
use super::follow::Follower;
use super::plan::{Plan, main_of};
use super::read::PlanReader;
use crate::fmp4::{FileHead, FragmentSample, read_samples};
use crate::frame::{CodecParameters, Frame, MediaTime, Track, TrackId, WallTime};
use bytes::Bytes;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Frames that are held at most while a place is looked for: a GOP, and what lies between two places that are known.
const MAX_HELD: usize = 100_000;

/// No frame is shown so much later than it is decoded.
const REORDERED: Duration = Duration::from_secs(2);

/// A track of a plan: its id in the files, its timescale, its number among the frames' tracks.
#[derive(Clone, Debug)]
struct Lane {
    id: u32,
    timescale: u32,
    track: TrackId,
    parameters: Arc<CodecParameters>,
}

/// The frames of a [`Plan`], in the order of decoding; and, with a [`Follower`], of what is recorded behind it. Their times count from the
/// plan's beginning, their wall clock is that of the recording.
///
/// ```no_run
/// # use stream_manager_core::playback::{Plan, PlaybackError, PlanFrames};
/// # async fn example(plan: Plan) -> Result<(), PlaybackError> {
/// let mut frames = PlanFrames::new(plan, None)?;
/// while let Some(frame) = frames.next().await? {
///     println!("{} {} bytes at {}", frame.codec(), frame.data.len(), frame.wall_clock);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PlanFrames {
    plan: Arc<Plan>,
    lanes: Vec<Lane>,
    tracks: Arc<[Track]>,
    /// The number of the track that plans are counted on.
    main: TrackId,
    reader: Option<PlanReader>,
    follower: Option<Follower>,
    queue: VecDeque<Frame>,
}

impl PlanFrames {
    /// The frames of a plan, and what follows it.
    ///
    /// # Errors
    /// If none of its codecs is known.
    pub fn new(plan: Plan, follower: Option<Follower>) -> Result<Self, PlaybackError> {
        let failed = |problem: &str| file_error(Path::new("a recording"), problem);
        let head = FileHead::parse(&plan.head).ok_or_else(|| failed("its head cannot be read"))?;
        let parameters = head.parameters();
        let lane = |(number, scanned): (u32, &crate::fmp4::ScannedTrack)| {
            let (_, parameters) = parameters.iter().find(|(id, _)| *id == scanned.id)?;
            let (id, timescale) = (scanned.id, scanned.timescale);
            Some(Lane { id, timescale, track: TrackId(number), parameters: Arc::new(parameters.clone()) })
        };
        let mut lanes: Vec<Lane> = (0..).zip(&head.tracks).filter_map(lane).collect();
        for (number, lane) in (0..).zip(&mut lanes) {
            lane.track = TrackId(number);
        }
        let main = main_of(&head).and_then(|main| lanes.iter().find(|lane| lane.id == main.id));
        let main = main.ok_or_else(|| failed("its codecs are not known"))?.track;
        let tracks =
            lanes.iter().map(|lane| Track { id: lane.track, parameters: lane.parameters.clone() }).collect();
        let plan = Arc::new(plan);
        let reader = Some(Self::reader_at(&plan, 0));
        Ok(Self { plan, lanes, tracks, main, reader, follower, queue: VecDeque::new() })
    }

    /// Its tracks. Frames have their numbers.
    pub fn tracks(&self) -> &Arc<[Track]> {
        &self.tracks
    }

    /// The track whose keyframes one can begin with: the first one with pictures, else the first.
    pub fn main(&self) -> TrackId {
        self.main
    }

    /// What it reads.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Reads from this byte of the fragments on.
    fn reader_at(plan: &Arc<Plan>, at: u64) -> PlanReader {
        let head = plan.head.len() as u64;
        PlanReader::new(plan.clone(), head + at..plan.length_bytes())
    }

    /// The next frame; `None` at the end. May be cancelled.
    ///
    /// # Errors
    /// If a file is gone, or damaged.
    pub async fn next(&mut self) -> Result<Option<Frame>, PlaybackError> {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return Ok(Some(frame));
            }
            let Some((data, clock)) = self.bytes().await? else { return Ok(None) };
            let fragments = read_samples(&data)
                .ok_or_else(|| file_error(Path::new("a recording"), "its samples cannot be read"))?;
            fragments.into_iter().for_each(|samples| self.take(samples, clock));
        }
    }

    /// Whole fragments of one file, and their wall clock less their time, in nanoseconds.
    async fn bytes(&mut self) -> Result<Option<(Bytes, i64)>, PlaybackError> {
        if let Some(reader) = &self.reader {
            // What is cancelled in the midst of reading is read again.
            let mut reading = reader.clone();
            let read = tokio::task::spawn_blocking(move || {
                let data = reading.read()?;
                Ok::<_, std::io::Error>((reading, data))
            });
            let failed = |e: &dyn std::fmt::Display| file_error(Path::new("a recording"), e);
            let (reader, data) = read.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
            let clock = reader.clock_nanos().unwrap_or_else(|| self.plan.start().as_unix_nanos());
            self.reader = Some(reader);
            if let Some(data) = data {
                return Ok(Some((data, clock)));
            }
            self.reader = None;
        }
        let Some(follower) = &mut self.follower else { return Ok(None) };
        let data = follower.next().await?;
        let clock = follower.clock_nanos().or(self.plan.files.last().map(|file| file.clock_nanos));
        Ok(data.zip(clock))
    }

    fn take(&mut self, samples: Vec<FragmentSample>, clock: i64) {
        let nanos = |ticks: i64, timescale: u32| MediaTime::from_ticks(ticks, timescale).as_nanos();
        let signed = |ticks: u64| i64::try_from(ticks).unwrap_or(i64::MAX);
        let from = self.queue.len();
        for sample in samples {
            let Some(lane) = self.lanes.iter().find(|lane| lane.id == sample.track) else { continue };
            let start = signed(sample.start);
            let dts = nanos(start, lane.timescale);
            self.queue.push_back(Frame {
                track: lane.track,
                parameters: lane.parameters.clone(),
                pts: MediaTime::from_nanos(nanos(start.saturating_add(sample.composition), lane.timescale)),
                dts: MediaTime::from_nanos(dts),
                wall_clock: WallTime::from_unix_nanos(clock.saturating_add(dts)),
                ntp: None,
                keyframe: sample.sync || lane.parameters.video().is_none(),
                data: sample.data,
            });
        }
        // Fragments have their tracks one behind the other.
        self.queue.make_contiguous()[from..].sort_by_key(|frame| frame.dts);
    }

    /// Goes to the keyframe at or before a time of the plan. What follows behind the plan can only be come to by reading on.
    ///
    /// # Errors
    /// If a file is gone, or damaged.
    pub async fn seek(&mut self, to: Duration) -> Result<(), PlaybackError> {
        // Keyframes are known by when they are decoded; shown they are later.
        let (at, _) = self.plan.place_before(to.saturating_sub(REORDERED));
        self.reader = Some(Self::reader_at(&self.plan, at));
        self.queue.clear();
        let to = MediaTime::ZERO + to;
        let mut held: VecDeque<Frame> = VecDeque::new();
        let mut begun = false;
        while let Some(frame) = self.next().await? {
            if frame.track == self.main && (frame.keyframe || begun) {
                if frame.pts > to && begun && (frame.keyframe || frame.dts > to) {
                    held.push_back(frame);
                    break;
                }
                if frame.keyframe {
                    begun = true;
                    // Sound that goes with it may lie in front of it.
                    let first = frame.dts;
                    held.retain(|held| held.track != frame.track && held.dts >= first);
                }
            }
            held.push_back(frame);
            if held.len() >= MAX_HELD {
                break;
            }
        }
        held.append(&mut self.queue);
        self.queue = held;
        Ok(())
    }
}
