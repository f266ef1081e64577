//! Messages in chunks (RTMP 1.0 section 5.3): put together from what comes, and cut for what goes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::HashMap;

/// The largest message, and what may be begun and not ended yet over all chunk streams, while there are only commands.
const COMMANDS: (usize, usize) = (64 << 10, 256 << 10);
/// The same for media: a keyframe of the largest pictures there are.
const MEDIA: (usize, usize) = (8 << 20, 16 << 20);
/// Chunk streams that a connection may use; encoders use four or five.
const MAX_CHUNK_STREAMS: usize = 64;
/// The size of chunks before anything is said of it (section 5.4.1).
const FIRST_CHUNK_SIZE: usize = 128;
/// The size of the chunks that are sent.
pub(super) const CHUNK_SIZE: usize = 4096;
/// A time that does not fit into three bytes stands in four behind them (section 5.3.1.3).
const EXTENDED: u32 = 0xff_ffff;

/// Why what comes cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// A message is too large.
    #[error("a message of {0} bytes is too large")]
    MessageSize(usize),
    /// Chunks have no size, or none that there may be.
    #[error("chunks of {0} bytes; expected 1 to 16777215")]
    ChunkSize(u32),
    /// A chunk refers to one before it that there was not.
    #[error("a chunk goes on with something that has not been begun")]
    NotBegun,
    /// Too much is begun and not ended.
    #[error("too many messages are begun and not ended")]
    TooMuchBegun,
}

/// A message (section 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtmpMessage {
    /// What it is (sections 5.4 and 7.1): 8 sound, 9 pictures, 20 a command.
    pub kind: u8,
    /// The stream that it belongs to; 0 is the connection's.
    pub stream: u32,
    /// Milliseconds.
    pub timestamp: u32,
    /// What it says.
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct ChunkStream {
    timestamp: u32,
    /// What the time field said last: a time, or the distance to the message before.
    field: u32,
    length: usize,
    kind: u8,
    stream: u32,
    begun: BytesMut,
    /// Whether a message is begun; it may be empty so far.
    open: bool,
}

/// Puts messages together.
///
/// ```
/// use bytes::BytesMut;
/// use stream_manager_core::rtmp::ChunkReader;
/// let mut comes = BytesMut::from(&[3, 0, 0, 40, 0, 0, 1, 8, 1, 0, 0, 0, 0xaf][..]);
/// let message = ChunkReader::default().read(&mut comes).unwrap().unwrap();
/// assert_eq!((message.kind, message.timestamp, &message.body[..]), (8, 40, &[0xaf][..]));
/// ```
#[derive(Debug)]
pub struct ChunkReader {
    chunk_size: usize,
    streams: HashMap<u32, ChunkStream>,
    /// Bytes of all messages that are begun.
    begun: usize,
    /// The largest message, and the most that may be begun.
    limits: (usize, usize),
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self { chunk_size: FIRST_CHUNK_SIZE, streams: HashMap::new(), begun: 0, limits: COMMANDS }
    }
}

impl ChunkReader {
    /// Lets messages be as large as media are. Before that nothing larger than a command is taken: whoever has not said who he is
    /// cannot fill the memory.
    pub fn allow_media(&mut self) {
        self.limits = MEDIA;
    }

    /// Takes the next message out of what has come; `None` if it is not there yet.
    ///
    /// # Errors
    /// If what comes makes no sense: nothing after it does, either.
    pub fn read(&mut self, comes: &mut BytesMut) -> Result<Option<RtmpMessage>, ChunkError> {
        loop {
            let mut chunk = &comes[..];
            let whole = chunk.len();
            let Some(message) = self.chunk(&mut chunk)? else { return Ok(None) };
            let used = whole - chunk.len();
            comes.advance(used);
            if let Some(message) = message {
                self.control(&message)?;
                return Ok(Some(message));
            }
        }
    }

    /// One chunk. `None` if it is not whole; otherwise the message that it ends, if it ends one.
    #[allow(clippy::option_option)]
    fn chunk(&mut self, comes: &mut &[u8]) -> Result<Option<Option<RtmpMessage>>, ChunkError> {
        let Some((format, id)) = basic_header(comes) else { return Ok(None) };
        let length = [11, 7, 3, 0][usize::from(format)];
        if comes.len() < length {
            return Ok(None);
        }
        let (mut head, rest) = comes.split_at(length);
        *comes = rest;
        if !self.streams.contains_key(&id) && (format != 0 || self.streams.len() >= MAX_CHUNK_STREAMS) {
            return Err(if format == 0 { ChunkError::TooMuchBegun } else { ChunkError::NotBegun });
        }
        let known = self.streams.get(&id);
        let field =
            if format < 3 { head.get_uint(3) as u32 } else { known.map_or(0, |s| s.field.min(EXTENDED)) };
        let new_length = if format < 2 { Some(head.get_uint(3) as usize) } else { None };
        let kind = if format < 2 { Some(head.get_u8()) } else { None };
        let stream = if format == 0 { Some(head.get_u32_le()) } else { None };
        let field = if field == EXTENDED {
            if comes.len() < 4 {
                return Ok(None);
            }
            comes.get_u32()
        } else {
            field
        };
        let open = known.is_some_and(|s| s.open);
        let length = new_length.or(known.map(|s| s.length)).unwrap_or(0);
        if length > self.limits.0 {
            return Err(ChunkError::MessageSize(length));
        }
        // A header within a message begins it anew.
        let begun = known.filter(|_| open && format == 3).map_or(0, |s| s.begun.len());
        let payload = self.chunk_size.min(length - begun.min(length));
        if comes.len() < payload {
            return Ok(None);
        }
        let state = self.streams.entry(id).or_default();
        if !(open && format == 3) {
            self.begun -= state.begun.len();
            state.begun.clear();
            state.timestamp = if format == 0 { field } else { state.timestamp.wrapping_add(field) };
            state.open = true;
        }
        state.field = field;
        state.length = length;
        state.kind = kind.unwrap_or(state.kind);
        state.stream = stream.unwrap_or(state.stream);
        state.begun.put_slice(&comes[..payload]);
        comes.advance(payload);
        self.begun += payload;
        if self.begun > self.limits.1 {
            return Err(ChunkError::TooMuchBegun);
        }
        if state.begun.len() < state.length {
            return Ok(Some(None));
        }
        state.open = false;
        self.begun -= state.begun.len();
        let body = state.begun.split().freeze();
        Ok(Some(Some(RtmpMessage {
            kind: state.kind,
            stream: state.stream,
            timestamp: state.timestamp,
            body,
        })))
    }

    /// Messages about the chunks themselves (section 5.4).
    fn control(&mut self, message: &RtmpMessage) -> Result<(), ChunkError> {
        let Some(value) = message.body.get(..4) else { return Ok(()) };
        let value = u32::from_be_bytes([value[0], value[1], value[2], value[3]]);
        match message.kind {
            1 if !(1..=EXTENDED).contains(&value) => return Err(ChunkError::ChunkSize(value)),
            1 => self.chunk_size = value as usize,
            2 => {
                if let Some(state) = self.streams.get_mut(&value) {
                    self.begun -= state.begun.len();
                    state.begun.clear();
                    state.open = false;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The kind of header and the chunk stream's number (section 5.3.1.1).
fn basic_header(comes: &mut &[u8]) -> Option<(u8, u32)> {
    let first = *comes.first()?;
    let long = match first & 63 {
        0 => 2,
        1 => 3,
        _ => 1,
    };
    if comes.len() < long {
        return None;
    }
    let id = match long {
        2 => u32::from(comes[1]) + 64,
        3 => u32::from(comes[1]) + u32::from(comes[2]) * 256 + 64,
        _ => u32::from(first & 63),
    };
    *comes = &comes[long..];
    Some((first >> 6, id))
}

/// Cuts a message into chunks of [`CHUNK_SIZE`], or of the first size for what goes before that is told, which is shorter than that.
pub(super) fn write(out: &mut BytesMut, chunk_stream: u8, message: &RtmpMessage) {
    out.put_u8(chunk_stream & 63);
    out.put_uint(u64::from(message.timestamp.min(EXTENDED - 1)), 3);
    out.put_uint(message.body.len() as u64, 3);
    out.put_u8(message.kind);
    out.put_u32_le(message.stream);
    for (number, piece) in message.body.chunks(CHUNK_SIZE).enumerate() {
        if number > 0 {
            out.put_u8(0xc0 | chunk_stream & 63);
        }
        out.put_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(reader: &mut ChunkReader, bytes: &[u8]) -> Vec<RtmpMessage> {
        let mut comes = BytesMut::from(bytes);
        let mut found = Vec::new();
        while let Some(message) = reader.read(&mut comes).unwrap() {
            found.push(message);
        }
        assert!(comes.is_empty(), "{comes:?}");
        found
    }

    fn times(messages: &[RtmpMessage]) -> Vec<(u8, u32, usize)> {
        messages.iter().map(|m| (m.kind, m.timestamp, m.body.len())).collect()
    }

    /// The example of section 5.3.2.1: sound whose header gets ever shorter.
    #[test]
    fn distances_are_added_also_by_chunks_without_a_header() {
        let mut bytes = vec![3, 0, 3, 232, 0, 0, 4, 8, 0x39, 0x30, 0, 0, 1, 2, 3, 4];
        bytes.extend([0x83, 0, 0, 20, 1, 2, 3, 4]);
        bytes.extend([0xc3, 1, 2, 3, 4]);
        bytes.extend([0x43, 0, 0, 5, 0, 0, 1, 9, 7]);
        let found = read_all(&mut ChunkReader::default(), &bytes);
        assert_eq!(times(&found), [(8, 1000, 4), (8, 1020, 4), (8, 1040, 4), (9, 1045, 1)]);
        assert!(found.iter().all(|m| m.stream == 12345));
    }

    /// That of section 5.3.2.2, with sound between the pieces; and times of more than three bytes.
    #[test]
    fn pieces_of_two_messages_may_alternate() {
        let mut bytes = vec![4, 0, 3, 232, 0, 1, 51, 9, 1, 0, 0, 0];
        bytes.extend([1; 128]);
        bytes.extend([5, 0, 3, 233, 0, 0, 1, 8, 1, 0, 0, 0, 9]);
        bytes.push(0xc4);
        bytes.extend([2; 128]);
        bytes.push(0xc4);
        bytes.extend([3; 51]);
        bytes.extend([6, 255, 255, 255, 0, 0, 129, 8, 1, 0, 0, 0, 1, 0, 0, 2]);
        bytes.extend([4; 128]);
        bytes.extend([0xc6, 1, 0, 0, 2, 5]);
        let found = read_all(&mut ChunkReader::default(), &bytes);
        assert_eq!(times(&found), [(8, 1001, 1), (9, 1000, 307), (8, 0x0100_0002, 129)]);
        assert_eq!((found[1].body[127], found[1].body[128], found[1].body[306]), (1, 2, 3));
    }

    #[test]
    fn the_size_of_chunks_changes_and_a_message_may_be_given_up() {
        let mut bytes = vec![4, 0, 0, 0, 0, 1, 0, 9, 1, 0, 0, 0];
        bytes.extend([1; 128]);
        bytes.extend([2, 0, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 0, 0, 0, 4]);
        bytes.extend([2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 1, 0]);
        bytes.extend([4, 0, 0, 40, 0, 1, 0, 9, 1, 0, 0, 0]);
        bytes.extend([2; 256]);
        let mut reader = ChunkReader::default();
        let found = read_all(&mut reader, &bytes);
        assert_eq!(times(&found), [(2, 0, 4), (1, 0, 4), (9, 40, 256)]);
        assert_eq!(reader.begun, 0);
    }

    #[test]
    fn what_makes_no_sense_ends_it() {
        let read = |bytes: &[u8]| ChunkReader::default().read(&mut BytesMut::from(bytes));
        assert_eq!(read(&[0xc3, 1]), Err(ChunkError::NotBegun));
        assert_eq!(
            read(&[3, 0, 0, 0, 255, 255, 255, 9, 0, 0, 0, 0]),
            Err(ChunkError::MessageSize(0xff_ffff))
        );
        assert_eq!(read(&[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(ChunkError::ChunkSize(0)));
        // More than a command.
        let large = [4, 0, 0, 0, 1, 0x86, 0xa0, 9, 1, 0, 0, 0];
        assert_eq!(read(&large), Err(ChunkError::MessageSize(100_000)));
        let mut reader = ChunkReader::default();
        reader.allow_media();
        assert_eq!(reader.read(&mut BytesMut::from(&large[..])), Ok(None));
        let mut many = BytesMut::new();
        for id in 2..63u8 {
            many.extend([id, 0, 0, 0, 0x7f, 255, 255, 9, 1, 0, 0, 0]);
            many.extend([0; 128]);
        }
        assert_eq!(reader.read(&mut many), Ok(None));
        for id in 2..63u8 {
            for _ in 0..2500 {
                many.extend([0xc0 | id]);
                many.extend([0; 128]);
            }
        }
        assert_eq!(reader.read(&mut many), Err(ChunkError::TooMuchBegun));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_whatever_the_pieces(
            messages in proptest::collection::vec((any::<u8>(), 0u32..1000, 0usize..10_000, 0u32..0xff_fffe), 1..6),
            cut in 1usize..3000,
        ) {
            let messages: Vec<RtmpMessage> = messages
                .into_iter()
                .map(|(kind, stream, length, timestamp)| RtmpMessage {
                    // Those that change how chunks are read have their own test.
                    kind: kind.max(3),
                    stream,
                    timestamp,
                    body: vec![kind; length].into(),
                })
                .collect();
            let mut out = BytesMut::new();
            out.extend([2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 16, 0]);
            for message in &messages {
                write(&mut out, 3, message);
            }
            let (mut reader, mut comes, mut found) = (ChunkReader::default(), BytesMut::new(), Vec::new());
            for piece in out.chunks(cut) {
                comes.extend_from_slice(piece);
                while let Some(message) = reader.read(&mut comes).unwrap() {
                    found.push(message);
                }
            }
            prop_assert_eq!(&found[1..], &messages[..]);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let (mut reader, mut comes) = (ChunkReader::default(), BytesMut::from(&bytes[..]));
            while let Ok(Some(_)) = reader.read(&mut comes) {}
        }
    }
}
