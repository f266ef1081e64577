//! Writing out the configuration and descriptions of interfaces.

use crate::args::ConfigCommand;
use crate::{exit, output, serve};
use stream_manager_core::api::openapi::description;
use stream_manager_core::config::{Overrides, json_schema};
use stream_manager_core::manager::export_config;

pub(crate) fn run(command: ConfigCommand) -> u8 {
    match command {
        ConfigCommand::Schema => json(&json_schema()),
        ConfigCommand::Export { secrets, place } => {
            let overrides = Overrides { data_dir: place.data_dir, ..Overrides::default() };
            let file = serve::config_file(place.config.as_deref());
            match export_config(&serve::source(file, overrides), secrets) {
                Ok(text) => {
                    output::line(text.trim_end());
                    0
                }
                Err(error) => {
                    output::error(&error.to_string());
                    exit::FAILURE
                }
            }
        }
    }
}

pub(crate) fn openapi() -> u8 {
    json(&description())
}

fn json(value: &serde_json::Value) -> u8 {
    output::line(&serde_json::to_string_pretty(value).unwrap_or_default());
    0
}
