//! A finished file as an answer, whole or in pieces (RFC 9110, section 14).

use super::playback::range_of;
use super::problem::Problem;
use super::query::bad;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::io;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// So much of a file is read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// What is sent.
pub(super) struct File<'a> {
    pub(super) path: &'a Path,
    pub(super) media_type: &'a str,
    /// What it is called where it is saved.
    pub(super) name: &'a str,
    /// Its hash, hexadecimal.
    pub(super) sha256: &'a str,
}

pub(super) async fn send(parts: &Parts, sent: File<'_>) -> Result<Response, Problem> {
    let gone = |error: io::Error| Problem::new(StatusCode::NOT_FOUND, "no_such_file", error.to_string());
    let mut file = tokio::fs::File::open(sent.path).await.map_err(gone)?;
    let length = file.metadata().await.map_err(gone)?.len();
    let mut headers = HeaderMap::new();
    for (header, value) in [
        (header::CONTENT_TYPE, sent.media_type.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", sent.name)),
    ] {
        headers.insert(header, HeaderValue::try_from(value).map_err(|e| bad(e.to_string()))?);
    }
    let tag = sent.sha256.get(..24).unwrap_or_default();
    let (status, range) = match range_of(&parts.headers, tag, length, &mut headers) {
        Ok(found) => found,
        Err(status) => return Ok((status, headers).into_response()),
    };
    if parts.method == Method::HEAD {
        return Ok((status, headers).into_response());
    }
    file.seek(io::SeekFrom::Start(range.start)).await.map_err(gone)?;
    let left = range.end - range.start;
    let chunks = futures_util::stream::unfold(file.take(left), |mut file| async move {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data).await;
        match read {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(data)), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    Ok((status, headers, Body::from_stream(chunks)).into_response())
}
