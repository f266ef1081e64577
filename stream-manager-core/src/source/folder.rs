//! Play lists: the files of a folder, or those that an `.m3u` file names, one behind the other, as one stream.

use super::{Source, SourceEnd, SourceError, UriSource};
use crate::hub::HubWriter;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use url::Url;

/// What is played of a folder.
const MEDIA: [&str; 11] = ["mp4", "m4v", "mov", "mkv", "webm", "ts", "mts", "m2ts", "avi", "flv", "mpg"];
/// More files than this are no play list.
const MAX_FILES: usize = 10_000;

/// The media files of a folder, in the order of their names; what is in folders within it is not played.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |problem: String| SourceError::File { path: folder.display().to_string(), problem };
    let entries = std::fs::read_dir(folder).map_err(|e| failed(e.to_string()))?;
    let is_media = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        extension.is_some_and(|e| MEDIA.contains(&e.as_str())) && path.is_file()
    };
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(is_media).take(MAX_FILES).collect();
    if found.is_empty() {
        return Err(failed(format!(
            "there is no media in this folder; expected files such as {}",
            MEDIA.join(", ")
        )));
    }
    found.sort();
    Ok(found)
}

/// The files that a play list names, a line each; relative ones lie beside it. What begins with `#` is not for us.
fn listed(list: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |problem: String| SourceError::File { path: list.display().to_string(), problem };
    let text = std::fs::read(list).map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8_lossy(&text);
    let beside = list.parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    // A mark in front of the text says no more than that it is one.
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let path = match Url::parse(line) {
            Ok(url) if url.scheme() == "file" => {
                url.to_file_path().map_err(|()| failed(format!("\"{line}\" is no path of a file")))?
            }
            Ok(url) if url.host_str().is_some() => {
                return Err(failed(format!(
                    "\"{}\" is no file; expected files only",
                    crate::error::redact_url(line)
                )));
            }
            _ => beside.join(line),
        };
        if is_list(&path) {
            return Err(failed(format!("\"{line}\" is a play list itself; expected media files")));
        }
        found.push(path);
        if found.len() > MAX_FILES {
            return Err(failed(format!("it has over {MAX_FILES} lines")));
        }
    }
    if found.is_empty() { Err(failed("it names no file".into())) } else { Ok(found) }
}

/// Whether a file is a play list. (`.m3u8` is HLS, which is another matter.)
pub(super) fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("m3u"))
}

/// Plays a folder or a play list once, or for ever; what comes into it is played from the next round on.
pub(super) async fn play(
    folder: PathBuf,
    looped: bool,
    hub: &HubWriter,
    cancel: &CancellationToken,
) -> Result<SourceEnd, SourceError> {
    loop {
        let looks = folder.clone();
        let look = move || if looks.is_dir() { files(&looks) } else { listed(&looks) };
        let listed = tokio::task::spawn_blocking(look).await;
        let listed = listed.map_err(|e| SourceError::Other(e.to_string()))??;
        let (mut played, mut failure) = (0, None);
        for path in listed {
            let Ok(url) = Url::from_file_path(&path) else { continue };
            let Ok(mut file) = UriSource::from_url(url) else { continue };
            match file.run(hub, cancel.child_token()).await {
                Ok(SourceEnd::Cancelled) => return Ok(SourceEnd::Cancelled),
                Ok(_) => played += 1,
                // One bad file is no reason to play none of the others.
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a file of a folder cannot be played");
                    failure = Some(error);
                }
            }
            // The next one's times begin anew, without a gap.
            hub.restart_clock();
        }
        match failure {
            Some(error) if played == 0 => return Err(error),
            _ if !looped => return Ok(SourceEnd::Finished),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_is_played_in_the_order_of_names_and_a_folder_without_any_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let said = files(folder.path()).unwrap_err().to_string();
        assert!(said.contains("no media in this folder"), "{said}");
        for name in ["b.mp4", "a.MKV", "notes.txt", ".hidden"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("c.mp4")).unwrap();
        let names: Vec<_> = files(folder.path()).unwrap();
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.MKV", "b.mp4"]);
        assert!(files(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn a_play_list_names_files_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.m3u");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            listed(&path).map_err(|e| e.to_string())
        };
        let files =
            of("\u{feff}#EXTM3U\n#EXTINF:3,door\nb.mp4\r\n\n/videos/a.mkv\nfile:///videos/c%20d.ts\n")
                .unwrap();
        let expected = [folder.path().join("b.mp4"), "/videos/a.mkv".into(), "/videos/c d.ts".into()];
        assert_eq!(files, expected);
        for (text, words) in [
            ("#EXTM3U\n", "names no file"),
            ("list.m3u\n", "is a play list itself"),
            ("http://me:geheim@h/x.mp4\n", "expected files only"),
        ] {
            let said = of(text).unwrap_err();
            assert!(said.contains(words) && !said.contains("geheim"), "{said}");
        }
    }
}
