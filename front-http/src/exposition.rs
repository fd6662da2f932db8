//! How numbers are written: OpenMetrics 1.0 by the `prometheus-client` library, and from that the Prometheus text
//! format 0.0.4, whichever a scraper asks for.

use std::collections::HashMap;
use std::fmt;

use front::{Histogram, Metric, Value};
use http::{HeaderMap, HeaderValue, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// A way to write numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// What is written unless something else is asked for, as by every exporter.
    Prometheus,
    OpenMetrics,
}

const OPENMETRICS: &str = "application/openmetrics-text";

impl Format {
    /// The one that the scraper prefers (RFC 9110 §12.5.1). OpenMetrics only to those that name it.
    pub(crate) fn asked_by(headers: &HeaderMap) -> Self {
        let (mut open, mut plain) = (0, 0);
        for value in headers.get_all(header::ACCEPT) {
            for range in String::from_utf8_lossy(value.as_bytes()).split(',') {
                let mut parts = range.split(';').map(str::trim);
                let media = parts.next().unwrap_or_default().to_ascii_lowercase();
                let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1_000, thousandths);
                match &*media {
                    OPENMETRICS => open = weight.max(open),
                    "text/plain" | "text/*" | "*/*" => plain = weight.max(plain),
                    _ => {}
                }
            }
        }
        if open > 0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
    }

    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// A weight in thousandths; what is no weight is the greatest.
fn thousandths(text: &str) -> u16 {
    let weight = text.trim().parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight));
    weight.map_or(1_000, |weight| (weight * 1_000.0).round() as u16)
}

/// Writes the numbers. Those of one name stand together, at the place of the first.
pub(crate) fn write(metrics: Vec<Metric>, format: Format) -> Result<String, fmt::Error> {
    let (standard, ours) = families(metrics).into_iter().partition(|family| is_standard(family));
    let mut prefixed = Registry::with_prefix("fanwire");
    prefixed.register_collector(Box::new(Families(ours)));
    let mut plain = Registry::default();
    plain.register_collector(Box::new(Families(standard)));
    let mut out = String::with_capacity(16 * 1024);
    text::encode_registry(&mut out, &prefixed)?;
    text::encode_registry(&mut out, &plain)?;
    if format == Format::Prometheus {
        return Ok(prometheus(&out));
    }
    text::encode_eof(&mut out)?;
    Ok(out)
}

/// Metrics of one name.
type Family = Vec<Metric>;

fn families(metrics: Vec<Metric>) -> Vec<Family> {
    let mut places = HashMap::<&'static str, usize>::new();
    let mut families = Vec::<Family>::new();
    for metric in metrics {
        let place = *places.entry(metric.name).or_insert(families.len());
        match families.get_mut(place) {
            Some(family) => family.push(metric),
            None => families.push(vec![metric]),
        }
    }
    families
}

/// Names that every program's process has.
fn is_standard(family: &[Metric]) -> bool {
    family.first().is_some_and(|metric| metric.name.starts_with("process_"))
}

/// Numbers as they were a moment ago.
#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let Some(first) = family.first() else { continue };
            let kind = kind_of(&first.value);
            let (name, unit) = split_unit(first.name);
            let mut encoder = encoder.encode_descriptor(name, first.help, unit.as_ref(), kind)?;
            for metric in family {
                write_one(metric, &mut encoder)?;
            }
        }
        Ok(())
    }
}

fn write_one(metric: &Metric, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    if matches!(metric.value, Value::Info) {
        return encoder.encode_info(&metric.labels);
    }
    if metric.labels.is_empty() {
        return write_value(&metric.value, encoder);
    }
    write_value(&metric.value, &mut encoder.encode_family(&metric.labels)?)
}

fn write_value(value: &Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match value {
        Value::Counter(value) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
        Value::CountedSeconds(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
        Value::Gauge(value) => encoder.encode_gauge(value),
        Value::Seconds(value) => encoder.encode_gauge(value),
        Value::Histogram(durations) => {
            let bounds = Histogram::BOUNDS.iter().map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(durations.counts).collect();
            encoder.encode_histogram::<NoLabelSet>(
                durations.sum.as_secs_f64(),
                durations.count(),
                &buckets,
                None,
            )
        }
        _ => Ok(()),
    }
}

fn kind_of(value: &Value) -> MetricType {
    match value {
        Value::Counter(_) | Value::CountedSeconds(_) => MetricType::Counter,
        Value::Gauge(_) | Value::Seconds(_) => MetricType::Gauge,
        Value::Histogram(_) => MetricType::Histogram,
        Value::Info => MetricType::Info,
        _ => MetricType::Unknown,
    }
}

/// The unit is a part of the name that OpenMetrics wants to know of.
fn split_unit(name: &str) -> (&str, Option<Unit>) {
    let unit = |suffix, unit| name.strip_suffix(suffix).map(|name| (name, Some(unit)));
    unit("_bytes", Unit::Bytes).or_else(|| unit("_seconds", Unit::Seconds)).unwrap_or((name, None))
}

/// The older format, in which a counter is called as its sample is, nothing is known of units and information is a
/// gauge.
fn prometheus(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len() + 1024);
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            let help = help.strip_prefix(name).unwrap_or_default();
            out.extend(["# HELP ", name, suffix, help, "\n# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([line, "\n"]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample() -> Vec<Metric> {
        let times = Histogram::default();
        times.observe(Duration::from_micros(30));
        times.observe(Duration::from_secs(60));
        vec![
            Metric::counter("refused", "Refused", 1).with("protocol", "sse"),
            Metric::gauge("log_bytes", "Bytes", 7).with("namespace", "a\"\\\n"),
            Metric::counter("refused", "Refused", 2).with("protocol", "mqtt"),
            Metric::counted_seconds("process_cpu_seconds", "CPU", 1.5),
            Metric::histogram("wait_seconds", "Waits", times.durations()),
            Metric::info("build", "Build").with("version", "1"),
        ]
    }

    #[test]
    fn a_family_stands_together_and_each_format_has_its_own_names() {
        let open = write(sample(), Format::OpenMetrics).unwrap();
        let start = "# HELP fanwire_refused Refused\n# TYPE fanwire_refused counter\n\
            fanwire_refused_total{protocol=\"sse\"} 1\nfanwire_refused_total{protocol=\"mqtt\"} 2\n\
            # HELP fanwire_log_bytes Bytes\n# TYPE fanwire_log_bytes gauge\n# UNIT fanwire_log_bytes bytes\n\
            fanwire_log_bytes{namespace=\"a\\\"\\\\\\n\"} 7\n";
        assert!(open.starts_with(start), "{open}");
        assert!(open.ends_with("process_cpu_seconds_total 1.5\n# EOF\n"), "{open}");
        assert!(open.contains("# TYPE fanwire_build info\nfanwire_build_info{version=\"1\"} 1\n"), "{open}");
        for bucket in ["le=\"0.000025\"} 0", "le=\"0.00005\"} 1", "le=\"10.0\"} 1", "le=\"+Inf\"} 2"] {
            assert!(open.contains(&format!("fanwire_wait_seconds_bucket{{{bucket}\n")), "{bucket} in {open}");
        }
        assert!(open.contains("fanwire_wait_seconds_count 2\n"), "{open}");

        let plain = write(sample(), Format::Prometheus).unwrap();
        let start = "# HELP fanwire_refused_total Refused\n# TYPE fanwire_refused_total counter\n\
            fanwire_refused_total{protocol=\"sse\"} 1\n";
        assert!(plain.starts_with(start), "{plain}");
        assert!(plain.contains("# TYPE fanwire_build_info gauge\nfanwire_build_info{"), "{plain}");
        assert!(plain.contains("# TYPE process_cpu_seconds_total counter\n"), "{plain}");
        assert!(!plain.contains("# UNIT") && !plain.contains("# EOF"), "{plain}");
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(&open), samples(&plain));
    }

    #[test]
    fn a_scraper_gets_the_format_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (None, Format::Prometheus),
            (Some("*/*"), Format::Prometheus),
            (Some("text/plain"), Format::Prometheus),
            (Some("text/plain, application/openmetrics-text;q=0.5"), Format::Prometheus),
            (Some("application/openmetrics-text;q=0"), Format::Prometheus),
            (Some("application/json"), Format::Prometheus),
            (Some("Application/OpenMetrics-Text; version=1.0.0"), Format::OpenMetrics),
            (Some("application/openmetrics-text;q=nonsense, */*;q=0.1"), Format::OpenMetrics),
            (Some(prometheus), Format::OpenMetrics),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept))));
            assert_eq!(Format::asked_by(&headers), format, "{accept:?}");
        }
    }
}
