//! The page for people: `GET /` and its parts below `/page/`.
//!
//! Plain HTML, CSS and ES modules that are built in. Everything goes through the public API, with the rights of whoever looks, so the page
//! itself is open to everybody. Its parts are compressed once, and kept by browsers until they change.

use super::problem::Problem;
use super::query;
use super::{ApiState, no_route};
use axum::Router;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, OnceLock};

/// Scripts and styles of our own alone; nothing that a stream's name holds is ever run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: mediastream:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page's parts: name, media type, content.
const PARTS: [(&str, &str, &str); 25] = [
    ("index.html", HTML, include_str!("index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("accounts.js", SCRIPT, include_str!("accounts.js")),
    ("add.js", SCRIPT, include_str!("add.js")),
    ("api.js", SCRIPT, include_str!("api.js")),
    ("app.js", SCRIPT, include_str!("app.js")),
    ("chart.js", SCRIPT, include_str!("chart.js")),
    ("dom.js", SCRIPT, include_str!("dom.js")),
    ("exports.js", SCRIPT, include_str!("exports.js")),
    ("live.js", SCRIPT, include_str!("live.js")),
    ("objects.js", SCRIPT, include_str!("objects.js")),
    ("overlay.js", SCRIPT, include_str!("overlay.js")),
    ("qr.js", SCRIPT, include_str!("qr.js")),
    ("recordings.js", SCRIPT, include_str!("recordings.js")),
    ("replay.js", SCRIPT, include_str!("replay.js")),
    ("settings.js", SCRIPT, include_str!("settings.js")),
    ("signin.js", SCRIPT, include_str!("signin.js")),
    ("span.js", SCRIPT, include_str!("span.js")),
    ("stream.js", SCRIPT, include_str!("stream.js")),
    ("tile.js", SCRIPT, include_str!("tile.js")),
    ("timeline.js", SCRIPT, include_str!("timeline.js")),
    ("wall.js", SCRIPT, include_str!("wall.js")),
    ("zone.js", SCRIPT, include_str!("zone.js")),
    ("zones.js", SCRIPT, include_str!("zones.js")),
];

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/", get(index)).route("/page/{name}", get(part))
}

struct Part {
    media_type: &'static str,
    plain: &'static [u8],
    packed: Vec<u8>,
    tag: String,
}

fn parts() -> &'static HashMap<&'static str, Part> {
    static PACKED: OnceLock<HashMap<&'static str, Part>> = OnceLock::new();
    PACKED.get_or_init(|| {
        let pack = |(name, media_type, text): (&'static str, &'static str, &'static str)| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            // Into memory, which takes everything.
            let packed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
            let tag = format!("{:x}", Sha256::digest(text)).chars().take(24).collect();
            let part = Part { media_type, plain: text.as_bytes(), packed: packed.unwrap_or_default(), tag };
            (name, part)
        };
        PARTS.into_iter().map(pack).collect()
    })
}

async fn index(uri: Uri, request: Request) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse_for_media(&uri)?;
    Ok(answer("index.html", request.headers()).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response()))
}

async fn part(Path(name): Path<String>, uri: Uri, request: Request) -> Response {
    match answer(&name, request.headers()) {
        Some(response) => response,
        None => no_route(uri).await.into_response(),
    }
}

/// A part, or that it is still the same.
fn answer(name: &str, asked: &HeaderMap) -> Option<Response> {
    let part = parts().get(name)?;
    let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let mut headers = HeaderMap::new();
    let fixed = [
        (header::CONTENT_TYPE, part.media_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::VARY, "accept-encoding"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    let packs = text(header::ACCEPT_ENCODING).split(',').any(|one| one.trim().starts_with("gzip"));
    let packs = packs && !part.packed.is_empty();
    // Each form is a thing of its own (RFC 9110, section 8.8.3.3).
    let tag = format!("\"{}{}\"", part.tag, if packs { "-gz" } else { "" });
    headers.insert(header::ETAG, HeaderValue::try_from(&tag).ok()?);
    if text(header::IF_NONE_MATCH).split(',').any(|known| known.trim().trim_start_matches("W/") == tag) {
        return Some((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    if packs {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        return Some((headers, part.packed.as_slice()).into_response());
    }
    Some((headers, part.plain).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_there_and_the_page_is_small() {
        for (name, text) in PARTS.map(|(name, _, text)| (name, text)) {
            // Modules name each other.
            let named = ["from \"./", "import(\"./"].map(|before| text.split(before).skip(1));
            for other in named.into_iter().flatten().filter_map(|rest| rest.split('"').next()) {
                assert!(parts().contains_key(other), "{name} wants {other}");
            }
            assert!(!text.contains("innerHTML") && !text.contains("eval("), "{name}");
        }
        let (plain, packed): (Vec<usize>, Vec<usize>) =
            parts().values().map(|part| (part.plain.len(), part.packed.len())).unzip();
        assert!(plain.iter().sum::<usize>() < 230_000 && packed.iter().sum::<usize>() < 85_000);
    }

    #[test]
    fn browsers_keep_it_until_it_changes() {
        let asked = |pairs: &[(header::HeaderName, &str)]| {
            pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        let plain = answer("app.js", &asked(&[])).unwrap();
        let packed = answer("app.js", &asked(&[(header::ACCEPT_ENCODING, "br, gzip;q=0.8")])).unwrap();
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
        assert_ne!(plain.headers()[header::ETAG], packed.headers()[header::ETAG]);
        let tag = plain.headers()[header::ETAG].to_str().unwrap();
        let again = answer("app.js", &asked(&[(header::IF_NONE_MATCH, tag)])).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(answer("none.js", &asked(&[])).is_none() && answer("../mod.rs", &asked(&[])).is_none());
        let policy = plain.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"));
    }
}
