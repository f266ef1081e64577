//! The server.

use crate::args::ServeArgs;
use crate::{exit, output};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stream_manager_core::api::{self, ApiOptions, Server};
use stream_manager_core::auth::Users;
use stream_manager_core::config::{Config, Overrides};
use stream_manager_core::manager::{StreamManager, check_streams};
use stream_manager_core::rtsp::{RtspOptions, RtspServer};

pub(crate) async fn run(args: &ServeArgs) -> u8 {
    let file = config_file(args.config.as_deref());
    let overrides = Overrides {
        port: args.port,
        listen: args.listen,
        rtsp_listen: args.rtsp_listen,
        data_dir: args.data_dir.clone(),
        log: args.log.clone(),
    };
    let config = match load(file.as_deref(), &overrides) {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|p| output::error(p));
            return exit::USAGE;
        }
    };
    if let Err(problem) = output::start_log(&config.telemetry.log, config.telemetry.log_format) {
        output::error(&problem);
        return exit::USAGE;
    }
    match serve(config, file.as_deref()).await {
        Ok(()) => 0,
        Err(error) => {
            output::error(&error.to_string());
            exit::FAILURE
        }
    }
}

async fn serve(config: Config, file: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    let cancel = output::cancel_on_signal()?;
    // The port first: if it is taken, no camera has been connected and no file begun.
    let server = Server::bind(config.server.listen).await?;
    let rtsp = match &config.rtsp {
        rtsp if rtsp.enabled => {
            let gop = usize::try_from(config.defaults.gop_max_size.0).unwrap_or(usize::MAX);
            Some(RtspServer::bind(RtspOptions::from_config(rtsp, &config.auth, gop)).await?)
        }
        _ => None,
    };
    let manager = StreamManager::from_config(&config).await?;
    let rtsp_cancel = tokio_util::sync::CancellationToken::new();
    let rtsp = match rtsp {
        Some(server) => {
            tracing::info!(udp = ?server.udp_ports(), tls = ?server.tls_address(), "RTSP at rtsp://{}/<id>", server.address());
            let users = Arc::new(Users::new(config.auth.users()?));
            let (streams, sessions) = (Arc::new(manager.clone()), manager.sessions().clone());
            Some(tokio::spawn(server.run(streams, users, sessions, rtsp_cancel.clone())))
        }
        None => None,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = file.map_or_else(|| "none".into(), |f| f.display().to_string()),
        streams = config.streams.len(),
        recordings = %manager.recordings_dir().display(),
        "listening on http://{}",
        server.address(),
    );
    let router = api::router(manager.clone(), ApiOptions { defaults: config.defaults });
    let served = server.run(router, cancel).await;
    tracing::info!("stopping: finishing recordings");
    rtsp_cancel.cancel();
    manager.shutdown().await;
    if let Some(rtsp) = rtsp {
        // A panic in there has said so in the log.
        let _ = rtsp.await;
    }
    tracing::info!("stopped");
    Ok(served?)
}

/// The file that was named, or the one in a usual place.
pub(crate) fn config_file(named: Option<&Path>) -> Option<PathBuf> {
    let usual = || ["config.toml", "/etc/stream-manager/config.toml"].map(PathBuf::from);
    named.map(Path::to_owned).or_else(|| usual().into_iter().find(|path| path.is_file()))
}

/// Reads the configuration and checks its streams; says everything that is wrong, one line each.
pub(crate) fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config, Vec<String>> {
    let config = Config::load(file, std::env::vars(), overrides).map_err(|e| vec![e.to_string()])?;
    let problems = check_streams(&config);
    if problems.is_empty() {
        return Ok(config);
    }
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
