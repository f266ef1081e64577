//! Text that is never shown, numbers that nobody guesses, and comparing that tells nothing.

use std::fmt;

/// Text that is never shown.
///
/// ```
/// # use stream_manager_core::auth::Secret;
/// assert_eq!(format!("{:?}", Secret::new("geheim")), "***");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for comparing and hashing only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl schemars::JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A secret. Answers show \"***\" instead; sent back like that, it stays as it is."
        })
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// A number that nobody can guess.
pub(crate) fn unpredictable() -> u64 {
    u64::from_ne_bytes(random())
}

/// Bytes that nobody can guess: the system's.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Not on a system that has started. Hashers have random keys of their own from it.
        tracing::error!(%error, "the system gives no random numbers");
        use std::hash::{BuildHasher, Hasher, RandomState};
        for chunk in bytes.chunks_mut(8) {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u64(fastrand::u64(..));
            chunk.copy_from_slice(hasher.finish().to_ne_bytes().get(..chunk.len()).unwrap_or_default());
        }
    }
    bytes
}

/// Text of letters and digits that nobody can guess, 5 bits each (Crockford's base 32, in lower case).
pub(crate) fn random_text<const N: usize>() -> String {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    random::<N>().iter().map(|byte| char::from(LETTERS[usize::from(byte & 31)])).collect()
}

/// Compares without telling by its duration where the difference is.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    use subtle::ConstantTimeEq as _;
    // Hashed first, so that not even the length shows.
    use sha2::Digest as _;
    sha2::Sha256::digest(a).ct_eq(&sha2::Sha256::digest(b)).into()
}
