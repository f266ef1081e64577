//! Traces, logs and metrics by OTLP over HTTP, protobuf (feature `otel`; <https://opentelemetry.io/docs/specs/otlp/>).
//!
//! [`Otlp`] gives layers for a `tracing` subscriber of the program's own: one that sends spans of traces (a request, the change that it makes,
//! the connection to a camera and the recording that follow from it), and one that sends log lines, each with the trace that it was
//! said in. The service sends metrics, the same that Prometheus scrapes, through it. What cannot be sent within its time is lost, and said once;
//! nothing ever waits for the receiver, and the queues are bounded.
//!
//! ```no_run
//! # async fn example() -> Result<(), String> {
//! use stream_manager_core::config::Config;
//! use stream_manager_core::{logs::LogFilter, otel::Otlp};
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! let config = Config::from_toml("telemetry.otlp.endpoint = \"http://127.0.0.1:4318\"").unwrap();
//! let otlp = Otlp::start(config.telemetry.otlp.as_ref().unwrap())?;
//! let filter = LogFilter::new("info", &config.telemetry.log_streams)?;
//! filter.let_traces_through(true);
//! let subscriber = tracing_subscriber::registry().with(otlp.layers()).with(filter);
//! // … and in the end
//! otlp.end().await;
//! # Ok(())
//! # }
//! ```

mod client;
mod metrics;

use crate::config::OtlpConfig;
use crate::logs::is_trace;
use client::{Client, Sent};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tracing::{Event, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// How long one request to the receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last ones may take when the program ends.
const END: Duration = Duration::from_secs(5);
const SERVICE: &str = "stream-manager";

/// What sends telemetry. Clones are handles to the same.
#[derive(Clone)]
pub struct Otlp {
    inner: Arc<Inner>,
}

struct Inner {
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    metrics: Option<Duration>,
    client: Client,
    url: String,
    headers: HashMap<String, String>,
    instance: String,
    started: SystemTime,
}

impl std::fmt::Debug for Otlp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Otlp")
            .field("endpoint", &crate::error::redact_url(&self.inner.url))
            .finish_non_exhaustive()
    }
}

impl Otlp {
    /// Begins to send. Must be called on a tokio runtime, which requests run on.
    ///
    /// # Errors
    /// If the address or a header cannot be used.
    pub fn start(config: &OtlpConfig) -> Result<Self, String> {
        let handle = tokio::runtime::Handle::try_current().map_err(|e| e.to_string())?;
        let (url, login) = crate::http_client::without_login(config.endpoint.reveal())?;
        let url = url.as_str().trim_end_matches('/').to_owned();
        let mut headers: HashMap<String, String> =
            config.headers.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect();
        if let Some(login) = login.and_then(|login| login.to_str().ok().map(str::to_owned)) {
            headers.insert("authorization".into(), login);
        }
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let instance = config.instance.clone().unwrap_or_else(host);
        let resource = Resource::builder()
            .with_service_name(SERVICE)
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", instance.clone()),
            ])
            .build();
        let client = Client::new(handle);
        let wrong = |e: opentelemetry_otlp::ExporterBuildError| format!("telemetry.otlp: {e}");
        let traces = if config.traces {
            let exporter = SpanExporter::builder()
                .with_http()
                .with_http_client(client.for_what(Sent::Traces))
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(format!("{url}/v1/traces"))
                .with_headers(headers.clone())
                .with_timeout(TIMEOUT)
                .build()
                .map_err(wrong)?;
            let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample)));
            let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_sampler(sampler);
            Some(provider.with_resource(resource.clone()).build())
        } else {
            None
        };
        let logs = if config.logs {
            let exporter = LogExporter::builder()
                .with_http()
                .with_http_client(client.for_what(Sent::Logs))
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(format!("{url}/v1/logs"))
                .with_headers(headers.clone())
                .with_timeout(TIMEOUT)
                .build()
                .map_err(wrong)?;
            Some(SdkLoggerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
        } else {
            None
        };
        let metrics = config.metrics.then_some(config.interval.0);
        Ok(Self {
            inner: Arc::new(Inner {
                traces,
                logs,
                metrics,
                client,
                url,
                headers,
                instance,
                started: SystemTime::now(),
            }),
        })
    }

    /// Whether traces are sent, so that their spans have to be let through.
    pub fn has_traces(&self) -> bool {
        self.inner.traces.is_some()
    }

    /// The layers that send traces and log lines.
    pub fn layers<S>(&self) -> Vec<Box<dyn Layer<S> + Send + Sync>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let mut layers: Vec<Box<dyn Layer<S> + Send + Sync>> = Vec::new();
        if let Some(traces) = &self.inner.traces {
            let layer =
                tracing_opentelemetry::layer().with_tracer(traces.tracer(SERVICE)).with_location(false);
            // Threads change with every step of a task, and say nothing.
            let layer = layer.with_threads(false).with_tracked_inactivity(false);
            layers.push(
                layer.with_filter(filter_fn(|metadata| metadata.is_event() || is_trace(metadata))).boxed(),
            );
        }
        if let Some(logs) = &self.inner.logs {
            layers.push(Others(OpenTelemetryTracingBridge::new(logs)).boxed());
        }
        layers
    }

    /// How often metrics are sent, if they are.
    pub(crate) fn metrics_interval(&self) -> Option<Duration> {
        self.inner.metrics
    }

    /// Sends metrics, as Prometheus reads them. What comes of it is said in the log.
    pub(crate) async fn send_metrics(&self, text: &str) {
        let inner = &self.inner;
        let body = metrics::request(text, inner.started, SERVICE, &inner.instance);
        let url = format!("{}/v1/metrics", inner.url);
        let _ = inner.client.send(Sent::Metrics, &url, &inner.headers, body).await;
    }

    /// Sends what is left, for a few seconds at most.
    pub async fn end(&self) {
        let inner = self.inner.clone();
        let ending = tokio::task::spawn_blocking(move || {
            // What they say was said by the client.
            if let Some(traces) = &inner.traces {
                let _ = traces.shutdown_with_timeout(END);
            }
            if let Some(logs) = &inner.logs {
                let _ = logs.shutdown_with_timeout(END);
            }
        });
        let _ = tokio::time::timeout(END * 2, ending).await;
    }
}

/// Makes a request's span part of the trace that the request names (`traceparent`).
pub(crate) fn continue_trace(span: &Span, headers: &axum::http::HeaderMap) {
    use opentelemetry::propagation::TextMapPropagator as _;
    if !headers.contains_key("traceparent") {
        return;
    }
    let context = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &opentelemetry_http::HeaderExtractor(headers));
    // An error only says that nobody takes spans.
    let _ = span.set_parent(context);
}

/// Whether a line is about sending lines, which leads to more of them.
fn is_own(metadata: &Metadata<'_>) -> bool {
    let own = [module_path!(), "opentelemetry", "hyper", "h2", "rustls"];
    own.iter().any(|target| metadata.target().starts_with(target))
}

/// Takes all events but those about sending them.
struct Others<L>(L);

impl<S, L> Layer<S> for Others<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    L: Layer<S>,
{
    fn on_event(&self, event: &Event<'_>, context: tracing_subscriber::layer::Context<'_, S>) {
        if !is_own(event.metadata()) {
            self.0.on_event(event, context);
        }
    }
}
