//! Names of segment files.

use crate::frame::WallTime;

/// Containers that segments come in.
const EXTENSIONS: [&str; 3] = ["mp4", "mkv", "ts"];

/// The file name of a segment that starts at this time: `2026-01-31T23-59-59.123Z.mp4`.
pub fn segment_name(start: WallTime, extension: &str) -> String {
    format!("{}.{extension}", start.format_utc("%Y-%m-%dT%H-%M-%S%.3fZ"))
}

/// The start and the extension that a segment's file name tells; `None` for any other name.
pub fn parse_segment_name(name: &str) -> Option<(WallTime, &str)> {
    let (stem, extension) = name.rsplit_once('.')?;
    let start = WallTime::parse_utc("%Y-%m-%dT%H-%M-%S%.fZ", stem)?;
    // The one name that it would be given: nothing else is ours.
    (EXTENSIONS.contains(&extension) && segment_name(start, extension) == name).then_some((start, extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let start = WallTime::from_unix_nanos(1_700_000_000_005_000_000);
        assert_eq!(segment_name(start, "ts"), "2023-11-14T22-13-20.005Z.ts");
        assert_eq!(parse_segment_name("2023-11-14T22-13-20.005Z.ts"), Some((start, "ts")));
        for foreign in [
            "holiday.mp4",
            "2023-11-14T22-13-20.5Z.mp4",
            "2023-11-14T22-13-20.005Z",
            ".mp4",
            "x.ts",
            "2023-11-14T22-13-20.005Z.avi",
        ] {
            assert_eq!(parse_segment_name(foreign), None, "{foreign}");
        }
    }
}
