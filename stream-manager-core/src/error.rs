//! What errors have in common: secrets are taken out before anything is printed.
//!
//! Each module has its own error type; this one only holds the helper they share.

use url::Url;

/// A URL as it may be shown: the password is `***`, in the authority and in query parameters whose
/// name says that they hold a secret.
///
/// ```
/// # use stream_manager_core::error::redact_url;
/// assert_eq!(redact_url("rtsp://admin:geheim@cam/1?token=x&a=b"), "rtsp://admin:***@cam/1?token=***&a=b");
/// ```
pub fn redact_url(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) => redact(&url),
        Err(_) => redact_unparsed(text),
    }
}

/// The same for an address that is published to: what stands last in one of RTMP is the key by which one publishes.
///
/// ```
/// # use stream_manager_core::error::redact_publish_url;
/// assert_eq!(redact_publish_url("rtmps://u:p@h/live/geheim?auth=x"), "rtmps://u:***@h/live/***?auth=***");
/// assert_eq!(redact_publish_url("rtsp://u:p@h/live/name"), "rtsp://u:***@h/live/name");
/// ```
pub fn redact_publish_url(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if matches!(url.scheme(), "rtmp" | "rtmps") => {
            if let Ok(mut parts) = url.path_segments_mut() {
                parts.pop().push("***");
            }
            redact(&url)
        }
        _ => redact_url(text),
    }
}

/// An error and all that is behind it: libraries' own words often leave out the reason.
#[cfg(feature = "http")]
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// The innermost reason, where those around it only say in which layer it was.
#[cfg(any(feature = "http", feature = "onvif"))]
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

fn redact(url: &Url) -> String {
    let mut shown = url.clone();
    if shown.password().is_some() {
        // Fails only for URLs without a host, which have no password either.
        let _ = shown.set_password(Some("***"));
    }
    if let Some(query) = url.query() {
        shown.set_query(Some(&redact_query(query)));
    }
    shown.to_string()
}

fn redact_query(query: &str) -> String {
    query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret_name(name) => format!("{name}=***"),
            _ => pair.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("&")
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // "key" only at the end: keyframe-max-dist is no secret.
    name.ends_with("key")
        || name == "sig"
        || ["pass", "pwd", "token", "jwt", "secret", "auth", "signature"]
            .iter()
            .any(|word| name.contains(word))
}

/// For text that is no URL but may hold one, such as a GStreamer launch line or a foreign error message:
/// whatever stands between `://user:` and `@` goes, and so does the value of any secret's name.
pub fn redact_unparsed(text: &str) -> String {
    text.split_inclusive(char::is_whitespace).map(redact_word).collect()
}

fn redact_word(word: &str) -> String {
    let mut out = word.to_owned();
    if let Some(start) = out.find("://").map(|i| i + 3)
        && let Some(at) = out[start..].rfind('@').map(|i| start + i)
        && let Some(colon) = out[start..at].find(':').map(|i| start + i)
    {
        out.replace_range(colon + 1..at, "***");
    }
    if let Some((head, query)) = out.clone().split_once('?') {
        return format!("{head}?{}", redact_query(query));
    }
    // GStreamer properties: user-pw=…, password=…
    if let Some((name, value)) = out.split_once('=')
        && (is_secret_name(name) || name.ends_with("-pw"))
        && !value.contains("://")
    {
        let space = &value[value.trim_end().len()..];
        return format!("{name}=***{space}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn passwords_go_wherever_they_stand() {
        assert_eq!(redact_url("rtsp://u:p%40ss@h/x"), "rtsp://u:***@h/x");
        assert_eq!(redact_url("http://h/x?User=a&PassWord=b"), "http://h/x?User=a&PassWord=***");
        assert_eq!(
            redact_unparsed("rtspsrc location=rtsp://u:p@h user-pw=x ! fakesink"),
            "rtspsrc location=rtsp://u:***@h user-pw=*** ! fakesink"
        );
        assert_eq!(redact_url("rtsp://u:pa/ss@h/x"), "rtsp://u:***@h/x");
        assert_eq!(redact_unparsed("x264enc key-int-max=25"), "x264enc key-int-max=25");
        assert_eq!(redact_url("http://h/?api_key=x"), "http://h/?api_key=***");
        assert_eq!(redact_url("rtsp://h/no/secret"), "rtsp://h/no/secret");
    }

    proptest! {
        #[test]
        fn a_password_never_shows(password in "[A-Za-z0-9!$&+,;=~._-]{8,20}", host in "[a-z]{3,8}") {
            let shown = redact_url(&format!("rtsp://user:{password}@{host}/live"));
            prop_assert!(!shown.contains(&password));
        }
    }
}
