//! What was measured.

use std::fmt;
use std::time::Duration;

/// Of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Figures {
    pub(crate) fn of(mut times: Vec<Duration>, span: Duration) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            let index = (times.len() as f64 * part) as usize;
            times.get(index.min(times.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self { per_second: times.len() as f64 / span.as_secs_f64(), p50_us: at(0.5), p99_us: at(0.99) }
    }

    /// Each figure's own median.
    pub(crate) fn median_of(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(&all.iter().map(figure).collect::<Vec<_>>());
        Self {
            per_second: of(|figures| figures.per_second),
            p50_us: of(|figures| figures.p50_us),
            p99_us: of(|figures| figures.p99_us),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} | {:.0} | {:.0}", self.per_second, self.p50_us, self.p99_us)
    }
}

pub(crate) fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

pub(crate) fn ratio(one: &Figures, other: &Figures) -> f64 {
    one.per_second / other.per_second
}
