//! A frame's RTP packets as pieces of memory that can be written as they are, and a received packet.

use bytes::Bytes;
use std::io::IoSlice;
use std::ops::Range;

/// The fixed RTP header, RFC 3550 section 5.1.
pub const HEADER_BYTES: usize = 12;
/// In front of a packet within an RTSP connection, RFC 2326 section 10.12.
pub const INTERLEAVED_BYTES: usize = 4;

/// The packets of one frame, or one RTCP compound packet.
///
/// Each packet has an interleaved header (`$`, channel, length) in front, which datagrams leave out. The channel is
/// twice the track's number, plus one for RTCP; [`with_channel`](Self::with_channel) changes it.
#[derive(Clone, Debug)]
pub struct Packets {
    /// The track's number in the session description.
    pub track: usize,
    /// Whether it is RTCP.
    pub rtcp: bool,
    /// Whether a reader may begin here.
    pub sync: bool,
    /// The first packet's sequence number.
    pub sequence: u16,
    /// The first packet's timestamp.
    pub timestamp: u32,
    heads: Bytes,
    body: Bytes,
    pieces: Vec<Piece>,
    /// For each packet the number of pieces before it, and its size with the interleaved header.
    packets: Vec<(u32, u32)>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    Head(u32, u32),
    Body(u32, u32),
}

impl Packets {
    /// Their size with interleaved headers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn slice(&self, piece: Piece) -> &[u8] {
        match piece {
            Piece::Head(start, end) => &self.heads[start as usize..end as usize],
            Piece::Body(start, end) => &self.body[start as usize..end as usize],
        }
    }

    /// Everything from the byte `skip` on, as one connection gets it.
    pub fn slices(&self, mut skip: usize) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let slice = self.slice(*piece);
            if skip >= slice.len() {
                skip -= slice.len();
                continue;
            }
            slices.push(IoSlice::new(&slice[skip..]));
            skip = 0;
        }
        slices
    }

    /// Size and pieces of the packet `index`, without its interleaved header, as a datagram carries it.
    pub fn datagram<'a>(&'a self, index: usize, slices: &mut Vec<IoSlice<'a>>) -> usize {
        let Some((first, size)) = self.packets.get(index).copied() else { return 0 };
        let last = self.packets.get(index + 1).map_or(self.pieces.len(), |(next, _)| *next as usize);
        for (n, piece) in self.pieces[first as usize..last].iter().enumerate() {
            let slice = self.slice(*piece);
            // A packet always begins with its headers.
            slices.push(IoSlice::new(if n == 0 { &slice[INTERLEAVED_BYTES..] } else { slice }));
        }
        size as usize - INTERLEAVED_BYTES
    }

    /// The size of the packet `index` as a datagram.
    pub fn datagram_bytes(&self, index: usize) -> usize {
        self.packets.get(index).map_or(0, |(_, size)| *size as usize - INTERLEAVED_BYTES)
    }

    /// The same packets for another interleaved channel; the payload is shared.
    #[must_use]
    pub fn with_channel(&self, channel: u8) -> Self {
        let mut heads = self.heads.to_vec();
        for (first, _) in &self.packets {
            if let Some(Piece::Head(start, _)) = self.pieces.get(*first as usize) {
                heads[*start as usize + 1] = channel;
            }
        }
        Self { heads: heads.into(), ..self.clone() }
    }

    /// One RTCP compound packet.
    pub fn rtcp(track: usize, compound: &[u8]) -> Self {
        let mut writer = PacketWriter::new(Bytes::new(), compound.len() + INTERLEAVED_BYTES);
        writer.start(track, true);
        writer.heads.extend_from_slice(compound);
        writer.close();
        writer.done(track, true, false, 0, 0)
    }
}

/// Writes the packets of one frame.
#[derive(Debug)]
pub(super) struct PacketWriter {
    heads: Vec<u8>,
    body: Bytes,
    pieces: Vec<Piece>,
    packets: Vec<(u32, u32)>,
    /// Where the current packet's interleaved header is.
    at: usize,
    /// Where the current run of header bytes begins.
    run: usize,
    size: usize,
    bytes: usize,
}

impl PacketWriter {
    pub(super) fn new(body: Bytes, heads: usize) -> Self {
        Self {
            heads: Vec::with_capacity(heads),
            body,
            pieces: Vec::new(),
            packets: Vec::new(),
            at: 0,
            run: 0,
            size: 0,
            bytes: 0,
        }
    }

    fn start(&mut self, track: usize, rtcp: bool) {
        self.packets.push((self.pieces.len() as u32, 0));
        (self.at, self.run, self.size) = (self.heads.len(), self.heads.len(), 0);
        let channel = (track * 2 + usize::from(rtcp)) as u8;
        self.heads.extend_from_slice(&[b'$', channel, 0, 0]);
    }

    /// Begins an RTP packet.
    pub(super) fn begin(&mut self, track: usize, payload_type: u8, sequence: u16, timestamp: u32, ssrc: u32) {
        self.start(track, false);
        self.heads.extend_from_slice(&[0x80, payload_type & 0x7f]);
        self.heads.extend_from_slice(&sequence.to_be_bytes());
        self.heads.extend_from_slice(&timestamp.to_be_bytes());
        self.heads.extend_from_slice(&ssrc.to_be_bytes());
    }

    /// Adds bytes of the payload that are not the frame's.
    pub(super) fn head(&mut self, bytes: &[u8]) {
        self.heads.extend_from_slice(bytes);
    }

    /// Changes a byte of the packet's payload that was written as a header.
    pub(super) fn patch(&mut self, offset: usize, change: impl FnOnce(u8) -> u8) {
        let at = self.at + INTERLEAVED_BYTES + HEADER_BYTES + offset;
        if let Some(byte) = self.heads.get_mut(at) {
            *byte = change(*byte);
        }
    }

    /// Adds part of the frame.
    pub(super) fn body(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.flush();
        self.size += range.len();
        self.pieces.push(Piece::Body(range.start as u32, range.end as u32));
    }

    fn flush(&mut self) {
        if self.run < self.heads.len() {
            self.size += self.heads.len() - self.run;
            self.pieces.push(Piece::Head(self.run as u32, self.heads.len() as u32));
            self.run = self.heads.len();
        }
    }

    fn close(&mut self) {
        self.flush();
        let length = (self.size - INTERLEAVED_BYTES) as u16;
        self.heads[self.at + 2..self.at + 4].copy_from_slice(&length.to_be_bytes());
        if let Some(last) = self.packets.last_mut() {
            last.1 = self.size as u32;
        }
        self.bytes += self.size;
    }

    /// Ends the packet.
    pub(super) fn end(&mut self, marker: bool) {
        if marker {
            self.heads[self.at + INTERLEAVED_BYTES + 1] |= 0x80;
        }
        self.close();
    }

    /// Payload bytes without RTP headers, and packets.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.bytes - self.packets.len() * (INTERLEAVED_BYTES + HEADER_BYTES), self.packets.len())
    }

    pub(super) fn done(self, track: usize, rtcp: bool, sync: bool, sequence: u16, timestamp: u32) -> Packets {
        Packets {
            track,
            rtcp,
            sync,
            sequence,
            timestamp,
            heads: self.heads.into(),
            body: self.body,
            pieces: self.pieces,
            packets: self.packets,
            bytes: self.bytes,
        }
    }
}

/// A received RTP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpPacket {
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in ticks of the track's clock, from a random start, wrapping.
    pub timestamp: u32,
    /// Who sends it.
    pub ssrc: u32,
    /// The marker bit; its meaning is the payload format's.
    pub marker: bool,
    /// The payload type.
    pub payload_type: u8,
    /// The payload, without padding.
    pub payload: Bytes,
}

/// Something that is no RTP packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are no RTP packet: {problem}")]
pub struct PacketError {
    /// How long it is.
    pub bytes: usize,
    /// What is wrong.
    pub problem: String,
}

impl RtpPacket {
    /// Reads a packet (RFC 3550 section 5.1); CSRCs and header extensions are passed over.
    ///
    /// # Errors
    /// If it is too short, of another version, or its lengths do not fit.
    pub fn parse(data: &Bytes) -> Result<Self, PacketError> {
        let packet = rtp_types::RtpPacket::parse(data)
            .map_err(|e| PacketError { bytes: data.len(), problem: e.to_string() })?;
        let payload = packet.payload();
        Ok(Self {
            sequence: packet.sequence_number(),
            timestamp: packet.timestamp(),
            ssrc: packet.ssrc(),
            marker: packet.marker_bit(),
            payload_type: packet.payload_type(),
            payload: if payload.is_empty() { Bytes::new() } else { data.slice_ref(payload) },
        })
    }
}
