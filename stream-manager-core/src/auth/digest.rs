//! Digest access authentication (RFC 7616, RFC 2617) and Basic (RFC 7617), the server's side.

use super::{Credentials, Secret, equal, unpredictable};
use base64::Engine as _;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Longer headers are no credentials.
const MAX_HEADER: usize = 4096;

/// The hash of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub enum DigestAlgorithm {
    /// MD5: weak, and all that many players know.
    #[serde(rename = "MD5")]
    Md5,
    /// SHA-256.
    #[serde(rename = "SHA-256")]
    Sha256,
}

impl DigestAlgorithm {
    /// Its name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    fn hash(self, text: &str) -> String {
        let bytes: Vec<u8> = match self {
            Self::Md5 => Md5::digest(text).to_vec(),
            Self::Sha256 => Sha256::digest(text).to_vec(),
        };
        bytes.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// What a client answers to a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestAnswer {
    /// The user's name.
    pub user: String,
    /// The realm of the challenge.
    pub realm: String,
    /// The nonce of the challenge.
    pub nonce: String,
    /// The address that the answer is made for.
    pub uri: String,
    /// The hash.
    pub algorithm: DigestAlgorithm,
    /// The method of the request, such as `DESCRIBE`.
    pub method: String,
    /// Client nonce, its count and the quality of protection, if `qop` is used.
    pub qop: Option<(String, String, String)>,
    /// The proof, in hexadecimal digits.
    pub response: String,
}

impl DigestAnswer {
    /// Whether it was made with this password (RFC 7616 section 3.4.1).
    pub fn verify(&self, password: &Secret) -> bool {
        let hash = |text: &str| self.algorithm.hash(text);
        let a1 = hash(&format!("{}:{}:{}", self.user, self.realm, password.reveal()));
        let a2 = hash(&format!("{}:{}", self.method, self.uri));
        let expected = match &self.qop {
            Some((cnonce, count, qop)) => hash(&format!("{a1}:{}:{count}:{cnonce}:{qop}:{a2}", self.nonce)),
            None => hash(&format!("{a1}:{}:{a2}", self.nonce)),
        };
        equal(expected.as_bytes(), self.response.to_ascii_lowercase().as_bytes())
    }
}

/// Which ways of proving a password are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMethod {
    /// The password in the clear.
    Basic,
    /// MD5 digest.
    Digest,
    /// SHA-256 digest.
    #[serde(rename = "digest-sha-256")]
    DigestSha256,
}

/// Credentials that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The header makes no sense.
    #[error("the Authorization header {0}")]
    Malformed(&'static str),
    /// The way is not offered.
    #[error("\"{0}\" is not offered")]
    NotOffered(String),
    /// The challenge was not this connection's, or is too old.
    #[error("the nonce has expired")]
    Stale,
}

/// The challenges of one connection: a nonce of its own, so that no answer can be used on another.
#[derive(Debug)]
pub struct Challenges {
    realm: &'static str,
    methods: Vec<AuthMethod>,
    nonce: String,
    made: Instant,
    lifetime: Duration,
    /// The highest count that a client has used with the nonce.
    count: u64,
}

impl Challenges {
    /// With a fresh nonce that is good for `lifetime`.
    pub fn new(methods: &[AuthMethod], lifetime: Duration) -> Self {
        let mut challenges = Self {
            realm: "stream-manager",
            methods: methods.to_vec(),
            nonce: String::new(),
            made: Instant::now(),
            lifetime,
            count: 0,
        };
        challenges.renew();
        challenges
    }

    fn renew(&mut self) {
        self.nonce = format!("{:016x}{:016x}", unpredictable(), unpredictable());
        self.made = Instant::now();
        self.count = 0;
    }

    /// The `WWW-Authenticate` lines of a refusal, strongest first. Clients that know only one digest take the last
    /// one or the one they know.
    pub fn headers(&mut self, stale: bool) -> Vec<String> {
        if self.made.elapsed() > self.lifetime {
            self.renew();
        }
        let (realm, nonce) = (self.realm, &self.nonce);
        let stale = if stale { ", stale=true" } else { "" };
        let digest = |algorithm: DigestAlgorithm| {
            // RFC 2326 clients expect no algorithm where it is MD5.
            let name = match algorithm {
                DigestAlgorithm::Md5 => String::new(),
                // RFC 7616 section 3.3: with qop, which those older ones do not all know.
                DigestAlgorithm::Sha256 => format!(", qop=\"auth\", algorithm={}", algorithm.name()),
            };
            format!("Digest realm=\"{realm}\", nonce=\"{nonce}\"{name}{stale}")
        };
        let all = [
            (AuthMethod::DigestSha256, digest(DigestAlgorithm::Sha256)),
            (AuthMethod::Digest, digest(DigestAlgorithm::Md5)),
            (AuthMethod::Basic, format!("Basic realm=\"{realm}\"")),
        ];
        all.into_iter().filter(|(method, _)| self.methods.contains(method)).map(|(_, line)| line).collect()
    }

    /// Reads an `Authorization` header.
    ///
    /// # Errors
    /// If it makes no sense, is not offered, or answers an old challenge.
    pub fn read(&mut self, header: &str, method: &str) -> Result<Credentials, HeaderError> {
        if header.len() > MAX_HEADER {
            return Err(HeaderError::Malformed("is too long"));
        }
        let (scheme, rest) =
            header.trim().split_once(' ').ok_or(HeaderError::Malformed("has no credentials"))?;
        if scheme.eq_ignore_ascii_case("basic") {
            self.offered(AuthMethod::Basic, "Basic")?;
            return basic(rest);
        }
        if !scheme.eq_ignore_ascii_case("digest") {
            return Err(HeaderError::NotOffered(scheme.chars().take(20).collect()));
        }
        let answer = digest(rest, method)?;
        match answer.algorithm {
            DigestAlgorithm::Md5 => self.offered(AuthMethod::Digest, "Digest MD5")?,
            DigestAlgorithm::Sha256 => self.offered(AuthMethod::DigestSha256, "Digest SHA-256")?,
        }
        if answer.nonce != self.nonce || self.made.elapsed() > self.lifetime {
            return Err(HeaderError::Stale);
        }
        if let Some((_, count, _)) = &answer.qop {
            let count =
                u64::from_str_radix(count, 16).map_err(|_| HeaderError::Malformed("has a wrong nc"))?;
            // A count that does not go up is an answer used again (RFC 7616 section 5.4).
            if count <= self.count {
                return Err(HeaderError::Stale);
            }
            self.count = count;
        }
        Ok(Credentials::Digest(answer))
    }

    fn offered(&self, method: AuthMethod, name: &str) -> Result<(), HeaderError> {
        if self.methods.contains(&method) { Ok(()) } else { Err(HeaderError::NotOffered(name.into())) }
    }
}

fn basic(text: &str) -> Result<Credentials, HeaderError> {
    let bad = HeaderError::Malformed("is no Basic credentials (RFC 7617)");
    let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim()).map_err(|_| bad.clone())?;
    let decoded = String::from_utf8(decoded).map_err(|_| bad.clone())?;
    let (user, password) = decoded.split_once(':').ok_or(bad)?;
    Ok(Credentials::Password { user: user.to_owned(), password: Secret::new(password) })
}

fn digest(text: &str, method: &str) -> Result<DigestAnswer, HeaderError> {
    let parameters = parameters(text).ok_or(HeaderError::Malformed("has parameters that cannot be read"))?;
    let get = |name: &str| {
        parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    };
    let need = |name, problem| get(name).ok_or(HeaderError::Malformed(problem));
    let algorithm = match get("algorithm").map(|a| a.to_ascii_uppercase()).as_deref() {
        None | Some("MD5") => DigestAlgorithm::Md5,
        Some("SHA-256") => DigestAlgorithm::Sha256,
        Some(other) => return Err(HeaderError::NotOffered(other.chars().take(20).collect())),
    };
    let qop = match get("qop") {
        None => None,
        Some(qop) if qop.eq_ignore_ascii_case("auth") => {
            Some((need("cnonce", "lacks cnonce")?, need("nc", "lacks nc")?, qop))
        }
        Some(_) => return Err(HeaderError::Malformed("asks for a qop that is not offered")),
    };
    Ok(DigestAnswer {
        user: need("username", "lacks username")?,
        realm: need("realm", "lacks realm")?,
        nonce: need("nonce", "lacks nonce")?,
        uri: need("uri", "lacks uri")?,
        algorithm,
        method: method.to_owned(),
        qop,
        response: need("response", "lacks response")?,
    })
}

/// `name=value` and `name="value"`, with commas between (RFC 9110 section 11.2).
fn parameters(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(characters.next()?.1),
                    (_, c) => value.push(c),
                }
            };
            (value, &quoted[end + 1..])
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        found.push((name.trim().to_owned(), value));
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(header: &str, method: &str) -> DigestAnswer {
        digest(header.split_once(' ').unwrap().1, method).unwrap()
    }

    #[test]
    fn the_vectors_of_the_standards() {
        // RFC 2617 section 3.5.
        let old = r#"Digest username="Mufasa", realm="testrealm@host.com",
            nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="/dir/index.html", qop=auth, nc=00000001,
            cnonce="0a4f113b", response="6629fae49393a05397450978507c4ef1",
            opaque="5ccc069c403ebaf9f0171e9517f40e41""#;
        assert!(answer(old, "GET").verify(&Secret::new("Circle Of Life")));
        assert!(!answer(old, "POST").verify(&Secret::new("Circle Of Life")));
        // RFC 7616 section 3.9.1, MD5 and SHA-256.
        let head = r#"Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html",
            nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001,
            cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth,"#;
        let md5 = format!(r#"{head} response="8ca523f5e9506fed4657c9700eebdbec", algorithm=MD5"#);
        let sha = format!(
            r#"{head} response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1", algorithm=SHA-256"#
        );
        for header in [md5, sha] {
            assert!(answer(&header, "GET").verify(&Secret::new("Circle of Life")), "{header}");
            assert!(!answer(&header, "GET").verify(&Secret::new("Circle of life")));
        }
    }

    #[test]
    fn a_nonce_is_one_connection_s_and_expires() {
        let all = [AuthMethod::Basic, AuthMethod::Digest, AuthMethod::DigestSha256];
        let mut challenges = Challenges::new(&all, Duration::from_secs(60));
        let lines = challenges.headers(false);
        assert!(lines[0].contains("algorithm=SHA-256") && lines[2].starts_with("Basic"), "{lines:?}");
        let header = |nonce: &str| {
            format!(r#"Digest username="u", realm="r", nonce="{nonce}", uri="/", response="0""#)
        };
        let nonce = challenges.nonce.clone();
        assert!(challenges.read(&header(&nonce), "DESCRIBE").is_ok());
        assert_eq!(challenges.read(&header("other"), "DESCRIBE"), Err(HeaderError::Stale));
        let counted = header(&nonce) + ", qop=auth, cnonce=a, nc=00000001";
        assert!(challenges.read(&counted, "DESCRIBE").is_ok());
        assert_eq!(challenges.read(&counted, "DESCRIBE"), Err(HeaderError::Stale), "used again");
        challenges.lifetime = Duration::ZERO;
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(challenges.read(&header(&nonce), "DESCRIBE"), Err(HeaderError::Stale));
        assert!(
            !challenges.headers(true)[1].contains(&nonce)
                && challenges.headers(true)[1].contains("stale=true")
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut only_digest = Challenges::new(&[AuthMethod::Digest], Duration::from_secs(60));
        for (header, expected) in [
            ("Basic dTpw", "\"Basic\" is not offered"),
            ("Bearer x", "\"Bearer\" is not offered"),
            ("Digest username=\"u", "cannot be read"),
            ("Digest username=u", "lacks realm"),
            ("Digest realm=r,nonce=n,uri=/,response=0,username=u,algorithm=SHA-512", "not offered"),
            ("Digest", "has no credentials"),
        ] {
            let error = only_digest.read(header, "DESCRIBE").unwrap_err().to_string();
            assert!(error.contains(expected), "{header}: {error}");
        }
        let mut basic = Challenges::new(&[AuthMethod::Basic], Duration::from_secs(60));
        assert_eq!(basic.read("Basic dTpwOnE=", "X").unwrap().user(), Some("u"));
        assert!(basic.read("Basic dTpwOnE=", "X").unwrap().prove(&Secret::new("p:q")));
        assert!(!basic.read("Basic dTpwOnE=", "X").unwrap().prove(&Secret::new("p")));
        assert!(basic.read("Basic ????", "X").is_err());
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "\\PC{0,80}") {
            let _ = parameters(&text);
            let _ = Challenges::new(&[AuthMethod::Digest], Duration::from_secs(9)).read(&format!("Digest {text}"), "X");
        }
    }
}
