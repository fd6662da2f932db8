//! Moving averages, as mosquitto computes those of `$SYS/broker/load/...`: per minute, over 1, 5 and 15 minutes.

/// The spans, with the names that topics have for them, in minutes.
pub(crate) const SPANS: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

/// The averages of one count that only grows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    counted: u64,
    per_minute: [f64; SPANS.len()],
}

impl Load {
    /// Takes the count as it is now, `minutes` after the last time; the averages in the order of [`SPANS`].
    pub(crate) fn update(&mut self, count: u64, minutes: f64) -> [f64; SPANS.len()] {
        if minutes > 0.0 {
            let rate = count.saturating_sub(self.counted) as f64 / minutes;
            for (average, (_, span)) in self.per_minute.iter_mut().zip(SPANS) {
                *average = rate + (-minutes / span).exp() * (*average - rate);
            }
            self.counted = count;
        }
        self.per_minute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_reached_over_its_span_and_left_over_it_again() {
        let mut load = Load::default();
        assert_eq!(load.update(100, 0.0), [0.0; 3], "no time has gone by");
        // 600 a minute, looked at every ten seconds; an hour is many spans.
        let mut count = 0;
        let mut at = |load: &mut Load, looks: u64, each: u64| {
            (0..looks).map(|_| (count += each, load.update(count, 1.0 / 6.0)).1).last().unwrap()
        };
        let after_a_minute = at(&mut load, 6, 100);
        let reached = |span: f64| 600.0 * (1.0 - (-1.0 / span).exp());
        for (average, (name, span)) in after_a_minute.into_iter().zip(SPANS) {
            assert!((average - reached(span)).abs() < 1e-9, "{name}: {average}");
        }
        let after_an_hour = at(&mut load, 360, 100);
        assert!((after_an_hour[0] - 600.0).abs() < 0.01 && (after_an_hour[2] - 600.0).abs() < 12.0);
        let quiet = at(&mut load, 60, 0);
        assert!(quiet[0] < 0.1 && quiet[2] > 250.0, "{quiet:?}");
    }
}
