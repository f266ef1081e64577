//! The description of the API, OpenAPI 3.1, made from the code: shapes come from the types that are read and written, and
//! a test calls every operation.

mod accounts;
mod operations;
mod page;
mod parts;

use super::ApiState;
use super::problem::Problem;
use super::query;
use accounts::ACCOUNTS;
use axum::Router;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use operations::{OPERATIONS, TAGS};
use parts::Operation;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// The body of a PUT: as that of making a stream, but the id may be left to the path.
#[derive(Deserialize)]
#[allow(dead_code, reason = "a name for a shape")]
pub(super) struct StreamBody;

/// A merge patch of a stream.
#[derive(Deserialize)]
#[allow(dead_code, reason = "a name for a shape")]
pub(super) struct StreamPatch;

/// A merge patch of the configuration.
#[derive(Deserialize)]
#[allow(dead_code, reason = "a name for a shape")]
pub(super) struct ConfigPatch;

/// A change of a stream's analysis.
#[cfg(feature = "inference")]
pub(super) struct InferencePatch;

/// Any object.
pub(super) struct AnyObject;

impl JsonSchema for AnyObject {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AnyObject".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "description": "An object that is looked at on its own"})
    }
}

impl JsonSchema for StreamBody {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StreamBody".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = crate::config::StreamConfig::json_schema(generator);
        let required = schema.get_mut("required").and_then(Value::as_array_mut);
        if let Some(required) = required {
            required.retain(|name| name != "id");
        }
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            // The path has it, and nothing else would do.
            properties.remove("id");
        }
        schema
    }
}

/// Lets every value of an object be null, which takes it out, and none be needed.
fn patch_of(mut schema: Schema, description: &str) -> Schema {
    schema.remove("required");
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for value in properties.values_mut() {
            if let Some(object) = value.as_object_mut() {
                object.remove("default");
            }
            let inner = value.take();
            *value = json!({"anyOf": [inner, {"type": "null"}]});
        }
    }
    schema.insert("description".into(), description.into());
    schema
}

impl JsonSchema for StreamPatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StreamPatch".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema =
            patch_of(StreamBody::json_schema(generator), "What changes; null takes a key out (RFC 7396)");
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut)
            && let Some(source) = properties.get_mut("source_url")
        {
            *source = json!({"type": "string"});
        }
        schema
    }
}

impl JsonSchema for ConfigPatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ConfigPatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let section = |names: &[&str]| {
            let properties: Map<String, Value> = names.iter().map(|n| ((*n).to_owned(), json!({}))).collect();
            json!({"type": ["object", "null"], "properties": properties})
        };
        json_schema!({
            "type": "object",
            "description": "What changes; null takes a key out (RFC 7396). Keys are those of the configuration file, see /api/config/schema",
            "properties": {
                "server": section(&["max_connects", "max_connects_per_host"]),
                "storage": section(&["max_size", "min_free"]),
                "rtmp": {"type": ["object", "null"]},
                "rtsp": {"type": ["object", "null"]},
                "telemetry": section(&["log"]),
                "events": section(&["journal_size"]),
                "hooks": section(&["webhooks", "mqtt"]),
                "defaults": {"type": ["object", "null"]}
            },
            "additionalProperties": false
        })
    }
}

fn all() -> impl Iterator<Item = &'static parts::Operation> {
    OPERATIONS.iter().copied().flatten().chain(ACCOUNTS)
}

/// Method and path of every call that is described.
#[cfg(test)]
pub(super) fn calls() -> impl Iterator<Item = (&'static str, &'static str)> {
    all().map(|operation| (operation.method, operation.path))
}

#[cfg(feature = "inference")]
impl JsonSchema for InferencePatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "InferencePatch".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let schema = crate::config::StreamInferenceConfig::json_schema(generator);
        patch_of(schema, "What changes; null takes a key out (RFC 7396)")
    }
}

/// The description as JSON.
///
/// ```
/// let description = stream_manager_core::api::openapi::description();
/// assert_eq!(description["openapi"], "3.1.0");
/// ```
pub fn description() -> Value {
    // Requests and answers are looked at from their own side: what may be left out is not the same.
    let settings =
        || SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut reading = settings().for_deserialize().into_generator();
    let mut writing = settings().for_serialize().into_generator();
    let described: Vec<(Value, Value)> = all()
        .map(|operation| (operation.describe(&mut reading), operation.responses(&mut writing)))
        .collect();
    // What /api/events sends; no answer refers to it.
    writing.subschema_for::<crate::event::Event>();
    let problem = writing.subschema_for::<Problem>();
    let mut schemas = reading.take_definitions(true);
    let rename = different(&schemas, writing.definitions());
    schemas.extend(writing.take_definitions(true).into_iter().map(|(name, schema)| {
        let name = if rename.contains(&name) { shown_name(&name) } else { name };
        (name, renamed(schema, &rename))
    }));
    let mut paths = Map::new();
    for (operation, (mut description, responses)) in all().zip(described) {
        description["responses"] = renamed(responses, &rename);
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method] = description;
    }
    schemas.values_mut().for_each(plain_enums);
    let tags: Vec<Value> =
        TAGS.iter().map(|(name, text)| json!({"name": name, "description": text})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stream Manager",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            "description": "Live streams: recorded, re-served and watched over.\n\nErrors are problem details (RFC 9457) \
                with a stable `code` and a JSON pointer to the field. Times are RFC 3339, durations are text such as \
                `\"30s\"` or seconds, sizes are text such as `\"10GB\"` or bytes. A `/` in an id may be written as it is \
                or as `%2F`.\n\nWho may do what: a name and a password (HTTP Basic), an API token or a JWT (Bearer), or \
                the cookie of `/api/login`. Until the first user exists, requests from the server's own machine may do \
                everything.\n\nWhat is there stays: later versions only add calls, optional parameters, fields and codes."
        },
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Problem": {
                    "description": "What is wrong and what would be right (RFC 9457)",
                    "content": {"application/problem+json": {"schema": problem}}
                }
            }
        }
    })
}

/// Choices among words are told as `enum`, which generators know what to do with, instead of one schema each.
fn plain_enums(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some((words, text)) = object.get("oneOf").and_then(choice) {
                object.remove("oneOf");
                let own = object.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
                object.insert("type".into(), "string".into());
                object.insert("enum".into(), words);
                object.insert("description".into(), format!("{own}\n\n{text}").trim().into());
            }
            object.values_mut().for_each(plain_enums);
        }
        Value::Array(items) => items.iter_mut().for_each(plain_enums),
        _ => {}
    }
}

/// The words of a choice, and what each says of itself.
fn choice(one_of: &Value) -> Option<(Value, String)> {
    let (mut words, mut text) = (Vec::new(), Vec::new());
    for schema in one_of.as_array()? {
        match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
            (Some(Value::String(word)), _) => {
                if let Some(description) = schema["description"].as_str() {
                    text.push(format!("- `{word}`: {description}"));
                }
                words.push(Value::from(word.as_str()));
            }
            (None, Some(more)) if more.iter().all(Value::is_string) => words.extend(more.iter().cloned()),
            _ => return None,
        }
    }
    Some((words.into(), text.join("\n")))
}

/// Names that mean something else in answers than in requests, by themselves or by what they refer to.
fn different(reading: &Map<String, Value>, writing: &Map<String, Value>) -> BTreeSet<String> {
    let both = || writing.iter().filter(|(name, _)| reading.contains_key(*name));
    let mut names: BTreeSet<String> = both()
        .filter(|(name, schema)| reading.get(*name) != Some(schema))
        .map(|(name, _)| name.clone())
        .collect();
    loop {
        let refers = |schema: &Value| {
            let text = schema.to_string();
            names.iter().any(|name| text.contains(&reference(name)))
        };
        let more: Vec<String> = both()
            .filter(|(name, schema)| !names.contains(*name) && refers(schema))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return names;
        }
        names.extend(more);
    }
}

fn reference(name: &str) -> String {
    format!("\"#/components/schemas/{name}\"")
}

fn shown_name(name: &str) -> String {
    format!("Shown{name}")
}

fn renamed(value: Value, names: &BTreeSet<String>) -> Value {
    let mut text = value.to_string();
    for name in names {
        text = text.replace(&reference(name), &reference(&shown_name(name)));
    }
    serde_json::from_str(&text).unwrap_or(value)
}

impl Operation {
    fn describe(&self, reading: &mut SchemaGenerator) -> Value {
        let mut parameters: Vec<Value> = Vec::new();
        for name in self.path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')) {
            let (schema, text) = match (name, self.path.starts_with("/api/sessions/")) {
                ("name", _) => (json!({"type": "string", "minLength": 1}), "Its name"),
                ("number", _) => (json!({"type": "integer", "minimum": 1}), "Its number"),
                _ if self.path.starts_with("/api/tokens/") => {
                    (json!({"type": "string", "minLength": 1}), "The token's id")
                }
                (_, true) => (json!({"type": "integer", "minimum": 1}), "The session's number"),
                _ => (json!({"type": "string", "minLength": 1, "maxLength": 200}), "The stream's id"),
            };
            parameters.push(
                json!({"name": name, "in": "path", "required": true, "schema": schema, "description": text}),
            );
        }
        for parameter in self.parameters {
            parameters.push(json!({
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.required,
                "schema": serde_json::from_str::<Value>(parameter.schema).unwrap_or_default(),
                "description": parameter.text
            }));
        }
        let mut described = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": parameters,
        });
        if let Some((media, schema)) = self.body {
            let content: Map<String, Value> =
                media.iter().map(|media| ((*media).to_owned(), json!({"schema": schema(reading)}))).collect();
            described["requestBody"] = json!({"required": true, "content": content});
        }
        described
    }

    fn responses(&self, writing: &mut SchemaGenerator) -> Value {
        let mut responses = Map::new();
        for answer in self.answers {
            let mut response = json!({"description": answer.text});
            for (media, schema) in answer.body.iter().chain(&answer.also) {
                response["content"][media] = json!({"schema": schema(writing)});
            }
            if answer.etag {
                response["headers"] = json!({"ETag": {"schema": {"type": "string"}, "description": "The configuration's revision"}});
            }
            responses.insert(answer.status.to_string(), response);
        }
        responses.insert("default".into(), json!({"$ref": "#/components/responses/Problem"}));
        responses.into()
    }
}

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/api/openapi.json", get(document)).route("/api/docs", get(docs))
}

async fn document(uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| serde_json::to_string_pretty(&description()).unwrap_or_default() + "\n");
    Ok(([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response())
}

async fn docs(uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| page::render(&description()));
    let policy =
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    let mut response =
        (StatusCode::OK, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text.as_str()).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference leads somewhere, and requests and answers mean the same by a name.
    #[test]
    fn the_description_is_whole() {
        let description = description();
        let schemas = description["components"]["schemas"].as_object().unwrap();
        let text = description.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        let mut ids = std::collections::HashSet::new();
        for operation in all() {
            assert!(ids.insert(operation.id), "{} twice", operation.id);
            for parameter in operation.parameters {
                assert!(serde_json::from_str::<Value>(parameter.schema).is_ok(), "{}", parameter.schema);
            }
        }
    }
}
