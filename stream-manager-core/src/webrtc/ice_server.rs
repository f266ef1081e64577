//! STUN and TURN servers: told to clients, and used for connections that begin here.

use crate::auth::Secret;
use crate::config::IceServerConfig;
use crate::frame::WallTime;
use base64::Engine as _;
use std::time::Duration;

/// As many servers of one `Link` are looked at.
const MAX_LINKS: usize = 4;

/// A STUN or TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// Its address (RFC 7064, RFC 7065).
    pub url: String,
    /// The name to give to it.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Shared with it instead of a password.
    pub secret: Option<Secret>,
    /// How long passwords made of that are good for.
    pub secret_lifetime: Duration,
}

impl From<&IceServerConfig> for IceServer {
    fn from(config: &IceServerConfig) -> Self {
        Self {
            url: config.url.clone(),
            username: config.username.clone(),
            password: config.password.clone(),
            secret: config.secret.clone(),
            secret_lifetime: config.secret_lifetime.0,
        }
    }
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// Where a server is, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) transport: Transport,
    /// TURN; otherwise STUN.
    pub(super) relays: bool,
}

impl Way {
    /// By its address (RFC 7064, RFC 7065).
    pub(super) fn parse(address: &str) -> Option<Self> {
        let (scheme, rest) = address.split_once(':')?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (relays, tls) = match scheme {
            "stun" => (false, false),
            "stuns" => (false, true),
            "turn" => (true, false),
            "turns" => (true, true),
            _ => return None,
        };
        let transport = match (query, tls) {
            ("" | "transport=tcp", true) => Transport::Tls,
            ("" | "transport=udp", false) => Transport::Udp,
            ("transport=tcp", false) => Transport::Tcp,
            _ => return None,
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(literal) => {
                let (host, port) = literal.split_once(']')?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some(""))?)
            }
            None => place.rsplit_once(':').unwrap_or((place, "")),
        };
        let port = if port.is_empty() { if tls { 5349 } else { 3478 } } else { port.parse().ok()? };
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port, transport, relays })
    }
}

/// The links of one `Link` header: commas are between them, and in quotes mean nothing.
fn separated(value: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let mut comma = |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    };
    value.split(&mut comma).map(str::trim).collect()
}

/// The value of a parameter of a `Link` header.
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    while let Some((key, value)) = rest.split_once('=') {
        let key = key.trim_start_matches(|c: char| c == ';' || c.is_whitespace());
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => {
                let (mut plain, mut escaped, mut end) = (String::new(), false, quoted.len());
                for (at, c) in quoted.char_indices() {
                    match c {
                        _ if escaped => {
                            plain.push(c);
                            escaped = false;
                        }
                        '\\' => escaped = true,
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        c => plain.push(c),
                    }
                }
                (plain, quoted.get(end..).unwrap_or_default())
            }
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_owned(), &value[end..])
            }
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = behind;
    }
    None
}

impl IceServer {
    /// Those that a `Link` header of another server tells of (RFC 9725 section 4.6).
    pub(super) fn from_links<'a>(values: impl Iterator<Item = &'a str>) -> Vec<Self> {
        // Several may stand in one value.
        let links = values.flat_map(separated).filter_map(|link| {
            let (url, parameters) = link.strip_prefix('<')?.split_once('>')?;
            let rel = parameter(parameters, "rel")?;
            let is_server = rel.split_ascii_whitespace().any(|rel| rel == "ice-server");
            Way::parse(url).filter(|_| is_server)?;
            Some(Self {
                url: url.to_owned(),
                username: parameter(parameters, "username"),
                password: parameter(parameters, "credential").map(Secret::new),
                secret: None,
                secret_lifetime: Duration::ZERO,
            })
        });
        links.take(MAX_LINKS).collect()
    }

    /// Name and password for a client that comes at this moment, if the server wants any. With a shared secret they are
    /// made as "A REST API For Access To TURN Services" (draft-uberti-behave-turn-rest) says, which coturn follows.
    pub fn credentials(&self, now: WallTime) -> Option<(String, String)> {
        if let Some(secret) = &self.secret {
            let end = now.as_unix_nanos() / 1_000_000_000
                + i64::try_from(self.secret_lifetime.as_secs()).unwrap_or(0);
            let user = match &self.username {
                Some(name) => format!("{end}:{name}"),
                None => end.to_string(),
            };
            let tag = hmac_sha1(secret.reveal().as_bytes(), user.as_bytes());
            return Some((user, base64::engine::general_purpose::STANDARD.encode(tag)));
        }
        Some((self.username.clone()?, self.password.as_ref()?.reveal().to_owned()))
    }

    /// As a value of a `Link` header (RFC 9725 section 4.6).
    pub fn link(&self, now: WallTime) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut link = format!("<{}>; rel=\"ice-server\"", self.url);
        if let Some((user, password)) = self.credentials(now) {
            link += &format!(
                "; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"",
                quoted(&user),
                quoted(&password)
            );
        }
        link
    }
}

/// HMAC (RFC 2104) with SHA-1, which is what TURN servers expect.
fn hmac_sha1(key: &[u8], data: &[u8]) -> Vec<u8> {
    use hmac::Mac as _;
    // A key may have any length.
    let Ok(mut mac) = hmac::Hmac::<sha1::Sha1>::new_from_slice(key) else { return Vec::new() };
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_where_a_server_is_and_how_it_is_spoken_to() {
        let way = |text: &str| Way::parse(text).map(|w| (w.host, w.port, w.transport, w.relays));
        let some = |host: &str, port, transport, relays| Some((host.to_owned(), port, transport, relays));
        assert_eq!(way("stun:a.example"), some("a.example", 3478, Transport::Udp, false));
        assert_eq!(way("turn:a:5"), some("a", 5, Transport::Udp, true));
        assert_eq!(way("turn:a:5?transport=tcp"), some("a", 5, Transport::Tcp, true));
        assert_eq!(way("turns:[2001:db8::1]"), some("2001:db8::1", 5349, Transport::Tls, true));
        assert_eq!(way("turns:[::1]:7?transport=tcp"), some("::1", 7, Transport::Tls, true));
        for wrong in
            ["turn:", "turn:a:b", "http:a", "turns:a?transport=udp", "turn:a?x=y", "turn:[::1", "turn:[::1]x"]
        {
            assert_eq!(way(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_a_server_tells_in_its_links_is_what_ours_tells() {
        let told = IceServer {
            url: "turn:t:1?transport=udp".into(),
            username: Some("a, \\ \"b\"; c=d".into()),
            password: Some(Secret::new("p=;x")),
            secret: None,
            secret_lifetime: Duration::ZERO,
        };
        let stun = IceServer { url: "stun:s:1".into(), username: None, password: None, ..told.clone() };
        let now = WallTime::from_unix_nanos(0);
        let links = [told.link(now), "</x>; rel=edit".into(), "nothing".into(), stun.link(now)];
        assert_eq!(IceServer::from_links(links.iter().map(String::as_str)), [told, stun.clone()]);
        let both = format!("<x:y>; rel=ice-server, {}", stun.link(now));
        assert_eq!(IceServer::from_links([both.as_str()].into_iter()), [stun]);
    }

    #[test]
    fn passwords_for_turn_servers_end_by_themselves() {
        let mut server = IceServer {
            url: "turn:turn.example.org:3478".into(),
            username: Some("camera".into()),
            password: None,
            secret: Some(Secret::new("north")),
            secret_lifetime: Duration::from_secs(3600),
        };
        let now = WallTime::from_unix_nanos(1_600_000_000_000_000_000);
        let (user, password) = server.credentials(now).unwrap();
        assert_eq!(user, "1600003600:camera");
        // printf '1600003600:camera' | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(password, "7WmyuJQlCfsa2MqNefu530mGlpE=");
        assert!(
            server.link(now).starts_with(
                "<turn:turn.example.org:3478>; rel=\"ice-server\"; username=\"1600003600:camera\""
            )
        );
        server = IceServer { secret: None, password: Some(Secret::new("a\"b")), ..server };
        assert!(server.link(now).contains(r#"credential="a\"b""#));
        server = IceServer { url: "stun:a:1".into(), username: None, password: None, ..server };
        assert_eq!(server.link(now), "<stun:a:1>; rel=\"ice-server\"");
    }
}
