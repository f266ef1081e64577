//! Is everything there and right?

use crate::args::CheckArgs;
use crate::{exit, output, serve};
use std::collections::BTreeSet;
use stream_manager_core::config::{InferenceConfig, Overrides};
use stream_manager_core::inference;
use stream_manager_core::pipeline;
use stream_manager_core::rtsp::RtspOptions;

/// Loads each model once.
fn models(config: &InferenceConfig) -> u8 {
    let mut code = 0;
    for spec in &config.models {
        match inference::inspect(spec, config.onnxruntime.as_deref())
            .and_then(|i| i.plan.map(|p| (p, i.backend)))
        {
            Ok((plan, backend)) => output::line(&format!(
                "model {}: ok ({}, {}x{}, {} on {})",
                plan.name,
                plan.layout.name(),
                plan.input.width,
                plan.input.height,
                backend.name,
                backend.device
            )),
            Err(error) => {
                output::error(&error.to_string());
                code = exit::FAILURE;
            }
        }
    }
    code
}

pub(crate) fn run(args: &CheckArgs) -> u8 {
    let file = serve::config_file(args.config.as_deref());
    let mut code = 0;
    match serve::load(&serve::source(file.clone(), Overrides::default())) {
        Ok(config) => {
            let name = file.map_or_else(|| "defaults".into(), |f| f.display().to_string());
            output::line(&format!("configuration: ok ({name}, {} streams)", config.streams.len()));
            if config.rtsp.enabled
                && let Err(error) = RtspOptions::from_config(&config.rtsp, &config.auth).check()
            {
                output::error(&error.to_string());
                code = exit::USAGE;
            }
            code = code.max(models(&config.inference));
        }
        Err(problems) => {
            problems.iter().for_each(|p| output::error(p));
            code = exit::USAGE;
        }
    }
    match pipeline::missing_elements() {
        Ok(missing) if missing.is_empty() => output::line("GStreamer: ok, all elements are installed"),
        Ok(missing) => {
            for need in &missing {
                output::line(&format!(
                    "GStreamer: {} is missing ({}): {}",
                    need.element, need.package, need.purpose
                ));
            }
            let packages: BTreeSet<&str> = missing.iter().map(|need| need.package).collect();
            let packages: Vec<&str> = packages.into_iter().collect();
            output::line(&format!("install them with: apt install {}", packages.join(" ")));
            code = code.max(exit::FAILURE);
        }
        Err(error) => {
            output::error(&error.to_string());
            code = code.max(exit::FAILURE);
        }
    }
    code
}
