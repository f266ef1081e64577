//! API tokens: `smt_<id>_<secret>`. The id finds the entry; of the secret, which has 160 bits, only a SHA-256 is kept.

use super::{Secret, equal, random_text};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "smt_";
const ID: usize = 8;
const SECRET: usize = 32;

/// A token's two halves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: String,
    secret: Secret,
}

impl Token {
    pub(super) fn new() -> Self {
        Self { id: random_text::<ID>(), secret: Secret::new(random_text::<SECRET>()) }
    }

    /// As its owner has it.
    pub(super) fn text(&self) -> Secret {
        Secret::new(format!("{PREFIX}{}_{}", self.id, self.secret.reveal()))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let right =
            |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
        (right(id, ID) && right(secret, SECRET))
            .then(|| Self { id: id.to_owned(), secret: Secret::new(secret) })
    }

    /// What is kept.
    pub(super) fn hash(&self) -> String {
        format!("{:x}", Sha256::digest(self.secret.reveal()))
    }

    pub(super) fn verify(&self, hash: &str) -> bool {
        equal(self.hash().as_bytes(), hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_recognized_and_proved() {
        let token = Token::new();
        let text = token.text();
        let parsed = Token::parse(text.reveal()).unwrap();
        assert_eq!(parsed, token);
        assert!(parsed.verify(&token.hash()) && !Token::new().verify(&token.hash()));
        for bad in [
            "",
            "smt_",
            "smt_12345678",
            "smt_12345678_short",
            "smt_1234567_abcdefghjkmnpqrstvwxyz012345678",
            &text.reveal()[1..],
        ] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }
}
