//! The hub's promises: order, bounded queues, whole GOPs, parameters in order.

use super::*;
use crate::frame::{VideoCodec, VideoParameters};

fn video(width: u32) -> CodecParameters {
    CodecParameters::Video(VideoParameters::new(VideoCodec::H264, width, 2))
}

fn push(writer: &HubWriter, number: i64, gop: i64) {
    let raw = RawFrame::new(0, MediaTime::from_nanos(number * 40_000_000), number.to_be_bytes().to_vec());
    writer.push(raw.keyframe(number % gop == 0)).unwrap();
}

fn number(frame: &Frame) -> i64 {
    i64::from_be_bytes(frame.data[..8].try_into().unwrap())
}

fn drain(reader: &mut HubReader) -> Vec<String> {
    std::iter::from_fn(|| reader.try_next())
        .map(|item| match item {
            HubItem::Tracks(t) => format!("tracks {}", t[0].parameters.video().unwrap().width),
            HubItem::Frame(f) => number(&f).to_string(),
            HubItem::Input(input) => format!("{input:?}"),
            HubItem::Discontinuity => "gap".into(),
            HubItem::Lagged { frames, bytes } => format!("lost {frames} ({bytes} B)"),
        })
        .collect()
}

#[test]
fn a_late_reader_gets_the_kept_gop_or_waits_for_a_keyframe() {
    let hub = Hub::default();
    let writer = hub.writer();
    writer.set_tracks([video(4)]);
    (0..7).for_each(|n| push(&writer, n, 5));
    let mut with_gop = hub.subscribe("a", ReaderOptions::default());
    let mut live = hub.subscribe("b", ReaderOptions { start: StartAt::NextKeyframe, ..Default::default() });
    (7..11).for_each(|n| push(&writer, n, 5));
    assert_eq!(drain(&mut with_gop), ["tracks 4", "5", "6", "7", "8", "9", "10"]);
    assert_eq!(drain(&mut live), ["tracks 4", "10"]);
    assert_eq!(live.stats().dropped_frames, 0);
}

#[test]
fn a_slow_reader_loses_whole_gops_and_the_others_nothing() {
    let hub = Hub::default();
    let writer = hub.writer();
    writer.set_tracks([video(4)]);
    let limits = QueueLimits { frames: 12, bytes: 1 << 20 };
    let mut slow = hub.subscribe("slow", ReaderOptions { limits, ..Default::default() });
    let mut quick = hub.subscribe("quick", ReaderOptions::default());
    (0..23).for_each(|n| push(&writer, n, 5));
    // 0..12 fit; 12 does not, so 10 and 11 go with it, and everything until a keyframe finds room.
    let got = drain(&mut slow);
    assert_eq!(got[1..], (0..10).map(|n| n.to_string()).collect::<Vec<_>>()[..]);
    (23..27).for_each(|n| push(&writer, n, 5));
    assert_eq!(drain(&mut slow), ["lost 15 (120 B)", "25", "26"]);
    assert_eq!(slow.stats().dropped_frames, 15);
    assert_eq!(drain(&mut quick).len(), 28);
    assert_eq!(hub.consumers().len(), 2);
    drop(slow);
    assert_eq!(hub.consumers().len(), 1);
}

#[test]
fn a_frame_larger_than_the_limit_still_passes() {
    let hub = Hub::default();
    let writer = hub.writer();
    writer.set_tracks([video(4)]);
    let limits = QueueLimits { frames: 10, bytes: 4 };
    let mut reader = hub.subscribe("a", ReaderOptions { limits, ..Default::default() });
    push(&writer, 0, 1);
    assert_eq!(drain(&mut reader), ["tracks 4", "0"]);
}

#[test]
fn parameters_change_in_order() {
    let hub = Hub::default();
    let writer = hub.writer();
    writer.set_tracks([video(4)]);
    let mut reader = hub.subscribe("a", ReaderOptions::default());
    push(&writer, 0, 1);
    writer.set_parameters(0, video(8)).unwrap();
    writer.set_parameters(0, video(8)).unwrap();
    push(&writer, 1, 1);
    assert_eq!(drain(&mut reader), ["tracks 4", "0", "tracks 8", "1"]);
    assert!(matches!(
        writer.set_parameters(3, video(1)),
        Err(HubError::UnknownTrack { track: 3, tracks: 1 })
    ));
}

#[test]
fn a_new_session_is_a_gap_once_it_delivers() {
    let hub = Hub::default();
    let writer = hub.writer();
    writer.begin_session();
    writer.set_tracks([video(4)]);
    let mut reader = hub.subscribe("a", ReaderOptions::default());
    push(&writer, 0, 1);
    writer.begin_session();
    writer.begin_session();
    writer.set_tracks([video(4)]);
    assert_eq!(hub.silence(), None);
    push(&writer, 1, 1);
    assert_eq!(drain(&mut reader), ["tracks 4", "0", "gap", "1"]);
    assert_eq!(hub.stats().sessions, 3);
}

#[test]
fn a_gop_over_the_limit_is_not_kept() {
    let hub = Hub::new(HubOptions { gop_max_bytes: 30, ..HubOptions::default() });
    let writer = hub.writer();
    writer.set_tracks([video(4)]);
    (0..3).for_each(|n| push(&writer, n, 100));
    assert_eq!(hub.stats().gop_frames, 3);
    push(&writer, 3, 100);
    assert_eq!(hub.stats().gop_frames, 0);
    let mut reader = hub.subscribe("a", ReaderOptions::default());
    push(&writer, 4, 100);
    push(&writer, 100, 100);
    assert_eq!(drain(&mut reader), ["tracks 4", "100"]);
}

#[tokio::test]
async fn closing_ends_readers_after_their_queue() {
    let hub = Hub::default();
    let writer = hub.writer();
    writer.set_tracks([video(4)]);
    let mut reader = hub.subscribe("a", ReaderOptions::default());
    push(&writer, 0, 1);
    let waiting = tokio::spawn({
        let hub = hub.clone();
        async move { hub.closed().await }
    });
    hub.close();
    waiting.await.unwrap();
    hub.closed().await;
    assert!(matches!(reader.next().await, Some(HubItem::Tracks(_))));
    assert!(matches!(reader.next().await, Some(HubItem::Frame(_))));
    assert!(reader.next().await.is_none());
    assert!(hub.subscribe("late", ReaderOptions::default()).next().await.is_none());
}

#[test]
fn a_reader_is_woken_for_the_frame_that_it_waits_for() {
    let hub = Hub::default();
    let writer = hub.writer();
    // A codec without reordering: frames are decoded when they are shown.
    writer.set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 4, 2))]);
    let mut reader = hub.subscribe("part", ReaderOptions::default());
    assert!(matches!(reader.try_next(), Some(HubItem::Tracks(_))));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let at = Some(MediaTime::from_nanos(3 * 40_000_000));
    {
        let mut next = std::pin::pin!(reader.next_from(at));
        assert!(next.as_mut().poll(&mut context).is_pending());
        (0..3).for_each(|n| push(&writer, n, 5));
        assert!(next.as_mut().poll(&mut context).is_pending(), "woken too early");
        push(&writer, 3, 5);
        let item = next.as_mut().poll(&mut context);
        assert!(matches!(item, std::task::Poll::Ready(Some(HubItem::Frame(f))) if number(&f) == 0));
    }
    assert_eq!(drain(&mut reader), ["1", "2", "3"]);
    // What is no frame wakes it at once.
    let mut next = std::pin::pin!(reader.next_from(Some(MediaTime::from_nanos(i64::MAX))));
    assert!(next.as_mut().poll(&mut context).is_pending());
    writer.set_tracks([video(8)]);
    assert!(matches!(next.as_mut().poll(&mut context), std::task::Poll::Ready(Some(HubItem::Tracks(_)))));
}

mod inputs {
    use super::*;

    struct Both {
        hub: Hub,
        main: HubWriter,
        fallback: HubWriter,
        begun: Instant,
    }

    fn video(width: u32) -> CodecParameters {
        CodecParameters::Video(VideoParameters::new(VideoCodec::H264, width, 480))
    }

    fn both() -> Both {
        let hub = Hub::default();
        let (main, fallback) = (hub.writer(), hub.fallback_writer());
        for (writer, width) in [(&main, 640), (&fallback, 320)] {
            writer.begin_session();
            writer.set_tracks([video(width)]);
        }
        Both { hub, main, fallback, begun: Instant::now() }
    }

    impl Both {
        /// A frame that carries its own number.
        fn push(&self, writer: &HubWriter, ms: u64, key: bool, number: u8) {
            let at = self.begun + Duration::from_millis(ms);
            let raw =
                RawFrame::new(0, MediaTime::from_nanos(ms as i64 * 1_000_000), vec![number]).keyframe(key);
            writer.push_at(raw, at, WallTime::from_unix_nanos(0)).unwrap();
        }
    }

    /// What a reader gets, in short.
    fn read(reader: &mut HubReader) -> Vec<String> {
        std::iter::from_fn(|| reader.try_next())
            .map(|item| match item {
                HubItem::Tracks(tracks) => format!("{}", tracks[0].parameters.video().unwrap().width),
                HubItem::Frame(frame) => format!("{}@{}", frame.data[0], frame.pts.as_nanos() / 1_000_000),
                HubItem::Input(input) => format!("{input:?}"),
                HubItem::Discontinuity => "gap".into(),
                HubItem::Lagged { .. } => "lagged".into(),
            })
            .collect()
    }

    #[test]
    fn the_fallback_comes_with_its_gop_and_the_source_comes_back_with_a_keyframe() {
        let both = both();
        let mut reader = both.hub.subscribe("r", ReaderOptions::default());
        both.push(&both.main, 0, true, 1);
        both.push(&both.main, 40, false, 2);
        // Begun while the source is silent; its frames wait.
        both.push(&both.fallback, 2000, true, 100);
        both.push(&both.fallback, 2500, false, 101);
        assert_eq!(read(&mut reader), ["640", "1@0", "2@40"]);
        assert_eq!(*both.hub.input().borrow(), Input::Main);
        both.hub.stand_in(Duration::from_secs(1));
        // Where they belong: into the gap that the source has left.
        assert_eq!(read(&mut reader), ["Fallback", "320", "gap", "100@2000", "101@2500"]);
        assert_eq!(*both.hub.input().borrow(), Input::Fallback);
        both.push(&both.fallback, 3000, false, 102);
        // The source comes back: only a keyframe of it after a second will do.
        for (ms, key, number) in [(3100, true, 3), (3600, false, 4), (4000, false, 5), (4100, false, 6)] {
            both.push(&both.main, ms, key, number);
        }
        assert_eq!(read(&mut reader), ["102@3000"]);
        both.push(&both.main, 4140, true, 7);
        both.push(&both.fallback, 4150, true, 103);
        both.push(&both.main, 4180, false, 8);
        assert_eq!(read(&mut reader), ["Main", "640", "gap", "7@4140", "8@4180"]);
        assert_eq!(both.hub.stats().frames, 7);
    }

    #[test]
    fn a_source_with_pauses_is_not_back_and_one_that_comes_in_time_stays() {
        let both = both();
        let mut reader = both.hub.subscribe("r", ReaderOptions::default());
        both.push(&both.main, 0, true, 1);
        // Nothing of the fallback is there yet: it will be let in with its next keyframe ...
        both.hub.stand_in(Duration::from_secs(2));
        both.push(&both.fallback, 50, false, 100);
        // ... unless the source is quicker.
        both.push(&both.main, 60, false, 2);
        both.push(&both.fallback, 90, true, 101);
        assert_eq!(read(&mut reader), ["640", "1@0", "2@60"]);
        both.hub.stand_in(Duration::from_secs(2));
        assert_eq!(read(&mut reader).len(), 4);
        for ms in [1000, 1900, 3500, 4400, 5300] {
            both.push(&both.main, ms, true, 3);
        }
        // Two seconds without a pause of one: from 3500 on.
        assert_eq!(read(&mut reader), Vec::<String>::new());
        both.push(&both.main, 5600, true, 4);
        assert_eq!(read(&mut reader).last().unwrap(), "4@5600");
    }

    #[test]
    fn who_comes_meanwhile_is_told() {
        let both = both();
        both.push(&both.main, 0, true, 1);
        both.push(&both.fallback, 100, true, 100);
        both.hub.stand_in(Duration::ZERO);
        let mut reader = both.hub.subscribe("r", ReaderOptions::default());
        assert_eq!(read(&mut reader), ["Fallback", "320", "100@100"]);
        assert_eq!(both.hub.source_tracks()[0].video().unwrap().width, 640);
        // What the source says of its tracks is known, and waits for its turn.
        both.main.begin_session();
        both.main.set_tracks([video(800)]);
        assert_eq!(both.hub.tracks()[0].parameters.video().unwrap().width, 320);
        assert!(both.main.set_parameters(1, video(8)).is_err());
        both.main.set_parameters(0, video(1024)).unwrap();
        both.push(&both.main, 500, true, 2);
        assert_eq!(read(&mut reader), ["Main", "1024", "gap", "2@500"]);
    }
}
