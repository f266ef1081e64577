//! What a segment file says about itself, so that an index can be made anew from the files alone.

use super::Fmp4Error;
use serde::{Deserialize, Serialize};

/// The type of the `uuid` box (ISO/IEC 14496-12 section 4.2) that holds a [`SegmentIdentity`]. Players skip
/// boxes that they do not know.
const USER_TYPE: [u8; 16] = *b"stream-manager\0\x01";
/// A larger one is none of ours.
const MAX_BYTES: usize = 64 * 1024;

/// Which stream a segment belongs to and where on its timeline it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentIdentity {
    /// The stream's id.
    pub stream: String,
    /// Decoding time of its first frame on the stream's timeline, in nanoseconds.
    pub media_start_nanos: i64,
    /// Whether it follows on the segment before it without a missing frame.
    pub continues: bool,
    /// The tracks, as JSON.
    pub tracks: serde_json::Value,
}

impl SegmentIdentity {
    /// The whole box.
    ///
    /// # Errors
    /// If it is too large for one that will be read again.
    pub fn to_box(&self) -> Result<Vec<u8>, Fmp4Error> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let too_large = Fmp4Error::TooLarge { bytes: json.len() as u64 };
        if json.is_empty() || json.len() > MAX_BYTES {
            return Err(too_large);
        }
        let size = u32::try_from(json.len() + 24).map_err(|_| too_large)?;
        let mut out = Vec::with_capacity(json.len() + 24);
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(b"uuid");
        out.extend_from_slice(&USER_TYPE);
        out.extend_from_slice(&json);
        Ok(out)
    }

    /// Reads the body of a `uuid` box; `None` if it is another kind or broken.
    pub(super) fn from_body(body: &[u8]) -> Option<Self> {
        let json = body.strip_prefix(&USER_TYPE[..]).filter(|json| json.len() <= MAX_BYTES)?;
        serde_json::from_slice(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back() {
        let identity = SegmentIdentity {
            stream: "a/b".into(),
            media_start_nanos: -5,
            continues: true,
            tracks: serde_json::json!([{"codec": "h264"}]),
        };
        let written = identity.to_box().unwrap();
        assert_eq!(written.len(), u32::from_be_bytes(written[..4].try_into().unwrap()) as usize);
        assert_eq!(SegmentIdentity::from_body(&written[8..]), Some(identity));
        assert_eq!(SegmentIdentity::from_body(b"short"), None);
    }
}
