//! From the past into the present: a playlist of what has been recorded, that grows with the recording.
//!
//! Its segments are rows of parts of the recorder's own files, as they lie there. Each file is a discontinuity, since its
//! times begin at zero.

use super::playlist::{seconds, skippable};
use crate::frame::WallTime;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Segments end with the first GOP that makes them this long.
const ENTRY: Duration = Duration::from_secs(2);
/// They end here in any case, as far as parts allow it.
const LONGEST: Duration = Duration::from_secs(4);

/// A row of a file's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DvrEntry {
    /// The first part.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// When it begins, from the start of the file.
    pub start: Duration,
    /// How long it is.
    pub duration: Duration,
}

/// Divides a file's parts, each with its length and whether it begins with a keyframe. The same parts are always divided the
/// same way, also when more follow; of a file that is not finished the end is left for later.
pub fn divide(parts: impl Iterator<Item = (Duration, bool)>, complete: bool) -> Vec<DvrEntry> {
    let mut entries = Vec::new();
    let mut open = DvrEntry { first: 0, count: 0, start: Duration::ZERO, duration: Duration::ZERO };
    for (duration, keyframe) in parts {
        let full = (keyframe && open.duration >= ENTRY) || open.duration + duration > LONGEST;
        if full && open.count > 0 {
            entries.push(open);
            let (first, start) = (open.first + open.count, open.start + open.duration);
            open = DvrEntry { first, count: 0, start, duration: Duration::ZERO };
        }
        open.count += 1;
        open.duration += duration;
    }
    if complete && open.count > 0 {
        entries.push(open);
    }
    entries
}

/// A file of a recording.
#[derive(Clone, Debug)]
pub struct DvrFile {
    /// Its number.
    pub id: u64,
    /// Wall clock of its first frame.
    pub start: WallTime,
    /// Its segments.
    pub entries: Arc<Vec<DvrEntry>>,
    /// Segments in front that are not listed.
    pub skip: usize,
    /// How many there are up to the last that is listed.
    pub until: usize,
}

impl DvrFile {
    /// How many of its segments are listed.
    pub fn listed(&self) -> usize {
        self.until.saturating_sub(self.skip)
    }
}

/// What has been listed once and is no longer there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DvrGone {
    /// Segments.
    pub segments: u64,
    /// Files.
    pub files: u64,
}

/// The playlist. `prefix` is put in front of names; with `skip`, what a player knows already is left out; with `ended`, nothing will follow.
pub fn dvr_playlist(files: &[DvrFile], gone: DvrGone, prefix: &str, skip: bool, ended: bool) -> String {
    let entries = |file: &'_ DvrFile| file.skip..file.until.min(file.entries.len());
    let listed = || {
        files
            .iter()
            .flat_map(|file| file.entries.get(entries(file)).into_iter().flatten().map(move |e| (file, e)))
    };
    let longest = listed().map(|(_, e)| e.duration).max().unwrap_or_default().max(LONGEST);
    let target = longest.as_secs_f64().round() as u64;
    let mut text = String::with_capacity(64 * 1024);
    let _ = writeln!(
        text,
        "#EXTM3U\n#EXT-X-VERSION:{}\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-SERVER-CONTROL:CAN-SKIP-UNTIL={}",
        if skip { 9 } else { 7 },
        target * 6
    );
    if ended {
        text.push_str("#EXT-X-PLAYLIST-TYPE:VOD\n");
    }
    let _ = writeln!(text, "#EXT-X-MEDIA-SEQUENCE:{}", gone.segments);
    if gone.files > 0 {
        let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", gone.files);
    }
    let lengths = listed().map(|(_, entry)| entry.duration);
    let skipped = if skip { skippable(lengths, Duration::from_secs(target * 6)) } else { 0 };
    if skipped > 0 {
        let _ = writeln!(text, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
    }
    let mut told = listed().take(skipped).last().map(|(file, _)| file.id);
    for (file, entry) in listed().skip(skipped) {
        if told != Some(file.id) {
            if told.is_some() || gone.files > 0 {
                text.push_str("#EXT-X-DISCONTINUITY\n");
            }
            let _ = writeln!(text, "#EXT-X-MAP:URI=\"{prefix}r{}-i0.mp4\"", file.id);
            let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{}", file.start + entry.start);
            told = Some(file.id);
        }
        let (id, first, count) = (file.id, entry.first, entry.count);
        let _ = writeln!(text, "#EXTINF:{},\n{prefix}r{id}-{first}.{count}.m4s", seconds(entry.duration));
    }
    if ended {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is listed once is never divided differently, and nothing is left out.
        #[test]
        fn grows_at_its_end_only(parts in proptest::collection::vec((1u64..3000, any::<bool>()), 0..80), cut in 0usize..80) {
            let parts: Vec<(Duration, bool)> = parts.into_iter().map(|(ms, key)| (Duration::from_millis(ms), key)).collect();
            let whole = divide(parts.iter().copied(), true);
            let early = divide(parts.iter().copied().take(cut), false);
            prop_assert_eq!(&whole[..early.len()], &early[..]);
            prop_assert_eq!(whole.iter().map(|e| e.count).sum::<usize>(), parts.len());
            prop_assert_eq!(whole.iter().map(|e| e.duration).sum::<Duration>(), parts.iter().map(|p| p.0).sum::<Duration>());
            prop_assert!(whole.iter().all(|e| e.duration <= LONGEST || e.count == 1));
        }
    }

    #[test]
    fn a_playlist_over_two_files() {
        let parts = || (0..8).map(|n| (Duration::from_secs(1), n % 2 == 0));
        let entries = Arc::new(divide(parts(), true));
        assert_eq!(entries.len(), 4);
        let start = WallTime::from_unix_nanos(1_700_000_000_000_000_000);
        let files = [
            DvrFile { id: 3, start, entries: entries.clone(), skip: 1, until: 4 },
            DvrFile { id: 4, start: start + Duration::from_secs(60), entries, skip: 0, until: 3 },
        ];
        let text = dvr_playlist(&files, DvrGone::default(), "", false, true);
        assert_eq!(text.matches("#EXTINF").count(), 6);
        assert!(text.contains("#EXT-X-PLAYLIST-TYPE:VOD\n") && text.ends_with("\n#EXT-X-ENDLIST\n"));
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
        assert!(text.contains("#EXT-X-MAP:URI=\"r3-i0.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:22.000Z\n#EXTINF:2.00000,\nr3-2.2.m4s\n"));
        let text = dvr_playlist(&files, DvrGone { segments: 5, files: 1 }, "", false, false);
        assert!(!text.contains("ENDLIST"));
        assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:5\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n"));
    }
}
