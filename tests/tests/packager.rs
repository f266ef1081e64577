//! The packager by itself, fed by hand: whatever comes, playlists keep the rules, and what is made once serves all.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream_manager_core::config::HlsSettings;
use stream_manager_core::fmp4::scan;
use stream_manager_core::frame::{
    AudioCodec, AudioParameters, CodecParameters, MediaTime, VideoCodec, VideoParameters, WallTime,
};
use stream_manager_core::hls::{
    Have, LiveReader, MpdOptions, Packager, PlaylistOptions, Presentation, Variant, manifest, media_playlist,
};
use stream_manager_core::hub::{Hub, HubWriter, RawFrame, ReaderOptions};
use stream_manager_core::sink::Sink;
use stream_manager_tests::playlist::{Playlist, check_update, length, parse};
use tokio_util::sync::CancellationToken;

/// 2023-11-14, so that wall clocks look like some.
const START: i64 = 1_700_000_000_000_000_000;

struct Feed {
    hub: Hub,
    writer: HubWriter,
    packager: Packager,
    began: Instant,
    /// Nanoseconds since the beginning.
    now: i64,
    audio: bool,
    sound: i64,
}

fn video(width: u32) -> CodecParameters {
    CodecParameters::Video(VideoParameters::new(VideoCodec::Vp9, width, 64))
}

fn audio() -> CodecParameters {
    CodecParameters::Audio(AudioParameters::new(AudioCodec::Opus, 48_000, 2))
}

impl Feed {
    fn start(settings: HlsSettings, audio: bool) -> Self {
        let hub = Hub::default();
        let (packager, mut sink) = Packager::new(settings, "cam".into());
        let reader = hub.subscribe("hls", ReaderOptions::default());
        tokio::spawn(async move { sink.run(reader, CancellationToken::new()).await });
        let feed =
            Self { writer: hub.writer(), hub, packager, began: Instant::now(), now: 0, audio, sound: 0 };
        feed.writer.begin_session();
        feed.tracks(64);
        feed
    }

    fn tracks(&self, width: u32) {
        let sound = self.audio.then(audio);
        self.writer.set_tracks([video(width)].into_iter().chain(sound));
    }

    fn push(&self, track: u32, at: i64, keyframe: bool, bytes: usize) {
        let raw =
            RawFrame::new(track, MediaTime::from_nanos(at), vec![track as u8; bytes]).keyframe(keyframe);
        let now = self.began + Duration::from_nanos(self.now as u64);
        self.writer.push_at(raw, now, WallTime::from_unix_nanos(START + self.now)).unwrap();
    }

    /// One picture, and the sound that goes with it; lets the packager work.
    async fn frame(&mut self, keyframe: bool, length: Duration) {
        self.push(0, self.now, keyframe, if keyframe { 3000 } else { 500 });
        self.now += length.as_nanos() as i64;
        while self.audio && self.sound < self.now {
            self.push(1, self.sound, true, 100);
            self.sound += 20_000_000;
        }
        self.settle().await;
    }

    async fn settle(&self) {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
            if self.hub.consumers().iter().all(|(_, stats)| stats.queued_frames == 0) {
                // What was taken last is worked on without a pause.
                return tokio::task::yield_now().await;
            }
        }
        panic!("the packager does not read");
    }

    fn presentation(&self) -> Option<Arc<Presentation>> {
        self.packager.now()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// So many frames of so many milliseconds.
    Gop(usize, u64),
    /// The camera was gone for so many milliseconds.
    Lost(u64),
    /// Another picture size.
    Resize(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1usize..60, prop_oneof![Just(40u64), Just(33), Just(83), Just(1000)]).prop_map(|(n, ms)| Step::Gop(n, ms)),
        1 => (100u64..20_000).prop_map(Step::Lost),
        1 => (1u32..5).prop_map(|n| Step::Resize(n * 64)),
    ]
}

#[derive(Default)]
struct Seen {
    playlists: HashMap<String, Playlist>,
    states: usize,
}

impl Seen {
    /// Every rendition's playlist against the rules, against the one before, and against what can be had.
    fn look(&mut self, presentation: &Arc<Presentation>) {
        let variant = Variant { presentation: presentation.clone(), prefix: String::new() };
        for rendition in presentation.renditions().iter() {
            if !rendition.has_segment() {
                continue;
            }
            let text = media_playlist(presentation, rendition, PlaylistOptions::default());
            let text = String::from_utf8(text.plain().to_vec()).unwrap();
            let playlist = parse(&text);
            for segment in playlist.segments.iter().chain(&playlist.open) {
                let held = rendition.segment(segment.number).expect("a listed segment cannot be had");
                assert!(rendition.init(held.init.number).is_some());
                assert_eq!(segment.map, format!("{}-i{}.mp4", rendition.name(), held.init.number));
                for (index, part) in segment.parts.iter().enumerate() {
                    let held = rendition.part_of(segment.number, index).expect("a listed part cannot be had");
                    assert_eq!(part.2, held.independent);
                    let name = part.1.strip_prefix(&format!("{}-p", rendition.name())).unwrap();
                    let number = name.strip_suffix(".m4s").unwrap().parse().unwrap();
                    let by_name = rendition.part(number).expect("a listed part cannot be had by its name");
                    assert!(std::sync::Arc::ptr_eq(&held, &by_name));
                }
                assert_eq!(rendition.have(segment.number, Some(0)), Have::Now);
            }
            // What a player that knows the older ones gets is the same without them.
            let options = PlaylistOptions { skip: true, ..PlaylistOptions::default() };
            let delta = media_playlist(presentation, rendition, options);
            let delta = parse(std::str::from_utf8(&delta.plain()).unwrap());
            assert_eq!(delta.skipped as usize + delta.segments.len(), playlist.segments.len(), "{text}");
            for (new, full) in delta.segments.iter().zip(&playlist.segments[delta.skipped as usize..]) {
                assert_eq!((new.number, &new.uri), (full.number, &full.uri));
            }
            if let Some(before) = self.playlists.get(rendition.name()) {
                check_update(before, &playlist);
            }
            self.playlists.insert(rendition.name().to_owned(), playlist);
            self.states += 1;
        }
        let mpd = manifest(&[variant], &MpdOptions::default());
        assert!(mpd.plain().starts_with(b"<?xml"));
    }
}

async fn whatever_comes(steps: Vec<Step>, audio: bool, low_latency: bool) {
    let settings = HlsSettings { low_latency, always: true, ..HlsSettings::default() };
    let mut feed = Feed::start(settings.clone(), audio);
    let mut seen = Seen::default();
    let mut width = 64;
    for step in steps {
        match step {
            Step::Gop(frames, ms) => {
                for n in 0..frames {
                    feed.frame(n == 0, Duration::from_millis(ms)).await;
                    if let Some(presentation) = feed.presentation() {
                        if n % 3 == 0 || frames < 5 {
                            seen.look(&presentation);
                        }
                        assert!(presentation.held_bytes() <= settings.max_bytes);
                    }
                }
            }
            Step::Lost(ms) => {
                feed.now += ms as i64 * 1_000_000;
                feed.sound = feed.now;
                feed.writer.begin_session();
            }
            Step::Resize(to) if to != width => {
                width = to;
                feed.tracks(to);
            }
            Step::Resize(_) => {}
        }
    }
}

/// Longer GOPs make the window longer; what is no longer listed does not come back for that.
#[tokio::test]
async fn longer_gops_do_not_bring_back_what_was_listed() {
    let gops = [(8, 1000), (25, 1000), (46, 33), (37, 40), (55, 1000), (13, 40), (31, 1000)];
    let steps = gops.map(|(frames, ms)| Step::Gop(frames, ms)).to_vec();
    whatever_comes(steps, true, false).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn playlists_keep_the_rules_whatever_comes(
        steps in proptest::collection::vec(step(), 1..12), audio in any::<bool>(), low_latency in any::<bool>()
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(whatever_comes(steps, audio, low_latency));
    }
}

/// With a steady camera nothing that a playlist promises ever changes, parts are as long as promised, and what is listed is
/// the window.
#[tokio::test]
async fn a_steady_camera_s_promises_hold() {
    let settings = HlsSettings { always: true, ..HlsSettings::default() };
    let mut feed = Feed::start(settings, true);
    let mut targets = std::collections::HashSet::new();
    for n in 0..25 * 60 {
        feed.frame(n % 50 == 0, Duration::from_millis(40)).await;
        let Some(presentation) = feed.presentation() else { continue };
        for rendition in presentation.renditions().iter().filter(|r| r.has_segment()) {
            let text = media_playlist(&presentation, rendition, PlaylistOptions::default());
            let playlist = parse(std::str::from_utf8(&text.plain()).unwrap());
            targets.insert((playlist.target, playlist.part_target.map(|t| (t * 1e5) as u64)));
            for segment in &playlist.segments {
                let target = playlist.part_target.unwrap();
                // All but the last of a segment (RFC 8216bis section 4.4.4.9).
                for part in segment.parts.iter().rev().skip(1) {
                    assert!(part.0 >= target * 0.85, "a part of {} s; the target is {target}", part.0);
                }
            }
            if n > 25 * 30 {
                assert!((12.0..=16.0).contains(&length(&playlist).as_secs_f64()), "{:?}", length(&playlist));
            }
        }
    }
    assert_eq!(targets.len(), 1, "promises have changed: {targets:?}");
    let presentation = feed.presentation().unwrap();
    // Twice the window, and what is being made: 25 frames of about 600 bytes a second, and sound.
    assert!(presentation.held_bytes() < 40 * (25 * 900 + 50 * 250), "{} bytes", presentation.held_bytes());
    let status = feed.packager.status();
    assert_eq!(status.renditions.len(), 2);
    assert_eq!(status.renditions[0].codecs.as_deref(), Some("vp09.00.10.08"));
}

/// A camera that sends more than may be held, with keyframes far apart: the bound holds at every moment, and what is listed can
/// be had.
#[tokio::test]
async fn what_is_held_is_bounded() {
    let max_bytes = 200_000;
    let settings = HlsSettings { always: true, max_bytes, ..HlsSettings::default() };
    let mut feed = Feed::start(settings, true);
    let (mut seen, mut most) = (Seen::default(), 0);
    for n in 0..1500 {
        // 25 frames of 1,100 bytes a second; a minute of it is eight times what may be held.
        feed.frame(n % 500 == 0, Duration::from_millis(40)).await;
        feed.push(0, feed.now - 20_000_000, false, 600);
        let Some(presentation) = feed.presentation() else { continue };
        most = most.max(presentation.held_bytes());
        assert!(presentation.held_bytes() <= max_bytes, "{} bytes are held", presentation.held_bytes());
        if n % 25 == 0 {
            seen.look(&presentation);
        }
    }
    assert!(most > max_bytes / 2, "{most} bytes at most: the bound was never near");
}

/// Segments are whole files with their initialization segment, and parts are nothing else than pieces of them.
#[tokio::test]
async fn parts_are_pieces_and_segments_are_whole() {
    let mut feed = Feed::start(HlsSettings { always: true, ..HlsSettings::default() }, true);
    for n in 0..250 {
        feed.frame(n % 25 == 0, Duration::from_millis(40)).await;
    }
    let presentation = feed.presentation().unwrap();
    for rendition in presentation.renditions().iter() {
        let mut end = None;
        let text = media_playlist(&presentation, rendition, PlaylistOptions::default());
        for entry in parse(std::str::from_utf8(&text.plain()).unwrap()).segments {
            let segment = rendition.segment(entry.number).unwrap();
            let mut file = segment.init.data.to_vec();
            segment.parts.iter().for_each(|part| file.extend_from_slice(&part.data));
            let scan = scan(&mut std::io::Cursor::new(file)).unwrap();
            assert!(scan.is_whole());
            assert_eq!(scan.parts.len(), segment.parts.len());
            let start = scan.parts[0].start;
            if let Some(end) = end {
                let gap: f64 = start.as_secs_f64() - end;
                assert!(gap.abs() < 0.001, "a gap of {gap} s before {}", entry.uri);
            }
            end =
                Some(start.as_secs_f64() + scan.parts.iter().map(|p| p.duration.as_secs_f64()).sum::<f64>());
            // UTC, within what the camera's first frame says.
            assert!((start.as_secs_f64() - 1_700_000_000.0).abs() < 60.0, "{start:?}");
        }
    }
}

/// All who read along get the same parts, each at its own time zero, and one that was away goes on with a keyframe.
#[tokio::test]
async fn readers_begin_with_a_keyframe_and_are_brought_forward() {
    let mut feed = Feed::start(HlsSettings { always: true, ..HlsSettings::default() }, true);
    for n in 0..60 {
        feed.frame(n % 25 == 0, Duration::from_millis(40)).await;
    }
    let presentation = feed.presentation().unwrap();
    let mut reader = LiveReader::new(presentation.clone());
    let items = reader.take().unwrap();
    assert!(items[0].sync && items[0].track == 1);
    let tracks = reader.tracks_before(&items[0]).unwrap().unwrap();
    assert_eq!(tracks.mime, "video/mp4; codecs=\"vp09.00.10.08, opus\"");
    let mut file = tracks.init.to_vec();
    for item in &items {
        assert!(reader.tracks_before(item).unwrap().is_none());
        if let Some(part) = reader.pieces(item) {
            file.extend_from_slice(&part.header);
            file.extend_from_slice(&part.payload);
            assert_eq!(
                part.payload.as_ptr_range().end,
                item.part.data.as_ptr_range().end,
                "the payload was copied"
            );
        }
    }
    let scan = scan(&mut std::io::Cursor::new(file)).unwrap();
    assert!(scan.is_whole() && scan.parts[0].start < Duration::from_millis(1) && scan.tracks.len() == 2);
    for n in 0..25 * 30 {
        feed.frame(n % 25 == 0, Duration::from_millis(40)).await;
    }
    let items = reader.take().unwrap();
    assert!(items[0].sync && reader.skipped() > 0, "{}", reader.skipped());
    assert!(reader.take().unwrap().is_empty());
}

/// Nobody watches: nothing is read. The last one has gone: it ends.
#[tokio::test]
async fn it_works_only_while_somebody_watches() {
    let settings = HlsSettings { idle_timeout: Duration::from_millis(300), ..HlsSettings::default() };
    let mut feed = Feed::start(settings, false);
    for n in 0..30 {
        feed.frame(n % 25 == 0, Duration::from_millis(40)).await;
    }
    assert!(feed.presentation().is_none());
    assert!(feed.hub.consumers().is_empty(), "it reads without a viewer");
    let packager = feed.packager.clone();
    let asked = tokio::spawn(async move { packager.present(Duration::from_secs(5)).await });
    for n in 30..60 {
        feed.frame(n % 25 == 0, Duration::from_millis(40)).await;
    }
    let presentation = asked.await.unwrap().unwrap();
    assert!(presentation.main().unwrap().has_segment());
    let gone = async {
        while !feed.hub.consumers().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it goes on without a viewer");
    let off = HlsSettings { enabled: false, ..HlsSettings::default() };
    feed.packager.configure(off);
    assert!(feed.packager.present(Duration::from_secs(1)).await.is_err());
}
