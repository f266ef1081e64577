//! Stream ids: what may stand in a URL path, a folder name and an RTSP path at once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest id, so that it fits into a file name.
const MAX_LENGTH: usize = 200;

/// Path parts that the API uses behind an id; an id of several parts must not end in one.
const RESERVED: &[&str] = &[
    "recording",
    "recordings",
    "timeline",
    "playback",
    "playback.m3u8",
    "live.mp4",
    "snapshot.jpg",
    "thumbnails.jpg",
    "mjpeg",
    "marks",
    "exports",
    "stats",
    "sessions",
    "inference",
    "start",
    "stop",
    "pause",
    "resume",
    "split",
    "auto",
    "trigger",
    "protect",
    "unprotect",
    "restart",
    "enable",
    "disable",
    "whep",
    "whip",
];

/// A checked stream id: parts of `[A-Za-z0-9._~-]` with `/` between them, none of them `.` or `..`.
///
/// ```
/// # use stream_manager_core::manager::StreamId;
/// assert!("house/door-1".parse::<StreamId>().is_ok());
/// assert!("../etc".parse::<StreamId>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(Arc<str>);

/// An id that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream id \"{shown}\" {problem}; expected letters, digits, '.', '_', '~' and '-', with '/' between parts"
)]
pub struct InvalidStreamId {
    shown: String,
    problem: &'static str,
}

impl StreamId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A number between a half and one that is the stream's own: what is staggered by it is spread evenly.
    pub(super) fn phase(&self) -> f64 {
        // FNV-1a: the same at every start and in every version.
        let hash = self.0.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // MurmurHash3's finalizer: FNV alone hardly reaches the upper bits with names as alike as cam-1, cam-2.
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        let hash = hash ^ (hash >> 33);
        0.5 + (hash >> 11) as f64 / (1u64 << 54) as f64
    }

    /// The id as shared text.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(id: &str) -> Result<Self, InvalidStreamId> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._~-/".contains(c);
        let problem = if id.is_empty() {
            "is empty"
        } else if id.len() > MAX_LENGTH {
            "is longer than 200 characters"
        } else if !id.chars().all(allowed) {
            "has a character that is not allowed"
        } else if id.split('/').any(str::is_empty) {
            "has an empty part"
        } else if id.split('/').any(|part| part == "." || part == "..") {
            "has a part \".\" or \"..\""
        } else if id.rsplit_once('/').is_some_and(|(_, last)| RESERVED.contains(&last)) {
            "ends in a word that the API uses"
        } else {
            return Ok(Self(id.into()));
        };
        let shown: String = id.chars().take(60).flat_map(char::escape_debug).collect();
        Err(InvalidStreamId { shown, problem })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_an_id() {
        for good in ["camera-1", "a", "a/b/c", "A.b_c~d", "...", "recording"] {
            assert!(good.parse::<StreamId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "a/..",
            "a b",
            "ä",
            "a\0",
            "a%2fb",
            "a/recording",
            &"x".repeat(201),
        ] {
            assert!(bad.parse::<StreamId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_id_never_leaves_its_folder(id in "\\PC{0,40}") {
            if let Ok(id) = id.parse::<StreamId>() {
                let path = std::path::Path::new("/base").join(id.as_str());
                prop_assert!(path.starts_with("/base"));
                prop_assert!(path.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
            }
        }
    }

    #[test]
    fn phases_are_spread_and_stay_the_same() {
        let phase = |id: &str| id.parse::<StreamId>().unwrap().phase();
        let mut phases: Vec<f64> = (0..100).map(|n| phase(&format!("cam-{n}"))).collect();
        assert!(phases.iter().all(|p| (0.5..1.0).contains(p)), "{phases:?}");
        assert_eq!(phases[7], phase("cam-7"));
        phases.sort_by(f64::total_cmp);
        // No tenth of the time has more than a quarter of the cameras.
        for tenth in 0..10 {
            let from = 0.5 + f64::from(tenth) * 0.05;
            let inside = phases.iter().filter(|p| (from..from + 0.05).contains(*p)).count();
            assert!(inside <= 25, "{inside} from {from}");
        }
    }
}
