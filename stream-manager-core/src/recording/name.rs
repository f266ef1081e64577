//! Names of segment files.

use super::RecordingFormat;
use crate::frame::WallTime;
use std::path::{Path, PathBuf};

/// The file name of a segment that starts at this time: `2026-01-31T23-59-59.123Z.mp4`.
pub fn segment_file_name(start: WallTime, format: RecordingFormat) -> String {
    crate::storage::segment_name(start, format.extension())
}

/// `out.mp4`, `out-2.mp4`, `out-3.mp4`, …
pub(super) fn numbered(path: &Path, number: u64) -> PathBuf {
    if number <= 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{number}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number}"),
    };
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let start = WallTime::from_unix_nanos(1_700_000_000_005_000_000);
        assert_eq!(segment_file_name(start, RecordingFormat::Ts), "2023-11-14T22-13-20.005Z.ts");
        assert_eq!(numbered(Path::new("/a/out.tar.mp4"), 2), Path::new("/a/out.tar-2.mp4"));
        assert_eq!(numbered(Path::new("out"), 1), Path::new("out"));
    }
}
