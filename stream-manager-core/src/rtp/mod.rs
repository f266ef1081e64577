//! RTP (RFC 3550): access units into packets and back, for every protocol that carries them.
//!
//! Outward, a [`Packetizer`] turns a [`Frame`](crate::frame::Frame) of the hub into [`Packets`]: once per frame and stream, however
//! many readers there are. The headers are written into one small buffer; the payload stays where it is, in the
//! frame's own memory, and what is sent is a list of pieces of both. Inward, [`Reorder`] puts packets into order, a
//! [`Depacketizer`] makes access units of them, and a [`Receiver`] brings the tracks of one sender into the hub.
//! [`format`](mod@format) says how a codec is named in a session description (RFC 8866), both ways, [`rtcp`] makes
//! and reads the reports.
//!
//! | codec | payload format |
//! |---|---|
//! | H.264 | RFC 6184: single NAL unit, STAP-A, FU-A |
//! | H.265 | RFC 7798: single NAL unit, aggregation, fragmentation |
//! | AV1 | "RTP Payload Format For AV1", AOMedia |
//! | VP8, VP9 | RFC 7741, RFC 9628 |
//! | MJPEG | RFC 2435 |
//! | AAC | RFC 3640, mode AAC-hbr; inward also RFC 6416 (LATM) |
//! | Opus | RFC 7587 |
//! | G.711, L16 | RFC 3551 |
//! | MP3, AC-3 | RFC 2250, RFC 4184 |
//! | KLV, ONVIF metadata | RFC 6597, ONVIF Streaming Specification |

pub mod depacketize;
pub mod format;
mod packet;
pub mod packetize;
mod receiver;
mod reorder;
pub mod rtcp;
mod sdp;

#[cfg(feature = "rtmp")]
pub(crate) use depacketize::av1::parameters_of as av1_parameters;
pub(crate) use depacketize::shrink;
pub use depacketize::{AccessUnit, DepacketizeError, Depacketizer};
pub use packet::{HEADER_BYTES, INTERLEAVED_BYTES, PacketError, Packets, RtpPacket};
pub use packetize::{PacketizeError, Packetizer, PacketizerOptions};
pub use receiver::{Receiver, ReceiverStats};
pub use reorder::Reorder;
pub(crate) use sdp::read_sdp;

/// Whether so many frames that could not be packetized are worth a line in the log: the first, and then each time there are
/// ten times as many.
#[cfg(any(feature = "rtmp", feature = "rtsp", feature = "webrtc"))]
pub(crate) fn is_worth_a_line(count: u64) -> bool {
    count.checked_ilog10().is_some_and(|log| 10u64.pow(log) == count)
}
