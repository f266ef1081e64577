//! The parts of a segment in a few bytes each, for the database.
//!
//! One LEB128 number for where the first part begins, then three for each part: its length in bytes, its
//! duration in microseconds, and its frame count times two plus one if it begins with a keyframe. Offsets
//! and times are the sums of what comes before.

use std::time::Duration;

/// A part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartEntry {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// When it begins, from the start of the segment.
    pub start: Duration,
    /// How long it lasts.
    pub duration: Duration,
    /// Frames in it, of all tracks.
    pub frames: u64,
    /// Whether the main track begins with a keyframe.
    pub keyframe: bool,
}

/// A growing list of parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartList {
    bytes: Vec<u8>,
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = data.split_first()?;
        *data = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl PartList {
    /// A list whose first part begins at this offset.
    pub fn new(first_offset: u64) -> Self {
        let mut bytes = Vec::new();
        put(&mut bytes, first_offset);
        Self { bytes }
    }

    /// Adds a part that follows directly.
    pub fn push(&mut self, len_bytes: u64, duration: Duration, frames: u64, keyframe: bool) {
        put(&mut self.bytes, len_bytes);
        put(&mut self.bytes, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        put(&mut self.bytes, frames << 1 | u64::from(keyframe));
    }

    /// As stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads what [`as_bytes`](Self::as_bytes) gave; a damaged end is left out.
    pub fn entries(mut data: &[u8]) -> Vec<PartEntry> {
        let mut entries = Vec::new();
        let Some(mut offset) = take(&mut data) else { return entries };
        let mut start = Duration::ZERO;
        while let (Some(len_bytes), Some(micros), Some(frames)) =
            (take(&mut data), take(&mut data), take(&mut data))
        {
            let duration = Duration::from_micros(micros);
            entries.push(PartEntry {
                offset,
                len_bytes,
                start,
                duration,
                frames: frames >> 1,
                keyframe: frames & 1 == 1,
            });
            offset = offset.saturating_add(len_bytes);
            start = start.saturating_add(duration);
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back(
            first in any::<u64>(),
            parts in prop::collection::vec((0u64..1 << 40, 0u64..1 << 40, 0u64..1 << 20, any::<bool>()), 0..50),
        ) {
            let mut list = PartList::new(first);
            for (len, micros, frames, keyframe) in &parts {
                list.push(*len, Duration::from_micros(*micros), *frames, *keyframe);
            }
            let entries = PartList::entries(list.as_bytes());
            prop_assert_eq!(entries.len(), parts.len());
            for (entry, (len, micros, frames, keyframe)) in entries.iter().zip(&parts) {
                prop_assert_eq!(
                    (entry.len_bytes, entry.duration.as_micros() as u64, entry.frames, entry.keyframe),
                    (*len, *micros, *frames, *keyframe)
                );
            }
        }

        #[test]
        fn any_bytes_are_read(data in prop::collection::vec(any::<u8>(), 0..200)) {
            PartList::entries(&data);
        }
    }
}
