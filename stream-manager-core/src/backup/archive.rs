//! The archive: a gzipped tar with the manifest first.

use super::{BackupError, CONFIG, FORMAT, Identities, KIND, MANIFEST, Manifest, known};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use tar::{Archive, Builder, EntryType, Header};

/// No manifest is larger.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
const CHUNK_BYTES: usize = 256 << 10;

/// Copies everything, and says how much that was and its hash.
pub(super) fn copy_hashing(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, String)> {
    let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0u64, vec![0u8; CHUNK_BYTES]);
    loop {
        let length = from.read(&mut chunk)?;
        let Some(data) = chunk.get(..length).filter(|data| !data.is_empty()) else {
            return Ok((bytes, format!("{:x}", hash.finalize())));
        };
        hash.update(data);
        to.write_all(data)?;
        bytes += length as u64;
    }
}

/// Writes on, and counts and hashes what it writes.
pub(super) struct Hashing<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, hash: Sha256::new(), bytes: 0 }
    }

    /// What was written to, how much, and its hash.
    pub(super) fn end(self) -> (W, u64, String) {
        (self.to, self.bytes, format!("{:x}", self.hash.finalize()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.to.write(data)?;
        self.hash.update(data.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn header(name: &str, bytes: u64, manifest: &Manifest) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(manifest.created.as_unix_nanos() / 1_000_000_000).unwrap_or(0));
    header.set_cksum();
    Ok(header)
}

/// Writes files of a folder into an archive. `told` gets the bytes of each piece, and gives up by saying no.
pub(super) fn write<W: Write>(
    to: W,
    manifest: &Manifest,
    folder: &Path,
    told: &mut dyn FnMut(u64) -> bool,
) -> io::Result<W> {
    let mut builder = Builder::new(GzEncoder::new(BufWriter::new(to), Compression::default()));
    let text = serde_json::to_vec_pretty(manifest).map_err(io::Error::other)?;
    builder.append(&header(MANIFEST, text.len() as u64, manifest)?, text.as_slice())?;
    for file in &manifest.files {
        let content = File::open(folder.join(&file.name))?.take(file.bytes);
        builder.append(&header(&file.name, file.bytes, manifest)?, Telling { from: content, told })?;
    }
    builder.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Reads on, and tells how much.
pub(super) struct Telling<'a, R> {
    pub(super) from: R,
    pub(super) told: &'a mut dyn FnMut(u64) -> bool,
}

impl<R: Read> Read for Telling<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        if (self.told)(length as u64) { Ok(length) } else { Err(io::Error::other(GivenUp)) }
    }
}

/// Somebody has given it up.
#[derive(Debug, thiserror::Error)]
#[error("it was given up")]
pub(super) struct GivenUp;

/// Reads an archive whole and holds it against its manifest. `take` gets the files, one after the other.
pub(super) fn read(
    path: &Path,
    keys: &Identities,
    mut take: impl FnMut(&str, &mut dyn Read) -> Result<(u64, String), BackupError>,
) -> Result<Manifest, BackupError> {
    let foreign = |problem: &str| BackupError::Foreign { path: path.to_owned(), problem: problem.to_owned() };
    let damaged = |problem: String| BackupError::Damaged { path: path.to_owned(), problem };
    let mut archive = Archive::new(GzDecoder::new(BufReader::new(keys.open(path)?)));
    let mut entries = archive.entries().map_err(|e| foreign(&e.to_string()))?;
    let first = entries.next().ok_or_else(|| foreign("it is empty"))?;
    let first = first.map_err(|_| foreign("it is no gzipped tar"))?;
    if first.path_bytes().as_ref() != MANIFEST.as_bytes() {
        return Err(foreign("it has no manifest"));
    }
    let mut text = Vec::new();
    first.take(MAX_MANIFEST_BYTES).read_to_end(&mut text).map_err(|e| damaged(e.to_string()))?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| damaged(format!("manifest: {e}")))?;
    if value["kind"] != KIND {
        return Err(foreign("its manifest says that it is something else"));
    }
    let version = || value["version"].as_str().unwrap_or("unknown").chars().take(40).collect();
    if value["format"].as_u64().is_none_or(|format| format > u64::from(FORMAT)) {
        return Err(BackupError::TooNew { path: path.to_owned(), version: version() });
    }
    let manifest: Manifest =
        serde_json::from_value(value.clone()).map_err(|e| damaged(format!("manifest: {e}")))?;
    // A name that is not known is one of a newer version, or leads elsewhere.
    if manifest.files.iter().any(|file| known().iter().all(|(name, _)| *name != file.name)) {
        return Err(BackupError::TooNew { path: path.to_owned(), version: version() });
    }
    let mut expected = manifest.files.iter();
    for entry in entries {
        let mut entry = entry.map_err(|e| damaged(e.to_string()))?;
        let Some(file) = expected.next() else {
            return Err(damaged("there is more in it than it says".into()));
        };
        let is_it = entry.header().entry_type() == EntryType::Regular
            && entry.path_bytes().as_ref() == file.name.as_bytes()
            && entry.size() == file.bytes;
        if !is_it {
            return Err(damaged(format!("expected {} with {} bytes", file.name, file.bytes)));
        }
        let (bytes, hash) = take(&file.name, &mut entry).map_err(|error| match error {
            // What cannot be read of the archive is the archive's.
            BackupError::Io { path: of, source } if of == path => damaged(source.to_string()),
            other => other,
        })?;
        if bytes != file.bytes || hash != file.sha256 {
            return Err(damaged(format!("{} is not what it was", file.name)));
        }
    }
    match expected.next() {
        Some(file) => Err(damaged(format!("{} is missing", file.name))),
        None => Ok(manifest),
    }
}

/// Reads an archive whole: whether it is a backup, and what it was.
///
/// # Errors
/// If it is something else, is damaged, or was made by a newer version.
pub fn verify(path: &Path, keys: &Identities) -> Result<Manifest, BackupError> {
    read(path, keys, |_, content| {
        let mut content = content;
        copy_hashing(&mut content, &mut io::sink()).map_err(BackupError::io(path))
    })
}

/// The configuration file in an archive, if there is one and it can be read.
///
/// # Errors
/// As [`verify`].
pub fn config_of(path: &Path, keys: &Identities) -> Result<Option<String>, BackupError> {
    let mut text = None;
    read(path, keys, |name, content| {
        let (mut content, mut bytes) = (content, Vec::new());
        let copied = if name == CONFIG {
            let copied = copy_hashing(&mut content, &mut bytes);
            text = String::from_utf8(bytes).ok();
            copied
        } else {
            copy_hashing(&mut content, &mut io::sink())
        };
        copied.map_err(BackupError::io(path))
    })?;
    Ok(text)
}
