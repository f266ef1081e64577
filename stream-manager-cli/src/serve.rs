//! The server.

use crate::args::ServeArgs;
use crate::{exit, output};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stream_manager_core::config::{Config, ConfigSource, Overrides};
use stream_manager_core::logs::LogRing;
use stream_manager_core::manager::check_streams;
use stream_manager_core::service::{Service, ServiceOptions};

/// Lines of the log that the API shows.
const LOG_LINES: usize = 2000;

pub(crate) async fn run(args: &ServeArgs) -> u8 {
    let file = config_file(args.config.as_deref());
    let source = source(file, overrides(args));
    let config = match load(&source) {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|p| output::error(p));
            return exit::USAGE;
        }
    };
    let ring = LogRing::new(LOG_LINES);
    let log = match output::start_log(&config.telemetry, Some(ring.clone())) {
        Ok(log) => log,
        Err(problem) => {
            output::error(&problem);
            return exit::USAGE;
        }
    };
    let (repeats, otlp) = (Some(log.repeats.clone()), log.otlp.clone());
    let options =
        ServiceOptions { logs: Some(ring), repeats, otlp: otlp.clone(), config_users: vec![Arc::new(log)] };
    let code = match serve(source, options).await {
        Ok(()) => 0,
        Err(error) => {
            output::error(&error.to_string());
            exit::FAILURE
        }
    };
    if let Some(otlp) = otlp {
        otlp.end().await;
    }
    code
}

async fn serve(source: ConfigSource, options: ServiceOptions) -> Result<(), Box<dyn std::error::Error>> {
    stream_manager_core::service::raise_open_files();
    let cancel = output::cancel_on_signal()?;
    let file = source.file.clone();
    let service = Service::start(source, options).await?;
    output::on_hangup(service.reloader(), cancel.clone())?;
    let manager = service.manager();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = file.map_or_else(|| "none".into(), |f| f.display().to_string()),
        streams = manager.streams().len(),
        recordings = %manager.recordings_dir().display(),
        "listening on http://{}",
        service.address(),
    );
    if let Some(code) = service.setup_code() {
        welcome(&service, code.reveal());
    }
    service.run(cancel).await;
    tracing::info!("stopped");
    Ok(())
}

/// What holds as long as there are no users, and how that ends. Not a line of the log: the code is nobody's but the operator's.
fn welcome(service: &Service, code: &str) {
    let watching =
        if service.manager().config().auth.open_viewing { ", everybody may watch live" } else { "" };
    output::note(&format!(
        "There are no users yet: this machine may do everything{watching}, and nothing else is allowed.\n\
         Make the first user with: stream-manager user add NAME --role admin\n\
         or from another machine, by POST /api/setup, with the code {code}"
    ));
}

fn overrides(args: &ServeArgs) -> Overrides {
    Overrides {
        port: args.port,
        listen: args.listen,
        rtsp_listen: args.rtsp_listen,
        data_dir: args.data_dir.clone(),
        log: args.log.clone(),
    }
}

/// All layers of the configuration.
pub(crate) fn source(file: Option<PathBuf>, overrides: Overrides) -> ConfigSource {
    ConfigSource { file, environment: std::env::vars().collect(), overrides }
}

/// The file that was named, or the one in a usual place.
pub(crate) fn config_file(named: Option<&Path>) -> Option<PathBuf> {
    let usual = || ["config.toml", "/etc/stream-manager/config.toml"].map(PathBuf::from);
    named.map(Path::to_owned).or_else(|| usual().into_iter().find(|path| path.is_file()))
}

/// Reads the configuration and checks its streams; says everything that is wrong, one line each.
pub(crate) fn load(source: &ConfigSource) -> Result<Config, Vec<String>> {
    let config = source.load(None).map_err(|e| vec![e.to_string()])?;
    let problems = check_streams(&config);
    if problems.is_empty() {
        return Ok(config);
    }
    let file = source.file.as_deref();
    let text = file.and_then(|f| std::fs::read_to_string(f).ok()).unwrap_or_default();
    let problems = problems
        .into_iter()
        .map(|(index, error)| match (file, Config::line_of_stream(&text, index)) {
            (Some(file), Some(line)) => format!("{}:{line}: {error}", file.display()),
            _ => error.to_string(),
        })
        .collect();
    Err(problems)
}
