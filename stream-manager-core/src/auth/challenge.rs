//! Basic and Digest access authentication, the client's side (RFC 7617, RFC 7616): what a server asks for, and the answer.

use base64::Engine;
use md5::{Digest, Md5};
use std::fmt::Write;

/// User and password.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// What the server wants to be answered with.
#[derive(Clone)]
pub(crate) enum Challenge {
    Basic,
    Digest { realm: String, nonce: String, opaque: Option<String>, qop: bool, count: u32 },
}

impl Challenge {
    /// The best of what is offered that we know.
    pub(crate) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for line in lines {
            let (scheme, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
            if !scheme.eq_ignore_ascii_case("digest") {
                continue;
            }
            let value = |name: &str| {
                rest.split(',').find_map(|part| {
                    let (key, value) = part.trim().split_once('=')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
                })
            };
            if value("algorithm").is_some_and(|algorithm| !algorithm.eq_ignore_ascii_case("md5")) {
                continue;
            }
            let (Some(realm), Some(nonce)) = (value("realm"), value("nonce")) else { continue };
            let qop = value("qop").is_some();
            return Some(Self::Digest { realm, nonce, opaque: value("opaque"), qop, count: 0 });
        }
        basic
    }

    /// The header's value.
    pub(crate) fn answer(&mut self, login: &Login, method: &str, uri: &str) -> String {
        let Login { user, password } = login;
        match self {
            Self::Basic => {
                let pair = format!("{user}:{password}");
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            Self::Digest { realm, nonce, opaque, qop, count } => {
                let hash = |text: String| {
                    Md5::digest(text).iter().fold(String::new(), |mut hex, byte| {
                        // Writing into memory does not fail.
                        let _ = write!(hex, "{byte:02x}");
                        hex
                    })
                };
                let (first, second) =
                    (hash(format!("{user}:{realm}:{password}")), hash(format!("{method}:{uri}")));
                let mut text = format!(
                    "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\""
                );
                // What is written into memory is written.
                let _ = if *qop {
                    *count += 1;
                    let (number, own) = (format!("{count:08x}"), format!("{:016x}", fastrand::u64(..)));
                    let response = hash(format!("{first}:{nonce}:{number}:{own}:auth:{second}"));
                    write!(text, ", response=\"{response}\", qop=auth, nc={number}, cnonce=\"{own}\"")
                } else {
                    write!(text, ", response=\"{}\"", hash(format!("{first}:{nonce}:{second}")))
                };
                if let Some(opaque) = opaque {
                    let _ = write!(text, ", opaque=\"{opaque}\"");
                }
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7616 section 3.9.1, by MD5, without the parts that are ours to choose; and RFC 2617's way.
    #[test]
    fn challenges_are_answered() {
        let login = Login { user: "Mufasa".into(), password: "Circle Of Life".into() };
        let line = "Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc\"";
        let mut challenge = Challenge::read([line].into_iter()).unwrap();
        let answer = challenge.answer(&login, "GET", "/dir/index.html");
        assert!(answer.contains("response=\"670fd8c2df070c60b045671b8b24ff02\""), "{answer}");
        assert!(answer.ends_with("opaque=\"5ccc\""), "{answer}");
        let lines = ["Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256", "Basic realm=\"r\""];
        let mut challenge = Challenge::read(lines.into_iter()).unwrap();
        assert_eq!(challenge.answer(&login, "GET", "/"), "Basic TXVmYXNhOkNpcmNsZSBPZiBMaWZl");
        let mut challenge =
            Challenge::read(["Digest realm=\"r\", nonce=\"n\", qop=\"auth\""].into_iter()).unwrap();
        assert!(challenge.answer(&login, "GET", "/").contains("nc=00000001, cnonce="));
        assert!(challenge.answer(&login, "GET", "/").contains("nc=00000002"));
        assert!(Challenge::read(["Bearer"].into_iter()).is_none());
    }
}
