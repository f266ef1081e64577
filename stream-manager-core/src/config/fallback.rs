//! `[defaults.fallback]` and `[streams.fallback]`: what stands in for a source that is silent.

use super::units::check_duration;
use super::{Address, DurationText};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// `[defaults.fallback]` and `[streams.fallback]`. At most one of `url`, `image`, `file` and `slate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FallbackConfig {
    /// Whether anything stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Another source's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Address>,
    /// An image file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<PathBuf>,
    /// A media file, which is played again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Text on black; `{id}` and `{since}` in it are the stream's id and the time of its last frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slate: Option<String>,
    /// How long the source may say nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// How long the source has to deliver before it is shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_after: Option<DurationText>,
    /// Whether what stands in is recorded, which is marked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<bool>,
}

/// What stands in.
#[derive(Clone, Debug, PartialEq)]
pub enum FallbackKind {
    /// Another source's address.
    Url(Address),
    /// An image file.
    Image(PathBuf),
    /// A media file.
    File(PathBuf),
    /// Text on black.
    Slate(String),
}

/// What stands in for a source, with everything that is left to the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct FallbackSettings {
    /// What: the one that is said, or if there are several, all of them, which is an error.
    pub kinds: Vec<FallbackKind>,
    /// How long the source may say nothing.
    pub timeout: Duration,
    /// How long the source has to deliver before it is shown again.
    pub return_after: Duration,
    /// Whether what stands in is recorded.
    pub record: bool,
}

impl FallbackConfig {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn kinds(&self) -> Vec<FallbackKind> {
        let url = self.url.clone().map(FallbackKind::Url);
        let image = self.image.clone().map(FallbackKind::Image);
        let file = self.file.clone().map(FallbackKind::File);
        let slate = self.slate.clone().map(FallbackKind::Slate);
        [url, image, file, slate].into_iter().flatten().collect()
    }

    /// None if nothing stands in.
    pub(super) fn resolve(&self, defaults: &Self) -> Option<FallbackSettings> {
        let own = self.kinds();
        let kinds = if own.is_empty() { defaults.kinds() } else { own };
        if kinds.is_empty() || !self.enabled.or(defaults.enabled).unwrap_or(true) {
            return None;
        }
        let time = |own: Option<DurationText>, common: Option<DurationText>, secs| {
            own.or(common).map_or(Duration::from_secs(secs), |d| d.0)
        };
        Some(FallbackSettings {
            kinds,
            timeout: time(self.timeout, defaults.timeout, 3),
            return_after: time(self.return_after, defaults.return_after, 2),
            record: self.record.or(defaults.record).unwrap_or(true),
        })
    }
}

impl FallbackSettings {
    /// What is wrong: the key, and what would be right. Looks at files.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.kinds.len() > 1 {
            let names: Vec<&str> = self.kinds.iter().map(FallbackKind::key).collect();
            return Err(("fallback", format!("it has {}; expected one of them", names.join(" and "))));
        }
        let hour = Duration::from_secs(3600);
        check_duration("fallback/timeout", self.timeout, Duration::from_millis(500), hour)?;
        check_duration("fallback/return_after", self.return_after, Duration::ZERO, hour)?;
        for kind in &self.kinds {
            match kind {
                FallbackKind::Image(path) => is_file("fallback/image", path)?,
                FallbackKind::File(path) => is_file("fallback/file", path)?,
                FallbackKind::Slate(text) if text.chars().count() > 500 => {
                    return Err(("fallback/slate", "it is over 500 characters".into()));
                }
                FallbackKind::Slate(_) | FallbackKind::Url(_) => {}
            }
        }
        Ok(())
    }
}

fn is_file(key: &'static str, path: &std::path::Path) -> Result<(), (&'static str, String)> {
    let problem = match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => return Ok(()),
        Ok(_) => "it is no file".to_owned(),
        Err(error) => error.to_string(),
    };
    Err((key, format!("\"{}\": {problem}; expected a file that can be read", path.display())))
}

impl FallbackKind {
    /// The key by which it is said.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Image(_) => "image",
            Self::File(_) => "file",
            Self::Slate(_) => "slate",
        }
    }
}
