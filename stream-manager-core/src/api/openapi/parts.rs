//! What operations are described with: parameters, answers, shapes.

use super::super::streams::DryRun;
use super::super::view::StreamView;
use schemars::{JsonSchema, Schema, SchemaGenerator};

pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Option<(&'static [&'static str], Shape)>,
    pub(super) answers: &'static [Answer],
}

pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: &'static str,
    pub(super) required: bool,
    /// JSON.
    pub(super) schema: &'static str,
    pub(super) text: &'static str,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: &'static str,
    pub(super) body: Option<(&'static str, Shape)>,
    /// Or this.
    pub(super) also: Option<(&'static str, Shape)>,
    pub(super) etag: bool,
}

pub(super) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A stream, or what a dry run says.
pub(super) fn stream_or_dry(generator: &mut SchemaGenerator) -> Schema {
    let (stream, dry) = (generator.subschema_for::<StreamView>(), generator.subschema_for::<DryRun>());
    schemars::json_schema!({"anyOf": [stream, dry]})
}

pub(super) fn anything(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "object"})
}

pub(super) fn text(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "string"})
}

/// One server-sent event. A description cannot say "many of these", so readers of it take the schema of such a body
/// for that of each event.
pub(super) fn server_sent_event(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "event": {"type": "string"},
            "data": {"type": "string"}
        },
        "required": ["data"]
    })
}

/// A stream's analysis, or what a dry run says.
#[cfg(feature = "inference")]
pub(super) fn analysis_or_dry(generator: &mut SchemaGenerator) -> Schema {
    let analysis = generator.subschema_for::<super::super::inference::AnalysisView>();
    schemars::json_schema!({"anyOf": [analysis, generator.subschema_for::<DryRun>()]})
}

/// A file's content.
pub(super) fn binary(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "string", "format": "binary"})
}

#[cfg(feature = "inference")]
/// An image may also be called what it is; makers of clients know nothing but this.
pub(super) const IMAGE: &[&str] = &["application/octet-stream"];
pub(super) const JSON: &str = "application/json";
pub(super) const BODY: &[&str] = &[JSON];
pub(super) const PATCH: &[&str] = &["application/merge-patch+json", JSON];

pub(super) const fn query(name: &'static str, schema: &'static str, text: &'static str) -> Parameter {
    Parameter { name, place: "query", required: false, schema, text }
}

pub(super) const fn needed(name: &'static str, schema: &'static str, text: &'static str) -> Parameter {
    Parameter { name, place: "query", required: true, schema, text }
}

pub(super) const fn header(name: &'static str, schema: &'static str, text: &'static str) -> Parameter {
    Parameter { name, place: "header", required: false, schema, text }
}

pub(super) const fn answer(status: u16, text: &'static str, shape: Shape) -> Answer {
    Answer { status, text, body: Some((JSON, shape)), also: None, etag: false }
}

pub(super) const fn with_etag(status: u16, text: &'static str, shape: Shape) -> Answer {
    Answer { status, text, body: Some((JSON, shape)), also: None, etag: true }
}

pub(super) const fn empty(status: u16, text: &'static str) -> Answer {
    Answer { status, text, body: None, also: None, etag: false }
}

pub(super) const LIMIT: Parameter = query(
    "limit",
    r#"{"type":"integer","minimum":1,"maximum":1000,"default":100}"#,
    "How many items a page has",
);
pub(super) const DRY_RUN: Parameter =
    query("dry_run", r#"{"type":"boolean","default":false}"#, "Only say what would be done");
pub(super) const IF_MATCH: Parameter = header(
    "If-Match",
    r#"{"type":"string","pattern":"^$|^\\*$|^\"[0-9]{1,15}\"$"}"#,
    "Only if the configuration still has this ETag",
);
pub(super) const IF_NONE_MATCH: Parameter =
    header("If-None-Match", r#"{"type":"string","enum":["*",""]}"#, "Only if there is no such stream");
pub(super) const KEY: Parameter = header(
    "Idempotency-Key",
    r#"{"type":"string","pattern":"^[!-~]{1,255}$"}"#,
    "The same request with the same key is carried out once only, within a day",
);
pub(super) const TIME: &str = r#"{"anyOf":[{"type":"string","format":"date-time"},{"type":"number"}]}"#;
/// Lengths of time may be written in other units, too.
pub(super) const SECONDS: &str = r#"{"type":"string","pattern":"^[1-9][0-9]{0,3}s$","examples":["30s"]}"#;
pub(super) const TIME_TEXT: &str = "RFC 3339, or seconds since 1970";
pub(super) const START: Parameter = query("start", TIME, TIME_TEXT);
pub(super) const END: Parameter = query("end", TIME, TIME_TEXT);
pub(super) const START_NEEDED: Parameter = needed("start", TIME, TIME_TEXT);
pub(super) const END_NEEDED: Parameter = needed("end", TIME, TIME_TEXT);

/// Makers of clients know nothing of images but that they are bytes.
pub(super) const PICTURE: &[Answer] = &[Answer {
    status: 200,
    text: "A JPEG",
    body: Some(("application/octet-stream", binary)),
    also: Some(("image/jpeg", binary)),
    etag: false,
}];

pub(super) const fn get(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
    answers: &'static [Answer],
) -> Operation {
    Operation { method: "get", path, id, tag, summary, parameters, body: None, answers }
}

pub(super) const fn post(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
    answers: &'static [Answer],
) -> Operation {
    Operation { method: "post", path, id, tag, summary, parameters, body: None, answers }
}
