//! Recordings that leave: a plan written into a file, whole or not at all.
//!
//! As it is, a plan begins with the keyframe before its start and nothing of it is encoded anew: its bytes are copied, or put into another
//! container. [`ExportOptions::exact`] begins and ends with the very picture, by encoding the GOPs at its edges anew (`exact`); a time-lapse,
//! and times burnt in, encode all pictures (`encode`). What is encoded is first written as fragmented MP4 beside the result (`write`), and
//! goes from there the same way as a plan of recordings.

mod encode;
mod exact;
mod recode;
mod write;

use super::archive::file_error;
use super::plan::{Plan, PlanEnd};
use super::remux::remux_into;
use super::{Container, PlainPlan, PlainReader, PlanFrames, PlanReader, PlaybackError};
use crate::frame::WallTime;
use crate::storage::index::TimeRange;
use bytes::Bytes;
use encode::Work;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use write::FrameWriter;

/// The slowest and the fastest that an export may be shown.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.1..=10_000.0;

/// So much of a file is read at once.
const PIECE_BYTES: usize = 512 << 10;

/// The container of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// MP4 as every program reads it, with all that is known of its samples in front.
    #[default]
    Mp4,
    /// Fragmented MP4, as it is recorded.
    Fmp4,
    /// MPEG transport stream.
    Ts,
    /// Matroska.
    Mkv,
}

impl ExportFormat {
    /// By the end of a file's name; `None` if it is none of these.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "mp4" | "m4v" | "mov" => Some(Self::Mp4),
            "ts" | "m2ts" => Some(Self::Ts),
            "mkv" => Some(Self::Mkv),
            _ => None,
        }
    }

    /// The usual end of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Mp4 | Self::Fmp4 => "mp4",
            Self::Ts => "ts",
            Self::Mkv => "mkv",
        }
    }
}

/// What an export is to be like.
///
/// ```
/// # use stream_manager_core::playback::{ExportFormat, ExportOptions};
/// let options = ExportOptions { format: ExportFormat::Mkv, exact: true, ..ExportOptions::default() };
/// assert!(options.check().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// The container.
    pub format: ExportFormat,
    /// Begins and ends with the picture at these times, instead of with a keyframe: the GOPs at the edges are encoded anew (of H.264; of
    /// other codecs all pictures are).
    pub exact: bool,
    /// A time-lapse: so many times as fast, without sound, 25 pictures a second. All pictures are encoded anew.
    #[schemars(range(min = 0.1, max = 10_000.0))]
    pub speed: Option<f64>,
    /// Writes the time of each picture into it, in this time zone, such as `UTC` or `Europe/Berlin`. All pictures are encoded anew.
    pub burn_time: Option<TimeZoneName>,
    /// Replaces a file that is there.
    #[serde(skip)]
    pub overwrite: bool,
}

/// A time zone that is known here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeZoneName {
    name: String,
    zone: jiff::tz::TimeZone,
}

impl TimeZoneName {
    fn zone(&self) -> &jiff::tz::TimeZone {
        &self.zone
    }
}

/// No time zone that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no time zone that is known here; expected UTC, local, or a name such as Europe/Berlin")]
pub struct UnknownTimeZone(String);

impl std::str::FromStr for TimeZoneName {
    type Err = UnknownTimeZone;

    fn from_str(name: &str) -> Result<Self, UnknownTimeZone> {
        let zone = match name {
            "UTC" => jiff::tz::TimeZone::UTC,
            "local" => jiff::tz::TimeZone::system(),
            other => jiff::tz::TimeZone::get(other)
                .map_err(|_| UnknownTimeZone(other.chars().take(60).collect()))?,
        };
        Ok(Self { name: name.to_owned(), zone })
    }
}

impl TryFrom<String> for TimeZoneName {
    type Error = UnknownTimeZone;

    fn try_from(name: String) -> Result<Self, UnknownTimeZone> {
        name.parse()
    }
}

impl From<TimeZoneName> for String {
    fn from(zone: TimeZoneName) -> Self {
        zone.name
    }
}

impl schemars::JsonSchema for TimeZoneName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TimeZone".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "examples": ["UTC", "local", "Europe/Berlin"]})
    }
}

impl ExportOptions {
    /// Whether they make sense.
    ///
    /// # Errors
    /// Names the key, and says what would be right.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match self.speed {
            Some(speed) if !SPEEDS.contains(&speed) => {
                let (least, most) = (SPEEDS.start(), SPEEDS.end());
                Err(("speed", format!("speed is {speed}; expected {least} to {most}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether anything is encoded anew.
    fn encodes(&self) -> bool {
        self.exact || self.speed.is_some() || self.burn_time.is_some()
    }
}

/// How far an export is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExportProgress {
    /// From 0 to 1.
    pub done: f64,
    /// What has been written so far.
    pub bytes: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Export {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
    /// Wall clock of its first picture.
    pub start: WallTime,
    /// Wall clock of where it ends in what was recorded.
    pub end: WallTime,
    /// Its length in seconds.
    pub duration_secs: f64,
    /// Where to begin for the rest, if it ends before what was asked for: at a gap, or where it is encoded differently.
    pub next: Option<WallTime>,
}

/// A file that is removed again unless it is finished.
struct Unfinished {
    path: PathBuf,
    kept: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing else can be done about it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Tells how far it is, and hears whether it is to go on.
struct Telling<'a> {
    tell: &'a mut (dyn FnMut(ExportProgress) + Send),
    cancel: &'a CancellationToken,
    /// What part of the whole this is.
    share: (f64, f64),
}

impl Telling<'_> {
    fn tell(&mut self, done: f64, bytes: u64) -> Result<(), PlaybackError> {
        if self.cancel.is_cancelled() {
            return Err(PlaybackError::GivenUp);
        }
        let (from, to) = self.share;
        (self.tell)(ExportProgress { done: from + (to - from) * done.clamp(0.0, 1.0), bytes });
        Ok(())
    }
}

fn beside(path: &Path, what: &str) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(what);
    Some(path.with_file_name(name))
}

/// Writes what a plan of a range has into a file, under another name until it is whole. `progress` is told how far it is.
///
/// ```no_run
/// # use stream_manager_core::playback::{Archive, ExportOptions, Gaps, PlaybackError, PlaybackRequest, export};
/// # use stream_manager_core::storage::index::TimeRange;
/// # async fn example(archive: Archive, range: TimeRange) -> Result<(), PlaybackError> {
/// let request = PlaybackRequest { start: range.start, end: Some(range.end), gaps: Gaps::Skip };
/// let plan = archive.plan("door", request).await?;
/// let options = ExportOptions { exact: true, ..ExportOptions::default() };
/// let made = export(plan, range, "clip.mp4".as_ref(), &options, &Default::default(), |_| ()).await?;
/// println!("{} {}", made.path.display(), made.sha256);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the file is there already and may not be replaced, it cannot be written, what it is made of cannot be read or encoded, or it was
/// cancelled. Nothing is left then.
pub async fn export(
    plan: Plan,
    range: TimeRange,
    path: &Path,
    options: &ExportOptions,
    cancel: &CancellationToken,
    mut progress: impl FnMut(ExportProgress) + Send,
) -> Result<Export, PlaybackError> {
    let failed = |problem: &dyn std::fmt::Display| file_error(path, problem);
    if path.is_dir() || (!options.overwrite && path.exists()) {
        return Err(failed(&"exists already; choose another name, or allow it to be replaced"));
    }
    let no_name = || failed(&"is no file's name");
    let part = beside(path, ".part").ok_or_else(no_name)?;
    let (ends, next) = (plan.ends(), plan.next());
    let until = if options.exact { plan.end().min(range.end) } else { plan.end() };
    let encodes = options.encodes();
    let mut telling =
        Telling { tell: &mut progress, cancel, share: if encodes { (0.0, 0.95) } else { (0.0, 1.0) } };
    // What is encoded lies here until it is in its container.
    let mut made_of = None;
    let plan = if encodes {
        let work = beside(path, ".work.part").ok_or_else(no_name)?;
        made_of = Some(Unfinished { path: work.clone(), kept: false });
        let frames = PlanFrames::new(plan, None)?;
        let writer = FrameWriter::new(&work, frames.main(), encode::sound_of(&frames, options));
        let Telling { tell, cancel, share } = telling;
        let doing = Telling { tell: &mut *tell, cancel, share };
        let start = encode::run(Work::new(frames, range, options, writer, doing)).await?;
        telling = Telling { tell, cancel, share: (0.95, 1.0) };
        let start = start.ok_or(PlaybackError::Nothing { start: range.start })?;
        let read = tokio::task::spawn_blocking(move || Plan::of_file(&work, start)).await;
        read.map_err(|e| failed(&e))??
    } else {
        plan
    };
    let plan = Arc::new(plan);
    let unfinished = Unfinished { path: part.clone(), kept: false };
    let (bytes, sha256) = copy(&plan, &part, options.format, &mut telling).await?;
    let target = path.to_owned();
    let finishing = tokio::task::spawn_blocking(move || finish(unfinished, &target)).await;
    finishing.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
    drop(made_of);
    Ok(Export {
        path: path.to_owned(),
        bytes,
        sha256,
        start: plan.start(),
        end: until,
        duration_secs: plan.duration().as_secs_f64(),
        next: next.filter(|_| ends != PlanEnd::Complete),
    })
}

/// Where a file's bytes come from.
enum Origin {
    Plan(PlanReader),
    Plain(PlainReader),
    /// What lies there already, by a muxer.
    File(File),
}

impl Origin {
    fn read(&mut self) -> std::io::Result<Option<Bytes>> {
        match self {
            Self::Plan(reader) => reader.read(),
            Self::Plain(reader) => reader.read(),
            Self::File(file) => {
                let mut data = vec![0; PIECE_BYTES];
                let read = file.read(&mut data)?;
                data.truncate(read);
                Ok((read > 0).then(|| data.into()))
            }
        }
    }
}

/// Writes a plan's bytes, in their container. Gives how many they are, and their hash.
async fn copy(
    plan: &Arc<Plan>,
    part: &Path,
    format: ExportFormat,
    telling: &mut Telling<'_>,
) -> Result<(u64, String), PlaybackError> {
    let failed = |problem: &dyn std::fmt::Display| file_error(part, problem);
    let container = match format {
        ExportFormat::Ts => Some(Container::Ts),
        ExportFormat::Mkv => Some(Container::Mkv),
        ExportFormat::Mp4 | ExportFormat::Fmp4 => None,
    };
    if let Some(container) = container {
        // What is wrong with it is said here as it is for all others.
        let name = part.to_owned();
        let creating = tokio::task::spawn_blocking(move || File::create(name).map(drop)).await;
        creating.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let cancel = telling.cancel;
        let muxed = remux_into(plan.clone(), container, part, || !cancel.is_cancelled()).await;
        // What was given up has no other fault.
        telling.tell(0.5, 0)?;
        muxed?;
    }
    let (made, name, kept) = (plan.clone(), part.to_owned(), container.is_some());
    let opening = tokio::task::spawn_blocking(move || {
        let length = made.length_bytes();
        let failed = |problem: std::io::Error| file_error(&name, problem);
        let create = || File::create(&name).map_err(failed);
        Ok::<_, PlaybackError>(match format {
            _ if kept => {
                let file = File::open(&name).map_err(failed)?;
                let length = file.metadata().map_err(failed)?.len();
                (Origin::File(file), None, length)
            }
            ExportFormat::Mp4 => {
                let plain = Arc::new(PlainPlan::new(made)?);
                let length = plain.length_bytes();
                (Origin::Plain(PlainReader::new(plain, 0..length)), Some(create()?), length)
            }
            _ => (Origin::Plan(PlanReader::new(made, 0..length)), Some(create()?), length),
        })
    });
    let (mut origin, mut file, length) = opening.await.map_err(|e| failed(&e))??;
    let (mut hash, mut bytes) = (Sha256::new(), 0u64);
    let from = if kept { 0.5 } else { 0.0 };
    loop {
        let writing = tokio::task::spawn_blocking(move || {
            let data = origin.read()?;
            if let Some(data) = &data {
                if let Some(file) = &mut file {
                    file.write_all(data)?;
                }
                hash.update(data);
            }
            Ok::<_, std::io::Error>((origin, file, hash, data.map(|data| data.len() as u64)))
        });
        let (reading, written, hashed, more) =
            writing.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        (origin, file, hash) = (reading, written, hashed);
        let Some(more) = more else { break };
        bytes += more;
        telling.tell(from + (1.0 - from) * bytes as f64 / length.max(1) as f64, bytes)?;
    }
    let name = part.to_owned();
    let syncing = tokio::task::spawn_blocking(move || match (file, origin) {
        (Some(file), _) | (None, Origin::File(file)) => file.sync_all(),
        _ => File::open(name)?.sync_all(),
    });
    syncing.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
    Ok((bytes, hash.finalize().iter().map(|b| format!("{b:02x}")).collect()))
}

/// Gives a whole file its name.
fn finish(mut unfinished: Unfinished, path: &Path) -> std::io::Result<()> {
    std::fs::rename(&unfinished.path, path)?;
    unfinished.kept = true;
    if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
        // The file is whole; only its name may be lost if the power fails just now.
        let _ = folder.sync_all();
    }
    Ok(())
}
