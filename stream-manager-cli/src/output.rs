//! Printing, logging and signals: everything that belongs to a process and not to the library.

use std::io::Write;
use std::sync::Arc;
use stream_manager_core::config::{Config, LogFormat};
use stream_manager_core::logs::LogRing;
use stream_manager_core::manager::ConfigUser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// A line on standard output. A reader that has gone away is its own affair.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// An error, the way programs say it.
pub(crate) fn error(text: &str) {
    note(&format!("stream-manager: {text}"));
}

/// Text that overwrites itself on a terminal.
pub(crate) fn status_line(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
}

/// The log's filter, which a new configuration may change.
pub(crate) struct LogHandle(reload::Handle<EnvFilter, Registry>);

#[async_trait::async_trait]
impl ConfigUser for LogHandle {
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        if old.telemetry.log == new.telemetry.log {
            return Ok(());
        }
        let filter = filter(&new.telemetry.log).map_err(|e| format!("telemetry.log: {e}"))?;
        self.0.reload(filter).map_err(|e| format!("telemetry.log: {e}"))
    }
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|e| format!("log filter \"{text}\": {e}; expected error, warn, info, debug or trace"))
}

/// Sends the log to standard error, and into a ring if there is one.
pub(crate) fn start_log(text: &str, format: LogFormat, ring: Option<LogRing>) -> Result<LogHandle, String> {
    let (filter, handle) = reload::Layer::new(filter(text)?);
    let registry = tracing_subscriber::registry().with(filter).with(ring);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(layer.with_ansi(colours).with_target(false)).try_init()
        }
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    started.map_err(|e| e.to_string())?;
    Ok(LogHandle(handle))
}

/// Does something on each SIGHUP, until `cancel`.
pub(crate) fn on_hangup(
    act: impl Fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while cancel.run_until_cancelled(hangup.recv()).await.flatten().is_some() {
            act().await;
        }
    });
    Ok(())
}

/// A token that Ctrl-C and SIGTERM cancel. A second one ends the process at once.
pub(crate) fn cancel_on_signal() -> std::io::Result<CancellationToken> {
    let cancel = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = cancel.clone();
    tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if attempt > 0 {
                std::process::exit(130);
            }
            token.cancel();
        }
    });
    Ok(cancel)
}
