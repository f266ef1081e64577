//! A folder as a play list: its files one behind the other, as one stream.

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

/// Plays a folder once, or for ever; what comes into it is played from the next round on.
pub(super) async fn play(
    folder: PathBuf,
    looped: bool,
    hub: &HubWriter,
    cancel: &CancellationToken,
) -> Result<SourceEnd, SourceError> {
    loop {
        let looks = folder.clone();
        let listed = tokio::task::spawn_blocking(move || files(&looks)).await;
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
}
