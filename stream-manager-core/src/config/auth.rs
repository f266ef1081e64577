//! `[auth]`: who may do what, as far as the configuration says.

use super::DurationText;
use crate::auth::digest::AuthMethod;
use crate::auth::{Action, PasswordHash, PathPattern, Permission, Role, Secret, User, UsersOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// How passwords may be proved by RTSP.
    pub methods: Vec<AuthMethod>,
    /// Whether everybody may watch live as long as there is no user.
    pub open_viewing: bool,
    /// How long a browser stays logged in.
    pub session_lifetime: DurationText,
    /// The users, beside those that are made by `stream-manager user add` and through the API. Without any, everybody may watch,
    /// and this machine may do everything.
    pub users: Vec<UserConfig>,
    /// What everybody may, without credentials.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub anonymous: Vec<Permission>,
    /// Tokens of an identity provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtConfig>,
    /// Somebody who is asked by HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<CallbackConfig>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            methods: vec![AuthMethod::Basic, AuthMethod::Digest, AuthMethod::DigestSha256],
            open_viewing: true,
            session_lifetime: DurationText(Duration::from_secs(7 * 24 * 3600)),
            users: Vec::new(),
            anonymous: Vec::new(),
            jwt: None,
            callback: None,
        }
    }
}

/// `[[auth.users]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// The user's name.
    pub name: String,
    /// The password, or its Argon2id hash as `stream-manager user hash` makes it.
    pub password: Secret,
    /// A usual set of permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The streams that the role is for: ids, in which `*` stands for anything; all if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<Vec<PathPattern>>,
    /// Which streams the user may watch, live and recorded. All, if neither a role nor permissions say anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Vec<PathPattern>>,
    /// Which streams the user may publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PathPattern>,
    /// What else the user may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
}

/// `[auth.jwt]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// The provider's keys (JSON Web Key Set): an `https://` address, or a file.
    pub jwks: String,
    /// What `iss` has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What `aud` has to be, one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// The algorithms that are taken.
    #[serde(default = "usual_algorithms")]
    pub algorithms: Vec<String>,
    /// The claim that says what its owner may: roles, or a list of permissions. Dots lead into objects.
    #[serde(default = "permissions_claim")]
    pub claim: String,
    /// The claim with the owner's name.
    #[serde(default = "subject_claim")]
    pub user_claim: String,
    /// How long keys are taken for good.
    #[serde(default = "one_hour")]
    pub refresh: DurationText,
}

fn usual_algorithms() -> Vec<String> {
    ["RS256", "ES256", "EdDSA"].map(Into::into).into()
}

fn permissions_claim() -> String {
    "permissions".into()
}

fn subject_claim() -> String {
    "sub".into()
}

fn one_hour() -> DurationText {
    DurationText(Duration::from_secs(3600))
}

/// `[auth.callback]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallbackConfig {
    /// The address that is asked by POST, with the fields that MediaMTX sends; 2xx is yes. It may hold a secret.
    pub url: Secret,
    /// How long an answer may take.
    #[serde(default = "five_seconds")]
    pub timeout: DurationText,
    /// What it is not asked about, because everybody may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Action>,
}

fn five_seconds() -> DurationText {
    DurationText(Duration::from_secs(5))
}

impl UserConfig {
    fn user(&self) -> Result<User, (&'static str, String)> {
        if self.name.is_empty() || self.name.contains(':') {
            return Err(("name", "expected a name without \":\"".into()));
        }
        let password = self.password.reveal();
        if password.is_empty() {
            return Err(("password", "it is empty; expected a password or its hash".into()));
        }
        let user = if PasswordHash::is_meant(password) {
            let hash = password.parse::<PasswordHash>().map_err(|e| ("password", e.to_string()))?;
            User::hashed(&self.name, hash)
        } else {
            User::new(&self.name, self.password.clone())
        };
        let everything = || vec![PathPattern::everything()];
        let user = match (self.role, &self.streams) {
            (Some(role), streams) => {
                user.permission(role.permission(streams.clone().unwrap_or_else(everything)))
            }
            (None, Some(_)) => {
                return Err((
                    "streams",
                    "it says for which streams the role is; expected a role beside it".into(),
                ));
            }
            (None, None) => user,
        };
        let says_more = self.role.is_some() || !self.permissions.is_empty();
        let read = self.read.clone().unwrap_or_else(|| if says_more { Vec::new() } else { everything() });
        let user = user.read(read).publish(self.publish.clone());
        Ok(self.permissions.iter().cloned().fold(user, User::permission))
    }
}

impl AuthConfig {
    /// What is wrong with it: the key, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        self.options().map(drop)
    }

    /// What the authorizer takes of it.
    ///
    /// # Errors
    /// Names the key that is wrong.
    pub fn options(&self) -> Result<UsersOptions, String> {
        if self.methods.is_empty() {
            return Err(
                "auth.methods: it is empty; expected \"basic\", \"digest\", \"digest-sha-256\" or several"
                    .into(),
            );
        }
        if self.session_lifetime.0 < Duration::from_secs(60) {
            return Err(format!(
                "auth.session_lifetime: it is {}; expected at least 1m",
                self.session_lifetime
            ));
        }
        let mut names = std::collections::HashSet::new();
        let mut users = Vec::new();
        for (index, user) in self.users.iter().enumerate() {
            let key = |key: &str, problem: String| format!("auth.users[{index}].{key}: {problem}");
            users.push(user.user().map_err(|(name, problem)| key(name, problem))?);
            if !names.insert(&user.name) {
                return Err(key("name", format!("\"{}\" is an earlier user's already", user.name)));
            }
        }
        #[cfg(not(feature = "http"))]
        if self.jwt.is_some() || self.callback.is_some() {
            return Err("auth.jwt and auth.callback: this build has no HTTP client (feature `http`)".into());
        }
        Ok(UsersOptions {
            users,
            anonymous: self.anonymous.clone(),
            open_viewing: self.open_viewing,
            #[cfg(feature = "http")]
            jwt: self.jwt.as_ref().map(JwtConfig::options).transpose()?,
            #[cfg(feature = "http")]
            callback: self.callback.as_ref().map(CallbackConfig::options).transpose()?,
        })
    }
}

#[cfg(feature = "http")]
impl JwtConfig {
    fn options(&self) -> Result<crate::auth::jwt::JwtOptions, String> {
        use crate::auth::jwt::{JwtOptions, algorithm};
        let keys = self.jwks.parse().map_err(|e| format!("auth.jwt.jwks: {e}"))?;
        if let crate::auth::jwt::KeySource::Url(url) = &keys
            && (!url.username().is_empty() || url.password().is_some())
        {
            return Err("auth.jwt.jwks: keys are public; expected an address without a password".into());
        }
        if self.algorithms.is_empty() {
            return Err("auth.jwt.algorithms: it is empty; expected such as [\"RS256\"]".into());
        }
        for name in &self.algorithms {
            algorithm(name).map_err(|e| format!("auth.jwt.algorithms: {e}"))?;
        }
        if self.refresh.0 < Duration::from_secs(10) {
            return Err(format!("auth.jwt.refresh: it is {}; expected at least 10s", self.refresh));
        }
        Ok(JwtOptions {
            keys,
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            algorithms: self.algorithms.clone(),
            claim: self.claim.clone(),
            user_claim: self.user_claim.clone(),
            refresh: self.refresh.0,
        })
    }
}

#[cfg(feature = "http")]
impl CallbackConfig {
    fn options(&self) -> Result<crate::auth::callback::CallbackOptions, String> {
        let text = self.url.reveal();
        let shown = crate::error::redact_url(text);
        let url = url::Url::parse(text).map_err(|e| format!("auth.callback.url: \"{shown}\": {e}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(format!("auth.callback.url: it is \"{shown}\"; expected http:// or https://"));
        }
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(60));
        if !(shortest..=longest).contains(&self.timeout.0) {
            return Err(format!("auth.callback.timeout: it is {}; expected 100ms to 1m", self.timeout));
        }
        Ok(crate::auth::callback::CallbackOptions {
            url,
            timeout: self.timeout.0,
            exclude: self.exclude.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<UsersOptions, String> {
        let config = crate::config::Config::from_toml(text).map_err(|e| e.to_string())?;
        config.auth.options()
    }

    #[test]
    fn what_a_user_may() {
        let permissions = |text: &str| {
            let options = read(&format!("[[auth.users]]\nname = \"u\"\npassword = \"p\"\n{text}")).unwrap();
            options.users[0].clone()
        };
        let plain = || User::new("u", Secret::new("p"));
        let pattern = |p: &str| vec![p.parse::<PathPattern>().unwrap()];
        assert_eq!(permissions(""), plain().read(pattern("*")).publish([]));
        assert_eq!(
            permissions("read = [\"a\"]\npublish = [\"b/*\"]"),
            plain().read(pattern("a")).publish(pattern("b/*"))
        );
        let admin = plain().permission(Role::Admin.permission(pattern("*"))).read([]).publish([]);
        assert_eq!(permissions("role = \"admin\""), admin);
        let yard = plain().permission(Role::Viewer.permission(pattern("yard/*"))).read([]).publish([]);
        assert_eq!(permissions("role = \"viewer\"\nstreams = [\"yard/*\"]"), yard);
        let more = plain()
            .read([])
            .publish([])
            .permission(Permission::new([Action::Metrics]).addresses(["10.0.0.0/8".parse().unwrap()]));
        assert_eq!(
            permissions("permissions = [{ actions = [\"metrics\"], addresses = [\"10.0.0.0/8\"] }]"),
            more
        );
    }

    #[test]
    fn wrong_values_are_named() {
        let user = "[[auth.users]]\nname = \"u\"\n";
        for (text, words) in [
            (format!("{user}password = \"\"\n"), "auth.users[0].password: it is empty"),
            (
                format!("{user}password = \"$2b$12$abcdefghijklmnopqrstuv\"\n"),
                "auth.users[0].password: it is no Argon2id hash",
            ),
            (
                format!(
                    "{user}password = \"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21l$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n"
                ),
                "too weak",
            ),
            (format!("{user}password = \"p\"\nrole = \"king\"\n"), "role"),
            (format!("{user}password = \"p\"\nstreams = [\"a\"]\n"), "auth.users[0].streams"),
            (format!("{user}password = \"p\"\n{user}password = \"q\"\n"), "an earlier user's already"),
            (
                "[[auth.anonymous]]\nactions = [\"fly\"]\n".into(),
                "\"fly\" is no action; expected read, publish",
            ),
            (
                "[[auth.anonymous]]\nactions = []\naddresses = [\"10.0.0.0/40\"]\n".into(),
                "is no address or network",
            ),
            ("[auth]\nsession_lifetime = \"1s\"\n".into(), "auth.session_lifetime: it is 1s"),
            #[cfg(feature = "http")]
            ("[auth.jwt]\njwks = \"ftp://x/y\"\n".into(), "auth.jwt.jwks: its scheme is \"ftp\""),
            #[cfg(feature = "http")]
            (
                "[auth.jwt]\njwks = \"keys.json\"\nalgorithms = [\"none\"]\n".into(),
                "auth.jwt.algorithms: \"none\" is no algorithm",
            ),
            #[cfg(feature = "http")]
            (
                "[auth.callback]\nurl = \"rtsp://u:geheim@x\"\n".into(),
                "auth.callback.url: it is \"rtsp://u:***@x\"",
            ),
        ] {
            let problem = read(&text).err().unwrap_or_default();
            assert!(problem.contains(words), "{text}: {problem}");
            assert!(!problem.contains("geheim"), "{problem}");
        }
    }
}
