//! Answers as players and caches want them: types, tags, ranges, compression, other pages' rights.

use super::super::problem::Problem;
use crate::hls::Text;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::convert::Infallible;

pub(super) const PLAYLIST: &str = "application/vnd.apple.mpegurl";
pub(super) const MPD: &str = "application/dash+xml";
/// What does not change under its name may be kept as long as anybody could want it.
pub(super) const IMMUTABLE: &str = "max-age=3600, immutable";

/// Whether the client has it already (RFC 9110 section 13.1.2).
fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let tags = request.get_all(header::IF_NONE_MATCH).into_iter().filter_map(|v| v.to_str().ok());
    tags.flat_map(|tags| tags.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused =
            parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.trim_start_matches(['0', '.']).is_empty()));
        (name.eq_ignore_ascii_case("gzip") || name == "*") && !refused
    })
}

/// Private if the answer was only given because of who asks.
pub(super) fn cache_control(request: &HeaderMap, how: &str) -> HeaderValue {
    let who = if request.contains_key(header::AUTHORIZATION) { "private" } else { "public" };
    HeaderValue::try_from(format!("{who}, {how}")).unwrap_or(HeaderValue::from_static("no-store"))
}

/// A playlist or manifest.
pub(super) fn text(request: &HeaderMap, text: &Text, kind: &'static str, cache: HeaderValue) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(etag) = HeaderValue::try_from(text.etag()) {
        headers.insert(header::ETAG, etag);
    }
    if is_known(request, text.etag()) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let body = if accepts_gzip(request) {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        text.gzip()
    } else {
        text.plain()
    };
    (headers, body).into_response()
}

/// What is asked for of `length` bytes (RFC 9110 section 14.1.2): one range; `None` for everything.
fn range(request: &HeaderMap, length: u64) -> Option<Result<(u64, u64), ()>> {
    let text = request.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (first, last) = match (first.trim(), last.trim()) {
        ("", last) => (length.saturating_sub(number(last)?), length.checked_sub(1)),
        (first, "") => (number(first)?, length.checked_sub(1)),
        (first, last) => (number(first)?, Some(number(last)?.min(length.saturating_sub(1)))),
    };
    Some(last.filter(|last| first <= *last && first < length).map(|last| (first, last)).ok_or(()))
}

/// The bytes from `first` to `last` of these pieces; nothing is copied.
fn slice(pieces: &[Bytes], first: u64, last: u64) -> Vec<Bytes> {
    let (mut at, mut cut) = (0u64, Vec::new());
    for piece in pieces {
        let length = piece.len() as u64;
        let (from, to) = (first.max(at), (last + 1).min(at + length));
        if from < to {
            cut.push(piece.slice((from - at) as usize..(to - at) as usize));
        }
        at += length;
    }
    cut
}

/// Media that is all there, in pieces.
pub(super) fn media(request: &HeaderMap, pieces: Vec<Bytes>, kind: &'static str, name: &str) -> Response {
    let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let etag = format!("\"{name}-{length}\"");
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, cache_control(request, IMMUTABLE));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(etag) = HeaderValue::try_from(&etag) {
        headers.insert(header::ETAG, etag);
    }
    if is_known(request, &etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let (status, pieces, sent) = match range(request, length) {
        None => (StatusCode::OK, pieces, length),
        Some(Ok((first, last))) => {
            let text = format!("bytes {first}-{last}/{length}");
            headers.extend(HeaderValue::try_from(text).ok().map(|value| (header::CONTENT_RANGE, value)));
            (StatusCode::PARTIAL_CONTENT, slice(&pieces, first, last), last - first + 1)
        }
        Some(Err(())) => {
            let detail = format!("the range is outside; expected one within {length} bytes");
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid_range", detail);
            let mut response = problem.into_response();
            let text = format!("bytes */{length}");
            response
                .headers_mut()
                .extend(HeaderValue::try_from(text).ok().map(|v| (header::CONTENT_RANGE, v)));
            return response;
        }
    };
    headers.insert(header::CONTENT_LENGTH, sent.into());
    let body = match <[Bytes; 1]>::try_from(pieces) {
        Ok([whole]) => Body::from(whole),
        Err(pieces) => {
            Body::from_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
        }
    };
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asks(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn ranges_tags_and_codings() {
        let range = |text: &str| range(&asks(header::RANGE, text), 100);
        assert_eq!(range("bytes=0-9"), Some(Ok((0, 9))));
        assert_eq!(range("bytes=90-"), Some(Ok((90, 99))));
        assert_eq!(range("bytes=-10"), Some(Ok((90, 99))));
        assert_eq!(range("bytes=90-200"), Some(Ok((90, 99))));
        assert_eq!(range("bytes=100-"), Some(Err(())));
        assert_eq!(range("bytes=9-1"), Some(Err(())));
        assert_eq!(range("items=0-1"), None);
        assert!(is_known(&asks(header::IF_NONE_MATCH, "W/\"a\", \"b\""), "\"b\""));
        assert!(!is_known(&asks(header::IF_NONE_MATCH, "\"a\""), "\"b\""));
        assert!(accepts_gzip(&asks(header::ACCEPT_ENCODING, "br, gzip;q=0.5")));
        assert!(!accepts_gzip(&asks(header::ACCEPT_ENCODING, "br, gzip;q=0.0")));
    }

    proptest! {
        #[test]
        fn a_slice_is_what_is_between(lengths in proptest::collection::vec(0usize..9, 0..6), a in 0u64..40, b in 0u64..40) {
            let whole: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|n| n as u8).collect();
            let mut rest = &whole[..];
            let pieces: Vec<Bytes> = lengths.iter().map(|n| {
                let (piece, after) = rest.split_at(*n);
                rest = after;
                Bytes::copy_from_slice(piece)
            }).collect();
            let (first, last) = (a.min(b), a.max(b));
            let cut: Vec<u8> = slice(&pieces, first, last).concat();
            let expected: Vec<u8> = whole.iter().copied().skip(first as usize).take((last - first + 1) as usize).collect();
            prop_assert_eq!(cut, expected);
        }
    }
}
