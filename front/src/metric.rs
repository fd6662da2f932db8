//! What a front counts, as an operator reads it.

/// One number to show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Metric {
    /// Without the prefix `fanwire_` and without a counter's `_total`, e.g. `sse_streams`. Unique.
    pub name: &'static str,
    /// One sentence without its full stop.
    pub help: &'static str,
    /// The number and what it means over time.
    pub value: Value,
}

impl Metric {
    /// A number that only grows while the process lives.
    pub const fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, value: Value::Counter(value) }
    }

    /// A number that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, value: Value::Gauge(value) }
    }
}

/// A number, and whether it may fall.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value {
    /// Only grows while the process lives.
    Counter(u64),
    /// Goes up and down.
    Gauge(u64),
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
