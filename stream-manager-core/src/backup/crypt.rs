//! Encryption of backups (age, feature `encryption`): to public keys, so that what makes backups cannot read them.

use super::BackupError;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::Path;

/// How every encrypted file begins (<https://age-encryption.org/v1>).
const MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// Public keys; whoever has a key to one of them can read what is encrypted.
#[derive(Clone, Default)]
pub struct Recipients {
    #[cfg(feature = "encryption")]
    keys: Vec<age::x25519::Recipient>,
    texts: Vec<String>,
}

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.texts).finish()
    }
}

impl Recipients {
    /// From public keys as `age-keygen` prints them (`age1…`).
    ///
    /// # Errors
    /// Names the one that is none, and says what would be right.
    pub fn new(texts: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, String> {
        let texts: Vec<String> = texts.into_iter().map(|text| text.into().trim().to_owned()).collect();
        for text in &texts {
            // Not shown: it is said to happen that somebody takes the secret one.
            if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
                return Err("a secret key is no recipient; expected the public key to it, age1…".into());
            }
        }
        #[cfg(feature = "encryption")]
        {
            let read = |text: &String| {
                let shown: String = text.chars().take(80).collect();
                text.parse()
                    .map_err(|e| format!("\"{shown}\" is no public key of age's ({e}); expected one that age-keygen prints, age1…"))
            };
            let keys = texts.iter().map(read).collect::<Result<_, _>>()?;
            Ok(Self { keys, texts })
        }
        #[cfg(not(feature = "encryption"))]
        if texts.is_empty() {
            Ok(Self { texts })
        } else {
            Err("this program was built without encryption".into())
        }
    }

    /// Whether there are none: nothing is encrypted then.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// What is written into it is written on encrypted, if there are keys.
    pub(super) fn writer<W: Write>(&self, to: W) -> std::io::Result<Writer<W>> {
        #[cfg(feature = "encryption")]
        if !self.keys.is_empty() {
            let keys = self.keys.iter().map(|key| key as &dyn age::Recipient);
            let encryptor = age::Encryptor::with_recipients(keys).map_err(std::io::Error::other)?;
            return Ok(Writer::Encrypted(Box::new(encryptor.wrap_output(to)?)));
        }
        Ok(Writer::Plain(to))
    }
}

/// Writes encrypted, or as it is.
pub(super) enum Writer<W: Write> {
    Plain(W),
    #[cfg(feature = "encryption")]
    Encrypted(Box<age::stream::StreamWriter<W>>),
}

impl<W: Write> Writer<W> {
    /// Ends it, and gives back what was written to.
    pub(super) fn finish(self) -> std::io::Result<W> {
        match self {
            Self::Plain(to) => Ok(to),
            #[cfg(feature = "encryption")]
            Self::Encrypted(writer) => writer.finish(),
        }
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(to) => to.write(data),
            #[cfg(feature = "encryption")]
            Self::Encrypted(writer) => writer.write(data),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(to) => to.flush(),
            #[cfg(feature = "encryption")]
            Self::Encrypted(writer) => writer.flush(),
        }
    }
}

/// Secret keys, by which encrypted backups can be read.
#[derive(Default)]
pub struct Identities {
    #[cfg(feature = "encryption")]
    keys: Vec<Box<dyn age::Identity + Send + Sync>>,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identities")
    }
}

impl Identities {
    /// From a file as `age-keygen` writes it.
    ///
    /// # Errors
    /// If it cannot be read, or holds no key.
    #[cfg(feature = "encryption")]
    pub fn read(path: &Path) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::io(path))?;
        let wrong = |problem: String| BackupError::Key { path: path.to_owned(), problem };
        // Its messages quote what they do not understand, which may be most of a key.
        let unreadable = || wrong("it holds no key; expected a file that age-keygen writes".to_owned());
        let identities = age::IdentityFile::from_buffer(BufReader::new(file.take(1 << 20)))
            .map_err(|_| unreadable())?
            .into_identities()
            .map_err(|_| unreadable())?;
        if identities.is_empty() { Err(unreadable()) } else { Ok(Self { keys: identities }) }
    }

    /// Reads a file, decrypted if it is encrypted.
    pub(super) fn open(&self, path: &Path) -> Result<Box<dyn Read + '_>, BackupError> {
        let file = File::open(path).map_err(BackupError::io(path))?;
        let mut reader = BufReader::new(file);
        let begins = reader.fill_buf().map_err(BackupError::io(path))?;
        if !begins.starts_with(MAGIC) {
            return Ok(Box::new(reader));
        }
        #[cfg(feature = "encryption")]
        {
            if self.keys.is_empty() {
                return Err(BackupError::Encrypted(path.to_owned()));
            }
            let damaged = |error: age::DecryptError| match error {
                age::DecryptError::NoMatchingKeys => BackupError::Key {
                    path: path.to_owned(),
                    problem: "it is encrypted for other keys than the given one".to_owned(),
                },
                error => BackupError::Damaged { path: path.to_owned(), problem: error.to_string() },
            };
            let decryptor = age::Decryptor::new_buffered(reader).map_err(damaged)?;
            let keys = self.keys.iter().map(|key| key.as_ref() as &dyn age::Identity);
            Ok(Box::new(decryptor.decrypt(keys).map_err(damaged)?))
        }
        #[cfg(not(feature = "encryption"))]
        Err(BackupError::Encrypted(path.to_owned()))
    }
}
