//! Reading session descriptions (RFC 8866) that come from anybody.

use sdp_types::Session;

/// Reads one.
pub(crate) fn read_sdp(text: &[u8]) -> Result<Session, String> {
    // The parser stops at a line that is none, forgets it, takes what is behind it for media, and panics.
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let is_one = |line: &[u8]| line.is_empty() || line.iter().position(|byte| *byte == b'=') == Some(1);
    if let Some(number) = lines.into_iter().position(|line| !is_one(line)) {
        return Err(format!("line {} is none; expected a letter, = and a value", number + 1));
    }
    let read = std::panic::catch_unwind(|| Session::parse(text).map_err(|e| e.to_string()));
    read.unwrap_or_else(|_| Err("it contradicts itself".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_none_are_named_wherever_they_are() {
        let right = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=x\r\n\r\nm=audio 9 X 0\r\na=y\r\n";
        assert_eq!(read_sdp(right.as_bytes()).map(|session| session.medias.len()), Ok(1));
        for wrong in
            [right.replace("a=x", "rubbish\r\na=x"), right.replace("a=y", "a=z\r\nab=c\r\na=y"), "=".into()]
        {
            let said = read_sdp(wrong.as_bytes()).unwrap_err();
            assert!(said.contains("is none; expected a letter"), "{wrong}: {said}");
        }
    }

    proptest::proptest! {
        /// A piece of a right one is replaced.
        #[test]
        fn none_makes_it_panic(start in 0usize..120, length in 0usize..120, new in "[=\r\na-z0-9 ]{0,8}") {
            let right = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=x\r\nm=audio 9 X 0\r\nc=IN IP4 0.0.0.0\r\na=y\r\n";
            let start = start.min(right.len());
            let end = (start + length).min(right.len());
            let text = format!("{}{new}{}", &right[..start], &right[end..]);
            let said = read_sdp(text.as_bytes());
            proptest::prop_assert!(said != Err("it contradicts itself".into()), "{text:?}");
        }
    }
}
