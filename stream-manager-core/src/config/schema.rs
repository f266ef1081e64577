//! The JSON Schema of the configuration file, for editors.

use super::Config;
use serde_json::Value;

/// The schema (JSON Schema 2020-12) of `config.toml`.
///
/// ```
/// let schema = stream_manager_core::config::json_schema();
/// assert!(schema["properties"]["streams"].is_object());
/// ```
pub fn json_schema() -> Value {
    let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<Config>().to_value();
    schema["title"] = "Stream Manager".into();
    schema
}
