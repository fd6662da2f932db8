//! What a front counts, as an operator reads it.

use std::borrow::Cow;

use broker_core::Durations;

/// One number to show, or one histogram. Several with one name are one family: they have the same help and kind, and
/// differ in their labels.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// Without the prefix `fanwire_` and without a counter's `_total`, e.g. `sse_streams`; the unit stands last, as in
    /// `log_bytes` or `delivery_seconds`. Names that begin with `process_` are shown as they are: every program has
    /// those.
    pub name: &'static str,
    /// One sentence without its full stop.
    pub help: &'static str,
    /// Names and values, in the order in which they are shown. What a peer can choose is none: each value is a series
    /// that is kept for ever.
    pub labels: Vec<Label>,
    /// The number and what it means over time.
    pub value: Value,
}

/// The name and the value of a label.
pub type Label = (&'static str, Cow<'static, str>);

impl Metric {
    const fn new(name: &'static str, help: &'static str, value: Value) -> Self {
        Self { name, help, labels: Vec::new(), value }
    }

    /// A number that only grows while the process lives.
    pub const fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, help, Value::Counter(value))
    }

    /// Seconds that only grow. The name ends with `_seconds`.
    pub const fn counted_seconds(name: &'static str, help: &'static str, seconds: f64) -> Self {
        Self::new(name, help, Value::CountedSeconds(seconds))
    }

    /// A number that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, help, Value::Gauge(value))
    }

    /// Seconds that go up and down. The name ends with `_seconds`.
    pub const fn seconds(name: &'static str, help: &'static str, seconds: f64) -> Self {
        Self::new(name, help, Value::Seconds(seconds))
    }

    /// How long things took. The name ends with `_seconds`.
    pub fn histogram(name: &'static str, help: &'static str, durations: Durations) -> Self {
        Self::new(name, help, Value::Histogram(Box::new(durations)))
    }

    /// What does not change and is read from the labels; its number is 1. Shown with `_info` behind its name.
    pub const fn info(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Value::Info)
    }

    /// The same with one more label.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

/// A number, and whether it may fall.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Only grows while the process lives.
    Counter(u64),
    /// The same, in seconds.
    CountedSeconds(f64),
    /// Goes up and down.
    Gauge(u64),
    /// The same, in seconds.
    Seconds(f64),
    /// Durations by their upper bounds.
    Histogram(Box<Durations>),
    /// Always 1.
    Info,
}

/// Where numbers come from, read at each scrape. Implemented for closures.
pub trait MetricSource: Send + Sync + 'static {
    /// Appends the numbers as they are now. Must not block.
    fn collect(&self, out: &mut Vec<Metric>);
}

impl<F: Fn(&mut Vec<Metric>) + Send + Sync + 'static> MetricSource for F {
    fn collect(&self, out: &mut Vec<Metric>) {
        self(out);
    }
}

/// Messages and requests that a front did not take, under the name that all fronts share. `reason` is one word:
/// `rights`, `rate`, `busy` or `other`.
pub fn refused(protocol: &'static str, reason: &'static str, count: u64) -> Metric {
    let help = "Requests, messages and subscriptions that a protocol's front refused";
    Metric::counter("refused", help, count).with("protocol", protocol).with("reason", reason)
}

/// Messages that a protocol has no words for, under the name that all fronts share.
pub fn inexpressible(protocol: &'static str, count: u64) -> Metric {
    let help = "Messages that were not sent to a protocol's clients because it cannot express their channel";
    Metric::counter("inexpressible_messages", help, count).with("protocol", protocol)
}
