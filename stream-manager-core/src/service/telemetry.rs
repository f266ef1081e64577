//! Sending what is counted to whoever collects it.

use crate::health::LoopWatch;
use crate::hooks::Hooks;
use crate::manager::StreamManager;
use crate::metrics::{Format, Requests, Sources, text};
use crate::otel::Otlp;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the last numbers may take when the server ends.
const END: Duration = Duration::from_secs(3);

/// Where numbers come from.
pub(super) struct Counted {
    pub(super) manager: StreamManager,
    pub(super) hooks: Hooks,
    pub(super) requests: Requests,
    pub(super) watch: Arc<LoopWatch>,
}

impl Counted {
    async fn text(&self) -> Option<String> {
        let sources = Sources::new(&self.manager).hooks(Some(&self.hooks));
        let sources = sources.requests(&self.requests).loop_delay(Some(self.watch.delay()));
        text(&sources, Format::Prometheus).await.ok()
    }
}

/// Sends them again and again, until `cancel`, and once more then.
pub(super) async fn keep_sending(otlp: Otlp, counted: Counted, cancel: CancellationToken) {
    let Some(interval) = otlp.metrics_interval() else { return };
    let send = || async {
        if let Some(text) = counted.text().await {
            otlp.send_metrics(&text).await;
        }
    };
    while cancel.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        send().await;
    }
    // Who does not take the last ones in time does not get them.
    let _ = tokio::time::timeout(END, send()).await;
}
