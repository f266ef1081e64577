//! Access units to RTP packets.
//!
//! One [`Packetizer`] a track. It numbers the packets, turns the stream's timeline into RTP timestamps and splits
//! each frame as its payload format wants. No payload byte is copied.

mod av1;
mod h26x;
mod jpeg;
mod simple;
mod vpx;

use super::format;
use super::packet::{HEADER_BYTES, PacketWriter, Packets};
use crate::frame::{Codec, CodecParameters, DataCodec, Frame, MediaTime, VideoCodec};

/// Smaller packets are mostly headers.
const MIN_PACKET_BYTES: usize = 100;

/// Settings of a packetizer.
#[derive(Clone, Copy, Debug)]
pub struct PacketizerOptions {
    /// The largest packet, RTP header included.
    pub packet_bytes: usize,
    /// Who sends it; random if not set.
    pub ssrc: Option<u32>,
    /// The timestamp at the timeline's zero; random if not set (RFC 3550 section 5.1).
    pub timestamp: Option<u32>,
    /// The first packet's number; random if not set.
    pub sequence: Option<u16>,
}

impl Default for PacketizerOptions {
    /// 1440 bytes: an Ethernet frame's 1500 less IPv6 and UDP headers, and room for a tunnel.
    fn default() -> Self {
        Self { packet_bytes: 1440, ssrc: None, timestamp: None, sequence: None }
    }
}

/// Why a frame cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {codec} frame of {bytes} bytes cannot be sent by RTP: {problem}")]
pub struct PacketizeError {
    /// The codec.
    pub codec: Codec,
    /// The frame's size.
    pub bytes: usize,
    /// What is wrong.
    pub problem: &'static str,
}

/// Makes packets of one track's frames.
///
/// ```
/// use stream_manager_core::frame::{AudioCodec, AudioParameters, CodecParameters};
/// use stream_manager_core::rtp::{Packetizer, PacketizerOptions};
/// let opus = CodecParameters::Audio(AudioParameters::new(AudioCodec::Opus, 48_000, 2));
/// let packetizer = Packetizer::new(0, &opus, PacketizerOptions::default());
/// assert_eq!(packetizer.clock_rate(), 48_000);
/// ```
#[derive(Debug)]
pub struct Packetizer {
    track: usize,
    codec: Codec,
    payload_type: u8,
    clock_rate: u32,
    ssrc: u32,
    offset: u32,
    sequence: u16,
    max: usize,
    packets: u32,
    octets: u32,
}

impl Packetizer {
    /// For the track with this number in the session description.
    pub fn new(track: usize, parameters: &CodecParameters, options: PacketizerOptions) -> Self {
        Self {
            track,
            codec: parameters.codec(),
            payload_type: format::payload_type(track, parameters),
            clock_rate: format::clock_rate(parameters),
            ssrc: options.ssrc.unwrap_or_else(|| fastrand::u32(1..)),
            offset: options.timestamp.unwrap_or_else(|| fastrand::u32(..)),
            sequence: options.sequence.unwrap_or_else(|| fastrand::u16(..)),
            max: options.packet_bytes.clamp(MIN_PACKET_BYTES, 65_000) - HEADER_BYTES,
            packets: 0,
            octets: 0,
        }
    }

    /// Ticks per second of its timestamps.
    pub fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// Who sends it.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The next packet's number.
    pub fn sequence(&self) -> u16 {
        self.sequence
    }

    /// The timestamp of a moment on the stream's timeline.
    pub fn timestamp(&self, time: MediaTime) -> u32 {
        // Wraps, as it is meant to.
        (time.to_ticks(self.clock_rate) as u32).wrapping_add(self.offset)
    }

    /// Packets and bytes of payload so far, as a sender report counts them.
    pub fn sent(&self) -> (u32, u32) {
        (self.packets, self.octets)
    }

    /// The packets of one frame; none for an empty one. `sync` says that a reader may begin with it.
    ///
    /// # Errors
    /// If the payload format cannot carry the frame. No number is used up then.
    pub fn packetize(&mut self, frame: &Frame, sync: bool) -> Result<Packets, PacketizeError> {
        let data = frame.data.clone();
        let fail = |problem| PacketizeError { codec: self.codec, bytes: data.len(), problem };
        if data.len() > u32::MAX as usize / 2 {
            return Err(fail("it is too large"));
        }
        let timestamp = self.timestamp(frame.pts);
        let room = (data.len() / self.max + 2) * 20 + 256;
        let (payload_type, ssrc, track) = (self.payload_type, self.ssrc, self.track);
        let first = self.sequence;
        let mut out = Output {
            writer: PacketWriter::new(data.clone(), room),
            track,
            payload_type,
            ssrc,
            timestamp,
            sequence: first,
            max: self.max,
        };
        match (self.codec, &*frame.parameters) {
            (Codec::Video(VideoCodec::H264), CodecParameters::Video(p)) => {
                h26x::h264(&data, &p.extra_data, frame.keyframe, &mut out).map_err(fail)?;
            }
            (Codec::Video(VideoCodec::H265), CodecParameters::Video(p)) => {
                h26x::h265(&data, &p.extra_data, frame.keyframe, &mut out).map_err(fail)?;
            }
            (Codec::Video(VideoCodec::Av1), _) => {
                av1::packetize(&data, frame.keyframe, &mut out).map_err(fail)?;
            }
            (Codec::Video(VideoCodec::Vp8), _) => vpx::vp8(data.len(), &mut out),
            (Codec::Video(VideoCodec::Vp9), CodecParameters::Video(p)) => {
                vpx::vp9(data.len(), frame.keyframe, (p.width, p.height), &mut out);
            }
            (Codec::Video(VideoCodec::Mjpeg), _) => jpeg::packetize(&data, &mut out).map_err(fail)?,
            (Codec::Audio(codec), CodecParameters::Audio(p)) => {
                simple::audio(codec, p, data.len(), &mut out).map_err(fail)?;
            }
            (Codec::Data(DataCodec::Klv | DataCodec::Onvif), _) => simple::split(data.len(), &mut out),
            _ => return Err(fail("it belongs to a track of another kind")),
        }
        let (bytes, count) = out.writer.count();
        self.sequence = out.sequence;
        self.packets = self.packets.wrapping_add(count as u32);
        self.octets = self.octets.wrapping_add(bytes as u32);
        Ok(out.writer.done(track, false, sync, first, timestamp))
    }
}

/// Where payload formats write their packets.
struct Output {
    writer: PacketWriter,
    track: usize,
    payload_type: u8,
    ssrc: u32,
    timestamp: u32,
    sequence: u16,
    /// The largest payload.
    max: usize,
}

impl Output {
    fn begin(&mut self) {
        self.begin_after(0);
    }

    /// Begins a packet that is `ticks` later than the frame.
    fn begin_after(&mut self, ticks: u32) {
        let timestamp = self.timestamp.wrapping_add(ticks);
        self.writer.begin(self.track, self.payload_type, self.sequence, timestamp, self.ssrc);
        self.sequence = self.sequence.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
