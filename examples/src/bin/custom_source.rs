//! A source of one's own: a program that draws its pictures itself, here the smallest MJPEG camera there is.

use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;
use stream_manager_core::frame::{CodecParameters, MediaTime, VideoCodec, VideoParameters};
use stream_manager_core::hub::{HubWriter, RawFrame};
use stream_manager_core::manager::RecordJob;
use stream_manager_core::recording::Recording;
use stream_manager_core::source::{Source, SourceEnd, SourceError};
use tokio_util::sync::CancellationToken;

/// A grey 8x8 JPEG.
const PICTURE: &[u8] = &[
    0xff, 0xd8, 0xff, 0xdb, 0x00, 0x43, 0x00, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 0xff, 0xc0, 0x00, 0x0b, 0x08, 0x00, 0x08, 0x00, 0x08, 0x01, 0x01, 0x11, 0x00,
    0xff, 0xc4, 0x00, 0x14, 0x00, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0xff, 0xc4, 0x00,
    0x14, 0x10, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0xff, 0xda, 0x00, 0x08, 0x01, 0x01,
    0x00, 0x00, 0x3f, 0x00, 0x3f, 0xff, 0xd9,
];

struct Painter {
    fps: u32,
}

#[async_trait]
impl Source for Painter {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        hub.set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Mjpeg, 8, 8))]);
        let mut clock = tokio::time::interval(Duration::from_secs(1) / self.fps);
        for number in 0i64.. {
            if cancel.run_until_cancelled(clock.tick()).await.is_none() {
                break;
            }
            let pts = MediaTime::from_ticks(number, self.fps);
            hub.push(RawFrame::new(0, pts, Bytes::from_static(PICTURE)).keyframe(true))?;
        }
        Ok(SourceEnd::Cancelled)
    }

    fn address(&self) -> String {
        "painter".into()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recording = Recording::to_file("custom_source.mp4", None, true)?;
    let job = RecordJob::new(Box::new(Painter { fps: 10 }), recording).duration(Duration::from_secs(3));
    let report = job.run(CancellationToken::new(), |_| {}).await?;
    println!("{} frames in custom_source.mp4", report.progress.frames);
    Ok(())
}
