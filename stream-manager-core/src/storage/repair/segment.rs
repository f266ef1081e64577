//! One file: what is in it, and cutting off what is not whole.

use crate::fmp4::{ScanError, SegmentIdentity, payload_is_plausible, scan};
use crate::frame::WallTime;
use crate::storage::index::{PartList, SegmentEnd};
use crate::storage::parse_segment_name;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Parts at a file's end whose payload is looked at: more than are ever between two syncs.
const SUSPECT_PARTS: usize = 16;
/// A larger file is not taken as a torn first part.
const MAX_TORN_BYTES: u64 = 64 << 20;
/// An MPEG-TS packet, ISO/IEC 13818-1 section 2.4.3.
const TS_PACKET: u64 = 188;

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Examined {
    /// A segment; whole now, if it was to be repaired.
    Segment(Box<Found>),
    /// One of ours without anything in it.
    Nothing,
    /// Nothing that can be read; says why.
    Damaged(String),
    /// There is no such file.
    Missing,
}

/// A segment as its file tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Wall clock of its first frame.
    pub start: WallTime,
    /// Its length, size and parts.
    pub end: SegmentEnd,
    /// What the recorder wrote into it.
    pub identity: Option<SegmentIdentity>,
    /// The container, as in the configuration.
    pub format: String,
    /// Bytes after the last whole part.
    pub cut_bytes: u64,
}

/// Reads a segment's file; with `repair` it is cut after its last whole part and its duration is written into
/// it. Blocks.
pub fn examine(path: &Path, repair: bool) -> Examined {
    read(path, repair, false)
}

/// The same, and looks at the payload of every part.
pub(super) fn examine_all(path: &Path) -> Examined {
    read(path, false, true)
}

fn read(path: &Path, repair: bool, every_part: bool) -> Examined {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Examined::Missing,
        Err(error) => return Examined::Damaged(format!("cannot be read: {error}")),
        Ok(found) if !found.is_file() => return Examined::Damaged("is no regular file".into()),
        Ok(found) => found,
    };
    if found.len() == 0 {
        return Examined::Nothing;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let named = parse_segment_name(&name);
    let result = match named {
        Some((start, "mkv" | "ts")) => Ok(by_name(path, start, &found, repair)),
        _ => fragmented(path, named.map(|(start, _)| start), repair, every_part),
    };
    result.unwrap_or_else(|error| match (error, named) {
        (ScanError::NotFragmented, Some((start, _))) => plain(path, start, &found),
        (error, _) => Examined::Damaged(error.to_string()),
    })
}

fn fragmented(
    path: &Path,
    named: Option<WallTime>,
    repair: bool,
    every_part: bool,
) -> Result<Examined, ScanError> {
    let file = File::options().read(true).write(repair).open(path)?;
    let mut reader = BufReader::with_capacity(4096, &file);
    let mut scan = scan(&mut reader)?;
    if scan.duration_patch.is_some() || every_part {
        // Never finished: its end may not have reached the disk.
        let suspects = if every_part { 0 } else { scan.parts.len().saturating_sub(SUSPECT_PARTS) };
        for index in suspects..scan.parts.len() {
            let part = scan.parts[index];
            if !payload_is_plausible(&mut reader, &scan, &part)? {
                while scan.parts.len() > index {
                    scan.drop_last_part();
                }
                break;
            }
        }
    }
    let (Some(first), Some(start)) = (scan.parts.first(), scan.start().or(named)) else {
        let ours = scan.identity.is_some() && is_torn(path);
        return Ok(if ours { Examined::Nothing } else { Examined::Damaged("has no whole part".into()) });
    };
    let mut parts = PartList::new(first.offset);
    let mut duration = Duration::ZERO;
    for part in &scan.parts {
        parts.push(part.len_bytes, part.duration, part.frames, part.keyframe);
        duration += part.duration;
    }
    let cut_bytes = scan.file_bytes - scan.whole_bytes;
    if repair {
        if cut_bytes > 0 {
            file.set_len(scan.whole_bytes)?;
        }
        if let Some(patch) = scan.duration_patch {
            file.write_all_at(&patch.bytes(duration), patch.offset())?;
        }
        if cut_bytes > 0 || scan.duration_patch.is_some() {
            file.sync_data()?;
        }
    }
    Ok(Examined::Segment(Box::new(Found {
        // The name says when a segment begins to the millisecond, and is what it is found by; the file knows
        // it better, unless the name had to give way to another.
        start: named.filter(|n| differ(*n, start)).unwrap_or(start),
        end: SegmentEnd {
            duration_nanos: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
            bytes: scan.whole_bytes,
            frames: scan.frames(),
            parts,
        },
        identity: scan.identity,
        format: "fmp4".into(),
        cut_bytes,
    })))
}

/// Whether a file without a whole part has been cut off in its first one, so that there is nothing in it. One
/// with more parts behind a damaged first one is for somebody else to rescue. Blocks.
pub(super) fn is_torn(path: &Path) -> bool {
    let small = std::fs::metadata(path).is_ok_and(|m| m.len() <= MAX_TORN_BYTES);
    small
        && std::fs::read(path).is_ok_and(|data| data.windows(4).filter(|w| w == b"moof").take(2).count() < 2)
}

fn differ(a: WallTime, b: WallTime) -> bool {
    a.saturating_since(b).max(b.saturating_since(a)) >= Duration::from_millis(1)
}

/// Containers that are not read here: from the name when it begins, from the file's last change when it ends.
fn by_name(path: &Path, start: WallTime, found: &std::fs::Metadata, repair: bool) -> Examined {
    let end = found.modified().map_or(start, WallTime::from);
    let mut bytes = found.len();
    let format = if path.extension().is_some_and(|e| e == "ts") { "ts" } else { "mkv" };
    let mut cut_bytes = 0;
    if format == "ts" && !bytes.is_multiple_of(TS_PACKET) {
        cut_bytes = bytes % TS_PACKET;
        bytes -= cut_bytes;
        if repair && let Err(error) = File::options().write(true).open(path).and_then(|f| f.set_len(bytes)) {
            return Examined::Damaged(format!("cannot be cut: {error}"));
        }
    }
    let duration_nanos = i64::try_from(end.saturating_since(start).as_nanos()).unwrap_or(i64::MAX);
    let end = SegmentEnd { duration_nanos, bytes, ..SegmentEnd::default() };
    Examined::Segment(Box::new(Found { start, end, identity: None, format: format.into(), cut_bytes }))
}

/// A plain MP4 file that is finished says how long it is.
fn plain(path: &Path, start: WallTime, found: &std::fs::Metadata) -> Examined {
    match movie_duration(path) {
        Some(duration) => {
            let duration_nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
            let end = SegmentEnd { duration_nanos, bytes: found.len(), ..SegmentEnd::default() };
            Examined::Segment(Box::new(Found {
                start,
                end,
                identity: None,
                format: "mp4".into(),
                cut_bytes: 0,
            }))
        }
        None => Examined::Damaged("has a damaged moov box".into()),
    }
}

/// Reads `mvhd` (ISO/IEC 14496-12 section 8.2.2).
fn movie_duration(path: &Path) -> Option<Duration> {
    let mut file = File::open(path).ok()?;
    let mut at = 0;
    loop {
        let mut head = [0u8; 16];
        file.seek(SeekFrom::Start(at)).ok()?;
        file.read_exact(&mut head).ok()?;
        let size = match u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]])) {
            1 => u64::from_be_bytes([
                head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15],
            ]),
            size => size,
        };
        if &head[4..8] == b"moov" {
            break;
        }
        at = at.checked_add(size.max(8))?;
    }
    let mut moov = [0u8; 48];
    file.seek(SeekFrom::Start(at + 8)).ok()?;
    file.read_exact(&mut moov).ok()?;
    if &moov[4..8] != b"mvhd" {
        return None;
    }
    let word = |at: usize| u32::from_be_bytes([moov[at], moov[at + 1], moov[at + 2], moov[at + 3]]);
    let (timescale, ticks) = if moov[8] == 1 {
        (word(28), u64::from(word(32)) << 32 | u64::from(word(36)))
    } else {
        (word(20), u64::from(word(24)))
    };
    Some(Duration::from_secs_f64(ticks as f64 / f64::from(timescale.max(1))))
}
