//! The seconds before: what has come lately, as it came, while nothing is recorded.
//!
//! Whole GOPs are kept, as many as reach back far enough and no more, and never more bytes than allowed: what is too much goes at the
//! front. The frames' payload is the hub's own memory, so a camera costs its bit rate times the length, and GOPs that have begun before.

use crate::frame::{Frame, MediaKind, MediaTime, Track};
use crate::hub::{HubItem, Input};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What has come lately.
#[derive(Debug)]
pub(super) struct PreRoll {
    length: Duration,
    max_bytes: u64,
    gops: VecDeque<Gop>,
    /// The tracks in front of the first GOP.
    tracks: Option<Arc<[Track]>>,
    /// The tracks at the end.
    current: Option<Arc<[Track]>>,
    /// Whose frames come in front of the first GOP, if that was said.
    input: Option<Input>,
    bytes: u64,
}

#[derive(Debug)]
struct Gop {
    begin: MediaTime,
    items: Vec<HubItem>,
    bytes: u64,
}

impl PreRoll {
    pub(super) fn new(length: Duration, max_bytes: u64) -> Self {
        Self { length, max_bytes, gops: VecDeque::new(), tracks: None, current: None, input: None, bytes: 0 }
    }

    /// Begins anew behind what has been recorded: the stream is this.
    pub(super) fn begin(&mut self, tracks: Option<Arc<[Track]>>, input: Input) {
        self.take();
        (self.tracks, self.current, self.input) = (tracks.clone(), tracks, Some(input));
    }

    /// Bytes of payload that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn begins(&self, frame: &Frame) -> bool {
        let tracks = self.current.iter().flat_map(|t| t.iter());
        let video = tracks.filter(|t| t.parameters.kind() == MediaKind::Video).map(|t| t.id).next();
        frame.keyframe && video.is_none_or(|video| video == frame.track)
    }

    pub(super) fn push(&mut self, item: HubItem) {
        match item {
            HubItem::Frame(frame) => {
                let length = frame.data.len() as u64;
                if self.begins(&frame) {
                    let begin = frame.dts;
                    self.drop_what_is_old(begin);
                    self.gops.push_back(Gop { begin, items: vec![HubItem::Frame(frame)], bytes: length });
                    self.bytes += length;
                } else if let Some(gop) = self.gops.back_mut() {
                    gop.items.push(HubItem::Frame(frame));
                    gop.bytes += length;
                    self.bytes += length;
                }
                while self.bytes > self.max_bytes && self.drop_first() {}
            }
            other => {
                if let HubItem::Tracks(tracks) = &other {
                    self.current = Some(tracks.clone());
                }
                match (self.gops.back_mut(), other) {
                    (Some(gop), other) => gop.items.push(other),
                    (None, HubItem::Tracks(tracks)) => self.tracks = Some(tracks),
                    (None, HubItem::Input(input)) => self.input = Some(input),
                    // Nothing is there of which this could be said.
                    (None, _) => {}
                }
            }
        }
    }

    /// GOPs are not needed any more if the one behind reaches back far enough.
    fn drop_what_is_old(&mut self, now: MediaTime) {
        while let Some(second) = self.gops.get(1) {
            if now.saturating_since(second.begin) < self.length || !self.drop_first() {
                break;
            }
        }
        if self.gops.len() == 1 && self.length.is_zero() {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) -> bool {
        let Some(gop) = self.gops.pop_front() else { return false };
        self.bytes -= gop.bytes;
        for item in gop.items {
            match item {
                HubItem::Tracks(tracks) => self.tracks = Some(tracks),
                HubItem::Input(input) => self.input = Some(input),
                _ => {}
            }
        }
        true
    }

    /// All of it, in order, with the tracks in front; it is empty afterwards.
    pub(super) fn take(&mut self) -> Vec<HubItem> {
        let tracks = self.tracks.take().map(HubItem::Tracks);
        let input = self.input.take().map(HubItem::Input);
        let items = self.gops.drain(..).flat_map(|gop| gop.items);
        let all = tracks.into_iter().chain(input).chain(items).collect();
        self.tracks = self.current.clone();
        self.bytes = 0;
        all
    }

    /// When the last frame came, on the stream's timeline.
    pub(super) fn newest(&self) -> Option<MediaTime> {
        let frames = self.gops.back()?.items.iter().rev();
        frames.filter_map(|item| if let HubItem::Frame(frame) = item { Some(frame.dts) } else { None }).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{CodecParameters, VideoCodec, VideoParameters};
    use crate::hub::{Hub, RawFrame, ReaderOptions};

    fn video(width: u32) -> CodecParameters {
        CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, width, 64))
    }

    /// 25 frames a second, a keyframe each second, 100 bytes each.
    fn items(frames: i64) -> Vec<HubItem> {
        let hub = Hub::default();
        let mut reader = hub.subscribe("test", ReaderOptions::default());
        let writer = hub.writer();
        writer.set_tracks([video(64)]);
        let mut items = Vec::new();
        for n in 0..frames {
            let mut data = vec![0; 100];
            data[..8].copy_from_slice(&n.to_be_bytes());
            let raw = RawFrame::new(0, MediaTime::from_nanos(n * 40_000_000), data);
            writer.push(raw.keyframe(n % 25 == 0)).unwrap();
            items.extend(std::iter::from_fn(|| reader.try_next()));
        }
        items
    }

    fn numbers(items: &[HubItem]) -> Vec<i64> {
        let number = |item: &HubItem| match item {
            HubItem::Frame(frame) => Some(i64::from_be_bytes(frame.data[..8].try_into().unwrap())),
            _ => None,
        };
        items.iter().filter_map(number).collect()
    }

    #[test]
    fn whole_gops_that_reach_back_far_enough() {
        let mut ring = PreRoll::new(Duration::from_secs(3), u64::MAX);
        for (n, item) in items(1000).into_iter().enumerate() {
            ring.push(item);
            let frames = n as i64;
            if frames > 200 {
                let kept = frames - 1 - ring.gops[0].begin.as_nanos() / 40_000_000;
                assert!((75..=75 + 25).contains(&(kept + 1)), "{kept} frames are kept at frame {frames}");
            }
        }
        let all = ring.take();
        assert!(matches!(all[0], HubItem::Tracks(_)));
        let numbers = numbers(&all);
        assert_eq!((numbers[0], numbers[numbers.len() - 1]), (900, 999));
        assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1));
        assert_eq!((ring.bytes(), ring.take().len()), (0, 1));
    }

    #[test]
    fn never_more_than_allowed() {
        let mut ring = PreRoll::new(Duration::from_secs(30), 6000);
        for item in items(500) {
            ring.push(item);
            assert!(ring.bytes() <= 6000, "{}", ring.bytes());
        }
        let numbers = numbers(&ring.take());
        assert_eq!((numbers[0] % 25, numbers.last()), (0, Some(&499)));
        // One GOP alone is too much: nothing, until the next keyframe.
        let mut ring = PreRoll::new(Duration::from_secs(30), 1000);
        items(45).into_iter().for_each(|item| ring.push(item));
        assert_eq!(ring.take().len(), 1);
    }

    #[test]
    fn tracks_are_those_of_what_is_kept() {
        let hub = Hub::default();
        let mut reader = hub.subscribe("test", ReaderOptions::default());
        let writer = hub.writer();
        writer.set_tracks([video(64)]);
        let mut ring = PreRoll::new(Duration::from_secs(1), u64::MAX);
        for n in 0..200i64 {
            if n == 100 {
                writer.set_parameters(0, video(32)).unwrap();
            }
            let raw = RawFrame::new(0, MediaTime::from_nanos(n * 40_000_000), vec![0; 8]);
            writer.push(raw.keyframe(n % 25 == 0)).unwrap();
            std::iter::from_fn(|| reader.try_next()).for_each(|item| ring.push(item));
        }
        let all = ring.take();
        let HubItem::Tracks(tracks) = &all[0] else { panic!("no tracks: {all:?}") };
        assert_eq!(tracks[0].parameters.video().unwrap().width, 32);
    }
}
