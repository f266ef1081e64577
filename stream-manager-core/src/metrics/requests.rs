//! Answers to HTTP requests: how many, how long they took, by route. Routes are those of the API's description, so their number is
//! bounded whatever is asked for.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Instant;

/// Seconds.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    route: &'static str,
    status: &'static str,
}

/// Counts answers. Clones count together.
#[derive(Clone, Debug)]
pub struct Requests {
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    running: Gauge,
}

impl Default for Requests {
    fn default() -> Self {
        let make: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self { durations: Family::new_with_constructor(make), running: Gauge::default() }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Timer<'a> {
    requests: &'a Requests,
    begun: Instant,
}

impl Requests {
    /// One has come.
    pub fn begin(&self) -> Timer<'_> {
        self.running.inc();
        Timer { requests: self, begun: Instant::now() }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "How long it took until an answer's head was there";
        registry.register("http_request_duration_seconds", help, self.durations.clone());
        registry.register("http_requests_running", "Requests that are being answered", self.running.clone());
    }
}

impl Timer<'_> {
    /// It is answered.
    pub fn answered(&self, method: &str, route: &'static str, status: u16) {
        let method = match method {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            "OPTIONS" => "OPTIONS",
            _ => "other",
        };
        let status = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        let labels = Labels { method, route, status };
        self.requests.durations.get_or_create(&labels).observe(self.begun.elapsed().as_secs_f64());
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.requests.running.dec();
    }
}
