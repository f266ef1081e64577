//! JSON Web Tokens (RFC 7519) of an identity provider, by its key set (JWKS, RFC 7517) from a file or an address.
//!
//! Keys are fetched when they are first needed, again when they are old, and, no more than every ten seconds, when a token names
//! one that is not known (the provider has changed its keys). While the provider does not answer, the keys that are known stay.

use super::{Permission, Role};
use crate::error::redact_url;
use crate::http_client::{Client, client, fetch};
use bytes::Bytes;
use http_body_util::Full;
use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use parking_lot::RwLock;
use serde_json::Value;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Key sets are small.
const MAX_JWKS_BYTES: usize = 1 << 20;
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon it is asked again for a key that was not there.
const AGAIN: Duration = Duration::from_secs(10);
/// How far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(60);
/// Longer tokens are none.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// An `https://` or `http://` address.
    Url(url::Url),
}

impl FromStr for KeySource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty; expected a file or an address of a JSON Web Key Set".into());
        }
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let url = url::Url::parse(text).map_err(|e| format!("\"{}\": {e}", redact_url(text)))?;
        match url.scheme() {
            "http" | "https" if url.has_host() => Ok(Self::Url(url)),
            other => Err(format!("its scheme is \"{other}\"; expected https://, http:// or a file's path")),
        }
    }
}

/// What a token has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    /// Where keys come from.
    pub keys: KeySource,
    /// `iss`, if it is to be looked at.
    pub issuer: Option<String>,
    /// `aud`: one of these, if there are any.
    pub audience: Vec<String>,
    /// The algorithms that are taken, such as `RS256`.
    pub algorithms: Vec<String>,
    /// The claim with what the owner may; dots lead into objects.
    pub claim: String,
    /// The claim with the owner's name.
    pub user_claim: String,
    /// How long keys are taken for good.
    pub refresh: Duration,
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// It is wrong.
    #[error("the token is not taken: {0}")]
    Refused(String),
    /// There are no keys to try it with.
    #[error("the key set cannot be had: {0}")]
    NoKeys(String),
}

/// Who a token says its owner is.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtOwner {
    /// The name.
    pub user: String,
    /// What the owner may.
    pub permissions: Arc<[Permission]>,
}

struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Default)]
struct Keys {
    keys: Arc<[Key]>,
    /// When they were fetched, and when that was last tried.
    fetched: Option<Instant>,
    tried: Option<Instant>,
    problem: Option<String>,
}

/// Verifies tokens.
pub struct JwtVerifier {
    options: JwtOptions,
    algorithms: Vec<Algorithm>,
    client: Client,
    keys: RwLock<Keys>,
    fetching: tokio::sync::Mutex<()>,
}

impl JwtVerifier {
    /// Fetches nothing yet.
    ///
    /// # Errors
    /// If an algorithm does not exist.
    pub fn new(options: JwtOptions) -> Result<Self, String> {
        let algorithms =
            options.algorithms.iter().map(|name| algorithm(name)).collect::<Result<Vec<_>, _>>()?;
        if algorithms.is_empty() {
            return Err("algorithms: it is empty; expected such as \"RS256\"".into());
        }
        let (keys, fetching) = (RwLock::default(), tokio::sync::Mutex::new(()));
        Ok(Self { options, algorithms, client: client(), keys, fetching })
    }

    /// With what it was made.
    pub fn options(&self) -> &JwtOptions {
        &self.options
    }

    /// Whether a text may be a token: three parts of base64url, the first an object.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("eyJ") && text.bytes().filter(|b| *b == b'.').count() == 2
    }

    /// Who the token's owner is.
    ///
    /// # Errors
    /// If it is not taken, or there are no keys.
    pub async fn verify(&self, token: &str) -> Result<JwtOwner, JwtError> {
        let refused = |problem: String| JwtError::Refused(problem);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused(format!("it is longer than {MAX_TOKEN_BYTES} bytes")));
        }
        // `none` is no algorithm that it knows.
        let header = decode_header(token).map_err(|e| refused(e.to_string()))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(refused(format!("{:?} is not among the algorithms that are taken", header.alg)));
        }
        let keys = self.keys_for(header.kid.as_deref()).await?;
        let fits = |key: &&Key| {
            let named = header.kid.is_none() || key.id == header.kid;
            named && key.algorithm.is_none_or(|algorithm| algorithm == header.alg)
        };
        let mut problem = "no key of the key set fits".to_owned();
        for key in keys.iter().filter(fits) {
            match decode::<Value>(token, &key.key, &self.validation(header.alg)) {
                Ok(data) => return self.owner(&data.claims),
                Err(error) => problem = error.to_string(),
            }
        }
        Err(refused(problem))
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.options.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if self.options.audience.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&self.options.audience);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn owner(&self, claims: &Value) -> Result<JwtOwner, JwtError> {
        let at = |path: &str| {
            // A claim may have dots in its name, as addresses do.
            claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, key| value.get(key)))
        };
        let user = at(&self.options.user_claim).and_then(Value::as_str).filter(|user| !user.is_empty());
        let user = user
            .ok_or_else(|| JwtError::Refused(format!("it has no claim \"{}\"", self.options.user_claim)))?;
        let permissions = match at(&self.options.claim) {
            None => Vec::new(),
            Some(value) => permissions(value).map_err(|problem| {
                JwtError::Refused(format!("its claim \"{}\": {problem}", self.options.claim))
            })?,
        };
        Ok(JwtOwner { user: user.chars().take(200).collect(), permissions: permissions.into() })
    }

    /// Keys, fresh if need be.
    async fn keys_for(&self, id: Option<&str>) -> Result<Arc<[Key]>, JwtError> {
        if let Some(keys) = self.known(id) {
            return Ok(keys);
        }
        let _one_at_a_time = self.fetching.lock().await;
        if let Some(keys) = self.known(id) {
            return Ok(keys);
        }
        let fetched = self.fetch().await;
        let mut keys = self.keys.write();
        let now = Instant::now();
        keys.tried = Some(now);
        match fetched {
            Ok(fresh) => {
                (keys.keys, keys.fetched, keys.problem) = (fresh.into(), Some(now), None);
            }
            Err(problem) => {
                tracing::warn!(problem, "the key set for tokens cannot be had; what is known of it stays");
                keys.problem = Some(problem);
            }
        }
        match (&keys.problem, keys.fetched) {
            (Some(problem), None) => Err(JwtError::NoKeys(problem.clone())),
            _ => Ok(keys.keys.clone()),
        }
    }

    /// Keys that need not be fetched again, or cannot be yet.
    fn known(&self, id: Option<&str>) -> Option<Arc<[Key]>> {
        let keys = self.keys.read();
        let tried = keys.tried.is_some_and(|tried| tried.elapsed() < AGAIN);
        let fetched = keys.fetched?;
        let is_there = id.is_none_or(|id| keys.keys.iter().any(|key| key.id.as_deref() == Some(id)));
        let is_fresh = fetched.elapsed() < self.options.refresh;
        (is_fresh && is_there || tried).then(|| keys.keys.clone())
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        if self.keys.read().tried.is_some_and(|tried| tried.elapsed() < Duration::from_secs(1)) {
            return Err(self.keys.read().problem.clone().unwrap_or_default());
        }
        let (bytes, from) = match &self.options.keys {
            KeySource::File(path) => (read(path.clone()).await?, path.display().to_string()),
            KeySource::Url(url) => {
                let shown = redact_url(url.as_str()).to_string();
                let request = hyper::Request::get(url.as_str()).header("accept", "application/json");
                let request = request.body(Full::new(Bytes::new())).map_err(|e| format!("{shown}: {e}"))?;
                let (status, body) = fetch(&self.client, request, MAX_JWKS_BYTES, FETCH_TIMEOUT)
                    .await
                    .map_err(|problem| format!("{shown}: {problem}"))?;
                if !status.is_success() {
                    return Err(format!("{shown}: it answers {status}"));
                }
                (body, shown)
            }
        };
        let set: JwkSet =
            serde_json::from_slice(&bytes).map_err(|e| format!("{from}: it is no JSON Web Key Set: {e}"))?;
        let for_signing = |key: &&jsonwebtoken::jwk::Jwk| {
            key.common.public_key_use.as_ref().is_none_or(|using| *using == PublicKeyUse::Signature)
        };
        let key = |jwk: &jsonwebtoken::jwk::Jwk| {
            let named = jwk.common.key_algorithm.map(|named| algorithm(&named.to_string()));
            // A key for something else, such as encryption.
            let algorithm = named.transpose().ok()?;
            Some(Key { id: jwk.common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
        };
        let keys: Vec<Key> = set.keys.iter().filter(for_signing).filter_map(key).collect();
        if keys.is_empty() { Err(format!("{from}: it has no key that signs")) } else { Ok(keys) }
    }
}

async fn read(path: PathBuf) -> Result<Bytes, String> {
    let reading = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        let shown = path.display();
        let file = std::fs::File::open(&path).map_err(|e| format!("{shown}: {e}"))?;
        file.take(MAX_JWKS_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| format!("{shown}: {e}"))?;
        if bytes.len() > MAX_JWKS_BYTES {
            return Err(format!("{shown}: it is longer than {MAX_JWKS_BYTES} bytes"));
        }
        Ok(Bytes::from(bytes))
    });
    reading.await.map_err(|e| e.to_string())?
}

/// An algorithm by its name.
pub(crate) fn algorithm(name: &str) -> Result<Algorithm, String> {
    name.parse().map_err(|_| {
        let shown: String = name.chars().take(40).flat_map(char::escape_debug).collect();
        format!("\"{shown}\" is no algorithm; expected such as \"RS256\", \"ES256\" or \"EdDSA\"")
    })
}

/// What a claim says that its owner may: names of roles, or permissions. Those of MediaMTX (`action`, `path`) are read, too.
fn permissions(value: &Value) -> Result<Vec<Permission>, String> {
    let everything = || vec![super::PathPattern::everything()];
    match value {
        Value::Null => Ok(Vec::new()),
        // Scopes and roles are often one text with spaces.
        Value::String(text) => {
            // Others' words stand among them.
            Ok(text
                .split_whitespace()
                .filter_map(|word| word.parse::<Role>().ok())
                .map(|r| r.permission(everything()))
                .collect())
        }
        Value::Array(entries) => {
            let mut all = Vec::new();
            for entry in entries {
                match entry {
                    Value::Object(object) if object.contains_key("action") => {
                        all.extend(of_mediamtx(object)?)
                    }
                    Value::Object(_) => {
                        all.push(serde_json::from_value(entry.clone()).map_err(|e| e.to_string())?)
                    }
                    other => all.extend(permissions(other)?),
                }
            }
            Ok(all)
        }
        _ => Err("expected roles or permissions".into()),
    }
}

fn of_mediamtx(entry: &serde_json::Map<String, Value>) -> Result<Option<Permission>, String> {
    use super::Action;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let actions = match text("action") {
        "api" => vec![Action::ApiRead, Action::ApiWrite, Action::Record],
        "pprof" => return Ok(None),
        name => vec![name.parse()?],
    };
    let streams = match text("path") {
        "" => vec![super::PathPattern::everything()],
        path if path.starts_with('~') => {
            return Err(
                "regular expressions in path are not taken; expected an id, in which * stands for anything"
                    .into(),
            );
        }
        path => vec![path.parse()?],
    };
    Ok(Some(Permission::new(actions).streams(streams)))
}

#[cfg(test)]
mod tests {
    use super::super::Action;
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    const SECRET: &[u8] = b"a key of thirty-two bytes or more";

    /// With symmetric keys, which are made on the spot; the server's tests use an identity provider's own kind.
    fn verifier(folder: &std::path::Path) -> JwtVerifier {
        use base64::Engine as _;
        let k = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(SECRET);
        let path = folder.join("jwks.json");
        let keys = json!({"keys": [{"kty": "oct", "kid": "one", "alg": "HS256", "k": k}]});
        std::fs::write(&path, keys.to_string()).unwrap();
        JwtVerifier::new(JwtOptions {
            keys: KeySource::File(path),
            issuer: Some("https://id.example".into()),
            audience: vec!["cameras".into()],
            algorithms: vec!["HS256".into()],
            claim: "realm.permissions".into(),
            user_claim: "sub".into(),
            refresh: Duration::from_secs(3600),
        })
        .unwrap()
    }

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn claims() -> Value {
        json!({
            "sub": "ann", "iss": "https://id.example", "aud": ["x", "cameras"], "exp": now() + 600,
            "realm": {"permissions": [{"actions": ["read"], "streams": ["yard/*"]}, {"action": "publish", "path": "in"}, "monitor"]}
        })
    }

    fn token(claims: &Value, algorithm: Algorithm, id: &str, secret: &[u8]) -> String {
        let header = Header { kid: Some(id.into()), ..Header::new(algorithm) };
        encode(&header, claims, &EncodingKey::from_secret(secret).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_right_token_says_who_and_what() {
        let folder = tempfile::tempdir().unwrap();
        let verifier = verifier(folder.path());
        let good = token(&claims(), Algorithm::HS256, "one", SECRET);
        assert!(JwtVerifier::is_meant(&good) && !JwtVerifier::is_meant("smt_a_b"));
        let owner = verifier.verify(&good).await.unwrap();
        assert_eq!(owner.user, "ann");
        let from = "192.0.2.1".parse().unwrap();
        let may = |action, stream| owner.permissions.iter().any(|p| p.allows(action, stream, from));
        assert!(
            may(Action::Read, Some("yard/door"))
                && may(Action::Publish, Some("in"))
                && may(Action::Metrics, None)
        );
        assert!(!may(Action::Read, Some("house")) && !may(Action::Admin, None));
    }

    #[tokio::test]
    async fn wrong_tokens_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let verifier = verifier(folder.path());
        let with = |key: &str, value: Value| {
            let mut claims = claims();
            claims[key] = value;
            token(&claims, Algorithm::HS256, "one", SECRET)
        };
        let without = |key: &str| {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(key);
            token(&claims, Algorithm::HS256, "one", SECRET)
        };
        use base64::Engine as _;
        let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        let none = format!("{}.{}.", part(&json!({"alg": "none", "kid": "one"})), part(&claims()));
        let good = token(&claims(), Algorithm::HS256, "one", SECRET);
        let cut = good[..good.len() - 4].to_owned();
        for (what, bad) in [
            ("alg none", none),
            ("another algorithm", token(&claims(), Algorithm::HS512, "one", SECRET)),
            ("another key", token(&claims(), Algorithm::HS256, "one", b"another key of thirty-two bytes..")),
            ("an unknown key", token(&claims(), Algorithm::HS256, "two", SECRET)),
            ("expired", with("exp", json!(now() - 120))),
            ("a clock off by a day", with("nbf", json!(now() + 86_400))),
            ("another audience", with("aud", json!("printers"))),
            ("another issuer", with("iss", json!("https://elsewhere.example"))),
            ("no name", without("sub")),
            ("no expiry", without("exp")),
            ("no audience", without("aud")),
            ("permissions that are none", with("realm", json!({"permissions": [{"actions": ["fly"]}]}))),
            ("a cut one", cut),
            ("rubbish", "eyJ.a.b".to_owned()),
            ("too long", format!("{good}{}", "A".repeat(20_000))),
        ] {
            let result = verifier.verify(&bad).await;
            assert!(matches!(result, Err(JwtError::Refused(_))), "{what}: {result:?}");
        }
        assert!(
            JwtVerifier::new(JwtOptions { algorithms: vec!["none".into()], ..verifier.options().clone() })
                .is_err()
        );
    }

    #[tokio::test]
    async fn without_keys_it_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let verifier = verifier(folder.path());
        let good = token(&claims(), Algorithm::HS256, "one", SECRET);
        std::fs::remove_file(folder.path().join("jwks.json")).unwrap();
        let error = verifier.verify(&good).await.unwrap_err();
        assert!(matches!(&error, JwtError::NoKeys(why) if why.contains("jwks.json")), "{error}");
        std::fs::write(folder.path().join("jwks.json"), vec![b' '; MAX_JWKS_BYTES + 1]).unwrap();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let error = verifier.verify(&good).await.unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }
}
