//! Request bodies: read within a time and a size, and refused with precise words.

use super::problem::Problem;
use crate::config::{StreamConfig, explain};
use crate::manager::{NO_ARRAY, find_array, pointer_of};
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// The largest request body.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;
/// The largest body of a batch.
pub(super) const MAX_BATCH_BYTES: usize = 32 << 20;
/// The largest picture.
pub(super) const MAX_IMAGE_BYTES: usize = 32 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the whole body before anything else happens, so that a sender who never finishes holds up nothing.
pub(super) async fn read(request: Request, next: Next) -> Response {
    // Which pages may play live.mp4 is a setting of its own.
    if is_foreign(&request) && !request.uri().path().ends_with("/live.mp4") {
        let detail = "a page of another site asks for this; expected a program, or a page of this server";
        return closing(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail));
    }
    let limit = match request.uri().path() {
        path if path.ends_with(":batch") => MAX_BATCH_BYTES,
        path if path.ends_with("/api/infer") => MAX_IMAGE_BYTES,
        _ => MAX_BODY_BYTES,
    };
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key(header::UPGRADE) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            let too_large =
                std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("limit"));
            let problem = if too_large {
                let detail = format!("the body is too large; expected {limit} bytes at most");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
            } else {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "invalid_body",
                    format!("the body cannot be read: {error}"),
                )
            };
            return closing(problem);
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            return closing(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail));
        }
    };
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// A browser says where a request comes from (Fetch Metadata). What another site's page asks for in the name of whoever
/// looks at it changes nothing, and listens to nothing.
fn is_foreign(request: &Request) -> bool {
    let foreign = request.headers().get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    foreign && (!request.method().is_safe() || request.headers().contains_key(header::UPGRADE))
}

/// The rest of the body is not read any more.
pub(super) fn closing(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

/// What a body may be called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    MergePatch,
}

/// Reads a JSON body of any shape. A key that comes twice is refused: which one was meant nobody can tell.
pub(super) fn value(headers: &HeaderMap, body: &Bytes, media: Media) -> Result<Value, Problem> {
    let content_type =
        headers.get(header::CONTENT_TYPE).map_or(Ok("application/json"), |v| v.to_str()).unwrap_or("?");
    let mime = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let right = match mime.as_str() {
        // The second is what curl sends with -d unless told otherwise.
        "application/json" | "application/x-www-form-urlencoded" => true,
        "application/merge-patch+json" => media == Media::MergePatch,
        _ => false,
    };
    if !right {
        let shown: String = mime.chars().take(100).collect();
        let detail = format!("the content type is {shown}; expected application/json");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let malformed = |problem: String| {
        Problem::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the body is no JSON: {problem}"))
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize::<_, Unique>(&mut deserializer).map_err(|error| {
        let pointer = pointer_of(error.path());
        let inner = error.into_inner();
        if inner.is_data() {
            let text = inner.to_string();
            let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(m, _)| m);
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", message.to_owned()).at(pointer)
        } else {
            malformed(inner.to_string())
        }
    })?;
    deserializer.end().map_err(|e| malformed(e.to_string()))?;
    Ok(value.0)
}

/// Turns JSON into what is expected, and says precisely what is wrong with it.
pub(super) fn from_value<T: for<'a> Deserialize<'a>>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer_of(error.path());
        let problem = explain(&error.into_inner().to_string());
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", problem);
        if pointer.is_empty() { problem } else { problem.at(pointer) }
    })
}

/// The same where an object is expected: serde would take an array for one whose values come in its own order.
pub(super) fn object<T: for<'a> Deserialize<'a>>(value: Value) -> Result<T, Problem> {
    if value.is_array() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_body",
            "it is an array; expected an object",
        ));
    }
    from_value(value)
}

/// A stream's configuration.
pub(super) fn stream(value: Value) -> Result<StreamConfig, Problem> {
    match find_array(&value).filter(|pointer| !pointer.is_empty()) {
        Some(pointer) => {
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", NO_ARRAY).at(pointer))
        }
        None => object(value),
    }
}

/// JSON in which no object has a key twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Unique;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, v: bool) -> Result<Unique, E> {
                Ok(Unique(v.into()))
            }

            fn visit_i64<E>(self, v: i64) -> Result<Unique, E> {
                Ok(Unique(v.into()))
            }

            fn visit_u64<E>(self, v: u64) -> Result<Unique, E> {
                Ok(Unique(v.into()))
            }

            fn visit_f64<E>(self, v: f64) -> Result<Unique, E> {
                Ok(Unique(v.into()))
            }

            fn visit_str<E>(self, v: &str) -> Result<Unique, E> {
                Ok(Unique(v.into()))
            }

            fn visit_string<E>(self, v: String) -> Result<Unique, E> {
                Ok(Unique(v.into()))
            }

            fn visit_unit<E>(self) -> Result<Unique, E> {
                Ok(Unique(Value::Null))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
                let mut items = Vec::new();
                while let Some(Unique(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Unique(Value::Array(items)))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut object = serde_json::Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    if object.contains_key(&key) {
                        let shown: String = key.chars().take(60).collect();
                        return Err(serde::de::Error::custom(format!("the key \"{shown}\" is there twice")));
                    }
                    let Unique(value) = map.next_value()?;
                    object.insert(key, value);
                }
                Ok(Unique(Value::Object(object)))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
