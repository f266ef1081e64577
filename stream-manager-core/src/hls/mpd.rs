//! The DASH manifest (ISO/IEC 23009-1): the same segments, with their times.
//!
//! A dynamic MPD of the live profile. Its time begins when packaging did, since some players do not get on with times as large as
//! the segments' own, which are UTC. Each discontinuity begins a period. The segment that is being made is listed with the length
//! that it is expected to have, and can be had while it grows.

use super::master::{Variant, frame_rate};
use super::presentation::Presentation;
use super::rendition::{Rendition, Segment};
use super::text::Text;
use crate::frame::{MediaTime, WallTime};
use dash_mpd_core as dash;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// What else stands in a manifest.
#[derive(Clone, Debug, Default, Hash)]
pub struct MpdOptions {
    /// Where the manifest is to be had from then on, if somewhere else.
    pub location: Option<String>,
    /// Where segments are, with a slash at the end. Said in so many words, since players do not agree whether that is where
    /// the manifest was or where it is to be had from then on.
    pub base: String,
}

/// Shifts times to the ticks of a track.
fn ticks(time: MediaTime, timescale: u32) -> u64 {
    u64::try_from(time.to_ticks(timescale)).unwrap_or(0)
}

/// A time in whole milliseconds, which is what an MPD's durations are written in.
fn whole_millis(time: MediaTime) -> MediaTime {
    MediaTime::from_nanos(time.as_nanos() / 1_000_000 * 1_000_000)
}

/// Segments of one rendition within a period.
struct Listed {
    segments: Vec<Arc<Segment>>,
    /// The length that the last one is expected to have, if it is being made.
    expected: Option<Duration>,
}

/// What a rendition lists between two times.
fn listed(
    presentation: &Presentation,
    rendition: &Rendition,
    from: MediaTime,
    to: Option<MediaTime>,
) -> Listed {
    let targets = presentation.targets();
    let settings = presentation.settings();
    let inside = |segment: &Segment| {
        let middle = segment.start + segment.duration / 2;
        middle >= from && to.is_none_or(|to| middle < to)
    };
    // The very first segment is short, and says nothing about the others.
    let shortest = settings.segment_duration.mul_f64(0.9);
    rendition.read(|held| {
        let first = held.listed_from();
        let mut segments: Vec<Arc<Segment>> =
            held.segments.iter().skip(first).filter(|s| inside(s)).cloned().collect();
        let open =
            held.open.as_ref().filter(|open| settings.low_latency && !open.parts.is_empty() && inside(open));
        let expected = open.map(|open| {
            let mut lengths = held.segments.iter().rev().map(|s| s.duration);
            let usual = lengths.find(|length| *length >= shortest).unwrap_or(targets.segment);
            usual.max(open.duration + targets.part)
        });
        segments.extend(open.cloned().map(Arc::new));
        // An initialization segment stands for the whole list: what needs another one is left out.
        if let Some(init) = segments.last().map(|s| s.init.number) {
            segments.retain(|s| s.init.number == init);
        }
        Listed { segments, expected }
    })
}

fn timeline(listed: &Listed, timescale: u32) -> dash::SegmentTimeline {
    let mut entries: Vec<dash::S> = Vec::new();
    let mut end = None;
    for (index, segment) in listed.segments.iter().enumerate() {
        let last = index + 1 == listed.segments.len();
        let duration = listed.expected.filter(|_| last).unwrap_or(segment.duration);
        let start = ticks(segment.start, timescale);
        let d = ticks(segment.start + duration, timescale) - start;
        match entries.last_mut() {
            Some(entry) if end == Some(start) && entry.d == d => entry.r = Some(entry.r.unwrap_or(0) + 1),
            _ => entries.push(dash::S { t: (end != Some(start)).then_some(start), d, ..Default::default() }),
        }
        end = Some(start + d);
    }
    dash::SegmentTimeline { segments: entries }
}

fn template(
    presentation: &Presentation,
    rendition: &Rendition,
    listed: &Listed,
    period: MediaTime,
    prefix: &str,
) -> Option<dash::SegmentTemplate> {
    let first = listed.segments.first()?;
    let timescale = first.init.parameters.clock_rate();
    let name = rendition.name();
    let early = listed.expected.map(|expected| expected.saturating_sub(presentation.part_target()));
    Some(dash::SegmentTemplate {
        timescale: Some(timescale.into()),
        presentationTimeOffset: Some(ticks(period, timescale)),
        media: Some(format!("{prefix}{name}-$Number$.m4s")),
        initialization: Some(format!("{prefix}{name}-i{}.mp4", first.init.number)),
        startNumber: Some(first.number),
        availabilityTimeOffset: early.map(|early| (early.as_secs_f64() * 1000.0).floor() / 1000.0),
        availabilityTimeComplete: early.map(|_| false),
        SegmentTimeline: Some(timeline(listed, timescale)),
        ..Default::default()
    })
}

fn representation(
    variant: &Variant,
    rendition: &Rendition,
    id: String,
    period: (MediaTime, Option<MediaTime>),
) -> Option<dash::Representation> {
    let listed = listed(&variant.presentation, rendition, period.0, period.1);
    let template = template(&variant.presentation, rendition, &listed, period.0, &variant.prefix)?;
    let parameters = &listed.segments.first()?.init.parameters;
    let (video, audio) = (parameters.video(), parameters.audio());
    let rate = video.and(frame_rate(rendition)).map(|rate| {
        let stated = video.and_then(|v| v.frame_rate);
        match stated {
            Some((num, den)) if num % den.max(1) != 0 => format!("{num}/{den}"),
            _ => format!("{}", rate.round().max(1.0)),
        }
    });
    Some(dash::Representation {
        id: Some(id),
        bandwidth: Some(rendition.bitrates()?.0.max(1)),
        mimeType: Some(if video.is_some() { "video/mp4" } else { "audio/mp4" }.into()),
        codecs: parameters.rfc6381(),
        width: video.map(|v| v.width.into()),
        height: video.map(|v| v.height.into()),
        frameRate: rate,
        audioSamplingRate: audio.map(|a| a.sample_rate.to_string()),
        AudioChannelConfiguration: audio.map(channels).into_iter().collect(),
        SegmentTemplate: Some(template),
        ..Default::default()
    })
}

fn channels(audio: &crate::frame::AudioParameters) -> dash::AudioChannelConfiguration {
    dash::AudioChannelConfiguration {
        schemeIdUri: "urn:mpeg:dash:23003:3:audio_channel_configuration:2011".into(),
        value: Some(audio.channels.to_string()),
        id: None,
    }
}

/// One period: a set of video in all qualities, and a set for each track of sound.
fn period(
    variants: &[Variant],
    main: &Variant,
    epoch: u64,
    span: (MediaTime, Option<MediaTime>),
    zero: MediaTime,
) -> dash::Period {
    let set = |id: usize, content: &str, representations: Vec<dash::Representation>| dash::AdaptationSet {
        id: Some(id.to_string()),
        contentType: Some(content.into()),
        segmentAlignment: Some(variants.len() == 1),
        startWithSAP: Some(1),
        representations,
        ..Default::default()
    };
    let mut sets = Vec::new();
    let video: Vec<dash::Representation> = variants
        .iter()
        .enumerate()
        .filter_map(|(index, variant)| {
            let rendition = variant.presentation.main().filter(|r| r.is_video())?;
            representation(variant, &rendition, format!("{}-{index}", rendition.name()), span)
        })
        .collect();
    if !video.is_empty() {
        sets.push(set(1, "video", video));
    }
    for rendition in main.presentation.renditions().iter().filter(|r| !r.is_video()) {
        if let Some(audio) = representation(main, rendition, rendition.name().to_owned(), span) {
            sets.push(set(rendition.id() as usize + 1, "audio", vec![audio]));
        }
    }
    let start = span.0.saturating_since(zero);
    dash::Period {
        id: Some(format!("p{epoch}")),
        start: Some(start),
        adaptations: sets,
        ..Default::default()
    }
}

/// The manifest as it is now: `variants[0]` is the stream itself. Made once for all who ask for the same.
pub fn manifest(variants: &[Variant], options: &MpdOptions) -> Arc<Text> {
    let make = || write(variants, options);
    let Some(main) = variants.first() else { return Arc::new(Text::new(make())) };
    let (mut version, mut kind) = (DefaultHasher::new(), DefaultHasher::new());
    for rendition in variants.iter().flat_map(|variant| variant.presentation.renditions().to_vec()) {
        (Arc::as_ptr(&rendition), rendition.version()).hash(&mut version);
    }
    options.hash(&mut kind);
    main.presentation.manifests.get(version.finish(), kind.finish(), make)
}

/// A time in whole milliseconds: more digits than that some players do not read.
fn date_time(time: MediaTime) -> dash::XsDatetime {
    let millis = u64::try_from(time.as_nanos() / 1_000_000).unwrap_or(0);
    (std::time::UNIX_EPOCH + Duration::from_millis(millis)).into()
}

fn write(variants: &[Variant], options: &MpdOptions) -> String {
    let Some(main) = variants.first() else { return String::new() };
    let presentation = &main.presentation;
    let settings = presentation.settings();
    let targets = presentation.targets();
    let first_epoch = presentation.main().and_then(|rendition| {
        rendition.read(|held| {
            let from = held.listed_from();
            held.segments.get(from).map(|s| s.epoch).or(held.open.as_ref().map(|o| o.epoch))
        })
    });
    let zero = presentation.first_start().unwrap_or(MediaTime::ZERO);
    let epochs = presentation.epochs_from(first_epoch.unwrap_or(0));
    let periods = epochs.iter().enumerate().map(|(index, (epoch, start))| {
        let end = epochs.get(index + 1).map(|(_, next)| whole_millis(*next));
        period(variants, main, *epoch, (whole_millis(*start).max(zero), end), zero)
    });
    let periods: Vec<dash::Period> = periods.filter(|p| !p.adaptations.is_empty()).collect();
    let low = settings.low_latency;
    // Whole ones: the schema knows no others.
    let millis = |duration: Duration| duration.as_millis() as f64;
    let delay = if low { targets.part * 3 + Duration::from_millis(900) } else { targets.segment * 3 };
    let update = if low {
        (targets.segment / 4).clamp(Duration::from_millis(500), Duration::from_secs(2))
    } else {
        targets.segment
    };
    let latency = dash::ServiceDescription {
        id: Some("0".into()),
        Latency: vec![dash::Latency {
            target: Some(millis(delay)),
            min: Some(millis(delay / 2)),
            max: Some(millis(delay * 4)),
            ..Default::default()
        }],
        PlaybackRate: vec![dash::PlaybackRate { min: Some(0.96), max: Some(1.04) }],
        ..Default::default()
    };
    let ended = presentation.main().is_some_and(|main| main.has_ended());
    let mpd = dash::MPD {
        xmlns: Some("urn:mpeg:dash:schema:mpd:2011".into()),
        profiles: Some("urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019".into()),
        mpdtype: Some("dynamic".into()),
        availabilityStartTime: Some(date_time(zero)),
        publishTime: Some(date_time(MediaTime::from_nanos(WallTime::now().as_unix_nanos()))),
        minimumUpdatePeriod: (!ended).then_some(update),
        minBufferTime: Some(if low { targets.part } else { targets.segment }),
        timeShiftBufferDepth: Some(presentation.kept_window()),
        suggestedPresentationDelay: Some(delay),
        maxSegmentDuration: Some(targets.segment + Duration::from_millis(500)),
        base_url: vec![dash::BaseURL { base: options.base.clone(), ..Default::default() }],
        locations: options.location.iter().map(|url| dash::Location { url: url.clone() }).collect(),
        ServiceDescription: if low { vec![latency] } else { Vec::new() },
        periods,
        UTCTiming: vec![dash::UTCTiming {
            schemeIdUri: "urn:mpeg:dash:utc:http-iso:2014".into(),
            value: Some(format!("{}time", options.base)),
            ..Default::default()
        }],
        ..Default::default()
    };
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{mpd}\n")
}
