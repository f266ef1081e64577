//! Playlists as they are sent: made once for all who ask for the same at the same time.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::{Arc, OnceLock};

/// Kept at one time for one rendition: there are no more ways to ask for the present.
const MAX_KEPT: usize = 8;

/// A text that does not change.
#[derive(Debug)]
pub struct Text {
    plain: Bytes,
    gzip: OnceLock<Bytes>,
    etag: String,
}

impl Text {
    /// From a string.
    pub fn new(text: String) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        Self { plain: text.into(), gzip: OnceLock::new(), etag }
    }

    /// As it is.
    pub fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    /// Compressed (RFC 1952), once.
    pub fn gzip(&self) -> Bytes {
        let compress = || {
            let mut encoder = GzEncoder::new(Vec::with_capacity(self.plain.len() / 3), Compression::fast());
            // Writing into memory does not fail.
            let done = encoder.write_all(&self.plain).and_then(|()| encoder.finish());
            done.map_or_else(|_| Bytes::new(), Bytes::from)
        };
        self.gzip.get_or_init(compress).clone()
    }

    /// What tells it from others, with quotes.
    pub fn etag(&self) -> &str {
        &self.etag
    }
}

/// Texts by what they were asked for as; each is good for one version.
#[derive(Debug, Default)]
pub(super) struct Texts {
    kept: Mutex<Vec<(u64, u64, Arc<Text>)>>,
}

impl Texts {
    /// The text for a version and a kind; made while others wait, so that it is made once.
    pub(super) fn get(&self, version: u64, kind: u64, make: impl FnOnce() -> String) -> Arc<Text> {
        let mut kept = self.kept.lock();
        if let Some((_, _, text)) = kept.iter().find(|(v, k, _)| (*v, *k) == (version, kind)) {
            return text.clone();
        }
        let text = Arc::new(Text::new(make()));
        kept.retain(|(_, k, _)| *k != kind);
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        kept.push((version, kind, text.clone()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn is_made_once_and_comes_back_from_gzip() {
        let texts = Texts::default();
        let first = texts.get(1, 0, || "a".repeat(1000));
        let again = texts.get(1, 0, || unreachable!());
        assert!(Arc::ptr_eq(&first, &again));
        assert_ne!(texts.get(2, 0, || "b".into()).etag(), first.etag());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&first.gzip()[..]).read_to_string(&mut text).unwrap();
        assert!(text.len() == 1000 && first.gzip().len() < 100);
    }
}
