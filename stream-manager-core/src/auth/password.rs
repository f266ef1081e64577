//! Passwords as Argon2id hashes (RFC 9106), in the form of PHC strings: `$argon2id$v=19$m=19456,t=2,p=1$…$…`.
//!
//! A hash takes tens of milliseconds and 19 MiB on purpose. [`Verifier`] computes few at one time, and remembers for some
//! minutes who has proved what, by a keyed hash, so that a player's every request does not cost that again.

use super::{Secret, random};
use argon2::password_hash::{PasswordHash as Phc, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Memory in KiB and passes, as OWASP has them at least.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// Hashes that are cheaper than this do not protect a password.
const LEAST: (u32, u32) = (7_168, 1);
/// Hashes that are dearer would let anybody keep the machine busy.
const MOST: (u32, u32, u32) = (1 << 20, 20, 16);
/// Hashes computed at one time.
const AT_ONCE: usize = 2;
/// Who waits longer than this is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is remembered who has proved what, and of how many.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
const REMEMBERED: usize = 4096;
/// Longer passwords are none.
const MAX_PASSWORD_BYTES: usize = 1024;

/// A password's hash.
///
/// ```
/// use stream_manager_core::auth::{PasswordHash, Secret};
/// let hash = PasswordHash::of(&Secret::new("geheim")).unwrap();
/// assert!(hash.as_str().starts_with("$argon2id$"));
/// assert!(hash.verify(&Secret::new("geheim")) && !hash.verify(&Secret::new("Geheim")));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

/// What cannot be a password's hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// It is something else.
    #[error(
        "it is no Argon2id hash in PHC form; expected one such as `stream-manager user hash` makes ($argon2id$v=19$m=19456,t=2,p=1$…)"
    )]
    Foreign,
    /// It protects nothing.
    #[error("its parameters (m={memory_kib},t={passes}) are too weak; expected m={} and t={} at least", LEAST.0, LEAST.1)]
    Weak {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
    },
    /// It costs too much.
    #[error("its parameters (m={memory_kib},t={passes},p={lanes}) cost too much; expected m={}, t={} and p={} at most", MOST.0, MOST.1, MOST.2)]
    Dear {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// The password cannot be hashed.
    #[error("the password is {0}")]
    Password(&'static str),
}

impl PasswordHash {
    /// Of a password. Takes tens of milliseconds.
    ///
    /// # Errors
    /// If the password is empty or longer than 1024 bytes.
    pub fn of(password: &Secret) -> Result<Self, HashError> {
        let text = password.reveal();
        if text.is_empty() {
            return Err(HashError::Password("empty; expected some characters"));
        }
        if text.len() > MAX_PASSWORD_BYTES {
            return Err(HashError::Password("too long; expected 1024 bytes at most"));
        }
        let salt = SaltString::encode_b64(&random::<16>()).map_err(|_| HashError::Foreign)?;
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|_| HashError::Foreign)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = argon2.hash_password(text.as_bytes(), &salt).map_err(|_| HashError::Foreign)?;
        Ok(Self(hash.to_string()))
    }

    /// Whether a text looks like a hash rather than a password.
    pub(crate) fn is_meant(text: &str) -> bool {
        ["$argon2", "$2a$", "$2b$", "$2y$", "$1$", "$5$", "$6$", "$pbkdf2", "$scrypt", "$y$", "{SHA"]
            .iter()
            .any(|start| text.starts_with(start))
    }

    /// Whether it is this password's. Takes tens of milliseconds.
    pub fn verify(&self, password: &Secret) -> bool {
        let text = password.reveal();
        text.len() <= MAX_PASSWORD_BYTES
            && Phc::new(&self.0)
                .is_ok_and(|hash| Argon2::default().verify_password(text.as_bytes(), &hash).is_ok())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PasswordHash {
    type Err = HashError;
    fn from_str(text: &str) -> Result<Self, HashError> {
        let hash = Phc::new(text).map_err(|_| HashError::Foreign)?;
        let is_argon2id =
            hash.algorithm == Algorithm::Argon2id.ident() && hash.hash.is_some() && hash.salt.is_some();
        if !is_argon2id || hash.version.is_some_and(|version| version != Version::V0x13 as u32) {
            return Err(HashError::Foreign);
        }
        let params = Params::try_from(&hash).map_err(|_| HashError::Foreign)?;
        let (memory_kib, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
        if memory_kib < LEAST.0 || passes < LEAST.1 {
            return Err(HashError::Weak { memory_kib, passes });
        }
        if memory_kib > MOST.0 || passes > MOST.1 || lanes > MOST.2 {
            return Err(HashError::Dear { memory_kib, passes, lanes });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Verifies passwords against hashes, few at one time.
pub(super) struct Verifier {
    places: Arc<Semaphore>,
    key: [u8; 32],
    proved: Mutex<HashMap<[u8; 32], Instant>>,
    /// For names that nobody has: they take as long.
    nobody: PasswordHash,
}

impl Verifier {
    pub(super) fn new() -> Self {
        // Of the same cost as others; no password has it.
        let nobody = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            key: random(),
            proved: Mutex::default(),
            nobody: PasswordHash(nobody.to_owned()),
        }
    }

    fn fingerprint(&self, hash: &PasswordHash, password: &Secret) -> [u8; 32] {
        // Keys of any length are taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return random() };
        mac.update(hash.0.as_bytes());
        mac.update(&[0]);
        mac.update(password.reveal().as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Whether it is this password's; of nobody's if there is no hash. None if too many others wait.
    pub(super) async fn verify(&self, hash: Option<&PasswordHash>, password: &Secret) -> Option<bool> {
        let fingerprint = hash.map(|hash| self.fingerprint(hash, password));
        if let Some(fingerprint) = &fingerprint {
            let mut proved = self.proved.lock();
            match proved.get(fingerprint) {
                Some(since) if since.elapsed() < REMEMBERED_FOR => return Some(true),
                Some(_) => drop(proved.remove(fingerprint)),
                None => {}
            }
        }
        let place = tokio::time::timeout(PATIENCE, self.places.clone().acquire_owned()).await.ok()?.ok()?;
        let (checked, password) = (hash.unwrap_or(&self.nobody).clone(), password.clone());
        let verified = tokio::task::spawn_blocking(move || {
            let _place = place;
            checked.verify(&password)
        });
        let right = verified.await.ok()? && hash.is_some();
        if let Some(fingerprint) = fingerprint.filter(|_| right) {
            let mut proved = self.proved.lock();
            if proved.len() >= REMEMBERED {
                proved.retain(|_, since| since.elapsed() < REMEMBERED_FOR);
            }
            if proved.len() >= REMEMBERED {
                proved.clear();
            }
            proved.insert(fingerprint, Instant::now());
        }
        Some(right)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_weak_and_dear_hashes_are_refused() {
        let rest = "$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for (text, expected) in [
            ("geheim".to_owned(), HashError::Foreign),
            ("$2b$12$abcdefghijklmnopqrstuv".to_owned(), HashError::Foreign),
            (format!("$argon2i$v=19$m=19456,t=2,p=1{rest}"), HashError::Foreign),
            (format!("$argon2id$v=16$m=19456,t=2,p=1{rest}"), HashError::Foreign),
            ("$argon2id$v=19$m=19456,t=2,p=1".to_owned(), HashError::Foreign),
            (format!("$argon2id$v=19$m=64,t=1,p=1{rest}"), HashError::Weak { memory_kib: 64, passes: 1 }),
            (
                format!("$argon2id$v=19$m=4194304,t=2,p=1{rest}"),
                HashError::Dear { memory_kib: 4_194_304, passes: 2, lanes: 1 },
            ),
        ] {
            assert_eq!(text.parse::<PasswordHash>(), Err(expected), "{text}");
        }
        assert!(format!("$argon2id$v=19$m=19456,t=2,p=1{rest}").parse::<PasswordHash>().is_ok());
        assert!(PasswordHash::of(&Secret::new("")).is_err());
        assert!(PasswordHash::of(&Secret::new("x".repeat(2000))).is_err());
    }

    #[tokio::test]
    async fn what_is_proved_is_remembered_for_this_hash_only() {
        let verifier = Verifier::new();
        let (right, wrong) = (Secret::new("geheim"), Secret::new("falsch"));
        let hash = PasswordHash::of(&right).unwrap();
        assert_eq!(verifier.verify(Some(&hash), &wrong).await, Some(false));
        assert!(verifier.proved.lock().is_empty());
        assert_eq!(verifier.verify(Some(&hash), &right).await, Some(true));
        let begun = Instant::now();
        for _ in 0..1000 {
            assert_eq!(verifier.verify(Some(&hash), &right).await, Some(true));
        }
        // A thousand real ones would take half a minute.
        assert!(begun.elapsed() < Duration::from_secs(5));
        let other = PasswordHash::of(&wrong).unwrap();
        assert_eq!(verifier.verify(Some(&other), &right).await, Some(false));
        assert_eq!(verifier.verify(None, &right).await, Some(false));
    }
}
