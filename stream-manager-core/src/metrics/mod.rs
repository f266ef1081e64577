//! What Prometheus scrapes: the state of everything as numbers (feature `http`, `GET /metrics`).
//!
//! Almost nothing is counted here. Each scrape reads what streams, hubs, recorders, sinks, disks and hooks count anyway, and writes it
//! as families of metrics in a fixed order; only answers to requests are timed here ([`Requests`]). Names follow Prometheus'
//! conventions: base units, `_total` for what only grows. Labels are ids from the configuration, names of kinds of consumers,
//! routes, and addresses without secrets, so there are no more series than there are streams times what they are configured to do.
//!
//! ```
//! # use stream_manager_core::{manager::StreamManager, metrics::{self, Sources}};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let manager = StreamManager::builder().build().await.unwrap();
//! let text = metrics::text(&Sources::new(&manager), metrics::Format::Prometheus).await.unwrap();
//! assert!(text.contains("stream_manager_streams{state=\"running\"} 0"));
//! # });
//! ```

mod process;
mod requests;
mod server;
mod storage;
mod streams;
mod write;

pub use requests::{Requests, Timer};

use crate::hooks::{HookStatus, Hooks};
use crate::manager::StreamManager;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::Duration;

/// How metrics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own text, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0 text.
    OpenMetrics,
}

impl Format {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What is asked for numbers.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    manager: &'a StreamManager,
    hooks: Option<&'a Hooks>,
    requests: Option<&'a Requests>,
    loop_delay: Option<Duration>,
}

impl<'a> Sources<'a> {
    /// A manager alone.
    pub fn new(manager: &'a StreamManager) -> Self {
        Self { manager, hooks: None, requests: None, loop_delay: None }
    }

    /// And its hooks.
    #[must_use]
    pub fn hooks(mut self, hooks: Option<&'a Hooks>) -> Self {
        self.hooks = hooks;
        self
    }

    /// And answers to requests.
    #[must_use]
    pub fn requests(mut self, requests: &'a Requests) -> Self {
        self.requests = Some(requests);
        self
    }

    /// And how late the runtime is.
    #[must_use]
    pub fn loop_delay(mut self, delay: Option<Duration>) -> Self {
        self.loop_delay = delay;
        self
    }
}

/// All metrics as they are now.
///
/// # Errors
/// If they cannot be written, which does not happen to text in memory.
pub async fn text(sources: &Sources<'_>, format: Format) -> Result<String, fmt::Error> {
    let manager = sources.manager;
    // Without an index there are no numbers about disks, and all others are there.
    let storage = manager.storage().await.ok();
    let reading = manager.clone();
    // Reads a few files of the kernel's.
    let system = tokio::task::spawn_blocking(move || reading.system()).await.ok();
    let hooks: Vec<HookStatus> = sources.hooks.map(Hooks::status).unwrap_or_default();
    // The usual names of a process' numbers have no prefix.
    let mut registry = Registry::default();
    registry.register_collector(Box::new(process::Process { system: system.clone() }));
    let own = registry.sub_registry_with_prefix("stream_manager");
    own.register_collector(Box::new(server::Server::of(manager, hooks, system, sources.loop_delay)));
    own.register_collector(Box::new(streams::Streams::of(manager)));
    if let Some(report) = storage {
        own.register_collector(Box::new(storage::Storage { report }));
    }
    if let Some(requests) = sources.requests {
        requests.register(own);
    }
    let mut text = String::new();
    match format {
        Format::Prometheus => prometheus_text::encode(&mut text, &registry)?,
        Format::OpenMetrics => text::encode(&mut text, &registry)?,
    }
    Ok(text)
}
