//! Is everything there and right?

use crate::args::CheckArgs;
use crate::{exit, output, serve};
use std::collections::BTreeSet;
use stream_manager_core::config::Overrides;
use stream_manager_core::pipeline;
use stream_manager_core::rtsp::RtspOptions;

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
