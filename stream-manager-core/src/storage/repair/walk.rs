//! Finds segment files in a folder for recordings.

use super::{MARKER, Report, finding};
use crate::storage::parse_segment_name;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Folders inside of folders; ids of streams have fewer parts.
const MAX_DEPTH: usize = 16;
/// Files that do not belong here are told up to this many.
const MAX_FOREIGN: usize = 100;

/// Adds the segment files in `place` to `found`, by stream.
pub(super) fn walk(place: &Path, found: &mut HashMap<String, Vec<PathBuf>>, report: &mut Report) {
    folder(place, place, 0, found, report);
}

fn folder(
    place: &Path,
    path: &Path,
    depth: usize,
    found: &mut HashMap<String, Vec<PathBuf>>,
    report: &mut Report,
) {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            report.unavailable.push(finding(path, format!("cannot be read: {error}")));
            return;
        }
    };
    let stream = path.strip_prefix(place).unwrap_or(path).to_string_lossy().into_owned();
    for entry in entries {
        let (entry, kind) = match entry.and_then(|e| e.file_type().map(|k| (e, k))) {
            Ok(both) => both,
            Err(error) => {
                report.unavailable.push(finding(path, format!("cannot be read: {error}")));
                return;
            }
        };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if kind.is_dir() && depth < MAX_DEPTH {
            folder(place, &entry.path(), depth + 1, found, report);
        } else if kind.is_file() && !stream.is_empty() && parse_segment_name(&name).is_some() {
            found.entry(stream.clone()).or_default().push(entry.path());
        } else if name != MARKER && report.foreign.len() < MAX_FOREIGN {
            let problem =
                if kind.is_symlink() { "is a link; links are not followed" } else { "is none of ours" };
            report.foreign.push(finding(&entry.path(), problem));
        }
    }
}
