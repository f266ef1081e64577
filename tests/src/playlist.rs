//! HLS playlists held against the rules of RFC 8216 and its second edition (draft-pantos-hls-rfc8216bis), as far as a
//! playlist shows whether they are kept. What Apple's mediastreamvalidator is known to ask for is in here, too.

use std::collections::HashMap;
use std::time::Duration;

/// A segment of a media playlist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Its media sequence number.
    pub number: u64,
    /// Its address.
    pub uri: String,
    /// Seconds.
    pub duration: f64,
    /// Discontinuities up to and with this one, since the stream's beginning.
    pub discontinuity: u64,
    /// The initialization segment.
    pub map: String,
    /// Nanoseconds since 1970.
    pub time: Option<i64>,
    /// Its parts: seconds, address, independent.
    pub parts: Vec<(f64, String, bool)>,
}

/// A media playlist.
#[derive(Clone, Debug, Default)]
pub struct Playlist {
    /// Finished segments.
    pub segments: Vec<Entry>,
    /// The one that is being made, if it has parts.
    pub open: Option<Entry>,
    /// Whole seconds.
    pub target: u64,
    /// Seconds; none if there are no parts.
    pub part_target: Option<f64>,
    /// Segments that were left out of it.
    pub skipped: u64,
    /// The hinted part.
    pub hint: Option<String>,
    /// Whether it has ended.
    pub ended: bool,
    /// Where players are to begin: seconds from the end.
    pub start: Option<f64>,
    /// Reports on other renditions: address, last segment, last part.
    pub reports: Vec<(String, u64, u64)>,
    first: u64,
}

/// Attributes of a tag.
pub fn attributes(text: &str) -> HashMap<String, String> {
    let (mut rest, mut all) = (text, HashMap::new());
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"').expect("a quote that does not end");
                (value, next.strip_prefix(',').unwrap_or(next))
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        assert!(all.insert(name.to_owned(), value.to_owned()).is_none(), "{name} comes twice in {text}");
        rest = next;
    }
    all
}

fn number(attributes: &HashMap<String, String>, name: &str) -> Option<f64> {
    attributes.get(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// Reads a media playlist and checks what can be checked of it alone. Panics with the rule that is broken.
pub fn parse(text: &str) -> Playlist {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("#EXTM3U"), "the first line (section 4.4.1.1): {text}");
    let mut playlist = Playlist::default();
    let (mut entry, mut map, mut discontinuity) = (Entry::default(), String::new(), 0);
    let (mut seen, mut hold_back, mut version) = (HashMap::<&str, u32>::new(), None, 0);
    let mut next = 0;
    for line in lines {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        *seen.entry(if tag.starts_with('#') { tag } else { "" }).or_default() += 1;
        match tag {
            "#EXT-X-VERSION" => version = value.parse().unwrap(),
            "#EXT-X-TARGETDURATION" => playlist.target = value.parse().unwrap(),
            "#EXT-X-PART-INF" => playlist.part_target = number(&attributes(value), "PART-TARGET"),
            "#EXT-X-SERVER-CONTROL" => hold_back = Some(attributes(value)),
            "#EXT-X-MEDIA-SEQUENCE" => {
                playlist.first = value.parse().unwrap();
                next = playlist.first;
            }
            "#EXT-X-DISCONTINUITY-SEQUENCE" => discontinuity = value.parse().unwrap(),
            "#EXT-X-SKIP" => {
                playlist.skipped = number(&attributes(value), "SKIPPED-SEGMENTS").unwrap() as u64;
                next += playlist.skipped;
            }
            "#EXT-X-DISCONTINUITY" => discontinuity += 1,
            "#EXT-X-MAP" => map = attributes(value)["URI"].clone(),
            "#EXT-X-PROGRAM-DATE-TIME" => {
                let time: stream_manager_core::frame::WallTime = value.parse().unwrap();
                entry.time = Some(time.as_unix_nanos());
            }
            "#EXT-X-PART" => {
                let part = attributes(value);
                let independent = part.get("INDEPENDENT").is_some_and(|v| v == "YES");
                entry.parts.push((number(&part, "DURATION").unwrap(), part["URI"].clone(), independent));
            }
            "#EXTINF" => entry.duration = value.trim_end_matches(',').parse().unwrap(),
            "#EXT-X-PRELOAD-HINT" => {
                let hint = attributes(value);
                assert_eq!(hint["TYPE"], "PART");
                playlist.hint = Some(hint["URI"].clone());
            }
            "#EXT-X-RENDITION-REPORT" => {
                let report = attributes(value);
                let last = |name| number(&report, name).unwrap() as u64;
                playlist.reports.push((report["URI"].clone(), last("LAST-MSN"), last("LAST-PART")));
            }
            "#EXT-X-ENDLIST" => playlist.ended = true,
            "#EXT-X-INDEPENDENT-SEGMENTS" => {}
            "#EXT-X-START" => playlist.start = number(&attributes(value), "TIME-OFFSET"),
            other if other.starts_with('#') => panic!("unknown tag {line}"),
            _ => {
                assert!(entry.duration > 0.0, "{line} without EXTINF (section 4.4.4.1)");
                (entry.number, entry.uri) = (next, line.to_owned());
                (entry.discontinuity, entry.map) = (discontinuity, map.clone());
                playlist.segments.push(std::mem::take(&mut entry));
                next += 1;
            }
        }
    }
    if let Some(start) = playlist.start {
        let parts: f64 = entry.parts.iter().map(|part| part.0).sum();
        let length = playlist.segments.iter().map(|s| s.duration).sum::<f64>() + parts;
        assert!(
            (-length - 0.001..=0.0).contains(&start) || playlist.skipped > 0,
            "EXT-X-START (section 4.4.2.2): {text}"
        );
    }
    for tag in ["#EXT-X-VERSION", "#EXT-X-TARGETDURATION", "#EXT-X-MEDIA-SEQUENCE"] {
        assert_eq!(seen.get(tag), Some(&1), "{tag} has to be there once: {text}");
    }
    if !entry.parts.is_empty() {
        (entry.number, entry.discontinuity, entry.map) = (next, discontinuity, map);
        playlist.open = Some(entry);
    }
    assert!(version >= 6, "EXT-X-MAP needs version 6 (section 8)");
    assert!(playlist.skipped == 0 || version >= 9, "EXT-X-SKIP needs version 9 (section 8)");
    check_one(&playlist, &hold_back.unwrap_or_default(), text);
    playlist
}

fn check_one(playlist: &Playlist, control: &HashMap<String, String>, text: &str) {
    let target = playlist.target as f64;
    for segment in &playlist.segments {
        assert!(
            segment.duration.round() <= target,
            "EXTINF is over the target (4.4.3.1): {segment:?}\n{text}"
        );
        let parts: f64 = segment.parts.iter().map(|p| p.0).sum();
        assert!(
            segment.parts.is_empty() || (parts - segment.duration).abs() < 0.002,
            "the parts are {parts}, the segment {}: {text}",
            segment.duration
        );
        assert!(!segment.map.is_empty() || playlist.skipped > 0, "fMP4 needs EXT-X-MAP (3.1.2): {text}");
    }
    for pair in playlist.segments.windows(2) {
        let (Some(before), Some(after)) = (pair[0].time, pair[1].time) else { continue };
        assert!(after > before, "PROGRAM-DATE-TIME goes back: {text}");
        if pair[0].discontinuity == pair[1].discontinuity {
            let expected = before as f64 / 1e9 + pair[0].duration;
            let off = after as f64 / 1e9 - expected;
            assert!(off.abs() < 0.06, "PROGRAM-DATE-TIME is off by {off} s behind {}: {text}", pair[0].uri);
        }
    }
    for (index, segment) in playlist.segments.iter().enumerate() {
        let changed = index > 0 && playlist.segments[index - 1].map != segment.map;
        let broken = index > 0 && playlist.segments[index - 1].discontinuity != segment.discontinuity;
        assert!(!changed || broken, "another EXT-X-MAP without a discontinuity: {text}");
    }
    let Some(part_target) = playlist.part_target else {
        assert!(playlist.hint.is_none() && playlist.open.is_none(), "parts without EXT-X-PART-INF: {text}");
        return;
    };
    for part in playlist.segments.iter().chain(&playlist.open).flat_map(|s| &s.parts) {
        assert!(part.0 <= part_target + 1e-9, "a part is over its target (4.4.4.9): {part:?} {text}");
    }
    let hold = number(control, "PART-HOLD-BACK").expect("PART-HOLD-BACK is required with parts (4.4.3.8)");
    assert!(hold >= part_target * 3.0 - 1e-9, "PART-HOLD-BACK is under three part targets: {text}");
    assert!(
        number(control, "HOLD-BACK").is_none_or(|hold| hold >= target * 3.0),
        "HOLD-BACK (4.4.3.8): {text}"
    );
    assert!(
        number(control, "CAN-SKIP-UNTIL").is_none_or(|skip| skip >= target * 6.0),
        "CAN-SKIP-UNTIL: {text}"
    );
    assert_eq!(control.get("CAN-BLOCK-RELOAD").map(String::as_str), Some("YES"), "{text}");
    assert!(playlist.ended || playlist.hint.is_some(), "no PRELOAD-HINT (B.1): {text}");
    let listed: Vec<&String> =
        playlist.segments.iter().chain(&playlist.open).flat_map(|s| &s.parts).map(|p| &p.1).collect();
    assert!(
        playlist.hint.as_ref().is_none_or(|hint| !listed.contains(&hint)),
        "the hinted part is listed: {text}"
    );
}

/// Checks that one state of a playlist can follow on another.
pub fn check_update(before: &Playlist, after: &Playlist) {
    assert!(after.first >= before.first, "EXT-X-MEDIA-SEQUENCE goes back (6.2.2)");
    assert!(after.target >= before.target, "EXT-X-TARGETDURATION shrinks");
    for old in &before.segments {
        if let Some(new) = after.segments.iter().find(|s| s.number == old.number) {
            assert_eq!(
                (&old.uri, old.duration, old.discontinuity, &old.map),
                (&new.uri, new.duration, new.discontinuity, &new.map)
            );
            assert!(new.parts.is_empty() || old.parts.is_empty() || new.parts == old.parts);
        }
    }
    let newest = |p: &Playlist| p.segments.last().map(|s| s.number);
    assert!(newest(after) >= newest(before), "segments are taken back");
    if let Some(open) = &before.open {
        let now = after.segments.iter().chain(&after.open).find(|s| s.number == open.number);
        if let Some(now) = now.filter(|now| !now.parts.is_empty()) {
            assert_eq!(now.parts[..open.parts.len()], open.parts[..], "parts were changed");
        }
    }
}

/// The length of what a playlist lists.
pub fn length(playlist: &Playlist) -> Duration {
    Duration::from_secs_f64(playlist.segments.iter().map(|s| s.duration).sum())
}
