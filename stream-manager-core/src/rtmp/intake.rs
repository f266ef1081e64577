//! From messages to frames: tracks as they become known, times that go on beyond 32 bits.
//!
//! Nobody says beforehand what a publisher sends. What comes first is held until there are picture and sound, or a second of one alone.

use super::flv::Message;
use crate::frame::{CodecParameters, MediaKind, MediaTime};
use crate::hub::{HubWriter, RawFrame};
use std::sync::Arc;
use std::time::Duration;

/// How long, by its own times, a publisher is waited for to send the other kind, too.
const PATIENCE_MS: i64 = 1000;
/// How far from its own time sound may be put, so that it goes on without a gap.
const NEAR: Duration = Duration::from_millis(40);
/// More frames than this do not wait.
const MAX_HELD: usize = 512;

/// 32 bits of milliseconds (RTMP 1.0 section 5.3.1.1), which begin anew after 49 days.
#[derive(Debug, Default)]
struct Clock {
    last: Option<(u32, i64)>,
}

impl Clock {
    fn time(&mut self, timestamp: u32) -> i64 {
        let time = match self.last {
            None => i64::from(timestamp),
            Some((last, time)) => time + i64::from(timestamp.wrapping_sub(last).cast_signed()),
        };
        self.last = Some((timestamp, time));
        time
    }
}

#[derive(Debug)]
struct Track {
    kind: MediaKind,
    parameters: Option<Arc<CodecParameters>>,
}

#[derive(Debug)]
struct Held {
    kind: MediaKind,
    frame: RawFrame,
}

/// What a publisher sends, on its way into a hub.
#[derive(Debug)]
pub(super) struct Intake {
    video: Track,
    audio: Track,
    /// Both kinds' times are of one clock.
    clock: Clock,
    /// The kinds that were announced, in the order of their tracks.
    announced: Vec<MediaKind>,
    held: Vec<Held>,
    begun: Option<i64>,
    /// When sound without a gap has begun, and its samples since then.
    sound: Option<(MediaTime, u64)>,
}

impl Intake {
    pub(super) fn new() -> Self {
        let track = |kind| Track { kind, parameters: None };
        let (video, audio) = (track(MediaKind::Video), track(MediaKind::Audio));
        Self {
            video,
            audio,
            clock: Clock::default(),
            announced: Vec::new(),
            held: Vec::new(),
            begun: None,
            sound: None,
        }
    }

    fn track(&mut self, kind: MediaKind) -> &mut Track {
        match kind {
            MediaKind::Video => &mut self.video,
            _ => &mut self.audio,
        }
    }

    /// Takes a message. Says why the hub did not take it, if it did not.
    pub(super) fn take(
        &mut self,
        kind: MediaKind,
        timestamp: u32,
        message: Message,
        hub: &HubWriter,
    ) -> Result<(), String> {
        let time = self.clock.time(timestamp);
        match message {
            Message::Nothing => Ok(()),
            Message::Parameters(parameters) => self.learn(kind, parameters, hub),
            Message::Frame { keyframe, composition_ms, data, parameters } => {
                if let Some(parameters) = parameters {
                    self.learn(kind, parameters, hub)?;
                }
                if self.track(kind).parameters.is_none() {
                    // Nobody could decode it.
                    return Ok(());
                }
                let at = |ms: i64| MediaTime::from_ticks(ms, 1000);
                let dts = (kind == MediaKind::Video).then(|| at(time));
                let mut frame = RawFrame::new(0, at(time + i64::from(composition_ms)), data);
                if kind == MediaKind::Audio {
                    frame.pts = Some(self.sound_at(at(time), frame.data.len()));
                }
                self.frame(kind, time, frame.dts(dts).keyframe(keyframe), hub)
            }
        }
    }

    /// When sound is heard: where the sound before it has ended, since milliseconds are too coarse for that, unless that is too far from
    /// what was said.
    fn sound_at(&mut self, said: MediaTime, bytes: usize) -> MediaTime {
        let Some(CodecParameters::Audio(sound)) = self.audio.parameters.as_deref() else { return said };
        let rate = u64::from(sound.sample_rate.max(1));
        let (begun, samples) = self.sound.unwrap_or((said, 0));
        let expected = begun + Duration::from_nanos(samples * 1_000_000_000 / rate);
        let apart = said.saturating_since(expected).max(expected.saturating_since(said));
        let (begun, samples) = if apart <= NEAR { (begun, samples) } else { (said, 0) };
        self.sound = sound.samples_per_frame(bytes).map(|more| (begun, samples + u64::from(more)));
        if samples == 0 { begun } else { expected }
    }

    fn learn(&mut self, kind: MediaKind, parameters: CodecParameters, hub: &HubWriter) -> Result<(), String> {
        let track = self.track(kind);
        if track.parameters.as_deref() == Some(&parameters) {
            return Ok(());
        }
        track.parameters = Some(Arc::new(parameters.clone()));
        match self.announced.iter().position(|announced| *announced == kind) {
            Some(number) => hub.set_parameters(number as u32, parameters).map_err(|e| e.to_string()),
            // It comes late.
            None if !self.announced.is_empty() => {
                self.announce(hub);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn frame(&mut self, kind: MediaKind, time: i64, frame: RawFrame, hub: &HubWriter) -> Result<(), String> {
        if !self.announced.is_empty() {
            return self.push(kind, frame, hub);
        }
        let begun = *self.begun.get_or_insert(time);
        self.held.push(Held { kind, frame });
        let both = self.video.parameters.is_some() && self.audio.parameters.is_some();
        let long = time - begun >= PATIENCE_MS || self.held.len() >= MAX_HELD;
        if !both && !long {
            return Ok(());
        }
        self.announce(hub);
        for Held { kind, frame } in std::mem::take(&mut self.held) {
            self.push(kind, frame, hub)?;
        }
        Ok(())
    }

    fn announce(&mut self, hub: &HubWriter) {
        let known = [&self.video, &self.audio];
        let known = known.iter().filter_map(|track| Some((track.kind, track.parameters.as_deref()?.clone())));
        let (kinds, parameters): (Vec<_>, Vec<_>) = known.unzip();
        self.announced = kinds;
        hub.set_tracks(parameters);
    }

    fn push(&self, kind: MediaKind, mut frame: RawFrame, hub: &HubWriter) -> Result<(), String> {
        let Some(number) = self.announced.iter().position(|announced| *announced == kind) else {
            return Ok(());
        };
        frame.track = number as u32;
        hub.push(frame).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{AudioCodec, AudioParameters, VideoCodec, VideoParameters};
    use crate::hub::{Hub, HubItem, HubReader};

    fn video(width: u32) -> Message {
        Message::Parameters(CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, width, 16)))
    }

    fn audio() -> Message {
        Message::Parameters(CodecParameters::Audio(AudioParameters::new(AudioCodec::Aac, 48_000, 1)))
    }

    fn frame(keyframe: bool, composition_ms: i32) -> Message {
        Message::Frame { keyframe, composition_ms, data: vec![1].into(), parameters: None }
    }

    /// Kinds of tracks, and times of frames since the first one, with their tracks.
    fn read(reader: &mut HubReader) -> (Vec<Vec<MediaKind>>, Vec<(u32, u64)>) {
        let (mut tracks, mut frames, mut first) = (Vec::new(), Vec::new(), None);
        while let Some(item) = reader.try_next() {
            match item {
                HubItem::Tracks(now) => tracks.push(now.iter().map(|t| t.parameters.kind()).collect()),
                HubItem::Frame(frame) => {
                    let since = frame.dts.saturating_since(*first.get_or_insert(frame.dts));
                    frames.push((frame.track.0, since.as_millis() as u64));
                }
                _ => {}
            }
        }
        (tracks, frames)
    }

    fn hub() -> (Hub, HubWriter, HubReader) {
        let hub = Hub::default();
        let (writer, reader) = (hub.writer(), hub.subscribe("test", Default::default()));
        writer.begin_session();
        (hub, writer, reader)
    }

    #[test]
    fn both_kinds_are_waited_for_and_nothing_is_lost() {
        let (_hub, writer, mut reader) = hub();
        let mut intake = Intake::new();
        let mut take = |kind, at, message| intake.take(kind, at, message, &writer).unwrap();
        take(MediaKind::Video, 0, video(32));
        // The clock begins anew in between.
        let start = u32::MAX - 50;
        take(MediaKind::Video, start, frame(true, 0));
        take(MediaKind::Video, start.wrapping_add(40), frame(false, 0));
        take(MediaKind::Audio, start.wrapping_add(40), audio());
        take(MediaKind::Audio, start.wrapping_add(60), frame(true, 0));
        take(MediaKind::Video, start.wrapping_add(80), frame(false, 0));
        let (tracks, frames) = read(&mut reader);
        assert_eq!(tracks, [[MediaKind::Video, MediaKind::Audio]]);
        assert_eq!(frames, [(0, 0), (0, 40), (1, 60), (0, 80)]);
    }

    #[test]
    fn sound_goes_on_where_it_has_ended() {
        let (_hub, writer, mut reader) = hub();
        let mut intake = Intake::new();
        let mut take = |at, message| intake.take(MediaKind::Audio, at, message, &writer).unwrap();
        take(0, audio());
        // Frames of 21.3 ms, of which the second is said to be at the first one's time, and then a gap.
        for at in [0, 0, 43, 64, 2000, 2021] {
            take(at, frame(true, 0));
        }
        let (_, frames) = read(&mut reader);
        let times: Vec<u64> = frames.iter().map(|(_, at)| *at).collect();
        assert_eq!(times, [0, 21, 42, 64, 2000, 2021]);
    }

    #[test]
    fn one_kind_alone_is_enough_after_a_while_and_the_other_may_come_late() {
        let (hub, writer, mut reader) = hub();
        let mut intake = Intake::new();
        let mut take = |kind, at, message| intake.take(kind, at, message, &writer).unwrap();
        // Without parameters nothing can be made of it.
        take(MediaKind::Video, 0, frame(true, 0));
        take(MediaKind::Video, 0, video(32));
        for number in 0..=25 {
            take(MediaKind::Video, number * 40, frame(number == 0, 0));
        }
        let (tracks, frames) = read(&mut reader);
        assert_eq!((tracks, frames.len()), (vec![vec![MediaKind::Video]], 26));
        take(MediaKind::Audio, 1040, audio());
        take(MediaKind::Audio, 1040, frame(true, 0));
        take(MediaKind::Video, 1080, video(64));
        take(MediaKind::Video, 1080, frame(true, 0));
        assert_eq!(hub.tracks()[0].parameters.video().unwrap().width, 64);
        assert_eq!(read(&mut reader).0.first().unwrap().len(), 2);
        assert!(hub.stats().last_frame.unwrap().elapsed() < Duration::from_secs(60));
    }
}
