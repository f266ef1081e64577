//! AMF0 (Adobe "Action Message Format -- AMF 0"), as far as commands need it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// How deep objects may lie within each other.
const MAX_DEPTH: usize = 8;
/// How many values a command may have.
const MAX_VALUES: usize = 64;
/// How many entries an object may have.
const MAX_ENTRIES: usize = 256;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Amf {
    /// A number.
    Number(f64),
    /// Yes or no.
    Boolean(bool),
    /// Text.
    String(String),
    /// Values by name, in their order.
    Object(Vec<(String, Amf)>),
    /// Nothing.
    Null,
}

impl Amf {
    /// A text.
    pub(super) fn text(text: &str) -> Self {
        Self::String(text.to_owned())
    }

    /// The text that it is.
    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// An object's entry.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// The values of a command, up to the first that makes no sense.
pub fn read_values(mut body: Bytes) -> Vec<Amf> {
    let mut values = Vec::new();
    while body.has_remaining() && values.len() < MAX_VALUES {
        let Some(value) = read(&mut body, 0) else { break };
        values.push(value);
    }
    values
}

fn text(body: &mut Bytes, length: usize) -> Option<String> {
    (body.len() >= length).then(|| String::from_utf8_lossy(&body.split_to(length)).into_owned())
}

fn read(body: &mut Bytes, depth: usize) -> Option<Amf> {
    let kind = body.try_get_u8().ok()?;
    Some(match kind {
        0 => Amf::Number(body.try_get_f64().ok()?),
        1 => Amf::Boolean(body.try_get_u8().ok()? != 0),
        2 => {
            let length = body.try_get_u16().ok()?;
            Amf::String(text(body, length.into())?)
        }
        // An ECMA array is an object that says beforehand how large it is, more or less.
        3 | 8 if depth < MAX_DEPTH => {
            if kind == 8 {
                body.try_get_u32().ok()?;
            }
            let mut entries = Vec::new();
            loop {
                let length = body.try_get_u16().ok()?;
                if length == 0 && body.first() == Some(&9) {
                    body.advance(1);
                    return Some(Amf::Object(entries));
                }
                let name = text(body, length.into())?;
                let value = read(body, depth + 1)?;
                entries.push((name, value));
                if entries.len() > MAX_ENTRIES {
                    return None;
                }
            }
        }
        10 if depth < MAX_DEPTH => {
            let count = body.try_get_u32().ok()? as usize;
            let values: Option<Vec<_>> = (0..count.min(MAX_ENTRIES))
                .map(|at| Some((at.to_string(), read(body, depth + 1)?)))
                .collect();
            Amf::Object(values.filter(|_| count <= MAX_ENTRIES)?)
        }
        5 | 6 => Amf::Null,
        11 => {
            let time = body.try_get_f64().ok()?;
            body.try_get_u16().ok()?;
            Amf::Number(time)
        }
        12 => {
            let length = body.try_get_u32().ok()?;
            Amf::String(text(body, length as usize)?)
        }
        _ => return None,
    })
}

/// The values as the body of a command.
pub(super) fn write_values(values: &[Amf]) -> Bytes {
    let mut out = BytesMut::new();
    values.iter().for_each(|value| write(&mut out, value));
    out.freeze()
}

fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(text.len().min(usize::from(u16::MAX)))).unwrap_or_default()
}

fn write(out: &mut BytesMut, value: &Amf) {
    match value {
        Amf::Number(number) => {
            out.put_u8(0);
            out.put_f64(*number);
        }
        Amf::Boolean(value) => out.put_slice(&[1, u8::from(*value)]),
        Amf::String(text) => {
            out.put_u8(2);
            out.put_u16(short(text).len() as u16);
            out.put_slice(short(text).as_bytes());
        }
        Amf::Object(entries) => {
            out.put_u8(3);
            for (name, value) in entries {
                out.put_u16(short(name).len() as u16);
                out.put_slice(short(name).as_bytes());
                write(out, value);
            }
            out.put_slice(&[0, 0, 9]);
        }
        Amf::Null => out.put_u8(5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_there_and_back() {
        let inner = Amf::Object(vec![("x".into(), Amf::Null)]);
        let object = Amf::Object(vec![("app".into(), Amf::text("yard")), ("b".into(), inner)]);
        let values = [Amf::text("connect"), Amf::Number(1.5), Amf::Boolean(true), object, Amf::Null];
        assert_eq!(read_values(write_values(&values)), values);
        assert_eq!(values[3].get("app").and_then(Amf::as_str), Some("yard"));
    }

    /// `{"w": 2}` as an ECMA array, `[true]`, a date, a long text, and then something that nobody knows.
    #[test]
    fn other_kinds_are_read() {
        let bytes = b"\x08\x00\x00\x00\x01\x00\x01w\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\
            \x0a\x00\x00\x00\x01\x01\x01\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
            \x0c\x00\x00\x00\x02hi\xffrest";
        let expected = [
            Amf::Object(vec![("w".into(), Amf::Number(2.0))]),
            Amf::Object(vec![("0".into(), Amf::Boolean(true))]),
            Amf::Number(0.0),
            Amf::text("hi"),
        ];
        assert_eq!(read_values(Bytes::from_static(bytes)), expected);
        // Objects without an end.
        assert!(read_values(Bytes::from(b"\x03\x00\x01a".repeat(1000))).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_values(bytes.into());
        }
    }
}
