//! From an address to the source that can open it.

use super::{
    ExecSource, LaunchSource, NetworkSource, PublishSource, RtspSource, Source, SourceTransport, TestSource,
    UriSource,
};
use crate::config::{IceConfig, TlsConfig};
use crate::error::redact_url;
use crate::frame::MediaKind;
use crate::pipeline::PipelineError;
use percent_encoding::NON_ALPHANUMERIC;
use std::net::IpAddr;
use std::time::Duration;
use url::Url;

/// The forms of address there are, for error messages.
const FORMS: &str = "rtsp://, rtsps://, http://, https://, file://, udp://, srt://, rtmp://, rtmps://, sdp://, v4l2://, test://, whep://, wheps://, gst:, exec: or publisher";
/// Instead of an address: the stream is published to us.
pub(crate) const PUBLISHER: &str = "publisher";

/// An address that no source can be made from.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is no URL.
    #[error("\"{address}\" is no URL ({problem}); expected {FORMS}")]
    NotAUrl {
        /// The address, without secrets.
        address: String,
        /// What the parser says.
        problem: String,
    },
    /// Its scheme is unknown.
    #[error("\"{address}\" has the unknown scheme \"{scheme}\"; expected {FORMS}")]
    UnknownScheme {
        /// The address, without secrets.
        address: String,
        /// The scheme.
        scheme: String,
    },
    /// Nothing is sent by this scheme.
    #[error(
        "\"{address}\" has the scheme \"{scheme}\", by which streams are not forwarded; expected rtsp://, rtsps://, rtmp://, rtmps://, srt://, udp://, whip:// or whips://"
    )]
    NoForward {
        /// The address, without secrets.
        address: String,
        /// The scheme.
        scheme: String,
    },
    /// What is said of TLS makes no sense.
    #[error("\"{address}\": tls {problem}")]
    Tls {
        /// The address, without secrets.
        address: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// User and password are said twice, or of something that takes none.
    #[error("\"{address}\" {problem}")]
    Credentials {
        /// The address, without secrets.
        address: String,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// It lacks the host.
    #[error("\"{address}\" has no host")]
    NoHost {
        /// The address, without secrets.
        address: String,
    },
    /// A parameter in it is wrong.
    #[error("\"{address}\": {parameter} is \"{value}\"; expected {expected}")]
    Parameter {
        /// The address, without secrets.
        address: String,
        /// The parameter's name.
        parameter: String,
        /// Its value.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// The launch line cannot be parsed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

/// Makes the source for an address.
///
/// ```
/// # use stream_manager_core::source::from_url;
/// assert!(from_url("rtsp://camera/stream1").is_ok());
/// let error = from_url("gopher://camera/").err().unwrap().to_string();
/// assert!(error.contains("unknown scheme \"gopher\"; expected rtsp://"));
/// ```
///
/// # Errors
/// If the address is malformed or of an unknown kind; nothing is connected yet.
pub fn from_url(address: &str) -> Result<Box<dyn Source>, AddressError> {
    from_url_with(address, &SourceOptions::default())
}

/// What can be said of a source beside its address. What does not apply to its kind is ignored.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// How RTP travels (RTSP).
    pub transport: SourceTransport,
    /// User and password, for those who do not have them in the address.
    pub credentials: Option<(String, String)>,
    /// What we say we are (RTSP); the program's name if not set.
    pub user_agent: Option<String>,
    /// The address that connections come from (RTSP).
    pub local_address: Option<IpAddr>,
    /// The kinds of tracks that are taken (RTSP); all if none is said.
    pub tracks: Vec<MediaKind>,
    /// How a camera shows who it is (`rtsps://`, `https://`, `rtmps://`).
    pub tls: TlsConfig,
    /// How long connecting may take (RTSP); the source's own default if not set.
    pub connect_timeout: Option<Duration>,
    /// Whether a second publisher takes over from the first (`publisher`).
    pub override_publisher: bool,
    /// How long a published stream stays without a publisher; for good if not set (`publisher`).
    pub linger: Option<Duration>,
    /// How the other server is reached (WHEP).
    pub ice: IceConfig,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            transport: SourceTransport::default(),
            credentials: None,
            user_agent: None,
            local_address: None,
            tracks: Vec::new(),
            tls: TlsConfig::default(),
            connect_timeout: None,
            override_publisher: true,
            linger: None,
            ice: IceConfig::default(),
        }
    }
}

/// Makes the source for an address, with options.
///
/// # Errors
/// As [`from_url`].
pub fn from_url_with(address: &str, options: &SourceOptions) -> Result<Box<dyn Source>, AddressError> {
    if address == PUBLISHER {
        let source = PublishSource::new(options.override_publisher);
        return Ok(Box::new(match options.linger {
            Some(linger) => source.linger(linger),
            None => source,
        }));
    }
    if let Some(line) = address.strip_prefix("gst:") {
        return Ok(Box::new(LaunchSource::new(line)?));
    }
    if let Some(command) = address.strip_prefix("exec:") {
        return Ok(Box::new(ExecSource::new(command)?));
    }
    let url = Url::parse(address)
        .map_err(|e| AddressError::NotAUrl { address: redact_url(address), problem: e.to_string() })?;
    let url = with_credentials(url, options)?;
    match url.scheme() {
        "rtsp" | "rtsps" => Ok(Box::new(rtsp(url, options)?)),
        "udp" | "srt" | "rtmp" | "rtmps" | "sdp" | "v4l2" => Ok(Box::new(network(url, options)?)),
        "http" | "file" => Ok(Box::new(UriSource::from_url(url)?)),
        "https" => Ok(Box::new(UriSource::from_url(url)?.tls(&options.tls)?)),
        #[cfg(feature = "webrtc")]
        "whep" | "wheps" => {
            Ok(Box::new(crate::webrtc::WhepSource::from_url(&url)?.ice(&options.ice).tls(&options.tls)?))
        }
        "test" => Ok(Box::new(TestSource::from_url(&url)?)),
        scheme => {
            Err(AddressError::UnknownScheme { address: redact_url(address), scheme: scheme.to_owned() })
        }
    }
}

/// The address with user and password in it.
fn with_credentials(mut url: Url, options: &SourceOptions) -> Result<Url, AddressError> {
    let Some((user, password)) = &options.credentials else { return Ok(url) };
    let failed =
        |url: &Url, problem| AddressError::Credentials { address: redact_url(url.as_str()), problem };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(failed(
            &url,
            "has a user in it, and there is another one beside it; expected one of them",
        ));
    }
    // A URL leaves what looks like an escape as it is.
    let escaped = |text: &str| percent_encoding::utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    if url.set_username(&escaped(user)).and_then(|()| url.set_password(Some(&escaped(password)))).is_err() {
        return Err(failed(&url, "takes no user and password; expected an address with a host"));
    }
    Ok(url)
}

fn network(url: Url, options: &SourceOptions) -> Result<NetworkSource, AddressError> {
    let by_tls = url.scheme() == "rtmps";
    let source = NetworkSource::from_url(url)?;
    if by_tls { source.tls(&options.tls) } else { Ok(source) }
}

fn rtsp(url: Url, options: &SourceOptions) -> Result<RtspSource, AddressError> {
    let mut source =
        RtspSource::from_url(url)?.transport(options.transport).tracks(options.tracks.iter().copied());
    if let Some(timeout) = options.connect_timeout {
        source = source.timeout(timeout);
    }
    if let Some(user_agent) = &options.user_agent {
        source = source.user_agent(user_agent);
    }
    if let Some(address) = options.local_address {
        source = source.local_address(address);
    }
    #[cfg(feature = "rtsp")]
    {
        source = source.tls(&options.tls)?;
    }
    Ok(source)
}

/// The text of a URL's part, without its escapes.
pub(crate) fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The value of a query parameter, parsed; `Err` names parameter, value and what was expected.
pub(super) fn parse_parameter<T: std::str::FromStr>(
    url: &Url,
    name: &str,
    value: &str,
    expected: &str,
) -> Result<T, AddressError> {
    value.parse().map_err(|_| AddressError::Parameter {
        address: redact_url(url.as_str()),
        parameter: name.to_owned(),
        value: value.to_owned(),
        expected: expected.to_owned(),
    })
}

/// The error for a query parameter that is not known.
pub(super) fn unknown_parameter(url: &Url, name: &str, known: &[&str]) -> AddressError {
    AddressError::Parameter {
        address: redact_url(url.as_str()),
        parameter: "query".into(),
        value: name.to_owned(),
        expected: format!("one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(address: &str) -> String {
        from_url(address).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn each_mistake_says_what_would_be_right() {
        assert!(error("camera").contains("\"camera\" is no URL"));
        assert!(error("rtsp:///x").contains("no host"), "{}", error("rtsp:///x"));
        assert!(error("test://smpte?fps=fast").contains("fps is \"fast\"; expected"));
        assert!(error("test://smpte?colour=red").contains("expected one of width, height"));
        assert!(error("test://plaid").contains("expected smpte or ball"));
        assert!(!error("ftp://me:geheim@host/x").contains("geheim"));
    }
}
