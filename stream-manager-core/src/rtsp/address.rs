//! What the address of a request names: a stream, and often one of its tracks.

use super::message::Answer;
use super::session::bad;
use crate::source::percent_decoded;
use rtsp_types::Request;

/// What an address asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) stream: String,
    /// What stands behind the stream's name: `trackID=0`.
    pub(super) control: Option<String>,
    pub(super) query: Option<String>,
}

/// Whether it is the control of a reader's track.
pub(super) fn is_track(part: &str) -> bool {
    part.strip_prefix("trackID=").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// What the address of a request names. The control of a track stands at its end: behind the path, or, since many
/// clients add it to the whole address, behind the query.
pub(super) fn target(
    request: &Request<Vec<u8>>,
    is_control: impl Fn(&str) -> bool,
) -> Result<Target, Answer> {
    let url = request.request_uri().ok_or_else(|| bad("this method needs the address of a stream"))?;
    // Ids have no characters that are encoded; some clients encode others, such as ~.
    let mut path = percent_decoded(url.path());
    let mut query = url.query().map(str::to_owned);
    let mut control = None;
    let mut split = |text: &mut String| {
        if let Some((front, last)) = text.trim_end_matches('/').rsplit_once('/')
            && is_control(last)
        {
            control = Some(last.to_owned());
            *text = front.to_owned();
        }
    };
    split(&mut path);
    if let Some(query) = &mut query {
        split(query);
        let trimmed = query.trim_end_matches('/').len();
        query.truncate(trimmed);
    }
    let stream = path.trim_matches('/').to_owned();
    if stream.is_empty() {
        return Err(Answer::new(
            404,
            "Not Found: the address names no stream; expected rtsp://host/<stream>",
        ));
    }
    Ok(Target { stream, control, query })
}

/// Where the tracks of an address are set up.
pub(super) struct Controls {
    front: String,
    query: Option<String>,
}

impl Controls {
    /// Of what a request's address names.
    pub(super) fn of(request: &Request<Vec<u8>>) -> Self {
        let base = content_base(request);
        match base.split_once('?') {
            Some((path, query)) => Self {
                front: format!("{}/", path.trim_end_matches('/')),
                query: Some(query.trim_end_matches('/').to_owned()),
            },
            None => Self { front: base, query: None },
        }
    }

    /// A track's whole address.
    pub(super) fn track(&self, number: usize) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}trackID={number}{query}", self.front)
    }

    /// What a session description says of it. Clients do not agree on what a relative address means beside one with a query, so there it is
    /// the whole one.
    pub(super) fn described(&self, number: usize) -> String {
        if self.query.is_some() { self.track(number) } else { format!("trackID={number}") }
    }
}

/// The address that tracks' controls are added to.
pub(super) fn content_base(request: &Request<Vec<u8>>) -> String {
    let mut base = request.request_uri().map_or_else(String::new, |url| {
        let mut url = url.clone();
        // Both can only fail for addresses without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.to_string()
    });
    if !base.ends_with('/') {
        base.push('/');
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtsp_types::Method;

    fn of(url: &str) -> Result<Target, u16> {
        let request = Request::builder(Method::Setup, rtsp_types::Version::V1_0)
            .request_uri(url::Url::parse(url).unwrap())
            .build(Vec::new());
        target(&request, is_track).map_err(|a| a.status())
    }

    #[test]
    fn controls_stand_before_a_query() {
        let of = |url: &str| {
            let request = Request::builder(Method::Play, rtsp_types::Version::V1_0)
                .request_uri(url::Url::parse(url).unwrap())
                .build(Vec::new());
            let controls = Controls::of(&request);
            (controls.described(1), controls.track(1))
        };
        let whole = |text: &str| (text.to_owned(), text.to_owned());
        assert_eq!(of("rtsp://u:p@h/a/b"), ("trackID=1".into(), "rtsp://h/a/b/trackID=1".into()));
        assert_eq!(of("rtsp://h/a/b?start=1/"), whole("rtsp://h/a/b/trackID=1?start=1"));
        assert_eq!(of("rtsp://h/a/b/?start=1&end=2"), whole("rtsp://h/a/b/trackID=1?start=1&end=2"));
    }

    #[test]
    fn addresses_as_clients_write_them() {
        let expect = |stream: &str, control: Option<&str>, query: Option<&str>| {
            Ok(Target {
                stream: stream.into(),
                control: control.map(Into::into),
                query: query.map(Into::into),
            })
        };
        assert_eq!(of("rtsp://h:8554/cam"), expect("cam", None, None));
        assert_eq!(of("rtsp://h/cam/"), expect("cam", None, None));
        assert_eq!(of("rtsp://h/yard/door/trackID=1"), expect("yard/door", Some("trackID=1"), None));
        assert_eq!(of("rtsp://h/cam?token=a/trackID=0"), expect("cam", Some("trackID=0"), Some("token=a")));
        assert_eq!(of("rtsp://h/cam/?token=a/trackID=0"), expect("cam", Some("trackID=0"), Some("token=a")));
        assert_eq!(of("rtsp://h/cam/trackID=0?token=a"), expect("cam", Some("trackID=0"), Some("token=a")));
        assert_eq!(of("rtsp://h/a%7Eb"), expect("a~b", None, None));
        assert_eq!(of("rtsp://h/cam/trackID=x"), expect("cam/trackID=x", None, None));
        assert_eq!(of("rtsp://h/"), Err(404));
        assert_eq!(of("rtsp://h"), Err(404));
    }
}
