//! Printing, logging and signals: everything that belongs to a process and not to the library.

use std::io::Write;
use std::sync::Arc;
use stream_manager_core::config::{Config, LogFormat, TelemetryConfig};
use stream_manager_core::logs::{LogFilter, LogRing, RepeatLimit, is_trace};
use stream_manager_core::manager::ConfigUser;
use stream_manager_core::otel::Otlp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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

/// The log, which a new configuration may change.
pub(crate) struct Log {
    filter: LogFilter,
    /// How often the same is logged.
    pub(crate) repeats: RepeatLimit,
    /// What else is sent somewhere.
    pub(crate) otlp: Option<Otlp>,
}

#[async_trait::async_trait]
impl ConfigUser for Log {
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        let (old, new) = (&old.telemetry, &new.telemetry);
        self.repeats.change(new.log_repeats);
        if (&old.log, &old.log_streams) == (&new.log, &new.log_streams) {
            return Ok(());
        }
        self.filter.change(&new.log, &new.log_streams).map_err(|e| format!("telemetry.log: {e}"))
    }
}

/// Sends the log to standard error, for one job.
pub(crate) fn start_plain_log(filter: &str) -> Result<(), String> {
    let config = TelemetryConfig { log: filter.to_owned(), ..TelemetryConfig::default() };
    start_log(&config, None).map(drop)
}

/// Sends the log to standard error or the journal, into a ring if there is one, and wherever else it is to go.
pub(crate) fn start_log(config: &TelemetryConfig, ring: Option<LogRing>) -> Result<Log, String> {
    let filter = LogFilter::new(&config.log, &config.log_streams)?;
    let repeats = RepeatLimit::new(config.log_repeats);
    let otlp = config.otlp.as_ref().map(Otlp::start).transpose()?;
    filter.let_traces_through(otlp.as_ref().is_some_and(Otlp::has_traces));
    let lines = filter_fn(|metadata| !is_trace(metadata));
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let shown = match config.log_format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            text.with_ansi(colours).with_target(false).with_filter(lines).boxed()
        }
        LogFormat::Json => text.json().with_filter(lines).boxed(),
        LogFormat::Journald => {
            let journal = tracing_journald::layer().map_err(|e| {
                format!("telemetry.log_format: there is no journal here: {e}; expected text or json")
            })?;
            // Fields are called what they are: STREAM, ERROR and so on.
            journal.with_field_prefix(None).with_filter(lines).boxed()
        }
    };
    // What decides comes last: it is asked first.
    tracing_subscriber::registry()
        .with(shown)
        .with(otlp.as_ref().map(Otlp::layers).unwrap_or_default())
        .with(ring)
        .with(repeats.clone())
        .with(filter.clone())
        .try_init()
        .map_err(|e| e.to_string())?;
    Ok(Log { filter, repeats, otlp })
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
