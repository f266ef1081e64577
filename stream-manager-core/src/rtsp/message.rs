//! Requests and interleaved packets out of a connection's bytes (RFC 2326 sections 4 and 10.12).

use bytes::{Buf, Bytes, BytesMut};
use rtsp_types::{Message, Request, Response};

/// The longest request line and headers together.
pub(super) const MAX_HEADERS_BYTES: usize = 16 << 10;
/// The longest body: session descriptions are a few kilobytes.
pub(super) const MAX_BODY_BYTES: usize = 64 << 10;

/// What a client has sent.
#[derive(Debug)]
pub enum Incoming {
    /// A request.
    Request(Box<Request<Vec<u8>>>),
    /// An interleaved packet.
    Data {
        /// The channel.
        channel: u8,
        /// The packet.
        payload: Bytes,
    },
    /// An answer.
    Response(Box<Response<Vec<u8>>>),
}

/// Bytes that are no RTSP. The connection cannot go on: nobody knows where the next message begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It is something else.
    #[error("this is no RTSP request: {0}")]
    NotRtsp(&'static str),
    /// Request line and headers are too long.
    #[error("the request's headers are longer than 16 KiB")]
    HeadersTooLong,
    /// The body is too long.
    #[error("the request's body has {0} bytes; expected at most 65536")]
    BodyTooLong(u64),
    /// Another version of the protocol.
    #[error("the version is not RTSP/1.0")]
    Version,
}

impl MessageError {
    /// Status and reason of the answer.
    pub(super) fn status(&self) -> (u16, &'static str) {
        match self {
            Self::NotRtsp(_) | Self::HeadersTooLong => (400, "Bad Request"),
            Self::BodyTooLong(_) => (413, "Request Entity Too Large"),
            Self::Version => (505, "RTSP Version Not Supported"),
        }
    }
}

/// Takes the next message off the front of the buffer; `None` if it is not complete yet. `searched` remembers how far
/// an end was looked for; it begins with 0.
///
/// # Errors
/// If it can be no RTSP, or is too long.
pub fn next_message(buffer: &mut BytesMut, searched: &mut usize) -> Result<Option<Incoming>, MessageError> {
    // Some clients end a request with a line too many.
    while matches!(buffer.first(), Some(b'\r' | b'\n')) {
        buffer.advance(1);
        *searched = 0;
    }
    let Some(first) = buffer.first() else { return Ok(None) };
    if *first == b'$' {
        let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
        let (channel, length) = (head[1], usize::from(u16::from_be_bytes([head[2], head[3]])));
        if buffer.len() < 4 + length {
            return Ok(None);
        }
        buffer.advance(4);
        return Ok(Some(Incoming::Data { channel, payload: buffer.split_to(length).freeze() }));
    }
    if *first == 0x16 {
        return Err(MessageError::NotRtsp("it looks like TLS; that has a port of its own"));
    }
    if !first.is_ascii_uppercase() {
        return Err(MessageError::NotRtsp("it does not begin with a method"));
    }
    let from = searched.saturating_sub(3);
    let Some(end) = buffer[from..].windows(4).position(|w| w == b"\r\n\r\n").map(|at| from + at + 4) else {
        *searched = buffer.len();
        return if buffer.len() > MAX_HEADERS_BYTES { Err(MessageError::HeadersTooLong) } else { Ok(None) };
    };
    if end > MAX_HEADERS_BYTES {
        return Err(MessageError::HeadersTooLong);
    }
    let body = content_length(&buffer[..end])?;
    if body > MAX_BODY_BYTES as u64 {
        return Err(MessageError::BodyTooLong(body));
    }
    let total = end + body as usize;
    if buffer.len() < total {
        *searched = end - 4;
        return Ok(None);
    }
    let data = buffer.split_to(total);
    *searched = 0;
    let line = data[..].split(|b| *b == b'\r').next().unwrap_or_default();
    if !line.starts_with(b"RTSP/") && !line.ends_with(b" RTSP/1.0") {
        let versioned = line.windows(6).any(|w| w == b" RTSP/");
        return Err(if versioned {
            MessageError::Version
        } else {
            MessageError::NotRtsp("the first line is no request")
        });
    }
    match Message::<Vec<u8>>::parse(&data[..]) {
        Ok((Message::Request(request), _)) => Ok(Some(Incoming::Request(Box::new(request)))),
        Ok((Message::Response(response), _)) => Ok(Some(Incoming::Response(Box::new(response)))),
        _ => Err(MessageError::NotRtsp("its address or a header cannot be read")),
    }
}

fn content_length(headers: &[u8]) -> Result<u64, MessageError> {
    for line in headers.split(|b| *b == b'\n') {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        if line[..colon].trim_ascii().eq_ignore_ascii_case(b"content-length") {
            return std::str::from_utf8(line[colon + 1..].trim_ascii())
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(MessageError::NotRtsp("its Content-Length is no number"));
        }
    }
    Ok(0)
}

/// An answer that is being written.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    reason: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    pub(super) fn new(status: u16, reason: impl Into<String>) -> Self {
        // The reason stands in a line of its own: nothing that a client sent may end that.
        let reason: String = reason.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { status, reason, headers: Vec::new(), body: String::new() }
    }

    pub(super) fn ok() -> Self {
        Self::new(200, "OK")
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, kind: &'static str, body: String) -> Self {
        self.headers.push(("Content-Type", kind.into()));
        self.body = body;
        self
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    pub(super) fn into_bytes(self, sequence: Option<&str>, session: Option<&str>) -> Bytes {
        use std::fmt::Write as _;
        let mut text = format!("RTSP/1.0 {} {}\r\n", self.status, self.reason);
        if let Some(sequence) = sequence {
            let _ = write!(text, "CSeq: {sequence}\r\n");
        }
        let _ = write!(text, "Server: stream-manager/{}\r\n", env!("CARGO_PKG_VERSION"));
        if let Some(session) = session {
            let _ = write!(text, "Session: {session}\r\n");
        }
        for (name, value) in &self.headers {
            let clean: String = value.chars().filter(|c| !c.is_control()).collect();
            let _ = write!(text, "{name}: {clean}\r\n");
        }
        if !self.body.is_empty() {
            let _ = write!(text, "Content-Length: {}\r\n", self.body.len());
        }
        text.push_str("\r\n");
        text.push_str(&self.body);
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(data: &[u8], step: usize) -> (Vec<Incoming>, Option<MessageError>) {
        let (mut buffer, mut searched) = (BytesMut::new(), 0);
        let mut out = Vec::new();
        for chunk in data.chunks(step.max(1)) {
            buffer.extend_from_slice(chunk);
            loop {
                match next_message(&mut buffer, &mut searched) {
                    Ok(Some(message)) => out.push(message),
                    Ok(None) => break,
                    Err(error) => return (out, Some(error)),
                }
            }
        }
        (out, None)
    }

    #[test]
    fn pipelined_requests_and_packets_in_pieces_of_any_size() {
        let data = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n\r\n$\x03\x00\x02abANNOUNCE rtsp://h/a?x=1 RTSP/1.0\r\nCSeq: 2\r\ncontent-length: 3\r\n\r\nxyzRTSP/1.0 200 OK\r\nCSeq: 9\r\n\r\n";
        for step in 1..data.len() {
            let (messages, error) = all(data, step);
            assert_eq!(error, None, "{step}");
            let [
                Incoming::Request(a),
                Incoming::Data { channel: 3, payload },
                Incoming::Request(b),
                Incoming::Response(_),
            ] = &messages[..]
            else {
                panic!("{step}: {messages:?}")
            };
            assert_eq!(
                (a.method(), b.body().as_slice(), &payload[..]),
                (&rtsp_types::Method::Options, &b"xyz"[..], &b"ab"[..])
            );
        }
    }

    #[test]
    fn what_is_no_rtsp_is_named() {
        let long = [b"OPTIONS * RTSP/1.0\r\nX: ".to_vec(), vec![b'a'; 20 << 10]].concat();
        let cases: [(&[u8], u16, &str); 8] = [
            (b"\x16\x03\x01\x02\x00", 400, "TLS"),
            (b"hello\r\n\r\n", 400, "method"),
            (&long, 400, "16 KiB"),
            (b"ANNOUNCE rtsp://h/a RTSP/1.0\r\nContent-Length: 10000000\r\n\r\n", 413, "10000000"),
            (b"OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n", 505, "RTSP/1.0"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "first line"),
            (b"ANNOUNCE rtsp://h/a RTSP/1.0\r\nContent-Length: x\r\n\r\n", 400, "Content-Length"),
            (b"DESCRIBE nonsense RTSP/1.0\r\nCSeq: 1\r\n\r\n", 400, "address"),
        ];
        for (data, status, text) in cases {
            let error = all(data, 7).1.unwrap();
            assert_eq!(error.status().0, status, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(data in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..50) {
            all(&data, step);
            all(&[b"SETUP rtsp://h/a RTSP/1.0\r\n", &data[..], b"\r\n\r\n"].concat(), step);
        }

        #[test]
        fn answers_stay_one(reason in "\\PC{0,30}\r\n\\PC{0,9}", value in "\\PC{0,20}\r\n\\PC{0,9}") {
            let bytes = Answer::new(400, reason).header("X", value).into_bytes(Some("1"), None);
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            prop_assert_eq!(text.matches("\r\n").count(), 5, "{}", text);
        }
    }
}
