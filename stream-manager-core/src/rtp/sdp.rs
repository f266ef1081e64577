//! Reading session descriptions (RFC 8866) that come from anybody.

use sdp_types::Session;

/// Reads one. Some that are out of order make the parser panic; they are refused like all others that are none.
pub(crate) fn read_sdp(text: &[u8]) -> Result<Session, String> {
    let read = std::panic::catch_unwind(|| Session::parse(text).map_err(|e| e.to_string()));
    read.unwrap_or_else(|_| Err("its lines are not in the order of RFC 8866 section 5".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_order_is_refused() {
        let right = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=x\r\n";
        assert!(read_sdp(right.as_bytes()).is_ok());
        // The parser takes what is behind an attribute for media.
        let said = read_sdp(format!("{right}c=IN IP4 0.0.0.0\r\n").as_bytes()).unwrap_err();
        assert!(said.contains("order"), "{said}");
    }
}
