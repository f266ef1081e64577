//! Anything a source could hand over, through timeline and fragmenter: no panic, and decoding times in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::{Duration, Instant};
use stream_manager_core::fmp4::{Fragmenter, FragmenterOptions};
use stream_manager_core::frame::{AudioParameters, CodecParameters, MediaTime, VideoCodec, VideoParameters, WallTime};
use stream_manager_core::hub::{Hub, HubItem, RawFrame, ReaderOptions};

fuzz_target!(|data: &[u8]| {
    let (config, script) = data.split_at(data.len().min(64));
    let video = VideoParameters::h264(config.to_vec().into())
        .or_else(|_| VideoParameters::h265(config.to_vec().into()))
        .unwrap_or_else(|_| VideoParameters::new(VideoCodec::Vp9, 64, 64));
    let mut tracks = vec![CodecParameters::Video(video)];
    tracks.extend(AudioParameters::aac(config.to_vec().into()).map(CodecParameters::Audio));
    let hub = Hub::default();
    let mut reader = hub.subscribe("fuzz", ReaderOptions::default());
    let writer = hub.writer();
    writer.set_tracks(tracks);
    let Ok(mut fragmenter) = Fragmenter::new(&hub.tracks(), FragmenterOptions { part_duration: Duration::from_millis(200), ..FragmenterOptions::default() }) else {
        return;
    };
    let mut now = Instant::now();
    for step in script.chunks_exact(12) {
        let number = |at: usize| i64::from(i32::from_be_bytes([step[at], step[at + 1], step[at + 2], step[at + 3]]));
        let flags = step[8];
        if flags & 4 != 0 {
            writer.begin_session();
        }
        now += Duration::from_millis(u64::from(step[9]));
        let mut raw = RawFrame::new(u32::from(flags & 1), MediaTime::from_nanos(number(0) << (step[10] % 40)), step.to_vec())
            .keyframe(flags & 2 != 0);
        raw.dts = (flags & 8 != 0).then(|| MediaTime::from_nanos(number(4) << (step[11] % 40)));
        raw.pts = raw.pts.filter(|_| flags & 16 == 0);
        let _ = writer.push_at(raw, now, WallTime::from_unix_nanos(0));
        while let Some(item) = reader.try_next() {
            if let HubItem::Frame(frame) = item {
                assert!(frame.pts >= frame.dts);
                let _ = fragmenter.push(frame);
            }
        }
    }
    let _ = fragmenter.finish(None);
});
