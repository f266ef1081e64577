//! Short-lived signed addresses, for players that cannot send headers.
//!
//! `?sig=<expiry>.<action>.<MAC>` behind a stream's address: the MAC is HMAC-SHA256 over action, stream, expiry and who signed,
//! with a key that only this server has.

use super::{Action, equal, random};
use crate::frame::WallTime;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::fmt;
use std::time::Duration;

/// What an address is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAddress {
    /// To do what.
    pub action: Action,
    /// With which stream.
    pub stream: String,
    /// Until when.
    pub expires: WallTime,
    /// Who made it.
    pub user: Option<String>,
}

/// Signs addresses and knows its own signatures.
#[derive(Clone)]
pub struct Signer {
    key: [u8; 32],
}

impl Signer {
    /// The longest that an address is to be good for.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

    /// With a key of its own, which nobody has.
    pub fn random() -> Self {
        Self { key: random() }
    }

    /// With a key.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    fn mac(&self, action: Action, stream: &str, expires: i64, user: &str) -> Option<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        for part in [action.name(), stream, &expires.to_string(), user] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Some(mac.finalize().into_bytes().into())
    }

    /// What has to stand in the address's query: `sig=…`. None for what cannot be signed for: only watching and publishing can.
    ///
    /// ```
    /// # use stream_manager_core::auth::{Action, SignedAddress, Signer};
    /// # use stream_manager_core::frame::WallTime;
    /// let signer = Signer::random();
    /// let expires = WallTime::now() + std::time::Duration::from_secs(60);
    /// let address = SignedAddress { action: Action::Read, stream: "door".into(), expires, user: None };
    /// let query = signer.sign(&address).unwrap();
    /// assert!(signer.verify(&query, Action::Read, "door").is_some());
    /// assert!(signer.verify(&query, Action::Read, "yard").is_none());
    /// ```
    pub fn sign(&self, address: &SignedAddress) -> Option<String> {
        let letter = letter(address.action)?;
        let expires = address.expires.as_unix_nanos().div_euclid(1_000_000_000);
        let user = address.user.as_deref().unwrap_or_default();
        let mac = self.mac(address.action, &address.stream, expires, user)?;
        let (mac, user) = (URL_SAFE_NO_PAD.encode(mac), URL_SAFE_NO_PAD.encode(user));
        Some(format!("sig={letter}{expires}.{user}.{mac}"))
    }

    /// Whether the query of an address has a signature that is good for this, now.
    pub fn verify(&self, query: &str, action: Action, stream: &str) -> Option<SignedAddress> {
        let value = parameter(query, "sig")?;
        let first = value.chars().next()?;
        let mut parts = value.get(first.len_utf8()..)?.split('.');
        let (expires, user, mac) = (parts.next()?.parse::<i64>().ok()?, parts.next()?, parts.next()?);
        if letter(action) != Some(first) || parts.next().is_some() {
            return None;
        }
        let user = String::from_utf8(URL_SAFE_NO_PAD.decode(user).ok()?).ok()?;
        let expected = self.mac(action, stream, expires, &user)?;
        if !equal(&expected, &URL_SAFE_NO_PAD.decode(mac).ok()?) {
            return None;
        }
        let expires = WallTime::from_unix_nanos(expires.checked_mul(1_000_000_000)?);
        let user = Some(user).filter(|user| !user.is_empty());
        (expires > WallTime::now()).then(|| SignedAddress {
            action,
            stream: stream.to_owned(),
            expires,
            user,
        })
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

fn letter(action: Action) -> Option<char> {
    match action {
        Action::Read => Some('r'),
        Action::Playback => Some('p'),
        Action::Publish => Some('w'),
        _ => None,
    }
}

/// A parameter of a query string; percent-encoding undone.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<std::borrow::Cow<'a, str>> {
    let value = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    })?;
    percent_encoding::percent_decode_str(value).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_good_for_one_thing_and_some_time() {
        let signer = Signer::random();
        let expires = WallTime::now() + Duration::from_secs(60);
        let address = SignedAddress {
            action: Action::Read,
            stream: "yard/door".into(),
            expires: WallTime::from_unix_nanos(expires.as_unix_nanos() / 1_000_000_000 * 1_000_000_000),
            user: Some("ann.b".into()),
        };
        let query = format!("start=0&{}&x=1", signer.sign(&address).unwrap());
        assert_eq!(signer.verify(&query, Action::Read, "yard/door"), Some(address.clone()));
        assert_eq!(signer.verify(&query, Action::Publish, "yard/door"), None);
        assert_eq!(signer.verify(&query, Action::Read, "yard"), None);
        assert_eq!(Signer::random().verify(&query, Action::Read, "yard/door"), None, "another server's");
        // Later, another user's, somebody else's right.
        let digits = query.find("sig=r").unwrap() + 5;
        let mut longer = query.clone();
        longer.replace_range(digits..=digits, "9");
        for changed in [
            longer,
            query.replace("sig=r", "sig=p"),
            query.replace('.', ".A"),
            "sig=".into(),
            "sig=é1.a.b".into(),
        ] {
            for action in [Action::Read, Action::Playback] {
                assert_eq!(signer.verify(&changed, action, "yard/door"), None, "{changed}");
            }
        }
        let old = SignedAddress { expires: WallTime::now() - Duration::from_secs(5), ..address.clone() };
        assert_eq!(signer.verify(&signer.sign(&old).unwrap(), Action::Read, "yard/door"), None);
        assert_eq!(signer.sign(&SignedAddress { action: Action::Admin, ..address }), None);
    }
}
