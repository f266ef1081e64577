//! Media playlists (RFC 8216 and its second edition, draft-pantos-hls-rfc8216bis).

use super::presentation::{Presentation, Targets};
use super::rendition::{Held, Rendition, Segment};
use super::text::Text;
use crate::frame::{MediaTime, WallTime};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Parts are listed for segments no older than so many target durations (RFC 8216bis section 4.4.4.9).
const PARTS_FOR: u32 = 3;

/// How a playlist is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaylistOptions {
    /// What is put in front of the names of segments, parts and initialization segments.
    pub prefix: &'static str,
    /// Whether what the player knows already is left out (`_HLS_skip=YES`).
    pub skip: bool,
}

impl PlaylistOptions {
    fn kind(self) -> u64 {
        u64::from(self.skip) | (self.prefix.len() as u64) << 1
    }
}

/// A rendition's playlist as it is now. Made once for all who ask for the same.
pub fn media_playlist(
    presentation: &Presentation,
    rendition: &Rendition,
    options: PlaylistOptions,
) -> Arc<Text> {
    // Reports name the others' last parts, but are no reason to make a playlist anew: they only have to be right
    // when this playlist was.
    let version = rendition.version();
    rendition.texts.get(version, options.kind(), || write(presentation, rendition, options))
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.5}", duration.as_secs_f64())
}

fn date_time(time: MediaTime) -> String {
    WallTime::from_unix_nanos(time.as_nanos()).to_string()
}

fn write(presentation: &Presentation, rendition: &Rendition, options: PlaylistOptions) -> String {
    let settings = presentation.settings();
    let targets = presentation.targets();
    let begin = begin(presentation, targets);
    let mut text = String::with_capacity(4096);
    rendition.read(|held| {
        let low_latency = settings.low_latency;
        let from = held.listed_from();
        let listed: Vec<&Arc<Segment>> = held.segments.iter().skip(from).collect();
        // A player may leave out what is older than six target durations (section 4.4.3.8).
        let lengths = listed.iter().map(|segment| segment.duration);
        let skipped = if options.skip && low_latency { skippable(lengths, targets.segment * 6) } else { 0 };
        head(&mut text, held, from, targets, low_latency);
        let all_independent =
            listed.iter().all(|s| s.independent) && held.open.as_ref().is_none_or(|o| o.independent);
        if all_independent && !listed.is_empty() {
            text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        if let Some(begin) = begin {
            // From the end on, backwards; of sound, segments begin at nearly the same times.
            let open = held.open.as_ref().filter(|_| low_latency);
            let from = listed.iter().map(|s| &***s).chain(open).filter(|s| s.start + s.duration / 2 > begin);
            let offset = seconds(from.map(|s| s.duration).sum());
            let _ = writeln!(text, "#EXT-X-START:TIME-OFFSET=-{offset},PRECISE=NO");
        }
        if skipped > 0 {
            let _ = writeln!(text, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
        }
        let newest = held.open.as_ref().map(Segment::end).or(listed.last().map(|s| s.end()));
        let mut map = skipped.checked_sub(1).and_then(|last| listed.get(last)).map(|s| s.init.number);
        for segment in listed.iter().skip(skipped) {
            begin_segment(&mut text, segment, &mut map, rendition.name(), options.prefix);
            let age = newest.map_or(Duration::ZERO, |newest| newest.saturating_since(segment.end()));
            if low_latency && age < targets.segment * PARTS_FOR {
                parts(&mut text, segment, rendition.name(), options.prefix);
            }
            let (name, number) = (rendition.name(), segment.number);
            let _ = writeln!(
                text,
                "#EXTINF:{},\n{}{name}-{number}.m4s",
                seconds(segment.duration),
                options.prefix
            );
        }
        if held.ended {
            text.push_str("#EXT-X-ENDLIST\n");
            return;
        }
        if !low_latency {
            return;
        }
        if let Some(open) = held.open.as_ref().filter(|open| !open.parts.is_empty()) {
            begin_segment(&mut text, open, &mut map, rendition.name(), options.prefix);
            parts(&mut text, open, rendition.name(), options.prefix);
        }
        let (prefix, name, part) = (options.prefix, rendition.name(), held.hinted_part());
        let _ = writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{prefix}{name}-p{part}.m4s\"");
    });
    if settings.low_latency && !rendition.has_ended() {
        reports(&mut text, presentation, rendition);
    }
    text
}

/// Where players have to begin so that they get a keyframe, if that is elsewhere than they would begin by themselves: in a
/// GOP that goes over several segments.
fn begin(presentation: &Presentation, targets: Targets) -> Option<MediaTime> {
    let low_latency = presentation.settings().low_latency;
    let hold_back = if low_latency { targets.part * 3 } else { targets.segment * 3 };
    let renditions = presentation.renditions();
    let main = renditions.iter().find(|r| presentation.is_main(r.id()))?;
    main.read(|held| {
        let from = held.listed_from();
        let open = held.open.as_ref().filter(|_| low_latency);
        let listed = || held.segments.iter().skip(from).map(|s| &**s).chain(open);
        let newest = listed().last()?.end();
        let at = newest - hold_back;
        let before = listed().take_while(|s| s.start <= at).last().or(listed().next())?;
        // Players look at the next few playlists, too, before they begin: where all of it is one GOP as yet, the very first
        // segment's end is in the midst of it.
        let has_just_begun = listed().nth(1).is_none();
        if !has_just_begun && listed().skip_while(|s| s.start < before.start).all(|s| s.independent) {
            return None;
        }
        let independent = listed().take_while(|s| s.start <= before.start).filter(|s| s.independent);
        independent.last().map(|s| s.start)
    })
}

/// How many of the oldest segments a player may leave out: those behind which there is at least this much.
pub(super) fn skippable(listed: impl Iterator<Item = Duration> + Clone, can_skip: Duration) -> usize {
    let mut left: Duration = listed.clone().sum();
    listed
        .take_while(|duration| {
            left = left.saturating_sub(*duration);
            left >= can_skip
        })
        .count()
}

fn head(text: &mut String, held: &Held, from: usize, targets: Targets, low_latency: bool) {
    let target = targets.segment.as_secs();
    let version = if low_latency { 9 } else { 7 };
    let _ = writeln!(text, "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{target}");
    if low_latency {
        let _ = writeln!(
            text,
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},HOLD-BACK={},CAN-SKIP-UNTIL={}",
            seconds(targets.part * 3),
            seconds(targets.segment * 3),
            seconds(targets.segment * 6),
        );
        let _ = writeln!(text, "#EXT-X-PART-INF:PART-TARGET={}", seconds(targets.part));
    }
    let first = held.segments.get(from).map(|s| s.number);
    let first = first.or(held.open.as_ref().map(|o| o.number)).unwrap_or(held.next);
    let _ = writeln!(text, "#EXT-X-MEDIA-SEQUENCE:{first}");
    let passed = held.segments.iter().take(from).filter(|s| s.discontinuity).count() as u64;
    let discontinuities = held.discontinuities + passed;
    if discontinuities > 0 {
        let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}");
    }
}

/// What stands in front of a segment and its parts.
fn begin_segment(text: &mut String, segment: &Segment, map: &mut Option<u64>, name: &str, prefix: &str) {
    if segment.discontinuity {
        text.push_str("#EXT-X-DISCONTINUITY\n");
    }
    let number = segment.init.number;
    if map.replace(number) != Some(number) || segment.discontinuity {
        let _ = writeln!(text, "#EXT-X-MAP:URI=\"{prefix}{name}-i{number}.mp4\"");
    }
    let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{}", date_time(segment.start));
}

fn parts(text: &mut String, segment: &Segment, name: &str, prefix: &str) {
    for (number, part) in (segment.first_part..).zip(&segment.parts) {
        let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
        let duration = seconds(part.duration);
        let _ = writeln!(
            text,
            "#EXT-X-PART:DURATION={duration},URI=\"{prefix}{name}-p{number}.m4s\"{independent}"
        );
    }
}

/// Where the other renditions are (section 4.4.5.4).
fn reports(text: &mut String, presentation: &Presentation, own: &Rendition) {
    for other in presentation.renditions().iter().filter(|r| r.id() != own.id()) {
        let last = other.read(|held| match (&held.open, held.segments.back()) {
            (Some(open), _) if !open.parts.is_empty() => Some((open.number, open.parts.len() - 1)),
            (_, Some(last)) => Some((last.number, last.parts.len().saturating_sub(1))),
            _ => None,
        });
        if let Some((number, part)) = last {
            let name = other.name();
            let _ = writeln!(
                text,
                "#EXT-X-RENDITION-REPORT:URI=\"{name}.m3u8\",LAST-MSN={number},LAST-PART={part}"
            );
        }
    }
}
