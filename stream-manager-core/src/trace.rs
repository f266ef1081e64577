//! Traces: what one request leads to, across tasks and threads.
//!
//! Spans of traces have a target of their own ([`TARGET`]), so that logs leave them alone and they cost nothing unless somebody
//! takes them. A task that outlives what began it does not hold on to the span: it remembers the [`Origin`], and its own spans are the
//! span's children by that.

/// The target of all spans of traces.
pub(crate) const TARGET: &str = "stream_manager_core::trace";

/// A span of a trace; fields as for `tracing::info_span`. With `apart` it is no child of the span that we are in, and does not keep it open.
macro_rules! trace_span {
    (apart $name:literal $($rest:tt)*) => {
        tracing::info_span!(target: $crate::trace::TARGET, parent: None, $name $($rest)*)
    };
    ($name:literal $($rest:tt)*) => {
        tracing::info_span!(target: $crate::trace::TARGET, $name $($rest)*)
    };
}
pub(crate) use trace_span;

/// Which span something came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    #[cfg(feature = "otel")]
    context: Option<opentelemetry::Context>,
}

impl Origin {
    /// The span that we are in.
    pub(crate) fn current() -> Self {
        #[cfg(feature = "otel")]
        {
            use opentelemetry::trace::TraceContextExt as _;
            use tracing_opentelemetry::OpenTelemetrySpanExt as _;
            let context = tracing::Span::current().context();
            Self { context: context.span().span_context().is_valid().then_some(context) }
        }
        #[cfg(not(feature = "otel"))]
        Self {}
    }

    /// Makes a span a child of it.
    #[cfg_attr(not(feature = "otel"), expect(clippy::unused_self))]
    pub(crate) fn adopt(&self, span: tracing::Span) -> tracing::Span {
        #[cfg(feature = "otel")]
        if let Some(context) = &self.context {
            use tracing_opentelemetry::OpenTelemetrySpanExt as _;
            // An error only says that nobody takes spans.
            let _ = span.set_parent(context.clone());
        }
        span
    }
}
