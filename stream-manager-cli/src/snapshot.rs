//! A picture of a source.

use crate::args::SnapshotArgs;
use crate::{exit, output};
use std::io::Write;
use stream_manager_core::manager;
use stream_manager_core::pipeline::PictureOptions;
use stream_manager_core::source::{SourceOptions, from_url_with};

pub(crate) async fn run(args: &SnapshotArgs) -> u8 {
    if let Err(problem) = output::start_plain_log(&args.log) {
        output::error(&problem);
        return exit::USAGE;
    }
    let options = SourceOptions { transport: args.transport, ..Default::default() };
    let source = match from_url_with(&args.url, &options) {
        Ok(source) => source,
        Err(error) => {
            output::error(&error.to_string());
            return exit::USAGE;
        }
    };
    let standard_output = args.output.as_os_str() == "-";
    if !standard_output && !args.overwrite && args.output.exists() {
        let shown = args.output.display();
        output::error(&format!("{shown} exists already; choose another name, or --overwrite"));
        return exit::USAGE;
    }
    let picture = PictureOptions { width: args.width, quality: args.quality };
    let made = match manager::snapshot(source, picture).await {
        Ok(made) => made,
        Err(error) => {
            output::error(&error.to_string());
            return exit::SOURCE;
        }
    };
    let written = if standard_output {
        std::io::stdout().lock().write_all(&made.jpeg)
    } else {
        std::fs::write(&args.output, &made.jpeg)
    };
    match written {
        Ok(()) => 0,
        Err(error) => {
            output::error(&format!("{}: {error}", args.output.display()));
            exit::OUTPUT
        }
    }
}
