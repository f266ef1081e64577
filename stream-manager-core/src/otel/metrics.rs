//! Metrics as an OTLP message: read from the text that Prometheus gets, so that both always say the same.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

type Labels = Vec<(String, String)>;

/// A family of metrics, as it stands in the text.
#[derive(Debug, Default)]
struct Family {
    name: String,
    help: String,
    kind: String,
    samples: Vec<(String, Labels, f64)>,
}

/// A sample's name, labels and value.
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    let mut rest = rest;
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            inside = inside.trim_start_matches(',');
            if let Some(after) = inside.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = inside.split_once("=\"")?;
            let mut value = String::new();
            let mut letters = after.char_indices();
            let end = loop {
                match letters.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match letters.next()?.1 {
                        'n' => '\n',
                        other => other,
                    }),
                    (_, letter) => value.push(letter),
                }
            };
            labels.push((label.to_owned(), value));
            inside = after.get(end + 1..)?;
        }
    }
    let value = rest.split_whitespace().next()?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        value => value.parse().ok()?,
    };
    Some((name.to_owned(), labels, value))
}

fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            families.push(Family { name: name.to_owned(), help: help.to_owned(), ..Family::default() });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            if let (Some(family), Some((_, kind))) = (families.last_mut(), rest.split_once(' ')) {
                kind.clone_into(&mut family.kind);
            }
        } else if !line.starts_with('#')
            && let (Some(family), Some(sample)) = (families.last_mut(), sample(line))
        {
            family.samples.push(sample);
        }
    }
    families
}

fn text_value(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) })
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: text_value(value), ..KeyValue::default() }
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels.iter().map(|(key, value)| attribute(key, value)).collect()
}

struct Times {
    started: u64,
    now: u64,
}

fn number(labels: &Labels, value: f64, times: &Times) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// One series of a histogram: buckets up to each bound, sum and count.
#[derive(Default)]
struct Series {
    buckets: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and not negative"
)]
fn histogram(family: &Family, times: &Times) -> Histogram {
    let mut all: BTreeMap<Labels, Series> = BTreeMap::new();
    for (name, labels, value) in &family.samples {
        let (bound, labels): (Labels, Labels) = labels.iter().cloned().partition(|(key, _)| key == "le");
        let series = all.entry(labels).or_default();
        if name.ends_with("_bucket") {
            let bound = bound.first().map_or("+Inf", |(_, bound)| bound);
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap_or(f64::INFINITY) };
            series.buckets.push((bound, *value as u64));
        } else if name.ends_with("_sum") {
            series.sum = *value;
        } else if name.ends_with("_count") {
            series.count = *value as u64;
        }
    }
    let point = |(labels, mut series): (Labels, Series)| {
        series.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        // There everything below a bound counts, here only what is above the bound before.
        let mut below = 0;
        let mut counts: Vec<u64> = Vec::new();
        for (_, count) in &series.buckets {
            counts.push(count.saturating_sub(below));
            below = *count;
        }
        HistogramDataPoint {
            attributes: attributes(&labels),
            start_time_unix_nano: times.started,
            time_unix_nano: times.now,
            count: series.count,
            sum: Some(series.sum),
            bucket_counts: counts,
            explicit_bounds: series
                .buckets
                .iter()
                .map(|(bound, _)| *bound)
                .filter(|b| b.is_finite())
                .collect(),
            ..HistogramDataPoint::default()
        }
    };
    Histogram {
        data_points: all.into_iter().map(point).collect(),
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
    }
}

fn metric(family: &Family, times: &Times) -> Metric {
    let points = || family.samples.iter().map(|(_, labels, value)| number(labels, *value, times)).collect();
    let data = match family.kind.as_str() {
        "counter" => Data::Sum(Sum {
            data_points: points(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        "histogram" => Data::Histogram(histogram(family, times)),
        _ => Data::Gauge(Gauge { data_points: points() }),
    };
    Metric {
        name: family.name.clone(),
        description: family.help.clone(),
        data: Some(data),
        ..Metric::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_nanos()).ok()).unwrap_or(0)
}

/// The message for Prometheus' text.
pub(super) fn request(text: &str, started: SystemTime, service: &str, instance: &str) -> Vec<u8> {
    let times = Times { started: nanos(started), now: nanos(SystemTime::now()) };
    let metrics = families(text).iter().map(|family| metric(family, &times)).collect();
    let version = env!("CARGO_PKG_VERSION");
    let resource = Resource {
        attributes: vec![
            attribute("service.name", service),
            attribute("service.version", version),
            attribute("service.instance.id", instance),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: service.to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    };
    let scoped = ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() };
    let all = ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![scoped],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_is_read() {
        let text = "# HELP a_total Things that\n# TYPE a_total counter\na_total{stream=\"x,y\",url=\"a\\\"b\\\\c\\nd}\"} 7\na_total 1\n\
                    # HELP b B\n# TYPE b gauge\nb 1.5e3\n\
                    # HELP c C\n# TYPE c histogram\nc_bucket{le=\"1.0\",route=\"r\"} 2\nc_bucket{le=\"5.0\",route=\"r\"} 5\nc_bucket{le=\"+Inf\",route=\"r\"} 6\nc_sum{route=\"r\"} 12.5\nc_count{route=\"r\"} 6\n# EOF\n";
        let message = request(text, SystemTime::now(), "s", "i");
        let read = ExportMetricsServiceRequest::decode(message.as_slice()).unwrap();
        let metrics = &read.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<&str> = metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["a_total", "b", "c"]);
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert!(sum.is_monotonic && sum.data_points.len() == 2);
        assert_eq!(sum.data_points[0].attributes[1], attribute("url", "a\"b\\c\nd}"));
        let Some(Data::Gauge(gauge)) = &metrics[1].data else { panic!("{metrics:?}") };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(1500.0)));
        let Some(Data::Histogram(histogram)) = &metrics[2].data else { panic!("{metrics:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (6, Some(12.5)));
        assert_eq!((&point.bucket_counts[..], &point.explicit_bounds[..]), (&[2, 3, 1][..], &[1.0, 5.0][..]));
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(text in "(# (HELP|TYPE) )?[a-z_]{0,5}[{}\"=,\\\\ 0-9a-zé\n]{0,60}") {
            request(&text, SystemTime::now(), "s", "i");
        }
    }
}
