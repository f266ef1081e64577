//! What flows through the library: one encoded access unit at a time.
//!
//! A [`Frame`] is made by a source, passes the stream's [hub](crate::hub) and reaches every sink as
//! it is: its payload and its [`CodecParameters`] are shared by reference and never copied. A stream
//! is a set of [`Track`]s; every frame belongs to exactly one of them.
//!
//! Payload formats are fixed so that no sink has to guess:
//!
//! | codec | payload of one frame |
//! |---|---|
//! | H.264, H.265 | one access unit, NAL units with a 4-byte big-endian length each (ISO/IEC 14496-15) |
//! | AV1 | one temporal unit of OBUs with size fields, without temporal delimiter |
//! | VP8, VP9 | one frame as in RFC 7741 / RFC 9628 payloads after depacketizing |
//! | MJPEG | one JFIF image |
//! | AAC | one raw access unit, no ADTS (ISO/IEC 14496-3) |
//! | Opus, MP3, AC-3 | one codec frame |
//! | G.711, L16 | samples, L16 in network byte order (RFC 3551) |
//! | KLV, ONVIF | one message |

mod bits;
mod codec;
mod info;
mod time;
mod track;

pub(crate) use bits::BitReader;
pub use codec::{AudioCodec, Codec, DataCodec, UnknownCodec, VideoCodec};
pub use info::TrackInfo;
pub use time::{MediaTime, WallTime};
#[cfg(test)]
pub(crate) use track::tests::AVCC;
pub use track::{
    AudioParameters, CodecParameters, DataParameters, MediaKind, ParametersError, Track, TrackId,
    VideoParameters,
};

use bytes::Bytes;
use std::sync::Arc;

/// One encoded access unit (ISO/IEC 14496-12: "sample") of one track.
///
/// Cloning is cheap: the payload and the parameters are reference-counted.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The track this frame belongs to.
    pub track: TrackId,
    /// The codec parameters this frame was encoded with.
    pub parameters: Arc<CodecParameters>,
    /// When to show it, on the stream's timeline.
    pub pts: MediaTime,
    /// When to decode it. Strictly increasing within a track.
    pub dts: MediaTime,
    /// When it reached this process by the local wall clock.
    pub wall_clock: WallTime,
    /// When the sender says it was captured (RTCP sender reports), if it says so.
    pub ntp: Option<WallTime>,
    /// Whether decoding can start here. True for every audio and data frame.
    pub keyframe: bool,
    /// The payload; see the module's table for its format.
    pub data: Bytes,
}

impl Frame {
    /// The codec of this frame's track.
    pub fn codec(&self) -> Codec {
        self.parameters.codec()
    }

    /// Whether this is a frame of a video track.
    pub fn is_video(&self) -> bool {
        self.parameters.kind() == MediaKind::Video
    }
}
