//! A track of metadata that is made here, beside those of the source: what is seen in the pictures, say.
//!
//! It stands behind the source's tracks wherever these are listed, and goes with them when the source is gone. Its frames have the times
//! of the pictures that they are of, and come later than those.

use super::{Hub, Inner};
use crate::frame::{CodecParameters, Frame, MediaTime, TrackId, WallTime};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// The track, and the time of its last frame.
#[derive(Debug)]
pub(super) struct DataTrack {
    pub(super) parameters: Arc<CodecParameters>,
    last: Option<MediaTime>,
}

impl Hub {
    /// Adds a track of metadata to whatever the source has. There is one at most; another one takes its place.
    pub fn set_data_track(&self, parameters: CodecParameters) {
        let mut inner = self.shared.inner.lock();
        inner.data = Some(DataTrack { parameters: Arc::new(parameters), last: None });
        inner.apply_tracks();
    }

    /// Puts metadata of this time, whose picture arrived then, into [the track](Self::set_data_track) for it. What is not behind the
    /// last one is left out, and all while the source has no tracks. Says whether it went in.
    pub fn push_data(&self, pts: MediaTime, arrived: WallTime, data: impl Into<Bytes>) -> bool {
        let mut inner = self.shared.inner.lock();
        inner.push_data(pts, arrived, data.into(), self.shared.options.gop_max_bytes)
    }
}

impl Inner {
    /// Where it stands, if the stream has it now.
    fn data_track(&self) -> Option<TrackId> {
        let data = self.data.as_ref()?;
        self.tracks.last().filter(|last| Arc::ptr_eq(&last.parameters, &data.parameters)).map(|last| last.id)
    }

    fn push_data(
        &mut self,
        pts: MediaTime,
        wall_clock: WallTime,
        bytes: Bytes,
        gop_max_bytes: usize,
    ) -> bool {
        let Some(track) = self.data_track() else { return false };
        let Some(data) = &mut self.data else { return false };
        if data.last.is_some_and(|last| pts <= last) {
            return false;
        }
        data.last = Some(pts);
        let frame = Frame {
            track,
            keyframe: true,
            parameters: data.parameters.clone(),
            pts,
            dts: pts,
            wall_clock,
            ntp: None,
            data: bytes,
        };
        self.accept(&frame, Instant::now(), gop_max_bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{DataCodec, DataParameters, VideoCodec, VideoParameters};
    use crate::hub::{HubError, HubItem, RawFrame, ReaderOptions};

    #[tokio::test]
    async fn it_stands_behind_the_sources_tracks() {
        let hub = Hub::default();
        let onvif = CodecParameters::Data(DataParameters { codec: DataCodec::Onvif });
        hub.set_data_track(onvif.clone());
        assert!(hub.tracks().is_empty() && !hub.push_data(MediaTime::ZERO, WallTime::now(), "early"));
        let writer = hub.writer();
        writer.begin_session();
        writer.set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 640, 360))]);
        assert_eq!(hub.tracks().len(), 2);
        assert_eq!(*hub.tracks()[1].parameters, onvif);
        let mut reader = hub.subscribe("test", ReaderOptions::default());
        writer.push(RawFrame::new(0, MediaTime::ZERO, vec![0u8]).keyframe(true)).unwrap();
        // The track is not the source's.
        let foreign = writer.push(RawFrame::new(1, MediaTime::ZERO, vec![0u8]));
        assert_eq!(foreign, Err(HubError::UnknownTrack { track: 1, tracks: 1 }));
        let second = MediaTime::from_nanos(1_000_000_000);
        assert!(hub.push_data(second, WallTime::now(), "<a/>"));
        assert!(!hub.push_data(second, WallTime::now(), "again"));
        let mut frames = Vec::new();
        while let Some(item) = reader.try_next() {
            if let HubItem::Frame(frame) = item {
                frames.push((frame.track.0, frame.data.len()));
            }
        }
        assert_eq!(frames, [(0, 1), (1, 4)]);
        // Its parameters stay when the picture's change, and it goes and comes with the source's.
        let larger = CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 1280, 720));
        writer.set_parameters(0, larger).unwrap();
        assert_eq!(*hub.tracks()[1].parameters, onvif);
        hub.rest();
        assert!(hub.tracks().is_empty());
        writer.begin_session();
        writer.set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 640, 360))]);
        assert!(hub.push_data(second + std::time::Duration::from_secs(1), WallTime::now(), "<b/>"));
    }
}
